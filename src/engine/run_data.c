/*
 * run_data.c
 *	  The pairs a job trains on: checked by their headers, kept encoded, and put
 *	  into an order that is theirs alone.
 *
 * R1 The images come from users' tables and are hostile. Here only their
 *    headers are read; run_feed.c decodes them later, on threads of the pool.
 * R2 Bytes stay in memory up to three quarters of train_memory. Further pairs
 *    go to a spill file of up to train_disk bytes, one behind the other.
 * R3 The spill file has no name, or loses it as soon as it is made, so that it
 *    goes with the process however that ends.
 * R4 Pairs are ordered by their SHA-256, not as the query happened to give
 *    them: the same rows are the same run. Pairs that are there twice stay
 *    twice.
 * R5 What is taken of train_memory is counted in `memory`: a record for each
 *    pair, and the bytes of those in memory.
 *
 * Threads: see run_data.h. A RunData owns its pairs with their bytes and cached
 * pixels, and the spill file.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/run_data.h"

#define MAX_PAIRS INT32_MAX

void
run_data_init(RunData *data)
{
	memset(data, 0, sizeof(*data));
	data->spill_fd = -1;
}

void
run_data_begin(RunData *data, const BicycleTrainBegin *begin)
{
	data->memory_limit = begin->train_memory;
	data->spill_limit = begin->train_disk;
	data->max_pixels = begin->max_pixels;
	memcpy(data->spill, begin->spill, sizeof(data->spill));
}

void
run_data_free(RunData *data)
{
	for (int64_t i = 0; i < data->npairs; i++)
	{
		free(data->pairs[i].bytes);
		free(data->pairs[i].pixels);
	}
	free(data->pairs);
	if (data->spill_fd >= 0)
		close(data->spill_fd);
	run_data_init(data);
}

/* ---- The spill file ------------------------------------------------------ */

static bool
file_error(EngineError *error, const char *what)
{
	int code = errno;

	error_set(error, code == ENOSPC || code == EDQUOT ? "53100" : "58030",
			  "could not %s the file that training pairs are kept in", what);
	error_detail(error, "The operating system reported: %s.", strerror(code));
	if (code == ENOSPC || code == EDQUOT)
		error_hint(error, "Free some space on the disk, or train on fewer or smaller images.");
	return false;
}

