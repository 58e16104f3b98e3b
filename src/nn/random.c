/*
 * random.c
 *	  Random numbers that are a pure function of (seed, stream, position), with
 *	  the same bits on every machine.
 *
 * Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy
 * as 1, 2, 3", SC 2011; checked against the authors' known answers. Normal
 * values come from it by Box-Muller.
 *
 * R1 Logarithm, sine, cosine and square root are made of +, -, * and / in
 *    double alone: a libm rounds them as its version does, a contracted
 *    multiply-add as the compiler does (build with -ffp-contract=off), and then
 *    one seed would mean two images.
 * R2 Nothing is kept between calls: any thread may call. The server's side
 *    compiles this file as well: it needs nothing but nn.h and
 *    philox.h.
 */
#include "nn/nn.h"

#include <float.h>
#include <string.h>

#include "common/philox.h"

_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 1,
			   "double arithmetic must round to double");

#define LN2 0.693147180559945309417
#define HALF_PI 1.57079632679489661923

void
nn_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
	uint32_t c[4];

	memcpy(c, counter, sizeof(c));
	philox_rounds(c, key[0], key[1]);
	memcpy(out, c, sizeof(c));
}

/*
 * Natural logarithm of a positive normal number, to a few units in the last
 * place: 2 atanh((m - 1) / (m + 1)) for m in [sqrt(1/2), sqrt(2)).
 */
static double
logarithm(double x)
{
	uint64_t bits;
	int exponent;
	double m, s, s2, sum = 0;

	memcpy(&bits, &x, sizeof(bits));
	exponent = (int) (bits >> 52) - 1023;
	bits = (bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000;
	memcpy(&m, &bits, sizeof(m));
	if (m > 1.41421356237309504880)
	{
		m = m * 0.5;
		exponent++;
	}
	s = (m - 1) / (m + 1);
	s2 = s * s;
	for (int k = 23; k >= 3; k -= 2)
		sum = (sum + 1.0 / k) * s2;
	return exponent * LN2 + 2 * (s + s * sum);
}

/* Square root in (0, 1000) by Newton, from half the exponent. */
static double
square_root(double x)
{
	uint64_t bits;
	double y;

	memcpy(&bits, &x, sizeof(bits));
	bits = (bits >> 1) + 0x1FF8000000000000;
	memcpy(&y, &bits, sizeof(y));
	for (int i = 0; i < 4; i++)
		y = 0.5 * (y + x / y);
	return y;
}

/* Sine and cosine in [-pi/4, pi/4] by their series. */
static void
sine_cosine(double a, double *sine, double *cosine)
{
	static const double s[] = {
		1.0 / 355687428096000, 1.0 / 1307674368000, 1.0 / 6227020800, 1.0 / 39916800,
		1.0 / 362880,          1.0 / 5040,          1.0 / 120,        1.0 / 6
	};
	static const double c[] = {
		1.0 / 20922789888000, 1.0 / 87178291200, 1.0 / 479001600, 1.0 / 3628800,
		1.0 / 40320,          1.0 / 720,         1.0 / 24,        1.0 / 2
	};
	double a2 = a * a, x = 0, y = 0;

	for (int k = 0; k < 8; k++)
	{
		x = (s[k] - x) * a2;
		y = (c[k] - y) * a2;
	}
	*sine = a - a * x;
	*cosine = 1 - y;
}

/* Two normal values of two words: the radius; quadrant and angle. */
static void
box_muller(uint32_t radius_word, uint32_t angle_word, float out[2])
{
	double radius = square_root(-2 * logarithm((radius_word + 0.5) / 4294967296.0));
	double angle = (((angle_word & 0x3FFFFFFF) + 0.5) / 1073741824.0 - 0.5) * HALF_PI;
	double s, c, x, y;

	sine_cosine(angle, &s, &c);
	switch (angle_word >> 30)
	{
		case 0:
			x = c, y = s;
			break;
		case 1:
			x = -s, y = c;
			break;
		case 2:
			x = -c, y = -s;
			break;
		default:
			x = s, y = -c;
			break;
	}
	out[0] = (float) (radius * x);
	out[1] = (float) (radius * y);
}

void
nn_normal(uint64_t seed, uint64_t stream, int nz, float *z)
{
	nn_normal_from(seed, stream, 0, nz, z);
}

/*
 * Values 4i to 4i + 3 come from counter (i, 0, stream) under the key seed, so a
 * longer code begins with the shorter one.
 */
void
nn_normal_from(uint64_t seed, uint64_t stream, uint32_t first, int nz, float *z)
{
	uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };

	for (int i = 0; i < nz; i += 4)
	{
		uint32_t counter[4] = { first / 4 + (uint32_t) i / 4, 0, (uint32_t) stream,
								(uint32_t) (stream >> 32) };
		uint32_t words[4];
		float four[4];

		nn_philox(counter, key, words);
		box_muller(words[0], words[1], four);
		box_muller(words[2], words[3], four + 2);
		memcpy(z + i, four, sizeof(float) * (nz - i < 4 ? nz - i : 4));
	}
}
