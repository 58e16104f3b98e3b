/*
 * resize.c
 *	  Pillow's bicubic resampling, bit for bit: what the official data pipeline
 *	  does to every image.
 *
 * Separable: a horizontal and a vertical pass, bytes between them; a pass is
 * left out if its dimension does not change. When shrinking, the kernel is
 * widened by the scale (antialiasing). Weights are computed in double and
 * rounded to 22-bit fixed point, so that the sums are exact integers and their
 * order does not matter. The order of the passes does, by the rounding between
 * them: it is that of Pillow 13, which differs from earlier versions (always
 * horizontal first) where the height shrinks by more than twice what the width
 * does. Source: Pillow 13.0.0, src/libImaging/Resample.c.
 *
 * Taps, turned rows and the image between the passes live for one call; the
 * result is the caller's.
 */
#include "image/image_private.h"

#include <stdlib.h>
#include <string.h>

/* Bits after the point: 32 less 8 of the pixel and 2 for overshoot. */
#define PRECISION IMAGE_WEIGHT_BITS
#define LINES 16           /* rows that the horizontal pass takes at a time */
#define MAX_SIDE (1 << 28) /* keeps centre + support of an output within int */

/* Output i: of weight[i * width + j] * input[first[i] + j], j < count[i]. */
typedef struct ResizeTaps
{
	int width; /* most taps an output has */
	int *first;
	int *count;
	int32_t *weight;
	double *scratch; /* the weights of one output before rounding */
} ResizeTaps;

/* Most taps an output has: at least ceil(support) * 2 + 1. */
static int
taps_width(double support)
{
	return (int) support * 2 + 3;
}

/* What taps_make takes; `in` and `out` are from 1 to MAX_SIDE. */
static size_t
taps_bytes(int in, int out)
{
	size_t width = (size_t) taps_width(in > out ? 2.0 * in / out : 2.0);

	return image_size_add(
		image_size_mul((size_t) out, 2 * sizeof(int)),
		image_size_add(image_size_mul(image_size_mul((size_t) out, width), sizeof(int32_t)),
					   image_size_mul(width, sizeof(double))));
}

/* Keys' cubic with a = -0.5. */
static double
cubic(double x)
{
	const double a = -0.5;

	if (x < 0.0)
		x = -x;
	if (x < 1.0)
		return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
	if (x < 2.0)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0.0;
}

static void
taps_free(ResizeTaps *taps)
{
	free(taps->first);
	free(taps->count);
	free(taps->weight);
	free(taps->scratch);
}

static ImageStatus
taps_alloc(ResizeTaps *taps, int out, double support, ImageError *error)
{
	size_t bytes;

	memset(taps, 0, sizeof(*taps));
	taps->width = taps_width(support);
	bytes = image_size_mul(image_size_mul((size_t) out, (size_t) taps->width), sizeof(int32_t));
	if (bytes <= PTRDIFF_MAX)
	{
		taps->first = malloc((size_t) out * sizeof(int));
		taps->count = malloc((size_t) out * sizeof(int));
		taps->weight = malloc(bytes);
		taps->scratch = malloc((size_t) taps->width * sizeof(double));
	}
	if (taps->first == NULL || taps->count == NULL || taps->weight == NULL || taps->scratch == NULL)
	{
		taps_free(taps);
		return image_fail_memory(error, bytes);
	}
	return IMAGE_OK;
}

