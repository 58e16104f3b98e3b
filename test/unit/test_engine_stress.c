/*
 * Many sessions at once, in processes of their own, that translate, ask, draw,
 * load, withdraw and go away in the middle, on little memory and while settings
 * change: every image is right, none is refused, as there is memory for all of
 * them one after the other, but those that run alone; every refusal is for want
 * of memory; and in the end the engine holds nothing but models.
 */
#include "engine_client.h"

#define SESSIONS 8
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEPS 12 /* of each; a sanitized engine is many times slower */
#else
#define STEPS 60
#endif
#define MODELS 4 /* which do not fit beside each other */

static EngineProcess engine;
static Model models[MODELS];
static uint8_t *expected[MODELS]; /* what becomes of the image */
static size_t expected_length[MODELS];
static uint8_t *png;
static size_t png_length;
static float z[8];

static ImageCall
translate(int i)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = models[i].hash,
						.image = png,
						.length = png_length,
						.z = z,
						.nz = 8 };
}

static void
make_models(void)
{
	Client client;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < MODELS; i++)
	{
		char config[128];
		ImageCall call;

		snprintf(config, sizeof(config),
				 "{\"size\":64,\"levels\":6,\"ngf\":%d,\"nef\":1,\"encoder_size\":64,\"seed\":%d}",
				 1 + i % 2, i);
		if (!client_create(&client, (uint64_t) i + 1, config, &models[i]))
			bail_out("cannot create a model");
		call = translate(i);
		if (!client_run(&client, (uint64_t) i + 10, &call, &models[i]))
			bail_out("cannot translate");
		expected_length[i] = client.frame.length;
		expected[i] = malloc(client.frame.length);
		if (expected[i] == NULL)
			bail_out("out of memory");
		memcpy(expected[i], client.body, client.frame.length);
	}
	client_close(&client);
}

/* ---- A session ----------------------------------------------------------- */

static uint64_t state;

static unsigned
drawn(unsigned n)
{
	return (unsigned) (testdata_random(&state) >> 16) % n;
}

/*
 * The last frame is the right image. For one that runs alone nothing comes
 * free, so that may say that there is no memory.
 */
static bool
image_is_right(const Client *client, bool alone, int i)
{
	if (client->frame.type == BICYCLE_RESULT)
		return client->frame.length == expected_length[i] &&
			   memcmp(client->body, expected[i], expected_length[i]) == 0;
	return client_is_error(client, alone ? "53200" : "none");
}

/*
 * A window of requests, some of them withdrawn; models are sent as they are
 * asked for.
 */
static bool
window(Client *client, uint64_t *id)
{
	uint64_t first = *id;
	int n = 1 + (int) drawn(8);
	int which[8]; /* model of each; -1: withdrawn */
	bool alone[8];
	uint8_t *bodies[8];
	size_t lengths[8];
	int open = n;
	bool good = true;

	for (int k = 0; k < n; k++)
	{
		ImageCall call = translate(which[k] = (int) drawn(MODELS));

		call.flags = drawn(4) == 0 ? BICYCLE_FLAG_BULK : drawn(16) == 0 ? BICYCLE_FLAG_ALONE : 0;
		alone[k] = call.flags == BICYCLE_FLAG_ALONE;
		bodies[k] = image_call_body(&call, &lengths[k]);
		client_reserve(client, (*id)++, lengths[k]);
	}
	for (int k = 0; k < n; k++)
		if (drawn(6) == 0)
		{
			usleep(drawn(3000));
			client_send(client, BICYCLE_CANCEL, first + (uint64_t) k, NULL, 0);
			which[k] = -1;
			open--;
		}
	while (open > 0 && good)
	{
		uint64_t k;

		if (!client_receive(client))
		{
			good = false;
			break;
		}
		k = client->frame.id - first;
		if (client->frame.type == BICYCLE_GRANT && k < (uint64_t) n && which[k] >= 0)
			client_send(client, BICYCLE_TRANSLATE, client->frame.id, bodies[k], lengths[k]);
		if (client->frame.type == BICYCLE_NEED_MODEL && which[k] >= 0)
		{
			/* under an id beyond all others; other answers are on their way */
			const Model *model = &models[which[k]];

			client_load_head(client, (UINT64_C(1) << 62) + client->frame.id, model, "stress");
			continue;
		}
		if (client->frame.id >= UINT64_C(1) << 62)
		{
			uint64_t of = client->frame.id - (UINT64_C(1) << 62) - first;

			if (client->frame.type == BICYCLE_GRANT && of < (uint64_t) n)
			{
				const Model *model = &models[which[of]];

				client_send_stream(client, client->frame.id, model->stream, model->length);
			}
			continue;
		}
		if (k >= (uint64_t) n || which[k] < 0 ||
			(client->frame.type != BICYCLE_RESULT && client->frame.type != BICYCLE_ERROR))
			continue;
		good = image_is_right(client, alone[k], which[k]);
		open--;
	}
	for (int k = 0; k < n; k++)
		free(bodies[k]);
	return good;
}

