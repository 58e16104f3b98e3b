/*
 * plot_error.c
 *	  How the files of src/plot fail.
 */
#include "plot/plot_error.h"

#include <stdarg.h>
#include <stdio.h>

PlotStatus
plot_fail(PlotError *error, PlotStatus code, const char *message, const char *detail, ...)
{
	va_list args;

	error->code = code;
	snprintf(error->message, sizeof(error->message), "%s", message);
	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
	return code;
}

PlotStatus
plot_fail_memory(PlotError *error)
{
	return plot_fail(error, PLOT_ENOMEM, "out of memory",
					 "The engine could not allocate memory for a picture.");
}
