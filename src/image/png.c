/*
 * png.c
 *	  Reading PNG: by Pillow's rules which file is read, by zlib what its data
 *	  are, and by libpng what pixels they make.
 *
 * R1 A PngReader lives on its caller's stack and owns everything of one call:
 *    libpng's structs, zlib's state and the buffers of pixels.
 * R2 What a reader holds is counted in `used`, which never exceeds the caller's
 *    limit.
 * R3 libpng leaves an error by longjmp to a guarded function, the only ones
 *    with a setjmp. They have no variables of their own and all state is in the
 *    struct, so nothing is lost by the jump.
 * R4 What is left is freed by who made the struct, whichever way it went.
 * R5 libpng never sees the file. It gets one that is made here while it reads:
 *    header, a full palette, opacities, and the filtered rows, stored without
 *    compression and checksums. So its warnings and its notion of a good file
 *    decide nothing, and little of it can be reached. Dimensions are checked
 *    before it is asked.
 * R6 The rows are inflated as Pillow does it, with a window of 32 kB whatever
 *    the stream declares: the last row ends the work, and what follows is not
 *    looked at. A stream that ends properly within the image is no damage; the
 *    rest is zero.
 */
#include "common/invariant.h"
#include "image/image_private.h"
#include "image/png_file.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char decode_failed[] = "could not decode PNG image";

/*
 * What libpng and zlib take besides pixels: structs, a window of 32 kB with its
 * tables for each of two streams, a buffer. The header's size comes first in
 * each block that they get, and keeps what follows aligned.
 */
#define LIBRARY_BYTES (256 * 1024)
#define BLOCK_HEADER 16

/* Signature, IHDR, PLTE and tRNS, each with length, name and checksum. */
#define MADE_BYTES (8 + 25 + 12 + 768 + 12 + 256)
#define STORED_MOST 65535 /* bytes of a block of zlib that is not compressed */

typedef struct PngReader
{
	png_structp png;
	png_infop info;
	jmp_buf jump;
	ImageError *error;
	PngFile file;
	const ImageLimits *limits;
	size_t used;                /* bytes allocated and not freed */
	bool over_limit, no_memory; /* why an allocation failed */

	/* The file's rows: filter and bytes, of one pass after the other. */
	z_stream zip;
	bool zip_open, zip_ended; /* ended: rows to come are zero */
	int pass;
	uint32_t pass_row;
	uint8_t *raw;
	size_t raw_length;

	/* What libpng reads next: `made`, then `stored` of the row. */
	uint8_t made[MADE_BYTES];
	size_t made_at, made_length;
	const uint8_t *stored;
	size_t stored_left, row_left; /* row_left: behind that, of the row */
	bool started, finished;       /* the stream of zlib */

	int passes;              /* of libpng */
	ImagePixelKind rows_are; /* after expansion */
	uint8_t *rows; /* one row, or the whole image if interlaced; rows_are.channels bytes a pixel */
	Image image;
} PngReader;

static void __attribute__((noreturn)) fail_png(PngReader *reader, const char *detail)
{
	image_fail(reader->error, IMAGE_EINVALID, decode_failed, "%s", detail);
	longjmp(reader->jump, 1);
}

static void __attribute__((noreturn)) fail_png_memory(PngReader *reader)
{
	if (reader->over_limit)
		image_fail_budget(reader->error, reader->limits);
	else
		image_fail_memory(reader->error, reader->file.length);
	longjmp(reader->jump, 1);
}

static void
on_png_error(png_structp png, png_const_charp text)
{
	PngReader *reader = png_get_error_ptr(png);

	if (reader->over_limit || reader->no_memory)
		fail_png_memory(reader);
	image_fail(reader->error, IMAGE_EINVALID, decode_failed, "The PNG library says \"%s\".", text);
	longjmp(reader->jump, 1);
}

static void
on_warning(png_structp png, png_const_charp text)
{
}

static void *
reader_alloc(PngReader *reader, size_t bytes)
{
	size_t total = image_size_add(bytes, BLOCK_HEADER);
	uint8_t *block;

	INVARIANT(reader->used <= reader->limits->max_memory);
	if (total > reader->limits->max_memory - reader->used)
	{
		reader->over_limit = true;
		return NULL;
	}
	block = total <= PTRDIFF_MAX ? malloc(total) : NULL;
	if (block == NULL)
	{
		reader->no_memory = true;
		return NULL;
	}
	memcpy(block, &total, sizeof(total));
	reader->used += total;
	return block + BLOCK_HEADER;
}

