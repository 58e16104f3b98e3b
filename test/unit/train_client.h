/*
 * train_client.h
 *	  The job worker's part: starting a training engine, sending it pairs and
 *	  reading what it says. Built on engine_client.h, whose rules hold here.
 */
#ifndef BICYCLE_TRAIN_CLIENT_H
#define BICYCLE_TRAIN_CLIENT_H

#include <sched.h>

#include "common/run_protocol.h"
#include "engine/stream.h"
#include "engine_client.h"
#include "image_fixture.h"

/* ---- Pairs --------------------------------------------------------------- */

typedef struct Pair
{
	uint8_t *bytes[2]; /* encoded A and B */
	size_t length[2];
} Pair;

/*
 * PNGs of noise; A is gray and wide, B in colour and high, so that nothing fits
 * without conversion.
 */
__attribute__((unused)) static Pair *
pairs_make(int n)
{
	Pair *pairs = calloc((size_t) n, sizeof(Pair));
	ImageError error;

	for (int i = 0; i < n; i++)
		for (int side = 0; side < 2; side++)
		{
			Image image = noise_image(side == 0 ? 50 : 40, side == 0 ? 40 : 60, side == 0 ? 1 : 3,
									  (uint32_t) (2 * i + side));

			/* Not pure noise, whose mean is the same for all. */
			for (int k = 0; k < image.width * image.height * image.channels; k++)
				image.pixels[k] = (uint8_t) (image.pixels[k] / 4 + 15 * (i % 12));
			if (image_encode_png(&image, &pairs[i].bytes[side], &pairs[i].length[side], &error) !=
				IMAGE_OK)
				bail_out("cannot encode an image");
			image_free(&image);
		}
	return pairs;
}

__attribute__((unused)) static void
pairs_free(Pair *pairs, int n)
{
	for (int i = 0; i < n; i++)
	{
		free(pairs[i].bytes[0]);
		free(pairs[i].bytes[1]);
	}
	free(pairs);
}

/* The body of a PAIR frame; malloc'ed. */
__attribute__((unused)) static uint8_t *
pair_body(const Pair *pair, size_t *length)
{
	BicyclePair head = { .a_length = (uint32_t) pair->length[0],
						 .b_length = (uint32_t) pair->length[1] };
	Bytes body = { 0 };

	put(&body, &head, sizeof(head));
	put(&body, pair->bytes[0], pair->length[0]);
	put(&body, pair->bytes[1], pair->length[1]);
	*length = body.n;
	return body.at;
}

/* ---- The engine ---------------------------------------------------------- */

typedef struct Training
{
	EngineProcess engine;
	Client client; /* descriptor 4 */
} Training;

/* Both ends of a new socket pair, out of the way of descriptors 3 and 4. */
static void
socket_pair(int pair[2])
{
	int low[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, low) != 0)
		bail_out("cannot make sockets: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
	{
		pair[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 10);
		close(low[i]);
	}
}

/*
 * Starts a training engine, in a directory of its own, with the settings ("NAME
 * VALUE", ended by NULL). run: what the child does; NULL: the program.
 */
__attribute__((unused)) static void
training_start(Training *training, const char *const *settings, int (*run)(void))
{
	int control[2], frames[2];

	memset(training, 0, sizeof(*training));
	strcpy(training->engine.directory, "/tmp/bicycle-test-XXXXXX");
	if (mkdtemp(training->engine.directory) == NULL)
		bail_out("cannot make a directory: %s", strerror(errno));
	socket_pair(control);
	socket_pair(frames);
	fflush(stdout);
	if ((training->engine.pid = fork()) < 0)
		bail_out("cannot start a process: %s", strerror(errno));
	if (training->engine.pid == 0)
	{
		if (chdir(training->engine.directory) != 0)
			_exit(127);
		dup2(control[1], BICYCLE_CONTROL_FD);
		dup2(frames[1], BICYCLE_TRAIN_FD);
		close_range(BICYCLE_TRAIN_FD + 1, ~0u, 0);
		if (run != NULL)
			exit(run());
		/* Both it sets by itself. Where a test has no right to it, it stays. */
		unsetenv("OMP_WAIT_POLICY");
		(void) sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
		execl(engine_program(), "bicycle-engine", "--train", (char *) NULL);
		_exit(127);
	}
	close(control[1]);
	close(frames[1]);
	training->engine.control = control[0];
	training->client.fd = frames[0];
	for (int i = 0; settings[i] != NULL; i++)
	{
		char line[256];

		snprintf(line, sizeof(line), "set %s", settings[i]);
		engine_tell(&training->engine, line);
	}
	engine_tell(&training->engine, "go");
}

