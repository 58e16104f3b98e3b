/*
 * cpu_train_conv.c
 *	  Convolutions in training, forward and backward, as matrix products over columns.
 *
 * A convolution from x (N, H, W, C) to y (N, H', W', O) reads for each output pixel the row [tap][C] of inputs under its window: the columns, a matrix P x K
 * with K = taps * C.  With weights (K, O) then y = columns * weights, the weights' gradient is columns^T * dy, and dy * weights^T are columns whose entries
 * are added to the pixels they came from.  A latent joins as further channels of the columns, so no concatenation is ever written.  A transposed convolution
 * is the third form forward and the first backward.
 *
 * Columns of as many images as fit the work space are made at once.  Pixels are gathered and scattered by rows of a target that one thread owns.
 */
#include "cpu_train.h"

#include <string.h>

/* A convolution seen from its columns: x is the side with the windows, y that with a value a window. */
typedef struct Window
{
	int			kernel,
				stride,
				pad;
	CpuMap		x,
				y;
	int			nz;				/* channels of the latent */
	int			k;				/* taps * (C + nz) */
} Window;

static Window
window_of(const CpuOperands *op, CpuMap x, CpuMap y, int nz)
{
	const NnNode *node = op->node;
	Window		w = {.kernel = 1, .stride = 1, .x = x, .y = y, .nz = nz};

	if (node->op != NN_OP_LINEAR)
	{
		w.kernel = node->kernel;
		w.stride = node->stride;
		w.pad = node->pad;
	}
	w.k = w.kernel * w.kernel * (x.shape.c + nz);
	return w;
}

/* Whether the columns are the pixels themselves. */
static bool
is_plain(const Window *w)
{
	return w->kernel == 1 && w->stride == 1 && w->pad == 0 && w->nz == 0;
}

size_t
cpu_train_columns(const NnGraph *g, const NnNode *node)
{
	bool		transposed = node->op == NN_OP_CONVT;
	NnShape		x,
				y;
	size_t		nz = 0;

	if (node->op != NN_OP_CONV && node->op != NN_OP_CONVT)
		return 0;
	x = g->values[transposed ? node->out[0] : node->in[0]].shape;
	y = g->values[transposed ? node->in[0] : node->out[0]].shape;
	if (!transposed && node->in[1] >= 0)
		nz = g->values[node->in[1]].shape.c;
	return nn_mul(nn_mul((size_t) y.h * y.w, (size_t) node->kernel * node->kernel), x.c + nz);
}

/* Images whose columns are made at once. */
static int
chunk_of(const CpuOperands *op, const Window *w)
{
	size_t		image = (size_t) w->y.shape.h * w->y.shape.w * w->k;
	size_t		fit = is_plain(w) ? (size_t) w->y.shape.n : op->ncolumns / image;

	return fit < (size_t) w->y.shape.n ? (int) fit : w->y.shape.n;
}

static float *
image_of(const CpuMap *map, int n)
{
	return map->data + (size_t) n * map->shape.h * map->shape.w * map->pitch;
}

/* ---- Columns ------------------------------------------------------------------------------------------------------------------------------- */

/* The columns of images [i0, i0 + n); z (N, nz), already activated, may be NULL. */
static void
gather(const Window *w, const float *z, int i0, int n, int threads, float *columns)
{
	int			h = w->y.shape.h,
				width = w->y.shape.w,
				c = w->x.shape.c;

#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
	for (int i = 0; i < n; i++)
		for (int oy = 0; oy < h; oy++)
		{
			float	   *to = columns + ((size_t) i * h + oy) * width * w->k;
			const float *image = image_of(&w->x, i0 + i);

			for (int ox = 0; ox < width; ox++)
				for (int ky = 0; ky < w->kernel; ky++)
					for (int kx = 0; kx < w->kernel; kx++, to += c + w->nz)
					{
						int			iy = oy * w->stride + ky - w->pad,
									ix = ox * w->stride + kx - w->pad;

						if (iy < 0 || iy >= w->x.shape.h || ix < 0 || ix >= w->x.shape.w)
						{
							memset(to, 0, (c + w->nz) * sizeof(float));
							continue;
						}
						memcpy(to, image + ((size_t) iy * w->x.shape.w + ix) * w->x.pitch, c * sizeof(float));
						if (w->nz > 0)
							memcpy(to + c, z + (size_t) (i0 + i) * w->nz, w->nz * sizeof(float));
					}
		}
}

