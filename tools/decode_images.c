/*
 * decode_images.c
 *	  Decodes the images of a stream and says what they are, for comparison with
 *	  Pillow (test/diff/images.py).
 *
 *	decode_images [PIXELS] <PACK >LINES
 *
 * The pack is, for each image, its length in 4 bytes of the machine's order and
 * its bytes. The lines are "ok WIDTH HEIGHT CRC CRC", of the pixels over white
 * and without alpha, or "no CODE DETAIL". Images of more than PIXELS are
 * refused. With "-" for PIXELS the bytes of the pixels over white come instead
 * of lines.
 */
#include "image/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static ImageLimits limits = { (uint64_t) 178956970, (size_t) 4 << 30 };
static bool bytes_wanted;

static uint32_t
crc(const Image *image)
{
	return (uint32_t) crc32_z(0, image->pixels, (size_t) image->width * (size_t) image->height * 3);
}

static void
decode(const uint8_t *bytes, size_t length)
{
	Image white = { 0 }, opaque = { 0 };
	ImageError error;

	if (image_decode(bytes, length, 3, 0, &limits, &white, &error) != IMAGE_OK ||
		image_decode(bytes, length, 3, IMAGE_OPAQUE, &limits, &opaque, &error) != IMAGE_OK)
		printf("no %d %s\n", (int) error.code, error.detail);
	else if (bytes_wanted)
		fwrite(white.pixels, 3, (size_t) white.width * (size_t) white.height, stdout);
	else
		printf("ok %d %d %08x %08x\n", white.width, white.height, crc(&white), crc(&opaque));
	image_free(&white);
	image_free(&opaque);
}

int
main(int argc, char **argv)
{
	uint32_t length;

	bytes_wanted = argc > 1 && strcmp(argv[1], "-") == 0;
	if (argc > 1 && !bytes_wanted)
		limits.max_pixels = strtoull(argv[1], NULL, 10);
	while (fread(&length, sizeof(length), 1, stdin) == 1)
	{
		uint8_t *bytes = malloc(length > 0 ? length : 1);

		if (bytes == NULL || fread(bytes, 1, length, stdin) != length)
		{
			fprintf(stderr, "the pack ends early\n");
			return 1;
		}
		decode(bytes, length);
		free(bytes);
	}
	return 0;
}
