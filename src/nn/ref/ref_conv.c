/*
 * ref_conv.c
 *	  Convolution, transposed convolution and linear layers, as their definitions say.
 */
#include "nn/ref/ref.h"

#include <stdlib.h>

/*
 * y[n, oy, ox, o] = b[o] + sum over c, ky, kx of w[o, c, ky, kx] x[n, oy s + ky - p, ox s + kx - p, c], x being 0 outside.
 */
static void
convolve(const RefTensor *x, const double *w, const double *b, int kernel, int stride, int pad, RefTensor *y)
{
	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int o = 0; o < y->shape.c; o++)
				{
					const double *wo = w + (size_t) o * x->shape.c * kernel * kernel;
					double		sum = b ? b[o] : 0;

					for (int ky = 0; ky < kernel; ky++)
						for (int kx = 0; kx < kernel; kx++)
						{
							int			iy = oy * stride + ky - pad,
										ix = ox * stride + kx - pad;
							const double *at;

							if (iy < 0 || iy >= x->shape.h || ix < 0 || ix >= x->shape.w)
								continue;
							at = ref_at(x, n, iy, ix);
							for (int c = 0; c < x->shape.c; c++)
								sum += wo[(c * kernel + ky) * kernel + kx] * at[c];
						}
					ref_at(y, n, oy, ox)[o] = sum;
				}
}

/* [x, act(z)] along the channels, z the same at each pixel: the literal concatenation of the official code.  The caller frees data. */
static NnStatus
concat_latent(const RefTensor *x, const RefTensor *z, NnActKind z_act, RefTensor *xz, NnError *error)
{
	size_t		bytes;

	xz->shape = x->shape;
	xz->shape.c += z->shape.c;
	xz->pitch = xz->shape.c;
	bytes = (size_t) xz->shape.n * xz->shape.h * xz->shape.w * xz->shape.c * sizeof(double);
	xz->data = malloc(bytes);
	if (!xz->data)
		return nn_no_memory(error, bytes);
	for (int n = 0; n < x->shape.n; n++)
		for (int y = 0; y < x->shape.h; y++)
			for (int i = 0; i < x->shape.w; i++)
			{
				double	   *out = ref_at(xz, n, y, i);

				for (int c = 0; c < x->shape.c; c++)
					out[c] = ref_at(x, n, y, i)[c];
				for (int c = 0; c < z->shape.c; c++)
					out[x->shape.c + c] = ref_act(z_act, ref_at(z, n, 0, 0)[c]);
			}
	return NN_OK;
}

/* x (N, H, W, C), z (N, 1, 1, nz) or none, w (O, C + nz, K, K), b (O) -> y (N, H', W', O) */
NnStatus
ref_conv(const RefOperands *op, NnError *error)
{
	const NnNode *node = op->node;
	RefTensor	xz = *op->in[0];

	if (op->in[1])
	{
		NnStatus	status = concat_latent(op->in[0], op->in[1], node->z_act, &xz, error);

		if (status != NN_OK)
			return status;
	}
	convolve(&xz, op->weight, op->bias, node->kernel, node->stride, node->pad, op->out[0]);
	if (op->in[1])
		free(xz.data);
	return NN_OK;
}

/*
 * The adjoint of a 4x4 convolution of stride 2 and padding 1: each x[n, iy, ix, c] adds w[c, o, ky, kx] x to y[n, 2 iy + ky - 1, 2 ix + kx - 1, o].
 * x (N, H, W, C), w (C, O, 4, 4), b (O) -> y (N, 2H, 2W, O)
 */
NnStatus
ref_convt(const RefOperands *op, NnError *error)
{
	const RefTensor *x = op->in[0];
	RefTensor  *y = op->out[0];
	int			kernel = op->node->kernel;

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int o = 0; o < y->shape.c; o++)
					ref_at(y, n, oy, ox)[o] = op->bias ? op->bias[o] : 0;

	for (int n = 0; n < x->shape.n; n++)
		for (int iy = 0; iy < x->shape.h; iy++)
			for (int ix = 0; ix < x->shape.w; ix++)
				for (int c = 0; c < x->shape.c; c++)
				{
					double		value = ref_at(x, n, iy, ix)[c];

					for (int o = 0; o < y->shape.c; o++)
						for (int ky = 0; ky < kernel; ky++)
							for (int kx = 0; kx < kernel; kx++)
							{
								int			oy = iy * op->node->stride + ky - op->node->pad,
											ox = ix * op->node->stride + kx - op->node->pad;

								if (oy >= 0 && oy < y->shape.h && ox >= 0 && ox < y->shape.w)
									ref_at(y, n, oy, ox)[o] += value * op->weight[(((size_t) c * y->shape.c + o) * kernel + ky) * kernel + kx];
							}
				}
	return NN_OK;
}

/* x (N, 1, 1, C), w (O, C), b (O) -> y (N, 1, 1, O) */
NnStatus
ref_linear(const RefOperands *op, NnError *error)
{
	convolve(op->in[0], op->weight, op->bias, 1, 1, 0, op->out[0]);
	return NN_OK;
}
