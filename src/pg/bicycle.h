/*
 * bicycle.h
 *	  What the files of src/pg share and has no header of its own.
 *
 * The library runs in backends, in parallel workers and in the supervisor. It
 * never decodes an image, reads a model file or starts a thread; all of that
 * happens in the engine (src/engine), reached over a socket by
 * common/protocol.h.
 */
#ifndef BICYCLE_PG_H
#define BICYCLE_PG_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "common/protocol.h"
#include "common/version.h"

#include "bgworker.h"
#include "gucs.h"
#include "pg_compat.h"
#include "shared.h"

/* ---- supervisor.c -------------------------------------------------------- */

extern PGDLLEXPORT void bicycle_supervisor_main(Datum arg);

/* ---- jobs.c: rows of training jobs, and who trains them now -------------- */

#define JOB_TRIES 5 /* starts of a trainer without a checkpoint in between */

/* A row of bicycle_training_jobs, palloc'ed. */
typedef struct Job
{
	int64 job;
	char *model;
	Oid owner;  /* InvalidOid if the row came from elsewhere and there is no role of that name */
	bool local; /* was started in this database of this cluster */
	char *pairs;
	char *search_path;
	char *options;     /* canonical JSON */
	int start_version; /* 0: none */
	char *state;
	char *wanted; /* "running", or what its trainer should bring it to: "paused", "cancelled" */
	int attempts;
	int64 checkpoint; /* iteration of the last one; 0: none */
	int64 iteration;
	int64 iterations;   /* 0: not known yet */
	bytea *data_digest; /* NULL: not known yet */
	char *platform;     /* NULL: not known yet */
	int version;        /* 0: none yet */
	char *error;        /* NULL: none */
	int sqlstate;       /* of the error */
} Job;

/* Parameters of a statement. */
typedef struct JobParams
{
	int n;
	Oid types[16];
	Datum values[16];
	char nulls[16];
} JobParams;

extern void param_add(JobParams *p, Oid type, Datum value);
extern void param_add_text(JobParams *p, const char *text); /* NULL is null */
extern void param_add_null(JobParams *p, Oid type);

/*
 * Runs a statement on the job tables, or on tensors, as their owner and under a
 * safe search_path; within SPI_connect. %s in the statement, if there is one,
 * is the table. Returns the number of rows. There are no grants on these
 * tables: this is the only way to write them.
 */
extern uint64 jobs_run(const char *table, const char *statement, int expected, JobParams *p);
extern bool job_read(int64 job, Job *row,
					 bool lock); /* false: no such job; within SPI_connect, which owns the memory */
extern bool job_is_active(const Job *row); /* queued or running, here */

extern Oid jobs_table(void); /* InvalidOid: the extension is not here */

/* Why a role cannot run a job, to be said after its name; NULL if it can. */
extern const char *job_role_unfit(Oid role);

typedef enum TrainerPresence
{
	TRAINER_NONE,
	TRAINER_EXPECTED, /* registered a moment ago */
	TRAINER_LOST,     /* registered, and has not come up */
	TRAINER_ALIVE
} TrainerPresence;

extern int trainers_running(void); /* those that are expected included */
extern TrainerPresence trainer_presence(Oid database, int64 job);
extern bool trainer_register(const JobStart *start); /* false: no worker slot */

/* In a trainer: */
extern bool trainer_claim(
	Oid database,
	int64 job); /* until this process ends; false: enough others run, or the job has a trainer */
extern bool trainer_poked(void); /* and clears it */
/*
 * from here on whoever stops the job interrupts this process by SIGINT, or no
 * longer
 */
extern void trainer_reading(bool reading);
extern bool trainer_interrupted(void); /* that has happened */

extern void jobs_changed(
	void); /* at commit: trainers of this database look at their rows, the launcher at all */
extern void job_stopping(int64 job); /* the same, and interrupts the job's query if it runs */

/* ---- train.c ------------------------------------------------------------- */

/*
 * Prepares the query of a job as the current user; within SPI_connect. 42601 if
 * it is not one query that only reads, 42804 if it does not give two bytea
 * columns, 0A000 if it uses temporary tables.
 */
typedef struct _SPI_plan *SPIPlanPtr;
extern SPIPlanPtr pairs_prepare(const char *query);

/*
 * 55006 if a job on the model is not finished; of a version other than 0, if
 * such a job started from it. Within SPI_connect, and under model_lock.
 */
extern void train_check_unused(const char *model, int version);

extern void train_check_rights(void); /* of the current user, to store what a job makes: 42501 */

/* ---- job_worker.c (its own parts: job_worker.h), launcher.c -------------- */

extern PGDLLEXPORT void bicycle_trainer_main(Datum arg);

/*
 * Makes the launcher look at a database; last, if a job of it was just
 * `served`. Raises nothing.
 */
extern void launcher_wake(Oid database, bool served);
extern PGDLLEXPORT void bicycle_launcher_main(Datum arg);
extern PGDLLEXPORT void bicycle_scan_main(Datum arg);

#endif /* BICYCLE_PG_H */
