/*
 * Proves that network L gives the distances that the lpips package's own code
 * gives, with both backbones, in both versions and at odd sizes, to 1e-5, and
 * its features; that the result of a pair depends neither on its batch nor on
 * the size that was run before; that two equal images are 0 apart; what its
 * configuration's text is, and that neither size nor files that are not its own
 * are taken. Weights are random, so that nothing needs to be downloaded;
 * test/gen/lpips.py made the numbers.
 */
#include "metric_fixture.h"

static void
test_config(void)
{
	static const char *const others[] = { "{\"lpips\":\"0.2\",\"net\":\"alex\"}",
										  "{\"lpips\":\"0.1\",\"net\":\"squeeze\"}",
										  "{\"lpips\":\"0.1\"}",
										  "{\"lpips\":\"0.1\",\"net\":\"vgg\",\"nz\":8}" };
	const char *spaced = "{\"net\": \"vgg\", \"lpips\": \"0.0\"}";
	NnConfig config, read;
	char *text = NULL;

	ok(nn_metric_config(&config, "alex", "0.1", &error) == NN_OK &&
		   (text = nn_config_print(&config)) != NULL &&
		   strcmp(text, "{\"lpips\":\"0.1\",\"net\":\"alex\"}") == 0,
	   "its text is one of its own");
	ok(nn_config_parse(&read, spaced, strlen(spaced), &error) == NN_OK &&
		   read.metric == NN_METRIC_VGG && read.unscaled && nn_config_check(&read, &error) == NN_OK,
	   "and is read");
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ok(nn_config_parse(&read, others[i], strlen(others[i]), &error) == NN_EINVAL,
		   "%s is not: %s", others[i], error.message);
	ok(!nn_extent_suits(&config, (NnExtent){ 30, 64 }) &&
		   nn_extent_suits(&config, (NnExtent){ 31, 1000 }) &&
		   !nn_extent_suits(&config, (NnExtent){ NN_MAX_SIDE, NN_MAX_SIDE }),
	   "sizes are from 31 on");
	free(text);
}

static void
test_refusals(NnDevice *device)
{
	Metric m;
	bool keep[64];
	float distance, features[1024];
	uint8_t *pair = calloc(6, 30 * 64);
	NnTensor *tensors;
	int n;

	if (!ok(metric_make(&m, "alex", "0.1", &error), "a model to be refused"))
		return;
	n = m.params.n;
	tensors = calloc(n + 1, sizeof(NnTensor));
	memcpy(tensors, m.tensors, n * sizeof(NnTensor));
	tensors[n] = (NnTensor){ .name = "classifier.1.weight", .network = NN_NET_L };
	ok(nn_metric_check(&m.config, tensors, n + 1, keep, &error) == NN_OK && keep[0] && !keep[n],
	   "of a file with classifiers the rest is kept");
	tensors[n].name = "features.12.weight";
	ok(nn_metric_check(&m.config, tensors, n + 1, keep, &error) == NN_EINVAL &&
		   strstr(error.detail, "features.12.weight"),
	   "another convolution is refused: %s", error.detail);
	ok(nn_metric_check(&m.config, tensors + 1, n - 1, keep, &error) == NN_EINVAL &&
		   strstr(error.detail, tensors[0].name),
	   "so is a missing one: %s", error.detail);
	tensors[0].shape[2] = 7;
	ok(nn_metric_check(&m.config, tensors, n, keep, &error) == NN_EINVAL, "another shape: %s",
	   error.detail);
	tensors[0] = m.tensors[0];
	((float *) m.tensors[2].data)[5] = -1;
	ok(strcmp(m.tensors[2].name, "lin0.model.1.weight") == 0 &&
		   nn_metric_check(&m.config, tensors, n, keep, &error) == NN_EINVAL,
	   "and a negative head: %s", error.detail);
	ok(nn_model_load(device, &m.config, NN_PRECISION_AUTO, m.tensors, n, &m.model, &error) ==
			   NN_OK &&
		   nn_model_compare(m.model, (NnExtent){ 30, 64 }, 1, pair, &distance, features, &error) ==
			   NN_EINVAL &&
		   nn_model_translate(m.model, 1, pair, features, pair, &error) == NN_EINVAL &&
		   nn_model_encode(m.model, 1, pair, features, features, &error) == NN_EINVAL,
	   "it runs neither where it does not fit, nor as another network");
	free(tensors);
	free(pair);
	metric_free(&m);
}

int
main(void)
{
	NnDevice *device;

	if (!ok(nn_device_open("cpu", 2, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	test_config();
	test_device(device, "alex", true);
	test_device(device, "vgg", true);
	test_refusals(device);
	nn_device_close(device);
	return done_testing();
}
