/*
 * pth_write.c
 *	  Writes .pth files in the zip layout, as torch.save would, for torch.load
 *	  with weights_only and the official code's strict load_state_dict.
 *
 * Entries: archive/data.pkl (protocol 2), archive/byteorder, archive/data/N for
 * each tensor, archive/version. Nothing is compressed; the bytes of every entry
 * start at a multiple of 64, padded as torch pads, by an extra field of the
 * local header. No ZIP64: a file of 4 GB or more is refused.
 */
#include "common/invariant.h"
#include "format/format_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define ALIGNMENT 64
#define PADDING_ID 0x4246 /* "FB", as torch writes */
#define LOCAL_BYTES 30
#define PADDING_BYTES 4 /* id and length of an extra field */
#define MAX_NAME 32     /* of an entry */

typedef struct Entry
{
	char name[MAX_NAME];
	uint32_t crc, size, local;
} Entry;

typedef struct Archive
{
	FormatOutput output;
	Entry *entries; /* malloc'ed, room for all */
	int nentries;
} Archive;

/* Of both headers: version 2.0, UTF-8, stored, 1 January 1980. */
static void
put_common(FormatOutput *output, const Entry *entry, uint16_t extra)
{
	format_put_u16(output, 20);
	format_put_u16(output, 0x0800);
	format_put_u16(output, 0);
	format_put_u16(output, 0);
	format_put_u16(output, 0x21);
	format_put_u32(output, entry->crc);
	format_put_u32(output, entry->size);
	format_put_u32(output, entry->size);
	format_put_u16(output, (uint16_t) strlen(entry->name));
	format_put_u16(output, extra);
}

/* The caller has made sure that the archive stays below 4 GB. */
__attribute__((format(printf, 4, 5))) static void
put_entry(Archive *archive, const void *data, size_t size, const char *name, ...)
{
	FormatOutput *output = &archive->output;
	Entry *entry = &archive->entries[archive->nentries++];
	size_t before_data;
	size_t padding;
	va_list args;
	int printed;

	INVARIANT(output->length <= UINT32_MAX && size <= UINT32_MAX);
	va_start(args, name);
	printed = vsnprintf(entry->name, sizeof(entry->name), name, args);
	va_end(args);
	INVARIANT(printed > 0 && (size_t) printed < sizeof(entry->name));
	entry->crc = (uint32_t) crc32_z(0, data, size);
	entry->size = (uint32_t) size;
	entry->local = (uint32_t) output->length;
	before_data = output->length + LOCAL_BYTES + strlen(entry->name) + PADDING_BYTES;
	padding = (ALIGNMENT - before_data % ALIGNMENT) % ALIGNMENT;

	format_put(output, "PK\3\4", 4);
	put_common(output, entry, (uint16_t) (PADDING_BYTES + padding));
	format_put(output, entry->name, strlen(entry->name));
	format_put_u16(output, PADDING_ID);
	format_put_u16(output, (uint16_t) padding);
	format_put_zeros(output, padding);
	format_put(output, data, size);
}

static void
put_directory(Archive *archive)
{
	FormatOutput *output = &archive->output;
	size_t start = output->length;
	size_t length;

	for (int i = 0; i < archive->nentries; i++)
	{
		const Entry *entry = &archive->entries[i];

		format_put(output, "PK\1\2", 4);
		format_put_u16(output, 20);
		put_common(output, entry, 0);
		format_put_zeros(output, 10); /* comment length, disk, attributes */
		format_put_u32(output, entry->local);
		format_put(output, entry->name, strlen(entry->name));
	}
	length = output->length - start;
	format_put(output, "PK\5\6", 4);
	format_put_zeros(output, 4);
	format_put_u16(output, (uint16_t) archive->nentries);
	format_put_u16(output, (uint16_t) archive->nentries);
	format_put_u32(output, (uint32_t) length);
	format_put_u32(output, (uint32_t) start);
	format_put_u16(output, 0);
}

/* ---- The pickle ---------------------------------------------------------- */

static const char *
storage_name(NnDtype dtype)
{
	switch (dtype)
	{
		case NN_F32:
			return "FloatStorage";
		case NN_F64:
			return "DoubleStorage";
		case NN_F16:
			return "HalfStorage";
		case NN_BF16:
			return "BFloat16Storage";
		case NN_I64:
			return "LongStorage";
		case NN_I32:
			return "IntStorage";
		case NN_U8:
			return "ByteStorage";
	}
	return NULL;
}

