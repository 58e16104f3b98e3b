/*
 * emoji_pairs.c
 *	  Makes pairs of images from Noto Color Emoji: emoji_pairs SIZE [FONT]
 *	  >pairs.copy
 *
 * The font has its emoji as bitmaps of 136 x 128 pixels. Each becomes a pair:
 * the emoji over white, and its outline in black on white, both SIZE by SIZE
 * pixels. Emoji that are there more than once count once. FONT is a file;
 * without it fontconfig is asked for the font. Standard output gets a row a
 * pair for COPY in text format, of these columns:
 *
 *	  glyph int			the glyph's number in the font
 *	  shape int			which emoji belong together: the skin tones and variants
 *	                    of one shape
 *	  variants int		how many pairs have this shape
 *	  held_out bool		not to be trained on
 *	  outline bytea		PNG, gray
 *	  emoji bytea		PNG, RGB
 *
 * Outlines. A pixel is drawn where opacity or any one colour steps by more than
 * EDGE_STEP: at twice the size, then two pixels of four make one. Taking the
 * largest step of the channels and a low threshold, and no measure of how large
 * the step is, makes a pale and a dark variant of an emoji nearly the same
 * outline. That is what makes the task have many answers: skin, hair and
 * clothes cannot be read from an outline.
 *
 * Held out. If one skin tone of a hand were trained on and another held out,
 * the held-out set would only show what was learnt by heart. So the split is by
 * shape. The font does not name its glyphs; whether two emoji are of one shape
 * is seen from their outlines at 64 x 64, whatever SIZE is: if SAME_SHAPE of
 * the black pixels of each lie on or next to a black pixel of the other. What
 * is of one shape with a third is of one shape (so all round faces are). Shapes
 * are numbered in the order of the font, and every HELD_OUT_EVERY-th of them is
 * held out with all its pairs.
 *
 * All memory is this program's own and lives until it ends; one thread.
 */
#include <errno.h>
#include <fontconfig/fontconfig.h>
#include <ft2build.h>
#include FT_FREETYPE_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

#define FAMILY "Noto Color Emoji"
#define MIN_SIZE 16
#define MAX_SIZE 512
#define EDGE_STEP 0.10f /* of the whole range */
#define SHAPE_SIZE 64   /* a row of a shape's outline is the bits of one uint64_t */
#define SAME_SHAPE 0.85
#define HELD_OUT_EVERY 10

typedef struct Shape
{
	uint64_t rows[SHAPE_SIZE]; /* bit x of row y: black */
	uint64_t wide[SHAPE_SIZE]; /* the same and the eight neighbours of each pixel */
	int black;                 /* pixels set in rows */
} Shape;

typedef struct Pair
{
	int glyph;
	uint64_t hash; /* of the emoji's pixels */
	Shape shape;
	int parent; /* index of a pair of the same shape; its own: the first of that shape */
	int number, /* of the shape; of the first pair only, as is the next */
		variants;
	uint8_t *outline, /* PNG */
		*emoji;
	size_t outline_length, emoji_length;
} Pair;

/* An emoji on a square as large as its longer side. */
typedef struct Picture
{
	Image color; /* over white */
	Image alpha;
} Picture;

static void
fail(const char *what, const char *detail)
{
	fprintf(stderr, "emoji_pairs: %s%s%s\n", what, *detail ? ": " : "", detail);
	exit(1);
}

static void *
allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (memory == NULL)
		fail("out of memory", "");
	return memory;
}

/* ---- The font ------------------------------------------------------------ */

/* The path of the font, which lives as long as the program. */
static const char *
find_font(void)
{
	FcPattern *wanted = FcNameParse((const FcChar8 *) FAMILY ":scalable=false"), *found;
	FcResult result;
	FcChar8 *family, *file;

	if (wanted == NULL || !FcConfigSubstitute(NULL, wanted, FcMatchPattern))
		fail("could not ask fontconfig for the font", FAMILY);
	FcDefaultSubstitute(wanted);
	found = FcFontMatch(NULL, wanted, &result);
	if (found == NULL || FcPatternGetString(found, FC_FAMILY, 0, &family) != FcResultMatch ||
		strcmp((char *) family, FAMILY) != 0 ||
		FcPatternGetString(found, FC_FILE, 0, &file) != FcResultMatch)
		fail("the font is not installed (Debian package fonts-noto-color-emoji)", FAMILY);
	return (char *) file;
}

static FT_Face
open_font(const char *path)
{
	FT_Library library;
	FT_Face face;

	if (FT_Init_FreeType(&library) != 0)
		fail("could not start FreeType", "");
	if (FT_New_Face(library, path, 0, &face) != 0)
		fail("could not read font", path);
	if (!FT_HAS_COLOR(face) || face->num_fixed_sizes < 1 || FT_Select_Size(face, 0) != 0)
		fail("the font has no colour bitmaps", path);
	return face;
}

