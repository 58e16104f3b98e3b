/*
 * plot.c
 *	  Curves over iterations, drawn with cairo: axes, a grid, one line a series,
 *	  a legend.
 *
 * The numbers come from a client and are checked as all its input is. The y
 * axis is logarithmic where that shows more: losses of one run differ by orders
 * of magnitude, and a linear axis would press all but the largest against the
 * bottom. Where several points of a series fall on one column of pixels their
 * mean is drawn, so the picture is as clear for a million points as for a
 * hundred.
 *
 * A Plot is made by plot_read and points into its bytes; cairo's objects and
 * the pixels live within plot_draw. No locks, no state between calls.
 */
#include <fontconfig/fontconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/protocol.h"
#include "image/image.h"
#include "plot/plot.h"
#include "plot/plot_error.h"
#include "plot/text.h"

#define MIN_SIDE 160
#define MAX_SIDE 8192
#define MAX_SERIES 64
#define PIXEL_BYTES 10 /* cairo's four, RGB, and at worst as much again for the file */

/* largest over smallest value from which on the y axis is logarithmic */
#define LOG_SPREAD 20
#define LOG_RANGE 1e6 /* what it shows at most */

#define FONT_SIZE PLOT_FONT_SIZE
#define MARGIN_LEFT 64
#define MARGIN_TOP 32
#define MARGIN_BOTTOM 46
#define LEGEND 110     /* width on the right, at least */
#define LEGEND_TEXT 40 /* from the axis' end to a name */
#define AIR 4          /* between a text and the border */
#define MAX_TICKS 12   /* steps of a linear axis */

/* One series, checked; points lie in the given bytes and are not aligned. */
typedef struct PlotSeries
{
	char name[sizeof(((BicycleSeries *) NULL)->name)];
	const uint8_t *points;
	uint32_t npoints;
} PlotSeries;

typedef struct PlotAxis
{
	double from, to; /* in values; of their logarithms if `log` */
	bool log;
	double start, length; /* in pixels; y grows downwards, so its length is negative */
} PlotAxis;

struct Plot
{
	BicyclePlot head;
	PlotSeries series[MAX_SERIES];
	PlotAxis x, y;
	cairo_t *cairo; /* while it is drawn */
};

/* Okabe and Ito's palette for the colour-blind, without its yellow. */
static const double colours[][3] = { { 0.00, 0.45, 0.70 }, { 0.84, 0.37, 0.00 },
									 { 0.00, 0.62, 0.45 }, { 0.80, 0.47, 0.65 },
									 { 0.90, 0.62, 0.00 }, { 0.34, 0.71, 0.91 },
									 { 0.00, 0.00, 0.00 } };

#define NCOLOURS (sizeof(colours) / sizeof(colours[0]))

/* ---- Reading ------------------------------------------------------------- */

static PlotStatus
plot_malformed(PlotError *error, const char *detail)
{
	return plot_fail(error, PLOT_EMALFORMED, "plot is not well-formed", "%s", detail);
}

static PlotStatus
read_series(Plot *plot, const uint8_t *bytes, size_t length, PlotError *error)
{
	size_t at = sizeof(plot->head);

	if (length < sizeof(plot->head))
		return plot_malformed(error, "It is cut off.");
	memcpy(&plot->head, bytes, sizeof(plot->head));
	if (memchr(plot->head.title, '\0', sizeof(plot->head.title)) == NULL ||
		plot->head.series > MAX_SERIES)
		return plot_malformed(error, "Its header is damaged.");
	plot_text_clean(plot->head.title);
	if (plot->head.width < MIN_SIDE || plot->head.width > MAX_SIDE ||
		plot->head.height < MIN_SIDE || plot->head.height > MAX_SIDE)
		return plot_fail(error, PLOT_ESIZE, "invalid size of a plot",
						 "It is %u x %u; width and height must be from %d to %d.", plot->head.width,
						 plot->head.height, MIN_SIDE, MAX_SIDE);
	for (uint32_t i = 0; i < plot->head.series; i++)
	{
		BicycleSeries head;
		PlotSeries *series = &plot->series[i];

		if (length - at < sizeof(head))
			return plot_malformed(error, "A series is cut off.");
		memcpy(&head, bytes + at, sizeof(head));
		at += sizeof(head);
		if (memchr(head.name, '\0', sizeof(head.name)) == NULL ||
			head.points > (length - at) / sizeof(BicyclePoint))
			return plot_malformed(error, "A series is damaged.");
		memcpy(series->name, head.name, sizeof(series->name));
		plot_text_clean(series->name);
		series->points = bytes + at;
		series->npoints = head.points;
		at += head.points * sizeof(BicyclePoint);
	}
	if (at != length)
		return plot_malformed(error, "It is longer than its series.");
	return PLOT_OK;
}

