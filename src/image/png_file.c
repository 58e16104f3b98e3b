/*
 * png_file.c
 *	  The chunks of a PNG file, walked as Pillow walks them.
 *
 * Whether a file is read is decided here, by Pillow's rules, and by inflate.
 *
 * R1 Before the image data every chunk must be whole and have the right
 *    checksum, also those that nobody needs. Checksums of the data and of what
 *    follows are not looked at: a wrong one there harms no pixel.
 * R2 Chunks that are not known are passed over, critical ones too.
 * R3 Of chunks that are known, the shortest length is checked, and what little
 *    Pillow checks besides. Profiles and texts are not unpacked.
 * R4 The data are the first chunks of data that follow one another. A file may
 *    end within them, or at any border of chunks behind them.
 * R5 Of an APNG this is the first frame.
 * R6 A chunk may come again, IHDR too, and the last one counts.
 *
 * All memory is the caller's; no state, no locks.
 */
#include "image/png_file.h"

#include "common/invariant.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define PIECE 65536

typedef struct PngChunk
{
	char name[5];
	uint32_t length;
	const uint8_t *body; /* `length` bytes of it, where whole() has said so */
} PngChunk;

typedef enum ChunkKind
{
	CHUNK_REFUSED,
	CHUNK_READ, /* and `at` is behind its body */
	CHUNK_DATA, /* `at` is where its data begin */
	CHUNK_END
} ChunkKind;

static uint32_t
big_endian(const uint8_t *bytes)
{
	return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 | (uint32_t) bytes[2] << 8 |
		   bytes[3];
}

static uint16_t
big_endian16(const uint8_t *bytes)
{
	return (uint16_t) (bytes[0] << 8 | bytes[1]);
}

__attribute__((format(printf, 2, 3))) static bool
refuse(PngFile *file, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(file->refusal, sizeof(file->refusal), format, args);
	va_end(args);
	return false;
}

static size_t
left(const PngFile *file)
{
	INVARIANT(file->at <= file->length);
	return file->length - file->at;
}

/* Passes over at most n bytes. */
static void
skip(PngFile *file, size_t n)
{
	file->at += n < left(file) ? n : left(file);
}

