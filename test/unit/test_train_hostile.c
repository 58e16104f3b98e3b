/*
 * Whatever a training engine is sent, and whenever its job worker goes, it
 * answers with an ordinary error or ends. Rules are those of run_protocol.h.
 */
#include "train_client.h"

#include "engine/run.h"

#define PAIRS 6
#ifdef __SANITIZE_ADDRESS__
#define SLOW 1      /* and an allocation is more than its bytes */
#define MUTANTS 250 /* forks of a sanitized process take their time */
#else
#define SLOW 0
#define MUTANTS 1000
#endif
#define CUTS 60
#define TINY "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4"

static const char *const settings[] = { "device ref", "threads 1", NULL };
static Pair *pairs;
static const Start start = { .options = "{" TINY ",\"iterations\":2}" };

/*
 * Sends a run up to PAIRS_END and wants it refused; the engine must then end in
 * order.
 */
static void
refused(const Start *begin, const Pair *some, int n, const char *sqlstate, const char *what)
{
	Training training;
	BicycleTrainReady ready;
	bool answered;
	char message[256] = "no such error";

	training_start(&training, settings, NULL);
	answered = !training_ready(&training, begin, some, n, &ready) &&
			   client_is_error(&training.client, sqlstate);
	if (answered)
		snprintf(message, sizeof(message), "%s",
				 (char *) training.client.body + sizeof(BicycleError));
	ok(training_end(&training) && answered, "%s: %s", what, message);
}

static void
test_options(void)
{
	static const struct
	{
		const char *options, *what;
	} cases[] = { { "{\"size\":65}", "a size that is none" },
				  { "{\"sise\":64}", "an unknown option" },
				  { "{", "options that are no JSON" },
				  { "[]", "options that are no object" },
				  { "", "no options at all" },
				  { "{" TINY ",\"batch_size\":3}", "a batch that cannot be halved" },
				  { "{" TINY ",\"batch_size\":8}", "more in a batch than rows" } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Start other = { .options = cases[i].options };

		refused(&other, pairs, PAIRS, "22023", cases[i].what);
	}
	refused(&start, pairs, 0, "22023", "no rows");
	refused(&start, pairs, 1, "22023", "too few rows");
}

/* ---- Memory -------------------------------------------------------------- */

/* The most that an engine has taken, kB; -1: it cannot be told. */
static long
peak_of(const Training *training)
{
	long peak = -1;
	char name[64], line[256];
	FILE *status;

	snprintf(name, sizeof(name), "/proc/%d/status", (int) training->engine.pid);
	status = fopen(name, "r");
	while (status != NULL && fgets(line, sizeof(line), status) != NULL)
		sscanf(line, "VmHWM: %ld", &peak);
	if (status != NULL)
		fclose(status);
	return peak;
}

/*
 * Has a run refused for want of memory; how much it wants then, bytes, or 0.
 * *peak: what the engine has taken, kB.
 */
static size_t
wanted_by(const Start *begin, const char *memory, long *peak)
{
	const char *const little[] = { "device cpu", "threads 1", memory, NULL };
	Training training;
	BicycleTrainReady ready;
	EngineError error = { 0 };
	size_t wanted = 0;

	training_start(&training, little, NULL);
	if (!training_ready(&training, begin, pairs, PAIRS, &ready) &&
		client_is_error(&training.client, "53200") &&
		error_unpack(&error, training.client.body, training.client.frame.length))
		sscanf(error.detail, "Training this model takes %zu bytes", &wanted);
	*peak = peak_of(&training);
	ok(training_end(&training), "an engine that has refused a run ends in order");
	return wanted;
}

/* Networks beyond engine_memory are refused before they are made. */
static void
test_size(void)
{
	const Start large = { .options = "{\"size\":64,\"ngf\":160,\"nef\":4,\"ndf\":4,\"nz\":4}" };
	long peak;

	ok(wanted_by(&large, "engine_memory 400000000", &peak) > 300000000,
	   "networks beyond engine_memory are refused");
	ok(peak > 0 && peak < 400000, "before they are made: the engine has taken %ld kB", peak);
}

/* A run that may take what it wants and no more, to its end; its peak, kB. */
static long
peak_of_run(const Start *begin, size_t wanted, Outcome *outcome)
{
	char memory[64];
	const char *const enough[] = { "device cpu", "threads 1", memory, NULL };
	Training training;
	BicycleTrainReady ready;
	long peak;

	memset(outcome, 0, sizeof(*outcome));
	snprintf(memory, sizeof(memory), "engine_memory %zu", wanted / 3 * 4 + 8);
	training_start(&training, enough, NULL);
	if (training_ready(&training, begin, pairs, PAIRS, &ready))
		client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, outcome))
		;
	peak = peak_of(&training);
	ok(training_end(&training) && outcome->done, "a run that is admitted goes to its end");
	return peak;
}

