/*
 * cudnn.h
 *	  What only cuDNN's convolutions have, beyond conv.h: planning for a GPU
 *	  that is not there, and what was chosen. For tests and benchmarks.
 */
#ifndef BICYCLE_NN_CUDA_CUDNN_H
#define BICYCLE_NN_CUDA_CUDNN_H

#include "nn/cuda/conv.h"

#include <cuda_runtime_api.h>

typedef struct CudaConvChoice
{
	bool kept;      /* read from disk; then the others say nothing */
	int64_t engine; /* cuDNN's number */
	bool tensor_cores;
	bool fallback; /* not of heuristic A */
	int place;     /* in its list */
	bool pinned;   /* it is that of another batch size */
} CudaConvChoice;

/* Opens cuDNN for a device described in JSON: convolutions cannot be run. */
extern NnStatus cuda_convs_describe(const char *json, CudaConvs **convs, NnError *error);

extern const CudaConvChoice *cuda_conv_choice(const CudaConv *conv);

#endif /* BICYCLE_NN_CUDA_CUDNN_H */
