/*
 * Whatever clients do, whenever they go, the engine stays up, serves the others
 * and gives back what it held.
 */
#include "engine_client.h"

#define ROUNDS 10000 /* of damaged input */

static EngineProcess engine;
static Model model;
static uint8_t *png;
static size_t png_length;
static float z[8];

static ImageCall
translate(void)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model.hash,
						.image = png,
						.length = png_length,
						.z = z,
						.nz = 8 };
}

/* The model is resident and database 1 may use it. */
static void
make_resident(void)
{
	Client client;
	ImageCall call = translate();

	client_hello(&client, &engine, 1);
	if (!client_run(&client, 1, &call, &model))
		bail_out("cannot translate");
	client_close(&client);
}

/*
 * What the engine holds besides resident models (which grow by the plans of
 * their batches), once it has nothing to do.
 */
static uint64_t
memory_at_rest(void)
{
	Client client;
	uint64_t held = 0;
	BicycleCached cached[8];

	client_hello(&client, &engine, 1);
	for (int i = 0; i < 500; i++)
	{
		int n = client_cache(&client, cached, 8);
		BicycleStatus status = client_status(&client);

		held = status.memory;
		for (int j = 0; j < n; j++)
			held -= cached[j].bytes;
		if (held == 0 && status.queued == 0)
			break;
		usleep(10000);
	}
	client_close(&client);
	return held;
}

/*
 * Sends cancel for id and reads up to its confirmation; false if any other
 * frame of id follows.
 */
static bool
cancel_and_check(Client *client, uint64_t id)
{
	client_send(client, BICYCLE_CANCEL, id, NULL, 0);
	while (client_receive(client) && client->frame.type != BICYCLE_CANCELLED)
		;
	if (client->closed || client->frame.id != id)
		return false;
	client_status(client); /* whatever came for id would come before this */
	return client->frame.type == BICYCLE_RESULT && client->frame.id == UINT64_MAX;
}

/*
 * Cancelled in each of its states a request is confirmed once and then silent.
 */
static void
test_cancel(void)
{
	Client client, other;
	ImageCall call = translate();
	Model unknown = model;
	uint64_t id = 1;
	int good = 0;
	const int rounds = 200;

	client_hello(&client, &engine, 1);
	client_hello(&other, &engine, 1);

	client_reserve(&other, 1, 500000);
	client_reserve(&client, id, 600000);
	client_expect(&other, BICYCLE_GRANT, 1);
	ok(cancel_and_check(&client, id++), "cancelled while it waits for a place");
	client_place(&client, id, 100000);
	ok(cancel_and_check(&client, id++), "cancelled when it was granted");
	cancel_and_check(&other, 1);

	unknown.hash[0] ^= 1;
	call.hash = unknown.hash;
	client_call(&client, id, &call);
	client_expect(&client, BICYCLE_NEED_MODEL, id);
	ok(cancel_and_check(&client, id++), "cancelled while it waits for its model");

	client_load_head(&client, id, &model, "half");
	client_expect(&client, BICYCLE_GRANT, id);
	client_send(&client, BICYCLE_DATA, id, model.stream, model.length / 2);
	ok(cancel_and_check(&client, id++), "a model cancelled while it is sent");
	client_load_send(&client, id, &model, "whole");
	ok(cancel_and_check(&client, id++), "a model cancelled while it is loaded");
	client_import_send(&client, id, "{}", model.stream, model.length, NULL, 0);
	ok(cancel_and_check(&client, id++), "an import cancelled while it is read");

	call = translate();
	for (int i = 0; i < rounds; i++, id++)
	{
		client_call(&client, id, &call);
		usleep((useconds_t) (i * 37 % 6000));
		good += cancel_and_check(&client, id);
	}
	ok(good == rounds, "%d of %d cancelled at any time while they run", good, rounds);
	ok(client_run(&client, id, &call, NULL), "then one is translated");
	client_close(&client);
	client_close(&other);
}

