/*
 * The engine keeps to a GPU's memory: models that do not fit beside each other
 * take turns, plans go before models, a batch that does not fit is made
 * smaller, what can never fit is refused and disturbs nobody, what is only kept
 * is given back, and an engine whose GPU fails ends without an answer. And it
 * says when requests wait for the GPU. On the imitated GPU of test/cuda,
 * which this process and the engine's share the settings of.
 */
#include "gpu_fixture.h"
#include "image_fixture.h"

#include <pthread.h>

#define MODELS 3
#define SESSION_RUNS 3
/*
 * more than a batch takes, so that some run together, however fast the first is
 * begun
 */
#define MANY 5
#define SMALL "\"size\":64,\"levels\":6,\"ngf\":4,\"nef\":4,\"encoder_size\":64,\"init_gain\":0.5"
#define LARGE "\"size\":64,\"levels\":6,\"ngf\":32,\"nef\":4,\"encoder_size\":64,\"init_gain\":0.5"

static EngineProcess engine;
static uint8_t *png;
static size_t png_length;
static float z[8] = { 0.5f, -1, 0.25f, 2, -0.125f, 1, 0, -2 };
static Model models[MODELS], large;
static Image expected[MODELS]; /* by the CPU */
static uint64_t next_id = 1;

static ImageCall
translate(const Model *model)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model->hash,
						.image = png,
						.length = png_length,
						.z = z,
						.nz = 8,
						.precision = 1 };
}

/*
 * Whether the last frame is the model's image, within a level of what the CPU
 * makes.
 */
static bool
is_expected(const Client *client, int model)
{
	Image image;
	size_t wrong = 0;

	if (client->frame.type != BICYCLE_RESULT)
		return false;
	image = gpu_fixture_image(client);
	for (int i = 0; i < image.width * image.height * 3; i++)
		wrong += abs(image.pixels[i] - expected[model].pixels[i]) > 1;
	if (wrong > 0)
		diag("%zu values of model %d differ", wrong, model);
	image_free(&image);
	return wrong == 0;
}

/*
 * A request of its own, in turn with those of others; the model is sent each
 * time it is asked for, and *loads counts that.
 */
static bool
run(Client *client, int model, int *loads)
{
	ImageCall call = translate(&models[model]);
	uint64_t id = __atomic_fetch_add(&next_id, 1, __ATOMIC_RELAXED);

	if (!client_call(client, id, &call))
		return false;
	while (client_receive(client))
	{
		if (client->frame.type == BICYCLE_NEED_MODEL)
		{
			*loads += 1;
			if (!client_load(client, id + (UINT64_C(1) << 62), &models[model], "test"))
				return false;
		}
		else if (client->frame.type != BICYCLE_STARTED)
			return client->frame.id == id && is_expected(client, model);
	}
	return false;
}

/* Several at once, which the device may take together. */
static int
run_many(Client *client, int model, int n)
{
	ImageCall call = translate(&models[model]);
	uint64_t first = next_id;
	int good = 0;

	next_id += (uint64_t) n;
	for (int i = 0; i < n; i++)
	{
		size_t length;
		uint8_t *body = image_call_body(&call, &length);

		client_reserve(client, first + (uint64_t) i, length);
		free(body);
	}
	for (int answers = 0; answers < n && client_receive(client);)
	{
		if (client->frame.type == BICYCLE_GRANT)
		{
			size_t length;
			uint8_t *body = image_call_body(&call, &length);

			client_send(client, call.type, client->frame.id, body, length);
			free(body);
		}
		else if (client->frame.type != BICYCLE_STARTED)
		{
			good += is_expected(client, model);
			answers++;
		}
	}
	return good;
}

static void
set_gpu_memory(uint64_t bytes)
{
	char setting[64];

	snprintf(setting, sizeof(setting), "gpu_memory %llu", (unsigned long long) bytes);
	engine_set(&engine, setting);
}

/* Waits until a limit is kept, which happens a little after it is set. */
static BicycleStatus
settled(Client *client, uint64_t limit)
{
	BicycleStatus status = client_status(client);

	for (int i = 0; i < 1000 && (status.gpu_memory > limit || status.gpu_memory_limit != limit);
		 i++)
	{
		usleep(5000);
		status = client_status(client);
	}
	return status;
}

