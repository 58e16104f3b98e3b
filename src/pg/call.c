/*
 * call.c
 *	  The requests of this session.
 *
 * A Call is owned by the resource owner that was current when it was made:
 * if that owner is released with the request still open (an error, a rolled
 * back savepoint, a closed portal) the request is withdrawn with CANCEL. If
 * cancels are still unanswered at the end of the transaction the connection is
 * closed, so that an idle session never holds a place in the engine's queue.
 * Answers to requests that nobody waits for yet are kept.
 *
 * When the connection is lost, requests whose body is in memory go back to
 * UNSENT and are sent again once the engine is back. One for which the engine
 * had reported STARTED has then used up one attempt and asks to be run alone;
 * after two it fails with 58000 and its digest is refused for some minutes.
 *
 * Memory is session_memory(), because requests are cleaned up after the memory
 * of a failed statement is gone.
 */
#include "session.h"
#include "common/run_protocol.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define MAX_ATTEMPTS 2 /* starts that may end with the engine's death */
/* connections that one request may lose without having been started */
#define MAX_LOSSES 100
/* times that one request may ask for its model without being started */
#define MAX_LOADS 5
/* bytes of a stream that wait in our buffer before its producer waits */
#define WRITE_AHEAD (1024 * 1024)
#define DATA_FRAME (256 * 1024)
/* of a stream that have been handed on and are then moved away */
#define COMPACT_BYTES (1024 * 1024)

typedef enum RequestKind
{
	KIND_IMAGE, /* takes a RESERVE; the body is kept and sent again if need be */
	KIND_PLAIN, /* no body */
	/*
	 * its caller writes and reads streams, and starts again if the connection
	 * is lost
	 */
	KIND_STREAM
} RequestKind;

typedef enum CallState
{
	REQUEST_UNSENT,
	REQUEST_RESERVED, /* KIND_IMAGE: waits for its GRANT */
	REQUEST_SENT,
	REQUEST_DONE, /* has its RESULT; a stream of DATA may still follow */
	REQUEST_FAILED,
	REQUEST_LOST /* KIND_STREAM: the connection is gone */
} CallState;

struct Call
{
	dlist_node node; /* in `requests` */
	ResourceOwner owner;
	uint64 id;
	BicycleFrameType type;
	RequestKind kind;
	CallState state;
	bool granted;
	bool started;
	bool need_model;
	int attempts;
	int losses;
	int loads;
	Model *model; /* NULL: none */
	char *body;   /* KIND_IMAGE: BicycleImageRequest, z, image */
	size_t body_length;
	CallDigest digest;
	char *result;
	size_t result_length;
	StringInfoData stream; /* DATA received; data is NULL until the first */
	size_t stream_read;    /* bytes of it that were handed on */
	bool stream_ended;
	int sqlstate;  /* REQUEST_FAILED */
	char *text[3]; /* message, detail, hint; "" if none */
};

static dlist_head requests = DLIST_STATIC_INIT(requests);
static uint64 last_id = 0;

static int unacknowledged = 0;   /* CANCELs without a CANCELLED */
static TimestampTz credit_clock; /* when the wait for a GRANT began, or last saw progress */
static bool loading =
	false; /* inside model_stream_load: models are not asked for while one is being read */
static bool lost_after_start; /* how the last KIND_STREAM request was lost */

static void
must_queue(bool queued)
{
	if (!queued)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("A request to the bicycle engine did not fit.")));
}

/* ---- Requests ------------------------------------------------------------ */

static Call *
call_new(BicycleFrameType type, RequestKind kind)
{
	Call *r;

	if (session_is_training() && type != (BicycleFrameType) BICYCLE_TRAIN_BEGIN)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot use a model in the query of a training job"),
						errhint("Write what the function gives into a table first.")));
	r = MemoryContextAllocZero(session_memory(), sizeof(Call));
	r->id = ++last_id;
	r->type = type;
	r->kind = kind;
	r->state = REQUEST_UNSENT;
	r->owner = CurrentResourceOwner;
	dlist_push_tail(&requests, &r->node);
	return r;
}

static void
free_if(void *p)
{
	if (p)
		pfree(p);
}

static void
call_destroy(Call *r)
{
	dlist_delete(&r->node);
	free_if(r->model);
	free_if(r->body);
	free_if(r->result);
	free_if(r->stream.data);
	for (int i = 0; i < lengthof(r->text); i++)
		free_if(r->text[i]);
	pfree(r);
}