/* A client that goes, at any time, leaves nothing. */
static void
test_close(void)
{
	ImageCall call = translate();
	uint64_t state = 4711;
	size_t length;
	uint8_t *body = image_call_body(&call, &length);

	for (int i = 0; i < 150; i++)
	{
		Client client;

		client_hello(&client, &engine, 1);
		for (uint64_t id = 1; id <= 8; id++)
		{
			client_reserve(&client, id, length);
			client_send(&client, BICYCLE_TRANSLATE, id, body,
						testdata_random(&state) % 16 == 0 ? length / 2 : length);
		}
		usleep((useconds_t) (testdata_random(&state) % 8000));
		client_close(&client);
	}
	free(body);
	ok(memory_at_rest() == 0, "150 clients that go with work pending leave nothing");
}

/*
 * A client that sends much and reads nothing holds up neither others nor the
 * engine's memory.
 */
static void
test_deaf(void)
{
	enum
	{
		N = 100 /* as many as have places at once */
	};
	Client deaf, other;
	ImageCall call = translate();
	size_t length;
	uint8_t *body = image_call_body(&call, &length);
	int served = 0, answers = 0;

	client_hello(&deaf, &engine, 1);
	client_hello(&other, &engine, 1);
	for (uint64_t id = 1; id <= N; id++)
		client_reserve(&deaf, id, length);
	for (uint64_t id = 1; id <= N; id++)
	{
		client_expect(&deaf, BICYCLE_GRANT, id);
		client_send(&deaf, BICYCLE_TRANSLATE, id, body, length);
	}
	for (uint64_t id = 1; id <= 20; id++)
		served += client_run(&other, id, &call, NULL);
	ok(served == 20, "a client that does not read does not hold up another");
	while (answers < N && client_receive(&deaf))
		answers += deaf.frame.type == BICYCLE_RESULT;
	ok(answers == N, "and gets all its answers when it does");
	free(body);
	client_close(&deaf);
	client_close(&other);
	ok(memory_at_rest() == 0, "nothing is left of it");
}

/*
 * While an answer fills a client's socket none of its requests starts, others
 * are served, and when it reads it gets everything.
 */
static void
test_jam(void)
{
	Client jammed, other;
	ImageCall call = translate();
	Model large = { 0 };
	size_t length;
	uint8_t *body = image_call_body(&call, &length);
	BicycleImport import = { 0 };
	uint8_t head[1024];
	const char *config = "{\"size\":64,\"levels\":6,\"ngf\":24,\"nef\":1,\"encoder_size\":64}";
	int served = 0, started = 0;
	uint64_t requests;

	client_hello(&jammed, &engine, 1);
	client_hello(&other, &engine, 1);
	import.config_length = (uint32_t) strlen(config);
	memcpy(head, &import, sizeof(import));
	memcpy(head + sizeof(import), config, strlen(config));
	client_send(&jammed, BICYCLE_CREATE, 1, head, sizeof(import) + strlen(config));
	poll(&(struct pollfd){ .fd = jammed.fd, .events = POLLIN }, 1, PATIENCE_MS);
	for (int i = 0; i < 1000 && client_status(&other).queued > 0; i++)
		usleep(5000);
	for (uint64_t id = 2; id <= 9; id++)
	{
		client_reserve(&jammed, id, length);
		client_send(&jammed, BICYCLE_TRANSLATE, id, body, length);
	}
	requests = client_status(&other).requests;
	for (uint64_t id = 1; id <= 20; id++)
		served += client_run(&other, id, &call, NULL);
	ok(served == 20, "a client that does not read an answer of many megabytes holds up nobody");
	ok(client_status(&other).requests == requests + 20 && client_status(&other).queued == 8,
	   "its other requests do not start");
	client_imported(&jammed, 1, &large);
	ok(large.length > 8 << 20, "when it reads, it gets the answer (%zu bytes)", large.length);
	for (served = 0; served < 8 && client_receive(&jammed);)
	{
		started += jammed.frame.type == BICYCLE_STARTED;
		served += jammed.frame.type == BICYCLE_RESULT;
	}
	ok(served == 8 && started == 8, "then they start and are answered");

	client_send(&jammed, BICYCLE_CREATE, 1, head, sizeof(import) + strlen(config));
	client_expect(&jammed, BICYCLE_RESULT, 1);
	client_send(&jammed, BICYCLE_CANCEL, 1, NULL, 0);
	for (length = 0; client_receive(&jammed) && jammed.frame.type == BICYCLE_DATA;)
		length += jammed.frame.length;
	ok(jammed.frame.type == BICYCLE_CANCELLED && length < large.length / 2,
	   "an answer that is cancelled half-way ends (after %zu bytes)", length);
	model_free(&large);
	free(body);
	client_close(&jammed);
	client_close(&other);
	ok(memory_at_rest() == 0, "nothing is left of it");
}