static BicycleCached
cached_one(Client *client)
{
	BicycleCached cached[8];

	if (client_cache(client, cached, 8) != 1)
		bail_out("not one model is resident");
	return cached[0];
}

/* ---- Tests --------------------------------------------------------------- */

/* What the GPU has to equal, by the CPU. */
static void
make_expected(void)
{
	const char *settings[] = { "device cpu", "threads 1", "max_model_size 100000000", NULL };
	Client client;
	char config[512];

	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	for (int i = 0; i < MODELS; i++)
	{
		ImageCall call;

		snprintf(config, sizeof(config), "{" SMALL ",\"seed\":%d}", i);
		if (!client_create(&client, next_id++, config, &models[i]))
			bail_out("cannot create a model");
		call = translate(&models[i]);
		if (!client_run(&client, next_id++, &call, &models[i]))
			bail_out("cannot run a model");
		expected[i] = gpu_fixture_image(&client);
	}
	if (!client_create(&client, next_id++, "{" LARGE "}", &large))
		bail_out("cannot create a model");
	ok(client_status(&client).gpu_memory_limit == 0, "a CPU has no memory of its own");
	client_close(&client);
	ok(engine_end(&engine), "the engine ends clean");
}

/* Returns what one model takes with its plans for one image. */
static uint64_t
test_alone(Client *client)
{
	BicycleStatus status = client_status(client);
	int loads = 0;
	uint64_t one;

	ok(strstr(status.device, "imitated GPU") && status.gpu_memory_limit == gpu->memory / 8 * 7,
	   "the engine has the GPU (%s)", status.device);
	ok(run(client, 0, &loads) && loads == 1, "its images are the CPU's");
	one = cached_one(client).bytes;
	status = client_status(client);
	ok(status.gpu_memory == gpu->used && status.gpu_memory >= one,
	   "models lie in its memory (%llu bytes)", (unsigned long long) one);
	ok(client_memory_settles(client, one / 2) < one / 2, "and not in the host's (%llu bytes)",
	   (unsigned long long) client_status(client).memory);
	return one;
}

/* Where one has room, each request of another evicts it. */
static void
test_turns(Client *client, uint64_t one)
{
	int good = 0, loads = 0;
	BicycleStatus status;

	set_gpu_memory(one * 3 / 2);
	for (int i = 0; i < 6; i++)
		good += run(client, i % MODELS, &loads);
	status = settled(client, one * 3 / 2);
	cached_one(client);
	ok(good == 6 && loads == 5, "three models take turns where one has room: %d images, %d loads",
	   good, loads);
	ok(status.gpu_memory <= one * 3 / 2 && gpu->used <= one * 3 / 2, "and the limit is kept");
}

typedef struct Session
{
	int model;
	int good;
	int loads;
} Session;

static void *
session_main(void *arg)
{
	Session *session = arg;
	Client client;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < SESSION_RUNS; i++)
		session->good += run(&client, session->model, &session->loads);
	client_close(&client);
	return NULL;
}

/* Models that are wanted at the same time do not starve or block each other. */
static void
test_sessions(void)
{
	Session sessions[MODELS];
	pthread_t threads[MODELS];
	int good = 0;

	for (int i = 0; i < MODELS; i++)
	{
		sessions[i] = (Session){ .model = i };
		pthread_create(&threads[i], NULL, session_main, &sessions[i]);
	}
	for (int i = 0; i < MODELS; i++)
	{
		pthread_join(threads[i], NULL);
		good += sessions[i].good;
	}
	ok(good == MODELS * SESSION_RUNS, "so they do in sessions at the same time: %d images", good);
}

/* Whether the last frame is 53200 with a hint that names the setting. */
static bool
is_out_of_memory(const Client *client)
{
	BicycleError error;
	const char *texts = (const char *) client->body + sizeof(error);

	if (!client_is_error(client, "53200"))
		return false;
	memcpy(&error, client->body, sizeof(error));
	diag("%s: %s %s", texts, texts + error.message_length,
		 texts + error.message_length + error.detail_length);
	return strstr(texts + error.message_length, "bytes") != NULL &&
		   strstr(texts + error.message_length + error.detail_length, "bicycle.gpu_memory") != NULL;
}

