/*
 * evaluate_inputs.c
 *	  The pairs that a model is measured on, put together by their inputs.
 *
 * R1 The query runs as the caller, under the caller's search_path; neither it
 *    nor a function in it can write.
 * R2 It is over before anything is measured. Its rows are sorted by input in
 *    the order in which inputs first came, and lie in memory up to work_mem and
 *    then in temporary files.
 * R3 Two rows have the same input if its bytes are the same. What is known of
 *    each input meanwhile is a digest.
 *
 * Inputs belong to the memory context that they are opened in.
 */
#include "pg/evaluate.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#include "pg/image_call.h"
#include "pg/pairs_query.h"

#define PLACE_BYTES 64 /* of an id */

enum
{
	COLUMN_INPUT,
	COLUMN_ROW,
	COLUMN_A, /* of the input's first row only */
	COLUMN_B,
	COLUMN_PLACE,
	COLUMNS
};

typedef struct Known
{
	uint64 digest[2]; /* of the input's bytes */
	int64 number;
} Known;

/* An image of the pairs that is two, while the engine cuts it. */
typedef struct Whole
{
	int64 row;
	char *place;
	Size bytes;
	Call *call;
} Whole;

struct Inputs
{
	MemoryContext memory;
	Evaluation *e;
	HTAB *known;
	int64 count;
	int64 rows; /* read */
	bool left_out;
	Tuplesortstate *sort;
	TupleTableSlot *put; /* what is sorted */
	TupleTableSlot *next;
	List *cut; /* of Whole, in the order of their rows */
	Size cut_bytes;
	bool have; /* a row in `next` that belongs to the input to come */
};

/* ---- Reading ------------------------------------------------------------- */

static void
begin_sort(Inputs *inputs)
{
	static const Oid types[COLUMNS] = { INT8OID, INT8OID, BYTEAOID, BYTEAOID, TEXTOID };
	AttrNumber keys[2] = { COLUMN_INPUT + 1, COLUMN_ROW + 1 };
	Oid operators[2] = { Int8LessOperator, Int8LessOperator };
	Oid collations[2] = { InvalidOid, InvalidOid };
	bool nulls_first[2] = { false, false };
	TupleDesc desc = CreateTemplateTupleDesc(COLUMNS);

	for (int i = 0; i < COLUMNS; i++)
		TupleDescInitEntry(desc, i + 1, NULL, types[i], -1, 0);
	inputs->sort = tuplesort_begin_heap(desc, 2, keys, operators, collations, nulls_first, work_mem,
										NULL, TUPLESORT_NONE);
	inputs->put = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	inputs->next = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
}

/*
 * The number of an input; false: there are enough without it. *first: it has
 * not been seen before.
 */
static bool
input_number(Inputs *inputs, const bytea *a, int64 *number, bool *first)
{
	Known key = { 0 };
	Known *known;

	for (int i = 0; i < 2; i++)
		key.digest[i] = hash_bytes_extended((const unsigned char *) VARDATA_ANY(a),
											VARSIZE_ANY_EXHDR(a), (uint64) i);
	known = hash_search(inputs->known, key.digest, HASH_FIND, NULL);
	*first = known == NULL;
	if (known == NULL)
	{
		if (inputs->count == inputs->e->options.inputs)
		{
			inputs->left_out = true;
			return false;
		}
		evaluation_hold(inputs->e, &inputs->e->kept, sizeof(Known));
		known = hash_search(inputs->known, key.digest, HASH_ENTER, NULL);
		known->number = inputs->count++;
	}
	*number = known->number;
	return true;
}

static const char *
pair_place(int64 number, HeapTuple row, TupleDesc desc, int images)
{
	char *id = desc->natts > images ? SPI_getvalue(row, desc, images + 1) : NULL;

	if (id == NULL)
		return psprintf("pair " INT64_FORMAT, number);
	id[pg_mbcliplen(id, strlen(id), PLACE_BYTES)] = '\0';
	return psprintf("pair " INT64_FORMAT ", id %s", number, id);
}

/* NULL: there is none that can be used, and such pairs are skipped. */
static bytea *
pair_side(Inputs *inputs, HeapTuple row, TupleDesc desc, int column, const char *place)
{
	Evaluation *e = inputs->e;
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);

	if (!e->options.skip && isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an image of the pairs is null"), errdetail("It is in %s.", place),
						errhint("Leave such rows out of the query, or set the option "
								"\"bad_pairs\" to \"skip\".")));
	if (isnull)
		evaluation_skip(e, place, "an image of the pairs is null", NULL);
	else if (e->options.skip && image_too_large(value))
		evaluation_skip(e, place, "an image of the pairs is too large", NULL);
	else
		return image_argument(value, "image");
	return NULL;
}

