/*
 * infer.c
 *	  The configuration of a model from the tensors of its files.
 *
 * Names and shapes fix almost everything; what they leave open comes from what
 * the user said, else from the official defaults. A value that the user gave
 * and the tensors contradict is an error, and so is every tensor that the
 * networks thus found lack, do not know, or want in another shape.
 *
 * What tells things apart:
 *	  where_add			model.down.0 (all) or model.model.0 (input)
 *	  upsample			the number of the outermost up convolution: bilinear
 *	                    puts two more modules before it
 *	  norm				batch has a weight where a norm stands; none shifts the
 *	                    numbers of where_add = input and of E; instance and none
 *	                    look alike in a generator of where_add = all without E
 *	  family			only pix2pix's convolutions have no bias, and only
 *	                    where norm is not instance; there the numbers of
 *	                    where_add = input are as with a norm. Instance norms of
 *	                    both look alike
 *	  levels, ngf		the down convolutions
 *	  nz, input_nc		input channels of the first and, with where_add = all,
 *	                    of the second down convolution; else E's heads or the
 *	                    user
 *	  net_e				resnet has shortcuts
 */
#include "nn/config.h"
#include "nn/tensor_names.h"
#include "nn/nn_error.h"
#include "nn/nets.h"
#include "nn/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Inference
{
	const NnTensor *tensors;
	int ntensors;
	NnConfig said;     /* the user's words over the defaults */
	NnOptionSet given; /* by the user */
	NnConfig config;   /* what the tensors say over the user's words */
	NnOptionSet known; /* from the tensors */
	NnError *error;
} Inference;

/* The tensor LAYER.weight, or NULL; the layer's name as printf makes it. */
__attribute__((format(printf, 3, 4))) static const NnTensor *
weight_of(const Inference *inf, NnNetwork network, const char *format, ...)
{
	char name[NN_MAX_LAYER_NAME + 16];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(name, NN_MAX_LAYER_NAME, format, args);
	va_end(args);
	if (length < 0 || length >= NN_MAX_LAYER_NAME)
		return NULL;
	strcpy(name + length, ".weight");
	for (int i = 0; i < inf->ntensors; i++)
		if (inf->tensors[i].network == network && strcmp(inf->tensors[i].name, name) == 0)
			return &inf->tensors[i];
	return NULL;
}

/* Extent `dim` of a weight of `ndim` dimensions; 0: of another shape. */
static int
extent(const NnTensor *weight, int ndim, int dim)
{
	if (!weight || weight->ndim != ndim || weight->shape[dim] > 1 << 20)
		return 0;
	return (int) weight->shape[dim];
}

static bool
has_tensor(const Inference *inf, NnNetwork network, const char *name)
{
	for (int i = 0; i < inf->ntensors; i++)
		if (inf->tensors[i].network == network && strcmp(inf->tensors[i].name, name) == 0)
			return true;
	return false;
}

static const NnTensor *
unet_weight(const Inference *inf, int k, NnPlace place)
{
	char name[NN_MAX_LAYER_NAME];

	nn_unet_layer_name(&inf->config, k, place, name);
	return weight_of(inf, NN_NET_G, "%s", name);
}

static void
learn(Inference *inf, NnOptionId id, int value)
{
	nn_option_put(id, &inf->config, NULL, value);
	inf->known.has[id] = true;
}

static bool
has_network(const Inference *inf, NnNetwork network)
{
	for (int i = 0; i < inf->ntensors; i++)
		if (inf->tensors[i].network == network)
			return true;
	return false;
}

/* ---- The generator ------------------------------------------------------- */

static NnStatus
not_a_generator(Inference *inf)
{
	nn_fail(inf->error, NN_EINVAL, "tensors are not those of a BicycleGAN generator");
	if (nn_names_among_others(inf->tensors, inf->ntensors, NN_NET_G, inf->error))
		return NN_EINVAL;
	nn_detail(inf->error, "There is neither \"model.down.0.weight\" (where_add all) nor "
						  "\"model.model.0.weight\" (where_add input).");
	nn_hint(inf->error, "Give the file of netG, as the official code saves it, as the generator.");
	return NN_EINVAL;
}