/* The engine may still send frames for it, or keep a place for it. */
static bool
call_is_open(const Call *r)
{
	switch (r->state)
	{
		case REQUEST_RESERVED:
		case REQUEST_SENT:
			return true;
		case REQUEST_DONE:
			return r->kind == KIND_STREAM && r->type != BICYCLE_LOAD &&
				   r->type != BICYCLE_TRAIN_CHECK && !r->stream_ended;
		default:
			return false;
	}
}

/* The open request that a frame is for; NULL if it has been withdrawn. */
static Call *
frame_request(const BicycleFrame *frame)
{
	dlist_iter iter;

	dlist_foreach(iter, &requests)
	{
		Call *r = dlist_container(Call, node, iter.cur);

		if (r->id == frame->id)
			return call_is_open(r) ? r : NULL;
	}
	return NULL;
}

static void
call_fail(Call *r, int sqlstate, const char *message, const char *detail, const char *hint)
{
	r->sqlstate = sqlstate;
	r->text[0] = MemoryContextStrdup(session_memory(), message);
	r->text[1] = MemoryContextStrdup(session_memory(), detail);
	r->text[2] = MemoryContextStrdup(session_memory(), hint);
	r->state = REQUEST_FAILED;
}

/* Raises the error of a failed request and frees it. */
static void
call_raise(Call *r)
{
	char *text[3];
	int sqlstate = r->sqlstate;

	memcpy(text, r->text, sizeof(text));
	memset(r->text, 0, sizeof(r->text));
	call_destroy(r);
	session_report(sqlstate, text);
}

/* ---- Frames of the engine ------------------------------------------------ */

static void
frame_error(const BicycleFrame *frame, const char *body)
{
	Call *r = frame_request(frame);
	char *text[3];
	int sqlstate;

	if (r == NULL)
		return;
	sqlstate = session_error(body, frame->length, text);
	memcpy(r->text, text, sizeof(text));
	r->sqlstate = sqlstate;
	r->state = REQUEST_FAILED;
}

static void
frame_data(const BicycleFrame *frame, const char *body)
{
	Call *r = frame_request(frame);

	if (r == NULL)
		return;
	if (r->stream.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(session_memory());

		initStringInfo(&r->stream);
		MemoryContextSwitchTo(old);
	}
	appendBinaryStringInfo(&r->stream, body, frame->length);
}

static void
frame_result(const BicycleFrame *frame, const char *body)
{
	Call *r = frame_request(frame);

	if (r == NULL || r->state == REQUEST_DONE)
		return;
	r->result =
		MemoryContextAllocExtended(session_memory(), (Size) frame->length + 1, MCXT_ALLOC_HUGE);
	memcpy(r->result, body, frame->length);
	r->result_length = frame->length;
	r->state = REQUEST_DONE;
	credit_clock = GetCurrentTimestamp();
}

static void
frame_grant(const BicycleFrame *frame)
{
	Call *r = frame_request(frame);

	if (r == NULL)
		return;
	credit_clock = GetCurrentTimestamp();
	r->granted = true;
	if (r->kind == KIND_IMAGE && r->state == REQUEST_RESERVED)
	{
		must_queue(session_queue(r->type, r->id, r->body, r->body_length, NULL, 0));
		r->state = REQUEST_SENT;
	}
}

void
call_frame(const BicycleFrame *frame, const char *body)
{
	Call *r;

	switch (frame->type)
	{
		case BICYCLE_GRANT:
			frame_grant(frame);
			break;
		case BICYCLE_NEED_MODEL:
			if ((r = frame_request(frame)) != NULL && r->model)
				r->need_model = true;
			break;
		case BICYCLE_STARTED:
			if ((r = frame_request(frame)) != NULL)
			{
				r->started = true;
				r->loads = 0;
			}
			break;
		case BICYCLE_RESULT:
			frame_result(frame, body);
			break;
		case BICYCLE_DATA:
			frame_data(frame, body);
			break;
		case BICYCLE_END:
			if ((r = frame_request(frame)) != NULL)
				r->stream_ended = true;
			break;
		case BICYCLE_ERROR:
			frame_error(frame, body);
			break;
		case BICYCLE_CANCELLED:
			unacknowledged = Max(unacknowledged - 1, 0);
			break;
		default:
			session_broken();
	}
}

/*
 * Requests that the engine had started have used up an attempt if it was the
 * engine that ended the connection.
 */
