/*
 * model_stream.c
 *	  Models on the wire: rows of bicycle_tensors to a tensor stream and back.
 *
 * R1 A tensor is stored in chunks of at most BICYCLE_CHUNK_BYTES, each a row
 *    with the tensor's dtype and shape.
 * R2 Sending reads the rows one at a time, as the caller and under the caller's
 *    snapshot. Memory is that of one row.
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

/* Columns of the result: network, name, dtype, shape, bytes, chunks. */
static void
tensor_from_row(TensorInfo *t, const Model *model, uint64 row)
{
	char *network = result_text(row, 1);
	char *name = result_text(row, 2);
	char *dtype = result_text(row, 3);
	ArrayType *shape = DatumGetArrayTypeP(result_datum(row, 4));
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
	t->head.nbytes = result_long(row, 5);
	t->chunks = result_int(row, 6);
	if (t->head.nbytes != expected)
		report_damaged(model, network, name, "does not have the bytes that its shape says");
}

/*
 * What there is to send, of one network or, NULL, all; octet_length does not
 * fetch the bytes. In SPI's memory.
 */
static TensorList
list_tensors(const Model *model, const char *network)
{
	TensorList tensors = { 0 };
	Params p = { 0 };

	param_add_version(&p, model->name, model->version);
	param_add_text(&p, network);
	/* All chunks of a tensor have its type and shape: two of one name show. */
	tensors.n = catalog_run(
		AS_CALLER_READ, "bicycle_tensors",
		"SELECT network, name, dtype, shape, sum(octet_length(data))::int8, count(*)::int4 FROM %s"
		" WHERE model = $1 AND version = $2 AND ($3 IS NULL OR network = $3)"
		" GROUP BY network, name, dtype, shape ORDER BY network, name",
		SPI_OK_SELECT, &p);
	tensors.list = palloc_extended(Max(tensors.n, 1) * sizeof(TensorInfo), MCXT_ALLOC_HUGE);
	for (int i = 0; i < tensors.n; i++)
	{
		BicycleTensor *head = &tensors.list[i].head;

		tensor_from_row(&tensors.list[i], model, i);
		if (i > 0 && strcmp(head->name, tensors.list[i - 1].head.name) == 0 &&
			strcmp(head->network, tensors.list[i - 1].head.network) == 0)
			report_damaged(model, head->network, head->name, "has more than one type or shape");
		tensors.stream_length += sizeof(BicycleTensor) + head->nbytes;
	}
	SPI_freetuptable(SPI_tuptable);
	return tensors;
}

/*
 * p: model, version, network, name, chunk. False if the connection was lost.
 */
static bool
send_chunk(Call *call, const Model *model, const BicycleTensor *t, Params *p)
{
	Datum value;
	bytea *data;
	bool holds;

	if (catalog_run(AS_CALLER_READ, "bicycle_tensors",
					"SELECT data FROM %s WHERE model = $1 AND version = $2 AND network = $3"
					" AND name = $4 AND chunk = $5",
					SPI_OK_SELECT, p) != 1)
		report_damaged(model, t->network, t->name, "lacks a chunk");
	value = result_datum(0, 1);
	data = DatumGetByteaPP(value);
	holds = call_write(call, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	if (data != (bytea *) DatumGetPointer(value))
		pfree(data);
	SPI_freetuptable(SPI_tuptable);
	return holds;
}

/* Sends the tensors in the order of the list, reading a row at a time. */
static bool
send_tensors(Call *call, const Model *model, const TensorList *tensors)
{
	bool holds = true;

	for (int i = 0; holds && i < tensors->n; i++)
	{
		const TensorInfo *t = &tensors->list[i];
		Params p = { 0 };

		param_add_version(&p, model->name, model->version);
		param_add_text(&p, t->head.network);
		param_add_text(&p, t->head.name);
		param_add_int(&p, 0);
		holds = call_write(call, &t->head, sizeof(t->head));
		for (int chunk = 0; holds && chunk < t->chunks; chunk++)
		{
			p.values[p.n - 1] = Int32GetDatum(chunk);
			holds = send_chunk(call, model, &t->head, &p);
		}
	}
	return holds && call_end(call);
}

/* ---- Sending a model ----------------------------------------------------- */

static char *
config_of(const Model *model)
{
	Params p = { 0 };

	param_add_version(&p, model->name, model->version);
	if (catalog_run(AS_CALLER_READ, "bicycle_models",
					"SELECT config FROM %s WHERE model = $1 AND version = $2", SPI_OK_SELECT,
					&p) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("version %d of model \"%s\" does not exist", model->version, model->name)));
	return result_text(0, 1);
}

