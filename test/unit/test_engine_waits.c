/*
 * Who waits gets what it waits for: another device comes only when no request
 * has a model of the old one, and comes although there is always something
 * light to do; a model whose stream waits for memory is not asked for again;
 * and a model whose clients do not read does not keep others out. What waits to
 * be read is counted, and no more than that. An image waits for the memory of
 * its plan while streams hold that, and streams for the images ahead of them.
 */
#include "engine_client.h"

#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "image_fixture.h"

#define CHECKS 32 /* open at once */
#define LARGE 512 /* pixels of a side of the image, which is otherwise made 64 */

static EngineProcess engine;
static Model models[2];
static float z[8];
static uint8_t *png; /* small in the model's size, long at its own */
static size_t png_length;
static uint64_t next_id = 1;

static ImageCall
translate(const Model *model, uint32_t fit, uint32_t flags)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model->hash,
						.image = png,
						.length = png_length,
						.z = z,
						.nz = 8,
						.flags = flags,
						.fit = fit };
}

static uint8_t *
make_png(int side, size_t *length)
{
	Image image = { side, side, 3, malloc((size_t) side * (size_t) side * 3) };
	ImageError error;
	uint8_t *file;

	for (int i = 0; i < side * side * 3; i++)
		image.pixels[i] = (uint8_t) (i / side);
	if (image_encode_png(&image, &file, length, &error) != IMAGE_OK)
		bail_out("cannot make an image");
	image_free(&image);
	return file;
}

static void
make_models(void)
{
	Client client;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < 2; i++)
	{
		char config[128];

		snprintf(config, sizeof(config),
				 "{\"size\":64,\"levels\":6,\"ngf\":4,\"nef\":1,\"encoder_size\":64,\"seed\":%d}",
				 i);
		if (!client_create(&client, next_id++, config, &models[i]))
			bail_out("cannot create a model");
	}
	client_close(&client);
}

/* Whatever was sent has come, and a turn has ended since. */
static void
let_turns_pass(Client *client)
{
	for (int i = 0; i < 2; i++)
		(void) client_status(client);
}

/* ---- Devices ------------------------------------------------------------- */

/* It has its model while it waits for the other to end. */
static void
test_alone(void)
{
	Client client, alone;
	ImageCall one = translate(&models[0], BICYCLE_FIT_INPUT, 0);
	ImageCall other = translate(&models[0], BICYCLE_FIT_SQUARE, BICYCLE_FLAG_ALONE);
	bool good;

	client_hello(&client, &engine, 1);
	client_hello(&alone, &engine, 1);
	if (!client_run(&alone, next_id++, &other, &models[0]))
		bail_out("cannot translate");
	client_call(&client, next_id++, &one);
	client_expect(&client, BICYCLE_STARTED, next_id - 1);
	client_call(&alone, next_id++, &other);
	let_turns_pass(&alone);
	engine_set(&engine, "device cpu");
	ok(!client_receive_within(&client, 0), "the device is to be replaced while an image runs");
	good = client_expect(&client, BICYCLE_RESULT, next_id - 2);
	ok(client_expect(&alone, BICYCLE_RESULT, next_id - 1) && good,
	   "that one ends, and the one that waited to run alone");
	ok(engine_says(&engine, "log log device is now cpu", PATIENCE_MS), "then comes the device");
	ok(client_run(&alone, next_id++, &other, &models[0]), "and runs models");
	client_close(&client);
	client_close(&alone);
}

static atomic_bool enough;

/* Many CHECKs are open until there were enough. */
static void *
check_main(void *checked)
{
	ImageCall check = { .type = BICYCLE_CHECK, .image = png, .length = png_length };
	size_t length;
	uint8_t *body = image_call_body(&check, &length);
	Client client;
	uint64_t sent = 0, answered = 0;

	client_hello(&client, &engine, 1);
	do
	{
		while (sent < answered + CHECKS && !atomic_load(&enough))
		{
			client_reserve(&client, ++sent, length);
			client_send(&client, check.type, sent, body, length);
		}
		while (client_receive(&client) && client.frame.type != BICYCLE_RESULT)
			;
		atomic_store((atomic_ulong *) checked, ++answered);
	} while (answered < sent && !client.closed);
	client_close(&client);
	free(body);
	return NULL;
}