static void
reader_free(PngReader *reader, void *pointer)
{
	uint8_t *block;
	size_t total;

	if (pointer == NULL)
		return;
	block = (uint8_t *) pointer - BLOCK_HEADER;
	memcpy(&total, block, sizeof(total));
	INVARIANT(reader->used >= total);
	reader->used -= total;
	free(block);
}

static png_voidp
on_malloc(png_structp png, png_alloc_size_t bytes)
{
	return reader_alloc(png_get_mem_ptr(png), bytes);
}

static void
on_free(png_structp png, png_voidp pointer)
{
	reader_free(png_get_mem_ptr(png), pointer);
}

static voidpf
on_zip_alloc(voidpf reader, uInt items, uInt size)
{
	return reader_alloc(reader, image_size_mul(items, size));
}

static void
on_zip_free(voidpf reader, voidpf pointer)
{
	reader_free(reader, pointer);
}

/* Runs a body that libpng, or fail_png, may leave by longjmp. */
static ImageStatus
guarded_png(PngReader *reader, void (*body)(PngReader *))
{
	if (setjmp(reader->jump) != 0)
		return reader->error->code;
	body(reader);
	return IMAGE_OK;
}

static void
close_png(PngReader *reader)
{
	if (reader->zip_open)
		inflateEnd(&reader->zip);
	reader_free(reader, reader->raw);
	reader_free(reader, reader->rows);
	png_destroy_read_struct(&reader->png, &reader->info, NULL);
	image_free(&reader->image);
}

/* ---- Rows of the file ---------------------------------------------------- */

static int
pixel_bits(const PngFile *file)
{
	static const int samples[] = { [0] = 1, [2] = 3, [3] = 1, [4] = 2, [6] = 4 };

	return file->depth * samples[file->color];
}

static size_t
row_bytes(const PngReader *reader, uint32_t width)
{
	return ((size_t) width * (size_t) pixel_bits(&reader->file) + 7) / 8;
}

/* Steps over passes that have no pixels; false behind the last row. */
static bool
next_row(PngReader *reader)
{
	const PngFile *file = &reader->file;

	if (!file->interlaced)
	{
		reader->raw_length = row_bytes(reader, file->frame_width);
		return reader->pass_row++ < file->frame_height;
	}
	for (; reader->pass < PNG_INTERLACE_ADAM7_PASSES; reader->pass++, reader->pass_row = 0)
	{
		uint32_t width = PNG_PASS_COLS(file->frame_width, reader->pass);

		reader->raw_length = row_bytes(reader, width);
		if (width > 0 && reader->pass_row < PNG_PASS_ROWS(file->frame_height, reader->pass))
		{
			reader->pass_row++;
			return true;
		}
	}
	return false;
}

/* The next piece of the file's data; without one the file was cut off. */
static void
feed_zip(PngReader *reader)
{
	const uint8_t *piece = NULL;
	size_t n = 0;

	if (!png_file_data(&reader->file, &piece, &n))
		fail_png(reader, reader->file.refusal);
	if (n == 0)
		fail_png(reader, "The image data end before the image does.");
	reader->zip.next_in = (Bytef *) piece;
	reader->zip.avail_in = (uInt) n;
}

/*
 * Inflates one row with its filter into `raw`. What a call of inflate leaves of
 * its input when the row is not full comes behind the end of the stream, and is
 * dropped.
 */
static void
inflate_row(PngReader *reader)
{
	size_t length = reader->raw_length + 1;
	int result = Z_OK;

	reader->zip.next_out = reader->raw;
	for (size_t have = 0; have < length; have = (size_t) (reader->zip.next_out - reader->raw))
	{
		size_t room = length - have;

		if (reader->zip.avail_in == 0)
			feed_zip(reader);
		reader->zip.avail_out = room < UINT_MAX ? (uInt) room : UINT_MAX;
		result = inflate(&reader->zip, Z_NO_FLUSH);
		if (result == Z_MEM_ERROR)
			fail_png_memory(reader);
		if (result < 0)
			fail_png(reader, "Its image data are damaged.");
		if (reader->zip.avail_out > 0)
			reader->zip.avail_in = 0;
	}
	if (reader->raw[0] > 4)
		fail_png(reader, "A row has a filter that does not exist.");
	reader->zip_ended = result == Z_STREAM_END;
}