/* Goes away with whatever is under way. */
static void
leave(Client *client)
{
	ImageCall call = translate((int) drawn(MODELS));
	size_t length;
	uint8_t *body = image_call_body(&call, &length);

	for (uint64_t id = 1; id <= 1 + drawn(6); id++)
	{
		client_reserve(client, id, length);
		client_send(client, BICYCLE_TRANSLATE, id, body, drawn(4) == 0 ? length / 2 : length);
	}
	if (drawn(2) == 0)
		client_load_head(client, 100, &models[0], "half");
	if (drawn(2) == 0)
		shutdown(client->fd, SHUT_WR);
	usleep(drawn(5000));
	client_close(client);
	free(body);
}

static bool
light(Client *client, uint64_t id)
{
	struct
	{
		BicyclePlot head;
		BicycleSeries series;
		BicyclePoint points[2];
	} plot = { { .width = 300, .height = 200, .series = 1 },
			   { .name = "s", .points = 2 },
			   { { 0, 0 }, { 1, 1 } } };
	ImageCall info = { .type = BICYCLE_INFO, .image = png, .length = png_length };
	ImageCall draw = { .type = BICYCLE_PLOT,
					   .image = (const uint8_t *) &plot,
					   .length = sizeof(plot) };

	return client_run(client, id, drawn(2) == 0 ? &info : &draw, NULL) ||
		   client_is_error(client, "53200");
}

static int
session(int number)
{
	Client client;
	uint64_t id = 1;
	bool good = true;

	state = 1000 + (uint64_t) number;
	client_hello(&client, &engine, 1 + (uint32_t) number % 2);
	for (int i = 0; i < STEPS && good; i++)
		switch (drawn(8))
		{
			case 0:
				leave(&client);
				client_hello(&client, &engine, 1 + (uint32_t) number % 2);
				id = 1;
				break;
			case 1:
				/* a connection on which nothing is outstanding */
				client_close(&client);
				client_hello(&client, &engine, 1 + (uint32_t) number % 2);
				id = 1;
				good = light(&client, id++) && client_status(&client).pid == engine.pid;
				break;
			default:
				good = window(&client, &id);
		}
	client_close(&client);
	return good ? 0 : 1;
}

/* ---- All of them --------------------------------------------------------- */

int
main(void)
{
	const char *settings[] = { "device ref", "threads 2", "max_batch 4", "queue_memory 262144",
							   NULL };
	static const char *const changes[] = { "threads 1",
										   "threads 3",
										   "max_batch 1",
										   "max_batch 8",
										   "cache_size 3000000",
										   "cache_size 0",
										   "queue_memory 131072",
										   "engine_memory 12000000",
										   "engine_memory 64000000" };
	pid_t pids[SESSIONS];
	int running = SESSIONS, failed = 0, changed = 0;
	Client client;
	BicycleCached cached[16];
	uint64_t held = 1;

	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	engine_start(&engine, settings);
	make_models();
	engine_set(&engine, "engine_memory 12000000");
	for (int i = 0; i < SESSIONS; i++)
	{
		fflush(stdout);
		if ((pids[i] = fork()) < 0)
			bail_out("cannot start a process: %s", strerror(errno));
		if (pids[i] == 0)
			_exit(session(i));
	}
	for (int i = 0; running > 0; i++)
	{
		for (int k = 0; k < SESSIONS; k++)
		{
			int status;

			if (pids[k] == 0 || waitpid(pids[k], &status, WNOHANG) != pids[k])
				continue;
			failed += status != 0;
			pids[k] = 0;
			running--;
		}
		if (i % 5 == 0)
			engine_set(&engine, changes[changed++ % (int) (sizeof(changes) / sizeof(changes[0]))]);
		usleep(20000);
	}
	ok(failed == 0,
	   "%d sessions of %d steps, under %d changes of settings: %d found something wrong", SESSIONS,
	   STEPS, changed, failed);

	engine_set(&engine, "engine_memory 64000000");
	client_hello(&client, &engine, 1);
	for (int i = 0; i < 400 && held > 0; i++)
	{
		int n = client_cache(&client, cached, 16);

		held = client_status(&client).memory;
		for (int k = 0; k < n && k < 16; k++)
			held -= cached[k].bytes;
		usleep(5000);
	}
	ok(held == 0 && client_status(&client).queued == 0,
	   "the engine holds nothing of them (%llu bytes)", (unsigned long long) held);
	client_close(&client);
	ok(engine_end(&engine), "and ends clean");
	for (int i = 0; i < MODELS; i++)
	{
		model_free(&models[i]);
		free(expected[i]);
	}
	free(png);
	return done_testing();
}
