/*
 * job_scan.c
 *	  A background worker that looks through the jobs of one database for the
 *	  launcher, and ends.
 *
 * R1 It runs fixed statements on the table of jobs only, and nothing of a user.
 * R2 A job that nobody may run any more it ends. It does not wait for a row
 *    that somebody has locked, as all databases would wait with it; nor does it
 *    write to one that has changed since it was read.
 * R3 Its database is watched again at its end, unless it has found that no job
 *    is unfinished there.
 */
#include "pg/launcher.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/invariant.h"
#include "pg/job_slots.h"
#include "pg/job_watch.h"
#include "pg/jobs.h"

static bool nothing_left = false; /* the scan has ended, and no job is unfinished */

/* A row that is locked, or has changed, the next scan will look at again. */
static void
set_state(const Job *job, JobState state, const char *error)
{
	Params p = { 0 };

	param_add_long(&p, job->job);
	param_add_state(&p, state);
	param_add_state(&p, JOB_RUNNING);
	param_add_text(&p, error);
	param_add_state(&p, job->state);
	param_add_state(&p, job->wanted);
	(void) catalog_run(AS_OWNER, JOBS,
					   "UPDATE %1$s SET state = $2, wanted = $3, error = $4, sqlstate = CASE "
					   "WHEN $4 IS NOT NULL THEN '42501' END,"
					   " updated_at = now() WHERE job = (SELECT job FROM %1$s WHERE job = $1"
					   " AND state = $5 AND wanted = $6 FOR UPDATE SKIP LOCKED)",
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
	INVARIANT(shared->nready >= 0 && shared->nready <= JOB_SLOTS);
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
 * No try is put off longer than the last one: if it seems so, the clock has
 * been set back meanwhile.
 */
static bool
is_due(const Job *job)
{
	TimestampTz now = GetCurrentTimestamp();

	return job->next_attempt <= now || job->next_attempt - now > JOB_RETRY_LONGEST * USECS_PER_SEC;
}

/*
 * One unfinished job: ends it if it cannot run, else tells the launcher of it
 * if it may start now.
 */
static void
look_at_job(const Job *job)
{
	static int turns[3]; /* of each rank, in this scan */
	ReadyJob ready = { .start = { .job = job->job,
								  .database = MyDatabaseId,
								  .owner = job->owner,
								  .creator = InvalidTransactionId } };
	JobPresence presence = job_presence(MyDatabaseId, job->job);
	const char *unfit;

	if (presence == JOB_EXPECTED) /* which others may wait for, too */
		rescan(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), JOB_START_TIME));
	if (presence == JOB_ALIVE || presence == JOB_EXPECTED)
		return;
	ready.rank = presence == JOB_LOST ? 2 : job->state == JOB_RUNNING ? 0 : 1;
	unfit = job_role_unfit(job->owner);
	if (job->wanted != JOB_RUNNING)
		set_state(job, job->wanted, NULL);
	else if (unfit)
		set_state(job, JOB_FAILED, psprintf("the role that started the job %s any more", unfit));
	else if (!is_due(job))
		rescan(job->next_attempt);
	else
	{
		ready.turn = turns[ready.rank]++;
		add_ready(&ready);
	}
}

/* Returns whether there are unfinished jobs. */
static bool
look_at_jobs(void)
{
	int n;
	Job *jobs = jobs_unfinished(&n);

	for (int i = 0; i < n; i++)
		look_at_job(&jobs[i]);
	return n > 0;
}

static void
watch_again(int code, Datum database)
{
	BicycleShared *shared = shared_attach();

	if (nothing_left)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	job_watch_add(shared, DatumGetObjectId(database));
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
	job_watch_remove(shared, DatumGetObjectId(arg));
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
