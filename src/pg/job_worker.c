/*
 * job_worker.c
 *	  The background worker that trains one job: one run of a training engine of
 *	  its own.
 *
 * R1 It connects as the role that started the job. Privileges and row security
 *    of the moment hold for what it reads and writes in that role's name: the
 *    pairs, the version to start from, the new version. Rows of the job itself
 *    it writes as all of the extension does (catalog_run.c).
 * R2 One read-only transaction reads the weights and the pairs and streams them
 *    to the engine (job_pairs.c). It ends before training starts.
 * R3 Then the worker waits on its latch and the engine's socket, and writes
 *    what comes (losses, previews, notes, checkpoints; job_frames.c) in a short
 *    transaction each. The last one stores the new version, and its state.
 * R4 SIGTERM ends it within seconds, with a checkpoint if one can be had
 *    (job_worker_stop.c). What it interrupts is no failure: the try is taken
 *    back.
 * R5 An engine that dies ends the run, as does a worker that crashes. The
 *    launcher starts another one, which goes on from the last checkpoint, after
 *    a delay that grows with each try.
 * R6 Tries are counted at their start, before anything can go wrong, and anew
 *    at each checkpoint. One that cannot even be counted is made again after a
 *    while (job_slots.c), without end: it has cost nothing.
 *
 * `job_worker` and what is kept below belong to this process, which has one
 * thread and does one run.
 */
#include "pg/job_worker.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pg/bicycle.h"
#include "pg/monotonic.h"
#include "common/invariant.h"
#include "pg/job_slots.h"
#include "pg/session.h"

#define STOP_TIMEOUT 3000 /* ms for a last checkpoint when the server stops */
#define STOP_SECONDS 10   /* ... after which what still runs is interrupted */
#define TURN_TIMEOUT 1000

static bool ordered; /* PAUSE has been sent */

/* Has the row been told to pause or to cancel? */
static void
look_at_row(void)
{
	Job now;
	bool stop;

	if (!job_worker_begin())
		return;
	if (!job_read(job_worker.job.job, &now, false))
		job_worker.finished = true;
	stop = !job_worker.finished && now.wanted != JOB_RUNNING;
	job_worker_end();
	if (!stop || ordered)
		return;
	ordered = true;
	if (job_worker.running)
		job_engine_order(BICYCLE_PAUSE);
	else
		job_worker_stopped(); /* nothing was computed since the last checkpoint */
}

/* Each turn: pings the engine, and asks it for a checkpoint when it is time. */
static void
heartbeat(void)
{
	int64 now = monotonic_ms();

	job_engine_heartbeat();
	job_engine_yield();
	if (job_worker.running && !ordered &&
		now - job_worker.checkpoint_ms >= bicycle_train_checkpoint_interval * INT64CONST(1000))
	{
		job_engine_order(BICYCLE_CHECKPOINT_NOW);
		job_worker.checkpoint_ms = now;
	}
}

/*
 * This run is none of the job's tries, and the launcher may start the next one
 * at once. Can be said more than once.
 */
static void
put_back(void)
{
	Params p;

	if (!job_worker_begin())
		return;
	job_worker_params(&p);
	param_add_int(&p, Max(job_worker.job.attempts - 1, 0));
	job_worker_update(
		"UPDATE %s SET attempts = least(attempts, $2), next_attempt = now() WHERE job = $1", &p);
	job_worker_end();
}

/*
 * The server stops, or somebody has terminated this worker or wants the
 * database: a last checkpoint if it comes soon. The try is taken back first, as
 * the checkpoint may take longer than there is time.
 */
static void
stop_early(void)
{
	int64 deadline = monotonic_ms() + STOP_TIMEOUT;
	int64 before = job_worker.job.checkpoint;

	put_back();
	if (job_worker.running)
		job_engine_order(BICYCLE_CHECKPOINT_NOW);
	while (job_worker.running && !job_worker.finished && session_is_open() &&
		   job_worker.job.checkpoint == before && monotonic_ms() < deadline)
	{
		session_flush();
		if (session_is_open() && !session_read())
			session_wait(Max(1, deadline - monotonic_ms()));
		job_frames_handle();
	}
	if (!job_worker.finished && !session_is_open())
		job_engine_lost();
}

