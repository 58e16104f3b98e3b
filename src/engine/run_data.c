/*
 * run_data.c
 *	  The pairs a job trains on: checked by their headers, kept encoded, and put
 *	  into an order that is theirs alone.
 *
 * R1 The images come from users' tables and are hostile. Here only their
 *    headers are read; run_screen.c decodes them later, on threads of the pool.
 *    A pair that cannot be used stays in the digest, and nowhere else.
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
	pthread_mutex_init(&data->lock, NULL);
	data->kind = "training";
	data->spill_fd = -1;
}

void
run_data_begin(RunData *data, const BicycleTrainBegin *begin, bool side_by_side)
{
	data->side_by_side = side_by_side;
	data->memory_limit = begin->train_memory;
	data->spill_limit = begin->train_disk;
	data->max_pixels = begin->max_pixels;
	memcpy(data->spill, begin->spill, sizeof(data->spill));
}

void
run_data_free(RunData *data)
{
	for (int64_t i = 0; i < data->nread; i++)
	{
		free(data->pairs[i].bytes);
		free(data->pairs[i].pixels);
	}
	free(data->pairs);
	if (data->spill_fd >= 0)
		close(data->spill_fd);
	pthread_mutex_destroy(&data->lock);
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

/* In memory or on disk. */
static size_t
pair_bytes(const RunPair *pair)
{
	return (size_t) pair->length[0] + pair->length[1] + pair->name_length;
}

bool
run_data_read(const RunData *data, const RunPair *pair, uint8_t **bytes, uint8_t **owned,
			  EngineError *error)
{
	size_t length = pair_bytes(pair);

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
	if (data->nread < MAX_PAIRS && data->memory <= data->memory_limit &&
		data->memory_limit - data->memory >= record &&
		(fits_in_memory(data, bytes) || bytes <= data->spill_limit - data->spilled))
		return true;
	error_set(error, "54000", "there are too many %s pairs", data->kind);
	if (data->nread == MAX_PAIRS)
		error_detail(error, "The query gave more than %d rows.", MAX_PAIRS);
	else
		error_detail(error,
					 "%llu bytes of memory and %llu bytes of disk hold the first %lld of them.",
					 (unsigned long long) data->memory_limit,
					 (unsigned long long) data->spill_limit, (long long) data->nread);
	error_hint(error, "Raise the setting \"bicycle.train_memory\" or \"bicycle.train_disk\", or "
					  "train on fewer or smaller images.");
	return false;
}

#define NAME_SHOWN 64 /* bytes of a row's name */

/* "row 5", or "id 843"; bytes: of the pair, or NULL. */
static void
describe_row(const RunPair *pair, const uint8_t *bytes, char *out, size_t size)
{
	size_t images = (size_t) pair->length[0] + pair->length[1];
	int n = pair->name_length < NAME_SHOWN ? (int) pair->name_length : NAME_SHOWN;

	if (bytes != NULL && n > 0)
		snprintf(out, size, "id %.*s", n, (const char *) bytes + images);
	else
		snprintf(out, size, "row %lld", (long long) pair->ordinal);
}

void
run_data_name_row(const RunData *data, const RunPair *pair, const uint8_t *bytes, int which,
				  EngineError *error)
{
	char detail[sizeof(error->detail)];
	char row[NAME_SHOWN + 32];
	bool named = bytes != NULL && pair->name_length > 0;
	bool validation = strcmp(data->kind, "validation") == 0;

	memcpy(detail, error->detail, sizeof(detail));
	describe_row(pair, bytes, row, sizeof(row));
	error_detail(error, "It is %s of %s%s%s.%s%.900s",
				 data->side_by_side ? "the image"
				 : which == 0       ? "image A"
									: "image B",
				 named ? "the row with " : "", row,
				 validation ? " of the validation query"
				 : named    ? ""
							: " of the query",
				 detail[0] != '\0' ? "  " : "", detail);
}

void
run_data_bad(RunData *data, RunPair *pair, const EngineError *error)
{
	pthread_mutex_lock(&data->lock);
	pair->bad = true;
	if (!error_is_set(&data->bad_error) || pair->ordinal < data->bad_first)
	{
		data->bad_error = *error;
		data->bad_first = pair->ordinal;
	}
	pthread_mutex_unlock(&data->lock);
}

