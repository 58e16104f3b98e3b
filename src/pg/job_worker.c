/*
 * job_worker.c
 *	  The background worker that trains one job: one run of a training engine of
 *	  its own.
 *
 * It connects as the role that started the job, so privileges and row security
 * of the moment hold for what it reads and writes in that role's name: the
 * pairs, the version to start from, the new version. Rows of the job itself it
 * writes as all of the extension does (jobs_run).
 *
 * A run has three parts. One read-only transaction reads the pairs and the
 * weights and streams them to the engine; it ends before training starts. Then
 * the worker waits on its latch and the engine's socket, and writes what comes
 * (losses, previews, notes, checkpoints) in a short transaction each, so that
 * nothing holds back vacuum. At the end it stores the new version, and its
 * state, in one.
 *
 * SIGTERM ends it within seconds, with a checkpoint if one can be had. What it
 * interrupts is no failure: the try is taken back.
 *
 * An engine that dies ends the run, as does a worker that crashes: the launcher
 * starts another one, which goes on from the last checkpoint, after a delay
 * that grows with each try. Tries are counted at their start, before anything
 * can go wrong, and anew at each checkpoint.
 *
 * `trainer` and what is kept below belong to this process, which has one thread
 * and does one run. The first part is job_pairs.c, what the engine says is
 * job_frames.c.
 */
#include "job_worker.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "session.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "engine_process.h"

#define STOP_TIMEOUT 3000 /* ms for a last checkpoint when the server stops */
#define STOP_SECONDS 10   /* ... after which what still runs is interrupted */
#define LAST_SECONDS 15   /* ... and after which the worker ends wherever it is */
/*
 * pings without an answer: a process at idle priority may wait long on a busy
 * machine
 */
#define PONGS_MISSED 60
#define LAST_WORDS_TIMEOUT 1000 /* ms from the end of the connection to that of the process */
#define TURN_TIMEOUT 1000
#define RETRY_FIRST 1000 /* ms before the second try; doubled for each further one */

TrainerRun trainer;

static EngineProcess engine = { .control = -1 };
static char greeting[128]; /* what it was ready as */
static bool ordered;       /* PAUSE has been sent */
static volatile sig_atomic_t patience =
	0; /* of SIGTERM, see trainer_patience; read in signal handlers */

/* ---- Transactions on the job's row --------------------------------------- */

bool
trainer_begin(void)
{
	static Oid first_table =
		/*
		 * who drops the extension and creates it again has other jobs of the
		 * same numbers
		 */
		InvalidOid;
	Oid table;

	SetCurrentStatementStartTimestamp(); /* which is now() */
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	table = jobs_table();
	if (!OidIsValid(first_table))
		first_table = table;
	if (OidIsValid(table) && table == first_table)
		return true;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	trainer.finished = true;
	return false;
}

