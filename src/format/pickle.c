/*
 * pickle.c
 *	  A closed pickle machine: just enough of protocols 2 to 5 to read what
 *	  torch.save writes, and nothing that could run.
 *
 * A pickle is a program for a stack machine whose GLOBAL and REDUCE operators
 * import and call anything. Here names and calls only build descriptions
 * (pickle_build.c); every operator that this file does not name ends the
 * reading with its offset. Values refer to each other by pointer and nothing
 * walks them recursively, so nesting and cycles cost nothing.
 *
 * Memory is pickle_stack.c's affair; the memo is limited here, so that what a
 * file can demand does not depend on what it says.
 *
 * Source: CPython Lib/pickletools.py. Python 2 writes SHORT_BINSTRING for text.
 */
#include "format/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

#define MAX_MEMO ((uint64_t) 1 << 18)

/* ---- Memo ---------------------------------------------------------------- */

/* A PUT takes two bytes or more: an honest index is below the length. */
static bool
memo_put(Machine *m, uint64_t index)
{
	PickleValue value;

	if (index >= MAX_MEMO || index > m->length)
		return pickle_fail_limit(m, "uses too large a memo");
	if (!pickle_pop(m, &value))
		return false;
	if (index >= m->memo_capacity)
	{
		uint64_t capacity = 2 * index + 64;
		PickleValue *memo = realloc(m->memo, capacity * sizeof(PickleValue));

		if (memo == NULL)
			return pickle_fail_memory(m, capacity * sizeof(PickleValue));
		m->memo = memo;
		m->memo_capacity = capacity;
	}
	while (m->memo_size <= index)
		m->memo[m->memo_size++].type = PICKLE_MARK;
	m->memo[index] = value;
	return pickle_push(m, value);
}

static bool
memo_get(Machine *m, uint64_t index)
{
	if (index >= m->memo_size || m->memo[index].type == PICKLE_MARK)
		return pickle_fail(m, "reads a memo slot that was not written");
	return pickle_push(m, m->memo[index]);
}

/* ---- Other operators ----------------------------------------------------- */

static bool
op_proto(Machine *m)
{
	uint64_t protocol;

	if (!pickle_take_number(m, 1, &protocol))
		return false;
	return (protocol >= 2 && protocol <= 5) || pickle_fail(m, "has a protocol other than 2 to 5");
}

/* A frame only groups operators for the reader's convenience. */
static bool
op_frame(Machine *m)
{
	uint64_t length;

	if (!pickle_take_number(m, 8, &length))
		return false;
	return length <= m->length - m->at || pickle_fail(m, "has a frame that reaches beyond its end");
}

static bool
op_stop(Machine *m)
{
	if (m->depth != 1 || m->stack[0].type == PICKLE_MARK)
		return pickle_fail(m, "does not end with one value");
	m->stopped = true;
	return true;
}

static bool
push_unsigned(Machine *m, int width)
{
	uint64_t value;

	return pickle_take_number(m, width, &value) &&
		   pickle_push_simple(m, PICKLE_INT, (int64_t) value);
}

static bool
op_binint(Machine *m)
{
	uint64_t value;

	return pickle_take_number(m, 4, &value) &&
		   pickle_push_simple(m, PICKLE_INT, (int32_t) (uint32_t) value);
}

/* Two's complement; of what does not fit 64 bits the bytes are kept. */
static bool
push_long(Machine *m, int width)
{
	uint64_t length, value;
	const uint8_t *bytes;

	if (!pickle_take_number(m, width, &length) || (bytes = pickle_take(m, length)) == NULL)
		return false;
	if (length > 8)
		return pickle_push(
			m, (PickleValue){ .type = PICKLE_LONG, .text = { (const char *) bytes, length } });
	value = length > 0 && bytes[length - 1] & 0x80 ? UINT64_MAX : 0;
	for (uint64_t i = length; i-- > 0;)
		value = value << 8 | bytes[i];
	return pickle_push_simple(m, PICKLE_INT, (int64_t) value);
}

static bool
op_binfloat(Machine *m)
{
	return pickle_take(m, 8) != NULL && pickle_push_simple(m, PICKLE_FLOAT, 0);
}

static bool
op_memoize(Machine *m)
{
	return memo_put(m, m->memo_size);
}

static bool
memo_indexed(Machine *m, int width, bool (*access)(Machine *, uint64_t))
{
	uint64_t index;

	return pickle_take_number(m, width, &index) && access(m, index);
}

