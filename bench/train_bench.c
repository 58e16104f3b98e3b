/*
 * train_bench.c
 *	  Seconds an iteration of training and its peak memory; or the losses of
 *	  its iterations.
 *
 *		train_bench [threads [iterations [subject [device [precision]]]]]
 *		train_bench threads iterations losses device [precision [seed]]
 *
 * The networks of the official defaults at 256 and 128 with batches of two (the
 * subjects T256 and T128, which train_peer.py measures as well), small ones at
 * 64, and on a GPU batches of 16 at 256; "all" means all that are for the
 * device. Images are numbers of a linear congruential generator and weights are
 * fresh ones; speed depends on neither. Each subject runs in a process of its
 * own, so that its peak is its own. Prints a line for each subject and
 * precision: the median and the least time of an iteration after some that warm
 * up, iterations a second, the peak of memory, resident or of the GPU, and the
 * time that opening the fit took.
 *
 * "losses" trains small networks at 64 from one seed (default 5), on outlines
 * of discs and the discs, in each precision, and prints the means of every 20
 * iterations, to be compared between devices, precisions or seeds.
 */
#include "bench.h"
#include "nn/fit.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Subject
{
	const char *name;
	const char *options;
	bool gpu, cpu; /* whether "all" means it there */
} Subject;

static const Subject subjects[] = {
	{ "T256", "{\"size\":256,\"batch_size\":2}", true, true },
	{ "T256x16", "{\"size\":256,\"batch_size\":16}", true, false },
	{ "T128", "{\"size\":128,\"batch_size\":2}", false, true },
	{ "T64-24x4", "{\"size\":64,\"ngf\":24,\"nef\":16,\"ndf\":16,\"batch_size\":4}", false, true },
	{ "T64-32x8", "{\"size\":64,\"ngf\":32,\"nef\":32,\"ndf\":32,\"batch_size\":8}", false, true },
	{ "T64-32x16", "{\"size\":64,\"ngf\":32,\"nef\":32,\"ndf\":32,\"batch_size\":16}", false,
	  true },
	{ "T64-64x8", "{\"size\":64,\"batch_size\":8}", false, true },
	{ "T64-64x16", "{\"size\":64,\"batch_size\":16}", false, true },
};

/* Of the imitated GPU, which is slow: figures are not what it is run for. */
static const char tiny[] = "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"batch_size\":2}";

/* Pairs of "losses": more than a batch, so that batches differ. */
#define DISCS 64
#define DISC_SIZE 64
#define LOSS_STRETCH 20
static const char disc_options[] =
	"{\"size\":64,\"ngf\":16,\"nef\":16,\"ndf\":16,\"batch_size\":4,\"seed\":%d}";

typedef struct Bench
{
	const char *device;
	int threads, iterations, seed;
	const char *precision; /* NULL: each */
} Bench;

/*
 * A fit of the options in that precision, opened in *opened seconds; the
 * process ends if the device cannot.
 */
static NnFit *
open_fit(const Bench *bench, const char *text, NnPrecision precision, NnDevice **device,
		 NnConfig *config, NnTrainOptions *options, double *opened)
{
	double start = now();
	NnError error;
	NnFit *fit;

	if (getenv("BICYCLE_TEST_SMALL"))
		text = tiny;
	if (nn_device_open(bench->device, bench->threads, device, &error) != NN_OK ||
		nn_train_options_parse(config, options, text, strlen(text), &error) != NN_OK)
		fail(&error);
	if (!nn_device_supports(*device, precision))
		exit(0);
	if (nn_fit_open(*device, config, options, precision, 1000, NULL, 0, &fit, &error) != NN_OK)
		fail(&error);
	*opened = now() - start;
	return fit;
}

/* MiB: resident, or of the GPU that has its own. */
static long
peak_mib(const NnDevice *device)
{
	NnDeviceMemory memory;
	struct rusage usage;

	if (nn_device_memory(device, &memory))
		return (long) (memory.used >> 20);
	(void) getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss / 1024;
}

/*
 * Opens a fit, runs the iterations and prints the line. In a process of its
 * own, which ends with it.
 */
static void
measure(const Subject *subject, NnPrecision precision, const Bench *bench)
{
	bool gpu = strcmp(bench->device, "cpu") != 0;
	double *times = calloc(bench->iterations, sizeof(double));
	NnDevice *device;
	NnConfig config;
	NnTrainOptions options;
	NnLosses losses;
	NnError error;
	double opened, start;
	NnFit *fit = open_fit(bench, subject->options, precision, &device, &config, &options, &opened);
	size_t pixels = (size_t) options.batch_size * config.size * config.size;
	float *a = numbers(7, 1, pixels * config.input_nc),
		  *b = numbers(8, 1, pixels * config.output_nc);

	if (!times)
		exit(1);
	for (int i = gpu ? -10 : -2; i < bench->iterations; i++)
	{
		start = now();
		if (nn_fit_step(fit, a, b, NULL, &losses, &error) != NN_OK)
			fail(&error);
		if (i >= 0)
			times[i] = now() - start;
	}
	sort_times(times, bench->iterations);
	printf("%s %s: median %*.*f s, least %*.*f s an iteration, %6.2f iterations/s, peak %5ld MiB, "
		   "opened in %.2f s\n",
		   subject->name, nn_precision_name(precision), gpu ? 9 : 7, gpu ? 5 : 3,
		   times[bench->iterations / 2], gpu ? 9 : 7, gpu ? 5 : 3, times[0],
		   1 / times[bench->iterations / 2], peak_mib(device), opened);
	fflush(stdout);
	_exit(0);
}

