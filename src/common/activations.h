/*
 * activations.h
 *	  The activations of the networks, for CUDA's kernels as for the rest.
 */
#ifndef BICYCLE_ACTIVATIONS_H
#define BICYCLE_ACTIVATIONS_H

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
#define ACTIVATION static __device__ __forceinline__
#else
#define ACTIVATION static inline
#endif

/* Of one number; for many, cpu_kernels.h's. */
ACTIVATION float
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

#endif /* BICYCLE_ACTIVATIONS_H */