void
calls_lost(bool died)
{
	dlist_iter iter;

	unacknowledged = 0;
	dlist_foreach(iter, &requests)
	{
		Call *r = dlist_container(Call, node, iter.cur);

		if (!call_is_open(r))
			continue;
		if (r->kind == KIND_STREAM)
		{
			lost_after_start = died && r->started;
			r->state = REQUEST_LOST;
			continue;
		}
		if (died && r->started)
			r->attempts++;
		r->losses++;
		r->state = REQUEST_UNSENT;
		r->granted = r->started = r->need_model = false;
	}
}

/* ---- Sending requests ---------------------------------------------------- */

static bool
any_reserved(void)
{
	dlist_iter iter;

	dlist_foreach(iter, &requests)
	{
		if (dlist_container(Call, node, iter.cur)->state == REQUEST_RESERVED)
			return true;
	}
	return false;
}

/* False if the request has failed instead. */
static bool
send_unsent(Call *r)
{
	if (r->losses >= MAX_LOSSES)
	{
		call_fail(r, ERRCODE_SYSTEM_ERROR, "bicycle engine ends again and again",
				  psprintf("The connection was lost %d times.", r->losses),
				  "The server log tells how the engine ended.");
		return false;
	}
	if (r->attempts >= MAX_ATTEMPTS)
	{
		quarantine_add(&r->digest);
		call_fail(r, ERRCODE_SYSTEM_ERROR,
				  "bicycle engine failed twice while it worked on this request",
				  "The engine ended unexpectedly each time.",
				  psprintf("The same request is refused for %d seconds. The server log tells "
						   "how the engine ended.",
						   QUARANTINE_SECONDS));
		return false;
	}
	if (r->kind == KIND_IMAGE)
	{
		BicycleReserve reserve = { .bytes = r->body_length };

		if (r->attempts > 0)
			((BicycleImageRequest *) r->body)->flags |= BICYCLE_FLAG_ALONE;
		if (!any_reserved())
			credit_clock = GetCurrentTimestamp();
		must_queue(session_queue(BICYCLE_RESERVE, r->id, &reserve, sizeof(reserve), NULL, 0));
		r->state = REQUEST_RESERVED;
	}
	else
	{
		must_queue(session_queue(r->type, r->id, NULL, 0, NULL, 0));
		r->state = REQUEST_SENT;
	}
	return true;
}

/* False if one has failed instead. */
static bool
send_all_unsent(void)
{
	dlist_iter iter;
	bool all = true;

	dlist_foreach(iter, &requests)
	{
		Call *r = dlist_container(Call, node, iter.cur);

		if (r->state == REQUEST_UNSENT && r->kind != KIND_STREAM)
			all &= send_unsent(r);
	}
	return all;
}

/*
 * Sends the model that a request waits for; at most one a call, because the
 * list may change meanwhile. True if there was one.
 */
static bool
serve_models(void)
{
	dlist_iter iter;

	if (loading)
		return false;
	dlist_foreach(iter, &requests)
	{
		Call *r = dlist_container(Call, node, iter.cur);

		if (!r->need_model || r->state != REQUEST_SENT)
			continue;
		r->need_model = false;
		if (++r->loads > MAX_LOADS)
		{
			call_fail(
				r, ERRCODE_SYSTEM_ERROR,
				"bicycle engine failed repeatedly while a model was loaded",
				psprintf("The model is \"%s\", version %d.", r->model->name, r->model->version),
				"The server log tells how the engine ended.");
			return true;
		}
		loading = true;
		PG_TRY();
		{
			(void) model_stream_load(
				r->model); /* if the connection was lost the engine will ask again */
		}
		PG_FINALLY();
		{
			loading = false;
		}
		PG_END_TRY();
		return true;
	}
	return false;
}

/*
 * ms until a request has waited too long for its GRANT; -1: never. Raises 53400
 * if that moment has passed.
 */
static long
credit_timeout(void)
{
	TimestampTz deadline;
	TimestampTz now;

	if (bicycle_request_timeout == 0 || !any_reserved())
		return -1;
	now = GetCurrentTimestamp();
	deadline = TimestampTzPlusMilliseconds(credit_clock, bicycle_request_timeout);
	if (now >= deadline)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("bicycle engine did not accept the request in time"),
						errdetail("Its queue was full for %d ms.", bicycle_request_timeout),
						errhint("Raise bicycle.queue_memory or bicycle.request_timeout, or send "
								"fewer requests at once.")));
	return TimestampDifferenceMilliseconds(now, deadline);
}

