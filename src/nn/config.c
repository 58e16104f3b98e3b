/*
 * config.c
 *	  The options that fix a model's networks and those of training: one table,
 *	  from which defaults, parsing, checks and the canonical text are made.
 *
 * A new option is a row here, a field of NnConfig or NnTrainOptions and an id
 * in config.h. Nothing is kept between calls. What options of training demand
 * of each other is in fit_options.c.
 */
#include "nn/config.h"
#include "nn/nn_error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const NnChoice where_add_choices[] = { { "all", NN_ADD_ALL },
											  { "input", NN_ADD_INPUT },
											  { NULL, 0 } };
static const NnChoice upsample_choices[] = { { "basic", NN_UPSAMPLE_BASIC },
											 { "bilinear", NN_UPSAMPLE_BILINEAR },
											 { NULL, 0 } };
static const NnChoice norm_choices[] = { { "instance", NN_NORM_INSTANCE },
										 { "batch", NN_NORM_BATCH },
										 { "none", NN_NORM_NONE },
										 { NULL, 0 } };
static const NnChoice nl_choices[] = {
	{ "relu", NN_ACT_RELU }, { "lrelu", NN_ACT_LRELU }, { "elu", NN_ACT_ELU }, { NULL, 0 }
};
static const NnChoice net_e_choices[] = { { "none", NN_ENCODER_NONE },
										  { "resnet", NN_ENCODER_RESNET },
										  { "conv", NN_ENCODER_CONV },
										  { NULL, 0 } };
static const NnChoice precision_choices[] = { { "auto", NN_PRECISION_AUTO },
											  { "fp32", NN_PRECISION_FP32 },
											  { "bf16", NN_PRECISION_BF16 },
											  { NULL, 0 } };

static const NnChoice method_choices[] = { { "bicycle", NN_METHOD_BICYCLE },
										   { "cvae_gan", NN_METHOD_CVAE_GAN },
										   { "cvae_gan++", NN_METHOD_CVAE_GAN_PP },
										   { "cae_gan", NN_METHOD_CAE_GAN },
										   { "clr_gan", NN_METHOD_CLR_GAN },
										   { "pix2pix_noise", NN_METHOD_PIX2PIX_NOISE },
										   { NULL, 0 } };
static const NnChoice gan_mode_choices[] = { { "lsgan", NN_GAN_LSGAN },
											 { "vanilla", NN_GAN_VANILLA },
											 { NULL, 0 } };
static const NnChoice lr_policy_choices[] = {
	{ "linear", NN_LR_LINEAR }, { "step", NN_LR_STEP }, { "cosine", NN_LR_COSINE }, { NULL, 0 }
};
static const NnChoice init_type_choices[] = { { "xavier", NN_INIT_XAVIER },
											  { "normal", NN_INIT_NORMAL },
											  { "kaiming", NN_INIT_KAIMING },
											  { "orthogonal", NN_INIT_ORTHOGONAL },
											  { NULL, 0 } };

#define INT(field, initial, min, max, step) \
#field, NN_OPTION_INT, offsetof(NnConfig, field), initial, min, max, step, NULL
#define BOOL(field, initial) \
#field, NN_OPTION_BOOL, offsetof(NnConfig, field), initial, 0, 1, 1, NULL
#define CHOICE(field, initial) \
#field, NN_OPTION_CHOICE, offsetof(NnConfig, field), initial, 0, 0, 0, field##_choices

#define TRAIN_INT(field, initial, min, max) \
#field, NN_OPTION_INT, offsetof(NnTrainOptions, field), initial, min, max, 1, NULL
#define TRAIN_BOOL(field, initial) \
#field, NN_OPTION_BOOL, offsetof(NnTrainOptions, field), initial, 0, 1, 1, NULL
#define TRAIN_CHOICE(field, initial) \
#field, NN_OPTION_CHOICE, offsetof(NnTrainOptions, field), initial, 0, 0, 0, field##_choices
#define TRAIN_WIDE(field, kind) #field, kind, offsetof(NnTrainOptions, field), 0, 0, 0, 0, NULL

#define MAX_LONG 9007199254740992.0 /* 2^53: every JSON reader keeps it exactly */
#define MAX_LAMBDA 1e6

