/*
 * Proves that a model gives, for each image, the same bits alone and in any
 * place of any batch; that bytes are normalised and quantised as the official
 * code does it; and that its memory is counted and bounded.
 */
#include "model_fixture.h"
#include "progress.h"

#include <math.h>
#include <pthread.h>

#define IMAGES 7 /* 4 + 2 + 1 */
#define SIZE 64

static void
fill_bytes(uint8_t *bytes, size_t count, uint32_t seed)
{
	for (size_t i = 0; i < count; i++)
	{
		seed = seed * 1664525u + 1013904223u;
		bytes[i] = (uint8_t) (seed >> 24);
	}
}

/* ---- Bits ---------------------------------------------------------------- */

typedef struct Batch
{
	uint8_t in[IMAGES * SIZE * SIZE * 3];
	uint8_t out[IMAGES * SIZE * SIZE * 3];
	float z[IMAGES * 8];
	float mu[IMAGES * 8];
	float logvar[IMAGES * 8];
} Batch;

/*
 * Runs images first .. first + n - 1 of `all` as one batch; whether the results
 * are those in `all`.
 */
static bool
part_is_same(NnModel *model, const Batch *all, int first, int n)
{
	static Batch part;
	const NnConfig *c = nn_model_config(model);
	size_t in = (size_t) SIZE * SIZE * c->input_nc, out = (size_t) SIZE * SIZE * c->output_nc,
		   encoded = n * c->nz * sizeof(float);

	/* E reads the outputs of G: it takes images of that kind */
	return nn_model_translate(model, n, all->in + first * in, all->z + first * c->nz, part.out,
							  &error) == NN_OK &&
		   nn_model_encode(model, n, all->out + first * out, part.mu, part.logvar, &error) ==
			   NN_OK &&
		   memcmp(part.out, all->out + first * out, n * out) == 0 &&
		   memcmp(part.mu, all->mu + first * c->nz, encoded) == 0 &&
		   memcmp(part.logvar, all->logvar + first * c->nz, encoded) == 0;
}

static void
test_bits(NnDevice *device, const char *json)
{
	static Batch all;
	ModelFixture f = model_fixture(json);
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	bool same = true;

	fill_bytes(all.in, sizeof(all.in), 5);
	nn_normal(1, 2, IMAGES * f.config.nz, all.z);
	ok(model && nn_model_translate(model, IMAGES, all.in, all.z, all.out, &error) == NN_OK &&
		   nn_model_encode(model, IMAGES, all.out, all.mu, all.logvar, &error) == NN_OK,
	   "%d images, %s on %s", IMAGES, json, device->name);
	for (int n = 1; model && n <= 5; n++)
		for (int first = 0; first + n <= IMAGES; first += n)
			same &= part_is_same(model, &all, first, n);
	ok(same, "each has the same bytes alone and in batches of 2 to 5");
	nn_model_free(model);
	model_fixture_free(&f);
}

/* ---- Bytes --------------------------------------------------------------- */

static void
test_bytes(NnDevice *device)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nef\":4}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	size_t count = SIZE * SIZE * 3;
	uint8_t in[SIZE * SIZE * 3], out[SIZE * SIZE * 3];
	float *floats = calloc(count, sizeof(float)), *result = calloc(count, sizeof(float)), z[8],
		  mu[2][8], logvar[2][8];
	int wrong = 0;

	fill_bytes(in, count, 9);
	nn_normal(3, 4, 8, z);
	for (size_t i = 0; i < count; i++)
		floats[i] = ((float) in[i] / 255.0f - 0.5f) / 0.5f;
	nn_model_translate(model, 1, in, z, out, &error);
	nn_model_translate_float(model, 1, floats, z, result, &error);
	for (size_t i = 0; i < count; i++)
	{
		/*
		 * in exact arithmetic a rounding of (y + 1) 127.5; a float's rounding
		 * may decide ties
		 */
		double level = ((double) result[i] + 1) * 127.5;

		wrong += fabs(out[i] - level) > 0.5 + 1e-4 || result[i] < -1 || result[i] > 1;
	}
	ok(wrong == 0, "bytes in and out are those of floats in and out, on %s", device->name);
	nn_model_encode(model, 1, in, mu[0], logvar[0], &error);
	nn_model_encode_float(model, 1, floats, mu[1], logvar[1], &error);
	ok(memcmp(mu[0], mu[1], sizeof(mu[0])) == 0 && memcmp(logvar[0], logvar[1], sizeof(mu[0])) == 0,
	   "so for the encoder");
	nn_model_free(model);
	model_fixture_free(&f);
	free(floats);
	free(result);
}

/*
 * Saturated outputs are 0 and 255: weights that drive tanh to -1 and 1, and one
 * that makes no number.
 */
