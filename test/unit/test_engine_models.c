/*
 * The engine keeps one copy of a model for all who have shown that they own it,
 * asks one client for it at a time, and evicts what was used longest ago.
 */
#include "engine_client.h"

#define SMALL "\"size\":64,\"levels\":6,\"ngf\":4,\"nef\":4,\"encoder_size\":64,\"init_gain\":0.5"

static EngineProcess engine;
static uint8_t *png;
static size_t png_length;
static float z[8] = { 0.5f, -1, 0.25f, 2, -0.125f, 1, 0, -2 };
static Model models[4]; /* of different seeds */

static ImageCall
translate(const Model *model)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model->hash,
						.image = png,
						.length = png_length,
						.z = z,
						.nz = 8 };
}

/*
 * CREATE makes the same model from the same seed, and reports what is wrong
 * with a configuration.
 */
static void
test_create(void)
{
	Client client;
	Model again = { 0 };
	char config[512];
	BicycleTensor first;
	static const char *const wrong[] = { "",
										 "[]",
										 "{\"ngf\":0}",
										 "{\"nonsense\":1}",
										 "{\"init_type\":\"zeros\"}",
										 "{\"init_gain\":-1}",
										 "{\"init_gain\":\"x\"}",
										 "{\"seed\":\"x\"}",
										 "{\"seed\":1.5}",
										 "{\"ngf\":4,\"ngf\":5}",
										 "{\"size\":100,\"levels\":6}" };
	int refused = 0;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < 4; i++)
	{
		snprintf(config, sizeof(config), "{" SMALL ",\"seed\":%d}", i);
		if (!client_create(&client, 1, config, &models[i]))
			bail_out("cannot create a model");
	}
	snprintf(config, sizeof(config), "{" SMALL ",\"seed\":%d}", 1);
	ok(client_create(&client, 2, config, &again) && again.length == models[1].length &&
		   memcmp(again.stream, models[1].stream, again.length) == 0 &&
		   memcmp(again.hash, models[1].hash, sizeof(again.hash)) == 0,
	   "the same seed gives the same model and hash");
	ok(memcmp(again.hash, models[2].hash, sizeof(again.hash)) != 0,
	   "another seed gives another hash");
	memcpy(&first, again.stream, sizeof(first));
	ok(strcmp(first.network, "G") == 0 && strcmp(first.dtype, "F32") == 0 && first.ndim == 4,
	   "the first tensor is a weight of G (%s %s, %u dimensions)", first.network, first.name,
	   first.ndim);
	ok(strstr(again.config, "seed") == NULL && strstr(again.config, "\"ngf\":4") != NULL,
	   "the configuration that comes back is the networks' (%s)", again.config);
	model_free(&again);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		if (!client_create(&client, 3 + i, wrong[i], &again) && client_is_error(&client, "22023"))
			refused++;
		else
			diag("configuration %s", wrong[i]);
	}
	ok(refused == (int) (sizeof(wrong) / sizeof(wrong[0])), "wrong configurations are 22023");
	ok(!client_create(&client, 90, "{\"ngf\":512,\"nef\":512}", &again) &&
		   client_is_error(&client, "54000"),
	   "a model beyond max_model_size is 54000");
	client_close(&client);
}

/*
 * What is streamed must have the hash it claims; the order of tensors does not
 * matter.
 */
