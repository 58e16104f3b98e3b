/*
 * graph.c
 *	  Building a graph: values, and nodes by the table of operators.
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

int
nn_view(NnGraph *g, int of, int c0, int c, const char *name)
{
	NnShape shape;
	int id;

	if (g->failed)
		return -1;
	shape = g->values[of].shape;
	if (c0 < 0 || c < 1 || c0 > shape.c - c)
	{
		nn_graph_fail(g, NN_EINVAL, "view of channels %d to %d of \"%s\", which has %d", c0, c0 + c,
					  g->values[of].name, shape.c);
		return -1;
	}
	shape.c = c;
	id = nn_value(g, shape, name);
	if (id >= 0)
	{
		g->values[id].view_of = of;
		g->values[id].view_c0 = c0;
	}
	return id;
}

int
nn_batch_view(NnGraph *g, int of, int n0, int n, const char *name)
{
	NnShape shape;
	int id;

	if (g->failed)
		return -1;
	shape = g->values[of].shape;
	if (n0 < 0 || n < 1 || n0 > shape.n - n)
	{
		nn_graph_fail(g, NN_EINVAL, "view of images %d to %d of \"%s\", which has %d", n0, n0 + n,
					  g->values[of].name, shape.n);
		return -1;
	}
	shape.n = n;
	id = nn_value(g, shape, name);
	if (id >= 0)
	{
		g->values[id].view_of = of;
		g->values[id].view_n0 = n0;
	}
	return id;
}

int
nn_value_root(const NnGraph *g, int value)
{
	while (g->values[value].view_of >= 0)
		value = g->values[value].view_of;
	return value;
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
	return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
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

/*
 * Appends a node that has operands and parameters, and outputs where the caller
 * made them. Returns the id of its first output, -1 after an error.
 */
static int
append_node(NnGraph *g, NnNode node, const char *name)
{
	const NnOpInfo *info = &nn_ops[node.op];
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

/* A node that has operands, -1 = none, and nothing else yet. */
static NnNode
node_of(NnOp op, int a, int b, int c)
{
	return (NnNode){
		.op = op, .in = { a, b, c }, .out = { -1, -1 }, .stats = -1, .weight = -1, .bias = -1
	};
}

void
nn_input_to(NnGraph *g, int out, const char *name)
{
	NnNode node = node_of(NN_OP_INPUT, -1, -1, -1);

	node.out[0] = out;
	append_node(g, node, name);
}

int
nn_input(NnGraph *g, NnShape shape, const char *name)
{
	int out = nn_value(g, shape, name);

	nn_input_to(g, out, name);
	return g->failed ? -1 : out;
}

int
nn_conv(NnGraph *g, int x, int z, int weight, int bias, NnConvArgs args, const char *name)
{
	NnNode node = node_of(NN_OP_CONV, x, z, -1);

	node.weight = weight;
	node.bias = bias;
	node.conv = args;
	return append_node(g, node, name);
}

int
nn_convt(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnNode node = node_of(NN_OP_CONVT, x, -1, -1);

	node.weight = weight;
	node.bias = bias;
	node.conv = (NnConvArgs){ .kernel = 4, .stride = 2, .pad = 1 };
	return append_node(g, node, name);
}

int
nn_linear(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnNode node = node_of(NN_OP_LINEAR, x, -1, -1);

	node.weight = weight;
	node.bias = bias;
	return append_node(g, node, name);
}

int
nn_avgpool(NnGraph *g, int x, int kernel, int stride, int pad, const char *name)
{
	NnNode node = node_of(NN_OP_AVGPOOL, x, -1, -1);

	node.pool = (NnPoolArgs){ kernel, stride, pad };
	return append_node(g, node, name);
}

int
nn_upsample(NnGraph *g, int x, int pad, const char *name)
{
	NnNode node = node_of(NN_OP_UPSAMPLE, x, -1, -1);

	node.upsample.pad = pad;
	return append_node(g, node, name);
}

int
nn_add(NnGraph *g, int a, int b, const char *name)
{
	return append_node(g, node_of(NN_OP_ADD, a, b, -1), name);
}

int
nn_norm_act(NnGraph *g, int x, const int out[2], const int state[4], const NnNormArgs *args,
			const char *name)
{
	bool batch = args->kind == NN_NORM_BATCH;
	NnNode node = node_of(NN_OP_NORM_ACT, x, -1, -1);
	int first;

	memcpy(node.out, out, sizeof(node.out));
	node.norm = *args;
	node.weight = batch ? state[0] : -1;
	node.bias = batch ? state[1] : -1;
	node.norm.mean = batch ? state[2] : -1;
	node.norm.var = batch ? state[3] : -1;
	first = append_node(g, node, name);
	if (first >= 0 && g->training && args->kind != NN_NORM_NONE)
	{
		NnShape shape = g->values[x].shape;

		g->nodes[g->nnodes - 1].stats =
			nn_value(g, (NnShape){ batch ? 1 : shape.n, 1, 1, 2 * shape.c }, name);
	}
	return first;
}

/* ---- Training ------------------------------------------------------------ */

int
nn_copy(NnGraph *g, int x, int out, const char *name)
{
	NnNode node = node_of(NN_OP_COPY, x, -1, -1);

	node.out[0] = out;
	return append_node(g, node, name);
}

int
nn_reparam(NnGraph *g, int mu, int logvar, int eps, int out, const char *name)
{
	NnNode node = node_of(NN_OP_REPARAM, mu, logvar, eps);

	node.out[0] = out;
	return append_node(g, node, name);
}

static int
append_loss(NnGraph *g, NnOp op, int a, int b, NnLossArgs args, const char *name)
{
	NnNode node = node_of(op, a, b, -1);

	node.loss = args;
	return append_node(g, node, name);
}

int
nn_gan_loss(NnGraph *g, int map, bool vanilla, double target, double scale, const char *name)
{
	return append_loss(g, NN_OP_GAN_LOSS, map, -1, (NnLossArgs){ scale, target, vanilla }, name);
}

int
nn_l1_loss(NnGraph *g, int x, int constant, double scale, const char *name)
{
	return append_loss(g, NN_OP_L1_LOSS, x, constant, (NnLossArgs){ .scale = scale }, name);
}

int
nn_kl_loss(NnGraph *g, int mu, int logvar, double scale, const char *name)
{
	return append_loss(g, NN_OP_KL_LOSS, mu, logvar, (NnLossArgs){ .scale = scale }, name);
}
