/*
 * nets.c
 *	  The networks of BicycleGAN, and that of LPIPS, each defined once: as a
 *	  graph, and as the table of its parameters under the names of the official
 *	  state_dict.
 *
 * A network is written as the list of its layers. Each layer asks for its
 * parameters by their official names; in a graph to be run these are looked up
 * in the graph's table, and nn_params_of lets the same code append them to an
 * empty table instead, in the order they are asked for, which is the order of
 * the state_dict. So shapes, names and computation cannot disagree.
 *
 * Source: networks.py of the official code (junyanz/BicycleGAN, 40b9d52), and
 * of pix2pix (junyanz/pytorch-CycleGAN-and-pix2pix). Facts that are easily got
 * wrong are said where they are used.
 */
#include "nn/nets.h"

#include "common/invariant.h"
#include "nn/graph.h"
#include "nn/params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_LEVELS 9
#define TEST_DROPOUT 0.5f /* of pix2pix */
#define MAX_NAME NN_MAX_LAYER_NAME

typedef struct NetBuilder
{
	NnGraph *g;
	const NnConfig *config;
	NnNetwork network;
	bool unbiased;     /* convolutions have no bias */
	NnParams *declare; /* append parameters to this table, the graph's; NULL: look up */
} NetBuilder;

static const NnActChain leaky = { NN_ACT_LRELU, NN_ACT_NONE };

/* ---- Layers -------------------------------------------------------------- */

/* The parameter LAYER.FIELD; its index, or -1 after an error. */
static int
param(NetBuilder *net, const char *layer, const char *field, int ndim, const int64_t *shape)
{
	NnGraph *g = net->g;
	char name[MAX_NAME + 32];
	int id;

	if (g->failed)
		return -1;
	snprintf(name, sizeof(name), "%s.%s", layer, field);
	if (net->declare)
	{
		id = nn_params_add(net->declare, net->network, name, ndim, shape);
		if (id < 0)
			nn_graph_fail(g, NN_ENOMEM, "out of memory");
		return id;
	}
	id = nn_params_find(g->params, net->network, name);
	if (id < 0)
		nn_graph_fail(g, NN_EINVAL, "network %s has no parameter \"%s\"",
					  nn_network_name(net->network), name);
	return id;
}

static int
buffer(NetBuilder *net, const char *layer, const char *field, int ndim, const int64_t *shape)
{
	int id = param(net, layer, field, ndim, shape);

	if (id >= 0 && net->declare)
		net->declare->list[id].buffer = true;
	return id;
}

static NnShape
value_shape(const NetBuilder *net, int value)
{
	return net->g->failed ? (NnShape){ 0 } : net->g->values[value].shape;
}

/* The bias of a convolution; -1: it has none, or an error. */
static int
bias_of(NetBuilder *net, int channels, const char *name)
{
	return net->unbiased ? -1 : param(net, name, "bias", 1, (int64_t[]){ channels });
}

static int
conv_z(NetBuilder *net, int x, int z, NnActKind z_act, int channels, int kernel, int stride,
	   int pad, const char *name)
{
	int64_t in = (int64_t) value_shape(net, x).c + (z >= 0 ? value_shape(net, z).c : 0);
	int weight = param(net, name, "weight", 4, (int64_t[]){ channels, in, kernel, kernel });
	int bias = bias_of(net, channels, name);

	return nn_conv(net->g, x, z, weight, bias, (NnConvArgs){ kernel, stride, pad, z_act }, name);
}

static int
conv(NetBuilder *net, int x, int channels, int kernel, int stride, int pad, const char *name)
{
	return conv_z(net, x, -1, NN_ACT_NONE, channels, kernel, stride, pad, name);
}

/* Twice the extent, to `channels` channels. */
static int
upconv(NetBuilder *net, int x, int channels, const char *name)
{
	int weight, bias;

	if (net->config->upsample == NN_UPSAMPLE_BILINEAR)
	{
		x = nn_upsample(net->g, x, 1, name);
		return conv(net, x, channels, 3, 1, 0, name);
	}
	weight = param(net, name, "weight", 4, (int64_t[]){ value_shape(net, x).c, channels, 4, 4 });
	bias = bias_of(net, channels, name);
	return nn_convt(net->g, x, weight, bias, name);
}

