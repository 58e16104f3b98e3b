/*
 * run_preview.c
 *	  What the owner of a job gets to see of it: sheets of samples, and the
 *	  watch on their diversity.
 *
 * A sheet shows the same rows of the data each time, a row of the sheet each:
 * input A, the true B, its reconstruction G(A, E(B)) where there is an encoder,
 * and samples G(A, z) under latent codes that never change, so that two sheets
 * differ by what was learnt between them and nothing else.
 *
 * The watch looks for collapse, the failure that users of this method fear
 * most: samples of one input that no longer depend on z. It measures what
 * validation's val_diversity is, over all pairs of RUN_PREVIEW_SAMPLES codes
 * and over the rows of the sheet. A network that has just been initialised
 * ignores z as well, so the watch starts after a tenth of the run and
 * WATCH_FROM iterations at least; it speaks up, once, when WATCH_LOOKS looks in
 * a row, WATCH_EVERY iterations apart, have found less than WATCH_THRESHOLD.
 *
 * Everything runs on the device thread, which alone uses the fit; a RunPreview
 * owns its images, codes and look.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/run_feed.h"
#include "engine/run_preview.h"

#define WATCH_EVERY 250 /* iterations: a look costs about as much as three of them, or less */
#define WATCH_FROM 1000
#define WATCH_LOOKS 2
#define WATCH_THRESHOLD BICYCLE_COLLAPSE

/* Of nn_normal: weights' are smaller, iterations' have the highest bit. */
#define PREVIEW_STREAM (UINT64_C(1) << 62)
#define SHEET_BORDER 2

/* The rows are decoded at the networks' size, as at inference. */
bool
run_preview_open(RunPreview *preview, Engine *engine, const RunData *data, const NnConfig *config,
				 uint64_t seed, EngineError *error)
{
	int channels[2] = { config->input_nc, config->output_nc };

	preview->samples = config->nz > 0 ? RUN_PREVIEW_SAMPLES : 1;
	preview->z = calloc((size_t) preview->samples * (size_t) config->nz + 1, sizeof(float));
	if (preview->z == NULL)
		return error_memory(error, "previews");
	if (!run_look_open(&preview->look, config, preview->samples, RUN_PREVIEW_ROWS, error))
		return false;
	for (int i = 0; i < preview->samples; i++)
		nn_normal(seed, PREVIEW_STREAM | (uint64_t) i, config->nz,
				  preview->z + (size_t) i * (size_t) config->nz);
	while (preview->rows < RUN_PREVIEW_ROWS && preview->rows < data->npairs)
	{
		/* They are ordered by hash, so the first are as good as any. */
		Image images[2];

		if (!run_feed_decode(engine, data, &data->pairs[preview->rows], channels, config->size,
							 images, error))
			return false;
		preview->input[preview->rows] = images[0];
		preview->truth[preview->rows] = images[1];
		preview->rows++;
	}
	return true;
}

void
run_preview_free(RunPreview *preview)
{
	for (int i = 0; i < preview->rows; i++)
	{
		image_free(&preview->input[i]);
		image_free(&preview->truth[i]);
	}
	run_look_free(&preview->look);
	free(preview->z);
}

/* Looks at the rows from `first` on; how many it can at once. */
static int
look_at_rows(RunPreview *preview, int first)
{
	RunLook *look = &preview->look;
	size_t code = (size_t) look->config->nz;
	int n = run_look_begin(look, preview->rows - first);

	for (int i = 0; i < n; i++)
	{
		run_look_at(look, i, preview->input[first + i].pixels, preview->truth[first + i].pixels);
		for (int k = 0; k < preview->samples; k++)
			memcpy(run_look_code(look, i, k), preview->z + (size_t) k * code, code * sizeof(float));
	}
	return n;
}

/* ---- The watch ----------------------------------------------------------- */

/* Mean pairwise difference of the samples of one input, over all rows. */
static bool
measure(RunPreview *preview, NnFit *fit, double *diversity, EngineError *error)
{
	int n;

	*diversity = 0;
	for (int row = 0; row < preview->rows; row += n)
	{
		n = look_at_rows(preview, row);
		if (!run_look_sample(&preview->look, fit, error))
			return false;
		for (int i = 0; i < n; i++)
			*diversity += run_look_diversity(&preview->look, i);
	}
	*diversity /= preview->rows;
	return true;
}

