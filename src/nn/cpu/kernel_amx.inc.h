/*
 * kernel_amx.inc.h
 *	  Blocks of products (kernel.h) of bfloat16 numbers by tiles of AMX: 32 x 32
 *	  sums in four tiles, two tiles each of A and of B.
 *
 * The includer defines amx_start() and amx_stop(), and of tiles, which are
 * numbers from 0 to 7, TILE_ZERO(t), TILE_LOAD(t, from, stride), TILE_STREAM,
 * which is the same but leaves the first-level cache to others, TILE_STORE(t,
 * to, stride) and TILE_MULTIPLY(c, a, b): those of the processor are
 * kernel_amx.c, those of C test/unit/emulated.h.
 */
#include "nn/cpu/kernel.h"

#include <string.h>

#define AMX_ROWS 32
#define AMX_COLUMNS 32

/* tall: more than 16 rows; wide: more than 16 columns. */
static inline __attribute__((always_inline)) void
amx_sums(const CpuBlock *block, bool tall, bool wide)
{
	const uint16_t *b = block->b;
	const char *next = block->next;
	size_t lda = (size_t) block->lda * sizeof(uint16_t);

	for (const CpuTap *tap = block->taps; tap < block->taps + block->ntaps; tap++)
	{
		const char *a = (const char *) ((const uint16_t *) block->a + tap->at);

		for (int k = 0; k < tap->k; k += 32, a += 64, b += 32 * AMX_COLUMNS)
		{
			TILE_LOAD(4, a, lda);
			TILE_STREAM(6, b, AMX_COLUMNS * 4);
			if (wide)
				TILE_STREAM(7, b + 2 * TILE_SIDE, AMX_COLUMNS * 4);
			if (tall)
				TILE_LOAD(5, a + TILE_SIDE * lda, lda);
			for (const char *end = next + block->ahead; next < end; next += 64)
				__builtin_prefetch(next, 0, 2);
			TILE_MULTIPLY(0, 4, 6);
			if (wide)
				TILE_MULTIPLY(1, 4, 7);
			if (tall)
				TILE_MULTIPLY(2, 5, 6);
			if (tall && wide)
				TILE_MULTIPLY(3, 5, 7);
		}
	}
}

/* Tiles know no parts: a block that does not fill them goes by `edge`. */
static void
copy_edge(float *to, ptrdiff_t to_row, const float *from, ptrdiff_t from_row, const CpuBlock *block)
{
	for (int i = 0; i < block->m; i++)
		memcpy(to + i * to_row, from + i * from_row, block->n * sizeof(float));
}

static void
amx_multiply(const CpuBlock *block)
{
	float edge[AMX_ROWS * AMX_COLUMNS];
	bool whole = block->n == AMX_COLUMNS && block->m % TILE_SIDE == 0, tall = block->m > TILE_SIDE,
		 wide = block->n > TILE_SIDE;
	float *c = whole ? block->c : edge;
	ptrdiff_t ldc = whole ? block->ldc : AMX_COLUMNS;
	size_t bytes = (size_t) ldc * sizeof(float);

	if (block->add)
	{
		if (!whole)
		{
			memset(edge, 0, sizeof(edge));
			copy_edge(edge, AMX_COLUMNS, block->c, block->ldc, block);
		}
		TILE_LOAD(0, c, bytes);
		TILE_LOAD(1, c + TILE_SIDE, bytes);
		if (tall)
		{
			TILE_LOAD(2, c + TILE_SIDE * ldc, bytes);
			TILE_LOAD(3, c + TILE_SIDE * ldc + TILE_SIDE, bytes);
		}
	}
	else
	{
		TILE_ZERO(0);
		TILE_ZERO(1);
		TILE_ZERO(2);
		TILE_ZERO(3);
	}
	if (tall && wide)
		amx_sums(block, true, true);
	else if (tall)
		amx_sums(block, true, false);
	else if (wide)
		amx_sums(block, false, true);
	else
		amx_sums(block, false, false);
	TILE_STORE(0, c, bytes);
	TILE_STORE(1, c + TILE_SIDE, bytes);
	if (tall)
	{
		TILE_STORE(2, c + TILE_SIDE * ldc, bytes);
		TILE_STORE(3, c + TILE_SIDE * ldc + TILE_SIDE, bytes);
	}
	if (!whole)
		copy_edge(block->c, block->ldc, edge, AMX_COLUMNS, block);
}

static const CpuKernel kernel_amx = { .name = "AMX bf16",
									  .bytes = 2,
									  .rows = AMX_ROWS,
									  .columns = AMX_COLUMNS,
									  .pair = 2,
									  .step = 32,
									  .ahead = 16384,
									  .group = 256 << 10,
									  .trains = true,
									  .start = amx_start,
									  .multiply = amx_multiply,
									  .stop = amx_stop };
