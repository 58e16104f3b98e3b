/*
 * job_frames.c
 *	  What a training engine says, and what is made of it: losses, previews,
 *	  notes, checkpoints, the final version.
 *
 * R1 Frames may arrive at any time, also while a transaction is open. They are
 *    collected in `messages`, which the run's memory context owns; streams go
 *    to temporary files.
 * R2 job_frames_handle takes them from there in the order of arrival, each in a
 *    short transaction of its own. Nothing is written for a job whose row is
 *    gone.
 */
#include "pg/job_worker.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "postmaster/interrupt.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "pg/bicycle.h"
#include "pg/job_card.h"
#include "pg/model_store.h"
#include "pg/monotonic.h"
#include "pg/session.h"

#define CHECKPOINTS_KEPT 2

/* A frame that has come, in the order of arrival. */
typedef struct Message
{
	dlist_node node;
	uint32 type;
	size_t length;
	BufFile *stream; /* of a CHECKPOINT or TRAIN_DONE; NULL for others */
	uint64 stream_length;
	bool complete; /* with its stream */
	char body[FLEXIBLE_ARRAY_MEMBER];
} Message;

static dlist_head messages = DLIST_STATIC_INIT(messages);

/* ---- Frames that have come ----------------------------------------------- */

/* Between two DATA frames of a stream nothing else comes. */
static void
take_stream(Message *m, const BicycleFrame *frame, const char *body)
{
	if (frame->type == BICYCLE_END)
	{
		m->complete = true;
		return;
	}
	if (m->stream == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(job_worker.context);

		m->stream = BufFileCreateTemp(true);
		MemoryContextSwitchTo(old);
	}
	BufFileWrite(m->stream, unconstify(char *, body), frame->length);
	m->stream_length += frame->length;
}

void
job_frames_take(int engine, const BicycleFrame *frame, const char *body)
{
	Message *m;

	if (frame->type == BICYCLE_DATA || frame->type == BICYCLE_END)
	{
		if (dlist_is_empty(&messages))
			session_broken(JOB_ENGINE);
		m = dlist_tail_element(Message, node, &messages);
		if (m->complete)
			session_broken(JOB_ENGINE);
		take_stream(m, frame, body);
		return;
	}
	m = MemoryContextAllocZero(job_worker.context, offsetof(Message, body) + frame->length + 1);
	m->type = frame->type;
	m->length = frame->length;
	memcpy(m->body, body, frame->length);
	m->complete = frame->type != BICYCLE_CHECKPOINT && frame->type != BICYCLE_TRAIN_DONE;
	dlist_push_tail(&messages, &m->node);
}

static void
free_message(Message *m)
{
	dlist_delete(&m->node);
	if (m->stream)
		BufFileClose(m->stream);
	pfree(m);
}

/* ---- One frame ----------------------------------------------------------- */

/* Checks the fixed part of a frame, and copies it. */
static void
message_head(const Message *m, void *head, size_t length)
{
	if (m->length < length)
		session_broken(JOB_ENGINE);
	memcpy(head, m->body, length);
}

/* Bits can be the same as without the interruption only if all of this is. */
static void
compare_ready(const BicycleTrainReady *ready, const char *platform)
{
	if (job_worker.job.data_digest &&
		(VARSIZE_ANY_EXHDR(job_worker.job.data_digest) < sizeof(ready->data_digest) ||
		 memcmp(VARDATA_ANY(job_worker.job.data_digest), ready->data_digest,
				sizeof(ready->data_digest)) != 0))
		job_worker_note(0, psprintf("iteration " INT64_FORMAT
									": the query gives other pairs than before",
									ready->iteration));
	if (job_worker.job.platform && strcmp(job_worker.job.platform, platform) != 0)
		job_worker_note(
			0, psprintf("iteration " INT64_FORMAT
						": goes on on \"%s\", before on \"%s\"; results may differ in rounding",
						ready->iteration, platform, job_worker.job.platform));
}

