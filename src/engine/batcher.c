/*
 * batcher.c
 *	  What starts when, and what runs together.
 *
 * Everything but batch_run is called on the I/O thread. Two decisions are made
 * here:
 *
 * Which request starts (is decoded next). Requests that may start wait in their
 * connection's two lists, interactive and bulk; connections that have some
 * stand in a ring for each, and each turn takes one request of the next
 * connection. So a session with thousands of requests does not delay one with a
 * single one. Bulk starts when nothing interactive can, and on every
 * BULK_TURN-th turn. Only as many are started ahead of the device as fill two
 * batches: what has not started costs little memory and does not count as an
 * attempt when the engine dies. Light requests, which need no model (INFO,
 * PLOT), have a ring of their own: they do not wait for the device, nor do they
 * take the places of those that do, and only LIGHT_SHARE of them for each
 * thread of the pool are started, so that many plots delay a decoder by a few
 * of them and not by all.
 *
 * What the device runs. When it is free it takes the oldest decoded request and
 * all others for the same model and operation, up to max_batch. It never waits
 * for more to come: while it is busy the next batch forms by itself. Oldest
 * first is also what keeps models from starving each other; bulk requests count
 * as BULK_AGE places younger than they are.
 *
 * The plans of a batch take memory that stays with the model. A model may take
 * the ARENA_SHARE-th part of the cache for them, however large max_batch is: a
 * processor gains next to nothing from large batches, and loses much if the
 * models of two sessions do not fit beside each other. A GPU gains much, and
 * has memory of its own: there plans are made as they are wanted. If there is
 * no room for one, the batch comes back, what is idle goes (cache.c), and it
 * runs again; if nothing more may go, it is cut in halves, and for SMALL_MS the
 * model's batches are no larger than what did fit.
 *
 * A request is announced to its client (STARTED) before a thread gets it, and
 * only then: if the frame cannot be written at once the client does not read,
 * and the request goes back to its place. A request with the flag ALONE is
 * started when no other is between its start and its end and the loader is
 * idle, and while it runs nothing else starts, so that if it is the one that
 * kills the engine it takes no other with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

#define BULK_TURN 8
#define BULK_AGE 64
#define ARENA_SHARE 8
#define SMALL_MS 10000
#define LIGHT_SHARE 2

typedef struct Batch
{
	Engine *engine;
	Task task;
	Packed *model;
	BicycleFrameType type;
	size_t arenas;        /* bytes of the host's memory the model's plans may take */
	size_t arenas_shared; /* bytes they may take for more than one image */
	size_t model_bytes;   /* after the run, */
	size_t model_host;    /* of the host */
	bool make_room;       /* if the device's own memory is short, come back to make room first */
	bool short_of_room;   /* it has */
	int small;            /* images that did fit; 0: all */
	EngineError device_failed; /* requests from `done` on are not answered */
	int done;
	int n;
	Request *requests[]; /* NULL connection: withdrawn, runs along */
} Batch;

static int
class_of(const Request *request)
{
	if (!request_uses_model(request))
		return CLASS_LIGHT;
	return request->image.flags & BICYCLE_FLAG_BULK ? CLASS_BULK : CLASS_INTERACTIVE;
}

static void
enqueue(Request *request, bool front)
{
	Connection *connection = request->connection;
	int class = class_of(request);

	request->state = REQUEST_QUEUED;
	if (front)
		list_prepend(&connection->queued[class], &request->link);
	else
		list_append(&connection->queued[class], &request->link);
	if (list_empty(&connection->ring[class]) && !connection->jammed)
		list_append(&connection->engine->ring[class], &connection->ring[class]);
}

/* ---- Starting ------------------------------------------------------------ */

/* The next request of a class, with its model pinned; NULL if there is none. */
static Request *
pick(Engine *engine, int class)
{
	List *ring = &engine->ring[class];

	while (!list_empty(ring))
	{
		List *first = ring->next;
		Connection *connection = list_member(Connection, ring[class], first);
		Request *request;

		list_remove(first);
		if (connection->dead || connection->jammed || list_empty(&connection->queued[class]))
			continue;
		request = list_member(Request, link, connection->queued[class].next);
		list_remove(&request->link);
		if (!list_empty(&connection->queued[class]))
			list_append(ring, first);
		if (request->entry == NULL || cache_pin(request) != NULL)
			return request;
		cache_want(request); /* evicted meanwhile */
	}
	return NULL;
}

