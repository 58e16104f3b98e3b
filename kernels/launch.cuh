/*
 * launch.cuh
 *	  What a kernel is, and how one is launched.
 *
 * A kernel is written in the C that nvcc and a C compiler both understand, and
 * takes one struct, `a`, by value, so that a launch can be kept and run again
 * by something other than a GPU: without nvcc, test/cuda/gpu_on_cpu.h runs the
 * same files on the CPU.
 *
 * R1 Every kernel waits first for what was launched before it (kernel_await):
 *    code for compute capability 9.0 and later is launched while that still
 *    runs, so that its blocks are in their places when it ends. KERNEL sees to
 *    it; nothing may be read, written or left before, but for weights, which
 *    no kernel of a plan writes (stream_conv.cu).
 */
#ifndef BICYCLE_KERNELS_LAUNCH_CUH
#define BICYCLE_KERNELS_LAUNCH_CUH

#include "kernels.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define KERNEL_API extern "C"
#define KERNEL_LOCAL static __device__ __forceinline__
#define KERNEL_ARGS(Args) const Args &a
#define KERNEL_GLOBAL(name, Args) \
	static __global__ void __launch_bounds__(256) name(const __grid_constant__ Args a)
#define KERNEL_OF(name) ((const void *) name)
#define KERNEL_FOR_90 (__CUDA_ARCH__ >= 900)
/*
 * Keeps a number in its register; the compiler would rather make some anew each
 * time.
 */
#define KERNEL_HOLD(x) asm volatile("" : "+r"(x))
#else
#include "gpu_on_cpu.h"
#define KERNEL_FOR_90 1
#define KERNEL_HOLD(x) ((void) (x))
#endif

#define KERNEL_THREADS 256
#define KERNEL_WARP 32
#define KERNEL_TOO_LARGE 1 /* cudaErrorInvalidValue: more elements than a launch counts */

/* ---- A kernel ------------------------------------------------------------ */

/*
 * Until what was launched before has ended and its results are there; then lets
 * what is launched after take its place, and wait here in turn.
 */