const NnOption nn_options[NN_ALL_OPTIONS] = {
	[NN_OPT_SIZE] = { INT(size, 256, 64, 4096, 1), "G, D",
					  "images are size x size; a multiple of 2^levels" },
	[NN_OPT_LEVELS] = { INT(levels, 8, 6, 9, 1), "G",
						"down levels; follows from size if left out" },
	[NN_OPT_INPUT_NC] = { INT(input_nc, 3, 1, 3, 2), "G, D", "channels of input images" },
	[NN_OPT_OUTPUT_NC] = { INT(output_nc, 3, 1, 3, 2), "G, E, D", "channels of output images" },
	[NN_OPT_NZ] = { INT(nz, 8, 0, BICYCLE_MAX_NZ, 1), "G, E", "length of the latent code" },
	[NN_OPT_NGF] = { INT(ngf, 64, 1, 512, 1), "G", "width of the outermost level" },
	[NN_OPT_NEF] = { INT(nef, 64, 1, 512, 1), "E", "width of the first layer" },
	[NN_OPT_NDF] = { INT(ndf, 64, 1, 512, 1), "D", "width of the first layer of the first scale" },
	[NN_OPT_WHERE_ADD] = { CHOICE(where_add, NN_ADD_ALL), "G",
						   "where the latent code joins: every level or the image" },
	[NN_OPT_UPSAMPLE] = { CHOICE(upsample, NN_UPSAMPLE_BASIC), "G",
						  "transposed convolution, or bilinear and convolution" },
	[NN_OPT_NORM] = { CHOICE(norm, NN_NORM_INSTANCE), "G, E, D", "normalisation of feature maps" },
	[NN_OPT_NL] = { CHOICE(nl, NN_ACT_RELU), "G", "activation of the up path" },
	[NN_OPT_NET_E] = { CHOICE(net_e, NN_ENCODER_RESNET), "E", "kind of encoder" },
	[NN_OPT_ENCODER_SIZE] = { INT(encoder_size, 256, 0, 512, 1), "E",
							  "size of the images it reads: 64, 128, 256 or 512, and 0 without an "
							  "encoder" },
	[NN_OPT_NUM_DS] = { INT(num_ds, 2, 1, NN_MAX_SCALES, 1), "D", "scales" },
	[NN_OPT_CONDITIONAL_D] = { BOOL(conditional_d, false), "D",
							   "whether it sees the input image too" },
	[NN_OPT_PRECISION] = { CHOICE(precision, NN_PRECISION_AUTO), "G, E",
						   "arithmetic of inference, and of training" },

	[NN_OPT_METHOD] = { TRAIN_CHOICE(method, NN_METHOD_BICYCLE), "all",
						"which of the systems of the paper; fixes the defaults of the other "
						"options" },
	[NN_OPT_GAN_MODE] = { TRAIN_CHOICE(gan_mode, NN_GAN_LSGAN), "losses",
						  "squared distance to the label, or cross entropy" },
	[NN_OPT_SAME_D] = { TRAIN_BOOL(same_d, false), "networks",
						"one discriminator for both branches" },
	[NN_OPT_DROPOUT] = { TRAIN_BOOL(dropout, false), "networks",
						 "drops half of the inner up path of G; never at inference" },
	[NN_OPT_LAMBDA_L1] = { TRAIN_WIDE(lambda_l1, NN_OPTION_REAL), "losses",
						   "weight of the distance to the target, G_L1", 10, 0, MAX_LAMBDA },
	[NN_OPT_LAMBDA_GAN] = { TRAIN_WIDE(lambda_gan, NN_OPTION_REAL), "losses",
							"weight of D's verdict on encoded samples, G_GAN", 1, 0, MAX_LAMBDA },
	[NN_OPT_LAMBDA_GAN2] = { TRAIN_WIDE(lambda_gan2, NN_OPTION_REAL), "losses",
							 "weight of D2's verdict on random samples, G_GAN2", 1, 0, MAX_LAMBDA },
	[NN_OPT_LAMBDA_Z] = { TRAIN_WIDE(lambda_z, NN_OPTION_REAL), "losses",
						  "weight of the distance between a code and what E reads of its image, "
						  "z_L1",
						  0.5, 0, MAX_LAMBDA },
	[NN_OPT_LAMBDA_KL] = { TRAIN_WIDE(lambda_kl, NN_OPTION_REAL), "losses",
						   "weight of the divergence of codes from N(0, 1), kl", 0.01, 0,
						   MAX_LAMBDA },
	[NN_OPT_LR] = { TRAIN_WIDE(lr, NN_OPTION_REAL), "optimiser", "learning rate of Adam", 0.0002, 0,
					1 },
	[NN_OPT_BETA1] = { TRAIN_WIDE(beta1, NN_OPTION_REAL), "optimiser", "decay of its first moment",
					   0.5, 0, 0.999999 },
	[NN_OPT_LR_POLICY] = { TRAIN_CHOICE(lr_policy, NN_LR_LINEAR), "optimiser",
						   "how the rate falls" },
	[NN_OPT_EPOCHS] = { TRAIN_INT(epochs, 100, 0, 1000000), "length", "epochs at the full rate" },
	[NN_OPT_EPOCHS_DECAY] = { TRAIN_INT(epochs_decay, 100, 0, 1000000), "length",
							  "epochs of linear decay after them" },
	[NN_OPT_ITERATIONS] = { TRAIN_WIDE(iterations, NN_OPTION_LONG), "length",
							"iterations of the whole run instead; 0: by epochs", 0, 0, MAX_LONG },
	[NN_OPT_BATCH_SIZE] = { TRAIN_INT(batch_size, 2, 1, 4096), "data", "pairs of an iteration" },
	[NN_OPT_LOAD_SIZE] = { TRAIN_INT(load_size, 286, 64, 8192), "data",
						   "images are resized to this, then cropped to size; size * 286 / 256 if "
						   "left out" },
	[NN_OPT_FLIP] = { TRAIN_BOOL(flip, true), "data", "mirrors half of the pairs" },
	[NN_OPT_INIT_TYPE] = { TRAIN_CHOICE(init_type, NN_INIT_XAVIER), "weights",
						   "distribution of fresh weights" },
	[NN_OPT_INIT_GAIN] = { TRAIN_WIDE(init_gain, NN_OPTION_REAL), "weights", "its scale", 0.02, 0,
						   1000 },
	[NN_OPT_SEED] = { TRAIN_WIDE(seed, NN_OPTION_LONG), "all",
					  "of weights, codes, dropout, order and augmentation", 0, 0, MAX_LONG },
	[NN_OPT_EMA] = { TRAIN_WIDE(ema, NN_OPTION_REAL), "weights",
					 "decay of averaged weights, which the model then gets; 0: none", 0, 0,
					 0.999999 },
	[NN_OPT_CHECKPOINT_EVERY] = { TRAIN_WIDE(checkpoint_every, NN_OPTION_LONG), "job",
								  "iterations between checkpoints; 0: by time alone", 0, 0,
								  MAX_LONG },
	[NN_OPT_PREVIEW_EVERY] = { TRAIN_WIDE(preview_every, NN_OPTION_LONG), "job",
							   "iterations between previews; 0: none", 0, 0, MAX_LONG },
};

