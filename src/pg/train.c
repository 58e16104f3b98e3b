/*
 * train.c
 *	  bicycle_train, pause, resume, cancel, wait, loss_plot: training jobs as
 *	  SQL sees them.
 *
 * bicycle_train checks all that can be checked at the call, as the caller, and
 * writes a row; a trainer (job_worker.c) is registered at once and waits for
 * the end of the transaction. The others change what the row wants, and the
 * trainer looks at it when they commit. Nothing here talks to a trainer.
 */
#include "bicycle.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/spi_priv.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "call.h"
#include "catalog.h"
#include "image_call.h"
#include "model_store.h"

#define WAIT_INTERVAL 500 /* ms between looks at a job that is waited for */
#define PLOT_POINTS 8192  /* of one loss */

PG_FUNCTION_INFO_V1(bicycle_train);
PG_FUNCTION_INFO_V1(bicycle_pause);
PG_FUNCTION_INFO_V1(bicycle_resume);
PG_FUNCTION_INFO_V1(bicycle_cancel);
PG_FUNCTION_INFO_V1(bicycle_wait);
PG_FUNCTION_INFO_V1(bicycle_loss_plot);

/* ---- The query of the pairs ---------------------------------------------- */

static void
report_not_a_query(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("pairs must be one query that only reads"),
			 errdetail_internal("%s", detail),
			 errhint("Write a SELECT of two bytea columns: the input and the target image.")));
}

static void
check_columns(TupleDesc desc)
{
	if (desc == NULL || desc->natts != 2)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("pairs must have two columns of type bytea"),
						errdetail("The query has %d columns.", desc ? desc->natts : 0)));
	for (int i = 0; i < 2; i++)
		if (TupleDescAttr(desc, i)->atttypid != BYTEAOID)
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("pairs must have two columns of type bytea"),
							errdetail("Column \"%s\" has type %s.",
									  NameStr(TupleDescAttr(desc, i)->attname),
									  format_type_be(TupleDescAttr(desc, i)->atttypid))));
}

SPIPlanPtr
pairs_prepare(const char *query)
{
	SPIPlanPtr plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_NO_SCROLL);
	CachedPlanSource *source;
	Query *parsed;

	if (plan == NULL)
		report_not_a_query("It is a command that cannot be prepared.");
	if (list_length(plan->plancache_list) != 1)
		report_not_a_query(psprintf("It has %d statements.", list_length(plan->plancache_list)));
	source = linitial(plan->plancache_list);
	if (list_length(source->query_list) != 1)
		report_not_a_query("Rules make more than one query of it.");
	parsed = linitial(source->query_list);
	if (parsed->commandType != CMD_SELECT || parsed->hasModifyingCTE || parsed->rowMarks != NIL)
		report_not_a_query("It writes or locks rows.");
	check_columns(source->resultDesc);
	if (isQueryUsingTempRelation(parsed))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("pairs cannot come from temporary tables"),
						errdetail("Training runs in another process, which does not see them."),
						errhint("Use an ordinary or an unlogged table.")));
	return plan;
}

/* ---- Checks of a call ---------------------------------------------------- */

/*
 * The job will run with the rights of the current user, so that must be who is
 * really asking.
 */
static void
check_caller(void)
{
	const char *unfit;

	if (InLocalUserIdChange() || InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot start training within a security-definer function or a "
						"security-restricted operation"),
				 errdetail("The job would keep rights that the caller has only for the moment."),
				 errhint("Call bicycle_train directly, or from a SECURITY INVOKER function.")));
	unfit = job_role_unfit(GetUserId());
	if (unfit)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" cannot run a training job", GetUserNameFromId(GetUserId(), false)),
			 errdetail("The job connects to the database as this role, which %s.", unfit),
			 errhint("Start it as a role that has LOGIN, and CONNECT on the database.")));
}

