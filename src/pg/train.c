/*
 * train.c
 *	  bicycle_train, pause, resume, cancel, wait, loss_plot: training jobs as
 *	  SQL sees them.
 *
 * R1 bicycle_train checks all that can be checked at the call, as the caller,
 *    and writes a row. The job's worker is registered at once, and waits for
 *    the end of the transaction.
 * R2 The others change what the row wants. The worker looks at it when they
 *    commit; nothing here talks to a worker.
 */
#include "pg/bicycle.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "pg/image_call.h"
#include "pg/job_slots.h"
#include "pg/jobs.h"
#include "pg/lpips.h"
#include "pg/model_store.h"
#include "pg/monotonic.h"
#include "pg/pairs_query.h"

#define WAIT_INTERVAL 500 /* ms between looks at a job that is waited for */
#define PLOT_POINTS 8192  /* of one loss */

PG_FUNCTION_INFO_V1(bicycle_train);
PG_FUNCTION_INFO_V1(bicycle_pause);
PG_FUNCTION_INFO_V1(bicycle_resume);
PG_FUNCTION_INFO_V1(bicycle_cancel);
PG_FUNCTION_INFO_V1(bicycle_wait);
PG_FUNCTION_INFO_V1(bicycle_loss_plot);

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

/*
 * What the current version is, as the caller sees it, under model_lock; false
 * if there is none.
 */
static bool
current_version(const char *name, int *version, char **config)
{
	Params p = { 0 };

	param_add_text(&p, name);
	/*
	 * A model that was trained goes on by its method; an imported one has none.
	 */
	if (catalog_run(AS_CALLER, "bicycle_models",
					"SELECT version, (CASE WHEN iterations > 0 THEN "
					"jsonb_build_object('method', method) ELSE '{}'::jsonb END || config)::text"
					" FROM %s WHERE model = $1 AND is_current LIMIT 1",
					SPI_OK_SELECT, &p) == 0)
		return false;
	*version = result_int(0, 1);
	*config = result_text(0, 2);
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
		check->canonical = pg_any_to_server(pnstrdup(result, length), length, PG_UTF8);
	call_free(call);
	return holds;
}

static void
check_no_other(const char *model, int64 except)
{
	int64 job = job_on_model(model, except, 0);

	if (job != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("model \"%s\" is being trained already", model), JOB_NOT_FINISHED(job)));
}

static void
check_slot(bool registered)
{
	if (!registered)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not start a training job"), NO_WORKER_SLOT));
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
				 NO_WORKER_SLOT));
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
	Params p = { 0 };

	param_add(&p, REGCLASSOID, ObjectIdGetDatum(catalog_table_oid("bicycle_training_job_ids")));
	(void) catalog_run(AS_OWNER, JOBS, "SELECT setval($1, greatest(max(job), nextval($1))) FROM %s",
					   SPI_OK_SELECT, &p);
}

/* That they can be run, as they are now. */
static void
prepare_queries(const char *pairs, const char *options)
{
	int images = pairs_images(options);
	char *validation = pairs_validation(options);

	(void) SPI_freeplan(pairs_prepare(PAIRS_TRAINED, pairs, images));
	if (validation)
		(void) SPI_freeplan(pairs_prepare(PAIRS_VALIDATION, validation, images));
}

static int64
insert_job(const char *model, const char *pairs, const char *options, int start_version)
{
	Params p = { 0 };

	param_add_text(&p, model);
	param_add(&p, OIDOID, ObjectIdGetDatum(GetUserId()));
	param_add_long(&p, (int64) GetSystemIdentifier());
	param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	param_add_text(&p, pairs);
	param_add_text(&p, GetConfigOption("search_path", false, false));
	param_add_text(&p, options);
	param_add_int(&p, start_version);
	param_add_state(&p, JOB_QUEUED);
	while (catalog_run(AS_OWNER, JOBS,
					   "INSERT INTO %s (model, owner, system_identifier, database, pairs, "
					   "search_path, options, start_version, state)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, nullif($8, 0), $9)"
					   " ON CONFLICT (job) DO NOTHING RETURNING job",
					   SPI_OK_INSERT_RETURNING, &p) == 0)
		pass_numbers();
	return result_long(0, 1);
}

