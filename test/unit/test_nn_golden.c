/*
 * Proves that G, E and D compute what the official networks do, on each device:
 * against numbers printed by the official code in float64 for networks of width
 * 8 at 128 x 128, in eight configurations.
 *
 * The reference device is held to 1e-9 of the tensor's root mean square, the
 * others to 1e-4. BICYCLE_TEST_DEVICE=cuda takes a GPU in place of the CPU.
 */
#include "golden_table.h"

int
main(void)
{
	const char *other = getenv("BICYCLE_TEST_DEVICE");
	const char *const names[] = { "ref", other ? other : "cpu" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		NnDevice *device;
		NnError error;

		if (!ok(nn_device_open(names[i], 2, &device, &error) == NN_OK, "device %s opens", names[i]))
			continue;
		test_goldens(device, strcmp(names[i], "ref") == 0 ? 1e-9 : 1e-4);
		nn_device_close(device);
	}
	return done_testing();
}
