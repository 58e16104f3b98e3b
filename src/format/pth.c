/*
 * pth.c
 *	  From the descriptions of a pickled state_dict to tensors: storages by key,
 *	  windows into them, strides.
 *
 * A tensor that is row-major in its storage refers to the caller's bytes;
 * others are copied into memory of the FormatFile. The sum of both is limited
 * by format_add before a byte is copied.
 */
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
			if (storages->at[n - 1].dtype != next->dtype ||
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
		storage->dtype = mention->dtype;
		storage->numel = mention->numel;
		if (__builtin_mul_overflow(mention->numel, (uint64_t) nn_dtype_size(mention->dtype),
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
	size_t width = nn_dtype_size(storage->dtype);
	NnTensor *tensor = format_add(builder, name, storage->dtype, pickled->ndim, pickled->shape);
	uint64_t count, at;
	uint8_t *copy;

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
	copy = format_own(builder, tensor->nbytes);
	if (copy == NULL)
		return builder->error->code;
	copy_window(storage->data + at * width, pickled, count, width, copy);
	tensor->data = copy;
	return FORMAT_OK;
}

FormatStatus
pth_add_tensors(FormatBuilder *builder, const Pickle *pickle, const PthStorages *storages)
{
	const PickleItems *items = pickle->top.items;

	if (pickle->top.type != PICKLE_DICT)
		return format_fail(
			builder->error, FORMAT_EINVALID,
			"It does not hold a dictionary of tensors (the state_dict of a network).");
	for (size_t i = 0; i < items->n; i += 2)
	{
		const PickleValue *key = &items->at[i];
		const PickleValue *value = &items->at[i + 1];

		if (key->type != PICKLE_TEXT)
			return format_fail(builder->error, FORMAT_EINVALID,
							   "Its dictionary has a key that is not a text.");
		if (value->type != PICKLE_TENSOR)
			return format_fail(
				builder->error, FORMAT_EINVALID,
				"Entry \"%.*s\" is not a tensor; the file must be the state_dict of one network.",
				FORMAT_TEXT(key->text));
		if (pth_add_tensor(builder, key->text, value->tensor, storages) != FORMAT_OK)
			return builder->error->code;
	}
	return FORMAT_OK;
}