static void
test_hash(void)
{
	Client client;
	Model wrong = models[0];
	uint8_t *copy = malloc(wrong.length);
	BicycleTensor first;
	ImageCall call = translate(&models[0]);
	size_t cut;

	client_hello(&client, &engine, 1);
	memcpy(copy, models[0].stream, wrong.length);
	copy[wrong.length - 1] ^= 1;
	wrong.stream = copy;
	ok(client_load_send(&client, 1, &wrong, "damaged") && client_expect_error(&client, 1, "XX001"),
	   "one wrong bit in a tensor is XX001");

	client_call(&client, 2, &call);
	ok(client_expect(&client, BICYCLE_NEED_MODEL, 2) &&
		   memcmp(client.body, models[0].hash, BICYCLE_HASH_BYTES) == 0,
	   "the model is not resident then");
	client_load_send(&client, 3, &wrong, "damaged");
	ok(client_expect_error(&client, 3, "XX001") || client_is_error(&client, "XX001"),
	   "the client that was asked sends the wrong one: XX001");
	ok(client_expect_error(&client, 0, "XX001"), "and its request fails with the same error");

	wrong.stream = models[0].stream;
	wrong.config = models[0].config;
	wrong.length -= 100;
	ok(client_load_send(&client, 4, &wrong, "short") && client_expect_error(&client, 4, "XX001"),
	   "a stream that ends within a tensor is XX001");
	wrong.length = models[0].length;
	wrong.config = strdup(models[0].config);
	memcpy(strstr(wrong.config, "\"relu\""), "\"elu\" ", 6);
	ok(client_load_send(&client, 5, &wrong, "other") && client_expect_error(&client, 5, "XX001"),
	   "another configuration is XX001");
	free(wrong.config);
	wrong.config = strdup("{\"ngf\":\"many\"}");
	ok(client_load_send(&client, 6, &wrong, "other") && client_expect_error(&client, 6, "22023"),
	   "a configuration that is none is 22023");
	free(wrong.config);

	/* Last tensors first. */
	memcpy(&first, models[0].stream, sizeof(first));
	cut = sizeof(first) + first.nbytes;
	memcpy(copy, models[0].stream + cut, models[0].length - cut);
	memcpy(copy + models[0].length - cut, models[0].stream, cut);
	wrong.stream = copy;
	wrong.config = models[0].config;
	ok(client_load(&client, 7, &wrong, "mixed"), "tensors in another order are the same model");
	ok(client_run(&client, 8, &call, NULL), "which can be used then");
	free(copy);
	client_close(&client);
}

/* A database that has not shown a resident model's content cannot use it. */
static void
test_databases(void)
{
	Client a, b;
	Model wrong = models[0];
	ImageCall call = translate(&models[0]);
	BicycleCached cached[4];

	client_hello(&a, &engine, 1);
	client_hello(&b, &engine, 2);
	ok(client_run(&a, 1, &call, NULL), "database 1 has shown the model");
	ok(client_call(&b, 1, &call) && client_expect(&b, BICYCLE_NEED_MODEL, 1),
	   "database 2 is asked for it although it is resident");
	ok(client_cache(&b, cached, 4) == 1 && cached[0].model[0] == '\0' && cached[0].databases == 1,
	   "and does not learn its name");
	wrong.length -= 4;
	client_load_send(&b, 2, &wrong, "guess");
	ok(client_expect_error(&b, 0, "XX001") && client_expect_error(&b, 0, "XX001"),
	   "knowing the hash is not enough");
	ok(client_run(&b, 3, &call, &models[0]), "who has the content may use it");
	ok(client_cache(&b, cached, 4) == 1 && strcmp(cached[0].model, "test") == 0 &&
		   cached[0].databases == 2,
	   "one copy serves both");
	ok(client_cache(&a, cached, 4) == 1 && strcmp(cached[0].model, "mixed") == 0 &&
		   cached[0].version == 1 && cached[0].hits == 3 && cached[0].pins == 0 &&
		   memcmp(cached[0].hash, models[0].hash, BICYCLE_HASH_BYTES) == 0 &&
		   strcmp(cached[0].precision, "fp32") == 0,
	   "each knows it by its own name (%s, %llu hits)", cached[0].model,
	   (unsigned long long) cached[0].hits);
	client_close(&a);
	client_close(&b);
}

