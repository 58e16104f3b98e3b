/*
 * image_check.c
 *	  bicycle_check: whether an image can be used.
 *
 * R1 The engine decodes every pixel, and answers with what is wrong. That is
 *    the image's alone, so bicycle_check may be IMMUTABLE: what depends on
 *    settings, on memory or on the engine is an error, also where
 *    bicycle.on_error is null.
 */
#include "pg/translate.h"

#include "utils/builtins.h"

#include "pg/image_call.h"
#include "pg/session.h"

PG_FUNCTION_INFO_V1(bicycle_check);

Call *
check_submit(const bytea *image)
{
	BicycleImageRequest head;

	image_request_head(&head, NULL, true);
	head.image_length = VARSIZE_ANY_EXHDR(image);
	return call_submit(BICYCLE_CHECK, NULL, &head, NULL, VARDATA_ANY(image), head.image_length);
}

text *
check_wait(Call *call)
{
	size_t length;
	const char *bytes = call_wait(call, &length);

	return length > 0 ? cstring_to_text(session_text(pnstrdup(bytes, length))) : NULL;
}

/* bicycle_check(image bytea) -> text; strict */
Datum
bicycle_check(PG_FUNCTION_ARGS)
{
	Call *call = check_submit(image_argument(PG_GETARG_DATUM(0), "image"));
	text *reason = check_wait(call);

	call_free(call);
	if (reason == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(reason);
}
