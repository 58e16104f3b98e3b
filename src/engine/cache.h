/*
 * cache.h
 *	  The models that are resident, who may use them, and who waits for one.
 *
 * I/O thread only, but for the model of a Packed, which the loader and device
 * threads work with. Rules are in cache.c, who goes for whom in room.c, how a
 * model becomes resident in load.c, who is asked for one in demand.c.
 */
#ifndef BICYCLE_ENGINE_CACHE_H
#define BICYCLE_ENGINE_CACHE_H

#include "common/protocol.h"
#include "engine/executor.h"
#include "engine/list.h"
#include "nn/nn.h"

struct Request;

#define PACKED_PRECISIONS 3 /* fp32, bf16, fp16 */

typedef struct CacheEntry CacheEntry;

/* Evicted, it is freed on the device thread when its last pin is gone. */
typedef struct Packed
{
	CacheEntry *entry; /* NULL once evicted */
	List link;         /* Engine.models, least recently used first; Engine.leaving once evicted */
	NnModel *model;
	NnConfig config;
	NnPrecision precision;
	size_t bytes;   /* in the memory that the device computes in; counted in Engine.cached */
	size_t host;    /* of the host's, the same unless the device has its own; in Engine.memory */
	size_t least;   /* bytes as it was loaded, without plans made since */
	size_t extents; /* of bytes, what plans for other sizes take */
	size_t plans[NN_NETWORKS]; /* bytes of the host's that one image takes at its own size */
	int small; /* most images of a batch, before small_until_ms: larger plans found no room */
	int64_t small_until_ms;
	uint64_t hits;
	uint64_t batches;
	int64_t loaded_ms, used_ms;
	unsigned pins;    /* requests from being picked until they leave the device; a shrinking */
	bool shrinking;   /* task is to free plans */
	size_t shrunk[2]; /* bytes and host after it */
	bool evicted;     /* takes no new requests; no longer in entry->packed and Engine.models */
	bool freeing;     /* its last pin is gone: task is to free it */
	Task task;
} Packed;

/* A database that has shown a model's content, and what it calls it. */
typedef struct CacheOwner
{
	uint32_t database;
	int32_t version;
	char model[BICYCLE_MAX_NAME];
} CacheOwner;

struct CacheEntry
{
	uint8_t hash[BICYCLE_HASH_BYTES];
	List link;           /* Engine.entries */
	List waiters;        /* Request.link, in order of arrival */
	unsigned requests;   /* that refer to this entry, LOADs included */
	unsigned loads;      /* LOADs under way */
	unsigned packing;    /* of them, those whose stream is complete */
	unsigned asked;      /* waiters that were asked and have not answered */
	int64_t progress_ms; /* when the last one was asked, was granted memory or sent something */
	bool dirty;          /* demand.c has to look at its waiters */
	bool configured;     /* config is known */
	NnConfig config;
	Packed *packed[PACKED_PRECISIONS];
	CacheOwner *owners;
	unsigned nowners;
};

/* The entry of a hash, made if need be; NULL if there is no memory. */
extern CacheEntry *cache_entry(struct Engine *engine, const uint8_t *hash);
extern void cache_drop_unused(CacheEntry *entry);
extern bool cache_is_resident(const CacheEntry *entry);

/* The entry has changed: its waiters are looked at this turn. */
extern void cache_touch(struct Engine *engine, CacheEntry *entry);

/* Databases that have shown the content. False without memory. */
extern bool cache_admit(CacheEntry *entry, uint32_t database, const char *model, int32_t version);
extern CacheOwner *cache_owner(const CacheEntry *entry, uint32_t database);

/* What the request may use now, or NULL; cache_pin pins it. */
extern Packed *cache_usable(const struct Request *request);
extern Packed *cache_pin(struct Request *request);
extern void cache_unpin(struct Engine *engine, Packed *packed);
extern void cache_unpin_unused(struct Engine *engine,
							   Packed *packed); /* all is as before the pin */

/* The request refers to an entry; it does so no more. */
extern void cache_refer(struct Request *request, CacheEntry *entry);
extern void cache_forget(struct Request *request);

/* It is not asked for its model any more. */
extern void cache_unask(struct Request *request);

extern int cache_slot(NnPrecision precision); /* in CacheEntry.packed */

/* What is computed in. config may be NULL. */
extern NnPrecision cache_precision(const struct Engine *engine, NnPrecision asked,
								   const NnConfig *config);
extern NnPrecision cache_resolve_precision(NnPrecision asked, NnPrecision setting,
										   const NnConfig *config, NnPrecision automatic);
extern size_t cache_limit(const struct Engine *engine); /* bytes of resident models */

/* A model is there, and counted; it has grown or shrunk; it is evicted. */
extern void cache_put(struct Engine *engine, CacheEntry *entry, Packed *packed);
extern void cache_resize(struct Engine *engine, Packed *packed, size_t bytes, size_t host);
extern void cache_take_out(struct Engine *engine, Packed *packed);

/* Frees a model that is not in the cache, on the device thread. */
extern void cache_discard(struct Engine *engine, Packed *packed);

/* Frees plans for more than one image, on the device thread. */
extern void cache_shrink(struct Engine *engine, Packed *packed, int64_t quiet_ms);
extern void cache_free(struct Engine *engine); /* when no thread runs any more */

#endif /* BICYCLE_ENGINE_CACHE_H */
