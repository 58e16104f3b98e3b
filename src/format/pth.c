/*
 * pth.c
 *	  From the descriptions of a pickled state_dict to tensors: storages by key,
 *	  windows into them, strides.
 *
 * A tensor that is row-major in its storage refers to the caller's bytes;
 * others are copied into memory of the FormatFile. The sum of both is limited
 * by format_add, that of copies by format_own_copy, before a byte is copied.
 */
#include "format/foreign.h"
#include "format/pth.h"

#include <stdlib.h>
#include <string.h>

static int
compare_storages(const void *a, const void *b)
{
	return format_text_compare(((const PthStorage *) a)->key, ((const PthStorage *) b)->key);
}

/* Sorted mentions to one each; false if two do not agree. */
static bool
fold(PthStorages *storages, FormatText *culprit)
{
	size_t n = 0;

	for (size_t i = 0; i < storages->n; i++)
	{
		const PthStorage *next = &storages->at[i];

		if (n > 0 && format_text_compare(storages->at[n - 1].key, next->key) == 0)
		{
			if (storages->at[n - 1].element != next->element ||
				storages->at[n - 1].numel != next->numel)
			{
				*culprit = next->key;
				return false;
			}
		}
		else
			storages->at[n++] = *next;
	}
	storages->n = n;
	return true;
}

FormatStatus
pth_storages(const Pickle *pickle, PthStorages *storages, FormatError *error)
{
	FormatText culprit;
	size_t i = 0;

	storages->n = pickle->nstorages;
	storages->at = calloc(storages->n + 1, sizeof(PthStorage));
	if (storages->at == NULL)
		return format_fail_memory(error, (storages->n + 1) * sizeof(PthStorage));
	for (const PickleStorage *mention = pickle->storages; mention != NULL; mention = mention->next)
	{
		PthStorage *storage = &storages->at[i++];

		storage->key = mention->key;
		storage->element = mention->element;
		storage->numel = mention->numel;
		if (__builtin_mul_overflow(mention->numel, (uint64_t) mention->element->width,
								   &storage->bytes))
			return format_fail(error, FORMAT_EINVALID, "Storage \"%.*s\" has an impossible size.",
							   FORMAT_TEXT(mention->key));
	}
	qsort(storages->at, storages->n, sizeof(PthStorage), compare_storages);
	if (!fold(storages, &culprit))
		return format_fail(error, FORMAT_EINVALID, "Storage \"%.*s\" is described in two ways.",
						   FORMAT_TEXT(culprit));
	return FORMAT_OK;
}

PthStorage *
pth_find_storage(const PthStorages *storages, FormatText key)
{
	PthStorage wanted = { .key = key };

	return bsearch(&wanted, storages->at, storages->n, sizeof(PthStorage), compare_storages);
}

/* Is the last element inside? *at: the first one's place in the storage. */
static bool
within_storage(const PickleTensor *tensor, uint64_t count, uint64_t *at)
{
	uint64_t last = tensor->offset;

	*at = tensor->storage->view_offset;
	if (count == 0)
		return true;
	for (int i = 0; i < tensor->ndim; i++)
	{
		uint64_t reach;

		if (__builtin_mul_overflow((uint64_t) tensor->shape[i] - 1, (uint64_t) tensor->stride[i],
								   &reach) ||
			__builtin_add_overflow(last, reach, &last))
			return false;
	}
	/* view_offset + view_numel <= numel: checked when it was read. */
	*at += tensor->offset;
	return last < tensor->storage->view_numel;
}

/* Strides of dimensions of extent 1 say nothing and may be anything. */
static bool
is_row_major(const PickleTensor *tensor)
{
	uint64_t expected = 1;

	for (int i = tensor->ndim - 1; i >= 0; i--)
	{
		if (tensor->shape[i] != 1 && (uint64_t) tensor->stride[i] != expected)
			return false;
		expected *= (uint64_t) tensor->shape[i];
	}
	return true;
}

/* The last dimension fastest. The window was checked to lie inside. */
static void
copy_window(const uint8_t *from, const PickleTensor *tensor, uint64_t count, size_t width,
			uint8_t *to)
{
	int64_t index[NN_MAX_DIMS] = { 0 };
	uint64_t at = 0;

	for (uint64_t n = 0; n < count; n++, to += width)
	{
		memcpy(to, from + at * width, width);
		for (int i = tensor->ndim - 1; i >= 0; i--)
		{
			at += (uint64_t) tensor->stride[i];
			if (++index[i] < tensor->shape[i])
				break;
			at -= (uint64_t) tensor->stride[i] * (uint64_t) tensor->shape[i];
			index[i] = 0;
		}
	}
}