KERNEL_LOCAL void
kernel_await(void)
{
#if KERNEL_FOR_90
	cudaGridDependencySynchronize();
	cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/*
 * Waits for all threads of all blocks of a cluster, and sees what they wrote.
 */
KERNEL_LOCAL void
kernel_meet(void)
{
#if KERNEL_FOR_90
	__cluster_barrier_arrive();
	__cluster_barrier_wait();
#endif
}

#define KERNEL(name, Args)                            \
	KERNEL_LOCAL void name##_body(KERNEL_ARGS(Args)); \
	KERNEL_GLOBAL(name, Args)                         \
	{                                                 \
		kernel_await();                               \
		name##_body(a);                               \
	}                                                 \
	KERNEL_LOCAL void name##_body(KERNEL_ARGS(Args))

/*
 * How a kernel's maps are read and written: all of one type, and in whole
 * vectors, which the compiler then knows; or as each of them says itself.
 */
typedef enum KernelAccess
{
	KERNEL_WHOLE_F32 = KERNEL_F32,
	KERNEL_WHOLE_F16 = KERNEL_F16,
	KERNEL_WHOLE_BF16 = KERNEL_BF16,
	KERNEL_ANY
} KernelAccess;

/*
 * A kernel a way of access, of one body that has it as the constant `access`.
 */
#define KERNEL_TYPED(name, Args)                                               \
	KERNEL_LOCAL void name##_of(KERNEL_ARGS(Args), const KernelAccess access); \
	KERNEL_TYPE(name, f32, Args, KERNEL_WHOLE_F32)                             \
	KERNEL_TYPE(name, f16, Args, KERNEL_WHOLE_F16)                             \
	KERNEL_TYPE(name, bf16, Args, KERNEL_WHOLE_BF16)                           \
	KERNEL_TYPE(name, any, Args, KERNEL_ANY)                                   \
	KERNEL_LOCAL void name##_of(KERNEL_ARGS(Args), const KernelAccess access)
#define KERNEL_TYPE(name, type, Args, access) \
	KERNEL_GLOBAL(name##_##type, Args)        \
	{                                         \
		kernel_await();                       \
		name##_of(a, access);                 \
	}

/* ---- A launch ------------------------------------------------------------ */

/* Blocks; threads of one, x only; blocks of a cluster, along y. */
typedef struct KernelSize
{
	unsigned x, y, z, threads, cluster;
} KernelSize;

/* 0 or the cudaError_t, which is then not CUDA's last error any more. */
KERNEL_API int kernel_launch(const void *kernel, KernelSize size, void *stream, const void *args);

/* Whether the current device runs clusters of blocks of this code. */
KERNEL_API bool kernel_clusters(const void *kernel);

static inline KernelSize
kernel_size(unsigned x, unsigned y, unsigned z, unsigned threads)
{
	KernelSize size = { x, y, z, threads, 1 };

	return size;
}

/* The kernel of a way of access that a KERNEL_TYPED has. */
#define KERNEL_FOR(name, access)                              \
	((access) == KERNEL_WHOLE_F32    ? KERNEL_OF(name##_f32)  \
	 : (access) == KERNEL_WHOLE_F16  ? KERNEL_OF(name##_f16)  \
	 : (access) == KERNEL_WHOLE_BF16 ? KERNEL_OF(name##_bf16) \
									 : KERNEL_OF(name##_any))

#define KERNEL_LAUNCH(name, gx, gy, gz, threads, stream, args) \
	kernel_launch(KERNEL_OF(name), kernel_size(gx, gy, gz, threads), stream, &(args))

/* ---- A thread a vector --------------------------------------------------- */

/*
 * Division by what is known at launch: of numbers below 2^31, without dividing.
 */
typedef struct KernelDivisor
{
	uint32_t by, factor;
	int shift;
} KernelDivisor;

/* 2^31 <= factor < 2^32, and too much by less than 2^(shift - 31) / by. */
static inline KernelDivisor
kernel_divisor(int by)
{
	KernelDivisor divisor = { (uint32_t) by, 0, 31 };

	while ((uint64_t) 1 << (divisor.shift - 31) < divisor.by)
		divisor.shift++;
	divisor.factor = (uint32_t) ((((uint64_t) 1 << divisor.shift) + divisor.by - 1) / divisor.by);
	return divisor;
}

KERNEL_LOCAL unsigned
quotient(KernelDivisor by, unsigned n)
{
	return (unsigned) ((uint64_t) n * by.factor >> by.shift);
}

/* Vectors of a pixel with c channels. */
static inline int
kernel_chunks(int c)
{
	return (c + KERNEL_VECTOR - 1) / KERNEL_VECTOR;
}

/* A thread a vector: `grid` of a kernel's arguments. */
typedef struct KernelGrid
{
	unsigned vectors;     /* 0: more than 31 bits count */
	int chunks;           /* vectors of a pixel */
	KernelDivisor divide; /* by chunks */
} KernelGrid;

static inline KernelGrid
kernel_grid(size_t pixels, int c)
{
	size_t vectors = pixels * kernel_chunks(c);
	KernelGrid grid = { vectors > INT32_MAX - KERNEL_THREADS ? 0 : (unsigned) vectors,
						kernel_chunks(c), kernel_divisor(kernel_chunks(c)) };

	return grid;
}

/* The pixel and first channel of vector t. */
KERNEL_LOCAL unsigned
grid_place(const KernelGrid *grid, unsigned t, int *c0)
{
	unsigned pixel = quotient(grid->divide, t);

	*c0 = (int) (t - pixel * grid->chunks) * KERNEL_VECTOR;
	return pixel;
}

#define KERNEL_LAUNCH_KERNEL_GRID(kernel, stream, args)                                           \
	((args).grid.vectors == 0                                                                     \
		 ? KERNEL_TOO_LARGE                                                                       \
		 : kernel_launch(kernel,                                                                  \
						 kernel_size(((args).grid.vectors + KERNEL_THREADS - 1) / KERNEL_THREADS, \
									 1, 1, KERNEL_THREADS),                                       \
						 stream, &(args)))
#define KERNEL_LAUNCH_GRID(name, stream, args) \
	KERNEL_LAUNCH_KERNEL_GRID(KERNEL_OF(name), stream, args)
#define KERNEL_LAUNCH_TYPED(name, access, stream, args) \
	KERNEL_LAUNCH_KERNEL_GRID(KERNEL_FOR(name, access), stream, args)

#endif /* BICYCLE_KERNELS_LAUNCH_CUH */
