/*
 * exif.c
 *	  EXIF orientation: reading it, and turning an image upright.
 *
 * An image is turned into a second one, which then takes its place. No state,
 * no locks.
 */
#include "image/image_private.h"

#include "common/invariant.h"

#include <string.h>

#define ORIENTATION 0x0112

/* A number of n bytes in the block's byte order. */
static uint32_t
exif_number(const uint8_t *at, int n, bool big)
{
	uint32_t value = 0;

	for (int i = 0; i < n; i++)
		value |= (uint32_t) at[i] << 8 * (big ? n - 1 - i : i);
	return value;
}

/*
 * The first value of an entry of 12 bytes, or 0 if it is no whole number.
 * Values that take more than 4 bytes are elsewhere in the block.
 */
static uint32_t
exif_value(const uint8_t *block, size_t length, const uint8_t *entry, bool big)
{
	uint32_t type = exif_number(entry + 2, 2, big), count = exif_number(entry + 4, 4, big);
	uint32_t at = exif_number(entry + 8, 4, big);
	uint64_t size = type == 3 || type == 8 ? 2 : 4;
	const uint8_t *value = entry + 8;

	if (count == 0 || (type != 3 && type != 8 && type != 4 && type != 9))
		return 0;
	if (count * size > 4)
	{
		if (at > length || count * size > length - at)
			return 0;
		value = block + at;
	}
	return exif_number(value, (int) size, big);
}

int
image_exif_orientation(const uint8_t *exif, size_t length)
{
	const uint8_t *entry;
	size_t left;
	uint32_t at, entries, value = 1;
	bool big;

	for (int i = 0; i < 2 && length >= 6 && memcmp(exif, "Exif\0", 6) == 0; i++)
	{
		exif += 6;
		length -= 6;
	}
	if (length < 8 || (memcmp(exif, "II*\0", 4) != 0 && memcmp(exif, "MM\0*", 4) != 0))
		return 1;
	big = exif[0] == 'M';
	at = exif_number(exif + 4, 4, big);
	if (at > length || length - at < 2)
		return 1;
	entries = exif_number(exif + at, 2, big);
	entry = exif + at + 2;
	left = length - at - 2;
	for (; entries > 0 && left >= 12; entries--, entry += 12, left -= 12)
		if (exif_number(entry, 2, big) == ORIENTATION)
			value = exif_value(exif, length, entry, big);
	return value >= 1 && value <= 8 ? (int) value : 1;
}

ImageStatus
image_turn_upright(Image *image, int orientation, ImageError *error)
{
	/* what of x and y is mirrored in the file, and whether they are swapped */
	const bool swap = orientation >= 5;
	const bool mirror_x =
		orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
	const bool mirror_y =
		orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
	const int channels = image->channels;
	Image out = { 0 };

	INVARIANT(orientation >= 1 && orientation <= 8);
	if (orientation == 1)
		return IMAGE_OK;
	if (image_alloc(&out, swap ? image->height : image->width, swap ? image->width : image->height,
					channels, error) != IMAGE_OK)
		return error->code;
	for (int y = 0; y < out.height; y++)
		for (int x = 0; x < out.width; x++)
		{
			int from_x = swap ? y : x, from_y = swap ? x : y;

			if (mirror_x)
				from_x = image->width - 1 - from_x;
			if (mirror_y)
				from_y = image->height - 1 - from_y;
			memcpy(out.pixels + ((size_t) y * out.width + x) * channels,
				   image->pixels + ((size_t) from_y * image->width + from_x) * channels,
				   (size_t) channels);
		}
	image_free(image);
	*image = out;
	return IMAGE_OK;
}
