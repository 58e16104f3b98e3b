/*
 * cpu_train_tiles.c
 *	  Products of training by minimal filtering (cpu_tiles.h), in fp32 and where
 *	  a table of cpu_layout.c says so.
 *
 * R1 y = x * weights is a convolution by tiles, as at inference. x = y *
 *    weights is one, too: transposed if the stride is 2, else with the kernel
 *    turned round and the rest of its padding.
 * R2 The weights' gradient is the same identity read another way: transforms of
 *    x times those of y, summed over tiles, transformed back to taps. Sums are
 *    of stretches of tiles, whose number follows from the shape alone; so are
 *    bits, as R2 of cpu_train.h has it.
 * R3 Weights change with each iteration. Where tiles are many they are
 *    transformed once; else each unit transforms those of its columns, which
 *    stay in its cache.
 *
 * Memory is the CpuTraining's: `shared` for zeros and then V or U, `work` for
 * each thread.
 */
#include "nn/cpu/cpu_train_tiles.h"

#include <omp.h>
#include <string.h>

/* Rows of weights that are turned round at once, of each tap. */
#define TURNED_STRETCH 32

typedef struct TileProduct
{
	CpuWindow w;
	bool across; /* x = y * weights */
	NnNode node; /* the convolution that is run */
	CpuLayer layer;
	const float *weights; /* [tap][C + nz][O] */
} TileProduct;

/* false: this one is made over frames */
static bool
tile_product(const CpuKernels *kernels, const CpuKernel *kernel, const CpuWindow *w, bool across,
			 TileProduct *p)
{
	const NnMap *to = across ? &w->x : &w->y;
	int pad = across && w->stride == 1 ? w->kernel - 1 - w->pad : w->pad;

	*p = (TileProduct){ .w = *w, .across = across };
	p->node.op = across && w->stride > 1 ? NN_OP_CONVT : NN_OP_CONV;
	p->node.conv.kernel = w->kernel;
	p->node.conv.stride = w->stride;
	p->node.conv.pad = pad;
	p->layer.in = across ? w->y.shape : w->x.shape;
	p->layer.out = to->shape;
	if (kernel->bytes != 4 || !cpu_train_layout(&p->node, (int) to->pitch, &p->layer))
		return false;
	p->layer.tiling.block = cpu_tile_block(kernels, &p->layer.tiling, p->layer.in.c);
	return true;
}

/* ---- Weights ------------------------------------------------------------- */

/* Where tap (a, b) of a source is in the weights, for phase or corner `odd`. */
static size_t
place_of_tap(const TileProduct *p, int source, int phase, int odd, int a, int b)
{
	const CpuTiling *t = &p->layer.tiling;
	int k = p->w.kernel, y = cpu_tile_tap(t, &p->node, a, t->source[phase][source].y, odd / 2),
		x = cpu_tile_tap(t, &p->node, b, t->source[phase][source].x, odd % 2);

	if (p->across && p->w.stride == 1)
	{
		y = k - 1 - y;
		x = k - 1 - x;
	}
	return (size_t) (y * k + x) * (p->w.x.shape.c + p->w.nz) * p->w.y.shape.c;
}

/* Of one panel's rows of one source: where they are, and how far apart. */
typedef struct PanelRows
{
	int n; /* columns that count */
	const float *taps[9];
	float *u;
	size_t position;
} PanelRows;

/* y = x * weights: row i is x's channel, columns y's. */
static void
pack_rows_down(const CpuTileRun *run, const TileProduct *p, const PanelRows *rows, int padded)
{
	const CpuTiling *t = &p->layer.tiling;
	int columns = run->kernels->fp32->columns;

	for (int i = 0; i < padded; i++)
	{
		const float *taps[9] = { NULL };

		for (int tap = 0; tap < t->r * t->r && i < p->layer.in.c; tap++)
			taps[tap] = rows->taps[tap] + (size_t) i * p->w.y.shape.c;
		run->kernels->tile_taps(t->m, t->r, taps, rows->n, columns, rows->u + (size_t) i * columns,
								rows->position);
	}
}

