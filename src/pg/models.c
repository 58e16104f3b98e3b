/*
 * models.c
 *	  bicycle_import, import_lpips, create, export, inspect, deploy, drop,
 *	  rename: versions of models.
 *
 * R1 All of them run as the caller, and need EXECUTE and the privileges of the
 *    tables that they touch.
 * R2 The current version cannot be dropped while others exist: a model would
 *    silently stop working. The only version can, and the whole model.
 *
 * How versions lie in the tables is told in model_store.c.
 */
#include "pg/bicycle.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "access/xact.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "pg/catalog_run.h"
#include "pg/jobs.h"
#include "pg/lpips.h"
#include "pg/model_store.h"
#include "pg/model_stream.h"
#include "pg/model_uses.h"
#include "pg/session.h"

PG_FUNCTION_INFO_V1(bicycle_import);
PG_FUNCTION_INFO_V1(bicycle_create);
PG_FUNCTION_INFO_V1(bicycle_import_lpips);
PG_FUNCTION_INFO_V1(bicycle_export);
PG_FUNCTION_INFO_V1(bicycle_inspect);
PG_FUNCTION_INFO_V1(bicycle_deploy);
PG_FUNCTION_INFO_V1(bicycle_drop);
PG_FUNCTION_INFO_V1(bicycle_rename);
PG_FUNCTION_INFO_V1(bicycle_drop_tensors);

/* ---- import and create --------------------------------------------------- */

typedef struct Import
{
	BicycleFrameType type;  /* IMPORT or CREATE */
	const char *command;    /* for errors */
	const char *method;     /* of the version; "lpips": backbone and heads are the files */
	const bytea *generator; /* NULL for CREATE */
	const bytea *encoder;   /* NULL: none */
	char *config;
	/* result */
	BicycleImported head;
	char *canonical; /* config */
	char *assumed;   /* options of it that nothing told; "": none */
	BufFile *tensors;
} Import;

static uint64
file_length(const bytea *file)
{
	return file ? VARSIZE_ANY_EXHDR(file) : 0;
}

static bool
write_file(Call *call, const bytea *file)
{
	return file == NULL || call_write(call, VARDATA_ANY(file), file_length(file));
}

/* One try to have the engine read the files; fills the result. */
static bool
import_attempt(void *arg)
{
	Import *import = arg;
	BicycleImport head = { .generator_length = file_length(import->generator),
						   .encoder_length = file_length(import->encoder) };
	Call *call;
	const char *result;
	size_t length;
	bool holds;

	head.config_length = strlen(import->config);
	head.lpips = strcmp(import->method, LPIPS_METHOD) == 0;
	head.max_model_size = (uint64) bicycle_max_model_size * 1024 * 1024;
	call = call_open(import->type, &head, sizeof(head), import->config, head.config_length);
	holds = call_granted(call) && write_file(call, import->generator) &&
			write_file(call, import->encoder) && call_end(call) &&
			call_result(call, &result, &length);
	if (holds)
	{
		if (length < sizeof(import->head))
			elog(ERROR, "answer of %zu bytes to an import", length);
		memcpy(&import->head, result, sizeof(import->head));
		if (length - sizeof(import->head) !=
			(uint64) import->head.config_length + import->head.assumed_length)
			elog(ERROR, "answer to an import has a configuration of the wrong length");
		import->canonical = pnstrdup(result + sizeof(import->head), import->head.config_length);
		import->assumed = pnstrdup(result + sizeof(import->head) + import->head.config_length,
								   import->head.assumed_length);
		import->tensors = model_stream_spool(call, import->head.stream_length);
		holds = import->tensors != NULL;
	}
	call_free(call);
	return holds;
}

/*
 * A model that is created anew would silently take the place of another;
 * importing is how a further version is made.
 */
static void
refuse_existing(const char *name)
{
	Params p = { 0 };

	param_add_text(&p, name);
	if (catalog_run(AS_OWNER, "bicycle_models", "SELECT 1 FROM %s WHERE model = $1 LIMIT 1",
					SPI_OK_SELECT, &p) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("model \"%s\" already exists", name),
				 errhint("Use another name, or drop the model first: bicycle_drop(%s).",
						 quote_literal_cstr(name))));
}