/* However many wait for a model, one is asked; if that one goes, the next. */
static void
test_single_flight(void)
{
	enum
	{
		N = 6
	};
	Client clients[N];
	ImageCall call = translate(&models[1]);
	BicycleError error = {
		.sqlstate = "42501", .message_length = 3, .detail_length = 1, .hint_length = 1
	};
	uint8_t refusal[sizeof(error) + 5] = { 0 };
	int asked = 0;
	int served = 0;

	memcpy(refusal, &error, sizeof(error));
	memcpy(refusal + sizeof(error), "no", 2);
	for (int i = 0; i < N; i++)
	{
		client_hello(&clients[i], &engine, 1);
		client_call(&clients[i], 1, &call);
		if (i == 0)
			ok(client_expect(&clients[0], BICYCLE_NEED_MODEL, 1), "the first is asked");
		while (client_status(&clients[0]).queued <= (uint64_t) i)
			usleep(1000); /* it has come */
	}
	for (int i = 1; i < N; i++)
		asked += client_receive_within(&clients[i], 50);
	ok(asked == 0, "the others are not");
	client_close(&clients[0]);
	ok(client_expect(&clients[1], BICYCLE_NEED_MODEL, 1), "it goes away: the second is asked");
	client_send(&clients[1], BICYCLE_CANCEL, 1, NULL, 0);
	ok(client_expect(&clients[1], BICYCLE_CANCELLED, 1), "it cancels");
	ok(client_expect(&clients[2], BICYCLE_NEED_MODEL, 1), "the third is asked");
	client_send(&clients[2], BICYCLE_NO_MODEL, 1, refusal, sizeof(refusal));
	ok(client_expect_error(&clients[2], 1, "42501"),
	   "it cannot, and its request fails with its own error");
	ok(client_expect(&clients[3], BICYCLE_NEED_MODEL, 1), "the fourth is asked");
	client_load_head(&clients[3], 2, &models[1], "half");
	client_expect(&clients[3], BICYCLE_GRANT, 2);
	client_send(&clients[3], BICYCLE_DATA, 2, models[1].stream, models[1].length / 2);
	ok(!client_receive_within(&clients[4], 100), "while it sends nobody else is asked");
	client_close(&clients[3]);
	ok(client_expect(&clients[4], BICYCLE_NEED_MODEL, 1),
	   "it goes away in the middle: the fifth is asked");
	ok(client_expect(&clients[5], BICYCLE_NEED_MODEL, 1),
	   "it does nothing for long: so is the sixth");
	ok(client_load(&clients[5], 2, &models[1], "whole"), "which sends the model");
	for (int i = 4; i < N; i++)
		served += client_expect(&clients[i], BICYCLE_RESULT, 1);
	ok(served == 2, "and both are served");
	ok(client_load(&clients[4], 2, &models[1], "late"), "the model may still come from the fifth");
	client_send(&clients[4], BICYCLE_NO_MODEL, 1, refusal, sizeof(refusal));
	ok(client_status(&clients[4]).queued == 0, "and a refusal that comes too late does no harm");
	for (int i = 0; i < N; i++)
		client_close(&clients[i]);
}

/* A tensor stream comes out as a file and comes back as the same model. */
static void
test_files(const char *format)
{
	Client client;
	BicycleExport export = { 0 };
	BicycleImport inspect = { 0 };
	BicycleInspected inspected = { 0 };
	Model again = { 0 };
	BicycleTensor tensor;
	uint8_t *files[2];
	size_t lengths[2];
	size_t generator = 0;
	uint64_t file_length = 0;
	uint8_t *list;
	size_t list_length;

	client_hello(&client, &engine, 1);
	while (generator < models[2].length)
	{
		memcpy(&tensor, models[2].stream + generator, sizeof(tensor));
		if (strcmp(tensor.network, "G") != 0)
			break;
		generator += sizeof(tensor) + tensor.nbytes;
	}
	strcpy(export.format, format);
	for (int i = 0; i < 2; i++)
	{
		const uint8_t *stream = models[2].stream + (i == 0 ? 0 : generator);

		export.stream_length = i == 0 ? generator : models[2].length - generator;
		client_send(&client, BICYCLE_EXPORT, 1, &export, sizeof(export));
		client_expect(&client, BICYCLE_GRANT, 1);
		client_send_stream(&client, 1, stream, export.stream_length);
		client_expect(&client, BICYCLE_RESULT, 1);
		memcpy(&file_length, client.body, sizeof(file_length));
		files[i] = client_stream(&client, 1, &lengths[i]);
	}
	ok(file_length == lengths[1] && lengths[0] > generator / 2,
	   "%s: two networks are exported (%zu and %zu bytes)", format, lengths[0], lengths[1]);

	inspect.generator_length = lengths[0];
	client_send(&client, BICYCLE_INSPECT, 2, &inspect, sizeof(inspect));
	client_expect(&client, BICYCLE_GRANT, 2);
	client_send_stream(&client, 2, files[0], lengths[0]);
	client_expect(&client, BICYCLE_RESULT, 2);
	memcpy(&inspected, client.body, sizeof(inspected));
	list = client_stream(&client, 2, &list_length);
	memcpy(&tensor, list, sizeof(tensor));
	ok(inspected.ntensors > 10 && list_length == inspected.ntensors * sizeof(BicycleTensor) &&
		   tensor.ndim > 0 && tensor.name[0] != '\0',
	   "%s: the file is inspected (%u tensors)", format, inspected.ntensors);
	free(list);

	ok(client_import(&client, 3, models[2].config, files[0], lengths[0], files[1], lengths[1],
					 &again),
	   "%s: both are imported", format);
	ok(memcmp(again.hash, models[2].hash, sizeof(again.hash)) == 0 &&
		   again.length == models[2].length &&
		   memcmp(again.stream, models[2].stream, again.length) == 0,
	   "%s: and are the same model", format);
	model_free(&again);
	ok(!client_import(&client, 4, "{}", files[1], lengths[1], files[0], lengths[0], &again) &&
		   client_is_error(&client, "22023"),
	   "%s: the files in the wrong order are 22023", format);
	ok(!client_import(&client, 5, "{}", files[0], lengths[0] / 2, NULL, 0, &again) &&
		   client_is_error(&client, "22P03"),
	   "%s: half a file is 22P03", format);
	strcpy(export.format, "gif");
	client_send(&client, BICYCLE_EXPORT, 6, &export, sizeof(export));
	ok(client_expect_error(&client, 6, "22023"), "an unknown format is 22023");
	for (int i = 0; i < 2; i++)
		free(files[i]);
	client_close(&client);
}

