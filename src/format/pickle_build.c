/*
 * pickle_build.c
 *	  What the names in a pickle, and the calls of them, build: descriptions of
 *	  storages and tensors, and for all else an object of which nothing is known
 *	  but its name.
 *
 * R1 Nothing is imported and nothing is called. A name that is not in the table
 *    is a text; a call of it gives an object, and what is put into that is
 *    forgotten. Checkpoints hold such objects beside their weights: options,
 *    random states, numbers of numpy.
 * R2 Whether a tensor lies within its storage is not asked here: see pth.c.
 *
 * Sources: torch/serialization.py (persistent ids), torch/_utils.py
 * (_rebuild_*). Python 2 gives OrderedDict a list of [key, value] lists.
 */
#include "format/pickle_machine.h"

#define MAX_STORAGES ((size_t) 16 * FORMAT_MAX_TENSORS)

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
	PickleElement element; /* STORAGE only; its name is filled from this one's */
} PickleGlobal;

#define STORAGE(type, width)           \
	{                                  \
		"torch", type, GLOBAL_STORAGE, \
		{                              \
			type, width, false, 0      \
		}                              \
	}
#define DTYPE_STORAGE(type, width, dtype) \
	{                                     \
		"torch", type, GLOBAL_STORAGE,    \
		{                                 \
			type, width, true, dtype      \
		}                                 \
	}

