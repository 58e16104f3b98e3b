/*
 * A training engine trains a model from pairs it is sent, tells of it as it
 * goes, and goes on from any checkpoint as if nothing had been. Rules are those
 * of run_protocol.h.
 */
#include "train_client.h"

#include "engine/engine.h"

#include <sched.h>
#include <sys/resource.h>

#define PAIRS 13
#define TINY "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"load_size\":70,\"seed\":7"
#define OPTIONS "{" TINY ",\"iterations\":20,\"checkpoint_every\":8,\"preview_every\":10}"

static const char *const settings[] = { "device cpu", "threads 2", NULL };
static const char *const on_ref[] = { "device ref", "threads 1", NULL };
static const Start fresh = { .options = OPTIONS };
/* of the reference device, which is slow */
static const Start few = { .options = "{" TINY ",\"iterations\":10,\"checkpoint_every\":4}" };
static Pair *pairs;

/* ---- One run ------------------------------------------------------------- */

static void
test_ready(void)
{
	Training training;
	BicycleTrainReady ready, again;
	Pair turned[PAIRS];

	training_start(&training, settings, NULL);
	ok(training_ready(&training, &fresh, pairs, PAIRS, &ready), "a run gets ready");
	ok(ready.rows == PAIRS && ready.iterations == 20 && ready.iteration == 0,
	   "it has all rows and the iterations of its options");
	ok(strstr(ready.platform, "cpu") != NULL && strstr(ready.platform, "2 threads") != NULL &&
		   strstr(ready.platform, BICYCLE_VERSION) != NULL,
	   "its platform is \"%s\"", ready.platform);
	ok(sched_getscheduler(training.engine.pid) == SCHED_IDLE ||
		   getpriority(PRIO_PROCESS, (id_t) training.engine.pid) == 19,
	   "it lets everything else go first");
	engine_tell(&training.engine, "ping 5");
	ok(engine_says(&training.engine, "pong 5", PATIENCE_MS), "it answers a ping");
	ok(training_end(&training), "it can be stopped before it runs");

	for (int i = 0; i < PAIRS; i++)
		turned[i] = pairs[PAIRS - 1 - i];
	training_start(&training, settings, NULL);
	training_ready(&training, &fresh, turned, PAIRS, &again);
	ok(memcmp(ready.data_digest, again.data_digest, sizeof(ready.data_digest)) == 0,
	   "the digest does not depend on the order of the rows");
	training_end(&training);
	training_start(&training, settings, NULL);
	training_ready(&training, &fresh, pairs, PAIRS - 1, &again);
	ok(memcmp(ready.data_digest, again.data_digest, sizeof(ready.data_digest)) != 0,
	   "but on the rows");
	training_end(&training);
}

/*
 * The platform of a run with options {"precision": "auto"}, after another run.
 */
static void
check_platform(const char *before, const char *precision)
{
	Start start = fresh;
	Training training;
	BicycleTrainReady ready = { 0 };

	start.platform = before;
	training_start(&training, on_ref, NULL);
	ok(training_ready(&training, &start, pairs, PAIRS, &ready) &&
		   strstr(ready.platform, precision) != NULL,
	   "after \"%s\" the platform is \"%s\"", before ? before : "nothing", ready.platform);
	training_end(&training);
}

/* What auto was in the first run of a job it is in all. */
static void
test_precision(void)
{
	check_platform(NULL, ", fp32, ");
	check_platform("ref, fp32, bicycle 0.1.0", ", fp32, ");
	check_platform("cpu (AVX-512 with bfloat16, oneDNN 2.6.3, 2 threads), bf16, bicycle 0.1.0",
				   ", bf16, ");
}

static void
check_preview(const Outcome *outcome)
{
	ImageError error;
	Image sheet;
	bool decoded =
		outcome->npreviews > 0 && image_decode(outcome->preview, outcome->preview_length, 3, 0,
											   &plenty, &sheet, &error) == IMAGE_OK;
	unsigned differing = 0;

	ok(outcome->npreviews == 2 && outcome->previews[0] == 10 && outcome->previews[1] == 20,
	   "previews come when they were asked for");
	if (!ok(decoded && sheet.width == 7 * 66 + 2 && sheet.height == 4 * 66 + 2,
			"a preview shows four rows of input, truth, reconstruction and four samples"))
		return;
	for (int i = 0; i < 64 * 3; i++)
		differing += sheet.pixels[(2 * sheet.width + 2) * 3 + i] !=
					 sheet.pixels[(2 * sheet.width + 2 + 66) * 3 + i];
	ok(differing > 64, "input and truth are not the same");
	image_free(&sheet);
}

/*
 * The model's hash is that of what was sent, it has all networks, and an
 * inference engine translates with it.
 */
