/*
 * Proves that G, E and D on the CUDA device compute what the official networks
 * do: its graphs, weights and kernels on the imitated GPU of test/cuda, with
 * naive convolutions in place of cuDNN's, against the official code's numbers
 * to 1e-4 of the root mean square.
 */
#include "golden_table.h"
#include "nn/cuda/module.h"

extern const NnCudaModule bicycle_cuda_module;

int
main(void)
{
	NnDevice *device;
	NnError error = { 0 };

	if (!ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	test_goldens(device, 1e-4);
	nn_device_close(device);
	return done_testing();
}
