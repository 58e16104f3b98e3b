/*
 * module.h
 *	  What bicycle_cuda.so exports and device.c looks for: one symbol, this
 *	  structure.
 */
#ifndef BICYCLE_NN_CUDA_MODULE_H
#define BICYCLE_NN_CUDA_MODULE_H

#include "common/fault.h"
#include "nn/device.h"

#define NN_CUDA_MODULE "bicycle_cuda.so"
#define NN_CUDA_SYMBOL "bicycle_cuda_module"

/* Engine and module are built together: sizes tell one of another build. */
typedef struct NnCudaModule
{
	size_t sizes[4]; /* NnDevice, NnPlan, NnNode, NnValue */
	/* index: of the GPU */
	NnStatus (*open)(int index, int threads, NnDevice **device, NnError *error);
	int (*count)(void);  /* of the GPUs that CUDA sees */
	FaultState **faults; /* the program's, once it has said so */
} NnCudaModule;

#define NN_CUDA_SIZES                                                     \
	{                                                                     \
		sizeof(NnDevice), sizeof(NnPlan), sizeof(NnNode), sizeof(NnValue) \
	}

#endif /* BICYCLE_NN_CUDA_MODULE_H */
