/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda, what sizes other
 * than a model's own come to: images are the reference device's, in half
 * precision nearly; bytes depend neither on their place in a batch nor on plans
 * that were dropped and made anew; plans are counted, go when room is wanted,
 * and are not captured.
 */
#include "model_fixture.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

#define SIZE 64
#define MOST (2 * 3 * SIZE * SIZE * 3) /* bytes of two images of three squares */

extern const NnCudaModule bicycle_cuda_module;

static const NnExtent extents[] = { { 64, 128 }, { 192, 64 }, { 64, 64 } };
static float z[2 * 8];

/* Two images of an extent, in bytes. */
static bool
translate(NnModel *model, NnExtent e, int n, uint8_t *out)
{
	static uint8_t in[MOST];

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t) (i * 2654435761u >> 24);
	if (nn_model_translate_at(model, e, n, in, z, out, &error) == NN_OK)
		return true;
	diag("%s: %s", error.message, error.detail);
	return false;
}

static double
psnr(const uint8_t *a, const uint8_t *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double) (a[i] - b[i]) * (a[i] - b[i]);
	return sum > 0 ? 10 * log10(255.0 * 255 * n / sum) : INFINITY;
}

/* The reference computes in fp32; `least` is in dB. */
static void
test_numbers(NnModel *naive, NnModel *model, double least)
{
	static uint8_t expected[MOST], got[MOST];
	double worst = INFINITY;

	for (int run = 0; run < 6; run++)
	{
		NnExtent e = extents[run % 3];

		if (!translate(naive, e, 1, expected) || !translate(model, e, 1, got))
			worst = -INFINITY;
		worst = fmin(worst, psnr(expected, got, (size_t) e.h * e.w * 3));
	}
	ok(worst >= least, "wide and tall images are the reference's in %s: PSNR %.1f dB",
	   nn_precision_name(nn_model_precision(model)), worst);
}

static void
test_bytes(NnModel *model)
{
	static uint8_t both[2][MOST], alone[MOST];
	bool same = true;

	for (int i = 0; i < 2; i++)
	{
		NnExtent e = extents[i];
		size_t image = (size_t) e.h * e.w * 3;

		same &= translate(model, e, 1, alone) && translate(model, e, 2, both[0]);
		nn_model_keep_extents(model, 0);
		same &= nn_model_extents_bytes(model) == 0 && translate(model, e, 2, both[1]) &&
				memcmp(both[0], both[1], 2 * image) == 0;
		same &= psnr(alone, both[0], image) >= 50;
	}
	ok(same, "in %s bytes do not depend on plans that were dropped, nor but for a level on a batch",
	   nn_precision_name(nn_model_precision(model)));
}

static void
test_memory(NnModel *model)
{
	static float floats[SIZE * SIZE * 3];
	static uint8_t out[MOST];
	size_t loaded;

	(void) nn_model_prepare(model, &error);
	/* and what floats take at its own size, in each slot */
	for (int run = 0; run < NN_STARTS; run++)
		(void) nn_model_translate_float(model, 1, floats, z, floats, &error);
	nn_model_shrink(model);
	loaded = nn_model_bytes(model);
	ok(translate(model, extents[0], 1, out) && translate(model, extents[1], 1, out) &&
		   nn_model_extents_bytes(model) > 0 &&
		   nn_model_bytes(model) >= loaded + nn_model_extents_bytes(model),
	   "plans of other sizes are counted");
	nn_model_shrink(model);
	ok(nn_model_bytes(model) == loaded, "and go when room is wanted");
}

/* Images of the model's own size, or of another, four times. */
static long
captured_runs(NnModel *model, NnExtent extent, bool *ran)
{
	size_t count = (size_t) extent.h * extent.w * 3;
	float *x = calloc(count, sizeof(float)), *y = calloc(count, sizeof(float));
	long before = gpu_graphs_run();

	for (int run = 0; run < 4; run++)
		*ran &= nn_model_translate_float_at(model, extent, 1, x, z, y, &error) == NN_OK;
	free(x);
	free(y);
	return gpu_graphs_run() - before;
}

static void
test_passing(NnModel *model)
{
	bool ran = true;
	long own = captured_runs(model, (NnExtent){ SIZE, SIZE }, &ran),
		 other = captured_runs(model, (NnExtent){ SIZE, 2 * SIZE }, &ran);

	ok(ran && own > 0 && other == 0,
	   "a model's own size is captured and replayed (%ld times), another is not (%ld)", own, other);
}

int
main(void)
{
	static const struct
	{
		NnPrecision precision;
		double least;
	} cases[] = { { NN_PRECISION_FP32, 60 }, { NN_PRECISION_BF16, 40 }, { NN_PRECISION_FP16, 50 } };
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"net_e\":\"none\"}");
	NnDevice *ref, *device;
	NnModel *naive;

	nn_normal(7, 7, 2 * 8, z);
	if (!ok(nn_device_open("ref", 1, &ref, &error) == NN_OK &&
				bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK,
			"devices open"))
		return done_testing();
	naive = model_fixture_load(ref, &f, NN_PRECISION_FP32);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		NnModel *model = model_fixture_load(device, &f, cases[i].precision);

		test_numbers(naive, model, cases[i].least);
		test_bytes(model);
		if (i == 0)
		{
			test_memory(model);
			test_passing(model);
		}
		nn_model_free(model);
	}
	nn_model_free(naive);
	nn_device_close(device);
	nn_device_close(ref);
	model_fixture_free(&f);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	return done_testing();
}
