/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda: whatever call of
 * CUDA fails, the error is reported and nothing is lost, and after want of
 * memory the next call does; engines that do not run are found when a plan is
 * made, not when it runs, and told from want of memory; what cannot be timed is
 * never the fastest; the second GPU of two works, whatever thread asks; and
 * what is missing where there is no usable GPU is said.
 */
#include "cuda_fixture.h"

#include "nn/cuda/cuda_time.h"
#include "nn/cuda/trace/cuda_trace.h"
#include "nn/fit.h"

#include <pthread.h>

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

/*
 * What is not memory's want ends the engine, and so does that once results are
 * on their way; after what is, the same call must do: each call of CUDA, in
 * turn, finds no memory while a batch is started and run.
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

/*
 * A library that has no room for its code fails as one that has no engine:
 * where little is left that is want of memory, which may pass.
 */
static void
test_little_left(const ModelFixture *small)
{
	NnDevice *device = open_device();
	NnModel *model = NULL;
	NnStatus status;

	gpu_settings->library = (size_t) 100 << 20;
	gpu_settings->others = gpu_settings->memory - ((size_t) 90 << 20);
	status = nn_model_load(device, &small->config, NN_PRECISION_FP32, small->tensors,
						   small->params.n, &model, &error);
	if (status == NN_OK)
		status = nn_model_translate(model, 1, images, z, got, &error);
	ok(status == NN_ENOMEM, "a plan for which the library has no room: %s", error.detail);
	nn_model_free(model);
	status = fit_once(device, "0");
	ok(status == NN_ENOMEM, "so training: %s", error.detail);
	nn_device_close(device);
	status = bicycle_cuda_module.open(0, 1, &device, &error);
	ok(status == NN_ENOMEM && gpu_memory_used() == 0, "so the device: %s", error.detail);
	gpu_settings->others = 0;
	status = fit_once(device = open_device(), "0");
	ok(status == NN_OK, "and with room all is well");
	nn_device_close(device);
	gpu_settings->library = 0;
	unsetenv("BICYCLE_TEST_CONVS_FAIL");
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
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EDEVICE && error.hint[0],
	   "no GPU now: %s", error.detail);
	gpu_settings->no_device = cudaErrorUnknown;
	ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_EDEVICE && error.hint[0],
	   "no usable driver now: %s", error.detail);
	gpu_settings->no_device = 0;
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

int
main(void)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":1,\"nef\":1}");

	ok(make_small(&f), "the least of models runs");
	test_engines(&f);
	test_little_left(&f);
	test_faults(&f);
	test_recovery(&f);
	test_second(&f);
	model_fixture_free(&f);
	test_times();
	test_missing();
	return done_testing();
}