/*
 * Has the engine read or make the model, and writes it as a new, current
 * version.
 */
static int
import_model(Import *import, const char *name)
{
	int version;

	PreventCommandIfReadOnly(import->command);
	PreventCommandDuringRecovery(import->command);
	catalog_check_rights("bicycle_models", ACL_INSERT);
	catalog_check_rights("bicycle_tensors", ACL_INSERT);
	call_retry(import_attempt, import,
			   import->type == BICYCLE_IMPORT ? "read the model files" : "made the model");

	SPI_connect();
	model_lock(name);
	if (import->type == BICYCLE_CREATE)
		refuse_existing(name);
	version = model_store(name, import->method, 0, &import->head, import->canonical,
						  import->tensors, NULL);
	SPI_finish();
	BufFileClose(import->tensors);
	if (import->assumed[0] != '\0')
		ereport(NOTICE,
				(errmsg("options of model \"%s\" that its files do not tell were assumed", name),
				 errdetail("%s", import->assumed),
				 errhint("If it was made with others, import it again with them in config.")));
	return version;
}

static bytea *
file_argument(FunctionCallInfo fcinfo, int i)
{
	bytea *file = PG_GETARG_BYTEA_PP(i);
	uint64 limit = (uint64) bicycle_max_model_size * 1024 * 1024;

	if (VARSIZE_ANY_EXHDR(file) > limit)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("model file is too large"),
						errdetail("It has %zu bytes; the limit is " UINT64_FORMAT ".",
								  (Size) VARSIZE_ANY_EXHDR(file), limit),
						errhint("Raise bicycle.max_model_size.")));
	if (VARSIZE_ANY_EXHDR(file) == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
						errmsg("could not read model file"), errdetail("It is empty.")));
	return file;
}

/*
 * bicycle_import(model text, generator bytea, encoder bytea DEFAULT NULL,
 * config jsonb DEFAULT '{}') -> int
 */
Datum
bicycle_import(PG_FUNCTION_ARGS)
{
	Import import = { .type = BICYCLE_IMPORT, .method = "bicycle", .command = "bicycle_import()" };
	char *name = model_own_name_argument(fcinfo, 0);

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("generator must not be null")));
	import.generator = file_argument(fcinfo, 1);
	import.encoder = PG_ARGISNULL(2) ? NULL : file_argument(fcinfo, 2);
	import.config = model_options_argument(fcinfo, 3);
	PG_RETURN_INT32(import_model(&import, name));
}

/* bicycle_create(model text, config jsonb DEFAULT '{}') -> int */
Datum
bicycle_create(PG_FUNCTION_ARGS)
{
	Import import = { .type = BICYCLE_CREATE, .method = "bicycle", .command = "bicycle_create()" };
	char *name = model_own_name_argument(fcinfo, 0);

	import.config = model_options_argument(fcinfo, 1);
	PG_RETURN_INT32(import_model(&import, name));
}

/* The names of a net and a version make a name. */
static char *
part_argument(FunctionCallInfo fcinfo, int i, const char *what)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
	return text_to_cstring(PG_GETARG_TEXT_PP(i));
}

/*
 * bicycle_import_lpips(net text, backbone bytea, heads bytea, version text
 * DEFAULT '0.1') -> int
 */
Datum
bicycle_import_lpips(PG_FUNCTION_ARGS)
{
	Import import = { .type = BICYCLE_IMPORT,
					  .method = LPIPS_METHOD,
					  .command = "bicycle_import_lpips()" };
	char *net = part_argument(fcinfo, 0, "net");
	char *version = part_argument(fcinfo, 3, "version");
	char *name = lpips_name(net, version);

	for (int i = 1; i <= 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("%s must not be null", i == 1 ? "backbone" : "heads")));
	import.generator = file_argument(fcinfo, 1);
	import.encoder = file_argument(fcinfo, 2);
	import.config = psprintf("{\"lpips\":\"%s\",\"net\":\"%s\"}", version, net);
	PG_RETURN_INT32(import_model(&import, name));
}