/* Begins a pixel's sum: from the bias, from 0, or from what is there. */
static void
begin_pixel(float *to, const float *bias, bool accumulate, int c)
{
	if (bias)
		memcpy(to, bias, c * sizeof(float));
	else if (!accumulate)
		memset(to, 0, c * sizeof(float));
}

/* Sums the columns of images [i0, i0 + n) into the pixels of x: each pixel takes the windows that it lies under, in their order. */
static void
scatter(const Window *w, const float *columns, const float *bias, bool accumulate, int i0, int n, int threads)
{
	int			h = w->y.shape.h,
				width = w->y.shape.w,
				c = w->x.shape.c;

#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
	for (int i = 0; i < n; i++)
		for (int iy = 0; iy < w->x.shape.h; iy++)
			for (int ix = 0; ix < w->x.shape.w; ix++)
			{
				float	   *to = image_of(&w->x, i0 + i) + ((size_t) iy * w->x.shape.w + ix) * w->x.pitch;

				begin_pixel(to, bias, accumulate, c);
				for (int ky = (iy + w->pad) % w->stride; ky < w->kernel; ky += w->stride)
					for (int kx = (ix + w->pad) % w->stride; kx < w->kernel; kx += w->stride)
					{
						int			oy = (iy + w->pad - ky) / w->stride,
									ox = (ix + w->pad - kx) / w->stride;
						const float *from;

						if (iy + w->pad < ky || ix + w->pad < kx || oy >= h || ox >= width)
							continue;
						from = columns + (((size_t) i * h + oy) * width + ox) * w->k + (size_t) (ky * w->kernel + kx) * (c + w->nz);
						for (int k = 0; k < c; k++)
							to[k] += from[k];
					}
			}
}

/* The gradient of the activated latent of images [i0, i0 + n): the sum over all windows' taps inside the image. */
static void
sum_latent(const Window *w, const float *columns, int i0, int n, int threads, float *dz)
{
#pragma omp parallel for schedule(static) num_threads(threads)
	for (int i = 0; i < n; i++)
	{
		const float *from = columns + (size_t) i * w->y.shape.h * w->y.shape.w * w->k + w->x.shape.c;
		double		sums[CPU_TRAIN_BLOCK];

		for (int z0 = 0; z0 < w->nz; z0 += CPU_TRAIN_BLOCK)
		{
			int			nz = w->nz - z0 < CPU_TRAIN_BLOCK ? w->nz - z0 : CPU_TRAIN_BLOCK;
			const float *at = from + z0;

			memset(sums, 0, sizeof(sums));
			for (int oy = 0; oy < w->y.shape.h; oy++)
				for (int ox = 0; ox < w->y.shape.w; ox++)
					for (int t = 0; t < w->kernel * w->kernel; t++, at += w->x.shape.c + w->nz)
					{
						int			iy = oy * w->stride + t / w->kernel - w->pad,
									ix = ox * w->stride + t % w->kernel - w->pad;

						if (iy < 0 || iy >= w->x.shape.h || ix < 0 || ix >= w->x.shape.w)
							continue;
						for (int k = 0; k < nz; k++)
							sums[k] += at[k];
					}
			for (int k = 0; k < nz; k++)
				dz[(size_t) (i0 + i) * w->nz + z0 + k] = (float) sums[k];
		}
	}
}

/* ---- The three products -------------------------------------------------------------------------------------------------------------------- */

