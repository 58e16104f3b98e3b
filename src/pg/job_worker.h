/*
 * job_worker.h
 *	  What the files of a job's worker share: its run, the transactions on its
 *	  row, its engine, what may interrupt it. job_worker.c tells how a run goes.
 */
#ifndef BICYCLE_JOB_WORKER_H
#define BICYCLE_JOB_WORKER_H

#include "postgres.h"

#include "common/run_protocol.h"
#include "pg/jobs.h"
#include "pg/pg_compat.h"

/*
 * The run of this process. job_worker.c fills it in; the handlers of frames
 * keep `job`, `running` and `checkpoint_ms` up to date.
 */
typedef struct JobWorker
{
	MemoryContext context; /* lives as long as the worker: the job, frames that wait */
	/*
	 * as it was when the run began, but for what the run knows better:
	 * attempts, checkpoint, iterations
	 */
	Job job;
	int64 start_iterations; /* behind the version to start from */
	int64 checkpoint_ms;    /* of the last checkpoint, or of the beginning */
	/*
	 * The checkpoint to start from is the last one: only the model is to be
	 * stored.
	 */
	bool complete;
	bool running;  /* RUN has been sent, and the engine has not said that it is done */
	bool finished; /* the row is in its new state, or gone: the worker ends */
} JobWorker;

extern JobWorker job_worker;

extern PGDLLEXPORT void bicycle_trainer_main(Datum arg);

/* ---- job_worker_row.c: transactions on the job's row --------------------- */

/*
 * Starts a transaction with SPI connected; false, and the run is finished, if
 * the extension is gone or another one.
 */
extern bool job_worker_begin(void);
extern void job_worker_end(void);

/*
 * The same, and the job's row is there until the transaction ends: what belongs
 * to a job is written within it only.
 */
extern bool job_worker_begin_writing(void);

/* Within them. */

/* Locks the job's row. False, and the run is finished: it is gone. */
extern bool job_worker_hold_row(void);
extern void job_worker_params(Params *p); /* starts the parameters of a statement: $1 = job */
extern void job_worker_run(const char *table, const char *statement, int expected, Params *p);
/* Of the job's row; without one the run is finished. */
extern void job_worker_update(const char *statement, Params *p);

/*
 * Adds to the job's notes. A cause, a bit of the column `noted`, is noted once
 * in the life of a job; 0 is none.
 */
extern void job_worker_note(int cause, const char *note);

/*
 * A transaction of its own: nothing is computed any more, and the run is
 * finished.
 */
extern void job_worker_stopped(void);

/* ---- job_worker_stop.c: what interrupts the worker ----------------------- */

#define JOB_LAST_SECONDS 15 /* from SIGTERM to the end of the worker, wherever it is */

extern void job_worker_take_signals(void);

/*
 * For how many seconds SIGTERM leaves alone what this process does. 0: it is
 * interrupted at once, by an error that ends the run and is no failure of the
 * job.
 */
extern void job_worker_patience(int seconds);

/* Whether somebody waits for the last connection to the database to end. */
extern bool job_worker_in_the_way(void);

/*
 * Between two pairs: interrupts this process, as SIGTERM would, if somebody
 * wants to have the database for himself.
 */
extern void job_worker_make_way(void);

/* ---- job_engine.c: the training engine of the run ------------------------ */

/*
 * Starts it and waits until it is ready: 55000 if it is of another version.
 * Whole frames go to `frame`.
 */
extern void job_engine_start(void (*frame)(int engine, const BicycleFrame *frame,
										   const char *body));
extern void job_engine_settings(bool go); /* once more after a reload: without `go` */
extern void job_engine_heartbeat(void);   /* once a turn */
extern void job_engine_yield(void); /* likewise: what it may have of its GPU beside sessions */
extern void job_engine_order(BicycleTrainFrame type); /* a frame without a body */

/* The connection to it has ended: tells how. */
pg_noreturn extern void job_engine_lost(void);

/* ---- job_pairs.c --------------------------------------------------------- */

/* Streams weights and pairs to the engine, in one read-only transaction. */
extern void job_pairs_send(void);

/* ---- job_frames.c -------------------------------------------------------- */

extern void job_frames_take(int engine, const BicycleFrame *frame, const char *body); /* keeps it */
extern void job_frames_handle(void); /* those that are whole */

#endif /* BICYCLE_JOB_WORKER_H */
