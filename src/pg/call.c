/*
 * call.c
 *	  The calls of this session: a list of them, which engine has each, what is
 *	  sent for it, and what has come back.
 *
 * R1 A call belongs to the resource owner that was current when it was opened.
 *    If that is released first (an error, a rolled back savepoint, a closed
 *    portal) the call is withdrawn with CANCEL, and freed.
 * R2 An idle session holds no place in the engine's queue: if cancels are still
 *    unanswered at the end of the transaction, the connection is closed.
 * R3 Answers to calls that nobody waits for yet are kept.
 * R4 A call that is sent again after an engine's death has used up an attempt
 *    if that engine had reported it STARTED. It then asks to be run alone.
 *    After two attempts it fails with 58000, and its digest is refused for
 *    minutes. What other sessions have seen of the same digest counts too
 *    (suspects.c).
 * R5 Where there are several engines a call goes to the one that has the least
 *    to do, by all sessions' calls. A session has a part of bicycle.prefetch
 *    with each at most; what is more waits here, so that the engine that
 *    answers first gets it.
 * R6 Whoever waits, for whatever call, reads the models that the engine asks
 *    for: as the user who has made the call that needs it, which may be another
 *    than waits. An error is raised to who waits, and again to who waits for
 *    that call, if the first has caught it.
 *
 * Memory is session_memory(), because calls are cleaned up after the memory of
 * a failed statement is gone. How a call goes from state to state is drawn in
 * call_private.h.
 */
#include "pg/call_private.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "common/invariant.h"
#include "common/run_protocol.h"
#include "pg/engine_slots.h"
#include "pg/monotonic.h"
#include "pg/session.h"
#include "pg/suspects.h"

/* connections that one call may lose without having been started */
#define MAX_LOSSES 100
#define FAULT_CALLS 3   /* of bicycle.debug_fault */
#define UNSENT_WAIT 100 /* ms between looks for an engine for what waits here */

static dlist_head calls = DLIST_STATIC_INIT(calls);
static uint64 last_id = 0;
static int unacknowledged[BICYCLE_MAX_ENGINES]; /* CANCELs without a CANCELLED, by engine */
static int placed[BICYCLE_MAX_ENGINES];         /* calls that are counted */
static int64 credit_clock;    /* when the wait for a GRANT began, or last saw progress: ms */
static bool loading = false;  /* inside load_model */
static bool lost_after_start; /* how the last KIND_STREAM call was lost */
static bool (*load_model)(const Model *model, int engine) = NULL;

bool
calls_loading(void)
{
	return loading;
}

bool
calls_lost_after_start(void)
{
	return lost_after_start;
}

/* ---- The list ------------------------------------------------------------ */

Call *
call_new(BicycleFrameType type, CallKind kind)
{
	Call *call;

	if (session_is_training() && type != (BicycleFrameType) BICYCLE_TRAIN_BEGIN)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot use a model in the query of a training job"),
						errhint("Write what the function gives into a table first.")));
	call = MemoryContextAllocZero(session_memory(), sizeof(Call));
	call->id = ++last_id;
	call->type = type;
	call->kind = kind;
	call->state = CALL_UNSENT;
	call->engine = call->asked = -1;
	call->owner = CurrentResourceOwner;
	GetUserIdAndSecContext(&call->user, &call->user_context);
	dlist_push_tail(&calls, &call->node);
	return call;
}

static void
free_if(void *p)
{
	if (p)
		pfree(p);
}

static void
call_destroy(Call *call)
{
	call->state = CALL_FAILED;
	call_count(call);
	dlist_delete(&call->node);
	free_if(call->model);
	free_if(call->body);
	free_if(call->result);
	free_if(call->stream.data);
	for (int i = 0; i < lengthof(call->text); i++)
		free_if(call->text[i]);
	pfree(call);
}

/* The engine may still send frames for it, or keep a place for it. */
static bool
call_is_open(const Call *call)
{
	switch (call->state)
	{
		case CALL_RESERVED:
		case CALL_SENT:
			return true;
		case CALL_DONE:
			return call->kind == KIND_STREAM && call->type != BICYCLE_LOAD &&
				   call->type != BICYCLE_TRAIN_CHECK && !call->stream_ended;
		default:
			return false;
	}
}

/* Bytes of an answer's stream that have come. */
static size_t
stream_length(const Call *call)
{
	return call->stream.data != NULL ? call->stream.len : 0;
}

