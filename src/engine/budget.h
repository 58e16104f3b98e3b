/*
 * budget.h
 *	  Counted memory: the ledger.
 *
 * R1 Nothing of a size that a client decides is allocated before it was taken
 *    here, and what was taken is given back by who owns the memory.
 * R2 budget.c alone writes `used` and `limit`. It decides nothing: who may go
 *    on when something has come free is admission.c's affair, once a turn.
 */
#ifndef BICYCLE_ENGINE_BUDGET_H
#define BICYCLE_ENGINE_BUDGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/invariant.h"

/* I/O thread only. */
typedef struct Budget
{
	size_t used, limit;
	bool changed; /* since admission looked: bytes or a limit, or one more asks */
} Budget;

extern size_t budget_free(const Budget *budget);
extern bool budget_take(Budget *budget, size_t bytes);     /* false: they are not free */
extern void budget_overdraw(Budget *budget, size_t bytes); /* takes them, free or not */
extern void budget_give(Budget *budget, size_t bytes);
extern void budget_limit(Budget *budget, size_t limit); /* what is held already is kept */

/* For what is counted a second time, within a budget. */
static inline void
count_give(size_t *used, size_t bytes)
{
	INVARIANT(bytes <= *used);
	*used -= bytes;
}

/* What decoders hold.  Their threads wait in it, in order of arrival. */
typedef struct DecodeBudget
{
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wake;
	size_t used, limit;
	uint64_t next_ticket, serving;
} DecodeBudget;

/* Any thread. False: there never will be that many. */
extern bool decode_take(DecodeBudget *budget, size_t bytes);
extern void decode_release(DecodeBudget *budget, size_t bytes);
extern size_t decode_used(DecodeBudget *budget);
extern void decode_limit(DecodeBudget *budget, size_t limit);

#endif /* BICYCLE_ENGINE_BUDGET_H */
