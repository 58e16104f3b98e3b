/*
 * cuda_shape.h
 *	  What the device makes of a graph, from shapes alone.
 */
#ifndef BICYCLE_NN_CUDA_SHAPE_H
#define BICYCLE_NN_CUDA_SHAPE_H

#include "nn/cuda/conv.h"
#include "nn/device.h"
#include "nn/schedule.h"

#include "pack.h"
#include "train_ops.h"

/*
 * Images of a plan that a model makes, at most: a larger one gains little, and
 * copies of one go on beside kernels of another.
 */
#define CUDA_MOST_IMAGES 16

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

static inline int
cuda_padded(int channels)
{
	return (channels + KERNEL_VECTOR - 1) / KERNEL_VECTOR * KERNEL_VECTOR;
}

/*
 * Transposed convolutions 4 x 4 of stride 2 are computed as plain ones 2 x 2
 * of stride 1, of the same products: each pixel (Y, X) of the (h + 1) x (w + 1)
 * that these have holds four of the result, (2Y - 1 + a, 2X - 1 + b) for a and
 * b of 0 and 1, with the channels of each together: a quad. At the border some
 * of the four are outside, and are not used.
 */
extern int cuda_quad(const NnNode *node, int channels); /* of one of the four; 0: no quads */

/* The convolution that is run for a node. */
extern void cuda_conv_shape(const NnPlan *plan, const NnNode *node, CudaConvShape *shape);

/*
 * In training, where nothing is made otherwise: the convolution of a node and
 * kind. Equal ones are so byte by byte.
 */
extern void cuda_train_shape(const NnPlan *plan, const NnNode *node, CudaConvKind kind,
							 CudaConvShape *shape);

/* The kinds that a step of a convolution wants, at most two; their number. */
extern int cuda_train_kinds(const NnGraph *g, const NnStep *step, CudaConvKind kinds[2]);

/* A node's value with windows, which has C channels, and the other, with K. */
typedef struct CudaSides
{
	NnShape windows, other;
} CudaSides;

extern CudaSides cuda_conv_sides(const NnPlan *plan, const NnNode *node);

/*
 * Whether the device's own kernel runs it, which reads weights and does nothing
 * else well (kernel_stream_conv). By shapes alone.
 */
extern bool cuda_is_streamed(const CudaConvShape *shape, int quad);

/*
 * How many images of the plan a convolution, and what follows it, are done for
 * at a time, by the bytes of the GPU's second-level cache: of a large map so
 * many that the result is still there when it is finished. Not of one that is
 * normed: by the model of test_cuda_cost.c a norm is no faster there.
 */
extern int cuda_part_images(const NnPlan *plan, int node, size_t cache);

/* How a layer's filter lies on the GPU, and what it is made of. */
extern KernelRows cuda_filter(const NnNode *node, int in, int out, int nz);

/* A pool from the larger side, in, to the smaller, or back; without maps. */
extern KernelPool cuda_pool(const NnNode *node, NnShape in, NnShape out);

/*
 * Of a convolution with a latent: shapes, borders, and where its weights lie in
 * the parameter, from cuda_latent_first() numbers on.
 */
extern NnStatus cuda_latent(const NnNode *node, NnShape in, NnShape out, int nz,
							KernelLatent *latent, NnError *error);
extern size_t cuda_latent_first(const NnNode *node, NnShape in);
/* Numbers of the code that a convolution has; 0: none. */
extern int cuda_latent_codes(const NnGraph *graph, const NnNode *node);

#endif /* BICYCLE_NN_CUDA_SHAPE_H */
