/*
 * image.c
 *	  Entry points of image decoding: which format it is,
 *	  and which way up.
 *
 * No state, no memory, no locks.
 */
#include "image/image_private.h"

#include <string.h>

static const uint8_t png_signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
static const uint8_t jpeg_signature[3] = { 0xff, 0xd8, 0xff };

/* True and *format if the bytes start like a file of a format that is read. */
static bool
sniff(const uint8_t *bytes, size_t length, ImageFormat *format, ImageError *error)
{
	if (length >= sizeof(png_signature) && memcmp(bytes, png_signature, sizeof(png_signature)) == 0)
		*format = IMAGE_PNG;
	else if (length >= sizeof(jpeg_signature) &&
			 memcmp(bytes, jpeg_signature, sizeof(jpeg_signature)) == 0)
		*format = IMAGE_JPEG;
	else if (image_is_webp(bytes, length))
		*format = IMAGE_WEBP;
	else
	{
		image_fail_foreign(bytes, length, error);
		return false;
	}
	return true;
}

ImageStatus
image_info(const uint8_t *bytes, size_t length, ImageInfo *info, ImageError *error)
{
	ImageFormat format;

	memset(info, 0, sizeof(*info));
	if (!sniff(bytes, length, &format, error))
		return error->code;
	switch (format)
	{
		case IMAGE_PNG:
			return image_png_info(bytes, length, info, error);
		case IMAGE_JPEG:
			return image_jpeg_info(bytes, length, info, error);
		case IMAGE_WEBP:
			break;
	}
	return image_webp_info(bytes, length, info, error);
}

static bool
turns(const ImageInfo *info, unsigned flags)
{
	return flags & IMAGE_UPRIGHT && info->orientation > 1;
}

size_t
image_decode_bytes(const ImageInfo *info, int channels, unsigned flags)
{
	size_t pixels = image_size_mul((size_t) info->width, (size_t) info->height);
	size_t bytes = info->format == IMAGE_PNG    ? image_png_bytes(info, channels)
				   : info->format == IMAGE_JPEG ? image_jpeg_bytes(info, channels)
												: image_webp_bytes(info, channels);

	/* Decoding is over when an image is turned into a second one. */
	if (turns(info, flags) && bytes < image_size_mul(pixels, 2 * (size_t) channels))
		bytes = image_size_mul(pixels, 2 * (size_t) channels);
	return bytes;
}

void
image_decoded_size(const ImageInfo *info, unsigned flags, int *width, int *height)
{
	bool swap = turns(info, flags) && info->orientation >= 5;

	*width = swap ? info->height : info->width;
	*height = swap ? info->width : info->height;
}

static ImageStatus
decode(const uint8_t *bytes, size_t length, ImagePixelKind to, const ImageLimits *limits,
	   Image *image, ImageError *error)
{
	ImageFormat format;

	if (!sniff(bytes, length, &format, error))
		return error->code;
	switch (format)
	{
		case IMAGE_PNG:
			return image_png_decode(bytes, length, to, limits, image, error);
		case IMAGE_JPEG:
			return image_jpeg_decode(bytes, length, to.channels, limits, image, error);
		case IMAGE_WEBP:
			break;
	}
	return image_webp_decode(bytes, length, to, limits, image, error);
}

ImageStatus
image_decode(const uint8_t *bytes, size_t length, int channels, unsigned flags,
			 const ImageLimits *limits, Image *image, ImageError *error)
{
	const ImagePixelKind to = { .channels = channels, .opaque = flags & IMAGE_OPAQUE };
	ImageInfo info;

	memset(image, 0, sizeof(*image));
	if (channels != 1 && channels != 3)
		return image_fail(error, IMAGE_EINVALID, "wrong number of channels",
						  "Images are decoded to 1 or 3 channels, not %d.", channels);
	if (decode(bytes, length, to, limits, image, error) != IMAGE_OK)
		return error->code;
	if (!(flags & IMAGE_UPRIGHT) || image_info(bytes, length, &info, error) != IMAGE_OK ||
		!turns(&info, flags))
		return IMAGE_OK;
	if (image_decode_bytes(&info, channels, flags) > limits->max_memory)
		image_fail_budget(error, limits);
	else if (image_turn_upright(image, info.orientation, error) == IMAGE_OK)
		return IMAGE_OK;
	image_free(image);
	return error->code;
}