static bool
check_lack(uint8_t lack, EngineError *error)
{
	switch ((BicyclePairLack) lack)
	{
		case BICYCLE_PAIR_WHOLE:
			return true;
		case BICYCLE_PAIR_NULL:
			error_set(error, "22004", "an image of the pairs is null");
			return false;
		case BICYCLE_PAIR_TOO_LARGE:
			break;
	}
	error_set(error, "54000", "an image of the pairs is too large");
	error_hint(error, "See the setting \"bicycle.max_request_size\".");
	return false;
}

/* Whether an image can be used, as far as its header tells. */
static bool
check_image(const RunData *data, RunPair *pair, int which, const uint8_t *bytes, uint8_t lack,
			EngineError *error)
{
	ImageError image_error;
	ImageInfo *info = &pair->info[which];

	if (!check_lack(lack, error))
		return false;
	if (image_info(bytes, pair->length[which], info, &image_error) != IMAGE_OK)
	{
		error_from_image(error, &image_error);
		return false;
	}
	if ((uint64_t) info->width * (uint64_t) info->height > data->max_pixels)
	{
		error_set(error, "54000", "image has too many pixels");
		error_detail(error, "It has %d x %d, and %llu are allowed.", info->width, info->height,
					 (unsigned long long) data->max_pixels);
		error_hint(error, "See the setting \"bicycle.max_image_pixels\".");
		return false;
	}
	if (!data->side_by_side || info->width > 1)
		return true;
	error_set(error, "22P03", "image has no two halves");
	error_detail(error, "It is one pixel wide.");
	return false;
}

static void
check_pair(RunData *data, RunPair *pair, const BicyclePair *head, const uint8_t *bytes)
{
	int images = data->side_by_side ? 1 : 2;
	EngineError error;

	for (int i = 0; i < images; i++)
		if (!check_image(data, pair, i, bytes + (i > 0 ? pair->length[0] : 0), head->lack[i],
						 &error))
		{
			run_data_name_row(data, pair, bytes, i, &error);
			run_data_bad(data, pair, &error);
			return;
		}
}

static bool
grow_pairs(RunData *data, EngineError *error)
{
	int64_t capacity = data->capacity > 0 ? data->capacity * 2 : 256;
	RunPair *pairs;

	if (data->nread < data->capacity)
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
	size_t length = pair_bytes(pair);

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
	if ((uint64_t) head.a_length + head.b_length + head.name_length != length - sizeof(head) ||
		head.lack[0] > BICYCLE_PAIR_TOO_LARGE || head.lack[1] > BICYCLE_PAIR_TOO_LARGE)
	{
		error_set(error, "08P01", "training engine was sent something it does not understand");
		error_detail(error, "A pair of %u and %u bytes came in a frame of %zu.", head.a_length,
					 head.b_length, length);
		return false;
	}
	if (!grow_pairs(data, error))
		return false;
	pair = &data->pairs[data->nread];
	memset(pair, 0, sizeof(*pair));
	pair->length[0] = head.a_length;
	pair->length[1] = head.b_length;
	pair->name_length = head.name_length;
	pair->ordinal = data->nread + 1;
	check_pair(data, pair, &head, a);
	if (!pair_hash(a, head.a_length, a + head.a_length, head.b_length, pair->hash, error) ||
		!keep_bytes(data, pair, body, error))
		return false;
	data->memory += sizeof(RunPair);
	data->npairs = ++data->nread;
	return true;
}

/* ---- The order ----------------------------------------------------------- */

static int
compare_pairs(const void *x, const void *y)
{
	return memcmp(((const RunPair *) x)->hash, ((const RunPair *) y)->hash, BICYCLE_HASH_BYTES);
}

static int
compare_settled(const void *x, const void *y)
{
	const RunPair *a = x, *b = y;

	return a->bad != b->bad ? (a->bad ? 1 : -1) : compare_pairs(x, y);
}

bool
run_data_complete(RunData *data, EngineError *error)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;

	if (data->nread > 0)
		qsort(data->pairs, (size_t) data->nread, sizeof(RunPair), compare_pairs);
	for (int64_t i = 0; i < data->nread && good; i++)
		good = EVP_DigestUpdate(context, data->pairs[i].hash, BICYCLE_HASH_BYTES) == 1;
	good = good && EVP_DigestFinal_ex(context, data->digest, NULL) == 1;
	EVP_MD_CTX_free(context);
	if (!good)
		error_memory(error, "the digest of the training pairs");
	return good;
}

