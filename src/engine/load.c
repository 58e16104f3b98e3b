/*
 * load.c
 *	  How a model becomes resident: a LOAD, from the client's first word to the
 *	  entry of the cache.
 *
 * Owned by the I/O thread, but for load_run on the loader and load_prepare_run
 * on the device thread. What a LOAD carries is its request's, a LoadWork; what
 * it made is the cache's from load_done on.
 *
 * A LOAD is checked before anything is streamed, keeps its stream until it is
 * over, and is packed on the loader in every precision that a request waits
 * for. LOADs are packed one after the other, in order of arrival.
 *
 * On a GPU, packing may find no room. The LOAD then keeps its stream and waits
 * at the head of the line, gives back what it had, and is packed again each
 * time something was freed. To that end plans for more than one image go first,
 * and then whole models, by the rules in room.c. It fails when nothing else is
 * resident; a model that could not fit in an empty GPU is refused before
 * anything is evicted for it.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define LOAD_MOST (SIZE_MAX / 16) /* bytes of a stream: its charge is a number, too */

typedef struct LoadWork
{
	BicycleLoad load;
	char *config_text;
	NnPrecision setting;   /* of the engine, when the task was handed over */
	NnPrecision automatic; /* of the device, likewise */
	char device_name[128];
	size_t limit;                      /* of the cache, likewise */
	bool asked[NN_PRECISION_BF16 + 1]; /* precisions waiters asked for, auto included */
	bool resident[PACKED_PRECISIONS];
	bool verified; /* config is the stream's, and both have the hash */
	NnConfig config;
	Packed *made[PACKED_PRECISIONS];
	EngineError errors[PACKED_PRECISIONS]; /* why one could not be made */
	bool no_room[PACKED_PRECISIONS];       /* because the device's own memory was short */
	EngineError device_failed;
	uint64_t freed; /* Engine.freed when it was tried */
} LoadWork;

static NnPrecision
precision_of(int slot)
{
	return (NnPrecision) (slot + (int) NN_PRECISION_FP32);
}

static void
load_work_free(void *arg)
{
	LoadWork *work = arg;

	free(work->config_text);
	free(work);
}

/* limit: of the cache. Any thread. */
static void
too_large(bool gpu, size_t bytes, size_t limit, EngineError *error)
{
	if (gpu)
	{
		error_set(error, "53200", "model does not fit in the GPU's memory");
		error_detail(error, "It takes %zu bytes or more, and the limit is %zu.", bytes, limit);
		error_hint(error, "Raise the setting \"bicycle.gpu_memory\", or use a GPU that has more.");
		return;
	}
	error_set(error, "53200", "model does not fit in the engine's memory");
	error_detail(error, "It takes %zu bytes, and the model cache has %zu.", bytes, limit);
	error_hint(error, "Raise the settings \"bicycle.cache_size\" and \"bicycle.engine_memory\".");
}

bool
load_check(Request *request, const BicycleLoad *load, EngineError *error)
{
	Engine *engine = request->engine;

	if (device_is_missing(engine))
	{
		*error = engine->device.error;
		return false;
	}
	/* on a GPU weights may take half of that; see load_precision */
	if ((engine->device.memory == 0 && load->stream_length > cache_limit(engine)) ||
		load->stream_length > LOAD_MOST)
	{
		too_large(false, load->stream_length, cache_limit(engine), error);
		return false;
	}
	return true;
}

/* A float, and what is packed of it, which is two where maps are small. */
#define WEIGHT_BYTES (3 * sizeof(float))

/*
 * No weight has less than 2 bytes of the stream. So however large networks the
 * configuration declares, a multiple of the stream is enough.
 */
size_t
load_bytes(const BicycleLoad *load, const uint8_t *text)
{
	const size_t stream = load->stream_length, weights = stream / 2;
	const unsigned generator = 1u << NN_NET_G, encoder = 1u << NN_NET_E;
	size_t n = weights;
	NnConfig config;
	NnParams params;
	NnError error;

	INVARIANT(stream <= LOAD_MOST);
	nn_config_default(&config);
	if (nn_config_parse(&config, (const char *) text, load->config_length, &error) == NN_OK &&
		nn_config_check(&config, &error) == NN_OK &&
		nn_params_of(&config,
					 config.metric != NN_METRIC_NONE   ? 1u << NN_NET_L
					 : config.net_e == NN_ENCODER_NONE ? generator
													   : generator | encoder,
					 &params, &error) == NN_OK)
	{
		n = params.total < weights ? params.total : weights;
		nn_params_free(&params);
	}
	return stream + n * WEIGHT_BYTES;
}

void
load_begin(Request *request, const BicycleLoad *load, const uint8_t *config)
{
	LoadWork *work = calloc(1, sizeof(*work));
	CacheEntry *entry = cache_entry(request->engine, load->hash);

	if (work != NULL)
	{
		request->work = work;
		request->work_free = load_work_free;
		work->config_text = malloc(load->config_length + 1);
	}
	if (work == NULL || work->config_text == NULL || entry == NULL)
	{
		if (entry != NULL)
			cache_drop_unused(entry);
		request_fail_memory(request, "a model");
		return;
	}
	work->load = *load;
	memcpy(work->config_text, config, load->config_length);

	cache_refer(request, entry);
	entry->loads++;
	entry->progress_ms = now_ms();
}