static void
test_light(void)
{
	ImageCall call = translate(&models[0], BICYCLE_FIT_SQUARE, 0);
	atomic_ulong checked = 0;
	unsigned long before;
	pthread_t thread;
	Client client;
	bool served;

	client_hello(&client, &engine, 1);
	pthread_create(&thread, NULL, check_main, &checked);
	while (atomic_load(&checked) < CHECKS)
		usleep(1000);
	engine_tell(&engine, "set device ref");
	served = client_run(&client, next_id++, &call, &models[0]);
	before = atomic_load(&checked);
	while (served && atomic_load(&checked) == before)
		usleep(1000);
	atomic_store(&enough, true);
	pthread_join(thread, NULL);
	ok(served && engine_says(&engine, "log log device is now", PATIENCE_MS),
	   "a device is replaced while images are checked all the time, and serves");
	client_close(&client);
}

/* ---- Memory -------------------------------------------------------------- */

#define REQUEST_BYTES 8192 /* of a request, besides what comes; at most */
#define MEMORY 72000000    /* three quarters of engine_memory */

/* What the engine holds, once that of others who have gone is back. */
static uint64_t
settled_memory(Client *client)
{
	uint64_t before, memory = client_status(client).memory;

	do
	{
		before = memory;
		usleep(20000);
		memory = client_status(client).memory;
	} while (memory != before);
	return memory;
}

/*
 * Takes what is free, but for `less`, until it is closed. queue: bytes of
 * requests, which are counted elsewhere.
 */
static void
hold_memory(Client *client, const EngineProcess *of, uint64_t less, uint64_t queue)
{
	BicycleExport export = { .format = "safetensors" };

	client_hello(client, of, 1);
	export.stream_length = (MEMORY + queue - settled_memory(client) - less) / 2;
	client_send(client, BICYCLE_EXPORT, 1, &export, sizeof(export));
	if (!client_expect(client, BICYCLE_GRANT, 1))
		bail_out("cannot hold memory");
}

static void
test_asked_once(void)
{
	ImageCall call = translate(&models[1], BICYCLE_FIT_SQUARE, 0);
	Client holder, clients[2];
	int served = 0;

	engine_tell(&engine, "set device cpu"); /* and no models */
	ok(engine_says(&engine, "log log device is now cpu", PATIENCE_MS), "another device");
	hold_memory(&holder, &engine, models[1].length, 0);
	for (int i = 0; i < 2; i++)
		client_hello(&clients[i], &engine, 1);
	client_call(&clients[0], 1, &call);
	ok(client_expect(&clients[0], BICYCLE_NEED_MODEL, 1), "one of two is asked for a model");
	client_load_head(&clients[0], 2, &models[1], "waits");
	client_call(&clients[1], 1, &call);
	ok(!client_receive_within(&clients[1], 2600),
	   "the other is not, for all the time that the stream waits for memory");
	client_close(&holder);
	client_expect(&clients[0], BICYCLE_GRANT, 2);
	client_send_stream(&clients[0], 2, models[1].stream, models[1].length);
	for (int i = 0; i < 3; i++)
		served += client_expect(&clients[i / 2], BICYCLE_RESULT, 0);
	ok(served == 3, "then it is granted, and both are served");
	for (int i = 0; i < 2; i++)
		client_close(&clients[i]);
}

/* What the model's plan for one image of that size takes. */
static size_t
plan_bytes(const Model *model, int side)
{
	NnDevice *device;
	NnModel *local;
	TensorStream stream;
	NnConfig config;
	NnError error;
	EngineError engine_error;
	size_t bytes;

	nn_config_default(&config);
	if (nn_device_open("ref", 1, &device, &error) != NN_OK ||
		!stream_parse(model->stream, model->length, &stream, &engine_error) ||
		nn_config_parse(&config, model->config, strlen(model->config), &error) != NN_OK ||
		nn_model_load(device, &config, NN_PRECISION_FP32, stream.tensors, stream.ntensors, &local,
					  &error) != NN_OK)
		bail_out("cannot load a model");
	stream_free(&stream);
	bytes = nn_model_image_bytes(local, (NnExtent){ side, side }, &error);
	nn_model_free(local);
	nn_device_close(device);
	return bytes;
}