/* One step of whatever there is to do, or one wait if there is nothing. */
static void
call_turn(void)
{
	bool moved;

	session_open(false);
	/*
	 * What a caller waits for may have come with these; nothing else need ever
	 * come then, so there is no wait before it has looked.
	 */
	if (!send_all_unsent() || serve_models() || !session_is_open())
		return;
	moved = session_flush();
	moved |= session_read();
	if (moved)
		CHECK_FOR_INTERRUPTS();
	else
		session_wait(credit_timeout());
}

/* ---- Requests with a body in memory -------------------------------------- */

/*
 * Type, model, fault asked for, latent and image: two requests of one digest
 * would do the same.
 */
static CallDigest
digest_of(BicycleFrameType type, const BicycleImageRequest *head, const float *z, const void *image,
		  size_t image_length)
{
	CallDigest digest;

	for (int i = 0; i < 2; i++)
	{
		uint64 seed = hash_bytes_extended(head->hash, BICYCLE_HASH_BYTES,
										  (uint64) type + 1000 * i + 1000000 * head->debug);

		if (head->nz > 0)
			seed = hash_bytes_extended((const unsigned char *) z, head->nz * sizeof(float), seed);
		digest.word[i] = hash_bytes_extended(image, image_length, seed);
	}
	return digest;
}

Call *
call_submit(BicycleFrameType type, const Model *model, const BicycleImageRequest *head,
			const float *z, const void *image, size_t image_length)
{
	CallDigest digest = digest_of(type, head, z, image, image_length);
	int seconds = quarantine_remaining(&digest);
	size_t z_bytes = head->nz * sizeof(float);
	Call *r;

	if (seconds > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR), errmsg("request is refused"),
			 errdetail("The bicycle engine failed twice while it worked on the same request."),
			 errhint(
				 "It is refused for another %d seconds. The server log tells how the engine ended.",
				 seconds)));
	if (loading)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot use a model while another is being read"),
			 errdetail(
				 "A row security policy of the model tables calls a function that uses a model.")));

	r = call_new(type, KIND_IMAGE);
	r->digest = digest;
	if (model)
	{
		r->model = MemoryContextAlloc(session_memory(), sizeof(Model));
		*r->model = *model;
	}
	r->body_length = sizeof(*head) + z_bytes + image_length;
	r->body = MemoryContextAllocExtended(session_memory(), r->body_length, MCXT_ALLOC_HUGE);
	memcpy(r->body, head, sizeof(*head));
	if (z_bytes > 0)
		memcpy(r->body + sizeof(*head), z, z_bytes);
	memcpy(r->body + sizeof(*head) + z_bytes, image, image_length);
	if (session_is_open())
	{
		send_unsent(r);
		session_flush();
	}
	return r;
}

Call *
call_simple(BicycleFrameType type, bool missing_ok)
{
	if (!session_open(missing_ok))
		return NULL;
	return call_new(type, KIND_PLAIN);
}

void
call_settle(Call *r)
{
	while (r->state != REQUEST_DONE && r->state != REQUEST_FAILED)
		call_turn();
}

const char *
call_wait(Call *r, size_t *length)
{
	call_settle(r);
	if (r->state == REQUEST_FAILED)
		call_raise(r);
	*length = r->result_length;
	return r->result;
}

/* Withdraws the request if it is still open, and frees it.  Raises nothing. */
void
call_free(Call *r)
{
	if (session_is_open() && call_is_open(r) && !session_is_training())
	{
		if (session_queue(BICYCLE_CANCEL, r->id, NULL, 0, NULL, 0))
		{
			unacknowledged++;
			session_flush();
		}
		else
			session_drop(false);
	}
	call_destroy(r);
}

/* ---- Requests with streams ----------------------------------------------- */

/*
 * Raises the engine's error; false if the connection was lost, and the request
 * is then freed.
 */
static bool
stream_holds(Call *r)
{
	if (r->state == REQUEST_FAILED)
		call_raise(r);
	if (r->state != REQUEST_LOST)
		return true;
	call_destroy(r);
	return false;
}

Call *
call_open(BicycleFrameType type, const void *head, size_t head_length, const void *tail,
		  size_t tail_length)
{
	Call *r;

	if (tail_length > BICYCLE_MAX_CONFIG)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("configuration is too long"),
				 errdetail("It has %zu bytes; the limit is %d.", tail_length, BICYCLE_MAX_CONFIG)));
	if (loading && type != BICYCLE_LOAD)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot use a model while another is being read")));
	session_open(false);
	r = call_new(type, KIND_STREAM);
	must_queue(session_queue(type, r->id, head, head_length, tail, tail_length));
	r->state = REQUEST_SENT;
	return r;
}

