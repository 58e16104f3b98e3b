/*
 * image.c
 *	  Entry points of image decoding: which format it is.
 *
 * No state, no memory, no locks.
 */
#include "image/image_private.h"

#include <string.h>

static const uint8_t png_signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
static const uint8_t jpeg_signature[3] = { 0xff, 0xd8, 0xff };

/* True and *format if the bytes start like a PNG or a JPEG file. */
static bool
sniff(const uint8_t *bytes, size_t length, ImageFormat *format, ImageError *error)
{
	if (length >= sizeof(png_signature) && memcmp(bytes, png_signature, sizeof(png_signature)) == 0)
		*format = IMAGE_PNG;
	else if (length >= sizeof(jpeg_signature) &&
			 memcmp(bytes, jpeg_signature, sizeof(jpeg_signature)) == 0)
		*format = IMAGE_JPEG;
	else
	{
		image_fail(error, IMAGE_EINVALID, "could not decode image",
				   length == 0 ? "The data is empty."
							   : "The data starts with neither a PNG nor a JPEG signature.");
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
	return format == IMAGE_PNG ? image_png_info(bytes, length, info, error)
							   : image_jpeg_info(bytes, length, info, error);
}

size_t
image_decode_bytes(const ImageInfo *info, int channels)
{
	return info->format == IMAGE_PNG ? image_png_bytes(info, channels)
									 : image_jpeg_bytes(info, channels);
}

ImageStatus
image_decode(const uint8_t *bytes, size_t length, int channels, const ImageLimits *limits,
			 Image *image, ImageError *error)
{
	ImageFormat format;

	memset(image, 0, sizeof(*image));
	if (channels != 1 && channels != 3)
		return image_fail(error, IMAGE_EINVALID, "wrong number of channels",
						  "Images are decoded to 1 or 3 channels, not %d.", channels);
	if (!sniff(bytes, length, &format, error))
		return error->code;
	if (format == IMAGE_PNG)
		return image_png_decode(bytes, length, channels, limits, image, error);
	return image_jpeg_decode(bytes, length, channels, limits, image, error);
}
