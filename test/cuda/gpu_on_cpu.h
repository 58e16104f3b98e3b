/*
 * gpu_on_cpu.h
 *	  What a kernel of kernels/ needs to be compiled by a C compiler and run on
 *	  the CPU, for tests.
 *
 * A launch is queued on its stream, as on a GPU, and run when somebody waits
 * for it (runtime_on_cpu.c). Blocks run one after the other; the threads of a
 * block are coroutines that change places at barriers and shuffles, so shared
 * memory is a static variable. A barrier that not all threads of a block reach,
 * and a shuffle that not all lanes of a warp reach, end the program. A missing
 * barrier shows only where threads that run forwards or backwards between two
 * barriers meet it: races are for compute-sanitizer.
 */
#ifndef BICYCLE_GPU_ON_CPU_H
#define BICYCLE_GPU_ON_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct GpuIndex
{
	unsigned x, y, z;
} GpuIndex;

/* Of the thread that runs. */
extern GpuIndex gpu_thread, gpu_block, gpu_block_size;

typedef void (*GpuKernel)(const void *args);

#define GPU_MAX_THREADS 1024 /* of a block */

extern int gpu_launch(GpuKernel kernel, GpuIndex grid, unsigned threads, void *stream,
					  const void *args, size_t size); /* runtime_on_cpu.c */
extern void gpu_run(GpuKernel kernel, GpuIndex grid, unsigned threads, const void *args);
extern void gpu_die(const char *what)
	__attribute__((noreturn)); /* ends the program: the kernel or its launch is not right */
extern unsigned gpu_chance(
	unsigned
		n); /* below n; 0 unless a test wants things to happen in other orders.  runtime_on_cpu.c */
extern void gpu_barrier(void);
extern float gpu_shuffle_xor(float value, int mask);

#define threadIdx gpu_thread
#define blockIdx gpu_block
#define blockDim gpu_block_size
#define __shared__ static
#define __syncthreads() gpu_barrier()
#define __shfl_xor_sync(lanes, value, mask) gpu_shuffle_xor(value, mask)

#define KERNEL_API extern
#define KERNEL_LOCAL static inline __attribute__((unused))
#define KERNEL(name, Args)                     \
	static void name(const Args a);            \
	static void name##_entry(const void *args) \
	{                                          \
		name(*(const Args *) args);            \
	}                                          \
	static void name(const Args a)
#define KERNEL_LAUNCH(name, gx, gy, gz, threads, stream, args) \
	gpu_launch(name##_entry, (GpuIndex){ gx, gy, gz }, threads, stream, &(args), sizeof(args))

typedef struct uint4
{
	uint32_t x, y, z, w;
} __attribute__((aligned(16))) uint4;

/* ---- Arithmetic of CUDA's headers ---------------------------------------- */

#define __fdiv_rn(a, b) ((a) / (b))
#define __fsub_rn(a, b) ((a) - (b))
#define __fadd_rn(a, b) ((a) + (b))
#define __fmul_rn(a, b) ((a) * (b))

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

#endif /* BICYCLE_GPU_ON_CPU_H */