/* Pair `i`: the outline of a disc in white on black, and the disc in colour. */
static void
draw_disc(int i, float *a, float *b)
{
	float random[6], *r = numbers(i + 1, 1, 6);

	memcpy(random, r, sizeof(random));
	free(r);
	for (int p = 0; p < DISC_SIZE * DISC_SIZE; p++)
	{
		float x = (p % DISC_SIZE + 0.5f) / DISC_SIZE * 2 - 1 - random[1] / 2,
			  y = (p / DISC_SIZE + 0.5f) / DISC_SIZE * 2 - 1 - random[2] / 2,
			  away = sqrtf(x * x + y * y) - 0.4f;

		for (int c = 0; c < 3; c++)
		{
			a[p * 3 + c] = fabsf(away) < 0.06f ? 1 : -1;
			b[p * 3 + c] = away < 0 ? random[3 + c] : -1;
		}
	}
}

static void
print_losses(const Bench *bench, NnPrecision precision, int iteration, const NnLosses *sums)
{
	printf("losses %.4s %s %d:", bench->device, nn_precision_name(precision), iteration);
	for (int i = 0; i < NN_LOSSES; i++)
		if (sums->present[i])
			printf(" %s=%.6g", nn_loss_name((NnLoss) i), sums->value[i] / LOSS_STRETCH);
	printf("\n");
	fflush(stdout);
}

/* In a process of its own, which ends with it. */
static void
follow_losses(NnPrecision precision, const Bench *bench)
{
	const size_t image = (size_t) DISC_SIZE * DISC_SIZE * 3;
	NnDevice *device;
	NnConfig config;
	NnTrainOptions options;
	NnLosses losses, sums = { 0 };
	NnError error;
	double opened;
	char text[sizeof(disc_options) + 16];
	NnFit *fit;
	float *a = numbers(1, 1, DISCS * image), *b = numbers(1, 1, DISCS * image);

	snprintf(text, sizeof(text), disc_options, bench->seed);
	fit = open_fit(bench, text, precision, &device, &config, &options, &opened);
	for (int i = 0; i < DISCS; i++)
		draw_disc(i, a + i * image, b + i * image);
	for (int i = 0; i < bench->iterations; i++)
	{
		size_t first = (size_t) i * options.batch_size % DISCS * image;

		if (nn_fit_step(fit, a + first, b + first, NULL, &losses, &error) != NN_OK)
			fail(&error);
		for (int k = 0; k < NN_LOSSES; k++)
			sums.value[k] += losses.value[k];
		memcpy(sums.present, losses.present, sizeof(sums.present));
		if ((i + 1) % LOSS_STRETCH == 0)
		{
			print_losses(bench, precision, i + 1, &sums);
			sums = (NnLosses){ 0 };
		}
	}
	_exit(0);
}

/* Whether it ended well in a process of its own; subject NULL: losses. */
static bool
run_apart(const Subject *subject, NnPrecision precision, const Bench *bench)
{
	int status;
	pid_t child = fork();

	if (child == 0 && subject)
		measure(subject, precision, bench);
	if (child == 0)
		follow_losses(precision, bench);
	return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int
main(int argc, char **argv)
{
	const char *only = argc > 3 && strcmp(argv[3], "all") != 0 ? argv[3] : NULL;
	Bench bench = { .device = argc > 4 ? argv[4] : "cpu",
					.threads = argc > 1 ? atoi(argv[1]) : 0,
					.precision = argc > 5 ? argv[5] : NULL,
					.iterations = argc > 2 && atoi(argv[2]) > 0 ? atoi(argv[2]) : 9,
					.seed = argc > 6 ? atoi(argv[6]) : 5 };
	bool gpu = strcmp(bench.device, "cpu") != 0, good = true;

	for (int p = NN_PRECISION_FP32; p <= NN_PRECISION_TF32; p++)
	{
		if (bench.precision && strcmp(bench.precision, nn_precision_name((NnPrecision) p)) != 0)
			continue;
		if (only && strcmp(only, "losses") == 0 && p != NN_PRECISION_FP16)
			good &= run_apart(NULL, (NnPrecision) p, &bench);
		for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
			if (p != NN_PRECISION_FP16 && (only  ? strcmp(only, subjects[i].name) == 0
										   : gpu ? subjects[i].gpu
												 : subjects[i].cpu))
				good &= run_apart(&subjects[i], (NnPrecision) p, &bench);
	}
	return !good;
}
