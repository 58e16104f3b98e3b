/*
 * Proves that cuDNN has an engine that the CUDA device may use for every
 * convolution of G and E at every size of a plan (on the first card; three on
 * the others), by parts where the card's cache holds no more, of L at several
 * sizes, of training in three directions, and of the operators' test, in every
 * precision, on the GPUs that test/data/cudnn describes: deterministic,
 * nothing compiled at run time, strict fp32 without tensor cores; that in half
 * precision all are on tensor cores, and none reads many weights by few blocks,
 * unless cuDNN has nothing else; that what would be timed differs in more than
 * clusters; and that plans are kept for their card and driver alone, and never
 * believed when damaged. No GPU is needed: cuDNN plans for a described one. A
 * cuDNN of which a library is missing is an error.
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
#include "nn/iteration.h"
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
		tensor_cores, pinned,
		plain,    /* not on tensor cores, though both sides have channels for them */
		starving, /* few blocks for many weights */
		wrong;    /* either, though cuDNN has an engine that is not */
	int kinds[CUDA_CONV_FILTER + 1];
	int parted;       /* of some images at a time */
	size_t workspace; /* the largest */
} Tally;

static size_t card_cache; /* bytes, of the card that is asked about */

static const struct
{
	const char *file;
	NnPrecision precisions[4];
} cards[] = {
	{ "h100.json", { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "h200.json", { NN_PRECISION_FP32, NN_PRECISION_BF16 } },
	{ "a100.json", { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "rtx4090.json",
	  { NN_PRECISION_FP32, NN_PRECISION_TF32, NN_PRECISION_BF16, NN_PRECISION_FP16 } },
	{ "t4.json", { NN_PRECISION_FP32, NN_PRECISION_FP16 } },
};

static const char *const configs[] = {
	"{}", "{\"upsample\":\"bilinear\"}",
	"{\"size\":128,\"ngf\":32,\"nef\":32,\"net_e\":\"conv\",\"where_add\":\"input\"}"
};

/*
 * Whether cuDNN has no engine with tensor cores for one without, and none with
 * split sums, and less workspace than its weights, for one that starves.
 */
static bool
is_without_better(CudaConvs *convs, const CudaConvShape *s, const CudaConvChoice *choice)
{
	size_t weights = kernel_type_size(s->type) * s->k * s->c * s->kernel * s->kernel;
	CudaConvChoice others[CUDNN_MAX_CLASSES];
	int n = cuda_conv_candidates(convs, s, others);
	bool found = false;

	for (int i = 0; i < n; i++)
		found |= choice->tensor_cores ? others[i].split > 1 && others[i].tensor_cores &&
											(size_t) others[i].workspace < weights
									  : others[i].tensor_cores;
	return n > 0 && !found;
}

/* What was planned for the card that is asked about: the same again is not. */
typedef struct Planned
{
	CudaConvShape shape;
	CudaConvChoice choice;
	bool wrong;
} Planned;

static struct
{
	const CudaConvs *convs;
	Planned list[2048];
	size_t n;
} planned;

/* The plan of a shape; NULL if there is none. */
static const Planned *
plan_shape(CudaConvs *convs, const char *name, const CudaConvShape *s)
{
	Planned *p;
	CudaConv *conv;
	NnError error = { 0 };

	if (planned.convs != convs || planned.n == sizeof(planned.list) / sizeof(Planned))
		planned.n = 0;
	planned.convs = convs;
	for (size_t i = 0; i < planned.n; i++)
		if (memcmp(&planned.list[i].shape, s, sizeof(*s)) == 0)
			return &planned.list[i];
	if (cuda_conv_open(convs, s, &conv, &error) != NN_OK)
	{
		diag("%s: %s", name, error.detail);
		return NULL;
	}
	p = &planned.list[planned.n++];
	*p = (Planned){ .choice = *cuda_conv_choice(conv) };
	memcpy(&p->shape, s, sizeof(*s));
	cuda_conv_close(conv);
	p->wrong = s->type != KERNEL_F32 && !p->choice.pinned &&
			   (cuda_conv_is_plain(s, &p->choice) || cuda_conv_starves(s, &p->choice)) &&
			   !is_without_better(convs, s, &p->choice);
	if (p->wrong)
		diag("%s of %d: engine %d, tile %d, split %d, number %d", name, s->n,
			 (int) p->choice.engine, (int) p->choice.tile, (int) p->choice.split, p->choice.place);
	return p;
}

static void
plan_conv(CudaConvs *convs, const char *name, const CudaConvShape *s, Tally *tally)
{
	const Planned *p = plan_shape(convs, name, s);
	const CudaConvChoice *choice = p ? &p->choice : NULL;

	tally->convs++;
	if (!choice)
	{
		tally->missing++;
		return;
	}
	tally->fallbacks += choice->fallback;
	tally->later += choice->place > 0;
	tally->pinned += choice->pinned;
	tally->tensor_cores += choice->tensor_cores;
	tally->plain += cuda_conv_is_plain(s, choice);
	tally->starving += cuda_conv_starves(s, choice);
	tally->wrong += p->wrong;
	nn_most(&tally->workspace, (size_t) choice->workspace);
}

/* Every convolution of a graph that is the library's. */
static void
plan_graph(CudaConvs *convs, const NnGraph *g, NnPrecision precision, Tally *tally)
{
	NnPlan plan = { .graph = (NnGraph *) g, .precision = precision };

	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];
		CudaConvShape s;

		if (!nn_ops[node->op].filters)
			continue;
		cuda_conv_shape(&plan, node, &s);
		if (cuda_is_streamed(&s, cuda_quad(node, g->values[node->out[0]].shape.c)))
			continue;
		tally->parted += cuda_part_images(&plan, i, card_cache) < s.n;
		s.n = cuda_part_images(&plan, i, card_cache);
		plan_conv(convs, node->name, &s, tally);
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

static bool
is_half(NnPrecision precision)
{
	return precision == NN_PRECISION_BF16 || precision == NN_PRECISION_FP16;
}

/*
 * In half precision nothing is without tensor cores, or starves, for which
 * cuDNN has better; and little starves for want of that: of training a few data
 * gradients, whose sums cuDNN splits on some cards only by first turning the
 * weights, which takes longer.
 */
static void
test_tally(const Tally *tally, const char *card, NnPrecision precision, const char *what,
		   bool training)
{
	bool sense =
		precision == NN_PRECISION_FP32
			? tally->tensor_cores == 0
			: !is_half(precision) || (tally->wrong == 0 && tally->plain * 50 <= tally->convs &&
									  tally->starving * (training ? 10 : 30) <= tally->convs);

	ok(tally->convs > 0 && tally->missing == 0 && sense,
	   "%s, %s, %s: %d of %d convolutions; %d not the heuristic's first, %d its fallbacks, %d on "
	   "tensor cores, %d of few blocks, workspace %zu KiB",
	   card, nn_precision_name(precision), what, tally->convs - tally->missing, tally->convs,
	   tally->later, tally->fallbacks, tally->tensor_cores, tally->starving,
	   tally->workspace / 1024);
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
	for (int n = 1; n <= CUDA_MOST_IMAGES; n *= step)
	{
		plan_network(convs, &config, NN_NET_G, n, precision, &tally);
		plan_network(convs, &config, NN_NET_E, n, precision, &tally);
	}
	test_tally(&tally, card, precision, json, false);
	ok(tally.parted > 0 || strstr(json, "128"), /* a small one */
	   "%s, %s, %s: %d of them by parts", card, nn_precision_name(precision), json, tally.parted);
}

/* Network L, in strict fp32: of its least size, an odd one, and 256. */
static void
test_metric(CudaConvs *convs, const char *card, const char *net)
{
	static const int sides[] = { 31, 99, 256 };
	Tally tally = { 0 };
	NnConfig config;
	NnParams params;
	NnError error;

	if (nn_metric_config(&config, net, "0.1", &error) != NN_OK ||
		nn_params_of(&config, 1u << NN_NET_L, &params, &error) != NN_OK)
		return;
	for (int i = 0; i < 6; i++)
	{
		int n = i < 3 ? 1 : CUDA_MOST_IMAGES, side = sides[i % 3], out[2];
		NnGraph g;

		nn_graph_init(&g, &params);
		nn_net_L(&g, &config, nn_input(&g, (NnShape){ n, side, side, 3 }, "images"), &out[0],
				 &out[1]);
		plan_graph(convs, &g, NN_PRECISION_FP32, &tally);
		nn_graph_free(&g);
	}
	nn_params_free(&params);
	test_tally(&tally, card, NN_PRECISION_FP32, net, false);
}

/* Of training; all are of the first two, in bf16 of the others, too. */
static const char *const fits[] = {
	"{}",
	"{\"batch_size\":16}",
	"{\"method\":\"cvae_gan\",\"upsample\":\"bilinear\"}",
	"{\"method\":\"clr_gan\",\"size\":128,\"net_e\":\"conv\",\"where_add\":\"input\"}",
};

/* Every different convolution of an iteration, in all directions. */
static void
plan_iteration(CudaConvs *convs, const NnIteration *it, NnPrecision precision, Tally *tally)
{
	const NnGraph *g = &it->graph;
	NnPlan plan = { .graph = (NnGraph *) g, .precision = precision };
	CudaConvShape *shapes = calloc(2 * it->schedule.nsteps + 1, sizeof(CudaConvShape));
	int n = 0;

	for (int i = 0; shapes && i < it->schedule.nsteps; i++)
	{
		const NnStep *step = &it->schedule.steps[i];
		CudaConvKind kinds[2];
		int nkinds = cuda_train_kinds(g, step, kinds);

		for (int k = 0; k < nkinds; k++)
		{
			bool known = false;

			cuda_train_shape(&plan, &g->nodes[step->node], kinds[k], &shapes[n]);
			for (int j = 0; j < n && !known; j++)
				known = memcmp(&shapes[j], &shapes[n], sizeof(CudaConvShape)) == 0;
			if (known)
				continue;
			tally->kinds[kinds[k]]++;
			plan_conv(convs, g->nodes[step->node].name, &shapes[n++], tally);
		}
	}
	free(shapes);
}

static void
test_training(CudaConvs *convs, const char *card, NnPrecision precision, const char *json)
{
	Tally tally = { 0 };
	NnConfig config;
	NnTrainOptions options;
	NnParams params = { 0 };
	NnIteration it = { 0 };
	NnError error;

	if (nn_train_options_parse(&config, &options, json, strlen(json), &error) != NN_OK ||
		nn_params_of(&config, nn_train_networks(&config, &options), &params, &error) != NN_OK)
		diag("%s: %s", json, error.message);
	nn_iteration_build(&it, &config, &options, &params);
	plan_iteration(convs, &it, precision, &tally);
	ok(tally.kinds[CUDA_CONV_FORWARD] > 10 && tally.kinds[CUDA_CONV_DATA] > 10 &&
		   tally.kinds[CUDA_CONV_FILTER] > 10,
	   "training %s: %d convolutions forward, %d to inputs, %d to filters", json,
	   tally.kinds[CUDA_CONV_FORWARD], tally.kinds[CUDA_CONV_DATA], tally.kinds[CUDA_CONV_FILTER]);
	test_tally(&tally, card, precision, json, true);
	nn_iteration_free(&it);
	nn_params_free(&params);
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
	for (int pin = 1; pin <= CUDA_MOST_IMAGES; pin *= CUDA_MOST_IMAGES)
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
			for (int n = 1; n <= CUDA_MOST_IMAGES; n *= 2)
				if (n != pin)
					plan_network(convs, &config, NN_NET_G, n, NN_PRECISION_BF16, &tally);
			cuda_convs_close(convs);
		}
		ok(tally.convs > 0 && tally.missing == 0 && tally.pinned > tally.convs / 2,
		   "engines of %d images serve %d of %d convolutions of other batch sizes", pin,
		   tally.pinned, tally.convs);
		unsetenv("BICYCLE_PIN_ENGINES");
	}
}