/* Not now: back to the front of its line. */
static void
request_put_back(Request *request)
{
	if (request->model != NULL)
		cache_unpin(request->engine, request->model);
	request->model = NULL;
	enqueue(request, true);
}

/*
 * What the request will hold besides its body: pixels in and out, and the
 * encoded result.
 */
static size_t
work_bytes(const Request *request)
{
	const NnConfig *config;

	if (request->model == NULL)
		return sizeof(BicycleImageInfo);
	config = &request->model->config;
	if (request->type == BICYCLE_ENCODE)
		return (size_t) config->encoder_size * (size_t) config->encoder_size *
				   (size_t) config->output_nc +
			   (size_t) config->nz * 2 * sizeof(float);
	return (size_t) config->size * (size_t) config->size *
			   (size_t) (config->input_nc + 2 * config->output_nc) +
		   65536;
}

/* False if it cannot start now; it is back in its line then. */
static bool
start(Request *request)
{
	Engine *engine = request->engine;
	size_t bytes = work_bytes(request);

	/*
	 * With nothing started one request may go beyond the budget: otherwise
	 * unread replies of one client could stop all others for good.
	 */
	if (!memory_take(engine, bytes, false))
	{
		if (engine->nstarted > 0)
		{
			request_put_back(request);
			return false;
		}
		budget_overdraw(&engine->memory, bytes);
	}
	request->charge += bytes;
	if (!connection_send_now(request->connection, BICYCLE_STARTED, request->id))
	{
		request->charge -= bytes;
		budget_give(&engine->memory, bytes);
		request_put_back(request);
		return true; /* another connection's may */
	}
	if (request->image.debug == 1)
		abort(); /* the user asked for it, and has been told that the request started */
	batcher_started(request);
	worker_decode(request);
	return true;
}

/* The request's model is there, or it needs none. */
void
batcher_add(Request *request)
{
	enqueue(request, false);
}

void
batcher_started(Request *request)
{
	request->started = true;
	request->engine->nstarted++;
}

void
batcher_ended(Request *request)
{
	Engine *engine = request->engine;

	if (request->started)
	{
		request->started = false;
		engine->nstarted--;
	}
	if (engine->alone == request)
		engine->alone = NULL;
}

/*
 * Starts the request that is to run alone, once all is quiet. True if it went
 * back to its line instead, because its client does not read: then others may
 * start.
 */
static bool
start_alone(Engine *engine)
{
	Request *request = engine->alone;

	if (request == NULL || engine->stopping || request->state != REQUEST_ALONE ||
		engine->nstarted > 0 || engine->loader.pending > 0 || engine->preparing ||
		engine->batch != NULL)
		return false;
	start(request);
	if (request->state == REQUEST_DECODING)
		return false;
	engine->alone = NULL;
	return true;
}

/*
 * Starts a request, or keeps all others from starting if it wants to be alone.
 * False if nothing more can start now.
 */
static bool
start_picked(Request *request)
{
	if ((request->image.flags & BICYCLE_FLAG_ALONE) == 0)
		return start(request);
	request->engine->alone = request;
	request->state = REQUEST_ALONE;
	return true;
}

static void
start_some(Engine *engine)
{
	unsigned limit = 2 * (unsigned) engine->settings.max_batch;

	while (engine->alone == NULL && engine->ahead < limit && !engine->stopping &&
		   !engine->device_change && !engine->device_busy)
	{
		int class = ++engine->ring_turn % BULK_TURN == 0 ? CLASS_BULK : CLASS_INTERACTIVE;
		Request *request = pick(engine, class);

		if (request == NULL)
			request = pick(engine, class == CLASS_BULK ? CLASS_INTERACTIVE : CLASS_BULK);
		if (request == NULL || !start_picked(request))
			break;
	}
}

