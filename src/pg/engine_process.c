/*
 * engine_process.c
 *	  A process of bicycle-engine: its start, its lines, its pulse, its end.
 *
 * R1 An engine is forked and exec'ed and is not attached to PostgreSQL's
 *    memory. It may crash, leak or be killed.
 * R2 It dies with the process that started it: by EOF on its control socket,
 *    and by PDEATHSIG.
 * R3 The two talk in lines over that socket (common/protocol.h).
 * R4 Patience is counted in turns of ours, not in time: time may have passed
 *    for both, on a machine that was halted, or a processor that neither got.
 * R5 Before an engine is judged, what it has said is read: this process may
 *    have been busy for longer than an engine may be silent.
 *
 * An EngineProcess belongs to who started it. Its buffer lives in
 * TopMemoryContext and is used again by the next start.
 */
#include "pg/engine_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "pg/bicycle.h"
#include "pg/monotonic.h"
#include "common/invariant.h"

#define LINE_MAX_BYTES 4096
#define OPENING_PATIENCE 600 /* turns from the start to "ready", of one that says "opening" */
/* turns between two signs of life before that: stuck_timeout, within these */
#define MOST_PATIENCE 60
#define LEAST_PATIENCE 5
#define WAIT_STEP 20 /* ms between looks whether an engine has ended */
#define SPARE_FD 16  /* beyond the descriptors that an engine is given */

extern char **environ;

/* ---- Start --------------------------------------------------------------- */

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
	env[n++] = pstrdup("GOMP_SPINCOUNT=" BICYCLE_SPIN_COUNT);
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
	 * Server processes are signalled with their process group; a worker that
	 * is to end first asks its engine for a checkpoint. A session, not only a
	 * group of its own: Linux may share processors by sessions, and this one's
	 * priority is not to be the worker's.
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

/* Its descriptors from BICYCLE_CONTROL_FD on are copies of fds. */
static pid_t
engine_fork(const char *argument, const int *fds, int nfds)
{
	char path[MAXPGPATH];
	char *argv[3] = { path, unconstify(char *, argument), NULL };
	char **env = engine_environment();
	pid_t self = MyProcPid;
	pid_t pid;
	sigset_t all;
	sigset_t old;
	int save_errno;

	snprintf(path, sizeof(path), "%s/bicycle-engine", pkglib_path);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pid = fork();
	if (pid == 0)
		engine_exec(argv, env, fds, nfds, self);
	save_errno = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	pfree(env);
	errno = save_errno;
	return pid;
}

/* errno stays. */
static void
close_pairs(int pairs[][2], int n)
{
	int save_errno = errno;

	for (int i = 0; i < n; i++)
	{
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	errno = save_errno;
}

bool
engine_process_start(EngineProcess *engine, const char *name, const char *argument, int *data,
					 EngineSays says)
{
	int pairs[2][2];
	int fds[2];
	int n = data ? 2 : 1;

	INVARIANT(engine->pid == 0);
	for (int i = 0; i < n; i++)
	{
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]) != 0)
		{
			close_pairs(pairs, i);
			return false;
		}
		fds[i] = pairs[i][1];
	}
	if (engine->in.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&engine->in);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&engine->in);
	engine->pid = engine_fork(argument, fds, n);
	if (engine->pid < 0)
	{
		engine->pid = 0;
		close_pairs(pairs, n);
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		close(fds[i]);
		ReserveExternalFD();
	}
	engine->name = name;
	engine->says = says;
	engine->control = pairs[0][0];
	engine->ready = engine->missing = false;
	engine->gpus = 0;
	engine->last_words[0] = '\0';
	engine->silence = engine->starting = 0;
	engine->turn_ms = monotonic_ms();
	if (data)
		*data = pairs[1][0];
	return true;
}

/* ---- Lines --------------------------------------------------------------- */

/*
 * Whole lines. They are few and short: if the socket is full the engine is not
 * reading, and the missing pong ends it.
 */
