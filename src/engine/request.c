/*
 * request.c
 *	  Requests and their states. Rules, states and an example are in request.h.
 *
 * I/O thread only.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"

#define MAX_REQUESTS 4096 /* open on one connection */
#define BULK_AGE 64       /* bulk requests count as so many places younger than they are */

/* ---- States -------------------------------------------------------------- */

#define TO(state) (1u << REQUEST_##state)
#define ENDS (TO(DONE) | TO(GONE))

static const unsigned next_states[REQUEST_STATES] = {
	[REQUEST_NEW] = TO(RESERVED) | TO(HELD) | ENDS,
	[REQUEST_RESERVED] = TO(GRANTED) | ENDS,
	[REQUEST_GRANTED] = TO(RECEIVING) | TO(STREAMED) | TO(HELD) | ENDS,
	[REQUEST_RECEIVING] = TO(WAITING) | TO(QUEUED) | ENDS,
	[REQUEST_WAITING] = TO(QUEUED) | ENDS,
	[REQUEST_QUEUED] = TO(WAITING) | TO(ALONE) | TO(DECODING) | ENDS,
	[REQUEST_ALONE] = TO(QUEUED) | TO(DECODING) | ENDS,
	[REQUEST_DECODING] = TO(SIZED) | TO(READY) | ENDS,
	[REQUEST_SIZED] = TO(DECODING) | ENDS,
	[REQUEST_READY] = TO(RUNNING) | ENDS,
	[REQUEST_RUNNING] = TO(ENCODING) | ENDS,
	[REQUEST_ENCODING] = ENDS,
	[REQUEST_STREAMED] = TO(HELD) | ENDS,
	[REQUEST_HELD] = TO(LOADING) | ENDS,
	[REQUEST_LOADING] = TO(RESERVED) | TO(STREAMED) | ENDS,
	[REQUEST_DONE] = TO(GONE),
	[REQUEST_GONE] = 0,
};

int
request_class(const Request *request)
{
	if (!request->kind->uses_model)
		return CLASS_LIGHT;
	return request_is_bulk(request) ? CLASS_BULK : CLASS_INTERACTIVE;
}

List *
request_list(const Request *request)
{
	Engine *engine = request->engine;

	switch (request->state)
	{
		case REQUEST_RESERVED:
			return request->kind->stream ? &engine->memory_waiting : &engine->queue_waiting;
		case REQUEST_WAITING:
			return &request->entry->waiters;
		case REQUEST_QUEUED:
			return &request->connection->queued[request_class(request)];
		case REQUEST_SIZED:
			return &engine->sized;
		case REQUEST_READY:
			return &engine->ready;
		case REQUEST_STREAMED:
			return &engine->loads;
		case REQUEST_HELD:
			return &engine->held;
		default:
			return NULL;
	}
}

static void
count_by(unsigned *counter, int by)
{
	INVARIANT(by > 0 || *counter > 0);
	*counter += (unsigned) by;
}

static void
count(const Request *request, int by)
{
	Engine *engine = request->engine;
	RequestState state = request->state;

	if (state < REQUEST_DONE)
		count_by(&engine->nrequests, by);
	if (request_is_started(request))
		count_by(&engine->nstarted, by);
	if (request_is_ahead(request))
		count_by(&engine->ahead[request_class(request)], by);
	if (request_is_light(request))
		count_by(&engine->light, by);
	if (request_is_packing(request))
		count_by(&request->entry->packing, by);
}

/* Requests for the device stand in order of their sequence. */
static List *
place_of(const Request *request, List *list, bool front)
{
	List *after = list->prev;

	if (front)
		return list->next;
	if (request->state != REQUEST_READY)
		return list;
	while (after != list && list_member(Request, link, after)->sequence > request->sequence)
		after = after->prev;
	return after->next;
}

static void
move(Request *request, RequestState state, bool front)
{
	Engine *engine = request->engine;
	bool held = request_holds(request);
	List *list;

	INVARIANT(next_states[request->state] & 1u << state);
	INVARIANT(list_empty(&request->link) == (request_list(request) == NULL));
	list_remove(&request->link);
	count(request, -1);
	request->state = state;
	count(request, 1);
	if (!held && state >= REQUEST_DONE)
		request->place = request->charge = 0; /* they were only wanted */
	if ((list = request_list(request)) != NULL)
		list_insert_before(place_of(request, list, front), &request->link);
	if (state == REQUEST_QUEUED)
		connection_join_ring(request->connection, request_class(request));
	if (state == REQUEST_ALONE)
	{
		INVARIANT(engine->alone == NULL);
		engine->alone = request;
	}
	else if (engine->alone == request && (state == REQUEST_QUEUED || state >= REQUEST_DONE))
	{
		engine->alone = NULL;
		engine->again = true;
	}
}

void
request_to(Request *request, RequestState state)
{
	move(request, state, false);
}

