/*
 * worker_grid.c
 *	  A task of the pool: many images on one page.
 *
 * R1 A page has one thread and is one request, whatever it shows. So it asks
 *    the decoders' budget once, for all that it takes at a time, and looks
 *    between images whether it is still wanted.
 * R2 Images that cannot be used are part of the answer: the client says what
 *    becomes of the rest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "plot/grid.h"

#define WEBP_BYTES 13 /* for a byte of pixels, as was measured of noise */

static bool
grid_wanted(void *request)
{
	return request_is_wanted(request);
}

static void
pack_bad_cell(const GridBad *bad, BicycleBadCell *cell)
{
	EngineError error;
	const char *texts[3] = { error.message, error.detail, error.hint };

	error_from_image(&error, &bad->error);
	memset(cell, 0, sizeof(*cell));
	cell->cell = bad->cell;
	snprintf(cell->sqlstate, sizeof(cell->sqlstate), "%s", error.sqlstate);
	for (int i = 0; i < 3; i++)
		snprintf(cell->text[i], sizeof(cell->text[i]), "%s", texts[i]);
}

/* The page behind what is said of its images. */
static void
pack_answer(Request *request, const Grid *grid, const uint8_t *page, size_t length)
{
	const GridBad *bad;
	BicycleGridDone done = { .bad = grid_bad(grid, &bad) };
	BicycleBadCell cells[BICYCLE_GRID_REASONS];
	size_t said;

	done.reported = done.bad < BICYCLE_GRID_REASONS ? done.bad : BICYCLE_GRID_REASONS;
	for (uint32_t i = 0; i < done.reported; i++)
		pack_bad_cell(&bad[i], &cells[i]);
	said = done.reported * sizeof(cells[0]);
	request->result = malloc(sizeof(done) + said + length);
	if (request->result == NULL)
	{
		error_memory(&request->error, "an answer");
		return;
	}
	memcpy(request->result, &done, sizeof(done));
	memcpy(request->result + sizeof(done), cells, said);
	memcpy(request->result + sizeof(done) + said, page, length);
	request->result_length = sizeof(done) + said + length;
}

/* What drawing the page and writing it takes at most. */
static size_t
page_bytes(const Request *request, const Grid *grid)
{
	bool webp = request->image.output_format == BICYCLE_OUTPUT_WEBP ||
				request->image.output_format == BICYCLE_OUTPUT_WEBP_LOSSLESS;
	size_t file = (size_t) grid_width(grid) * (size_t) grid_height(grid) * 3 *
				  (webp ? WEBP_BYTES : WORKER_FILE_BYTES);
	size_t drawn = grid_bytes(grid);

	return drawn > SIZE_MAX - file ? SIZE_MAX : drawn + file;
}

static void
draw_grid(Request *request, Grid *grid)
{
	DecodeBudget *budget = &request->engine->decoders;
	size_t bytes = page_bytes(request, grid), length;
	PlotError error;
	Image image;
	uint8_t *page;

	if (!decode_take(budget, bytes))
	{
		error_engine_memory(&request->error,
							"A grid of %d x %d pixels and its images take %zu bytes, more than "
							"all decoders together may take.",
							grid_width(grid), grid_height(grid), bytes);
		return;
	}
	if (grid_draw(grid, executor_progress, grid_wanted, request, &image, &error) != PLOT_OK)
		error_from_plot(&request->error, &error);
	else
	{
		if (worker_encode_pixels(request, &image, &page, &length, &request->error))
			pack_answer(request, grid, page, length);
		free(page);
		image_free(&image);
	}
	decode_release(budget, bytes);
}

void
worker_grid(Request *request)
{
	unsigned flags = request->image.flags & BICYCLE_FLAG_EXIF ? IMAGE_UPRIGHT : 0;
	PlotError error;
	Grid *grid;

	if (grid_read(request->file, request->image.image_length, request->image.max_pixels, flags,
				  &grid, &error) != PLOT_OK)
	{
		error_from_plot(&request->error, &error);
		return;
	}
	draw_grid(request, grid);
	grid_free(grid);
}
