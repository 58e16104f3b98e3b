/*
 * run_save.c
 *	  Checkpoints of a run: the fit's state as a stream, made at once, or from a
 *	  snapshot while training goes on.
 *
 * A snapshot is the device thread's until run->snapshot has it, from where a
 * thread of its own, the saver, takes it. Both are behind run->lock, and so is
 * the error that the saver ends with.
 *
 * R1 From the snapshot on checkpoint_queued is set, so there is one at most
 *    (R12 of run_protocol.h), and who waits for a checkpoint to be read waits
 *    for the saver, too.
 * R2 What is sent are the bits of the state after the iteration that it names.
 * R3 Where a GPU has no room for a snapshot, training waits until the state has
 *    left it, and a note says so, once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run.h"

/* ---- States as streams --------------------------------------------------- */

/* snapshot: of which the tensors are; NULL: they have data. */
static bool
pack_tensors(const NnTensor *tensors, int ntensors, const NnFitSnapshot *snapshot, uint8_t *at,
			 EngineError *error)
{
	for (int i = 0; i < ntensors; i++)
	{
		BicycleTensor header;
		NnError nn_error = { 0 };

		if (!stream_header(&tensors[i], &header, error))
			return false;
		memcpy(at, &header, sizeof(header));
		at += sizeof(header);
		if (snapshot == NULL)
			memcpy(at, tensors[i].data, tensors[i].nbytes);
		else if (nn_snapshot_read(snapshot, i, at, &nn_error) != NN_OK)
			return error_from_nn(error, &nn_error);
		at += tensors[i].nbytes;
		executor_progress();
	}
	return true;
}

/* *bytes is malloc'ed, and has room for `more` behind *length. */
static bool
make_stream(const NnTensor *tensors, int ntensors, const NnFitSnapshot *snapshot, size_t more,
			uint8_t **bytes, size_t *length, EngineError *error)
{
	size_t total = 0;

	for (int i = 0; i < ntensors; i++)
		total += sizeof(BicycleTensor) + tensors[i].nbytes;
	*length = total;
	*bytes = malloc(total + more + 1);
	if (*bytes == NULL)
		return error_memory(error, "a copy of the model");
	if (pack_tensors(tensors, ntensors, snapshot, *bytes, error))
		return true;
	free(*bytes);
	return false;
}

bool
run_tensors_pack(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
				 EngineError *error)
{
	return make_stream(tensors, ntensors, NULL, 0, bytes, length, error);
}

bool
run_snapshot_pack(const NnFitSnapshot *snapshot, uint8_t **bytes, size_t *length,
				  EngineError *error)
{
	int n;
	const NnTensor *tensors = nn_snapshot_tensors(snapshot, &n);

	return make_stream(tensors, n, snapshot, 0, bytes, length, error);
}

/* What is known of the best weights; *best is NULL where there are none. */
static bool
pack_best(const Run *run, uint8_t **best, size_t *length, EngineError *error)
{
	*best = NULL;
	*length = 0;
	return (!run->validation.best.found && run->validation.best.missed == 0) ||
		   run_best_pack(&run->validation.best, run->validation.data.digest, best, length, error);
}

/* A checkpoint's stream, and what is known of the best. */
static bool
make_checkpoint(const NnFitSnapshot *snapshot, const uint8_t *best, size_t best_length,
				uint8_t **bytes, size_t *length, EngineError *error)
{
	int n;
	const NnTensor *tensors = nn_snapshot_tensors(snapshot, &n);

	if (!make_stream(tensors, n, snapshot, best_length, bytes, length, error))
		return false;
	if (best_length > 0)
		memcpy(*bytes + *length, best, best_length);
	*length += best_length;
	return true;
}

static void
queue_checkpoint(Run *run, int64_t iteration, bool last, uint8_t *bytes, size_t length)
{
	BicycleCheckpoint head = { .iteration = iteration,
							   .stream_length = length,
							   .flags = last ? BICYCLE_CHECKPOINT_LAST : 0 };

	run_link_send_stream(&run->link, BICYCLE_CHECKPOINT, &head, sizeof(head), NULL, 0, bytes,
						 length);
}

/* ---- At once ------------------------------------------------------------- */

