/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda: images come out
 * as from the reference device, bytes and floats, alone and in any batch, while
 * two batches are under way, in whatever order streams run, and in parts if the
 * card's cache is small; a watchdog hears of progress; half precision is close
 * to them; two passes at once are what they are one after the other; memory
 * keeps to its limit; whatever call of CUDA fails, the error is reported and
 * nothing is lost, and after want of memory the next call does; the second GPU
 * of two works; and what is missing where there is no usable GPU is said;
 * engines that do not run are found when a plan is made, not when it runs.
 */
#include "model_fixture.h"
#include "nn/cuda/cuda_time.h"
#include "nn/cuda/trace/cuda_trace.h"
#include "nn/cuda/module.h"
#include "nn/fit.h"

#include "cuda_runtime_api.h"

#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#define IMAGES 11
#define EIGHT 8
#define FEW 9 /* of which one runs beside the others */
#define SIZE 64
#define PIXELS (SIZE * SIZE)

extern const NnCudaModule bicycle_cuda_module;

static uint8_t images[IMAGES * PIXELS * 3], expected[IMAGES * PIXELS * 3], got[IMAGES * PIXELS * 3];
static float z[IMAGES * 8], mu[2][IMAGES * 8], logvar[2][IMAGES * 8];

static NnDevice *
open_device(void)
{
	NnDevice *device = NULL;

	if (bicycle_cuda_module.open(0, 1, &device, &error) != NN_OK)
		diag("%s: %s", error.message, error.detail);
	return device;
}

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

	for (size_t i = 0; i < sizeof(images); i++)
		images[i] = (uint8_t) (i * 2654435761u >> 24);
	nn_normal(7, 7, IMAGES * 8, z);
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
	gpu_settings->memory = memory.used + 5000;
	ok(nn_device_room(device, &room) && room.free == 5000, "as far as others leave it");
	gpu_settings->memory = room.card;
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
 * One call of CUDA fails, each in turn: open, load, plan, run, replay. They are
 * the same calls for the least of models.
 */
static void
test_faults(const ModelFixture *small)
{
	bool finished = false;
	int reported = 0;

	for (long i = 1; !finished && i < 5000; i += i < 40 ? 1 : 13)
	{
		NnDevice *device = NULL;
		NnModel *model = NULL;
		NnStatus status;

		gpu_settings->fail_in = i;
		status = bicycle_cuda_module.open(0, 1, &device, &error);
		if (status == NN_OK)
			status = nn_model_load(device, &small->config, NN_PRECISION_FP32, small->tensors,
								   small->params.n, &model, &error);
		for (int run = 0; status == NN_OK && run < 3; run++)
			status = nn_model_translate(model, 2, images, z, got, &error);
		finished = gpu_settings->fail_in > 0;
		gpu_settings->fail_in = 0;
		reported += status != NN_OK && error.message[0] != '\0';
		if (status != NN_OK && error.message[0] == '\0')
			diag("call %ld failed without a message", i);
		nn_model_free(model);
		nn_device_close(device);
		if (gpu_memory_used() != 0)
		{
			diag("call %ld lost %zu bytes", i, gpu_memory_used());
			break;
		}
	}
	ok(finished && reported > 40 && gpu_memory_used() == 0,
	   "failures of CUDA are reported and lose no memory: %d", reported);
}

/* Of the least of models. */
static bool
make_small(const ModelFixture *small)
{
	NnDevice *device = open_device();
	NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
	NnStatus status = nn_model_translate(model, FEW, images, z, expected, &error);

	nn_model_free(model);
	nn_device_close(device);
	return status == NN_OK;
}

static bool
is_small(NnModel *model, int n)
{
	memset(got, 0, sizeof(got));
	return nn_model_translate(model, n, images, z, got, &error) == NN_OK &&
		   memcmp(got, expected, (size_t) n * PIXELS * 3) == 0;
}

/*
 * What is not memory's want ends the engine, and so does that once results are
 * on their way; after what is, the same call must
 * do: each call of CUDA, in turn, finds no memory while a batch is started and
 * run.
 */