/* Whose it is, of where_add = input; norm was found by its names. */
static void
infer_family(Inference *inf)
{
	NnConfig *c = &inf->config;
	bool biased = has_tensor(inf, NN_NET_G, "model.model.0.bias");

	if (!biased)
	{
		learn(inf, NN_OPT_FAMILY, NN_FAMILY_PIX2PIX);
		/* it numbers a norm that is not there, too */
		if (c->norm == NN_NORM_INSTANCE)
			learn(inf, NN_OPT_NORM, NN_NORM_NONE);
	}
	else if (c->norm != NN_NORM_INSTANCE)
		learn(inf, NN_OPT_FAMILY, NN_FAMILY_BICYCLE);
	else
		c->family = inf->said.family;
	if (c->family == NN_FAMILY_PIX2PIX)
	{
		learn(inf, NN_OPT_NL, NN_ACT_RELU);
		learn(inf, NN_OPT_NZ, 0);
	}
}

/* Injection, norm, upsampling: each takes part in the next one's names. */
static NnStatus
infer_structure(Inference *inf)
{
	NnConfig *c = &inf->config;
	bool all = weight_of(inf, NN_NET_G, "model.down.0") != NULL;

	if (!all && !weight_of(inf, NN_NET_G, "model.model.0"))
		return not_a_generator(inf);
	learn(inf, NN_OPT_WHERE_ADD, all ? NN_ADD_ALL : NN_ADD_INPUT);
	c->norm = NN_NORM_BATCH;
	if (extent(unet_weight(inf, 1, NN_DOWN_NORM), 1, 0) > 0)
		learn(inf, NN_OPT_NORM, NN_NORM_BATCH);
	else if (!all && weight_of(inf, NN_NET_G, "model.model.1.model.3.model.1"))
		learn(inf, NN_OPT_NORM, NN_NORM_INSTANCE);
	else if (!all)
		learn(inf, NN_OPT_NORM, NN_NORM_NONE);
	else
		c->norm = inf->said.norm != NN_NORM_BATCH ? inf->said.norm : NN_NORM_INSTANCE;
	if (all)
		learn(inf, NN_OPT_FAMILY, NN_FAMILY_BICYCLE);
	else
		infer_family(inf);
	c->upsample = NN_UPSAMPLE_BILINEAR;
	learn(inf, NN_OPT_UPSAMPLE,
		  unet_weight(inf, 0, NN_UP_CONV) ? NN_UPSAMPLE_BILINEAR : NN_UPSAMPLE_BASIC);
	return NN_OK;
}

static NnStatus
infer_levels(Inference *inf)
{
	int levels = 0, min = (int) nn_options[NN_OPT_LEVELS].least,
		max = (int) nn_options[NN_OPT_LEVELS].most;

	while (levels <= max && unet_weight(inf, levels, NN_DOWN_CONV))
		levels++;
	if (levels < min || levels > max)
	{
		nn_fail(inf->error, NN_EINVAL, "generator has an unsupported number of levels");
		nn_detail(inf->error, "There are down convolutions of %s%d; %d to %d are supported.",
				  levels > max ? "more than " : "", levels > max ? max : levels, min, max);
		return NN_EINVAL;
	}
	learn(inf, NN_OPT_LEVELS, levels);
	return NN_OK;
}

/* Channels of the images and of the latent code; E is already known. */
static NnStatus
infer_channels(Inference *inf)
{
	NnConfig *c = &inf->config;
	const NnTensor *up = unet_weight(inf, 0, NN_UP_CONV);
	int ngf = extent(unet_weight(inf, 0, NN_DOWN_CONV), 4, 0);
	int joined = extent(unet_weight(inf, 0, NN_DOWN_CONV), 4, 1); /* input_nc + nz */
	bool nz_said = inf->given.has[NN_OPT_NZ], input_said = inf->given.has[NN_OPT_INPUT_NC];

	learn(inf, NN_OPT_NGF, ngf);
	learn(inf, NN_OPT_OUTPUT_NC, extent(up, 4, c->upsample == NN_UPSAMPLE_BASIC ? 1 : 0));
	if (c->where_add == NN_ADD_ALL)
		learn(inf, NN_OPT_NZ, extent(unet_weight(inf, 1, NN_DOWN_CONV), 4, 1) - ngf);
	else if (c->net_e != NN_ENCODER_NONE)
		learn(inf, NN_OPT_NZ, extent(weight_of(inf, NN_NET_E, "fc.0"), 2, 0));
	else if (c->family == NN_FAMILY_PIX2PIX)
		;
	else if (!nz_said && !input_said)
	{
		nn_fail(inf->error, NN_EINVAL, "length of the latent code cannot be told from the tensors");
		nn_detail(inf->error,
				  "The generator takes %d channels, image and latent code together, and there is "
				  "no encoder.",
				  joined);
		nn_hint(inf->error,
				"Give \"nz\" or \"input_nc\" in config; or \"family\": \"pix2pix\", if it is a "
				"generator of that, which has no latent code.");
		return NN_EINVAL;
	}
	else if (!nz_said)
		learn(inf, NN_OPT_NZ, joined - c->input_nc);
	learn(inf, NN_OPT_INPUT_NC, joined - c->nz);
	return NN_OK;
}

