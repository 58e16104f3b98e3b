/*
 * launcher.c
 *	  The background worker that starts training jobs which have no worker.
 *
 * R1 Preloaded, it starts when recovery has finished. Otherwise who uses a
 *    function of training registers it, or the supervisor, and it ends when no
 *    job is left.
 * R2 It has no database, as a background worker sees one only. It goes through
 *    those that may have unfinished jobs, and starts for each a short scan
 *    (job_scan.c), which tells it the jobs that may start. At its own start it
 *    takes all databases.
 * R3 It never runs SQL of a user. Jobs run as their owners, in their workers.
 * R4 One free worker slot is enough: scans come one after the other, and jobs'
 *    workers after them.
 *
 * Whose turn it is, of as many jobs as may run:
 * R5 First come jobs that had begun, then those in the queue, last those whose
 *    worker was started and did not come up.
 * R6 Within a database the job that has waited longest is next.
 * R7 Databases take turns. One whose job's worker has ended goes to the end of
 *    the line, and each gets one before any gets its second.
 *
 * Who writes what in shared memory, under its lock:
 *
 *	                 set by                          cleared by
 *	 scan_wanted     who commits a change to a job,  the launcher, before it
 *	                 a job's worker that ends        scans
 *	 watched         the same; a scan, unless no     a scan, while it looks; the
 *	                 job is left                     launcher, if it is dropped
 *	 rescan_at,      a scan                          the launcher, before it
 *	 ready                                           scans
 *	 watch_all       the launcher, at its start;     the launcher, before it
 *	                 who finds no room in watched    scans
 *	 no_worker_slot  the launcher                    the launcher
 */
#include "pg/launcher.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pg/bgworker.h"
#include "pg/bicycle.h"
#include "pg/monotonic.h"
#include "pg/job_slots.h"
#include "pg/job_watch.h"

/*
 * ms between scans while jobs wait: they may wait for a worker slot, or for
 * max_training_jobs to be raised
 */
#define RESCAN_INTERVAL (30 * 1000)
#define SLOT_INTERVAL 1000       /* ms between tries to get a worker slot */
#define SCAN_TIMEOUT (10 * 1000) /* ms that a scan may take */
/* ms without unfinished jobs after which a dynamic launcher ends */
#define IDLE_TIMEOUT (10 * 1000)

/* ---- The launcher -------------------------------------------------------- */

static void
launcher_begin(BicycleShared *shared)
{
	if (sole_worker_begin(WORKER_LAUNCHER) != 0)
		proc_exit(0);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->watch_all = true;
	LWLockRelease(&shared->lock);
}

/* Those that take connections; in *closed those that do not at the moment. */
static List *
all_databases(List **closed)
{
	List *databases = NIL;
	MemoryContext context = CurrentMemoryContext;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (bicycle_database_is_invalid(database))
			continue;
		old = MemoryContextSwitchTo(context);
		if (database->datallowconn)
			databases = lappend_oid(databases, database->oid);
		else
			*closed = lappend_oid(*closed, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/*
 * Starts a scan of a database and waits for its end; false without a worker
 * slot. A scan waits for who has locked the table of jobs, or the database
 * while it is copied, and all other databases wait with it: after a while it is
 * ended, and the next one tries again.
 */
static bool
scan(Oid database)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	int64 deadline = monotonic_ms() + SCAN_TIMEOUT;
	pid_t pid;
	int64 left;

	bgworker_fill(&worker, "bicycle job scan", "bicycle_scan_main", true);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED &&
		   (left = deadline - monotonic_ms()) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
	{
		ereport(
			LOG,
			(errmsg("bicycle job scan of database %u is ended after %d seconds", database,
					SCAN_TIMEOUT / 1000),
			 errhint(
				 "Look for who keeps the database or its table bicycle_training_jobs locked.")));
		TerminateBackgroundWorker(handle);
		(void) WaitForBackgroundWorkerShutdown(handle);
	}
	return true;
}

/* Scans what is watched; false if there was no worker slot. */
static bool
scan_databases(BicycleShared *shared)
{
	List *closed = NIL;
	List *open = all_databases(&closed);
	List *databases = NIL;
	ListCell *cell;
	bool all;
	bool complete = true;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->scan_wanted = false;
	shared->rescan_at = 0;
	shared->nready = 0;
	all = shared->watch_all;
	shared->watch_all = false;
	for (int i = 0; i < shared->nwatched;)
	{
		Oid database = shared->watched[i];

		if (list_member_oid(open, database))
			databases = lappend_oid(databases, database);
		else if (!list_member_oid(closed, database))
		{
			job_watch_remove(shared, database); /* it was dropped */
			continue;
		}
		i++;
	}
	LWLockRelease(&shared->lock);
	if (all)
		databases = list_concat_unique_oid(databases, open);
	foreach (cell, databases)
		complete &= scan(lfirst_oid(cell));
	if (!complete)
	{
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		shared->watch_all |= all;
		LWLockRelease(&shared->lock);
	}
	return complete;
}

/*
 * Starts as many of the jobs that the scans have found as may run; false if
 * there was no worker slot for one.
 */
static bool
start_ready(BicycleShared *shared)
{
	ReadyJob ready[JOB_SLOTS];
	int n;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	n = shared->nready;
	memcpy(ready, shared->ready, n * sizeof(ReadyJob));
	shared->nready = 0;
	LWLockRelease(&shared->lock);
	for (int i = 0; i < n && job_slots_used() < bicycle_max_training_jobs; i++)
		if (!job_slot_register(&ready[i].start))
			return false;
	return true;
}

/*
 * Says once, and then only to who asks, that jobs wait because of
 * max_worker_processes.
 */
static void
note_worker_slots(BicycleShared *shared, bool missing)
{
	bool before;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	before = shared->no_worker_slot;
	shared->no_worker_slot = missing;
	LWLockRelease(&shared->lock);
	if (missing && !before)
		ereport(LOG, (errmsg("training jobs wait for a background worker slot"), NO_WORKER_SLOT));
}

void
bicycle_launcher_main(Datum arg)
{
	BicycleShared *shared;
	MemoryContext context;
	int64 busy_ms = monotonic_ms();

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "bicycle launcher", ALLOCSET_DEFAULT_SIZES);
	shared = shared_attach();
	launcher_begin(shared);
	for (;;)
	{
		bool complete;
		bool wanted;
		bool waiting;
		TimestampTz rescan_at;
		long timeout;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		complete = scan_databases(shared);
		complete &= start_ready(shared);
		note_worker_slots(shared, !complete);

		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		wanted = shared->scan_wanted;
		waiting = shared->nwatched > 0 || shared->watch_all;
		rescan_at = shared->rescan_at;
		/*
		 * Decided under the lock: who comes later finds no launcher and
		 * registers one.
		 */
		if (waiting || wanted)
			busy_ms = monotonic_ms();
		else if (!sole_workers_preloaded() && monotonic_ms() - busy_ms >= IDLE_TIMEOUT)
			shared->posts[WORKER_LAUNCHER].pid = 0;
		LWLockRelease(&shared->lock);
		if (shared->posts[WORKER_LAUNCHER].pid != MyProcPid) /* one word, read without the lock */
			proc_exit(0);
		if (wanted)
			continue;
		timeout = !complete                  ? SLOT_INTERVAL
				  : sole_workers_preloaded() ? RESCAN_INTERVAL
											 : IDLE_TIMEOUT;
		if (rescan_at != 0)
			timeout = Min(timeout,
						  TimestampDifferenceMilliseconds(GetCurrentTimestamp(), rescan_at) + 10);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
