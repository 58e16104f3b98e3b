/*
 * cpu_finish.c
 *	  Bias, latent, norm and activations of a convolution's result
 *	  (cpu_finish.h).
 *
 * Instance norm reads the map twice: once for the moments, once to write.
 * Everything is taken relative to the value in the map's middle, so that on a
 * flat image, where the deviations are all that norm leaves, they are not
 * drowned by the mean. The latent adds a constant for each class of border
 * positions; of it, too, only the difference from the middle's class counts.
 *
 * Pure functions; a call writes only its own channels or rows.
 */
#include "nn/cpu/cpu_finish.h"
#include "nn/training.h"

#include <math.h>
#include <string.h>

/* A CpuAffine of a block, and its memory; an offset row a position class. */
typedef struct Block
{
	float center[CPU_BLOCK];
	float scale[CPU_BLOCK];
	float shift[CPU_BLOCK];
	float offset[NN_MAX_BORDER * NN_MAX_BORDER][CPU_BLOCK];
} Block;

static const void *
element(const void *base, bool bf16, size_t at)
{
	return (const char *) base + at * (bf16 ? 2 : 4);
}

float
cpu_element(const void *base, bool bf16, size_t at)
{
	uint32_t bits;
	float value;

	if (!bf16)
		return ((const float *) base)[at];
	bits = (uint32_t) ((const uint16_t *) base)[at] << 16;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

CpuFinish
cpu_finish_of_map(NnShape map, NnNorm norm)
{
	return (CpuFinish){ .form = CPU_PLAIN,
						.row = map.w,
						.part = map.c,
						.h = map.h,
						.w = map.w,
						.c = map.c,
						.norm = norm };
}

void
cpu_copy_pixels(const CpuKernels *kernels, CpuRun from, int n, int c, CpuOut to)
{
	static const float zeros[CPU_BLOCK];
	static const float ones[CPU_BLOCK] = { [0 ... CPU_BLOCK - 1] = 1.0f };
	const CpuAffine same = { zeros, zeros, ones, zeros };

	for (int c0 = 0; c0 < c; c0 += CPU_BLOCK)
	{
		CpuRun src = from;
		CpuOut dst = to;

		src.data = element(from.data, from.bf16, c0);
		dst.data = (void *) element(to.data, to.bf16, c0);
		kernels->apply(src, n, c - c0 < CPU_BLOCK ? c - c0 : CPU_BLOCK, &same, &dst, 1);
	}
}

/* Elements from the source's start to channel c0 of pixel (y, x). */
static size_t
pixel_at(const CpuFinish *f, int y, int x, int c0)
{
	int column = c0;
	size_t pixel = (size_t) y * f->row + x;

	if (f->form == CPU_GRID)
	{
		column += (2 * ((y + 1) % 2) + (x + 1) % 2) * f->c;
		pixel = (size_t) ((y + 1) / 2) * f->row + (x + 1) / 2;
	}
	return (size_t) (column / f->part) * f->part_step + column % f->part + pixel * f->step;
}

static CpuRun
run_at(const CpuFinish *f, int y, int x, int c0)
{
	return (CpuRun){ element(f->src, f->src_bf16, pixel_at(f, y, x, c0)), f->step, f->src_bf16 };
}

static CpuAffine
affine_of(const Block *block, int class)
{
	return (CpuAffine){ block->center, block->offset[class], block->scale, block->shift };
}

/* offset = bias + latent, for each class of positions */
static void
fill_offsets(const CpuFinish *f, int c0, int c, Block *block)
{
	const CpuLayer *layer = f->latent_layer;
	bool relative = f->norm == NN_NORM_INSTANCE;
	int classes = f->latent ? layer->rows.n * layer->columns.n : 1;
	const float *middle =
		f->latent
			? f->latent +
				  (size_t) (layer->rows.centre * layer->columns.n + layer->columns.centre) * f->c
			: NULL;

	for (int k = 0; k < classes; k++)
		for (int i = 0; i < c; i++)
		{
			float offset = f->bias && !relative ? f->bias[c0 + i] : 0.0f;

			if (f->latent)
				offset +=
					f->latent[(size_t) k * f->c + c0 + i] - (relative ? middle[c0 + i] : 0.0f);
			block->offset[k][i] = offset;
		}
}

/* ---- Walking a map ------------------------------------------------------- */

/* Of a row: each second pixel, those of a class of the latent's, or all. */
static int
row_parts(const CpuFinish *f)
{
	return f->form == CPU_GRID ? 2 : f->latent ? f->latent_layer->columns.n : 1;
}

static int
row_part_pixels(const CpuFinish *f, int part)
{
	const int *first = f->latent_layer ? f->latent_layer->columns.first : NULL;

	return f->form == CPU_GRID ? f->w / 2 : f->latent ? first[part + 1] - first[part] : f->w;
}

/* Where rows are one run, they are walked together. */
static bool
rows_together(const CpuFinish *f)
{
	return f->form == CPU_PLAIN && !f->latent && f->row == f->w;
}

/* Runs of rows [y, end), one after the other: n pixels from (y, x) on. */
typedef struct MapRuns
{
	const CpuFinish *f;
	int y, end, x, n, part;
	int class; /* of the latent's positions */
} MapRuns;

static MapRuns
map_runs(const CpuFinish *f, int y0, int y1)
{
	return (MapRuns){ .f = f, .y = y0, .end = y1, .part = -1 };
}

static bool
next_map_run(MapRuns *r)
{
	const CpuFinish *f = r->f;

	do
	{
		if (++r->part == row_parts(f))
		{
			r->part = 0;
			r->y = rows_together(f) ? r->end : r->y + 1;
		}
		if (r->y >= r->end)
			return false;
		r->n = row_part_pixels(f, r->part) * (rows_together(f) ? r->end - r->y : 1);
	} while (r->n == 0);
	r->x = f->form == CPU_GRID ? r->part : 0;
	r->class = 0;
	if (f->form == CPU_PLAIN && f->latent)
	{
		const NnBorder *rows = &f->latent_layer->rows, *columns = &f->latent_layer->columns;

		while (r->y >= rows->first[r->class + 1])
			r->class ++;
		r->class = r->class * columns->n + r->part;
		r->x = columns->first[r->part];
	}
	return true;
}

/* Where moments go: all to one, or those of each stretch to the next. */
typedef struct Taking
{
	const CpuKernels *kernels;
	CpuMoments *m;
	bool apart;
} Taking;

static void
take_run(Taking *t, CpuRun run, int n, int c, const CpuAffine *affine)
{
	if (!t->apart)
	{
		t->kernels->moments(t->m, run, n, c, affine);
		return;
	}
	for (int p = 0; p < n; p += CPU_STRETCH, t->m++)
	{
		CpuRun stretch = run;

		stretch.data = element(run.data, run.bf16, p * run.step);
		memset(t->m, 0, sizeof(*t->m));
		t->kernels->moments(t->m, stretch, n - p < CPU_STRETCH ? n - p : CPU_STRETCH, c, affine);
	}
}

/* Rows [y0, y1). */
static void
take_moments(Taking t, const CpuFinish *f, int c0, int c, int y0, int y1, const Block *block)
{
	for (MapRuns r = map_runs(f, y0, y1); next_map_run(&r);)
	{
		CpuAffine affine = affine_of(block, r.class);

		take_run(&t, run_at(f, r.y, r.x, c0), r.n, c, &affine);
	}
}

/* Writes all outputs of them. */
static void
apply_rows(const CpuKernels *kernels, const CpuFinish *f, int y0, int y1, int c0, int c,
		   const Block *block)
{
	for (MapRuns r = map_runs(f, y0, y1); next_map_run(&r);)
	{
		CpuAffine affine = affine_of(block, r.class);
		CpuOut out[2];

		for (int o = 0; o < f->nouts; o++)
		{
			out[o] = f->out[o];
			out[o].data = (void *) element(f->out[o].data, f->out[o].bf16,
										   ((size_t) r.y * f->w + r.x) * f->out[o].step + c0);
			out[o].step *= f->form == CPU_GRID ? 2 : 1;
		}
		kernels->apply(run_at(f, r.y, r.x, c0), r.n, c, &affine, out, f->nouts);
	}
}

/* ---- Instance norm ------------------------------------------------------- */

/* Center and offsets: all that moments ask for. */
static void
fill_relative(const CpuFinish *f, int c0, int c, Block *block)
{
	size_t middle = pixel_at(f, f->h / 2, f->w / 2, c0);

	for (int i = 0; i < c; i++)
		block->center[i] = cpu_element(f->src, f->src_bf16, middle + i);
	fill_offsets(f, c0, c, block);
}

/* Scale and shift, of the whole map's moments. */
static void
fill_scaled(const CpuFinish *f, int c0, int c, const CpuMoments *m, Block *block)
{
	for (int i = 0; i < c; i++)
	{
		block->scale[i] = (float) (1.0 / sqrt((double) m->m2[i] / m->count + NORM_EPSILON));
		if (f->affine)
			block->scale[i] *= f->affine[2 * f->c + c0 + i];
		block->shift[i] = -m->mean[i] * block->scale[i];
		if (f->affine)
			block->shift[i] += f->affine[3 * f->c + c0 + i];
	}
}

void
cpu_finish_channels(const CpuKernels *kernels, const CpuFinish *f, int c0, int c)
{
	CpuMoments m = { 0 };
	Block block;

	fill_relative(f, c0, c, &block);
	take_moments((Taking){ kernels, &m, false }, f, c0, c, 0, f->h, &block);
	fill_scaled(f, c0, c, &m, &block);
	apply_rows(kernels, f, 0, f->h, c0, c, &block);
}

/* ---- Instance norm by bands ---------------------------------------------- */

int
cpu_finish_unit(const CpuFinish *f)
{
	int part = f->part < f->c ? f->part : f->c, unit = CPU_BLOCK;

	while (part % unit != 0)
		unit--;
	return unit;
}

static int
stretches_of(int pixels)
{
	return (pixels + CPU_STRETCH - 1) / CPU_STRETCH;
}

/* Where rows are one run, a band ends where a stretch does. */
int
cpu_finish_band(const CpuFinish *f)
{
	int rows = 1;

	if (!rows_together(f))
		return 1;
	while (rows < CPU_STRETCH && rows * f->w % CPU_STRETCH != 0)
		rows *= 2;
	return rows;
}

int
cpu_finish_stretches(const CpuFinish *f, int y)
{
	int row = 0;

	if (rows_together(f))
		return stretches_of(y * f->w);
	for (int part = 0; part < row_parts(f); part++)
		row += stretches_of(row_part_pixels(f, part));
	return y * row;
}

size_t
cpu_finish_all_stretches(const CpuFinish *f)
{
	int unit = cpu_finish_unit(f);

	if (f->norm != NN_NORM_INSTANCE || (unit < CPU_BLOCK / 4 && unit < f->c))
		return 0;
	return (size_t) (f->c / unit) * cpu_finish_stretches(f, f->h);
}

void
cpu_finish_moments(const CpuKernels *kernels, const CpuFinish *f, int c0, int c, int y0, int y1,
				   CpuMoments *stretches)
{
	Block block;

	fill_relative(f, c0, c, &block);
	take_moments((Taking){ kernels, stretches + cpu_finish_stretches(f, y0), true }, f, c0, c, y0,
				 y1, &block);
}

void
cpu_finish_norm(const CpuKernels *kernels, const CpuFinish *f, int c0, int c, int y0, int y1,
				const CpuMoments *stretches)
{
	CpuMoments m = { 0 };
	Block block;

	for (int i = 0; i < cpu_finish_stretches(f, f->h); i++)
		kernels->join(&m, &stretches[i], c);
	fill_relative(f, c0, c, &block);
	fill_scaled(f, c0, c, &m, &block);
	apply_rows(kernels, f, y0, y1, c0, c, &block);
}

/* ---- Others -------------------------------------------------------------- */

static void
fill_fixed(const CpuFinish *f, int c0, int c, Block *block)
{
	fill_offsets(f, c0, c, block);
	for (int i = 0; i < c; i++)
	{
		block->center[i] = f->affine ? f->affine[c0 + i] : 0.0f;
		block->scale[i] = f->affine ? f->affine[2 * f->c + c0 + i] : 1.0f;
		block->shift[i] = f->affine ? f->affine[3 * f->c + c0 + i] : 0.0f;
	}
}

/*
 * Rows [i0, i1) of a grid's corners, all four pixels of a corner at once, to
 * float outputs. The channels of four pixels fill a vector where those of one
 * would leave most of it empty; then they are moved to their places.
 */
static void
finish_corners(const CpuKernels *kernels, const CpuFinish *f, int i0, int i1)
{
	enum
	{
		CHUNK = 64
	};
	float corners[CHUNK * CPU_BLOCK];
	int c = f->c, width = f->w / 2 + 1;
	Block block;
	CpuAffine affine = affine_of(&block, 0);

	fill_fixed(f, 0, c, &block);
	for (int i = c; i < 4 * c; i++)
	{
		block.center[i] = block.center[i - c];
		block.offset[0][i] = block.offset[0][i - c];
		block.scale[i] = block.scale[i - c];
		block.shift[i] = block.shift[i - c];
	}
	for (int i = i0; i < i1; i++)
		for (int j0 = 0; j0 < width; j0 += CHUNK)
			for (int o = 0; o < f->nouts; o++)
			{
				int n = width - j0 < CHUNK ? width - j0 : CHUNK;
				CpuRun src = { (const float *) f->src + ((size_t) i * f->row + j0) * f->step,
							   f->step, false };
				CpuOut out = { corners, 4 * c, false, f->out[o].act };

				kernels->apply(src, n, 4 * c, &affine, &out, 1);
				for (int q = 0; q < 4; q++)
				{
					int y = 2 * i + q / 2 - 1;

					if (y < 0 || y >= f->h)
						continue;
					for (int j = 0; j < n; j++)
					{
						int x = 2 * (j0 + j) + q % 2 - 1;
						float *to =
							(float *) f->out[o].data + ((size_t) y * f->w + x) * f->out[o].step;

						if (x < 0 || x >= f->w)
							continue;
						for (int k = 0; k < c; k++)
							to[k] = corners[(j * 4 + q) * c + k];
					}
				}
			}
}

static bool
by_corners(const CpuFinish *f)
{
	return f->form == CPU_GRID && 4 * f->c <= CPU_BLOCK && !f->src_bf16 && !f->out[0].bf16 &&
		   (f->nouts < 2 || !f->out[1].bf16);
}

int
cpu_finish_row_count(const CpuFinish *f)
{
	return by_corners(f) ? f->h / 2 + 1 : f->h;
}

void
cpu_finish_rows(const CpuKernels *kernels, const CpuFinish *f, int y0, int y1)
{
	Block block;

	if (by_corners(f))
	{
		finish_corners(kernels, f, y0, y1);
		return;
	}
	for (int c0 = 0; c0 < f->c;)
	{
		/* a block stays within a part */
		int c = f->part - c0 % f->part;

		if (c > f->c - c0)
			c = f->c - c0;
		if (c > CPU_BLOCK)
			c = CPU_BLOCK;
		fill_fixed(f, c0, c, &block);
		apply_rows(kernels, f, y0, y1, c0, c, &block);
		c0 += c;
	}
}

/* ---- Dropout ------------------------------------------------------------- */

/* By factors of 0 and 2, which both types of numbers bear exactly. */
static void
multiply_elements(void *data, bool bf16, size_t at, const float *factors, int n)
{
	for (int i = 0; i < n; i++)
	{
		float value = factors[i] == 0 ? 0 : factors[i] * cpu_element(data, bf16, at + i);
		uint32_t bits;

		if (!bf16)
		{
			((float *) data)[at + i] = value;
			continue;
		}
		memcpy(&bits, &value, sizeof(bits));
		((uint16_t *) data)[at + i] = (uint16_t) (bits >> 16);
	}
}

/*
 * Activations of pix2pix, relu and leaky, let a factor of 0 or 2 through: it
 * may come after them.
 */
void
cpu_finish_drop(const CpuFinish *f, const NnNormArgs *norm, int y)
{
	float factors[CPU_BLOCK];

	for (int x = 0; x < f->w; x++)
		for (int c0 = 0; c0 < f->c; c0 += CPU_BLOCK)
		{
			int c = f->c - c0 < CPU_BLOCK ? f->c - c0 : CPU_BLOCK;
			size_t pixel = (size_t) y * f->w + x;

			nn_dropout_mask((uint64_t) norm->drop_seed, 0, norm->drop_mask, pixel * f->c + c0, c,
							norm->dropout, factors);
			for (int o = 0; o < f->nouts; o++)
				multiply_elements(f->out[o].data, f->out[o].bf16, pixel * f->out[o].step + c0,
								  factors, c);
		}
}