void
trainer_end(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
trainer_update(const char *statement, JobParams *p)
{
	if (jobs_run("bicycle_training_jobs", statement, SPI_OK_UPDATE, p) == 0)
		trainer.finished = true;
}

void
trainer_params(JobParams *p)
{
	memset(p, 0, sizeof(*p));
	param_add(p, INT8OID, Int64GetDatum(trainer.job.job));
}

void
trainer_note(int cause, const char *note)
{
	JobParams p;

	trainer_params(&p);
	param_add_text(&p, note);
	param_add(&p, INT4OID, Int32GetDatum(cause));
	trainer_update("UPDATE %s SET notes = CASE WHEN noted & $3 = 0 THEN concat_ws(E'\\n', notes, "
				   "$2) ELSE notes END, noted = noted | $3, updated_at = now()"
				   " WHERE job = $1",
				   &p);
}

/* ---- The engine ---------------------------------------------------------- */

static void
end_engine(int code, Datum arg)
{
	engine_process_end(&engine);
}

/* What ends it is told by who finds that it has ended: engine.last_words. */
static void
engine_says(EngineWord word, const char *text)
{
	if (word == ENGINE_SAYS_READY)
		strlcpy(greeting, text, sizeof(greeting));
}

static void
check_version(void)
{
	if (strcmp(greeting, psprintf(BICYCLE_TRAIN_GREETING, BICYCLE_VERSION, BICYCLE_PROTOCOL)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("training engine is of another version"),
				 errdetail("The library is version %s, the engine is \"%s\".", BICYCLE_VERSION,
						   session_text(greeting)),
				 errhint("Restart the server after bicycle has been upgraded, and resume the "
						 "job.")));
}

/* Nothing is sent to it before. */
static void
wait_until_ready(void)
{
	for (;;)
	{
		long timeout = engine_process_heartbeat(&engine, PONGS_MISSED);

		if (engine.ready)
			break;
		if (engine.control < 0)
			trainer_lost();
		(void) WaitLatchOrSocket(
			MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE,
			engine.control, timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	check_version();
}

/*
 * What takes a minute for a batch of large images is not stuck, nor is what
 * waits for a busy processor.
 */
static void
send_settings(bool go)
{
	char more[64];

	snprintf(more, sizeof(more), "set stuck_timeout " INT64_FORMAT "\n",
			 (int64) bicycle_train_stuck_timeout * 1000);
	engine_process_configure(&engine, more, go);
}

static void
start_engine(void)
{
	char *name = MemoryContextAlloc(trainer.context, NAMEDATALEN);
	int data;

	snprintf(name, NAMEDATALEN, "bicycle training engine of job " INT64_FORMAT, trainer.job.job);
	before_shmem_exit(end_engine, (Datum) 0);
	engine_process_start(&engine, name, "--train", &data, engine_says);
	session_adopt(data, trainer_frame);
	send_settings(true);
	trainer.checkpoint_ms = clock_ms();
}

/* The connection has ended, and so must the engine: tells how. */
void
trainer_lost(void)
{
	char *how = NULL;
	int status;

	if (engine_process_wait(&engine, LAST_WORDS_TIMEOUT, &status))
		how = wait_result_to_str(status);
	engine_process_read(&engine);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE), errmsg("training engine ended unexpectedly"),
			 engine.last_words[0] ? errdetail("It said: %s", session_text(engine.last_words))
			 : how                ? errdetail("The process: %s.", how)
								  : 0));
}

/* ---- The run ------------------------------------------------------------- */

/* Has the row been told to pause or to cancel? */
static void
look_at_row(void)
{
	Job now;
	bool stop;

	if (!trainer_begin())
		return;
	if (!job_read(trainer.job.job, &now, false))
		trainer.finished = true;
	stop = !trainer.finished && strcmp(now.wanted, "running") != 0;
	trainer_end();
	if (!stop || ordered)
		return;
	ordered = true;
	if (trainer.running)
		trainer_order(BICYCLE_PAUSE);
	else
		trainer_stopped(); /* nothing was computed since the last checkpoint */
}

/* Pings the engine, and asks it for a checkpoint when it is time. */
static void
heartbeat(void)
{
	int64 now = clock_ms();

	(void) engine_process_heartbeat(&engine, PONGS_MISSED);
	if (trainer.running && !ordered &&
		now - trainer.checkpoint_ms >= bicycle_train_checkpoint_interval * INT64CONST(1000))
	{
		trainer_order(BICYCLE_CHECKPOINT_NOW);
		trainer.checkpoint_ms = now;
	}
}

/*
 * This run is none of the job's tries, and the launcher may start the next one
 * at once. Can be said more than once.
 */
static void
put_back(void)
{
	JobParams p;

	if (!trainer_begin())
		return;
	trainer_params(&p);
	param_add(&p, INT4OID, Int32GetDatum(Max(trainer.job.attempts - 1, 0)));
	trainer_update(
		"UPDATE %s SET attempts = least(attempts, $2), next_attempt = now() WHERE job = $1", &p);
	trainer_end();
}

/*
 * The server stops, or somebody has terminated this worker or wants the
 * database: a last checkpoint if it comes soon. The try is taken back first, as
 * the checkpoint may take longer than there is time.
 */
