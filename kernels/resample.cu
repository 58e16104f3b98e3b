/*
 * resample.cu
 *	  Bilinear upsampling to twice the extent and the reflected border around
 *	  it, in one pass, and its gradient.
 *
 * Traffic: four times as many elements are written as there are; each is read
 * by up to 16 outputs, which neighbours in a block share through L1, so memory
 * sees little more than one read and four writes. Written straight into the
 * padded map, the upsampled one never exists. Backward each pixel gathers from
 * the outputs that it is blended into.
 *
 * Source: torch.nn.Upsample(scale_factor=2, mode='bilinear') with align_corners
 * = False, torch.nn.ReflectionPad2d.
 */
#include "train_ops.cuh"

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

/* ---- Backward ------------------------------------------------------------ */

typedef struct UpsampleBackward
{
	KernelMap dy;
	KernelGradient dx;
	KernelGrid grid;
	int h, w, c, pad;
} UpsampleBackward;

/* The part of pixel `to` in position i of an axis of n pixels made larger. */
KERNEL_LOCAL float
share_of(int i, int pad, int n, int to)
{
	int at[2];
	float second = nn_upsample_axis(i, pad, n, at);

	return (at[0] == to ? 1.0f - second : 0.0f) + (at[1] == to ? second : 0.0f);
}

/*
 * The k-th of the positions that the place u of an axis twice as long has in
 * the padded one: itself, and its reflections at both ends; -1: none.
 */
KERNEL_LOCAL int
padded_place(int u, int k, int pad, int n)
{
	int mirrored = 2 * (2 * n - 1) - u;

	if (u < 0 || u >= 2 * n)
		return -1;
	if (k == 0)
		return u + pad;
	if (k == 1)
		return u >= 1 && u <= pad ? pad - u : -1;
	return mirrored >= 2 * n && mirrored < 2 * n + pad ? mirrored + pad : -1;
}

#define PLACES 4 /* of the axis twice as long, that a pixel is blended into */
#define POSITIONS (PLACES * 3)

KERNEL(upsample_backward, UpsampleBackward)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	int oh = 2 * a.h + 2 * a.pad, ow = 2 * a.w + 2 * a.pad;
	int y = (int) (pixel / a.w % a.h), x = (int) (pixel % a.w);
	size_t image = (size_t) (pixel / (a.h * a.w)) * oh * ow;
	float sum[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] = 0.0f;
	for (int ky = 0; ky < POSITIONS; ky++)
	{
		int oy = padded_place(2 * y - 1 + ky % PLACES, ky / PLACES, a.pad, a.h);
		float fy = oy >= 0 ? share_of(oy, a.pad, a.h, y) : 0.0f;

		for (int kx = 0; fy > 0.0f && kx < POSITIONS; kx++)
		{
			int ox = padded_place(2 * x - 1 + kx % PLACES, kx / PLACES, a.pad, a.w);
			float weight = ox >= 0 ? fy * share_of(ox, a.pad, a.w, x) : 0.0f;
			float v[KERNEL_VECTOR];

			if (weight == 0.0f)
				continue;
			load_vector(&a.dy, image + (size_t) oy * ow + ox, c0, a.c, v);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				sum[i] += weight * v[i];
		}
	}
	store_gradient(KERNEL_ANY, &a.dx, pixel, c0, a.c, sum);
}

KERNEL_API int
kernel_upsample_backward(void *stream, const KernelMap *dy, const KernelGradient *dx, int n, int h,
						 int w, int c, int pad)
{
	UpsampleBackward a = { *dy, *dx, kernel_grid((size_t) n * h * w, c), h, w, c, pad };

	return KERNEL_LAUNCH_GRID(upsample_backward, stream, a);
}
