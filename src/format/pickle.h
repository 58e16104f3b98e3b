/*
 * pickle.h
 *	  What the two .pth readers get from a pickle: plain data, storages and
 *	  tensors by description. See pickle.c.
 */
#ifndef BICYCLE_FORMAT_PICKLE_H
#define BICYCLE_FORMAT_PICKLE_H

#include "format/format_private.h"

typedef enum PickleType
{
	PICKLE_MARK, /* on the stack only */
	PICKLE_NONE,
	PICKLE_BOOL,
	PICKLE_INT,
	PICKLE_LONG,  /* of more than 64 bits */
	PICKLE_FLOAT, /* its value is of no use here and not kept */
	PICKLE_TEXT,
	PICKLE_BYTES,
	PICKLE_GLOBAL, /* a name of the few that mean something here */
	PICKLE_OBJECT, /* any other name, and whatever is built with it: nothing is known of it */
	PICKLE_TUPLE,
	PICKLE_LIST, /* and sets */
	PICKLE_DICT,
	PICKLE_STORAGE,
	PICKLE_TENSOR
} PickleType;

typedef struct PickleValue
{
	PickleType type;
	union
	{
		int64_t integer; /* BOOL, INT */
		FormatText text; /* TEXT, BYTES, LONG (little-endian): in the pickle's own bytes */
		const struct PickleGlobal *global;
		const struct PickleName *name; /* OBJECT */
		struct PickleItems *items;     /* TUPLE, LIST, DICT */
		struct PickleStorage *storage;
		struct PickleTensor *tensor;
	};
} PickleValue;

/* What a pickle would import. */
typedef struct PickleName
{
	FormatText module, name;
} PickleName;

/* Of a dictionary: keys at even, values at odd places, in the file's order. */
typedef struct PickleItems
{
	PickleValue *at;
	size_t n, capacity;
} PickleItems;

/* What a storage is an array of. */
typedef struct PickleElement
{
	const char *name; /* "FloatStorage" */
	size_t width;     /* bytes of an element; 0: not known */
	bool known;       /* is of a dtype */
	NnDtype dtype;
} PickleElement;

/* A mention of a storage; several may name the same key. */
typedef struct PickleStorage
{
	struct PickleStorage *next;
	FormatText key;
	const struct PickleElement *element;
	uint64_t numel;                   /* elements of the whole storage */
	uint64_t view_offset, view_numel; /* the part that is meant, in elements; within numel */
} PickleStorage;

typedef struct PickleTensor
{
	const PickleStorage *storage;
	uint64_t offset; /* elements; not yet compared with the storage */
	int ndim;
	int64_t shape[NN_MAX_DIMS];  /* >= 0 */
	int64_t stride[NN_MAX_DIMS]; /* >= 0, elements */
} PickleTensor;

typedef struct Pickle
{
	PickleValue top;
	size_t used;             /* bytes up to and with STOP */
	PickleStorage *storages; /* all mentions, newest first */
	size_t nstorages;
	struct PickleBlock *blocks; /* all memory, freed by pickle_free */
	size_t memory;
} Pickle;

/*
 * Reads one pickle at the start of bytes[0..length), of which used <= length;
 * base is the offset of bytes in the file, for messages. The texts refer to
 * bytes. On failure the pickle is all zeros; pickle_free does no harm then.
 */
extern FormatStatus pickle_read(const uint8_t *bytes, size_t length, size_t base, Pickle *pickle,
								FormatError *error);
extern void pickle_free(Pickle *pickle);

#endif /* BICYCLE_FORMAT_PICKLE_H */
