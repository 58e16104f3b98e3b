/*
 * fill.c
 *	  bicycle_fill: computes a column for the rows that lack it, chunk by chunk.
 *
 * R1 It goes through each leaf of the target once, by ctid, from its first
 *    block to what was its last when the call began. A position is where a
 *    ctid points, as one number. A row that this call has written is not
 *    visited where it lies now, which may be ahead: its transactions are kept.
 * R2 Each chunk is a transaction: find rows, lock those that nobody else has,
 *    update them, commit. Found and locked row are the same version, so that
 *    the condition holds for what is updated: one that was changed in between
 *    is left, as is one that is locked. What is found stays where it is,
 *    because the snapshot that saw it is kept until the chunk ends.
 * R3 What may fail runs in a subtransaction. On an error of an image (22P03,
 *    54000) it is rolled back and done in parts, down to the single row, which
 *    is bad: counted, and its reason noted. All other errors end the call; what
 *    was committed stays.
 * R4 A chunk has as many rows as the last ones say can be done in seconds, and
 *    fewer among bad rows.
 * R5 Calls of the engine are bulk work meanwhile, and errors of images are
 *    errors, whatever the session has set. Both belong to the transaction of a
 *    chunk, so nothing is left of them, however that ends.
 *
 * Memory: of the call, the context that it was called in, which outlives
 * commits; of a chunk, SPI's, which goes with SPI_finish.
 */
#include "pg/fill.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/invariant.h"

#define MAX_CHUNK 100000
#define FIRST_ROWS 8                    /* of the first chunk */
#define FEW_ROWS 32                     /* bad rows make no chunk smaller than this */
#define MAX_TIME (5 * USECS_PER_SEC)    /* of a chunk */
#define LONG_SEARCH (USECS_PER_SEC / 4) /* for the rows of one */
#define FIRST_SPAN ((uint64) 64 << 16)  /* positions of the first search: 64 blocks */
#define FEW_POSITIONS ((uint64) 1 << 16)
#define TELL_FIRST (5 * USECS_PER_SEC)
#define MAX_MOVED 100 /* tries of a chunk whose rows move between partitions */
#define REASON_BYTES 1000

PG_FUNCTION_INFO_V1(bicycle_fill);

typedef struct FillLeaf
{
	Oid oid;
	BlockNumber blocks; /* when the call began */
} FillLeaf;

/* Transactions that follow each other immediately. */
typedef struct FillXids
{
	TransactionId first;
	TransactionId last;
} FillXids;

typedef struct Fill
{
	MemoryContext memory;
	FillTarget target;
	int chunk;
	FillLeaf *leaves;
	int nleaves;
	uint64 blocks; /* of all of them */

	int leaf;           /* the one that is gone through */
	uint64 leaf_begins; /* blocks of those before it */
	uint64 position;    /* in it: the next one to be visited */
	uint64 span;        /* positions that the next search goes through */
	int rows;           /* that the next chunk may have */
	int moved;          /* tries of this chunk */
	FillXids *xids;     /* whose rows are not visited, in the order of transactions */
	int nxids, max_xids;

	FillCounts counts;
	char reason[REASON_BYTES]; /* of the first bad row; "" if there is none */
	TimestampTz began;
	TimestampTz tell_at;
} Fill;

/* What a chunk needs besides: its statements, and the rows it has found. */
typedef struct FillChunk
{
	Fill *fill;
	FillStatements statements;
	ItemPointerData *tids; /* found, then locked */
	int ntids;
	uint64 next; /* position after all that were found */
} FillChunk;

/* ---- Positions ----------------------------------------------------------- */

static uint64
position_of(const ItemPointerData *tid)
{
	return (uint64) ItemPointerGetBlockNumberNoCheck(tid) << 16 |
		   ItemPointerGetOffsetNumberNoCheck(tid);
}

static ItemPointerData
tid_at(uint64 position)
{
	ItemPointerData tid;

	ItemPointerSet(&tid, (BlockNumber) (position >> 16), (OffsetNumber) (position & 0xffff));
	return tid;
}

