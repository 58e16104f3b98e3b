/*
 * metric_weights.h
 *	  Random weights of LPIPS as a job worker sends them to its engine.
 *
 * For train_client.h's metric_weights_sent. A MetricWeights owns its texts;
 * metric_weights_free gives them back.
 */
#ifndef BICYCLE_METRIC_WEIGHTS_H
#define BICYCLE_METRIC_WEIGHTS_H

#include "train_client.h"

#include "engine/run.h"

#include <math.h>

/* Numbers of no meaning, but small enough; those of heads are not negative. */
static float *
metric_numbers(const NnParam *p)
{
	bool head = strncmp(p->name, "lin", 3) == 0;
	double scale = p->ndim > 1 ? 2.5 / sqrt((double) p->count / (double) p->shape[0]) : 0.1;
	float *values = malloc(p->count * sizeof(float));

	for (size_t k = 0; k < p->count; k++)
	{
		double x = (double) ((uint32_t) (k + p->offset) * 2654435761u) * 0x1p-31 - 1;

		values[k] = (float) (scale * (head ? fabs(x) : x));
	}
	return values;
}

static MetricWeights
metric_weights_make(void)
{
	MetricWeights weights = { 0 };
	NnConfig config;
	NnParams params;
	NnTensor *tensors;
	NnError nn_error;
	EngineError error;
	size_t length;

	if (nn_metric_config(&config, "alex", "0.1", &nn_error) != NN_OK ||
		nn_params_of(&config, 1u << NN_NET_L, &params, &nn_error) != NN_OK)
		bail_out("%s", nn_error.message);
	tensors = calloc((size_t) params.n, sizeof(NnTensor));
	for (int i = 0; i < params.n; i++)
	{
		const NnParam *p = &params.list[i];

		tensors[i] = (NnTensor){ .name = p->name,
								 .network = p->network,
								 .dtype = NN_F32,
								 .ndim = p->ndim,
								 .data = metric_numbers(p),
								 .nbytes = p->count * sizeof(float) };
		memcpy(tensors[i].shape, p->shape, sizeof(p->shape));
	}
	weights.config = nn_config_print(&config);
	if (!model_hash(weights.config, tensors, params.n, weights.load.hash, &error) ||
		!run_tensors_pack(tensors, params.n, &weights.stream, &length, &error))
		bail_out("%s", error.message);
	snprintf(weights.load.model, sizeof(weights.load.model), "lpips-alex-0.1");
	weights.load.version = 1;
	weights.load.config_length = (uint32_t) strlen(weights.config);
	weights.load.stream_length = length;
	for (int i = 0; i < params.n; i++)
		free((void *) tensors[i].data);
	free(tensors);
	nn_params_free(&params);
	return weights;
}

static void
metric_weights_free(MetricWeights *weights)
{
	free(weights->config);
	free(weights->stream);
}

#endif /* BICYCLE_METRIC_WEIGHTS_H */
