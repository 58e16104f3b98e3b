/*
 * Proves that model options are read, checked and printed by their one table,
 * and that a configuration is inferred from names and shapes of tensors, with
 * errors that name what is wrong.
 *
 * With the argument --options it prints doc/options.md instead, which must be
 * the table's page.
 */
#include "nn/config.h"
#include "tap.h"
#include "testdata.h"

static NnError error;

/* Whether the last error's three texts hold these pieces. */
static bool
error_is(NnStatus status, const char *message, const char *detail, const char *hint)
{
	bool good = status == NN_EINVAL && strstr(error.message, message) &&
				strstr(error.detail, detail) && strstr(error.hint, hint);

	if (!good)
		diag("status %d, message \"%s\", detail \"%s\", hint \"%s\"", status, error.message,
			 error.detail, error.hint);
	return good;
}

static bool
succeeds(NnStatus status)
{
	if (status != NN_OK)
		diag("%s: %s %s", error.message, error.detail, error.hint);
	return status == NN_OK;
}

static NnStatus
parse(NnConfig *config, const char *json)
{
	memset(&error, 0, sizeof(error));
	return nn_config_parse(config, json, strlen(json), &error);
}

static bool
prints(const NnConfig *config, const char *expected)
{
	char *text = nn_config_print(config);
	bool same = strcmp(text, expected) == 0;

	if (!same)
		diag("%s", text);
	free(text);
	return same;
}

/* ---- Reading, checking, printing ----------------------------------------- */

static void
test_round_trip(void)
{
	static const char defaults[] =
		"{\"size\":256,\"levels\":8,\"input_nc\":3,\"output_nc\":3,\"nz\":8,\"ngf\":64,\"nef\":64,"
		"\"ndf\":64,\"where_add\":\"all\",\"upsample\":\"basic\","
		"\"norm\":\"instance\",\"nl\":\"relu\",\"net_e\":\"resnet\",\"encoder_size\":256,\"num_"
		"ds\":2,\"conditional_d\":false,\"precision\":\"auto\"}";
	static const char other[] =
		"{\"size\":1024,\"levels\":9,\"input_nc\":1,\"output_nc\":1,\"nz\":3,\"ngf\":5,\"nef\":6,"
		"\"ndf\":7,\"where_add\":\"input\",\"upsample\":\"bilinear\","
		"\"norm\":\"batch\",\"nl\":\"elu\",\"net_e\":\"conv\",\"encoder_size\":128,\"num_ds\":3,"
		"\"conditional_d\":true,\"precision\":\"bf16\"}";
	NnConfig config;

	nn_config_default(&config);
	ok(prints(&config, defaults), "the defaults are the official code's");
	ok(succeeds(parse(&config, "{}")) && prints(&config, defaults),
	   "an empty object changes nothing");
	ok(succeeds(parse(&config, other)) && prints(&config, other),
	   "what is printed is read back, every option with another value");
	ok(succeeds(nn_config_check(&config, &error)), "and is consistent");
	ok(succeeds(parse(&config, "{\"nl\": \"lrelu\", \"nz\": 4}")) && config.nl == NN_ACT_LRELU &&
		   config.nz == 4 && config.ngf == 5,
	   "options are read over the values there are");
}

/*
 * Texts as they are stored, one for each `since` of options.def: with all
 * options up to it, those of it at another value than their default. A text of
 * an earlier one never changes, or the hashes of stored models would.
 */
static void
test_generations(void)
{
#define FIRST                                                                                 \
	"{\"size\":128,\"levels\":7,\"input_nc\":1,\"output_nc\":1,\"nz\":3,\"ngf\":5,\"nef\":6," \
	"\"ndf\":7,\"where_add\":\"input\",\"upsample\":\"bilinear\",\"norm\":\"batch\","         \
	"\"nl\":\"elu\",\"net_e\":\"conv\",\"encoder_size\":64,\"num_ds\":3,"                     \
	"\"conditional_d\":true,\"precision\":\"bf16\""
	static const char *const texts[] = {
		FIRST "}",
		FIRST "}", /* there is no 1 */
		FIRST
		",\"fit\":\"input\",\"alpha\":\"drop\",\"family\":\"pix2pix\",\"statistics\":\"image\","
		"\"test_dropout\":5}",
	};
	const int generations = (int) (sizeof(texts) / sizeof(texts[0]));
	bool good = true;

	for (int id = 0; id < NN_OPTIONS; id++)
		good &= nn_options[id].since < generations &&
				(id == 0 || nn_options[id - 1].since <= nn_options[id].since);
	ok(good, "options joined in the order of the table, and each generation has a text here");
	for (int i = 0; i < generations; i++)
	{
		NnConfig c;
		bool differ = true;

		nn_config_default(&c);
		ok(succeeds(parse(&c, texts[i])) && prints(&c, texts[i]), "the text of %d stays", i);
		for (int id = 0; id < NN_OPTIONS; id++)
			if (nn_options[id].since == i &&
				nn_value_is_initial(&nn_options[id], nn_option_field(id, &c, NULL)))
			{
				diag("%s has its default in the text of %d", nn_options[id].name, i);
				differ = false;
			}
		ok(differ, "and has all options of it");
	}
}

