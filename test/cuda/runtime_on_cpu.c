/*
 * runtime_on_cpu.c
 *	  An imitation of CUDA's runtime for tests: streams as queues, which
 *	  gpu_on_cpu.c runs.
 *
 * Device memory is the heap's, so AddressSanitizer watches every access of a
 * kernel. Streams, events and graphs have the meaning that CUDA gives them, run
 * by whoever waits: an operation runs when its stream is waited for, or another
 * stream's wait for an event behind it runs; with GpuSettings.chance also at
 * any time before. Several threads may call.
 *
 * It is as strict as CUDA, and ends the program where that would return an
 * error that only a mistake of ours can cause, or do what nobody can rely on:
 * what is forbidden while a stream is captured, a kernel's first launch
 * included, which would have CUDA load it; copies from or to what is not one
 * block; memory that is freed while a copy of it is queued. What fails in a
 * thread stays its last error until somebody asks.
 * Each thread has a current device, to which the streams and events that it
 * uses must belong.
 */
#include "runtime_on_cpu.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_KERNELS 512
#define QUERY_OPS 8 /* that run while somebody asks whether they have */
#define HOLD_MS 60000
#define MAX_DEVICES 16

static GpuSettings own_settings = {
	.devices = 1, .driver = 13000, .major = 9, .minor = 0, .memory = (size_t) 8 << 30
};
GpuSettings *gpu_settings = &own_settings;

/* By SIGRTMAX the GPU of a process is lost, and the others' are not. */
static volatile sig_atomic_t struck;

static void
strike(int number)
{
	struck = 1;
}

static void
await_strike(void)
{
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, SIGRTMAX);
	signal(SIGRTMAX, strike);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