static void
test_extremes(NnDevice *device)
{
	static const struct
	{
		double bias;
		int byte;
	} cases[] = { { -100, 0 }, { 100, 255 }, { NAN, 0 } };

	for (int i = 0; i < 3; i++)
	{
		ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"net_e\":\"none\"}");
		int bias = nn_params_find(&f.params, NN_NET_G, "model.up.1.bias");
		uint8_t in[SIZE * SIZE * 3] = { 0 }, out[SIZE * SIZE * 3];
		float z[8] = { 0 };
		NnModel *model;
		int wrong = 0;

		for (int c = 0; c < 3; c++)
			((float *) f.tensors[bias].data)[c] = (float) cases[i].bias;
		model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
		nn_model_translate(model, 1, in, z, out, &error);
		for (size_t k = 0; k < sizeof(out); k++)
			wrong += out[k] != cases[i].byte;
		ok(wrong == 0, "an output of tanh(%g) is %d on %s", cases[i].bias, cases[i].byte,
		   device->name);
		nn_model_free(model);
		model_fixture_free(&f);
	}
}

/* ---- Memory -------------------------------------------------------------- */

static void
test_memory(NnDevice *device)
{
	static Batch b;
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nef\":4}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	size_t loaded = nn_model_bytes(model), one = nn_model_batch_bytes(model, NN_NET_G, 1, &error),
		   four = nn_model_batch_bytes(model, NN_NET_G, 4, &error),
		   seven = nn_model_batch_bytes(model, NN_NET_G, 7, &error), planned;

	/*
	 * weights of layers may be kept in another layout and without dead biases,
	 * but not in fewer than half the bits
	 */
	ok(loaded >= f.params.total * 2,
	   "a loaded model counts its weights: %zu bytes for %zu parameters on %s", loaded,
	   f.params.total, device->name);
	ok(one > 0 && four > one && seven > four + one,
	   "arenas of 1, 4 and 4 + 2 + 1 images: %zu, %zu, %zu bytes", one, four, seven);
	nn_model_translate(model, 7, b.in, b.z, b.out, &error);
	planned = nn_model_bytes(model);
	ok(planned >= loaded + seven, "planned, they are counted");
	nn_model_translate(model, 7, b.in, b.z, b.out, &error);
	nn_model_translate(model, 3, b.in, b.z, b.out, &error);
	ok(nn_model_bytes(model) == planned, "and kept, not made again");
	ok(nn_model_batch_bytes(model, NN_NET_G, 1 << 20, &error) < (size_t) 1 << 30,
	   "the arenas of a million images stay below 1 GB");
	ok(nn_model_batch_bytes(model, NN_NET_D, 1, &error) == 0 &&
		   strstr(error.message, "no network D"),
	   "a network that is not there has none");
	nn_model_free(model);
	model_fixture_free(&f);
}

/* ---- Loading ------------------------------------------------------------- */

static void
test_refusals(NnDevice *device)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"net_e\":\"none\"}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	float mu[8], logvar[8];
	uint8_t image[SIZE * SIZE * 3] = { 0 };

	ok(nn_model_encode(model, 1, image, mu, logvar, &error) == NN_EINVAL &&
		   strstr(error.message, "no encoder"),
	   "encoding without an encoder is refused");
	nn_model_free(model);
	f.tensors[4].name = "something.else";
	model = NULL;
	ok(nn_model_load(device, &f.config, NN_PRECISION_AUTO, f.tensors, f.params.n, &model, &error) ==
			   NN_EINVAL &&
		   strstr(error.message, "is missing"),
	   "a model that lacks a tensor is refused");
	if (!nn_device_supports(device, NN_PRECISION_BF16))
		ok(nn_model_load(device, &f.config, NN_PRECISION_BF16, f.tensors, f.params.n, &model,
						 &error) == NN_EUNSUPPORTED &&
			   strstr(error.hint, "fp32"),
		   "a precision that %s lacks is refused", device->name);
	model_fixture_free(&f);
}

static void
test_without_latent(NnDevice *device)
{
	static Batch b;
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nz\":0}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);

	ok(model && nn_model_translate(model, 3, b.in, NULL, b.out, &error) == NN_OK,
	   "a generator without a latent code takes none, on %s", device->name);
	nn_model_free(model);
	model_fixture_free(&f);
}

typedef struct Loader
{
	NnDevice *device;
	const ModelFixture *f;
	NnModel *models[8];
	bool good;
} Loader;

static void *
load_many(void *argument)
{
	Loader *l = argument;

	l->good = true;
	for (int i = 0; i < 8; i++)
	{
		NnError mine;

		l->good &= nn_model_load(l->device, &l->f->config, NN_PRECISION_AUTO, l->f->tensors,
								 l->f->params.n, &l->models[i], &mine) == NN_OK;
	}
	return NULL;
}

