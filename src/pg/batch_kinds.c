/*
 * batch_kinds.c
 *	  The functions whose calls the node of batch_exec.c runs many at once: how
 *	  each is opened and waited for, and which OIDs they have in this database.
 *
 * OIDs are looked up once, and again after any change of a function or schema.
 */
#include "pg/batch.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "pg/image_call.h"
#include "pg/latent.h"
#include "pg/lpips.h"
#include "pg/translate.h"

/* ---- The functions ------------------------------------------------------- */

static Call *
submit_translate(const Model *model, bool versioned, const bytea *image,
				 const BatchArguments *arguments)
{
	int nz;
	const float *z = latent_values(DatumGetArrayTypeP(arguments->value[1]), &nz);

	latent_check_length(nz, model);
	return image == NULL ? NULL : translate_submit(model, versioned, z, image);
}

static Datum
wait_translate(Call *call, const Model *model, bool *isnull)
{
	return PointerGetDatum(image_wait(call));
}

static Call *
submit_encode(const Model *model, bool versioned, const bytea *image,
			  const BatchArguments *arguments)
{
	return encode_submit(model, versioned, image);
}

static Datum
wait_encode(Call *call, const Model *model, bool *isnull)
{
	return PointerGetDatum(latent_array(encode_wait(call, model), model->nz));
}

static Call *
submit_check(const Model *model, bool versioned, const bytea *image,
			 const BatchArguments *arguments)
{
	return image == NULL ? NULL : check_submit(image);
}

static Datum
wait_check(Call *call, const Model *model, bool *isnull)
{
	text *reason = check_wait(call);

	*isnull = reason == NULL;
	return PointerGetDatum(reason);
}

static Model *
find_lpips(const BatchArguments *arguments)
{
	return lpips_model(TextDatumGetCString(arguments->value[2]),
					   TextDatumGetCString(arguments->value[3]), false);
}

static Call *
submit_lpips(const Model *model, bool versioned, const bytea *image,
			 const BatchArguments *arguments)
{
	return image == NULL
			   ? NULL
			   : lpips_submit(model, image, DatumGetByteaPP(arguments->value[1]), bicycle_exif);
}

static Datum
wait_lpips(Call *call, const Model *model, bool *isnull)
{
	return Float8GetDatum(lpips_wait(call, NULL));
}

static const BatchKind kinds[] = {
	{ .name = "bicycle_translate",
	  .nargs = 3,
	  .types = { BYTEAOID, FLOAT4ARRAYOID, TEXTOID },
	  .images = 1,
	  .required = 2,
	  .model = 2,
	  .submit = submit_translate,
	  .wait = wait_translate },
	{ .name = "bicycle_translate",
	  .nargs = 4,
	  .types = { BYTEAOID, FLOAT4ARRAYOID, TEXTOID, INT4OID },
	  .images = 1,
	  .required = 4,
	  .model = 2,
	  .versioned = true,
	  .submit = submit_translate,
	  .wait = wait_translate },
	{ .name = "bicycle_encode",
	  .nargs = 2,
	  .types = { BYTEAOID, TEXTOID },
	  .images = 1,
	  .required = 1,
	  .model = 1,
	  .submit = submit_encode,
	  .wait = wait_encode },
	{ .name = "bicycle_encode",
	  .nargs = 3,
	  .types = { BYTEAOID, TEXTOID, INT4OID },
	  .images = 1,
	  .required = 3,
	  .model = 1,
	  .versioned = true,
	  .submit = submit_encode,
	  .wait = wait_encode },
	{ .name = "bicycle_check",
	  .nargs = 1,
	  .types = { BYTEAOID },
	  .images = 1,
	  .required = 1,
	  .model = BATCH_NO_MODEL,
	  .versioned = true,
	  .submit = submit_check,
	  .wait = wait_check,
	  .tells = true },
	{ .name = "bicycle_lpips",
	  .nargs = 4,
	  .types = { BYTEAOID, BYTEAOID, TEXTOID, TEXTOID },
	  .images = 2,
	  .required = 4,
	  .model = 2,
	  .find = find_lpips,
	  .submit = submit_lpips,
	  .wait = wait_lpips },
};

static Oid functions[lengthof(kinds)];
static bool functions_known = false; /* cleared by any change of a function or schema */

static void
functions_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	functions_known = false;
}

static void
find_functions(void)
{
	static bool registered = false;
	Oid schema;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, functions_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, functions_changed, (Datum) 0);
		registered = true;
	}
	functions_known = true; /* first, so that a change that comes in meanwhile is not lost */
	schema = catalog_schema(true);
	for (int i = 0; i < lengthof(kinds); i++)
		functions[i] =
			!OidIsValid(schema)
				? InvalidOid
				: GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(kinds[i].name),
								  PointerGetDatum(buildoidvector(kinds[i].types, kinds[i].nargs)),
								  ObjectIdGetDatum(schema));
}

bool
batch_functions_exist(void)
{
	if (!functions_known)
		find_functions();
	return OidIsValid(functions[0]);
}

const BatchKind *
batch_kind_of(Oid function)
{
	if (!batch_functions_exist())
		return NULL;
	for (int i = 0; i < lengthof(kinds); i++)
		if (functions[i] == function)
			return &kinds[i];
	return NULL;
}