void
load_progress(Request *request)
{
	request->entry->progress_ms = now_ms();
}

static void
load_failed(LoadWork *work, int slot, NnStatus status, const NnError *error)
{
	error_from_nn(&work->errors[slot], error);
	work->no_room[slot] = status == NN_ENOMEM;
	if (status == NN_EDEVICE)
		work->device_failed = work->errors[slot];
}

static void
load_precision(const Engine *engine, LoadWork *work, int slot, const TensorStream *stream)
{
	NnPrecision precision = precision_of(slot);
	EngineError *failure = &work->errors[slot];
	NnError error = { 0 };
	NnStatus status;
	Packed *packed;
	size_t least;

	if (engine->device.nn == NULL)
	{
		*failure = engine->device.error;
		return;
	}
	if (!nn_device_supports(engine->device.nn, precision))
	{
		error_set(failure, "55000", "precision %s is not available on this device",
				  nn_precision_name(precision));
		error_detail(failure, "The device is %s.", work->device_name);
		error_hint(failure, "Use another precision: see the setting \"bicycle.precision\" and the "
							"model's configuration.");
		return;
	}
	least = nn_model_least_bytes(engine->device.nn, &work->config, precision, &error);
	if (least > work->limit)
	{
		too_large(true, least, work->limit, failure);
		return;
	}
	if ((packed = calloc(1, sizeof(*packed))) == NULL)
	{
		error_memory(failure, "a model");
		return;
	}
	executor_progress();
	status = nn_model_load(engine->device.nn, &work->config, precision, stream->tensors,
						   stream->ntensors, &packed->model, &error);
	if (status != NN_OK)
	{
		load_failed(work, slot, status, &error);
		free(packed);
		return;
	}
	packed->config = work->config;
	packed->precision = precision;
	packed->bytes = packed->least = nn_model_bytes(packed->model);
	packed->host = nn_model_host_bytes(packed->model);
	for (int network = 0; network < NN_NETWORKS; network++)
		packed->plans[network] = nn_model_batch_bytes(packed->model, (NnNetwork) network, 1, NULL);
	work->made[slot] = packed;
}

/* On the loader thread. */
static void
load_run(Request *request)
{
	LoadWork *work = request->work;
	TensorStream stream;
	bool wanted[PACKED_PRECISIONS] = { false };

	if (!stream_parse(request->body, request->body_size, &stream, &request->error))
		return;
	work->verified = work->verified || model_verify(&work->load, work->config_text, &work->config,
													&stream, &request->error);
	if (work->verified)
	{
		for (int asked = NN_PRECISION_AUTO; asked <= NN_PRECISION_BF16; asked++)
			if (work->asked[asked])
				wanted[cache_slot(cache_resolve_precision((NnPrecision) asked, work->setting,
														  &work->config, work->automatic))] = true;
		for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
			if (wanted[slot] && !work->resident[slot])
				load_precision(request->engine, work, slot, &stream);
	}
	stream_free(&stream);
}

/* On the device thread. What gets no plans goes, and holds nothing. */
static void
load_prepare_run(Request *request)
{
	LoadWork *work = request->work;

	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
	{
		Packed *packed = work->made[slot];
		NnError error = { 0 };
		NnStatus status;

		if (packed == NULL)
			continue;
		executor_progress();
		status = nn_model_prepare(packed->model, &error);
		packed->bytes = packed->least = nn_model_bytes(packed->model);
		packed->host = nn_model_host_bytes(packed->model);
		if (status == NN_OK)
			continue;
		load_failed(work, slot, status, &error);
		nn_model_free(packed->model);
		free(packed);
		work->made[slot] = NULL;
	}
}

static void
install(Engine *engine, CacheEntry *entry, LoadWork *work, int slot)
{
	Packed *packed = work->made[slot];

	work->made[slot] = NULL;
	if (packed->bytes > cache_limit(engine))
		too_large(engine->device.memory > 0, packed->bytes, cache_limit(engine),
				  &work->errors[slot]);
	if (packed->bytes > cache_limit(engine) ||
		entry->packed[slot] != NULL) /* another client was faster */
	{
		cache_discard(engine, packed);
		return;
	}
	cache_put(engine, entry, packed);
}

/* Waiters of `connection`, or if NULL all that need the precision of `slot`. */
static void
fail_waiters(CacheEntry *entry, const Connection *connection, int slot, const EngineError *error)
{
	list_foreach(node, &entry->waiters)
	{
		Request *request = list_member(Request, link, node);

		if (connection != NULL ? request->connection == connection
							   : cache_slot(cache_precision(request->engine,
															(NnPrecision) request->image.precision,
															&entry->config)) == slot)
			request_fail(request, error);
	}
}

