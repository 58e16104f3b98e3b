/*
 * image_call.c
 *	  What calls about images share: argument, header and answer.
 *
 * R1 A call that names a version ignores the session: PNG, and the precision of
 *    the version's config. Its bytes depend on its arguments alone, which lets
 *    bicycle_translate(image, z, model, version) be IMMUTABLE.
 */
#include "pg/image_call.h"

#include "access/detoast.h"
#include "utils/memutils.h"

#include "common/names.h"

bytea *
image_argument(Datum value, const char *what)
{
	Size bytes = toast_raw_datum_size(value) - VARHDRSZ;
	Size limit = (Size) bicycle_max_request_size * 1024;

	if (bytes > limit)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%s is too large", what),
						errdetail("It has %zu bytes; the limit is %zu.", bytes, limit),
						errhint("A superuser may raise bicycle.max_request_size.")));
	return DatumGetByteaPP(value);
}

void
image_request_head(BicycleImageRequest *head, const Model *model, bool versioned)
{
	memset(head, 0, sizeof(*head));
	head->flags = bicycle_priority;
	head->max_pixels = bicycle_max_image_pixels;
	head->debug = bicycle_debug_fault;
	head->output_format = versioned ? BICYCLE_OUTPUT_PNG : bicycle_output_format;
	head->jpeg_quality = bicycle_jpeg_quality;
	if (model)
	{
		memcpy(head->hash, model->hash, BICYCLE_HASH_BYTES);
		head->precision = versioned ? model->precision : bicycle_precision;
	}
	else
		head->precision = BICYCLE_PRECISION_FP32;
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

int
image_window(void)
{
	return bicycle_batching ? bicycle_prefetch : 1;
}
