/*
 * test_image_fuzz.c
 *	  10,000 damaged images: each is decoded or refused in an ordinary way,
 *	  within its limits, and always the same. Half of the PNGs have their
 *	  checksums put right, so that what is in their chunks is looked at; half of
 *	  these have a chunk twice.
 */
#include "image_fixture.h"
#include "png_checksums.h"

static const char *const files[] = {
	"png/basn0g01.png",    "png/basi0g02.png",     "png/basn0g16.png",  "png/basi2c08.png",
	"png/basn3p04.png",    "png/basi3p08.png",     "png/basi4a08.png",  "png/basn6a16.png",
	"png/tbbn3p08.png",    "png/tbrn2c08.png",     "png/oi9n2c16.png",  "png/s01i3p01.png",
	"png/ctzn0g04.png",    "png/xdtn0g01.png",     "jpeg/gray.jpg",     "jpeg/ycc420.jpg",
	"jpeg/ycc444.jpg",     "jpeg/progressive.jpg", "jpeg/restart.jpg",  "jpeg/arithmetic.jpg",
	"jpeg/cmyk.jpg",       "png/apng_whole.png",   "png/apng_part.png", "png/apng_only_fdat.png",
	"png/apng_passes.png",
};

#define FILES (sizeof(files) / sizeof(files[0]))
#define ROUNDS 10000

/* Small limits, so that a damaged width or height meets them. */
static const ImageLimits limits = { 1 << 20, (size_t) 8 << 20 };

/* Whether the outcome is one that the header allows. */
static bool
ordinary(const uint8_t *bytes, size_t length, int channels, int *decoded)
{
	ImageInfo info;
	Image image, again;
	ImageError error = { 0 };
	bool known = image_info(bytes, length, &info, &error) == IMAGE_OK ||
				 well_formed(error.message, error.detail);
	ImageStatus status = image_decode(bytes, length, channels, 0, &limits, &image, &error);
	bool same;

	if (status != IMAGE_OK)
		return known && image.pixels == NULL && error.code == status &&
			   (status == IMAGE_EINVALID || status == IMAGE_ELIMIT) &&
			   well_formed(error.message, error.detail);
	same = image_decode(bytes, length, channels, 0, &limits, &again, &error) == IMAGE_OK &&
		   image_crc(&image) == image_crc(&again);
	known = known && image.width == info.width && image.height == info.height &&
			image.channels == channels;
	image_free(&image);
	image_free(&again);
	++*decoded;
	return known && same;
}

/*
 * A copy of a PNG with one of its chunks, a bit of it flipped, a second time,
 * somewhere up to the first data; half of the time it is the header, on which
 * all others depend.
 */
static uint8_t *
repeat_chunk(const uint8_t *bytes, size_t *length, uint64_t *state)
{
	size_t starts[64], n = 0, data = 0, from, size, to;
	uint8_t *copy;

	for (size_t at = 8; at < *length && n < 64; at += 12 + (size_t) png_be32(bytes + at))
	{
		if (data == 0 && memcmp(bytes + at + 5, "DAT", 3) == 0)
			data = n;
		starts[n++] = at;
	}
	from = starts[testdata_random(state) % 2 == 0 ? 0 : testdata_random(state) % n];
	to = starts[data - testdata_random(state) % (data + 1)];
	size = 12 + (size_t) png_be32(bytes + from);
	copy = malloc(*length + size);
	memcpy(copy, bytes, to);
	memcpy(copy + to, bytes + from, size);
	memcpy(copy + to + size, bytes + to, *length - to);
	if (size > 12)
		copy[to + 8 + testdata_random(state) % (size - 12)] ^= 1 << testdata_random(state) % 8;
	*length += size;
	return copy;
}

/* One of the rounds that are made with a file. */
static uint8_t *
damage(const uint8_t *bytes, size_t length, bool png, int round, uint64_t *state,
	   size_t *damaged_length)
{
	uint8_t *damaged;

	*damaged_length = length;
	if (png && round / 2 % 4 == 3)
		damaged = repeat_chunk(bytes, damaged_length, state);
	else
		damaged = testdata_damage(bytes, length, state, damaged_length);
	if (png && round / 2 % 2 == 1)
		correct_checksums(damaged, *damaged_length);
	return damaged;
}

int
main(void)
{
	uint64_t state = 20261123;
	int odd = 0, decoded = 0;

	for (size_t i = 0; i < FILES; i++)
	{
		size_t length;
		uint8_t *bytes = testdata_load(files[i], &length);

		for (int round = 0; round < ROUNDS / (int) FILES + 1; round++)
		{
			size_t damaged_length;
			uint8_t *damaged = damage(bytes, length, strncmp(files[i], "png/", 4) == 0, round,
									  &state, &damaged_length);

			if (!ordinary(damaged, damaged_length, round % 2 * 2 + 1, &decoded))
			{
				odd++;
				diag("%s, round %d", files[i], round);
			}
			free(damaged);
		}
		free(bytes);
	}
	ok(odd == 0, "%d of more than %d damaged images had an odd outcome, %d were still decoded", odd,
	   ROUNDS, decoded);
	return done_testing();
}
