/*
 * pairs_query.c
 *	  The query that gives a job its pairs: what it must be.
 *
 * It is checked twice, by the same means: when the job is started, and when its
 * worker runs it.
 */
#include "pg/pairs_query.h"

#include "catalog/pg_type.h"
#include "executor/spi_priv.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

static void
report_not_a_query(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("pairs must be one query that only reads"),
			 errdetail_internal("%s", detail),
			 errhint("Write a SELECT of two bytea columns: the input and the target image.")));
}

static void
check_columns(TupleDesc desc)
{
	if (desc == NULL || desc->natts != 2)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("pairs must have two columns of type bytea"),
						errdetail("The query has %d columns.", desc ? desc->natts : 0)));
	for (int i = 0; i < 2; i++)
		if (getBaseType(TupleDescAttr(desc, i)->atttypid) != BYTEAOID)
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("pairs must have two columns of type bytea"),
							errdetail("Column \"%s\" has type %s.",
									  NameStr(TupleDescAttr(desc, i)->attname),
									  format_type_be(TupleDescAttr(desc, i)->atttypid))));
}

SPIPlanPtr
pairs_prepare(const char *query)
{
	SPIPlanPtr plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_NO_SCROLL);
	CachedPlanSource *source;
	Query *parsed;

	if (plan == NULL)
		report_not_a_query("It is a command that cannot be prepared.");
	if (list_length(plan->plancache_list) != 1)
		report_not_a_query(psprintf("It has %d statements.", list_length(plan->plancache_list)));
	source = linitial(plan->plancache_list);
	if (list_length(source->query_list) != 1)
		report_not_a_query("Rules make more than one query of it.");
	parsed = linitial(source->query_list);
	if (parsed->commandType != CMD_SELECT || parsed->hasModifyingCTE || parsed->rowMarks != NIL)
		report_not_a_query("It writes or locks rows.");
	check_columns(source->resultDesc);
	if (isQueryUsingTempRelation(parsed))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("pairs cannot come from temporary tables"),
						errdetail("Training runs in another process, which does not see them."),
						errhint("Use an ordinary or an unlogged table.")));
	return plan;
}
