/*
 * batcher.c
 *	  What starts when, and what runs together.
 *
 * I/O thread only.
 *
 * Which request starts, which is to say, is decoded next:
 *
 * R1 Requests that may start wait in their connection's lines, one a class.
 *    Connections that have some stand in a ring for each class, and each turn
 *    of it takes one request of the next connection. So a session with
 *    thousands of requests does not delay one with a single one.
 * R2 Bulk starts when nothing interactive can, and on every BULK_TURN-th turn.
 * R3 Only as many of either class are started ahead of the device as fill two
 *    batches: what has not started costs little memory and does not count as an
 *    attempt when the engine dies.
 * R4 Light requests, which need no model (INFO, CHECK, PLOT, GRID), do not wait
 *    for the device, nor do they take the places of those that do. Only
 *    LIGHT_SHARE of them for each thread of the pool are started, so that many
 *    plots delay a decoder by a few of them and not by all. They do wait while
 *    the device is to be replaced, which needs silence (engine_device.c).
 * R5 A request is announced to its client (STARTED) before a thread gets it,
 *    and only then. If the frame cannot be written at once the client does not
 *    read, and the request stays in its line.
 * R6 Where the image tells the network's size, only its header is read at
 *    first. If it takes more memory than it was given it gives that back and
 *    waits (SIZED), in order of arrival, until all is free and a plan would
 *    find room besides; meanwhile nothing new starts, so what others give back
 *    is not taken by who came later. Nor does what starts afterwards take the
 *    room of that plan. With nothing else started one may overdraw.
 * R7 A request with the flag ALONE is started when no other is between its
 *    start and its end and the loader is idle, and while it runs nothing else
 *    starts. If it is the one that kills the engine it takes no other with it.
 *
 * What the device runs:
 *
 * R8 When it is free it takes the oldest decoded request and all others for the
 *    same model, operation and size, up to max_batch. It never waits for more
 *    to come: while it is busy the next batch forms by itself. Oldest first
 *    also keeps models from starving each other.
 *    A device that works beside us is given one more batch while one runs, so
 *    that it copies one while it computes the other, and does not wait for us
 *    between them; but not before that batch is as large, or requests would go
 *    one by one.
 *    An interactive request waits for what is running and for no
 *    more: bulk stands behind what came up to BULK_AGE later (request.c), and
 *    does not make an interactive one's batch larger. On the host, where a
 *    batch takes as long as it has images, SMALL_BULK of them after each
 *    interactive one have the BULK_PART-th of the images; elsewhere they are
 *    not given beside another batch.
 * R9 A model may take the ARENA_SHARE-th part of the cache for its plans,
 *    however large max_batch is: a processor gains next to nothing from large
 *    batches, and loses much if the models of two sessions do not fit beside
 *    each other. A GPU gains much, and has memory of its own: there plans are
 *    made as they are wanted.
 * R10 If a GPU has no room for a plan, the batch comes back, what is idle goes
 *     (room.c), and it runs again. If nothing more may go, it is cut, and for
 *     SMALL_MS the model's batches are no larger than what did fit.
 * R11 Plans for other sizes than a model's own, and what LPIPS has made of
 *     images, so that it is not made again for their next pair, are kept within
 *     the EXTENTS_SHARE-th part of the cache, those of all models together. On
 *     the host what a batch of another size may take is counted before it runs;
 *     if that is not free, idle models go first. So they do for the first plan
 *     of a model's own size, and both wait for what streams hold (room.c).
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define BULK_TURN 8
#define BULK_PART 4
#define SMALL_BULK 256
#define ARENA_SHARE 8
#define EXTENTS_SHARE 10
#define SMALL_MS 10000
#define LIGHT_SHARE 2

/* ---- Starting ------------------------------------------------------------ */

typedef enum Start
{
	START_DONE,      /* a thread has it */
	START_NO_MEMORY, /* it is back in its line, and so would be the next */
	START_DEAF       /* likewise, but another connection's may start */
} Start;

/* The next of a class, model pinned, at the head of its line yet; or NULL. */
static Request *
pick(Engine *engine, int class)
{
	List *ring = &engine->ring[class];

	while (!list_empty(ring))
	{
		List *first = ring->next;
		Connection *connection = list_member(Connection, ring[class], first);
		List *line = &connection->queued[class];
		Request *request;

		list_remove(first);
		if (connection->dead || connection->jammed || list_empty(line))
			continue;
		request = list_member(Request, link, line->next);
		if (line->next != line->prev)
			list_append(ring, first);
		if (request->entry == NULL || cache_pin(request) != NULL)
			return request;
		request_wait_model(request); /* evicted meanwhile */
	}
	return NULL;
}

