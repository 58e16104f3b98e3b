/*
 * ops.c
 *	  The table of operators: the shape rule, arithmetic and builder of each.
 *
 * Rules are pure functions of a graph.
 */
#include "nn/graph.h"

#include <string.h>

/* ---- What rules are made of ---------------------------------------------- */

static NnShape
input_shape(const NnGraph *g, const NnNode *node, int k)
{
	return g->values[node->in[k]].shape;
}

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

/* A parameter, if it is there, has this shape. */
static NnStatus
check_param(const NnGraph *g, const NnNode *node, int param, int ndim, const int64_t *shape,
			NnError *error)
{
	const NnParam *p;

	if (param < 0)
		return NN_OK;
	p = &g->params->list[param];
	if (p->ndim == ndim && memcmp(p->shape, shape, sizeof(int64_t) * ndim) == 0)
		return NN_OK;
	return nn_fail(error, NN_EINVAL, "tensor \"%s\" does not fit layer \"%s\"", p->name,
				   node->name);
}

/* The same of weight and bias, which has a number for each channel made. */
static NnStatus
check_weights(const NnGraph *g, const NnNode *node, int ndim, const int64_t *shape, int channels,
			  NnError *error)
{
	NnStatus status = check_param(g, node, node->weight, ndim, shape, error);

	return status == NN_OK ? check_param(g, node, node->bias, 1, (int64_t[]){ channels }, error)
						   : status;
}

/* Channels that a dimension of the weight says. */
static int
weight_channels(const NnGraph *g, const NnNode *node, int dimension)
{
	return (int) g->params->list[node->weight].shape[dimension];
}

/* ---- Shapes -------------------------------------------------------------- */

/* Output channels are the weight's (O, C + nz, K, K). */
static NnStatus
conv_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnConvArgs a = node->conv;
	NnShape in = input_shape(g, node, 0);
	NnShape z = node->in[1] >= 0 ? input_shape(g, node, 1) : (NnShape){ in.n, 1, 1, 0 };
	int o = weight_channels(g, node, 0);

	*shape = (NnShape){ in.n, window_extent(in.h, a.kernel, a.stride, a.pad),
						window_extent(in.w, a.kernel, a.stride, a.pad), o };
	if (z.n != in.n || z.h != 1 || z.w != 1)
		return nn_fail(error, NN_EINVAL, "latent of layer \"%s\" is not one vector an image",
					   node->name);
	return check_weights(g, node, 4, (int64_t[]){ o, (int64_t) in.c + z.c, a.kernel, a.kernel }, o,
						 error);
}

/* Kernel 4, stride 2, padding 1: twice the extent. Weight: (C, O, 4, 4). */
static NnStatus
convt_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape in = input_shape(g, node, 0);
	int o = weight_channels(g, node, 1);

	*shape = (NnShape){ in.n, in.h * 2, in.w * 2, o };
	return check_weights(g, node, 4, (int64_t[]){ in.c, o, 4, 4 }, o, error);
}

static NnStatus
linear_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape in = input_shape(g, node, 0);
	int o = weight_channels(g, node, 0);

	*shape = (NnShape){ in.n, 1, 1, o };
	if (in.h != 1 || in.w != 1)
		return nn_fail(error, NN_EINVAL,
					   "layer \"%s\" needs one vector an image, not a map of %d x %d", node->name,
					   in.h, in.w);
	return check_weights(g, node, 2, (int64_t[]){ o, in.c }, o, error);
}

static NnStatus
norm_act_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	int state[] = { node->weight, node->bias, node->norm.mean, node->norm.var };
	int nstate = node->norm.kind == NN_NORM_BATCH ? 4 : node->norm.kind == NN_NORM_INSTANCE ? 2 : 0;
	NnStatus status = NN_OK;

	*shape = input_shape(g, node, 0);
	for (int i = 0; status == NN_OK && i < nstate; i++)
		status = check_param(g, node, state[i], 1, (int64_t[]){ shape->c }, error);
	return status;
}

