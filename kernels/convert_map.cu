/*
 * convert_map.cu
 *	  Copies a map into another type and pitch, with zeros in channels beyond
 *	  its own: images' bytes to what a convolution reads, and slices to dense
 *	  maps.
 *
 * cuDNN's tensor-core convolutions want channels in multiples of eight, so an
 * image's three become eight: 3 bytes are read a pixel and 16 written, which
 * for an image of 256 x 256 is 1.2 MB, less than half a microsecond of an
 * H100's memory.
 */
#include "common.cuh"

typedef struct Convert
{
	KernelMap x, y;
	KernelGrid grid;
	int c, padded;
} Convert;

KERNEL(convert_map, Convert)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float v[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_vector(&a.x, pixel, c0, a.c, v);
	store_vector(&a.y, pixel, c0, a.padded, v);
}

KERNEL_API int
kernel_convert(void *stream, const KernelMap *x, const KernelMap *y, size_t pixels, int c,
			   int padded)
{
	Convert a = { *x, *y, kernel_grid(pixels, padded), c, padded };

	return KERNEL_LAUNCH_GRID(convert_map, stream, a);
}
