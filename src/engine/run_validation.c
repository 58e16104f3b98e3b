/*
 * run_validation.c
 *	  Validation: pairs that a run does not train on, and what its networks are
 *	  measured by on them.
 *
 * R1 They come, are checked, spilled, decoded and ordered as those trained on
 *    are, by the same code. They are decoded once in a run, to the networks'
 *    size, and their pixels stay in memory.
 * R2 What they take is a part of train_memory: what pairs that are trained on
 *    have left. Room for their pixels is taken from these pairs' cache. More is
 *    an error, before anything is decoded.
 * R3 A row is looked at under codes that are a function of the seed and its
 *    place. So a metric is a function of the weights and the pairs, and no
 *    random number of the training is another.
 * R4 A metric is the mean over the rows, added up in their order. One that
 *    joins gets its row in BICYCLE_MEASURES, and its lines in measure_rows.
 * R5 LPIPS is measured if its weights have come.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/run_validation.h"

/* Of nn_normal: previews' have the first of these bits alone. */
#define VALIDATION_STREAM (UINT64_C(3) << 61)

void
run_validation_init(RunValidation *validation)
{
	memset(validation, 0, sizeof(*validation));
	run_data_init(&validation->data);
	run_feed_init(&validation->feed);
	run_screen_init(&validation->screen);
}

void
run_validation_free(RunValidation *validation)
{
	run_screen_free(&validation->screen);
	run_feed_free(&validation->feed);
	run_data_free(&validation->data);
	run_look_free(&validation->look);
	run_metric_free(&validation->metric);
	run_best_free(&validation->best);
}

/* ---- The pairs ----------------------------------------------------------- */

void
run_validation_begin(RunValidation *validation, const BicycleTrainBegin *begin,
					 const NnConfig *config, const NnTrainOptions *options)
{
	validation->on = options->validation[0] != '\0';
	run_data_begin(&validation->data, begin, options->side_by_side);
	validation->data.kind = "validation";
	validation->data.opaque = config->alpha == NN_ALPHA_DROP;
}

void
run_validation_share(RunValidation *validation, const RunData *pairs)
{
	INVARIANT(pairs->memory <= pairs->memory_limit && pairs->spilled <= pairs->spill_limit);
	validation->data.memory_limit = pairs->memory_limit - pairs->memory;
	validation->data.spill_limit = pairs->spill_limit - pairs->spilled;
}

/* Whether the pixels of all have room beside what there is. */
static bool
check_pixels(const RunData *data, uint64_t bytes, const RunData *pairs, EngineError *error)
{
	if (data->memory <= data->memory_limit && bytes <= data->memory_limit - data->memory)
		return true;
	error_set(error, "54000", "there are too many validation pairs");
	error_detail(error,
				 "The pixels of %lld pairs take %llu bytes, and of %llu bytes of memory the pairs "
				 "have left %llu.",
				 (long long) data->nread, (unsigned long long) bytes,
				 (unsigned long long) pairs->memory_limit,
				 (unsigned long long) (data->memory_limit - data->memory));
	error_hint(error, "Raise the setting \"bicycle.train_memory\", or put a LIMIT into the query "
					  "of the option \"validation\".");
	return false;
}

/* What the best weights are to be chosen by must be there to be measured. */
static bool
check_metric(const RunValidation *validation, const NnTrainOptions *options, EngineError *error)
{
	bool decides = options->keep == NN_KEEP_BEST || options->patience > 0;

	if (!decides || options->keep_metric != NN_MEASURE_LPIPS ||
		run_metric_is_there(&validation->metric))
		return true;
	error_set(error, "55000", "weights of LPIPS are not imported");
	error_detail(error, "The option \"keep_metric\" is \"%s\".",
				 bicycle_measure_names[NN_MEASURE_LPIPS]);
	error_hint(error, "Import them with \"make lpips\", or with bicycle_import_lpips, and resume "
					  "the job.");
	return false;
}

bool
run_validation_complete(RunValidation *validation, RunData *pairs, Engine *engine,
						const NnConfig *config, const NnTrainOptions *options, EngineError *error)
{
	RunData *data = &validation->data;
	NnTrainOptions decode = *options;
	uint64_t image = (uint64_t) config->size * (uint64_t) config->size;
	uint64_t bytes =
		(uint64_t) data->nread * image * (uint64_t) (config->input_nc + config->output_nc);

	if (data->nread == 0)
	{
		error_set(error, "22023", "there are no validation pairs");
		error_detail(error, "The query of the option \"validation\" gave no rows.");
		return false;
	}
	if (!check_metric(validation, options, error) || !check_pixels(data, bytes, pairs, error) ||
		!run_data_complete(data, error))
		return false;
	decode.load_size = config->size;
	run_feed_prepare(&validation->feed, engine, data, config, &decode);
	pairs->others = data->memory + bytes;
	return true;
}

int64_t
run_validation_overlap(const RunValidation *validation, const RunData *pairs)
{
	const RunData *data = &validation->data;
	int64_t n = 0;

	for (int64_t i = 0, k = 0; i < data->npairs; i++)
	{
		int order = 1;

		while (k < pairs->npairs &&
			   (order = memcmp(pairs->pairs[k].hash, data->pairs[i].hash, BICYCLE_HASH_BYTES)) < 0)
			k++;
		n += k < pairs->npairs && order == 0;
	}
	return n;
}

