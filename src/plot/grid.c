/*
 * grid.c
 *	  Many images on one white page (grid.h).
 *
 * Each image is brought to its cell, a square, by Pillow's bicubic filter; it
 * keeps its proportions and stands in the middle. What cannot be decoded leaves
 * its cell empty, and is counted. Only one image is decoded at a time, so a
 * page takes its own pixels, and the most that one of its images does.
 *
 * A Grid is made by grid_read and points into its bytes; pixels and cairo's
 * objects live within grid_draw. No locks, no state between calls.
 */
#include <cairo/cairo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot/grid.h"
#include "plot/plot_error.h"
#include "plot/text.h"

#define CHANNELS 3
#define GAP 2            /* white pixels before, between and after cells */
#define LABEL_HEIGHT 18  /* below a cell */
#define LABEL_BASE 13    /* of the letters, from the top of it */
#define DEFAULT_SIDE 256 /* of a cell, at most, where none is given */

/* One cell; its bytes lie in the given ones. */
typedef struct GridCell
{
	const uint8_t *file; /* NULL: there is no image */
	const uint8_t *label;
	uint32_t file_length, label_length;
} GridCell;

/* What is left of the cells: they are read one by one, each time they are. */
typedef struct GridCursor
{
	const uint8_t *at;
	size_t left;
} GridCursor;

struct Grid
{
	GridCursor cells;
	uint32_t ncells, columns;
	int side, step_x, step_y; /* of a cell; from one to the next */
	int width, height;
	bool labelled;
	unsigned flags;
	uint64_t max_pixels, page_pixels; /* allowed, of an image and of the page */
	size_t decode;                    /* what the largest image takes */

	uint32_t nbad;
	GridBad bad[BICYCLE_GRID_REASONS];
};

/* ---- Reading ------------------------------------------------------------- */

static PlotStatus
grid_malformed(PlotError *error, const char *detail)
{
	return plot_fail(error, PLOT_EMALFORMED, "grid is not well-formed", "%s", detail);
}

/* Takes `length` bytes from what is left. */
static bool
take_bytes(GridCursor *cursor, uint32_t length, const uint8_t **bytes)
{
	if (length > cursor->left)
		return false;
	*bytes = cursor->at;
	cursor->at += length;
	cursor->left -= length;
	return true;
}

/* False if it is cut off. */
static bool
next_cell(GridCursor *cursor, GridCell *cell)
{
	const uint8_t *bytes;
	BicycleCell head;

	if (!take_bytes(cursor, sizeof(head), &bytes))
		return false;
	memcpy(&head, bytes, sizeof(head));
	cell->file = NULL;
	cell->file_length = head.image_length == BICYCLE_NO_IMAGE ? 0 : head.image_length;
	cell->label_length = head.label_length;
	return (head.image_length == BICYCLE_NO_IMAGE ||
			take_bytes(cursor, head.image_length, &cell->file)) &&
		   take_bytes(cursor, head.label_length, &cell->label);
}

/*
 * The size of an image, as it will stand. False if there is none, or none that
 * can be decoded, which then says why.
 */
static bool
cell_size(const Grid *grid, const GridCell *cell, ImageInfo *info, int *width, int *height)
{
	ImageError unused;

	if (cell->file == NULL ||
		image_info(cell->file, cell->file_length, info, &unused) != IMAGE_OK ||
		(uint64_t) info->width * (uint64_t) info->height > grid->max_pixels)
		return false;
	image_decoded_size(info, grid->flags, width, height);
	return true;
}

static int
longer_side(int width, int height)
{
	return width > height ? width : height;
}

/* A side of an image whose longer one becomes that of the cell. */
static int
scaled(int side, int longer, int to)
{
	int64_t pixels = ((int64_t) side * to + longer / 2) / longer;

	return pixels < 1 ? 1 : (int) pixels;
}

/* The longest side of all images. Fails if there are not so many cells. */
static PlotStatus
read_cells(const Grid *grid, int *longest, PlotError *error)
{
	GridCursor cursor = grid->cells;

	*longest = 1;
	for (uint32_t i = 0; i < grid->ncells; i++)
	{
		GridCell cell;
		ImageInfo info;
		int width, height;

		if (!next_cell(&cursor, &cell))
			return grid_malformed(error, "A cell is cut off.");
		if (cell_size(grid, &cell, &info, &width, &height) && longer_side(width, height) > *longest)
			*longest = longer_side(width, height);
	}
	return cursor.left == 0 ? PLOT_OK : grid_malformed(error, "It is longer than its cells.");
}