static void
test_recovery(const ModelFixture *small)
{
	NnDevice *device = open_device();
	int short_of = 0, wrong = 0;
	bool finished = false;

	for (long i = 1; !finished && wrong == 0 && i < 400; i += i < 30 ? 1 : 11)
	{
		NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
		NnStatus status = NN_OK;

		gpu_settings->fail_with = cudaErrorMemoryAllocation;
		gpu_settings->fail_in = i;
		for (int run = 0; status == NN_OK && run < 3; run++)
			status = nn_model_translate(model, 1, images, z, got, &error);
		finished = gpu_settings->fail_in > 0;
		gpu_settings->fail_in = gpu_settings->fail_with = 0;
		short_of += status == NN_ENOMEM;
		wrong += status != NN_OK && status != NN_ENOMEM && !strstr(error.message, "its results");
		for (int run = 0; run < 2; run++)
			wrong += !is_small(model, 1);
		if (wrong > 0)
			diag("call %ld: %s %s", i, error.message, error.detail);
		nn_model_free(model);
	}
	nn_device_close(device);
	ok(finished && short_of > 25 && wrong == 0 && gpu_memory_used() == 0,
	   "where memory was short once, the next call does: %d times", short_of);
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

/* ---- Passes -------------------------------------------------------------- */

#define APART 20 /* images of a pass: two parts */

/*
 * Images that lie apart, some of them pinned, and their results in the same
 * places.
 */
typedef struct Apart
{
	NnPass pass;
	float z[APART * 8];
	uint8_t *each[APART];
	uint8_t *pinned, *other;
} Apart;

static void
apart_make(Apart *a, NnDevice *device, NnModel *model, int n)
{
	*a = (Apart){ .pinned = nn_device_pin(device, APART * PIXELS * 3),
				  .other = malloc(APART * PIXELS * 3) };
	for (int i = 0; i < n; i++)
	{
		/*
		 * the second half backwards, and in threes, so that runs of all kinds
		 * are met
		 */
		int at = i < n / 2 ? i : n - 1 - (i - n / 2);

		a->each[i] = (i / 3 % 2 ? a->other : a->pinned) + (size_t) at * PIXELS * 3;
		memcpy(a->each[i], images + (size_t) (i % FEW) * PIXELS * 3, PIXELS * 3);
		memcpy(a->z + 8 * i, z + 8 * (i % FEW), 8 * sizeof(float));
	}
	a->pass = (NnPass){ .model = model,
						.network = NN_NET_G,
						.extent = { SIZE, SIZE },
						.n = n,
						.images = (const uint8_t *const *) a->each,
						.z = a->z,
						.results = a->each };
}

static bool
apart_is_right(const Apart *a)
{
	bool same = a->pass.status == NN_OK && a->pass.done == a->pass.n;

	for (int i = 0; same && i < a->pass.n; i++)
		same = memcmp(a->each[i], expected + (size_t) (i % FEW) * PIXELS * 3, PIXELS * 3) == 0;
	return same;
}

/* After want of memory the rest is done as if there had been none. */
static bool
apart_goes_on(Apart *a)
{
	NnPass rest = { .model = a->pass.model,
					.network = NN_NET_G,
					.extent = { SIZE, SIZE },
					.n = a->pass.n - a->pass.done,
					.images = (const uint8_t *const *) a->each + a->pass.done,
					.z = a->z + 8 * a->pass.done,
					.results = a->each + a->pass.done };

	if (a->pass.status != NN_ENOMEM)
		return true;
	while (!nn_pass_go(&rest, true))
		;
	a->pass.done += rest.done;
	a->pass.status = rest.status;
	return apart_is_right(a);
}

static void
apart_free(Apart *a, NnDevice *device)
{
	nn_device_unpin(device, a->pinned);
	free(a->other);
}

/*
 * Two passes under way at once, of one model and of two, are the images that
 * they are one after the other; they end in their order, and nothing waits.
 */
static void
test_passes(const ModelFixture *small)
{
	NnDevice *device = open_device();
	NnModel *models[2] = { model_fixture_load(device, small, NN_PRECISION_FP32),
						   model_fixture_load(device, small, NN_PRECISION_FP32) };
	bool same = true, beside = false;
	size_t staged;

	for (unsigned round = 0; same && round < 6; round++)
	{
		Apart a, b;
		bool ended[2] = { false };

		gpu_settings->chance = round < 2 ? 0 : round * 2654435761u;
		apart_make(&a, device, models[0], APART);
		apart_make(&b, device, models[round % 2], 1 + (int) round * 3);
		for (int calls = 0; calls < 100000 && !ended[1]; calls++)
		{
			ended[0] = ended[0] || nn_pass_go(&a.pass, false);
			ended[1] = ended[1] || nn_pass_go(&b.pass, false);
			beside |= a.pass.nparts > 0 && b.pass.nparts > 0;
			same &= ended[0] || !ended[1];
		}
		same &= ended[0] && apart_is_right(&a) && apart_is_right(&b);
		apart_free(&a, device);
		apart_free(&b, device);
		if (!same)
			diag("round %u: %d of %d, %d of %d", round, a.pass.done, a.pass.n, b.pass.done,
				 b.pass.n);
	}
	gpu_settings->chance = 0;
	ok(same && beside, "two passes at once give each its images, in memory of any kind");
	staged = nn_model_host_bytes(models[0]);
	same = is_small(models[0], FEW);
	ok(same && nn_model_host_bytes(models[0]) >= staged, "and then one that waits");
	nn_model_free(models[0]);
	nn_model_free(models[1]);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "nothing of them stays");
}