/* x = y * weights: row i is y's channel, columns x's; so they are turned. */
static void
pack_rows_across(const CpuTileRun *run, const TileProduct *p, const PanelRows *rows, int padded)
{
	const CpuTiling *t = &p->layer.tiling;
	int columns = run->kernels->fp32->columns, o = p->w.y.shape.c;
	float turned[9][TURNED_STRETCH * CPU_KERNEL_COLUMNS];

	for (int i0 = 0; i0 < padded; i0 += TURNED_STRETCH)
	{
		int count = o - i0 < TURNED_STRETCH ? o - i0 : TURNED_STRETCH;

		for (int tap = 0; tap < t->r * t->r && count > 0; tap++)
			run->kernels->train->turn(rows->taps[tap] + i0, o, false, rows->n, count, turned[tap],
									  columns);
		for (int i = i0; i < padded && i < i0 + TURNED_STRETCH; i++)
		{
			const float *taps[9] = { NULL };

			for (int tap = 0; tap < t->r * t->r && i - i0 < count; tap++)
				taps[tap] = turned[tap] + (i - i0) * columns;
			run->kernels->tile_taps(t->m, t->r, taps, rows->n, columns,
									rows->u + (size_t) i * columns, rows->position);
		}
	}
}

static void
pack_panel(const CpuTileRun *run, int phase, int panel, float *u)
{
	const TileProduct *p = run->weights;
	const CpuTiling *t = &p->layer.tiling;
	int columns = run->kernels->fp32->columns, lanes = run->kernels->lanes, n0 = panel * columns,
		padded = (p->layer.in.c + lanes - 1) / lanes * lanes, c = p->layer.out.c,
		odd = t->grid ? n0 / c : phase;
	size_t each = p->across ? p->w.y.shape.c : 1; /* from a column to the next */
	PanelRows rows = { .n = t->channels - n0 < columns ? t->channels - n0 : columns };

	rows.position = (size_t) t->npacked[phase] * padded * columns;
	for (int s = 0; s < t->npacked[phase]; s++)
	{
		for (int tap = 0; tap < t->r * t->r; tap++)
			rows.taps[tap] =
				p->weights + place_of_tap(p, s, phase, odd, tap / t->r, tap % t->r) + n0 % c * each;
		rows.u = u + (size_t) s * padded * columns;
		(p->across ? pack_rows_across : pack_rows_down)(run, p, &rows, padded);
	}
}

static void
pack_panels(const CpuTileRun *run, int phase, int panel, int n, float *u)
{
	for (int i = 0; i < n; i++, u += cpu_tile_panel(run->kernels, run->layer, phase))
		pack_panel(run, phase, panel + i, u);
}

/* All, which the team shares. */
static void
pack_all(const CpuTileRun *run)
{
	const CpuTiling *t = &run->layer->tiling;
	int columns = run->kernels->fp32->columns, panels = (t->channels + columns - 1) / columns;
	size_t each = cpu_tile_panel(run->kernels, run->layer, 0);

#pragma omp for collapse(2) schedule(dynamic)
	for (int phase = 0; phase < t->phases; phase++)
		for (int panel = 0; panel < panels; panel++)
			pack_panel(run, phase, panel,
					   run->layer->tile_weights + (size_t) (phase * panels + panel) * each);
}

/* ---- The product --------------------------------------------------------- */

static size_t
zeros_of(const TileProduct *p)
{
	return ((size_t) p->layer.in.c + 15) / 16 * 16;
}

