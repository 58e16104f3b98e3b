/*
 * output.c
 *	  The growing buffer that model files are written into.
 *
 * Appending never fails visibly: after an allocation has failed the buffer
 * stays failed, and format_output_done says so once. Until then the buffer is
 * the writer's, afterwards the caller's.
 */
#include "common/invariant.h"
#include "format/format_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
reserve(FormatOutput *output, size_t length)
{
	size_t needed, capacity;
	uint8_t *bytes = NULL;

	if (output->failed)
		return false;
	INVARIANT(output->length <= output->capacity);
	if (!__builtin_add_overflow(output->length, length, &needed) && needed <= output->capacity)
		return true;
	/* half as much again, or 4 kB */
	if (!__builtin_add_overflow(needed, needed / 2 + 4096, &capacity) && capacity <= PTRDIFF_MAX)
		bytes = realloc(output->bytes, capacity);
	if (bytes == NULL)
	{
		output->failed = true;
		return false;
	}
	output->bytes = bytes;
	output->capacity = capacity;
	return true;
}

void
format_put(FormatOutput *output, const void *bytes, size_t length)
{
	if (length > 0 && reserve(output, length))
	{
		memcpy(output->bytes + output->length, bytes, length);
		output->length += length;
	}
}

void
format_put_zeros(FormatOutput *output, size_t length)
{
	if (length > 0 && reserve(output, length))
	{
		memset(output->bytes + output->length, 0, length);
		output->length += length;
	}
}

void
format_put_u8(FormatOutput *output, uint8_t value)
{
	format_put(output, &value, sizeof(value));
}

void
format_put_u16(FormatOutput *output, uint16_t value)
{
	format_put(output, &value, sizeof(value));
}

void
format_put_u32(FormatOutput *output, uint32_t value)
{
	format_put(output, &value, sizeof(value));
}

void
format_put_u64(FormatOutput *output, uint64_t value)
{
	format_put(output, &value, sizeof(value));
}

void
format_put_printed(FormatOutput *output, const char *text, ...)
{
	char printed[64];
	va_list args;
	int n;

	va_start(args, text);
	n = vsnprintf(printed, sizeof(printed), text, args);
	va_end(args);
	INVARIANT(n >= 0 && (size_t) n < sizeof(printed));
	format_put(output, printed, (size_t) n);
}

FormatStatus
format_output_done(FormatOutput *output, uint8_t **bytes, size_t *length, FormatError *error)
{
	if (output->failed)
	{
		free(output->bytes);
		return format_fail_memory(error, output->length);
	}
	*bytes = output->bytes;
	*length = output->length;
	return FORMAT_OK;
}
