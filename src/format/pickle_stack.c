/*
 * pickle_stack.c
 *	  What the machine of pickle.c stands on: its memory, bytes, stack and
 *	  containers.
 *
 * Values live in blocks that belong to the Pickle and are freed together; their
 * sum and the stack are limited, so that what a file can demand does not depend
 * on what it says. A value that hides behind a mark is never reached.
 */
#include "common/invariant.h"
#include "format/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

#define MAX_STACK 16384
#define MAX_MEMORY ((size_t) 32 << 20)
#define BLOCK_BYTES ((size_t) 64 << 10)

typedef struct PickleBlock
{
	struct PickleBlock *next;
	size_t used, size;
	_Alignas(max_align_t) uint8_t bytes[];
} PickleBlock;

/* ---- Errors and memory --------------------------------------------------- */

bool
pickle_fail(Machine *m, const char *what)
{
	format_fail(m->error, FORMAT_EINVALID, "Pickle %s (offset %zu).", what,
				m->base + m->operator_at);
	return false;
}

bool
pickle_fail_limit(Machine *m, const char *what)
{
	format_fail(m->error, FORMAT_ELIMIT, "Pickle %s (offset %zu).", what, m->base + m->operator_at);
	return false;
}

bool
pickle_fail_memory(Machine *m, size_t bytes)
{
	format_fail_memory(m->error, bytes);
	return false;
}

/* bytes is at most MAX_MEMORY. */
void *
pickle_allocate(Machine *m, size_t bytes)
{
	Pickle *pickle = m->pickle;
	PickleBlock *block = pickle->blocks;
	void *memory;

	bytes = (bytes + 15) & ~(size_t) 15;
	if (block == NULL || bytes > block->size - block->used)
	{
		size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;

		INVARIANT(pickle->memory <= MAX_MEMORY);
		if (size > MAX_MEMORY - pickle->memory)
		{
			pickle_fail_limit(m, "holds too many values");
			return NULL;
		}
		block = malloc(sizeof(PickleBlock) + size);
		if (block == NULL)
		{
			pickle_fail_memory(m, size);
			return NULL;
		}
		block->size = size;
		block->used = 0;
		block->next = pickle->blocks;
		pickle->blocks = block;
		pickle->memory += size;
	}
	memory = block->bytes + block->used;
	block->used += bytes;
	return memory;
}

/* The old array stays in its block; doubling keeps it below the new one. */
bool
pickle_append(Machine *m, PickleItems *items, PickleValue value)
{
	if (items->n == items->capacity)
	{
		size_t capacity = items->capacity > 0 ? 2 * items->capacity : 4;
		PickleValue *at = pickle_allocate(m, capacity * sizeof(PickleValue));

		if (at == NULL)
			return false;
		if (items->n > 0)
			memcpy(at, items->at, items->n * sizeof(PickleValue));
		items->at = at;
		items->capacity = capacity;
	}
	items->at[items->n++] = value;
	return true;
}

/* ---- Bytes and stack ----------------------------------------------------- */

const uint8_t *
pickle_take(Machine *m, uint64_t n)
{
	const uint8_t *bytes = m->bytes + m->at;

	INVARIANT(m->at <= m->length);
	if (n > m->length - m->at)
	{
		pickle_fail(m, "ends within an operator");
		return NULL;
	}
	m->at += n;
	return bytes;
}

bool
pickle_take_number(Machine *m, int width, uint64_t *value)
{
	const uint8_t *bytes = pickle_take(m, (uint64_t) width);

	if (bytes == NULL)
		return false;
	*value = 0;
	for (int i = width - 1; i >= 0; i--)
		*value = *value << 8 | bytes[i];
	return true;
}

bool
pickle_take_line(Machine *m, FormatText *line)
{
	const uint8_t *start = m->bytes + m->at;
	const uint8_t *end = memchr(start, '\n', m->length - m->at);

	if (end == NULL)
		return pickle_fail(m, "ends within an operator");
	*line = (FormatText){ (const char *) start, (size_t) (end - start) };
	m->at += line->length + 1;
	return true;
}

bool
pickle_push(Machine *m, PickleValue value)
{
	if (m->depth == MAX_STACK)
		return pickle_fail_limit(m, "needs too deep a stack");
	if (m->depth == m->stack_capacity)
	{
		size_t capacity = m->stack_capacity > 0 ? 2 * m->stack_capacity : 64;
		PickleValue *stack = realloc(m->stack, capacity * sizeof(PickleValue));

		if (stack == NULL)
			return pickle_fail_memory(m, capacity * sizeof(PickleValue));
		m->stack = stack;
		m->stack_capacity = capacity;
	}
	m->stack[m->depth++] = value;
	return true;
}