/*
 * The first part of the run. It may be long, and what it does is the user's
 * query: SIGTERM, and SIGINT of who stops the job, interrupt it wherever it is.
 * Afterwards SIGTERM waits for a checkpoint, and there is nothing to cancel.
 */
static void
feed(void)
{
	job_slot_reading(true);
	look_at_row();
	if (!job_worker.finished)
		job_pairs_send();
	job_slot_reading(false);
	pqsignal(SIGINT, SIG_IGN);
	job_worker_patience(STOP_SECONDS);
}

static void
train(void)
{
	MemoryContext turn =
		AllocSetContextCreate(job_worker.context, "bicycle job turn", ALLOCSET_DEFAULT_SIZES);

	look_at_row();
	while (!job_worker.finished)
	{
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending || job_worker_in_the_way())
		{
			stop_early();
			return;
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			job_engine_settings(false);
		}
		job_frames_handle();
		if (job_worker.finished)
			return;
		if (!session_is_open())
			job_engine_lost();
		if (job_slot_poked())
			look_at_row();
		heartbeat();
		session_flush();
		if (session_is_open() && !session_read())
			session_wait(TURN_TIMEOUT);
	}
}

/*
 * What came after the last checkpoint will be computed anew: the row, the
 * losses and the previews go back to it with the beginning of a try.
 */
static void
return_to_checkpoint(void)
{
	Params p;

	job_worker_params(&p);
	param_add_long(&p, job_worker.job.checkpoint);
	job_worker_run(JOB_LOSSES, "DELETE FROM %s WHERE job = $1 AND iteration > $2", SPI_OK_DELETE,
				   &p);
	job_worker_run(JOB_PREVIEWS, "DELETE FROM %s WHERE job = $1 AND iteration > $2", SPI_OK_DELETE,
				   &p);
	job_worker_update("UPDATE %s SET iteration = $2 WHERE job = $1", &p);
}

/* Too often it has ended without a checkpoint in between. */
static void
give_up(void)
{
	Params p;

	job_worker_params(&p);
	param_add_state(&p, JOB_FAILED);
	param_add_int(&p, JOB_TRIES);
	job_worker_update("UPDATE %s SET state = $2, sqlstate = coalesce(sqlstate, '58000'), error = "
					  "concat(coalesce(error, 'training ended unexpectedly'), ' (', $3, "
					  "' tries)'), updated_at = now() WHERE job = $1",
					  &p);
}

static void
begin_try(void)
{
	Params p;

	job_worker_params(&p);
	param_add_state(&p, JOB_RUNNING);
	param_add_int(&p, job_worker.job.attempts);
	param_add(&p, FLOAT8OID, Float8GetDatum(JOB_RETRY_FIRST << (job_worker.job.attempts - 1)));
	job_worker_update(
		"UPDATE %s SET state = $2, attempts = $3, next_attempt = now() + $4 * "
		"interval '1 second',"
		" started_at = coalesce(started_at, now()), updated_at = now() WHERE job = $1",
		&p);
	return_to_checkpoint();
}

/* Reads the row and makes it running; false if there is nothing to do. */
static bool
begin_job(int64 number)
{
	MemoryContext old;
	Job row;
	bool mine;

	if (!job_worker_begin())
		return false;
	mine = job_read(number, &row, true) && job_is_active(&row) && row.owner == GetUserId() &&
		   row.wanted == JOB_RUNNING;
	if (mine)
	{
		old = MemoryContextSwitchTo(job_worker.context);
		job_copy(&job_worker.job, &row);
		MemoryContextSwitchTo(old);
		job_worker.job.attempts++;
		job_worker.complete = row.checkpoint > 0 && row.checkpoint == row.iterations;
		mine = job_worker.job.attempts <= JOB_TRIES;
		if (mine)
			begin_try();
		else
			give_up();
	}
	job_worker_end();
	return mine && !job_worker.finished;
}