/* ---- The encoder --------------------------------------------------------- */

/* Halvings of the image by a residual E: one convolution, and a block's. */
static int
count_blocks(const Inference *inf)
{
	int n = 1;

	while (n < 16 && weight_of(inf, NN_NET_E, "conv.%d.shortcut.1", n))
		n++;
	return n;
}

/* Halvings by a convolutional E, whose layers take `stride` numbers each. */
static int
count_layers(const Inference *inf, int stride)
{
	int n = 1;

	while (n < 16 && extent(weight_of(inf, NN_NET_E, "conv.%d", 2 + stride * (n - 1)), 4, 0) > 0)
		n++;
	return n;
}

static NnStatus
infer_encoder(Inference *inf)
{
	bool resnet = weight_of(inf, NN_NET_E, "conv.1.shortcut.1") != NULL;
	bool normed;
	int halvings;

	if (!has_network(inf, NN_NET_E))
	{
		learn(inf, NN_OPT_NET_E, NN_ENCODER_NONE);
		learn(inf, NN_OPT_ENCODER_SIZE, 0);
		return NN_OK;
	}
	if (!weight_of(inf, NN_NET_E, "conv.0") || !weight_of(inf, NN_NET_E, "fc.0"))
	{
		nn_fail(inf->error, NN_EINVAL, "tensors are not those of a BicycleGAN encoder");
		if (nn_names_among_others(inf->tensors, inf->ntensors, NN_NET_E, inf->error))
			return NN_EINVAL;
		nn_detail(inf->error, "There is no \"conv.0.weight\" or no \"fc.0.weight\".");
		nn_hint(inf->error,
				"Give the file of netE, as the official code saves it, as the encoder.");
		return NN_EINVAL;
	}
	/* a norm takes a number, and so shifts the next convolution's */
	normed = resnet ? weight_of(inf, NN_NET_E, "conv.1.conv.2") != NULL
					: extent(weight_of(inf, NN_NET_E, "conv.4"), 4, 0) == 0;
	/* what has no weights and takes a number is an instance norm */
	if (inf->config.where_add == NN_ADD_ALL && !inf->known.has[NN_OPT_NORM])
		learn(inf, NN_OPT_NORM, normed ? NN_NORM_INSTANCE : NN_NORM_NONE);
	halvings = resnet ? count_blocks(inf) : count_layers(inf, normed ? 3 : 2);
	learn(inf, NN_OPT_NET_E, resnet ? NN_ENCODER_RESNET : NN_ENCODER_CONV);
	learn(inf, NN_OPT_ENCODER_SIZE, 8 << halvings);
	learn(inf, NN_OPT_NEF, extent(weight_of(inf, NN_NET_E, "conv.0"), 4, 0));
	return NN_OK;
}

/* ---- Agreement ----------------------------------------------------------- */

