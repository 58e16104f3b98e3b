/*
 * gpu_on_cpu.c
 *	  An imitation of a GPU and of CUDA's runtime for tests: kernels run as coroutines, streams as queues.
 *
 * Device memory is the heap's, so AddressSanitizer watches every access of a kernel.  Streams, events and graphs have the meaning that CUDA gives them, run
 * by whoever waits: an operation runs when its stream is waited for, or another stream's wait for an event behind it runs.  Several threads may call, each
 * with streams of its own.  What CUDA forbids while a stream is captured ends the program.
 */
#include "gpu_on_cpu.h"

#include "cuda_runtime_api.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define MAX_THREADS 1024
#define WARP 32
#define STACK_BYTES (128 * 1024)

GpuIndex	gpu_thread,
			gpu_block,
			gpu_block_size;
static GpuSettings own_settings = {.devices = 1, .major = 9, .minor = 0, .memory = (size_t) 8 << 30};
GpuSettings *gpu_settings = &own_settings;

/* Settings of a test in another process. */
__attribute__((constructor)) static void
share_settings(void)
{
	const char *path = getenv("BICYCLE_TEST_GPU");
	int			fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void	   *shared = fd >= 0 ? mmap(NULL, sizeof(GpuSettings), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (shared == MAP_FAILED)
		return;
	gpu_settings = shared;
	gpu_settings->used = 0;
}

/* One thread at a time is in here: the device's owner, or the one that packs weights. */
static pthread_mutex_t runtime_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread int captures;	/* that the thread has begun and not ended */

static void
leave(int *entered)
{
	pthread_mutex_unlock(&runtime_lock);
}

static int
enter(void)
{
	pthread_mutex_lock(&runtime_lock);
	return 0;
}

/* For the rest of the function. */
#define RUNTIME __attribute__((cleanup(leave), unused)) int entered = enter()

/* ---- Blocks ---------------------------------------------------------------------------------------------------------------------------------- */

typedef enum ThreadState
{
	READY,
	AT_BARRIER,
	AT_SHUFFLE,
	DONE
} ThreadState;

static struct
{
	ucontext_t	context;
	ThreadState state;
	float		value;			/* that it gives to a shuffle */
}			threads[MAX_THREADS];
static float exchanged[MAX_THREADS];	/* by the last shuffle of each warp */
static ucontext_t scheduler;
static char *stacks;
static GpuKernel running_kernel;
static const void *running_args;
static long kernels_run,
			graphs_run;

static void
die(const char *what)
{
	fprintf(stderr, "gpu_on_cpu: %s (block %u %u %u)\n", what, gpu_block.x, gpu_block.y, gpu_block.z);
	abort();
}

static void
thread_main(void)
{
	running_kernel(running_args);
	threads[gpu_thread.x].state = DONE;
}

static void
wait_in(ThreadState state)
{
	unsigned	self = gpu_thread.x;

	threads[self].state = state;
	swapcontext(&threads[self].context, &scheduler);
}

void
gpu_barrier(void)
{
	wait_in(AT_BARRIER);
}

float
gpu_shuffle_xor(float value, int mask)
{
	threads[gpu_thread.x].value = value;
	wait_in(AT_SHUFFLE);
	return exchanged[gpu_thread.x ^ (unsigned) mask];
}

/* Lets threads that have all arrived go on.  False if all are done. */
static bool
release(unsigned n)
{
	unsigned	count[DONE + 1] = {0};

	for (unsigned w = 0; w < n; w += WARP)
	{
		unsigned	end = w + WARP < n ? w + WARP : n;
		unsigned	shuffling = 0;

		for (unsigned t = w; t < end; t++)
			shuffling += threads[t].state == AT_SHUFFLE;
		if (shuffling > 0 && shuffling < WARP)
			die("a shuffle that not all lanes of a warp reach");
		for (unsigned t = w; t < end; t++)
		{
			if (shuffling > 0)
			{
				exchanged[t] = threads[t].value;
				threads[t].state = READY;
			}
			count[threads[t].state]++;
		}
	}
	if (count[READY] > 0)
		return true;
	if (count[AT_BARRIER] > 0 && count[AT_BARRIER] < n)
		die("a barrier that not all threads of a block reach");
	for (unsigned t = 0; t < n && count[AT_BARRIER] > 0; t++)
		threads[t].state = READY;
	return count[AT_BARRIER] > 0;
}

static void
make_thread(unsigned t)
{
	ucontext_t *context = &threads[t].context;

	getcontext(context);
	context->uc_stack.ss_sp = stacks + (size_t) t * STACK_BYTES;
	context->uc_stack.ss_size = STACK_BYTES;
	context->uc_link = &scheduler;
	makecontext(context, thread_main, 0);
	threads[t].state = READY;
}

static void
run_block(unsigned n)
{
	for (unsigned t = 0; t < n; t++)
		make_thread(t);
	do
	{
		for (unsigned t = 0; t < n; t++)
			if (threads[t].state == READY)
			{
				gpu_thread = (GpuIndex) {t, 0, 0};
				swapcontext(&scheduler, &threads[t].context);
			}
	} while (release(n));
}

static void
run_kernel(GpuKernel kernel, GpuIndex grid, unsigned n, const void *args)
{
	if (!stacks && !(stacks = malloc((size_t) MAX_THREADS * STACK_BYTES)))
		die("out of memory");
	running_kernel = kernel;
	running_args = args;
	gpu_block_size = (GpuIndex) {n, 1, 1};
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++)
			{
				gpu_block = (GpuIndex) {x, y, z};
				run_block(n);
			}
	kernels_run++;
}

