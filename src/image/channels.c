/*
 * channels.c
 *	  Rows of decoded pixels to what the networks take: alpha over white
 *	  or left out, gray or colour.
 *
 * Works on the caller's buffers; no memory, no state.
 */
#include "image/image_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/invariant.h"

/* The component c, of opacity a, over white; rounded. */
static inline uint8_t
over_white(unsigned c, unsigned a)
{
	return (uint8_t) ((c * a + 255 * (255 - a) + 127) / 255);
}

/* Pillow's convert("L"): ITU-R 601-2 luma in 16-bit fixed point, rounded. */
static inline uint8_t
luma(unsigned r, unsigned g, unsigned b)
{
	return (uint8_t) ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16);
}

static void
to_gray(const uint8_t *in, int in_channels, uint8_t *out, size_t n)
{
	size_t i;

	switch (in_channels)
	{
		case 1:
			memcpy(out, in, n);
			break;
		case 2:
			for (i = 0; i < n; i++, in += 2)
				out[i] = over_white(in[0], in[1]);
			break;
		case 3:
			for (i = 0; i < n; i++, in += 3)
				out[i] = luma(in[0], in[1], in[2]);
			break;
		case 4:
			for (i = 0; i < n; i++, in += 4)
				out[i] = luma(over_white(in[0], in[3]), over_white(in[1], in[3]),
							  over_white(in[2], in[3]));
			break;
	}
}

static void
to_rgb(const uint8_t *in, int in_channels, uint8_t *out, size_t n)
{
	size_t i;

	switch (in_channels)
	{
		case 1:
			for (i = 0; i < n; i++, out += 3)
				out[0] = out[1] = out[2] = in[i];
			break;
		case 2:
			for (i = 0; i < n; i++, in += 2, out += 3)
				out[0] = out[1] = out[2] = over_white(in[0], in[1]);
			break;
		case 3:
			memcpy(out, in, n * 3);
			break;
		case 4:
			for (i = 0; i < n; i++, in += 4, out += 3)
			{
				out[0] = over_white(in[0], in[3]);
				out[1] = over_white(in[1], in[3]);
				out[2] = over_white(in[2], in[3]);
			}
			break;
	}
}

/* The same without alpha, in colour or gray. */
static void
to_opaque(const uint8_t *in, int in_channels, uint8_t *out, int out_channels, size_t n)
{
	const bool color = in_channels == 4;

	for (size_t i = 0; i < n; i++, in += in_channels, out += out_channels)
	{
		if (out_channels == 1)
			out[0] = color ? luma(in[0], in[1], in[2]) : in[0];
		else
			for (int c = 0; c < 3; c++)
				out[c] = in[color ? c : 0];
	}
}

void
image_convert_row(const uint8_t *in, ImagePixelKind kind, uint8_t *out, int out_channels, size_t n)
{
	if (kind.opaque && kind.channels % 2 == 0)
		to_opaque(in, kind.channels, out, out_channels, n);
	else if (out_channels == 1)
		to_gray(in, kind.channels, out, n);
	else
		to_rgb(in, kind.channels, out, n);
}

ImageStatus
image_columns(const Image *in, int x, int width, int channels, Image *out, ImageError *error)
{
	size_t stride = (size_t) width * (size_t) channels;

	memset(out, 0, sizeof(*out));
	INVARIANT(x >= 0 && width > 0 && width <= in->width - x);
	out->pixels = malloc((size_t) in->height * stride);
	if (out->pixels == NULL)
		return image_fail_memory(error, (size_t) in->height * stride);
	out->width = width;
	out->height = in->height;
	out->channels = channels;
	for (int y = 0; y < in->height; y++)
		image_convert_row(in->pixels + ((size_t) y * (size_t) in->width + (size_t) x) *
										   (size_t) in->channels,
						  (ImagePixelKind){ .channels = in->channels },
						  out->pixels + (size_t) y * stride, channels, (size_t) width);
	return IMAGE_OK;
}
