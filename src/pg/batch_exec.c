/*
 * batch_exec.c
 *	  The node that batch_plan.c puts into plans: reads rows ahead and has the
 *	  engine work on all of them at once.
 *
 * R1 Work goes in rounds. A round reads rows from the child until the node
 *    holds as many as it may, or bytes of images enough, and submits every call
 *    of every row. Rows are handed out in their order.
 * R2 Rounds grow 1, 2, 4 ... rows up to bicycle.prefetch calls: who stops after
 *    a few rows has not paid for many. A round waits until all its calls are
 *    answered, and the next begins when its rows have been handed out. So
 *    nothing is left with the engine between two rows, and a portal that is
 *    never read to its end holds no place in its queue.
 * R3 Where all rows are read without a stop (batch_plan.c R7) rounds begin
 *    full, and the next when half of the rows have been handed out: the engine
 *    is never without work. Then a row waits for its own calls only.
 * R4 An answer that is an error is raised, or gives NULL and is counted, when
 *    its row is handed out, not before: an image of a row that nobody fetches
 *    cannot fail. So is an image that is too large to be sent. What its
 *    arguments fail with (their evaluation, a latent code, a model's name) is
 *    raised when the row is read ahead: an error that is caught without a
 *    subtransaction leaves what it held.
 * R5 What workers count lies in the segment that they share with the leader,
 *    which adds it to its statement before that segment goes.
 *
 * Memory: rows are minimal tuples that keep TOAST pointers; an image is fetched
 * when it is submitted, and its copy is the call's. What submitting needs
 * besides lies in a context that the next round resets. A call is freed when
 * its row is handed out, by End and ReScan, or by its resource owner.
 */
#include "pg/batch.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include BICYCLE_EXPLAIN_FORMAT_H
#include BICYCLE_EXPLAIN_STATE_H
#include "executor/executor.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "common/invariant.h"
#include "pg/bad_images.h"
#include "pg/image_call.h"

/* ---- Runs to the end ----------------------------------------------------- */

static ExecutorRun_hook_type previous_run = NULL;

/*
 * The executor that now runs its plan to the end, for who takes rows at once.
 */
static const EState *whole_run = NULL;

/* Not those to whom rows are sent: they may read them when they like. */
static bool
takes_at_once(const DestReceiver *dest)
{
	return dest->mydest == DestIntoRel || dest->mydest == DestTransientRel ||
		   dest->mydest == DestTuplestore || dest->mydest == DestSPI;
}

static void
batch_run_plan(QueryDesc *query, ScanDirection direction, uint64 count BICYCLE_EXECUTE_ONCE)
{
	const EState *outer = whole_run;

	whole_run =
		count == 0 && query->dest != NULL && takes_at_once(query->dest) ? query->estate : NULL;
	PG_TRY();
	{
		if (previous_run != NULL)
			previous_run(query, direction, count BICYCLE_PASS_EXECUTE_ONCE);
		else
			standard_ExecutorRun(query, direction, count BICYCLE_PASS_EXECUTE_ONCE);
	}
	PG_FINALLY();
	{
		whole_run = outer;
	}
	PG_END_TRY();
}

void
batch_exec_init(void)
{
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = batch_run_plan;
}

/* ---- The node's state ---------------------------------------------------- */

typedef struct BatchCall
{
	const BatchKind *kind;
	Oid function;
	int column[BATCH_MAX_ARGUMENTS]; /* of the child, from 1 */
	Model *model; /* the last that was looked up in this round; NULL before the first */
	BatchArguments model_arguments; /* the name and version that it was looked up by */
} BatchCall;

typedef struct BatchRow
{
	TupleTableSlot *slot;
	int64 number; /* from 1 */
	Size bytes;   /* of its images */
	Call **open;  /* one for each call; NULL: its result is NULL, or it has been handed out */
	Model *models;
	bool *too_large; /* it was not opened, because its image is */
} BatchRow;