static NnStatus
check_words(Inference *inf)
{
	for (int id = 0; id < NN_OPTIONS; id++)
	{
		NnText said = { 0 }, found = { 0 };

		if (!inf->given.has[id] || !inf->known.has[id] ||
			nn_option_get(id, &inf->said) == nn_option_get(id, &inf->config))
			continue;
		nn_value_print(&nn_options[id], nn_option_field(id, &inf->said, NULL), &said);
		nn_value_print(&nn_options[id], nn_option_field(id, &inf->config, NULL), &found);
		nn_fail(inf->error, NN_EINVAL, "model option \"%s\" contradicts the tensors",
				nn_options[id].name);
		nn_detail(inf->error, "The option is %s, but names and shapes of the tensors say %s.",
				  said.at ? said.at : "one", found.at ? found.at : "another");
		free(said.at);
		free(found.at);
		nn_hint(inf->error, "Leave the option out.");
		return NN_EINVAL;
	}
	/* where norm is not known there are no tensors of a batch norm */
	if (inf->said.norm == NN_NORM_BATCH && inf->config.norm != NN_NORM_BATCH)
	{
		nn_fail(inf->error, NN_EINVAL, "model option \"norm\" contradicts the tensors");
		nn_detail(inf->error, "The option is \"batch\", but there are no tensors of batch norms.");
		nn_hint(inf->error, "Leave the option out.");
		return NN_EINVAL;
	}
	return NN_OK;
}

/* Names of one kind of mismatch: as many as fit, and the count of the rest. */
typedef struct NameList
{
	char text[300];
	size_t length;
	int left_out;
	int count;
} NameList;

__attribute__((format(printf, 2, 3))) static void
add_name(NameList *list, const char *format, ...)
{
	char name[sizeof(list->text)];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	list->count++;
	if (length < 0 || list->left_out > 0 || list->length + length + 2 >= sizeof(list->text) - 1)
	{
		list->left_out++;
		return;
	}
	list->length += snprintf(list->text + list->length, sizeof(list->text) - list->length, "%s%s",
							 list->length > 0 ? ", " : "", name);
}

/* "Missing: a, b and 3 more." */
static void
add_list(NnText *text, const char *title, const NameList *list)
{
	const char *between = text->length > 0 ? " " : "";

	if (list->count > 0 && list->length == 0)
		nn_text_add(text, "%s%s: %d.", between, title, list->count);
	else if (list->count > 0 && list->left_out == 0)
		nn_text_add(text, "%s%s: %s.", between, title, list->text);
	else if (list->count > 0)
		nn_text_add(text, "%s%s: %s and %d more.", between, title, list->text, list->left_out);
}

static void
print_shape(const int64_t *shape, int ndim, char *text, size_t size)
{
	size_t length = snprintf(text, size, "(");

	for (int i = 0; i < ndim && length < size; i++)
		length +=
			snprintf(text + length, size - length, "%s%lld", i ? ", " : "", (long long) shape[i]);
	if (length < size)
		snprintf(text + length, size - length, ")");
}

static void
add_misfit(NameList *list, const NnTensor *t, const NnParam *p)
{
	char found[128], wanted[128];

	print_shape(t->shape, t->ndim, found, sizeof(found));
	print_shape(p->shape, p->ndim, wanted, sizeof(wanted));
	if (strcmp(found, wanted) == 0)
		add_name(list, "%s is of type %s", p->name, nn_dtype_name(t->dtype));
	else
		add_name(list, "%s is %s, not %s", p->name, found, wanted);
}

/*
 * Whether official loading drops the tensor: the statistics that instance norms
 * of PyTorch before 0.4 or with tracking kept. `tracked` names them all.
 */
static bool
is_dropped(const NnTensor *t, const NnParams *tracked)
{
	int i = nn_params_find(tracked, t->network, t->name);

	return i >= 0 && tracked->list[i].buffer;
}

/* Each parameter of the networks must be there once, and nothing else. */
static NnStatus
match(Inference *inf, const NnParams *params, const NnParams *tracked, bool *seen, bool *keep)
{
	NameList missing = { 0 }, extra = { 0 }, misfit = { 0 };

	for (int i = 0; i < inf->ntensors; i++)
	{
		const NnTensor *t = &inf->tensors[i];
		int p = nn_params_find(params, t->network, t->name);

		if (keep)
			keep[i] = p >= 0;
		if (t->network > NN_NET_E)
			continue;
		if (p < 0 && is_dropped(t, tracked))
			continue;
		if (p < 0 || seen[p])
			add_name(&extra, "%s", t->name);
		else if (!nn_tensor_fits(t, &params->list[p]))
			add_misfit(&misfit, t, &params->list[p]);
		if (p >= 0)
			seen[p] = true;
	}
	for (int p = 0; p < params->n; p++)
		if (!seen[p] && !params->list[p].integer)
			add_name(&missing, "%s", params->list[p].name);

	if (missing.count + extra.count + misfit.count > 0)
	{
		char *config = nn_config_print(&inf->config);
		NnText text = { 0 };

		add_list(&text, "Missing", &missing);
		add_list(&text, "Unexpected", &extra);
		add_list(&text, "Misshapen", &misfit);
		nn_fail(inf->error, NN_EINVAL, "tensors do not fit the networks");
		nn_detail(inf->error, "%s", text.at ? text.at : "Some are missing, or too many.");
		free(text.at);
		nn_hint(inf->error, "The networks were taken to be %s.",
				config ? config : "those of the names");
		free(config);
		return NN_EINVAL;
	}
	return NN_OK;
}

