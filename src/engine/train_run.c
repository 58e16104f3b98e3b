/*
 * train_run.c
 *	  The training loop, and what is made of the trainer's state.
 *
 * Everything here runs on the device thread, as two jobs: one that opens the
 * device and the trainer, one that is the loop. The loop talks to the I/O
 * thread in two ways only: it queues frames (train_link.c), and between two
 * iterations it looks at the orders behind train->lock. What it sends is copied
 * at that border, so training goes on while the I/O thread streams it.
 *
 * At most one checkpoint is queued: another one that is wanted meanwhile is
 * made when the first has been read, and a pause waits for that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train.h"

#define LOSSES_MS 1000        /* means are sent about so often, */
#define LOSSES_ITERATIONS 100 /* and after so many iterations at the latest */

/* What has been summed up since the last LOSSES. */
typedef struct Sums
{
	double value[NN_LOSSES];
	bool present[NN_LOSSES];
	int count;
	int64_t since; /* ms */
} Sums;

/* ---- Opening ------------------------------------------------------------- */

static bool
from_nn(EngineError *error, const NnError *nn)
{
	error_from_nn(error, nn);
	return false;
}

static bool
open_device(Train *train)
{
	Engine *engine = train->engine;
	const char *name =
		strcmp(engine->settings.device, "auto") == 0 ? "cpu" : engine->settings.device;
	NnError error = { 0 };

	if (nn_device_open(name, settings_threads(&engine->settings), &engine->device, &error) == NN_OK)
	{
		nn_device_watch(engine->device, executor_progress);
		return true;
	}
	engine->device = NULL;
	if (error.code == NN_ENOMEM)
		return from_nn(&train->error, &error);
	error_set(&train->error, "55000", "device \"%s\" is missing", name);
	error_detail(&train->error, "The engine reported: %s.", error.message);
	error_hint(&train->error, "%s",
			   error.hint[0] != '\0'
				   ? error.hint
				   : "Set \"bicycle.device\" to auto or cpu and reload the configuration.");
	return false;
}

/* The job's option decides, not the setting, which is inference's. */
static NnPrecision
train_precision(const Train *train)
{
	return nn_train_precision(train->engine->device, &train->config);
}

static bool
check_memory(Train *train, size_t bytes, const char *more)
{
	size_t limit = train->engine->memory.limit;

	if (bytes <= limit)
		return true;
	error_set(&train->error, "53200", "out of engine memory");
	error_detail(&train->error,
				 "Training this model takes %zu bytes%s, and the engine may take %zu.", bytes, more,
				 limit);
	error_hint(&train->error, "Raise the setting \"bicycle.engine_memory\", or choose a smaller "
							  "batch_size or smaller networks.");
	return false;
}

/*
 * What is known before anything is allocated: weights, gradients and both
 * moments, in floats at least.
 */
static bool
check_networks(Train *train)
{
	NnParams params = { 0 };
	NnError error = { 0 };
	size_t floats;

	if (nn_params_of(&train->config, nn_train_networks(&train->config, &train->options), &params,
					 &error) != NN_OK)
		return from_nn(&train->error, &error);
	floats = params.total;
	nn_params_free(&params);
	return check_memory(train, floats * 4 * sizeof(float), " or more");
}

/*
 * Tensors that came with TRAIN_BEGIN: a version's weights to start from, or a
 * whole checkpoint.
 */
static bool
open_trainer(Train *train, const TensorStream *stream)
{
	Engine *engine = train->engine;
	int given = train->begin.iteration > 0 ? 0 : stream->ntensors;
	int64_t rows = train_is_finished(train) ? train->options.batch_size : train->data.npairs;
	NnError error = { 0 };

	if (!check_networks(train))
		return false;
	if (nn_trainer_open(engine->device, &train->config, &train->options, train_precision(train),
						rows, given > 0 ? stream->tensors : NULL, given, &train->trainer,
						&error) != NN_OK)
	{
		train->trainer = NULL;
		return from_nn(&train->error, &error);
	}
	if (!check_memory(train, nn_trainer_bytes(train->trainer), ""))
		return false;
	if (train->begin.iteration > 0 &&
		nn_trainer_restore(train->trainer, stream->tensors, stream->ntensors,
						   train->begin.iteration, &error) != NN_OK)
		return from_nn(&train->error, &error);
	return true;
}

static void
describe(Train *train)
{
	BicycleTrainReady *ready = &train->ready;

	memset(ready, 0, sizeof(*ready));
	ready->rows = train->data.npairs;
	ready->iteration = nn_trainer_iteration(train->trainer);
	ready->iterations =
		train_is_finished(train) ? ready->iteration : nn_trainer_iterations(train->trainer);
	memcpy(ready->data_digest, train->data.digest, sizeof(ready->data_digest));
	snprintf(ready->platform, sizeof(ready->platform), "%.90s, %s, bicycle %s",
			 nn_device_describe(train->engine->device),
			 train_precision(train) == NN_PRECISION_BF16 ? "bf16" : "fp32", BICYCLE_VERSION);
}

