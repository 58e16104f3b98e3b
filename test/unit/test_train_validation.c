/*
 * Validation measures a run and leaves no trace in what it learns; rows that
 * are looked at together give the bits of one by one; LPIPS is measured if its
 * weights come, and only then; the best weights are kept, never those of what
 * is no number, and patience ends a run, the same in a run that was interrupted
 * as in one that was not.
 */
#include "train_client.h"
#include "metric_weights.h"

#include "engine/run.h"

#include <math.h>

#define PAIRS 6
#define OTHERS 3
#define TINY "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"load_size\":70,\"seed\":7"
#define QUERY "\"validation\":\"SELECT\""

static const char *const settings[] = { "device cpu", "threads 2", NULL };
static Pair *pairs; /* PAIRS to train on, then OTHERS */
static MetricWeights weights;

static void
run(Outcome *outcome, const Start *start)
{
	outcome_run(outcome, settings, start, pairs, PAIRS);
}

static void
run_options(Outcome *outcome, const char *options)
{
	const Start start = { .options = options };

	run(outcome, &start);
}

static double
value_at(const Outcome *outcome, int i, NnMeasure metric)
{
	return outcome->validated[i].value[metric];
}

/* ---- Errors -------------------------------------------------------------- */

static void
is_refused(const Start *start, const char *sqlstate, const char *what, const char *word)
{
	Training training;
	BicycleTrainReady ready;
	bool refused;

	training_start(&training, settings, NULL);
	refused = !training_ready(&training, start, pairs, PAIRS, &ready) &&
			  client_is_error(&training.client, sqlstate);
	ok(refused &&
		   memmem(training.client.body, training.client.frame.length, word, strlen(word)) != NULL,
	   "%s: %s", what, (char *) training.client.body + sizeof(BicycleError));
	ok(training_end(&training), "and the engine ends in order");
}

/* Once it runs. */
static void
fails_with(const Start *start, const char *sqlstate, const char *what)
{
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };

	training_start(&training, settings, NULL);
	if (!training_ready(&training, start, pairs, PAIRS, &ready))
		bail_out("a run did not get ready");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(client_is_error(&training.client, sqlstate), "%s: %s", what,
	   (char *) training.client.body + sizeof(BicycleError));
	ok(training_end(&training), "and the engine ends in order");
	outcome_free(&outcome);
}

/* ---- What is measured ---------------------------------------------------- */

static void
fill(RunValidation *validation, Engine *engine, const NnConfig *config,
	 const NnTrainOptions *options)
{
	BicycleTrainBegin begin = { .max_pixels = 1 << 20, .train_memory = 1 << 24, .spill = "/tmp" };
	RunData none;
	EngineError error;

	run_data_init(&none);
	run_data_begin(&none, &begin, false);
	run_validation_init(validation);
	run_validation_begin(validation, &begin, config, options);
	run_validation_share(validation, &none);
	if (!run_metric_begin(&validation->metric, &weights.load, (const uint8_t *) weights.config,
						  SIZE_MAX, &error))
		bail_out("%s", error.message);
	memcpy(validation->metric.stream, weights.stream, weights.load.stream_length);
	validation->metric.have = weights.load.stream_length;
	for (int i = 0; i < OTHERS; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[PAIRS + i], &length);

		if (!run_data_add(&validation->data, body, length, &error))
			bail_out("a pair was refused: %s", error.message);
		free(body);
	}
	if (!run_validation_complete(validation, &none, engine, config, options, &error))
		bail_out("%s", error.message);
	for (int i = 0; i < OTHERS; i++)
		if (!run_feed_try(&validation->feed, &validation->data.pairs[i], &error))
			bail_out("%s", error.message);
	if (!run_validation_open(validation, config, engine->device.nn, &error))
		bail_out("%s %s", error.message, error.detail);
	run_data_free(&none);
}

#define N (64 * 64 * 3)

/* Of bytes, in the networks' range. */
static double
difference(const uint8_t *x, const uint8_t *y)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < N; i++)
		sum += (uint64_t) abs(x[i] - y[i]);
	return (double) sum / 127.5 / N;
}

