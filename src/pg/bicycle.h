/*
 * bicycle.h
 *	  What the files of src/pg share: settings, the state in shared memory, the
 *	  client of the engine, the catalog of models.
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
#include "storage/buffile.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "common/protocol.h"
#include "common/version.h"

#include "bgworker.h"
#include "pg_compat.h"
#include "shared.h"

/* ---- settings.c ---------------------------------------------------------- */

extern char *bicycle_device;
extern int bicycle_precision;      /* values of NnPrecision: 0 auto, 1 fp32, 2 bf16 */
extern int bicycle_max_model_size; /* MB */
extern int bicycle_max_image_pixels;
extern int bicycle_max_request_size; /* kB */
extern int bicycle_debug_fault;
extern char *bicycle_model;
extern int bicycle_prefetch;
extern bool bicycle_batching;
extern int bicycle_priority;      /* 0 or BICYCLE_FLAG_BULK */
extern int bicycle_output_format; /* BicycleOutputFormat */
extern int bicycle_jpeg_quality;
extern int bicycle_request_timeout; /* ms, 0 = none */
extern int bicycle_max_training_jobs;
extern int bicycle_train_memory;              /* MB */
extern int bicycle_train_disk;                /* MB */
extern int bicycle_train_checkpoint_interval; /* s */
extern int bicycle_train_stuck_timeout;       /* s */

extern void settings_define(void);

/* Appends "set NAME VALUE\n" for each setting that the engine reads. */
extern void settings_for_engine(StringInfo out);

/* ---- supervisor.c -------------------------------------------------------- */

extern PGDLLEXPORT void bicycle_supervisor_main(Datum arg);

/* ---- catalog.c: the tables of the extension, as the caller sees them ----- */

typedef struct Model
{
	char name[BICYCLE_MAX_NAME];
	int version;
	uint8 hash[BICYCLE_HASH_BYTES];
	int nz;
	bool has_encoder;
	uint32 precision; /* of its config, values of NnPrecision; fp32 if the config says auto */
} Model;

extern void catalog_init(void); /* from _PG_init: registers invalidation callbacks */

/*
 * Finds a version of a model, as the caller: SELECT on both tables is checked
 * whether or not the model is resident, row security on bicycle_models applies.
 * model NULL means bicycle.model; version NULL the current one. 42501, 42704.
 */
extern Model *model_lookup(const text *model, const int *version);

/*
 * The schema that CREATE EXTENSION put everything in; InvalidOid if there is no
 * extension here and missing_ok is set.
 */
extern Oid catalog_schema(bool missing_ok);

/* "schema.table", quoted, for queries. */
extern const char *catalog_table(const char *table);
extern Oid catalog_table_oid(const char *table);
extern void catalog_check_rights(const char *table, AclMode mode); /* 42501 */

/* ---- session.c: this session's connection to the engine ------------------ */

typedef struct Call Call;

/*
 * A request whose body is in memory and which is sent again, by itself, if the
 * engine ends before it has answered. The body is copied. The request belongs
 * to CurrentResourceOwner: an error withdraws it. model is NULL for INFO; it is
 * copied too.
 */
extern Call *call_submit(BicycleFrameType type, const Model *model, const BicycleImageRequest *head,
						 const float *z, const void *image, size_t image_length);

/*
 * Waits for the answer, whatever it is: afterwards call_wait returns or
 * raises at once.
 */
extern void call_settle(Call *call);

/*
 * Waits for the answer, and raises it if it is an error. The answer's bytes
 * belong to the request.
 */
extern const char *call_wait(Call *call, size_t *length);
extern void call_free(Call *call);

/*
 * STATUS and CACHE: one small frame each way. Returns NULL if the engine is not
 * there and missing_ok is set.
 */
extern Call *call_simple(BicycleFrameType type, bool missing_ok);

/*
 * A request with streams: call_open sends the header and waits for its
 * GRANT; false means that the connection was lost, and the caller may start
 * again with a new request. The same holds for every function below that
 * returns bool. Errors of the engine are raised.
 */
extern Call *call_open(BicycleFrameType type, const void *head, size_t head_length,
					   const void *tail, size_t tail_length);
extern bool call_granted(Call *call);
extern bool call_write(Call *call, const void *bytes, size_t length);
extern bool call_end(Call *call);
extern bool call_result(Call *call, const char **head, size_t *length);
extern bool call_read(Call *call, void *bytes,
					  size_t length);  /* exactly that many bytes of the result's stream */
extern bool call_read_end(Call *call); /* the END of the result's stream; XX000 if there is more */

