/*
 * cudnn.h
 *	  What only cuDNN's convolutions have, beyond conv.h: planning for a GPU
 *	  that is not there, and what was chosen. For tests and benchmarks.
 */
#ifndef BICYCLE_NN_CUDA_CUDNN_H
#define BICYCLE_NN_CUDA_CUDNN_H

#include "nn/cuda/conv_choice.h"

#include <cuda_runtime_api.h>

#define CUDNN_MAX_CLASSES 24 /* that are considered */

/* Opens cuDNN for a device described in JSON: convolutions cannot be run. */
extern NnStatus cuda_convs_describe(const char *json, CudaConvs **convs, NnError *error);

extern const CudaConvChoice *cuda_conv_choice(const CudaConv *conv);

/* What would be timed: the first of each class. Returns their number. */
extern int cuda_conv_candidates(CudaConvs *convs, const CudaConvShape *shape,
								CudaConvChoice choices[CUDNN_MAX_CLASSES]);

#endif /* BICYCLE_NN_CUDA_CUDNN_H */
