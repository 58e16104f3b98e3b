/*
 * cuda_time.h
 *	  Times of convolutions on the GPU: for choosing among engines (cudnn.c),
 *	  and for who measures.
 *
 * Milliseconds, the least of some runs on the stream, which is waited for; what
 * fits in the GPU's cache is found there. CUDA_TIME_NEVER if it cannot be run,
 * for want of memory for instance.
 */
#ifndef BICYCLE_NN_CUDA_TIME_H
#define BICYCLE_NN_CUDA_TIME_H

#include "nn/cuda/conv.h"

#define CUDA_TIME_NEVER 1e30f

/* Queues one run on the stream; false if it cannot. */
typedef bool CudaTimedRun(void *what, char *const buffers[4]);

/* In buffers of these sizes, the first two filled with numbers of that type. */
extern float cuda_time(void *stream, CudaTimedRun *run, void *what, const size_t sizes[4],
					   KernelType type);

typedef struct CudaTimedConv
{
	CudaConvs *convs;
	const CudaConv *conv;
} CudaTimedConv;

static inline bool
cuda_run_timed_conv(void *what, char *const buffers[4])
{
	const CudaTimedConv *timed = what;
	NnError ignored;

	return cuda_conv_run(timed->convs, timed->conv, buffers[0], buffers[1], buffers[2], buffers[3],
						 &ignored) == NN_OK;
}

/* stream: the one of convs. */
static inline float
cuda_time_conv(void *stream, CudaConvs *convs, const CudaConv *conv, const CudaConvShape *s)
{
	size_t element = kernel_type_size(s->type);
	size_t sizes[4] = { element * s->n * s->h * s->w * s->c,
						element * s->k * s->c * s->kernel * s->kernel,
						element * s->n * s->oh * s->ow * s->k, cuda_conv_workspace(conv) + 1 };
	CudaTimedConv timed = { convs, conv };

	return cuda_time(stream, cuda_run_timed_conv, &timed, sizes, s->type);
}

#endif /* BICYCLE_NN_CUDA_TIME_H */
