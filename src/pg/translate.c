/*
 * translate.c
 *	  bicycle_translate, bicycle_translate_many, bicycle_image_info.
 */
#include "pg/translate.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "common/invariant.h"
#include "pg/image_call.h"
#include "pg/latent.h"

PG_FUNCTION_INFO_V1(bicycle_translate);
PG_FUNCTION_INFO_V1(bicycle_translate_version);
PG_FUNCTION_INFO_V1(bicycle_translate_many);
PG_FUNCTION_INFO_V1(bicycle_image_info);

Call *
translate_submit(const Model *model, bool versioned, const float *z, const bytea *image)
{
	BicycleImageRequest head;

	image_request_head(&head, model, versioned);
	head.nz = model->nz;
	head.image_length = VARSIZE_ANY_EXHDR(image);
	return call_submit(BICYCLE_TRANSLATE, model, &head, z, VARDATA_ANY(image), head.image_length);
}

/* NULL: the image cannot be used, and is counted. */
static bytea *
translate_one(Datum image_value, ArrayType *z, const text *name, const int *version)
{
	bytea *image;
	bool usable = image_accept(image_value, version != NULL, NULL, NULL, &image);
	int nz;
	const float *values = latent_values(z, &nz);
	Model *model = model_lookup(name, version);
	Call *call;
	bytea *result = NULL;

	latent_check_length(nz, model);
	if (!usable)
		return NULL;
	call = translate_submit(model, version != NULL, values, image);
	if (image_answered(call, version != NULL, NULL, NULL))
		result = image_wait(call);
	call_free(call);
	return result;
}

/*
 * bicycle_translate(image bytea, z float4[], model text DEFAULT NULL) -> bytea
 */
Datum
bicycle_translate(PG_FUNCTION_ARGS)
{
	bytea *result;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	result = translate_one(PG_GETARG_DATUM(0), PG_GETARG_ARRAYTYPE_P(1),
						   PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), NULL);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

/*
 * bicycle_translate(image bytea, z float4[], model text, version int) -> bytea;
 * strict
 */
Datum
bicycle_translate_version(PG_FUNCTION_ARGS)
{
	int version = PG_GETARG_INT32(3);

	PG_RETURN_BYTEA_P(translate_one(PG_GETARG_DATUM(0), PG_GETARG_ARRAYTYPE_P(1),
									PG_GETARG_TEXT_PP(2), &version));
}

/*
 * The latents of translate_many: one for all images (one-dimensional, or a
 * single row), or a row for each. *stride is the distance from one image's
 * latent to the next, 0 if they share one.
 */
static const float *
latent_rows(ArrayType *z, int nimages, int *nz, int *stride)
{
	int n;

	if (ARR_NDIM(z) <= 1)
	{
		*stride = 0;
		return latent_values(z, nz);
	}
	if (ARR_NDIM(z) > 2 || (ARR_DIMS(z)[0] != 1 && ARR_DIMS(z)[0] != nimages))
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("latent codes must be one row for all images or one row for each"),
						ARR_NDIM(z) > 2 ? errdetail("The array has %d dimensions.", ARR_NDIM(z))
										: errdetail("There are %d rows and %d images.",
													ARR_DIMS(z)[0], nimages)));
	*nz = ARR_DIMS(z)[1];
	*stride = ARR_DIMS(z)[0] == 1 ? 0 : *nz;

	/* The checks of a single latent do for all of them laid end to end. */
	if (array_contains_nulls(z))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("latent code must not contain nulls")));
	return latent_values(
		latent_array((const float *) ARR_DATA_PTR(z), ArrayGetNItems(2, ARR_DIMS(z))), &n);
}

/*
 * The result of translate_many for images that have been decided on. Calls are
 * open in the order of their images, up to `next`.
 */
typedef struct Many
{
	Model *model;
	bool versioned;
	const float *z;
	int stride;
	int n;
	Datum *images;
	bool *nulls;   /* also where an image cannot be used */
	Call **calls;  /* NULL where the image is NULL, or the call is not open */
	int next;      /* the image that is submitted next */
	int in_flight; /* calls that are open */
	Size bytes;    /* of their images */
	int at;        /* the image that an error is about */
} Many;

#define MANY_PLACE "image %d of bicycle_translate_many"

/* Says which of many images an error is about. */
static void
many_context(void *arg)
{
	errcontext(MANY_PLACE, ((Many *) arg)->at + 1);
}