static void
call_check(const Call *call)
{
	bool stream = call->kind == KIND_STREAM;
	bool image = call->kind == KIND_IMAGE;

	INVARIANT(call->owner != NULL);
	INVARIANT(call->state != CALL_RESERVED || image);
	INVARIANT(call->state != CALL_LOST || stream);
	INVARIANT(call->state != CALL_DONE || call->result != NULL);
	INVARIANT(call->state != CALL_FAILED || (call->text[0] && call->text[1] && call->text[2]));
	INVARIANT(call->state != CALL_UNSENT || !(call->granted || call->started || call->need_model));
	INVARIANT(!call_is_open(call) || session_has(call->engine));
	INVARIANT(call->counted ==
			  (call_is_open(call) && call->kind != KIND_PLAIN && !session_is_training()));
	INVARIANT(!image || (call->body && call->body_length >= sizeof(BicycleImageRequest)));
	INVARIANT(!call->need_model || call->model != NULL);
	INVARIANT(0 <= call->attempts && call->attempts <= Min(call->losses, MAX_ATTEMPTS));
	INVARIANT(call->losses <= MAX_LOSSES && call->loads <= MAX_LOADS + 1);
	INVARIANT(stream || stream_length(call) == 0);
	INVARIANT(call->stream_read <= stream_length(call));
}

/*
 * R3 of common/invariant.h: the list and its members. They are in the order in
 * which they were opened, but that of a job worker, which has no number.
 */
static void
calls_check(void)
{
	dlist_iter iter;
	uint64 last = 0;
	int counted[BICYCLE_MAX_ENGINES] = { 0 };

	session_check();
	dlist_foreach(iter, &calls)
	{
		const Call *call = dlist_container(Call, node, iter.cur);

		INVARIANT(iter.cur->next->prev == iter.cur && iter.cur->prev->next == iter.cur);
		INVARIANT(session_is_training() ? call->id == 0 : call->id > last);
		last = call->id;
		call_check(call);
		if (call->counted)
			counted[call->engine]++;
	}
	INVARIANT(last <= last_id);
	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
	{
		INVARIANT(0 <= unacknowledged[n] && (unacknowledged[n] == 0 || session_has(n)));
		INVARIANT(counted[n] == placed[n] && (uint32) counted[n] <= engine_load(n));
	}
}

/* For tests: see that it is noticed. */
static void
spoil(Call *call)
{
	if (bicycle_debug && bicycle_debug_fault == FAULT_CALLS)
		call->attempts = MAX_ATTEMPTS;
}

/* The open call that a frame is for; NULL if it has been withdrawn. */
static Call *
call_of_frame(int engine, const BicycleFrame *frame)
{
	dlist_iter iter;

	dlist_foreach(iter, &calls)
	{
		Call *call = dlist_container(Call, node, iter.cur);

		if (call->id == frame->id)
			return call_is_open(call) && call->engine == engine ? call : NULL;
	}
	return NULL;
}

static void
call_fail(Call *call, int sqlstate, const char *message, const char *detail, const char *hint)
{
	call->sqlstate = sqlstate;
	call->text[0] = MemoryContextStrdup(session_memory(), message);
	call->text[1] = MemoryContextStrdup(session_memory(), detail);
	call->text[2] = MemoryContextStrdup(session_memory(), hint);
	call->state = CALL_FAILED;
}

void
call_raise(const Call *call)
{
	session_report(call->sqlstate, call->text);
}

/* ---- Which engine -------------------------------------------------------- */

void
call_count(Call *call)
{
	bool counts = call_is_open(call) && call->kind != KIND_PLAIN && !session_is_training();

	if (counts == call->counted)
		return;
	call->counted = counts;
	placed[call->engine] += counts ? 1 : -1;
	engine_load_add(call->engine, counts ? 1 : -1);
}

/* The one of a set that has the least to do, of equals the first; -1: none. */
static int
least_loaded(uint32 engines, int most)
{
	int best = -1;

	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
		if ((engines & 1u << n) != 0 && placed[n] < most &&
			(best < 0 || engine_load(n) < engine_load(best)))
			best = n;
	return best;
}

int
call_choose_engine(bool credit)
{
	uint32 usable = engines_usable();
	bool several = (usable & (usable - 1)) != 0;
	int most = credit && several ? Max(1, bicycle_prefetch - bicycle_prefetch / 4) : INT_MAX;
	int engine = least_loaded(usable, most);

	if (engine < 0 || session_reach(engine))
		return engine;
	/* While that is being connected to, another one that is. */
	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
		if (!session_has(n))
			usable &= ~(1u << n);
	return least_loaded(usable, most);
}

/* ---- Frames of the engine ------------------------------------------------ */

/* Work on it has ended, and not with the engine. */
static void
call_answered(Call *call)
{
	call_count(call);
	if (call->suspect && call->started)
		suspect_clear(&call->digest);
	call->suspect = false;
}

