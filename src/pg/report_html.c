/*
 * report_html.c
 *	  A page of HTML (report_html.h).
 *
 * All characters beyond ASCII are written as references, so a page is the same
 * in whatever encoding a client has it written to a file.
 */
#include "pg/report_html.h"

#include "pg/pg_compat.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

static const char style[] =
	":root{color-scheme:light dark;--page:#fff;--panel:#f4f4f7;--text:#1b1b1f;--faint:#55555f;"
	"--line:#c9c9d2;--accent:#0b57d0}"
	"@media (prefers-color-scheme:dark){:root{--page:#141417;--panel:#1f1f24;--text:#ececf1;"
	"--faint:#b0b0bd;--line:#44444f;--accent:#9cc2ff}}"
	"*{box-sizing:border-box}"
	"body{margin:0;background:var(--page);color:var(--text);"
	"font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}"
	"header,nav,main,footer{max-width:76rem;margin:0 auto;padding:0 1.25rem}"
	"header{padding-top:2rem}h1{font-size:1.9rem;line-height:1.2;margin:0 0 .25rem;"
	"overflow-wrap:anywhere}"
	"h2{font-size:1.3rem;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}"
	"p{margin:.4rem 0 .8rem;max-width:46rem}"
	".faint,footer,caption,figcaption{color:var(--faint)}"
	"nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;padding:0;margin:1rem 0}"
	"a{color:var(--accent)}"
	"a:focus-visible,.scroll:focus-visible{outline:3px solid var(--accent);outline-offset:2px}"
	".skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--page);"
	"padding:.5rem}"
	".scroll{overflow-x:auto;margin:.5rem 0 1rem;border-radius:.5rem;background:var(--panel);"
	"padding:.75rem}"
	"table{border-collapse:collapse}"
	"caption{text-align:left;font-size:.9rem;padding-bottom:.5rem}"
	"th,td{padding:.25rem .4rem;text-align:left;vertical-align:middle;font-size:.9rem}"
	"thead th{font-weight:600;font-size:.72rem;white-space:nowrap}"
	"tbody th{font-weight:500;min-width:5rem;max-width:12rem;overflow-wrap:break-word}"
	"td{overflow-wrap:anywhere;font-variant-numeric:tabular-nums}"
	"img{display:block;background:#fff;border-radius:.25rem}"
	"td img{width:6.6rem;min-width:4rem;height:auto}"
	"figure{margin:0 0 1.25rem}figure img{max-width:100%;height:auto}"
	"figcaption{font-size:.9rem;margin-top:.35rem}"
	"summary{cursor:pointer;color:var(--accent);padding:.25rem 0}"
	"summary:focus-visible{outline:3px solid var(--accent)}"
	"code{font:.9em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}"
	"footer{padding-top:2rem;padding-bottom:3rem;font-size:.9rem}";

/* ---- Text ---------------------------------------------------------------- */

void
html_add(Html *page, const char *markup)
{
	appendStringInfoString(page, markup);
}

static void
add_character(Html *page, pg_wchar c)
{
	if (c == '\t' || c == '\n')
		appendStringInfoChar(page, (char) c);
	else if (c < ' ' || c == 0x7f || (c >= 0x80 && c < 0xa0) || c == 0xfffe || c == 0xffff)
		appendStringInfoString(page, "&#xfffd;"); /* which HTML has no characters for */
	else if (c >= 0x80 || c == '<' || c == '>' || c == '&' || c == '"' || c == '\'')
		appendStringInfo(page, "&#x%x;", (unsigned) c);
	else
		appendStringInfoChar(page, (char) c);
}

void
html_text(Html *page, const char *words)
{
	/* Of bytes without an encoding nobody knows what they mean. */
	bool known = GetDatabaseEncoding() != PG_SQL_ASCII;
	const unsigned char *at =
		(const unsigned char *) (known ? pg_server_to_any(words, strlen(words), PG_UTF8) : words);

	while (*at != '\0')
	{
		if (!known)
			add_character(page, *at < 0x80 ? *at : 0xfffd);
		else
			add_character(page, utf8_to_unicode(at));
		at += known ? pg_encoding_mblen(PG_UTF8, (const char *) at) : 1;
	}
}

void
html_textf(Html *page, const char *format, ...)
{
	StringInfoData all;

	initStringInfo(&all);
	for (;;)
	{
		va_list args;
		int needed;

		va_start(args, format);
		needed = appendStringInfoVA(&all, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&all, needed);
	}
	html_text(page, all.data);
	pfree(all.data);
}

/* ---- The page ------------------------------------------------------------ */

