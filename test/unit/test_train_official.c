/*
 * Proves that training follows the official code, on each device: the norm and
 * a projection of every tensor's gradient in the first step, running statistics
 * after it, and all losses of the steps that follow, in nine configurations
 * (test/gen/training.py).
 *
 * Gradients of the reference device are held to 1e-8 of their norm, others to
 * 1e-3; losses of two steps to 1e-8 and 1e-4. Where a value lies within
 * rounding of 0, an activation's slope there is a matter of luck, and with it
 * up to 1 % of these small networks' gradients (so found for the reference
 * device with weights moved by 1e-7 of themselves); one case of a device in
 * single precision may be off by 0.5 %. From the second step on rounding grows
 * fast, because Adam divides by the size of the gradient: the official code in
 * float32 is 2 % off in step 6 and 12 % in step 12 (measured with training.py).
 * So the reference device is held to 1e-6 in twelve steps (four in most cases,
 * to save time), others to 5 % in six. Biases before a norm are left out: their
 * gradient is 0.
 */
#include "testdata.h"
#include "train_fixture.h"

#include <jansson.h>

typedef struct Limits
{
	double gradient, unlucky_gradient, /* of one case */
		first_losses,                  /* of steps 1 and 2 */
		losses;
} Limits;

/* Naive loops under a sanitizer take their time. */
#ifdef __SANITIZE_ADDRESS__
#define STEPS(n) 1
#else
#define STEPS(n) (n)
#endif

/* ---- Gradients ----------------------------------------------------------- */

static bool
same_gradient(const NnParam *p, const double *g, const json_t *expected, uint32_t seed,
			  double tolerance, double largest)
{
	double *numbers = malloc(p->count * sizeof(double));
	double norm = json_number_value(json_array_get(expected, 0)),
		   projection = json_number_value(json_array_get(expected, 1)), got_norm = 0,
		   got_projection = 0, length = 0;

	lcg_fill(seed, 1, p->count, numbers);
	for (size_t i = 0; i < p->count; i++)
	{
		got_norm += g[i] * g[i];
		got_projection += g[i] * numbers[i];
		length += numbers[i] * numbers[i];
	}
	free(numbers);
	got_norm = sqrt(got_norm);
	/*
	 * the bilinear G has one that is 0: it only makes a constant map, which a
	 * norm takes away
	 */
	if (norm < 1e-9 * largest && got_norm <= tolerance * 1e-3 * largest)
		return true;
	if (fabs(got_norm - norm) <= tolerance * norm &&
		fabs(got_projection - projection) <= tolerance * norm * sqrt(length))
		return true;
	diag("gradient of %s of %s: norm %.10g, not %.10g, projection %.10g, not %.10g", p->name,
		 nn_network_name(p->network), got_norm, norm, got_projection, projection);
	return false;
}

static double
largest_norm(json_t *tensors)
{
	const char *name;
	json_t *expected;
	double largest = 0;

	json_object_foreach(tensors, name, expected) largest =
		fmax(largest, json_number_value(json_array_get(expected, 0)));
	return largest;
}

/*
 * Checks all tensors of the file, each of which must be there; returns how
 * many, or -1.
 */
static int
check_gradients(const Run *run, const json_t *networks, double tolerance)
{
	const NnParams *params = nn_fit_params(run->fit);
	const bool *trained = nn_fit_training(run->fit)->schedule.trained;
	double *gradients = array_of(run, NN_ARRAY_GRAD);
	const char *which, *name;
	json_t *tensors, *expected;
	int count = 0;

	json_object_foreach((json_t *) networks, which, tensors)
	{
		uint32_t place = 0;
		double largest = largest_norm(tensors);

		json_object_foreach(tensors, name, expected)
		{
			NnNetwork network = NN_NETWORKS;
			int i =
				nn_network_from_name(which, &network) ? nn_params_find(params, network, name) : -1;
			const NnParam *p = i >= 0 ? &params->list[i] : NULL;
			bool bias = strstr(name, ".bias") != NULL;

			place++;
			if (p && !trained[i] && bias)
				continue;
			if (!p || count < 0 ||
				!same_gradient(p, gradients + p->offset, expected, 5000 + place - 1, tolerance,
							   largest))
				count = -1;
			else
				count++;
		}
	}
	free(gradients);
	return count;
}

