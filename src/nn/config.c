/*
 * config.c
 *	  The options that fix a model's networks: one table, from which defaults, parsing, checks and the canonical text are made.
 *
 * A new option is a row here, a field of NnConfig and an id in config.h.  Nothing is kept between calls.
 */
#include "nn/config.h"
#include "nn/graph.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const NnChoice where_add_choices[] = {{"all", NN_ADD_ALL}, {"input", NN_ADD_INPUT}, {NULL, 0}};
static const NnChoice upsample_choices[] = {{"basic", NN_UPSAMPLE_BASIC}, {"bilinear", NN_UPSAMPLE_BILINEAR}, {NULL, 0}};
static const NnChoice norm_choices[] = {{"instance", NN_NORM_INSTANCE}, {"batch", NN_NORM_BATCH}, {"none", NN_NORM_NONE}, {NULL, 0}};
static const NnChoice nl_choices[] = {{"relu", NN_ACT_RELU}, {"lrelu", NN_ACT_LRELU}, {"elu", NN_ACT_ELU}, {NULL, 0}};
static const NnChoice net_e_choices[] = {{"none", NN_ENCODER_NONE}, {"resnet", NN_ENCODER_RESNET}, {"conv", NN_ENCODER_CONV}, {NULL, 0}};
static const NnChoice precision_choices[] = {{"auto", NN_PRECISION_AUTO}, {"fp32", NN_PRECISION_FP32}, {"bf16", NN_PRECISION_BF16}, {NULL, 0}};

#define INT(field, initial, min, max, step) #field, NN_OPTION_INT, offsetof(NnConfig, field), initial, min, max, step, NULL
#define BOOL(field, initial) #field, NN_OPTION_BOOL, offsetof(NnConfig, field), initial, 0, 1, 1, NULL
#define CHOICE(field, initial) #field, NN_OPTION_CHOICE, offsetof(NnConfig, field), initial, 0, 0, 0, field##_choices

const NnOption nn_options[NN_OPTIONS] =
{
	[NN_OPT_SIZE] = {INT(size, 256, 64, 4096, 1), "G, D", "images are size x size; a multiple of 2^levels"},
	[NN_OPT_LEVELS] = {INT(levels, 8, 6, 9, 1), "G", "down levels; follows from size if left out"},
	[NN_OPT_INPUT_NC] = {INT(input_nc, 3, 1, 3, 2), "G, D", "channels of input images"},
	[NN_OPT_OUTPUT_NC] = {INT(output_nc, 3, 1, 3, 2), "G, E, D", "channels of output images"},
	[NN_OPT_NZ] = {INT(nz, 8, 0, 1024, 1), "G, E", "length of the latent code"},
	[NN_OPT_NGF] = {INT(ngf, 64, 1, 512, 1), "G", "width of the outermost level"},
	[NN_OPT_NEF] = {INT(nef, 64, 1, 512, 1), "E", "width of the first layer"},
	[NN_OPT_NDF] = {INT(ndf, 64, 1, 512, 1), "D", "width of the first layer of the first scale"},
	[NN_OPT_WHERE_ADD] = {CHOICE(where_add, NN_ADD_ALL), "G", "where the latent code joins: every level or the image"},
	[NN_OPT_UPSAMPLE] = {CHOICE(upsample, NN_UPSAMPLE_BASIC), "G", "transposed convolution, or bilinear and convolution"},
	[NN_OPT_NORM] = {CHOICE(norm, NN_NORM_INSTANCE), "G, E, D", "normalisation of feature maps"},
	[NN_OPT_NL] = {CHOICE(nl, NN_ACT_RELU), "G", "activation of the up path"},
	[NN_OPT_NET_E] = {CHOICE(net_e, NN_ENCODER_RESNET), "E", "kind of encoder"},
	[NN_OPT_ENCODER_SIZE] = {INT(encoder_size, 256, 0, 512, 1), "E", "size of the images it reads: 64, 128, 256 or 512, and 0 without an encoder"},
	[NN_OPT_NUM_DS] = {INT(num_ds, 2, 1, NN_MAX_SCALES, 1), "D", "scales"},
	[NN_OPT_CONDITIONAL_D] = {BOOL(conditional_d, false), "D", "whether it sees the input image too"},
	[NN_OPT_PRECISION] = {CHOICE(precision, NN_PRECISION_AUTO), "G, E", "arithmetic of inference"},
};

/* ---- Values -------------------------------------------------------------------------------------------------------------------------------- */

int
nn_option_get(NnOptionId id, const NnConfig *config)
{
	const char *field = (const char *) config + nn_options[id].offset;

	return nn_options[id].kind == NN_OPTION_BOOL ? *(const bool *) field : *(const int *) field;
}

void
nn_option_set(NnOptionId id, NnConfig *config, int value)
{
	char	   *field = (char *) config + nn_options[id].offset;

	if (nn_options[id].kind == NN_OPTION_BOOL)
		*(bool *) field = value != 0;
	else
		*(int *) field = value;
}