/* Settings of a test in another process. */
__attribute__((constructor)) static void
share_settings(void)
{
	const char *path = getenv("BICYCLE_TEST_GPU");
	const char *devices = getenv("BICYCLE_TEST_GPUS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *shared = fd >= 0
					   ? mmap(NULL, sizeof(GpuSettings), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
					   : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (devices)
	{
		own_settings.devices = atoi(devices);
		await_strike();
	}
	if (shared == MAP_FAILED)
		return;
	gpu_settings = shared;
	gpu_settings->used = 0;
}

/*
 * One thread at a time is in here: the device's owner, or the one that packs
 * weights.
 */
static pthread_mutex_t runtime_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread int captures; /* that the thread has begun and not ended */
static __thread int current;  /* device of the thread */
static __thread cudaError_t last_error;

void
gpu_leave(int *entered)
{
	pthread_mutex_unlock(&runtime_lock);
}

int
gpu_enter(void)
{
	pthread_mutex_lock(&runtime_lock);
	return 0;
}

/* ---- Errors and chance --------------------------------------------------- */

static bool lost; /* the device, for good */

/* Counts a call down to the one that a test wants to fail. */
bool
gpu_fails(void)
{
	bool now = gpu_settings->fail_in > 0 && --gpu_settings->fail_in == 0;

	lost |= (now && gpu_settings->fail_for_good) || struck;
	return now || lost;
}

/* What a call returns: kept until it is asked for. */
cudaError_t
gpu_report(cudaError_t error)
{
	if (error != cudaSuccess)
		last_error = error;
	return error;
}

/* What a call that fails returns. */
cudaError_t
gpu_failure(cudaError_t error)
{
	return gpu_report(lost                      ? cudaErrorLaunchFailure
					  : gpu_settings->fail_with ? (cudaError_t) gpu_settings->fail_with
												: error);
}

cudaError_t
cudaGetLastError(void)
{
	cudaError_t error = last_error;

	last_error = cudaSuccess;
	return lost ? cudaErrorLaunchFailure : error;
}

const char *
cudaGetErrorString(cudaError_t error)
{
	switch (error)
	{
		case cudaSuccess:
			return "no error";
		case cudaErrorMemoryAllocation:
			return "out of memory";
		case cudaErrorDevicesUnavailable:
			return "CUDA-capable device(s) is/are busy or unavailable";
		case cudaErrorNoDevice:
			return "no CUDA-capable device is detected";
		case cudaErrorUnsupportedPtxVersion:
			return "the provided PTX was compiled with an unsupported toolchain.";
		default:
			return "failure";
	}
}

unsigned
gpu_chance(unsigned n)
{
	if (gpu_settings->chance == 0)
		return 0;
	gpu_settings->chance = 1664525u * gpu_settings->chance + 1013904223u;
	gpu_settings->chance += gpu_settings->chance == 0;
	return (gpu_settings->chance >> 16) % n;
}

void
gpu_not_in_capture(const char *function)
{
	if (captures == 0)
		return;
	fprintf(stderr, "runtime_on_cpu: %s while a stream is captured\n", function);
	abort();
}

/* ---- Streams, events, graphs --------------------------------------------- */

cudaStream_t gpu_streams;
static const GpuKernel *loaded[MAX_KERNELS];
static int nloaded;
static long graphs_run, graphs_launched;
static long waits[2]; /* asleep, awake */
static GpuCounts counts;

/* The first launch of a kernel has CUDA load it. */
static void
load_kernel(const GpuKernel *kernel)
{
	for (int i = 0; i < nloaded; i++)
		if (loaded[i] == kernel)
			return;
	gpu_not_in_capture("the first launch of a kernel");
	if (nloaded == MAX_KERNELS)
		gpu_die("too many kernels");
	loaded[nloaded++] = kernel;
}

static void
append(GpuGraph *list, const GpuOp *op)
{
	GpuOp *copy = malloc(sizeof(GpuOp));

	if (!copy)
		gpu_die("out of memory");
	*copy = *op;
	copy->next = NULL;
	if (list->last)
		list->last->next = copy;
	else
		list->first = copy;
	list->last = copy;
}

static void
drop(GpuGraph *list)
{
	GpuOp *op = list->first;

	list->first = op->next;
	if (!op->next)
		list->last = NULL;
	free(op->args);
	free(op);
}

static void
drop_graph(GpuGraph *graph)
{
	if (--graph->users > 0)
		return;
	while (graph->first)
		drop(graph);
	free(graph);
}

static void run_next(cudaStream_t stream);

static void
run_op(const GpuOp *op)
{
	switch (op->kind)
	{
		case OP_KERNEL:
			counts.kernels++;
			counts.early += op->grid.early;
			counts.clusters += op->grid.cluster > 1;
			if (!gpu_settings->idle)
				gpu_run(op->kernel, &op->grid, op->args);
			break;
		case OP_COPY:
			memcpy(op->to, op->from, op->bytes);
			counts.crossed += op->crosses ? (long) op->bytes : 0;
			break;
		case OP_RECORD:
			if (op->event->done < op->count)
				op->event->done = op->count;
			op->event->runs++;
			break;
		case OP_WAIT:
			while (op->event->done < op->count)
				run_next(op->event->stream);
			break;
		case OP_GRAPH:
			for (const GpuOp *o = op->graph->first; o; o = o->next)
				run_op(o);
			graphs_run++;
			drop_graph(op->graph);
			break;
	}
}

static void
run_next(cudaStream_t stream)
{
	if (!stream->queue.first)
		gpu_die("a wait for what no stream will do");
	run_op(stream->queue.first);
	drop(&stream->queue);
}

static void
run_all(cudaStream_t stream)
{
	while (stream->queue.first)
		run_next(stream);
}

/* Lets streams go on for a while, each as far as nothing holds it. */
static void
wander(void)
{
	for (cudaStream_t s = gpu_streams; s; s = s->next)
		for (unsigned n = gpu_chance(4); n > 0; n--)
			if (s->queue.first && (s->queue.first->kind != OP_WAIT ||
								   s->queue.first->event->done >= s->queue.first->count))
				run_next(s);
}

void
gpu_put(cudaStream_t stream, const GpuOp *op)
{
	append(stream->capture ? stream->capture : &stream->queue, op);
	stream->computes |= op->kind == OP_KERNEL || op->kind == OP_GRAPH;
	wander();
}

static int
code_version(void)
{
	return gpu_settings->code ? gpu_settings->code : gpu_settings->major * 10 + gpu_settings->minor;
}

/* What a launch asks for beside its size; a refusal, if it is refused. */
static cudaError_t
take_attributes(const cudaLaunchConfig_t *config, GpuGrid *grid)
{
	for (unsigned i = 0; i < config->numAttrs; i++)
		switch (config->attrs[i].id)
		{
			case cudaLaunchAttributeProgrammaticStreamSerialization:
				grid->early = config->attrs[i].val.programmaticStreamSerializationAllowed != 0;
				break;
			case cudaLaunchAttributeClusterDimension:
				if (config->attrs[i].val.clusterDim.x != 1 ||
					config->attrs[i].val.clusterDim.z != 1)
					gpu_die("a cluster that is not along y");
				grid->cluster = config->attrs[i].val.clusterDim.y;
				break;
		}
	/* older code would not wait, and older cards not know what is meant */
	if ((grid->early || grid->cluster > 1) && code_version() < 90)
		gpu_die("a launch that the kernel's code is too old for");
	if (grid->early && gpu_settings->no_early)
		return (cudaError_t) gpu_settings->no_early;
	if (grid->cluster > 1 && gpu_settings->no_clusters)
		return (cudaError_t) gpu_settings->no_clusters;
	return cudaSuccess;
}

static void
check_size(const GpuGrid *grid)
{
	const GpuIndex *n = &grid->blocks;

	if (grid->threads == 0 || grid->threads > GPU_MAX_THREADS || n->x == 0 || n->y == 0 ||
		n->z == 0 || n->x > INT32_MAX || n->y > 65535 || n->z > 65535 || grid->cluster == 0 ||
		grid->cluster > GPU_MAX_CLUSTER || n->y % grid->cluster != 0)
		gpu_die("a launch out of bounds");
}

cudaError_t
cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel_, void **args)
{
	const GpuKernel *kernel = kernel_;
	cudaStream_t stream = config->stream;
	GpuOp op = {
		.kind = OP_KERNEL,
		.kernel = kernel,
		.grid = { { config->gridDim.x, config->gridDim.y, config->gridDim.z },
				  config->blockDim.x,
				  1,
				  false },
	};
	cudaError_t refused;
	RUNTIME;

	refused = take_attributes(config, &op.grid);
	check_size(&op.grid);
	load_kernel(kernel);
	if (gpu_settings->no_kernel)
		refused = (cudaError_t) gpu_settings->no_kernel;
	else if (stream->device != current)
		refused = cudaErrorInvalidResourceHandle;
	else if (gpu_fails())
		refused = gpu_failure(cudaErrorLaunchFailure);
	if (refused != cudaSuccess)
	{
		stream->invalid = true;
		return gpu_report(refused);
	}
	op.args = malloc(kernel->bytes);
	if (!op.args)
		gpu_die("out of memory");
	memcpy(op.args, args[0], kernel->bytes);
	gpu_put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *kernel)
{
	RUNTIME;

	if (gpu_settings->no_kernel)
		return gpu_report((cudaError_t) gpu_settings->no_kernel);
	if (gpu_fails())
		return gpu_failure(cudaErrorLaunchFailure);
	attributes->ptxVersion = code_version();
	return cudaSuccess;
}

GpuCounts
gpu_counts(void)
{
	return counts;
}

long
gpu_graphs_run(void)
{
	return graphs_run;
}

long
gpu_waits(bool asleep)
{
	return waits[!asleep];
}

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
	RUNTIME;

	if (gpu_fails() || !(*stream = calloc(1, sizeof(struct GpuStream))))
		return gpu_failure(cudaErrorMemoryAllocation);
	(*stream)->device = current;
	(*stream)->next = gpu_streams;
	gpu_streams = *stream;
	(*stream)->born = graphs_launched;
	return cudaSuccess;
}

