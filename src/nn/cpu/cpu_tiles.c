/*
 * cpu_tiles.c
 *	  Packing and running of convolutions by tiles (cpu_tiles.h).
 *
 * Order of sums: k runs over the sources, then the input's channels, in one
 * chain (R3 of kernel.h); tiles start at the result's first
 * position. Both follow from the layer's shape, so batch and threads change
 * nothing.
 *
 * Weights belong to the layer (CpuLayer.tile_weights), V of a shared layer to
 * the plan, everything else to the thread that works on it.
 */
#include "nn/cpu/cpu_run.h"

#include "common/invariant.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t) 256 << 10)

/*
 * Images of a shared layer whose V is held at once: so many bytes of it, which
 * caches hold, but so many rows at least, which pay for reading the weights.
 */
#define SHARED_BYTES ((size_t) 4 << 20)
#define SHARED_ROWS 64

static int
positions(const CpuTiling *t)
{
	return (t->m + t->r - 1) * (t->m + t->r - 1);
}

static int
round_up(int n, int to)
{
	return (n + to - 1) / to * to;
}

static int
panels(const CpuKernels *kernels, const CpuTiling *t)
{
	return (t->channels + kernels->fp32->columns - 1) / kernels->fp32->columns;
}

/* Columns written together: they never cross a part of the result. */
static int
group_panels(const CpuKernels *kernels, const CpuTiling *t)
{
	int n = CPU_BLOCK / 2 / kernels->fp32->columns;

	if (!t->shared)
		n = CPU_BLOCK / kernels->fp32->columns;
	return n < 1 ? 1 : n;
}

/* Row length of V: every source's channels are padded to whole vectors. */
static int
depth(const CpuKernels *kernels, const CpuTiling *t, int phase, int c)
{
	return t->nsources[phase] * round_up(c, kernels->lanes);
}

/* And of the weights, which may be of more sources than are used. */
static int
packed_depth(const CpuKernels *kernels, const CpuTiling *t, int phase, int c)
{
	return t->npacked[phase] * round_up(c, kernels->lanes);
}

static int
deepest(const CpuKernels *kernels, const CpuTiling *t, int c)
{
	int max = 0;

	for (int phase = 0; phase < t->phases; phase++)
		max = depth(kernels, t, phase, c) > max ? depth(kernels, t, phase, c) : max;
	return max;
}

/*
 * Distances of rows and positions of V: no multiples of 4096 bytes (cache
 * sets).
 */
static size_t
v_row(int k)
{
	return (size_t) k + 16;
}

static size_t
v_position(int rows, int k)
{
	return rows * v_row(k) + 80;
}

/* Floats of V for `rows` tiles of one phase. */
static size_t
v_floats(const CpuKernels *kernels, const CpuTiling *t, int c, int rows)
{
	return positions(t) * v_position(rows, deepest(kernels, t, c));
}

static size_t
sums_position(int rows, int columns)
{
	return (size_t) rows * columns + 80;
}

static size_t
sums_floats(const CpuKernels *kernels, const CpuTiling *t, int rows)
{
	return positions(t) * sums_position(rows, group_panels(kernels, t) * kernels->fp32->columns);
}

/* Tiles a thread takes at once: half a second-level cache holds their V. */
int
cpu_tile_block(const CpuKernels *kernels, const CpuTiling *t, int c)
{
	int block =
		(int) (BLOCK_BYTES / (positions(t) * (size_t) deepest(kernels, t, c) * sizeof(float)));

	INVARIANT(kernels->fp32->columns % kernels->lanes == 0); /* panels are of whole vectors */
	return block < kernels->fp32->rows ? kernels->fp32->rows
									   : block / kernels->fp32->rows * kernels->fp32->rows;
}

/* ---- Weights ------------------------------------------------------------- */

/*
 * Transforms of r taps into m + r - 1 positions; in_1d and out_1d of
 * cpu_kernels.inc.h are the other two parts of the identity.
 */
static const double one[1][3] = { { 1 } };
static const double g22[3][3] = { { 1, 0 }, { 1, 1 }, { 0, 1 } };
static const double g32[4][3] = { { 1, 0 }, { .5, .5 }, { .5, -.5 }, { 0, 1 } };
static const double g23[4][3] = { { 1, 0, 0 }, { .5, .5, .5 }, { .5, -.5, .5 }, { 0, 0, 1 } };

