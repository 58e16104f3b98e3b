/*
 * demand.c
 *	  Requests that need a model, and which client is asked for it.
 *
 * I/O thread only.
 *
 * R1 While the model is not resident in the wanted precision, or the database
 *    has not shown it, the request waits and one of the waiters is asked for it
 *    (NEED_MODEL).
 * R2 As long as that one has not answered nobody else is asked, unless nothing
 *    has come of it for ASK_AGAIN_MS: a client may be busy elsewhere for long.
 *    Time in which its LOAD waits for memory does not count: the next one would
 *    only wait behind it.
 * R3 What is streamed is hashed. A wrong hash fails the LOAD and all that wait
 *    on the same connection; a right one admits the database and makes whatever
 *    precisions are waited for (load.c).
 * R4 Who is asked after a model became resident shows it for its database only:
 *    nothing is packed then.
 */
#include "engine/engine.h"

#define ASK_AGAIN_MS 2000

/* Checks what only the model's configuration tells about a request. */
static bool
suits(const Request *request, const NnConfig *config, EngineError *error)
{
	if ((request->kind->network == NN_NET_L) != (config->metric != NN_METRIC_NONE))
	{
		error_set(error, "55000",
				  request->kind->network == NN_NET_L ? "model does not compare images"
													 : "model only compares images");
		error_hint(error, "Weights that compare images come in by bicycle_import_lpips, and are "
						  "for bicycle_lpips.");
		return false;
	}
	if (request->kind->network == NN_NET_E && config->net_e == NN_ENCODER_NONE)
	{
		error_set(error, "55000", "model has no encoder");
		error_hint(error, "Import it with the file of its encoder.");
		return false;
	}
	if (request->kind->network == NN_NET_G && (int) request->image.nz != config->nz)
	{
		error_set(error, "22023", "latent code has the wrong length");
		error_detail(error, "It has %u elements, and the model takes %d.", request->image.nz,
					 config->nz);
		return false;
	}
	return true;
}

void
demand_want(Request *request)
{
	CacheEntry *entry = cache_entry(request->engine, request->image.hash);

	if (entry == NULL)
	{
		request_fail_memory(request, "an entry of the model cache");
		return;
	}
	cache_refer(request, entry);
	request_wait_model(request);
}

/* The first waiter not asked yet; `other`: of a connection not asked yet. */
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

static void
entry_run(Engine *engine, CacheEntry *entry)
{
	entry->requests++; /* keeps it */
	list_foreach(node, &entry->waiters)
	{
		Request *request = list_member(Request, link, node);
		EngineError error;

		if (device_is_missing(engine))
			request_fail(request, &engine->device.error);
		else if (cache_usable(request) == NULL)
			continue;
		else if (!suits(request, &entry->config, &error))
			request_fail(request, &error);
		else
		{
			cache_unask(request);
			request_to(request, REQUEST_QUEUED);
		}
	}
	if (entry->asked == 0 && entry->loads == 0)
		ask(entry, false);
	entry->requests--;
	cache_drop_unused(entry);
}

void
demand_run(Engine *engine)
{
	list_foreach(node, &engine->entries)
	{
		CacheEntry *entry = list_member(CacheEntry, link, node);

		if (!entry->dirty)
			continue;
		entry->dirty = false;
		entry_run(engine, entry);
	}
}

/* Whether a LOAD of the model has not been granted yet. */
static bool
waits_for_memory(const Engine *engine, const CacheEntry *entry)
{
	list_foreach(node, &engine->memory_waiting)
	{
		const Request *request = list_member(Request, link, node);

		if (request_is_loading(request) && request->entry == entry)
			return true;
	}
	return false;
}

void
demand_tick(Engine *engine, int64_t now)
{
	list_foreach(node, &engine->entries)
	{
		CacheEntry *entry = list_member(CacheEntry, link, node);

		if (entry->packing == 0 && (entry->asked > 0 || entry->loads > 0) &&
			now - entry->progress_ms > ASK_AGAIN_MS && !waits_for_memory(engine, entry))
			ask(entry, true);
	}
}
