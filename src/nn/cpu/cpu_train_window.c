/*
 * cpu_train_window.c
 *	  The products of convolutions in training, by blocks of kernel.h over
 *	  frames (cpu_frame.h).
 *
 * R1 y = x * weights is a convolution over frames of x, as at inference.
 * R2 x = y * weights is one of stride 1 over frames of y. Pixel i of x is in
 *    windows i + pad = stride * Y + a, read by taps a + stride * j of the
 *    windows Y - j: so a position Y has a corner (a, b) for each parity, of C
 *    columns each, and windows are read by ceil(kernel / stride) taps an axis.
 * R3 A weight's gradient is a row of x turned round, moved by its tap, times a
 *    column of y: k counts the positions of a frame of x, at which y is zero
 *    unless there is a pixel of it.
 * R4 Weights are packed by who multiplies them, a stretch of k at a time, which
 *    its cache holds. Sums of R1 and R2 are a thread's until they are whole.
 * R5 A sum is one chain over k in an order that follows from the shape of one
 *    image; gradients of weights go on through the images in order. Neither
 *    stretches nor units nor how many images have a frame at once change a bit
 *    (R3 of kernel.h): but k of a gradient is padded behind each group of
 *    images, whose number follows from the shape as well.
 *
 * Memory is the CpuTraining's: `shared` for frames and y's panels, `work` for
 * each thread.
 */
#include "nn/cpu/cpu_train_window.h"

#include <omp.h>
#include <string.h>

/* Rows of a panel that are packed at once, of weights or y. */
#define STRETCH 128

/*
 * Panels of a unit, at most; and k of all of them together, at least STRETCH of
 * each.
 */
#define MOST_PANELS 16
#define WIDE_DEPTH (MOST_PANELS * STRETCH)

/* Bytes of frames that are laid out at once; at least an image's. */
#define CHUNK_BYTES ((size_t) 8 << 20)

/* Positions of a group of images for the weights' gradient, at least. */
#define GROUP_POSITIONS 1024

/* Numbers of a unit's rows of x turned round, and these rows; about. */
#define TURNED_NUMBERS (256 << 10)
#define TURNED_ROWS 64

/*
 * Numbers of y's panels that a row of blocks meets, so that long parts of the
 * gradient's rows are written.
 */
#define PANEL_NUMBERS (32 << 10)

static int
rounded_up(int n, int step)
{
	return (n + step - 1) / step * step;
}

static int
least_of(int a, int b)
{
	return a < b ? a : b;
}

static int
largest_of(int a, int b)
{
	return a > b ? a : b;
}

/* k of a panel that the first-level cache holds, or the second of bfloat16. */
static int
depth_of(const CpuKernel *kernel)
{
	return kernel->bytes == 2 ? WIDE_DEPTH : WIDE_DEPTH / 4;
}

CpuWindow
cpu_window_of(const NnNode *node, NnMap x, NnMap y, int nz)
{
	CpuWindow w = { .kernel = 1, .stride = 1, .x = x, .y = y, .nz = nz };

	if (nn_ops[node->op].filters)
	{
		w.kernel = node->conv.kernel;
		w.stride = node->conv.stride;
		w.pad = node->conv.pad;
	}
	return w;
}

/* Products of few multiply-adds are not worth waking threads for. */
int
cpu_window_team(const NnOperands *op, const CpuWindow *w)
{
	double products =
		(double) nn_map_pixels(&w->y) * w->y.shape.c * w->kernel * w->kernel * w->x.shape.c;

	return products < 200000 ? 1 : cpu_threads(op);
}

/* The calling thread's. */
char *
cpu_own_work(const CpuTraining *training)
{
	return training->work + omp_get_thread_num() * training->memory.each;
}

CpuValue
cpu_map_value(const NnMap *map)
{
	return (CpuValue){ .data = map->data,
					   .pitch = (ptrdiff_t) map->pitch,
					   .image = (size_t) map->shape.h * map->shape.w * map->pitch };
}

static float *
pixel_of(const NnMap *map, int n, int y, int x)
{
	return map->f32 + (((size_t) n * map->shape.h + y) * map->shape.w + x) * map->pitch;
}

