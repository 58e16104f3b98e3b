/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda: images come out
 * as from the reference device, bytes and floats, alone and in any batch, in
 * whatever order streams run, and in parts if the card's cache is small; a
 * watchdog hears of progress; half precision is close to them; memory keeps to
 * its limit; a trace spoils nothing.
 */
#include "cuda_fixture.h"
#include "nn/cuda/conv.h"

#include <limits.h>
#include <unistd.h>

#define EIGHT 8
#define MANY 20 /* images: two parts */

static float mu[2][IMAGES * 8], logvar[2][IMAGES * 8];

/* The share of bytes that differ by more than one. */
static double
differing(void)
{
	size_t n = 0;

	for (size_t i = 0; i < sizeof(expected); i++)
		n += abs(expected[i] - got[i]) > 1;
	return (double) n / sizeof(expected);
}

static double
psnr(void)
{
	double sum = 0;

	for (size_t i = 0; i < sizeof(expected); i++)
		sum += (double) (expected[i] - got[i]) * (expected[i] - got[i]);
	return sum > 0 ? 10 * log10(255.0 * 255 * sizeof(expected) / sum) : INFINITY;
}

/* Fills `expected`, mu[0] and logvar[0] by the reference device. */
static void
make_expected(const ModelFixture *f)
{
	NnDevice *ref;
	NnModel *model;

	fill_images();
	if (nn_device_open("ref", 1, &ref, &error) != NN_OK)
		return;
	model = model_fixture_load(ref, f, NN_PRECISION_FP32);
	ok(nn_model_translate(model, IMAGES, images, z, expected, &error) == NN_OK &&
		   nn_model_encode(model, IMAGES, images, mu[0], logvar[0], &error) == NN_OK,
	   "the reference device runs");
	nn_model_free(model);
	nn_device_close(ref);
}

static void
test_images(NnDevice *device, const ModelFixture *f)
{
	NnModel *model = model_fixture_load(device, f, NN_PRECISION_FP32);
	double worst = 0;
	bool same = nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK;

	ok(same && differing() <= 0.001,
	   "images are the reference's: a share of %g differs by more than one level", differing());
	memset(got, 0, sizeof(got));
	for (int run = 0; run < 4; run++)
		same &= nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK &&
				differing() <= 0.001;
	ok(same && gpu_graphs_run() > 0, "and are so when plans are replayed");
	ok(gpu_waits(true) > 0 && gpu_waits(false) == 0, "who waits for them sleeps");
	ok(nn_model_encode(model, IMAGES, images, mu[1], logvar[1], &error) == NN_OK,
	   "the encoder runs");
	for (int i = 0; i < IMAGES * 8; i++)
		worst = fmax(worst, fmax(fabs(mu[0][i] - mu[1][i]), fabs(logvar[0][i] - logvar[1][i])));
	ok(worst < 1e-4, "and its values are the reference's: %g", worst);
	nn_model_free(model);
}

/* How often a watchdog hears, before a plan is replayed and after it. */
static long replayed;
static int heard[2];

static void
on_progress_of_gpu(void)
{
	heard[gpu_graphs_run() > replayed]++;
}

/* It hears of each launch, and of how far the GPU has come with a replay. */
static void
test_watch(NnDevice *device, const ModelFixture *f)
{
	NnModel *model = model_fixture_load(device, f, NN_PRECISION_FP32);
	bool ran = model && nn_model_prepare(model, &error) == NN_OK;
	int launches;

	nn_device_watch(device, on_progress_of_gpu);
	replayed = LONG_MAX;
	ran = ran && nn_model_translate(model, 1, images, z, got, &error) == NN_OK;
	launches = heard[0];
	for (int run = 0; ran && run < 4; run++)
	{
		heard[0] = heard[1] = 0;
		replayed = gpu_graphs_run();
		ran = nn_model_translate(model, 1, images, z, got, &error) == NN_OK;
	}
	ok(ran && launches >= 12, "a watchdog hears of each step that is launched: %d times", launches);
	ok(ran && heard[0] >= 2 && heard[1] >= 2,
	   "and of a plan that is replayed: %d times before it has run, and %d times after", heard[0],
	   heard[1]);
	nn_device_watch(device, NULL);
	nn_model_free(model);
}

/*
 * An image's bytes do not depend on its batch, but for a level where small maps
 * are computed otherwise (cuda_is_streamed); in one batch not by a bit on its
 * place.
 */
