/*
 * cache.c
 *	  The models that are resident, who may use them, and who waits for one.
 *
 * Owned by the I/O thread, but for shrink_run and free_run on the device
 * thread. An entry stands for a content hash. It holds packed models of up to
 * three precisions, the databases that have shown the content, and the requests
 * that wait. It lives while any request refers to it or anything of it is
 * resident. How a model becomes resident is in load.c.
 *
 * A request may use a packed model if its database has streamed that content
 * once while it is in the cache; until then, or while it is not resident in the
 * wanted precision, the request waits and one of the waiters is asked for it
 * (NEED_MODEL). As long as that one has not answered nobody else is asked,
 * unless nothing has come of it for ASK_AGAIN_MS: a client may be busy
 * elsewhere for long. What is streamed is hashed; a wrong hash fails the LOAD
 * and all that wait on the same connection, a right one admits the database and
 * makes whatever precisions are waited for. Who is asked after a model became
 * resident shows it for its database only: nothing is packed then.
 *
 * Eviction is by last use. Requests that were started pin their model; an
 * evicted model takes no new ones, and is freed on the device thread when its
 * last pin is gone. A model that still has requests waiting to start on it is
 * evicted only after it has run a batch, so that two models that do not fit
 * beside each other take turns instead of evicting each other for nothing;
 * whose turn has not come for TURN_MS, because its clients do not read, goes
 * all the same. So the cache may be larger than cache_size for a moment; the
 * engine's memory limit is kept by the LOAD having waited for its bytes
 * beforehand.
 *
 * A GPU has memory of its own. There weights and plans lie, and count against
 * its limit (setting gpu_memory, or most of the card), which then is the limit
 * of the cache: cache_size is for models in the host's memory. What fits only
 * the device knows, since other processes may hold memory of the card, so it is
 * tried. One rule keeps this simple: a model becomes resident together with its
 * plans for one image, or not at all. So a resident model can always run, none
 * waits for memory while it holds some, and only two things ever fall short: a
 * LOAD, of which load.c tells, and a larger batch. For that only what was idle
 * for IDLE_MS goes, plans for more than one image first, which are made anew in
 * no time; then it is made smaller (batcher.c), and for a while no larger one
 * is tried. The rule holds for the encoder too, asked for or not: of the
 * official defaults its plan takes some 14 MB beside 150, and 40 ms of a load;
 * without it a resident model would have an operation that finds no room.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"

#define ASK_AGAIN_MS 2000
#define TURN_MS 10000
#define IDLE_MS 1000

/*
 * Packed models are told apart by precision: fp32, bf16, and fp16 where a GPU
 * has no bf16.
 */
int
cache_slot(NnPrecision precision)
{
	return (int) precision - (int) NN_PRECISION_FP32;
}

/*
 * What is asked for; else the engine's setting; else the model's configuration;
 * else what the device prefers.
 */
NnPrecision
cache_resolve_precision(NnPrecision asked, NnPrecision setting, const NnConfig *config,
						NnPrecision automatic)
{
	if (asked != NN_PRECISION_AUTO)
		return asked;
	if (setting != NN_PRECISION_AUTO)
		return setting;
	if (config != NULL && config->precision != NN_PRECISION_AUTO)
		return config->precision;
	return automatic;
}

/* config may be NULL. */
NnPrecision
cache_precision(const Engine *engine, NnPrecision asked, const NnConfig *config)
{
	return cache_resolve_precision(asked, engine->settings.precision, config,
								   engine->device_automatic);
}

size_t
cache_limit(const Engine *engine)
{
	if (engine->device_memory > 0)
		return engine->device_memory;
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

/* NULL if there is no memory. */
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
	list_remove(&entry->link);
	free(entry->owners);
	free(entry);
}

static CacheOwner *
owner_find(const CacheEntry *entry, uint32_t database)
{
	for (unsigned i = 0; i < entry->nowners; i++)
		if (entry->owners[i].database == database)
			return &entry->owners[i];
	return NULL;
}

