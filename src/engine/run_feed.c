/*
 * run_feed.c
 *	  Batches for the training loop: which pairs come when, and decoding,
 *	  resizing, cropping, flipping and varying them ahead of the device.
 *
 * R1 What a batch holds is a function of the pairs' order, the seed and the
 *    iteration alone. Neither the number of threads nor their timing nor where
 *    a run was interrupted can be seen in it.
 * R2 Every epoch goes once through all pairs in an order of its own
 *    (run_feed_permutation). What is left at its end and fills no batch is
 *    skipped.
 * R3 How a pair is cropped, flipped and varied (run_vary.c) follows from the
 *    seed, the epoch and its place in the epoch (run_feed_augmentation).
 * R4 Threads of the pool take one pair after the other, in the order of the
 *    run, and put it into a ring of batches, which the loop empties in order.
 *    They wait for each other under the feed's lock.
 * R5 No pair is given out before its batch has a place in the ring.
 * R6 A pair's pixels at load_size are kept while train_memory has room for
 *    them, since decoding costs more than a small network does.
 *
 * A ring of 3 batches of 2 pairs; the loop has taken 4 batches, and pairs up to
 * 10 are given out, of which 8 and 10 are in:
 *
 *	 batch          4       5       6        taken 4, next 11
 *	 at             1       2       0
 *	 pairs        8   9  10  11  12  13
 *	 done           1       1       0
 *
 * The feed owns the ring; cached pixels belong to their pair and go with it.
 * Source of the transforms: the official data/base_dataset.py (resize to
 * load_size, random crop, random flip, the same for A and B).
 */
#include <stdlib.h>
#include <string.h>

#include "engine/run_feed.h"

/* Second words of Philox counters; that of nn_normal is 0. */
#define DRAW_ORDER 0x4F524452
#define DRAW_AUGMENTATION 0x4155474D
#define DRAW_VARIATION 0x56415259
#define DRAW_VARIATION_MORE 0x56415258

#define RING_AHEAD 2 /* batches beyond those that the pool's threads work on */
#define NO_EPOCH (-1)

/* ---- What comes when ----------------------------------------------------- */

static void
draw(uint64_t seed, int64_t epoch, uint64_t index, uint32_t purpose, uint32_t words[4])
{
	uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
	uint32_t counter[4] = { (uint32_t) index, purpose, (uint32_t) epoch,
							(uint32_t) ((uint64_t) epoch >> 32) };

	nn_philox(counter, key, words);
}

/* From 0 to n - 1; none is likelier than another by more than 2^-32. */
static uint32_t
number_below(uint32_t n, uint32_t high, uint32_t low)
{
	uint64_t bits = (uint64_t) high << 32 | low;

	return (uint32_t) ((unsigned __int128) bits * n >> 64);
}

/* Fisher and Yates's shuffle. */
void
run_feed_permutation(uint64_t seed, int64_t epoch, uint32_t rows, uint32_t *order)
{
	for (uint32_t i = 0; i < rows; i++)
		order[i] = i;
	for (uint32_t i = rows; i > 1; i--)
	{
		uint32_t words[4];
		uint32_t j, row;

		draw(seed, epoch, i, DRAW_ORDER, words);
		j = number_below(i, words[0], words[1]);
		row = order[i - 1];
		order[i - 1] = order[j];
		order[j] = row;
	}
}

/* Corners from 0 to load_size - size, both included. */
RunAugmentation
run_feed_augmentation(uint64_t seed, int64_t epoch, uint64_t rank, int load_size, int size,
					  bool flip)
{
	uint32_t corners = load_size > size ? (uint32_t) (load_size - size) + 1 : 1;
	uint32_t words[4];

	draw(seed, epoch, rank, DRAW_AUGMENTATION, words);
	return (RunAugmentation){ .x = (int) ((uint64_t) words[0] * corners >> 32),
							  .y = (int) ((uint64_t) words[1] * corners >> 32),
							  .flip = flip && words[2] >> 31 };
}

RunVariation
run_feed_variation(const NnTrainOptions *options, int64_t epoch, uint64_t rank)
{
	uint32_t words[8];

	draw(options->seed, epoch, rank, DRAW_VARIATION, words);
	draw(options->seed, epoch, rank, DRAW_VARIATION_MORE, words + 4);
	return run_vary_draw(options, words);
}

