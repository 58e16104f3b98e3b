/*
 * cpu_train_conv.c
 *	  Convolutions in training, forward and backward, as three products.
 *
 * R1 A convolution from x (N, H, W, C) to y (N, H', W', O) reads for each
 *    output pixel the row [tap][C] of inputs under its window: the columns, P x
 *    K with K = taps * C, of which cpu_train_product.c lays out a block at a
 *    time. With weights (K, O) then y = columns * weights, and the weights'
 *    gradient is columns^T * dy.
 * R2 The gradient of x gathers too: pixels of x that lie alike under the
 *    windows (stride^2 phases) have the same taps, so each phase is a
 *    convolution of dy of its own. A transposed convolution is this forward,
 *    and R1 backward.
 * R3 A latent is an input that is the same at all pixels but ends with the
 *    image: a tap adds one number an output channel and image, or 0 where it
 *    lies outside. Forward, the sums of those begin y; backward, the sums of dy
 *    over the pixels that a tap adds to give both gradients.
 */
#include "nn/cpu/cpu_train.h"
#include "common/invariant.h"
#include "nn/cpu/cpu_train_product.h"

#include <string.h>

#define MAX_KERNEL CPU_TRAIN_KERNEL
#define MAX_TAPS (MAX_KERNEL * MAX_KERNEL)

/* A convolution: x is the side of windows, y that of a value a window. */
typedef struct Window
{
	int kernel, stride, pad;
	NnMap x, y;
	int nz; /* channels of the latent */
} Window;

static Window
window_of(const NnOperands *op, NnMap x, NnMap y, int nz)
{
	const NnNode *node = op->node;
	Window w = { .kernel = 1, .stride = 1, .x = x, .y = y, .nz = nz };

	if (nn_ops[node->op].filters)
	{
		w.kernel = node->conv.kernel;
		w.stride = node->conv.stride;
		w.pad = node->conv.pad;
	}
	return w;
}

static float *
image_of(const NnMap *map, int n)
{
	return map->f32 + (size_t) n * map->shape.h * map->shape.w * map->pitch;
}

/* ---- Gathering ----------------------------------------------------------- */

/*
 * Rows of pixels that are read by taps: pixel (n, y, x) of a grid reads pixel
 * (y * stride + dy[t], x * stride + dx[t]) of `from`, and is pixel (y * step +
 * y0, x * step + x0) of `to`.
 */
typedef struct Gather
{
	NnMap from, to;
	int ntaps, tap[MAX_TAPS], /* of the weights */
		dy[MAX_TAPS], dx[MAX_TAPS];
	int stride, h, w, /* of the grid */
		step, y0, x0;
	const float *weight; /* [tap][C + nz][O] */
	int rows;            /* C + nz */
	int o;
} Gather;

typedef struct Pixel
{
	int n, y, x;
} Pixel;

static Pixel
pixel_of(const Gather *g, int i)
{
	return (Pixel){ i / (g->h * g->w), i / g->w % g->h, i % g->w };
}

/* The pixel that tap t reads; NULL outside the image. */
static const float *
under(const Gather *g, Pixel p, int t)
{
	int y = p.y * g->stride + g->dy[t], x = p.x * g->stride + g->dx[t];
	NnShape s = g->from.shape;

	if (y < 0 || y >= s.h || x < 0 || x >= s.w)
		return NULL;
	return g->from.f32 + (((size_t) p.n * s.h + y) * s.w + x) * g->from.pitch;
}

/*
 * One row of a block where the channels of a tap do not fill vectors: the row
 * is put together, neighbouring taps at once, and then laid out.
 */