/* ---- Streams, events, graphs ----------------------------------------------------------------------------------------------------------------- */

typedef enum OpKind
{
	OP_KERNEL,
	OP_COPY,
	OP_RECORD,
	OP_WAIT,
	OP_GRAPH
} OpKind;

typedef struct Op
{
	struct Op  *next;
	OpKind		kind;
	GpuKernel	kernel;
	GpuIndex	grid;
	unsigned	threads;
	void	   *args;			/* a copy, as at a real launch */
	void	   *to;
	const void *from;
	size_t		bytes;			/* of the copy */
	cudaEvent_t event;
	long		count;			/* of records of the event that this one is or waits for */
	cudaGraphExec_t graph;
} Op;

typedef struct GpuGraph
{
	Op		   *first,
			   *last;
	int			users;			/* graph and executable share the operations */
} GpuGraph;

struct GpuStream
{
	GpuGraph	queue;
	GpuGraph   *capture;		/* operations go there instead */
	bool		invalid;		/* something failed while it was captured */
};

struct GpuEvent
{
	cudaStream_t stream;		/* of the last record */
	long		recorded,
				done;
};

static bool lost;				/* the device, for good */

/* Counts a call down to the one that a test wants to fail. */
static bool
fails(void)
{
	bool		now = gpu_settings->fail_in > 0 && --gpu_settings->fail_in == 0;

	lost |= now && gpu_settings->fail_for_good;
	return now || lost;
}

/* What a call that fails returns. */
static cudaError_t
failure(cudaError_t error)
{
	return lost ? cudaErrorLaunchFailure : error;
}

static void
not_in_capture(const char *function)
{
	if (captures > 0)
	{
		fprintf(stderr, "gpu_on_cpu: %s while a stream is captured\n", function);
		abort();
	}
}

static void
append(GpuGraph *list, const Op *op)
{
	Op		   *copy = malloc(sizeof(Op));

	if (!copy)
		die("out of memory");
	*copy = *op;
	copy->next = NULL;
	if (list->last)
		list->last->next = copy;
	else
		list->first = copy;
	list->last = copy;
}

static void
put(cudaStream_t stream, const Op *op)
{
	append(stream->capture ? stream->capture : &stream->queue, op);
}

static void
drop(GpuGraph *list)
{
	Op		   *op = list->first;

	list->first = op->next;
	if (!op->next)
		list->last = NULL;
	free(op->args);
	free(op);
}

static void run_next(cudaStream_t stream);

static void
run_op(const Op *op)
{
	switch (op->kind)
	{
		case OP_KERNEL:
			run_kernel(op->kernel, op->grid, op->threads, op->args);
			break;
		case OP_COPY:
			memcpy(op->to, op->from, op->bytes);
			break;
		case OP_RECORD:
			if (op->event->done < op->count)
				op->event->done = op->count;
			break;
		case OP_WAIT:
			while (op->event->done < op->count)
				run_next(op->event->stream);
			break;
		case OP_GRAPH:
			for (const Op *o = op->graph->first; o; o = o->next)
				run_op(o);
			graphs_run++;
			break;
	}
}

