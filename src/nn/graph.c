/*
 * graph.c
 *	  Building a graph: values, nodes and the shape rule of each operator.
 *
 * The graph owns its arrays and copies of all names; nn_graph_free releases
 * them. The first error is remembered and stops the building, so that nets.c
 * reads as the list of layers it is. No locks: a graph belongs to the thread
 * that builds it.
 */
#include "nn/graph.h"

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
		readers += (g->nodes[i].in[0] == value) + (g->nodes[i].in[1] == value);
	return readers == 1;
}

void
nn_output(NnGraph *g, int value)
{
	if (!g->failed)
		g->values[value].output = true;
}

/*
 * A node without operands, parameters or outputs; NULL after an error. The
 * pointer holds until the next node is appended.
 */
static NnNode *
append_node(NnGraph *g, NnOp op, const char *name)
{
	NnNode *node;

	if (g->failed)
		return NULL;
	g->nodes = grown(g, g->nodes, g->nnodes, &g->nodes_capacity, sizeof(NnNode));
	if (g->failed)
		return NULL;
	node = &g->nodes[g->nnodes++];
	*node = (NnNode){ .op = op,
					  .in = { -1, -1, -1 },
					  .out = { -1, -1 },
					  .stats = -1,
					  .weight = -1,
					  .bias = -1,
					  .mean = -1,
					  .var = -1,
					  .name = copy_name(g, name) };
	return node;
}

/* ---- Shape rules --------------------------------------------------------- */

/*
 * The output extent of a window of `kernel` at `stride` over `extent` padded by
 * `pad` on both sides; below 1 if it does not fit.
 */
static int
window_extent(int extent, int kernel, int stride, int pad)
{
	int room = extent + 2 * pad - kernel;

	return room < 0 ? 0 : room / stride + 1;
}

static void
check_param(NnGraph *g, int param, int ndim, const int64_t *shape, const char *node)
{
	const NnParam *p;

	if (g->failed || param < 0)
		return;
	p = &g->params->list[param];
	if (p->ndim != ndim || memcmp(p->shape, shape, sizeof(int64_t) * ndim) != 0)
		nn_graph_fail(g, NN_EINVAL, "tensor \"%s\" does not fit layer \"%s\"", p->name, node);
}

int
nn_input(NnGraph *g, NnShape shape, const char *name)
{
	int out = nn_value(g, shape, name);
	NnNode *node = append_node(g, NN_OP_INPUT, name);

	if (!node)
		return -1;
	node->out[0] = out;
	return out;
}

