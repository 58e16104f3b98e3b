/*
 * pth_legacy.c
 *	  The layout that torch.save wrote before version 1.6, and the one of the
 *	  published BicycleGAN weights.
 *
 * Five pickles back to back, of any protocol from 2 to 5: a magic number, the
 * protocol version, the writer's system, the object, the list of storage keys.
 * Then, for each key in that order, an int64 element count and the elements;
 * nothing is aligned and nothing follows. Source: torch/serialization.py,
 * _legacy_save and _legacy_load.
 */
#include "common/invariant.h"
#include "format/pth.h"

#include <stdlib.h>
#include <string.h>

#define PROTOCOL_VERSION 1001

/* The magic number 0x1950a86a20f9469cfc6c, as LONG1 has it. */
static const uint8_t magic[12] = { 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
								   0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 };

/* Where it is in a file that begins like one; protocols 4 and 5 frame it. */
static size_t
magic_at(const FormatBuilder *builder)
{
	return builder->length > 2 && builder->bytes[2] == 0x95 ? 11 : 2;
}

/* Four bytes of the number tell; whether the rest is right is asked later. */
bool
format_is_legacy(const FormatBuilder *builder)
{
	size_t at = magic_at(builder);

	return builder->length >= at + 6 && builder->bytes[0] == 0x80 && builder->bytes[1] >= 2 &&
		   memcmp(builder->bytes + at, magic, 6) == 0;
}

static FormatStatus
read_next(FormatBuilder *builder, size_t *at, Pickle *pickle)
{
	INVARIANT(*at <= builder->length);
	if (pickle_read(builder->bytes + *at, builder->length - *at, *at, pickle, builder->error) !=
		FORMAT_OK)
		return builder->error->code;
	*at += pickle->used;
	return FORMAT_OK;
}

static FormatStatus
read_magic(FormatBuilder *builder, size_t *at)
{
	size_t digits = magic_at(builder);
	Pickle pickle;
	bool known;

	if (builder->length < digits + sizeof(magic) ||
		memcmp(builder->bytes + digits, magic, sizeof(magic)) != 0)
		return format_fail(builder->error, FORMAT_EINVALID, "It has a damaged magic number.");
	if (read_next(builder, at, &pickle) != FORMAT_OK)
		return builder->error->code;
	known = pickle.top.type == PICKLE_LONG && pickle.used == digits + sizeof(magic) + 1;
	pickle_free(&pickle);
	return known ? FORMAT_OK
				 : format_fail(builder->error, FORMAT_EINVALID, "It has a damaged magic number.");
}

static FormatStatus
read_version(FormatBuilder *builder, size_t *at)
{
	Pickle pickle;
	bool known;

	if (read_next(builder, at, &pickle) != FORMAT_OK)
		return builder->error->code;
	known = pickle.top.type == PICKLE_INT && pickle.top.integer == PROTOCOL_VERSION;
	pickle_free(&pickle);
	return known ? FORMAT_OK
				 : format_fail(builder->error, FORMAT_EINVALID,
							   "Its legacy layout is not version %d.", PROTOCOL_VERSION);
}

/* Of what is said about the writer's machine only the byte order matters. */
static bool
is_little_endian(const PickleValue *system)
{
	if (system->type != PICKLE_DICT)
		return false;
	for (size_t i = 0; i < system->items->n; i += 2)
	{
		const PickleValue *key = &system->items->at[i];

		if (key->type == PICKLE_TEXT && format_text_is(key->text, "little_endian"))
			return key[1].type == PICKLE_BOOL && key[1].integer != 0;
	}
	return false;
}

static FormatStatus
read_system(FormatBuilder *builder, size_t *at)
{
	Pickle pickle;
	bool little;

	if (read_next(builder, at, &pickle) != FORMAT_OK)
		return builder->error->code;
	little = is_little_endian(&pickle.top);
	pickle_free(&pickle);
	return little ? FORMAT_OK
				  : format_fail(builder->error, FORMAT_EINVALID,
								"It was not written on a little-endian machine.");
}

/* The count and the elements of one storage at *at. */
static FormatStatus
read_storage(FormatBuilder *builder, size_t *at, PthStorage *storage)
{
	INVARIANT(*at <= builder->length);
	if (storage->element->width == 0)
		return format_fail(builder->error, FORMAT_EINVALID,
						   "Storage \"%.*s\" is of a type that is not known.",
						   FORMAT_TEXT(storage->key));
	if (builder->length - *at < 8)
		return format_fail(builder->error, FORMAT_EINVALID, "It ends before storage \"%.*s\".",
						   FORMAT_TEXT(storage->key));
	if (format_u64(builder->bytes + *at) != storage->numel)
		return format_fail(
			builder->error, FORMAT_EINVALID,
			"Storage \"%.*s\" does not have the number of elements it was announced with.",
			FORMAT_TEXT(storage->key));
	*at += 8;
	if (storage->bytes > builder->length - *at)
		return format_fail(builder->error, FORMAT_EINVALID, "It ends within storage \"%.*s\".",
						   FORMAT_TEXT(storage->key));
	storage->data = builder->bytes + *at;
	*at += storage->bytes;
	return FORMAT_OK;
}

static FormatStatus
read_storages(FormatBuilder *builder, size_t *at, const PickleValue *keys,
			  const PthStorages *storages)
{
	if (keys->type != PICKLE_LIST)
		return format_fail(builder->error, FORMAT_EINVALID, "It has no list of storages.");
	for (size_t i = 0; i < keys->items->n; i++)
	{
		const PickleValue *key = &keys->items->at[i];
		PthStorage *storage =
			key->type == PICKLE_TEXT ? pth_find_storage(storages, key->text) : NULL;

		if (storage == NULL)
			return format_fail(builder->error, FORMAT_EINVALID,
							   "It lists a storage that no tensor uses.");
		if (storage->data != NULL)
			return format_fail(builder->error, FORMAT_EINVALID, "It lists storage \"%.*s\" twice.",
							   FORMAT_TEXT(storage->key));
		if (read_storage(builder, at, storage) != FORMAT_OK)
			return builder->error->code;
	}
	for (size_t i = 0; i < storages->n; i++)
		if (storages->at[i].data == NULL)
			return format_fail(builder->error, FORMAT_EINVALID, "Storage \"%.*s\" is missing.",
							   FORMAT_TEXT(storages->at[i].key));
	if (*at != builder->length)
		return format_fail(builder->error, FORMAT_EINVALID,
						   "The file goes on after its last storage.");
	return FORMAT_OK;
}

/* Keys, storages, then the tensors of the object read before. */
static FormatStatus
read_data(FormatBuilder *builder, size_t at, const Pickle *object)
{
	PthStorages storages;
	Pickle keys = { 0 };
	FormatStatus status = pth_storages(object, &storages, builder->error);

	if (status == FORMAT_OK)
		status = read_next(builder, &at, &keys);
	if (status == FORMAT_OK)
		status = read_storages(builder, &at, &keys.top, &storages);
	if (status == FORMAT_OK)
		status = pth_add_tensors(builder, object, &storages);
	pickle_free(&keys);
	free(storages.at);
	return status;
}

FormatStatus
format_read_legacy(FormatBuilder *builder)
{
	size_t at = 0;
	Pickle object;
	FormatStatus status;

	if (read_magic(builder, &at) != FORMAT_OK || read_version(builder, &at) != FORMAT_OK ||
		read_system(builder, &at) != FORMAT_OK || read_next(builder, &at, &object) != FORMAT_OK)
		return builder->error->code;
	status = read_data(builder, at, &object);
	pickle_free(&object);
	return status;
}
