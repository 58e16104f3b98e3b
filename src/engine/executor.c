/*
 * executor.c
 *	  Threads that run tasks: the pool, the device thread and the loader are one
 *	  executor each.
 *
 * R1 Tasks wait in a list for each rank, in order of arrival. A list is taken
 *    from when those before it are empty; bulk also on every TASK_TURN-th turn,
 *    so that it is never stopped.
 * R2 A task that has run is put on the list of completions; the I/O thread
 *    takes it from there and calls its done().
 * R3 All threads block signals, which the main thread has done before the first
 *    starts.
 * R4 A task with a step is open until that says that it has ended, and may have
 *    one more such task beside it; any other is begun when none is open. What
 *    is open is asked in turn; who asks has nothing else to do, and gives way.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/invariant.h"
#include "engine/now.h"
#include "engine/executor.h"
#include "engine/log.h"

#define MAX_THREADS 1024
#define TASK_TURN 8
#define WAIT_US 1000000 /* for what others do: then the thread shows that it lives */

typedef struct ExecutorThread
{
	Executor *executor;
	int index;
	pthread_t thread;
	/*
	 * ms: the running task's start or last sign of progress, or a later time up
	 * to which none is expected; 0: none runs
	 */
	_Atomic int64_t since;
} ExecutorThread;

static __thread ExecutorThread *self;

/*
 * The next task, if it may be begun beside `open` others; `held`: it may not.
 */
static Task *
take(Executor *executor, int open, bool *held)
{
	int from = (executor->taken + 1) % TASK_TURN == 0 ? TASK_BULK_FIRST : TASK_FIRST;

	for (int i = 0; i < TASK_RANKS; i++)
	{
		int rank = (from + i) % TASK_RANKS;
		Task *task = executor->first[rank];

		if (task == NULL)
			continue;
		*held = open > 0 && (task->step == NULL || open == EXECUTOR_OPEN);
		if (*held)
			return NULL;
		executor->first[rank] = task->next;
		if (task->next == NULL)
			executor->last[rank] = NULL;
		executor->taken++;
		return task;
	}
	return NULL;
}

static void
complete(Completions *completions, Task *task)
{
	task->next = NULL;
	pthread_mutex_lock(&completions->lock);
	if (completions->last != NULL)
		completions->last->next = task;
	else
		completions->first = task;
	completions->last = task;
	pthread_mutex_unlock(&completions->lock);
	eventfd_write(completions->fd, 1);
}

void
executor_take_completed(struct Engine *engine, Completions *completions)
{
	Task *task;

	pthread_mutex_lock(&completions->lock);
	task = completions->first;
	completions->first = completions->last = NULL;
	pthread_mutex_unlock(&completions->lock);
	while (task != NULL)
	{
		Task *next = task->next;

		INVARIANT(task->executor->pending > 0);
		task->executor->pending--;
		task->done(engine, task);
		task = next;
	}
}

/* Waits only where none is open. NULL: there is none, or it is held. */
static Task *
next_task(int open, bool *held)
{
	Executor *executor = self->executor;
	Task *task = NULL;

	*held = false;
	pthread_mutex_lock(&executor->lock);
	while ((self->index >= executor->limit || (task = take(executor, open, held)) == NULL) &&
		   !executor->stop && open == 0)
		pthread_cond_wait(&executor->wake, &executor->lock);
	pthread_mutex_unlock(&executor->lock);
	return task;
}

/* Asks those that are open; returns how many still are. */
static int
step_open(Task **open, int n, bool wait)
{
	int kept = 0;

	for (int i = 0; i < n; i++)
	{
		Task *task = open[i];

		if (task->step(task, wait && i == 0))
			complete(self->executor->completions, task);
		else
			open[kept++] = task;
	}
	return kept;
}