/*
 * What the engine checks the tensors against, and the configuration that is a
 * part of it.
 */
static TensorList
describe_version(const Model *model, BicycleLoad *load, char **config)
{
	TensorList tensors = list_tensors(model, NULL);

	*config = config_of(model);
	memset(load, 0, sizeof(*load));
	memcpy(load->hash, model->hash, sizeof(load->hash));
	strlcpy(load->model, model->name, sizeof(load->model));
	load->version = model->version;
	load->config_length = strlen(*config);
	load->stream_length = tensors.stream_length;
	return tensors;
}

bool
model_stream_load(const Model *model, int engine)
{
	BicycleLoad load;
	TensorList tensors;
	Call *call;
	char *config;
	const char *result;
	size_t length;
	bool holds;

	SPI_connect();
	tensors = describe_version(model, &load, &config);
	call = call_open_at(engine, BICYCLE_LOAD, &load, sizeof(load), config, load.config_length);
	holds = call_granted(call) && send_tensors(call, model, &tensors) &&
			call_result(call, &result, &length);
	call_free(call);
	SPI_finish();
	return holds;
}

Call *
model_stream_train(BicycleTrainBegin *head, const char *options, const Model *model)
{
	TensorList tensors;
	Call *call;
	StringInfoData texts;
	char *config;

	SPI_connect();
	tensors = describe_version(model, &head->start, &config);
	head->stream_length = tensors.stream_length;
	head->options_length = strlen(options);
	initStringInfo(&texts);
	appendStringInfoString(&texts, options);
	appendStringInfoString(&texts, config);
	call = call_train(head, sizeof(*head), texts.data, texts.len);
	(void) send_tensors(call, model, &tensors);
	SPI_finish();
	return call;
}

void
model_stream_metric(Call *call, const Model *model)
{
	BicycleLoad load;
	TensorList tensors;
	char *config;

	SPI_connect();
	tensors = describe_version(model, &load, &config);
	if (call_send(call, (BicycleFrameType) BICYCLE_METRIC, &load, sizeof(load), config,
				  load.config_length))
		(void) send_tensors(call, model, &tensors);
	SPI_finish();
}

bytea *
model_stream_export(const Model *model, const char *network, const char *format)
{
	BicycleExport export = { 0 };
	TensorList tensors;
	Call *call;
	const char *result;
	size_t length;
	uint64 file_length;
	bytea *file = NULL;

	SPI_connect();
	tensors = list_tensors(model, network);
	if (tensors.n == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("version %d of model \"%s\" has no network \"%s\"", model->version,
							   model->name, network)));
	strlcpy(export.format, format, sizeof(export.format));
	export.stream_length = tensors.stream_length;
	call = call_open(BICYCLE_EXPORT, &export, sizeof(export), NULL, 0);
	if (call_granted(call) && send_tensors(call, model, &tensors) &&
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
	bytea *chunk = palloc(BICYCLE_CHUNK_BYTES + VARHDRSZ);

	for (int i = 0; i < ntensors; i++)
	{
		BicycleTensor t;
		Params p = { 0 };
		uint64 left;

		spool_read(file, &t, sizeof(t));
		model_stream_check_tensor(&t);
		param_add_version(&p, model, version);
		param_add_text(&p, t.network);
		param_add_text(&p, t.name);
		param_add_text(&p, t.dtype);
		param_add(&p, INT4ARRAYOID, model_stream_shape(&t));
		param_add(&p, BYTEAOID, PointerGetDatum(chunk));
		param_add_int(&p, 0);
		left = t.nbytes;
		for (int number = 0; number == 0 || left > 0; number++)
		{
			size_t n = Min(left, BICYCLE_CHUNK_BYTES);

			spool_read(file, VARDATA(chunk), n);
			SET_VARSIZE(chunk, n + VARHDRSZ);
			p.values[p.n - 1] = Int32GetDatum(number);
			(void) catalog_run(
				AS_CALLER, "bicycle_tensors",
				"INSERT INTO %s (model, version, network, name, dtype, shape, data, chunk)"
				" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
				SPI_OK_INSERT, &p);
			left -= n;
			CHECK_FOR_INTERRUPTS();
		}
	}
}
