/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda, that nothing is
 * read of a plan's memory before it is written, nor anything wide as half
 * precision or the other way round: whatever lies in arena and buffers before a
 * batch or an iteration, the results are the same, to the bit. Launched step by
 * step and replayed, of each kind of norm, in fp32 and bf16.
 */
#include "nn/cuda/cuda_train.h"

#include "model_fixture.h"
#include "nn/cuda/module.h"
#include "nn/fit_private.h"
#include "nn/model_private.h"

#include "cuda_runtime_api.h"

#define IMAGES 2
#define PIXELS (64 * 64)
#define RUNS 3 /* the first is launched, later ones are replayed; each has a pattern */

extern const NnCudaModule bicycle_cuda_module;

/*
 * No numbers in any type; infinities in bfloat16; 1 in it, and 1.0039 in fp32.
 */
static const uint32_t patterns[] = { 0xffffffff, 0x7f807f80, 0x3f803f80 };

static void
poison(void *from, size_t bytes, uint32_t pattern)
{
	uint32_t *words = from;

	for (size_t i = 0; i < bytes / sizeof(*words); i++)
		words[i] = pattern;
}

/* ---- Inference ----------------------------------------------------------- */

/* All plans that there are; nothing runs. */
static int
poison_model(NnModel *model, uint32_t pattern)
{
	int n = 0;

	for (size_t i = 0; i < sizeof(model->nets) / sizeof(model->nets[0]); i++)
		for (int b = 0; b < BUCKETS; b++)
		{
			Bucket *bucket = model->nets[i].own.buckets[b];
			CudaPlan *plan = bucket ? bucket->plan.device_state : NULL;

			if (!plan)
				continue;
			poison(plan->block.data, plan->block.bytes, pattern);
			n++;
		}
	return n;
}

typedef struct Made
{
	uint8_t images[IMAGES * PIXELS * 3];
	float mu[IMAGES * 8], logvar[IMAGES * 8];
} Made;

static bool
make(NnModel *model, Made *made)
{
	static uint8_t images[IMAGES * PIXELS * 3];
	static float z[IMAGES * 8];

	for (size_t i = 0; i < sizeof(images); i++)
		images[i] = (uint8_t) (i * 2654435761u >> 24);
	nn_normal(7, 7, IMAGES * 8, z);
	if (nn_model_translate(model, IMAGES, images, z, made->images, &error) == NN_OK &&
		nn_model_encode(model, IMAGES, images, made->mu, made->logvar, &error) == NN_OK)
		return true;
	diag("%s: %s", error.message, error.detail);
	return false;
}

static void
test_inference(NnDevice *device, const char *json, NnPrecision precision)
{
	static Made expected, made;
	ModelFixture f = model_fixture(json);
	NnModel *model = model_fixture_load(device, &f, precision);
	bool same = model && make(model, &expected);
	int plans = 0;

	for (int run = 0; same && run < RUNS; run++)
	{
		plans = poison_model(model, patterns[run % 3]);
		same = plans > 0 && make(model, &made) && memcmp(&made, &expected, sizeof(made)) == 0;
	}
	ok(same, "images do not depend on what was in %d plans before: %s %s", plans,
	   nn_precision_name(precision), json);
	nn_model_free(model);
	model_fixture_free(&f);
}

/* ---- Training ------------------------------------------------------------ */

/* What no iteration leaves to the next: parts of a block lie in a row. */
static void
poison_training(NnTraining *training, uint32_t pattern)
{
	const CudaTraining *state = training->plan.device_state;
	char *arena = training->plan.arena, *staged = state->staged[0];

	poison(arena, (size_t) ((char *) state->filters - arena), pattern);
	poison(staged, (size_t) (state->sent - staged), pattern);
}

static float *
numbers_of(NnFit *fit, NnDevice *device)
{
	NnTraining *training = nn_fit_training(fit);
	float *numbers = calloc(training->params->total, sizeof(float));

	if (device->train->get(device, training, NN_ARRAY_PARAM, 0, training->params->total, numbers,
						   &error) != NN_OK)
		diag("%s: %s", error.message, error.detail);
	return numbers;
}

static void
test_training(NnDevice *device, const char *json, NnPrecision precision)
{
	NnConfig config;
	NnTrainOptions options;
	NnFit *fits[2] = { NULL };
	float *a = calloc(4 * PIXELS * 3, sizeof(float)), *numbers[2] = { NULL };
	NnLosses losses[2];
	bool same = nn_train_options_parse(&config, &options, json, strlen(json), &error) == NN_OK;

	for (int i = 0; i < 4 * PIXELS * 3; i++)
		a[i] = sinf(0.01f * (float) (i % 7919));
	for (int k = 0; same && k < 2; k++)
		same = nn_fit_open(device, &config, &options, precision, 4, NULL, 0, &fits[k], &error) ==
			   NN_OK;
	for (int run = 0; same && run < RUNS; run++)
	{
		poison_training(nn_fit_training(fits[1]), patterns[run % 3]);
		for (int k = 0; same && k < 2; k++)
			same = nn_fit_step(fits[k], a, a, NULL, &losses[k], &error) == NN_OK;
		same = same && memcmp(&losses[0].value, &losses[1].value, sizeof(losses[0].value)) == 0;
	}
	if (!same)
		diag("%s: %s", error.message, error.detail);
	for (int k = 0; same && k < 2; k++)
		numbers[k] = numbers_of(fits[k], device);
	same =
		same && memcmp(numbers[0], numbers[1], nn_fit_params(fits[0])->total * sizeof(float)) == 0;
	ok(same, "nor do iterations: %s %s", nn_precision_name(precision), json);
	for (int k = 0; k < 2; k++)
	{
		nn_fit_close(fits[k]);
		free(numbers[k]);
	}
	free(a);
}

int
main(void)
{
#if defined(__SANITIZE_ADDRESS__)
#define LEAST "\"size\":64,\"ngf\":1,\"nef\":1,\"ndf\":1,\"num_ds\":1"
#else
#define LEAST "\"size\":64,\"ngf\":2,\"nef\":2,\"ndf\":2,\"num_ds\":1"
#endif
	static const NnPrecision precisions[] = { NN_PRECISION_FP32, NN_PRECISION_BF16 };
	NnDevice *device = NULL;

	if (!ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	for (int i = 0; i < 2; i++)
	{
		test_inference(device, "{\"size\":64,\"ngf\":2,\"nef\":2}", precisions[i]);
		test_inference(device,
					   "{\"size\":64,\"ngf\":3,\"nef\":3,\"norm\":\"batch\",\"upsample\":"
					   "\"bilinear\",\"where_add\":\"input\"}",
					   precisions[i]);
	}
	test_training(device, "{" LEAST ",\"dropout\":true}", NN_PRECISION_FP32);
	test_training(device,
				  "{" LEAST ",\"norm\":\"batch\",\"upsample\":\"bilinear\",\"batch_size\":4,"
				  "\"accumulate\":2}",
				  NN_PRECISION_BF16);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	return done_testing();
}
