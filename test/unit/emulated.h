/*
 * emulated.h
 *	  Kernels of products (kernel.h) for processors that are not here, in C that
 *	  gives the same bits: kernel_amx (tiles), kernel_fp32 and kernel_bf16
 *	  (AVX-512, the second with AVX512-BF16). Only their innermost operations
 *	  are others; all above them is the engine's own source.
 */
#ifndef BICYCLE_EMULATED_H
#define BICYCLE_EMULATED_H

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
#define TILE_STORE(t, to, stride) tile_store(t, to, stride)
#define TILE_MULTIPLY(c, a, b) tile_multiply(c, a, b)

#include "nn/cpu/kernel_amx.inc.h"

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

static const CpuKernel *const emulated[] = { &kernel_fp32, &kernel_bf16, &kernel_amx };

#define EMULATED ((int) (sizeof(emulated) / sizeof(emulated[0])))

#endif /* BICYCLE_EMULATED_H */