/*
 * Opens the device and the trainer and puts the state back; train->error says
 * how it went.
 */
void
train_run_open(Job *job)
{
	Train *train = list_member(Train, open_job, job);
	TensorStream stream = { 0 };
	NnConfig stored;

	error_clear(&train->error);
	if (train->begin.stream_length > 0 &&
		!stream_parse(train->stream, train->begin.stream_length, &stream, &train->error))
		return;
	/*
	 * A checkpoint is the trainer's own; a version is a row of a table that its
	 * owner may write to.
	 */
	if ((train->begin.start.config_length == 0 ||
		 model_verify(&train->begin.start, train->start_config, &stored, &stream, &train->error)) &&
		open_device(train) && open_trainer(train, &stream))
		describe(train);
	stream_free(&stream);
	free(train->stream);
	train->stream = NULL;
}

/* ---- States as streams --------------------------------------------------- */

/* Copies tensors into one malloc'ed stream. */
bool
train_tensors_pack(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
				   EngineError *error)
{
	size_t total = 0;
	uint8_t *at;

	for (int i = 0; i < ntensors; i++)
		total += sizeof(BicycleTensor) + tensors[i].nbytes;
	*length = total;
	*bytes = at = malloc(total > 0 ? total : 1);
	if (at == NULL)
	{
		error_memory(error, "a copy of the model");
		return false;
	}
	for (int i = 0; i < ntensors; i++)
	{
		BicycleTensor header;

		if (!stream_header(&tensors[i], &header))
		{
			error_set(error, "54000", "tensor name is too long");
			free(*bytes);
			return false;
		}
		memcpy(at, &header, sizeof(header));
		at += sizeof(header);
		memcpy(at, tensors[i].data, tensors[i].nbytes);
		at += tensors[i].nbytes;
	}
	return true;
}

static bool
send_checkpoint(Train *train, EngineError *error)
{
	BicycleCheckpoint head = { .iteration = nn_trainer_iteration(train->trainer) };
	NnTensor *tensors;
	NnError nn_error = { 0 };
	uint8_t *bytes;
	size_t length;
	int n;
	bool packed;

	if (nn_trainer_state(train->trainer, &tensors, &n, &nn_error) != NN_OK)
		return from_nn(error, &nn_error);
	packed = train_tensors_pack(tensors, n, &bytes, &length, error);
	free(tensors);
	if (!packed)
		return false;

	pthread_mutex_lock(&train->lock);
	train->checkpoint_queued = true;
	train->checkpoint_wanted = false;
	pthread_mutex_unlock(&train->lock);
	head.stream_length = length;
	link_send(train, BICYCLE_CHECKPOINT, &head, sizeof(head));
	link_send_stream(train, bytes, length, true);
	return true;
}

/*
 * The weights of a version: averaged G and E if there are averages, and the
 * discriminators, with which a later run can go on. Names are the trainer's.
 */
static bool
collect_weights(Train *train, NnTensor **tensors, int *n, EngineError *error)
{
	NnError nn_error = { 0 };
	NnTensor *state, *more;
	int nstate;

	if (nn_trainer_weights(train->trainer, tensors, n, &nn_error) != NN_OK)
		return from_nn(error, &nn_error);
	if (nn_trainer_state(train->trainer, &state, &nstate, &nn_error) != NN_OK)
	{
		free(*tensors);
		return from_nn(error, &nn_error);
	}
	more = realloc(*tensors, (size_t) (*n + nstate + 1) * sizeof(NnTensor));
	if (more == NULL)
	{
		free(*tensors);
		free(state);
		error_memory(error, "a list of tensors");
		return false;
	}
	for (int i = 0; i < nstate; i++)
	{
		const char *name = state[i].name;
		bool other = strncmp(name, "m.", 2) == 0 || strncmp(name, "v.", 2) == 0 ||
					 strncmp(name, "ema.", 4) == 0;

		if (!other && (state[i].network == NN_NET_D || state[i].network == NN_NET_D2))
			more[(*n)++] = state[i];
	}
	free(state);
	*tensors = more;
	return true;
}

