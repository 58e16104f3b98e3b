/*
 * latent.h
 *	  Latent codes.
 */
#ifndef BICYCLE_LATENT_H
#define BICYCLE_LATENT_H

#include "pg/bicycle.h"

#include "pg/catalog.h"
#include "utils/array.h"

/*
 * A latent code as the user gave it: 2202E, 22004, 22023 (not finite). Returns
 * its values, which lie in the array, and their number.
 */
extern const float *latent_values(ArrayType *z, int *nz);
extern void latent_check_length(int nz, const Model *model); /* 22023 */
extern ArrayType *latent_array(const float *values, int nz); /* palloc'ed */

#endif /* BICYCLE_LATENT_H */