/*
 * What a run takes that was admitted is what it was admitted for: with
 * checkpoints, previews, validation and the best weights; and from a
 * checkpoint. Parameters are most of what these networks take.
 */
static void
test_admitted(void)
{
	static const char options[] =
		"{\"size\":64,\"ngf\":32,\"nef\":4,\"ndf\":4,\"nz\":4,\"iterations\":%d,"
		"\"checkpoint_every\":1,\"preview_every\":1,\"ema\":0.5,\"validation\":\"SELECT\","
		"\"validate_every\":1,\"keep\":\"best\"}";
	char text[512], memory[64] = "engine_memory 20000000";
	Start begin = { .options = text };
	Outcome outcomes[2];
	long base = 0, peak, ignored;

	validation_pairs = pairs;
	nvalidation = 1;
	for (int resumed = 0; resumed < 2; resumed++)
	{
		const Saved *saved = &outcomes[0].checkpoints[0];
		size_t wanted;

		if (resumed && outcomes[0].ncheckpoints == 0)
			bail_out("a run had no checkpoint");
		if (resumed)
		{
			begin.stream = saved->stream;
			begin.length = saved->length;
			begin.iteration = saved->iteration;
			snprintf(memory, sizeof(memory), "engine_memory %zu", begin.length / 3 * 4 + 8);
		}
		snprintf(text, sizeof(text), options, 1 + resumed);
		wanted = wanted_by(&begin, memory, resumed ? &ignored : &base);
		peak = peak_of_run(&begin, wanted, &outcomes[resumed]);
		ok(wanted > 0 && (SLOW || (peak - base) * 1024 < (long) wanted),
		   "%s it takes %ld kB of %zu", resumed ? "from a checkpoint" : "from its beginning",
		   peak - base, wanted / 1024);
	}
	outcome_free(&outcomes[0]);
	outcome_free(&outcomes[1]);
	validation_pairs = NULL;
	nvalidation = 0;
}

/*
 * Two pairs that cannot be used are left out, and with what was said of that,
 * they are again, without a second look.
 */
static void
test_skipped(const Pair *bad)
{
	Start skip = { .options = "{" TINY ",\"iterations\":2,\"bad_pairs\":\"skip\"}" };
	Start few = { .options = "{" TINY ",\"batch_size\":6,\"bad_pairs\":\"skip\"}" };
	const size_t data = offsetof(BicycleTrainReady, data_digest);
	const size_t length = (1 + 2) * BICYCLE_HASH_BYTES;
	Training training;
	BicycleTrainReady ready;
	uint8_t known[(1 + 2) * BICYCLE_HASH_BYTES];

	refused(&few, bad, PAIRS, "22023", "fewer pairs than a batch that are not skipped");
	for (int time = 0; time < 2; time++)
	{
		bool noted, good;

		training_start(&training, settings, NULL);
		training_begin(&training, &skip);
		training_pairs(&training, bad, PAIRS);
		good = client_receive(&training.client);
		noted = good && training.client.frame.type == BICYCLE_NOTE;
		if (noted)
			good = client_receive(&training.client);
		good = good && training.client.frame.type == BICYCLE_TRAIN_READY &&
			   training.client.frame.length == data + length;
		if (good)
			memcpy(&ready, training.client.body, sizeof(ready));
		ok(good && ready.rows == PAIRS - 2 && noted == (time == 0),
		   time == 0 ? "pairs are skipped, with a note" : "and again, without one");
		if (time == 0 && good)
			memcpy(known, training.client.body + data, length);
		else
			ok(good && memcmp(known, training.client.body + data, length) == 0, "the same ones");
		ok(training_end(&training), "and it ends in order");
		known_data = known;
		known_length = length;
	}
	known_data = NULL;
	known_length = 0;
}

