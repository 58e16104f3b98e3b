/*
 * config.c
 *	  The options that fix a model's networks and those of training: defaults,
 *	  parsing, checks and the canonical text, all from the rows of options.def.
 *
 * Nothing is kept between calls. What options of training demand of each other
 * is in fit_options.c.
 */
#include "nn/config.h"
#include "nn/nn_error.h"

#include "common/invariant.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The table ----------------------------------------------------------- */

static const NnChoice where_add_choices[] = {
	{ "all", NN_ADD_ALL },
	{ "input", NN_ADD_INPUT },
	{ NULL, 0 },
};
static const NnChoice upsample_choices[] = {
	{ "basic", NN_UPSAMPLE_BASIC },
	{ "bilinear", NN_UPSAMPLE_BILINEAR },
	{ NULL, 0 },
};
static const NnChoice norm_choices[] = {
	{ "instance", NN_NORM_INSTANCE },
	{ "batch", NN_NORM_BATCH },
	{ "none", NN_NORM_NONE },
	{ NULL, 0 },
};
static const NnChoice nl_choices[] = {
	{ "relu", NN_ACT_RELU },
	{ "lrelu", NN_ACT_LRELU },
	{ "elu", NN_ACT_ELU },
	{ NULL, 0 },
};
static const NnChoice net_e_choices[] = {
	{ "none", NN_ENCODER_NONE },
	{ "resnet", NN_ENCODER_RESNET },
	{ "conv", NN_ENCODER_CONV },
	{ NULL, 0 },
};
static const NnChoice precision_choices[] = {
	{ "auto", NN_PRECISION_AUTO },
	{ "fp32", NN_PRECISION_FP32 },
	{ "bf16", NN_PRECISION_BF16 },
	{ "tf32", NN_PRECISION_TF32 },
	{ NULL, 0 },
};
static const NnChoice fit_choices[] = {
	{ "square", NN_SIZING_SQUARE },
	{ "input", NN_SIZING_INPUT },
	{ NULL, 0 },
};
static const NnChoice alpha_choices[] = {
	{ "white", NN_ALPHA_WHITE },
	{ "drop", NN_ALPHA_DROP },
	{ NULL, 0 },
};
static const NnChoice family_choices[] = {
	{ "bicycle", NN_FAMILY_BICYCLE },
	{ "pix2pix", NN_FAMILY_PIX2PIX },
	{ NULL, 0 },
};
static const NnChoice statistics_choices[] = {
	{ "stored", NN_STATISTICS_STORED },
	{ "image", NN_STATISTICS_IMAGE },
	{ NULL, 0 },
};
static const NnChoice method_choices[] = {
#define ROW(id, name) { name, NN_METHOD_##id },
	BICYCLE_METHODS(ROW)
#undef ROW
		{ NULL, 0 },
};
static const NnChoice gan_mode_choices[] = {
	{ "lsgan", NN_GAN_LSGAN },
	{ "vanilla", NN_GAN_VANILLA },
	{ NULL, 0 },
};
static const NnChoice lr_policy_choices[] = {
	{ "linear", NN_LR_LINEAR },
	{ "step", NN_LR_STEP },
	{ "cosine", NN_LR_COSINE },
	{ NULL, 0 },
};
static const NnChoice init_type_choices[] = {
	{ "xavier", NN_INIT_XAVIER },
	{ "normal", NN_INIT_NORMAL },
	{ "kaiming", NN_INIT_KAIMING },
	{ "orthogonal", NN_INIT_ORTHOGONAL },
	{ NULL, 0 },
};
static const NnChoice keep_choices[] = {
	{ "last", NN_KEEP_LAST },
	{ "best", NN_KEEP_BEST },
	{ NULL, 0 },
};
static const NnChoice keep_metric_choices[] = {
#define ROW(id, name) { name, NN_MEASURE_##id },
	BICYCLE_MEASURES(ROW)
#undef ROW
		{ NULL, 0 },
};
static const NnChoice diff_augment_choices[] = {
	{ "none", NN_DIFF_AUGMENT_NONE },
	{ "color", NN_DIFF_AUGMENT_COLOR },
	{ "translation", NN_DIFF_AUGMENT_TRANSLATION },
	{ "cutout", NN_DIFF_AUGMENT_CUTOUT },
	{ "color,translation", NN_DIFF_AUGMENT_COLOR | NN_DIFF_AUGMENT_TRANSLATION },
	{ "color,cutout", NN_DIFF_AUGMENT_COLOR | NN_DIFF_AUGMENT_CUTOUT },
	{ "translation,cutout", NN_DIFF_AUGMENT_TRANSLATION | NN_DIFF_AUGMENT_CUTOUT },
	{ "color,translation,cutout",
	  NN_DIFF_AUGMENT_COLOR | NN_DIFF_AUGMENT_TRANSLATION | NN_DIFF_AUGMENT_CUTOUT },
	{ NULL, 0 },
};
static const NnChoice bad_pairs_choices[] = {
	{ "error", NN_BAD_PAIRS_ERROR },
	{ "skip", NN_BAD_PAIRS_SKIP },
	{ NULL, 0 },
};