/* ---- The file that libpng reads ------------------------------------------ */

static void
make_bytes(PngReader *reader, const void *bytes, size_t n)
{
	INVARIANT(n <= MADE_BYTES - reader->made_length);
	memcpy(reader->made + reader->made_length, bytes, n);
	reader->made_length += n;
}

static void
make_be32(PngReader *reader, uint32_t value)
{
	uint8_t bytes[4] = { value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255 };

	make_bytes(reader, bytes, 4);
}

static void
make_head(PngReader *reader, const char *name, size_t length)
{
	make_be32(reader, (uint32_t) length);
	make_bytes(reader, name, 4);
}

/* A chunk; checksums are not compared (open_libraries). */
static void
make_chunk(PngReader *reader, const char *name, const void *body, size_t length)
{
	make_head(reader, name, length);
	make_bytes(reader, body, length);
	make_be32(reader, 0);
}

/* Up to the first chunk of data. */
static void
make_header(PngReader *reader)
{
	static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	const PngFile *file = &reader->file;
	uint8_t kind[5] = { (uint8_t) file->depth, (uint8_t) file->color, 0, 0, file->interlaced };
	uint8_t key[6];

	make_bytes(reader, signature, 8);
	make_head(reader, "IHDR", 13);
	make_be32(reader, file->frame_width);
	make_be32(reader, file->frame_height);
	make_bytes(reader, kind, 5);
	make_be32(reader, 0);
	if (file->color == 3)
		make_chunk(reader, "PLTE", file->palette, (size_t) 3 << file->depth);
	if (!file->transparent)
		return;
	for (int i = 0; i < 3; i++)
	{
		key[2 * i] = (uint8_t) (file->key[i] >> 8);
		key[2 * i + 1] = (uint8_t) (file->key[i] & 255);
	}
	if (file->color == 3)
		make_chunk(reader, "tRNS", file->opacity, (size_t) 1 << file->depth);
	else
		make_chunk(reader, "tRNS", key, file->color == 2 ? 6 : 2);
}

/* Chunk, header of the stream if it is the first, header of a stored block. */
static void
make_block(PngReader *reader, size_t n, bool last)
{
	uint8_t block[7] = { 0x78, 1, last, n & 255, n >> 8 & 255, ~n & 255, ~n >> 8 & 255 };
	size_t from = reader->started ? 2 : 0;

	if (reader->started)
		make_be32(reader, 0); /* the checksum of the chunk before it */
	make_head(reader, "IDAT", 7 - from + n + (last ? 4 : 0));
	make_bytes(reader, block + from, 7 - from);
	reader->started = true;
}

/* The next block of the row, or of the next row, or the end of the file. */
static void
make_more(PngReader *reader)
{
	reader->made_at = reader->made_length = 0;
	if (reader->row_left == 0)
	{
		if (!next_row(reader))
		{
			if (reader->finished)
				png_error(reader->png, "unexpected end of data");
			reader->finished = true;
			make_block(reader, 0, true);
			make_be32(reader, 0); /* the stream's checksum, and the chunk's */
			make_be32(reader, 0);
			make_chunk(reader, "IEND", "", 0);
			return;
		}
		if (reader->zip_ended)
			memset(reader->raw, 0, reader->raw_length + 1);
		else
			inflate_row(reader);
		reader->stored = reader->raw;
		reader->row_left = reader->raw_length + 1;
	}
	reader->stored_left = reader->row_left < STORED_MOST ? reader->row_left : STORED_MOST;
	reader->row_left -= reader->stored_left;
	make_block(reader, reader->stored_left, false);
}

static void
on_read(png_structp png, png_bytep to, size_t n)
{
	PngReader *reader = png_get_io_ptr(png);

	while (n > 0)
	{
		bool made = reader->made_at < reader->made_length;
		size_t most = made ? reader->made_length - reader->made_at : reader->stored_left;
		size_t part = n < most ? n : most;

		if (most == 0)
		{
			make_more(reader);
			continue;
		}
		memcpy(to, made ? reader->made + reader->made_at : reader->stored, part);
		if (made)
			reader->made_at += part;
		else
		{
			reader->stored += part;
			reader->stored_left -= part;
		}
		to += part;
		n -= part;
	}
}

