/*
 * emulated.h
 *	  Kernels of products (kernel.h) for processors that are not here, in C that
 *	  gives the same bits: kernel_amx (tiles), kernel_bfmmla (Arm), kernel_fp32
 *	  and kernel_bf16 (AVX-512, the second with AVX512-BF16). Only their
 *	  innermost operations are others; all above them is the engine's own.
 *
 * In fp32 AVX2, AVX-512 and NEON add alike, each product by one rounding: one
 * emulation stands for the three, and all must have its bits.
 */
#ifndef BICYCLE_EMULATED_H
#define BICYCLE_EMULATED_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- AMX: the pseudo code of Intel's manual ------------------------------ */

#define TILE_SIDE 16

static __thread union
{
	uint16_t bf16[TILE_SIDE][32];
	float fp32[TILE_SIDE][TILE_SIDE];
} tile[8];

static void
tile_load(int t, const void *from, size_t stride)
{
	for (int row = 0; row < TILE_SIDE; row++)
		memcpy(tile[t].bf16[row], (const char *) from + row * stride, sizeof(tile[t].bf16[row]));
}

static void
tile_store(int t, void *to, size_t stride)
{
	for (int row = 0; row < TILE_SIDE; row++)
		memcpy((char *) to + row * stride, tile[t].fp32[row], sizeof(tile[t].fp32[row]));
}

static float
tile_element(uint16_t x)
{
	uint32_t bits = (x & 0x7f80) == 0 ? (uint32_t) (x & 0x8000) << 16 : (uint32_t) x << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* Numbers below the normal ones are 0. */
static float
flushed(float x)
{
	return x > -0x1p-126f && x < 0x1p-126f ? 0 * x : x;
}

/* Sums of even and of odd k are kept apart, then added, and that to C. */
static void
tile_multiply(int c, int a, int b)
{
	for (int m = 0; m < TILE_SIDE; m++)
		for (int n = 0; n < TILE_SIDE; n++)
		{
			float sum[2] = { 0, 0 };

			for (int k = 0; k < 32; k++)
				sum[k % 2] = flushed(
					__builtin_fmaf(tile_element(tile[a].bf16[m][k]),
								   tile_element(tile[b].bf16[k / 2][2 * n + k % 2]), sum[k % 2]));
			tile[c].fp32[m][n] = flushed(flushed(tile[c].fp32[m][n]) + flushed(sum[0] + sum[1]));
		}
}

static void
amx_start(void)
{
}

static void
amx_stop(void)
{
}

#define TILE_ZERO(t) memset(&tile[t], 0, sizeof(tile[t]))
#define TILE_LOAD(t, from, stride) tile_load(t, from, stride)
#define TILE_STREAM(t, from, stride) tile_load(t, from, stride)
#define TILE_STORE(t, to, stride) tile_store(t, to, stride)
#define TILE_MULTIPLY(c, a, b) tile_multiply(c, a, b)

#include "nn/cpu/kernel_amx.inc.h"

/* ---- BFMMLA: the pseudo code of Arm's manual ----------------------------- */

/*
 * The float that is `sum + rest`, rounded to odd; |rest| is less than sum's
 * last bit is worth.
 */
static float
to_odd(double sum, double rest)
{
	const uint64_t below = ((uint64_t) 1 << 29) - 1; /* what a float has no bits for */
	uint64_t bits;

	if (!isfinite(sum))
		return (float) sum;
	memcpy(&bits, &sum, sizeof(bits));
	if (rest != 0)
		bits = (bits - ((rest < 0) != (sum < 0))) | 1;
	if ((bits & below) != 0)
		bits = (bits & ~below) | (below + 1);
	memcpy(&sum, &bits, sizeof(sum));
	if (fabs(sum) >= 0x1p128)
		return copysignf(INFINITY, (float) sum);
	return fabs(sum) < 0x1p-126 ? copysignf(0, (float) sum) : (float) sum;
}

/* What double's sum of two floats lacks is found exactly (Knuth). */
static float
add_to_odd(float a, float b)
{
	double sum = (double) a + b, part = sum - a;

	return to_odd(sum, (a - (sum - part)) + (b - part));
}

static float
multiply_to_odd(uint16_t a, uint16_t b)
{
	return to_odd((double) tile_element(a) * tile_element(b), 0);
}

typedef float EmulatedSums __attribute__((vector_size(16)));
typedef uint16_t EmulatedNumbers __attribute__((vector_size(16)));

static EmulatedSums
emulated_bfmmla(EmulatedSums sum, EmulatedNumbers a, EmulatedNumbers b)
{
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 4; k += 2)
		{
			int row = i / 2 * 4 + k, column = i % 2 * 4 + k;

			sum[i] =
				add_to_odd(flushed(sum[i]), add_to_odd(multiply_to_odd(a[row], b[column]),
													   multiply_to_odd(a[row + 1], b[column + 1])));
		}
	return sum;
}

#define BFMMLA(sum, a, b) emulated_bfmmla(sum, (EmulatedNumbers) (a), (EmulatedNumbers) (b))

#include "nn/cpu/kernel_bfmmla.inc.h"

/* ---- AVX-512 ------------------------------------------------------------- */

/*
 * Its 14 rows, of vectors of four, by the product's own source. Bfloat16 as
 * AVX512-BF16: the odd numbers' product first; what is below normal numbers is
 * 0.
 */
#define VL 4
#define VFMA(a, b, c) fma_lanes(a, b, c)
#define VDOT(sum, a, b) dot_lanes(sum, a, b)
#define AHEAD 4096
#define AHEAD_ONCE false
#define BLOCK_ROWS 14
#define KERNELS_NAME "AVX-512 in C"
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VL * 4)));
typedef float vf_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));

INLINE vf
set1(float x)
{
	return x - (vf){ 0 };
}

INLINE vf
load_f32(const float *p, int n)
{
	vf v = { 0 };

	memcpy(&v, p, (n < VL ? n : VL) * sizeof(float));
	return v;
}

INLINE void
store_f32(float *p, vf v, int n)
{
	memcpy(p, &v, (n < VL ? n : VL) * sizeof(float));
}

static vf
fma_lanes(vf a, vf b, vf c)
{
	for (int i = 0; i < VL; i++)
		c[i] = __builtin_fmaf(a[i], b[i], c[i]);
	return c;
}

static vf
dot_lanes(vf sum, vu a, vu b)
{
	for (int i = 0; i < VL; i++)
	{
		float odd = __builtin_fmaf(tile_element((uint16_t) (a[i] >> 16)),
								   tile_element((uint16_t) (b[i] >> 16)), flushed(sum[i]));

		sum[i] = flushed(__builtin_fmaf(tile_element((uint16_t) a[i]),
										tile_element((uint16_t) b[i]), flushed(odd)));
	}
	return sum;
}

#include "nn/cpu/kernel.inc.h"

static const CpuKernel *const emulated[] = { &kernel_fp32, &kernel_bf16, &kernel_amx,
											 &kernel_bfmmla };

#define EMULATED ((int) (sizeof(emulated) / sizeof(emulated[0])))

#endif /* BICYCLE_EMULATED_H */
