/*
 * pack.h
 *	  The CUDA kernels that make what inference reads of a network's parameters,
 *	  which lie in the GPU's memory as in a checkpoint. As kernels.h says.
 */
#ifndef BICYCLE_KERNELS_PACK_H
#define BICYCLE_KERNELS_PACK_H

#include "kernels.h"

#ifdef __CUDACC__
#define KERNEL_EVERYWHERE static inline __host__ __device__
#else
#define KERNEL_EVERYWHERE static inline __attribute__((unused))
#endif

#ifdef __cplusplus
extern "C"
{
#endif

	/*
	 * How a filter lies: (k, kernel, kernel, c), channels padded to vectors.
	 * Row (o, tap) has the parameter's weights from `base` on, `step` floats
	 * apart; a base below 0: none, it is padding.
	 */
	typedef struct KernelRows
	{
		int quad;         /* cuda_shape.h */
		int k, kernel, c; /* c without padding */
		int outer;        /* rows of k that are no padding; of no meaning with quads */
		int inner;        /* second extent of the parameter */
	} KernelRows;

	/*
	 * The parameter has (O, I, R, S) of a convolution with I >= c, or (K, C, R,
	 * S) of a transposed one, which are the same order: a transposed
	 * convolution is the data gradient of one from its outputs to its inputs.
	 * With quads the row of class (a, b), output o and tap (y, x), which sees
	 * the input's pixel (Y - 1 + y, X - 1 + x), has the weights that take it to
	 * (2Y - 1 + a, 2X - 1 + b).
	 */
	KERNEL_EVERYWHERE int64_t kernel_filter_row(const KernelRows *f, int o, int tap, int64_t *step)
	{
		int taps = f->kernel * f->kernel, a, b, y, x;

		if (f->quad == 0)
		{
			*step = taps;
			return o < f->outer ? (int64_t) o * f->inner * taps + tap : -1;
		}
		a = o / f->quad / 2;
		b = o / f->quad % 2;
		y = a + 2 - 2 * (tap / 2);
		x = b + 2 - 2 * (tap % 2);
		*step = (int64_t) f->inner * 16;
		return o % f->quad < f->inner ? (int64_t) (o % f->quad) * 16 + y * 4 + x : -1;
	}

	/* to = the filter, of a type and dense. pack.cu */
	extern int kernel_pack_filter(void *stream, const KernelRows *rows, const float *param,
								  void *to, KernelType type);

	/*
	 * What follows a convolution, a channel. With var: scale = gamma / sqrt(var
	 * + 1e-5), shift = (bias - mean) scale + beta; else scale = gamma and shift
	 * = beta, or shift = bias. What is NULL is 0, or is not there. pack.cu
	 */
	typedef struct KernelAffine
	{
		int c;
		const float *bias, *gamma, *beta, *mean, *var;
		float *scale, *shift;
	} KernelAffine;

	extern int kernel_pack_affine(void *stream, const KernelAffine *affine);

	/* *bad = 1 if one of n > 0 numbers is not finite. pack.cu */
	extern int kernel_find_bad(void *stream, const float *numbers, size_t n, uint32_t *bad);

#ifdef __cplusplus
}
#endif

#endif /* BICYCLE_KERNELS_PACK_H */