/* Graphs that were launched since the stream is there; -1: it holds nobody. */
static long
launched_since(cudaStream_t stream)
{
	RUNTIME;

	if (stream->computes || stream->held || captures > 0)
		return -1;
	for (const GpuOp *op = stream->queue.first; op; op = op->next)
		if (op->kind == OP_COPY && gpu_is_pinned(op->to, op->bytes))
			return graphs_launched - stream->born;
	return -1;
}

/* As if a copy took its time. */
static void
hold_copy(cudaStream_t stream)
{
	long launched = launched_since(stream);

	if (gpu_settings->hold == 0 || launched < 0)
		return;
	for (int ms = 0; launched < gpu_settings->hold && ms < HOLD_MS; ms++)
	{
		usleep(1000);
		launched = launched_since(stream);
	}
	stream->held = true;
	gpu_settings->held += launched;
}

cudaError_t
cudaStreamSynchronize(cudaStream_t stream)
{
	hold_copy(stream);
	RUNTIME;

	gpu_not_in_capture("cudaStreamSynchronize");
	run_all(stream);
	return gpu_fails() ? gpu_failure(cudaErrorLaunchFailure) : cudaSuccess;
}

cudaError_t
cudaStreamDestroy(cudaStream_t stream)
{
	RUNTIME;

	run_all(stream);
	for (cudaStream_t *s = &gpu_streams; *s; s = &(*s)->next)
		if (*s == stream)
		{
			*s = stream->next;
			break;
		}
	free(stream);
	return cudaSuccess;
}

