/*
 * engine_bench.c
 *	  Milliseconds an image of the neural core: G and E, in each precision that
 *	  the device has.
 *
 *		engine_bench [threads [runs [network [device]]]]
 *		engine_bench threads 0 -
 *
 * The weights are bench_model.h's. Prints a line for each network, precision
 * and batch: the median and the least time of an image, and the multiply-adds
 * that means a second. With a network (G256, G128, E256) only its lines; "all"
 * means all. Images go in and come out as floats; with another device than the
 * CPU as bytes, as the engine has them, in batches up to 64. With
 * BICYCLE_TEST_SMALL set, networks are small, for an imitated GPU.
 *
 * With "-" for a network it is one side of a comparison (bench/bench.py): it
 * reads orders, and answers each by a line of JSON. "open G256 fp32" makes that
 * network, or says why not; "check FILE" writes what it makes of one image;
 * "run 4 1.5" runs batches of four for so many seconds, after one that warms
 * up, and gives the milliseconds of an image of each.
 */
#include "bench_model.h"

#define WARM_UP 0.5 /* s, on a GPU */

typedef struct Subject
{
	const char *name;
	NnNetwork network;
	int size;
	double gflop; /* of an image, convolutions only (a multiply-add is two) */
} Subject;

static Subject subjects[] = {
	{ "G256", NN_NET_G, 256, 12.611 },
	{ "G128", NN_NET_G, 128, 3.140 },
	{ "E256", NN_NET_E, 256, 9.085 },
};

#define SUBJECTS (sizeof(subjects) / sizeof(subjects[0]))
#define SMALL 64 /* pixels, of small networks */

static bool
small(void)
{
	return getenv("BICYCLE_TEST_SMALL") != NULL;
}

static NnModel *
make_model(NnDevice *device, int size, NnPrecision precision)
{
	NnConfig config;

	nn_config_default(&config);
	config.size = config.encoder_size = size;
	config.levels = 0;
	for (int side = size; side > 1; side /= 2)
		config.levels++;
	if (small())
		config.ngf = config.nef = 4;
	return bench_model(device, &config, precision);
}

/* ---- One side of a comparison -------------------------------------------- */

#define LEAST_RUNS 2
#define MOST_RUNS 10000

/* What an open network runs on, and into. */
typedef struct Side
{
	NnDevice *device;
	NnModel *model; /* NULL: none is open */
	NnNetwork network;
	int size;
} Side;

static void
side_open(Side *side, const char *network, const char *name)
{
	NnPrecision precision = NN_PRECISION_FP32;

	while (precision < NN_PRECISION_TF32 && strcmp(nn_precision_name(precision), name) != 0)
		precision++;
	if (side->model)
		nn_model_free(side->model);
	side->model = NULL;
	side->network = network[0] == 'G' ? NN_NET_G : NN_NET_E;
	side->size = atoi(network + 1);
	if (!nn_device_supports(side->device, precision))
	{
		printf("{\"skip\": \"this processor has no %s\"}\n", name);
		return;
	}
	side->model = make_model(side->device, side->size, precision);
	printf("{}\n");
}

/* The numbers that one batch gives; *n of them. The caller frees it. */
static float *
side_batch(const Side *side, int batch, const float *image, const float *z, size_t *n)
{
	size_t pixels = (size_t) batch * side->size * side->size * 3, codes = (size_t) batch * 8;
	NnError error;
	NnStatus status;
	float *out;

	*n = side->network == NN_NET_G ? pixels : 2 * codes;
	out = calloc(*n, sizeof(float));
	status = side->network == NN_NET_G
				 ? nn_model_translate_float(side->model, batch, image, z, out, &error)
				 : nn_model_encode_float(side->model, batch, image, out, out + codes, &error);
	if (status != NN_OK)
		fail(&error);
	return out;
}

static void
side_run(const Side *side, int batch, double seconds, const char *path)
{
	float *image = numbers(7, 1, (size_t) batch * side->size * side->size * 3);
	float *z = numbers(8, 1, (size_t) batch * 8);
	double began = 0, start;

	for (int i = -1; i < LEAST_RUNS || (i < MOST_RUNS && now() - began < seconds); i++)
	{
		size_t n;
		float *out;

		start = now();
		out = side_batch(side, batch, image, z, &n);
		if (i >= 0)
			printf("%s%.4f", i > 0 ? ", " : "{\"ms\": [", (now() - start) * 1e3 / batch);
		else
			began = now();
		if (path)
		{
			FILE *file = fopen(path, "wb");

			if (!file || fwrite(out, sizeof(float), n, file) != n || fclose(file) != 0)
				exit(1);
			i = MOST_RUNS;
		}
		free(out);
	}
	printf(path ? "{}\n" : "]}\n");
	free(image);
	free(z);
}

