/*
 * pixels.c
 *	  Memory of an Image, its limits, and the errors of src/image.
 *
 * Nothing here keeps state between calls or touches a lock. An Image owns its
 * pixels; image_free releases them.
 */
#include "image/image_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
make_printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

ImageStatus
image_fail(ImageError *error, ImageStatus code, const char *message, const char *detail, ...)
{
	va_list args;

	error->code = code;
	error->hint[0] = '\0';
	snprintf(error->message, sizeof(error->message), "%s", message);
	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
	make_printable(error->detail);
	return code;
}

ImageStatus
image_fail_memory(ImageError *error, size_t bytes)
{
	return image_fail(error, IMAGE_ENOMEM, "out of memory",
					  "Failed on request of size %zu while working on an image.", bytes);
}

ImageStatus
image_fail_budget(ImageError *error, const ImageLimits *limits)
{
	return image_fail(error, IMAGE_ELIMIT, "image needs too much memory",
					  "Decoding it would take more than the limit of %zu bytes.",
					  limits->max_memory);
}

ImageStatus
image_check_pixels(uint64_t width, uint64_t height, const ImageLimits *limits, ImageError *error)
{
	uint64_t pixels;

	if (__builtin_mul_overflow(width, height, &pixels) || pixels > limits->max_pixels)
		return image_fail(error, IMAGE_ELIMIT, "image is too large",
						  "It has %llu x %llu pixels, the limit is %llu pixels.",
						  (unsigned long long) width, (unsigned long long) height,
						  (unsigned long long) limits->max_pixels);
	return IMAGE_OK;
}

size_t
image_size_add(size_t a, size_t b)
{
	size_t sum;

	return __builtin_add_overflow(a, b, &sum) ? SIZE_MAX : sum;
}

size_t
image_size_mul(size_t a, size_t b)
{
	size_t product;

	return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

ImageStatus
image_alloc(Image *image, int width, int height, int channels, ImageError *error)
{
	size_t bytes =
		image_size_mul(image_size_mul((size_t) width, (size_t) height), (size_t) channels);

	image->pixels = bytes <= PTRDIFF_MAX ? malloc(bytes) : NULL;
	if (image->pixels == NULL)
		return image_fail_memory(error, bytes);
	image->width = width;
	image->height = height;
	image->channels = channels;
	return IMAGE_OK;
}

void
image_free(Image *image)
{
	free(image->pixels);
	memset(image, 0, sizeof(*image));
}