void
request_to_front(Request *request, RequestState state)
{
	move(request, state, true);
}

void
request_wait_memory(Request *request, uint64_t bytes, size_t charge)
{
	request->body_size = bytes;
	request->charge = charge;
	request->since_ms = now_ms();
	request_to(request, REQUEST_RESERVED);
	request->engine->memory.changed = true;
}

void
request_wait_model(Request *request)
{
	request_to(request, REQUEST_WAITING);
	cache_touch(request->engine, request->entry);
}

void
request_decoded(Request *request)
{
	INVARIANT(!request->kind->stream);
	request->plan = request->sizing.plan;
	if (sizing_wants(request) > 0)
	{
		/* Nothing of it is decoded yet, so what it was given is others'. */
		budget_give(&request->engine->memory, request->charge);
		request->charge = 0;
		request_to(request, REQUEST_SIZED);
		return;
	}
	request->sequence =
		request->engine->sequence++ + (request_class(request) == CLASS_BULK ? BULK_AGE : 0);
	request_to(request, REQUEST_READY);
}

bool
request_back(Request *request)
{
	if (request->connection == NULL)
		request_free(request);
	else if (error_is_set(&request->error))
		request_fail(request, &request->error);
	else
		return true;
	return false;
}

static void
work_run(Task *task)
{
	Request *request = list_member(Request, task, task);

	request->run(request);
}

static void
work_done(Engine *engine, Task *task)
{
	Request *request = list_member(Request, task, task);

	if (request_is_loading(request) || request_back(request))
		request->done(request);
}

void
request_work(Request *request, Executor *executor, RequestState state, void (*run)(Request *),
			 void (*done)(Request *), TaskRank rank)
{
	request_to(request, state);
	request->run = run;
	request->done = done;
	request->task.run = work_run;
	request->task.done = work_done;
	executor_submit(executor, &request->task, rank);
}

/* ---- Making, finding, freeing -------------------------------------------- */