static const NnChoice *
choice_of(const NnOption *option, int value)
{
	const NnChoice *c = option->choices;

	while (c->name && c->value != value)
		c++;
	return c->name ? c : NULL;
}

void
nn_option_print(NnOptionId id, const NnConfig *config, char *text, size_t size)
{
	const NnOption *option = &nn_options[id];
	int			value = nn_option_get(id, config);

	if (option->kind == NN_OPTION_INT)
		snprintf(text, size, "%d", value);
	else if (option->kind == NN_OPTION_BOOL)
		snprintf(text, size, "%s", value ? "true" : "false");
	else
	{
		const NnChoice *choice = choice_of(option, value);

		snprintf(text, size, "\"%s\"", choice ? choice->name : "unknown");
	}
}

void
nn_config_default(NnConfig *config)
{
	memset(config, 0, sizeof(*config));
	for (int id = 0; id < NN_OPTIONS; id++)
		nn_option_set(id, config, nn_options[id].initial);
}

char *
nn_config_print(const NnConfig *config)
{
	char		text[1024],
				value[64];
	size_t		length = 0;

	for (int id = 0; id < NN_OPTIONS; id++)
	{
		nn_option_print(id, config, value, sizeof(value));
		length += snprintf(text + length, sizeof(text) - length, "%c\"%s\":%s", id == 0 ? '{' : ',', nn_options[id].name, value);
	}
	snprintf(text + length, sizeof(text) - length, "}");
	return strdup(text);
}

/* ---- Parsing ------------------------------------------------------------------------------------------------------------------------------- */

/* "a", "b" and so on: the values or the names of all options, for errors. */
static void
list_choices(const NnOption *option, char *text, size_t size)
{
	size_t		length = 0;

	text[0] = '\0';
	for (const NnChoice *c = option->choices; c->name && length < size; c++)
		length += snprintf(text + length, size - length, "%s\"%s\"", c == option->choices ? "" : ", ", c->name);
}

static void
list_options(char *text, size_t size)
{
	size_t		length = 0;

	for (int id = 0; id < NN_OPTIONS && length < size; id++)
		length += snprintf(text + length, size - length, "%s%s", id == 0 ? "" : ", ", nn_options[id].name);
}

static NnStatus
bad_value(const NnOption *option, NnError *error)
{
	char		text[128];

	nn_fail(error, NN_EINVAL, "invalid value for model option \"%s\"", option->name);
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
	}
	return NN_EINVAL;
}

static bool
in_range(const NnOption *option, json_int_t value)
{
	if (option->kind == NN_OPTION_CHOICE)
		return choice_of(option, (int) value) != NULL;
	return value >= option->min && value <= option->max && (value - option->min) % option->step == 0;
}

static NnStatus
read_value(NnOptionId id, const json_t *json, NnConfig *config, NnError *error)
{
	const NnOption *option = &nn_options[id];
	const NnChoice *choice;

	switch (option->kind)
	{
		case NN_OPTION_INT:
			if (!json_is_integer(json) || !in_range(option, json_integer_value(json)))
				return bad_value(option, error);
			nn_option_set(id, config, (int) json_integer_value(json));
			return NN_OK;
		case NN_OPTION_BOOL:
			if (!json_is_boolean(json))
				return bad_value(option, error);
			nn_option_set(id, config, json_is_true(json));
			return NN_OK;
		case NN_OPTION_CHOICE:
			choice = option->choices;
			while (json_is_string(json) && choice->name && strcmp(choice->name, json_string_value(json)) != 0)
				choice++;
			if (!json_is_string(json) || !choice->name)
				return bad_value(option, error);
			nn_option_set(id, config, choice->value);
			return NN_OK;
	}
	return NN_EINVAL;
}

static NnStatus
read_object(const json_t *object, NnConfig *config, uint64_t *given, NnError *error)
{
	const char *key;
	json_t	   *value;

	/* the macro casts away const, and reads only */
	json_object_foreach((json_t *) object, key, value)
	{
		int			id = 0;
		NnStatus	status;

		while (id < NN_OPTIONS && strcmp(nn_options[id].name, key) != 0)
			id++;
		if (id == NN_OPTIONS)
		{
			char		names[400];

			list_options(names, sizeof(names));
			nn_fail(error, NN_EINVAL, "unrecognized model option \"%s\"", key);
			nn_hint(error, "Model options are: %s.", names);
			return NN_EINVAL;
		}
		status = read_value(id, value, config, error);
		if (status != NN_OK)
			return status;
		*given |= (uint64_t) 1 << id;
	}
	return NN_OK;
}