/* ---- Values -------------------------------------------------------------- */

static const void *
field_of(NnOptionId id, const NnConfig *config, const NnTrainOptions *options)
{
	return (const char *) (id < NN_OPTIONS ? (const void *) config : options) +
		   nn_options[id].offset;
}

/* The value of an INT, a BOOL or a CHOICE. */
static int
small_value(NnOptionId id, const void *field)
{
	return nn_options[id].kind == NN_OPTION_BOOL ? *(const bool *) field : *(const int *) field;
}

int
nn_option_get(NnOptionId id, const NnConfig *config)
{
	return small_value(id, field_of(id, config, NULL));
}

void
nn_option_put(NnOptionId id, NnConfig *config, NnTrainOptions *options, double value)
{
	void *field = (void *) field_of(id, config, options);

	switch (nn_options[id].kind)
	{
		case NN_OPTION_BOOL:
			*(bool *) field = value != 0;
			break;
		case NN_OPTION_INT:
		case NN_OPTION_CHOICE:
			*(int *) field = (int) value;
			break;
		case NN_OPTION_LONG:
			*(int64_t *) field = (int64_t) value;
			break;
		case NN_OPTION_REAL:
			*(double *) field = value;
			break;
	}
}

void
nn_option_set(NnOptionId id, NnConfig *config, int value)
{
	nn_option_put(id, config, NULL, value);
}

