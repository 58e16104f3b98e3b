/*
 * call_stream.c
 *	  Calls whose callers write and read streams: models, files, a training
 *	  engine.
 *
 * R1 What is written waits in the session's buffer until it has WRITE_AHEAD
 *    bytes; then its writer waits.
 * R2 The session reads only while somebody waits, so hardly more lies here than
 *    what has been asked for.
 * R3 A call is not sent again: when the connection is lost it is LOST, and its
 *    caller begins anew (call_retry).
 */
#include "pg/call_private.h"

#include "common/invariant.h"
#include "common/limits.h"
#include "common/run_protocol.h"
#include "pg/session.h"

/* bytes of a stream that wait in our buffer before its producer waits */
#define WRITE_AHEAD (1024 * 1024)
#define DATA_FRAME (256 * 1024)
/* of a stream that have been handed on and are then moved away */
#define COMPACT_BYTES (1024 * 1024)

/* Raises the engine's error; false if the connection was lost. */
static bool
call_holds(const Call *call)
{
	if (call->state == CALL_FAILED)
		call_raise(call);
	return call->state != CALL_LOST;
}

/* Bytes of the answer's stream that have come and were not read. */
static size_t
call_unread(const Call *call)
{
	size_t length = call->stream.data != NULL ? call->stream.len : 0;

	INVARIANT(call->stream_read <= length);
	return length - call->stream_read;
}

/* What call_open refuses. */
static void
check_opening(BicycleFrameType type, size_t tail_length)
{
	if (tail_length > BICYCLE_MAX_CONFIG)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("configuration is too long"),
				 errdetail("It has %zu bytes; the limit is %d.", tail_length, BICYCLE_MAX_CONFIG)));
	if (calls_loading() && type != BICYCLE_LOAD)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot use a model while another is being read")));
}

Call *
call_open_at(int engine, BicycleFrameType type, const void *head, size_t head_length,
			 const void *tail, size_t tail_length)
{
	Call *call;

	check_opening(type, tail_length);
	call = call_new(type, KIND_STREAM);
	call->state = CALL_LOST;
	if (!session_has(engine))
		return call;
	call->engine = engine;
	call_queue(call, type, head, head_length, tail, tail_length);
	call->state = CALL_SENT;
	call_count(call);
	return call;
}

Call *
call_open(BicycleFrameType type, const void *head, size_t head_length, const void *tail,
		  size_t tail_length)
{
	int engine = JOB_ENGINE;

	check_opening(type, tail_length);
	do
		session_open(false);
	while (!session_is_training() && (engine = call_choose_engine(false)) < 0);
	return call_open_at(engine, type, head, head_length, tail, tail_length);
}

Call *
call_train(const void *head, size_t head_length, const void *tail, size_t tail_length)
{
	Call *call;

	INVARIANT(session_is_training());
	call = call_new((BicycleFrameType) BICYCLE_TRAIN_BEGIN, KIND_STREAM);
	call->id = 0;
	call->engine = JOB_ENGINE;
	call_queue(call, call->type, head, head_length, tail, tail_length);
	call->state = CALL_SENT;
	return call;
}

bool
call_send(Call *call, BicycleFrameType type, const void *head, size_t head_length, const void *tail,
		  size_t tail_length)
{
	while (call->state == CALL_SENT && session_pending(call->engine) > WRITE_AHEAD)
		call_turn();
	if (call->state == CALL_SENT)
		call_queue(call, type, head, head_length, tail, tail_length);
	return call_holds(call);
}

bool
call_granted(Call *call)
{
	while (call->state == CALL_SENT && !call->granted)
		call_turn();
	return call_holds(call);
}

bool
call_write(Call *call, const void *bytes, size_t length)
{
	const char *next = bytes;

	INVARIANT(call->granted || session_is_training() || call->state != CALL_SENT);
	while (length > 0 && call->state == CALL_SENT)
	{
		size_t n = Min(length, DATA_FRAME);

		if (session_pending(call->engine) > WRITE_AHEAD)
		{
			call_turn();
			continue;
		}
		call_queue(call, BICYCLE_DATA, next, n, NULL, 0);
		next += n;
		length -= n;
	}
	return call_holds(call);
}

bool
call_end(Call *call)
{
	if (call->state == CALL_SENT)
		call_queue(call, BICYCLE_END, NULL, 0, NULL, 0);
	return call_holds(call);
}

bool
call_result(Call *call, const char **head, size_t *length)
{
	while (call->state == CALL_SENT)
		call_turn();
	if (!call_holds(call))
		return false;
	*head = call->result;
	*length = call->result_length;
	return true;
}

bool
call_read(Call *call, void *bytes, size_t length)
{
	while (call->state == CALL_DONE && !call->stream_ended && call_unread(call) < length)
		call_turn();
	if (!call_holds(call))
		return false;
	if (call_unread(call) < length)
		session_broken(call->engine);
	if (length == 0)
		return true;
	memcpy(bytes, call->stream.data + call->stream_read, length);
	call->stream_read += length;
	if (call_unread(call) == 0)
	{
		resetStringInfo(&call->stream);
		call->stream_read = 0;
	}
	else if (call->stream_read > COMPACT_BYTES)
	{
		call->stream.len = call_unread(call);
		memmove(call->stream.data, call->stream.data + call->stream_read, call->stream.len);
		call->stream_read = 0;
	}
	return true;
}

bool
call_read_end(Call *call)
{
	while (call->state == CALL_DONE && !call->stream_ended)
		call_turn();
	if (!call_holds(call))
		return false;
	if (call_unread(call) > 0)
		session_broken(call->engine);
	return true;
}

void
call_retry(bool (*attempt)(void *arg), void *arg, const char *what)
{
	int started = 0;

	for (int losses = 0; !attempt(arg); losses++)
	{
		if (calls_lost_after_start())
			started++;
		if (started < MAX_ATTEMPTS && losses < MAX_LOADS)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 started >= MAX_ATTEMPTS ? errmsg("bicycle engine failed twice while it %s", what)
										 : errmsg("bicycle engine ends again and again"),
				 started >= MAX_ATTEMPTS
					 ? errdetail("The engine ended unexpectedly each time.")
					 : errdetail("The connection was lost %d times.", losses + 1),
				 errhint("The server log tells how the engine ended.")));
	}
}
