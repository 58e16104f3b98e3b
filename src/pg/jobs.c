/*
 * jobs.c
 *	  Training jobs: their rows, and which of them have a trainer now.
 *
 * The rows are the truth and survive everything; shared memory holds only who
 * is running at the moment. The tables have no grants: the functions of this
 * extension write them with fixed statements, as the tables' owner. What a
 * session changes becomes known to trainers and launcher when it commits.
 *
 * A trainer's slot is filled in when the trainer is registered and taken over
 * by the process when it has come up, so that a trainer counts from the
 * beginning. A slot whose process does not come up is free again after a while.
 */
#include "bicycle.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "clock.h"

#define SAFE_PATH "pg_catalog, pg_temp"
#define START_TIME 5000 /* ms in which a trainer that was registered comes up */

static JobSlot *my_slot = NULL; /* of this process, if it is a trainer */
static bool changed = false;    /* in this transaction */
static List *stopping = NIL;    /* int64 *: jobs that this transaction stops; in its memory */

/* ---- Statements ---------------------------------------------------------- */

void
param_add(JobParams *p, Oid type, Datum value)
{
	Assert(p->n < lengthof(p->values));
	p->types[p->n] = type;
	p->values[p->n] = value;
	p->nulls[p->n++] = ' ';
}

void
param_add_null(JobParams *p, Oid type)
{
	param_add(p, type, (Datum) 0);
	p->nulls[p->n - 1] = 'n';
}

void
param_add_text(JobParams *p, const char *text)
{
	if (text)
		param_add(p, TEXTOID, CStringGetTextDatum(text));
	else
		param_add_null(p, TEXTOID);
}

Oid
jobs_table(void)
{
	Oid schema = catalog_schema(true);

	return OidIsValid(schema) ? get_relname_relid("bicycle_training_jobs", schema) : InvalidOid;
}