static Request **
bucket(Connection *connection, uint64_t id)
{
	return &connection->ids[(id * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}

Request *
request_find(Connection *connection, uint64_t id)
{
	Request *request = *bucket(connection, id);

	while (request != NULL && request->id != id)
		request = request->id_next;
	return request;
}

Request *
request_new(Connection *connection, const BicycleFrame *frame, const FrameKind *kind)
{
	Request *request;
	EngineError error;

	if (frame->id == 0 || request_find(connection, frame->id) != NULL)
	{
		connection_protocol_error(
			connection, frame->id, "A request came under the id %llu, which is %s.",
			(unsigned long long) frame->id, frame->id == 0 ? "reserved" : "in use");
		return NULL;
	}
	if (connection->nrequests >= MAX_REQUESTS)
	{
		error_set(&error, "53400", "too many requests on one connection");
		error_detail(&error, "There are %d already.", MAX_REQUESTS);
		connection_send_error(connection, frame->id, &error, NULL);
		return NULL;
	}
	request = calloc(1, sizeof(*request));
	if (request == NULL)
	{
		error_memory(&error, "a request");
		connection_send_error(connection, frame->id, &error, NULL);
		return NULL;
	}
	request->engine = connection->engine;
	request->connection = connection;
	request->database = connection->database;
	request->id = frame->id;
	request->kind = kind;
	list_init(&request->link);
	list_init(&request->written);
	list_append(&connection->engine->requests, &request->listed);
	list_append(&connection->requests, &request->all);
	request->id_next = *bucket(connection, request->id);
	*bucket(connection, request->id) = request;
	connection->nrequests++;
	count(request, 1);
	return request;
}

void
request_drop_pixels(Request *request)
{
	if (request->piece == NULL)
	{
		image_free(&request->pixels);
		return;
	}
	slab_give(&request->engine->device.slabs, request->piece);
	request->piece = NULL;
	request->pixels = (Image){ 0 };
}

static void
detach(Request *request)
{
	Connection *connection = request->connection;
	Request **at = bucket(connection, request->id);

	while (*at != request)
		at = &(*at)->id_next;
	*at = request->id_next;
	list_remove(&request->all);
	INVARIANT(connection->nrequests > 0);
	connection->nrequests--;
	if (request_holds(request))
		count_give(&connection->place, request->place);
	request->connection = NULL;
}

/* Whatever the request still holds of models. */
static void
let_go(Request *request)
{
	if (request->model != NULL)
		cache_unpin(request->engine, request->model);
	request->model = NULL;
	cache_forget(request);
}

void
request_free(Request *request)
{
	Engine *engine = request->engine;

	INVARIANT(request->frames == 0);
	/* It leaves its state while it still has what that is counted in. */
	bool held = request_holds(request);
	size_t place = held ? request->place : 0;
	size_t charge = held ? request->charge : 0;

	if (held && request->connection != NULL)
		count_give(&request->connection->place, place);
	request->place = 0;
	request_to(request, REQUEST_GONE);
	if (request->connection != NULL)
		detach(request);
	let_go(request);
	list_remove(&request->listed);
	list_remove(&request->written);
	if (!request->kind->stream)
	{
		request_drop_pixels(request);
		free(request->result);
	}
	else if (request->work != NULL)
		request->work_free(request->work);
	free(request->body);
	budget_give(&engine->queue, place);
	budget_give(&engine->memory, charge);
	free(request);
}

/* Whether a thread has it, and will give it back. */
static bool
is_away(const Request *request)
{
	return request->state == REQUEST_DECODING || request->state == REQUEST_RUNNING ||
		   request->state == REQUEST_ENCODING || request->state == REQUEST_LOADING;
}

void
request_withdraw(Request *request)
{
	connection_unsend(request->connection, request->id);
	if (!is_away(request) && request->frames == 0)
		request_free(request);
	else
	{
		atomic_store_explicit(&request->unwanted, true, memory_order_relaxed);
		detach(request);
	}
}

void
request_withdraw_all(Connection *connection)
{
	while (!list_empty(&connection->requests))
		request_withdraw(list_member(Request, all, connection->requests.next));
}

void
request_free_written(Engine *engine)
{
	while (!list_empty(&engine->written))
	{
		Request *request = list_member(Request, written, engine->written.next);

		list_remove(&request->written);
		if (request->state == REQUEST_DONE)
			request_free(request);
	}
}

/* ---- Replies ------------------------------------------------------------- */

/*
 * Of an image only the answer stays, until it is read. That may be larger than
 * what it had: a plot's or a grid's, which the request's own bytes do not tell.
 */
static void
charge_answer(Request *request)
{
	Budget *memory = &request->engine->memory;
	size_t answer = request->result != NULL ? request->result_length : 0;

	budget_overdraw(memory, answer);
	budget_give(memory, request->charge);
	request->charge = answer;
}

static void
finish(Request *request)
{
	request_to(request, REQUEST_DONE);
	let_go(request);
	free(request->body);
	request->body = NULL;
	if (!request->kind->stream)
	{
		request->file = request->second = request->latent = NULL;
		request_drop_pixels(request);
		charge_answer(request);
	}
	request->engine->requests_done++;
}

/* A dead connection is not told; it frees its requests when it goes. */
void
request_fail(Request *request, const EngineError *error)
{
	EngineError copy = *error; /* may be the request's own */

	finish(request);
	connection_send_error(request->connection, request->id, &copy, request);
}

void
request_fail_memory(Request *request, const char *what)
{
	error_memory(&request->error, what);
	request_fail(request, &request->error);
}

void
request_reply(Request *request, const void *data, size_t length)
{
	finish(request);
	connection_send(request->connection, BICYCLE_RESULT, request->id, data, length, false, request);
}

void
request_reply_result(Request *request)
{
	INVARIANT(!request->kind->stream);
	request_reply(request, request->result, request->result_length);
}

void
request_reply_part(Request *request, BicycleFrameType type, const void *data, size_t length,
				   bool copy)
{
	const uint8_t *bytes = length > 0 ? data : (const uint8_t *) ""; /* an END has none */

	if (type == BICYCLE_RESULT)
		finish(request);
	do
	{
		size_t n = length < BICYCLE_MAX_FRAME ? length : BICYCLE_MAX_FRAME;

		if (!connection_send(request->connection, type, request->id, bytes, n, copy, request))
			return;
		bytes += n;
		length -= n;
	} while (length > 0);
}

void
connection_protocol_error(Connection *connection, uint64_t id, const char *detail, ...)
{
	EngineError error;
	char text[512];
	va_list args;

	if (connection->closing || connection->dead)
		return;
	va_start(args, detail);
	vsnprintf(text, sizeof(text), detail, args);
	va_end(args);
	error_set(&error, "08P01", "protocol violation between bicycle's client and its engine");
	error_detail(&error, "%s", text);
	log_write(LOG_WARNING, "process %d broke the protocol: %s", connection->pid, text);

	/* No more frames are to come, and those on their way are not worth it. */
	request_withdraw_all(connection);
	connection_send_error(connection, id, &error, NULL);
	connection_begin_closing(connection);
}

bool
request_check_model_size(const Engine *engine, uint64_t size, uint64_t session_limit,
						 EngineError *error)
{
	uint64_t limit = (uint64_t) engine->settings.max_model_size;

	if (session_limit > 0 && session_limit < limit)
		limit = session_limit;
	if (size <= limit)
		return true;
	error_set(error, "54000", "model is too large");
	error_detail(error, "It has %llu bytes, and at most %llu are allowed.",
				 (unsigned long long) size, (unsigned long long) limit);
	error_hint(error, "See the setting \"bicycle.max_model_size\".");
	return false;
}
