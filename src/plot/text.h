/*
 * text.h
 *	  Text on pictures: one font of the machine's, one size.
 *
 * No state of ours; cairo and fontconfig keep caches (plot_forget).
 */
#ifndef BICYCLE_PLOT_TEXT_H
#define BICYCLE_PLOT_TEXT_H

#include <cairo/cairo.h>

#define PLOT_FONT_SIZE 12
#define PLOT_TEXT_BYTES 260 /* of a text that is fitted, with its NUL */

/*
 * For cairo: no control characters, valid UTF-8 or else ASCII. What the font
 * has no shape for is drawn as the font's box for that.
 */
extern void plot_text_clean(char *text);

extern void plot_text_begin(cairo_t *cairo); /* sets font and size */
extern double plot_text_width(cairo_t *cairo, const char *text);

/*
 * Shortens a clean text to a width, in pixels, with an ellipsis where it was
 * cut. It lies in PLOT_TEXT_BYTES, of which it takes three fewer at most, and
 * may come out empty.
 */
extern void plot_text_fit(cairo_t *cairo, char *text, double width);

#endif /* BICYCLE_PLOT_TEXT_H */