static Oid
owner_of_tables(void)
{
	HeapTuple tuple =
		SearchSysCache1(RELOID, ObjectIdGetDatum(catalog_table_oid("bicycle_training_jobs")));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for the table of training jobs");
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* An error on the way ends the transaction, which undoes both changes. */
uint64
jobs_run(const char *table, const char *statement, int expected, JobParams *p)
{
	const char *query = psprintf(statement, catalog_table(table));
	Oid user;
	int context;
	int nest = NewGUCNestLevel();
	uint64 rows;
	int rc;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of_tables(), context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", SAFE_PATH, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	rc = SPI_execute_with_args(query, p->n, p->types, p->values, p->nulls, false, 0);
	if (rc != expected)
		elog(ERROR, "statement on training jobs failed: %s", SPI_result_code_string(rc));
	rows = SPI_processed;
	AtEOXact_GUC(true, nest);
	SetUserIdAndSecContext(user, context);
	return rows;
}

static char *
text_column(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static int64
long_column(int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

#define READ_JOB                                                                                 \
	"SELECT model, owner::oid::int8, system_identifier, database::int8, pairs, search_path, "    \
	"options, start_version::int8, state, wanted,"                                               \
	" attempts::int8, checkpoint, iteration, iterations, data_digest, platform, version::int8, " \
	"error, sqlstate FROM %s WHERE job = $1"

bool
job_read(int64 job, Job *row, bool lock)
{
	JobParams p = { 0 };
	Datum digest;
	bool isnull;

	param_add(&p, INT8OID, Int64GetDatum(job));
	if (jobs_run("bicycle_training_jobs", lock ? READ_JOB " FOR UPDATE" : READ_JOB, SPI_OK_SELECT,
				 &p) == 0)
		return false;
	memset(row, 0, sizeof(*row));
	row->job = job;
	row->model = text_column(1);
	row->owner = (Oid) long_column(2);
	row->local =
		long_column(3) == (int64) GetSystemIdentifier() && (Oid) long_column(4) == MyDatabaseId;
	row->pairs = text_column(5);
	row->search_path = text_column(6);
	row->options = text_column(7);
	row->start_version = (int) long_column(8);
	row->state = text_column(9);
	row->wanted = text_column(10);
	row->attempts = (int) long_column(11);
	row->checkpoint = long_column(12);
	row->iteration = long_column(13);
	row->iterations = long_column(14);
	digest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 15, &isnull);
	row->data_digest = isnull ? NULL : DatumGetByteaPCopy(digest);
	row->platform = text_column(16);
	row->version = (int) long_column(17);
	row->error = text_column(18);
	row->sqlstate = text_column(19)
						? MAKE_SQLSTATE(text_column(19)[0], text_column(19)[1], text_column(19)[2],
										text_column(19)[3], text_column(19)[4])
						: ERRCODE_INTERNAL_ERROR;
	return true;
}

bool
job_is_active(const Job *row)
{
	return row->local && (strcmp(row->state, "queued") == 0 || strcmp(row->state, "running") == 0);
}

const char *
job_role_unfit(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool login;

	if (!HeapTupleIsValid(tuple))
		return "does not exist";
	login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (!login)
		return "may not log in";
	if (bicycle_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) != ACLCHECK_OK)
		return "may not connect to the database";
	return NULL;
}

/* ---- Trainers in shared memory ------------------------------------------- */

/* Under the lock. */
static bool
slot_expected(const JobSlot *slot)
{
	return slot->pid == 0 && slot->registered_ms != 0 &&
		   clock_ms() - slot->registered_ms < START_TIME;
}

/* Under the lock; without the slot of that job. */
static int
count_running(const BicycleShared *shared, const JobSlot *except)
{
	int n = 0;

	for (int i = 0; i < JOB_SLOTS; i++)
		if (&shared->jobs[i] != except &&
			(shared->jobs[i].pid != 0 || slot_expected(&shared->jobs[i])))
			n++;
	return n;
}

/* Under the lock; NULL if there is none. */
static JobSlot *
slot_of(BicycleShared *shared, Oid database, int64 job)
{
	for (int i = 0; i < JOB_SLOTS; i++)
	{
		JobSlot *slot = &shared->jobs[i];

		if (slot->registered_ms != 0 && slot->database == database && slot->job == job)
			return slot;
	}
	return NULL;
}

/*
 * Under the lock: the slot of a job, or a free one for it; NULL if all are
 * taken.
 */
static JobSlot *
slot_for(BicycleShared *shared, Oid database, int64 job)
{
	JobSlot *slot = slot_of(shared, database, job);

	for (int i = 0; i < JOB_SLOTS && slot == NULL; i++)
		if (shared->jobs[i].pid == 0 && !slot_expected(&shared->jobs[i]))
			slot = &shared->jobs[i];
	return slot;
}

int
trainers_running(void)
{
	BicycleShared *shared = shared_attach();
	int n;

	LWLockAcquire(&shared->lock, LW_SHARED);
	n = count_running(shared, NULL);
	LWLockRelease(&shared->lock);
	return n;
}

TrainerPresence
trainer_presence(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	TrainerPresence presence = TRAINER_NONE;
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_SHARED);
	slot = slot_of(shared, database, job);
	if (slot)
		presence = slot->pid != 0        ? TRAINER_ALIVE
				   : slot_expected(slot) ? TRAINER_EXPECTED
										 : TRAINER_LOST;
	LWLockRelease(&shared->lock);
	return presence;
}

/* Frees the slot of a job if no process has it. */
static void
forget_slot(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_of(shared, database, job);
	if (slot && slot->pid == 0)
		memset(slot, 0, sizeof(*slot));
	LWLockRelease(&shared->lock);
}