static NnStatus
avgpool_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnPoolArgs a = node->pool;
	NnShape in = input_shape(g, node, 0);

	*shape = (NnShape){ in.n, window_extent(in.h, a.kernel, a.stride, a.pad),
						window_extent(in.w, a.kernel, a.stride, a.pad), in.c };
	return NN_OK;
}

static NnStatus
maxpool_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	(void) avgpool_shape(g, node, shape, error);
	if (shape->h < 1 || shape->w < 1)
		return nn_fail(error, NN_EINVAL, "map of layer \"%s\" is smaller than a window",
					   node->name);
	return NN_OK;
}

/* ---- Of images to be compared -------------------------------------------- */

static NnStatus
scale_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	*shape = input_shape(g, node, 0);
	return shape->c <= NN_MAX_IMAGE_CHANNELS
			   ? NN_OK
			   : nn_fail(error, NN_EINVAL, "layer \"%s\" has too many channels", node->name);
}

static NnStatus
embed_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape in = input_shape(g, node, 0);
	size_t numbers = (size_t) in.h * (size_t) in.w * (size_t) in.c;

	*shape = (NnShape){ in.n, 1, 1, (int) numbers };
	return numbers <= INT32_MAX
			   ? check_param(g, node, node->weight, 4, (int64_t[]){ 1, in.c, 1, 1 }, error)
			   : nn_fail(error, NN_EINVAL, "maps of layer \"%s\" are too large", node->name);
}

static NnStatus
means_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape in = input_shape(g, node, 0);

	*shape = (NnShape){ in.n, 1, 1, in.c };
	return NN_OK;
}

/* Twice the extent and a border, which needs pad + 1 pixels to reflect. */
static NnStatus
upsample_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape in = input_shape(g, node, 0);
	int pad = node->upsample.pad;

	*shape = (NnShape){ in.n, in.h * 2 + 2 * pad, in.w * 2 + 2 * pad, in.c };
	if (pad >= in.h * 2 || pad >= in.w * 2)
		return nn_fail(error, NN_EINVAL, "map of layer \"%s\" is too small to reflect", node->name);
	return NN_OK;
}

/* An image, or two whose channels are side by side. */
static NnStatus
augment_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	NnShape numbers = input_shape(g, node, 1);

	*shape = input_shape(g, node, 0);
	if (numbers.n != shape->n || numbers.h != 1 || numbers.w != 1 ||
		numbers.c != NN_AUGMENT_NUMBERS)
		return nn_fail(error, NN_EINVAL, "numbers of layer \"%s\" are not %d an image", node->name,
					   NN_AUGMENT_NUMBERS);
	if (shape->c > NN_MAX_SEEN_CHANNELS || node->augment.plain >= shape->c)
		return nn_fail(error, NN_EINVAL, "map of layer \"%s\" is not an image", node->name);
	return NN_OK;
}

static NnStatus
same_shape(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	*shape = input_shape(g, node, 0);
	return NN_OK;
}

static NnStatus
one_number(const NnGraph *g, const NnNode *node, NnShape *shape, NnError *error)
{
	*shape = (NnShape){ 1, 1, 1, 1 };
	return NN_OK;
}

/* ---- Arithmetic ---------------------------------------------------------- */

static double
pixel_count(NnShape s)
{
	return (double) s.n * s.h * s.w;
}

static double
conv_flop(const NnGraph *g, const NnNode *node)
{
	NnShape in = input_shape(g, node, 0), out = g->values[node->out[0]].shape;
	double filter = (double) in.c * out.c * node->conv.kernel * node->conv.kernel;

	return 2 * filter * pixel_count(node->op == NN_OP_CONVT ? in : out);
}

static double
linear_flop(const NnGraph *g, const NnNode *node)
{
	return 2.0 * pixel_count(input_shape(g, node, 0)) * input_shape(g, node, 0).c *
		   g->values[node->out[0]].shape.c;
}

/* ---- The table ----------------------------------------------------------- */

