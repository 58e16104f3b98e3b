/*
 * bgworker.c
 *	  Registering the background workers of this library.
 *
 * R1 A server has one supervisor and one launcher. Preloaded, the postmaster
 *    registers both. Otherwise whoever needs one registers it.
 * R2 Who registers one notes when, in shared memory, and for a moment nobody
 *    else does. Who has come up notes its PID there, and clears it at its end.
 * R3 A worker that finds another one in its role ends with status 0, which
 *    unregisters it for good. After every other end the postmaster starts it
 *    again.
 * R4 The launcher waits for the end of recovery, in a worker slot that is its
 *    own from when it is registered. So on a standby it is registered once.
 */
#include "pg/bgworker.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "pg/monotonic.h"
#include "pg/shared.h"

#define REGISTRATION_TIME 5000 /* ms in which a worker that was registered must have begun */

static const struct
{
	const char *type;
	const char *function;
	bool for_jobs;
} sole[SOLE_WORKERS] = {
	[WORKER_SUPERVISOR] = { "bicycle supervisor", "bicycle_supervisor_main", false },
	[WORKER_LAUNCHER] = { "bicycle launcher", "bicycle_launcher_main", true },
};

/* Set in the postmaster, and inherited by every process it forks. */
static bool preloaded = false;

void
bgworker_fill(BackgroundWorker *worker, const char *type, const char *function, bool for_jobs)
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

static void
fill_sole(BackgroundWorker *worker, SoleWorker which)
{
	bgworker_fill(worker, sole[which].type, sole[which].function, sole[which].for_jobs);
	worker->bgw_restart_time = 1;
}

void
sole_workers_preload(void)
{
	for (int which = 0; which < SOLE_WORKERS; which++)
	{
		BackgroundWorker worker;

		fill_sole(&worker, which);
		RegisterBackgroundWorker(&worker);
	}
	preloaded = true;
}

bool
sole_workers_preloaded(void)
{
	return preloaded;
}

bool
sole_worker_ensure(SoleWorker which)
{
	BicycleShared *shared;
	SoleWorkerPost *post;
	BackgroundWorker worker;
	int64 now = monotonic_ms();
	bool waits;
	bool mine;

	if (preloaded || !IsUnderPostmaster)
		return true;
	waits = sole[which].for_jobs && RecoveryInProgress();
	shared = shared_attach();
	post = &shared->posts[which];
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	mine = post->pid == 0 &&
		   (post->registered_ms == 0 || (!waits && now - post->registered_ms >= REGISTRATION_TIME));
	if (mine)
		post->registered_ms = now;
	LWLockRelease(&shared->lock);
	fill_sole(&worker, which);
	if (!mine || RegisterDynamicBackgroundWorker(&worker, NULL))
		return true;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	post->registered_ms = 0;
	LWLockRelease(&shared->lock);
	return false;
}

static void
leave_post(int code, Datum which)
{
	BicycleShared *shared = shared_attach();
	SoleWorkerPost *post = &shared->posts[DatumGetInt32(which)];

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (post->pid == MyProcPid)
		post->pid = 0;
	LWLockRelease(&shared->lock);
	ConditionVariableBroadcast(&shared->changed);
}

pid_t
sole_worker_begin(SoleWorker which)
{
	BicycleShared *shared = shared_attach();
	SoleWorkerPost *post = &shared->posts[which];
	pid_t other;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	other = post->pid;
	if (other == 0)
		post->pid = MyProcPid;
	LWLockRelease(&shared->lock);
	if (other == 0)
		before_shmem_exit(leave_post, Int32GetDatum(which));
	return other;
}

bool
supervisor_ensure(bool missing_ok)
{
	BicycleShared *shared;

	if (sole_worker_ensure(WORKER_SUPERVISOR))
		return true;
	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	strlcpy(shared->engines[0].last_error, "all background worker slots are in use",
			sizeof(shared->engines[0].last_error));
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
