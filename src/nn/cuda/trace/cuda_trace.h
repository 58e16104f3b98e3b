/*
 * cuda_trace.h
 *	  Measuring from inside the device, beside serving: make TRACE=1.
 *
 * Called by the device's owner.
 */
#ifndef BICYCLE_NN_CUDA_TRACE_H
#define BICYCLE_NN_CUDA_TRACE_H

#include "nn/cuda/cuda.h"

/* What the card can do a second; 0 where it is not known. */
typedef struct CudaPeak
{
	bool known; /* or tried */
	double flop, bytes;
} CudaPeak;

/* cuda_peak.c: fills *peak, once. */
extern void cuda_peak(CudaDevice *device, NnPrecision precision, CudaPeak *peak);
/* Within the GPU's memory, out of any cache if bytes are many; as cuda_time. */
extern float cuda_time_copy(void *stream, size_t bytes);

/*
 * cuda_trace.c: malloc'ed, and NULL unless the environment asks for a trace. It
 * prints times; what is in a plan's memory is lost.
 */
extern CudaTracer *cuda_tracer_open(CudaDevice *device);

#endif /* BICYCLE_NN_CUDA_TRACE_H */