/* ---- export and inspect -------------------------------------------------- */

typedef struct Export
{
	Model *model;
	char *network;
	char *format;
	bytea *file; /* result */
} Export;

static bool
export_attempt(void *arg)
{
	Export *export = arg;

	export->file = model_stream_export(export->model, export->network, export->format);
	return export->file != NULL;
}

static char *
choice_argument(FunctionCallInfo fcinfo, int i, const char *what, const char *const *choices,
				int nchoices, const char *hint)
{
	char *value = PG_ARGISNULL(i) ? pstrdup(choices[0]) : text_to_cstring(PG_GETARG_TEXT_PP(i));

	for (int c = 0; c < nchoices; c++)
		if (strcmp(value, choices[c]) == 0)
			return value;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("%s \"%s\" is not known", what, value), errhint("%s", hint)));
}

/*
 * bicycle_export(model text, network text DEFAULT 'G', version int DEFAULT
 * NULL, format text DEFAULT 'safetensors') -> bytea
 */
Datum
bicycle_export(PG_FUNCTION_ARGS)
{
	static const char *const networks[] = { "G", "E", "D", "D2" };
	static const char *const formats[] = { "safetensors", "pth" };
	Export export = { 0 };
	int version = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);

	(void) model_name_argument(fcinfo, 0);
	export.network = choice_argument(fcinfo, 1, "network", networks, lengthof(networks),
									 "The networks are G, E, D and D2.");
	export.format = choice_argument(fcinfo, 3, "format", formats, lengthof(formats),
									"The formats are safetensors and pth.");
	export.model = model_lookup(PG_GETARG_TEXT_PP(0), PG_ARGISNULL(2) ? NULL : &version);
	call_retry(export_attempt, &export, "wrote the model file");
	PG_RETURN_BYTEA_P(export.file);
}

typedef struct Inspect
{
	const bytea *file;
	BicycleInspected head; /* result */
	BufFile *tensors;
} Inspect;

static bool
inspect_attempt(void *arg)
{
	Inspect *inspect = arg;
	BicycleImport head = { .generator_length = file_length(inspect->file) };
	Call *call;
	const char *result;
	size_t length;
	bool holds;

	head.max_model_size = (uint64) bicycle_max_model_size * 1024 * 1024;
	call = call_open(BICYCLE_INSPECT, &head, sizeof(head), NULL, 0);
	holds = call_granted(call) && write_file(call, inspect->file) && call_end(call) &&
			call_result(call, &result, &length);
	if (holds)
	{
		if (length != sizeof(inspect->head))
			elog(ERROR, "answer of %zu bytes to an inspection", length);
		memcpy(&inspect->head, result, sizeof(inspect->head));
		inspect->tensors =
			model_stream_spool(call, (uint64) inspect->head.ntensors * sizeof(BicycleTensor));
		holds = inspect->tensors != NULL;
	}
	call_free(call);
	return holds;
}

/*
 * bicycle_inspect(file bytea) -> TABLE(name text, dtype text, shape int[]);
 * strict
 */
Datum
bicycle_inspect(PG_FUNCTION_ARGS)
{
	Inspect inspect = { .file = file_argument(fcinfo, 0) };
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	call_retry(inspect_attempt, &inspect, "read the model file");
	for (uint32 i = 0; i < inspect.head.ntensors; i++)
	{
		BicycleTensor t;
		Datum values[3];
		bool nulls[3] = { false };

		if (BufFileRead(inspect.tensors, &t, sizeof(t)) != sizeof(t))
			elog(ERROR, "could not read back a tensor's description");
		model_stream_check_tensor(&t);
		values[0] = CStringGetTextDatum(session_text(t.name));
		values[1] = CStringGetTextDatum(t.dtype);
		values[2] = model_stream_shape(&t);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	BufFileClose(inspect.tensors);
	return (Datum) 0;
}

/* ---- deploy and drop ----------------------------------------------------- */

static void
report_missing(const char *name, const int *version)
{
	if (version)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("version %d of model \"%s\" does not exist", *version, name)));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("model \"%s\" does not exist", name)));
}

