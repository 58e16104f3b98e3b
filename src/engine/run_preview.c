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
 * most: samples of one input that no longer depend on z. It measures the mean
 * absolute difference between two samples of one input, as the bytes that a
 * session would get, over all pairs of RUN_PREVIEW_SAMPLES codes and over the
 * rows of the sheet, in the networks' range [-1, 1]. A network that has just
 * been initialised ignores z as well, so the watch starts after a tenth of the
 * run and WATCH_FROM iterations at least; it speaks up, once, when WATCH_LOOKS
 * looks in a row, WATCH_EVERY iterations apart, have found less than
 * WATCH_THRESHOLD.
 *
 * Everything runs on the device thread, which alone uses the fit; a RunPreview
 * owns its images and arrays.
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

static size_t
pixels(const RunPreview *preview)
{
	return (size_t) preview->config->size * (size_t) preview->config->size;
}

static bool
allocate_preview(RunPreview *preview)
{
	size_t samples = (size_t) preview->samples;
	size_t nz = (size_t) preview->config->nz;

	preview->a = calloc(samples * (size_t) preview->config->input_nc, pixels(preview));
	preview->b = calloc((size_t) preview->config->output_nc * pixels(preview), sizeof(float));
	preview->out = calloc(samples * (size_t) preview->config->output_nc, pixels(preview));
	preview->z = calloc(samples * nz + 1, sizeof(float));
	preview->mu = calloc(2 * nz + 1, sizeof(float));
	return preview->a != NULL && preview->b != NULL && preview->out != NULL && preview->z != NULL &&
		   preview->mu != NULL;
}

/* The rows are decoded at the networks' size, as at inference. */
bool
run_preview_open(RunPreview *preview, Engine *engine, const RunData *data, const NnConfig *config,
				 uint64_t seed, EngineError *error)
{
	int channels[2] = { config->input_nc, config->output_nc };

	preview->config = config;
	preview->samples = config->nz > 0 ? RUN_PREVIEW_SAMPLES : 1;
	if (!allocate_preview(preview))
		return error_memory(error, "previews");
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
	free(preview->a);
	free(preview->b);
	free(preview->out);
	free(preview->z);
	free(preview->mu);
}

/* Samples of one row into preview->out. */
static bool
sample(RunPreview *preview, NnFit *fit, int row, EngineError *error)
{
	size_t count = pixels(preview) * (size_t) preview->config->input_nc;
	NnError nn_error = { 0 };

	for (int i = 0; i < preview->samples; i++)
		memcpy(preview->a + (size_t) i * count, preview->input[row].pixels, count);
	if (nn_fit_translate_bytes(fit, preview->samples, preview->a, preview->z, preview->out,
							   &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

/* ---- The watch ----------------------------------------------------------- */

/* Of bytes, in the networks' range. */
static double
mean_difference(const uint8_t *x, const uint8_t *y, size_t count)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += (uint64_t) abs((int) x[i] - (int) y[i]);
	return (double) sum / 127.5 / (double) count;
}

/* Mean pairwise difference of the samples of one input, over all rows. */
static bool
measure(RunPreview *preview, NnFit *fit, double *diversity, EngineError *error)
{
	size_t count = pixels(preview) * (size_t) preview->config->output_nc;
	int n = 0;

	*diversity = 0;
	for (int row = 0; row < preview->rows; row++)
	{
		if (!sample(preview, fit, row, error))
			return false;
		for (int i = 0; i < preview->samples; i++)
			for (int j = i + 1; j < preview->samples; j++, n++)
				*diversity += mean_difference(preview->out + (size_t) i * count,
											  preview->out + (size_t) j * count, count);
	}
	*diversity /= n;
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

/* Copies an image into a tile; it is the sheet's to free. */
static bool
add_tile(const RunPreview *preview, const uint8_t *bytes, Image *tile, EngineError *error)
{
	size_t count = pixels(preview) * (size_t) preview->config->output_nc;

	*tile = (Image){ .width = preview->config->size,
					 .height = preview->config->size,
					 .channels = preview->config->output_nc,
					 .pixels = malloc(count) };
	if (tile->pixels == NULL)
		return error_memory(error, "a preview");
	memcpy(tile->pixels, bytes, count);
	return true;
}

/* G(A, E(B)) of a row into preview->out. */
static bool
reconstruct(RunPreview *preview, NnFit *fit, int row, EngineError *error)
{
	float *logvar = preview->mu + preview->config->nz;
	NnError nn_error = { 0 };

	nn_normalise(preview->truth[row].pixels, pixels(preview) * (size_t) preview->config->output_nc,
				 preview->b);
	if (nn_fit_encode(fit, 1, preview->b, preview->mu, logvar, &nn_error) == NN_OK &&
		nn_fit_translate_bytes(fit, 1, preview->input[row].pixels, preview->mu, preview->out,
							   &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

/* A row's computed tiles; *n counts those made, also on failure. */
static bool
make_tiles(RunPreview *preview, NnFit *fit, int row, Image *tiles, int *n, EngineError *error)
{
	size_t count = pixels(preview) * (size_t) preview->config->output_nc;

	*n = 0;
	if (preview->config->net_e != NN_ENCODER_NONE)
	{
		if (!reconstruct(preview, fit, row, error) ||
			!add_tile(preview, preview->out, &tiles[*n], error))
			return false;
		++*n;
	}
	if (!sample(preview, fit, row, error))
		return false;
	for (int i = 0; i < preview->samples; i++)
	{
		if (!add_tile(preview, preview->out + (size_t) i * count, &tiles[*n], error))
			return false;
		++*n;
	}
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
	Image computed[RUN_PREVIEW_ROWS][1 + RUN_PREVIEW_SAMPLES];
	int made[RUN_PREVIEW_ROWS] = { 0 };
	int n = 0;
	bool good = true;

	for (int row = 0; row < preview->rows && good; row++)
	{
		good = make_tiles(preview, fit, row, computed[row], &made[row], error);
		tiles[n++] = preview->input[row];
		tiles[n++] = preview->truth[row];
		for (int i = 0; i < made[row]; i++)
			tiles[n++] = computed[row][i];
	}
	good = good && encode_sheet(tiles, n, 2 + made[0], png, length, error);
	for (int row = 0; row < preview->rows; row++)
		for (int i = 0; i < made[row]; i++)
			image_free(&computed[row][i]);
	return good;
}
