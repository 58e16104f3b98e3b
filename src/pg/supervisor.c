/*
 * supervisor.c
 *	  The background worker that keeps the engine running.
 *
 * Preloaded, the worker is registered by the postmaster; otherwise the first
 * session that needs the engine registers it (supervisor_ensure). A second
 * worker that finds the first alive ends with status 0, which unregisters it
 * for good; every other end is status 1, after which the postmaster starts the
 * worker again. The worker has no database.
 *
 * The engine is forked and exec'ed from here and is not attached to
 * PostgreSQL's memory: it may crash, leak or be killed and costs one restart of
 * itself. The two talk in lines over a socket pair (common/protocol.h). The
 * engine ends when that pair closes; PDEATHSIG covers a supervisor that is
 * killed. An engine that does not become ready in time, or leaves PONGS_MISSED
 * pings in a row unanswered, is killed. Pings are counted, and not the time
 * since the last answer, because that may have passed for both: on a machine
 * that was halted, or a processor that neither got. Deaths in quick succession
 * are answered with growing delays. All of this goes by a clock that nobody
 * sets.
 *
 * The engine's fields of BicycleShared are written in this file only, under its
 * lock; bicycle.h tells who writes which.
 */
#include "bicycle.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define READY_TIMEOUT (60 * 1000) /* ms from the fork to "ready" */
#define PING_INTERVAL 1000        /* ms between pings */
#define PONGS_MISSED 15           /* pings without an answer after which the engine is killed */
#define STOP_TIMEOUT 3000         /* ms from "stop" to SIGKILL */
#define QUICK_DEATH 500           /* ms: an engine that was ready for less did not live long */
/* starts in a row without "ready" after which sessions no longer wait */
#define FAILED_STARTS 3
/* ms: longest delay after the death of an engine that had been ready */
#define RETRY_READY_MAX 500
#define RETRY_START_MAX (30 * 1000) /* ms: the same for one that had not */

static bool registered_static =
	false; /* in the postmaster, and inherited by every process it forks */

/* The supervisor's own state. */
static BicycleShared *shared;
static pid_t engine_pid = 0;      /* 0: none */
static int control_fd = -1;       /* our end of the pair */
static StringInfoData control_in; /* bytes of an unfinished line */
static bool engine_ready;
static bool said_fatal;      /* this engine has said why it cannot run */
static TimestampTz ready_at; /* for sessions to see; what follows is in ms of now_ms() */
static int64 forked_ms;
static int64 ready_ms;
static int64 pinged_ms;
static int64 next_start_ms;
static uint64 ping_number;
static int unanswered;    /* pings since the last pong */
static int failed_starts; /* in a row */
static int quick_deaths;  /* in a row, of engines that had been ready */

static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Registration -------------------------------------------------------- */

static void
fill_supervisor(BackgroundWorker *worker)
{
	worker_fill(worker, "bicycle supervisor", "bicycle_supervisor_main", false);
	worker->bgw_restart_time = 1;
}

void
supervisor_register_static(void)
{
	BackgroundWorker worker;

	fill_supervisor(&worker);
	RegisterBackgroundWorker(&worker);
	registered_static = true;
}

bool
supervisor_ensure(bool missing_ok)
{
	BackgroundWorker worker;

	if (registered_static)
		return true;
	shared = shared_attach();
	fill_supervisor(&worker);
	if (worker_ensure(&worker, &shared->supervisor_pid, &shared->registered_at))
		return true;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	strlcpy(shared->last_error, "all background worker slots are in use",
			sizeof(shared->last_error));
	LWLockRelease(&shared->lock);
	if (!missing_ok)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("could not start the bicycle supervisor"),
			 errdetail("All background worker slots are in use."),
			 errhint("Raise max_worker_processes, or add bicycle to shared_preload_libraries.")));
	return false;
}

/* ---- What sessions see --------------------------------------------------- */

static void
publish(EngineState state, const char *error)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->state = state;
	shared->engine_pid = engine_pid;
	if (state == ENGINE_READY)
		shared->ready_at = ready_at;
	if (error)
		strlcpy(shared->last_error, error, sizeof(shared->last_error));
	LWLockRelease(&shared->lock);
	ConditionVariableBroadcast(&shared->changed);
}