static int
norm_acts(NetBuilder *net, int x, NnNormArgs args, const int out[2], const char *name)
{
	int state[4] = { -1, -1, -1, -1 };

	if (args.kind == NN_NORM_BATCH)
	{
		int64_t c = value_shape(net, x).c;
		int tracked;

		state[0] = param(net, name, "weight", 1, &c);
		state[1] = param(net, name, "bias", 1, &c);
		state[2] = buffer(net, name, "running_mean", 1, &c);
		state[3] = buffer(net, name, "running_var", 1, &c);
		tracked = buffer(net, name, "num_batches_tracked", 0, NULL);
		if (tracked >= 0 && net->declare)
			net->declare->list[tracked].integer = true;
		if (net->config->statistics == NN_STATISTICS_IMAGE && !net->g->training)
			args.kind = NN_NORM_INSTANCE; /* the image is its own batch */
	}
	return nn_norm_act(net->g, x, out, args.kind == NN_NORM_BATCH || state[0] >= 0 ? state : NULL,
					   &args, name);
}

/* Norm and activation for one reader: a new value. */
static int
norm_act(NetBuilder *net, int x, NnNorm norm, NnActChain act, const char *name)
{
	return norm_acts(net, x, (NnNormArgs){ norm, { act } }, (int[]){ -1, -1 }, name);
}

static void
dotted(char *name, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(name, MAX_NAME, format, args);
	va_end(args);
}

/* ---- G: the U-NetBuilder ------------------------------------------------- */

/*
 * The official name of a layer of level k (0 is the outermost). Both classes
 * nest a module a level; G_Unet_add_all calls its parts down, submodule and up,
 * G_Unet_add_input numbers them in one Sequential. Layers without parameters
 * take numbers too: activations, Upsample and ReflectionPad, and norms, where
 * there are any.
 */
void
nn_unet_layer_name(const NnConfig *config, int k, NnPlace place, char *name)
{
	/* pix2pix numbers the norm that it leaves out, too */
	int normed = config->norm != NN_NORM_NONE || config->family == NN_FAMILY_PIX2PIX;
	int resampled = config->upsample == NN_UPSAMPLE_BILINEAR ? 2 : 0;
	bool innermost = k == config->levels - 1;
	char path[MAX_NAME - 32] = "model";
	size_t length = strlen(path);

	if (config->where_add == NN_ADD_ALL)
	{
		for (int i = 0; i < k; i++)
			length += snprintf(path + length, sizeof(path) - length, ".submodule");
		if (place == NN_DOWN_CONV || place == NN_DOWN_NORM)
			dotted(name, "%s.down.%d", path, (k > 0) + (place == NN_DOWN_NORM));
		else
			dotted(name, "%s.up.%d", path, 1 + resampled + (place == NN_UP_NORM));
		return;
	}
	for (int i = 0; i < k; i++)
		length +=
			snprintf(path + length, sizeof(path) - length, ".model.%d", i == 0 ? 1 : 2 + normed);
	if (place == NN_DOWN_CONV || place == NN_DOWN_NORM)
		dotted(name, "%s.model.%d", path, (k > 0) + (place == NN_DOWN_NORM));
	else
	{
		int up = k == 0 ? 3 : innermost ? 3 : 4 + normed;

		dotted(name, "%s.model.%d", path, up + resampled + (place == NN_UP_NORM));
	}
}

static int
unet_width(const NnConfig *config, int k)
{
	return config->ngf * (k < 3 ? 1 << k : 8);
}

/* The first channel of the skip among twice `width`. */
static int
skip_begin(const NnConfig *config, int width)
{
	return config->family == NN_FAMILY_PIX2PIX ? 0 : width;
}

/*
 * One level down: x is the level's activated input. Returns the activated input
 * of the next level, and writes the skip that the decoder reads there into its
 * half of *cat = [up path, skip].
 */
