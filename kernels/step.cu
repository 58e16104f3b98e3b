/*
 * step.cu
 *	  Small things of a step: collecting its losses, running statistics, zeros.
 *
 * Each costs its launch, and next to it nothing.
 */
#include "common.cuh"
#include "step.h"

/* One warp. */
KERNEL(judge_losses, KernelLosses)
{
	float bad = 0.0f;

	for (int i = threadIdx.x; i < a.n; i += KERNEL_WARP)
	{
		float loss = *a.losses[i];

		bad += isfinite(loss) ? 0.0f : 1.0f;
		a.verdict->losses[i] = loss + (a.add ? a.verdict->losses[i] : 0.0f);
	}
	for (int half = KERNEL_WARP / 2; half > 0; half /= 2)
		bad += __shfl_xor_sync(0xffffffffu, bad, half);
	if (threadIdx.x == 0 && bad > 0.0f)
		a.verdict->diverged = 1;
}

KERNEL_API int
kernel_judge(void *stream, const KernelLosses *losses)
{
	return losses->n > KERNEL_MAX_LOSSES
			   ? KERNEL_TOO_LARGE
			   : KERNEL_LAUNCH(judge_losses, 1, 1, 1, KERNEL_WARP, stream, *losses);
}

typedef struct Follow
{
	float *to;
	const float *base, *from;
	int n;
	float share, ratio;
} Follow;

KERNEL(follow_numbers, Follow)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < a.n)
		a.to[i] = a.base[i] + a.share * (a.from[i] * a.ratio - a.base[i]);
}

KERNEL_API int
kernel_follow(void *stream, float *to, const float *base, const float *from, int n, float share,
			  float ratio)
{
	Follow a = { to, base, from, n, share, ratio };

	return KERNEL_LAUNCH(follow_numbers, (n + KERNEL_THREADS - 1) / KERNEL_THREADS, 1, 1,
						 KERNEL_THREADS, stream, a);
}

typedef struct Zero
{
	KernelMap map;
	KernelGrid grid;
	int c;
} Zero;

KERNEL(zero_vectors, Zero)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	const float v[KERNEL_VECTOR] = { 0 };

	if (t < a.grid.vectors)
		store_vector(&a.map, t / a.grid.chunks, t % a.grid.chunks * KERNEL_VECTOR, a.c, v);
}

KERNEL_API int
kernel_zero(void *stream, const KernelMap *map, size_t pixels, int c)
{
	Zero a = { *map, kernel_grid(pixels, c), c };

	return KERNEL_LAUNCH_GRID(zero_vectors, stream, a);
}
