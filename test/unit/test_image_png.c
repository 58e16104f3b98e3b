/*
 * test_image_png.c
 *	  PNG is decoded as Pillow does, hostile files are refused before they cost
 *	  anything, and what is encoded comes back unchanged.
 */
#include "common/limits.h"
#include "image_fixture.h"
#include "progress.h"

#include <limits.h>

static void
put_be32(Bytes *to, uint32_t value)
{
	uint8_t bytes[4] = { value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255 };

	put(to, bytes, 4);
}

static void
put_chunk(Bytes *to, const char *kind, const void *body, size_t n)
{
	uint32_t crc;

	put_be32(to, (uint32_t) n);
	put(to, kind, 4);
	put(to, body, n);
	crc = (uint32_t) crc32_z(0, to->at + to->n - n - 4, n + 4);
	put_be32(to, crc);
}

/*
 * A PNG of one color that says it has these dimensions; its image data are
 * `raw` zero bytes, compressed.
 */
static Bytes
make_png(uint32_t width, uint32_t height, uint8_t color, size_t raw)
{
	Bytes png = { 0 }, header = { 0 };
	uint8_t tail[5] = { 8, color, 0, 0, 0 };
	uint8_t *zeros = calloc(raw + 1, 1);
	uLongf packed_length = compressBound(raw);
	uint8_t *packed = malloc(packed_length);

	compress2(packed, &packed_length, zeros, raw, 9);
	put(&png, "\x89PNG\r\n\x1a\n", 8);
	put_be32(&header, width);
	put_be32(&header, height);
	put(&header, tail, 5);
	put_chunk(&png, "IHDR", header.at, header.n);
	put_chunk(&png, "IDAT", packed, packed_length);
	put_chunk(&png, "IEND", NULL, 0);
	free(zeros);
	free(packed);
	free(header.at);
	return png;
}

static void
put_ihdr(Bytes *to, uint32_t width, uint32_t height, bool interlaced)
{
	const uint8_t tail[5] = { 8, 2, 0, 0, interlaced };
	Bytes header = { 0 };

	put_be32(&header, width);
	put_be32(&header, height);
	put(&header, tail, 5);
	put_chunk(to, "IHDR", header.at, header.n);
	free(header.at);
}

/* A frame of an animation within an image of two sizes, one after the other. */
typedef struct Reframed
{
	const char *what;
	uint32_t width, height; /* that the frame is compared with first */
	uint32_t frame_width, frame_height, x, y;
	uint32_t new_width, new_height;
	bool interlaced, fits;
} Reframed;

static Bytes
make_reframed(const Reframed *r)
{
	const uint32_t control[5] = { 0, r->frame_width, r->frame_height, r->x, r->y };
	size_t raw = (size_t) r->frame_height * (1 + 3 * (size_t) r->frame_width) * 2;
	uLongf packed_length = compressBound(raw);
	uint8_t *pixels = malloc(raw), *packed = malloc(packed_length);
	Bytes png = { 0 }, body = { 0 };

	memset(pixels, 1, raw); /* a filter, too */
	compress2(packed, &packed_length, pixels, raw, 9);
	put(&png, "\x89PNG\r\n\x1a\n", 8);
	put_ihdr(&png, r->width, r->height, r->interlaced);
	for (int i = 0; i < 5; i++)
		put_be32(&body, control[i]);
	put(&body, "\0\1\0\1\0\0", 6);
	put_chunk(&png, "fcTL", body.at, body.n);
	put_ihdr(&png, r->new_width, r->new_height, r->interlaced);
	put_chunk(&png, "IDAT", packed, packed_length);
	put_chunk(&png, "IEND", NULL, 0);
	free(pixels);
	free(packed);
	free(body.at);
	return png;
}

/*
 * A frame that lay within the image when it was declared, and that a header
 * after it puts outside: nothing is written there.
 */
