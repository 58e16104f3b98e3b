/*
 * run_data.h
 *	  The pairs that a run trains on.
 *
 * The I/O thread fills a RunData. From run_data_complete on any thread may
 * read, and nothing in it changes but which pairs are bad, under the lock,
 * until run_data_settle; and the cached pixels, which are the feed's.
 */
#ifndef BICYCLE_ENGINE_RUN_DATA_H
#define BICYCLE_ENGINE_RUN_DATA_H

#include <pthread.h>

#include "common/run_protocol.h"
#include "engine/engine_error.h"
#include "image/image.h"

typedef struct RunPair
{
	uint8_t hash[BICYCLE_HASH_BYTES]; /* what orders pairs */
	uint8_t *bytes; /* A, B, name as they came; NULL: at `offset` of the spill file */
	int64_t offset;
	uint32_t length[2];
	uint32_t name_length;
	bool bad; /* it cannot be used */
	ImageInfo info[2];
	int64_t ordinal; /* of the row of the query, from 1 */
	uint8_t *pixels; /* A then B at load_size, cached; set once, by run_feed.c */
} RunPair;

typedef struct RunData
{
	const char *kind; /* what errors call the pairs: training, validation */
	RunPair *pairs;   /* by hash, once complete; once settled, the bad ones last */
	int64_t npairs;   /* to train on: all until it is settled, then those that are good */
	int64_t nread, capacity;
	bool side_by_side;
	pthread_mutex_t lock;  /* guards the two below, and `bad` of pairs */
	EngineError bad_error; /* of the bad pair that came first; empty: there is none */
	int64_t bad_first;     /* its ordinal */
	uint64_t memory;       /* bytes taken of memory_limit: pairs in memory, and records of all */
	uint64_t memory_limit;
	uint64_t others; /* bytes of it that are another set's: room that pixels do not have */
	uint64_t spilled, spill_limit;
	uint64_t max_pixels;
	bool opaque;     /* alpha of images is not looked at */
	int spill_fd;    /* -1: none */
	char spill[256]; /* its directory */
	uint8_t digest[BICYCLE_HASH_BYTES];
} RunData;

extern void run_data_init(RunData *data);
extern void run_data_begin(RunData *data, const BicycleTrainBegin *begin, bool side_by_side);

/* False with *error set, as all of these; of a pair that is about to come. */
extern bool run_data_check_room(const RunData *data, uint64_t bytes, EngineError *error);

/* A PAIR's body is copied. After a failure only run_data_free may follow. */
extern bool run_data_add(RunData *data, const uint8_t *body, size_t length, EngineError *error);

/* All pairs are here: orders them and makes the digest. */
extern bool run_data_complete(RunData *data, EngineError *error);

/* Any thread: a pair cannot be used, and why. */
extern void run_data_bad(RunData *data, RunPair *pair, const EngineError *error);

/*
 * An earlier run's digest, and the hashes that it skipped, `known` in all:
 * marks those pairs; false if these are other pairs.
 */
extern bool run_data_known(RunData *data, const uint8_t *known, size_t length);

/*
 * All that can be found out is: leaves the bad pairs out, and says in *error
 * which they are, all sentences but its hint. Returns how many.
 */
extern int64_t run_data_settle(RunData *data, EngineError *error);

/* Encoded, A, B, name. *owned is the caller's to free; it may be NULL. */
extern bool run_data_read(const RunData *data, const RunPair *pair, uint8_t **bytes,
						  uint8_t **owned, EngineError *error);

/* Adds to an image's error where the image, A or B, came from. */
extern void run_data_name_row(const RunData *data, const RunPair *pair, const uint8_t *bytes,
							  int which, EngineError *error);

/* Recounts what the fields state; I/O thread. */
extern void run_data_check(const RunData *data);
extern void run_data_free(RunData *data);

#endif /* BICYCLE_ENGINE_RUN_DATA_H */
