/*
 * ref_pairs.c
 *	  The operators that compare two images: they come as one image above the
 *	  other, and are images 2i and 2i + 1 from then on.
 *
 * Source: richzhang/PerceptualSimilarity, lpips/lpips.py and __init__.py.
 */
#include "common/constants.h"
#include "nn/ref/ref.h"

#include <math.h>

/* x (N, 2H, W, C) -> y (2N, H, W, C): (x - shift) / scale */
NnStatus
ref_halves(const NnOperands *op, NnError *error)
{
	const NnHalvesArgs *a = &op->node->halves;
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];

	for (int n = 0; n < y->shape.n; n++)
		for (int oy = 0; oy < y->shape.h; oy++)
			for (int ox = 0; ox < y->shape.w; ox++)
				for (int c = 0; c < y->shape.c; c++)
					ref_at(y, n, oy, ox)[c] =
						(ref_at(x, n / 2, n % 2 * y->shape.h + oy, ox)[c] - a->shift[c]) /
						a->scale[c];
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

/* x (2N, H, W, C), w (1, C, 1, 1) -> y (N, 1, 1, 1) */
NnStatus
ref_distance(const NnOperands *op, NnError *error)
{
	const NnMap *x = &op->in[0];
	const NnMap *y = &op->out[0];
	int pixels = x->shape.h * x->shape.w, c = x->shape.c;

	for (int n = 0; n < y->shape.n; n++)
	{
		double sum = 0;

		for (int p = 0; p < pixels; p++)
		{
			const double *a = ref_pixel(x, (size_t) 2 * n * pixels + p),
						 *b = ref_pixel(x, (size_t) (2 * n + 1) * pixels + p);
			double la = length_of(a, c), lb = length_of(b, c);

			for (int i = 0; i < c; i++)
				sum += op->weight.f64[i] * pow(a[i] / la - b[i] / lb, 2);
		}
		*ref_at(y, n, 0, 0) = sum / pixels;
	}
	return NN_OK;
}

/* x (2N, H, W, C) -> y (N, 1, 1, 2C) */
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
			ref_at(y, n / 2, 0, 0)[n % 2 * c + i] = sum / pixels;
		}
	return NN_OK;
}