/*
 * bicycle_train(model text, pairs text, options jsonb DEFAULT '{}') -> bigint
 */
Datum
bicycle_train(PG_FUNCTION_ARGS)
{
	char *model = model_own_name_argument(fcinfo, 0);
	OptionsCheck check = { .config = "{}" };
	JobStart start = { .database = MyDatabaseId, .owner = GetUserId() };
	int start_version = 0;
	char *pairs;
	char *config;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("query of the pairs must not be null")));
	pairs = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("options of training must not be null"),
						errhint("Leave them out, or pass '{}', for a run with all defaults.")));
	check.options = model_options_argument(fcinfo, 2);
	PreventCommandIfReadOnly("bicycle_train()");
	PreventCommandDuringRecovery("bicycle_train()");
	check_caller();
	job_check_rights();

	SPI_connect();
	model_lock(model);
	check_no_other(model, 0);
	model_check_seen(model);
	if (current_version(model, &start_version, &config))
		check.config = config;
	call_retry(check_attempt, &check, "checked the options");
	prepare_queries(pairs, check.canonical);
	if (pairs_need_metric(check.canonical))
		(void) lpips_model("alex", "0.1", false);
	start.job = insert_job(model, pairs, check.canonical, start_version);
	SPI_finish();

	jobs_changed();
	check_slot(sole_worker_ensure(WORKER_LAUNCHER));
	start.creator = GetCurrentTransactionId();
	if (job_slots_used() < bicycle_max_training_jobs)
		check_slot(job_slot_register(&start));
	else
		warn_of_slots(start.job);
	if (IsTransactionBlock())
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " starts at COMMIT", start.job),
						 errdetail("It belongs to this transaction, and is gone if that is rolled "
								   "back.")));
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
set_wanted(const Job *job, JobState wanted)
{
	Params p = { 0 };

	param_add_long(&p, job->job);
	param_add_state(&p, wanted);
	(void) catalog_run(AS_OWNER, JOBS, "UPDATE %s SET wanted = $2 WHERE job = $1", SPI_OK_UPDATE,
					   &p);
	jobs_changed();
}

static void
set_job_state(const Job *job, JobState state)
{
	Params p = { 0 };

	param_add_long(&p, job->job);
	param_add_state(&p, state);
	param_add_state(&p, JOB_RUNNING);
	(void) catalog_run(AS_OWNER, JOBS,
					   "UPDATE %s SET state = $2, wanted = $3, updated_at = now() WHERE job = $1",
					   SPI_OK_UPDATE, &p);
	jobs_changed();
}

static void
report_state(const Job *job, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot %s training job " INT64_FORMAT, what, job->job),
					errdetail("It is %s.", job_state_name(job->state))));
}

