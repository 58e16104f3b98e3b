/*
 * ref_train.c
 *	  Training on the naive device: its table of operators, and its arrays and
 *	  primitives, all in double.
 *
 * Arena and arrays belong to the NnTraining from prepare to release.
 */
#include "nn/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REF_ROW(OP, name) [NN_OP_##OP] = { ref_##name, ref_##name##_backward },
#define REF_ROW_FORWARD(OP, name) [NN_OP_##OP] = { ref_##name },

const NnOpImpl ref_ops[NN_OPS] = { NN_OPERATORS(REF_ROW, REF_ROW, REF_ROW_FORWARD) };

static void
ref_train_release(NnDevice *device, NnTraining *training)
{
	for (int i = 0; i < NN_ARRAYS; i++)
	{
		free(training->array[i].data);
		training->array[i].data = NULL;
	}
	free(training->plan.arena);
	training->plan.arena = NULL;
}

static size_t
ref_train_bytes(const NnDevice *device, const NnTraining *training)
{
	return nn_mul(nn_sum(training->plan.arena_elements,
						 nn_sum(nn_mul(4, training->params->total), training->nema)),
				  sizeof(double));
}

static NnStatus
ref_train_prepare(NnDevice *device, NnTraining *training, NnError *error)
{
	size_t bytes = nn_mul(training->plan.arena_elements, sizeof(double));

	training->plan.arena = malloc(bytes);
	for (int i = 0; i < NN_ARRAYS; i++)
		training->array[i].data = calloc(
			(i == NN_ARRAY_EMA ? training->nema : training->params->total) + 1, sizeof(double));
	for (int i = 0; i < NN_ARRAYS; i++)
		if (!training->array[i].data || !training->plan.arena)
		{
			ref_train_release(device, training);
			return nn_no_memory(error, bytes);
		}
	training->plan.device_bytes = (4 * training->params->total + training->nema) * sizeof(double);
	return NN_OK;
}

static NnStatus
ref_begin(NnDevice *device, NnTraining *training, NnError *error)
{
	return NN_OK;
}

static NnStatus
ref_zero(NnDevice *device, const NnTraining *training, const NnMap *map, NnError *error)
{
	for (size_t i = 0; i < nn_map_pixels(map); i++)
		memset(map->f64 + i * map->pitch, 0, map->shape.c * sizeof(double));
	return NN_OK;
}

static NnStatus
ref_feed(NnDevice *device, const NnTraining *training, const NnMap *map, const void *data,
		 NnError *error)
{
	const double *from = data;

	for (size_t i = 0; i < nn_map_pixels(map); i++, from += map->shape.c)
		memcpy(map->f64 + i * map->pitch, from, map->shape.c * sizeof(double));
	return NN_OK;
}

static NnStatus
ref_train_number(NnDevice *device, const NnTraining *training, const NnMap *map, double *value,
				 NnError *error)
{
	*value = map->f64[0];
	return NN_OK;
}

static NnStatus
ref_follow(NnDevice *device, const NnTraining *training, NnNumbers to, NnNumbers base,
		   NnNumbers from, size_t n, double share, double numerator, double denominator,
		   NnError *error)
{
	for (size_t i = 0; i < n; i++)
		to.f64[i] = base.f64[i] + share * (from.f64[i] * numerator / denominator - base.f64[i]);
	return NN_OK;
}

static NnStatus
ref_adam(NnDevice *device, NnTraining *training, size_t first, size_t end, const NnAdam *adam,
		 double step, double root, NnError *error)
{
	double *p = training->array[NN_ARRAY_PARAM].f64, *m = training->array[NN_ARRAY_M].f64,
		   *v = training->array[NN_ARRAY_V].f64;
	const double *g = training->array[NN_ARRAY_GRAD].f64;

	for (size_t i = first; i < end; i++)
	{
		m[i] += (1 - adam->beta1) * (g[i] - m[i]);
		v[i] = adam->beta2 * v[i] + (1 - adam->beta2) * g[i] * g[i];
		p[i] -= step * m[i] / (sqrt(v[i]) / root + adam->epsilon);
	}
	return NN_OK;
}

static NnStatus
ref_get(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		void *data, NnError *error)
{
	memcpy(data, training->array[array].f64 + offset, count * sizeof(double));
	return NN_OK;
}

static NnStatus
ref_put(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		const void *data, NnError *error)
{
	memcpy(training->array[array].f64 + offset, data, count * sizeof(double));
	return NN_OK;
}

static bool
ref_trains_in(const NnDevice *device, NnPrecision precision)
{
	return precision == NN_PRECISION_FP32 || precision == NN_PRECISION_BF16;
}

static NnPrecision
ref_train_automatic(const NnDevice *device)
{
	return NN_PRECISION_FP32;
}

const NnTrainDevice ref_train_device = { .dtype = NN_F64,
										 .host = true,
										 .trains_in = ref_trains_in,
										 .automatic = ref_train_automatic,
										 .bytes = ref_train_bytes,
										 .prepare = ref_train_prepare,
										 .release = ref_train_release,
										 .ops = ref_ops,
										 .only_adds = true,
										 .begin = ref_begin,
										 .zero = ref_zero,
										 .feed = ref_feed,
										 .number = ref_train_number,
										 .follow = ref_follow,
										 .adam = ref_adam,
										 .get = ref_get,
										 .put = ref_put };
