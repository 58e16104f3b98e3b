/*
 * dropout.cu
 *	  Dropout at inference: factors of 0 or 1 / (1 - p), by Philox counters of
 *	  an element's place in its image, over a map in place.
 *
 * Traffic: each element is read and written once. A thread takes one vector of
 * eight channels, which is two counters; the factors are those of
 * nn_dropout_mask (src/nn/fit_schedule.c).
 */
#include "common.cuh"
#include "common/philox.h"

typedef struct DropMap
{
	KernelDropout d;
	KernelGrid grid;
} DropMap;

KERNEL(drop_map, DropMap)
{
	const KernelDropout *d = &a.d;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	uint32_t block = (uint32_t) (((size_t) (pixel % d->pixels) * d->c + c0) / 4);
	uint32_t words[KERNEL_VECTOR] = { block, 1 + d->mask, 0, 0, block + 1, 1 + d->mask, 0, 0 };
	float v[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	philox_rounds(words, d->seed, 0);
	philox_rounds(words + 4, d->seed, 0);
	load_vector(&d->map, pixel, c0, d->c, v);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] = (float) words[i] * 0x1p-32f >= d->p ? v[i] / (1.0f - d->p) : 0.0f;
	store_vector(&d->map, pixel, c0, d->c, v);
}

KERNEL_API int
kernel_dropout(void *stream, const KernelDropout *dropout)
{
	DropMap a = { *dropout, kernel_grid((size_t) dropout->n * dropout->pixels, dropout->c) };

	return dropout->c % 4 == 0 ? KERNEL_LAUNCH_GRID(drop_map, stream, a) : KERNEL_TOO_LARGE;
}
