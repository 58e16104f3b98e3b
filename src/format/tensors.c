/*
 * tensors.c
 *	  What readers and writers of model files stand on: errors, texts, numbers,
 *	  and the list of tensors that a reader fills.
 *
 * Memory that a reader wants for as long as the file lives is one list of
 * blocks (FormatFile.owned, newest first), to which format_own adds and which
 * format_free releases. Nothing here keeps state between calls.
 */
#include "common/invariant.h"
#include "format/format_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct FormatOwned
{
	struct FormatOwned *next;
	_Alignas(max_align_t) uint8_t bytes[];
} FormatOwned;

/* ---- Errors -------------------------------------------------------------- */

static void
format_printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static void
set_error(FormatError *error, FormatStatus code, const char *message, const char *detail,
		  va_list args)
{
	error->code = code;
	snprintf(error->message, sizeof(error->message), "%s", message);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	format_printable(error->detail);
	error->hint[0] = '\0';
}

FormatStatus
format_fail(FormatError *error, FormatStatus code, const char *detail, ...)
{
	va_list args;

	va_start(args, detail);
	set_error(error, code,
			  code == FORMAT_ELIMIT    ? "model file is beyond a limit"
			  : code == FORMAT_ECHOICE ? "could not choose a network of the model file"
									   : "could not read model file",
			  detail, args);
	va_end(args);
	return code;
}

FormatStatus
format_hint(FormatError *error, const char *hint, ...)
{
	va_list args;

	va_start(args, hint);
	vsnprintf(error->hint, sizeof(error->hint), hint, args);
	va_end(args);
	format_printable(error->hint);
	return error->code;
}

FormatStatus
format_fail_write(FormatError *error, FormatStatus code, const char *detail, ...)
{
	va_list args;

	va_start(args, detail);
	set_error(error, code,
			  code == FORMAT_ELIMIT ? "model file would be beyond a limit"
									: "could not write model file",
			  detail, args);
	va_end(args);
	return code;
}

static void
set_memory_error(FormatError *error, const char *detail, ...)
{
	va_list args;

	va_start(args, detail);
	set_error(error, FORMAT_ENOMEM, "out of memory", detail, args);
	va_end(args);
}

FormatStatus
format_fail_memory(FormatError *error, size_t bytes)
{
	set_memory_error(error, "Failed on request of size %zu while working on a model file.", bytes);
	return FORMAT_ENOMEM;
}

/* ---- Texts and numbers --------------------------------------------------- */

int
format_text_compare(FormatText a, FormatText b)
{
	int order = memcmp(a.at, b.at, a.length < b.length ? a.length : b.length);

	if (order != 0 || a.length == b.length)
		return order;
	return a.length < b.length ? -1 : 1;
}

bool
format_text_is(FormatText text, const char *literal)
{
	return text.length == strlen(literal) && memcmp(text.at, literal, text.length) == 0;
}

uint16_t
format_u16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

uint32_t
format_u32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

uint64_t
format_u64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

bool
format_tensor_bytes(int ndim, const int64_t *shape, NnDtype dtype, uint64_t *count, uint64_t *bytes)
{
	uint64_t product = 1;
	bool empty = false;

	for (int i = 0; i < ndim; i++)
	{
		if (shape[i] < 0)
			return false;
		/* A 0 must not hide that the other dimensions overflow. */
		if (shape[i] == 0)
			empty = true;
		else if (__builtin_mul_overflow(product, (uint64_t) shape[i], &product))
			return false;
	}
	if (__builtin_mul_overflow(product, (uint64_t) nn_dtype_size(dtype), bytes) ||
		*bytes > PTRDIFF_MAX)
		return false;
	*count = empty ? 0 : product;
	*bytes = empty ? 0 : *bytes;
	return true;
}

/* ---- The list of tensors ------------------------------------------------- */

