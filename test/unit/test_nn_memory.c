/*
 * Proves that running out of memory anywhere is an error and nothing else: each
 * allocation of each call is made to fail in turn, and the call must say
 * NN_ENOMEM (or manage without), leave nothing allocated behind and work again
 * afterwards.
 *
 * Only that allocation fails. A program that goes on after a failure that it
 * has not noticed gets further then than if all failed.
 */
#include "failing_malloc.h"
#include "nn_fixture.h"

#if FAILING_MALLOC

/* ---- The calls ----------------------------------------------------------- */

#define SIZE 64

static NnDevice *device;
static NnConfig config;
static NnParams params;
static NnTensor *tensors;
static bool wide_is_known;
static uint8_t image[3 * SIZE * SIZE * 3], expected[3 * SIZE * SIZE * 3], out[3 * SIZE * SIZE * 3];
static float latent[3 * 8];

static NnStatus
call_parse(NnError *error)
{
	static const char json[] = "{\"size\":128,\"norm\":\"batch\"}";
	NnConfig c;
	NnStatus status;

	nn_config_default(&c);
	status = nn_config_parse(&c, json, sizeof(json) - 1, error);
	/*
	 * jansson takes some failed allocations for mistakes in the text, and who
	 * calls it cannot tell
	 */
	return status == NN_EINVAL && strstr(error->message, "not valid JSON") ? NN_ENOMEM : status;
}

static NnStatus
call_print(NnError *error)
{
	char *text = nn_config_print(&config);
	NnStatus status = text ? NN_OK : NN_ENOMEM;

	free(text);
	return status;
}

static NnStatus
call_params(NnError *error)
{
	NnParams p;
	NnStatus status =
		nn_params_of(&config, 1u << NN_NET_G | 1u << NN_NET_E | 1u << NN_NET_D, &p, error);

	if (status == NN_OK)
		nn_params_free(&p);
	return status;
}

static NnStatus
call_infer(NnError *error)
{
	NnConfig c;

	return nn_config_infer(&c, "{}", 2, tensors, params.n, NULL, NULL, error);
}

static NnStatus
call_init(NnError *error)
{
	NnFresh fresh = { .init = NN_INIT_ORTHOGONAL, .gain = 0.02f, .seed = 1, .threads = 1 };
	float *values = malloc(params.total * sizeof(float));
	NnStatus status = values ? NN_OK : NN_ENOMEM;

	for (int i = 0; status == NN_OK && i < params.n; i++)
		status = nn_param_init(&params, i, &fresh, values + params.list[i].offset, error);
	free(values);
	return status;
}

static NnStatus
call_load(NnError *error)
{
	NnModel *model = NULL;
	NnStatus status =
		nn_model_load(device, &config, NN_PRECISION_AUTO, tensors, params.n, &model, error);

	if (status == NN_OK)
		nn_model_free(model);
	return status;
}

/*
 * Three images: batches of 2 and 1, or of 1 alone where memory is short for 2.
 */
static NnStatus
call_translate(NnError *error)
{
	NnModel *model = NULL;
	NnStatus status =
		nn_model_load(device, &config, NN_PRECISION_AUTO, tensors, params.n, &model, error);

	if (status == NN_OK)
		status = nn_model_translate(model, 3, image, latent, out, error);
	if (status == NN_OK && memcmp(out, expected, sizeof(out)) != 0)
		status = NN_EDEVICE;
	nn_model_free(model);
	return status;
}

/* An image of twice the width, after one of the model's own size. */
static NnStatus
call_extent(NnError *error)
{
	static uint8_t wide[2 * SIZE * SIZE * 3];
	const NnExtent extent = { SIZE, 2 * SIZE };
	NnModel *model = NULL;
	NnStatus status =
		nn_model_load(device, &config, NN_PRECISION_AUTO, tensors, params.n, &model, error);

	if (status == NN_OK)
		status = nn_model_translate_at(model, extent, 1, image, latent, out, error);
	if (status == NN_OK && !wide_is_known)
		memcpy(wide, out, sizeof(wide));
	wide_is_known |= status == NN_OK;
	if (status == NN_OK && memcmp(out, wide, sizeof(wide)) != 0)
		status = NN_EDEVICE;
	if (status == NN_OK && nn_model_image_bytes(model, extent, error) == 0)
		status = error->code;
	nn_model_free(model);
	return status;
}

static NnStatus
call_open(NnError *error)
{
	NnDevice *d = NULL;
	NnStatus status = nn_device_open("ref", 1, &d, error);

	nn_device_close(d);
	return status;
}

/* Each allocation of the call, or every step-th, fails. */
static void
test_call(const char *name, NnStatus (*call)(NnError *error), int step)
{
	const long many = 1000000000;
	NnError none = { 0 };
	long refusals = 0, managed = 0, bad, total;

	allocations_begin(many);
	bad = call(&none) != NN_OK;
	total = many - allocations_until_failure;
	bad += allocations_end() != 0;
	for (long i = 0; i < total; i += step)
	{
		NnError error = { 0 };
		NnStatus status;
		long left;

		allocations_begin(i);
		status = call(&error);
		left = allocations_end();
		refusals += status == NN_ENOMEM;
		managed += status == NN_OK;
		if (((status != NN_ENOMEM && status != NN_OK) || left != 0) && bad++ < 3)
			diag("allocation %ld of %ld: status %d (%s), %ld left", i + 1, total, status,
				 error.message, left);
	}
	ok(bad == 0 && refusals > 0, "%s: %ld allocations, %ld refusals, %ld managed without", name,
	   total, refusals, managed);
}

/* A small model, and what it makes of three images while nothing fails. */
static bool
prepare(void)
{
	static const char json[] = "{\"size\":64,\"ngf\":2,\"nef\":2}";
	NnModel *model;
	NnError error;
	double *weights;
	NnStatus status;

	nn_config_default(&config);
	if (nn_config_parse(&config, json, sizeof(json) - 1, &error) != NN_OK ||
		nn_device_open("ref", 1, &device, &error) != NN_OK ||
		nn_params_of(&config, 1u << NN_NET_G | 1u << NN_NET_E, &params, &error) != NN_OK)
		return false;
	weights = lcg_weights(&params, 1000);
	tensors = tensors_of(&params, weights);
	free(weights);
	for (size_t i = 0; i < sizeof(image); i++)
		image[i] = (uint8_t) (i * 37);
	nn_normal(1, 1, 24, latent);
	if (nn_model_load(device, &config, NN_PRECISION_AUTO, tensors, params.n, &model, &error) !=
		NN_OK)
		return false;
	status = nn_model_translate(model, 3, image, latent, expected, &error);
	nn_model_free(model);
	return status == NN_OK;
}

int
main(void)
{
	allocations_fail_once = 1;
	if (!ok(prepare(), "a model runs while memory lasts"))
		return done_testing();
	test_call("opening a device", call_open, 1);
	test_call("reading options", call_parse, 1);
	test_call("printing options", call_print, 1);
	test_call("listing parameters", call_params, 1);
	test_call("inferring a configuration", call_infer, 1);
	test_call("drawing weights", call_init, 1);
	test_call("loading a model", call_load, 1);
	test_call("translating", call_translate, 7);
	test_call("translating at another size", call_extent, 7);
	tensors_free(tensors, params.n);
	nn_params_free(&params);
	nn_device_close(device);
	return done_testing();
}

#else

int
main(void)
{
	ok(true, "nothing to do under a sanitizer, which replaces the allocator itself");
	return done_testing();
}

#endif
