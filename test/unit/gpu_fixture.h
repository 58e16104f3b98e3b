/*
 * gpu_fixture.h
 *	  What the tests of an engine on the imitated GPU of test/cuda share: the
 *	  settings of the GPU, in a file that the engines read too, and which engine
 *	  is started.
 */
#ifndef BICYCLE_GPU_FIXTURE_H
#define BICYCLE_GPU_FIXTURE_H

#include "engine_client.h"

#include "../cuda/runtime/cuda_runtime_api.h"
#include "image/image.h"

#include <limits.h>
#include <sys/mman.h>

static GpuSettings *gpu;
static char gpu_file[] = "/tmp/bicycle-test-gpu-XXXXXX";

/* From now on the engine beside the imitation is started, or the other. */
static void
gpu_fixture_choose(bool imitation)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 40);

	if (n < 0)
		bail_out("cannot find the engine");
	path[n] = '\0';
	*strrchr(path, '/') = '\0';
	strcpy(strrchr(path, '/'), imitation ? "/imitation/bicycle-engine" : "/bicycle-engine");
	setenv("BICYCLE_ENGINE", path, 1);
}

static void
gpu_fixture_begin(void)
{
	int fd = mkstemp(gpu_file);

	if (fd < 0 || ftruncate(fd, sizeof(GpuSettings)) != 0 ||
		(gpu = mmap(NULL, sizeof(GpuSettings), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) ==
			MAP_FAILED)
		bail_out("cannot share the settings of the GPU");
	*gpu = (GpuSettings){ .devices = 1, .driver = 13000, .major = 9, .memory = (size_t) 1 << 30 };
	setenv("BICYCLE_TEST_GPU", gpu_file, 1);
	gpu_fixture_choose(true);
}

static void
gpu_fixture_end(void)
{
	unlink(gpu_file);
}

/* The last frame's, which must be one. */
__attribute__((unused)) static Image
gpu_fixture_image(const Client *client)
{
	ImageLimits limits = { .max_pixels = 1 << 20, .max_memory = 1 << 28 };
	ImageError error;
	Image image = { 0 };

	if (image_decode(client->body, client->frame.length, 3, 0, &limits, &image, &error) != IMAGE_OK)
		bail_out("the engine sent no image: %s", error.message);
	return image;
}

#endif /* BICYCLE_GPU_FIXTURE_H */
