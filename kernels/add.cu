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
	unsigned vectors;
	int chunks, c;
} Add;

KERNEL(add_maps, Add)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned pixel = t / a.chunks;
	int c0 = t % a.chunks * KERNEL_VECTOR;
	float v[KERNEL_VECTOR], w[KERNEL_VECTOR];

	if (t >= a.vectors)
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
	unsigned blocks = kernel_blocks(pixels, c);
	Add a;

	if (blocks == 0)
		return KERNEL_TOO_LARGE;
	a.x = *x;
	a.b = *b;
	a.y = *y;
	a.c = c;
	a.chunks = kernel_chunks(c);
	a.vectors = (unsigned) (pixels * a.chunks);
	return KERNEL_LAUNCH(add_maps, blocks, 1, 1, KERNEL_THREADS, stream, a);
}
