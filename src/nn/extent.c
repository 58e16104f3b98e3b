/*
 * extent.c
 *	  Sizes of images that a generator, or what compares images, can run at.
 *	  Pure functions.
 */
#include "nn/nn.h"

/* Halves go up. */
static int64_t
nearest_multiple(int side, int unit)
{
	int64_t n = ((int64_t) side + unit / 2) / unit;

	return (n > 0 ? n : 1) * unit;
}

bool
nn_extent_fit(const NnConfig *config, int width, int height, NnExtent *extent)
{
	int unit = config->metric != NN_METRIC_NONE ? 1 : 1 << config->levels;
	int64_t w = nearest_multiple(width, unit), h = nearest_multiple(height, unit);
	int64_t longer = width > height ? width : height, shorter = width > height ? height : width;

	if (shorter < 1 || (longer > NN_MAX_RATIO * shorter && config->metric == NN_METRIC_NONE) ||
		w > NN_MAX_SIDE || h > NN_MAX_SIDE)
		return false;
	*extent = (NnExtent){ .h = (int) h, .w = (int) w };
	return nn_extent_suits(config, *extent);
}

bool
nn_extent_suits(const NnConfig *config, NnExtent extent)
{
	bool metric = config->metric != NN_METRIC_NONE;
	int unit = metric ? 1 : 1 << config->levels, least = metric ? nn_metric_least(config) : unit;

	return extent.h >= least && extent.w >= least && extent.h % unit == 0 && extent.w % unit == 0 &&
		   extent.h <= NN_MAX_SIDE && extent.w <= NN_MAX_SIDE &&
		   (int64_t) extent.h * extent.w <= (metric ? nn_metric_most(config) : NN_MAX_AREA);
}
