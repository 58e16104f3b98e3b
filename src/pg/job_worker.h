/*
 * job_worker.h
 *	  What the files of a trainer share: the run, and the transactions on the
 *	  job's row. job_worker.c tells how a run goes.
 */
#ifndef BICYCLE_TRAINER_H
#define BICYCLE_TRAINER_H

#include "bicycle.h"

#include "common/run_protocol.h"

/*
 * The run of this process. job_worker.c fills it in; the handlers of frames
 * keep `job`, `running` and `checkpoint_ms` up to date.
 */
typedef struct TrainerRun
{
	MemoryContext context; /* lives as long as the worker: the job, frames that wait */
	/*
	 * as it was when the run began, but for what the run knows better:
	 * attempts, checkpoint, iterations
	 */
	Job job;
	int64 start_iterations; /* behind the version to start from */
	int64 checkpoint_ms;    /* of the last checkpoint, or of the beginning */
	bool
		/*
		 * the checkpoint to start from is the last one: all that is left is to
		 * store the model
		 */
		complete;
	bool running;  /* RUN has been sent, and the engine has not said that it is done */
	bool finished; /* the row is in its new state, or gone: the worker ends */
} TrainerRun;

extern TrainerRun trainer;

/* ---- job_worker.c -------------------------------------------------------- */

/*
 * Starts a transaction with SPI connected; false, and the run is finished, if
 * the extension is gone or another one.
 */
extern bool trainer_begin(void);
extern void trainer_end(void);

extern void trainer_params(JobParams *p); /* starts the parameters of a statement: $1 = job */
extern void trainer_update(const char *statement,
						   JobParams *p); /* of the job's row; without one the run is finished */

/*
 * Adds to the job's notes. A cause, a bit of the column `noted`, is noted once
 * in the life of a job; 0 is none.
 */
extern void trainer_note(int cause, const char *note);

/*
 * For how many seconds SIGTERM leaves alone what this process does. 0: it is
 * interrupted at once, by an error that ends the run and is no failure of the
 * job.
 */
extern void trainer_patience(int seconds);

/*
 * Between two pairs: interrupts this process, as SIGTERM would, if somebody
 * wants to have the database for himself.
 */
extern void trainer_make_way(void);

pg_noreturn extern void trainer_lost(void); /* the connection to the engine has ended: tells how */

/* ---- job_pairs.c ------------------------------------------------------ */

/* Streams weights and pairs to the engine, in one read-only transaction. */
extern void trainer_feed(void);

/* ---- job_frames.c ---------------------------------------------------- */

extern void trainer_frame(const BicycleFrame *frame,
						  const char *body); /* for session_adopt: keeps a frame that has come */
extern void trainer_handle(void);            /* handles the frames that are whole */
extern void trainer_order(BicycleTrainFrame type);
extern void
trainer_stopped(void); /* nothing more is computed: brings the row to the state that is wanted */

#endif /* BICYCLE_TRAINER_H */
