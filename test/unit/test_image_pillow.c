/*
 * test_image_pillow.c
 *	  What is asked for besides: images upright as by Pillow's exif_transpose,
 *	  alpha dropped as by its convert("RGB"); and data that are no image are
 *	  named, with a way out.
 */
#include "image_fixture.h"

/* The next line of a text, or NULL; *text goes behind it. */
static char *
next_line(char **text)
{
	char *line = *text, *end = strchr(line, '\n');

	if (end == NULL)
		return NULL;
	*end = '\0';
	*text = end + 1;
	return line;
}

static char *
load_text(const char *name)
{
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);
	char *text = malloc(length + 1);

	memcpy(text, bytes, length);
	text[length] = '\0';
	free(bytes);
	return text;
}

static void
test_upright(void)
{
	char *text = load_text("exif/expected.txt"), *rest = text, *line;
	int files = 0;

	for (; (line = next_line(&rest)) != NULL; files++)
	{
		char name[64], path[128];
		int width, height, decoded_width, decoded_height;
		unsigned crc;
		size_t length;
		uint8_t *bytes;
		ImageInfo info;
		Image image, plain;
		ImageError error;

		if (sscanf(line, "%63s %d %d %x", name, &width, &height, &crc) != 4)
			break;
		snprintf(path, sizeof(path), "exif/%s", name);
		bytes = testdata_load(path, &length);
		ok(image_info(bytes, length, &info, &error) == IMAGE_OK && info.width == 33 &&
			   info.height == 20,
		   "%s has its size in the file", name);
		image_decoded_size(&info, IMAGE_UPRIGHT, &decoded_width, &decoded_height);
		ok(image_decode(bytes, length, 3, IMAGE_UPRIGHT,
						&(ImageLimits){ 1 << 20, image_decode_bytes(&info, 3, IMAGE_UPRIGHT) },
						&image, &error) == IMAGE_OK &&
			   image.width == width && image.height == height && image_crc(&image) == crc &&
			   decoded_width == width && decoded_height == height,
		   "%s is turned as by Pillow, within the memory that is told", name);
		ok(image_decode(bytes, length, 3, 0, &plenty, &plain, &error) == IMAGE_OK &&
			   plain.width == 33 && (info.orientation > 1) == (image_crc(&plain) != crc),
		   "and is not without being asked to");
		image_free(&image);
		image_free(&plain);
		free(bytes);
	}
	ok(files == 15, "all files were there");
	free(text);
}

/* Damaged EXIF is as none, and is read within its bytes. */
static void
test_damaged_exif(void)
{
	static const char *const names[] = { "exif/6.jpg", "exif/5.webp", "exif/7.jpg" };
	uint64_t state = 4;
	int odd = 0;

	for (int i = 0; i < 3000; i++)
	{
		size_t length, damaged_length;
		uint8_t *bytes = testdata_load(names[i % 3], &length);
		uint8_t *damaged = testdata_damage(bytes, length < 120 || i % 3 == 1 ? length : 120, &state,
										   &damaged_length);
		ImageInfo info;
		ImageError error;

		if (image_info(damaged, damaged_length, &info, &error) == IMAGE_OK &&
			(info.orientation < 1 || info.orientation > 8))
			odd++;
		free(damaged);
		free(bytes);
	}
	ok(odd == 0, "of 3000 damaged headers none has an orientation that does not exist");
}

/* What doc/images.md says: Pillow would turn this by its XMP, we do not. */
static void
test_xmp(void)
{
	static const char packet[] = "http://ns.adobe.com/xap/1.0/\0<rdf:Description "
								 "tiff:Orientation=\"6\"/>";
	size_t length;
	uint8_t *bytes = testdata_load("jpeg/rgb.jpg", &length);
	uint8_t *with = malloc(length + sizeof(packet) + 4);
	const uint8_t head[] = { 0xff, 0xe1, 0, sizeof(packet) + 2 };
	ImageInfo info;
	ImageError error;

	memcpy(with, bytes, 2);
	memcpy(with + 2, head, sizeof(head));
	memcpy(with + 6, packet, sizeof(packet));
	memcpy(with + 6 + sizeof(packet), bytes + 2, length - 2);
	ok(image_info(with, length + sizeof(packet) + 4, &info, &error) == IMAGE_OK &&
		   info.orientation == 1,
	   "orientation in XMP is not seen");
	free(with);
	free(bytes);
}

