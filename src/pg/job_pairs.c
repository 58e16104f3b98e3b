/*
 * job_pairs.c
 *	  The first part of a run: what the engine is given to train from, weights
 *	  and pairs.
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
#include "miscadmin.h"
#include "pgstat.h"
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

static void
report_checkpoint(const char *how)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("checkpoint of job " INT64_FORMAT " is %s", job_worker.job.job, how),
			 errdetail("It is that of iteration " INT64_FORMAT ".", job_worker.job.checkpoint),
			 errhint("Checkpoints are not carried by pg_dump. Start a new job.")));
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
	head->options_length = strlen(job_worker.job.options);
	call = call_train(head, sizeof(*head), job_worker.job.options, head->options_length);
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
		return model_stream_train(head, job->options,
								  model_lookup(cstring_to_text(job->model), &job->start_version));
	head->options_length = strlen(job->options);
	call = call_train(head, sizeof(*head), job->options, head->options_length);
	if (!call_end(call))
		job_engine_lost();
	return call;
}

static bytea *
pair_image(HeapTuple row, TupleDesc desc, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("an image of the pairs is null"),
				 errdetail("Column %d of the query is null.", column),
				 errhint("Leave such rows out of the query.")));
	return image_argument(value, "an image of the pairs");
}

static void
send_pair(Call *call, HeapTuple row, TupleDesc desc)
{
	bytea *a = pair_image(row, desc, 1);
	bytea *b = pair_image(row, desc, 2);
	BicyclePair pair = { .a_length = VARSIZE_ANY_EXHDR(a), .b_length = VARSIZE_ANY_EXHDR(b) };
	size_t length = (size_t) pair.a_length + pair.b_length;
	char *images = palloc_extended(length, MCXT_ALLOC_HUGE);

	memcpy(images, VARDATA_ANY(a), pair.a_length);
	memcpy(images + pair.a_length, VARDATA_ANY(b), pair.b_length);
	if (!call_send(call, (BicycleFrameType) BICYCLE_PAIR, &pair, sizeof(pair), images, length))
		job_engine_lost();
}

/*
 * Runs the query as the job's owner, under the search_path of its call. What
 * functions in it set is undone: role, read-only transactions and all.
 */
static void
send_pairs(Call *call)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle pair", ALLOCSET_DEFAULT_SIZES);
	SPIPlanPtr plan;
	Portal cursor;
	int nest = NewGUCNestLevel();

	SetConfigOption("search_path", job_worker.job.search_path, PGC_USERSET, PGC_S_SESSION);
	plan = pairs_prepare(job_worker.job.pairs);
	cursor = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		MemoryContext old;

		SPI_cursor_fetch(cursor, true, 1);
		if (SPI_processed == 0)
			break;
		old = MemoryContextSwitchTo(context);
		send_pair(call, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		SPI_freetuptable(SPI_tuptable);
		job_worker_make_way();
	}
	SPI_cursor_close(cursor);
	AtEOXact_GUC(false, nest);
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
		send_pairs(call);
	if (!call_send(call, (BicycleFrameType) BICYCLE_PAIRS_END, NULL, 0, NULL, 0))
		job_engine_lost();
	call_free(call);
	job_worker_end();
	pgstat_report_activity(STATE_IDLE, NULL);
}
