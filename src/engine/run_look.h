/*
 * run_look.h
 *	  A look at what the networks of a fit make of a few pairs.
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
	int samples;  /* of an input; 1 without a latent code */
	int most;     /* pairs that there is room for */
	int n;        /* that are looked at */
	uint8_t *a;   /* (samples, n, size, size, input_nc): inputs, as often as they are sampled */
	uint8_t *b;   /* (n, size, size, output_nc): targets */
	float *z;     /* (samples, n, nz) */
	uint8_t *out; /* (samples, n, size, size, output_nc): what was made last */
	float *mu;    /* (samples, n, nz) twice: means and logarithms of variances */
} RunLook;

/* The most images that a look makes at once, of so many samples of a pair. */
extern int run_look_images(const NnConfig *config, int samples);

/* And the most pairs that it has at once, of so many. */
extern int run_look_pairs(const NnConfig *config, int samples, int64_t pairs);

/*
 * Into one of zeros: of at most so many pairs at once, and of as many as memory
 * that is bounded holds. run_look_free is the caller's also on failure.
 */
extern bool run_look_open(RunLook *look, const NnConfig *config, int samples, int64_t pairs,
						  EngineError *error);
extern void run_look_free(RunLook *look);

/* How many of the pairs that are left are looked at next; they are put then. */
extern int run_look_begin(RunLook *look, int64_t left);

/* Pair i: its pixels at the networks' size. */
extern void run_look_at(RunLook *look, int i, const uint8_t *a, const uint8_t *b);

/* The code of a sample of pair i, nz numbers to write. */
extern float *run_look_code(RunLook *look, int i, int sample);

/* An image of pair i in `out`; a reconstruction is sample 0. */
extern const uint8_t *run_look_image(const RunLook *look, int i, int sample);

extern const uint8_t *run_look_target(const RunLook *look, int i);

/* Samples of all pairs under their codes, into `out`. */
extern bool run_look_sample(RunLook *look, NnFit *fit, EngineError *error);

/* G(A, E(B)) of all pairs, likewise; there is an encoder. */
extern bool run_look_reconstruct(RunLook *look, NnFit *fit, EngineError *error);

/* Reads the codes of the samples that `out` has. */
extern bool run_look_read(RunLook *look, NnFit *fit, EngineError *error);

/* Of pair i: mean absolute difference of two samples, of at least two. */
extern double run_look_diversity(const RunLook *look, int i);

/* Mean absolute difference between its first image in `out` and the target. */
extern double run_look_distance(const RunLook *look, int i);

/* The same between its codes and those that were read. */
extern double run_look_latent(const RunLook *look, int i);

#endif /* BICYCLE_ENGINE_RUN_LOOK_H */