/* LPIPS of one pair alone. */
static double
distance(const RunValidation *validation, const uint8_t *x, const uint8_t *y)
{
	static uint8_t pair[2][N];
	float found, features[2 * 512];
	NnError error;

	memcpy(pair[0], x, N);
	memcpy(pair[1], y, N);
	if (nn_model_compare(validation->metric.model, (NnExtent){ 64, 64 }, 1, pair[0], &found,
						 features, &error) != NN_OK)
		bail_out("%s", error.message);
	return found;
}

/* The metrics from their definition, under the codes of a row. */
static void
define(NnFit *fit, const RunValidation *validation, bool encoder, double expected[NN_MEASURES])
{
	static uint8_t out[2][N];
	float z[2][4], mu[2][4], logvar[4];
	NnError error;

	memset(expected, 0, NN_MEASURES * sizeof(double));
	for (int row = 0; row < OTHERS; row++)
	{
		const uint8_t *a = validation->data.pairs[row].pixels, *b = a + N;
		double latent = 0;

		for (int i = 0; i < 2; i++)
		{
			nn_normal(7, (UINT64_C(3) << 61) + (uint64_t) (2 * row + i), 4, z[i]);
			nn_fit_translate_bytes(fit, 1, a, z[i], out[i], &error);
			if (encoder)
				nn_fit_encode_bytes(fit, 1, out[i], mu[i], logvar, &error);
			for (int k = 0; encoder && k < 4; k++)
				latent += fabs((double) mu[i][k] - (double) z[i][k]);
		}
		expected[NN_MEASURE_DIVERSITY] += difference(out[0], out[1]);
		if (encoder)
		{
			expected[NN_MEASURE_Z_L1] += latent / 2 / 4;
			nn_fit_encode_bytes(fit, 1, b, mu[0], logvar, &error);
			nn_fit_translate_bytes(fit, 1, a, mu[0], out[0], &error);
		}
		expected[NN_MEASURE_L1] += difference(out[0], b);
		expected[NN_MEASURE_LPIPS] += distance(validation, out[0], b);
	}
	for (int i = 0; i < NN_MEASURES; i++)
		expected[i] /= OTHERS;
}

static void
check_metrics(Engine *engine, const char *text, bool encoder)
{
	RunValidation validation;
	RunMeasured measured;
	NnConfig config;
	NnTrainOptions options;
	NnFit *fit;
	NnError nn_error;
	EngineError error;
	double expected[NN_MEASURES];
	bool good = true;

	if (nn_train_options_parse(&config, &options, text, strlen(text), &nn_error) != NN_OK ||
		nn_fit_open(engine->device.nn, &config, &options, NN_PRECISION_FP32, PAIRS, NULL, 0, &fit,
					&nn_error) != NN_OK)
		bail_out("%s", nn_error.message);
	fill(&validation, engine, &config, &options);
	if (!run_validation_measure(&validation, fit, 7, &measured, &error))
		bail_out("%s", error.message);
	define(fit, &validation, encoder, expected);
	for (int i = 0; i < NN_MEASURES; i++)
	{
		bool there = encoder || i != NN_MEASURE_Z_L1;

		good = good && measured.present[i] == there && measured.value[i] == expected[i] &&
			   (!there || expected[i] > 1e-3);
		diag("%s is %g, and %g by its definition", bicycle_measure_names[i], measured.value[i],
			 expected[i]);
	}
	ok(good && validation.look.most == OTHERS,
	   "%s an encoder the metrics of %d pairs at once are those of each alone, to the bit",
	   encoder ? "with" : "without", validation.look.most);
	nn_fit_close(fit);
	run_validation_free(&validation);
}

static void
test_metrics(void)
{
	static Engine engine;
	NnError error;

	if (!engine_init(&engine) || nn_device_open("cpu", 2, &engine.device.nn, &error) != NN_OK)
		bail_out("cannot make an engine");
	budget_limits(&engine);
	check_metrics(&engine, "{" TINY "," QUERY ",\"init_gain\":2}", true);
	check_metrics(&engine, "{" TINY "," QUERY ",\"init_gain\":2,\"method\":\"pix2pix_noise\"}",
				  false);
	engine_free(&engine);
}

