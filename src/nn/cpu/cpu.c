/*
 * cpu.c
 *	  The CPU device: choice of the instruction set and of threads.
 *
 * R1 pack() may run beside the owner, so it uses nothing of the device that
 *    run() changes.
 * R2 Whoever starts the program sets OMP_WAIT_POLICY=passive and
 *    GOMP_SPINCOUNT, which libgomp reads when it is loaded: with other work on
 *    the machine a barrier that spins for long costs many times the work
 *    between two.
 */
#include "nn/cpu/cpu_train.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Raised by every release that changes an image's or a training's bits in fp32:
 * kept with jobs, and told in doc/operations.md. Release 0.1, which showed
 * oneDNN's version in its place, had 1.
 */
#define ARITHMETIC 2

static int
machine_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (int) n : 1;
}

static void
cpu_set_threads(NnDevice *base, int threads)
{
	base->threads = threads > 0 ? threads : machine_threads();
}

/* ---- Instruction set ----------------------------------------------------- */

/*
 * What this processor has, or less of it: BICYCLE_ISA (baseline, avx2, avx512,
 * neon) holds kernels back, AMX and BFMMLA with any, for tests on a better
 * machine.
 */
static const CpuKernels *
choose_kernels(void)
{
	const char *limit = getenv("BICYCLE_ISA");
	const CpuKernels *kernels = &cpu_kernels_base;

#if defined(__x86_64__)
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
				  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");

	if (limit && strcmp(limit, "baseline") == 0)
		return kernels;
	if (limit && strcmp(limit, "avx2") == 0)
		avx512 = false;
	if (avx512)
		kernels =
			__builtin_cpu_supports("avx512bf16") ? &cpu_kernels_avx512bf16 : &cpu_kernels_avx512;
	else if (avx2)
		kernels = &cpu_kernels_avx2;
#elif defined(__aarch64__)
	if (!limit || strcmp(limit, "baseline") != 0)
		kernels = &cpu_kernels_neon;
#else
	(void) limit;
#endif
	return kernels;
}

/* Products of bfloat16 numbers: none where they would be slower than floats. */
static const CpuKernel *
choose_bf16(const CpuKernels *kernels)
{
	bool all = getenv("BICYCLE_ISA") == NULL;
	const CpuKernel *amx = all ? cpu_amx() : NULL;

	if (kernels == &cpu_kernels_avx512bf16)
		return amx ? amx : kernels->bf16;
	return all ? cpu_bfmmla() : NULL;
}

static bool
cpu_supports(const NnDevice *base, NnPrecision precision)
{
	return precision <= NN_PRECISION_FP32 ||
		   (precision == NN_PRECISION_BF16 && ((const CpuDevice *) base->state)->bf16 != NULL);
}

static size_t
cpu_element_bytes(const NnDevice *base, NnPrecision precision)
{
	return precision == NN_PRECISION_BF16 ? 2 : 4;
}

/* ---- The device ---------------------------------------------------------- */

static const char *
cpu_describe(const NnDevice *base)
{
	CpuDevice *device = base->state;
	const char *bf16 = !device->bf16               ? ""
					   : device->bf16 == cpu_amx() ? " with AMX"
												   : " with bfloat16";

	snprintf(device->description, sizeof(device->description),
			 "cpu (%s%s, arithmetic %d, %d thread%s)", device->kernels->name, bf16, ARITHMETIC,
			 base->threads, base->threads == 1 ? "" : "s");
	return device->description;
}

static void
cpu_close(NnDevice *base)
{
	CpuDevice *device = base->state;

	cpu_free_threads(device);
	free(device);
}

NnStatus
nn_cpu_open(int threads, NnDevice **out, NnError *error)
{
	CpuDevice *device = calloc(1, sizeof(CpuDevice));

	if (!device)
		return nn_no_memory(error, sizeof(CpuDevice));
	device->base = (NnDevice){
		.name = "cpu",
		.state = device,
		.pack = cpu_pack,
		.pack_free = cpu_pack_free,
		.pack_bytes = cpu_pack_bytes,
		.prepare = cpu_prepare,
		.run = cpu_run,
		.release = cpu_release,
		.joins = cpu_joins,
		.supports = cpu_supports,
		.element_bytes = cpu_element_bytes,
		.describe = cpu_describe,
		.set_threads = cpu_set_threads,
		.close = cpu_close,
		.automatic = NN_PRECISION_FP32,
		.max_arena_bytes = NN_ARENA_BYTES,
		.most_images = NN_MOST_IMAGES,
		.train = &cpu_train_device,
	};
	cpu_set_threads(&device->base, threads);
	device->kernels = choose_kernels();
	device->bf16 = choose_bf16(device->kernels);
	*out = &device->base;
	return NN_OK;
}
