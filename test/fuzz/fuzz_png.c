/*
 * fuzz_png.c
 *	  PNG, as it comes and with the checksums of its chunks put right, without
 *	  which hardly a change would get past the first chunk.
 */
#include "fuzz_image.h"

#include <zlib.h>

static uint32_t
big_endian(const uint8_t *at)
{
	return (uint32_t) at[0] << 24 | (uint32_t) at[1] << 16 | (uint32_t) at[2] << 8 | at[3];
}

static void
correct_checksums(uint8_t *bytes, size_t length)
{
	for (size_t at = 8; length - at >= 12 && big_endian(bytes + at) <= length - at - 12;
		 at += 12 + (size_t) big_endian(bytes + at))
	{
		size_t n = big_endian(bytes + at);
		uint32_t crc = (uint32_t) crc32_z(0, bytes + at + 4, n + 4);

		for (int i = 0; i < 4; i++)
			bytes[at + 8 + n + (size_t) i] = (uint8_t) (crc >> (24 - 8 * i));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	uint8_t *copy;

	decode_input(bytes, length);
	if (length < 8)
		return 0;
	copy = malloc(length);
	memcpy(copy, bytes, length);
	correct_checksums(copy, length);
	decode_input(copy, length);
	free(copy);
	return 0;
}