static void
tell(EngineProcess *engine, const char *words, size_t length)
{
	if (engine->control >= 0 &&
		send(engine->control, words, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
		errno != EINTR && errno != EPIPE)
		ereport(LOG, (errmsg("could not write to the %s: %m", engine->name)));
}

void
engine_process_tell(EngineProcess *engine, const char *line)
{
	tell(engine, line, strlen(line));
}

void
engine_process_configure(EngineProcess *engine, const char *more, bool go)
{
	StringInfoData lines;

	initStringInfo(&lines);
	gucs_for_engine(&lines);
	appendStringInfoString(&lines, more);
	if (go)
		appendStringInfoString(&lines, "go\n");
	tell(engine, lines.data, lines.len);
	pfree(lines.data);
}

static int
log_level(const char *word)
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

/* "LEVEL TEXT" of a line of the log. */
static void
take_log(EngineProcess *engine, char *level)
{
	char *words = strchr(level, ' ');

	if (words == NULL)
		return;
	*words++ = '\0';
	ereport(log_level(level), (errmsg("%s: %s", engine->name, words)));
	if (strcmp(level, "error") != 0)
		return;
	strlcpy(engine->last_words, words, sizeof(engine->last_words));
	engine->says(engine, ENGINE_SAYS_ERROR, words);
}

/* "1 2 DESCRIPTION": common/protocol.h. */
static void
take_device(EngineProcess *engine, const char *words)
{
	int present;
	int length = 0;

	if (sscanf(words, "%d %d %n", &present, &engine->gpus, &length) < 2 || length == 0)
		return;
	engine->missing = present == 0;
	engine->says(engine, ENGINE_SAYS_DEVICE, words + length);
}

static void
take_engine_line(EngineProcess *engine, char *line)
{
	char *words = strchr(line, ' ');
	size_t length = words ? words - line : strlen(line);

	words = words ? words + 1 : line + length;
	if (length == 4 && memcmp(line, "pong", length) == 0)
		engine->silence = 0;
	else if (length == 7 && memcmp(line, "opening", length) == 0)
		engine->silence = 0;
	else if (length == 3 && memcmp(line, "log", length) == 0)
		take_log(engine, words);
	else if (length == 5 && memcmp(line, "ready", length) == 0)
	{
		engine->ready = true;
		engine->silence = 0;
		engine->says(engine, ENGINE_SAYS_READY, words);
	}
	else if (length == 6 && memcmp(line, "device", length) == 0)
		take_device(engine, words);
	else if (length == 4 && memcmp(line, "busy", length) == 0)
		engine->says(engine, ENGINE_SAYS_BUSY, words);
	else if (length == 4 && memcmp(line, "idle", length) == 0)
		engine->says(engine, ENGINE_SAYS_IDLE, words);
	else if (length == 5 && memcmp(line, "fatal", length) == 0)
	{
		strlcpy(engine->last_words, words, sizeof(engine->last_words));
		engine->says(engine, ENGINE_SAYS_FATAL, words);
	}
	else
		ereport(LOG,
				(errmsg("%s said something that is not understood: \"%s\"", engine->name, line)));
}

/* Takes the whole lines out of the buffer. */
static void
take_engine_lines(EngineProcess *engine)
{
	StringInfo in = &engine->in;
	char *line = in->data;
	char *end;

	while ((end = memchr(line, '\n', in->data + in->len - line)) != NULL)
	{
		*end = '\0';
		if (end > line)
			take_engine_line(engine, line);
		line = end + 1;
	}
	in->len -= line - in->data;
	memmove(in->data, line, in->len + 1);
	if (in->len > LINE_MAX_BYTES)
		resetStringInfo(in);
}

static void
close_control(EngineProcess *engine)
{
	if (engine->control >= 0)
	{
		close(engine->control);
		ReleaseExternalFD();
	}
	engine->control = -1;
}

void
engine_process_read(EngineProcess *engine)
{
	char buffer[LINE_MAX_BYTES];
	ssize_t n;

	if (engine->control < 0)
		return;
	while ((n = recv(engine->control, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
	{
		appendBinaryStringInfo(&engine->in, buffer, n);
		take_engine_lines(engine);
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_control(engine);
}

/* ---- Pulse --------------------------------------------------------------- */

static void
kill_silent(EngineProcess *engine)
{
	const char *reason = engine->ready ? "it does not answer" : "it did not become ready in time";

	ereport(LOG, (errmsg("%s (PID %d) is killed: %s", engine->name, (int) engine->pid, reason)));
	snprintf(engine->last_words, sizeof(engine->last_words), "%s and was killed",
			 engine->ready ? "it did not answer" : "it did not become ready in time");
	kill(engine->pid, SIGKILL);
}

static int
start_patience(void)
{
	return Min(MOST_PATIENCE, Max(LEAST_PATIENCE, bicycle_stuck_timeout / ENGINE_TURN));
}

long
engine_process_heartbeat(EngineProcess *engine, int patience)
{
	int64 now = monotonic_ms();
	char ping[64];

	engine_process_read(engine);
	if (engine->pid == 0)
		return ENGINE_TURN;
	if (now - engine->turn_ms < ENGINE_TURN)
		return ENGINE_TURN - (now - engine->turn_ms);
	engine->turn_ms = now;
	if (!engine->ready)
		patience = start_patience();
	if (engine->silence++ == patience || (!engine->ready && engine->starting++ == OPENING_PATIENCE))
		kill_silent(engine);
	else if (engine->ready)
		tell(engine, ping,
			 snprintf(ping, sizeof(ping), "ping " UINT64_FORMAT "\n", ++engine->ping_number));
	return ENGINE_TURN;
}

/* ---- End ----------------------------------------------------------------- */

bool
engine_process_reap(EngineProcess *engine, int *status)
{
	if (engine->pid == 0 || waitpid(engine->pid, status, WNOHANG) != engine->pid)
		return false;
	engine_process_read(engine); /* its last words */
	engine->pid = 0;
	engine->ready = false;
	close_control(engine);
	return true;
}

bool
engine_process_wait(EngineProcess *engine, int ms, int *status)
{
	int64 deadline = monotonic_ms() + ms;
	bool ended;

	while (!(ended = engine_process_reap(engine, status)) && engine->pid != 0 &&
		   monotonic_ms() < deadline)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_STEP,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	return ended;
}

void
engine_process_quit(EngineProcess *engine)
{
	tell(engine, "stop\n", 5);
}

void
engine_process_stop(EngineProcess *engine, int ms)
{
	int status;

	engine_process_quit(engine);
	if (!engine_process_wait(engine, ms, &status))
		engine_process_end(engine);
}

void
engine_process_end(EngineProcess *engine)
{
	if (engine->pid == 0)
		return;
	kill(engine->pid, SIGKILL);
	while (waitpid(engine->pid, NULL, 0) < 0 && errno == EINTR)
		;
	engine->pid = 0;
	engine->ready = false;
	close_control(engine);
}
