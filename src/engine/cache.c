/*
 * cache.c
 *	  What is known of models: entries, owners, pins, and what is counted of
 *	  them.
 *
 * Owned by the I/O thread, but for shrink_run and free_run on the device
 * thread.
 *
 * R1 An entry stands for a content hash. It holds packed models of up to three
 *    precisions, the databases that have shown the content, and the requests
 *    that wait. It lives while a request refers to it or anything of it is
 *    resident.
 * R2 A request may use a packed model if its database has streamed that content
 *    once while it is in the cache. A database uses only what it has shown.
 * R3 Requests that were started pin their model. An evicted model takes no new
 *    ones; it is freed on the device thread when its last pin is gone.
 * R4 A model's bytes on the host are counted in Engine.memory from cache_put or
 *    cache_discard until they are free; those in the memory that the device
 *    computes in are counted in Engine.cached while it is resident. So the
 *    cache may be larger than cache_size for a moment; the engine's memory
 *    limit is kept by the LOAD having waited for its bytes beforehand.
 * R5 Nothing is decided here. What may matter to others is marked: an entry is
 *    dirty, the cache is to be trimmed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

/* Three: fp32, bf16, and fp16 where a GPU has no bf16. */
int
cache_slot(NnPrecision precision)
{
	return (int) precision - (int) NN_PRECISION_FP32;
}

/* Asked for, else the setting, else the model's, else the device's. */
NnPrecision
cache_resolve_precision(NnPrecision asked, NnPrecision setting, const NnConfig *config,
						NnPrecision automatic)
{
	if (config != NULL && config->metric != NN_METRIC_NONE)
		return NN_PRECISION_FP32; /* numbers are to be compared */
	if (asked != NN_PRECISION_AUTO)
		return asked;
	if (setting != NN_PRECISION_AUTO)
		return setting;
	if (config != NULL && config->precision != NN_PRECISION_AUTO)
		return config->precision;
	return automatic;
}

NnPrecision
cache_precision(const Engine *engine, NnPrecision asked, const NnConfig *config)
{
	return cache_resolve_precision(asked, engine->settings.precision, config,
								   engine->device.automatic);
}

size_t
cache_limit(const Engine *engine)
{
	if (engine->device.memory > 0)
		return engine->device.memory;
	if (engine->settings.cache_size > 0 &&
		(size_t) engine->settings.cache_size < engine->memory.limit)
		return (size_t) engine->settings.cache_size;
	return engine->settings.cache_size > 0 ? engine->memory.limit : engine->memory.limit / 3 * 2;
}

/* ---- Entries ------------------------------------------------------------- */

static CacheEntry *
entry_find(Engine *engine, const uint8_t *hash)
{
	list_foreach(node, &engine->entries)
	{
		CacheEntry *entry = list_member(CacheEntry, link, node);

		if (memcmp(entry->hash, hash, BICYCLE_HASH_BYTES) == 0)
			return entry;
	}
	return NULL;
}

CacheEntry *
cache_entry(Engine *engine, const uint8_t *hash)
{
	CacheEntry *entry = entry_find(engine, hash);

	if (entry != NULL || (entry = calloc(1, sizeof(*entry))) == NULL)
		return entry;
	memcpy(entry->hash, hash, BICYCLE_HASH_BYTES);
	list_init(&entry->waiters);
	list_append(&engine->entries, &entry->link);
	return entry;
}

bool
cache_is_resident(const CacheEntry *entry)
{
	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		if (entry->packed[slot] != NULL)
			return true;
	return false;
}

void
cache_drop_unused(CacheEntry *entry)
{
	if (entry->requests > 0 || cache_is_resident(entry))
		return;
	INVARIANT(list_empty(&entry->waiters) && entry->loads == 0 && entry->asked == 0);
	list_remove(&entry->link);
	free(entry->owners);
	free(entry);
}

void
cache_touch(Engine *engine, CacheEntry *entry)
{
	entry->dirty = true;
	engine->again = true;
}

CacheOwner *
cache_owner(const CacheEntry *entry, uint32_t database)
{
	for (unsigned i = 0; i < entry->nowners; i++)
		if (entry->owners[i].database == database)
			return &entry->owners[i];
	return NULL;
}

bool
cache_admit(CacheEntry *entry, uint32_t database, const char *model, int32_t version)
{
	CacheOwner *owner = cache_owner(entry, database);

	if (owner == NULL)
	{
		CacheOwner *owners = realloc(entry->owners, (entry->nowners + 1) * sizeof(CacheOwner));

		if (owners == NULL)
			return false;
		entry->owners = owners;
		owner = &owners[entry->nowners++];
	}
	owner->database = database;
	owner->version = version;
	snprintf(owner->model, sizeof(owner->model), "%s", model);
	return true;
}

/* ---- Requests ------------------------------------------------------------ */

Packed *
cache_usable(const Request *request)
{
	const CacheEntry *entry = request->entry;

	if (!entry->configured || cache_owner(entry, request->database) == NULL)
		return NULL;
	return entry->packed[cache_slot(
		cache_precision(request->engine, (NnPrecision) request->image.precision, &entry->config))];
}

Packed *
cache_pin(Request *request)
{
	Packed *packed = cache_usable(request);

	INVARIANT(request->model == NULL);
	if (packed != NULL)
	{
		packed->pins++;
		packed->used_ms = now_ms();
		list_remove(&packed->link);
		list_append(&request->engine->models, &packed->link);
	}
	request->model = packed;
	return packed;
}

