/*
 * Proves that network L gives the distances of the lpips package's own code on
 * the CUDA device, too, whose kernels run here on the imitated GPU of
 * test/cuda: to 1e-5, with both backbones, in batches as alone.
 */
#include "metric_fixture.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

/* Of the other backbone one pair, as it is slow here. */
static void
test_vgg(NnDevice *device)
{
	const Expected *pair = expected;
	Metric m;

	while (strcmp(pair->net, "vgg") != 0)
		pair++;
	if (ok(metric_make(&m, "vgg", pair->version, &error) &&
			   nn_model_load(device, &m.config, NN_PRECISION_AUTO, m.tensors, m.params.n, &m.model,
							 &error) == NN_OK,
		   "the other backbone loads"))
		test_expected(&m, pair);
	metric_free(&m);
}

int
main(void)
{
	NnDevice *device;

	if (!ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	test_device(device, "alex", false);
	test_vgg(device);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	return done_testing();
}
