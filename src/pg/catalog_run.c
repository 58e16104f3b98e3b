/*
 * catalog_run.c
 *	  Statements on the extension's tables, by whom and under which search_path.
 *
 * R1 Every statement sees pg_catalog only, whoever runs it. So an operator in
 *    it is PostgreSQL's, and nobody's who has put one of the same name into a
 *    schema on the session's path. Policies and triggers that users have put on
 *    the tables see the same path, whether a session or a job writes a model,
 *    or logical replication does.
 * R2 There are no grants on the tables of jobs. What this extension does there
 *    it does as their owner, by fixed statements.
 * R3 A statement has a snapshot of its own, and sees what others committed
 *    while a lock was waited for. Those with READ see what the statement that
 *    called sees.
 * R4 An error ends the transaction or subtransaction, which puts user and path
 *    back.
 */
#include "pg/catalog_run.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "pg/catalog.h"
#include "common/invariant.h"

#define SAFE_PATH "pg_catalog, pg_temp"

/* ---- Parameters ---------------------------------------------------------- */

void
param_add(Params *p, Oid type, Datum value)
{
	INVARIANT(p->n < lengthof(p->values));
	p->types[p->n] = type;
	p->values[p->n] = value;
	p->nulls[p->n++] = ' ';
}

void
param_add_int(Params *p, int value)
{
	param_add(p, INT4OID, Int32GetDatum(value));
}

void
param_add_long(Params *p, int64 value)
{
	param_add(p, INT8OID, Int64GetDatum(value));
}

void
param_add_text(Params *p, const char *words)
{
	param_add(p, TEXTOID, words ? CStringGetTextDatum(words) : (Datum) 0);
	if (words == NULL)
		p->nulls[p->n - 1] = 'n';
}

void
param_add_bytes(Params *p, const void *bytes, size_t length)
{
	bytea *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), bytes, length);
	param_add(p, BYTEAOID, PointerGetDatum(value));
}

void
param_add_version(Params *p, const char *model, int version)
{
	param_add_text(p, model);
	param_add_int(p, version);
}

/* ---- Statements ---------------------------------------------------------- */

static Oid
owner_of(const char *table)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(catalog_table_oid(table)));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for table \"%s\"", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

uint64
catalog_run(RunAs as, const char *table, const char *statement, int expected, Params *p)
{
	const char *query = psprintf(statement, catalog_table(table));
	bool reads = as == AS_OWNER_READ || as == AS_CALLER_READ;
	bool push = reads && !ActiveSnapshotSet(); /* as in a plan that is being made */
	int nest = NewGUCNestLevel();
	uint64 rows;
	Oid user;
	int context;
	int rc;

	GetUserIdAndSecContext(&user, &context);
	if (as == AS_OWNER || as == AS_OWNER_READ)
		SetUserIdAndSecContext(owner_of("bicycle_training_jobs"),
							   context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", SAFE_PATH, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	if (push)
		PushActiveSnapshot(GetTransactionSnapshot());
	rc = SPI_execute_with_args(query, p->n, p->types, p->values, p->nulls, reads, 0);
	if (rc != expected)
		elog(ERROR, "statement on \"%s\" failed: %s", table, SPI_result_code_string(rc));
	rows = SPI_processed;
	if (push)
		PopActiveSnapshot();
	AtEOXact_GUC(true, nest);
	SetUserIdAndSecContext(user, context);
	return rows;
}

/* ---- Results ------------------------------------------------------------- */

Datum
result_datum(uint64 row, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

int
result_int(uint64 row, int column)
{
	return DatumGetInt32(result_datum(row, column));
}

/* Where int8 is passed by reference, null is no pointer. */
int64
result_long(uint64 row, int column)
{
	Datum value = result_datum(row, column);

	return value == (Datum) 0 ? 0 : DatumGetInt64(value);
}

char *
result_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}
