/*
 * pickle.c
 *	  A closed pickle machine: just enough of protocols 2 to 4 to read a PyTorch
 *	  state_dict, and nothing that could run.
 *
 * A pickle is a program for a stack machine whose GLOBAL and REDUCE operators
 * import and call anything. Here GLOBAL knows the names of one table and REDUCE
 * builds, for each of them, a plain description; every other name and operator
 * ends the reading with its offset. Values refer to each other by pointer and
 * nothing walks them recursively, so nesting and cycles cost nothing.
 *
 * Memory: values live in blocks that belong to the Pickle and are freed
 * together; their sum, the stack, the memo and the number of storages are
 * limited, so that what a file can demand does not depend on what it says.
 *
 * Sources: CPython Lib/pickletools.py; torch/serialization.py (persistent ids),
 * torch/_utils.py (_rebuild_*). Python 2 writes SHORT_BINSTRING for text and
 * gives OrderedDict a list of [key, value] lists; both are read.
 */
#include "common/invariant.h"
#include "format/pickle.h"

#include <stdlib.h>
#include <string.h>

#define MAX_STACK 16384
#define MAX_MEMO ((uint64_t) 1 << 18)
#define MAX_STORAGES ((size_t) 16 * FORMAT_MAX_TENSORS)
#define MAX_MEMORY ((size_t) 32 << 20)
#define BLOCK_BYTES ((size_t) 64 << 10)

typedef struct PickleBlock
{
	struct PickleBlock *next;
	size_t used, size;
	_Alignas(max_align_t) uint8_t bytes[];
} PickleBlock;

typedef struct Machine
{
	const uint8_t *bytes;
	size_t length;
	size_t at;          /* next byte */
	size_t operator_at; /* of the running operator */
	size_t base;
	PickleValue *stack; /* grows; malloc'ed for the time of one reading, as is memo */
	size_t depth, stack_capacity;
	PickleValue *memo;
	uint64_t memo_size; /* slots in use or passed over; MARK in the latter */
	uint64_t memo_capacity;
	bool stopped;
	Pickle *pickle;
	FormatError *error;
} Machine;

typedef enum GlobalKind
{
	GLOBAL_STORAGE, /* a type of storage: only inside a persistent id */
	GLOBAL_ORDERED_DICT,
	GLOBAL_REBUILD_TENSOR,
	GLOBAL_REBUILD_TENSOR_V2,
	GLOBAL_PARAMETER,
	GLOBAL_SIZE
} GlobalKind;

typedef struct PickleGlobal
{
	const char *module;
	const char *name;
	GlobalKind kind;
	NnDtype dtype; /* STORAGE only */
} PickleGlobal;