static void
test_loading_beside_running(NnDevice *device)
{
	static Batch b;
	static uint8_t expected[sizeof(b.out)];
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nef\":4}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	Loader loader = { .device = device, .f = &f };
	pthread_t thread;
	bool same = true;

	fill_bytes(b.in, sizeof(b.in), 77);
	nn_normal(7, 7, IMAGES * 8, b.z);
	nn_model_translate(model, IMAGES, b.in, b.z, expected, &error);
	pthread_create(&thread, NULL, load_many, &loader);
	for (int i = 0; i < 4; i++)
	{
		same &= nn_model_translate(model, IMAGES, b.in, b.z, b.out, &error) == NN_OK;
		same &= memcmp(b.out, expected, sizeof(expected)) == 0;
	}
	pthread_join(thread, NULL);
	ok(same && loader.good, "models load on another thread while one runs on %s", device->name);
	for (int i = 0; i < 8 && loader.good; i++)
	{
		same &= nn_model_translate(loader.models[i], IMAGES, b.in, b.z, b.out, &error) == NN_OK;
		same &= memcmp(b.out, expected, sizeof(expected)) == 0;
		nn_model_free(loader.models[i]);
	}
	ok(same, "and give what it gives");
	nn_model_free(model);
	model_fixture_free(&f);
}

static void
test_devices(NnDevice *device)
{
	ok(strncmp(nn_device_describe(device), device->name, strlen(device->name)) == 0, "%s",
	   nn_device_describe(device));
	ok(nn_device_set_threads(device, 1) == 1 && nn_device_supports(device, NN_PRECISION_FP32),
	   "%s runs on one thread and in fp32", device->name);
}

/*
 * Whoever watches hears of each layer, and on the naive device of each row of a
 * convolution.
 */
static void
test_watch(NnDevice *device)
{
	static Batch all;
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nef\":4}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	int least = strcmp(device->name, "ref") == 0 ? 4 * 2 * (32 + 16 + 8 + 4 + 2 + 1) : 12;
	bool translated;

	fill_bytes(all.in, sizeof(all.in), 5);
	nn_normal(1, 2, 4 * f.config.nz, all.z);
	nn_device_watch(device, on_progress);
	progress = 0;
	translated = model && nn_model_translate(model, 4, all.in, all.z, all.out, &error) == NN_OK;
	ok(translated && progress >= least,
	   "four images on %s: their watchdog hears %d times of progress", device->name, progress);
	nn_device_watch(device, NULL);
	progress = 0;
	ok(model && nn_model_translate(model, 4, all.in, all.z, all.out, &error) == NN_OK &&
		   progress == 0,
	   "and nothing any more when it has gone");
	nn_model_free(model);
	model_fixture_free(&f);
}

/*
 * Of floats of all sizes, those beside borders of levels, and what is no
 * number: the nearest level, of two that are as near the even one.
 */
static void
test_quantise(void)
{
	enum
	{
		SOME = 4099
	};
	static float values[SOME];
	static uint8_t levels[SOME];
	size_t wrong = 0;

	for (uint64_t bits = 0, at = 0; bits <= UINT32_MAX; bits += 104729, at = (at + 1) % SOME)
	{
		float border = (float) (bits % 511) / 255.0f - 1.0f;
		uint32_t some = (uint32_t) bits;

		if (bits % 2)
			values[at] = bits % 3 ? nextafterf(border, bits % 4 == 1 ? 2.0f : -2.0f) : border;
		else
			memcpy(&values[at], &some, sizeof(some));
		if (at < SOME - 1)
			continue;
		nn_quantise(values, SOME, levels);
		for (size_t i = 0; i < SOME; i++)
		{
			float level = rintf((values[i] + 1.0f) * 127.5f);

			wrong += levels[i] != (level >= 255.0f ? 255 : level > 0.0f ? (int) level : 0);
		}
	}
	ok(wrong == 0, "floats become the nearest levels (wrong: %zu)", wrong);
}

int
main(void)
{
	static const char *const names[] = { "ref", "cpu" };

	for (int i = 0; i < 2; i++)
	{
		NnDevice *device;

		if (!ok(nn_device_open(names[i], 2, &device, &error) == NN_OK, "device %s opens", names[i]))
			continue;
		test_bits(device, "{\"size\":64,\"ngf\":4,\"nef\":4}");
		test_bits(device, "{\"size\":64,\"ngf\":5,\"nef\":6,\"where_add\":\"input\",\"upsample\":"
						  "\"bilinear\",\"input_nc\":1,\"net_e\":\"conv\",\"nz\":3}");
		test_bits(
			device,
			"{\"size\":64,\"ngf\":6,\"nef\":3,\"norm\":\"batch\",\"output_nc\":1,\"nl\":\"elu\"}");
		test_bytes(device);
		test_extremes(device);
		test_memory(device);
		test_refusals(device);
		test_without_latent(device);
		test_loading_beside_running(device);
		test_watch(device);
		test_devices(device);
		nn_device_close(device);
	}
	{
		NnDevice *device;

		ok(nn_device_open("abacus", 1, &device, &error) == NN_EUNSUPPORTED &&
			   strstr(error.message, "no device \"abacus\""),
		   "there is no other device");
	}
	test_quantise();
	return done_testing();
}
