/*
 * device.c
 *	  The table of devices, and the thin calls that engine and tests make on one.
 */
#include "nn/graph.h"

#include <string.h>

static const struct
{
	const char *name;
	NnStatus	(*open) (int threads, NnDevice **device, NnError *error);
}			devices[] =
{
	{"ref", nn_ref_open},
	{"cpu", nn_cpu_open},
};

NnStatus
nn_device_open(const char *name, int threads, NnDevice **device, NnError *error)
{
	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		if (strcmp(devices[i].name, name) == 0)
			return devices[i].open(threads, device, error);
	return nn_fail(error, NN_EUNSUPPORTED, "there is no device \"%s\"", name);
}

void
nn_device_close(NnDevice *device)
{
	if (device)
		device->close(device);
}

const char *
nn_device_describe(const NnDevice *device)
{
	return device->describe(device);
}

int
nn_device_set_threads(NnDevice *device, int threads)
{
	device->set_threads(device, threads);
	return device->threads;
}

bool
nn_device_supports(const NnDevice *device, NnPrecision precision)
{
	return device->supports(device, precision);
}