/* Whether a model that is sent does not fit: who waits and the LOAD hear it. */
static bool
is_refused(Client *client, const Model *model)
{
	ImageCall call = translate(model);
	uint64_t id = next_id++, load = next_id++;
	bool refused;

	if (!client_call(client, id, &call) || !client_expect(client, BICYCLE_NEED_MODEL, id) ||
		!client_load_send(client, load, model, "test"))
		return false;
	refused = client_expect(client, BICYCLE_ERROR, id) && is_out_of_memory(client);
	return client_expect(client, BICYCLE_ERROR, load) && is_out_of_memory(client) && refused;
}

static void
test_too_large(Client *client)
{
	BicycleCached before = cached_one(client);
	int loads = 0;

	ok(is_refused(client, &large), "a model that is larger than the GPU is 53200");
	ok(memcmp(cached_one(client).hash, before.hash, sizeof(before.hash)) == 0,
	   "and nothing is evicted for it");
	for (int i = 0; i < MODELS; i++)
		ok(run(client, i, &loads), "model %d works on", i);
}

/* Others hold memory of the card: allocations fail below the limit. */
static void
test_others(Client *client, uint64_t one)
{
	size_t card = gpu->memory;
	int loads = 0;

	set_gpu_memory(0);
	settled(client, card / 8 * 7);
	run(client, 0, &loads);
	gpu->memory = one * 3 / 2;
	ok(run(client, 1, &loads) && run(client, 2, &loads),
	   "where others hold most of the card, models take turns as well");
	cached_one(client);
	gpu->memory = one / 2;
	ok(is_refused(client, &models[1]), "where they leave too little for one it is 53200");
	gpu->memory = card;
	ok(run(client, 1, &loads), "and when they are gone all is well");
	gpu->library = one / 2;
	gpu->others = card - 2 * one;
	ok(run(client, 2, &loads) && run(client, 1, &loads),
	   "models take turns as well where the library has no room for its code");
	cached_one(client);
	gpu->others = gpu->library = 0;
}

/*
 * Larger batches get plans of their own where there is room, are cut where not,
 * and their plans go when another model needs the room.
 */
static void
test_batches(Client *client, uint64_t one)
{
	uint64_t planned = one, limit;
	BicycleCached cached[8];
	int loads = 0, good, n;

	set_gpu_memory(one * 9 / 8);
	ok(run(client, 0, &loads), "a model that fills the GPU runs");
	good = run_many(client, 0, MANY);
	ok(good == MANY && cached_one(client).bytes == one && gpu->used <= one * 9 / 8,
	   "and many images of it, one by one: %d", good);
	set_gpu_memory(0);
	for (int i = 0; i < 20 && planned < one * 3 / 2; i++)
	{
		good = run_many(client, 0, MANY);
		planned = cached_one(client).bytes;
	}
	ok(good == MANY && planned >= one * 3 / 2, "with room they run together (%llu bytes)",
	   (unsigned long long) planned);
	limit = one * 2 + one / 4;
	set_gpu_memory(limit > planned ? limit : planned + one / 4);
	ok(run(client, 1, &loads), "another model comes where the plans for many are in its way");
	n = client_cache(client, cached, 8);
	ok(n == 2 && cached[0].bytes == one, "plans have gone, and no model (%d are resident)", n);
	ok(run_many(client, 0, MANY) == MANY && run_many(client, 1, MANY) == MANY, "both serve many");
	set_gpu_memory(one * 5 / 4);
	settled(client, one * 5 / 4);
	ok(gpu->used <= one * 5 / 4 && cached_one(client).bytes == one, "a lower limit evicts one");
	ok(run(client, 0, &loads) && run(client, 1, &loads), "and they take turns again");
	set_gpu_memory(0);
	settled(client, gpu->memory / 8 * 7);
	loads = 0;
	good = 0;
	for (int i = 0; i < 2 * MODELS; i++)
		good += run(client, i % MODELS, &loads);
	ok(good == 2 * MODELS && loads == 2 && client_cache(client, cached, 8) == 3,
	   "a higher one takes effect as well: %d loads", loads);
}

