/*
 * pool.cu
 *	  Mean over windows, divided by the pixels inside the image, and its
 *	  gradient; and the largest of each window.
 *
 * Traffic: windows of 2x2 read each element once; of 3x3 at stride 2 up to
 * twice, the second time from L1. The encoder's last pool, 8x8 to one pixel,
 * has a thread for each eight channels and image only, but also only 32 KiB to
 * read an image. Backward each pixel gathers from the windows that it is in.
 *
 * Source: torch.nn.AvgPool2d(count_include_pad=False), torch.nn.MaxPool2d.
 */
#include "train_ops.cuh"

typedef struct Pool
{
	KernelPool p;
	KernelGrid grid;
	KernelDivisor width, height; /* of y */
} Pool;

KERNEL_TYPED(avgpool, Pool)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	unsigned row = quotient(a.width, pixel), n = quotient(a.height, row);
	size_t image = (size_t) n * a.p.h * a.p.w;
	int y0, y1, x0, x1;
	float sum[KERNEL_VECTOR], share;

	if (t >= a.grid.vectors)
		return;
	nn_pool_axis((int) (row - n * a.height.by), a.p.kernel, a.p.stride, a.p.pad, a.p.h, &y0, &y1);
	nn_pool_axis((int) (pixel - row * a.width.by), a.p.kernel, a.p.stride, a.p.pad, a.p.w, &x0,
				 &x1);
	share = 1.0f / (float) ((y1 - y0) * (x1 - x0));
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] = 0.0f;
	for (int y = y0; y < y1; y++)
		for (int x = x0; x < x1; x++)
		{
			float v[KERNEL_VECTOR];

			load_typed(access, &a.p.x, image + (size_t) y * a.p.w + x, c0, a.p.c, v);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				sum[i] += v[i];
		}
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] *= share;
	store_typed(access, &a.p.y, pixel, c0, a.p.c, sum);
}

KERNEL_API int
kernel_avgpool(void *stream, const KernelPool *pool)
{
	const KernelMap *maps[] = { &pool->x, &pool->y };
	size_t pixels = (size_t) pool->n * pool->oh * pool->ow;
	Pool a = { *pool, kernel_grid(pixels, pool->c), kernel_divisor(pool->ow),
			   kernel_divisor(pool->oh) };

	return KERNEL_LAUNCH_TYPED(avgpool, kernel_access(maps, 2, pool->c), stream, a);
}

/* ---- The largest --------------------------------------------------------- */

KERNEL_TYPED(maxpool, Pool)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	unsigned row = quotient(a.width, pixel), n = quotient(a.height, row);
	size_t image = (size_t) n * a.p.h * a.p.w;
	int y0, y1, x0, x1;
	float largest[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	nn_pool_axis((int) (row - n * a.height.by), a.p.kernel, a.p.stride, a.p.pad, a.p.h, &y0, &y1);
	nn_pool_axis((int) (pixel - row * a.width.by), a.p.kernel, a.p.stride, a.p.pad, a.p.w, &x0,
				 &x1);
	load_typed(access, &a.p.x, image + (size_t) y0 * a.p.w + x0, c0, a.p.c, largest);
	for (int y = y0; y < y1; y++)
		for (int x = x0; x < x1; x++)
		{
			float v[KERNEL_VECTOR];

			load_typed(access, &a.p.x, image + (size_t) y * a.p.w + x, c0, a.p.c, v);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				largest[i] = v[i] > largest[i] ? v[i] : largest[i];
		}
	store_typed(access, &a.p.y, pixel, c0, a.p.c, largest);
}

KERNEL_API int
kernel_maxpool(void *stream, const KernelPool *pool)
{
	const KernelMap *maps[] = { &pool->x, &pool->y };
	size_t pixels = (size_t) pool->n * pool->oh * pool->ow;
	Pool a = { *pool, kernel_grid(pixels, pool->c), kernel_divisor(pool->ow),
			   kernel_divisor(pool->oh) };

	return KERNEL_LAUNCH_TYPED(maxpool, kernel_access(maps, 2, pool->c), stream, a);
}

/* ---- Backward ------------------------------------------------------------ */

typedef struct PoolBackward
{
	KernelPool p;
	KernelMap dy;
	KernelGradient dx;
	KernelGrid grid;
	KernelDivisor width, height; /* of dx */
} PoolBackward;

/* The windows that pixel i of an axis is in: [*first, *end). */
KERNEL_LOCAL void
windows_of(const KernelPool *p, int i, int windows, int *first, int *end)
{
	int least = i + p->pad - p->kernel + 1;

	*first = least > 0 ? (least + p->stride - 1) / p->stride : 0;
	*end = (i + p->pad) / p->stride + 1;
	if (*end > windows)
		*end = windows;
}

KERNEL_TRAINED(avgpool_backward, PoolBackward)
{
	const KernelPool *p = &a.p;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	unsigned row = quotient(a.width, pixel), n = quotient(a.height, row);
	size_t image = (size_t) n * p->oh * p->ow;
	int oy, oy1, ox0, ox1;
	float sum[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	windows_of(p, (int) (row - n * a.height.by), p->oh, &oy, &oy1);
	windows_of(p, (int) (pixel - row * a.width.by), p->ow, &ox0, &ox1);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] = 0.0f;
	for (; oy < oy1; oy++)
		for (int ox = ox0; ox < ox1; ox++)
		{
			int y0, y1, x0, x1;
			float v[KERNEL_VECTOR], share;

			nn_pool_axis(oy, p->kernel, p->stride, p->pad, p->h, &y0, &y1);
			nn_pool_axis(ox, p->kernel, p->stride, p->pad, p->w, &x0, &x1);
			share = 1.0f / (float) ((y1 - y0) * (x1 - x0));
			load_typed(access, &a.dy, image + (size_t) oy * p->ow + ox, c0, p->c, v);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				sum[i] += share * v[i];
		}
	store_gradient(access, &a.dx, pixel, c0, p->c, sum);
}

KERNEL_API int
kernel_avgpool_backward(void *stream, const KernelPool *pool, const KernelMap *dy,
						const KernelGradient *dx)
{
	const KernelMap *maps[] = { dy, &dx->map };
	KernelAccess access = kernel_access(maps, 2, pool->c);
	size_t pixels = (size_t) pool->n * pool->h * pool->w;
	PoolBackward a = { *pool,
					   *dy,
					   *dx,
					   kernel_grid(pixels, pool->c),
					   kernel_divisor(pool->w),
					   kernel_divisor(pool->h) };

	return KERNEL_LAUNCH_KERNEL_GRID(KERNEL_TRAINED_FOR(avgpool_backward, access), stream, a);
}
