/*
 * fuzz_plot.c
 *	  What a PLOT request holds, with a picture small enough to draw many of
 *	  them.
 */
#include "fuzz.h"
#include "plot/plot.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	PlotError error;
	Plot *plot;
	uint8_t *png;
	size_t png_length;

	if (plot_read(bytes, length, 200 * 200, &plot, &error) != PLOT_OK)
	{
		DEMAND(plot == NULL && error.code != PLOT_OK);
		demand_error(error.message, error.detail);
		return 0;
	}
	DEMAND(plot_draw(plot, &png, &png_length, &error) == PLOT_OK);
	DEMAND(png_length > 8 && memcmp(png, "\x89PNG", 4) == 0);
	plot_free(plot);
	free(png);
	return 0;
}
