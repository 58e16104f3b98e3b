/*
 * jobs.h
 *	  Rows of training jobs.
 *
 * The columns that C reads are named here once: JOB_COLUMNS makes the struct,
 * the list of a SELECT, what reads a row and what copies a Job.
 */
#ifndef BICYCLE_JOBS_H
#define BICYCLE_JOBS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "pg/catalog_run.h"
#include "common/job_state.h"

/* The tables of jobs. */
#define JOBS "bicycle_training_jobs"
#define JOB_LOSSES "bicycle_training_losses"
#define JOB_PREVIEWS "bicycle_training_previews"
#define JOB_CHECKPOINTS "bicycle_training_checkpoints"

#define JOB_TRIES 5       /* starts of a worker without a checkpoint in between */
#define JOB_RETRY_FIRST 1 /* s before the second try; doubled for each further one */
#define JOB_RETRY_LONGEST (JOB_RETRY_FIRST << (JOB_TRIES - 1))

/*
 * COLUMN(type, member, SQL). Null is 0 or NULL; of a sqlstate, an internal
 * error's.
 */
#define JOB_COLUMNS(COLUMN)                                                             \
	COLUMN(LONG, job, "job")                                                            \
	COLUMN(TEXT, model, "model")                                                        \
	/* InvalidOid if the row came from elsewhere and there is no role of that name */   \
	COLUMN(OID, owner, "owner::oid")                                                    \
	COLUMN(LONG, system_identifier, "system_identifier")                                \
	COLUMN(OID, database, "database")                                                   \
	COLUMN(TEXT, pairs, "pairs")                                                        \
	COLUMN(TEXT, search_path, "search_path")                                            \
	COLUMN(TEXT, options, "options")            /* canonical JSON */                    \
	COLUMN(INT, start_version, "start_version") /* 0: none */                           \
	COLUMN(STATE, state, "state")                                                       \
	/* JOB_RUNNING, or what its worker should bring it to: JOB_PAUSED, JOB_CANCELLED */ \
	COLUMN(STATE, wanted, "wanted")                                                     \
	COLUMN(INT, attempts, "attempts")                                                   \
	COLUMN(TIME, next_attempt, "next_attempt")                                          \
	COLUMN(LONG, checkpoint, "checkpoint") /* iteration of the last one; 0: none */     \
	COLUMN(LONG, iteration, "iteration")                                                \
	COLUMN(LONG, iterations, "iterations")    /* 0: not known yet */                    \
	COLUMN(BYTES, data_digest, "data_digest") /* NULL: not known yet */                 \
	COLUMN(TEXT, platform, "platform")        /* NULL: not known yet */                 \
	COLUMN(INT, version, "version")           /* 0: none yet */                         \
	COLUMN(TEXT, error, "error")              /* NULL: none */                          \
	COLUMN(SQLSTATE, sqlstate, "sqlstate")

#define JOB_MEMBER_LONG int64
#define JOB_MEMBER_TEXT char *
#define JOB_MEMBER_OID Oid
#define JOB_MEMBER_INT int
#define JOB_MEMBER_STATE JobState
#define JOB_MEMBER_TIME TimestampTz
#define JOB_MEMBER_BYTES bytea *
#define JOB_MEMBER_SQLSTATE int
#define JOB_MEMBER(type, member, sql) JOB_MEMBER_##type member;

typedef struct Job
{
	JOB_COLUMNS(JOB_MEMBER)
} Job;

/*
 * Within SPI_connect, which owns what they return. At READ COMMITTED a
 * statement sees what others have committed before it.
 */
extern bool job_read(int64 job, Job *row, bool lock); /* false: there is no such job */
extern Job *jobs_unfinished(int *count);              /* of this database, in order of waiting */

extern void job_copy(Job *to, const Job *from); /* to CurrentMemoryContext */

extern const char *job_state_name(JobState state);
extern void param_add_state(Params *p, JobState state);

extern bool job_is_local(const Job *row);  /* of this database of this cluster */
extern bool job_is_active(const Job *row); /* queued or running, here */

extern Oid jobs_table(void); /* InvalidOid: the extension is not here */

/* Why a role cannot run a job, to be said after its name; NULL if it can. */
extern const char *job_role_unfit(Oid role);

/* That the current user may store what a job makes: 42501. */
extern void job_check_rights(void);

/*
 * An unfinished job on the model but for `except`, with a version other than 0
 * only one that started from that; 0 if there is none. Within SPI_connect, and
 * under model_lock.
 */
extern int64 job_on_model(const char *model, int64 except, int version);

/* 55006 if job_on_model finds one: the model or version cannot be dropped. */
extern void job_check_unused(const char *model, int version);

/* Detail and hint of an error of who finds that job in his way. */
#define JOB_NOT_FINISHED(job)                                                           \
	errdetail("Job " INT64_FORMAT " is not finished.", job),                            \
		errhint("Wait for it with CALL bicycle_wait(" INT64_FORMAT "), or end it with " \
				"bicycle_cancel.",                                                      \
				job)

#endif /* BICYCLE_JOBS_H */
