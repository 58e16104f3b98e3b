/*
 * status.c
 *	  bicycle_engine and bicycle_cache: what runs, and what it holds.
 */
#include "pg/bicycle.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "pg/catalog_run.h"
#include "pg/session.h"

PG_FUNCTION_INFO_V1(bicycle_engine);
PG_FUNCTION_INFO_V1(bicycle_cache);

/* The columns of bicycle_engine(), in their order. */
enum
{
	ENGINE_PID,
	ENGINE_DEVICE,
	ENGINE_PRECISION,
	ENGINE_PROTOCOL,
	ENGINE_UPTIME,
	ENGINE_RESTARTS,
	ENGINE_REQUESTS,
	ENGINE_BATCHES,
	ENGINE_MEAN_BATCH,
	ENGINE_QUEUED,
	ENGINE_MEMORY,
	ENGINE_GPU_MEMORY,
	ENGINE_GPU_MEMORY_LIMIT,
	ENGINE_LAST_ERROR,
	ENGINE_COLUMNS
};

/* And those of bicycle_cache(). */
enum
{
	CACHE_HASH,
	CACHE_MODEL,
	CACHE_VERSION,
	CACHE_PRECISION,
	CACHE_BYTES,
	CACHE_HITS,
	CACHE_LOADED_AT,
	CACHE_USED_AT,
	CACHE_PINS,
	CACHE_DATABASES,
	CACHE_COLUMNS
};

static Datum
fixed_text(const char *chars, size_t size)
{
	return CStringGetTextDatum(session_text(pnstrdup(chars, strnlen(chars, size))));
}

static Datum
interval_of_ms(uint64 ms)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) ms * 1000;
	return IntervalPGetDatum(interval);
}

/* Columns from the engine itself; the rest of the row is the supervisor's. */
static void
fill_status(const BicycleStatus *status, Datum *values, bool *nulls)
{
	for (int i = 0; i < ENGINE_COLUMNS; i++)
		nulls[i] = false;
	values[ENGINE_PID] = Int32GetDatum(status->pid);
	values[ENGINE_DEVICE] = fixed_text(status->device, sizeof(status->device));
	values[ENGINE_PRECISION] = fixed_text(status->precision, sizeof(status->precision));
	values[ENGINE_PROTOCOL] = Int32GetDatum(status->protocol);
	values[ENGINE_UPTIME] = interval_of_ms(status->uptime_ms);
	values[ENGINE_REQUESTS] = Int64GetDatum(status->requests);
	values[ENGINE_BATCHES] = Int64GetDatum(status->batches);
	values[ENGINE_MEAN_BATCH] =
		Float8GetDatum(status->batches > 0 ? (double) status->batched / status->batches : 0);
	values[ENGINE_QUEUED] = Int64GetDatum(status->queued);
	values[ENGINE_MEMORY] = Int64GetDatum(status->memory);
	values[ENGINE_GPU_MEMORY] = Int64GetDatum(status->gpu_memory);
	values[ENGINE_GPU_MEMORY_LIMIT] = Int64GetDatum(status->gpu_memory_limit);
	nulls[ENGINE_GPU_MEMORY] = nulls[ENGINE_GPU_MEMORY_LIMIT] = status->gpu_memory_limit == 0;
}

/*
 * bicycle_engine() -> (the columns above)
 *
 * One row, also if the engine cannot be reached: then all but restarts and
 * last_error are NULL. gpu_memory and its limit are NULL without a GPU.
 */
