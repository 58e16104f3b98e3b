/*
 * room.c
 *	  Which models go to make room, and when.
 *
 * I/O thread only.
 *
 * R1 Eviction is by last use.
 * R2 A model that still has requests waiting to start on it is evicted only
 *    after it has run a batch, so that two models that do not fit beside each
 *    other take turns instead of evicting each other for nothing. Whose turn
 *    has not come for TURN_MS, because its clients do not read, goes all the
 *    same.
 * R3 On a GPU a model becomes resident together with its plans for one image,
 *    or not at all. So a resident model can always run, none waits for memory
 *    while it holds some, and only two things ever fall short: a LOAD (load.c)
 *    and a larger batch (batcher.c).
 * R4 For a larger batch only what was idle for IDLE_MS goes, plans for more
 *    than one image first, which are made anew in no time. Then the batch is
 *    made smaller, and for a while no larger one is tried.
 *
 * R5 Memory of the host that a GPU has pinned for images is kept for the next
 *    ones, a PINNED_SHARE-th part of the engine's at most and no more than is
 *    free. It is counted as it comes and goes, once a turn. What lies idle goes
 *    when others wait for memory.
 * R6 There, models go for the host's memory only where what all of them have of
 *    it would do: they have little, and who lacks more waits for others anyway.
 * R7 On the host a plan is made when a batch runs, long after memory was given
 *    to others. So a stream is given what leaves free the largest that anybody
 *    ahead of the device lacks, if that is possible at all, and a request that
 *    lacks memory for its plan waits while streams hold it, or images that are
 *    written. Neither waits for longer than TURN_MS: a client may stop in the
 *    middle of its stream.
 *
 * A GPU has memory of its own. There weights and plans lie, and count against
 * its limit (setting gpu_memory, or most of the card), which then is the limit
 * of the cache: cache_size is for models in the host's memory. What fits only
 * the device knows, since other processes may hold memory of the card, so it is
 * tried. R3 holds for the encoder too, asked for or not: of the official
 * defaults its plan takes some 14 MB beside 150, and 40 ms of a load; without
 * it a resident model would have an operation that finds no room.
 */
#include "engine/engine.h"

#define TURN_MS 10000
#define IDLE_MS 1000
#define PINNED_SHARE 8 /* of the engine's memory, at most */

/* One that nobody wants, else, if wanted_too, one that had its turn. */
static Packed *
victim(Engine *engine, bool wanted_too)
{
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (packed->pins == 0 && packed->entry->requests == 0)
			return packed;
	}
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (wanted_too && (packed->batches > 0 || now_ms() - packed->loaded_ms > TURN_MS))
			return packed;
	}
	return NULL;
}

/* Its memory comes back a little later. */
static bool
evict_one(Engine *engine, bool wanted_too)
{
	Packed *packed = victim(engine, wanted_too);

	if (packed != NULL)
		cache_take_out(engine, packed);
	return packed != NULL;
}

/* R6. */
static bool
models_would_do(const Engine *engine, size_t lacking)
{
	size_t host = 0;

	if (engine->device.memory == 0)
		return true;
	list_foreach(node, &engine->models) host += list_member(Packed, link, node)->host;
	return host >= lacking;
}

bool
room_take(Engine *engine, size_t bytes, bool wanted_too)
{
	if (budget_take(&engine->memory, bytes))
		return true;
	if (bytes <= engine->memory.limit && engine->freeing == 0 &&
		models_would_do(engine, bytes - budget_free(&engine->memory)))
		evict_one(engine, wanted_too);
	return false;
}

/* An evicted model may be pinned by requests that wait for the device. */
bool
room_is_freed(const Engine *engine)
{
	return engine->freeing > 0 && engine->device_thread.pending > 0;
}

size_t
room_lacks(const Request *request)
{
	size_t has = request->model->bytes - request->model->least;

	if (request->engine->device.memory > 0 || request->plan < has)
		return 0;
	return request->plan - has;
}