static bool
check_buffers(const Run *run, const json_t *networks, double tolerance)
{
	const NnParams *params = nn_fit_params(run->fit);
	double *values = array_of(run, NN_ARRAY_PARAM);
	const char *which, *name;
	json_t *tensors, *expected;
	bool good = true;

	json_object_foreach((json_t *) networks, which, tensors)
		json_object_foreach(tensors, name, expected)
	{
		NnNetwork network = NN_NETWORKS;
		int i = nn_network_from_name(which, &network) ? nn_params_find(params, network, name) : -1;
		const NnParam *p = i >= 0 ? &params->list[i] : NULL;
		double norm = 0;

		for (size_t k = 0; p && k < p->count; k++)
			norm += values[p->offset + k] * values[p->offset + k];
		if (p && (p->integer || fabs(sqrt(norm) - json_number_value(expected)) <=
									tolerance * json_number_value(expected)))
			continue;
		diag("%s of %s: norm %.10g, not %.10g", name, which, sqrt(norm),
			 json_number_value(expected));
		good = false;
	}
	free(values);
	return good;
}

/* ---- Cases --------------------------------------------------------------- */

static bool
check_losses(const Run *run, const json_t *expected, double tolerance, size_t step)
{
	bool good = true;

	for (int i = 0; i < NN_LOSSES; i++)
	{
		double e = json_number_value(json_object_get(expected, nn_loss_name((NnLoss) i)));

		if (fabs(run->losses.value[i] - e) > tolerance * fabs(e))
		{
			diag("step %zu: %s is %.12g, not %.12g", step + 1, nn_loss_name((NnLoss) i),
				 run->losses.value[i], e);
			good = false;
		}
	}
	return good;
}

static void
test_case(NnDevice *device, const json_t *t, const Limits *limits, int steps, int *unlucky)
{
	const char *name = json_string_value(json_object_get(t, "name"));
	const json_t *losses = json_object_get(t, "losses");
	json_t *options = json_deep_copy(json_object_get(t, "options"));
	char *text;
	Run run;
	int tensors = 0;
	bool good;

	json_object_set_new(options, "size", json_integer(128));
	json_object_set_new(options, "ngf", json_integer(8));
	json_object_set_new(options, "nef", json_integer(8));
	json_object_set_new(options, "ndf", json_integer(8));
	text = json_dumps(options, JSON_COMPACT);
	good = run_open(&run, device, text, 2);
	for (int step = 0; good && step < steps; step++)
	{
		good =
			run_step(&run) && check_losses(&run, json_array_get(losses, step),
										   step < 2 ? limits->first_losses : limits->losses, step);
		if (good && step == 0)
		{
			tensors = check_gradients(&run, json_object_get(t, "gradients"), limits->gradient);
			if (tensors < 0 && *unlucky < 1)
			{
				tensors = check_gradients(&run, json_object_get(t, "gradients"),
										  limits->unlucky_gradient);
				(*unlucky)++;
			}
			good = tensors >= 50 &&
				   check_buffers(&run, json_object_get(t, "buffers"), limits->gradient);
		}
	}
	ok(good, "%s: %s: gradients of %d tensors, losses of %d steps", device->name, name, tensors,
	   steps);
	run_close(&run);
	free(text);
	json_decref(options);
}

int
main(void)
{
	static const struct
	{
		const char *name;
		Limits limits;
		int most, /* steps of the first and the sixth case, in which norms differ */
			few;  /* and of the others */
	} devices[] = { { "ref", { 1e-8, 1e-8, 1e-8, 1e-6 }, 12, 4 },
					{ "cpu", { 1e-3, 5e-3, 1e-4, 5e-2 }, 6, 6 } };
	size_t length;
	uint8_t *bytes = testdata_load("training.json", &length);
	json_t *file = json_loadb((const char *) bytes, length, 0, NULL);

	ok(json_array_size(file) == 9, "there are nine cases");
	for (size_t d = 0; d < sizeof(devices) / sizeof(devices[0]); d++)
	{
		NnDevice *device;
		int unlucky = 0;

		if (!went_well(nn_device_open(devices[d].name, 1, &device, &train_error)))
			return 1;
		for (size_t i = 0; i < json_array_size(file); i++)
			test_case(device, json_array_get(file, i), &devices[d].limits,
					  STEPS(i % 5 == 0 ? devices[d].most : devices[d].few), &unlucky);
		nn_device_close(device);
	}
	json_decref(file);
	free(bytes);
	return done_testing();
}