static int
unet_down(NetBuilder *net, int k, int x, int z, int *cat)
{
	const NnConfig *config = net->config;
	bool all = config->where_add == NN_ADD_ALL;
	bool innermost = k == config->levels - 1;
	int width = unet_width(config, k);
	int skip;
	NnShape shape;
	char name[MAX_NAME];

	/* z joins before the LeakyReLU (not outermost), which acts on z, too */
	nn_unet_layer_name(config, k, NN_DOWN_CONV, name);
	x = conv_z(net, x, all || k == 0 ? z : -1, all && k > 0 ? NN_ACT_LRELU : NN_ACT_NONE, width, 4,
			   2, 1, name);
	if (innermost)
		return norm_act(net, x, NN_NORM_NONE, (NnActChain){ config->nl, NN_ACT_NONE }, name);

	/*
	 * The skip goes through nl in the decoder. With z at every level it is the
	 * raw map, because the concatenation copied it; without, the LeakyReLU
	 * works in place and the skip is its result.
	 */
	shape = value_shape(net, x);
	shape.c = 2 * width;
	*cat = nn_value(net->g, shape, name);
	skip = nn_view(net->g, *cat, skip_begin(config, width), width, name);
	if (k > 0)
		nn_unet_layer_name(config, k, NN_DOWN_NORM, name);
	return norm_acts(net, x,
					 (NnNormArgs){ k > 0 ? config->norm : NN_NORM_NONE,
								   { leaky, { all ? NN_ACT_NONE : NN_ACT_LRELU, config->nl } } },
					 (int[]){ -1, skip }, name);
}

/*
 * One level up from x, activated; cat is the concatenation it joins. Returns
 * the activated input of the next level up, or the image.
 */
static int
unet_up(NetBuilder *net, int k, int x, int cat, float dropout)
{
	const NnConfig *config = net->config;
	char name[MAX_NAME];
	int width, half;

	nn_unet_layer_name(config, k, NN_UP_CONV, name);
	if (k == 0)
	{
		net->unbiased = false;
		x = upconv(net, x, config->output_nc, name);
		return norm_act(net, x, NN_NORM_NONE, (NnActChain){ NN_ACT_TANH, NN_ACT_NONE }, name);
	}
	width = unet_width(config, k - 1);
	x = upconv(net, x, width, name);
	half = nn_view(net->g, cat, width - skip_begin(config, width), width, name);
	nn_unet_layer_name(config, k, NN_UP_NORM, name);
	/* inner blocks of full width drop; the innermost has no dropout layer */
	norm_acts(net, x,
			  (NnNormArgs){ config->norm,
							{ { config->nl, NN_ACT_NONE } },
							.dropout = k >= 4 && k < config->levels - 1 ? dropout : 0,
							.drop_seed = net->g->training ? 0 : config->test_dropout,
							.drop_mask = k },
			  (int[]){ half, -1 }, name);
	return cat;
}

static int
build_G(NetBuilder *net, int image, int z, float dropout)
{
	int levels = net->config->levels;
	/* cat[k]: what level k returns, (N, H/2^k, W/2^k, 2 width(k-1)) */
	int cat[MAX_LEVELS + 1] = { 0 };
	int x = image;

	net->unbiased =
		net->config->family == NN_FAMILY_PIX2PIX && net->config->norm != NN_NORM_INSTANCE;
	if (net->config->test_dropout > 0 && !net->g->training)
		dropout = TEST_DROPOUT;
	for (int k = 0; k < levels; k++)
		x = unet_down(net, k, x, z, &cat[k + 1]);
	for (int k = levels - 1; k >= 0; k--)
		x = unet_up(net, k, x, cat[k], dropout);
	nn_output(net->g, x);
	return x;
}

/* ---- E: the encoder ------------------------------------------------------ */

static int
halvings_to_8(int size)
{
	int n = 0;

	for (; size > 8; size /= 2)
		n++;
	return n;
}

/* Residual block n of E: in -> out channels at half the extent. */
static int
residual_block(NetBuilder *net, int n, int x, int in, int out)
{
	NnNorm norm = net->config->norm;
	int normed = norm != NN_NORM_NONE;
	char name[MAX_NAME];
	int main, shortcut;

	dotted(name, "conv.%d.conv.0", n);
	main = norm_act(net, x, norm, leaky, name);
	/* without a norm the LeakyReLU works in place, also on the shortcut */
	shortcut = normed ? x : main;
	dotted(name, "conv.%d.conv.%d", n, 1 + normed);
	main = conv(net, main, in, 3, 1, 1, name);
	dotted(name, "conv.%d.conv.%d", n, 2 + normed);
	main = norm_act(net, main, norm, leaky, name);
	dotted(name, "conv.%d.conv.%d.0", n, 3 + 2 * normed);
	main = conv(net, main, out, 3, 1, 1, name);
	main = nn_avgpool(net->g, main, 2, 2, 0, name);

	dotted(name, "conv.%d.shortcut.1", n);
	shortcut = nn_avgpool(net->g, shortcut, 2, 2, 0, name);
	shortcut = conv(net, shortcut, out, 1, 1, 0, name);
	return nn_add(net->g, main, shortcut, name);
}