static void
pack_ragged(const CpuProduct *p, Pixel pixel, int row, int rows, int k0, int k, float *to)
{
	const Gather *g = p->context;
	int lanes = p->kernels->lanes, c = g->from.shape.c, count;
	float whole[CPU_PRODUCT_DEPTH];

	for (int at = 0; at < k; at += count)
	{
		int t = (k0 + at) / c, channel = (k0 + at) % c;
		const float *from = under(g, pixel, t);

		count = c - channel < k - at ? c - channel : k - at;
		if (from)
			from += channel;
		while (from && at + count < k && g->from.pitch == (size_t) c &&
			   under(g, pixel, t + 1) == from - channel + c)
		{
			t++;
			channel -= c;
			count += c < k - at - count ? c : k - at - count;
		}
		if (from)
			memcpy(whole + at, from, count * sizeof(float));
		else
			memset(whole + at, 0, count * sizeof(float));
	}
	for (int at = k; at % lanes != 0; at++)
		whole[at] = 0;
	for (int at = 0; at < k; at += lanes)
		memcpy(to + (size_t) at * rows + (size_t) row * lanes, whole + at, lanes * sizeof(float));
}

/* A block of rows: pixels of the grid, k counts [tap][channel]. */
static void
pack_rows(const CpuProduct *p, int m0, int rows, int k0, int k, float *to)
{
	const Gather *g = p->context;
	int lanes = p->kernels->lanes, c = g->from.shape.c, count;
	Pixel pixels[CPU_MAX_ROWS];

	for (int i = 0; i < rows; i++)
	{
		pixels[i] = pixel_of(g, m0 + i);
		if (c % lanes != 0)
			pack_ragged(p, pixels[i], i, rows, k0, k, to);
	}
	for (int at = 0; c % lanes == 0 && at < k; at += count)
	{
		int t = (k0 + at) / c, channel = (k0 + at) % c;
		const float *from[CPU_MAX_ROWS];

		count = c - channel < k - at ? c - channel : k - at;
		for (int i = 0; i < rows; i++)
		{
			from[i] = under(g, pixels[i], t);
			if (from[i])
				from[i] += channel;
		}
		p->kernels->pack_pixels(from, rows, count, to + (size_t) at * rows);
	}
}

static void
pack_columns(const CpuProduct *p, int m0, int m, int k0, int k, float *to)
{
	int padded = (k + p->kernels->lanes - 1) / p->kernels->lanes * p->kernels->lanes;

	for (int i = 0; i < m; i += p->kernels->rows)
		pack_rows(p, m0 + i, m - i < p->kernels->rows ? m - i : p->kernels->rows, k0, k,
				  to + (size_t) i * padded);
}

static float *
gather_row(const CpuProduct *p, int i)
{
	const Gather *g = p->context;
	Pixel at = pixel_of(g, i);

	return g->to.f32 + (((size_t) at.n * g->to.shape.h + at.y * g->step + g->y0) * g->to.shape.w +
						at.x * g->step + g->x0) *
						   g->to.pitch;
}

static void
multiply_gathered(const NnOperands *op, const Gather *g,
				  void (*pack_b)(const CpuProduct *, int, int, int, int, float *),
				  const float *bias, bool add)
{
	CpuProduct product = { .kernels = cpu_training(op)->kernels,
						   .bf16 = cpu_training(op)->bf16,
						   .m = g->to.shape.n * g->h * g->w,
						   .n = g->to.shape.c,
						   .k = g->ntaps * g->from.shape.c,
						   .context = g,
						   .pack_a = pack_columns,
						   .pack_b = pack_b,
						   .row = gather_row,
						   .bias = bias,
						   .add = add };

	cpu_multiply(&product, cpu_training(op)->work, op->device->threads);
}

/* ---- y = columns * weights ----------------------------------------------- */

/* Rows [tap][C] and columns O of the weights. */
static void
pack_taps(const CpuProduct *p, int k0, int k, int n0, int n, float *to)
{
	const Gather *g = p->context;
	int c = g->from.shape.c, count;

	for (int at = 0; at < k; at += count)
	{
		int t = (k0 + at) / c, channel = (k0 + at) % c;

		count = c - channel < k - at ? c - channel : k - at;
		p->kernels->pack_panel(g->weight + ((size_t) g->tap[t] * g->rows + channel) * g->o + n0,
							   g->o, count, n, to + (size_t) at * p->kernels->panel);
	}
}

