/*
 * run_vary.h
 *	  Variations of pairs beyond crop and flip: rotation, scale and colours.
 *
 * No state; any thread.
 */
#ifndef BICYCLE_ENGINE_RUN_VARY_H
#define BICYCLE_ENGINE_RUN_VARY_H

#include "nn/fit.h"

#define VARY_ONE 65536 /* 1 in fixed point */

/* Numbers in units of 1 / VARY_ONE; as they are drawn, and nothing else. */
typedef struct RunVariation
{
	bool turned;          /* the next two are not those of the image as it is */
	int32_t cosine, sine; /* of the angle, by the scale: from result to source */
	bool coloured[2];     /* A, B */
	int32_t brightness, contrast, saturation;
} RunVariation;

/* What a pair gets by the options, of random words that are its own. */
extern RunVariation run_vary_draw(const NnTrainOptions *options, const uint32_t words[8]);

/*
 * The square of `size` whose corner is at (x, y) of a square of `side`, turned
 * about its middle; pixels beyond the border are the border's.
 */
extern void run_vary_turn(const RunVariation *variation, const uint8_t *from, int side,
						  int channels, int x, int y, uint8_t *to, int size);

/* In place. */
extern void run_vary_colour(const RunVariation *variation, uint8_t *pixels, size_t npixels,
							int channels);

#endif /* BICYCLE_ENGINE_RUN_VARY_H */
