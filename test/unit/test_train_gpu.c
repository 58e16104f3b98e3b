/*
 * Which device a run trains on, on the imitated GPU of test/cuda: what the
 * settings say, and what the job was on; a run for which the card has no room,
 * what compares its images included, is an error with both figures, or under
 * auto the CPU's, with a note; a run goes from the GPU to the CPU and back;
 * checkpoints leave the GPU while training goes on, with the bits of those that
 * it waits for, and whatever allocation or copy fails, the run comes to the
 * same model in the end; the best weights are those of the iteration that was
 * measured best, in every checkpoint, as on the CPU, also in a run that goes on
 * and then ends early.
 */
#include "gpu_fixture.h"
#include "nn/fit.h"
#include "train_client.h"
#include "metric_weights.h"

#include <math.h>

#define PAIRS 3
#define OTHERS 2 /* to validate on */
#define TINY "\"size\":64,\"ngf\":2,\"nef\":2,\"ndf\":2,\"nz\":2,\"load_size\":64"
#define OPTIONS "{" TINY ",\"iterations\":2,\"checkpoint_every\":1}"

static Pair *pairs;

/* ---- One run that is opened ---------------------------------------------- */

/* What became of it: "" and the platform, or the error's words. */
typedef struct Opened
{
	BicycleTrainReady ready;
	char state[6]; /* of the error */
	char words[1024];
	char note[512];
	int contexts; /* on the GPU, of a run that has begun */
} Opened;

static void
take_error(const Client *client, Opened *opened)
{
	BicycleError error;
	const char *texts = (const char *) client->body + sizeof(error);

	memcpy(&error, client->body, sizeof(error));
	memcpy(opened->state, error.sqlstate, sizeof(opened->state));
	snprintf(opened->words, sizeof(opened->words), "%.*s: %.*s %.*s", (int) error.message_length,
			 texts, (int) error.detail_length, texts + error.message_length,
			 (int) error.hint_length, texts + error.message_length + error.detail_length);
}

static Opened
open_start(const char *device, const Start *start)
{
	const char *settings[] = { device, "threads 1", NULL };
	Training training;
	Opened opened = { 0 };

	training_start(&training, settings, NULL);
	training_begin(&training, start);
	training_pairs(&training, pairs, PAIRS);
	while (client_receive(&training.client) && training.client.frame.type == BICYCLE_NOTE)
		snprintf(opened.note, sizeof(opened.note), "%s",
				 (char *) training.client.body + sizeof(BicycleNote));
	if (training.client.frame.type == BICYCLE_TRAIN_READY)
	{
		memcpy(&opened.ready, training.client.body, sizeof(opened.ready));
		opened.contexts = gpu->contexts;
	}
	else if (training.client.frame.type == BICYCLE_ERROR)
		take_error(&training.client, &opened);
	if (!training_end(&training))
		strcpy(opened.state, "?");
	return opened;
}

/* device: a setting; platform: of an earlier run, or NULL. */
static Opened
open_run(const char *device, const char *platform)
{
	return open_start(device, &(Start){ .options = OPTIONS, .platform = platform });
}

/* One that validates. */
static Opened
open_validated(const char *device)
{
	Opened opened;

	validation_pairs = pairs + PAIRS;
	nvalidation = OTHERS;
	opened = open_start(
		device, &(Start){ .options = "{" TINY ",\"iterations\":2,\"validation\":\"SELECT\"}" });
	nvalidation = 0;
	return opened;
}

static bool
is_on(const Opened *opened, const char *device)
{
	if (strncmp(opened->ready.platform, device, strlen(device)) == 0)
		return true;
	diag("it is on \"%s\", %s %s %s", opened->ready.platform, opened->state, opened->words,
		 opened->note);
	return false;
}

/* ---- Which device -------------------------------------------------------- */