/* ---- One pair ------------------------------------------------------------ */

bool
run_feed_decode(Engine *engine, const RunData *data, const RunPair *pair, const int channels[2],
				int side, Image images[2], EngineError *error)
{
	uint8_t *bytes, *owned;
	bool decoded = run_data_read(data, pair, &bytes, &owned, error);
	const uint8_t *image = bytes;
	const unsigned flags = data->opaque ? IMAGE_OPAQUE : 0;

	memset(images, 0, 2 * sizeof(Image));
	for (int i = 0; i < (data->side_by_side ? 1 : 2) && decoded; i++)
	{
		if (data->side_by_side)
			decoded =
				worker_decode_halves(&engine->decoders, image, pair->length[0], &pair->info[0],
									 channels, flags, side, data->max_pixels, images, error);
		else
			decoded = worker_decode_file(&engine->decoders, image, pair->length[i], &pair->info[i],
										 channels[i], flags, (NnExtent){ side, side },
										 data->max_pixels, NULL, &images[i], error);
		if (!decoded)
			run_data_name_row(data, pair, bytes, i, error);
		image += pair->length[i];
	}
	free(owned);
	if (!decoded)
		image_free(&images[0]);
	return decoded;
}

static size_t
image_bytes(const RunFeed *feed, int which, int side)
{
	return (size_t) side * (size_t) side * (size_t) feed->channels[which];
}

/* Pixels of A and B at load_size, one behind the other, malloc'ed. */
static uint8_t *
decode_pair(RunFeed *feed, const RunPair *pair, EngineError *error)
{
	size_t a_bytes = image_bytes(feed, 0, feed->load_size);
	size_t b_bytes = image_bytes(feed, 1, feed->load_size);
	Image images[2];
	uint8_t *pixels;

	if (!run_feed_decode(feed->engine, feed->data, pair, feed->channels, feed->load_size, images,
						 error))
		return NULL;
	pixels = malloc(a_bytes + b_bytes);
	if (pixels == NULL)
		error_memory(error, "the pixels of a training pair");
	else
	{
		memcpy(pixels, images[0].pixels, a_bytes);
		memcpy(pixels + a_bytes, images[1].pixels, b_bytes);
	}
	image_free(&images[0]);
	image_free(&images[1]);
	return pixels;
}

/* Under the lock: whether `decoded` is the pair's now. */
static bool
keep_pixels(RunFeed *feed, RunPair *pair, uint8_t *decoded)
{
	size_t bytes = image_bytes(feed, 0, feed->load_size) + image_bytes(feed, 1, feed->load_size);

	INVARIANT(feed->cached <= feed->cache_limit);
	if (pair->pixels != NULL || bytes > feed->cache_limit - feed->cached)
		return false;
	pair->pixels = decoded;
	feed->cached += bytes;
	return true;
}

bool
run_feed_try(RunFeed *feed, RunPair *pair, EngineError *error)
{
	uint8_t *decoded = decode_pair(feed, pair, error);
	bool kept;

	if (decoded == NULL)
		return false;
	pthread_mutex_lock(&feed->lock);
	kept = keep_pixels(feed, pair, decoded);
	pthread_mutex_unlock(&feed->lock);
	if (!kept)
		free(decoded);
	return true;
}

static void
mirror(uint8_t *pixels, int size, size_t channels)
{
	for (int y = 0; y < size; y++, pixels += (size_t) size * channels)
		for (int x = 0; x < size / 2; x++)
			for (size_t c = 0; c < channels; c++)
			{
				uint8_t *left = pixels + (size_t) x * channels + c;
				uint8_t *right = pixels + (size_t) (size - 1 - x) * channels + c;
				uint8_t value = *left;

				*left = *right;
				*right = value;
			}
}

