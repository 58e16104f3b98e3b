/*
 * cuda.c
 *	  The CUDA device: opening a GPU, and the one symbol of bicycle_cuda.so.
 *
 * A CudaDevice owns its streams, cuDNN's handle and the pool (cuda_pool.c).
 * Called by the device's owner.
 */
#include "nn/cuda/cuda_train.h"

#include "nn/cuda/module.h"
#ifdef BICYCLE_TRACE
#include "nn/cuda/trace/cuda_trace.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_CAPABILITY 75
#define HALF_1 0x3c00 /* numbers in half precision */
#define HALF_32 0x5000
#define HALF_72 0x5480
/* of a plan: 64 images of 256 x 256 in half precision */
#define MAX_ARENA_BYTES ((size_t) 2 << 30)

/* ---- The device ---------------------------------------------------------- */

static bool
cuda_supports(const NnDevice *base, NnPrecision precision)
{
	const CudaDevice *device = base->state;

	return (precision != NN_PRECISION_BF16 && precision != NN_PRECISION_TF32) ||
		   device->capability >= 80;
}

static size_t
cuda_element_bytes(const NnDevice *base, NnPrecision precision)
{
	return kernel_type_size(cuda_type(precision));
}

static const char *
cuda_describe(const NnDevice *base)
{
	return ((const CudaDevice *) base->state)->card;
}

/* The number has no meaning here: the GPU does the work. */
static void
cuda_set_threads(NnDevice *base, int threads)
{
	base->threads = threads > 0 ? threads : 1;
}

static void
cuda_close(NnDevice *base)
{
	CudaDevice *device = base->state;
	cudaStream_t streams[] = { device->in, device->compute, device->out, device->upload };
	NnError error;

	/* an unused GPU needs no context; after an error only the host is freed */
	if (device->in)
		(void) cuda_use(device, &error);
	cuda_convs_close(device->convs);
	cuda_drop_spares(&device->pool);
	for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++)
		if (streams[i])
			(void) cudaStreamDestroy(streams[i]);
	pthread_mutex_destroy(&device->pool.lock);
	free(device->tracer);
	free(device);
}

static NnStatus
missing(NnError *error, NnStatus status, const char *what, const char *detail, const char *hint)
{
	nn_fail(error, status, "%s", what);
	nn_detail(error, "%s", detail);
	nn_hint(error, "%s", hint);
	return status;
}

/* Whether there is a driver for this build, and a GPU new enough. */
static NnStatus
probe(CudaDevice *device, NnError *error)
{
	struct cudaDeviceProp properties;
	int count = 0, driver = 0;
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	char detail[400];
	cudaError_t result = cudaGetDeviceCount(&count);

	(void) cudaDriverGetVersion(&driver);
	if (result == cudaErrorInsufficientDriver || driver == 0)
	{
		snprintf(detail, sizeof(detail),
				 driver == 0 ? "There is no NVIDIA driver here."
							 : "The NVIDIA driver supports CUDA %d.%d only.",
				 driver / 1000, driver % 1000 / 10);
		return missing(error, NN_EUNSUPPORTED, "no usable NVIDIA driver", detail,
					   "Install an NVIDIA driver for CUDA 13 (580 or later), or set "
					   "\"bicycle.device\" to auto or cpu.");
	}
	/*
	 * With a driver's library here, GPUs may come: the driver's module may not
	 * be loaded yet, or be another after an upgrade, or a card be reset. None
	 * comes if the environment hides all.
	 */
	if (result != cudaSuccess || count == 0)
	{
		bool hidden = visible && (visible[0] == '\0' || visible[0] == '-');

		snprintf(detail, sizeof(detail), "CUDA reported: %s%s%s%s.", cudaGetErrorString(result),
				 visible ? ", with CUDA_VISIBLE_DEVICES set to \"" : "", visible ? visible : "",
				 visible ? "\"" : "");
		(void) cudaGetLastError();
		return missing(error, hidden ? NN_EUNSUPPORTED : NN_EDEVICE, "no usable NVIDIA GPU", detail,
					   "Check nvidia-smi, or set \"bicycle.device\" to auto or cpu.");
	}
	if (device->index >= count)
	{
		snprintf(detail, sizeof(detail), "CUDA sees %d here, counted from 0%s.", count,
				 visible ? " in the order of CUDA_VISIBLE_DEVICES" : "");
		return missing(error, NN_EUNSUPPORTED, "no GPU of that number", detail,
					   "Set \"bicycle.device\" to cuda, or to cuda:N with a smaller number.");
	}
	result = cudaGetDeviceProperties(&properties, device->index);
	if (result != cudaSuccess)
		return cuda_check(error, result, "be asked what it is");
	device->capability = properties.major * 10 + properties.minor;
	device->card_bytes = properties.totalGlobalMem;
	device->cache_bytes = properties.l2CacheSize > 0 ? (size_t) properties.l2CacheSize : 0;
	snprintf(device->card, sizeof(device->card),
			 "cuda:%d (%.60s, compute capability %d.%d, %.0f GiB, driver %d.%d", device->index,
			 properties.name, properties.major, properties.minor,
			 (double) properties.totalGlobalMem / (1 << 30), driver / 1000, driver % 1000 / 10);
	if (device->capability < MIN_CAPABILITY)
	{
		snprintf(detail, sizeof(detail),
				 "The GPU is %.60s, of compute capability %d.%d; %d.%d is the least.",
				 properties.name, properties.major, properties.minor, MIN_CAPABILITY / 10,
				 MIN_CAPABILITY % 10);
		return missing(error, NN_EUNSUPPORTED, "GPU is too old", detail,
					   "Set \"bicycle.device\" to auto or cpu.");
	}
	return NN_OK;
}

