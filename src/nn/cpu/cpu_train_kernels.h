/*
 * cpu_train_kernels.h
 *	  Vector kernels of training on the CPU: one table for each instruction set,
 *	  all compiled from cpu_train_kernels.inc.h.
 *
 * Most belong to the products of cpu_train_product.c: they lay out parts of two
 * matrices and multiply them. Kernels allocate nothing and share nothing.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_KERNELS_H
#define BICYCLE_NN_CPU_TRAIN_KERNELS_H

#include "nn/ops.h"

/* Most rows of a block that multiply() takes, of any instruction set. */
#define CPU_MAX_ROWS 12

/*
 * Where a block of a product goes: `columns` floats from row[i] + first on.
 * They are added to what is there, or to the bias, or stored.
 */
typedef struct CpuTarget
{
	float *const *row;
	int rows, first, columns;
	const float *bias; /* of all columns; may be NULL */
	bool add;          /* and the bias does not count */
} CpuTarget;

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
	 * What precision auto means: what is faster. VDPBF16PS, which multiplies
	 * bf16 with AVX512-BF16, does half as many products a second as fp32 does
	 * on Intel's processors: there an iteration takes 1.6 to 1.9 times as long
	 * in bf16 (Emerald Rapids). On AMD's (from Zen 4) it was not measured.
	 */
	NnPrecision automatic;
	int lanes; /* floats of a vector */
	int rows;  /* rows of a block of multiply() */
	int panel; /* columns of one */

	/*
	 * The product of `rows` rows of A and a panel of B, over k. A lies as [k /
	 * lanes][row][lane] with as many rows as there are, k rounded up to lanes;
	 * or, if `turned`, as [k][row], always with all rows of a block. B lies as
	 * [k][column of the panel]. Each sum runs over k in order, in one chain of
	 * multiply-adds, so it depends neither on where its row and column lie nor
	 * on how many there are.
	 */
	void (*multiply)(int k, const float *a, const float *b, bool turned, const CpuTarget *target);

	/*
	 * The same in bfloat16, products summed in single precision. k is even;
	 * numbers lie as above but in pairs of neighbours in k: [k / 2][row or
	 * column][2] in B and a turned A.
	 */
	void (*multiply_bf16)(int k, const uint16_t *a, const uint16_t *b, bool turned,
						  const CpuTarget *target);

	/*
	 * Rounds to bfloat16, to nearest, ties to even: n numbers as they lie; and
	 * k (even) rows of `width` numbers in pairs.
	 */
	void (*narrow)(const float *from, size_t n, uint16_t *to);
	void (*narrow_pairs)(const float *from, int k, int width, uint16_t *to);

	/*
	 * Channels [0, c) of some pixels (NULL: zeros) as rows of A, [c /
	 * lanes][row][lane], zero-filled to lanes.
	 */
	void (*pack_pixels)(const float *const *pixels, int rows, int c, float *a);

	/* A block's rows of channels of pixels (NULL: 0): [pixel][row], turned. */
	void (*pack_turned)(const float *const *pixels, int npixels, int channel, float *a);

	/*
	 * k rows of n numbers, `step` apart, as rows of a panel of B, zero-filled;
	 * and n rows of k numbers the other way round.
	 */
	void (*pack_panel)(const float *from, size_t step, int k, int n, float *b);
	void (*pack_panel_across)(const float *from, size_t step, int k, int n, float *b);

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
