/*
 * run_best.c
 *	  The best validation of a run so far: which it was, the weights that it was
 *	  made with, and both in checkpoints.
 *
 * R1 In a checkpoint tensors of the weights have the prefix "best.". One more,
 *    "best", of network G, is an array of bytes with a BestRecord. The fit,
 *    which looks for its own names, does not see them; a checkpoint of 0.1 has
 *    none, and the run has no best one yet.
 * R2 A record of other pairs is not compared with: what is best is found anew.
 * R3 What is no finite number is never the best: nothing would be better than
 *    it. A record of iteration 0 has counted such only.
 *
 * A RunBest owns its weights, which are kept as a stream: names with the
 * prefix, so that a checkpoint is a copy of it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/invariant.h"
#include "engine/run_best.h"

#define RECORD_NAME "best"
#define PREFIX "best."
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)

/* As it lies in a checkpoint. */
typedef struct BestRecord
{
	double value;
	int64_t iteration, missed;
	uint8_t digest[BICYCLE_HASH_BYTES]; /* of the validation pairs */
} BestRecord;

bool
run_best_is(RunBest *best, NnMeasure metric, double value, int64_t iteration)
{
	if (!isfinite(value) || (best->found && !nn_measure_better(metric, value, best->value)))
	{
		best->missed++;
		return false;
	}
	best->found = true;
	best->value = value;
	best->iteration = iteration;
	best->missed = 0;
	return true;
}

void
run_best_free(RunBest *best)
{
	free(best->weights);
	memset(best, 0, sizeof(*best));
}

/* ---- Streams ------------------------------------------------------------- */

/*
 * Writes the header of a tensor under a prefix; where its numbers go. NULL with
 * *error set.
 */
static uint8_t *
begin_tensor(uint8_t *at, const char *prefix, const NnTensor *tensor, EngineError *error)
{
	char name[BICYCLE_MAX_NAME + PREFIX_LENGTH];
	NnTensor named = *tensor;
	BicycleTensor header;

	snprintf(name, sizeof(name), "%s%s", prefix, tensor->name);
	named.name = name;
	if (!stream_header(&named, &header, error))
		return NULL;
	memcpy(at, &header, sizeof(header));
	return at + sizeof(header);
}

/* Of a checkpoint only what has the prefix is the best's. */
static bool
is_best(const NnTensor *tensor, const NnFitSnapshot *from)
{
	return from != NULL || strncmp(tensor->name, PREFIX, PREFIX_LENGTH) == 0;
}

/*
 * Copies of the tensors, under the prefix. from: which they are read of; NULL:
 * they are a checkpoint's, and those that are the best's have it already.
 */
static bool
copy_tensors(uint8_t *at, const NnTensor *tensors, int ntensors, const NnFitSnapshot *from,
			 EngineError *error)
{
	for (int i = 0; i < ntensors; i++)
	{
		NnError nn_error = { 0 };

		if (!is_best(&tensors[i], from))
			continue;
		at = begin_tensor(at, from != NULL ? PREFIX : "", &tensors[i], error);
		if (at == NULL)
			return false;
		if (from == NULL)
			memcpy(at, tensors[i].data, tensors[i].nbytes);
		else if (nn_snapshot_read(from, i, at, &nn_error) != NN_OK)
			return error_from_nn(error, &nn_error);
		at += tensors[i].nbytes;
	}
	return true;
}

static bool
keep_tensors(RunBest *best, const NnTensor *tensors, int ntensors, const NnFitSnapshot *from,
			 EngineError *error)
{
	size_t length = 0;
	uint8_t *bytes;

	for (int i = 0; i < ntensors; i++)
		if (is_best(&tensors[i], from))
			length += sizeof(BicycleTensor) + tensors[i].nbytes;
	bytes = malloc(length + 1);
	if (bytes == NULL)
		return error_memory(error, "the best weights");
	if (!copy_tensors(bytes, tensors, ntensors, from, error))
	{
		free(bytes);
		return false;
	}
	free(best->weights);
	best->weights = bytes;
	best->length = length;
	return true;
}

bool
run_best_keep(RunBest *best, const NnFitSnapshot *version, EngineError *error)
{
	int n;
	const NnTensor *tensors = nn_snapshot_tensors(version, &n);

	return keep_tensors(best, tensors, n, version, error);
}

bool
run_best_weights(const RunBest *best, TensorStream *stream, EngineError *error)
{
	if (!stream_parse(best->weights, best->length, stream, error))
		return false;
	for (int i = 0; i < stream->ntensors; i++)
		stream->tensors[i].name += PREFIX_LENGTH;
	return true;
}

/* ---- Checkpoints --------------------------------------------------------- */

bool
run_best_pack(const RunBest *best, const uint8_t digest[BICYCLE_HASH_BYTES], uint8_t **bytes,
			  size_t *length, EngineError *error)
{
	BestRecord record = { best->value, best->iteration, best->missed, { 0 } };
	NnTensor tensor = { .name = RECORD_NAME,
						.network = NN_NET_G,
						.dtype = NN_U8,
						.ndim = 1,
						.shape = { sizeof(record) },
						.data = &record,
						.nbytes = sizeof(record) };
	uint8_t *end;

	memcpy(record.digest, digest, sizeof(record.digest));
	*length = sizeof(BicycleTensor) + sizeof(record) + best->length;
	*bytes = malloc(*length);
	if (*bytes == NULL)
		return error_memory(error, "a checkpoint's best weights");
	end = begin_tensor(*bytes, "", &tensor, error);
	INVARIANT(end != NULL);
	memcpy(end, &record, sizeof(record));
	if (best->length > 0)
		memcpy(end + sizeof(record), best->weights, best->length);
	return true;
}

static const NnTensor *
find_record(const TensorStream *stream)
{
	for (int i = 0; i < stream->ntensors; i++)
		if (strcmp(stream->tensors[i].name, RECORD_NAME) == 0 &&
			stream->tensors[i].nbytes == sizeof(BestRecord))
			return &stream->tensors[i];
	return NULL;
}

bool
run_best_restore(RunBest *best, const TensorStream *stream, const uint8_t *digest, bool *same,
				 EngineError *error)
{
	const NnTensor *found = find_record(stream);
	BestRecord record;

	*same = true;
	if (found == NULL)
		return true;
	memcpy(&record, found->data, sizeof(record));
	*same = digest == NULL || memcmp(record.digest, digest, sizeof(record.digest)) == 0;
	if (!*same)
		return true;
	best->missed = record.missed;
	if (record.iteration == 0 || !isfinite(record.value))
		return true;
	best->found = true;
	best->value = record.value;
	best->iteration = record.iteration;
	return keep_tensors(best, stream->tensors, stream->ntensors, NULL, error);
}