static void
product_y(const NnOperands *op, const Window *w, const float *bias, bool add)
{
	Gather g = { .from = w->x,
				 .to = w->y,
				 .ntaps = w->kernel * w->kernel,
				 .stride = w->stride,
				 .h = w->y.shape.h,
				 .w = w->y.shape.w,
				 .step = 1,
				 .weight = op->weight.f32,
				 .rows = w->x.shape.c + w->nz,
				 .o = w->y.shape.c };

	for (int t = 0; t < g.ntaps; t++)
	{
		g.tap[t] = t;
		g.dy[t] = t / w->kernel - w->pad;
		g.dx[t] = t % w->kernel - w->pad;
	}
	multiply_gathered(op, &g, pack_taps, bias, add);
}

/* ---- x = the sums of y * weights^T --------------------------------------- */

/* Rows [tap][O] and columns C of the weights. */
static void
pack_weights_across(const CpuProduct *p, int k0, int k, int n0, int n, float *to)
{
	const Gather *g = p->context;
	int count;

	for (int at = 0; at < k; at += count)
	{
		int t = (k0 + at) / g->o, channel = (k0 + at) % g->o;

		count = g->o - channel < k - at ? g->o - channel : k - at;
		p->kernels->pack_panel_across(g->weight + ((size_t) g->tap[t] * g->rows + n0) * g->o +
										  channel,
									  g->o, count, n, to + (size_t) at * p->kernels->panel);
	}
}

/* Begins all pixels of a grid from the bias, or from 0: no tap reaches them. */
static void
begin_grid(const Gather *g, const float *bias)
{
	CpuProduct product = { .context = g };

	for (int i = 0; i < g->to.shape.n * g->h * g->w; i++)
	{
		if (bias)
			memcpy(gather_row(&product, i), bias, g->to.shape.c * sizeof(float));
		else
			memset(gather_row(&product, i), 0, g->to.shape.c * sizeof(float));
	}
}

/* Pixels of x that are (y0, x0) modulo the stride. */
static void
product_phase(const NnOperands *op, const Window *w, int y0, int x0, const float *bias, bool add)
{
	Gather g = { .from = w->y,
				 .to = w->x,
				 .stride = 1,
				 .h = (w->x.shape.h - y0 + w->stride - 1) / w->stride,
				 .w = (w->x.shape.w - x0 + w->stride - 1) / w->stride,
				 .step = w->stride,
				 .y0 = y0,
				 .x0 = x0,
				 .weight = op->weight.f32,
				 .rows = w->x.shape.c + w->nz,
				 .o = w->y.shape.c };

	for (int ky = (y0 + w->pad) % w->stride; ky < w->kernel; ky += w->stride)
		for (int kx = (x0 + w->pad) % w->stride; kx < w->kernel; kx += w->stride)
		{
			g.tap[g.ntaps] = ky * w->kernel + kx;
			g.dy[g.ntaps] = (y0 + w->pad - ky) / w->stride;
			g.dx[g.ntaps] = (x0 + w->pad - kx) / w->stride;
			g.ntaps++;
		}
	if (g.ntaps > 0)
		multiply_gathered(op, &g, pack_weights_across, bias, add);
	else if (!add)
		begin_grid(&g, bias);
}

static void
product_x(const NnOperands *op, const Window *w, const float *bias, bool add)
{
	for (int y0 = 0; y0 < w->stride && y0 < w->x.shape.h; y0++)
		for (int x0 = 0; x0 < w->stride && x0 < w->x.shape.w; x0++)
			product_phase(op, w, y0, x0, bias, add);
}

/* ---- weights' gradient = columns^T * y ----------------------------------- */

/* The gradient's side; A's rows count [tap][C], B's the pixels of y. */
typedef struct Correlation
{
	Gather gather;
	NnMap y;
	float *gradient; /* [tap][C + nz][O] */
} Correlation;

/* Where tap t of pixels [k0, k0 + k) is. */
static void
find_pixels(const Gather *g, int t, int k0, int k, const float **pixels)
{
	Pixel p = pixel_of(g, k0);

	for (int i = 0; i < k; i++)
	{
		pixels[i] = under(g, p, t);
		if (++p.x == g->w)
		{
			p.x = 0;
			if (++p.y == g->h)
			{
				p.y = 0;
				p.n++;
			}
		}
	}
}

