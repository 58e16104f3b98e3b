/*
 * Proves that each of the six methods trains as the official code does under
 * options drawn at random, on each device: two steps' losses, the first step's
 * gradients of each network and running statistics
 * (test/gen/training_random.py, which says what was added for methods that the
 * official code lacks).
 *
 * The reference device is held to 1e-8. Others compute in single precision, and
 * activations that round to the other side of 0 change gradients of networks
 * this small by up to 1 % (test_train_official.c); that a device computes
 * gradients well is shown there and operator by operator in
 * test_train_backward.c.
 *
 * Dropout is random, so it is only shown to be where the official code has it.
 *
 * Another file of cases may be given as argument.
 */
#include "nn/nets.h"
#include "testdata.h"
#include "train_fixture.h"

#include <jansson.h>

/*
 * Naive loops under a sanitizer take their time; methods come in turn, and are
 * six.
 */
#ifdef __SANITIZE_ADDRESS__
#define STRIDE 5
#else
#define STRIDE 1
#endif

typedef struct Limits
{
	double losses, /* of the first step */
		later_losses, gradients, buffers;
} Limits;

/* `size` is what the numbers that were added up amount to. */
static bool
near(double got, double expected, double tolerance, double size, const char *what, const char *of)
{
	if (fabs(got - expected) <= tolerance * fmax(fabs(expected), size))
		return true;
	diag("%s of %s is %.12g, not %.12g", what, of, got, expected);
	return false;
}

static bool
check_losses(const Run *run, const json_t *expected, double tolerance)
{
	bool good = true;

	for (int i = 0; i < NN_LOSSES; i++)
	{
		const json_t *value = json_object_get(expected, nn_loss_name((NnLoss) i));

		if (run->losses.present[i] != (value != NULL))
		{
			diag("loss %s is %s", nn_loss_name((NnLoss) i), value ? "absent" : "present");
			good = false;
		}
		else if (value && !near(run->losses.value[i], json_number_value(value), tolerance, 1e-6,
								"loss", nn_loss_name((NnLoss) i)))
			good = false;
	}
	return good;
}

/*
 * Norm and projection of the gradients of a network, and the sum of its running
 * statistics.
 */
static void
describe(const Run *run, NnNetwork network, double *norm, double *projection, double *buffers)
{
	const NnParams *params = nn_fit_params(run->fit);
	const bool *trained = nn_fit_training(run->fit)->schedule.trained;
	double *gradients = array_of(run, NN_ARRAY_GRAD), *values = array_of(run, NN_ARRAY_PARAM),
		   *numbers = malloc(params->total * sizeof(double));
	double squares = 0;
	uint32_t place = 0;

	*projection = *buffers = 0;
	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];

		if (p->network != network)
			continue;
		for (size_t k = 0; p->buffer && !p->integer && k < p->count; k++)
			*buffers += fabs(values[p->offset + k]);
		if (p->buffer)
			continue;
		lcg_fill(5000 + place++, 1, p->count, numbers);
		for (size_t k = 0; trained[i] && k < p->count; k++)
		{
			squares += gradients[p->offset + k] * gradients[p->offset + k];
			*projection += gradients[p->offset + k] * numbers[k];
		}
	}
	*norm = sqrt(squares);
	free(gradients);
	free(values);
	free(numbers);
}

/* All networks of the file and no others. */
static bool
check_networks(const Run *run, const json_t *t, const Limits *limits)
{
	unsigned mask = nn_train_networks(&run->config, &run->options);
	bool good = true;

	for (int i = 0; i < NN_NETWORKS; i++)
	{
		const char *name = nn_network_name((NnNetwork) i);
		const json_t *expected = json_object_get(json_object_get(t, "gradients"), name);
		double norm = json_number_value(json_array_get(expected, 0)), got_norm, projection, buffers;

		if ((expected != NULL) != (mask >> i & 1))
		{
			diag("network %s is %s", name, expected ? "absent" : "present");
			good = false;
			continue;
		}
		if (!expected)
			continue;
		describe(run, (NnNetwork) i, &got_norm, &projection, &buffers);
		/* numbers in [-1, 1) project a gradient to about its norm */
		if (!near(got_norm, norm, limits->gradients, 0, "norm of the gradient", name) ||
			!near(projection, json_number_value(json_array_get(expected, 1)), limits->gradients,
				  norm, "projection of the gradient", name) ||
			!near(buffers, json_number_value(json_object_get(json_object_get(t, "buffers"), name)),
				  limits->buffers, 0, "running statistics", name))
			good = false;
	}
	return good;
}