bool
cache_admit(CacheEntry *entry, uint32_t database, const char *model, int32_t version)
{
	CacheOwner *owner = owner_find(entry, database);

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

/* ---- Requests that need a model ------------------------------------------ */

/* Checks what only the model's configuration tells about a request. */
static bool
check_request(const Request *request, const NnConfig *config, EngineError *error)
{
	if (request->type == BICYCLE_ENCODE && config->net_e == NN_ENCODER_NONE)
	{
		error_set(error, "55000", "model has no encoder");
		error_hint(error, "Import it with the file of its encoder.");
		return false;
	}
	if (request->type == BICYCLE_TRANSLATE && (int) request->image.nz != config->nz)
	{
		error_set(error, "22023", "latent code has the wrong length");
		error_detail(error, "It has %u elements, and the model takes %d.", request->image.nz,
					 config->nz);
		return false;
	}
	return true;
}

/* The packed model the request may use now, or NULL. */
static Packed *
usable(const Request *request)
{
	const CacheEntry *entry = request->entry;

	if (!entry->configured || owner_find(entry, request->database) == NULL)
		return NULL;
	return entry->packed[cache_slot(
		cache_precision(request->engine, (NnPrecision) request->image.precision, &entry->config))];
}

static void
wait_for_model(Request *request)
{
	request->state = REQUEST_WAITING;
	list_append(&request->entry->waiters, &request->link);
	request->entry->dirty = true;
}

void
cache_want(Request *request)
{
	Engine *engine = request->engine;
	CacheEntry *entry;
	EngineError error;

	if (request->entry == NULL)
	{
		if ((entry = cache_entry(engine, request->image.hash)) == NULL)
		{
			error_memory(&error, "an entry of the model cache");
			request_fail(request, &error);
			return;
		}
		request->entry = entry;
		entry->requests++;
	}
	wait_for_model(request);
}

Packed *
cache_pin(Request *request)
{
	Packed *packed = usable(request);

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
cache_forget(Request *request)
{
	CacheEntry *entry = request->entry;

	if (entry == NULL)
		return;
	if (request == request->engine->load)
		request->engine->load = NULL;
	request->entry = NULL;
	if (request->state == REQUEST_WAITING)
		list_remove(&request->link);
	if (request->asked)
		entry->asked--;
	if (request->loading)
		entry->loads--;
	if (request->loading && request->state == REQUEST_LOADING)
		entry->packing--;
	request->asked = request->loading = false;
	entry->dirty = true;
	entry->requests--;
	cache_drop_unused(entry);
}

/*
 * The client that was asked cannot send the model: that request fails;
 * cache_run asks the next.
 */
void
cache_no_model(Request *request, const EngineError *error)
{
	request_fail(request, error);
}

/*
 * Asks the first waiter that has not been asked yet; with `other` only one of a
 * connection that has not.
 */
static void
ask(CacheEntry *entry, bool other)
{
	list_foreach(node, &entry->waiters)
	{
		Request *request = list_member(Request, link, node);
		bool skip = request->asked;

		for (List *before = entry->waiters.next; other && before != node && !skip;
			 before = before->next)
		{
			Request *earlier = list_member(Request, link, before);

			skip = earlier->asked && earlier->connection == request->connection;
		}
		if (skip)
			continue;
		request->asked = true;
		entry->asked++;
		entry->progress_ms = now_ms();
		connection_send(request->connection, BICYCLE_NEED_MODEL, request->id, entry->hash,
						BICYCLE_HASH_BYTES, true, NULL);
		return;
	}
}

/* Moves on what can go on and asks for what is missing. */
static void
entry_run(Engine *engine, CacheEntry *entry)
{
	entry->requests++; /* keeps it */
	list_foreach(node, &entry->waiters)
	{
		Request *request = list_member(Request, link, node);
		EngineError error;

		if (!engine->device_busy && engine->device == NULL)
			request_fail(request, &engine->device_error);
		else if (usable(request) == NULL)
			continue;
		else if (!check_request(request, &entry->config, &error))
			request_fail(request, &error);
		else
		{
			list_remove(&request->link);
			if (request->asked)
				entry->asked--;
			request->asked = false;
			batcher_add(request);
		}
	}
	if (entry->asked == 0 && entry->loads == 0)
		ask(entry, false);
	entry->requests--;
	cache_drop_unused(entry);
}

void
cache_run(Engine *engine)
{
	load_next(engine);
	list_foreach(node, &engine->entries)
	{
		CacheEntry *entry = list_member(CacheEntry, link, node);

		if (!entry->dirty)
			continue;
		entry->dirty = false;
		entry_run(engine, entry);
	}
}

/* Whoever was asked may be away for long: others are asked too. */
void
cache_tick(Engine *engine, int64_t now)
{
	list_foreach(node, &engine->entries)
	{
		CacheEntry *entry = list_member(CacheEntry, link, node);

		if (entry->packing == 0 && (entry->asked > 0 || entry->loads > 0) &&
			now - entry->progress_ms > ASK_AGAIN_MS)
			ask(entry, true);
	}
}

/* ---- Eviction ------------------------------------------------------------ */

static void
free_run(Task *task)
{
	nn_model_free(list_member(Packed, task, task)->model);
}

static void
free_done(Engine *engine, Task *task)
{
	Packed *packed = list_member(Packed, task, task);
	size_t host = packed->host;

	engine->freeing--;
	engine->freed++;
	free(packed);
	memory_release(engine, host);
}

void
cache_free_packed(Engine *engine, Packed *packed)
{
	packed->task.run = free_run;
	packed->task.done = free_done;
	executor_submit(&engine->device_thread, &packed->task, true);
}

/* A model has grown or shrunk. */
static void
resize(Engine *engine, Packed *packed, size_t bytes, size_t host)
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

	engine->freeing--;
	engine->freed++;
	packed->shrinking = false;
	resize(engine, packed, packed->shrunk[0], packed->shrunk[1]);
	cache_unpin(engine, packed);
	memory_admit(engine);
}

/*
 * Frees the model's plans for more than one image, between two batches. Others
 * are not made at once, or whoever the room is for would not get it.
 */
static void
shrink(Engine *engine, Packed *packed)
{
	packed->shrinking = true;
	packed->pins++;
	packed->small = 1;
	packed->small_until_ms = now_ms() + IDLE_MS;
	packed->task.run = shrink_run;
	packed->task.done = shrink_done;
	engine->freeing++;
	executor_submit(&engine->device_thread, &packed->task, true);
}

/* Takes the model out of the cache; it is freed when its last pin is gone. */
static void
evict(Engine *engine, Packed *packed)
{
	CacheEntry *entry = packed->entry;

	packed->evicted = true;
	packed->entry = NULL;
	list_remove(&packed->link);
	entry->packed[cache_slot(packed->precision)] = NULL;
	budget_give(&engine->cached, packed->bytes);
	engine->freeing++;
	cache_drop_unused(entry);
	if (packed->pins == 0)
		cache_free_packed(engine, packed);
}

/*
 * The model that should go first: one that nobody wants, else, if those may go
 * too, one that had its turn.
 */
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

bool
cache_freeing(Engine *engine)
{
	return engine->freeing > 0;
}

bool
cache_evict_one(Engine *engine, bool wanted_too)
{
	Packed *packed = victim(engine, wanted_too);

	if (packed != NULL)
		evict(engine, packed);
	return packed != NULL;
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

/* For a model that wants to grow, or with NULL for one that is to come. */
bool
cache_make_room(Engine *engine, const Packed *growing)
{
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (packed == growing || !can_shrink(packed) || (growing != NULL && !is_idle(packed)))
			continue;
		shrink(engine, packed);
		return true;
	}
	if (growing == NULL)
		return cache_evict_one(engine, true);
	list_foreach(node, &engine->models)
	{
		Packed *packed = list_member(Packed, link, node);

		if (packed == growing || !is_idle(packed))
			continue;
		evict(engine, packed);
		return true;
	}
	return false;
}

/*
 * Evicts until the cache is within its size. The last model stays; on a GPU its
 * plans may go.
 */
void
cache_trim(Engine *engine)
{
	Packed *last;

	while (engine->cached.used > cache_limit(engine) &&
		   engine->models.next != engine->models.prev && cache_evict_one(engine, true))
		;
	if (engine->device_memory == 0 || engine->cached.used <= engine->device_memory ||
		list_empty(&engine->models))
		return;
	last = list_member(Packed, link, engine->models.prev);
	if (can_shrink(last))
		shrink(engine, last);
}

/* What did not fit may fit now, and the other way round. */
void
cache_limit_changed(Engine *engine)
{
	engine->freed++;
	list_foreach(node, &engine->models) list_member(Packed, link, node)->small_until_ms = 0;
	cache_trim(engine);
}

/* All models go.  For when nothing is started. */
void
cache_clear(Engine *engine)
{
	while (!list_empty(&engine->models))
		evict(engine, list_member(Packed, link, engine->models.next));
}

void
cache_unpin(Engine *engine, Packed *packed)
{
	packed->pins--;
	packed->used_ms = now_ms();
	if (packed->evicted && packed->pins == 0)
		cache_free_packed(engine, packed);
	else if (packed->pins == 0)
		cache_trim(engine);
}

/*
 * A batch has run; its plans may have grown the model to `bytes`, and to `host`
 * of the host's memory.
 */
void
cache_batch_done(Engine *engine, Packed *packed, size_t bytes, size_t host, unsigned requests)
{
	resize(engine, packed, bytes, host);
	packed->batches++;
	packed->hits += requests;
	cache_trim(engine);
}

/* ---- Looking in ---------------------------------------------------------- */

static void
describe(const Packed *packed, uint32_t database, int64_t now, BicycleCached *cached)
{
	const CacheOwner *owner = owner_find(packed->entry, database);

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
cache_answer(Connection *connection, uint64_t id)
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
		connection_send_error(connection, id, &error, NULL);
		return;
	}
	n = 0;
	list_foreach(node, &engine->models)
		describe(list_member(Packed, link, node), connection->database, now_ms(), &all[n++]);
	connection_send(connection, BICYCLE_RESULT, id, all, n * sizeof(*all), true, NULL);
	free(all);
}

/* At the end, when no thread runs any more. */
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
