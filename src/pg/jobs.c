/*
 * jobs.c
 *	  Training jobs: their rows.
 *
 * R1 The rows are the truth and survive everything. Shared memory holds only
 *    who is running at the moment (job_slots.c).
 * R2 The functions of this extension write them as the tables' owner
 *    (catalog_run.c), and whoever changes one says so: jobs_changed.
 * R3 A job is active if its row says so and names this database of this
 *    cluster. A row that was restored or replicated from elsewhere is nobody's
 *    to run, until bicycle_resume takes it over.
 */
#include "pg/jobs.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "pg/bicycle.h"
#include "pg/catalog.h"
#include "pg/job_slots.h"

PG_FUNCTION_INFO_V1(bicycle_drop_job);

/* ---- States -------------------------------------------------------------- */

static const char *const state_names[] = {
#define STATE_NAME(state, name) [state] = name,
	JOB_STATES(STATE_NAME)
#undef STATE_NAME
};

const char *
job_state_name(JobState state)
{
	return state_names[state];
}

void
param_add_state(Params *p, JobState state)
{
	param_add_text(p, job_state_name(state));
}

/* ---- Rows ---------------------------------------------------------------- */

#define read_LONG result_long
#define read_TEXT result_text
#define read_INT result_int
#define read_TIME result_long
#define read_OID(row, column) DatumGetObjectId(result_datum(row, column))

static JobState
read_STATE(uint64 row, int column)
{
	char *name = result_text(row, column);

	for (int state = 0; state < JOB_STATE_COUNT; state++)
		if (name && strcmp(name, state_names[state]) == 0)
			return state;
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("state \"%s\" of a training job is not known", name ? name : "")));
}

static bytea *
read_BYTES(uint64 row, int column)
{
	Datum value = result_datum(row, column);

	return value == (Datum) 0 ? NULL : DatumGetByteaPCopy(value);
}

static int
read_SQLSTATE(uint64 row, int column)
{
	char *words = result_text(row, column);

	if (words == NULL || strlen(words) != 5)
		return ERRCODE_INTERNAL_ERROR;
	return MAKE_SQLSTATE(words[0], words[1], words[2], words[3], words[4]);
}

#define SELECT_COLUMN(type, member, sql) ", " sql
#define SELECT_JOBS "SELECT true" JOB_COLUMNS(SELECT_COLUMN) " FROM %s WHERE "

/* A row of SELECT_JOBS, whose first column says nothing. */
static void
read_job(uint64 row, Job *job)
{
	int column = 1;

#define READ_COLUMN(type, member, sql) job->member = read_##type(row, ++column);
	JOB_COLUMNS(READ_COLUMN)
#undef READ_COLUMN
}

#define COPY_LONG(value) (value)
#define COPY_TEXT(value) ((value) ? pstrdup(value) : NULL)
#define COPY_OID(value) (value)
#define COPY_INT(value) (value)
#define COPY_STATE(value) (value)
#define COPY_TIME(value) (value)
#define COPY_BYTES(value) \
	((value) ? (bytea *) DatumGetPointer(datumCopy(PointerGetDatum(value), false, -1)) : NULL)
#define COPY_SQLSTATE(value) (value)

void
job_copy(Job *to, const Job *from)
{
#define COPY_COLUMN(type, member, sql) to->member = COPY_##type(from->member);
	JOB_COLUMNS(COPY_COLUMN)
#undef COPY_COLUMN
}

bool
job_read(int64 job, Job *row, bool lock)
{
	Params p = { 0 };

	param_add_long(&p, job);
	if (catalog_run(AS_OWNER, JOBS,
					lock ? SELECT_JOBS "job = $1 FOR UPDATE" : SELECT_JOBS "job = $1",
					SPI_OK_SELECT, &p) == 0)
		return false;
	read_job(0, row);
	return true;
}

/*
 * The first parameters of a statement on the active jobs of this database, and
 * what it says of them.
 */
#define ACTIVE "state IN ($1, $2) AND system_identifier = $3 AND database = $4"

static void
params_active(Params *p)
{
	param_add_state(p, JOB_QUEUED);
	param_add_state(p, JOB_RUNNING);
	param_add_long(p, (int64) GetSystemIdentifier());
	param_add(p, OIDOID, ObjectIdGetDatum(MyDatabaseId));
}

