/*
 * Proves that fresh weights have the distributions of the official
 * initialisation, and depend on the seed and on their place in their network
 * alone, not on the number of threads; and that drawing them ends when they
 * are no longer wanted.
 */
#include "nn/nn_error.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

typedef struct Weights
{
	NnParams params;
	float *values;
} Weights;

static int threads = 1;

static Weights
draw(unsigned mask, NnNorm norm, NnInit init, float gain, uint64_t seed)
{
	NnFresh fresh = { .init = init, .gain = gain, .seed = seed, .threads = threads };
	NnConfig config;
	NnError error;
	Weights w = { 0 };

	nn_config_default(&config);
	config.size = config.encoder_size = 128;
	config.levels = 7;
	config.ngf = config.nef = config.ndf = 16;
	config.norm = norm;
	if (nn_params_of(&config, mask, &w.params, &error) != NN_OK)
		diag("%s", error.message);
	w.values = malloc(w.params.total * sizeof(float));
	for (int i = 0; i < w.params.n; i++)
		if (nn_param_init(&w.params, i, &fresh, w.values + w.params.list[i].offset, &error) !=
			NN_OK)
			diag("%s", error.message);
	return w;
}

static void
drop(Weights *w)
{
	nn_params_free(&w->params);
	free(w->values);
}

static double
deviation(const float *values, size_t count, double mean)
{
	double squares = 0;

	for (size_t i = 0; i < count; i++)
		squares += (values[i] - mean) * (values[i] - mean);
	return sqrt(squares / count);
}

/*
 * Whether all tensors of at least two dimensions have standard deviation
 * `expected`, within five standard errors, and all others are 0.
 */
static bool
spread(const Weights *w, double (*expected)(const NnParam *p))
{
	bool good = true;

	for (int i = 0; i < w->params.n; i++)
	{
		const NnParam *p = &w->params.list[i];
		double wanted = p->ndim > 1 ? expected(p) : 0,
			   got = deviation(w->values + p->offset, p->count, 0);

		if (fabs(got - wanted) <= 5 * wanted / sqrt(2.0 * p->count))
			continue;
		diag("%s: %g instead of %g", p->name, got, wanted);
		good = false;
	}
	return good;
}

static double
xavier(const NnParam *p)
{
	double field = p->ndim == 4 ? p->shape[2] * p->shape[3] : 1;

	return 0.02 * sqrt(2 / ((p->shape[0] + p->shape[1]) * field));
}

static double
normal(const NnParam *p)
{
	return 0.02;
}

/*
 * Fan in as stored: of a transposed convolution (in, out, 4, 4) it counts the
 * outputs.
 */
static double
kaiming(const NnParam *p)
{
	return sqrt(2 / (p->shape[1] * (p->ndim == 4 ? (double) (p->shape[2] * p->shape[3]) : 1)));
}

static void
test_spreads(void)
{
	static const struct
	{
		const char *name;
		NnInit init;
		double (*expected)(const NnParam *p);
	} cases[] = {
		{ "xavier", NN_INIT_XAVIER, xavier },
		{ "normal", NN_INIT_NORMAL, normal },
		{ "kaiming", NN_INIT_KAIMING, kaiming },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Weights w = draw(1u << NN_NET_G | 1u << NN_NET_E | 1u << NN_NET_D, NN_NORM_INSTANCE,
						 cases[i].init, 0.02f, 1);

		ok(spread(&w, cases[i].expected), "%s: weights have its deviation, biases are 0",
		   cases[i].name);
		drop(&w);
	}
}

/* Rows, or columns if they are fewer, are orthonormal times the gain. */
static bool
orthogonal(const NnParam *p, const float *values, double gain)
{
	size_t rows = p->shape[0], columns = p->count / rows;
	bool by_rows = rows <= columns;
	size_t count = by_rows ? rows : columns, length = by_rows ? columns : rows,
		   step = by_rows ? 1 : columns, next = by_rows ? columns : 1;

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j <= i; j++)
		{
			double product = 0;

			for (size_t k = 0; k < length; k++)
				product += (double) values[i * next + k * step] * values[j * next + k * step];
			if (fabs(product / (gain * gain) - (i == j)) > 1e-5)
			{
				diag("%s: product of %zu and %zu is %g", p->name, i, j, product);
				return false;
			}
		}
	return true;
}

static void
test_orthogonal(void)
{
	Weights w =
		draw(1u << NN_NET_G | 1u << NN_NET_E, NN_NORM_INSTANCE, NN_INIT_ORTHOGONAL, 0.5f, 3);
	bool good = true, tall = false;

	for (int i = 0; i < w.params.n; i++)
	{
		const NnParam *p = &w.params.list[i];

		if (p->ndim < 2 || p->count > 200000)
			continue;
		good &= orthogonal(p, w.values + p->offset, 0.5);
		tall |= p->shape[0] > (int64_t) (p->count / p->shape[0]);
	}
	ok(good, "orthogonal: rows or columns are orthonormal times the gain");
	ok(tall, "both kinds were among them");
	drop(&w);
}