static bool
send_model(Train *train, EngineError *error)
{
	BicycleImported head = { 0 };
	NnTensor *tensors;
	char *canonical;
	uint8_t *bytes, *body;
	size_t length;
	int n;
	bool good;

	if (!collect_weights(train, &tensors, &n, error))
		return false;
	canonical = nn_config_print(&train->config);
	if (canonical == NULL)
		error_memory(error, "a model");
	good = canonical != NULL && stream_order(&train->config, tensors, n, error) &&
		   model_hash(canonical, tensors, n, head.hash, error) &&
		   train_tensors_pack(tensors, n, &bytes, &length, error);
	free(tensors);
	if (good)
	{
		head.stream_length = length;
		head.config_length = (uint32_t) strlen(canonical);
		head.ntensors = (uint32_t) n;
		body = malloc(sizeof(head) + head.config_length);
		if (body != NULL)
		{
			memcpy(body, &head, sizeof(head));
			memcpy(body + sizeof(head), canonical, head.config_length);
			link_send(train, BICYCLE_TRAIN_DONE, body, sizeof(head) + head.config_length);
			link_send_stream(train, bytes, length, false);
			free(body);
		}
		else
		{
			error_memory(error, "a model");
			free(bytes);
			good = false;
		}
	}
	free(canonical);
	return good;
}

/* ---- Telling the trainer ------------------------------------------------- */

static void
reset_sums(Sums *sums)
{
	memset(sums, 0, sizeof(*sums));
	sums->since = now_ms();
}

static void
add_losses(Sums *sums, const NnLosses *losses)
{
	for (int i = 0; i < NN_LOSSES; i++)
	{
		sums->present[i] = losses->present[i];
		if (losses->present[i])
			sums->value[i] += losses->value[i];
	}
	sums->count++;
}

/* Counts of epochs as the trainer shows them; iterations may be any number. */
static int32_t
shown(int64_t epochs)
{
	return epochs < INT32_MAX ? (int32_t) epochs : INT32_MAX;
}

static void
send_losses(Train *train, Sums *sums)
{
	BicycleLosses frame = { .iteration = nn_trainer_iteration(train->trainer) };
	int64_t batches = train->feed.batches_an_epoch;
	int64_t elapsed = now_ms() - sums->since;

	_Static_assert(BICYCLE_TRAIN_LOSSES == NN_LOSSES, "the protocol knows every loss");
	if (sums->count == 0)
		return;
	frame.epoch = shown((frame.iteration - 1) / batches + 1);
	frame.epochs = shown((train->ready.iterations + batches - 1) / batches);
	frame.images_per_second = (double) sums->count * train->options.batch_size * 1000 /
							  (double) (elapsed > 0 ? elapsed : 1);
	for (int i = 0; i < NN_LOSSES; i++)
	{
		if (!sums->present[i])
			continue;
		frame.present |= 1u << i;
		frame.value[i] = sums->value[i] / sums->count;
	}
	link_send(train, BICYCLE_LOSSES, &frame, sizeof(frame));
	reset_sums(sums);
}

static bool
send_preview(Train *train, EngineError *error)
{
	BicyclePreview head = { .iteration = nn_trainer_iteration(train->trainer) };
	uint8_t *png, *body;
	size_t length;

	if (!preview_sheet(&train->preview, train->trainer, &png, &length, error))
		return false;
	body = malloc(sizeof(head) + length);
	if (body != NULL)
	{
		memcpy(body, &head, sizeof(head));
		memcpy(body + sizeof(head), png, length);
		link_send(train, BICYCLE_PREVIEW, body, sizeof(head) + length);
	}
	else
		error_memory(error, "a preview");
	free(png);
	free(body);
	return body != NULL;
}

static bool
watch_diversity(Train *train, EngineError *error)
{
	BicycleNote head = { BICYCLE_NOTE_COLLAPSE };
	char note[sizeof(head) + 256];
	char *text = note + sizeof(head);
	double diversity;
	bool collapsed;
	int64_t iteration = nn_trainer_iteration(train->trainer);

	if (!preview_watch(&train->preview, train->trainer, iteration, train->ready.iterations,
					   &diversity, &collapsed, error))
		return false;
	if (!collapsed)
		return true;
	memcpy(note, &head, sizeof(head));
	snprintf(text, sizeof(note) - sizeof(head),
			 "samples hardly vary with z since about iteration %lld: two samples of one input "
			 "differ by %.2g of 255 levels"
			 " on average",
			 (long long) iteration, diversity * 127.5);
	link_send(train, BICYCLE_NOTE, note, sizeof(head) + strlen(text));
	return true;
}

/* ---- The loop ------------------------------------------------------------ */

