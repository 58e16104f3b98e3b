/*
 * train_ops.cuh
 *	  What the kernels of training share: gradients, slopes of activations,
 *	  dropout, and sums over pixels.
 *
 * As in finish.cuh, loops over pixels load several before they use the first,
 * an activation is chosen once a vector, and types are known when it is
 * compiled (KERNEL_TRAINED).
 */
#ifndef BICYCLE_KERNELS_TRAIN_OPS_CUH
#define BICYCLE_KERNELS_TRAIN_OPS_CUH

#include "finish.cuh"
#include "common/philox.h"
#include "train_ops.h"

#define TRAIN_EPSILON ((float) NORM_EPSILON)

/* ---- Access -------------------------------------------------------------- */

/*
 * A kernel a way of access, as KERNEL_TYPED; nothing is trained in fp16, which
 * is read as any type.
 */
#define KERNEL_TRAINED(name, Args)                                             \
	KERNEL_LOCAL void name##_of(KERNEL_ARGS(Args), const KernelAccess access); \
	KERNEL_TYPE(name, f32, Args, KERNEL_WHOLE_F32)                             \
	KERNEL_TYPE(name, bf16, Args, KERNEL_WHOLE_BF16)                           \
	KERNEL_TYPE(name, any, Args, KERNEL_ANY)                                   \
	KERNEL_LOCAL void name##_of(KERNEL_ARGS(Args), const KernelAccess access)

#define KERNEL_TRAINED_FOR(name, access)                      \
	((access) == KERNEL_WHOLE_F32    ? KERNEL_OF(name##_f32)  \
	 : (access) == KERNEL_WHOLE_BF16 ? KERNEL_OF(name##_bf16) \
									 : KERNEL_OF(name##_any))

/* A map, or none: what kernel_access wants. */
static inline const KernelMap *
map_if_any(const KernelMap *m)
{
	return m->data ? m : NULL;
}

/*
 * A pixel that can be loaded in any case: several are, without a branch, before
 * it is asked which are there.
 */
KERNEL_LOCAL int
pixel_before(int at, int end)
{
	return at < end ? at : end - 1;
}

KERNEL_LOCAL KernelRaw
load_pixel(KernelAccess access, const KernelMap *m, size_t pixel, int c0, int c)
{
	return load_raw(access, m, pixel * m->pitch + c0, c - c0);
}

/* ---- Gradients ----------------------------------------------------------- */

KERNEL_LOCAL void
store_gradient(KernelAccess access, const KernelGradient *g, size_t pixel, int c0, int c,
			   float v[KERNEL_VECTOR])
{
	if (g->add)
	{
		float before[KERNEL_VECTOR];

		load_typed(access, &g->map, pixel, c0, c, before);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] += before[i];
	}
	store_typed(access, &g->map, pixel, c0, c, v);
}

KERNEL_LOCAL void
store_slope(const KernelSlope *s, size_t at, float v)
{
	s->data[at] = s->add ? s->data[at] + v : v;
}

/* ---- Activations --------------------------------------------------------- */

/* The derivative; at 0 that of PyTorch. */
KERNEL_LOCAL float
act_slope(NnActKind kind, float x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			return x > 0.0f ? 1.0f : 0.0f;
		case NN_ACT_LRELU:
			return x > 0.0f ? 1.0f : (float) LRELU_SLOPE;
		case NN_ACT_ELU:
			return x > 0.0f ? 1.0f : expf(x);
		case NN_ACT_TANH:
			x = tanhf(x);
			return 1.0f - x * x;
	}
	return 1.0f;
}

KERNEL_LOCAL void
multiply_slopes(NnActKind kind, const float x[KERNEL_VECTOR], float g[KERNEL_VECTOR])
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		g[i] *= act_slope(kind, x[i]);
}

/* g becomes the gradient of what the activation was of, x. */
KERNEL_LOCAL void
pass_back(NnActKind kind, const float x[KERNEL_VECTOR], float g[KERNEL_VECTOR])
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			multiply_slopes(NN_ACT_RELU, x, g);
			break;
		case NN_ACT_LRELU:
			multiply_slopes(NN_ACT_LRELU, x, g);
			break;
		case NN_ACT_ELU:
			multiply_slopes(NN_ACT_ELU, x, g);
			break;
		case NN_ACT_TANH:
			multiply_slopes(NN_ACT_TANH, x, g);
			break;
	}
}

/* ---- Dropout ------------------------------------------------------------- */

/* Four random words: those of elements 4 block to 4 block + 3. */
KERNEL_LOCAL void
drop_words(const KernelDrop *drop, size_t block, uint32_t words[4])
{
	uint64_t seed = drop->step->seed;
	uint64_t iteration = (uint64_t) drop->step->iteration;

	words[0] = (uint32_t) block;
	words[1] = 1 + (uint32_t) drop->node;
	words[2] = (uint32_t) iteration;
	words[3] = (uint32_t) (iteration >> 32);
	philox_rounds(words, (uint32_t) seed, (uint32_t) (seed >> 32));
}

