/*
 * pairs.c
 *	  Pairs of images that network L compares. It runs on images one by one, and
 *	  what it makes of one is kept: samples and truths are in many pairs.
 *
 * R1 A pair's distance is the squared distance of its images' numbers. It
 *    depends neither on what has been kept nor on other pairs, as far as the
 *    device's bits do not.
 * R2 Images are the same if all their bytes are; a hash only finds them.
 * R3 What a pass wants stays until it is over. Other passes know its new images
 *    from then on only.
 * R4 Kept is what the last pass wanted, and of older images as much as
 *    nn_model_keep_seen says, those used last.
 *
 * On the host's memory, also if the device has its own. Owner's thread.
 */
#include "nn/model_private.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* ---- Images that have been seen ------------------------------------------ */

static size_t
writes_of(const NnModel *m, NnExtent extent, int output)
{
	return model_writes(m, NN_NET_L, extent, output);
}

static size_t
bytes_of_numbers(const NnModel *m, NnExtent extent)
{
	return nn_mul(nn_sum(writes_of(m, extent, 0), writes_of(m, extent, 1)), sizeof(float));
}

static size_t
bytes_of_seen(const NnModel *m, NnExtent extent)
{
	return nn_sum(nn_sum(sizeof(Seen), bytes_of_numbers(m, extent)),
				  model_reads(m, NN_NET_L, extent));
}

static uint64_t
hash_image(const uint8_t *image, size_t bytes)
{
	uint64_t hash = bytes;

	for (size_t i = 0; i < bytes; i += sizeof(uint64_t))
	{
		uint64_t word = 0;

		memcpy(&word, image + i, bytes - i < sizeof(word) ? bytes - i : sizeof(word));
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 32;
	}
	return hash;
}

static Seen *
find_seen(Seen *const *list, int n, NnExtent extent, uint64_t hash, const uint8_t *image,
		  size_t bytes)
{
	for (int i = 0; i < n; i++)
		if (list[i]->hash == hash && list[i]->extent.h == extent.h &&
			list[i]->extent.w == extent.w && memcmp(list[i]->image, image, bytes) == 0)
			return list[i];
	return NULL;
}

static Seen *
new_seen(const NnModel *m, NnExtent extent, uint64_t hash, const uint8_t *image)
{
	Seen *seen = malloc(bytes_of_seen(m, extent));

	if (!seen)
		return NULL;
	*seen = (Seen){ .extent = extent, .hash = hash, .numbers = (float *) (seen + 1) };
	seen->features = seen->numbers + writes_of(m, extent, 0);
	seen->image = (uint8_t *) (seen->features + writes_of(m, extent, 1));
	memcpy(seen->image, image, model_reads(m, NN_NET_L, extent));
	return seen;
}

size_t
nn_model_seen_bytes(const NnModel *model)
{
	return model->seen.bytes + (size_t) model->seen.capacity * sizeof(Seen *);
}

static int
oldest_seen(const SeenImages *seen)
{
	int oldest = -1;

	for (int i = 0; i < seen->n; i++)
		if (seen->list[i]->wanted == 0 &&
			(oldest < 0 || seen->list[i]->used < seen->list[oldest]->used))
			oldest = i;
	return oldest;
}

void
nn_model_keep_seen(NnModel *model, size_t bytes)
{
	SeenImages *seen = &model->seen;
	int oldest;

	while (seen->n > 0 && nn_model_seen_bytes(model) > bytes && (oldest = oldest_seen(seen)) >= 0)
	{
		seen->bytes -= bytes_of_seen(model, seen->list[oldest]->extent);
		free(seen->list[oldest]);
		seen->list[oldest] = seen->list[--seen->n];
	}
	if (seen->n == 0)
	{
		INVARIANT(seen->bytes == 0);
		free(seen->list);
		*seen = (SeenImages){ .uses = seen->uses };
	}
}

/* If another pass has made it meanwhile, or there is no memory, it goes. */
static void
keep_seen(NnModel *m, Seen *made)
{
	SeenImages *seen = &m->seen;
	size_t reads = model_reads(m, NN_NET_L, made->extent);
	bool known = find_seen(seen->list, seen->n, made->extent, made->hash, made->image, reads);

	if (!known && seen->n == seen->capacity)
	{
		int more = seen->capacity > 0 ? 2 * seen->capacity : 64;
		Seen **list = realloc(seen->list, (size_t) more * sizeof(Seen *));

		if (list)
		{
			seen->list = list;
			seen->capacity = more;
		}
	}
	if (known || seen->n == seen->capacity)
	{
		free(made);
		return;
	}
	seen->list[seen->n++] = made;
	seen->bytes += bytes_of_seen(m, made->extent);
}

/* ---- A pass -------------------------------------------------------------- */

size_t
pairs_bytes(const NnModel *m, NnExtent extent, int n)
{
	size_t image = nn_sum(bytes_of_seen(m, extent), bytes_of_numbers(m, extent));

	return nn_mul((size_t) n, nn_mul(2, nn_sum(image, 3 * sizeof(void *))));
}

