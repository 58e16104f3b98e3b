/*
 * pth.h
 *	  What the two layouts of .pth have in common: a pickled state_dict and
 *	  storages that its tensors are windows of.
 */
#ifndef BICYCLE_FORMAT_PTH_H
#define BICYCLE_FORMAT_PTH_H

#include "format/pickle.h"

/* A storage of the file: all mentions of a key, folded together. */
typedef struct PthStorage
{
	FormatText key;
	const PickleElement *element;
	uint64_t numel;
	uint64_t bytes;      /* numel elements; unknown, and 0, if the element's width is */
	const uint8_t *data; /* in the file; NULL until the layout's reader has found and checked it */
} PthStorage;

typedef struct PthStorages
{
	PthStorage *at; /* sorted by key, malloc'ed */
	size_t n;
} PthStorages;

/*
 * The storages that a pickle mentions; EINVAL if two mentions of one key
 * disagree. Free .at with free(), also after a failure.
 */
extern FormatStatus pth_storages(const Pickle *pickle, PthStorages *storages, FormatError *error);
extern PthStorage *pth_find_storage(const PthStorages *storages, FormatText key);

/*
 * Of all dictionaries of tensors that names lead to from the one on top; all
 * storages must have their data.
 */
extern FormatStatus pth_add_tensors(FormatBuilder *builder, const Pickle *pickle,
									const PthStorages *storages);

#endif /* BICYCLE_FORMAT_PTH_H */