/* ---- Headers ------------------------------------------------------------- */

static void
open_file(PngReader *reader)
{
	if (!png_file_open(&reader->file, reader->file.bytes, reader->file.length))
		fail_png(reader, reader->file.refusal);
}

/* Of an image, as bicycle_image_info counts them. */
static int
count_channels(const PngFile *file)
{
	int channels = file->color & PNG_COLOR_MASK_COLOR ? 3 : 1;

	return channels + (file->color & PNG_COLOR_MASK_ALPHA || file->transparent);
}

/* What is transparent may be said behind the data, too. */
static void
look_ahead(PngFile *file)
{
	PngFile rest = *file;

	if (!png_file_close(&rest))
		return;
	file->transparent = rest.transparent;
	memcpy(file->key, rest.key, sizeof(rest.key));
	memcpy(file->opacity, rest.opacity, sizeof(rest.opacity));
}

ImageStatus
image_png_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	PngFile file;

	if (!png_file_open(&file, bytes, length))
		return image_fail(error, IMAGE_EINVALID, decode_failed, "%s", file.refusal);
	look_ahead(&file);
	info->format = IMAGE_PNG;
	info->width = (int) file.width;
	info->height = (int) file.height;
	info->bit_depth = file.depth;
	info->channels = count_channels(&file);
	info->orientation = image_exif_orientation(file.exif, file.exif_length);
	return IMAGE_OK;
}

static void
open_libraries(PngReader *reader)
{
	const PngFile *file = &reader->file;

	reader->zip.zalloc = on_zip_alloc;
	reader->zip.zfree = on_zip_free;
	reader->zip.opaque = reader;
	if (inflateInit(&reader->zip) != Z_OK)
		fail_png_memory(reader);
	reader->zip_open = true;
	reader->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reader, on_png_error, on_warning,
										   reader, on_malloc, on_free);
	if (reader->png != NULL)
		reader->info = png_create_info_struct(reader->png);
	if (reader->info == NULL)
		fail_png_memory(reader);
	png_set_user_limits(reader->png, file->frame_width, file->frame_height);
	png_set_crc_action(reader->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
	png_set_option(reader->png, PNG_IGNORE_ADLER32, PNG_OPTION_ON);
	png_set_read_fn(reader->png, reader, on_read);
	make_header(reader);
	png_read_info(reader->png, reader->info);
}

/* To 8 bits, 1 to 4 channels; libpng does not mind the calls' order. */
static void
set_transforms(PngReader *reader)
{
	const PngFile *file = &reader->file;
	png_structp png = reader->png;

	if (file->depth == 16)
		png_set_scale_16(png);
	if (file->color == PNG_COLOR_TYPE_PALETTE)
		png_set_palette_to_rgb(png);
	if (file->color == PNG_COLOR_TYPE_GRAY)
		png_set_expand_gray_1_2_4_to_8(png);
	if (file->transparent)
		png_set_tRNS_to_alpha(png);
	reader->passes = png_set_interlace_handling(png);
	png_read_update_info(png, reader->info);
	if (png_get_rowbytes(png, reader->info) !=
		(size_t) file->frame_width * (size_t) reader->rows_are.channels)
		png_error(png, "unexpected size of a row");
}

/* ---- Pixels -------------------------------------------------------------- */

/* The image, rows before conversion and a row of the file; all count. */
static void
alloc_png_pixels(PngReader *reader, int channels)
{
	const PngFile *file = &reader->file;
	size_t output = image_size_mul(image_size_mul(file->width, file->height), (size_t) channels);
	size_t row = image_size_mul(file->frame_width, (size_t) reader->rows_are.channels);
	size_t rows = file->interlaced ? image_size_mul(row, file->frame_height) : row;

	INVARIANT(reader->used <= reader->limits->max_memory);
	reader->over_limit = output > reader->limits->max_memory - reader->used;
	if (reader->over_limit || image_alloc(&reader->image, (int) file->width, (int) file->height,
										  channels, reader->error) != IMAGE_OK)
		fail_png_memory(reader);
	reader->used += output;
	reader->rows = reader_alloc(reader, rows);
	if (reader->rows == NULL)
		fail_png_memory(reader);
	/* a row that libpng leaves unwritten must not show old memory */
	memset(reader->rows, 0, rows);
	reader->raw = reader_alloc(reader, row_bytes(reader, file->frame_width) + 1);
	if (reader->raw == NULL)
		fail_png_memory(reader);
}

