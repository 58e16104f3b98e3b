/*
 * fit_private.h
 *	  The inside of training: what its files know of methods and options, and
 *	  what tests see of an NnFit.
 */
#ifndef BICYCLE_NN_FIT_PRIVATE_H
#define BICYCLE_NN_FIT_PRIVATE_H

#include "nn/iteration.h"
#include "nn/training.h"

/* What distinguishes the methods beyond their options. */
typedef struct NnMethodFacts
{
	bool encoder; /* there is an E; without one the encoded branch gets random codes */
	/* half a batch is encoded, half for the random branch; else all is both */
	bool halves;
	bool deterministic;   /* the code is E's mean, not a sample */
	bool latent_trains_e; /* the latent loss trains E as well as G */
} NnMethodFacts;

extern const NnMethodFacts *nn_method_facts(NnMethod method);

/* What nn_train_options_parse checks, for options that come from elsewhere. */
extern NnStatus nn_train_options_check(const NnConfig *config, const NnTrainOptions *options,
									   NnError *error);

/* ---- A fit --------------------------------------------------------------- */

/* Parts of the state: parameters under their own names, then these. */
typedef struct FitArray
{
	const char *prefix;
	NnArray array;
} FitArray;

#define FIT_PARTS 4

extern const FitArray fit_parts[FIT_PARTS];

struct NnFit
{
	NnDevice *device;
	const NnTrainDevice *ops;
	NnConfig config;
	NnTrainOptions options;
	int64_t rows;
	int64_t iteration; /* that is started next, from 0 */
	int open;          /* started, and not finished */
	NnParams params;
	NnIteration it;
	NnTraining training;
	int64_t *tracked;         /* one a parameter; of those that are integers: batches seen */
	char **names;             /* [part][parameter] */
	size_t feeds[NN_SOURCES]; /* where each batch begins among all, bytes */
	NnFeed *bound;            /* inputs of each pass */
	void *feed_memory;        /* of a device that has none for them */
	NnModel *preview;
	int64_t preview_at; /* the iteration it was loaded after */
};

/* ---- What fit_state.c has for fit.c -------------------------------------- */

extern void fit_convert_numbers(NnDtype to, void *out, NnDtype from, const void *in, size_t count);
/* Floats into an array of the device's type. */
extern NnStatus fit_put_floats(NnFit *t, NnArray array, size_t offset, size_t count,
							   const float *values, NnError *error);
/* One parameter of an array, or its count of batches, by a tensor's name. */
extern NnStatus fit_restore_tensor(NnFit *t, NnArray array, int index, const char *name,
								   const NnTensor *tensors, int ntensors, NnError *error);
/* A network's values as a version would have them; for model_load. */
extern NnStatus fit_fill_model(void *fit, const NnParams *params, float *values, NnError *error);
/* The options' fault, not the device's: a second try would end as this. */
extern NnStatus fit_diverged(int64_t iteration, NnError *error);

/* ---- For tests ----------------------------------------------------------- */

/* As nn_fit_step, with arrays and noise of `dtype`, NN_F32 or NN_F64. */
extern NnStatus nn_fit_step_typed(NnFit *fit, NnDtype dtype, const void *a, const void *b,
								  const void *eps, const void *z, NnLosses *losses, NnError *error);
extern NnTraining *nn_fit_training(NnFit *fit);
extern const NnParams *nn_fit_params(const NnFit *fit);

#endif /* BICYCLE_NN_FIT_PRIVATE_H */