/* What a request needs of its model is checked when the model is known. */
static void
test_mismatches(void)
{
	Client client;
	Model without = { 0 };
	ImageCall call = translate(&models[1]);

	client_hello(&client, &engine, 1);
	call.nz = 7;
	ok(!client_run(&client, 1, &call, &models[1]) && client_is_error(&client, "22023"),
	   "a latent code of wrong length is 22023");
	call.nz = 8;
	z[3] = 1.0f / 0.0f;
	ok(!client_run(&client, 2, &call, &models[1]) && client_is_error(&client, "22023"),
	   "an infinite latent code is 22023");
	z[3] = 2;
	if (!client_create(&client, 3,
					   "{\"size\":64,\"levels\":6,\"ngf\":4,\"net_e\":\"none\",\"encoder_size\":0}",
					   &without))
		bail_out("cannot create a model without encoder");
	call = (ImageCall){
		.type = BICYCLE_ENCODE, .hash = without.hash, .image = png, .length = png_length
	};
	ok(!client_run(&client, 4, &call, &without) && client_is_error(&client, "55000"),
	   "encoding without encoder is 55000");
	call.hash = models[1].hash;
	ok(client_run(&client, 5, &call, &models[1]) && client.frame.length == 2 * 8 * sizeof(float),
	   "encoding gives mean and log variance");
	call = translate(&models[1]);
	call.precision = 2;
	ok(client_run(&client, 6, &call, &models[1]) || client_is_error(&client, "55000"),
	   "another precision is packed besides, or refused");
	model_free(&without);
	client_close(&client);
}

/*
 * With room for two models the third takes the place of the one used longest
 * ago; with room for one, two take turns; what is larger is refused.
 */
