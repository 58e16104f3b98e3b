/*
 * When memory runs out at any point of a run, the training engine says so or
 * ends; it never crashes or hangs.
 */
#include "failing_malloc.h"

#include <sys/prctl.h>

#include "engine/run.h"
#include "train_client.h"

#if FAILING_MALLOC

#define PAIRS 3
#define RUNS 150 /* spread over all allocations of a run */
#define OPTIONS                                                                                 \
	"{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"iterations\":2,\"preview_every\":1," \
	"\"checkpoint_every\":1,\"validation\":\"SELECT\",\"keep\":\"best\"}"

static const char *const settings[] = { "device ref", "threads 1", NULL };
static const Start start = { .options = OPTIONS };
static Pair *pairs;
static long failure; /* allocations of the child before the first that fails; -1: none does */

/*
 * The engine as a forked child, whose allocations fail and the test's own do
 * not.
 */
static int
engine_run(void)
{
	static Engine engine;
	sigset_t all;
	uint8_t hash[BICYCLE_HASH_BYTES];
	EngineError error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (freopen("/dev/null", "w", stderr) == NULL)
		return 127;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	/* OpenSSL does not survive being initialised without memory. */
	if (!engine_init(&engine) || !pair_hash(NULL, 0, NULL, 0, hash, &error))
		return 127;
	allocations_until_failure = failure;
	return run_main(&engine);
}

typedef enum Ending
{
	COMPLETE,
	WITH_ERROR,
	GONE,
	CRASHED
} Ending;

/* A whole run of which no allocation succeeds from `failure` on. */
static Ending
run(void)
{
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };
	Ending ending = GONE;
	int status;

	training_start(&training, settings, engine_run);
	if (training_ready(&training, &start, pairs, PAIRS, &ready))
	{
		client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
		while (outcome_read(&training, &outcome))
			;
	}
	if (outcome.done)
		ending = COMPLETE;
	else if (!training.client.closed && training.client.frame.type == BICYCLE_ERROR)
	{
		/*
		 * jansson takes some of its failed allocations for mistakes of the
		 * text.
		 */
		bool json =
			strstr((char *) training.client.body + sizeof(BicycleError), "not valid JSON") != NULL;

		ending = client_is_error(&training.client, json ? "22023" : "53200") ? WITH_ERROR : CRASHED;
		if (ending == CRASHED)
			diag("failure at %ld", failure);
	}
	if (!training.client.closed)
		engine_tell(&training.engine, "stop");
	status = engine_wait(&training.engine);
	training_forget(&training);
	outcome_free(&outcome);
	if (!WIFEXITED(status))
		diag("failure at %ld: status 0x%x", failure, (unsigned) status);
	return WIFEXITED(status) ? ending : CRASHED;
}

int
main(void)
{
	long enough = 1000;
	int endings[CRASHED + 1] = { 0 };

	pairs = pairs_make(PAIRS);
	validation_pairs = pairs;
	nvalidation = 1;
	failure = -1;
	ok(run() == COMPLETE, "a run with memory is complete");
	for (failure = enough; run() != COMPLETE && enough < 1000000; failure = enough)
		enough *= 2;
	for (int i = 0; i < RUNS; i++)
	{
		/*
		 * Every one at first, where the state is made; then in growing steps.
		 */
		failure = i < RUNS / 2 ? i : i + (enough - RUNS) * (i - RUNS / 2) / (RUNS / 2);
		endings[run()]++;
	}
	ok(endings[CRASHED] == 0, "no run of %d without memory crashes or lies", RUNS);
	ok(endings[WITH_ERROR] > RUNS / 4,
	   "%d say that memory is out, %d are complete, %d end without a word", endings[WITH_ERROR],
	   endings[COMPLETE], endings[GONE]);
	pairs_free(pairs, PAIRS);
	return done_testing();
}

#else

int
main(void)
{
	ok(true, "a sanitizer has its own allocator # SKIP");
	return done_testing();
}

#endif
