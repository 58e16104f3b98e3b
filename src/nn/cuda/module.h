/*
 * module.h
 *	  What bicycle_cuda.so exports and device.c looks for: one symbol, this
 *	  structure.
 */
#ifndef BICYCLE_NN_CUDA_MODULE_H
#define BICYCLE_NN_CUDA_MODULE_H

#include "common/fault.h"
#include "common/version.h"
#include "nn/device.h"

#define NN_CUDA_MODULE "bicycle_cuda.so"
#define NN_CUDA_SYMBOL "bicycle_cuda_module"

/*
 * Engine and module are built together: sizes and version tell one of another
 * build, such as an installation that was built without CUDA has left. Sizes
 * come first in every build; where this structure has another one, nothing
 * behind them is read.
 */
typedef struct NnCudaModule
{
	size_t sizes[5]; /* NnDevice, NnPlan, NnNode, NnValue, NnCudaModule */
	char version[16];
	/* index: of the GPU */
	NnStatus (*open)(int index, int threads, NnDevice **device, NnError *error);
	int (*count)(void);  /* of the GPUs that CUDA sees */
	void (*leave)(void); /* what nn_gpu_leave says */
	FaultState **faults; /* the program's, once it has said so */
} NnCudaModule;

#define NN_CUDA_SIZES                                                                           \
	{                                                                                           \
		sizeof(NnDevice), sizeof(NnPlan), sizeof(NnNode), sizeof(NnValue), sizeof(NnCudaModule) \
	}

/* Whether it was built together with this program (device.c). */
extern bool nn_cuda_module_fits(const NnCudaModule *module);

#endif /* BICYCLE_NN_CUDA_MODULE_H */
