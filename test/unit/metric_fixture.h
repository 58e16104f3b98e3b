/*
 * metric_fixture.h
 *	  Network L with random weights: what the lpips package's own code makes of
 *	  such (test/gen/lpips.py), and the tests that any device has to pass.
 * `error` is what the last call that failed has said.
 */
#ifndef BICYCLE_METRIC_FIXTURE_H
#define BICYCLE_METRIC_FIXTURE_H

#include "metric_model.h"
#include "tap.h"

#include <math.h>

typedef struct Expected
{
	const char *net, *version;
	int w, h, seed;
	double distance;
	double sum_a, squares_b; /* of the features of a, and of the squares of those of b */
} Expected;

static const Expected expected[] = {
	{ "alex", "0.1", 64, 64, 1, 0.0913658357134, 344.722927858, 961.008152843 },
	{ "alex", "0.1", 64, 64, 2, 0.00799818006063, 359.098877343, 591.47841948 },
	{ "alex", "0.0", 47, 31, 1, 0.0943937669779, 27.1096334892, 7.59095152952 },
	{ "alex", "0.0", 47, 31, 2, 0.00764394554942, 28.2427342976, 4.33267308345 },
	{ "vgg", "0.1", 16, 16, 1, 0.0791198308656, 20.8575704972, 2.68492728177 },
	{ "vgg", "0.1", 16, 16, 2, 0.00863200861922, 20.9295960188, 2.1409574943 },
	{ "vgg", "0.0", 20, 33, 1, 0.0794107326317, 38.6295341437, 6.5459189584 },
	{ "vgg", "0.0", 20, 33, 2, 0.00921750946124, 37.5105391573, 4.43130832711 },
};

#define EXPECTED (int) (sizeof(expected) / sizeof(expected[0]))

static NnError error;

/* ---- Images ------------------------------------------------------------- */

/* (h, w, 3) of every other row, which the next one repeats. */
static void
picture(int seed, int h, int w, uint8_t *out)
{
	size_t pixels = (size_t) h * w;
	double *numbers = malloc(3 * pixels * sizeof(double));

	lcg_fill(seed, 1, 3 * pixels, numbers);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < h; y++)
			for (int x = 0; x < w; x++)
				out[((size_t) y * w + x) * 3 + c] =
					(uint8_t) floor((numbers[c * pixels + y / 2 * 2 * w + x] + 1) * 128);
	free(numbers);
}

static void
pair_of(const Expected *t, uint8_t *pair)
{
	size_t bytes = (size_t) t->h * t->w * 3;

	picture(10 * t->seed, t->h, t->w, pair);
	picture(10 * t->seed + 1, t->h, t->w, pair + bytes);
	for (size_t i = 0; t->seed == 2 && i < bytes; i++)
		pair[bytes + i] = (uint8_t) ((3 * pair[i] + pair[bytes + i]) / 4);
}

/* ---- Tests --------------------------------------------------------------- */

static bool
is_near(double got, double wanted, double tolerance, const char *what)
{
	bool good = fabs(got - wanted) <= tolerance * fabs(wanted);

	if (!good)
		diag("%s: %.9g, not %.9g", what, got, wanted);
	return good;
}

static void
test_expected(Metric *m, const Expected *t)
{
	int n = nn_metric_features(&m->config);
	uint8_t *pair = malloc((size_t) t->h * t->w * 6);
	float distance = NAN, features[2 * 512];
	double sum = 0, squares = 0;
	bool good;

	pair_of(t, pair);
	good = nn_model_compare(m->model, (NnExtent){ t->h, t->w }, 1, pair, &distance, features,
							&error) == NN_OK;
	for (int i = 0; good && i < n; i++)
	{
		sum += features[i];
		squares += (double) features[n + i] * features[n + i];
	}
	ok(good && is_near(distance, t->distance, 1e-5, "distance") &&
		   is_near(sum, t->sum_a, 1e-5, "sum of features") &&
		   is_near(squares, t->squares_b, 1e-4, "squares of features"),
	   "%s %s at %d x %d, pair %d", t->net, t->version, t->w, t->h, t->seed);
	free(pair);
}