static void
run_next(cudaStream_t stream)
{
	if (!stream->queue.first)
		die("a wait for what no stream will do");
	run_op(stream->queue.first);
	drop(&stream->queue);
}

int
gpu_launch(GpuKernel kernel, GpuIndex grid, unsigned n, void *stream, const void *args, size_t size)
{
	Op			op = {.kind = OP_KERNEL, .kernel = kernel, .grid = grid, .threads = n, .args = malloc(size)};
	RUNTIME;

	if (!op.args || n > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || fails())
	{
		((cudaStream_t) stream)->invalid = true;
		free(op.args);
		return failure(cudaErrorInvalidValue);
	}
	memcpy(op.args, args, size);
	put(stream, &op);
	return cudaSuccess;
}

long
gpu_kernels_run(void)
{
	return kernels_run;
}

long
gpu_graphs_run(void)
{
	return graphs_run;
}

cudaError_t
cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
	Op			op = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
	RUNTIME;

	if (fails())
		return failure(cudaErrorInvalidValue);
	put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
	RUNTIME;

	if (fails() || !(*stream = calloc(1, sizeof(struct GpuStream))))
		return failure(cudaErrorMemoryAllocation);
	return cudaSuccess;
}

cudaError_t
cudaStreamSynchronize(cudaStream_t stream)
{
	RUNTIME;

	not_in_capture("cudaStreamSynchronize");
	while (stream->queue.first)
		run_next(stream);
	return fails() ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t
cudaStreamDestroy(cudaStream_t stream)
{
	RUNTIME;

	while (stream->queue.first)
		run_next(stream);
	free(stream);
	return cudaSuccess;
}

cudaError_t
cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	Op			op = {.kind = OP_WAIT, .event = event, .count = event->recorded};
	RUNTIME;

	if (fails())
		return failure(cudaErrorInvalidValue);
	put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	RUNTIME;

	if (fails() || !(*event = calloc(1, sizeof(struct GpuEvent))))
		return failure(cudaErrorMemoryAllocation);
	return cudaSuccess;
}

cudaError_t
cudaEventDestroy(cudaEvent_t event)
{
	RUNTIME;

	while (event->done < event->recorded)
		run_next(event->stream);
	free(event);
	return cudaSuccess;
}

cudaError_t
cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	Op			op = {.kind = OP_RECORD, .event = event, .count = event->recorded + 1};
	RUNTIME;

	if (fails())
		return failure(cudaErrorInvalidValue);
	event->recorded++;
	event->stream = stream;
	put(stream, &op);
	return cudaSuccess;
}

/* A node of a graph, as which alone the device uses it: nobody waits for such an event. */
cudaError_t
cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
	Op			op = {.kind = OP_RECORD, .event = event};
	RUNTIME;

	if (fails() || flags != cudaEventRecordExternal || !stream->capture)
		return failure(cudaErrorInvalidValue);
	put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
	RUNTIME;

	not_in_capture("cudaEventSynchronize");
	while (event->done < event->recorded)
		run_next(event->stream);
	return fails() ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t
cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
	RUNTIME;

	*ms = 1;
	return fails() ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t
cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
	RUNTIME;

	if (fails() || !(stream->capture = calloc(1, sizeof(GpuGraph))))
		return failure(cudaErrorMemoryAllocation);
	stream->capture->users = 1;
	stream->invalid = false;
	captures++;
	return cudaSuccess;
}

cudaError_t
cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	RUNTIME;

	*graph = stream->capture;
	stream->capture = NULL;
	captures--;
	if (!stream->invalid)
		return cudaSuccess;
	cudaGraphDestroy(*graph);
	*graph = NULL;
	return cudaErrorStreamCaptureInvalidated;
}

cudaError_t
cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
	RUNTIME;

	if (fails())
		return failure(cudaErrorMemoryAllocation);
	graph->users++;
	*exec = graph;
	return cudaSuccess;
}

cudaError_t
cudaGraphDestroy(cudaGraph_t graph)
{
	RUNTIME;

	if (--graph->users > 0)
		return cudaSuccess;
	while (graph->first)
		drop(graph);
	free(graph);
	return cudaSuccess;
}

cudaError_t
cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	return cudaGraphDestroy(exec);
}

cudaError_t
cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	Op			op = {.kind = OP_GRAPH, .graph = exec};
	RUNTIME;

	if (fails())
		return cudaErrorLaunchFailure;
	put(stream, &op);
	return cudaSuccess;
}

