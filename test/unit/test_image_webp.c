/*
 * test_image_webp.c
 *	  WebP is decoded as Pillow does, of animations the first frame; what is
 *	  encoded without loss comes back unchanged, and quality means quality.
 */
#include "image_fixture.h"
#include "progress.h"

static void
test_limits(const char *name)
{
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);
	ImageLimits few_pixels = { 61 * 45 - 1, (size_t) 1 << 30 }, no_memory = { 1 << 20, 61 * 45 };
	ImageLimits watched = { .max_pixels = 1 << 20, .max_memory = 1 << 24, .progress = on_progress };
	Image image;
	ImageError error;
	bool decoded;

	ok(image_decode(bytes, length, 3, 0, &few_pixels, &image, &error) == IMAGE_ELIMIT &&
		   image_decode(bytes, length, 3, 0, &no_memory, &image, &error) == IMAGE_ELIMIT &&
		   well_formed(error.message, error.detail),
	   "%s: %s", name, error.detail);
	progress = 0;
	decoded = image_decode(bytes, length, 3, 0, &watched, &image, &error) == IMAGE_OK;
	ok(decoded && progress > 0, "who watches its decoding hears of it");
	image_free(&image);
	free(bytes);
}

static void
test_lossless(void)
{
	for (int channels = 1; channels <= 3; channels += 2)
	{
		Image in = noise_image(70, 33, channels, 9), out;
		ImageError error;
		ImageInfo info;
		uint8_t *bytes;
		size_t length;

		ok(image_encode_webp(&in, 0, &bytes, &length, &error) == IMAGE_OK &&
			   image_info(bytes, length, &info, &error) == IMAGE_OK && info.format == IMAGE_WEBP &&
			   info.channels == 3 &&
			   image_decode(bytes, length, 3, 0, &plenty, &out, &error) == IMAGE_OK,
		   "%d channels are encoded", channels);
		for (size_t i = 0; channels == 1 && i < (size_t) 70 * 33; i++)
			out.pixels[i] = out.pixels[3 * i + 1];
		out.channels = channels;
		ok(image_crc(&in) == image_crc(&out), "and come back");
		image_free(&in);
		image_free(&out);
		free(bytes);
	}
}

static void
test_quality(void)
{
	Image image = noise_image(128, 96, 3, 3);
	size_t lengths[3];
	uint8_t *bytes;
	ImageError error;

	for (int i = 0; i < 3; i++)
	{
		ok(image_encode_webp(&image,
							 i == 0   ? 20
							 : i == 1 ? 90
									  : 100,
							 &bytes, &lengths[i], &error) == IMAGE_OK,
		   "quality %d", i);
		free(bytes);
	}
	ok(lengths[0] < lengths[1] && lengths[1] < lengths[2], "more quality takes more bytes");
	ok(image_encode_webp(&image, 101, &bytes, &lengths[0], &error) == IMAGE_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	image_free(&image);
	image = noise_image(16384, 1, 1, 3);
	ok(image_encode_webp(&image, 90, &bytes, &lengths[0], &error) == IMAGE_ELIMIT &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	image_free(&image);
}

int
main(void)
{
	ok(check_directory("webp") == 9, "all WebP files were there");
	check_truncations("webp/lossy.webp", 0);
	check_truncations("webp/lossless_alpha.webp", 0);
	check_truncations("webp/animated.webp", 0);
	test_limits("webp/lossy.webp");
	test_limits("webp/lossless_alpha.webp");
	test_lossless();
	test_quality();
	return done_testing();
}