/*
 * Whatever fails in one pass while another is under way is that pass's alone,
 * or the device's; what it has done is right, and where memory was short the
 * same calls do when it is there.
 */
static void
test_failing_passes(const ModelFixture *small)
{
	bool finished = false, right = true;
	int failed = 0;

	for (long i = 1; right && !finished && i < 4000; i += i < 20 ? 3 : 61)
	{
		NnDevice *device = open_device();
		NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
		Apart a, b;
		bool ended[2] = { false };

		right = nn_model_prepare(model, &error) == NN_OK;
		apart_make(&a, device, model, APART);
		apart_make(&b, device, model, 3);
		gpu_settings->fail_with = i % 2 ? cudaErrorMemoryAllocation : 0;
		gpu_settings->fail_in = i;
		for (int calls = 0; calls < 100000 && !(ended[0] && ended[1]); calls++)
		{
			ended[0] = ended[0] || nn_pass_go(&a.pass, false);
			ended[1] = ended[1] || nn_pass_go(&b.pass, false);
		}
		finished = gpu_settings->fail_in > 0;
		gpu_settings->fail_in = gpu_settings->fail_with = 0;
		failed += a.pass.status != NN_OK || b.pass.status != NN_OK;
		right &= ended[0] && ended[1];
		for (int k = 0; right && k < a.pass.done; k++)
			right = memcmp(a.each[k], expected + (size_t) (k % FEW) * PIXELS * 3, PIXELS * 3) == 0;
		right &= apart_goes_on(&a) && apart_goes_on(&b);
		if (i % 2)
			right &= is_small(model, 1);
		if (!right)
			diag("call %ld: %s %s", i, a.pass.error.detail, b.pass.error.detail);
		apart_free(&a, device);
		apart_free(&b, device);
		nn_model_free(model);
		nn_device_close(device);
		right &= gpu_memory_used() == 0;
	}
	ok(right && finished && failed > 8, "a pass that fails beside another spoils nothing: %d times",
	   failed);
}

/*
 * Images have room for bytes until floats are bound; beyond 16 images nothing
 * more is planned.
 */