/* False if it is no pair of numbers that can be drawn. */
static bool
plot_point(const PlotSeries *series, uint32_t i, BicyclePoint *p)
{
	memcpy(p, series->points + (size_t) i * sizeof(*p), sizeof(*p));
	return isfinite(p->x) && isfinite(p->y) && fabs(p->x) < 1e300 && fabs(p->y) < 1e300;
}

/* ---- Axes ---------------------------------------------------------------- */

static double
plot_clamp(double value, double low, double high)
{
	return value < low ? low : value > high ? high : value;
}

static double
on_plot_axis(const PlotAxis *axis, double value)
{
	double v = axis->log ? log10(value) : value;

	return axis->start +
		   axis->length * plot_clamp((v - axis->from) / (axis->to - axis->from), 0, 1);
}

/* Ranges of what is drawn. */
typedef struct PlotExtent
{
	double x_low, x_high, y_low, y_high, y_positive; /* the smallest above 0 */
	uint64_t count, positive;
} PlotExtent;

static PlotExtent
measure_plot(const Plot *plot)
{
	PlotExtent e = { .x_low = INFINITY,
					 .x_high = -INFINITY,
					 .y_low = INFINITY,
					 .y_high = -INFINITY,
					 .y_positive = INFINITY };

	for (uint32_t i = 0; i < plot->head.series; i++)
		for (uint32_t k = 0; k < plot->series[i].npoints; k++)
		{
			BicyclePoint p;

			if (!plot_point(&plot->series[i], k, &p))
				continue;
			e.count++;
			e.x_low = fmin(e.x_low, p.x);
			e.x_high = fmax(e.x_high, p.x);
			e.y_low = fmin(e.y_low, p.y);
			e.y_high = fmax(e.y_high, p.y);
			if (p.y <= 0)
				continue;
			e.positive++;
			e.y_positive = fmin(e.y_positive, p.y);
		}
	return e;
}

/* A range that is wider than nothing, with a little air. */
static void
set_range(PlotAxis *axis, double low, double high, double air)
{
	if (!(high > low))
	{
		double half = fmax(fabs(low) * 0.5, 0.5);

		low -= half;
		high += half;
	}
	axis->from = low - air * (high - low);
	axis->to = high + air * (high - low);
}

/* Of the longest name, but no more than a third of the picture. */
static double
legend_width(const Plot *plot)
{
	double width = LEGEND;

	for (uint32_t i = 0; i < plot->head.series; i++)
		if (plot->series[i].npoints > 0)
			width = fmax(width, LEGEND_TEXT + AIR +
									ceil(plot_text_width(plot->cairo, plot->series[i].name)));
	return fmin(width, fmax(LEGEND, plot->head.width / 3));
}

static void
make_axes(Plot *plot)
{
	PlotExtent e = measure_plot(plot);

	plot->x = (PlotAxis){ .start = MARGIN_LEFT,
						  .length = (double) plot->head.width - MARGIN_LEFT - legend_width(plot) };
	plot->y = (PlotAxis){ .start = (double) plot->head.height - MARGIN_BOTTOM,
						  .length = -((double) plot->head.height - MARGIN_BOTTOM - MARGIN_TOP) };
	if (plot->x.length < 1)
		plot->x.length = 1;
	if (e.count == 0)
		e = (PlotExtent){ .x_high = 1, .y_high = 1 };
	set_range(&plot->x, e.x_low, e.x_high, 0);
	/* A 0 now and then does not show on it, but does not forbid it. */
	plot->y.log = e.count > 0 && e.positive * 100 >= e.count * 99 && e.y_low >= 0 &&
				  e.y_high > LOG_SPREAD * e.y_positive;
	if (plot->y.log)
		set_range(&plot->y, log10(fmax(e.y_positive, e.y_high / LOG_RANGE)), log10(e.y_high), 0.04);
	else
		set_range(&plot->y, e.y_low, e.y_high, 0.04);
}