/* ---- Products with weights ----------------------------------------------- */

/*
 * A map made of another: at position p of corner a is pixel p * step + base + a
 * of `to`, along each axis.
 */
typedef struct Spread
{
	const NnOperands *op;
	const CpuWindow *w;
	const CpuKernel *kernel;
	const CpuTrainKernels *kernels;
	CpuFraming f;
	bool across; /* R2 */
	NnMap from, to;
	int step, base;
	int rows, row; /* of positions that count, and their length */
	const float *bias;
	bool add;
} Spread;

static Spread
spread_of(const CpuKernel *kernel, const CpuWindow *w, bool across)
{
	int first = across ? w->pad / w->stride : 0;
	Spread s = { .w = w,
				 .kernel = kernel,
				 .across = across,
				 .from = across ? w->y : w->x,
				 .to = across ? w->x : w->y,
				 .step = across ? w->stride : 1,
				 .base = across ? w->stride * first - w->pad : 0,
				 .rows = w->y.shape.h,
				 .row = w->y.shape.w };

	s.f = (CpuFraming){ .kernel = w->kernel, .stride = w->stride, .lead = w->pad };
	if (across)
	{
		s.rows = (w->x.shape.h - 1 + w->pad) / w->stride - first + 1;
		s.row = (w->x.shape.w - 1 + w->pad) / w->stride - first + 1;
		s.f.kernel = (w->kernel + w->stride - 1) / w->stride;
		s.f.stride = 1;
		s.f.lead = s.f.kernel - 1 - first;
	}
	s.f.columns = s.step * s.step * s.to.shape.c;
	cpu_make_frame(kernel, &s.f, s.from.shape, s.rows, s.row);
	cpu_place_frame(&s.f, s.from.shape, s.rows, s.row);
	return s;
}

/* The tap of the weights that a frame's is for corner a, along an axis. */
static int
tap_across(const Spread *s, int tap, int a)
{
	return a + s->w->stride * (s->f.kernel - 1 - tap);
}

/* Whether it brings any pixel of `from` to one of `to`. */
static bool
reaches(const Spread *s, int tap, int a, int from, int to, int positions)
{
	for (int p = 0; tap_across(s, tap, a) < s->w->kernel && p < positions; p++)
		if (p + tap >= s->f.lead && p + tap < s->f.lead + from && p * s->step + s->base + a >= 0 &&
			p * s->step + s->base + a < to)
			return true;
	return false;
}

/*
 * What a thread makes at once: columns [n0, n0 + n) at positions [p0, p1) of
 * images from i0 on. Of few positions these are several panels, so that whole
 * rows of the weights are read.
 */
typedef struct Unit
{
	int i0, p0, p1, n0, n;
	int ntaps, taps[CPU_MAX_TAPS];
	int depth;   /* k that is packed at once */
	float *sums; /* [panel][position][column] */
	float *rows; /* STRETCH of a panel, as numbers */
	char *b;     /* [panel][depth][column] */
} Unit;

static size_t
unit_memory(const CpuKernel *kernel)
{
	return (size_t) kernel->columns *
		   ((CPU_MAX_BAND + STRETCH) * sizeof(float) + (size_t) WIDE_DEPTH * kernel->bytes);
}

/* Panels of a unit of so many positions; some units for each thread. */
static int
unit_panels(const Spread *s, int positions, int threads)
{
	int panels = least_of(MOST_PANELS, CPU_MAX_BAND / positions),
		all = cpu_frame_panels(s->kernel, &s->f);

	if (threads > 1)
		panels = least_of(panels, all / (4 * threads));
	return largest_of(1, panels);
}

/* The taps of a unit's columns that bring anything. */
static void
find_unit_taps(const Spread *s, Unit *u)
{
	NnShape from = s->from.shape, to = s->to.shape;

	for (int t = 0; t < s->f.nlive; t++)
	{
		bool live = !s->across;

		for (int q = u->n0 / to.c; !live && q <= (u->n0 + u->n - 1) / to.c; q++)
			live = reaches(s, s->f.tap[t].y, q / s->step, from.h, to.h, s->rows) &&
				   (s->f.merged || reaches(s, s->f.tap[t].x, q % s->step, from.w, to.w, s->row));
		if (live)
			u->taps[u->ntaps++] = t;
	}
}

