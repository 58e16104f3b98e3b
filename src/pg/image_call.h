/*
 * image_call.h
 *	  What calls about images share.
 */
#ifndef BICYCLE_IMAGE_CALL_H
#define BICYCLE_IMAGE_CALL_H

#include "pg/bicycle.h"

#include "utils/array.h"

#include "pg/bad_images.h"
#include "pg/call.h"
#include "pg/catalog.h"

/*
 * An image, fetched. 54000 beyond bicycle.max_request_size, and then it is not
 * fetched; `what` is what the error calls it.
 */
extern bytea *image_argument(Datum value, const char *what);

/*
 * With bicycle.on_error = null, and unless the call is versioned, what cannot
 * be used for being as it is gives NULL: these count it then, in `to`
 * (bad_images.h), and say false. Otherwise they are image_argument, and true;
 * or wait for the call, and are true for an answer and for an error, which
 * whoever reads the answer raises. place may be NULL.
 */
extern bool image_accept(Datum value, bool versioned, BadImages *to, const char *place,
						 bytea **image);
extern bool image_answered(Call *call, bool versioned, BadImages *to, const char *place);

/*
 * image_accept in two steps: whether an image is beyond
 * bicycle.max_request_size; and what becomes of it.
 */
extern bool image_too_large(Datum value);
extern void image_refuse(Datum value, bool versioned, BadImages *to, const char *place);

/*
 * Common to TRANSLATE, ENCODE, INFO and PLOT: fills a request from the
 * settings. versioned: the session's output and precision do not count. model
 * is NULL for calls without one.
 */
extern void image_request_head(BicycleImageRequest *head, const Model *model, bool versioned);

/*
 * Takes an array argument of bytea or text apart; 2202E, naming `what`, if it
 * has more than one dimension.
 */
extern void image_array(ArrayType *array, Oid type, const char *what, Datum **values, bool **nulls,
						int *n);

extern int image_window(void); /* calls that one statement keeps open */
/* ... and bytes of their images, at least one */
#define IMAGE_WINDOW_BYTES ((Size) 64 * 1024 * 1024)

/*
 * Opens a call about two images: LPIPS; or COMPARE or MATCH, without a model.
 * The session's settings of what images become do not count.
 */
extern Call *image_pair_submit(BicycleFrameType type, const Model *model, const bytea *a,
							   const bytea *b, uint32 flags);

/* An answer of call_wait as a value, copied into CurrentMemoryContext. */
extern bytea *image_wait(Call *call);

#endif /* BICYCLE_IMAGE_CALL_H */
