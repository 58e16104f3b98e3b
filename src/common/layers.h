/*
 * layers.h
 *	  Activations, and what resampling reads, for CUDA's kernels as for the CPU.
 */
#ifndef BICYCLE_LAYERS_H
#define BICYCLE_LAYERS_H

#include "common/constants.h"

#include <math.h>

typedef enum NnActKind
{
	NN_ACT_NONE,
	NN_ACT_RELU,
	NN_ACT_LRELU, /* slope 0.2 */
	NN_ACT_ELU,   /* alpha 1 */
	NN_ACT_TANH
} NnActKind;

/* second(first(x)): with where_add = input the skip is lrelu(x), then nl. */
typedef struct NnActChain
{
	NnActKind first;
	NnActKind second;
} NnActChain;

#ifdef __CUDACC__
#define LAYER_FUNCTION static __device__ __forceinline__
#else
#define LAYER_FUNCTION static inline
#endif

/* Of one number; for many, cpu_kernels.h's. */
LAYER_FUNCTION float
nn_act(NnActKind kind, float x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			return x > 0.0f ? x : 0.0f;
		case NN_ACT_LRELU:
			return x > 0.0f ? x : (float) LRELU_SLOPE * x;
		case NN_ACT_ELU:
			return x > 0.0f ? x : expm1f(x);
		case NN_ACT_TANH:
			return tanhf(x);
	}
	return x;
}

/*
 * Along an axis of n pixels made 2 n + 2 pad: the two that position i blends,
 * and the share of the second. Half-pixel centres; the border is reflected.
 */
LAYER_FUNCTION float
nn_upsample_axis(int i, int pad, int n, int at[2])
{
	float place;

	i -= pad;
	i = i < 0 ? -i : i < 2 * n ? i : 2 * (2 * n - 1) - i;
	place = i == 0 ? 0.0f : 0.5f * (float) i - 0.25f;
	at[0] = (int) place;
	at[1] = at[0] + 1 < n ? at[0] + 1 : at[0];
	return place - (float) at[0];
}

/* Of n pixels, those that window i has: [*first, *end). */
LAYER_FUNCTION void
nn_pool_axis(int i, int kernel, int stride, int pad, int n, int *first, int *end)
{
	int start = i * stride - pad;

	*first = start > 0 ? start : 0;
	*end = start + kernel < n ? start + kernel : n;
}

#endif /* BICYCLE_LAYERS_H */
