/*
 * Proves what a run takes of a card beside requests of sessions: its share of
 * iterations and no more, none at 0, all when nobody waits; and that a training
 * engine that waits answers pings and orders, tells of its wait, and computes
 * what it would have. By counts and a clock of the test's own.
 */
#include "train_client.h"

#include "engine/run_share.h"

#define PAIRS 5
#define OPTIONS \
	"{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"load_size\":64,\"iterations\":6}"

static const char *const settings[] = { "device cpu", "threads 1", "training_wait 10", NULL };
static const Start start = { .options = OPTIONS };
static Pair *pairs;

/* ---- Arithmetic ---------------------------------------------------------- */

/* A run whose iterations take `cost`, by a clock that it moves on. */
typedef struct Simulation
{
	RunShare share;
	int64_t now;
	int64_t cost;
	int iterations;
} Simulation;

static void
begin(Simulation *s, int64_t cost)
{
	*s = (Simulation){ .now = 1000, .cost = cost };
	run_share_init(&s->share, s->now);
}

/* Until then, as the loop does it: waits a second at most, then asks again. */
static void
run_until(Simulation *s, int64_t end)
{
	while (s->now < end)
	{
		int64_t wait = run_share_wait(&s->share, s->now);

		if (wait == 0)
		{
			run_share_begin(&s->share, s->now);
			s->now += s->cost;
			run_share_end(&s->share, s->now);
			s->iterations++;
			continue;
		}
		if (wait == RUN_SHARE_NEVER || wait > 1000000)
			wait = 1000000;
		s->now += wait < end - s->now ? wait : end - s->now;
	}
}

static void
test_percent(int percent, int expected)
{
	Simulation s;

	begin(&s, 3000);
	run_until(&s, 100000);
	s.iterations = 0;
	run_share_set(&s.share, percent, s.now);
	run_until(&s, s.now + 10 * 1000000);
	ok(abs(s.iterations - expected) <= 1,
	   "at %d %% a run makes %d of 3333 iterations in ten seconds of others' requests", percent,
	   s.iterations);
}

static void
test_arithmetic(void)
{
	Simulation s;
	int before;

	test_percent(0, 0);
	test_percent(1, 33);
	test_percent(20, 667);
	test_percent(50, 1667);
	test_percent(99, 3300);
	test_percent(100, 3334);

	/* what takes longer than a second has its share, too */
	begin(&s, 7000000);
	run_share_set(&s.share, 20, s.now);
	run_until(&s, 350 * INT64_C(1000000));
	ok(abs(s.iterations - 10) <= 1, "iterations of seven seconds have theirs: %d", s.iterations);

	/*
	 * bursts of 8 ms with 12 ms between: nothing is earned in so short a time
	 */
	begin(&s, 3000);
	run_until(&s, 100000);
	s.iterations = before = 0;
	for (int i = 0; i < 100; i++)
	{
		int first = s.iterations;

		run_share_set(&s.share, 20, s.now);
		run_until(&s, s.now + 8000);
		before += s.iterations - first;
		run_share_set(&s.share, 100, s.now);
		run_until(&s, s.now + 12000);
	}
	ok(before == 0 && s.iterations >= 300, "in short bursts it waits, and runs between: %d and %d",
	   before, s.iterations);

	run_share_set(&s.share, 0, s.now);
	run_until(&s, s.now + 5 * 1000000);
	before = s.iterations;
	run_share_set(&s.share, 100, s.now);
	run_until(&s, s.now + 3000);
	ok(s.iterations == before + 1, "after a wait without an end it runs at once");
}

/* ---- A training engine --------------------------------------------------- */

static void
begin_run(Training *training)
{
	BicycleTrainReady ready;

	training_start(training, settings, NULL);
	if (!training_ready(training, &start, pairs, PAIRS, &ready))
		bail_out("a run did not get ready");
}

/* Answered pings, so many in a row, mean that the I/O thread has gone on. */
static bool
answers(Training *training, int pings)
{
	int answered = 0;

	for (int i = 0; i < pings; i++)
	{
		engine_tell(&training->engine, "ping 7");
		answered += engine_says(&training->engine, "pong 7", PATIENCE_MS);
	}
	return answered == pings;
}

/* Frames until one of that type; END is that of a checkpoint. */
static bool
comes(Training *training, Outcome *outcome, uint32_t type)
{
	while (outcome_read(training, outcome))
		if (training->client.frame.type == type)
			return true;
	return false;
}

