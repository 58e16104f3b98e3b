/*
 * norm_forward.cu
 *	  Norms, dropout and activations in training, forward: as instance_norm.cu,
 *	  but batch norms, too, and with statistics that are kept.
 *
 * Traffic: two reads of x and one write a reader, the second read from L2
 * wherever the map of a group fits there; without a norm one read. A map of up
 * to ONE_SPLIT pixels takes one kernel; of a larger one a first kernel leaves
 * means and squared deviations of each split in the workspace, and each block
 * of the second merges those of its group before it writes its own split.
 *
 * A thread takes FINISH_FLIGHT pixels at a time: their mean, then their squared
 * deviations, merged with those before (Chan et al.). All are of x less the
 * group's first pixel: floats near each other are subtracted without error, so
 * a map that is nearly flat keeps its deviations whatever its mean is. The mean
 * that is kept of an instance norm is that small one, so that the backward step
 * sees the same xhat; running statistics want a batch norm's as it is.
 *
 * Source: torch.nn.InstanceNorm2d, BatchNorm2d in training, Dropout.
 */
#include "train_ops.cuh"

typedef struct NormForward
{
	KernelNorm norm;
	KernelTiling tiling;
} NormForward;

typedef struct ActForward
{
	KernelNorm norm;
	KernelGrid grid;
} ActForward;

/* ---- Statistics ---------------------------------------------------------- */

/* Of `count` values of each channel. */
typedef struct Deviations
{
	float count;
	float mean[KERNEL_VECTOR], m2[KERNEL_VECTOR]; /* m2: squared deviations */
} Deviations;

/* Those of a block: [vector element][thread]. */
typedef struct TileDeviations
{
	TileSums mean, m2;
	float count[KERNEL_THREADS];
} TileDeviations;

KERNEL_LOCAL void
clear_deviations(Deviations *d)
{
	d->count = 0.0f;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		d->mean[i] = d->m2[i] = 0.0f;
}

KERNEL_LOCAL void
merge_deviations(Deviations *to, const Deviations *from)
{
	float total = to->count + from->count;
	float share = from->count / total;

	if (from->count == 0.0f)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		float d = from->mean[i] - to->mean[i];

		to->mean[i] += d * share;
		to->m2[i] += from->m2[i] + d * d * to->count * share;
	}
	to->count = total;
}

/* Merges all rows, in a fixed tree; all threads call, and get the result. */
KERNEL_LOCAL void
merge_tile(TileDeviations *s, const KernelTiling *t, Deviations *d)
{
	for (int half = t->rows; half > 0; half /= 2)
	{
		if (half < t->rows && (int) threadIdx.x < half * t->columns)
		{
			int other = threadIdx.x + half * t->columns;
			Deviations from;

			from.count = s->count[other];
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
			{
				from.mean[i] = s->mean.of[i][other];
				from.m2[i] = s->m2.of[i][other];
			}
			merge_deviations(d, &from);
		}
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if ((int) threadIdx.x < half * t->columns)
			{
				s->mean.of[i][threadIdx.x] = d->mean[i];
				s->m2.of[i][threadIdx.x] = d->m2[i];
			}
		if ((int) threadIdx.x < half * t->columns)
			s->count[threadIdx.x] = d->count;
		__syncthreads();
	}
	d->count = s->count[threadIdx.x % t->columns];
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		d->mean[i] = s->mean.of[i][threadIdx.x % t->columns];
		d->m2[i] = s->m2.of[i][threadIdx.x % t->columns];
	}
}

/* Of k pixels less `origin`, the first of v. */
KERNEL_LOCAL void
deviations_of(const float v[FINISH_FLIGHT][KERNEL_VECTOR], int k, Deviations *d)
{
	d->count = (float) k;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		float sum = 0.0f, m2 = 0.0f, mean;

#pragma unroll
		for (int j = 0; j < FINISH_FLIGHT; j++)
			sum += j < k ? v[j][i] : 0.0f;
		mean = sum / d->count;
#pragma unroll
		for (int j = 0; j < FINISH_FLIGHT; j++)
			m2 += j < k ? (v[j][i] - mean) * (v[j][i] - mean) : 0.0f;
		d->mean[i] = mean;
		d->m2[i] = m2;
	}
}

