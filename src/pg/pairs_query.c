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
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

#include "pg/pg_compat.h"

static void
report_not_a_query(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("pairs must be one query that only reads"),
			 errdetail_internal("%s", detail),
			 errhint("Write a SELECT of two bytea columns: the input and the target image.")));
}

pg_noreturn static void
report_columns(int images, const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_DATATYPE_MISMATCH),
		 images == 1 ? errmsg("pairs that lie side by side must have one column of type bytea")
					 : errmsg("pairs must have two columns of type bytea"),
		 errdetail_internal("%s", detail),
		 errhint("Behind %s only a column named id may follow, of any type: errors name rows by "
				 "it.",
				 images == 1 ? "it" : "them (or behind one, with the option \"side_by_side\")")));
}

static void
check_columns(TupleDesc desc, int images)
{
	int n = desc ? desc->natts : 0;

	if (n != images && n != images + 1)
		report_columns(images, psprintf("The query has %d columns.", n));
	for (int i = 0; i < n; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);
		Oid type = TupleDescAttr(desc, i)->atttypid;

		if (i < images ? getBaseType(type) != BYTEAOID : strcmp(name, "id") != 0)
			report_columns(images,
						   psprintf("Column \"%s\" has type %s.", name, format_type_be(type)));
	}
}

int
pairs_images(const char *options)
{
	Datum given = DirectFunctionCall1(jsonb_in, CStringGetDatum(options));
	Datum one = DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"side_by_side\": true}"));

	return DatumGetBool(DirectFunctionCall2(jsonb_contains, given, one)) ? 1 : 2;
}

static SPIPlanPtr
prepare_query(const char *query, int images, bool elsewhere)
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
	check_columns(source->resultDesc, images);
	if (elsewhere && isQueryUsingTempRelation(parsed))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("pairs cannot come from temporary tables"),
						errdetail("Training runs in another process, which does not see them."),
						errhint("Use an ordinary or an unlogged table.")));
	return plan;
}

SPIPlanPtr
pairs_prepare(const char *query, int images)
{
	return prepare_query(query, images, true);
}

SPIPlanPtr
pairs_prepare_here(const char *query, int images)
{
	return prepare_query(query, images, false);
}
