/*
 * cpu_layout.c
 *	  How a convolution is cut into units, from its shape alone: the table that
 *	  fixes algorithm, tile origin and order of sums of every layer.
 *
 * R1 Nothing here asks for batch, thread count or a timing: an image's bits
 *    follow from this file (R3 of nn.h). Pure functions.
 * R2 The rule is asked once a layer, for its map at the model's own size, and
 *    decides in which form the weights are packed. At other sizes the layer
 *    keeps algorithm and form, so one copy of the weights serves all. What that
 *    costs is told in doc/performance.md.
 */
#include "nn/cpu/cpu.h"

#include <string.h>

/*
 * Transposed convolutions (4x4, stride 2, padding 1) run as stride-1
 * convolutions with 2x2 kernels. Tiles: pixel (2i + a, 2j + b) of the result
 * needs taps 3 - a and 1 - a of the rows i - 1 + a and i + a, and the same for
 * columns: four convolutions, one for each (a, b), each with the extent of the
 * input. With few channels these would leave most of a vector empty; then, and
 * with frames, one convolution on the grid of (h + 1) x (w + 1) corners
 * computes all four of a corner at once.
 */
#define GRID_CHANNELS 16

/*
 * Layers that cpu_tiles.c computes, in fp32; the others are cpu_frame.c's.
 * Extent is that of the result, of a transposed convolution that of the input:
 * at least. The first line that fits counts. Minimal filtering saves more than
 * it costs from 8 x 8 on, F(3, 2) from 32 x 32 on (measured with AVX-512, and
 * as a whole with AVX2); below, and where few taps meet the image, direct.
 */
typedef struct Rule
{
	NnOp op;
	int kernel, stride;
	int extent;
	int inputs; /* channels, at least */
	int m;      /* outputs of a tile along an axis */
	bool grid;
} Rule;

static const Rule rules[] = {
	{ NN_OP_CONV, 4, 2, 32, 16, 3, false }, { NN_OP_CONV, 4, 2, 8, 16, 2, false },
	{ NN_OP_CONV, 4, 2, 1, 16, 1, false },  { NN_OP_CONV, 3, 1, 8, 16, 2, false },
	{ NN_OP_CONVT, 4, 2, 32, 16, 3, true }, { NN_OP_CONVT, 4, 2, 8, 16, 2, false },
	{ NN_OP_CONVT, 4, 2, 1, 16, 1, false }, { 0 },
};

/*
 * Those of training, which transforms its weights each time; the others are
 * computed over frames.
 */
static const Rule train_rules[] = {
	{ NN_OP_CONV, 4, 2, 12, 16, 3, false },
	{ NN_OP_CONV, 4, 2, 8, 16, 2, false },
	{ NN_OP_CONV, 4, 1, 8, 16, 3, false },
	{ NN_OP_CONV, 3, 1, 8, 16, 2, false },
	{ NN_OP_CONVT, 4, 2, 12, 16, 3, true },
	{ NN_OP_CONVT, 4, 2, 8, 16, 2, false },
	{ 0 },
};

/* With fewer tiles an image, threads share the weights and not the tiles. */
#define SHARED_TILES 256

/* ---- Steps --------------------------------------------------------------- */

/*
 * The last node of the step that a convolution begins: the norm that follows
 * it, the average pool that is made part of it, or itself.
 *
 * A 3x3 convolution of stride 1 and then the mean of 2x2 is a 4x4 convolution
 * of stride 2 with the kernel's mean over four places: less than half the work.
 */
int
cpu_step_end(const NnGraph *graph, int id)
{
	const NnNode *node = &graph->nodes[id], *next = node + 1;

	if (!nn_read_by_next_only(graph, id))
		return id;
	if (next->op == NN_OP_NORM_ACT)
		return id + 1;
	if (next->op == NN_OP_AVGPOOL && node->op == NN_OP_CONV && node->in[1] < 0 &&
		node->conv.kernel == 3 && node->conv.stride == 1 && next->pool.kernel == 2 &&
		next->pool.stride == 2 && next->pool.pad == 0)
		return id + 1;
	return id;
}

