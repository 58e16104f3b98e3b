/*
 * pth_zip.c
 *	  The layout of torch.save since version 1.6: a zip archive NAME/ with
 *	  data.pkl, byteorder, version and data/KEY for each storage, nothing
 *	  compressed.
 *
 * The central directory decides; of a local header only the lengths of its name
 * and padding are used, because torch leaves its sizes and checksum at zero and
 * writes them behind the data. Checksums are verified: a storage has no other
 * protection against damage. After torch.serialization.set_crc32_options(False)
 * torch writes 0 for each of them; an archive in which all are 0 has none, and
 * is read like the legacy layout, which never had any. Sources: PKWARE APPNOTE
 * 4.3, 4.5.3 (ZIP64); torch/serialization.py;
 * caffe2/serialize/inline_container.cc.
 */
#include "common/invariant.h"
#include "format/foreign.h"
#include "format/pth.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define MAX_ENTRIES (2 * FORMAT_MAX_TENSORS)
#define END_BYTES 22 /* end of central directory, without its comment */
#define END64_BYTES 56
#define LOCATOR_BYTES 20
#define ENTRY_BYTES 46 /* of the central directory, without its variable parts */
#define LOCAL_BYTES 30

typedef struct ZipEntry
{
	FormatText name;
	uint16_t flags, method;
	uint32_t crc;
	uint64_t packed, size, local; /* offset of its local header */
} ZipEntry;

typedef struct Zip
{
	FormatBuilder *builder;
	ZipEntry *entries; /* sorted by name, malloc'ed */
	size_t nentries;
	uint64_t directory; /* where the central directory starts: the end of all data */
	uint64_t directory_bytes;
	bool summed;      /* an entry has a checksum: so have all */
	uint64_t checked; /* bytes of all entries opened so far */
	FormatText root;  /* NAME, without the slash */
} Zip;

static FormatStatus
zip_fail(const Zip *zip, const char *what)
{
	return format_fail(zip->builder->error, FORMAT_EINVALID, "Its zip archive %s.", what);
}

static FormatStatus
zip_fail_entry(const Zip *zip, const ZipEntry *entry, const char *what)
{
	return format_fail(zip->builder->error, FORMAT_EINVALID,
					   "Entry \"%.*s\" of its zip archive %s.", FORMAT_TEXT(entry->name), what);
}

/* ---- The directory ------------------------------------------------------- */

/* Searches backwards for a record whose comment ends with the file. */
static bool
find_zip_end(const FormatBuilder *builder, size_t *end)
{
	const uint8_t *bytes = builder->bytes;

	for (size_t comment = 0; comment <= UINT16_MAX && comment + END_BYTES <= builder->length;
		 comment++)
	{
		size_t at = builder->length - END_BYTES - comment;

		if (memcmp(bytes + at, "PK\5\6", 4) == 0 && format_u16(bytes + at + 20) == comment)
		{
			*end = at;
			return true;
		}
	}
	return false;
}

/* Reads the two end records; *limit is where the directory must have ended. */
static FormatStatus
read_zip_end(Zip *zip, uint64_t *nentries, uint64_t *limit)
{
	const uint8_t *bytes = zip->builder->bytes;
	size_t end;

	if (!find_zip_end(zip->builder, &end))
		return zip_fail(zip, "has no end record");
	*limit = end;
	*nentries = format_u16(bytes + end + 10);
	zip->directory_bytes = format_u32(bytes + end + 12);
	zip->directory = format_u32(bytes + end + 16);
	if (end >= LOCATOR_BYTES && memcmp(bytes + end - LOCATOR_BYTES, "PK\6\7", 4) == 0)
	{
		uint64_t at = format_u64(bytes + end - LOCATOR_BYTES + 8);

		if (end - LOCATOR_BYTES < END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES ||
			memcmp(bytes + at, "PK\6\6", 4) != 0)
			return zip_fail(zip, "has a damaged ZIP64 end record");
		*limit = at;
		*nentries = format_u64(bytes + at + 32);
		zip->directory_bytes = format_u64(bytes + at + 40);
		zip->directory = format_u64(bytes + at + 48);
	}
	if (zip->directory > *limit || zip->directory_bytes > *limit - zip->directory)
		return zip_fail(zip, "has a directory that reaches beyond its end");
	return FORMAT_OK;
}

/* 64-bit values replace, in this order, those given as all ones. */
static bool
read_zip64(ZipEntry *entry, const uint8_t *extra, size_t length)
{
	uint64_t *wanted[3] = { &entry->size, &entry->packed, &entry->local };

	while (length >= 4)
	{
		size_t n = format_u16(extra + 2);
		const uint8_t *field = extra + 4;

		if (n > length - 4)
			return false;
		if (format_u16(extra) == 1)
		{
			size_t left = n;

			for (int i = 0; i < 3; i++)
				if (*wanted[i] == UINT32_MAX)
				{
					if (left < 8)
						return false;
					*wanted[i] = format_u64(field);
					field += 8;
					left -= 8;
				}
			return true;
		}
		extra += 4 + n;
		length -= 4 + n;
	}
	return true;
}