static const uint8_t *
image_of_pairs(const NnPass *pass, int i)
{
	size_t reads = model_reads(pass->model, NN_NET_L, pass->extent);

	return pass->images ? pass->images[i / 2] + (size_t) (i % 2) * reads
						: pass->bytes + (size_t) i * reads;
}

static void
pairs_free(NnPass *pass)
{
	NnPairs *pairs = pass->pairs;

	for (int i = 0; pairs->of && i < 2 * pass->n; i++)
		if (pairs->of[i])
			pairs->of[i]->wanted--;
	for (int i = 0; pairs->made && i < pairs->images.n; i++)
		if (i < pairs->images.done)
			keep_seen(pass->model, pairs->made[i]);
		else
			free(pairs->made[i]);
	free(pairs->of);
	free(pairs->made);
	free(pairs->files);
	free(pairs->images.out[0]);
	free(pairs->images.out[1]);
	free(pairs);
	pass->pairs = NULL;
}

/* Image i of the pairs: known, in an earlier pair, or to be made. */
static bool
look_up(NnPass *pass, int i)
{
	NnPairs *pairs = pass->pairs;
	SeenImages *seen = &pass->model->seen;
	size_t reads = model_reads(pass->model, NN_NET_L, pass->extent);
	const uint8_t *image = image_of_pairs(pass, i);
	uint64_t hash = hash_image(image, reads);
	Seen *found = find_seen(seen->list, seen->n, pass->extent, hash, image, reads);

	if (!found)
		found = find_seen(pairs->made, pairs->images.n, pass->extent, hash, image, reads);
	if (!found)
	{
		found = new_seen(pass->model, pass->extent, hash, image);
		if (!found)
			return false;
		pairs->files[pairs->images.n] = found->image;
		pairs->made[pairs->images.n++] = found;
	}
	found->used = ++seen->uses;
	found->wanted++;
	pairs->of[i] = found;
	return true;
}

static bool
find_images(NnPass *pass)
{
	NnPairs *pairs = pass->pairs;
	size_t images = 2 * (size_t) pass->n, made;

	pairs->of = calloc(images, sizeof(Seen *));
	pairs->made = calloc(images, sizeof(Seen *));
	pairs->files = calloc(images, sizeof(uint8_t *));
	if (!pairs->of || !pairs->made || !pairs->files)
		return false;
	for (int i = 0; i < 2 * pass->n; i++)
		if (!look_up(pass, i))
			return false;
	made = (size_t) pairs->images.n;
	for (int i = 0; i < 2; i++)
	{
		size_t numbers = writes_of(pass->model, pass->extent, i);

		pairs->images.out[i] = malloc(nn_mul(nn_mul(made, numbers), sizeof(float)) + 1);
		if (!pairs->images.out[i])
			return false;
	}
	return true;
}

NnStatus
pairs_begin(NnPass *pass)
{
	INVARIANT(!pass->floats && pass->n > 0);
	pass->pairs = calloc(1, sizeof(NnPairs));
	if (!pass->pairs)
		return nn_no_memory(&pass->error, sizeof(NnPairs));
	pass->pairs->images =
		(NnPass){ .model = pass->model, .network = NN_NET_L, .extent = pass->extent };
	if (find_images(pass))
	{
		pass->pairs->images.images = pass->pairs->files;
		return NN_OK;
	}
	pairs_free(pass);
	return nn_no_memory(&pass->error, pairs_bytes(pass->model, pass->extent, pass->n));
}

/* Lanes add up side by side, and their order is fixed. */
#define LANES 8

static double
squared_distance(const float *a, const float *b, size_t n)
{
	double lanes[LANES] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (size_t k = 0; k < LANES; k++)
		{
			double d = (double) a[i + k] - b[i + k];

			lanes[k] += d * d;
		}
	for (size_t k = 0; i < n; i++, k++)
		lanes[k] += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
	for (size_t k = 0; k < LANES; k++)
		sum += lanes[k];
	return sum;
}

static void
make_distances(NnPass *pass)
{
	size_t numbers = writes_of(pass->model, pass->extent, 0);
	size_t features = writes_of(pass->model, pass->extent, 1);

	for (int i = 0; i < pass->n; i++)
	{
		Seen *const *of = pass->pairs->of + 2 * (size_t) i;

		pass->out[0][i] = (float) squared_distance(of[0]->numbers, of[1]->numbers, numbers);
		for (size_t k = 0; k < 2; k++)
			memcpy(pass->out[1] + (2 * (size_t) i + k) * features, of[k]->features,
				   features * sizeof(float));
	}
	pass->done = pass->n;
}

void
pairs_end(NnPass *pass)
{
	const NnPass *images = &pass->pairs->images;
	size_t numbers = writes_of(pass->model, pass->extent, 0);
	size_t features = writes_of(pass->model, pass->extent, 1);

	for (int i = 0; i < images->done; i++)
	{
		Seen *made = pass->pairs->made[i];

		memcpy(made->numbers, images->out[0] + (size_t) i * numbers, numbers * sizeof(float));
		memcpy(made->features, images->out[1] + (size_t) i * features, features * sizeof(float));
	}
	pass->status = images->status;
	pass->error = images->error;
	if (pass->status == NN_OK)
		make_distances(pass);
	pairs_free(pass);
}