/*
 * Many plots, or questions about images, do not keep a translation from
 * starting.
 */
static void
test_plots(void)
{
	enum
	{
		N = 120
	};
	struct
	{
		BicyclePlot head;
		BicycleSeries series;
		BicyclePoint points[2];
	} plot = { { .width = 1200, .height = 1000, .series = 1 },
			   { .name = "s", .points = 2 },
			   { { 0, 0 }, { 1, 1 } } };
	ImageCall draw = { .type = BICYCLE_PLOT,
					   .image = (const uint8_t *) &plot,
					   .length = sizeof(plot) };
	ImageCall call = translate();
	Client many, one;
	size_t length;
	uint8_t *body = image_call_body(&draw, &length);
	uint64_t left = 0;
	int drawn = 0;

	client_hello(&many, &engine, 1);
	client_hello(&one, &engine, 1);
	for (uint64_t id = 1; id <= N; id++)
	{
		client_reserve(&many, id, length);
		client_send(&many, BICYCLE_PLOT, id, body, length);
	}
	client_expect(&many, BICYCLE_RESULT, 0);
	if (client_run(&one, 1, &call, NULL))
		left = client_status(&one).queued;
	ok(left > N / 10, "an image is translated while %d of %d plots wait", (int) left, N);
	for (drawn = 1; drawn < N && client_receive(&many);)
		drawn += many.frame.type == BICYCLE_RESULT;
	ok(drawn == N, "and all of those are drawn");
	free(body);
	client_close(&many);
	client_close(&one);
	ok(memory_at_rest() == 0, "nothing is left of them");
}

/*
 * A batch that takes long, but goes on, is no reason to kill the engine: it
 * keeps answering its supervisor.
 */
static void
test_slow(void)
{
	Client client;
	ImageCall call = translate();
	Model slow = { 0 };
	char setting[64];
	int64_t took;
	int pings = 0, pongs = 0;
	bool done = false;

	client_hello(&client, &engine, 1);
	if (!client_create(&client, 1,
					   "{\"size\":128,\"levels\":6,\"ngf\":24,\"nef\":1,\"encoder_size\":64}",
					   &slow))
		bail_out("cannot create a model");
	call.hash = slow.hash;
	client_run(&client, 2, &call, &slow);
	took = clock_ms();
	client_run(&client, 3, &call, &slow);
	took = clock_ms() - took;
	/*
	 * less than a batch of four takes, and more than a busy machine keeps a
	 * thread waiting
	 */
	snprintf(setting, sizeof(setting), "stuck_timeout %d", (int) took);
	engine_set(&engine, setting);
	for (uint64_t id = 10; id < 15; id++)
		client_call(&client, id, &call);
	for (int answered = 0; answered < 5; answered += done)
	{
		engine_tell(&engine, "ping slow");
		pings++;
		done = poll(&(struct pollfd){ .fd = client.fd, .events = POLLIN }, 1, 20) > 0 &&
			   client_receive(&client) && client.frame.type == BICYCLE_RESULT;
	}
	while (pongs < pings && engine_says(&engine, "pong slow", 1000))
		pongs++;
	ok(pongs == pings,
	   "of an engine that takes %d ms an image, with a stuck_timeout of that, %d of %d pings are "
	   "answered",
	   (int) took, pongs, pings);
	engine_set(&engine, "stuck_timeout 60000");
	model_free(&slow);
	client_close(&client);
	ok(memory_at_rest() == 0, "nothing is left of it");
}