static bool
step(Train *train, float *a, float *b, Sums *sums, EngineError *error)
{
	NnLosses losses = { 0 };
	NnError nn_error = { 0 };

	if (!feed_next(&train->feed, a, b, error))
		return false;
	if (nn_trainer_step(train->trainer, a, b, NULL, &losses, &nn_error) != NN_OK)
	{
		error_from_nn(error, &nn_error);
		if (error->detail[0] == '\0')
			error_detail(error, "It happened at iteration %lld.",
						 (long long) nn_trainer_iteration(train->trainer) + 1);
		return false;
	}
	add_losses(sums, &losses);
	return true;
}

/* What is to be sent after an iteration, but checkpoints. */
static bool
report(Train *train, Sums *sums, EngineError *error)
{
	int64_t iteration = nn_trainer_iteration(train->trainer);
	bool last = iteration == train->ready.iterations;
	int64_t every = train->options.preview_every;

	if (last || sums->count >= LOSSES_ITERATIONS || now_ms() - sums->since >= LOSSES_MS)
		send_losses(train, sums);
	if (every > 0 && (last || iteration % every == 0) && !send_preview(train, error))
		return false;
	return watch_diversity(train, error);
}

typedef enum Order
{
	ORDER_GO_ON,
	ORDER_CHECKPOINT,
	ORDER_PAUSE,
	ORDER_STOP
} Order;

/* Waits, under the lock, for an earlier checkpoint to be read. */
static void
wait_for_checkpoint(Train *train)
{
	while (train->checkpoint_queued && !train->stop_wanted)
		executor_wait(&train->wake, &train->lock);
}

/* What the loop is to do now. */
static Order
next_order(Train *train)
{
	Order order = ORDER_GO_ON;

	pthread_mutex_lock(&train->lock);
	if (train->pause_wanted)
		wait_for_checkpoint(train);
	if (train->stop_wanted)
		order = ORDER_STOP;
	else if (train->pause_wanted)
		order = ORDER_PAUSE;
	else if (train->checkpoint_wanted && !train->checkpoint_queued)
		order = ORDER_CHECKPOINT;
	pthread_mutex_unlock(&train->lock);
	return order;
}

static void
want_checkpoint(Train *train)
{
	pthread_mutex_lock(&train->lock);
	train->checkpoint_wanted = true;
	pthread_mutex_unlock(&train->lock);
}

static bool
pause_run(Train *train, Sums *sums, EngineError *error)
{
	send_losses(train, sums);
	if (!send_checkpoint(train, error))
		return false;
	link_send(train, BICYCLE_PAUSED, NULL, 0);
	train->finished = true;
	return true;
}

/*
 * The last iteration is done, now or in an earlier run: its checkpoint, so that
 * nothing is lost if the trainer cannot store the model, and the model.
 */
static bool
finish_run(Train *train, EngineError *error)
{
	bool stop;

	if (!train_is_finished(train))
	{
		pthread_mutex_lock(&train->lock);
		wait_for_checkpoint(train);
		stop = train->stop_wanted;
		pthread_mutex_unlock(&train->lock);
		if (stop || !send_checkpoint(train, error))
			return false;
	}
	if (!send_model(train, error))
		return false;
	train->finished = true;
	return true;
}

/*
 * Trains until it is over, paused or told to stop; false with an error, or with
 * none if it was stopped.
 */
static bool
loop(Train *train, float *a, float *b, EngineError *error)
{
	Sums sums;
	int64_t every = train->options.checkpoint_every;

	reset_sums(&sums);
	while (nn_trainer_iteration(train->trainer) < train->ready.iterations)
	{
		executor_progress();
		switch (next_order(train))
		{
			case ORDER_STOP:
				return false;
			case ORDER_PAUSE:
				return pause_run(train, &sums, error);
			case ORDER_CHECKPOINT:
				/* What it stands for must have been told before it. */
				send_losses(train, &sums);
				if (!send_checkpoint(train, error))
					return false;
				break;
			case ORDER_GO_ON:
				break;
		}
		if (!step(train, a, b, &sums, error) || !report(train, &sums, error))
			return false;
		if (every > 0 && nn_trainer_iteration(train->trainer) % every == 0)
			want_checkpoint(train);
	}
	return finish_run(train, error);
}

/* The loop's job. */
void
train_run(Job *job)
{
	Train *train = list_member(Train, run_job, job);
	size_t count = (size_t) train->options.batch_size * (size_t) train->config.size *
				   (size_t) train->config.size;
	float *a = malloc(count * (size_t) train->config.input_nc * sizeof(float));
	float *b = malloc(count * (size_t) train->config.output_nc * sizeof(float));

	error_clear(&train->error);
	if (a == NULL || b == NULL)
		error_memory(&train->error, "a batch of images");
	else if (preview_open(&train->preview, train->engine, &train->data, &train->config,
						  train->options.seed, &train->error))
		loop(train, a, b, &train->error);
	feed_stop(&train->feed);
	free(a);
	free(b);
}
