/*
 * png_file.h
 *	  A PNG file as a row of chunks: what is said before the image data, where
 *	  the data are, and whether Pillow would read the file at all.
 *
 * Nothing is allocated; all pointers are into the file's bytes.
 */
#ifndef BICYCLE_PNG_FILE_H
#define BICYCLE_PNG_FILE_H

#include "image/image_private.h"

#define PNG_FILE_ENTRIES 256

typedef struct PngFile
{
	const uint8_t *bytes;
	size_t length, at; /* at: behind what has been walked over */
	char refusal[128]; /* a sentence, once a function has returned false */

	/* IHDR. depth is 0 until a kind of pixels that exists has been declared. */
	uint32_t width, height;
	int depth, color;
	bool interlaced;

	/* The part of the image that the data fill; all but in odd APNG files. */
	bool framed;
	uint32_t frame_x, frame_y, frame_width, frame_height;

	/* Palette, black where the file has no entry, and opacities. */
	uint8_t palette[PNG_FILE_ENTRIES][3];
	uint8_t opacity[PNG_FILE_ENTRIES];
	int entries;         /* of the last PLTE */
	bool transparent;    /* there is a tRNS chunk that means something */
	uint16_t key[3];     /* the transparent color, without a palette */
	const uint8_t *trns; /* opacities that are not in `opacity` yet */
	uint32_t trns_length;

	const uint8_t *exif; /* of eXIf, or NULL */
	uint32_t exif_length;

	/* APNG */
	bool counted, numbered, default_image;
	uint32_t frames, sequence;

	uint32_t data_left; /* bytes of the chunk of data that is being taken */
} PngFile;

/*
 * Walks up to the first chunk of data. False: refused. Else width and height
 * are 1 to INT32_MAX, depth and color go together, and the frame, of one pixel
 * at least, fits; none of these changes any more before png_file_close().
 */
extern bool png_file_open(PngFile *file, const uint8_t *bytes, size_t length);

/* Whether the frame lies within width and height. */
extern bool png_file_frame_fits(const PngFile *file);

/*
 * The next piece of data, at most 64 kB of one chunk. *n is 0 at their end;
 * false: the chunks end in a way that is refused.
 */
extern bool png_file_data(PngFile *file, const uint8_t **piece, size_t *n);

/* Walks from behind the data taken so far to IEND. False: refused. */
extern bool png_file_close(PngFile *file);

#endif /* BICYCLE_PNG_FILE_H */
