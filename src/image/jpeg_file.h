/*
 * jpeg_file.h
 *	  The segments of a JPEG file before its first scan, and whether Pillow
 *	  would open it.
 */
#ifndef BICYCLE_JPEG_FILE_H
#define BICYCLE_JPEG_FILE_H

#include "image/image_private.h"

typedef struct JpegFile
{
	char refusal[128];           /* a sentence, if jpeg_file_open has returned false */
	int width, height, channels; /* 1 gray, 3 colour, 4 CMYK */
	size_t exif, exif_length;    /* where the first EXIF segment's contents lie; length 0: none */
} JpegFile;

/* Nothing is allocated. */
extern bool jpeg_file_open(JpegFile *file, const uint8_t *bytes, size_t length);

#endif /* BICYCLE_JPEG_FILE_H */