/* A granted stream leaves too little for the first plan of a model. */
static void
test_first_plan(void)
{
	ImageCall call = translate(&models[0], BICYCLE_FIT_SQUARE, 0);
	size_t work = 65536 + 64 * 64 * 9;
	Client client, holder;

	engine_tell(&engine, "set device ref");
	ok(engine_says(&engine, "log log device is now", PATIENCE_MS), "another device");
	client_hello(&client, &engine, 1);
	if (!client_load(&client, 1, &models[0], "first"))
		bail_out("cannot load a model");
	hold_memory(&holder, &engine, work + plan_bytes(&models[0], 64) / 2, 0);
	client_call(&client, 2, &call);
	client_expect(&client, BICYCLE_STARTED, 2);
	ok(!client_receive_within(&client, 300),
	   "an image waits for a stream that is in its plan's way");
	client_close(&holder);
	ok(client_expect(&client, BICYCLE_RESULT, 2), "and is made when that is over");
	client_close(&client);
}

/*
 * While one image runs another one waits for it, and a stream for both: there
 * would be room for it when the first has ended, but not for the plan of the
 * other.
 */
static void
test_plan_ahead(void)
{
	size_t plan = plan_bytes(&models[0], LARGE), work = 65536 + LARGE * LARGE * 9;
	BicycleExport export = { .format = "safetensors" };
	ImageCall calls[2] = { translate(&models[0], BICYCLE_FIT_INPUT, 0),
						   translate(&models[1], BICYCLE_FIT_INPUT, 0) };
	Client clients[2], stream, holder;
	uint64_t held;
	int served = 0;

	for (int i = 0; i < 2; i++)
	{
		client_hello(&clients[i], &engine, 1);
		if (!client_load(&clients[i], 1, &models[i], "ahead"))
			bail_out("cannot load a model");
	}
	client_hello(&stream, &engine, 1);
	hold_memory(&holder, &engine, plan + 3 * work, 0);
	held = client_status(&holder).memory;
	for (int i = 0; i < 2; i++)
	{
		client_call(&clients[i], 2, &calls[i]);
		client_expect(&clients[i], BICYCLE_STARTED, 2);
	}
	/* the first runs */
	for (int i = 0; i < 10000 && client_status(&stream).memory < held + plan; i++)
		usleep(100);
	export.stream_length = (plan / 2 + 2 * work) / 2;
	client_send(&stream, BICYCLE_EXPORT, 1, &export, sizeof(export));
	for (int i = 0; i < 2; i++)
		served += client_expect(&clients[i], BICYCLE_RESULT, 2);
	ok(served == 2, "images have the room of their plans, whatever is asked for meanwhile");
	ok(client_expect(&stream, BICYCLE_GRANT, 1), "then what was asked for is granted");
	for (int i = 0; i < 2; i++)
		client_close(&clients[i]);
	client_close(&stream);
	client_close(&holder);
}

/* Of a model that waits for a client that does not read. */
typedef struct Unread
{
	EngineProcess engine;
	Client deaf, holder, other;
} Unread;

/* An answer that does not fit in its socket; returns the request's bytes. */
static uint64_t
do_not_read(Client *client, uint64_t id)
{
	Image image = noise_image(1000, 1000, 3, 1);
	ImageCall call = { .type = BICYCLE_MATCH };
	uint8_t *bytes;
	ImageError error;

	if (image_encode_png(&image, &bytes, &call.length, &error) != IMAGE_OK)
		bail_out("cannot make an image");
	call.image = call.second = bytes;
	call.second_length = call.length;
	if (!client_call(client, id, &call))
		bail_out("cannot send an image");
	image_free(&image);
	free(bytes);
	return sizeof(BicycleImageRequest) + call.length + call.second_length;
}