/* The checkpoint's tap: `a` of a source at `at`; odd: phase or corner. */
int
cpu_tile_tap(const CpuTiling *t, const NnNode *node, int a, int at, int odd)
{
	if (node->op == NN_OP_CONV)
		return a * t->stride + at + node->conv.pad;
	if (t->grid)
		return 2 + odd - 2 * (a + at + 1);
	return 3 - odd - 2 * (a + at + 1 - odd);
}

/*
 * Where the checkpoint's tensor has the taps of one source: offset[phase or
 * corner][a][b] + input * of_input + output * of_output.
 */
typedef struct TileTaps
{
	int offset[4][3][3];
	size_t of_input, of_output;
} TileTaps;

static TileTaps
find_taps(const CpuTiling *t, const NnNode *node, int phase, int source, int inputs)
{
	int k = node->conv.kernel, channels = t->grid ? t->channels / 4 : t->channels;
	bool transposed = node->op == NN_OP_CONVT;
	TileTaps taps = {
		.of_input = (size_t) k * k * (transposed ? channels : 1),
		.of_output = (size_t) k * k * (transposed ? 1 : inputs),
	};

	for (int odd = t->grid ? 0 : phase; odd <= (t->grid ? 3 : phase); odd++)
		for (int a = 0; a < t->r; a++)
			for (int b = 0; b < t->r; b++)
				taps.offset[odd][a][b] =
					cpu_tile_tap(t, node, a, t->source[phase][source].y, odd / 2) * k +
					cpu_tile_tap(t, node, b, t->source[phase][source].x, odd % 2);
	return taps;
}

/* g w g^T of the r x r taps at `w`; out[position * step] */
static inline __attribute__((always_inline)) void
transform_taps(const double (*g)[3], int size, int r, const float *w, const int (*offset)[3],
			   float *out, size_t step)
{
	double half[4][3];

	for (int u = 0; u < size; u++)
		for (int b = 0; b < r; b++)
		{
			half[u][b] = 0;
			for (int a = 0; a < r; a++)
				half[u][b] += g[u][a] * w[offset[a][b]];
		}
	for (int u = 0; u < size; u++)
		for (int v = 0; v < size; v++)
		{
			double sum = 0;

			for (int b = 0; b < r; b++)
				sum += g[v][b] * half[u][b];
			out[(u * size + v) * step] = (float) sum;
		}
}

/* A row of a panel of U a position: input i of a source to [n0, n0 + n). */
static void
transform_row(const CpuTiling *t, const TileTaps *taps, const float *w, int phase, int i, int n0,
			  int n, float *out, size_t step)
{
	int channels = t->grid ? t->channels / 4 : t->channels;

	for (int c = n0; c < n0 + n; c++, out++)
	{
		const float *at = w + i * taps->of_input + c % channels * taps->of_output;
		const int(*offset)[3] = taps->offset[t->grid ? c / channels : phase];

		if (t->r == 1)
			transform_taps(one, 1, 1, at, offset, out, step);
		else if (t->r == 3)
			transform_taps(g23, 4, 3, at, offset, out, step);
		else if (t->m == 2)
			transform_taps(g22, 3, 2, at, offset, out, step);
		else
			transform_taps(g32, 4, 2, at, offset, out, step);
	}
}

/* U: [phase][panel][position][k][column of the panel], zero-filled. */
size_t
cpu_tile_weights(const CpuKernels *kernels, const CpuLayer *layer)
{
	size_t n = 0;

	for (int phase = 0; phase < layer->tiling.phases; phase++)
		n += panels(kernels, &layer->tiling) * cpu_tile_panel(kernels, layer, phase);
	return n;
}

/* Floats of one panel. */
size_t
cpu_tile_panel(const CpuKernels *kernels, const CpuLayer *layer, int phase)
{
	const CpuTiling *t = &layer->tiling;

	return (size_t) positions(t) * packed_depth(kernels, t, phase, layer->in.c) *
		   kernels->fp32->columns;
}

void
cpu_pack_tiles(const CpuKernels *kernels, const CpuLayer *layer, const NnNode *node, const float *w,
			   float *out)
{
	const CpuTiling *t = &layer->tiling;
	int padded = round_up(layer->in.c, kernels->lanes);

	for (int phase = 0; phase < t->phases; phase++)
	{
		size_t step =
			(size_t) packed_depth(kernels, t, phase, layer->in.c) * kernels->fp32->columns;

		for (int n0 = 0; n0 < t->channels; n0 += kernels->fp32->columns, out += positions(t) * step)
			for (int s = 0; s < t->npacked[phase]; s++)
			{
				TileTaps taps = find_taps(t, node, phase, s, layer->in.c + layer->nz);

				for (int i = 0; i < layer->in.c; i++)
					transform_row(t, &taps, w, phase, i, n0,
								  t->channels - n0 < kernels->fp32->columns
									  ? t->channels - n0
									  : kernels->fp32->columns,
								  out + ((size_t) s * padded + i) * kernels->fp32->columns, step);
			}
	}
}