static void
test_choice(void)
{
	Opened opened = open_run("device cuda", NULL);

	ok(is_on(&opened, "cuda:0 (imitated GPU"), "with device cuda a run is on the GPU: %s",
	   opened.ready.platform);
	opened = open_run("device auto", NULL);
	ok(is_on(&opened, "cuda:0 (imitated GPU") && opened.note[0] == '\0' && opened.contexts == 1,
	   "so it is with auto, without a note");
	opened = open_run("device auto", "cuda:0 (imitated GPU, 8 GiB), fp32, bicycle 0.2");
	ok(is_on(&opened, "cuda:0 (imitated GPU") && strstr(opened.ready.platform, ", fp32, "),
	   "and one that was there in fp32 stays there, and in it");
	opened = open_run("device auto", "cpu (AVX2, oneDNN 2.6.3, 2 threads), fp32, bicycle 0.2");
	ok(is_on(&opened, "cpu") && opened.note[0] == '\0', "one that was on the CPU stays on it");
	opened = open_run("device cuda", "cpu (AVX2, oneDNN 2.6.3, 2 threads), fp32, bicycle 0.2");
	ok(is_on(&opened, "cuda:0"), "unless the setting says otherwise");
	opened = open_run("device cpu", NULL);
	ok(is_on(&opened, "cpu"), "with device cpu it is on the CPU");
	opened = open_run("device cuda:7", NULL);
	ok(strcmp(opened.state, "55000") == 0 && strstr(opened.words, "device \"cuda:7\" is missing"),
	   "a GPU that is not there is missing: %s", opened.words);
	gpu->driver = 0;
	opened = open_run("device auto", NULL);
	ok(is_on(&opened, "cpu") && opened.note[0] == '\0',
	   "without a driver auto is the CPU, without a note");
	opened = open_run("device cuda", NULL);
	ok(strcmp(opened.state, "55000") == 0 && strstr(opened.words, "\"bicycle.training_device\""),
	   "and cuda an error that names the setting: %s", opened.words);
	gpu->driver = 13000;
}

/* Words of an error: what is needed, in MB. */
static size_t
needed(const Opened *opened)
{
	const char *at = strstr(opened->words, "needs ");

	return at ? strtoul(at + strlen("needs "), NULL, 10) : 0;
}

/* A card that has room for a run, but not for LPIPS beside it. */
static void
test_metric_memory(void)
{
	MetricWeights weights = metric_weights_make();
	size_t card = gpu->memory, run, all;
	Opened opened;

	gpu->memory = 1 << 20;
	opened = open_validated("device cuda");
	run = needed(&opened);
	metric_weights_sent = &weights;
	opened = open_validated("device cuda");
	all = needed(&opened);
	ok(run > 0 && all > run + 10, "a run needs %zu MB, and %zu with weights of LPIPS", run, all);
	gpu->memory = ((run + all) / 2 << 20) / 7 * 8; /* of which an eighth is not taken */
	opened = open_validated("device cuda");
	ok(strcmp(opened.state, "53200") == 0 && needed(&opened) == all && gpu->used == 0,
	   "where there is room without them it is 53200 before anything is taken: %s", opened.words);
	opened = open_validated("device auto");
	ok(is_on(&opened, "cpu") && strstr(opened.note, "trains on the CPU"), "and auto is the CPU: %s",
	   opened.note);
	metric_weights_sent = NULL;
	opened = open_validated("device cuda");
	ok(is_on(&opened, "cuda:0"), "and without them it is on the GPU");
	gpu->memory = card;
	metric_weights_free(&weights);
}

static void
test_memory(void)
{
	size_t card = gpu->memory;
	Opened opened;

	gpu->memory = 1 << 20;
	opened = open_run("device cuda", NULL);
	ok(strcmp(opened.state, "53200") == 0 && strstr(opened.words, "out of GPU memory") &&
		   strstr(opened.words, "needs ") && strstr(opened.words, " MB, and of 1 MB of the GPU") &&
		   strstr(opened.words, "accumulate"),
	   "where there is no room it is 53200, with the figures: %s", opened.words);
	ok(gpu->used == 0, "and nothing is held");
	opened = open_run("device auto", NULL);
	ok(is_on(&opened, "cpu") && strstr(opened.note, "trains on the CPU, as cuda:0 cannot be had") &&
		   strstr(opened.note, "needs "),
	   "auto is the CPU then, with a note: %s", opened.note);
	ok(opened.contexts == 0, "and nothing of the GPU is held by what trains on the CPU");
	gpu->memory = card;
}