/* Not now: it is at the front of its line. */
static void
request_put_back(Request *request)
{
	if (request->model != NULL)
		cache_unpin_unused(request->engine, request->model);
	request->model = NULL;
	if (request->state == REQUEST_ALONE)
		request_to_front(request, REQUEST_QUEUED);
	else
		connection_join_ring(request->connection, request_class(request));
}

static Start
start(Request *request)
{
	Engine *engine = request->engine;
	size_t bytes = sizing_own_work(request);
	size_t plan = request->model != NULL ? room_ahead(engine, false) : 0;

	/* With none started one may overdraw, or unread replies could stop all. */
	if (room_take(engine, bytes + plan, false))
		budget_give(&engine->memory, plan);
	else
	{
		if (engine->nstarted > 0)
		{
			request_put_back(request);
			return START_NO_MEMORY;
		}
		budget_overdraw(&engine->memory, bytes);
	}
	if (!connection_send_now(request->connection, BICYCLE_STARTED, request->id))
	{
		budget_give(&engine->memory, bytes);
		request_put_back(request);
		return START_DEAF;
	}
	request->charge += bytes;
	sizing_limits(request);
	if (request->image.debug == 1)
		abort(); /* the user asked for it, and has been told that the request started */
	INVARIANT(request->image.debug != 3); /* likewise */
	worker_decode(request);
	return START_DONE;
}

/* Those whose images take more memory, as it comes free. */
static void
start_sized(Engine *engine)
{
	unsigned waiting = 0;

	list_foreach(node, &engine->sized) waiting++;
	while (!list_empty(&engine->sized))
	{
		Request *request = list_member(Request, link, engine->sized.next);
		size_t bytes = sizing_wants(request), plan = room_ahead(engine, false);

		if (room_lacks(request) > plan)
			plan = room_lacks(request);
		if (room_take(engine, bytes + plan, false))
			budget_give(&engine->memory, plan);
		else if (room_is_freed(engine) || engine->nstarted > waiting ||
				 room_is_held(engine, request, bytes + plan))
			return;
		else
			budget_overdraw(&engine->memory, bytes);
		request->charge += bytes;
		waiting--;
		worker_decode(request);
	}
}

/* Once all is quiet. True if it went back to its line: others may start. */
static bool
start_alone(Engine *engine)
{
	Request *request = engine->alone;

	if (request == NULL || engine->stopping || request->state != REQUEST_ALONE ||
		engine->nstarted > 0 || engine->loader.pending > 0 || engine->preparing ||
		engine->nbatches > 0)
		return false;
	return start(request) != START_DONE;
}

/* False if nothing more can start now. */
static bool
start_picked(Request *request)
{
	if ((request->image.flags & BICYCLE_FLAG_ALONE) == 0)
		return start(request) != START_NO_MEMORY;
	request_to(request, REQUEST_ALONE);
	return true;
}

static Request *
pick_for_device(Engine *engine, int class)
{
	return engine->ahead[class] < 2 * (unsigned) engine->settings.max_batch ? pick(engine, class)
																			: NULL;
}

static void
start_some(Engine *engine)
{
	while (engine->alone == NULL && list_empty(&engine->sized) && !engine->stopping &&
		   !engine->device.change && !engine->device.busy)
	{
		int class = ++engine->ring_turn % BULK_TURN == 0 ? CLASS_BULK : CLASS_INTERACTIVE;
		Request *request = pick_for_device(engine, class);

		if (request == NULL)
			request = pick_for_device(engine, class == CLASS_BULK ? CLASS_INTERACTIVE : CLASS_BULK);
		if (request == NULL || !start_picked(request))
			break;
	}
}

static void
start_light(Engine *engine)
{
	unsigned limit = LIGHT_SHARE * (unsigned) settings_threads(&engine->settings);

	while (engine->alone == NULL && engine->light < limit && !engine->stopping &&
		   !engine->device.change)
	{
		Request *request = pick(engine, CLASS_LIGHT);

		if (request == NULL || !start_picked(request))
			break;
	}
}

/* ---- Batches ------------------------------------------------------------- */

