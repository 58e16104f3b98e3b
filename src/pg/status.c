/*
 * status.c
 *	  bicycle_engine, bicycle_engines and bicycle_cache: what runs, and what it
 *	  holds.
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
#include "pg/engine_slots.h"
#include "pg/session.h"

PG_FUNCTION_INFO_V1(bicycle_engine);
PG_FUNCTION_INFO_V1(bicycle_engines);
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

/* bicycle_engines() has these before them. */
enum
{
	ENGINES_NUMBER,
	ENGINES_STATE,
	ENGINES_OWN
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

/* ---- Engines ------------------------------------------------------------- */

/* An engine of the server: what is known of it, and what it says itself. */
typedef struct EngineReport
{
	int number;
	EngineSlot slot;
	bool answered;
	BicycleStatus status;
} EngineReport;

/*
 * Asks all that are there, after a wait for one that is about to come up;
 * returns how many there are, answering or not.
 */
static int
ask_engines(EngineReport *reports)
{
	Call *calls[BICYCLE_MAX_ENGINES] = { 0 };
	int n = 0;

	(void) session_open(true);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		EngineReport *report = &reports[n];

		memset(report, 0, sizeof(*report));
		report->number = i;
		if (engine_slot_read(i, &report->slot) == ENGINE_ABSENT)
			continue;
		if (report->slot.state == ENGINE_READY)
			calls[n] = call_simple(BICYCLE_STATUS, i);
		n++;
	}
	for (int i = 0; i < n; i++)
	{
		const char *bytes;
		size_t length;

		if (calls[i] == NULL)
			continue;
		bytes = call_try(calls[i], &length);
		if (bytes != NULL && length < sizeof(BicycleStatus))
			elog(ERROR, "status of %zu bytes instead of %zu", length, sizeof(BicycleStatus));
		reports[i].answered = bytes != NULL;
		if (bytes != NULL)
			memcpy(&reports[i].status, bytes, sizeof(BicycleStatus));
		call_free(calls[i]);
	}
	return n;
}

