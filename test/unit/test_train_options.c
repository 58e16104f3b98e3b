/*
 * Proves that options of training are read by the one table over the defaults
 * of the method, printed and read back, and that what makes no sense is refused
 * with the reason.
 */
#include "nn/fit_private.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

static NnConfig config;
static NnTrainOptions options;
static NnError error;

static NnStatus
parse(const char *json)
{
	memset(&error, 0, sizeof(error));
	return nn_train_options_parse(&config, &options, json, strlen(json), &error);
}

static bool
reads(const char *json)
{
	if (parse(json) == NN_OK)
		return true;
	diag("%s: %s %s", error.message, error.detail, error.hint);
	return false;
}

/* ---- Defaults and presets ------------------------------------------------ */

static void
test_defaults(void)
{
	const NnTrainOptions *o = &options;

	ok(reads("{}") && o->method == NN_METHOD_BICYCLE && o->gan_mode == NN_GAN_LSGAN && !o->same_d &&
		   !o->dropout,
	   "the method is bicycle by default");
	ok(o->lambda_l1 == 10 && o->lambda_gan == 1 && o->lambda_gan2 == 1 && o->lambda_z == 0.5 &&
		   o->lambda_kl == 0.01,
	   "weights of losses are the official code's");
	ok(o->lr == 0.0002 && o->beta1 == 0.5 && o->lr_policy == NN_LR_LINEAR && o->epochs == 100 &&
		   o->epochs_decay == 100 && o->iterations == 0,
	   "and so are those of the optimiser");
	ok(o->batch_size == 2 && o->load_size == 286 && o->flip && o->init_type == NN_INIT_XAVIER &&
		   o->init_gain == 0.02 && o->seed == 0 && o->ema == 0,
	   "and of data and weights");
	ok(config.size == 256 && config.nz == 8 && config.net_e == NN_ENCODER_RESNET &&
		   config.norm == NN_NORM_INSTANCE,
	   "and of the model");
	ok(reads("{\"size\":128}") && config.levels == 7 && config.encoder_size == 128 &&
		   o->load_size == 143,
	   "levels, encoder and load_size follow the size");
	ok(reads("{\"size\":128,\"load_size\":150}") && o->load_size == 150,
	   "a load_size that is given stands");
}

