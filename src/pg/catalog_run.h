/*
 * catalog_run.h
 *	  Statements on the extension's tables.
 */
#ifndef BICYCLE_CATALOG_RUN_H
#define BICYCLE_CATALOG_RUN_H

#include "postgres.h"

/* Parameters of a statement; zeros: none yet. */
typedef struct Params
{
	int n;
	Oid types[16];
	Datum values[16];
	char nulls[16];
} Params;

extern void param_add(Params *p, Oid type, Datum value);
extern void param_add_int(Params *p, int value);         /* int4 */
extern void param_add_long(Params *p, int64 value);      /* int8 */
extern void param_add_text(Params *p, const char *text); /* NULL is null */
extern void param_add_bytes(Params *p, const void *bytes, size_t length);
extern void param_add_version(Params *p, const char *model, int version); /* both */

typedef enum RunAs
{
	AS_OWNER,       /* of the tables of jobs, which nobody else has rights on */
	AS_OWNER_READ,  /* the same, for a SELECT under the active snapshot */
	AS_CALLER,      /* its rights and row security count */
	AS_CALLER_READ, /* the same, under the active snapshot */
} RunAs;

/*
 * Runs a statement within SPI_connect. %s in it, or %1$s, is the table.
 * `expected` is SPI's code for its kind. Returns the number of rows. Raises
 * what the statement raises.
 */
extern uint64 catalog_run(RunAs as, const char *table, const char *statement, int expected,
						  Params *p);

/*
 * The result of the last statement: a column, from 1 on, of a row, from 0 on.
 * Null is 0 or NULL. What is not passed by value is a copy in the memory of
 * SPI_connect, or, `result_datum`, lies in the row.
 */
extern Datum result_datum(uint64 row, int column);
extern int result_int(uint64 row, int column);    /* int4 */
extern int64 result_long(uint64 row, int column); /* int8 */
extern char *result_text(uint64 row, int column); /* any type, as text */

#endif /* BICYCLE_CATALOG_RUN_H */
