/*
 * add.cu
 *	  The sum of two maps, as a residual block ends.
 *
 * Traffic: two reads and one write an element; a thread takes one vector of
 * eight channels.
 */
#include "common.cuh"

typedef struct Add
{
	KernelMap x, b, y;
	KernelGrid grid;
	int c;
} Add;

KERNEL(add_maps, Add)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned pixel = t / a.grid.chunks;
	int c0 = t % a.grid.chunks * KERNEL_VECTOR;
	float v[KERNEL_VECTOR], w[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_vector(&a.x, pixel, c0, a.c, v);
	load_vector(&a.b, pixel, c0, a.c, w);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] += w[i];
	store_vector(&a.y, pixel, c0, a.c, v);
}

KERNEL_API int
kernel_add(void *stream, const KernelMap *x, const KernelMap *b, const KernelMap *y, size_t pixels,
		   int c)
{
	Add a = { *x, *b, *y, kernel_grid(pixels, c), c };

	return KERNEL_LAUNCH_GRID(add_maps, stream, a);
}
