/*
 * translate.h
 *	  The calls of translate, encode and check.
 */
#ifndef BICYCLE_TRANSLATE_H
#define BICYCLE_TRANSLATE_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "pg/catalog.h"

/*
 * Open a call, which the caller frees. 55000 if the model has no encoder, and
 * only that is looked at if the image is NULL.
 */
extern Call *translate_submit(const Model *model, bool versioned, const float *z,
							  const bytea *image);
extern Call *encode_submit(const Model *model, bool versioned, const bytea *image);

/*
 * Waits for the posterior: its mean and the logarithm of its variance, nz
 * values each, palloc'ed one after the other.
 */
extern float *encode_wait(Call *call, const Model *model);

/* Of sample k, from 1, under a seed: what its latent code is drawn with. */
extern uint64 sample_counter(int64 seed, int k);

/* What is wrong with an image, palloc'ed; NULL: nothing. */
extern Call *check_submit(const bytea *image);
extern text *check_wait(Call *call);

#endif /* BICYCLE_TRANSLATE_H */