static void
test_opaque(void)
{
	char *text = load_text("png/opaque.txt"), *rest = text, *line;
	int files = 0;

	for (; (line = next_line(&rest)) != NULL; files++)
	{
		char name[64], path[128];
		unsigned crc[2];
		size_t length;
		uint8_t *bytes;
		bool same = true;

		if (sscanf(line, "%63s %x %x", name, &crc[0], &crc[1]) != 3)
			break;
		snprintf(path, sizeof(path), "png/%s", name);
		bytes = testdata_load(path, &length);
		for (int i = 0; i < 2; i++)
		{
			Image image;
			ImageError error;

			same &= image_decode(bytes, length, 2 * i + 1, IMAGE_OPAQUE, &plenty, &image, &error) ==
						IMAGE_OK &&
					image_crc(&image) == crc[i];
			image_free(&image);
		}
		ok(same, "%s without its alpha is as Pillow's", name);
		free(bytes);
	}
	ok(files == 23, "all transparent files of up to 8 bits were there");
	free(text);
}

static void
test_foreign(void)
{
	static const struct
	{
		const char *bytes;
		size_t length;
		const char *detail, *hint;
	} data[] = {
		{ "GIF89a\1\0\1\0", 10, "GIF", "Convert" },
		{ "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\1\0\0\0", 22, "BMP", "Convert" },
		{ "BMW drives well and far", 23, "signature", "contents" },
		{ "II*\0\x08\0\0\0", 8, "TIFF", "Convert" },
		{ "MM\0*\0\0\0\x08", 8, "TIFF", "Convert" },
		{ "\0\0\0\x18"
		  "ftypheic\0\0\0\0",
		  16, "HEIC", "Convert" },
		{ "\0\0\0\x1c"
		  "ftypavif\0\0\0\0",
		  16, "AVIF", "Convert" },
		{ "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", 41, "SVG", "Convert" },
		{ "\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg>", 30, "SVG", "Convert" },
		{ "%PDF-1.4\n", 9, "PDF", "Convert" },
		{ "iVBORw0KGgoAAAANSUhEUg==", 24, "PNG image in base64", "'base64')" },
		{ "\n /9j/4AAQSkZJRgABAQ==", 22, "JPEG image in base64", "'base64')" },
		{ "UklGRiQAAABXRUJQVlA4", 20, "WebP image in base64", "'base64')" },
		{ "data:image/png;base64,iVBORw0KGgo=", 34, "data URI", "split_part" },
		{ "data:,hello", 11, "data URI", "Decode" },
		{ "\\x89504e470d0a1a0a0000", 22, "hexadecimal", "::bytea" },
		{ "89504E470D0A1A0A0000", 20, "hexadecimal", "'hex')" },
		{ "0xFFD8FFE0", 10, "hexadecimal", "substr" },
		{ "/var/lib/pictures/1.png", 23, "signature", "contents" },
		{ "\x89PN", 4, "signature", "contents" },
	};

	for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++)
	{
		Image image;
		ImageInfo info;
		ImageError error, again;

		ok(image_info((const uint8_t *) data[i].bytes, data[i].length, &info, &error) ==
				   IMAGE_EINVALID &&
			   image_decode((const uint8_t *) data[i].bytes, data[i].length, 1, 0, &plenty, &image,
							&again) == IMAGE_EINVALID &&
			   well_formed(error.message, error.detail) && strcmp(error.hint, again.hint) == 0 &&
			   strstr(error.detail, data[i].detail) != NULL &&
			   strstr(error.hint, data[i].hint) != NULL,
		   "%s %s", error.detail, error.hint);
	}
}

int
main(void)
{
	test_upright();
	test_damaged_exif();
	test_xmp();
	test_opaque();
	test_foreign();
	return done_testing();
}