static void
put_pair(Inputs *inputs, int64 row, const char *place, bytea *a, bytea *b)
{
	int64 number;
	bool first;
	TupleTableSlot *slot = inputs->put;

	if (!input_number(inputs, a, &number, &first))
	{
		inputs->e->npairs--;
		return;
	}
	ExecClearTuple(slot);
	slot->tts_values[COLUMN_INPUT] = Int64GetDatum(number);
	slot->tts_values[COLUMN_ROW] = Int64GetDatum(row);
	slot->tts_values[COLUMN_A] = PointerGetDatum(a);
	slot->tts_values[COLUMN_B] = PointerGetDatum(b);
	slot->tts_values[COLUMN_PLACE] = CStringGetTextDatum(place);
	memset(slot->tts_isnull, false, COLUMNS * sizeof(bool));
	slot->tts_isnull[COLUMN_A] = !first;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(inputs->sort, slot);
}

/* ---- Images side by side ------------------------------------------------- */

static void
whole_context(void *arg)
{
	errcontext("image of %s", ((Whole *) arg)->place);
}

static bytea *
copy_half(const char *bytes, Size length)
{
	bytea *half = palloc(VARHDRSZ + length);

	SET_VARSIZE(half, VARHDRSZ + length);
	memcpy(VARDATA(half), bytes, length);
	return half;
}

static void
put_halves(Inputs *inputs, const Whole *whole)
{
	BicycleHalves head;
	size_t length;
	const char *bytes = call_wait(whole->call, &length);
	const char *left = bytes + sizeof(head);

	if (length < sizeof(head))
		elog(ERROR, "halves of %zu bytes", length);
	memcpy(&head, bytes, sizeof(head));
	length -= sizeof(head);
	if (head.left_length > length)
		elog(ERROR, "left half of %u bytes in %zu", head.left_length, length);
	put_pair(inputs, whole->row, whole->place, copy_half(left, head.left_length),
			 copy_half(left + head.left_length, length - head.left_length));
}

/* The one that has been cut the longest. */
static void
finish_whole(Inputs *inputs)
{
	Whole *whole = linitial(inputs->cut);
	const char *message;
	const char *detail;
	ErrorContextCallback context = { .callback = whole_context,
									 .arg = whole,
									 .previous = error_context_stack };

	inputs->cut = list_delete_first(inputs->cut);
	inputs->cut_bytes -= whole->bytes;
	error_context_stack = &context;
	if (inputs->e->options.skip && call_image_failed(whole->call, &message, &detail))
		evaluation_skip(inputs->e, whole->place, message, detail);
	else
		put_halves(inputs, whole);
	error_context_stack = context.previous;
	call_free(whole->call);
	pfree(whole->place);
	pfree(whole);
}

/* Several are cut at once, and taken in their order. */
static void
cut_whole(Inputs *inputs, int64 row, const char *place, const bytea *image)
{
	BicycleImageRequest head;
	MemoryContext old;
	Whole *whole;

	while (list_length(inputs->cut) >= image_window() || inputs->cut_bytes > IMAGE_WINDOW_BYTES)
		finish_whole(inputs);
	image_request_head(&head, NULL, true);
	head.image_length = VARSIZE_ANY_EXHDR(image);
	head.flags |= inputs->e->model->alpha_drop ? BICYCLE_FLAG_OPAQUE : 0;
	old = MemoryContextSwitchTo(inputs->memory);
	whole = palloc(sizeof(Whole));
	whole->row = row;
	whole->place = pstrdup(place);
	whole->bytes = head.image_length;
	whole->call =
		call_submit(BICYCLE_HALVES, NULL, &head, NULL, VARDATA_ANY(image), head.image_length);
	inputs->cut = lappend(inputs->cut, whole);
	MemoryContextSwitchTo(old);
	inputs->cut_bytes += whole->bytes;
}

/* ---- The query ----------------------------------------------------------- */

