/*
 * png_write.c
 *	  Writing PNG: rows filtered here, compressed by libdeflate, put into a file
 *	  by libpng.
 *
 * Of each row that filter is taken whose bytes, as numbers around zero, have
 * the least sum of absolute values; of equals the first. So does libpng, and
 * other rules than this one win next to nothing. At level 0, where bytes are
 * only stored, no filter is. Loops over bytes are such that
 * a compiler makes vectors of them, which is why libpng is not asked: its own
 * took half of the time, and zlib most of the rest.
 *
 * A PngWriter lives on its caller's stack and owns everything of one call:
 * filtered rows and what became of them, each as large as the image. libpng
 * leaves an error by longjmp to guarded_png_write, the only function with a
 * setjmp, which has no variables of its own.
 */
#include "common/limits.h"
#include "image/image_private.h"

#include <libdeflate.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#define PART_BYTES 1024 /* of a row */
#define SUM_BYTES 256
#define LEFT_BYTES 16 /* before a part; of them the last `channels` are used */
#define CHUNK_BYTES (1u << 30)

static const char encode_failed[] = "could not encode PNG image";

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
	png_structp png;
	png_infop info;
	jmp_buf jump;
	ImageError *error;
	const Image *image;
	int level;       /* of libdeflate */
	uint8_t *rows;   /* filtered, a byte for the filter before each */
	uint8_t *packed; /* rows, compressed */
	size_t npacked;
	uint8_t *bytes; /* the file; grows by doubling */
	size_t length, capacity;
	size_t missing; /* bytes that could not be had */
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
filter_paeth(const uint8_t *restrict row, const uint8_t *restrict above, ptrdiff_t channels,
			 ptrdiff_t n, uint8_t *restrict out)
{
	for (ptrdiff_t i = 0; i < n; i++)
	{
		int16_t left = row[i - channels], up = above[i], corner = above[i - channels];
		int16_t to_left = (int16_t) (up - corner), to_up = (int16_t) (left - corner);
		int16_t to_corner = (int16_t) (to_left + to_up), nearest;

		to_left = (int16_t) (to_left < 0 ? -to_left : to_left);
		to_up = (int16_t) (to_up < 0 ? -to_up : to_up);
		to_corner = (int16_t) (to_corner < 0 ? -to_corner : to_corner);
		nearest = to_up <= to_corner ? up : corner;
		nearest = ((to_left <= to_up) & (to_left <= to_corner)) ? left : nearest;
		out[i] = (uint8_t) (row[i] - nearest);
	}
}

static void
filter_part(PngFilter filter, const PngPart *part, ptrdiff_t channels, size_t bytes,
			uint8_t *restrict out)
{
	const uint8_t *row = part->row + LEFT_BYTES, *above = part->above + LEFT_BYTES;
	ptrdiff_t n = (ptrdiff_t) bytes;

	switch (filter)
	{
		case FILTER_SUB:
			for (ptrdiff_t i = 0; i < n; i++)
				out[i] = (uint8_t) (row[i] - row[i - channels]);
			break;
		case FILTER_UP:
			for (ptrdiff_t i = 0; i < n; i++)
				out[i] = (uint8_t) (row[i] - above[i]);
			break;
		case FILTER_AVERAGE:
			/* Half of the sum, in 8 bits. */
			for (ptrdiff_t i = 0; i < n; i++)
			{
				uint8_t left = row[i - channels], up = above[i];

				out[i] = (uint8_t) (row[i] - ((left & up) + ((left ^ up) >> 1)));
			}
			break;
		case FILTER_PAETH:
			filter_paeth(row, above, channels, n, out);
			break;
		default:
			memcpy(out, row, bytes);
	}
}

/* Of bytes as numbers around zero; of SUM_BYTES it fits in 16 bits. */
static uint32_t
sum_of_sizes(const uint8_t *bytes, size_t n)
{
	uint32_t sum = 0;

	for (size_t from = 0; from < n; from += SUM_BYTES)
	{
		size_t end = n - from < SUM_BYTES ? n : from + SUM_BYTES;
		uint16_t some = 0;

		for (size_t i = from; i < end; i++)
		{
			uint8_t value = bytes[i], negative = (uint8_t) -value;

			some = (uint16_t) (some + (value < negative ? value : negative));
		}
		sum += some;
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
			filter_part((PngFilter) filter, &part, image->channels, n, made);
			sums[filter] += sum_of_sizes(made, n);
		}
	}
	for (int filter = 1; filter < FILTERS; filter++)
		if (sums[filter] < sums[best])
			best = (PngFilter) filter;
	return best;
}

static size_t
rows_bytes(const Image *image)
{
	return image_size_mul((size_t) image->height, (size_t) image->width * image->channels + 1);
}

static void
filter_rows(PngWriter *writer)
{
	const Image *image = writer->image;
	size_t bytes = (size_t) image->width * image->channels;
	uint8_t *out = writer->rows;
	PngPart part;

	for (int y = 0; y < image->height; y++)
	{
		PngFilter filter = writer->level > 0 ? choose_filter(image, y) : FILTER_NONE;

		*out++ = (uint8_t) filter;
		for (size_t from = 0; from < bytes; from += PART_BYTES)
		{
			size_t n = bytes - from < PART_BYTES ? bytes - from : PART_BYTES;

			part_load(image, y, from, n, &part);
			filter_part(filter, &part, image->channels, n, out);
			out += n;
		}
	}
}

