/*
 * ref_resample.c
 *	  Upsampling, pooling and addition.
 */
#include "nn/ref/ref.h"

#include <math.h>

/* The position of output pixel i of a row twice as long, in input pixels: half-pixel centres (align_corners = False), clamped to the first pixel. */
static double
source_position(int i)
{
	double		at = (i + 0.5) / 2 - 0.5;

	return at < 0 ? 0 : at;
}

/* The pixel that reflection without repeating the edge puts at i of a row of n. */
static int
reflected(int i, int n)
{
	if (i < 0)
		return -i;
	return i < n ? i : 2 * (n - 1) - i;
}

/* Value of the upsampled map at (y, x), 0 <= y < 2H, 0 <= x < 2W. */
static double
bilinear(const RefTensor *t, int n, int y, int x, int c)
{
	double		sy = source_position(y),
				sx = source_position(x);
	int			y0 = (int) floor(sy),
				x0 = (int) floor(sx);
	int			y1 = y0 + 1 < t->shape.h ? y0 + 1 : y0,
				x1 = x0 + 1 < t->shape.w ? x0 + 1 : x0;
	double		fy = sy - y0,
				fx = sx - x0;

	return (1 - fy) * ((1 - fx) * ref_at(t, n, y0, x0)[c] + fx * ref_at(t, n, y0, x1)[c]) +
		fy * ((1 - fx) * ref_at(t, n, y1, x0)[c] + fx * ref_at(t, n, y1, x1)[c]);
}

/* x (N, H, W, C) -> y (N, 2H + 2p, 2W + 2p, C): bilinear, then a reflected border of p pixels. */
NnStatus
ref_upsample(const RefOperands *op, NnError *error)
{
	const RefTensor *x = op->in[0];
	RefTensor  *y = op->out[0];
	int			pad = op->node->pad;

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
					ref_at(y, n, oy, ox)[c] = bilinear(x, n, reflected(oy - pad, 2 * x->shape.h), reflected(ox - pad, 2 * x->shape.w), c);
	return NN_OK;
}

/* x (N, H, W, C) -> y (N, H', W', C): the mean of the pixels of each window that lie inside the image. */
NnStatus
ref_avgpool(const RefOperands *op, NnError *error)
{
	const NnNode *node = op->node;
	const RefTensor *x = op->in[0];
	RefTensor  *y = op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
				{
					double		sum = 0;
					int			count = 0;

					for (int ky = 0; ky < node->kernel; ky++)
						for (int kx = 0; kx < node->kernel; kx++)
						{
							int			iy = oy * node->stride + ky - node->pad,
										ix = ox * node->stride + kx - node->pad;

							if (iy < 0 || iy >= x->shape.h || ix < 0 || ix >= x->shape.w)
								continue;
							sum += ref_at(x, n, iy, ix)[c];
							count++;
						}
					ref_at(y, n, oy, ox)[c] = sum / count;
				}
	return NN_OK;
}

/* a, b (N, H, W, C) -> y of that shape */
NnStatus
ref_add(const RefOperands *op, NnError *error)
{
	RefTensor  *y = op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
					ref_at(y, n, oy, ox)[c] = ref_at(op->in[0], n, oy, ox)[c] + ref_at(op->in[1], n, oy, ox)[c];
	return NN_OK;
}
