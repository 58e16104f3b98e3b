/*
 * Proves what discriminators see with the option diff_augment: the numbers are
 * drawn from the ranges of the official code, each image's and exhibit's its
 * own; images and gradients are those of the official code; a run is the same
 * to the bit from a checkpoint on, and in parts the same but for rounding; what
 * G learns of a discriminator goes through it, and nothing else changes.
 */
#include "train_fixture.h"

#include <math.h>

#define SMALL "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4"
#define ALL "\"diff_augment\":\"color,translation,cutout\""

/* ---- Numbers ------------------------------------------------------------- */

#define DRAWN 4096

static float drawn[DRAWN][NN_AUGMENT_NUMBERS];

static void
draw_numbers(int64_t iteration, int which, NnDiffAugment varied)
{
	nn_train_augment(3, iteration, which, DRAWN, 64, varied, &drawn[0][0]);
}

/* Whether all of them are within, and some near each end. */
static bool
spreads(int number, double least, double most)
{
	double low = INFINITY, high = -INFINITY, slack = (most - least) / 50;

	for (int i = 0; i < DRAWN; i++)
	{
		low = fmin(low, drawn[i][number]);
		high = fmax(high, drawn[i][number]);
	}
	if (low >= least && high <= most && low <= least + slack && high >= most - slack)
		return true;
	diag("number %d goes from %g to %g", number, low, high);
	return false;
}

static bool
is_constant(int number, float value)
{
	for (int i = 0; i < DRAWN; i++)
		if (drawn[i][number] != value)
			return false;
	return true;
}

static void
test_numbers(void)
{
	const NnDiffAugment all =
		NN_DIFF_AUGMENT_COLOR | NN_DIFF_AUGMENT_TRANSLATION | NN_DIFF_AUGMENT_CUTOUT;
	static float other[DRAWN][NN_AUGMENT_NUMBERS];

	draw_numbers(7, 1, all);
	ok(spreads(NN_AUGMENT_BRIGHTNESS, -0.5, 0.5) && spreads(NN_AUGMENT_SATURATION, 0, 2) &&
		   spreads(NN_AUGMENT_CONTRAST, 0.5, 1.5),
	   "colours are drawn from the official ranges");
	ok(spreads(NN_AUGMENT_DOWN, -0.125, 0.125) && spreads(NN_AUGMENT_RIGHT, -0.125, 0.125) &&
		   spreads(NN_AUGMENT_CUT_Y, 0, 1) && spreads(NN_AUGMENT_CUT_X, 0, 1),
	   "and so are places");
	memcpy(other, drawn, sizeof(other));
	draw_numbers(7, 1, all);
	ok(memcmp(other, drawn, sizeof(other)) == 0, "they are a function of seed and iteration");
	draw_numbers(8, 1, all);
	ok(memcmp(other[0], drawn[0], sizeof(other[0])) != 0 &&
		   memcmp(drawn[0], drawn[1], sizeof(drawn[0])) != 0,
	   "of each iteration and image others");
	draw_numbers(7, 2, all);
	ok(memcmp(other[0], drawn[0], sizeof(other[0])) != 0, "and of what is real others");
	draw_numbers(7, 1, NN_DIFF_AUGMENT_CUTOUT);
	ok(is_constant(NN_AUGMENT_BRIGHTNESS, 0) && is_constant(NN_AUGMENT_SATURATION, 1) &&
		   is_constant(NN_AUGMENT_CONTRAST, 1) && is_constant(NN_AUGMENT_DOWN, 0) &&
		   is_constant(NN_AUGMENT_RIGHT, 0) &&
		   drawn[5][NN_AUGMENT_CUT_X] == other[5][NN_AUGMENT_CUT_X],
	   "what is not varied stays, and changes no other number");
}

/* ---- The official code --------------------------------------------------- */

/* By test/gen/diff_augment.py. Numbers in pixels. */
typedef struct Official
{
	const char *policy;
	NnShape shape;
	NnAugmentArgs args;
	double numbers[2][NN_AUGMENT_NUMBERS];
	/* sums of y and of dx, and their projections on the generator's numbers */
	double y, y_along, dx, dx_along;
} Official;

