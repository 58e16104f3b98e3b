/*
 * training.h
 *	  Backward steps, training plans and what a device does with them: the inside of training, shared by backward.c, train*.c and the devices.
 */
#ifndef BICYCLE_NN_TRAINING_H
#define BICYCLE_NN_TRAINING_H

#include "nn/graph.h"
#include "nn/train.h"

/* What distinguishes the methods beyond their options. */
typedef struct NnMethodFacts
{
	bool		encoder;		/* there is an E; without one the encoded branch gets random codes */
	bool		halves;			/* one half of a batch is encoded, the other gives the random branch its real images; else all of it does both */
	bool		deterministic;	/* the code is E's mean, not a sample */
	bool		latent_trains_e;	/* the latent loss trains E as well as G */
} NnMethodFacts;

extern const NnMethodFacts *nn_method_facts(NnMethod method);

/* What nn_train_options_parse checks, for options that come from elsewhere. */
extern NnStatus nn_train_options_check(const NnConfig *config, const NnTrainOptions *options, NnError *error);

#endif							/* BICYCLE_NN_TRAINING_H */
