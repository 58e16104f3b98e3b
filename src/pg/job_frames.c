/*
 * job_frames.c
 *	  What a training engine says, and what is made of it: losses, previews,
 *	  notes, checkpoints, the final version.
 *
 * Frames may arrive at any time, also while a transaction is open, so they are
 * first collected in `messages`, which the run's memory context owns; streams
 * go to temporary files. trainer_handle takes them from there in the order of
 * arrival, each in a short transaction of its own.
 */
#include "job_worker.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "postmaster/interrupt.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "clock.h"
#include "model_store.h"
#include "session.h"

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
		MemoryContext old = MemoryContextSwitchTo(trainer.context);

		m->stream = BufFileCreateTemp(true);
		MemoryContextSwitchTo(old);
	}
	BufFileWrite(m->stream, unconstify(char *, body), frame->length);
	m->stream_length += frame->length;
}

void
trainer_frame(const BicycleFrame *frame, const char *body)
{
	Message *m;

	if (frame->type == BICYCLE_DATA || frame->type == BICYCLE_END)
	{
		if (dlist_is_empty(&messages))
			session_broken();
		m = dlist_tail_element(Message, node, &messages);
		if (m->complete)
			session_broken();
		take_stream(m, frame, body);
		return;
	}
	m = MemoryContextAllocZero(trainer.context, offsetof(Message, body) + frame->length + 1);
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

void
trainer_order(BicycleTrainFrame type)
{
	if (session_is_open() && !session_queue((BicycleFrameType) type, 0, NULL, 0, NULL, 0))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* Checks the fixed part of a frame, and copies it. */
static void
message_head(const Message *m, void *head, size_t length)
{
	if (m->length < length)
		session_broken();
	memcpy(head, m->body, length);
}

static bytea *
bytes_value(const void *bytes, size_t length)
{
	bytea *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), bytes, length);
	return value;
}

/* Bits can be the same as without the interruption only if all of this is. */
static void
compare_ready(const BicycleTrainReady *ready, const char *platform)
{
	if (trainer.job.data_digest &&
		(VARSIZE_ANY_EXHDR(trainer.job.data_digest) != sizeof(ready->data_digest) ||
		 memcmp(VARDATA_ANY(trainer.job.data_digest), ready->data_digest,
				sizeof(ready->data_digest)) != 0))
		trainer_note(0,
					 psprintf("iteration " INT64_FORMAT ": the query gives other pairs than before",
							  ready->iteration));
	if (trainer.job.platform && strcmp(trainer.job.platform, platform) != 0)
		trainer_note(
			0, psprintf("iteration " INT64_FORMAT
						": goes on on \"%s\", before on \"%s\"; results may differ in rounding",
						ready->iteration, platform, trainer.job.platform));
}

/* What the run has to do, and what it runs on. */
static void
note_ready(const BicycleTrainReady *ready, const char *platform)
{
	JobParams p;

	if (trainer.job.checkpoint > 0)
		compare_ready(ready, platform);
	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(ready->iterations));
	param_add(&p, BYTEAOID,
			  PointerGetDatum(bytes_value(ready->data_digest, sizeof(ready->data_digest))));
	param_add_text(&p, platform);
	trainer_update("UPDATE %s SET iterations = $2, data_digest = $3, platform = $4, updated_at = "
				   "now() WHERE job = $1",
				   &p);
}

static void
handle_ready(const Message *m)
{
	BicycleTrainReady ready;
	char *platform;

	message_head(m, &ready, sizeof(ready));
	platform = session_text(pnstrdup(ready.platform, sizeof(ready.platform)));
	if (!trainer_begin())
		return;
	if (!trainer.complete)
		note_ready(&ready, platform);
	trainer_end();
	trainer.job.iterations = ready.iterations;
	trainer_order(BICYCLE_RUN);
	trainer.running = true;
	trainer.checkpoint_ms = clock_ms();
}