void
train_check_rights(void)
{
	catalog_check_rights("bicycle_models", ACL_SELECT);
	catalog_check_rights("bicycle_models", ACL_INSERT);
	catalog_check_rights("bicycle_models", ACL_UPDATE);
	catalog_check_rights("bicycle_tensors", ACL_SELECT);
	catalog_check_rights("bicycle_tensors", ACL_INSERT);
	catalog_check_rights("bicycle_counters", ACL_SELECT);
	catalog_check_rights("bicycle_counters", ACL_INSERT);
	catalog_check_rights("bicycle_counters", ACL_UPDATE);
}

/*
 * What the current version is, as the caller sees it; false if there is none.
 */
static bool
current_version(const char *name, int *version, char **config)
{
	Oid types[1] = { TEXTOID };
	Datum values[1] = { CStringGetTextDatum(name) };
	bool isnull;

	/*
	 * A model that was trained goes on by its method; an imported one has none.
	 */
	if (SPI_execute_with_args(
			psprintf(
				"SELECT version, (CASE WHEN iterations OPERATOR(pg_catalog.>) 0 THEN "
				"pg_catalog.jsonb_build_object('method', method)"
				" ELSE '{}'::pg_catalog.jsonb END OPERATOR(pg_catalog.||) config)::pg_catalog.text"
				" FROM %s WHERE model OPERATOR(pg_catalog.=) $1 AND is_current",
				catalog_table("bicycle_models")),
			1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "look-up of a model failed");
	if (SPI_processed == 0)
		return false;
	*version =
		DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*config = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	return true;
}

typedef struct OptionsCheck
{
	const char *config;
	const char *options;
	char *canonical; /* result */
} OptionsCheck;

static bool
check_attempt(void *arg)
{
	OptionsCheck *check = arg;
	BicycleTrainCheck head = { .config_length = strlen(check->config),
							   .options_length = strlen(check->options) };
	char *both = psprintf("%s%s", check->config, check->options);
	Call *call = call_open(BICYCLE_TRAIN_CHECK, &head, sizeof(head), both,
						   head.config_length + head.options_length);
	const char *result;
	size_t length;
	bool holds = call_result(call, &result, &length);

	if (holds)
		check->canonical = pnstrdup(result, length);
	call_free(call);
	return holds;
}

/*
 * An unfinished job on the model, with a version only one that started from
 * that; 0 if there is none. Reads what others have just committed, also in a
 * repeatable-read transaction: they may have waited for the same lock.
 */
static int64
active_job_of(const char *model, int64 except, int version)
{
	JobParams p = { 0 };
	int64 job = 0;
	bool isnull;

	param_add_text(&p, model);
	param_add(&p, INT8OID, Int64GetDatum(except));
	param_add(&p, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()));
	param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	param_add(&p, INT4OID, Int32GetDatum(version));
	PushActiveSnapshot(GetLatestSnapshot());
	if (jobs_run(
			"bicycle_training_jobs",
			"SELECT job FROM %s WHERE model = $1 AND job <> $2 AND state IN ('queued', 'running')"
			" AND system_identifier = $3 AND database = $4 AND ($5 = 0 OR start_version = $5) "
			"LIMIT 1",
			SPI_OK_SELECT, &p) > 0)
		job =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	return job;
}

static void
report_active(int64 job, const char *message)
{
	if (job != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg_internal("%s", message),
						errdetail("Job " INT64_FORMAT " is not finished.", job),
						errhint("Wait for it with CALL bicycle_wait(" INT64_FORMAT
								"), or end it with bicycle_cancel.",
								job)));
}

static void
check_no_other(const char *model, int64 except)
{
	report_active(active_job_of(model, except, 0),
				  psprintf("model \"%s\" is being trained already", model));
}

void
train_check_unused(const char *model, int version)
{
	report_active(active_job_of(model, 0, version),
				  version == 0
					  ? psprintf("cannot drop model \"%s\", which is being trained", model)
					  : psprintf("cannot drop version %d of model \"%s\", from which a job goes on",
								 version, model));
}

static void
check_slot(bool registered)
{
	if (!registered)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not start a training job"),
				 errdetail("All background worker slots are in use."),
				 errhint("Raise max_worker_processes.")));
}