static void
test_ports(const ModelFixture *small)
{
	static float floats[PIXELS * 3], result[PIXELS * 3];
	static uint8_t many[2][APART * PIXELS * 3];
	static float codes[APART * 8];
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
	for (int i = 0; i < APART; i++)
	{
		memcpy(many[0] + (size_t) i * PIXELS * 3, images + (size_t) (i % FEW) * PIXELS * 3,
			   PIXELS * 3);
		memcpy(codes + 8 * i, z + 8 * (i % FEW), 8 * sizeof(float));
	}
	(void) nn_model_translate(model, 16, many[0], codes, many[1], &error);
	one = nn_model_bytes(model);
	ok(nn_model_translate(model, APART, many[0], codes, many[1], &error) == NN_OK &&
		   memcmp(many[1] + (size_t) 18 * PIXELS * 3, expected, PIXELS * 3) == 0 &&
		   nn_model_batch_bytes(model, NN_NET_G, 64, &error) ==
			   nn_model_batch_bytes(model, NN_NET_G, 16, &error) &&
		   nn_model_bytes(model) < one * 2,
	   "more than 16 images are run 16 at a time");
	nn_model_free(model);
	nn_device_close(device);
}

/* For another thread. */
typedef struct Errand
{
	NnDevice *device;
	const ModelFixture *f;
	NnModel *model; /* to be loaded if NULL, else to be freed */
} Errand;

static void *
run_errand(void *arg)
{
	Errand *errand = arg;
	NnModel *freed = errand->model;

	errand->model = freed ? NULL : model_fixture_load(errand->device, errand->f, NN_PRECISION_FP32);
	nn_model_free(freed);
	return NULL;
}

/*
 * The second of two GPUs, a thread that packs, and one that frees: CUDA's
 * current device is each thread's own.
 */
static void
test_second(const ModelFixture *f)
{
	Errand errand = { .f = f };
	pthread_t thread;
	bool same = false;

	gpu_settings->devices = 2;
	if (bicycle_cuda_module.open(1, 1, &errand.device, &error) == NN_OK)
	{
		pthread_create(&thread, NULL, run_errand, &errand);
		pthread_join(thread, NULL);
		same = strstr(nn_device_describe(errand.device), "cuda:1") && errand.model &&
			   is_small(errand.model, 1);
		pthread_create(&thread, NULL, run_errand, &errand);
		pthread_join(thread, NULL);
		nn_device_close(errand.device);
	}
	gpu_settings->devices = 1;
	ok(bicycle_cuda_module.open(0, 1, &errand.device, &error) == NN_OK,
	   "the first GPU opens after it");
	nn_device_close(errand.device);
	ok(same && gpu_memory_used() == 0, "the second GPU is used by whatever thread");
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

static void
test_missing(void)
{
	NnDevice *device;
	GpuSettings before = *gpu_settings;

	ok(bicycle_cuda_module.open(1, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "sees 1 "),
	   "no second GPU: %s", error.detail);
	gpu_settings->major = 7;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "7.0"),
	   "an old GPU: %s", error.detail);
	gpu_settings->devices = 0;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED && error.hint[0],
	   "no GPU: %s", error.detail);
	setenv("CUDA_VISIBLE_DEVICES", "-1", 1);
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "CUDA_VISIBLE_DEVICES"),
	   "none that may be seen: %s", error.detail);
	unsetenv("CUDA_VISIBLE_DEVICES");
	*gpu_settings = before;
	gpu_settings->driver = 12040;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "12.4"),
	   "an old driver: %s", error.detail);
	gpu_settings->driver = 0;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "no NVIDIA driver"),
	   "no driver: %s", error.detail);
	*gpu_settings = before;
	gpu_settings->no_kernel = cudaErrorUnsupportedPtxVersion;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED &&
		   strstr(error.detail, "PTX") && strstr(error.hint, "CUDA_ARCH=90"),
	   "a driver that cannot take our PTX: %s", error.detail);
	gpu_settings->no_kernel = 0;
	gpu_settings->memory = 100;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_ENOMEM && error.detail[0],
	   "a card that others fill: %s", error.detail);
	*gpu_settings = before;
	setenv("BICYCLE_TEST_NO_CONVS", "1", 1);
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EUNSUPPORTED,
	   "no library for convolutions: %s", error.message);
	unsetenv("BICYCLE_TEST_NO_CONVS");
	ok(gpu_memory_used() == 0, "and nothing stays behind");
}