static void
crop(const RunFeed *feed, int which, const uint8_t *pixels, const RunAugmentation *how,
	 const RunVariation *variation, uint8_t *out)
{
	size_t channels = (size_t) feed->channels[which];
	size_t row = (size_t) feed->size * channels;

	if (variation->turned)
		run_vary_turn(variation, pixels, feed->load_size, feed->channels[which], how->x, how->y,
					  out, feed->size);
	for (int y = 0; y < feed->size && !variation->turned; y++)
		memcpy(out + (size_t) y * row,
			   pixels + ((size_t) (how->y + y) * feed->load_size + how->x) * channels, row);
	if (how->flip)
		mirror(out, feed->size, channels);
	if (variation->coloured[which])
		run_vary_colour(variation, out, (size_t) feed->size * feed->size, feed->channels[which]);
}

/* ---- The pool's side ----------------------------------------------------- */

/* A pair of the run to be put into the ring. */
typedef struct RunPlace
{
	RunPair *pair;
	uint8_t *pixels; /* of its cache, or NULL */
	RunBatch *batch;
	int place;
	RunAugmentation how;
	RunVariation variation;
} RunPlace;

/* Waits for room in the ring; false if nothing is left to do. */
static bool
take_pair(RunFeed *feed, RunPlace *place)
{
	uint64_t batch;
	int64_t epoch;
	uint64_t rank;

	pthread_mutex_lock(&feed->lock);
	while (!feed->stop && feed->next < feed->end &&
		   feed->next / (uint64_t) feed->batch_size >= feed->taken + (uint64_t) feed->nbatches)
		executor_wait(&feed->room, &feed->lock);
	if (feed->stop || feed->next >= feed->end)
	{
		pthread_mutex_unlock(&feed->lock);
		return false;
	}
	batch = feed->next / (uint64_t) feed->batch_size;
	epoch = (int64_t) (batch / (uint64_t) feed->batches_an_epoch) + 1;
	rank = feed->next -
		   (uint64_t) (epoch - 1) * (uint64_t) feed->batches_an_epoch * (uint64_t) feed->batch_size;
	if (epoch != feed->epoch)
	{
		run_feed_permutation(feed->options.seed, epoch, (uint32_t) feed->data->npairs, feed->order);
		feed->epoch = epoch;
	}
	place->pair = &feed->data->pairs[feed->order[rank]];
	place->pixels = place->pair->pixels;
	place->batch = &feed->batches[batch % (uint64_t) feed->nbatches];
	place->place = (int) (feed->next % (uint64_t) feed->batch_size);
	place->how = run_feed_augmentation(feed->options.seed, epoch, rank, feed->load_size, feed->size,
									   feed->options.flip);
	place->variation = run_feed_variation(&feed->options, epoch, rank);
	feed->next++;
	pthread_mutex_unlock(&feed->lock);
	return true;
}

/* A pair is done; keeps its pixels if there is room, or frees them. */
static void
give_pair(RunFeed *feed, const RunPlace *place, uint8_t *decoded, const EngineError *error)
{
	RunBatch *batch = place->batch;

	pthread_mutex_lock(&feed->lock);
	INVARIANT(batch->done < feed->batch_size);
	if (decoded != NULL && keep_pixels(feed, place->pair, decoded))
		decoded = NULL;
	if (error->sqlstate[0] != '\0' && place->place < batch->failed)
	{
		batch->failed = place->place;
		batch->error = *error;
	}
	if (++batch->done == feed->batch_size)
		pthread_cond_broadcast(&feed->filled);
	pthread_mutex_unlock(&feed->lock);
	free(decoded);
}

/* Runs on a thread of the pool until the feed is stopped or the run is over. */
static void
feed_pairs(Task *task)
{
	RunFeed *feed = list_member(RunFeedTask, task, task)->feed;
	RunPlace place;

	while (take_pair(feed, &place))
	{
		EngineError error;
		uint8_t *decoded = NULL;
		const uint8_t *pixels = place.pixels;

		error_clear(&error);
		executor_progress();
		if (pixels == NULL)
			pixels = decoded = decode_pair(feed, place.pair, &error);
		if (pixels != NULL)
		{
			size_t a_bytes = image_bytes(feed, 0, feed->size);
			size_t b_bytes = image_bytes(feed, 1, feed->size);

			crop(feed, 0, pixels, &place.how, &place.variation,
				 place.batch->a + (size_t) place.place * a_bytes);
			crop(feed, 1, pixels + image_bytes(feed, 0, feed->load_size), &place.how,
				 &place.variation, place.batch->b + (size_t) place.place * b_bytes);
		}
		give_pair(feed, &place, decoded, &error);
	}
}

