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
	int h, w, c, pad;
} Upsample;

KERNEL(upsample, Upsample)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned pixel = t / a.grid.chunks;
	int c0 = t % a.grid.chunks * KERNEL_VECTOR;
	int oh = 2 * a.h + 2 * a.pad, ow = 2 * a.w + 2 * a.pad;
	size_t image = (size_t) (pixel / (oh * ow)) * a.h * a.w;
	int y[2], x[2];
	float fy = nn_upsample_axis((int) (pixel / ow % oh), a.pad, a.h, y);
	float fx = nn_upsample_axis((int) (pixel % ow), a.pad, a.w, x);
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

		load_vector(&a.x, image + (size_t) y[k / 2] * a.w + x[k % 2], c0, a.c, v);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			sum[i] += weight * v[i];
	}
	store_vector(&a.y, pixel, c0, a.c, sum);
}

KERNEL_API int
kernel_upsample(void *stream, const KernelMap *x, const KernelMap *y, int n, int h, int w, int c,
				int pad)
{
	size_t pixels = (size_t) n * (2 * h + 2 * pad) * (2 * w + 2 * pad);
	Upsample a = { *x, *y, kernel_grid(pixels, c), h, w, c, pad };

	return KERNEL_LAUNCH_GRID(upsample, stream, a);
}