bool
trainer_register(const JobStart *start)
{
	BicycleShared *shared = shared_attach();
	BackgroundWorker worker;
	JobSlot *slot;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_for(shared, start->database, start->job);
	if (slot && slot->pid == 0)
	{
		memset(slot, 0, sizeof(*slot));
		slot->database = start->database;
		slot->job = start->job;
		slot->registered_ms = clock_ms();
	}
	LWLockRelease(&shared->lock);
	bgworker_fill(&worker, "bicycle trainer", "bicycle_trainer_main", true);
	snprintf(worker.bgw_name, BGW_MAXLEN, "bicycle trainer of job " INT64_FORMAT, start->job);
	StaticAssertStmt(sizeof(*start) <= BGW_EXTRALEN, "what a trainer is told must fit");
	memcpy(worker.bgw_extra, start, sizeof(*start));
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
		return true;
	forget_slot(start->database, start->job);
	return false;
}

static void
release_slot(int code, Datum arg)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	memset(my_slot, 0, sizeof(*my_slot));
	LWLockRelease(&shared->lock);
	launcher_wake(MyDatabaseId, true); /* for this job if it has not ended, or for the next one */
}

bool
trainer_claim(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	JobSlot *slot;

	Assert(my_slot == NULL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = slot_for(shared, database, job);
	if (slot && slot->pid == 0 && count_running(shared, slot) < bicycle_max_training_jobs)
	{
		memset(slot, 0, sizeof(*slot));
		slot->registered_ms = clock_ms();
		slot->database = database;
		slot->job = job;
		slot->pid = MyProcPid;
		my_slot = slot;
	}
	LWLockRelease(&shared->lock);
	if (my_slot)
		before_shmem_exit(release_slot, (Datum) 0);
	else
		forget_slot(database, job);
	return my_slot != NULL;
}

void
trainer_reading(bool reading)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_slot->reading = reading;
	my_slot->interrupted = false;
	LWLockRelease(&shared->lock);
}

bool
trainer_interrupted(void)
{
	return my_slot->interrupted; /* one word, read without the lock: signal handlers ask, too */
}

bool
trainer_poked(void)
{
	BicycleShared *shared = shared_attach();
	bool poked;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	poked = my_slot->poked;
	my_slot->poked = false;
	LWLockRelease(&shared->lock);
	return poked;
}

static bool
is_stopping(int64 job)
{
	ListCell *cell;

	foreach (cell, stopping)
		if (*(int64 *) lfirst(cell) == job)
			return true;
	return false;
}

/*
 * Signals are sent under the lock, without which a slot's process might be
 * another one by now.
 */
static void
poke_trainers(void)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JOB_SLOTS; i++)
	{
		JobSlot *slot = &shared->jobs[i];
		PGPROC *proc;

		if (slot->pid == 0 || slot->database != MyDatabaseId)
			continue;
		slot->poked = true;
		if (slot->reading && is_stopping(slot->job))
		{
			slot->interrupted = true;
			kill(slot->pid, SIGINT);
		}
		proc = BackendPidGetProc(slot->pid);
		if (proc)
			SetLatch(&proc->procLatch);
	}
	LWLockRelease(&shared->lock);
}

/* ---- At the end of a transaction ----------------------------------------- */

static void
transaction_ends(XactEvent event, void *arg)
{
	if (!changed)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "cannot prepare a transaction that has started or changed a training job")));
			break;
		case XACT_EVENT_COMMIT:
			changed = false;
			poke_trainers();
			stopping = NIL;
			launcher_wake(MyDatabaseId, false);
			break;
		case XACT_EVENT_ABORT:
			changed = false;
			stopping = NIL;
			break;
		default:
			break;
	}
}

void
jobs_changed(void)
{
	static bool registered = false;

	(void) shared_attach(); /* which may fail, as nothing may once the transaction has committed */
	if (!registered)
	{
		RegisterXactCallback(transaction_ends, NULL);
		registered = true;
	}
	changed = true;
}

/*
 * If a subtransaction does so and is rolled back, the job is interrupted all
 * the same and begins again.
 */
void
job_stopping(int64 job)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	int64 *copy = palloc(sizeof(*copy));

	*copy = job;
	stopping = lappend(stopping, copy);
	MemoryContextSwitchTo(old);
	jobs_changed();
}
