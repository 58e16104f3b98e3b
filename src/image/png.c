/*
 * png.c
 *	  PNG through libpng's low-level interface.
 *
 * R1 A PngReader or PngWriter lives on its caller's stack and owns everything
 *    of one call: libpng's structs and the buffers of pixels.
 * R2 What a reader holds is counted in `used`, which never exceeds the caller's
 *    limit.
 * R3 libpng leaves an error by longjmp to a guarded function, the only ones
 *    with a setjmp. They have no variables of their own and all state is in the
 *    struct, so nothing is lost by the jump.
 * R4 What is left is freed by who made the struct, whichever way it went.
 * R5 What hostile files could reach is kept small. Dimensions are checked on
 *    the bytes of IHDR before libpng is asked. Every chunk but IHDR, PLTE,
 *    tRNS, IDAT and IEND is skipped unread, so gamma, profiles and orientation
 *    are ignored.
 */
#include "common/invariant.h"
#include "image/image_private.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char decode_failed[] = "could not decode PNG image";
static const char encode_failed[] = "could not encode PNG image";

/*
 * What libpng and zlib take besides pixels: both structs, a 32 kB window with
 * its tables, the buffer of compressed bytes. The header's size comes first in
 * each block that libpng gets, and keeps what follows aligned.
 */
#define LIBRARY_BYTES (256 * 1024)
#define BLOCK_HEADER 16

#define FIRST_CHUNK_END 33 /* signature, then length, name, 13 bytes and CRC of IHDR */

/* Honest files have no more beyond their rows; zlib would take seconds. */
#define IDAT_SLACK (64 * 1024)

typedef struct PngReader
{
	png_structp png;
	png_infop info;
	jmp_buf jump;
	ImageError *error;
	const uint8_t *bytes;
	size_t length, offset;
	const ImageLimits *limits;  /* NULL while only headers are read */
	size_t used;                /* bytes allocated and not freed */
	bool over_limit, no_memory; /* why libpng found none */
	bool interlaced;
	int passes;
	int file_channels; /* after expansion: 1 to 4 */
	uint8_t *rows;     /* one row, or the whole image if interlaced; file_channels bytes a pixel */
	Image image;
} PngReader;

static void
on_png_error(png_structp png, png_const_charp text)
{
	PngReader *reader = png_get_error_ptr(png);

	if (reader->over_limit)
		image_fail_budget(reader->error, reader->limits);
	else if (reader->no_memory)
		image_fail_memory(reader->error, reader->length);
	else
		image_fail(reader->error, IMAGE_EINVALID, decode_failed, "The PNG library says \"%s\".",
				   text);
	longjmp(reader->jump, 1);
}

static void
on_warning(png_structp png, png_const_charp text)
{
}

static void
on_read(png_structp png, png_bytep to, size_t n)
{
	PngReader *reader = png_get_io_ptr(png);

	INVARIANT(reader->offset <= reader->length);
	if (n > reader->length - reader->offset)
		png_error(png, "unexpected end of data");
	memcpy(to, reader->bytes + reader->offset, n);
	reader->offset += n;
}