static void
check_model(const Outcome *outcome)
{
	float z[4] = { 0 };
	TensorStream stream;
	EngineError error;
	uint8_t hash[BICYCLE_HASH_BYTES];
	unsigned networks = 0;
	EngineProcess inference;
	Client client;
	ImageCall call = { .type = BICYCLE_TRANSLATE,
					   .hash = outcome->model.hash,
					   .image = pairs[0].bytes[0],
					   .length = pairs[0].length[0],
					   .z = z,
					   .nz = 4 };
	bool parsed = stream_parse(outcome->model.stream, outcome->model.length, &stream, &error);

	ok(parsed && (uint32_t) stream.ntensors == outcome->head.ntensors,
	   "the model is a stream of tensors");
	for (int i = 0; i < stream.ntensors; i++)
		networks |= 1u << stream.tensors[i].network;
	ok(networks == 15, "with generator, encoder and both discriminators");
	ok(model_hash(outcome->model.config, stream.tensors, stream.ntensors, hash, &error) &&
		   memcmp(hash, outcome->model.hash, sizeof(hash)) == 0,
	   "under the hash of its content");
	stream_free(&stream);
	engine_start(&inference, settings);
	client_hello(&client, &inference, 1);
	ok(client_run(&client, 1, &call, &outcome->model), "an engine translates with it");
	client_close(&client);
	engine_end(&inference);
}

static void
check_run(const Outcome *outcome)
{
	bool finite = true;

	ok(outcome->done, "a run ends with a model");
	ok(outcome->losses.iteration == 20 && outcome->losses.epoch == 4 &&
		   outcome->losses.epochs == 4 && outcome->losses.images_per_second > 0,
	   "the last losses are those of the last iteration");
	for (int i = 0; i < BICYCLE_NLOSSES; i++)
		finite = finite && outcome->losses.value[i] > -1e6 && outcome->losses.value[i] < 1e6;
	ok(outcome->losses.present == (1u << BICYCLE_NLOSSES) - 1 && finite, "all of them are there");
	ok(outcome->ncheckpoints == 3 && outcome->checkpoints[0].iteration == 8 &&
		   outcome->checkpoints[1].iteration == 16 && outcome->checkpoints[2].iteration == 20,
	   "checkpoints come when they were asked for, and at the end");
	ok(outcome->ordered, "and after the losses up to them");
}

/* ---- Going on ------------------------------------------------------------ */

static void
test_resume(const Outcome *whole, const char *const *with, const Start *began, const char *device)
{
	Start start = *began;
	Outcome outcome;

	start.iteration = whole->checkpoints[0].iteration;
	start.stream = whole->checkpoints[0].stream;
	start.length = whole->checkpoints[0].length;
	outcome_run(&outcome, with, &start, pairs, PAIRS);
	ok(same_model(&outcome, whole),
	   "%lld iterations, another process and the rest give the same bits on device %s",
	   (long long) start.iteration, device);
	ok(outcome.ncheckpoints == 2 && outcome.checkpoints[0].length == whole->checkpoints[1].length &&
		   memcmp(outcome.checkpoints[0].stream, whole->checkpoints[1].stream,
				  outcome.checkpoints[0].length) == 0,
	   "so are its checkpoints");
	outcome_free(&outcome);
}

static void
test_disk(const Outcome *whole)
{
	const Start start = { .options = OPTIONS, .memory = 6000, .disk = 1 << 24 };
	Outcome outcome;

	outcome_run(&outcome, settings, &start, pairs, PAIRS);
	ok(same_model(&outcome, whole), "pairs that were kept on disk give the same bits");
	outcome_free(&outcome);
}

/*
 * From the last checkpoint the same model is made without any pairs (R7); none
 * may come then, and it must be a checkpoint.
 */
static void
test_finished(const Outcome *whole)
{
	Saved last = whole->checkpoints[whole->ncheckpoints - 1];
	Start start = { .options = OPTIONS,
					.iteration = last.iteration,
					.stream = last.stream,
					.length = last.length,
					.flags = BICYCLE_TRAIN_FINISHED };
	Training training;
	BicycleTrainReady ready;
	Outcome outcome;

	outcome_run(&outcome, settings, &start, NULL, 0);
	ok(same_model(&outcome, whole), "the model of a finished run is made anew without pairs");
	ok(outcome.ncheckpoints == 0 && outcome.nlosses == 0 && outcome.npreviews == 0,
	   "and nothing else is");
	outcome_free(&outcome);
	training_start(&training, settings, NULL);
	ok(!training_ready(&training, &start, pairs, PAIRS, &ready) &&
		   training.client.frame.type == BICYCLE_ERROR,
	   "pairs are refused then");
	training_end(&training);
	start.iteration = 0;
	training_start(&training, settings, NULL);
	ok(!training_ready(&training, &start, NULL, 0, &ready) &&
		   training.client.frame.type == BICYCLE_ERROR,
	   "and weights that are no checkpoint");
	training_end(&training);
}