static void
put_text(FormatOutput *output, const char *text)
{
	format_put_u8(output, 'X');
	format_put_u32(output, (uint32_t) strlen(text));
	format_put(output, text, strlen(text));
}

static void
put_integer(FormatOutput *output, uint64_t value)
{
	if (value <= INT32_MAX)
	{
		format_put_u8(output, 'J');
		format_put_u32(output, (uint32_t) value);
	}
	else
	{
		/* LONG1; below 2^63 as a shape or a count, so the sign bit is clear */
		format_put(output, "\x8a\x08", 2);
		format_put_u64(output, value);
	}
}

/* collections.OrderedDict() */
static void
put_ordered_dict(FormatOutput *output)
{
	static const char call[] = "ccollections\nOrderedDict\n)R";

	format_put(output, call, sizeof(call) - 1);
}

/* _rebuild_tensor_v2(storage N, 0, shape, strides, False, OrderedDict()) */
static void
put_pickled_tensor(FormatOutput *output, const NnTensor *tensor, int number)
{
	static const char rebuild[] = "ctorch._utils\n_rebuild_tensor_v2\n((";
	uint64_t stride[NN_MAX_DIMS];
	uint64_t step = 1;
	char text[64];

	for (int d = tensor->ndim - 1; d >= 0; d--)
	{
		stride[d] = step;
		step *= tensor->shape[d] > 0 ? (uint64_t) tensor->shape[d] : 1;
	}
	format_put(output, rebuild, sizeof(rebuild) - 1);
	put_text(output, "storage");
	format_put_printed(output, "ctorch\n%s\n", storage_name(tensor->dtype));
	snprintf(text, sizeof(text), "%d", number);
	put_text(output, text);
	put_text(output, "cpu");
	put_integer(output, tensor->nbytes / nn_dtype_size(tensor->dtype));
	format_put(output, "tQK\0(", 5);
	for (int d = 0; d < tensor->ndim; d++)
		put_integer(output, (uint64_t) tensor->shape[d]);
	format_put(output, "t(", 2);
	for (int d = 0; d < tensor->ndim; d++)
		put_integer(output, stride[d]);
	format_put(output, "t\x89", 2);
	put_ordered_dict(output);
	format_put(output, "tR", 2);
}

static void
put_pickle(FormatOutput *output, const NnTensor *tensors, int ntensors)
{
	format_put(output, "\x80\x02", 2);
	put_ordered_dict(output);
	format_put_u8(output, '(');
	for (int i = 0; i < ntensors; i++)
	{
		put_text(output, tensors[i].name);
		put_pickled_tensor(output, &tensors[i], i);
	}
	format_put(output, "u.", 2);
}

/* ---- The file ------------------------------------------------------------ */

/* With generous room for headers and padding. */
static bool
fits_32_bits(const FormatOutput *pickle, const NnTensor *tensors, int ntensors)
{
	uint64_t total = pickle->length;

	for (int i = 0; i < ntensors; i++)
		if (__builtin_add_overflow(total, tensors[i].nbytes, &total))
			return false;
	return total < UINT32_MAX - ((uint64_t) ntensors + 16) * 512;
}

static void
put_archive(Archive *archive, const FormatOutput *pickle, const NnTensor *tensors, int ntensors)
{
	put_entry(archive, pickle->bytes, pickle->length, "archive/data.pkl");
	put_entry(archive, "little", 6, "archive/byteorder");
	for (int i = 0; i < ntensors; i++)
		put_entry(archive, tensors[i].data, tensors[i].nbytes, "archive/data/%d", i);
	put_entry(archive, "3\n", 2, "archive/version");
	put_directory(archive);
}

FormatStatus
format_write_pth(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
				 FormatError *error)
{
	Archive archive = { 0 };
	FormatOutput pickle = { 0 };
	FormatStatus status;

	*bytes = NULL;
	*length = 0;
	if (format_check_tensors(tensors, ntensors, error) != FORMAT_OK)
		return error->code;
	put_pickle(&pickle, tensors, ntensors);
	archive.entries = calloc((size_t) ntensors + 3, sizeof(Entry));
	if (archive.entries == NULL || pickle.failed)
		status = format_fail_memory(error, pickle.length);
	else if (!fits_32_bits(&pickle, tensors, ntensors))
		status =
			format_fail_write(error, FORMAT_ELIMIT, "A .pth file of 4 GB or more is not written.");
	else
	{
		put_archive(&archive, &pickle, tensors, ntensors);
		status = format_output_done(&archive.output, bytes, length, error);
	}
	free(archive.entries);
	free(pickle.bytes);
	return status;
}
