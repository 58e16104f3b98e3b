/*
 * iteration.h
 *	  One iteration of a method: its graph, schedule and inputs (fit_graph.c),
 *	  its noise and learning rate (fit_schedule.c).
 *
 * An iteration is one pass over the schedule, or, with the option accumulate,
 * as many as that says, each over a part of the batch. Losses are scaled so
 * that those of the passes add up to the batch's, and so are gradients. Which
 * images a branch of a batch has does not depend on the parts: pass k takes the
 * k-th part of each branch, of its images and of its codes.
 */
#ifndef BICYCLE_NN_ITERATION_H
#define BICYCLE_NN_ITERATION_H

#include "nn/fit.h"
#include "nn/schedule.h"

/* ---- Noise and learning rate --------------------------------------------- */

/* (n, nz): which 0 is eps of the encoded branch, 1 the random codes. */
extern void nn_train_codes(uint64_t seed, int64_t iteration, int which, int n, int nz,
						   float *codes);

/*
 * (n, NN_AUGMENT_NUMBERS): how discriminators see the images of exhibit
 * `which`, of size x size pixels; of what is not varied, what changes nothing.
 */
extern void nn_train_augment(uint64_t seed, int64_t iteration, int which, int n, int size,
							 NnDiffAugment varied, float *numbers);

/* The learning rate of an iteration, from 0. */
extern double nn_learning_rate(const NnTrainOptions *options, int64_t rows, int64_t iteration);
extern int64_t nn_run_iterations(const NnTrainOptions *options, int64_t rows);

/* ---- The graph ----------------------------------------------------------- */

/* What an input is fed with: images from `first` on, or numbers of each. */
typedef enum NnSource
{
	NN_SOURCE_A,
	NN_SOURCE_B,
	NN_SOURCE_EPS,
	NN_SOURCE_Z,
	NN_SOURCE_AUGMENT, /* its branches are exhibits */
	NN_SOURCES
} NnSource;

/* What discriminators see of a branch: what G has made, and what is real. */
typedef enum NnExhibit
{
	NN_EXHIBIT_ENCODED,
	NN_EXHIBIT_RANDOM,
	NN_EXHIBIT_ENCODED_REAL,
	NN_EXHIBIT_RANDOM_REAL,
	NN_EXHIBITS
} NnExhibit;

typedef struct NnInput
{
	int value;
	NnSource source;
	int branch; /* it begins at the images, or codes, of that branch */
} NnInput;

typedef struct NnTerm
{
	int value;   /* of the graph, a single number */
	NnLoss loss; /* which it is a part of */
} NnTerm;

#define NN_MAX_INPUTS 16
#define NN_MAX_TERMS (8 * NN_MAX_SCALES)

/* A pass of an iteration: graph, schedule, inputs and losses. */
typedef struct NnIteration
{
	NnGraph graph;
	NnSchedule schedule;
	NnInput inputs[NN_MAX_INPUTS];
	int ninputs;
	NnTerm terms[NN_MAX_TERMS];
	int nterms;
	int passes;
	int images; /* of a branch in a pass: as many get a code, of eps and of z */
} NnIteration;

/* Where in its source an input begins, by images, in a pass. */
static inline size_t
nn_input_first(const NnIteration *iteration, const NnInput *input, int pass)
{
	return ((size_t) input->branch * iteration->passes + pass) * iteration->images;
}

/* Codes of an iteration, of eps and of z alike. */
static inline int
nn_iteration_codes(const NnIteration *iteration)
{
	return iteration->passes * iteration->images;
}

/* Into one that is all zeros. Errors are in its graph; always free it. */
extern void nn_iteration_build(NnIteration *iteration, const NnConfig *config,
							   const NnTrainOptions *options, const NnParams *params);
extern void nn_iteration_free(NnIteration *iteration);

#endif /* BICYCLE_NN_ITERATION_H */