/* Every name that means something. */
static const PickleGlobal globals[] = {
	{ "collections", "OrderedDict", GLOBAL_ORDERED_DICT, { 0 } },
	{ "torch._utils", "_rebuild_tensor", GLOBAL_REBUILD_TENSOR, { 0 } },
	{ "torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD_TENSOR_V2, { 0 } },
	{ "torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, { 0 } },
	{ "torch._utils", "_rebuild_parameter_with_state", GLOBAL_PARAMETER, { 0 } },
	{ "torch.nn.parameter", "Parameter", GLOBAL_PARAMETER, { 0 } },
	{ "torch", "Size", GLOBAL_SIZE, { 0 } },
	DTYPE_STORAGE("FloatStorage", 4, NN_F32),
	DTYPE_STORAGE("DoubleStorage", 8, NN_F64),
	DTYPE_STORAGE("HalfStorage", 2, NN_F16),
	DTYPE_STORAGE("BFloat16Storage", 2, NN_BF16),
	DTYPE_STORAGE("LongStorage", 8, NN_I64),
	DTYPE_STORAGE("IntStorage", 4, NN_I32),
	DTYPE_STORAGE("ByteStorage", 1, NN_U8),
	STORAGE("BoolStorage", 1),
	STORAGE("CharStorage", 1),
	STORAGE("ShortStorage", 2),
	STORAGE("ComplexFloatStorage", 8),
	STORAGE("ComplexDoubleStorage", 16),
	{ "torch.storage", "UntypedStorage", GLOBAL_STORAGE, { "UntypedStorage", 1, false, 0 } },
};

/* ---- Names --------------------------------------------------------------- */

static bool
push_name(Machine *m, FormatText module, FormatText name)
{
	PickleName *object;

	for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
		if (format_text_is(module, globals[i].module) && format_text_is(name, globals[i].name))
			return pickle_push(m, (PickleValue){ .type = PICKLE_GLOBAL, .global = &globals[i] });
	object = pickle_allocate(m, sizeof(*object));
	if (object == NULL)
		return false;
	*object = (PickleName){ module, name };
	return pickle_push(m, (PickleValue){ .type = PICKLE_OBJECT, .name = object });
}

bool
pickle_global(Machine *m)
{
	FormatText module, name;

	return pickle_take_line(m, &module) && pickle_take_line(m, &name) && push_name(m, module, name);
}

bool
pickle_stack_global(Machine *m)
{
	PickleValue name, module;

	if (!pickle_pop(m, &name) || !pickle_pop(m, &module))
		return false;
	if (module.type != PICKLE_TEXT || name.type != PICKLE_TEXT)
		return pickle_fail(m, "names something by a value that is not a text");
	return push_name(m, module.text, name.text);
}

/* ---- Storages ------------------------------------------------------------ */

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

/* The type of a storage, if there can be such; a foreign one's width is 0. */
static const PickleElement *
element_of(const PickleValue *type)
{
	static const PickleElement foreign = { "a type that is not known", 0, false, 0 };

	if (type->type == PICKLE_OBJECT)
		return &foreign;
	return type->type == PICKLE_GLOBAL && type->global->kind == GLOBAL_STORAGE
			   ? &type->global->element
			   : NULL;
}

/* ('storage', type, key, location, numel[, view]); any location will do. */
static bool
push_storage(Machine *m, const PickleItems *id)
{
	const PickleValue *part = id->at;
	const PickleElement *element = id->n == 5 || id->n == 6 ? element_of(&part[1]) : NULL;
	PickleStorage *storage;

	if (element == NULL || part[2].type != PICKLE_TEXT || !non_negative(&part[4]))
		return pickle_fail(m, "has a persistent id that is no storage");
	if (m->pickle->nstorages == MAX_STORAGES)
		return pickle_fail_limit(m, "mentions too many storages");
	storage = pickle_allocate(m, sizeof(*storage));
	if (storage == NULL)
		return false;
	storage->key = part[2].text;
	storage->element = element;
	storage->numel = (uint64_t) part[4].integer;
	storage->view_offset = 0;
	storage->view_numel = storage->numel;
	if (id->n == 6 && part[5].type != PICKLE_NONE && !set_view(m, storage, &part[5]))
		return false;
	storage->next = m->pickle->storages;
	m->pickle->storages = storage;
	m->pickle->nstorages++;
	return pickle_push(m, (PickleValue){ .type = PICKLE_STORAGE, .storage = storage });
}

/* A storage; or, of a whole module, ('module', class, its file, its source). */
bool
pickle_persistent_id(Machine *m)
{
	PickleValue id;
	const PickleValue *part;

	if (!pickle_pop(m, &id))
		return false;
	part = id.type == PICKLE_TUPLE && id.items->n >= 2 ? id.items->at : NULL;
	if (part != NULL && part[0].type == PICKLE_TEXT && format_text_is(part[0].text, "storage"))
		return push_storage(m, id.items);
	if (part != NULL && part[0].type == PICKLE_TEXT && format_text_is(part[0].text, "module") &&
		part[1].type == PICKLE_OBJECT)
		return pickle_push(m, part[1]);
	return pickle_fail(m, "has a persistent id that is no storage");
}

/* ---- Calls --------------------------------------------------------------- */

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
		return pickle_fail_limit(m, "has a tensor of too many dimensions");
	tensor = pickle_allocate(m, sizeof(*tensor));
	if (tensor == NULL)
		return false;
	tensor->storage = part[0].storage;
	tensor->offset = (uint64_t) part[1].integer;
	tensor->ndim = (int) part[2].items->n;
	if (!read_extents(&part[2], tensor->shape) || !read_extents(&part[3], tensor->stride))
		return pickle_fail(m, "describes a tensor wrongly");
	return pickle_push(m, (PickleValue){ .type = PICKLE_TENSOR, .tensor = tensor });
}

/* No argument (Python 3), or a list of [key, value] lists (Python 2). */
static bool
build_ordered_dict(Machine *m, const PickleItems *arguments)
{
	const PickleItems *pairs;
	PickleItems *items;

	if (!pickle_push_items(m, PICKLE_DICT, NULL, 0))
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
call_global(Machine *m, const PickleGlobal *callee, const PickleItems *arguments)
{
	size_t n = arguments->n;

	switch (callee->kind)
	{
		case GLOBAL_ORDERED_DICT:
			return build_ordered_dict(m, arguments);
		case GLOBAL_REBUILD_TENSOR:
			if (n == 4)
				return rebuild_tensor(m, arguments);
			break;
		case GLOBAL_REBUILD_TENSOR_V2:
			if (n == 6 || n == 7)
				return rebuild_tensor(m, arguments);
			break;
		case GLOBAL_PARAMETER: /* (data, requires_grad, hooks, state): the data */
			if (n >= 1 && n <= 4 && arguments->at[0].type == PICKLE_TENSOR)
				return pickle_push(m, arguments->at[0]);
			break;
		case GLOBAL_SIZE:
			if (n == 1 && arguments->at[0].type == PICKLE_TUPLE)
				return pickle_push(m, arguments->at[0]);
			break;
		case GLOBAL_STORAGE:
			break;
	}
	return pickle_fail(m, "calls a name that it knows with the wrong arguments");
}

bool
pickle_reduce(Machine *m)
{
	PickleValue arguments, callee;

	if (!pickle_pop(m, &arguments) || !pickle_pop(m, &callee))
		return false;
	if (arguments.type == PICKLE_TUPLE && callee.type == PICKLE_OBJECT)
		return pickle_push(m, callee);
	if (arguments.type != PICKLE_TUPLE || callee.type != PICKLE_GLOBAL)
		return pickle_fail(m, "calls something that is not a name");
	return call_global(m, callee.global, arguments.items);
}

/* NEWOBJ and, with keywords, NEWOBJ_EX: class.__new__(...). */
bool
pickle_new_object(Machine *m, bool keywords)
{
	PickleValue named;

	return (!keywords || pickle_pop(m, &named)) && pickle_reduce(m);
}

/*
 * The attributes of what is on top: of an OrderedDict its _metadata, which
 * loading ignores, of an object all that it is.
 */
bool
pickle_build_state(Machine *m)
{
	PickleValue state;
	const PickleValue *built;

	if (!pickle_pop(m, &state) || (built = pickle_top(m)) == NULL)
		return false;
	return built->type == PICKLE_DICT || built->type == PICKLE_OBJECT ||
		   built->type == PICKLE_TENSOR ||
		   pickle_fail(m, "applies an operator to the wrong kind of value");
}