/* Output channels are the weight's (O, C + nz, K, K). */
int
nn_conv(NnGraph *g, int x, int z, NnActKind z_act, int weight, int bias, int kernel, int stride,
		int pad, const char *name)
{
	NnShape in, shape;
	int64_t channels;
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	in = g->values[x].shape;
	channels = (int64_t) in.c + (z >= 0 ? g->values[z].shape.c : 0);
	shape = (NnShape){ in.n, window_extent(in.h, kernel, stride, pad),
					   window_extent(in.w, kernel, stride, pad),
					   (int) g->params->list[weight].shape[0] };
	check_param(g, weight, 4, (int64_t[]){ shape.c, channels, kernel, kernel }, name);
	check_param(g, bias, 1, (int64_t[]){ shape.c }, name);
	if (z >= 0 &&
		(g->values[z].shape.n != in.n || g->values[z].shape.h != 1 || g->values[z].shape.w != 1))
		nn_graph_fail(g, NN_EINVAL, "latent of layer \"%s\" is not one vector an image", name);
	out = nn_value(g, shape, name);
	node = append_node(g, NN_OP_CONV, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->in[1] = z;
	node->z_act = z_act;
	node->out[0] = out;
	node->weight = weight;
	node->bias = bias;
	node->kernel = kernel;
	node->stride = stride;
	node->pad = pad;
	return out;
}

/*
 * Kernel 4, stride 2, padding 1: twice the extent. The weight is (C, O, 4, 4).
 */
int
nn_convt(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnShape in, shape;
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	in = g->values[x].shape;
	shape = (NnShape){ in.n, in.h * 2, in.w * 2, (int) g->params->list[weight].shape[1] };
	check_param(g, weight, 4, (int64_t[]){ in.c, shape.c, 4, 4 }, name);
	check_param(g, bias, 1, (int64_t[]){ shape.c }, name);
	out = nn_value(g, shape, name);
	node = append_node(g, NN_OP_CONVT, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->out[0] = out;
	node->weight = weight;
	node->bias = bias;
	node->kernel = 4;
	node->stride = 2;
	node->pad = 1;
	return out;
}

int
nn_linear(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnShape in, shape;
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	in = g->values[x].shape;
	shape = (NnShape){ in.n, 1, 1, (int) g->params->list[weight].shape[0] };
	if (in.h != 1 || in.w != 1)
		nn_graph_fail(g, NN_EINVAL, "layer \"%s\" needs one vector an image, not a map of %d x %d",
					  name, in.h, in.w);
	check_param(g, weight, 2, (int64_t[]){ shape.c, in.c }, name);
	check_param(g, bias, 1, (int64_t[]){ shape.c }, name);
	out = nn_value(g, shape, name);
	node = append_node(g, NN_OP_LINEAR, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->out[0] = out;
	node->weight = weight;
	node->bias = bias;
	return out;
}

int
nn_avgpool(NnGraph *g, int x, int kernel, int stride, int pad, const char *name)
{
	NnShape in;
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	in = g->values[x].shape;
	out = nn_value(g,
				   (NnShape){ in.n, window_extent(in.h, kernel, stride, pad),
							  window_extent(in.w, kernel, stride, pad), in.c },
				   name);
	node = append_node(g, NN_OP_AVGPOOL, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->out[0] = out;
	node->kernel = kernel;
	node->stride = stride;
	node->pad = pad;
	return out;
}

/*
 * Twice the extent, plus the reflected border, which needs pad + 1 pixels to
 * reflect.
 */
int
nn_upsample(NnGraph *g, int x, int pad, const char *name)
{
	NnShape in;
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	in = g->values[x].shape;
	if (pad >= in.h * 2 || pad >= in.w * 2)
		nn_graph_fail(g, NN_EINVAL, "map of layer \"%s\" is too small to reflect", name);
	out = nn_value(g, (NnShape){ in.n, in.h * 2 + 2 * pad, in.w * 2 + 2 * pad, in.c }, name);
	node = append_node(g, NN_OP_UPSAMPLE, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->out[0] = out;
	node->pad = pad;
	return out;
}

static bool
same_shape(NnShape a, NnShape b)
{
	return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
}

int
nn_add(NnGraph *g, int a, int b, const char *name)
{
	NnNode *node;
	int out;

	if (g->failed)
		return -1;
	if (!same_shape(g->values[a].shape, g->values[b].shape))
		nn_graph_fail(g, NN_EINVAL, "layer \"%s\" adds maps of different shapes", name);
	out = nn_value(g, g->values[a].shape, name);
	node = append_node(g, NN_OP_ADD, name);
	if (!node)
		return -1;
	node->in[0] = a;
	node->in[1] = b;
	node->out[0] = out;
	return out;
}

int
nn_norm_act(NnGraph *g, int x, NnNorm norm, const int state[4], const int out[2],
			const NnActChain act[2], const char *name)
{
	NnNode *node;
	int first = out[0];

	if (g->failed)
		return -1;
	if (first < 0)
		first = nn_value(g, g->values[x].shape, name);
	for (int i = 0; i < 2; i++)
	{
		int id = i == 0 ? first : out[1];

		if (!g->failed && id >= 0 && !same_shape(g->values[id].shape, g->values[x].shape))
			nn_graph_fail(g, NN_EINVAL, "layer \"%s\" writes a map of another shape", name);
	}
	for (int i = 0; norm == NN_NORM_BATCH && i < 4; i++)
		check_param(g, state[i], 1, (int64_t[]){ g->failed ? 0 : g->values[x].shape.c }, name);
	node = append_node(g, NN_OP_NORM_ACT, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->norm = norm;
	for (int i = 0; i < 2; i++)
	{
		node->out[i] = i == 0 ? first : out[1];
		node->act[i] = act[i];
	}
	if (g->training && norm != NN_NORM_NONE)
	{
		NnShape shape = g->values[x].shape;
		int stats =
			nn_value(g, (NnShape){ norm == NN_NORM_BATCH ? 1 : shape.n, 1, 1, 2 * shape.c }, name);

		node->stats = stats;
	}
	if (norm == NN_NORM_BATCH)
	{
		node->weight = state[0];
		node->bias = state[1];
		node->mean = state[2];
		node->var = state[3];
	}
	return first;
}

/* ---- Training ------------------------------------------------------------ */

void
nn_input_to(NnGraph *g, int out, const char *name)
{
	NnNode *node = append_node(g, NN_OP_INPUT, name);

	if (node)
		node->out[0] = out;
}

/* `out`, or a new value, which has or gets x's shape. */
static int
result_like(NnGraph *g, int x, int out, const char *name)
{
	if (g->failed)
		return -1;
	if (out < 0)
		return nn_value(g, g->values[x].shape, name);
	if (!same_shape(g->values[x].shape, g->values[out].shape))
		nn_graph_fail(g, NN_EINVAL, "layer \"%s\" writes a map of another shape", name);
	return out;
}

int
nn_copy(NnGraph *g, int x, int out, const char *name)
{
	NnNode *node;

	out = result_like(g, x, out, name);
	node = append_node(g, NN_OP_COPY, name);
	if (!node)
		return -1;
	node->in[0] = x;
	node->out[0] = out;
	return out;
}

int
nn_reparam(NnGraph *g, int mu, int logvar, int eps, int out, const char *name)
{
	NnNode *node;

	result_like(g, mu, logvar, name);
	result_like(g, mu, eps, name);
	out = result_like(g, mu, out, name);
	node = append_node(g, NN_OP_REPARAM, name);
	if (!node)
		return -1;
	node->in[0] = mu;
	node->in[1] = logvar;
	node->in[2] = eps;
	node->out[0] = out;
	return out;
}

/* A loss: one number, kept to the end. */
static NnNode *
append_loss(NnGraph *g, NnOp op, int a, int b, double scale, const char *name)
{
	int out = nn_value(g, (NnShape){ 1, 1, 1, 1 }, name);
	NnNode *node = append_node(g, op, name);

	if (!node)
		return NULL;
	nn_output(g, out);
	node->in[0] = a;
	node->in[1] = b;
	node->out[0] = out;
	node->scale = scale;
	return node;
}

int
nn_gan_loss(NnGraph *g, int map, bool vanilla, double target, double scale, const char *name)
{
	NnNode *node = append_loss(g, NN_OP_GAN_LOSS, map, -1, scale, name);

	if (!node)
		return -1;
	node->vanilla = vanilla;
	node->target = target;
	return node->out[0];
}

int
nn_l1_loss(NnGraph *g, int x, int constant, double scale, const char *name)
{
	NnNode *node;

	result_like(g, x, constant, name);
	node = append_loss(g, NN_OP_L1_LOSS, x, constant, scale, name);
	return node ? node->out[0] : -1;
}

int
nn_kl_loss(NnGraph *g, int mu, int logvar, double scale, const char *name)
{
	NnNode *node;

	result_like(g, mu, logvar, name);
	node = append_loss(g, NN_OP_KL_LOSS, mu, logvar, scale, name);
	return node ? node->out[0] : -1;
}
