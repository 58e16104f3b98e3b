/*
 * report_html.h
 *	  A page of HTML, as text in ASCII.
 *
 * R1 What comes from elsewhere goes through html_text and html_image only.
 *    Markup is this library's own.
 * R2 A page refers to nothing outside of it, and its Content-Security-Policy
 *    allows no script.
 */
#ifndef BICYCLE_REPORT_HTML_H
#define BICYCLE_REPORT_HTML_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef StringInfoData Html;

extern void html_begin(Html *page, const char *title);
extern void html_end(Html *page);

extern void html_add(Html *page, const char *markup); /* as it is */

/* Text of this database's encoding, for content and for values in quotes. */
extern void html_text(Html *page, const char *words);
extern void html_textf(Html *page, const char *format, ...) pg_attribute_printf(2, 3);

/* A section with its heading; id is a word. */
extern void html_section(Html *page, const char *id, const char *heading);
extern void html_section_end(Html *page);

/* What is shown when its summary is chosen. */
extern void html_details(Html *page, const char *summary);
extern void html_details_end(Html *page);

/*
 * A table that can be scrolled by itself, with its caption; rows follow. The
 * first cell of a row is its header.
 */
extern void html_table(Html *page, const char *id, const char *caption);
extern void html_table_end(Html *page);
extern void html_heads(Html *page, const char *const *heads, int n);
extern void html_row(Html *page, const char *head); /* ended by html_row_end */
extern void html_row_end(Html *page);
extern void html_cell(Html *page, const char *words);                   /* NULL: empty */
extern void html_fact(Html *page, const char *name, const char *value); /* a row of two */

/*
 * An image of any type that is read, or of NULL and of others what there is
 * instead.
 */
extern void html_image(Html *page, const bytea *image, const char *alt);
extern void html_image_cell(Html *page, const bytea *image, const char *alt);
extern void html_figure(Html *page, const bytea *image, const char *alt, const char *caption);

#endif /* BICYCLE_REPORT_HTML_H */