/* ---- Kinds --------------------------------------------------------------- */

static const NnOption title = {
	.name = "title",
	.kind = NN_OPTION_STRING,
	.since = 1,
	.most = 8,
};

/* Whether a STRING reads as, and prints as, these. */
static bool
string_is(const char *json, const char *value, const char *printed)
{
	char field[9];
	json_t *read = json_loads(json, JSON_DECODE_ANY, NULL);
	NnText text = { 0 };
	bool good;

	memset(field, 'x', sizeof(field));
	good = nn_value_read(&title, read, field) && strcmp(field, value) == 0;
	nn_value_print(&title, field, &text);
	good = good && text.at && strcmp(text.at, printed) == 0;
	free(text.at);
	json_decref(read);
	return good;
}

static void
test_kinds(void)
{
	char field[9] = "before";
	json_t *wrong[] = { json_string("nine long"), json_integer(1), json_null() };
	NnOption number = { .name = "number", .kind = NN_OPTION_INT, .initial = 7, .most = 9 };
	int seven = 7, eight = 8;
	bool refused = true;

	ok(string_is("\"\"", "", "\"\"") && string_is("\"8 bytes!\"", "8 bytes!", "\"8 bytes!\"") &&
		   string_is("\"a\\\"\\n\"", "a\"\n", "\"a\\\"\\n\""),
	   "a string is read, and printed as JSON");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		refused &= !nn_value_read(&title, wrong[i], field);
		json_decref(wrong[i]);
	}
	ok(refused && strcmp(field, "before") == 0,
	   "one that is too long, and what is none, leaves the value as it is");
	ok(nn_value_is_printed(&title, "a") && !nn_value_is_printed(&title, "") &&
		   nn_value_is_printed(&number, &seven),
	   "an option that joined later is printed if it is not empty");
	number.since = 1;
	ok(!nn_value_is_printed(&number, &seven) && nn_value_is_printed(&number, &eight),
	   "or has another value than its default");
}

static void
test_long_texts(void)
{
	NnText text = { 0 };

	for (int i = 0; i < 1000; i++)
		nn_text_add(&text, "%04d", i);
	ok(text.length == 4000 && strncmp(text.at + 3992, "09980999", 9) == 0, "a text grows");
	free(text.at);
}

static void
test_following(void)
{
	NnConfig c;

	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"size\":128}")) && c.levels == 7 && c.encoder_size == 128,
	   "levels and encoder follow a size of 128");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"size\":512}")) && c.levels == 9 && c.encoder_size == 512,
	   "and of 512");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"size\":384}")) && c.levels == 7 && c.encoder_size == 128,
	   "and of 384");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"size\":512,\"levels\":8}")) && c.levels == 8 && c.encoder_size == 256,
	   "given levels stand, and E is of their size");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"levels\":6}")) && c.size == 64 && c.encoder_size == 64,
	   "size follows levels");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"size\":128,\"encoder_size\":256}")) && c.encoder_size == 256,
	   "a given encoder_size stands");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"net_e\":\"none\"}")) && c.encoder_size == 0,
	   "no encoder has no size");
	ok(succeeds(parse(&c, "{\"net_e\":\"conv\"}")) && c.encoder_size == 256,
	   "an encoder added has one");
	nn_config_default(&c);
	ok(succeeds(parse(&c, "{\"nz\":0}")) && c.where_add == NN_ADD_INPUT &&
		   c.net_e == NN_ENCODER_NONE && succeeds(nn_config_check(&c, &error)),
	   "without a latent code there is no encoder and where_add is input, as in the official code");
}

