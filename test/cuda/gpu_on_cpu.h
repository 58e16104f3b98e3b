/*
 * gpu_on_cpu.h
 *	  What a kernel of kernels/ needs to be compiled by a C compiler and run on
 *	  the CPU, for tests.
 *
 * A launch is queued on its stream, as on a GPU, and run when somebody waits
 * for it (runtime_on_cpu.c). Blocks run one after the other; the threads of a
 * block are coroutines that change places at barriers and shuffles, so shared
 * memory is a static variable. Blocks of a cluster take turns where all of it
 * meets, after which shared memory is another block's: what a block has there
 * does not outlive the meeting. A barrier that not all threads of a block
 * reach, a shuffle that not all lanes of a warp reach, a meeting that not all
 * of a cluster come to, and a kernel that was launched early and did not wait,
 * end the program. A missing barrier shows only where threads that run forwards
 * or backwards between two barriers meet it: races are for compute-sanitizer.
 */
#ifndef BICYCLE_GPU_ON_CPU_H
#define BICYCLE_GPU_ON_CPU_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct GpuIndex
{
	unsigned x, y, z;
} GpuIndex;

/* Of the thread that runs. */
extern GpuIndex gpu_thread, gpu_block, gpu_block_size;

typedef struct GpuKernel
{
	void (*run)(const void *args);
	size_t bytes; /* of args */
} GpuKernel;

#define GPU_MAX_THREADS 1024 /* of a block */
#define GPU_MAX_CLUSTER 8    /* blocks of a cluster */

/* Blocks of a cluster lie along y. */
typedef struct GpuGrid
{
	GpuIndex blocks;
	unsigned threads, cluster;
	bool early; /* launched before what was launched before has ended */
} GpuGrid;

extern void gpu_run(const GpuKernel *kernel, const GpuGrid *grid, const void *args);
extern void gpu_die(const char *what)
	__attribute__((noreturn)); /* ends the program: the kernel or its launch is not right */
extern unsigned gpu_chance(
	unsigned
		n); /* below n; 0 unless a test wants things to happen in other orders.  runtime_on_cpu.c */
extern void gpu_barrier(void);
extern void gpu_meet(void); /* all threads of a cluster */
extern void gpu_await(void);
extern float gpu_shuffle_xor(float value, int mask);

#define threadIdx gpu_thread
#define blockIdx gpu_block
#define blockDim gpu_block_size
#define __shared__ static
#define __syncthreads() gpu_barrier()
#define __shfl_xor_sync(lanes, value, mask) gpu_shuffle_xor(value, mask)

#define cudaGridDependencySynchronize() gpu_await()
#define cudaTriggerProgrammaticLaunchCompletion() ((void) 0)
#define __cluster_barrier_arrive() ((void) 0)
#define __cluster_barrier_wait() gpu_meet()

#define KERNEL_API extern
#define KERNEL_LOCAL static inline __attribute__((unused))
#define KERNEL_ARGS(Args) const Args a
#define KERNEL_GLOBAL(name, Args)                                                         \
	static void name##_code(const Args a);                                                \
	static void name##_entry(const void *args)                                            \
	{                                                                                     \
		name##_code(*(const Args *) args);                                                \
	}                                                                                     \
	static const GpuKernel name __attribute__((unused)) = { name##_entry, sizeof(Args) }; \
	static void name##_code(const Args a)
#define KERNEL_OF(name) ((const void *) &(name))

typedef struct uint4
{
	uint32_t x, y, z, w;
} __attribute__((aligned(16))) uint4;

/* ---- Arithmetic of CUDA's headers ---------------------------------------- */

#define __fmaf_rn(a, b, c) fmaf(a, b, c)
#define __fsub_rn(a, b) ((a) - (b))
#define __fadd_rn(a, b) ((a) + (b))
#define __fmul_rn(a, b) ((a) * (b))

static inline float
rsqrtf(float x)
{
	return 1.0f / sqrtf(x);
}

static inline float
__uint_as_float(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

/*
 * Half precisions stand for themselves as bits; conversions round to nearest
 * even.
 */
#define __ushort_as_half(bits) (bits)
#define __half_as_ushort(bits) (bits)
#define __ushort_as_bfloat16(bits) (bits)
#define __bfloat16_as_ushort(bits) (bits)

extern float __half2float(uint16_t bits);
extern uint16_t __float2half_rn(float x);

static inline float
__bfloat162float(uint16_t bits)
{
	uint32_t wide = (uint32_t) bits << 16;
	float x;

	memcpy(&x, &wide, sizeof(x));
	return x;
}

static inline uint16_t
__float2bfloat16_rn(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return 0x7fff;
	return (uint16_t) ((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

typedef struct float2
{
	float x, y;
} float2;

typedef struct __half2
{
	uint16_t x, y;
} __half2;

typedef __half2 __nv_bfloat162;

static inline float2
__half22float2(__half2 pair)
{
	return (float2){ __half2float(pair.x), __half2float(pair.y) };
}

static inline __half2
__floats2half2_rn(float x, float y)
{
	return (__half2){ __float2half_rn(x), __float2half_rn(y) };
}

static inline __nv_bfloat162
__floats2bfloat162_rn(float x, float y)
{
	return (__nv_bfloat162){ __float2bfloat16_rn(x), __float2bfloat16_rn(y) };
}

#endif /* BICYCLE_GPU_ON_CPU_H */
