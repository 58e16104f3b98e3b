/*
 * nn_error.c
 *	  Filling an NnError.
 */
#include "nn/nn_error.h"

#include <stdarg.h>
#include <stdio.h>

/*
 * Formats into a fixed buffer. What does not fit is cut off between characters,
 * since names from files and users may be any UTF-8.
 */
static void __attribute__((format(printf, 3, 0)))
format_text(char *text, size_t size, const char *format, va_list args)
{
	size_t end = size - 1;

	if (vsnprintf(text, size, format, args) < (int) size)
		return;
	while (end > 0 && ((unsigned char) text[end - 1] & 0xC0) == 0x80)
		end--;
	if (end > 0 && (unsigned char) text[end - 1] >= 0xC0)
		end--;
	text[end] = '\0';
}

NnStatus
nn_fail(NnError *error, NnStatus code, const char *message, ...)
{
	va_list args;

	if (!error)
		return code;
	error->code = code;
	error->detail[0] = error->hint[0] = '\0';
	va_start(args, message);
	format_text(error->message, sizeof(error->message), message, args);
	va_end(args);
	return code;
}

void
nn_detail(NnError *error, const char *detail, ...)
{
	va_list args;

	if (!error)
		return;
	va_start(args, detail);
	format_text(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
}

void
nn_hint(NnError *error, const char *hint, ...)
{
	va_list args;

	if (!error)
		return;
	va_start(args, hint);
	format_text(error->hint, sizeof(error->hint), hint, args);
	va_end(args);
}

NnStatus
nn_no_memory(NnError *error, size_t bytes)
{
	nn_fail(error, NN_ENOMEM, "out of memory");
	nn_detail(error, "Failed on a request of %zu bytes.", bytes);
	return NN_ENOMEM;
}

NnStatus
nn_fault(FaultKind kind, NnError *error)
{
	NnStatus status = kind == FAULT_ALLOCATION ? NN_ENOMEM : NN_EDEVICE;

	if (!fault_point(kind))
		return NN_OK;
	nn_fail(error, status, "%s", kind == FAULT_ALLOCATION ? "out of memory" : "device failed");
	nn_detail(error, "A test wanted it to.");
	return status;
}
