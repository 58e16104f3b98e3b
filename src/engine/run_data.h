/*
 * run_data.h
 *	  The pairs that a run trains on.
 *
 * The I/O thread fills a RunData; from run_data_complete on nothing in it
 * changes but the cached pixels, which are the feed's, and any thread may read.
 */
#ifndef BICYCLE_ENGINE_RUN_DATA_H
#define BICYCLE_ENGINE_RUN_DATA_H

#include "common/run_protocol.h"
#include "engine/engine_error.h"
#include "image/image.h"

typedef struct RunPair
{
	uint8_t hash[BICYCLE_HASH_BYTES]; /* what orders pairs */
	uint8_t *bytes; /* A then B as they came; NULL: at `offset` of the spill file */
	int64_t offset;
	uint32_t length[2];
	ImageInfo info[2];
	int64_t ordinal; /* of the row of the query, from 1 */
	uint8_t *pixels; /* A then B at load_size, cached; set once, by run_feed.c */
} RunPair;

typedef struct RunData
{
	RunPair *pairs; /* by hash, once complete */
	int64_t npairs, capacity;
	uint64_t memory; /* bytes taken of memory_limit: pairs in memory, and records of all */
	uint64_t memory_limit;
	uint64_t spilled, spill_limit;
	uint64_t max_pixels;
	int spill_fd;    /* -1: none */
	char spill[256]; /* its directory */
	uint8_t digest[BICYCLE_HASH_BYTES];
} RunData;

extern void run_data_init(RunData *data);
extern void run_data_begin(RunData *data, const BicycleTrainBegin *begin);

/* False with *error set, as all of these; of a pair that is about to come. */
extern bool run_data_check_room(const RunData *data, uint64_t bytes, EngineError *error);

/* A PAIR's body is copied. After a failure only run_data_free may follow. */
extern bool run_data_add(RunData *data, const uint8_t *body, size_t length, EngineError *error);

/* All pairs are here: orders them and makes the digest. */
extern bool run_data_complete(RunData *data, EngineError *error);

/* Encoded, A then B. *owned is the caller's to free; it may be NULL. */
extern bool run_data_read(const RunData *data, const RunPair *pair, uint8_t **bytes,
						  uint8_t **owned, EngineError *error);

/* Adds to an image's error where the image came from. */
extern void run_data_name_row(EngineError *error, int64_t ordinal, char side);

/* Recounts what the fields state; I/O thread. */
extern void run_data_check(const RunData *data);
extern void run_data_free(RunData *data);

#endif /* BICYCLE_ENGINE_RUN_DATA_H */