/* An iteration of training, after `failing` engines of each convolution. */
static NnStatus
fit_once(NnDevice *device, const char *failing)
{
	static const char json[] = "{\"method\":\"pix2pix_noise\",\"size\":64,\"ngf\":1,\"ndf\":1,"
							   "\"num_ds\":1,\"batch_size\":1}";
	static float a[PIXELS * 3], b[PIXELS * 3];
	NnConfig config;
	NnTrainOptions options;
	NnFit *fit = NULL;
	NnLosses losses;
	NnStatus status = nn_train_options_parse(&config, &options, json, sizeof(json) - 1, &error);

	setenv("BICYCLE_TEST_CONVS_FAIL", failing, 1);
	if (status == NN_OK)
		status =
			nn_fit_open(device, &config, &options, NN_PRECISION_FP32, 10, NULL, 0, &fit, &error);
	if (status == NN_OK)
		status = nn_fit_step(fit, a, b, NULL, &losses, &error);
	nn_fit_close(fit);
	return status;
}

/*
 * Engines that are there and do not run: the next is taken; without one the
 * device, or a plan if it had opened, is of no use, which is not an error of
 * the GPU.
 */
static void
test_engines(const ModelFixture *small)
{
	NnDevice *device;
	NnModel *model;
	NnStatus status;

	setenv("BICYCLE_TEST_CONVS_FAIL", "2", 1);
	device = open_device();
	model = model_fixture_load(device, small, NN_PRECISION_FP32);
	ok(model && is_small(model, FEW), "where two engines do not run, a third does");
	nn_model_free(model);
	model = model_fixture_load(device, small, NN_PRECISION_FP32);
	setenv("BICYCLE_TEST_CONVS_FAIL", "3", 1);
	status = nn_model_translate(model, 1, images, z, got, &error);
	ok(status == NN_EUNSUPPORTED, "where none does, a plan is refused: %s", error.message);
	nn_model_free(model);
	status = fit_once(device, "2");
	ok(status == NN_OK, "training, too, takes the third: %s", status == NN_OK ? "" : error.message);
	status = fit_once(device, "3");
	ok(status == NN_EUNSUPPORTED, "and is refused without: %s", error.message);
	nn_device_close(device);
	status = bicycle_cuda_module.open(0, 1, &device, &error);
	ok(status == NN_EUNSUPPORTED && gpu_memory_used() == 0,
	   "and so is the device, for which the CPU can serve: %s", error.message);
	unsetenv("BICYCLE_TEST_CONVS_FAIL");
}

/* The imitation's runs take a millisecond each, whatever they do. */
static void
test_times(void)
{
	CudaConvShape shape = {
		.n = 1, .h = 4, .w = 4, .c = 8, .oh = 4, .ow = 4, .k = 8, .kernel = 3, .stride = 1, .pad = 1
	};
	CudaConvs *convs = NULL;
	CudaConv *conv = NULL;
	cudaStream_t stream = NULL;
	float times[2] = { 0 };

	(void) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
	if (cuda_convs_open(stream, &convs, &error) == NN_OK &&
		cuda_conv_open(convs, &shape, &conv, &error) == NN_OK)
		times[0] = cuda_time_conv(stream, convs, conv, &shape);
	times[1] = cuda_time_copy(stream, 3 << 20);
	ok(times[0] == 0.125f && times[1] == 0.125f,
	   "a convolution and a copy are timed, eight at a time: %g and %g ms", times[0], times[1]);
	ok(cuda_time_copy(stream, SIZE_MAX / 2) == CUDA_TIME_NEVER, "what finds no memory never ends");
	if (conv)
		cuda_conv_close(conv);
	cuda_convs_close(convs);
	(void) cudaStreamDestroy(stream);
	ok(gpu_memory_used() == 0, "and gives back what it has taken");
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
	test_engines(&f);
	test_faults(&f);
	test_recovery(&f);
	test_orders(&f);
	test_passes(&f);
	test_failing_passes(&f);
	test_ports(&f);
	test_second(&f);
	model_fixture_free(&f);
	test_times();
	test_missing();
	return done_testing();
}