/* Columns from the engine itself. */
static void
fill_status(const BicycleStatus *status, const char *device, Datum *values, bool *nulls)
{
	for (int i = 0; i < ENGINE_COLUMNS; i++)
		nulls[i] = false;
	values[ENGINE_PID] = Int32GetDatum(status->pid);
	values[ENGINE_DEVICE] = CStringGetTextDatum(session_text(device));
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

/* And those from shared memory. */
static void
fill_slot(int64 restarts, const char *last_error, Datum *values, bool *nulls)
{
	values[ENGINE_RESTARTS] = Int64GetDatum(restarts);
	nulls[ENGINE_RESTARTS] = false;
	values[ENGINE_LAST_ERROR] = CStringGetTextDatum(session_text(last_error));
	nulls[ENGINE_LAST_ERROR] = last_error[0] == '\0';
}

static int64
restarts_of(const EngineSlot *slot)
{
	return slot->starts > 0 ? (int64) slot->starts - 1 : 0;
}

/* Adds one that has answered; the first one's pid and the like stay. */
static void
add_status(BicycleStatus *sum, const BicycleStatus *status)
{
	if (sum->pid == 0)
	{
		*sum = *status;
		return;
	}
	sum->requests += status->requests;
	sum->batches += status->batches;
	sum->batched += status->batched;
	sum->queued += status->queued;
	sum->memory += status->memory;
	sum->gpu_memory += status->gpu_memory;
	sum->gpu_memory_limit += status->gpu_memory_limit;
}

/*
 * bicycle_engine() -> (the columns above)
 *
 * One row, also if no engine can be reached: then all but restarts and
 * last_error are NULL. Of several engines, sums; pid, precision, protocol and
 * uptime are the first one's. gpu_memory and its limit are NULL without a GPU.
 */
Datum
bicycle_engine(PG_FUNCTION_ARGS)
{
	EngineReport *reports = palloc(BICYCLE_MAX_ENGINES * sizeof(EngineReport));
	BicycleStatus sum = { 0 };
	StringInfoData device;
	const char *last_error = "";
	int64 restarts = 0;
	TupleDesc desc;
	Datum values[ENGINE_COLUMNS] = { 0 };
	bool nulls[ENGINE_COLUMNS];
	int n;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	initStringInfo(&device);
	n = ask_engines(reports);
	for (int i = 0; i < n; i++)
	{
		const EngineReport *report = &reports[i];

		restarts += restarts_of(&report->slot);
		if (last_error[0] == '\0')
			last_error = report->slot.last_error;
		if (!report->answered)
			continue;
		appendStringInfo(&device, "%s%.*s", device.len > 0 ? "; " : "",
						 (int) sizeof(report->status.device), report->status.device);
		add_status(&sum, &report->status);
	}
	memset(nulls, true, sizeof(nulls));
	if (sum.pid != 0)
		fill_status(&sum, device.data, values, nulls);
	fill_slot(restarts, last_error, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static const char *
state_name(const EngineSlot *slot)
{
	switch (slot->state)
	{
		case ENGINE_STARTING:
			return "starting";
		case ENGINE_READY:
			return slot->missing ? "missing" : "ready";
		case ENGINE_FAILED:
			return "failed";
		case ENGINE_LEAVING:
			return "leaving";
		default:
			return "absent";
	}
}

/*
 * bicycle_engines() -> TABLE(number, state, the columns of bicycle_engine())
 *
 * Of an engine that does not answer, what the supervisor knows.
 */
Datum
bicycle_engines(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EngineReport *reports = palloc(BICYCLE_MAX_ENGINES * sizeof(EngineReport));
	int n;

	InitMaterializedSRF(fcinfo, 0);
	n = ask_engines(reports);
	for (int i = 0; i < n; i++)
	{
		EngineReport *report = &reports[i];
		BicycleStatus *status = &report->status;
		Datum values[ENGINES_OWN + ENGINE_COLUMNS] = { 0 };
		bool nulls[ENGINES_OWN + ENGINE_COLUMNS];
		Datum *own = values + ENGINES_OWN;
		bool *own_nulls = nulls + ENGINES_OWN;

		memset(nulls, true, sizeof(nulls));
		values[ENGINES_NUMBER] = Int32GetDatum(report->number);
		values[ENGINES_STATE] = CStringGetTextDatum(state_name(&report->slot));
		nulls[ENGINES_NUMBER] = nulls[ENGINES_STATE] = false;
		own[ENGINE_DEVICE] = CStringGetTextDatum(report->slot.device);
		own_nulls[ENGINE_DEVICE] = false;
		if (report->answered)
			fill_status(status, pnstrdup(status->device, sizeof(status->device)), own, own_nulls);
		fill_slot(restarts_of(&report->slot), report->slot.last_error, own, own_nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- Models -------------------------------------------------------------- */

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
	if (readable)
	{
		SPI_connect();
		readable = visible_name(c->hash, &values[CACHE_MODEL], &values[CACHE_VERSION]);
		SPI_finish();
	}
	nulls[CACHE_HASH] = nulls[CACHE_MODEL] = nulls[CACHE_VERSION] = !readable;
	values[CACHE_PRECISION] = fixed_text(c->precision, sizeof(c->precision));
	values[CACHE_BYTES] = Int64GetDatum(c->bytes);
	values[CACHE_HITS] = Int64GetDatum(c->hits);
	values[CACHE_LOADED_AT] = TimestampTzGetDatum(now - (TimestampTz) c->loaded_ms_ago * 1000);
	values[CACHE_USED_AT] = TimestampTzGetDatum(now - (TimestampTz) c->used_ms_ago * 1000);
	values[CACHE_PINS] = Int32GetDatum(c->pins);
	values[CACHE_DATABASES] = Int32GetDatum(c->databases);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A model that several engines hold is one, with the sums of theirs. */
static void
merge_cached(BicycleCached *to, const BicycleCached *from)
{
	to->bytes += from->bytes;
	to->hits += from->hits;
	to->loaded_ms_ago = Max(to->loaded_ms_ago, from->loaded_ms_ago);
	to->used_ms_ago = Min(to->used_ms_ago, from->used_ms_ago);
	to->pins += from->pins;
	to->databases = Max(to->databases, from->databases);
}

/* Appends what the engine holds to an array of BicycleCached. */
static void
ask_cache(int engine, StringInfo all)
{
	Call *call = call_simple(BICYCLE_CACHE, engine);
	size_t length;
	const char *bytes = call_try(call, &length);

	for (size_t at = 0; bytes != NULL && at + sizeof(BicycleCached) <= length;
		 at += sizeof(BicycleCached))
	{
		BicycleCached cached;
		BicycleCached *known = (BicycleCached *) all->data;
		int n = all->len / sizeof(BicycleCached);
		int i = 0;

		memcpy(&cached, bytes + at, sizeof(cached));
		while (i < n &&
			   (memcmp(known[i].hash, cached.hash, sizeof(cached.hash)) != 0 ||
				strncmp(known[i].precision, cached.precision, sizeof(cached.precision)) != 0))
			i++;
		if (i < n)
			merge_cached(&known[i], &cached);
		else
			appendBinaryStringInfo(all, (char *) &cached, sizeof(cached));
	}
	call_free(call);
}

/*
 * bicycle_cache() -> TABLE(the columns above)
 *
 * hash, model and version are NULL where the caller may not read the model, or
 * it belongs to another database only. The hash is as good as the model to who
 * may insert into bicycle_models: a version of one's own could name it.
 */
Datum
bicycle_cache(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool readable;
	StringInfoData all;

	InitMaterializedSRF(fcinfo, 0);
	readable = pg_class_aclcheck(catalog_table_oid("bicycle_models"), GetUserId(), ACL_SELECT) ==
				   ACLCHECK_OK &&
			   pg_class_aclcheck(catalog_table_oid("bicycle_tensors"), GetUserId(), ACL_SELECT) ==
				   ACLCHECK_OK;
	initStringInfo(&all);
	session_open(false);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		if (engine_slot_read(i, NULL) == ENGINE_READY)
			ask_cache(i, &all);
	for (size_t at = 0; at + sizeof(BicycleCached) <= (size_t) all.len; at += sizeof(BicycleCached))
		put_cached(rsinfo, (BicycleCached *) (all.data + at), readable);
	return (Datum) 0;
}