/*
 * A job that has to wait takes no worker slot now, so that a lack of them is no
 * error: there may be one when its turn comes. But the launcher may have found
 * that there is none for those whose turn it is.
 */
static void
warn_of_slots(int64 job)
{
	BicycleShared *shared = shared_attach();

	if (shared->no_worker_slot) /* one word, read without the lock */
		ereport(WARNING,
				(errmsg("training job " INT64_FORMAT " waits for a background worker slot", job),
				 errdetail("All background worker slots are in use."),
				 errhint("Raise max_worker_processes.")));
}

/* ---- bicycle_train ------------------------------------------------------- */

/*
 * Rows that came by logical replication have numbers that this sequence, which
 * is not replicated, has not given yet. If two do this at once the sequence may
 * give a number again that is taken by then, which is found out in the same
 * way.
 */
static void
pass_numbers(void)
{
	JobParams p = { 0 };

	param_add(&p, REGCLASSOID, ObjectIdGetDatum(catalog_table_oid("bicycle_training_job_ids")));
	(void) jobs_run("bicycle_training_jobs",
					"SELECT setval($1, greatest(max(job), nextval($1))) FROM %s", SPI_OK_SELECT,
					&p);
}

static int64
insert_job(const char *model, const char *pairs, const char *options, int start_version)
{
	JobParams p = { 0 };
	bool isnull;

	param_add_text(&p, model);
	param_add(&p, OIDOID, ObjectIdGetDatum(GetUserId()));
	param_add(&p, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()));
	param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	param_add_text(&p, pairs);
	param_add_text(&p, GetConfigOption("search_path", false, false));
	param_add_text(&p, options);
	if (start_version != 0)
		param_add(&p, INT4OID, Int32GetDatum(start_version));
	else
		param_add_null(&p, INT4OID);
	while (jobs_run("bicycle_training_jobs",
					"INSERT INTO %s (model, owner, system_identifier, database, pairs, "
					"search_path, options, start_version, state)"
					" VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, 'queued') ON CONFLICT (job) "
					"DO NOTHING RETURNING job",
					SPI_OK_INSERT_RETURNING, &p) == 0)
		pass_numbers();
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * bicycle_train(model text, pairs text, options jsonb DEFAULT '{}') -> bigint
 */
Datum
bicycle_train(PG_FUNCTION_ARGS)
{
	char *model = model_name_argument(fcinfo, 0);
	OptionsCheck check = { .config = "{}" };
	JobStart start = { .database = MyDatabaseId, .owner = GetUserId() };
	int start_version = 0;
	char *pairs;
	char *config;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("query of the pairs must not be null")));
	pairs = text_to_cstring(PG_GETARG_TEXT_PP(1));
	check.options = model_options_argument(fcinfo, 2);
	PreventCommandIfReadOnly("bicycle_train()");
	PreventCommandDuringRecovery("bicycle_train()");
	check_caller();
	train_check_rights();

	SPI_connect();
	(void) SPI_freeplan(pairs_prepare(pairs));
	model_lock(model);
	check_no_other(model, 0);
	if (current_version(model, &start_version, &config))
		check.config = config;
	call_retry(check_attempt, &check, "checked the options");
	start.job = insert_job(model, pairs, check.canonical, start_version);
	SPI_finish();

	jobs_changed();
	check_slot(sole_worker_ensure(WORKER_LAUNCHER));
	start.creator = GetCurrentTransactionId();
	if (trainers_running() < bicycle_max_training_jobs)
		check_slot(trainer_register(&start));
	else
		warn_of_slots(start.job);
	PG_RETURN_INT64(start.job);
}

/* ---- pause, resume, cancel ----------------------------------------------- */

/* Finds a job that the caller may change or wait for: 42704, 42501. */
static void
find_job(FunctionCallInfo fcinfo, Job *job, bool lock)
{
	int64 number;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("job must not be null")));
	number = PG_GETARG_INT64(0);
	if (!job_read(number, job, lock))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("training job " INT64_FORMAT " does not exist", number),
						errhint("View bicycle_jobs lists the jobs that you may see.")));
	if (!(OidIsValid(job->owner) ? has_privs_of_role(GetUserId(), job->owner) : superuser()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for training job " INT64_FORMAT, number),
						errdetail("It belongs to another role.")));
}

