/*
 * kernel_bfmmla.inc.h
 *	  Blocks of products (kernel.h) of bfloat16 numbers by BFMMLA of Arm's
 *	  processors: a vector has the sums of 2 rows x 2 columns, and one
 *	  instruction adds 4 numbers of k to each.
 *
 * R1 B's pairs are of 4 numbers: so 16 bytes of a panel are two columns, as the
 *    instruction wants them. Of A it wants 8 bytes of each of two rows.
 * R2 To each sum it adds twice, of numbers 0 and 1 of k, then of 2 and 3: the
 *    two products are exact; they are added to one another, then to the sum,
 *    and each of the two additions is rounded to odd: of the floats around an
 *    inexact sum that whose last bit is 1. Numbers below the normal ones are
 *    read as 0 and become 0; what is too large becomes infinite. No mode of the
 *    processor's changes that, but for one that Linux leaves off (FPCR.EBF).
 *
 * The includer defines BFMMLA(sum, a, b), of the types below: the processor's
 * is kernel_bfmmla.c, that of C test/unit/emulated.h.
 */
#include "nn/cpu/kernel.h"

#include <string.h>

#define BFMMLA_ROWS 12
#define BFMMLA_COLUMNS 8

/* (2 rows, 2 columns); (2 rows or columns, 4 numbers of k) */
typedef float BfmmlaSums __attribute__((vector_size(16)));
typedef uint64_t BfmmlaNumbers __attribute__((vector_size(16)));
typedef uint64_t bfmmla_half __attribute__((may_alias, aligned(2)));
typedef BfmmlaNumbers bfmmla_numbers __attribute__((may_alias, aligned(2)));

static inline BfmmlaNumbers
bfmmla_rows(const void *first, const void *second)
{
	return (BfmmlaNumbers){ *(const bfmmla_half *) first, *(const bfmmla_half *) second };
}

/* All rows of `pairs` pairs, all columns. */
static inline __attribute__((always_inline)) void
bfmmla_body(int pairs, const CpuBlock *block, float *c, ptrdiff_t ldc)
{
	const ptrdiff_t row = block->lda * 2;
	const char *b = block->b;
	BfmmlaSums sum[BFMMLA_ROWS / 2][BFMMLA_COLUMNS / 2];

#pragma GCC unroll 8
	for (int i = 0; i < pairs; i++)
#pragma GCC unroll 8
		for (int j = 0; j < BFMMLA_COLUMNS / 2; j++)
		{
			float *at = c + 2 * i * ldc + 2 * j;

			sum[i][j] = block->add ? (BfmmlaSums) bfmmla_rows(at, at + ldc) : (BfmmlaSums){ 0 };
		}
	for (const CpuTap *tap = block->taps; tap < block->taps + block->ntaps; tap++)
	{
		const char *a = (const char *) block->a + tap->at * 2;

		for (int k = 0; k < tap->k; k += 4, a += 8, b += 8 * BFMMLA_COLUMNS)
		{
			BfmmlaNumbers x[BFMMLA_ROWS / 2];

#pragma GCC unroll 8
			for (int i = 0; i < pairs; i++)
				x[i] = bfmmla_rows(a + 2 * i * row, a + (2 * i + 1) * row);
#pragma GCC unroll 8
			for (int j = 0; j < BFMMLA_COLUMNS / 2; j++)
			{
				BfmmlaNumbers y = ((const bfmmla_numbers *) b)[j];

#pragma GCC unroll 8
				for (int i = 0; i < pairs; i++)
					sum[i][j] = BFMMLA(sum[i][j], x[i], y);
			}
		}
	}
#pragma GCC unroll 8
	for (int i = 0; i < pairs; i++)
#pragma GCC unroll 8
		for (int j = 0; j < BFMMLA_COLUMNS / 2; j++)
		{
			BfmmlaNumbers rows = (BfmmlaNumbers) sum[i][j];
			float *at = c + 2 * i * ldc + 2 * j;

			*(bfmmla_half *) at = rows[0];
			*(bfmmla_half *) (at + ldc) = rows[1];
		}
}

#define EACH_PAIRS(X) X(1) X(2) X(3) X(4) X(5) X(6)

/* A function for each number of pairs, so that sums stay in registers. */
#define BFMMLA_PAIRS(pairs)                                                                       \
	static                                                                                        \
		__attribute__((noinline)) void bfmmla_##pairs(const CpuBlock *b, float *c, ptrdiff_t ldc) \
	{                                                                                             \
		bfmmla_body(pairs, b, c, ldc);                                                            \
	}
EACH_PAIRS(BFMMLA_PAIRS)

static void
bfmmla_copy(float *to, ptrdiff_t to_row, const float *from, ptrdiff_t from_row,
			const CpuBlock *block)
{
	for (int i = 0; i < block->m; i++)
		memcpy(to + i * to_row, from + i * from_row, block->n * sizeof(float));
}

/* Vectors know no parts: a block that does not fill them goes by `edge`. */
static void
bfmmla_multiply(const CpuBlock *block)
{
#define BFMMLA_BY_PAIRS(pairs) [pairs] = bfmmla_##pairs,
	static void (*const by_pairs[])(const CpuBlock *, float *,
									ptrdiff_t) = { EACH_PAIRS(BFMMLA_BY_PAIRS) };
	float edge[BFMMLA_ROWS * BFMMLA_COLUMNS] = { 0 };
	bool whole = block->n == BFMMLA_COLUMNS && block->m % 2 == 0;

	if (whole)
	{
		by_pairs[block->m / 2](block, block->c, block->ldc);
		return;
	}
	if (block->add)
		bfmmla_copy(edge, BFMMLA_COLUMNS, block->c, block->ldc, block);
	by_pairs[(block->m + 1) / 2](block, edge, BFMMLA_COLUMNS);
	bfmmla_copy(block->c, block->ldc, edge, BFMMLA_COLUMNS, block);
}

static void
bfmmla_nothing(void)
{
}

static const CpuKernel kernel_bfmmla = { .name = "BFMMLA bf16",
										 .bytes = 2,
										 .rows = BFMMLA_ROWS,
										 .columns = BFMMLA_COLUMNS,
										 .pair = 4,
										 .step = 4,
										 .start = bfmmla_nothing,
										 .multiply = bfmmla_multiply,
										 .stop = bfmmla_nothing };