/* 1, 2 or 5 times a power of ten: about `wanted` steps. */
static double
tick_step(double range, double wanted)
{
	double rough = range / wanted;
	double power = pow(10, floor(log10(rough)));
	double digit = rough / power;

	return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void
format_number(double value, char *text, size_t size)
{
	if (fabs(value) >= 1e6 && fabs(value) < 1e9)
		snprintf(text, size, "%.6gM", value / 1e6);
	else if (fabs(value) >= 1e4 && fabs(value) < 1e6)
		snprintf(text, size, "%.6gk", value / 1e3);
	else
		snprintf(text, size, "%.4g", value);
}

/* ---- Drawing ------------------------------------------------------------- */

/* Its left end, middle or right end (align 0, 0.5, 1) at x. */
static void
draw_text(Plot *plot, const char *text, double x, double y, double align)
{
	cairo_move_to(plot->cairo, x - align * plot_text_width(plot->cairo, text), y);
	cairo_show_text(plot->cairo, text);
}

/* What of it fits into `width`. */
static void
draw_fitted(Plot *plot, const char *text, double x, double y, double align, double width)
{
	char fitted[PLOT_TEXT_BYTES];

	snprintf(fitted, sizeof(fitted), "%s", text);
	plot_text_fit(plot->cairo, fitted, width);
	draw_text(plot, fitted, x, y, align);
}

static void
draw_line(Plot *plot, double x0, double y0, double x1, double y1, double gray)
{
	cairo_set_source_rgb(plot->cairo, gray, gray, gray);
	cairo_set_line_width(plot->cairo, 1);
	/* Through the middle of pixels, so that it is one of them wide. */
	cairo_move_to(plot->cairo, floor(x0) + 0.5, floor(y0) + 0.5);
	cairo_line_to(plot->cairo, floor(x1) + 0.5, floor(y1) + 0.5);
	cairo_stroke(plot->cairo);
}

static void
draw_tick(Plot *plot, const PlotAxis *axis, double value)
{
	double bottom = plot->y.start;
	double right = plot->x.start + plot->x.length;
	double at = on_plot_axis(axis, value);
	char text[32];

	format_number(value, text, sizeof(text));
	if (axis == &plot->x)
		draw_line(plot, at, bottom, at, bottom + plot->y.length, 0.9);
	else
		draw_line(plot, plot->x.start, at, right, at, 0.9);
	cairo_set_source_rgb(plot->cairo, 0.2, 0.2, 0.2);
	if (axis == &plot->x)
		draw_text(plot, text, at, bottom + FONT_SIZE + 5, 0.5);
	else
		draw_text(plot, text, plot->x.start - 6, at + FONT_SIZE * 0.35, 1);
}

static void
draw_ticks(Plot *plot, const PlotAxis *axis)
{
	static const int digits[] = { 1, 2, 5 };
	double step, first;

	if (!axis->log)
	{
		step = tick_step(axis->to - axis->from, plot_clamp(fabs(axis->length) / 80, 2, MAX_TICKS));
		first = ceil(axis->from / step) * step;
		/* counted, because a step may be too small to change a large value */
		for (int i = 0; i <= MAX_TICKS && first + i * step <= axis->to + step * 1e-9; i++)
			draw_tick(plot, axis, fabs(first + i * step) < step * 1e-9 ? 0 : first + i * step);
		return;
	}
	for (int decade = (int) floor(axis->from); decade <= (int) ceil(axis->to); decade++)
		for (int i = 0; i < (axis->to - axis->from < 3.5 ? 3 : 1); i++)
		{
			double value = digits[i] * pow(10, decade);

			if (log10(value) >= axis->from && log10(value) <= axis->to)
				draw_tick(plot, axis, value);
		}
}

static void
draw_frame(Plot *plot)
{
	double left = plot->x.start, right = left + plot->x.length, bottom = plot->y.start,
		   top = bottom + plot->y.length;
	const char *label = plot->y.log ? "loss (logarithmic)" : "loss";

	cairo_set_source_rgb(plot->cairo, 1, 1, 1);
	cairo_paint(plot->cairo);
	draw_ticks(plot, &plot->x);
	draw_ticks(plot, &plot->y);
	draw_line(plot, left, bottom, right, bottom, 0.2);
	draw_line(plot, left, bottom, left, top, 0.2);
	cairo_set_source_rgb(plot->cairo, 0.1, 0.1, 0.1);
	draw_text(plot, "iteration", (left + right) / 2, bottom + 2 * FONT_SIZE + 12, 0.5);
	draw_fitted(plot, plot->head.title, (left + right) / 2, top - 12, 0.5,
				2 * fmin((left + right) / 2, plot->head.width - (left + right) / 2) - 2 * AIR);
	cairo_save(plot->cairo);
	cairo_translate(plot->cairo, FONT_SIZE + 2, (top + bottom) / 2);
	cairo_rotate(plot->cairo, -M_PI / 2);
	draw_text(plot, label, 0, 0, 0.5);
	cairo_restore(plot->cairo);
}

/* The line so far, and what is gathered for the present column. */
typedef struct PlotPen
{
	long column;
	double x, y; /* sums of positions */
	int n;
	int drawn;
} PlotPen;

static void
pen_flush(Plot *plot, PlotPen *pen)
{
	double x, y;

	if (pen->n == 0)
		return;
	x = pen->x / pen->n;
	y = pen->y / pen->n;
	if (pen->drawn == 0)
		cairo_move_to(plot->cairo, x, y);
	/* also where it began: a line of one point is a dot */
	cairo_line_to(plot->cairo, x, y);
	pen->drawn++;
	pen->n = 0;
	pen->x = pen->y = 0;
}

static void
draw_series(Plot *plot, const PlotSeries *series, const double colour[3], bool dashed)
{
	static const double dashes[] = { 1, 4 };
	PlotPen pen = { 0 };

	for (uint32_t i = 0; i < series->npoints; i++)
	{
		BicyclePoint p;
		double x;

		if (!plot_point(series, i, &p) || (plot->y.log && p.y <= 0))
			continue;
		x = on_plot_axis(&plot->x, p.x);
		if (pen.n > 0 && (long) x != pen.column)
			pen_flush(plot, &pen);
		pen.column = (long) x;
		pen.x += x;
		pen.y += on_plot_axis(&plot->y, p.y);
		pen.n++;
	}
	pen_flush(plot, &pen);
	cairo_set_source_rgb(plot->cairo, colour[0], colour[1], colour[2]);
	cairo_set_line_width(plot->cairo, 1.5);
	cairo_set_line_cap(plot->cairo, CAIRO_LINE_CAP_ROUND);
	cairo_set_line_join(plot->cairo, CAIRO_LINE_JOIN_ROUND);
	cairo_set_dash(plot->cairo, dashes, dashed ? 2 : 0, 0);
	cairo_stroke(plot->cairo);
}

static void
draw_curves(Plot *plot)
{
	double left = plot->x.start + plot->x.length + 14,
		   text = plot->x.start + plot->x.length + LEGEND_TEXT;
	bool empty = true;

	for (uint32_t i = 0; i < plot->head.series; i++)
	{
		const PlotSeries *series = &plot->series[i];
		const double *colour = colours[i % NCOLOURS];
		double y = MARGIN_TOP + (i + 0.5) * (FONT_SIZE + 8);

		if (series->npoints == 0)
			continue;
		empty = false;
		/* a colour's second series: both can be told apart */
		draw_series(plot, series, colour, i >= NCOLOURS);
		cairo_set_line_width(plot->cairo, 3);
		cairo_move_to(plot->cairo, left, y);
		cairo_line_to(plot->cairo, left + 18, y);
		cairo_stroke(plot->cairo);
		cairo_set_dash(plot->cairo, NULL, 0, 0);
		cairo_set_source_rgb(plot->cairo, 0.1, 0.1, 0.1);
		draw_fitted(plot, series->name, text, y + FONT_SIZE * 0.35, 0,
					plot->head.width - text - AIR);
	}
	cairo_set_source_rgb(plot->cairo, 0.5, 0.5, 0.5);
	if (empty)
		draw_text(plot, "no losses yet", plot->x.start + plot->x.length / 2,
				  plot->y.start + plot->y.length / 2, 0.5);
}

/* ---- The picture --------------------------------------------------------- */

/* 32 bits a pixel: unused, red, green, blue. */
static PlotStatus
encode_surface(cairo_surface_t *surface, uint8_t **png, size_t *length, PlotError *error)
{
	Image image = { .width = cairo_image_surface_get_width(surface),
					.height = cairo_image_surface_get_height(surface),
					.channels = 3 };
	size_t stride = (size_t) cairo_image_surface_get_stride(surface);
	const uint8_t *pixels = cairo_image_surface_get_data(surface);
	ImageError image_error;
	ImageStatus status;

	image.pixels = malloc((size_t) image.width * (size_t) image.height * 3);
	if (image.pixels == NULL)
		return plot_fail_memory(error);
	for (int y = 0; y < image.height; y++)
		for (int x = 0; x < image.width; x++)
		{
			uint8_t *out = image.pixels + ((size_t) y * (size_t) image.width + (size_t) x) * 3;
			uint32_t word;

			memcpy(&word, pixels + (size_t) y * stride + (size_t) x * sizeof(word), sizeof(word));
			out[0] = (uint8_t) (word >> 16);
			out[1] = (uint8_t) (word >> 8);
			out[2] = (uint8_t) word;
		}
	status = image_encode_png(&image, png, length, &image_error);
	image_free(&image);
	if (status == IMAGE_OK)
		return PLOT_OK;
	return plot_fail(error, status == IMAGE_ENOMEM ? PLOT_ENOMEM : PLOT_EFAILED,
					 image_error.message, "%s", image_error.detail);
}

PlotStatus
plot_draw(Plot *plot, uint8_t **png, size_t *length, PlotError *error)
{
	cairo_surface_t *surface = cairo_image_surface_create(
		CAIRO_FORMAT_RGB24, (int) plot->head.width, (int) plot->head.height);
	cairo_status_t cairo;
	PlotStatus status;

	*png = NULL;
	plot->cairo = cairo_create(surface);
	plot_text_begin(plot->cairo);
	make_axes(plot);
	draw_frame(plot);
	draw_curves(plot);
	cairo_surface_flush(surface);
	cairo = cairo_status(plot->cairo);
	if (cairo == CAIRO_STATUS_SUCCESS)
		status = encode_surface(surface, png, length, error);
	else
		status = plot_fail(error, cairo == CAIRO_STATUS_NO_MEMORY ? PLOT_ENOMEM : PLOT_EFAILED,
						   "could not draw a plot", "The cairo library reported: %s.",
						   cairo_status_to_string(cairo));
	cairo_destroy(plot->cairo);
	cairo_surface_destroy(surface);
	return status;
}

/* ---- The whole ----------------------------------------------------------- */

PlotStatus
plot_read(const uint8_t *bytes, size_t length, uint64_t max_pixels, Plot **plot, PlotError *error)
{
	Plot *p = calloc(1, sizeof(*p));
	PlotStatus status;

	*plot = NULL;
	if (p == NULL)
		return plot_fail_memory(error);
	status = read_series(p, bytes, length, error);
	if (status == PLOT_OK && (uint64_t) p->head.width * p->head.height > max_pixels)
		status = plot_fail(error, PLOT_ELIMIT, "plot has too many pixels",
						   "It has %u x %u, and %llu are allowed.", p->head.width, p->head.height,
						   (unsigned long long) max_pixels);
	if (status == PLOT_OK)
		*plot = p;
	else
		free(p);
	return status;
}

size_t
plot_bytes(const Plot *plot)
{
	return (size_t) plot->head.width * plot->head.height * PIXEL_BYTES;
}

unsigned
plot_width(const Plot *plot)
{
	return plot->head.width;
}

unsigned
plot_height(const Plot *plot)
{
	return plot->head.height;
}

void
plot_free(Plot *plot)
{
	free(plot);
}

void
plot_forget(void)
{
	cairo_debug_reset_static_data();
	FcFini();
}