/* For the reasons of a WARNING; only made where it may be wanted. */
static const char *
many_place(const Many *m)
{
	return bad_images_give_null() ? psprintf(MANY_PLACE, m->at + 1) : NULL;
}

/* Submits images as far as the window allows. */
static void
many_submit(Many *m)
{
	while (m->next < m->n && m->in_flight < image_window() &&
		   (m->bytes < IMAGE_WINDOW_BYTES || m->in_flight == 0))
	{
		int i = m->next++;
		bytea *image;

		if (m->nulls[i])
			continue;
		m->at = i;
		m->nulls[i] = !image_accept(m->images[i], m->versioned, NULL, many_place(m), &image);
		if (m->nulls[i])
			continue;
		m->calls[i] = translate_submit(m->model, m->versioned, m->z + (Size) i * m->stride, image);
		m->in_flight++;
		m->bytes += toast_raw_datum_size(m->images[i]);
	}
}

/*
 * Waits for the answer to an image that has been submitted; NULL if it cannot
 * be used.
 */
static bytea *
many_wait(Many *m, int i)
{
	Size bytes = toast_raw_datum_size(m->images[i]);
	bytea *result = NULL;

	INVARIANT(m->calls[i] != NULL && m->in_flight > 0 && m->bytes >= bytes);
	m->at = i;
	m->nulls[i] = !image_answered(m->calls[i], m->versioned, NULL, many_place(m));
	if (!m->nulls[i])
		result = image_wait(m->calls[i]);
	call_free(m->calls[i]);
	m->calls[i] = NULL;
	m->in_flight--;
	m->bytes -= bytes;
	return result;
}

/*
 * bicycle_translate_many(images bytea[], z float4[][], model text DEFAULT NULL,
 * version int DEFAULT NULL) -> bytea[]
 */
Datum
bicycle_translate_many(PG_FUNCTION_ARGS)
{
	Many m = { 0 };
	ArrayType *images;
	int version = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3);
	int nz;
	Datum *results;
	int lbound;
	ErrorContextCallback context = { .callback = many_context,
									 .arg = &m,
									 .previous = error_context_stack };

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	images = PG_GETARG_ARRAYTYPE_P(0);
	image_array(images, BYTEAOID, "images", &m.images, &m.nulls, &m.n);
	m.z = latent_rows(PG_GETARG_ARRAYTYPE_P(1), m.n, &nz, &m.stride);
	m.versioned = !PG_ARGISNULL(3);
	m.model =
		model_lookup(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), m.versioned ? &version : NULL);
	latent_check_length(nz, m.model);
	if (m.n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(BYTEAOID));

	m.calls = palloc0(m.n * sizeof(Call *));
	results = palloc0(m.n * sizeof(Datum));
	error_context_stack = &context;
	for (int i = 0; i < m.n; i++)
	{
		many_submit(&m);
		if (!m.nulls[i])
			results[i] = PointerGetDatum(many_wait(&m, i));
	}
	error_context_stack = context.previous;
	lbound = ARR_LBOUND(images)[0];
	PG_RETURN_ARRAYTYPE_P(
		construct_md_array(results, m.nulls, 1, &m.n, &lbound, BYTEAOID, -1, false, TYPALIGN_INT));
}

/*
 * bicycle_image_info(image bytea, OUT format text, OUT width int, OUT height
 * int, OUT channels int, OUT bit_depth int); strict
 */
Datum
bicycle_image_info(PG_FUNCTION_ARGS)
{
	bytea *image = image_argument(PG_GETARG_DATUM(0), "image");
	BicycleImageRequest head;
	BicycleImageInfo info;
	Call *call;
	const char *bytes;
	size_t length;
	TupleDesc desc;
	Datum values[5];
	bool nulls[5] = { false };

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	image_request_head(&head, NULL, true);
	head.image_length = VARSIZE_ANY_EXHDR(image);
	call = call_submit(BICYCLE_INFO, NULL, &head, NULL, VARDATA_ANY(image), head.image_length);
	bytes = call_wait(call, &length);
	if (length < sizeof(info))
		elog(ERROR, "image info of %zu bytes instead of %zu", length, sizeof(info));
	memcpy(&info, bytes, sizeof(info));
	call_free(call);

	values[0] = PointerGetDatum(
		cstring_to_text_with_len(info.format, strnlen(info.format, sizeof(info.format))));
	values[1] = Int32GetDatum(info.width);
	values[2] = Int32GetDatum(info.height);
	values[3] = Int32GetDatum(info.channels);
	values[4] = Int32GetDatum(info.bit_depth);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
