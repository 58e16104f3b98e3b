/*
 * cuda_runtime_api.h
 *	  The part of CUDA's runtime that the device uses, as runtime_on_cpu.c
 *	  imitates it for tests. Found in place of the toolkit's header by those
 *	  tests only.
 *
 * Streams are queues: what is put there runs when somebody waits for it, so
 * that a result that is read too early is not there yet; or, if a test says so,
 * at some time before, so that what is overwritten too early is.
 */
#ifndef BICYCLE_TEST_CUDA_RUNTIME_API_H
#define BICYCLE_TEST_CUDA_RUNTIME_API_H

#include <stdbool.h>
#include <stddef.h>

typedef enum cudaError
{
	cudaSuccess = 0,
	cudaErrorInvalidValue = 1,
	cudaErrorMemoryAllocation = 2,
	cudaErrorInvalidConfiguration = 9,
	cudaErrorInsufficientDriver = 35,
	cudaErrorDevicesUnavailable = 46,
	cudaErrorInvalidDeviceFunction = 98,
	cudaErrorNoDevice = 100,
	cudaErrorUnknown = 999,
	cudaErrorInvalidDevice = 101,
	cudaErrorInvalidKernelImage = 200,
	cudaErrorNoKernelImageForDevice = 209,
	cudaErrorInvalidPtx = 218,
	cudaErrorJitCompilerNotFound = 221,
	cudaErrorUnsupportedPtxVersion = 222,
	cudaErrorJitCompilationDisabled = 223,
	cudaErrorInvalidResourceHandle = 400,
	cudaErrorNotReady = 600,
	cudaErrorLaunchOutOfResources = 701,
	cudaErrorLaunchFailure = 719,
	cudaErrorNotSupported = 801,
	cudaErrorSystemNotReady = 802,
	cudaErrorStreamCaptureInvalidated = 901,
	cudaErrorInvalidClusterSize = 912
} cudaError_t;

typedef struct GpuStream *cudaStream_t;
typedef struct GpuEvent *cudaEvent_t;
typedef struct GpuGraph *cudaGraph_t;
typedef struct GpuGraph *cudaGraphExec_t;

typedef enum cudaMemcpyKind
{
	cudaMemcpyHostToDevice = 1,
	cudaMemcpyDeviceToHost = 2,
	cudaMemcpyDeviceToDevice = 3
} cudaMemcpyKind;

typedef enum cudaStreamCaptureMode
{
	cudaStreamCaptureModeThreadLocal = 1
} cudaStreamCaptureMode;

struct cudaDeviceProp
{
	char name[256];
	int major, minor;
	size_t totalGlobalMem;
	int l2CacheSize;
};

typedef struct dim3
{
	unsigned x, y, z;
} dim3;

typedef enum cudaLaunchAttributeID
{
	cudaLaunchAttributeClusterDimension = 4,
	cudaLaunchAttributeProgrammaticStreamSerialization = 6
} cudaLaunchAttributeID;

typedef struct cudaLaunchAttribute
{
	cudaLaunchAttributeID id;
	union
	{
		dim3 clusterDim;
		int programmaticStreamSerializationAllowed;
	} val;
} cudaLaunchAttribute;

typedef struct cudaLaunchConfig_t
{
	dim3 gridDim, blockDim;
	size_t dynamicSmemBytes;
	cudaStream_t stream;
	cudaLaunchAttribute *attrs;
	unsigned numAttrs;
} cudaLaunchConfig_t;

struct cudaFuncAttributes
{
	int ptxVersion; /* what the code was compiled for: 90 */
};

#define cudaStreamNonBlocking 1
#define cudaEventBlockingSync 1
#define cudaEventDisableTiming 2
#define cudaEventRecordExternal 1

extern cudaError_t cudaGetDeviceCount(int *count);
extern cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device);
extern cudaError_t cudaGetDevice(int *device);
extern cudaError_t cudaDriverGetVersion(int *version);
extern cudaError_t cudaSetDevice(int device);
extern cudaError_t cudaDeviceReset(void);
extern cudaError_t cudaGetLastError(void);
extern const char *cudaGetErrorString(cudaError_t error);

/* kernel: a GpuKernel. */
extern cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
									   void **args);
extern cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *kernel);

extern cudaError_t cudaMalloc(void **p, size_t bytes);
extern cudaError_t cudaFree(void *p);
extern cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
extern cudaError_t cudaMallocHost(void **p, size_t bytes);
extern cudaError_t cudaFreeHost(void *p);
extern cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
								   cudaStream_t stream);

extern cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
extern cudaError_t cudaStreamDestroy(cudaStream_t stream);
extern cudaError_t cudaStreamSynchronize(cudaStream_t stream);
extern cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
extern cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
extern cudaError_t cudaEventDestroy(cudaEvent_t event);
extern cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
extern cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
extern cudaError_t cudaEventSynchronize(cudaEvent_t event);
extern cudaError_t cudaEventQuery(cudaEvent_t event);
extern cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to); /* always 1 */

extern cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
extern cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
extern cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
										unsigned long long flags);
extern cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
extern cudaError_t cudaGraphDestroy(cudaGraph_t graph);
extern cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* ---- For tests ----------------------------------------------------------- */

typedef struct GpuSettings
{
	int devices; /* 0: none; they share their memory */
	int driver;  /* the CUDA it is for: 13000; 0: there is none */
	int major,   /* compute capability */
		minor;
	int code;          /* what kernels are compiled for: 80; 0: the card */
	int no_device;     /* the error in place of devices; 0: there are those */
	size_t memory;     /* of the card */
	size_t others;     /* bytes of it that other processes hold */
	size_t library;    /* bytes that must be left when a convolution is first run */
	int cache;         /* bytes of its second-level one; 0: plenty */
	int no_kernel;     /* the error of a driver that cannot load ours; 0: it can */
	long fail_in;      /* calls of the runtime until one that can fail fails; 0: none does */
	int fail_with;     /* its error; 0: one of its own */
	int fail_for_good; /* and all after it do, too, as after an error of a kernel */
	int no_early;      /* the error of a runtime that launches no kernel early; 0: it does */
	int no_clusters;   /* and of one that has no clusters */
	int idle;          /* kernels are counted, but do not run */
	unsigned
		/*
		 * seed of the order in which streams, blocks and threads run; 0:
		 * streams as late as they can, and others forwards
		 */
		chance;
	/*
	 * graphs that are launched from a stream's creation on before its first
	 * copy off the card has come, where it has copies alone; a minute at most
	 */
	int hold;
	long held;    /* that were; not to be set */
	int contexts; /* that processes have; not to be set */
	int slow;     /* ms that a process takes to make a context */
	size_t used;  /* bytes; not to be set */
} GpuSettings;

/*
 * In a file that the environment names as BICYCLE_TEST_GPU, where another
 * process can set them; or by itself, with BICYCLE_TEST_GPUS devices, and
 * `slow` by the file that BICYCLE_TEST_SLOW names, while there is one.
 */
extern GpuSettings *gpu_settings;
extern size_t gpu_memory_used(void);
extern long gpu_graphs_run(void);
/* Waits for an event that was not over, asleep or as long as it takes awake. */
extern long gpu_waits(bool asleep);

/* Kernels that have run, in graphs too. */
typedef struct GpuCounts
{
	long kernels, early, clusters; /* all; of these, launched early; in clusters */
	long crossed;                  /* bytes copied to and from the host */
} GpuCounts;

extern GpuCounts gpu_counts(void);

#endif /* BICYCLE_TEST_CUDA_RUNTIME_API_H */