/* ---- Measuring ----------------------------------------------------------- */

static int
samples_of(const NnConfig *config)
{
	return config->nz > 0 ? RUN_VALIDATION_SAMPLES : 1;
}

bool
run_validation_foresee(const RunValidation *validation, const NnConfig *config, NnFitLooks *looks,
					   NnConfig *metric, EngineError *error)
{
	const RunMetric *sent = &validation->metric;
	NnError nn_error = { 0 };

	nn_config_default(metric);
	if (!validation->on || !run_metric_is_there(sent))
		return true;
	if (nn_config_parse(metric, sent->config, sent->load.config_length, &nn_error) != NN_OK ||
		nn_config_check(metric, &nn_error) != NN_OK)
		return error_from_nn(error, &nn_error);
	if (metric->metric == NN_METRIC_NONE)
		return true; /* which is an error when it is opened */
	looks->metric = metric;
	looks->pairs = run_look_pairs(config, samples_of(config), validation->data.npairs);
	return true;
}

bool
run_validation_open(RunValidation *validation, const NnConfig *config, NnDevice *device,
					EngineError *error)
{
	if (!validation->on)
		return true;
	return run_look_open(&validation->look, config, samples_of(config), validation->data.npairs,
						 error) &&
		   (!run_metric_is_there(&validation->metric) ||
			run_metric_open(&validation->metric, device, &validation->look, error));
}

bool
run_validation_is_due(const RunValidation *validation, int64_t iteration, int64_t iterations,
					  int64_t every)
{
	return validation->on && (iteration == iterations || iteration % every == 0);
}

static void
add_metric(RunMeasured *measured, NnMeasure metric, double value)
{
	measured->value[metric] += value;
	measured->present[metric] = true;
}

/* How near the first image of each pair is to its target. */
static bool
measure_distances(RunValidation *validation, RunMeasured *measured, EngineError *error)
{
	const RunLook *look = &validation->look;
	RunMetric *metric = &validation->metric;

	for (int i = 0; i < look->n; i++)
		add_metric(measured, NN_MEASURE_L1, run_look_distance(look, i));
	if (!run_metric_is_there(metric))
		return true;
	if (!run_metric_compare(metric, look, error))
		return false;
	for (int i = 0; i < look->n; i++)
		add_metric(measured, NN_MEASURE_LPIPS, (double) metric->distances[i]);
	return true;
}

/* Without an encoder the first sample is what is compared with the target. */
static bool
measure_rows(RunValidation *validation, NnFit *fit, RunMeasured *measured, EngineError *error)
{
	RunLook *look = &validation->look;
	bool encoder = nn_measure_exists(look->config, NN_MEASURE_Z_L1);
	bool varies = nn_measure_exists(look->config, NN_MEASURE_DIVERSITY);

	if (encoder && (!run_look_reconstruct(look, fit, error) ||
					!measure_distances(validation, measured, error)))
		return false;
	if (!run_look_sample(look, fit, error) ||
		(!encoder && !measure_distances(validation, measured, error)))
		return false;
	for (int i = 0; varies && i < look->n; i++)
		add_metric(measured, NN_MEASURE_DIVERSITY, run_look_diversity(look, i));
	if (encoder && !run_look_read(look, fit, error))
		return false;
	for (int i = 0; encoder && i < look->n; i++)
		add_metric(measured, NN_MEASURE_Z_L1, run_look_latent(look, i));
	return true;
}

/* Rows from `first` on, as many as can be looked at. */
static void
look_at_pairs(RunValidation *validation, int64_t first, uint64_t seed)
{
	RunLook *look = &validation->look;
	const NnConfig *config = look->config;
	size_t a_bytes = (size_t) config->size * (size_t) config->size * (size_t) config->input_nc;
	int n = run_look_begin(look, validation->data.npairs - first);

	for (int i = 0; i < n; i++)
	{
		const uint8_t *pixels = validation->data.pairs[first + i].pixels;
		uint64_t code = (uint64_t) ((first + i) * look->samples);

		INVARIANT(pixels != NULL);
		run_look_at(look, i, pixels, pixels + a_bytes);
		for (int sample = 0; sample < look->samples; sample++)
			nn_normal(seed, VALIDATION_STREAM | (code + (uint64_t) sample), config->nz,
					  run_look_code(look, i, sample));
	}
}

bool
run_validation_measure(RunValidation *validation, NnFit *fit, uint64_t seed, RunMeasured *measured,
					   EngineError *error)
{
	int64_t rows = validation->data.npairs;

	memset(measured, 0, sizeof(*measured));
	for (int64_t row = 0; row < rows; row += validation->look.n)
	{
		executor_progress();
		look_at_pairs(validation, row, seed);
		if (!measure_rows(validation, fit, measured, error))
			return false;
	}
	for (int i = 0; i < NN_MEASURES; i++)
		measured->value[i] /= (double) rows;
	return true;
}