static void *
executor_main(void *arg)
{
	Task *open[EXECUTOR_OPEN];
	int nopen = 0;
	char name[16];

	self = arg;
	snprintf(name, sizeof(name), "%.8s-%d", self->executor->name, self->index);
	prctl(PR_SET_NAME, name);

	for (;;)
	{
		bool held;
		Task *task = next_task(nopen, &held);

		if (task == NULL && nopen == 0)
			return NULL;
		if (task != NULL)
		{
			executor_progress();
			task->run(task);
			if (task->step != NULL)
				open[nopen++] = task;
			else
				complete(self->executor->completions, task);
		}
		else if (!held && nopen < EXECUTOR_OPEN)
			sched_yield();
		nopen = step_open(open, nopen, held || nopen == EXECUTOR_OPEN);
		if (nopen == 0)
			atomic_store(&self->since, 0);
	}
}

bool
executor_start(Executor *executor, Completions *completions, const char *name, int threads)
{
	memset(executor, 0, sizeof(*executor));
	executor->completions = completions;
	executor->name = name;
	pthread_mutex_init(&executor->lock, NULL);
	pthread_cond_init(&executor->wake, NULL);
	executor->threads = calloc(MAX_THREADS, sizeof(ExecutorThread));
	return executor->threads != NULL && executor_resize(executor, threads);
}

bool
executor_resize(Executor *executor, int threads)
{
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	while (executor->nthreads < threads)
	{
		ExecutorThread *thread = &executor->threads[executor->nthreads];
		int failed;

		thread->executor = executor;
		thread->index = executor->nthreads;
		if ((failed = pthread_create(&thread->thread, NULL, executor_main, thread)) != 0)
		{
			log_write(LOG_WARNING, "could not start a thread for %s: %s", executor->name,
					  strerror(failed));
			break;
		}
		executor->nthreads++;
	}
	pthread_mutex_lock(&executor->lock);
	executor->limit = threads;
	pthread_cond_broadcast(&executor->wake);
	pthread_mutex_unlock(&executor->lock);
	return executor->nthreads > 0;
}

void
executor_submit(Executor *executor, Task *task, TaskRank rank)
{
	executor->pending++;
	task->executor = executor;
	task->next = NULL;
	pthread_mutex_lock(&executor->lock);
	if (executor->last[rank] != NULL)
		executor->last[rank]->next = task;
	else
		executor->first[rank] = task;
	executor->last[rank] = task;
	/* A signal could wake one that rests, so all are woken. */
	if (executor->limit < executor->nthreads)
		pthread_cond_broadcast(&executor->wake);
	else
		pthread_cond_signal(&executor->wake);
	pthread_mutex_unlock(&executor->lock);
}

void
executor_stop(Executor *executor)
{
	if (executor->threads == NULL)
		return;
	pthread_mutex_lock(&executor->lock);
	executor->stop = true;
	pthread_cond_broadcast(&executor->wake);
	pthread_mutex_unlock(&executor->lock);
	for (int i = 0; i < executor->nthreads; i++)
		pthread_join(executor->threads[i].thread, NULL);
	free(executor->threads);
	executor->threads = NULL;
	pthread_mutex_destroy(&executor->lock);
	pthread_cond_destroy(&executor->wake);
}

int64_t
executor_longest(Executor *executor)
{
	int64_t longest = 0;
	int64_t now = now_ms();

	for (int i = 0; i < executor->nthreads; i++)
	{
		int64_t since = atomic_load(&executor->threads[i].since);

		if (since != 0 && now - since > longest)
			longest = now - since;
	}
	return longest;
}

void
executor_progress(void)
{
	if (self != NULL)
		atomic_store(&self->since, now_ms());
}

void
executor_takes(int64_t ms)
{
	if (self != NULL)
		atomic_store(&self->since, now_ms() + ms);
}

void
executor_condition(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

void
executor_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
	executor_wait_us(condition, lock, WAIT_US);
}

void
executor_wait_us(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t us)
{
	int64_t end = now_us() + (us >= 0 && us < WAIT_US ? us : WAIT_US);
	struct timespec until = { .tv_sec = end / 1000000, .tv_nsec = end % 1000000 * 1000 };

	executor_progress();
	pthread_cond_timedwait(condition, lock, &until);
}

void
executor_waits(void)
{
	if (self != NULL)
		atomic_store(&self->since, 0);
}