/* What the run has to do, and what it runs on. */
static void
note_ready(const Message *m, const BicycleTrainReady *ready, const char *platform)
{
	const size_t data = offsetof(BicycleTrainReady, data_digest);
	Params p;

	if (job_worker.job.checkpoint > 0)
		compare_ready(ready, platform);
	job_worker_params(&p);
	param_add_long(&p, ready->iterations);
	param_add_bytes(&p, m->body + data, m->length - data); /* and the pairs that are skipped */
	param_add_text(&p, platform);
	job_worker_update("UPDATE %s SET iterations = $2, data_digest = $3, platform = $4,"
					  " updated_at = now() WHERE job = $1",
					  &p);
}

static void
handle_ready(const Message *m)
{
	BicycleTrainReady ready;
	char *platform;

	message_head(m, &ready, sizeof(ready));
	platform = session_text(pnstrdup(ready.platform, sizeof(ready.platform)));
	job_card_opened(platform);
	if (!job_worker_begin())
		return;
	if (!job_worker.complete)
		note_ready(m, &ready, platform);
	job_worker_end();
	job_worker.job.iterations = ready.iterations;
	job_engine_yield();
	job_engine_order(BICYCLE_RUN);
	job_worker.running = true;
	job_worker.checkpoint_ms = monotonic_ms();
}

/*
 * Rows of what is there of a table of numbers, by their bits in `present`; the
 * same as JSON.
 */
static char *
insert_losses(int64 iteration, const char *const *names, int n, uint32 present,
			  const double *values)
{
	StringInfoData json;
	Params p;

	initStringInfo(&json);
	for (int i = 0; i < n; i++)
	{
		if (!(present & (1u << i)))
			continue;
		job_worker_params(&p);
		param_add_long(&p, iteration);
		param_add_text(&p, names[i]);
		param_add(&p, FLOAT8OID, Float8GetDatum(values[i]));
		job_worker_run(JOB_LOSSES,
					   "INSERT INTO %s (job, iteration, name, value) VALUES ($1, $2, $3, $4)"
					   " ON CONFLICT (job, iteration, name) DO UPDATE SET value = EXCLUDED.value",
					   SPI_OK_INSERT, &p);
		appendStringInfo(&json, "%c\"%s\": %.9g", json.len == 0 ? '{' : ',', names[i], values[i]);
	}
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	return json.data;
}

/* Losses and metrics come apart, and the row shows the last of both. */
#define JOIN_LOSSES "losses = coalesce(losses, '{}'::jsonb) OPERATOR(pg_catalog.||) "

static void
handle_losses(const Message *m)
{
	BicycleLosses losses;
	char *json;
	Params p;

	message_head(m, &losses, sizeof(losses));
	if (!job_worker_begin_writing())
		return;
	json = insert_losses(losses.iteration, bicycle_loss_names, BICYCLE_NLOSSES, losses.present,
						 losses.value);
	job_worker_params(&p);
	param_add_long(&p, losses.iteration);
	param_add_int(&p, losses.epoch);
	param_add_int(&p, losses.epochs);
	param_add(&p, FLOAT8OID, Float8GetDatum(losses.images_per_second));
	param_add_text(&p, json);
	job_worker_update("UPDATE %s SET iteration = greatest(iteration, $2), epoch = $3, epochs = $4, "
					  "images_per_second = $5, " JOIN_LOSSES "$6::jsonb, updated_at = now()"
					  " WHERE job = $1",
					  &p);
	job_worker_end();
}

static void
handle_validated(const Message *m)
{
	BicycleValidated validated;
	char *json;
	Params p;

	message_head(m, &validated, sizeof(validated));
	if (!job_worker_begin_writing())
		return;
	json = insert_losses(validated.iteration, bicycle_measure_names, BICYCLE_NMEASURES,
						 validated.present, validated.value);
	job_worker_params(&p);
	param_add_text(&p, json);
	job_worker_update("UPDATE %s SET " JOIN_LOSSES "$2::jsonb, updated_at = now() WHERE job = $1",
					  &p);
	job_worker_end();
}