/* The factors of eight elements in a row. */
KERNEL_LOCAL void
drop_factors(const KernelDrop *drop, size_t first, float factor[KERNEL_VECTOR])
{
	if (first % 4 == 0)
	{
		uint32_t words[KERNEL_VECTOR];

		drop_words(drop, first / 4, words);
		drop_words(drop, first / 4 + 1, words + 4);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			factor[i] = words[i] >= drop->limit ? drop->factor : 0.0f;
	}
	else
		for (int i = 0; i < KERNEL_VECTOR; i++)
		{
			uint32_t words[4];

			drop_words(drop, (first + i) / 4, words);
			factor[i] = words[(first + i) % 4] >= drop->limit ? drop->factor : 0.0f;
		}
}

/* ---- Outputs and their gradients ----------------------------------------- */

/* What is normed, v, goes through dropout and each reader's activations. */
KERNEL_LOCAL void
write_readers(const KernelNorm *norm, KernelAccess access, size_t pixel, int c0,
			  float v[KERNEL_VECTOR])
{
	int count = access == KERNEL_ANY ? norm->c - c0 : KERNEL_VECTOR;

	if (norm->drop.step)
	{
		float factor[KERNEL_VECTOR];

		drop_factors(&norm->drop, pixel * norm->c + c0, factor);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] *= factor[i];
	}
#pragma unroll
	for (int k = 0; k < 2; k++)
	{
		float y[KERNEL_VECTOR];

		if (!norm->y[k].data)
			continue;
		act_vector(norm->act[k].first, count, v, y);
		act_vector(norm->act[k].second, count, y, y);
		store_typed(access, &norm->y[k], pixel, c0, norm->c, y);
	}
}

/* A reader's part of the gradient of v: g is that of its output. */
KERNEL_LOCAL void
pass_chain_back(NnActChain act, const float v[KERNEL_VECTOR], float g[KERNEL_VECTOR])
{
	if (act.second != NN_ACT_NONE)
	{
		float y[KERNEL_VECTOR];

		act_vector(act.first, KERNEL_VECTOR, v, y);
		pass_back(act.second, y, g);
	}
	pass_back(act.first, v, g);
}

/* What the backward step reads of a pixel, as it was read. */
typedef struct NormRaw
{
	KernelRaw x, dy[2];
} NormRaw;

static inline KernelAccess
norm_backward_access(const KernelNorm *norm)
{
	const KernelMap *maps[] = { &norm->x, map_if_any(&norm->dy[0]), map_if_any(&norm->dy[1]),
								map_if_any(&norm->dx.map) };

	return kernel_access(maps, 4, norm->c);
}

KERNEL_LOCAL void
load_norm_pixel(const KernelNorm *norm, KernelAccess access, size_t pixel, int c0, NormRaw *raw)
{
	raw->x = load_pixel(access, &norm->x, pixel, c0, norm->c);
#pragma unroll
	for (int k = 0; k < 2; k++)
		if (norm->dy[k].data)
			raw->dy[k] = load_pixel(access, &norm->dy[k], pixel, c0, norm->c);
}

/* The gradient of what is normed, v, through both readers and dropout. */
KERNEL_LOCAL void
gradient_of_normed(const KernelNorm *norm, KernelAccess access, size_t pixel, int c0,
				   const NormRaw *raw, float v[KERNEL_VECTOR], float g[KERNEL_VECTOR])
{
	float factor[KERNEL_VECTOR];

	if (norm->drop.step)
		drop_factors(&norm->drop, pixel * norm->c + c0, factor);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		g[i] = 0.0f;
		if (norm->drop.step)
			v[i] *= factor[i];
	}
#pragma unroll
	for (int k = 0; k < 2; k++)
	{
		float part[KERNEL_VECTOR];

		if (!norm->dy[k].data)
			continue;
		unpack_raw(access, &raw->dy[k], part);
		pass_chain_back(norm->act[k], v, part);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			g[i] += part[i];
	}
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (norm->drop.step)
			g[i] *= factor[i];
}

/* ---- Sums over pixels ---------------------------------------------------- */

/*
 * How the pixels of a group are cut. A block takes `columns` vectors of
 * channels side by side and `rows` pixels at a time, both powers of two, of one
 * split; blocks lie in a grid of (groups of channels, splits, groups).
 */
typedef struct KernelTiling
{
	int columns, rows;
	int splits, split; /* pixels of one; the last may have fewer */
	int blocks;        /* groups of channels */
} KernelTiling;

#define ONE_SPLIT 1024 /* pixels of a map that is not split */
#define LEAST_SPLIT 128
#define MOST_SPLITS 256
#define LINE_VECTORS 8   /* a 128-byte line in half precision */
#define SECTOR_VECTORS 2 /* a sector of 32 bytes */

