/*
 * params.c
 *	  The parameter table of a network, and filling the flat float array it
 *	  describes from the tensors of a checkpoint.
 *
 * A table owns its names. Once nn_params_of (nets.c) has built it, it does not
 * change, so any thread may read it.
 */
#include "nn/nn_error.h"
#include "nn/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t
nn_dtype_size(NnDtype dtype)
{
	return (int) dtype >= 0 && (int) dtype < BICYCLE_NDTYPES ? bicycle_dtype_bytes[dtype] : 0;
}

const char *
nn_dtype_name(NnDtype dtype)
{
	return (int) dtype >= 0 && (int) dtype < BICYCLE_NDTYPES ? bicycle_dtype_names[dtype]
															 : "unknown";
}

bool
nn_dtype_from_name(const char *name, NnDtype *dtype)
{
	int value = bicycle_name_value(bicycle_dtype_names, name);

	*dtype = value >= 0 ? (NnDtype) value : *dtype;
	return value >= 0;
}

const char *
nn_network_name(NnNetwork network)
{
	return (int) network >= 0 && network < NN_NETWORKS ? bicycle_network_names[network] : "unknown";
}

bool
nn_network_from_name(const char *name, NnNetwork *network)
{
	int value = bicycle_name_value(bicycle_network_names, name);

	*network = value >= 0 ? (NnNetwork) value : *network;
	return value >= 0;
}

/* ---- The table ----------------------------------------------------------- */

void
nn_params_free(NnParams *params)
{
	for (int i = 0; i < params->n; i++)
		free(params->list[i].name);
	free(params->list);
	memset(params, 0, sizeof(*params));
}

int
nn_params_find(const NnParams *params, NnNetwork network, const char *name)
{
	for (int i = 0; i < params->n; i++)
		if (params->list[i].network == network && strcmp(params->list[i].name, name) == 0)
			return i;
	return -1;
}

int
nn_params_add(NnParams *params, NnNetwork network, const char *name, int ndim, const int64_t *shape)
{
	NnParam *p;
	size_t count = 1;

	if (params->n == params->capacity)
	{
		int wanted = params->capacity ? params->capacity * 2 : 64;
		NnParam *bigger = realloc(params->list, (size_t) wanted * sizeof(NnParam));

		if (!bigger)
			return -1;
		params->list = bigger;
		params->capacity = wanted;
	}
	for (int i = 0; i < ndim; i++)
		count = nn_mul(count, (size_t) shape[i]);
	if (count > SIZE_MAX / sizeof(float) - params->total)
		return -1;
	p = &params->list[params->n];
	*p = (NnParam){ .name = strdup(name),
					.network = network,
					.ndim = ndim,
					.count = count,
					.offset = params->total };
	if (!p->name)
		return -1;
	for (int i = 0; i < ndim; i++)
		p->shape[i] = shape[i];
	params->total += count;
	return params->n++;
}

/* ---- Filling ------------------------------------------------------------- */

/* IEEE binary16, subnormals, infinities and NaNs included. */
static float
float_of_half(uint16_t h)
{
	uint32_t sign = (uint32_t) (h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023,
			 bits;
	float f;

	if (exponent == 0)
	{
		f = (float) fraction * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

static float
float_of_bfloat(uint16_t b)
{
	uint32_t bits = (uint32_t) b << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* Element i of tensor data that may lie at any address. */
static float
tensor_element(NnDtype dtype, const void *data, size_t i)
{
	union
	{
		float f32;
		double f64;
		uint16_t half;
		int64_t i64;
		int32_t i32;
		uint8_t u8;
	} at;

	memcpy(&at, (const char *) data + i * nn_dtype_size(dtype), nn_dtype_size(dtype));
	switch (dtype)
	{
		case NN_F32:
			return at.f32;
		case NN_F64:
			return (float) at.f64;
		case NN_F16:
			return float_of_half(at.half);
		case NN_BF16:
			return float_of_bfloat(at.half);
		case NN_I64:
			return (float) at.i64;
		case NN_I32:
			return (float) at.i32;
		case NN_U8:
			return (float) at.u8;
	}
	return 0;
}

bool
nn_tensor_is_finite(const NnTensor *tensor)
{
	size_t count = tensor->nbytes / nn_dtype_size(tensor->dtype);

	for (size_t i = 0; i < count; i++)
		if (!isfinite(tensor_element(tensor->dtype, tensor->data, i)))
			return false;
	return true;
}

const NnTensor *
nn_tensor_find(const NnTensor *tensors, int ntensors, const NnParam *param)
{
	for (int i = 0; i < ntensors; i++)
		if (tensors[i].network == param->network && strcmp(tensors[i].name, param->name) == 0)
			return &tensors[i];
	return NULL;
}

bool
nn_tensor_fits(const NnTensor *tensor, const NnParam *param)
{
	bool integer = tensor->dtype == NN_I64 || tensor->dtype == NN_I32 || tensor->dtype == NN_U8;

	if (tensor->ndim != param->ndim || integer != param->integer)
		return false;
	for (int i = 0; i < param->ndim; i++)
		if (tensor->shape[i] != param->shape[i])
			return false;
	return true;
}

NnStatus
nn_params_fill(const NnParams *params, const NnTensor *tensors, int ntensors, float *values,
			   NnError *error)
{
	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];
		const NnTensor *t = nn_tensor_find(tensors, ntensors, p);
		float *out = values + p->offset;

		if (!t && p->integer)
		{
			*out = 0;
			continue;
		}
		if (!t)
			return nn_fail(error, NN_EINVAL, "tensor \"%s\" of network %s is missing", p->name,
						   nn_network_name(p->network));
		if (!nn_tensor_fits(t, p))
			return nn_fail(error, NN_EINVAL,
						   "tensor \"%s\" of network %s has the wrong type or shape", p->name,
						   nn_network_name(p->network));
		if (!t->data || t->nbytes != nn_mul(p->count, nn_dtype_size(t->dtype)))
			return nn_fail(error, NN_EINVAL, "tensor \"%s\" of network %s has the wrong length",
						   p->name, nn_network_name(p->network));
		if (t->dtype == NN_F32)
			memcpy(out, t->data, t->nbytes);
		else
			for (size_t k = 0; k < p->count; k++)
				out[k] = tensor_element(t->dtype, t->data, k);
	}
	return NN_OK;
}
