/*
 * cuda_shape.h
 *	  What the device makes of a graph, from shapes alone.
 */
#ifndef BICYCLE_NN_CUDA_SHAPE_H
#define BICYCLE_NN_CUDA_SHAPE_H

#include "nn/cuda/conv.h"
#include "nn/device.h"

/* Of activations and of convolutions' weights. */
extern KernelType cuda_type(NnPrecision precision);
extern NnShape cuda_shape(const NnPlan *plan, int value);
/* The node that a step begun at `node` ends with. */
extern int cuda_step_end(const NnGraph *graph, int node);

/*
 * What the step begun at a node must do at least in its precision: arithmetic
 * of the convolution as it is computed, that is over the channels of the map
 * and without the latent's, whose share is a handful of additions; bytes of its
 * weights, of what it reads and what it writes, each once and unpadded, as if
 * what lies between a convolution and its norm never left the cache.
 */
typedef struct CudaCost
{
	double flop;                   /* a multiply-add is two */
	double weights, reads, writes; /* bytes */
} CudaCost;

extern void cuda_step_cost(const NnPlan *plan, int node, CudaCost *cost);
extern void cuda_conv_shape(const NnPlan *plan, const NnNode *node, CudaConvShape *shape);

static inline int
cuda_padded(int channels)
{
	return (channels + KERNEL_VECTOR - 1) / KERNEL_VECTOR * KERNEL_VECTOR;
}

#endif /* BICYCLE_NN_CUDA_SHAPE_H */