static void
update_state(const Job *job, const char *statement, const char *value)
{
	JobParams p = { 0 };

	param_add(&p, INT8OID, Int64GetDatum(job->job));
	param_add_text(&p, value);
	(void) jobs_run("bicycle_training_jobs", statement, SPI_OK_UPDATE, &p);
	jobs_changed();
}

static void
report_state(const Job *job, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot %s training job " INT64_FORMAT, what, job->job),
					errdetail("It is %s.", job->state)));
}

/* Brings an active job to a state: by its trainer if it has one, else here. */
static void
stop_job(const Job *job, const char *state)
{
	if (strcmp(job->state, "running") == 0)
		update_state(job, "UPDATE %s SET wanted = $2 WHERE job = $1", state);
	else
		update_state(
			job, "UPDATE %s SET state = $2, wanted = 'running', updated_at = now() WHERE job = $1",
			state);
	job_stopping(job->job);
	if (!sole_worker_ensure(WORKER_LAUNCHER))
		check_slot(false);
}

/* bicycle_pause(job bigint) -> void */
Datum
bicycle_pause(PG_FUNCTION_ARGS)
{
	Job job;

	PreventCommandIfReadOnly("bicycle_pause()");
	SPI_connect();
	find_job(fcinfo, &job, true);
	if (job_is_active(&job))
		stop_job(&job, "paused");
	else if (strcmp(job.state, "paused") != 0 && job.local)
		report_state(&job, "pause");
	SPI_finish();
	PG_RETURN_VOID();
}

/* bicycle_cancel(job bigint) -> void */
Datum
bicycle_cancel(PG_FUNCTION_ARGS)
{
	Job job;

	PreventCommandIfReadOnly("bicycle_cancel()");
	SPI_connect();
	find_job(fcinfo, &job, true);
	if (strcmp(job.state, "done") == 0 || strcmp(job.state, "failed") == 0)
		report_state(&job, "cancel");
	if (job_is_active(&job))
		stop_job(&job, "cancelled");
	else
		update_state(
			&job, "UPDATE %s SET state = $2, wanted = 'running', updated_at = now() WHERE job = $1",
			"cancelled");
	SPI_finish();
	PG_RETURN_VOID();
}

