/*
 * budget.c
 *	  Counted memory: the ledger. Rules are in budget.h.
 *
 * Three budgets:
 *	- the queue (setting queue_memory): bodies of image requests, from GRANT to
 *	  the end of the reply;
 *	- the engine's memory (three quarters of engine_memory): packed models with
 *	  their arenas, tensor streams and files on their way, and what started
 *	  requests hold between decoding and reply. Of a model on a GPU only what
 *	  lies on the host counts here, the pinned buffers that images pass through;
 *	- the decoders' (the last quarter): what image_decode, image_resize and
 *	  plots and grids take while they run. Threads wait in it, under its lock;
 *	  each has its turn, and a decoder never asks twice, so it cannot deadlock.
 *
 * engine_memory = 0 means half of the machine's memory, or of what the
 * container may have of it.
 *
 * A GPU's own memory is no budget of the engine: the device refuses what is
 * beyond its limit (setting gpu_memory) or what other processes have left of
 * the card, and then the cache makes room (room.c).
 */
#include "engine/budget.h"
#include "engine/executor.h"

size_t
budget_free(const Budget *budget)
{
	return budget->used < budget->limit ? budget->limit - budget->used : 0;
}

bool
budget_take(Budget *budget, size_t bytes)
{
	if (bytes > budget_free(budget))
		return false;
	budget->used += bytes;
	return true;
}

void
budget_overdraw(Budget *budget, size_t bytes)
{
	INVARIANT(bytes <= SIZE_MAX - budget->used);
	budget->used += bytes;
}

void
budget_give(Budget *budget, size_t bytes)
{
	INVARIANT(bytes <= budget->used);
	budget->used -= bytes;
	budget->changed |= bytes > 0;
}

void
budget_limit(Budget *budget, size_t limit)
{
	budget->limit = limit;
	budget->changed = true;
}

/* ---- Decoders ------------------------------------------------------------ */

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
	INVARIANT(bytes <= budget->used);
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

void
decode_limit(DecodeBudget *budget, size_t limit)
{
	pthread_mutex_lock(&budget->lock);
	budget->limit = limit;
	pthread_cond_broadcast(&budget->wake);
	pthread_mutex_unlock(&budget->lock);
}
