/*
 * safetensors.c
 *	  The safetensors format: 8 bytes of header length, a JSON object of
 *	  tensors, then their bytes without gaps.
 *
 * Reading refers to the caller's bytes and copies nothing but names. The rules
 * are those of the reference implementation (huggingface/safetensors,
 * tensor.rs, validate): sorted by offset the tensors cover the data part
 * exactly, and each has as many bytes as its shape says.
 */
#include "common/invariant.h"
#include "format/format_private.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/*
 * Long names fit. Values, too, are limited before the JSON library makes a tree
 * of them, in which an empty object of two bytes takes more than 200.
 */
#define MAX_HEADER ((uint64_t) 4 << 20)
#define MAX_VALUES (32 * FORMAT_MAX_TENSORS)

typedef struct Header
{
	FormatBuilder *builder;
	const uint8_t *data; /* the data part */
	uint64_t data_length;
} Header;

static FormatStatus
fail_tensor(Header *header, const char *name, const char *what)
{
	return format_fail(header->builder->error, FORMAT_EINVALID, "Tensor \"%.100s\" %s.", name,
					   what);
}

static bool
read_shape(const json_t *value, int *ndim, int64_t shape[NN_MAX_DIMS])
{
	size_t n = json_array_size(value);

	if (!json_is_array(value) || n > INT_MAX)
		return false;
	*ndim = (int) n;
	for (size_t i = 0; i < n; i++)
	{
		const json_t *extent = json_array_get(value, i);

		if (!json_is_integer(extent))
			return false;
		if (i < NN_MAX_DIMS) /* format_add refuses the rest */
			shape[i] = json_integer_value(extent);
	}
	return true;
}

static bool
read_offsets(const json_t *value, uint64_t *begin, uint64_t *end)
{
	const json_t *first = json_array_get(value, 0);
	const json_t *second = json_array_get(value, 1);

	if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second) ||
		json_integer_value(first) < 0 || json_integer_value(second) < json_integer_value(first))
		return false;
	*begin = (uint64_t) json_integer_value(first);
	*end = (uint64_t) json_integer_value(second);
	return true;
}

static FormatStatus
read_tensor(Header *header, const char *name, const json_t *entry)
{
	const char *dtype_name = json_string_value(json_object_get(entry, "dtype"));
	NnDtype dtype;
	int ndim;
	int64_t shape[NN_MAX_DIMS];
	uint64_t begin, end;
	NnTensor *tensor;

	if (!json_is_object(entry) || dtype_name == NULL)
		return fail_tensor(header, name, "has no dtype");
	if (!nn_dtype_from_name(dtype_name, &dtype))
		return format_fail(header->builder->error, FORMAT_EINVALID,
						   "Tensor \"%.100s\" has dtype \"%.20s\", which is not read.", name,
						   dtype_name);
	if (!read_shape(json_object_get(entry, "shape"), &ndim, shape))
		return fail_tensor(header, name, "has no shape of integers");
	if (!read_offsets(json_object_get(entry, "data_offsets"), &begin, &end))
		return fail_tensor(header, name, "has no pair of rising data_offsets");
	tensor = format_add(header->builder, (FormatText){ name, strlen(name) }, dtype, ndim, shape);
	if (tensor == NULL)
		return header->builder->error->code;
	if (end > header->data_length)
		return fail_tensor(header, name, "reaches beyond the end of the file");
	if (end - begin != tensor->nbytes)
		return fail_tensor(header, name, "has a shape that does not match its data_offsets");
	tensor->data = header->data + begin;
	return FORMAT_OK;
}

static int
compare_data(const void *a, const void *b)
{
	const NnTensor *x = *(const NnTensor *const *) a;
	const NnTensor *y = *(const NnTensor *const *) b;

	if (x->data != y->data)
		return (const uint8_t *) x->data < (const uint8_t *) y->data ? -1 : 1;
	return x->nbytes < y->nbytes ? -1 : x->nbytes > y->nbytes;
}

/* No tensor overlaps another, no byte belongs to none. */
static FormatStatus
check_coverage(Header *header)
{
	FormatFile *file = header->builder->file;
	FormatError *error = header->builder->error;
	const uint8_t *expected = header->data;
	const NnTensor **sorted = malloc(((size_t) file->ntensors + 1) * sizeof(*sorted));
	FormatStatus status = FORMAT_OK;

	if (sorted == NULL)
		return format_fail_memory(error, (size_t) file->ntensors * sizeof(*sorted));
	for (int i = 0; i < file->ntensors; i++)
		sorted[i] = &file->tensors[i];
	qsort(sorted, (size_t) file->ntensors, sizeof(*sorted), compare_data);
	for (int i = 0; i < file->ntensors && status == FORMAT_OK; i++)
	{
		if (sorted[i]->data != expected)
			status = fail_tensor(header, sorted[i]->name,
								 (const uint8_t *) sorted[i]->data < expected
									 ? "overlaps another"
									 : "follows bytes of no tensor");
		expected = (const uint8_t *) sorted[i]->data + sorted[i]->nbytes;
	}
	free(sorted);
	if (status == FORMAT_OK && expected != header->data + header->data_length)
		status = format_fail(error, FORMAT_EINVALID, "The file goes on after its last tensor.");
	return status;
}