bool
run_preview_watches(const RunPreview *preview, int64_t iteration, int64_t iterations)
{
	return preview->samples >= 2 && !preview->noted && iteration % WATCH_EVERY == 0 &&
		   iteration >= WATCH_FROM && iteration >= iterations / 10;
}

bool
run_preview_watch(RunPreview *preview, NnFit *fit, int64_t iteration, int64_t iterations,
				  double *diversity, bool *collapsed, EngineError *error)
{
	*collapsed = false;
	if (!run_preview_watches(preview, iteration, iterations))
		return true;
	if (!measure(preview, fit, diversity, error))
		return false;
	preview->collapsed = *diversity < WATCH_THRESHOLD ? preview->collapsed + 1 : 0;
	*collapsed = preview->noted = preview->collapsed == WATCH_LOOKS;
	return true;
}

/* ---- Sheets -------------------------------------------------------------- */

/* What is made of a row: its reconstruction, if there is one, and samples. */
typedef struct RowTiles
{
	Image image[1 + RUN_PREVIEW_SAMPLES]; /* the sheet's to free */
	int n;
} RowTiles;

/* An image of row i of the look as the next tile of a row of the sheet. */
static bool
add_tile(const RunLook *look, int i, int sample, RowTiles *row, EngineError *error)
{
	Image *tile = &row->image[row->n];
	size_t bytes;

	*tile = (Image){ .width = look->config->size,
					 .height = look->config->size,
					 .channels = look->config->output_nc };
	bytes = (size_t) tile->width * (size_t) tile->height * (size_t) tile->channels;
	tile->pixels = malloc(bytes);
	if (tile->pixels == NULL)
		return error_memory(error, "a preview");
	memcpy(tile->pixels, run_look_image(look, i, sample), bytes);
	row->n++;
	return true;
}

/* Those of all rows that are looked at; what was made is there on failure. */
static bool
make_tiles(RunPreview *preview, NnFit *fit, RowTiles *rows, EngineError *error)
{
	RunLook *look = &preview->look;
	bool encoder = look->config->net_e != NN_ENCODER_NONE;

	if (encoder && !run_look_reconstruct(look, fit, error))
		return false;
	for (int i = 0; encoder && i < look->n; i++)
		if (!add_tile(look, i, 0, &rows[i], error))
			return false;
	if (!run_look_sample(look, fit, error))
		return false;
	for (int i = 0; i < look->n; i++)
		for (int k = 0; k < look->samples; k++)
			if (!add_tile(look, i, k, &rows[i], error))
				return false;
	return true;
}

static bool
encode_sheet(const Image *tiles, int ntiles, int columns, uint8_t **png, size_t *length,
			 EngineError *error)
{
	ImageError image_error;
	Image sheet;
	bool good;

	good = image_contact_sheet(tiles, ntiles, columns, SHEET_BORDER, &sheet, &image_error) ==
			   IMAGE_OK &&
		   image_encode_png(&sheet, png, length, &image_error) == IMAGE_OK;
	image_free(&sheet);
	if (!good)
		error_from_image(error, &image_error);
	return good;
}

bool
run_preview_sheet(RunPreview *preview, NnFit *fit, uint8_t **png, size_t *length,
				  EngineError *error)
{
	Image tiles[RUN_PREVIEW_ROWS * (3 + RUN_PREVIEW_SAMPLES)];
	RowTiles made[RUN_PREVIEW_ROWS] = { 0 };
	int n = 0;
	bool good = true;

	for (int row = 0; row < preview->rows && good; row += preview->look.n)
	{
		(void) look_at_rows(preview, row);
		good = make_tiles(preview, fit, &made[row], error);
	}
	for (int row = 0; row < preview->rows; row++)
	{
		tiles[n++] = preview->input[row];
		tiles[n++] = preview->truth[row];
		for (int i = 0; i < made[row].n; i++)
			tiles[n++] = made[row].image[i];
	}
	good = good && encode_sheet(tiles, n, 2 + made[0].n, png, length, error);
	for (int row = 0; row < preview->rows; row++)
		for (int i = 0; i < made[row].n; i++)
			image_free(&made[row].image[i]);
	return good;
}
