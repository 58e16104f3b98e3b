/*
 * ref_conv.c
 *	  Convolution, transposed convolution and linear layers, and their
 *	  gradients.
 *
 * A convolution is one bilinear map B(x, w) -> y. Its three forms below, each
 * the sum over the same taps, add to y, x or w what the other two say; forward
 * and backward of all three layers are made of them, the transposed convolution
 * being the second form.
 */
#include "nn/ref/ref.h"

#include <stdlib.h>

/* The geometry of a convolution from x (N, H, W, C) to y (N, H', W', O). */
typedef struct RefWindow
{
	const NnDevice *device; /* is told of each row: one layer of a large batch takes minutes */
	int kernel, stride, pad;
	bool bf16; /* operands are rounded to bfloat16 first */
} RefWindow;

static inline double
ref_operand(RefWindow win, double x)
{
	return win.bf16 ? nn_bf16((float) x) : x;
}

/*
 * Weights (O, C, K, K), the checkpoint's layout, as [ky][kx][a][b]: a, b = O,
 * C, or C, O if `by_input`. The caller frees them.
 */
static double *
taps_first(const double *w, int o, int c, RefWindow win, bool by_input, NnError *error)
{
	size_t taps = (size_t) win.kernel * win.kernel, bytes = taps * o * c * sizeof(double);
	double *out = malloc(bytes);

	if (!out)
	{
		nn_no_memory(error, bytes);
		return NULL;
	}
	for (int i = 0; i < o; i++)
		for (int k = 0; k < c; k++)
			for (size_t t = 0; t < taps; t++)
				out[(t * (by_input ? c : o) + (by_input ? k : i)) * (by_input ? o : c) +
					(by_input ? i : k)] = ref_operand(win, w[((size_t) i * c + k) * taps + t]);
	return out;
}

/* The input pixel under tap (ky, kx) of output (oy, ox); NULL: outside. */
static inline double *
ref_under(const NnMap *x, RefWindow win, int n, int oy, int ox, int ky, int kx)
{
	int iy = oy * win.stride + ky - win.pad, ix = ox * win.stride + kx - win.pad;

	return iy < 0 || iy >= x->shape.h || ix < 0 || ix >= x->shape.w ? NULL : ref_at(x, n, iy, ix);
}

/* to[i] += factor from[i] */
static inline void
ref_add_scaled(double *restrict to, double factor, const double *restrict from, int n)
{
	for (int i = 0; i < n; i++)
		to[i] += factor * from[i];
}

/*
 * y[n, oy, ox, o] += sum over c, ky, kx of w[o, c, ky, kx] x[n, oy s + ky - p,
 * ox s + kx - p, c], x being 0 outside.
 */
static NnStatus
add_output(const NnMap *x, const double *w, RefWindow win, const NnMap *y, NnError *error)
{
	int o = y->shape.c, c = x->shape.c;
	double *taps = taps_first(w, o, c, win, true, error);

	if (!taps)
		return NN_ENOMEM;
	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
		{
			nn_progress(win.device);
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int t = 0; t < win.kernel * win.kernel; t++)
				{
					const double *at = ref_under(x, win, n, oy, ox, t / win.kernel, t % win.kernel);

					for (int k = 0; at && k < c; k++)
						ref_add_scaled(ref_at(y, n, oy, ox), ref_operand(win, at[k]),
									   taps + ((size_t) t * c + k) * o, o);
				}
		}
	free(taps);
	return NN_OK;
}

/* The adjoint in x: y adds w[o, c, ky, kx] y[n, oy, ox, o] to its pixels. */
static NnStatus
add_input(const NnMap *x, const double *w, RefWindow win, const NnMap *y, NnError *error)
{
	int o = y->shape.c, c = x->shape.c;
	double *taps = taps_first(w, o, c, win, false, error);

	if (!taps)
		return NN_ENOMEM;
	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
		{
			nn_progress(win.device);
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int t = 0; t < win.kernel * win.kernel; t++)
				{
					double *at = ref_under(x, win, n, oy, ox, t / win.kernel, t % win.kernel);

					for (int i = 0; at && i < o; i++)
						ref_add_scaled(at, ref_operand(win, ref_at(y, n, oy, ox)[i]),
									   taps + ((size_t) t * o + i) * c, c);
				}
		}
	free(taps);
	return NN_OK;
}