static void
frame_error(int engine, const BicycleFrame *frame, const char *body)
{
	Call *call = call_of_frame(engine, frame);

	if (call == NULL)
		return;
	call->sqlstate = session_error(engine, body, frame->length, session_memory(), call->text);
	call->state = CALL_FAILED;
	call_answered(call);
}

static void
frame_data(int engine, const BicycleFrame *frame, const char *body)
{
	Call *call = call_of_frame(engine, frame);

	if (call == NULL)
		return;
	if (call->kind != KIND_STREAM)
		session_broken(engine);
	if (call->stream.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(session_memory());

		initStringInfo(&call->stream);
		MemoryContextSwitchTo(old);
	}
	appendBinaryStringInfo(&call->stream, body, frame->length);
}

static void
frame_result(int engine, const BicycleFrame *frame, const char *body)
{
	Call *call = call_of_frame(engine, frame);

	if (call == NULL || call->state == CALL_DONE)
		return;
	call->result =
		MemoryContextAllocExtended(session_memory(), (Size) frame->length + 1, MCXT_ALLOC_HUGE);
	memcpy(call->result, body, frame->length);
	call->result_length = frame->length;
	call->state = CALL_DONE;
	call_answered(call);
	credit_clock = monotonic_ms();
}

static void
frame_grant(int engine, const BicycleFrame *frame)
{
	Call *call = call_of_frame(engine, frame);

	if (call == NULL)
		return;
	credit_clock = monotonic_ms();
	call->granted = true;
	if (call->kind == KIND_IMAGE && call->state == CALL_RESERVED)
	{
		call_queue(call, call->type, call->body, call->body_length, NULL, 0);
		call->state = CALL_SENT;
	}
}

/* Any frame but HELLO and an ERROR of the connection. */
static void
calls_take_frame(int engine, const BicycleFrame *frame, const char *body)
{
	Call *call;

	switch (frame->type)
	{
		case BICYCLE_GRANT:
			frame_grant(engine, frame);
			break;
		case BICYCLE_NEED_MODEL:
			if ((call = call_of_frame(engine, frame)) != NULL && call->model)
				call->need_model = true;
			break;
		case BICYCLE_STARTED:
			if ((call = call_of_frame(engine, frame)) != NULL)
			{
				call->started = true;
				call->loads = 0;
			}
			break;
		case BICYCLE_RESULT:
			frame_result(engine, frame, body);
			break;
		case BICYCLE_DATA:
			frame_data(engine, frame, body);
			break;
		case BICYCLE_END:
			if ((call = call_of_frame(engine, frame)) != NULL)
			{
				call->stream_ended = true;
				call_count(call);
			}
			break;
		case BICYCLE_ERROR:
			frame_error(engine, frame, body);
			break;
		case BICYCLE_CANCELLED:
			unacknowledged[engine] = Max(unacknowledged[engine] - 1, 0);
			break;
		default:
			session_broken(engine);
	}
}

/*
 * Calls that the engine had started have used up an attempt if it was the
 * engine that ended the connection.
 */
static void
calls_lost(int engine, pid_t died)
{
	dlist_iter iter;

	unacknowledged[engine] = 0;
	dlist_foreach(iter, &calls)
	{
		Call *call = dlist_container(Call, node, iter.cur);

		if (!call_is_open(call) || call->engine != engine)
			continue;
		if (call->kind == KIND_STREAM)
		{
			lost_after_start = died != 0 && call->started;
			call->state = CALL_LOST;
			call_count(call);
			continue;
		}
		if (died != 0 && call->started)
		{
			call->attempts++;
			if (call->kind == KIND_IMAGE)
				suspect_add(&call->digest, died);
		}
		call->losses++;
		call->state = CALL_UNSENT;
		call_count(call);
		call->engine = -1;
		call->granted = call->started = call->need_model = false;
	}
}

/* ---- Sending ------------------------------------------------------------- */

void
call_queue(const Call *call, BicycleFrameType type, const void *head, size_t head_length,
		   const void *tail, size_t tail_length)
{
	if (!session_queue(call->engine, type, call->id, head, head_length, tail, tail_length))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("A request to the bicycle engine did not fit.")));
}

static bool
any_reserved(void)
{
	dlist_iter iter;

	dlist_foreach(iter, &calls)
	{
		if (dlist_container(Call, node, iter.cur)->state == CALL_RESERVED)
			return true;
	}
	return false;
}

