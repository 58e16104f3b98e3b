/*
 * Proves that what memory is checked against before a training job starts is
 * what the CUDA device then takes, on the imitated GPU of test/cuda: never less
 * than that, and more only by what the convolutions' work space is below its
 * limit; for each method, and for options that change what is kept. At the
 * official size that limit is a tenth of the whole at most.
 */
#include "train_fixture.h"

#include "nn/cuda/conv.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

static bool
estimate(NnDevice *device, const char *json, NnPrecision precision, size_t *bytes, Run *run)
{
	return went_well(nn_train_options_parse(&run->config, &run->options, json, strlen(json),
											&train_error)) &&
		   went_well(nn_fit_estimate(device, &run->config, &run->options, precision, bytes,
									 &train_error));
}

static void
test_taken(NnDevice *device, const char *method, const char *more, NnPrecision precision)
{
	char json[256];
	Run run = { .device = device };
	size_t expected = 0, before = gpu_memory_used(), taken = 0;
	bool good;

	snprintf(json, sizeof(json), "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"method\":\"%s\"%s}",
			 method, more);
	good = estimate(device, json, precision, &expected, &run) &&
		   went_well(nn_fit_open(device, &run.config, &run.options, precision, 4, NULL, 0, &run.fit,
								 &train_error));
	taken = gpu_memory_used() - before;
	ok(good && taken <= expected && expected - taken <= CUDA_MAX_WORKSPACE,
	   "%s%s in %s: %zu bytes of %zu", method, more, nn_precision_name(precision), taken, expected);
	nn_fit_close(run.fit);
	nn_device_set_memory(device, 1); /* nothing is kept */
	nn_device_set_memory(device, 0);
}

static void
test_official(NnDevice *device, const char *json)
{
	Run run = { .device = device };
	size_t bytes = 0;
	bool good = estimate(device, json, NN_PRECISION_BF16, &bytes, &run);

	ok(good && bytes / 10 > CUDA_MAX_WORKSPACE, "%s takes %zu bytes", json, bytes);
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
	test_official(device, "{}");
	test_official(device, "{\"method\":\"pix2pix_noise\"}");
	nn_device_close(device);
	return done_testing();
}
