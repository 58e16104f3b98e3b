/*
 * cuda_time.c
 *	  How long the GPU takes for something: the least of some runs, on a stream,
 *	  without what the host does around them.
 *
 * Buffers are the call's own, beside the device's pool. A call waits for the
 * stream.
 */
#include "nn/cuda/cuda_time.h"

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdlib.h>

#define PATTERN_BYTES ((size_t) 1 << 20)
#define WARM_UPS 3
#define RUNS 10

/*
 * Fills memory with numbers of both signs from 0.5 to 1: on zeros, multipliers
 * take less power and a card runs faster than it ever will.
 */
static cudaError_t
fill(cudaStream_t stream, char *to, size_t bytes, KernelType type)
{
	size_t element = kernel_type_size(type);
	uint32_t one = type == KERNEL_F32   ? 0x3f000000
				   : type == KERNEL_F16 ? 0x3800
										: 0x3f00,
			 digits = type == KERNEL_F32   ? 0x7fffff
					  : type == KERNEL_F16 ? 0x3ff
										   : 0x7f,
			 seed = 1;
	char *pattern = malloc(PATTERN_BYTES);
	size_t filled = bytes < PATTERN_BYTES ? bytes : PATTERN_BYTES;
	cudaError_t result = pattern ? cudaSuccess : cudaErrorMemoryAllocation;

	for (size_t i = 0; pattern && i < PATTERN_BYTES; i += element)
	{
		uint32_t bits;

		seed = 1664525u * seed + 1013904223u;
		bits = one | (seed >> 9 & digits) | (seed >> 31) << (8 * element - 1);
		if (element == 4)
			*(uint32_t *) (pattern + i) = bits;
		else
			*(uint16_t *) (pattern + i) = (uint16_t) bits;
	}
	if (result == cudaSuccess)
		result = cudaMemcpyAsync(to, pattern, filled, cudaMemcpyHostToDevice, stream);
	for (; result == cudaSuccess && filled < bytes; filled *= 2)
		result = cudaMemcpyAsync(to + filled, to, filled < bytes - filled ? filled : bytes - filled,
								 cudaMemcpyDeviceToDevice, stream);
	if (result == cudaSuccess)
		result = cudaStreamSynchronize(stream);
	free(pattern);
	return result;
}

float
cuda_time(void *stream, CudaTimedRun *run, void *what, const size_t sizes[4], KernelType type)
{
	char *buffers[4] = { NULL };
	cudaEvent_t events[2] = { NULL };
	float best = CUDA_TIME_NEVER, ms;
	bool good = cudaEventCreateWithFlags(&events[0], 0) == cudaSuccess &&
				cudaEventCreateWithFlags(&events[1], 0) == cudaSuccess;

	for (int i = 0; good && i < 4; i++)
		good = cudaMalloc((void **) &buffers[i], sizes[i]) == cudaSuccess &&
			   (i > 1 || fill(stream, buffers[i], sizes[i], type) == cudaSuccess);
	for (int i = 0; good && i < WARM_UPS + RUNS; i++)
	{
		good = cudaEventRecord(events[0], stream) == cudaSuccess && run(what, buffers) &&
			   cudaEventRecord(events[1], stream) == cudaSuccess &&
			   cudaEventSynchronize(events[1]) == cudaSuccess &&
			   cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
		if (good && i >= WARM_UPS && ms < best)
			best = ms;
	}
	for (int i = 0; i < 4; i++)
		(void) cudaFree(buffers[i]);
	for (int i = 0; i < 2; i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	(void) cudaGetLastError();
	return good ? best : CUDA_TIME_NEVER;
}
