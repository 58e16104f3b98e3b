/*
 * job_slots.c
 *	  Which jobs have a worker now, in shared memory; and what a transaction
 *	  that changes jobs does when it commits.
 *
 * R1 A slot is filled in when a worker is registered, and counts from then on.
 *    The process takes it over when it has come up, and frees it at its end.
 * R2 A slot whose process does not come up within JOB_START_TIME is free for
 *    others. Until somebody takes it, it tells that the job's worker is lost.
 *    So does the slot of a process that has ended before its job's row could be
 *    written, or it would be started again as fast as processes start.
 * R3 A job has one slot at most.
 * R4 What a session changes becomes known to workers and launcher when it
 *    commits, and not if it does not.
 *
 * The lists of a transaction live in its memory.
 */
#include "pg/job_slots.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/memutils.h"

#include "pg/bgworker.h"
#include "pg/bicycle.h"
#include "pg/monotonic.h"
#include "common/invariant.h"
#include "pg/job_watch.h"

#define FAULT_SLOTS 4 /* of bicycle.debug_fault */

static JobSlot *my_slot = NULL; /* of this process, if it is a job's worker */
static bool settled = false;    /* the job's row tells how far this process is */
static bool changed = false;    /* a job, in this transaction */
static List *stopping = NIL;    /* int64 *: jobs that this transaction stops */

/* ---- Slots --------------------------------------------------------------- */

/* Under the lock. */
static bool
slot_expected(const JobSlot *slot)
{
	return slot->pid == 0 && slot->registered_ms != 0 &&
		   monotonic_ms() - slot->registered_ms < JOB_START_TIME;
}

/* Under the lock; without the slot of that job. */
static int
count_running(const BicycleShared *shared, const JobSlot *except)
{
	int n = 0;

	for (int i = 0; i < JOB_SLOTS; i++)
		if (&shared->jobs[i] != except &&
			(shared->jobs[i].pid != 0 || slot_expected(&shared->jobs[i])))
			n++;
	return n;
}

/* Under the lock; NULL if there is none. */
static JobSlot *
slot_of(BicycleShared *shared, Oid database, int64 job)
{
	for (int i = 0; i < JOB_SLOTS; i++)
	{
		JobSlot *slot = &shared->jobs[i];

		if (slot->registered_ms != 0 && slot->database == database && slot->job == job)
			return slot;
	}
	return NULL;
}

/*
 * Under the lock: the slot of a job, or a free one for it; NULL if all are
 * taken.
 */
static JobSlot *
slot_for(BicycleShared *shared, Oid database, int64 job)
{
	JobSlot *slot = slot_of(shared, database, job);

	for (int i = 0; i < JOB_SLOTS && slot == NULL; i++)
		if (shared->jobs[i].pid == 0 && !slot_expected(&shared->jobs[i]))
			slot = &shared->jobs[i];
	return slot;
}

/* Under the lock: R1 and R3. */
static void
check_slots(const BicycleShared *shared)
{
	for (int i = 0; i < JOB_SLOTS; i++)
	{
		const JobSlot *slot = &shared->jobs[i];

		INVARIANT(slot->pid == 0 || slot->registered_ms != 0);
		INVARIANT(!slot->interrupted || slot->pid != 0);
		for (int j = 0; j < i && slot->registered_ms != 0; j++)
			INVARIANT(shared->jobs[j].registered_ms == 0 || shared->jobs[j].job != slot->job ||
					  shared->jobs[j].database != slot->database);
	}
}

int
job_slots_used(void)
{
	BicycleShared *shared = shared_attach();
	int n;

	LWLockAcquire(&shared->lock, LW_SHARED);
	n = count_running(shared, NULL);
	LWLockRelease(&shared->lock);
	return n;
}

JobPresence
job_presence(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	JobPresence presence = JOB_ABSENT;
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_SHARED);
	slot = slot_of(shared, database, job);
	if (slot)
		presence = slot->pid != 0 ? JOB_ALIVE : slot_expected(slot) ? JOB_EXPECTED : JOB_LOST;
	LWLockRelease(&shared->lock);
	return presence;
}

/* Frees the slot of a job if no process has it. */
static void
forget_slot(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_of(shared, database, job);
	if (slot && slot->pid == 0)
		memset(slot, 0, sizeof(*slot));
	LWLockRelease(&shared->lock);
}

bool
job_slot_register(const JobStart *start)
{
	BicycleShared *shared = shared_attach();
	BackgroundWorker worker;
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_for(shared, start->database, start->job);
	if (slot && slot->pid == 0)
	{
		memset(slot, 0, sizeof(*slot));
		slot->database = start->database;
		slot->job = start->job;
		slot->registered_ms = monotonic_ms();
		/* For tests: see that it is noticed. */
		slot->interrupted = bicycle_debug && bicycle_debug_fault == FAULT_SLOTS;
	}
	check_slots(shared);
	LWLockRelease(&shared->lock);
	bgworker_fill(&worker, "bicycle trainer", "bicycle_trainer_main", true);
	snprintf(worker.bgw_name, BGW_MAXLEN, "bicycle trainer of job " INT64_FORMAT, start->job);
	StaticAssertStmt(sizeof(*start) <= BGW_EXTRALEN, "what a worker is told must fit");
	memcpy(worker.bgw_extra, start, sizeof(*start));
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
		return true;
	forget_slot(start->database, start->job);
	return false;
}