/* The adjoint in w: w[o, c, ky, kx] += sum of x under the tap times y. */
static NnStatus
add_weights(const NnMap *x, double *w, RefWindow win, const NnMap *y, NnError *error)
{
	int o = y->shape.c, c = x->shape.c;
	size_t count = (size_t) win.kernel * win.kernel;
	double *taps = calloc(count * o * c, sizeof(double));

	if (!taps)
		return nn_no_memory(error, count * o * c * sizeof(double));
	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
		{
			nn_progress(win.device);
			for (int ox = 0; ox < y->shape.w; ox++)
				for (size_t t = 0; t < count; t++)
				{
					const double *at =
						ref_under(x, win, n, oy, ox, (int) t / win.kernel, (int) t % win.kernel);

					for (int i = 0; at && i < o; i++)
					{
						double dy = ref_operand(win, ref_at(y, n, oy, ox)[i]);

						if (!win.bf16)
							ref_add_scaled(taps + (t * o + i) * c, dy, at, c);
						for (int k = 0; win.bf16 && k < c; k++)
							taps[(t * o + i) * c + k] += dy * ref_operand(win, at[k]);
					}
				}
		}
	for (int i = 0; i < o; i++)
		for (int k = 0; k < c; k++)
			for (size_t t = 0; t < count; t++)
				w[((size_t) i * c + k) * count + t] += taps[(t * o + i) * c + k];
	free(taps);
	return NN_OK;
}

static void
set_bias(const NnMap *y, const double *bias)
{
	for (size_t i = 0; i < nn_map_count(y); i++)
		*ref_number(y, i) = bias ? bias[i % y->shape.c] : 0;
}

static void
add_bias_gradient(const NnMap *dy, double *dbias)
{
	for (size_t i = 0; i < nn_map_count(dy); i++)
		dbias[i % dy->shape.c] += *ref_number(dy, i);
}

/* ---- Convolution --------------------------------------------------------- */

static NnStatus
new_tensor(NnShape shape, NnMap *t, NnError *error)
{
	size_t count = (size_t) shape.n * shape.h * shape.w * shape.c;

	*t = (NnMap){ .shape = shape, .pitch = shape.c, .data = calloc(count, sizeof(double)) };
	return t->data ? NN_OK : nn_no_memory(error, count * sizeof(double));
}

/*
 * [x, act(z)] along the channels, z the same at each pixel: the literal
 * concatenation of the official code. The caller frees data.
 */
static NnStatus
concat_latent(const NnMap *x, const NnMap *z, NnActKind z_act, NnMap *xz, NnError *error)
{
	NnShape shape = x->shape;
	NnStatus status;

	shape.c += z->shape.c;
	status = new_tensor(shape, xz, error);
	if (status != NN_OK)
		return status;
	for (size_t i = 0; i < nn_map_pixels(x); i++)
	{
		double *out = ref_pixel(xz, i);
		const double *code = ref_pixel(z, i / ((size_t) x->shape.h * x->shape.w));

		for (int c = 0; c < x->shape.c; c++)
			out[c] = ref_pixel(x, i)[c];
		for (int c = 0; c < z->shape.c; c++)
			out[x->shape.c + c] = ref_act(z_act, code[c]);
	}
	return NN_OK;
}

static RefWindow
ref_window(const NnOperands *op)
{
	const NnNode *node = op->node;
	bool bf16 = op->training && op->training->plan.precision == NN_PRECISION_BF16;

	return nn_ops[node->op].filters ? (RefWindow){ op->device, node->conv.kernel, node->conv.stride,
												   node->conv.pad, bf16 }
									: (RefWindow){ op->device, 1, 1, 0, bf16 };
}