/* y = columns * weights, over the bias or added to what is there */
static dnnl_status_t
product_y(const CpuOperands *op, const Window *w, const float *z, const float *bias, bool accumulate)
{
	int			chunk = chunk_of(op, w),
				o = w->y.shape.c;
	size_t		map = (size_t) w->y.shape.h * w->y.shape.w;

	for (int i0 = 0; i0 < w->y.shape.n; i0 += chunk)
	{
		int			n = w->y.shape.n - i0 < chunk ? w->y.shape.n - i0 : chunk;
		const float *rows = op->columns;
		size_t		step = w->k;
		float	   *y = image_of(&w->y, i0);
		dnnl_status_t status;

		if (is_plain(w))
		{
			rows = image_of(&w->x, i0);
			step = w->x.pitch;
		}
		else
			gather(w, z, i0, n, op->threads, op->columns);
		for (size_t p = 0; bias && p < n * map; p++)
			memcpy(y + p * w->y.pitch, bias, o * sizeof(float));
		status = dnnl_sgemm('N', 'N', (dnnl_dim_t) (n * map), o, w->k, 1, rows, step, op->weight, o, bias || accumulate ? 1 : 0, y, w->y.pitch);
		if (status != dnnl_success)
			return status;
	}
	return dnnl_success;
}

/* x = the sums of y * weights^T, over the bias or added to what is there; x.data may be NULL if only the latent's part is wanted */
static dnnl_status_t
product_x(const CpuOperands *op, const Window *w, const float *bias, bool accumulate, float *dz)
{
	int			chunk = chunk_of(op, w),
				o = w->y.shape.c;
	size_t		map = (size_t) w->y.shape.h * w->y.shape.w;

	for (int i0 = 0; i0 < w->y.shape.n; i0 += chunk)
	{
		int			n = w->y.shape.n - i0 < chunk ? w->y.shape.n - i0 : chunk;
		bool		plain = is_plain(w);
		float	   *rows = plain ? image_of(&w->x, i0) : op->columns;
		dnnl_status_t status = dnnl_sgemm('N', 'T', (dnnl_dim_t) (n * map), w->k, o, 1, image_of(&w->y, i0), w->y.pitch, op->weight, o,
										  plain && accumulate ? 1 : 0, rows, plain ? w->x.pitch : (size_t) w->k);

		if (status != dnnl_success)
			return status;
		if (!plain && w->x.data)
			scatter(w, op->columns, bias, accumulate, i0, n, op->threads);
		if (dz)
			sum_latent(w, op->columns, i0, n, op->threads, dz);
	}
	return dnnl_success;
}

/* weights' gradient = columns^T * y */
static dnnl_status_t
product_w(const CpuOperands *op, const Window *w, const float *z)
{
	int			chunk = chunk_of(op, w),
				o = w->y.shape.c;
	size_t		map = (size_t) w->y.shape.h * w->y.shape.w;

	for (int i0 = 0; i0 < w->y.shape.n; i0 += chunk)
	{
		int			n = w->y.shape.n - i0 < chunk ? w->y.shape.n - i0 : chunk;
		bool		accumulate = i0 > 0 || op->weight_mode == NN_GRAD_ACCUMULATE;
		const float *rows = op->columns;
		size_t		step = w->k;
		dnnl_status_t status;

		if (is_plain(w))
		{
			rows = image_of(&w->x, i0);
			step = w->x.pitch;
		}
		else
			gather(w, z, i0, n, op->threads, op->columns);
		status = dnnl_sgemm('T', 'N', w->k, o, (dnnl_dim_t) (n * map), 1, rows, step, image_of(&w->y, i0), w->y.pitch, accumulate ? 1 : 0, op->dweight, o);
		if (status != dnnl_success)
			return status;
	}
	return dnnl_success;
}