static void
test_waits(const Outcome *whole)
{
	Training training;
	Outcome outcome = { 0 };

	begin_run(&training);
	engine_tell(&training.engine, "yield 0");
	ok(answers(&training, 1), "a run that is to wait answers");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	ok(comes(&training, &outcome, BICYCLE_NOTE) && strstr(outcome.note, "has waited") &&
		   strstr(outcome.note, "bicycle.training_share"),
	   "it tells that it waits: %s", outcome.note);
	ok(answers(&training, 50) && outcome.nlosses == 0, "answers on, and has computed nothing");
	client_send(&training.client, BICYCLE_CHECKPOINT_NOW, 0, NULL, 0);
	ok(comes(&training, &outcome, BICYCLE_END) && outcome.ncheckpoints == 1 &&
		   outcome.checkpoints[0].iteration == 0,
	   "a checkpoint can be had");
	engine_tell(&training.engine, "yield 100");
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.done && outcome.model.length == whole->model.length &&
		   memcmp(outcome.model.stream, whole->model.stream, whole->model.length) == 0,
	   "when nobody waits any more it runs, to the same bits");
	ok(outcome.nnotes == 1, "and has told it once");
	outcome_free(&outcome);
	ok(training_end(&training), "the engine ends in order");
}

static void
test_stopped_while_waiting(void)
{
	Training training;
	Outcome outcome = { 0 };

	begin_run(&training);
	engine_tell(&training.engine, "yield 0");
	ok(answers(&training, 1), "another is to wait");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	ok(comes(&training, &outcome, BICYCLE_NOTE), "and waits");
	client_send(&training.client, BICYCLE_PAUSE, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.paused && outcome.ncheckpoints == 1 && outcome.checkpoints[0].iteration == 0,
	   "it can be paused meanwhile");
	outcome_free(&outcome);
	ok(training_end(&training), "and ended");

	begin_run(&training);
	engine_tell(&training.engine, "yield 0");
	ok(answers(&training, 1), "a third");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	ok(comes(&training, &outcome, BICYCLE_NOTE), "waits, too");
	outcome_free(&outcome);
	ok(training_end(&training), "and can be stopped");
}

/* A share is enough to come to the end, and odd ones are refused. */
static void
test_share(const Outcome *whole)
{
	Training training;
	Outcome outcome = { 0 };

	begin_run(&training);
	engine_tell(&training.engine, "yield 0");
	engine_tell(&training.engine, "yield 101");
	engine_tell(&training.engine, "yield x");
	engine_tell(&training.engine, "yield 60");
	ok(engine_says(&training.engine, "log warning \"101\"", PATIENCE_MS) &&
		   engine_says(&training.engine, "log warning \"x\"", PATIENCE_MS),
	   "what is no share is refused");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(outcome.done && memcmp(outcome.model.stream, whole->model.stream, whole->model.length) == 0,
	   "with a share of 60 it comes to its end, and to the same bits");
	outcome_free(&outcome);
	training_end(&training);
}

/* The rate falls while it waits, and says less and less. */
static void
test_rate(void)
{
	Start endless = { .options = "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,"
								 "\"load_size\":64,\"iterations\":1000000}" };
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };
	BicycleRate first, second;

	training_start(&training, settings, NULL);
	if (!training_ready(&training, &endless, pairs, PAIRS, &ready))
		bail_out("a run did not get ready");
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	ok(comes(&training, &outcome, BICYCLE_LOSSES), "a run computes");
	engine_tell(&training.engine, "yield 0");
	ok(comes(&training, &outcome, BICYCLE_RATE), "and waits: its rate falls");
	memcpy(&first, training.client.body, sizeof(first));
	ok(comes(&training, &outcome, BICYCLE_RATE), "and falls");
	memcpy(&second, training.client.body, sizeof(second));
	ok(first.images_per_second < outcome.losses.images_per_second &&
		   second.images_per_second <= first.images_per_second / 2 && second.images_per_second > 0,
	   "from %.3g images a second to %.3g and %.3g", outcome.losses.images_per_second,
	   first.images_per_second, second.images_per_second);
	outcome_free(&outcome);
	training_kill(&training);
}

int
main(void)
{
	Outcome whole;

	test_arithmetic();
	pairs = pairs_make(PAIRS);
	outcome_run(&whole, settings, &start, pairs, PAIRS);
	ok(whole.done && whole.nnotes == 0, "a run that nobody disturbs tells nothing of waits");
	test_waits(&whole);
	test_stopped_while_waiting();
	test_share(&whole);
	test_rate();
	outcome_free(&whole);
	pairs_free(pairs, PAIRS);
	return done_testing();
}