bool
cpu_tiles_product(const NnOperands *op, const CpuWindow *w, bool across, const float *bias,
				  bool add)
{
	const CpuTraining *training = cpu_training(op);
	const NnMap *to = across ? &w->x : &w->y;
	int threads = cpu_window_team(op, w);
	float *zeros = (float *) training->shared;
	TileProduct p;
	CpuValue from;

	if (!tile_product(training->kernels, training->kernel, w, across, &p))
		return false;
	from = cpu_map_value(across ? &w->y : &w->x);
	p.weights = op->weight.f32;
	memset(zeros, 0, zeros_of(&p) * sizeof(float));
	if (!p.layer.tiling.shared)
		p.layer.tile_weights = zeros + zeros_of(&p);
#pragma omp parallel num_threads(threads)
	{
		CpuTileRun run = { .kernels = training->kernels,
						   .layer = &p.layer,
						   .x = &from,
						   .zeros = zeros,
						   .v = zeros + zeros_of(&p),
						   .scratch = (float *) cpu_own_work(training),
						   .pack = pack_panels,
						   .weights = &p,
						   .bias = add ? NULL : bias,
						   .add = add };

		if (!p.layer.tiling.shared)
			pack_all(&run);
		cpu_run_tiles(&run, 0, to->shape.n, to->f32);
	}
	return true;
}

/* ---- The weights' gradient ----------------------------------------------- */

/* Tiles whose transforms are summed at once; and numbers of y's, about. */
#define MOST_TILES 256
#define RESULT_NUMBERS (2 << 20)

/* Numbers of x's transforms that a thread has at once, about. */
#define TURNED_NUMBERS (128 << 10)

/* Tiles whose transforms are turned round together. */
#define TURNED_TILES 16

typedef struct TileGradient
{
	const NnOperands *op;
	const CpuKernels *kernels;
	TileProduct p; /* y = x * weights */
	int positions, panels;
	int tiles, stretch;     /* of all images; at once */
	int unit;               /* channels of x at once */
	size_t ld;              /* numbers of a channel's tiles */
	float *zeros, *results; /* [position][panel][tile of the stretch][column] */
} TileGradient;

static bool
tile_gradient(const CpuKernels *kernels, const CpuKernel *kernel, const CpuWindow *w,
			  TileGradient *g)
{
	const CpuTiling *t = &g->p.layer.tiling;
	int rows = kernel->rows, size;

	*g = (TileGradient){ .kernels = kernels };
	if (!tile_product(kernels, kernel, w, false, &g->p))
		return false;
	size = t->m + t->r - 1;
	g->positions = size * size;
	g->panels = (w->y.shape.c + kernel->columns - 1) / kernel->columns;
	g->tiles = w->y.shape.n * t->tiles_y * t->tiles_x;
	g->stretch =
		RESULT_NUMBERS / (g->positions * g->panels * kernel->columns) / TURNED_TILES * TURNED_TILES;
	if (g->stretch < TURNED_TILES)
		g->stretch = TURNED_TILES;
	if (g->stretch > MOST_TILES)
		g->stretch = MOST_TILES;
	if (g->stretch > g->tiles)
		g->stretch = g->tiles;
	/* no multiple of 1024 bytes: channels would share sets of the cache */
	g->ld = (size_t) (g->stretch + 15) / 16 * 16 + 16;
	g->unit = (int) (TURNED_NUMBERS / (g->positions * g->ld)) / rows * rows;
	if (g->unit > 64 / rows * rows)
		g->unit = 64 / rows * rows;
	if (g->unit < rows)
		g->unit = rows;
	return true;
}

static int
padded_unit(const TileGradient *g)
{
	return (g->unit + 15) / 16 * 16;
}

/* Of a thread: x's transforms turned round, those of some tiles, and sums. */
static size_t
turned_numbers(const TileGradient *g)
{
	/* blocks read a kernel's rows, whatever theirs are */
	return (size_t) (g->positions * g->unit + CPU_KERNEL_ROWS) * g->ld;
}

static size_t
tile_numbers(const TileGradient *g)
{
	return (size_t) g->positions * TURNED_TILES * padded_unit(g);
}

static size_t
gradient_position(const TileGradient *g)
{
	return (size_t) g->unit * g->kernels->fp32->columns + 16;
}

