/*
 * cpu_train_kernels.h
 *	  Vector kernels of training on the CPU: one table for each instruction set,
 *	  all compiled from cpu_train_kernels.inc.h.
 *
 * Some lay out operands of products (cpu_train_window.c), the others are the
 * norms'. Kernels allocate nothing and share nothing.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_KERNELS_H
#define BICYCLE_NN_CPU_TRAIN_KERNELS_H

#include "nn/cpu/kernel.h"
#include "nn/ops.h"

/* Most channels of a norm's piece; pixels summed in single precision. */
#define CPU_NORM_CHANNELS 64
#define CPU_NORM_PIXELS 64

/* Some channels of a run of pixels: pixel i begins at data + i * step. */
typedef struct CpuPixels
{
	float *data; /* NULL: there are none */
	ptrdiff_t step;
} CpuPixels;

/*
 * A norm of some channels: value = ((x - mean) * scale + shift) * mask, y[i] =
 * act[i](value). Arrays have a number a channel.
 */
typedef struct CpuNorm
{
	CpuPixels x, mask, /* of dropout; none: 1 */
		y[2], dy[2];   /* backward */
	NnActChain act[2];
	float mean[CPU_NORM_CHANNELS], inverse[CPU_NORM_CHANNELS], /* 1 / sqrt(var + eps) */
		scale[CPU_NORM_CHANNELS], shift[CPU_NORM_CHANNELS];
} CpuNorm;

typedef struct CpuTrainKernels
{
	/*
	 * k rows of n numbers (NULL: zeros) as rows of panels of a kernel's B,
	 * zero-filled, `panel` bytes from one to the next. k is a multiple of the
	 * kernel's pair.
	 */
	void (*pack_rows)(const float *const *rows, int k, int n, const CpuKernel *kernel, void *to,
					  size_t panel);

	/*
	 * Turns rows of n words of 32 bits round: to[i * to_step + j] is from[j *
	 * step + i]. halves: numbers of bfloat16, where row j's word i is that of
	 * rows 2 j and 2 j + 1, `step` numbers apart.
	 */
	void (*turn)(const void *from, ptrdiff_t step, bool halves, int rows, int n, void *to,
				 ptrdiff_t to_step);

	/* Mean and sum of squared deviations of n pixels; both begin as 0. */
	void (*norm_moments)(CpuPixels x, int n, int c, double *mean, double *m2);

	/* n pixels of c channels forward */
	void (*norm)(const CpuNorm *norm, int n, int c);

	/*
	 * With g the gradient of (x - mean) * scale + shift and xhat = (x - mean) *
	 * inverse: adds the sums of g and of g xhat.
	 */
	void (*norm_sums)(const CpuNorm *norm, int n, int c, double *sum, double *product);

	/* dx = (g - mean_g - xhat mean_product) * scale, or `add`ed to dx */
	void (*norm_gradient)(const CpuNorm *norm, int n, int c, const float *mean_g,
						  const float *mean_product, CpuPixels dx, bool add);
} CpuTrainKernels;

#endif /* BICYCLE_NN_CPU_TRAIN_KERNELS_H */