/* ---- To and fro ---------------------------------------------------------- */

static bool
run_to_checkpoint(const char *device, const Saved *from, Saved *to, Outcome *outcome)
{
	const char *settings[] = { device, "threads 1", NULL };
	Start start = { .options = OPTIONS };

	if (from != NULL)
	{
		start.iteration = from->iteration;
		start.stream = from->stream;
		start.length = from->length;
	}
	outcome_run(outcome, settings, &start, pairs, PAIRS);
	if (!outcome->done || outcome->ncheckpoints == 0)
		return false;
	*to = outcome->checkpoints[0];
	return true;
}

static void
test_to_and_fro(void)
{
	Outcome first, second, third;
	Saved on_gpu, on_cpu, again;

	ok(run_to_checkpoint("device cuda", NULL, &on_gpu, &first) && on_gpu.iteration == 1,
	   "a run begins on the GPU");
	ok(run_to_checkpoint("device cpu", &on_gpu, &on_cpu, &second) && on_cpu.iteration == 2 &&
		   on_cpu.length == on_gpu.length,
	   "and goes on on the CPU, with checkpoints of the same form");
	ok(run_to_checkpoint("device cuda", &on_gpu, &again, &third) &&
		   third.model.length == first.model.length &&
		   memcmp(third.model.stream, first.model.stream, first.model.length) == 0,
	   "and on the GPU, where it comes to the same bits as without the interruption");
	outcome_free(&first);
	outcome_free(&second);
	outcome_free(&third);
}

/* ---- Checkpoints while training goes on ---------------------------------- */

#define SAVED "{" TINY ",\"iterations\":4,\"checkpoint_every\":2}"

/* fault: "train KIND:N" or "". False if it did not end with a model. */
static bool
save_run(const char *fault, const Saved *from, Outcome *outcome)
{
	char setting[80];
	const char *settings[] = { "device cuda", "threads 1", "debug 1", setting, NULL };
	Start start = { .options = SAVED };
	Training training;
	BicycleTrainReady ready;

	snprintf(setting, sizeof(setting), "debug_device_fault %s", fault);
	if (from != NULL)
	{
		start.iteration = from->iteration;
		start.stream = from->stream;
		start.length = from->length;
	}
	memset(outcome, 0, sizeof(*outcome));
	training_start(&training, settings, NULL);
	if (training_ready(&training, &start, pairs, PAIRS, &ready))
	{
		client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
		while (outcome_read(&training, outcome))
			;
	}
	if (!training_end(&training))
		bail_out("the training engine did not end in order");
	return outcome->done;
}

/* Goes on after an error while it trained, as a job worker does. */
static bool
goes_on(const Outcome *broken, const Outcome *whole)
{
	int n = broken->ncheckpoints;
	Outcome rest;
	bool good;

	if (broken->nlosses == 0)
		return true;
	good =
		save_run("", n > 0 ? &broken->checkpoints[n - 1] : NULL, &rest) && same_model(&rest, whole);
	outcome_free(&rest);
	return good;
}

/* Each in turn of the first allocations; whether one of them was the copy's. */
static void
test_no_room(const Outcome *whole)
{
	bool good = true, noted = false;

	for (int n = 1; n <= 8 && good && !noted; n++)
	{
		char fault[32];
		Outcome run;

		snprintf(fault, sizeof(fault), "train allocation:%d", n);
		good = save_run(fault, NULL, &run) ? same_model(&run, whole) : goes_on(&run, whole);
		if (run.done && strstr(run.note, "training waits while a checkpoint is made"))
		{
			noted = true;
			good = good && same_saved(&run.checkpoints[0], &whole->checkpoints[0]);
		}
		outcome_free(&run);
	}
	ok(good && noted, "without room for a copy training waits, with a note and the same bits");
}

