/*
 * json_options.h
 *	  Options of a function, given as a jsonb object: read into a struct by a
 *	  table.
 */
#ifndef BICYCLE_JSON_OPTIONS_H
#define BICYCLE_JSON_OPTIONS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

/* What the field is. */
typedef enum JsonOptionKind
{
	JSON_INT,    /* int */
	JSON_LONG,   /* int64 */
	JSON_BOOL,   /* bool */
	JSON_TEXT,   /* char *, palloc'ed */
	JSON_WORD,   /* const char *, one of two words, the first by default */
	JSON_SWITCH, /* bool: whether it is the second of two words */
	JSON_OWN     /* whatever `read` sets */
} JsonOptionKind;

typedef struct JsonOption
{
	const char *name;
	JsonOptionKind kind;
	size_t field;                /* offset in the struct */
	int64 least, most, standard; /* of JSON_INT and JSON_LONG; the last is the default */
	const char *words[2];        /* of JSON_WORD and JSON_SWITCH */
	bool (*read)(JsonbValue *value, void *options); /* JSON_OWN; false: it is no such value */
	const char *(*must)(void); /* JSON_OWN: a sentence that says what it must be */
} JsonOption;

typedef struct JsonOptions
{
	const char *of; /* "an evaluation", for errors */
	const JsonOption *table;
	int n;
} JsonOptions;

/*
 * Reads an argument of type jsonb into a struct that is zero, or has the
 * defaults of options that are neither numbers nor words. 22004 for NULL, 22023
 * for all else that is wrong, with the option's name.
 */
extern void json_options_read(FunctionCallInfo fcinfo, int argument, const JsonOptions *known,
							  void *options);

/* Whether a value is a string of these letters. */
extern bool json_is_word(const JsonbValue *value, const char *word);

#endif /* BICYCLE_JSON_OPTIONS_H */