/* Models have next to nothing of the host's memory: none goes for it. */
static void
test_host_memory(Client *client)
{
	BicycleExport export = { .format = "safetensors" };
	BicycleCached cached[8];
	uint64_t load = next_id++;
	Client holder;

	engine_set(&engine, "engine_memory 64000000");
	client_hello(&holder, &engine, 1);
	export.stream_length = (48000000 - client_status(client).memory - models[0].length) / 2;
	client_send(&holder, BICYCLE_EXPORT, 1, &export, sizeof(export));
	if (!client_expect(&holder, BICYCLE_GRANT, 1))
		bail_out("cannot hold memory");
	client_load_head(client, load, &models[0], "test");
	for (int i = 0; i < 20; i++)
	{
		(void) client_status(&holder);
		engine_set(&engine, i % 2 == 0 ? "engine_memory 64000001" : "engine_memory 64000000");
	}
	ok(client_cache(&holder, cached, 8) == MODELS,
	   "a stream that waits for the host's memory evicts no model");
	client_close(&holder);
	ok(client_expect(client, BICYCLE_GRANT, load), "and is granted it when others give it back");
	client_send(client, BICYCLE_CANCEL, load, NULL, 0);
	client_expect(client, BICYCLE_CANCELLED, load);
	engine_set(&engine, "engine_memory 0");
}

/* Whether the card is without more than models have. */
static bool
spare(Client *client)
{
	BicycleCached cached[8];
	uint64_t bytes = 0;
	int n = client_cache(client, cached, 8);

	for (int i = 0; i < n; i++)
		bytes += cached[i].bytes;
	return gpu->used > bytes;
}

static bool
spare_goes(Client *client)
{
	for (int i = 0; i < 1000 && spare(client); i++)
		usleep(10000);
	return !spare(client);
}

/*
 * The plan of a picture of another size goes after it, and its memory is kept
 * for the next one: until somebody asks for it, or nothing runs for some time.
 */
static void
test_trim(Client *client, uint64_t one)
{
	Image image = noise_image(192, 128, 3, 5);
	ImageCall call = translate(&models[0]);
	ImageError image_error;
	uint8_t *bytes;
	int loads = 0;

	if (image_encode_png(&image, &bytes, &call.length, &image_error) != IMAGE_OK)
		bail_out("cannot make an image");
	call.image = bytes;
	call.fit = BICYCLE_FIT_INPUT;
	set_gpu_memory(one * 8);
	run(client, 0, &loads);
	ok(client_run(client, next_id++, &call, &models[0]) && spare(client),
	   "after a picture of another size there is spare memory");
	engine_tell(&engine, "trim");
	ok(spare_goes(client), "which the card gets when it is asked for");
	engine_set(&engine, "gpu_trim 50");
	ok(client_run(client, next_id++, &call, &models[0]) && spare_goes(client),
	   "or when there has been no work for some time");
	ok(run(client, 0, &loads), "and the model works on");
	set_gpu_memory(0);
	image_free(&image);
	free(bytes);
}

/* What was asked before is over, and what was said of it is forgotten. */
static void
forget_words(void)
{
	usleep(50 * 1000);                /* "idle" is due then, if it was not said */
	engine_set(&engine, "threads 2"); /* and said by the turn of this */
	engine_set(&engine, "threads 2");
}

/* The supervisor hears when requests wait for the GPU, and when none do. */
static void
test_busy(Client *client)
{
	int loads = 0;

	forget_words();
	ok(run_many(client, 0, MANY) == MANY && engine_says(&engine, "busy 0", PATIENCE_MS) &&
		   engine_says(&engine, "idle", PATIENCE_MS),
	   "the engine says that requests wait for the GPU, and that none do any more");
	forget_words();
	ok(run(client, 0, &loads) && engine_says(&engine, "busy 0", PATIENCE_MS) &&
		   engine_says(&engine, "idle", PATIENCE_MS),
	   "and again with the next");
}

