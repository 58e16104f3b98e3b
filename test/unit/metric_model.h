/*
 * metric_model.h
 *	  Network L of LPIPS with random weights of a scale that keeps activations'
 *	  size; those of heads are not negative.
 *
 * A Metric owns its weights, tensors and model; metric_free gives them back.
 */
#ifndef BICYCLE_METRIC_MODEL_H
#define BICYCLE_METRIC_MODEL_H

#include "nn_fixture.h"

#include <math.h>

typedef struct Metric
{
	NnConfig config;
	NnParams params;
	double *weights;
	NnTensor *tensors;
	NnModel *model;
} Metric;

static double *
metric_weights(const NnParams *params)
{
	double *values = calloc(params->total + 1, sizeof(double));

	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];
		bool head = strncmp(p->name, "lin", 3) == 0;
		double scale = (head ? 1 : 2.5) / sqrt((double) p->count / p->shape[0]);
		double *out = values + p->offset;

		lcg_fill(3000 + i, p->ndim > 1 ? scale : 0.1, p->count, out);
		for (size_t k = 0; head && k < p->count; k++)
			out[k] = fabs(out[k]);
	}
	return values;
}

static bool
metric_make(Metric *m, const char *net, const char *version, NnError *error)
{
	memset(m, 0, sizeof(*m));
	if (nn_metric_config(&m->config, net, version, error) != NN_OK ||
		nn_params_of(&m->config, 1u << NN_NET_L, &m->params, error) != NN_OK)
		return false;
	m->weights = metric_weights(&m->params);
	m->tensors = tensors_of(&m->params, m->weights);
	return true;
}

static void
metric_free(Metric *m)
{
	nn_model_free(m->model);
	tensors_free(m->tensors, m->params.n);
	free(m->weights);
	nn_params_free(&m->params);
}

#endif /* BICYCLE_METRIC_MODEL_H */