/* Whether the driver cannot make the GPU's code of our kernels. */
static bool
is_unloadable(cudaError_t result)
{
	static const cudaError_t errors[] = {
		cudaErrorInvalidDeviceFunction,  cudaErrorInvalidKernelImage,
		cudaErrorNoKernelImageForDevice, cudaErrorInvalidPtx,
		cudaErrorJitCompilerNotFound,    cudaErrorUnsupportedPtxVersion,
		cudaErrorJitCompilationDisabled
	};

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (result == errors[i])
			return true;
	return false;
}

/*
 * Runs a kernel once, which loads all, so that what is amiss shows when the
 * device is opened and the CPU may still be taken, not amid the work.
 */
static NnStatus
try_kernel(CudaDevice *device, NnError *error)
{
	static const uint8_t bytes[KERNEL_VECTOR] = { 0, 255 };
	float made[KERNEL_VECTOR] = { 0 };
	CudaBlock block;
	NnStatus status = cuda_take(device, 2 * CUDA_ALIGN, &block, error);
	cudaStream_t stream = device->upload;
	KernelMap from = kernel_map(block.data, KERNEL_U8, KERNEL_VECTOR),
			  to = kernel_map((char *) block.data + CUDA_ALIGN, KERNEL_F32, KERNEL_VECTOR);
	cudaError_t result, ended;

	if (status != NN_OK)
		return status;
	result = cudaMemcpyAsync(from.data, bytes, sizeof(bytes), cudaMemcpyHostToDevice, stream);
	if (result == cudaSuccess)
		result = (cudaError_t) kernel_convert(stream, &from, &to, 1, KERNEL_VECTOR, KERNEL_VECTOR);
	if (result == cudaSuccess)
		result = cudaMemcpyAsync(made, to.data, sizeof(made), cudaMemcpyDeviceToHost, stream);
	/* in any case, as what is queued goes to memory that ends here */
	ended = cudaStreamSynchronize(stream);
	result = result == cudaSuccess ? ended : result;
	cuda_give(device, &block);
	cuda_drop_spares(&device->pool);
	status = cuda_check(error, result, "run a first kernel");
	if (is_unloadable(result))
	{
		status = nn_fail(error, NN_EUNSUPPORTED, "GPU cannot run the kernels of this build");
		nn_detail(error, "CUDA reported: %s.", cudaGetErrorString(result));
		nn_hint(error,
				"Build with \"make CUDA_ARCH=%d\", install a newer NVIDIA driver, or set "
				"\"bicycle.device\" to auto or cpu.",
				device->capability);
	}
	if (status == NN_OK && (made[0] != -1 || made[1] != 1))
	{
		status = nn_fail(error, NN_EDEVICE, "GPU computes wrong numbers");
		nn_detail(error, "Bytes 0 and 255 became %g and %g.", (double) made[0], (double) made[1]);
	}
	return status;
}

