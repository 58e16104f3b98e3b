/*
 * run.h
 *	  One run: the life of a training engine (bicycle-engine --train) for a job.
 *	  See run_protocol.h for what it is told.
 *
 * One Run lives in run_main for the whole process and owns everything here.
 *
 * R1 The I/O thread owns the state, the control lines and the input of
 *    descriptor 4.
 * R2 The device thread opens the fit and runs the loop. From the submission of
 *    a task to its done function, `stream`, `fit`, `preview`, `ready`, `error`
 *    and `finished` are that thread's.
 * R3 Threads of the pool decode and augment ahead of the loop (run_feed.c); one
 *    more, the engine's loader, saves states of a GPU beside it (run_save.c).
 * R4 What threads share is behind locks: the link's (any thread may queue a
 *    frame), the data's, the screen's, the feed's, and the one below, of
 *    orders. None is taken while another is held.
 * R5 Pairs are written before the loop starts, and only read afterwards.
 * R6 Calls go down: run_data < run_feed, run_link < run_screen, run_best,
 *    run_look < run_metric < run_validation, run_preview, run_device < run_save
 *    < run_loop < run_main.
 *    What the link has to say goes up by functions that run_main gives it
 *    (RunLinkOwner).
 */
#ifndef BICYCLE_ENGINE_RUN_H
#define BICYCLE_ENGINE_RUN_H

#include "engine/engine.h"
#include "engine/run_data.h"
#include "engine/run_feed.h"
#include "engine/run_link.h"
#include "engine/run_preview.h"
#include "engine/run_screen.h"
#include "engine/run_share.h"
#include "engine/run_validation.h"

/* Drawn in run_state.c. */
typedef enum RunState
{
	RUN_STARTING,  /* before "go" */
	RUN_WAITING,   /* for TRAIN_BEGIN */
	RUN_STREAM,    /* receiving weights */
	RUN_METRIC,    /* receiving those that compare images */
	RUN_PAIRS,     /* receiving pairs */
	RUN_SCREENING, /* the pool decodes them all, those of validation last */
	RUN_OPENING,   /* the device thread opens the fit */
	RUN_READY,
	RUN_RUNNING,
	RUN_ENDED /* paused, done or failed: what still comes is read and thrown away */
} RunState;

#define RUN_STATES (RUN_ENDED + 1)

struct Run
{
	Engine *engine;
	RunState state; /* run_to() alone writes it */
	RunLink link;
	BicycleTrainBegin begin;
	NnConfig config;
	NnTrainOptions options;
	char *start_config; /* begin.start.config_length bytes */
	uint8_t *stream;    /* begin.stream_length bytes */
	uint64_t stream_have;
	RunData data;
	RunFeed feed;
	RunScreen screen;
	RunValidation validation;
	RunPreview preview;
	NnFit *fit;
	Task open_task, run_task, save_task;
	EngineError error; /* of the task that has run */
	bool finished;     /* PAUSED or TRAIN_DONE was sent */
	BicycleTrainReady ready;
	double rate;    /* images per second, as last told; the device thread's */
	bool note_wait; /* it was told that the run waits; likewise */
	bool note_copy; /* it was told that checkpoints do; likewise */
	bool early;     /* patience is used up: this was the last iteration; likewise */

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wake;  /* any of them has changed */
	bool checkpoint_wanted, pause_wanted, stop_wanted;
	bool checkpoint_queued;  /* one has begun, and has not been read yet */
	NnFitSnapshot *snapshot; /* that it is to be made of; the saver takes it */
	uint8_t *best;           /* what its checkpoint ends with, or NULL; the saver's with it */
	size_t best_length;
	EngineError save_error; /* why it could not be made */
	bool loop_over;
	RunShare share; /* of the card's time */
	int64_t waited; /* us, for requests of sessions */
};

/* The run has begun with its last checkpoint, and there are no pairs. */
static inline bool
run_is_finished(const Run *run)
{
	return (run->begin.flags & BICYCLE_TRAIN_FINISHED) != 0;
}

/* No iteration follows. Device thread. */
static inline bool
run_is_last(const Run *run)
{
	return run->early || nn_fit_iteration(run->fit) == run->ready.iterations;
}

/* run_state.c: I/O thread */
extern void run_to(Run *run, RunState state);
extern void run_check(Run *run);

/*
 * run_device.c: opens a device and the fit on it, by the settings and what an
 * earlier run of the job was on. Device thread; false with run->error set.
 */
extern bool run_device_open(Run *run, const TensorStream *stream);
extern NnPrecision run_precision(const Run *run); /* once it is open */

/* run_loop.c: the device thread's two tasks; run->error says how they went */
extern void run_open(Task *task);
extern void run_loop(Task *task);

/*
 * run_save.c: the fit's state as a CHECKPOINT, on the device thread, between
 * two iterations; false with *error set. What has begun goes on beside the
 * next ones where the device can, and may fail later: run->save_error.
 */
extern bool run_checkpoint(Run *run, EngineError *error);
extern bool run_checkpoint_begin(Run *run, EngineError *error);
extern void run_save(Task *task);   /* that does so; until run_save_end */
extern void run_save_end(Run *run); /* the loop is over */

/* *bytes is malloc'ed. False with *error set. */
extern bool run_tensors_pack(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
							 EngineError *error);
extern bool run_snapshot_pack(const NnFitSnapshot *snapshot, uint8_t **bytes, size_t *length,
							  EngineError *error);

/* run_main.c: the whole process; returns its exit code */
extern int run_main(Engine *engine);

#endif /* BICYCLE_ENGINE_RUN_H */