static bool
word(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Length and name; false if there are none. */
static bool
next_chunk(PngFile *file, PngChunk *chunk)
{
	const uint8_t *head = file->bytes + file->at;

	if (left(file) < 8 || !word(head[4]) || !word(head[5]) || !word(head[6]) || !word(head[7]))
		return refuse(file, left(file) < 8 ? "The data end before the end of the file is declared."
										   : "There is no chunk where one should be.");
	chunk->length = big_endian(head);
	memcpy(chunk->name, head + 4, 4);
	chunk->name[4] = '\0';
	file->at += 8;
	chunk->body = file->bytes + file->at;
	return true;
}

static bool
is(const PngChunk *chunk, const char *name)
{
	return memcmp(chunk->name, name, 4) == 0;
}

/* Passes over the body, which must be there, and have at least n bytes. */
static bool
whole(PngFile *file, const PngChunk *chunk, uint32_t n)
{
	if (chunk->length > left(file))
		return refuse(file, "The data end within chunk \"%s\".", chunk->name);
	if (chunk->length < n)
		return refuse(file, "Chunk \"%s\" is too short.", chunk->name);
	file->at += chunk->length;
	return true;
}

/* ---- Chunks that mean something ------------------------------------------ */

/* Whether there are pixels of that kind. */
static bool
kind_exists(int depth, int color)
{
	switch (color)
	{
		case 0:
			return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
		case 3:
			return depth == 1 || depth == 2 || depth == 4 || depth == 8;
		case 2:
		case 4:
		case 6:
			return depth == 8 || depth == 16;
		default:
			return false;
	}
}

static bool
read_ihdr(PngFile *file, const PngChunk *chunk)
{
	file->width = big_endian(chunk->body);
	file->height = big_endian(chunk->body + 4);
	if (kind_exists(chunk->body[8], chunk->body[9]))
	{
		file->depth = chunk->body[8];
		file->color = chunk->body[9];
	}
	if (chunk->body[12] != 0)
		file->interlaced = true;
	if (chunk->body[11] != 0)
		return refuse(file, "The header declares a kind of filters that does not exist.");
	return true;
}

static bool
read_plte(PngFile *file, const PngChunk *chunk)
{
	if (file->depth == 0 || file->color != 3)
		return true;
	memset(file->palette, 0, sizeof(file->palette));
	file->entries = chunk->length / 3 > PNG_FILE_ENTRIES ? -1 : (int) (chunk->length / 3);
	if (file->entries > 0)
		memcpy(file->palette, chunk->body, (size_t) file->entries * 3);
	return true;
}

static bool
read_trns(PngFile *file, const PngChunk *chunk)
{
	if (file->depth == 0 || file->color >= 4)
		return true;
	if (file->color == 3)
	{
		file->trns = chunk->body;
		file->trns_length = chunk->length;
	}
	else
	{
		if (chunk->length < (file->color == 2 ? 6 : 2))
			return refuse(file, "Chunk \"tRNS\" is too short.");
		for (int i = 0; i < 3; i++)
			file->key[i] = big_endian16(chunk->body + (file->color == 2 ? 2 * i : 0));
		if (file->depth == 1)
			file->key[0] = file->key[0] != 0;
	}
	file->transparent = true;
	return true;
}

/* The next number of a sequence of frames. */
static bool
read_sequence(PngFile *file, const PngChunk *chunk)
{
	uint32_t number = big_endian(chunk->body);

	if (file->numbered ? number == 0 || number - 1 != file->sequence
					   : number != 0 || is(chunk, "fdAT"))
		return refuse(file, "The frames of the animation are out of sequence.");
	file->numbered = true;
	file->sequence = number;
	return true;
}

bool
png_file_frame_fits(const PngFile *file)
{
	return (uint64_t) file->frame_x + file->frame_width <= file->width &&
		   (uint64_t) file->frame_y + file->frame_height <= file->height;
}

static bool
read_fctl(PngFile *file, const PngChunk *chunk)
{
	if (!read_sequence(file, chunk))
		return false;
	file->framed = true;
	file->frame_width = big_endian(chunk->body + 4);
	file->frame_height = big_endian(chunk->body + 8);
	file->frame_x = big_endian(chunk->body + 12);
	file->frame_y = big_endian(chunk->body + 16);
	if (!png_file_frame_fits(file))
		return refuse(file, "A frame of the animation is larger than the image.");
	return true;
}

static bool
read_actl(PngFile *file, const PngChunk *chunk)
{
	uint32_t frames = big_endian(chunk->body);

	if (file->counted)
		file->counted = false;
	else if (frames > 0 && frames <= 0x80000000u)
	{
		file->counted = true;
		file->frames = frames;
	}
	return true;
}

/* Of packed profiles and texts only one way of packing exists. */
static bool
read_packed(PngFile *file, const PngChunk *chunk)
{
	const uint8_t *end = memchr(chunk->body, '\0', chunk->length);
	size_t at = end == NULL ? 0 : (size_t) (end - chunk->body) + 1;
	bool profile = is(chunk, "iCCP");

	if (at >= chunk->length || (end == NULL && !profile))
		return profile ? refuse(file, "Chunk \"iCCP\" is too short.") : true;
	if (chunk->body[at] != 0)
		return refuse(file, "Chunk \"%s\" is packed in an unknown way.", chunk->name);
	return true;
}

static bool
read_exif(PngFile *file, const PngChunk *chunk)
{
	file->exif = chunk->body;
	file->exif_length = chunk->length;
	return true;
}

static bool
read_nothing(PngFile *file, const PngChunk *chunk)
{
	return true;
}

static const struct
{
	const char *name;
	uint32_t least; /* bytes */
	bool (*read)(PngFile *file, const PngChunk *chunk);
} kinds[] = {
	{ "IHDR", 13, read_ihdr },    { "PLTE", 0, read_plte },    { "tRNS", 0, read_trns },
	{ "fcTL", 26, read_fctl },    { "acTL", 8, read_actl },    { "iCCP", 0, read_packed },
	{ "zTXt", 0, read_packed },   { "eXIf", 0, read_exif },    { "gAMA", 4, read_nothing },
	{ "cHRM", 32, read_nothing }, { "sRGB", 1, read_nothing }, { "pHYs", 9, read_nothing },
};

static ChunkKind
read_chunk(PngFile *file, const PngChunk *chunk)
{
	if (is(chunk, "IEND"))
		return CHUNK_END;
	/* Pillow does not know data before it knows what pixels there are. */
	if (is(chunk, "IDAT") && file->depth > 0)
		return CHUNK_DATA;
	if (is(chunk, "fdAT"))
	{
		if (chunk->length < 4 || left(file) < 4)
		{
			refuse(file, "Chunk \"fdAT\" is too short.");
			return CHUNK_REFUSED;
		}
		file->at += 4;
		return read_sequence(file, chunk) ? CHUNK_DATA : CHUNK_REFUSED;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (is(chunk, kinds[i].name))
			return whole(file, chunk, kinds[i].least) && kinds[i].read(file, chunk) ? CHUNK_READ
																					: CHUNK_REFUSED;
	return whole(file, chunk, 0) ? CHUNK_READ : CHUNK_REFUSED;
}

static uint32_t
data_length(const PngChunk *chunk)
{
	return is(chunk, "fdAT") ? chunk->length - 4 : chunk->length;
}

/* ---- The walk ------------------------------------------------------------ */

static bool
check_sum(PngFile *file, const PngChunk *chunk)
{
	uint32_t sum = (uint32_t) crc32_z(0, (const uint8_t *) chunk->name, 4);

	sum = (uint32_t) crc32_z(sum, chunk->body, chunk->length);
	if (left(file) < 4 || big_endian(file->bytes + file->at) != sum)
		return refuse(file, "The checksum of chunk \"%s\" is wrong.", chunk->name);
	file->at += 4;
	return true;
}

/*
 * A chunk with a single 0 among 255s makes that entry transparent; Pillow does
 * not mind a newline behind them.
 */
static int
single_entry(const uint8_t *opacity, uint32_t n)
{
	int found = -1;

	if (n > 0 && opacity[n - 1] == '\n')
		n--;
	for (uint32_t i = 0; i < n; i++)
		if (opacity[i] == 0 && found < 0)
			found = (int) i;
		else if (opacity[i] != 255)
			return -1;
	return found;
}

/* The last tRNS chunk goes over the opacities of the palette. */
static bool
fade_palette(PngFile *file)
{
	int single = file->trns == NULL ? -1 : single_entry(file->trns, file->trns_length);

	if (file->trns == NULL)
		return true;
	if (single < 0 ? file->trns_length > PNG_FILE_ENTRIES : single >= PNG_FILE_ENTRIES)
		return refuse(file, "Chunk \"tRNS\" has more opacities than a palette can have.");
	if (single >= 0)
		file->opacity[single] = 0;
	else if (file->trns_length > 0)
		memcpy(file->opacity, file->trns, file->trns_length);
	file->trns = NULL;
	return true;
}

/*
 * What all chunks before the data have said together. Each kind may come again
 * and change what one before it was compared with, so what pixels depend on is
 * compared here, where it is final: chunks behind the data reach no pixel but
 * by what look_ahead() of png.c takes over.
 */
static bool
check_header(PngFile *file)
{
	if (file->depth == 0)
		return refuse(file, "The header declares pixels of a kind that does not exist.");
	if (file->width == 0 || file->height == 0 || file->width > INT32_MAX ||
		file->height > INT32_MAX)
		return refuse(file, "The header declares an impossible width or height.");
	if (!file->framed)
	{
		file->default_image = file->counted;
		file->frame_width = file->width;
		file->frame_height = file->height;
	}
	if (file->frame_width == 0 || file->frame_height == 0 || !png_file_frame_fits(file))
		return refuse(file, "The first frame does not lie within the image.");
	if (file->entries < 0)
		return refuse(file, "The palette has more than %d entries.", PNG_FILE_ENTRIES);
	return fade_palette(file);
}

bool
png_file_open(PngFile *file, const uint8_t *bytes, size_t length)
{
	PngChunk chunk;
	ChunkKind kind;

	memset(file, 0, sizeof(*file));
	file->bytes = bytes;
	file->length = length;
	file->at = 8; /* behind the signature */
	INVARIANT(length >= file->at);
	memset(file->opacity, 255, sizeof(file->opacity));
	for (;;)
	{
		if (!next_chunk(file, &chunk))
			return false;
		kind = read_chunk(file, &chunk);
		if (kind == CHUNK_REFUSED)
			return false;
		if (kind == CHUNK_END)
			return refuse(file, "The file has no image data.");
		if (kind == CHUNK_DATA)
			break;
		if (!check_sum(file, &chunk))
			return false;
	}
	file->data_left = data_length(&chunk);
	return check_header(file);
}

bool
png_file_data(PngFile *file, const uint8_t **piece, size_t *n)
{
	*n = 0;
	while (file->data_left == 0)
	{
		PngChunk chunk;

		skip(file, 4); /* the checksum */
		if (!next_chunk(file, &chunk))
			return false;
		if (!is(&chunk, "IDAT") && !is(&chunk, "DDAT") && !is(&chunk, "fdAT"))
			return true;
		if (is(&chunk, "fdAT") && read_chunk(file, &chunk) == CHUNK_REFUSED)
			return false;
		file->data_left = data_length(&chunk);
	}
	*n = file->data_left < PIECE ? file->data_left : PIECE;
	file->data_left -= (uint32_t) *n;
	if (*n > left(file))
		*n = left(file);
	*piece = file->bytes + file->at;
	file->at += *n;
	return true;
}

bool
png_file_close(PngFile *file)
{
	bool animated = file->counted && (file->default_image || file->frames > 1);
	PngChunk chunk;

	skip(file, file->data_left);
	for (;;)
	{
		skip(file, 4); /* the checksum */
		if (!next_chunk(file, &chunk) || is(&chunk, "IEND") || (animated && is(&chunk, "fcTL")))
			break;
		switch (read_chunk(file, &chunk))
		{
			case CHUNK_REFUSED:
				return false;
			case CHUNK_DATA:
				if (data_length(&chunk) > left(file))
					return refuse(file, "The data end within chunk \"%s\".", chunk.name);
				file->at += data_length(&chunk);
				break;
			case CHUNK_READ:
			case CHUNK_END:
				break;
		}
	}
	return fade_palette(file);
}
