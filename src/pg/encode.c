/*
 * encode.c
 *	  bicycle_encode and bicycle_encode_posterior: the latent code that the
 *	  encoder sees in an image.
 */
#include "pg/translate.h"

#include "access/htup_details.h"
#include "funcapi.h"

#include "pg/image_call.h"
#include "pg/latent.h"

PG_FUNCTION_INFO_V1(bicycle_encode);
PG_FUNCTION_INFO_V1(bicycle_encode_version);
PG_FUNCTION_INFO_V1(bicycle_encode_posterior);

Call *
encode_submit(const Model *model, bool versioned, const bytea *image)
{
	BicycleImageRequest head;

	if (!model->has_encoder)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("model \"%s\" has no encoder", model->name),
			 errdetail("Version %d holds a generator only.", model->version),
			 errhint(
				 "Import the model with its encoder: bicycle_import(model, generator, encoder).")));
	if (image == NULL)
		return NULL;
	image_request_head(&head, model, versioned);
	head.image_length = VARSIZE_ANY_EXHDR(image);
	return call_submit(BICYCLE_ENCODE, model, &head, NULL, VARDATA_ANY(image), head.image_length);
}

float *
encode_wait(Call *call, const Model *model)
{
	size_t length;
	const char *bytes = call_wait(call, &length);
	float *values;

	if (length != 2 * model->nz * sizeof(float))
		elog(ERROR, "posterior of %zu bytes for nz %d", length, model->nz);
	values = palloc(Max(length, sizeof(float)));
	memcpy(values, bytes, length);
	return values;
}

/* NULL: the image cannot be used, and is counted. */
static float *
encode_image(Datum image_value, const text *name, const int *version, int *nz)
{
	bytea *image;
	bool usable = image_accept(image_value, version != NULL, NULL, NULL, &image);
	Model *model = model_lookup(name, version);
	Call *call = encode_submit(model, version != NULL, image);
	float *values = NULL;

	if (!usable)
		return NULL;
	if (image_answered(call, version != NULL, NULL, NULL))
		values = encode_wait(call, model);
	call_free(call);
	*nz = model->nz;
	return values;
}

/* bicycle_encode(image bytea, model text DEFAULT NULL) -> float4[] */
Datum
bicycle_encode(PG_FUNCTION_ARGS)
{
	int nz;
	float *values;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	values =
		encode_image(PG_GETARG_DATUM(0), PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), NULL, &nz);
	if (values == NULL)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(latent_array(values, nz));
}

/* bicycle_encode(image bytea, model text, version int) -> float4[]; strict */
Datum
bicycle_encode_version(PG_FUNCTION_ARGS)
{
	int version = PG_GETARG_INT32(2);
	int nz;
	float *values = encode_image(PG_GETARG_DATUM(0), PG_GETARG_TEXT_PP(1), &version, &nz);

	PG_RETURN_ARRAYTYPE_P(latent_array(values, nz));
}

/*
 * bicycle_encode_posterior(image bytea, model text DEFAULT NULL, version int
 * DEFAULT NULL, OUT mu float4[], OUT logvar float4[])
 */
Datum
bicycle_encode_posterior(PG_FUNCTION_ARGS)
{
	int version = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	int nz;
	float *values;
	TupleDesc desc;
	Datum results[2] = { 0 };
	bool nulls[2] = { false };

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values = encode_image(PG_GETARG_DATUM(0), PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1),
						  PG_ARGISNULL(2) ? NULL : &version, &nz);
	if (values == NULL)
		PG_RETURN_NULL();
	results[0] = PointerGetDatum(latent_array(values, nz));
	results[1] = PointerGetDatum(latent_array(values + nz, nz));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), results, nulls)));
}