static const CudaConvShape some_conv = { .type = KERNEL_F16,
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

/* Whether a plan for it is read from disk; it is written if it is not. */
static bool
is_kept(CudaConvs *convs, const CudaConvShape *shape)
{
	CudaConv *conv;
	NnError error = { 0 };
	bool kept;

	if (cuda_conv_open(convs, shape, &conv, &error) != NN_OK)
		return false;
	kept = cuda_conv_choice(conv)->kept;
	cuda_conv_close(conv);
	return kept;
}

/* The files of a directory: their number, and the name of one. */
static int
files_in(const char *directory, char path[512])
{
	DIR *listing = opendir(directory);
	struct dirent *entry;
	int n = 0;

	while (listing && (entry = readdir(listing)) != NULL)
		if (entry->d_name[0] != '.')
		{
			snprintf(path, 512, "%s/%s", directory, entry->d_name);
			n++;
		}
	if (listing)
		closedir(listing);
	return n;
}

/* The file with one byte changed, or cut there. */
static void
damage_file(const char *path, const char *text, size_t length, size_t at, bool cut)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return;
	fwrite(text, 1, at, file);
	if (!cut)
	{
		fputc(text[at] ^ 1, file);
		fwrite(text + at + 1, 1, length - at - 1, file);
	}
	fclose(file);
}

