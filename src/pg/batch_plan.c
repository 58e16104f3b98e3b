/*
 * batch_plan.c
 *	  Finds calls of our functions in finished plans and puts a node above them
 *	  that runs many rows at once.
 *
 * A call in a target list is evaluated one row at a time: it would send one
 * image, wait, and send the next. A planner hook rewrites the finished plan. Of
 *
 *	  UPDATE shoes SET variant = bicycle_translate(sketch, z), seen = n + 1
 *
 *	  SeqScan                        Custom Scan (BicycleBatch)
 *	    translate(sketch, z), n + 1    variant, n + 1
 *	                                   -> SeqScan
 *	                                        sketch, z, n
 *
 * R1 The node below computes the arguments of the calls, and the columns that
 *    the rest of its old target list needs. That rest is computed above, in
 *    order, and only for rows that are returned.
 * R2 What may not be reached is not read ahead: calls under CASE, COALESCE, AND
 *    and the like are left alone.
 * R3 So is what early evaluation would change: target lists with sub-plans or
 *    set-returning functions, and a foreign scan that itself updates or
 *    deletes.
 * R4 So are plans that go back: the inner side of a merge join, which is marked
 *    and restored, and cursors of DECLARE CURSOR, which may scroll or be named
 *    by WHERE CURRENT OF.
 * R5 So is a Result without input, which PL/pgSQL takes for a simple
 *    expression.
 *
 * R6 Arguments of aggregates are computed for every row, unless there is a
 *    FILTER. Calls in them are moved into the target list below first, and of
 *
 *	  Agg                            Agg
 *	    mean(encode(photo))            mean(style)
 *	    -> SeqScan                     -> Custom Scan (BicycleBatch)
 *	         photo                          photo, style
 *	                                        -> SeqScan
 *	                                             photo
 *
 * R7 Whether the node's rows are all read without a stop is known where a node
 *    above reads all of its input before it gives anything: a ModifyTable
 *    without RETURNING, a sort, a hash table, an aggregate that is not fed in
 *    groups. What only passes rows on, changes nothing of that; a limit or a
 *    join does. Where rows are passed on up to the top, it depends on the run.
 *
 * R8 Equal calls are one, and so are equal arguments, but for volatile ones:
 *    each is evaluated by itself, as often as it is written.
 * R9 A volatile argument is evaluated for the rows of a round before what is
 *    volatile in the rest of their target list: currval in an argument does not
 *    see nextval beside it.
 *
 * Calls that are left alone go through the functions themselves, with the same
 * results. The node is executed by batch_exec.c. All memory is the plan's.
 */
#include "pg/batch.h"

#include "miscadmin.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "pg/bad_images.h"

static planner_hook_type previous_planner = NULL;

typedef struct PlanContext
{
	PlannedStmt *statement;
	int last_node_id;     /* largest plan_node_id in the statement */
	int gathers;          /* that the plan looked at is below: it runs in workers */
	BatchReading reading; /* R7: of the rows of the plan looked at */
} PlanContext;

static Plan *rewrite(Plan *plan, Plan *parent, PlanContext *context);

/* ---- The calls of a target list ------------------------------------------ */

/* R8: the place, from 0, of the call that gives what `node` does; -1: none. */
static int
call_place(const List *calls, const Node *node)
{
	bool itself = contain_volatile_functions((Node *) node);
	ListCell *cell;

	foreach (cell, calls)
		if (itself ? lfirst(cell) == node : equal(lfirst(cell), node))
			return foreach_current_index(cell);
	return -1;
}

/* A list with the call, which may be in it already. */
static List *
add_call(List *calls, Node *call)
{
	return call_place(calls, call) < 0 ? lappend(calls, call) : calls;
}

/*
 * Collects, without repetition, calls that are evaluated for every row.
 * Descends only into nodes that always evaluate all they hold; whatever is not
 * named here is passed over whole, so that a node type of a later server cannot
 * hide a condition.
 */
static bool
collect_calls(Node *node, List **calls)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			if (batch_kind_of(((FuncExpr *) node)->funcid) != NULL)
			{
				*calls = add_call(*calls, node);
				return false;
			}
			break;
		case T_List:
		case T_TargetEntry:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_CoerceToDomain:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CollateExpr:
			break;
		default:
			return false;
	}
	return expression_tree_walker(node, collect_calls, calls);
}

