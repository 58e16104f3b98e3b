/*
 * supervisor.c
 *	  The background worker that keeps the engine running.
 *
 * R1 A server has one (bgworker.c). It has no database, and also works on a
 *    standby.
 * R2 It ends with status 1, after which the postmaster starts it again; 0 would
 *    unregister it for ever.
 * R3 An engine that does not become ready in time, or leaves PONGS_MISSED pings
 *    in a row unanswered, is killed (engine_process.c).
 * R4 Deaths in quick succession are answered with growing delays.
 *
 *	 ENGINE_STARTING --- "ready" ------------------> ENGINE_READY
 *	 ENGINE_STARTING <-- it ends ------------------- ENGINE_READY
 *	 ENGINE_STARTING --- "fatal", or several ends --> ENGINE_FAILED
 *	 ENGINE_FAILED ----- "ready", of a later one ---> ENGINE_READY
 */
#include "pg/bicycle.h"

#include <sys/wait.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pg/monotonic.h"
#include "pg/engine_process.h"

#define PONGS_MISSED 15   /* pings without an answer after which the engine is killed */
#define STOP_TIMEOUT 3000 /* ms from "stop" to SIGKILL */
#define QUICK_DEATH 500   /* ms: an engine that was ready for less did not live long */
/* starts in a row without "ready" after which sessions no longer wait */
#define FAILED_STARTS 3
/* ms: longest delay after the death of an engine that had been ready */
#define RETRY_READY_MAX 500
#define RETRY_START_MAX (30 * 1000) /* ms: the same for one that had not */

extern PGDLLEXPORT void bicycle_supervisor_main(Datum arg);

static BicycleShared *shared;
static EngineProcess engine = { .control = -1 };
static bool said_fatal; /* this engine has said why it cannot run */
static int64 ready_ms;  /* when it was ready; 0: it was not yet */
static int64 next_start_ms;
static int failed_starts; /* in a row */
static int quick_deaths;  /* in a row, of engines that had been ready */

/* ---- What sessions see --------------------------------------------------- */

static void
publish(EngineState state, const char *error)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->state = state;
	if (error)
		strlcpy(shared->last_error, error, sizeof(shared->last_error));
	LWLockRelease(&shared->lock);
	ConditionVariableBroadcast(&shared->changed);
}

/* After a failure sessions hear of the next engine only once it is ready. */
static void
publish_start(void)
{
	bool failed;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->starts++;
	failed = shared->state == ENGINE_FAILED;
	LWLockRelease(&shared->lock);
	if (!failed)
		publish(ENGINE_STARTING, NULL);
}

static void
supervisor_exit(int code, Datum arg)
{
	if (engine.pid > 0)
		kill(engine.pid, SIGKILL);
	publish(ENGINE_ABSENT, NULL);
}

/* ---- Starting and ending the engine -------------------------------------- */

static void
engine_says(EngineWord word, const char *words)
{
	switch (word)
	{
		case ENGINE_SAYS_READY:
			failed_starts = 0;
			ready_ms = monotonic_ms();
			publish(ENGINE_READY, NULL);
			ereport(LOG, (errmsg("bicycle engine (PID %d) is ready: %s", (int) engine.pid, words)));
			break;
		case ENGINE_SAYS_ERROR:
			LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
			strlcpy(shared->last_error, words, sizeof(shared->last_error));
			LWLockRelease(&shared->lock);
			break;
		case ENGINE_SAYS_FATAL:
			said_fatal = true;
			ereport(WARNING, (errmsg("bicycle engine: %s", words)));
			publish(ENGINE_FAILED, words);
			break;
	}
}

static void
supervisor_start_engine(void)
{
	engine_process_start(&engine, "bicycle engine", NULL, NULL, engine_says);
	said_fatal = false;
	ready_ms = 0;
	publish_start();
	engine_process_configure(&engine, "", true);
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

static void
engine_ended(pid_t pid, int status)
{
	int64 now = monotonic_ms();
	char *how = wait_result_to_str(status);
	char error[sizeof(shared->last_error)];

	snprintf(error, sizeof(error), "engine (PID %d): %s", (int) pid, how);
	ereport(LOG, (errmsg("bicycle engine (PID %d): %s", (int) pid, how)));
	pfree(how);
	if (ready_ms != 0)
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
	/* What it said last explains more than its exit status. */
	publish(said_fatal || failed_starts >= FAILED_STARTS ? ENGINE_FAILED : ENGINE_STARTING,
			said_fatal ? NULL : error);
	next_start_ms = now + retry_delay();
}

/* ---- The worker ---------------------------------------------------------- */

static void
child_ended(SIGNAL_ARGS)
{
	int save_errno = errno;

	SetLatch(MyLatch);
	errno = save_errno;
}

static void
supervisor_begin(void)
{
	pid_t other = sole_worker_begin(WORKER_SUPERVISOR);

	if (other != 0)
	{
		ereport(LOG, (errmsg("bicycle supervisor is already running under PID %d", (int) other)));
		proc_exit(0);
	}
	shared = shared_attach();
	before_shmem_exit(supervisor_exit, (Datum) 0);
	publish(ENGINE_STARTING, NULL);
	/* Not preloaded, jobs go on once anybody uses the engine. */
	(void) sole_worker_ensure(WORKER_LAUNCHER);
}

/* Does what is due; returns the ms until there is something to do. */
static long
supervise(void)
{
	pid_t pid = engine.pid;
	int status;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (engine.pid != 0)
			engine_process_configure(&engine, "", false);
		next_start_ms = 0; /* perhaps what kept it from starting has been mended */
	}
	if (engine_process_reap(&engine, &status))
		engine_ended(pid, status);
	if (engine.pid == 0 && monotonic_ms() >= next_start_ms)
		supervisor_start_engine();
	if (engine.pid == 0)
		return Max(1, next_start_ms - monotonic_ms());
	return engine_process_heartbeat(&engine, PONGS_MISSED);
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
	supervisor_begin();

	for (;;)
	{
		int events;
		long timeout;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		if (ShutdownRequestPending)
		{
			engine_process_stop(&engine, STOP_TIMEOUT);
			proc_exit(1);
		}
		timeout = supervise();
		events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
				 (engine.control >= 0 ? WL_SOCKET_READABLE : 0);
		events = WaitLatchOrSocket(MyLatch, events, engine.control, timeout, PG_WAIT_EXTENSION);
		if (events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events & WL_SOCKET_READABLE)
			engine_process_read(&engine);
	}
}