static ImageStatus
taps_make(ResizeTaps *taps, int in, int out, ImageError *error)
{
	double scale = (double) in / out;
	double stretch = scale < 1.0 ? 1.0 : scale;
	double support = 2.0 * stretch;
	double shrink = 1.0 / stretch;

	if (taps_alloc(taps, out, support, error) != IMAGE_OK)
		return error->code;
	for (int i = 0; i < out; i++)
	{
		double center = (i + 0.5) * scale;
		double sum = 0.0;
		int first = (int) (center - support + 0.5);
		int end = (int) (center + support + 0.5);
		int32_t *weight = taps->weight + (size_t) i * taps->width;

		if (first < 0)
			first = 0;
		if (end > in)
			end = in;
		for (int j = 0; j < end - first; j++)
		{
			taps->scratch[j] = cubic((j + first - center + 0.5) * shrink);
			sum += taps->scratch[j];
		}
		for (int j = 0; j < end - first; j++)
		{
			double w = sum != 0.0 ? taps->scratch[j] / sum : taps->scratch[j];

			weight[j] = (int32_t) (w < 0 ? w * (1 << PRECISION) - 0.5 : w * (1 << PRECISION) + 0.5);
		}
		taps->first[i] = first;
		taps->count[i] = end - first;
	}
	return IMAGE_OK;
}

/* Two buffers of LINES rows, turned; 0 where there are fewer rows. */
static size_t
turned_bytes(int in_width, int out_width, int height, int channels)
{
	size_t width = image_size_add((size_t) in_width, (size_t) out_width);

	return height < LINES ? 0 : image_size_mul(image_size_mul(width, LINES), (size_t) channels);
}

/* Of few rows, pixel by pixel. */
static void
pass_horizontal_few(const Image *in, Image *out, const ResizeTaps *taps)
{
	const size_t channels = (size_t) in->channels;

	for (int y = 0; y < out->height; y++)
	{
		const uint8_t *row = in->pixels + (size_t) y * in->width * channels;
		uint8_t *to = out->pixels + (size_t) y * out->width * channels;

		for (int x = 0; x < out->width; x++, to += channels)
			image_sum_rows(row + taps->first[x] * channels, channels,
						   taps->weight + (size_t) x * taps->width, taps->count[x], channels, to);
	}
}

/*
 * LINES rows at a time are turned, so that what is added lies along memory. The
 * last ones may have been among those before.
 */
static void
pass_horizontal(const Image *in, Image *out, const ResizeTaps *taps, uint8_t *turned)
{
	const size_t pixel = (size_t) in->channels * LINES;
	const size_t in_row = (size_t) in->width * in->channels;
	const size_t out_row = (size_t) out->width * in->channels;
	uint8_t *made = turned + in_row * LINES;

	for (int y = 0; y < out->height; y += LINES)
	{
		size_t top = (size_t) (y + LINES <= out->height ? y : out->height - LINES);

		image_turn(in->pixels + top * in_row, in_row, turned, LINES, in_row, LINES);
		for (int x = 0; x < out->width; x++)
			image_sum_rows(turned + taps->first[x] * pixel, pixel,
						   taps->weight + (size_t) x * taps->width, taps->count[x], pixel,
						   made + x * pixel);
		image_turn(made, LINES, out->pixels + top * out_row, out_row, LINES, out_row);
	}
}

static void
pass_vertical(const Image *in, Image *out, const ResizeTaps *taps)
{
	const size_t row = (size_t) in->width * in->channels;

	for (int y = 0; y < out->height; y++)
		image_sum_rows(in->pixels + taps->first[y] * row, row,
					   taps->weight + (size_t) y * taps->width, taps->count[y], row,
					   out->pixels + y * row);
}

/* The caller's memory, where there is any. */
static ImageStatus
make_result(Image *out, int width, int height, int channels, ImageError *error)
{
	if (out->pixels == NULL)
		return image_alloc(out, width, height, channels, error);
	*out = (Image){ width, height, channels, out->pixels };
	return IMAGE_OK;
}

static ImageStatus
resize_horizontal(const Image *in, int width, Image *out, ImageError *error)
{
	ResizeTaps taps;
	size_t bytes = turned_bytes(in->width, width, in->height, in->channels);
	uint8_t *turned = NULL;
	ImageStatus status = taps_make(&taps, in->width, width, error);

	if (status != IMAGE_OK)
		return status;
	if (bytes > 0 && (bytes > PTRDIFF_MAX || (turned = malloc(bytes)) == NULL))
		status = image_fail_memory(error, bytes);
	else
		status = make_result(out, width, in->height, in->channels, error);
	if (status == IMAGE_OK && turned != NULL)
		pass_horizontal(in, out, &taps, turned);
	else if (status == IMAGE_OK)
		pass_horizontal_few(in, out, &taps);
	free(turned);
	taps_free(&taps);
	return status;
}