bool
pickle_push_simple(Machine *m, PickleType type, int64_t integer)
{
	return pickle_push(m, (PickleValue){ .type = type, .integer = integer });
}

bool
pickle_push_bytes(Machine *m, PickleType type, int width)
{
	uint64_t length;
	const uint8_t *bytes;

	if (!pickle_take_number(m, width, &length) || (bytes = pickle_take(m, length)) == NULL)
		return false;
	return pickle_push(m, (PickleValue){ .type = type, .text = { (const char *) bytes, length } });
}

PickleValue *
pickle_top(Machine *m)
{
	if (m->depth == 0 || m->stack[m->depth - 1].type == PICKLE_MARK)
	{
		pickle_fail(m, "applies an operator to the wrong kind of value");
		return NULL;
	}
	return &m->stack[m->depth - 1];
}

bool
pickle_pop(Machine *m, PickleValue *value)
{
	if (m->depth == 0 || m->stack[m->depth - 1].type == PICKLE_MARK)
		return pickle_fail(m, "takes a value from an empty stack");
	*value = m->stack[--m->depth];
	return true;
}

bool
pickle_pop_mark(Machine *m, PickleValue **values, size_t *n)
{
	size_t mark = m->depth;

	while (mark > 0 && m->stack[mark - 1].type != PICKLE_MARK)
		mark--;
	if (mark == 0)
		return pickle_fail(m, "looks for a mark that is not there");
	*values = m->stack + mark;
	*n = m->depth - mark;
	m->depth = mark - 1;
	return true;
}

/* ---- Containers ---------------------------------------------------------- */

bool
pickle_push_items(Machine *m, PickleType type, const PickleValue *values, size_t n)
{
	PickleItems *items = pickle_allocate(m, sizeof(PickleItems));

	if (items == NULL)
		return false;
	memset(items, 0, sizeof(*items));
	for (size_t i = 0; i < n; i++)
		if (!pickle_append(m, items, values[i]))
			return false;
	return pickle_push(m, (PickleValue){ .type = type, .items = items });
}

bool
pickle_push_marked(Machine *m, PickleType type)
{
	PickleValue *values;
	size_t n;

	if (!pickle_pop_mark(m, &values, &n))
		return false;
	if (type == PICKLE_DICT && n % 2 != 0)
		return pickle_fail(m, "has a dictionary with a key but no value");
	return pickle_push_items(m, type, values, n);
}

bool
pickle_push_tuple(Machine *m, size_t n)
{
	for (size_t i = 1; i <= n; i++)
		if (i > m->depth || m->stack[m->depth - i].type == PICKLE_MARK)
			return pickle_fail(m, "takes a value from an empty stack");
	m->depth -= n;
	return pickle_push_items(m, PICKLE_TUPLE, m->stack + m->depth, n);
}

/* What goes into an object of which nothing is known is forgotten. */
bool
pickle_extend(Machine *m, PickleType type, size_t single)
{
	PickleValue *values;
	PickleValue *container;
	size_t n = single;

	if (single == 0)
	{
		if (!pickle_pop_mark(m, &values, &n))
			return false;
	}
	else
	{
		if (m->depth < single)
			return pickle_fail(m, "takes a value from an empty stack");
		m->depth -= single;
		values = m->stack + m->depth;
		for (size_t i = 0; i < single; i++)
			if (values[i].type == PICKLE_MARK)
				return pickle_fail(m, "takes a value from an empty stack");
	}
	if (type == PICKLE_DICT && n % 2 != 0)
		return pickle_fail(m, "has a dictionary with a key but no value");
	container = pickle_top(m);
	if (container == NULL)
		return false;
	if (container->type == PICKLE_OBJECT)
		return true;
	if (container->type != type)
		return pickle_fail(m, "applies an operator to the wrong kind of value");
	for (size_t i = 0; i < n; i++)
		if (!pickle_append(m, container->items, values[i]))
			return false;
	return true;
}

void
pickle_free(Pickle *pickle)
{
	PickleBlock *block = pickle->blocks;

	while (block != NULL)
	{
		PickleBlock *next = block->next;

		free(block);
		block = next;
	}
	memset(pickle, 0, sizeof(*pickle));
}