#define TRIED_EXTENT 8
#define TRIED_NUMBERS (TRIED_EXTENT * TRIED_EXTENT * KERNEL_VECTOR) /* 8 channels */

/* Runs a convolution 3 x 3 of ones, and gives its result. */
static NnStatus
run_conv(CudaDevice *device, CudaConv *conv, uint16_t numbers[TRIED_NUMBERS], NnError *error)
{
	size_t bytes = TRIED_NUMBERS * sizeof(uint16_t), workspace = cuda_conv_workspace(conv);
	CudaBlock block;
	NnStatus status = cuda_take(device, 4 * bytes + workspace, &block, error);
	char *x = block.data, *filter = x + bytes, *y = x + 3 * bytes, *rest = x + 4 * bytes;
	cudaError_t result;

	if (status != NN_OK)
		return status;
	for (int i = 0; i < TRIED_NUMBERS; i++)
		numbers[i] = HALF_1;
	result = cudaMemcpyAsync(x, numbers, bytes, cudaMemcpyHostToDevice, device->compute);
	for (int i = 0; i < 2 && result == cudaSuccess; i++)
		result = cudaMemcpyAsync(filter + i * bytes, numbers, bytes, cudaMemcpyHostToDevice,
								 device->compute);
	status = cuda_check(error, result, "take numbers");
	if (status == NN_OK)
		status = cuda_conv_prove(device->convs, conv, x, filter, y, rest, workspace, error);
	if (status == NN_OK)
		status = cuda_conv_run(device->convs, conv, x, filter, y, rest, error);
	if (status == NN_OK)
		status = cuda_check(
			error, cudaMemcpyAsync(numbers, y, bytes, cudaMemcpyDeviceToHost, device->compute),
			"give numbers");
	/* in any case, as what is queued goes to memory that ends here */
	result = cudaStreamSynchronize(device->compute);
	if (status == NN_OK)
		status = cuda_check(error, result, "run a first convolution");
	cuda_give(device, &block);
	cuda_drop_spares(&device->pool);
	return status;
}

/*
 * The same for the library, which may be there, be loaded, plan for this GPU,
 * and yet not run on it.
 */
static NnStatus
try_conv(CudaDevice *device, NnError *error)
{
	static const CudaConvShape shape = { .type = KERNEL_F16,
										 .steady = true,
										 .n = 1,
										 .h = TRIED_EXTENT,
										 .w = TRIED_EXTENT,
										 .c = KERNEL_VECTOR,
										 .oh = TRIED_EXTENT,
										 .ow = TRIED_EXTENT,
										 .k = KERNEL_VECTOR,
										 .kernel = 3,
										 .stride = 1,
										 .pad = 1 };
	uint16_t numbers[TRIED_NUMBERS] = { 0 };
	CudaConv *conv;
	NnStatus status = cuda_conv_open(device->convs, &shape, &conv, error);

	if (status != NN_OK)
		return status;
	status = run_conv(device, conv, numbers, error);
	cuda_conv_close(conv);
	/* a corner sees four pixels, and what is inside nine, of eight channels */
	if (status == NN_OK &&
		(numbers[0] != HALF_32 || numbers[(TRIED_EXTENT + 1) * KERNEL_VECTOR] != HALF_72))
	{
		status = nn_fail(error, NN_EUNSUPPORTED, "%s computes wrong numbers",
						 cuda_convs_name(device->convs));
		nn_detail(error, "Sums of 32 and 72 ones are %#x and %#x.", numbers[0],
				  numbers[(TRIED_EXTENT + 1) * KERNEL_VECTOR]);
	}
	return status;
}

/* GPUs on which this process may have a context. */
#define MOST_GPUS 64
static bool touched[MOST_GPUS];