static void
test_batches(NnDevice *device, const ModelFixture *f)
{
	static uint8_t one[PIXELS * 3], turned[IMAGES * PIXELS * 3], again[IMAGES * PIXELS * 3];
	static float turned_z[IMAGES * 8];
	NnModel *model = model_fixture_load(device, f, NN_PRECISION_FP32);
	bool same = nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK, close = same;
	int apart = 0;
	float *floats = calloc(PIXELS * 3, sizeof(float)), *result = calloc(PIXELS * 3, sizeof(float));

	for (int i = 0; i < IMAGES; i += 5)
	{
		close &= nn_model_translate(model, 1, images + (size_t) i * PIXELS * 3, z + i * 8, one,
									&error) == NN_OK;
		for (size_t k = 0; k < sizeof(one); k++)
		{
			int d = abs(one[k] - got[(size_t) i * PIXELS * 3 + k]);

			close &= d <= 1;
			apart += d != 0;
		}
	}
	ok(close && apart * 1000 < PIXELS * 3,
	   "an image alone is as in a batch within a level, in all but %d bytes the same", apart);
	for (int i = 0; i < EIGHT; i++)
	{
		memcpy(turned + (size_t) i * sizeof(one), images + (size_t) (EIGHT - 1 - i) * sizeof(one),
			   sizeof(one));
		memcpy(turned_z + i * 8, z + (EIGHT - 1 - i) * 8, 8 * sizeof(float));
	}
	same &= nn_model_translate(model, EIGHT, images, z, got, &error) == NN_OK &&
			nn_model_translate(model, EIGHT, turned, turned_z, again, &error) == NN_OK;
	for (int i = 0; i < EIGHT; i++)
		same &= memcmp(again + (size_t) i * sizeof(one),
					   got + (size_t) (EIGHT - 1 - i) * sizeof(one), sizeof(one)) == 0;
	ok(same, "and has the same bits at each place of one");
	(void) nn_model_translate(model, 1, images, z, got, &error);
	nn_normalise(images, PIXELS * 3, floats);
	same = nn_model_translate_float(model, 1, floats, z, result, &error) == NN_OK;
	nn_quantise(result, PIXELS * 3, one);
	ok(same && memcmp(one, got, sizeof(one)) == 0, "and as one that is given in floats");
	free(floats);
	free(result);
	nn_model_free(model);
}

/* Kernels of EIGHT images, which are in `got`, on a card with such a cache. */
static long
kernels_by_cache(const ModelFixture *f, int cache, size_t *bytes)
{
	NnDevice *device;
	NnModel *model;
	long kernels;
	bool ran;

	gpu_settings->cache = cache;
	device = open_device();
	model = model_fixture_load(device, f, NN_PRECISION_FP32);
	ran = nn_model_prepare(model, &error) == NN_OK;
	kernels = gpu_counts().kernels;
	memset(got, 0, sizeof(got));
	for (int run = 0; run < 3; run++)
		ran = ran && nn_model_translate(model, EIGHT, images, z, got, &error) == NN_OK;
	kernels = ran ? gpu_counts().kernels - kernels : 0;
	*bytes = nn_model_bytes(model);
	nn_model_free(model);
	nn_device_close(device);
	gpu_settings->cache = 0;
	return kernels;
}

/*
 * Where a layer's result is larger than the cache, images are computed and
 * finished some at a time, with the bits that they have all at once; what lies
 * between takes no more.
 */
static void
test_parts(const ModelFixture *f)
{
	static uint8_t whole[EIGHT * PIXELS * 3];
	size_t bytes, less;
	long kernels = kernels_by_cache(f, 0, &bytes), more;

	memcpy(whole, got, sizeof(whole));
	for (int cache = 400000; cache > 40000; cache /= 3)
	{
		more = kernels_by_cache(f, cache, &less);
		ok(kernels > 0 && more > kernels && memcmp(got, whole, sizeof(whole)) == 0 && less <= bytes,
		   "in parts that a cache of %d bytes holds images have the same bits: %ld kernels for "
		   "%ld, %zu bytes for %zu",
		   cache, more, kernels, less, bytes);
		kernels = more;
		bytes = less;
	}
}

static void
test_half(const ModelFixture *f)
{
	NnDevice *device = open_device();
	NnModel *model = model_fixture_load(device, f, NN_PRECISION_AUTO);
	bool ran = model && nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK;

	ok(ran && nn_model_precision(model) == NN_PRECISION_BF16 && psnr() >= 40,
	   "auto is bf16 on compute capability 9.0: PSNR %.1f dB", psnr());
	nn_model_free(model);
	nn_device_close(device);
	gpu_settings->major = 7;
	gpu_settings->minor = 5;
	device = open_device();
	model = model_fixture_load(device, f, NN_PRECISION_AUTO);
	memset(got, 0, sizeof(got));
	ran = model && nn_model_translate(model, IMAGES, images, z, got, &error) == NN_OK;
	ok(ran && nn_model_precision(model) == NN_PRECISION_FP16 && psnr() >= 50,
	   "and fp16 on 7.5: PSNR %.1f dB", psnr());
	nn_model_free(model);
	ok(nn_model_load(device, &f->config, NN_PRECISION_BF16, f->tensors, f->params.n, &model,
					 &error) == NN_EUNSUPPORTED &&
		   error.hint[0],
	   "bf16 is refused there: %s", error.message);
	nn_device_close(device);
	gpu_settings->major = 9;
	gpu_settings->minor = 0;
}

