/*
 * job_pairs.c
 *	  The first part of a run: what the engine is given to train from, weights
 *	  and pairs, and to compare images by.
 *
 * R1 One transaction of the job's owner reads all of it, and streams it row by
 *    row. Privileges and row security of the moment hold; memory is that of one
 *    row.
 * R2 It is read-only, and over before training starts.
 * R3 Who stops the job meanwhile interrupts it (job_worker_stop.c).
 * R4 A job that has trained all its iterations, and could not store the model,
 *    needs its last checkpoint only.
 */
#include "pg/job_worker.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "pg/image_call.h"
#include "pg/model_stream.h"
#include "pg/pairs_query.h"

#define MB ((uint64) 1024 * 1024)
#define SPILL_DIRECTORY "base/pgsql_tmp"
#define NAME_BYTES 64 /* of a row */

static void
report_checkpoint(const char *how)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("checkpoint of job " INT64_FORMAT " is %s", job_worker.job.job, how),
			 errdetail("It is that of iteration " INT64_FORMAT ".", job_worker.job.checkpoint),
			 errhint("Checkpoints are not carried by pg_dump. Start a new job.")));
}

/* As the engine reads them. */
static char *
options_for_engine(void)
{
	char *options = job_worker.job.options;

	return pg_server_to_any(options, strlen(options), PG_UTF8);
}

static Call *
send_options(BicycleTrainBegin *head)
{
	char *options = options_for_engine();

	head->options_length = strlen(options);
	return call_train(head, sizeof(*head), options, head->options_length);
}

/* Streams the last checkpoint. */
static Call *
send_checkpoint(BicycleTrainBegin *head)
{
	Params p;
	Call *call;
	int chunks;

	job_worker_params(&p);
	param_add_long(&p, job_worker.job.checkpoint);
	job_worker_run(JOB_CHECKPOINTS,
				   "SELECT coalesce(sum(octet_length(data)), 0)::int8, count(*)::int4 FROM %s"
				   " WHERE job = $1 AND iteration = $2",
				   SPI_OK_SELECT, &p);
	head->stream_length = result_long(0, 1);
	chunks = result_int(0, 2);
	if (chunks == 0)
		report_checkpoint("missing");
	head->iteration = job_worker.job.checkpoint;
	call = send_options(head);
	param_add_int(&p, 0);
	for (int chunk = 0; chunk < chunks; chunk++)
	{
		Datum value;
		bytea *data;

		p.values[2] = Int32GetDatum(chunk);
		job_worker_run(JOB_CHECKPOINTS,
					   "SELECT data FROM %s WHERE job = $1 AND iteration = $2 AND chunk = $3",
					   SPI_OK_SELECT, &p);
		if (SPI_processed != 1)
			report_checkpoint("damaged");
		value = result_datum(0, 1);
		data = DatumGetByteaPP(value);
		if (!call_write(call, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)))
			job_engine_lost();
		/* Else it lies in the row: a last chunk may be short. */
		if ((Pointer) data != DatumGetPointer(value))
			pfree(data);
		SPI_freetuptable(SPI_tuptable);
	}
	if (!call_end(call))
		job_engine_lost();
	return call;
}

/* The version to start from, read as the job's owner; or nothing. */
static Call *
send_start(BicycleTrainBegin *head)
{
	const Job *job = &job_worker.job;
	Call *call;

	if (job->start_version != 0)
		return model_stream_train(head, options_for_engine(),
								  model_lookup(cstring_to_text(job->model), &job->start_version));
	call = send_options(head);
	if (!call_end(call))
		job_engine_lost();
	return call;
}

/*
 * An image of a row, or NULL and why there is none to send: the engine tells of
 * all such rows together.
 */
static bytea *
pair_image(HeapTuple row, TupleDesc desc, int column, uint8 *lack)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);

	*lack = isnull                   ? BICYCLE_PAIR_NULL
			: image_too_large(value) ? BICYCLE_PAIR_TOO_LARGE
									 : BICYCLE_PAIR_WHOLE;
	return *lack == BICYCLE_PAIR_WHOLE ? DatumGetByteaPP(value) : NULL;
}

/* The column id, if there is one, as the text that errors name the row by. */
static const char *
pair_name(HeapTuple row, TupleDesc desc, int images, uint32 *length)
{
	char *name = desc->natts > images ? SPI_getvalue(row, desc, images + 1) : NULL;

	*length = name ? pg_mbcliplen(name, strlen(name), NAME_BYTES) : 0;
	return name;
}

