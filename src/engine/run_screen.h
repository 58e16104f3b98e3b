/*
 * run_screen.h
 *	  Finding out, before anything is trained, which pairs cannot be used.
 */
#ifndef BICYCLE_ENGINE_RUN_SCREEN_H
#define BICYCLE_ENGINE_RUN_SCREEN_H

#include "engine/run_feed.h"

/* The work of one thread of the pool. */
typedef struct RunScreenTask
{
	Task task;
	struct RunScreen *screen;
} RunScreenTask;

typedef struct RunScreen
{
	RunFeed *feed;
	void (*done)(struct RunScreen *screen);
	RunScreenTask *tasks; /* one a thread of the pool */
	int left;             /* of them, not yet back: the I/O thread's */
	uint32_t *order;      /* of the pairs, as they came */

	pthread_mutex_t lock; /* guards all below */
	int64_t next;         /* of `order` */
	bool stop;
	EngineError error; /* of the run, not of a pair; empty: none */
} RunScreen;

extern void run_screen_init(RunScreen *screen);

/*
 * Puts the pool to work on all pairs of a feed that is prepared; then `done` is
 * called, on the I/O thread. It is not called if there was no memory: false
 * with *error set.
 */
extern bool run_screen_start(RunScreen *screen, RunFeed *feed, void (*done)(RunScreen *screen),
							 EngineError *error);
extern void run_screen_stop(RunScreen *screen); /* any thread */
extern void run_screen_free(RunScreen *screen); /* when no other thread is left */

#endif /* BICYCLE_ENGINE_RUN_SCREEN_H */
