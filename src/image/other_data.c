/*
 * other_data.c
 *	  What data are that are no image that is read, and what to do with them.
 *
 * Only the first bytes are looked at. No memory, no state, no locks.
 */
#include "image/image_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define LOOK 1024 /* bytes of a text that are searched */

typedef struct ForeignKind
{
	const char *start;
	size_t at, length;
	const char *name;
} ForeignKind;

static const ForeignKind formats[] = {
	{ "GIF8", 0, 4, "GIF" },
	{ "II*\0", 0, 4, "TIFF" },
	{ "MM\0*", 0, 4, "TIFF" },
	{ "II+\0", 0, 4, "TIFF" },
	{ "MM\0+", 0, 4, "TIFF" },
	{ "ftypavif", 4, 8, "AVIF" },
	{ "ftypavis", 4, 8, "AVIF" },
	{ "ftyphei", 4, 7, "HEIC" },
	{ "ftyphev", 4, 7, "HEIC" },
	{ "ftypmif1", 4, 8, "HEIC or AVIF" },
	{ "ftypmsf1", 4, 8, "HEIC or AVIF" },
	{ "\xff\x0a", 0, 2, "JPEG XL" },
	{ "\0\0\0\x0cJXL ", 0, 8, "JPEG XL" },
	{ "\0\0\0\x0cjP  ", 0, 8, "JPEG 2000" },
	{ "\xff\x4f\xff\x51", 0, 4, "JPEG 2000" },
	{ "8BPS", 0, 4, "Photoshop" },
	{ "%PDF-", 0, 5, "PDF" },
};

/* Texts, by how the bytes of an image begin in them. */
static const ForeignKind base64[] = {
	{ "iVBORw0KGgo", 0, 11, "PNG" },
	{ "/9j/", 0, 4, "JPEG" },
	{ "UklGR", 0, 5, "WebP" },
};

static const ForeignKind hex[] = {
	{ "89504e470d0a1a0a", 0, 16, "PNG" },
	{ "ffd8ff", 0, 6, "JPEG" },
	{ "52494646", 0, 8, "WebP" },
};

static bool
has(const uint8_t *bytes, size_t length, const ForeignKind *kind)
{
	return length >= kind->at + kind->length &&
		   memcmp(bytes + kind->at, kind->start, kind->length) == 0;
}

/* BM alone would be the start of many a text. */
static bool
is_bmp(const uint8_t *bytes, size_t length)
{
	return length >= 18 && memcmp(bytes, "BM", 2) == 0 && bytes[15] == 0 && bytes[16] == 0 &&
		   bytes[17] == 0 && bytes[14] >= 12 && bytes[14] <= 124;
}

static bool
is_svg(const uint8_t *text, size_t length)
{
	size_t n = length < LOOK ? length : LOOK;

	return n > 4 && text[0] == '<' && memmem(text, n, "<svg", 4) != NULL;
}

/* The name of the format, or NULL. */
static const char *
format_name(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (has(bytes, length, &formats[i]))
			return formats[i].name;
	return is_bmp(bytes, length) ? "BMP" : NULL;
}

static void
hint(ImageError *error, const char *text)
{
	snprintf(error->hint, sizeof(error->hint), "%s", text);
}

static bool
data_uri(const uint8_t *text, size_t length, ImageError *error)
{
	size_t n = length < LOOK ? length : LOOK;

	if (n < 5 || strncasecmp((const char *) text, "data:", 5) != 0)
		return false;
	image_fail(error, IMAGE_EINVALID, "could not decode image", "The data are a text, a data URI.");
	if (memmem(text, n, ";base64,", 8) != NULL)
		hint(error, "Its bytes are decode(split_part(convert_from(image, 'UTF8'), ',', 2), "
					"'base64').");
	else
		hint(error, "Decode it before it is stored.");
	return true;
}

static bool
base64_text(const uint8_t *text, size_t length, ImageError *error)
{
	for (size_t i = 0; i < sizeof(base64) / sizeof(base64[0]); i++)
		if (has(text, length, &base64[i]))
		{
			image_fail(error, IMAGE_EINVALID, "could not decode image",
					   "The data are a text, a %s image in base64.", base64[i].name);
			hint(error, "Its bytes are decode(convert_from(image, 'UTF8'), 'base64').");
			return true;
		}
	return false;
}

static bool
hex_text(const uint8_t *text, size_t length, ImageError *error)
{
	bool escaped = length > 2 && memcmp(text, "\\x", 2) == 0;
	bool prefixed = escaped || (length > 2 && strncasecmp((const char *) text, "0x", 2) == 0);
	size_t from = prefixed ? 2 : 0;

	for (size_t i = 0; i < sizeof(hex) / sizeof(hex[0]); i++)
		if (length - from >= hex[i].length &&
			strncasecmp((const char *) text + from, hex[i].start, hex[i].length) == 0)
		{
			image_fail(error, IMAGE_EINVALID, "could not decode image",
					   "The data are a text, a %s image in hexadecimal digits.", hex[i].name);
			hint(error, escaped    ? "Its bytes are convert_from(image, 'UTF8')::bytea."
						: prefixed ? "Its bytes are decode(substr(convert_from(image, 'UTF8'), 3), "
									 "'hex')."
								   : "Its bytes are decode(convert_from(image, 'UTF8'), 'hex').");
			return true;
		}
	return false;
}

ImageStatus
image_fail_foreign(const uint8_t *bytes, size_t length, ImageError *error)
{
	const char *name = format_name(bytes, length);
	const uint8_t *text = bytes;
	size_t n = length;

	if (length == 0)
		return image_fail(error, IMAGE_EINVALID, "could not decode image", "The data is empty.");
	/* A text may begin with a mark of UTF-8, and with blanks. */
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
	{
		text += 3;
		n -= 3;
	}
	for (; n > 0 && memchr(" \t\r\n", *text, 4) != NULL; n--)
		text++;
	if (name == NULL && is_svg(text, n))
		name = "SVG";
	if (name != NULL)
	{
		image_fail(error, IMAGE_EINVALID, "could not decode image",
				   "The data are of the format %s, which is not read.", name);
		hint(error, "Convert it to PNG, JPEG or WebP before it is stored.");
	}
	else if (!data_uri(text, n, error) && !base64_text(text, n, error) && !hex_text(text, n, error))
	{
		image_fail(error, IMAGE_EINVALID, "could not decode image",
				   "The data starts with the signature of none of PNG, JPEG and WebP.");
		hint(error, "The value must be the contents of an image file, not its name or address.");
	}
	return error->code;
}
