/*
 * Proves what the device's tests cannot see of the vector kernels, for each
 * instruction set that this processor has: tanh and elu are right to a few
 * units in the last place, bfloat16 is rounded to nearest even and NaN stays
 * NaN, and partial vectors neither read nor write beyond their channels.
 */
#include "nn/cpu/cpu_kernels.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

#define MAX_ULP 4.0

static float
apply_one(const CpuKernels *kernels, NnActKind act, float x)
{
	static const float zero, one = 1;
	float y;
	CpuAffine same = { &zero, &zero, &one, &zero };
	CpuOut out = { &y, 1, false, { act, NN_ACT_NONE } };

	kernels->apply((CpuRun){ &x, 1, false }, 1, 1, &same, &out, 1);
	return y;
}

/* The distance from the true value in units of the float's last place. */
static double
ulps(float got, double expected)
{
	int exponent;

	if (got == (float) expected)
		return 0;
	frexp(expected, &exponent);
	return fabs(got - expected) / ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

static void
test_functions(const CpuKernels *kernels)
{
	double worst_tanh = 0, worst_elu = 0;

	for (int i = 0; i < 200000; i++)
	{
		/* from 1e-6 to 100, both signs */
		float x = (float) ((i & 1 ? -1 : 1) * pow(10, -6 + 8.0 * i / 200000));

		worst_tanh = fmax(worst_tanh, ulps(apply_one(kernels, NN_ACT_TANH, x), tanh(x)));
		worst_elu = fmax(worst_elu, ulps(apply_one(kernels, NN_ACT_ELU, x), x > 0 ? x : expm1(x)));
	}
	ok(worst_tanh <= MAX_ULP, "%s: tanh within %.2f ulp", kernels->name, worst_tanh);
	ok(worst_elu <= MAX_ULP, "%s: elu within %.2f ulp", kernels->name, worst_elu);
	ok(apply_one(kernels, NN_ACT_TANH, INFINITY) == 1 &&
		   apply_one(kernels, NN_ACT_TANH, -INFINITY) == -1 &&
		   apply_one(kernels, NN_ACT_TANH, 0) == 0,
	   "%s: tanh at 0 and infinity", kernels->name);
	ok(isnan(apply_one(kernels, NN_ACT_TANH, NAN)) && isnan(apply_one(kernels, NN_ACT_ELU, NAN)) &&
		   isnan(apply_one(kernels, NN_ACT_RELU, NAN)) &&
		   isnan(apply_one(kernels, NN_ACT_LRELU, NAN)),
	   "%s: no activation hides what is no number", kernels->name);
}

static uint16_t
bf16_of(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	if (isnan(x))
		return 0x7fc0;
	return (uint16_t) ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static float
float_of(uint16_t x)
{
	uint32_t bits = (uint32_t) x << 16;
	float y;

	memcpy(&y, &bits, sizeof(y));
	return y;
}

/*
 * n channels through apply(), to bfloat16 and back; guards stand around the
 * outputs.
 */
static void
test_bf16(const CpuKernels *kernels)
{
	float zeros[CPU_BLOCK] = { 0 }, ones[CPU_BLOCK], x[CPU_BLOCK];
	CpuAffine same = { zeros, zeros, ones, zeros };
	bool rounds = true, reads = true, guarded = true, moments = true;

	for (int i = 0; i < CPU_BLOCK; i++)
	{
		uint32_t bits = 0x3f800000u + 0x4000u * i + (i % 3); /* ties, and just beside them */

		ones[i] = 1;
		memcpy(&x[i], &bits, sizeof(float));
		x[i] *= i & 1 ? -1 : 1;
	}
	x[5] = NAN;
	for (int n = 1; n <= CPU_BLOCK; n++)
	{
		uint16_t half[CPU_BLOCK + 2];
		float back[CPU_BLOCK + 2];
		CpuOut to_half = { half + 1, n, true, { 0 } }, to_float = { back + 1, n, false, { 0 } };
		CpuMoments m = { 0 };

		half[0] = half[n + 1] = 0x1234;
		back[0] = back[n + 1] = 1234;
		kernels->apply((CpuRun){ x, n, false }, 1, n, &same, &to_half, 1);
		kernels->apply((CpuRun){ half + 1, n, true }, 1, n, &same, &to_float, 1);
		kernels->moments(&m, (CpuRun){ half + 1, n, true }, 1, n, &same);
		for (int i = 0; i < n; i++)
		{
			rounds &= i == 5 ? isnan(float_of(half[i + 1])) : half[i + 1] == bf16_of(x[i]);
			reads &= i == 5 ? isnan(back[i + 1]) : back[i + 1] == float_of(half[i + 1]);
			moments &= i == 5 || (m.mean[i] == float_of(half[i + 1]) && m.m2[i] == 0);
		}
		guarded &=
			half[0] == 0x1234 && half[n + 1] == 0x1234 && back[0] == 1234 && back[n + 1] == 1234;
	}
	ok(rounds, "%s: bfloat16 is rounded to nearest even, and NaN stays NaN", kernels->name);
	ok(reads && moments, "%s: bfloat16 is read back as it is", kernels->name);
	ok(guarded, "%s: 1 to %d channels, and no more, are written", kernels->name, CPU_BLOCK);
}

int
main(void)
{
	const CpuKernels *tables[] = { &cpu_kernels_base, NULL, NULL, NULL };

#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		tables[1] = &cpu_kernels_avx2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		tables[2] = &cpu_kernels_avx512;
	if (tables[2] && __builtin_cpu_supports("avx512bf16"))
		tables[3] = &cpu_kernels_avx512bf16;
#elif defined(__aarch64__)
	tables[1] = &cpu_kernels_neon;
#endif
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		if (tables[i])
		{
			test_functions(tables[i]);
			test_bf16(tables[i]);
		}
	return done_testing();
}