static void
pack_correlated(const CpuProduct *p, int m0, int m, int k0, int k, float *to)
{
	const Correlation *r = p->context;
	int c = r->gather.from.shape.c, rows = p->kernels->rows, found = -1;
	const float *pixels[CPU_PRODUCT_DEPTH];

	for (int i = 0; i < m; i += rows, to += (size_t) rows * k)
	{
		int t = (m0 + i) / c, channel = (m0 + i) % c;

		if (t != found)
			find_pixels(&r->gather, t, k0, k, pixels);
		found = t;
		if (channel + rows <= c)
		{
			p->kernels->pack_turned(pixels, k, channel, to);
			continue;
		}
		/* the block's rows are those of several taps, or end */
		for (int j = 0; j < rows; j++, channel++)
		{
			if (channel == c && i + j < m)
			{
				channel = 0;
				found = ++t;
				find_pixels(&r->gather, t, k0, k, pixels);
			}
			for (int q = 0; q < k; q++)
				to[(size_t) q * rows + j] = i + j < m && pixels[q] ? pixels[q][channel] : 0;
		}
	}
}

static void
pack_outputs(const CpuProduct *p, int k0, int k, int n0, int n, float *to)
{
	const Correlation *r = p->context;

	p->kernels->pack_panel(r->y.f32 + (size_t) k0 * r->y.pitch + n0, r->y.pitch, k, n, to);
}

static float *
gradient_row(const CpuProduct *p, int i)
{
	const Correlation *r = p->context;
	int c = r->gather.from.shape.c;

	return r->gradient + ((size_t) (i / c) * r->gather.rows + i % c) * r->gather.o;
}

static void
product_w(const NnOperands *op, const Window *w)
{
	Correlation r = { .gather = { .from = w->x,
								  .ntaps = w->kernel * w->kernel,
								  .stride = w->stride,
								  .h = w->y.shape.h,
								  .w = w->y.shape.w,
								  .rows = w->x.shape.c + w->nz,
								  .o = w->y.shape.c },
					  .y = w->y,
					  .gradient = op->dweight.f32 };
	CpuProduct product = { .kernels = cpu_training(op)->kernels,
						   .bf16 = cpu_training(op)->bf16,
						   .m = r.gather.ntaps * w->x.shape.c,
						   .n = w->y.shape.c,
						   .k = (int) nn_map_pixels(&w->y),
						   .turned = true,
						   .context = &r,
						   .pack_a = pack_correlated,
						   .pack_b = pack_outputs,
						   .row = gradient_row,
						   .add = op->weight_mode == NN_GRAD_ACCUMULATE };

	for (int t = 0; t < r.gather.ntaps; t++)
	{
		r.gather.dy[t] = t / w->kernel - w->pad;
		r.gather.dx[t] = t % w->kernel - w->pad;
	}
	cpu_multiply(&product, cpu_training(op)->work, op->device->threads);
}

static void
bias_gradient(const NnOperands *op)
{
	const NnMap *dy = &op->dout[0];
	int c = dy->shape.c;
	size_t pixels = nn_map_pixels(dy);

#pragma omp parallel for schedule(static) num_threads(cpu_team(op, pixels *c))
	for (int c0 = 0; c0 < c; c0 += CPU_TRAIN_BLOCK)
	{
		int nc = c - c0 < CPU_TRAIN_BLOCK ? c - c0 : CPU_TRAIN_BLOCK;
		double sums[CPU_TRAIN_BLOCK] = { 0 };

		for (size_t p = 0; p < pixels; p++)
			for (int k = 0; k < nc; k++)
				sums[k] += dy->f32[p * dy->pitch + c0 + k];
		for (int k = 0; k < nc; k++)
			op->dbias.f32[c0 + k] =
				(float) sums[k] + (op->bias_mode == NN_GRAD_ACCUMULATE ? op->dbias.f32[c0 + k] : 0);
	}
}

/* ---- Latents ------------------------------------------------------------- */