static int
resnet_trunk(NetBuilder *net, int image, int blocks)
{
	int nef = net->config->nef;
	int x = conv(net, image, nef, 4, 2, 1, "conv.0");

	for (int n = 1; n < blocks; n++)
		x = residual_block(net, n, x, nef * (n < 4 ? n : 4), nef * (n < 3 ? n + 1 : 4));
	return norm_act(net, x, NN_NORM_NONE, leaky, "conv.act");
}

static int
conv_trunk(NetBuilder *net, int image, int layers)
{
	NnNorm norm = net->config->norm;
	int nef = net->config->nef;
	int stride = norm != NN_NORM_NONE ? 3 : 2; /* modules a layer: convolution, norm, activation */
	char name[MAX_NAME];
	int x;

	x = conv(net, image, nef, 4, 2, 1, "conv.0");
	x = norm_act(net, x, NN_NORM_NONE, leaky, "conv.0");
	for (int n = 1; n < layers; n++)
	{
		dotted(name, "conv.%d", 2 + stride * (n - 1));
		x = conv(net, x, nef * (n < 2 ? 2 : 4), 4, 2, 1, name);
		dotted(name, "conv.%d", 3 + stride * (n - 1));
		x = norm_act(net, x, norm, leaky, name);
	}
	return x;
}

/* The parameters of the two heads, mu and logvar: weight and bias of each. */
static void
head_params(NetBuilder *net, int width, int head[4])
{
	static const char *const names[] = { "fc.0", "fcVar.0" };

	for (int i = 0; i < 2; i++)
	{
		head[2 * i] = param(net, names[i], "weight", 2, (int64_t[]){ net->config->nz, width });
		head[2 * i + 1] = param(net, names[i], "bias", 1, (int64_t[]){ net->config->nz });
	}
}

static void
build_E(NetBuilder *net, int image, int *mu, int *logvar)
{
	const NnConfig *config = net->config;
	bool resnet = config->net_e == NN_ENCODER_RESNET;
	int layers = halvings_to_8(config->encoder_size);
	int width =
		config->nef * (resnet ? (layers < 4 ? layers : 4) : (layers < 3 ? 1 << (layers - 1) : 4));
	int head[4];
	int x;

	/* E_ResNet registers its heads before the trunk, E_NLayers after it */
	if (resnet)
		head_params(net, width, head);
	x = resnet ? resnet_trunk(net, image, layers) : conv_trunk(net, image, layers);
	if (!resnet)
		head_params(net, width, head);
	x = nn_avgpool(net->g, x, 8, 8, 0, "conv.pool");
	*mu = nn_linear(net->g, x, head[0], head[1], "fc.0");
	*logvar = nn_linear(net->g, x, head[2], head[3], "fcVar.0");
	nn_output(net->g, *mu);
	nn_output(net->g, *logvar);
}

/* ---- D: the discriminators ----------------------------------------------- */

/* A PatchGAN of 2 or 3 strided layers, all with bias, also before a norm. */
static int
patch_gan(NetBuilder *net, int image, int ndf, const char *prefix)
{
	NnNorm norm = net->config->norm;
	int strided = net->config->size <= 128 ? 2 : 3;
	int stride = norm != NN_NORM_NONE ? 3 : 2; /* modules a layer */
	char name[MAX_NAME];
	int x;

	dotted(name, "%s.0", prefix);
	x = conv(net, image, ndf, 4, 2, 1, name);
	x = norm_act(net, x, NN_NORM_NONE, leaky, name);
	for (int n = 1; n <= strided; n++)
	{
		dotted(name, "%s.%d", prefix, 2 + stride * (n - 1));
		x = conv(net, x, ndf << n, 4, n < strided ? 2 : 1, 1, name);
		dotted(name, "%s.%d", prefix, 3 + stride * (n - 1));
		x = norm_act(net, x, norm, leaky, name);
	}
	dotted(name, "%s.%d", prefix, 2 + stride * strided);
	return conv(net, x, 1, 4, 1, 1, name);
}