static size_t
result_position(const TileGradient *g)
{
	return (size_t) g->panels * g->stretch * g->kernels->fp32->columns;
}

/* y's tile, which is number i of the stretch. */
static void
transform_result(const TileGradient *g, int tile, int i)
{
	const CpuTiling *t = &g->p.layer.tiling;
	const NnMap *y = &g->p.w.y;
	int tiles = t->tiles_y * t->tiles_x, columns = g->kernels->fp32->columns;
	const float *image = y->f32 + (size_t) (tile / tiles) * y->shape.h * y->shape.w * y->pitch,
				*pixels[CPU_MAX_TILE * CPU_MAX_TILE];

	for (int k = 0; k < t->m * t->m; k++)
	{
		int row = tile % tiles / t->tiles_x * t->m + k / t->m,
			column = tile % tiles % t->tiles_x * t->m + k % t->m;

		pixels[k] = row < y->shape.h && column < y->shape.w
						? image + ((size_t) row * y->shape.w + column) * y->pitch
						: NULL;
	}
	g->kernels->grad_in(t->m, t->r, pixels, y->shape.c, columns, g->results + (size_t) i * columns,
						result_position(g), (size_t) g->stretch * columns);
}

/* Channels [c0, c0 + c) of n tiles, from `tile` on, of a source. */
static void
turn_tiles(const TileGradient *g, const CpuValue *x, int source, int c0, int c, int tile, int n,
		   float *turned, float *some)
{
	const CpuTiling *t = &g->p.layer.tiling;
	CpuValue part = *x;
	int row = padded_unit(g);

	part.data += c0 * sizeof(float);
	for (int i0 = 0; i0 < n; i0 += TURNED_TILES)
	{
		int count = n - i0 < TURNED_TILES ? n - i0 : TURNED_TILES;

		for (int i = 0; i < count; i++)
		{
			const float *pixels[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

			cpu_tile_pixels(t, 0, source, g->p.layer.in, &part, tile + i0 + i, g->zeros, pixels);
			g->kernels->tile_in(t->m, t->r, pixels, c, some + (size_t) i * row,
								(size_t) TURNED_TILES * row);
		}
		for (int p = 0; p < g->positions; p++)
			g->kernels->train->turn(some + (size_t) p * TURNED_TILES * row, row, false, count, c,
									turned + (size_t) p * g->unit * g->ld + i0, (ptrdiff_t) g->ld);
	}
}

/* The sums of a panel, for channels [c0, c0 + c), become the source's taps. */
static void
store_taps(const TileGradient *g, int source, int c0, int c, int panel, bool add, const float *sums)
{
	const CpuTiling *t = &g->p.layer.tiling;
	int columns = g->kernels->fp32->columns, o = g->p.w.y.shape.c, n0 = panel * columns;
	float *first[9], *taps[9];

	for (int tap = 0; tap < t->r * t->r; tap++)
		first[tap] =
			g->op->dweight.f32 + n0 + place_of_tap(&g->p, source, 0, 0, tap / t->r, tap % t->r);
	for (int i = 0; i < c; i++)
	{
		for (int tap = 0; tap < t->r * t->r; tap++)
			taps[tap] = first[tap] + (size_t) (c0 + i) * o;
		g->kernels->grad_out(t->m, t->r, sums + (size_t) i * columns, gradient_position(g),
							 o - n0 < columns ? o - n0 : columns, add, taps);
	}
}

/* Channels [c0, c0 + c) of a source, for n tiles from `tile` on. */
static void
correlate_tiles(const TileGradient *g, const CpuValue *x, int source, int c0, int c, int tile,
				int n, bool add, float *work)
{
	const CpuKernel *kernel = g->kernels->fp32;
	float *turned = work, *some = turned + turned_numbers(g), *sums = some + tile_numbers(g);
	int columns = kernel->columns;
	CpuTap all = { 0, n };
	CpuBlock block = { .lda = (ptrdiff_t) g->ld, .taps = &all, .ntaps = 1, .ldc = columns };

	turn_tiles(g, x, source, c0, c, tile, n, turned, some);
	for (int panel = 0; panel < g->panels; panel++)
	{
		int left = g->p.w.y.shape.c - panel * columns;

		block.n = left < columns ? left : columns;
		for (int p = 0; p < g->positions; p++)
			for (int row = 0; row < c; row += kernel->rows)
			{
				block.m = c - row < kernel->rows ? c - row : kernel->rows;
				block.a = turned + ((size_t) p * g->unit + row) * g->ld;
				block.b =
					g->results + p * result_position(g) + (size_t) panel * g->stretch * columns;
				block.c = sums + p * gradient_position(g) + (size_t) row * columns;
				kernel->multiply(&block);
			}
		store_taps(g, source, c0, c, panel, add, sums);
	}
}

bool
cpu_tiles_weights(const NnOperands *op, const CpuWindow *w)
{
	const CpuTraining *training = cpu_training(op);
	TileGradient g;
	CpuValue x = cpu_map_value(&w->x);
	int threads = cpu_window_team(op, w), c = w->x.shape.c, unit;
	bool add = op->weight_mode == NN_GRAD_ACCUMULATE;

	if (!tile_gradient(training->kernels, training->kernel, w, &g))
		return false;
	g.op = op;
	g.zeros = (float *) training->shared;
	g.results = g.zeros + zeros_of(&g.p);
	memset(g.zeros, 0, zeros_of(&g.p) * sizeof(float));
	unit = g.unit;
	while (unit > g.kernels->fp32->rows && c * g.p.layer.tiling.npacked[0] / unit < 4 * threads)
		unit -= g.kernels->fp32->rows;
#pragma omp parallel num_threads(threads)
	for (int tile = 0; tile < g.tiles; tile += g.stretch)
	{
		int n = g.tiles - tile < g.stretch ? g.tiles - tile : g.stretch;

#pragma omp for schedule(static)
		for (int i = 0; i < n; i++)
			transform_result(&g, tile + i, i);
#pragma omp for collapse(2) schedule(dynamic)
		for (int source = 0; source < g.p.layer.tiling.npacked[0]; source++)
			for (int c0 = 0; c0 < c; c0 += unit)
				correlate_tiles(&g, &x, source, c0, c - c0 < unit ? c - c0 : unit, tile, n,
								add || tile > 0, (float *) cpu_own_work(training));
	}
	return true;
}

/* ---- Memory -------------------------------------------------------------- */

/* Bytes, to a whole line of the cache. */
static size_t
whole_lines(size_t floats)
{
	return nn_sum(nn_mul(floats, sizeof(float)), 63) / 64 * 64;
}

bool
cpu_tiles_memory(const CpuKernels *kernels, const CpuKernel *kernel, const CpuWindow *w,
				 bool across, CpuTrainMemory *most)
{
	TileProduct p;
	size_t v, scratch;

	if (!tile_product(kernels, kernel, w, across, &p))
		return false;
	cpu_tile_memory(kernels, &p.layer, w->y.shape.n, true, &v, &scratch);
	if (!p.layer.tiling.shared)
		v = cpu_tile_weights(kernels, &p.layer);
	nn_most(&most->shared, nn_mul(nn_sum(v, zeros_of(&p)), sizeof(float)));
	nn_most(&most->each, whole_lines(scratch));
	return true;
}

bool
cpu_tiles_weights_memory(const CpuKernels *kernels, const CpuKernel *kernel, const CpuWindow *w,
						 CpuTrainMemory *most)
{
	TileGradient g;

	if (!tile_gradient(kernels, kernel, w, &g))
		return false;
	nn_most(&most->shared, nn_mul(nn_sum(nn_mul(g.positions, result_position(&g)), zeros_of(&g.p)),
								  sizeof(float)));
	nn_most(&most->each, whole_lines(turned_numbers(&g) + tile_numbers(&g) +
									 g.positions * gradient_position(&g)));
	return true;
}