static void
stop_early(void)
{
	int64 deadline = clock_ms() + STOP_TIMEOUT;
	int64 before = trainer.job.checkpoint;

	put_back();
	if (trainer.running)
		trainer_order(BICYCLE_CHECKPOINT_NOW);
	while (trainer.running && !trainer.finished && session_is_open() &&
		   trainer.job.checkpoint == before && clock_ms() < deadline)
	{
		session_flush();
		if (session_is_open() && !session_read())
			session_wait(Max(1, deadline - clock_ms()));
		trainer_handle();
	}
	if (!trainer.finished && !session_is_open())
		trainer_lost();
}

/*
 * Whether somebody waits for the last connection to the database to end, to
 * drop, rename, move or copy it: they hold its lock meanwhile. The worker makes
 * way then, within the five seconds for which they wait. If the database is
 * there afterwards, the launcher starts the job again.
 */
static bool
database_is_wanted(void)
{
	static int64 looked_ms = 0;
	int64 now = clock_ms();
	bool reading = IsTransactionState();
	LOCKTAG tag;
	bool wanted;

	if (now - looked_ms < TURN_TIMEOUT)
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
trainer_make_way(void)
{
	if (database_is_wanted())
		ShutdownRequestPending = InterruptPending = QueryCancelPending = true;
	CHECK_FOR_INTERRUPTS();
}

/*
 * The first part of the run. It may be long, and what it does is the user's
 * query: SIGTERM, and SIGINT of who stops the job, interrupt it wherever it is.
 * Afterwards SIGTERM waits for a checkpoint, and there is nothing to cancel.
 */
static void
feed(void)
{
	trainer_reading(true);
	look_at_row();
	if (!trainer.finished)
		trainer_feed();
	trainer_reading(false);
	pqsignal(SIGINT, SIG_IGN);
	trainer_patience(STOP_SECONDS);
}

static void
train(void)
{
	MemoryContext turn =
		AllocSetContextCreate(trainer.context, "bicycle trainer turn", ALLOCSET_DEFAULT_SIZES);

	look_at_row();
	while (!trainer.finished)
	{
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending || database_is_wanted())
		{
			stop_early();
			return;
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			send_settings(false);
		}
		trainer_handle();
		if (trainer.finished)
			return;
		if (!session_is_open())
			trainer_lost();
		if (trainer_poked())
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
	JobParams p;

	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(trainer.job.checkpoint));
	(void) jobs_run("bicycle_training_losses", "DELETE FROM %s WHERE job = $1 AND iteration > $2",
					SPI_OK_DELETE, &p);
	(void) jobs_run("bicycle_training_previews", "DELETE FROM %s WHERE job = $1 AND iteration > $2",
					SPI_OK_DELETE, &p);
	trainer_update("UPDATE %s SET iteration = $2 WHERE job = $1", &p);
}