static const Official officials[] = {
	{ "color",
	  { 2, 12, 12, 3 },
	  { .colour = true },
	  { { 0.3, 1.7, 0.6 }, { -0.45, 0.2, 1.4 } },
	  -73.7338810816,
	  -0.419577195313,
	  -9.61799975485,
	  7.08062990643 },
	{ "translation",
	  { 2, 12, 12, 3 },
	  { 0 },
	  { { 0, 1, 1, 2, -1 }, { 0, 1, 1, -1, 2 } },
	  -0.869756162632,
	  4.24544885915,
	  -14.9575450248,
	  8.08765642206 },
	{ "cutout",
	  { 2, 12, 12, 3 },
	  { .cuts = true },
	  { { 0, 1, 1, 0, 0, 0, 12 }, { 0, 1, 1, 0, 0, 5, 3 } },
	  0.703659208026,
	  6.61955247479,
	  -6.37057811581,
	  7.09610525915 },
	{ "color,translation,cutout",
	  { 2, 9, 14, 3 },
	  { .colour = true, .cuts = true },
	  { { 0.1, 0.4, 1.3, 1, -2, 8, 2 }, { -0.2, 1.9, 0.7, -1, 1, 4, 11 } },
	  -43.8111551145,
	  -10.8994475823,
	  -9.25652662478,
	  -5.06470011831 },
};

/* A map of `count` numbers of the generator, NHWC. */
static NnMap
map_of(NnShape s, double *data)
{
	return (NnMap){ .shape = s, .pitch = (size_t) s.c, .wide = true, .f64 = data };
}

static double
along(const double *x, const double *y, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += x[i] * (y ? y[i] : 1);
	return sum;
}

static bool
near(double got, double expected, const char *what)
{
	if (fabs(got - expected) <= 1e-6 * (1 + fabs(expected)))
		return true;
	diag("%s is %.12g, not %.12g", what, got, expected);
	return false;
}

static void
test_official(const Official *o, const NnDevice *ref)
{
	NnShape s = o->shape;
	size_t n = (size_t) s.n * s.h * s.w * s.c;
	NnNode node = { .op = NN_OP_AUGMENT, .augment = o->args };
	double numbers[2][NN_AUGMENT_NUMBERS];
	double *x = malloc(3 * n * sizeof(double)), *y = x + n, *dx = y + n;
	double *weight = malloc(2 * n * sizeof(double)), *other = weight + n;
	NnOperands op = { .device = ref, .node = &node, .in_mode = { NN_GRAD_ACCUMULATE } };
	NnError error;

	lcg_fill(5, 1, n, x);
	lcg_fill(6, 1, n, weight);
	lcg_fill(7, 1, n, other);
	memset(dx, 0, n * sizeof(double));
	memcpy(numbers, o->numbers, sizeof(numbers));
	for (int i = 0; i < 2; i++)
	{
		numbers[i][NN_AUGMENT_DOWN] /= s.h;
		numbers[i][NN_AUGMENT_CUT_Y] /= s.h;
		numbers[i][NN_AUGMENT_RIGHT] /= s.w;
		numbers[i][NN_AUGMENT_CUT_X] /= s.w;
	}
	op.in[0] = map_of(s, x);
	op.in[1] = map_of((NnShape){ 2, 1, 1, NN_AUGMENT_NUMBERS }, &numbers[0][0]);
	op.out[0] = map_of(s, y);
	op.dout[0] = map_of(s, weight);
	op.din[0] = map_of(s, dx);
	(void) ref->train->ops[NN_OP_AUGMENT].forward(&op, &error);
	(void) ref->train->ops[NN_OP_AUGMENT].backward(&op, &error);
	ok(near(along(y, NULL, n), o->y, "the sum") &&
		   near(along(y, weight, n), o->y_along, "the projection") &&
		   near(along(dx, NULL, n), o->dx, "the gradient's sum") &&
		   near(along(dx, other, n), o->dx_along, "the gradient's projection"),
	   "%s: image and gradient are the official ones", o->policy);
	free(x);
	free(weight);
}

/* ---- Runs ---------------------------------------------------------------- */

static bool
same_array(const Run *x, const Run *y, NnArray array, double limit)
{
	double *a = array_of(x, array), *b = array_of(y, array);
	double difference = 0, norm = 0;

	for (size_t i = 0; i < nn_fit_params(x->fit)->total; i++)
	{
		difference += (a[i] - b[i]) * (a[i] - b[i]);
		norm += a[i] * a[i];
	}
	free(a);
	free(b);
	if (difference <= limit * norm)
		return true;
	diag("normalised square error %.3g", difference / norm);
	return false;
}

