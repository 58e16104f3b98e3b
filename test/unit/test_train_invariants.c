/*
 * The recount of a run notices a fault in each of its parts, and no state
 * follows another that is not allowed to.
 */
#include "train_client.h"

#include "engine/run.h"

#include <sys/wait.h>

#define PAIRS 3
#define SIDE 64

static Engine engine;
static Run run;

/* ---- A run as the job worker leaves it after its pairs ------------------- */

static bool
begins(RunLink *link, const BicycleFrame *frame, uint8_t **body, EngineError *error)
{
	return false;
}

static const RunLinkOwner owner = { .begins = begins };

static void
fill(uint64_t memory)
{
	BicycleTrainBegin begin = {
		.max_pixels = 1 << 20, .train_memory = memory, .train_disk = 1 << 20, .spill = "/tmp"
	};
	Pair *pairs = pairs_make(PAIRS);
	EngineError error;

	run_data_begin(&run.data, &begin, false);
	for (int i = 0; i < PAIRS; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i], &length);

		if (!run_data_add(&run.data, body, length, &error))
			bail_out("a pair was refused: %s", error.message);
		free(body);
	}
	if (!run_data_complete(&run.data, &error))
		bail_out("%s", error.message);
	pairs_free(pairs, PAIRS);
}

/* A ring of two batches of one pair, as if the loop had taken four. */
static void
make_feed(void)
{
	RunFeed *feed = &run.feed;

	feed->data = &run.data;
	feed->size = feed->load_size = SIDE;
	feed->channels[0] = feed->channels[1] = 3;
	feed->batch_size = 1;
	feed->nbatches = 2;
	feed->batches = calloc(2, sizeof(RunBatch));
	feed->order = calloc(PAIRS, sizeof(uint32_t));
	for (uint32_t i = 0; i < PAIRS; i++)
		feed->order[i] = PAIRS - 1 - i;
	for (int i = 0; i < 2; i++)
		feed->batches[i].failed = 1;
	feed->epoch = 2;
	feed->end = 100;
	feed->taken = 4;
	feed->next = 5;
	feed->cache_limit = 3 * 2 * SIDE * SIDE * 3;
	feed->batches[0].done = 1;
}

static void
make_run(void)
{
	run.engine = &engine;
	pthread_mutex_init(&run.lock, NULL);
	run_link_init(&run.link, &engine, &owner);
	run_data_init(&run.data);
	run_feed_init(&run.feed);
	fill(3 * sizeof(RunPair)); /* pairs go to the spill file */
	make_feed();
	run_link_send(&run.link, BICYCLE_PAUSED, NULL, 0, NULL, 0);
	run.state = RUN_READY;
}

/* ---- Faults -------------------------------------------------------------- */

/* Whether a child with that fault ends by an invariant. */
static bool
is_noticed(void (*fault)(void))
{
	int status;
	pid_t child = fork();

	if (child == 0)
	{
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(1);
		fault();
		run_check(&run);
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
		   WTERMSIG(status) == SIGABRT;
}

static void
no_fault(void)
{
}

static void
plant_memory(void)
{
	run.data.memory++;
}

static void
plant_spilled(void)
{
	run.data.pairs[1].offset += 7;
}

static void
plant_record(void)
{
	run.data.npairs--;
}

static void
plant_ring(void)
{
	run.feed.batches[1].done = 1; /* of a pair that nobody was given */
}

static void
plant_next(void)
{
	run.feed.next = 7; /* beyond the ring */
}

static void
plant_order(void)
{
	run.feed.order[0] = run.feed.order[1];
}

static void
plant_cache(void)
{
	run.data.pairs[0].pixels = calloc(1, 1);
}

static void
plant_batch_error(void)
{
	run.feed.batches[0].failed = 0;
}

static void
plant_checkpoint(void)
{
	list_member(RunFrame, link, run.link.out.next)->checkpoint = true;
}

static void
plant_checkpoint_unknown(void)
{
	plant_checkpoint();
	run.link.checkpoints = 1;
}

static void
plant_sent(void)
{
	list_member(RunFrame, link, run.link.out.next)->sent = 1000;
}

static void
plant_state(void)
{
	run.state = RUN_RUNNING; /* and no task */
}

static void
plant_ended(void)
{
	run_link_end(&run.link);
}

static void
plant_stream(void)
{
	run.stream_have = 1;
}

static void
plant_transition(void)
{
	run_to(&run, RUN_PAIRS);
}

static void
plant_twice(void)
{
	run_to(&run, RUN_ENDED);
	run_to(&run, RUN_ENDED);
}

static void
plant_second_error(void)
{
	EngineError error;

	error_set(&error, "58000", "an error");
	run_link_send_error(&run.link, &error); /* its reserve was never made */
}

#define FAULT(name)         \
	{                       \
#name, plant_##name \
	}

int
main(void)
{
	static const struct
	{
		const char *name;
		void (*plant)(void);
	} faults[] = { FAULT(memory),      FAULT(spilled),
				   FAULT(record),      FAULT(ring),
				   FAULT(next),        FAULT(order),
				   FAULT(cache),       FAULT(batch_error),
				   FAULT(checkpoint),  FAULT(checkpoint_unknown),
				   FAULT(sent),        FAULT(state),
				   FAULT(ended),       FAULT(stream),
				   FAULT(transition),  FAULT(twice),
				   FAULT(second_error) };

	if (!engine_init(&engine))
		bail_out("cannot make descriptors");
	make_run();
	ok(!is_noticed(no_fault), "a run without a fault passes");
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		ok(is_noticed(faults[i].plant), "a fault is noticed: %s", faults[i].name);
	run_feed_free(&run.feed);
	run_data_free(&run.data);
	run_link_free(&run.link);
	engine_free(&engine);
	return done_testing();
}