/*
 * Pauses after the first checkpoint, goes on in a process of its own, and
 * again, until the run is done.
 */
static void
test_pause(const Outcome *whole)
{
	static const char options[] = "{" TINY ",\"iterations\":20,\"checkpoint_every\":3}";
	Start start = { .options = options };
	Outcome outcome = { 0 };
	Saved last = { 0 };
	int pauses = 0;

	for (int i = 0; i < 20 && !outcome.done; i++)
	{
		Training training;
		BicycleTrainReady ready;
		bool asked = false;

		outcome_free(&outcome);
		training_start(&training, settings, NULL);
		if (!training_ready(&training, &start, pairs, PAIRS, &ready) ||
			ready.iteration != last.iteration)
			bail_out("a run did not go on");
		client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
		while (outcome_read(&training, &outcome))
			if (outcome.ncheckpoints > 0 && !asked)
			{
				asked = true;
				client_send(&training.client, BICYCLE_PAUSE, 0, NULL, 0);
			}
		if (outcome.paused)
		{
			Saved *pause = &outcome.checkpoints[outcome.ncheckpoints - 1];

			pauses++;
			if (pause->iteration > outcome.checkpoints[0].iteration + 4 ||
				client_receive_within(&training.client, 200))
				ok(false, "a pause takes effect within an iteration and for good");
			free(last.stream);
			last = *pause;
			outcome.ncheckpoints--;
			start.iteration = last.iteration;
			start.stream = last.stream;
			start.length = last.length;
		}
		training_end(&training);
	}
	ok(pauses >= 2, "a run was paused %d times", pauses);
	ok(same_model(&outcome, whole), "and gave the same bits as one without a pause");
	outcome_free(&outcome);
	free(last.stream);
}

/* PAUSE before RUN, CHECKPOINT_NOW, and both when the run is over (R5). */
static void
test_orders(void)
{
	static const char options[] = "{" TINY ",\"iterations\":3}";
	Start start = { .options = options };
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };

	training_start(&training, settings, NULL);
	training_ready(&training, &start, pairs, PAIRS, &ready);
	client_send(&training.client, BICYCLE_PAUSE, 0, NULL, 0);
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.paused && outcome.ncheckpoints == 1 && outcome.checkpoints[0].iteration == 0,
	   "a run that is paused before it starts has a checkpoint");
	outcome_free(&outcome);
	training_end(&training);

	training_start(&training, settings, NULL);
	training_ready(&training, &start, pairs, PAIRS, &ready);
	client_send(&training.client, BICYCLE_CHECKPOINT_NOW, 0, NULL, 0);
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.done && outcome.ncheckpoints == 2 && outcome.checkpoints[0].iteration == 0,
	   "CHECKPOINT_NOW is answered by one checkpoint");
	client_send(&training.client, BICYCLE_PAUSE, 0, NULL, 0);
	client_send(&training.client, BICYCLE_CHECKPOINT_NOW, 0, NULL, 0);
	ok(!client_receive_within(&training.client, 100) && !training.client.closed,
	   "and orders after the end by nothing");
	outcome_free(&outcome);
	ok(training_end(&training), "a finished engine ends in order");
}

/*
 * A run that nobody will see the end of has more epochs than the job worker can
 * count.
 */
static void
test_endless(void)
{
	Start start = { .options = "{" TINY ",\"iterations\":9007199254740992}" };
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };

	training_start(&training, settings, NULL);
	training_ready(&training, &start, pairs, PAIRS, &ready);
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome.nlosses == 0 && outcome_read(&training, &outcome))
		;
	ok(outcome.nlosses == 1 && outcome.losses.epoch >= 1 && outcome.losses.epochs == INT32_MAX,
	   "a run of %lld iterations says that it has %d epochs", (long long) ready.iterations,
	   outcome.losses.epochs);
	client_send(&training.client, BICYCLE_PAUSE, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.paused, "and is paused as any other");
	outcome_free(&outcome);
	training_end(&training);
}

/* A stored version of which a bit has changed is not trained on. */
static void
test_damaged_start(Start start)
{
	Training training;
	BicycleTrainReady ready;
	uint8_t *damaged = malloc(start.length);

	memcpy(damaged, start.stream, start.length);
	damaged[start.length - 3] ^= 1;
	start.stream = damaged;
	training_start(&training, settings, NULL);
	ok(!training_ready(&training, &start, pairs, PAIRS, &ready) &&
		   client_is_error(&training.client, "XX001"),
	   "a version that is not what was stored is refused");
	ok(training_end(&training), "and the engine ends in order");
	free(damaged);
}

