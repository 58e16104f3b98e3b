/*
 * run_screen.c
 *	  The screen that all pairs of a run pass before it trains: each is decoded
 *	  to its last pixel.
 *
 * R1 Threads of the pool take one pair after the other as they came, which is
 *    as they lie on disk.
 * R2 A pair whose own bytes are at fault is marked as bad, and the others are
 *    looked at all the same. What else fails (memory, the disk) ends the run.
 * R3 Pixels are kept as the feed keeps them, so that the first epoch need not
 *    decode again what there is memory for.
 *
 * A RunScreen owns its tasks and its order, not the pairs.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/run_screen.h"

static RunPair *
take_screened(RunScreen *screen)
{
	RunData *data = screen->feed->data;
	RunPair *pair = NULL;

	pthread_mutex_lock(&screen->lock);
	/* Marked already: its header was enough. */
	while (!screen->stop && screen->next < data->nread && pair == NULL)
	{
		pair = &data->pairs[screen->order[screen->next++]];
		if (pair->bad)
			pair = NULL;
	}
	pthread_mutex_unlock(&screen->lock);
	return pair;
}

static void
screen_fail(RunScreen *screen, const EngineError *error)
{
	pthread_mutex_lock(&screen->lock);
	screen->stop = true;
	if (!error_is_set(&screen->error))
		screen->error = *error;
	pthread_mutex_unlock(&screen->lock);
}

static bool
is_of_pair(const EngineError *error)
{
	return strcmp(error->sqlstate, "22P03") == 0 || strcmp(error->sqlstate, "54000") == 0;
}

static void
screen_pairs(Task *task)
{
	RunScreen *screen = list_member(RunScreenTask, task, task)->screen;
	RunPair *pair;

	while ((pair = take_screened(screen)) != NULL)
	{
		EngineError error;

		executor_progress();
		if (run_feed_try(screen->feed, pair, &error))
			continue;
		if (is_of_pair(&error))
			run_data_bad(screen->feed->data, pair, &error);
		else
			screen_fail(screen, &error);
	}
}

static void
screen_task_done(Engine *engine, Task *task)
{
	RunScreen *screen = list_member(RunScreenTask, task, task)->screen;

	INVARIANT(screen->left > 0);
	if (--screen->left == 0)
		screen->done(screen);
}

void
run_screen_init(RunScreen *screen)
{
	memset(screen, 0, sizeof(*screen));
	pthread_mutex_init(&screen->lock, NULL);
}

bool
run_screen_start(RunScreen *screen, RunFeed *feed, void (*done)(RunScreen *screen),
				 EngineError *error)
{
	Executor *pool = &feed->engine->pool;
	const RunData *data = feed->data;

	screen->feed = feed;
	screen->done = done;
	screen->order = malloc((size_t) data->nread * sizeof(uint32_t) + 1);
	screen->tasks = calloc((size_t) pool->nthreads, sizeof(RunScreenTask));
	if (screen->order == NULL || screen->tasks == NULL)
	{
		error_memory(error, "a list of training pairs");
		return false;
	}
	for (int64_t i = 0; i < data->nread; i++)
		screen->order[data->pairs[i].ordinal - 1] = (uint32_t) i;
	screen->left = pool->nthreads;
	for (int i = 0; i < pool->nthreads; i++)
	{
		screen->tasks[i].screen = screen;
		screen->tasks[i].task.run = screen_pairs;
		screen->tasks[i].task.done = screen_task_done;
		executor_submit(pool, &screen->tasks[i].task, TASK_SECOND);
	}
	return true;
}

void
run_screen_stop(RunScreen *screen)
{
	pthread_mutex_lock(&screen->lock);
	screen->stop = true;
	pthread_mutex_unlock(&screen->lock);
}

void
run_screen_free(RunScreen *screen)
{
	free(screen->order);
	free(screen->tasks);
	pthread_mutex_destroy(&screen->lock);
}