static void
test_reframed(void)
{
	static const Reframed files[] = {
		{ "smaller", 64, 64, 64, 64, 0, 0, 1, 1, false, false },
		{ "interlaced", 64, 64, 64, 64, 0, 0, 1, 1, true, false },
		{ "narrower", 64, 64, 64, 64, 0, 0, 63, 64, false, false },
		{ "lower", 64, 64, 64, 64, 0, 0, 64, 63, false, false },
		{ "lower, interlaced", 64, 64, 64, 64, 0, 0, 64, 63, true, false },
		{ "too narrow for x", 64, 64, 8, 8, 56, 0, 63, 64, false, false },
		{ "too low for y", 64, 64, 8, 8, 0, 56, 64, 63, false, false },
		{ "narrower than x", 2000000, 1, 1000, 1, 1000000, 0, 1, 1, false, false },
		{ "lower than y", 1, 2000000, 1, 1000, 0, 1000000, 1, 1, false, false },
		{ "narrower than a frame further right", 64, 64, 8, 8, 56, 56, 4, 4, true, false },
		{ "just large enough", 64, 64, 8, 8, 4, 5, 12, 13, false, true },
		{ "larger", 8, 8, 8, 8, 0, 0, 12, 13, true, true },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		Bytes png = make_reframed(&files[i]);
		ImageStatus expected = files[i].fits ? IMAGE_OK : IMAGE_EINVALID, decoded, asked;
		ImageInfo info;
		Image image;
		ImageError error;

		decoded = image_decode(png.at, png.n, 3, 0, &plenty, &image, &error);
		asked = image_info(png.at, png.n, &info, &error);
		ok(decoded == expected && asked == expected &&
			   (files[i].fits ||
				strcmp(error.detail, "The first frame does not lie within the image.") == 0),
		   "a second header that is %s: %s", files[i].what, files[i].fits ? "read" : error.detail);
		image_free(&image);
		free(png.at);
	}
}

/*
 * Declared sizes beyond the limits, with hardly any data behind them: the
 * answer comes from the header.
 */
static void
test_bombs(void)
{
	static const uint32_t sizes[][2] = { { 100000, 100000 }, { INT_MAX, INT_MAX }, { INT_MAX, 1 },
										 { 1, INT_MAX },     { 67108865, 1 },      { 8193, 8192 } };
	const ImageLimits no_pixel_limit = { UINT64_MAX, (size_t) 16 << 20 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		Bytes png = make_png(sizes[i][0], sizes[i][1], 2, 100);
		Image image;
		ImageError error;
		ImageInfo info;

		ok(image_decode(png.at, png.n, 3, 0, &plenty, &image, &error) == IMAGE_ELIMIT &&
			   well_formed(error.message, error.detail),
		   "%s", error.detail);
		ok(image_decode(png.at, png.n, 3, 0, &no_pixel_limit, &image, &error) == IMAGE_ELIMIT &&
			   well_formed(error.message, error.detail),
		   "%s", error.detail);
		ok(image_info(png.at, png.n, &info, &error) == IMAGE_OK &&
			   image_decode_bytes(&info, 3, 0) >= (size_t) sizes[i][0] * sizes[i][1],
		   "its header can be asked, and its need of memory is told");
		free(png.at);
	}
}

/*
 * Zeros beyond the last row, 200 MB of 200 kB, are not inflated: what decoding
 * needs is a row, and the file may have what it likes behind it.
 */
static void
test_surplus(void)
{
	Bytes png = make_png(1, 1, 0, (size_t) 200 << 20);
	ImageLimits limits = { .max_pixels = 1, .max_memory = 1 << 18 };
	Image image;
	ImageError error;

	ok(image_decode(png.at, png.n, 1, 0, &limits, &image, &error) == IMAGE_OK &&
		   image.pixels[0] == 0,
	   "data that no pixel needs are passed over");
	image_free(&image);
	free(png.at);
}

/*
 * A stream that ends well within the image is read, as by Pillow, and the rest
 * is black; one that is cut off is not.
 */
static void
test_short(void)
{
	const size_t row = 1 + 3 * 20;
	Bytes png = make_png(20, 30, 2, 10 * row), partial = make_png(20, 30, 2, 10 * row - 1);
	Image image;
	ImageError error;
	uint8_t sum = 0;

	ok(image_decode(png.at, png.n, 3, 0, &plenty, &image, &error) == IMAGE_OK && image.height == 30,
	   "10 of 30 rows are read");
	for (size_t i = 0; image.pixels != NULL && i < (size_t) 20 * 30 * 3; i++)
		sum |= image.pixels[i];
	ok(sum == 0, "the others are black");
	image_free(&image);
	ok(image_decode(partial.at, partial.n, 3, 0, &plenty, &image, &error) == IMAGE_EINVALID &&
		   well_formed(error.message, error.detail),
	   "a tenth row that ends early: %s", error.detail);
	free(png.at);
	free(partial.at);
}

/*
 * Whatever the limit on memory, decoding ends well or in ELIMIT: every
 * allocation of the library is refused once.
 */
