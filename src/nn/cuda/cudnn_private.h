/*
 * cudnn_private.h
 *	  What the files of cuDNN's convolutions share: descriptors (cudnn_desc.c),
 *	  running a plan (cudnn_run.c), the choice of an engine (cudnn_choose.c),
 *	  plans on disk (cudnn_keep.c).
 */
#ifndef BICYCLE_NN_CUDA_CUDNN_PRIVATE_H
#define BICYCLE_NN_CUDA_CUDNN_PRIVATE_H

#include "nn/cuda/cudnn.h"
#include "nn/cuda/cudnn_library.h"

#define CUDNN_MAX_WORKSPACE ((int64_t) CUDA_MAX_WORKSPACE)
#define CUDNN_MAX_CONFIGS 64 /* of a heuristic */
#define CUDNN_MAX_DESCS (CUDNN_MAX_CONFIGS * 3 + 32)
#define CUDNN_MAX_KNOBS 32
#define CUDNN_MAX_TEXT 65536

struct CudaConvs
{
	CudnnLibrary lib;
	cudnnHandle_t handle; /* NULL: without a GPU */
	cudaStream_t stream;
	cudnnBackendDescriptor_t device; /* description of one that is not there; NULL with a GPU */
	char device_name[256];           /* and its driver's version */
	char name[32];
	int tune; /* most engines to time; 0: none */
	int pin;  /* batch size whose engine all others use; 0: each its own */
};

/* An engine and how it is set, without the problem it is for. */
typedef struct CudnnRecipe
{
	int64_t engine; /* below 0: cuDNN does not say */
	int nknobs;
	cudnnBackendKnobType_t knobs[CUDNN_MAX_KNOBS];
	int64_t values[CUDNN_MAX_KNOBS];
} CudnnRecipe;

struct CudaConv
{
	CudaConvs *convs;
	CudaConvShape shape;
	cudnnBackendDescriptor_t plan;
	int64_t most_workspace;
	CudaConvChoice choice;
	CudnnRecipe recipe;
	bool failed[2][CUDNN_MAX_CONFIGS]; /* of each heuristic: not to be chosen */
};

static inline bool
cudnn_is_memory(cudnnStatus_t status)
{
	return status == CUDNN_STATUS_ALLOC_FAILED ||
		   status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}

/* ---- Descriptors (cudnn_desc.c) ------------------------------------------ */

/*
 * The descriptors of one problem, and the first error in making them: after it
 * the functions do nothing, so that graphs read as the lists they are.
 */
typedef struct CudnnDescs
{
	const CudaConvs *convs;
	cudnnBackendDescriptor_t list[CUDNN_MAX_DESCS];
	int n;
	cudnnStatus_t status;
} CudnnDescs;

extern cudnnBackendDescriptor_t cudnn_make(CudnnDescs *d, cudnnBackendDescriptorType_t type);
extern void cudnn_set(CudnnDescs *d, cudnnBackendDescriptor_t desc,
					  cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
					  int64_t count, const void *values);
extern void cudnn_set_desc(CudnnDescs *d, cudnnBackendDescriptor_t desc,
						   cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
extern void cudnn_set_ints(CudnnDescs *d, cudnnBackendDescriptor_t desc,
						   cudnnBackendAttributeName_t name, int count, const int64_t *values);
extern cudnnBackendDescriptor_t cudnn_finalize(CudnnDescs *d, cudnnBackendDescriptor_t desc);
extern void cudnn_drop_all(CudnnDescs *d);

/* Takes a descriptor off the list, to outlive it; it is the last one made. */
extern cudnnBackendDescriptor_t cudnn_keep_last(CudnnDescs *d);

/* Names of tensors in graphs and at execution. */
enum
{
	CUDNN_UID_X = 'x',
	CUDNN_UID_FILTER = 'w',
	CUDNN_UID_Y = 'y'
};

extern cudnnBackendDescriptor_t cudnn_operation_graph(CudnnDescs *d, const CudaConvShape *s);
extern const char *cudnn_kind_name(CudaConvKind kind);

/* What a plan is for: the GPU of our handle, or the described one. */
extern void cudnn_set_target(CudnnDescs *d, cudnnBackendDescriptor_t plan);

/* ---- Errors (cudnn_run.c) ------------------------------------------------ */

/* what: "run a convolution", for the message. */
extern NnStatus cudnn_fail(const CudaConvs *convs, NnError *error, cudnnStatus_t status,
						   const char *what);

/* ---- Choice (cudnn_choose.c) --------------------------------------------- */

/*
 * Fills conv->plan, for its shape and within its workspace, by an engine that
 * has not failed; nothing if there is none. Returns the last error met.
 */
extern cudnnStatus_t cudnn_choose(CudaConv *conv);

/* Whether engines of a problem are timed, and the choice is kept. */
extern bool cudnn_is_tuned(const CudaConvs *convs, const CudaConvShape *s);

/* The batch size whose engine a problem uses; 0: its own. */
extern int cudnn_pinned_to(const CudaConvs *convs, const CudaConvShape *s);

/* ---- Plans on disk (cudnn_keep.c) ---------------------------------------- */

/* Fills conv->plan by what is kept for its shape; false if nothing sound is. */
extern bool cudnn_read_plan(CudaConv *conv);
/* For the next start; that it could not be kept is no error. */
extern void cudnn_write_plan(const CudaConv *conv);
extern uint64_t cudnn_hash_text(const char *text);

#endif /* BICYCLE_NN_CUDA_CUDNN_PRIVATE_H */