/* What decoding an image and bringing it to its cell takes, at most. */
static size_t
most_for_an_image(const Grid *grid)
{
	GridCursor cursor = grid->cells;
	size_t most = 0;

	for (uint32_t i = 0; i < grid->ncells; i++)
	{
		GridCell cell;
		ImageInfo info;
		int width, height;
		size_t decode, resize;

		if (!next_cell(&cursor, &cell) || !cell_size(grid, &cell, &info, &width, &height))
			continue;
		decode = image_decode_bytes(&info, CHANNELS, grid->flags);
		resize = image_resize_bytes(width, height, CHANNELS,
									scaled(width, longer_side(width, height), grid->side),
									scaled(height, longer_side(width, height), grid->side));
		decode = decode > SIZE_MAX - resize ? SIZE_MAX : decode + resize;
		most = decode > most ? decode : most;
	}
	return most;
}

/* How wide or high a page is in pixels; these cannot overflow. */
static uint64_t
extent_of(uint32_t cells, int step)
{
	return (uint64_t) cells * (uint64_t) step + GAP;
}

/* About as many columns as rows. */
static uint32_t
square_columns(uint32_t cells)
{
	uint32_t columns = 1;

	while ((uint64_t) columns * columns < cells)
		columns++;
	return columns;
}

static PlotStatus
grid_too_large(const Grid *grid, uint64_t width, uint64_t height, PlotError *error)
{
	return plot_fail(error, PLOT_ELIMIT, "grid has too many pixels",
					 "%u cells of %d pixels in %u columns make %llu x %llu; %llu pixels are "
					 "allowed, and %d on a side.",
					 grid->ncells, grid->side, grid->columns, (unsigned long long) width,
					 (unsigned long long) height, (unsigned long long) grid->page_pixels,
					 BICYCLE_GRID_MAX_EXTENT);
}

static PlotStatus
grid_lay_out(Grid *grid, PlotError *error)
{
	uint64_t rows = (grid->ncells - 1) / grid->columns + 1, width, height;

	grid->step_x = grid->side + GAP;
	grid->step_y = grid->step_x + (grid->labelled ? LABEL_HEIGHT : 0);
	width = extent_of(grid->columns, grid->step_x);
	height = extent_of((uint32_t) rows, grid->step_y);
	if (width > BICYCLE_GRID_MAX_EXTENT || height > BICYCLE_GRID_MAX_EXTENT ||
		width * height > grid->page_pixels)
		return grid_too_large(grid, width, height, error);
	grid->width = (int) width;
	grid->height = (int) height;
	return PLOT_OK;
}

/* First at the least size: what is too large for it is not looked at. */
static PlotStatus
read_grid(Grid *grid, const BicycleGrid *head, PlotError *error)
{
	PlotStatus status;
	int longest;

	grid->ncells = head->cells;
	grid->columns = head->columns > 0 ? head->columns : square_columns(head->cells);
	if (grid->columns > grid->ncells)
		grid->columns = grid->ncells;
	grid->labelled = head->labelled == 1;
	grid->side = head->size > 0 ? (int) head->size : BICYCLE_GRID_MIN_SIDE;
	status = grid_lay_out(grid, error);
	if (status == PLOT_OK)
		status = read_cells(grid, &longest, error);
	if (status != PLOT_OK)
		return status;
	if (head->size == 0 && longest > grid->side)
		grid->side = longest < DEFAULT_SIDE ? longest : DEFAULT_SIDE;
	status = grid_lay_out(grid, error);
	grid->decode = most_for_an_image(grid);
	return status;
}