/* Position after the last of this leaf. */
static uint64
leaf_end(const Fill *fill)
{
	return (uint64) fill->leaves[fill->leaf].blocks << 16;
}

static uint64
blocks_done(const Fill *fill)
{
	return fill->leaf < fill->nleaves ? fill->leaf_begins + (fill->position >> 16) : fill->blocks;
}

/* ---- Our own transactions ------------------------------------------------ */

static void
add_xid(Fill *fill, TransactionId xid)
{
	FillXids *last = fill->nxids > 0 ? &fill->xids[fill->nxids - 1] : NULL;
	TransactionId next;

	if (last)
	{
		next = last->last;
		TransactionIdAdvance(next);
		if (xid == next)
		{
			last->last = xid;
			return;
		}
	}
	if (fill->nxids == fill->max_xids)
	{
		fill->max_xids = fill->max_xids > 0 ? 2 * fill->max_xids : 64;
		fill->xids = fill->xids
						 ? repalloc_huge(fill->xids, fill->max_xids * sizeof(FillXids))
						 : MemoryContextAlloc(fill->memory, fill->max_xids * sizeof(FillXids));
	}
	fill->xids[fill->nxids].first = fill->xids[fill->nxids].last = xid;
	fill->nxids++;
}

/* That of the chunk, and its subtransactions, which are younger. */
static void
add_own_xids(Fill *fill)
{
	TransactionId top = GetTopTransactionIdIfAny();
	TransactionId *children;
	int n = xactGetCommittedChildren(&children);

	if (!TransactionIdIsValid(top))
		return;
	add_xid(fill, top);
	for (int i = 0; i < n; i++)
		add_xid(fill, children[i]);
}

static bool
is_own_xid(const Fill *fill, TransactionId xid)
{
	int low = 0;
	int high = fill->nxids;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (TransactionIdPrecedes(xid, fill->xids[middle].first))
			high = middle;
		else if (TransactionIdFollows(xid, fill->xids[middle].last))
			low = middle + 1;
		else
			return true;
	}
	return false;
}

/* ---- Attempts ------------------------------------------------------------ */