/* If that was in vain (the model had to go at once) it may be asked again. */
static void
answered(CacheEntry *entry, const Connection *connection)
{
	list_foreach(node, &entry->waiters)
	{
		Request *request = list_member(Request, link, node);

		if (request->connection == connection)
			cache_unask(request);
	}
}

/* Whether a precision waits for room, and somebody for it. */
static bool
load_waits(const Request *request)
{
	const LoadWork *work = request->work;
	bool waits = false;

	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		waits |= work->no_room[slot];
	return waits && request->connection != NULL && request->engine->device.memory > 0;
}

/*
 * Errors for who waits for precisions that could not be made; the LOAD gets
 * one, too, if nothing of the model is here.
 */
static void
load_end(Engine *engine, Request *request)
{
	LoadWork *work = request->work;

	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
	{
		if (!error_is_set(&work->errors[slot]))
			continue;
		/*
		 * If the sender has gone, others are asked before this is said of room.
		 */
		if (request->connection != NULL || !work->no_room[slot])
			fail_waiters(request->entry, NULL, slot, &work->errors[slot]);
		if (!cache_is_resident(request->entry))
			request->error = work->errors[slot];
	}
	answered(request->entry, request->connection);
	engine->trim = true;
	if (request_back(request))
		request_reply(request, NULL, 0);
}

/* Nothing of the stream is to be used. */
static void
load_refuse(Engine *engine, Request *request)
{
	LoadWork *work = request->work;

	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		if (work->made[slot] != NULL)
			cache_discard(engine, work->made[slot]);
	log_error(LOG_WARNING, "a model could not be loaded", &request->error);
	if (request->connection != NULL)
		fail_waiters(request->entry, request->connection, 0, &request->error);
	request_back(request);
}

static void
load_done(Request *request)
{
	Engine *engine = request->engine;
	CacheEntry *entry = request->entry;
	LoadWork *work = request->work;

	engine->load = NULL;
	engine->preparing = false;
	cache_touch(engine, entry);
	if (!error_is_set(&request->error) &&
		!cache_admit(entry, request->database, work->load.model, work->load.version))
		error_memory(&request->error, "an entry of the model cache");
	if (error_is_set(&request->error))
	{
		load_refuse(engine, request);
		return;
	}
	entry->config = work->config;
	entry->configured = true;
	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		if (work->made[slot] != NULL)
			install(engine, entry, work, slot);
	if (error_is_set(&work->device_failed))
	{
		device_lost(engine, &work->device_failed);
		request_free(request); /* unanswered, as all that waits for it */
	}
	else if (load_waits(request))
		request_to_front(request, REQUEST_STREAMED);
	else
		load_end(engine, request);
}

static void
load_packed(Request *request)
{
	Engine *engine = request->engine;
	LoadWork *work = request->work;
	bool made = false;

	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		made |= work->made[slot] != NULL;
	if (!made || engine->device.memory == 0)
	{
		load_done(request);
		return;
	}
	engine->preparing = true;
	request->run = load_prepare_run;
	request->done = load_done;
	executor_submit(&engine->device_thread, &request->task, TASK_FIRST);
}

void
load_queue(Request *request)
{
	request_to(request, REQUEST_STREAMED);
	request->engine->again = true;
}

static void
start_load(Request *request)
{
	Engine *engine = request->engine;
	CacheEntry *entry = request->entry;
	LoadWork *work = request->work;

	work->setting = engine->settings.precision;
	work->automatic = engine->device.automatic;
	work->limit = cache_limit(engine);
	work->freed = engine->freed;
	memset(work->no_room, 0, sizeof(work->no_room));
	memset(work->errors, 0, sizeof(work->errors));
	memcpy(work->device_name, engine->device.name, sizeof(work->device_name));
	list_foreach(node, &entry->waiters)
		work->asked[list_member(Request, link, node)->image.precision] = true;
	/* Nobody waits, and nothing of it is here: it was sent to be here. */
	if (list_empty(&entry->waiters) && !cache_is_resident(entry))
		work->asked[NN_PRECISION_AUTO] = true;
	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		work->resident[slot] = entry->packed[slot] != NULL;
	engine->load = request;
	loader_add(request, load_run, load_packed);
}

/* From what is being freed, or from models that have not had their turn. */
static bool
room_comes(Engine *engine, const LoadWork *work)
{
	if (engine->freeing > 0)
		return true;
	return work->freed == engine->freed &&
		   (room_make(engine, NULL) || !list_empty(&engine->models));
}

/*
 * One at a time: no two hold a part of a GPU each and wait for the rest. It is
 * handed over in the same round, so that what it takes of the device's figures
 * is of the device that it is packed for.
 */
void
load_next(Engine *engine)
{
	while (!loader_rests(engine) && engine->load == NULL && !list_empty(&engine->loads))
	{
		Request *request = list_member(Request, link, engine->loads.next);
		LoadWork *work = request->work;

		if (load_waits(request) && room_comes(engine, work))
			return;
		if (!load_waits(request) || work->freed != engine->freed)
			start_load(request);
		else
			load_end(engine, request);
	}
}