static void
send_image(Call *call)
{
	BicycleReserve reserve = { .bytes = call->body_length };
	int seconds;
	int deaths = Max(call->attempts, suspect_deaths(&call->digest, &seconds));
	int engine;

	if (deaths >= MAX_ATTEMPTS)
	{
		suspect_refuse(&call->digest);
		call_fail(call, ERRCODE_SYSTEM_ERROR,
				  "bicycle engine failed twice while it worked on this request",
				  "The engine ended unexpectedly each time.",
				  psprintf("The same request is refused for %d seconds. The server log tells "
						   "how the engine ended.",
						   SUSPECT_SECONDS));
		return;
	}
	engine = call_choose_engine(true);
	if (engine < 0)
		return;
	call->engine = engine;
	call->suspect = deaths > 0;
	if (call->suspect)
		((BicycleImageRequest *) call->body)->flags |= BICYCLE_FLAG_ALONE;
	if (!any_reserved())
		credit_clock = monotonic_ms();
	call_queue(call, BICYCLE_RESERVE, &reserve, sizeof(reserve), NULL, 0);
	call->state = CALL_RESERVED;
	call_count(call);
}

/* To its engine; others cannot answer for it. */
static void
send_plain(Call *call)
{
	EngineState state;

	if (session_reach(call->asked))
	{
		call->engine = call->asked;
		call_queue(call, call->type, NULL, 0, NULL, 0);
		call->state = CALL_SENT;
		return;
	}
	state = engine_slot_read(call->asked, NULL);
	if (state != ENGINE_READY && (state != ENGINE_STARTING || engines_usable() != 0))
		call_fail(call, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "bicycle engine is not running",
				  "", "");
}

/*
 * Sends the call, if there is an engine for it now; false if it has failed
 * instead.
 */
static bool
send_unsent(Call *call)
{
	if (call->losses >= MAX_LOSSES)
		call_fail(call, ERRCODE_SYSTEM_ERROR, "bicycle engine ends again and again",
				  psprintf("The connection was lost %d times.", call->losses),
				  "The server log tells how the engine ended.");
	else if (call->kind == KIND_IMAGE)
		send_image(call);
	else
		send_plain(call);
	return call->state != CALL_FAILED;
}

/* A call waits here for an engine. */
static bool
any_unsent(void)
{
	dlist_iter iter;

	dlist_foreach(iter, &calls)
	{
		if (dlist_container(Call, node, iter.cur)->state == CALL_UNSENT)
			return true;
	}
	return false;
}

/* False if one has failed instead. */
static bool
send_all_unsent(void)
{
	dlist_iter iter;
	bool all = true;

	dlist_foreach(iter, &calls)
	{
		Call *call = dlist_container(Call, node, iter.cur);

		if (call->state == CALL_UNSENT && call->kind != KIND_STREAM)
			all &= send_unsent(call);
	}
	return all;
}

/* R6: what load_model_of fails with. */
static void
call_not_loaded(Call *call)
{
	if (call->state == CALL_SENT)
	{
		call->need_model = true;
		call->loads--;
	}
}

/* If the connection is lost on the way the engine will ask again. */
static void
load_model_of(Call *call)
{
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	loading = true;
	PG_TRY();
	{
		SetUserIdAndSecContext(call->user, call->user_context);
		(void) load_model(call->model, call->engine);
	}
	PG_CATCH();
	{
		SetUserIdAndSecContext(user, context);
		loading = false;
		call_not_loaded(call);
		PG_RE_THROW();
	}
	PG_END_TRY();
	SetUserIdAndSecContext(user, context);
	loading = false;
}

/*
 * Sends the model that a call waits for; at most one a turn, because the list
 * may change meanwhile. True if there was one.
 */
static bool
serve_models(void)
{
	dlist_iter iter;

	if (loading)
		return false;
	dlist_foreach(iter, &calls)
	{
		Call *call = dlist_container(Call, node, iter.cur);

		if (!call->need_model || call->state != CALL_SENT)
			continue;
		call->need_model = false;
		if (++call->loads > MAX_LOADS)
		{
			call_fail(call, ERRCODE_SYSTEM_ERROR,
					  "bicycle engine failed repeatedly while a model was loaded",
					  psprintf("The model is \"%s\", version %d.", call->model->name,
							   call->model->version),
					  "The server log tells how the engine ended.");
			return true;
		}
		load_model_of(call);
		return true;
	}
	return false;
}

/*
 * ms until a call has waited too long for its GRANT; -1: never. Raises 53400
 * if that moment has passed.
 */