static void
handle_losses(const Message *m)
{
	BicycleLosses losses;
	StringInfoData json;
	JobParams p;

	message_head(m, &losses, sizeof(losses));
	if (!trainer_begin())
		return;
	initStringInfo(&json);
	for (int i = 0; i < BICYCLE_NLOSSES; i++)
	{
		if (!(losses.present & (1u << i)))
			continue;
		trainer_params(&p);
		param_add(&p, INT8OID, Int64GetDatum(losses.iteration));
		param_add_text(&p, bicycle_loss_names[i]);
		param_add(&p, FLOAT8OID, Float8GetDatum(losses.value[i]));
		(void) jobs_run("bicycle_training_losses",
						"INSERT INTO %s (job, iteration, name, value) VALUES ($1, $2, $3, $4)"
						" ON CONFLICT (job, iteration, name) DO UPDATE SET value = EXCLUDED.value",
						SPI_OK_INSERT, &p);
		appendStringInfo(&json, "%c\"%s\": %.9g", json.len == 0 ? '{' : ',', bicycle_loss_names[i],
						 losses.value[i]);
	}
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(losses.iteration));
	param_add(&p, INT4OID, Int32GetDatum(losses.epoch));
	param_add(&p, INT4OID, Int32GetDatum(losses.epochs));
	param_add(&p, FLOAT8OID, Float8GetDatum(losses.images_per_second));
	param_add_text(&p, json.data);
	trainer_update("UPDATE %s SET iteration = greatest(iteration, $2), epoch = $3, epochs = $4, "
				   "images_per_second = $5, losses = $6::jsonb, updated_at = now()"
				   " WHERE job = $1",
				   &p);
	trainer_end();
}

static void
handle_preview(const Message *m)
{
	BicyclePreview preview;
	JobParams p;

	message_head(m, &preview, sizeof(preview));
	if (!trainer_begin())
		return;
	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(preview.iteration));
	param_add(&p, BYTEAOID,
			  PointerGetDatum(bytes_value(m->body + sizeof(preview), m->length - sizeof(preview))));
	(void) jobs_run("bicycle_training_previews",
					"INSERT INTO %s (job, iteration, image) VALUES ($1, $2, $3)"
					" ON CONFLICT (job, iteration) DO UPDATE SET image = EXCLUDED.image",
					SPI_OK_INSERT, &p);
	trainer_end();
}

static void
handle_note(const Message *m)
{
	BicycleNote note;

	message_head(m, &note, sizeof(note));
	if (note.cause >= 31)
		session_broken();
	if (!trainer_begin())
		return;
	trainer_note(1 << note.cause,
				 session_text(pnstrdup(m->body + sizeof(note), m->length - sizeof(note))));
	trainer_end();
}

