/*
 * cuda_peak.c
 *	  What the card can do, for cuda_trace.c to hold steps against: bytes a second of a copy within its memory, read and written ones counted, and arithmetic a
 *	  second of large convolutions by the same library that the plans use.
 *
 * Measured once a device and precision when a trace asks, which takes a second or two and 1 GB of the card's memory for that time; or BICYCLE_CUDA_PEAK in the
 * environment says both, as "TFLOP/s,GB/s".  A rate that could not be measured is 0.  Called by the device's owner.
 */
#include "nn/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES ((size_t) 512 << 20)	/* far beyond any cache */
#define PATTERN_BYTES ((size_t) 1 << 20)
#define WARM_UPS 3
#define RUNS 11

/* Two that keep all multiprocessors busy: a matrix product, and a 3 x 3 convolution; which is faster is the library's affair. */
static const CudaConvShape products[] = {
	{.n = 64, .h = 32, .w = 32, .c = 2048, .oh = 32, .ow = 32, .k = 2048, .kernel = 1, .stride = 1},
	{.n = 64, .h = 64, .w = 64, .c = 512, .oh = 64, .ow = 64, .k = 512, .kernel = 3, .stride = 1, .pad = 1},
};

/* Fills memory with numbers of both signs from 0.5 to 1: on zeros, multipliers take less power and a card runs faster than it ever will. */
static cudaError_t
fill(CudaDevice *device, char *to, size_t bytes, KernelType type)
{
	size_t		element = kernel_type_size(type);
	uint32_t	one = type == KERNEL_F32 ? 0x3f000000 : type == KERNEL_F16 ? 0x3800 : 0x3f00,
				digits = type == KERNEL_F32 ? 0x7fffff : type == KERNEL_F16 ? 0x3ff : 0x7f,
				seed = 1;
	char	   *pattern = malloc(PATTERN_BYTES);
	size_t		filled = bytes < PATTERN_BYTES ? bytes : PATTERN_BYTES;
	cudaError_t result = pattern ? cudaSuccess : cudaErrorMemoryAllocation;

	for (size_t i = 0; pattern && i < PATTERN_BYTES; i += element)
	{
		uint32_t	bits;

		seed = 1664525u * seed + 1013904223u;
		bits = one | (seed >> 9 & digits) | (seed >> 31) << (8 * element - 1);
		if (element == 4)
			*(uint32_t *) (pattern + i) = bits;
		else
			*(uint16_t *) (pattern + i) = (uint16_t) bits;
	}
	if (result == cudaSuccess)
		result = cudaMemcpyAsync(to, pattern, filled, cudaMemcpyHostToDevice, device->compute);
	for (; result == cudaSuccess && filled < bytes; filled *= 2)
		result = cudaMemcpyAsync(to + filled, to, filled < bytes - filled ? filled : bytes - filled, cudaMemcpyDeviceToDevice, device->compute);
	if (result == cudaSuccess)
		result = cudaStreamSynchronize(device->compute);
	free(pattern);
	return result;
}

/* What is timed: a copy from buffers[0] to buffers[2] if conv is NULL. */
static bool
run_once(CudaDevice *device, const CudaConv *conv, char *const buffers[4])
{
	NnError		ignored;

	if (!conv)
		return cudaMemcpyAsync(buffers[2], buffers[0], COPY_BYTES, cudaMemcpyDeviceToDevice, device->compute) == cudaSuccess;
	return cuda_conv_run(device->convs, conv, buffers[0], buffers[1], buffers[2], buffers[3], &ignored) == NN_OK;
}

/* Seconds of the fastest run, in buffers of these sizes; 0 if it could not be run. */
static double
fastest(CudaDevice *device, const CudaConv *conv, const size_t sizes[4], KernelType type)
{
	char	   *buffers[4] = {NULL};
	cudaEvent_t events[2] = {NULL};
	float		best = 0,
				ms;
	bool		good = cudaEventCreateWithFlags(&events[0], 0) == cudaSuccess && cudaEventCreateWithFlags(&events[1], 0) == cudaSuccess;

	for (int i = 0; good && i < 4; i++)
		good = cudaMalloc((void **) &buffers[i], sizes[i]) == cudaSuccess && (i > 1 || fill(device, buffers[i], sizes[i], type) == cudaSuccess);
	for (int i = 0; good && i < WARM_UPS + RUNS; i++)
	{
		good = cudaEventRecord(events[0], device->compute) == cudaSuccess && run_once(device, conv, buffers) &&
			cudaEventRecord(events[1], device->compute) == cudaSuccess && cudaEventSynchronize(events[1]) == cudaSuccess &&
			cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
		if (good && i >= WARM_UPS && (best == 0 || ms < best))
			best = ms;
	}
	for (int i = 0; i < 4; i++)
		(void) cudaFree(buffers[i]);
	for (int i = 0; i < 2; i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	(void) cudaGetLastError();
	return good ? best * 1e-3 : 0;
}

static double
product_rate(CudaDevice *device, NnPrecision precision, CudaConvShape s)
{
	size_t		element = kernel_type_size(cuda_type(precision));
	double		flop = 2.0 * s.n * s.oh * s.ow * s.k * s.c * s.kernel * s.kernel,
				seconds;
	CudaConv   *conv;
	NnError		ignored;

	s.type = cuda_type(precision);
	s.tf32 = precision == NN_PRECISION_TF32;
	if (cuda_conv_open(device->convs, &s, &conv, &ignored) != NN_OK)
		return 0;
	seconds = fastest(device, conv, (size_t[4]) {element * s.n * s.h * s.w * s.c, element * s.k * s.c * s.kernel * s.kernel, element * s.n * s.oh * s.ow * s.k,
												 cuda_conv_workspace(conv) + 1}, s.type);
	cuda_conv_close(conv);
	return seconds > 0 ? flop / seconds : 0;
}

const CudaPeak *
cuda_peak(CudaDevice *device, NnPrecision precision)
{
	CudaPeak   *peak = &device->peaks[precision];
	const char *given = getenv("BICYCLE_CUDA_PEAK");
	double		seconds;

	if (peak->known)
		return peak;
	peak->known = true;
	if (given && sscanf(given, "%lf,%lf", &peak->flop, &peak->bytes) == 2)
	{
		peak->flop *= 1e12;
		peak->bytes *= 1e9;
		return peak;
	}
	for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
	{
		double		rate = product_rate(device, precision, products[i]);

		peak->flop = rate > peak->flop ? rate : peak->flop;
	}
	seconds = fastest(device, NULL, (size_t[4]) {COPY_BYTES, 1, COPY_BYTES, 1}, KERNEL_F32);
	peak->bytes = seconds > 0 ? 2 * COPY_BYTES / seconds : 0;
	return peak;
}
