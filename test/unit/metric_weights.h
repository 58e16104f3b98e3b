/*
 * metric_weights.h
 *	  Random weights of LPIPS as a job worker sends them to its engine.
 *
 * For train_client.h's metric_weights_sent. A MetricWeights owns its texts;
 * metric_weights_free gives them back.
 */
#ifndef BICYCLE_METRIC_WEIGHTS_H
#define BICYCLE_METRIC_WEIGHTS_H

#include "metric_model.h"
#include "train_client.h"

#include "engine/run.h"

static MetricWeights
metric_weights_make(void)
{
	MetricWeights weights = { 0 };
	Metric metric;
	NnError unmade;
	EngineError refused;
	size_t length;

	if (!metric_make(&metric, "alex", "0.1", &unmade))
		bail_out("%s", unmade.message);
	weights.config = nn_config_print(&metric.config);
	if (!model_hash(weights.config, metric.tensors, metric.params.n, weights.load.hash, &refused) ||
		!run_tensors_pack(metric.tensors, metric.params.n, &weights.stream, &length, &refused))
		bail_out("%s", refused.message);
	snprintf(weights.load.model, sizeof(weights.load.model), "lpips-alex-0.1");
	weights.load.version = 1;
	weights.load.config_length = (uint32_t) strlen(weights.config);
	weights.load.stream_length = length;
	metric_free(&metric);
	return weights;
}

static void
metric_weights_free(MetricWeights *weights)
{
	free(weights->config);
	free(weights->stream);
}

#endif /* BICYCLE_METRIC_WEIGHTS_H */