/*
 * In a trainer: the stream to its training engine, which starts as TRAIN_BEGIN.
 * call_write and call_end as above; call_send adds a whole frame once
 * there is room; call_free ends nothing but the request.
 */
extern Call *call_train(const void *head, size_t head_length, const void *tail, size_t tail_length);
extern bool call_send(Call *call, BicycleFrameType type, const void *head, size_t head_length,
					  const void *tail, size_t tail_length);

/*
 * Calls `attempt` until it says that the connection held, at most twice if the
 * engine had begun each time: 58000.
 */
extern void call_retry(bool (*attempt)(void *arg), void *arg, const char *what);

/*
 * Engine texts are UTF-8 and may quote files: a copy in which '?' stands for
 * what this database's encoding or a terminal cannot take.
 */
extern char *session_text(const char *text);

extern void session_init(void); /* from _PG_init: registers callbacks */

/* ---- models.c ------------------------------------------------------------ */

extern char *model_name_argument(FunctionCallInfo fcinfo, int i);    /* 22004, 22023 */
extern char *model_options_argument(FunctionCallInfo fcinfo, int i); /* jsonb as text; NULL is {} */

/*
 * Taken by whoever writes a model or its jobs, until the end of the
 * transaction.
 */
extern void model_lock(const char *name);

/*
 * Writes a new version as the caller and returns its number. It becomes current
 * if `replaces` is NULL or names the current version (0: there is none).
 * tensors: a stream as model_stream_spool leaves it.
 */
extern int model_store(const char *name, const char *method, int64 iterations,
					   const BicycleImported *head, const char *config, BufFile *tensors,
					   const int *replaces);

/* ---- model_stream.c: models on the wire ---------------------------------- */

/* Sends a version's tensors as LOAD; false if the connection was lost. */
extern bool model_stream_load(const Model *model);

/*
 * Sends the tensors of one network as EXPORT; returns the file, or NULL if the
 * connection was lost.
 */
extern bytea *model_stream_export(const Model *model, const char *network, const char *format);

/*
 * In a trainer: TRAIN_BEGIN with a version's tensors. head's stream_length and
 * options_length are filled here. NULL if the connection was lost.
 */
typedef struct BicycleTrainBegin BicycleTrainBegin;
extern Call *model_stream_train(BicycleTrainBegin *head, const char *options, const Model *model);

/*
 * Reads a result's stream of that many bytes into a temporary file, rewound;
 * NULL if the connection was lost.
 */
extern BufFile *model_stream_spool(Call *call, uint64 length);

/*
 * Writes the tensors in such a file into rows of bicycle_tensors, as the
 * caller.
 */
extern void model_stream_store(BufFile *file, int ntensors, const char *model, int version);

extern void model_stream_check_tensor(const BicycleTensor *t); /* 08P01 if its strings do not end */
extern Datum model_stream_shape(const BicycleTensor *t);       /* int[] */

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

/* ---- latent.c ------------------------------------------------------------ */

/*
 * A latent code as the user gave it: 2202E, 22004, 22023 (not finite). Returns
 * its length and, palloc'ed or in the array, its values.
 */
extern const float *latent_values(ArrayType *z, int *nz);
extern void latent_check_length(int nz, const Model *model); /* 22023 */
extern ArrayType *latent_array(const float *values, int nz);

/* ---- translate.c --------------------------------------------------------- */

/*
 * Common to TRANSLATE, ENCODE and INFO: fills a request from the settings.
 * versioned: the session's output and precision do not count.
 */
extern void image_request_head(BicycleImageRequest *head, const Model *model, bool versioned);
extern Call *translate_submit(const Model *model, bool versioned, const float *z,
							  const bytea *image);
extern bytea *
image_argument(Datum value); /* 54000 beyond bicycle.max_request_size, before it is fetched */
extern bytea *call_wait_bytea(
	Call *call); /* waits, copies the answer into CurrentMemoryContext, frees the request */
extern int translate_window(void); /* requests that one statement keeps in flight */
/* ... and bytes of their images, at least one */
#define TRANSLATE_WINDOW_BYTES ((Size) 64 * 1024 * 1024)

/* ---- encode.c ------------------------------------------------------------ */

extern Call *encode_submit(const Model *model, bool versioned,
						   const bytea *image); /* 55000 if the model has no encoder */

/*
 * Waits, frees the call; mean and logarithm of the variance of the
 * posterior, nz values each, palloc'ed one after the other.
 */
extern float *encode_collect(Call *call, const Model *model);

/* ---- batch_plan.c, batch_exec.c: calls of many rows at once -------------- */

extern void batch_init(void); /* from _PG_init: hooks into the planner */

#endif /* BICYCLE_PG_H */
