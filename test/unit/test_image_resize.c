/*
 * test_image_resize.c
 *	  Resizing gives Pillow's bicubic, bit for bit; the sums and turns that it
 *	  is made of are right for every length, and touch nothing else; contact
 *	  sheets put every pixel where it belongs.
 */
#include "image/image_private.h"
#include "image_fixture.h"

#include <limits.h>

/*
 * test/data/resize.txt: channels, size from, size to, crc; the source is noise
 * with seed width * 1000 + height.
 */
static void
test_pillow(void)
{
	size_t length;
	char *text = testdata_text("resize.txt", &length);
	int n = 0;

	for (char *line = text; line < text + length; line = strchr(line, '\n') + 1, n++)
	{
		int channels, width, height, to_width, to_height;
		unsigned crc;
		Image in, out;
		ImageError error;

		if (sscanf(line, "%d %d %d %d %d %x", &channels, &width, &height, &to_width, &to_height,
				   &crc) != 6)
			break;
		in = noise_image(width, height, channels, (uint32_t) (width * 1000 + height));
		ok(image_resize(&in, to_width, to_height, &out, &error) == IMAGE_OK &&
			   out.width == to_width && out.height == to_height && image_crc(&out) == crc,
		   "%d x %d to %d x %d, %d channel(s)", width, height, to_width, to_height, channels);
		image_free(&in);
		image_free(&out);
		if (strchr(line, '\n') == text + length - 1)
		{
			n++;
			break;
		}
	}
	ok(n == 44, "all %d size pairs were there", n);
	free(text);
}

#define MOST_ROWS 67
#define MOST_BYTES 150
#define EDGE 3 /* bytes on either side that must stay */

/* Weights whose sums are as large as those of resizing, of either sign. */
static void
draw_weights(int32_t *weight, int count, uint32_t *seed)
{
	for (int j = 0; j < count; j++)
	{
		*seed = 1664525u * *seed + 1013904223u;
		weight[j] = (int32_t) (*seed >> 8) % (5 << 20) / count * (j % 3 == 1 ? -1 : 1);
	}
}

static int
sums_are_wrong(const Image *rows, int count, size_t n, uint32_t *seed)
{
	const size_t stride = (size_t) rows->width;
	int32_t weight[MOST_ROWS];
	uint8_t to[MOST_BYTES + 2 * EDGE];
	int wrong = 0;

	draw_weights(weight, count, seed);
	memset(to, 77, sizeof(to));
	image_sum_rows(rows->pixels + 1, stride, weight, count, n, to + EDGE);
	for (size_t i = 0; i < n; i++)
	{
		int64_t sum = 1 << (IMAGE_WEIGHT_BITS - 1);

		for (int j = 0; j < count; j++)
			sum += (int64_t) weight[j] * rows->pixels[1 + (size_t) j * stride + i];
		sum >>= IMAGE_WEIGHT_BITS;
		wrong += to[EDGE + i] != (sum < 0 ? 0 : sum > 255 ? 255 : sum);
	}
	for (size_t i = 0; i < EDGE; i++)
		wrong += (to[i] != 77) + (to[EDGE + n + i] != 77);
	return wrong;
}

static void
test_sums(void)
{
	Image rows = noise_image(MOST_BYTES + 2, MOST_ROWS, 1, 5);
	uint32_t seed = 1;
	int wrong = 0;

	for (int k = 0; k < MOST_ROWS * (MOST_BYTES + 2); k += 5)
		rows.pixels[k] = k % 2 ? 255 : 0;
	for (int count = 1; count <= MOST_ROWS; count += count < 9 || count > 60 ? 1 : 26)
		for (size_t n = 1; n <= MOST_BYTES; n++)
			wrong += sums_are_wrong(&rows, count, n, &seed);
	ok(wrong == 0, "sums of 1 to %d rows of 1 to %d bytes: %d are wrong", MOST_ROWS, MOST_BYTES,
	   wrong);
	image_free(&rows);
}

