/*
 * bad_images.h
 *	  Images that cannot be used and give NULL: whether they do, and the one
 *	  WARNING of a statement that tells how many.
 */
#ifndef BICYCLE_BAD_IMAGES_H
#define BICYCLE_BAD_IMAGES_H

#include "pg/bicycle.h"

#define BAD_REASONS 3
#define BAD_REASON_BYTES 320

/* How many, and what was wrong with the first. May lie in shared memory. */
typedef struct BadImages
{
	int64 count;
	int nreasons;
	char reasons[BAD_REASONS][BAD_REASON_BYTES];
} BadImages;

extern void bad_images_init(void); /* from _PG_init: hooks into the executor */

/*
 * bicycle.on_error, as it is now. False while a statement is planned: what is
 * computed then may be kept in a plan, and nobody would be told.
 */
extern bool bad_images_give_null(void);

/*
 * Counts an image; place and detail may be NULL. To NULL means the statement
 * that runs.
 */
extern void bad_images_count(BadImages *to, const char *place, const char *message,
							 const char *detail);
extern void bad_images_add(BadImages *to, const BadImages *from);

/* Around the planning of a statement, the second also after an error. */
extern void bad_images_planning(void);
extern void bad_images_planned(void);

#endif /* BICYCLE_BAD_IMAGES_H */