cudaError_t
cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	GpuOp op = { .kind = OP_WAIT, .event = event, .count = event->recorded };
	RUNTIME;

	if (event->capture != stream->capture)
		gpu_die("a wait for an event out of a capture, or into one");
	if (gpu_fails())
		return gpu_failure(cudaErrorInvalidValue);
	gpu_put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	RUNTIME;

	if (gpu_fails() || !(*event = calloc(1, sizeof(struct GpuEvent))))
		return gpu_failure(cudaErrorMemoryAllocation);
	(*event)->device = current;
	(*event)->timed = (flags & cudaEventDisableTiming) == 0;
	(*event)->sleeps = (flags & cudaEventBlockingSync) != 0;
	return cudaSuccess;
}

cudaError_t
cudaEventDestroy(cudaEvent_t event)
{
	RUNTIME;

	while (event->done < event->recorded && !event->capture)
		run_next(event->stream);
	free(event);
	return cudaSuccess;
}

cudaError_t
cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	GpuOp op = { .kind = OP_RECORD, .event = event, .count = event->recorded + 1 };
	RUNTIME;

	if (event->device != stream->device)
		return gpu_report(cudaErrorInvalidResourceHandle);
	if (gpu_fails())
		return gpu_failure(cudaErrorInvalidValue);
	event->recorded++;
	event->stream = stream;
	event->capture = stream->capture;
	gpu_put(stream, &op);
	return cudaSuccess;
}

/*
 * A node of a graph, as which alone the device uses it: nobody waits for such
 * an event.
 */
cudaError_t
cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
	GpuOp op = { .kind = OP_RECORD, .event = event };
	RUNTIME;

	if (gpu_fails() || flags != cudaEventRecordExternal || !stream->capture)
		return gpu_failure(cudaErrorInvalidValue);
	gpu_put(stream, &op);
	return cudaSuccess;
}

cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
	RUNTIME;

	gpu_not_in_capture("cudaEventSynchronize");
	if (event->capture)
		gpu_die("a wait for an event of a capture");
	waits[!event->sleeps] += event->done < event->recorded;
	while (event->done < event->recorded)
		run_next(event->stream);
	return gpu_fails() ? gpu_failure(cudaErrorLaunchFailure) : cudaSuccess;
}

/* Lets one thing run that has to before it. */
static void
advance(cudaStream_t stream)
{
	GpuOp *first = stream->queue.first;

	if (first && first->kind == OP_WAIT && first->event->done < first->count)
		advance(first->event->stream);
	else
		run_next(stream);
}

/* Who asks again and again sees it come, a little at a time. */
cudaError_t
cudaEventQuery(cudaEvent_t event)
{
	RUNTIME;

	gpu_not_in_capture("cudaEventQuery");
	if (event->capture)
		gpu_die("a question about an event of a capture");
	if (event->done < event->recorded)
	{
		for (int i = 0; i < QUERY_OPS && event->done < event->recorded; i++)
			advance(event->stream);
		return gpu_report(cudaErrorNotReady);
	}
	return gpu_fails() ? gpu_failure(cudaErrorLaunchFailure) : cudaSuccess;
}

cudaError_t
cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
	RUNTIME;

	if (!from->timed || !to->timed || from->runs == 0 || to->runs == 0)
		return gpu_report(cudaErrorInvalidResourceHandle);
	if (from->done < from->recorded || to->done < to->recorded)
		return gpu_report(cudaErrorNotReady);
	*ms = 1;
	return gpu_fails() ? gpu_failure(cudaErrorInvalidValue) : cudaSuccess;
}

cudaError_t
cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
	RUNTIME;

	if (stream->capture)
		gpu_die("a stream is captured already");
	if (gpu_fails() || !(stream->capture = calloc(1, sizeof(GpuGraph))))
		return gpu_failure(cudaErrorMemoryAllocation);
	stream->capture->users = 1;
	stream->invalid = false;
	captures++;
	return cudaSuccess;
}