/* False: no memory. */
static bool
compress_rows(PngWriter *writer)
{
	size_t n = rows_bytes(writer->image), bound;
	struct libdeflate_compressor *compressor;

	writer->missing = n;
	if (n > PTRDIFF_MAX || (writer->rows = malloc(n)) == NULL)
		return false;
	filter_rows(writer);
	compressor = libdeflate_alloc_compressor(writer->level);
	if (compressor == NULL)
		return false;
	writer->missing = bound = libdeflate_zlib_compress_bound(compressor, n);
	writer->packed = malloc(bound);
	if (writer->packed != NULL)
		writer->npacked =
			libdeflate_zlib_compress(compressor, writer->rows, n, writer->packed, bound);
	libdeflate_free_compressor(compressor);
	return writer->packed != NULL;
}

/* ---- The file ------------------------------------------------------------ */

static void
on_write_warning(png_structp png, png_const_charp text)
{
}

static void
on_png_write_error(png_structp png, png_const_charp text)
{
	PngWriter *writer = png_get_error_ptr(png);

	if (writer->missing > 0)
		image_fail_memory(writer->error, writer->missing);
	else
		image_fail(writer->error, IMAGE_EINVALID, encode_failed, "The PNG library says \"%s\".",
				   text);
	longjmp(writer->jump, 1);
}

static png_voidp
on_write_malloc(png_structp png, png_alloc_size_t bytes)
{
	PngWriter *writer = png_get_mem_ptr(png);
	void *block = malloc(bytes);

	if (block == NULL)
		writer->missing = bytes;
	return block;
}

static void
on_write_free(png_structp png, png_voidp pointer)
{
	free(pointer);
}

static void
on_write(png_structp png, png_bytep from, size_t n)
{
	PngWriter *writer = png_get_io_ptr(png);
	size_t needed = image_size_add(writer->length, n);

	if (needed > writer->capacity)
	{
		size_t capacity = image_size_add(needed, writer->capacity);
		uint8_t *bytes = capacity <= PTRDIFF_MAX ? realloc(writer->bytes, capacity) : NULL;

		if (bytes == NULL)
		{
			writer->missing = capacity;
			png_error(png, "out of memory");
		}
		writer->bytes = bytes;
		writer->capacity = capacity;
	}
	memcpy(writer->bytes + writer->length, from, n);
	writer->length += n;
}

static void
on_flush(png_structp png)
{
}

static void
write_png(PngWriter *writer)
{
	const Image *image = writer->image;

	writer->png =
		png_create_write_struct_2(PNG_LIBPNG_VER_STRING, writer, on_png_write_error,
								  on_write_warning, writer, on_write_malloc, on_write_free);
	if (writer->png != NULL)
		writer->info = png_create_info_struct(writer->png);
	if (writer->info == NULL)
	{
		image_fail_memory(writer->error, writer->missing);
		longjmp(writer->jump, 1);
	}
	png_set_write_fn(writer->png, writer, on_write, on_flush);
	png_set_user_limits(writer->png, INT32_MAX, INT32_MAX);
	png_set_IHDR(writer->png, writer->info, (png_uint_32) image->width, (png_uint_32) image->height,
				 8, image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
				 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(writer->png, writer->info);
	for (size_t at = 0, n; at < writer->npacked; at += n)
	{
		n = writer->npacked - at < CHUNK_BYTES ? writer->npacked - at : CHUNK_BYTES;
		png_write_chunk(writer->png, (png_const_bytep) "IDAT", writer->packed + at, n);
	}
	png_write_chunk(writer->png, (png_const_bytep) "IEND", NULL, 0);
}

static ImageStatus
guarded_png_write(PngWriter *writer)
{
	if (setjmp(writer->jump) != 0)
		return writer->error->code;
	write_png(writer);
	return IMAGE_OK;
}

ImageStatus
image_encode_png(const Image *image, uint8_t **bytes, size_t *length, ImageError *error)
{
	return image_encode_png_at(image, BICYCLE_PNG_LEVEL, bytes, length, error);
}

ImageStatus
image_encode_png_at(const Image *image, int level, uint8_t **bytes, size_t *length,
					ImageError *error)
{
	PngWriter writer = { .image = image, .level = level, .error = error };
	ImageStatus status = IMAGE_OK;

	*bytes = NULL;
	*length = 0;
	if (!compress_rows(&writer))
		status = image_fail_memory(error, writer.missing);
	free(writer.rows);
	writer.missing = 0;
	if (status == IMAGE_OK)
		status = guarded_png_write(&writer);
	png_destroy_write_struct(&writer.png, &writer.info);
	free(writer.packed);
	if (status == IMAGE_OK)
	{
		*bytes = writer.bytes;
		*length = writer.length;
	}
	else
		free(writer.bytes);
	return status;
}