Job *
jobs_unfinished(int *count)
{
	Params p = { 0 };
	uint64 n;
	Job *jobs;

	params_active(&p);
	n = catalog_run(AS_OWNER, JOBS, SELECT_JOBS ACTIVE " ORDER BY updated_at, job", SPI_OK_SELECT,
					&p);
	jobs = palloc_extended(Max(n, 1) * sizeof(Job), MCXT_ALLOC_HUGE);
	for (uint64 row = 0; row < n; row++)
		read_job(row, &jobs[row]);
	*count = (int) n;
	return jobs;
}

bool
job_is_local(const Job *row)
{
	return row->system_identifier == (int64) GetSystemIdentifier() && row->database == MyDatabaseId;
}

bool
job_is_active(const Job *row)
{
	return job_is_local(row) && (row->state == JOB_QUEUED || row->state == JOB_RUNNING);
}

/*
 * Trigger on the table: what a job has left goes with its row, by the rights of
 * who deletes that, and its worker ends.
 */
Datum
bicycle_drop_job(PG_FUNCTION_ARGS)
{
	static const char *const tables[] = { JOB_LOSSES, JOB_PREVIEWS, JOB_CHECKPOINTS };
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	Params p = { 0 };
	bool isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) || !TRIGGER_FIRED_BY_DELETE(data->tg_event))
		elog(ERROR, "bicycle_drop_job was not called as a trigger after each row is deleted");
	SPI_connect();
	desc = RelationGetDescr(data->tg_relation);
	param_add(&p, INT8OID,
			  SPI_getbinval(data->tg_trigtuple, desc, SPI_fnumber(desc, "job"), &isnull));
	for (int i = 0; i < lengthof(tables); i++)
		(void) catalog_run(AS_CALLER, tables[i], "DELETE FROM %s WHERE job = $1", SPI_OK_DELETE,
						   &p);
	if (IsUnderPostmaster) /* else there are neither workers nor shared memory of ours */
		job_stopping(DatumGetInt64(p.values[0]));
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* ---- What stands in a job's way ------------------------------------------ */

Oid
jobs_table(void)
{
	Oid schema = catalog_schema(true);

	return OidIsValid(schema) ? get_relname_relid(JOBS, schema) : InvalidOid;
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

void
job_check_rights(void)
{
	static const struct
	{
		const char *table;
		AclMode modes[3];
	} rights[] = {
		{ "bicycle_models", { ACL_SELECT, ACL_INSERT, ACL_UPDATE } },
		{ "bicycle_tensors", { ACL_SELECT, ACL_INSERT } },
		{ "bicycle_counters", { ACL_SELECT, ACL_INSERT, ACL_UPDATE } },
	};

	for (int i = 0; i < lengthof(rights); i++)
		for (int j = 0; j < lengthof(rights[i].modes) && rights[i].modes[j] != 0; j++)
			catalog_check_rights(rights[i].table, rights[i].modes[j]);
}

/*
 * Reads what others have just committed, also in a repeatable-read transaction:
 * they may have waited for the same lock.
 */
int64
job_on_model(const char *model, int64 except, int version)
{
	Params p = { 0 };
	int64 job = 0;

	params_active(&p);
	param_add_text(&p, model);
	param_add_long(&p, except);
	param_add_int(&p, version);
	PushActiveSnapshot(GetLatestSnapshot());
	if (catalog_run(AS_OWNER_READ, JOBS,
					"SELECT job FROM %s WHERE " ACTIVE " AND model = $5 AND job <> $6"
					" AND ($7 = 0 OR start_version = $7) LIMIT 1",
					SPI_OK_SELECT, &p) > 0)
		job = result_long(0, 1);
	PopActiveSnapshot();
	return job;
}

void
job_check_unused(const char *model, int version)
{
	int64 job = job_on_model(model, 0, version);

	if (job != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 version == 0
					 ? errmsg("cannot drop model \"%s\", which is being trained", model)
					 : errmsg("cannot drop version %d of model \"%s\", from which a job goes on",
							  version, model),
				 JOB_NOT_FINISHED(job)));
}
