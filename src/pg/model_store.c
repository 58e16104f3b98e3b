/*
 * model_store.c
 *	  Versions of models as rows: their numbers, the current one, and new ones.
 *
 * R1 A version is written once, and its number is never used again, also after
 *    bicycle_drop: bicycle_counters keeps the last number of each name.
 * R2 Whoever writes a model first takes an advisory lock on its name, in the
 *    two-key form with the OID of bicycle_models, until the end of the
 *    transaction. Whoever needs rows of jobs as well locks them after it.
 * R3 What is written is written as the caller. What is there counts whoever
 *    sees it: a number is taken, and a version is current, also where row
 *    security hides it from the caller.
 */
#include "pg/model_store.h"

#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "pg/catalog.h"
#include "pg/catalog_run.h"
#include "pg/model_stream.h"

static LOCKTAG
lock_of(const char *name)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, catalog_table_oid("bicycle_models"),
						 hash_bytes((const unsigned char *) name, strlen(name)), 2);
	return tag;
}

void
model_lock(const char *name)
{
	LOCKTAG tag = lock_of(name);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
model_unlock(const char *name)
{
	LOCKTAG tag = lock_of(name);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

/*
 * The next number of this name. Rows that were put in by hand or by a restore
 * count too.
 */
static int
next_version(const char *name)
{
	Params p = { 0 };

	param_add_text(&p, name);
	(void) catalog_run(AS_OWNER, "bicycle_models",
					   "SELECT coalesce(max(version), 0) FROM %s WHERE model = $1", SPI_OK_SELECT,
					   &p);
	param_add_int(&p, result_int(0, 1));
	if (catalog_run(AS_CALLER, "bicycle_counters",
					"INSERT INTO %s AS c (model, last_version) VALUES ($1, $2 + 1)"
					" ON CONFLICT (model) DO UPDATE"
					" SET last_version = greatest(c.last_version, $2) + 1 RETURNING last_version",
					SPI_OK_INSERT_RETURNING, &p) == 0)
		elog(ERROR, "model \"%s\" was given no number", name);
	return result_int(0, 1);
}

/* 0 if there is none. */
static int
current_version_of(RunAs as, const char *name)
{
	Params p = { 0 };

	param_add_text(&p, name);
	return catalog_run(as, "bicycle_models",
					   "SELECT version FROM %s WHERE model = $1 AND is_current", SPI_OK_SELECT,
					   &p) == 0
			   ? 0
			   : result_int(0, 1);
}

static void
report_hidden(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied for the current version of model \"%s\"", name),
					errdetail("Row security keeps it from the caller, and a model has one current "
							  "version."),
					errhint("Use another name.")));
}

void
model_check_seen(const char *name)
{
	if (current_version_of(AS_CALLER, name) != current_version_of(AS_OWNER, name))
		report_hidden(name);
}

/* False, and nothing has changed, if the caller may not replace what is. */
static bool
make_current(const char *name, int version)
{
	Params p = { 0 };

	param_add_text(&p, name);
	/*
	 * In two steps, because the unique index on the current version is checked
	 * row by row.
	 */
	(void) catalog_run(AS_CALLER, "bicycle_models",
					   "UPDATE %s SET is_current = false WHERE model = $1 AND is_current",
					   SPI_OK_UPDATE, &p);
	if (current_version_of(AS_OWNER, name) != 0)
		return false;
	param_add_int(&p, version);
	(void) catalog_run(AS_CALLER, "bicycle_models",
					   "UPDATE %s SET is_current = true WHERE model = $1 AND version = $2",
					   SPI_OK_UPDATE, &p);
	return true;
}

void
model_set_current(const char *name, int version)
{
	if (!make_current(name, version))
		report_hidden(name);
}

int
model_store(const char *name, const char *method, int64 iterations, const BicycleImported *head,
			const char *config, BufFile *tensors, const int *replaces)
{
	Params p = { 0 };
	int version;

	SPI_connect();
	model_lock(name);
	version = next_version(name);
	param_add_version(&p, name, version);
	param_add_text(&p, method);
	param_add_text(&p, config);
	param_add_bytes(&p, head->hash, BICYCLE_HASH_BYTES);
	param_add_long(&p, iterations);
	(void) catalog_run(AS_CALLER, "bicycle_models",
					   "INSERT INTO %s (model, version, method, config, hash, iterations,"
					   " created_at, created_by, is_current)"
					   " VALUES ($1, $2, $3, $4::jsonb, $5, $6, now(), current_user, false)",
					   SPI_OK_INSERT, &p);
	model_stream_store(tensors, head->ntensors, name, version);
	if (replaces == NULL)
		model_set_current(name, version);
	else if (*replaces == current_version_of(AS_OWNER, name))
		(void) make_current(name, version);
	SPI_finish();
	return version;
}
