/*
 * answers.c
 *	  What is asked about the engine: its state, and the models that it has.
 *
 * I/O thread only. Both are answered at once, from what is known.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

void
answer_status(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Engine *engine = connection->engine;
	BicycleStatus status;
	NnDeviceMemory gpu;

	memset(&status, 0, sizeof(status));
	status.pid = getpid();
	status.protocol = BICYCLE_PROTOCOL;
	snprintf(status.device, sizeof(status.device), "%s", engine->device.name);
	snprintf(status.precision, sizeof(status.precision), "%s",
			 nn_precision_name(cache_precision(engine, NN_PRECISION_AUTO, NULL)));
	status.uptime_ms = (uint64_t) (now_ms() - engine->started_ms);
	status.requests = engine->requests_done;
	status.batches = engine->computed;
	status.batched = engine->batched;
	status.queued = engine->nrequests;
	status.memory = engine->memory.used + engine->queue.used + decode_used(&engine->decoders);
	if (!engine->device.busy && engine->device.nn != NULL &&
		nn_device_memory(engine->device.nn, &gpu))
	{
		status.gpu_memory = gpu.used;
		status.gpu_memory_limit = gpu.limit;
	}
	connection_send(connection, BICYCLE_RESULT, frame->id, &status, sizeof(status), true, NULL);
}

static void
describe(const Packed *packed, uint32_t database, int64_t now, BicycleCached *cached)
{
	const CacheOwner *owner = cache_owner(packed->entry, database);

	memset(cached, 0, sizeof(*cached));
	memcpy(cached->hash, packed->entry->hash, sizeof(cached->hash));
	if (owner != NULL)
	{
		snprintf(cached->model, sizeof(cached->model), "%s", owner->model);
		cached->version = owner->version;
	}
	snprintf(cached->precision, sizeof(cached->precision), "%s",
			 nn_precision_name(packed->precision));
	cached->bytes = packed->bytes;
	cached->hits = packed->hits;
	cached->loaded_ms_ago = (uint64_t) (now - packed->loaded_ms);
	cached->used_ms_ago = (uint64_t) (now - packed->used_ms);
	cached->pins = packed->pins;
	cached->databases = packed->entry->nowners;
}

void
answer_cache(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Engine *engine = connection->engine;
	BicycleCached *all;
	EngineError error;
	size_t n = 0;

	list_foreach(node, &engine->models) n++;
	all = calloc(n + 1, sizeof(*all));
	if (all == NULL)
	{
		error_memory(&error, "an answer");
		connection_send_error(connection, frame->id, &error, NULL);
		return;
	}
	n = 0;
	list_foreach(node, &engine->models)
		describe(list_member(Packed, link, node), connection->database, now_ms(), &all[n++]);
	connection_send(connection, BICYCLE_RESULT, frame->id, all, n * sizeof(*all), true, NULL);
	free(all);
}
