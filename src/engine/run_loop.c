/*
 * run_loop.c
 *	  The training loop, and what is made of the fit's state.
 *
 * Everything here runs on the device thread, as two tasks: one that opens the
 * device and the fit (run_device.c), one that is the loop. The loop talks to
 * the I/O thread in two ways only: it queues frames (run_link.c), and between
 * two iterations it looks at the orders behind run->lock. What it sends is
 * copied at that border, so training goes on while the I/O thread streams it;
 * of a GPU's state the copy, too, leaves beside it (run_save.c).
 *
 * The rules cited here are those of run_protocol.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run.h"

#define LOSSES_MS 1000        /* means are sent about so often, */
#define LOSSES_ITERATIONS 100 /* and after so many iterations at the latest */

/* What has been summed up since the last LOSSES. */
typedef struct RunSums
{
	double value[NN_LOSSES];
	bool present[NN_LOSSES];
	int count;
	int64_t since; /* ms */
} RunSums;

/* ---- Opening ------------------------------------------------------------- */

static void
describe_run(Run *run)
{
	BicycleTrainReady *ready = &run->ready;

	memset(ready, 0, sizeof(*ready));
	ready->rows = run->data.npairs;
	ready->iteration = nn_fit_iteration(run->fit);
	ready->iterations = run_is_finished(run) ? ready->iteration : nn_fit_iterations(run->fit);
	memcpy(ready->data_digest, run->data.digest, sizeof(ready->data_digest));
	snprintf(ready->platform, sizeof(ready->platform), BICYCLE_PLATFORM,
			 nn_device_describe(run->engine->device.nn), nn_precision_name(run_precision(run)),
			 BICYCLE_VERSION);
}

/* What an earlier run has found best; a finished one's pairs do not come. */
static bool
restore_best(Run *run, const TensorStream *stream)
{
	static const char text[] = "the query of the option \"validation\" gives other pairs than "
							   "before; what is best is found anew";
	const uint8_t *digest = run_is_finished(run) ? NULL : run->validation.data.digest;
	BicycleNote head = { BICYCLE_NOTE_OTHER_PAIRS };
	bool same;

	if (!run->validation.on || run->begin.iteration == 0)
		return true;
	if (!run_best_restore(&run->validation.best, stream, digest, &same, &run->error))
		return false;
	if (!same)
		run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
	return true;
}

void
run_open(Task *task)
{
	Run *run = list_member(Run, open_task, task);
	TensorStream stream = { 0 };
	NnConfig stored;

	error_clear(&run->error);
	if (run->begin.stream_length > 0 &&
		!stream_parse(run->stream, run->begin.stream_length, &stream, &run->error))
		return;
	/* A checkpoint is the job worker's; a version's row its owner may write. */
	if ((run->begin.start.config_length == 0 ||
		 model_verify(&run->begin.start, run->start_config, &stored, &stream, &run->error)) &&
		run_device_open(run, &stream) && restore_best(run, &stream))
		describe_run(run);
	stream_free(&stream);
	free(run->stream);
	run->stream = NULL;
}

/* ---- The model ----------------------------------------------------------- */

/* The tensors are in the order of the hash, and those of the stream. */
static bool
send_version(Run *run, const NnTensor *tensors, int n, int64_t iteration, uint8_t *bytes,
			 size_t length, EngineError *error)
{
	BicycleTrainDone head = { .iteration = iteration };
	NnConfig config = run->config;
	char *canonical;
	bool good;

	/* an arithmetic of training only */
	if (config.precision == NN_PRECISION_TF32)
		config.precision = NN_PRECISION_FP32;
	canonical = nn_config_print(&config);
	if (canonical == NULL)
		error_memory(error, "a model");
	good = canonical != NULL && model_hash(canonical, tensors, n, head.model.hash, error);
	if (good)
	{
		head.model.stream_length = length;
		head.model.config_length = (uint32_t) strlen(canonical);
		head.model.ntensors = (uint32_t) n;
		run_link_send_stream(&run->link, BICYCLE_TRAIN_DONE, &head, sizeof(head), canonical,
							 head.model.config_length, bytes, length);
	}
	else
		free(bytes);
	free(canonical);
	return good;
}

static bool
send_best(Run *run, EngineError *error)
{
	TensorStream stream;
	uint8_t *bytes;
	size_t length;
	bool sent;

	if (!run_best_weights(&run->validation.best, &stream, error))
		return false;
	sent = stream_order(&run->config, stream.tensors, stream.ntensors, error) &&
		   run_tensors_pack(stream.tensors, stream.ntensors, &bytes, &length, error) &&
		   send_version(run, stream.tensors, stream.ntensors, run->validation.best.iteration, bytes,
						length, error);
	stream_free(&stream);
	return sent;
}

