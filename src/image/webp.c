/*
 * webp.c
 *	  WebP through libwebp and its demuxer.
 *
 * R1 Whether a file is read is the demuxer's word, and the decoder's on the
 *    first frame, as with Pillow. That frame stands on a transparent canvas.
 * R2 The library has no limit of memory. What it takes follows from the size of
 *    the canvas and the number of chunks, both known before it is asked: see
 *    image_webp_bytes, which test_image_memory compares with what is taken.
 * R3 The decoder gets the frame in pieces, so that who watches hears of it.
 *
 * All state is on the caller's stack or freed by who made it; no locks.
 */
#include "common/invariant.h"
#include "image/image_private.h"

#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

static const char decode_failed[] = "could not decode WebP image";
static const char encode_failed[] = "could not encode WebP image";

#define PIECE 65536
#define LIBRARY_BYTES (1024 * 1024) /* structs, tables of codes */
#define CHUNK_BYTES 128             /* of the demuxer, a chunk or frame */
#define ROW_BYTES 512               /* of the decoder, a pixel of a row */

typedef struct WebpReader
{
	const uint8_t *bytes;
	size_t length;
	const ImageLimits *limits;
	ImageError *error;
	ImageInfo info;
	WebPDemuxer *demuxer;
	WebPIterator frame;
	bool framed;
	uint8_t *canvas; /* (height, width, 4) */
	Image image;
} WebpReader;

static uint32_t
little_endian(const uint8_t *bytes)
{
	return bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 |
		   (uint32_t) bytes[3] << 24;
}

/* The next chunk from *at on that has this name, or any; *at goes behind it. */
static const uint8_t *
next_riff_chunk(const uint8_t *bytes, size_t length, size_t *at, uint32_t *n)
{
	const uint8_t *chunk = bytes + *at;

	if (length - *at < 8)
		return NULL;
	*n = little_endian(chunk + 4);
	if (*n > length - *at - 8)
		*n = (uint32_t) (length - *at - 8);
	*at += 8 + (size_t) *n;
	if (*n % 2 == 1 && *at < length)
		++*at;
	return chunk;
}

/* Counts the chunks, those in frames too, and finds the orientation. */
static void
walk_webp(const uint8_t *bytes, size_t length, ImageInfo *info)
{
	const uint8_t *chunk;
	size_t at = 12;
	uint32_t n;

	while ((chunk = next_riff_chunk(bytes, length, &at, &n)) != NULL)
	{
		info->parts++;
		if (memcmp(chunk, "ANMF", 4) == 0)
			info->parts += n / 8;
		if (memcmp(chunk, "EXIF", 4) == 0 && info->orientation == 0)
			info->orientation = image_exif_orientation(chunk + 8, n);
	}
	if (info->orientation == 0)
		info->orientation = 1;
}

bool
image_is_webp(const uint8_t *bytes, size_t length)
{
	return length >= 16 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBPVP8", 7) == 0 &&
		   memchr(" XL", bytes[15], 3) != NULL;
}

ImageStatus
image_webp_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	WebPBitstreamFeatures features;

	if (WebPGetFeatures(bytes, length, &features) != VP8_STATUS_OK || features.width <= 0 ||
		features.height <= 0)
		return image_fail(error, IMAGE_EINVALID, decode_failed,
						  "Its header is damaged or cut off.");
	info->format = IMAGE_WEBP;
	info->width = features.width;
	info->height = features.height;
	info->channels = features.has_alpha ? 4 : 3;
	info->bit_depth = 8;
	walk_webp(bytes, length, info);
	return IMAGE_OK;
}

size_t
image_webp_bytes(const ImageInfo *info, int channels)
{
	size_t pixels = image_size_mul((size_t) info->width, (size_t) info->height);
	/*
	 * the canvas, the decoder's own pixels (alpha: two planes more), the image
	 */
	size_t planes = 4 + 4 + 2 + (size_t) channels;
	size_t bytes = image_size_add(image_size_mul(pixels, planes), LIBRARY_BYTES);

	bytes = image_size_add(bytes, image_size_mul((size_t) info->width + 64, ROW_BYTES));
	return image_size_add(bytes, image_size_mul(info->parts, CHUNK_BYTES));
}

/*
 * The library does not always say that it found no memory: if there is none
 * now, that was why.
 */
static bool
memory_is_short(size_t bytes)
{
	void *probe = malloc(bytes);

	free(probe);
	return probe == NULL;
}

