/*
 * plot_error.h
 *	  How the files of src/plot fail.
 */
#ifndef BICYCLE_PLOT_ERROR_H
#define BICYCLE_PLOT_ERROR_H

#include "plot/plot.h"

/* The one place that fills a PlotError; returns code. */
__attribute__((format(printf, 4, 5))) extern PlotStatus
plot_fail(PlotError *error, PlotStatus code, const char *message, const char *detail, ...);
extern PlotStatus plot_fail_memory(PlotError *error);

#endif /* BICYCLE_PLOT_ERROR_H */
