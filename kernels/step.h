/*
 * step.h
 *	  The CUDA kernels that a step of training has besides its operators': what
 *	  becomes of gradients, and what tells one iteration from the next. As
 *	  kernels.h says.
 *
 * R1 Launches of an iteration are captured and replayed, so arguments never
 *    change: what does is read from a KernelStep in the GPU's memory.
 * R2 A parameter's numbers lie as in a checkpoint: (O, I, R, S) of a
 *    convolution, I its map's channels and then its latent's.
 */
#ifndef BICYCLE_KERNELS_STEP_H
#define BICYCLE_KERNELS_STEP_H

#include "kernels.h"

#ifdef __cplusplus
extern "C"
{
#endif

	/* Of an iteration; 64 bytes. */
	typedef struct KernelStep
	{
		uint64_t seed; /* of dropout */
		int64_t iteration;
		/*
		 * m += first (g - m), v = second v + rest g^2, p -= step m / (sqrt(v)
		 * root + epsilon), average += ema (p - average)
		 */
		float first, second, rest, step, root, epsilon, ema;
		uint32_t unused[5];
	} KernelStep;

#define KERNEL_MAX_LOSSES 64

	/* What came of iterations. */
	typedef struct KernelVerdict
	{
		uint32_t diverged; /* a loss was not finite, in this one or an earlier one */
		uint32_t unused[3];
		float losses[KERNEL_MAX_LOSSES]; /* of the last one */
	} KernelVerdict;

	typedef struct KernelLosses
	{
		int n;
		bool add; /* to those of an earlier pass of the iteration */
		const float *losses[KERNEL_MAX_LOSSES];
		KernelVerdict *verdict;
	} KernelLosses;

	/* Collects the losses. step.cu */
	extern int kernel_judge(void *stream, const KernelLosses *losses);

	/* A convolution's filter, and the parameter that it is made of. */
	typedef struct KernelFilter
	{
		KernelMap map; /* (k, taps, pitch), 0 from channel c on; data NULL: there is none */
		int taps, c;
		int inputs; /* of the parameter: c, and a latent's */
	} KernelFilter;

	/* map = the parameter's, for k outputs. filter.cu */
	extern int kernel_order_filter(void *stream, const float *param, const KernelFilter *filter,
								   int k);

	/*
	 * gradient = or += map; what is not the map's channels is left alone.
	 * filter.cu
	 */
	extern int kernel_filter_gradient(void *stream, float *gradient, const KernelFilter *filter,
									  int k, bool add);

	typedef struct KernelParam
	{
		size_t first; /* number in the arrays */
		bool trained;
		bool running; /* a statistic: it becomes what its gradient is */
		KernelFilter filter;
	} KernelParam;

	/* A piece of a parameter, of whole filter taps. */
	typedef struct KernelPiece
	{
		int param;
		int count;
		size_t first; /* number in the parameter */
	} KernelPiece;

#define KERNEL_PIECE 1024 /* numbers of a piece at most */

	/*
	 * Adam, running statistics, the averages of the first `nema` numbers, and
	 * filters, of all pieces; nothing once an iteration has diverged. adam.cu
	 */
	typedef struct KernelUpdate
	{
		const KernelStep *step; /* NULL: filters only */
		const KernelVerdict *verdict;
		float *param, *m, *v, *ema;
		const float *gradient;
		size_t nema;
		const KernelParam *params;
		const KernelPiece *pieces;
		int npieces;
	} KernelUpdate;

	extern int kernel_update(void *stream, const KernelUpdate *update);

	/* to = base + share (from ratio - base); to may be base. step.cu */
	extern int kernel_follow(void *stream, float *to, const float *base, const float *from, int n,
							 float share, float ratio);

	/* map = 0. step.cu */
	extern int kernel_zero(void *stream, const KernelMap *map, size_t pixels, int c);

#ifdef __cplusplus
}
#endif

#endif /* BICYCLE_KERNELS_STEP_H */