static void
test_eviction(void)
{
	EngineProcess small;
	Client client;
	BicycleCached cached[8];
	char size[64];
	const char *settings[] = { "device ref", size, NULL };
	ImageCall call;
	uint64_t id = 1;
	int n, served = 0;

	/* What one of them takes with its arenas, for a batch of one. */
	strcpy(size, "cache_size 0");
	engine_start(&small, settings);
	client_hello(&client, &small, 1);
	call = translate(&models[0]);
	if (!client_run(&client, id++, &call, &models[0]) || client_cache(&client, cached, 8) != 1)
		bail_out("cannot run a model");
	client_close(&client);
	ok(engine_end(&small), "an engine with a model ends clean");

	snprintf(size, sizeof(size), "cache_size %llu", (unsigned long long) cached[0].bytes * 5 / 2);
	engine_start(&small, settings);
	client_hello(&client, &small, 1);
	for (int i = 0; i < 2; i++)
	{
		call = translate(&models[i]);
		client_run(&client, id++, &call, &models[i]);
	}
	call = translate(&models[0]);
	ok(client_run(&client, id++, &call, NULL) && client_cache(&client, cached, 8) == 2,
	   "two models are resident, the first used last");
	call = translate(&models[2]);
	ok(client_run(&client, id++, &call, &models[2]), "a third one comes");
	n = client_cache(&client, cached, 8);
	ok(n == 2 && memcmp(cached[0].hash, models[0].hash, BICYCLE_HASH_BYTES) == 0 &&
		   memcmp(cached[1].hash, models[2].hash, BICYCLE_HASH_BYTES) == 0,
	   "and the second has gone");
	call = translate(&models[1]);
	client_call(&client, id, &call);
	ok(client_expect(&client, BICYCLE_NEED_MODEL, id), "it is asked for when it is wanted again");
	client_send(&client, BICYCLE_CANCEL, id, NULL, 0);
	client_expect(&client, BICYCLE_CANCELLED, id++);

	snprintf(size, sizeof(size), "cache_size %llu", (unsigned long long) cached[0].bytes * 3 / 2);
	engine_set(&small, size);
	for (int i = 0; i < 20; i++)
	{
		call = translate(&models[i % 2]);
		served += client_run(&client, id++, &call, &models[i % 2]);
	}
	ok(served == 20 && client_cache(&client, cached, 8) == 1,
	   "two models take turns where one has room");

	snprintf(size, sizeof(size), "cache_size %llu", (unsigned long long) models[3].length / 2);
	engine_set(&small, size);
	call = translate(&models[3]);
	ok(!client_run(&client, id++, &call, &models[3]) && client_is_error(&client, "53200"),
	   "a model larger than the cache is 53200");
	client_close(&client);
	ok(engine_end(&small), "the engine ends clean");
}

/*
 * A device that is not there refuses what needs it, and says so; another one
 * takes over without a restart.
 */
static void
test_device(void)
{
	EngineProcess other;
	Client client;
	const char *settings[] = { "device cuda:99", NULL };
	ImageCall call = translate(&models[0]);
	ImageCall info = { .type = BICYCLE_INFO, .image = png, .length = png_length };
	BicycleCached cached;
	uint64_t id = 1;
	bool served = false;

	engine_start(&other, settings);
	client_hello(&client, &other, 1);
	ok(strstr(client_status(&client).device, "missing") != NULL, "a missing device is named so");
	ok(!client_run(&client, id++, &call, &models[0]) && client_is_error(&client, "55000"),
	   "what needs it is 55000");
	ok(client_run(&client, id++, &info, NULL), "what does not need it is served");
	engine_tell(&other, "set device ref");
	ok(engine_says(&other, "log log device is now", PATIENCE_MS), "the device is changed");
	ok(client_run(&client, id++, &call, &models[0]), "and models run on it");
	engine_set(&other, "threads 1");
	engine_set(&other, "device ref");
	ok(client_cache(&client, &cached, 1) == 1, "a setting that comes again changes nothing");
	engine_tell(&other, "set device cpu");
	ok(engine_says(&other, "log log device is now", PATIENCE_MS), "it is changed again");
	served = client_run(&client, id++, &call, &models[0]);
	ok(served, "with a model that was resident on the other");
	client_close(&client);
	ok(engine_end(&other), "the engine ends clean");
}

int
main(void)
{
	const char *settings[] = { "device ref", "queue_memory 1048576", "threads 2",
							   "max_model_size 100000000", NULL };
	Client client;
	BicycleCached cached[8];
	uint64_t memory;

	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	engine_start(&engine, settings);
	test_create();
	test_hash();
	test_databases();
	test_single_flight();
	test_files("safetensors");
	test_files("pth");
	test_mismatches();
	client_hello(&client, &engine, 1);
	engine_set(&engine, "cache_size 1");
	/*
	 * The last one stays: it may have grown beyond the cache by its own arenas,
	 * and would come back at once.
	 */
	ok(client_cache(&client, cached, 8) == 1, "a smaller cache lets models go");
	memory = client_memory_settles(&client, cached[0].bytes);
	ok(memory == cached[0].bytes, "and all their memory with them (%llu bytes are held)",
	   (unsigned long long) memory);
	client_close(&client);
	ok(engine_end(&engine), "the engine ends clean");
	test_eviction();
	test_device();
	for (int i = 0; i < 4; i++)
		model_free(&models[i]);
	free(png);
	return done_testing();
}
