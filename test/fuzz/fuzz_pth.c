/*
 * fuzz_pth.c
 *	  .pth in both layouts, as it comes and, if it is a zip archive, with the
 *	  checksums in its directory put right.
 */
#include "fuzz_format.h"

static uint64_t
little_endian(const uint8_t *at, size_t width)
{
	uint64_t value = 0;

	memcpy(&value, at, width);
	return value;
}

/*
 * Every record that looks like one of the directory and points into the file.
 */
static void
correct_checksums(uint8_t *bytes, size_t length)
{
	for (size_t at = 0; at + 46 <= length; at++)
		if (memcmp(bytes + at, "PK\1\2", 4) == 0)
		{
			uint64_t size = little_endian(bytes + at + 24, 4);
			uint64_t local = little_endian(bytes + at + 42, 4);
			uint64_t start;
			uint32_t crc;

			if (local + 30 > length)
				continue;
			start = local + 30 + little_endian(bytes + local + 26, 2) +
					little_endian(bytes + local + 28, 2);
			if (start > length || size > length - start)
				continue;
			crc = (uint32_t) crc32_z(0, bytes + start, size);
			memcpy(bytes + at + 16, &crc, 4);
		}
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	uint8_t *copy;

	read_input(bytes, length, format_write_safetensors);
	if (length < 4 || memcmp(bytes, "PK", 2) != 0)
		return 0;
	copy = malloc(length);
	memcpy(copy, bytes, length);
	correct_checksums(copy, length);
	read_input(copy, length, format_write_safetensors);
	free(copy);
	return 0;
}
