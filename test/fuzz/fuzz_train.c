/*
 * fuzz_train.c
 *	  A job worker's frames, against a training engine in this process, up to
 *	  the opening of its networks: what comes after that is nobody's input.
 *
 * An input is a script as in fuzz_protocol.c. Each is a run of its own, which
 * must leave nothing; what it would open is kept small.
 */
#include "fuzz_engine.h"

#undef EVENTS
#undef STOP_MS
#undef TICK_MS
#include "../../src/engine/run_main.c"

static Run run;
static int peer;

static void
start(void)
{
	char why[256];
	static const char *const settings[][2] = { { "device", "ref" },
											   { "threads", "1" },
											   { "engine_memory", "64000000" } };

	DEMAND(engine_init(&engine) && control_open(&engine, -1, orders_line));
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		DEMAND(settings_set(&engine.settings, settings[i][0], settings[i][1], why, sizeof(why)));
	budget_limits(&engine);
	DEMAND(executor_start(&engine.pool, &engine.completions, "feed", 1) &&
		   executor_start(&engine.device_thread, &engine.completions, "device", 1));
}

static void
run_turn(void)
{
	char bytes[65536];

	turns(1);
	run_link_flush(&run.link);
	while (recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		run_link_flush(&run.link);
}

static void
send_bytes(const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	while (length > 0)
	{
		ssize_t n = send(peer, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		DEMAND(n > 0 || errno == EAGAIN);
		run_turn();
		if (n > 0)
		{
			at += n;
			length -= (size_t) n;
		}
	}
}

static void
send_frame(uint32_t type, const void *head, size_t head_length, const void *tail,
		   size_t tail_length, bool wrong)
{
	BicycleFrame frame = { .length = (uint32_t) (head_length + tail_length) + wrong, .type = type };

	send_bytes(&frame, sizeof(frame));
	send_bytes(head, head_length);
	send_bytes(tail, tail_length);
}

/* Flags of a step. */
enum
{
	RAW = 1, /* the payload is the body as it is */
	WRONG_LENGTH = 2,
	PAYLOAD_OPTIONS =
		4, /* TRAIN_BEGIN: the payload is the options, not the configuration of a version */
	WITH_STREAM = 8,
	CHECKPOINT = 16,
	FINISHED = 32
};

static void
send_begin(unsigned flags, const uint8_t *payload, size_t length)
{
	static const char tiny[] =
		"{\"size\":64,\"ngf\":1,\"nef\":1,\"ndf\":1,\"nz\":1,\"batch_size\":2,\"iterations\":1}";
	BicycleTrainBegin begin = { .max_pixels = 1 << 16,
								.train_memory = 1 << 16,
								.train_disk = 1 << 16,
								.spill = "/tmp",
								.start.model = "m" };
	bool options = flags & PAYLOAD_OPTIONS;
	uint8_t body[sizeof(begin) + sizeof(tiny) + 65536];
	size_t at = sizeof(begin);

	begin.stream_length = flags & WITH_STREAM ? 1000 : 0;
	begin.iteration = flags & CHECKPOINT ? 1 : 0;
	begin.flags = flags & FINISHED ? BICYCLE_TRAIN_FINISHED : 0;
	begin.options_length = options ? (uint32_t) length : sizeof(tiny) - 1;
	begin.start.config_length = options ? 0 : (uint32_t) length;
	memcpy(body, &begin, sizeof(begin));
	if (!options)
		memcpy(body + at, tiny, sizeof(tiny) - 1);
	at += options ? 0 : sizeof(tiny) - 1;
	memcpy(body + at, payload, length);
	send_frame(BICYCLE_TRAIN_BEGIN, body, at + length, NULL, 0, flags & WRONG_LENGTH);
}

/* Two images as long as each other. */
static void
send_pair(unsigned flags, const uint8_t *payload, size_t length)
{
	BicyclePair pair = { .a_length = (uint32_t) length,
						 .b_length = (uint32_t) length + (flags & WRONG_LENGTH) };
	uint8_t *body = malloc(sizeof(pair) + 2 * length);

	memcpy(body, &pair, sizeof(pair));
	memcpy(body + sizeof(pair), payload, length);
	memcpy(body + sizeof(pair) + length, payload, length);
	send_frame(BICYCLE_PAIR, body, sizeof(pair) + 2 * length, NULL, 0, false);
	free(body);
}

static bool
is_small(void)
{
	const NnConfig *c = &run.config;

	return run.state != RUN_PAIRS || (c->size == 64 && c->ngf <= 4 && c->nef <= 4 && c->ndf <= 4 &&
									  run.options.batch_size <= 4);
}

static void
step(uint32_t type, unsigned flags, const uint8_t *payload, size_t length)
{
	if (type == BICYCLE_PAIRS_END && !is_small())
		return;
	if (flags & RAW)
		send_frame(type, payload, length, NULL, 0, flags & WRONG_LENGTH);
	else if (type == BICYCLE_TRAIN_BEGIN)
		send_begin(flags, payload, length);
	else if (type == BICYCLE_PAIR)
		send_pair(flags, payload, length);
	else
		send_frame(type, payload, type == BICYCLE_DATA ? length : 0, NULL, 0, flags & WRONG_LENGTH);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static const uint32_t types[] = { BICYCLE_TRAIN_BEGIN, BICYCLE_DATA,
									  BICYCLE_END,         BICYCLE_PAIR,
									  BICYCLE_PAIRS_END,   BICYCLE_CHECKPOINT_NOW,
									  BICYCLE_PAUSE,       BICYCLE_HELLO };
	int pair[2];

	if (engine.pool.completions == NULL)
		start();
	DEMAND(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	peer = pair[0];
	run_init(&run, &engine);
	DEMAND(run_link_open(&run.link, pair[1]));
	run_to(&run, RUN_WAITING);
	for (int steps = 0; length >= 4 && steps < 32; steps++)
	{
		uint32_t type = types[bytes[0] % (sizeof(types) / sizeof(types[0]))];
		size_t n = bytes[2] | (size_t) bytes[3] << 8;
		unsigned flags = bytes[1];

		bytes += 4;
		length -= 4;
		n = n < length ? n : length;
		step(type, flags, bytes, n);
		bytes += n;
		length -= n;
	}
	run_turn();
	run_turn();
	DEMAND(engine.decoders.used == 0 && engine.device_thread.pending == 0);
	source_remove(&engine, &run.link.source);
	close(pair[0]);
	close(pair[1]);
	run_free(&run);
	nn_device_close(engine.device.nn);
	engine.device.nn = NULL;
	engine.run = NULL;
	log_take(forget, NULL);
	return 0;
}
