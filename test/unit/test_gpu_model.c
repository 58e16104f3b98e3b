/*
 * Proves of a real GPU, which BICYCLE_TEST_DEVICE names (else there is nothing
 * to prove): the networks of the official defaults give the reference device's
 * images, in fp32 within one level for 99.9 % of the bytes and in lesser
 * precisions to 40 dB; the same bits in every run; and in other batches within
 * one level in fp32, to 50 dB in half precision.
 */
#include "nn_fixture.h"

#define IMAGES 70 /* 64, then a padded 8 */
#define SIZE 256
#define BYTES ((size_t) SIZE * SIZE * 3)

static NnError error;
static NnConfig config;
static NnParams params;
static NnTensor *tensors;
static uint8_t *images, *expected, /* the first image, by the reference device */
	*got, *again;
static float z[IMAGES * 8], mu[2][8], logvar[2][8];

static NnModel *
load(NnDevice *device, NnPrecision precision)
{
	NnModel *model = NULL;

	if (nn_model_load(device, &config, precision, tensors, params.n, &model, &error) != NN_OK)
		diag("%s: %s %s", error.message, error.detail, error.hint);
	return model;
}

/* The share of bytes that differ by more than one. */
static double
differing(const uint8_t *a, const uint8_t *b, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += abs(a[i] - b[i]) > 1;
	return (double) n / count;
}

static double
psnr(const uint8_t *a, const uint8_t *b, size_t count)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += (double) (a[i] - b[i]) * (a[i] - b[i]);
	return sum > 0 ? 10 * log10(255.0 * 255 * count / sum) : INFINITY;
}

static void
prepare(void)
{
	double *weights;
	NnDevice *ref;
	NnModel *model;

	nn_config_default(&config);
	nn_params_of(&config, 1u << NN_NET_G | 1u << NN_NET_E, &params, &error);
	weights = lcg_weights(&params, 1000);
	tensors = tensors_of(&params, weights);
	free(weights);
	images = malloc(IMAGES * BYTES);
	expected = malloc(BYTES);
	got = malloc(IMAGES * BYTES);
	again = malloc(IMAGES * BYTES);
	for (size_t i = 0; i < IMAGES * BYTES; i++)
		images[i] = (uint8_t) (i * 2654435761u >> 24);
	nn_normal(7, 7, IMAGES * 8, z);
	if (nn_device_open("ref", 1, &ref, &error) != NN_OK)
		return;
	model = load(ref, NN_PRECISION_FP32);
	ok(nn_model_translate(model, 1, images, z, expected, &error) == NN_OK &&
		   nn_model_encode(model, 1, images, mu[0], logvar[0], &error) == NN_OK,
	   "the reference device runs");
	nn_model_free(model);
	nn_device_close(ref);
}

/* Each batch size, against the image by itself. */
static void
test_batches(NnModel *model, NnPrecision precision)
{
	bool fp32 = precision == NN_PRECISION_FP32 || precision == NN_PRECISION_TF32;
	double most = 0, least = INFINITY;
	bool ran = nn_model_translate(model, 1, images, z, again, &error) == NN_OK;

	for (int n = 2; ran && n <= IMAGES; n = n < 64 ? 2 * n : n + 6)
	{
		ran &= nn_model_translate(model, n, images, z, got, &error) == NN_OK;
		most = fmax(most, differing(again, got, BYTES));
		least = fmin(least, psnr(again, got, BYTES));
	}
	ok(ran && (fp32 ? most <= 0.001 : least >= 50),
	   "%s: in other batches a share of %g differs by more than one level, PSNR %.1f dB",
	   nn_precision_name(precision), most, least);
	ran = nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK;
	for (int run = 0; ran && run < 4; run++)
	{
		ran &= nn_model_translate(model, IMAGES, images, z, again, &error) == NN_OK;
		ran &= memcmp(got, again, IMAGES * BYTES) == 0;
	}
	ok(ran, "%s: the same bits in every run", nn_precision_name(precision));
}

static void
test_precision(NnDevice *device, NnPrecision precision)
{
	NnModel *model = load(device, precision);
	bool ran = model && nn_model_translate(model, 1, images, z, got, &error) == NN_OK;
	double far = ran ? differing(expected, got, BYTES) : 1,
		   db = ran ? psnr(expected, got, BYTES) : 0, worst = 0;

	ok(precision == NN_PRECISION_FP32 ? far <= 0.001 : db >= 40,
	   "%s: a share of %g differs by more than one level from the reference, PSNR %.1f dB",
	   nn_precision_name(precision), far, db);
	if (!ran)
		return;
	ran = nn_model_encode(model, 1, images, mu[1], logvar[1], &error) == NN_OK;
	for (int i = 0; i < 8; i++)
		worst = fmax(worst, fmax(fabs(mu[0][i] - mu[1][i]), fabs(logvar[0][i] - logvar[1][i])));
	ok(ran && worst < (precision == NN_PRECISION_FP32 ? 1e-4 : 0.05),
	   "%s: the encoder's values are off by %g at most", nn_precision_name(precision), worst);
	test_batches(model, precision);
	diag("%s: %zu MiB", nn_precision_name(precision), nn_model_bytes(model) >> 20);
	nn_model_free(model);
}

int
main(void)
{
	const char *name = getenv("BICYCLE_TEST_DEVICE");
	NnDevice *device;

	if (!name)
	{
		printf("1..0 # SKIP BICYCLE_TEST_DEVICE names no GPU\n");
		return 0;
	}
	if (!ok(nn_device_open(name, 1, &device, &error) == NN_OK, "device %s opens", name))
	{
		diag("%s: %s", error.message, error.detail);
		return done_testing();
	}
	diag("%s", nn_device_describe(device));
	prepare();
	for (int precision = NN_PRECISION_FP32; precision <= NN_PRECISION_TF32; precision++)
		if (nn_device_supports(device, (NnPrecision) precision))
			test_precision(device, (NnPrecision) precision);
	nn_device_close(device);
	return done_testing();
}