static void
start_light(Engine *engine)
{
	unsigned limit = LIGHT_SHARE * (unsigned) settings_threads(&engine->settings);

	while (engine->alone == NULL && engine->light < limit && !engine->stopping)
	{
		Request *request = pick(engine, CLASS_LIGHT);

		if (request == NULL || !start_picked(request))
			break;
	}
}

/* ---- The loader ---------------------------------------------------------- */

static void
to_loader(Engine *engine, Request *request)
{
	if (!request->announced)
	{
		request->announced = true;
		connection_send(request->connection, BICYCLE_STARTED, request->id, NULL, 0, true, NULL);
		connection_flush(request->connection);
	}
	executor_submit(&engine->loader, &request->task, false);
}

/* Whether the loader is to be left alone now. */
static bool
loader_rests(const Engine *engine)
{
	return engine->alone != NULL || engine->device_change || engine->device_busy ||
		   engine->stopping;
}

/*
 * Hands a request whose task is set to the loader, or keeps it while a request
 * runs alone.
 */
void
batcher_loader(Engine *engine, Request *request)
{
	request->state = REQUEST_LOADING;
	if (loader_rests(engine))
		list_append(&engine->held, &request->link);
	else
		to_loader(engine, request);
}

/* ---- Batches ------------------------------------------------------------- */

/* A request is decoded: it takes its place among those for the device. */
void
batcher_ready(Request *request)
{
	Engine *engine = request->engine;
	List *after = engine->ready.prev;

	request->state = REQUEST_READY;
	request->sequence = engine->sequence++ + (class_of(request) == CLASS_BULK ? BULK_AGE : 0);
	engine->ahead++;
	while (after != &engine->ready &&
		   list_member(Request, link, after)->sequence > request->sequence)
		after = after->prev;
	list_insert_before(after->next, &request->link);
}

static bool
same_batch(const Request *a, const Request *b)
{
	return a->model == b->model && a->type == b->type;
}

static void batch_run(Task *task);
static void batch_done(Engine *engine, Task *task);

static void
start_batch(Engine *engine)
{
	Request *first;
	Batch *batch;
	size_t most = (size_t) engine->settings.max_batch;

	if (engine->batch != NULL || list_empty(&engine->ready))
		return;
	first = list_member(Request, link, engine->ready.next);
	batch = calloc(1, sizeof(*batch) + most * sizeof(Request *));
	if (batch == NULL)
	{
		error_memory(&first->error, "a batch");
		engine->ahead--;
		request_fail(first, &first->error);
		return;
	}
	batch->engine = engine;
	batch->task.run = batch_run;
	batch->task.done = batch_done;
	batch->model = first->model;
	batch->type = first->type;
	batch->make_room = engine->device_memory > 0;
	if (now_ms() < batch->model->small_until_ms && most > (size_t) batch->model->small)
		most = (size_t) batch->model->small;
	batch->arenas =
		batch->make_room ? batch->model->host : batch->model->bytes - batch->model->least;
	batch->arenas += budget_free(&engine->memory);
	batch->arenas_shared = cache_limit(engine) / ARENA_SHARE;
	if (batch->arenas_shared > batch->arenas || batch->make_room)
		batch->arenas_shared = batch->arenas;
	list_foreach(node, &engine->ready)
	{
		Request *request = list_member(Request, link, node);

		if (batch->n == (int) most)
			break;
		/*
		 * first itself is the first of the list, and stays valid when it is
		 * taken out
		 */
		if (!same_batch(first, request))
			continue;
		list_remove(&request->link);
		request->state = REQUEST_RUNNING;
		engine->ahead--;
		batch->requests[batch->n++] = request;
	}
	engine->batch = batch;
	executor_submit(&engine->device_thread, &batch->task, false);
}

/* Replaces the request's pixels by the network's output. */
static bool
keep_output(Request *request, const uint8_t *output, int side, int channels)
{
	size_t bytes = (size_t) side * (size_t) side * (size_t) channels;
	uint8_t *pixels = malloc(bytes);

	image_free(&request->pixels);
	if (pixels == NULL)
		return false;
	memcpy(pixels, output, bytes);
	request->pixels =
		(Image){ .width = side, .height = side, .channels = channels, .pixels = pixels };
	return true;
}