static void
begin_unit(const Spread *s, int panels, char *work, Unit *u)
{
	int columns = s->kernel->columns;

	u->n = least_of(panels * columns, s->f.columns - u->n0);
	u->depth = panels == 1 ? depth_of(s->kernel)
						   : least_of(depth_of(s->kernel), WIDE_DEPTH / panels / STRETCH * STRETCH);
	u->sums = (float *) work;
	u->rows = u->sums + (size_t) CPU_MAX_BAND * columns;
	u->b = (char *) (u->rows + (size_t) STRETCH * columns);
	find_unit_taps(s, u);
}

/* Bytes from a panel of a unit to the next. */
static size_t
unit_panel(const Spread *s, const Unit *u)
{
	return (size_t) u->depth * s->kernel->columns * s->kernel->bytes;
}

/* Numbers [e, e + count) of tap t, of y = x * weights. */
static void
pack_down(const Spread *s, const Unit *u, int t, int e, int count, char *to)
{
	int c = s->from.shape.c, o = s->to.shape.c, x = s->f.tap[t].x + e / c, i = e % c;
	const float *rows[STRETCH];

	for (int k = 0; k < count; k++)
	{
		size_t tap = (size_t) s->f.tap[t].y * s->w->kernel + x;

		rows[k] = NULL;
		if (x < s->w->kernel)
			rows[k] = s->op->weight.f32 + (tap * (c + s->w->nz) + i) * o + u->n0;
		if (++i == c)
		{
			i = 0;
			x++;
		}
	}
	s->kernels->pack_rows(rows, count, u->n, s->kernel, to, unit_panel(s, u));
}

/* Numbers [i, i + count) of a tap, of n columns from n0 on, of all corners. */
static void
turn_weights(const Spread *s, int n0, int n, int y, int x, int i, int count, float *to)
{
	int c = s->to.shape.c, o = s->from.shape.c, columns;

	for (int at = 0; at < n; at += columns)
	{
		int q = (n0 + at) / c, channel = (n0 + at) % c, ky = tap_across(s, y, q / s->step),
			kx = tap_across(s, x, q % s->step);
		size_t tap = (size_t) ky * s->w->kernel + kx;

		columns = least_of(c - channel, n - at);
		if (ky < s->w->kernel && kx < s->w->kernel)
			s->kernels->turn(s->op->weight.f32 + (tap * (c + s->w->nz) + channel) * o + i, o, false,
							 columns, count, to + at, s->kernel->columns);
	}
}

/* The same as pack_down of x = y * weights, for n columns of a panel. */
static void
pack_panel_across(const Spread *s, const Unit *u, int n0, int n, int t, int e, int count, void *to)
{
	int o = s->from.shape.c, columns = s->kernel->columns, some;
	float *numbers = s->kernel->pair == 1 ? to : u->rows;
	const float *rows[STRETCH];

	if (n < columns || s->f.merged || s->w->kernel % s->w->stride != 0)
		memset(numbers, 0, (size_t) count * columns * sizeof(float));
	for (int k = 0; k < count; k += some)
	{
		int x = s->f.tap[t].x + (e + k) / o, i = (e + k) % o;

		some = least_of(o - i, count - k);
		if (x < s->f.kernel)
			turn_weights(s, n0, n, s->f.tap[t].y, x, i, some, numbers + (size_t) k * columns);
	}
	if (s->kernel->pair == 1)
		return;
	for (int k = 0; k < count; k++)
		rows[k] = numbers + (size_t) k * columns;
	s->kernels->pack_rows(rows, count, columns, s->kernel, to, 0);
}

static void
pack_across(const Spread *s, const Unit *u, int t, int e, int count, char *to)
{
	int columns = s->kernel->columns;

	for (int n = 0; n < u->n; n += columns, to += unit_panel(s, u))
		pack_panel_across(s, u, u->n0 + n, least_of(columns, u->n - n), t, e, count, to);
}

