/*
 * deflate.h
 *	  Compressing the filtered rows of images.
 */
#ifndef BICYCLE_IMAGE_DEFLATE_H
#define BICYCLE_IMAGE_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are appended to; who has the struct frees them. */
typedef struct DeflateBytes
{
	uint8_t *bytes;
	size_t length, capacity;
} DeflateBytes;

/* A stream of zlib on its way. {0} before the first block. */
typedef struct Deflate
{
	bool begun;
	uint32_t adler; /* of what has been taken */
	uint64_t bits;  /* that fill no byte yet */
	int nbits;
} Deflate;

/* Room for n more bytes. False: there is no memory; *out is as it was. */
extern bool deflate_reserve(DeflateBytes *out, size_t n);

/*
 * Appends a block of n bytes, n > 0; the last one ends the stream. in[-1] is
 * read: the byte that came before, or, before the first block, any byte but
 * in[0]. False: as deflate_reserve.
 */
extern bool deflate_block(Deflate *stream, const uint8_t *in, size_t n, bool last,
						  DeflateBytes *out);

#endif /* BICYCLE_IMAGE_DEFLATE_H */
