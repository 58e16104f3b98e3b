/*
 * act_backward.cu
 *	  Backward steps of layers without a norm: activations and dropout, and the
 *	  gradient of a bias.
 *
 * Traffic: x and each gradient are read once, dx is written once. The bias's
 * gradient reads dy once more, by lines: each block adds up a split of the
 * pixels and leaves its sums in the workspace, and a second kernel adds those.
 */
#include "train_ops.cuh"

typedef struct ActBackward
{
	KernelNorm norm;
	KernelGrid grid;
} ActBackward;

KERNEL_TRAINED(act_backward, ActBackward)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	NormRaw raw;
	float x[KERNEL_VECTOR], g[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_norm_pixel(&a.norm, access, pixel, c0, &raw);
	unpack_raw(access, &raw.x, x);
	gradient_of_normed(&a.norm, access, pixel, c0, &raw, x, g);
	store_gradient(access, &a.norm.dx, pixel, c0, a.norm.c, g);
}

KERNEL_API int
kernel_act_backward(void *stream, const KernelNorm *norm)
{
	KernelAccess access = norm_backward_access(norm);
	ActBackward a = { *norm, kernel_grid((size_t) norm->groups * norm->pixels, norm->c) };

	return KERNEL_LAUNCH_KERNEL_GRID(KERNEL_TRAINED_FOR(act_backward, access), stream, a);
}

/* ---- Biases -------------------------------------------------------------- */

typedef struct BiasBackward
{
	KernelBias b;
	KernelTiling tiling;
} BiasBackward;

/* The sums of the block's split, to where all of a map or one split goes. */
KERNEL_TRAINED(bias_sums, BiasBackward)
{
	__shared__ TileSums s;
	const KernelBias *b = &a.b;
	int c0 = tile_channel(&a.tiling), end = tile_end(&a.tiling, b->pixels, c0, b->c);
	float sum[KERNEL_VECTOR];

	sum_vectors(access, &a.tiling, &b->dy, 0, blockIdx.y * a.tiling.split, end, c0, b->c, sum);
	sum_tile(&s, &a.tiling, sum);
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (tile_row(&a.tiling) > 0 || c0 + i >= b->c)
			continue;
		else if (a.tiling.splits == 1)
			store_slope(&b->db, c0 + i, sum[i]);
		else
			b->workspace[(size_t) blockIdx.y * b->c + c0 + i] = sum[i];
}

KERNEL(bias_total, BiasBackward)
{
	__shared__ TileSums s;
	int c0 = tile_channel(&a.tiling);
	float sum[KERNEL_VECTOR];

	sum_splits(&s, &a.tiling, a.b.workspace, a.b.c, c0, a.b.c, sum);
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (tile_row(&a.tiling) == 0 && c0 + i < a.b.c)
			store_slope(&a.b.db, c0 + i, sum[i]);
}

KERNEL_API size_t
kernel_bias_floats(int pixels, int c)
{
	KernelTiling t = kernel_tiling(pixels, c);

	return t.splits == 1 ? 0 : (size_t) t.splits * c;
}

KERNEL_API int
kernel_bias_backward(void *stream, const KernelBias *bias)
{
	BiasBackward a = { *bias, kernel_tiling(bias->pixels, bias->c) };
	const KernelMap *maps[] = { &bias->dy };
	KernelAccess access = kernel_access(maps, 1, bias->c);
	int error = launch_tiles(KERNEL_TRAINED_FOR(bias_sums, access), &a.tiling, 1, stream, &a);

	if (error != 0 || a.tiling.splits == 1)
		return error;
	return KERNEL_LAUNCH(bias_total, a.tiling.blocks, 1, 1, a.tiling.rows * a.tiling.columns,
						 stream, a);
}
