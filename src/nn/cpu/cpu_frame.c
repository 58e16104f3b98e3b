/*
 * cpu_frame.c
 *	  Laying out, packing and running of convolutions over frames
 *	  (cpu_frame.h).
 *
 * Order of sums: one chain over the taps, rows first, and the input's channels.
 * It follows from the layer's shape; units are panels of columns and bands of
 * positions, cut for the team, which change no bit (R3 of kernel.h).
 *
 * Weights belong to the layer (CpuLayer.frame_weights), frames to the plan.
 */
#include "nn/cpu/cpu_run.h"
#include "nn/cpu/cpu_finish.h"

#include "nn/training.h"

#include <omp.h>
#include <string.h>

/* Positions of a unit: the second-level cache holds their part of the frame. */
#define BAND_BYTES ((size_t) 512 << 10)

/* More inputs than this make taps long enough by themselves. */
#define MERGED_CHANNELS 32

static int
padded_to(int n, int step)
{
	return (n + step - 1) / step * step;
}

/* ---- Shape --------------------------------------------------------------- */

/* Whether tap `tap` of an axis meets any pixel. */
static bool
meets(const CpuFraming *f, int tap, int in, int out)
{
	for (int i = 0; i < out; i++)
		if (i * f->stride + tap >= f->lead && i * f->stride + tap < f->lead + in)
			return true;
	return false;
}

/* Positions of an axis: borders of neighbours may be the same zeros. */
static int
axis_positions(const CpuFraming *f, int in, int out)
{
	int last = (f->lead + in - 1) / f->stride + 1,
		reach = out + (f->kernel - 1) / f->stride - f->lead / f->stride;

	last = last > out ? last : out;
	return last > reach ? last : reach;
}

/* What of a frame follows from the map's size; h x w results. */
void
cpu_place_frame(CpuFraming *f, NnShape in, int h, int w)
{
	f->rows = axis_positions(f, in.h, h);
	f->row = axis_positions(f, in.w, w);
	if (f->merged && f->apart)
		f->rows += padded_to(f->k - f->kernel * in.c, f->row * f->pitch) / (f->row * f->pitch);
}

static void
add_frame_tap(CpuFraming *f, int y, int x)
{
	f->tap[f->ntaps].y = y;
	f->tap[f->ntaps++].x = x;
}

/* Taps that meet no pixel at the model's own size are packed last. */
static int
add_frame_taps(CpuFraming *f, NnShape in, int h, int w, bool live)
{
	for (int y = 0; y < f->kernel; y++)
		for (int x = 0; x < f->kernel; x++)
			if ((meets(f, y, in.h, h) && meets(f, x, in.w, w)) == live)
				add_frame_tap(f, y, x);
	return f->ntaps;
}

/* kernel, stride, lead and columns are set. */
void
cpu_make_frame(const CpuKernel *kernel, CpuFraming *f, NnShape in, int h, int w)
{
	int live;

	f->ntaps = 0;
	f->pitch = f->stride * in.c;
	live = add_frame_taps(f, in, h, w, true);
	f->merged =
		in.c % kernel->step != 0 || (in.c <= MERGED_CHANNELS && live == f->kernel * f->kernel);
	if (f->merged)
	{
		f->ntaps = 0;
		f->k = padded_to(f->kernel * in.c, kernel->step);
		for (int y = 0; y < f->kernel; y++)
			add_frame_tap(f, y, 0);
		f->nlive = f->ntaps;
		return;
	}
	f->k = in.c;
	/* no multiple of 1024 bytes: rows of A would share sets of the cache */
	if (f->pitch * kernel->bytes % 1024 == 0)
		f->pitch += 64 / kernel->bytes;
	(void) add_frame_taps(f, in, h, w, false);
	f->nlive = live;
}

/* Positions behind the last that blocks may read. */
static size_t
slack(const CpuFraming *f)
{
	return (size_t) ((f->kernel - 1) / f->stride + 1) * (f->row + 1) + CPU_KERNEL_ROWS +
		   CPU_KERNEL_STEP;
}

/* Elements of the frames of n images, one of the parities of rows. */
static size_t
frame_plane(const CpuFraming *f, int n)
{
	return ((size_t) n * f->rows * f->row + slack(f)) * f->pitch;
}

size_t
cpu_frame_bytes(const CpuKernel *kernel, const CpuFraming *f, int n)
{
	return nn_mul(frame_plane(f, n), f->stride * kernel->bytes);
}

/* ---- Weights ------------------------------------------------------------- */

