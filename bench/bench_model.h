/*
 * bench_model.h
 *	  The model that the benchmarks run: of any configuration, its weights
 *	  made-up numbers, scaled so that activations keep their size. Speed does
 *	  not depend on them.
 */
#ifndef BICYCLE_BENCH_MODEL_H
#define BICYCLE_BENCH_MODEL_H

#include "bench.h"

#include <math.h>
#include <string.h>

/* The caller frees it. */
static inline NnModel *
bench_model(NnDevice *device, const NnConfig *config, NnPrecision precision)
{
	unsigned networks = 1u << NN_NET_G | (config->net_e == NN_ENCODER_NONE ? 0 : 1u << NN_NET_E);
	NnParams params;
	NnModel *model;
	NnTensor *tensors;
	NnError error;

	if (nn_params_of(config, networks, &params, &error) != NN_OK)
		fail(&error);
	tensors = calloc(params.n, sizeof(NnTensor));
	for (int i = 0; i < params.n; i++)
	{
		const NnParam *p = &params.list[i];

		tensors[i] = (NnTensor){ .name = p->name,
								 .network = p->network,
								 .dtype = NN_F32,
								 .ndim = p->ndim,
								 .nbytes = p->count * sizeof(float) };
		memcpy(tensors[i].shape, p->shape, sizeof(p->shape));
		tensors[i].data = numbers(
			i + 1, p->ndim > 1 ? 1 / sqrtf((float) p->count / p->shape[0]) : 0.1f, p->count);
	}
	if (nn_model_load(device, config, precision, tensors, params.n, &model, &error) != NN_OK)
		fail(&error);
	for (int i = 0; i < params.n; i++)
		free((void *) tensors[i].data);
	free(tensors);
	nn_params_free(&params);
	return model;
}

#endif /* BICYCLE_BENCH_MODEL_H */