/*
 * n requests from the first on, in one call of the model. Fills their results,
 * or returns the error of all.
 */
static NnStatus
translate(Batch *batch, Request **requests, int n, NnError *error)
{
	const NnConfig *config = &batch->model->config;
	size_t pixels = (size_t) config->size * (size_t) config->size;
	size_t in = pixels * (size_t) config->input_nc;
	size_t out = pixels * (size_t) config->output_nc;
	size_t latent = (size_t) config->nz * sizeof(float);
	uint8_t *images = malloc((size_t) n * in);
	uint8_t *outputs = malloc((size_t) n * out);
	float *z = malloc((size_t) n * latent + sizeof(float));
	NnStatus status = NN_ENOMEM;

	error->code = NN_ENOMEM;
	strcpy(error->message, "out of memory");
	strcpy(error->detail, "The engine could not allocate memory for the images of a batch.");
	error->hint[0] = '\0';
	if (images != NULL && outputs != NULL && z != NULL)
	{
		for (int i = 0; i < n; i++)
		{
			memcpy(images + (size_t) i * in, requests[i]->pixels.pixels, in);
			memcpy((uint8_t *) z + (size_t) i * latent, requests[i]->latent, latent);
		}
		status = nn_model_translate(batch->model->model, n, images, z, outputs, error);
		for (int i = 0; i < n && status == NN_OK; i++)
			if (!keep_output(requests[i], outputs + (size_t) i * out, config->size,
							 config->output_nc))
				error_memory(&requests[i]->error, "an image");
	}
	free(images);
	free(outputs);
	free(z);
	return status;
}

static NnStatus
encode(Batch *batch, Request **requests, int n, NnError *error)
{
	const NnConfig *config = &batch->model->config;
	size_t in =
		(size_t) config->encoder_size * (size_t) config->encoder_size * (size_t) config->output_nc;
	size_t latent = (size_t) config->nz * sizeof(float);
	uint8_t *images = malloc((size_t) n * in);
	float *values =
		malloc(2 * (size_t) n * latent + sizeof(float)); /* (n, nz) of mu, then of logvar */
	NnStatus status = NN_ENOMEM;

	error->code = NN_ENOMEM;
	strcpy(error->message, "out of memory");
	strcpy(error->detail, "The engine could not allocate memory for the images of a batch.");
	error->hint[0] = '\0';
	if (images != NULL && values != NULL)
	{
		float *logvar = values + (size_t) n * (size_t) config->nz;

		for (int i = 0; i < n; i++)
			memcpy(images + (size_t) i * in, requests[i]->pixels.pixels, in);
		status = nn_model_encode(batch->model->model, n, images, values, logvar, error);
		for (int i = 0; i < n && status == NN_OK; i++)
		{
			requests[i]->result = malloc(2 * latent + 1);
			if (requests[i]->result == NULL)
			{
				error_memory(&requests[i]->error, "a latent code");
				continue;
			}
			requests[i]->result_length = 2 * latent;
			memcpy(requests[i]->result, values + (size_t) i * (size_t) config->nz, latent);
			memcpy(requests[i]->result + latent, logvar + (size_t) i * (size_t) config->nz, latent);
		}
	}
	free(images);
	free(values);
	return status;
}

/*
 * The most of n that fits in the batch's arenas; 0, with an error, if not even
 * one does.
 */
static int
fitting(Batch *batch, int n, NnError *error)
{
	NnNetwork network = batch->type == BICYCLE_ENCODE ? NN_NET_E : NN_NET_G;

	for (;;)
	{
		size_t bytes;

		error->code = NN_OK;
		bytes = nn_model_batch_bytes(batch->model->model, network, n, error);
		if (error->code != NN_OK && bytes == 0)
			return 0;
		if (bytes <= (n == 1 ? batch->arenas : batch->arenas_shared))
			return n;
		if (n == 1)
		{
			memset(error, 0, sizeof(*error));
			error->code = NN_ENOMEM;
			strcpy(error->message, "out of engine memory");
			snprintf(error->detail, sizeof(error->detail),
					 "The network takes %zu bytes for one image, and %zu are free.", bytes,
					 batch->arenas);
			strcpy(error->hint, "Raise the setting \"bicycle.engine_memory\".");
			return 0;
		}
		n = (n + 1) / 2;
	}
}

