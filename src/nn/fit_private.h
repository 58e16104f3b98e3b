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

/* ---- For tests ----------------------------------------------------------- */

/* As nn_fit_step, with arrays and noise of `dtype`, NN_F32 or NN_F64. */
extern NnStatus nn_fit_step_typed(NnFit *fit, NnDtype dtype, const void *a, const void *b,
								  const void *eps, const void *z, NnLosses *losses, NnError *error);
extern NnTraining *nn_fit_training(NnFit *fit);
extern const NnParams *nn_fit_params(const NnFit *fit);

#endif /* BICYCLE_NN_FIT_PRIVATE_H */
