/*
 * fuzz_png.c
 *	  PNG, as it comes and with the checksums of its chunks put right, without
 *	  which hardly a change would get past the first chunk.
 */
#include "../unit/png_checksums.h"
#include "fuzz_image.h"

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