/* What workers have met; in the segment that they share with the leader. */
typedef struct BatchShared
{
	slock_t mutex;
	int64 failed;
	BadImages bad;
} BatchShared;

typedef struct BatchState
{
	CustomScanState css;
	int ncalls;
	BatchCall *calls;
	BatchRow *rows; /* a ring of `capacity` */
	int capacity;
	int nrows;    /* that are held: read, and not yet handed out */
	int next;     /* of the ring: the row that is handed out next */
	BatchRow *at; /* the row that an error is about */
	int64 read;   /* rows */
	Size bytes;   /* of the images of rows that are held */
	BatchReading reading;
	bool ahead;    /* R3 */
	int row_limit; /* rows that may be held */
	bool child_done;
	int place_column;        /* of the child: where a row lies in its table; 0: unknown */
	const char *place_table; /* its name */
	int64 failed;         /* images that could not be used; in the leader, also those of workers */
	BatchShared *shared;  /* NULL: there are no workers, or they have been counted */
	bool worker;          /* this is one */
	MemoryContext memory; /* of a round */
} BatchState;

/*
 * What EXPLAIN ANALYZE shows of a node, counted in fields of its
 * Instrumentation, to which PostgreSQL adds those of parallel workers; a node
 * without conditions has no other use for them.
 */
#define COUNTED_IMAGES nfiltered1
#define COUNTED_ROUNDS nfiltered2
#define COUNTED_WAIT ntuples2 /* ms */

static Node *batch_create(CustomScan *scan);
static void batch_begin(CustomScanState *node, EState *estate, int flags);
static TupleTableSlot *batch_exec(CustomScanState *node);
static void batch_end(CustomScanState *node);
static void batch_rescan(CustomScanState *node);
static Size batch_estimate(CustomScanState *node, ParallelContext *context);
static void batch_share(CustomScanState *node, ParallelContext *context, void *shared);
static void batch_share_again(CustomScanState *node, ParallelContext *context, void *shared);
static void batch_begin_worker(CustomScanState *node, shm_toc *toc, void *shared);
static void batch_shutdown(CustomScanState *node);
static void batch_explain(CustomScanState *node, List *ancestors, ExplainState *es);

const CustomScanMethods batch_scan_methods = { .CustomName = "BicycleBatch",
											   .CreateCustomScanState = batch_create };

static const CustomExecMethods batch_exec_methods = { .CustomName = "BicycleBatch",
													  .BeginCustomScan = batch_begin,
													  .ExecCustomScan = batch_exec,
													  .EndCustomScan = batch_end,
													  .ReScanCustomScan = batch_rescan,
													  .EstimateDSMCustomScan = batch_estimate,
													  .InitializeDSMCustomScan = batch_share,
													  .ReInitializeDSMCustomScan =
														  batch_share_again,
													  .InitializeWorkerCustomScan =
														  batch_begin_worker,
													  .ShutdownCustomScan = batch_shutdown,
													  .ExplainCustomScan = batch_explain };

static Node *
batch_create(CustomScan *scan)
{
	BatchState *state = (BatchState *) newNode(sizeof(BatchState), T_CustomScanState);

	state->css.methods = &batch_exec_methods;
	return (Node *) state;
}