/* It waits for requests of sessions. */
static void
handle_rate(const Message *m)
{
	BicycleRate rate;
	Params p;

	message_head(m, &rate, sizeof(rate));
	if (!job_worker_begin())
		return;
	job_worker_params(&p);
	param_add(&p, FLOAT8OID, Float8GetDatum(rate.images_per_second));
	job_worker_update("UPDATE %s SET images_per_second = $2, updated_at = now() WHERE job = $1",
					  &p);
	job_worker_end();
}

static void
handle_preview(const Message *m)
{
	BicyclePreview preview;
	Params p;

	message_head(m, &preview, sizeof(preview));
	if (!job_worker_begin_writing())
		return;
	job_worker_params(&p);
	param_add_long(&p, preview.iteration);
	param_add_bytes(&p, m->body + sizeof(preview), m->length - sizeof(preview));
	job_worker_run(JOB_PREVIEWS,
				   "INSERT INTO %s (job, iteration, image) VALUES ($1, $2, $3)"
				   " ON CONFLICT (job, iteration) DO UPDATE SET image = EXCLUDED.image",
				   SPI_OK_INSERT, &p);
	job_worker_end();
}

static void
handle_note(const Message *m)
{
	BicycleNote note;

	message_head(m, &note, sizeof(note));
	if (note.cause >= 31)
		session_broken(JOB_ENGINE);
	if (!job_worker_begin())
		return;
	job_worker_note(note.cause == BICYCLE_NOTE_SKIPPED ? 0 : 1 << note.cause,
					session_text(pnstrdup(m->body + sizeof(note), m->length - sizeof(note))));
	job_worker_end();
}