static NnStatus
check_tensors(Inference *inf, bool *keep)
{
	unsigned mask = 1u << NN_NET_G | 1u << NN_NET_E;
	NnConfig tracking = inf->config;
	NnParams params, tracked = { 0 };
	bool *seen = NULL;
	NnStatus status;

	if (tracking.norm == NN_NORM_INSTANCE)
		tracking.norm = NN_NORM_BATCH;
	status = nn_params_of(&inf->config, mask, &params, inf->error);
	if (status != NN_OK)
		return status;
	status = nn_params_of(&tracking, mask, &tracked, inf->error);
	if (status == NN_OK)
	{
		seen = calloc(params.n, sizeof(bool));
		status =
			seen ? match(inf, &params, &tracked, seen, keep) : nn_no_memory(inf->error, params.n);
	}
	free(seen);
	nn_params_free(&tracked);
	nn_params_free(&params);
	return status;
}

/* ---- What nothing tells -------------------------------------------------- */

/* Whether an option was neither given nor found, and could be another. */
static bool
is_assumed(const Inference *inf, NnOptionId id)
{
	const NnConfig *c = &inf->config;

	if (inf->given.has[id] || inf->known.has[id])
		return false;
	switch (id)
	{
		case NN_OPT_NORM:
		case NN_OPT_NL:
			return true;
		case NN_OPT_FAMILY:
			return c->nz == 0;
		case NN_OPT_STATISTICS:
			return c->family == NN_FAMILY_PIX2PIX && c->norm == NN_NORM_BATCH;
		case NN_OPT_TEST_DROPOUT:
			return c->family == NN_FAMILY_PIX2PIX;
		default:
			return false;
	}
}

/* As a JSON object; NULL: nothing is, or there is no memory. */
static char *
print_assumed(const Inference *inf)
{
	NnText text = { 0 };

	for (int id = 0; id < NN_OPTIONS; id++)
		if (is_assumed(inf, id))
		{
			nn_text_add(&text, "%s\"%s\": ", text.length > 0 ? ", " : "{", nn_options[id].name);
			nn_value_print(&nn_options[id], (const char *) &inf->config + nn_options[id].offset,
						   &text);
		}
	if (text.length > 0)
		nn_text_add(&text, "}");
	return text.at;
}

NnStatus
nn_config_infer(NnConfig *config, const char *json, size_t json_length, const NnTensor *tensors,
				int ntensors, bool *keep, char **assumed, NnError *error)
{
	Inference inf = { .tensors = tensors, .ntensors = ntensors, .error = error };
	NnStatus status;

	nn_config_default(&inf.said);
	status = nn_config_read(&inf.said, json, json_length, &inf.given, error);
	inf.config = inf.said;
	if (status == NN_OK)
		status = nn_names_check_weights(tensors, ntensors, error);
	if (status == NN_OK)
		status = infer_structure(&inf);
	if (status == NN_OK)
		status = infer_levels(&inf);
	if (status == NN_OK)
		status = infer_encoder(&inf);
	if (status == NN_OK)
		status = infer_channels(&inf);
	if (status == NN_OK)
	{
		if (!inf.given.has[NN_OPT_SIZE])
			inf.config.size = 1 << inf.config.levels;
		status = check_words(&inf);
	}
	if (status == NN_OK)
		status = nn_config_check(&inf.config, error);
	if (status == NN_OK)
		status = check_tensors(&inf, keep);
	if (status == NN_OK)
		*config = inf.config;
	if (assumed)
		*assumed = status == NN_OK ? print_assumed(&inf) : NULL;
	return status;
}