/* One record of the directory; *length is what it takes. */
static FormatStatus
read_zip_entry(const Zip *zip, const uint8_t *at, uint64_t left, ZipEntry *entry, uint64_t *length)
{
	size_t name, extra;

	if (left < ENTRY_BYTES || memcmp(at, "PK\1\2", 4) != 0)
		return zip_fail(zip, "has a damaged directory");
	name = format_u16(at + 28);
	extra = format_u16(at + 30);
	*length = ENTRY_BYTES + name + extra + format_u16(at + 32);
	if (*length > left)
		return zip_fail(zip, "has a damaged directory");
	entry->flags = format_u16(at + 8);
	entry->method = format_u16(at + 10);
	entry->crc = format_u32(at + 16);
	entry->packed = format_u32(at + 20);
	entry->size = format_u32(at + 24);
	entry->local = format_u32(at + 42);
	entry->name = (FormatText){ (const char *) at + ENTRY_BYTES, name };
	if (!read_zip64(entry, at + ENTRY_BYTES + name, extra))
		return zip_fail_entry(zip, entry, "has a damaged ZIP64 field");
	return FORMAT_OK;
}

static int
compare_entries(const void *a, const void *b)
{
	return format_text_compare(((const ZipEntry *) a)->name, ((const ZipEntry *) b)->name);
}

static FormatStatus
read_directory(Zip *zip)
{
	uint64_t n = 0, limit = 0, at = 0;

	if (read_zip_end(zip, &n, &limit) != FORMAT_OK)
		return zip->builder->error->code;
	if (n > MAX_ENTRIES)
		return format_fail(zip->builder->error, FORMAT_ELIMIT,
						   "Its zip archive has %llu entries, the limit is %d.",
						   (unsigned long long) n, MAX_ENTRIES);
	zip->entries = calloc(n + 1, sizeof(ZipEntry));
	if (zip->entries == NULL)
		return format_fail_memory(zip->builder->error, (n + 1) * sizeof(ZipEntry));
	for (zip->nentries = 0; zip->nentries < n; zip->nentries++)
	{
		uint64_t length = 0;

		if (read_zip_entry(zip, zip->builder->bytes + zip->directory + at,
						   zip->directory_bytes - at, &zip->entries[zip->nentries],
						   &length) != FORMAT_OK)
			return zip->builder->error->code;
		at += length;
		zip->summed |= zip->entries[zip->nentries].crc != 0;
		INVARIANT(at <= zip->directory_bytes);
	}
	qsort(zip->entries, zip->nentries, sizeof(ZipEntry), compare_entries);
	for (size_t i = 1; i < zip->nentries; i++)
		if (compare_entries(&zip->entries[i - 1], &zip->entries[i]) == 0)
			return zip_fail_entry(zip, &zip->entries[i], "occurs twice");
	return FORMAT_OK;
}

/* ---- Entries ------------------------------------------------------------- */

/* ROOT/folder + name, or NULL. */
static const ZipEntry *
find_entry(const Zip *zip, const char *folder, FormatText name)
{
	char path[512];
	size_t folder_length = strlen(folder);
	ZipEntry wanted = { .name = { path, zip->root.length + 1 + folder_length + name.length } };

	if (name.length > sizeof(path) || zip->root.length > sizeof(path) ||
		wanted.name.length > sizeof(path))
		return NULL;
	memcpy(path, zip->root.at, zip->root.length);
	path[zip->root.length] = '/';
	memcpy(path + zip->root.length + 1, folder, folder_length);
	memcpy(path + zip->root.length + 1 + folder_length, name.at, name.length);
	return bsearch(&wanted, zip->entries, zip->nentries, sizeof(ZipEntry), compare_entries);
}

