/*
 * error.c
 *	  Filling an NnError.
 */
#include "nn/graph.h"

#include <stdarg.h>
#include <stdio.h>

NnStatus
nn_fail(NnError *error, NnStatus code, const char *message, ...)
{
	va_list		args;

	if (!error)
		return code;
	error->code = code;
	error->detail[0] = error->hint[0] = '\0';
	va_start(args, message);
	vsnprintf(error->message, sizeof(error->message), message, args);
	va_end(args);
	return code;
}

void
nn_detail(NnError *error, const char *detail, ...)
{
	va_list		args;

	if (!error)
		return;
	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
}

void
nn_hint(NnError *error, const char *hint, ...)
{
	va_list		args;

	if (!error)
		return;
	va_start(args, hint);
	vsnprintf(error->hint, sizeof(error->hint), hint, args);
	va_end(args);
}

NnStatus
nn_no_memory(NnError *error, size_t bytes)
{
	nn_fail(error, NN_ENOMEM, "out of memory");
	nn_detail(error, "Failed on a request of %zu bytes.", bytes);
	return NN_ENOMEM;
}