static void
release_slot(int code, Datum arg)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	*my_slot = settled ? (JobSlot){ 0 }
					   : (JobSlot){ .registered_ms = monotonic_ms(),
									.database = my_slot->database,
									.job = my_slot->job };
	LWLockRelease(&shared->lock);
	if (settled) /* for this job if it has not ended, or for the next one */
		job_watch_wake(MyDatabaseId, true);
}

void
job_slot_settle(void)
{
	settled = true;
}

bool
job_slot_claim(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	JobSlot *slot;

	INVARIANT(my_slot == NULL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_for(shared, database, job);
	if (slot && slot->pid == 0 && count_running(shared, slot) < bicycle_max_training_jobs)
	{
		memset(slot, 0, sizeof(*slot));
		slot->registered_ms = monotonic_ms();
		slot->database = database;
		slot->job = job;
		slot->pid = MyProcPid;
		my_slot = slot;
	}
	check_slots(shared);
	LWLockRelease(&shared->lock);
	if (my_slot)
		before_shmem_exit(release_slot, (Datum) 0);
	else
		forget_slot(database, job);
	return my_slot != NULL;
}

void
job_slot_reading(bool reading)
{
	BicycleShared *shared = shared_attach();

	INVARIANT(my_slot && my_slot->pid == MyProcPid);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_slot->reading = reading;
	my_slot->interrupted = false;
	LWLockRelease(&shared->lock);
}

bool
job_slot_interrupted(void)
{
	return my_slot->interrupted; /* one word, read without the lock: signal handlers ask, too */
}

bool
job_slot_poked(void)
{
	BicycleShared *shared = shared_attach();
	bool poked;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	poked = my_slot->poked;
	my_slot->poked = false;
	LWLockRelease(&shared->lock);
	return poked;
}

/* ---- GPUs ---------------------------------------------------------------- */

/* Under the lock: jobs of others on it. */
static int
count_on_card(const BicycleShared *shared, int card)
{
	int n = 0;

	for (int i = 0; i < JOB_SLOTS; i++)
		n += &shared->jobs[i] != my_slot && shared->jobs[i].pid != 0 &&
			 shared->jobs[i].card_number == card + 1;
	return n;
}

int
job_slot_take_card(const int *cards, int n, int before)
{
	BicycleShared *shared = shared_attach();
	int best = cards[0];
	int fewest = INT_MAX;

	INVARIANT(my_slot && n > 0);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		int others = count_on_card(shared, cards[i]);

		if (others > fewest || (others == fewest && cards[i] != before))
			continue;
		best = cards[i];
		fewest = others;
	}
	my_slot->card_number = best + 1;
	LWLockRelease(&shared->lock);
	return best;
}

void
job_slot_set_card(int card)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_slot->card_number = card + 1;
	LWLockRelease(&shared->lock);
}

int
job_slot_card(void)
{
	return my_slot->card_number - 1; /* which this process alone writes */
}

/* Under the lock. */
static void
wake_worker(const JobSlot *slot)
{
	PGPROC *proc = BackendPidGetProc(slot->pid);

	if (proc)
		SetLatch(&proc->procLatch);
}

void
job_slots_wake(int card)
{
	BicycleShared *shared = shared_attach();

	if (card == NO_CARD)
		return;
	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < JOB_SLOTS; i++)
		if (shared->jobs[i].pid != 0 && shared->jobs[i].card_number == card + 1)
			wake_worker(&shared->jobs[i]);
	LWLockRelease(&shared->lock);
}

/* ---- Telling workers that rows have changed ------------------------------ */

static bool
is_stopping(int64 job)
{
	ListCell *cell;

	foreach (cell, stopping)
		if (*(int64 *) lfirst(cell) == job)
			return true;
	return false;
}

/*
 * Signals are sent under the lock, without which a slot's process might be
 * another one by now.
 */
static void
poke_workers(void)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JOB_SLOTS; i++)
	{
		JobSlot *slot = &shared->jobs[i];

		if (slot->pid == 0 || slot->database != MyDatabaseId)
			continue;
		slot->poked = true;
		if (slot->reading && is_stopping(slot->job))
		{
			slot->interrupted = true;
			kill(slot->pid, SIGINT);
		}
		wake_worker(slot);
	}
	LWLockRelease(&shared->lock);
}

/* ---- At the end of a transaction ----------------------------------------- */

static void
transaction_ends(XactEvent event, void *arg)
{
	if (!changed)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "cannot prepare a transaction that has started or changed a training job")));
			break;
		case XACT_EVENT_COMMIT:
			changed = false;
			poke_workers();
			stopping = NIL;
			job_watch_wake(MyDatabaseId, false);
			break;
		case XACT_EVENT_ABORT:
			changed = false;
			stopping = NIL;
			break;
		default:
			break;
	}
}

void
jobs_changed(void)
{
	static bool registered = false;

	if (!IsUnderPostmaster)
		return;             /* nobody is there to be told */
	(void) shared_attach(); /* which may fail, as nothing may once the transaction has committed */
	if (!registered)
	{
		RegisterXactCallback(transaction_ends, NULL);
		registered = true;
	}
	changed = true;
}

void
job_stopping(int64 job)
{
	MemoryContext old;
	int64 *copy;

	if (!IsUnderPostmaster)
		return; /* as jobs_changed */
	old = MemoryContextSwitchTo(TopTransactionContext);
	copy = palloc(sizeof(*copy));
	*copy = job;
	stopping = lappend(stopping, copy);
	MemoryContextSwitchTo(old);
	jobs_changed();
}