bool
run_data_known(RunData *data, const uint8_t *known, size_t length)
{
	size_t n = length / BICYCLE_HASH_BYTES;

	if (n == 0 || length % BICYCLE_HASH_BYTES != 0 ||
		memcmp(known, data->digest, BICYCLE_HASH_BYTES) != 0)
		return false;
	for (size_t i = 1; i < n; i++)
	{
		const uint8_t *hash = known + i * BICYCLE_HASH_BYTES;
		int64_t low = 0, high = data->nread;

		while (low < high)
		{
			int64_t middle = low + (high - low) / 2;

			if (memcmp(data->pairs[middle].hash, hash, BICYCLE_HASH_BYTES) < 0)
				low = middle + 1;
			else
				high = middle;
		}
		while (low < data->nread && memcmp(data->pairs[low].hash, hash, BICYCLE_HASH_BYTES) == 0)
			data->pairs[low++].bad = true;
	}
	return true;
}

#define ROWS_SHOWN 20

static int
compare_ordinals(const void *x, const void *y)
{
	const RunPair *const *a = x, *const *b = y;

	return ((*a)->ordinal > (*b)->ordinal) - ((*a)->ordinal < (*b)->ordinal);
}

/* "3, 9, 12, and 5 more": names, or places in the query. Bad pairs are last. */
static void
list_rows(const RunData *data, int64_t nbad, const RunPair **bad, char *out, size_t size)
{
	size_t used = 0;
	int64_t shown = 0;

	for (int64_t i = 0; i < nbad; i++)
		bad[i] = &data->pairs[data->npairs + i];
	qsort(bad, (size_t) nbad, sizeof(*bad), compare_ordinals);
	for (; shown < nbad && shown < ROWS_SHOWN && size - used > NAME_SHOWN + 64; shown++)
	{
		char row[NAME_SHOWN + 32];
		uint8_t *bytes, *owned;
		EngineError ignored;

		if (!run_data_read(data, bad[shown], &bytes, &owned, &ignored))
			bytes = NULL;
		describe_row(bad[shown], bytes, row, sizeof(row));
		free(owned);
		used += (size_t) snprintf(out + used, size - used, "%s%s", shown > 0 ? ", " : "", row);
	}
	if (shown < nbad)
		snprintf(out + used, size - used, ", and %lld more", (long long) (nbad - shown));
}

/* What is wrong with several pairs, of which `first` came first. */
static void
describe_bad(const RunData *data, int64_t nbad, const EngineError *first, EngineError *error)
{
	const RunPair **bad = malloc((size_t) nbad * sizeof(*bad));
	char rows[680] = "not listed, for want of memory";

	if (bad != NULL)
		list_rows(data, nbad, bad, rows, sizeof(rows));
	free(bad);
	error_set(error, error_is_set(first) ? first->sqlstate : "22P03",
			  "%lld of %lld %s pairs cannot be used", (long long) nbad, (long long) data->nread,
			  data->kind);
	error_detail(error, "They are: %s.%s%.100s%s%.200s", rows,
				 error_is_set(first) ? "  Of the first: " : "", first->message,
				 first->detail[0] != '\0' ? ".  " : "", first->detail);
	error_hint(error, "%s", first->hint);
}

int64_t
run_data_settle(RunData *data, EngineError *error)
{
	int64_t nbad = 0;

	error_clear(error);
	for (int64_t i = 0; i < data->nread; i++)
		nbad += data->pairs[i].bad;
	data->npairs = data->nread - nbad;
	if (nbad == 0)
		return 0;
	qsort(data->pairs, (size_t) data->nread, sizeof(RunPair), compare_settled);
	if (nbad == 1 && error_is_set(&data->bad_error))
		*error = data->bad_error;
	else
		describe_bad(data, nbad, &data->bad_error, error);
	return nbad;
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

	INVARIANT(data->npairs >= 0 && data->npairs <= data->nread);
	INVARIANT(data->nread <= data->capacity);
	for (int64_t i = 0; i < data->nread; i++)
	{
		const RunPair *pair = &data->pairs[i];
		uint64_t length = pair_bytes(pair);
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
