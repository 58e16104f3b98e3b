/*
 * job_pairs.c
 *	  The first part of a trainer's run: what the engine is given to train from,
 *	  weights and pairs.
 *
 * One transaction of the job's owner reads all of it and streams it row by row:
 * privileges and row security of the moment hold, and memory is that of one
 * row. It is read-only, and over before training starts. Who stops the job
 * meanwhile interrupts it (job_worker.c).
 *
 * A job that has trained all its iterations, and could not store the model,
 * needs its last checkpoint only.
 */
#include "job_worker.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "call.h"
#include "catalog.h"
#include "image_call.h"
#include "model_stream.h"

#define MB ((uint64) 1024 * 1024)
#define SPILL_DIRECTORY "base/pgsql_tmp"

/* Streams the last checkpoint. */
static Call *
send_checkpoint(BicycleTrainBegin *head)
{
	JobParams p;
	Call *call;
	SPITupleTable *lengths;
	bool isnull;
	int chunks;

	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(trainer.job.checkpoint));
	(void) jobs_run("bicycle_training_checkpoints",
					"SELECT coalesce(sum(octet_length(data)), 0)::int8, count(*)::int4 FROM %s"
					" WHERE job = $1 AND iteration = $2",
					SPI_OK_SELECT, &p);
	lengths = SPI_tuptable;
	head->stream_length =
		DatumGetInt64(SPI_getbinval(lengths->vals[0], lengths->tupdesc, 1, &isnull));
	chunks = DatumGetInt32(SPI_getbinval(lengths->vals[0], lengths->tupdesc, 2, &isnull));
	if (chunks == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("checkpoint of job " INT64_FORMAT " is missing", trainer.job.job),
				 errdetail("It is that of iteration " INT64_FORMAT ".", trainer.job.checkpoint),
				 errhint("Checkpoints are not carried by pg_dump. Start a new job.")));
	head->iteration = trainer.job.checkpoint;
	head->options_length = strlen(trainer.job.options);
	call = call_train(head, sizeof(*head), trainer.job.options, head->options_length);
	param_add_null(&p, INT4OID);
	p.nulls[2] = ' ';
	for (int chunk = 0; chunk < chunks; chunk++)
	{
		Datum value;
		bytea *data;

		p.values[2] = Int32GetDatum(chunk);
		if (jobs_run("bicycle_training_checkpoints",
					 "SELECT data FROM %s WHERE job = $1 AND iteration = $2 AND chunk = $3",
					 SPI_OK_SELECT, &p) != 1)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("checkpoint of job " INT64_FORMAT " is damaged", trainer.job.job)));
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		data = DatumGetByteaPP(value);
		if (!call_write(call, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)))
			trainer_lost();
		if ((Pointer) data !=
			DatumGetPointer(value)) /* else it lies in the row: a last chunk may be short */
			pfree(data);
		SPI_freetuptable(SPI_tuptable);
	}
	if (!call_end(call))
		trainer_lost();
	return call;
}

/* The version to start from, read as the job's owner; or nothing. */
static Call *
send_start(BicycleTrainBegin *head)
{
	Call *call;
	Model *model;

	if (trainer.job.start_version == 0)
	{
		head->options_length = strlen(trainer.job.options);
		call = call_train(head, sizeof(*head), trainer.job.options, head->options_length);
		if (!call_end(call))
			trainer_lost();
		return call;
	}
	model = model_lookup(cstring_to_text(trainer.job.model), &trainer.job.start_version);
	return model_stream_train(head, trainer.job.options, model);
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
		trainer_lost();
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

	SetConfigOption("search_path", trainer.job.search_path, PGC_USERSET, PGC_S_SESSION);
	plan = pairs_prepare(trainer.job.pairs);
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
		trainer_make_way();
	}
	SPI_cursor_close(cursor);
	AtEOXact_GUC(false, nest);
}

static int64
iterations_of(int version)
{
	Oid types[2] = { TEXTOID, INT4OID };
	Datum values[2] = { CStringGetTextDatum(trainer.job.model), Int32GetDatum(version) };
	bool isnull;

	if (SPI_execute_with_args(
			psprintf("SELECT iterations FROM %s WHERE model = $1 AND version = $2",
					 catalog_table("bicycle_models")),
			2, types, values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

void
trainer_feed(void)
{
	BicycleTrainBegin head = { .max_pixels = bicycle_max_image_pixels,
							   .train_memory = bicycle_train_memory * MB,
							   .train_disk = bicycle_train_disk * MB };
	Call *call;

	if (!trainer_begin())
		return;
	pgstat_report_activity(STATE_RUNNING, trainer.job.pairs);
	XactReadOnly = true;
	train_check_rights();
	strlcpy(head.spill, SPILL_DIRECTORY, sizeof(head.spill));
	if (trainer.job.platform)
		strlcpy(head.platform, trainer.job.platform, sizeof(head.platform));
	if (trainer.complete)
		head.flags = BICYCLE_TRAIN_FINISHED;
	if (trainer.job.start_version != 0)
		trainer.start_iterations = iterations_of(trainer.job.start_version);
	call = trainer.job.checkpoint > 0 ? send_checkpoint(&head) : send_start(&head);
	if (!trainer.complete)
		send_pairs(call);
	if (!call_send(call, (BicycleFrameType) BICYCLE_PAIRS_END, NULL, 0, NULL, 0))
		trainer_lost();
	call_free(call);
	trainer_end();
	pgstat_report_activity(STATE_IDLE, NULL);
}