/* The bytes of an entry, after every check that the archive allows. */
static FormatStatus
open_entry(Zip *zip, const ZipEntry *entry, const uint8_t **data)
{
	const uint8_t *bytes = zip->builder->bytes;
	uint64_t start;

	if (entry->flags & 1)
		return zip_fail_entry(zip, entry, "is encrypted");
	if (entry->method != 0 || entry->packed != entry->size)
		return zip_fail_entry(zip, entry, "is compressed, which torch.save never does");
	if (entry->local > zip->directory || zip->directory - entry->local < LOCAL_BYTES ||
		memcmp(bytes + entry->local, "PK\3\4", 4) != 0)
		return zip_fail_entry(zip, entry, "has no local header");
	start = entry->local + LOCAL_BYTES + format_u16(bytes + entry->local + 26) +
			format_u16(bytes + entry->local + 28);
	if (start > zip->directory || entry->size > zip->directory - start)
		return zip_fail_entry(zip, entry, "reaches into the directory");
	/* Entries on top of each other would make checksums cost too much. */
	INVARIANT(zip->checked <= zip->builder->length);
	if (entry->size > zip->builder->length - zip->checked)
		return zip_fail_entry(zip, entry, "overlaps another");
	zip->checked += entry->size;
	if (zip->summed && crc32_z(0, bytes + start, entry->size) != entry->crc)
		return zip_fail_entry(zip, entry, "has a wrong checksum");
	*data = bytes + start;
	return FORMAT_OK;
}

/* The archive's folder is the one with a data.pkl at its top. */
static const ZipEntry *
find_pickle(Zip *zip)
{
	static const char suffix[] = "/data.pkl";
	size_t n = sizeof(suffix) - 1;

	for (size_t i = 0; i < zip->nentries; i++)
	{
		FormatText name = zip->entries[i].name;

		if (name.length > n && memcmp(name.at + name.length - n, suffix, n) == 0 &&
			memchr(name.at, '/', name.length - n) == NULL)
		{
			zip->root = (FormatText){ name.at, name.length - n };
			return &zip->entries[i];
		}
	}
	return NULL;
}

/* Older files have no such entry and were always little-endian. */
static FormatStatus
check_byteorder(Zip *zip)
{
	const ZipEntry *entry = find_entry(zip, "", (FormatText){ "byteorder", 9 });
	const uint8_t *data;

	if (entry == NULL)
		return FORMAT_OK;
	if (open_entry(zip, entry, &data) != FORMAT_OK)
		return zip->builder->error->code;
	if (entry->size != 6 || memcmp(data, "little", 6) != 0)
		return format_fail(zip->builder->error, FORMAT_EINVALID,
						   "It was not written on a little-endian machine.");
	return FORMAT_OK;
}

static FormatStatus
find_storages(Zip *zip, const PthStorages *storages)
{
	for (size_t i = 0; i < storages->n; i++)
	{
		PthStorage *storage = &storages->at[i];
		const ZipEntry *entry = find_entry(zip, "data/", storage->key);

		if (entry == NULL)
			return format_fail(zip->builder->error, FORMAT_EINVALID, "Storage \"%.*s\" is missing.",
							   FORMAT_TEXT(storage->key));
		if (storage->element->width > 0 && entry->size != storage->bytes)
			return zip_fail_entry(zip, entry, "does not have the size that its tensors say");
		if (open_entry(zip, entry, &storage->data) != FORMAT_OK)
			return zip->builder->error->code;
	}
	return FORMAT_OK;
}

/* A program: constants beside the pickle, or, before 1.4, a model.json. */
static bool
is_torchscript(const Zip *zip, const ZipEntry *pickle)
{
	static const char old[] = "/model.json";
	size_t n = sizeof(old) - 1;

	if (pickle != NULL)
		return find_entry(zip, "", (FormatText){ "constants.pkl", 13 }) != NULL;
	for (size_t i = 0; i < zip->nentries; i++)
	{
		FormatText name = zip->entries[i].name;

		if (name.length > n && memcmp(name.at + name.length - n, old, n) == 0)
			return true;
	}
	return false;
}

static FormatStatus
read_object(Zip *zip)
{
	const ZipEntry *entry = find_pickle(zip);
	const uint8_t *data;
	Pickle pickle;
	PthStorages storages = { 0 };
	FormatStatus status;

	if (is_torchscript(zip, entry))
		return foreign_torchscript(zip->builder);
	if (entry == NULL)
		return zip_fail(zip, "has no data.pkl: it is not a PyTorch file");
	if (check_byteorder(zip) != FORMAT_OK || open_entry(zip, entry, &data) != FORMAT_OK)
		return zip->builder->error->code;
	if (pickle_read(data, entry->size, (size_t) (data - zip->builder->bytes), &pickle,
					zip->builder->error) != FORMAT_OK)
		return zip->builder->error->code;
	status = pth_storages(&pickle, &storages, zip->builder->error);
	if (status == FORMAT_OK)
		status = find_storages(zip, &storages);
	if (status == FORMAT_OK)
		status = pth_add_tensors(zip->builder, &pickle, &storages);
	free(storages.at);
	pickle_free(&pickle);
	return status;
}

FormatStatus
format_read_zip(FormatBuilder *builder)
{
	Zip zip = { .builder = builder };
	FormatStatus status = read_directory(&zip);

	if (status == FORMAT_OK)
		status = read_object(&zip);
	free(zip.entries);
	return status;
}
