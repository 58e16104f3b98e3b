/*
 * Proves that random numbers are Philox's and normal, and that their bits are
 * pinned: a change here would give users other images for their seeds.
 */
#include "nn/nn.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

/* Known answers published with Random123 (kat_vectors, philox4x32 10). */
static void
test_philox(void)
{
	static const struct
	{
		uint32_t counter[4], key[2], out[4];
	} known[] = {
		{ { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
		{ { ~0u, ~0u, ~0u, ~0u },
		  { ~0u, ~0u },
		  { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
		{ { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
		  { 0xa4093822, 0x299f31d0 },
		  { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		uint32_t out[4];

		nn_philox(known[i].counter, known[i].key, out);
		ok(memcmp(out, known[i].out, sizeof(out)) == 0, "Philox known answer %zu", i + 1);
	}
}

/* The values a libm gives for the same words, to float precision. */
static void
test_formula(void)
{
	double worst = 0;

	for (uint32_t seed = 0; seed < 20000; seed++)
	{
		uint32_t counter[4] = { 0, 0, 7, 0 }, key[2] = { seed, 0 }, w[4];
		float z[2];
		double radius, angle;

		nn_philox(counter, key, w);
		nn_normal(seed, 7, 2, z);
		radius = sqrt(-2 * log((w[0] + 0.5) / 4294967296.0));
		angle = (w[1] >> 30) * M_PI_2 + (((w[1] & 0x3FFFFFFF) + 0.5) / 1073741824.0 - 0.5) * M_PI_2;
		worst =
			fmax(worst, fmax(fabs(z[0] - radius * cos(angle)), fabs(z[1] - radius * sin(angle))));
	}
	ok(worst < 3e-7, "normal values are Box-Muller of the words (worst difference %.2g)", worst);
}

static void
test_pins(void)
{
	static const struct
	{
		uint64_t seed, stream;
		uint32_t bits[5];
	} pins[] = {
		{ 0, 0, { 0x3d40884e, 0xbfad6601, 0xbf47101a, 0x3dc4488f, 0x3c9d7ce0 } },
		{ 42, 1, { 0x404219d6, 0x3cc31ce0, 0xbfbb2d19, 0xbf628ae1, 0x3fad2780 } },
		{ 0xFFFFFFFFFFFFFFFF,
		  0x8000000000000000,
		  { 0xbe6a96e9, 0xbf1c300c, 0xbf05fd51, 0xbec1ed0f, 0xbebd4c24 } },
	};

	for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]); i++)
	{
		float z[5];
		uint32_t bits[5];

		nn_normal(pins[i].seed, pins[i].stream, 5, z);
		memcpy(bits, z, sizeof(bits));
		if (!ok(memcmp(bits, pins[i].bits, sizeof(bits)) == 0, "bits of seed %016llx",
				(unsigned long long) pins[i].seed))
			diag("0x%08x, 0x%08x, 0x%08x, 0x%08x, 0x%08x", bits[0], bits[1], bits[2], bits[3],
				 bits[4]);
	}
}

static void
test_prefix(void)
{
	float longer[64], shorter[64];
	bool same = true;

	nn_normal(5, 6, 64, longer);
	for (int nz = 0; nz < 64; nz++)
	{
		memset(shorter, 0, sizeof(shorter));
		nn_normal(5, 6, nz, shorter);
		same &= memcmp(shorter, longer, nz * sizeof(float)) == 0;
		for (int i = nz; i < 64; i++)
			same &= shorter[i] == 0;
	}
	ok(same, "a shorter code is the beginning of a longer one, and no more is written");
}

static int
ascending(const void *a, const void *b)
{
	float x = *(const float *) a, y = *(const float *) b;

	return (x > y) - (x < y);
}

/*
 * Moments within five standard errors and the Kolmogorov-Smirnov distance below
 * its 0.1 % point.
 */
static void
test_distribution(void)
{
	enum
	{
		STREAMS = 25000,
		LENGTH = 8,
		N = STREAMS * LENGTH
	};
	float *z = malloc(N * sizeof(float));
	double mean = 0, variance = 0, kurtosis = 0, lag = 0, distance = 0;

	for (int i = 0; i < STREAMS; i++)
		nn_normal(2026, i, LENGTH, z + i * LENGTH);
	for (int i = 0; i < N; i++)
		mean += z[i] / N;
	for (int i = 0; i < N; i++)
	{
		variance += (z[i] - mean) * (z[i] - mean) / N;
		kurtosis += pow(z[i] - mean, 4) / N;
		lag += (double) z[i] * z[(i + 1) % N] / N;
	}
	qsort(z, N, sizeof(float), ascending);
	for (int i = 0; i < N; i++)
	{
		double p = 0.5 * erfc(-z[i] / sqrt(2));

		distance = fmax(distance, fmax(fabs(p - (double) i / N), fabs(p - (i + 1.0) / N)));
	}
	ok(fabs(mean) < 5 / sqrt(N), "mean %.5f", mean);
	ok(fabs(variance - 1) < 5 * sqrt(2.0 / N), "variance %.5f", variance);
	ok(fabs(kurtosis - 3) < 5 * sqrt(96.0 / N), "kurtosis %.4f", kurtosis);
	ok(fabs(lag) < 5 / sqrt(N), "correlation of neighbours %.5f", lag);
	ok(distance < 1.95 / sqrt(N), "Kolmogorov-Smirnov distance %.5f", distance);
	free(z);
}

int
main(void)
{
	test_philox();
	test_formula();
	test_pins();
	test_prefix();
	test_distribution();
	return done_testing();
}