/* Checkpoints are not dumped: where they are missing the job starts anew. */
static int64
last_checkpoint(int64 job)
{
	JobParams p = { 0 };
	bool isnull;

	param_add(&p, INT8OID, Int64GetDatum(job));
	(void) jobs_run("bicycle_training_checkpoints",
					"SELECT coalesce(max(iteration), 0) FROM %s WHERE job = $1", SPI_OK_SELECT, &p);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * bicycle_resume(job bigint) -> void; the launcher starts it. One that was
 * dumped and restored, or came by replication, is taken over by this database.
 */
Datum
bicycle_resume(PG_FUNCTION_ARGS)
{
	JobParams p = { 0 };
	Job job;

	PreventCommandIfReadOnly("bicycle_resume()");
	SPI_connect();
	find_job(fcinfo, &job, true);
	if (strcmp(job.state, "done") == 0)
		report_state(&job, "resume");
	if (!OidIsValid(job.owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("cannot resume training job " INT64_FORMAT, job.job),
						errdetail("The role that started it does not exist here.")));
	if (job_is_active(&job))
		update_state(&job, "UPDATE %s SET wanted = $2 WHERE job = $1", "running");
	else
	{
		model_lock(job.model);
		check_no_other(job.model, job.job);
		check_slot(sole_worker_ensure(WORKER_LAUNCHER));
		param_add(&p, INT8OID, Int64GetDatum(job.job));
		param_add(&p, OIDOID, ObjectIdGetDatum(job.owner));
		param_add(&p, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()));
		param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
		param_add(&p, INT8OID, Int64GetDatum(last_checkpoint(job.job)));
		(void) jobs_run("bicycle_training_jobs",
						"UPDATE %s SET state = 'queued', wanted = 'running', attempts = 0, "
						"next_attempt = now(), error = NULL,"
						" sqlstate = NULL, owner = $2, system_identifier = $3, database = $4, "
						"checkpoint = $5, updated_at = now() WHERE job = $1",
						SPI_OK_UPDATE, &p);
		jobs_changed();
		warn_of_slots(job.job);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- Watching ------------------------------------------------------------ */

/* What bicycle_wait has told of a job. */
typedef struct Told
{
	TimestampTz began; /* to wait */
	TimestampTz next;  /* not before that is progress told again */
	int64 iteration;   /* the last one that was told */
	bool slots;        /* was looked at once, for a queued job */
	bool queued;       /* was told, as is the next */
	bool starting;
} Told;

/*
 * That it has to wait for others; nothing of one that only waits for its
 * trainer to come up.
 */
static void
tell_queued(const Job *job, Told *told)
{
	if (!told->slots)
		warn_of_slots(job->job);
	told->slots = true;
	if (told->queued || GetCurrentTimestamp() < told->began + USECS_PER_SEC)
		return;
	told->queued = true;
	ereport(NOTICE, (errmsg("job " INT64_FORMAT " is queued", job->job),
					 errdetail("Training jobs that run: %d. Setting bicycle.max_training_jobs: %d.",
							   trainers_running(), bicycle_max_training_jobs)));
}

/*
 * How far it is: each second at first, then more and more rarely, so that one
 * can read what hours have left on the screen.
 */
static void
tell_progress(const Job *job, Told *told)
{
	TimestampTz now = GetCurrentTimestamp();

	if (job->iterations == 0 && !told->starting)
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is starting", job->job)));
	told->starting = true;
	if (job->iteration == told->iteration || now < told->next)
		return;
	told->iteration = job->iteration;
	told->next = now + Min(Max((now - told->began) / 10, USECS_PER_SEC), USECS_PER_MINUTE);
	ereport(NOTICE,
			(errmsg("job " INT64_FORMAT " is running: iteration " INT64_FORMAT " of " INT64_FORMAT,
					job->job, job->iteration, job->iterations)));
}

/*
 * True when there is nothing more to wait for; raises the job's error if it has
 * failed.
 */
static bool
job_has_ended(const Job *job)
{
	if (job_is_active(job))
		return false;
	if (strcmp(job->state, "failed") == 0)
		ereport(ERROR, (errcode(job->sqlstate),
						errmsg("training job " INT64_FORMAT " has failed", job->job),
						job->error ? errdetail_internal("%s", job->error) : 0));
	if (strcmp(job->state, "done") == 0)
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is done: version %d of model \"%s\"",
								job->job, job->version, job->model)));
	else
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is %s at iteration " INT64_FORMAT, job->job,
								job->state, job->iteration)));
	return true;
}

/*
 * Looks at a job that is waited for; if it has not ended, ends the transaction,
 * so that nothing is held until the next look. SPI is connected for each look
 * anew: a commit does not free what was read, and who waits for days looks very
 * often.
 */
static bool
look_and_commit(FunctionCallInfo fcinfo, TimestampTz deadline, Told *told)
{
	bool ended;
	Job job;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	PushActiveSnapshot(GetTransactionSnapshot());
	find_job(fcinfo, &job, false);
	PopActiveSnapshot();
	ended = job_has_ended(&job);
	if (!ended)
	{
		if (strcmp(job.state, "queued") == 0)
			tell_queued(&job, told);
		else
			tell_progress(&job, told);
		if (deadline != 0 && GetCurrentTimestamp() >= deadline)
			ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
							errmsg("training job " INT64_FORMAT " has not ended in time", job.job),
							errdetail("It is %s, at iteration " INT64_FORMAT ".", job.state,
									  job.iteration)));
		SPI_commit();
	}
	SPI_finish();
	return ended;
}

