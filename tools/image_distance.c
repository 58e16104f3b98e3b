/*
 * image_distance.c
 *	  Says how far images are apart: image_distance <pairs >distances
 *
 * A line of standard input has fields between tabs; the last two are images in
 * hexadecimal, as psql prints a bytea ("\x89504e47..."). In the line that goes
 * to standard output for it, two numbers stand in their place:
 *
 *	  the mean absolute difference of their values, each of -1 to 1, as the
 *	  networks see them; the mean over all pixels of the colour difference as an
 *	  eye sees it: the distance in CIELAB (CIE 1976), where 2.3 is about what
 *	  one just notices.
 *
 * Images of one line must be of one size. All memory is this program's own and
 * lives until it ends; one thread.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "tools/hex.h"

typedef struct Lab
{
	float l, a, b;
} Lab;

static void
fail(const char *what, const char *detail)
{
	fprintf(stderr, "image_distance: %s%s%s\n", what, *detail ? ": " : "", detail);
	exit(1);
}

static Image
read_image(char *field)
{
	const ImageLimits limits = { .max_pixels = 64u << 20, .max_memory = (size_t) 1 << 30 };
	ImageError error;
	Image image;
	size_t length;

	if (!unhex(field, strlen(field), &length))
		fail("a field is not hexadecimal", "");
	if (image_decode((uint8_t *) field, length, 3, 0, &limits, &image, &error) != IMAGE_OK)
		fail(error.message, error.detail);
	return image;
}

/* The curve of sRGB, IEC 61966-2-1, of all values. */
static const float *
linear_light(void)
{
	static float table[256];

	if (table[255] == 0)
		for (int i = 0; i < 256; i++)
		{
			float v = (float) i / 255;

			table[i] = v <= 0.04045f ? v / 12.92f : powf((v + 0.055f) / 1.055f, 2.4f);
		}
	return table;
}

static float
lab_curve(float t)
{
	return t > 216.0f / 24389 ? cbrtf(t) : (24389.0f / 27 * t + 16) / 116;
}

/* sRGB to CIELAB under D65. */
static Lab
to_lab(const uint8_t *rgb)
{
	const float *linear = linear_light();
	float r = linear[rgb[0]], g = linear[rgb[1]], b = linear[rgb[2]];
	float x = lab_curve((0.4124564f * r + 0.3575761f * g + 0.1804375f * b) / 0.95047f),
		  y = lab_curve(0.2126729f * r + 0.7151522f * g + 0.0721750f * b),
		  z = lab_curve((0.0193339f * r + 0.1191920f * g + 0.9503041f * b) / 1.08883f);

	return (Lab){ 116 * y - 16, 500 * (x - y), 200 * (y - z) };
}

static void
print_distances(const Image *p, const Image *q)
{
	size_t pixels = (size_t) p->width * (size_t) p->height;
	double values = 0, colors = 0;

	if (p->width != q->width || p->height != q->height)
		fail("images of one line differ in size", "");
	for (size_t i = 0; i < pixels; i++)
	{
		const uint8_t *one = p->pixels + 3 * i, *other = q->pixels + 3 * i;
		Lab u, v;

		if (memcmp(one, other, 3) == 0)
			continue;
		for (int channel = 0; channel < 3; channel++)
			values += abs(one[channel] - other[channel]) / 127.5;
		u = to_lab(one);
		v = to_lab(other);
		colors += sqrtf((u.l - v.l) * (u.l - v.l) + (u.a - v.a) * (u.a - v.a) +
						(u.b - v.b) * (u.b - v.b));
	}
	printf("%.6f\t%.4f\n", values / (3 * (double) pixels), colors / (double) pixels);
}

int
main(int argc, char **argv)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	if (argc != 1)
		fail("usage: image_distance <pairs >distances", "");
	while ((length = getline(&line, &room, stdin)) >= 0)
	{
		char *second, *first;
		Image p, q;

		if (length > 0 && line[length - 1] == '\n')
			line[length - 1] = '\0';
		second = strrchr(line, '\t');
		if (second != NULL)
			*second++ = '\0';
		first = strrchr(line, '\t');
		if (second == NULL || first == NULL)
			fail("a line has less than three fields", "");
		*first++ = '\0';
		p = read_image(first);
		q = read_image(second);
		printf("%s\t", line);
		print_distances(&p, &q);
		image_free(&p);
		image_free(&q);
	}
	if (ferror(stdin))
		fail("could not read pairs", strerror(errno));
	if (fflush(stdout) != 0)
		fail("could not write distances", strerror(errno));
	return 0;
}
