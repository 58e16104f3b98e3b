/*
 * lpips.h
 *	  Distances between images as a trained network sees them (LPIPS), for
 *	  bicycle_lpips and for what measures models.
 *
 * The model is one that bicycle_import_lpips has stored, lpips-NET-VERSION.
 */
#ifndef BICYCLE_LPIPS_H
#define BICYCLE_LPIPS_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "pg/catalog.h"

/* The answer to a pair of images. */
typedef struct Lpips
{
	double distance;
	int nfeatures;      /* alex: 256, vgg: 512 */
	float *features[2]; /* of each image: means over its last map, palloc'ed; for MMD */
} Lpips;

#define LPIPS_METHOD "lpips" /* of the versions */

/* What the model is called; 22023 if there is no such net or version. */
extern char *lpips_name(const char *net, const char *version);

/*
 * The model for a net, "alex" or "vgg", and a version, "0.0" or "0.1"; 22023
 * for others. Rights are as of model_lookup. Where the weights are not imported
 * 55000 with a hint, or with missing_ok NULL.
 */
extern Model *lpips_model(const char *net, const char *version, bool missing_ok);

/*
 * Opens a call for a pair, files of images as call_submit takes them; b is
 * brought to a's size; upright: as their EXIF says. Many may be open at once,
 * as of any image call.
 */
extern Call *lpips_submit(const Model *model, const bytea *a, const bytea *b, bool upright);

/*
 * Waits for the distance, of a call that is still to be freed. answer is
 * filled, if it is not NULL.
 */
extern double lpips_wait(Call *call, Lpips *answer);

#endif /* BICYCLE_LPIPS_H */
