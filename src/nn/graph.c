/*
 * graph.c
 *	  Building a graph: values, and nodes by the facts of their operators.
 *
 * The graph owns its arrays and copies of all names; nn_graph_free releases
 * them. The first error is remembered and stops the building, so that nets.c
 * reads as the list of layers it is. No locks: a graph belongs to the thread
 * that builds it.
 */
#include "nn/graph.h"
#include "common/invariant.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
nn_graph_init(NnGraph *g, const NnParams *params)
{
	memset(g, 0, sizeof(*g));
	g->params = params;
}

void
nn_graph_free(NnGraph *g)
{
	for (int i = 0; i < g->nvalues; i++)
		free((char *) g->values[i].name);
	for (int i = 0; i < g->nnodes; i++)
		free((char *) g->nodes[i].name);
	free(g->values);
	free(g->nodes);
	memset(g, 0, sizeof(*g));
}

void
nn_graph_fail(NnGraph *g, NnStatus code, const char *message, ...)
{
	char text[sizeof(g->error.message)];
	va_list args;

	if (g->failed)
		return;
	g->failed = true;
	va_start(args, message);
	vsnprintf(text, sizeof(text), message, args);
	va_end(args);
	nn_fail(&g->error, code, "%s", text);
}

/* ---- Values and nodes ---------------------------------------------------- */

/* Makes room for one more element; on failure the array stays as it is. */
static void *
grown(NnGraph *g, void *array, int count, int *capacity, size_t element)
{
	int wanted = *capacity ? *capacity * 2 : 64;
	void *bigger;

	if (count < *capacity)
		return array;
	bigger = realloc(array, (size_t) wanted * element);
	if (!bigger)
	{
		nn_graph_fail(g, NN_ENOMEM, "out of memory");
		return array;
	}
	*capacity = wanted;
	return bigger;
}

static char *
copy_name(NnGraph *g, const char *name)
{
	char *copy = strdup(name);

	if (!copy)
		nn_graph_fail(g, NN_ENOMEM, "out of memory");
	return copy;
}

int
nn_value(NnGraph *g, NnShape shape, const char *name)
{
	NnValue *v;

	if (g->failed)
		return -1;
	if (shape.n < 1 || shape.h < 1 || shape.w < 1 || shape.c < 1)
	{
		nn_graph_fail(g, NN_EINVAL, "empty shape (%d, %d, %d, %d) of \"%s\"", shape.n, shape.h,
					  shape.w, shape.c, name);
		return -1;
	}
	g->values = grown(g, g->values, g->nvalues, &g->values_capacity, sizeof(NnValue));
	if (g->failed)
		return -1;
	v = &g->values[g->nvalues];
	*v = (NnValue){ .shape = shape, .view_of = -1, .name = copy_name(g, name) };
	return g->nvalues++;
}

/* A part of a value: `count` of its channels or images, from `first` on. */
static int
view_part(NnGraph *g, int of, bool images, int first, int count, const char *name)
{
	NnShape shape;
	int *extent = images ? &shape.n : &shape.c, id;

	if (g->failed)
		return -1;
	shape = g->values[of].shape;
	if (first < 0 || count < 1 || first > *extent - count)
	{
		nn_graph_fail(g, NN_EINVAL, "view of %s %d to %d of \"%s\", which has %d",
					  images ? "images" : "channels", first, first + count, g->values[of].name,
					  *extent);
		return -1;
	}
	*extent = count;
	id = nn_value(g, shape, name);
	if (id < 0)
		return -1;
	g->values[id].view_of = of;
	*(images ? &g->values[id].view_n0 : &g->values[id].view_c0) = first;
	return id;
}

int
nn_view(NnGraph *g, int of, int c0, int c, const char *name)
{
	return view_part(g, of, false, c0, c, name);
}

int
nn_batch_view(NnGraph *g, int of, int n0, int n, const char *name)
{
	return view_part(g, of, true, n0, n, name);
}

int
nn_value_root(const NnGraph *g, int value)
{
	while (g->values[value].view_of >= 0)
		value = g->values[value].view_of;
	return value;
}

void
nn_widen(NnGraph *g, int value)
{
	if (!g->failed && value >= 0)
		g->values[nn_value_root(g, value)].wide = true;
}

bool
nn_is_wide(const NnGraph *g, int value)
{
	return g->values[nn_value_root(g, value)].wide;
}

bool
nn_read_by_next_only(const NnGraph *g, int node)
{
	int value = g->nodes[node].out[0];
	int readers = 0;

	if (node + 1 >= g->nnodes || g->nodes[node + 1].in[0] != value)
		return false;
	if (g->values[value].output || g->values[value].view_of >= 0)
		return false;
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of == value)
			return false;
	for (int i = 0; i < g->nnodes; i++)
		for (int k = 0; k < NN_MAX_IN; k++)
			readers += g->nodes[i].in[k] == value;
	return readers == 1;
}

void
nn_output(NnGraph *g, int value)
{
	if (!g->failed)
		g->values[value].output = true;
}

/* ---- Nodes --------------------------------------------------------------- */

static bool
shapes_agree(NnShape a, NnShape b)
{
	return a.n == b.n && nn_same_image(a, b);
}

/* The operands and parameters that the table says, and no others. */
static void
check_operands(NnGraph *g, const NnNode *node, const NnOpInfo *info)
{
	int last = info->inputs + info->optional;

	for (int k = 0; k < NN_MAX_IN; k++)
	{
		INVARIANT(node->in[k] >= 0 ? k < last : k >= info->inputs);
		if (info->alike && k < info->inputs &&
			!shapes_agree(g->values[node->in[0]].shape, g->values[node->in[k]].shape))
			nn_graph_fail(g, NN_EINVAL, "layer \"%s\" reads maps of different shapes", node->name);
	}
	INVARIANT(node->weight >= 0 || info->weights == 0);
}

/* Outputs of that shape, of which the first is made if it is not there. */
static void
find_outputs(NnGraph *g, NnNode *node, NnShape shape)
{
	if (node->out[0] < 0)
		node->out[0] = nn_value(g, shape, node->name);
	for (int i = 0; i < NN_MAX_OUT; i++)
		if (!g->failed && node->out[i] >= 0 && !shapes_agree(g->values[node->out[i]].shape, shape))
			nn_graph_fail(g, NN_EINVAL, "layer \"%s\" writes a map of another shape", node->name);
}

int
nn_append_node(NnGraph *g, const NnOpInfo *info, NnNode node, const char *name)
{
	NnShape shape;

	if (g->failed)
		return -1;
	node.name = name;
	check_operands(g, &node, info);
	if (!g->failed && info->shape)
	{
		g->failed = info->shape(g, &node, &shape, &g->error) != NN_OK;
		find_outputs(g, &node, shape);
	}
	if (g->failed)
		return -1;
	g->nodes = grown(g, g->nodes, g->nnodes, &g->nodes_capacity, sizeof(NnNode));
	if (g->failed)
		return -1;
	node.name = copy_name(g, name);
	g->nodes[g->nnodes++] = node;
	if (info->loss)
		nn_output(g, node.out[0]);
	return node.out[0];
}