/* ---- What it leaves alone ------------------------------------------------ */

#define LENGTH ",\"iterations\":6"

static void
test_no_trace(void)
{
	static const char *const variants[] = { ",\"norm\":\"batch\",\"dropout\":true",
											",\"method\":\"pix2pix_noise\",\"ema\":0.9" };

	for (int i = 0; i < 2; i++)
	{
		Outcome without, with;
		char options[512];

		nvalidation = 0;
		snprintf(options, sizeof(options), "{" TINY LENGTH "%s}", variants[i]);
		run_options(&without, options);
		nvalidation = OTHERS;
		snprintf(options, sizeof(options), "{" TINY LENGTH "%s," QUERY ",\"validate_every\":4}",
				 variants[i]);
		run_options(&with, options);
		ok(same_model(&with, &without), "validation changes no bit of what is learnt%s",
		   variants[i]);
		ok(with.nvalidated == 2 && with.validated[0].iteration == 4 &&
			   with.validated[1].iteration == 6,
		   "it comes as often as was asked for, and at the end");
		outcome_free(&with);
		metric_weights_sent = &weights;
		run_options(&with, options);
		metric_weights_sent = NULL;
		ok(same_model(&with, &without) && with.nvalidated == 2 &&
			   with.validated[0].present >> NN_MEASURE_LPIPS == 1 &&
			   value_at(&with, 0, NN_MEASURE_LPIPS) > 0,
		   "nor does LPIPS, where its weights have come");
		outcome_free(&with);
		outcome_free(&without);
	}
}

/* ---- The best weights ---------------------------------------------------- */

/* The first validation that none is better than. */
static int
best_of(const Outcome *outcome, NnMeasure metric)
{
	int best = 0;

	for (int i = 1; i < outcome->nvalidated; i++)
		if (nn_measure_better(metric, value_at(outcome, i, metric),
							  value_at(outcome, best, metric)))
			best = i;
	return best;
}

static void
test_best(void)
{
	static const char *const variants[] = { ",\"keep_metric\":\"val_diversity\",\"ema\":0.5", "" };
	static const NnMeasure metrics[] = { NN_MEASURE_DIVERSITY, NN_MEASURE_L1 };

	nvalidation = OTHERS;
	for (int i = 0; i < 2; i++)
	{
		Outcome outcome;
		char options[512];
		int best;

		snprintf(options, sizeof(options),
				 "{" TINY LENGTH "," QUERY ",\"validate_every\":1,\"checkpoint_every\":1,\"keep\":"
				 "\"best\",\"lr\":0.005%s}",
				 variants[i]);
		run_options(&outcome, options);
		best = best_of(&outcome, metrics[i]);
		ok(outcome.done && outcome.iteration == outcome.validated[best].iteration &&
			   (outcome.noted & 1u << BICYCLE_NOTE_KEPT) != 0,
		   "the model is that of the best %s, iteration %lld: \"%s\"",
		   bicycle_measure_names[metrics[i]], (long long) outcome.iteration, outcome.note);
		if (i > 0) /* the other's weights are averages */
			ok(outcome.iteration < 6 &&
				   is_in_saved(&outcome, saved_at(&outcome, outcome.iteration), ""),
			   "its weights are those that the run had then, discriminators too");
		outcome_free(&outcome);
	}
}

/* By what cannot be measured without weights that come. */
static void
test_best_lpips(void)
{
	Start start = { .options = "{" TINY LENGTH "," QUERY ",\"validate_every\":1,\"keep\":\"best\""
							   ",\"keep_metric\":\"val_lpips\",\"lr\":0.005}" };
	MetricWeights damaged = weights;
	Outcome outcome;

	nvalidation = OTHERS;
	is_refused(&start, "55000", "what is best cannot be chosen by LPIPS without its weights",
			   "LPIPS");
	metric_weights_sent = &weights;
	run(&outcome, &start);
	ok(outcome.done &&
		   outcome.iteration == outcome.validated[best_of(&outcome, NN_MEASURE_LPIPS)].iteration &&
		   strstr(outcome.note, "val_lpips") != NULL,
	   "with them it can: \"%s\"", outcome.note);
	outcome_free(&outcome);
	start.options = "{" TINY LENGTH "}";
	nvalidation = 0;
	is_refused(&start, "08P01", "they are not for a run without validation", "out of turn");
	damaged.load.hash[0] ^= 1;
	metric_weights_sent = &damaged;
	start.options = "{" TINY LENGTH "," QUERY "}";
	nvalidation = OTHERS;
	fails_with(&start, "XX001", "weights of another hash end the run");
	metric_weights_sent = NULL;
}