/* Brings an active job to a state: by its worker if it has one, else here. */
static void
stop_job(const Job *job, JobState state)
{
	if (job->state == JOB_RUNNING)
		set_wanted(job, state);
	else
		set_job_state(job, state);
	job_stopping(job->job);
	check_slot(sole_worker_ensure(WORKER_LAUNCHER));
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
		stop_job(&job, JOB_PAUSED);
	else if (job.state != JOB_PAUSED && job_is_local(&job))
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
	if (job.state == JOB_DONE || job.state == JOB_FAILED)
		report_state(&job, "cancel");
	if (job_is_active(&job))
		stop_job(&job, JOB_CANCELLED);
	else
		set_job_state(&job, JOB_CANCELLED);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Checkpoints are not dumped: where they are missing the job starts anew. */
static int64
last_checkpoint(int64 job)
{
	Params p = { 0 };

	param_add_long(&p, job);
	(void) catalog_run(AS_OWNER, JOB_CHECKPOINTS,
					   "SELECT coalesce(max(iteration), 0) FROM %s WHERE job = $1", SPI_OK_SELECT,
					   &p);
	return result_long(0, 1);
}

static void
queue_again(const Job *job)
{
	Params p = { 0 };

	param_add_long(&p, job->job);
	param_add(&p, OIDOID, ObjectIdGetDatum(job->owner));
	param_add_long(&p, (int64) GetSystemIdentifier());
	param_add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	param_add_long(&p, last_checkpoint(job->job));
	param_add_state(&p, JOB_QUEUED);
	param_add_state(&p, JOB_RUNNING);
	(void) catalog_run(AS_OWNER, JOBS,
					   "UPDATE %s SET state = $6, wanted = $7, attempts = 0, "
					   "next_attempt = now(), error = NULL,"
					   " sqlstate = NULL, owner = $2, system_identifier = $3, database = $4, "
					   "checkpoint = $5, updated_at = now() WHERE job = $1",
					   SPI_OK_UPDATE, &p);
	jobs_changed();
}

/*
 * model_lock of the job's model, which may be renamed until it is there. The
 * row is not locked, as that comes second.
 */
static void
lock_model_of(FunctionCallInfo fcinfo, Job *job)
{
	for (;;)
	{
		char *model = job->model;

		model_lock(model);
		find_job(fcinfo, job, false);
		if (strcmp(job->model, model) == 0)
			return;
		model_unlock(model);
	}
}

/*
 * bicycle_resume(job bigint) -> void; the launcher starts it. One that was
 * dumped and restored, or came by replication, is taken over by this database.
 */
Datum
bicycle_resume(PG_FUNCTION_ARGS)
{
	Job job;

	PreventCommandIfReadOnly("bicycle_resume()");
	SPI_connect();
	find_job(fcinfo, &job, false);
	if (!job_is_active(&job))
		lock_model_of(fcinfo, &job);
	find_job(fcinfo, &job, true);
	if (job.state == JOB_DONE)
		report_state(&job, "resume");
	if (!OidIsValid(job.owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("cannot resume training job " INT64_FORMAT, job.job),
						errdetail("The role that started it does not exist here.")));
	if (job_is_active(&job))
		set_wanted(&job, JOB_RUNNING);
	else
	{
		model_lock(job.model); /* which it has, unless the job has just ended */
		check_no_other(job.model, job.job);
		check_slot(sole_worker_ensure(WORKER_LAUNCHER));
		queue_again(&job);
		warn_of_slots(job.job);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- Watching ------------------------------------------------------------ */

/* What bicycle_wait has told of a job. */
typedef struct Told
{
	int64 began_ms;  /* to wait */
	int64 next_ms;   /* not before that is progress told again */
	int64 iteration; /* the last one that was told */
	bool slots;      /* was looked at once, for a queued job */
	bool queued;     /* was told, as is the next */
	bool starting;
} Told;

/*
 * That it has to wait for others; nothing of one that only waits for its
 * worker to come up.
 */
static void
tell_queued(const Job *job, Told *told)
{
	if (!told->slots)
		warn_of_slots(job->job);
	told->slots = true;
	if (told->queued || monotonic_ms() < told->began_ms + 1000)
		return;
	told->queued = true;
	ereport(NOTICE, (errmsg("job " INT64_FORMAT " is queued", job->job),
					 errdetail("Training jobs that run: %d. Setting bicycle.max_training_jobs: %d.",
							   job_slots_used(), bicycle_max_training_jobs)));
}

/*
 * How far it is: each second at first, then more and more rarely, so that one
 * can read what hours have left on the screen.
 */
static void
tell_progress(const Job *job, Told *told)
{
	int64 now = monotonic_ms();

	if (job->iterations == 0 && !told->starting)
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is starting", job->job)));
	told->starting = true;
	if (job->iteration == told->iteration || now < told->next_ms)
		return;
	told->iteration = job->iteration;
	told->next_ms = now + Min(Max((now - told->began_ms) / 10, 1000), 60 * 1000);
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
	if (job->state == JOB_FAILED)
		ereport(ERROR, (errcode(job->sqlstate),
						errmsg("training job " INT64_FORMAT " has failed", job->job),
						job->error ? errdetail_internal("%s", job->error) : 0));
	if (job->state == JOB_DONE)
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is done: version %d of model \"%s\"",
								job->job, job->version, job->model)));
	else
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is %s at iteration " INT64_FORMAT, job->job,
								job_state_name(job->state), job->iteration)));
	return true;
}

