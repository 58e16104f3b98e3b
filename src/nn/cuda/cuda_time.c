/*
 * cuda_time.c
 *	  How long the GPU takes for something: the least of some runs, on a stream,
 *	  without what the host does around them.
 *
 * R1 Runs are captured and replayed BATCH at a time, as plans are: launched one
 *    by one, a kernel of some microseconds waits for the host. Where that
 *    cannot be captured they are launched.
 * R2 Warming up and measuring go by time, not by number: an idle card takes
 *    tens of milliseconds to its full clock, which a timer waits for once.
 * R3 A call waits for the stream.
 */
#include "nn/cuda/cuda_time.h"

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define PATTERN_BYTES ((size_t) 1 << 20)
#define ALIGNMENT 256
#define LEAST_CACHE ((size_t) 64 << 20) /* that weights rotate through */
#define BATCH 8                         /* runs that are timed as one */
#define FIRST_WARM_UP_MS 30
#define WARM_UP_MS 1
#define MEASURE_MS 3
#define LEAST_BATCHES 3 /* that are measured */

struct CudaTimer
{
	cudaStream_t stream;
	char *buffers[4];
	size_t weights, /* bytes of one set, aligned */
		room,       /* of all */
		at;         /* where the next begins */
	cudaEvent_t events[2];
	bool warm;
};

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
	cudaError_t result = pattern ? cudaSuccess : cudaErrorMemoryAllocation, ended;

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
	/* in any case, as what is queued reads what ends here */
	ended = cudaStreamSynchronize(stream);
	free(pattern);
	return result == cudaSuccess ? ended : result;
}

/* ---- Buffers ------------------------------------------------------------- */

/* More than what the GPU's cache holds. */
static size_t
rotation_bytes(void)
{
	struct cudaDeviceProp properties;
	int device;
	size_t cache = 0;

	if (cudaGetDevice(&device) == cudaSuccess &&
		cudaGetDeviceProperties(&properties, device) == cudaSuccess && properties.l2CacheSize > 0)
		cache = properties.l2CacheSize;
	return cache + cache / 4 > LEAST_CACHE ? cache + cache / 4 : LEAST_CACHE;
}

CudaTimer *
cuda_timer_open(void *stream, const size_t sizes[4], KernelType type)
{
	CudaTimer *t = calloc(1, sizeof(CudaTimer));
	bool good = t != NULL;

	if (!t)
		return NULL;
	t->stream = stream;
	t->weights = (sizes[1] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	t->room = t->weights + rotation_bytes();
	for (int i = 0; good && i < 2; i++)
		good = cudaEventCreateWithFlags(&t->events[i], 0) == cudaSuccess;
	for (int i = 0; good && i < 4; i++)
	{
		size_t bytes = i == 1 ? t->room : sizes[i];

		good = cudaMalloc((void **) &t->buffers[i], bytes) == cudaSuccess &&
			   (i > 1 || fill(stream, t->buffers[i], bytes, type) == cudaSuccess);
	}
	if (good)
		return t;
	cuda_timer_close(t);
	return NULL;
}

void
cuda_timer_close(CudaTimer *t)
{
	if (!t)
		return;
	(void) cudaStreamSynchronize(t->stream);
	for (int i = 0; i < 4; i++)
		if (t->buffers[i])
			(void) cudaFree(t->buffers[i]);
	for (int i = 0; i < 2; i++)
		if (t->events[i])
			(void) cudaEventDestroy(t->events[i]);
	(void) cudaGetLastError(); /* want of memory is no error of what comes next */
	free(t);
}

/* ---- Runs ---------------------------------------------------------------- */

/* Queues one run, with the next weights. */
static bool
queue_run(CudaTimer *t, CudaTimedRun *run, void *what)
{
	char *buffers[4] = { t->buffers[0], t->buffers[1] + t->at, t->buffers[2], t->buffers[3] };

	t->at += t->weights;
	if (t->at + t->weights > t->room)
		t->at = 0;
	return run(what, buffers);
}

static bool
queue_batch(CudaTimer *t, CudaTimedRun *run, void *what)
{
	bool good = true;

	for (int i = 0; good && i < BATCH; i++)
		good = queue_run(t, run, what);
	return good;
}

/* A batch to replay; NULL: it cannot be captured. */
static cudaGraphExec_t
capture_batch(CudaTimer *t, CudaTimedRun *run, void *what)
{
	cudaGraph_t graph = NULL;
	cudaGraphExec_t exec = NULL;
	bool good;

	if (cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
		return NULL;
	good = queue_batch(t, run, what);
	/* a capture must be ended in any case */
	good &= cudaStreamEndCapture(t->stream, &graph) == cudaSuccess;
	if (!good || cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
		exec = NULL;
	if (graph)
		(void) cudaGraphDestroy(graph);
	(void) cudaGetLastError();
	return exec;
}

/* Milliseconds of one batch. */
static bool
time_batch(CudaTimer *t, CudaTimedRun *run, void *what, cudaGraphExec_t graph, float *ms)
{
	return cudaEventRecord(t->events[0], t->stream) == cudaSuccess &&
		   (graph ? cudaGraphLaunch(graph, t->stream) == cudaSuccess : queue_batch(t, run, what)) &&
		   cudaEventRecord(t->events[1], t->stream) == cudaSuccess &&
		   cudaEventSynchronize(t->events[1]) == cudaSuccess &&
		   cudaEventElapsedTime(ms, t->events[0], t->events[1]) == cudaSuccess;
}

static double
clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

float
cuda_timer_run(CudaTimer *t, CudaTimedRun *run, void *what)
{
	double start = clock_ms(), warm = t->warm ? WARM_UP_MS : FIRST_WARM_UP_MS;
	float best = CUDA_TIME_NEVER, ms;
	cudaGraphExec_t graph = NULL;
	/* the first run loads kernels, which a capture must not */
	bool good = queue_run(t, run, what) && cudaStreamSynchronize(t->stream) == cudaSuccess;

	if (good)
		graph = capture_batch(t, run, what);
	do
		good = good && time_batch(t, run, what, graph, &ms);
	while (good && clock_ms() < start + warm);
	start = clock_ms();
	for (int i = 0; good && (i < LEAST_BATCHES || clock_ms() < start + MEASURE_MS); i++)
	{
		good = time_batch(t, run, what, graph, &ms);
		best = good && ms / BATCH < best ? ms / BATCH : best;
	}
	t->warm = t->warm || good;
	(void) cudaStreamSynchronize(t->stream); /* what is queued may be of the graph */
	if (graph)
		(void) cudaGraphExecDestroy(graph);
	(void) cudaGetLastError();
	return good ? best : CUDA_TIME_NEVER;
}
