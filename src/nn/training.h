/*
 * training.h
 *	  Backward steps, training plans and what a device does with them: the
 *	  inside of training, shared by backward.c, train*.c and the devices.
 */
#ifndef BICYCLE_NN_TRAINING_H
#define BICYCLE_NN_TRAINING_H

#include "nn/graph.h"
#include "nn/fit.h"

/* What distinguishes the methods beyond their options. */
typedef struct NnMethodFacts
{
	bool encoder; /* there is an E; without one the encoded branch gets random codes */
	bool
		/*
		 * one half of a batch is encoded, the other gives the random branch its
		 * real images; else all of it does both
		 */
		halves;
	bool deterministic;   /* the code is E's mean, not a sample */
	bool latent_trains_e; /* the latent loss trains E as well as G */
} NnMethodFacts;

extern const NnMethodFacts *nn_method_facts(NnMethod method);

/* What nn_train_options_parse checks, for options that come from elsewhere. */
extern NnStatus nn_train_options_check(const NnConfig *config, const NnTrainOptions *options,
									   NnError *error);

/* ---- Backward ------------------------------------------------------------ */

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
	/*
	 * a batch norm's running statistics take in those of its last forward step
	 */
	NN_STEP_STATISTICS
} NnStepKind;

typedef struct NnStep
{
	NnStepKind kind;
	int node;
	int dout
		/*
		 * BACKWARD: values that hold the gradients of the outputs, -1 = 0; a
		 * loss has none, its gradient is 1
		 */
		[2];
	int din[NN_MAX_IN]; /* values that get those of the inputs */
	NnGradMode in_mode[NN_MAX_IN];
	NnGradMode weight_mode, bias_mode;
	int zero;
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
	bool *trained; /* one a parameter: some step writes its gradient */
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

/* ---- Precision ----------------------------------------------------------- */

/* A number rounded to bfloat16: to nearest, ties to even. */
static inline float
nn_bf16(float x)
{
	union
	{
		float number;
		uint32_t bits;
	} u = { x };

	if (x != x)
		return x;
	u.bits = (u.bits + 0x7fff + (u.bits >> 16 & 1)) & 0xffff0000;
	return u.number;
}

/* ---- Devices ------------------------------------------------------------- */

/*
 * Flat arrays of params->total numbers each, of the device's type, by
 * NnParam.offset.
 */
typedef enum NnArray
{
	NN_ARRAY_PARAM, /* buffers included */
	NN_ARRAY_GRAD,
	NN_ARRAY_M,
	NN_ARRAY_V,
	NN_ARRAY_EMA, /* of the first nema numbers only, G and E */
	NN_ARRAYS
} NnArray;

/* A schedule on a device. */
typedef struct NnTraining
{
	NnPlan plan; /* arena and device_state are the device's */
	NnSchedule schedule;
	const NnParams *params;
	size_t nema;            /* 0: no averages */
	void *array[NN_ARRAYS]; /* the device's; NULL until prepared */
	uint64_t seed;          /* of dropout */
	int64_t iteration;      /* of the step that runs, from 0; the caller sets it */
} NnTraining;

/*
 * Where an input's data is, in the device's type: images or codes from its
 * first on, dense.
 */
typedef struct NnFeed
{
	int value;
	const void *data;
} NnFeed;

typedef struct NnAdam
{
	double lr, beta1, beta2, epsilon;
	int64_t t;  /* of this update, from 1 */
	double ema; /* decay of the averages */
} NnAdam;

/*
 * What a device does for training. It owns arena, arrays and state of an
 * NnTraining from prepare to release; release also cleans up after a prepare
 * that failed, and does nothing to one that is all zeros.
 */
typedef struct NnTrainDevice
{
	NnDtype dtype;                        /* of arrays and feeds: NN_F32 or NN_F64 */
	bool host;                            /* arrays are in memory that the caller may read */
	bool (*bf16)(const NnDevice *device); /* whether it can train in bf16 */
	NnPrecision (*automatic)(const NnDevice *device); /* what precision auto means: the faster */
	NnStatus (*prepare)(NnDevice *device, NnTraining *training, NnError *error);
	void (*release)(NnDevice *device, NnTraining *training);

	/*
	 * Takes in the feeds, runs all steps and fetches the losses, single
	 * numbers.
	 */
	NnStatus (*run)(NnDevice *device, NnTraining *training, const NnFeed *feeds, int nfeeds,
					const int *losses, int nlosses, double *values, NnError *error);

	/* Updates the parameters that the schedule trains, and the averages. */
	NnStatus (*adam)(NnDevice *device, NnTraining *training, const NnAdam *adam, NnError *error);

	/*
	 * Copies numbers [offset, offset + count) of an array to or from the
	 * caller.
	 */
	NnStatus (*get)(NnDevice *device, NnTraining *training, NnArray array, size_t offset,
					size_t count, void *data, NnError *error);
	NnStatus (*put)(NnDevice *device, NnTraining *training, NnArray array, size_t offset,
					size_t count, const void *data, NnError *error);
} NnTrainDevice;

/* ---- Noise and learning rate --------------------------------------------- */

/*
 * Whether dropout keeps an element: a function of seed, iteration, node and
 * place in the dense map, so that backward need not be told. `p` is the
 * probability to drop. nn_dropout_mask does `count` elements from a multiple of
 * 4 on: each becomes 0 or 1 / (1 - p).
 */
extern bool nn_dropout_keeps(uint64_t seed, int64_t iteration, int node, uint64_t element, float p);
extern void nn_dropout_mask(uint64_t seed, int64_t iteration, int node, uint64_t first, int count,
							float p, float *mask);

/*
 * Codes of an iteration, (n, nz): which is 0 for eps of the encoded branch and
 * 1 for codes of the random one.
 */
extern void nn_train_codes(uint64_t seed, int64_t iteration, int which, int n, int nz,
						   float *codes);

/* The learning rate of an iteration, from 0. */
extern double nn_learning_rate(const NnTrainOptions *options, int64_t rows, int64_t iteration);
extern int64_t nn_epoch_iterations(const NnTrainOptions *options,
								   int64_t rows); /* incomplete batches are left out */
extern int64_t nn_run_iterations(const NnTrainOptions *options, int64_t rows);

/* ---- One iteration ------------------------------------------------------- */

/*
 * What an input of the graph is fed with: images of the batch from `first` on,
 * or codes.
 */
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

/*
 * The computation of one iteration of a method: its graph, schedule, inputs and
 * losses.
 */
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

/*
 * Into an iteration that is all zeros. Errors are in iteration->graph;
 * nn_iteration_free is due in any case.
 */
extern void nn_iteration_build(NnIteration *iteration, const NnConfig *config,
							   const NnTrainOptions *options, const NnParams *params);
extern void nn_iteration_free(NnIteration *iteration);

/* ---- The trainer's inside, for tests ------------------------------------- */

/*
 * As nn_fit_step and its noise, but all arrays are of `dtype`, NN_F32 or
 * NN_F64.
 */
extern NnStatus nn_fit_step_typed(NnFit *fit, NnDtype dtype, const void *a, const void *b,
								  const void *eps, const void *z, NnLosses *losses, NnError *error);
extern NnTraining *nn_fit_training(NnFit *fit);
extern const NnParams *nn_fit_params(const NnFit *fit);

#endif /* BICYCLE_NN_TRAINING_H */