static bool
is_of_image(int sqlstate)
{
	return sqlstate == ERRCODE_INVALID_BINARY_REPRESENTATION ||
		   sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/*
 * Runs a part of a chunk in a subtransaction, which is rolled back if it fails.
 * NULL if it succeeds; the error if it is one that `expected` says is dealt
 * with; others are raised.
 */
static ErrorData *
fill_attempt(void (*work)(FillChunk *, void *), FillChunk *chunk, void *arg,
			 bool (*expected)(int sqlstate))
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		work(chunk, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	if (error && !expected(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* ---- Bad rows ------------------------------------------------------------ */

static void
row_is_bad(FillChunk *chunk, const ItemPointerData *tid, const ErrorData *error)
{
	Fill *fill = chunk->fill;
	char *reason =
		error->detail ? psprintf("%s: %s", error->message, error->detail) : pstrdup(error->message);
	ParamListInfo params;

	fill->counts.bad++;
	if (fill->reason[0] == '\0')
		strlcpy(fill->reason, reason, pg_mbcliplen(reason, strlen(reason), REASON_BYTES - 1) + 1);
	if (chunk->statements.note == NULL)
		return;
	params = fill_params(3, fill->leaves[fill->leaf].oid);
	fill_param_tids(params, 2, tid, 1);
	fill_param(params, 3, TEXTOID, CStringGetTextDatum(reason));
	(void) fill_execute(chunk->statements.note, params, FILL_WRITES, NULL);
}

/* ---- Finding and locking ------------------------------------------------- */

static void
find_rows(FillChunk *chunk, void *arg)
{
	Fill *fill = chunk->fill;
	ItemPointerData from = tid_at(fill->position);
	ItemPointerData to = tid_at(chunk->next);
	ParamListInfo params = fill_params(4, fill->leaves[fill->leaf].oid);
	uint64 before = 0;
	uint64 rows;

	fill_param(params, 2, TIDOID, PointerGetDatum(&from));
	fill_param(params, 3, TIDOID, PointerGetDatum(&to));
	fill_param(params, 4, INT8OID, Int64GetDatum(fill->rows));
	rows = fill_execute(chunk->statements.find, params, FILL_READS_IN_ORDER, NULL);
	chunk->ntids = 0;
	for (uint64 i = 0; i < rows; i++)
	{
		bool isnull;
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		ItemPointer tid = (ItemPointer) DatumGetPointer(SPI_getbinval(row, desc, 1, &isnull));
		TransactionId xmin = DatumGetTransactionId(SPI_getbinval(row, desc, 2, &isnull));

		if (position_of(tid) < Max(before, fill->position) || position_of(tid) >= chunk->next)
			elog(ERROR, "rows to be filled come out of order");
		before = position_of(tid) + 1;
		if (!is_own_xid(fill, xmin))
			chunk->tids[chunk->ntids++] = *tid;
	}
	if (rows == (uint64) fill->rows)
		chunk->next = before;
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Finds the rows of the next positions. Where the condition cannot be had of
 * one of them, goes up to it only, and then over it.
 */
static void
find(FillChunk *chunk)
{
	Fill *fill = chunk->fill;
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz took;
	ErrorData *error;

	chunk->tids = palloc(fill->rows * sizeof(ItemPointerData));
	chunk->next = Min(fill->position + fill->span, leaf_end(fill));
	while ((error = fill_attempt(find_rows, chunk, NULL, is_of_image)) != NULL)
	{
		chunk->ntids = 0;
		if (chunk->next - fill->position == 1)
		{
			ItemPointerData tid = tid_at(fill->position);

			row_is_bad(chunk, &tid, error);
			return;
		}
		chunk->next = fill->position + (chunk->next - fill->position) / 2;
	}
	took = GetCurrentTimestamp() - began;
	if (took > LONG_SEARCH)
		fill->span = Max(fill->span / 2, FEW_POSITIONS);
	else if (chunk->ntids < fill->rows)
		fill->span = Min(fill->span * 2, (uint64) MaxBlockNumber << 16);
}

static int
compare_tids(const void *a, const void *b)
{
	return ItemPointerCompare((ItemPointer) a, (ItemPointer) b);
}

/*
 * Of the rows that were found, those that are locked for us as they were found.
 * Who was followed to a later version is somewhere else.
 */
static void
lock_rows(FillChunk *chunk, void *arg)
{
	ParamListInfo params = fill_params(2, chunk->fill->leaves[chunk->fill->leaf].oid);
	ItemPointerData *locked;
	uint64 rows;
	int kept = 0;

	fill_param_tids(params, 2, chunk->tids, chunk->ntids);
	rows = fill_execute(chunk->statements.lock, params, FILL_WRITES, NULL);
	locked = palloc(Max(rows, 1) * sizeof(ItemPointerData));
	for (uint64 i = 0; i < rows; i++)
	{
		bool isnull;

		locked[i] = *(ItemPointer) DatumGetPointer(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	qsort(locked, rows, sizeof(ItemPointerData), compare_tids);
	for (int i = 0; i < chunk->ntids; i++)
		if (bsearch(&chunk->tids[i], locked, rows, sizeof(ItemPointerData), compare_tids) != NULL)
			chunk->tids[kept++] = chunk->tids[i];
	chunk->fill->counts.locked += chunk->ntids - kept;
	chunk->ntids = kept;
}

static bool
is_of_moved_row(int sqlstate)
{
	return sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/*
 * False if a row has just left for another partition, which ends a statement
 * that wants to lock it: the chunk is to be tried again, under a snapshot that
 * has seen it go.
 */
static bool
lock(FillChunk *chunk)
{
	ErrorData *error = fill_attempt(lock_rows, chunk, NULL, is_of_moved_row);

	if (error == NULL)
	{
		chunk->fill->moved = 0;
		return true;
	}
	if (++chunk->fill->moved > MAX_MOVED)
		ReThrowError(error);
	chunk->ntids = 0;
	return false;
}

/* ---- Updating ------------------------------------------------------------ */

/*
 * A part of a chunk, and how far its UPDATE came: counted as rows are returned.
 */
typedef struct FillPart
{
	DestReceiver receiver; /* first, as this is what PostgreSQL knows of it */
	const ItemPointerData *tids;
	int n;
	int written;
	int still_null;
} FillPart;

static bool
count_row(TupleTableSlot *slot, DestReceiver *receiver)
{
	FillPart *part = (FillPart *) receiver;
	bool isnull;

	part->written++;
	if (DatumGetBool(slot_getattr(slot, 1, &isnull)))
		part->still_null++;
	return true;
}

static void
start_counting(DestReceiver *receiver, int operation, TupleDesc desc)
{
}

static void
end_counting(DestReceiver *receiver)
{
}

static void
update_part(FillChunk *chunk, void *arg)
{
	FillPart *part = arg;
	ParamListInfo params = fill_params(2, chunk->fill->leaves[chunk->fill->leaf].oid);

	fill_param_tids(params, 2, part->tids, part->n);
	(void) fill_execute(chunk->statements.update, params, FILL_WRITES, &part->receiver);
}

/* NULL if all of them were updated.  `written` is how many were in any case. */
static ErrorData *
try_update(FillChunk *chunk, const ItemPointerData *tids, int n, int *written)
{
	FillPart part = { .receiver = { .receiveSlot = count_row,
									.rStartup = start_counting,
									.rShutdown = end_counting,
									.rDestroy = end_counting,
									.mydest = DestNone },
					  .tids = tids,
					  .n = n };
	ErrorData *error = fill_attempt(update_part, chunk, &part, is_of_image);
	FillCounts *counts = &chunk->fill->counts;

	*written = part.written;
	if (error == NULL)
	{
		counts->done += part.written - part.still_null;
		counts->still_null += part.still_null;
		counts->suppressed += n - part.written;
	}
	return error;
}

/*
 * Updates rows, and those around the bad ones among them. Rows are written in
 * their order, so a row that fails is usually the one after those that were
 * written: these are done again, it by itself, and then what follows. That is
 * a guess, as triggers may suppress rows and statements end in triggers; where
 * it was wrong, rows are done by halves.
 */
static void
update_rows(FillChunk *chunk, const ItemPointerData *tids, int n, bool guess)
{
	while (n > 0)
	{
		int written;
		int64 bad = chunk->fill->counts.bad;
		ErrorData *error = try_update(chunk, tids, n, &written);
		int before;

		CHECK_FOR_INTERRUPTS();
		if (error == NULL)
			return;
		if (n == 1)
		{
			row_is_bad(chunk, tids, error);
			return;
		}
		guess = guess && written < n;
		before = guess ? written : n / 2;
		update_rows(chunk, tids, before, false);
		if (guess)
		{
			bad = chunk->fill->counts.bad;
			update_rows(chunk, tids + before, 1, false);
			before++;
			guess = chunk->fill->counts.bad > bad;
		}
		tids += before;
		n -= before;
	}
}

/*
 * How many rows the next chunk may have: as many as are done in time, and fewer
 * after bad ones, for which others were done more than once. Where there are
 * bad ones it grows slowly.
 */
static void
set_rows(Fill *fill, int n, bool bad, TimestampTz took)
{
	int rows = fill->rows;

	if (took > MAX_TIME)
		rows = Min(rows, Max(n, 1)) / 2;
	else if (bad)
		rows = Max(rows / 2, Min(rows, FEW_ROWS));
	else if (n == rows && took < MAX_TIME / 2)
		rows += fill->counts.bad > 0 ? FEW_ROWS / 4 : rows;
	fill->rows = Max(1, Min(rows, fill->chunk));
}

/* ---- A chunk ------------------------------------------------------------- */

static void
run_chunk(Fill *fill)
{
	FillChunk chunk = { .fill = fill };
	int64 bad = fill->counts.bad;
	TimestampTz began;

	fill_resolve(&fill->target, &chunk.statements);
	if (!fill_leaf_is_there(fill->target.relation, fill->leaves[fill->leaf].oid))
	{
		fill->position = leaf_end(fill);
		return;
	}
	find(&chunk);
	if (chunk.ntids > 0 && !lock(&chunk))
		return;
	fill->position = chunk.next;
	began = GetCurrentTimestamp();
	update_rows(&chunk, chunk.tids, chunk.ntids, true);
	if (chunk.ntids > 0)
		set_rows(fill, chunk.ntids, fill->counts.bad > bad, GetCurrentTimestamp() - began);
}

static void
set_in_chunk(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

static void
fill_chunk(Fill *fill)
{
	int nest;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	PushActiveSnapshot(GetTransactionSnapshot());
	nest = NewGUCNestLevel();
	set_in_chunk("bicycle.priority", "bulk");
	set_in_chunk("bicycle.on_error", "error");
	run_chunk(fill);
	AtEOXact_GUC(true, nest);
	PopActiveSnapshot();
	add_own_xids(fill);
	SPI_commit();
	SPI_finish();
}

/* ---- Telling ------------------------------------------------------------- */

static int
detail_of_counts(const Fill *fill)
{
	const FillCounts *c = &fill->counts;

	return errdetail("Bad: " INT64_FORMAT ". Locked by others: " INT64_FORMAT
					 ". Suppressed by triggers: " INT64_FORMAT ". Still null: " INT64_FORMAT
					 ".%s%s",
					 c->bad, c->locked, c->suppressed, c->still_null,
					 fill->reason[0] ? "\nThe first bad row: " : "", fill->reason);
}

/* Soon at first, then more and more rarely, as bicycle_wait does. */
static void
tell_fill(Fill *fill)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64 done = blocks_done(fill);
	int64 left;

	fill_slot_update(&fill->counts, done);
	if (now < fill->tell_at || done == 0)
		return;
	fill->tell_at = now + Min(Max((now - fill->began) / 10, USECS_PER_SEC), USECS_PER_MINUTE);
	left = fill_time_left(now - fill->began, done, fill->blocks) / USECS_PER_SEC;
	ereport(NOTICE,
			(errmsg_plural("filling \"%s\" of \"%s\": " INT64_FORMAT
						   " row, %d %% of the table, about " INT64_FORMAT ":%02d:%02d left",
						   "filling \"%s\" of \"%s\": " INT64_FORMAT
						   " rows, %d %% of the table, about " INT64_FORMAT ":%02d:%02d left",
						   fill->counts.done, fill->target.column_name, fill->target.name,
						   fill->counts.done, (int) (100 * done / fill->blocks), left / 3600,
						   (int) (left / 60 % 60), (int) (left % 60)),
			 detail_of_counts(fill)));
}

static void
tell_end(const Fill *fill)
{
	ereport(NOTICE,
			(errmsg_plural("filled \"%s\" of \"%s\": " INT64_FORMAT " row",
						   "filled \"%s\" of \"%s\": " INT64_FORMAT " rows", fill->counts.done,
						   fill->target.column_name, fill->target.name, fill->counts.done),
			 detail_of_counts(fill),
			 fill->counts.locked > 0
				 ? errhint("Call it again for rows that others have held or changed.")
				 : 0));
}

/* ---- The call ------------------------------------------------------------ */

static void
check_transaction(FunctionCallInfo fcinfo)
{
	bool atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
				  castNode(CallContext, fcinfo->context)->atomic;

	if (atomic || IsSubTransaction())
		ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
						errmsg("bicycle_fill cannot run where it cannot commit"),
						errdetail("It commits after each chunk of rows."),
						errhint("CALL it by itself: not in a transaction block, a function, or a "
								"block with an EXCEPTION clause.")));
	PreventCommandIfReadOnly("CALL bicycle_fill");
}

static void
refuse_null(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
}

static char *
text_argument(FunctionCallInfo fcinfo, int i, const char *name)
{
	char *words = text_to_cstring(PG_GETARG_TEXT_PP(i));

	fill_check_text(name, words);
	return words;
}

static void
read_arguments(FunctionCallInfo fcinfo, Fill *fill)
{
	FillTarget *target = &fill->target;

	refuse_null(fcinfo, 0, "target");
	target->relation = PG_GETARG_OID(0);
	target->name = fill_check_relation(target->relation, NULL);
	refuse_null(fcinfo, 1, "target_column");
	target->column_name = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	target->column = fill_find_column(target->relation, target->column_name);
	refuse_null(fcinfo, 2, "expression");
	target->expression = text_argument(fcinfo, 2, "expression");
	if (!PG_ARGISNULL(3))
		target->condition = text_argument(fcinfo, 3, "condition");
	refuse_null(fcinfo, 4, "chunk");
	fill->chunk = PG_GETARG_INT32(4);
	if (fill->chunk < 1 || fill->chunk > MAX_CHUNK)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("chunk must be between 1 and %d", MAX_CHUNK),
						errdetail("It is %d.", fill->chunk)));
	if (PG_ARGISNULL(5))
		return;
	target->error_column = fill_find_column(target->relation, NameStr(*PG_GETARG_NAME(5)));
	if (target->error_column == target->column)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("error_column must be another column than target_column")));
	fill_check_text_column(target->relation, target->error_column);
}

/*
 * What is wrong with the statements is said before anything is done, also where
 * there are no rows.
 */
static void
check_statements(const FillTarget *target)
{
	FillStatements statements;
	ParamListInfo params = fill_params(4, target->relation);

	fill_resolve(target, &statements);
	fill_param(params, 2, TIDOID, (Datum) 0);
	fill_param(params, 3, TIDOID, (Datum) 0);
	fill_param(params, 4, INT8OID, (Datum) 0);
	fill_check_statement(statements.find, params);
	fill_param(params, 2, TIDARRAYOID, (Datum) 0);
	fill_param(params, 3, TEXTOID, (Datum) 0);
	fill_check_statement(statements.lock, params);
	fill_check_statement(statements.update, params);
	if (statements.note)
		fill_check_statement(statements.note, params);
}

static void
measure_leaves(Fill *fill)
{
	List *leaves;
	ListCell *cell;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	PushActiveSnapshot(GetTransactionSnapshot());
	check_statements(&fill->target);
	leaves = fill_leaves(fill->target.relation);
	fill->leaves = MemoryContextAlloc(fill->memory, Max(list_length(leaves), 1) * sizeof(FillLeaf));
	foreach (cell, leaves)
	{
		FillLeaf *leaf = &fill->leaves[fill->nleaves++];
		Relation table = relation_open(lfirst_oid(cell), NoLock);

		leaf->oid = lfirst_oid(cell);
		leaf->blocks = RelationGetNumberOfBlocks(table);
		fill->blocks += leaf->blocks;
		relation_close(table, NoLock);
	}
	PopActiveSnapshot();
	SPI_commit();
	SPI_finish();
}

static void
fill_leaves_in_turn(Fill *fill)
{
	for (; fill->leaf < fill->nleaves; fill->leaf++)
	{
		fill->position = 0;
		fill->span = FIRST_SPAN;
		while (fill->position < leaf_end(fill))
		{
			fill_chunk(fill);
			tell_fill(fill);
			CHECK_FOR_INTERRUPTS();
		}
		fill->leaf_begins += fill->leaves[fill->leaf].blocks;
	}
}

/*
 * bicycle_fill(target regclass, target_column name, expression text, condition
 * text DEFAULT NULL, chunk int DEFAULT 256, error_column name DEFAULT NULL): a
 * procedure
 */
Datum
bicycle_fill(PG_FUNCTION_ARGS)
{
	Fill fill = { .memory = CurrentMemoryContext };

	check_transaction(fcinfo);
	read_arguments(fcinfo, &fill);
	fill.rows = Min(FIRST_ROWS, fill.chunk);
	fill.began = GetCurrentTimestamp();
	fill.tell_at = fill.began + TELL_FIRST;
	measure_leaves(&fill);
	fill_slot_take(fill.target.relation, fill.target.column_name, fill.blocks);
	PG_TRY();
	{
		fill_leaves_in_turn(&fill);
	}
	PG_FINALLY();
	{
		fill_slot_release(0, (Datum) 0);
	}
	PG_END_TRY();
	tell_end(&fill);
	return (Datum) 0;
}