static void
test_no_number(void)
{
	RunBest best = { 0 }, again = { 0 };
	const uint8_t digest[BICYCLE_HASH_BYTES] = { 1 };
	TensorStream stream;
	EngineError error;
	uint8_t *bytes;
	size_t length;
	bool same;

	ok(!run_best_is(&best, NN_MEASURE_L1, NAN, 1) && !best.found && best.missed == 1 &&
		   !run_best_is(&best, NN_MEASURE_L1, INFINITY, 2) && !best.found && best.missed == 2,
	   "what is no finite number is not the best, also as the first");
	if (!run_best_pack(&best, digest, &bytes, &length, &error) ||
		!stream_parse(bytes, length, &stream, &error) ||
		!run_best_restore(&again, &stream, digest, &same, &error))
		bail_out("%s", error.message);
	ok(same && !again.found && again.missed == 2, "nor is it after a checkpoint");
	stream_free(&stream);
	free(bytes);
	ok(run_best_is(&again, NN_MEASURE_L1, 2, 3) && again.missed == 0 &&
		   !run_best_is(&again, NN_MEASURE_L1, NAN, 4) && again.value == 2 && again.missed == 1 &&
		   run_best_is(&again, NN_MEASURE_L1, 1, 5),
	   "a number then is, and only a better number takes its place");
	run_best_free(&again);
}

/* With a rate of 0 all validations are equal: the first is the best. */
static void
test_ties(void)
{
	Outcome outcome;

	nvalidation = OTHERS;
	run_options(&outcome,
				"{" TINY ",\"iterations\":10," QUERY ",\"validate_every\":2,\"keep\":\"best\""
				",\"lr\":0,\"patience\":3}");
	ok(outcome.nvalidated == 4 &&
		   value_at(&outcome, 0, NN_MEASURE_L1) == value_at(&outcome, 3, NN_MEASURE_L1),
	   "a run is ended by as many validations without a better one as patience says");
	ok(outcome.done && outcome.iteration == 2, "of equal ones the first is the best");
	ok(outcome.ncheckpoints == 1 && outcome.checkpoints[0].iteration == 8 &&
		   outcome.checkpoints[0].flags == BICYCLE_CHECKPOINT_LAST,
	   "its checkpoint says that it is the last");
	ok((outcome.noted & 1u << BICYCLE_NOTE_ENDED_EARLY) != 0 && outcome.losses.iteration == 8,
	   "a note tells that it ends, after the losses up to there");
	outcome_free(&outcome);
}

/* ---- Interrupted --------------------------------------------------------- */

#define EARLY                                                                            \
	"{" TINY ",\"iterations\":40," QUERY ",\"validate_every\":2,\"checkpoint_every\":3," \
	"\"keep\":\"best\",\"patience\":2,\"lr\":0.005}"

/* A checkpoint as release 0.1 has made it. */
static Saved
without_best(const Saved *saved)
{
	TensorStream stream;
	EngineError error;
	Bytes bytes = { 0 };

	if (!stream_parse(saved->stream, saved->length, &stream, &error))
		bail_out("%s", error.message);
	for (int i = 0; i < stream.ntensors; i++)
	{
		BicycleTensor header;

		if (strncmp(stream.tensors[i].name, "best", 4) == 0)
			continue;
		if (!stream_header(&stream.tensors[i], &header, &error))
			bail_out("%s", error.message);
		put(&bytes, &header, sizeof(header));
		put(&bytes, stream.tensors[i].data, stream.tensors[i].nbytes);
	}
	stream_free(&stream);
	return (Saved){ .iteration = saved->iteration, .stream = bytes.at, .length = bytes.n };
}