/* The convolution a step runs: the node's, or with the pool that ends it. */
NnNode
cpu_step_conv(const NnGraph *graph, int id)
{
	NnNode node = graph->nodes[id];
	const NnNode *end = &graph->nodes[cpu_step_end(graph, id)];

	if (end->op == NN_OP_AVGPOOL)
	{
		node.conv.kernel += end->pool.kernel - 1;
		node.conv.stride = end->pool.stride;
	}
	return node;
}

/* ---- Tiles --------------------------------------------------------------- */

/* Whether a tap at offset `at` meets the image at any of `out` positions. */
static bool
live_tap(int at, int in, int out, int stride)
{
	for (int i = 0; i < out; i++)
		if (i * stride + at >= 0 && i * stride + at < in)
			return true;
	return false;
}

static void
add_source(CpuTiling *t, int phase, int y, int x)
{
	int n = t->npacked[phase]++;

	t->source[phase][n].y = y;
	t->source[phase][n].x = x;
}

/*
 * Direct: each tap is a source, those that are live at the model's own size
 * first. The taps of a phase, or corner, of a transposed convolution are 2 x 2
 * from pixel (odd - 1) on.
 */
static void
add_taps(CpuTiling *t, NnShape in, int phase, int kernel, int y0, int x0)
{
	for (int live = 1; live >= 0; live--)
	{
		for (int y = y0; y < y0 + kernel; y++)
			for (int x = x0; x < x0 + kernel; x++)
				if ((live_tap(y, in.h, t->h, t->stride) && live_tap(x, in.w, t->w, t->stride)) ==
					live)
					add_source(t, phase, y, x);
		if (live)
			t->nsources[phase] = t->npacked[phase];
	}
}

static void
add_sources(CpuTiling *t, const NnNode *node, NnShape in)
{
	bool transposed = node->op == NN_OP_CONVT;

	for (int phase = 0; phase < t->phases; phase++)
	{
		int y = node->op == NN_OP_CONV ? -node->conv.pad
				: t->grid              ? -1
									   : phase / 2 - 1,
			x = node->op == NN_OP_CONV ? -node->conv.pad
				: t->grid              ? -1
									   : phase % 2 - 1;

		if (t->r == 1)
			add_taps(t, in, phase, node->op == NN_OP_CONV ? node->conv.kernel : 2, y, x);
		else
		{
			/* parities, or of stride 1 parts of the kernel */
			int n = transposed ? 1 : node->conv.kernel / t->r, step = t->stride > 1 ? 1 : t->r;

			for (int q = 0; q < n * n; q++)
				add_source(t, phase, y + q / n * step, x + q % n * step);
			t->nsources[phase] = t->npacked[phase];
		}
	}
}

/* Tiles of maps of some size. */
static void
place_tiles(const NnNode *node, NnShape in, NnShape out, CpuTiling *t)
{
	bool transposed = node->op == NN_OP_CONVT;

	t->h = !transposed ? out.h : in.h + t->grid;
	t->w = !transposed ? out.w : in.w + t->grid;
	t->tiles_y = (t->h + t->m - 1) / t->m;
	t->tiles_x = (t->w + t->m - 1) / t->m;
	t->shared = (int64_t) t->tiles_y * t->tiles_x < SHARED_TILES;
}

static void
make_tiling(const NnNode *node, NnShape in, NnShape out, int m, bool grid, CpuTiling *t)
{
	bool transposed = node->op == NN_OP_CONVT;

	*t = (CpuTiling){
		.m = m,
		.r = m == 1                  ? 1
			 : node->conv.kernel % 2 ? 3
									 : 2,
		.phases = transposed && !grid ? 4 : 1,
		.grid = grid,
		.stride = transposed ? 1 : node->conv.stride,
		.channels = grid ? 4 * out.c : out.c,
	};
	place_tiles(node, in, out, t);
	add_sources(t, node, in);
}

/* ---- The choice ---------------------------------------------------------- */

static int
smaller(int a, int b)
{
	return a < b ? a : b;
}

