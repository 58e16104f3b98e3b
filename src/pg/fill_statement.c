/*
 * fill_statement.c
 *	  Runs the statements of bicycle_fill, each over one leaf of its target.
 *
 * R1 A statement names the target itself, never a partition. So privileges, row
 *    security, triggers and moves between partitions are those of an UPDATE by
 *    hand. That only the leaf's rows are meant its WHERE says (tableoid), which
 *    the planner makes nothing of; a hook takes the other leaves out of the
 *    plan.
 * R2 Where rows must come in the order of their ctids the same hook leaves the
 *    planner one path, the scan of a range of ctids. So LIMIT ends the scan
 *    where a chunk is full, however large the range is.
 * R3 Whose plan is being made the hook knows by the parameters, which are those
 *    of fill_execute for no other statement: also not for one that a function
 *    runs that is evaluated meanwhile. Sub-selects have a level of their own.
 *
 * Parameters are in the current context.
 */
#include "pg/fill.h"

#include "access/sysattr.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "parser/parse_node.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#define TARGET_INDEX 1 /* of the target among the tables of each statement */

static set_rel_pathlist_hook_type previous_pathlist = NULL;
static ParamListInfo planned_params = NULL; /* of the statement that is run; NULL: none is */
static FillMode planned_mode;

/* ---- Plans --------------------------------------------------------------- */

static bool
is_of_target(PlannerInfo *root, Index index)
{
	while (index != TARGET_INDEX)
	{
		if (root->append_rel_array == NULL || root->append_rel_array[index] == NULL)
			return false;
		index = root->append_rel_array[index]->parent_relid;
	}
	return true;
}

/* ctid >= constant, or ctid < constant */
static bool
bounds_ctid(const RestrictInfo *rinfo, const RelOptInfo *rel)
{
	const OpExpr *op = (const OpExpr *) rinfo->clause;
	const Var *var;

	if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
		(op->opno != TIDGreaterEqOperator && op->opno != TIDLessOperator))
		return false;
	var = linitial(op->args);
	return IsA(var, Var) && var->varno == rel->relid &&
		   var->varattno == SelfItemPointerAttributeNumber && IsA(lsecond(op->args), Const);
}

static void
leave_range_scan(PlannerInfo *root, RelOptInfo *rel, Oid leaf)
{
	List *bounds = NIL;
	ListCell *cell;

	if ((rel->amflags & AMFLAG_HAS_TID_RANGE) == 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("bicycle_fill cannot fill \"%s\"", get_rel_name(leaf)),
						errdetail("Its access method cannot be read from one row to another.")));
	foreach (cell, rel->baserestrictinfo)
		if (bounds_ctid(lfirst_node(RestrictInfo, cell), rel))
			bounds = lappend(bounds, lfirst(cell));
	if (bounds == NIL)
		return; /* the planner has proved that there are no rows */
	rel->pathlist = NIL;
	rel->partial_pathlist = NIL;
	add_path(rel, (Path *) create_tidrangescan_path(root, rel, bounds, rel->lateral_relids));
}

static void
fill_pathlist(PlannerInfo *root, RelOptInfo *rel, Index index, RangeTblEntry *rte)
{
	if (previous_pathlist)
		previous_pathlist(root, rel, index, rte);
	if (planned_params == NULL || root->glob->boundParams != planned_params ||
		root->query_level != 1 || rte->rtekind != RTE_RELATION || rte->inh ||
		!is_of_target(root, index))
		return;
	if (rte->relid != DatumGetObjectId(planned_params->params[0].value))
		mark_dummy_rel(rel);
	else if (planned_mode == FILL_READS_IN_ORDER)
		leave_range_scan(root, rel, rte->relid);
}

void
fill_statement_init(void)
{
	previous_pathlist = set_rel_pathlist_hook;
	set_rel_pathlist_hook = fill_pathlist;
}

/* ---- Parameters ---------------------------------------------------------- */

void
fill_param(ParamListInfo params, int number, Oid type, Datum value)
{
	ParamExternData *param = &params->params[number - 1];

	param->ptype = type;
	param->value = value;
	param->isnull = false;
	param->pflags = PARAM_FLAG_CONST;
}

ParamListInfo
fill_params(int n, Oid leaf)
{
	ParamListInfo params = makeParamList(n);

	fill_param(params, 1, OIDOID, ObjectIdGetDatum(leaf));
	return params;
}

void
fill_param_tids(ParamListInfo params, int number, const ItemPointerData *tids, int n)
{
	Datum *elements = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = PointerGetDatum(&tids[i]);
	fill_param(params, number, TIDARRAYOID,
			   PointerGetDatum(construct_array(elements, n, TIDOID, sizeof(ItemPointerData), false,
											   TYPALIGN_SHORT)));
	pfree(elements);
}

/* ---- Running ------------------------------------------------------------- */

uint64
fill_execute(const char *statement, ParamListInfo params, FillMode mode, DestReceiver *dest)
{
	SPIExecuteOptions options = { .params = params,
								  .read_only = mode == FILL_READS_IN_ORDER,
								  .dest = dest };
	int rc;

	planned_params = params;
	planned_mode = mode;
	PG_TRY();
	{
		rc = SPI_execute_extended(statement, &options);
	}
	PG_FINALLY();
	{
		planned_params = NULL;
	}
	PG_END_TRY();
	if (rc < 0)
		elog(ERROR, "statement of bicycle_fill failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

void
fill_check_statement(const char *statement, ParamListInfo params)
{
	SPIPlanPtr plan = SPI_prepare_params(statement, params->parserSetup, params->parserSetupArg, 0);

	if (plan == NULL)
		elog(ERROR, "statement of bicycle_fill failed: %s", SPI_result_code_string(SPI_result));
	SPI_freeplan(plan);
}