/* x (N,H,W,C), z (N,1,1,nz) or none, w (O,C+nz,K,K), b -> y (N,H',W',O) */
NnStatus
ref_conv(const NnOperands *op, NnError *error)
{
	NnMap xz = op->in[0];
	NnStatus status = NN_OK;

	if (op->in[1].data)
		status = concat_latent(&op->in[0], &op->in[1], op->node->conv.z_act, &xz, error);
	if (status != NN_OK)
		return status;
	set_bias(&op->out[0], op->bias.f64);
	status = add_output(&xz, op->weight.f64, ref_window(op), &op->out[0], error);
	if (op->in[1].data)
		free(xz.data);
	return status;
}

/* The gradient of [x, act(z)], taken apart. */
static void
split_latent(const NnOperands *op, const NnMap *dxz)
{
	int c = op->in[0].shape.c;

	for (size_t i = 0; i < nn_map_pixels(dxz); i++)
	{
		const double *d = ref_pixel(dxz, i);
		size_t n = i / ((size_t) dxz->shape.h * dxz->shape.w);

		for (int k = 0; op->din[0].data && k < c; k++)
			ref_pixel(&op->din[0], i)[k] += d[k];
		for (int k = c; op->in[1].data && op->din[1].data && k < dxz->shape.c; k++)
			ref_pixel(&op->din[1], n)[k - c] +=
				d[k] * ref_act_slope(op->node->conv.z_act, ref_pixel(&op->in[1], n)[k - c]);
	}
}

NnStatus
ref_conv_backward(const NnOperands *op, NnError *error)
{
	RefWindow win = ref_window(op);
	NnMap xz = op->in[0], dxz = { .data = NULL };
	NnStatus status = NN_OK;

	if (op->in[1].data)
		status = concat_latent(&op->in[0], &op->in[1], op->node->conv.z_act, &xz, error);
	if (status == NN_OK && op->dweight.data)
		status = add_weights(&xz, op->dweight.f64, win, &op->dout[0], error);
	if (op->dbias.data)
		add_bias_gradient(&op->dout[0], op->dbias.f64);
	if (status == NN_OK && (op->din[0].data || op->din[1].data))
	{
		status = new_tensor(xz.shape, &dxz, error);
		if (status == NN_OK)
			status = add_input(&dxz, op->weight.f64, win, &op->dout[0], error);
		if (status == NN_OK)
			split_latent(op, &dxz);
		free(dxz.data);
	}
	if (op->in[1].data && xz.data != op->in[0].data)
		free(xz.data);
	return status;
}

/* On one pixel: x (N, 1, 1, C), w (O, C), b (O) -> y (N, 1, 1, O) */
NnStatus
ref_linear(const NnOperands *op, NnError *error)
{
	return ref_conv(op, error);
}

NnStatus
ref_linear_backward(const NnOperands *op, NnError *error)
{
	return ref_conv_backward(op, error);
}

/* ---- Transposed convolution ---------------------------------------------- */

/*
 * The adjoint of a 4x4 convolution of stride 2 and padding 1: each x[n, iy, ix,
 * c] adds w[c, o, ky, kx] x to y[n, 2 iy + ky - 1, 2 ix + kx - 1, o]. x (N, H,
 * W, C), w (C, O, 4, 4), b (O) -> y (N, 2H, 2W, O)
 */
NnStatus
ref_convt(const NnOperands *op, NnError *error)
{
	set_bias(&op->out[0], op->bias.f64);
	return add_input(&op->out[0], op->weight.f64, ref_window(op), &op->in[0], error);
}

NnStatus
ref_convt_backward(const NnOperands *op, NnError *error)
{
	RefWindow win = ref_window(op);
	NnStatus status = NN_OK;

	if (op->dbias.data)
		add_bias_gradient(&op->dout[0], op->dbias.f64);
	if (op->dweight.data)
		status = add_weights(&op->dout[0], op->dweight.f64, win, &op->in[0], error);
	if (status == NN_OK && op->din[0].data)
		status = add_output(&op->dout[0], op->weight.f64, win, &op->din[0], error);
	return status;
}