static void
bias_gradient(const CpuOperands *op)
{
	const CpuMap *dy = &op->dout[0];
	int			c = dy->shape.c;
	size_t		pixels = cpu_pixels(dy->shape);

#pragma omp parallel for schedule(static) num_threads(op->threads)
	for (int c0 = 0; c0 < c; c0 += CPU_TRAIN_BLOCK)
	{
		int			nc = c - c0 < CPU_TRAIN_BLOCK ? c - c0 : CPU_TRAIN_BLOCK;
		double		sums[CPU_TRAIN_BLOCK] = {0};

		for (size_t p = 0; p < pixels; p++)
			for (int k = 0; k < nc; k++)
				sums[k] += dy->data[p * dy->pitch + c0 + k];
		for (int k = 0; k < nc; k++)
			op->dbias[c0 + k] = (float) sums[k] + (op->bias_mode == NN_GRAD_ACCUMULATE ? op->dbias[c0 + k] : 0);
	}
}

/* ---- Convolution and linear layers --------------------------------------------------------------------------------------------------------- */

/* The activated latents of a batch follow the columns in the work space. */
static float *
activated_latent(const CpuOperands *op)
{
	const CpuMap *z = &op->in[1];
	float	   *to = op->columns + op->ncolumns;

	if (!z->data)
		return NULL;
	for (int n = 0; n < z->shape.n; n++)
		memcpy(to + (size_t) n * z->shape.c, z->data + n * z->pitch, z->shape.c * sizeof(float));
	cpu_train_act(op->node->z_act, to, z->shape.n * z->shape.c);
	return to;
}

/* x (N, H, W, C), z (N, 1, 1, nz) or none -> y (N, H', W', O) */
dnnl_status_t
cpu_train_conv(const CpuOperands *op)
{
	const float *z = activated_latent(op);
	Window		w = window_of(op, op->in[0], op->out[0], z ? op->in[1].shape.c : 0);

	return product_y(op, &w, z, op->bias, false);
}

/* Through the latent's activation, which is a LeakyReLU or none in all networks. */
static void
latent_gradient(const CpuOperands *op, const float *dz)
{
	const CpuMap *z = &op->in[1],
			   *to = &op->din[1];

	for (int n = 0; n < z->shape.n; n++)
		for (int k = 0; k < z->shape.c; k++)
		{
			float		slope = op->node->z_act == NN_ACT_LRELU && !(z->data[n * z->pitch + k] > 0) ? 0.2f : 1;
			float	   *at = &to->data[n * to->pitch + k];

			*at = dz[(size_t) n * z->shape.c + k] * slope + (op->in_mode[1] == NN_GRAD_ACCUMULATE ? *at : 0);
		}
}

dnnl_status_t
cpu_train_conv_backward(const CpuOperands *op)
{
	float	   *z = activated_latent(op);
	Window		w = window_of(op, op->in[0], op->dout[0], op->in[1].shape.c);
	dnnl_status_t status = dnnl_success;

	if (op->dbias)
		bias_gradient(op);
	if (op->dweight)
		status = product_w(op, &w, z);
	if (status == dnnl_success && (op->din[0].data || op->din[1].data))
	{
		/* the latents have been read by now, and make room for their gradient */
		w.x.data = op->din[0].data;
		w.x.pitch = op->din[0].pitch;
		status = product_x(op, &w, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE, op->din[1].data ? z : NULL);
		if (status == dnnl_success && op->din[1].data)
			latent_gradient(op, z);
	}
	return status;
}

/* ---- Transposed convolution ---------------------------------------------------------------------------------------------------------------- */

/* x (N, H, W, C) -> y (N, 2H, 2W, O) */
dnnl_status_t
cpu_train_convt(const CpuOperands *op)
{
	Window		w = window_of(op, op->out[0], op->in[0], 0);

	return product_x(op, &w, op->bias, false, NULL);
}

dnnl_status_t
cpu_train_convt_backward(const CpuOperands *op)
{
	Window		w = window_of(op, op->dout[0], op->in[0], 0);
	dnnl_status_t status = dnnl_success;

	if (op->dbias)
		bias_gradient(op);
	if (op->dweight)
		status = product_w(op, &w, NULL);
	if (status == dnnl_success && op->din[0].data)
	{
		w.y = op->din[0];
		status = product_y(op, &w, NULL, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE);
	}
	return status;
}
