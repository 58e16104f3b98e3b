/*
 * pack.cu
 *	  A network's parameters to what inference reads of them.
 *
 * Traffic: each parameter is read once and what is made of it written once. A
 * filter's numbers are read side by side by the threads of its taps, and
 * written by each as a vector; with quads those of a class are four apart, and
 * come from the cache for the next. All weights of the official generator and
 * encoder are 240 MB in fp32, and as much is written: 0.12 ms of an H100.
 */
#include "common.cuh"
#include "pack.h"

typedef struct PackFilter
{
	KernelRows rows;
	const float *param;
	KernelMap to;
	unsigned chunks, vectors; /* of a row; of all */
} PackFilter;

KERNEL(pack_filter, PackFilter)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x, taps = a.rows.kernel * a.rows.kernel,
			 tap = t % taps, chunk = t / taps % a.chunks;
	int o = (int) (t / taps / a.chunks), c0 = (int) chunk * KERNEL_VECTOR;
	float v[KERNEL_VECTOR] = { 0 };
	int64_t step, base;

	if (t >= a.vectors)
		return;
	base = kernel_filter_row(&a.rows, o, (int) tap, &step);
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (base >= 0 && c0 + i < a.rows.c)
			v[i] = a.param[base + (c0 + i) * step];
	store_vector(&a.to, (size_t) o * taps + tap, c0, a.to.pitch, v);
}

KERNEL_API int
kernel_pack_filter(void *stream, const KernelRows *rows, const float *param, void *to,
				   KernelType type)
{
	unsigned chunks = (rows->c + KERNEL_VECTOR - 1) / KERNEL_VECTOR;
	PackFilter a = { *rows, param, kernel_map(to, type, (int) chunks * KERNEL_VECTOR), chunks,
					 (unsigned) (rows->k * rows->kernel * rows->kernel) * chunks };

	return KERNEL_LAUNCH(pack_filter, (a.vectors + KERNEL_THREADS - 1) / KERNEL_THREADS, 1, 1,
						 KERNEL_THREADS, stream, a);
}

KERNEL(pack_affine, KernelAffine)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	double shift;

	if (i >= a.c)
		return;
	shift = a.bias ? a.bias[i] : 0.0;
	if (a.var)
	{
		double root = sqrt((double) a.var[i] + NORM_EPSILON);

		a.scale[i] = (float) (a.gamma[i] / root);
		shift = (shift - a.mean[i]) * a.gamma[i] / root + a.beta[i];
	}
	else if (a.gamma)
	{
		a.scale[i] = a.gamma[i];
		shift = a.beta[i];
	}
	a.shift[i] = (float) shift;
}

KERNEL_API int
kernel_pack_affine(void *stream, const KernelAffine *affine)
{
	return KERNEL_LAUNCH(pack_affine, (affine->c + KERNEL_THREADS - 1) / KERNEL_THREADS, 1, 1,
						 KERNEL_THREADS, stream, *affine);
}

typedef struct FindBad
{
	const float *numbers;
	size_t n;
	uint32_t *bad;
} FindBad;

/* Who finds one writes the same as all others who do. */
KERNEL(find_bad, FindBad)
{
	size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * KERNEL_VECTOR;
	bool bad = false;

	for (int k = 0; k < KERNEL_VECTOR; k++)
		bad |= i + k < a.n && !isfinite(a.numbers[i + k]);
	if (bad)
		*a.bad = 1;
}

KERNEL_API int
kernel_find_bad(void *stream, const float *numbers, size_t n, uint32_t *bad)
{
	FindBad a = { numbers, n, bad };
	size_t blocks = (n + KERNEL_THREADS * KERNEL_VECTOR - 1) / (KERNEL_THREADS * KERNEL_VECTOR);

	return KERNEL_LAUNCH(find_bad, (unsigned) blocks, 1, 1, KERNEL_THREADS, stream, a);
}
