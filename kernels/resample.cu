/*
 * resample.cu
 *	  Bilinear upsampling to twice the extent and the reflected border around
 *	  it, in one pass.
 *
 * Traffic: four times as many elements are written as there are; each is read
 * by up to 16 outputs, which neighbours in a block share through L1, so memory
 * sees little more than one read and four writes. Written straight into the
 * padded map, the upsampled one never exists.
 *
 * Source: torch.nn.Upsample(scale_factor=2, mode='bilinear') with align_corners
 * = False, torch.nn.ReflectionPad2d.
 */
#include "common.cuh"

typedef struct Upsample
{
	KernelMap x, y;
	KernelGrid grid;
	KernelDivisor width, height; /* of y */
	int h, w, c, pad;
} Upsample;

KERNEL_TYPED(upsample, Upsample)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	unsigned row = quotient(a.width, pixel), n = quotient(a.height, row);
	size_t image = (size_t) n * a.h * a.w;
	int y[2], x[2];
	float fy = nn_upsample_axis((int) (row - n * a.height.by), a.pad, a.h, y);
	float fx = nn_upsample_axis((int) (pixel - row * a.width.by), a.pad, a.w, x);
	float sum[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] = 0.0f;
#pragma unroll
	for (int k = 0; k < 4; k++)
	{
		float weight = (k / 2 ? fy : 1.0f - fy) * (k % 2 ? fx : 1.0f - fx);
		float v[KERNEL_VECTOR];

		load_typed(access, &a.x, image + (size_t) y[k / 2] * a.w + x[k % 2], c0, a.c, v);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			sum[i] += weight * v[i];
	}
	store_typed(access, &a.y, pixel, c0, a.c, sum);
}

KERNEL_API int
kernel_upsample(void *stream, const KernelMap *x, const KernelMap *y, int n, int h, int w, int c,
				int pad)
{
	const KernelMap *maps[] = { x, y };
	int oh = 2 * h + 2 * pad, ow = 2 * w + 2 * pad;
	Upsample a = {
		*x, *y, kernel_grid((size_t) n * oh * ow, c), kernel_divisor(ow), kernel_divisor(oh), h, w,
		c,  pad
	};

	return KERNEL_LAUNCH_TYPED(upsample, kernel_access(maps, 2, c), stream, a);
}
