/*
 * model_uses.c
 *	  Which objects of the database name a version of a model: without it,
 *	  writing their table, or analysing it, would fail.
 *
 * R1 Looked at are indexes, partition keys, defaults, generated columns,
 *    constraints, policies, conditions of triggers and extended statistics: all
 *    that depends, by pg_depend, on a function of the extension with arguments
 *    "model" and "version". Not views, which fail alone, nor bodies of
 *    functions, which the catalog does not look into either.
 * R2 Stored expressions are parsed, and nothing of them is evaluated: they are
 *    other roles'. A model that is not a constant is not known; a version that
 *    is not stands for all.
 * R3 What others commit in the meantime is not seen, as there is no lock on
 *    what names a version.
 */
#include "pg/model_uses.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"

#include "pg/catalog_run.h"

#define MOST_NAMED 20 /* in the detail; the rest is counted */

/* A search for calls of one function. */
typedef struct Search
{
	Oid function;
	int model_place, version_place; /* of its arguments, from 0 on */
	const char *model;
	int version; /* 0: any */
} Search;

/*
 * A row for each expression that depends on one of those functions: what it is
 * of, the expression, the function, and where its arguments are.
 */
static const char uses_query[] =
	"WITH functions AS ("
	"	SELECT p.oid, array_position(p.proargnames, 'model') - 1 AS model,"
	"		array_position(p.proargnames, 'version') - 1 AS version"
	"	FROM pg_proc AS p JOIN pg_depend AS e ON e.classid = 'pg_proc'::regclass"
	"		AND e.objid = p.oid AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e'"
	"	JOIN pg_extension AS x ON x.oid = e.refobjid AND x.extname = 'bicycle'"
	"	WHERE 'model' = ANY (p.proargnames) AND 'version' = ANY (p.proargnames)"
	"), uses AS ("
	"	SELECT DISTINCT d.classid, d.objid, f.* FROM functions AS f JOIN pg_depend AS d"
	"		ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid"
	"), expressions AS ("
	"	SELECT 'pg_class'::regclass AS class, indexrelid AS object, indexprs::text AS tree"
	"		FROM pg_index"
	"	UNION ALL SELECT 'pg_class'::regclass, indexrelid, indpred::text FROM pg_index"
	"	UNION ALL SELECT 'pg_class'::regclass, partrelid, partexprs::text"
	"		FROM pg_partitioned_table"
	"	UNION ALL SELECT 'pg_attrdef'::regclass, oid, adbin::text FROM pg_attrdef"
	"	UNION ALL SELECT 'pg_constraint'::regclass, oid, conbin::text FROM pg_constraint"
	"	UNION ALL SELECT 'pg_policy'::regclass, oid, polqual::text FROM pg_policy"
	"	UNION ALL SELECT 'pg_policy'::regclass, oid, polwithcheck::text FROM pg_policy"
	"	UNION ALL SELECT 'pg_trigger'::regclass, oid, tgqual::text FROM pg_trigger"
	"	UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxexprs::text FROM pg_statistic_ext"
	") "
	"SELECT pg_describe_object(u.classid, u.objid, 0), e.tree, u.oid, u.model, u.version"
	"	FROM uses AS u JOIN expressions AS e ON e.class = u.classid AND e.object = u.objid"
	/* of catalog_run's table nothing is asked */
	"	WHERE e.tree IS NOT NULL AND NOT EXISTS (SELECT FROM %s LIMIT 0) ORDER BY 1";

/* ---- Expressions --------------------------------------------------------- */

/* The argument at a place, without what changes no value; NULL: left out. */
static Node *
argument_at(const FuncExpr *call, int place)
{
	ListCell *cell;

	foreach (cell, call->args)
	{
		Node *node = lfirst(cell);
		int at = foreach_current_index(cell);

		if (IsA(node, NamedArgExpr))
		{
			at = ((NamedArgExpr *) node)->argnumber;
			node = (Node *) ((NamedArgExpr *) node)->arg;
		}
		if (at != place)
			continue;
		while (IsA(node, RelabelType) || IsA(node, CollateExpr))
			node = IsA(node, RelabelType) ? (Node *) ((RelabelType *) node)->arg
										  : (Node *) ((CollateExpr *) node)->arg;
		return node;
	}
	return NULL;
}

/* Whether a call names the version that is looked for. */
static bool
names_version(const FuncExpr *call, const Search *search)
{
	const Const *model = (const Const *) argument_at(call, search->model_place);
	const Const *version = (const Const *) argument_at(call, search->version_place);

	if (model == NULL || !IsA(model, Const) || model->constisnull ||
		(model->consttype != TEXTOID && model->consttype != VARCHAROID) ||
		strcmp(TextDatumGetCString(model->constvalue), search->model) != 0)
		return false;
	if (search->version == 0 || version == NULL || !IsA(version, Const) ||
		version->consttype != INT4OID)
		return true;
	return !version->constisnull && DatumGetInt32(version->constvalue) == search->version;
}

static bool
find_call(Node *node, void *search)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == ((Search *) search)->function &&
		names_version((FuncExpr *) node, search))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_call, search, 0);
	return expression_tree_walker(node, find_call, search);
}

/* ---- The answer ---------------------------------------------------------- */

void
model_check_unnamed(const char *model, int version, const char *action)
{
	StringInfoData named;
	const char *last = "";
	Params p = { 0 };
	uint64 rows;
	int count = 0;

	if (bicycle_force_drop)
		return;
	rows = catalog_run(AS_CALLER, "bicycle_models", uses_query, SPI_OK_SELECT, &p);
	initStringInfo(&named);
	for (uint64 row = 0; row < rows; row++)
	{
		const char *object = result_text(row, 1);
		Search search = { .function = DatumGetObjectId(result_datum(row, 3)),
						  .model_place = result_int(row, 4),
						  .version_place = result_int(row, 5),
						  .model = model,
						  .version = version };

		if (strcmp(object, last) == 0 || !find_call(stringToNode(result_text(row, 2)), &search))
			continue;
		last = object;
		if (++count <= MOST_NAMED)
			appendStringInfo(&named, "%s%s", count > 1 ? "\n" : "", object);
	}
	if (count == 0)
		return;
	if (count > MOST_NAMED)
		appendStringInfo(&named, "\nand %d other objects", count - MOST_NAMED);
	ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					version == 0 ? errmsg("cannot %s model \"%s\" because other objects name it",
										  action, model)
								 : errmsg("cannot %s version %d of model \"%s\" because other "
										  "objects name it",
										  action, version, model),
					errdetail("%s", named.data),
					errhint("Drop or change them first. To leave them broken, SET "
							"bicycle.force_drop = on.")));
}
