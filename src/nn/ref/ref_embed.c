/*
 * ref_embed.c
 *	  The operators that make of an image what it is compared by.
 *
 * Source: richzhang/PerceptualSimilarity, lpips/lpips.py and __init__.py.
 */
#include "common/constants.h"
#include "nn/ref/ref.h"

#include <math.h>

/* x (N, H, W, C) -> y of the same shape: (x - shift) / scale */
NnStatus
ref_scale(const NnOperands *op, NnError *error)
{
	const NnScaleArgs *a = &op->node->scale;
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
					ref_at(y, n, oy, ox)[c] = (ref_at(x, n, oy, ox)[c] - a->shift[c]) / a->scale[c];
	return NN_OK;
}

/* What a pixel's channels are divided by. */
static double
length_of(const double *pixel, int c)
{
	double sum = 0;

	for (int i = 0; i < c; i++)
		sum += pixel[i] * pixel[i];
	return sqrt(sum) + UNIT_EPSILON;
}

/* x (N, H, W, C), w (1, C, 1, 1) -> y (N, 1, 1, H W C) */
NnStatus
ref_embed(const NnOperands *op, NnError *error)
{
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];
	int pixels = x->shape.h * x->shape.w, c = x->shape.c;

	for (int n = 0; n < x->shape.n; n++)
		for (int p = 0; p < pixels; p++)
		{
			const double *from = ref_pixel(x, (size_t) n * pixels + p);
			double *to = ref_at(y, n, 0, 0) + (size_t) p * c;
			double length = length_of(from, c);

			for (int i = 0; i < c; i++)
				to[i] = sqrt(op->weight.f64[i] / pixels) * from[i] / length;
		}
	return NN_OK;
}

/* x (N, H, W, C) -> y (N, 1, 1, C) */
NnStatus
ref_means(const NnOperands *op, NnError *error)
{
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];
	int pixels = x->shape.h * x->shape.w, c = x->shape.c;

	for (int n = 0; n < x->shape.n; n++)
		for (int i = 0; i < c; i++)
		{
			double sum = 0;

			for (int p = 0; p < pixels; p++)
				sum += ref_pixel(x, (size_t) n * pixels + p)[i];
			ref_at(y, n, 0, 0)[i] = sum / pixels;
		}
	return NN_OK;
}