static void
build_D(NetBuilder *net, int image, int *maps)
{
	const NnConfig *config = net->config;
	char prefix[MAX_NAME];

	for (int i = 0; i < config->num_ds; i++)
	{
		if (config->num_ds == 1)
			dotted(prefix, "model");
		else
			dotted(prefix, "model_%d", i);
		if (i > 0)
			image = nn_avgpool(net->g, image, 3, 2, 1, "down");
		/* Python's round: half to even, as rint in the default rounding mode */
		maps[i] = patch_gan(net, image, (int) rint(config->ndf / (double) (1 << i)), prefix);
		nn_output(net->g, maps[i]);
	}
}

/* ---- L: LPIPS ------------------------------------------------------------ */

/*
 * A convolution of AlexNet or VGG16 and its ReLU: features.NUMBER of
 * torchvision. What is measured is read behind it.
 */
typedef struct Feature
{
	int number;
	int channels, kernel, stride, pad;
	bool pooled; /* its input is, first */
	bool measured;
} Feature;

typedef struct Backbone
{
	int window; /* of its max pools, at stride 2 */
	int n;
	Feature features[13];
} Backbone;

static const Backbone backbones[] = {
	[NN_METRIC_ALEX] = { 3,
						 5,
						 { { 0, 64, 11, 4, 2, false, true },
						   { 3, 192, 5, 1, 2, true, true },
						   { 6, 384, 3, 1, 1, true, true },
						   { 8, 256, 3, 1, 1, false, true },
						   { 10, 256, 3, 1, 1, false, true } } },
	[NN_METRIC_VGG] = { 2,
						13,
						{ { 0, 64, 3, 1, 1, false, false },
						  { 2, 64, 3, 1, 1, false, true },
						  { 5, 128, 3, 1, 1, true, false },
						  { 7, 128, 3, 1, 1, false, true },
						  { 10, 256, 3, 1, 1, true, false },
						  { 12, 256, 3, 1, 1, false, false },
						  { 14, 256, 3, 1, 1, false, true },
						  { 17, 512, 3, 1, 1, true, false },
						  { 19, 512, 3, 1, 1, false, false },
						  { 21, 512, 3, 1, 1, false, true },
						  { 24, 512, 3, 1, 1, true, false },
						  { 26, 512, 3, 1, 1, false, false },
						  { 28, 512, 3, 1, 1, false, true } } },
};

/* Of ImageNet, for images in [-1, 1]. */
static const NnScaleArgs scaling = { { -.030f, -.088f, -.188f }, { .458f, .448f, .450f } };
static const NnScaleArgs no_scaling = { { 0, 0, 0 }, { 1, 1, 1 } };

/* Of each measured map, in order: what nn_embed makes of it. */
static int
embed_part(NetBuilder *net, int x, int all, size_t *at, int head)
{
	NnShape shape = net->g->failed ? (NnShape){ 0 } : net->g->values[x].shape;
	int numbers = shape.h * shape.w * shape.c,
		to = nn_view(net->g, all, (int) *at, numbers, "part");
	char name[MAX_NAME];
	int weight;

	dotted(name, "lin%d.model.1", head);
	weight = param(net, name, "weight", 4, (int64_t[]){ 1, shape.c, 1, 1 });
	*at += (size_t) numbers;
	return nn_embed(net->g, x, weight, to, name);
}

/*
 * The square of the distance of two images' numbers is theirs. Source:
 * lpips/lpips.py of richzhang/PerceptualSimilarity.
 */
static void
build_L(NetBuilder *net, int image, int *numbers, int *features)
{
	const Backbone *backbone = &backbones[net->config->metric];
	NnShape in = net->g->failed ? (NnShape){ 0 } : net->g->values[image].shape;
	int x = nn_scale(net->g, image, net->config->unscaled ? no_scaling : scaling, "scaling");
	size_t count = nn_metric_numbers(net->config, (NnExtent){ in.h, in.w }), at = 0;
	int heads = 0;

	INVARIANT(count <= INT32_MAX);
	*numbers = nn_value(net->g, (NnShape){ in.n, 1, 1, (int) count }, "numbers");
	for (int i = 0; i < backbone->n; i++)
	{
		const Feature *f = &backbone->features[i];
		char name[MAX_NAME];

		dotted(name, "features.%d", f->number);
		if (f->pooled)
			x = nn_maxpool(net->g, x, backbone->window, 2, name);
		x = conv(net, x, f->channels, f->kernel, f->stride, f->pad, name);
		x = norm_act(net, x, NN_NORM_NONE, (NnActChain){ NN_ACT_RELU, NN_ACT_NONE }, name);
		if (f->measured)
			embed_part(net, x, *numbers, &at, heads++);
	}
	*features = nn_means(net->g, x, "features");
	nn_output(net->g, *numbers);
	nn_output(net->g, *features);
}