static void
test_case(NnDevice *device, const json_t *t, const Limits *limits)
{
	const json_t *losses = json_object_get(t, "losses");
	char *options = json_dumps(json_object_get(t, "options"), JSON_COMPACT);
	Run run;
	bool good = run_open(&run, device, options, 100) && run_step(&run) &&
				check_losses(&run, json_array_get(losses, 0), limits->losses) &&
				check_networks(&run, t, limits) && run_step(&run) &&
				check_losses(&run, json_array_get(losses, 1), limits->later_losses);

	ok(good, "%s: %s", device->name, options);
	run_close(&run);
	free(options);
}

/*
 * Levels `first` to `last` of the up path drop, once for each of `calls` of G,
 * and no others.
 */
static void
test_dropout(const char *json, int first, int last, int calls)
{
	NnConfig config;
	NnTrainOptions options;
	NnParams params;
	NnIteration iteration = { 0 };
	int found[16] = { 0 };
	bool good =
		went_well(nn_train_options_parse(&config, &options, json, strlen(json), &train_error)) &&
		went_well(
			nn_params_of(&config, nn_train_networks(&config, &options), &params, &train_error));

	if (!good)
		return;
	nn_iteration_build(&iteration, &config, &options, &params);
	for (int i = 0; i < iteration.graph.nnodes; i++)
	{
		const NnNode *node = &iteration.graph.nodes[i];
		char name[NN_MAX_LAYER_NAME];
		int k = config.levels - 1;

		if (node->op != NN_OP_NORM_ACT || node->norm.dropout <= 0)
			continue;
		for (; k > 0; k--)
		{
			nn_unet_layer_name(&config, k, NN_UP_NORM, name);
			if (strcmp(name, node->name) == 0)
				break;
		}
		found[k]++;
		good = good && node->norm.dropout == 0.5f;
	}
	for (int k = 0; k < config.levels; k++)
		good = good && found[k] == (k >= first && k <= last ? calls : 0);
	ok(good && !iteration.graph.failed, "%s: %d levels of G drop", json, last - first + 1);
	nn_iteration_free(&iteration);
	nn_params_free(&params);
}

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		int threads;
		Limits limits;
	} devices[] = { { "ref", 1, { 1e-8, 1e-8, 1e-8, 1e-8 } },
					{ "cpu", 2, { 1e-4, 1e-2, 2e-2, 1e-4 } } };
	json_error_t error;
	size_t length;
	uint8_t *bytes = argc > 1 ? NULL : testdata_load("training_random.json", &length);
	json_t *file = argc > 1 ? json_load_file(argv[1], 0, &error)
							: json_loadb((const char *) bytes, length, 0, &error);

	ok(json_array_size(file) >= 6, "there are cases");
	test_dropout("{\"size\":64,\"dropout\":true}", 4, 4, 1);
	test_dropout("{\"size\":128,\"dropout\":true,\"norm\":\"batch\"}", 4, 5, 2);
	test_dropout("{\"size\":256,\"dropout\":true}", 4, 6, 1);
	test_dropout("{\"size\":256,\"dropout\":true,\"where_add\":\"input\",\"upsample\":\"bilinear\","
				 "\"method\":\"cvae_gan\"}",
				 4, 6, 1);
	test_dropout("{\"size\":256}", 1, 0, 0);
	for (size_t d = 0; d < sizeof(devices) / sizeof(devices[0]); d++)
	{
		NnDevice *device;

		if (!went_well(nn_device_open(devices[d].name, devices[d].threads, &device, &train_error)))
			return 1;
		for (size_t i = 0; i < json_array_size(file); i += STRIDE)
			test_case(device, json_array_get(file, i), &devices[d].limits);
		nn_device_close(device);
	}
	json_decref(file);
	free(bytes);
	return done_testing();
}