/* ---- Damaged input ------------------------------------------------------- */

/*
 * A part of a session that can be sent without waiting: the frames of one
 * request.
 */
typedef struct Script
{
	uint8_t *bytes;
	size_t length;
} Script;

static void
script_add(Script *script, uint32_t type, uint64_t id, const void *body, size_t length)
{
	BicycleFrame frame = { .length = (uint32_t) length, .type = type, .id = id };

	script->bytes = realloc(script->bytes, script->length + sizeof(frame) + length);
	if (script->bytes == NULL)
		bail_out("out of memory");
	memcpy(script->bytes + script->length, &frame, sizeof(frame));
	if (length > 0)
		memcpy(script->bytes + script->length + sizeof(frame), body, length);
	script->length += sizeof(frame) + length;
}

enum
{
	SCRIPT_IMAGE,
	SCRIPT_LOAD,
	SCRIPT_IMPORT,
	SCRIPT_INSPECT,
	SCRIPT_EXPORT,
	SCRIPT_CREATE,
	SCRIPT_SMALL,
	SCRIPTS
};

/*
 * Appends the frames of one request of a kind, with `payload` as its image,
 * file or stream.
 */
static void
script_request(Script *script, int kind, uint64_t id, const uint8_t *payload, size_t length)
{
	BicycleReserve reserve;
	ImageCall call = translate();
	uint8_t head[4096];
	BicycleLoad load = { .version = 1,
						 .model = "m",
						 .config_length = (uint32_t) strlen(model.config),
						 .stream_length = length };
	BicycleImport import = { .generator_length = length };
	BicycleExport export = { .stream_length = length, .format = "pth" };
	static const uint32_t types[] = { BICYCLE_TRANSLATE, BICYCLE_INFO, BICYCLE_ENCODE };
	uint8_t *body;
	size_t n;

	switch (kind)
	{
		case SCRIPT_IMAGE:
			call.type = types[id % 3];
			call.nz = call.type == BICYCLE_TRANSLATE ? 8 : 0;
			call.image = payload;
			call.length = length;
			body = image_call_body(&call, &n);
			reserve.bytes = n;
			script_add(script, BICYCLE_RESERVE, id, &reserve, sizeof(reserve));
			script_add(script, call.type, id, body, n);
			free(body);
			return;
		case SCRIPT_LOAD:
			memcpy(load.hash, model.hash, sizeof(load.hash));
			memcpy(head, &load, sizeof(load));
			memcpy(head + sizeof(load), model.config, load.config_length);
			script_add(script, BICYCLE_LOAD, id, head, sizeof(load) + load.config_length);
			break;
		case SCRIPT_IMPORT:
			import.config_length = 2;
			memcpy(head, &import, sizeof(import));
			memcpy(head + sizeof(import), "{}", 2);
			script_add(script, BICYCLE_IMPORT, id, head, sizeof(import) + 2);
			break;
		case SCRIPT_INSPECT:
			script_add(script, BICYCLE_INSPECT, id, &import, sizeof(import));
			break;
		case SCRIPT_EXPORT:
			script_add(script, BICYCLE_EXPORT, id, &export, sizeof(export));
			break;
		case SCRIPT_CREATE:
			import.generator_length = 0;
			import.config_length = (uint32_t) strlen(model.config);
			memcpy(head, &import, sizeof(import));
			memcpy(head + sizeof(import), model.config, import.config_length);
			script_add(script, BICYCLE_CREATE, id, head, sizeof(import) + import.config_length);
			return;
		default:
			script_add(script, BICYCLE_STATUS, id, NULL, 0);
			script_add(script, BICYCLE_CACHE, id, NULL, 0);
			script_add(script, BICYCLE_CANCEL, id, NULL, 0);
			return;
	}
	script_add(script, BICYCLE_DATA, id, payload, length / 2);
	script_add(script, BICYCLE_DATA, id, payload + length / 2, length - length / 2);
	script_add(script, BICYCLE_END, id, NULL, 0);
}

