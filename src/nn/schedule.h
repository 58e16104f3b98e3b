/*
 * schedule.h
 *	  The steps of one iteration of training, forward and backward (backward.c).
 */
#ifndef BICYCLE_NN_SCHEDULE_H
#define BICYCLE_NN_SCHEDULE_H

#include "nn/graph.h"

/* What a step does with the gradient it has computed. */
typedef enum NnGradMode
{
	NN_GRAD_IGNORE, /* it is not wanted, and not computed */
	NN_GRAD_OVERWRITE,
	NN_GRAD_ACCUMULATE
} NnGradMode;

typedef enum NnStepKind
{
	NN_STEP_FORWARD,  /* the node computes its outputs */
	NN_STEP_BACKWARD, /* from the gradients of its outputs, those of its inputs and parameters */
	NN_STEP_ZERO,     /* the value `zero` becomes 0 */
	/* a batch norm's running statistics take in its last forward step's */
	NN_STEP_STATISTICS
} NnStepKind;

typedef struct NnStep
{
	NnStepKind kind;
	int node;
	/* BACKWARD: values of the outputs' gradients, -1 = 0; a loss's is 1 */
	int dout[2];
	int din[NN_MAX_IN]; /* values that get those of the inputs */
	NnGradMode in_mode[NN_MAX_IN];
	NnGradMode weight_mode, bias_mode;
	int zero;
	bool first; /* STATISTICS: no step before it was of the same ones */
} NnStep;

/*
 * The steps of one iteration, in order. It appends values, those of gradients,
 * to the graph, and remembers errors in it. Free with nn_schedule_free.
 */
typedef struct NnSchedule
{
	NnGraph *graph; /* not owned */
	NnStep *steps;
	int nsteps, capacity;
	/*
	 * one a parameter: some step writes its gradient; it is a running statistic
	 * of some
	 */
	bool *trained, *running;
	/* no step overwrites such a gradient: who runs it zeroes them before */
	bool adds;
} NnSchedule;

extern void nn_schedule_init(NnSchedule *s, NnGraph *graph);
extern void nn_schedule_free(NnSchedule *s);

/* Nodes [first, end) forward. */
extern void nn_schedule_forward(NnSchedule *s, int first, int end);

/* The running statistics of all batch norms among nodes [first, end). */
extern void nn_schedule_statistics(NnSchedule *s, int first, int end);

/*
 * A backward pass over all nodes there are, which have been scheduled forward:
 * from the losses that `starts` marks to the parameters of the nodes that
 * `trains` marks (one flag a node), and to nothing else: a frozen network is
 * passed through, and what only leads elsewhere is left out. A second pass to
 * the same parameters adds to their gradients.
 */
extern void nn_schedule_backward(NnSchedule *s, const bool *starts, const bool *trains);

/* The values that a step reads or writes; at most NN_MAX_TOUCHED. */
#define NN_MAX_TOUCHED 12
extern int nn_step_touches(const NnGraph *g, const NnStep *step, int *touched);

#endif /* BICYCLE_NN_SCHEDULE_H */
