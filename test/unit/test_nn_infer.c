/*
 * Proves that a configuration is inferred from names and shapes of tensors,
 * with errors that name what is wrong.
 */
#include "config_fixture.h"
#include "testdata.h"

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

int
main(void)
{
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