static FormatStatus
read_header(Header *header, json_t *root)
{
	const char *name;
	json_t *entry;

	if (!json_is_object(root))
		return format_fail(header->builder->error, FORMAT_EINVALID,
						   "Its header is not a JSON object.");
	if (!format_add_state(header->builder, (FormatText){ "", 0 }))
		return header->builder->error->code;
	json_object_foreach(root, name, entry)
	{
		if (strcmp(name, "__metadata__") == 0)
			continue;
		if (read_tensor(header, name, entry) != FORMAT_OK)
			return header->builder->error->code;
	}
	return check_coverage(header);
}

/* Keys and values are at most this many: each is behind a bracket or comma. */
static size_t
count_values(const char *text, size_t length)
{
	size_t n = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++)
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted)
			n += text[i] == '{' || text[i] == '[' || text[i] == ',' || text[i] == ':';
	return n;
}

FormatStatus
format_read_safetensors(FormatBuilder *builder)
{
	uint64_t length = format_u64(builder->bytes);
	Header header = { .builder = builder };
	json_error_t error;
	json_t *root;
	FormatStatus status;

	INVARIANT(builder->length > 8);
	if (length > builder->length - 8)
		return format_fail(builder->error, FORMAT_EINVALID,
						   "Its header says it has %llu bytes, which is more than the file.",
						   (unsigned long long) length);
	if (length > MAX_HEADER)
		return format_fail(builder->error, FORMAT_ELIMIT,
						   "Its header has %llu bytes, the limit is %llu.",
						   (unsigned long long) length, (unsigned long long) MAX_HEADER);
	if (count_values((const char *) builder->bytes + 8, length) > MAX_VALUES)
		return format_fail(builder->error, FORMAT_ELIMIT, "Its header has more than %d values.",
						   MAX_VALUES);
	root = json_loadb((const char *) builder->bytes + 8, length, JSON_REJECT_DUPLICATES, &error);
	if (root == NULL)
	{
		/* out of memory the library mostly just says nothing */
		if (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0')
			return format_fail_memory(builder->error, length);
		return format_fail(builder->error, FORMAT_EINVALID,
						   "Its header is not valid JSON: %.160s (byte %d).", error.text,
						   error.position);
	}
	header.data = builder->bytes + 8 + length;
	header.data_length = builder->length - 8 - length;
	status = read_header(&header, root);
	json_decref(root);
	return status;
}

/* ---- Writing ------------------------------------------------------------- */

/*
 * Where each tensor's bytes go: wide elements first, as the reference
 * implementation does, so that all are aligned although no gap is allowed. The
 * header keeps the caller's order.
 */
static uint64_t
place_tensors(const NnTensor *tensors, int ntensors, uint64_t *begin)
{
	uint64_t at = 0;

	for (size_t width = 8; width >= 1; width /= 2)
		for (int i = 0; i < ntensors; i++)
			if (nn_dtype_size(tensors[i].dtype) == width)
			{
				begin[i] = at;
				at += tensors[i].nbytes;
			}
	return at;
}

/* Names are printable ASCII: only quote and backslash need care. */
static void
put_quoted(FormatOutput *output, const char *text)
{
	format_put_u8(output, '"');
	for (; *text != '\0'; text++)
	{
		if (*text == '"' || *text == '\\')
			format_put_u8(output, '\\');
		format_put_u8(output, (uint8_t) *text);
	}
	format_put_u8(output, '"');
}

static void
put_header(FormatOutput *output, const NnTensor *tensors, int ntensors, const uint64_t *begin)
{
	format_put_printed(output, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (int i = 0; i < ntensors; i++)
	{
		format_put_u8(output, ',');
		put_quoted(output, tensors[i].name);
		format_put_printed(output, ":{\"dtype\":\"%s\",\"shape\":[",
						   nn_dtype_name(tensors[i].dtype));
		for (int d = 0; d < tensors[i].ndim; d++)
			format_put_printed(output, "%s%lld", d > 0 ? "," : "", (long long) tensors[i].shape[d]);
		format_put_printed(output, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long) begin[i],
						   (unsigned long long) (begin[i] + tensors[i].nbytes));
	}
	format_put_u8(output, '}');
	while (output->length % 8 != 0 && !output->failed)
		format_put_u8(output, ' ');
}

FormatStatus
format_write_safetensors(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
						 FormatError *error)
{
	FormatOutput output = { 0 };
	uint64_t *begin;

	*bytes = NULL;
	*length = 0;
	if (format_check_tensors(tensors, ntensors, error) != FORMAT_OK)
		return error->code;
	begin = malloc(((size_t) ntensors + 1) * sizeof(*begin));
	if (begin == NULL)
		return format_fail_memory(error, (size_t) ntensors * sizeof(*begin));
	place_tensors(tensors, ntensors, begin);
	format_put_u64(&output, 0);
	put_header(&output, tensors, ntensors, begin);
	if (!output.failed)
	{
		uint64_t header = output.length - 8;

		memcpy(output.bytes, &header, sizeof(header));
	}
	for (size_t width = 8; width >= 1; width /= 2)
		for (int i = 0; i < ntensors; i++)
			if (nn_dtype_size(tensors[i].dtype) == width)
				format_put(&output, tensors[i].data, tensors[i].nbytes);
	free(begin);
	return format_output_done(&output, bytes, length, error);
}