/* On a GPU without bf16 a model is resident in fp16 alone. */
static void
test_half(void)
{
	const char *settings[] = { "device cuda", "max_model_size 100000000", NULL };
	ImageCall call = translate(&models[0]);
	Client client;
	bool served;

	call.precision = 0;
	gpu->major = 7;
	gpu->minor = 5;
	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	served = client_run(&client, 1, &call, &models[0]) && client_run(&client, 2, &call, NULL);
	ok(served && strcmp(cached_one(&client).precision, "fp16") == 0,
	   "a model in half precision stays");
	client_close(&client);
	ok(engine_end(&engine), "the engine ends clean");
	gpu->major = 9;
	gpu->minor = 0;
}

/*
 * A model that comes while the GPU is to be replaced is packed in the precision
 * of what replaces it.
 */
static void
test_replaced(void)
{
	const char *settings[] = { "device cuda", "threads 2", "max_model_size 100000000", NULL };
	Image image = noise_image(512, 512, 3, 5);
	ImageCall run = translate(&models[0]), call = translate(&models[1]);
	Client client, other;
	ImageError image_error;
	uint8_t *bytes;
	bool late;

	if (image_encode_png(&image, &bytes, &run.length, &image_error) != IMAGE_OK)
		bail_out("cannot make an image");
	run.image = bytes;
	run.precision = call.precision = 0;
	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	client_hello(&other, &engine, 1);
	if (!client_run(&client, 1, &run, &models[0]))
		bail_out("cannot run a model");
	run.fit = BICYCLE_FIT_INPUT;
	client_call(&client, 2, &run);
	client_expect(&client, BICYCLE_STARTED, 2);
	client_call(&other, 1, &call);
	client_expect(&other, BICYCLE_NEED_MODEL, 1);
	engine_set(&engine, "device cpu");
	client_load_send(&other, 2, &models[1], "test");
	for (int i = 0; i < 2; i++)
		engine_set(&engine, "device cpu");
	late = !client_receive_within(&client, 0);
	ok(client_expect(&client, BICYCLE_RESULT, 2) && late,
	   "a model comes while a GPU that is to be replaced runs");
	ok(client_expect(&other, BICYCLE_RESULT, 0) && client_expect(&other, BICYCLE_RESULT, 0) &&
		   strcmp(cached_one(&other).precision, "fp32") == 0,
	   "and is of use on the CPU then");
	client_close(&client);
	client_close(&other);
	image_free(&image);
	free(bytes);
	ok(engine_end(&engine), "the engine ends clean");
}

static BicycleStatus
device_comes(Client *client)
{
	BicycleStatus status = client_status(client);

	for (int i = 0; i < 1000 && !strstr(status.device, "imitated GPU"); i++)
	{
		usleep(10000);
		status = client_status(client);
	}
	return status;
}

/*
 * A GPU that others fill when the engine starts, or that is not there yet, is
 * used when that is over; until then the CPU serves, or with device cuda there
 * is an error.
 */
static void
test_full(void)
{
	const char *settings[] = { "device auto",  "precision fp32",           "threads 2",
							   "gpu_retry 20", "max_model_size 100000000", NULL };
	ImageCall call = translate(&models[0]);
	size_t card = gpu->memory;
	BicycleStatus status;
	Client client;
	int loads = 0;

	for (int i = 0; i < 3; i++)
	{
		gpu->memory = i < 2 ? 100 : card;
		gpu->no_device = i < 2 ? 0 : cudaErrorUnknown;
		settings[0] = i == 1 ? "device cuda" : "device auto";
		engine_start(&engine, settings);
		client_hello(&client, &engine, 1);
		status = client_status(&client);
		if (i != 1)
			ok(run(&client, 0, &loads) && strncmp(status.device, "cpu", 3) == 0 &&
				   strstr(status.device, i == 0 ? "out of GPU memory" : "no usable NVIDIA GPU"),
			   "where %s the CPU serves (%s)", i == 0 ? "others fill the GPU" : "it is not there",
			   status.device);
		else
			ok(!client_run(&client, next_id++, &call, &models[0]) &&
				   client_is_error(&client, "55000"),
			   "or there is an error (%s)", status.device);
		gpu->memory = card;
		gpu->no_device = 0;
		status = device_comes(&client);
		ok(strstr(status.device, "imitated GPU") && run(&client, 0, &loads) &&
			   client_status(&client).gpu_memory > 0,
		   "and the GPU when they have gone (%s)", status.device);
		client_close(&client);
		ok(engine_end(&engine), "the engine ends clean");
	}
}