Call *
call_train(const void *head, size_t head_length, const void *tail, size_t tail_length)
{
	Call *r;

	Assert(session_is_training());
	r = call_new((BicycleFrameType) BICYCLE_TRAIN_BEGIN, KIND_STREAM);
	r->id = 0;
	must_queue(session_queue(r->type, r->id, head, head_length, tail, tail_length));
	r->state = REQUEST_SENT;
	return r;
}

bool
call_send(Call *r, BicycleFrameType type, const void *head, size_t head_length, const void *tail,
		  size_t tail_length)
{
	while (r->state == REQUEST_SENT && session_pending() > WRITE_AHEAD)
		call_turn();
	if (r->state == REQUEST_SENT)
		must_queue(session_queue(type, r->id, head, head_length, tail, tail_length));
	return stream_holds(r);
}

bool
call_granted(Call *r)
{
	while (r->state == REQUEST_SENT && !r->granted)
		call_turn();
	return stream_holds(r);
}

bool
call_write(Call *r, const void *bytes, size_t length)
{
	const char *next = bytes;

	while (length > 0 && r->state == REQUEST_SENT)
	{
		size_t n = Min(length, DATA_FRAME);

		if (session_pending() > WRITE_AHEAD)
		{
			call_turn();
			continue;
		}
		must_queue(session_queue(BICYCLE_DATA, r->id, next, n, NULL, 0));
		next += n;
		length -= n;
	}
	return stream_holds(r);
}

bool
call_end(Call *r)
{
	if (r->state == REQUEST_SENT)
		must_queue(session_queue(BICYCLE_END, r->id, NULL, 0, NULL, 0));
	return stream_holds(r);
}

bool
call_result(Call *r, const char **head, size_t *length)
{
	while (r->state == REQUEST_SENT)
		call_turn();
	if (!stream_holds(r))
		return false;
	*head = r->result;
	*length = r->result_length;
	return true;
}

bool
call_read(Call *r, void *bytes, size_t length)
{
	while (r->state == REQUEST_DONE && !r->stream_ended &&
		   (r->stream.data == NULL || r->stream.len - r->stream_read < length))
		call_turn();
	if (!stream_holds(r))
		return false;
	if (length > 0 && (r->stream.data == NULL || r->stream.len - r->stream_read < length))
		session_broken();
	memcpy(bytes, r->stream.data + r->stream_read, length);
	r->stream_read += length;
	if (r->stream_read == r->stream.len)
	{
		resetStringInfo(&r->stream);
		r->stream_read = 0;
	}
	else if (r->stream_read > COMPACT_BYTES)
	{
		r->stream.len -= r->stream_read;
		memmove(r->stream.data, r->stream.data + r->stream_read, r->stream.len);
		r->stream_read = 0;
	}
	return true;
}

bool
call_read_end(Call *r)
{
	while (r->state == REQUEST_DONE && !r->stream_ended)
		call_turn();
	if (!stream_holds(r))
		return false;
	if (r->stream.data != NULL && r->stream.len != r->stream_read)
		session_broken();
	return true;
}

void
call_retry(bool (*attempt)(void *arg), void *arg, const char *what)
{
	int started = 0;

	for (int losses = 0; !attempt(arg); losses++)
	{
		if (lost_after_start)
			started++;
		if (started >= MAX_ATTEMPTS || losses >= MAX_LOADS)
			ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
							errmsg("bicycle engine failed twice while it %s", what),
							errdetail("The engine ended unexpectedly each time."),
							errhint("The server log tells how the engine ended.")));
	}
}

/* ---- Cleaning up --------------------------------------------------------- */

static void
release_requests(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	dlist_mutable_iter iter;

	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS)
	{
		dlist_foreach_modify(iter, &requests)
		{
			Call *r = dlist_container(Call, node, iter.cur);

			if (r->owner != CurrentResourceOwner)
				continue;
			if (is_commit)
				elog(WARNING, "bicycle request " UINT64_FORMAT " was not freed", r->id);
			call_free(r);
		}
	}
	else if (phase == RESOURCE_RELEASE_AFTER_LOCKS && is_top_level && session_is_open() &&
			 !session_is_training() && (unacknowledged > 0 || session_pending() > 0))
		session_drop(false);
}

void
session_init(void)
{
	RegisterResourceReleaseCallback(release_requests, NULL);
}
