/*
 * cpu_train_conv.c
 *	  Convolutions and linear layers in training, forward and backward: three
 *	  products (cpu_train_window.h), the bias, and the latent.
 *
 * A transposed convolution from y to x is the gradient of x of a convolution
 * from x to y, and the other way round.
 *
 * R1 A latent is an input that is the same at all pixels but ends with the
 *    image: a tap adds one number an output channel and image, or 0 where it
 *    lies outside. Forward, the sums of those begin y; backward, the sums of dy
 *    over the pixels that a tap adds to give both gradients.
 */
#include "nn/cpu/cpu_train_tiles.h"
#include "common/invariant.h"

#include <string.h>

#define MAX_KERNEL CPU_TRAIN_KERNEL
#define MAX_TAPS (MAX_KERNEL * MAX_KERNEL)

static float *
image_of(const NnMap *map, int n)
{
	return map->f32 + (size_t) n * map->shape.h * map->shape.w * map->pitch;
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
static size_t
train_latents(const NnGraph *g, const NnNode *node)
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
inside(const CpuWindow *w, int i, int extent, int *first, int *end)
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
spread_latent(const NnOperands *op, const CpuWindow *w, const float *z, float *taps)
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
begin_pixel(const NnOperands *op, const CpuWindow *w, const float *taps, int y, int x, float *to)
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
same_taps(const CpuWindow *w, int x)
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
begin_outputs(const NnOperands *op, const CpuWindow *w)
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
sum_taps(const NnOperands *op, const CpuWindow *w, int n, int c0, int c, float *taps)
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
latent_weight_gradient(const NnOperands *op, const CpuWindow *w, const float *z, const float *taps,
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
activated_gradient(const NnOperands *op, const CpuWindow *w, const float *taps, int n, int k)
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
latent_gradient(const NnOperands *op, const CpuWindow *w, const float *taps)
{
	const NnMap *z = &op->in[1], *to = &op->din[1];
	bool leaky = op->node->conv.z_act == NN_ACT_LRELU;

	INVARIANT(leaky || op->node->conv.z_act == NN_ACT_NONE); /* in all networks */

#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(op))
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
latent_gradients(const NnOperands *op, const CpuWindow *w)
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
#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(op))
		for (int t = 0; t < w->kernel * w->kernel; t++)
			for (int k = 0; k < w->nz; k++)
				latent_weight_gradient(op, w, z, taps, t, k);
	if (op->din[1].data)
		latent_gradient(op, w, taps);
}

/* ---- Products ------------------------------------------------------------ */

static void
make_y(const NnOperands *op, const CpuWindow *w, const float *bias, bool add)
{
	if (!cpu_tiles_product(op, w, false, bias, add))
		cpu_window_y(op, w, bias, add);
}

static void
make_x(const NnOperands *op, const CpuWindow *w, const float *bias, bool add)
{
	if (!cpu_tiles_product(op, w, true, bias, add))
		cpu_window_x(op, w, bias, add);
}

static void
make_weights(const NnOperands *op, const CpuWindow *w)
{
	if (!cpu_tiles_weights(op, w))
		cpu_window_weights(op, w);
}

/* Raises `most` to what a node's three products need. */
void
cpu_conv_memory(const CpuKernels *kernels, const CpuKernel *kernel, const NnGraph *g,
				const NnNode *node, CpuTrainMemory *most)
{
	NnMap in = { .shape = g->values[node->in[0]].shape },
		  out = { .shape = g->values[node->out[0]].shape };
	CpuWindow w =
		node->op == NN_OP_CONVT ? cpu_window_of(node, out, in, 0) : cpu_window_of(node, in, out, 0);

	if (w.kernel > CPU_TRAIN_KERNEL)
		return;
	for (int across = 0; across < 2; across++)
		if (!cpu_tiles_memory(kernels, kernel, &w, across, most))
			cpu_window_memory(kernel, &w, across, most);
	if (!cpu_tiles_weights_memory(kernels, kernel, &w, most))
		cpu_window_weights_memory(kernel, &w, most);
	nn_most(&most->latents, nn_mul(train_latents(g, node), sizeof(float)));
}

/* ---- Convolution and linear layers --------------------------------------- */

/* x (N, H, W, C), z (N, 1, 1, nz) or none -> y (N, H', W', O) */
NnStatus
cpu_train_conv(const NnOperands *op, NnError *error)
{
	bool latent = op->in[1].data != NULL;
	CpuWindow w = cpu_window_of(op->node, op->in[0], op->out[0], latent ? op->in[1].shape.c : 0);

	if (latent)
		begin_outputs(op, &w);
	make_y(op, &w, op->bias.f32, latent);
	return NN_OK;
}

NnStatus
cpu_train_conv_backward(const NnOperands *op, NnError *error)
{
	CpuWindow w =
		cpu_window_of(op->node, op->in[0], op->dout[0], op->in[1].data ? op->in[1].shape.c : 0);

	if (op->dbias.data)
		bias_gradient(op);
	if (w.nz > 0 && (op->dweight.data || op->din[1].data))
		latent_gradients(op, &w);
	if (op->dweight.data)
		make_weights(op, &w);
	if (op->din[0].data)
	{
		w.x = op->din[0];
		make_x(op, &w, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE);
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
	CpuWindow w = cpu_window_of(op->node, op->out[0], op->in[0], 0);

	make_x(op, &w, op->bias.f32, false);
	return NN_OK;
}

NnStatus
cpu_train_convt_backward(const NnOperands *op, NnError *error)
{
	CpuWindow w = cpu_window_of(op->node, op->dout[0], op->in[0], 0);

	if (op->dbias.data)
		bias_gradient(op);
	if (op->dweight.data)
		make_weights(op, &w);
	if (op->din[0].data)
	{
		w.y = op->din[0];
		make_y(op, &w, NULL, op->in_mode[0] == NN_GRAD_ACCUMULATE);
	}
	return NN_OK;
}