static FormatStatus
pth_add_tensor(FormatBuilder *builder, FormatText name, const PickleTensor *pickled,
			   const PthStorages *storages)
{
	const PthStorage *storage = pth_find_storage(storages, pickled->storage->key);
	size_t width = storage->element->width;
	NnTensor *tensor;
	uint64_t count, at;
	uint8_t *copy;

	if (!storage->element->known)
		return format_fail(builder->error, FORMAT_EINVALID,
						   "Tensor \"%.*s\" is of a type that is not read (%s).", FORMAT_TEXT(name),
						   storage->element->name);
	tensor = format_add(builder, name, storage->element->dtype, pickled->ndim, pickled->shape);
	if (tensor == NULL)
		return builder->error->code;
	count = tensor->nbytes / width;
	if (!within_storage(pickled, count, &at))
		return format_fail(builder->error, FORMAT_EINVALID,
						   "Tensor \"%.*s\" reaches beyond its storage.", FORMAT_TEXT(name));
	if (count == 0 || is_row_major(pickled))
	{
		tensor->data = storage->data + at * width;
		return FORMAT_OK;
	}
	copy = format_own_copy(builder, tensor->nbytes);
	if (copy == NULL)
		return builder->error->code;
	copy_window(storage->data + at * width, pickled, count, width, copy);
	tensor->data = copy;
	return FORMAT_OK;
}

/* ---- Dictionaries -------------------------------------------------------- */

/* Cycles end at this depth, and what is shared at this many visits. */
#define MAX_DEPTH 8
#define MAX_VISITS 4096

/* On the way through the dictionaries of a pickle. */
typedef struct PthWalk
{
	FormatBuilder *builder;
	const PthStorages *storages;
	int visits;
} PthWalk;

static bool
ends_in(FormatText text, const char *end)
{
	size_t n = strlen(end);

	return text.length >= n && memcmp(text.at + text.length - n, end, n) == 0;
}

/*
 * Whether a dictionary is the state_dict of something: it has a weight, or
 * nothing but tensors. Statistics of training hold single tensors beside
 * numbers.
 */
static bool
is_state(const PickleItems *items)
{
	bool only_tensors = items->n > 0;

	for (size_t i = 0; i < items->n; i += 2)
	{
		const PickleValue *key = &items->at[i], *value = &items->at[i + 1];

		if (key->type == PICKLE_TEXT && value->type == PICKLE_TENSOR && value->tensor->ndim >= 2 &&
			ends_in(key->text, "weight"))
			return true;
		only_tensors &= key->type == PICKLE_TEXT && value->type == PICKLE_TENSOR;
	}
	return only_tensors;
}

/* PATH.KEY, or KEY alone, in `name`, which format_add then finds too long. */
static FormatText
join_path(FormatText path, FormatText key, char name[2 * FORMAT_MAX_NAME])
{
	size_t n = 0, room;

	if (path.length > 0)
	{
		memcpy(name, path.at, path.length);
		name[path.length] = '.';
		n = path.length + 1;
	}
	room = 2 * FORMAT_MAX_NAME - n;
	memcpy(name + n, key.at, key.length < room ? key.length : room);
	return (FormatText){ name, n + (key.length < room ? key.length : room) };
}

static FormatStatus
add_state(PthWalk *walk, const PickleItems *items, FormatText path)
{
	FormatBuilder *builder = walk->builder;
	char name[2 * FORMAT_MAX_NAME];

	if (!format_add_state(builder, path))
		return builder->error->code;
	for (size_t i = 0; i < items->n; i += 2)
	{
		const PickleValue *key = &items->at[i], *value = &items->at[i + 1];

		if (key->type == PICKLE_TEXT && value->type == PICKLE_TENSOR &&
			pth_add_tensor(builder, join_path(path, key->text, name), value->tensor,
						   walk->storages) != FORMAT_OK)
			return builder->error->code;
	}
	return FORMAT_OK;
}

/* Its own tensors, then those of the dictionaries in it. */
static FormatStatus
walk_dictionary(PthWalk *walk, const PickleItems *items, FormatText path, int depth)
{
	FormatBuilder *builder = walk->builder;
	char name[2 * FORMAT_MAX_NAME];

	if (++walk->visits > MAX_VISITS)
		return format_fail(builder->error, FORMAT_ELIMIT, "It has too many dictionaries.");
	if (is_state(items) && add_state(walk, items, path) != FORMAT_OK)
		return builder->error->code;
	for (size_t i = 0; i < items->n && depth < MAX_DEPTH; i += 2)
	{
		const PickleValue *key = &items->at[i], *value = &items->at[i + 1];
		FormatText inner;

		if (key->type != PICKLE_TEXT || value->type != PICKLE_DICT)
			continue;
		inner = join_path(path, key->text, name);
		if (inner.length <= FORMAT_MAX_NAME &&
			walk_dictionary(walk, value->items, inner, depth + 1) != FORMAT_OK)
			return builder->error->code;
	}
	return FORMAT_OK;
}

FormatStatus
pth_add_tensors(FormatBuilder *builder, const Pickle *pickle, const PthStorages *storages)
{
	PthWalk walk = { .builder = builder, .storages = storages };

	if (pickle->top.type != PICKLE_DICT)
		return foreign_content(builder, &pickle->top);
	/* no tensors are a file, too */
	if (pickle->top.items->n == 0)
		return format_add_state(builder, (FormatText){ "", 0 }) ? FORMAT_OK : builder->error->code;
	if (walk_dictionary(&walk, pickle->top.items, (FormatText){ "", 0 }, 0) != FORMAT_OK)
		return builder->error->code;
	return builder->file->nstates > 0 ? FORMAT_OK : foreign_content(builder, &pickle->top);
}