/* What the executor does for a function that it calls itself. */
static void
check_execute(Oid function)
{
	AclResult result = bicycle_function_aclcheck(function, GetUserId());

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static void
begin_calls(BatchState *state, List *functions_called, List *columns)
{
	ListCell *function;
	ListCell *list;
	BatchCall *call;

	state->ncalls = list_length(functions_called);
	state->calls = palloc0(state->ncalls * sizeof(BatchCall));
	call = state->calls;
	forboth(function, functions_called, list, columns)
	{
		ListCell *column;
		int i = 0;

		call->function = lfirst_oid(function);
		call->kind = batch_kind_of(call->function);
		if (call->kind == NULL)
			elog(ERROR, "function %u of a batch is unknown", call->function);
		check_execute(call->function);
		foreach (column, (List *) lfirst(list))
			call->column[i++] = lfirst_int(column);
		call++;
	}
}

/* Most rows that may be held. */
static int
row_window(const BatchState *state)
{
	return Max(image_window() / state->ncalls, 1);
}

static void
begin_rounds(BatchState *state)
{
	state->nrows = state->next = 0;
	state->read = 0;
	state->bytes = 0;
	state->child_done = false;
	state->row_limit = 0;
}

/* Before the first row is read. */
static void
begin_reading(BatchState *state)
{
	state->ahead = state->reading == BATCH_READ_WHOLE ||
				   (state->reading == BATCH_READ_BY_RUN && state->css.ss.ps.state == whole_run);
	state->row_limit = state->ahead ? row_window(state) : 1;
}

static void
batch_begin(CustomScanState *node, EState *estate, int flags)
{
	BatchState *state = (BatchState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	begin_calls(state, linitial(scan->custom_private), lsecond(scan->custom_private));
	state->reading = (BatchReading) intVal(list_nth(scan->custom_private, 4));
	state->place_column = intVal(lthird(scan->custom_private));
	if (state->place_column > 0)
		state->place_table = get_rel_name(linitial_oid(lfourth(scan->custom_private)));
	outerPlanState(node) = ExecInitNode(
		outerPlan(scan), estate, flags & ~(EXEC_FLAG_REWIND | EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK));
	state->memory =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle batch", ALLOCSET_DEFAULT_SIZES);
	begin_rounds(state);
}

/* ---- Images that cannot be used ------------------------------------------ */

/* Where the row lies that is at work, for people. */
static char *
row_place(BatchState *state)
{
	bool isnull = true;
	ItemPointer tid = NULL;

	if (state->place_table != NULL)
		tid = (ItemPointer) DatumGetPointer(
			slot_getattr(state->at->slot, state->place_column, &isnull));
	if (isnull)
		return psprintf("row " INT64_FORMAT " of a BicycleBatch node", state->at->number);
	return psprintf("row with ctid (%u,%u) of table \"%s\"", ItemPointerGetBlockNumber(tid),
					ItemPointerGetOffsetNumber(tid), state->place_table);
}

static void
row_context(void *state)
{
	errcontext("%s", row_place(state));
}

/* Counts an image here, and where its statement is. */
static void
count_failed(BatchState *state, const BadImages *bad)
{
	state->failed++;
	if (!state->worker)
		bad_images_add(NULL, bad);
	else if (state->shared != NULL)
	{
		SpinLockAcquire(&state->shared->mutex);
		state->shared->failed++;
		bad_images_add(&state->shared->bad, bad);
		SpinLockRelease(&state->shared->mutex);
	}
}

static Size
batch_estimate(CustomScanState *node, ParallelContext *context)
{
	return sizeof(BatchShared);
}

static void
batch_share(CustomScanState *node, ParallelContext *context, void *memory)
{
	BatchState *state = (BatchState *) node;
	BatchShared *shared = memory;

	memset(shared, 0, sizeof(*shared));
	SpinLockInit(&shared->mutex);
	state->shared = shared;
}

static void
batch_begin_worker(CustomScanState *node, shm_toc *toc, void *memory)
{
	BatchState *state = (BatchState *) node;

	state->shared = memory;
	state->worker = true;
}

/* In the leader: what workers have counted since it was last asked. */
static void
count_workers(BatchState *state)
{
	BatchShared *shared = state->shared;
	int64 failed;
	BadImages bad;

	if (shared == NULL || state->worker)
		return;
	SpinLockAcquire(&shared->mutex);
	failed = shared->failed;
	bad = shared->bad;
	shared->failed = shared->bad.count = shared->bad.nreasons = 0;
	SpinLockRelease(&shared->mutex);
	state->failed += failed;
	bad_images_add(NULL, &bad);
}

static void
batch_share_again(CustomScanState *node, ParallelContext *context, void *memory)
{
	count_workers((BatchState *) node);
}

/* The segment goes next; workers have ended, or what they do is not wanted. */
static void
batch_shutdown(CustomScanState *node)
{
	BatchState *state = (BatchState *) node;

	count_workers(state);
	if (!state->worker)
		state->shared = NULL;
}

/* ---- A round ------------------------------------------------------------- */

/* The i-th of the rows that are held. */
static BatchRow *
held_row(const BatchState *state, int i)
{
	INVARIANT(0 <= i && i < state->capacity);
	return &state->rows[(state->next + i) % state->capacity];
}

static void
free_open(BatchState *state)
{
	for (int i = 0; i < state->nrows; i++)
		for (int k = 0; k < state->ncalls; k++)
		{
			BatchRow *row = held_row(state, i);

			if (row->open[k] != NULL)
				call_free(row->open[k]);
			row->open[k] = NULL;
		}
}

/*
 * Room for as many rows as may be held, or as there are places while the ring
 * is not empty; slots are kept from round to round.
 */
static void
reserve_rows(BatchState *state)
{
	EState *estate = state->css.ss.ps.state;
	MemoryContext old;

	if (state->nrows > 0)
		state->row_limit = Min(state->row_limit, state->capacity);
	if (state->row_limit <= state->capacity)
		return;
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	state->rows = state->rows == NULL ? palloc(state->row_limit * sizeof(BatchRow))
									  : repalloc(state->rows, state->row_limit * sizeof(BatchRow));
	for (; state->capacity < state->row_limit; state->capacity++)
	{
		BatchRow *row = &state->rows[state->capacity];

		row->slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(state)),
										   &TTSOpsMinimalTuple);
		row->open = palloc0(state->ncalls * sizeof(Call *));
		row->models = palloc0(state->ncalls * sizeof(Model));
		row->too_large = palloc0(state->ncalls * sizeof(bool));
	}
	MemoryContextSwitchTo(old);
	state->next = 0;
}