static bool
view_version(Run *run, NnFitSnapshot **view, EngineError *error)
{
	NnError nn_error = { 0 };

	return nn_fit_view(run->fit, NN_FIT_VERSION, view, &nn_error) == NN_OK ||
		   error_from_nn(error, &nn_error);
}

/* The weights as they are; they are copied once, and hashed there. */
static bool
send_last(Run *run, EngineError *error)
{
	NnFitSnapshot *view;
	TensorStream stream;
	uint8_t *bytes;
	size_t length;
	bool good;

	if (!view_version(run, &view, error))
		return false;
	good = run_snapshot_pack(view, &bytes, &length, error);
	nn_snapshot_free(view);
	if (!good)
		return false;
	if (!stream_parse(bytes, length, &stream, error))
	{
		free(bytes);
		return false;
	}
	good = send_version(run, stream.tensors, stream.ntensors, nn_fit_iteration(run->fit), bytes,
						length, error);
	stream_free(&stream);
	return good;
}

static bool
send_model(Run *run, EngineError *error)
{
	if (run->options.keep == NN_KEEP_BEST && run->validation.best.found)
		return send_best(run, error);
	return send_last(run, error);
}

/* ---- Telling the job worker ---------------------------------------------- */

static void
reset_sums(RunSums *sums)
{
	memset(sums, 0, sizeof(*sums));
	sums->since = now_ms();
}

static void
add_losses(RunSums *sums, const NnLosses *losses)
{
	for (int i = 0; i < NN_LOSSES; i++)
	{
		sums->present[i] = losses->present[i];
		if (losses->present[i])
			sums->value[i] += losses->value[i];
	}
	sums->count++;
}

/* As the job worker shows them; iterations may be any number. */
static int32_t
shown(int64_t epochs)
{
	return epochs < INT32_MAX ? (int32_t) epochs : INT32_MAX;
}

static void
send_losses(Run *run, RunSums *sums)
{
	BicycleLosses frame = { .iteration = nn_fit_iteration(run->fit) };
	int64_t batches = run->feed.batches_an_epoch;
	int64_t elapsed = now_ms() - sums->since;

	if (sums->count == 0)
		return;
	frame.epoch = shown((frame.iteration - 1) / batches + 1);
	frame.epochs = shown((run->ready.iterations + batches - 1) / batches);
	frame.images_per_second = run->rate = (double) sums->count * run->options.batch_size * 1000 /
										  (double) (elapsed > 0 ? elapsed : 1);
	for (int i = 0; i < NN_LOSSES; i++)
	{
		if (!sums->present[i])
			continue;
		frame.present |= 1u << i;
		frame.value[i] = sums->value[i] / sums->count;
	}
	run_link_send(&run->link, BICYCLE_LOSSES, &frame, sizeof(frame), NULL, 0);
	reset_sums(sums);
}

static bool
send_preview(Run *run, EngineError *error)
{
	BicyclePreview head = { .iteration = nn_fit_iteration(run->fit) };
	uint8_t *png;
	size_t length;

	if (!run_preview_sheet(&run->preview, run->fit, &png, &length, error))
		return false;
	run_link_send(&run->link, BICYCLE_PREVIEW, &head, sizeof(head), png, length);
	free(png);
	return true;
}

static bool
watch_diversity(Run *run, EngineError *error)
{
	BicycleNote head = { BICYCLE_NOTE_COLLAPSE };
	char text[256];
	double diversity;
	bool collapsed;
	int64_t iteration = nn_fit_iteration(run->fit);

	if (!run_preview_watch(&run->preview, run->fit, iteration, run->ready.iterations, &diversity,
						   &collapsed, error))
		return false;
	if (!collapsed)
		return true;
	snprintf(text, sizeof(text),
			 "samples hardly vary with z since about iteration %lld: two samples of one input "
			 "differ by %.2g of 255 levels"
			 " on average",
			 (long long) iteration, diversity * 127.5);
	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
	return true;
}

/* ---- Validation ---------------------------------------------------------- */

static int64_t
validate_every(const Run *run)
{
	return run->options.validate_every > 0 ? run->options.validate_every
										   : run->feed.batches_an_epoch;
}