/* corners: laid by them; else a grid's must be whole blocks of channels. */
static const Rule *
find_rule(const Rule *rule, const NnNode *node, NnShape in, NnShape out, bool corners)
{
	NnShape map = node->op == NN_OP_CONVT ? in : out;
	int extent = smaller(map.h, map.w);

	while (rule->op != node->op || rule->kernel != node->conv.kernel ||
		   rule->stride != node->conv.stride || extent < rule->extent || in.c < rule->inputs ||
		   (rule->grid && !corners && out.c % CPU_BLOCK != 0))
		if ((++rule)->kernel == 0)
			return NULL;
	return rule;
}

/* What of a layout follows from the map's size alone. */
static void
place_result(CpuLayer *layer)
{
	CpuLayout *l = &layer->layout;
	int rows;

	l->h = rows = l->form == CPU_GRID ? layer->out.h / 2 + 1 : layer->out.h;
	l->w = l->row = l->form == CPU_GRID ? layer->out.w / 2 + 1 : layer->out.w;
	if (l->algorithm == CPU_FRAMES)
	{
		cpu_place_frame(&layer->framing, layer->in, l->h, l->w);
		rows = layer->framing.rows;
		l->row = layer->framing.row;
	}
	l->elements = (size_t) rows * l->row * l->c;
}

/* node is what cpu_step_conv returned, end the step's last node. */
void
cpu_layout(const NnNode *node, const NnNode *end, const CpuKernel *kernel, CpuLayer *layer)
{
	/* statistics walk a whole map more easily */
	bool whole = nn_norm_of(end) == NN_NORM_INSTANCE, transposed = node->op == NN_OP_CONVT;
	bool grid = transposed && 4 * layer->out.c <= GRID_CHANNELS && !whole;
	const Rule *rule =
		kernel->bytes == 4 ? find_rule(rules, node, layer->in, layer->out, grid) : NULL;
	CpuLayout *l = &layer->layout;

	grid |= transposed && !rule;
	*l = (CpuLayout){ .algorithm = rule ? CPU_TILES : CPU_FRAMES,
					  .form = grid ? CPU_GRID : CPU_PLAIN,
					  .c = grid ? 4 * layer->out.c : layer->out.c };
	l->part = layer->out.c % CPU_BLOCK == 0 ? CPU_BLOCK : l->c;
	if (rule)
	{
		place_result(layer);
		make_tiling(node, layer->in, layer->out, rule->m, grid || rule->grid, &layer->tiling);
		return;
	}
	layer->framing = (CpuFraming){ .kernel = grid ? 2 : node->conv.kernel,
								   .stride = grid ? 1 : node->conv.stride,
								   .lead = grid ? 1 : node->conv.pad,
								   .apart = true,
								   .columns = l->c };
	cpu_make_frame(kernel, &layer->framing, layer->in, grid ? layer->out.h / 2 + 1 : layer->out.h,
				   grid ? layer->out.w / 2 + 1 : layer->out.w);
	place_result(layer);
}

/*
 * A product of training, whose pixels are `pitch` numbers apart. false: it is
 * computed over frames.
 */
bool
cpu_train_layout(const NnNode *node, int pitch, CpuLayer *layer)
{
	bool transposed = node->op == NN_OP_CONVT;
	NnShape out = layer->out;
	const Rule *rule = find_rule(train_rules, node, layer->in, out, false);

	if (!rule || out.c < rule->inputs ||
		(transposed &&
		 (node->conv.pad != 1 || out.h != 2 * layer->in.h || out.w != 2 * layer->in.w)))
		return false;
	layer->layout = (CpuLayout){ .algorithm = CPU_TILES, .c = pitch, .part = pitch };
	place_result(layer);
	make_tiling(node, layer->in, out, rule->m, rule->grid, &layer->tiling);
	return true;
}

/* The same for maps of another size: what weights depend on stays (R2). */
void
cpu_resize_layout(const NnNode *node, CpuLayer *layer)
{
	place_result(layer);
	if (layer->layout.algorithm == CPU_FRAMES)
	{
		layer->framing.nlive = layer->framing.ntaps;
		return;
	}
	place_tiles(node, layer->in, layer->out, &layer->tiling);
	memcpy(layer->tiling.nsources, layer->tiling.npacked, sizeof(layer->tiling.nsources));
}