static Image
new_image(int size, int channels)
{
	Image image = { size, size, channels, NULL };

	image.pixels = allocate((size_t) size * (size_t) size * (size_t) channels);
	return image;
}

/*
 * The bitmap, whose colours are multiplied by their opacity, in the middle of a
 * white square; false if there is nothing on it.
 */
static bool
place_on_square(const FT_Bitmap *bitmap, Picture *picture)
{
	int width = (int) bitmap->width, height = (int) bitmap->rows,
		size = width > height ? width : height;
	bool any = false;

	picture->color = new_image(size, 3);
	picture->alpha = new_image(size, 1);
	memset(picture->color.pixels, 255, (size_t) size * (size_t) size * 3);
	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++)
		{
			const unsigned char *bgra =
				bitmap->buffer + (ptrdiff_t) y * bitmap->pitch + 4 * (ptrdiff_t) x;
			size_t place = (size_t) (y + (size - height) / 2) * (size_t) size +
						   (size_t) (x + (size - width) / 2);

			for (int channel = 0; channel < 3; channel++)
				picture->color.pixels[3 * place + (size_t) channel] =
					(uint8_t) (bgra[2 - channel] + (255 - bgra[3]));
			picture->alpha.pixels[place] = bgra[3];
			any = any || bgra[3] > 0;
		}
	return any;
}

/* FNV-1a */
static uint64_t
hash_pixels(const Image *image)
{
	uint64_t hash = UINT64_C(14695981039346656037);
	size_t length = (size_t) image->width * (size_t) image->height * (size_t) image->channels;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ image->pixels[i]) * UINT64_C(1099511628211);
	return hash;
}

/* ---- Outlines ------------------------------------------------------------ */

static Image
resized(const Image *image, int size)
{
	ImageError error;
	Image out;

	if (image_resize(image, size, size, &out, &error) != IMAGE_OK)
		fail(error.message, error.detail);
	return out;
}

/*
 * Whether one channel steps at (x, y): the length of the differences to the
 * next pixel in both directions, above EDGE_STEP.
 */
static bool
steps(const Image *image, int channel, int x, int y)
{
	int size = image->width;
	const uint8_t *here = image->pixels +
						  ((size_t) y * (size_t) size + (size_t) x) * (size_t) image->channels +
						  channel;
	float dx = x + 1 < size ? (float) (here[image->channels] - here[0]) / 255.0f : 0;
	float dy =
		y + 1 < size ? (float) (here[(ptrdiff_t) size * image->channels] - here[0]) / 255.0f : 0;

	return dx * dx + dy * dy > EDGE_STEP * EDGE_STEP;
}

static bool
is_edge(const Picture *picture, int x, int y)
{
	return steps(&picture->alpha, 0, x, y) || steps(&picture->color, 0, x, y) ||
		   steps(&picture->color, 1, x, y) || steps(&picture->color, 2, x, y);
}

/* Black on white, gray. */
static Image
draw_outline(const Picture *picture, int size)
{
	Picture twice = { resized(&picture->color, 2 * size), resized(&picture->alpha, 2 * size) };
	Image outline = new_image(size, 1);

	for (int y = 0; y < size; y++)
		for (int x = 0; x < size; x++)
		{
			int edges = is_edge(&twice, 2 * x, 2 * y) + is_edge(&twice, 2 * x + 1, 2 * y) +
						is_edge(&twice, 2 * x, 2 * y + 1) + is_edge(&twice, 2 * x + 1, 2 * y + 1);

			outline.pixels[(size_t) y * (size_t) size + (size_t) x] = edges >= 2 ? 0 : 255;
		}
	image_free(&twice.color);
	image_free(&twice.alpha);
	return outline;
}

/* ---- Shapes -------------------------------------------------------------- */

static Shape
shape_of(const Picture *picture)
{
	Image outline = draw_outline(picture, SHAPE_SIZE);
	Shape shape = { .black = 0 };

	for (int i = 0; i < SHAPE_SIZE * SHAPE_SIZE; i++)
		if (outline.pixels[i] == 0)
		{
			shape.rows[i / SHAPE_SIZE] |= UINT64_C(1) << i % SHAPE_SIZE;
			shape.black++;
		}
	for (int y = 0; y < SHAPE_SIZE; y++)
	{
		uint64_t column = shape.rows[y] | (y > 0 ? shape.rows[y - 1] : 0) |
						  (y + 1 < SHAPE_SIZE ? shape.rows[y + 1] : 0);

		shape.wide[y] = column | column << 1 | column >> 1;
	}
	image_free(&outline);
	return shape;
}

