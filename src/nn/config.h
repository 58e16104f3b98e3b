/*
 * config.h
 *	  The option table behind NnConfig and NnTrainOptions: what config.c shares
 *	  with infer.c and fit_options.c.
 */
#ifndef BICYCLE_NN_CONFIG_H
#define BICYCLE_NN_CONFIG_H

#include "nn/fit.h"

#include <jansson.h>

/*
 * Places in the table, which is also the order of the canonical text and so
 * part of every model's hash: append, never reorder. An option that joins after
 * models were stored must be printed only where it differs from its default, or
 * their hashes change.
 */
typedef enum NnOptionId
{
	NN_OPT_SIZE,
	NN_OPT_LEVELS,
	NN_OPT_INPUT_NC,
	NN_OPT_OUTPUT_NC,
	NN_OPT_NZ,
	NN_OPT_NGF,
	NN_OPT_NEF,
	NN_OPT_NDF,
	NN_OPT_WHERE_ADD,
	NN_OPT_UPSAMPLE,
	NN_OPT_NORM,
	NN_OPT_NL,
	NN_OPT_NET_E,
	NN_OPT_ENCODER_SIZE,
	NN_OPT_NUM_DS,
	NN_OPT_CONDITIONAL_D,
	NN_OPT_PRECISION,
	NN_OPTIONS, /* of a model; the options of training follow */
	NN_OPT_METHOD = NN_OPTIONS,
	NN_OPT_GAN_MODE,
	NN_OPT_SAME_D,
	NN_OPT_DROPOUT,
	NN_OPT_LAMBDA_L1,
	NN_OPT_LAMBDA_GAN,
	NN_OPT_LAMBDA_GAN2,
	NN_OPT_LAMBDA_Z,
	NN_OPT_LAMBDA_KL,
	NN_OPT_LR,
	NN_OPT_BETA1,
	NN_OPT_LR_POLICY,
	NN_OPT_EPOCHS,
	NN_OPT_EPOCHS_DECAY,
	NN_OPT_ITERATIONS,
	NN_OPT_BATCH_SIZE,
	NN_OPT_LOAD_SIZE,
	NN_OPT_FLIP,
	NN_OPT_INIT_TYPE,
	NN_OPT_INIT_GAIN,
	NN_OPT_SEED,
	NN_OPT_EMA,
	NN_OPT_CHECKPOINT_EVERY,
	NN_OPT_PREVIEW_EVERY,
	NN_ALL_OPTIONS
} NnOptionId;

_Static_assert(NN_ALL_OPTIONS <= 64, "a set of options is a mask of 64 bits");

typedef enum NnOptionKind
{
	NN_OPTION_INT,
	NN_OPTION_BOOL,
	NN_OPTION_CHOICE,
	NN_OPTION_LONG, /* int64_t */
	NN_OPTION_REAL  /* double */
} NnOptionKind;

typedef struct NnChoice
{
	const char *name; /* NULL ends the list */
	int value;
} NnChoice;

typedef struct NnOption
{
	const char *name;
	NnOptionKind kind;
	size_t
		/*
		 * in NnConfig, from NN_OPTIONS on in NnTrainOptions; an enum is as wide
		 * as an int
		 */
		offset;
	int initial;             /* the official code's default */
	int min, max, step;      /* INT: min + k * step up to max */
	const NnChoice *choices; /* CHOICE */
	const char *networks;    /* which of G, E, D it shapes; which part of training it steers */
	const char *help;
	double real_initial, /* LONG, REAL */
		real_min, real_max;
} NnOption;

extern const NnOption nn_options[NN_ALL_OPTIONS];

extern int nn_option_get(NnOptionId id, const NnConfig *config);
extern void nn_option_set(NnOptionId id, NnConfig *config, int value);

/* The value as JSON text; options is read for those of training only. */
extern void nn_option_print(NnOptionId id, const NnConfig *config, const NnTrainOptions *options,
							char *text, size_t size);

/*
 * The default of an option of training; a value of it, for a preset (of an INT,
 * a CHOICE, a BOOL or a REAL).
 */
extern void nn_option_reset(NnOptionId id, NnConfig *config, NnTrainOptions *options);
extern void nn_option_put(NnOptionId id, NnConfig *config, NnTrainOptions *options, double value);

/*
 * Whether the value is one that the option may have; NN_EINVAL that says which
 * those are.
 */
extern NnStatus nn_option_check(NnOptionId id, const NnConfig *config,
								const NnTrainOptions *options, NnError *error);

/*
 * The table as a page of documentation in Markdown (doc/options.md); malloc'ed,
 * or NULL.
 */
extern char *nn_options_describe(void);

/*
 * Reads a JSON object over the values in *config. Bit i of *given is set if the
 * object names option i; nothing else is touched or derived.
 */
extern NnStatus nn_config_read(NnConfig *config, const char *json, size_t length, uint64_t *given,
							   NnError *error);

/*
 * The text as a JSON object; "training" or "model" names what it is for. The
 * caller drops the reference.
 */
extern NnStatus nn_options_load(const char *json, size_t length, const char *what, json_t **object,
								NnError *error);

/*
 * Reads the object over *config and, if it is not NULL, *options; without it
 * options of training are unknown. *given as above.
 */
extern NnStatus nn_options_read(const json_t *object, NnConfig *config, NnTrainOptions *options,
								uint64_t *given, NnError *error);

/*
 * Options that were left out follow those that were given: a smaller size means
 * fewer levels and a smaller encoder, as in the official presets.
 */
extern void nn_config_follow(NnConfig *config, uint64_t given);

#endif /* BICYCLE_NN_CONFIG_H */
