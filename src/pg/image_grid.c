/*
 * image_grid.c
 *	  bicycle_grid and bicycle_grid_agg: many images on one page.
 *
 * R1 The engine decodes, scales and draws; here bytes are only gathered. All of
 *    a grid is one request, so bicycle.max_request_size limits what it holds,
 *    and a value is fetched only after it was counted.
 * R2 The aggregate's state is of its group, in the aggregate's memory; its
 *    final function only reads it.
 */
#include "pg/bicycle.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/invariant.h"
#include "pg/image_call.h"
#include "pg/session.h"

PG_FUNCTION_INFO_V1(bicycle_grid);
PG_FUNCTION_INFO_V1(bicycle_grid_add);
PG_FUNCTION_INFO_V1(bicycle_grid_final);

#define GRID_PLACE "image %d of a grid"

/* What is to stand in the cells, in their order. NULL: nothing. */
typedef struct GridCells
{
	int n, room;
	bytea **images;
	char **labels; /* UTF-8; NULL: there is no line for them */
	Size bytes;    /* of the request */
} GridCells;

/* ---- Gathering ----------------------------------------------------------- */

static void
check_side(const char *what, int value, int least, int most)
{
	if (value < least || value > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid %s of a grid", what),
				 errdetail("It is %d; it must be from %d to %d.", value, least, most)));
}

/* Before what takes so many bytes is fetched. */
static void
count_bytes(GridCells *cells, Size bytes)
{
	Size limit = (Size) bicycle_max_request_size * 1024;

	cells->bytes += bytes;
	if (cells->bytes > limit)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("grid holds too much"),
						errdetail("What it shows has %zu bytes so far; the limit is %zu.",
								  cells->bytes, limit),
						errhint("Make several grids, or of smaller images. A superuser may raise "
								"bicycle.max_request_size.")));
}

/*
 * Adds a cell; `value` counts unless null. An image that is too large by itself
 * is a bad image.
 */
static void
add_cell(GridCells *cells, Datum value, bool null)
{
	bytea *image = NULL;

	if (!null && image_too_large(value))
		image_refuse(value, false, NULL, psprintf(GRID_PLACE, cells->n + 1));
	else if (!null)
	{
		count_bytes(cells, toast_raw_datum_size(value) - VARHDRSZ);
		image = DatumGetByteaPCopy(value);
	}
	count_bytes(cells, sizeof(BicycleCell));
	if (cells->n == cells->room)
	{
		cells->room = Max(16, 2 * cells->room);
		cells->images = cells->images == NULL
							? palloc(cells->room * sizeof(bytea *))
							: repalloc_huge(cells->images, cells->room * sizeof(bytea *));
	}
	cells->images[cells->n++] = image;
}

static char *
label_utf8(Datum value)
{
	char *words = TextDatumGetCString(value);

	return pg_server_to_any(words, strlen(words), PG_UTF8);
}

/* ---- Asking -------------------------------------------------------------- */

static char *
request_body(const GridCells *cells, int columns, int size, Size *length)
{
	BicycleGrid head = {
		.columns = columns, .size = size, .cells = cells->n, .labelled = cells->labels != NULL
	};
	char *body = palloc_extended(sizeof(head) + cells->bytes, MCXT_ALLOC_HUGE);
	char *at = body;

	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	for (int i = 0; i < cells->n; i++)
	{
		const bytea *image = cells->images[i];
		const char *label = cells->labels != NULL ? cells->labels[i] : NULL;
		Size image_length = image != NULL ? VARSIZE_ANY_EXHDR(image) : 0;
		BicycleCell cell = { .image_length = image != NULL ? image_length : BICYCLE_NO_IMAGE,
							 .label_length = label != NULL ? strlen(label) : 0 };

		memcpy(at, &cell, sizeof(cell));
		at += sizeof(cell);
		if (image != NULL)
			memcpy(at, VARDATA_ANY(image), image_length);
		at += image_length;
		if (label != NULL)
			memcpy(at, label, cell.label_length);
		at += cell.label_length;
	}
	*length = at - body;
	INVARIANT(*length == sizeof(head) + cells->bytes);
	return body;
}

static void
cell_context(void *arg)
{
	errcontext(GRID_PLACE, ((BicycleBadCell *) arg)->cell + 1);
}

static int
cell_sqlstate(const BicycleBadCell *cell)
{
	const char *s = cell->sqlstate;

	return strnlen(s, sizeof(cell->sqlstate)) == 5 ? MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])
												   : ERRCODE_INTERNAL_ERROR;
}

/* What images could not be used for: an error, or counted. */
static void
bad_cell(const BicycleBadCell *from)
{
	BicycleBadCell cell = *from;
	char *words[3];
	ErrorContextCallback context = { .callback = cell_context,
									 .arg = &cell,
									 .previous = error_context_stack };

	for (int i = 0; i < 3; i++)
		words[i] =
			session_text(pnstrdup(cell.text[i], strnlen(cell.text[i], sizeof(cell.text[i]))));
	if (bad_images_give_null())
	{
		bad_images_count(NULL, psprintf(GRID_PLACE, cell.cell + 1), words[0],
						 words[1][0] != '\0' ? words[1] : NULL);
		return;
	}
	error_context_stack = &context;
	session_report(cell_sqlstate(&cell), words);
}

