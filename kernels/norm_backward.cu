/*
 * norm_backward.cu
 *	  Norms, dropout and activations, backward.
 *
 * With xhat = (x - mean) / sqrt(var + 1e-5) over m pixels, y = xhat gamma +
 * beta, and g the gradient of y: dx = (g - mean(g) - xhat mean(g xhat)) gamma /
 * sqrt(var + 1e-5); dgamma and dbeta are the sums behind those means.
 *
 * Traffic: x and each gradient are read twice, the second time from L2 where
 * they fit there, dx is written once. g is computed in both passes rather than
 * kept: activations cost less than memory. A map of up to ONE_SPLIT pixels
 * takes one kernel; of a larger one a first kernel leaves the sums of each
 * split in the workspace, and each block of the second adds those of its group.
 */
#include "train_ops.cuh"

#define BACKWARD_FLIGHT 2 /* pixels: each has up to three vectors */

typedef struct NormBackward
{
	KernelNorm norm;
	KernelTiling tiling;
} NormBackward;

/* What makes xhat of x, and y of xhat. */
typedef struct NormTerms
{
	float origin[KERNEL_VECTOR], mean[KERNEL_VECTOR], inverse[KERNEL_VECTOR];
	float gamma[KERNEL_VECTOR], beta[KERNEL_VECTOR];
} NormTerms;

/* A block's sums of g and of g xhat. */
typedef struct NormSums
{
	float g[KERNEL_VECTOR], product[KERNEL_VECTOR];
} NormSums;

KERNEL_LOCAL void
load_terms(const NormBackward *a, KernelAccess access, int c0, NormTerms *t)
{
	const KernelNorm *norm = &a->norm;
	const float *kept = norm->statistics + (size_t) blockIdx.z * 2 * norm->c;

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		bool there = c0 + i < norm->c;

		t->origin[i] = 0.0f;
		t->mean[i] = there ? kept[c0 + i] : 0.0f;
		t->inverse[i] = there ? 1.0f / sqrtf(kept[norm->c + c0 + i] + TRAIN_EPSILON) : 0.0f;
		t->gamma[i] = there && norm->gamma ? norm->gamma[c0 + i] : 1.0f;
		t->beta[i] = there && norm->beta ? norm->beta[c0 + i] : 0.0f;
	}
	if (norm->shifted && c0 < norm->c)
		load_typed(access, &norm->x, (size_t) blockIdx.z * norm->pixels, c0, norm->c, t->origin);
}

/* BACKWARD_FLIGHT pixels, `rows` apart; of those from `end` on, the last. */
KERNEL_LOCAL void
load_norm_pixels(const NormBackward *a, KernelAccess access, int at, int end, int c0,
				 NormRaw raw[BACKWARD_FLIGHT])
{
	size_t group = (size_t) blockIdx.z * a->norm.pixels;

#pragma unroll
	for (int j = 0; j < BACKWARD_FLIGHT; j++)
		load_norm_pixel(&a->norm, access, group + pixel_before(at + j * a->tiling.rows, end), c0,
						&raw[j]);
}

/* g and xhat of a pixel. */
KERNEL_LOCAL void
unpack_norm_pixel(const NormBackward *a, KernelAccess access, const NormTerms *t,
				  const NormRaw *raw, size_t pixel, int c0, float hat[KERNEL_VECTOR],
				  float g[KERNEL_VECTOR])
{
	float y[KERNEL_VECTOR];

	unpack_raw(access, &raw->x, hat);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		hat[i] = (hat[i] - t->origin[i] - t->mean[i]) * t->inverse[i];
		y[i] = hat[i] * t->gamma[i] + t->beta[i];
	}
	gradient_of_normed(&a->norm, access, pixel, c0, raw, y, g);
}

/* Of the block's split. */
KERNEL_LOCAL void
gather_norm_sums(const NormBackward *a, KernelAccess access, TileSums *s, const NormTerms *t,
				 int c0, NormSums *sums)
{
	int end = tile_end(&a->tiling, a->norm.pixels, c0, a->norm.c);

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sums->g[i] = sums->product[i] = 0.0f;
	for (int at = blockIdx.y * a->tiling.split + tile_row(&a->tiling); at < end;
		 at += BACKWARD_FLIGHT * a->tiling.rows)
	{
		NormRaw raw[BACKWARD_FLIGHT];

		load_norm_pixels(a, access, at, end, c0, raw);
#pragma unroll
		for (int j = 0; j < BACKWARD_FLIGHT; j++)
		{
			float hat[KERNEL_VECTOR], g[KERNEL_VECTOR];

			if (at + j * a->tiling.rows >= end)
				continue;
			unpack_norm_pixel(a, access, t, &raw[j],
							  (size_t) blockIdx.z * a->norm.pixels + at + j * a->tiling.rows, c0,
							  hat, g);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
			{
				sums->g[i] += g[i];
				sums->product[i] += g[i] * hat[i];
			}
		}
	}
	sum_tile(s, &a->tiling, sums->g);
	sum_tile(s, &a->tiling, sums->product);
}