static void
send_measured(Run *run, const RunMeasured *measured)
{
	BicycleValidated frame = { .iteration = nn_fit_iteration(run->fit) };

	for (int i = 0; i < NN_MEASURES; i++)
	{
		frame.present |= (uint32_t) measured->present[i] << i;
		frame.value[i] = measured->value[i];
	}
	run_link_send(&run->link, BICYCLE_VALIDATED, &frame, sizeof(frame), NULL, 0);
}

static bool
keep_best(Run *run, EngineError *error)
{
	NnFitSnapshot *view;
	bool kept;

	if (!view_version(run, &view, error))
		return false;
	kept = run_best_keep(&run->validation.best, view, error);
	nn_snapshot_free(view);
	return kept;
}

/* Measures, keeps what is best, and ends the run if that was long ago. */
static bool
validate(Run *run, EngineError *error)
{
	RunBest *best = &run->validation.best;
	NnMeasure metric = run->options.keep_metric;
	RunMeasured measured;

	if (!run_validation_measure(&run->validation, run->fit, run->options.seed, &measured, error))
		return false;
	send_measured(run, &measured);
	if (!measured.present[metric])
		return true; /* which nothing depends on: that has been checked */
	if (run_best_is(best, metric, measured.value[metric], nn_fit_iteration(run->fit)) &&
		run->options.keep == NN_KEEP_BEST && !keep_best(run, error))
		return false;
	run->early = run->options.patience > 0 && best->missed >= run->options.patience;
	return true;
}

/* What validation has made of the run. */
static void
note_best(Run *run)
{
	const RunBest *best = &run->validation.best;
	const char *metric = bicycle_measure_names[run->options.keep_metric];
	BicycleNote head = { BICYCLE_NOTE_ENDED_EARLY };
	char text[192];

	if (run->early)
	{
		if (best->found)
			snprintf(text, sizeof(text),
					 "ends at iteration %lld: %s has not been better than at iteration %lld for "
					 "%lld validations",
					 (long long) nn_fit_iteration(run->fit), metric, (long long) best->iteration,
					 (long long) best->missed);
		else
			snprintf(text, sizeof(text),
					 "ends at iteration %lld: %s has been no number for %lld validations",
					 (long long) nn_fit_iteration(run->fit), metric, (long long) best->missed);
		run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
	}
	if (run->options.keep != NN_KEEP_BEST || !best->found)
		return;
	head.cause = BICYCLE_NOTE_KEPT;
	snprintf(text, sizeof(text), "the model has the weights of iteration %lld, whose %s is %.6g",
			 (long long) best->iteration, metric, best->value);
	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
}

/* ---- Waiting for requests of sessions ------------------------------------ */

/*
 * Without an iteration the rate is less than what was told: how much, at most.
 */
static void
tell_rate(Run *run, int64_t elapsed)
{
	BicycleRate frame = { .images_per_second =
							  (double) run->options.batch_size * 1000 / (double) elapsed };

	if (frame.images_per_second > run->rate / 2)
		return;
	run->rate = frame.images_per_second;
	run_link_send(&run->link, BICYCLE_RATE, &frame, sizeof(frame), NULL, 0);
}

static void
note_wait(Run *run, int64_t waited)
{
	BicycleNote head = { BICYCLE_NOTE_WAITED };
	char text[256];

	snprintf(text, sizeof(text),
			 "iteration %lld: has waited %lld seconds until here, as requests of sessions go first "
			 "on its GPU; setting \"bicycle.training_share\" says how far",
			 (long long) nn_fit_iteration(run->fit), (long long) waited / 1000);
	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
	run->note_wait = true;
}

/* It waits on: the rate and its cause are told, what was computed too. */
static void
tell_wait(Run *run, RunSums *sums)
{
	int64_t elapsed = now_ms() - sums->since, waited;

	if (elapsed >= LOSSES_MS && sums->count > 0)
		send_losses(run, sums);
	else if (elapsed >= LOSSES_MS)
		tell_rate(run, elapsed);
	pthread_mutex_lock(&run->lock);
	waited = run->waited / 1000;
	pthread_mutex_unlock(&run->lock);
	if (!run->note_wait && waited >= run->engine->settings.training_wait)
		note_wait(run, waited);
}

/* ---- The loop ------------------------------------------------------------ */

static bool
iteration_failed(const Run *run, const NnError *nn_error, EngineError *error)
{
	error_from_nn(error, nn_error);
	if (error->detail[0] == '\0')
		error_detail(error, "It happened at iteration %lld.",
					 (long long) nn_fit_iteration(run->fit) + 1);
	return false;
}