int
cpu_frame_panels(const CpuKernel *kernel, const CpuFraming *f)
{
	return (f->columns + kernel->columns - 1) / kernel->columns;
}

static size_t
panel_bytes(const CpuKernel *kernel, const CpuFraming *f)
{
	return (size_t) f->ntaps * f->k * kernel->columns * kernel->bytes;
}

size_t
cpu_frame_weights(const CpuKernel *kernel, const CpuFraming *f)
{
	return cpu_frame_panels(kernel, f) * panel_bytes(kernel, f);
}

/* The checkpoint's number for a column and number `e` of tap `t`. */
static float
frame_weight(const CpuLayer *layer, const NnNode *node, const float *w, int t, int e, int column)
{
	const CpuFraming *f = &layer->framing;
	int inputs = layer->in.c + layer->nz, kernel = node->conv.kernel, o = column % layer->out.c,
		corner = column / layer->out.c, y = f->tap[t].y, x = f->tap[t].x + e / layer->in.c,
		i = e % layer->in.c;

	if (column >= f->columns || x >= f->kernel)
		return 0;
	if (node->op == NN_OP_CONV)
		return w[(((size_t) o * inputs + i) * kernel + y) * kernel + x];
	/* corner (a, b) has tap 2 + a - 2 t of the pixels around it */
	y = 2 + corner / 2 - 2 * y;
	x = 2 + corner % 2 - 2 * x;
	return w[(((size_t) i * layer->out.c + o) * kernel + y) * kernel + x];
}

static void
put_weight(const CpuKernel *kernel, void *to, size_t at, float x)
{
	uint32_t bits;

	if (kernel->bytes == 4)
	{
		((float *) to)[at] = x;
		return;
	}
	x = nn_bf16(x);
	memcpy(&bits, &x, sizeof(bits));
	((uint16_t *) to)[at] = (uint16_t) (bits >> 16);
}

/* [panel][tap][k / pair][column of the panel][pair] */
void
cpu_pack_frame(const CpuKernel *kernel, const CpuLayer *layer, const NnNode *node, const float *w,
			   void *out)
{
	const CpuFraming *f = &layer->framing;
	size_t at = 0;

	for (int p = 0; p < cpu_frame_panels(kernel, f); p++)
		for (int t = 0; t < f->ntaps; t++)
			for (int e = 0; e < f->k; e += kernel->pair)
				for (int column = 0; column < kernel->columns; column++)
					for (int i = e; i < e + kernel->pair; i++)
						put_weight(
							kernel, out, at++,
							frame_weight(layer, node, w, t, i, p * kernel->columns + column));
}

/* ---- Laying out ---------------------------------------------------------- */

CpuFrames
cpu_frames(const CpuKernels *kernels, const CpuKernel *kernel, const CpuFraming *f, NnShape in,
		   int n, void *data)
{
	CpuFrames frames = { .kernels = kernels,
						 .kernel = kernel,
						 .f = f,
						 .in = in,
						 .n = n,
						 .plane = frame_plane(f, n),
						 .data = data };

	for (int t = 0; t < f->nlive; t++)
		frames.taps[t] = (CpuTap){
			.at = (ptrdiff_t) (f->tap[t].y % f->stride * frames.plane) +
				  (ptrdiff_t) (f->tap[t].y / f->stride * f->row + f->tap[t].x / f->stride) *
					  f->pitch +
				  (ptrdiff_t) (f->tap[t].x % f->stride) * in.c,
			.k = f->k,
		};
	return frames;
}

/* Elements from a row's first position to where pixel `x` lies. */
static size_t
place_in_row(const CpuFraming *f, int channels, int x)
{
	return (size_t) ((x + f->lead) / f->stride) * f->pitch +
		   (size_t) ((x + f->lead) % f->stride) * channels;
}

/* Whether a row's pixels lie one behind the other, here and there. */
static bool
lie_together(const CpuFrames *frames, const CpuValue *from)
{
	const CpuFraming *f = frames->f;

	return f->pitch == f->stride * frames->in.c && from->pitch == frames->in.c;
}

