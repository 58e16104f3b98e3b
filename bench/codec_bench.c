/*
 * codec_bench.c
 *	  What coding a picture costs: median milliseconds of a processor to decode
 *	  a PNG or JPEG file and resize it to 256 x 256, to encode that as PNG, and
 *	  as JPEG of quality 90.
 *
 *		codec_bench FILE [runs]
 *
 * Prints the three numbers in one line.
 */
#include "bench.h"

#include "image/image.h"

#include <malloc.h>

/*
 * Milliseconds that this program has had of processors: what it costs, however
 * busy the machine is.
 */
static double
processor_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static uint8_t *
read_file(const char *path, size_t *length)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = NULL;

	if (file && fseek(file, 0, SEEK_END) == 0 && (*length = (size_t) ftell(file)) > 0 &&
		fseek(file, 0, SEEK_SET) == 0)
	{
		bytes = malloc(*length);
		if (bytes && fread(bytes, 1, *length, file) != *length)
			*length = 0;
	}
	if (file)
		fclose(file);
	if (!bytes || *length == 0)
	{
		fprintf(stderr, "codec_bench: %s cannot be read\n", path);
		exit(1);
	}
	return bytes;
}

static void
check(ImageStatus status, const ImageError *error)
{
	if (status != IMAGE_OK)
	{
		fprintf(stderr, "codec_bench: %s\n", error->message);
		exit(1);
	}
}

int
main(int argc, char **argv)
{
	static const ImageLimits limits = { .max_pixels = 1 << 26, .max_memory = (size_t) 1 << 30 };
	int runs = argc > 2 ? atoi(argv[2]) : 51;
	double *times[3];
	size_t length;
	uint8_t *file;

	mallopt(M_MMAP_THRESHOLD, 1 << 20); /* as the engine does */
	mallopt(M_TRIM_THRESHOLD, 8 << 20);
	if (argc < 2 || runs < 1)
	{
		fprintf(stderr, "usage: codec_bench FILE [runs]\n");
		return 1;
	}
	file = read_file(argv[1], &length);
	for (int i = 0; i < 3; i++)
		if (!(times[i] = calloc(runs, sizeof(double))))
			return 1;
	for (int run = 0; run < runs; run++)
	{
		Image read, image;
		ImageError error;
		uint8_t *made[2];
		size_t bytes;
		double at[4];

		at[0] = processor_time();
		check(image_decode(file, length, 3, 0, &limits, &read, &error), &error);
		check(image_resize(&read, 256, 256, &image, &error), &error);
		at[1] = processor_time();
		check(image_encode_png(&image, &made[0], &bytes, &error), &error);
		at[2] = processor_time();
		check(image_encode_jpeg(&image, 90, &made[1], &bytes, &error), &error);
		at[3] = processor_time();
		for (int i = 0; i < 3; i++)
			times[i][run] = at[i + 1] - at[i];
		free(made[0]);
		free(made[1]);
		image_free(&read);
		image_free(&image);
	}
	for (int i = 0; i < 3; i++)
	{
		sort_times(times[i], runs);
		printf("%.4f%s", times[i][runs / 2], i < 2 ? " " : "\n");
		free(times[i]);
	}
	free(file);
	return 0;
}
