/*
 * executor.h
 *	  Threads that run tasks, and the list by which tasks come back.
 */
#ifndef BICYCLE_ENGINE_EXECUTOR_H
#define BICYCLE_ENGINE_EXECUTOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct Engine;

#define EXECUTOR_OPEN 2 /* tasks with a step that a thread may have at once */

/* Those of a lower rank wait longer; executor.c says how long. */
typedef enum TaskRank
{
	TASK_FIRST,
	TASK_SECOND,
	TASK_BULK_FIRST,
	TASK_BULK_SECOND,
	TASK_RANKS
} TaskRank;

typedef struct Task
{
	struct Task *next;
	struct Executor *executor;      /* that it was handed to last */
	void (*run)(struct Task *task); /* on the executor's thread */

	/*
	 * Of a task that goes on by itself after run: called again and again until
	 * it is true, and the task has ended. wait: something may be waited for.
	 */
	bool (*step)(struct Task *task, bool wait);
	void (*done)(struct Engine *engine,
				 struct Task *task); /* on the I/O thread; the task may be freed in it */
} Task;

/* Tasks that have run; the I/O thread is woken for them. */
typedef struct Completions
{
	pthread_mutex_t lock; /* guards the two below */
	Task *first, *last;
	int fd; /* eventfd */
} Completions;

typedef struct Executor
{
	Completions *completions;
	const char *name;
	pthread_mutex_t lock; /* guards tasks, limit and stop; the rest is the I/O thread's */
	pthread_cond_t wake;
	Task *first[TASK_RANKS], *last[TASK_RANKS];
	unsigned taken;                 /* tasks */
	struct ExecutorThread *threads; /* MAX_THREADS slots, of which nthreads were started */
	int nthreads, limit;            /* threads beyond it rest */
	bool stop;
	unsigned pending; /* handed over and not yet done */
} Executor;

/* All of these on the I/O thread. False if not one thread could be started. */
extern bool executor_start(Executor *executor, Completions *completions, const char *name,
						   int threads);
extern bool executor_resize(Executor *executor, int threads);
extern void executor_submit(Executor *executor, Task *task, TaskRank rank);
extern void executor_stop(Executor *executor); /* waits until all that was handed over has run */
extern int64_t executor_longest(Executor *executor); /* ms the oldest running task has run */

/* Calls done() of what has run so far. */
extern void executor_take_completed(struct Engine *engine, Completions *completions);

/* For tasks: a long one is not stuck; it waits for other tasks. */
extern void executor_progress(void);
extern void executor_waits(void);

/* What now begins may show nothing for so many ms, up to the next progress. */
extern void executor_takes(int64_t ms);

/*
 * For tasks that wait for others and must not be taken for stuck; executor_wait
 * comes back after a second at most, whatever is done to the time of day.
 */
extern void executor_condition(pthread_cond_t *condition); /* in place of pthread_cond_init */
extern void executor_wait(pthread_cond_t *condition, pthread_mutex_t *lock);

/* The same, for so many microseconds at most; negative: no less than that. */
extern void executor_wait_us(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t us);

#endif /* BICYCLE_ENGINE_EXECUTOR_H */
