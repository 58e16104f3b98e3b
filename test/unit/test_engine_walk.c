/*
 * Whatever allocation, launch, copy or capture of a device fails, once or from
 * then on, while a model is loaded, one image is made, or twenty: each request
 * ends in its image or in 53200, or the engine ends without an answer, and the
 * next one answers; nothing stays behind. On the reference device, the CPU and
 * the imitated GPU.
 */
#include "gpu_fixture.h"

#define TWENTY 20
#define TRIES 2 /* of a request whose engine ends */

static EngineProcess engine;
static uint8_t *png;
static size_t png_length;
static float z[8] = { 0.5f, -1, 0.25f, 2, -0.125f, 1, 0, -2 };
static Model model;
static Image expected;
static uint64_t next_id = 1;

/* ---- One engine ---------------------------------------------------------- */

typedef struct Tally
{
	int images, refused, ended, odd;
} Tally;

static bool
is_expected(const Client *client)
{
	Image image = gpu_fixture_image(client);
	bool same = true;

	for (int i = 0; same && i < image.width * image.height * 3; i++)
		same = abs(image.pixels[i] - expected.pixels[i]) <= 1;
	image_free(&image);
	return same;
}

/* Whether the device is there: a fault may have come when it was opened. */
static bool
is_open(Client *client)
{
	return strstr(client_status(client).device, "missing") == NULL;
}

/* An error that the fault may be the cause of. */
static bool
is_refused(const Client *client, bool opens)
{
	if (client->frame.type != BICYCLE_ERROR)
		return false;
	if (!opens && strncmp((const char *) client->body, "55000", 5) == 0)
		return true;
	return client_is_error(client, "53200");
}

/*
 * Asks for n images at once, and sends the model when asked. What has no answer
 * is left.
 */
static int
ask(Client *client, int n, uint32_t flags, Tally *tally)
{
	bool opens = is_open(client);
	ImageCall call = { .type = BICYCLE_TRANSLATE,
					   .hash = model.hash,
					   .image = png,
					   .length = png_length,
					   .z = z,
					   .nz = 8,
					   .precision = 1,
					   .flags = flags };
	uint64_t first = next_id, load = UINT64_C(1) << 62;
	size_t length;
	uint8_t *body = image_call_body(&call, &length);
	int open = n, loads = 0;

	next_id += (uint64_t) n;
	for (int i = 0; i < n; i++)
		client_reserve(client, first + (uint64_t) i, length);
	while ((open > 0 || loads > 0) && client_receive(client))
	{
		uint64_t id = client->frame.id;

		if (client->frame.type == BICYCLE_NEED_MODEL)
		{
			client_load_head(client, load + id, &model, "walk");
			loads++;
		}
		else if (client->frame.type == BICYCLE_GRANT && id >= load)
			client_send_stream(client, id, model.stream, model.length);
		else if (client->frame.type == BICYCLE_GRANT)
			client_send(client, call.type, id, body, length);
		else if (client->frame.type != BICYCLE_STARTED && id >= load)
			loads--;
		else if (client->frame.type != BICYCLE_STARTED)
		{
			bool image = client->frame.type == BICYCLE_RESULT && is_expected(client);
			bool refused = !image && is_refused(client, opens);

			tally->images += image;
			tally->refused += refused;
			tally->odd += !image && !refused;
			open--;
		}
	}
	free(body);
	return open;
}

/* Besides models the engine holds nothing, once it has nothing to do. */
static bool
holds_nothing(Client *client)
{
	for (int i = 0; i < 500; i++)
	{
		BicycleCached cached[8];
		int n = client_cache(client, cached, 8);
		BicycleStatus status = client_status(client);
		uint64_t held = status.memory;

		for (int j = 0; j < n && !gpu->used; j++)
			held -= cached[j].bytes;
		/* of a model on a GPU, and pinned for its images */
		if (status.queued == 0 && held <= (gpu->used ? (uint64_t) 4 << 20 : 0))
			return true;
		usleep(5000);
	}
	return false;
}

/* True if the engine is still there; if it is not, it ended as it must. */
static bool
is_up(Client *client, Tally *tally)
{
	int status;

	if (!client->closed)
		return true;
	status = engine_wait(&engine);
	tally->ended++;
	tally->odd += !WIFEXITED(status) || WEXITSTATUS(status) != 1;
	return false;
}

