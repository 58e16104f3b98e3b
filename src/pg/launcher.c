/*
 * launcher.c
 *	  The background worker that starts training jobs which have no trainer.
 *
 * Preloaded, the launcher is registered by the postmaster and starts when
 * recovery has finished; otherwise it is registered by the first session that
 * uses a function of training, or by the supervisor, and ends when no job is
 * left. A background worker sees one database only, so the launcher has none:
 * it goes through the databases that may have unfinished jobs and starts for
 * each a short-lived scan, which tells it the jobs that may start. At its own
 * start it does not know which databases those are and takes all.
 *
 * Once all are scanned it registers trainers for as many jobs as may run: first
 * those that had begun, then those in the queue, last those whose trainer was
 * started and did not come up. Within a database the job that has waited
 * longest is next. Databases take turns: one whose trainer has ended goes to
 * the end of the line, and each gets one before any gets its second. Scans come
 * one after the other, and trainers after them, so that one free worker slot is
 * enough.
 *
 * Who sets what in shared memory, under its lock: the launcher its PID and
 * no_worker_slot, clears scan_wanted, rescan_at, watch_all and the ready jobs,
 * and takes databases that do not exist off the watched ones; a scan sets
 * rescan_at, adds ready jobs, takes its database off and puts it back unless it
 * finds that no job is unfinished; whoever commits a change to a job, and a
 * trainer that ends, puts its database there and sets scan_wanted.
 *
 * The launcher never runs SQL of a user, and a scan only fixed statements on
 * the extension's tables. Jobs run as their owners, in trainers.
 */
#include "bicycle.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "clock.h"

/*
 * ms between scans while jobs wait: they may wait for a worker slot, or for
 * max_training_jobs to be raised
 */
#define RESCAN_INTERVAL (30 * 1000)
#define SLOT_INTERVAL 1000       /* ms between tries to get a worker slot */
#define SCAN_TIMEOUT (10 * 1000) /* ms that a scan may take */
/* ms without unfinished jobs after which a dynamic launcher ends */
#define IDLE_TIMEOUT (10 * 1000)

static bool nothing_left = false; /* in a scan that has come to its end */

/* ---- Databases that are watched ------------------------------------------ */

static void
watch(BicycleShared *shared, Oid database)
{
	for (int i = 0; i < shared->nwatched; i++)
		if (shared->watched[i] == database)
			return;
	if (shared->nwatched < WATCHED_DATABASES)
		shared->watched[shared->nwatched++] = database;
	else
		shared->watch_all = true;
}

/* The others keep their order. */
static void
unwatch(BicycleShared *shared, Oid database)
{
	int n = 0;

	for (int i = 0; i < shared->nwatched; i++)
		if (shared->watched[i] != database)
			shared->watched[n++] = shared->watched[i];
	shared->nwatched = n;
}

void
launcher_wake(Oid database, bool served)
{
	BicycleShared *shared = shared_attach();
	PGPROC *launcher;
	pid_t pid;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (served)
		unwatch(shared, database);
	watch(shared, database);
	shared->scan_wanted = true;
	pid = shared->posts[WORKER_LAUNCHER].pid;
	LWLockRelease(&shared->lock);
	launcher = pid != 0 ? BackendPidGetProc(pid) : NULL;
	if (launcher)
		SetLatch(&launcher->procLatch);
	else if (!proc_exit_inprogress)
		(void) sole_worker_ensure(
			WORKER_LAUNCHER); /* without a slot the next call of a function tries again */
}

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
	int64 deadline = clock_ms() + SCAN_TIMEOUT;
	pid_t pid;
	int64 left;

	bgworker_fill(&worker, "bicycle job scan", "bicycle_scan_main", true);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED &&
		   (left = deadline - clock_ms()) > 0)
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
			unwatch(shared, database); /* it was dropped */
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
	for (int i = 0; i < n && trainers_running() < bicycle_max_training_jobs; i++)
		if (!trainer_register(&ready[i].start))
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
		ereport(LOG, (errmsg("training jobs wait for a background worker slot"),
					  errdetail("All background worker slots are in use."),
					  errhint("Raise max_worker_processes.")));
}