/* Memory that is counted for what one client does not read. */
static void
test_counted(void)
{
	enum
	{
		N = 16
	};
	ImageCall call = translate(&models[0], BICYCLE_FIT_INPUT, 0);
	uint64_t before, done, held, answers = 0, read = 0, queue, waiting;
	BicycleCached cached[4] = { 0 };
	Client deaf, other, holder;

	client_hello(&deaf, &engine, 1);
	client_hello(&other, &engine, 1);
	before = client_status(&other).memory;
	done = client_status(&other).requests;
	queue = do_not_read(&deaf, 1);
	if (!client_sees_done(&other, done + 1))
		bail_out("an answer that is not read is never done");
	held = client_status(&other).memory - before - queue;
	client_expect(&deaf, BICYCLE_RESULT, 1);
	ok(held >= deaf.frame.length && held < deaf.frame.length + REQUEST_BYTES,
	   "an answer that is not read is counted: %llu bytes of %u", (unsigned long long) held,
	   deaf.frame.length);

	client_run(&deaf, 2, &call, &models[0]);
	done = client_status(&other).requests;
	queue = N * (sizeof(BicycleImageRequest) + call.length + sizeof(z) + REQUEST_BYTES);
	/* None starts before all have come: later ones would not, see outbox.c. */
	hold_memory(&holder, &engine, 0, 0);
	waiting = client_status(&other).queued;
	for (uint64_t id = 3; id < 3 + N; id++)
		client_call(&deaf, id, &call);
	for (int i = 0; i < PATIENCE_MS && client_status(&other).queued < waiting + N; i++)
		usleep(1000);
	client_close(&holder);
	if (!client_sees_done(&other, done + N))
		bail_out("images whose answers are not read are never done");
	held = client_status(&other).memory;
	for (int i = 0, n = client_cache(&other, cached, 4); i < n; i++)
		held -= cached[i].bytes;
	for (int i = 0; i < N; i++, answers += deaf.frame.length)
		read += client_expect(&deaf, BICYCLE_RESULT, 0);
	ok(read == N && held <= queue + answers,
	   "of images only the answers are: %llu bytes of %llu, and %llu of the requests",
	   (unsigned long long) held, (unsigned long long) answers, (unsigned long long) queue);
	client_close(&deaf);
	client_close(&other);
}

/* Files are counted where they are written, with the pixels. */
static void
test_written(void)
{
	ImageCall calls[2] = {
		{ .type = BICYCLE_MATCH, .image = png, .length = png_length },
		{ .type = BICYCLE_HALVES },
	};
	size_t length;
	uint8_t *large = make_png(1600, &length);
	Client client;
	int refused = 0;

	calls[0].second = calls[1].image = large;
	calls[0].second_length = calls[1].length = length;
	client_hello(&client, &engine, 1);
	for (uint64_t i = 0; i < 2; i++)
		refused +=
			!client_run(&client, 1 + i, &calls[i], NULL) && client_is_error(&client, "53200");
	ok(refused == 2, "pixels fit in what decoders may take, and not with the file made of them");
	client_close(&client);
	free(large);
}

static void
begin_unread(Unread *unread, const char *const *settings)
{
	ImageCall call = translate(&models[0], BICYCLE_FIT_SQUARE, 0);
	uint64_t done, queue;

	engine_start(&unread->engine, settings);
	client_hello(&unread->deaf, &unread->engine, 1);
	client_hello(&unread->other, &unread->engine, 1);
	client_call(&unread->deaf, 1, &call);
	client_expect(&unread->deaf, BICYCLE_NEED_MODEL, 1);
	done = client_status(&unread->other).requests;
	queue = do_not_read(&unread->deaf, 2) + sizeof(BicycleImageRequest) + call.length + sizeof(z);
	if (!client_sees_done(&unread->other, done + 1))
		bail_out("an answer that is not read is never done");
	if (!client_load(&unread->other, 1, &models[0], "unread"))
		bail_out("cannot load a model");
	hold_memory(&unread->holder, &unread->engine, models[1].length * 5 / 2, queue);
	client_load_head(&unread->other, 2, &models[1], "waits");
}

static void
end_unread(Unread *unread)
{
	ok(client_expect(&unread->other, BICYCLE_GRANT, 2),
	   "a model whose client does not read makes room for another after its time");
	client_close(&unread->deaf);
	client_close(&unread->holder);
	client_close(&unread->other);
	ok(engine_end(&unread->engine), "the engine ends clean");
}

int
main(void)
{
	const char *settings[] = { "device ref",
							   "threads 2",
							   "engine_memory 96000000",
							   "cache_size 4000000",
							   "max_model_size 100000000",
							   NULL };
	Unread unread;

	png = make_png(LARGE, &png_length);
	engine_start(&engine, settings);
	make_models();
	begin_unread(&unread, settings); /* which takes ten seconds */
	test_alone();
	test_light();
	test_asked_once();
	test_counted();
	test_written();
	test_first_plan();
	test_plan_ahead();
	ok(engine_end(&engine), "the engine ends clean");
	end_unread(&unread);
	for (int i = 0; i < 2; i++)
		model_free(&models[i]);
	free(png);
	return done_testing();
}