/* Floats of all images: activated latent, a number a tap and output. */
size_t
cpu_train_latents(const NnGraph *g, const NnNode *node)
{
	NnShape z, y;

	if (node->op != NN_OP_CONV || node->in[1] < 0)
		return 0;
	z = g->values[node->in[1]].shape;
	y = g->values[node->out[0]].shape;
	return nn_mul(z.n, (size_t) z.c + (size_t) node->conv.kernel * node->conv.kernel * y.c);
}

/* A number as an operand of a product. */
static inline float
operand(bool bf16, float x)
{
	return bf16 ? nn_bf16(x) : x;
}

static float *
activated_latent(const NnOperands *op)
{
	const NnMap *z = &op->in[1];
	float *to = cpu_training(op)->latents;
	bool bf16 = cpu_training(op)->bf16;

	for (int n = 0; n < z->shape.n; n++)
		memcpy(to + (size_t) n * z->shape.c, z->f32 + n * z->pitch, z->shape.c * sizeof(float));
	for (int i = 0; i < z->shape.n * z->shape.c; i++)
		to[i] = operand(bf16, nn_act(op->node->conv.z_act, to[i]));
	return to;
}

/* Taps [first, end) of one axis lie inside the image for position i of y. */
static void
inside(const Window *w, int i, int extent, int *first, int *end)
{
	int start = i * w->stride - w->pad;

	*first = start < 0 ? -start : 0;
	*end = extent - start < w->kernel ? extent - start : w->kernel;
}

static void
add_floats(float *restrict to, const float *restrict from, int n)
{
	for (int k = 0; k < n; k++)
		to[k] += from[k];
}

/* What each tap adds for image n: [tap][O]. */
static void
spread_latent(const NnOperands *op, const Window *w, const float *z, float *taps)
{
	int o = w->y.shape.c;
	bool bf16 = cpu_training(op)->bf16;

	memset(taps, 0, (size_t) w->kernel * w->kernel * o * sizeof(float));
	for (int t = 0; t < w->kernel * w->kernel; t++)
		for (int k = 0; k < w->nz; k++)
		{
			const float *weight =
				op->weight.f32 + ((size_t) t * (w->x.shape.c + w->nz) + w->x.shape.c + k) * o;

			for (int i = 0; i < o; i++)
				taps[(size_t) t * o + i] += z[k] * operand(bf16, weight[i]);
		}
}

/* A pixel of y begins with the bias and all taps inside. */
static void
begin_pixel(const NnOperands *op, const Window *w, const float *taps, int y, int x, float *to)
{
	int o = w->y.shape.c, y0, y1, x0, x1;

	inside(w, y, w->x.shape.h, &y0, &y1);
	inside(w, x, w->x.shape.w, &x0, &x1);
	if (op->bias.data)
		memcpy(to, op->bias.f32, o * sizeof(float));
	else
		memset(to, 0, o * sizeof(float));
	for (int ky = y0; ky < y1; ky++)
		for (int kx = x0; kx < x1; kx++)
			add_floats(to, taps + (size_t) (ky * w->kernel + kx) * o, o);
}

/* Whether the same taps lie inside the image for positions x - 1 and x of y. */
static bool
same_taps(const Window *w, int x)
{
	int a0, a1, b0, b1;

	if (x == 0)
		return false;
	inside(w, x - 1, w->x.shape.w, &a0, &a1);
	inside(w, x, w->x.shape.w, &b0, &b1);
	return a0 == b0 && a1 == b1;
}