/* bicycle_deploy(model text, version int) -> void */
Datum
bicycle_deploy(PG_FUNCTION_ARGS)
{
	char *name = model_name_argument(fcinfo, 0);
	Params p = { 0 };
	int version;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("version must not be null")));
	version = PG_GETARG_INT32(1);
	PreventCommandIfReadOnly("bicycle_deploy()");
	SPI_connect();
	model_lock(name);
	param_add_version(&p, name, version);
	if (catalog_run(AS_CALLER, "bicycle_models",
					"SELECT 1 FROM %s WHERE model = $1 AND version = $2", SPI_OK_SELECT, &p) == 0)
		report_missing(name, &version);
	model_set_current(name, version);
	SPI_finish();
	PG_RETURN_VOID();
}

/* R2; p: name and version. */
static void
refuse_current(const char *name, int version, Params *p)
{
	if (catalog_run(AS_CALLER, "bicycle_models",
					"SELECT count(*)::int4 - 1 FROM %s WHERE model = $1"
					" HAVING bool_or(version = $2 AND is_current) AND count(*) > 1",
					SPI_OK_SELECT, p) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop the current version of model \"%s\"", name),
				 errdetail("Version %d is current, and there are %d others.", version,
						   result_int(0, 1)),
				 errhint("Make another version current with bicycle_deploy, or drop the whole "
						 "model.")));
}

/*
 * bicycle_drop(model text, version int DEFAULT NULL) -> void; the tensors go by
 * a trigger
 */
Datum
bicycle_drop(PG_FUNCTION_ARGS)
{
	char *name = model_name_argument(fcinfo, 0);
	int version = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	Params p = { 0 };

	PreventCommandIfReadOnly("bicycle_drop()");
	SPI_connect();
	model_lock(name);
	catalog_check_rights("bicycle_models", ACL_DELETE);
	job_check_unused(name, version);
	param_add_version(&p, name, version);
	if (!PG_ARGISNULL(1))
		refuse_current(name, version, &p);
	model_check_unnamed(name, version, "drop");
	if (catalog_run(AS_CALLER, "bicycle_models",
					PG_ARGISNULL(1) ? "DELETE FROM %s WHERE model = $1"
									: "DELETE FROM %s WHERE model = $1 AND version = $2",
					SPI_OK_DELETE, &p) == 0)
		report_missing(name, PG_ARGISNULL(1) ? NULL : &version);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- rename -------------------------------------------------------------- */

/* What bicycle_rename is about, for the trigger; NULL: it does not run. */
typedef struct Renaming
{
	const char *from, *to;
} Renaming;

static const Renaming *renaming;

/* Both names, in one order whoever comes first. */
static void
lock_both(const Renaming *names)
{
	bool rising = strcmp(names->from, names->to) < 0;

	model_lock(rising ? names->from : names->to);
	model_lock(rising ? names->to : names->from);
}

/* A name that was ever used has a number that must not be used again. */
static void
refuse_taken(const char *name)
{
	static const char *const tables[] = { "bicycle_models", "bicycle_counters" };

	for (int i = 0; i < lengthof(tables); i++)
	{
		Params p = { 0 };

		param_add_text(&p, name);
		if (catalog_run(AS_OWNER, tables[i], "SELECT 1 FROM %s WHERE model = $1 LIMIT 1",
						SPI_OK_SELECT, &p) > 0)
			ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
							i == 0 ? errmsg("model \"%s\" already exists", name)
								   : errmsg("name \"%s\" was already used for a model", name),
							i == 0 ? 0 : errdetail("Its numbers of versions are not used again."),
							errhint("Use another name.")));
	}
}