/* Takes what is said of images off an answer; returns where the page begins. */
static Size
read_answer(const char *bytes, size_t length)
{
	BicycleGridDone done;
	BadImages others = { 0 };
	Size at = sizeof(done);

	if (length < sizeof(done))
		elog(ERROR, "grid of %zu bytes", length);
	memcpy(&done, bytes, sizeof(done));
	if (done.reported > BICYCLE_GRID_REASONS || done.reported > done.bad ||
		length < sizeof(done) + done.reported * sizeof(BicycleBadCell))
		elog(ERROR, "grid of %zu bytes has %u errors", length, done.reported);
	for (uint32 i = 0; i < done.reported; i++, at += sizeof(BicycleBadCell))
	{
		BicycleBadCell cell;

		memcpy(&cell, bytes + at, sizeof(cell));
		bad_cell(&cell);
	}
	others.count = done.bad - done.reported;
	bad_images_add(NULL, &others);
	return at;
}

/* columns and size: 0 if they are not given. */
static bytea *
draw_cells(const GridCells *cells, int columns, int size)
{
	BicycleImageRequest head;
	Size length, at;
	size_t answer;
	char *body = request_body(cells, columns, size, &length);
	const char *bytes;
	bytea *page;
	Call *call;

	image_request_head(&head, NULL, false);
	head.image_length = length;
	call = call_submit(BICYCLE_GRID, NULL, &head, NULL, body, length);
	pfree(body);
	bytes = call_wait(call, &answer);
	at = read_answer(bytes, answer);
	if (answer - at > MaxAllocSize - VARHDRSZ)
		elog(ERROR, "grid of %zu bytes", answer);
	page = palloc(answer - at + VARHDRSZ);
	SET_VARSIZE(page, answer - at + VARHDRSZ);
	memcpy(VARDATA(page), bytes + at, answer - at);
	call_free(call);
	return page;
}

/* ---- Functions ----------------------------------------------------------- */

static void
add_labels(GridCells *cells, ArrayType *labels)
{
	Datum *values;
	bool *nulls;
	int n;

	image_array(labels, TEXTOID, "labels", &values, &nulls, &n);
	if (n != cells->n)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("a grid must have a label for each image"),
						errdetail("There are %d labels and %d images.", n, cells->n),
						errhint("A label may be null.")));
	cells->labels = palloc0(n * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			continue;
		cells->labels[i] = label_utf8(values[i]);
		count_bytes(cells, strlen(cells->labels[i]));
	}
}

/*
 * bicycle_grid(images bytea[], columns int DEFAULT NULL, labels text[] DEFAULT
 * NULL, size int DEFAULT NULL) -> bytea
 */
Datum
bicycle_grid(PG_FUNCTION_ARGS)
{
	GridCells cells = { 0 };
	int columns = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	int size = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3);
	Datum *values;
	bool *nulls;
	int n;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	image_array(PG_GETARG_ARRAYTYPE_P(0), BYTEAOID, "images", &values, &nulls, &n);
	if (!PG_ARGISNULL(1))
		check_side("number of columns", columns, 1, BICYCLE_GRID_MAX_EXTENT);
	if (!PG_ARGISNULL(3))
		check_side("size", size, BICYCLE_GRID_MIN_SIDE, BICYCLE_GRID_MAX_SIDE);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_cell(&cells, values[i], nulls[i]);
	}
	if (!PG_ARGISNULL(2))
		add_labels(&cells, PG_GETARG_ARRAYTYPE_P(2));
	if (cells.n == 0)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(draw_cells(&cells, columns, size));
}

typedef struct GridState
{
	int columns; /* 0: not given */
	GridCells cells;
} GridState;

static MemoryContext
aggregate_memory(FunctionCallInfo fcinfo)
{
	MemoryContext memory;

	if (!AggCheckCallContext(fcinfo, &memory))
		elog(ERROR, "a step of bicycle_grid_agg was called outside of it");
	return memory;
}

/* A step of bicycle_grid_agg(image bytea, columns int). */
Datum
bicycle_grid_add(PG_FUNCTION_ARGS)
{
	MemoryContext memory = aggregate_memory(fcinfo);
	MemoryContext old = MemoryContextSwitchTo(memory);
	GridState *state =
		PG_ARGISNULL(0) ? palloc0(sizeof(GridState)) : (GridState *) PG_GETARG_POINTER(0);
	int columns = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);

	if (!PG_ARGISNULL(2))
		check_side("number of columns", columns, 1, BICYCLE_GRID_MAX_EXTENT);
	if (state->cells.n > 0 && columns != state->columns)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("number of columns of a grid must be the same in all rows"),
						errdetail("It is %d after %d.", columns, state->columns)));
	state->columns = columns;
	add_cell(&state->cells, PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(state);
}

/* Its end -> bytea. */
Datum
bicycle_grid_final(PG_FUNCTION_ARGS)
{
	GridState *state;

	(void) aggregate_memory(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	state = (GridState *) PG_GETARG_POINTER(0);
	PG_RETURN_BYTEA_P(draw_cells(&state->cells, state->columns, 0));
}
