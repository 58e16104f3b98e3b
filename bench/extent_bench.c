/*
 * extent_bench.c
 *	  What pictures of any size cost: time and memory of the official generator
 *	  by the size it runs at, and what many sizes of one session do to another.
 *
 *		extent_bench sizes [threads [runs]]
 *		extent_bench company [threads [seconds [rounds]]]
 *
 * `sizes` prints a line a size: what a plan takes, by the figure that is known
 * before and in fact, and the processor's time, which others on the machine
 * disturb least with one thread: of an image with and without the making of its
 * plan; and beside square sizes that of a model whose own size that is, whose
 * algorithms were chosen for it.
 *
 * `company` starts an engine. One session sends one image after another at the
 * model's own size; beside it nobody, or a session with 8 in flight, of a
 * thousand sizes or of the few that give the same areas. Prints the first one's
 * latencies, and the engine's memory.
 */
#include "bench_model.h"
#include "../test/unit/engine_client.h"

#include <pthread.h>
#include <stdatomic.h>

#include "image/image.h"

/* ---- Sizes --------------------------------------------------------------- */

static NnModel *
official_model(NnDevice *device, int size)
{
	NnConfig config;

	nn_config_default(&config);
	config.size = size;
	config.net_e = NN_ENCODER_NONE;
	config.encoder_size = 0;
	return bench_model(device, &config, NN_PRECISION_FP32);
}

static double
processor_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Medians in ms: of the first run, which makes the plan, and of later ones. */
static void
time_size(NnModel *model, NnExtent e, int runs, double *first, double *later)
{
	size_t count = (size_t) e.h * e.w * 3;
	uint8_t *in = malloc(count), *out = malloc(count);
	float *z = numbers(8, 1, 8);
	double *firsts = calloc(3, sizeof(double)), *times = calloc(runs, sizeof(double));
	NnError error;

	for (size_t i = 0; i < count; i++)
		in[i] = (uint8_t) (i * 2654435761u >> 24);
	for (int i = -3; i < runs; i++)
	{
		double start = processor_time(), *time = i < 0 ? &firsts[i + 3] : &times[i];

		if (i <= 0)
			nn_model_keep_extents(model, 0);
		if (nn_model_translate_at(model, e, 1, in, z, out, &error) != NN_OK)
			fail(&error);
		*time = (processor_time() - start) * 1e3;
	}
	sort_times(firsts, 3);
	sort_times(times, runs);
	*first = firsts[1];
	*later = times[runs / 2];
	free(in);
	free(out);
	free(z);
	free(firsts);
	free(times);
}

static void
bench_sizes(int threads, int runs)
{
	static const NnExtent sizes[] = { { 256, 256 },  { 256, 512 },   { 512, 512 },
									  { 512, 768 },  { 768, 768 },   { 768, 1024 },
									  { 256, 2048 }, { 1024, 1024 }, { 1024, 2048 } };
	NnDevice *device;
	NnModel *model;
	NnError error;

	if (nn_device_open("cpu", threads, &device, &error) != NN_OK)
		fail(&error);
	printf("%s\n", nn_device_describe(device));
	model = official_model(device, 256);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		NnExtent e = sizes[i];
		size_t figure = nn_model_image_bytes(model, e, &error), kept;
		double first, later, pixels = (double) e.h * e.w / 65536;

		time_size(model, e, runs, &first, &later);
		kept = nn_model_extents_bytes(model);
		printf("%4d x %4d: figure %6.1f MB, plan %6.1f MB; first %8.1f ms, then %8.1f ms, "
			   "%6.1f ms for each 256 x 256",
			   e.w, e.h, figure / 1e6, kept / 1e6, first, later, later / pixels);
		nn_model_keep_extents(model, 0);
		if (e.h == e.w && e.h > 256)
		{
			NnModel *own = official_model(device, e.h);

			time_size(own, e, runs, &first, &later);
			printf("; at a model's own size %8.1f ms", later);
			nn_model_free(own);
		}
		printf("\n");
		fflush(stdout);
	}
	nn_model_free(model);
	nn_device_close(device);
}

/* ---- Company ------------------------------------------------------------- */

#define IN_FLIGHT 8
#define SIZES 1000

static EngineProcess process;
static Model model;
static _Atomic bool stop;
static _Atomic long translated;

typedef struct File
{
	uint8_t *bytes;
	size_t length;
} File;

static File
make_file(int width, int height)
{
	Image image = { width, height, 3, malloc((size_t) width * (size_t) height * 3) };
	ImageError error;
	File file;

	for (int i = 0; i < width * height * 3; i++)
		image.pixels[i] = (uint8_t) (i / 7 * 3 + i % 11);
	if (image_encode_png(&image, &file.bytes, &file.length, &error) != IMAGE_OK)
		bail_out("cannot encode");
	image_free(&image);
	return file;
}