static bool
same_batch(const Request *a, const Request *b)
{
	return a->model == b->model && a->kind == b->kind && a->sizing.extent.h == b->sizing.extent.h &&
		   a->sizing.extent.w == b->sizing.extent.w;
}

static void
batch_free(Batch *batch)
{
	free(batch->images);
	free(batch->codes);
	free(batch);
}

/* After a failure of the device the rest goes without an answer. */
static void
batch_release(Engine *engine, Batch *batch)
{
	int done = engine->device.lost ? 0 : batch->done;

	for (int i = 0; i < batch->n; i++)
	{
		Request *request = batch->requests[i];
		Packed *model = request->model;

		request->model = NULL;
		cache_unpin(engine, model);
		if (i >= done)
			request_free(request);
		else if (request_back(request))
			request->kind->computed(request);
	}
}

static void
batch_done(Engine *engine, Task *task)
{
	Batch *batch = list_member(Batch, task, task);
	Packed *model = batch->model;

	if (batch->short_of_room)
	{
		/* It is freed on the device thread before the batch runs again. */
		batch->short_of_room = false;
		batch->make_room = room_make(engine, model);
		executor_submit(&engine->device_thread, &batch->task, TASK_SECOND);
		return;
	}
	list_remove(&batch->link);
	engine->nbatches--;
	engine->computed++;
	engine->batched += (uint64_t) batch->n;
	if (batch->small > 0)
	{
		model->small = batch->small;
		model->small_until_ms = now_ms() + SMALL_MS;
	}
	budget_give(&engine->memory, batch->reserved);
	cache_resize(engine, model, batch->model_bytes, batch->model_host);
	model->extents = batch->model_extents;
	model->batches++;
	model->hits += (unsigned) batch->n;
	engine->trim = true;
	batch_release(engine, batch);
	if (error_is_set(&batch->device_failed))
		device_lost(engine, &batch->device_failed);
	batch_free(batch);
}

static void
limit_arenas(const Engine *engine, Batch *batch)
{
	const Packed *model = batch->model;

	batch->make_room = engine->device.memory > 0;
	batch->arenas = batch->make_room ? model->host : model->bytes - model->least;
	batch->arenas += budget_free(&engine->memory);
	batch->arenas_shared = cache_limit(engine) / ARENA_SHARE;
	if (batch->arenas_shared > batch->arenas || batch->make_room)
		batch->arenas_shared = batch->arenas;
}

/* Of plans for other sizes; `most` for one model. */
static size_t
extents_limit(const Engine *engine, const Packed *model)
{
	size_t limit = cache_limit(engine) / EXTENTS_SHARE, others = 0;

	list_foreach(node, &engine->models)
	{
		const Packed *packed = list_member(Packed, link, node);

		others += packed != model ? packed->extents : 0;
	}
	return limit > others ? limit - others : 0;
}

/* Plans of another size: what is free, but no more than may be of use. */
static void
reserve_arenas(Engine *engine, Batch *batch, size_t plan)
{
	size_t useful = cache_limit(engine) / EXTENTS_SHARE;
	size_t most = budget_free(&engine->memory);

	batch->other = true;
	if (engine->device.memory > 0)
		return;
	useful = useful > plan ? useful : plan;
	batch->reserved = useful < most ? useful : most;
	budget_overdraw(&engine->memory, batch->reserved);
	batch->arenas = batch->reserved;
	batch->arenas_shared = cache_limit(engine) / EXTENTS_SHARE;
	if (batch->arenas_shared > batch->arenas)
		batch->arenas_shared = batch->arenas;
}

/* Whether memory for its plan, which is not free, comes free if it waits. */
static bool
room_is_coming(Engine *engine, Request *request)
{
	return room_is_freed(engine) || room_evict_idle(engine) ||
		   room_is_held(engine, request, room_lacks(request));
}

/*
 * Who leads the next batch; NULL: who waits for room. Who lacks it lets others
 * go first: they may be all that keeps a model that is to go.
 */
static Request *
leader(Engine *engine)
{
	Request *oldest = list_member(Request, link, engine->ready.next);

	if (engine->nbatches > 0 || room_lacks(oldest) <= budget_free(&engine->memory))
		return oldest;
	if (room_is_coming(engine, oldest))
		return NULL;
	if (room_may_wait(oldest))
		list_foreach(node, &engine->ready)
		{
			Request *request = list_member(Request, link, node);

			if (room_lacks(request) <= budget_free(&engine->memory))
				return request;
		}
	return oldest;
}