static void
test_memory(void)
{
	size_t length;
	uint8_t *bytes = testdata_load("png/basi3p08.png", &length);
	int decoded = 0, refused = 0;

	for (size_t limit = 0; limit < 100000; limit += 50)
	{
		ImageLimits limits = { 1 << 20, limit };
		Image image;
		ImageError error;
		ImageStatus status = image_decode(bytes, length, 3, 0, &limits, &image, &error);

		decoded += status == IMAGE_OK;
		refused += status == IMAGE_ELIMIT;
		image_free(&image);
	}
	ok(decoded > 0 && refused > 0 && decoded + refused == 2000,
	   "of 2000 limits on memory %d are enough, %d are refused", decoded, refused);
	free(bytes);
}

static void
test_round_trip(void)
{
	static const int sizes[][2] = { { 1, 1 }, { 256, 256 }, { 13, 7 }, { 1, 300 }, { 300, 1 } };

	for (int channels = 1; channels <= 3; channels += 2)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		{
			Image in = noise_image(sizes[i][0], sizes[i][1], channels, 7), out;
			ImageError error;
			ImageInfo info;
			uint8_t *bytes;
			size_t length;

			ok(image_encode_png(&in, &bytes, &length, &error) == IMAGE_OK &&
				   image_info(bytes, length, &info, &error) == IMAGE_OK &&
				   info.format == IMAGE_PNG && info.channels == channels && info.bit_depth == 8 &&
				   image_decode(bytes, length, channels, 0, &plenty, &out, &error) == IMAGE_OK &&
				   image_crc(&in) == image_crc(&out),
			   "%d x %d x %d pixels survive encoding", in.width, in.height, channels);
			image_free(&in);
			image_free(&out);
			free(bytes);
		}
}

/* Noise is what no level makes smaller; of a ramp each is. */
static void
test_levels(void)
{
	static const int height = 64, width = 65;

	for (int ramp = 0; ramp < 2; ramp++)
	{
		Image in = noise_image(width, height, 3, 11);
		size_t stored = 0;

		for (int i = 0; ramp && i < width * height * 3; i++)
			in.pixels[i] = (uint8_t) (i % 251 / 3);
		for (int level = 0; level <= BICYCLE_PNG_LEVEL_MOST; level++)
		{
			Image out = { 0 };
			ImageError error;
			uint8_t *bytes;
			size_t length;

			ok(image_encode_png_at(&in, level, &bytes, &length, &error) == IMAGE_OK &&
				   image_decode(bytes, length, 3, 0, &plenty, &out, &error) == IMAGE_OK &&
				   image_crc(&in) == image_crc(&out),
			   "level %d keeps all pixels of %s", level, ramp ? "a ramp" : "noise");
			stored = level == 0 ? length : stored;
			ok(level == 0 ? length > (size_t) width * height * 3 : !ramp || length < stored / 8,
			   "in %zu bytes", length);
			image_free(&out);
			free(bytes);
		}
		image_free(&in);
	}
}

/* The filtered rows of a file that was encoded here; *n of them. */
static uint8_t *
rows_of(const Image *image, const uint8_t *file, size_t length, size_t *n)
{
	uint8_t *rows = malloc(*n = (size_t) image->height * (image->width * image->channels + 1));
	z_stream zip = { .next_out = rows, .avail_out = (uInt) *n };
	size_t at = 33; /* behind the header */
	int status = inflateInit(&zip);

	while (at + 12 <= length && memcmp(file + at + 4, "IDAT", 4) == 0)
	{
		zip.next_in = (uint8_t *) file + at + 8;
		zip.avail_in =
			(uInt) file[at] << 24 | file[at + 1] << 16 | file[at + 2] << 8 | file[at + 3];
		at += zip.avail_in + 12;
		status = inflate(&zip, Z_NO_FLUSH);
	}
	inflateEnd(&zip);
	if (status == Z_STREAM_END && zip.avail_out == 0)
		return rows;
	free(rows);
	return NULL;
}

/* What zlib makes of them at the same level. */
static size_t
size_by_zlib(const uint8_t *rows, size_t n)
{
	uLong bound = compressBound(n);
	z_stream zip = { .next_in = (uint8_t *) rows, .avail_in = (uInt) n, .avail_out = (uInt) bound };
	uint8_t *out = zip.next_out = malloc(bound);

	deflateInit2(&zip, 1, Z_DEFLATED, 15, 8, Z_DEFAULT_STRATEGY);
	deflate(&zip, Z_FINISH);
	deflateEnd(&zip);
	free(out);
	return zip.total_out;
}

