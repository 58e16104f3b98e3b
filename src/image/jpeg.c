/*
 * jpeg.c
 *	  Reading JPEG: which file, by Pillow's rules (jpeg_file.c), and its pixels
 *	  through libjpeg-turbo's jpeglib.h.
 *
 * Built like png.c, whose rules R1, R3 and R4 hold here.
 *
 * R1 Memory is not counted block by block: what a decode takes is computed from
 *    the headers, compared with the limit, and given to the library as its own
 *    limit.
 * R2 The library's warnings decide nothing: with each of them Pillow takes the
 *    pixels as they come, and so does this file. doc/images.md lists them.
 * R3 What the library would make up is refused, as by Pillow: its source says
 *    that there is no more, instead of an end marker that is not there.
 * R4 The source has the file in pieces of 64 kB, as Pillow has: once all rows
 *    are there, the piece with the last of them is all that is looked at.
 * R5 Components of CMYK are taken as inverted, as Adobe writes them, and turned
 *    into RGB as by Pillow.
 * R6 Progressive files of more than MAX_SCANS scans are refused, each of which
 *    costs a walk over the whole image.
 */
#include "common/invariant.h"
#include "image/image_private.h"
#include "image/jpeg_file.h"

#include <stdio.h> /* before jpeglib.h, which uses FILE without including it */
#include <jpeglib.h>
#include <jerror.h>
#include <limits.h>
#include <setjmp.h>
#include <stdlib.h>

#define MAX_SCANS 100
#define PIECE 65536
#define LIBRARY_BYTES (512 * 1024) /* tables, structs and the pools' slack */

static const char decode_failed[] = "could not decode JPEG image";

typedef struct JpegReader
{
	struct jpeg_decompress_struct jpeg;
	struct jpeg_error_mgr manager;
	struct jpeg_progress_mgr progress;
	struct jpeg_source_mgr source;
	jmp_buf jump;
	ImageError *error;
	JpegFile file;
	const uint8_t *bytes;
	size_t length;
	size_t given;   /* bytes that the source has had */
	size_t to_skip; /* of bytes that it has not had */
	const ImageLimits *limits;
	int channels;
	uint8_t *row;
	Image image;
} JpegReader;

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
			jpeg->err->format_message(jpeg, text);
			image_fail(reader->error, IMAGE_EINVALID, decode_failed,
					   "The JPEG library says \"%s\".", text);
	}
	longjmp(reader->jump, 1);
}

/* Warnings, and traces that nobody asked for. */
static void
on_message(j_common_ptr jpeg, int level)
{
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

/* ---- The source ---------------------------------------------------------- */

static void
on_source(j_decompress_ptr jpeg)
{
}

/* Suspends the library until give_piece. */
static boolean
on_fill(j_decompress_ptr jpeg)
{
	return FALSE;
}

static void
on_skip(j_decompress_ptr jpeg, long n)
{
	JpegReader *reader = jpeg->client_data;
	struct jpeg_source_mgr *source = &reader->source;
	size_t part = (size_t) n < source->bytes_in_buffer ? (size_t) n : source->bytes_in_buffer;

	INVARIANT(n >= 0);
	source->next_input_byte += part;
	source->bytes_in_buffer -= part;
	reader->to_skip = (size_t) n - part;
}

/* The library is suspended: it gets more of the file, if there is more. */
static void
give_piece(JpegReader *reader)
{
	do
	{
		size_t left = reader->length - reader->given;
		size_t n = left < PIECE ? left : PIECE;

		if (n == 0)
			fail_jpeg(reader, "The data end before the image does.");
		reader->given += n;
		reader->source.bytes_in_buffer += n;
		on_skip(&reader->jpeg, (long) reader->to_skip);
	} while (reader->to_skip > 0);
}

/* ---- Headers ------------------------------------------------------------- */

static void
open_jpeg(JpegReader *reader)
{
	if (!jpeg_file_open(&reader->file, reader->bytes, reader->length))
		fail_jpeg(reader, reader->file.refusal);
}

static void
fill_info(const JpegFile *file, ImageInfo *info)
{
	info->format = IMAGE_JPEG;
	info->width = file->width;
	info->height = file->height;
	info->channels = file->channels;
	info->bit_depth = 8;
}

ImageStatus
image_jpeg_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	JpegFile file;

	if (!jpeg_file_open(&file, bytes, length))
		return image_fail(error, IMAGE_EINVALID, decode_failed, "%s", file.refusal);
	fill_info(&file, info);
	info->orientation = image_exif_orientation(bytes + file.exif, file.exif_length);
	return IMAGE_OK;
}