/*
 * Computes the next requests of the batch, as many as fit, and fills their
 * results or errors. Returns their number: 0 if room is to be made first, or if
 * the device has failed.
 */
static int
run_some(Batch *batch)
{
	Request **requests = batch->requests + batch->done;
	NnError error;
	int rest = batch->n - batch->done;
	int n = fitting(batch, batch->small > 0 && batch->small < rest ? batch->small : rest, &error);
	NnStatus status = error.code;

	while (n > 0)
	{
		status = batch->type == BICYCLE_ENCODE ? encode(batch, requests, n, &error)
											   : translate(batch, requests, n, &error);
		if (status == NN_ENOMEM && batch->make_room)
		{
			batch->short_of_room = true;
			return 0;
		}
		if (status != NN_ENOMEM || n == 1)
			break;
		batch->small = n = (n + 1) / 2; /* the budget is not all the memory there is */
	}
	if (status == NN_EDEVICE)
	{
		error_from_nn(&batch->device_failed, &error);
		return 0;
	}
	n = n > 0 ? n : 1;
	for (int i = 0; i < n && status != NN_OK; i++)
		error_from_nn(&requests[i]->error, &error);
	return n;
}

/* On the device thread. */
static void
batch_run(Task *task)
{
	Batch *batch = list_member(Batch, task, task);
	int n;

	for (int i = 0; i < batch->n; i++)
		while (batch->requests[i]->image.debug == 2)
			pause();

	do
	{
		executor_progress();
		n = run_some(batch);
		batch->done += n;
	} while (n > 0 && batch->done < batch->n);
	batch->model_bytes = nn_model_bytes(batch->model->model);
	batch->model_host = nn_model_host_bytes(batch->model->model);
}

/*
 * What was computed goes on; the rest, after a failure of the device, is
 * dropped without an answer.
 */
static void
batch_release(Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		Request *request = batch->requests[i];

		if (!request_back(request))
			continue;
		cache_unpin(batch->engine, request->model);
		request->model = NULL;
		if (i >= batch->done)
			request_free(request);
		else if (request->error.sqlstate[0] != '\0')
			request_fail(request, &request->error);
		else if (request->type == BICYCLE_ENCODE)
			request_reply(request, request->result, request->result_length);
		else
			worker_encode(request);
	}
}

static void
batch_done(Engine *engine, Task *task)
{
	Batch *batch = list_member(Batch, task, task);

	if (batch->short_of_room)
	{
		/*
		 * what goes is freed on the device thread before the batch runs there
		 * again
		 */
		batch->short_of_room = false;
		batch->make_room = cache_make_room(engine, batch->model);
		executor_submit(&engine->device_thread, &batch->task, false);
		return;
	}
	engine->batch = NULL;
	engine->batches++;
	engine->batched += (uint64_t) batch->n;
	if (batch->small > 0)
	{
		batch->model->small = batch->small;
		batch->model->small_until_ms = now_ms() + SMALL_MS;
	}
	cache_batch_done(engine, batch->model, batch->model_bytes, batch->model_host,
					 (unsigned) batch->n);
	batch_release(batch);
	if (batch->device_failed.sqlstate[0] != '\0')
		device_lost(engine, &batch->device_failed);
	free(batch);
}

/* ---- All of it ----------------------------------------------------------- */

void
batcher_run(Engine *engine)
{
	/*
	 * One that was just chosen to run alone is tried at once: no event would
	 * come for it if all is quiet already.
	 */
	do
	{
		start_some(engine);
		start_light(engine);
	} while (start_alone(engine));
	start_batch(engine);
	if (engine->device_change && !engine->device_busy && !engine->settings_busy &&
		!engine->trying && engine->nstarted == 0 && engine->loader.pending == 0 &&
		!engine->preparing && engine->freeing == 0)
		device_replace(engine);
	while (!loader_rests(engine) && !list_empty(&engine->held))
	{
		Request *request = list_member(Request, link, engine->held.next);

		list_remove(&request->link);
		to_loader(engine, request);
	}
}
