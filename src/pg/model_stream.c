/*
 * model_stream.c
 *	  Models on the wire: rows of bicycle_tensors to a tensor stream and back.
 *
 * R1 A tensor is stored in chunks of at most BICYCLE_CHUNK_BYTES, each a row
 *    with the tensor's dtype and shape.
 * R2 Sending reads the rows by a cursor, one at a time, as the caller and under
 *    the caller's snapshot. Memory is that of one row.
 * R3 Receiving spools the engine's stream to a temporary file first, so that a
 *    lost connection leaves nothing to be undone, and then writes rows.
 */
#include "pg/model_stream.h"

#include <limits.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/run_protocol.h"
#include "pg/catalog_run.h"
#include "pg/session.h"

#define COPY_BYTES (64 * 1024)

/* A tensor of a version, before its bytes are read. */
typedef struct TensorInfo
{
	BicycleTensor head;
	int chunks;
} TensorInfo;

typedef struct TensorList
{
	TensorInfo *list;
	int n;
	uint64 stream_length;
} TensorList;

/* Of an element; 0 if there is no such type. */
static size_t
dtype_bytes(const char *dtype)
{
	int value = bicycle_name_value(bicycle_dtype_names, dtype);

	return value >= 0 ? bicycle_dtype_bytes[value] : 0;
}

static void
report_damaged(const Model *model, const char *network, const char *name, const char *fact)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("version %d of model \"%s\" is damaged", model->version, model->name),
					errdetail("Tensor %s of network %s %s.", name, network, fact),
					errhint("Drop this version and import the model again.")));
}

/* ---- Reading rows -------------------------------------------------------- */

/* Parameters of all queries here: model, version, network or NULL for all. */
#define TENSOR_WHERE                                                                           \
	" WHERE model OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2 AND ($3 IS " \
	"NULL OR network OPERATOR(pg_catalog.=) $3)"

static void
query_fill(Params *q, const Model *model, const char *network)
{
	param_add_text(q, model->name);
	param_add_int(q, model->version);
	param_add_text(q, network);
}

static char *
column_text(HeapTuple row, TupleDesc desc, int column)
{
	char *value = SPI_getvalue(row, desc, column);

	return value ? value : pstrdup("");
}

/* Columns: network, name, dtype, shape, bytes, chunks. */
static void
tensor_from_row(TensorInfo *t, const Model *model, HeapTuple row, TupleDesc desc)
{
	char *network = column_text(row, desc, 1);
	char *name = column_text(row, desc, 2);
	char *dtype = column_text(row, desc, 3);
	bool isnull;
	ArrayType *shape = DatumGetArrayTypeP(SPI_getbinval(row, desc, 4, &isnull));
	uint64 expected = dtype_bytes(dtype);
	int ndim = ARR_NDIM(shape) == 0 ? 0 : ARR_DIMS(shape)[0];

	memset(t, 0, sizeof(*t));
	if (strlen(name) >= sizeof(t->head.name) || strlen(network) >= sizeof(t->head.network))
		report_damaged(model, network, name, "has a name that is too long");
	if (expected == 0)
		report_damaged(model, network, name, "has an unknown type");
	if (ARR_NDIM(shape) > 1 || ndim > lengthof(t->head.shape) || array_contains_nulls(shape))
		report_damaged(model, network, name, "has a shape that is not understood");
	strlcpy(t->head.name, name, sizeof(t->head.name));
	strlcpy(t->head.network, network, sizeof(t->head.network));
	strlcpy(t->head.dtype, dtype, sizeof(t->head.dtype));
	t->head.ndim = ndim;
	for (int i = 0; i < ndim; i++)
	{
		int32 extent = ((int32 *) ARR_DATA_PTR(shape))[i];

		if (extent < 0 || __builtin_mul_overflow(expected, (uint64) extent, &expected))
			report_damaged(model, network, name, "has an impossible shape");
		t->head.shape[i] = extent;
	}
	t->head.nbytes = DatumGetInt64(SPI_getbinval(row, desc, 5, &isnull));
	t->chunks = DatumGetInt64(SPI_getbinval(row, desc, 6, &isnull));
	if (isnull || t->head.nbytes != expected)
		report_damaged(model, network, name, "does not have the bytes that its shape says");
}

/*
 * What there is to send; octet_length does not fetch the bytes. In SPI's
 * memory.
 */