/* The operators that push what they say. */
static bool
push_constant(Machine *m, uint8_t opcode)
{
	switch (opcode)
	{
		case 'N':
			return pickle_push_simple(m, PICKLE_NONE, 0);
		case 0x88: /* NEWTRUE */
			return pickle_push_simple(m, PICKLE_BOOL, 1);
		case 0x89: /* NEWFALSE */
			return pickle_push_simple(m, PICKLE_BOOL, 0);
		case 'K': /* BININT1 */
			return push_unsigned(m, 1);
		case 'M': /* BININT2 */
			return push_unsigned(m, 2);
		case 'J': /* BININT */
			return op_binint(m);
		case 0x8a: /* LONG1 */
			return push_long(m, 1);
		case 0x8b: /* LONG4 */
			return push_long(m, 4);
		case 'G':
			return op_binfloat(m);
		case 'U':  /* SHORT_BINSTRING */
		case 0x8c: /* SHORT_BINUNICODE */
			return pickle_push_bytes(m, PICKLE_TEXT, 1);
		case 'T': /* BINSTRING */
		case 'X': /* BINUNICODE */
			return pickle_push_bytes(m, PICKLE_TEXT, 4);
		case 0x8d: /* BINUNICODE8 */
			return pickle_push_bytes(m, PICKLE_TEXT, 8);
		case 'C': /* SHORT_BINBYTES */
			return pickle_push_bytes(m, PICKLE_BYTES, 1);
		case 'B': /* BINBYTES */
			return pickle_push_bytes(m, PICKLE_BYTES, 4);
		case 0x8e: /* BINBYTES8 */
		case 0x96: /* BYTEARRAY8 */
			return pickle_push_bytes(m, PICKLE_BYTES, 8);
	}
	format_fail(m->error, FORMAT_EINVALID,
				"Pickle has operator 0x%02x, which is not allowed (offset %zu).", opcode,
				m->base + m->operator_at);
	return false;
}

/* The language, in the letters and numbers of pickletools. */
static bool
pickle_step(Machine *m)
{
	const uint8_t *opcode;
	PickleValue dropped, *values;
	size_t n;

	m->operator_at = m->at;
	opcode = pickle_take(m, 1);
	if (opcode == NULL)
		return false;
	switch (*opcode)
	{
		case 0x80:
			return op_proto(m);
		case 0x95:
			return op_frame(m);
		case '.':
			return op_stop(m);
		case '(':
			return pickle_push_simple(m, PICKLE_MARK, 0);
		case '0': /* POP */
			return pickle_pop(m, &dropped);
		case '1': /* POP_MARK */
			return pickle_pop_mark(m, &values, &n);

		case ')': /* EMPTY_TUPLE */
			return pickle_push_items(m, PICKLE_TUPLE, NULL, 0);
		case 't': /* TUPLE */
			return pickle_push_marked(m, PICKLE_TUPLE);
		case 0x85: /* TUPLE1 */
		case 0x86:
		case 0x87: /* TUPLE3 */
			return pickle_push_tuple(m, (size_t) *opcode - 0x84);
		case ']':  /* EMPTY_LIST */
		case 0x8f: /* EMPTY_SET */
			return pickle_push_items(m, PICKLE_LIST, NULL, 0);
		case 'l':  /* LIST */
		case 0x91: /* FROZENSET */
			return pickle_push_marked(m, PICKLE_LIST);
		case 'a': /* APPEND */
			return pickle_extend(m, PICKLE_LIST, 1);
		case 'e':  /* APPENDS */
		case 0x90: /* ADDITEMS */
			return pickle_extend(m, PICKLE_LIST, 0);
		case '}': /* EMPTY_DICT */
			return pickle_push_items(m, PICKLE_DICT, NULL, 0);
		case 'd': /* DICT */
			return pickle_push_marked(m, PICKLE_DICT);
		case 's': /* SETITEM */
			return pickle_extend(m, PICKLE_DICT, 2);
		case 'u': /* SETITEMS */
			return pickle_extend(m, PICKLE_DICT, 0);

		case 'q': /* BINPUT */
			return memo_indexed(m, 1, memo_put);
		case 'r': /* LONG_BINPUT */
			return memo_indexed(m, 4, memo_put);
		case 0x94:
			return op_memoize(m);
		case 'h': /* BINGET */
			return memo_indexed(m, 1, memo_get);
		case 'j': /* LONG_BINGET */
			return memo_indexed(m, 4, memo_get);

		case 'c':
			return pickle_global(m);
		case 0x93:
			return pickle_stack_global(m);
		case 'Q':
			return pickle_persistent_id(m);
		case 'R':
			return pickle_reduce(m);
		case 0x81: /* NEWOBJ */
			return pickle_new_object(m, false);
		case 0x92: /* NEWOBJ_EX */
			return pickle_new_object(m, true);
		case 'b':
			return pickle_build_state(m);
	}
	return push_constant(m, *opcode);
}

FormatStatus
pickle_read(const uint8_t *bytes, size_t length, size_t base, Pickle *pickle, FormatError *error)
{
	Machine m = {
		.bytes = bytes, .length = length, .base = base, .pickle = pickle, .error = error
	};
	bool running = true;

	memset(pickle, 0, sizeof(*pickle));
	while (running && !m.stopped)
		running = pickle_step(&m);
	if (running)
	{
		pickle->top = m.stack[0];
		pickle->used = m.at;
	}
	free(m.stack);
	free(m.memo);
	if (!running)
		pickle_free(pickle);
	return running ? FORMAT_OK : error->code;
}
