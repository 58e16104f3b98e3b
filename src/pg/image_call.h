/*
 * image_call.h
 *	  What calls about images share.
 */
#ifndef BICYCLE_IMAGE_CALL_H
#define BICYCLE_IMAGE_CALL_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "pg/catalog.h"

/*
 * An image, fetched. 54000 beyond bicycle.max_request_size, and then it is not
 * fetched; `what` is what the error calls it.
 */
extern bytea *image_argument(Datum value, const char *what);

/*
 * Common to TRANSLATE, ENCODE, INFO and PLOT: fills a request from the
 * settings. versioned: the session's output and precision do not count. model
 * is NULL for calls without one.
 */
extern void image_request_head(BicycleImageRequest *head, const Model *model, bool versioned);

extern int image_window(void); /* calls that one statement keeps open */
/* ... and bytes of their images, at least one */
#define IMAGE_WINDOW_BYTES ((Size) 64 * 1024 * 1024)

/* An answer of call_wait as a value, copied into CurrentMemoryContext. */
extern bytea *image_wait(Call *call);

#endif /* BICYCLE_IMAGE_CALL_H */