/* Streams, and cuDNN on one of them. */
static NnStatus
set_up(CudaDevice *device, NnError *error)
{
	cudaStream_t *streams[] = { &device->in, &device->compute, &device->out, &device->upload };
	NnStatus status = cuda_use(device, error);
	size_t length;

	if (status == NN_OK && device->index < MOST_GPUS)
		touched[device->index] = true;
	for (size_t i = 0; status == NN_OK && i < sizeof(streams) / sizeof(streams[0]); i++)
		status = cuda_check(error, cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking),
							"create a stream");
	if (status == NN_OK)
		kernel_open_device();
	if (status == NN_OK)
		status = try_kernel(device, error);
	if (status == NN_OK)
		status = cuda_convs_open(device->compute, &device->convs, error);
	if (status == NN_OK)
		status = try_conv(device, error);
	if (status != NN_OK)
		return status;
	length = strlen(device->card);
	snprintf(device->card + length, sizeof(device->card) - length, ", %s)",
			 cuda_convs_name(device->convs));
	return NN_OK;
}

static const NnMemoryDevice cuda_memory_device = { .set_limit = cuda_set_memory,
												   .report = cuda_memory,
												   .room = cuda_room,
												   .trim = cuda_trim,
												   .plan_bytes = cuda_plan_bytes };
static const NnAsyncDevice cuda_async_device = { .start = cuda_start,
												 .ready = cuda_ready,
												 .finish = cuda_finish,
												 .pin = cuda_pin,
												 .unpin = cuda_unpin };

static NnStatus
cuda_open(int index, int threads, NnDevice **out, NnError *error)
{
	CudaDevice *device = calloc(1, sizeof(CudaDevice));
	NnStatus status;

	if (!device)
		return nn_no_memory(error, sizeof(CudaDevice));
	device->index = index;
	pthread_mutex_init(&device->pool.lock, NULL);
	device->base = (NnDevice){
		.name = "cuda",
		.state = device,
		.pack = cuda_pack,
		.pack_free = cuda_pack_free,
		.pack_bytes = cuda_pack_bytes,
		.prepare = cuda_prepare,
		.run = cuda_run,
		.release = cuda_release,
		.supports = cuda_supports,
		.element_bytes = cuda_element_bytes,
		.describe = cuda_describe,
		.set_threads = cuda_set_threads,
		.close = cuda_close,
		.takes_bytes = true,
		.takes_fewer = true,
		.most_images = CUDA_MOST_IMAGES,
		.max_arena_bytes = MAX_ARENA_BYTES,
		.joins = cuda_joins,
		.memory = &cuda_memory_device,
		.async = &cuda_async_device,
		.train = &cuda_train_device,
	};
	cuda_set_threads(&device->base, threads);
	status = probe(device, error);
	if (status == NN_OK)
	{
		cuda_set_memory(&device->base, 0);
		status = set_up(device, error);
	}
	if (status != NN_OK)
	{
		cuda_close(&device->base);
		(void) cudaGetLastError();
		return status;
	}
#ifdef BICYCLE_TRACE
	device->tracer = cuda_tracer_open(device);
#endif
	device->base.automatic = device->capability >= 80 ? NN_PRECISION_BF16 : NN_PRECISION_FP16;
	*out = &device->base;
	return NN_OK;
}

/*
 * A context holds hundreds of megabytes as long as its process lives, or until
 * it is destroyed; that cuDNN, which has a runtime of its own, would work in a
 * second one is not known.
 */
static void
cuda_leave(void)
{
	for (int i = 0; i < MOST_GPUS; i++)
		if (touched[i])
		{
			(void) cudaSetDevice(i);
			(void) cudaDeviceReset();
			touched[i] = false;
		}
	(void) cudaGetLastError();
}

static int
cuda_count(void)
{
	int count = 0;

	if (cudaGetDeviceCount(&count) != cudaSuccess)
	{
		(void) cudaGetLastError();
		return 0;
	}
	return count;
}

extern const NnCudaModule bicycle_cuda_module;
__attribute__((visibility("default")))
const NnCudaModule bicycle_cuda_module = { .sizes = NN_CUDA_SIZES,
										   .version = BICYCLE_VERSION,
										   .open = cuda_open,
										   .count = cuda_count,
										   .leave = cuda_leave,
										   .faults = &fault_state };
