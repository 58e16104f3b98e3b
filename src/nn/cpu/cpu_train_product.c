/*
 * cpu_train_product.c
 *	  Matrix products in blocks (Goto and van de Geijn 2008), for operands that exist only as a rule.
 *
 * A block of B, DEPTH x WIDTH, and one of A, HEIGHT x DEPTH, are laid out in a thread's own memory, which its second-level cache holds, and multiplied by
 * panels that its first-level cache holds.  So the columns of a convolution never exist as a whole.
 *
 * C is cut into pieces that threads take in any order.  A number of C is a sum of sums over DEPTH numbers of k, begun and continued in order by whoever has
 * its piece: its bits depend neither on the pieces nor on the number of threads.
 */
#include "cpu_train_product.h"

#include <omp.h>
#include <string.h>

#define DEPTH CPU_PRODUCT_DEPTH
#define HEIGHT 96				/* a multiple of all kernels' rows */
#define WIDTH 256				/* a multiple of all panels */
#define TALL 8					/* heights of a piece at most: laying out B again then costs little */

/* Products with fewer multiply-adds than this are not worth waking threads for. */
#define SMALL 200000

static size_t
a_floats(const CpuTrainKernels *kernels)
{
	return (size_t) HEIGHT * DEPTH;
}

size_t
cpu_product_memory(const CpuTrainKernels *kernels)
{
	return a_floats(kernels) + (size_t) WIDTH * DEPTH;
}

static int
least(int a, int b)
{
	return a < b ? a : b;
}

/* Rows [m0, m0 + m) of C, m at most HEIGHT, and columns [n0, n0 + n): adds the products over [k0, k0 + k) of blocks that are laid out. */
static void
multiply_block(const CpuProduct *p, int m0, int m, int n0, int n, int k0, int k, const float *a, const float *b)
{
	const CpuTrainKernels *kernels = p->kernels;
	int			padded = p->turned ? k : (k + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
	float	   *rows[HEIGHT];

	for (int i = 0; i < m; i++)
		rows[i] = p->row(p, m0 + i);
	for (int j = 0; j < n; j += kernels->panel, b += (size_t) kernels->panel * padded)
		for (int i = 0; i < m; i += kernels->rows)
		{
			CpuTarget	target = {
				.row = rows + i, .rows = least(kernels->rows, m - i), .first = n0 + j, .columns = least(kernels->panel, n - j), .bias = p->bias,
				.add = p->add || k0 > 0
			};

			kernels->multiply(padded, a + (size_t) i * padded, b, p->turned, &target);
		}
}

/* Lays out rows [k0, k0 + k) of B, in panels of k rounded up to lanes; rows beyond k are 0. */
static void
lay_out_b(const CpuProduct *p, int k0, int k, int n0, int n, float *b)
{
	int			panel = p->kernels->panel,
				padded = p->turned ? k : (k + p->kernels->lanes - 1) / p->kernels->lanes * p->kernels->lanes;

	for (int j = 0; j < n; j += panel, b += (size_t) panel * padded)
	{
		p->pack_b(p, k0, k, n0 + j, least(panel, n - j), b);
		memset(b + (size_t) k * panel, 0, (size_t) (padded - k) * panel * sizeof(float));
	}
}

static void
multiply_piece(const CpuProduct *p, int m0, int m, int n0, int n, float *work)
{
	float	   *a = work,
			   *b = work + a_floats(p->kernels);

	for (int k0 = 0; k0 < p->k; k0 += DEPTH)
	{
		int			k = least(DEPTH, p->k - k0);

		lay_out_b(p, k0, k, n0, n, b);
		for (int i = 0; i < m; i += HEIGHT)
		{
			p->pack_a(p, m0 + i, least(HEIGHT, m - i), k0, k, a);
			multiply_block(p, m0 + i, least(HEIGHT, m - i), n0, n, k0, k, a, b);
		}
	}
}

static int
count_of(int n, int step)
{
	return (n + step - 1) / step;
}

/* Makes pieces smaller until each thread has some: rows while there are many, then columns. */
static void
choose_piece(const CpuProduct *p, int threads, int *height, int *width)
{
	*height = TALL * HEIGHT;
	*width = WIDTH;
	while (count_of(p->m, *height) * count_of(p->n, *width) < 4 * threads && *height > HEIGHT && p->m > HEIGHT)
		*height -= HEIGHT;
	while (count_of(p->m, *height) * count_of(p->n, *width) < 2 * threads && *width > p->kernels->panel)
		*width = *width / 2 < p->kernels->panel ? p->kernels->panel : *width / 2;
}

void
cpu_multiply(const CpuProduct *p, float *work, int threads)
{
	size_t		each = cpu_product_memory(p->kernels);
	int			height,
				width;

	if ((double) p->m * p->n * p->k < SMALL)
		threads = 1;
	choose_piece(p, threads, &height, &width);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
	for (int n0 = 0; n0 < p->n; n0 += width)
		for (int m0 = 0; m0 < p->m; m0 += height)
			multiply_piece(p, m0, least(height, p->m - m0), n0, least(width, p->n - n0), work + omp_get_thread_num() * each);
}