void
html_begin(Html *page, const char *title)
{
	html_add(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
				   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
				   "img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action "
				   "'none'\">\n"
				   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
				   "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
	html_text(page, title);
	html_add(page, "</title>\n<style>");
	html_add(page, style);
	html_add(page, "</style>\n</head>\n<body>\n"
				   "<a class=\"skip\" href=\"#content\">Skip to the content</a>\n");
}

void
html_end(Html *page)
{
	html_add(page, "</body>\n</html>\n");
}

void
html_section(Html *page, const char *id, const char *heading)
{
	html_add(page, "<section aria-labelledby=\"");
	html_text(page, id);
	html_add(page, "\">\n<h2 id=\"");
	html_text(page, id);
	html_add(page, "\">");
	html_text(page, heading);
	html_add(page, "</h2>\n");
}

void
html_section_end(Html *page)
{
	html_add(page, "</section>\n");
}

void
html_details(Html *page, const char *summary)
{
	html_add(page, "<details>\n<summary>");
	html_text(page, summary);
	html_add(page, "</summary>\n");
}

void
html_details_end(Html *page)
{
	html_add(page, "</details>\n");
}

/* ---- Tables -------------------------------------------------------------- */

void
html_table(Html *page, const char *id, const char *caption)
{
	html_add(page, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"");
	html_text(page, id);
	html_add(page, "-caption\">\n<table>\n<caption id=\"");
	html_text(page, id);
	html_add(page, "-caption\">");
	html_text(page, caption);
	html_add(page, "</caption>\n");
}

void
html_table_end(Html *page)
{
	html_add(page, "</tbody>\n</table>\n</div>\n");
}

void
html_heads(Html *page, const char *const *heads, int n)
{
	html_add(page, "<thead>\n<tr>");
	for (int i = 0; i < n; i++)
	{
		html_add(page, "<th scope=\"col\">");
		html_text(page, heads[i]);
		html_add(page, "</th>");
	}
	html_add(page, "</tr>\n</thead>\n<tbody>\n");
}

void
html_row(Html *page, const char *head)
{
	html_add(page, "<tr><th scope=\"row\">");
	html_text(page, head);
	html_add(page, "</th>");
}

void
html_row_end(Html *page)
{
	html_add(page, "</tr>\n");
}

void
html_cell(Html *page, const char *words)
{
	html_add(page, "<td>");
	html_text(page, words != NULL ? words : "");
	html_add(page, "</td>");
}

void
html_fact(Html *page, const char *name, const char *value)
{
	html_row(page, name);
	html_cell(page, value);
	html_row_end(page);
}

/* ---- Images -------------------------------------------------------------- */

/* By how its file begins; NULL: none that is read. */
static const char *
media_type(const unsigned char *bytes, Size length)
{
	if (length > 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
		return "image/png";
	if (length > 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0)
		return "image/jpeg";
	if (length > 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
		return "image/webp";
	return NULL;
}

static void
add_base64(Html *page, const unsigned char *bytes, Size length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	if (length > MaxAllocSize / 2)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("report is too large"),
						errdetail("One of its images has %zu bytes.", length)));
	enlargeStringInfo(page, (int) (length / 3 * 4 + 4));
	for (Size i = 0; i < length; i += 3)
	{
		Size left = Min(3, length - i);
		uint32 word = (uint32) bytes[i] << 16 | (left > 1 ? (uint32) bytes[i + 1] << 8 : 0) |
					  (left > 2 ? bytes[i + 2] : 0);
		char quad[4] = { digits[word >> 18], digits[word >> 12 & 63],
						 left > 1 ? digits[word >> 6 & 63] : '=',
						 left > 2 ? digits[word & 63] : '=' };

		appendBinaryStringInfo(page, quad, 4);
	}
}

void
html_image(Html *page, const bytea *image, const char *alt)
{
	const unsigned char *bytes = image != NULL ? (const unsigned char *) VARDATA_ANY(image) : NULL;
	Size length = image != NULL ? VARSIZE_ANY_EXHDR(image) : 0;
	const char *type = media_type(bytes, length);

	if (type == NULL)
	{
		html_add(page, image != NULL ? "<span class=\"faint\">not an image</span>"
									 : "<span class=\"faint\">none</span>");
		return;
	}
	html_add(page, "<img alt=\"");
	html_text(page, alt);
	html_add(page, "\" src=\"data:");
	html_add(page, type);
	html_add(page, ";base64,");
	add_base64(page, bytes, length);
	html_add(page, "\">");
}

void
html_image_cell(Html *page, const bytea *image, const char *alt)
{
	html_add(page, "<td>");
	html_image(page, image, alt);
	html_add(page, "</td>");
}

void
html_figure(Html *page, const bytea *image, const char *alt, const char *caption)
{
	html_add(page, "<figure>\n");
	html_image(page, image, alt);
	html_add(page, "\n<figcaption>");
	html_text(page, caption);
	html_add(page, "</figcaption>\n</figure>\n");
}
