/*
 * check.c
 *	  Everything that is kept up to date, recounted from scratch.
 *
 * Called at the end of a turn where invariant_checking(), that is, in asan and
 * tsan builds and in unit tests that ask for it. On the I/O thread; changes
 * nothing. What threads have at that time is counted by who is away: a
 * request's state, a model's flags.
 */
#include "engine/engine.h"

/* How many requests are in a list; all are in the state that it is for. */
static size_t
check_list(const List *list)
{
	size_t n = 0;

	for (const List *node = list->next; node != list; node = node->next, n++)
	{
		INVARIANT(node->next->prev == node);
		INVARIANT(request_list(list_member(Request, link, node)) == list);
	}
	return n;
}

static void
check_lists(const Engine *engine)
{
	size_t linked = 0;
	size_t in_lists = check_list(&engine->queue_waiting) + check_list(&engine->memory_waiting) +
					  check_list(&engine->sized) + check_list(&engine->ready) +
					  check_list(&engine->loads) + check_list(&engine->held);

	list_foreach(node, &engine->entries) in_lists +=
		check_list(&list_member(CacheEntry, link, node)->waiters);
	list_foreach(node, &engine->connections)
	{
		const Connection *connection = list_member(Connection, link, node);

		for (int class = 0; class < REQUEST_CLASSES; class ++)
		{
			in_lists += check_list(&connection->queued[class]);
			/* who may start has its turn */
			INVARIANT(connection->jammed || list_empty(&connection->queued[class]) ||
					  !list_empty(&connection->ring[class]));
		}
	}
	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);

		INVARIANT(list_empty(&request->link) == (request_list(request) == NULL));
		linked += !list_empty(&request->link);
	}
	INVARIANT(linked == in_lists); /* each is in the list of its state */
}

/* What a request in its state has and has not. */
static void
check_request(const Engine *engine, const Request *request)
{
	RequestState state = request->state;
	bool away = state == REQUEST_DECODING || state == REQUEST_RUNNING ||
				state == REQUEST_ENCODING || state == REQUEST_LOADING;

	INVARIANT(state != REQUEST_NEW && state != REQUEST_GONE);
	INVARIANT(request->connection != NULL || away || state == REQUEST_DONE);
	INVARIANT(request->frames > 0 || state != REQUEST_DONE); /* or it had gone */
	INVARIANT(request->frames == 0 || state == REQUEST_DONE);
	INVARIANT(state != REQUEST_ALONE || engine->alone == request);
	INVARIANT(state != REQUEST_WAITING || request->entry != NULL);
	INVARIANT(!request->asked || state == REQUEST_WAITING);
	INVARIANT(state != REQUEST_DONE || request->entry == NULL);
	INVARIANT((request->model != NULL) ==
			  (request->kind->uses_model && state >= REQUEST_ALONE && state <= REQUEST_RUNNING));
	INVARIANT(request->model == NULL || !engine->device.busy); /* it would go with its device */
	INVARIANT(state != REQUEST_DONE || request->kind->stream ||
			  request->charge == (request->result != NULL ? request->result_length : 0));
	INVARIANT(state != REQUEST_SIZED || sizing_wants(request) > 0);
	if (request->connection != NULL)
		INVARIANT(request_find(request->connection, request->id) == request);
}

static void
check_connections(const Engine *engine)
{
	size_t n = 0;

	list_foreach(node, &engine->connections)
	{
		const Connection *connection = list_member(Connection, link, node);
		size_t place = 0, requests = 0, copied = 0;

		list_foreach(member, &connection->requests)
		{
			const Request *request = list_member(Request, all, member);

			INVARIANT(request->connection == connection);
			place += request_holds(request) ? request->place : 0;
			requests++;
		}
		list_foreach(member, &connection->out)
		{
			const OutFrame *out = list_member(OutFrame, link, member);

			copied += sizeof(OutFrame) + (out->data == out->copy ? out->frame.length : 0);
		}
		INVARIANT(connection->place == place);
		INVARIANT(connection->nrequests == requests);
		INVARIANT(connection->out_copied == copied);
		INVARIANT(!connection->dead);
		n++;
	}
	INVARIANT(engine->nconnections == n);
}

void
request_check(const Engine *engine)
{
	unsigned open = 0, started = 0, ahead[2] = { 0 }, light = 0, running = 0, batches = 0;
	bool alone = engine->alone == NULL;

	check_lists(engine);
	check_connections(engine);
	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);

		check_request(engine, request);
		open += request->state < REQUEST_DONE;
		started += request_is_started(request);
		if (request_is_ahead(request))
			ahead[request_class(request)]++;
		light += request_is_light(request);
		running += request->state == REQUEST_RUNNING;
		alone |= engine->alone == request &&
				 (request->state == REQUEST_ALONE || request_is_started(request));
	}
	INVARIANT(engine->nrequests == open);
	INVARIANT(engine->nstarted == started);
	INVARIANT(engine->ahead[0] == ahead[0] && engine->ahead[1] == ahead[1]);
	INVARIANT(engine->light == light);
	INVARIANT(alone);
	list_foreach(node, &engine->batches)
	{
		running -= (unsigned) list_member(Batch, link, node)->n;
		batches++;
	}
	INVARIANT(running == 0);
	INVARIANT(engine->nbatches == batches);
	for (List *node = engine->ready.next; node != &engine->ready && node->next != &engine->ready;
		 node = node->next)
		INVARIANT(list_member(Request, link, node)->sequence <=
				  list_member(Request, link, node->next)->sequence);
}

