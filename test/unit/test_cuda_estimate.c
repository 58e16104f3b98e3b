/*
 * Proves that what memory is checked against before a training job starts is
 * what the CUDA device then takes, previews, what compares images in validation
 * and the copy for a checkpoint included, on the imitated GPU of test/cuda:
 * never less than that, and more only by what the convolutions' work spaces are
 * below their limit; for each method, and for options that change what is kept.
 * At the official size those limits are a quarter of the whole at most.
 */
#include "train_fixture.h"

#include "metric_model.h"

#include "nn/cuda/conv.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

#define LOOK 4  /* images of a preview */
#define PLANS 3 /* of 1, 2 and 4 images, for each network */
#define PIXELS (64 * 64 * 3)
#define COMPARED (128 * 128 * 3)
#if defined(__SANITIZE_ADDRESS__)
#define PAIRS 1
#else
#define PAIRS 2 /* that are compared at a time */
#endif
#define METRIC_PLANS (PAIRS + 1) /* of 1, 2 and, of two pairs, 4 images */

/* What the work spaces of a fit and of its previews have together at most. */
static size_t
work_spaces(const Run *run)
{
	return (1 + (run->config.net_e != NN_ENCODER_NONE ? 2 : 1) * PLANS) * CUDA_MAX_WORKSPACE;
}

static bool
estimate(NnDevice *device, const char *json, NnPrecision precision, const NnConfig *metric,
		 NnFitNeeds *needs, Run *run)
{
	NnFitLooks looks = { .images = LOOK, .metric = metric, .pairs = PAIRS };

	return went_well(nn_train_options_parse(&run->config, &run->options, json, strlen(json),
											&train_error)) &&
		   went_well(nn_fit_estimate(device, &run->config, &run->options, precision, &looks, needs,
									 &train_error));
}

/* Plans for what looks at a fit asks for, with all that floats take. */
static bool
look_at_all(Run *run)
{
	static float images[LOOK * PIXELS], made[LOOK * PIXELS], codes[2][LOOK * 8];
	bool good = true;

	for (int n = LOOK; good && n > 0; n /= 2)
		for (int i = 0; good && i < NN_STARTS; i++)
		{
			good = went_well(nn_fit_translate(run->fit, n, images, codes[0], made, &train_error));
			gpu_settings->idle = 1; /* the weights were looked at */
			if (run->config.net_e != NN_ENCODER_NONE)
				good = good && went_well(nn_fit_encode(run->fit, n, images, codes[0], codes[1],
													   &train_error));
		}
	gpu_settings->idle = 0;
	return good;
}

static void
test_copy(NnDevice *device, const Run *run, size_t copy, const char *method)
{
	size_t used = gpu_memory_used(), taken = 0;
	NnFitSnapshot *snapshot = NULL;

	if (went_well(nn_fit_snapshot(run->fit, &snapshot, &train_error)))
		taken = gpu_memory_used() - used;
	nn_snapshot_free(snapshot);
	nn_device_set_memory(device, used + copy - 1);
	ok(taken == copy && nn_fit_snapshot(run->fit, &snapshot, &train_error) == NN_ENOMEM,
	   "%s: a copy takes the %zu bytes that were foreseen", method, copy);
}

static void
test_taken(NnDevice *device, const char *method, const char *more, NnPrecision precision)
{
	char json[256];
	Run run = { .device = device };
	size_t before = gpu_memory_used(), taken = 0, limits;
	NnFitNeeds needs = { 0 };
	bool good;

	snprintf(json, sizeof(json), "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"method\":\"%s\"%s}",
			 method, more);
	good = estimate(device, json, precision, NULL, &needs, &run);
	nn_device_set_memory(device, before + needs.bytes + needs.copy);
	good = good &&
		   went_well(nn_fit_open(device, &run.config, &run.options, precision, 4, NULL, 0, &run.fit,
								 &train_error)) &&
		   look_at_all(&run);
	nn_device_trim(device);
	taken = gpu_memory_used() - before;
	limits = work_spaces(&run);
	ok(good && taken <= needs.bytes && needs.bytes - taken <= limits &&
		   needs.bytes - taken > limits - CUDA_MAX_WORKSPACE / 8,
	   "%s%s in %s: %zu bytes of %zu", method, more, nn_precision_name(precision), taken,
	   needs.bytes);
	if (good)
		test_copy(device, &run, needs.copy, method);
	nn_fit_close(run.fit);
	nn_device_set_memory(device, 1); /* nothing is kept */
	nn_device_set_memory(device, 0);
}

