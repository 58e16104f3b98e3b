/*
 * budget.c
 *	  Counted memory. Nothing of a size that a client decides is allocated
 *	  before it was counted here.
 *
 * Three budgets:
 *	- the queue pool (setting queue_memory): bodies of image requests, from
 *	  RESERVE to the end of the reply. Places are given in order of arrival; a
 *	  connection that holds some gets more only as long as it leaves as much
 *	  free as it holds. So one alone may have half of the pool, two a third
 *	  each, and however many stop reading in the middle of a result, one that
 *	  comes later finds room (Choudhury and Hahne 1998, dynamic thresholds). I/O
 *	  thread only.
 *	- the engine's memory (three quarters of engine_memory): packed models with
 *	  their arenas, tensor streams and files on their way, and what started
 *	  requests hold between decoding and reply. Who asks for more than is free
 *	  waits in order of arrival, or makes room by evicting idle models. I/O
 *	  thread only. Of a model on a GPU only what lies on the host counts here,
 *	  the pinned buffers that images pass through.
 *	- the decoders' budget (the last quarter): what image_decode and
 *	  image_resize take while they run. Threads of the pool wait in it, under
 *	  its lock; each has its turn, and a decoder never asks twice, so it cannot
 *	  deadlock.
 *
 * engine_memory = 0 means half of the machine's memory, or of what the
 * container may have of it.
 *
 * A GPU's own memory is no budget of the engine: the device refuses what is
 * beyond its limit (setting gpu_memory) or what other processes have left of
 * the card, and then the cache makes room (cache.c).
 */
#include "engine/engine.h"

/* Takes the limits from the settings.  What is held already is kept. */
void
budget_limits(Engine *engine)
{
	size_t total = engine->settings.engine_memory > 0 ? (size_t) engine->settings.engine_memory
													  : machine_memory() / 2;

	engine->queue.limit = (size_t) engine->settings.queue_memory;
	engine->memory.limit = total - total / 4;

	pthread_mutex_lock(&engine->decoders.lock);
	engine->decoders.limit = total / 4;
	pthread_cond_broadcast(&engine->decoders.wake);
	pthread_mutex_unlock(&engine->decoders.lock);
}

/* Grants places to those who wait, oldest first. */
void
queue_admit(Engine *engine)
{
	QueuePool *pool = &engine->queue;

	list_foreach(node, &pool->waiting)
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
		pool->used += request->place;
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
	request->engine->queue.used -= request->place;
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
	Memory *memory = &engine->memory;

	if (bytes > memory->limit || memory->used > memory->limit - bytes)
	{
		if (bytes <= memory->limit && !cache_freeing(engine))
			cache_evict_one(engine, evict_wanted);
		return false;
	}
	memory->used += bytes;
	return true;
}

void
memory_release(Engine *engine, size_t bytes)
{
	engine->memory.used -= bytes;
	if (bytes > 0)
		memory_admit(engine);
}

/* Grants memory to models and files that wait, oldest first. */
void
memory_admit(Engine *engine)
{
	Memory *memory = &engine->memory;

	while (!list_empty(&memory->waiting))
	{
		Request *request = list_member(Request, link, memory->waiting.next);

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

/*
 * Waits for its turn and for the bytes; false if there never will be that many.
 */
bool
decode_take(DecodeBudget *budget, size_t bytes)
{
	bool fits;
	uint64_t ticket;

	pthread_mutex_lock(&budget->lock);
	ticket = budget->next_ticket++;
	while (budget->serving != ticket ||
		   (bytes <= budget->limit && budget->used > budget->limit - bytes))
	{
		executor_waits();
		pthread_cond_wait(&budget->wake, &budget->lock);
	}
	executor_progress();
	fits = bytes <= budget->limit;
	if (fits)
		budget->used += bytes;
	budget->serving++;
	pthread_cond_broadcast(&budget->wake);
	pthread_mutex_unlock(&budget->lock);
	return fits;
}

void
decode_release(DecodeBudget *budget, size_t bytes)
{
	pthread_mutex_lock(&budget->lock);
	budget->used -= bytes;
	pthread_cond_broadcast(&budget->wake);
	pthread_mutex_unlock(&budget->lock);
}

size_t
decode_used(DecodeBudget *budget)
{
	size_t used;

	pthread_mutex_lock(&budget->lock);
	used = budget->used;
	pthread_mutex_unlock(&budget->lock);
	return used;
}
