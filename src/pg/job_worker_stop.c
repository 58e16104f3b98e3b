/*
 * job_worker_stop.c
 *	  What interrupts a job's worker, and when.
 *
 * R1 While the pairs are read, SIGTERM, who stops the job, and who wants the
 *    database for himself, interrupt the user's query at once. It may catch the
 *    interruption; then it is interrupted again, each second.
 * R2 Afterwards SIGTERM waits for a checkpoint, for as many seconds as
 *    job_worker_patience says, and nothing else interrupts.
 * R3 After JOB_LAST_SECONDS the worker ends wherever it is.
 */
#include "pg/job_worker.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "pg/monotonic.h"
#include "pg/job_slots.h"

#define LOOK_INTERVAL 1000 /* ms between looks at who wants the database */

static volatile sig_atomic_t patience = 0; /* read in signal handlers */

/* ---- Who wants the database ---------------------------------------------- */

/*
 * Whether somebody waits for the last connection to the database to end, to
 * drop, rename, move or copy it: they hold its lock meanwhile. The worker makes
 * way then, within the five seconds for which they wait. If the database is
 * there afterwards, the launcher starts the job again.
 */
bool
job_worker_in_the_way(void)
{
	static int64 looked_ms = 0;
	int64 now = monotonic_ms();
	bool reading = IsTransactionState();
	LOCKTAG tag;
	bool wanted;

	if (now - looked_ms < LOOK_INTERVAL)
		return false;
	looked_ms = now;
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (!reading)
		StartTransactionCommand();
	wanted = LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
	if (!wanted)
		(void) LockRelease(&tag, RowExclusiveLock, false);
	if (!reading)
		CommitTransactionCommand();
	return wanted;
}

void
job_worker_make_way(void)
{
	if (job_worker_in_the_way())
		ShutdownRequestPending = InterruptPending = QueryCancelPending = true;
	CHECK_FOR_INTERRUPTS();
}

/* ---- Signals ------------------------------------------------------------- */

void
job_worker_patience(int seconds)
{
	patience = seconds;
	if (seconds > 0)
		QueryCancelPending = false;
}

/* SIGTERM. */
static void
call_stop(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true;
	if (patience == 0)
		InterruptPending = QueryCancelPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Each second: what keeps a worker that is to stop too long (a lock, a large
 * checkpoint on a slow disk) is interrupted. The user's query may have caught
 * an interruption, and is interrupted again.
 */
static void
end_if_late(void)
{
	static int seconds = 0; /* since SIGTERM */

	if (ShutdownRequestPending)
		seconds++;
	if (seconds >= JOB_LAST_SECONDS)
		InterruptPending = ProcDiePending = true;
	else if ((ShutdownRequestPending && seconds >= patience) ||
			 (patience == 0 && job_slot_interrupted()))
		InterruptPending = QueryCancelPending = true;
}

void
job_worker_take_signals(void)
{
	pqsignal(SIGTERM, call_stop);
	(void) RegisterTimeout(USER_TIMEOUT, end_if_late);
	enable_timeout_every(USER_TIMEOUT, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000),
						 1000);
}