static ImageCall
call_with(const File *file)
{
	static const float z[8] = { 0.5f, -0.5f };

	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model.hash,
						.image = file->bytes,
						.length = file->length,
						.z = z,
						.nz = 8,
						.fit = BICYCLE_FIT_INPUT };
}

/* A session with many in flight; its argument is a list of SIZES files. */
static void *
keep_busy(void *argument)
{
	const File *files = argument;
	Client client;
	uint64_t next = 1, answered = 0;

	client_hello(&client, &process, 1);
	while (!stop || answered + 1 < next)
	{
		while (!stop && next - answered <= IN_FLIGHT)
		{
			ImageCall call = call_with(&files[next % SIZES]);
			size_t length;
			uint8_t *body = image_call_body(&call, &length);

			client_reserve(&client, next, length);
			client_send(&client, BICYCLE_TRANSLATE, next++, body, length);
			free(body);
		}
		if (answered + 1 == next || !client_receive(&client))
			break;
		if (client.frame.type == BICYCLE_ERROR)
			bail_out("an image failed: %s", (char *) client.body + sizeof(BicycleError));
		answered += client.frame.type == BICYCLE_RESULT;
		translated += client.frame.type == BICYCLE_RESULT;
	}
	client_close(&client);
	return NULL;
}

static long
resident_kb(void)
{
	char path[64];
	long pages = 0, ignored;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int) process.pid);
	if ((file = fopen(path, "r")) != NULL)
	{
		if (fscanf(file, "%ld %ld", &ignored, &pages) != 2)
			pages = 0;
		fclose(file);
	}
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void
measure_beside(const char *what, const File *files, int seconds)
{
	File own = make_file(64, 64);
	ImageCall call = call_with(&own);
	Client client;
	pthread_t thread;
	double *times = calloc(1000000, sizeof(double)), end = now() + seconds;
	int n = 0;

	client_hello(&client, &process, 1);
	stop = false;
	translated = 0;
	if (files)
		pthread_create(&thread, NULL, keep_busy, (void *) files);
	for (uint64_t id = 1; now() < end && n < 1000000; id++)
	{
		double start = now();

		if (!client_run(&client, id, &call, &model))
			bail_out("cannot translate");
		if (now() > end - seconds + 1) /* warm */
			times[n++] = (now() - start) * 1e3;
	}
	stop = true;
	if (files)
		pthread_join(thread, NULL);
	sort_times(times, n);
	printf("%-28s %6d translations: p50 %8.2f ms, p99 %8.2f ms; beside %6.1f images/s; engine "
		   "holds %6.1f MB, resident %6.1f MB\n",
		   what, n, times[n / 2], times[n * 99 / 100], (double) translated / seconds,
		   client_status(&client).memory / 1e6, resident_kb() / 1e3);
	fflush(stdout);
	client_close(&client);
	free(times);
	free(own.bytes);
}

/*
 * A thousand pictures, all of other sizes, for networks of 1 to 16 squares; and
 * for each one of the same area, of as few sizes as that takes.
 */
static void
make_files(File *many, File *few)
{
	File of_area[17] = { 0 };
	int n = 0;

	for (int step = 0; n < SIZES; step++)
	{
		int h = 1 + step * 7 % 16, w = 1 + step * 5 % 11;

		if (h * w > 16 || h > 4 * w || w > 4 * h)
			continue;
		if (!of_area[h * w].bytes)
			of_area[h * w] = make_file(64 * w - 5, 64 * h - 5);
		few[n] = of_area[h * w];
		many[n] = make_file(64 * w + n % 29 - 14, 64 * h + n / 29 % 29 - 14);
		n++;
	}
}

static void
bench_company(int threads, int seconds, int rounds)
{
	char setting[32];
	const char *settings[] = { "device cpu", setting, NULL };
	File *many = calloc(SIZES, sizeof(File)), *few = calloc(SIZES, sizeof(File));
	Client client;

	snprintf(setting, sizeof(setting), "threads %d", threads);
	engine_start(&process, settings);
	client_hello(&client, &process, 1);
	if (!client_create(&client, 1, "{\"size\":64,\"levels\":6,\"ngf\":32,\"net_e\":\"none\"}",
					   &model))
		bail_out("cannot create a model");
	client_close(&client);
	make_files(many, few);
	measure_beside("alone", NULL, seconds);
	for (int round = 0; round < rounds; round++)
	{
		measure_beside("beside a few sizes", few, seconds);
		measure_beside("beside a thousand sizes", many, seconds);
	}
	measure_beside("alone again", NULL, seconds);
	engine_end(&process);
}

int
main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 2;
	int count = argc > 3 ? atoi(argv[3]) : 0;
	int rounds = argc > 4 ? atoi(argv[4]) : 2;

	if (argc > 1 && strcmp(argv[1], "company") == 0)
		bench_company(threads, count > 1 ? count : 20, rounds);
	else
		bench_sizes(threads, count > 0 ? count : 5);
	return 0;
}