static void
test_turn(void)
{
	int wrong = 0;

	for (int width = 1; width < 50; width++)
		for (int height = 1; height < 50; height++)
		{
			Image from = noise_image(width, height, 1, 3),
				  to = noise_image(height + 1, width, 1, 4);
			Image before = noise_image(height + 1, width, 1, 4);
			size_t stride = (size_t) height + 1;

			image_turn(from.pixels, (size_t) width, to.pixels, stride, (size_t) width,
					   (size_t) height);
			for (int x = 0; x < width; x++)
			{
				for (int y = 0; y < height; y++)
					wrong += to.pixels[x * stride + y] != from.pixels[y * width + x];
				wrong += to.pixels[x * stride + height] != before.pixels[x * stride + height];
			}
			image_free(&from);
			image_free(&to);
			image_free(&before);
		}
	ok(wrong == 0, "bytes turned in sizes up to 49 x 49: %d are wrong", wrong);
}

static void
test_sizes(void)
{
	Image in = noise_image(20, 10, 3, 1), out;
	ImageError error;

	ok(image_resize(&in, 20, 10, &out, &error) == IMAGE_OK && out.pixels != in.pixels &&
		   image_crc(&in) == image_crc(&out),
	   "the same size is a copy");
	image_free(&out);
	ok(image_resize(&in, 0, 10, &out, &error) == IMAGE_EINVALID &&
		   image_resize(&in, 10, -1, &out, &error) == IMAGE_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	ok(image_resize(&in, INT_MAX, 10, &out, &error) == IMAGE_ELIMIT && out.pixels == NULL, "%s",
	   error.detail);
	image_free(&in);
}

/*
 * The color of a pixel of an RGB sheet: 255 white, n tile n, -1 anything else.
 */
static int
color_at(const Image *sheet, int x, int y)
{
	const uint8_t *pixel = sheet->pixels + ((size_t) y * sheet->width + x) * 3;

	return pixel[0] == pixel[1] && pixel[1] == pixel[2] ? pixel[0] : -1;
}

/*
 * Five tiles of 4 x 3 pixels, one of them RGB, three columns, border 2: every
 * pixel of the sheet is checked.
 */
static void
test_sheet(void)
{
	Image tiles[5], sheet;
	ImageError error;
	int wrong = 0;

	for (int i = 0; i < 5; i++)
	{
		tiles[i] = noise_image(4, 3, i == 3 ? 3 : 1, 1);
		for (int k = 0; k < 12 * tiles[i].channels; k++)
			tiles[i].pixels[k] = (uint8_t) (16 * i + k / tiles[i].channels);
	}
	ok(image_contact_sheet(tiles, 5, 3, 2, &sheet, &error) == IMAGE_OK && sheet.width == 20 &&
		   sheet.height == 12 && sheet.channels == 3,
	   "a sheet of 20 x 12");
	for (int y = 0; y < 12; y++)
		for (int x = 0; x < 20; x++)
		{
			int column = (x - 2) / 6, row = (y - 2) / 5, tile = row * 3 + column;
			bool inside = x >= 2 && y >= 2 && (x - 2) % 6 < 4 && (y - 2) % 5 < 3 && tile < 5;

			wrong += color_at(&sheet, x, y) !=
					 (inside ? 16 * tile + (y - 2) % 5 * 4 + (x - 2) % 6 : 255);
		}
	ok(wrong == 0, "%d wrong pixels", wrong);
	image_free(&sheet);
	ok(image_contact_sheet(tiles, 3, 1, 0, &sheet, &error) == IMAGE_OK && sheet.channels == 1 &&
		   sheet.width == 4 && sheet.height == 9 && sheet.pixels[0] == 0 &&
		   sheet.pixels[12] == 16 && sheet.pixels[35] == 43,
	   "gray tiles, no border, one column");
	image_free(&sheet);
	ok(image_contact_sheet(tiles, 0, 1, 0, &sheet, &error) == IMAGE_EINVALID &&
		   image_contact_sheet(tiles, 1, 0, 0, &sheet, &error) == IMAGE_EINVALID &&
		   image_contact_sheet(tiles, 1, 1, -1, &sheet, &error) == IMAGE_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	ok(image_contact_sheet(tiles, 2, INT_MAX, 5, &sheet, &error) == IMAGE_ELIMIT &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	tiles[4].width = 3;
	ok(image_contact_sheet(tiles, 5, 2, 0, &sheet, &error) == IMAGE_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	for (int i = 0; i < 5; i++)
		image_free(&tiles[i]);
}

int
main(void)
{
	test_pillow();
	test_sums();
	test_turn();
	test_sizes();
	test_sheet();
	return done_testing();
}