/* Images that cannot be used, and more than there is room for (R4). */
static void
test_pairs(void)
{
	Pair bad[PAIRS];
	Start small = { .options = start.options, .max_pixels = 1000 };
	Start narrow = { .options = start.options, .memory = 3 * sizeof(RunPair), .disk = 4000 };
	Training training;
	BicycleTrainReady ready;
	uint8_t *damaged;
	char row[64] = "row 3 of the query";

	memcpy(bad, pairs, sizeof(bad));
	bad[2].bytes[1] = (uint8_t *) "no image";
	bad[2].length[1] = 8;
	refused(&start, bad, PAIRS, "22P03", "a B that is no image");
	bad[2].length[1] = 0;
	refused(&start, bad, PAIRS, "22P03", "an empty image");
	refused(&small, pairs, PAIRS, "54000", "images beyond max_pixels");
	refused(&narrow, pairs, PAIRS, "54000", "more than memory and disk may hold");

	/* Damage that the header does not show. */
	bad[2] = pairs[2];
	damaged = malloc(bad[2].length[0]);
	memcpy(damaged, pairs[2].bytes[0], bad[2].length[0]);
	damaged[bad[2].length[0] / 2] ^= 0x10;
	bad[2].bytes[0] = damaged;
	training_start(&training, settings, NULL);
	ok(!training_ready(&training, &start, bad, PAIRS, &ready) &&
		   client_is_error(&training.client, "22P03") &&
		   memmem(training.client.body, training.client.frame.length, row, strlen(row)) != NULL,
	   "a pair whose damage is further in is found before anything is trained, and named");
	ok(training_end(&training), "and it ends in order");
	bad[4].length[0] = 5;
	refused(&start, bad, PAIRS, "22P03", "two pairs");
	test_skipped(bad);
	free(damaged);
}

/* Checkpoints that are cut, changed, or of another model. */
static void
test_streams(void)
{
	static const char other[] =
		"{\"size\":64,\"ngf\":8,\"nef\":4,\"ndf\":4,\"nz\":4,\"iterations\":2}";
	Start from = start;
	Outcome outcome;
	uint8_t *stream;
	Training training;

	from.options = "{" TINY ",\"iterations\":2,\"checkpoint_every\":1}";
	outcome_run(&outcome, settings, &from, pairs, PAIRS);
	if (outcome.ncheckpoints < 1)
		bail_out("a run had no checkpoint");
	from.stream = stream = outcome.checkpoints[0].stream;
	from.length = outcome.checkpoints[0].length;
	from.iteration = outcome.checkpoints[0].iteration;
	from.options = other;
	refused(&from, pairs, PAIRS, "22023", "a checkpoint of another model");
	from.options = start.options;
	from.length -= 5;
	refused(&from, pairs, PAIRS, "XX001", "a checkpoint that is cut off");
	from.length = 2 * sizeof(BicycleTensor) + (size_t) ((BicycleTensor *) stream)->nbytes;
	refused(&from, pairs, PAIRS, "XX001", "a checkpoint that ends within a tensor");
	from.length = sizeof(BicycleTensor) + (size_t) ((BicycleTensor *) stream)->nbytes;
	refused(&from, pairs, PAIRS, "22023", "a checkpoint of one tensor");
	from.length = outcome.checkpoints[0].length;
	stream[0] = 'x';
	refused(&from, pairs, PAIRS, "22023", "a checkpoint with an unknown tensor");
	stream[0] = '\0';
	refused(&from, pairs, PAIRS, "XX001", "a checkpoint with a nameless tensor");

	/* One that is longer than announced. */
	training_start(&training, settings, NULL);
	from.length = 100;
	training_begin(&training, &from);
	client_send(&training.client, BICYCLE_DATA, 0, stream, 50);
	ok(client_receive(&training.client) && client_is_error(&training.client, "08P01"),
	   "more than was announced is an error");
	ok(training_end(&training), "after which the engine ends in order");
	outcome_free(&outcome);
}

static void
test_diverged(void)
{
	Start hot = { .options = "{" TINY ",\"iterations\":200,\"lr\":1,\"lambda_kl\":100}" };
	Training training;
	BicycleTrainReady ready;
	Outcome outcome = { 0 };

	training_start(&training, settings, NULL);
	if (!training_ready(&training, &hot, pairs, PAIRS, &ready))
		bail_out("a hot run did not get ready: %s",
				 (char *) training.client.body + sizeof(BicycleError));
	client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
	while (outcome_read(&training, &outcome))
		;
	ok(client_is_error(&training.client, "22023"), "a run that diverges ends with an error: %s",
	   training.client.frame.type == BICYCLE_ERROR
		   ? (char *) training.client.body + sizeof(BicycleError)
		   : "none");
	training_end(&training);
	outcome_free(&outcome);
}

/* ---- Any bytes ----------------------------------------------------------- */

/*
 * The engine as a forked child instead of a program: a thousand of them are
 * cheap.
 */
static int
engine_run(void)
{
	static Engine engine;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	return engine_init(&engine) ? run_main(&engine) : 1;
}

static void
put_frame(Bytes *to, uint32_t type, const void *body, size_t length)
{
	BicycleFrame frame = { .length = (uint32_t) length, .type = type };

	put(to, &frame, sizeof(frame));
	put(to, body, length);
}