/* ---- Running ------------------------------------------------------------- */

/* Some tiles of one phase of consecutive images, and where their parts are. */
typedef struct Work
{
	const CpuTileRun *run;
	const CpuKernels *kernels;
	const CpuLayer *layer;
	const CpuTiling *t;
	int phase;
	const float *u; /* the phase's weights, or a group's of them */
	int k;
	int rows; /* tiles: row i is tile first + i, counted through the images */
	int first;
	int row0, row1;  /* of these, what a unit multiplies */
	CpuValue images; /* from the first one on */
	float *results;
	float *v;
	float *sums;
} Work;

static Work
make_work(const CpuTileRun *run, int first_image, float *results)
{
	return (Work){
		.run = run,
		.kernels = run->kernels,
		.layer = run->layer,
		.t = &run->layer->tiling,
		.images = { .data = run->x->data + first_image * run->x->image * sizeof(float),
					.pitch = run->x->pitch,
					.image = run->x->image },
		.results = results,
	};
}

static void
choose_phase(Work *work, int phase)
{
	const CpuTiling *t = work->t;

	work->phase = phase;
	work->k = depth(work->kernels, t, phase, work->layer->in.c);
	work->u = work->layer->tile_weights;
	for (int i = 0; i < phase && work->u; i++)
		work->u += panels(work->kernels, t) * cpu_tile_panel(work->kernels, work->layer, i);
}

/*
 * The pixels that a tile reads from a source, of images that are `image` floats
 * apart, through which tiles are counted.
 */
void
cpu_tile_pixels(const CpuTiling *t, int phase, int source, NnShape in, const CpuValue *images,
				int tile, const float *zeros, const float **pixels)
{
	int tiles = t->tiles_y * t->tiles_x, size = t->m + t->r - 1, at = tile % tiles;
	const float *image = (const float *) images->data + (size_t) (tile / tiles) * images->image;
	int y0 = at / t->tiles_x * t->m * t->stride + t->source[phase][source].y,
		x0 = at % t->tiles_x * t->m * t->stride + t->source[phase][source].x;

	for (int a = 0; a < size; a++)
		for (int b = 0; b < size; b++)
		{
			int y = y0 + a * t->stride, x = x0 + b * t->stride;
			bool inside = y >= 0 && y < in.h && x >= 0 && x < in.w;

			pixels[a * size + b] = inside ? image + ((size_t) y * in.w + x) * images->pitch : zeros;
		}
}