static void
send_pair(Call *call, BicycleTrainFrame type, HeapTuple row, TupleDesc desc, int images)
{
	BicyclePair head = { 0 };
	bytea *a = pair_image(row, desc, 1, &head.lack[0]);
	bytea *b = images > 1 ? pair_image(row, desc, 2, &head.lack[1]) : NULL;
	const char *name = pair_name(row, desc, images, &head.name_length);
	size_t length;
	char *body;

	head.a_length = a ? VARSIZE_ANY_EXHDR(a) : 0;
	head.b_length = b ? VARSIZE_ANY_EXHDR(b) : 0;
	length = (size_t) head.a_length + head.b_length + head.name_length;
	body = palloc_extended(Max(length, 1), MCXT_ALLOC_HUGE);
	if (a)
		memcpy(body, VARDATA_ANY(a), head.a_length);
	if (b)
		memcpy(body + head.a_length, VARDATA_ANY(b), head.b_length);
	if (head.name_length > 0)
		memcpy(body + head.a_length + head.b_length, name, head.name_length);
	if (!call_send(call, (BicycleFrameType) type, &head, sizeof(head), body, length))
		job_engine_lost();
}

/*
 * Runs a query as the job's owner, under the search_path of its call. What
 * functions in it set is undone: role, read-only transactions and all.
 */
static void
send_pairs(Call *call, const char *what, const char *query, BicycleTrainFrame type)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle pair", ALLOCSET_DEFAULT_SIZES);
	SPIPlanPtr plan;
	Portal cursor;
	int images = pairs_images(job_worker.job.options);
	int nest = NewGUCNestLevel();

	SetConfigOption("search_path", job_worker.job.search_path, PGC_USERSET, PGC_S_SESSION);
	plan = pairs_prepare(what, query, images);
	cursor = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		MemoryContext old;

		SPI_cursor_fetch(cursor, true, 1);
		if (SPI_processed == 0)
			break;
		old = MemoryContextSwitchTo(context);
		send_pair(call, type, SPI_tuptable->vals[0], SPI_tuptable->tupdesc, images);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		SPI_freetuptable(SPI_tuptable);
		job_worker_make_way();
	}
	SPI_cursor_close(cursor);
	AtEOXact_GUC(false, nest);
}

/* Who may not read models has none to measure by; that is no error. */
static bool
may_read_models(void)
{
	return pg_class_aclcheck(catalog_table_oid("bicycle_models"), GetUserId(), ACL_SELECT) ==
			   ACLCHECK_OK &&
		   pg_class_aclcheck(catalog_table_oid("bicycle_tensors"), GetUserId(), ACL_SELECT) ==
			   ACLCHECK_OK;
}

/* What validation compares images by, if the owner sees it. */
static void
send_metric(Call *call)
{
	Model *metric = may_read_models() ? model_lookup_comparing(USUAL_METRIC) : NULL;

	if (metric)
		model_stream_metric(call, metric);
}

static void
send_both(Call *call)
{
	char *validation = pairs_validation(job_worker.job.options);

	if (validation)
		send_metric(call);
	send_pairs(call, PAIRS_TRAINED, job_worker.job.pairs, BICYCLE_PAIR);
	if (validation)
		send_pairs(call, PAIRS_VALIDATION, validation, BICYCLE_VALIDATION_PAIR);
}

static int64
iterations_of(int version)
{
	Params p = { 0 };

	param_add_version(&p, job_worker.job.model, version);
	if (catalog_run(AS_CALLER_READ, "bicycle_models",
					"SELECT iterations FROM %s WHERE model = $1 AND version = $2", SPI_OK_SELECT,
					&p) == 0)
		return 0;
	return result_long(0, 1);
}

void
job_pairs_send(void)
{
	BicycleTrainBegin head = { .max_pixels = bicycle_max_image_pixels,
							   .train_memory = bicycle_train_memory * MB,
							   .train_disk = bicycle_train_disk * MB };
	const bytea *known = job_worker.job.data_digest;
	Call *call;

	if (!job_worker_begin())
		return;
	pgstat_report_activity(STATE_RUNNING, job_worker.job.pairs);
	XactReadOnly = true;
	job_check_rights();
	strlcpy(head.spill, SPILL_DIRECTORY, sizeof(head.spill));
	if (job_worker.job.platform)
		strlcpy(head.platform, job_worker.job.platform, sizeof(head.platform));
	if (job_worker.complete)
		head.flags = BICYCLE_TRAIN_FINISHED;
	if (job_worker.job.start_version != 0)
		job_worker.start_iterations = iterations_of(job_worker.job.start_version);
	call = job_worker.job.checkpoint > 0 ? send_checkpoint(&head) : send_start(&head);
	if (!job_worker.complete)
		send_both(call);
	if (!call_send(call, (BicycleFrameType) BICYCLE_PAIRS_END, NULL, 0,
				   known ? VARDATA_ANY(known) : NULL, known ? VARSIZE_ANY_EXHDR(known) : 0))
		job_engine_lost();
	call_free(call);
	job_worker_end();
	pgstat_report_activity(STATE_IDLE, NULL);
}