/* bicycle_wait(job bigint, timeout interval DEFAULT NULL): a procedure */
Datum
bicycle_wait(PG_FUNCTION_ARGS)
{
	bool atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
				  castNode(CallContext, fcinfo->context)->atomic;
	TimestampTz deadline = 0;
	Told told = { .began = GetCurrentTimestamp() };

	if (atomic)
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("bicycle_wait cannot run inside a transaction block"),
						errhint("Call it by itself, so that nothing is held while it waits.")));
	if (!PG_ARGISNULL(1))
		deadline = DatumGetTimestampTz(DirectFunctionCall2(
			timestamptz_pl_interval, TimestampTzGetDatum(told.began), PG_GETARG_DATUM(1)));
	(void) sole_worker_ensure(WORKER_LAUNCHER);
	while (!look_and_commit(fcinfo, deadline, &told))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_INTERVAL,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return (Datum) 0;
}

#define NAME_AND_SPACE(id, name) name " "

/*
 * Appends the curve of each loss that the job has. A plot has so many columns
 * at most; a job that has trained for a month has millions of losses, of which
 * the means of as many parts are taken.
 */
static uint32
append_series(StringInfo out, int64 job)
{
	JobParams p = { 0 };
	uint32 series = 0;
	int at = 0;
	uint64 n;

	param_add(&p, INT8OID, Int64GetDatum(job));
	param_add(&p, INT4OID, Int32GetDatum(PLOT_POINTS));
	n = jobs_run(
		"bicycle_training_losses",
		"SELECT name, avg(iteration)::float8, avg(value) FROM"
		" (SELECT name, iteration, value, row_number() OVER w * $2 / count(*) OVER "
		"(PARTITION BY name) AS part FROM %s WHERE job = $1"
		" WINDOW w AS (PARTITION BY name ORDER BY iteration)) AS l"
		" GROUP BY name, part ORDER BY "
		"array_position(string_to_array('" BICYCLE_LOSSES(NAME_AND_SPACE) "', ' '), name), part",
		SPI_OK_SELECT, &p);
	for (uint64 i = 0; i < n; i++)
	{
		char *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		BicyclePoint point;
		BicycleSeries head;
		bool isnull;

		if (series == 0 || strcmp(((BicycleSeries *) (out->data + at))->name, name) != 0)
		{
			memset(&head, 0, sizeof(head));
			strlcpy(head.name, name, sizeof(head.name));
			at = out->len;
			appendBinaryStringInfo(out, (char *) &head, sizeof(head));
			series++;
		}
		point.x =
			DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		point.y =
			DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
		appendBinaryStringInfo(out, (char *) &point, sizeof(point));
		((BicycleSeries *) (out->data + at))->points++;
	}
	return series;
}

/*
 * bicycle_loss_plot(job bigint, width int DEFAULT 800, height int DEFAULT 500)
 * -> bytea
 */
Datum
bicycle_loss_plot(PG_FUNCTION_ARGS)
{
	BicycleImageRequest head;
	BicyclePlot plot = { 0 };
	uint32 series;
	StringInfoData image;
	Job job;
	Call *call;
	bytea *result;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("width and height must not be null")));
	plot.width = Max(PG_GETARG_INT32(1), 0);
	plot.height = Max(PG_GETARG_INT32(2), 0);
	initStringInfo(&image);
	SPI_connect();
	find_job(fcinfo, &job, false);
	snprintf(plot.title, sizeof(plot.title), "job " INT64_FORMAT ": %.80s", job.job, job.model);
	appendBinaryStringInfo(&image, (char *) &plot, sizeof(plot));
	series = append_series(&image, job.job);
	((BicyclePlot *) image.data)->series = series; /* which may lie elsewhere than before */
	SPI_finish();
	image_request_head(&head, NULL, false);
	head.image_length = image.len;
	call = call_submit(BICYCLE_PLOT, NULL, &head, NULL, image.data, image.len);
	result = image_wait(call);
	call_free(call);
	PG_RETURN_BYTEA_P(result);
}