/* Up to the first scan; chooses gray, RGB or CMYK. */
static void
read_jpeg_headers(JpegReader *reader)
{
	struct jpeg_decompress_struct *jpeg = &reader->jpeg;
	int result;

	jpeg_create_decompress(jpeg);
	jpeg->progress = &reader->progress;
	jpeg->src = &reader->source;
	reader->source.next_input_byte = reader->bytes;
	/* Tables that end like a file may come before the image. */
	while ((result = jpeg_read_header(jpeg, FALSE)) != JPEG_HEADER_OK)
		if (result == JPEG_SUSPENDED)
			give_piece(reader);
	if (jpeg->image_width != (JDIMENSION) reader->file.width ||
		jpeg->image_height != (JDIMENSION) reader->file.height ||
		jpeg->num_components != reader->file.channels)
		fail_jpeg(reader, "Its headers contradict each other.");
	switch (jpeg->num_components)
	{
		case 1:
			jpeg->out_color_space = JCS_GRAYSCALE;
			break;
		case 3:
			jpeg->out_color_space = JCS_RGB;
			break;
		default:
			jpeg->out_color_space = JCS_CMYK;
	}
}

static void
init_jpeg(JpegReader *reader)
{
	reader->jpeg.err = jpeg_std_error(&reader->manager);
	reader->manager.error_exit = on_jpeg_error;
	reader->manager.emit_message = on_message;
	reader->progress.progress_monitor = on_progress;
	reader->source.init_source = on_source;
	reader->source.fill_input_buffer = on_fill;
	reader->source.skip_input_data = on_skip;
	reader->source.resync_to_restart = jpeg_resync_to_restart;
	reader->source.term_source = on_source;
	reader->jpeg.client_data = reader;
}

/* ---- Pixels -------------------------------------------------------------- */

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

	fill_info(&reader->file, &info);
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

/* a * b / 255, rounded as by Pillow. */
static inline unsigned
product(unsigned a, unsigned b)
{
	unsigned c = a * b + 128;

	return ((c >> 8) + c) >> 8;
}

/* Inverted CMYK to RGB, in its place. */
static void
cmyk_to_rgb(uint8_t *row, size_t n)
{
	const uint8_t *in = row;

	for (uint8_t *out = row; n > 0; n--, in += 4, out += 3)
	{
		unsigned k = in[3];

		for (int c = 0; c < 3; c++)
			out[c] = (uint8_t) (k - product(255 - in[c], k));
	}
}

static void
read_jpeg(JpegReader *reader)
{
	struct jpeg_decompress_struct *jpeg = &reader->jpeg;
	const Image *image = &reader->image;

	open_jpeg(reader);
	if (image_check_pixels((uint64_t) reader->file.width, (uint64_t) reader->file.height,
						   reader->limits, reader->error) != IMAGE_OK)
		longjmp(reader->jump, 1);
	read_jpeg_headers(reader);
	check_limits(reader);
	while (!jpeg_start_decompress(jpeg))
		give_piece(reader);
	alloc_jpeg_pixels(reader);
	while (jpeg->output_scanline < jpeg->output_height)
	{
		size_t y = jpeg->output_scanline;
		JSAMPROW rows[1] = { reader->row };
		bool cmyk = jpeg->out_color_space == JCS_CMYK;

		if (jpeg_read_scanlines(jpeg, rows, 1) != 1)
		{
			give_piece(reader);
			continue;
		}
		if (cmyk)
			cmyk_to_rgb(reader->row, (size_t) image->width);
		image_convert_row(reader->row,
						  (ImagePixelKind){ .channels = cmyk ? 3 : jpeg->output_components },
						  image->pixels + y * image->width * image->channels, image->channels,
						  (size_t) image->width);
	}
	/* Errors count, but not that it would need more of the file. */
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
