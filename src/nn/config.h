/*
 * config.h
 *	  The option table behind NnConfig: what config.c shares with infer.c.
 */
#ifndef BICYCLE_NN_CONFIG_H
#define BICYCLE_NN_CONFIG_H

#include "nn/nn.h"

/*
 * Places in the table, which is also the order of the canonical text and so part of every model's hash: append, never reorder.  An option that joins after
 * models were stored must be printed only where it differs from its default, or their hashes change.
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
	NN_OPTIONS
} NnOptionId;

typedef enum NnOptionKind
{
	NN_OPTION_INT,
	NN_OPTION_BOOL,
	NN_OPTION_CHOICE
} NnOptionKind;

typedef struct NnChoice
{
	const char *name;			/* NULL ends the list */
	int			value;
} NnChoice;

typedef struct NnOption
{
	const char *name;
	NnOptionKind kind;
	size_t		offset;			/* in NnConfig; an int, a bool or an enum, which is as wide as an int */
	int			initial;		/* the official code's default */
	int			min,
				max,
				step;			/* INT: min + k * step up to max */
	const NnChoice *choices;	/* CHOICE */
	const char *networks;		/* which of G, E, D it shapes */
	const char *help;
} NnOption;

extern const NnOption nn_options[NN_OPTIONS];

extern int	nn_option_get(NnOptionId id, const NnConfig *config);
extern void nn_option_set(NnOptionId id, NnConfig *config, int value);

/* The value as JSON text. */
extern void nn_option_print(NnOptionId id, const NnConfig *config, char *text, size_t size);

/* The table as a page of documentation in Markdown (doc/options.md); malloc'ed, or NULL. */
extern char *nn_options_describe(void);

/* Reads a JSON object over the values in *config.  Bit i of *given is set if the object names option i; nothing else is touched or derived. */
extern NnStatus nn_config_read(NnConfig *config, const char *json, size_t length, uint64_t *given, NnError *error);

#endif							/* BICYCLE_NN_CONFIG_H */