static bool
holds_subplan(Node *node, void *unused)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan))
		return true;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_MULTIEXPR)
		return true;
	return expression_tree_walker(node, holds_subplan, NULL);
}

/* ---- Which nodes may be wrapped ------------------------------------------ */

static bool
can_project(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Result:
			return plan->lefttree != NULL;
		case T_WindowAgg:

			/*
			 * A run condition refers to columns of the target list by number.
			 */
			return ((const WindowAgg *) plan)->runCondition == NIL;
		case T_ForeignScan:

			/*
			 * One that modifies at the other end computes there, and takes its
			 * target list for what it has sent.
			 */
			return ((const ForeignScan *) plan)->operation == CMD_SELECT;
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_ValuesScan:
		case T_TableFuncScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
		case T_WorkTableScan:
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
		case T_Agg:
		case T_Group:
		case T_Gather:
		case T_GatherMerge:
			return true;
		default:
			return false;
	}
}

static bool
may_wrap(const Plan *plan, const Plan *parent)
{
	if (!can_project(plan) || plan->async_capable)
		return false;
	if (parent != NULL && IsA(parent, MergeJoin) && parent->righttree == plan)
		return false;
	return !holds_subplan((Node *) plan->targetlist, NULL);
}

/* ---- Building the node --------------------------------------------------- */

typedef struct BatchBuild
{
	List *calls;   /* FuncExprs; column i + 1 of the scan tuple is the result of call i */
	List *columns; /* the new target list of the child: arguments, and columns for the rest */
} BatchBuild;

/* R8: the number, from 1, of the child's column that holds this expression. */
static int
child_column(BatchBuild *build, Expr *expr)
{
	ListCell *cell;
	TargetEntry *entry;

	foreach (cell, contain_volatile_functions((Node *) expr) ? NIL : build->columns)
	{
		entry = lfirst_node(TargetEntry, cell);
		if (equal(entry->expr, expr))
			return entry->resno;
	}
	entry =
		makeTargetEntry((Expr *) copyObject(expr), list_length(build->columns) + 1, NULL, false);
	build->columns = lappend(build->columns, entry);
	return entry->resno;
}

static Var *
column_var(int varno, int column, Node *expr)
{
	return makeVar(varno, column, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
}

/*
 * The old target list in terms of the scan tuple: calls become its first
 * columns, what the child must deliver the ones behind them.
 */
static Node *
to_scan_tuple(Node *node, BatchBuild *build)
{
	int place;

	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) && (place = call_place(build->calls, node)) >= 0)
		return (Node *) column_var(INDEX_VAR, place + 1, node);
	if (IsA(node, Var) || IsA(node, Aggref) || IsA(node, WindowFunc) || IsA(node, GroupingFunc))
		return (Node *) column_var(
			INDEX_VAR, list_length(build->calls) + child_column(build, (Expr *) node), node);
	return expression_tree_mutator(node, to_scan_tuple, build);
}

/* One column number for each argument of each call. */
static List *
argument_columns(BatchBuild *build)
{
	List *all = NIL;
	ListCell *call;
	ListCell *argument;

	foreach (call, build->calls)
	{
		List *columns = NIL;

		foreach (argument, lfirst_node(FuncExpr, call)->args)
			columns = lappend_int(columns, child_column(build, lfirst(argument)));
		all = lappend(all, columns);
	}
	return all;
}

/* Appends the columns of the child, passed on unchanged. */
static List *
pass_through(List *entries, const BatchBuild *build)
{
	ListCell *cell;

	foreach (cell, build->columns)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		entries = lappend(entries, makeTargetEntry((Expr *) column_var(OUTER_VAR, entry->resno,
																	   (Node *) entry->expr),
												   list_length(entries) + 1, NULL, false));
	}
	return entries;
}

/*
 * What the scan tuple holds, for EXPLAIN and for its tuple descriptor: the
 * calls over the child's columns, then these columns.
 */