static void
feed_pairs_done(Engine *engine, Task *task)
{
}

/* ---- The loop's side ----------------------------------------------------- */

bool
run_feed_next(RunFeed *feed, float *a, float *b, EngineError *error)
{
	RunBatch *batch;
	bool good;

	error_clear(error);
	pthread_mutex_lock(&feed->lock);
	batch = &feed->batches[feed->taken % (uint64_t) feed->nbatches];
	while (batch->done < feed->batch_size && !feed->stop)
		executor_wait(&feed->filled, &feed->lock);
	good = !feed->stop && batch->failed == feed->batch_size;
	if (!feed->stop && !good)
		*error = batch->error;
	pthread_mutex_unlock(&feed->lock);
	if (!good)
		return false;

	/* Nobody writes into a complete batch before it is taken (R5). */
	nn_normalise(batch->a, (size_t) feed->batch_size * image_bytes(feed, 0, feed->size), a);
	nn_normalise(batch->b, (size_t) feed->batch_size * image_bytes(feed, 1, feed->size), b);

	pthread_mutex_lock(&feed->lock);
	batch->done = 0;
	feed->taken++;
	pthread_cond_broadcast(&feed->room);
	pthread_mutex_unlock(&feed->lock);
	return true;
}

/* ---- Beginning and end --------------------------------------------------- */

void
run_feed_init(RunFeed *feed)
{
	memset(feed, 0, sizeof(*feed));
	pthread_mutex_init(&feed->lock, NULL);
	executor_condition(&feed->room);
	executor_condition(&feed->filled);
	feed->epoch = NO_EPOCH;
}

/* The ring in bytes, and the loop's batch in floats: the user's choice. */
static bool
check_ring(const RunFeed *feed, EngineError *error)
{
	size_t batch = (size_t) feed->batch_size *
				   (image_bytes(feed, 0, feed->size) + image_bytes(feed, 1, feed->size));
	size_t bytes = batch * ((size_t) feed->nbatches + sizeof(float));

	if (bytes <= feed->engine->memory.limit)
		return true;
	error_set(error, "53200", "out of engine memory");
	error_detail(error, "Batches of %d pairs take %zu bytes, and the engine may take %zu.",
				 feed->batch_size, bytes, feed->engine->memory.limit);
	error_hint(error, "Raise the setting \"bicycle.engine_memory\", or train with a smaller option "
					  "\"batch_size\".");
	return false;
}

static bool
make_ring(RunFeed *feed)
{
	feed->batches = calloc((size_t) feed->nbatches, sizeof(RunBatch));
	if (feed->batches == NULL)
		return false;
	for (int i = 0; i < feed->nbatches; i++)
	{
		feed->batches[i].failed = feed->batch_size;
		feed->batches[i].a = calloc((size_t) feed->batch_size, image_bytes(feed, 0, feed->size));
		feed->batches[i].b = calloc((size_t) feed->batch_size, image_bytes(feed, 1, feed->size));
		if (feed->batches[i].a == NULL || feed->batches[i].b == NULL)
			return false;
	}
	return true;
}

void
run_feed_prepare(RunFeed *feed, Engine *engine, RunData *data, const NnConfig *config,
				 const NnTrainOptions *options)
{
	feed->engine = engine;
	feed->data = data;
	feed->size = config->size;
	feed->load_size = options->load_size;
	feed->channels[0] = config->input_nc;
	feed->channels[1] = config->output_nc;
	feed->batch_size = options->batch_size;
	feed->options = *options;
	feed->cache_limit = data->memory + data->others < data->memory_limit
							? data->memory_limit - data->memory - data->others
							: 0;
}