/*
 * A version's weights to start from, discriminators and all; and a model
 * without an encoder.
 */
static void
test_continue(const Outcome *whole)
{
	static const char more[] = "{" TINY ",\"iterations\":2}";
	static const char noise[] = "{" TINY ",\"iterations\":2,\"method\":\"pix2pix_noise\",\"batch_"
								"size\":3,\"preview_every\":2,\"ema\":0.9}";
	Start start = { .options = more,
					.stream = whole->model.stream,
					.length = whole->model.length,
					.config = whole->model.config,
					.hash = whole->model.hash };
	Outcome on, anew, other;

	test_damaged_start(start);
	outcome_run(&on, settings, &start, pairs, PAIRS);
	start = (Start){ .options = more };
	outcome_run(&anew, settings, &start, pairs, PAIRS);
	ok(on.done && on.losses.iteration == 2, "a run starts from a version");
	ok(anew.done && !same_model(&on, &anew), "which is not the same as fresh weights");
	start = (Start){ .options = noise };
	outcome_run(&other, settings, &start, pairs, PAIRS);
	ok(other.done && other.npreviews == 1 && (other.losses.present & 0x20) == 0,
	   "a model without encoder is trained, and has no latent loss");
	outcome_free(&on);
	outcome_free(&anew);
	outcome_free(&other);
}

/* ---- How pairs are decoded ----------------------------------------------- */

/* The pixels of a file as they lie in it, without alpha, as a PNG. */
static uint8_t *
bare_png(const uint8_t *bytes, size_t length, size_t *png_length)
{
	const ImageLimits limits = { .max_pixels = 1 << 20, .max_memory = 1 << 26 };
	Image image;
	ImageError image_error;
	uint8_t *png;

	if (image_decode(bytes, length, 3, IMAGE_OPAQUE, &limits, &image, &image_error) != IMAGE_OK ||
		image_encode_png(&image, &png, png_length, &image_error) != IMAGE_OK)
		bail_out("%s", image_error.message);
	image_free(&image);
	return png;
}

static BicycleLosses
losses_of(const char *options, const Pair *pair)
{
	const Start start = { .options = options };
	Pair twice[] = { *pair, *pair };
	Outcome outcome;
	BicycleLosses losses;

	outcome_run(&outcome, settings, &start, twice, 2);
	ok(outcome.done, "a run of %zu and %zu bytes ends", pair->length[0], pair->length[1]);
	losses = outcome.losses;
	outcome_free(&outcome);
	return losses;
}

static bool
same_losses(const BicycleLosses *x, const BicycleLosses *y)
{
	return x->present == y->present && memcmp(x->value, y->value, sizeof(x->value)) == 0;
}

/* Alpha is dropped if the model says so, and nothing turns an image by EXIF. */
static void
test_decoding(void)
{
#define ONCE TINY ",\"iterations\":2"
	Pair pair, bare;
	BicycleLosses dropped, white, both;

	pair.bytes[0] = testdata_load("png/basi6a08.png", &pair.length[0]);
	pair.bytes[1] = testdata_load("exif/6.jpg", &pair.length[1]);
	for (int i = 0; i < 2; i++)
		bare.bytes[i] = bare_png(pair.bytes[i], pair.length[i], &bare.length[i]);
	both = losses_of("{" ONCE "}", &bare);
	white = losses_of("{" ONCE "}", &pair);
	dropped = losses_of("{" ONCE ",\"alpha\":\"drop\"}", &pair);
	ok(same_losses(&dropped, &both),
	   "with alpha drop a run is that of images without alpha, and without EXIF");
	ok(!same_losses(&white, &both), "and without it is not");
	for (int i = 0; i < 2; i++)
	{
		free(pair.bytes[i]);
		free(bare.bytes[i]);
	}
#undef ONCE
}

int
main(void)
{
	Outcome whole;

	pairs = pairs_make(PAIRS);
	test_ready();
	test_precision();
	outcome_run(&whole, settings, &fresh, pairs, PAIRS);
	check_run(&whole);
	check_preview(&whole);
	check_model(&whole);
	test_resume(&whole, settings, &fresh, "cpu");
	test_disk(&whole);
	test_finished(&whole);
	test_pause(&whole);
	test_orders();
	test_endless();
	test_decoding();
	test_continue(&whole);
	outcome_free(&whole);
	outcome_run(&whole, on_ref, &few, pairs, PAIRS);
	test_resume(&whole, on_ref, &few, "ref");
	outcome_free(&whole);
	pairs_free(pairs, PAIRS);
	return done_testing();
}
