/*
 * pairs_query.c
 *	  The queries that give a job its pairs, and those of validation: what they
 *	  must be.
 *
 * Each is checked twice, by the same means: when the job is started, and when
 * its worker runs it.
 */
#include "pg/pairs_query.h"

#include "access/xact.h"
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

pg_noreturn static void
report_not_a_query(const char *what, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s must be one query that only reads", what),
			 errdetail_internal("%s", detail),
			 errhint("Write a SELECT of two bytea columns: the input and the target image.")));
}

pg_noreturn static void
report_columns(const char *what, int images, const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_DATATYPE_MISMATCH),
		 images == 1 ? errmsg("%s that lie side by side must have one column of type bytea", what)
					 : errmsg("%s must have two columns of type bytea", what),
		 errdetail_internal("%s", detail),
		 errhint("Behind %s only a column named id may follow, of any type: errors name rows by "
				 "it.",
				 images == 1 ? "it" : "them (or behind one, with the option \"side_by_side\")")));
}

static void
check_columns(const char *what, TupleDesc desc, int images)
{
	int n = desc ? desc->natts : 0;

	if (n != images && n != images + 1)
		report_columns(what, images, psprintf("The query has %d columns.", n));
	for (int i = 0; i < n; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);
		Oid type = TupleDescAttr(desc, i)->atttypid;

		if (i < images ? getBaseType(type) != BYTEAOID : strcmp(name, "id") != 0)
			report_columns(what, images,
						   psprintf("Column \"%s\" has type %s.", name, format_type_be(type)));
	}
}

/* Whether a jsonb has what this JSON has. */
static bool
has_option(Datum options, const char *json)
{
	return DatumGetBool(DirectFunctionCall2(jsonb_contains, options,
											DirectFunctionCall1(jsonb_in, CStringGetDatum(json))));
}

int
pairs_images(const char *options)
{
	Datum given = DirectFunctionCall1(jsonb_in, CStringGetDatum(options));

	return has_option(given, "{\"side_by_side\": true}") ? 1 : 2;
}

char *
pairs_validation(const char *options)
{
	Datum given = DirectFunctionCall1(jsonb_in, CStringGetDatum(options));

	/* a job of 0.1 has no such option */
	if (!DatumGetBool(DirectFunctionCall2(jsonb_exists, given,
										  PointerGetDatum(cstring_to_text("validation")))) ||
		has_option(given, "{\"validation\": \"\"}"))
		return NULL;
	return TextDatumGetCString(DirectFunctionCall2(jsonb_object_field_text, given,
												   PointerGetDatum(cstring_to_text("validation"))));
}

bool
pairs_need_metric(const char *options)
{
	Datum given = DirectFunctionCall1(jsonb_in, CStringGetDatum(options));

	return has_option(given, "{\"keep_metric\": \"val_lpips\"}") &&
		   (has_option(given, "{\"keep\": \"best\"}") || !has_option(given, "{\"patience\": 0}"));
}

static SPIPlanPtr
prepare_query(const char *what, const char *query, int images, bool elsewhere)
{
	SPIPlanPtr plan = SPI_prepare_cursor(query, 0, NULL, CURSOR_OPT_NO_SCROLL);
	CachedPlanSource *source;
	Query *parsed;

	if (plan == NULL)
		report_not_a_query(what, "It is a command that cannot be prepared.");
	if (list_length(plan->plancache_list) != 1)
		report_not_a_query(what,
						   psprintf("It has %d statements.", list_length(plan->plancache_list)));
	source = linitial(plan->plancache_list);
	if (list_length(source->query_list) != 1)
		report_not_a_query(what, "Rules make more than one query of it.");
	parsed = linitial(source->query_list);
	if (parsed->commandType != CMD_SELECT || parsed->hasModifyingCTE || parsed->rowMarks != NIL)
		report_not_a_query(what, "It writes or locks rows.");
	check_columns(what, source->resultDesc, images);
	if (elsewhere && isQueryUsingTempRelation(parsed))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s cannot come from temporary tables", what),
						errdetail("Training runs in another process, which does not see them."),
						errhint("Use an ordinary or an unlogged table.")));
	return plan;
}

SPIPlanPtr
pairs_prepare(const char *what, const char *query, int images)
{
	return prepare_query(what, query, images, true);
}

PairsCursor
pairs_open(const char *query, int images)
{
	PairsCursor cursor = { .was_read_only = XactReadOnly };
	SPIPlanPtr plan;

	XactReadOnly = true; /* functions are called while a query is planned, too */
	plan = prepare_query(PAIRS_TRAINED, query, images, false);
	cursor.portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	return cursor;
}

void
pairs_close(PairsCursor cursor)
{
	SPI_cursor_close(cursor.portal);
	XactReadOnly = cursor.was_read_only;
}