/*
 * Another try may help: the engine died, the machine was short of something, or
 * who worked for this process (a parallel worker) was told to end.
 */
static bool
may_try_again(const ErrorData *error)
{
	return job_worker.job.attempts < JOB_TRIES &&
		   (error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
				ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_FAILURE) ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
				ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
				ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES));
}

/*
 * The run has failed: the real error goes to the row, and the job ends or waits
 * for its next try.
 */
static void
note_failure(const ErrorData *error)
{
	StringInfoData words;
	Params p;

	initStringInfo(&words);
	appendStringInfoString(&words, error->message);
	if (error->detail)
		appendStringInfo(&words, "\n%s", error->detail);
	if (error->hint)
		appendStringInfo(&words, "\n%s", error->hint);
	if (!job_worker_begin())
		return;
	job_worker_params(&p);
	param_add_text(&p, words.data);
	param_add_text(&p, unpack_sql_state(error->sqlerrcode == ERRCODE_CONNECTION_FAILURE
											? ERRCODE_SYSTEM_ERROR
											: error->sqlerrcode));
	param_add_text(&p, may_try_again(error) ? NULL : job_state_name(JOB_FAILED));
	param_add_state(&p, JOB_RUNNING);
	job_worker_update("UPDATE %s SET error = $2, sqlstate = $3, state = coalesce($4, state),"
					  " wanted = CASE WHEN $4 IS NULL THEN wanted ELSE $5 END,"
					  " updated_at = now() WHERE job = $1",
					  &p);
	job_worker_end();
}

/*
 * The transaction that has started the job may still run. Having waited, its
 * row is there or never will be.
 */
static void
wait_for_creator(TransactionId creator)
{
	StartTransactionCommand();
	if (TransactionIdIsInProgress(creator))
		XactLockTableWait(creator, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

/* The run was interrupted: the job is stopped, or the worker was. */
static void
end_interrupted(void)
{
	look_at_row();
	if (!job_worker.finished)
		put_back();
}

/*
 * What may be set for the role or the database, but is meant for sessions: a
 * job runs as the role itself, writes, and waits for its row as long as it
 * must. Everything else that is set for them holds.
 */
static void
own_settings(void)
{
	static const char *const settings[][2] = {
		{ "role", "none" },
		{ "default_transaction_read_only", "off" },
		{ "default_transaction_isolation", "read committed" },
		{ "default_transaction_deferrable", "off" },
		{ "statement_timeout", "0" },
		{ "lock_timeout", "0" },
		{ "idle_in_transaction_session_timeout", "0" },
#if PG_VERSION_NUM >= 170000
		{ "transaction_timeout", "0" },
#endif
		{ "search_path", "pg_catalog, pg_temp" },
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

void
bicycle_trainer_main(Datum arg)
{
	JobStart start;
	ErrorData *volatile error = NULL;
	volatile bool interrupted = false;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.owner, 0);
	job_worker.context =
		AllocSetContextCreate(TopMemoryContext, "bicycle job worker", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(job_worker.context);
	own_settings();
	if (TransactionIdIsValid(start.creator))
		wait_for_creator(start.creator);
	if (!job_slot_claim(start.database, start.job))
		proc_exit(0);

	job_worker_take_signals();
	PG_TRY();
	{
		bool begun = begin_job(start.job);

		job_slot_settle();
		if (begun)
		{
			job_engine_start(job_frames_take);
			feed();
			train();
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(job_worker.context);
		HOLD_INTERRUPTS();
		error = CopyErrorData();
		/*
		 * The user's query may have made another error of the interruption. One
		 * that is the job's own will come again.
		 */
		interrupted = ShutdownRequestPending || job_slot_interrupted();
		if (!interrupted || error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		pqsignal(SIGINT, SIG_IGN);
		job_worker_patience(JOB_LAST_SECONDS);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (interrupted)
		end_interrupted();
	else if (error)
		note_failure(error);
	proc_exit(0);
}