static TensorList
list_tensors(const Model *model, Params *q)
{
	TensorList tensors = { 0 };
	int rc;

	/*
	 * max(array) is not used: two shapes of one tensor must show, so the shape
	 * is grouped by.
	 */
	rc = SPI_execute_with_args(
		psprintf(
			"SELECT network, name, dtype, shape, "
			"pg_catalog.sum(pg_catalog.octet_length(data))::pg_catalog.int8, pg_catalog.count(*)"
			" FROM %s" TENSOR_WHERE " GROUP BY network, name, dtype, shape ORDER BY network, name",
			catalog_table("bicycle_tensors")),
		3, q->types, q->values, q->nulls, true, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "reading of a model failed: %s", SPI_result_code_string(rc));
	tensors.n = SPI_processed;
	tensors.list = palloc_extended(Max(tensors.n, 1) * sizeof(TensorInfo), MCXT_ALLOC_HUGE);
	for (int i = 0; i < tensors.n; i++)
	{
		tensor_from_row(&tensors.list[i], model, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		tensors.stream_length += sizeof(BicycleTensor) + tensors.list[i].head.nbytes;
	}
	SPI_freetuptable(SPI_tuptable);
	return tensors;
}

/* Sends the tensors in the order of the list, reading a row at a time. */
static bool
send_tensors(Call *call, const Model *model, Params *q, const TensorList *tensors)
{
	Portal cursor;
	bool holds = true;

	cursor =
		SPI_cursor_open_with_args(NULL,
								  psprintf("SELECT network, name, chunk, data FROM %s" TENSOR_WHERE
										   " ORDER BY network, name, chunk",
										   catalog_table("bicycle_tensors")),
								  3, q->types, q->values, q->nulls, true, CURSOR_OPT_NO_SCROLL);
	for (int i = 0; holds && i < tensors->n; i++)
	{
		const TensorInfo *t = &tensors->list[i];

		holds = call_write(call, &t->head, sizeof(t->head));
		for (int chunk = 0; holds && chunk < t->chunks; chunk++)
		{
			HeapTuple row;
			bool isnull;
			Datum value;
			bytea *data;

			SPI_cursor_fetch(cursor, true, 1);
			if (SPI_processed == 0)
				report_damaged(model, t->head.network, t->head.name, "ends too early");
			row = SPI_tuptable->vals[0];
			if (strcmp(column_text(row, SPI_tuptable->tupdesc, 1), t->head.network) != 0 ||
				strcmp(column_text(row, SPI_tuptable->tupdesc, 2), t->head.name) != 0 ||
				DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull)) != chunk)
				report_damaged(model, t->head.network, t->head.name, "lacks a chunk");
			value = SPI_getbinval(row, SPI_tuptable->tupdesc, 4, &isnull);
			data = DatumGetByteaPP(value);
			holds = call_write(call, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
			if (data != (bytea *) DatumGetPointer(value))
				pfree(data);
			SPI_freetuptable(SPI_tuptable);
		}
	}
	SPI_cursor_close(cursor);
	return holds && call_end(call);
}

/* ---- Sending a model ----------------------------------------------------- */

static char *
config_of(const Model *model, Params *q)
{
	int rc;

	rc = SPI_execute_with_args(psprintf("SELECT config FROM %s WHERE model OPERATOR(pg_catalog.=) "
										"$1 AND version OPERATOR(pg_catalog.=) $2",
										catalog_table("bicycle_models")),
							   2, q->types, q->values, q->nulls, true, 1);
	if (rc != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("version %d of model \"%s\" does not exist", model->version, model->name)));
	return column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * What the engine checks the tensors against, and the configuration that is a
 * part of it.
 */
static TensorList
describe_version(const Model *model, Params *q, BicycleLoad *load, char **config)
{
	TensorList tensors = list_tensors(model, q);

	*config = config_of(model, q);
	memset(load, 0, sizeof(*load));
	memcpy(load->hash, model->hash, sizeof(load->hash));
	strlcpy(load->model, model->name, sizeof(load->model));
	load->version = model->version;
	load->config_length = strlen(*config);
	load->stream_length = tensors.stream_length;
	return tensors;
}

bool
model_stream_load(const Model *model)
{
	BicycleLoad load;
	Params q = { 0 };
	TensorList tensors;
	Call *call;
	char *config;
	const char *result;
	size_t length;
	bool holds;

	SPI_connect();
	query_fill(&q, model, NULL);
	tensors = describe_version(model, &q, &load, &config);
	call = call_open(BICYCLE_LOAD, &load, sizeof(load), config, load.config_length);
	holds = call_granted(call) && send_tensors(call, model, &q, &tensors) &&
			call_result(call, &result, &length);
	call_free(call);
	SPI_finish();
	return holds;
}

Call *
model_stream_train(BicycleTrainBegin *head, const char *options, const Model *model)
{
	Params q = { 0 };
	TensorList tensors;
	Call *call;
	StringInfoData texts;
	char *config;

	SPI_connect();
	query_fill(&q, model, NULL);
	tensors = describe_version(model, &q, &head->start, &config);
	head->stream_length = tensors.stream_length;
	head->options_length = strlen(options);
	initStringInfo(&texts);
	appendStringInfoString(&texts, options);
	appendStringInfoString(&texts, config);
	call = call_train(head, sizeof(*head), texts.data, texts.len);
	(void) send_tensors(call, model, &q, &tensors);
	SPI_finish();
	return call;
}

