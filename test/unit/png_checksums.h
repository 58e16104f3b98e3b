/*
 * png_checksums.h
 *	  Damage that gets past the first chunk: the checksums of a PNG's chunks are
 *	  put right, as far as its lengths lead.
 */
#ifndef BICYCLE_PNG_CHECKSUMS_H
#define BICYCLE_PNG_CHECKSUMS_H

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

static inline uint32_t
png_be32(const uint8_t *at)
{
	return (uint32_t) at[0] << 24 | (uint32_t) at[1] << 16 | (uint32_t) at[2] << 8 | at[3];
}

static inline void
correct_checksums(uint8_t *bytes, size_t length)
{
	for (size_t at = 8; at + 12 <= length && png_be32(bytes + at) <= length - at - 12;
		 at += 12 + (size_t) png_be32(bytes + at))
	{
		size_t n = png_be32(bytes + at);
		uint32_t crc = (uint32_t) crc32_z(0, bytes + at + 4, n + 4);

		for (int i = 0; i < 4; i++)
			bytes[at + 8 + n + (size_t) i] = (uint8_t) (crc >> (24 - 8 * i));
	}
}

#endif /* BICYCLE_PNG_CHECKSUMS_H */
