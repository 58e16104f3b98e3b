/*
 * bgworker.h
 *	  The background workers of this library.
 */
#ifndef BICYCLE_BGWORKER_H
#define BICYCLE_BGWORKER_H

#include "postgres.h"

#include "postmaster/bgworker.h"

/* Workers of which a server has one each. */
typedef enum SoleWorker
{
	WORKER_SUPERVISOR,
	WORKER_LAUNCHER,
	SOLE_WORKERS
} SoleWorker;

/*
 * A worker that is never restarted; with a database and only on a primary, as
 * jobs need it, or without one and on standbys too.
 */
extern void bgworker_fill(BackgroundWorker *worker, const char *type, const char *function,
						  bool for_jobs);

/* From _PG_init under shared_preload_libraries. */
extern void sole_workers_preload(void);
extern bool sole_workers_preloaded(void);

/*
 * Registers a dynamic worker if there is none. False if there is no worker slot
 * for it. In single-user mode there are no workers, and none is missed.
 */
extern bool sole_worker_ensure(SoleWorker which);

/* Detail and hint of an error of who has found no worker slot. */
#define NO_WORKER_SLOT \
	errdetail("All background worker slots are in use."), errhint("Raise max_worker_processes.")

/*
 * In a worker: takes its role until this process ends, and returns 0; or
 * returns the PID of the process that has it.
 */
extern pid_t sole_worker_begin(SoleWorker which);

/*
 * From a session: sole_worker_ensure of the supervisor. Without a worker slot:
 * false with missing_ok, else 53000.
 */
extern bool supervisor_ensure(bool missing_ok);

#endif /* BICYCLE_BGWORKER_H */
