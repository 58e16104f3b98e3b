/*
 * Proves that cuDNN has an engine that the CUDA device may use for every
 * convolution of G and E at every batch size (on the first card; three sizes on
 * the others), and of the operators' test, in every precision, on the GPUs that
 * test/data/cudnn describes: deterministic, nothing compiled at run time,
 * strict fp32 without tensor cores. No GPU is needed: cuDNN plans for a
 * described one. A cuDNN of which a library is missing is an error.
 */
#include "op_forward.h"

#if !defined(HAVE_CUDNN) || defined(__SANITIZE_ADDRESS__)
int
main(void)
{
	printf("1..0 # SKIP the CUDA device was not built, or AddressSanitizer would report what cuDNN "
		   "itself leaks\n");
	return 0;
}
#else

#include "nn/cuda/cuda_shape.h"
#include "nn/cuda/cudnn.h"
#include "testdata.h"

#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Tally
{
	int convs, missing, fallbacks, /* not of heuristic A */
		later,                     /* not the first of a list */
		tensor_cores, pinned;
	size_t workspace; /* the largest */
} Tally;

static const struct
{
	const char *file;
	NnPrecision precisions[4];
} cards[] = {
	{ "h100.json", { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "a100.json", { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "rtx4090.json",
	  { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "t4.json", { NN_PRECISION_FP32, NN_PRECISION_FP16 } },
};

static const char *const configs[] = {
	"{}", "{\"upsample\":\"bilinear\"}",
	"{\"size\":128,\"ngf\":32,\"nef\":32,\"net_e\":\"conv\",\"where_add\":\"input\"}"
};

/* Opens every convolution of a graph. */
static void
plan_graph(CudaConvs *convs, const NnGraph *g, NnPrecision precision, Tally *tally)
{
	NnPlan plan = { .graph = (NnGraph *) g, .precision = precision };

	for (int i = 0; i < g->nnodes; i++)
	{
		CudaConvShape s;
		CudaConv *conv;
		NnError error = { 0 };

		if (!nn_ops[g->nodes[i].op].filters)
			continue;
		cuda_conv_shape(&plan, &g->nodes[i], &s);
		tally->convs++;
		if (cuda_conv_open(convs, &s, &conv, &error) != NN_OK)
		{
			tally->missing++;
			diag("%s: %s", g->nodes[i].name, error.detail);
			continue;
		}
		tally->fallbacks += cuda_conv_choice(conv)->fallback;
		tally->later += cuda_conv_choice(conv)->place > 0;
		tally->pinned += cuda_conv_choice(conv)->pinned;
		tally->tensor_cores += cuda_conv_choice(conv)->tensor_cores;
		if (cuda_conv_workspace(conv) > tally->workspace)
			tally->workspace = cuda_conv_workspace(conv);
		cuda_conv_close(conv);
	}
}

static void
plan_network(CudaConvs *convs, const NnConfig *config, NnNetwork network, int n,
			 NnPrecision precision, Tally *tally)
{
	NnParams params;
	NnGraph g;
	NnError error;
	int size = network == NN_NET_G ? config->size : config->encoder_size;
	int image, out[2];

	if (nn_params_of(config, 1u << network, &params, &error) != NN_OK)
		return;
	nn_graph_init(&g, &params);
	image = nn_input(
		&g, (NnShape){ n, size, size, network == NN_NET_G ? config->input_nc : config->output_nc },
		"image");
	if (network == NN_NET_G)
		nn_net_G(&g, config, image, nn_input(&g, (NnShape){ n, 1, 1, config->nz }, "z"), 0);
	else
		nn_net_E(&g, config, image, &out[0], &out[1]);
	plan_graph(convs, &g, precision, tally);
	nn_graph_free(&g);
	nn_params_free(&params);
}

static void
test_config(CudaConvs *convs, const char *card, NnPrecision precision, const char *json, int step)
{
	Tally tally = { 0 };
	NnConfig config;
	NnError error;

	nn_config_default(&config);
	if (nn_config_parse(&config, json, strlen(json), &error) != NN_OK)
		diag("%s", error.message);
	for (int n = 1; n <= 64; n *= step)
	{
		plan_network(convs, &config, NN_NET_G, n, precision, &tally);
		plan_network(convs, &config, NN_NET_E, n, precision, &tally);
	}
	ok(tally.convs > 0 && tally.missing == 0 &&
		   (precision != NN_PRECISION_FP32 || tally.tensor_cores == 0),
	   "%s, %s, %s: %d of %d convolutions; %d not the heuristic's first, %d its fallbacks, %d on "
	   "tensor cores, workspace %zu KiB",
	   card, nn_precision_name(precision), json, tally.convs - tally.missing, tally.convs,
	   tally.later, tally.fallbacks, tally.tensor_cores, tally.workspace / 1024);
}

/*
 * The convolutions that a GPU is tested with, odd extents and channels among
 * them.
 */
static void
test_operators(CudaConvs *convs, const char *card, NnPrecision precision)
{
	Tally tally = { 0 };

	for (size_t i = 0; i < CASES; i++)
	{
		Run r;

		if (cases[i].when == IN_TRAINING)
			continue;
		build(&r, &cases[i], false);
		plan_graph(convs, &r.graph, precision, &tally);
		free_run(&r);
	}
	ok(tally.convs > 0 && tally.missing == 0,
	   "%s, %s: %d of %d convolutions of the operators' test", card, nn_precision_name(precision),
	   tally.convs - tally.missing, tally.convs);
}

/*
 * With BICYCLE_PIN_ENGINES one engine a layer serves all batch sizes, where
 * cuDNN takes it.
 */
static void
test_pinning(const char *json)
{
	for (int pin = 1; pin <= 64; pin *= 64)
	{
		Tally tally = { 0 };
		NnConfig config;
		CudaConvs *convs;
		NnError error;
		char number[8];

		snprintf(number, sizeof(number), "%d", pin);
		setenv("BICYCLE_PIN_ENGINES", number, 1);
		nn_config_default(&config);
		if (cuda_convs_describe(json, &convs, &error) == NN_OK)
		{
			for (int n = 1; n <= 64; n *= 2)
				plan_network(convs, &config, NN_NET_G, n, NN_PRECISION_BF16, &tally);
			cuda_convs_close(convs);
		}
		ok(tally.convs > 0 && tally.missing == 0 && tally.pinned > tally.convs / 2,
		   "engines of %d images serve %d of %d convolutions of other batch sizes", pin,
		   tally.pinned, tally.convs - tally.convs / 7);
		unsetenv("BICYCLE_PIN_ENGINES");
	}
}

/*
 * What was chosen is kept for the next start, and a damaged file is only one
 * that is not there.
 */
static void
test_keeping(CudaConvs *convs)
{
	CudaConvShape shape = { .type = KERNEL_F16,
							.n = 1,
							.h = 128,
							.w = 128,
							.c = 64,
							.oh = 64,
							.ow = 64,
							.k = 128,
							.kernel = 4,
							.stride = 2,
							.pad = 1 };
	char directory[] = "/tmp/bicycle-plans-XXXXXX", path[512];
	bool kept[4] = { false };
	DIR *listing;
	struct dirent *entry;
	NnError error = { 0 };

	if (!mkdtemp(directory))
		return;
	setenv("BICYCLE_PLAN_CACHE", directory, 1);
	for (int i = 0; i < 4; i++)
	{
		CudaConv *conv;

		if (i == 2 && (listing = opendir(directory)) != NULL)
		{
			while ((entry = readdir(listing)) != NULL)
			{
				snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
				if (entry->d_name[0] != '.' && truncate(path, 400) != 0)
					diag("%s could not be cut", path);
			}
			closedir(listing);
		}
		if (cuda_conv_open(convs, &shape, &conv, &error) != NN_OK)
			break;
		kept[i] = cuda_conv_choice(conv)->kept;
		cuda_conv_close(conv);
	}
	ok(!kept[0] && kept[1], "a plan is kept and found again");
	ok(!kept[2] && kept[3], "and made anew if its file is damaged");
	unsetenv("BICYCLE_PLAN_CACHE");
	if ((listing = opendir(directory)) != NULL)
	{
		while ((entry = readdir(listing)) != NULL)
		{
			snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
			(void) remove(path);
		}
		closedir(listing);
	}
	(void) rmdir(directory);
}

static void
test_card(const char *file, const NnPrecision *precisions, int step)
{
	char path[64];
	size_t length;
	uint8_t *bytes;
	char *json;
	CudaConvs *convs;
	NnError error = { 0 };

	snprintf(path, sizeof(path), "cudnn/%.40s", file);
	bytes = testdata_load(path, &length);
	json = strndup((char *) bytes, length);
	free(bytes);
	if (!ok(json && cuda_convs_describe(json, &convs, &error) == NN_OK,
			"cuDNN takes the description %s", file))
	{
		diag("%s: %s", error.message, error.detail);
		free(json);
		return;
	}
	test_keeping(convs);
	for (int i = 0; i < 4 && precisions[i] != NN_PRECISION_AUTO; i++)
		test_operators(convs, file, precisions[i]);
	for (int i = 0; i < 4 && precisions[i] != NN_PRECISION_AUTO; i++)
		for (size_t k = 0; k < sizeof(configs) / sizeof(configs[0]); k++)
			test_config(convs, file, precisions[i], configs[k], step);
	cuda_convs_close(convs);
	if (step == 2)
		test_pinning(json);
	free(json);
}

/*
 * What a process says that finds cuDNN, but an empty file in place of a library
 * that cuDNN needs; cuDNN itself would abort it.
 */
static void
test_incomplete(const char *part)
{
	void *cudnn = dlopen("libcudnn.so.9", RTLD_NOW);
	char directory[] = "/tmp/bicycle-cudnn-XXXXXX", found[64], empty[64], said[700] = "";
	struct link_map *map;
	int ends[2], status = -1;
	FILE *file;
	pid_t child;

	if (!cudnn || dlinfo(cudnn, RTLD_DI_LINKMAP, &map) != 0 || !mkdtemp(directory) ||
		pipe(ends) != 0)
		return;
	snprintf(found, sizeof(found), "%s/libcudnn.so.9", directory);
	snprintf(empty, sizeof(empty), "%s/%s", directory, part);
	if (symlink(map->l_name, found) != 0 || (file = fopen(empty, "w")) == NULL)
		return;
	fclose(file);
	child = fork();
	if (child == 0)
	{
		dup2(ends[1], STDOUT_FILENO);
		setenv("LD_LIBRARY_PATH", directory, 1);
		setenv("BICYCLE_TEST_INCOMPLETE", "1", 1);
		execl("/proc/self/exe", "test_cuda_plans", (char *) NULL);
		_exit(1);
	}
	close(ends[1]);
	file = fdopen(ends[0], "r");
	if (fgets(said, sizeof(said), file) == NULL)
		said[0] = '\0';
	fclose(file);
	waitpid(child, &status, 0);
	(void) remove(found);
	(void) remove(empty);
	(void) rmdir(directory);
	said[strcspn(said, "\n")] = '\0';
	ok(WIFEXITED(status) && WEXITSTATUS(status) == NN_EUNSUPPORTED && strstr(said, part),
	   "without %s it is an error: %s", part, said);
}

/* In the process of that test. */
static int
say_what_is_missing(void)
{
	CudaConvs *convs;
	NnError error = { 0 };

	(void) cuda_convs_describe("{}", &convs, &error);
	printf("%s: %s\n", error.message, error.detail);
	return (int) error.code;
}

int
main(void)
{
	CudaConvs *convs;
	NnError error = { 0 };

	if (getenv("BICYCLE_TEST_INCOMPLETE"))
		return say_what_is_missing();
	/*
	 * a description of nothing is refused; a cuDNN that is not there cannot
	 * even refuse it
	 */
	if (cuda_convs_describe("{}", &convs, &error) == NN_OK)
		cuda_convs_close(convs);
	else if (error.code == NN_EUNSUPPORTED)
	{
		printf("1..0 # SKIP %s\n", error.detail);
		return 0;
	}
	test_incomplete("libcudnn_graph.so.9");
	test_incomplete("libcudnn_engines_precompiled.so.9");
	for (size_t i = 0; i < sizeof(cards) / sizeof(cards[0]); i++)
		test_card(cards[i].file, cards[i].precisions, i == 0 ? 2 : 8);
	return done_testing();
}
#endif
