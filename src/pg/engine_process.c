/*
 * engine_process.c
 *	  Starting background workers and engines, and the lines that engines say:
 *	  what supervisor, launcher and trainers share.
 *
 * An engine is forked and exec'ed and is not attached to PostgreSQL's memory.
 * It dies with the process that started it: by EOF on its control socket, and
 * by PDEATHSIG. Nothing is kept between calls.
 */
#include "bicycle.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

#define REGISTRATION_TIME 5000 /* ms in which a worker that was registered must have begun */
#define LINE_MAX_BYTES 4096
#define SPARE_FD 16 /* beyond the descriptors that an engine is given */

extern char **environ;

/* ---- Background workers -------------------------------------------------- */

void
worker_fill(BackgroundWorker *worker, const char *type, const char *function, bool for_jobs)
{
	memset(worker, 0, sizeof(*worker));
	strlcpy(worker->bgw_name, type, BGW_MAXLEN);
	strlcpy(worker->bgw_type, type, BGW_MAXLEN);
	strlcpy(worker->bgw_library_name, "bicycle", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, BGW_MAXLEN);
	worker->bgw_flags =
		BGWORKER_SHMEM_ACCESS | (for_jobs ? BGWORKER_BACKEND_DATABASE_CONNECTION : 0);
	worker->bgw_start_time =
		for_jobs ? BgWorkerStart_RecoveryFinished : BgWorkerStart_ConsistentState;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
}

bool
worker_ensure(BackgroundWorker *worker, const pid_t *pid, TimestampTz *registered_at)
{
	BicycleShared *shared = shared_attach();
	TimestampTz now = GetCurrentTimestamp();
	bool mine;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	mine = *pid == 0 && TimestampDifferenceExceeds(*registered_at, now, REGISTRATION_TIME);
	if (mine)
		*registered_at = now;
	LWLockRelease(&shared->lock);
	if (!mine || RegisterDynamicBackgroundWorker(worker, NULL))
		return true;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	*registered_at = 0;
	LWLockRelease(&shared->lock);
	return false;
}

/* ---- Engines ------------------------------------------------------------- */

/*
 * The environment of an engine: ours, and OpenMP threads that do not spin
 * between regions for longer than it takes to wake them: to sleep at once
 * nearly halves the speed of small networks, to spin on takes processors from
 * others.
 */
static char **
engine_environment(void)
{
	int n = 0;
	char **env;

	while (environ[n])
		n++;
	env = palloc((n + 3) * sizeof(char *));
	n = 0;
	for (char **e = environ; *e; e++)
		if (strncmp(*e, "OMP_WAIT_POLICY=", 16) != 0 && strncmp(*e, "GOMP_SPINCOUNT=", 15) != 0)
			env[n++] = *e;
	env[n++] = pstrdup("OMP_WAIT_POLICY=passive");
	env[n++] = pstrdup("GOMP_SPINCOUNT=5000");
	env[n] = NULL;
	return env;
}

/* Runs in the child between fork and exec; only async-signal-safe calls. */
static void
engine_exec(char *const argv[], char **env, const int *fds, int nfds, pid_t parent)
{
	sigset_t none;
	int spare[2];
	int oom;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	/*
	 * Server processes are signalled with their process group; a trainer that
	 * is to end first asks its engine for a checkpoint. A session, not only a
	 * group of its own: Linux may share processors by sessions, and this one's
	 * priority is not to be the trainer's.
	 */
	if (argv[1] != NULL)
		setsid();
	/* In two steps, because one may have the number that another is to get. */
	for (int i = 0; i < nfds; i++)
		if ((spare[i] = fcntl(fds[i], F_DUPFD, SPARE_FD)) < 0)
			_exit(126);
	for (int i = 0; i < nfds; i++)
		if (dup2(spare[i], BICYCLE_CONTROL_FD + i) < 0)
			_exit(126);
	/* Not every descriptor of a server process is close-on-exec. */
	if (syscall(SYS_close_range, BICYCLE_CONTROL_FD + nfds, ~0U, 0) != 0)
		for (int i = BICYCLE_CONTROL_FD + nfds; i < 65536; i++)
			close(i);
	oom = open("/proc/self/oom_score_adj", O_WRONLY);
	if (oom >= 0)
	{
		/*
		 * Refused where a container's processes have more than that already,
		 * which is as well.
		 */
		if (write(oom, "500", 3) != 3)
			errno = 0;
		close(oom);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(argv[0], argv, env);
	_exit(ENGINE_EXEC_FAILED);
}

pid_t
engine_fork(const char *argument, const int *fds, int nfds)
{
	char path[MAXPGPATH];
	char *argv[3] = { path, unconstify(char *, argument), NULL };
	char **env = engine_environment();
	pid_t self = MyProcPid;
	pid_t pid;
	sigset_t all;
	sigset_t old;

	Assert(nfds <= 2);
	snprintf(path, sizeof(path), "%s/bicycle-engine", pkglib_path);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pid = fork();
	if (pid == 0)
		engine_exec(argv, env, fds, nfds, self);
	sigprocmask(SIG_SETMASK, &old, NULL);
	pfree(env);
	return pid;
}

void
engine_tell(int fd, const char *text, size_t length)
{
	/*
	 * Lines are few and short: if the socket is full the engine is not reading,
	 * and the missing pong ends it.
	 */
	if (fd >= 0 && send(fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
		errno != EINTR && errno != EPIPE)
		ereport(LOG, (errmsg("could not write to the bicycle engine: %m")));
}

void
engine_configure(int fd, const char *more, bool go)
{
	StringInfoData lines;

	initStringInfo(&lines);
	settings_for_engine(&lines);
	appendStringInfoString(&lines, more);
	if (go)
		appendStringInfoString(&lines, "go\n");
	engine_tell(fd, lines.data, lines.len);
	pfree(lines.data);
}

bool
engine_lines(int fd, StringInfo in, void (*says)(char *line))
{
	char buffer[LINE_MAX_BYTES];
	char *line;
	char *end;
	ssize_t n;

	while ((n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
	{
		appendBinaryStringInfo(in, buffer, n);
		line = in->data;
		while ((end = memchr(line, '\n', in->data + in->len - line)) != NULL)
		{
			*end = '\0';
			says(line);
			line = end + 1;
		}
		in->len -= line - in->data;
		memmove(in->data, line, in->len + 1);
		if (in->len > LINE_MAX_BYTES)
			resetStringInfo(in);
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

int
engine_log_level(const char *word)
{
	static const struct
	{
		const char *word;
		int level;
	} levels[] = { { "debug", DEBUG1 },
				   { "info", LOG },
				   { "log", LOG },
				   { "warning", WARNING },
				   { "error", WARNING } };

	for (int i = 0; i < lengthof(levels); i++)
		if (strcmp(levels[i].word, word) == 0)
			return levels[i].level;
	return LOG;
}