int
nn_metric_features(const NnConfig *config)
{
	const Backbone *backbone = &backbones[config->metric];

	return backbone->features[backbone->n - 1].channels;
}

size_t
nn_metric_numbers(const NnConfig *config, NnExtent extent)
{
	const Backbone *backbone = &backbones[config->metric];
	size_t numbers = 0;

	for (int i = 0; i < backbone->n; i++)
	{
		const Feature *f = &backbone->features[i];

		if (f->pooled)
			extent = (NnExtent){ (extent.h - backbone->window) / 2 + 1,
								 (extent.w - backbone->window) / 2 + 1 };
		extent = (NnExtent){ (extent.h + 2 * f->pad - f->kernel) / f->stride + 1,
							 (extent.w + 2 * f->pad - f->kernel) / f->stride + 1 };
		if (f->measured)
			numbers += (size_t) extent.h * (size_t) extent.w * (size_t) f->channels;
	}
	return numbers;
}

/* ---- The ways in --------------------------------------------------------- */

int
nn_net_G(NnGraph *g, const NnConfig *config, int image, int z, float dropout)
{
	NetBuilder net = { .g = g, .config = config, .network = NN_NET_G };

	return build_G(&net, image, z, dropout);
}

void
nn_net_E(NnGraph *g, const NnConfig *config, int image, int *mu, int *logvar)
{
	NetBuilder net = { .g = g, .config = config, .network = NN_NET_E };

	build_E(&net, image, mu, logvar);
}

void
nn_net_L(NnGraph *g, const NnConfig *config, int image, int *numbers, int *features)
{
	NetBuilder net = { .g = g, .config = config, .network = NN_NET_L };

	build_L(&net, image, numbers, features);
}

void
nn_net_D(NnGraph *g, const NnConfig *config, NnNetwork which, int image, int *maps)
{
	NetBuilder net = { .g = g, .config = config, .network = which };

	build_D(&net, image, maps);
}

/* Builds one network of batch 1, thrown away, for its parameters. */
static NnStatus
declare_network(const NnConfig *config, NnNetwork network, NnParams *params, NnError *error)
{
	NnGraph g;
	NetBuilder net = { .g = &g, .config = config, .network = network, .declare = params };
	int maps[NN_MAX_SCALES];
	int image, z = -1, size = network == NN_NET_E ? config->encoder_size : config->size;
	NnStatus status;

	nn_graph_init(&g, params);
	if (network == NN_NET_G)
	{
		image = nn_input(&g, (NnShape){ 1, size, size, config->input_nc }, "image");
		if (config->nz > 0)
			z = nn_input(&g, (NnShape){ 1, 1, 1, config->nz }, "z");
		build_G(&net, image, z, 0);
	}
	else if (network == NN_NET_E)
	{
		image = nn_input(&g, (NnShape){ 1, size, size, config->output_nc }, "image");
		build_E(&net, image, &maps[0], &maps[1]);
	}
	else if (network == NN_NET_L)
	{
		image = nn_input(&g, (NnShape){ 1, size, size, config->input_nc }, "image");
		build_L(&net, image, &maps[0], &maps[1]);
	}
	else
	{
		image = nn_input(
			&g,
			(NnShape){ 1, size, size,
					   config->output_nc + (config->conditional_d ? config->input_nc : 0) },
			"image");
		build_D(&net, image, maps);
	}
	status = g.failed ? g.error.code : NN_OK;
	if (g.failed && error)
		*error = g.error;
	nn_graph_free(&g);
	return status;
}

NnStatus
nn_params_of(const NnConfig *config, unsigned mask, NnParams *params, NnError *error)
{
	NnStatus status;

	memset(params, 0, sizeof(*params));
	status = nn_config_check(config, error);
	for (int network = 0; status == NN_OK && network < NN_NETWORKS; network++)
	{
		bool metric = config->metric != NN_METRIC_NONE;
		bool exists = (network == NN_NET_L) == metric &&
					  (network != NN_NET_E || config->net_e != NN_ENCODER_NONE);

		if ((mask & 1u << network) && exists)
			status = declare_network(config, (NnNetwork) network, params, error);
	}
	if (status != NN_OK)
		nn_params_free(params);
	return status;
}