Datum
bicycle_engine(PG_FUNCTION_ARGS)
{
	BicycleShared *shared;
	char last_error[sizeof(shared->last_error)];
	uint64 starts;
	TupleDesc desc;
	Datum values[ENGINE_COLUMNS] = { 0 };
	bool nulls[ENGINE_COLUMNS];
	Call *call;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, true, sizeof(nulls));
	call = call_simple(BICYCLE_STATUS, true);
	if (call)
	{
		size_t length;
		const char *bytes = call_wait(call, &length);
		BicycleStatus status;

		if (length < sizeof(status))
			elog(ERROR, "status of %zu bytes instead of %zu", length, sizeof(status));
		memcpy(&status, bytes, sizeof(status));
		call_free(call);
		fill_status(&status, values, nulls);
	}

	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_SHARED);
	starts = shared->starts;
	strlcpy(last_error, shared->last_error, sizeof(last_error));
	LWLockRelease(&shared->lock);
	values[ENGINE_RESTARTS] = Int64GetDatum(starts > 0 ? starts - 1 : 0);
	nulls[ENGINE_RESTARTS] = false;
	values[ENGINE_LAST_ERROR] = CStringGetTextDatum(session_text(last_error));
	nulls[ENGINE_LAST_ERROR] = last_error[0] == '\0';
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * Name and version under which the caller knows this content; false if the
 * caller may not read it. Must be called within SPI_connect.
 */
static bool
visible_name(const uint8 *hash, Datum *name, Datum *version)
{
	Params p = { 0 };

	param_add_bytes(&p, hash, BICYCLE_HASH_BYTES);
	if (catalog_run(AS_CALLER_READ, "bicycle_models",
					"SELECT model, version FROM %s WHERE hash = $1"
					" ORDER BY is_current DESC, model, version LIMIT 1",
					SPI_OK_SELECT, &p) == 0)
		return false;
	*name = SPI_datumTransfer(result_datum(0, 1), false, -1);
	*version = result_datum(0, 2);
	return true;
}

static void
put_cached(ReturnSetInfo *rsinfo, const BicycleCached *c, bool readable)
{
	Datum values[CACHE_COLUMNS] = { 0 };
	bool nulls[CACHE_COLUMNS] = { false };
	bytea *hash = palloc(VARHDRSZ + BICYCLE_HASH_BYTES);
	TimestampTz now = GetCurrentTimestamp();

	SET_VARSIZE(hash, VARHDRSZ + BICYCLE_HASH_BYTES);
	memcpy(VARDATA(hash), c->hash, BICYCLE_HASH_BYTES);
	values[CACHE_HASH] = PointerGetDatum(hash);
	nulls[CACHE_MODEL] = nulls[CACHE_VERSION] = true;
	if (readable)
	{
		SPI_connect();
		nulls[CACHE_MODEL] = nulls[CACHE_VERSION] =
			!visible_name(c->hash, &values[CACHE_MODEL], &values[CACHE_VERSION]);
		SPI_finish();
	}
	values[CACHE_PRECISION] = fixed_text(c->precision, sizeof(c->precision));
	values[CACHE_BYTES] = Int64GetDatum(c->bytes);
	values[CACHE_HITS] = Int64GetDatum(c->hits);
	values[CACHE_LOADED_AT] = TimestampTzGetDatum(now - (TimestampTz) c->loaded_ms_ago * 1000);
	values[CACHE_USED_AT] = TimestampTzGetDatum(now - (TimestampTz) c->used_ms_ago * 1000);
	values[CACHE_PINS] = Int32GetDatum(c->pins);
	values[CACHE_DATABASES] = Int32GetDatum(c->databases);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * bicycle_cache() -> TABLE(the columns above)
 *
 * model and version are NULL where the caller may not read the model, or it
 * belongs to another database only.
 */
Datum
bicycle_cache(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool readable;
	Call *call;
	const char *bytes;
	size_t length;

	InitMaterializedSRF(fcinfo, 0);
	readable = pg_class_aclcheck(catalog_table_oid("bicycle_models"), GetUserId(), ACL_SELECT) ==
				   ACLCHECK_OK &&
			   pg_class_aclcheck(catalog_table_oid("bicycle_tensors"), GetUserId(), ACL_SELECT) ==
				   ACLCHECK_OK;
	call = call_simple(BICYCLE_CACHE, false);
	bytes = call_wait(call, &length);
	for (size_t at = 0; at + sizeof(BicycleCached) <= length; at += sizeof(BicycleCached))
	{
		BicycleCached cached;

		memcpy(&cached, bytes + at, sizeof(cached));
		put_cached(rsinfo, &cached, readable);
	}
	call_free(call);
	return (Datum) 0;
}