static void *
reader_alloc(PngReader *reader, size_t bytes)
{
	size_t total = image_size_add(bytes, BLOCK_HEADER);
	uint8_t *block;

	INVARIANT(reader->limits == NULL || reader->used <= reader->limits->max_memory);
	if (reader->limits != NULL && total > reader->limits->max_memory - reader->used)
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
fail_png(PngReader *reader, const char *detail)
{
	image_fail(reader->error, IMAGE_EINVALID, decode_failed, "%s", detail);
	longjmp(reader->jump, 1);
}

static void
close_png(PngReader *reader)
{
	reader_free(reader, reader->rows);
	png_destroy_read_struct(&reader->png, &reader->info, NULL);
	image_free(&reader->image);
}

static uint32_t
big_endian(const uint8_t *bytes)
{
	return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 | (uint32_t) bytes[2] << 8 |
		   bytes[3];
}

/* Checks the dimensions in IHDR before libpng's structs are made. */
static void
read_png_headers(PngReader *reader)
{
	uint32_t width, height;

	if (reader->length < FIRST_CHUNK_END)
		fail_png(reader, "The data ends within the header.");
	if (big_endian(reader->bytes + 8) != 13 || memcmp(reader->bytes + 12, "IHDR", 4) != 0)
		fail_png(reader, "The first chunk is not an IHDR chunk of 13 bytes.");
	width = big_endian(reader->bytes + 16);
	height = big_endian(reader->bytes + 20);
	if (width == 0 || height == 0 || width > INT32_MAX || height > INT32_MAX)
		fail_png(reader, "The header declares an impossible width or height.");
	if (reader->limits != NULL &&
		image_check_pixels(width, height, reader->limits, reader->error) != IMAGE_OK)
		longjmp(reader->jump, 1);

	reader->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, reader, on_png_error, on_warning,
										   reader, on_malloc, on_free);
	if (reader->png != NULL)
		reader->info = png_create_info_struct(reader->png);
	if (reader->info == NULL)
	{
		if (reader->over_limit)
			image_fail_budget(reader->error, reader->limits);
		else
			image_fail_memory(reader->error, LIBRARY_BYTES);
		longjmp(reader->jump, 1);
	}
	png_set_user_limits(reader->png, width, height);
	png_set_chunk_malloc_max(reader->png, 1 << 20);
	png_set_chunk_cache_max(reader->png, 16);
	png_set_keep_unknown_chunks(reader->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
	png_set_crc_action(reader->png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
	png_set_benign_errors(reader->png, 0);
	png_set_read_fn(reader->png, reader, on_read);
	png_read_info(reader->png, reader->info);
}

static bool
has_transparency(const PngReader *reader)
{
	return png_get_valid(reader->png, reader->info, PNG_INFO_tRNS) != 0;
}

ImageStatus
image_png_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	PngReader reader = { .bytes = bytes, .length = length, .error = error };
	ImageStatus status = guarded_png(&reader, read_png_headers);

	if (status == IMAGE_OK)
	{
		int color = png_get_color_type(reader.png, reader.info);

		info->format = IMAGE_PNG;
		info->width = (int) png_get_image_width(reader.png, reader.info);
		info->height = (int) png_get_image_height(reader.png, reader.info);
		info->bit_depth = png_get_bit_depth(reader.png, reader.info);
		info->channels = color & PNG_COLOR_MASK_COLOR ? 3 : 1;
		if (color & PNG_COLOR_MASK_ALPHA || has_transparency(&reader))
			info->channels++;
	}
	close_png(&reader);
	return status;
}

/* To 8 bits, 1 to 4 channels; libpng does not mind the calls' order. */
static void
set_transforms(PngReader *reader)
{
	png_structp png = reader->png;
	int color = png_get_color_type(png, reader->info);

	if (png_get_bit_depth(png, reader->info) == 16)
		png_set_scale_16(png);
	if (color == PNG_COLOR_TYPE_PALETTE)
		png_set_palette_to_rgb(png);
	if (color == PNG_COLOR_TYPE_GRAY)
		png_set_expand_gray_1_2_4_to_8(png);
	if (has_transparency(reader))
		png_set_tRNS_to_alpha(png);
	reader->interlaced = png_get_interlace_type(png, reader->info) != PNG_INTERLACE_NONE;
	reader->passes = png_set_interlace_handling(png);
	png_read_update_info(png, reader->info);
	reader->file_channels = png_get_channels(png, reader->info);
}

/* Lengths of all IDAT chunks; their contents are libpng's to check. */
static uint64_t
compressed_bytes(const PngReader *reader)
{
	uint64_t sum = 0;
	size_t at = 8;

	INVARIANT(reader->length >= FIRST_CHUNK_END);
	while (reader->length - at >= 12)
	{
		uint32_t n = big_endian(reader->bytes + at);

		if (memcmp(reader->bytes + at + 4, "IDAT", 4) == 0)
			sum += n;
		if (n > reader->length - at - 12)
			break;
		at += 12 + (size_t) n;
	}
	return sum;
}

/* Called before set_transforms, so that the size of a row is the file's. */
static void
check_compressed(PngReader *reader)
{
	uint64_t rows = ((uint64_t) png_get_rowbytes(reader->png, reader->info) + 2) *
					png_get_image_height(reader->png, reader->info);

	if (compressed_bytes(reader) > rows + rows / 4 + IDAT_SLACK)
		png_error(reader->png, "IDAT: more data than the image can hold");
}

/* The image and the rows before conversion; both count. */
static void
alloc_png_pixels(PngReader *reader, int channels)
{
	size_t width = png_get_image_width(reader->png, reader->info);
	size_t height = png_get_image_height(reader->png, reader->info);
	size_t output = image_size_mul(image_size_mul(width, height), (size_t) channels);
	size_t row = image_size_mul(width, (size_t) reader->file_channels);
	size_t rows = reader->interlaced ? image_size_mul(row, height) : row;

	if (png_get_rowbytes(reader->png, reader->info) != row)
		png_error(reader->png, "unexpected size of a row");
	INVARIANT(reader->used <= reader->limits->max_memory);
	reader->over_limit = output > reader->limits->max_memory - reader->used;
	if (reader->over_limit ||
		image_alloc(&reader->image, (int) width, (int) height, channels, reader->error) != IMAGE_OK)
	{
		reader->no_memory = !reader->over_limit;
		png_error(reader->png, "out of memory");
	}
	reader->used += output;
	reader->rows = reader_alloc(reader, rows);
	if (reader->rows == NULL)
		png_error(reader->png, "out of memory");
	/* a row that libpng leaves unwritten must not show old memory */
	memset(reader->rows, 0, rows);
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
	const Image *image = &reader->image;
	size_t in_row = (size_t) image->width * reader->file_channels;
	size_t out_row = (size_t) image->width * image->channels;

	if (reader->interlaced)
		for (int pass = 0; pass < reader->passes; pass++)
			for (int y = 0; y < image->height; y++)
				read_row(reader, reader->rows + y * in_row);
	for (int y = 0; y < image->height; y++)
	{
		uint8_t *row = reader->rows + (reader->interlaced ? y * in_row : 0);

		if (!reader->interlaced)
			read_row(reader, row);
		image_convert_row(row, reader->file_channels, image->pixels + y * out_row, image->channels,
						  (size_t) image->width);
	}
}

static void
read_png(PngReader *reader)
{
	read_png_headers(reader);
	check_compressed(reader);
	set_transforms(reader);
	alloc_png_pixels(reader, reader->image.channels);
	read_rows(reader);
	/* To IEND: a file cut off behind its last row is found out. */
	png_read_end(reader->png, NULL);
}

ImageStatus
image_png_decode(const uint8_t *bytes, size_t length, int channels, const ImageLimits *limits,
				 Image *image, ImageError *error)
{
	PngReader reader = { .bytes = bytes,
						 .length = length,
						 .limits = limits,
						 .error = error,
						 .image.channels = channels };
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
 * bytes a pixel, this file one of up to 4.
 */
size_t
image_png_bytes(const ImageInfo *info, int channels)
{
	size_t pixels = image_size_mul((size_t) info->width, (size_t) info->height);
	size_t images = image_size_mul(pixels, (size_t) channels + (size_t) info->channels);

	return image_size_add(image_size_add(images, image_size_mul((size_t) info->width, 24)),
						  LIBRARY_BYTES);
}

/* ---- Writing ------------------------------------------------------------- */

typedef struct PngWriter
{
	png_structp png;
	png_infop info;
	jmp_buf jump;
	ImageError *error;
	const Image *image;
	uint8_t *bytes; /* grows by doubling */
	size_t length, capacity;
	bool no_memory;
} PngWriter;

static void
on_png_write_error(png_structp png, png_const_charp text)
{
	PngWriter *writer = png_get_error_ptr(png);

	if (writer->no_memory)
		image_fail_memory(writer->error, writer->capacity);
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
		writer->no_memory = true;
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
			writer->no_memory = true;
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

/* Smallest files on photographs, five times quicker than level 6. */
static void
write_png(PngWriter *writer)
{
	const Image *image = writer->image;
	size_t row = (size_t) image->width * image->channels;

	writer->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, writer, on_png_write_error,
											on_warning, writer, on_write_malloc, on_write_free);
	if (writer->png != NULL)
		writer->info = png_create_info_struct(writer->png);
	if (writer->info == NULL)
	{
		image_fail_memory(writer->error, LIBRARY_BYTES);
		longjmp(writer->jump, 1);
	}
	png_set_write_fn(writer->png, writer, on_write, on_flush);
	png_set_user_limits(writer->png, INT32_MAX, INT32_MAX);
	png_set_compression_level(writer->png, 1);
	png_set_compression_strategy(writer->png, Z_RLE);
	png_set_compression_buffer_size(writer->png, 65536);
	png_set_filter(writer->png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
	png_set_IHDR(writer->png, writer->info, (png_uint_32) image->width, (png_uint_32) image->height,
				 8, image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
				 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(writer->png, writer->info);
	for (int y = 0; y < image->height; y++)
		png_write_row(writer->png, image->pixels + y * row);
	png_write_end(writer->png, NULL);
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
	PngWriter writer = { .image = image, .error = error };
	ImageStatus status;

	*bytes = NULL;
	*length = 0;
	status = guarded_png_write(&writer);
	png_destroy_write_struct(&writer.png, &writer.info);
	if (status == IMAGE_OK)
	{
		*bytes = writer.bytes;
		*length = writer.length;
	}
	else
		free(writer.bytes);
	return status;
}