/* y begins with the bias and what the latent adds. */
static void
begin_outputs(const NnOperands *op, const Window *w)
{
	const float *z = activated_latent(op);
	int o = w->y.shape.c;
	size_t each = (size_t) w->kernel * w->kernel * o;
	float *taps = cpu_training(op)->latents + (size_t) w->y.shape.n * w->nz;
	int team = cpu_team(op, nn_map_pixels(&w->y) * o);

#pragma omp parallel for schedule(static) num_threads(team)
	for (int n = 0; n < w->y.shape.n; n++)
		spread_latent(op, w, z + (size_t) n * w->nz, taps + n * each);
#pragma omp parallel for collapse(2) schedule(static) num_threads(team)
	for (int n = 0; n < w->y.shape.n; n++)
		for (int y = 0; y < w->y.shape.h; y++)
		{
			float *to = image_of(&w->y, n) + (size_t) y * w->y.shape.w * w->y.pitch;

			for (int x = 0; x < w->y.shape.w; x++, to += w->y.pitch)
			{
				if (same_taps(w, x))
					memcpy(to, to - w->y.pitch, o * sizeof(float));
				else
					begin_pixel(op, w, taps + n * each, y, x, to);
			}
		}
}

/* The sums of dy that each tap adds, channels [c0, c0 + c): [tap][O]. */
static void
sum_taps(const NnOperands *op, const Window *w, int n, int c0, int c, float *taps)
{
	bool bf16 = cpu_training(op)->bf16;
	double sums[MAX_TAPS][CPU_TRAIN_BLOCK] = { 0 };

	for (int y = 0; y < w->y.shape.h; y++)
	{
		double row[MAX_KERNEL][CPU_TRAIN_BLOCK] = { 0 }, middle[CPU_TRAIN_BLOCK] = { 0 };
		const float *from = image_of(&w->y, n) + (size_t) y * w->y.shape.w * w->y.pitch + c0;
		int y0, y1;

		for (int x = 0; x < w->y.shape.w; x++, from += w->y.pitch)
		{
			int x0, x1;

			inside(w, x, w->x.shape.w, &x0, &x1);
			if (x0 == 0 && x1 == w->kernel)
				for (int k = 0; k < c; k++)
					middle[k] += operand(bf16, from[k]);
			else
				for (int kx = x0; kx < x1; kx++)
					for (int k = 0; k < c; k++)
						row[kx][k] += operand(bf16, from[k]);
		}
		inside(w, y, w->x.shape.h, &y0, &y1);
		for (int ky = y0; ky < y1; ky++)
			for (int kx = 0; kx < w->kernel; kx++)
				for (int k = 0; k < c; k++)
					sums[ky * w->kernel + kx][k] += row[kx][k] + middle[k];
	}
	for (int t = 0; t < w->kernel * w->kernel; t++)
		for (int k = 0; k < c; k++)
			taps[(size_t) t * w->y.shape.c + c0 + k] = (float) sums[t][k];
}

/* The gradient of the weights of the latent's channel k under tap t. */
static void
latent_weight_gradient(const NnOperands *op, const Window *w, const float *z, const float *taps,
					   int t, int k)
{
	int o = w->y.shape.c;
	float *to = op->dweight.f32 + ((size_t) t * (w->x.shape.c + w->nz) + w->x.shape.c + k) * o;

	if (op->weight_mode == NN_GRAD_OVERWRITE)
		memset(to, 0, o * sizeof(float));
	for (int n = 0; n < w->y.shape.n; n++)
	{
		float factor = z[(size_t) n * w->nz + k];
		const float *from = taps + ((size_t) n * w->kernel * w->kernel + t) * o;

		for (int i = 0; i < o; i++)
			to[i] += factor * from[i];
	}
}

/* The gradient of channel k of image n's activated latent. */
static double
activated_gradient(const NnOperands *op, const Window *w, const float *taps, int n, int k)
{
	int o = w->y.shape.c;
	bool bf16 = cpu_training(op)->bf16;
	double sum = 0;

	for (int t = 0; t < w->kernel * w->kernel; t++)
	{
		const float *weight = op->weight.f32 +
							  ((size_t) t * (w->x.shape.c + w->nz) + w->x.shape.c + k) * o,
					*from = taps + ((size_t) n * w->kernel * w->kernel + t) * o;

		for (int i = 0; i < o; i++)
			sum += operand(bf16, weight[i]) * from[i];
	}
	return sum;
}

