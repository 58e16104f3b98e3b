/*
 * image_fixture.h
 *	  What the tests of images share: reproducible pixels, and files whose
 *	  pixels Pillow has decoded beforehand.
 */
#ifndef BICYCLE_IMAGE_FIXTURE_H
#define BICYCLE_IMAGE_FIXTURE_H

#include "image/image.h"
#include "tap.h"
#include "testdata.h"

#include <zlib.h>

static const ImageLimits plenty = { (uint64_t) 64 << 20, (size_t) 1 << 30 };

__attribute__((unused)) static uint32_t
image_crc(const Image *image)
{
	return (uint32_t) crc32_z(0, image->pixels,
							  (size_t) image->width * image->height * image->channels);
}

/*
 * Noise from a linear congruential generator; test/gen/images.py makes the
 * same.
 */
__attribute__((unused)) static Image
noise_image(int width, int height, int channels, uint32_t seed)
{
	Image image = { width, height, channels, malloc((size_t) width * height * channels) };

	for (size_t i = 0; i < (size_t) width * height * channels; i++)
	{
		seed = 1664525u * seed + 1013904223u;
		image.pixels[i] = (uint8_t) (seed >> 24);
	}
	return image;
}

/*
 * Decodes one file as gray and as colour and compares with its line of
 * expected.txt. The memory limit is what image_decode_bytes says, so that this
 * bound is proved on the way.
 */
__attribute__((unused)) static void
check_file(const char *directory, const char *line)
{
	char name[64], path[128];
	unsigned expected[2];
	int width, height, channels, depth;
	bool valid;
	size_t length;
	uint8_t *bytes;
	ImageInfo info;
	ImageError error;
	Image image;

	valid = sscanf(line, "%63s %d %d %d %d %x %x", name, &width, &height, &channels, &depth,
				   &expected[0], &expected[1]) == 7;
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	bytes = testdata_load(path, &length);
	if (valid)
	{
		bool same = image_info(bytes, length, &info, &error) == IMAGE_OK && info.width == width &&
					info.height == height && info.channels == channels && info.bit_depth == depth;

		for (int i = 0; i < 2 && same; i++)
		{
			ImageLimits limits = { (uint64_t) width * height,
								   image_decode_bytes(&info, 2 * i + 1, 0) };

			same = image_decode(bytes, length, 2 * i + 1, 0, &limits, &image, &error) == IMAGE_OK &&
				   image.width == width && image.height == height &&
				   image_crc(&image) == expected[i];
			image_free(&image);
		}
		ok(same, "%s is decoded as by Pillow", name);
	}
	else
		ok(image_decode(bytes, length, 3, 0, &plenty, &image, &error) == IMAGE_EINVALID &&
			   image.pixels == NULL && well_formed(error.message, error.detail),
		   "%s is refused: %s", name, error.detail);
	free(bytes);
}

/* Every line of directory/expected.txt; returns their number. */
__attribute__((unused)) static int
check_directory(const char *directory)
{
	char path[128];
	size_t length;
	char *text, *line;
	int n = 0;

	snprintf(path, sizeof(path), "%s/expected.txt", directory);
	text = (char *) testdata_load(path, &length);
	for (line = text; line < text + length; n++)
	{
		char *end = memchr(line, '\n', (size_t) (text + length - line));

		*end = '\0';
		check_file(directory, line);
		line = end + 1;
	}
	free(text);
	return n;
}

/*
 * Every length of a file but those that lack nothing of its pixels is an error,
 * though the JPEG library would paint the rest gray. `spared` is how many bytes
 * at the end no pixel needs, at most.
 */
__attribute__((unused)) static void
check_truncations(const char *name, size_t spared)
{
	size_t length, refused = 0, same = 0, other = 0;
	uint8_t *bytes = testdata_load(name, &length);
	ImageError error;
	Image whole;

	ok(image_decode(bytes, length, 3, 0, &plenty, &whole, &error) == IMAGE_OK, "%s is read", name);
	for (size_t n = 0; n < length; n++)
	{
		uint8_t *cut = malloc(n > 0 ? n : 1);
		Image image;

		memcpy(cut, bytes, n);
		if (image_decode(cut, n, 3, 0, &plenty, &image, &error) == IMAGE_OK)
		{
			bool equal = image_crc(&image) == image_crc(&whole);

			same += equal;
			other += !equal;
			image_free(&image);
		}
		else
			refused += error.code == IMAGE_EINVALID && well_formed(error.message, error.detail);
		free(cut);
	}
	ok(other == 0 && refused + same == length && same <= spared,
	   "%zu of %zu truncations of %s are refused, %zu have all pixels", refused, length, name,
	   same);
	image_free(&whole);
	free(bytes);
}

#endif /* BICYCLE_IMAGE_FIXTURE_H */