static void
training_forget(Training *training)
{
	char path[128];

	client_close(&training->client);
	snprintf(path, sizeof(path), "%s/spill", training->engine.directory);
	rmdir(path);
	engine_forget(&training->engine);
}

/* Ordered end; true if it was clean. */
__attribute__((unused)) static bool
training_end(Training *training)
{
	int status;

	engine_tell(&training->engine, "stop");
	status = engine_wait(&training->engine);
	training_forget(training);
	if (status != 0)
		diag("the training engine's status is 0x%x", (unsigned) status);
	return status == 0;
}

__attribute__((unused)) static void
training_kill(Training *training)
{
	kill(training->engine.pid, SIGKILL);
	engine_wait(&training->engine);
	training_forget(training);
}

/* ---- A run --------------------------------------------------------------- */

/* What a run begins with. */
typedef struct Start
{
	const char *options;
	int64_t iteration;
	const uint8_t *stream;
	size_t length;
	const char *config; /* of the version in the stream; NULL: none is there */
	const uint8_t *hash;
	uint64_t memory, /* 0: plenty */
		disk;
	uint64_t max_pixels; /* 0: plenty */
	uint32_t flags;
	const char *platform; /* of an earlier run; NULL: none */
} Start;

__attribute__((unused)) static Bytes
begin_body(const Start *start)
{
	BicycleTrainBegin begin = { .stream_length = start->length,
								.iteration = start->iteration,
								.max_pixels = start->max_pixels > 0 ? start->max_pixels : 1 << 20,
								.train_memory = start->memory > 0 ? start->memory : 64 << 20,
								.train_disk = start->disk,
								.options_length = (uint32_t) strlen(start->options),
								.flags = start->flags,
								.spill = "spill" };
	Bytes body = { 0 };

	if (start->platform != NULL)
		snprintf(begin.platform, sizeof(begin.platform), "%s", start->platform);
	if (start->config != NULL)
	{
		begin.start = (BicycleLoad){ .model = "start",
									 .version = 1,
									 .config_length = (uint32_t) strlen(start->config),
									 .stream_length = start->length };
		memcpy(begin.start.hash, start->hash, sizeof(begin.start.hash));
	}
	put(&body, &begin, sizeof(begin));
	put(&body, start->options, strlen(start->options));
	if (start->config != NULL)
		put(&body, start->config, strlen(start->config));
	return body;
}

__attribute__((unused)) static void
training_begin(Training *training, const Start *start)
{
	Bytes body = begin_body(start);

	client_send(&training->client, BICYCLE_TRAIN_BEGIN, 0, body.at, body.n);
	free(body.at);
	client_send_stream(&training->client, 0, start->stream, start->length);
}

/* What an earlier run has said of the data: PAIRS_END. */
static const uint8_t *known_data;
static size_t known_length;

/* What the query of the option validation gives, where a test has one. */
static const Pair *validation_pairs;
static int nvalidation;

/* What validation compares images by, where a test has such weights. */
typedef struct MetricWeights
{
	BicycleLoad load;
	char *config;
	uint8_t *stream;
} MetricWeights;

static const MetricWeights *metric_weights_sent;

static void
send_metric(Training *training)
{
	const MetricWeights *w = metric_weights_sent;
	Bytes body = { 0 };

	put(&body, &w->load, sizeof(w->load));
	put(&body, w->config, w->load.config_length);
	client_send(&training->client, BICYCLE_METRIC, 0, body.at, body.n);
	free(body.at);
	client_send_stream(&training->client, 0, w->stream, w->load.stream_length);
}

static void
send_pairs(Training *training, uint32_t type, const Pair *pairs, int n)
{
	for (int i = 0; i < n; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i], &length);

		client_send(&training->client, type, 0, body, length);
		free(body);
	}
}

__attribute__((unused)) static void
training_pairs(Training *training, const Pair *pairs, int n)
{
	if (metric_weights_sent != NULL)
		send_metric(training);
	send_pairs(training, BICYCLE_PAIR, pairs, n);
	send_pairs(training, BICYCLE_VALIDATION_PAIR, validation_pairs, nvalidation);
	client_send(&training->client, BICYCLE_PAIRS_END, 0, known_data, known_length);
}

/* What was noted before that: causes, as bits; and the last text. */
static unsigned ready_noted;
static char ready_note[512];