/* A row's pixels in another type, in whole blocks where they lie together. */
static void
convert_row(const CpuFrames *frames, const CpuValue *from, size_t first, char *to)
{
	const CpuFraming *f = frames->f;
	NnShape in = frames->in;
	bool bf16 = frames->kernel->bytes == 2;
	int bytes = frames->kernel->bytes, numbers = in.w * in.c, whole = numbers / CPU_BLOCK;
	CpuRun src = { pixel(from, 0, first), CPU_BLOCK, from->bf16 };
	CpuOut out = { to + place_in_row(f, in.c, 0) * bytes, CPU_BLOCK, bf16, { 0 } };

	if (lie_together(frames, from))
	{
		cpu_copy_pixels(frames->kernels, src, whole, CPU_BLOCK, out);
		src.data = (const char *) src.data + (size_t) whole * CPU_BLOCK * element_size(from->bf16);
		out.data = (char *) out.data + (size_t) whole * CPU_BLOCK * bytes;
		cpu_copy_pixels(frames->kernels, src, 1, numbers % CPU_BLOCK, out);
		return;
	}
	for (int x = 0; x < f->stride && x < in.w; x++)
	{
		src = (CpuRun){ pixel(from, 0, first + x), from->pitch * f->stride, from->bf16 };
		out = (CpuOut){ to + place_in_row(f, in.c, x) * bytes, f->pitch, bf16, { 0 } };
		cpu_copy_pixels(frames->kernels, src, (in.w - x + f->stride - 1) / f->stride, in.c, out);
	}
}

/* As they are; at once where they lie one behind the other. */
static void
copy_row(const CpuFrames *frames, const CpuValue *from, size_t first, char *to)
{
	const CpuFraming *f = frames->f;
	NnShape in = frames->in;
	bool together = lie_together(frames, from);
	size_t bytes = (size_t) (together ? in.w : 1) * in.c * frames->kernel->bytes;

	for (int x = 0; x < (together ? 1 : in.w); x++)
		memcpy(to + place_in_row(f, in.c, x) * frames->kernel->bytes, pixel(from, 0, first + x),
			   bytes);
}

/*
 * Row `row` of positions of all images, in both parities: zeros and pixels.
 */
static void
lay_row(const CpuFrames *frames, const CpuValue *x, int i0, int row)
{
	const CpuFraming *f = frames->f;
	NnShape in = frames->in;
	int bytes = frames->kernel->bytes;
	size_t length = (size_t) f->row * f->pitch;
	CpuValue image = *x;

	image.data = pixel(x, i0 + row / f->rows, 0);
	for (int a = 0; a < f->stride; a++)
	{
		char *to = frames->data + (a * frames->plane + row * length) * bytes;
		int y = row % f->rows * f->stride + a - f->lead;

		memset(to, 0, length * bytes);
		if (y >= 0 && y < in.h)
			(x->bf16 == (bytes == 2) ? copy_row : convert_row)(frames, &image, (size_t) y * in.w,
															   to);
	}
}

/* What blocks read behind the last image. */
static void
clear_slack(const CpuFrames *frames)
{
	const CpuFraming *f = frames->f;
	size_t first = (size_t) frames->n * f->rows * f->row * f->pitch;
	int bytes = frames->kernel->bytes;

	for (int a = 0; a < f->stride; a++)
		memset(frames->data + (a * frames->plane + first) * bytes, 0,
			   (frames->plane - first) * bytes);
}

/* Images from i0 on; called by all threads of the team. */
void
cpu_lay_frames(const CpuFrames *frames, const CpuValue *x, int i0)
{
	int rows = frames->n * frames->f->rows;

#pragma omp for schedule(dynamic, 4)
	for (int row = 0; row <= rows; row++)
	{
		if (row < rows)
			lay_row(frames, x, i0, row);
		else
			clear_slack(frames);
	}
}

/* Positions that n images of h x w results take. */
int
cpu_frame_positions(const CpuFraming *f, int n, int h, int w)
{
	return ((n - 1) * f->rows + h - 1) * f->row + w;
}

/* Positions of a unit. */
int
cpu_frame_band(const CpuKernel *kernel, const CpuFraming *f)
{
	size_t position = (size_t) f->pitch * f->stride * kernel->bytes;
	int band = (int) (BAND_BYTES / position / kernel->rows) * kernel->rows,
		most = CPU_MAX_BAND / kernel->rows * kernel->rows;

	return band < kernel->rows ? kernel->rows : band < most ? band : most;
}

/* ---- Running ------------------------------------------------------------- */

/* Some images of a layer on their way. */
typedef struct FrameWork
{
	CpuFrames frames;
	const CpuLayer *layer;
	float *results;   /* [part][image][position][part] */
	size_t part_step; /* floats from one part to the next */
} FrameWork;

/* Panels and positions of a unit of work, of which a team takes many. */
typedef struct FrameUnit
{
	int panels, positions;
} FrameUnit;

