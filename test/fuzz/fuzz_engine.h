/*
 * fuzz_engine.h
 *	  An engine in the process of the target, without threads: tasks run where
 *	  they are handed over, so that an input always does the same. For that this
 *	  file stands in for executor.c, and includes server.c for a turn of its
 *	  loop.
 */
#ifndef BICYCLE_FUZZ_ENGINE_H
#define BICYCLE_FUZZ_ENGINE_H

#include "fuzz.h"
#include "../../src/engine/server.c"

/* ---- In place of executor.c ---------------------------------------------- */

bool
executor_start(Executor *executor, Completions *completions, const char *name, int threads)
{
	memset(executor, 0, sizeof(*executor));
	executor->completions = completions;
	return true;
}

bool
executor_resize(Executor *executor, int threads)
{
	return true;
}

void
executor_submit(Executor *executor, Task *task, TaskRank rank)
{
	Completions *completions = executor->completions;

	executor->pending++;
	task->executor = executor;
	task->run(task);
	while (task->step != NULL && !task->step(task, true))
		;
	task->next = NULL;
	if (completions->last != NULL)
		completions->last->next = task;
	else
		completions->first = task;
	completions->last = task;
	eventfd_write(completions->fd, 1);
}

void
executor_take_completed(Engine *engine, Completions *completions)
{
	Task *task = completions->first;

	completions->first = completions->last = NULL;
	while (task != NULL)
	{
		Task *next = task->next;

		task->executor->pending--;
		task->done(engine, task);
		task = next;
	}
}

void
executor_stop(Executor *executor)
{
}

int64_t
executor_longest(Executor *executor)
{
	return 0;
}

void
executor_progress(void)
{
}

void
executor_waits(void)
{
}

void
executor_takes(int64_t ms)
{
}

void
executor_condition(pthread_cond_t *condition)
{
	pthread_cond_init(condition, NULL);
}

void
executor_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
}

void
executor_wait_us(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t us)
{
}

static Engine engine;

static void
turns(int n)
{
	for (int i = 0; i < n; i++)
	{
		(void) source_wait(&engine, 0);
		tick(&engine);
		settle(&engine);
	}
}

/* What the log has to say is not of interest, and would be much. */
static inline void
forget(void *arg, const char *line, size_t length)
{
}

#endif /* BICYCLE_FUZZ_ENGINE_H */