static void
begin(const char *device, const char *fault)
{
	char settings[2][64];
	const char *all[] = { settings[0], "precision fp32", "threads 2",    "debug 1",
						  settings[1], "max_batch 16",   "gpu_retry 20", "max_model_size 100000000",
						  NULL };

	snprintf(settings[0], sizeof(settings[0]), "device %s", device);
	snprintf(settings[1], sizeof(settings[1]), "debug_device_fault %s", fault);
	engine_start(&engine, all);
}

static void
end(Tally *tally)
{
	if (!engine_end(&engine) || gpu->used != 0)
	{
		diag("the engine did not end clean, or left %zu bytes on the GPU", gpu->used);
		tally->odd++;
	}
}

/* ---- The walk ------------------------------------------------------------ */

/*
 * Loads the model, makes one image and then twenty; of what an engine that ends
 * leaves, an engine without the fault makes all.
 */
static void
walk_once(const char *device, const char *fault, Tally *tally)
{
	static const int sizes[] = { 1, TWENTY };
	Tally before = *tally;
	Client client;
	bool up = true;

	begin(device, fault);
	client_hello(&client, &engine, 1);
	for (int i = 0; up && i < 2; i++)
	{
		int left = ask(&client, sizes[i], 0, tally);

		up = is_up(&client, tally);
		if (up)
			continue;
		client_close(&client);
		engine_forget(&engine);
		begin(device, "");
		client_hello(&client, &engine, 1);
		for (; left > 0; left--)
			tally->odd += ask(&client, 1, BICYCLE_FLAG_ALONE, tally) != 0;
	}
	if (!holds_nothing(&client))
	{
		diag("%s holds %llu bytes", fault, (unsigned long long) client_status(&client).memory);
		tally->odd++;
	}
	client_close(&client);
	end(tally);
	if (tally->odd > before.odd)
		diag("%s on %s: %d images, %d refused, %d times ended", fault, device,
			 tally->images - before.images, tally->refused - before.refused,
			 tally->ended - before.ended);
}

static void
walk(const char *device)
{
	static const char *const kinds[] = { "allocation", "launch", "copy", "capture" };
	static const int ns[] = { 1, 2, 6, 17, 60 };
	Tally tally = { 0 };

	gpu_fixture_choose(strcmp(device, "cuda") == 0);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
		for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++)
		{
			char fault[64];

			snprintf(fault, sizeof(fault), "%s:%d%s", kinds[k], ns[i],
					 i % 3 == 2 ? ":lasting" : "");
			walk_once(device, fault, &tally);
		}
	ok(tally.odd == 0 && tally.images > 100 && tally.refused > 0 && tally.ended > 3,
	   "%s: under faults %d images were made, %d refused, and %d times the engine ended", device,
	   tally.images, tally.refused, tally.ended);
}

/*
 * A GPU that fails again and again ends each engine: nothing is answered
 * wrongly.
 */
static void
test_again(void)
{
	Tally tally = { 0 };
	int left = 1;

	gpu_fixture_choose(true);
	for (int try = 0; try < TRIES; try++)
	{
		Client client;

		begin("cuda", "launch:30:lasting");
		client_hello(&client, &engine, 1);
		left = ask(&client, 1, try > 0 ? BICYCLE_FLAG_ALONE : 0, &tally);
		(void) is_up(&client, &tally);
		client_close(&client);
		engine_forget(&engine);
	}
	ok(left == 1 && tally.ended == TRIES && tally.images + tally.refused + tally.odd == 0,
	   "a fault that stays ends one engine after the other");
}

static void
make_model(void)
{
	Client client;
	Tally tally = { 0 };

	gpu_fixture_choose(false);
	begin("ref", "");
	client_hello(&client, &engine, 1);
	if (!client_create(&client, next_id++,
					   "{\"size\":64,\"levels\":6,\"ngf\":1,\"nef\":1,\"encoder_size\":64,"
					   "\"init_gain\":0.5}",
					   &model))
		bail_out("cannot create a model");
	expected = (Image){ 0 };
	{
		ImageCall call = { .type = BICYCLE_TRANSLATE,
						   .hash = model.hash,
						   .image = png,
						   .length = png_length,
						   .z = z,
						   .nz = 8,
						   .precision = 1 };

		if (!client_run(&client, next_id++, &call, &model))
			bail_out("cannot run a model");
		expected = gpu_fixture_image(&client);
	}
	client_close(&client);
	end(&tally);
}

int
main(void)
{
	gpu_fixture_begin();
	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	make_model();
	walk("ref");
	walk("cpu");
	walk("cuda");
	test_again();
	gpu_fixture_end();
	model_free(&model);
	image_free(&expected);
	free(png);
	return done_testing();
}
