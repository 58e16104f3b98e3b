/*
 * run_metric.c
 *	  What compares images in a run's validation: LPIPS.
 *
 * R1 Its images are the bytes of a look, at the networks' size; of one channel
 *    they are gray. So a distance is what bicycle_lpips has for what a session
 *    would get and a target of that size.
 * R2 It computes in fp32 on the device of the run, beside the fit, and changes
 *    nothing of it.
 *
 * A RunMetric owns what it was sent, its model and arrays.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/run_metric.h"

#define METRIC_CHANNELS 3
#define KEPT_PART 64 /* of the engine's memory */

bool
run_metric_begin(RunMetric *metric, const BicycleLoad *load, const uint8_t *config, size_t limit,
				 EngineError *error)
{
	if (load->stream_length > limit)
		return error_engine_memory(
			error, "The weights of LPIPS take %llu bytes, and the engine may take %zu.",
			(unsigned long long) load->stream_length, limit);
	metric->load = *load;
	metric->keep = limit / KEPT_PART;
	metric->stream = malloc(load->stream_length + 1);
	metric->config = malloc((size_t) load->config_length + 1);
	if (metric->stream == NULL || metric->config == NULL)
		return error_memory(error, "the weights of LPIPS");
	memcpy(metric->config, config, load->config_length);
	metric->config[load->config_length] = '\0';
	return true;
}

static bool
load_metric(RunMetric *metric, NnDevice *device, const TensorStream *stream, const NnConfig *config,
			EngineError *error)
{
	NnError nn_error = { 0 };

	if (config->metric == NN_METRIC_NONE)
	{
		error_set(error, "08P01", "training engine was sent something it does not understand");
		error_detail(error, "Weights that compare images are of a generator.");
		return false;
	}
	if (nn_model_load(device, config, NN_PRECISION_FP32, stream->tensors, stream->ntensors,
					  &metric->model, &nn_error) == NN_OK)
		return true;
	metric->model = NULL;
	return error_from_nn(error, &nn_error);
}

static bool
allocate_metric(RunMetric *metric, const RunLook *look, EngineError *error)
{
	size_t pairs = (size_t) look->most, side = (size_t) look->config->size;
	size_t features = (size_t) nn_metric_features(nn_model_config(metric->model));

	metric->pairs = calloc(2 * pairs, side * side * METRIC_CHANNELS);
	metric->distances = calloc(pairs, sizeof(float));
	metric->features = calloc(2 * pairs, features * sizeof(float));
	if (metric->pairs != NULL && metric->distances != NULL && metric->features != NULL)
		return true;
	return error_memory(error, "pairs of images to be compared");
}

bool
run_metric_open(RunMetric *metric, NnDevice *device, const RunLook *look, EngineError *error)
{
	TensorStream stream;
	NnConfig config;
	bool good;

	INVARIANT(metric->have == metric->load.stream_length);
	if (!stream_parse(metric->stream, metric->load.stream_length, &stream, error))
		return false;
	good = model_verify(&metric->load, metric->config, &config, &stream, error) &&
		   load_metric(metric, device, &stream, &config, error);
	stream_free(&stream);
	free(metric->stream);
	metric->stream = NULL;
	return good && allocate_metric(metric, look, error);
}

/* An image in colour. */
static void
put_colours(uint8_t *to, const uint8_t *from, size_t pixels, int channels)
{
	if (channels == METRIC_CHANNELS)
		memcpy(to, from, pixels * METRIC_CHANNELS);
	else
		for (size_t i = 0; i < pixels; i++)
			memset(to + i * METRIC_CHANNELS, from[i], METRIC_CHANNELS);
}

bool
run_metric_compare(RunMetric *metric, const RunLook *look, EngineError *error)
{
	int side = look->config->size, channels = look->config->output_nc;
	size_t pixels = (size_t) side * (size_t) side;
	NnError nn_error = { 0 };
	NnStatus status;

	for (int i = 0; i < look->n; i++)
	{
		uint8_t *pair = metric->pairs + (size_t) i * 2 * pixels * METRIC_CHANNELS;

		put_colours(pair, run_look_image(look, i, 0), pixels, channels);
		put_colours(pair + pixels * METRIC_CHANNELS, run_look_target(look, i), pixels, channels);
	}
	status = nn_model_compare(metric->model, (NnExtent){ .h = side, .w = side }, look->n,
							  metric->pairs, metric->distances, metric->features, &nn_error);
	nn_model_keep_seen(metric->model, metric->keep);
	return status == NN_OK || error_from_nn(error, &nn_error);
}

void
run_metric_free(RunMetric *metric)
{
	nn_model_free(metric->model);
	free(metric->stream);
	free(metric->config);
	free(metric->pairs);
	free(metric->distances);
	free(metric->features);
	memset(metric, 0, sizeof(*metric));
}