static void
test_batch_norm(void)
{
	Weights w = draw(1u << NN_NET_G, NN_NORM_BATCH, NN_INIT_XAVIER, 0.02f, 1);
	double sum = 0, squares = 0;
	size_t count = 0;
	bool good = true;

	for (int i = 0; i < w.params.n; i++)
	{
		const NnParam *p = &w.params.list[i];
		const float *v = w.values + p->offset;
		bool var = strstr(p->name, "running_var") != NULL;

		for (size_t k = 0; k < p->count && p->ndim < 2; k++)
		{
			if (!p->buffer && strstr(p->name, ".weight"))
			{
				sum += v[k];
				squares += (v[k] - 1) * (v[k] - 1);
				count++;
			}
			else
				good &= v[k] == (var ? 1 : 0);
		}
	}
	ok(good, "batch norm: bias and running mean are 0, running variance is 1, nothing was tracked");
	ok(fabs(sum / count - 1) < 5 * 0.02 / sqrt(count) &&
		   fabs(sqrt(squares / count) - 0.02) < 5 * 0.02 / sqrt(2.0 * count),
	   "its weights are N(1, gain^2): mean %.4f, deviation %.4f over %zu", sum / count,
	   sqrt(squares / count), count);
	drop(&w);
}

static void
test_threads(void)
{
	static const NnInit inits[] = { NN_INIT_XAVIER, NN_INIT_ORTHOGONAL };
	bool same = true;

	for (int k = 0; k < 2; k++)
	{
		Weights one = draw(1u << NN_NET_G, NN_NORM_BATCH, inits[k], 0.02f, 7), three;

		threads = 3;
		three = draw(1u << NN_NET_G, NN_NORM_BATCH, inits[k], 0.02f, 7);
		threads = 1;
		same &= memcmp(one.values, three.values, one.params.total * sizeof(float)) == 0;
		drop(&one);
		drop(&three);
	}
	ok(same, "three threads draw the same weights as one");
}

static void
test_determinism(void)
{
	Weights both =
				draw(1u << NN_NET_G | 1u << NN_NET_E, NN_NORM_INSTANCE, NN_INIT_XAVIER, 0.02f, 7),
			encoder = draw(1u << NN_NET_E, NN_NORM_INSTANCE, NN_INIT_XAVIER, 0.02f, 7),
			again = draw(1u << NN_NET_E, NN_NORM_INSTANCE, NN_INIT_XAVIER, 0.02f, 7),
			other = draw(1u << NN_NET_E, NN_NORM_INSTANCE, NN_INIT_XAVIER, 0.02f, 8);
	size_t bytes = encoder.params.total * sizeof(float);
	const NnParam *a = &encoder.params.list[6], *b = &encoder.params.list[12];

	ok(memcmp(encoder.values, again.values, bytes) == 0, "the same seed draws the same weights");
	ok(memcmp(encoder.values, both.values + both.params.total - encoder.params.total, bytes) == 0,
	   "whatever other networks are drawn with it");
	ok(memcmp(encoder.values, other.values, bytes) != 0, "another seed draws others");
	ok(memcmp(encoder.values + a->offset, encoder.values + b->offset, 64) != 0,
	   "and each tensor has its own");
	drop(&both);
	drop(&encoder);
	drop(&again);
	drop(&other);
}

static _Atomic int asked, until;

static bool
wanted_until(void *arg)
{
	return ++asked <= until;
}

/* 512 vectors are 8 parts: each asks for each of its vectors, and at last. */
static void
test_unwanted(void)
{
	char name[] = "weight";
	NnParam weight = { .name = name, .ndim = 4, .shape = { 512, 64, 4, 4 } };
	NnParams params = { .list = &weight, .n = 1 };
	NnFresh fresh = {
		.init = NN_INIT_ORTHOGONAL, .gain = 1, .seed = 1, .threads = 2, .wanted = wanted_until
	};
	NnError error = { 0 };
	float *values = malloc(sizeof(float) * 512 * 1024);

	weight.count = 512 * 1024;
	until = 150; /* of 8 * (64 + 1) */
	ok(nn_param_init(&params, 0, &fresh, values, &error) == NN_EINVAL,
	   "orthogonal weights that are no longer wanted are not drawn on: %s", error.message);
	ok(asked > until && asked <= until + 64 + 1, "for longer than a part: asked %d times of %d",
	   asked, until);
	asked = 0;
	until = 1000;
	ok(nn_param_init(&params, 0, &fresh, values, &error) == NN_OK && asked == 8 * (64 + 1),
	   "else to the end, asked %d times", asked);
	free(values);
}

int
main(void)
{
	test_spreads();
	test_orthogonal();
	test_batch_norm();
	test_threads();
	test_unwanted();
	test_determinism();
	return done_testing();
}
