/*
 * sheet.c
 *	  Contact sheets: many small images on one white page.
 *
 * Reads the caller's tiles, allocates the sheet, which is the caller's to free.
 */
#include "image/image_private.h"

#include <string.h>

/* One size for all; the sheet has the channels of the widest. */
static ImageStatus
check_tiles(const Image *tiles, int ntiles, int *channels, ImageError *error)
{
	*channels = 1;
	for (int i = 0; i < ntiles; i++)
	{
		if (tiles[i].width != tiles[0].width || tiles[i].height != tiles[0].height)
			return image_fail(error, IMAGE_EINVALID, "images of a contact sheet must have one size",
							  "Image 1 has %d x %d pixels, image %d has %d x %d.", tiles[0].width,
							  tiles[0].height, i + 1, tiles[i].width, tiles[i].height);
		if (tiles[i].channels > *channels)
			*channels = tiles[i].channels;
	}
	return IMAGE_OK;
}

/* A border before, between and after them; false if too large. */
static bool
side(int count, int extent, int border, int *pixels)
{
	int step;

	return !__builtin_add_overflow(extent, border, &step) &&
		   !__builtin_mul_overflow(count, step, &step) &&
		   !__builtin_add_overflow(step, border, pixels);
}

ImageStatus
image_contact_sheet(const Image *tiles, int ntiles, int columns, int border, Image *sheet,
					ImageError *error)
{
	int channels, width, height;

	memset(sheet, 0, sizeof(*sheet));
	if (ntiles < 1 || columns < 1 || border < 0)
		return image_fail(error, IMAGE_EINVALID, "wrong layout of a contact sheet",
						  "It has %d images in %d columns with a border of %d pixels.", ntiles,
						  columns, border);
	if (check_tiles(tiles, ntiles, &channels, error) != IMAGE_OK)
		return error->code;
	if (!side(columns, tiles[0].width, border, &width) ||
		!side((ntiles - 1) / columns + 1, tiles[0].height, border, &height))
		return image_fail(error, IMAGE_ELIMIT, "contact sheet is too large",
						  "%d images of %d x %d pixels in %d columns do not fit.", ntiles,
						  tiles[0].width, tiles[0].height, columns);
	if (image_alloc(sheet, width, height, channels, error) != IMAGE_OK)
		return error->code;
	memset(sheet->pixels, 255, (size_t) width * height * channels);
	for (int i = 0; i < ntiles; i++)
	{
		const Image *tile = &tiles[i];
		size_t x = border + (size_t) (i % columns) * (tile->width + border);
		size_t y = border + (size_t) (i / columns) * (tile->height + border);

		for (int row = 0; row < tile->height; row++)
			image_convert_row(tile->pixels + (size_t) row * tile->width * tile->channels,
							  (ImagePixelKind){ .channels = tile->channels },
							  sheet->pixels + ((y + row) * width + x) * channels, channels,
							  (size_t) tile->width);
	}
	return IMAGE_OK;
}
