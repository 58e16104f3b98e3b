/*
 * jpeg_write.c
 *	  Writing JPEG through libjpeg-turbo's jpeglib.h.
 *
 * A JpegWriter lives on its caller's stack and owns everything of one call. The
 * library leaves an error by longjmp to guarded_jpeg_write, the only function
 * with a setjmp, which has no variables of its own.
 */
#include "common/invariant.h"
#include "image/image_private.h"

#include <stdio.h> /* before jpeglib.h, which uses FILE without including it */
#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>
#include <stdlib.h>

static const char encode_failed[] = "could not encode JPEG image";

typedef struct JpegWriter
{
	struct jpeg_compress_struct jpeg;
	struct jpeg_error_mgr manager;
	jmp_buf jump;
	ImageError *error;
	struct jpeg_destination_mgr destination; /* the library's loses a buffer that cannot grow */
	const Image *image;
	int quality;
	uint8_t *bytes; /* grows by doubling */
	size_t length, capacity;
} JpegWriter;

static void
on_jpeg_write_error(j_common_ptr jpeg)
{
	JpegWriter *writer = jpeg->client_data;
	char text[JMSG_LENGTH_MAX];

	if (jpeg->err->msg_code == JERR_OUT_OF_MEMORY)
		image_fail_memory(writer->error, writer->capacity);
	else
	{
		jpeg->err->format_message(jpeg, text);
		image_fail(writer->error, IMAGE_EINVALID, encode_failed, "The JPEG library says \"%s\".",
				   text);
	}
	longjmp(writer->jump, 1);
}

static void
on_write_message(j_common_ptr jpeg, int level)
{
}

/* Doubles the buffer and points the library behind its used bytes. */
static void
grow_jpeg(JpegWriter *writer, size_t used)
{
	size_t capacity =
		image_size_add(writer->capacity, writer->capacity > 0 ? writer->capacity : 16384);
	uint8_t *bytes = capacity <= PTRDIFF_MAX ? realloc(writer->bytes, capacity) : NULL;

	if (bytes == NULL)
	{
		image_fail_memory(writer->error, capacity);
		longjmp(writer->jump, 1);
	}
	INVARIANT(used <= capacity);
	writer->bytes = bytes;
	writer->capacity = capacity;
	writer->destination.next_output_byte = bytes + used;
	writer->destination.free_in_buffer = capacity - used;
}

static void
on_init_destination(j_compress_ptr jpeg)
{
	grow_jpeg(jpeg->client_data, 0);
}

/* Called when the buffer is full to the last byte. */
static boolean
on_full(j_compress_ptr jpeg)
{
	JpegWriter *writer = jpeg->client_data;

	grow_jpeg(writer, writer->capacity);
	return TRUE;
}

static void
on_term_destination(j_compress_ptr jpeg)
{
	JpegWriter *writer = jpeg->client_data;

	INVARIANT(writer->destination.free_in_buffer <= writer->capacity);
	writer->length = writer->capacity - writer->destination.free_in_buffer;
}

static void
write_jpeg(JpegWriter *writer)
{
	struct jpeg_compress_struct *jpeg = &writer->jpeg;
	const Image *image = writer->image;

	jpeg_create_compress(jpeg);
	jpeg->dest = &writer->destination;
	jpeg->image_width = (JDIMENSION) image->width;
	jpeg->image_height = (JDIMENSION) image->height;
	jpeg->input_components = image->channels;
	jpeg->in_color_space = image->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
	jpeg_set_defaults(jpeg);
	jpeg_set_quality(jpeg, writer->quality, TRUE);
	jpeg_start_compress(jpeg, TRUE);
	while (jpeg->next_scanline < jpeg->image_height)
	{
		JSAMPROW rows[1] = { image->pixels +
							 (size_t) jpeg->next_scanline * image->width * image->channels };

		jpeg_write_scanlines(jpeg, rows, 1);
	}
	jpeg_finish_compress(jpeg);
}

static ImageStatus
guarded_jpeg_write(JpegWriter *writer)
{
	if (setjmp(writer->jump) != 0)
		return writer->error->code;
	write_jpeg(writer);
	return IMAGE_OK;
}

ImageStatus
image_encode_jpeg(const Image *image, int quality, uint8_t **bytes, size_t *length,
				  ImageError *error)
{
	JpegWriter writer = { .image = image, .quality = quality, .error = error };
	ImageStatus status;

	*bytes = NULL;
	*length = 0;
	if (quality < 1 || quality > 100)
		return image_fail(error, IMAGE_EINVALID, "wrong JPEG quality",
						  "Quality is from 1 to 100, not %d.", quality);
	writer.jpeg.err = jpeg_std_error(&writer.manager);
	writer.manager.error_exit = on_jpeg_write_error;
	writer.manager.emit_message = on_write_message;
	writer.destination.init_destination = on_init_destination;
	writer.destination.empty_output_buffer = on_full;
	writer.destination.term_destination = on_term_destination;
	writer.jpeg.client_data = &writer;
	status = guarded_jpeg_write(&writer);
	jpeg_destroy_compress(&writer.jpeg);
	if (status == IMAGE_OK)
	{
		*bytes = writer.bytes;
		*length = writer.length;
	}
	else
		free(writer.bytes);
	return status;
}
