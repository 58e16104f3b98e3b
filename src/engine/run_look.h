/*
 * run_look.h
 *	  A look at what the networks of a fit make of one pair.
 *
 * Device thread only, but run_look_free after it has ended. Whatever is false
 * has *error set.
 */
#ifndef BICYCLE_ENGINE_RUN_LOOK_H
#define BICYCLE_ENGINE_RUN_LOOK_H

#include "engine/engine.h"
#include "nn/fit.h"

typedef struct RunLook
{
	const NnConfig *config;
	int samples; /* of an input; 1 without a latent code */
	float *a;    /* (samples, size, size, input_nc): the input, as often as it is sampled */
	float *b;    /* (size, size, output_nc): the target */
	float *out;  /* (samples, size, size, output_nc): what was made last */
	float *mu;   /* (samples, nz) twice: means and logarithms of variances */
} RunLook;

/* Into one of zeros. run_look_free is the caller's also on failure. */
extern bool run_look_open(RunLook *look, const NnConfig *config, int samples, EngineError *error);
extern void run_look_free(RunLook *look);

/* The pair that is looked at: its pixels at the networks' size. */
extern void run_look_at(RunLook *look, const uint8_t *a, const uint8_t *b);

/* Samples under (samples, nz) codes, into `out`. */
extern bool run_look_sample(RunLook *look, NnFit *fit, const float *z, EngineError *error);

/* G(A, E(B)), first in `out`; there is an encoder. */
extern bool run_look_reconstruct(RunLook *look, NnFit *fit, EngineError *error);

/* Mean absolute difference of two samples, over all pairs of at least two. */
extern double run_look_diversity(const RunLook *look);

/* Mean absolute difference between the first of `out` and the target. */
extern double run_look_distance(const RunLook *look);

/* The same between samples' codes and what E reads of the samples. */
extern bool run_look_latent(RunLook *look, NnFit *fit, const float *z, double *distance,
							EngineError *error);

#endif /* BICYCLE_ENGINE_RUN_LOOK_H */