/*
 * FINISH_FLIGHT pixels of a group, `rows` apart, less `origin`; how many of
 * them lie before `end`, the others being the last.
 */
KERNEL_LOCAL int
load_ahead(const NormForward *a, KernelAccess access, int at, int end, int c0,
		   const float origin[KERNEL_VECTOR], float v[FINISH_FLIGHT][KERNEL_VECTOR])
{
	size_t group = (size_t) blockIdx.z * a->norm.pixels;
	int rows = a->tiling.rows;
	KernelRaw raw[FINISH_FLIGHT];

#pragma unroll
	for (int j = 0; j < FINISH_FLIGHT; j++)
		raw[j] =
			load_pixel(access, &a->norm.x, group + pixel_before(at + j * rows, end), c0, a->norm.c);
#pragma unroll
	for (int j = 0; j < FINISH_FLIGHT; j++)
	{
		unpack_raw(access, &raw[j], v[j]);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[j][i] -= origin[i];
	}
	return at + (FINISH_FLIGHT - 1) * rows < end ? FINISH_FLIGHT : (end - at + rows - 1) / rows;
}

KERNEL_LOCAL void
load_origin(const NormForward *a, KernelAccess access, int c0, float first[KERNEL_VECTOR])
{
	load_typed(access, &a->norm.x, (size_t) blockIdx.z * a->norm.pixels, c0 < a->norm.c ? c0 : 0,
			   a->norm.c, first);
}

/* Of the block's split. */
KERNEL_LOCAL void
gather_deviations(const NormForward *a, KernelAccess access, TileDeviations *s, int c0,
				  Deviations *d)
{
	int end = tile_end(&a->tiling, a->norm.pixels, c0, a->norm.c);
	float first[KERNEL_VECTOR];

	load_origin(a, access, c0, first);
	clear_deviations(d);
	for (int at = blockIdx.y * a->tiling.split + tile_row(&a->tiling); at < end;
		 at += FINISH_FLIGHT * a->tiling.rows)
	{
		float v[FINISH_FLIGHT][KERNEL_VECTOR];
		Deviations some;

		deviations_of(v, load_ahead(a, access, at, end, c0, first, v), &some);
		merge_deviations(d, &some);
	}
	merge_tile(s, &a->tiling, d);
}

/* ---- Results ------------------------------------------------------------- */

/* What is kept, by the first row of the first split. */
KERNEL_LOCAL void
keep_statistics(const NormForward *a, int c0, const float mean[KERNEL_VECTOR],
				const float var[KERNEL_VECTOR])
{
	float *kept = a->norm.statistics + (size_t) blockIdx.z * 2 * a->norm.c;

	if (blockIdx.y > 0 || tile_row(&a->tiling) > 0)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (c0 + i < a->norm.c)
		{
			kept[c0 + i] = mean[i];
			kept[a->norm.c + c0 + i] = var[i];
		}
}

/* Writes the block's split. */
KERNEL_LOCAL void
write_split(const NormForward *a, KernelAccess access, int c0, const Deviations *d)
{
	const KernelNorm *norm = &a->norm;
	int end = tile_end(&a->tiling, norm->pixels, c0, norm->c);
	float origin[KERNEL_VECTOR], mean[KERNEL_VECTOR], var[KERNEL_VECTOR];
	float scale[KERNEL_VECTOR], shift[KERNEL_VECTOR];

	load_origin(a, access, c0, origin);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		bool there = c0 + i < norm->c;

		mean[i] = norm->shifted ? d->mean[i] : origin[i] + d->mean[i];
		origin[i] = norm->shifted ? origin[i] : 0.0f;
		var[i] = d->m2[i] / d->count;
		scale[i] = 1.0f / sqrtf(var[i] + TRAIN_EPSILON);
		if (there && norm->gamma)
			scale[i] *= norm->gamma[c0 + i];
		shift[i] = there && norm->beta ? norm->beta[c0 + i] : 0.0f;
	}
	keep_statistics(a, c0, mean, var);
	for (int at = blockIdx.y * a->tiling.split + tile_row(&a->tiling); at < end;
		 at += FINISH_FLIGHT * a->tiling.rows)
	{
		float v[FINISH_FLIGHT][KERNEL_VECTOR];
		int k = load_ahead(a, access, at, end, c0, origin, v);

#pragma unroll
		for (int j = 0; j < FINISH_FLIGHT; j++)
		{
			if (j >= k)
				continue;
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[j][i] = (v[j][i] - mean[i]) * scale[i] + shift[i];
			write_readers(norm, access,
						  (size_t) blockIdx.z * norm->pixels + at + j * a->tiling.rows, c0, v[j]);
		}
	}
}

