/*
 * image_call.c
 *	  What calls about images share: argument, header and answer.
 *
 * R1 A call that names a version ignores the session: PNG, and precision and
 *    fit of the version's config. Its bytes depend on its arguments alone,
 *    which lets bicycle_translate(image, z, model, version) be IMMUTABLE.
 */
#include "pg/image_call.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "common/names.h"
#include "pg/engine_slots.h"

/* ---- Arguments ----------------------------------------------------------- */

#define TOO_LARGE "It has %zu bytes; the limit is %zu."

static Size
image_argument_bytes(Datum value)
{
	return toast_raw_datum_size(value) - VARHDRSZ;
}

static Size
image_argument_limit(void)
{
	return (Size) bicycle_max_request_size * 1024;
}

bool
image_too_large(Datum value)
{
	return image_argument_bytes(value) > image_argument_limit();
}

pg_noreturn static void
raise_too_large(Datum value, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%s is too large", what),
					errdetail(TOO_LARGE, image_argument_bytes(value), image_argument_limit()),
					errhint("A superuser may raise bicycle.max_request_size.")));
}

bytea *
image_argument(Datum value, const char *what)
{
	if (image_too_large(value))
		raise_too_large(value, what);
	return DatumGetByteaPP(value);
}

void
image_refuse(Datum value, bool versioned, BadImages *to, const char *place)
{
	if (versioned || !bad_images_give_null())
		raise_too_large(value, "image");
	bad_images_count(to, place, "image is too large",
					 psprintf(TOO_LARGE, image_argument_bytes(value), image_argument_limit()));
}

bool
image_accept(Datum value, bool versioned, BadImages *to, const char *place, bytea **image)
{
	*image = NULL;
	if (image_too_large(value))
	{
		image_refuse(value, versioned, to, place);
		return false;
	}
	*image = DatumGetByteaPP(value);
	return true;
}

void
image_request_head(BicycleImageRequest *head, const Model *model, bool versioned)
{
	memset(head, 0, sizeof(*head));
	head->flags = bicycle_priority;
	if (bicycle_exif && !versioned)
		head->flags |= BICYCLE_FLAG_EXIF;
	head->max_pixels = bicycle_max_image_pixels;
	head->debug = bicycle_debug_fault;
	head->output_format = versioned ? BICYCLE_OUTPUT_PNG : bicycle_output_format;
	head->jpeg_quality = bicycle_jpeg_quality;
	head->png_level = versioned ? BICYCLE_PNG_LEVEL : bicycle_png_level;
	head->fit = versioned ? BICYCLE_FIT_MODEL : bicycle_fit;
	if (model)
	{
		memcpy(head->hash, model->hash, BICYCLE_HASH_BYTES);
		head->precision = versioned ? model->precision : bicycle_precision;
	}
	else
		head->precision = BICYCLE_PRECISION_FP32;
}

Call *
image_pair_submit(BicycleFrameType type, const Model *model, const bytea *a, const bytea *b,
				  uint32 flags)
{
	BicycleImageRequest head;
	char *both;
	Call *call;

	image_request_head(&head, model, true);
	head.flags |= flags;
	head.image_length = VARSIZE_ANY_EXHDR(a);
	head.second_length = VARSIZE_ANY_EXHDR(b);
	both = palloc_extended(Max((Size) head.image_length + head.second_length, 1), MCXT_ALLOC_HUGE);
	memcpy(both, VARDATA_ANY(a), head.image_length);
	memcpy(both + head.image_length, VARDATA_ANY(b), head.second_length);
	call =
		call_submit(type, model, &head, NULL, both, (Size) head.image_length + head.second_length);
	pfree(both);
	return call;
}

/* ---- Answers ------------------------------------------------------------- */

bool
image_answered(Call *call, bool versioned, BadImages *to, const char *place)
{
	const char *message;
	const char *detail;

	if (!call_image_failed(call, &message, &detail) || versioned || !bad_images_give_null())
		return true;
	bad_images_count(to, place, message, detail);
	return false;
}

bytea *
image_wait(Call *call)
{
	size_t length;
	const char *bytes = call_wait(call, &length);
	bytea *result;

	if (length > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("resulting image is too large"),
				 errdetail("It has %zu bytes.", length)));
	result = palloc(length + VARHDRSZ);
	SET_VARSIZE(result, length + VARHDRSZ);
	memcpy(VARDATA(result), bytes, length);
	return result;
}

void
image_array(ArrayType *array, Oid type, const char *what, Datum **values, bool **nulls, int *n)
{
	if (ARR_NDIM(array) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("%s must be a one-dimensional array", what),
						errdetail("It has %d dimensions.", ARR_NDIM(array))));
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, values, nulls, n);
}

int
image_window(void)
{
	return bicycle_batching ? bicycle_prefetch * Max(1, pg_popcount32(engines_usable())) : 1;
}