/* Pairs of one size as one batch, and each alone. */
static void
test_batch(Metric *m, const Expected *t, bool exact)
{
	enum
	{
		PAIRS = 5
	};
	size_t bytes = (size_t) t->h * t->w * 6;
	uint8_t *pairs = malloc(PAIRS * bytes);
	int n = 2 * nn_metric_features(&m->config);
	float together[PAIRS], *features = malloc((size_t) PAIRS * n * sizeof(float));
	bool good, same = true;

	for (int i = 0; i < PAIRS; i++)
		pair_of(&(Expected){ .w = t->w, .h = t->h, .seed = 3 + i }, pairs + i * bytes);
	memcpy(pairs + 3 * bytes, pairs + 3 * bytes + bytes / 2, bytes / 2);
	good = nn_model_compare(m->model, (NnExtent){ t->h, t->w }, PAIRS, pairs, together, features,
							&error) == NN_OK;
	for (int i = 0; good && i < PAIRS; i++)
	{
		float alone, one[2 * 512];

		good = nn_model_compare(m->model, (NnExtent){ t->h, t->w }, 1, pairs + i * bytes, &alone,
								one, &error) == NN_OK;
		same &= exact ? alone == together[i] &&
							memcmp(one, features + (size_t) i * n, n * sizeof(float)) == 0
					  : fabsf(alone - together[i]) <= 1e-6f;
	}
	ok(good && same && together[3] == 0 && together[2] > 0,
	   "%s %s at %d x %d: the same in a batch and alone, and 0 for equal images", t->net,
	   t->version, t->w, t->h);
	free(features);
	free(pairs);
}

static int looked; /* how often a device has said that it goes on */

static void
look(void)
{
	looked++;
}

/*
 * Three images in four pairs are run once, together and again; and what is
 * forgotten is made anew, and the same.
 */
static void
test_seen(NnDevice *device, Metric *m, const Expected *t)
{
	enum
	{
		PAIRS = 4
	};
	size_t bytes = (size_t) t->h * t->w * 3, seen, first;
	int n = 2 * nn_metric_features(&m->config);
	uint8_t *pairs = malloc(PAIRS * 2 * bytes);
	float distances[3][PAIRS], *features = malloc((size_t) PAIRS * n * sizeof(float));
	bool good = true;

	for (int i = 0; i < PAIRS; i++)
		for (int k = 0; k < 2; k++)
			picture(50 + (i + k) % 3, t->h, t->w, pairs + (2 * (size_t) i + k) * bytes);
	nn_model_keep_seen(m->model, 0);
	nn_device_watch(device, look);
	for (int i = 0; i < 3; i++)
	{
		looked = 0;
		good = good && nn_model_compare(m->model, (NnExtent){ t->h, t->w }, PAIRS, pairs,
										distances[i], features, &error) == NN_OK;
		good = good && (i == 1) == (looked == 0);
		seen = nn_model_seen_bytes(m->model);
		first = i == 0 ? seen : first;
		good = good && seen == first;
		if (i == 1)
			nn_model_keep_seen(m->model, seen - 1);
	}
	nn_device_watch(device, NULL);
	ok(good && memcmp(distances[0], distances[1], sizeof(distances[0])) == 0 &&
		   memcmp(distances[0], distances[2], sizeof(distances[0])) == 0 &&
		   distances[0][3] == distances[0][0] && distances[0][0] > 0,
	   "%s %s at %d x %d: what an image makes is made once while it is kept", t->net, t->version,
	   t->w, t->h);
	nn_model_keep_seen(m->model, 0);
	ok(nn_model_seen_bytes(m->model) == 0, "and nothing of it stays");
	free(features);
	free(pairs);
}

/* Weights do not know their version. */
static void
test_device(NnDevice *device, const char *net, bool exact)
{
	Metric m;
	bool made = metric_make(&m, net, "0.1", &error);

	for (int i = 0; made && i < EXPECTED; i += 2)
	{
		if (strcmp(expected[i].net, net) != 0)
			continue;
		if (!ok(nn_metric_config(&m.config, net, expected[i].version, &error) == NN_OK &&
					nn_model_load(device, &m.config, NN_PRECISION_AUTO, m.tensors, m.params.n,
								  &m.model, &error) == NN_OK &&
					nn_model_precision(m.model) == NN_PRECISION_FP32,
				"%s %s loads, in fp32", net, expected[i].version))
		{
			diag("%s %s", error.message, error.detail);
			continue;
		}
		test_expected(&m, &expected[i]);
		test_batch(&m, &expected[i], exact);
		test_expected(&m, &expected[i + 1]);
		test_seen(device, &m, &expected[i]);
		nn_model_free(m.model);
		m.model = NULL;
	}
	metric_free(&m);
}

#endif /* BICYCLE_METRIC_FIXTURE_H */
