/*
 * bad_images.c
 *	  Images that cannot be used and give NULL, counted by statement.
 *
 * With bicycle.on_error = null such an image gives NULL, and its statement ends
 * with a WARNING that says how many there were, and what was wrong with the
 * first.
 *
 * R1 A statement is what the client sent. What runs inside it, however deep, is
 *    counted with it: the executor's hooks and that of utility commands count
 *    how deep they are in each other, and the outermost reports when it ends.
 * R2 A SELECT is reported at the end of each ExecutorRun, so of a cursor each
 *    FETCH says what it has met. What writes is reported at the end of
 *    ExecutorFinish, behind its triggers.
 * R3 What ends with an error takes its counts with it.
 * R4 Parallel workers are statements of their own, which the client hears of;
 *    but what a BicycleBatch node counts there is added to the leader's
 *    (batch_exec.c).
 * R5 What is computed outside of both, as by a deferred trigger or a fast-path
 *    call, is reported when the transaction commits.
 *
 * State is of this process, in static memory.
 */
#include "pg/bad_images.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "optimizer/planner.h"
#include "tcop/utility.h"

#include "common/invariant.h"

static BadImages statement;
static int depth = 0;    /* executors and utility commands in each other */
static int planning = 0; /* planners in each other */

static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* ---- Counting ------------------------------------------------------------ */

bool
bad_images_give_null(void)
{
	return bicycle_on_error == BICYCLE_ON_ERROR_NULL && planning == 0;
}

/* What is known is not said again. */
static void
add_reason(BadImages *to, const char *reason)
{
	for (int i = 0; i < to->nreasons; i++)
		if (strcmp(to->reasons[i], reason) == 0)
			return;
	if (to->nreasons < BAD_REASONS)
		strlcpy(to->reasons[to->nreasons++], reason, BAD_REASON_BYTES);
}

void
bad_images_count(BadImages *to, const char *place, const char *message, const char *detail)
{
	char *reason;
	int length;

	if (to == NULL)
		to = &statement;
	to->count++;
	if (to->nreasons >= BAD_REASONS)
		return;
	reason = psprintf("%s%s%s%s%s", place ? place : "", place ? ": " : "", message,
					  detail ? ": " : ".", detail ? detail : "");
	length = pg_mbcliplen(reason, strlen(reason), BAD_REASON_BYTES - 1);
	reason[length] = '\0';
	add_reason(to, reason);
	pfree(reason);
}

void
bad_images_add(BadImages *to, const BadImages *from)
{
	if (to == NULL)
		to = &statement;
	to->count += from->count;
	for (int i = 0; i < from->nreasons; i++)
		add_reason(to, from->reasons[i]);
}

static void
statement_forget(void)
{
	statement.count = 0;
	statement.nreasons = 0;
}

static void
statement_report(void)
{
	StringInfoData reasons;
	int64 count = statement.count;

	if (count == 0)
		return;
	initStringInfo(&reasons);
	for (int i = 0; i < statement.nreasons; i++)
		appendStringInfo(&reasons, "%s%s", i > 0 ? "\n" : "", statement.reasons[i]);
	if (count > statement.nreasons && statement.nreasons == BAD_REASONS)
		appendStringInfoString(&reasons, "\n...");
	statement_forget(); /* first: the client may be gone */
	ereport(WARNING, (errmsg_plural("%lld image could not be used and gave NULL",
									"%lld images could not be used and gave NULL",
									(unsigned long) count, (long long) count),
					  errdetail_internal("%s", reasons.data),
					  errhint("bicycle_check tells what is wrong with an image. With "
							  "bicycle.on_error = error the first such image is an error.")));
	pfree(reasons.data);
}

/* ---- Statements ---------------------------------------------------------- */

typedef struct Level
{
	int depth;
	int64 count;
	int nreasons;
} Level;

static Level
level_enter(void)
{
	return (Level){ depth++, statement.count, statement.nreasons };
}

/* R3: also of those who did not come back. */
static void
level_fail(const Level *level)
{
	INVARIANT(level->depth < depth && level->nreasons <= BAD_REASONS);
	depth = level->depth;
	statement.count = level->count;
	statement.nreasons = level->nreasons;
}

static void
level_leave(const Level *level, bool ends)
{
	INVARIANT(level->depth == depth - 1);
	depth = level->depth;
	if (depth == 0 && ends)
		statement_report();
}

static void
statement_run(QueryDesc *query, ScanDirection direction, uint64 count BICYCLE_EXECUTE_ONCE)
{
	bool ends = query->operation == CMD_SELECT && !query->plannedstmt->hasModifyingCTE;
	Level level = level_enter();

	PG_TRY();
	{
		if (previous_run != NULL)
			previous_run(query, direction, count BICYCLE_PASS_EXECUTE_ONCE);
		else
			standard_ExecutorRun(query, direction, count BICYCLE_PASS_EXECUTE_ONCE);
	}
	PG_CATCH();
	{
		level_fail(&level);
		PG_RE_THROW();
	}
	PG_END_TRY();
	level_leave(&level, ends);
}

static void
statement_finish(QueryDesc *query)
{
	Level level = level_enter();

	PG_TRY();
	{
		if (previous_finish != NULL)
			previous_finish(query);
		else
			standard_ExecutorFinish(query);
	}
	PG_CATCH();
	{
		level_fail(&level);
		PG_RE_THROW();
	}
	PG_END_TRY();
	level_leave(&level, true);
}

static void
statement_utility(PlannedStmt *planned, const char *source, bool read_only_tree,
				  ProcessUtilityContext context, ParamListInfo params,
				  QueryEnvironment *environment, DestReceiver *receiver,
				  QueryCompletion *completion)
{
	Level level = level_enter();

	PG_TRY();
	{
		if (previous_utility != NULL)
			previous_utility(planned, source, read_only_tree, context, params, environment,
							 receiver, completion);
		else
			standard_ProcessUtility(planned, source, read_only_tree, context, params, environment,
									receiver, completion);
	}
	PG_CATCH();
	{
		level_fail(&level);
		PG_RE_THROW();
	}
	PG_END_TRY();
	level_leave(&level, true);
}

static void
statement_transaction(XactEvent event, void *unused)
{
	if (depth > 0)
		return; /* COMMIT or ROLLBACK in a procedure, or an error on its way to level_fail */
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			statement_report();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			statement_forget();
			break;
		default:
			break;
	}
}

void
bad_images_planning(void)
{
	planning++;
}

void
bad_images_planned(void)
{
	INVARIANT(planning > 0);
	planning--;
}

void
bad_images_init(void)
{
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = statement_run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = statement_finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = statement_utility;
	RegisterXactCallback(statement_transaction, NULL);
}