static void
supervisor_exit(int code, Datum arg)
{
	if (engine_pid > 0)
		kill(engine_pid, SIGKILL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->supervisor_pid == MyProcPid)
	{
		shared->supervisor_pid = 0;
		shared->state = ENGINE_ABSENT;
		shared->engine_pid = 0;
	}
	LWLockRelease(&shared->lock);
	ConditionVariableBroadcast(&shared->changed);
}

/* ---- Starting and ending the engine -------------------------------------- */

static void
engine_start(void)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		ereport(ERROR, (errcode_for_socket_access(),
						errmsg("could not create socket pair for the bicycle engine: %m")));
	pid = engine_fork(NULL, &pair[1], 1);
	close(pair[1]);
	if (pid < 0)
	{
		close(pair[0]);
		ereport(ERROR, (errmsg("could not fork the bicycle engine: %m")));
	}

	engine_pid = pid;
	control_fd = pair[0];
	resetStringInfo(&control_in);
	engine_ready = said_fatal = false;
	forked_ms = pinged_ms = now_ms();
	unanswered = 0;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->starts++;
	LWLockRelease(&shared->lock);
	/*
	 * After a failure sessions hear of the next engine only once it is ready.
	 */
	publish(shared->state == ENGINE_FAILED ? ENGINE_FAILED : ENGINE_STARTING, NULL);
	engine_configure(control_fd, "", true);
}

static void
close_control(void)
{
	if (control_fd >= 0)
		close(control_fd);
	control_fd = -1;
}

static void
engine_kill(const char *reason)
{
	ereport(LOG, (errmsg("bicycle engine (PID %d) is killed: %s", (int) engine_pid, reason)));
	kill(engine_pid, SIGKILL);
}

/* Delay before the next start, in ms, by how the last engines ended. */
static int
retry_delay(void)
{
	if (failed_starts > 0)
		return Min(RETRY_START_MAX, 250 << Min(failed_starts, 10));
	if (quick_deaths > 1)
		return Min(RETRY_READY_MAX, 10 << Min(quick_deaths, 10));
	return 0;
}

/* Called when waitpid has returned the engine. */
static void
engine_ended(int status)
{
	int64 now = now_ms();
	char *how = wait_result_to_str(status);
	char error[sizeof(shared->last_error)];

	snprintf(error, sizeof(error), "engine (PID %d): %s", (int) engine_pid, how);
	ereport(LOG, (errmsg("bicycle engine (PID %d): %s", (int) engine_pid, how)));
	pfree(how);

	if (engine_ready)
	{
		failed_starts = 0;
		quick_deaths = now - ready_ms >= QUICK_DEATH ? 1 : quick_deaths + 1;
	}
	else
	{
		failed_starts++;
		if (WIFEXITED(status) && WEXITSTATUS(status) == ENGINE_EXEC_FAILED)
		{
			snprintf(error, sizeof(error), "could not execute \"%s/bicycle-engine\"", pkglib_path);
			failed_starts = Max(failed_starts, FAILED_STARTS);
		}
	}
	engine_pid = 0;
	engine_ready = false;
	close_control();
	/* What it said last explains more than its exit status. */
	publish(said_fatal || failed_starts >= FAILED_STARTS ? ENGINE_FAILED : ENGINE_STARTING,
			said_fatal ? NULL : error);
	next_start_ms = now + retry_delay();
}

