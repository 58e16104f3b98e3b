/*
 * Proves that every operator of the CPU device computes what the reference
 * device does, in fp32 to 1e-10 of the mean square and in bf16 (where the
 * device has it, and by emulated products, of the smaller ones) to 1e-4.
 * BICYCLE_TEST_DEVICE=cuda proves it of a GPU, to 1e-9; BICYCLE_TEST_SMALL
 * leaves the larger convolutions out, and what is emulated, for tools that are
 * slow.
 */
#define MAX_PRODUCTS max_products
static double max_products;

#include "emulated.h"
#include "nn/cpu/cpu.h"
#include "op_forward.h"

int
main(void)
{
	const char *name = getenv("BICYCLE_TEST_DEVICE");
	NnDevice *ref, *device;
	NnError error = { 0 };

	if (!ok(nn_device_open("ref", 1, &ref, &error) == NN_OK &&
				nn_device_open(name ? name : "cpu", 2, &device, &error) == NN_OK,
			"both devices open"))
	{
		diag("%s: %s", error.message, error.detail);
		return done_testing();
	}
	max_products = getenv("BICYCLE_TEST_SMALL") ? 1.5e6 : INFINITY;
	diag("%s", nn_device_describe(device));
	test_forward(ref, device, NN_PRECISION_FP32, name ? 1e-9 : 1e-10);
	for (int precision = NN_PRECISION_BF16; precision <= NN_PRECISION_TF32; precision++)
		if (nn_device_supports(device, (NnPrecision) precision) &&
			(precision == NN_PRECISION_BF16 || name))
			test_forward(ref, device, (NnPrecision) precision, 1e-4);
	max_products = 3e6;
	for (int i = 0; !name && !getenv("BICYCLE_TEST_SMALL") && i < EMULATED; i++)
		if (emulated[i]->bytes == 2)
		{
			diag("%s, emulated", emulated[i]->name);
			((CpuDevice *) device->state)->bf16 = emulated[i];
			test_forward(ref, device, NN_PRECISION_BF16, 1e-4);
		}
	nn_device_close(ref);
	nn_device_close(device);
	return done_testing();
}