/* Copies of weights, of inputs, of snapshots: of all of a run's, some. */
static void
test_broken_copies(const Outcome *whole)
{
	int broken = 0, late = 0;
	bool good = true, came = true;

	for (int n = 40; good && came; n += 97)
	{
		char fault[32];
		Outcome run;

		snprintf(fault, sizeof(fault), "train copy:%d", n);
		came = !save_run(fault, NULL, &run);
		broken += came;
		late += came && run.nlosses > 0;
		good = came ? goes_on(&run, whole) : same_model(&run, whole);
		outcome_free(&run);
	}
	ok(good && late > 0 && broken > late,
	   "and a copy that fails costs no more than what came after the last checkpoint: %d of %d "
	   "while it trained",
	   late, broken);
}

static void
test_saving(void)
{
	Outcome held, whole, rest;

	gpu->hold = 2;
	gpu->held = 0;
	ok(save_run("", NULL, &held) && held.ncheckpoints == 2 && held.checkpoints[0].iteration == 2 &&
		   held.checkpoints[1].iteration == 4 && held.nnotes == 0,
	   "a run sends its checkpoints");
	ok(gpu->held >= 2, "while one leaves the GPU further iterations are started: %ld", gpu->held);
	gpu->hold = 0;
	ok(save_run("", NULL, &whole) && same_model(&held, &whole) &&
		   same_saved(&held.checkpoints[0], &whole.checkpoints[0]) &&
		   same_saved(&held.checkpoints[1], &whole.checkpoints[1]),
	   "which change none of its bits");
	ok(save_run("", &held.checkpoints[0], &rest) && same_model(&rest, &whole),
	   "and a run that goes on from it comes to the same model");
	outcome_free(&rest);
	test_no_room(&whole);
	test_broken_copies(&whole);
	outcome_free(&held);
	outcome_free(&whole);
}

/* ---- The best weights ---------------------------------------------------- */

#define LEARNING "{" TINY ",\"precision\":\"fp32\",\"lr\":0.005"
#define BEST                                                                        \
	LEARNING ",\"iterations\":30,\"checkpoint_every\":1,\"validation\":\"SELECT\"," \
			 "\"validate_every\":2,\"keep\":\"best\",\"patience\":2}"

/* from: NULL, or what it goes on from; a finished one has no pairs. */
static void
run_best(Outcome *outcome, const char *options, const char *device, const Saved *from,
		 uint32_t flags)
{
	const char *settings[] = { device, "threads 1", NULL };
	Start start = { .options = options, .flags = flags };

	if (from != NULL)
	{
		start.iteration = from->iteration;
		start.stream = from->stream;
		start.length = from->length;
	}
	nvalidation = flags == 0 && strstr(options, "validation") != NULL ? OTHERS : 0;
	outcome_run(outcome, settings, &start, pairs, flags == 0 ? PAIRS : 0);
	nvalidation = 0;
}

/* Whether all checkpoints from the best iteration on have its weights. */
static bool
all_have_best(const Outcome *run)
{
	bool good = run->done;

	for (int i = 0; good && i < run->ncheckpoints; i++)
		good = run->checkpoints[i].iteration < run->iteration ||
			   is_in_saved(run, &run->checkpoints[i], "best.");
	return good;
}

/* The largest relative difference of what two runs were measured by. */
static double
validated_apart(const Outcome *x, const Outcome *y)
{
	double apart = x->nvalidated == y->nvalidated ? 0 : INFINITY;

	for (int i = 0; i < x->nvalidated && i < y->nvalidated; i++)
		apart = fmax(
			apart,
			fabs(x->validated[i].value[NN_MEASURE_L1] / y->validated[i].value[NN_MEASURE_L1] - 1));
	return apart;
}

/* From the first checkpoint and from the last but one; and when it is over. */
static void
test_going_on(const Outcome *whole)
{
	const Saved *last = &whole->checkpoints[whole->ncheckpoints - 1];
	Outcome on;

	for (int i = 0; i < 2; i++)
	{
		const Saved *from = i == 0 ? &whole->checkpoints[0] : last - 1;

		run_best(&on, BEST, "device cuda", from, 0);
		ok(same_model(&on, whole) && same_saved(&on.checkpoints[on.ncheckpoints - 1], last),
		   "gone on from iteration %lld it ends where it would have, with the same bits",
		   (long long) from->iteration);
		outcome_free(&on);
	}
	run_best(&on, BEST, "device cpu", last, BICYCLE_TRAIN_FINISHED);
	ok(same_model(&on, whole), "its last checkpoint gives the same model on the CPU");
	outcome_free(&on);
}

