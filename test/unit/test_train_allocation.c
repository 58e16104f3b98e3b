/*
 * Proves that training outlives each allocation that can fail: opening a
 * fit, stepping, taking its state and translating with it answer NN_ENOMEM,
 * leak nothing, and work once there is memory again.
 */
#include "failing_malloc.h"
#include "tap.h"

#if !FAILING_MALLOC

int
main(void)
{
	printf("1..0 # SKIP the allocator is a sanitizer's\n");
	return 0;
}

#else

#include "train_fixture.h"

static NnDevice *device;
static NnConfig config;
static NnTrainOptions options;
static NnFit *fit;
static float images[2 * 64 * 64 * 3], result[64 * 64 * 3], code[2];

static NnStatus
call_parse(NnError *error)
{
	static const char json[] =
		"{\"size\":64,\"ngf\":2,\"nef\":2,\"ndf\":4,\"nz\":2,\"ema\":0.5,\"dropout\":true}";
	NnStatus status = nn_train_options_parse(&config, &options, json, sizeof(json) - 1, error);

	/*
	 * jansson takes some failed allocations for mistakes in the text, and who
	 * calls it cannot tell
	 */
	return status == NN_EINVAL && strstr(error->message, "not valid JSON") ? NN_ENOMEM : status;
}

static NnStatus
call_open(NnError *error)
{
	NnFit *t;
	NnStatus status =
		nn_fit_open(device, &config, &options, NN_PRECISION_FP32, 4, NULL, 0, &t, error);

	if (status == NN_OK)
		nn_fit_close(t);
	return status;
}

static NnStatus
call_step(NnError *error)
{
	NnLosses losses;

	return nn_fit_step(fit, images, images, NULL, &losses, error);
}

static NnStatus
call_state(NnError *error)
{
	NnTensor *tensors = NULL;
	int n = 0;
	NnStatus status = fit_state(fit, &tensors, &n, error);

	if (status == NN_OK)
		status = nn_fit_restore(fit, tensors, n, nn_fit_iteration(fit), error);
	free(tensors);
	return status;
}

/*
 * Every `stride`-th allocation of a call fails, and all after it, until the
 * call needs no more.
 */
static void
test_call(const char *what, NnStatus (*call)(NnError *error), long stride)
{
	long failures = 0;
	bool good = true;

	for (long n = 0; good; n += stride)
	{
		NnError error = { 0 };
		NnStatus status;
		long left;

		allocations_begin(n);
		status = call(&error);
		left = allocations_end();
		if (status == NN_OK)
			break;
		failures++;
		good = status == NN_ENOMEM &&
			   (call == call_parse || strcmp(error.message, "out of memory") == 0) && left == 0;
		if (!good)
			diag("allocation %ld: status %d, \"%s\", %ld blocks more", n, status, error.message,
				 left);
	}
	ok(good && failures > 0 && call(&train_error) == NN_OK, "%s survives failures, %ld of them",
	   what, failures);
}

int
main(void)
{
	static const char *const devices[] = { "ref", "cpu" };

	for (int d = 0; d < 2; d++)
	{
		if (nn_device_open(devices[d], 1, &device, &train_error) != NN_OK ||
			call_parse(&train_error) != NN_OK || call_open(&train_error) != NN_OK)
			return 1;
		if (d == 0)
			test_call("reading options", call_parse, 1);
		test_call("opening a fit", call_open, 13);
		if (!went_well(nn_fit_open(device, &config, &options, NN_PRECISION_FP32, 4, NULL, 0, &fit,
								   &train_error)) ||
			call_step(&train_error) != NN_OK)
			return 1;
		if (d == 0)
			test_call("a step", call_step, 5);
		test_call("saving and restoring", call_state, 1);
		ok(went_well(nn_fit_translate(fit, 1, images, code, result, &train_error)),
		   "and %s still translates", device->name);
		nn_fit_close(fit);
		nn_device_close(device);
	}
	return done_testing();
}

#endif
