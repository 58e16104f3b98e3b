/*
 * fill_target.c
 *	  What bicycle_fill fills: the table and its columns, the caller's
 *	  expression and condition, and the statements that are made of them.
 *
 * R1 Table and columns are kept as numbers, and have the names of the moment:
 *    each chunk asks anew, under a lock that keeps them until it ends.
 * R2 What the caller wrote is parsed alone, and must be one expression. So
 *    nothing in it can end the statement that it is put into. It stands between
 *    parentheses on lines of its own, where no comment reaches the closing one.
 * R3 What the caller wrote sees his search_path. What is ours does not depend
 *    on it: operators are qualified, names quoted.
 * R4 The condition stands as (...) IS TRUE, which the planner does not turn
 *    into a join: fill_statement.c needs a scan of the table alone.
 *
 * All memory is the current context's.
 */
#include "pg/fill.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---- Expression and condition -------------------------------------------- */

typedef struct FillText
{
	const char *argument;
	const char *words;
} FillText;

/* Shows where in the text the parser has stopped, and not where in the CALL. */
static void
point_into_text(void *arg)
{
	const FillText *what = arg;
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(what->words);
	}
	errcontext("argument \"%s\" of bicycle_fill", what->argument);
}

static bool
refuse_parameters(Node *node, void *unused)
{
	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PARAMETER),
						errmsg("there is no parameter $%d", castNode(ParamRef, node)->number),
						errhint("Write the value itself, by format('%%L', value).")));
	return raw_expression_tree_walker(node, refuse_parameters, unused);
}

/* A column that stands for several: "*" or "t.*". */
static bool
is_star(const Node *node)
{
	return IsA(node, ColumnRef) && IsA(llast(((const ColumnRef *) node)->fields), A_Star);
}

static bool
is_one_expression(const SelectStmt *select)
{
	const ResTarget *target;

	if (list_length(select->targetList) != 1 || select->distinctClause != NIL ||
		select->intoClause != NULL || select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL || select->windowClause != NIL ||
		select->valuesLists != NIL || select->sortClause != NIL || select->limitOffset != NULL ||
		select->limitCount != NULL || select->lockingClause != NIL || select->withClause != NULL ||
		select->op != SETOP_NONE)
		return false;
	target = linitial_node(ResTarget, select->targetList);
	return target->name == NULL && target->indirection == NIL && !is_star(target->val);
}

void
fill_check_text(const char *argument, const char *words)
{
	FillText what = { argument, words };
	ErrorContextCallback callback = { error_context_stack, point_into_text, &what };
	RawStmt *statement;

	error_context_stack = &callback;
	statement = linitial_node(RawStmt, raw_parser(words, RAW_PARSE_PLPGSQL_EXPR));
	if (!IsA(statement->stmt, SelectStmt) || !is_one_expression((SelectStmt *) statement->stmt))
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
						errmsg("argument \"%s\" must be one expression", argument),
						errdetail("It is: %s", words),
						errhint("Write what could stand in parentheses in an UPDATE of the "
								"table.")));
	(void) refuse_parameters(statement->stmt, NULL);
	error_context_stack = callback.previous;
}

/* ---- The table ----------------------------------------------------------- */

static void
refuse_relation(const char *name, char kind)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("bicycle_fill cannot fill \"%s\"", name), errdetail_relkind_not_supported(kind),
			 errhint("Fill the table itself that has the rows.")));
}

static void
refuse_temporary(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("bicycle_fill cannot fill \"%s\"", name), errdetail("It is a temporary table."),
			 errhint("Use UPDATE: nobody else needs its rows meanwhile.")));
}

static void
relation_is_gone(Oid relation, const char *name)
{
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relation)));
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
					errmsg("relation \"%s\" does not exist any more", name),
					errdetail("It was dropped while bicycle_fill was at work.")));
}

/* Nothing is locked yet: all is asked of one row, as the next may be gone. */
char *
fill_check_relation(Oid relation, const char *name)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class row;
	char *present;
	char kind, persistence;

	if (!HeapTupleIsValid(tuple))
		relation_is_gone(relation, name);
	row = (Form_pg_class) GETSTRUCT(tuple);
	present = pstrdup(NameStr(row->relname));
	kind = row->relkind;
	persistence = row->relpersistence;
	ReleaseSysCache(tuple);
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_relation(present, kind);
	if (persistence == RELPERSISTENCE_TEMP)
		refuse_temporary(present);
	return present;
}

AttrNumber
fill_find_column(Oid relation, const char *name)
{
	AttrNumber number = get_attnum(relation, name);

	if (number == InvalidAttrNumber)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of relation \"%s\" does not exist", name,
							   get_rel_name(relation))));
	if (number < 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot assign to system column \"%s\"", name)));
	return number;
}