#define CHOICES_INT(field) NULL
#define CHOICES_EITHER(field) NULL
#define CHOICES_BOOL(field) NULL
#define CHOICES_CHOICE(field) field##_choices
#define CHOICES_LONG(field) NULL
#define CHOICES_REAL(field) NULL
#define CHOICES_STRING(field) NULL

const NnOption nn_options[NN_ALL_OPTIONS] = {
#define OPTION(type, field, kind, since, initial, least, most, part, help) \
	{ #field,  NN_OPTION_##kind,                                           \
	  since,   offsetof(type, field),                                      \
	  initial, least,                                                      \
	  most,    CHOICES_##kind(field),                                      \
	  part,    help },
#define MODEL(id, ...) OPTION(NnConfig, __VA_ARGS__)
#define TRAIN(id, field, kind, ...) OPTION(NnTrainOptions, field, kind, 0, __VA_ARGS__)
#include "nn/options.def"
};

/* The table reads and writes as many bytes as a field has. */
#define WIDTH_INT(most) sizeof(int)
#define WIDTH_EITHER(most) sizeof(int)
#define WIDTH_BOOL(most) sizeof(bool)
#define WIDTH_CHOICE(most) sizeof(int)
#define WIDTH_LONG(most) sizeof(int64_t)
#define WIDTH_REAL(most) sizeof(double)
#define WIDTH_STRING(most) ((size_t) (most) + 1)

