/*
 * Proves that model options are read, checked and printed by their one table,
 * with errors that name what is wrong.
 *
 * With the argument --options it prints doc/options.md instead, which must be
 * the table's page.
 */
#include "config_fixture.h"
#include "testdata.h"

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
	return done_testing();
}