/* Finishes iterations until no more than `open` are open. */
static bool
finish_iterations(Run *run, int open, RunSums *sums, EngineError *error)
{
	while (nn_fit_open_steps(run->fit) > open)
	{
		NnLosses losses = { 0 };
		NnError nn_error = { 0 };

		if (nn_fit_finish(run->fit, &losses, &nn_error) != NN_OK)
			return iteration_failed(run, &nn_error, error);
		add_losses(sums, &losses);
	}
	return true;
}

static bool
is_preview_due(const Run *run, int64_t iteration)
{
	int64_t every = run->options.preview_every;

	return every > 0 &&
		   (iteration == run->ready.iterations || run->early || iteration % every == 0);
}

static bool
is_checkpoint_due(const Run *run, int64_t iteration)
{
	int64_t every = run->options.checkpoint_every;

	return every > 0 && iteration % every == 0;
}

/* Whether the fit is asked for more than losses after an iteration. */
static bool
is_border(const Run *run, int64_t iteration)
{
	return iteration == run->ready.iterations || is_preview_due(run, iteration) ||
		   is_checkpoint_due(run, iteration) ||
		   run_preview_watches(&run->preview, iteration, run->ready.iterations) ||
		   run_validation_is_due(&run->validation, iteration, run->ready.iterations,
								 validate_every(run));
}

/* a and b: NULL where the fit gives memory for them. */
static bool
run_iteration(Run *run, float *a, float *b, RunSums *sums, EngineError *error)
{
	NnError nn_error = { 0 };
	int64_t started;

	(void) nn_fit_feeds(run->fit, &a, &b);
	if (!run_feed_next(&run->feed, a, b, error))
		return false;
	if (nn_fit_start(run->fit, a, b, NULL, &nn_error) != NN_OK)
		return iteration_failed(run, &nn_error, error);
	started = nn_fit_iteration(run->fit) + nn_fit_open_steps(run->fit);
	return finish_iterations(run, is_border(run, started) ? 0 : nn_fit_ahead(run->fit), sums,
							 error);
}

/* What is to be sent after an iteration, but checkpoints. */
static bool
report(Run *run, RunSums *sums, EngineError *error)
{
	int64_t iteration = nn_fit_iteration(run->fit);
	bool border = nn_fit_open_steps(run->fit) == 0;

	if (border &&
		run_validation_is_due(&run->validation, iteration, run->ready.iterations,
							  validate_every(run)) &&
		!validate(run, error))
		return false;
	if (run_is_last(run) || sums->count >= LOSSES_ITERATIONS || now_ms() - sums->since >= LOSSES_MS)
		send_losses(run, sums);
	if (!border)
		return true; /* what is behind a border has been told there */
	if (is_preview_due(run, iteration) && !send_preview(run, error))
		return false;
	return watch_diversity(run, error);
}

typedef enum RunOrder
{
	RUN_ORDER_GO_ON, /* the next iteration has begun */
	RUN_ORDER_WAIT,  /* it has waited for its turn, and is to ask again */
	RUN_ORDER_CHECKPOINT,
	RUN_ORDER_PAUSE,
	RUN_ORDER_FAIL, /* a checkpoint could not be made */
	RUN_ORDER_STOP
} RunOrder;

/*
 * Waits, under the lock, for an earlier checkpoint to be read (R12). The order
 * that there is then: to go on, to fail or to stop.
 */
static RunOrder
wait_for_checkpoint(Run *run)
{
	while (run->checkpoint_queued && !run->stop_wanted && !error_is_set(&run->save_error))
		executor_wait(&run->wake, &run->lock);
	return run->stop_wanted                 ? RUN_ORDER_STOP
		   : error_is_set(&run->save_error) ? RUN_ORDER_FAIL
											: RUN_ORDER_GO_ON;
}

/*
 * Under the lock: begins an iteration if the run has its turn, else waits for
 * that, or an order, a second at most.
 */
static bool
begin_iteration(Run *run)
{
	int64_t now = now_us(), wait = run_share_wait(&run->share, now);

	if (wait == 0)
	{
		run_share_begin(&run->share, now);
		return true;
	}
	executor_wait_us(&run->wake, &run->lock, wait);
	run->waited += now_us() - now;
	return false;
}

static void
end_iteration(Run *run)
{
	pthread_mutex_lock(&run->lock);
	run_share_end(&run->share, now_us());
	pthread_mutex_unlock(&run->lock);
}

