/*
 * jpeg.c
 *	  JPEG through libjpeg-turbo's jpeglib.h.
 *
 * Built like png.c, whose rules R1, R3 and R4 hold here. Memory is not counted
 * block by block: what a decode takes is computed from the headers, compared
 * with the limit, and given to the library as its own limit.
 *
 * The library repairs damaged files and only warns; here the first warning of
 * damage is an error, so that half an image never becomes a row of a table.
 * Refused: CMYK and YCCK, 12-bit samples, and progressive files of more than
 * MAX_SCANS scans, each of which costs a walk over the whole image.
 */
#include "common/invariant.h"
#include "image/image_private.h"

#include <stdio.h> /* before jpeglib.h, which uses FILE without including it */
#include <jpeglib.h>
#include <jerror.h>
#include <limits.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SCANS 100
#define LIBRARY_BYTES (512 * 1024) /* tables, structs and the pools' slack */

static const char decode_failed[] = "could not decode JPEG image";
static const char encode_failed[] = "could not encode JPEG image";

typedef struct JpegReader
{
	struct jpeg_decompress_struct jpeg;
	struct jpeg_error_mgr manager;
	struct jpeg_progress_mgr progress;
	jmp_buf jump;
	ImageError *error;
	const uint8_t *bytes;
	size_t length;
	const ImageLimits *limits;
	int channels;
	uint8_t *row;
	Image image;
} JpegReader;

static void
library_text(j_common_ptr jpeg, char text[JMSG_LENGTH_MAX])
{
	jpeg->err->format_message(jpeg, text);
}

static void
on_jpeg_error(j_common_ptr jpeg)
{
	JpegReader *reader = jpeg->client_data;
	char text[JMSG_LENGTH_MAX];

	switch (jpeg->err->msg_code)
	{
		case JERR_OUT_OF_MEMORY:
			image_fail_memory(reader->error, reader->length);
			break;
		/* the library's way to say that max_memory_to_use is not enough */
		case JERR_NO_BACKING_STORE:
			image_fail_budget(reader->error, reader->limits);
			break;
		default:
			library_text(jpeg, text);
			image_fail(reader->error, IMAGE_EINVALID, decode_failed,
					   "The JPEG library says \"%s\".", text);
	}
	longjmp(reader->jump, 1);
}

/* level is -1 for a warning, else a trace message that nobody asked for. */
static void
on_message(j_common_ptr jpeg, int level)
{
	if (level >= 0)
		return;
	switch (jpeg->err->msg_code)
	{
		case JWRN_JPEG_EOF:
		case JWRN_HIT_MARKER:
		case JWRN_HUFF_BAD_CODE:
		case JWRN_ARITH_BAD_CODE:
		case JWRN_MUST_RESYNC:
		case JWRN_EXTRANEOUS_DATA:
		case JWRN_BOGUS_PROGRESSION:
			on_jpeg_error(jpeg);
	}
}

static void
on_progress(j_common_ptr jpeg)
{
	JpegReader *reader = jpeg->client_data;

	if (reader->limits != NULL && reader->limits->progress != NULL)
		reader->limits->progress();
	if (reader->jpeg.input_scan_number > MAX_SCANS)
	{
		image_fail(reader->error, IMAGE_ELIMIT, "image has too many scans",
				   "It has more than %d progressive scans.", MAX_SCANS);
		longjmp(reader->jump, 1);
	}
}

static void
fail_jpeg(JpegReader *reader, const char *detail)
{
	image_fail(reader->error, IMAGE_EINVALID, decode_failed, "%s", detail);
	longjmp(reader->jump, 1);
}

static ImageStatus
guarded_jpeg(JpegReader *reader, void (*body)(JpegReader *))
{
	if (setjmp(reader->jump) != 0)
		return reader->error->code;
	body(reader);
	return IMAGE_OK;
}

static void
close_jpeg(JpegReader *reader)
{
	jpeg_destroy_decompress(&reader->jpeg);
	free(reader->row);
	image_free(&reader->image);
}

/* Up to the first scan; chooses gray or RGB. */
static void
read_jpeg_headers(JpegReader *reader)
{
	struct jpeg_decompress_struct *jpeg = &reader->jpeg;

	jpeg_create_decompress(jpeg);
	jpeg->progress = &reader->progress;
	jpeg_mem_src(jpeg, reader->bytes, reader->length);
	jpeg_read_header(jpeg, TRUE);
	if (jpeg->data_precision != 8)
		fail_jpeg(reader, "Only 8-bit JPEG images are read.");
	switch (jpeg->jpeg_color_space)
	{
		case JCS_GRAYSCALE:
			jpeg->out_color_space = JCS_GRAYSCALE;
			break;
		case JCS_YCbCr:
		case JCS_RGB:
			jpeg->out_color_space = JCS_RGB;
			break;
		case JCS_CMYK:
		case JCS_YCCK:
			fail_jpeg(reader, "CMYK images are not read; convert it to RGB.");
			break;
		default:
			fail_jpeg(reader, "Its color space is neither gray nor RGB.");
	}
}

