/*
 * job_state.h
 *	  The states of a training job, under the names that its row has them.
 *
 *	 (no row) ---------- bicycle_train ------------------> QUEUED
 *	 QUEUED ------------ its worker begins a run --------> RUNNING
 *	 RUNNING ----------- another run of it begins -------> RUNNING
 *	 RUNNING ----------- the model is stored ------------> DONE
 *	 QUEUED, RUNNING --- bicycle_pause ------------------> PAUSED
 *	 QUEUED, RUNNING,
 *	 PAUSED ------------ bicycle_cancel -----------------> CANCELLED
 *	 QUEUED, RUNNING --- an error, or tries used up -----> FAILED
 *	 PAUSED, CANCELLED,
 *	 FAILED ------------ bicycle_resume -----------------> QUEUED
 *
 * A job that runs is stopped by its worker: who stops it sets `wanted` in its
 * row to the state that it is to come to. It is RUNNING there otherwise.
 * Resumed before the worker has stopped, the job is QUEUED.
 */
#ifndef BICYCLE_JOB_STATE_H
#define BICYCLE_JOB_STATE_H

#define JOB_STATES(STATE)             \
	STATE(JOB_QUEUED, "queued")       \
	STATE(JOB_RUNNING, "running")     \
	STATE(JOB_PAUSED, "paused")       \
	STATE(JOB_DONE, "done")           \
	STATE(JOB_CANCELLED, "cancelled") \
	STATE(JOB_FAILED, "failed")

typedef enum JobState
{
#define JOB_STATE_VALUE(state, name) state,
	JOB_STATES(JOB_STATE_VALUE)
#undef JOB_STATE_VALUE
	JOB_STATE_COUNT
} JobState;

#endif /* BICYCLE_JOB_STATE_H */