/* Pixels of a kind: what filters and codes have to deal with. */
typedef enum Pixels
{
	FLAT,
	RUNS,    /* of each length up to 700, of one byte even when filtered */
	SKEWED,  /* each value half as often as the one before: the longest words */
	SMOOTH,  /* as photographs are */
	STRIPES, /* each row suits another filter */
	KINDS
} Pixels;

static uint8_t
pixel_of(Pixels kind, int x, int y, uint32_t noise)
{
	static int length, left;

	switch (kind)
	{
		case RUNS:
			if (x == 0 && y == 0)
				length = left = 0;
			if (left-- == 0)
				left = length++ % 700;
			return (uint8_t) (length * length);
		case SKEWED:
			return (uint8_t) (3 * __builtin_ctz(noise | 1u << 31));
		case SMOOTH:
			return (uint8_t) (x * y / 50 + x + (noise & 3));
		case STRIPES:
			return (uint8_t) (y % 3 == 0 ? noise : y % 3 == 1 ? noise & 1 : 5 * (unsigned) x);
		default:
			return 200;
	}
}

/* Files that come back are small, too: as zlib would make them. */
static void
test_sizes(void)
{
	static const int sizes[][2] = { { 256, 256 }, { 90000, 3 }, { 7, 3000 }, { 131071, 1 } };

	for (int kind = 0; kind < KINDS; kind++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		{
			Image in = noise_image(sizes[i][0], sizes[i][1], i % 2 ? 1 : 3, 3), out = { 0 };
			size_t length, n, zlibs;
			uint32_t noise = 1;
			ImageError error;
			uint8_t *file, *rows;

			for (int p = 0; p < in.width * in.height * in.channels; p++)
			{
				noise = 1664525u * noise + 1013904223u;
				in.pixels[p] = pixel_of((Pixels) kind, p % (in.width * in.channels),
										p / (in.width * in.channels), noise ^ noise >> 16);
			}
			ok(image_encode_png(&in, &file, &length, &error) == IMAGE_OK &&
				   image_decode(file, length, in.channels, 0, &plenty, &out, &error) == IMAGE_OK &&
				   image_crc(&in) == image_crc(&out),
			   "kind %d, %d x %d x %d: what comes back", kind, in.width, in.height, in.channels);
			rows = rows_of(&in, file, length, &n);
			zlibs = rows ? size_by_zlib(rows, n) : 0;
			ok(rows && length < zlibs + zlibs / 25 + 400, "takes %zu bytes, of zlib's %zu", length,
			   zlibs);
			free(rows);
			free(file);
			image_free(&in);
			image_free(&out);
		}
}

static void
test_foreign(void)
{
	static const char *const files[] = {
		"",
		"\x89PNG\r\n\x1a\n",
		"GIF89a, which is not read",
		"\x89PNG\r\n\x1a\n and then text that is long enough for a header",
		"\xff\xd8\xff",
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		Image image;
		ImageInfo info;
		ImageError error;

		ok(image_info((const uint8_t *) files[i], strlen(files[i]), &info, &error) ==
				   IMAGE_EINVALID &&
			   well_formed(error.message, error.detail) &&
			   image_decode((const uint8_t *) files[i], strlen(files[i]), 1, 0, &plenty, &image,
							&error) == IMAGE_EINVALID &&
			   well_formed(error.message, error.detail),
		   "%s: %s", error.message, error.detail);
	}
}

static void
test_progress(void)
{
	ImageLimits limits = { .max_pixels = 1 << 20, .max_memory = 1 << 24, .progress = on_progress };
	Image in = noise_image(20, 30, 3, 1), out;
	ImageError error;
	uint8_t *bytes;
	size_t length;
	bool decoded = image_encode_png(&in, &bytes, &length, &error) == IMAGE_OK &&
				   image_decode(bytes, length, 3, 0, &limits, &out, &error) == IMAGE_OK;

	ok(decoded && progress == 30, "who watches a decode hears of each of 30 rows: %d", progress);
	image_free(&in);
	image_free(&out);
	free(bytes);
}

int
main(void)
{
	ok(check_directory("png") == 189, "all PNG files were there");
	test_bombs();
	test_surplus();
	test_short();
	test_reframed();
	check_truncations("png/basi6a08.png", 24);
	test_memory();
	test_round_trip();
	test_levels();
	test_sizes();
	test_foreign();
	test_progress();
	return done_testing();
}
