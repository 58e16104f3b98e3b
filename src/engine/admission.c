/*
 * admission.c
 *	  Who gets memory: places in the queue for image requests, the engine's
 *	  memory for streams.
 *
 * I/O thread only. Called in each round of settle, and when a request comes: a
 * client need not wait for a GRANT that it knows it gets.
 *
 * R1 Places in the queue are given in order of arrival.
 * R2 A connection that holds places gets more only as long as it leaves as much
 *    free as it holds. So one alone may have half of the queue, two a third
 *    each, and however many stop reading in the middle of a result, one that
 *    comes later finds room (Choudhury and Hahne 1998, dynamic thresholds).
 * R3 The engine's memory is given in order of arrival. Who asks for more than
 *    is free waits, and a model that may go is evicted meanwhile. What images
 *    ahead of the device lack is left to them (room.c, R7).
 * R4 What no emptying could ever make room for is refused.
 */
#include <stdlib.h>

#include "engine/engine.h"

void
budget_limits(Engine *engine)
{
	size_t total = engine->settings.engine_memory > 0
					   ? (size_t) engine->settings.engine_memory
					   : machine_memory() / 2 / (size_t) engine->settings.engines;

	budget_limit(&engine->queue, (size_t) engine->settings.queue_memory);
	budget_limit(&engine->memory, total - total / 4);
	decode_limit(&engine->decoders, total / 4);
}

/* The client may send; where it has nothing to send, work begins. */
static void
grant(Request *request)
{
	request_to(request, REQUEST_GRANTED);
	if (request_is_loading(request))
		request->entry->progress_ms = now_ms();
	if (request->body_size == 0)
	{
		request->kind->whole(request);
		return;
	}
	request->body = malloc(request->body_size);
	if (request->body == NULL)
	{
		request_fail_memory(request, "the body of a request");
		return;
	}
	connection_send(request->connection, BICYCLE_GRANT, request->id, NULL, 0, true, NULL);
}

void
admission_refuse_place(Request *request, uint64_t bytes)
{
	EngineError error;

	error_set(&error, "54000", "request is too large");
	error_detail(&error, "It takes %llu bytes, and all requests together may take %zu.",
				 (unsigned long long) bytes, request->engine->queue.limit);
	error_hint(&error, "Raise the setting \"bicycle.queue_memory\".");
	request_fail(request, &error);
}

static void
admit_to_queue(Engine *engine)
{
	Budget *queue = &engine->queue;

	list_foreach(node, &engine->queue_waiting)
	{
		Request *request = list_member(Request, link, node);
		Connection *connection = request->connection;

		if (request->place > queue->limit)
		{
			admission_refuse_place(request, request->place); /* the limit was lowered meanwhile */
			continue;
		}
		/* It waits for its own to be given back; who holds less may pass. */
		if (connection->place > 0 &&
			connection->place + 2 * request->place + queue->used > queue->limit)
			continue;
		if (!budget_take(queue, request->place))
			break;
		connection->place += request->place;
		grant(request);
	}
}

static void
refuse_memory(Request *request)
{
	EngineError error;

	error_engine_memory(&error,
						"The request takes %zu bytes, and all of them together may take %zu.",
						request->charge, request->engine->memory.limit);
	request_fail(request, &error);
}

static void
admit_to_memory(Engine *engine)
{
	while (!list_empty(&engine->memory_waiting))
	{
		Request *request = list_member(Request, link, engine->memory_waiting.next);

		if (request->charge > engine->memory.limit)
			refuse_memory(request);
		else if (room_take_beside(engine, request))
			grant(request);
		else
			break;
	}
}

void
admission_run(Engine *engine)
{
	if (engine->queue.changed)
	{
		engine->queue.changed = false;
		admit_to_queue(engine);
	}
	if (engine->memory.changed)
	{
		engine->memory.changed = false;
		admit_to_memory(engine);
	}
}