/* Asks the engine to finish, waits a little, then kills it. */
static void
engine_stop(void)
{
	int64 deadline = now_ms() + STOP_TIMEOUT;
	int status;

	engine_tell(control_fd, "stop\n", 5);
	while (engine_pid > 0)
	{
		if (waitpid(engine_pid, &status, WNOHANG) == engine_pid)
			engine_pid = 0;
		else if (now_ms() >= deadline)
		{
			kill(engine_pid, SIGKILL);
			waitpid(engine_pid, &status, 0);
			engine_pid = 0;
		}
		else
		{
			WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
					  PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
	close_control();
}

/* ---- What the engine says ------------------------------------------------ */

static void
engine_says(char *line)
{
	if (strncmp(line, "pong ", 5) == 0)
		unanswered = 0;
	else if (strncmp(line, "log ", 4) == 0)
	{
		char *word = line + 4;
		char *text = strchr(word, ' ');

		if (text)
		{
			*text++ = '\0';
			ereport(engine_log_level(word), (errmsg("bicycle engine: %s", text)));
			if (strcmp(word, "error") == 0)
			{
				LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
				strlcpy(shared->last_error, text, sizeof(shared->last_error));
				LWLockRelease(&shared->lock);
			}
		}
	}
	else if (strncmp(line, "ready", 5) == 0)
	{
		engine_ready = true;
		failed_starts = 0;
		ready_at = GetCurrentTimestamp();
		ready_ms = now_ms();
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		strlcpy(shared->description, line[5] == ' ' ? line + 6 : "", sizeof(shared->description));
		LWLockRelease(&shared->lock);
		publish(ENGINE_READY, NULL);
		ereport(LOG, (errmsg("bicycle engine (PID %d) is ready: %s", (int) engine_pid,
							 line + 5 + (line[5] == ' '))));
	}
	else if (strncmp(line, "fatal ", 6) == 0)
	{
		said_fatal = true;
		ereport(WARNING, (errmsg("bicycle engine: %s", line + 6)));
		publish(ENGINE_FAILED, line + 6);
	}
	else
		ereport(LOG,
				(errmsg("bicycle engine said something that is not understood: \"%s\"", line)));
}

/* Reads what there is and handles each whole line. */
static void
engine_read(void)
{
	/* End of file: the engine is ending; waitpid tells how. */
	if (!engine_lines(control_fd, &control_in, engine_says))
		close_control();
}

/* ---- The worker ---------------------------------------------------------- */

static void
child_ended(SIGNAL_ARGS)
{
	int save_errno = errno;

	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Takes the role of the supervisor, or ends with status 0 if another process
 * has it.
 */
static void
supervisor_begin(void)
{
	pid_t other;

	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	other = shared->supervisor_pid;
	if (other == 0)
	{
		shared->supervisor_pid = MyProcPid;
		shared->state = ENGINE_STARTING;
	}
	LWLockRelease(&shared->lock);
	if (other != 0)
	{
		ereport(LOG, (errmsg("bicycle supervisor is already running under PID %d", (int) other)));
		proc_exit(0);
	}
	before_shmem_exit(supervisor_exit, (Datum) 0);
	(void) launcher_ensure(); /* not preloaded, jobs go on once anybody uses the engine */
}

/*
 * Pings, and kills an engine that is silent; returns the ms until there is
 * something to do.
 */
static long
heartbeat(int64 now)
{
	char ping[64];

	if (engine_pid == 0)
		return Max(1, next_start_ms - now);
	if (!engine_ready)
	{
		if (now - forked_ms >= READY_TIMEOUT)
			engine_kill("it did not become ready in time");
		return PING_INTERVAL;
	}
	if (now - pinged_ms < PING_INTERVAL)
		return PING_INTERVAL - (now - pinged_ms);
	if (unanswered >= PONGS_MISSED)
	{
		engine_kill("it does not answer");
		unanswered = 0;
	}
	else
	{
		engine_tell(control_fd, ping,
					snprintf(ping, sizeof(ping), "ping " UINT64_FORMAT "\n", ++ping_number));
		unanswered++;
	}
	pinged_ms = now;
	return PING_INTERVAL;
}

void
bicycle_supervisor_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGCHLD, child_ended);
	BackgroundWorkerUnblockSignals();
	context = AllocSetContextCreate(TopMemoryContext, "bicycle supervisor", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&control_in);
	supervisor_begin();

	for (;;)
	{
		int events;
		int status;
		long timeout;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		if (ShutdownRequestPending)
		{
			engine_stop();
			proc_exit(1); /* 0 would unregister the worker for ever */
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			if (engine_pid > 0)
				engine_configure(control_fd, "", false);
			next_start_ms = 0; /* perhaps what kept it from starting has been mended */
		}
		if (engine_pid > 0 && waitpid(engine_pid, &status, WNOHANG) == engine_pid)
		{
			if (control_fd >= 0)
				engine_read(); /* its last words */
			engine_ended(status);
		}
		if (engine_pid == 0 && now_ms() >= next_start_ms)
			engine_start();

		timeout = heartbeat(now_ms());
		events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
				 (control_fd >= 0 ? WL_SOCKET_READABLE : 0);
		events = WaitLatchOrSocket(MyLatch, events, control_fd, timeout, PG_WAIT_EXTENSION);
		if (events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events & WL_SOCKET_READABLE)
			engine_read();
	}
}
