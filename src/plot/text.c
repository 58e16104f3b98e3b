/*
 * text.c
 *	  Text on pictures (text.h).
 */
#include "plot/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#define ELLIPSIS "\xe2\x80\xa6"

void
plot_text_clean(char *text)
{
	json_t *valid = json_string(text);

	for (char *c = text; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			*c = ' ';
		else if (valid == NULL && (unsigned char) *c >= 0x80)
			*c = '?';
	}
	json_decref(valid);
}

void
plot_text_begin(cairo_t *cairo)
{
	cairo_select_font_face(cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
	cairo_set_font_size(cairo, PLOT_FONT_SIZE);
}

double
plot_text_width(cairo_t *cairo, const char *text)
{
	cairo_text_extents_t extents;

	cairo_text_extents(cairo, text, &extents);
	return extents.x_advance;
}

/*
 * Cuts text behind `length` bytes or somewhat earlier, where a character ends.
 */
static size_t
cut_text(char *text, size_t length)
{
	while (length > 0 && ((unsigned char) text[length] & 0xc0) == 0x80)
		length--;
	strcpy(text + length, ELLIPSIS);
	return length;
}

void
plot_text_fit(cairo_t *cairo, char *text, double width)
{
	size_t fits = 0, most = strlen(text);
	char whole[PLOT_TEXT_BYTES];

	if (plot_text_width(cairo, text) <= width)
		return;
	strcpy(whole, text);
	while (fits + 1 < most)
	{
		size_t middle = fits + (most - fits) / 2;

		strcpy(text, whole);
		cut_text(text, middle);
		if (plot_text_width(cairo, text) <= width)
			fits = middle;
		else
			most = middle;
	}
	strcpy(text, whole);
	if (cut_text(text, fits) == 0)
		text[0] = '\0';
}