/* All that a job worker sends for a run. */
static Bytes
session(void)
{
	Bytes bytes = { 0 };
	Bytes begin = begin_body(&start);

	put_frame(&bytes, BICYCLE_TRAIN_BEGIN, begin.at, begin.n);
	put_frame(&bytes, BICYCLE_END, NULL, 0);
	for (int i = 0; i < 2; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i], &length);

		put_frame(&bytes, BICYCLE_PAIR, body, length);
		free(body);
	}
	put_frame(&bytes, BICYCLE_PAIRS_END, NULL, 0);
	free(begin.at);
	return bytes;
}

/*
 * Reads what there is to read, without waiting for more than a moment; returns
 * whether all of it were frames of the protocol.
 */
static bool
drain(Client *client, int ms, bool *failed)
{
	*failed = false;
	while (client_receive_within(client, ms))
	{
		*failed = client->frame.type == BICYCLE_ERROR;
		if (client->frame.type == BICYCLE_ERROR || client->frame.type == BICYCLE_TRAIN_READY)
			return true;
		if (client->frame.type < BICYCLE_TRAIN_READY && client->frame.type != BICYCLE_DATA &&
			client->frame.type != BICYCLE_END)
			return false;
	}
	return true;
}

static void
test_mutants(void)
{
	Bytes whole = session();
	uint64_t state = 11;
	int clean = 0, errors = 0, sane = 0;

	for (int i = 0; i < MUTANTS; i++)
	{
		Training training;
		size_t length;
		/* Small changes near the beginning hit headers, others images. */
		size_t changed =
			i % 2 == 0 ? sizeof(BicycleFrame) * 2 + sizeof(BicycleTrainBegin) + 300 : whole.n;
		uint8_t *damaged = testdata_damage(whole.at, changed, &state, &length);
		bool failed;

		training_start(&training, settings, engine_run);
		if (client_write(&training.client, damaged, length) && length == changed)
			client_write(&training.client, whole.at + changed, whole.n - changed);
		/* It may have taken its time to begin. */
		engine_tell(&training.engine, "ping mutant");
		engine_says(&training.engine, "pong mutant", PATIENCE_MS);
		/* A frame that is cut off is no error: the rest may be on its way. */
		sane += drain(&training.client, 20, &failed);
		errors += failed;
		clean += training_end(&training);
		free(damaged);
	}
	ok(clean == MUTANTS, "of %d damaged sessions %d ended in order", MUTANTS, clean);
	ok(sane == MUTANTS && errors > MUTANTS / 8, "%d of them with an error", errors);
	free(whole.at);
}

/* The job worker goes: between any two bytes, and by either descriptor (R2). */
static void
test_eof(void)
{
	Bytes whole = session();
	int ended = 0;

	for (int i = 0; i < CUTS; i++)
	{
		Training training;
		int status;

		training_start(&training, settings, engine_run);
		client_write(&training.client, whole.at, whole.n * (size_t) i / (CUTS - 1));
		if (i == CUTS - 1)
		{
			client_receive(&training.client);
			client_send(&training.client, BICYCLE_RUN, 0, NULL, 0);
		}
		if (i % 2 == 0)
			shutdown(training.client.fd, SHUT_RDWR);
		else
			shutdown(training.engine.control, SHUT_RDWR);
		status = engine_wait(&training.engine);
		ended += WIFEXITED(status);
		training_forget(&training);
	}
	ok(ended == CUTS, "an engine whose job worker goes ends by itself: %d of %d", ended, CUTS);
	free(whole.at);
}

/* Frames that are well formed, but not now (R3). */
static void
test_turns(void)
{
	static const uint32_t types[] = {
		BICYCLE_RUN, BICYCLE_PAUSE,       BICYCLE_CHECKPOINT_NOW, BICYCLE_PAIRS_END,
		BICYCLE_END, BICYCLE_TRAIN_READY, BICYCLE_HELLO,          0,
		UINT32_MAX
	};
	int refused_all = 0;
	const int n = (int) (sizeof(types) / sizeof(types[0]));

	for (int i = 0; i < n; i++)
	{
		Training training;

		training_start(&training, settings, engine_run);
		client_send(&training.client, types[i], 0, NULL, 0);
		refused_all +=
			client_receive(&training.client) && client_is_error(&training.client, "08P01");
		training_end(&training);
	}
	ok(refused_all == n, "frames out of turn are refused");
}

int
main(void)
{
	pairs = pairs_make(PAIRS);
	test_turns();
	test_mutants();
	test_eof();
	test_options();
	test_size();
	test_admitted();
	test_pairs();
	test_streams();
	test_diverged();
	pairs_free(pairs, PAIRS);
	return done_testing();
}
