/*
 * fuzz_safetensors.c
 *	  safetensors, as it comes and with the length of the header put right: up
 *	  to its last brace.
 */
#include "fuzz_format.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	uint8_t *copy;
	uint64_t header;

	read_input(bytes, length, format_write_pth);
	if (length < 10)
		return 0;
	copy = malloc(length);
	memcpy(copy, bytes, length);
	for (header = length - 8; header > 2 && copy[7 + header] != '}';)
		header--;
	memcpy(copy, &header, sizeof(header));
	read_input(copy, length, format_write_pth);
	free(copy);
	return 0;
}