NnStatus
nn_config_read(NnConfig *config, const char *json, size_t length, uint64_t *given, NnError *error)
{
	json_error_t at;
	json_t	   *root = json_loadb(json, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);
	NnConfig	read = *config;
	NnStatus	status;

	*given = 0;
	/* jansson names every mistake of the text, but mostly says nothing if memory is short */
	if (!root && at.text[0] == '\0')
		return nn_no_memory(error, length);
	if (!root)
	{
		nn_fail(error, NN_EINVAL, "model options are not valid JSON");
		nn_detail(error, "At byte %d: %s.", at.position, at.text);
		return NN_EINVAL;
	}
	if (json_is_object(root))
		status = read_object(root, &read, given, error);
	else
		status = nn_fail(error, NN_EINVAL, "model options must be a JSON object");
	json_decref(root);
	if (status == NN_OK)
		*config = read;
	return status;
}

static bool
is_given(uint64_t given, NnOptionId id)
{
	return given >> id & 1;
}

/* Options that were left out follow those that were given: a smaller size means fewer levels and a smaller encoder, as in the official presets. */
static void
follow(NnConfig *c, uint64_t given)
{
	bool		resized = is_given(given, NN_OPT_SIZE) || is_given(given, NN_OPT_LEVELS);

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
	uint64_t	given;
	NnStatus	status = nn_config_read(config, json, length, &given, error);

	if (status == NN_OK)
		follow(config, given);
	return status;
}

/* ---- Documentation ------------------------------------------------------------------------------------------------------------------------- */

static void
print_values(const NnOption *option, char *text, size_t size)
{
	switch (option->kind)
	{
		case NN_OPTION_INT:
			snprintf(text, size, option->step == 1 ? "%d to %d" : "%d or %d", option->min, option->max);
			break;
		case NN_OPTION_BOOL:
			snprintf(text, size, "true or false");
			break;
		case NN_OPTION_CHOICE:
			list_choices(option, text, size);
			break;
	}
}

char *
nn_options_describe(void)
{
	static const char head[] =
		"# Model options\n\nKeys of the `config` of `bicycle_import` and `bicycle_create`, and of the column `bicycle_models.config`. `bicycle_create` takes\n"
		"`init_type`, `init_gain` and `seed` besides. This page is made from the option table in `src/nn/config.c`.\n\n"
		"| option | values | default | network | meaning |\n|---|---|---|---|---|\n";
	NnConfig	defaults;
	char		page[8192];
	size_t		length = snprintf(page, sizeof(page), "%s", head);

	nn_config_default(&defaults);
	for (int id = 0; id < NN_OPTIONS && length < sizeof(page); id++)
	{
		char		values[128],
					initial[64];

		print_values(&nn_options[id], values, sizeof(values));
		nn_option_print(id, &defaults, initial, sizeof(initial));
		length += snprintf(page + length, sizeof(page) - length, "| `%s` | %s | %s | %s | %s |\n", nn_options[id].name, values, initial,
						   nn_options[id].networks, nn_options[id].help);
	}
	return strdup(page);
}

/* ---- What the fields demand of each other -------------------------------------------------------------------------------------------------- */

static NnStatus
check_generator(const NnConfig *c, NnError *error)
{
	int			unit = 1 << c->levels;

	if (c->size % unit != 0)
	{
		nn_fail(error, NN_EINVAL, "size %d does not suit a generator of %d levels", c->size, c->levels);
		nn_detail(error, "The image is halved %d times, so its size must be a multiple of %d.", c->levels, unit);
		nn_hint(error, "Choose size %d, or leave size out to use the generator's nominal size.", unit);
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
	int			s = c->encoder_size;

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
 * Every scale must leave a map, and a norm needs more than one element: over a single one it returns 0 whatever the input (PyTorch refuses it).  G and E
 * have no such norm at the sizes that the checks above allow.
 */
static NnStatus
check_discriminator(const NnConfig *c, NnError *error)
{
	int			strided = c->size <= 128 ? 2 : 3;
	int			size = c->size;

	for (int i = 0; i < c->num_ds; i++)
	{
		int			map = size >> strided;	/* after the strided layers; each later one takes 1 off */
		bool		single = c->norm != NN_NORM_NONE && map - 1 == 1;

		if (single || map - 2 < 1 || rint(c->ndf / (double) (1 << i)) < 1)
		{
			nn_fail(error, NN_EINVAL, "num_ds %d is too large", c->num_ds);
			nn_detail(error, "Scale %d of a discriminator of width %d would see images of %d x %d, which leaves %s.", i + 1, c->ndf, size, size,
					  single ? "a norm over a single element" : map - 2 < 1 ? "no map" : "no channel");
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
	NnStatus	status = NN_OK;

	for (int id = 0; id < NN_OPTIONS; id++)
		if (!in_range(&nn_options[id], nn_option_get(id, config)))
			return bad_value(&nn_options[id], error);
	status = check_generator(config, error);
	if (status == NN_OK)
		status = check_encoder(config, error);
	if (status == NN_OK)
		status = check_discriminator(config, error);
	return status;
}