static List *
scan_tuple(const BatchBuild *build, const List *argument_columns)
{
	List *entries = NIL;
	ListCell *cell;
	ListCell *columns;

	forboth(cell, build->calls, columns, argument_columns)
	{
		FuncExpr *call = copyObject(lfirst_node(FuncExpr, cell));
		ListCell *argument;
		ListCell *column;

		forboth(argument, call->args, column, (List *) lfirst(columns))
		{
			lfirst(argument) = column_var(OUTER_VAR, lfirst_int(column), lfirst(argument));
		}
		entries =
			lappend(entries, makeTargetEntry((Expr *) call, list_length(entries) + 1, NULL, false));
	}
	return pass_through(entries, build);
}

/*
 * The column of the child that says where a row lies in its table, which is
 * what an error can name; 0 if the child is not a plain scan of one.
 */
static int
place_column(BatchBuild *build, const Plan *x, const PlanContext *context, Oid *table)
{
	Index scanned;
	const RangeTblEntry *entry;

	*table = InvalidOid;
	switch (nodeTag(x))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
			break;
		default:
			return 0;
	}
	scanned = ((const Scan *) x)->scanrelid;
	entry = rt_fetch(scanned, context->statement->rtable);
	if (entry->rtekind != RTE_RELATION)
		return 0;
	*table = entry->relid;
	return child_column(build, (Expr *) makeVar(scanned, SelfItemPointerAttributeNumber, TIDOID, -1,
												InvalidOid, 0));
}

/*
 * Puts a node over `below`, which is X itself or the Limit over X. With the
 * Limit inside, exactly the rows that it lets through are computed, and a sort
 * below it still knows its bound.
 */
static Plan *
wrap(Plan *x, Plan *below, List *calls, BatchReading reading, PlanContext *context)
{
	BatchBuild build = { calls, NIL };
	List *arguments = argument_columns(&build);
	List *functions = NIL;
	CustomScan *scan = makeNode(CustomScan);
	Plan *plan = &scan->scan.plan;
	Oid table;
	int place;
	ListCell *cell;

	foreach (cell, x->targetlist)
	{
		TargetEntry *entry = flatCopyTargetEntry(lfirst_node(TargetEntry, cell));

		entry->expr = (Expr *) to_scan_tuple((Node *) entry->expr, &build);
		plan->targetlist = lappend(plan->targetlist, entry);
	}
	foreach (cell, calls)
		functions = lappend_oid(functions, lfirst_node(FuncExpr, cell)->funcid);

	place = place_column(&build, x, context, &table);
	scan->methods = &batch_scan_methods;
	scan->custom_scan_tlist = scan_tuple(&build, arguments);
	scan->custom_private = list_make5(functions, arguments, makeInteger(place),
									  list_make1_oid(table), makeInteger(reading));
	x->targetlist = build.columns;
	if (below != x)
		below->targetlist = pass_through(NIL, &build); /* of the Limit */

	plan->lefttree = below;
	plan->startup_cost = below->startup_cost;
	plan->total_cost = below->total_cost;
	plan->plan_rows = below->plan_rows;
	plan->plan_width = below->plan_width;
	plan->parallel_safe = below->parallel_safe;
	plan->parallel_aware = context->gathers > 0; /* for a segment to count in */
	plan->plan_node_id = ++context->last_node_id;
	plan->extParam = bms_copy(below->extParam);
	plan->allParam = bms_copy(below->allParam);
	return plan;
}

/* ---- Below aggregates ---------------------------------------------------- */

static bool
collect_aggregated(Node *node, List **calls)
{
	List *found = NIL;
	ListCell *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, Aggref))
		return expression_tree_walker(node, collect_aggregated, calls);
	if (((Aggref *) node)->aggfilter == NULL)
		collect_calls((Node *) ((Aggref *) node)->args, &found);
	foreach (cell, found)
		if (!holds_subplan(lfirst(cell), NULL))
			*calls = add_call(*calls, lfirst(cell));
	return false;
}

/* Calls that become columns of the plan below an aggregate. */
typedef struct Moved
{
	List *calls;
	int first; /* column of the first */
} Moved;

static Node *
to_columns(Node *node, Moved *moved)
{
	int place;

	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) && (place = call_place(moved->calls, node)) >= 0)
		return (Node *) column_var(OUTER_VAR, moved->first + place, node);
	return expression_tree_mutator(node, to_columns, moved);
}

static Node *
aggregates_to_columns(Node *node, Moved *moved)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref) && ((Aggref *) node)->aggfilter == NULL)
		return expression_tree_mutator(node, to_columns, moved);
	return expression_tree_mutator(node, aggregates_to_columns, moved);
}