static RunOrder
next_order(Run *run)
{
	RunOrder order = RUN_ORDER_GO_ON;

	pthread_mutex_lock(&run->lock);
	if (run->pause_wanted)
		(void) wait_for_checkpoint(run);
	if (run->stop_wanted)
		order = RUN_ORDER_STOP;
	else if (error_is_set(&run->save_error))
		order = RUN_ORDER_FAIL;
	else if (run->pause_wanted)
		order = RUN_ORDER_PAUSE;
	else if (run->checkpoint_wanted && !run->checkpoint_queued)
		order = RUN_ORDER_CHECKPOINT;
	else if (!begin_iteration(run))
		order = RUN_ORDER_WAIT;
	pthread_mutex_unlock(&run->lock);
	return order;
}

static void
want_checkpoint(Run *run)
{
	pthread_mutex_lock(&run->lock);
	run->checkpoint_wanted = true;
	pthread_mutex_unlock(&run->lock);
}

static bool
pause_run(Run *run, RunSums *sums, EngineError *error)
{
	if (!finish_iterations(run, 0, sums, error))
		return false;
	send_losses(run, sums);
	if (!run_checkpoint(run, error))
		return false;
	run_link_send(&run->link, BICYCLE_PAUSED, NULL, 0, NULL, 0);
	run->finished = true;
	return true;
}

static bool
saving_failed(Run *run, EngineError *error)
{
	pthread_mutex_lock(&run->lock);
	*error = run->save_error;
	pthread_mutex_unlock(&run->lock);
	return false;
}

/* A checkpoint first, in case the model cannot be stored (R7). */
static bool
finish_run(Run *run, EngineError *error)
{
	RunOrder order;

	if (!run_is_finished(run))
	{
		note_best(run);
		pthread_mutex_lock(&run->lock);
		order = wait_for_checkpoint(run);
		pthread_mutex_unlock(&run->lock);
		if (order == RUN_ORDER_FAIL)
			return saving_failed(run, error);
		if (order == RUN_ORDER_STOP || !run_checkpoint(run, error))
			return false;
	}
	if (!send_model(run, error))
		return false;
	run->finished = true;
	return true;
}

/* False with an error, or with none if it was stopped. */
static bool
loop(Run *run, float *a, float *b, EngineError *error)
{
	RunSums sums;

	reset_sums(&sums);
	while (!run_is_last(run))
	{
		executor_progress();
		switch (next_order(run))
		{
			case RUN_ORDER_STOP:
				return false;
			case RUN_ORDER_PAUSE:
				return pause_run(run, &sums, error);
			case RUN_ORDER_CHECKPOINT:
				/* R8 */
				if (!finish_iterations(run, 0, &sums, error))
					return false;
				send_losses(run, &sums);
				if (!run_checkpoint_begin(run, error))
					return false;
				continue;
			case RUN_ORDER_FAIL:
				return saving_failed(run, error);
			case RUN_ORDER_WAIT:
				if (!finish_iterations(run, 0, &sums, error))
					return false;
				tell_wait(run, &sums);
				continue;
			case RUN_ORDER_GO_ON:
				break;
		}
		if (!run_iteration(run, a, b, &sums, error) || !report(run, &sums, error))
			return false;
		end_iteration(run);
		if (nn_fit_open_steps(run->fit) == 0 && is_checkpoint_due(run, nn_fit_iteration(run->fit)))
			want_checkpoint(run);
	}
	return finish_run(run, error);
}

void
run_loop(Task *task)
{
	Run *run = list_member(Run, run_task, task);
	size_t count =
		(size_t) run->options.batch_size * (size_t) run->config.size * (size_t) run->config.size;
	float *a = NULL, *b = NULL, *given[2];
	bool own = !nn_fit_feeds(run->fit, &given[0], &given[1]);

	error_clear(&run->error);
	if (own)
	{
		a = malloc(count * (size_t) run->config.input_nc * sizeof(float));
		b = malloc(count * (size_t) run->config.output_nc * sizeof(float));
	}
	if (own && (a == NULL || b == NULL))
		error_memory(&run->error, "a batch of images");
	else if (run_preview_open(&run->preview, run->engine, &run->data, &run->config,
							  run->options.seed, &run->error) &&
			 run_validation_open(&run->validation, &run->config, run->engine->device.nn,
								 &run->error))
		loop(run, a, b, &run->error);
	run_save_end(run);
	run_feed_stop(&run->feed);
	free(a);
	free(b);
}