static long
credit_timeout(void)
{
	int64 left;

	if (bicycle_request_timeout == 0 || !any_reserved())
		return -1;
	left = credit_clock + bicycle_request_timeout - monotonic_ms();
	if (left <= 0)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("bicycle engine did not accept the request in time"),
						errdetail("Its queue was full for %d ms.", bicycle_request_timeout),
						errhint("Raise bicycle.queue_memory or bicycle.request_timeout, or send "
								"fewer requests at once.")));
	return (long) left;
}

void
call_turn(void)
{
	bool moved;
	long timeout;

	if (session_checking())
		calls_check();
	if (any_unsent())
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
	{
		CHECK_FOR_INTERRUPTS();
		return;
	}
	timeout = credit_timeout();
	if (any_unsent())
		timeout = timeout < 0 ? UNSENT_WAIT : Min(timeout, UNSENT_WAIT);
	session_wait(timeout);
}

/* ---- Calls without streams ----------------------------------------------- */

/*
 * Type, model, fault asked for, latent and image: two calls of one digest would
 * do the same.
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
	int seconds;
	size_t z_bytes = head->nz * sizeof(float);
	Call *call;

	if (suspect_deaths(&digest, &seconds) >= SUSPECT_DEATHS)
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

	call = call_new(type, KIND_IMAGE);
	call->digest = digest;
	if (model)
	{
		call->model = MemoryContextAlloc(session_memory(), sizeof(Model));
		*call->model = *model;
	}
	call->body_length = sizeof(*head) + z_bytes + image_length;
	call->body = MemoryContextAllocExtended(session_memory(), call->body_length, MCXT_ALLOC_HUGE);
	memcpy(call->body, head, sizeof(*head));
	if (z_bytes > 0)
		memcpy(call->body + sizeof(*head), z, z_bytes);
	memcpy(call->body + sizeof(*head) + z_bytes, image, image_length);
	if (session_is_open())
	{
		send_unsent(call);
		session_flush();
	}
	spoil(call);
	return call;
}

Call *
call_simple(BicycleFrameType type, int engine)
{
	Call *call = call_new(type, KIND_PLAIN);

	call->asked = engine;
	return call;
}

void
call_settle(Call *call)
{
	INVARIANT(call->kind != KIND_STREAM);
	while (call->state != CALL_DONE && call->state != CALL_FAILED)
		call_turn();
}

const char *
call_wait(Call *call, size_t *length)
{
	call_settle(call);
	if (call->state == CALL_FAILED)
		call_raise(call);
	*length = call->result_length;
	return call->result;
}

const char *
call_try(Call *call, size_t *length)
{
	call_settle(call);
	*length = call->result_length;
	return call->state == CALL_DONE ? call->result : NULL;
}

/*
 * What a model fails with comes between GRANT and STARTED. What an image fails
 * with comes after work on it has begun, or, where it is larger than the queue,
 * instead of its place.
 */
bool
call_image_failed(Call *call, const char **message, const char **detail)
{
	call_settle(call);
	if (call->state != CALL_FAILED || (call->granted && !call->started) ||
		(call->sqlstate != ERRCODE_INVALID_BINARY_REPRESENTATION &&
		 call->sqlstate != ERRCODE_PROGRAM_LIMIT_EXCEEDED))
		return false;
	*message = call->text[0];
	*detail = call->text[1][0] != '\0' ? call->text[1] : NULL;
	return true;
}

void
call_free(Call *call)
{
	int engine = call->engine;

	if (call_is_open(call) && !session_is_training())
	{
		if (session_queue(engine, BICYCLE_CANCEL, call->id, NULL, 0, NULL, 0))
		{
			unacknowledged[engine]++;
			session_flush();
		}
		else
			session_drop(engine, false);
	}
	call_destroy(call);
}

/* ---- Cleaning up --------------------------------------------------------- */

/* No call outlives its transaction. */
static void
release_calls(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	dlist_mutable_iter iter;

	INVARIANT(phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level || !session_checking() ||
			  dlist_is_empty(&calls));
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS)
	{
		dlist_foreach_modify(iter, &calls)
		{
			Call *call = dlist_container(Call, node, iter.cur);

			if (call->owner != CurrentResourceOwner)
				continue;
			if (is_commit)
				elog(WARNING, "bicycle call " UINT64_FORMAT " was not freed", call->id);
			call_free(call);
		}
	}
	else if (phase == RESOURCE_RELEASE_AFTER_LOCKS && is_top_level && !session_is_training())
		for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
			if (session_has(n) && (unacknowledged[n] > 0 || session_pending(n) > 0))
				session_drop(n, false);
}

void
calls_init(bool (*load)(const Model *model, int engine))
{
	load_model = load;
	session_listen(calls_take_frame, calls_lost);
	RegisterResourceReleaseCallback(release_calls, NULL);
}
