/*
 * fuzz_format.h
 *	  Reads one input as a model file; what is read must be readable to its last
 *	  byte, obey the limits, and survive being written and read again.
 */
#ifndef BICYCLE_FUZZ_FORMAT_H
#define BICYCLE_FUZZ_FORMAT_H

#include "fuzz.h"
#include "format/format.h"

#include <zlib.h>

typedef FormatStatus (*FormatWriter)(const NnTensor *, int, uint8_t **, size_t *, FormatError *);

static inline uint32_t
checksum(const FormatFile *file)
{
	uint32_t crc = 0;

	for (int i = 0; i < file->ntensors; i++)
	{
		crc = (uint32_t) crc32_z(crc, (const uint8_t *) file->tensors[i].name,
								 strlen(file->tensors[i].name));
		crc = (uint32_t) crc32_z(crc, file->tensors[i].data, file->tensors[i].nbytes);
	}
	return crc;
}

/* Entering a file that was read leaves some of its tensors, or says why not. */
static inline void
enter_input(const uint8_t *bytes, size_t length, bool choose)
{
	FormatFile file;
	FormatError error;
	char entry[300] = "";
	int all;

	DEMAND(format_read(bytes, length, &file, &error) == FORMAT_OK);
	if (choose && file.ntensors > 0)
	{
		char *dot;

		snprintf(entry, sizeof(entry), "%s", file.tensors[file.ntensors - 1].name);
		dot = strchr(entry, '.');
		if (dot != NULL)
			*dot = '\0';
	}
	all = file.ntensors;
	if (format_enter(&file, choose ? entry : NULL, "G", &error) == FORMAT_OK)
	{
		DEMAND(file.ntensors <= all);
		checksum(&file);
	}
	else
	{
		demand_error(error.message, error.detail);
		DEMAND(error.code == FORMAT_ECHOICE && strlen(error.hint) < sizeof(error.hint));
	}
	format_free(&file);
}

static inline void
read_input(const uint8_t *bytes, size_t length, FormatWriter write)
{
	FormatFile file, again;
	FormatError error;
	uint8_t *written;
	size_t written_length, total = 0;

	if (format_read(bytes, length, &file, &error) != FORMAT_OK)
	{
		demand_error(error.message, error.detail);
		DEMAND(file.tensors == NULL && file.owned == NULL && error.code != FORMAT_ENOMEM);
		return;
	}
	for (int i = 0; i < file.ntensors; i++)
		total += file.tensors[i].nbytes;
	DEMAND(total <= 4 * length + (1 << 20));
	DEMAND(write(file.tensors, file.ntensors, &written, &written_length, &error) == FORMAT_OK);
	DEMAND(format_read(written, written_length, &again, &error) == FORMAT_OK);
	DEMAND(again.ntensors == file.ntensors && checksum(&again) == checksum(&file));
	format_free(&again);
	free(written);
	format_free(&file);
	enter_input(bytes, length, false);
	enter_input(bytes, length, true);
}

#endif /* BICYCLE_FUZZ_FORMAT_H */