PlotStatus
grid_read(const uint8_t *bytes, size_t length, uint64_t max_pixels, unsigned flags, Grid **grid,
		  PlotError *error)
{
	BicycleGrid head;
	PlotStatus status;
	Grid *g;

	*grid = NULL;
	if (length < sizeof(head))
		return grid_malformed(error, "It is cut off.");
	memcpy(&head, bytes, sizeof(head));
	if (head.cells == 0 || (head.size > 0 && head.size < BICYCLE_GRID_MIN_SIDE) ||
		head.size > BICYCLE_GRID_MAX_SIDE || head.labelled > 1)
		return grid_malformed(error, "Its header is damaged.");
	g = calloc(1, sizeof(*g));
	if (g == NULL)
		return plot_fail_memory(error);
	g->flags = flags;
	g->max_pixels = max_pixels;
	g->page_pixels = max_pixels < BICYCLE_GRID_MAX_PIXELS ? max_pixels : BICYCLE_GRID_MAX_PIXELS;
	g->cells = (GridCursor){ bytes + sizeof(head), length - sizeof(head) };
	status = read_grid(g, &head, error);
	if (status == PLOT_OK)
		*grid = g;
	else
		free(g);
	return status;
}

/* ---- Cells --------------------------------------------------------------- */

/* White page and the place of a cell on it. */
typedef struct GridPage
{
	Image image;
	cairo_surface_t *strip; /* for a label */
	cairo_t *cairo;
	ImageLimits limits;
} GridPage;

static uint8_t *
page_at(const GridPage *page, int x, int y)
{
	return page->image.pixels + ((size_t) y * (size_t) page->image.width + (size_t) x) * CHANNELS;
}

static void
cell_place(const Grid *grid, uint32_t i, int *x, int *y)
{
	*x = GAP + (int) (i % grid->columns) * grid->step_x;
	*y = GAP + (int) (i / grid->columns) * grid->step_y;
}

/* Decodes an image and brings it to a cell's size; out is the caller's. */
static ImageStatus
decode_cell(const Grid *grid, const GridPage *page, const GridCell *cell, Image *out,
			ImageError *error)
{
	Image decoded;
	int longer, width, height;
	ImageStatus status;

	status = image_decode(cell->file, cell->file_length, CHANNELS, grid->flags, &page->limits,
						  &decoded, error);
	if (status != IMAGE_OK)
		return status;
	longer = longer_side(decoded.width, decoded.height);
	width = scaled(decoded.width, longer, grid->side);
	height = scaled(decoded.height, longer, grid->side);
	if (width == decoded.width && height == decoded.height)
	{
		*out = decoded;
		return IMAGE_OK;
	}
	page->limits.progress();
	status = image_resize(&decoded, width, height, out, error);
	image_free(&decoded);
	return status;
}

static void
put_image(const Grid *grid, const GridPage *page, uint32_t i, const Image *image)
{
	int x, y;

	cell_place(grid, i, &x, &y);
	x += (grid->side - image->width) / 2;
	y += (grid->side - image->height) / 2;
	for (int row = 0; row < image->height; row++)
		memcpy(page_at(page, x, y + row),
			   image->pixels + (size_t) row * (size_t) image->width * CHANNELS,
			   (size_t) image->width * CHANNELS);
}

/* Text is drawn in a strip of its own, and is gray: one channel does. */
static void
put_label(const Grid *grid, const GridPage *page, uint32_t i, const GridCell *cell)
{
	size_t length = cell->label_length;
	char text[PLOT_TEXT_BYTES];
	size_t stride;
	const uint8_t *pixels;
	int x, y;

	if (length > sizeof(text) - 4)
		for (length = sizeof(text) - 4; length > 0 && (cell->label[length] & 0xc0) == 0x80;)
			length--;
	memcpy(text, cell->label, length);
	text[length] = '\0';
	plot_text_clean(text);
	plot_text_fit(page->cairo, text, grid->side);
	cairo_set_source_rgb(page->cairo, 1, 1, 1);
	cairo_paint(page->cairo);
	cairo_set_source_rgb(page->cairo, 0.1, 0.1, 0.1);
	cairo_move_to(page->cairo, (grid->side - plot_text_width(page->cairo, text)) / 2, LABEL_BASE);
	cairo_show_text(page->cairo, text);
	cairo_surface_flush(page->strip);
	stride = (size_t) cairo_image_surface_get_stride(page->strip);
	pixels = cairo_image_surface_get_data(page->strip);
	cell_place(grid, i, &x, &y);
	for (int row = 0; row < LABEL_HEIGHT && pixels != NULL; row++)
		for (int column = 0; column < grid->side; column++)
		{
			uint32_t word;

			memcpy(&word, pixels + (size_t) row * stride + (size_t) column * sizeof(word),
				   sizeof(word));
			memset(page_at(page, x + column, y + grid->side + row), (int) (word & 255), CHANNELS);
		}
}