/* The payload of a kind of request, undamaged. */
static void
payload_of(int kind, const uint8_t *file, size_t file_length, const uint8_t **payload,
		   size_t *length)
{
	*payload = kind == SCRIPT_IMAGE                              ? png
			   : kind == SCRIPT_IMPORT || kind == SCRIPT_INSPECT ? file
																 : model.stream;
	*length = kind == SCRIPT_IMAGE                              ? png_length
			  : kind == SCRIPT_IMPORT || kind == SCRIPT_INSPECT ? file_length
																: model.length;
}

/*
 * Sends what the engine takes, reading what it says meanwhile; neither side may
 * wait for the other.
 */
static void
exchange(Client *client, const Script *script)
{
	uint8_t sink[65536];
	size_t sent = 0;
	int64_t until = clock_ms() + PATIENCE_MS;

	for (;;)
	{
		struct pollfd wait = { .fd = client->fd,
							   .events =
								   (short) (sent < script->length ? POLLIN | POLLOUT : POLLIN) };
		ssize_t n;

		if (clock_ms() > until)
			bail_out("the engine neither reads nor closes");
		if (poll(&wait, 1, sent < script->length ? 2000 : 0) <= 0)
			break;
		if (wait.revents & (POLLIN | POLLHUP | POLLERR))
		{
			n = recv(client->fd, sink, sizeof(sink), MSG_DONTWAIT);
			if (n == 0 || (n < 0 && errno != EAGAIN))
				break;
		}
		if (wait.revents & POLLOUT)
		{
			n = send(client->fd, script->bytes + sent, script->length - sent,
					 MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				break;
			sent += n > 0 ? (size_t) n : 0;
		}
	}
}

/* Sessions with damage anywhere in their frames. */
static void
test_damaged_frames(const uint8_t *file, size_t file_length)
{
	uint64_t state = 20240229;
	Client watch;
	int alive = 0;

	client_hello(&watch, &engine, 1);
	for (int i = 0; i < ROUNDS / 2; i++)
	{
		Script script = { 0 };
		Script damaged;
		Client client;

		for (uint64_t id = 1; id <= 1 + testdata_random(&state) % 3; id++)
		{
			int kind = (int) (testdata_random(&state) % SCRIPTS);
			const uint8_t *payload;
			size_t length;

			payload_of(kind, file, file_length, &payload, &length);
			script_request(&script, kind, id, payload, length);
		}
		damaged.bytes = testdata_damage(script.bytes, script.length, &state, &damaged.length);
		/*
		 * Damage falls on payloads nearly always: half of the time one number
		 * in one of the first frames is struck.
		 */
		if (testdata_random(&state) % 2 == 0 && damaged.length > 128)
		{
			uint32_t number = (uint32_t) testdata_random(&state) >> (testdata_random(&state) % 32);

			memcpy(damaged.bytes + testdata_random(&state) % 16 * 4, &number, sizeof(number));
		}
		client_hello(&client, &engine, 1);
		exchange(&client, &damaged);
		client_close(&client);
		free(script.bytes);
		free(damaged.bytes);
		if (i % 100 == 99)
			alive += client_status(&watch).pid == engine.pid;
	}
	ok(alive == ROUNDS / 200, "%d sessions with damaged frames: the engine stays up", ROUNDS / 2);
	client_close(&watch);
	make_resident();
	ok(memory_at_rest() == 0, "and holds nothing of it");
}

/*
 * Requests whose frames are right and whose images, files and streams are
 * damaged: each gets an answer.
 */
static void
test_damaged_payloads(const uint8_t *file, size_t file_length)
{
	uint64_t state = 19700101;
	Client client;
	int results = 0, errors = 0;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < ROUNDS / 2; i++)
	{
		Script script = { 0 };
		int kind = (int) (testdata_random(&state) % (SCRIPT_EXPORT + 1));
		uint64_t id = (uint64_t) i + 1;
		const uint8_t *payload;
		size_t length;
		uint8_t *damaged;

		payload_of(kind, file, file_length, &payload, &length);
		do
			damaged = testdata_damage(payload, length, &state, &length);
		while (length == 0 &&
			   (free(damaged), payload_of(kind, file, file_length, &payload, &length), true));
		script_request(&script, kind, id, damaged, length);
		client_write(&client, script.bytes, script.length);
		free(script.bytes);
		free(damaged);
		while (client_receive(&client) && client.frame.type != BICYCLE_ERROR &&
			   client.frame.type != BICYCLE_RESULT)
			;
		if (client.closed)
			break;
		errors += client.frame.type == BICYCLE_ERROR;
		results += client.frame.type == BICYCLE_RESULT;
		if (client.frame.type == BICYCLE_RESULT && kind != SCRIPT_IMAGE && kind != SCRIPT_LOAD)
		{
			size_t unused;

			free(client_stream(&client, id, &unused));
		}
	}
	ok(results + errors == ROUNDS / 2 && results > 0 && errors > 0,
	   "%d requests with damaged payloads are answered, %d of them with errors", ROUNDS / 2,
	   errors);
	client_close(&client);
	make_resident();
	ok(memory_at_rest() == 0, "and leave nothing");
}