void
nn_option_reset(NnOptionId id, NnConfig *config, NnTrainOptions *options)
{
	const NnOption *option = &nn_options[id];
	bool wide = option->kind == NN_OPTION_LONG || option->kind == NN_OPTION_REAL;

	nn_option_put(id, config, options, wide ? option->real_initial : option->initial);
}

static const NnChoice *
choice_of(const NnOption *option, int value)
{
	const NnChoice *c = option->choices;

	while (c->name && c->value != value)
		c++;
	return c->name ? c : NULL;
}

/* The shortest text that reads back as the same number. */
static void
print_real(double value, char *text, size_t size)
{
	for (int digits = 1; digits <= 17; digits++)
	{
		snprintf(text, size, "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
}

static void
print_value(NnOptionId id, const void *field, char *text, size_t size)
{
	const NnOption *option = &nn_options[id];

	switch (option->kind)
	{
		case NN_OPTION_INT:
			snprintf(text, size, "%d", small_value(id, field));
			break;
		case NN_OPTION_BOOL:
			snprintf(text, size, "%s", small_value(id, field) ? "true" : "false");
			break;
		case NN_OPTION_CHOICE:
		{
			const NnChoice *choice = choice_of(option, small_value(id, field));

			snprintf(text, size, "\"%s\"", choice ? choice->name : "unknown");
			break;
		}
		case NN_OPTION_LONG:
			snprintf(text, size, "%lld", (long long) *(const int64_t *) field);
			break;
		case NN_OPTION_REAL:
			print_real(*(const double *) field, text, size);
			break;
	}
}

void
nn_option_print(NnOptionId id, const NnConfig *config, const NnTrainOptions *options, char *text,
				size_t size)
{
	print_value(id, field_of(id, config, options), text, size);
}

void
nn_config_default(NnConfig *config)
{
	memset(config, 0, sizeof(*config));
	for (int id = 0; id < NN_OPTIONS; id++)
		nn_option_reset(id, config, NULL);
}

char *
nn_config_print(const NnConfig *config)
{
	char text[1024], value[64];
	size_t length = 0;

	for (int id = 0; id < NN_OPTIONS; id++)
	{
		nn_option_print(id, config, NULL, value, sizeof(value));
		length += snprintf(text + length, sizeof(text) - length, "%c\"%s\":%s", id == 0 ? '{' : ',',
						   nn_options[id].name, value);
	}
	snprintf(text + length, sizeof(text) - length, "}");
	return strdup(text);
}

/* ---- Parsing ------------------------------------------------------------- */

/* "a", "b" and so on: the values or the names of all options, for errors. */
static void
list_choices(const NnOption *option, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (const NnChoice *c = option->choices; c->name && length < size; c++)
		length += snprintf(text + length, size - length, "%s\"%s\"",
						   c == option->choices ? "" : ", ", c->name);
}

static void
list_options(int first, int end, char *text, size_t size)
{
	size_t length = 0;

	for (int id = first; id < end && length < size; id++)
		length += snprintf(text + length, size - length, "%s%s", id == first ? "" : ", ",
						   nn_options[id].name);
}

static NnStatus
bad_value(NnOptionId id, NnError *error)
{
	const NnOption *option = &nn_options[id];
	char text[128];

	nn_fail(error, NN_EINVAL, "invalid value for %s option \"%s\"",
			id < NN_OPTIONS ? "model" : "training", option->name);
	switch (option->kind)
	{
		case NN_OPTION_INT:
			if (option->step == 1)
				nn_detail(error, "It must be an integer from %d to %d.", option->min, option->max);
			else
				nn_detail(error, "It must be %d or %d.", option->min, option->max);
			break;
		case NN_OPTION_BOOL:
			nn_detail(error, "It must be true or false.");
			break;
		case NN_OPTION_CHOICE:
			list_choices(option, text, sizeof(text));
			nn_detail(error, "It must be one of %s.", text);
			break;
		case NN_OPTION_LONG:
			nn_detail(error, "It must be an integer from %.0f to %.0f.", option->real_min,
					  option->real_max);
			break;
		case NN_OPTION_REAL:
			nn_detail(error, "It must be a number from %.7g to %.7g.", option->real_min,
					  option->real_max);
			break;
	}
	return NN_EINVAL;
}

static bool
in_range(const NnOption *option, double value)
{
	switch (option->kind)
	{
		case NN_OPTION_BOOL:
			return true;
		case NN_OPTION_INT:
			return value >= option->min && value <= option->max &&
				   ((int64_t) value - option->min) % option->step == 0;
		case NN_OPTION_CHOICE:
			return choice_of(option, (int) value) != NULL;
		case NN_OPTION_LONG:
		case NN_OPTION_REAL:
			return value >= option->real_min && value <= option->real_max;
	}
	return false;
}

NnStatus
nn_option_check(NnOptionId id, const NnConfig *config, const NnTrainOptions *options,
				NnError *error)
{
	const void *field = field_of(id, config, options);
	double value;

	switch (nn_options[id].kind)
	{
		case NN_OPTION_LONG:
			value = (double) *(const int64_t *) field;
			break;
		case NN_OPTION_REAL:
			value = *(const double *) field;
			break;
		default:
			value = small_value(id, field);
			break;
	}
	return in_range(&nn_options[id], value) ? NN_OK : bad_value(id, error);
}

/*
 * The value of a JSON number, boolean or string as nn_option_put takes it;
 * false if it is of the wrong type.
 */
static bool
json_option_value(const NnOption *option, const json_t *json, double *value)
{
	const NnChoice *choice = option->choices;

	switch (option->kind)
	{
		case NN_OPTION_INT:
		case NN_OPTION_LONG:
			*value = (double) json_integer_value(json);
			return json_is_integer(json);
		case NN_OPTION_BOOL:
			*value = json_is_true(json);
			return json_is_boolean(json);
		case NN_OPTION_CHOICE:
			while (json_is_string(json) && choice->name &&
				   strcmp(choice->name, json_string_value(json)) != 0)
				choice++;
			*value = choice->value;
			return json_is_string(json) && choice->name;
		case NN_OPTION_REAL:
			*value = json_number_value(json);
			return json_is_number(json);
	}
	return false;
}

static NnStatus
unknown_option(const char *key, bool training, NnError *error)
{
	char names[500];

	nn_fail(error, NN_EINVAL, "unrecognized %s option \"%s\"", training ? "training" : "model",
			key);
	if (training)
	{
		list_options(NN_OPTIONS, NN_ALL_OPTIONS, names, sizeof(names));
		nn_hint(error, "Options of training are: %s; and those of models.", names);
	}
	else
	{
		list_options(0, NN_OPTIONS, names, sizeof(names));
		nn_hint(error, "Model options are: %s.", names);
	}
	return NN_EINVAL;
}

NnStatus
nn_options_read(const json_t *object, NnConfig *config, NnTrainOptions *options, uint64_t *given,
				NnError *error)
{
	int end = options ? NN_ALL_OPTIONS : NN_OPTIONS;
	const char *key;
	json_t *json;

	*given = 0;
	/* the macro casts away const, and reads only */
	json_object_foreach((json_t *) object, key, json)
	{
		int id = 0;
		double value;

		while (id < end && strcmp(nn_options[id].name, key) != 0)
			id++;
		if (id == end)
			return unknown_option(key, options != NULL, error);
		if (!json_option_value(&nn_options[id], json, &value) || !in_range(&nn_options[id], value))
			return bad_value(id, error);
		nn_option_put(id, config, options, value);
		*given |= (uint64_t) 1 << id;
	}
	return NN_OK;
}

NnStatus
nn_options_load(const char *json, size_t length, const char *what, json_t **object, NnError *error)
{
	json_error_t at;
	json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);

	/*
	 * jansson names every mistake of the text, but mostly says nothing if
	 * memory is short
	 */
	if (!root && at.text[0] == '\0')
		return nn_no_memory(error, length);
	if (!root)
	{
		nn_fail(error, NN_EINVAL, "%s options are not valid JSON", what);
		nn_detail(error, "At byte %d: %s.", at.position, at.text);
		return NN_EINVAL;
	}
	if (!json_is_object(root))
	{
		json_decref(root);
		return nn_fail(error, NN_EINVAL, "%s options must be a JSON object", what);
	}
	*object = root;
	return NN_OK;
}

NnStatus
nn_config_read(NnConfig *config, const char *json, size_t length, uint64_t *given, NnError *error)
{
	NnConfig read = *config;
	json_t *object;
	NnStatus status = nn_options_load(json, length, "model", &object, error);

	*given = 0;
	if (status != NN_OK)
		return status;
	status = nn_options_read(object, &read, NULL, given, error);
	json_decref(object);
	if (status == NN_OK)
		*config = read;
	return status;
}

static bool
is_given(uint64_t given, NnOptionId id)
{
	return given >> id & 1;
}

void
nn_config_follow(NnConfig *c, uint64_t given)
{
	bool resized = is_given(given, NN_OPT_SIZE) || is_given(given, NN_OPT_LEVELS);

	if (is_given(given, NN_OPT_SIZE) && !is_given(given, NN_OPT_LEVELS))
	{
		c->levels = nn_options[NN_OPT_LEVELS].max;
		while (c->levels > nn_options[NN_OPT_LEVELS].min && c->size % (1 << c->levels) != 0)
			c->levels--;
	}
	if (is_given(given, NN_OPT_LEVELS) && !is_given(given, NN_OPT_SIZE))
		c->size = 1 << c->levels;
	if (c->nz == 0 && !is_given(given, NN_OPT_WHERE_ADD))
		c->where_add = NN_ADD_INPUT;
	if (c->nz == 0 && !is_given(given, NN_OPT_NET_E))
		c->net_e = NN_ENCODER_NONE;
	if (is_given(given, NN_OPT_ENCODER_SIZE))
		return;
	if (c->net_e == NN_ENCODER_NONE)
		c->encoder_size = 0;
	else if (resized || c->encoder_size == 0)
		c->encoder_size = 1 << c->levels;
}

NnStatus
nn_config_parse(NnConfig *config, const char *json, size_t length, NnError *error)
{
	uint64_t given;
	NnStatus status = nn_config_read(config, json, length, &given, error);

	if (status == NN_OK)
		nn_config_follow(config, given);
	return status;
}

/* ---- Documentation ------------------------------------------------------- */

static void
print_values(const NnOption *option, char *text, size_t size)
{
	switch (option->kind)
	{
		case NN_OPTION_INT:
			snprintf(text, size, option->step == 1 ? "%d to %d" : "%d or %d", option->min,
					 option->max);
			break;
		case NN_OPTION_BOOL:
			snprintf(text, size, "true or false");
			break;
		case NN_OPTION_CHOICE:
			list_choices(option, text, size);
			break;
		case NN_OPTION_LONG:
			snprintf(text, size, "%.0f and above", option->real_min);
			break;
		case NN_OPTION_REAL:
			snprintf(text, size, "%.7g to %.7g", option->real_min, option->real_max);
			break;
	}
}

char *
nn_options_describe(void)
{
	static const char head[] =
		"# Model options\n\nKeys of the `config` of `bicycle_import` and `bicycle_create`, and of "
		"the column\n`bicycle_models.config`. `bicycle_create` takes `init_type`, `init_gain` and "
		"`seed` besides. This page\nis made from the option table in `src/nn/config.c`.\n\n"
		"| option | values | default | network | meaning |\n|---|---|---|---|---|\n";
	static const char training[] =
		"\n# Training options\n\nKeys of the `options` of `bicycle_train`, which takes the model "
		"options too. Each method\nchanges some of the defaults; what is given explicitly "
		"stands.\n\n"
		"| option | values | default | part | meaning |\n|---|---|---|---|---|\n";
	NnConfig config;
	NnTrainOptions options;
	char page[16384];
	size_t length = snprintf(page, sizeof(page), "%s", head);

	for (int id = 0; id < NN_ALL_OPTIONS && length < sizeof(page); id++)
	{
		char values[128], initial[64];

		if (id == NN_OPTIONS)
			length += snprintf(page + length, sizeof(page) - length, "%s", training);
		nn_option_reset(id, &config, &options);
		print_values(&nn_options[id], values, sizeof(values));
		nn_option_print(id, &config, &options, initial, sizeof(initial));
		length += snprintf(page + length, sizeof(page) - length, "| `%s` | %s | %s | %s | %s |\n",
						   nn_options[id].name, values, initial, nn_options[id].networks,
						   nn_options[id].help);
	}
	return strdup(page);
}

/* ---- What the fields demand of each other -------------------------------- */

static NnStatus
check_generator(const NnConfig *c, NnError *error)
{
	int unit = 1 << c->levels;

	if (c->size % unit != 0)
	{
		nn_fail(error, NN_EINVAL, "size %d does not suit a generator of %d levels", c->size,
				c->levels);
		nn_detail(error, "The image is halved %d times, so its size must be a multiple of %d.",
				  c->levels, unit);
		nn_hint(error, "Choose size %d, or leave size out to use the generator's nominal size.",
				unit);
		return NN_EINVAL;
	}
	if (c->nz == 0 && c->where_add == NN_ADD_ALL)
	{
		nn_fail(error, NN_EINVAL, "where_add \"all\" needs a latent code");
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Set where_add to \"input\".");
		return NN_EINVAL;
	}
	return NN_OK;
}