/*
 * A driver that compiles kernels may take minutes: the supervisor hears each
 * second that the engine lives, and a CPU that serves meanwhile, or has served,
 * is not taken for a device that hangs.
 */
static void
test_slow(void)
{
	const char *settings[] = { "device auto", "threads 2", "stuck_timeout 100", NULL };

	gpu->slow = 1500;
	engine_begin(&engine, settings);
	ok(engine_says(&engine, "opening", PATIENCE_MS) && engine_says(&engine, "opening", 1400) &&
		   engine_says(&engine, "ready cuda:0", PATIENCE_MS),
	   "an engine whose GPU takes long to open says so until it is ready");
	ok(engine_end(&engine), "the engine ends clean");
	settings[0] = "device cpu";
	engine_start(&engine, settings);
	engine_tell(&engine, "set device cuda");
	usleep(700 * 1000);
	engine_tell(&engine, "ping 1");
	ok(engine_says(&engine, "pong 1", 500) &&
		   engine_says(&engine, "device 1 1 cuda:0", PATIENCE_MS),
	   "and one that changes to it is not stuck");
	ok(engine_end(&engine), "the engine ends clean");
	gpu->slow = 0;
}

/*
 * Any call of CUDA fails once, or it and all after it: either the request is
 * served, or its error is 53200, or the engine ends and has not answered.
 */
static void
test_faults(const char *const *settings)
{
	static const long calls[] = { 1, 4, 30, 120, 300, 100000 };
	int served = 0, refused = 0, ended = 0, odd = 0;

	for (size_t i = 0; i < 2 * sizeof(calls) / sizeof(calls[0]); i++)
	{
		ImageCall call = translate(&models[0]);
		Client client;
		bool answered;
		int status;

		engine_start(&engine, settings);
		client_hello(&client, &engine, 1);
		gpu->fail_for_good = (int) (i & 1);
		gpu->fail_in = calls[i / 2];
		answered = client_run(&client, 1, &call, &models[0]) && is_expected(&client, 0);
		if (answered)
			served++;
		else if (client.closed)
			ended++;
		else if (client_is_error(&client, "53200"))
			refused++;
		else
			odd++;
		gpu->fail_in = 0;
		client_close(&client);
		engine_tell(&engine, "stop");
		status = engine_wait(&engine);
		engine_forget(&engine);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != (client.closed && !answered))
		{
			diag("call %ld: status 0x%x", calls[i / 2], (unsigned) status);
			odd++;
		}
		gpu->fail_for_good = 0;
	}
	ok(served > 0 && ended > 3 && odd == 0,
	   "when a call of CUDA fails, %d are served, %d refused, %d times the engine ends", served,
	   refused, ended);
}

int
main(void)
{
	const char *settings[] = { "device cuda",        "precision fp32",
							   "threads 2",          "max_batch 4",
							   "cache_size 1048576", "max_model_size 100000000",
							   "gpu_trim 3600000",   NULL };
	Client client;
	uint64_t one;

	gpu_fixture_begin();
	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	make_expected();
	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	one = test_alone(&client);
	test_turns(&client, one);
	test_sessions();
	test_too_large(&client);
	test_others(&client, one);
	test_batches(&client, one);
	test_host_memory(&client);
	test_trim(&client, one);
	test_busy(&client);
	client_close(&client);
	ok(engine_end(&engine), "the engine ends clean");
	ok(gpu->used == 0, "and has given all memory of the GPU back");
	test_half();
	test_replaced();
	test_full();
	test_slow();
	test_faults(settings);
	gpu_fixture_end();
	for (int i = 0; i < MODELS; i++)
	{
		model_free(&models[i]);
		image_free(&expected[i]);
	}
	model_free(&large);
	free(png);
	return done_testing();
}