static void
check_entry(const Engine *engine, const CacheEntry *entry)
{
	unsigned requests = 0, loads = 0, packing = 0, asked = 0;

	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);

		if (request->entry != entry)
			continue;
		requests++;
		loads += request_is_loading(request);
		packing += request_is_packing(request);
		asked += request->asked;
	}
	INVARIANT(entry->requests == requests);
	INVARIANT(entry->loads == loads);
	INVARIANT(entry->packing == packing);
	INVARIANT(entry->asked == asked);
	INVARIANT(requests > 0 || cache_is_resident(entry)); /* or it had been dropped */
	for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
		INVARIANT(entry->packed[slot] == NULL ||
				  (entry->packed[slot]->entry == entry && !entry->packed[slot]->evicted));
}

static void
check_pins(const Engine *engine, const Packed *packed)
{
	unsigned pins = packed->shrinking;

	list_foreach(node, &engine->requests) pins +=
		list_member(Request, listed, node)->model == packed;
	INVARIANT(packed->pins == pins);
	INVARIANT(packed->evicted || packed->entry->packed[cache_slot(packed->precision)] == packed);
	INVARIANT(packed->freeing == (packed->evicted && pins == 0));
}

void
cache_check(const Engine *engine)
{
	unsigned freeing = 0;
	size_t resident = 0, packed = 0;

	list_foreach(node, &engine->models)
	{
		const Packed *model = list_member(Packed, link, node);

		INVARIANT(!model->evicted);
		check_pins(engine, model);
		freeing += model->shrinking;
		resident++;
	}
	list_foreach(node, &engine->leaving)
	{
		const Packed *model = list_member(Packed, link, node);

		INVARIANT(model->evicted);
		check_pins(engine, model);
		freeing += 1u + model->shrinking;
	}
	list_foreach(node, &engine->entries)
	{
		const CacheEntry *entry = list_member(CacheEntry, link, node);

		check_entry(engine, entry);
		for (int slot = 0; slot < PACKED_PRECISIONS; slot++)
			packed += entry->packed[slot] != NULL;
	}
	INVARIANT(resident == packed);
	INVARIANT(engine->freeing == freeing);
}

/* Tasks that are handed over and not done, against who has one. */
static void
check_executors(const Engine *engine)
{
	unsigned pool = 0, loader = 0, device = 0;

	list_foreach(node, &engine->requests)
	{
		RequestState state = list_member(Request, listed, node)->state;

		pool += state == REQUEST_DECODING || state == REQUEST_ENCODING;
		loader += state == REQUEST_LOADING;
	}
	loader -= engine->preparing;
	list_foreach(node, &engine->leaving) device += list_member(Packed, link, node)->freeing;
	list_foreach(node, &engine->leaving) device += list_member(Packed, link, node)->shrinking;
	list_foreach(node, &engine->models) device += list_member(Packed, link, node)->shrinking;
	device += engine->nbatches + (unsigned) engine->preparing + engine->device.busy +
			  engine->device.setting + engine->device.trying + engine->device.trimming +
			  engine->device.giving_back;
	INVARIANT(engine->pool.pending == pool);
	INVARIANT(engine->loader.pending == loader);
	INVARIANT(engine->device_thread.pending == device);
}

void
budget_check(const Engine *engine)
{
	size_t queue = 0, memory = 0, cached = 0;

	list_foreach(node, &engine->requests)
	{
		const Request *request = list_member(Request, listed, node);

		queue += request_holds(request) ? request->place : 0;
		memory += request_holds(request) ? request->charge : 0;
	}
	list_foreach(node, &engine->models)
	{
		memory += list_member(Packed, link, node)->host;
		cached += list_member(Packed, link, node)->bytes;
	}
	list_foreach(node, &engine->leaving) memory += list_member(Packed, link, node)->host;
	list_foreach(node, &engine->batches) memory += list_member(Batch, link, node)->reserved;
	memory += engine->pinned;
	INVARIANT(engine->queue.used == queue);
	INVARIANT(engine->memory.used == memory);
	INVARIANT(engine->cached.used == cached);
	check_executors(engine);
}

void
engine_check(const Engine *engine)
{
	request_check(engine);
	cache_check(engine);
	budget_check(engine);
}