void
fill_check_text_column(Oid relation, AttrNumber number)
{
	Oid type = get_atttype(relation, number);
	char category;
	bool preferred;

	get_type_category_preferred(type, &category, &preferred);
	if (category != TYPCATEGORY_STRING)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("error_column must be of a text type"),
				 errdetail("Column \"%s\" has type %s.", get_attname(relation, number, false),
						   format_type_be(type))));
}

/*
 * Whoever may not write the column must not keep others from the table, either,
 * so this is asked before the lock is.
 */
static void
check_may_fill(const FillTarget *target)
{
	Oid relation = target->relation;
	bool gone = false;

	if (pg_class_aclcheck_ext(relation, GetUserId(), ACL_UPDATE, &gone) == ACLCHECK_OK ||
		pg_attribute_aclcheck_ext(relation, target->column, GetUserId(), ACL_UPDATE, &gone) ==
			ACLCHECK_OK)
		return;
	if (gone)
		return; /* as whoever opens it finds out */
	aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, target->name);
}

List *
fill_leaves(Oid relation)
{
	List *leaves = NIL;
	ListCell *cell;

	foreach (cell, find_all_inheritors(relation, AccessShareLock, NULL))
	{
		Oid member = lfirst_oid(cell);
		char kind = get_rel_relkind(member);

		if (get_rel_persistence(member) == RELPERSISTENCE_TEMP)
		{
			if (isTempNamespace(get_rel_namespace(member)))
				refuse_temporary(get_rel_name(member));
		}
		else if (kind == RELKIND_RELATION)
			leaves = lappend_oid(leaves, member);
		else if (kind != RELKIND_PARTITIONED_TABLE)
			refuse_relation(get_rel_name(member), kind);
	}
	return leaves;
}

bool
fill_leaf_is_there(Oid relation, Oid leaf)
{
	return leaf == relation || list_member_oid(find_all_inheritors(relation, NoLock, NULL), leaf);
}

/* ---- Statements ---------------------------------------------------------- */

static const char *
column_name(Relation table, AttrNumber number)
{
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), number - 1);

	if (column->attisdropped)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("a column of \"%s\" that bicycle_fill needs does not exist any more",
							   RelationGetRelationName(table)),
						errdetail("It was column %d, and has been dropped meanwhile.", number)));
	return quote_identifier(NameStr(column->attname));
}

/* An explicit cast, which cuts a reason off where the column is too short. */
static const char *
column_type(Relation table, AttrNumber number)
{
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), number - 1);

	return format_type_extended(column->atttypid, column->atttypmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static void
make_statements(const FillTarget *target, Relation table, FillStatements *out)
{
	const char *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
												  RelationGetRelationName(table));
	const char *column = column_name(table, target->column);
	const char *error = target->error_column ? column_name(table, target->error_column) : NULL;
	const char *left = error ? psprintf(" AND %s IS NULL", error) : "";
	const char *condition =
		target->condition ? psprintf(" AND (\n%s\n) IS TRUE", target->condition) : "";

#define AT_TIDS " WHERE tableoid OPERATOR(pg_catalog.=) $1 AND ctid OPERATOR(pg_catalog.=) ANY ($2)"
	out->find = psprintf("SELECT ctid, xmin FROM %s WHERE tableoid OPERATOR(pg_catalog.=) $1"
						 " AND ctid OPERATOR(pg_catalog.>=) $2 AND ctid OPERATOR(pg_catalog.<) $3"
						 " AND %s IS NULL%s%s LIMIT $4",
						 name, column, left, condition);
	out->lock = psprintf("SELECT ctid FROM %s" AT_TIDS " AND %s IS NULL%s FOR UPDATE SKIP LOCKED",
						 name, column, left);
	out->update =
		psprintf("UPDATE %s SET %s = (\n%s\n)" AT_TIDS " AND %s IS NULL%s RETURNING %s IS NULL",
				 name, column, target->expression, column, left, column);
	out->note = error
					? psprintf("UPDATE %s SET %s = CAST($3 AS %s)" AT_TIDS " AND %s IS NULL%s",
							   name, error, column_type(table, target->error_column), column, left)
					: NULL;
#undef AT_TIDS
}

void
fill_resolve(const FillTarget *target, FillStatements *out)
{
	Relation table;

	(void) fill_check_relation(target->relation, target->name);
	check_may_fill(target);
	table = try_table_open(target->relation, RowExclusiveLock);
	if (table == NULL)
		relation_is_gone(target->relation, target->name);
	make_statements(target, table, out);
	table_close(table, NoLock);
}
