/*
 * fill.h
 *	  The parts of bicycle_fill: what it fills, its statements, and what it
 *	  tells of itself.
 */
#ifndef BICYCLE_FILL_H
#define BICYCLE_FILL_H

#include "pg/bicycle.h"

#include "nodes/params.h"
#include "nodes/pg_list.h"
#include "tcop/dest.h"

/* ---- What is filled: fill_target.c --------------------------------------- */

typedef struct FillTarget
{
	Oid relation;
	const char *name; /* of the table when the call began, as is the column's */
	const char *column_name;
	AttrNumber column;
	AttrNumber error_column; /* InvalidAttrNumber: none */
	const char *expression;
	const char *condition; /* NULL: none */
} FillTarget;

/*
 * Texts of statements. $1 of each is the leaf: the table or partition that has
 * the rows.
 */
typedef struct FillStatements
{
	char *find;   /* $2 tid, $3 tid, $4 bigint: ctid and xmin of at most $4 rows in [$2, $3) */
	char *lock;   /* $2 tid[]: ctid of those that are locked for us */
	char *update; /* $2 tid[]: for each row that is written, whether it has stayed NULL */
	char *note;   /* $2 tid[], $3 text: the reason.  NULL: there is no error column */
} FillStatements;

/*
 * Raises 42601 unless `words` are one expression and nothing else, and 42P02 if
 * it has parameters. `argument` is its name in the call.
 */
extern void fill_check_text(const char *argument, const char *words);

/*
 * The number of a column that can be written; 42703, 0A000 for one of the
 * system. `fill_check_relation` raises 42P01, 0A000 or 42501 where the target
 * cannot be filled at all, or not by the caller, and returns its name,
 * palloc'ed; `name`: what to call it if it is not there, or NULL.
 */
extern char *fill_check_relation(Oid relation, const char *name);
extern AttrNumber fill_find_column(Oid relation, const char *name);
extern void fill_check_text_column(Oid relation, AttrNumber number); /* 42804 */

/*
 * The statements under the names that everything has now, palloc'ed. The target
 * is locked until the end of the transaction, and keeps them. 42P01, 42703,
 * 0A000, 42501.
 */
extern void fill_resolve(const FillTarget *target, FillStatements *statements);

/*
 * Those tables of the target that have rows of their own, by OID, but those
 * that are temporary in other sessions. 0A000 if one of them is foreign, or
 * temporary in this one.
 */
extern List *fill_leaves(Oid relation);
/* While the target is locked. */
extern bool fill_leaf_is_there(Oid relation, Oid leaf);

/* ---- Running them: fill_statement.c -------------------------------------- */

typedef enum FillMode
{
	FILL_READS_IN_ORDER, /* under the active snapshot, rows in the order of their ctids */
	FILL_WRITES
} FillMode;

extern void fill_statement_init(void); /* from _PG_init: registers a hook of the planner */

/* Parameters: the leaf, and room for `n` - 1 more. */
extern ParamListInfo fill_params(int n, Oid leaf);
extern void fill_param(ParamListInfo params, int number, Oid type, Datum value);
extern void fill_param_tids(ParamListInfo params, int number, const ItemPointerData *tids, int n);

/*
 * Runs a statement within SPI_connect, over the leaf alone. Its rows go to
 * `dest`, or to SPI_tuptable if that is NULL. Returns their number.
 */
extern uint64 fill_execute(const char *statement, ParamListInfo params, FillMode mode,
						   DestReceiver *dest);

/* Raises what is wrong with a statement before it is run. */
extern void fill_check_statement(const char *statement, ParamListInfo params);

/* ---- What it tells: fill_slots.c ----------------------------------------- */

/*
 * Shows this fill in bicycle_fills, if there is a free slot, until
 * fill_slot_release.
 */
extern void fill_slot_take(Oid relation, const char *column, uint64 blocks);
extern void fill_slot_update(const FillCounts *counts, uint64 blocks_done);
extern void fill_slot_release(int code, Datum unused); /* also called as the process ends */

/*
 * Time, in its own unit, that `all` will take from now on if `done` took
 * `elapsed`.
 */
extern int64 fill_time_left(int64 elapsed, uint64 done, uint64 all);

#endif /* BICYCLE_FILL_H */
