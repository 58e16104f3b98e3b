/*
 * test_image_memory.c
 *	  Whichever allocation fails, the libraries' included, an image function
 *	  says so and leaves nothing behind; and none takes more than it announces.
 */
#include "failing_malloc.h"
#include "image_fixture.h"

#if FAILING_MALLOC

typedef struct Input
{
	uint8_t *bytes;
	size_t length;
	Image image;
} Input;

typedef ImageStatus (*Work)(const Input *input, ImageError *error);

static ImageStatus
decode(const Input *input, ImageError *error)
{
	Image image;
	ImageStatus status = image_decode(input->bytes, input->length, 3, 0, &plenty, &image, error);

	image_free(&image);
	return status;
}

static ImageStatus
info(const Input *input, ImageError *error)
{
	ImageInfo unused;

	return image_info(input->bytes, input->length, &unused, error);
}

static ImageStatus
resize(const Input *input, ImageError *error)
{
	Image image;
	ImageStatus status = image_resize(&input->image, 30, 40, &image, error);

	image_free(&image);
	return status;
}

static ImageStatus
encode_png(const Input *input, ImageError *error)
{
	uint8_t *bytes;
	size_t length;
	ImageStatus status = image_encode_png(&input->image, &bytes, &length, error);

	free(bytes);
	return status;
}

static ImageStatus
encode_jpeg(const Input *input, ImageError *error)
{
	uint8_t *bytes;
	size_t length;
	ImageStatus status = image_encode_jpeg(&input->image, 90, &bytes, &length, error);

	free(bytes);
	return status;
}

static ImageStatus
encode_webp(const Input *input, ImageError *error)
{
	uint8_t *bytes;
	size_t length;
	ImageStatus status = image_encode_webp(&input->image, 90, &bytes, &length, error);

	free(bytes);
	return status;
}

static ImageStatus
upright(const Input *input, ImageError *error)
{
	Image image;
	ImageStatus status =
		image_decode(input->bytes, input->length, 3, IMAGE_UPRIGHT, &plenty, &image, error);

	image_free(&image);
	return status;
}

static ImageStatus
sheet(const Input *input, ImageError *error)
{
	Image image;
	ImageStatus status = image_contact_sheet(&input->image, 1, 1, 2, &image, error);

	image_free(&image);
	return status;
}

static void
fail_each(const char *what, Work work, const Input *input)
{
	ImageStatus status = IMAGE_ENOMEM;
	bool clean = true;
	int n;

	for (n = 0; n < 1000 && status == IMAGE_ENOMEM; n++)
	{
		ImageError error = { 0 };

		allocations_begin(n);
		status = work(input, &error);
		clean &= allocations_end() == 0 &&
				 (status == IMAGE_OK ||
				  (error.code == IMAGE_ENOMEM && well_formed(error.message, error.detail)));
	}
	ok(status == IMAGE_OK && clean && n > 1, "%s: each of %d allocations", what, n - 1);
}

/* From in_width x in_height to width x height. */
static void
bound_resize(int in_width, int in_height, int channels, int width, int height)
{
	const long slack = 16 * 4096; /* malloc's own, a page a block */
	long bound = (long) image_resize_bytes(in_width, in_height, channels, width, height);
	Image in = noise_image(in_width, in_height, channels, 1), out;
	ImageError error;
	long before = allocated_bytes, taken;
	bool resized;

	allocated_peak = before;
	resized = image_resize(&in, width, height, &out, &error) == IMAGE_OK;
	taken = allocated_peak - before;
	ok(resized && taken <= bound + slack,
	   "%d x %d x %d to %d x %d takes %ld bytes of %ld announced", in_width, in_height, channels,
	   width, height, taken, bound);
	image_free(&in);
	image_free(&out);
}

/*
 * Decoding WebP: all that may be taken is asked for at once, as the library
 * does not survive every allocation that fails, and no more is taken.
 */
static void
bound_webp(int width, int height, int quality)
{
	const long slack = 64 * 4096;
	Image in = noise_image(width, height, 3, 1), out;
	ImageInfo info;
	ImageError error;
	uint8_t *bytes;
	size_t length;
	long before, taken, bound;
	bool good = image_encode_webp(&in, quality, &bytes, &length, &error) == IMAGE_OK &&
				image_info(bytes, length, &info, &error) == IMAGE_OK;

	bound = (long) image_decode_bytes(&info, 3, 0);
	allocations_begin(0);
	good = good && image_decode(bytes, length, 3, 0, &plenty, &out, &error) == IMAGE_ENOMEM;
	good = allocations_end() == 0 && good;
	before = allocated_bytes;
	allocated_peak = before;
	good = good && image_decode(bytes, length, 3, 0, &plenty, &out, &error) == IMAGE_OK;
	taken = allocated_peak - before;
	ok(good && taken <= bound + slack, "%d x %d WebP, quality %d, takes %ld bytes of %ld announced",
	   width, height, quality, taken, bound);
	image_free(&in);
	image_free(&out);
	free(bytes);
}

int
main(void)
{
	static const char *const files[] = { "png/basi6a16.png", "png/tbbn3p08.png", "jpeg/ycc420.jpg",
										 "jpeg/progressive.jpg", "jpeg/arithmetic.jpg" };
	Input input;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		input.bytes = testdata_load(files[i], &input.length);
		fail_each(files[i], decode, &input);
		allocations_begin(0);
		ok(info(&input, &(ImageError){ 0 }) == IMAGE_OK && allocations_end() == 0,
		   "its header takes no memory");
		free(input.bytes);
	}
	input.bytes = testdata_load("exif/6.jpg", &input.length);
	fail_each("an image that is turned", upright, &input);
	free(input.bytes);
	input.image = noise_image(300, 200, 3, 1);
	fail_each("resizing", resize, &input);
	fail_each("encoding as PNG", encode_png, &input);
	fail_each("encoding as JPEG", encode_jpeg, &input);
	fail_each("encoding as WebP", encode_webp, &input);
	fail_each("a contact sheet", sheet, &input);
	image_free(&input.image);
	bound_webp(700, 500, 0);
	bound_webp(700, 500, 80);
	bound_webp(16000, 3, 0);
	bound_webp(3, 16000, 80);
	bound_resize(1, 200000, 1, 16, 16);
	bound_resize(200000, 1, 1, 16, 16);
	bound_resize(1000, 700, 3, 256, 256);
	bound_resize(8, 8, 3, 900, 1100);
	bound_resize(2000, 64, 3, 64, 64);
	return done_testing();
}

#else

int
main(void)
{
	ok(true, "not under a sanitizer # SKIP");
	return done_testing();
}

#endif