static TargetEntry *
column_below(Plan *below, const Var *var)
{
	return list_nth_node(TargetEntry, below->targetlist, var->varattno - 1);
}

/* An expression over the plan's columns: does it read one that is computed? */
static bool
reads_computed(Node *node, Plan *below)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno != OUTER_VAR ||
			   !IsA(column_below(below, (Var *) node)->expr, Var);
	return expression_tree_walker(node, reads_computed, below);
}

/* The same expression in terms of what the plan itself reads. */
static Node *
to_inputs(Node *node, Plan *below)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return copyObject((Node *) column_below(below, (Var *) node)->expr);
	return expression_tree_mutator(node, to_inputs, below);
}

/* A plan that passes the columns of another on, and may compute more. */
static Plan *
project(Plan *below, PlanContext *context)
{
	Result *result = makeNode(Result);
	Plan *plan = &result->plan;
	ListCell *cell;

	foreach (cell, below->targetlist)
	{
		TargetEntry *entry = flatCopyTargetEntry(lfirst_node(TargetEntry, cell));

		entry->expr = (Expr *) column_var(OUTER_VAR, entry->resno, (Node *) entry->expr);
		plan->targetlist = lappend(plan->targetlist, entry);
	}
	plan->lefttree = below;
	plan->startup_cost = below->startup_cost;
	plan->total_cost = below->total_cost;
	plan->plan_rows = below->plan_rows;
	plan->plan_width = below->plan_width;
	plan->parallel_safe = below->parallel_safe;
	plan->plan_node_id = ++context->last_node_id;
	plan->extParam = bms_copy(below->extParam);
	plan->allParam = bms_copy(below->allParam);
	return plan;
}

/* R6: before the plan below is looked at. */
static void
move_calls(Plan *aggregate, PlanContext *context)
{
	Moved moved = { NIL, 0 };
	Plan *below = aggregate->lefttree;
	bool projected;
	ListCell *cell;

	collect_aggregated((Node *) aggregate->targetlist, &moved.calls);
	collect_aggregated((Node *) aggregate->qual, &moved.calls);
	if (moved.calls == NIL || below == NULL)
		return;
	projected = !may_wrap(below, aggregate) || reads_computed((Node *) moved.calls, below);
	if (projected)
		below = aggregate->lefttree = project(below, context);
	else
		below->targetlist = list_copy(below->targetlist);
	moved.first = list_length(below->targetlist) + 1;
	foreach (cell, moved.calls)
	{
		Node *call = projected ? copyObject(lfirst(cell)) : to_inputs(lfirst(cell), below);

		below->targetlist = lappend(
			below->targetlist,
			makeTargetEntry((Expr *) call, list_length(below->targetlist) + 1, NULL, false));
	}
	aggregate->targetlist = (List *) aggregates_to_columns((Node *) aggregate->targetlist, &moved);
	aggregate->qual = (List *) aggregates_to_columns((Node *) aggregate->qual, &moved);
}

/* ---- Walking the plan ---------------------------------------------------- */

/* The children that a node has in a list, besides lefttree and righttree. */
static List *
listed_children(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Append:
			return ((Append *) plan)->appendplans;
		case T_MergeAppend:
			return ((MergeAppend *) plan)->mergeplans;
		case T_CustomScan:
			return ((CustomScan *) plan)->custom_plans;
		case T_BitmapAnd:
			return ((BitmapAnd *) plan)->bitmapplans;
		case T_BitmapOr:
			return ((BitmapOr *) plan)->bitmapplans;
		default:
			return NIL;
	}
}

/* R7: of the input of a plan whose own rows are read so. */
static BatchReading
input_reading(const Plan *plan, BatchReading reading)
{
	switch (nodeTag(plan))
	{
		case T_ModifyTable:
			return ((const ModifyTable *) plan)->returningLists == NIL ? BATCH_READ_WHOLE
																	   : BATCH_READ_ON;
		case T_Sort:
		case T_Hash:
			return BATCH_READ_WHOLE;
		case T_Agg:
			return ((const Agg *) plan)->aggstrategy == AGG_PLAIN ||
						   ((const Agg *) plan)->aggstrategy == AGG_HASHED
					   ? BATCH_READ_WHOLE
					   : reading;
		case T_Append:
		case T_MergeAppend:
		case T_Result:
		case T_SubqueryScan:
		case T_WindowAgg:
		case T_Group:
		case T_Unique:
		case T_Material:
		case T_LockRows:
		case T_ProjectSet:
		case T_IncrementalSort:
		case T_Gather:
		case T_GatherMerge:
		case T_CustomScan:
			return reading;
		default:
			return BATCH_READ_ON;
	}
}