static ImageStatus
resize_vertical(const Image *in, int height, Image *out, ImageError *error)
{
	ResizeTaps taps;
	ImageStatus status = taps_make(&taps, in->height, height, error);

	if (status != IMAGE_OK)
		return status;
	status = make_result(out, in->width, height, in->channels, error);
	if (status == IMAGE_OK)
		pass_vertical(in, out, &taps);
	taps_free(&taps);
	return status;
}

static ImageStatus
copy(const Image *in, Image *out, ImageError *error)
{
	if (make_result(out, in->width, in->height, in->channels, error) != IMAGE_OK)
		return error->code;
	memcpy(out->pixels, in->pixels, (size_t) in->width * in->height * in->channels);
	return IMAGE_OK;
}

/* Tall images: that leaves the other pass less to do. */
static bool
is_vertical_first(const Image *in, int width, int height)
{
	int shrink = in->height - height;

	return shrink > 0 && shrink > (in->width - width) * 2;
}

/* Both passes' taps, the larger image between them, turned rows, the result. */
size_t
image_resize_bytes(int in_width, int in_height, int channels, int width, int height)
{
	size_t between = in_width > in_height ? (size_t) in_width : (size_t) in_height;
	size_t side = width > height ? (size_t) width : (size_t) height;
	size_t pixels = image_size_add(image_size_mul(between, side),
								   image_size_mul((size_t) width, (size_t) height));

	if (width < 1 || height < 1 || in_width < 1 || in_height < 1 || width > MAX_SIDE ||
		height > MAX_SIDE || in_width > MAX_SIDE || in_height > MAX_SIDE)
		return 0; /* it is refused */
	pixels = image_size_mul(pixels, (size_t) channels);
	pixels = image_size_add(
		pixels, turned_bytes(in_width, width, in_height > height ? in_height : height, channels));
	return image_size_add(
		pixels, image_size_add(taps_bytes(in_width, width), taps_bytes(in_height, height)));
}

static ImageStatus
resize(const Image *in, int width, int height, Image *out, ImageError *error)
{
	Image between;
	ImageStatus status;

	if (width < 1 || height < 1)
		return image_fail(error, IMAGE_EINVALID, "wrong image size",
						  "An image cannot be resized to %d x %d pixels.", width, height);
	if (width > MAX_SIDE || height > MAX_SIDE || in->width > MAX_SIDE || in->height > MAX_SIDE)
		return image_fail(error, IMAGE_ELIMIT, "image is too large",
						  "It cannot be resized from %d x %d to %d x %d pixels.", in->width,
						  in->height, width, height);
	if (width == in->width)
		return height == in->height ? copy(in, out, error)
									: resize_vertical(in, height, out, error);
	if (height == in->height)
		return resize_horizontal(in, width, out, error);
	memset(&between, 0, sizeof(between));
	if (is_vertical_first(in, width, height))
	{
		status = resize_vertical(in, height, &between, error);
		if (status == IMAGE_OK)
			status = resize_horizontal(&between, width, out, error);
	}
	else
	{
		status = resize_horizontal(in, width, &between, error);
		if (status == IMAGE_OK)
			status = resize_vertical(&between, height, out, error);
	}
	image_free(&between);
	return status;
}

ImageStatus
image_resize(const Image *in, int width, int height, Image *out, ImageError *error)
{
	memset(out, 0, sizeof(*out));
	return resize(in, width, height, out, error);
}

ImageStatus
image_resize_into(const Image *in, int width, int height, uint8_t *pixels, Image *out,
				  ImageError *error)
{
	ImageStatus status;

	*out = (Image){ .pixels = pixels };
	status = resize(in, width, height, out, error);
	if (status != IMAGE_OK)
		memset(out, 0, sizeof(*out));
	return status;
}
