/*
 * device.c
 *	  Opening a device by its name, and the thin calls that engine and tests
 *	  make on one.
 *
 * R1 The CUDA device is a shared library, opened when first asked for: a
 *    program that never asks needs no CUDA, and who asks without having it gets
 *    an error that says what is missing.
 * R2 Devices are opened by one thread of a program.
 */
#include "nn/cuda/module.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

/* ---- CUDA, which is a library of its own --------------------------------- */

/*
 * Opens the module beside this program, or in the directory above, where
 * programs of the build tree have it; NULL, with dlerror(), if it cannot be.
 */
static void *
open_module(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	void *module = NULL;

	for (int up = 0; length > 0 && up < 2 && !module; up++)
	{
		char *slash;

		path[length] = '\0';
		slash = strrchr(path, '/');
		if (!slash || (size_t) (slash - path) + sizeof("/" NN_CUDA_MODULE) > sizeof(path))
			break;
		length = slash - path;
		strcpy(slash, "/" NN_CUDA_MODULE);
		if (access(path, R_OK) == 0 || up == 1)
			module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	}
	return module;
}

bool
nn_cuda_module_fits(const NnCudaModule *module)
{
	static const size_t sizes[] = NN_CUDA_SIZES;

	return memcmp(module->sizes, sizes, sizeof(sizes)) == 0 &&
		   strncmp(module->version, BICYCLE_VERSION, sizeof(module->version)) == 0;
}

/* The module, loaded once and never unloaded: CUDA does not survive that. */
static const NnCudaModule *loaded;

static const NnCudaModule *
cuda_module(NnError *error)
{
	void *module;

	if (loaded)
		return loaded;
	module = open_module();
	loaded = module ? dlsym(module, NN_CUDA_SYMBOL) : NULL;
	if (!loaded)
	{
		const char *why = dlerror();

		nn_fail(error, NN_EUNSUPPORTED, "no CUDA device in this build");
		nn_detail(error, "%s could not be loaded: %s.", NN_CUDA_MODULE,
				  why ? why : "unknown error");
		nn_hint(error, "Build and install with CUDA's compiler and cuDNN, or set "
					   "\"bicycle.device\" to auto or cpu.");
		return NULL;
	}
	if (!nn_cuda_module_fits(loaded))
	{
		loaded = NULL;
		nn_fail(error, NN_EUNSUPPORTED, "CUDA device of another build");
		nn_detail(error, "%s was not built together with this program.", NN_CUDA_MODULE);
		nn_hint(error, "Build and install both again.");
	}
	else
		*loaded->faults = fault_state;
	return loaded;
}

static NnStatus
open_cuda(int index, int threads, NnDevice **device, NnError *error)
{
	const NnCudaModule *module = cuda_module(error);

	return module ? module->open(index, threads, device, error) : NN_EUNSUPPORTED;
}

int
nn_gpu_count(void)
{
	NnError ignored;
	const NnCudaModule *module = cuda_module(&ignored);

	return module ? module->count() : 0;
}

void
nn_gpu_leave(void)
{
	if (loaded)
		loaded->leave();
}

/* ---- All devices --------------------------------------------------------- */

NnStatus
nn_device_open(const char *name, int threads, NnDevice **device, NnError *error)
{
	BicycleDevice kind;
	int index;

	if (!bicycle_device_parse(name, &kind, &index))
		kind = BICYCLE_DEVICE_AUTO;
	switch (kind)
	{
		case BICYCLE_DEVICE_REF:
			return nn_ref_open(threads, device, error);
		case BICYCLE_DEVICE_CUDA:
			return open_cuda(index, threads, device, error);
#ifndef BICYCLE_WITHOUT_CPU
		case BICYCLE_DEVICE_CPU:
			return nn_cpu_open(threads, device, error);
#endif
		default: /* auto is the engine's to resolve */
			return nn_fail(error, NN_EUNSUPPORTED, "there is no device \"%s\"", name);
	}
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

void
nn_device_watch(NnDevice *device, void (*progress)(void))
{
	device->progress = progress;
}

NnPrecision
nn_device_automatic(const NnDevice *device)
{
	return device->automatic;
}

bool
nn_device_memory(const NnDevice *device, NnDeviceMemory *memory)
{
	*memory = (NnDeviceMemory){ 0 };
	if (!device->memory)
		return false;
	device->memory->report(device, memory);
	return true;
}

bool
nn_device_overlaps(const NnDevice *device)
{
	return device->async != NULL;
}

void *
nn_device_pin(NnDevice *device, size_t bytes)
{
	return device->async ? device->async->pin(device, bytes) : NULL;
}

void
nn_device_unpin(NnDevice *device, void *memory)
{
	device->async->unpin(device, memory);
}

bool
nn_device_room(NnDevice *device, NnDeviceRoom *room)
{
	*room = (NnDeviceRoom){ 0 };
	if (!device->memory)
		return false;
	device->memory->room(device, room);
	return true;
}

void
nn_device_trim(NnDevice *device)
{
	if (device->memory)
		device->memory->trim(device);
}

bool
nn_device_trains(const NnDevice *device)
{
	return device->train != NULL;
}

void
nn_device_set_memory(NnDevice *device, size_t bytes)
{
	if (device->memory)
		device->memory->set_limit(device, bytes);
}