/* Whether it runs in a batch that `first` leads. */
static bool
goes_with(const Request *first, const Request *request)
{
	return same_batch(first, request) && (request_is_bulk(first) || !request_is_bulk(request));
}

/* Most images of a batch. */
static int
most_of(const Engine *engine, const Request *first)
{
	int most = (int) engine->settings.max_batch;

	if (request_is_bulk(first) && engine->device.memory == 0 && engine->small_bulk > 0)
		most = most < BULK_PART ? 1 : most / BULK_PART;
	if (now_ms() < first->model->small_until_ms && most > first->model->small)
		most = first->model->small;
	return most;
}

/* How many wait that go with `first`; at most `most` are counted. */
static int
waiting_with(const Engine *engine, const Request *first, int most)
{
	int n = 0;

	list_foreach(node, &engine->ready)
	{
		if (n == most)
			break;
		n += goes_with(first, list_member(Request, link, node));
	}
	return n;
}

/*
 * Of how many images the next batch is, which `first` leads; 0: it is not its
 * time.
 */
static int
next_size(const Engine *engine, const Request *first)
{
	int most = most_of(engine, first), n = waiting_with(engine, first, most), running;

	if (engine->nbatches == 0)
		return n;
	if (engine->nbatches >= engine->device.batches ||
		(request_is_bulk(first) && engine->small_bulk > 0))
		return 0;
	running = list_member(Batch, link, engine->batches.prev)->n;
	return n < (running < most ? running : most) ? 0 : n;
}

/* Numbers an image that a batch has besides its pixels. */
static size_t
numbers_of(const Request *request)
{
	const NnConfig *config = &request->model->config;

	return request->kind->network == NN_NET_L ? 1 + 2 * (size_t) nn_metric_features(config)
											  : 2 * (size_t) config->nz;
}

static Batch *
batch_new(const Request *first, int n)
{
	Batch *batch = calloc(1, sizeof(*batch) + (size_t) n * sizeof(Request *));
	size_t codes = (size_t) n * numbers_of(first);

	if (batch == NULL)
		return NULL;
	batch->images = calloc((size_t) n, sizeof(uint8_t *));
	batch->codes = calloc(codes + 1, sizeof(float));
	if (batch->images != NULL && batch->codes != NULL)
		return batch;
	batch_free(batch);
	return NULL;
}

static void
batch_add(Batch *batch, Request *request)
{
	size_t nz = (size_t) batch->model->config.nz;
	int i = batch->n++;

	request_to(request, REQUEST_RUNNING);
	batch->requests[i] = request;
	batch->images[i] = request->pixels.pixels;
	if (batch->kind->network == NN_NET_G && nz > 0)
		memcpy(batch->codes + (size_t) i * nz, request->latent, nz * sizeof(float));
}

/* False: none can be started now. */
static bool
start_batch(Engine *engine)
{
	Request *first;
	Batch *batch;
	int n;

	if (list_empty(&engine->ready))
		return false;
	first = leader(engine);
	n = first != NULL ? next_size(engine, first) : 0;
	if (n == 0)
		return false;
	batch = batch_new(first, n);
	if (batch == NULL)
	{
		request_fail_memory(first, "a batch");
		return true; /* for those behind it */
	}
	batch->task.run = batch_run;
	batch->task.step = batch_step;
	batch->task.done = batch_done;
	batch->model = first->model;
	batch->kind = first->kind;
	batch->extent = first->sizing.extent;
	batch->keep = extents_limit(engine, batch->model);
	limit_arenas(engine, batch);
	if (first->sizing.other)
		reserve_arenas(engine, batch, first->sizing.plan);
	if (!request_is_bulk(first))
		engine->small_bulk = SMALL_BULK;
	else if (engine->small_bulk > 0)
		engine->small_bulk--;
	list_foreach(node, &engine->ready)
	{
		Request *request = list_member(Request, link, node);

		if (batch->n == n)
			break;
		/* `first` stays valid when it is taken out. */
		if (goes_with(first, request))
			batch_add(batch, request);
	}
	list_append(&engine->batches, &batch->link);
	engine->nbatches++;
	executor_submit(&engine->device_thread, &batch->task, TASK_SECOND);
	return true;
}

void
batcher_run(Engine *engine)
{
	/* If all is quiet no event comes for one just chosen to run alone. */
	do
	{
		start_sized(engine);
		start_some(engine);
		start_light(engine);
	} while (start_alone(engine));
	while (start_batch(engine))
		;
}
