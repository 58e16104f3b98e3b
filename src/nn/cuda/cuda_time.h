/*
 * cuda_time.h
 *	  Times of convolutions on the GPU: for choosing among engines
 *	  (cudnn_choose.c), and for who measures.
 *
 * A timer has the buffers of one problem, beside the device's pool, for all
 * that are compared by it. Each run reads other weights than the ones before,
 * in turns through more than the GPU's cache holds, as when a network's layers
 * run one after the other; what is read besides stays the same, and may be
 * found there. Milliseconds; CUDA_TIME_NEVER if it cannot be run.
 */
#ifndef BICYCLE_NN_CUDA_TIME_H
#define BICYCLE_NN_CUDA_TIME_H

#include "nn/cuda/conv_choice.h"

typedef struct CudaTimer CudaTimer;

/* Queues one run on the stream; false if it cannot. */
typedef bool CudaTimedRun(void *what, char *const buffers[4]);

/*
 * With buffers of these sizes: what is read, weights, what is written, and
 * workspace, the first two filled with numbers of that type. NULL without
 * memory for them.
 */
extern CudaTimer *cuda_timer_open(void *stream, const size_t sizes[4], KernelType type);
extern float cuda_timer_run(CudaTimer *timer, CudaTimedRun *run, void *what);
extern void cuda_timer_close(CudaTimer *timer);

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

/* For convolutions of one shape. stream: the one of convs. */
static inline CudaTimer *
cuda_conv_timer(void *stream, const CudaConvShape *s, size_t workspace)
{
	size_t element = kernel_type_size(s->type);

	return cuda_timer_open(stream,
						   (size_t[4]){ element * s->n * s->h * s->w * s->c,
										element * s->k * s->c * s->kernel * s->kernel,
										element * s->n * s->oh * s->ow * s->k, workspace + 1 },
						   s->type);
}

static inline float
cuda_timer_conv(CudaTimer *timer, CudaConvs *convs, const CudaConv *conv)
{
	CudaTimedConv timed = { convs, conv };

	return cuda_timer_run(timer, cuda_run_timed_conv, &timed);
}

/* One by itself. */
static inline float
cuda_time_conv(void *stream, CudaConvs *convs, const CudaConv *conv, const CudaConvShape *s)
{
	CudaTimer *timer = cuda_conv_timer(stream, s, cuda_conv_workspace(conv));
	float ms = timer ? cuda_timer_conv(timer, convs, conv) : CUDA_TIME_NEVER;

	cuda_timer_close(timer);
	return ms;
}

#endif /* BICYCLE_NN_CUDA_TIME_H */
