/*
 * fuzz_webp.c
 *	  WebP.
 */
#include "fuzz_image.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	decode_input(bytes, length);
	return 0;
}