static void
take_row(Inputs *inputs, HeapTuple row, TupleDesc desc)
{
	int images = inputs->e->options.side_by_side ? 1 : 2;
	int64 number = ++inputs->rows;
	const char *place = pair_place(number, row, desc, images);
	bytea *sides[2] = { NULL };

	inputs->e->npairs++;
	for (int i = 0; i < images; i++)
		if ((sides[i] = pair_side(inputs, row, desc, i + 1, place)) == NULL)
			return;
	if (images == 1)
		cut_whole(inputs, number, place, sides[0]);
	else
		put_pair(inputs, number, place, sides[0], sides[1]);
}

/* What has been made of a row is freed with it. */
static void
read_pairs(Inputs *inputs, const char *query)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle pair", ALLOCSET_DEFAULT_SIZES);
	int images = inputs->e->options.side_by_side ? 1 : 2;
	PairsCursor cursor = pairs_open(query, images);
	MemoryContext old;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor.portal, true, 1);
		if (SPI_processed == 0)
			break;
		old = MemoryContextSwitchTo(context);
		take_row(inputs, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		SPI_freetuptable(SPI_tuptable);
	}
	pairs_close(cursor);
	old = MemoryContextSwitchTo(context);
	while (inputs->cut != NIL)
	{
		finish_whole(inputs);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
}

Inputs *
inputs_open(Evaluation *e, const char *query)
{
	HASHCTL control = { .keysize = sizeof(((Known *) NULL)->digest),
						.entrysize = sizeof(Known),
						.hcxt = CurrentMemoryContext };
	Inputs *inputs = palloc0(sizeof(Inputs));

	inputs->e = e;
	inputs->memory = CurrentMemoryContext;
	inputs->known =
		hash_create("bicycle inputs", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	begin_sort(inputs);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	read_pairs(inputs, query);
	SPI_finish();
	tuplesort_performsort(inputs->sort);
	inputs->have = tuplesort_gettupleslot(inputs->sort, true, false, inputs->next, NULL);
	if (inputs->left_out)
		ereport(NOTICE,
				(errmsg("inputs beyond the number of %d are not looked at", e->options.inputs),
				 errhint("The option \"inputs\" raises it.")));
	return inputs;
}

/* ---- Giving -------------------------------------------------------------- */

static Datum
column_of(TupleTableSlot *slot, int column)
{
	bool isnull;

	return slot_getattr(slot, column + 1, &isnull);
}

static bytea *
copy_bytes(TupleTableSlot *slot, int column)
{
	bytea *packed = DatumGetByteaPP(column_of(slot, column));
	bytea *copy = palloc(VARSIZE_ANY(packed));

	memcpy(copy, packed, VARSIZE_ANY(packed));
	return copy;
}

static void
add_truth(Inputs *inputs, Input *input)
{
	int n = input->ntruths++;
	Truth *truth;

	/* Sizes are powers of two. */
	if (n == 0)
		input->truths = palloc(sizeof(Truth));
	else if ((n & (n - 1)) == 0)
		input->truths = repalloc(input->truths, 2 * (Size) n * sizeof(Truth));
	truth = &input->truths[n];
	memset(truth, 0, sizeof(*truth));
	truth->file = copy_bytes(inputs->next, COLUMN_B);
	truth->place = TextDatumGetCString(column_of(inputs->next, COLUMN_PLACE));
	evaluation_hold(inputs->e, &inputs->e->held, VARSIZE_ANY(truth->file) + sizeof(Truth));
}

Input *
inputs_next(Inputs *inputs)
{
	Input *input;

	if (!inputs->have)
		return NULL;
	input = palloc0(sizeof(Input));
	input->number = DatumGetInt64(column_of(inputs->next, COLUMN_INPUT));
	input->file = copy_bytes(inputs->next, COLUMN_A);
	evaluation_hold(inputs->e, &inputs->e->held, VARSIZE_ANY(input->file));
	do
	{
		add_truth(inputs, input);
		inputs->have = tuplesort_gettupleslot(inputs->sort, true, false, inputs->next, NULL);
	} while (inputs->have && DatumGetInt64(column_of(inputs->next, COLUMN_INPUT)) == input->number);
	return input;
}

void
inputs_close(Inputs *inputs)
{
	ExecDropSingleTupleTableSlot(inputs->put);
	ExecDropSingleTupleTableSlot(inputs->next);
	tuplesort_end(inputs->sort);
	hash_destroy(inputs->known);
	pfree(inputs);
}

int64
inputs_count(const Inputs *inputs)
{
	return inputs->count;
}
