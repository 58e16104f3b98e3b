/*
 * iteration.h
 *	  One iteration of a method: its graph, schedule and inputs (fit_graph.c),
 *	  its noise and learning rate (fit_schedule.c).
 */
#ifndef BICYCLE_NN_ITERATION_H
#define BICYCLE_NN_ITERATION_H

#include "nn/fit.h"
#include "nn/schedule.h"

/* ---- Noise and learning rate --------------------------------------------- */

/* (n, nz): which 0 is eps of the encoded branch, 1 the random codes. */
extern void nn_train_codes(uint64_t seed, int64_t iteration, int which, int n, int nz,
						   float *codes);

/* The learning rate of an iteration, from 0. */
extern double nn_learning_rate(const NnTrainOptions *options, int64_t rows, int64_t iteration);
extern int64_t nn_run_iterations(const NnTrainOptions *options, int64_t rows);

/* ---- The graph ----------------------------------------------------------- */

/* What an input is fed with: images from `first` on, or codes. */
typedef enum NnSource
{
	NN_SOURCE_A,
	NN_SOURCE_B,
	NN_SOURCE_EPS,
	NN_SOURCE_Z,
	NN_SOURCES
} NnSource;

typedef struct NnInput
{
	int value;
	NnSource source;
	int first; /* image */
} NnInput;

typedef struct NnTerm
{
	int value;   /* of the graph, a single number */
	NnLoss loss; /* which it is a part of */
} NnTerm;

#define NN_MAX_INPUTS 12
#define NN_MAX_TERMS (8 * NN_MAX_SCALES)

/* One iteration of a method: graph, schedule, inputs and losses. */
typedef struct NnIteration
{
	NnGraph graph;
	NnSchedule schedule;
	NnInput inputs[NN_MAX_INPUTS];
	int ninputs;
	NnTerm terms[NN_MAX_TERMS];
	int nterms;
	int codes; /* images that get a code, of eps and of z alike */
} NnIteration;

/* Into one that is all zeros. Errors are in its graph; always free it. */
extern void nn_iteration_build(NnIteration *iteration, const NnConfig *config,
							   const NnTrainOptions *options, const NnParams *params);
extern void nn_iteration_free(NnIteration *iteration);

#endif /* BICYCLE_NN_ITERATION_H */