static void
rewrite_children(Plan *plan, PlanContext *context)
{
	ListCell *cell;
	bool gathers = IsA(plan, Gather) || IsA(plan, GatherMerge);
	BatchReading reading = context->reading;

	context->gathers += gathers;
	context->reading = input_reading(plan, reading);
	plan->lefttree = rewrite(plan->lefttree, plan, context);
	plan->righttree = rewrite(plan->righttree, plan, context);
	if (IsA(plan, SubqueryScan))
		((SubqueryScan *) plan)->subplan = rewrite(((SubqueryScan *) plan)->subplan, plan, context);
	foreach (cell, listed_children(plan))
		lfirst(cell) = rewrite(lfirst(cell), plan, context);
	context->gathers -= gathers;
	context->reading = reading;
}

/* Bottom-up.  Returns the plan, or the node that now stands over it. */
static Plan *
rewrite(Plan *plan, Plan *parent, PlanContext *context)
{
	Plan *x = plan;
	List *calls = NIL;

	if (plan == NULL)
		return NULL;
	check_stack_depth();
	if (IsA(plan, Agg))
		move_calls(plan, context);
	rewrite_children(plan, context);

	/*
	 * The child of a Limit is seen to when the Limit is, so that the node comes
	 * to stand over both. WITH TIES compares columns by number.
	 */
	if (parent != NULL && IsA(parent, Limit))
		return plan;
	if (IsA(plan, Limit) && ((Limit *) plan)->limitOption == LIMIT_OPTION_COUNT)
		x = plan->lefttree;
	if (!may_wrap(x, x == plan ? parent : plan))
		return plan;
	collect_calls((Node *) x->targetlist, &calls);
	return calls == NIL ? plan : wrap(x, plan, calls, context->reading, context);
}

static void
find_last_node_id(Plan *plan, PlanContext *context)
{
	ListCell *cell;

	if (plan == NULL)
		return;
	context->last_node_id = Max(context->last_node_id, plan->plan_node_id);
	find_last_node_id(plan->lefttree, context);
	find_last_node_id(plan->righttree, context);
	if (IsA(plan, SubqueryScan))
		find_last_node_id(((SubqueryScan *) plan)->subplan, context);
	foreach (cell, listed_children(plan))
		find_last_node_id(lfirst(cell), context);
}

static PlannedStmt *
plan_query(Query *query, const char *source, int cursor_options, ParamListInfo params)
{
	PlannedStmt *volatile statement = NULL;

	bad_images_planning();
	PG_TRY();
	{
		statement = previous_planner != NULL
						? previous_planner(query, source, cursor_options, params)
						: standard_planner(query, source, cursor_options, params);
	}
	PG_FINALLY();
	{
		bad_images_planned();
	}
	PG_END_TRY();
	return statement;
}

static PlannedStmt *
batch_planner(Query *query, const char *source, int cursor_options, ParamListInfo params)
{
	PlannedStmt *statement = plan_query(query, source, cursor_options, params);
	PlanContext context = { .statement = statement };
	ListCell *cell;

	if (!bicycle_batching || (cursor_options & (CURSOR_OPT_SCROLL | CURSOR_OPT_FAST_PLAN)) != 0 ||
		!batch_functions_exist())
		return statement;

	find_last_node_id(statement->planTree, &context);
	foreach (cell, statement->subplans)
		find_last_node_id(lfirst(cell), &context);
	context.reading = BATCH_READ_BY_RUN;
	statement->planTree = rewrite(statement->planTree, NULL, &context);
	context.reading = BATCH_READ_ON;
	foreach (cell, statement->subplans)
		lfirst(cell) = rewrite(lfirst(cell), NULL, &context);
	return statement;
}

void
batch_init(void)
{
	RegisterCustomScanMethods(&batch_scan_methods);
	previous_planner = planner_hook;
	planner_hook = batch_planner;
	batch_exec_init();
}
