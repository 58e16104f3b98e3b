/*
 * grid.h
 *	  Many images on one white page, with a line of text below each.
 *
 * A grid is read, its size compared with what its caller may take, and drawn:
 *
 *	 grid_read -> grid_bytes -> grid_draw -> grid_free
 *
 * No function keeps state; all may run on any thread at once.
 */
#ifndef BICYCLE_PLOT_GRID_H
#define BICYCLE_PLOT_GRID_H

#include "image/image.h"
#include "plot/plot.h"

#include "common/protocol.h"

typedef struct Grid Grid;

/* An image that could not be used, and whose cell is empty. */
typedef struct GridBad
{
	uint32_t cell; /* from 0 on */
	ImageError error;
} GridBad;

/*
 * Checks a BicycleGrid with its cells (common/protocol.h), which must stay
 * where it is while there is the grid, reads the images' headers, and finds the
 * layout. flags: ImageFlags. max_pixels is of the page, and of each image.
 * *grid is NULL unless PLOT_OK is returned, and the caller's to free.
 */
extern PlotStatus grid_read(const uint8_t *bytes, size_t length, uint64_t max_pixels,
							unsigned flags, Grid **grid, PlotError *error);

/* What grid_draw takes at most: what a caller reserves beforehand. */
extern size_t grid_bytes(const Grid *grid);
extern int grid_width(const Grid *grid);
extern int grid_height(const Grid *grid);

/*
 * Once a grid. Calls `progress` at least at each row of an image, and stops
 * with PLOT_EFAILED where `wanted(arg)`, asked between images, is false. *image
 * is in colour, all zeros unless PLOT_OK is returned, and the caller's to free.
 */
extern PlotStatus grid_draw(Grid *grid, void (*progress)(void), bool (*wanted)(void *arg),
							void *arg, Image *image, PlotError *error);

/* How many images could not be used, and the first GRID_REASONS of them. */
extern uint32_t grid_bad(const Grid *grid, const GridBad **first);

extern void grid_free(Grid *grid); /* may be NULL */

#endif /* BICYCLE_PLOT_GRID_H */