static ImageStatus
fail_webp(const WebpReader *reader, const char *detail)
{
	if (memory_is_short(LIBRARY_BYTES))
		return image_fail_memory(reader->error, LIBRARY_BYTES);
	return image_fail(reader->error, IMAGE_EINVALID, decode_failed, "%s", detail);
}

static ImageStatus
open_webp(WebpReader *reader)
{
	const WebPData data = { reader->bytes, reader->length };

	reader->demuxer = WebPDemux(&data);
	if (reader->demuxer == NULL)
		return fail_webp(reader, "Its chunks are damaged or cut off.");
	reader->framed = WebPDemuxGetFrame(reader->demuxer, 1, &reader->frame) != 0;
	if (!reader->framed ||
		WebPDemuxGetI(reader->demuxer, WEBP_FF_CANVAS_WIDTH) != (uint32_t) reader->info.width ||
		WebPDemuxGetI(reader->demuxer, WEBP_FF_CANVAS_HEIGHT) != (uint32_t) reader->info.height)
		return fail_webp(reader, "It has no image.");
	return IMAGE_OK;
}

/* The first frame, in its place on the canvas. */
static ImageStatus
decode_frame(WebpReader *reader)
{
	const WebPIterator *frame = &reader->frame;
	size_t stride = (size_t) reader->info.width * 4;
	size_t offset = (size_t) frame->y_offset * stride + (size_t) frame->x_offset * 4;
	VP8StatusCode status = VP8_STATUS_SUSPENDED;
	WebPDecoderConfig config;
	WebPIDecoder *decoder;

	INVARIANT(frame->x_offset >= 0 && frame->y_offset >= 0 &&
			  frame->width <= reader->info.width - frame->x_offset &&
			  frame->height <= reader->info.height - frame->y_offset);
	if (!WebPInitDecoderConfig(&config))
		return fail_webp(reader, "The WebP library is of another version.");
	config.output.colorspace = MODE_RGBA;
	config.output.is_external_memory = 1;
	config.output.u.RGBA.rgba = reader->canvas + offset;
	config.output.u.RGBA.stride = (int) stride;
	config.output.u.RGBA.size = stride * (size_t) reader->info.height - offset;
	decoder = WebPIDecode(NULL, 0, &config);
	if (decoder == NULL)
		return image_fail_memory(reader->error, LIBRARY_BYTES);
	for (size_t given = 0; status == VP8_STATUS_SUSPENDED && given < frame->fragment.size;)
	{
		size_t left = frame->fragment.size - given;

		given += left < PIECE ? left : PIECE;
		if (reader->limits->progress != NULL)
			reader->limits->progress();
		status = WebPIUpdate(decoder, frame->fragment.bytes, given);
	}
	WebPIDelete(decoder);
	if (status == VP8_STATUS_OK)
		return IMAGE_OK;
	if (status == VP8_STATUS_OUT_OF_MEMORY)
		return image_fail_memory(reader->error, LIBRARY_BYTES);
	return fail_webp(reader, status == VP8_STATUS_SUSPENDED || status == VP8_STATUS_NOT_ENOUGH_DATA
								 ? "The data end before the image does."
								 : "Its image data are damaged.");
}

static ImageStatus
read_webp(WebpReader *reader, ImagePixelKind to)
{
	ImagePixelKind canvas = { .channels = 4, .opaque = to.opaque };
	const ImageInfo *info = &reader->info;
	size_t row;

	if (image_webp_info(reader->bytes, reader->length, &reader->info, reader->error) != IMAGE_OK ||
		image_check_pixels((uint64_t) info->width, (uint64_t) info->height, reader->limits,
						   reader->error) != IMAGE_OK)
		return reader->error->code;
	if (image_webp_bytes(info, to.channels) > reader->limits->max_memory)
		return image_fail_budget(reader->error, reader->limits);
	/* libwebp 1.2 does not survive every allocation that fails */
	if (memory_is_short(image_webp_bytes(info, to.channels)))
		return image_fail_memory(reader->error, image_webp_bytes(info, to.channels));
	if (open_webp(reader) != IMAGE_OK)
		return reader->error->code;
	row = (size_t) info->width * 4;
	reader->canvas = calloc((size_t) info->height, row);
	if (reader->canvas == NULL)
		return image_fail_memory(reader->error, image_size_mul((size_t) info->height, row));
	if (decode_frame(reader) != IMAGE_OK || image_alloc(&reader->image, info->width, info->height,
														to.channels, reader->error) != IMAGE_OK)
		return reader->error->code;
	canvas.opaque |= info->channels == 3;
	for (size_t y = 0; y < (size_t) info->height; y++)
		image_convert_row(reader->canvas + y * row, canvas,
						  reader->image.pixels + y * (size_t) (info->width * to.channels),
						  to.channels, (size_t) info->width);
	return IMAGE_OK;
}

