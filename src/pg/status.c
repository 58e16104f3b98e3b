/*
 * status.c
 *	  bicycle_engine and bicycle_cache: what runs, and what it holds.
 */
#include "bicycle.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "call.h"
#include "catalog.h"
#include "session.h"

PG_FUNCTION_INFO_V1(bicycle_engine);
PG_FUNCTION_INFO_V1(bicycle_cache);

#define ENGINE_COLUMNS 14
#define CACHE_COLUMNS 10

static Datum
fixed_text(const char *text, size_t size)
{
	return CStringGetTextDatum(session_text(pnstrdup(text, strnlen(text, size))));
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
	values[0] = Int32GetDatum(status->pid);
	values[1] = fixed_text(status->device, sizeof(status->device));
	values[2] = fixed_text(status->precision, sizeof(status->precision));
	values[3] = Int32GetDatum(status->protocol);
	values[4] = interval_of_ms(status->uptime_ms);
	values[6] = Int64GetDatum(status->requests);
	values[7] = Int64GetDatum(status->batches);
	values[8] =
		Float8GetDatum(status->batches > 0 ? (double) status->batched / status->batches : 0);
	values[9] = Int64GetDatum(status->queued);
	values[10] = Int64GetDatum(status->memory);
	values[11] = Int64GetDatum(status->gpu_memory);
	values[12] = Int64GetDatum(status->gpu_memory_limit);
	nulls[11] = nulls[12] = status->gpu_memory_limit == 0;
}

/*
 * bicycle_engine(OUT pid int, device text, precision text, protocol int, uptime
 * interval, restarts bigint, requests bigint, batches bigint,
 *				  mean_batch float8, queued bigint, memory bigint, gpu_memory
 *				  bigint, gpu_memory_limit bigint, last_error text)
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
	values[5] = Int64GetDatum(starts > 0 ? starts - 1 : 0);
	nulls[5] = false;
	values[13] = CStringGetTextDatum(session_text(last_error));
	nulls[13] = last_error[0] == '\0';
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * Name and version under which the caller knows this content; false if the
 * caller may not read it. Must be called within SPI_connect.
 */
static bool
visible_name(const uint8 *hash, Datum *name, Datum *version)
{
	Oid types[1] = { BYTEAOID };
	bytea *value = palloc(VARHDRSZ + BICYCLE_HASH_BYTES);
	Datum values[1] = { PointerGetDatum(value) };
	bool isnull;
	int rc;

	SET_VARSIZE(value, VARHDRSZ + BICYCLE_HASH_BYTES);
	memcpy(VARDATA(value), hash, BICYCLE_HASH_BYTES);
	rc = SPI_execute_with_args(
		psprintf("SELECT model, version FROM %s WHERE hash OPERATOR(pg_catalog.=) $1 ORDER BY "
				 "is_current DESC, model, version",
				 catalog_table("bicycle_models")),
		1, types, values, NULL, true, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "look-up of a model failed: %s", SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return false;
	*name = SPI_datumTransfer(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull), false, -1);
	*version = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
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
	values[0] = PointerGetDatum(hash);
	nulls[1] = nulls[2] = true;
	if (readable)
	{
		SPI_connect();
		nulls[1] = nulls[2] = !visible_name(c->hash, &values[1], &values[2]);
		SPI_finish();
	}
	values[3] = fixed_text(c->precision, sizeof(c->precision));
	values[4] = Int64GetDatum(c->bytes);
	values[5] = Int64GetDatum(c->hits);
	values[6] = TimestampTzGetDatum(now - (TimestampTz) c->loaded_ms_ago * 1000);
	values[7] = TimestampTzGetDatum(now - (TimestampTz) c->used_ms_ago * 1000);
	values[8] = Int32GetDatum(c->pins);
	values[9] = Int32GetDatum(c->databases);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * bicycle_cache() -> TABLE(hash bytea, model text, version int, precision text,
 * bytes bigint, hits bigint, loaded_at timestamptz, used_at timestamptz,
 *							pins int, databases int)
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
