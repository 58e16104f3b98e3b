/*
 * image_private.h
 *	  What the files of src/image share and nobody else sees.
 */
#ifndef BICYCLE_IMAGE_PRIVATE_H
#define BICYCLE_IMAGE_PRIVATE_H

#include "image/image.h"

/*
 * pixels.c. image_fail is the one place that fills an ImageError; it returns
 * code, and leaves the hint empty. The detail is made printable ASCII, since
 * libraries may quote bytes of a hostile file.
 */
__attribute__((format(printf, 4, 5))) extern ImageStatus
image_fail(ImageError *error, ImageStatus code, const char *message, const char *detail, ...);
extern ImageStatus image_fail_memory(ImageError *error, size_t bytes);

/* With the header's numbers, before anything is allocated for them. */
extern ImageStatus image_check_pixels(uint64_t width, uint64_t height, const ImageLimits *limits,
									  ImageError *error);
extern ImageStatus image_fail_budget(ImageError *error, const ImageLimits *limits);

/* These saturate at SIZE_MAX, and can be compared with any limit. */
extern size_t image_size_add(size_t a, size_t b);
extern size_t image_size_mul(size_t a, size_t b);

/* All are positive; channels is 1 or 3. On failure pixels are NULL. */
extern ImageStatus image_alloc(Image *image, int width, int height, int channels,
							   ImageError *error);

/* A struct, so that the compiler sees if one is taken for the other. */
typedef struct ImagePixelKind
{
	int channels; /* 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA */
	bool opaque;  /* alpha is left out, and not laid over white */
} ImagePixelKind;

/* channels.c: n pixels of a kind to out_channels (1 or 3). */
extern void image_convert_row(const uint8_t *in, ImagePixelKind kind, uint8_t *out,
							  int out_channels, size_t n);

/* exif.c. Of a block of EXIF; 1 if it says nothing. */
extern int image_exif_orientation(const uint8_t *exif, size_t length);

/* Turns an image that has it. On failure the image is as it was. */
extern ImageStatus image_turn_upright(Image *image, int orientation, ImageError *error);

/*
 * row_sums.c. n bytes: the sum of weight[j] times byte i of row j, of count
 * rows, rounded, without its lower bits and from 0 to 255. The sums of products
 * are within 32 bits.
 */
#define IMAGE_WEIGHT_BITS 22

extern void image_sum_rows(const uint8_t *rows, size_t stride, const int32_t *weight, int count,
						   size_t n, uint8_t *to);

/* Columns become rows, of `height` bytes each. */
extern void image_turn(const uint8_t *from, size_t stride, uint8_t *to, size_t to_stride,
					   size_t width, size_t height);

/*
 * other_data.c. Data that start as no image that is read: says what they are.
 */
extern ImageStatus image_fail_foreign(const uint8_t *bytes, size_t length, ImageError *error);

/* The formats' files, called by image.c once the signature is known. */
extern ImageStatus image_png_info(const uint8_t *bytes, size_t length, ImageInfo *info,
								  ImageError *error);
extern ImageStatus image_png_decode(const uint8_t *bytes, size_t length, ImagePixelKind to,
									const ImageLimits *limits, Image *image, ImageError *error);
extern size_t image_png_bytes(const ImageInfo *info, int channels);

extern ImageStatus image_jpeg_info(const uint8_t *bytes, size_t length, ImageInfo *info,
								   ImageError *error);
extern ImageStatus image_jpeg_decode(const uint8_t *bytes, size_t length, int channels,
									 const ImageLimits *limits, Image *image, ImageError *error);
extern size_t image_jpeg_bytes(const ImageInfo *info, int channels);

extern bool image_is_webp(const uint8_t *bytes, size_t length);
extern ImageStatus image_webp_info(const uint8_t *bytes, size_t length, ImageInfo *info,
								   ImageError *error);
extern ImageStatus image_webp_decode(const uint8_t *bytes, size_t length, ImagePixelKind to,
									 const ImageLimits *limits, Image *image, ImageError *error);
extern size_t image_webp_bytes(const ImageInfo *info, int channels);

#endif /* BICYCLE_IMAGE_PRIVATE_H */
