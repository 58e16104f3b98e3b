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

KERNEL_TYPED(add_maps, Add)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float v[KERNEL_VECTOR], w[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_typed(access, &a.x, pixel, c0, a.c, v);
	load_typed(access, &a.b, pixel, c0, a.c, w);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] += w[i];
	store_typed(access, &a.y, pixel, c0, a.c, v);
}

KERNEL_API int
kernel_add(void *stream, const KernelMap *x, const KernelMap *b, const KernelMap *y, size_t pixels,
		   int c)
{
	const KernelMap *maps[] = { x, b, y };
	Add a = { *x, *b, *y, kernel_grid(pixels, c), c };

	return KERNEL_LAUNCH_TYPED(add_maps, kernel_access(maps, 3, c), stream, a);
}