/* False if memory is short; what else is wrong with an image is counted. */
static bool
draw_cell(Grid *grid, const GridPage *page, uint32_t i, const GridCell *cell)
{
	Image image = { 0 };
	ImageError error;
	ImageStatus status;

	if (cell->file != NULL)
	{
		status = decode_cell(grid, page, cell, &image, &error);
		if (status == IMAGE_ENOMEM)
			return false;
		if (status == IMAGE_OK)
			put_image(grid, page, i, &image);
		else if (grid->nbad++ < BICYCLE_GRID_REASONS)
			grid->bad[grid->nbad - 1] = (GridBad){ .cell = i, .error = error };
		image_free(&image);
	}
	if (cell->label_length > 0 && grid->labelled)
		put_label(grid, page, i, cell);
	return true;
}

/* ---- The page ------------------------------------------------------------ */

static PlotStatus
page_open(const Grid *grid, GridPage *page, PlotError *error)
{
	size_t bytes = (size_t) grid->width * (size_t) grid->height * CHANNELS;

	page->image = (Image){ grid->width, grid->height, CHANNELS, malloc(bytes) };
	if (page->image.pixels == NULL)
		return plot_fail_memory(error);
	memset(page->image.pixels, 255, bytes);
	page->strip = cairo_image_surface_create(CAIRO_FORMAT_RGB24, grid->side, LABEL_HEIGHT);
	page->cairo = cairo_create(page->strip);
	plot_text_begin(page->cairo);
	return PLOT_OK;
}

static void
page_close(GridPage *page)
{
	image_free(&page->image);
	cairo_destroy(page->cairo);
	cairo_surface_destroy(page->strip);
}

/* Whether all labels have been drawn. */
static PlotStatus
page_status(const GridPage *page, PlotError *error)
{
	cairo_status_t cairo = cairo_status(page->cairo);

	if (cairo == CAIRO_STATUS_NO_MEMORY)
		return plot_fail_memory(error);
	if (cairo != CAIRO_STATUS_SUCCESS)
		return plot_fail(error, PLOT_EFAILED, "could not draw a label",
						 "The cairo library reported: %s.", cairo_status_to_string(cairo));
	return PLOT_OK;
}

static PlotStatus
draw_all(Grid *grid, const GridPage *page, bool (*wanted)(void *arg), void *arg, PlotError *error)
{
	GridCursor cursor = grid->cells;
	GridCell cell;

	for (uint32_t i = 0; i < grid->ncells && next_cell(&cursor, &cell); i++)
	{
		page->limits.progress();
		if (!wanted(arg))
			return plot_fail(error, PLOT_EFAILED, "grid is no longer wanted",
							 "%u of %u cells were done.", i, grid->ncells);
		if (!draw_cell(grid, page, i, &cell))
			return plot_fail_memory(error);
	}
	return PLOT_OK;
}

PlotStatus
grid_draw(Grid *grid, void (*progress)(void), bool (*wanted)(void *arg), void *arg, Image *image,
		  PlotError *error)
{
	GridPage page = { .limits = { .max_pixels = grid->max_pixels,
								  .max_memory = grid->decode,
								  .progress = progress } };
	PlotStatus status;

	*image = (Image){ 0 };
	status = page_open(grid, &page, error);
	if (status == PLOT_OK)
		status = draw_all(grid, &page, wanted, arg, error);
	if (status == PLOT_OK)
		status = page_status(&page, error);
	if (status == PLOT_OK)
	{
		*image = page.image;
		page.image.pixels = NULL;
	}
	page_close(&page);
	return status;
}

/* ---- The whole ----------------------------------------------------------- */

size_t
grid_bytes(const Grid *grid)
{
	size_t page = (size_t) grid->width * (size_t) grid->height * CHANNELS;

	page += (size_t) grid->side * LABEL_HEIGHT * 4;
	return page > SIZE_MAX - grid->decode ? SIZE_MAX : page + grid->decode;
}

int
grid_width(const Grid *grid)
{
	return grid->width;
}

int
grid_height(const Grid *grid)
{
	return grid->height;
}

uint32_t
grid_bad(const Grid *grid, const GridBad **first)
{
	*first = grid->bad;
	return grid->nbad;
}

void
grid_free(Grid *grid)
{
	free(grid);
}