ImageStatus
image_webp_decode(const uint8_t *bytes, size_t length, ImagePixelKind to, const ImageLimits *limits,
				  Image *image, ImageError *error)
{
	WebpReader reader = { .bytes = bytes, .length = length, .limits = limits, .error = error };
	ImageStatus status = read_webp(&reader, to);

	if (status == IMAGE_OK)
	{
		*image = reader.image;
		reader.image.pixels = NULL;
	}
	image_free(&reader.image);
	free(reader.canvas);
	if (reader.framed)
		WebPDemuxReleaseIterator(&reader.frame);
	WebPDemuxDelete(reader.demuxer);
	return status;
}

/* ---- Writing ------------------------------------------------------------- */

/* WebP has no gray: its pixels are widened. */
static bool
import_pixels(WebPPicture *picture, const Image *image, ImageError *error)
{
	size_t pixels = (size_t) image->width * (size_t) image->height;
	uint8_t *rgb = image->pixels;
	bool imported;

	if (image->channels == 1)
	{
		rgb = malloc(pixels * 3);
		if (rgb == NULL)
		{
			image_fail_memory(error, pixels * 3);
			return false;
		}
		image_convert_row(image->pixels, (ImagePixelKind){ .channels = 1 }, rgb, 3, pixels);
	}
	imported = WebPPictureImportRGB(picture, rgb, image->width * 3);
	if (!imported)
		image_fail_memory(error, pixels * 4);
	if (rgb != image->pixels)
		free(rgb);
	return imported;
}

static ImageStatus
write_webp(WebPPicture *picture, const WebPConfig *config, const Image *image, ImageError *error)
{
	if (!import_pixels(picture, image, error))
		return error->code;
	if (WebPEncode(config, picture))
		return IMAGE_OK;
	if (picture->error_code == VP8_ENC_ERROR_OUT_OF_MEMORY ||
		picture->error_code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY ||
		memory_is_short(LIBRARY_BYTES))
		return image_fail_memory(error, image_size_mul((size_t) image->width, 4));
	return image_fail(error, IMAGE_EINVALID, encode_failed, "The WebP library says error %d.",
					  (int) picture->error_code);
}

ImageStatus
image_encode_webp(const Image *image, int quality, uint8_t **bytes, size_t *length,
				  ImageError *error)
{
	WebPMemoryWriter writer;
	WebPConfig config;
	WebPPicture picture;
	ImageStatus status;

	*bytes = NULL;
	*length = 0;
	if (quality < 0 || quality > 100)
		return image_fail(error, IMAGE_EINVALID, "wrong WebP quality",
						  "Quality is from 1 to 100, or 0 for lossless, not %d.", quality);
	if (image->width > WEBP_MAX_DIMENSION || image->height > WEBP_MAX_DIMENSION)
		return image_fail(error, IMAGE_ELIMIT, "image is too large for WebP",
						  "It has %d x %d pixels; the format ends at %d a side.", image->width,
						  image->height, WEBP_MAX_DIMENSION);
	if (!WebPConfigPreset(&config, WEBP_PRESET_DEFAULT, (float) (quality > 0 ? quality : 75)) ||
		!WebPPictureInit(&picture))
		return image_fail(error, IMAGE_EINVALID, encode_failed,
						  "The WebP library is of another version.");
	if (quality == 0)
	{
		config.lossless = 1;
		config.method = 1; /* a third smaller than PNG would cost ten times the time */
		config.exact = 1;
		picture.use_argb = 1;
	}
	picture.width = image->width;
	picture.height = image->height;
	WebPMemoryWriterInit(&writer);
	picture.writer = WebPMemoryWrite;
	picture.custom_ptr = &writer;
	status = write_webp(&picture, &config, image, error);
	WebPPictureFree(&picture);
	if (status == IMAGE_OK)
	{
		*bytes = writer.mem;
		*length = writer.size;
	}
	else
		WebPMemoryWriterClear(&writer);
	return status;
}