/*
 * Ordered end with work under way: what has started is answered, the rest is
 * cut, and the exit is clean.
 */
static void
test_end(bool by_signal)
{
	enum
	{
		N = 60
	};
	Client client;
	ImageCall call = translate();
	size_t length;
	uint8_t *body = image_call_body(&call, &length);
	bool started[N + 1] = { false };
	int nstarted = 0, answered = 0, status;

	client_hello(&client, &engine, 1);
	for (uint64_t id = 1; id <= N; id++)
	{
		client_reserve(&client, id, length);
		client_send(&client, BICYCLE_TRANSLATE, id, body, length);
	}
	client_expect(&client, BICYCLE_RESULT, 0);
	answered++;
	if (by_signal)
		kill(engine.pid, SIGTERM);
	else
		engine_tell(&engine, "stop");
	started[client.frame.id] = true;
	while (client_receive(&client))
	{
		if (client.frame.type == BICYCLE_STARTED)
			nstarted += !started[client.frame.id];
		answered += client.frame.type == BICYCLE_RESULT;
	}
	status = engine_wait(&engine);
	ok(status == 0, "the engine ends clean with work under way, told by %s (0x%x)",
	   by_signal ? "a signal" : "its supervisor", (unsigned) status);
	ok(answered >= nstarted && answered < N, "what had started was answered (%d), the rest was cut",
	   answered);
	free(body);
	client_close(&client);
	close(engine.control);
}

int
main(void)
{
	const char *settings[] = { "device ref", "queue_memory 1048576", "max_batch 4",
							   "max_model_size 40000000", NULL };
	uint8_t *file;
	size_t file_length;

	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	engine_start(&engine, settings);
	file = client_small_model(&engine, &model, &file_length);
	make_resident();

	test_cancel();
	test_close();
	test_deaf();
	test_jam();
	test_plots();
	test_slow();
	test_damaged_frames(file, file_length);
	test_damaged_payloads(file, file_length);
	test_end(false);
	engine_start_in(&engine, settings);
	if (!engine_says(&engine, "ready ", PATIENCE_MS))
		bail_out("the engine does not start again");
	make_resident();
	test_end(true);
	engine.control = -1;
	engine.eof = true;
	engine_forget(&engine);
	model_free(&model);
	free(file);
	free(png);
	return done_testing();
}