void *
format_own(FormatBuilder *builder, size_t bytes)
{
	size_t total;
	FormatOwned *block = NULL;

	if (!__builtin_add_overflow(bytes, sizeof(FormatOwned), &total) && total <= PTRDIFF_MAX)
		block = malloc(total);
	if (block == NULL)
	{
		format_fail_memory(builder->error, bytes);
		return NULL;
	}
	block->next = builder->file->owned;
	builder->file->owned = block;
	return block->bytes;
}

/* They become identifiers in SQL: printable ASCII, not empty, not too long. */
static FormatStatus
check_name(FormatText name, FormatFail *fail, FormatError *error)
{
	if (name.length == 0)
		return fail(error, FORMAT_EINVALID, "A tensor has an empty name.");
	if (name.length > FORMAT_MAX_NAME)
		return fail(error, FORMAT_ELIMIT, "Tensor name \"%.*s...\" has %zu bytes, the limit is %d.",
					FORMAT_TEXT(name), name.length, FORMAT_MAX_NAME);
	for (size_t i = 0; i < name.length; i++)
		if (name.at[i] < ' ' || name.at[i] > '~')
			return fail(error, FORMAT_EINVALID, "Tensor name \"%.*s\" is not printable ASCII.",
						FORMAT_TEXT(name));
	return FORMAT_OK;
}

static bool
make_room(FormatBuilder *builder)
{
	FormatFile *file = builder->file;
	int capacity;
	NnTensor *tensors;

	INVARIANT(file->ntensors <= builder->capacity);
	if (file->ntensors < builder->capacity)
		return true;
	if (file->ntensors >= FORMAT_MAX_TENSORS)
	{
		format_fail(builder->error, FORMAT_ELIMIT, "It has more than %d tensors.",
					FORMAT_MAX_TENSORS);
		return false;
	}
	capacity = builder->capacity > 0 ? 2 * builder->capacity : 64;
	tensors = realloc(file->tensors, (size_t) capacity * sizeof(NnTensor));
	if (tensors == NULL)
	{
		format_fail_memory(builder->error, (size_t) capacity * sizeof(NnTensor));
		return false;
	}
	file->tensors = tensors;
	builder->capacity = capacity;
	return true;
}

NnTensor *
format_add(FormatBuilder *builder, FormatText name, NnDtype dtype, int ndim, const int64_t *shape)
{
	FormatFile *file = builder->file;
	NnTensor *tensor;
	uint64_t count, bytes;
	char *copy;

	if (check_name(name, format_fail, builder->error) != FORMAT_OK)
		return NULL;
	if (ndim > NN_MAX_DIMS)
	{
		format_fail(builder->error, FORMAT_ELIMIT,
					"Tensor \"%.*s\" has %d dimensions, the limit is %d.", FORMAT_TEXT(name), ndim,
					NN_MAX_DIMS);
		return NULL;
	}
	if (!format_tensor_bytes(ndim, shape, dtype, &count, &bytes))
	{
		format_fail(builder->error, FORMAT_EINVALID, "Tensor \"%.*s\" has an impossible shape.",
					FORMAT_TEXT(name));
		return NULL;
	}
	if (__builtin_add_overflow(builder->total, bytes, &builder->total) ||
		builder->total > FORMAT_EXPANSION * (uint64_t) builder->length + FORMAT_SLACK)
	{
		format_fail(builder->error, FORMAT_ELIMIT,
					"Its tensors together are more than %d times as large as the file.",
					FORMAT_EXPANSION);
		return NULL;
	}
	if (!make_room(builder) || (copy = format_own(builder, name.length + 1)) == NULL)
		return NULL;
	memcpy(copy, name.at, name.length);
	copy[name.length] = '\0';

	tensor = &file->tensors[file->ntensors++];
	memset(tensor, 0, sizeof(*tensor));
	tensor->name = copy;
	tensor->network = NN_NET_G;
	tensor->dtype = dtype;
	tensor->ndim = ndim;
	memcpy(tensor->shape, shape, (size_t) ndim * sizeof(int64_t));
	tensor->nbytes = bytes;
	if (file->nstates > 0)
		file->states[file->nstates - 1].n++;
	return tensor;
}

