/*
 * Proves that the CPU device survives want of memory: each of its large
 * allocations (packed weights, arenas, workspaces, all by aligned_alloc) is
 * refused in turn, and all after it. The call then returns NN_ENOMEM, nothing
 * stays allocated, and afterwards the same model runs and gives the bits it
 * gave before. So it does when there is none for more threads than a plan had.
 *
 * Under a sanitizer, whose allocator cannot be displaced, there is nothing to
 * prove.
 */
#include "nn_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)

int
main(void)
{
	printf("1..0 # SKIP allocations cannot be refused here\n");
	return 0;
}

#else

#include <pthread.h>

extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

#define EXPORTED __attribute__((visibility("default")))
#define MAX_BLOCKS 4096

static long until_refusal = -1;  /* so many succeed, then none does; -1: all do */
static void *blocks[MAX_BLOCKS]; /* alive, of aligned_alloc */
static int nblocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

EXPORTED void *
aligned_alloc(size_t alignment, size_t size)
{
	void *block = NULL;

	pthread_mutex_lock(&lock);
	if (until_refusal != 0)
	{
		until_refusal -= until_refusal > 0;
		block = __libc_memalign(alignment, size);
		if (block && nblocks < MAX_BLOCKS)
			blocks[nblocks++] = block;
	}
	pthread_mutex_unlock(&lock);
	return block;
}

EXPORTED void
free(void *block)
{
	pthread_mutex_lock(&lock);
	for (int i = nblocks - 1; block && i >= 0; i--)
		if (blocks[i] == block)
		{
			blocks[i] = blocks[--nblocks];
			break;
		}
	pthread_mutex_unlock(&lock);
	__libc_free(block);
}

#define SIZE 128

/*
 * A model of its own from open to close, with the device's large allocations
 * refused from the n-th on (-1: none); G's image in `out`.
 */
static NnStatus
life(long n, const NnConfig *config, const NnTensor *tensors, int ntensors, const float *image,
	 const float *z, float *out)
{
	NnDevice *device;
	NnModel *model = NULL;
	NnError error = { 0 };
	NnStatus status = nn_device_open("cpu", 2, &device, &error);

	if (status != NN_OK)
		return status;
	until_refusal = n;
	status = nn_model_load(device, config, NN_PRECISION_FP32, tensors, ntensors, &model, &error);
	if (status == NN_OK)
	{
		status = nn_model_translate_float(model, 3, image, z, out, &error);
		until_refusal = -1;
		/* what failed for want of memory works once there is some */
		if (status == NN_ENOMEM &&
			nn_model_translate_float(model, 3, image, z, out, &error) != NN_OK)
			status = NN_EDEVICE;
		if (status == NN_OK)
		{
			const NnExtent wide = { SIZE, 2 * SIZE };
			float *other = malloc((size_t) 2 * SIZE * SIZE * 3 * sizeof(float));

			/* at another size, too */
			until_refusal = n < 0 ? -1 : n % 5;
			status = nn_model_translate_float_at(model, wide, 1, image, z, other, &error);
			until_refusal = -1;
			if (status == NN_ENOMEM &&
				nn_model_translate_float_at(model, wide, 1, image, z, other, &error) == NN_OK)
				status = NN_OK;
			free(other);
		}
		nn_model_free(model);
	}
	until_refusal = -1;
	nn_device_close(device);
	return status;
}

/* A plan that could not get ready for more threads gets ready the next time. */
static void
test_threads(const NnConfig *config, const NnTensor *tensors, int ntensors, const float *image,
			 const float *z, const float *expected, float *got)
{
	size_t bytes = (size_t) 3 * SIZE * SIZE * 3 * sizeof(float);
	NnDevice *device;
	NnModel *model = NULL;
	NnError error = { 0 };
	int refused = 0, right = 0;

	if (nn_device_open("cpu", 1, &device, &error) != NN_OK)
		return;
	if (nn_model_load(device, config, NN_PRECISION_FP32, tensors, ntensors, &model, &error) ==
			NN_OK &&
		nn_model_translate_float(model, 3, image, z, got, &error) == NN_OK)
		for (int threads = 2; threads <= 4; threads++)
		{
			nn_device_set_threads(device, threads);
			until_refusal = 0;
			refused += nn_model_translate_float(model, 3, image, z, got, &error) == NN_ENOMEM;
			until_refusal = -1;
			memset(got, 0, bytes);
			right += nn_model_translate_float(model, 3, image, z, got, &error) == NN_OK &&
					 memcmp(expected, got, bytes) == 0;
		}
	ok(refused == 3 && right == 3,
	   "3 plans that lack memory for more threads: %d say so, and %d work when there is some",
	   refused, right);
	nn_model_free(model);
	nn_device_close(device);
}

int
main(void)
{
	size_t pixels = (size_t) SIZE * SIZE * 3;
	NnConfig config;
	NnParams params;
	NnTensor *tensors;
	NnError error;
	double *weights, *image = malloc(3 * pixels * sizeof(double)), z[3 * 8];
	float *images, *zs, *expected = calloc(3 * pixels, sizeof(float)),
						*got = calloc(3 * pixels, sizeof(float));
	long refused = 0, wrong = 0, leaked = 0, differs = 0;
	int before;

	nn_config_default(&config);
	config.size = config.encoder_size = SIZE;
	config.levels = 7;
	config.ngf = config.nef = 16;
	if (!ok(nn_params_of(&config, 1u << NN_NET_G | 1u << NN_NET_E, &params, &error) == NN_OK,
			"the model has parameters"))
		return done_testing();
	weights = lcg_weights(&params, 1000);
	tensors = tensors_of(&params, weights);
	lcg_fill(5, 1, 3 * pixels, image);
	lcg_fill(6, 1, 3 * 8, z);
	images = floats_of(image, 3 * pixels);
	zs = floats_of(z, 3 * 8);

	if (!ok(life(-1, &config, tensors, params.n, images, zs, expected) == NN_OK,
			"it runs with enough memory"))
		return done_testing();
	before = nblocks;
	for (long n = 0;; n++)
	{
		NnStatus status = life(n, &config, tensors, params.n, images, zs, got);

		leaked += nblocks != before;
		if (status == NN_OK)
			break;
		refused++;
		wrong += status != NN_ENOMEM;
	}
	differs = memcmp(expected, got, 3 * pixels * sizeof(float)) != 0;
	ok(refused > 50 && wrong == 0, "%ld refusals, each reported as want of memory (%ld not)",
	   refused, wrong);
	ok(leaked == 0, "nothing stays allocated (%ld times something did)", leaked);
	ok(differs == 0, "and the last, which no refusal met, gives the first one's bits");
	test_threads(&config, tensors, params.n, images, zs, expected, got);
	nn_params_free(&params);
	return done_testing();
}

#endif