/*
 * Whether the arguments that name the model, the last ones, are what they were.
 */
static bool
same_names(const BatchKind *kind, const BatchArguments *a, const BatchArguments *b)
{
	for (int i = kind->model; i < kind->nargs; i++)
	{
		if (a->isnull[i] != b->isnull[i])
			return false;
		if (!a->isnull[i] &&
			(kind->types[i] == TEXTOID
				 ? strcmp(TextDatumGetCString(a->value[i]), TextDatumGetCString(b->value[i])) != 0
				 : a->value[i] != b->value[i]))
			return false;
	}
	return true;
}

static Model *
find_model_named(const BatchKind *kind, const BatchArguments *arguments)
{
	int name = kind->model;
	int version = kind->versioned ? DatumGetInt32(arguments->value[name + 1]) : 0;

	return model_lookup(arguments->isnull[name] ? NULL : DatumGetTextPP(arguments->value[name]),
						kind->versioned ? &version : NULL);
}

/*
 * The model that the arguments name; looked up again, as the caller, each time
 * they change.
 */
static Model *
call_model(BatchCall *call, const BatchArguments *arguments)
{
	if (call->kind->model == BATCH_NO_MODEL)
		return NULL;
	if (call->model != NULL && same_names(call->kind, arguments, &call->model_arguments))
		return call->model;
	call->model = call->kind->find != NULL ? call->kind->find(arguments)
										   : find_model_named(call->kind, arguments);
	call->model_arguments = *arguments;
	return call->model;
}