/* Whether enough of a's pixels lie on or next to one of b's. */
static bool
lies_on(const Shape *a, const Shape *b)
{
	int astray = 0, allowed = (int) ((1 - SAME_SHAPE) * a->black);

	for (int y = 0; y < SHAPE_SIZE && astray <= allowed; y++)
		astray += __builtin_popcountll(a->rows[y] & ~b->wide[y]);
	return astray <= allowed;
}

static int
first_of_shape(Pair *pairs, int i)
{
	while (pairs[i].parent != i)
		i = pairs[i].parent = pairs[pairs[i].parent].parent;
	return i;
}

/* Brings pairs of one shape together, then numbers and counts. */
static void
group(Pair *pairs, int npairs)
{
	int number = 0;

	for (int i = 0; i < npairs; i++)
		pairs[i].parent = i;
	for (int i = 0; i < npairs; i++)
		for (int j = 0; j < i; j++)
			if (lies_on(&pairs[i].shape, &pairs[j].shape) &&
				lies_on(&pairs[j].shape, &pairs[i].shape))
			{
				int a = first_of_shape(pairs, i), b = first_of_shape(pairs, j);

				pairs[a > b ? a : b].parent = a > b ? b : a;
			}
	for (int i = 0; i < npairs; i++)
	{
		int first = first_of_shape(pairs, i);

		if (first == i)
			pairs[i].number = number++;
		pairs[first].variants++;
	}
}

/* ---- Pairs --------------------------------------------------------------- */

static bool
is_known(const Pair *pairs, int npairs, uint64_t hash)
{
	for (int i = 0; i < npairs; i++)
		if (pairs[i].hash == hash)
			return true;
	return false;
}

static void
encode(Image *image, uint8_t **bytes, size_t *length)
{
	ImageError error;

	if (image_encode_png(image, bytes, length, &error) != IMAGE_OK)
		fail(error.message, error.detail);
	image_free(image);
}

static void
make_pair(Pair *pair, const Picture *picture, int size)
{
	Image outline = draw_outline(picture, size), emoji = resized(&picture->color, size);

	pair->shape = shape_of(picture);
	encode(&outline, &pair->outline, &pair->outline_length);
	encode(&emoji, &pair->emoji, &pair->emoji_length);
}

/* All different emoji of the font; returns how many. */
static int
make_pairs(FT_Face face, Pair *pairs, int size)
{
	int npairs = 0;

	for (int glyph = 0; glyph < face->num_glyphs; glyph++)
	{
		const FT_Bitmap *bitmap = &face->glyph->bitmap;
		Picture picture;
		Pair *pair = &pairs[npairs];

		if (FT_Load_Glyph(face, (FT_UInt) glyph, FT_LOAD_COLOR) != 0 ||
			bitmap->pixel_mode != FT_PIXEL_MODE_BGRA || bitmap->rows == 0 || bitmap->width == 0)
			continue;
		pair->glyph = glyph;
		if (place_on_square(bitmap, &picture))
		{
			pair->hash = hash_pixels(&picture.color);
			if (!is_known(pairs, npairs, pair->hash))
			{
				make_pair(pair, &picture, size);
				npairs++;
			}
		}
		image_free(&picture.color);
		image_free(&picture.alpha);
	}
	return npairs;
}

static void
print_bytea(const uint8_t *bytes, size_t length, char end)
{
	fputs("\\\\x", stdout); /* COPY takes one backslash away */
	for (size_t i = 0; i < length; i++)
	{
		putchar("0123456789abcdef"[bytes[i] >> 4]);
		putchar("0123456789abcdef"[bytes[i] & 15]);
	}
	putchar(end);
}

int
main(int argc, char **argv)
{
	FT_Face face;
	Pair *pairs;
	int npairs, size;

	if (argc < 2 || argc > 3)
		fail("usage: emoji_pairs SIZE [FONT] >pairs.copy", "");
	size = atoi(argv[1]);
	if (size < MIN_SIZE || size > MAX_SIZE)
		fail("bad argument", "SIZE");
	face = open_font(argc > 2 ? argv[2] : find_font());
	pairs = allocate((size_t) face->num_glyphs * sizeof(Pair));
	npairs = make_pairs(face, pairs, size);
	if (npairs == 0)
		fail("the font has no emoji", "");
	group(pairs, npairs);

	for (int i = 0; i < npairs; i++)
	{
		const Pair *first = &pairs[first_of_shape(pairs, i)];

		printf("%d\t%d\t%d\t%c\t", pairs[i].glyph, first->number, first->variants,
			   first->number % HELD_OUT_EVERY == 0 ? 't' : 'f');
		print_bytea(pairs[i].outline, pairs[i].outline_length, '\t');
		print_bytea(pairs[i].emoji, pairs[i].emoji_length, '\n');
	}
	if (fflush(stdout) != 0 || ferror(stdout))
		fail("could not write the pairs", strerror(errno));
	return 0;
}