const NnOpInfo nn_ops[NN_OPS] = {
	[NN_OP_INPUT] = { "input" },
	[NN_OP_CONV] = { "conv", 1, 1, .weights = 1, .filters = true, .rereads = NN_REREADS_FOR_WEIGHTS,
					 .shape = conv_shape, .flop = conv_flop },
	[NN_OP_CONVT] = { "convt", 1, 0, .weights = 1, .filters = true,
					  .rereads = NN_REREADS_FOR_WEIGHTS, .shape = convt_shape, .flop = conv_flop },
	[NN_OP_NORM_ACT] = { "norm", 1, 0, .rereads = NN_REREADS_ALWAYS, .shape = norm_act_shape },
	[NN_OP_UPSAMPLE] = { "upsample", 1, 0, .shape = upsample_shape },
	[NN_OP_AVGPOOL] = { "avgpool", 1, 0, .shape = avgpool_shape },
	[NN_OP_MAXPOOL] = { "maxpool", 1, 0, .inference = true, .shape = maxpool_shape },
	[NN_OP_SCALE] = { "scale", 1, 0, .inference = true, .shape = scale_shape },
	[NN_OP_EMBED] = { "embed", 1, 0, .inference = true, .weights = 1, .shape = embed_shape },
	[NN_OP_MEANS] = { "means", 1, 0, .inference = true, .shape = means_shape },
	[NN_OP_LINEAR] = { "linear", 1, 0, .weights = 1, .rereads = NN_REREADS_FOR_WEIGHTS,
					   .shape = linear_shape, .flop = linear_flop },
	[NN_OP_ADD] = { "add", 2, 0, .alike = true, .shape = same_shape },
	[NN_OP_COPY] = { "copy", 1, 0, .shape = same_shape },
	[NN_OP_REPARAM] = { "reparam", 3, 0, .alike = true, .rereads = NN_REREADS_ALWAYS,
						.shape = same_shape },
	[NN_OP_GAN_LOSS] = { "gan_loss", 1, 0, .loss = true, .rereads = NN_REREADS_ALWAYS,
						 .shape = one_number },
	[NN_OP_L1_LOSS] = { "l1_loss", 2, 0, .alike = true, .loss = true, .rereads = NN_REREADS_ALWAYS,
						.shape = one_number },
	[NN_OP_KL_LOSS] = { "kl_loss", 2, 0, .alike = true, .loss = true, .rereads = NN_REREADS_ALWAYS,
						.shape = one_number },
	[NN_OP_AUGMENT] = { "augment", 2, 0, .rereads = NN_REREADS_ALWAYS, .shape = augment_shape },
};

/* ---- Builders ------------------------------------------------------------ */

/* A node that has operands, -1 = none, and nothing else yet. */
static NnNode
node_of(NnOp op, int a, int b, int c)
{
	return (NnNode){
		.op = op, .in = { a, b, c }, .out = { -1, -1 }, .stats = -1, .weight = -1, .bias = -1
	};
}

static int
append_op(NnGraph *g, NnNode node, const char *name)
{
	return nn_append_node(g, &nn_ops[node.op], node, name);
}

/*
 * The same of an operator of few numbers, which half precision would harm and
 * not speed up: all that it reads and makes is wide.
 */
static int
append_wide(NnGraph *g, NnNode node, const char *name)
{
	int made = append_op(g, node, name);

	for (int k = 0; k < NN_MAX_IN; k++)
		nn_widen(g, node.in[k]);
	nn_widen(g, made);
	return made;
}

void
nn_input_to(NnGraph *g, int out, const char *name)
{
	NnNode node = node_of(NN_OP_INPUT, -1, -1, -1);

	node.out[0] = out;
	append_op(g, node, name);
	if (!g->failed)
		g->values[out].input = true;
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
	nn_widen(g, z);
	return append_op(g, node, name);
}

int
nn_convt(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnNode node = node_of(NN_OP_CONVT, x, -1, -1);

	node.weight = weight;
	node.bias = bias;
	node.conv = (NnConvArgs){ .kernel = 4, .stride = 2, .pad = 1 };
	return append_op(g, node, name);
}

int
nn_linear(NnGraph *g, int x, int weight, int bias, const char *name)
{
	NnNode node = node_of(NN_OP_LINEAR, x, -1, -1);

	node.weight = weight;
	node.bias = bias;
	return append_wide(g, node, name);
}