/* Around a frame that is smaller than the image, samples are zero. */
static void
fill_around_frame(PngReader *reader)
{
	const PngFile *file = &reader->file;
	const Image *image = &reader->image;
	bool keyed = file->transparent && file->key[0] == 0 &&
				 (file->color == 0 || (file->key[1] == 0 && file->key[2] == 0));
	uint8_t zero[4] = { 0 };
	size_t pixels = (size_t) image->width * (size_t) image->height;

	if (file->frame_width == file->width && file->frame_height == file->height)
		return;
	if (file->color == 3)
	{
		memcpy(zero, file->palette[0], 3);
		zero[3] = file->opacity[0];
	}
	else if (file->color <= 2 && !keyed)
		zero[reader->rows_are.channels - 1] = file->transparent ? 255 : 0;
	for (size_t i = 0; i < pixels; i++)
		image_convert_row(zero, reader->rows_are, image->pixels + i * image->channels,
						  image->channels, 1);
}

static void
read_row(PngReader *reader, uint8_t *row)
{
	if (reader->limits->progress != NULL)
		reader->limits->progress();
	png_read_row(reader->png, row, NULL);
}

static void
read_rows(PngReader *reader)
{
	const PngFile *file = &reader->file;
	const Image *image = &reader->image;
	size_t in_row = (size_t) file->frame_width * reader->rows_are.channels;
	size_t out_row = (size_t) image->width * image->channels;
	/* Pillow puts pixels of passes into the corner, wherever the frame is. */
	size_t x = file->interlaced ? 0 : file->frame_x, top = file->interlaced ? 0 : file->frame_y;

	INVARIANT(file->width == (uint32_t) image->width && file->height == (uint32_t) image->height);
	INVARIANT(png_file_frame_fits(file));
	if (file->interlaced)
		for (int pass = 0; pass < reader->passes; pass++)
			for (size_t y = 0; y < file->frame_height; y++)
				read_row(reader, reader->rows + y * in_row);
	for (size_t y = 0; y < file->frame_height; y++)
	{
		uint8_t *row = reader->rows + (file->interlaced ? y * in_row : 0);

		if (!file->interlaced)
			read_row(reader, row);
		image_convert_row(row, reader->rows_are,
						  image->pixels + (top + y) * out_row + x * image->channels,
						  image->channels, file->frame_width);
	}
}

static void
read_png(PngReader *reader)
{
	open_file(reader);
	if (image_check_pixels(reader->file.width, reader->file.height, reader->limits,
						   reader->error) != IMAGE_OK)
		longjmp(reader->jump, 1);
	look_ahead(&reader->file);
	reader->rows_are.channels = count_channels(&reader->file);
	alloc_png_pixels(reader, reader->image.channels);
	open_libraries(reader);
	set_transforms(reader);
	fill_around_frame(reader);
	read_rows(reader);
	if (!png_file_close(&reader->file))
		fail_png(reader, reader->file.refusal);
}

ImageStatus
image_png_decode(const uint8_t *bytes, size_t length, ImagePixelKind to, const ImageLimits *limits,
				 Image *image, ImageError *error)
{
	PngReader reader = { .file.bytes = bytes,
						 .file.length = length,
						 .limits = limits,
						 .error = error,
						 .rows_are.opaque = to.opaque,
						 .image.channels = to.channels };
	ImageStatus status = guarded_png(&reader, read_png);

	if (status == IMAGE_OK)
	{
		*image = reader.image;
		reader.image.pixels = NULL;
	}
	close_png(&reader);
	return status;
}

/*
 * The output, the whole of an interlaced image before conversion (the header
 * does not say whether it is), and a few rows: libpng keeps two of up to 8
 * bytes a pixel, this file one of up to 4 and one of up to 8.
 */
size_t
image_png_bytes(const ImageInfo *info, int channels)
{
	size_t pixels = image_size_mul((size_t) info->width, (size_t) info->height);
	size_t images = image_size_mul(pixels, (size_t) channels + (size_t) info->channels);

	return image_size_add(image_size_add(images, image_size_mul((size_t) info->width, 32)),
						  LIBRARY_BYTES);
}