bool
run_feed_start(RunFeed *feed, Engine *engine, RunData *data, const NnConfig *config,
			   const NnTrainOptions *options, int64_t iteration, int64_t iterations,
			   EngineError *error)
{
	int threads = engine->pool.nthreads;

	run_feed_prepare(feed, engine, data, config, options);
	INVARIANT(data->npairs >= options->batch_size);
	feed->batches_an_epoch = data->npairs / options->batch_size;
	if (__builtin_mul_overflow((uint64_t) iterations, (uint64_t) options->batch_size, &feed->end))
		feed->end = UINT64_MAX; /* nobody will see it */
	feed->next = (uint64_t) iteration * (uint64_t) options->batch_size;
	feed->taken = (uint64_t) iteration;
	feed->nbatches = (threads + options->batch_size - 1) / options->batch_size + RING_AHEAD;
	if (!check_ring(feed, error))
		return false;
	feed->order = malloc((size_t) data->npairs * sizeof(uint32_t));
	feed->tasks = calloc((size_t) threads, sizeof(RunFeedTask));
	if (feed->order == NULL || feed->tasks == NULL || !make_ring(feed))
		return error_memory(error, "batches of images");
	for (int i = 0; i < threads; i++)
	{
		feed->tasks[i].feed = feed;
		feed->tasks[i].task.run = feed_pairs;
		feed->tasks[i].task.done = feed_pairs_done;
		executor_submit(&engine->pool, &feed->tasks[i].task, TASK_SECOND);
	}
	return true;
}

void
run_feed_stop(RunFeed *feed)
{
	pthread_mutex_lock(&feed->lock);
	feed->stop = true;
	pthread_cond_broadcast(&feed->room);
	pthread_cond_broadcast(&feed->filled);
	pthread_mutex_unlock(&feed->lock);
}

/* How many pairs of the batch in that place of the ring were given out. */
static uint64_t
given_out(const RunFeed *feed, int place)
{
	uint64_t ring = (uint64_t) feed->nbatches;
	uint64_t batch = feed->taken + ((uint64_t) place + ring - feed->taken % ring) % ring;
	uint64_t first = batch * (uint64_t) feed->batch_size;
	uint64_t n = feed->next > first ? feed->next - first : 0;

	return n < (uint64_t) feed->batch_size ? n : (uint64_t) feed->batch_size;
}

static void
check_order(const RunFeed *feed)
{
	uint64_t rows = (uint64_t) feed->data->npairs, sum = 0;

	for (uint64_t i = 0; i < rows; i++)
	{
		INVARIANT(feed->order[i] < rows);
		sum += feed->order[i];
	}
	INVARIANT(sum == rows * (rows - 1) / 2); /* R2: each once */
}

static void
check_cache(const RunFeed *feed)
{
	uint64_t bytes = image_bytes(feed, 0, feed->load_size) + image_bytes(feed, 1, feed->load_size);
	uint64_t cached = 0;

	for (int64_t i = 0; i < feed->data->npairs; i++)
		cached += feed->data->pairs[i].pixels != NULL ? bytes : 0;
	INVARIANT(cached == feed->cached && cached <= feed->cache_limit); /* R6 */
}

void
run_feed_check(RunFeed *feed)
{
	if (feed->batches == NULL)
		return; /* not begun */
	pthread_mutex_lock(&feed->lock);
	INVARIANT(feed->next <= feed->end && feed->next >= feed->taken * (uint64_t) feed->batch_size &&
			  feed->next - feed->taken * (uint64_t) feed->batch_size <=
				  (uint64_t) feed->nbatches * (uint64_t) feed->batch_size); /* R4, R5 */
	for (int i = 0; i < feed->nbatches; i++)
	{
		const RunBatch *batch = &feed->batches[i];

		INVARIANT(batch->done >= 0 && (uint64_t) batch->done <= given_out(feed, i));
		INVARIANT((batch->failed < feed->batch_size) == error_is_set(&batch->error));
	}
	check_cache(feed);
	if (feed->epoch != NO_EPOCH)
		check_order(feed);
	pthread_mutex_unlock(&feed->lock);
}

void
run_feed_free(RunFeed *feed)
{
	for (int i = 0; i < feed->nbatches && feed->batches != NULL; i++)
	{
		free(feed->batches[i].a);
		free(feed->batches[i].b);
	}
	free(feed->batches);
	free(feed->order);
	free(feed->tasks);
	pthread_mutex_destroy(&feed->lock);
	pthread_cond_destroy(&feed->room);
	pthread_cond_destroy(&feed->filled);
}
