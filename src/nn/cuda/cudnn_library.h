/*
 * cudnn_library.h
 *	  cuDNN's functions, looked up in the library that is there.
 */
#ifndef BICYCLE_NN_CUDNN_LIBRARY_H
#define BICYCLE_NN_CUDNN_LIBRARY_H

#include "nn/nn.h"

#include <cudnn.h>

typedef struct CudnnLibrary
{
	size_t (*version)(void);
	cudnnStatus_t (*create)(cudnnHandle_t *);
	cudnnStatus_t (*destroy)(cudnnHandle_t);
	cudnnStatus_t (*set_stream)(cudnnHandle_t, cudaStream_t);
	void (*last_error)(char *, size_t);
	cudnnStatus_t (*make)(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t *);
	cudnnStatus_t (*drop)(cudnnBackendDescriptor_t);
	cudnnStatus_t (*finalize)(cudnnBackendDescriptor_t);
	cudnnStatus_t (*set)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
						 cudnnBackendAttributeType_t, int64_t, const void *);
	cudnnStatus_t (*get)(const cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
						 cudnnBackendAttributeType_t, int64_t, int64_t *, void *);
	cudnnStatus_t (*execute)(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t);
} CudnnLibrary;

/* Opens cuDNN for good. NN_EUNSUPPORTED says what is missing. Any thread. */
extern NnStatus cudnn_load(CudnnLibrary *lib, NnError *error);

#endif /* BICYCLE_NN_CUDNN_LIBRARY_H */