int
nn_avgpool(NnGraph *g, int x, int kernel, int stride, int pad, const char *name)
{
	NnNode node = node_of(NN_OP_AVGPOOL, x, -1, -1);

	node.pool = (NnPoolArgs){ kernel, stride, pad };
	return append_op(g, node, name);
}

int
nn_maxpool(NnGraph *g, int x, int kernel, int stride, const char *name)
{
	NnNode node = node_of(NN_OP_MAXPOOL, x, -1, -1);

	node.pool = (NnPoolArgs){ kernel, stride, 0 };
	return append_op(g, node, name);
}

int
nn_scale(NnGraph *g, int x, NnScaleArgs args, const char *name)
{
	NnNode node = node_of(NN_OP_SCALE, x, -1, -1);

	node.scale = args;
	return append_op(g, node, name);
}

int
nn_embed(NnGraph *g, int x, int weight, int to, const char *name)
{
	NnNode node = node_of(NN_OP_EMBED, x, -1, -1);

	node.weight = weight;
	node.out[0] = to;
	return append_op(g, node, name);
}

int
nn_means(NnGraph *g, int x, const char *name)
{
	return append_op(g, node_of(NN_OP_MEANS, x, -1, -1), name);
}

int
nn_upsample(NnGraph *g, int x, int pad, const char *name)
{
	NnNode node = node_of(NN_OP_UPSAMPLE, x, -1, -1);

	node.upsample.pad = pad;
	return append_op(g, node, name);
}

int
nn_add(NnGraph *g, int a, int b, const char *name)
{
	return append_op(g, node_of(NN_OP_ADD, a, b, -1), name);
}

int
nn_norm_act(NnGraph *g, int x, const int out[2], const int state[4], const NnNormArgs *args,
			const char *name)
{
	bool batch = args->kind == NN_NORM_BATCH, affine = args->kind == NN_NORM_INSTANCE && state;
	NnNode node = node_of(NN_OP_NORM_ACT, x, -1, -1);
	int first;

	memcpy(node.out, out, sizeof(node.out));
	node.norm = *args;
	node.weight = batch || affine ? state[0] : -1;
	node.bias = batch || affine ? state[1] : -1;
	node.norm.mean = batch ? state[2] : -1;
	node.norm.var = batch ? state[3] : -1;
	first = append_op(g, node, name);
	if (first >= 0 && g->training && args->kind != NN_NORM_NONE)
	{
		NnShape shape = g->values[x].shape;

		g->nodes[g->nnodes - 1].stats =
			nn_value(g, (NnShape){ batch ? 1 : shape.n, 1, 1, 2 * shape.c }, name);
		nn_widen(g, g->nodes[g->nnodes - 1].stats);
	}
	return first;
}

/* ---- Training ------------------------------------------------------------ */

int
nn_copy(NnGraph *g, int x, int out, const char *name)
{
	NnNode node = node_of(NN_OP_COPY, x, -1, -1);

	node.out[0] = out;
	return append_op(g, node, name);
}

int
nn_reparam(NnGraph *g, int mu, int logvar, int eps, int out, const char *name)
{
	NnNode node = node_of(NN_OP_REPARAM, mu, logvar, eps);

	node.out[0] = out;
	return append_wide(g, node, name);
}

static int
append_loss(NnGraph *g, NnOp op, int a, int b, NnLossArgs args, const char *name)
{
	NnNode node = node_of(op, a, b, -1);
	int made;

	node.loss = args;
	made = append_op(g, node, name);
	nn_widen(g, made);
	return made;
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
	nn_widen(g, mu);
	nn_widen(g, logvar);
	return append_loss(g, NN_OP_KL_LOSS, mu, logvar, (NnLossArgs){ .scale = scale }, name);
}

int
nn_augment(NnGraph *g, int x, int numbers, NnAugmentArgs args, const char *name)
{
	NnNode node = node_of(NN_OP_AUGMENT, x, numbers, -1);

	node.augment = args;
	nn_widen(g, numbers);
	return append_op(g, node, name);
}