/*
 * Everything up to TRAIN_READY; false on an error, which is the last frame
 * then.
 */
__attribute__((unused)) static bool
training_ready(Training *training, const Start *start, const Pair *pairs, int n,
			   BicycleTrainReady *ready)
{
	training_begin(training, start);
	training_pairs(training, pairs, n);
	ready_noted = 0;
	for (;;)
	{
		if (!client_receive(&training->client))
			return false;
		if (training->client.frame.type != BICYCLE_NOTE)
			break;
		ready_noted |= 1u << *(const uint32_t *) training->client.body;
		snprintf(ready_note, sizeof(ready_note), "%s",
				 (char *) training->client.body + sizeof(BicycleNote));
	}
	if (training->client.frame.type != BICYCLE_TRAIN_READY)
		return false;
	if (training->client.frame.length < sizeof(*ready))
		bail_out("TRAIN_READY has %u bytes", training->client.frame.length);
	memcpy(ready, training->client.body, sizeof(*ready));
	return true;
}

/* A stream that the engine has sent, with its iteration. */
typedef struct Saved
{
	int64_t iteration;
	uint8_t *stream;
	size_t length;
	uint32_t flags;
} Saved;

/* What came of a run. */
typedef struct Outcome
{
	Saved checkpoints[32];
	int ncheckpoints;
	int64_t previews[32];
	int npreviews;
	uint8_t *preview; /* the last one */
	size_t preview_length;
	BicycleLosses losses; /* the last ones */
	int nlosses;
	BicycleValidated validated[64];
	int nvalidated;
	char note[512];
	int nnotes;
	unsigned noted; /* causes, as bits */
	bool
		ordered; /* iterations never went back, and no checkpoint came before the losses up to it */
	bool paused;
	bool done;
	BicycleImported head;
	int64_t iteration; /* that the model is of */
	Model model;
} Outcome;

__attribute__((unused)) static void
outcome_free(Outcome *outcome)
{
	for (int i = 0; i < outcome->ncheckpoints; i++)
		free(outcome->checkpoints[i].stream);
	free(outcome->preview);
	if (outcome->done)
		model_free(&outcome->model);
	memset(outcome, 0, sizeof(*outcome));
}

static void
take_done(Client *client, Outcome *outcome)
{
	BicycleTrainDone head;

	memcpy(&head, client->body, sizeof(head));
	if (client->frame.length != sizeof(head) + head.model.config_length)
		bail_out("TRAIN_DONE has %u bytes", client->frame.length);
	outcome->head = head.model;
	outcome->iteration = head.iteration;
	memcpy(outcome->model.hash, head.model.hash, sizeof(outcome->model.hash));
	outcome->model.config = strdup((char *) client->body + sizeof(head));
	outcome->model.stream = client_stream_unless(client, 0, &outcome->model.length);
	outcome->done =
		outcome->model.stream != NULL && outcome->model.length == outcome->head.stream_length;
	if (!outcome->done)
		model_free(&outcome->model);
}

/* False if the run ended in the middle of it. */
static bool
take_checkpoint(Client *client, Outcome *outcome)
{
	BicycleCheckpoint head;
	Saved *saved = &outcome->checkpoints[outcome->ncheckpoints];

	memcpy(&head, client->body, sizeof(head));
	saved->iteration = head.iteration;
	saved->flags = head.flags;
	saved->stream = client_stream_unless(client, 0, &saved->length);
	if (saved->stream == NULL)
		return false;
	outcome->ncheckpoints++;
	if (saved->length != head.stream_length)
		bail_out("a checkpoint of %zu bytes was announced with %llu", saved->length,
				 (unsigned long long) head.stream_length);
	if (outcome->losses.iteration != head.iteration && head.iteration > 0)
		outcome->ordered = false;
	return true;
}

/*
 * Reads one frame of a running engine; false at the end of the run: done,
 * paused, an error (which is the last frame then), closed.
 */
