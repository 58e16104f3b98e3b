/*
 * catalog.c
 *	  The tables of the extension, found through the extension's own schema and
 *	  read as the caller.
 *
 * R1 Where the tables are is cached, with the plan of the look-up, until a
 *    relation or a schema changes. Callbacks of relcache and syscache mark the
 *    cache stale, and the next call builds it anew. They also fire for changes
 *    that logical replication applies.
 * R2 What the tables hold is not cached. Each call runs the look-up, so row
 *    security and the privileges of the moment decide.
 * R3 Operators are qualified: the look-up runs under the caller's search_path.
 *
 * What is cached lies in TopMemoryContext, for the life of the session.
 */
#include "pg/catalog.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

static bool fresh = false; /* the fields below are right, if models_oid is set */
static Oid schema = InvalidOid;
static Oid models_oid = InvalidOid;
static Oid tensors_oid = InvalidOid;
static SPIPlanPtr lookup_plan = NULL;
static char *lookup_query = NULL; /* what it was made from */

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == models_oid || relid == tensors_oid)
		fresh = false;
}

static void
schema_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	fresh = false;
}

void
catalog_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
}

Oid
catalog_schema(bool missing_ok)
{
	Oid extension = get_extension_oid("bicycle", missing_ok);
	Oid result = InvalidOid;
	Relation rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	if (!OidIsValid(extension))
		return InvalidOid;
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

Oid
catalog_table_oid(const char *table)
{
	Oid oid = get_relname_relid(table, catalog_schema(false));

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" of extension bicycle does not exist", table),
				 errhint("If bicycle has been upgraded, run ALTER EXTENSION bicycle UPDATE.")));
	return oid;
}

const char *
catalog_table(const char *table)
{
	Oid schema_oid = get_rel_namespace(catalog_table_oid(table));

	return quote_qualified_identifier(get_namespace_name(schema_oid), table);
}

static void
check_rights(Oid oid, AclMode mode)
{
	AclResult result = pg_class_aclcheck(oid, GetUserId(), mode);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, get_rel_name(oid));
}

void
catalog_check_rights(const char *table, AclMode mode)
{
	check_rights(catalog_table_oid(table), mode);
}

/*
 * Must be called within SPI_connect. The plan is made again only if the schema
 * has another name now: any other change PostgreSQL's plan cache follows by
 * itself. The old plan is left, as a policy of bicycle_models that uses a model
 * could bring us here while it runs.
 */
static void
refresh(void)
{
	Oid types[2] = { TEXTOID, INT4OID };
	char *query;
	SPIPlanPtr plan;

	fresh = true;            /* first, so that a change that comes in meanwhile is not lost */
	models_oid = InvalidOid; /* until all is right */
	schema = catalog_schema(false);
	tensors_oid = catalog_table_oid("bicycle_tensors");
	query = psprintf(
		"SELECT version, hash, config OPERATOR(pg_catalog.->>) 'nz', config "
		"OPERATOR(pg_catalog.->>) 'net_e',"
		" config OPERATOR(pg_catalog.->>) 'precision', config OPERATOR(pg_catalog.->>) 'alpha',"
		" config OPERATOR(pg_catalog.->>) 'lpips'"
		" FROM %s WHERE model OPERATOR(pg_catalog.=) $1"
		" AND CASE WHEN $2 IS NULL THEN is_current ELSE version OPERATOR(pg_catalog.=) $2 END",
		quote_qualified_identifier(get_namespace_name(schema), "bicycle_models"));
	if (lookup_plan == NULL || strcmp(query, lookup_query) != 0)
	{
		plan = SPI_prepare(query, 2, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare the look-up of models: %s",
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		lookup_query = MemoryContextStrdup(TopMemoryContext, query);
		lookup_plan = plan;
	}
	models_oid = catalog_table_oid("bicycle_models");
}

static void
report_no_model(const char *name, const int *version)
{
	if (version)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("version %d of model \"%s\" does not exist", *version, name),
						errhint("Table bicycle_models lists the models that you may see.")));
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("model \"%s\" does not exist or has no current version", name),
					errhint("Table bicycle_models lists the models that you may see; "
							"bicycle_deploy makes a version current.")));
}

