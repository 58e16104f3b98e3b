/*
 * test_image_jpeg.c
 *	  JPEG is decoded as Pillow does, CMYK and damaged files too; scan bombs and
 *	  files that end early are refused; quality means quality.
 */
#include "image_fixture.h"
#include "progress.h"

#include <jpeglib.h>

/*
 * A gray progressive file whose last scan, 1 to 63 at full precision, may be
 * repeated without contradicting itself.
 */
static uint8_t *
make_progressive(unsigned long *length)
{
	static const jpeg_scan_info scans[] = {
		{ .comps_in_scan = 1, .Ss = 0, .Se = 0 },
		{ .comps_in_scan = 1, .Ss = 1, .Se = 63 },
	};
	struct jpeg_compress_struct jpeg;
	struct jpeg_error_mgr manager;
	Image image = noise_image(32, 32, 1, 3);
	unsigned char *bytes = NULL;

	jpeg.err = jpeg_std_error(&manager);
	jpeg_create_compress(&jpeg);
	jpeg_mem_dest(&jpeg, &bytes, length);
	jpeg.image_width = jpeg.image_height = 32;
	jpeg.input_components = 1;
	jpeg.in_color_space = JCS_GRAYSCALE;
	jpeg_set_defaults(&jpeg);
	jpeg.scan_info = scans;
	jpeg.num_scans = 2;
	jpeg_start_compress(&jpeg, TRUE);
	for (int y = 0; y < 32; y++)
	{
		JSAMPROW row = image.pixels + y * 32;

		jpeg_write_scanlines(&jpeg, &row, 1);
	}
	jpeg_finish_compress(&jpeg);
	jpeg_destroy_compress(&jpeg);
	image_free(&image);
	return bytes;
}

/* Decodes the file with its last scan written n times more. */
static ImageStatus
decode_repeated(const uint8_t *bytes, size_t length, int n, uint32_t *crc, ImageError *error)
{
	size_t scan = length - 2;
	size_t scan_length;
	uint8_t *repeated;
	Image image;
	ImageStatus status;

	while (bytes[scan] != 0xff || bytes[scan + 1] != 0xda)
		scan--;
	scan_length = length - 2 - scan;
	repeated = malloc(length + n * scan_length);
	memcpy(repeated, bytes, length - 2);
	for (int i = 0; i < n; i++)
		memcpy(repeated + length - 2 + i * scan_length, bytes + scan, scan_length);
	memcpy(repeated + length - 2 + n * scan_length, "\xff\xd9", 2);
	status = image_decode(repeated, length + n * scan_length, 1, 0, &plenty, &image, error);
	if (status == IMAGE_OK)
		*crc = image_crc(&image);
	image_free(&image);
	free(repeated);
	return status;
}

static void
test_scans(void)
{
	unsigned long length = 0;
	uint8_t *bytes = make_progressive(&length);
	uint32_t once = 0, often = 0;
	ImageError error;

	ok(decode_repeated(bytes, length, 0, &once, &error) == IMAGE_OK &&
		   decode_repeated(bytes, length, 98, &often, &error) == IMAGE_OK && once == often,
	   "a progressive image of 100 scans is read");
	ok(decode_repeated(bytes, length, 99, &often, &error) == IMAGE_ELIMIT &&
		   well_formed(error.message, error.detail),
	   "one of 101 is not: %s", error.detail);
	ok(decode_repeated(bytes, length, 5000, &often, &error) == IMAGE_ELIMIT, "nor one of 5002");
	free(bytes);
}

/*
 * Bytes between the last row and the end marker, which libjpeg warns of: no
 * pixel depends on them.
 */
static void
test_stray_bytes(const char *name)
{
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);
	uint8_t *longer = calloc(length + 20, 1);
	Image image, other;
	ImageError error;

	memcpy(longer, bytes, length - 2);
	memcpy(longer + length + 18, "\xff\xd9", 2);
	ok(image_decode(bytes, length, 3, 0, &plenty, &image, &error) == IMAGE_OK &&
		   image_decode(longer, length + 20, 3, 0, &plenty, &other, &error) == IMAGE_OK &&
		   image_crc(&image) == image_crc(&other),
	   "%s: 20 bytes before its end harm no pixel", name);
	image_free(&image);
	image_free(&other);
	free(longer);
	free(bytes);
}