/* Pairs of so many images, none of which has been seen; one is a pair alone. */
static bool
compare_new(NnModel *model, int images)
{
	static uint8_t pairs[2 * PAIRS * COMPARED], number;
	static float features[2 * PAIRS * 512];
	float distances[PAIRS];

	for (int i = 0; i < 2 || i < images; i++)
		memset(pairs + (size_t) i * COMPARED, i < images ? ++number : number, COMPARED);
	return went_well(nn_model_compare(model, (NnExtent){ 128, 128 }, (images + 1) / 2, pairs,
									  distances, features, &train_error));
}

/*
 * What compares a run's images with their targets, at their size, which is not
 * what its weights are packed for.
 */
static void
test_metric(NnDevice *device)
{
	static const char json[] = "{\"size\":128,\"ngf\":4,\"nef\":4,\"ndf\":4}";
	const size_t limits = METRIC_PLANS * CUDA_MAX_WORKSPACE;
	Run run = { .device = device };
	NnFitNeeds without = { 0 }, with = { 0 };
	size_t before = gpu_memory_used(), taken, more, ports;
	Metric metric;
	bool good = metric_make(&metric, "alex", "0.1", &train_error) &&
				estimate(device, json, NN_PRECISION_BF16, NULL, &without, &run) &&
				estimate(device, json, NN_PRECISION_BF16, &metric.config, &with, &run);

	good =
		good && went_well(nn_model_load(device, &metric.config, NN_PRECISION_FP32, metric.tensors,
										metric.params.n, &metric.model, &train_error));
	for (int n = 2 * PAIRS; good && n > 0; n /= 2)
		good = compare_new(metric.model, n);
	/* those for floats, which images have no use for, and are counted */
	ports = COMPARED + nn_metric_numbers(&metric.config, (NnExtent){ 128, 128 }) +
			(size_t) nn_metric_features(&metric.config);
	ports *= NN_STARTS * (4 * PAIRS - 1) * sizeof(float);
	nn_device_trim(device);
	taken = gpu_memory_used() - before;
	more = with.bytes - without.bytes;
	ok(good && with.copy == without.copy && taken <= more && more - taken <= limits + ports &&
		   more - taken > limits - CUDA_MAX_WORKSPACE / 8,
	   "LPIPS: %zu bytes of %zu", taken, more);
	metric_free(&metric);
}

static void
test_official(NnDevice *device, const char *json)
{
	Run run = { .device = device };
	NnFitNeeds needs = { 0 };
	bool good = estimate(device, json, NN_PRECISION_BF16, NULL, &needs, &run);

	ok(good && needs.bytes / 4 > work_spaces(&run), "%s takes %zu bytes, and a copy %zu", json,
	   needs.bytes, needs.copy);
}

int
main(void)
{
	static const char *const methods[] = { "bicycle", "cvae_gan", "cvae_gan++",
										   "cae_gan", "clr_gan",  "pix2pix_noise" };
	static const char *const options[] = {
		",\"norm\":\"batch\",\"ema\":0.9",
		",\"batch_size\":4,\"accumulate\":2",
		",\"dropout\":true,\"where_add\":\"input\",\"upsample\":\"bilinear\"",
		",\"net_e\":\"conv\",\"num_ds\":1,\"nz\":3",
	};
	NnDevice *device = NULL;

	if (!ok(bicycle_cuda_module.open(0, 1, &device, &train_error) == NN_OK, "the device opens"))
		return done_testing();
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		test_taken(device, methods[i], "", i % 2 ? NN_PRECISION_BF16 : NN_PRECISION_FP32);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		test_taken(device, "bicycle", options[i], i % 2 ? NN_PRECISION_FP32 : NN_PRECISION_BF16);
	test_metric(device);
	test_official(device, "{}");
	test_official(device, "{\"method\":\"pix2pix_noise\"}");
	nn_device_close(device);
	return done_testing();
}