KERNEL_TRAINED(norm_whole, NormForward)
{
	__shared__ TileDeviations s;
	int c0 = tile_channel(&a.tiling);
	Deviations d;

	gather_deviations(&a, access, &s, c0, &d);
	write_split(&a, access, c0, &d);
}

/* What a split leaves: means, then squared deviations. */
KERNEL_LOCAL float *
split_deviations(const NormForward *a, int split)
{
	return a->norm.workspace + ((size_t) blockIdx.z * a->tiling.splits + split) * 2 * a->norm.c;
}

KERNEL_TRAINED(norm_statistics, NormForward)
{
	__shared__ TileDeviations s;
	int c0 = tile_channel(&a.tiling);
	float *left = split_deviations(&a, blockIdx.y);
	Deviations d;

	gather_deviations(&a, access, &s, c0, &d);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (tile_row(&a.tiling) == 0 && c0 + i < a.norm.c)
		{
			left[c0 + i] = d.mean[i];
			left[a.norm.c + c0 + i] = d.m2[i];
		}
}

KERNEL_TRAINED(norm_apply, NormForward)
{
	__shared__ TileDeviations s;
	int c0 = tile_channel(&a.tiling);
	Deviations d;

	clear_deviations(&d);
	for (int split = tile_row(&a.tiling); split < a.tiling.splits; split += a.tiling.rows)
	{
		const float *left = split_deviations(&a, split);
		int rest = a.norm.pixels - split * a.tiling.split;
		Deviations from;

		from.count = (float) (rest < a.tiling.split ? rest : a.tiling.split);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
		{
			from.mean[i] = c0 + i < a.norm.c ? left[c0 + i] : 0.0f;
			from.m2[i] = c0 + i < a.norm.c ? left[a.norm.c + c0 + i] : 0.0f;
		}
		merge_deviations(&d, &from);
	}
	merge_tile(&s, &a.tiling, &d);
	write_split(&a, access, c0, &d);
}

/* Without a norm. */
KERNEL_TRAINED(act_forward, ActForward)
{
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float v[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_typed(access, &a.norm.x, pixel, c0, a.norm.c, v);
	write_readers(&a.norm, access, pixel, c0, v);
}

/* ---- Launching ----------------------------------------------------------- */

KERNEL_API size_t
kernel_norm_floats(int groups, int pixels, int c)
{
	KernelTiling t = kernel_tiling(pixels, c);

	return t.splits == 1 ? 0 : (size_t) groups * t.splits * 2 * c;
}

static int
launch_act_forward(void *stream, KernelAccess access, const KernelNorm *norm)
{
	ActForward a = { *norm, kernel_grid((size_t) norm->groups * norm->pixels, norm->c) };

	return KERNEL_LAUNCH_KERNEL_GRID(KERNEL_TRAINED_FOR(act_forward, access), stream, a);
}

KERNEL_API int
kernel_norm_forward(void *stream, const KernelNorm *norm)
{
	const KernelMap *maps[] = { &norm->x, map_if_any(&norm->y[0]), map_if_any(&norm->y[1]) };
	KernelAccess access = kernel_access(maps, 3, norm->c);
	NormForward a = { *norm, kernel_tiling(norm->pixels, norm->c) };
	int error;

	if (!norm->statistics)
		return launch_act_forward(stream, access, norm);
	if (a.tiling.splits == 1)
		return launch_tiles(KERNEL_TRAINED_FOR(norm_whole, access), &a.tiling, norm->groups, stream,
							&a);
	error = launch_tiles(KERNEL_TRAINED_FOR(norm_statistics, access), &a.tiling, norm->groups,
						 stream, &a);
	return error == 0 ? launch_tiles(KERNEL_TRAINED_FOR(norm_apply, access), &a.tiling,
									 norm->groups, stream, &a)
					  : error;
}