void
bicycle_launcher_main(Datum arg)
{
	BicycleShared *shared;
	MemoryContext context;
	int64 busy_ms = clock_ms();

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
			busy_ms = clock_ms();
		else if (!sole_workers_preloaded() && clock_ms() - busy_ms >= IDLE_TIMEOUT)
			shared->posts[WORKER_LAUNCHER].pid = 0;
		LWLockRelease(&shared->lock);
		if (shared->posts[WORKER_LAUNCHER].pid != MyProcPid)
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

/* ---- A scan of one database ---------------------------------------------- */

/*
 * Not of a row that somebody has locked: all databases would wait for him. The
 * next scan will look at it again.
 */
static void
set_state(int64 job, const char *state, const char *error)
{
	JobParams p = { 0 };

	param_add(&p, INT8OID, Int64GetDatum(job));
	param_add_text(&p, state);
	param_add_text(&p, error);
	(void) jobs_run("bicycle_training_jobs",
					"UPDATE %1$s SET state = $2, wanted = 'running', error = $3, sqlstate = CASE "
					"WHEN $3 IS NOT NULL THEN '42501' END,"
					" updated_at = now() WHERE job = (SELECT job FROM %1$s WHERE job = $1 FOR "
					"UPDATE SKIP LOCKED)",
					SPI_OK_UPDATE, &p);
}

static void
rescan(TimestampTz at)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->rescan_at == 0 || at < shared->rescan_at)
		shared->rescan_at = at;
	LWLockRelease(&shared->lock);
}

/*
 * Puts a job where its turn is; of too many the last ones are left for a later
 * scan.
 */
static void
add_ready(const ReadyJob *job)
{
	BicycleShared *shared = shared_attach();
	int at;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	at = shared->nready;
	while (at > 0 &&
		   (shared->ready[at - 1].rank > job->rank ||
			(shared->ready[at - 1].rank == job->rank && shared->ready[at - 1].turn > job->turn)))
		at--;
	if (at < JOB_SLOTS)
	{
		shared->nready = Min(shared->nready + 1, JOB_SLOTS);
		memmove(&shared->ready[at + 1], &shared->ready[at],
				(shared->nready - 1 - at) * sizeof(ReadyJob));
		shared->ready[at] = *job;
	}
	LWLockRelease(&shared->lock);
}

/*
 * One unfinished job: ends it if it cannot run, else tells the launcher of it
 * if it may start now.
 */
static void
look_at_job(HeapTuple row, TupleDesc desc)
{
	static int turns[3]; /* of each rank, in this scan */
	ReadyJob ready = { .start.database = MyDatabaseId, .start.creator = InvalidTransactionId };
	bool begun = strcmp(SPI_getvalue(row, desc, 3), "running") == 0;
	char *wanted = SPI_getvalue(row, desc, 4);
	const char *unfit;
	TrainerPresence presence;
	TimestampTz next;
	bool isnull;

	ready.start.job = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	ready.start.owner = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	next = DatumGetTimestampTz(SPI_getbinval(row, desc, 5, &isnull));
	presence = trainer_presence(MyDatabaseId, ready.start.job);
	if (presence == TRAINER_ALIVE || presence == TRAINER_EXPECTED)
		return;
	ready.rank = presence == TRAINER_LOST ? 2 : begun ? 0 : 1;
	unfit = job_role_unfit(ready.start.owner);
	if (strcmp(wanted, "running") != 0)
		set_state(ready.start.job, wanted, NULL);
	else if (unfit)
		set_state(ready.start.job, "failed",
				  psprintf("the role that started the job %s any more", unfit));
	else if (next > GetCurrentTimestamp())
		rescan(next);
	else
	{
		ready.turn = turns[ready.rank]++;
		add_ready(&ready);
	}
}

/* Looks at the unfinished jobs; returns whether there are any. */
static bool
look_at_jobs(void)
{
	JobParams p = { 0 };
	SPITupleTable *table;
	uint64 n;

	param_add(&p, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()));
	param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	n = jobs_run("bicycle_training_jobs",
				 "SELECT job, owner::oid, state, wanted, next_attempt FROM %s"
				 " WHERE state IN ('queued', 'running') AND system_identifier = $1 AND database = "
				 "$2 ORDER BY updated_at, job",
				 SPI_OK_SELECT, &p);
	table = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
		look_at_job(table->vals[i], table->tupdesc);
	return n > 0;
}

/*
 * Unless the scan has found that no job is unfinished, there will be another
 * one.
 */
static void
watch_again(int code, Datum database)
{
	BicycleShared *shared = shared_attach();

	if (nothing_left)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	watch(shared, DatumGetObjectId(database));
	LWLockRelease(&shared->lock);
}

void
bicycle_scan_main(Datum arg)
{
	BicycleShared *shared = shared_attach();
	bool unfinished;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	/*
	 * First off, then back: a change that is committed while the scan looks
	 * puts the database there for itself.
	 */
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	unwatch(shared, DatumGetObjectId(arg));
	LWLockRelease(&shared->lock);
	before_shmem_exit(watch_again, arg);
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	unfinished = OidIsValid(jobs_table()) && look_at_jobs();
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	nothing_left = !unfinished;
	proc_exit(0);
}