/*
 * Looks at a job that is waited for; if it has not ended, ends the transaction,
 * so that nothing is held until the next look. SPI is connected for each look
 * anew: a commit does not free what was read, and who waits for days looks very
 * often.
 */
static bool
look_and_commit(FunctionCallInfo fcinfo, int64 deadline_ms, Told *told)
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
		if (job.state == JOB_QUEUED)
			tell_queued(&job, told);
		else
			tell_progress(&job, told);
		if (deadline_ms != 0 && monotonic_ms() >= deadline_ms)
			ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
							errmsg("training job " INT64_FORMAT " has not ended in time", job.job),
							errdetail("It is %s, at iteration " INT64_FORMAT ".",
									  job_state_name(job.state), job.iteration)));
		SPI_commit();
	}
	SPI_finish();
	return ended;
}

/* From now on, as a month has as many days as it has. */
static int64
interval_ms(Datum interval)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then = DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), interval));

	/* In halves, as an infinite interval leads to the ends of the type. */
	return (then / 2 - now / 2) / 500;
}

/* bicycle_wait(job bigint, timeout interval DEFAULT NULL): a procedure */
Datum
bicycle_wait(PG_FUNCTION_ARGS)
{
	bool atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
				  castNode(CallContext, fcinfo->context)->atomic;
	int64 deadline_ms = 0;
	Told told = { .began_ms = monotonic_ms() };

	if (atomic)
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("bicycle_wait cannot run inside a transaction block"),
						errhint("COMMIT first, without which a job does not start, and call it by "
								"itself, so that nothing is held while it waits.")));
	if (!PG_ARGISNULL(1))
		deadline_ms = Max(1, told.began_ms + interval_ms(PG_GETARG_DATUM(1)));
	(void) sole_worker_ensure(WORKER_LAUNCHER);
	while (!look_and_commit(fcinfo, deadline_ms, &told))
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
	Params p = { 0 };
	uint32 series = 0;
	int at = 0;
	uint64 n;

	param_add_long(&p, job);
	param_add_int(&p, PLOT_POINTS);
	n = catalog_run(AS_OWNER, JOB_LOSSES,
					"SELECT name, avg(iteration)::float8, avg(value) FROM"
					" (SELECT name, iteration, value, row_number() OVER w * $2 / count(*) OVER "
					"(PARTITION BY name) AS part FROM %s WHERE job = $1"
					" WINDOW w AS (PARTITION BY name ORDER BY iteration)) AS l"
					" GROUP BY name, part ORDER BY "
					"array_position(string_to_array('" BICYCLE_LOSSES(NAME_AND_SPACE)
						BICYCLE_MEASURES(NAME_AND_SPACE) "', ' '), name), part",
					SPI_OK_SELECT, &p);
	for (uint64 i = 0; i < n; i++)
	{
		char *name = result_text(i, 1);
		BicyclePoint point = { .x = DatumGetFloat8(result_datum(i, 2)),
							   .y = DatumGetFloat8(result_datum(i, 3)) };
		BicycleSeries head;

		if (series == 0 || strcmp(((BicycleSeries *) (out->data + at))->name, name) != 0)
		{
			memset(&head, 0, sizeof(head));
			strlcpy(head.name, name, sizeof(head.name));
			at = out->len;
			appendBinaryStringInfo(out, (char *) &head, sizeof(head));
			series++;
		}
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
