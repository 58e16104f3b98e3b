/*
 * run_feed.h
 *	  Batches for the training loop, made ahead of it.
 */
#ifndef BICYCLE_ENGINE_RUN_FEED_H
#define BICYCLE_ENGINE_RUN_FEED_H

#include "engine/engine.h"
#include "engine/run_data.h"
#include "engine/run_vary.h"
#include "nn/fit.h"

/* A function of seed, epoch and the place in the epoch alone. */
typedef struct RunAugmentation
{
	int x, y; /* of the crop */
	bool flip;
} RunAugmentation;

/* The rows 0 to rows - 1 in the order of an epoch (from 1). */
extern void run_feed_permutation(uint64_t seed, int64_t epoch, uint32_t rows, uint32_t *order);
extern RunAugmentation run_feed_augmentation(uint64_t seed, int64_t epoch, uint64_t rank,
											 int load_size, int size, bool flip);
extern RunVariation run_feed_variation(const NnTrainOptions *options, int64_t epoch, uint64_t rank);

typedef struct RunBatch
{
	uint8_t *a;        /* (batch_size, size, size, input_nc) */
	uint8_t *b;        /* (batch_size, size, size, output_nc) */
	int done;          /* pairs that are in it or have failed */
	int failed;        /* the first of them that failed; batch_size: none */
	EngineError error; /* of that one */
} RunBatch;

/* The work of one thread of the pool. */
typedef struct RunFeedTask
{
	Task task;
	struct RunFeed *feed;
} RunFeedTask;

typedef struct RunFeed
{
	Engine *engine;
	RunData *data;
	int size, load_size, channels[2];
	int batch_size;
	NnTrainOptions options;
	int64_t batches_an_epoch;
	uint64_t end;       /* pairs of the whole run */
	RunFeedTask *tasks; /* one a thread of the pool */

	pthread_mutex_t lock;  /* guards all below, and RunPair.pixels */
	pthread_cond_t room;   /* a batch was taken, or stop */
	pthread_cond_t filled; /* a batch is complete, or stop */
	RunBatch *batches;     /* a ring */
	int nbatches;
	uint64_t next;   /* pair of the run to be decoded next: batch_size to a batch */
	uint64_t taken;  /* batches the loop has taken, counted from the beginning of the run */
	uint32_t *order; /* of the rows in epoch `epoch` */
	int64_t epoch;   /* -1: none yet */
	uint64_t cached; /* bytes of RunPair.pixels */
	uint64_t cache_limit;
	bool stop;
} RunFeed;

extern void run_feed_init(RunFeed *feed);

/* What run_feed_try and run_feed_start go by. I/O thread. */
extern void run_feed_prepare(RunFeed *feed, Engine *engine, RunData *data, const NnConfig *config,
							 const NnTrainOptions *options);

/*
 * Decodes a pair, and keeps its pixels if there is room. Any thread, before the
 * feed is started. False with *error set.
 */
extern bool run_feed_try(RunFeed *feed, RunPair *pair, EngineError *error);

/*
 * Puts the pool to work on the batches from `iteration` (done) on; data has at
 * least batch_size pairs. I/O thread. False with *error set.
 */
extern bool run_feed_start(RunFeed *feed, Engine *engine, RunData *data, const NnConfig *config,
						   const NnTrainOptions *options, int64_t iteration, int64_t iterations,
						   EngineError *error);

/*
 * Waits for the next batch and normalises it. One thread, the loop's. False
 * with an error if one of its pairs could not be decoded, without one if the
 * feed was stopped.
 */
extern bool run_feed_next(RunFeed *feed, float *a, float *b, EngineError *error);
extern void run_feed_stop(RunFeed *feed); /* ends the pool's work, the loop's waiting; any thread */

/* Both images of a pair at side x side. On failure nothing is left to free. */
extern bool run_feed_decode(Engine *engine, const RunData *data, const RunPair *pair,
							const int channels[2], int side, Image images[2], EngineError *error);

/* Recounts what the fields state. I/O thread. */
extern void run_feed_check(RunFeed *feed);
extern void run_feed_free(RunFeed *feed); /* when no other thread is left */

#endif /* BICYCLE_ENGINE_RUN_FEED_H */
