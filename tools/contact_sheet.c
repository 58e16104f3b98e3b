/*
 * contact_sheet.c
 *	  Lays images out on one sheet: contact_sheet COLUMNS TILE <images
 *	  >sheet.png
 *
 * Standard input has one image a line, in hexadecimal as psql prints a bytea
 * ("\x89504e47..."), row by row; an empty line leaves a tile blank. Each image
 * is brought to TILE by TILE pixels. The sheet, a PNG, goes to standard output.
 * So a query can be looked at:
 *
 *	  SELECT image FROM pictures ORDER BY id \g (format=unaligned
 *	  tuples_only=on) | contact_sheet 8 128 >sheet.png
 *
 * All memory is this program's own and lives until it ends; one thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "tools/hex.h"

#define MAX_TILE 1024
#define MAX_COLUMNS 256
#define MAX_TILES 65536
#define BORDER 2

static void
fail(const char *what, const char *detail)
{
	fprintf(stderr, "contact_sheet: %s%s%s\n", what, *detail ? ": " : "", detail);
	exit(1);
}

static Image
blank_tile(int size)
{
	Image tile = { size, size, 3, malloc((size_t) size * size * 3) };

	if (tile.pixels == NULL)
		fail("out of memory", "");
	memset(tile.pixels, 255, (size_t) size * size * 3);
	return tile;
}

static Image
read_tile(const uint8_t *bytes, size_t length, int size)
{
	const ImageLimits limits = { .max_pixels = 64u << 20, .max_memory = (size_t) 1 << 30 };
	ImageError error;
	Image decoded, tile;

	if (image_decode(bytes, length, 3, 0, &limits, &decoded, &error) != IMAGE_OK ||
		image_resize(&decoded, size, size, &tile, &error) != IMAGE_OK)
		fail(error.message, error.detail);
	image_free(&decoded);
	return tile;
}

static int
number(const char *text, int max, const char *name)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end != '\0' || value < 1 || value > max)
		fail("bad argument", name);
	return (int) value;
}

int
main(int argc, char **argv)
{
	static Image tiles[MAX_TILES];
	int ntiles = 0, columns, size;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	Image sheet;
	ImageError error;
	uint8_t *png;
	size_t png_length;

	if (argc != 3)
		fail("usage: contact_sheet COLUMNS TILE <images >sheet.png", "");
	columns = number(argv[1], MAX_COLUMNS, "COLUMNS");
	size = number(argv[2], MAX_TILE, "TILE");

	while ((length = getline(&line, &room, stdin)) >= 0)
	{
		size_t nbytes;

		if (length > 0 && line[length - 1] == '\n')
			length--;
		if (ntiles == MAX_TILES)
			fail("too many images", "");
		if (!unhex(line, (size_t) length, &nbytes))
			fail("a line of the input is not hexadecimal", "");
		tiles[ntiles++] =
			nbytes == 0 ? blank_tile(size) : read_tile((uint8_t *) line, nbytes, size);
	}
	if (ferror(stdin))
		fail("could not read images", strerror(errno));
	if (ntiles == 0)
		fail("no images", "");
	while (ntiles % columns != 0 && ntiles < MAX_TILES)
		tiles[ntiles++] = blank_tile(size);

	if (image_contact_sheet(tiles, ntiles, columns, BORDER, &sheet, &error) != IMAGE_OK ||
		image_encode_png(&sheet, &png, &png_length, &error) != IMAGE_OK)
		fail(error.message, error.detail);
	if (fwrite(png, 1, png_length, stdout) != png_length || fflush(stdout) != 0)
		fail("could not write the sheet", strerror(errno));
	return 0;
}