/* Rows of all versions; their tensors follow by the trigger. */
static void
rename_rows(const Renaming *names)
{
	Params p = { 0 };
	uint64 renamed;

	param_add_text(&p, names->from);
	param_add_text(&p, names->to);
	renaming = names;
	PG_TRY();
	{
		renamed = catalog_run(AS_CALLER, "bicycle_models",
							  "UPDATE %s SET model = $2 WHERE model = $1", SPI_OK_UPDATE, &p);
	}
	PG_FINALLY();
	{
		renaming = NULL;
	}
	PG_END_TRY();
	if (renamed == 0)
		report_missing(names->from, NULL);
	(void) catalog_run(AS_CALLER, "bicycle_counters", "UPDATE %s SET model = $2 WHERE model = $1",
					   SPI_OK_UPDATE, &p);
	(void) catalog_run(AS_OWNER, JOBS, "UPDATE %s SET model = $2 WHERE model = $1", SPI_OK_UPDATE,
					   &p);
	p.n = 1;
	if (catalog_run(AS_OWNER, "bicycle_models", "SELECT 1 FROM %s WHERE model = $1 LIMIT 1",
					SPI_OK_SELECT, &p) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for versions of model \"%s\"", names->from),
				 errdetail("Row security hides some of them, and all are renamed or none.")));
}

/* Its name is what it is found by. */
static void
refuse_comparing(const char *name)
{
	Params p = { 0 };

	param_add_text(&p, name);
	if (catalog_run(AS_CALLER, "bicycle_models",
					"SELECT 1 FROM %s WHERE model = $1 AND config ? 'lpips' LIMIT 1", SPI_OK_SELECT,
					&p) > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot rename model \"%s\", which compares images", name),
						errdetail("It is found by its name.")));
}

/* bicycle_rename(model text, new_name text) -> void */
Datum
bicycle_rename(PG_FUNCTION_ARGS)
{
	Renaming names = { model_name_argument(fcinfo, 0), model_own_name_argument(fcinfo, 1) };
	int64 job;

	PreventCommandIfReadOnly("bicycle_rename()");
	SPI_connect();
	lock_both(&names);
	catalog_check_rights("bicycle_models", ACL_UPDATE);
	catalog_check_rights("bicycle_counters", ACL_UPDATE);
	refuse_comparing(names.from);
	job = job_on_model(names.from, 0, 0);
	if (job != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("cannot rename model \"%s\", which is being trained", names.from),
						JOB_NOT_FINISHED(job)));
	refuse_taken(names.to);
	model_check_unnamed(names.from, 0, "rename");
	rename_rows(&names);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- The trigger --------------------------------------------------------- */

/* The model's name in a row of the trigger's table. */
static char *
name_in(const TriggerData *data, HeapTuple row)
{
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	bool isnull;

	return TextDatumGetCString(SPI_getbinval(row, desc, SPI_fnumber(desc, "model"), &isnull));
}

static int
version_in(const TriggerData *data, HeapTuple row)
{
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	bool isnull;

	return DatumGetInt32(SPI_getbinval(row, desc, SPI_fnumber(desc, "version"), &isnull));
}

/*
 * Trigger on bicycle_models: the tensors of a version that is deleted go with
 * it, whoever may delete it, as by a foreign key. A version keeps its number,
 * and its name but for bicycle_rename.
 */
Datum
bicycle_drop_tensors(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	HeapTuple old;
	Params p = { 0 };

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		elog(ERROR, "bicycle_drop_tensors was not called as a trigger after each row");
	old = data->tg_trigtuple;
	SPI_connect();
	param_add_version(&p, name_in(data, old), version_in(data, old));
	if (!TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		(void) catalog_run(AS_OWNER, "bicycle_tensors",
						   "DELETE FROM %s WHERE model = $1 AND version = $2", SPI_OK_DELETE, &p);
	else if (renaming != NULL && strcmp(name_in(data, old), renaming->from) == 0 &&
			 strcmp(name_in(data, data->tg_newtuple), renaming->to) == 0 &&
			 version_in(data, old) == version_in(data, data->tg_newtuple))
	{
		param_add_text(&p, renaming->to);
		(void) catalog_run(AS_OWNER, "bicycle_tensors",
						   "UPDATE %s SET model = $3 WHERE model = $1 AND version = $2",
						   SPI_OK_UPDATE, &p);
	}
	else
		ereport(ERROR, (errcode(ERRCODE_RESTRICT_VIOLATION),
						errmsg("a version of a model cannot be renamed"),
						errdetail("Tensors belong to it by its name and number."),
						errhint("Rename the model with bicycle_rename.")));
	SPI_finish();
	return PointerGetDatum(NULL);
}