static void
test_presets(void)
{
	const unsigned g = 1u << NN_NET_G, e = 1u << NN_NET_E, d = 1u << NN_NET_D, d2 = 1u << NN_NET_D2;
	static const struct
	{
		const char *json;
		double lambda[5]; /* l1, gan, gan2, z, kl */
		int networks;     /* G 1, E 2, D 4, D2 8 */
	} known[] = {
		{ "{}", { 10, 1, 1, 0.5, 0.01 }, 15 },
		{ "{\"same_d\":true}", { 10, 1, 1, 0.5, 0.01 }, 7 },
		{ "{\"method\":\"cvae_gan\"}", { 10, 1, 0, 0, 0.01 }, 7 },
		{ "{\"method\":\"cvae_gan++\"}", { 10, 1, 1, 0, 0.01 }, 15 },
		{ "{\"method\":\"cae_gan\"}", { 10, 1, 0, 0, 0 }, 7 },
		{ "{\"method\":\"clr_gan\"}", { 0, 0, 1, 0.5, 0 }, 11 },
		{ "{\"method\":\"clr_gan\",\"same_d\":true}", { 0, 0, 1, 0.5, 0 }, 7 },
		{ "{\"method\":\"pix2pix_noise\"}", { 10, 1, 0, 0, 0 }, 5 },
		{ "{\"method\":\"pix2pix_noise\",\"nz\":0,\"batch_size\":3}", { 10, 1, 0, 0, 0 }, 5 },
		{ "{\"lambda_gan\":0}", { 10, 0, 1, 0.5, 0.01 }, 11 },
		{ "{\"lambda_gan2\":0,\"method\":\"bicycle\"}", { 10, 1, 0, 0.5, 0.01 }, 7 },
		{ "{\"method\":\"cvae_gan\",\"lambda_gan2\":2}", { 10, 1, 2, 0, 0.01 }, 15 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		const double *l = known[i].lambda;
		int n = known[i].networks;
		unsigned mask = (n & 1 ? g : 0) | (n & 2 ? e : 0) | (n & 4 ? d : 0) | (n & 8 ? d2 : 0);

		ok(reads(known[i].json) && options.lambda_l1 == l[0] && options.lambda_gan == l[1] &&
			   options.lambda_gan2 == l[2] && options.lambda_z == l[3] &&
			   options.lambda_kl == l[4] && nn_train_networks(&config, &options) == mask,
		   "weights and networks of %s", known[i].json);
	}
	ok(reads("{\"method\":\"pix2pix_noise\"}") && config.net_e == NN_ENCODER_NONE &&
		   config.encoder_size == 0 && config.conditional_d && config.nz == 8,
	   "pix2pix_noise has a conditional discriminator and no encoder");
	ok(reads("{\"conditional_d\":false,\"method\":\"pix2pix_noise\"}") && !config.conditional_d,
	   "what is given stands, wherever in the object");
	ok(nn_method_facts(NN_METHOD_CLR_GAN)->latent_trains_e &&
		   !nn_method_facts(NN_METHOD_BICYCLE)->latent_trains_e,
	   "the latent loss trains E in clr_gan only");
}

static void
test_round_trip(void)
{
	static const char *const texts[] = {
		"{}",
		"{\"method\":\"pix2pix_noise\",\"nz\":0}",
		"{\"method\":\"clr_gan\",\"size\":64,\"lambda_z\":0.1,\"lr\":3e-5,\"beta1\":0.9,\"lr_"
		"policy\":\"cosine\",\"epochs\":7,\"epochs_decay\":0,\"iterations\":123456789012,"
		"\"batch_size\":5,\"load_size\":99,\"flip\":false,\"init_type\":\"orthogonal\",\"init_"
		"gain\":1,\"seed\":9007199254740992,\"ema\":0.999,\"checkpoint_every\":10,"
		"\"preview_every\":20,\"accumulate\":5,\"gan_mode\":\"vanilla\",\"same_d\":true,"
		"\"dropout\":true,\"norm\":"
		"\"batch\",\"precision\":\"bf16\"}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		char *text, *again = NULL;

		text = reads(texts[i]) ? nn_train_options_print(&config, &options) : NULL;
		memset(&options, 0xff, sizeof(options));
		if (text && reads(text))
			again = nn_train_options_print(&config, &options);
		ok(text && again && strcmp(text, again) == 0, "options that are printed are read back: %s",
		   texts[i]);
		free(text);
		free(again);
	}
	ok(options.iterations == 123456789012 && options.seed == 9007199254740992 &&
		   options.lr == 3e-5 && options.init_type == NN_INIT_ORTHOGONAL &&
		   options.lr_policy == NN_LR_COSINE && options.dropout && !options.flip,
	   "large integers, numbers and choices among them");
}

/* ---- Errors -------------------------------------------------------------- */

static void
test_errors(void)
{
	static const struct
	{
		const char *json, *message, *detail, *hint;
	} bad[] = {
		{ "{\"lamda_l1\":1}", "unrecognized training option \"lamda_l1\"", "", "lambda_l1" },
		{ "{\"method\":\"gan\"}", "invalid value for training option \"method\"", "\"cvae_gan++\"",
		  "" },
		{ "{\"lr\":\"fast\"}", "invalid value for training option \"lr\"", "a number from 0 to 1",
		  "" },
		{ "{\"lr\":2}", "invalid value for training option \"lr\"", "a number from 0 to 1", "" },
		{ "{\"lambda_kl\":-1}", "invalid value for training option \"lambda_kl\"",
		  "a number from 0", "" },
		{ "{\"ema\":1}", "invalid value for training option \"ema\"", "0.999999", "" },
		{ "{\"iterations\":1.5}", "invalid value for training option \"iterations\"", "an integer",
		  "" },
		{ "{\"seed\":-1}", "invalid value for training option \"seed\"", "an integer from 0", "" },
		{ "{\"batch_size\":0}", "invalid value for training option \"batch_size\"", "from 1 to",
		  "" },
		{ "{\"nz\":-1}", "invalid value for model option \"nz\"", "from 0", "" },
		{ "{\"batch_size\":3}", "batch_size 3 does not suit method \"bicycle\"", "Half of a batch",
		  "even" },
		{ "{\"batch_size\":1,\"method\":\"cvae_gan++\"}",
		  "batch_size 1 does not suit method \"cvae_gan++\"", "", "even" },
		{ "{\"batch_size\":6,\"accumulate\":2}", "accumulate 2 does not suit batch_size 6",
		  "of the same size, which is even.", "a multiple of 4." },
		{ "{\"batch_size\":4,\"accumulate\":3,\"method\":\"cvae_gan\"}",
		  "accumulate 3 does not suit batch_size 4", "of the same size.", "a multiple of 3." },
		{ "{\"accumulate\":0}", "invalid value for training option \"accumulate\"", "from 1 to",
		  "" },
		{ "{\"nz\":0}", "method \"bicycle\" needs a latent code", "nz is 0", "pix2pix_noise" },
		{ "{\"family\":\"pix2pix\",\"method\":\"pix2pix_noise\"}", "are not trained", "imported",
		  "pix2pix_noise" },
		{ "{\"net_e\":\"none\"}", "method \"bicycle\" needs an encoder", "net_e is \"none\"",
		  "pix2pix_noise" },
		{ "{\"method\":\"pix2pix_noise\",\"net_e\":\"conv\"}",
		  "method \"pix2pix_noise\" has no encoder", "", "Leave net_e out" },
		{ "{\"method\":\"pix2pix_noise\",\"lambda_z\":1}",
		  "method \"pix2pix_noise\" has no loss for lambda_z", "one branch", "0" },
		{ "{\"method\":\"pix2pix_noise\",\"lambda_gan2\":1}", "has no loss for lambda_gan2", "",
		  "" },
		{ "{\"size\":384}", "size 384 does not suit an encoder of size 128", "",
		  "Train at size 256, or without an encoder" },
		{ "{\"load_size\":255}", "load_size 255 is smaller than size 256", "", "" },
		{ "{\"epochs\":0,\"epochs_decay\":0}", "a run must have iterations", "", "" },
		{ "{\"lr_policy\":\"cosine\",\"epochs\":0}", "lr_policy \"cosine\" needs epochs",
		  "which is 0", "epochs_decay" },
		{ "{\"method\":\"clr_gan\",\"lambda_z\":0}", "leave network E without gradient",
		  "so is lambda_z", "above 0" },
		{ "{\"lambda_l1\":0,\"lambda_gan\":0,\"lambda_kl\":0}", "leave network E without gradient",
		  "does not train E", "" },
		{ "{\"lambda_l1\":0,\"lambda_gan\":0,\"lambda_gan2\":0,\"lambda_z\":0}",
		  "leave network G without gradient", "are 0", "" },
		{ "{\"method\":\"pix2pix_noise\",\"lambda_l1\":0,\"lambda_gan\":0}",
		  "leave network G without gradient", "", "" },
		{ "{\"num_ds\":8}", "num_ds 8 is too large", "", "" },
		{ "[]", "training options must be a JSON object", "", "" },
		{ "{", "training options are not valid JSON", "", "" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NnTrainOptions before;
		NnStatus status;

		memset(&options, 0x55, sizeof(options));
		before = options;
		status = parse(bad[i].json);
		if (!ok(status == NN_EINVAL && strstr(error.message, bad[i].message) &&
					strstr(error.detail, bad[i].detail) && strstr(error.hint, bad[i].hint) &&
					memcmp(&before, &options, sizeof(options)) == 0,
				"%s is refused and changes nothing", bad[i].json))
			diag("status %d, message \"%s\", detail \"%s\", hint \"%s\"", status, error.message,
				 error.detail, error.hint);
	}
}

/*
 * Whole numbers may come with a point; a size that does not suit has hints that
 * do.
 */
static void
test_followed(void)
{
	static const int sizes[] = { 65, 96, 100, 320, 384, 511, 640, 1024, 4096 };

	ok(reads("{\"batch_size\":4.0,\"iterations\":1e3,\"input_nc\":1.0,\"nz\":-0.0,"
			 "\"method\":\"pix2pix_noise\"}") &&
		   options.batch_size == 4 && options.iterations == 1000 && config.input_nc == 1 &&
		   config.nz == 0,
	   "whole numbers are whole with a point, too");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		char json[128];
		int other = 0, unit = 0;
		bool good;

		snprintf(json, sizeof(json), "{\"size\":%d}", sizes[i]);
		good = parse(json) == NN_EINVAL && sscanf(error.hint,
												  "Train at size %d, or without an encoder: method "
												  "\"pix2pix_noise\" takes any multiple of %d.",
												  &other, &unit) == 2;
		snprintf(json, sizeof(json), "{\"size\":%d}", other);
		good = good && reads(json);
		snprintf(json, sizeof(json), "{\"size\":%d,\"method\":\"pix2pix_noise\"}",
				 (sizes[i] + unit - 1) / (unit > 0 ? unit : 1) * unit);
		good = good && reads(json);
		ok(good, "the hint for size %d can be followed", sizes[i]);
	}
}

static void
test_model_options_stay(void)
{
	NnConfig c;

	nn_config_default(&c);
	ok(nn_config_parse(&c, "{\"lr\":0.1}", 10, &error) == NN_EINVAL &&
		   strstr(error.message, "unrecognized model option \"lr\"") != NULL,
	   "an option of training is none of a model");
	ok(strcmp(nn_loss_name(NN_LOSS_G_GAN), "G_GAN") == 0 &&
		   strcmp(nn_loss_name(NN_LOSS_Z_L1), "z_L1") == 0 &&
		   strcmp(nn_loss_name(NN_LOSS_KL), "kl") == 0,
	   "losses are called as the official code prints them");
}

/* What bicycle_create takes it takes by the same table, with the same words. */
static void
test_creation(void)
{
	static const struct
	{
		const char *json, *message, *detail, *hint;
	} bad[] = {
		{ "{\"seed\":-5}", "invalid value for training option \"seed\"",
		  "It must be an integer from 0 to 9007199254740992.", "" },
		{ "{\"init_gain\":-1}", "invalid value for training option \"init_gain\"",
		  "It must be a number from 0 to 1000.", "" },
		{ "{\"init_type\":\"zeros\"}", "invalid value for training option \"init_type\"",
		  "It must be one of \"xavier\"", "" },
		{ "{\"lr\":0.1}", "unrecognized model option \"lr\"", "", "init_type, init_gain, seed." },
		{ "{\"nz\":-1}", "invalid value for model option \"nz\"", "", "" },
		{ "[]", "model options must be a JSON object", "", "" },
	};
	const char *json = "{\"size\":64,\"init_type\":\"normal\",\"init_gain\":1,\"seed\":9}";

	ok(nn_create_options_parse(&config, &options, json, strlen(json), &error) == NN_OK &&
		   config.levels == 6 && options.init_type == NN_INIT_NORMAL && options.init_gain == 1 &&
		   options.seed == 9,
	   "a new model takes options of fresh weights");
	ok(nn_create_options_parse(&config, &options, "{}", 2, &error) == NN_OK &&
		   options.init_type == NN_INIT_XAVIER && options.init_gain == 0.02 && options.seed == 0,
	   "which have defaults");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		memset(&error, 0, sizeof(error));
		ok(nn_create_options_parse(&config, &options, bad[i].json, strlen(bad[i].json), &error) ==
				   NN_EINVAL &&
			   strstr(error.message, bad[i].message) && strstr(error.detail, bad[i].detail) &&
			   strstr(error.hint, bad[i].hint),
		   "%s: %s. %s", bad[i].json, error.message, error.detail);
	}
}

int
main(void)
{
	test_defaults();
	test_presets();
	test_round_trip();
	test_errors();
	test_followed();
	test_model_options_stay();
	test_creation();
	return done_testing();
}