/* Packs [k0, k0 + k) of a unit, and says where its taps are. */
static int
pack_unit(const Spread *s, const CpuFrames *frames, const Unit *u, int k0, int k, CpuTap *taps)
{
	size_t row = (size_t) s->kernel->columns * s->kernel->bytes;
	int ntaps = 0, count;

	for (int at = 0; at < k; at += count)
	{
		int t = u->taps[(k0 + at) / s->f.k], e = (k0 + at) % s->f.k;

		count = least_of(s->f.k - e, k - at);
		taps[ntaps++] = (CpuTap){ frames->taps[t].at + e, count };
		for (int i = 0; i < count; i += STRETCH)
			(s->across ? pack_across : pack_down)(s, u, t, e + i, least_of(STRETCH, count - i),
												  u->b + (at + i) * row);
	}
	return ntaps;
}

static void
store_numbers(float *restrict to, const float *restrict from, const float *restrict bias, bool add,
			  int n)
{
	if (add)
		for (int k = 0; k < n; k++)
			to[k] += from[k];
	else if (bias)
		for (int k = 0; k < n; k++)
			to[k] = from[k] + bias[k];
	else
		memcpy(to, from, n * sizeof(float));
}

/* n columns from column n0 on, which are at `sums`, of one corner. */
static void
store_corner(const Spread *s, const Unit *u, int n0, int n, const float *sums)
{
	int c0 = n0 % s->to.shape.c, q = n0 / s->to.shape.c, end;
	const float *bias = s->bias ? s->bias + c0 : NULL;

	for (int p = u->p0; p < u->p1; p = end)
	{
		int x = p % s->f.row, row = p / s->f.row, y = row % s->f.rows,
			to_y = y * s->step + s->base + q / s->step;

		end = least_of(u->p1, p + s->f.row - x);
		if (y >= s->rows || to_y < 0 || to_y >= s->to.shape.h)
			continue;
		for (int i = p; i < end && x < s->row; i++, x++)
		{
			int to_x = x * s->step + s->base + q % s->step;

			if (to_x >= 0 && to_x < s->to.shape.w)
				store_numbers(pixel_of(&s->to, u->i0 + row / s->f.rows, to_y, to_x) + c0,
							  sums + (size_t) (i - u->p0) * s->kernel->columns, bias, s->add, n);
		}
	}
}

static void
store_unit(const Spread *s, const Unit *u)
{
	int columns = s->kernel->columns, n;

	for (int at = 0; at < u->n; at += n)
	{
		n = least_of(s->to.shape.c - (u->n0 + at) % s->to.shape.c, columns - at % columns);
		n = least_of(n, u->n - at);
		store_corner(s, u, u->n0 + at, n,
					 u->sums + (size_t) (at / columns) * (u->p1 - u->p0) * columns + at % columns);
	}
}

static void
multiply_unit(const Spread *s, const CpuFrames *frames, const Unit *u)
{
	const CpuKernel *kernel = s->kernel;
	CpuTap taps[CPU_MAX_TAPS];
	int k = u->ntaps * s->f.k, k0 = 0, positions = u->p1 - u->p0;
	CpuBlock block = { .lda = s->f.pitch, .taps = taps, .ldc = kernel->columns };

	do
	{
		block.ntaps = pack_unit(s, frames, u, k0, least_of(u->depth, k - k0), taps);
		block.add = k0 > 0;
		for (int at = 0; at < u->n; at += kernel->columns)
		{
			block.n = least_of(kernel->columns, u->n - at);
			block.b = u->b + at / kernel->columns * unit_panel(s, u);
			for (int p = 0; p < positions; p += kernel->rows)
			{
				block.m = least_of(kernel->rows, positions - p);
				block.a = frames->data + (size_t) (u->p0 + p) * s->f.pitch * kernel->bytes;
				block.c = u->sums + ((size_t) at * positions + (size_t) p * kernel->columns);
				kernel->multiply(&block);
			}
		}
	} while ((k0 += u->depth) < k);
}

