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
	int required; /* NULL in one of the first so many arguments gives NULL */
	int model;    /* the argument that names it; the version, if any, is the next */
	Call *(*submit)(const Model *model, bool versioned, const BatchArguments *arguments);
	Datum (*wait)(Call *call, const Model *model); /* for the value; raises the call's error */
} BatchKind;

extern void batch_init(void); /* from _PG_init: hooks into the planner */

/* NULL if the function is none of ours. */
extern const BatchKind *batch_kind_of(Oid function);

/* False in a database without the extension, and then cheap. */
extern bool batch_functions_exist(void);

extern const CustomScanMethods batch_scan_methods;

#endif /* BICYCLE_BATCH_H */
