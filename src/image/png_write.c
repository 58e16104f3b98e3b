/*
 * png_write.c
 *	  Writing PNG: rows filtered here, and compressed by deflate.c.
 *
 * Of each row that filter is taken whose bytes, as numbers around zero, have
 * the least sum of absolute values; of equals the first. So does libpng, and
 * other rules than this one win next to nothing. Loops over bytes are such that
 * a compiler makes vectors of them, which is why libpng is not asked: its own
 * took half of the time.
 *
 * A PngWriter lives on its caller's stack and owns everything of one call. Rows
 * are filtered in parts, so that what is held does not grow with the image.
 */
#include "common/invariant.h"
#include "image/deflate.h"
#include "image/image_private.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define BLOCK_BYTES (32 * 1024) /* of filtered rows, that one code is made for */
#define PART_BYTES 1024         /* of a row */
#define LEFT_BYTES 16           /* before a part; of them the last `channels` are used */
#define CHUNK_BYTES 12          /* of a chunk, besides its body */

typedef enum PngFilter
{
	FILTER_NONE,
	FILTER_SUB,
	FILTER_UP,
	FILTER_AVERAGE,
	FILTER_PAETH,
	FILTERS
} PngFilter;

typedef struct PngWriter
{
	const Image *image;
	Deflate stream;
	DeflateBytes file;
	uint8_t *block; /* the byte before it, then BLOCK_BYTES */
	size_t used;    /* of the block */
	size_t left;    /* bytes of filtered rows that are not in it yet */
} PngWriter;

/* A part of a row and of the one above it, with what is left of them. */
typedef struct PngPart
{
	uint8_t row[LEFT_BYTES + PART_BYTES], above[LEFT_BYTES + PART_BYTES];
} PngPart;

/* ---- Filters ------------------------------------------------------------- */

static void
part_load(const Image *image, int y, size_t from, size_t n, PngPart *part)
{
	size_t bytes = (size_t) image->width * image->channels;
	size_t left = from < LEFT_BYTES ? from : LEFT_BYTES;
	const uint8_t *row = image->pixels + (size_t) y * bytes + from;

	memset(part->row, 0, LEFT_BYTES);
	memcpy(part->row + LEFT_BYTES - left, row - left, left + n);
	if (y == 0)
		memset(part->above, 0, LEFT_BYTES + n);
	else
	{
		memset(part->above, 0, LEFT_BYTES);
		memcpy(part->above + LEFT_BYTES - left, row - bytes - left, left + n);
	}
}

static void
filter_paeth(const uint8_t *restrict row, const uint8_t *restrict above, size_t channels, size_t n,
			 uint8_t *restrict out)
{
	for (size_t i = 0; i < n; i++)
	{
		int16_t left = row[i - channels], up = above[i], corner = above[i - channels];
		int16_t to_left = (int16_t) (up - corner), to_up = (int16_t) (left - corner);
		int16_t to_corner = (int16_t) (to_left + to_up), nearest;

		to_left = (int16_t) (to_left < 0 ? -to_left : to_left);
		to_up = (int16_t) (to_up < 0 ? -to_up : to_up);
		to_corner = (int16_t) (to_corner < 0 ? -to_corner : to_corner);
		nearest = to_up <= to_corner ? up : corner;
		nearest = (to_left <= to_up) & (to_left <= to_corner) ? left : nearest;
		out[i] = (uint8_t) (row[i] - nearest);
	}
}

static void
filter_part(PngFilter filter, const PngPart *part, size_t channels, size_t n, uint8_t *restrict out)
{
	const uint8_t *row = part->row + LEFT_BYTES, *above = part->above + LEFT_BYTES;

	switch (filter)
	{
		case FILTER_SUB:
			for (size_t i = 0; i < n; i++)
				out[i] = (uint8_t) (row[i] - row[i - channels]);
			break;
		case FILTER_UP:
			for (size_t i = 0; i < n; i++)
				out[i] = (uint8_t) (row[i] - above[i]);
			break;
		case FILTER_AVERAGE:
			for (size_t i = 0; i < n; i++)
				out[i] = (uint8_t) (row[i] - ((row[i - channels] + above[i]) >> 1));
			break;
		case FILTER_PAETH:
			filter_paeth(row, above, channels, n, out);
			break;
		default:
			memcpy(out, row, n);
	}
}

/* Of bytes as numbers around zero. */
static uint32_t
sum_of_sizes(const uint8_t *bytes, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
	{
		uint8_t value = bytes[i], negative = (uint8_t) -value;

		sum += value < negative ? value : negative;
	}
	return sum;
}

