/*
 * jpeg_file.c
 *	  The segments of a JPEG file before its first scan, walked as Pillow walks
 *	  them when it opens the file.
 *
 * libjpeg reads the file afterwards and refuses more. What this walk adds is
 * what Pillow alone refuses, and which of several headers it believes.
 *
 * No memory, no state, no locks.
 */
#include "image/jpeg_file.h"

#include "common/invariant.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct JpegWalk
{
	JpegFile *file;
	const uint8_t *bytes;
	size_t length, at;
	const uint8_t *profile; /* the first in order of a colour profile's segments */
	size_t profile_length;
} JpegWalk;

typedef struct JpegSegment
{
	uint8_t marker;
	const uint8_t *body;
	size_t length;
} JpegSegment;

__attribute__((format(printf, 2, 3))) static bool
refuse_jpeg(JpegWalk *walk, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(walk->file->refusal, sizeof(walk->file->refusal), format, args);
	va_end(args);
	return false;
}

static bool
starts(const JpegSegment *segment, const void *with, size_t n)
{
	return segment->length >= n && memcmp(segment->body, with, n) == 0;
}

static unsigned
two_bytes(const uint8_t *at)
{
	return (unsigned) at[0] << 8 | at[1];
}

/* Passes over a segment, which must be there as a whole. */
static bool
take_segment(JpegWalk *walk, uint8_t marker, JpegSegment *segment)
{
	unsigned length;

	INVARIANT(walk->at <= walk->length);
	if (walk->length - walk->at < 2)
		return refuse_jpeg(walk, "The data end within the header.");
	length = two_bytes(walk->bytes + walk->at);
	walk->at += 2;
	segment->marker = marker;
	segment->body = walk->bytes + walk->at;
	segment->length = length > 2 ? length - 2 : 0;
	if (segment->length > walk->length - walk->at)
		return refuse_jpeg(walk, "The data end within the header.");
	walk->at += segment->length;
	return true;
}

/* The sizes of what Photoshop has left must not end within a name. */
static bool
check_photoshop(JpegWalk *walk, const JpegSegment *segment)
{
	const uint8_t *body = segment->body;
	size_t at = 14, n = segment->length;

	while (n - at >= 4 && memcmp(body + at, "8BIM", 4) == 0)
	{
		at += 4;
		if (n - at < 2)
			return true;
		at += 2;
		if (at == n)
			return refuse_jpeg(walk, "A segment of Photoshop's is cut off.");
		at += (size_t) 1 + body[at];
		at += at & 1;
		if (at > n || n - at < 4)
			return true;
		at += 4 + ((size_t) two_bytes(body + at) << 16 | two_bytes(body + at + 2));
		at += at & 1;
		if (at > n)
			return true;
	}
	return true;
}

static bool
read_app(JpegWalk *walk, const JpegSegment *segment)
{
	switch (segment->marker)
	{
		case 0xe0:
			if (starts(segment, "JFIF", 4) && segment->length < 7)
				return refuse_jpeg(walk, "Its JFIF segment is too short.");
			return true;
		case 0xe1:
			if (starts(segment, "Exif\0", 6) && walk->file->exif_length == 0)
			{
				walk->file->exif = (size_t) (segment->body + 6 - walk->bytes);
				walk->file->exif_length = segment->length - 6;
			}
			return true;
		case 0xe2:
			if (starts(segment, "ICC_PROFILE", 12))
			{
				size_t least =
					segment->length < walk->profile_length ? segment->length : walk->profile_length;
				int order =
					walk->profile == NULL ? -1 : memcmp(segment->body, walk->profile, least);

				if (order < 0 || (order == 0 && segment->length < walk->profile_length))
				{
					walk->profile = segment->body;
					walk->profile_length = segment->length;
				}
			}
			return true;
		case 0xed:
			return !starts(segment, "Photoshop 3.0", 14) || check_photoshop(walk, segment);
		case 0xee:
			if (starts(segment, "Adobe", 5) && segment->length < 7)
				return refuse_jpeg(walk, "Its Adobe segment is too short.");
			return true;
		default:
			return true;
	}
}

static bool
read_frame(JpegWalk *walk, const JpegSegment *segment)
{
	const uint8_t *body = segment->body;

	if (segment->length < 6 || (segment->length - 6) % 3 != 0)
		return refuse_jpeg(walk, "Its frame header has a wrong length.");
	walk->file->height = (int) two_bytes(body + 1);
	walk->file->width = (int) two_bytes(body + 3);
	walk->file->channels = body[5];
	if (body[0] != 8)
		return refuse_jpeg(walk, "Only 8-bit JPEG images are read; it has %d bits.", body[0]);
	if (body[5] != 1 && body[5] != 3 && body[5] != 4)
		return refuse_jpeg(walk, "Its %d components are neither gray, colour nor CMYK.", body[5]);
	if (walk->profile != NULL && walk->profile_length < 14)
		return refuse_jpeg(walk, "Its colour profile is cut off.");
	walk->profile = NULL;
	walk->profile_length = 0;
	return true;
}

static bool
check_tables(JpegWalk *walk, const JpegSegment *segment)
{
	for (size_t at = 0; at < segment->length;)
	{
		size_t n = segment->body[at] < 16 ? 65 : 129;

		if (segment->length - at < n)
			return refuse_jpeg(walk, "A quantization table is cut off.");
		at += n;
	}
	return true;
}

/* *last: it begins a scan. */
static bool
read_segment(JpegWalk *walk, uint8_t marker, bool *last)
{
	JpegSegment segment = { 0 };

	*last = marker == 0xda;
	/* These stand alone. */
	if ((marker >= 0xd0 && marker <= 0xd9) || marker == 0xc8 || (marker >= 0xf0 && marker <= 0xfd))
		return true;
	if (marker < 0xc0)
		return refuse_jpeg(walk, "It has a marker that does not exist, %02x.", marker);
	if (!take_segment(walk, marker, &segment))
		return false;
	if (marker == 0xdb)
		return check_tables(walk, &segment);
	if (marker >= 0xe0 && marker <= 0xef)
		return read_app(walk, &segment);
	if ((marker <= 0xcf && marker != 0xc4 && marker != 0xcc) || marker == 0xde)
		return read_frame(walk, &segment);
	return true;
}

bool
jpeg_file_open(JpegFile *file, const uint8_t *bytes, size_t length)
{
	/* The 0xff behind the first marker begins the next. */
	JpegWalk walk = { .file = file, .bytes = bytes, .length = length, .at = 3 };
	bool last = false, marked = true;

	memset(file, 0, sizeof(*file));
	INVARIANT(length >= walk.at);
	while (!last)
	{
		uint8_t byte;

		if (walk.at == walk.length)
			return refuse_jpeg(&walk, "The data end within the header.");
		byte = bytes[walk.at++];
		if (marked && byte != 0xff && byte != 0)
		{
			if (!read_segment(&walk, byte, &last))
				return false;
			marked = false;
		}
		else
			marked = byte == 0xff;
	}
	if (file->width == 0 || file->height == 0)
		return refuse_jpeg(&walk, "It has no width or no height.");
	return true;
}
