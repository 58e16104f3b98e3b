/*
 * cuda_peak.c
 *	  What the card can do, for cuda_trace.c to hold steps against: bytes a
 *	  second of a copy within its memory, read and written ones counted, and
 *	  arithmetic a second of large convolutions by the same library that the
 *	  plans use.
 *
 * Measured once a device and precision when a trace asks, which takes a second
 * or two and 1 GB of the card's memory for that time; or BICYCLE_CUDA_PEAK in
 * the environment says both, as "TFLOP/s,GB/s". A rate that could not be
 * measured is 0. Called by the device's owner.
 */
#include "nn/cuda/trace/cuda_trace.h"

#include "nn/cuda/cuda_time.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES ((size_t) 512 << 20) /* far beyond any cache */

/*
 * Two that keep all multiprocessors busy: a matrix product, and a 3 x 3
 * convolution; which is faster is the library's affair.
 */
static const CudaConvShape products[] = {
	{ .n = 64,
	  .h = 32,
	  .w = 32,
	  .c = 2048,
	  .oh = 32,
	  .ow = 32,
	  .k = 2048,
	  .kernel = 1,
	  .stride = 1 },
	{ .n = 64,
	  .h = 64,
	  .w = 64,
	  .c = 512,
	  .oh = 64,
	  .ow = 64,
	  .k = 512,
	  .kernel = 3,
	  .stride = 1,
	  .pad = 1 },
};

static double
product_rate(CudaDevice *device, NnPrecision precision, CudaConvShape s)
{
	double flop = 2.0 * s.n * s.oh * s.ow * s.k * s.c * s.kernel * s.kernel;
	CudaConv *conv;
	NnError ignored;
	float ms;

	s.type = cuda_type(precision);
	s.tf32 = precision == NN_PRECISION_TF32;
	if (cuda_conv_open(device->convs, &s, &conv, &ignored) != NN_OK)
		return 0;
	ms = cuda_time_conv(device->compute, device->convs, conv, &s);
	cuda_conv_close(conv);
	return ms < CUDA_TIME_NEVER ? flop / (ms * 1e-3) : 0;
}

typedef struct CudaTimedCopy
{
	void *stream;
	size_t bytes;
} CudaTimedCopy;

static bool
cuda_run_timed_copy(void *what, char *const buffers[4])
{
	const CudaTimedCopy *copy = what;

	return cudaMemcpyAsync(buffers[2], buffers[0], copy->bytes, cudaMemcpyDeviceToDevice,
						   copy->stream) == cudaSuccess;
}

float
cuda_time_copy(void *stream, size_t bytes)
{
	CudaTimedCopy copy = { stream, bytes };
	CudaTimer *timer = cuda_timer_open(stream, (size_t[4]){ bytes, 1, bytes, 1 }, KERNEL_F32);
	float ms = timer ? cuda_timer_run(timer, cuda_run_timed_copy, &copy) : CUDA_TIME_NEVER;

	cuda_timer_close(timer);
	return ms;
}

void
cuda_peak(CudaDevice *device, NnPrecision precision, CudaPeak *peak)
{
	const char *given = getenv("BICYCLE_CUDA_PEAK");
	float ms;

	if (peak->known)
		return;
	peak->known = true;
	if (given && sscanf(given, "%lf,%lf", &peak->flop, &peak->bytes) == 2)
	{
		peak->flop *= 1e12;
		peak->bytes *= 1e9;
		return;
	}
	for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
		peak->flop = fmax(peak->flop, product_rate(device, precision, products[i]));
	ms = cuda_time_copy(device->compute, COPY_BYTES);
	peak->bytes = ms < CUDA_TIME_NEVER ? 2 * COPY_BYTES / (ms * 1e-3) : 0;
}