static void
resume(Outcome *outcome, const Saved *saved, uint32_t flags)
{
	const Start start = { .options = EARLY,
						  .iteration = saved->iteration,
						  .stream = saved->stream,
						  .length = saved->length,
						  .flags = flags };

	outcome_run(outcome, settings, &start, pairs, flags == 0 ? PAIRS : 0);
}

static void
test_resume(void)
{
	Outcome whole, on;
	const Saved *last;
	Saved old;

	nvalidation = OTHERS;
	run_options(&whole, EARLY);
	last = &whole.checkpoints[whole.ncheckpoints - 1];
	ok(whole.done && last->iteration < 40 && whole.iteration == last->iteration - 4,
	   "a run of 40 iterations ends early, at iteration %lld", (long long) last->iteration);
	for (int i = 0; i + 1 < whole.ncheckpoints; i++)
	{
		resume(&on, &whole.checkpoints[i], 0);
		ok(same_model(&on, &whole) && same_saved(&on.checkpoints[on.ncheckpoints - 1], last),
		   "resumed at iteration %lld it ends there, too, with the same bits",
		   (long long) whole.checkpoints[i].iteration);
		outcome_free(&on);
	}
	nvalidation = 0;
	resume(&on, last, BICYCLE_TRAIN_FINISHED);
	ok(same_model(&on, &whole), "resumed when it is over it only gives the model");
	outcome_free(&on);
	nvalidation = OTHERS;
	old = without_best(&whole.checkpoints[0]);
	resume(&on, &old, 0);
	ok(on.done && ready_noted == 0, "a checkpoint that knows nothing of this is gone on from");
	outcome_free(&on);
	free(old.stream);
	nvalidation = OTHERS - 1;
	resume(&on, &whole.checkpoints[0], 0);
	ok(on.done && ready_noted == 1u << BICYCLE_NOTE_OTHER_PAIRS,
	   "that there are other validation pairs than before is noted");
	outcome_free(&on);
	outcome_free(&whole);
}

/* ---- The pairs ----------------------------------------------------------- */

static void
test_pairs(void)
{
	Start start = { .options = "{" TINY ",\"iterations\":2," QUERY "}" };
	Pair bad[2];
	uint8_t noise[100] = "no image";
	Outcome outcome;

	nvalidation = 0;
	is_refused(&start, "22023", "no validation pairs are an error", "validation");
	nvalidation = OTHERS;
	start.memory = 64 << 10; /* of which pixels take 74 */
	start.disk = 1 << 20;
	is_refused(&start, "54000", "so are more than there is memory for", "validation");
	start.memory = start.disk = 0;
	bad[0] = pairs[PAIRS];
	bad[1] = (Pair){ { pairs[0].bytes[0], noise }, { pairs[0].length[0], sizeof(noise) } };
	validation_pairs = bad;
	nvalidation = 2;
	is_refused(&start, "22P03", "and what is no image", "validation");
	start.options = "{" TINY ",\"iterations\":2,\"bad_pairs\":\"skip\"," QUERY "}";
	run(&outcome, &start);
	ok(outcome.done && ready_noted == 1u << BICYCLE_NOTE_NOT_VALIDATED,
	   "which can be skipped: \"%s\"", ready_note);
	outcome_free(&outcome);
	validation_pairs = pairs + PAIRS - 2;
	nvalidation = OTHERS;
	run(&outcome, &start);
	ok(outcome.done && ready_noted == 1u << BICYCLE_NOTE_OVERLAP &&
		   strncmp(ready_note, "2 of 3 ", 7) == 0,
	   "pairs that are trained on, too, are noted: \"%s\"", ready_note);
	outcome_free(&outcome);
	validation_pairs = pairs + PAIRS;
}

int
main(void)
{
	pairs = pairs_make(PAIRS + OTHERS);
	validation_pairs = pairs + PAIRS;
	weights = metric_weights_make();
	test_metrics();
	test_no_trace();
	test_best();
	test_best_lpips();
	test_no_number();
	test_ties();
	test_resume();
	test_pairs();
	pairs_free(pairs, PAIRS + OTHERS);
	metric_weights_free(&weights);
	return done_testing();
}
