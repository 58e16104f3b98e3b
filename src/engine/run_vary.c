/*
 * run_vary.c
 *	  Variations of pairs beyond crop and flip, for small sets: the options
 *	  rotate, scale, jitter and jitter_both.
 *
 * R1 All of it is arithmetic of integers, so that a run is the same on every
 *    machine and device; only the two numbers of a rotation come of doubles,
 *    by sums and products, and are rounded to 16 bits behind the point.
 * R2 What an option of 0 does is nothing: the pixels are copied as ever.
 * R3 Rotation and scale are the same for A and B. So are colours, if they are
 *    varied in both.
 *
 * Colours are varied as torchvision's ColorJitter does it, in this order:
 * brightness, contrast about the mean of the image's luma, saturation about the
 * luma of each pixel, each by a factor from 1 - jitter to 1 + jitter.
 */
#include <string.h>

#include "engine/run_vary.h"

#define PI 3.14159265358979323846

/* ---- Drawing ------------------------------------------------------------- */

/* From -1 to 1. */
static double
symmetric(uint32_t word)
{
	return ((double) word - 2147483647.5) / 2147483647.5;
}

/* Half to even does not occur: what is rounded are sums of many digits. */
static int32_t
to_fixed(double value)
{
	return (int32_t) (value * VARY_ONE + (value < 0 ? -0.5 : 0.5));
}

/* For angles up to pi, by their series. */
static void
series(double angle, double *cosine, double *sine)
{
	double term = 1;

	*cosine = *sine = 0;
	for (int k = 0; k < 32; k += 4)
	{
		*cosine += term;
		term = term * angle / (k + 1);
		*sine += term;
		term = term * angle / (k + 2);
		*cosine -= term;
		term = term * angle / (k + 3);
		*sine -= term;
		term = term * angle / (k + 4);
	}
}

RunVariation
run_vary_draw(const NnTrainOptions *options, const uint32_t words[8])
{
	double angle = symmetric(words[0]) * options->rotate * PI / 180;
	double scale = 1 + symmetric(words[1]) * options->scale;
	double cosine, sine;

	series(angle, &cosine, &sine);
	return (RunVariation){
		.turned = options->rotate > 0 || options->scale > 0,
		.cosine = to_fixed(cosine / scale),
		.sine = to_fixed(sine / scale),
		.coloured = { options->jitter > 0 && options->jitter_both, options->jitter > 0 },
		.brightness = to_fixed(1 + symmetric(words[2]) * options->jitter),
		.contrast = to_fixed(1 + symmetric(words[3]) * options->jitter),
		.saturation = to_fixed(1 + symmetric(words[4]) * options->jitter),
	};
}

/* ---- Places -------------------------------------------------------------- */

/* A coordinate as the pixel before it and the share of the one behind. */
static int
split(int64_t at, int side, int *share)
{
	const int64_t last = (int64_t) (side - 1) * VARY_ONE;

	if (at < 0)
		at = 0;
	if (at >= last)
	{
		*share = 0;
		return side - 1;
	}
	*share = (int) (at % VARY_ONE / 256);
	return (int) (at / VARY_ONE);
}

/* The mean of four pixels by their shares, which are of 256. */
static void
blend_pixels(const uint8_t *row, const uint8_t *below, size_t next, int channels, int fx, int fy,
			 uint8_t *to)
{
	for (int c = 0; c < channels; c++)
	{
		int above = row[c] * (256 - fx) + row[next + (size_t) c] * fx;
		int under = below[c] * (256 - fx) + below[next + (size_t) c] * fx;

		to[c] = (uint8_t) ((above * (256 - fy) + under * fy + 32768) >> 16);
	}
}

void
run_vary_turn(const RunVariation *variation, const uint8_t *from, int side, int channels, int x,
			  int y, uint8_t *to, int size)
{
	const int64_t cosine = variation->cosine, sine = variation->sine;
	const size_t step = (size_t) channels;

	/* twice the distance from the middle is whole */
	for (int v = 0; v < size; v++)
		for (int u = 0; u < size; u++)
		{
			int64_t du = 2 * u - (size - 1), dv = 2 * v - (size - 1);
			int64_t sx = (int64_t) (2 * x + size - 1) * VARY_ONE + cosine * du + sine * dv;
			int64_t sy = (int64_t) (2 * y + size - 1) * VARY_ONE + cosine * dv - sine * du;
			int fx, fy;
			int px = split(sx / 2, side, &fx), py = split(sy / 2, side, &fy);
			const uint8_t *row = from + ((size_t) py * (size_t) side + (size_t) px) * step;

			blend_pixels(row, py + 1 < side ? row + (size_t) side * step : row,
						 px + 1 < side ? step : 0, channels, fx, fy, to);
			to += step;
		}
}

/* ---- Colours ------------------------------------------------------------- */

/* base + factor (value - base), within a byte */
static uint8_t
away_from(int value, int base, int32_t factor)
{
	int64_t moved = (int64_t) base * VARY_ONE + (int64_t) factor * (value - base);

	moved = (moved + VARY_ONE / 2) / VARY_ONE;
	return (uint8_t) (moved < 0 ? 0 : moved > 255 ? 255 : moved);
}

/* ITU-R 601's, as Pillow has it. */
static int
pixel_luma(const uint8_t *pixel, int channels)
{
	return channels == 3 ? (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 32768) >> 16
						 : pixel[0];
}

static int
mean_of_image(const uint8_t *pixels, size_t npixels, int channels)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < npixels; i++)
		sum += (uint64_t) pixel_luma(pixels + i * (size_t) channels, channels);
	return (int) ((sum + npixels / 2) / npixels);
}

void
run_vary_colour(const RunVariation *variation, uint8_t *pixels, size_t npixels, int channels)
{
	size_t n = npixels * (size_t) channels;
	int mean;

	for (size_t i = 0; i < n; i++)
		pixels[i] = away_from(pixels[i], 0, variation->brightness);
	mean = mean_of_image(pixels, npixels, channels);
	for (size_t i = 0; i < n; i++)
		pixels[i] = away_from(pixels[i], mean, variation->contrast);
	for (size_t i = 0; i < npixels && channels == 3; i++)
	{
		uint8_t *pixel = pixels + 3 * i;
		int gray = pixel_luma(pixel, 3);

		for (int c = 0; c < 3; c++)
			pixel[c] = away_from(pixel[c], gray, variation->saturation);
	}
}
