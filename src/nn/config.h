/*
 * config.h
 *	  The table of options behind NnConfig and NnTrainOptions: what config.c
 *	  shares with infer.c, fit_options.c and the engine.
 */
#ifndef BICYCLE_NN_CONFIG_H
#define BICYCLE_NN_CONFIG_H

#include "nn/fit.h"

#include <jansson.h>

/* NN_OPT_SIZE and so on: the place of a row of options.def. */
typedef enum NnOptionId
{
#define MODEL(id, ...) NN_OPT_##id,
#define TRAIN(id, ...) NN_OPT_##id,
#include "nn/options.def"
	NN_ALL_OPTIONS,
	NN_OPTIONS = 0 /* how many are of models; the options of training follow */
#define MODEL(...) +1
#include "nn/options.def"
} NnOptionId;

typedef enum NnOptionKind
{
	NN_OPTION_INT,
	NN_OPTION_EITHER, /* an int that is the least or the most */
	NN_OPTION_BOOL,
	NN_OPTION_CHOICE, /* an enum, as wide as an int */
	NN_OPTION_LONG,   /* int64_t */
	NN_OPTION_REAL,   /* double */
	NN_OPTION_STRING  /* an array of char, with a NUL; `most` bytes without it */
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
	int since;
	size_t offset; /* in NnConfig, from NN_OPTIONS on in NnTrainOptions */
	double initial, least, most;
	const NnChoice *choices; /* CHOICE */
	const char *part;        /* which of G, E, D it shapes; which part of training it steers */
	const char *help;
} NnOption;

extern const NnOption nn_options[NN_ALL_OPTIONS];

/* A set of options. */
typedef struct NnOptionSet
{
	bool has[NN_ALL_OPTIONS];
} NnOptionSet;

/* Which options an object may have. */
typedef enum NnOptionScope
{
	NN_SCOPE_MODEL,  /* a model's */
	NN_SCOPE_CREATE, /* and those of fresh weights: init_type, init_gain, seed */
	NN_SCOPE_TRAIN   /* all */
} NnOptionScope;

/* A text that grows. Begins as zeros; whoever made it frees `at`. */
typedef struct NnText
{
	char *at; /* with a NUL; NULL: nothing was added yet, or memory was missing */
	size_t length;
	bool failed; /* memory was missing: nothing is added any more */
} NnText;

extern void nn_text_add(NnText *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- One option ---------------------------------------------------------- */

/*
 * These work on the field of an option, which may be of any table. Reading
 * leaves it as it is, and returns false, if the JSON value is of the wrong type
 * or out of range. As the canonical text has it means: as JSON.
 */
extern bool nn_value_read(const NnOption *option, const json_t *json, void *field);
extern void nn_value_print(const NnOption *option, const void *field, NnText *text);
extern void nn_value_reset(const NnOption *option, void *field);
extern bool nn_value_is_initial(const NnOption *option, const void *field);

/* Whether the canonical text has it: rule R2 of options.def. */
extern bool nn_value_is_printed(const NnOption *option, const void *field);

/* The same of an option of the table; options is used for those of training. */
extern void *nn_option_field(NnOptionId id, NnConfig *config, NnTrainOptions *options);
extern int nn_option_get(NnOptionId id, const NnConfig *config); /* not LONG, REAL, STRING */
extern void nn_option_put(NnOptionId id, NnConfig *config, NnTrainOptions *options,
						  double value); /* not STRING */

/* Whether the option may have the value; NN_EINVAL says what it may. */
extern NnStatus nn_option_check(NnOptionId id, const NnConfig *config,
								const NnTrainOptions *options, NnError *error);

/* ---- All options --------------------------------------------------------- */

/* The table as doc/options.md has it, in Markdown; malloc'ed, or NULL. */
extern char *nn_options_describe(void);

/* The text as a JSON object, for "training" or a "model"; caller drops it. */
extern NnStatus nn_options_load(const char *json, size_t length, const char *what, json_t **object,
								NnError *error);

/*
 * Reads the object over *config and, but for NN_SCOPE_MODEL, *options. *given
 * becomes the set of options that it names; nothing else is touched or derived.
 */
extern NnStatus nn_options_read(const json_t *object, NnOptionScope scope, NnConfig *config,
								NnTrainOptions *options, NnOptionSet *given, NnError *error);

/* The same of the text of a model's options, and all or nothing of it. */
extern NnStatus nn_config_read(NnConfig *config, const char *json, size_t length,
							   NnOptionSet *given, NnError *error);

/* Of a model that compares images (metric.c): its text, and back. */
#define NN_METRIC_TEXT 64 /* bytes, with the NUL */
extern void nn_metric_print(const NnConfig *config, char text[NN_METRIC_TEXT]);
extern NnStatus nn_metric_read(NnConfig *config, const json_t *object, NnError *error);

/*
 * Options that were left out follow those that were given: a smaller size means
 * fewer levels and a smaller encoder, as in the official presets.
 */
extern void nn_config_follow(NnConfig *config, const NnOptionSet *given);

#endif /* BICYCLE_NN_CONFIG_H */