/* What Pillow alone refuses: libjpeg would read on. */
static void
test_segments(void)
{
	static const struct
	{
		const char *bytes;
		size_t length;
	} segments[] = {
		{ "\xff\xe0\0\x08JFIF\0\1", 10 },
		{ "\xff\xee\0\x08"
		  "Adobe\0",
		  10 },
		{ "\xff\xe2\0\x0fICC_PROFILE\0\1", 17 },
		{ "\xff\xed\0\x16Photoshop 3.0\0"
		  "8BIM\4\4",
		  24 },
		{ "\xff\1", 2 },
	};
	size_t length;
	uint8_t *bytes = testdata_load("jpeg/ycc444.jpg", &length);

	for (size_t i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
	{
		Bytes file = { 0 };
		Image image;
		ImageError error;

		put(&file, bytes, 2);
		put(&file, segments[i].bytes, segments[i].length);
		put(&file, bytes + 2, length - 2);
		ok(image_decode(file.at, file.n, 3, 0, &plenty, &image, &error) == IMAGE_EINVALID &&
			   well_formed(error.message, error.detail),
		   "%s", error.detail);
		free(file.at);
	}
	free(bytes);
}

static void
test_limits(void)
{
	static const char *const names[] = { "jpeg/ycc420.jpg", "jpeg/progressive.jpg",
										 "jpeg/gray.jpg" };
	size_t length;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		uint8_t *bytes = testdata_load(names[i], &length);
		ImageLimits few_pixels = { 61 * 45 - 1, (size_t) 1 << 30 },
					no_memory = { 1 << 20, 61 * 45 };
		Image image;
		ImageError error;

		ok(image_decode(bytes, length, 3, 0, &few_pixels, &image, &error) == IMAGE_ELIMIT &&
			   image_decode(bytes, length, 3, 0, &no_memory, &image, &error) == IMAGE_ELIMIT &&
			   well_formed(error.message, error.detail),
		   "%s: %s", names[i], error.detail);
		free(bytes);
	}
}

/*
 * A header of 65500 x 65500 pixels and nothing else: refused for its size, not
 * after filling memory.
 */
static void
test_declared_size(void)
{
	size_t length;
	uint8_t *bytes = testdata_load("jpeg/progressive.jpg", &length);
	Image image;
	ImageError error;

	for (size_t i = 0; i + 9 < length; i++)
		if (bytes[i] == 0xff && bytes[i + 1] == 0xc2)
		{
			memcpy(bytes + i + 5, "\xff\xdc\xff\xdc", 4);
			break;
		}
	ok(image_decode(bytes, length, 3, 0, &plenty, &image, &error) == IMAGE_ELIMIT, "%s",
	   error.detail);
	ok(image_decode(bytes, length, 3, 0, &(ImageLimits){ UINT64_MAX, (size_t) 1 << 30 }, &image,
					&error) == IMAGE_ELIMIT,
	   "%s", error.detail);
	free(bytes);
}

/* Mean squared difference after encoding with this quality, and the size. */
static double
loss(const Image *in, int quality, size_t *length)
{
	uint8_t *bytes;
	Image out;
	ImageError error;
	double sum = 0;
	size_t n = (size_t) in->width * in->height * in->channels;

	if (image_encode_jpeg(in, quality, &bytes, length, &error) != IMAGE_OK ||
		image_decode(bytes, *length, in->channels, 0, &plenty, &out, &error) != IMAGE_OK ||
		out.width != in->width || out.height != in->height)
		return 1e9;
	for (size_t i = 0; i < n; i++)
		sum += (in->pixels[i] - out.pixels[i]) * (in->pixels[i] - out.pixels[i]);
	free(bytes);
	image_free(&out);
	return sum / (double) n;
}

static void
test_quality(void)
{
	for (int channels = 1; channels <= 3; channels += 2)
	{
		Image image = noise_image(200, 123, channels, 1);
		size_t low, high;
		double low_loss, high_loss;
		uint8_t *bytes;
		ImageError error;

		for (size_t i = 0; i < (size_t) 200 * 123; i++) /* a ramp with a little noise */
			for (int c = 0; c < channels; c++)
				image.pixels[i * channels + c] =
					(uint8_t) (i % 200 + c * 10 + image.pixels[i * channels + c] / 16);
		low_loss = loss(&image, 20, &low);
		high_loss = loss(&image, 95, &high);
		ok(high > low && high_loss < low_loss && high_loss < 20,
		   "%d channels: quality 95 takes %zu bytes (mse %.1f), 20 takes %zu (mse %.1f)", channels,
		   high, high_loss, low, low_loss);
		ok(image_encode_jpeg(&image, 0, &bytes, &low, &error) == IMAGE_EINVALID &&
			   image_encode_jpeg(&image, 101, &bytes, &low, &error) == IMAGE_EINVALID &&
			   well_formed(error.message, error.detail),
		   "%s", error.detail);
		image_free(&image);
	}
}

/*
 * Who watches a decode hears of each row of blocks of each scan: with many of
 * them it takes long.
 */
static void
test_progress(void)
{
	size_t length;
	uint8_t *bytes = testdata_load("jpeg/progressive.jpg", &length);
	ImageLimits limits = { .max_pixels = 1 << 20, .max_memory = 1 << 24, .progress = on_progress };
	Image image;
	ImageError error;
	bool decoded = image_decode(bytes, length, 3, 0, &limits, &image, &error) == IMAGE_OK;

	ok(decoded && progress > image.height, "%d rows of many scans tell of progress %d times",
	   image.height, progress);
	image_free(&image);
	free(bytes);
}

int
main(void)
{
	ok(check_directory("jpeg") == 21, "all JPEG files were there");
	test_scans();
	check_truncations("jpeg/ycc420.jpg", 2);
	check_truncations("jpeg/progressive.jpg", 0);
	check_truncations("jpeg/arithmetic.jpg", 2);
	test_stray_bytes("jpeg/ycc420.jpg");
	test_stray_bytes("jpeg/progressive.jpg");
	test_segments();
	test_limits();
	test_declared_size();
	test_quality();
	test_progress();
	return done_testing();
}