/* Images whose frames are laid out at once. */
static int
chunk_images(const Spread *s)
{
	size_t image = cpu_frame_bytes(s->kernel, &s->f, 1);

	return image >= CHUNK_BYTES ? 1 : least_of((int) (CHUNK_BYTES / image), s->from.shape.n);
}

static void
spread(const NnOperands *op, const CpuWindow *w, bool across, const float *bias, bool add)
{
	const CpuTraining *training = cpu_training(op);
	Spread s = spread_of(training->kernel, w, across);
	CpuValue from = cpu_map_value(&s.from);
	int chunk = chunk_images(&s), band = cpu_frame_band(s.kernel, &s.f), batch = s.from.shape.n;
	int threads = cpu_window_team(op, w);

	s.op = op;
	s.kernels = training->kernels->train;
	s.bias = bias;
	s.add = add;
#pragma omp parallel num_threads(threads)
	{
		s.kernel->start();
		for (int i0 = 0; i0 < batch; i0 += chunk)
		{
			int n = least_of(chunk, batch - i0), end = cpu_frame_positions(&s.f, n, s.rows, s.row),
				panels = unit_panels(&s, least_of(band, end), threads);
			CpuFrames frames =
				cpu_frames(training->kernels, s.kernel, &s.f, s.from.shape, n, training->shared);

			cpu_lay_frames(&frames, &from, i0);
#pragma omp for collapse(2) schedule(dynamic)
			for (int n0 = 0; n0 < s.f.columns; n0 += panels * s.kernel->columns)
				for (int p = 0; p < end; p += band)
				{
					Unit u = { .i0 = i0, .p0 = p, .p1 = least_of(p + band, end), .n0 = n0 };

					begin_unit(&s, panels, cpu_own_work(training), &u);
					multiply_unit(&s, &frames, &u);
					store_unit(&s, &u);
				}
		}
		s.kernel->stop();
	}
}

void
cpu_window_y(const NnOperands *op, const CpuWindow *w, const float *bias, bool add)
{
	spread(op, w, false, bias, add);
}

void
cpu_window_x(const NnOperands *op, const CpuWindow *w, const float *bias, bool add)
{
	spread(op, w, true, bias, add);
}

/* ---- The weights' gradient ----------------------------------------------- */

/*
 * Rows of A are (b, c), of the columns' parity and channel: a tap of the
 * weights is a plane of the rows' parity a, rows of b, and an offset.
 */
typedef struct Gradient
{
	const NnOperands *op;
	const CpuWindow *w;
	const CpuKernel *kernel;
	const CpuTrainKernels *kernels;
	CpuFraming f;
	int group;               /* images at once */
	int reach;               /* positions that taps are moved by, at most */
	ptrdiff_t ld;            /* numbers from one row of A to the next */
	int rows, unit;          /* all rows of A; of a unit */
	bool live[CPU_MAX_TAPS]; /* taps of the weights that meet any pixel */
	bool apart;   /* a block is of one tap: some are dead, or a latent's rows lie between */
	char *panels; /* of y: [panel][k / pair][column][pair] */
	size_t panel; /* bytes of one */
	bool add;
} Gradient;

static int
group_depth(const Gradient *g, int n)
{
	int positions = cpu_frame_positions(&g->f, n, g->w->y.shape.h, g->w->y.shape.w);

	return rounded_up(positions, rounded_up(g->kernel->step, 2));
}

static Gradient
weight_gradient(const CpuKernel *kernel, const CpuWindow *w)
{
	Spread s = spread_of(kernel, w, false);
	Gradient g = { .w = w, .kernel = kernel, .f = s.f, .rows = w->stride * w->x.shape.c };
	int each = g.f.rows * g.f.row;

	for (int t = 0; t < g.f.nlive; t++)
		g.live[g.f.tap[t].y * w->kernel + g.f.tap[t].x] = true;
	g.apart = w->nz > 0;
	for (int t = 0; t < w->kernel * w->kernel; t++)
	{
		g.live[t] |= g.f.merged;
		g.apart |= !g.live[t];
	}
	g.group = least_of(largest_of(1, GROUP_POSITIONS / each), w->y.shape.n);
	g.reach = (w->kernel - 1) / w->stride * (g.f.row + 1);
	g.ld = rounded_up(group_depth(&g, g.group) + g.reach, 32);
	/* no multiple of 1024 bytes: rows would share sets of the cache */
	if (g.ld % 256 == 0)
		g.ld += 32;
	g.unit = largest_of(1, least_of(TURNED_ROWS, (int) (TURNED_NUMBERS / g.ld)) / kernel->rows) *
			 kernel->rows;
	g.panel = (size_t) group_depth(&g, g.group) * kernel->columns * kernel->bytes;
	return g;
}

