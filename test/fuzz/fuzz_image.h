/*
 * fuzz_image.h
 *	  Decodes one input as gray or colour, twice: the memory that is promised
 *	  must do, and the pixels must be the same.
 */
#ifndef BICYCLE_FUZZ_IMAGE_H
#define BICYCLE_FUZZ_IMAGE_H

#include "fuzz.h"
#include "image/image.h"

static inline void
decode_input(const uint8_t *bytes, size_t length)
{
	const int channels = length % 2 * 2 + 1;
	const unsigned flags = length / 2 % 4;
	ImageLimits limits = { 1 << 20, (size_t) 16 << 20 };
	ImageInfo info;
	Image image, again;
	int width, height;
	ImageError error;

	if (image_info(bytes, length, &info, &error) != IMAGE_OK)
		demand_error(error.message, error.detail);
	if (image_decode(bytes, length, channels, flags, &limits, &image, &error) != IMAGE_OK)
	{
		demand_error(error.message, error.detail);
		DEMAND(image.pixels == NULL && error.code != IMAGE_ENOMEM);
		return;
	}
	DEMAND(image_info(bytes, length, &info, &error) == IMAGE_OK);
	image_decoded_size(&info, flags, &width, &height);
	DEMAND(width == image.width && height == image.height);
	DEMAND(image.channels == channels &&
		   (uint64_t) image.width * (uint64_t) image.height <= limits.max_pixels);
	limits.max_memory = image_decode_bytes(&info, channels, flags);
	DEMAND(image_decode(bytes, length, channels, flags, &limits, &again, &error) == IMAGE_OK);
	DEMAND(memcmp(image.pixels, again.pixels,
				  (size_t) image.width * (size_t) image.height * (size_t) channels) == 0);
	image_free(&image);
	image_free(&again);
}

#endif /* BICYCLE_FUZZ_IMAGE_H */
