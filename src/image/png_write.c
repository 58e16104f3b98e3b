/*
 * png_write.c
 *	  Writing PNG through libpng.
 *
 * A PngWriter lives on its caller's stack and owns everything of one call.
 * libpng leaves an error by longjmp to guarded_png_write, the only function
 * with a setjmp, which has no variables of its own.
 */
#include "image/image_private.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char encode_failed[] = "could not encode PNG image";

#define LIBRARY_BYTES (256 * 1024) /* what an error names when libpng could not be set up */

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
on_write_warning(png_structp png, png_const_charp text)
{
}

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

	writer->png =
		png_create_write_struct_2(PNG_LIBPNG_VER_STRING, writer, on_png_write_error,
								  on_write_warning, writer, on_write_malloc, on_write_free);
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