/* PostgreSQL makes this directory itself when it first needs it. */
static bool
spill_open(RunData *data, EngineError *error)
{
	char name[sizeof(data->spill) + 32];

	if (data->spill_fd >= 0)
		return true;
	if (mkdir(data->spill, 0700) != 0 && errno != EEXIST)
		return file_error(error, "create");
	data->spill_fd = open(data->spill, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (data->spill_fd < 0)
	{
		/* PostgreSQL clears this prefix when it starts. */
		snprintf(name, sizeof(name), "%s/pgsql_tmp_bicycle.XXXXXX", data->spill);
		data->spill_fd = mkostemp(name, O_CLOEXEC);
		if (data->spill_fd >= 0)
			unlink(name);
	}
	return data->spill_fd >= 0 || file_error(error, "create");
}

static bool
spill_write(RunData *data, const uint8_t *bytes, size_t length, EngineError *error)
{
	size_t at = 0;

	if (!spill_open(data, error))
		return false;
	while (at < length)
	{
		ssize_t n = pwrite(data->spill_fd, bytes + at, length - at, (off_t) (data->spilled + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return file_error(error, "write");
		at += (size_t) n;
	}
	data->spilled += length;
	return true;
}

static bool
spill_read(const RunData *data, int64_t offset, uint8_t *bytes, size_t length, EngineError *error)
{
	size_t at = 0;

	while (at < length)
	{
		ssize_t n = pread(data->spill_fd, bytes + at, length - at, (off_t) offset + (off_t) at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return file_error(error, "read");
		at += (size_t) n;
	}
	return true;
}

bool
run_data_read(const RunData *data, const RunPair *pair, uint8_t **bytes, uint8_t **owned,
			  EngineError *error)
{
	size_t length = (size_t) pair->length[0] + pair->length[1];

	*owned = NULL;
	*bytes = pair->bytes;
	if (pair->bytes != NULL)
		return true;
	*bytes = *owned = malloc(length);
	if (*bytes == NULL)
		return error_memory(error, "a pair of images");
	return spill_read(data, pair->offset, *bytes, length, error);
}

/* ---- Receiving ----------------------------------------------------------- */

/* A quarter is for the records of pairs that go to disk. */
static bool
fits_in_memory(const RunData *data, uint64_t bytes)
{
	uint64_t limit = data->memory_limit - data->memory_limit / 4;
	uint64_t taken = data->memory + sizeof(RunPair);

	return taken <= limit && bytes <= limit - taken;
}

bool
run_data_check_room(const RunData *data, uint64_t bytes, EngineError *error)
{
	uint64_t record = sizeof(RunPair);

	INVARIANT(data->spilled <= data->spill_limit);
	if (data->npairs < MAX_PAIRS && data->memory <= data->memory_limit &&
		data->memory_limit - data->memory >= record &&
		(fits_in_memory(data, bytes) || bytes <= data->spill_limit - data->spilled))
		return true;
	error_set(error, "54000", "there are too many training pairs");
	if (data->npairs == MAX_PAIRS)
		error_detail(error, "The query gave more than %d rows.", MAX_PAIRS);
	else
		error_detail(error,
					 "%llu bytes of memory and %llu bytes of disk hold the first %lld of them.",
					 (unsigned long long) data->memory_limit,
					 (unsigned long long) data->spill_limit, (long long) data->npairs);
	error_hint(error, "Raise the setting \"bicycle.train_memory\" or \"bicycle.train_disk\", or "
					  "train on fewer or smaller images.");
	return false;
}

void
run_data_name_row(EngineError *error, int64_t ordinal, char side)
{
	char detail[sizeof(error->detail)];

	memcpy(detail, error->detail, sizeof(detail));
	error_detail(error, "It is image %c of row %lld of the query.%s%.900s", side,
				 (long long) ordinal, detail[0] != '\0' ? "  " : "", detail);
}

static bool
check_image(const RunData *data, RunPair *pair, int which, const uint8_t *bytes, EngineError *error)
{
	ImageError image_error;
	ImageInfo *info = &pair->info[which];

	if (image_info(bytes, pair->length[which], info, &image_error) != IMAGE_OK)
	{
		error_from_image(error, &image_error);
		run_data_name_row(error, pair->ordinal, "AB"[which]);
		return false;
	}
	if ((uint64_t) info->width * (uint64_t) info->height > data->max_pixels)
	{
		error_set(error, "54000", "image has too many pixels");
		error_detail(error, "It has %d x %d, and %llu are allowed.", info->width, info->height,
					 (unsigned long long) data->max_pixels);
		error_hint(error, "See the setting \"bicycle.max_image_pixels\".");
		run_data_name_row(error, pair->ordinal, "AB"[which]);
		return false;
	}
	return true;
}

static bool
grow_pairs(RunData *data, EngineError *error)
{
	int64_t capacity = data->capacity > 0 ? data->capacity * 2 : 256;
	RunPair *pairs;

	if (data->npairs < data->capacity)
		return true;
	pairs = realloc(data->pairs, (size_t) capacity * sizeof(RunPair));
	if (pairs == NULL)
		return error_memory(error, "a list of training pairs");
	data->pairs = pairs;
	data->capacity = capacity;
	return true;
}

static bool
keep_bytes(RunData *data, RunPair *pair, const uint8_t *body, EngineError *error)
{
	const size_t head = sizeof(BicyclePair);
	size_t length = (size_t) pair->length[0] + pair->length[1];

	if (!fits_in_memory(data, length))
	{
		pair->offset = (int64_t) data->spilled;
		return spill_write(data, body + head, length, error);
	}
	pair->bytes = malloc(length > 0 ? length : 1);
	if (pair->bytes == NULL)
		return error_memory(error, "a pair of images");
	memcpy(pair->bytes, body + head, length);
	data->memory += length;
	return true;
}

bool
run_data_add(RunData *data, const uint8_t *body, size_t length, EngineError *error)
{
	BicyclePair head;
	RunPair *pair;
	const uint8_t *a = body + sizeof(head);

	INVARIANT(length >= sizeof(head));
	memcpy(&head, body, sizeof(head));
	if ((uint64_t) head.a_length + head.b_length != length - sizeof(head))
	{
		error_set(error, "08P01", "training engine was sent something it does not understand");
		error_detail(error, "A pair of %u and %u bytes came in a frame of %zu.", head.a_length,
					 head.b_length, length);
		return false;
	}
	if (!grow_pairs(data, error))
		return false;
	pair = &data->pairs[data->npairs];
	memset(pair, 0, sizeof(*pair));
	pair->length[0] = head.a_length;
	pair->length[1] = head.b_length;
	pair->ordinal = data->npairs + 1;
	if (!check_image(data, pair, 0, a, error) ||
		!check_image(data, pair, 1, a + head.a_length, error) ||
		!pair_hash(a, head.a_length, a + head.a_length, head.b_length, pair->hash, error) ||
		!keep_bytes(data, pair, body, error))
		return false;
	data->memory += sizeof(RunPair);
	data->npairs++;
	return true;
}

/* ---- The order ----------------------------------------------------------- */

static int
compare_pairs(const void *x, const void *y)
{
	return memcmp(((const RunPair *) x)->hash, ((const RunPair *) y)->hash, BICYCLE_HASH_BYTES);
}

bool
run_data_complete(RunData *data, EngineError *error)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;

	if (data->npairs > 0)
		qsort(data->pairs, (size_t) data->npairs, sizeof(RunPair), compare_pairs);
	for (int64_t i = 0; i < data->npairs && good; i++)
		good = EVP_DigestUpdate(context, data->pairs[i].hash, BICYCLE_HASH_BYTES) == 1;
	good = good && EVP_DigestFinal_ex(context, data->digest, NULL) == 1;
	EVP_MD_CTX_free(context);
	if (!good)
		error_memory(error, "the digest of the training pairs");
	return good;
}

/*
 * Ranges of bytes that lie one behind the other from 0 on have squares of their
 * ends, less those of their beginnings, that add up to the square of the last
 * end.
 */
void
run_data_check(const RunData *data)
{
	uint64_t memory = 0, spilled = 0, squares = 0;

	INVARIANT(data->npairs >= 0 && data->npairs <= data->capacity);
	for (int64_t i = 0; i < data->npairs; i++)
	{
		const RunPair *pair = &data->pairs[i];
		uint64_t length = (uint64_t) pair->length[0] + pair->length[1];
		uint64_t offset = (uint64_t) pair->offset;

		memory += sizeof(RunPair) + (pair->bytes != NULL ? length : 0);
		if (pair->bytes != NULL)
			continue;
		spilled += length;
		squares += (offset + length) * (offset + length) - offset * offset;
	}
	INVARIANT(memory == data->memory && memory <= data->memory_limit);                /* R5 */
	INVARIANT(spilled == data->spilled && squares == spilled * spilled);              /* R2 */
	INVARIANT(spilled <= data->spill_limit && (spilled == 0 || data->spill_fd >= 0)); /* R2 */
}