static PngFilter
choose_filter(const Image *image, int y)
{
	size_t bytes = (size_t) image->width * image->channels;
	uint64_t sums[FILTERS] = { 0 };
	PngFilter best = FILTER_NONE;
	uint8_t made[PART_BYTES];
	PngPart part;

	for (size_t from = 0; from < bytes; from += PART_BYTES)
	{
		size_t n = bytes - from < PART_BYTES ? bytes - from : PART_BYTES;

		part_load(image, y, from, n, &part);
		for (int filter = 0; filter < FILTERS; filter++)
		{
			filter_part((PngFilter) filter, &part, (size_t) image->channels, n, made);
			sums[filter] += sum_of_sizes(made, n);
		}
	}
	for (int filter = 1; filter < FILTERS; filter++)
		if (sums[filter] < sums[best])
			best = (PngFilter) filter;
	return best;
}

/* ---- The file ------------------------------------------------------------ */

static void
put_be32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t) (value >> (24 - 8 * i));
}

/* The body lies behind the place of length and name. False: no memory. */
static bool
close_chunk(PngWriter *writer, size_t begin, const char *name)
{
	DeflateBytes *file = &writer->file;
	uint8_t *chunk;

	if (!deflate_reserve(file, 4))
		return false;
	chunk = file->bytes + begin;
	put_be32(chunk, (uint32_t) (file->length - begin - 8));
	memcpy(chunk + 4, name, 4);
	put_be32(file->bytes + file->length,
			 (uint32_t) crc32(0, chunk + 4, (uInt) (file->length - begin - 4)));
	file->length += 4;
	return true;
}

static bool
write_block(PngWriter *writer)
{
	size_t begin = writer->file.length;

	if (writer->used == 0)
		return true;
	if (!writer->stream.begun)
		writer->block[0] = (uint8_t) (writer->block[1] ^ 1);
	if (!deflate_reserve(&writer->file, 8))
		return false;
	writer->file.length += 8;
	if (!deflate_block(&writer->stream, writer->block + 1, writer->used, writer->left == 0,
					   &writer->file))
		return false;
	writer->block[0] = writer->block[writer->used];
	writer->used = 0;
	return close_chunk(writer, begin, "IDAT");
}

/* How many of n bytes the block takes next; 0: no memory for those before. */
static size_t
block_room(PngWriter *writer, size_t n)
{
	size_t room = BLOCK_BYTES - writer->used;

	if (room == 0 && !write_block(writer))
		return 0;
	room = BLOCK_BYTES - writer->used;
	return n < room ? n : room;
}

static bool
write_row(PngWriter *writer, int y)
{
	const Image *image = writer->image;
	size_t bytes = (size_t) image->width * image->channels, n;
	PngFilter filter = choose_filter(image, y);
	PngPart part;

	if (block_room(writer, 1) == 0)
		return false;
	writer->block[1 + writer->used++] = (uint8_t) filter;
	for (size_t from = 0; from < bytes; from += n)
	{
		n = bytes - from < PART_BYTES ? bytes - from : PART_BYTES;
		if ((n = block_room(writer, n)) == 0)
			return false;
		part_load(image, y, from, n, &part);
		filter_part(filter, &part, (size_t) image->channels, n, writer->block + 1 + writer->used);
		writer->used += n;
	}
	writer->left -= bytes + 1;
	return true;
}

static bool
write_png(PngWriter *writer)
{
	static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	const Image *image = writer->image;
	uint8_t *header;

	writer->left = (size_t) image->height * ((size_t) image->width * image->channels + 1);
	if ((writer->block = malloc(1 + BLOCK_BYTES)) == NULL ||
		!deflate_reserve(&writer->file, sizeof(signature) + 13 + CHUNK_BYTES))
		return false;
	memcpy(writer->file.bytes, signature, sizeof(signature));
	header = writer->file.bytes + sizeof(signature) + 8;
	put_be32(header, (uint32_t) image->width);
	put_be32(header + 4, (uint32_t) image->height);
	memcpy(header + 8, image->channels == 1 ? "\x08\0\0\0" : "\x08\x02\0\0", 5);
	writer->file.length = sizeof(signature) + 8 + 13;
	if (!close_chunk(writer, sizeof(signature), "IHDR"))
		return false;
	for (int y = 0; y < image->height; y++)
		if (!write_row(writer, y))
			return false;
	if (!write_block(writer) || !deflate_reserve(&writer->file, CHUNK_BYTES))
		return false;
	writer->file.length += 8;
	return close_chunk(writer, writer->file.length - 8, "IEND");
}

ImageStatus
image_encode_png(const Image *image, uint8_t **bytes, size_t *length, ImageError *error)
{
	PngWriter writer = { .image = image };
	bool written = write_png(&writer);

	free(writer.block);
	*bytes = written ? writer.file.bytes : NULL;
	*length = written ? writer.file.length : 0;
	if (written)
		return IMAGE_OK;
	free(writer.file.bytes);
	return image_fail_memory(error, BLOCK_BYTES + writer.file.capacity);
}