bytea *
model_stream_export(const Model *model, const char *network, const char *format)
{
	BicycleExport export = { 0 };
	Params q = { 0 };
	TensorList tensors;
	Call *call;
	const char *result;
	size_t length;
	uint64 file_length;
	bytea *file = NULL;

	SPI_connect();
	query_fill(&q, model, network);
	tensors = list_tensors(model, &q);
	if (tensors.n == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("version %d of model \"%s\" has no network \"%s\"", model->version,
							   model->name, network)));
	strlcpy(export.format, format, sizeof(export.format));
	export.stream_length = tensors.stream_length;
	call = call_open(BICYCLE_EXPORT, &export, sizeof(export), NULL, 0);
	if (call_granted(call) && send_tensors(call, model, &q, &tensors) &&
		call_result(call, &result, &length))
	{
		if (length != sizeof(file_length))
			elog(ERROR, "answer of %zu bytes to an export", length);
		memcpy(&file_length, result, sizeof(file_length));
		if (file_length > MaxAllocSize - VARHDRSZ)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("model file is too large for a value"),
							errdetail("It has " UINT64_FORMAT " bytes.", file_length)));
		file = SPI_palloc(file_length + VARHDRSZ);
		SET_VARSIZE(file, file_length + VARHDRSZ);
		if (!call_read(call, VARDATA(file), file_length) || !call_read_end(call))
			file = NULL;
	}
	call_free(call);
	SPI_finish();
	return file;
}

/* ---- Receiving a model --------------------------------------------------- */

BufFile *
model_stream_spool(Call *call, uint64 length)
{
	BufFile *file = BufFileCreateTemp(false);
	char *buffer = palloc(COPY_BYTES);

	while (length > 0)
	{
		size_t n = Min(length, COPY_BYTES);

		if (!call_read(call, buffer, n))
		{
			BufFileClose(file);
			return NULL;
		}
		BufFileWrite(file, buffer, n);
		length -= n;
	}
	pfree(buffer);
	if (!call_read_end(call))
	{
		BufFileClose(file);
		return NULL;
	}
	if (BufFileSeek(file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not rewind temporary file: %m")));
	return file;
}

static void
spool_read(BufFile *file, void *bytes, size_t length)
{
	if (BufFileRead(file, bytes, length) != length)
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("bicycle engine sent an incomplete model")));
}

void
model_stream_check_tensor(const BicycleTensor *t)
{
	if (memchr(t->name, '\0', sizeof(t->name)) == NULL ||
		memchr(t->network, '\0', sizeof(t->network)) == NULL ||
		memchr(t->dtype, '\0', sizeof(t->dtype)) == NULL || t->ndim > lengthof(t->shape))
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("bicycle engine sent a tensor that is not understood")));
}

Datum
model_stream_shape(const BicycleTensor *t)
{
	Datum extents[8];

	if (t->ndim == 0)
		return PointerGetDatum(construct_empty_array(INT4OID));
	for (int i = 0; i < t->ndim; i++)
	{
		if (t->shape[i] < 0 || t->shape[i] > INT_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("tensor \"%s\" is too large", session_text(t->name)),
					 errdetail("Its dimension %d is %lld.", i + 1, (long long) t->shape[i])));
		extents[i] = Int32GetDatum((int32) t->shape[i]);
	}
	return PointerGetDatum(
		construct_array(extents, t->ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

void
model_stream_store(BufFile *file, int ntensors, const char *model, int version)
{
	Oid types[8] = { TEXTOID, INT4OID, TEXTOID, TEXTOID, INT4OID, TEXTOID, INT4ARRAYOID, BYTEAOID };
	Datum values[8];
	bytea *chunk;
	SPIPlanPtr plan;

	SPI_connect();
	plan = SPI_prepare(psprintf("INSERT INTO %s (model, version, network, name, chunk, dtype, "
								"shape, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
								catalog_table("bicycle_tensors")),
					   8, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare the insertion of tensors: %s",
			 SPI_result_code_string(SPI_result));
	chunk = palloc(BICYCLE_CHUNK_BYTES + VARHDRSZ);
	values[0] = CStringGetTextDatum(model);
	values[1] = Int32GetDatum(version);
	for (int i = 0; i < ntensors; i++)
	{
		BicycleTensor t;
		uint64 left;

		spool_read(file, &t, sizeof(t));
		model_stream_check_tensor(&t);
		values[2] = CStringGetTextDatum(t.network);
		values[3] = CStringGetTextDatum(t.name);
		values[5] = CStringGetTextDatum(t.dtype);
		values[6] = model_stream_shape(&t);
		values[7] = PointerGetDatum(chunk);
		left = t.nbytes;
		for (int number = 0; number == 0 || left > 0; number++)
		{
			size_t n = Min(left, BICYCLE_CHUNK_BYTES);
			int rc;

			spool_read(file, VARDATA(chunk), n);
			SET_VARSIZE(chunk, n + VARHDRSZ);
			values[4] = Int32GetDatum(number);
			rc = SPI_execute_plan(plan, values, NULL, false, 0);
			if (rc != SPI_OK_INSERT)
				elog(ERROR, "insertion of a tensor failed: %s", SPI_result_code_string(rc));
			left -= n;
			CHECK_FOR_INTERRUPTS();
		}
	}
	SPI_finish();
}
