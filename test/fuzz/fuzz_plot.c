/*
 * fuzz_plot.c
 *	  What a PLOT request holds, with a picture small enough to draw many of
 *	  them.
 */
#include "fuzz.h"
#include "engine/engine.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static DecodeBudget budget = { .lock = PTHREAD_MUTEX_INITIALIZER,
								   .wake = PTHREAD_COND_INITIALIZER,
								   .limit = 1 << 30 };
	EngineError error;
	uint8_t *png;
	size_t png_length;

	if (plot_draw(&budget, bytes, length, 200 * 200, &png, &png_length, &error))
		DEMAND(png_length > 8 && memcmp(png, "\x89PNG", 4) == 0);
	else
		DEMAND(png == NULL && error.sqlstate[0] != '\0' && error.message[0] != '\0');
	DEMAND(budget.used == 0);
	free(png);
	return 0;
}