/* Wherever its file is damaged, a plan is made anew, and kept anew. */
static void
test_damage(CudaConvs *convs, const char *path)
{
	static char text[65536];
	FILE *file = fopen(path, "r");
	size_t length = file ? fread(text, 1, sizeof(text), file) : 0, places = 0, believed = 0,
		   lost = 0;

	if (file)
		fclose(file);
	for (size_t at = 0; at < length; at += length / 40 + 1)
		for (int cut = 0; cut < 2; cut++)
		{
			damage_file(path, text, length, at, cut);
			places++;
			believed += is_kept(convs, &some_conv);
			lost += !is_kept(convs, &some_conv);
		}
	ok(places > 60 && believed == 0 && lost == 0,
	   "made anew if its file of %zu bytes is damaged, in %zu ways", length, places);
}

/*
 * What was chosen is kept for the next start, for the same card and driver; of
 * shapes that come and go nothing is.
 */
static void
test_keeping(CudaConvs *convs, const char *json)
{
	char directory[] = "/tmp/bicycle-plans-XXXXXX", plans[64], path[512], *other = strdup(json);
	CudaConvShape steady = some_conv;
	CudaConvs *newer = NULL;
	NnError error = { 0 };
	bool kept;

	if (!mkdtemp(directory))
		return;
	snprintf(plans, sizeof(plans), "%s/plans", directory);
	setenv("BICYCLE_PLAN_CACHE", plans, 1);
	steady.steady = true;
	ok(!is_kept(convs, &steady) && !is_kept(convs, &steady) && files_in(plans, path) == 0,
	   "a plan that is not worth it is not kept");
	kept = is_kept(convs, &some_conv);
	ok(!kept && is_kept(convs, &some_conv) && files_in(plans, path) == 1,
	   "another is, in a directory made for it, and found again");
	if (other && strstr(other, "\"driverVer\": 13000"))
		memcpy(strstr(other, "\"driverVer\": 13000"), "\"driverVer\": 13010", 18);
	if (cuda_convs_describe(other, &newer, &error) == NN_OK)
	{
		kept = is_kept(newer, &some_conv);
		ok(!kept && is_kept(newer, &some_conv) && files_in(plans, path) == 2,
		   "but not under a newer driver, which gets its own");
		(void) remove(path);
		(void) files_in(plans, path);
		(void) remove(path);
		(void) is_kept(convs, &some_conv);
		(void) files_in(plans, path);
		test_damage(convs, path);
	}
	cuda_convs_close(newer);
	unsetenv("BICYCLE_PLAN_CACHE");
	while (files_in(plans, path) > 0)
		if (remove(path) != 0)
			break;
	(void) rmdir(plans);
	(void) rmdir(directory);
	free(other);
}

