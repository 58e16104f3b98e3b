/*
 * stream.c
 *	  Tensors in the form in which models cross the socket: for each a
 *	  BicycleTensor and its bytes.
 *
 * The bytes are hostile: every length is checked before it is used. A parsed
 * stream points into the caller's bytes, which must outlive it; only data that
 * does not lie at a multiple of its element size is copied. Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/stream.h"

#define MAX_TENSORS 4096

static bool
malformed(EngineError *error, size_t at, const char *what)
{
	error_set(error, "XX001", "tensor stream is damaged");
	error_detail(error, "The tensor at byte %zu %s.", at, what);
	return false;
}

/* To a tensor without data. name points into the stream. */
static bool
parse_header(const BicycleTensor *header, const char *name, size_t at, NnTensor *tensor,
			 EngineError *error)
{
	size_t bytes;

	if (memchr(header->name, '\0', sizeof(header->name)) == NULL || header->name[0] == '\0')
		return malformed(error, at, "has no proper name");
	if (memchr(header->network, '\0', sizeof(header->network)) == NULL ||
		!nn_network_from_name(header->network, &tensor->network))
		return malformed(error, at, "is of no known network");
	if (memchr(header->dtype, '\0', sizeof(header->dtype)) == NULL ||
		!nn_dtype_from_name(header->dtype, &tensor->dtype))
		return malformed(error, at, "is of no known type");
	if (header->ndim > NN_MAX_DIMS)
		return malformed(error, at, "has too many dimensions");
	tensor->name = name;
	tensor->ndim = (int) header->ndim;
	bytes = nn_dtype_size(tensor->dtype);
	for (int i = 0; i < tensor->ndim; i++)
	{
		if (header->shape[i] < 0 ||
			__builtin_mul_overflow(bytes, (size_t) header->shape[i], &bytes))
			return malformed(error, at, "has an impossible shape");
		tensor->shape[i] = header->shape[i];
	}
	if (bytes != header->nbytes)
		return malformed(error, at, "does not have the length its shape demands");
	tensor->nbytes = bytes;
	return true;
}

/* Points the tensor at its data, or at a copy that is aligned. */
static bool
set_data(TensorStream *stream, NnTensor *tensor, const uint8_t *data, EngineError *error)
{
	void *copy;

	tensor->data = data;
	if ((uintptr_t) data % nn_dtype_size(tensor->dtype) == 0)
		return true;
	copy = malloc(tensor->nbytes > 0 ? tensor->nbytes : 1);
	if (copy == NULL)
		return error_memory(error, "a tensor");
	memcpy(copy, data, tensor->nbytes);
	tensor->data = stream->copies[stream->ncopies++] = copy;
	return true;
}

/* The next tensor; *at moves on behind it. */
static bool
parse_tensor(TensorStream *stream, const uint8_t *bytes, size_t length, size_t *at,
			 EngineError *error)
{
	BicycleTensor header;
	NnTensor *tensor = &stream->tensors[stream->ntensors];
	size_t data = *at + sizeof(header);

	if (stream->ntensors == MAX_TENSORS)
		return malformed(error, *at, "is one too many");
	if (length - *at < sizeof(header))
		return malformed(error, *at, "is cut off");
	memcpy(&header, bytes + *at, sizeof(header));
	if (!parse_header(&header, (const char *) bytes + *at + offsetof(BicycleTensor, name), *at,
					  tensor, error))
		return false;
	if (tensor->nbytes > length - data)
		return malformed(error, *at, "is cut off");
	if (!set_data(stream, tensor, bytes + data, error))
		return false;
	stream->ntensors++;
	*at = data + tensor->nbytes;
	return true;
}

bool
stream_parse(const uint8_t *bytes, size_t length, TensorStream *stream, EngineError *error)
{
	bool good;

	memset(stream, 0, sizeof(*stream));
	stream->tensors = calloc(MAX_TENSORS, sizeof(NnTensor));
	stream->copies = calloc(MAX_TENSORS, sizeof(void *));
	good = (stream->tensors != NULL && stream->copies != NULL) ||
		   error_memory(error, "a list of tensors");
	for (size_t at = 0; good && at < length;)
		good = parse_tensor(stream, bytes, length, &at, error);
	if (!good)
		stream_free(stream);
	return good;
}

void
stream_free(TensorStream *stream)
{
	for (int i = 0; i < stream->ncopies; i++)
		free(stream->copies[i]);
	free(stream->copies);
	free(stream->tensors);
	memset(stream, 0, sizeof(*stream));
}

bool
stream_header(const NnTensor *tensor, BicycleTensor *header, EngineError *error)
{
	memset(header, 0, sizeof(*header));
	if (strlen(tensor->name) >= sizeof(header->name))
	{
		error_set(error, "54000", "tensor name is too long");
		error_detail(error, "\"%.100s...\" has more than %d bytes.", tensor->name,
					 BICYCLE_MAX_NAME - 1);
		return false;
	}
	strcpy(header->name, tensor->name);
	snprintf(header->network, sizeof(header->network), "%s", nn_network_name(tensor->network));
	snprintf(header->dtype, sizeof(header->dtype), "%s", nn_dtype_name(tensor->dtype));
	header->ndim = (uint32_t) tensor->ndim;
	for (int i = 0; i < tensor->ndim; i++)
		header->shape[i] = tensor->shape[i];
	header->nbytes = tensor->nbytes;
	return true;
}

typedef struct OrderedTensor
{
	int place; /* in the state_dict of its network */
	NnTensor tensor;
} OrderedTensor;

static int
compare_ordered(const void *a, const void *b)
{
	const OrderedTensor *x = a, *y = b;

	if (x->tensor.network != y->tensor.network)
		return x->tensor.network < y->tensor.network ? -1 : 1;
	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return strcmp(x->tensor.name, y->tensor.name);
}

/* The order of the hash: networks G, E, D, D2, each as its state_dict. */
bool
stream_order(const NnConfig *config, NnTensor *tensors, int ntensors, EngineError *error)
{
	OrderedTensor *ordered = calloc((size_t) ntensors + 1, sizeof(OrderedTensor));
	unsigned mask = 0;
	NnParams params = { 0 };
	NnError nn_error;
	bool unique = true;

	if (ordered == NULL)
		return error_memory(error, "a list of tensors");
	for (int i = 0; i < ntensors; i++)
		mask |= 1u << tensors[i].network;
	if (nn_params_of(config, mask, &params, &nn_error) != NN_OK)
	{
		error_from_nn(error, &nn_error);
		free(ordered);
		return false;
	}
	for (int i = 0; i < ntensors; i++)
	{
		int place = nn_params_find(&params, tensors[i].network, tensors[i].name);

		ordered[i] =
			(OrderedTensor){ .place = place >= 0 ? place : params.n, .tensor = tensors[i] };
	}
	nn_params_free(&params);
	qsort(ordered, (size_t) ntensors, sizeof(OrderedTensor), compare_ordered);
	for (int i = 0; i < ntensors; i++)
	{
		tensors[i] = ordered[i].tensor;
		if (i > 0 && compare_ordered(&ordered[i - 1], &ordered[i]) == 0)
		{
			error_set(error, "22023", "tensor \"%s\" of network %s is there twice", tensors[i].name,
					  nn_network_name(tensors[i].network));
			unique = false;
		}
	}
	free(ordered);
	return unique;
}
