/*
 * run_share.h
 *	  How much of a card's time a run may have while requests of sessions wait
 *	  for the same card.
 *
 * Told by "yield N" (run_protocol.h): so many hundredths, and all of it when
 * nobody waits. Kept by the clock of whoever calls, in microseconds.
 *
 * R1 While others wait each iteration is earned before it begins: at N
 *    hundredths one that takes t begins after t (100 - N) / N.
 * R2 What was computed beyond that is a debt. It is paid by waiting, and at the
 *    full rate while nobody else wants the card.
 * R3 At 0 none begins while others wait.
 */
#ifndef BICYCLE_ENGINE_RUN_SHARE_H
#define BICYCLE_ENGINE_RUN_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#define RUN_SHARE_ALL 100
#define RUN_SHARE_NEVER (-1)

typedef struct RunShare
{
	int percent;    /* that it may have; RUN_SHARE_ALL: nobody else waits */
	bool computing; /* an iteration runs */
	int64_t begun;  /* when that, or the last one, began */
	int64_t cost;   /* us that the last one took */
	int64_t at;     /* up to when debt is counted */
	int64_t debt;   /* in hundredths of a us */
} RunShare;

extern void run_share_init(RunShare *share, int64_t now);
extern void run_share_set(RunShare *share, int percent, int64_t now);

/* us to wait until an iteration may begin; 0: it may; or RUN_SHARE_NEVER. */
extern int64_t run_share_wait(RunShare *share, int64_t now);
extern void run_share_begin(RunShare *share, int64_t now);
extern void run_share_end(RunShare *share, int64_t now);

#endif /* BICYCLE_ENGINE_RUN_SHARE_H */