/*
 * A large map is read by lines. Of a small one each block takes few channels,
 * so that there are more blocks.
 */
static inline KernelTiling
kernel_tiling(int pixels, int c)
{
	KernelTiling t;
	int chunks = kernel_chunks(c);
	bool small = pixels <= ONE_SPLIT;

	t.columns = small ? SECTOR_VECTORS : LINE_VECTORS;
	while (t.columns > chunks)
		t.columns /= 2;
	t.rows = KERNEL_THREADS / t.columns;
	while (t.rows > 1 && t.rows / 2 >= pixels)
		t.rows /= 2;
	while (t.rows * t.columns < KERNEL_WARP && t.columns < chunks)
		t.columns *= 2;
	t.split = small ? pixels : (pixels + MOST_SPLITS - 1) / MOST_SPLITS;
	if (!small && t.split < LEAST_SPLIT)
		t.split = LEAST_SPLIT;
	t.splits = (pixels + t.split - 1) / t.split;
	t.blocks = (chunks + t.columns - 1) / t.columns;
	return t;
}

/* A kernel on a grid of tiles; 0 or an error. */
static inline int
launch_tiles(const void *kernel, const KernelTiling *t, int groups, void *stream, const void *args)
{
	return groups > 65535
			   ? KERNEL_TOO_LARGE
			   : kernel_launch(kernel,
							   kernel_size(t->blocks, t->splits, groups, t->rows * t->columns),
							   stream, args);
}

KERNEL_LOCAL int
tile_channel(const KernelTiling *t)
{
	return (blockIdx.x * t->columns + threadIdx.x % t->columns) * KERNEL_VECTOR;
}

KERNEL_LOCAL int
tile_row(const KernelTiling *t)
{
	return threadIdx.x / t->columns;
}

/* Threads of vectors beyond the last channel have no pixels. */
KERNEL_LOCAL int
tile_end(const KernelTiling *t, int pixels, int c0, int c)
{
	int end = (blockIdx.y + 1) * t->split;

	return c0 >= c ? 0 : end < pixels ? end : pixels;
}

/* A number a thread for each element of a vector. */
typedef struct TileSums
{
	float of[KERNEL_VECTOR][KERNEL_THREADS];
} TileSums;

/*
 * v becomes the sum of the v of all rows, in a fixed tree; all threads call.
 */
KERNEL_LOCAL void
sum_tile(TileSums *s, const KernelTiling *t, float v[KERNEL_VECTOR])
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		s->of[i][threadIdx.x] = v[i];
	for (int half = t->rows / 2; half > 0; half /= 2)
	{
		__syncthreads();
		if ((int) threadIdx.x < half * t->columns)
		{
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
			{
				v[i] += s->of[i][threadIdx.x + half * t->columns];
				s->of[i][threadIdx.x] = v[i];
			}
		}
	}
	__syncthreads();
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] = s->of[i][threadIdx.x % t->columns];
	__syncthreads(); /* before the next sum */
}

/*
 * A thread's part of the sum of a map's pixels [from, end), counted from
 * `first` on: every rows-th, some in flight.
 */
KERNEL_LOCAL void
sum_vectors(KernelAccess access, const KernelTiling *t, const KernelMap *map, size_t first,
			int from, int end, int c0, int c, float sum[KERNEL_VECTOR])
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum[i] = 0.0f;
	for (int at = from + tile_row(t); at < end; at += FINISH_FLIGHT * t->rows)
	{
		KernelRaw raw[FINISH_FLIGHT];

#pragma unroll
		for (int j = 0; j < FINISH_FLIGHT; j++)
			raw[j] = load_pixel(access, map, first + pixel_before(at + j * t->rows, end), c0, c);
#pragma unroll
		for (int j = 0; j < FINISH_FLIGHT; j++)
		{
			float v[KERNEL_VECTOR];

			if (at + j * t->rows >= end)
				continue;
			unpack_raw(access, &raw[j], v);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				sum[i] += v[i];
		}
	}
}

/* The sum over splits of what each left in `partial`, apart by `stride`. */
KERNEL_LOCAL void
sum_splits(TileSums *s, const KernelTiling *t, const float *partial, size_t stride, int c0, int c,
		   float v[KERNEL_VECTOR])
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] = 0.0f;
	for (int split = tile_row(t); split < t->splits; split += t->rows)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (c0 + i < c)
				v[i] += partial[split * stride + c0 + i];
	}
	sum_tile(s, t, v);
}

/* The sum of all threads of a block, for the first; all call. */
KERNEL_LOCAL double
sum_block(double s[KERNEL_THREADS], double sum)
{
	s[threadIdx.x] = sum;
	for (int half = KERNEL_THREADS / 2; half > 0; half /= 2)
	{
		__syncthreads();
		if ((int) threadIdx.x < half)
			s[threadIdx.x] += s[threadIdx.x + half];
	}
	return s[0];
}

#endif /* BICYCLE_KERNELS_TRAIN_OPS_CUH */