static int
count_units(const CpuKernel *kernel, const CpuFraming *f, int positions, FrameUnit unit)
{
	return (cpu_frame_panels(kernel, f) + unit.panels - 1) / unit.panels *
		   ((positions + unit.positions - 1) / unit.positions);
}

/* No bit depends on how work is cut. */
static FrameUnit
cut_frames(const CpuKernel *kernel, const CpuFraming *f, int positions, int threads)
{
	int panels = (int) (kernel->group / panel_bytes(kernel, f)), few = 4 * kernel->rows;
	FrameUnit unit = { 1, cpu_frame_band(kernel, f) };

	if (panels < 2 || positions < few)
		return unit;
	unit.panels = panels < cpu_frame_panels(kernel, f) ? panels : cpu_frame_panels(kernel, f);
	while (unit.panels > 1 && count_units(kernel, f, positions, unit) < 4 * threads)
		if (unit.positions >= 2 * few)
			unit.positions = unit.positions / 2 / kernel->rows * kernel->rows;
		else
			unit.panels = (unit.panels + 1) / 2;
	return unit;
}

/* A block of positions from p on, by one panel. */
static void
multiply_panel(const FrameWork *work, int panel, int p, CpuBlock *block)
{
	const CpuKernel *kernel = work->frames.kernel;
	const CpuFraming *f = work->frames.f;
	int part = work->layer->layout.part, column = panel * kernel->columns,
		left = f->columns - column;

	block->n = left < kernel->columns ? left : kernel->columns;
	block->b = (const char *) work->layer->frame_weights + panel * panel_bytes(kernel, f);
	block->c = work->results + column / part * work->part_step + column % part + (size_t) p * part;
	kernel->multiply(block);
}

/*
 * A unit, from `panel` and position p0 of so many on: each block by all panels,
 * while it is in the first-level cache.
 */
static void
multiply_positions(const FrameWork *work, FrameUnit unit, int panel, int p0, int positions)
{
	const CpuKernel *kernel = work->frames.kernel;
	const CpuFraming *f = work->frames.f;
	int panels = cpu_frame_panels(kernel, f),
		end = panel + unit.panels < panels ? panel + unit.panels : panels,
		p1 = p0 + unit.positions < positions ? p0 + unit.positions : positions;
	int blocks = (p1 - p0 + kernel->rows - 1) / kernel->rows,
		step = CPU_KERNEL_STEP * kernel->columns * kernel->bytes;
	size_t bytes = panel_bytes(kernel, f);
	const char *b = (const char *) work->layer->frame_weights + panel * bytes;
	CpuBlock block = { .lda = f->pitch,
					   .taps = work->frames.taps,
					   .ntaps = f->nlive,
					   .ldc = work->layer->layout.part };

	/* all blocks of a unit together ask for the next one's panels once */
	block.next =
		b + (blocks == 1 && end - panel == 1 ? (size_t) kernel->ahead : (end - panel) * bytes);
	if (kernel->ahead)
		block.ahead = padded_to(step / blocks, 64);
	for (int p = p0; p < p1; p += kernel->rows)
	{
		block.m = p1 - p < kernel->rows ? p1 - p : kernel->rows;
		block.a = work->frames.data + (size_t) p * f->pitch * kernel->bytes;
		for (int j = panel; j < end; j++)
		{
			multiply_panel(work, j, p, &block);
			block.next += bytes / step * block.ahead;
		}
	}
}

/* Images [i0, i0 + n) of a chunk; called by all threads of the team. */
void
cpu_run_frames(CpuCall *call, const CpuLayer *layer, const CpuValue *x, int i0, int n, int chunk)
{
	const CpuFraming *f = &layer->framing;
	const CpuKernel *kernel = call->packed->kernel;
	FrameWork work = { .frames = cpu_frames(call->device->kernels, kernel, f, layer->in, n,
											call->p->frames),
					   .layer = layer,
					   .results = call->p->results,
					   .part_step = part_step(layer, chunk) };
	int positions = cpu_frame_positions(f, n, layer->layout.h, layer->layout.w),
		panels = cpu_frame_panels(kernel, f);
	FrameUnit unit = cut_frames(kernel, f, positions, omp_get_num_threads());

	cpu_lay_frames(&work.frames, x, i0);
#pragma omp for collapse(2) schedule(dynamic)
	for (int panel = 0; panel < panels; panel += unit.panels)
		for (int p = 0; p < positions; p += unit.positions)
			multiply_positions(&work, unit, panel, p, positions);
}