static void
fill_from_row(Model *m, HeapTuple row, TupleDesc desc)
{
	bool isnull;
	bytea *hash;
	char *nz = SPI_getvalue(row, desc, 3);
	char *net_e = SPI_getvalue(row, desc, 4);
	char *precision = SPI_getvalue(row, desc, 5);
	char *alpha = SPI_getvalue(row, desc, 6);

	m->version = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	hash = DatumGetByteaPP(SPI_getbinval(row, desc, 2, &isnull));
	if (isnull || VARSIZE_ANY_EXHDR(hash) != BICYCLE_HASH_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("hash of version %d of model \"%s\" is damaged", m->version, m->name)));
	memcpy(m->hash, VARDATA_ANY(hash), BICYCLE_HASH_BYTES);
	m->nz = nz ? atoi(nz) : 0;
	m->has_encoder = net_e && strcmp(net_e, "none") != 0;
	m->alpha_drop = alpha && strcmp(alpha, "drop") == 0;
	m->compares = SPI_getvalue(row, desc, 7) != NULL;
	m->precision = precision && strcmp(precision, "bf16") == 0 ? BICYCLE_PRECISION_BF16
															   : BICYCLE_PRECISION_FP32;
	if (m->nz < 0 || m->nz > BICYCLE_MAX_NZ)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("configuration of version %d of model \"%s\" is damaged", m->version,
							   m->name),
						errdetail("Its nz is %s.", nz)));
}

char *
model_name_argument(FunctionCallInfo fcinfo, int i)
{
	char *name;

	if (PG_ARGISNULL(i))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("name of the model must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(i));
	if (name[0] == '\0' || strlen(name) >= BICYCLE_MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("name of the model is not valid"),
				 errdetail("It has %zu bytes; names have 1 to %d.", strlen(name),
						   BICYCLE_MAX_NAME - 1)));
	return name;
}

char *
model_own_name_argument(FunctionCallInfo fcinfo, int i)
{
	char *name = model_name_argument(fcinfo, i);

	if (strncmp(name, RESERVED_PREFIX, strlen(RESERVED_PREFIX)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of model \"%s\" is reserved", name),
				 errdetail("Names that begin with \"%s\" are of models that compare images.",
						   RESERVED_PREFIX),
				 errhint("Use another name; such models are made by bicycle_import_lpips.")));
	return name;
}

char *
model_options_argument(FunctionCallInfo fcinfo, int i)
{
	Jsonb *config;
	char *json;

	if (PG_ARGISNULL(i))
		return pstrdup("{}");
	config = PG_GETARG_JSONB_P(i);
	json = JsonbToCString(NULL, &config->root, VARSIZE(config));
	return pg_server_to_any(json, strlen(json), PG_UTF8);
}

/* NULL if there is none. */
static Model *
find_model(const char *name, const int *version)
{
	Model *m = palloc0(sizeof(Model));
	Datum values[2];
	char nulls[2] = { ' ', version ? ' ' : 'n' };
	bool pushed = false, found;
	int rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (!fresh || !OidIsValid(models_oid))
		refresh();
	check_rights(models_oid, ACL_SELECT);
	check_rights(tensors_oid, ACL_SELECT);
	if (strlcpy(m->name, name, sizeof(m->name)) >= sizeof(m->name))
	{
		SPI_finish();
		return NULL;
	}

	/*
	 * The planner may evaluate the immutable forms, and then not always under a
	 * snapshot.
	 */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	values[0] = CStringGetTextDatum(name);
	values[1] = Int32GetDatum(version ? *version : 0);
	rc = SPI_execute_plan(lookup_plan, values, nulls, true, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "look-up of a model failed: %s", SPI_result_code_string(rc));
	found = SPI_processed > 0;
	if (found)
		fill_from_row(m, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	if (pushed)
		PopActiveSnapshot();
	SPI_finish();
	return found ? m : NULL;
}

Model *
model_lookup(const text *model, const int *version)
{
	char *name = model ? text_to_cstring(model) : pstrdup(bicycle_model);
	Model *m;

	if (name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("no model is named"),
						errhint("Pass model => 'name', or set bicycle.model.")));
	m = find_model(name, version);
	if (m == NULL)
		report_no_model(name, version);
	if (m->compares)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("model \"%s\" only compares images", name),
						errhint("It is for bicycle_lpips.")));
	return m;
}

Model *
model_lookup_comparing(const char *name)
{
	Model *m = find_model(name, NULL);

	if (m != NULL && !m->compares)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" does not compare images", name),
				 errhint("Rename or drop it, and import the weights: see bicycle_import_lpips.")));
	return m;
}