static void
serve_orders(NnDevice *device)
{
	Side side = { .device = device };
	char line[1024], first[1024], second[32];

	printf("{\"version\": \"%s\"}\n", nn_device_describe(device));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
	{
		if (sscanf(line, "open %1023s %31s", first, second) == 2)
			side_open(&side, first, second);
		else if (side.model && sscanf(line, "check %1023s", first) == 1)
			side_run(&side, 1, 0, first);
		else if (side.model && sscanf(line, "run %1023s %31s", first, second) == 2)
			side_run(&side, atoi(first), atof(second), NULL);
		else
			printf("{\"skip\": \"not understood\"}\n");
		fflush(stdout);
	}
	if (side.model)
		nn_model_free(side.model);
}

/* ---- A line for each ----------------------------------------------------- */

static void
measure(NnModel *model, const Subject *s, int batch, int runs, bool floats)
{
	size_t pixels = (size_t) batch * s->size * s->size * 3;
	float *image = numbers(7, 1, pixels), *z = numbers(8, 1, (size_t) batch * 8),
		  *out = numbers(9, 1, pixels), *logvar = numbers(9, 1, (size_t) batch * 8);
	uint8_t *bytes = (uint8_t *) image, *made = (uint8_t *) out;
	double *times = calloc(runs, sizeof(double)), began = now();
	NnError error;

	for (int i = small() ? -1 : -2; i < runs; i++)
	{
		double start = now();
		NnStatus status;

		/* a GPU that was idle takes long to come to its clock */
		if (i == 0 && !floats && !small() && start - began < WARM_UP)
			i = -1;

		if (s->network == NN_NET_G)
			status = floats ? nn_model_translate_float(model, batch, image, z, out, &error)
							: nn_model_translate(model, batch, bytes, z, made, &error);
		else
			status = floats ? nn_model_encode_float(model, batch, image, out, logvar, &error)
							: nn_model_encode(model, batch, bytes, out, logvar, &error);

		if (status != NN_OK)
			fail(&error);
		if (i >= 0)
			times[i] = (now() - start) * 1e3 / batch;
	}
	sort_times(times, runs);
	printf("%s %s batch %2d: median %*.*f ms, least %*.*f ms an image, %6.1f GFLOP/s\n", s->name,
		   nn_precision_name(nn_model_precision(model)), batch, floats ? 7 : 9, floats ? 2 : 4,
		   times[runs / 2], floats ? 7 : 9, floats ? 2 : 4, times[0],
		   s->gflop / times[runs / 2] * 1e3);
	fflush(stdout);
	free(image);
	free(z);
	free(out);
	free(logvar);
	free(times);
}

int
main(int argc, char **argv)
{
	static const int batches[] = { 1, 4, 16, 64 };
	int threads = argc > 1 ? atoi(argv[1]) : 0;
	int runs = argc > 2 ? atoi(argv[2]) : 9;
	const char *only = argc > 3 && strcmp(argv[3], "all") != 0 ? argv[3] : NULL;
	const char *name = argc > 4 ? argv[4] : "cpu";
	bool cpu = strcmp(name, "cpu") == 0;
	NnDevice *device;
	NnError error;

	if (nn_device_open(name, threads, &device, &error) != NN_OK)
		fail(&error);
	if (only && strcmp(only, "-") == 0)
	{
		serve_orders(device);
		nn_device_close(device);
		return 0;
	}
	printf("%s\n", nn_device_describe(device));
	for (size_t i = 0; small() && i < SUBJECTS; i++)
		subjects[i].size = SMALL;
	for (size_t i = 0; i < SUBJECTS; i++)
		for (int p = NN_PRECISION_FP32; p <= NN_PRECISION_TF32; p++)
		{
			NnModel *model;

			if (!nn_device_supports(device, (NnPrecision) p) ||
				(only && strcmp(only, subjects[i].name) != 0) ||
				(small() && p != NN_PRECISION_BF16))
				continue;
			model = make_model(device, subjects[i].size, (NnPrecision) p);
			for (int b = 0; b < (cpu || small() ? 3 : 4); b++)
				measure(model, &subjects[i], batches[b], runs > 0 ? runs : 1, cpu);
			nn_model_free(model);
		}
	nn_device_close(device);
	return 0;
}