/* Through the latent's activation. */
static void
latent_gradient(const NnOperands *op, const Window *w, const float *taps)
{
	const NnMap *z = &op->in[1], *to = &op->din[1];
	bool leaky = op->node->conv.z_act == NN_ACT_LRELU;

	INVARIANT(leaky || op->node->conv.z_act == NN_ACT_NONE); /* in all networks */

#pragma omp parallel for collapse(2) schedule(static) num_threads(op->device->threads)
	for (int n = 0; n < z->shape.n; n++)
		for (int k = 0; k < z->shape.c; k++)
		{
			float slope = leaky && !(z->f32[n * z->pitch + k] > 0) ? (float) LRELU_SLOPE : 1;
			float *at = &to->f32[n * to->pitch + k];

			*at = (float) activated_gradient(op, w, taps, n, k) * slope +
				  (op->in_mode[1] == NN_GRAD_ACCUMULATE ? *at : 0);
		}
}

static void
latent_gradients(const NnOperands *op, const Window *w)
{
	const float *z = activated_latent(op);
	float *taps = cpu_training(op)->latents + (size_t) w->y.shape.n * w->nz;

#pragma omp parallel for collapse(2) schedule(static) \
	num_threads(cpu_team(op, nn_map_pixels(&w->y) * w->y.shape.c))
	for (int n = 0; n < w->y.shape.n; n++)
		for (int c0 = 0; c0 < w->y.shape.c; c0 += CPU_TRAIN_BLOCK)
			sum_taps(op, w, n, c0,
					 w->y.shape.c - c0 < CPU_TRAIN_BLOCK ? w->y.shape.c - c0 : CPU_TRAIN_BLOCK,
					 taps + (size_t) n * w->kernel * w->kernel * w->y.shape.c);
	if (op->dweight.data)
#pragma omp parallel for collapse(2) schedule(static) num_threads(op->device->threads)
		for (int t = 0; t < w->kernel * w->kernel; t++)
			for (int k = 0; k < w->nz; k++)
				latent_weight_gradient(op, w, z, taps, t, k);
	if (op->din[1].data)
		latent_gradient(op, w, taps);
}

/* ---- Convolution and linear layers --------------------------------------- */

/* x (N, H, W, C), z (N, 1, 1, nz) or none -> y (N, H', W', O) */
NnStatus
cpu_train_conv(const NnOperands *op, NnError *error)
{
	bool latent = op->in[1].data != NULL;
	Window w = window_of(op, op->in[0], op->out[0], latent ? op->in[1].shape.c : 0);

	if (latent)
		begin_outputs(op, &w);
	product_y(op, &w, op->bias.f32, latent);
	return NN_OK;
}

NnStatus
cpu_train_conv_backward(const NnOperands *op, NnError *error)
{
	Window w = window_of(op, op->in[0], op->dout[0], op->in[1].data ? op->in[1].shape.c : 0);

	if (op->dbias.data)
		bias_gradient(op);
	if (w.nz > 0 && (op->dweight.data || op->din[1].data))
		latent_gradients(op, &w);
	if (op->dweight.data)
		product_w(op, &w);
	if (op->din[0].data)
	{
		w.x = op->din[0];
		product_x(op, &w, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE);
	}
	return NN_OK;
}

NnStatus
cpu_train_linear(const NnOperands *op, NnError *error)
{
	return cpu_train_conv(op, error);
}

NnStatus
cpu_train_linear_backward(const NnOperands *op, NnError *error)
{
	return cpu_train_conv_backward(op, error);
}

/* ---- Transposed convolution ---------------------------------------------- */

/* x (N, H, W, C) -> y (N, 2H, 2W, O) */
NnStatus
cpu_train_convt(const NnOperands *op, NnError *error)
{
	Window w = window_of(op, op->out[0], op->in[0], 0);

	product_x(op, &w, op->bias.f32, false);
	return NN_OK;
}

NnStatus
cpu_train_convt_backward(const NnOperands *op, NnError *error)
{
	Window w = window_of(op, op->dout[0], op->in[0], 0);

	if (op->dbias.data)
		bias_gradient(op);
	if (op->dweight.data)
		product_w(op, &w);
	if (op->din[0].data)
	{
		w.y = op->din[0];
		product_y(op, &w, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE);
	}
	return NN_OK;
}