static void
test_bad_options(void)
{
	static const struct
	{
		const char *json, *message, *detail, *hint;
	} bad[] = {
		{ "{\"siez\":256}", "unrecognized model option \"siez\"", "", "size, levels, input_nc" },
		{ "{\"size\":256,\"size\":128}", "not valid JSON", "duplicate", "" },
		{ "{\"size\":256", "not valid JSON", "At byte", "" },
		{ "", "not valid JSON", "", "" },
		{ "[1]", "must be a JSON object", "", "" },
		{ "null", "must be a JSON object", "", "" },
		{ "{\"size\":\"256\"}", "invalid value for model option \"size\"",
		  "an integer from 64 to 4096", "" },
		{ "{\"size\":256.5}", "invalid value for model option \"size\"",
		  "an integer from 64 to 4096", "" },
		{ "{\"size\":8192}", "invalid value for model option \"size\"",
		  "an integer from 64 to 4096", "" },
		{ "{\"size\":4294967552}", "invalid value for model option \"size\"",
		  "an integer from 64 to 4096", "" },
		{ "{\"levels\":5}", "invalid value for model option \"levels\"", "from 6 to 9", "" },
		{ "{\"input_nc\":2}", "invalid value for model option \"input_nc\"", "It must be 1 or 3.",
		  "" },
		{ "{\"nz\":-1}", "invalid value for model option \"nz\"", "from 0 to 1024", "" },
		{ "{\"conditional_d\":1}", "invalid value for model option \"conditional_d\"",
		  "true or false", "" },
		{ "{\"where_add\":\"middle\"}", "invalid value for model option \"where_add\"",
		  "\"all\", \"input\"", "" },
		{ "{\"nl\":3}", "invalid value for model option \"nl\"", "\"relu\", \"lrelu\", \"elu\"",
		  "" },
		{ "{\"precision\":null}", "invalid value for model option \"precision\"",
		  "\"auto\", \"fp32\", \"bf16\"", "" },
		{ "{\"precision\":\"tf32\"}", "models have no precision \"tf32\"", "Training on a GPU",
		  "fp32, bf16 or auto" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NnConfig config, before;

		nn_config_default(&config);
		before = config;
		ok(error_is(parse(&config, bad[i].json), bad[i].message, bad[i].detail, bad[i].hint) &&
			   memcmp(&config, &before, sizeof(config)) == 0,
		   "refused: %s", bad[i].json);
	}
}

static void
test_long_name(void)
{
	char json[2048] = "{\"";
	NnConfig config;
	size_t length;

	for (int i = 0; i < 300; i++)
		strcat(json, "\xc3\xa4");
	strcat(json, "\":1}");
	nn_config_default(&config);
	parse(&config, json);
	length = strlen(error.message);
	ok(length >= 250 && length < sizeof(error.message) &&
		   (unsigned char) error.message[length - 1] == 0xa4,
	   "a long name is cut between characters");
}

static void
test_inconsistent(void)
{
	static const struct
	{
		const char *json, *message, *detail, *hint;
	} bad[] = {
		{ "{\"size\":300}", "size 300 does not suit a generator of 6 levels", "a multiple of 64",
		  "Choose size 256 or 320, or leave size out" },
		{ "{\"size\":4095,\"net_e\":\"none\"}", "size 4095 does not suit a generator of 6 levels",
		  "a multiple of 64", "Choose size 4032 or 4096, or" },
		{ "{\"size\":128,\"levels\":8}", "size 128 does not suit a generator of 8 levels",
		  "halved 8 times", "Choose size 256, or" },
		{ "{\"nz\":0,\"where_add\":\"all\"}", "where_add \"all\" needs a latent code", "nz is 0",
		  "\"input\"" },
		{ "{\"nz\":0,\"net_e\":\"conv\"}", "an encoder needs a latent code", "nz is 0",
		  "\"none\"" },
		{ "{\"encoder_size\":96}", "invalid value for model option \"encoder_size\"",
		  "64, 128, 256 or 512", "" },
		{ "{\"encoder_size\":0}", "invalid value for model option \"encoder_size\"",
		  "64, 128, 256 or 512", "" },
		{ "{\"net_e\":\"none\",\"encoder_size\":256}", "encoder_size 256 without an encoder",
		  "net_e is \"none\"", "" },
		{ "{\"size\":64,\"num_ds\":4}", "num_ds 4 is too large",
		  "images of 8 x 8, which leaves a norm over a single element", "fewer scales" },
		{ "{\"size\":64,\"num_ds\":4,\"norm\":\"none\"}", "num_ds 4 is too large",
		  "images of 8 x 8, which leaves no map", "fewer scales" },
		{ "{\"ndf\":1,\"num_ds\":3}", "num_ds 3 is too large", "which leaves no channel",
		  "fewer scales" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NnConfig config;

		nn_config_default(&config);
		ok(succeeds(parse(&config, bad[i].json)) &&
			   error_is(nn_config_check(&config, &error), bad[i].message, bad[i].detail,
						bad[i].hint),
		   "inconsistent: %s", bad[i].json);
	}
}

/* ---- Inference from tensors ---------------------------------------------- */

/*
 * Names and shapes of the networks of a configuration, as tensors without data.
 */
typedef struct File
{
	NnParams params;
	NnTensor tensors[300];
	int n;
} File;

static void
add_tensor(File *file, const char *name, NnNetwork network, NnDtype dtype, int ndim,
		   const int64_t *shape)
{
	NnTensor *t = &file->tensors[file->n++];

	*t = (NnTensor){ .name = name, .network = network, .dtype = dtype, .ndim = ndim };
	for (int i = 0; i < ndim; i++)
		t->shape[i] = shape[i];
}

static bool
make_file(File *file, const NnConfig *config, unsigned mask)
{
	file->n = 0;
	if (!succeeds(nn_params_of(config, mask, &file->params, &error)))
		return false;
	for (int i = 0; i < file->params.n; i++)
	{
		NnParam *p = &file->params.list[i];

		add_tensor(file, p->name, p->network, p->integer ? NN_I64 : NN_F32, p->ndim, p->shape);
	}
	return true;
}

static NnStatus
infer(NnConfig *config, const char *json, const File *file, bool *keep)
{
	memset(&error, 0, sizeof(error));
	return nn_config_infer(config, json, strlen(json), file->tensors, file->n, keep, NULL, &error);
}

/*
 * Every combination of the options that names and shapes show is found again.
 * Options are told to nn_config_infer only where they cannot be seen: nl
 * always, norm none in a generator of where_add all without an encoder, nz in
 * one of where_add input without one.
 */
static void
test_combinations(void)
{
	static const char *const where_adds[] = { "all", "input" },
							 *const upsamples[] = { "basic", "bilinear" },
							 *const norms[] = { "instance", "batch", "none" },
							 *const net_es[] = { "resnet", "conv", "none" };
	int tried = 0, found = 0;

	for (int i = 0; i < 2 * 2 * 3 * 3 * 4; i++)
	{
		const char *where_add = where_adds[i % 2], *upsample = upsamples[i / 2 % 2],
				   *norm = norms[i / 4 % 3], *net_e = net_es[i / 12 % 3];
		int levels = 6 + i / 36;
		char json[512], say[128] = "{}";
		NnConfig made, inferred;
		File file;
		char *a, *b;

		snprintf(json, sizeof(json),
				 "{\"levels\":%d,\"where_add\":\"%s\",\"upsample\":\"%s\",\"norm\":\"%s\",\"net_"
				 "e\":\"%s\",\"nz\":%d,\"ngf\":%d,"
				 "\"input_nc\":%d,\"output_nc\":%d}",
				 levels, where_add, upsample, norm, net_e, 1 + i % 5, 4 + i % 7, i % 4 < 2 ? 1 : 3,
				 i % 3 ? 3 : 1);
		if (strcmp(net_e, "none") == 0)
		{
			if (strcmp(where_add, "input") == 0)
				snprintf(say, sizeof(say), "{\"nz\":%d}", 1 + i % 5);
			else if (strcmp(norm, "none") == 0)
				snprintf(say, sizeof(say), "{\"norm\":\"none\"}");
		}
		nn_config_default(&made);
		if (!succeeds(parse(&made, json)) ||
			!make_file(&file, &made, 1u << NN_NET_G | 1u << NN_NET_E))
			continue;
		tried++;
		if (!succeeds(infer(&inferred, say, &file, NULL)))
		{
			diag("%s", json);
			nn_params_free(&file.params);
			continue;
		}
		a = nn_config_print(&made);
		b = nn_config_print(&inferred);
		if (strcmp(a, b) == 0)
			found++;
		else
			diag("made %s, inferred %s", a, b);
		free(a);
		free(b);
		nn_params_free(&file.params);
	}
	ok(tried == 144 && found == 144, "%d of %d configurations are inferred from their tensors",
	   found, tried);
}

/* A file of the official defaults, or of what `json` says. */
static bool
file_of(File *file, const char *json, unsigned mask)
{
	NnConfig config;

	nn_config_default(&config);
	return succeeds(parse(&config, json)) && make_file(file, &config, mask);
}

/*
 * What all names begin with is found in front of the official ones, of whatever
 * words it is, also of words that occur in those.
 */
static void
test_prefixes(void)
{
	static const char *const prefixes[] = { "",
											"module.",
											"_orig_mod.",
											"netG.",
											"module.module.",
											"netG._orig_mod.module.",
											"model.",
											"model.model.",
											"down.0.",
											"fc.",
											NULL };
	static const char *const models[] = { "{}", "{\"where_add\":\"input\"}", "{\"net_e\":\"conv\"}",
										  NULL };
	File file;
	char names[300][300];
	int tried = 0, found = 0;

	for (const char *const *model = models; *model; model++)
		for (const char *const *prefix = prefixes; *prefix; prefix++)
		{
			int n = (int) strlen(*prefix);

			if (!file_of(&file, *model, 1u << NN_NET_G | 1u << NN_NET_E))
				return;
			for (int i = 0; i < file.n; i++)
			{
				snprintf(names[i], sizeof(names[i]), "%s%s", *prefix, file.tensors[i].name);
				file.tensors[i].name = names[i];
			}
			tried++;
			found += nn_names_prefix(file.tensors, file.n, NN_NET_G) == n &&
					 nn_names_prefix(file.tensors, file.n, NN_NET_E) == n;
			/* one of another network, and there is no prefix */
			names[3][0] = 'X';
			found -= n > 0 && nn_names_prefix(file.tensors, file.n, NN_NET_G) != 0;
			nn_params_free(&file.params);
		}
	ok(found == tried && tried == 30, "%d of %d prefixes are found", found, tried);
}

/* Names of a network among others, and of norms that multiply weights. */
static void
test_odd_names(void)
{
	static const struct
	{
		const char *name, *message, *detail, *hint;
	} cases[] = {
		{ "netG.model.down.0.weight", "not those of a BicycleGAN generator", "begin with \"netG.\"",
		  "{\"entry\": \"netG\"}" },
		{ "model.down.0.weight_orig", "under spectral norm", "weight_orig",
		  "remove_spectral_norm" },
		{ "model.down.0.weight_g", "under weight norm", "weight_g", "remove_weight_norm" },
		{ "model.down.0.parametrizations.weight.0._u", "under spectral norm", "_u",
		  "remove_parametrizations" },
		{ "model.down.0.parametrizations.weight.original0", "under weight norm", "original0",
		  "remove_parametrizations" },
	};
	File file;
	NnConfig config;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		if (!file_of(&file, "{}", 1u << NN_NET_G))
			return;
		file.tensors[0].name = cases[i].name;
		ok(error_is(infer(&config, "{}", &file, NULL), cases[i].message, cases[i].detail,
					cases[i].hint),
		   "%s", cases[i].name);
		nn_params_free(&file.params);
	}
}

/*
 * Generators of pix2pix are known by what only they have, or have to be told;
 * and what neither tensors nor the user tell is listed.
 */
static void
test_families(void)
{
	static const struct
	{
		const char *made, *said, *family, *norm, *assumed;
		bool encoder;
	} cases[] = {
		{ "{\"family\":\"pix2pix\",\"norm\":\"batch\"}", "{}", "pix2pix", "batch",
		  "{\"statistics\": \"stored\", \"test_dropout\": 0}" },
		{ "{\"family\":\"pix2pix\",\"norm\":\"batch\"}",
		  "{\"statistics\":\"image\",\"test_dropout\":1}", "pix2pix", "batch", NULL },
		{ "{\"family\":\"pix2pix\",\"norm\":\"none\"}", "{}", "pix2pix", "none",
		  "{\"test_dropout\": 0}" },
		{ "{\"family\":\"pix2pix\",\"norm\":\"instance\"}", "{\"family\":\"pix2pix\"}", "pix2pix",
		  "instance", "{\"test_dropout\": 0}" },
		{ "{\"family\":\"pix2pix\",\"norm\":\"instance\"}", "{\"nz\":0}", "bicycle", "instance",
		  "{\"nl\": \"relu\", \"family\": \"bicycle\"}" },
		{ "{\"nz\":0,\"norm\":\"instance\"}", "{\"nz\":0,\"nl\":\"relu\"}", "bicycle", "instance",
		  "{\"family\": \"bicycle\"}" },
		{ "{\"nz\":0,\"norm\":\"batch\"}", "{\"nz\":0}", "bicycle", "batch", "{\"nl\": \"relu\"}" },
		{ "{\"where_add\":\"input\",\"net_e\":\"none\"}", "{\"nz\":8}", "bicycle", "instance",
		  "{\"nl\": \"relu\"}" },
		{ "{\"net_e\":\"none\"}", "{}", "bicycle", "instance",
		  "{\"norm\": \"instance\", \"nl\": \"relu\"}" },
		{ "{\"net_e\":\"none\",\"norm\":\"batch\"}", "{\"nl\":\"elu\"}", "bicycle", "batch", NULL },
		{ "{}", "{}", "bicycle", "instance", "{\"nl\": \"relu\"}", true },
		{ "{\"net_e\":\"conv\"}", "{}", "bicycle", "instance", "{\"nl\": \"relu\"}", true },
		{ "{\"norm\":\"none\"}", "{}", "bicycle", "none", "{\"nl\": \"relu\"}", true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		static const char *const families[] = { "bicycle", "pix2pix" }, *const norms[] = {
			"instance", "batch", "none"
		};
		File file;
		NnConfig config;
		char *assumed = NULL;
		bool good;

		if (!file_of(&file, cases[i].made,
					 1u << NN_NET_G | (unsigned) cases[i].encoder << NN_NET_E))
			return;
		good = succeeds(nn_config_infer(&config, cases[i].said, strlen(cases[i].said), file.tensors,
										file.n, NULL, &assumed, &error));
		ok(good && strcmp(families[config.family], cases[i].family) == 0 &&
			   strcmp(norms[config.norm], cases[i].norm) == 0 &&
			   (cases[i].assumed ? assumed && strcmp(assumed, cases[i].assumed) == 0 : !assumed),
		   "made %s%s, told %s: assumed %s", cases[i].made,
		   cases[i].encoder ? " with its encoder" : "", cases[i].said,
		   assumed ? assumed : "nothing");
		free(assumed);
		nn_params_free(&file.params);
	}
}

static void
test_leftovers(void)
{
	static const int64_t c64[] = { 64 }, c128[] = { 128 };
	File file;
	NnConfig config;
	bool keep[300];
	bool kept = true;

	if (!file_of(&file, "{}", 1u << NN_NET_G | 1u << NN_NET_E))
		return;
	add_tensor(&file, "model.submodule.down.2.running_mean", NN_NET_G, NN_F32, 1, c128);
	add_tensor(&file, "model.submodule.down.2.num_batches_tracked", NN_NET_G, NN_I64, 0, NULL);
	add_tensor(&file, "conv.1.conv.0.running_var", NN_NET_E, NN_F32, 1, c64);
	add_tensor(&file, "model_0.0.weight", NN_NET_D, NN_F32, 1, c64);
	ok(succeeds(infer(&config, "{}", &file, keep)) && config.norm == NN_NORM_INSTANCE,
	   "statistics that old instance norms kept are dropped, and so is D");
	for (int i = 0; i < file.n; i++)
		kept &= keep[i] == (i < file.params.n);
	ok(kept, "keep tells them apart");
	add_tensor(&file, "model.submodule.down.1.running_mean", NN_NET_G, NN_F32, 1, c128);
	ok(error_is(infer(&config, "{}", &file, keep), "do not fit",
				"Unexpected: model.submodule.down.1.running_mean.", "\"levels\":8"),
	   "but not those of a layer that is no norm");
	nn_params_free(&file.params);
}

static void
test_mismatches(void)
{
	static const int64_t three[] = { 3 };
	File file;
	NnConfig config;

	if (!file_of(&file, "{}", 1u << NN_NET_G | 1u << NN_NET_E))
		return;
	file.tensors[3].name = "model.submodule.down.1.bais";
	file.tensors[5].shape[0] = 255;
	file.tensors[9].dtype = NN_I32;
	ok(error_is(infer(&config, "{}", &file, NULL), "tensors do not fit the networks",
				"Missing: model.submodule.down.1.bias.", "\"ngf\":64") &&
		   strstr(error.detail, "Unexpected: model.submodule.down.1.bais.") &&
		   strstr(error.detail, "model.submodule.submodule.down.1.bias is (255), not (256)") &&
		   strstr(error.detail, "down.1.bias is of type I32."),
	   "a missing, an unexpected and two misshapen tensors are named");
	for (int i = 2; i < 30; i++)
		if (!strstr(file.tensors[i].name, "down.1.weight"))
			file.tensors[i].name = "what.is.this";
	ok(error_is(infer(&config, "{}", &file, NULL), "tensors do not fit the networks",
				" more. Unexpected: what.is.this, what.is.this", ""),
	   "the first of many are named and the rest are counted");
	nn_params_free(&file.params);

	if (!file_of(&file, "{}", 1u << NN_NET_G | 1u << NN_NET_E))
		return;
	add_tensor(&file, "model.up.1.bias", NN_NET_G, NN_F32, 1, three);
	ok(error_is(infer(&config, "{}", &file, NULL), "tensors do not fit the networks",
				"Unexpected: model.up.1.bias.", ""),
	   "a tensor that is there twice is refused");
	nn_params_free(&file.params);
}

static void
test_contradictions(void)
{
	static const struct
	{
		const char *model, *json, *message, *detail, *hint;
	} bad[] = {
		{ "{\"family\":\"pix2pix\",\"norm\":\"batch\"}", "{\"family\":\"bicycle\"}",
		  "model option \"family\" contradicts", "say \"pix2pix\"", "Leave" },
		{ "{\"nz\":0,\"norm\":\"batch\"}", "{\"nz\":0,\"family\":\"pix2pix\"}",
		  "model option \"family\" contradicts", "say \"bicycle\"", "Leave" },
		{ "{\"family\":\"pix2pix\",\"norm\":\"batch\"}", "{\"nl\":\"elu\"}",
		  "model option \"nl\" contradicts", "say \"relu\"", "Leave" },
		{ "{\"family\":\"pix2pix\",\"norm\":\"instance\"}",
		  "{\"family\":\"pix2pix\",\"statistics\":\"image\"}", "do not suit", "norm \"batch\" only",
		  "" },
		{ "{}", "{\"ngf\":32}", "model option \"ngf\" contradicts",
		  "The option is 32, but names and shapes of the tensors say 64.", "Leave" },
		{ "{}", "{\"where_add\":\"input\"}", "model option \"where_add\" contradicts",
		  "\"input\", but names and shapes of the tensors say \"all\"", "" },
		{ "{}", "{\"norm\":\"batch\"}", "model option \"norm\" contradicts", "say \"instance\"",
		  "" },
		{ "{\"net_e\":\"none\"}", "{\"norm\":\"batch\"}", "model option \"norm\" contradicts",
		  "no tensors of batch norms", "" },
		{ "{\"norm\":\"batch\"}", "{\"norm\":\"instance\"}", "model option \"norm\" contradicts",
		  "say \"batch\"", "" },
		{ "{}", "{\"nz\":9}", "model option \"nz\" contradicts", "say 8", "" },
		{ "{}", "{\"input_nc\":1}", "model option \"input_nc\" contradicts", "say 3", "" },
		{ "{\"net_e\":\"none\"}", "{\"net_e\":\"conv\"}", "model option \"net_e\" contradicts",
		  "say \"none\"", "" },
		{ "{}", "{\"size\":128}", "size 128 does not suit", "multiple of 256", "256" },
		{ "{\"net_e\":\"none\",\"where_add\":\"input\"}", "{}", "length of the latent code",
		  "takes 11 channels", "\"nz\" or \"input_nc\"" },
		{ "{\"net_e\":\"none\",\"where_add\":\"input\"}", "{\"nz\":9}", "\"input_nc\"", "1 or 3",
		  "" },
		{ "{\"net_e\":\"none\",\"where_add\":\"input\"}", "{\"nz\":8,\"input_nc\":1}",
		  "model option \"input_nc\" contradicts", "say 3", "" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		File file;
		NnConfig config;

		if (!file_of(&file, bad[i].model, 1u << NN_NET_G | 1u << NN_NET_E))
			continue;
		ok(error_is(infer(&config, bad[i].json, &file, NULL), bad[i].message, bad[i].detail,
					bad[i].hint),
		   "%s said of %s", bad[i].json, bad[i].model);
		nn_params_free(&file.params);
	}
}

static void
test_open_choices(void)
{
	File file;
	NnConfig c;

	if (!file_of(&file, "{\"net_e\":\"none\",\"where_add\":\"input\",\"nz\":10,\"input_nc\":1}",
				 1u << NN_NET_G))
		return;
	ok(succeeds(infer(&c, "{\"input_nc\":1}", &file, NULL)) && c.nz == 10,
	   "where_add input without E: nz from input_nc");
	ok(succeeds(infer(&c, "{\"nz\":8}", &file, NULL)) && c.input_nc == 3, "and input_nc from nz");
	nn_params_free(&file.params);
	if (!file_of(&file, "{}", 1u << NN_NET_G | 1u << NN_NET_E))
		return;
	ok(succeeds(infer(&c, "{\"size\":512,\"nl\":\"elu\",\"precision\":\"bf16\"}", &file, NULL)) &&
		   c.size == 512 && c.levels == 8 && c.encoder_size == 256 && c.nl == NN_ACT_ELU &&
		   c.precision == NN_PRECISION_BF16,
	   "size, nl and precision are what the user says");
	nn_params_free(&file.params);
	if (!file_of(&file, "{\"net_e\":\"none\",\"where_add\":\"input\",\"nz\":0}", 1u << NN_NET_G))
		return;
	ok(succeeds(infer(&c, "{\"nz\":0}", &file, NULL)) && c.nz == 0 && c.input_nc == 3,
	   "a generator without a latent code");
	nn_params_free(&file.params);
}

static void
test_not_models(void)
{
	static const int64_t shape[] = { 64, 3, 7, 7 };
	File file = { 0 };
	NnConfig config;

	ok(error_is(infer(&config, "{}", &file, NULL), "not those of a BicycleGAN generator",
				"model.down.0.weight", "netG"),
	   "no tensors at all");
	add_tensor(&file, "model.1.weight", NN_NET_G, NN_F32, 4, shape);
	ok(error_is(infer(&config, "{}", &file, NULL), "not those of a BicycleGAN generator",
				"model.down.0.weight", "netG"),
	   "another network");
	add_tensor(&file, "model.down.0.weight", NN_NET_G, NN_F32, 4, shape);
	ok(error_is(infer(&config, "{}", &file, NULL), "unsupported number of levels", "of 1; 6 to 9",
				""),
	   "too few levels");
	if (!file_of(&file, "{\"net_e\":\"none\"}", 1u << NN_NET_G))
		return;
	add_tensor(&file, "model.1.weight", NN_NET_E, NN_F32, 4, shape);
	ok(error_is(infer(&config, "{}", &file, NULL), "not those of a BicycleGAN encoder",
				"conv.0.weight", "netE"),
	   "another network as encoder");
	file.n--;
	file.tensors[0].ndim = 2;
	ok(infer(&config, "{}", &file, NULL) == NN_EINVAL, "a first layer of two dimensions");
	nn_params_free(&file.params);
}

/*
 * One to three changes to names, shapes, types and networks of a file's
 * tensors.
 */
static void
mutate(File *file, uint64_t *state)
{
	static const int64_t extents[] = {
		0, 1, 3, 5, 8, 64, 1 << 20, 1 << 21, INT64_MAX, -1, INT64_MIN
	};
	static const char *const names[] = { "model.model.0.weight",
										 "model.down.0.weight",
										 "model.up.3.weight",
										 "conv.1.shortcut.1.weight",
										 "fc.0.weight",
										 "",
										 "conv.4.weight",
										 "model.submodule.down.2.weight",
										 "model.model.1.model.3.model.1.weight",
										 "model.submodule.down.2.running_mean" };

	for (uint64_t n = testdata_random(state) % 3 + 1; n > 0; n--)
	{
		NnTensor *t = &file->tensors[testdata_random(state) % file->n];

		switch (testdata_random(state) % 7)
		{
			case 0:
				t->name = names[testdata_random(state) % (sizeof(names) / sizeof(names[0]))];
				break;
			case 1:
				t->shape[testdata_random(state) % 4] =
					extents[testdata_random(state) % (sizeof(extents) / sizeof(extents[0]))];
				break;
			case 2:
				t->ndim = (int) (testdata_random(state) % (NN_MAX_DIMS + 1));
				break;
			case 3:
				t->dtype = (NnDtype) (testdata_random(state) % (NN_U8 + 1));
				break;
			case 4:
				t->network = (NnNetwork) (testdata_random(state) % NN_NETWORKS);
				break;
			case 5:
				*t = file->tensors[--file->n];
				break;
			default:
				file->tensors[file->n++] = *t;
				break;
		}
	}
}

/*
 * Whatever the tensors are, the answer is a consistent configuration or an
 * error with words.
 */
static void
test_mutations(void)
{
	static const char *const models[] = { "{}", "{\"where_add\":\"input\",\"norm\":\"batch\"}",
										  "{\"upsample\":\"bilinear\",\"net_e\":\"conv\"}",
										  "{\"norm\":\"none\",\"levels\":9}",
										  "{\"where_add\":\"input\",\"nz\":0}" };
	uint64_t state = 20201123;
	int inferred = 0, refused = 0, wrong = 0;

	for (int i = 0; i < 5000; i++)
	{
		File file;
		NnConfig config;
		bool keep[310];
		NnStatus status;

		if (!file_of(&file, models[i % 5], 1u << NN_NET_G | 1u << NN_NET_E))
			return;
		mutate(&file, &state);
		status = infer(&config, i % 3 ? "{}" : "{\"nz\":8}", &file, keep);
		if (status == NN_OK)
			inferred++;
		else
			refused++;
		wrong += status == NN_OK ? nn_config_check(&config, &error) != NN_OK
								 : status != NN_EINVAL || error.message[0] == '\0';
		nn_params_free(&file.params);
	}
	ok(wrong == 0 && inferred > 0 && refused > 4000,
	   "5000 changed files: %d inferred, %d refused, none otherwise", inferred, refused);
}

static void
test_page(void)
{
	size_t length;
	uint8_t *bytes = testdata_load("../../doc/options.md", &length);
	char *page = nn_options_describe();

	ok(length == strlen(page) && memcmp(page, bytes, length) == 0,
	   "doc/options.md is what %s prints", "test_nn_config --options");
	free(page);
	free(bytes);
}

int
main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--options") == 0)
	{
		char *page = nn_options_describe();

		fputs(page, stdout);
		free(page);
		return 0;
	}
	test_page();
	test_round_trip();
	test_generations();
	test_kinds();
	test_long_texts();
	test_following();
	test_bad_options();
	test_long_name();
	test_inconsistent();
	test_combinations();
	test_prefixes();
	test_odd_names();
	test_families();
	test_leftovers();
	test_mismatches();
	test_contradictions();
	test_open_choices();
	test_not_models();
	test_mutations();
	return done_testing();
}