static NnStatus
check_encoder(const NnConfig *c, NnError *error)
{
	int s = c->encoder_size;

	if (c->net_e == NN_ENCODER_NONE)
	{
		if (s == 0)
			return NN_OK;
		nn_fail(error, NN_EINVAL, "encoder_size %d without an encoder", s);
		nn_detail(error, "net_e is \"none\".");
		return NN_EINVAL;
	}
	if (c->nz == 0)
	{
		nn_fail(error, NN_EINVAL, "an encoder needs a latent code");
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Set net_e to \"none\".");
		return NN_EINVAL;
	}
	if (s < 64 || (s & (s - 1)) != 0)
	{
		nn_fail(error, NN_EINVAL, "invalid value for model option \"encoder_size\"");
		nn_detail(error, "It must be 64, 128, 256 or 512.");
		return NN_EINVAL;
	}
	return NN_OK;
}

/*
 * Every scale must leave a map, and a norm needs more than one element: over a
 * single one it returns 0 whatever the input (PyTorch refuses it). G and E have
 * no such norm at the sizes that the checks above allow.
 */
static NnStatus
check_discriminator(const NnConfig *c, NnError *error)
{
	int strided = c->size <= 128 ? 2 : 3;
	int size = c->size;

	for (int i = 0; i < c->num_ds; i++)
	{
		int map = size >> strided; /* after the strided layers; each later one takes 1 off */
		bool single = c->norm != NN_NORM_NONE && map - 1 == 1;

		if (single || map - 2 < 1 || rint(c->ndf / (double) (1 << i)) < 1)
		{
			nn_fail(error, NN_EINVAL, "num_ds %d is too large", c->num_ds);
			nn_detail(error,
					  "Scale %d of a discriminator of width %d would see images of %d x %d, which "
					  "leaves %s.",
					  i + 1, c->ndf, size, size,
					  single        ? "a norm over a single element"
					  : map - 2 < 1 ? "no map"
									: "no channel");
			nn_hint(error, "Use fewer scales.");
			return NN_EINVAL;
		}
		size = (size + 1) / 2;
	}
	return NN_OK;
}

NnStatus
nn_config_check(const NnConfig *config, NnError *error)
{
	NnStatus status = NN_OK;

	for (int id = 0; id < NN_OPTIONS; id++)
		if (nn_option_check(id, config, NULL, error) != NN_OK)
			return NN_EINVAL;
	status = check_generator(config, error);
	if (status == NN_OK)
		status = check_encoder(config, error);
	if (status == NN_OK)
		status = check_discriminator(config, error);
	return status;
}