/* Reads the row and makes it running; false if there is nothing to do. */
static bool
begin_job(int64 number)
{
	MemoryContext old;
	JobParams p;
	Job row;
	bool mine;

	if (!trainer_begin())
		return false;
	mine = job_read(number, &row, true) && job_is_active(&row) && row.owner == GetUserId() &&
		   strcmp(row.wanted, "running") == 0;
	if (mine)
	{
		old = MemoryContextSwitchTo(trainer.context);
		trainer.job = row;
		trainer.job.model = pstrdup(row.model);
		trainer.job.pairs = pstrdup(row.pairs);
		trainer.job.search_path = pstrdup(row.search_path);
		trainer.job.options = pstrdup(row.options);
		trainer.job.platform = row.platform ? pstrdup(row.platform) : NULL;
		trainer.job.data_digest =
			row.data_digest
				? (bytea *) DatumGetPointer(datumCopy(PointerGetDatum(row.data_digest), false, -1))
				: NULL;
		trainer.job.state = trainer.job.wanted = trainer.job.error = NULL;
		trainer.job.attempts++;
		trainer.complete = row.checkpoint > 0 && row.checkpoint == row.iterations;
		MemoryContextSwitchTo(old);
		trainer_params(&p);
		param_add(&p, INT4OID, Int32GetDatum(trainer.job.attempts));
		param_add(&p, FLOAT8OID,
				  Float8GetDatum(RETRY_FIRST / 1000.0 *
								 (1 << (Min(trainer.job.attempts, JOB_TRIES) - 1))));
		if (trainer.job.attempts > JOB_TRIES)
			trainer_update(
				"UPDATE %s SET state = 'failed', sqlstate = coalesce(sqlstate, '58000'), error = "
				"concat(coalesce(error, 'training ended unexpectedly'),"
				" ' (', $2 - 1, ' tries)'), updated_at = now() + $3 * interval '0' WHERE job = $1",
				&p);
		else
			trainer_update(
				"UPDATE %s SET state = 'running', attempts = $2, next_attempt = now() + $3 * "
				"interval '1 second',"
				" started_at = coalesce(started_at, now()), updated_at = now() WHERE job = $1",
				&p);
		mine = trainer.job.attempts <= JOB_TRIES && !trainer.finished;
		if (mine)
			return_to_checkpoint();
	}
	trainer_end();
	return mine;
}

/*
 * Another try may help: the engine died, the machine was short of something, or
 * who worked for this process (a parallel worker) was told to end.
 */
static bool
may_try_again(const ErrorData *error)
{
	return trainer.job.attempts < JOB_TRIES &&
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
	StringInfoData text;
	JobParams p;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (error->detail)
		appendStringInfo(&text, "\n%s", error->detail);
	if (error->hint)
		appendStringInfo(&text, "\n%s", error->hint);
	if (!trainer_begin())
		return;
	trainer_params(&p);
	param_add_text(&p, text.data);
	param_add_text(&p, unpack_sql_state(error->sqlerrcode == ERRCODE_CONNECTION_FAILURE
											? ERRCODE_SYSTEM_ERROR
											: error->sqlerrcode));
	trainer_update(
		may_try_again(error)
			? "UPDATE %s SET error = $2, sqlstate = $3, updated_at = now() WHERE job = $1"
			: "UPDATE %s SET state = 'failed', wanted = 'running', error = $2, sqlstate = $3, "
			  "updated_at = now() WHERE job = $1",
		&p);
	trainer_end();
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

void
trainer_patience(int seconds)
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
	if (seconds >= LAST_SECONDS)
		InterruptPending = ProcDiePending = true;
	else if ((ShutdownRequestPending && seconds >= patience) ||
			 (patience == 0 && trainer_interrupted()))
		InterruptPending = QueryCancelPending = true;
}

/* The run was interrupted: the job is stopped, or the worker was. */
static void
end_interrupted(void)
{
	look_at_row();
	if (!trainer.finished)
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
	trainer.context =
		AllocSetContextCreate(TopMemoryContext, "bicycle trainer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(trainer.context);
	own_settings();
	if (TransactionIdIsValid(start.creator))
		wait_for_creator(start.creator);
	if (!trainer_claim(start.database, start.job))
		proc_exit(0);

	pqsignal(SIGTERM, call_stop);
	(void) RegisterTimeout(USER_TIMEOUT, end_if_late);
	enable_timeout_every(USER_TIMEOUT, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000),
						 1000);
	PG_TRY();
	{
		if (begin_job(start.job))
		{
			start_engine();
			wait_until_ready();
			feed();
			train();
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(trainer.context);
		HOLD_INTERRUPTS();
		error = CopyErrorData();
		/*
		 * The user's query may have made another error of the interruption. One
		 * that is the job's own will come again.
		 */
		interrupted = ShutdownRequestPending || trainer_interrupted();
		if (!interrupted || error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		pqsignal(SIGINT, SIG_IGN);
		trainer_patience(LAST_SECONDS);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (interrupted)
		end_interrupted();
	else if (error)
		note_failure(error);
	proc_exit(0);
}
