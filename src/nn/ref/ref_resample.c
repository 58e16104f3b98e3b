/*
 * ref_resample.c
 *	  Upsampling, pooling, addition and copies.
 */
#include "nn/ref/ref.h"

#include <math.h>

/*
 * The position of output pixel i of a row twice as long, in input pixels:
 * half-pixel centres (align_corners = False), clamped to the first pixel.
 */
static double
source_position(int i)
{
	double at = (i + 0.5) / 2 - 0.5;

	return at < 0 ? 0 : at;
}

/* The pixel that reflection, not repeating the edge, puts at i of n. */
static int
reflected(int i, int n)
{
	if (i < 0)
		return -i;
	return i < n ? i : 2 * (n - 1) - i;
}

/* The four pixels that (y, x) of the upsampled map blends, and weights. */
static void
bilinear_taps(const NnMap *t, int n, int y, int x, double *at[4], double weight[4])
{
	double sy = source_position(y), sx = source_position(x);
	int y0 = (int) floor(sy), x0 = (int) floor(sx);
	int y1 = y0 + 1 < t->shape.h ? y0 + 1 : y0, x1 = x0 + 1 < t->shape.w ? x0 + 1 : x0;
	double fy = sy - y0, fx = sx - x0;

	at[0] = ref_at(t, n, y0, x0), weight[0] = (1 - fy) * (1 - fx);
	at[1] = ref_at(t, n, y0, x1), weight[1] = (1 - fy) * fx;
	at[2] = ref_at(t, n, y1, x0), weight[2] = fy * (1 - fx);
	at[3] = ref_at(t, n, y1, x1), weight[3] = fy * fx;
}

/* x (N, H, W, C) -> y (N, 2H + 2p, 2W + 2p, C), its border reflected */
NnStatus
ref_upsample(const NnOperands *op, NnError *error)
{
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];
	int pad = op->node->upsample.pad;

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
			{
				double *at[4], w[4];

				bilinear_taps(x, n, reflected(oy - pad, 2 * x->shape.h),
							  reflected(ox - pad, 2 * x->shape.w), at, w);
				for (int c = 0; c < y->shape.c; c++)
					ref_at(y, n, oy, ox)[c] =
						w[0] * at[0][c] + w[1] * at[1][c] + w[2] * at[2][c] + w[3] * at[3][c];
			}
	return NN_OK;
}

NnStatus
ref_upsample_backward(const NnOperands *op, NnError *error)
{
	const NnMap *dx = &op->din[0];
	const NnMap *dy = &op->dout[0];
	int pad = op->node->upsample.pad;

	for (int n = 0; n < dy->shape.n; n++)
		for (int oy = 0; oy < dy->shape.h; oy++)
			for (int ox = 0; ox < dy->shape.w; ox++)
			{
				double *at[4], w[4];

				bilinear_taps(dx, n, reflected(oy - pad, 2 * dx->shape.h),
							  reflected(ox - pad, 2 * dx->shape.w), at, w);
				for (int k = 0; k < 4; k++)
					for (int c = 0; c < dy->shape.c; c++)
						at[k][c] += w[k] * ref_at(dy, n, oy, ox)[c];
			}
	return NN_OK;
}

/* x (N, H, W, C) -> y (N, H', W', C): the mean of pixels inside the image */
NnStatus
ref_avgpool(const NnOperands *op, NnError *error)
{
	NnPoolArgs a = op->node->pool;
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
				{
					double sum = 0;
					int count = 0;

					for (int ky = 0; ky < a.kernel; ky++)
						for (int kx = 0; kx < a.kernel; kx++)
						{
							int iy = oy * a.stride + ky - a.pad, ix = ox * a.stride + kx - a.pad;

							if (iy < 0 || iy >= x->shape.h || ix < 0 || ix >= x->shape.w)
								continue;
							sum += ref_at(x, n, iy, ix)[c];
							count++;
						}
					ref_at(y, n, oy, ox)[c] = sum / count;
				}
	return NN_OK;
}

NnStatus
ref_avgpool_backward(const NnOperands *op, NnError *error)
{
	NnPoolArgs a = op->node->pool;
	const NnMap *dx = &op->din[0];
	const NnMap *dy = &op->dout[0];

	for (int n = 0; n < dy->shape.n; n++)
		for (int oy = 0; oy < dy->shape.h; oy++)
			for (int ox = 0; ox < dy->shape.w; ox++)
			{
				int y0, y1, x0, x1;

				nn_pool_axis(oy, a.kernel, a.stride, a.pad, dx->shape.h, &y0, &y1);
				nn_pool_axis(ox, a.kernel, a.stride, a.pad, dx->shape.w, &x0, &x1);
				for (int y = y0; y < y1; y++)
					for (int x = x0; x < x1; x++)
						for (int c = 0; c < dy->shape.c; c++)
							ref_at(dx, n, y, x)[c] +=
								ref_at(dy, n, oy, ox)[c] / ((y1 - y0) * (x1 - x0));
			}
	return NN_OK;
}

/* x (N, H, W, C) -> y (N, H', W', C): the largest pixel of each window */
NnStatus
ref_maxpool(const NnOperands *op, NnError *error)
{
	NnPoolArgs a = op->node->pool;
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
				{
					double largest = -INFINITY;

					for (int ky = 0; ky < a.kernel; ky++)
						for (int kx = 0; kx < a.kernel; kx++)
						{
							int iy = oy * a.stride + ky - a.pad, ix = ox * a.stride + kx - a.pad;

							if (iy >= 0 && iy < x->shape.h && ix >= 0 && ix < x->shape.w)
								largest = fmax(largest, ref_at(x, n, iy, ix)[c]);
						}
					ref_at(y, n, oy, ox)[c] = largest;
				}
	return NN_OK;
}

/* a, b (N, H, W, C) -> y of that shape */
NnStatus
ref_add(const NnOperands *op, NnError *error)
{
	const NnMap *y = &op->out[0];

	for (size_t i = 0; i < nn_map_count(y); i++)
		*ref_number(y, i) = *ref_number(&op->in[0], i) + *ref_number(&op->in[1], i);
	return NN_OK;
}

/* y += x, of the same shape */
static void
add_to(const NnMap *y, const NnMap *x)
{
	for (size_t i = 0; i < nn_map_count(y); i++)
		*ref_number(y, i) += *ref_number(x, i);
}

NnStatus
ref_add_backward(const NnOperands *op, NnError *error)
{
	for (int k = 0; k < 2; k++)
		if (op->din[k].data)
			add_to(&op->din[k], &op->dout[0]);
	return NN_OK;
}

/* x (N, H, W, C) -> y of that shape */
NnStatus
ref_copy(const NnOperands *op, NnError *error)
{
	const NnMap *y = &op->out[0];

	for (size_t i = 0; i < nn_map_count(y); i++)
		*ref_number(y, i) = *ref_number(&op->in[0], i);
	return NN_OK;
}

NnStatus
ref_copy_backward(const NnOperands *op, NnError *error)
{
	add_to(&op->din[0], &op->dout[0]);
	return NN_OK;
}