static size_t
gradient_frames(const Gradient *g)
{
	return nn_sum(cpu_frame_bytes(g->kernel, &g->f, g->group), 63) / 64 * 64;
}

/* k rows of y's panels from position k0 on: zeros where it has no pixel. */
static void
pack_y(const Gradient *g, int i0, int n, int k0, int k)
{
	const NnMap *y = &g->w->y;
	const float *rows[STRETCH];

	for (int i = 0; i < k; i++)
	{
		int x = (k0 + i) % g->f.row, row = (k0 + i) / g->f.row, image = row / g->f.rows;

		row %= g->f.rows;
		rows[i] = NULL;
		if (image < n && row < y->shape.h && x < y->shape.w)
			rows[i] = pixel_of(y, i0 + image, row, x);
	}
	g->kernels->pack_rows(rows, k, y->shape.c, g->kernel,
						  g->panels + (size_t) k0 * g->kernel->columns * g->kernel->bytes,
						  g->panel);
}

/* Rows of x turned round, [plane][row][position], from row r0 of a frame on. */
static void
turn_frames(const Gradient *g, const CpuFrames *frames, int r0, int rows, int depth, char *to)
{
	int bytes = g->kernel->bytes;
	bool halves = bytes == 2;

	for (int a = 0; a < g->w->stride; a++)
		g->kernels->turn(frames->data + (a * frames->plane + r0) * bytes, g->f.pitch, halves,
						 (depth + g->reach + halves) / (1 + halves), rows,
						 to + (size_t) a * g->unit * g->ld * bytes, g->ld / (1 + halves));
}

/* What a thread adds: [k0, k0 + k) of rows [r0, end), panels [q0, q1). */
typedef struct Addend
{
	const char *turned;
	int r0, end, q0, q1, k0, k;
	bool add;
} Addend;

/* Of tap (ky, stride * x + b), all b. */
static void
multiply_tap(const Gradient *g, const Addend *d, int ky, int x)
{
	const CpuKernel *kernel = g->kernel;
	int stride = g->w->stride, c = g->w->x.shape.c, o = g->w->y.shape.c, columns = kernel->columns,
		last = least_of(d->end, (g->w->kernel - stride * x) * c);
	CpuTap tap = { (ptrdiff_t) (ky / stride * g->f.row + x) + d->k0, d->k };
	CpuBlock block = { .lda = g->ld, .taps = &tap, .ldc = o, .add = d->add };

	for (int r = d->r0; r < last; r += block.m)
	{
		int t = ky * g->w->kernel + stride * x + r / c;
		float *to = g->op->dweight.f32 + ((size_t) t * (c + g->w->nz) + r % c) * o;

		block.m = least_of(kernel->rows, last - r);
		if (g->apart)
			block.m = least_of(block.m, c - r % c);
		block.ntaps = g->live[t];
		block.a = d->turned + (size_t) (ky % stride * g->unit + r - d->r0) * g->ld * kernel->bytes;
		for (int q = d->q0; q < d->q1 && (block.ntaps > 0 || !d->add); q++)
		{
			block.n = least_of(columns, o - q * columns);
			block.b = g->panels + q * g->panel + (size_t) d->k0 * columns * kernel->bytes;
			block.c = to + q * columns;
			kernel->multiply(&block);
		}
	}
}

