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

typedef struct DropMap
{
	KernelDropout d;
	KernelGrid grid;
} DropMap;

KERNEL_LOCAL void
philox_block(uint32_t block, uint32_t mask, uint32_t seed, uint32_t words[4])
{
	uint32_t c[4] = { block, 1 + mask, 0, 0 }, k0 = seed, k1 = 0;

	for (int round = 0; round < 10; round++)
	{
		uint64_t p0 = (uint64_t) 0xD2511F53 * c[0], p1 = (uint64_t) 0xCD9E8D57 * c[2];

		c[0] = (uint32_t) (p1 >> 32) ^ c[1] ^ k0;
		c[1] = (uint32_t) p1;
		c[2] = (uint32_t) (p0 >> 32) ^ c[3] ^ k1;
		c[3] = (uint32_t) p0;
		k0 += 0x9E3779B9;
		k1 += 0xBB67AE85;
	}
	for (int i = 0; i < 4; i++)
		words[i] = c[i];
}

KERNEL(drop_map, DropMap)
{
	const KernelDropout *d = &a.d;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned pixel = t / a.grid.chunks;
	int c0 = t % a.grid.chunks * KERNEL_VECTOR;
	uint32_t block = (uint32_t) (((size_t) (pixel % d->pixels) * d->c + c0) / 4);
	uint32_t words[KERNEL_VECTOR];
	float v[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	philox_block(block, d->mask, d->seed, words);
	philox_block(block + 1, d->mask, d->seed, words + 4);
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