__attribute__((unused)) static bool
outcome_read(Training *training, Outcome *outcome)
{
	Client *client = &training->client;

	if (outcome->nlosses == 0 && outcome->ncheckpoints == 0)
		outcome->ordered = true;
	if (!client_receive(client))
		return false;
	switch (client->frame.type)
	{
		case BICYCLE_LOSSES:
		{
			int64_t before = outcome->losses.iteration;

			memcpy(&outcome->losses, client->body, sizeof(outcome->losses));
			outcome->nlosses++;
			if (outcome->losses.iteration <= before)
				outcome->ordered = false;
			return true;
		}
		case BICYCLE_PREVIEW:
			memcpy(&outcome->previews[outcome->npreviews++], client->body, sizeof(int64_t));
			free(outcome->preview);
			outcome->preview_length = client->frame.length - sizeof(BicyclePreview);
			outcome->preview = malloc(outcome->preview_length);
			memcpy(outcome->preview, client->body + sizeof(BicyclePreview),
				   outcome->preview_length);
			return true;
		case BICYCLE_NOTE:
			snprintf(outcome->note, sizeof(outcome->note), "%s",
					 (char *) client->body + sizeof(BicycleNote));
			outcome->nnotes++;
			outcome->noted |= 1u << *(const uint32_t *) client->body;
			return true;
		case BICYCLE_VALIDATED:
			if (outcome->nvalidated == 64)
				bail_out("there are too many validations");
			memcpy(&outcome->validated[outcome->nvalidated++], client->body,
				   sizeof(BicycleValidated));
			return true;
		case BICYCLE_RATE:
			return true;
		case BICYCLE_CHECKPOINT:
			return take_checkpoint(client, outcome);
		case BICYCLE_TRAIN_DONE:
			take_done(client, outcome);
			return false;
		case BICYCLE_PAUSED:
			outcome->paused = true;
			return false;
		default:
			return false;
	}
}

/*
 * A whole run, from TRAIN_BEGIN to its end; the settings are those of a test.
 */
__attribute__((unused)) static void
outcome_run(Outcome *outcome, const char *const *settings, const Start *start, const Pair *pairs,
			int n)
{
	Training training;
	BicycleTrainReady ready;

	memset(outcome, 0, sizeof(*outcome));
	training_start(&training, settings, NULL);
	if (!training_ready(&training, start, pairs, n, &ready))
		bail_out("a run did not get ready: frame %u %s", training.client.frame.type,
				 training.client.frame.type == BICYCLE_ERROR
					 ? (char *) training.client.body + sizeof(BicycleError)
					 : "");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, outcome))
		;
	if (!outcome->done && training.client.frame.type == BICYCLE_ERROR)
		diag("the run ended with %s", (char *) training.client.body + sizeof(BicycleError));
	if (!training_end(&training))
		bail_out("the training engine did not end in order");
}

/* ---- What came of two runs ----------------------------------------------- */

__attribute__((unused)) static bool
same_model(const Outcome *x, const Outcome *y)
{
	return x->done && y->done && x->iteration == y->iteration &&
		   memcmp(x->model.hash, y->model.hash, sizeof(x->model.hash)) == 0 &&
		   x->model.length == y->model.length &&
		   memcmp(x->model.stream, y->model.stream, x->model.length) == 0 &&
		   strcmp(x->model.config, y->model.config) == 0;
}

__attribute__((unused)) static bool
same_saved(const Saved *x, const Saved *y)
{
	return x->iteration == y->iteration && x->length == y->length &&
		   memcmp(x->stream, y->stream, x->length) == 0;
}

__attribute__((unused)) static const Saved *
saved_at(const Outcome *outcome, int64_t iteration)
{
	for (int i = 0; i < outcome->ncheckpoints; i++)
		if (outcome->checkpoints[i].iteration == iteration)
			return &outcome->checkpoints[i];
	bail_out("there is no checkpoint of iteration %lld", (long long) iteration);
}

/*
 * Whether a checkpoint has the tensors of a model, under names with a prefix.
 */
__attribute__((unused)) static bool
is_in_saved(const Outcome *outcome, const Saved *saved, const char *prefix)
{
	TensorStream model, state;
	EngineError error;
	size_t length = strlen(prefix);
	int same = 0;

	if (!stream_parse(outcome->model.stream, outcome->model.length, &model, &error) ||
		!stream_parse(saved->stream, saved->length, &state, &error))
		bail_out("%s", error.message);
	for (int i = 0; i < model.ntensors; i++)
		for (int k = 0; k < state.ntensors; k++)
			same +=
				model.tensors[i].network == state.tensors[k].network &&
				strncmp(state.tensors[k].name, prefix, length) == 0 &&
				strcmp(model.tensors[i].name, state.tensors[k].name + length) == 0 &&
				memcmp(model.tensors[i].data, state.tensors[k].data, model.tensors[i].nbytes) == 0;
	same -= model.ntensors;
	stream_free(&model);
	stream_free(&state);
	return same == 0;
}

#endif /* BICYCLE_TRAIN_CLIENT_H */