/* Transforms the pixels of row i. */
static void
transform_tile(const Work *work, const float *zeros, int i)
{
	const CpuTiling *t = work->t;
	NnShape in = work->layer->in;
	float *v = work->v + i * v_row(work->k);

	for (int s = 0; s < t->nsources[work->phase]; s++)
	{
		const float *pixels[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

		cpu_tile_pixels(t, work->phase, s, in, &work->images, work->first + i, zeros, pixels);
		work->kernels->tile_in(t->m, t->r, pixels, in.c, v, v_position(work->rows, work->k));
		v += round_up(in.c, work->kernels->lanes);
	}
}

/* Where the outputs of row i for the columns from n0 on go. */
static void
locate_outputs(const Work *work, int i, int n0, float **out)
{
	const CpuTiling *t = work->t;
	const CpuLayout *l = &work->layer->layout;
	int tiles = t->tiles_y * t->tiles_x, index = work->first + i;
	bool corners = t->grid && l->form != CPU_GRID;
	int channel = corners ? n0 % work->layer->out.c : n0,
		odd = corners ? n0 / work->layer->out.c : work->phase;
	size_t pixels = (size_t) l->h * l->w;
	float *base = work->results + (size_t) (index / tiles) * l->elements +
				  (size_t) (channel / l->part) * pixels * l->part + channel % l->part;

	for (int a = 0; a < t->m; a++)
		for (int b = 0; b < t->m; b++)
		{
			int y = index % tiles / t->tiles_x * t->m + a,
				x = index % tiles % t->tiles_x * t->m + b;
			bool inside = y < t->h && x < t->w;

			if (corners || t->phases == 4)
			{
				y = 2 * y + odd / 2 - corners;
				x = 2 * x + odd % 2 - corners;
			}
			inside &= y >= 0 && y < l->h && x >= 0 && x < l->w;
			out[a * t->m + b] = inside ? base + ((size_t) y * l->w + x) * l->part : NULL;
		}
}

/* A unit's rows of position p by a panel of weights. */
static void
multiply_position(const Work *work, int p, const float *u, float *sums, int columns)
{
	const CpuKernel *kernel = work->kernels->fp32;
	const float *v = work->v + p * v_position(work->rows, work->k);
	CpuTap all = { 0, work->k };
	CpuBlock block = { .n = kernel->columns,
					   .lda = (ptrdiff_t) v_row(work->k),
					   .taps = &all,
					   .ntaps = 1,
					   .b = u,
					   .ldc = columns,
					   .next = (const char *) u + kernel->ahead };

	if (kernel->ahead && !(kernel->ahead_once && (!work->t->shared || work->row1 - work->row0 < 2)))
		block.ahead = CPU_KERNEL_STEP * kernel->columns * 4;
	for (int row = work->row0; row < work->row1; row += kernel->rows)
	{
		block.m = work->row1 - row < kernel->rows ? work->row1 - row : kernel->rows;
		block.a = v + row * block.lda;
		block.c = sums + (size_t) row * columns;
		kernel->multiply(&block);
		if (kernel->ahead_once)
			block.ahead = 0;
	}
}

static int
groups(const CpuKernels *kernels, const CpuTiling *t)
{
	return (panels(kernels, t) + group_panels(kernels, t) - 1) / group_panels(kernels, t);
}

/* Panels of a group. */
static int
group_count(const CpuKernels *kernels, const CpuTiling *t, int group)
{
	int each = group_panels(kernels, t), left = panels(kernels, t) - group * each;

	return left < each ? left : each;
}

/* A unit's tiles for one group of columns. */
static void
multiply_group(const Work *work, int group)
{
	const CpuKernels *kernels = work->kernels;
	const CpuTiling *t = work->t;
	int per_group = group_panels(kernels, t), panel0 = group * per_group,
		columns = per_group * kernels->fp32->columns, n0 = panel0 * kernels->fp32->columns,
		count = group_count(kernels, t, group);
	size_t panel = cpu_tile_panel(kernels, work->layer, work->phase),
		   step = sums_position(work->rows, columns);
	const float *u = work->u + (work->run->pack && t->shared ? 0 : panel0 * panel),
				*bias = work->run->bias ? work->run->bias + n0 % work->layer->out.c : NULL;

	for (int p = 0; p < positions(t); p++)
		for (int j = 0; j < count; j++)
			multiply_position(work, p, u + j * panel + p * (panel / positions(t)),
							  work->sums + p * step + j * kernels->fp32->columns, columns);
	for (int i = work->row0; i < work->row1; i++)
	{
		float *out[CPU_MAX_TILE * CPU_MAX_TILE];

		locate_outputs(work, i, n0, out);
		kernels->tile_out(t->m, t->r, work->sums + (size_t) i * columns, step,
						  t->channels - n0 < columns ? t->channels - n0 : columns, bias,
						  work->run->add, out);
	}
}

/* Each thread takes tiles through all columns; V stays in its cache. */
static void
run_blocks(const CpuTileRun *run, int i0, int n, float *results)
{
	const CpuTiling *t = &run->layer->tiling;
	int tiles = t->tiles_y * t->tiles_x, blocks = (tiles + t->block - 1) / t->block;

#pragma omp for collapse(3) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int phase = 0; phase < t->phases; phase++)
			for (int b = 0; b < blocks; b++)
			{
				Work work = make_work(run, i0 + i, results + i * run->layer->layout.elements);

				choose_phase(&work, phase);
				work.first = b * t->block;
				work.rows = work.row1 =
					tiles - work.first < t->block ? tiles - work.first : t->block;
				work.v = run->scratch;
				work.sums = work.v + v_floats(work.kernels, t, run->layer->in.c, t->block);
				for (int row = 0; row < work.rows; row++)
					transform_tile(&work, run->zeros, row);
				for (int g = 0; g < groups(work.kernels, t); g++)
					multiply_group(&work, g);
			}
}

/* Rows that a unit takes of n, so that there are as many units as threads. */
static int
rows_of_unit(int n, int others, int least)
{
	int threads = omp_get_num_threads(), units = (threads + others - 1) / others,
		rows = (n + units - 1) / units;

	return (rows + least - 1) / least * least;
}

/* Rows [row, row + unit) by the weights of a group. */
static void
run_unit(const CpuTileRun *run, Work *work, int group, int row, int unit)
{
	const CpuKernels *kernels = run->kernels;
	int first = group * group_panels(kernels, work->t);

	work->row0 = row;
	work->row1 = row + unit < work->rows ? row + unit : work->rows;
	work->sums = run->scratch;
	if (run->pack)
	{
		float *u = work->sums + sums_floats(kernels, work->t, work->rows);

		run->pack(run, work->phase, first, group_count(kernels, work->t, group), u);
		work->u = u;
	}
	multiply_group(work, group);
}

/*
 * First all tiles are transformed; columns are shared: weights are read once,
 * but where there are fewer groups of columns than threads. No bit depends on
 * how rows are cut.
 */
static void
run_shared(const CpuTileRun *run, int i0, int n, float *results)
{
	const CpuKernels *kernels = run->kernels;
	const CpuTiling *t = &run->layer->tiling;
	int rows = n * t->tiles_y * t->tiles_x;
	int few = kernels->fp32->rows / 4 + 1,
		unit = rows_of_unit(rows, t->phases * groups(kernels, t), kernels->fp32->rows);
	size_t v = v_floats(kernels, t, run->layer->in.c, rows);

#pragma omp for collapse(2) schedule(dynamic)
	for (int phase = 0; phase < t->phases; phase++)
		for (int row = 0; row < rows; row += few)
		{
			Work work = make_work(run, i0, results);

			choose_phase(&work, phase);
			work.rows = rows;
			work.v = run->v + phase * v;
			for (int i = row; i < rows && i < row + few; i++)
				transform_tile(&work, run->zeros, i);
		}
#pragma omp for collapse(3) schedule(dynamic)
	for (int phase = 0; phase < t->phases; phase++)
		for (int g = 0; g < groups(kernels, t); g++)
			for (int row = 0; row < rows; row += unit)
			{
				Work work = make_work(run, i0, results);

				choose_phase(&work, phase);
				work.rows = rows;
				work.v = run->v + phase * v;
				run_unit(run, &work, g, row, unit);
			}
}

/* Images of a shared layer at once, of n. */
static int
together(const CpuKernels *kernels, const CpuLayer *layer, int n)
{
	const CpuTiling *t = &layer->tiling;
	int tiles = t->tiles_y * t->tiles_x, least = (SHARED_ROWS + tiles - 1) / tiles;
	size_t bytes = t->phases * v_floats(kernels, t, layer->in.c, tiles) * sizeof(float),
		   images = SHARED_BYTES / bytes;

	if (images < (size_t) least)
		return least < n ? least : n;
	return images < (size_t) n ? (int) images : n;
}

/*
 * Floats of V for n images, and of scratch memory for each thread, with the
 * weights of a unit if a run packs them.
 */
void
cpu_tile_memory(const CpuKernels *kernels, const CpuLayer *layer, int n, bool packs, size_t *v,
				size_t *scratch)
{
	const CpuTiling *t = &layer->tiling;
	int rows = t->shared ? together(kernels, layer, n) * t->tiles_y * t->tiles_x : t->block;

	*v = t->shared ? t->phases * v_floats(kernels, t, layer->in.c, rows) : 0;
	*scratch = sums_floats(kernels, t, rows);
	if (!t->shared)
		*scratch += v_floats(kernels, t, layer->in.c, rows);
	else if (packs)
		*scratch += group_panels(kernels, t) * cpu_tile_panel(kernels, layer, 0);
}

/* Images [i0, i0 + n); called by all threads of the team. */
void
cpu_run_tiles(const CpuTileRun *run, int i0, int n, float *results)
{
	const CpuLayer *layer = run->layer;
	int step = layer->tiling.shared ? together(run->kernels, layer, n) : n;

	for (int i = 0; i < n; i += step)
	{
		int count = n - i < step ? n - i : step;

		if (layer->tiling.shared)
			run_shared(run, i0 + i, count, results + i * layer->layout.elements);
		else
			run_blocks(run, i0 + i, count, results + i * layer->layout.elements);
	}
}