/* By the first row of the first split. */
KERNEL_LOCAL void
write_norm_slopes(const NormBackward *a, int c0, const NormSums *sums)
{
	if (blockIdx.y > 0 || tile_row(&a->tiling) > 0)
		return;
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		if (c0 + i < a->norm.c && a->norm.dgamma.data)
			store_slope(&a->norm.dgamma, c0 + i, sums->product[i]);
		if (c0 + i < a->norm.c && a->norm.dbeta.data)
			store_slope(&a->norm.dbeta, c0 + i, sums->g[i]);
	}
}

/* Writes the block's split. */
KERNEL_LOCAL void
write_norm_gradient(const NormBackward *a, KernelAccess access, const NormTerms *t, int c0,
					const NormSums *sums)
{
	int end = a->norm.dx.map.data ? tile_end(&a->tiling, a->norm.pixels, c0, a->norm.c) : 0;
	float count = (float) a->norm.pixels;

	write_norm_slopes(a, c0, sums);
	for (int at = blockIdx.y * a->tiling.split + tile_row(&a->tiling); at < end;
		 at += BACKWARD_FLIGHT * a->tiling.rows)
	{
		NormRaw raw[BACKWARD_FLIGHT];

		load_norm_pixels(a, access, at, end, c0, raw);
#pragma unroll
		for (int j = 0; j < BACKWARD_FLIGHT; j++)
		{
			size_t pixel = (size_t) blockIdx.z * a->norm.pixels + at + j * a->tiling.rows;
			float hat[KERNEL_VECTOR], g[KERNEL_VECTOR];

			if (at + j * a->tiling.rows >= end)
				continue;
			unpack_norm_pixel(a, access, t, &raw[j], pixel, c0, hat, g);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				g[i] = (g[i] - sums->g[i] / count - hat[i] * (sums->product[i] / count)) *
					   t->gamma[i] * t->inverse[i];
			store_gradient(access, &a->norm.dx, pixel, c0, a->norm.c, g);
		}
	}
}

KERNEL_TRAINED(norm_backward_whole, NormBackward)
{
	__shared__ TileSums s;
	int c0 = tile_channel(&a.tiling);
	NormTerms t;
	NormSums sums;

	load_terms(&a, access, c0, &t);
	gather_norm_sums(&a, access, &s, &t, c0, &sums);
	write_norm_gradient(&a, access, &t, c0, &sums);
}

/* What a split leaves: sums of g, then of g xhat. */
KERNEL_LOCAL float *
split_norm_sums(const NormBackward *a, int split)
{
	return a->norm.workspace + ((size_t) blockIdx.z * a->tiling.splits + split) * 2 * a->norm.c;
}

KERNEL_TRAINED(norm_backward_sums, NormBackward)
{
	__shared__ TileSums s;
	int c0 = tile_channel(&a.tiling);
	float *left = split_norm_sums(&a, blockIdx.y);
	NormTerms t;
	NormSums sums;

	load_terms(&a, access, c0, &t);
	gather_norm_sums(&a, access, &s, &t, c0, &sums);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (tile_row(&a.tiling) == 0 && c0 + i < a.norm.c)
		{
			left[c0 + i] = sums.g[i];
			left[a.norm.c + c0 + i] = sums.product[i];
		}
}

KERNEL_TRAINED(norm_backward_apply, NormBackward)
{
	__shared__ TileSums s;
	int c0 = tile_channel(&a.tiling);
	const float *left = split_norm_sums(&a, 0);
	NormTerms t;
	NormSums sums;

	load_terms(&a, access, c0, &t);
	sum_splits(&s, &a.tiling, left, 2 * (size_t) a.norm.c, c0, a.norm.c, sums.g);
	sum_splits(&s, &a.tiling, left + a.norm.c, 2 * (size_t) a.norm.c, c0, a.norm.c, sums.product);
	write_norm_gradient(&a, access, &t, c0, &sums);
}

KERNEL_API int
kernel_norm_backward(void *stream, const KernelNorm *norm)
{
	KernelAccess access = norm_backward_access(norm);
	NormBackward a = { *norm, kernel_tiling(norm->pixels, norm->c) };
	int error;

	if (a.tiling.splits == 1)
		return launch_tiles(KERNEL_TRAINED_FOR(norm_backward_whole, access), &a.tiling,
							norm->groups, stream, &a);
	error = launch_tiles(KERNEL_TRAINED_FOR(norm_backward_sums, access), &a.tiling, norm->groups,
						 stream, &a);
	return error == 0 ? launch_tiles(KERNEL_TRAINED_FOR(norm_backward_apply, access), &a.tiling,
									 norm->groups, stream, &a)
					  : error;
}