#define WIDE(type, field, kind, since, initial, least, most, part, help) \
	_Static_assert(sizeof(((type *) NULL)->field) == WIDTH_##kind(most), #field " has its width");
#define MODEL(id, ...) WIDE(NnConfig, __VA_ARGS__)
#define TRAIN(id, field, kind, ...) WIDE(NnTrainOptions, field, kind, 0, __VA_ARGS__)
#include "nn/options.def"

/* ---- Texts --------------------------------------------------------------- */

static void
text_fail(NnText *text)
{
	free(text->at);
	*text = (NnText){ .failed = true };
}

void
nn_text_add(NnText *text, const char *format, ...)
{
	va_list args;
	int added;
	char *grown;

	if (text->failed)
		return;
	va_start(args, format);
	added = vsnprintf(NULL, 0, format, args);
	va_end(args);
	grown = added < 0 ? NULL : realloc(text->at, text->length + (size_t) added + 1);
	if (!grown)
	{
		text_fail(text);
		return;
	}
	va_start(args, format);
	vsnprintf(grown + text->length, (size_t) added + 1, format, args);
	va_end(args);
	text->at = grown;
	text->length += (size_t) added;
}

/* ---- Values -------------------------------------------------------------- */

void *
nn_option_field(NnOptionId id, NnConfig *config, NnTrainOptions *options)
{
	return (char *) (id < NN_OPTIONS ? (void *) config : options) + nn_options[id].offset;
}

/* The value of anything but a STRING. */
static double
number_of(const NnOption *option, const void *field)
{
	switch (option->kind)
	{
		case NN_OPTION_BOOL:
			return *(const bool *) field;
		case NN_OPTION_LONG:
			return (double) *(const int64_t *) field;
		case NN_OPTION_REAL:
			return *(const double *) field;
		default:
			return *(const int *) field;
	}
}

static void
put_number(const NnOption *option, void *field, double value)
{
	switch (option->kind)
	{
		case NN_OPTION_BOOL:
			*(bool *) field = value != 0;
			break;
		case NN_OPTION_LONG:
			*(int64_t *) field = (int64_t) value;
			break;
		case NN_OPTION_REAL:
			*(double *) field = value;
			break;
		default:
			*(int *) field = (int) value;
			break;
	}
}

int
nn_option_get(NnOptionId id, const NnConfig *config)
{
	INVARIANT(id < NN_OPTIONS);
	return (int) number_of(&nn_options[id], (const char *) config + nn_options[id].offset);
}

void
nn_option_put(NnOptionId id, NnConfig *config, NnTrainOptions *options, double value)
{
	INVARIANT(nn_options[id].kind != NN_OPTION_STRING);
	put_number(&nn_options[id], nn_option_field(id, config, options), value);
}

void
nn_value_reset(const NnOption *option, void *field)
{
	if (option->kind == NN_OPTION_STRING)
		memset(field, 0, (size_t) option->most + 1);
	else
		put_number(option, field, option->initial);
}

bool
nn_value_is_initial(const NnOption *option, const void *field)
{
	return option->kind == NN_OPTION_STRING ? *(const char *) field == '\0'
											: number_of(option, field) == option->initial;
}

bool
nn_value_is_printed(const NnOption *option, const void *field)
{
	return option->since == 0 || !nn_value_is_initial(option, field);
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
add_real(NnText *text, double value)
{
	char number[32];

	for (int digits = 1; digits <= 17; digits++)
	{
		snprintf(number, sizeof(number), "%.*g", digits, value);
		if (strtod(number, NULL) == value)
			break;
	}
	nn_text_add(text, "%s", number);
}

static void
add_string(NnText *text, const char *value)
{
	json_t *json = json_string(value);
	char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;

	if (quoted)
		nn_text_add(text, "%s", quoted);
	else
		text_fail(text);
	free(quoted);
	json_decref(json);
}

void
nn_value_print(const NnOption *option, const void *field, NnText *text)
{
	const NnChoice *choice;

	switch (option->kind)
	{
		case NN_OPTION_INT:
		case NN_OPTION_EITHER:
			nn_text_add(text, "%d", *(const int *) field);
			break;
		case NN_OPTION_BOOL:
			nn_text_add(text, "%s", *(const bool *) field ? "true" : "false");
			break;
		case NN_OPTION_CHOICE:
			choice = choice_of(option, *(const int *) field);
			nn_text_add(text, "\"%s\"", choice ? choice->name : "unknown");
			break;
		case NN_OPTION_LONG:
			nn_text_add(text, "%lld", (long long) *(const int64_t *) field);
			break;
		case NN_OPTION_REAL:
			add_real(text, *(const double *) field);
			break;
		case NN_OPTION_STRING:
			add_string(text, field);
			break;
	}
}

static bool
in_range(const NnOption *option, double value)
{
	switch (option->kind)
	{
		case NN_OPTION_EITHER:
			return value == option->least || value == option->most;
		case NN_OPTION_CHOICE:
			return choice_of(option, (int) value) != NULL;
		default:
			return value >= option->least && value <= option->most;
	}
}

/* The value of a number, boolean or choice's name; false: wrong type. */
static bool
number_from_json(const NnOption *option, const json_t *json, double *value)
{
	const NnChoice *choice = option->choices;

	switch (option->kind)
	{
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
		default:
			/*
			 * 2.0 is whole: so it comes from languages that have no integers.
			 */
			*value = json_number_value(json);
			return json_is_number(json) && *value == floor(*value);
	}
}

bool
nn_value_read(const NnOption *option, const json_t *json, void *field)
{
	double value;

	if (option->kind == NN_OPTION_STRING)
	{
		if (!json_is_string(json) || (double) json_string_length(json) > option->most)
			return false;
		nn_value_reset(option, field);
		memcpy(field, json_string_value(json), json_string_length(json));
		return true;
	}
	if (!number_from_json(option, json, &value) || !in_range(option, value))
		return false;
	put_number(option, field, value);
	return true;
}

/* ---- The canonical text -------------------------------------------------- */

void
nn_config_default(NnConfig *config)
{
	memset(config, 0, sizeof(*config));
	for (int id = 0; id < NN_OPTIONS; id++)
		nn_value_reset(&nn_options[id], nn_option_field(id, config, NULL));
}

char *
nn_config_print(const NnConfig *config)
{
	NnText text = { 0 };

	if (config->metric != NN_METRIC_NONE)
	{
		char metric[NN_METRIC_TEXT];

		nn_metric_print(config, metric);
		return strdup(metric);
	}
	for (int id = 0; id < NN_OPTIONS; id++)
	{
		const void *field = (const char *) config + nn_options[id].offset;

		if (!nn_value_is_printed(&nn_options[id], field))
			continue;
		nn_text_add(&text, "%c\"%s\":", id == 0 ? '{' : ',', nn_options[id].name);
		nn_value_print(&nn_options[id], field, &text);
	}
	nn_text_add(&text, "}");
	return text.at;
}

/* ---- Errors -------------------------------------------------------------- */

/* "a", "b" and so on: the names of a choice, or of options. */
static void
add_choices(const NnOption *option, NnText *text)
{
	for (const NnChoice *c = option->choices; c->name; c++)
		nn_text_add(text, "%s\"%s\"", c == option->choices ? "" : ", ", c->name);
}

static NnStatus
bad_value(NnOptionId id, NnError *error)
{
	const NnOption *option = &nn_options[id];
	NnText text = { 0 };

	nn_fail(error, NN_EINVAL, "invalid value for %s option \"%s\"",
			id < NN_OPTIONS ? "model" : "training", option->name);
	switch (option->kind)
	{
		case NN_OPTION_INT:
		case NN_OPTION_LONG:
			nn_detail(error, "It must be an integer from %.0f to %.0f.", option->least,
					  option->most);
			break;
		case NN_OPTION_EITHER:
			nn_detail(error, "It must be %.0f or %.0f.", option->least, option->most);
			break;
		case NN_OPTION_BOOL:
			nn_detail(error, "It must be true or false.");
			break;
		case NN_OPTION_CHOICE:
			add_choices(option, &text);
			nn_detail(error, "It must be one of %s.", text.at ? text.at : "a few");
			break;
		case NN_OPTION_REAL:
			nn_detail(error, "It must be a number from %.7g to %.7g.", option->least, option->most);
			break;
		case NN_OPTION_STRING:
			nn_detail(error, "It must be a string of at most %.0f bytes.", option->most);
			break;
	}
	free(text.at);
	return NN_EINVAL;
}

NnStatus
nn_option_check(NnOptionId id, const NnConfig *config, const NnTrainOptions *options,
				NnError *error)
{
	const NnOption *option = &nn_options[id];
	const char *field =
		(const char *) (id < NN_OPTIONS ? (const void *) config : options) + option->offset;
	bool good = option->kind == NN_OPTION_STRING
					? memchr(field, '\0', (size_t) option->most + 1) != NULL
					: in_range(option, number_of(option, field));

	return good ? NN_OK : bad_value(id, error);
}

/* ---- Reading ------------------------------------------------------------- */

static bool
in_scope(NnOptionId id, NnOptionScope scope)
{
	switch (scope)
	{
		case NN_SCOPE_CREATE:
			return id < NN_OPTIONS || id == NN_OPT_INIT_TYPE || id == NN_OPT_INIT_GAIN ||
				   id == NN_OPT_SEED;
		case NN_SCOPE_TRAIN:
			return true;
		default:
			return id < NN_OPTIONS;
	}
}

/* The hint lists what there is; training's takes the model's too. */
static NnStatus
unknown_option(const char *key, NnOptionScope scope, NnError *error)
{
	bool training = scope == NN_SCOPE_TRAIN;
	NnText names = { 0 };

	nn_fail(error, NN_EINVAL, "unrecognized %s option \"%s\"", training ? "training" : "model",
			key);
	for (int id = training ? NN_OPTIONS : 0; id < NN_ALL_OPTIONS; id++)
		if (in_scope(id, scope))
			nn_text_add(&names, "%s%s", names.length > 0 ? ", " : "", nn_options[id].name);
	nn_hint(error,
			training ? "Options of training are: %s; and those of models."
					 : "Model options are: %s.",
			names.at ? names.at : "");
	free(names.at);
	return NN_EINVAL;
}

/* Of a run it is; a version that comes of it is of fp32. */
static NnStatus
tf32_of_a_model(NnError *error)
{
	nn_fail(error, NN_EINVAL, "models have no precision \"tf32\"");
	nn_detail(error, "Training on a GPU has it.");
	nn_hint(error, "Use precision fp32, bf16 or auto.");
	return NN_EINVAL;
}

NnStatus
nn_options_read(const json_t *object, NnOptionScope scope, NnConfig *config,
				NnTrainOptions *options, NnOptionSet *given, NnError *error)
{
	const char *key;
	json_t *json;

	memset(given, 0, sizeof(*given));
	/* the macro casts away const, and reads only */
	json_object_foreach((json_t *) object, key, json)
	{
		int id = 0;

		while (id < NN_ALL_OPTIONS && strcmp(nn_options[id].name, key) != 0)
			id++;
		if (id == NN_ALL_OPTIONS || !in_scope(id, scope))
			return unknown_option(key, scope, error);
		if (!nn_value_read(&nn_options[id], json, nn_option_field(id, config, options)))
			return bad_value(id, error);
		given->has[id] = true;
	}
	if (scope != NN_SCOPE_TRAIN && config->precision == NN_PRECISION_TF32)
		return tf32_of_a_model(error);
	return NN_OK;
}

NnStatus
nn_options_load(const char *json, size_t length, const char *what, json_t **object, NnError *error)
{
	json_error_t at;
	json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);

	/* jansson names every mistake, but mostly says nothing of memory */
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
nn_config_read(NnConfig *config, const char *json, size_t length, NnOptionSet *given,
			   NnError *error)
{
	NnConfig read = *config;
	json_t *object;
	NnStatus status = nn_options_load(json, length, "model", &object, error);

	memset(given, 0, sizeof(*given));
	if (status != NN_OK)
		return status;
	status = nn_options_read(object, NN_SCOPE_MODEL, &read, NULL, given, error);
	json_decref(object);
	if (status == NN_OK)
		*config = read;
	return status;
}

void
nn_config_follow(NnConfig *c, const NnOptionSet *given)
{
	bool resized = given->has[NN_OPT_SIZE] || given->has[NN_OPT_LEVELS];

	if (given->has[NN_OPT_SIZE] && !given->has[NN_OPT_LEVELS])
	{
		c->levels = (int) nn_options[NN_OPT_LEVELS].most;
		while (c->levels > nn_options[NN_OPT_LEVELS].least && c->size % (1 << c->levels) != 0)
			c->levels--;
	}
	if (given->has[NN_OPT_LEVELS] && !given->has[NN_OPT_SIZE])
		c->size = 1 << c->levels;
	if (c->family == NN_FAMILY_PIX2PIX && !given->has[NN_OPT_NZ])
		c->nz = 0;
	if (c->nz == 0 && !given->has[NN_OPT_WHERE_ADD])
		c->where_add = NN_ADD_INPUT;
	if (c->nz == 0 && !given->has[NN_OPT_NET_E])
		c->net_e = NN_ENCODER_NONE;
	if (given->has[NN_OPT_ENCODER_SIZE])
		return;
	if (c->net_e == NN_ENCODER_NONE)
		c->encoder_size = 0;
	else if (resized || c->encoder_size == 0)
		c->encoder_size = 1 << c->levels;
}

NnStatus
nn_config_parse(NnConfig *config, const char *json, size_t length, NnError *error)
{
	NnOptionSet given;
	json_t *object = NULL;
	NnStatus status = nn_options_load(json, length, "model", &object, error);
	bool metric;

	if (status != NN_OK)
		return status;
	metric = json_object_get(object, "lpips") != NULL;
	if (metric)
		status = nn_metric_read(config, object, error);
	json_decref(object);
	if (metric)
		return status;
	status = nn_config_read(config, json, length, &given, error);
	if (status == NN_OK)
		nn_config_follow(config, &given);
	return status;
}

/* ---- Documentation ------------------------------------------------------- */

static void
add_values(const NnOption *option, NnText *page)
{
	switch (option->kind)
	{
		case NN_OPTION_INT:
			nn_text_add(page, "%.0f to %.0f", option->least, option->most);
			break;
		case NN_OPTION_EITHER:
			nn_text_add(page, "%.0f or %.0f", option->least, option->most);
			break;
		case NN_OPTION_BOOL:
			nn_text_add(page, "true or false");
			break;
		case NN_OPTION_CHOICE:
			add_choices(option, page);
			break;
		case NN_OPTION_LONG:
			nn_text_add(page, "%.0f and above", option->least);
			break;
		case NN_OPTION_REAL:
			nn_text_add(page, "%.7g to %.7g", option->least, option->most);
			break;
		case NN_OPTION_STRING:
			nn_text_add(page, "up to %.0f bytes", option->most);
			break;
	}
}

char *
nn_options_describe(void)
{
	static const char head[] =
		"# Model options\n\n"
		"Keys of the `config` of `bicycle_import` and `bicycle_create`, and of the column\n"
		"`bicycle_models.config`. `bicycle_create` takes `init_type`, `init_gain` and `seed`\n"
		"besides. This page is made from the table of options in `src/nn/options.def`.\n\n"
		"| option | values | default | network | meaning |\n|---|---|---|---|---|\n";
	static const char training[] =
		"\n# Training options\n\n"
		"Keys of the `options` of `bicycle_train`, which takes the model options too. Each\n"
		"method changes some of the defaults; what is given explicitly stands.\n\n"
		"| option | values | default | part | meaning |\n|---|---|---|---|---|\n";
	NnConfig config;
	NnTrainOptions options;
	NnText page = { 0 };

	nn_text_add(&page, "%s", head);
	for (int id = 0; id < NN_ALL_OPTIONS; id++)
	{
		const NnOption *option = &nn_options[id];
		void *field = nn_option_field(id, &config, &options);

		if (id == NN_OPTIONS)
			nn_text_add(&page, "%s", training);
		nn_text_add(&page, "| `%s` | ", option->name);
		add_values(option, &page);
		nn_value_reset(option, field);
		nn_text_add(&page, " | ");
		nn_value_print(option, field, &page);
		nn_text_add(&page, " | %s | %s |\n", option->part, option->help);
	}
	return page.at;
}

/* ---- What the fields demand of each other -------------------------------- */

/* The hint has the nearest sizes on either side; the largest is one of all. */
static NnStatus
size_mismatch(const NnConfig *c, NnError *error)
{
	int unit = 1 << c->levels, below = c->size / unit * unit;
	char or_below[32] = "";

	if (below > 0)
		snprintf(or_below, sizeof(or_below), "%d or ", below);
	nn_fail(error, NN_EINVAL, "size %d does not suit a generator of %d levels", c->size, c->levels);
	nn_detail(error, "The image is halved %d times, so its size must be a multiple of %d.",
			  c->levels, unit);
	nn_hint(error, "Choose size %s%d, or leave size out to use the generator's nominal size.",
			or_below, below + unit);
	return NN_EINVAL;
}

static NnStatus
check_generator(const NnConfig *c, NnError *error)
{
	if (c->size % (1 << c->levels) != 0)
		return size_mismatch(c, error);
	if (c->nz == 0 && c->where_add == NN_ADD_ALL)
	{
		nn_fail(error, NN_EINVAL, "where_add \"all\" needs a latent code");
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Set where_add to \"input\".");
		return NN_EINVAL;
	}
	return NN_OK;
}

/* What the official pix2pix has no choice of. */
static NnStatus
check_family(const NnConfig *c, NnError *error)
{
	bool pix2pix = c->family == NN_FAMILY_PIX2PIX;
	const char *wrong = NULL;

	if (pix2pix && c->nz != 0)
		wrong = "nz is not 0: they take no latent code";
	else if (pix2pix && (c->where_add != NN_ADD_INPUT || c->net_e != NN_ENCODER_NONE))
		wrong = "where_add is not \"input\", or net_e not \"none\"";
	else if (pix2pix && (c->nl != NN_ACT_RELU || c->upsample != NN_UPSAMPLE_BASIC))
		wrong = "nl is not \"relu\", or upsample not \"basic\"";
	else if (!pix2pix && (c->statistics != NN_STATISTICS_STORED || c->test_dropout != 0))
		wrong = "statistics and test_dropout are of family \"pix2pix\" only";
	else if (c->statistics != NN_STATISTICS_STORED && c->norm != NN_NORM_BATCH)
		wrong = "statistics are of norm \"batch\" only";
	if (wrong == NULL)
		return NN_OK;
	nn_fail(error, NN_EINVAL, "model options do not suit a generator of family \"%s\"",
			pix2pix ? "pix2pix" : "bicycle");
	nn_detail(error, "In the configuration %s.", wrong);
	return NN_EINVAL;
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

	if (config->metric != NN_METRIC_NONE)
		return NN_OK; /* it has no other than nn_metric_config makes */
	for (int id = 0; id < NN_OPTIONS; id++)
		if (nn_option_check(id, config, NULL, error) != NN_OK)
			return NN_EINVAL;
	status = check_generator(config, error);
	if (status == NN_OK)
		status = check_family(config, error);
	if (status == NN_OK)
		status = check_encoder(config, error);
	if (status == NN_OK)
		status = check_discriminator(config, error);
	return status;
}
