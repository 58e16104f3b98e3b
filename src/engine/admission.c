/*
 * admission.c
 *	  Who gets memory: places in the queue for image requests, the engine's
 *	  memory for streams.
 *
 * I/O thread only. Looked at once a turn, and again when bytes came free in it.
 *
 * R1 Places in the queue are given in order of arrival.
 * R2 A connection that holds places gets more only as long as it leaves as much
 *    free as it holds. So one alone may have half of the queue, two a third
 *    each, and however many stop reading in the middle of a result, one that
 *    comes later finds room (Choudhury and Hahne 1998, dynamic thresholds).
 * R3 The engine's memory is given in order of arrival. Who asks for more than
 *    is free waits, and a model that may go is evicted meanwhile.
 * R4 What no emptying could ever make room for is refused.
 */
#include "engine/engine.h"

/* Takes the limits from the settings.  What is held already is kept. */
void
budget_limits(Engine *engine)
{
	size_t total = engine->settings.engine_memory > 0 ? (size_t) engine->settings.engine_memory
													  : machine_memory() / 2;

	budget_limit(&engine->queue, (size_t) engine->settings.queue_memory);
	budget_limit(&engine->memory, total - total / 4);
	decode_limit(&engine->decoders, total / 4);
}

/* Grants places to those who wait, oldest first. */
void
queue_admit(Engine *engine)
{
	Budget *pool = &engine->queue;

	list_foreach(node, &engine->queue_waiting)
	{
		Request *request = list_member(Request, link, node);
		Connection *connection = request->connection;
		EngineError error;

		if (request->place > pool->limit)
		{
			error_set(&error, "54000", "request is too large");
			error_detail(&error, "It takes %zu bytes, and all requests together may take %zu.",
						 request->place, pool->limit);
			error_hint(&error, "Raise the setting \"bicycle.queue_memory\".");
			list_remove(&request->link);
			request->place = 0;
			request_fail(request, &error);
			continue;
		}
		/*
		 * This connection waits for itself to give something back, or for
		 * others to; who holds less may pass it.
		 */
		if (connection->place > 0 &&
			connection->place + 2 * request->place + pool->used > pool->limit)
			continue;
		if (pool->used + request->place > pool->limit)
			break;
		list_remove(&request->link);
		budget_overdraw(pool, request->place); /* free, as was just seen */
		connection->place += request->place;
		request_grant(request);
	}
}

/* Gives the place of a granted request back. */
void
queue_release(Request *request)
{
	if (request->place == 0)
		return;
	budget_give(&request->engine->queue, request->place);
	if (request->connection != NULL)
		request->connection->place -= request->place;
	request->place = 0;
	queue_admit(request->engine);
}

/*
 * False if the bytes are not free. Then a model is being evicted, if there is
 * one that may go, so that a later try may succeed: one that nobody wants now,
 * or with evict_wanted also one that has requests but had its turn.
 */
bool
memory_take(Engine *engine, size_t bytes, bool evict_wanted)
{
	if (budget_take(&engine->memory, bytes))
		return true;
	if (bytes <= engine->memory.limit && !cache_freeing(engine))
		cache_evict_one(engine, evict_wanted);
	return false;
}

void
memory_release(Engine *engine, size_t bytes)
{
	budget_give(&engine->memory, bytes);
	if (bytes > 0)
		memory_admit(engine);
}

/* Grants memory to models and files that wait, oldest first. */
void
memory_admit(Engine *engine)
{
	Budget *memory = &engine->memory;

	while (!list_empty(&engine->memory_waiting))
	{
		Request *request = list_member(Request, link, engine->memory_waiting.next);

		if (request->charge > memory->limit)
		{
			EngineError error;

			error_set(&error, "53200", "out of engine memory");
			error_detail(&error,
						 "The request takes %zu bytes, and all of them together may take %zu.",
						 request->charge, memory->limit);
			error_hint(&error, "Raise the setting \"bicycle.engine_memory\".");
			list_remove(&request->link);
			request->charge = 0;
			request_fail(request, &error);
			continue;
		}
		if (!memory_take(engine, request->charge, true))
			break;
		list_remove(&request->link);
		request_grant(request);
	}
}
