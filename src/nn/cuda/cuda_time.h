/*
 * cuda_time.h
 *	  Times of convolutions and copies on the GPU.
 *
 * Milliseconds, the least of some runs on the stream, which is waited for; what
 * fits in the GPU's cache is found there. CUDA_TIME_NEVER if it cannot be run,
 * for want of memory for instance.
 */
#ifndef BICYCLE_NN_CUDA_TIME_H
#define BICYCLE_NN_CUDA_TIME_H

#include "nn/cuda/conv.h"

#define CUDA_TIME_NEVER 1e30f

extern float cuda_time_conv(void *stream, CudaConvs *convs, const CudaConv *conv,
							const CudaConvShape *shape); /* stream: the one of convs */
extern float
cuda_time_copy(void *stream,
			   size_t bytes); /* within the GPU's memory, out of any cache if bytes are many */

#endif /* BICYCLE_NN_CUDA_TIME_H */
