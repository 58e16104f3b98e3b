/*
 * run_state.c
 *	  The states of a run, and the recount of what its parts state.
 *
 *	 STARTING -- go --> WAITING -- TRAIN_BEGIN --> STREAM -- END --> PAIRS --+
 *	                                                                 ^   |   |
 *	                                            METRIC, END, at most once    |
 *	     +-------------------------- PAIRS_END ------------------------------+
 *	     v
 *	  SCREENING -- all pairs are known --+     (or at once, if they were before)
 *	     +-------------------------------+
 *	     v
 *	  OPENING -- the fit is open: TRAIN_READY --> READY -- RUN --> RUNNING --+
 *	                                                                         |
 *	  ENDED <-- the loop is over: PAUSED, TRAIN_DONE, or after "stop" -------+
 *	    ^
 *	    +------ ERROR, from any state but STARTING
 *
 * R1 run_to alone writes the state, on the I/O thread.
 * R2 The device thread has a task in OPENING and RUNNING, and in ENDED until
 *    that task is back; in no other state.
 * R3 The link has ended when the run has, and only then.
 */
#include "engine/run.h"

/* Bit s of transitions[from]: to state s. */
static const unsigned transitions[RUN_STATES] = {
	[RUN_STARTING] = 1u << RUN_WAITING,
	[RUN_WAITING] = 1u << RUN_STREAM | 1u << RUN_ENDED,
	[RUN_STREAM] = 1u << RUN_PAIRS | 1u << RUN_ENDED,
	[RUN_METRIC] = 1u << RUN_PAIRS | 1u << RUN_ENDED,
	[RUN_PAIRS] = 1u << RUN_METRIC | 1u << RUN_SCREENING | 1u << RUN_OPENING | 1u << RUN_ENDED,
	[RUN_SCREENING] = 1u << RUN_OPENING | 1u << RUN_ENDED,
	[RUN_OPENING] = 1u << RUN_READY | 1u << RUN_ENDED,
	[RUN_READY] = 1u << RUN_RUNNING | 1u << RUN_ENDED,
	[RUN_RUNNING] = 1u << RUN_ENDED,
};

void
run_to(Run *run, RunState state)
{
	INVARIANT(run->state < RUN_STATES && state < RUN_STATES);
	INVARIANT((transitions[run->state] >> state & 1) != 0);
	run->state = state;
	if (state == RUN_ENDED)
		run_link_end(&run->link);
}

/* checkpoint_queued is set before one is queued, cleared after it is gone. */
static void
check_orders(Run *run)
{
	bool queued;

	pthread_mutex_lock(&run->link.lock);
	queued = run->link.checkpoints > 0;
	pthread_mutex_unlock(&run->link.lock);
	pthread_mutex_lock(&run->lock);
	INVARIANT(run->checkpoint_queued || !queued);
	pthread_mutex_unlock(&run->lock);
}

void
run_check(Run *run)
{
	unsigned tasks = run->engine->device_thread.pending;

	INVARIANT(run->link.ended == (run->state == RUN_ENDED));
	INVARIANT(run->state == RUN_ENDED ||
			  tasks == (run->state == RUN_OPENING || run->state == RUN_RUNNING));
	INVARIANT(run->stream_have <= run->begin.stream_length);
	INVARIANT(run->validation.metric.have <= run->validation.metric.load.stream_length);
	INVARIANT(run->state < RUN_METRIC || run->state == RUN_ENDED ||
			  run->stream_have == run->begin.stream_length);
	INVARIANT(run->state < RUN_PAIRS || run->state == RUN_ENDED ||
			  run->validation.metric.have == run->validation.metric.load.stream_length);
	run_link_check(&run->link);
	check_orders(run);
	run_data_check(&run->data);
	run_data_check(&run->validation.data);
	run_feed_check(&run->feed);
}
