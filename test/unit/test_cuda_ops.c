/*
 * Proves that every operator of the CUDA device computes what the reference
 * device does, without a GPU: device and kernels run on the imitated GPU of
 * test/cuda, with naive convolutions in place of cuDNN's. In fp32 to 1e-9 of
 * the mean square, in bf16 and fp16 to 1e-4. Each case runs three times, so
 * that both slots and a captured plan are seen. Instance norms run once more as
 * on a GPU without clusters of blocks.
 */
#define RUNS 3
#define MAX_PRODUCTS 1.5e6 /* of a convolution; larger ones are for a real GPU */
#include "op_forward.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

/* Another card, of whose code it is remembered that it is older. */
static void
test_older(NnDevice *ref)
{
	NnDevice *device;
	NnError error = { 0 };
	long clusters = gpu_counts().clusters;

	gpu_settings->devices = 2;
	gpu_settings->code = 80;
	if (!ok(bicycle_cuda_module.open(1, 1, &device, &error) == NN_OK, "a second card opens"))
		return;
	for (size_t i = 0; i < CASES; i++)
		if (cases[i].when != IN_TRAINING && cases[i].norm == NN_NORM_INSTANCE &&
			products(&cases[i]) <= MAX_PRODUCTS)
			test_case(ref, device, NN_PRECISION_FP32, 1e-9, &cases[i]);
	ok(clusters > 0 && gpu_counts().clusters == clusters,
	   "clusters were used on the first card, and none on the second");
	nn_device_close(device);
	gpu_settings->code = 0;
}

int
main(void)
{
	NnDevice *ref, *device;
	NnError error = { 0 };

	if (!ok(nn_device_open("ref", 1, &ref, &error) == NN_OK &&
				bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK,
			"both devices open"))
	{
		diag("%s: %s", error.message, error.detail);
		return done_testing();
	}
	diag("%s", nn_device_describe(device));
	test_forward(ref, device, NN_PRECISION_FP32, 1e-9);
	test_forward(ref, device, NN_PRECISION_BF16, 1e-4);
	test_forward(ref, device, NN_PRECISION_FP16, 1e-4);
	ok(gpu_graphs_run() > 0, "captured plans ran: %ld", gpu_graphs_run());
	nn_device_close(device);
	test_older(ref);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	nn_device_close(ref);
	return done_testing();
}
