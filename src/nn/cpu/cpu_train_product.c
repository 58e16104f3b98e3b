/*
 * cpu_train_product.c
 *	  Matrix products in blocks (Goto and van de Geijn 2008), for operands that
 *	  exist only as a rule.
 *
 * R1 A block of B, DEPTH x WIDTH, and one of A, HEIGHT x DEPTH, are laid out in
 *    a thread's own memory, which its second-level cache holds, and multiplied
 *    by panels that the first-level cache holds. So the columns of a
 *    convolution never exist as a whole.
 * R2 Threads take pieces of C in any order. A number of C is a sum of sums over
 *    DEPTH numbers of k, made in order by who has its piece: its bits depend
 *    neither on the pieces nor on the number of threads.
 */
#include "nn/cpu/cpu_train_product.h"

#include <omp.h>
#include <string.h>

#define DEPTH CPU_PRODUCT_DEPTH
#define HEIGHT 96 /* a multiple of all kernels' rows */
#define WIDTH 256 /* a multiple of all panels */
/* heights of a piece at most: laying out B again then costs little */
#define TALL 16

/* Products of fewer multiply-adds are not worth waking threads for. */
#define SMALL 200000

/* A thread's memory: blocks as gathered, and as multiplied in bfloat16. */
typedef struct Blocks
{
	float *a, *b;
	uint16_t *narrow_a, *narrow_b;
} Blocks;

#define A_NUMBERS ((size_t) HEIGHT * DEPTH)
#define B_NUMBERS ((size_t) WIDTH * DEPTH)

size_t
cpu_product_memory(void)
{
	return (A_NUMBERS + B_NUMBERS) * 3 / 2;
}

static Blocks
blocks_of(float *work)
{
	float *narrow = work + A_NUMBERS + B_NUMBERS;

	return (Blocks){ work, work + A_NUMBERS, (uint16_t *) narrow, (uint16_t *) narrow + A_NUMBERS };
}

static int
least(int a, int b)
{
	return a < b ? a : b;
}

/* Numbers of k that are laid out for k: 0 beyond it. */
static int
padded(const CpuProduct *p, int k)
{
	int step = p->turned ? (p->bf16 ? 2 : 1) : p->kernels->lanes;

	return (k + step - 1) / step * step;
}

/*
 * Rows [m0, m0 + m) of C, m at most HEIGHT, and columns [n0, n0 + n): adds the
 * products over [k0, k0 + k) of blocks that are laid out.
 */
static void
multiply_block(const CpuProduct *p, int m0, int m, int n0, int n, int k0, int k,
			   const Blocks *blocks)
{
	const CpuTrainKernels *kernels = p->kernels;
	float *rows[HEIGHT];

	k = padded(p, k);
	for (int i = 0; i < m; i++)
		rows[i] = p->row(p, m0 + i);
	for (int j = 0; j < n; j += kernels->panel)
		for (int i = 0; i < m; i += kernels->rows)
		{
			CpuTarget target = { .row = rows + i,
								 .rows = least(kernels->rows, m - i),
								 .first = n0 + j,
								 .columns = least(kernels->panel, n - j),
								 .bias = p->bias,
								 .add = p->add || k0 > 0 };
			size_t a = (size_t) i * k, b = (size_t) j * k;

			if (p->bf16)
				kernels->multiply_bf16(k, blocks->narrow_a + a, blocks->narrow_b + b, p->turned,
									   &target);
			else
				kernels->multiply(k, blocks->a + a, blocks->b + b, p->turned, &target);
		}
}

/* Lays out rows [k0, k0 + k) of B in panels. */
static void
lay_out_b(const CpuProduct *p, int k0, int k, int n0, int n, const Blocks *blocks)
{
	int panel = p->kernels->panel, rows = padded(p, k);

	for (int j = 0; j < n; j += panel)
	{
		float *b = blocks->b + (size_t) j * rows;

		p->pack_b(p, k0, k, n0 + j, least(panel, n - j), b);
		memset(b + (size_t) k * panel, 0, (size_t) (rows - k) * panel * sizeof(float));
		if (p->bf16)
			p->kernels->narrow_pairs(b, rows, panel, blocks->narrow_b + (size_t) j * rows);
	}
}

/*
 * Lays out rows [m0, m0 + m) of A in blocks. Those of a turned A hold [k][row],
 * with as many rows as a block has.
 */
static void
lay_out_a(const CpuProduct *p, int m0, int m, int k0, int k, const Blocks *blocks)
{
	int rows = p->kernels->rows, columns = padded(p, k);

	if (!p->turned)
	{
		p->pack_a(p, m0, m, k0, k, blocks->a);
		if (p->bf16)
			p->kernels->narrow(blocks->a, (size_t) m * columns, blocks->narrow_a);
		return;
	}
	if (columns == k)
		p->pack_a(p, m0, m, k0, k, blocks->a);
	for (int i = 0; i < m; i += rows)
	{
		float *a = blocks->a + (size_t) i * columns;

		if (columns != k)
			p->pack_a(p, m0 + i, least(rows, m - i), k0, k, a);
		memset(a + (size_t) k * rows, 0, (size_t) (columns - k) * rows * sizeof(float));
		if (p->bf16)
			p->kernels->narrow_pairs(a, columns, rows, blocks->narrow_a + (size_t) i * columns);
	}
}

static void
multiply_piece(const CpuProduct *p, int m0, int m, int n0, int n, float *work)
{
	Blocks blocks = blocks_of(work);

	for (int k0 = 0; k0 < p->k; k0 += DEPTH)
	{
		int k = least(DEPTH, p->k - k0);

		lay_out_b(p, k0, k, n0, n, &blocks);
		for (int i = 0; i < m; i += HEIGHT)
		{
			lay_out_a(p, m0 + i, least(HEIGHT, m - i), k0, k, &blocks);
			multiply_block(p, m0 + i, least(HEIGHT, m - i), n0, n, k0, k, &blocks);
		}
	}
}

static int
count_of(int n, int step)
{
	return (n + step - 1) / step;
}

static int
rounded_up(int n, int step)
{
	return count_of(n, step) * step;
}

/*
 * Pieces of like size, some for each thread. A cut through rows means to lay
 * out B once more, a cut through columns A; B, whose columns may have to be
 * turned, is the dearer.
 */
static void
choose_piece(const CpuProduct *p, int threads, int *height, int *width)
{
	int down = count_of(p->m, TALL * HEIGHT), across = count_of(p->n, WIDTH);
	bool more = threads > 1;

	while (more && down * across < 2 * threads)
	{
		bool rows = p->m / down > HEIGHT, columns = p->n / across > p->kernels->panel;

		more = rows || columns;
		if (rows && (!columns || p->m / down >= 2 * (p->n / across)))
			down++;
		else if (columns)
			across++;
	}
	*height = rounded_up(count_of(p->m, down), p->kernels->rows);
	*width = rounded_up(count_of(p->n, across), p->kernels->panel);
}

void
cpu_multiply(const CpuProduct *p, float *work, int threads)
{
	size_t each = cpu_product_memory();
	int height, width;

	if ((double) p->m * p->n * p->k < SMALL)
		threads = 1;
	choose_piece(p, threads, &height, &width);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
	for (int n0 = 0; n0 < p->n; n0 += width)
		for (int m0 = 0; m0 < p->m; m0 += height)
			multiply_piece(p, m0, least(height, p->m - m0), n0, least(width, p->n - n0),
						   work + omp_get_thread_num() * each);
}
