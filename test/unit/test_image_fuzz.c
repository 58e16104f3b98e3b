/*
 * test_image_fuzz.c
 *	  10,000 damaged images: each is decoded or refused in an ordinary way,
 *	  within its limits, and always the same.
 */
#include "image_fixture.h"

static const char *const files[] = {
	"png/basn0g01.png", "png/basi0g02.png",     "png/basn0g16.png", "png/basi2c08.png",
	"png/basn3p04.png", "png/basi3p08.png",     "png/basi4a08.png", "png/basn6a16.png",
	"png/tbbn3p08.png", "png/tbrn2c08.png",     "png/oi9n2c16.png", "png/s01i3p01.png",
	"png/ctzn0g04.png", "png/xdtn0g01.png",     "jpeg/gray.jpg",    "jpeg/ycc420.jpg",
	"jpeg/ycc444.jpg",  "jpeg/progressive.jpg", "jpeg/restart.jpg", "jpeg/arithmetic.jpg",
	"jpeg/cmyk.jpg",
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
			uint8_t *damaged = testdata_damage(bytes, length, &state, &damaged_length);

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