/* Every name that a pickle may mention. */
static const PickleGlobal globals[] = {
	{ "collections", "OrderedDict", GLOBAL_ORDERED_DICT, 0 },
	{ "torch._utils", "_rebuild_tensor", GLOBAL_REBUILD_TENSOR, 0 },
	{ "torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD_TENSOR_V2, 0 },
	{ "torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, 0 },
	{ "torch.nn.parameter", "Parameter", GLOBAL_PARAMETER, 0 },
	{ "torch", "Size", GLOBAL_SIZE, 0 },
	{ "torch", "FloatStorage", GLOBAL_STORAGE, NN_F32 },
	{ "torch", "DoubleStorage", GLOBAL_STORAGE, NN_F64 },
	{ "torch", "HalfStorage", GLOBAL_STORAGE, NN_F16 },
	{ "torch", "BFloat16Storage", GLOBAL_STORAGE, NN_BF16 },
	{ "torch", "LongStorage", GLOBAL_STORAGE, NN_I64 },
	{ "torch", "IntStorage", GLOBAL_STORAGE, NN_I32 },
	{ "torch", "ByteStorage", GLOBAL_STORAGE, NN_U8 },
};

/* ---- Errors and memory --------------------------------------------------- */

static bool
pickle_fail(Machine *m, const char *what)
{
	format_fail(m->error, FORMAT_EINVALID, "Pickle %s (offset %zu).", what,
				m->base + m->operator_at);
	return false;
}

static bool
fail_limit(Machine *m, const char *what)
{
	format_fail(m->error, FORMAT_ELIMIT, "Pickle %s (offset %zu).", what, m->base + m->operator_at);
	return false;
}

static bool
fail_memory(Machine *m, size_t bytes)
{
	format_fail_memory(m->error, bytes);
	return false;
}

/* NULL, with the error filled, beyond MAX_MEMORY. bytes is at most that. */
static void *
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
			fail_limit(m, "holds too many values");
			return NULL;
		}
		block = malloc(sizeof(PickleBlock) + size);
		if (block == NULL)
		{
			fail_memory(m, size);
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
static bool
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

static const uint8_t *
take_bytes(Machine *m, uint64_t n)
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

/* A little-endian unsigned number of 1, 2, 4 or 8 bytes. */
static bool
take_number(Machine *m, int width, uint64_t *value)
{
	const uint8_t *bytes = take_bytes(m, (uint64_t) width);

	if (bytes == NULL)
		return false;
	*value = 0;
	for (int i = width - 1; i >= 0; i--)
		*value = *value << 8 | bytes[i];
	return true;
}

/* May move the stack: no pointer into it is to be used afterwards. */
static bool
push(Machine *m, PickleValue value)
{
	if (m->depth == MAX_STACK)
		return fail_limit(m, "needs too deep a stack");
	if (m->depth == m->stack_capacity)
	{
		size_t capacity = m->stack_capacity > 0 ? 2 * m->stack_capacity : 64;
		PickleValue *stack = realloc(m->stack, capacity * sizeof(PickleValue));

		if (stack == NULL)
			return fail_memory(m, capacity * sizeof(PickleValue));
		m->stack = stack;
		m->stack_capacity = capacity;
	}
	m->stack[m->depth++] = value;
	return true;
}

static bool
push_simple(Machine *m, PickleType type, int64_t integer)
{
	return push(m, (PickleValue){ .type = type, .integer = integer });
}

static bool
push_text(Machine *m, int width)
{
	uint64_t length;
	const uint8_t *text;

	if (!take_number(m, width, &length) || (text = take_bytes(m, length)) == NULL)
		return false;
	return push(m, (PickleValue){ .type = PICKLE_TEXT, .text = { (const char *) text, length } });
}

/* The topmost value, which must be of this type and not hide behind a mark. */
static PickleValue *
top(Machine *m, PickleType type)
{
	if (m->depth == 0 || m->stack[m->depth - 1].type != type)
	{
		pickle_fail(m, "applies an operator to the wrong kind of value");
		return NULL;
	}
	return &m->stack[m->depth - 1];
}

static bool
pop(Machine *m, PickleValue *value)
{
	if (m->depth == 0 || m->stack[m->depth - 1].type == PICKLE_MARK)
		return pickle_fail(m, "takes a value from an empty stack");
	*value = m->stack[--m->depth];
	return true;
}

/* At the last mark; the *n values above stay in place until the next push. */
static bool
pop_mark(Machine *m, PickleValue **values, size_t *n)
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

/* Of n values, which may lie on the stack, at or above its top. */
static bool
push_items(Machine *m, PickleType type, const PickleValue *values, size_t n)
{
	PickleItems *items = pickle_allocate(m, sizeof(PickleItems));

	if (items == NULL)
		return false;
	memset(items, 0, sizeof(*items));
	for (size_t i = 0; i < n; i++)
		if (!pickle_append(m, items, values[i]))
			return false;
	return push(m, (PickleValue){ .type = type, .items = items });
}

static bool
push_marked(Machine *m, PickleType type)
{
	PickleValue *values;
	size_t n;

	if (!pop_mark(m, &values, &n))
		return false;
	if (type == PICKLE_DICT && n % 2 != 0)
		return pickle_fail(m, "has a dictionary with a key but no value");
	return push_items(m, type, values, n);
}

static bool
push_tuple(Machine *m, size_t n)
{
	for (size_t i = 1; i <= n; i++)
		if (i > m->depth || m->stack[m->depth - i].type == PICKLE_MARK)
			return pickle_fail(m, "takes a value from an empty stack");
	m->depth -= n;
	return push_items(m, PICKLE_TUPLE, m->stack + m->depth, n);
}

/* With the values above the mark, or the `single` topmost if not 0. */
static bool
extend(Machine *m, PickleType type, size_t single)
{
	PickleValue *values;
	PickleValue *container;
	size_t n = single;

	if (single == 0)
	{
		if (!pop_mark(m, &values, &n))
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
	container = top(m, type);
	if (container == NULL)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!pickle_append(m, container->items, values[i]))
			return false;
	return true;
}

/* ---- Memo ---------------------------------------------------------------- */

/* A PUT takes two bytes or more: an honest index is below the length. */
static bool
memo_put(Machine *m, uint64_t index)
{
	PickleValue value;

	if (index >= MAX_MEMO || index > m->length)
		return fail_limit(m, "uses too large a memo");
	if (!pop(m, &value))
		return false;
	if (index >= m->memo_capacity)
	{
		uint64_t capacity = 2 * index + 64;
		PickleValue *memo = realloc(m->memo, capacity * sizeof(PickleValue));

		if (memo == NULL)
			return fail_memory(m, capacity * sizeof(PickleValue));
		m->memo = memo;
		m->memo_capacity = capacity;
	}
	while (m->memo_size <= index)
		m->memo[m->memo_size++].type = PICKLE_MARK;
	m->memo[index] = value;
	return push(m, value);
}

static bool
memo_get(Machine *m, uint64_t index)
{
	if (index >= m->memo_size || m->memo[index].type == PICKLE_MARK)
		return pickle_fail(m, "reads a memo slot that was not written");
	return push(m, m->memo[index]);
}

/* ---- Names and what they build ------------------------------------------- */

static bool
push_global(Machine *m, FormatText module, FormatText name)
{
	for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
		if (format_text_is(module, globals[i].module) && format_text_is(name, globals[i].name))
			return push(m, (PickleValue){ .type = PICKLE_GLOBAL, .global = &globals[i] });
	format_fail(m->error, FORMAT_EINVALID,
				"Pickle names %.*s.%.*s, which is not allowed (offset %zu).", FORMAT_TEXT(module),
				FORMAT_TEXT(name), m->base + m->operator_at);
	return false;
}

static bool
take_line(Machine *m, FormatText *line)
{
	const uint8_t *start = m->bytes + m->at;
	const uint8_t *end = memchr(start, '\n', m->length - m->at);

	if (end == NULL)
		return pickle_fail(m, "ends within an operator");
	*line = (FormatText){ (const char *) start, (size_t) (end - start) };
	m->at += line->length + 1;
	return true;
}

static bool
op_global(Machine *m)
{
	FormatText module, name;

	return take_line(m, &module) && take_line(m, &name) && push_global(m, module, name);
}

static bool
op_stack_global(Machine *m)
{
	PickleValue name, module;

	if (!pop(m, &name) || !pop(m, &module))
		return false;
	if (module.type != PICKLE_TEXT || name.type != PICKLE_TEXT)
		return pickle_fail(m, "names something by a value that is not a text");
	return push_global(m, module.text, name.text);
}

static bool
non_negative(const PickleValue *value)
{
	return value->type == PICKLE_INT && value->integer >= 0;
}

/* (view_key, offset, size): a part, as PyTorch before 0.4 wrote it. */
static bool
set_view(Machine *m, PickleStorage *storage, const PickleValue *view)
{
	const PickleValue *part =
		view->type == PICKLE_TUPLE && view->items->n == 3 ? view->items->at : NULL;

	if (part == NULL || !non_negative(&part[1]) || !non_negative(&part[2]))
		return pickle_fail(m, "describes a view of a storage wrongly");
	storage->view_offset = (uint64_t) part[1].integer;
	storage->view_numel = (uint64_t) part[2].integer;
	if (storage->view_offset > storage->numel ||
		storage->view_numel > storage->numel - storage->view_offset)
		return pickle_fail(m, "has a view that reaches beyond its storage");
	return true;
}

/* ('storage', type, key, location, numel[, view]); any location will do. */
static bool
op_binpersid(Machine *m)
{
	PickleValue id;
	const PickleValue *part;
	PickleStorage *storage;

	if (!pop(m, &id))
		return false;
	if (id.type != PICKLE_TUPLE || id.items->n < 5 || id.items->n > 6)
		return pickle_fail(m, "has a persistent id that is no storage");
	part = id.items->at;
	if (part[0].type != PICKLE_TEXT || !format_text_is(part[0].text, "storage") ||
		part[1].type != PICKLE_GLOBAL || part[1].global->kind != GLOBAL_STORAGE ||
		part[2].type != PICKLE_TEXT || !non_negative(&part[4]))
		return pickle_fail(m, "has a persistent id that is no storage");
	if (m->pickle->nstorages == MAX_STORAGES)
		return fail_limit(m, "mentions too many storages");
	storage = pickle_allocate(m, sizeof(*storage));
	if (storage == NULL)
		return false;
	storage->key = part[2].text;
	storage->dtype = part[1].global->dtype;
	storage->numel = (uint64_t) part[4].integer;
	storage->view_offset = 0;
	storage->view_numel = storage->numel;
	if (id.items->n == 6 && part[5].type != PICKLE_NONE && !set_view(m, storage, &part[5]))
		return false;
	storage->next = m->pickle->storages;
	m->pickle->storages = storage;
	m->pickle->nstorages++;
	return push(m, (PickleValue){ .type = PICKLE_STORAGE, .storage = storage });
}

static bool
read_extents(const PickleValue *tuple, int64_t extents[NN_MAX_DIMS])
{
	for (size_t i = 0; i < tuple->items->n; i++)
	{
		if (!non_negative(&tuple->items->at[i]))
			return false;
		extents[i] = tuple->items->at[i].integer;
	}
	return true;
}

/* (storage, offset, size, stride, ...); what follows is of no interest. */
static bool
rebuild_tensor(Machine *m, const PickleItems *arguments)
{
	const PickleValue *part = arguments->at;
	PickleTensor *tensor;

	if (part[0].type != PICKLE_STORAGE || !non_negative(&part[1]) || part[2].type != PICKLE_TUPLE ||
		part[3].type != PICKLE_TUPLE || part[2].items->n != part[3].items->n)
		return pickle_fail(m, "describes a tensor wrongly");
	if (part[2].items->n > NN_MAX_DIMS)
		return fail_limit(m, "has a tensor of too many dimensions");
	tensor = pickle_allocate(m, sizeof(*tensor));
	if (tensor == NULL)
		return false;
	tensor->storage = part[0].storage;
	tensor->offset = (uint64_t) part[1].integer;
	tensor->ndim = (int) part[2].items->n;
	if (!read_extents(&part[2], tensor->shape) || !read_extents(&part[3], tensor->stride))
		return pickle_fail(m, "describes a tensor wrongly");
	return push(m, (PickleValue){ .type = PICKLE_TENSOR, .tensor = tensor });
}

/* No argument (Python 3), or a list of [key, value] lists (Python 2). */
static bool
build_ordered_dict(Machine *m, const PickleItems *arguments)
{
	const PickleItems *pairs;
	PickleItems *items;

	if (!push_items(m, PICKLE_DICT, NULL, 0))
		return false;
	if (arguments->n == 0)
		return true;
	if (arguments->n != 1 || arguments->at[0].type != PICKLE_LIST)
		return pickle_fail(m, "builds a dictionary of something else than pairs");
	pairs = arguments->at[0].items;
	items = m->stack[m->depth - 1].items;
	for (size_t i = 0; i < pairs->n; i++)
	{
		const PickleValue *pair = &pairs->at[i];

		if ((pair->type != PICKLE_LIST && pair->type != PICKLE_TUPLE) || pair->items->n != 2)
			return pickle_fail(m, "builds a dictionary of something else than pairs");
		if (!pickle_append(m, items, pair->items->at[0]) ||
			!pickle_append(m, items, pair->items->at[1]))
			return false;
	}
	return true;
}

static bool
op_reduce(Machine *m)
{
	PickleValue arguments, callee;
	size_t n;

	if (!pop(m, &arguments) || !pop(m, &callee))
		return false;
	if (callee.type != PICKLE_GLOBAL || arguments.type != PICKLE_TUPLE)
		return pickle_fail(m, "calls something that is not a name of the allowed ones");
	n = arguments.items->n;
	switch (callee.global->kind)
	{
		case GLOBAL_ORDERED_DICT:
			return build_ordered_dict(m, arguments.items);
		case GLOBAL_REBUILD_TENSOR:
			if (n == 4)
				return rebuild_tensor(m, arguments.items);
			break;
		case GLOBAL_REBUILD_TENSOR_V2:
			if (n == 6 || n == 7)
				return rebuild_tensor(m, arguments.items);
			break;
		case GLOBAL_PARAMETER: /* (data, requires_grad, hooks): the data */
			if (n >= 1 && n <= 3 && arguments.items->at[0].type == PICKLE_TENSOR)
				return push(m, arguments.items->at[0]);
			break;
		case GLOBAL_SIZE:
			if (n == 1 && arguments.items->at[0].type == PICKLE_TUPLE)
				return push(m, arguments.items->at[0]);
			break;
		case GLOBAL_STORAGE:
			break;
	}
	return pickle_fail(m, "calls an allowed name with the wrong arguments");
}

/* Only the _metadata of an OrderedDict, which loading ignores. */
static bool
op_build(Machine *m)
{
	PickleValue state;

	return pop(m, &state) && top(m, PICKLE_DICT) != NULL;
}

/* ---- Other operators ----------------------------------------------------- */

static bool
op_proto(Machine *m)
{
	uint64_t protocol;

	if (!take_number(m, 1, &protocol))
		return false;
	return (protocol >= 2 && protocol <= 5) || pickle_fail(m, "has a protocol other than 2 to 5");
}

/* A frame only groups operators for the reader's convenience. */
static bool
op_frame(Machine *m)
{
	uint64_t length;

	if (!take_number(m, 8, &length))
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

	return take_number(m, width, &value) && push_simple(m, PICKLE_INT, (int64_t) value);
}

static bool
op_binint(Machine *m)
{
	uint64_t value;

	return take_number(m, 4, &value) && push_simple(m, PICKLE_INT, (int32_t) (uint32_t) value);
}

/* Two's complement; what does not fit 64 bits has no meaning here. */
static bool
op_long1(Machine *m)
{
	uint64_t length, value;
	const uint8_t *bytes;

	if (!take_number(m, 1, &length) || (bytes = take_bytes(m, length)) == NULL)
		return false;
	if (length > 8)
		return pickle_fail(m, "has a number of more than 64 bits");
	value = length > 0 && bytes[length - 1] & 0x80 ? UINT64_MAX : 0;
	for (uint64_t i = length; i-- > 0;)
		value = value << 8 | bytes[i];
	return push_simple(m, PICKLE_INT, (int64_t) value);
}

static bool
op_binfloat(Machine *m)
{
	return take_bytes(m, 8) != NULL && push_simple(m, PICKLE_FLOAT, 0);
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

	return take_number(m, width, &index) && access(m, index);
}

/* The whole language, in the letters and numbers of pickletools. */
static bool
pickle_step(Machine *m)
{
	const uint8_t *opcode;

	m->operator_at = m->at;
	opcode = take_bytes(m, 1);
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
			return push_simple(m, PICKLE_MARK, 0);

		case 'N':
			return push_simple(m, PICKLE_NONE, 0);
		case 0x88: /* NEWTRUE */
			return push_simple(m, PICKLE_BOOL, 1);
		case 0x89: /* NEWFALSE */
			return push_simple(m, PICKLE_BOOL, 0);
		case 'K': /* BININT1 */
			return push_unsigned(m, 1);
		case 'M': /* BININT2 */
			return push_unsigned(m, 2);
		case 'J': /* BININT */
			return op_binint(m);
		case 0x8a:
			return op_long1(m);
		case 'G':
			return op_binfloat(m);
		case 'U':  /* SHORT_BINSTRING */
		case 0x8c: /* SHORT_BINUNICODE */
			return push_text(m, 1);
		case 'T': /* BINSTRING */
		case 'X': /* BINUNICODE */
			return push_text(m, 4);

		case ')': /* EMPTY_TUPLE */
			return push_items(m, PICKLE_TUPLE, NULL, 0);
		case 't': /* TUPLE */
			return push_marked(m, PICKLE_TUPLE);
		case 0x85: /* TUPLE1 */
		case 0x86:
		case 0x87: /* TUPLE3 */
			return push_tuple(m, (size_t) *opcode - 0x84);
		case ']': /* EMPTY_LIST */
			return push_items(m, PICKLE_LIST, NULL, 0);
		case 'l': /* LIST */
			return push_marked(m, PICKLE_LIST);
		case 'a': /* APPEND */
			return extend(m, PICKLE_LIST, 1);
		case 'e': /* APPENDS */
			return extend(m, PICKLE_LIST, 0);
		case '}': /* EMPTY_DICT */
			return push_items(m, PICKLE_DICT, NULL, 0);
		case 'd': /* DICT */
			return push_marked(m, PICKLE_DICT);
		case 's': /* SETITEM */
			return extend(m, PICKLE_DICT, 2);
		case 'u': /* SETITEMS */
			return extend(m, PICKLE_DICT, 0);

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
			return op_global(m);
		case 0x93:
			return op_stack_global(m);
		case 'Q':
			return op_binpersid(m);
		case 'R':
			return op_reduce(m);
		case 'b':
			return op_build(m);
	}
	format_fail(m->error, FORMAT_EINVALID,
				"Pickle has operator 0x%02x, which is not allowed (offset %zu).", *opcode,
				m->base + m->operator_at);
	return false;
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
