/*
 * jobs.c
 *	  Training jobs: their rows, and which of them have a trainer now.
 *
 * The rows are the truth and survive everything; shared memory holds only who is running at the moment.  The tables have no grants: the functions of this
 * extension write them with fixed statements, as the tables' owner.  What a session changes becomes known to trainers and launcher when it commits.
 */
#include "bicycle.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
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
#include "utils/syscache.h"

#define SAFE_PATH		"pg_catalog, pg_temp"

static TrainerSlot *my_slot = NULL; /* of this process, if it is a trainer */
static bool changed = false;	/* in this transaction */

/* ---- Statements ---------------------------------------------------------------------------------------------------------------------------- */

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

bool
jobs_installed(void)
{
	Oid			schema = catalog_schema(true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("bicycle_training_jobs", schema));
}

static Oid
owner_of_tables(void)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(catalog_table_oid("bicycle_training_jobs")));
	Oid			owner;

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
	Oid			user;
	int			context;
	int			nest = NewGUCNestLevel();
	uint64		rows;
	int			rc;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of_tables(), context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", SAFE_PATH, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
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
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

bool
job_read(int64 job, Job *row, bool lock)
{
	JobParams	p = {0};
	Datum		digest;
	bool		isnull;

	param_add(&p, INT8OID, Int64GetDatum(job));
	if (jobs_run("bicycle_training_jobs", lock ?
				 "SELECT model, owner::int8, owner_name, system_identifier, database::int8, pairs, search_path, options, start_version::int8, state, wanted,"
				 " attempts::int8, checkpoint, iteration, iterations, data_digest, platform, version::int8, error, sqlstate FROM %s WHERE job = $1 FOR UPDATE" :
				 "SELECT model, owner::int8, owner_name, system_identifier, database::int8, pairs, search_path, options, start_version::int8, state, wanted,"
				 " attempts::int8, checkpoint, iteration, iterations, data_digest, platform, version::int8, error, sqlstate FROM %s WHERE job = $1",
				 SPI_OK_SELECT, &p) == 0)
		return false;
	memset(row, 0, sizeof(*row));
	row->job = job;
	row->model = text_column(1);
	row->local = long_column(4) == (int64) GetSystemIdentifier() && (Oid) long_column(5) == MyDatabaseId;
	row->owner = row->local ? (Oid) long_column(2) : get_role_oid(text_column(3), true);
	row->pairs = text_column(6);
	row->search_path = text_column(7);
	row->options = text_column(8);
	row->start_version = (int) long_column(9);
	row->state = text_column(10);
	row->wanted = text_column(11);
	row->attempts = (int) long_column(12);
	row->checkpoint = long_column(13);
	row->iteration = long_column(14);
	row->iterations = long_column(15);
	digest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 16, &isnull);
	row->data_digest = isnull ? NULL : DatumGetByteaPCopy(digest);
	row->platform = text_column(17);
	row->version = (int) long_column(18);
	row->error = text_column(19);
	row->sqlstate = text_column(20) ? MAKE_SQLSTATE(text_column(20)[0], text_column(20)[1], text_column(20)[2], text_column(20)[3], text_column(20)[4]) :
		ERRCODE_INTERNAL_ERROR;
	return true;
}

bool
job_is_active(const Job *row)
{
	return row->local && (strcmp(row->state, "queued") == 0 || strcmp(row->state, "running") == 0);
}

/* ---- Trainers in shared memory ------------------------------------------------------------------------------------------------------------- */

int
trainers_running(void)
{
	BicycleShared *shared = shared_attach();
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_TRAINERS; i++)
		if (shared->trainers[i].pid != 0)
			n++;
	LWLockRelease(&shared->lock);
	return n;
}

/* Under the lock; NULL if there is none. */
static TrainerSlot *
slot_of(BicycleShared *shared, Oid database, int64 job)
{
	for (int i = 0; i < MAX_TRAINERS; i++)
	{
		TrainerSlot *slot = &shared->trainers[i];

		if (slot->pid != 0 && slot->database == database && slot->job == job)
			return slot;
	}
	return NULL;
}

bool
trainer_alive(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();
	bool		alive;

	LWLockAcquire(&shared->lock, LW_SHARED);
	alive = slot_of(shared, database, job) != NULL;
	LWLockRelease(&shared->lock);
	return alive;
}

static void
release_slot(int code, Datum arg)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	memset(my_slot, 0, sizeof(*my_slot));
	LWLockRelease(&shared->lock);
	launcher_wake(MyDatabaseId, true);	/* for this job if it has not ended, or for the next one */
}

bool
trainer_claim(Oid database, int64 job)
{
	BicycleShared *shared = shared_attach();

	Assert(my_slot == NULL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (slot_of(shared, database, job) == NULL)
	{
		int			running = 0;
		TrainerSlot *free = NULL;

		for (int i = 0; i < MAX_TRAINERS; i++)
		{
			if (shared->trainers[i].pid != 0)
				running++;
			else if (free == NULL)
				free = &shared->trainers[i];
		}
		if (free && running < bicycle_max_training_jobs)
		{
			free->pid = MyProcPid;
			free->database = database;
			free->job = job;
			free->poked = false;
			my_slot = free;
		}
	}
	LWLockRelease(&shared->lock);
	if (my_slot)
		before_shmem_exit(release_slot, (Datum) 0);
	return my_slot != NULL;
}

bool
trainer_poked(void)
{
	BicycleShared *shared = shared_attach();
	bool		poked;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	poked = my_slot->poked;
	my_slot->poked = false;
	LWLockRelease(&shared->lock);
	return poked;
}

static void
poke_trainers(void)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_TRAINERS; i++)
	{
		TrainerSlot *slot = &shared->trainers[i];
		PGPROC	   *proc;

		if (slot->pid == 0 || slot->database != MyDatabaseId)
			continue;
		slot->poked = true;
		proc = BackendPidGetProc(slot->pid);
		if (proc)
			SetLatch(&proc->procLatch);
	}
	LWLockRelease(&shared->lock);
}

/* ---- At the end of a transaction ----------------------------------------------------------------------------------------------------------- */

static void
transaction_ends(XactEvent event, void *arg)
{
	if (!changed)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that has started or changed a training job")));
			break;
		case XACT_EVENT_COMMIT:
			changed = false;
			poke_trainers();
			launcher_wake(MyDatabaseId, false);
			break;
		case XACT_EVENT_ABORT:
			changed = false;
			break;
		default:
			break;
	}
}

void
jobs_changed(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(transaction_ends, NULL);
		registered = true;
	}
	changed = true;
}