/* Submits one call of the row that is at work. */
static void
submit(BatchState *state, int k)
{
	BatchRow *row = state->at;
	BatchCall *call = &state->calls[k];
	const BatchKind *kind = call->kind;
	BatchArguments arguments = { 0 };
	bytea *image = NULL;
	Model *model;
	Instrumentation *counted = state->css.ss.ps.instrument;
	ErrorContextCallback context = { .callback = row_context, .arg = state };

	row->too_large[k] = false;
	for (int i = 0; i < kind->nargs; i++)
	{
		arguments.value[i] = slot_getattr(row->slot, call->column[i], &arguments.isnull[i]);
		if (arguments.isnull[i] && i < kind->required)
			return;
	}
	for (int i = 0; i < kind->images; i++)
		row->too_large[k] |= image_too_large(arguments.value[i]);
	if (!row->too_large[k])
		image = DatumGetByteaPP(arguments.value[0]);
	if ((model = call_model(call, &arguments)) != NULL)
		row->models[k] = *model;
	context.previous = error_context_stack;
	error_context_stack = &context; /* errors from here on are about the row */
	row->open[k] = kind->submit(model, kind->versioned, image, &arguments);
	error_context_stack = context.previous;
	if (counted != NULL && row->open[k] != NULL)
		counted->COUNTED_IMAGES++;
	for (int i = 0; image != NULL && i < kind->images; i++)
		row->bytes += toast_raw_datum_size(arguments.value[i]);
}

/* Reads rows and submits their calls; false if there were none. */
static bool
fill_round(BatchState *state)
{
	int held = state->nrows;

	reserve_rows(state);
	while (state->nrows < state->row_limit &&
		   (state->nrows == 0 || state->bytes < IMAGE_WINDOW_BYTES))
	{
		TupleTableSlot *slot = ExecProcNode(outerPlanState(state));
		MemoryContext old;

		if (TupIsNull(slot))
		{
			state->child_done = true;
			break;
		}
		state->at = held_row(state, state->nrows);
		ExecCopySlot(state->at->slot, slot);
		state->at->number = ++state->read;
		state->at->bytes = 0;
		old = MemoryContextSwitchTo(state->memory);
		state->nrows++;
		for (int k = 0; k < state->ncalls; k++)
			submit(state, k);
		state->bytes += state->at->bytes;
		MemoryContextSwitchTo(old);
	}
	return state->nrows > held;
}

/* Waits for the calls of some rows, and counts how long. */
static void
settle_rows(BatchState *state, int n)
{
	Instrumentation *counted = state->css.ss.ps.instrument;
	instr_time start;
	instr_time end;

	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < state->ncalls; k++)
		{
			BatchRow *row = held_row(state, i);

			if (row->open[k] != NULL)
				call_settle(row->open[k]);
		}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	if (counted != NULL)
		counted->COUNTED_WAIT += INSTR_TIME_GET_MILLISEC(end);
}

static void
run_round(BatchState *state)
{
	Instrumentation *counted = state->css.ss.ps.instrument;

	MemoryContextReset(state->memory);
	for (int k = 0; k < state->ncalls; k++)
		state->calls[k].model = NULL;
	if (state->row_limit == 0)
		begin_reading(state);
	if (state->nrows == 0)
		state->next = 0;
	if (!fill_round(state))
		return;
	if (counted != NULL)
		counted->COUNTED_ROUNDS++;
	if (!state->ahead)
		settle_rows(state, state->nrows);
	state->row_limit =
		state->ahead ? row_window(state) : Min(state->row_limit * 2, row_window(state));
}

/* ---- Handing out --------------------------------------------------------- */

/* The first of the row's images that is. */
static Datum
too_large_image(const BatchRow *row, const BatchCall *call)
{
	bool isnull;
	Datum image = slot_getattr(row->slot, call->column[0], &isnull);

	for (int i = 1; i < call->kind->images && !image_too_large(image); i++)
		image = slot_getattr(row->slot, call->column[i], &isnull);
	return image;
}

