/*
 * batch.h
 *	  What batch_plan.c and batch_exec.c share: which functions are run many
 *	  rows at once, and the node that does it.
 */
#ifndef BICYCLE_BATCH_H
#define BICYCLE_BATCH_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "nodes/extensible.h"

#define BATCH_MAX_ARGUMENTS 4
#define BATCH_NO_MODEL (-1)

/* One row of the call's arguments, as the child of the node computed them. */
typedef struct BatchArguments
{
	Datum value[BATCH_MAX_ARGUMENTS];
	bool isnull[BATCH_MAX_ARGUMENTS];
} BatchArguments;

/* A function whose call can be opened in one step and waited for in another. */
typedef struct BatchKind
{
	const char *name;
	int nargs;
	Oid types[BATCH_MAX_ARGUMENTS];
	int images;     /* the first so many arguments; the last are what names a model */
	int required;   /* NULL in one of the first so many arguments gives NULL */
	int model;      /* the argument that names it, or BATCH_NO_MODEL */
	bool versioned; /* the next argument is the version; or there is no model */

	/* As the caller; NULL: by name and version, or there is no model. */
	Model *(*find)(const BatchArguments *arguments);

	/*
	 * The first argument is the image; NULL: only look at the others, for no
	 * call.
	 */
	Call *(*submit)(const Model *model, bool versioned, const bytea *image,
					const BatchArguments *arguments);

	/* For the value; raises the call's error. */
	Datum (*wait)(Call *call, const Model *model, bool *isnull);
	bool tells; /* a value that is not NULL says what is wrong with the image */
} BatchKind;

/* How the rows of a node are read: which says how far it may go ahead. */
typedef enum BatchReading
{
	BATCH_READ_ON,     /* one after the other; whoever reads may stop */
	BATCH_READ_BY_RUN, /* the same, unless the run of the plan goes to its end at one go */
	BATCH_READ_WHOLE   /* all at one go */
} BatchReading;

extern void batch_exec_init(void); /* from batch_init: hooks into the executor */
extern void batch_init(void);      /* from _PG_init: hooks into the planner */

/* NULL if the function is none of ours. */
extern const BatchKind *batch_kind_of(Oid function);

/* False in a database without the extension, and then cheap. */
extern bool batch_functions_exist(void);

extern const CustomScanMethods batch_scan_methods;

#endif /* BICYCLE_BATCH_H */
