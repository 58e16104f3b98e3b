/*
 * kernel.inc.h
 *	  Blocks of products (kernel.h) of vectors; a part of cpu_kernels.inc.h,
 *	  whose helpers and parameters it uses.
 *
 * Sums are BLOCK_ROWS rows of two vectors in registers; a step takes a word of
 * 32 bits of each row: a float, or two numbers of bfloat16 for VDOT(sum, a, b),
 * which adds the products of both.
 */
#include "nn/cpu/kernel.h"

#if BLOCK_ROWS == 14
#define EACH_BLOCK(X) EACH_BLOCK_12(X) X(13) X(14)
#elif BLOCK_ROWS == 12
#define EACH_BLOCK(X) EACH_BLOCK_12(X)
#else
#define EACH_BLOCK(X) EACH_BLOCK_6(X)
#endif
#define EACH_BLOCK_6(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define EACH_BLOCK_12(X) EACH_BLOCK_6(X) X(7) X(8) X(9) X(10) X(11) X(12)

#ifndef VDOT
/* The same as AVX512-BF16 has but for numbers below the normal ones. */
INLINE vf
VDOT(vf sum, vu a, vu b)
{
	sum = VFMA((vf) (a & 0xffff0000), (vf) (b & 0xffff0000), sum);
	return VFMA((vf) (a << 16), (vf) (b << 16), sum);
}
#endif

typedef uint32_t word_any __attribute__((may_alias, aligned(2)));

/* m rows; narrow: of one vector. */
INLINE void
block_body(int m, bool bf16, bool narrow, const CpuBlock *block)
{
	const int pair = bf16 ? 2 : 1, ahead = block->ahead / (CPU_KERNEL_STEP / pair);
	const ptrdiff_t row = block->lda * (4 / pair);
	const float *b = block->b;
	const char *next = block->next;
	vf sum[2 * BLOCK_ROWS];

#pragma GCC unroll 32
	for (int i = 0; i < m; i++)
	{
		const float *c = block->c + i * block->ldc;

		sum[2 * i] = block->add ? load_f32(c, block->n) : set1(0.0f);
		sum[2 * i + 1] = block->add && !narrow ? load_f32(c + VL, block->n - VL) : set1(0.0f);
	}
	for (const CpuTap *tap = block->taps; tap < block->taps + block->ntaps; tap++)
	{
		const char *a = (const char *) block->a + tap->at * (4 / pair);
		const int words = tap->k / pair;

#pragma GCC unroll 4
		for (int k = 0; k < words; k++, a += 4, b += 2 * VL)
		{
			vf b0 = *(const vf_any *) b, b1 = b0;

			if (!narrow)
				b1 = *(const vf_any *) (b + VL);
			if (ahead) /* a few at a time: a burst would wait for itself */
			{
				__builtin_prefetch(next, 0, 2);
				__builtin_prefetch(next + 64, 0, 2);
				next += ahead;
			}

#pragma GCC unroll 32
			for (int i = 0; i < m; i++)
			{
				vf x = (vf) (*(const word_any *) (a + i * row) - (vu){ 0 });

				sum[2 * i] = bf16 ? VDOT(sum[2 * i], (vu) x, (vu) b0) : VFMA(x, b0, sum[2 * i]);
				if (!narrow)
					sum[2 * i + 1] =
						bf16 ? VDOT(sum[2 * i + 1], (vu) x, (vu) b1) : VFMA(x, b1, sum[2 * i + 1]);
			}
		}
	}
#pragma GCC unroll 32
	for (int i = 0; i < m; i++)
	{
		float *c = block->c + i * block->ldc;

		store_f32(c, sum[2 * i], block->n);
		if (!narrow)
			store_f32(c + VL, sum[2 * i + 1], block->n - VL);
	}
}

/* A function for each number of rows, so that sums stay in registers. */
#define BLOCK(m)                                                                \
	static __attribute__((noinline)) void block_fp32_##m(const CpuBlock *block) \
	{                                                                           \
		if (block->n <= VL)                                                     \
			block_body(m, false, true, block);                                  \
		else                                                                    \
			block_body(m, false, false, block);                                 \
	}                                                                           \
	static __attribute__((noinline)) void block_bf16_##m(const CpuBlock *block) \
	{                                                                           \
		if (block->n <= VL)                                                     \
			block_body(m, true, true, block);                                   \
		else                                                                    \
			block_body(m, true, false, block);                                  \
	}
EACH_BLOCK(BLOCK)

static void
block_fp32(const CpuBlock *block)
{
#define BLOCK_FP32(m) [m] = block_fp32_##m,
	static void (*const by_rows[])(const CpuBlock *) = { EACH_BLOCK(BLOCK_FP32) };

	by_rows[block->m](block);
}

static void
block_bf16(const CpuBlock *block)
{
#define BLOCK_BF16(m) [m] = block_bf16_##m,
	static void (*const by_rows[])(const CpuBlock *) = { EACH_BLOCK(BLOCK_BF16) };

	by_rows[block->m](block);
}

static void
no_tiles(void)
{
}

static const CpuKernel kernel_fp32 = { .name = KERNELS_NAME " fp32",
									   .bytes = 4,
									   .rows = BLOCK_ROWS,
									   .columns = 2 * VL,
									   .pair = 1,
									   .step = 1,
									   .start = no_tiles,
									   .ahead = AHEAD,
									   .ahead_once = AHEAD_ONCE,
									   .multiply = block_fp32,
									   .stop = no_tiles };
static const CpuKernel kernel_bf16 = { .name = KERNELS_NAME " bf16",
									   .bytes = 2,
									   .rows = BLOCK_ROWS,
									   .columns = 2 * VL,
									   .pair = 2,
									   .step = 2,
									   .start = no_tiles,
									   .ahead = AHEAD,
									   .ahead_once = AHEAD_ONCE,
									   .multiply = block_bf16,
									   .stop = no_tiles };