/* ---- Memory and the card --------------------------------------------------------------------------------------------------------------------- */

typedef struct Header
{
	size_t		bytes;
} Header;

#define HEADER 256				/* keeps cudaMalloc's alignment */

size_t
gpu_memory_used(void)
{
	return gpu_settings->used;
}

cudaError_t
cudaMalloc(void **p, size_t bytes)
{
	Header	   *header;
	RUNTIME;

	not_in_capture("cudaMalloc");
	if (fails() || gpu_settings->used > gpu_settings->memory || bytes > gpu_settings->memory - gpu_settings->used)
		return failure(cudaErrorMemoryAllocation);
	if (posix_memalign((void **) &header, HEADER, HEADER + bytes) != 0)
		die("out of memory");
	header->bytes = bytes;
	gpu_settings->used += bytes;
	/* what was not written must not look like zeros */
	memset((char *) header + HEADER, 0xff, bytes);
	*p = (char *) header + HEADER;
	return cudaSuccess;
}

cudaError_t
cudaFree(void *p)
{
	Header	   *header;
	RUNTIME;

	not_in_capture("cudaFree");
	if (!p)
		return cudaSuccess;
	header = (Header *) ((char *) p - HEADER);
	gpu_settings->used -= header->bytes;
	free(header);
	return cudaSuccess;
}

cudaError_t
cudaMallocHost(void **p, size_t bytes)
{
	RUNTIME;

	return fails() || !(*p = malloc(bytes + 1)) ? failure(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t
cudaFreeHost(void *p)
{
	free(p);
	return cudaSuccess;
}

cudaError_t
cudaMemGetInfo(size_t *available, size_t *total)
{
	*available = gpu_settings->memory - gpu_settings->used;
	*total = gpu_settings->memory;
	return cudaSuccess;
}

cudaError_t
cudaGetDeviceCount(int *count)
{
	*count = gpu_settings->devices;
	return gpu_settings->devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t
cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	memset(properties, 0, sizeof(*properties));
	strcpy(properties->name, "imitated GPU");
	properties->major = gpu_settings->major;
	properties->minor = gpu_settings->minor;
	properties->totalGlobalMem = gpu_settings->memory;
	return cudaSuccess;
}

cudaError_t
cudaDriverGetVersion(int *version)
{
	*version = 13000;
	return cudaSuccess;
}

cudaError_t
cudaRuntimeGetVersion(int *version)
{
	*version = 13000;
	return cudaSuccess;
}

cudaError_t
cudaSetDevice(int device)
{
	return device < gpu_settings->devices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t
cudaGetLastError(void)
{
	return cudaSuccess;
}

const char *
cudaGetErrorString(cudaError_t error)
{
	return error == cudaSuccess ? "no error" : error == cudaErrorMemoryAllocation ? "out of memory" : error == cudaErrorNoDevice ? "no device" : "failure";
}

/* ---- Half precision -------------------------------------------------------------------------------------------------------------------------- */

float
__half2float(uint16_t bits)
{
	uint32_t	sign = (uint32_t) (bits & 0x8000) << 16,
				exponent = bits >> 10 & 31,
				mantissa = bits & 0x3ff,
				wide;
	float		x;

	if (exponent == 0)
	{
		x = (float) mantissa * 0x1p-24f;
		return sign ? -x : x;
	}
	wide = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
	memcpy(&x, &wide, sizeof(x));
	return x;
}

uint16_t
__float2half_rn(float x)
{
	uint32_t	bits,
				magnitude;
	uint16_t	sign;

	memcpy(&bits, &x, sizeof(bits));
	sign = (uint16_t) (bits >> 16 & 0x8000);
	magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return 0x7fff;
	if (magnitude >= 0x477ff000)	/* rounds to 2^16 or more */
		return sign | 0x7c00;
	if (magnitude < 0x38800000)	/* below 2^-14: a multiple of 2^-24, which adding a number of that spacing rounds to */
	{
		float		spaced;

		memcpy(&spaced, &magnitude, sizeof(spaced));
		spaced += 0.5f;
		memcpy(&magnitude, &spaced, sizeof(magnitude));
		return (uint16_t) (sign | (magnitude - 0x3f000000));
	}
	magnitude += 0xfff + (magnitude >> 13 & 1);
	return (uint16_t) (sign | (magnitude - 0x38000000) >> 13);
}
