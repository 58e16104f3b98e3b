/*
 * model_store.c
 *	  Versions of models as rows: their numbers, the current one, and new ones.
 *
 * R1 A version is written once, and its number is never used again, also after
 *    bicycle_drop: bicycle_counters keeps the last number of each name.
 * R2 Whoever writes a model first takes an advisory lock on its name, in the
 *    two-key form with the OID of bicycle_models, until the end of the
 *    transaction.
 * R3 All runs as the caller, under the caller's search_path: operators and
 *    functions are qualified.
 */
#include "pg/model_store.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "pg/catalog.h"
#include "pg/catalog_run.h"
#include "pg/model_stream.h"

void
model_lock(const char *name)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, catalog_table_oid("bicycle_models"),
						 hash_bytes((const unsigned char *) name, strlen(name)), 2);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

uint64
model_run(const char *query, int expected, const char *name, int version, int *result)
{
	Oid types[2] = { TEXTOID, INT4OID };
	Datum values[2] = { CStringGetTextDatum(name), Int32GetDatum(version) };
	int rc = SPI_execute_with_args(query, 2, types, values, NULL, false, 0);
	bool isnull;

	if (rc != expected)
		elog(ERROR, "query on models failed: %s", SPI_result_code_string(rc));
	if (result && SPI_processed > 0)
		*result =
			DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return SPI_processed;
}

/*
 * The next number of this name. Rows that were put in by hand or by a restore
 * count too.
 */
static int
next_version(const char *name)
{
	const char *counters = catalog_table("bicycle_counters");
	int highest = 0;
	int version = 0;

	model_run(psprintf("SELECT pg_catalog.max(version) FROM %s WHERE " OF_MODEL
					   " HAVING pg_catalog.max(version) IS NOT NULL",
					   catalog_table("bicycle_models")),
			  SPI_OK_SELECT, name, 0, &highest);
	model_run(
		psprintf("INSERT INTO %s AS c (model, last_version) VALUES ($1, $2 OPERATOR(pg_catalog.+) "
				 "1) ON CONFLICT (model) DO UPDATE"
				 " SET last_version = GREATEST(c.last_version, $2) OPERATOR(pg_catalog.+) 1 "
				 "RETURNING last_version",
				 counters),
		SPI_OK_INSERT_RETURNING, name, highest, &version);
	return version;
}

void
model_set_current(const char *name, int version)
{
	const char *models = catalog_table("bicycle_models");

	/*
	 * In two steps, because the unique index on the current version is checked
	 * row by row.
	 */
	model_run(
		psprintf("UPDATE %s SET is_current = false WHERE " OF_MODEL " AND is_current", models),
		SPI_OK_UPDATE, name, 0, NULL);
	model_run(psprintf("UPDATE %s SET is_current = true WHERE " OF_VERSION, models), SPI_OK_UPDATE,
			  name, version, NULL);
}

static void
insert_model(const char *name, int version, const char *method, int64 iterations, const uint8 *hash,
			 Jsonb *config)
{
	const char *user = GetUserNameFromId(GetUserId(), false);
	Params p = { 0 };
	int rc;

	param_add_text(&p, name);
	param_add_int(&p, version);
	param_add(&p, JSONBOID, JsonbPGetDatum(config));
	param_add_bytes(&p, hash, BICYCLE_HASH_BYTES);
	param_add(&p, NAMEOID, DirectFunctionCall1(namein, CStringGetDatum(user)));
	param_add_text(&p, method);
	param_add_long(&p, iterations);
	rc = SPI_execute_with_args(
		psprintf("INSERT INTO %s (model, version, method, config, hash, iterations, created_at, "
				 "created_by, is_current)"
				 " VALUES ($1, $2, $6, $3, $4, $7, pg_catalog.now(), $5, false)",
				 catalog_table("bicycle_models")),
		p.n, p.types, p.values, p.nulls, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "insertion of a model failed: %s", SPI_result_code_string(rc));
}

int
model_store(const char *name, const char *method, int64 iterations, const BicycleImported *head,
			const char *config, BufFile *tensors, const int *replaces)
{
	int version;
	int current = 0;

	SPI_connect();
	model_lock(name);
	version = next_version(name);
	insert_model(name, version, method, iterations, head->hash,
				 DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(config))));
	model_stream_store(tensors, head->ntensors, name, version);
	model_run(psprintf("SELECT version FROM %s WHERE " OF_MODEL " AND is_current",
					   catalog_table("bicycle_models")),
			  SPI_OK_SELECT, name, 0, &current);
	if (replaces == NULL || *replaces == current)
		model_set_current(name, version);
	SPI_finish();
	return version;
}