/*
 * Of engines that differ in clusters or stages alone one is timed, and where
 * few blocks would read many weights some that split sums are among them.
 */
static void
test_candidates(CudaConvs *convs, const char *card)
{
	static const CudaConvShape deep = { .type = KERNEL_F16,
										.n = 1,
										.h = 16,
										.w = 16,
										.c = 512,
										.oh = 8,
										.ow = 8,
										.k = 512,
										.kernel = 4,
										.stride = 2,
										.pad = 1 };
	CudaConvChoice choices[CUDNN_MAX_CLASSES];
	int n = cuda_conv_candidates(convs, &deep, choices), alike = 0, split = 0, last = 0;

	for (int i = 0; i < n; i++)
	{
		split += choices[i].split > 1;
		last = choices[i].place;
		for (int k = 0; k < i; k++)
			alike += choices[k].engine == choices[i].engine && choices[k].tile == choices[i].tile &&
					 choices[k].split == choices[i].split;
	}
	ok(n > 3 && alike == 0 && split > 0 && last >= n,
	   "%s: %d of the %d first engines of a deep layer would be timed, %d split sums", card, n,
	   last + 1, split);
}

/*
 * Without a GPU every engine fails when it is run: each is tried, and the end
 * is an error of its own.
 */
static void
test_proof(CudaConvs *convs)
{
	CudaConv *conv = NULL;
	NnError error = { 0 };
	char memory[16];
	NnStatus status = cuda_conv_open(convs, &some_conv, &conv, &error);

	if (status == NN_OK)
		status = cuda_conv_prove(convs, conv, memory, memory, memory, memory, CUDA_MAX_WORKSPACE,
								 &error);
	ok(status == NN_EUNSUPPORTED && conv && cuda_conv_choice(conv)->unsound &&
		   cuda_conv_choice(conv)->fallback,
	   "where no engine runs, all are tried, up to number %d of the fallbacks: %s",
	   conv ? cuda_conv_choice(conv)->place : -1, error.message);
	if (conv)
		cuda_conv_close(conv);
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
	card_cache = json && strstr(json, "\"l2CacheSize\": ")
					 ? strtoull(strstr(json, "\"l2CacheSize\": ") + 15, NULL, 10)
					 : 0;
	if (!ok(json && card_cache > 0 && cuda_convs_describe(json, &convs, &error) == NN_OK,
			"cuDNN takes the description %s", file))
	{
		diag("%s: %s", error.message, error.detail);
		free(json);
		return;
	}
	if (step == 2)
	{
		test_keeping(convs, json);
		test_proof(convs);
	}
	test_candidates(convs, file);
	test_metric(convs, file, "alex");
	test_metric(convs, file, "vgg");
	for (int i = 0; i < 4 && precisions[i] != NN_PRECISION_AUTO; i++)
		test_operators(convs, file, precisions[i]);
	for (int i = 0; i < 4 && precisions[i] != NN_PRECISION_AUTO; i++)
		for (size_t k = 0; k < sizeof(configs) / sizeof(configs[0]); k++)
			test_config(convs, file, precisions[i], configs[k], step);
	for (int i = 0; i < 4 && precisions[i] != NN_PRECISION_AUTO; i++)
		for (size_t k = 0; k < (i == 2 ? sizeof(fits) / sizeof(fits[0]) : 2); k++)
			test_training(convs, file, precisions[i], fits[k]);
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
		test_card(cards[i].file, cards[i].precisions, i == 0 ? 2 : 4);
	return done_testing();
}
#endif
