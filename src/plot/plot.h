/*
 * plot.h
 *	  Curves over iterations as a PNG.
 *
 * A plot is read, its size compared with what its caller may take, and drawn:
 *
 *	 plot_read -> plot_bytes -> plot_draw -> plot_free
 *
 * No function keeps state; all but plot_forget may run on any thread at once.
 * Cairo and fontconfig keep caches of their own in the process.
 */
#ifndef BICYCLE_PLOT_H
#define BICYCLE_PLOT_H

#include <stddef.h>
#include <stdint.h>

typedef enum PlotStatus
{
	PLOT_OK = 0,
	PLOT_EMALFORMED, /* not what BicyclePlot says (SQLSTATE 08P01) */
	PLOT_ESIZE,      /* width or height out of range (22023) */
	PLOT_ELIMIT,     /* more pixels than are allowed (54000) */
	PLOT_ENOMEM,     /* out of memory (53200) */
	PLOT_EFAILED     /* cairo could not draw it (58000) */
} PlotStatus;

typedef struct PlotError
{
	PlotStatus code;
	char message[128]; /* lower case, no full stop */
	char detail[256];  /* a sentence */
} PlotError;

typedef struct Plot Plot;

/*
 * Checks a BicyclePlot with its series (common/protocol.h), which must stay
 * where it is while there is the plot. *plot is NULL unless PLOT_OK is
 * returned, and the caller's to free.
 */
extern PlotStatus plot_read(const uint8_t *bytes, size_t length, uint64_t max_pixels, Plot **plot,
							PlotError *error);

/* What plot_draw takes at most: what a caller reserves beforehand. */
extern size_t plot_bytes(const Plot *plot);
extern unsigned plot_width(const Plot *plot);
extern unsigned plot_height(const Plot *plot);

/* Once a plot. *png is malloc'ed, and NULL unless PLOT_OK is returned. */
extern PlotStatus plot_draw(Plot *plot, uint8_t **png, size_t *length, PlotError *error);

extern void plot_free(Plot *plot); /* may be NULL */

/* Frees what the libraries keep. At the end, when no thread draws. */
extern void plot_forget(void);

#endif /* BICYCLE_PLOT_H */
