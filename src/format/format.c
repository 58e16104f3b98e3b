/*
 * format.c
 *	  Model files: which kind it is.
 *
 * No state, no memory of its own.
 */
#include "format/foreign.h"

#include <string.h>

static const uint8_t zip_magic[4] = { 'P', 'K', 3, 4 };

static FormatStatus
check_duplicates(const NnTensor *tensors, int ntensors, FormatError *error)
{
	const char *twice;

	if (!format_find_duplicate(tensors, ntensors, &twice))
		return format_fail_memory(error, (size_t) ntensors * sizeof(char *));
	if (twice != NULL)
		return format_fail(error, FORMAT_EINVALID, "Tensor \"%.100s\" occurs twice.", twice);
	return FORMAT_OK;
}

size_t
format_read_bytes(size_t length)
{
	size_t parsed = length < FORMAT_PARSED_MOST / FORMAT_PARSED_RATIO ? FORMAT_PARSED_RATIO * length
																	  : FORMAT_PARSED_MOST;
	size_t fixed = FORMAT_SLACK + FORMAT_PARSED_LEAST + parsed;

	return length < SIZE_MAX - fixed ? length + fixed : SIZE_MAX;
}

FormatStatus
format_read(const uint8_t *bytes, size_t length, FormatFile *file, FormatError *error)
{
	FormatBuilder builder = { .bytes = bytes, .length = length, .file = file, .error = error };
	FormatStatus status;

	memset(file, 0, sizeof(*file));
	if (format_is_legacy(&builder))
	{
		file->kind = FORMAT_PTH_LEGACY;
		status = format_read_legacy(&builder);
	}
	else if (length >= sizeof(zip_magic) && memcmp(bytes, zip_magic, sizeof(zip_magic)) == 0)
	{
		file->kind = FORMAT_PTH_ZIP;
		status = format_read_zip(&builder);
	}
	else if (length > 8 && bytes[8] == '{')
	{
		file->kind = FORMAT_SAFETENSORS;
		status = format_read_safetensors(&builder);
	}
	else
		status = foreign_bytes(&builder);
	if (status == FORMAT_OK)
		status = check_duplicates(file->tensors, file->ntensors, error);
	if (status != FORMAT_OK)
		format_free(file);
	return status;
}