void
cache_refer(Request *request, CacheEntry *entry)
{
	INVARIANT(request->entry == NULL);
	request->entry = entry;
	entry->requests++;
}

void
cache_unask(Request *request)
{
	if (!request->asked)
		return;
	INVARIANT(request->entry->asked > 0);
	request->entry->asked--;
	request->asked = false;
}

void
cache_forget(Request *request)
{
	CacheEntry *entry = request->entry;

	if (entry == NULL)
		return;
	INVARIANT(entry->requests > 0);
	if (request == request->engine->load)
		request->engine->load = NULL;
	cache_unask(request);
	if (request_is_loading(request))
	{
		INVARIANT(entry->loads > 0);
		entry->loads--;
	}
	request->entry = NULL;
	entry->requests--;
	cache_touch(request->engine, entry);
	cache_drop_unused(entry);
}

/* ---- Coming, growing, going ---------------------------------------------- */

void
cache_put(Engine *engine, CacheEntry *entry, Packed *packed)
{
	INVARIANT(entry->packed[cache_slot(packed->precision)] == NULL);
	budget_overdraw(&engine->memory, packed->host); /* the LOAD's own bytes go when it is freed */
	budget_overdraw(&engine->cached, packed->bytes);
	packed->entry = entry;
	packed->loaded_ms = packed->used_ms = now_ms();
	entry->packed[cache_slot(packed->precision)] = packed;
	list_append(&engine->models, &packed->link);
}

void
cache_resize(Engine *engine, Packed *packed, size_t bytes, size_t host)
{
	budget_give(&engine->memory, packed->host);
	budget_overdraw(&engine->memory, host);
	if (!packed->evicted)
	{
		budget_give(&engine->cached, packed->bytes);
		budget_overdraw(&engine->cached, bytes);
	}
	packed->bytes = bytes;
	packed->host = host;
}

static void
free_run(Task *task)
{
	nn_model_free(list_member(Packed, task, task)->model);
}

/* Something has come free on the device. */
static void
came_free(Engine *engine)
{
	INVARIANT(engine->freeing > 0);
	engine->freeing--;
	engine->freed++;
	engine->again = true;
}

static void
free_done(Engine *engine, Task *task)
{
	Packed *packed = list_member(Packed, task, task);

	came_free(engine);
	budget_give(&engine->memory, packed->host);
	list_remove(&packed->link);
	free(packed);
}

static void
free_unpinned(Engine *engine, Packed *packed)
{
	if (packed->pins > 0)
		return;
	packed->freeing = true;
	packed->task.run = free_run;
	packed->task.done = free_done;
	executor_submit(&engine->device_thread, &packed->task, TASK_FIRST);
}

void
cache_take_out(Engine *engine, Packed *packed)
{
	CacheEntry *entry = packed->entry;

	INVARIANT(!packed->evicted && entry->packed[cache_slot(packed->precision)] == packed);
	packed->evicted = true;
	packed->entry = NULL;
	list_remove(&packed->link);
	list_append(&engine->leaving, &packed->link);
	entry->packed[cache_slot(packed->precision)] = NULL;
	budget_give(&engine->cached, packed->bytes);
	engine->freeing++;
	cache_drop_unused(entry);
	free_unpinned(engine, packed);
}

void
cache_discard(Engine *engine, Packed *packed)
{
	INVARIANT(packed->entry == NULL && packed->pins == 0);
	budget_overdraw(&engine->memory, packed->host);
	packed->evicted = true;
	list_append(&engine->leaving, &packed->link);
	engine->freeing++;
	free_unpinned(engine, packed);
}

void
cache_unpin_unused(Engine *engine, Packed *packed)
{
	INVARIANT(packed->pins > 0);
	packed->pins--;
	if (packed->evicted)
		free_unpinned(engine, packed);
}

void
cache_unpin(Engine *engine, Packed *packed)
{
	packed->used_ms = now_ms();
	if (packed->pins == 1 && !packed->evicted)
		engine->trim = engine->again = true;
	cache_unpin_unused(engine, packed);
}

static void
shrink_run(Task *task)
{
	Packed *packed = list_member(Packed, task, task);

	nn_model_shrink(packed->model);
	packed->shrunk[0] = nn_model_bytes(packed->model);
	packed->shrunk[1] = nn_model_host_bytes(packed->model);
}

static void
shrink_done(Engine *engine, Task *task)
{
	Packed *packed = list_member(Packed, task, task);

	came_free(engine);
	packed->shrinking = false;
	packed->extents = 0;
	cache_resize(engine, packed, packed->shrunk[0], packed->shrunk[1]);
	cache_unpin(engine, packed);
}

/* No new ones for `quiet_ms`, or whom the room is for would not get it. */
void
cache_shrink(Engine *engine, Packed *packed, int64_t quiet_ms)
{
	INVARIANT(!packed->shrinking && !packed->evicted);
	packed->shrinking = true;
	packed->pins++;
	packed->small = 1;
	packed->small_until_ms = now_ms() + quiet_ms;
	packed->task.run = shrink_run;
	packed->task.done = shrink_done;
	engine->freeing++;
	executor_submit(&engine->device_thread, &packed->task, TASK_FIRST);
}

void
cache_free(Engine *engine)
{
	while (!list_empty(&engine->models))
	{
		Packed *packed = list_member(Packed, link, engine->models.next);

		list_remove(&packed->link);
		nn_model_free(packed->model);
		packed->entry->packed[cache_slot(packed->precision)] = NULL;
		cache_drop_unused(packed->entry);
		free(packed);
	}
}