static void
test_best(void)
{
	Outcome whole, other;
	const Saved *last;
	char options[256];

	validation_pairs = pairs + PAIRS;
	run_best(&whole, BEST, "device cuda", NULL, 0);
	last = &whole.checkpoints[whole.ncheckpoints - 1];
	ok(whole.done && last->iteration < 30 && whole.iteration == last->iteration - 4 &&
		   last->flags == BICYCLE_CHECKPOINT_LAST && whole.nvalidated * 2 == last->iteration,
	   "a run on the GPU ends early, after iteration %lld of 30; the best was %lld",
	   (long long) last->iteration, (long long) whole.iteration);
	ok(whole.ncheckpoints > 1 && all_have_best(&whole),
	   "all checkpoints since the best have its weights, those that leave the GPU meanwhile too");
	/* without validation, and with a first checkpoint then */
	snprintf(options, sizeof(options), LEARNING ",\"iterations\":30,\"checkpoint_every\":%lld}",
			 (long long) whole.iteration);
	run_best(&other, options, "device cuda", NULL, 0);
	ok(is_in_saved(&whole, saved_at(&other, whole.iteration), ""),
	   "they are those that the run had then");
	outcome_free(&other);
	run_best(&other, BEST, "device cpu", NULL, 0);
	ok(other.iteration == whole.iteration && all_have_best(&other) &&
		   validated_apart(&other, &whole) < 0.05,
	   "on the CPU the same iteration is the best; measures differ by %g at most",
	   validated_apart(&other, &whole));
	outcome_free(&other);
	test_going_on(&whole);
	outcome_free(&whole);
}

/* ---- Validation ---------------------------------------------------------- */

/* Of weights that stay as they are: the rate is 0. */
static BicycleValidated
validated_on(const char *device)
{
	const char *settings[] = { device, "threads 1", NULL };
	const Start start = { .options = "{" TINY ",\"iterations\":1,\"lr\":0,\"init_gain\":1,"
									 "\"precision\":\"fp32\","
									 "\"validation\":\"SELECT\"}" };
	MetricWeights weights = metric_weights_make();
	BicycleValidated found;
	Outcome outcome;

	metric_weights_sent = &weights;
	validation_pairs = pairs;
	nvalidation = 1;
	outcome_run(&outcome, settings, &start, pairs, PAIRS);
	if (outcome.nvalidated != 1)
		bail_out("%d validations on %s", outcome.nvalidated, device);
	found = outcome.validated[0];
	metric_weights_sent = NULL;
	nvalidation = 0;
	metric_weights_free(&weights);
	outcome_free(&outcome);
	return found;
}

static void
test_validation(void)
{
	size_t memory = gpu->memory;
	BicycleValidated card, cpu;
	bool good;

	gpu->memory = 2 * memory; /* for LPIPS, with work space for each of its plans */
	card = validated_on("device cuda");
	cpu = validated_on("device cpu");
	gpu->memory = memory;
	good = card.present == cpu.present && card.present == (1u << BICYCLE_NMEASURES) - 1;
	for (int i = 0; i < BICYCLE_NMEASURES; i++)
	{
		good = good && cpu.value[i] > 0 &&
			   fabs(card.value[i] - cpu.value[i]) <= 2e-3 * fabs(cpu.value[i]);
		diag("%s: %.6g, %.6g on the CPU", bicycle_measure_names[i], card.value[i], cpu.value[i]);
	}
	ok(good, "validation measures what it does on the CPU, LPIPS too");
}

int
main(void)
{
	gpu_fixture_begin();
	pairs = pairs_make(PAIRS + OTHERS);
	test_choice();
	test_memory();
	test_metric_memory();
	test_to_and_fro();
	test_saving();
	test_best();
	test_validation();
	gpu_fixture_end();
	pairs_free(pairs, PAIRS + OTHERS);
	return done_testing();
}
