/*
 * cuda_fixture.h
 *	  The CUDA device on the imitated GPU of test/cuda, and the least of models,
 *	  for the tests of what it does with models.
 * `error` is what the last call that failed has said.
 */
#ifndef BICYCLE_CUDA_FIXTURE_H
#define BICYCLE_CUDA_FIXTURE_H

#include "model_fixture.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

#define IMAGES 11
#define FEW 9 /* of which one runs beside the others */
#define SIZE 64
#define PIXELS (SIZE * SIZE)

extern const NnCudaModule bicycle_cuda_module;

static uint8_t images[IMAGES * PIXELS * 3], expected[IMAGES * PIXELS * 3], got[IMAGES * PIXELS * 3];
static float z[IMAGES * 8];

static NnDevice *
open_device(void)
{
	NnDevice *device = NULL;

	if (bicycle_cuda_module.open(0, 1, &device, &error) != NN_OK)
		diag("%s: %s", error.message, error.detail);
	return device;
}

static void
fill_images(void)
{
	for (size_t i = 0; i < sizeof(images); i++)
		images[i] = (uint8_t) (i * 2654435761u >> 24);
	nn_normal(7, 7, IMAGES * 8, z);
}

/* Fills `expected` by the least of models. */
__attribute__((unused)) static bool
make_small(const ModelFixture *small)
{
	NnDevice *device = open_device();
	NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
	NnStatus status;

	fill_images();
	status = nn_model_translate(model, FEW, images, z, expected, &error);

	nn_model_free(model);
	nn_device_close(device);
	return status == NN_OK;
}

__attribute__((unused)) static bool
is_small(NnModel *model, int n)
{
	memset(got, 0, sizeof(got));
	return nn_model_translate(model, n, images, z, got, &error) == NN_OK &&
		   memcmp(got, expected, (size_t) n * PIXELS * 3) == 0;
}

#endif /* BICYCLE_CUDA_FIXTURE_H */