void *
format_own_copy(FormatBuilder *builder, size_t bytes)
{
	if (__builtin_add_overflow(builder->copied, bytes, &builder->copied) ||
		builder->copied > (uint64_t) builder->length + FORMAT_SLACK)
	{
		format_fail(builder->error, FORMAT_ELIMIT,
					"Its tensors that are not stored row by row are together larger than the "
					"file.");
		format_hint(builder->error, "Save contiguous tensors.");
		return NULL;
	}
	return format_own(builder, bytes);
}

bool
format_add_state(FormatBuilder *builder, FormatText path)
{
	FormatFile *file = builder->file;
	char *copy;

	INVARIANT(path.length <= FORMAT_MAX_NAME);
	if (file->nstates == FORMAT_MAX_STATES)
	{
		format_fail(builder->error, FORMAT_ELIMIT, "It has more than %d dictionaries of tensors.",
					FORMAT_MAX_STATES);
		return false;
	}
	if (file->nstates == builder->states_capacity)
	{
		int capacity = builder->states_capacity > 0 ? 2 * builder->states_capacity : 4;
		FormatState *states = realloc(file->states, (size_t) capacity * sizeof(FormatState));

		if (states == NULL)
		{
			format_fail_memory(builder->error, (size_t) capacity * sizeof(FormatState));
			return false;
		}
		file->states = states;
		builder->states_capacity = capacity;
	}
	copy = format_own(builder, path.length + 1);
	if (copy == NULL)
		return false;
	memcpy(copy, path.at, path.length);
	copy[path.length] = '\0';
	file->states[file->nstates++] = (FormatState){ copy, file->ntensors, 0 };
	return true;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

bool
format_find_duplicate(const NnTensor *tensors, int ntensors, const char **twice)
{
	const char **names = malloc(((size_t) ntensors + 1) * sizeof(*names));

	*twice = NULL;
	if (names == NULL)
		return false;
	for (int i = 0; i < ntensors; i++)
		names[i] = tensors[i].name;
	qsort(names, (size_t) ntensors, sizeof(*names), compare_names);
	for (int i = 1; i < ntensors; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			*twice = names[i];
	free(names);
	return true;
}

FormatStatus
format_check_tensors(const NnTensor *tensors, int ntensors, FormatError *error)
{
	const char *twice;

	if (ntensors > FORMAT_MAX_TENSORS)
		return format_fail_write(error, FORMAT_ELIMIT, "There are %d tensors, the limit is %d.",
								 ntensors, FORMAT_MAX_TENSORS);
	for (int i = 0; i < ntensors; i++)
	{
		const NnTensor *tensor = &tensors[i];
		FormatText name = { tensor->name, strlen(tensor->name) };
		uint64_t count, bytes;

		if (check_name(name, format_fail_write, error) != FORMAT_OK)
			return error->code;
		if (tensor->ndim < 0 || tensor->ndim > NN_MAX_DIMS ||
			!format_tensor_bytes(tensor->ndim, tensor->shape, tensor->dtype, &count, &bytes) ||
			bytes != tensor->nbytes || (bytes > 0 && tensor->data == NULL))
			return format_fail_write(
				error, FORMAT_EINVALID,
				"Tensor \"%.100s\" has no data, or its shape does not say %zu bytes.", tensor->name,
				tensor->nbytes);
	}
	if (!format_find_duplicate(tensors, ntensors, &twice))
		return format_fail_memory(error, (size_t) ntensors * sizeof(char *));
	if (twice != NULL)
		return format_fail_write(error, FORMAT_EINVALID, "Tensor \"%.100s\" occurs twice.", twice);
	return FORMAT_OK;
}

void
format_free(FormatFile *file)
{
	FormatOwned *block = file->owned;

	while (block != NULL)
	{
		FormatOwned *next = block->next;

		free(block);
		block = next;
	}
	free(file->tensors);
	free(file->states);
	memset(file, 0, sizeof(*file));
}