/* The result of a call; NULL, counted, if its image cannot be used. */
static Datum
hand_out(BatchState *state, int k, bool *isnull)
{
	BatchRow *row = state->at;
	const BatchKind *kind = state->calls[k].kind;
	Call *call = row->open[k];
	Datum result = (Datum) 0;
	BadImages bad = { .count = 0 };
	const char *place = NULL;
	bool failed = false;

	*isnull = true;
	if (call == NULL && !row->too_large[k])
		return result;
	if (!kind->versioned && bad_images_give_null())
		place = row_place(state);
	if (call == NULL)
	{
		image_refuse(too_large_image(row, &state->calls[k]), kind->versioned, &bad, place);
		*isnull = true;
	}
	else if (image_answered(call, kind->versioned, &bad, place))
	{
		*isnull = false;
		result = kind->wait(call, &row->models[k], isnull);
		failed = kind->tells && !*isnull;
	}
	if (failed || bad.count > 0)
		count_failed(state, &bad);
	if (call != NULL)
		call_free(call);
	row->open[k] = NULL;
	return result;
}

/* The scan tuple of a row: the calls' results, then the child's columns. */
static void
fill_scan_slot(BatchState *state, BatchRow *row, TupleTableSlot *scan)
{
	int ncolumns;
	ErrorContextCallback context = { .callback = row_context,
									 .arg = state,
									 .previous = error_context_stack };

	slot_getallattrs(row->slot);
	ncolumns = row->slot->tts_tupleDescriptor->natts;
	ExecClearTuple(scan);
	state->at = row;
	error_context_stack = &context;
	for (int k = 0; k < state->ncalls; k++)
		scan->tts_values[k] = hand_out(state, k, &scan->tts_isnull[k]);
	error_context_stack = context.previous;
	memcpy(scan->tts_values + state->ncalls, row->slot->tts_values, ncolumns * sizeof(Datum));
	memcpy(scan->tts_isnull + state->ncalls, row->slot->tts_isnull, ncolumns * sizeof(bool));
	ExecStoreVirtualTuple(scan);
}

static TupleTableSlot *
batch_exec(CustomScanState *node)
{
	BatchState *state = (BatchState *) node;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	TupleTableSlot *scan = node->ss.ss_ScanTupleSlot;
	ProjectionInfo *projection = node->ss.ps.ps_ProjInfo;
	MemoryContext old;
	BatchRow *row;

	CHECK_FOR_INTERRUPTS();
	ResetExprContext(econtext);
	if (state->nrows <= (state->ahead ? state->row_limit / 2 : 0) && !state->child_done)
		run_round(state);
	if (state->nrows == 0)
		return ExecClearTuple(projection != NULL ? node->ss.ps.ps_ResultTupleSlot : scan);

	if (state->ahead)
		settle_rows(state, 1);
	row = held_row(state, 0);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	fill_scan_slot(state, row, scan);
	MemoryContextSwitchTo(old);
	state->bytes -= row->bytes;
	state->next = (state->next + 1) % state->capacity;
	state->nrows--;
	econtext->ecxt_scantuple = scan;
	return projection != NULL ? ExecProject(projection) : scan;
}

static void
batch_end(CustomScanState *node)
{
	free_open((BatchState *) node);
	ExecEndNode(outerPlanState(node));
}

static void
batch_rescan(CustomScanState *node)
{
	BatchState *state = (BatchState *) node;

	free_open(state);
	begin_rounds(state);
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}

static void
batch_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	const Instrumentation *counted = node->ss.ps.instrument;

	if (!es->analyze || counted == NULL)
		return;
	ExplainPropertyFloat("Images", NULL, counted->COUNTED_IMAGES, 0, es);
	ExplainPropertyFloat("Rounds", NULL, counted->COUNTED_ROUNDS, 0, es);
	ExplainPropertyFloat(
		"Images per Round", NULL,
		counted->COUNTED_ROUNDS > 0 ? counted->COUNTED_IMAGES / counted->COUNTED_ROUNDS : 0, 1, es);
	if (es->format != EXPLAIN_FORMAT_TEXT || ((BatchState *) node)->failed > 0)
		ExplainPropertyInteger("Images Failed", NULL, ((BatchState *) node)->failed, es);
	if (es->timing)
		ExplainPropertyFloat("Wait", "ms", counted->COUNTED_WAIT, 1, es);
}