static void
rewind_stream(BufFile *stream)
{
	if (stream == NULL)
		session_broken(JOB_ENGINE);
	if (BufFileSeek(stream, 0, 0, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not rewind temporary file: %m")));
}

static void
handle_checkpoint(const Message *m)
{
	BicycleCheckpoint checkpoint;
	Params p;
	bytea *chunk;
	uint64 left = m->stream_length;
	bool last;

	message_head(m, &checkpoint, sizeof(checkpoint));
	last = (checkpoint.flags & BICYCLE_CHECKPOINT_LAST) != 0;
	if (checkpoint.stream_length != m->stream_length || left == 0)
		session_broken(JOB_ENGINE);
	rewind_stream(m->stream);
	if (!job_worker_begin_writing())
		return;
	chunk = palloc(VARHDRSZ + BICYCLE_CHUNK_BYTES);
	job_worker_params(&p);
	param_add_long(&p, checkpoint.iteration);
	job_worker_run(JOB_CHECKPOINTS, "DELETE FROM %s WHERE job = $1 AND iteration >= $2",
				   SPI_OK_DELETE, &p);
	param_add_int(&p, 0);
	param_add(&p, BYTEAOID, PointerGetDatum(chunk));
	for (int number = 0; left > 0; number++)
	{
		size_t n = Min(left, BICYCLE_CHUNK_BYTES);

		if (BufFileRead(m->stream, VARDATA(chunk), n) != n)
			elog(ERROR, "could not read back a checkpoint");
		SET_VARSIZE(chunk, VARHDRSZ + n);
		p.values[2] = Int32GetDatum(number);
		job_worker_run(JOB_CHECKPOINTS,
					   "INSERT INTO %s (job, iteration, chunk, data) VALUES ($1, $2, $3, $4)",
					   SPI_OK_INSERT, &p);
		left -= n;
	}
	p.n = 1;
	param_add_int(&p, CHECKPOINTS_KEPT);
	job_worker_run(
		JOB_CHECKPOINTS,
		"DELETE FROM %1$s WHERE job = $1 AND iteration NOT IN"
		" (SELECT DISTINCT iteration FROM %1$s WHERE job = $1 ORDER BY iteration DESC LIMIT $2)",
		SPI_OK_DELETE, &p);
	job_worker_params(&p);
	param_add_long(&p, checkpoint.iteration);
	param_add(&p, BOOLOID, BoolGetDatum(last));
	/* a run that ends early has no more iterations than it has made */
	job_worker_update(
		"UPDATE %s SET checkpoint = $2, iteration = greatest(iteration, $2), attempts = 0,"
		" iterations = CASE WHEN $3 THEN $2 ELSE iterations END,"
		" error = NULL, sqlstate = NULL, updated_at = now() WHERE job = $1",
		&p);
	job_worker_end();
	if (last)
		job_worker.job.iterations = checkpoint.iteration;
	job_worker.job.checkpoint = checkpoint.iteration;
	job_worker.job.attempts = 0;
	job_worker.checkpoint_ms = monotonic_ms();
}

static char *
option_text(const char *name)
{
	Datum options = DirectFunctionCall1(jsonb_in, CStringGetDatum(job_worker.job.options));
	Datum value = DirectFunctionCall2(jsonb_object_field_text, options,
									  PointerGetDatum(cstring_to_text(name)));

	return TextDatumGetCString(value);
}

/*
 * Stores the model as the job's owner; it becomes current only if the version
 * that training started from still is. What it is made from is safe: the
 * checkpoint of the last iteration has come before, so SIGTERM interrupts it at
 * once, even where it waits for a lock.
 */
static void
handle_done(const Message *m)
{
	BicycleTrainDone head;
	Params p;
	int version;

	message_head(m, &head, sizeof(head));
	if (m->length - sizeof(head) != head.model.config_length ||
		head.model.stream_length != m->stream_length)
		session_broken(JOB_ENGINE);
	rewind_stream(m->stream);
	job_worker_patience(0);
	job_worker.running = false;
	if (ShutdownRequestPending || !job_worker_begin())
		return;
	model_lock(job_worker.job.model); /* before the row, as in bicycle_resume */
	if (!job_worker_hold_row())
	{
		job_worker_end();
		return;
	}
	version = model_store(job_worker.job.model, option_text("method"),
						  job_worker.start_iterations + head.iteration, &head.model,
						  pnstrdup(m->body + sizeof(head), head.model.config_length), m->stream,
						  &job_worker.job.start_version);
	job_worker_params(&p);
	job_worker_run(JOB_CHECKPOINTS, "DELETE FROM %s WHERE job = $1", SPI_OK_DELETE, &p);
	param_add_int(&p, version);
	param_add_state(&p, JOB_DONE);
	param_add_state(&p, JOB_RUNNING);
	job_worker_update("UPDATE %s SET state = $3, wanted = $4, version = $2, iteration = iterations,"
					  " checkpoint = 0, attempts = 0, error = NULL, sqlstate = NULL,"
					  " updated_at = now() WHERE job = $1",
					  &p);
	job_worker_end();
	job_worker.finished = true;
}

static void
handle(const Message *m)
{
	switch ((BicycleTrainFrame) m->type)
	{
		case BICYCLE_TRAIN_READY:
			handle_ready(m);
			break;
		case BICYCLE_LOSSES:
			handle_losses(m);
			break;
		case BICYCLE_VALIDATED:
			handle_validated(m);
			break;
		case BICYCLE_RATE:
			handle_rate(m);
			break;
		case BICYCLE_PREVIEW:
			handle_preview(m);
			break;
		case BICYCLE_NOTE:
			handle_note(m);
			break;
		case BICYCLE_CHECKPOINT:
			handle_checkpoint(m);
			break;
		case BICYCLE_PAUSED:
			job_worker_stopped();
			break;
		case BICYCLE_TRAIN_DONE:
			handle_done(m);
			break;
		default:
			session_broken(JOB_ENGINE);
	}
}

void
job_frames_handle(void)
{
	while (!job_worker.finished && !dlist_is_empty(&messages))
	{
		Message *m = dlist_head_element(Message, node, &messages);

		if (!m->complete)
			return;
		handle(m);
		free_message(m);
	}
}
