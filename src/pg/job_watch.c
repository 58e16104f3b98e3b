/*
 * job_watch.c
 *	  The databases that the launcher looks at, and waking it.
 *
 * They are in shared memory, in the order in which their turn comes. launcher.c
 * tells who adds and removes them. If there are too many, all are looked at.
 */
#include "pg/job_watch.h"

#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "pg/bgworker.h"
#include "common/invariant.h"

void
job_watch_add(BicycleShared *shared, Oid database)
{
	INVARIANT(shared->nwatched >= 0 && shared->nwatched <= WATCHED_DATABASES);
	for (int i = 0; i < shared->nwatched; i++)
		if (shared->watched[i] == database)
			return;
	if (shared->nwatched < WATCHED_DATABASES)
		shared->watched[shared->nwatched++] = database;
	else
		shared->watch_all = true;
}

void
job_watch_remove(BicycleShared *shared, Oid database)
{
	int n = 0;

	for (int i = 0; i < shared->nwatched; i++)
		if (shared->watched[i] != database)
			shared->watched[n++] = shared->watched[i];
	shared->nwatched = n;
}

void
job_watch_wake(Oid database, bool served)
{
	BicycleShared *shared = shared_attach();
	PGPROC *launcher;
	pid_t pid;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (served)
		job_watch_remove(shared, database);
	job_watch_add(shared, database);
	shared->scan_wanted = true;
	pid = shared->posts[WORKER_LAUNCHER].pid;
	LWLockRelease(&shared->lock);
	launcher = pid != 0 ? BackendPidGetProc(pid) : NULL;
	if (launcher)
		SetLatch(&launcher->procLatch);
	else if (!proc_exit_inprogress)
		/* Without a slot the next call of a function tries again. */
		(void) sole_worker_ensure(WORKER_LAUNCHER);
}