size_t
room_ahead(const Engine *engine, bool sized)
{
	size_t most = 0;

	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);
		size_t lacks;

		if (!request_is_ahead(request) || (request->state == REQUEST_SIZED && !sized))
			continue;
		lacks = room_lacks(request);
		if (request->state == REQUEST_SIZED)
			lacks += sizing_wants(request);
		most = lacks > most ? lacks : most;
	}
	return most;
}

/*
 * What streams hold, and images that only have to be written. What rests gives
 * nothing back, nor does what waits for its client to read.
 */
static size_t
held_by_others(const Engine *engine)
{
	bool rests = loader_rests(engine);
	size_t held = 0;

	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);

		if (request->kind->stream
				? !rests && request_holds(request) && request->state < REQUEST_DONE
				: request->state == REQUEST_ENCODING)
			held += request->charge;
	}
	return held;
}

bool
room_may_wait(Request *request)
{
	if (request->since_ms == 0)
		request->since_ms = now_ms();
	return now_ms() - request->since_ms < TURN_MS;
}

bool
room_is_held(const Engine *engine, Request *request, size_t bytes)
{
	INVARIANT(bytes > budget_free(&engine->memory));
	if (!list_empty(&engine->written))
		return true; /* they go in this turn */
	return room_may_wait(request) && bytes - budget_free(&engine->memory) <= held_by_others(engine);
}

bool
room_take_beside(Engine *engine, const Request *stream)
{
	size_t plan = room_ahead(engine, true);
	bool fits = stream->charge <= budget_free(&engine->memory);

	if (plan > engine->memory.limit - stream->charge || now_ms() - stream->since_ms >= TURN_MS)
		plan = 0;
	if (!room_take(engine, stream->charge + plan, !fits))
		return false;
	budget_give(&engine->memory, plan);
	return true;
}

bool
room_evict_idle(Engine *engine)
{
	return evict_one(engine, false);
}

static bool
is_idle(const Packed *packed)
{
	return packed->pins == 0 && packed->entry->requests == 0 &&
		   now_ms() - packed->used_ms >= IDLE_MS;
}

static bool
can_shrink(const Packed *packed)
{
	return packed->bytes > packed->least && !packed->shrinking;
}

bool
room_make(Engine *engine, const Packed *growing)
{
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (packed == growing || !can_shrink(packed) || (growing != NULL && !is_idle(packed)))
			continue;
		cache_shrink(engine, packed, IDLE_MS);
		return true;
	}
	if (growing == NULL)
		return evict_one(engine, true);
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (packed == growing || !is_idle(packed))
			continue;
		cache_take_out(engine, packed);
		return true;
	}
	return false;
}

/* The last model stays; on a GPU its plans may go. */
void
room_run(Engine *engine)
{
	Packed *last;

	if (!engine->trim)
		return;
	engine->trim = false;
	while (engine->cached.used > cache_limit(engine) &&
		   engine->models.next != engine->models.prev && evict_one(engine, true))
		;
	if (engine->device.memory == 0 || engine->cached.used <= engine->device.memory ||
		list_empty(&engine->models))
		return;
	last = list_member(Packed, link, engine->models.prev);
	if (can_shrink(last))
		cache_shrink(engine, last, IDLE_MS);
}

/* A request's own piece is in its charge. */
void
room_pinned(Engine *engine)
{
	Budget *memory = &engine->memory;
	size_t idle;
	size_t spare =
		slab_limit(&engine->device.slabs, memory->limit / PINNED_SHARE, budget_free(memory), &idle);

	if (spare < engine->pinned)
		budget_give(memory, engine->pinned - spare);
	else
		budget_overdraw(memory, spare - engine->pinned);
	engine->pinned = spare;
	if (idle > 0 && (memory->used > memory->limit || !list_empty(&engine->memory_waiting) ||
					 !list_empty(&engine->sized)))
		device_trim(engine);
}

void
room_limit_changed(Engine *engine)
{
	engine->freed++;
	engine->trim = true;
	list_foreach(node, &engine->models) list_member(Packed, link, node)->small_until_ms = 0;
}

void
room_clear(Engine *engine)
{
	while (!list_empty(&engine->models))
		cache_take_out(engine, list_member(Packed, link, engine->models.next));
}
