/*
 * format_fixture.h
 *	  What the tests of model files share: comparing tensors, and building files
 *	  that no honest program writes.
 */
#ifndef BICYCLE_FORMAT_FIXTURE_H
#define BICYCLE_FORMAT_FIXTURE_H

#include "format/format.h"
#include "tap.h"
#include "testdata.h"

#include <zlib.h>

__attribute__((unused)) static bool
same_tensor(const NnTensor *a, const NnTensor *b)
{
	return strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->ndim == b->ndim &&
		   memcmp(a->shape, b->shape, sizeof(int64_t) * (size_t) a->ndim) == 0 &&
		   a->nbytes == b->nbytes && (a->nbytes == 0 || memcmp(a->data, b->data, a->nbytes) == 0);
}

__attribute__((unused)) static bool
same_tensors(const NnTensor *a, int na, const NnTensor *b, int nb)
{
	if (na != nb)
		return false;
	for (int i = 0; i < na; i++)
		if (!same_tensor(&a[i], &b[i]))
			return false;
	return true;
}

/*
 * Reads every byte of every tensor, for a sanitizer to watch; what it returns
 * keeps a compiler from leaving that out.
 */
__attribute__((unused)) static uint32_t
touch_tensors(const FormatFile *file)
{
	uint32_t crc = 0;

	for (int i = 0; i < file->ntensors; i++)
		crc = (uint32_t) crc32_z(crc, file->tensors[i].data, file->tensors[i].nbytes);
	return crc;
}

/*
 * Reads bytes that must be refused with this code and these words in the
 * detail; the buffer is copied to its exact size.
 */
__attribute__((unused)) static void
refused(const char *what, const void *bytes, size_t n, FormatStatus code, const char *words)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	FormatFile file;
	FormatError error = { 0 };

	memcpy(copy, bytes, n);
	if (!ok(format_read(copy, n, &file, &error) == code && file.tensors == NULL &&
				file.owned == NULL && well_formed(error.message, error.detail) &&
				strstr(error.detail, words) != NULL,
			"%s: %s", what, error.detail))
		diag("expected code %d and \"%s\", got code %d, \"%s\"", code, words, error.code,
			 error.message);
	format_free(&file);
	free(copy);
}

/* ---- Pickles ------------------------------------------------------------- */

__attribute__((unused)) static void
put_string(Bytes *to, const char *text)
{
	put(to, text, strlen(text));
}

/* SHORT_BINUNICODE */
__attribute__((unused)) static void
put_text(Bytes *to, const char *text)
{
	uint8_t head[2] = { 0x8c, (uint8_t) strlen(text) };

	put(to, head, 2);
	put_string(to, text);
}

/* LONG1 of eight bytes */
__attribute__((unused)) static void
put_long(Bytes *to, int64_t value)
{
	put(to, "\x8a\x08", 2);
	put(to, &value, 8);
}

__attribute__((unused)) static void
put_storage(Bytes *to, const char *type, const char *key, int64_t numel)
{
	put_string(to, "(");
	put_text(to, "storage");
	put_string(to, "ctorch\n");
	put_string(to, type);
	put_string(to, "\n");
	put_text(to, key);
	put_text(to, "cpu");
	put_long(to, numel);
	put_string(to, "tQ");
}

/* _rebuild_tensor of a FloatStorage */
__attribute__((unused)) static void
put_tensor(Bytes *to, const char *key, int64_t numel, int64_t offset, int ndim, const int64_t *size,
		   const int64_t *stride)
{
	put_string(to, "ctorch._utils\n_rebuild_tensor\n(");
	put_storage(to, "FloatStorage", key, numel);
	put_long(to, offset);
	put_string(to, "(");
	for (int i = 0; i < ndim; i++)
		put_long(to, size[i]);
	put_string(to, "t(");
	for (int i = 0; i < ndim; i++)
		put_long(to, stride[i]);
	put_string(to, "ttR");
}

/*
 * A legacy file around an object, a list of keys (both without PROTO) and data.
 */
__attribute__((unused)) static Bytes
legacy_file(Bytes object, Bytes keys, const void *data, size_t n)
{
	static const char head[] = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 "
							   "j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\0\0\0little_endian\x88s.";
	Bytes file = { 0 };

	put(&file, head, sizeof(head) - 1);
	put(&file, "\x80\x02", 2);
	put(&file, object.at, object.n);
	put(&file, "\x80\x02", 2);
	put(&file, keys.at, keys.n);
	put(&file, data, n);
	return file;
}

/* ---- Zip archives -------------------------------------------------------- */

/* An entry, and how it lies about itself. */
typedef struct ZipPart
{
	const char *name;
	const void *data;
	size_t n;
	uint16_t method;
	uint16_t flags;
	bool zip64; /* sizes and offset in an extra field */
	bool wrong_crc;
	bool no_crc; /* it is 0 */
	int64_t add_size;
	int64_t add_local;
} ZipPart;

__attribute__((unused)) static void
put_u16(Bytes *to, uint64_t value)
{
	uint16_t v = (uint16_t) value;

	put(to, &v, 2);
}

__attribute__((unused)) static void
put_u32(Bytes *to, uint64_t value)
{
	uint32_t v = (uint32_t) value;

	put(to, &v, 4);
}

__attribute__((unused)) static void
put_u64(Bytes *to, uint64_t value)
{
	put(to, &value, 8);
}

__attribute__((unused)) static Bytes
zip_file(const ZipPart *parts, int nparts)
{
	Bytes file = { 0 }, directory = { 0 };
	uint64_t start;

	for (int i = 0; i < nparts; i++)
	{
		const ZipPart *part = &parts[i];
		uint64_t size = part->n + (uint64_t) part->add_size;
		uint64_t local = file.n + (uint64_t) part->add_local;
		size_t name = strlen(part->name);
		uint32_t crc;

		/*
		 * the local header is as torch writes it: no checksum, no sizes; and
		 * has padding
		 */
		put(&file, "PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 26);
		put_u16(&file, name);
		put_u16(&file, 7);
		put(&file, part->name, name);
		put(&file, "FB\3\0ZZZ", 7);
		put(&file, part->data, part->n);

		put(&directory, "PK\1\2\0\0\0\0", 8);
		put_u16(&directory, part->flags);
		put_u16(&directory, part->method);
		put_u32(&directory, 0);
		crc = (uint32_t) crc32_z(0, part->data, part->n) ^ (part->wrong_crc ? 1 : 0);
		put_u32(&directory, part->no_crc ? 0 : crc);
		put_u32(&directory, part->zip64 ? UINT32_MAX : size);
		put_u32(&directory, part->zip64 ? UINT32_MAX : size);
		put_u16(&directory, name);
		put_u16(&directory, part->zip64 ? 28 : 0);
		put(&directory, "\0\0\0\0\0\0\0\0\0\0", 10);
		put_u32(&directory, part->zip64 ? UINT32_MAX : local);
		put(&directory, part->name, name);
		if (part->zip64)
		{
			put_u16(&directory, 1);
			put_u16(&directory, 24);
			put_u64(&directory, size);
			put_u64(&directory, size);
			put_u64(&directory, local);
		}
	}
	start = file.n;
	put(&file, directory.at, directory.n);
	put(&file, "PK\5\6\0\0\0\0", 8);
	put_u16(&file, (uint64_t) nparts);
	put_u16(&file, (uint64_t) nparts);
	put_u32(&file, directory.n);
	put_u32(&file, start);
	put_u16(&file, 0);
	free(directory.at);
	return file;
}

#endif /* BICYCLE_FORMAT_FIXTURE_H */