static void
test_limit(const ModelFixture *f)
{
	NnDevice *device = open_device();
	NnModel *model = model_fixture_load(device, f, NN_PRECISION_FP32);
	size_t weights = gpu_memory_used(), least, planned;
	NnDeviceMemory memory;
	NnDeviceRoom room;
	NnStatus status;

	nn_device_set_memory(device, weights + 1000);
	status = nn_model_translate(model, IMAGES, images, z, got, &error);
	ok(status == NN_ENOMEM && error.hint[0] && gpu_memory_used() <= weights + 1000,
	   "a limit that leaves no room is an error: %s", error.detail);
	nn_device_set_memory(device, weights + (2 << 20));
	status = nn_model_translate(model, IMAGES, images, z, got, &error);
	ok(status == NN_ENOMEM && gpu_memory_used() <= weights + (2 << 20),
	   "so is a small one, for many images: %s", error.detail);
	status = nn_model_prepare(model, &error);
	least = nn_model_least_bytes(device, &f->config, NN_PRECISION_FP32, &error);
	planned = nn_model_bytes(model);
	ok(status == NN_OK && least > planned / 3 && least <= planned && planned <= gpu_memory_used(),
	   "but not for one: %zu bytes, foreseen %zu", planned, least);
	for (int i = 0; i < IMAGES; i++)
		status |= nn_model_translate(model, 1, images + (size_t) i * PIXELS * 3, z + i * 8,
									 got + (size_t) i * PIXELS * 3, &error);
	ok(status == NN_OK && differing() <= 0.001 && nn_model_bytes(model) == planned &&
		   nn_model_host_bytes(model) > 0,
	   "and that is all it takes");
	nn_device_set_memory(device, 0);
	status = nn_model_translate(model, IMAGES, images, z, got, &error);
	ok(status == NN_OK && nn_model_bytes(model) > planned,
	   "without a limit plans are made for more");
	nn_model_shrink(model);
	status = nn_model_translate(model, 1, images, z, got, &error);
	ok(status == NN_OK && nn_model_bytes(model) == planned,
	   "and freed again, all but those for one");
	ok(nn_device_memory(device, &memory) && memory.used == gpu_memory_used() &&
		   memory.limit == gpu_settings->memory / 8 * 7,
	   "the device says what it holds");
	ok(nn_device_room(device, &room) && room.card == gpu_settings->memory &&
		   room.most == memory.limit && room.free == memory.limit - memory.used,
	   "and what it could still take");
	gpu_settings->others = room.card - memory.used - CUDA_LIBRARY_BYTES - 5000;
	ok(nn_device_room(device, &room) && room.free == 5000,
	   "as far as others leave it, and the library's code");
	gpu_settings->others = 0;
	nn_device_trim(device);
	ok(memory.used > planned && gpu_memory_used() == planned, "what is spare can be given back");
	status = nn_model_translate(model, IMAGES, images, z, got, &error);
	nn_model_shrink(model);
	ok(status == NN_OK && gpu_memory_used() > planned, "and is there again");
	nn_device_set_memory(device, planned);
	ok(gpu_memory_used() == planned, "a lower limit takes what was spare");
	nn_device_set_memory(device, 1000);
	nn_model_free(model);
	ok(gpu_memory_used() <= 1000, "what is freed beyond the limit is given back");
	nn_device_close(device);
}

/*
 * Streams run as far ahead as they like, blocks and threads in other orders:
 * nothing is read before it is there, or overwritten before it was read.
 */
static void
test_orders(const ModelFixture *small)
{
	bool same = true;

	for (unsigned seed = 1; same && seed <= 2; seed++)
	{
		NnDevice *device;
		NnModel *model;

		gpu_settings->chance = seed * 2654435761u;
		device = open_device();
		model = model_fixture_load(device, small, NN_PRECISION_FP32);
		for (int run = 0; same && run < 4; run++)
			same = is_small(model, FEW);
		nn_model_free(model);
		nn_device_close(device);
		if (!same)
			diag("seed %u", seed);
	}
	gpu_settings->chance = 0;
	ok(same && gpu_memory_used() == 0,
	   "images have the same bits in whatever order streams, blocks and threads run");
}

/*
 * Images have room for bytes until floats are bound; beyond 16 images nothing
 * more is planned.
 */
