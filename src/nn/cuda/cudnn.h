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
	bool kept;           /* read from disk; then the others say nothing */
	int64_t engine;      /* cuDNN's number */
	int64_t tile, split; /* of its knobs; each engine has its own numbers */
	bool tensor_cores;
	bool fallback; /* not of heuristic A */
	int place;     /* in its list */
	bool pinned;   /* it is that of another batch size */
	bool unsound;  /* in place of one that could not be run */
	float ms;      /* 0: not timed */
} CudaConvChoice;

#define CUDNN_MAX_CLASSES 24 /* that are considered */

/* Opens cuDNN for a device described in JSON: convolutions cannot be run. */
extern NnStatus cuda_convs_describe(const char *json, CudaConvs **convs, NnError *error);

extern const CudaConvChoice *cuda_conv_choice(const CudaConv *conv);

/*
 * Whether many weights are read by so few blocks, which do not share the sums,
 * that most of a large card looks on.
 */
extern bool cuda_conv_starves(const CudaConvShape *shape, const CudaConvChoice *choice);

/* What would be timed: the first of each class. Returns their number. */
extern int cuda_conv_candidates(CudaConvs *convs, const CudaConvShape *shape,
								CudaConvChoice choices[CUDNN_MAX_CLASSES]);

#endif /* BICYCLE_NN_CUDA_CUDNN_H */
