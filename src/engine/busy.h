/*
 * busy.h
 *	  Whether requests wait for the GPU, for the supervisor to know.
 */
#ifndef BICYCLE_ENGINE_BUSY_H
#define BICYCLE_ENGINE_BUSY_H

#include <stdbool.h>
#include <stdint.h>

struct Engine;

typedef struct BusyWord
{
	bool said;        /* "busy" was the last word */
	int64_t until_ms; /* what has waited since then has ended: "idle" is due; 0: not yet */
} BusyWord;

/* Says what has changed. */
extern void busy_run(struct Engine *engine);
extern int busy_wait_ms(const struct Engine *engine); /* until it is due again; -1: not by time */

#endif /* BICYCLE_ENGINE_BUSY_H */