static void
rewind_stream(BufFile *stream)
{
	if (stream == NULL)
		session_broken();
	if (BufFileSeek(stream, 0, 0, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not rewind temporary file: %m")));
}

static void
handle_checkpoint(const Message *m)
{
	BicycleCheckpoint checkpoint;
	JobParams p;
	bytea *chunk;
	uint64 left = m->stream_length;

	message_head(m, &checkpoint, sizeof(checkpoint));
	if (checkpoint.stream_length != m->stream_length || left == 0)
		session_broken();
	rewind_stream(m->stream);
	if (!trainer_begin())
		return;
	chunk = palloc(VARHDRSZ + BICYCLE_CHUNK_BYTES);
	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(checkpoint.iteration));
	(void) jobs_run("bicycle_training_checkpoints",
					"DELETE FROM %s WHERE job = $1 AND iteration >= $2", SPI_OK_DELETE, &p);
	param_add(&p, INT4OID, (Datum) 0);
	param_add(&p, BYTEAOID, PointerGetDatum(chunk));
	for (int number = 0; left > 0; number++)
	{
		size_t n = Min(left, BICYCLE_CHUNK_BYTES);

		if (BufFileRead(m->stream, VARDATA(chunk), n) != n)
			elog(ERROR, "could not read back a checkpoint");
		SET_VARSIZE(chunk, VARHDRSZ + n);
		p.values[2] = Int32GetDatum(number);
		(void) jobs_run("bicycle_training_checkpoints",
						"INSERT INTO %s (job, iteration, chunk, data) VALUES ($1, $2, $3, $4)",
						SPI_OK_INSERT, &p);
		left -= n;
	}
	p.n = 1;
	param_add(&p, INT4OID, Int32GetDatum(CHECKPOINTS_KEPT));
	(void) jobs_run(
		"bicycle_training_checkpoints",
		"DELETE FROM %1$s WHERE job = $1 AND iteration NOT IN"
		" (SELECT DISTINCT iteration FROM %1$s WHERE job = $1 ORDER BY iteration DESC LIMIT $2)",
		SPI_OK_DELETE, &p);
	trainer_params(&p);
	param_add(&p, INT8OID, Int64GetDatum(checkpoint.iteration));
	trainer_update("UPDATE %s SET checkpoint = $2, iteration = greatest(iteration, $2), attempts = "
				   "0, error = NULL, sqlstate = NULL, updated_at = now()"
				   " WHERE job = $1",
				   &p);
	trainer_end();
	trainer.job.checkpoint = checkpoint.iteration;
	trainer.job.attempts = 0;
	trainer.checkpoint_ms = clock_ms();
}

/*
 * The engine has stopped, or has not begun. Meanwhile the row may have been
 * told otherwise: resumed, it waits for the launcher.
 */
void
trainer_stopped(void)
{
	JobParams p;

	trainer.finished = true;
	if (!trainer_begin())
		return;
	trainer_params(&p);
	trainer_update("UPDATE %s SET state = CASE wanted WHEN 'running' THEN 'queued' ELSE wanted "
				   "END, wanted = 'running', attempts = 0, next_attempt = now(),"
				   " images_per_second = NULL, updated_at = now() WHERE job = $1",
				   &p);
	trainer_end();
}

static char *
option_text(const char *name)
{
	Datum options = DirectFunctionCall1(jsonb_in, CStringGetDatum(trainer.job.options));
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
	BicycleImported head;
	JobParams p;
	int version;

	message_head(m, &head, sizeof(head));
	if (m->length - sizeof(head) != head.config_length || head.stream_length != m->stream_length)
		session_broken();
	rewind_stream(m->stream);
	trainer_patience(0);
	trainer.running = false;
	if (ShutdownRequestPending || !trainer_begin())
		return;
	version = model_store(trainer.job.model, option_text("method"),
						  trainer.start_iterations + trainer.job.iterations, &head,
						  pnstrdup(m->body + sizeof(head), head.config_length), m->stream,
						  &trainer.job.start_version);
	trainer_params(&p);
	(void) jobs_run("bicycle_training_checkpoints", "DELETE FROM %s WHERE job = $1", SPI_OK_DELETE,
					&p);
	param_add(&p, INT4OID, Int32GetDatum(version));
	trainer_update("UPDATE %s SET state = 'done', wanted = 'running', version = $2, iteration = "
				   "iterations, checkpoint = 0, attempts = 0, error = NULL,"
				   " sqlstate = NULL, updated_at = now() WHERE job = $1",
				   &p);
	trainer_end();
	trainer.finished = true;
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
			trainer_stopped();
			break;
		case BICYCLE_TRAIN_DONE:
			handle_done(m);
			break;
		default:
			session_broken();
	}
}

void
trainer_handle(void)
{
	while (!trainer.finished && !dlist_is_empty(&messages))
	{
		Message *m = dlist_head_element(Message, node, &messages);

		if (!m->complete)
			return;
		handle(m);
		free_message(m);
	}
}