static void
begin_checkpoint(Run *run, NnFitSnapshot *snapshot, uint8_t *best, size_t best_length)
{
	pthread_mutex_lock(&run->lock);
	INVARIANT(!run->checkpoint_queued && run->snapshot == NULL); /* R1 */
	run->checkpoint_queued = true;
	run->checkpoint_wanted = false;
	run->snapshot = snapshot;
	run->best = best;
	run->best_length = best_length;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}

bool
run_checkpoint(Run *run, EngineError *error)
{
	NnFitSnapshot *view;
	NnError nn_error = { 0 };
	uint8_t *bytes, *best;
	size_t length, best_length;
	bool made;

	if (nn_fit_view(run->fit, NN_FIT_STATE, &view, &nn_error) != NN_OK)
		return error_from_nn(error, &nn_error);
	made = pack_best(run, &best, &best_length, error);
	if (made)
	{
		made = make_checkpoint(view, best, best_length, &bytes, &length, error);
		free(best);
	}
	nn_snapshot_free(view);
	if (!made)
		return false;
	begin_checkpoint(run, NULL, NULL, 0);
	queue_checkpoint(run, nn_fit_iteration(run->fit), run_is_last(run), bytes, length);
	return true;
}

/* ---- Beside the loop ----------------------------------------------------- */

static void
note_no_room(Run *run, const NnError *why)
{
	BicycleNote head = { BICYCLE_NOTE_NO_COPY };
	char text[sizeof(why->detail) + 160];

	if (run->note_copy)
		return;
	snprintf(text, sizeof(text),
			 "iteration %lld: training waits while a checkpoint is made, as its GPU has no room "
			 "for a copy.  %s",
			 (long long) nn_fit_iteration(run->fit), why->detail);
	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
	run->note_copy = true;
}

bool
run_checkpoint_begin(Run *run, EngineError *error)
{
	NnFitSnapshot *snapshot;
	NnError nn_error = { 0 };
	NnStatus status;
	uint8_t *best;
	size_t best_length;

	if (!nn_fit_has_snapshots(run->fit))
		return run_checkpoint(run, error);
	status = nn_fit_snapshot(run->fit, &snapshot, &nn_error);
	if (status == NN_ENOMEM)
	{
		note_no_room(run, &nn_error);
		return run_checkpoint(run, error);
	}
	if (status != NN_OK)
		return error_from_nn(error, &nn_error);
	if (!pack_best(run, &best, &best_length, error))
	{
		nn_snapshot_free(snapshot);
		return false;
	}
	begin_checkpoint(run, snapshot, best, best_length);
	return true;
}

static NnFitSnapshot *
next_snapshot(Run *run, uint8_t **best, size_t *best_length)
{
	NnFitSnapshot *snapshot = NULL;

	pthread_mutex_lock(&run->lock);
	while (run->snapshot == NULL && !run->loop_over)
		executor_wait(&run->wake, &run->lock);
	/* when the loop is over nobody waits for one that is left */
	if (!run->loop_over)
	{
		snapshot = run->snapshot;
		*best = run->best;
		*best_length = run->best_length;
		run->snapshot = NULL;
		run->best = NULL;
	}
	pthread_mutex_unlock(&run->lock);
	return snapshot;
}

static void
save_failed(Run *run, const EngineError *error)
{
	pthread_mutex_lock(&run->lock);
	run->save_error = *error;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}

void
run_save(Task *task)
{
	Run *run = list_member(Run, save_task, task);
	NnFitSnapshot *snapshot;
	uint8_t *best;
	size_t best_length;

	while ((snapshot = next_snapshot(run, &best, &best_length)) != NULL)
	{
		int64_t iteration = nn_snapshot_iteration(snapshot);
		EngineError error;
		uint8_t *bytes;
		size_t length;
		bool made = make_checkpoint(snapshot, best, best_length, &bytes, &length, &error);

		nn_snapshot_free(snapshot);
		free(best);
		if (made)
			queue_checkpoint(run, iteration, false, bytes, length);
		else
			save_failed(run, &error);
	}
}

void
run_save_end(Run *run)
{
	pthread_mutex_lock(&run->lock);
	run->loop_over = true;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}