/* A unit of rows from r0 on, panels [q0, q1) of y. */
static void
correlate(const Gradient *g, const CpuFrames *frames, int i0, int r0, int q0, int q1, char *work)
{
	int depth = group_depth(g, frames->n), stretch = depth_of(g->kernel) / 2;
	int some = largest_of(1, PANEL_NUMBERS / (least_of(depth, stretch) * g->kernel->columns));
	Addend d = { .turned = work, .r0 = r0, .end = least_of(r0 + g->unit, g->rows) };

	turn_frames(g, frames, r0, d.end - r0, depth, work);
	for (d.k0 = 0; d.k0 < depth; d.k0 += stretch)
		for (d.q0 = q0; d.q0 < q1; d.q0 += some)
		{
			d.k = least_of(stretch, depth - d.k0);
			d.q1 = least_of(d.q0 + some, q1);
			d.add = g->add || i0 > 0 || d.k0 > 0;
			for (int ky = 0; ky < g->w->kernel; ky++)
				for (int x = 0; x * g->w->stride < g->w->kernel; x++)
					multiply_tap(g, &d, ky, x);
		}
}

/* Units of rows, and parts of the panels, some for each thread. */
static int
cut_rows(Gradient *g, int panels, int threads)
{
	int parts = 1, rows = g->kernel->rows;

	if (threads > 1 && g->rows / g->unit < 4 * threads)
		g->unit = least_of(g->unit, rounded_up(largest_of(1, g->rows / (4 * threads)), rows));
	while (threads > 1 && parts < panels && parts * ((g->rows - 1) / g->unit + 1) < 2 * threads)
		parts++;
	return parts;
}

void
cpu_window_weights(const NnOperands *op, const CpuWindow *w)
{
	const CpuTraining *training = cpu_training(op);
	Gradient g = weight_gradient(training->kernel, w);
	CpuValue x = cpu_map_value(&w->x);
	int panels = cpu_frame_panels(g.kernel, &g.f), batch = w->y.shape.n, parts, threads;

	threads = cpu_window_team(op, w);
	parts = cut_rows(&g, panels, threads);
	g.op = op;
	g.kernels = training->kernels->train;
	g.panels = training->shared + gradient_frames(&g);
	g.add = op->weight_mode == NN_GRAD_ACCUMULATE;
#pragma omp parallel num_threads(threads)
	{
		g.kernel->start();
		for (int i0 = 0; i0 < batch; i0 += g.group)
		{
			int n = least_of(g.group, batch - i0), depth = group_depth(&g, n);
			CpuFrames frames =
				cpu_frames(training->kernels, g.kernel, &g.f, w->x.shape, n, training->shared);

#pragma omp for schedule(dynamic) nowait
			for (int k = 0; k < depth; k += STRETCH)
				pack_y(&g, i0, n, k, least_of(STRETCH, depth - k));
			cpu_lay_frames(&frames, &x, i0);
#pragma omp for collapse(2) schedule(dynamic)
			for (int r0 = 0; r0 < g.rows; r0 += g.unit)
				for (int part = 0; part < parts; part++)
					correlate(&g, &frames, i0, r0, panels * part / parts,
							  panels * (part + 1) / parts, cpu_own_work(training));
		}
		g.kernel->stop();
	}
}

/* ---- Memory -------------------------------------------------------------- */

void
cpu_window_memory(const CpuKernel *kernel, const CpuWindow *w, bool across, CpuTrainMemory *most)
{
	Spread s = spread_of(kernel, w, across);

	nn_most(&most->shared, cpu_frame_bytes(kernel, &s.f, chunk_images(&s)));
	nn_most(&most->each, unit_memory(kernel));
}

void
cpu_window_weights_memory(const CpuKernel *kernel, const CpuWindow *w, CpuTrainMemory *most)
{
	Gradient g = weight_gradient(kernel, w);
	/* blocks read a kernel's rows, whatever theirs are */
	size_t turned = nn_mul(nn_mul(w->stride * g.unit + kernel->rows, g.ld), kernel->bytes);

	nn_most(&most->shared,
			nn_sum(gradient_frames(&g), nn_mul(cpu_frame_panels(kernel, &g.f), g.panel)));
	nn_most(&most->each, nn_sum(turned, 63) / 64 * 64);
}
