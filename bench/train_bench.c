/*
 * train_bench.c
 *	  Seconds an iteration of training and its peak memory, on the CPU.
 *
 *		train_bench [threads [iterations [subject]]]
 *
 * The networks of the official defaults at 256 and 128 with batches of two (the
 * subjects T256 and T128, which train_peer.py measures as well), and small ones
 * at 64. Images are numbers of a linear congruential generator and weights are
 * fresh ones; speed depends on neither. Each subject runs in a process of its
 * own, so that its peak is its own. Prints a line for each subject and
 * precision: the median and the least time of an iteration after two that warm
 * up, iterations a second, the peak of resident memory, and the time that
 * opening the fit took.
 */
#include "bench.h"
#include "nn/fit.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Subject
{
	const char *name;
	const char *options;
} Subject;

static const Subject subjects[] = {
	{ "T256", "{\"size\":256,\"batch_size\":2}" },
	{ "T128", "{\"size\":128,\"batch_size\":2}" },
	{ "T64-24x4", "{\"size\":64,\"ngf\":24,\"nef\":16,\"ndf\":16,\"batch_size\":4}" },
	{ "T64-32x8", "{\"size\":64,\"ngf\":32,\"nef\":32,\"ndf\":32,\"batch_size\":8}" },
	{ "T64-32x16", "{\"size\":64,\"ngf\":32,\"nef\":32,\"ndf\":32,\"batch_size\":16}" },
	{ "T64-64x8", "{\"size\":64,\"batch_size\":8}" },
	{ "T64-64x16", "{\"size\":64,\"batch_size\":16}" },
};

/*
 * Opens a fit, runs the iterations and prints the line. In a process of its
 * own, which ends with it.
 */
static void
measure(const Subject *subject, NnPrecision precision, int threads, int iterations)
{
	double *times = calloc(iterations, sizeof(double));
	NnDevice *device;
	NnFit *fit;
	NnConfig config;
	NnTrainOptions options;
	NnLosses losses;
	NnError error;
	struct rusage usage;
	size_t pixels;
	double start, opened;
	float *a, *b;

	if (!times)
		exit(1);
	if (nn_device_open("cpu", threads, &device, &error) != NN_OK ||
		nn_train_options_parse(&config, &options, subject->options, strlen(subject->options),
							   &error) != NN_OK)
		fail(&error);
	if (!nn_device_supports(device, precision))
		exit(0);
	pixels = (size_t) options.batch_size * config.size * config.size;
	a = numbers(7, 1, pixels * config.input_nc);
	b = numbers(8, 1, pixels * config.output_nc);
	start = now();
	if (nn_fit_open(device, &config, &options, precision, 1000, NULL, 0, &fit, &error) != NN_OK)
		fail(&error);
	opened = now() - start;
	for (int i = -2; i < iterations; i++)
	{
		start = now();
		if (nn_fit_step(fit, a, b, NULL, &losses, &error) != NN_OK)
			fail(&error);
		if (i >= 0)
			times[i] = now() - start;
	}
	sort_times(times, iterations);
	(void) getrusage(RUSAGE_SELF, &usage);
	printf("%s %s: median %7.3f s, least %7.3f s an iteration, %6.2f iterations/s, peak %5ld MiB, "
		   "opened in %.2f s\n",
		   subject->name, precision == NN_PRECISION_BF16 ? "bf16" : "fp32", times[iterations / 2],
		   times[0], 1 / times[iterations / 2], usage.ru_maxrss / 1024, opened);
	fflush(stdout);
	_exit(0);
}

int
main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 0;
	int iterations = argc > 2 && atoi(argv[2]) > 0 ? atoi(argv[2]) : 9;

	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
		for (int p = NN_PRECISION_FP32; p <= NN_PRECISION_BF16; p++)
		{
			int status;
			pid_t child;

			if (argc > 3 && strcmp(argv[3], subjects[i].name) != 0)
				continue;
			child = fork();
			if (child == 0)
				measure(&subjects[i], (NnPrecision) p, threads, iterations);
			if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
				return 1;
		}
	return 0;
}
