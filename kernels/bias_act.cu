/*
 * bias_act.cu
 *	  Latent code, scale and shift a channel, and activations, for one or two
 *	  readers.
 *
 * Traffic: each element is read once and written once a reader; scale, shift
 * and latents (some KiB an image) stay in L1 and L2. A thread takes one vector
 * of eight channels, neighbours take neighbouring vectors of the same pixel and
 * then the next pixel, so a warp reads and writes whole 128-byte lines wherever
 * maps are dense. There is nothing to share between threads, hence no shared
 * memory, and few registers: occupancy is full.
 */
#include "common.cuh"

typedef struct BiasAct
{
	KernelFinish f;
	KernelGrid grid;
} BiasAct;

KERNEL(bias_act, BiasAct)
{
	const KernelFinish *f = &a.f;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned pixel = t / a.grid.chunks;
	int c0 = t % a.grid.chunks * KERNEL_VECTOR;
	int map = f->h * f->w;
	float v[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_vector(&f->x, pixel, c0, f->c, v);
	if (f->latent)
		add_latent(f, pixel / map, pixel % map, c0, v);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (c0 + i < f->c)
			v[i] =
				v[i] * (f->scale ? f->scale[c0 + i] : 1.0f) + (f->shift ? f->shift[c0 + i] : 0.0f);
	store_outputs(f, pixel, c0, v);
}

KERNEL_API int
kernel_bias_act(void *stream, const KernelFinish *finish)
{
	size_t pixels = (size_t) finish->n * finish->h * finish->w;
	BiasAct a = { *finish, kernel_grid(pixels, finish->c) };

	return KERNEL_LAUNCH_GRID(bias_act, stream, a);
}
