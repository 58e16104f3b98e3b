/*
 * Proves that network L gives the distances of the lpips package's own code on
 * the CUDA device, too, whose kernels run here on the imitated GPU of
 * test/cuda: to 1e-5, in batches as alone.
 */
#include "metric_fixture.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

int
main(void)
{
	NnDevice *device;

	if (!ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	test_device(device, "alex", false);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	return done_testing();
}
