/*
 * layout.c
 *	  How a convolution is cut into units, from its shape alone: the table that fixes algorithm, tile origin and order of sums of every layer.
 *
 * Nothing here may ask for the batch, the thread count or a timing: an image's bits follow from this file (design rule "bits").  Pure functions.
 */
#include "cpu.h"

/*
 * Transposed convolutions (4x4, stride 2, padding 1) run as stride-1 convolutions with 2x2 kernels.  Pixel (2i + a, 2j + b) of the result needs taps 3 - a and
 * 1 - a of the rows i - 1 + a and i + a, and the same for columns: four convolutions, one for each (a, b), each with the extent of the input.  With few
 * channels these would leave most of a vector empty; then one convolution on the grid of (h + 1) x (w + 1) corners computes all four of a corner at once.
 */
#define GRID_CHANNELS 16

/* Units by the pixels of the result (of a phase): channels of a unit, and the least pixels of one.  The first line that fits counts. */
static const struct
{
	int			pixels;			/* at least */
	int			part;
	int			band;
}			cuts[] = {
	{4096, 128, 1024},
	{1024, 64, 512},
	{0, 64, 256},
};

/* The NORM_ACT that alone reads this node's result and follows it, or -1. */
int
cpu_fused_norm(const NnGraph *graph, int node)
{
	int			value = graph->nodes[node].out[0];
	const NnNode *next = node + 1 < graph->nnodes ? &graph->nodes[node + 1] : NULL;
	int			readers = 0;

	if (!next || next->op != NN_OP_NORM_ACT || next->in[0] != value)
		return -1;
	if (graph->values[value].output || graph->values[value].view_of >= 0)
		return -1;
	for (int i = 0; i < graph->nvalues; i++)
		if (graph->values[i].view_of == value)
			return -1;
	for (int i = 0; i < graph->nnodes; i++)
		readers += (graph->nodes[i].in[0] == value) + (graph->nodes[i].in[1] == value);
	return readers == 1 ? node + 1 : -1;
}

void
cpu_layout(const NnGraph *graph, int id, CpuLayout *layout)
{
	const NnNode *node = &graph->nodes[id];
	NnShape		out = graph->values[node->out[0]].shape;
	int			norm = cpu_fused_norm(graph, id);
	bool		whole = norm >= 0 && graph->nodes[norm].norm == NN_NORM_INSTANCE;	/* statistics walk the phases more easily */
	int			line = 0;

	*layout = (CpuLayout) {.form = CPU_PLAIN, .phases = 1, .kernel = node->kernel, .stride = node->stride, .h = out.h, .w = out.w, .c = out.c};
	if (node->op == NN_OP_CONVT)
	{
		layout->kernel = 2;
		layout->stride = 1;
		layout->form = 4 * out.c <= GRID_CHANNELS && !whole ? CPU_GRID : CPU_PHASES;
		layout->phases = layout->form == CPU_GRID ? 1 : 4;
		layout->h = out.h / 2 + (layout->form == CPU_GRID);
		layout->w = out.w / 2 + (layout->form == CPU_GRID);
		layout->c = layout->form == CPU_GRID ? 4 * out.c : out.c;
	}
	while (layout->h * layout->w < cuts[line].pixels)
		line++;
	layout->part = layout->c % cuts[line].part == 0 ? cuts[line].part : layout->c % CPU_BLOCK == 0 ? CPU_BLOCK : layout->c;
	layout->band = (cuts[line].band + layout->w - 1) / layout->w;
	if (layout->band > layout->h)
		layout->band = layout->h;
	layout->elements = (size_t) layout->phases * layout->h * layout->w * layout->c;
}

/* The checkpoint's tap, along one axis, that tap `tap` of the convolutions of phase (or grid corner) `odd` stands for. */
int
cpu_checkpoint_tap(const CpuLayout *layout, int odd, int tap)
{
	switch (layout->form)
	{
		case CPU_PHASES:
			return 3 - odd - 2 * tap;
		case CPU_GRID:
			return 2 + odd - 2 * tap;
		case CPU_PLAIN:
			break;
	}
	return tap;
}

/* Padding before the first position along one axis; afterwards there is as much as the last position needs. */
int
cpu_leading_pad(const CpuLayout *layout, const NnNode *node, int odd)
{
	switch (layout->form)
	{
		case CPU_PHASES:
			return 1 - odd;
		case CPU_GRID:
			return 1;
		case CPU_PLAIN:
			break;
	}
	return node->pad;
}

/* False if there are more classes than we provide for. */
bool
cpu_classes(CpuClasses *classes, int in, int out, int kernel, int stride, int pad)
{
	classes->n = 0;
	for (int i = 0; i < out; i++)
	{
		int			start = i * stride - pad;
		int			tap0 = start < 0 ? -start : 0;
		int			tap1 = in - start < kernel ? in - start : kernel;
		int			last = classes->n - 1;

		if (last < 0 || classes->tap0[last] != tap0 || classes->tap1[last] != tap1)
		{
			if (classes->n == CPU_MAX_CLASSES)
				return false;
			last = classes->n++;
			classes->first[last] = i;
			classes->tap0[last] = tap0;
			classes->tap1[last] = tap1;
		}
		if (i == out / 2)
			classes->centre = last;
	}
	classes->first[classes->n] = out;
	return true;
}