static void
test_ports(const ModelFixture *small)
{
	static float floats[PIXELS * 3], result[PIXELS * 3];
	static uint8_t many[2][MANY * PIXELS * 3];
	static float codes[MANY * 8];
	NnDevice *device = open_device();
	NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
	size_t one, host, before;

	(void) nn_model_prepare(model, &error);
	one = nn_model_bytes(model);
	host = nn_model_host_bytes(model);
	ok(is_small(model, 1) && nn_model_bytes(model) == one && nn_model_host_bytes(model) == host &&
		   host < 2 * NN_STARTS * 3 * PIXELS * 2,
	   "images are bytes in memory of the host, too (%zu bytes)", host);
	nn_normalise(images, PIXELS * 3, floats);
	before = gpu_memory_used();
	ok(nn_model_translate_float(model, 1, floats, z, result, &error) == NN_OK &&
		   nn_model_bytes(model) - one == gpu_memory_used() - before &&
		   nn_model_bytes(model) - one >= 2 * PIXELS * 3 * sizeof(float) &&
		   nn_model_host_bytes(model) > host,
	   "floats take more, which is counted (%zu bytes)", nn_model_bytes(model) - one);
	ok(is_small(model, 1), "and bytes are right after them");
	for (int i = 0; i < MANY; i++)
	{
		memcpy(many[0] + (size_t) i * PIXELS * 3, images + (size_t) (i % FEW) * PIXELS * 3,
			   PIXELS * 3);
		memcpy(codes + 8 * i, z + 8 * (i % FEW), 8 * sizeof(float));
	}
	(void) nn_model_translate(model, 16, many[0], codes, many[1], &error);
	one = nn_model_bytes(model);
	ok(nn_model_translate(model, MANY, many[0], codes, many[1], &error) == NN_OK &&
		   memcmp(many[1] + (size_t) 18 * PIXELS * 3, expected, PIXELS * 3) == 0 &&
		   nn_model_batch_bytes(model, NN_NET_G, 64, &error) ==
			   nn_model_batch_bytes(model, NN_NET_G, 16, &error) &&
		   nn_model_bytes(model) < one * 2,
	   "more than 16 images are run 16 at a time");
	nn_model_free(model);
	nn_device_close(device);
}

/*
 * BICYCLE_CUDA_TRACE: every step has a line with its share of what is possible,
 * and results are what they are without.
 */
static void
test_trace(const ModelFixture *f)
{
	char path[] = "/tmp/bicycle-trace-XXXXXX", line[512];
	int file = mkstemp(path), kept = dup(STDERR_FILENO), plans = 0, steps = 0;
	NnDevice *device;
	NnModel *model;
	bool same = true;
	FILE *trace;

	setenv("BICYCLE_CUDA_TRACE", "1", 1);
	setenv("BICYCLE_CUDA_PEAK", "800,3000", 1);
	fflush(stderr);
	dup2(file, STDERR_FILENO);
	device = open_device();
	model = model_fixture_load(device, f, NN_PRECISION_FP32);
	for (int run = 0; run < 4; run++)
		same &= nn_model_translate(model, 1, images, z, got, &error) == NN_OK;
	nn_model_free(model);
	nn_device_close(device);
	fflush(stderr);
	dup2(kept, STDERR_FILENO);
	close(kept);
	unsetenv("BICYCLE_CUDA_TRACE");
	unsetenv("BICYCLE_CUDA_PEAK");
	trace = fdopen(file, "r");
	rewind(trace);
	while (fgets(line, sizeof(line), trace))
	{
		plans += strncmp(line, "trace plan of 1 images, fp32: 1000.00 us, limit ", 48) == 0 &&
				 strstr(line, "%; 12 steps, in place 12000.00 us; the card's 800.0");
		steps += strncmp(line, "trace step ", 11) == 0 && strstr(line, ":  1000.00 us, ") &&
				 strstr(line, " us by ");
	}
	fclose(trace);
	(void) remove(path);
	for (int i = 0; i < PIXELS * 3; i++)
		same &= abs(expected[i] - got[i]) <= 1;
	ok(same && plans == 1 && steps == 12,
	   "a trace has a line a plan and a step, and spoils nothing: %d, %d", plans, steps);
}

int
main(void)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":4,\"nef\":4}");
	NnDevice *device = open_device();

	make_expected(&f);
	test_images(device, &f);
	test_batches(device, &f);
	test_watch(device, &f);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	test_parts(&f);
	test_half(&f);
	test_limit(&f);
	test_trace(&f);
	model_fixture_free(&f);
	f = model_fixture("{\"size\":64,\"ngf\":1,\"nef\":1}");
	ok(make_small(&f), "the least of models runs");
	test_orders(&f);
	test_ports(&f);
	model_fixture_free(&f);
	return done_testing();
}