static void
init_jpeg(JpegReader *reader)
{
	reader->jpeg.err = jpeg_std_error(&reader->manager);
	reader->manager.error_exit = on_jpeg_error;
	reader->manager.emit_message = on_message;
	reader->progress.progress_monitor = on_progress;
	reader->jpeg.client_data = reader;
}

static void
fill_info(const JpegReader *reader, ImageInfo *info)
{
	info->format = IMAGE_JPEG;
	info->width = (int) reader->jpeg.image_width;
	info->height = (int) reader->jpeg.image_height;
	info->channels = reader->jpeg.num_components;
	info->bit_depth = 8;
}

ImageStatus
image_jpeg_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	JpegReader reader = { .bytes = bytes, .length = length, .error = error };
	ImageStatus status;

	init_jpeg(&reader);
	status = guarded_jpeg(&reader, read_jpeg_headers);
	if (status == IMAGE_OK)
		fill_info(&reader, info);
	close_jpeg(&reader);
	return status;
}

/*
 * The working memory of a decode: rows in flight (per component up to 32 of
 * them twice, padded to a whole block of 32, and the one being
 * colour-converted) and, if the file has several scans, every coefficient in 16
 * bits.
 */
static size_t
working_bytes(const ImageInfo *info, bool coefficients)
{
	size_t row = image_size_mul((size_t) info->width + 32, (size_t) info->channels);
	size_t bytes = image_size_add(image_size_mul(row, 96), LIBRARY_BYTES);

	if (coefficients)
		bytes = image_size_add(
			bytes, image_size_mul(row, image_size_mul((size_t) info->height + 32, sizeof(JCOEF))));
	return bytes;
}

static size_t
output_bytes(const ImageInfo *info, int channels)
{
	return image_size_mul(image_size_mul((size_t) info->width, (size_t) info->height),
						  (size_t) channels);
}

size_t
image_jpeg_bytes(const ImageInfo *info, int channels)
{
	return image_size_add(output_bytes(info, channels), working_bytes(info, true));
}

static void
check_limits(JpegReader *reader)
{
	ImageInfo info;
	size_t output, working;

	fill_info(reader, &info);
	if (image_check_pixels((uint64_t) info.width, (uint64_t) info.height, reader->limits,
						   reader->error) != IMAGE_OK)
		longjmp(reader->jump, 1);
	output = output_bytes(&info, reader->channels);
	working = working_bytes(&info, jpeg_has_multiple_scans(&reader->jpeg));
	if (image_size_add(output, working) > reader->limits->max_memory)
	{
		image_fail_budget(reader->error, reader->limits);
		longjmp(reader->jump, 1);
	}
	reader->jpeg.mem->max_memory_to_use = working > LONG_MAX ? LONG_MAX : (long) working;
}

static void
alloc_jpeg_pixels(JpegReader *reader)
{
	const struct jpeg_decompress_struct *jpeg = &reader->jpeg;
	size_t row = (size_t) jpeg->output_width * (size_t) jpeg->output_components;

	if (image_alloc(&reader->image, (int) jpeg->output_width, (int) jpeg->output_height,
					reader->channels, reader->error) != IMAGE_OK)
		longjmp(reader->jump, 1);
	reader->row = malloc(row);
	if (reader->row == NULL)
	{
		image_fail_memory(reader->error, row);
		longjmp(reader->jump, 1);
	}
}

static void
read_jpeg(JpegReader *reader)
{
	struct jpeg_decompress_struct *jpeg = &reader->jpeg;
	const Image *image = &reader->image;

	read_jpeg_headers(reader);
	check_limits(reader);
	jpeg_start_decompress(jpeg);
	alloc_jpeg_pixels(reader);
	while (jpeg->output_scanline < jpeg->output_height)
	{
		size_t y = jpeg->output_scanline;
		JSAMPROW rows[1] = { reader->row };

		if (jpeg_read_scanlines(jpeg, rows, 1) != 1)
			fail_jpeg(reader, "The data ends within the image.");
		image_convert_row(reader->row, jpeg->output_components,
						  image->pixels + y * image->width * image->channels, image->channels,
						  (size_t) image->width);
	}
	/* To the end marker: a file cut off behind its last row is found out. */
	jpeg_finish_decompress(jpeg);
}

ImageStatus
image_jpeg_decode(const uint8_t *bytes, size_t length, int channels, const ImageLimits *limits,
				  Image *image, ImageError *error)
{
	JpegReader reader = {
		.bytes = bytes, .length = length, .limits = limits, .channels = channels, .error = error
	};
	ImageStatus status;

	init_jpeg(&reader);
	status = guarded_jpeg(&reader, read_jpeg);
	if (status == IMAGE_OK)
	{
		*image = reader.image;
		reader.image.pixels = NULL;
	}
	close_jpeg(&reader);
	return status;
}

/* ---- Writing ------------------------------------------------------------- */

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
		library_text(jpeg, text);
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