cudaError_t
cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	RUNTIME;

	if (!stream->capture)
		gpu_die("the end of a capture that has not begun");
	*graph = stream->capture;
	stream->capture = NULL;
	captures--;
	if (!stream->invalid)
		return cudaSuccess;
	drop_graph(*graph);
	*graph = NULL;
	return gpu_report(cudaErrorStreamCaptureInvalidated);
}

cudaError_t
cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
	RUNTIME;

	if (gpu_fails())
		return gpu_failure(cudaErrorMemoryAllocation);
	graph->users++;
	*exec = graph;
	return cudaSuccess;
}

cudaError_t
cudaGraphDestroy(cudaGraph_t graph)
{
	RUNTIME;

	drop_graph(graph);
	return cudaSuccess;
}

cudaError_t
cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	RUNTIME;

	for (cudaStream_t s = gpu_streams; s; s = s->next)
		for (const GpuOp *op = s->queue.first; op; op = op->next)
			if (op->kind == OP_GRAPH && op->graph == exec)
				gpu_die("a graph is destroyed before it has run");
	drop_graph(exec);
	return cudaSuccess;
}

cudaError_t
cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	GpuOp op = { .kind = OP_GRAPH, .graph = exec };
	RUNTIME;

	gpu_not_in_capture("cudaGraphLaunch");
	if (gpu_fails())
		return gpu_failure(cudaErrorLaunchFailure);
	exec->users++;
	graphs_launched++;
	gpu_put(stream, &op);
	return cudaSuccess;
}

/* ---- The card ------------------------------------------------------------ */

cudaError_t
cudaGetDeviceCount(int *count)
{
	*count = 0;
	if (gpu_settings->driver < 13000)
		return gpu_report(cudaErrorInsufficientDriver);
	if (gpu_settings->no_device)
		return gpu_report((cudaError_t) gpu_settings->no_device);
	*count = gpu_settings->devices;
	return gpu_report(gpu_settings->devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t
cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	memset(properties, 0, sizeof(*properties));
	strcpy(properties->name, "imitated GPU");
	properties->major = gpu_settings->major;
	properties->minor = gpu_settings->minor;
	properties->totalGlobalMem = gpu_settings->memory;
	properties->l2CacheSize = gpu_settings->cache > 0 ? gpu_settings->cache : 80 << 20;
	return cudaSuccess;
}

cudaError_t
cudaGetDevice(int *device)
{
	*device = current;
	return cudaSuccess;
}

cudaError_t
cudaDriverGetVersion(int *version)
{
	*version = gpu_settings->driver;
	return cudaSuccess;
}

static _Atomic bool has_context[MAX_DEVICES];

/* ms that a context takes now. */
static int
slowness(void)
{
	const char *path = getenv("BICYCLE_TEST_SLOW");
	FILE *file = path ? fopen(path, "re") : NULL;
	int ms = gpu_settings->slow;

	if (file && fscanf(file, "%d", &ms) != 1)
		ms = 0;
	if (file)
		fclose(file);
	return ms;
}

/* As a driver does that compiles kernels: then the process has it. */
static void
make_context(int device)
{
	if (device >= MAX_DEVICES || has_context[device])
		return;
	usleep((useconds_t) slowness() * 1000);
	has_context[device] = true;
	__atomic_fetch_add(&gpu_settings->contexts, 1, __ATOMIC_SEQ_CST);
}

static void
drop_context(int device)
{
	if (!has_context[device])
		return;
	has_context[device] = false;
	__atomic_fetch_sub(&gpu_settings->contexts, 1, __ATOMIC_SEQ_CST);
}

/* Where a process ends in order. */
__attribute__((destructor)) static void
drop_contexts(void)
{
	for (int i = 0; i < MAX_DEVICES; i++)
		drop_context(i);
}

/* Stricter than CUDA, which destroys what there is. */
cudaError_t
cudaDeviceReset(void)
{
	RUNTIME;

	for (cudaStream_t s = gpu_streams; s; s = s->next)
		if (s->device == current)
			gpu_die("a device is reset that has streams");
	drop_context(current);
	return cudaSuccess;
}

/*
 * Makes the device's context if there is none, for which the others may leave
 * no room.
 */
cudaError_t
cudaSetDevice(int device)
{
	make_context(device);
	RUNTIME;

	if (device >= gpu_settings->devices)
		return gpu_report(cudaErrorInvalidDevice);
	if (gpu_fails())
		return gpu_failure(cudaErrorDevicesUnavailable);
	current = device;
	return cudaSuccess;
}