static void
test_resume(NnDevice *device)
{
	static const char json[] = "{" SMALL "," ALL ",\"conditional_d\":true,\"seed\":9}";
	Run whole, first, second;
	NnTensor *tensors = NULL;
	int n = 0;
	bool good = run_open(&whole, device, json, 4) && run_steps(&whole, 4) &&
				run_open(&first, device, json, 4) && run_steps(&first, 2) &&
				run_open(&second, device, json, 4) &&
				went_well(fit_state(first.fit, &tensors, &n, &train_error)) &&
				went_well(nn_fit_restore(second.fit, tensors, n, 2, &train_error));

	second.step = first.step;
	ok(good && run_steps(&second, 2) && same_array(&whole, &second, NN_ARRAY_PARAM, 0),
	   "2 + 2 iterations are 4, to the bit");
	free(tensors);
	run_close(&whole);
	run_close(&first);
	run_close(&second);
}

static void
test_parts(NnDevice *device)
{
	Run whole, parts;
	bool good =
		run_open(&whole, device, "{" SMALL "," ALL ",\"batch_size\":4}", 4) &&
		run_open(&parts, device, "{" SMALL "," ALL ",\"batch_size\":4,\"accumulate\":2}", 4) &&
		run_step(&whole) && run_step(&parts);

	for (int i = 0; good && i < NN_LOSSES; i++)
		good = fabs(whole.losses.value[i] - parts.losses.value[i]) <=
			   1e-4 * fabs(whole.losses.value[i]);
	ok(good, "a batch in parts shows the discriminators the same");
	run_close(&whole);
	run_close(&parts);
}

static void
test_devices(NnDevice *ref, NnDevice *cpu, const char *more)
{
	char json[256];
	Run one, other, plain;
	bool good, same = true, moved;

	snprintf(json, sizeof(json), "{" SMALL "," ALL "%s}", more);
	good = run_open(&one, ref, json, 4) && run_open(&other, cpu, json, 4) && run_step(&one) &&
		   run_step(&other);
	for (int i = 0; good && i < NN_LOSSES; i++)
		same = same && fabs(one.losses.value[i] - other.losses.value[i]) <=
						   1e-4 * fabs(one.losses.value[i]);
	ok(good && same && same_array(&one, &other, NN_ARRAY_GRAD, 1e-8), "%s: devices agree", json);
	snprintf(json, sizeof(json), "{" SMALL "%s}", more);
	good = good && run_open(&plain, cpu, json, 4) && run_step(&plain);
	moved = plain.losses.value[NN_LOSS_G_GAN] != other.losses.value[NN_LOSS_G_GAN] &&
			plain.losses.value[NN_LOSS_D] != other.losses.value[NN_LOSS_D];
	ok(good && moved && plain.losses.value[NN_LOSS_G_L1] == other.losses.value[NN_LOSS_G_L1],
	   "they judge otherwise, and the distance to the target is as it was");
	run_close(&one);
	run_close(&other);
	run_close(&plain);
}

static void
test_needs(void)
{
	static const char json[] = "{" SMALL "," ALL ",\"lambda_gan\":0,\"lambda_gan2\":0}";
	NnConfig config;
	NnTrainOptions options;

	ok(nn_train_options_parse(&config, &options, json, strlen(json), &train_error) == NN_EINVAL &&
		   strstr(train_error.message, "diff_augment") != NULL,
	   "without a discriminator it is refused: %s", train_error.message);
}

int
main(void)
{
	NnDevice *ref = NULL, *cpu = NULL;

	if (!went_well(nn_device_open("ref", 1, &ref, &train_error)) ||
		!went_well(nn_device_open("cpu", 2, &cpu, &train_error)))
		return 1;
	test_numbers();
	for (size_t i = 0; i < sizeof(officials) / sizeof(officials[0]); i++)
		test_official(&officials[i], ref);
	test_resume(cpu);
	test_parts(cpu);
	test_devices(ref, cpu, "");
	test_devices(ref, cpu, ",\"conditional_d\":true,\"output_nc\":1");
	test_needs();
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
