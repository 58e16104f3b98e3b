/*
 * image.h
 *	  Decoding, encoding and resizing of images. Input bytes are hostile until
 *	  decoded.
 *
 * PNG through libpng's low-level API, JPEG through libjpeg-turbo, WebP through
 * libwebp, all with limits on pixels and memory set before anything is
 * allocated. What is read is what Pillow reads (doc/images.md). No function
 * keeps state; all may run on any thread at once. Memory of an Image is
 * malloc'ed and freed by image_free.
 */
#ifndef BICYCLE_IMAGE_H
#define BICYCLE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ImageStatus
{
	IMAGE_OK = 0,
	IMAGE_EINVALID, /* not an image, damaged, or of a kind that is not read (SQLSTATE 22P03) */
	IMAGE_ELIMIT,   /* beyond a limit (54000) */
	IMAGE_ENOMEM    /* out of memory (53200) */
} ImageStatus;

typedef struct ImageError
{
	ImageStatus code;
	char message[128]; /* lower case, no full stop: "could not decode PNG image" */
	char detail[256];  /* the library's words, a sentence */
	char hint[256];    /* the way out, or empty */
} ImageError;

typedef enum ImageFormat
{
	IMAGE_PNG,
	IMAGE_JPEG,
	IMAGE_WEBP
} ImageFormat;

typedef struct ImageInfo
{
	ImageFormat format;
	int width, height;
	/*
	 * Of the file: 1 gray, 3 RGB or palette, 4 CMYK; one more if transparent.
	 */
	int channels;
	int bit_depth;   /* of the file: 1, 2, 4, 8, 16 */
	int orientation; /* of EXIF, 1 to 8; 1 if nothing is said */
	size_t parts;    /* WebP: chunks that have to be kept apart */
} ImageInfo;

typedef struct ImageLimits
{
	uint64_t max_pixels; /* width * height; bicycle.max_image_pixels */
	size_t max_memory;   /* what one decode holds at a time */
	/* At each row, also of each scan of a JPEG; may be NULL. */
	void (*progress)(void);
} ImageLimits;

typedef struct Image
{
	int width, height, channels; /* 1 or 3 */
	uint8_t *pixels;             /* (height, width, channels) */
} Image;

/* Reads headers only. *info is all zeros on failure. */
extern ImageStatus image_info(const uint8_t *bytes, size_t length, ImageInfo *info,
							  ImageError *error);

typedef enum ImageFlags
{
	IMAGE_OPAQUE = 1, /* alpha is not looked at, as by Pillow's convert("RGB") */
	IMAGE_UPRIGHT = 2 /* turned by its orientation, as by Pillow's exif_transpose */
} ImageFlags;

/* What image_decode takes at most: what a caller reserves beforehand. */
extern size_t image_decode_bytes(const ImageInfo *info, int channels, unsigned flags);

/* Of what image_decode makes of it. */
extern void image_decoded_size(const ImageInfo *info, unsigned flags, int *width, int *height);

/*
 * 16 bit to 8 as libpng's scale_16; alpha over white as (c*a + 255*(255-a) +
 * 127)/255; then gray (channels 1: Pillow's L, (19595 R + 38470 G + 7471 B +
 * 32768) >> 16) or colour. Gamma and profiles are ignored. flags: ImageFlags.
 * *image is all zeros on failure.
 */
extern ImageStatus image_decode(const uint8_t *bytes, size_t length, int channels, unsigned flags,
								const ImageLimits *limits, Image *image, ImageError *error);

/*
 * Bicubic of Pillow 13 (a = -0.5, antialiased), bit for bit. out is allocated,
 * and all zeros on failure. image_resize_bytes is an upper bound of what that
 * takes besides `in`.
 */
extern size_t image_resize_bytes(int in_width, int in_height, int channels, int width, int height);
extern ImageStatus image_resize(const Image *in, int width, int height, Image *out,
								ImageError *error);

/*
 * Into memory of the caller's, who has the result for as long as that: no
 * image_free.
 */
extern ImageStatus image_resize_into(const Image *in, int width, int height, uint8_t *pixels,
									 Image *out, ImageError *error);

/*
 * `width` columns from x on, as gray (1) or colour (3). *out is all zeros on
 * failure, of which want of memory is the only one.
 */
extern ImageStatus image_columns(const Image *in, int x, int width, int channels, Image *out,
								 ImageError *error);

/*
 * 8 bits. *bytes: malloc'ed, NULL on failure. level: 0 (stored, and quick) to
 * BICYCLE_PNG_LEVEL_MOST; image_encode_png takes BICYCLE_PNG_LEVEL.
 */
extern ImageStatus image_encode_png(const Image *image, uint8_t **bytes, size_t *length,
									ImageError *error);
extern ImageStatus image_encode_png_at(const Image *image, int level, uint8_t **bytes,
									   size_t *length, ImageError *error);
extern ImageStatus image_encode_jpeg(const Image *image, int quality, uint8_t **bytes,
									 size_t *length, ImageError *error);
/* quality 0: lossless. Gray becomes colour, as the format has no gray. */
extern ImageStatus image_encode_webp(const Image *image, int quality, uint8_t **bytes,
									 size_t *length, ImageError *error);

/*
 * Tiles of one size in `columns` columns, `border` white pixels before, between
 * and after them; gray tiles are widened to RGB if any is RGB. *sheet is all
 * zeros on failure.
 */
extern ImageStatus image_contact_sheet(const Image *tiles, int ntiles, int columns, int border,
									   Image *sheet, ImageError *error);

extern void image_free(Image *image);

#endif /* BICYCLE_IMAGE_H */
