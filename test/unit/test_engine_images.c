/*
 * Images go through the engine as through the official code, alone or in
 * company with the same bytes, and one that kills it takes no other with it.
 */
#include "engine_client.h"

#include <jansson.h>
#include <math.h>

#include "image/image.h"

#define PAIRS 3

static EngineProcess engine;
static Model emoji;

/* What the official code made of the first pairs. */
typedef struct Expected
{
	uint8_t *a, *b; /* the pair's files */
	size_t a_length, b_length;
	Image image;
	float z[8];
	float mu[8], logvar[8];
} Expected;

static Expected expected[PAIRS];

static void
read_floats(const json_t *object, const char *key, float *to)
{
	for (size_t i = 0; i < 8; i++)
		to[i] = (float) json_number_value(json_array_get(json_object_get(object, key), i));
}

static void
decode(const uint8_t *bytes, size_t length, Image *image)
{
	ImageLimits limits = { .max_pixels = 1 << 20, .max_memory = 1 << 26 };
	ImageError error;

	if (image_decode(bytes, length, 3, 0, &limits, image, &error) != IMAGE_OK)
		bail_out("cannot decode an image: %s", error.message);
}

static void
read_expected(void)
{
	json_t *all = json_load_file(testdata_path("edges2emoji/expected.json"), 0, NULL);

	for (int i = 0; i < PAIRS; i++)
	{
		json_t *one = json_array_get(all, (size_t) i);
		int pair = (int) json_integer_value(json_object_get(one, "pair"));
		char name[64];
		uint8_t *png;
		size_t length;

		snprintf(name, sizeof(name), "edges2emoji/pairs/%02d_A.png", pair);
		expected[i].a = testdata_load(name, &expected[i].a_length);
		snprintf(name, sizeof(name), "edges2emoji/pairs/%02d_B.png", pair);
		expected[i].b = testdata_load(name, &expected[i].b_length);
		snprintf(name, sizeof(name), "edges2emoji/expected_%02d.png", i);
		png = testdata_load(name, &length);
		decode(png, length, &expected[i].image);
		free(png);
		read_floats(one, "z", expected[i].z);
		read_floats(one, "mu", expected[i].mu);
		read_floats(one, "logvar", expected[i].logvar);
	}
	json_decref(all);
}

static ImageCall
translate(int i)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = emoji.hash,
						.image = expected[i].a,
						.length = expected[i].a_length,
						.z = expected[i].z,
						.nz = 8 };
}

static int
largest_difference(const Image *a, const Image *b)
{
	int most = 0;

	if (a->width != b->width || a->height != b->height || a->channels != b->channels)
		return 256;
	for (size_t i = 0; i < (size_t) a->width * (size_t) a->height * (size_t) a->channels; i++)
		if (abs(a->pixels[i] - b->pixels[i]) > most)
			most = abs(a->pixels[i] - b->pixels[i]);
	return most;
}

/* Official files, imported, give what the official code gave. */
static void
test_official(void)
{
	Client client;
	size_t g_length, e_length;
	uint8_t *g = testdata_load("edges2emoji/G.pth", &g_length);
	uint8_t *e = testdata_load("edges2emoji/E.pth", &e_length);

	client_hello(&client, &engine, 1);
	ok(client_import(&client, 1, "{}", g, g_length, e, e_length, &emoji),
	   "the official model is imported");
	for (int i = 0; i < PAIRS; i++)
	{
		ImageCall call = translate(i);
		Image image;
		int difference;
		float values[16];
		float most = 0;

		if (!client_run(&client, (uint64_t) i * 2 + 10, &call, &emoji))
			bail_out("cannot translate");
		decode(client.body, client.frame.length, &image);
		difference = largest_difference(&image, &expected[i].image);
		ok(difference <= 1, "translation %d equals the official code's within 1/255 (%d)", i,
		   difference);
		image_free(&image);

		call = (ImageCall){ .type = BICYCLE_ENCODE,
							.hash = emoji.hash,
							.image = expected[i].b,
							.length = expected[i].b_length };
		if (!client_run(&client, (uint64_t) i * 2 + 11, &call, &emoji) ||
			client.frame.length != sizeof(values))
			bail_out("cannot encode");
		memcpy(values, client.body, sizeof(values));
		for (int j = 0; j < 8; j++)
			most = fmaxf(most, fmaxf(fabsf(values[j] - expected[i].mu[j]),
									 fabsf(values[8 + j] - expected[i].logvar[j])));
		ok(most <= 1e-4f, "posterior %d equals the official code's (%g)", i, most);
	}
	free(g);
	free(e);
	client_close(&client);
}

#define MOST_CALLS 256

/*
 * Results of many requests sent at once on one connection, in the order of
 * their ids; of frames seen between, STARTED and RESULT are counted.
 */
typedef struct Burst
{
	int n;
	const ImageCall *calls;
	uint8_t **results; /* NULL: not kept */
	size_t *lengths;
	int order[MOST_CALLS]; /* ids as they were answered */
	int errors;
} Burst;

static void
burst_send(Client *client, Burst *burst)
{
	for (int i = 0; i < burst->n; i++)
	{
		size_t length;
		uint8_t *body = image_call_body(&burst->calls[i], &length);

		client_reserve(client, (uint64_t) i + 1, length);
		client_send(client, burst->calls[i].type, (uint64_t) i + 1, body,
					length); /* the pool has room: it is granted meanwhile */
		free(body);
	}
}

static void
burst_receive(Client *client, Burst *burst)
{
	for (int answered = 0; answered < burst->n && client_receive(client);)
	{
		int i = (int) client->frame.id - 1;

		if (client->frame.type != BICYCLE_RESULT && client->frame.type != BICYCLE_ERROR)
			continue;
		burst->errors += client->frame.type == BICYCLE_ERROR;
		burst->order[answered++] = i;
		if (burst->results != NULL)
		{
			burst->results[i] = client->body;
			burst->lengths[i] = client->frame.length;
			client->body = NULL;
		}
	}
}

/*
 * An image's bytes do not depend on what else is in its batch, nor on the
 * number of threads.
 */
static void
test_same_bytes(void)
{
	enum
	{
		N = 16
	};
	Client client;
	ImageCall calls[N];
	float z[N][8];
	uint8_t *alone[N];
	size_t alone_length[N];
	uint8_t *results[N];
	size_t lengths[N];
	Burst burst = { .n = N, .calls = calls, .results = results, .lengths = lengths };
	BicycleStatus before, after;
	static const char *const threads[] = { "threads 1", "threads 2", "threads 4" };

	client_hello(&client, &engine, 1);
	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		for (int j = 0; j < 8; j++)
			z[i][j] = expected[i % PAIRS].z[(j + i) % 8];
		calls[i].z = z[i];
		if (!client_run(&client, (uint64_t) i + 1, &calls[i], &emoji))
			bail_out("cannot translate");
		alone[i] = client.body;
		alone_length[i] = client.frame.length;
		client.body = NULL;
	}
	for (size_t t = 0; t < sizeof(threads) / sizeof(threads[0]); t++)
	{
		int same = 0;

		engine_set(&engine, threads[t]);
		before = client_status(&client);
		burst_send(&client, &burst);
		burst_receive(&client, &burst);
		after = client_status(&client);
		for (int i = 0; i < N; i++)
		{
			same += lengths[i] == alone_length[i] && memcmp(results[i], alone[i], lengths[i]) == 0;
			free(results[i]);
		}
		ok(same == N, "%s: %d images in company have the bytes they have alone", threads[t], same);
		ok(after.batched - before.batched == N && after.batches - before.batches < N,
		   "%s: they ran in %d batches", threads[t], (int) (after.batches - before.batches));
		ok(after.requests - before.requests == N && after.queued == 0, "%s: and were counted",
		   threads[t]);
	}
	for (int i = 0; i < N; i++)
		free(alone[i]);
	client_close(&client);
}

/*
 * What is wrong with an image is an ordinary error, and the other format works.
 */
static void
test_formats(void)
{
	Client client;
	ImageCall call = translate(0);
	ImageInfo info = { 0 };
	ImageError error;

	client_hello(&client, &engine, 1);
	call.format = BICYCLE_OUTPUT_JPEG;
	ok(client_run(&client, 1, &call, &emoji) &&
		   image_info(client.body, client.frame.length, &info, &error) == IMAGE_OK &&
		   info.format == IMAGE_JPEG && info.width == 128 && info.height == 128,
	   "JPEG comes out if it is asked for");
	call = translate(0);
	call.length /= 2;
	ok(!client_run(&client, 2, &call, &emoji) && client_is_error(&client, "22P03"),
	   "half an image is 22P03");
	call = translate(0);
	call.max_pixels = 128 * 128 - 1;
	ok(!client_run(&client, 3, &call, &emoji) && client_is_error(&client, "54000"),
	   "an image beyond the session's limit is 54000");
	call.max_pixels = 128 * 128;
	ok(client_run(&client, 4, &call, &emoji), "one at the limit is translated");
	client_close(&client);
}

/*
 * A request that asks for it runs with nothing beside it: between its start and
 * its end no other is between start and end.
 */
static void
test_alone(void)
{
	enum
	{
		N = 40
	};
	Client client;
	ImageCall calls[N];
	Burst burst = { .n = N, .calls = calls };
	bool open[N + 1] = { false };
	int nopen = 0, answered = 0, alone = 0, together = 0, beside = 0;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		if (i % 13 == 5)
			calls[i].flags = BICYCLE_FLAG_ALONE;
	}
	burst_send(&client, &burst);
	while (answered < N && client_receive(&client))
	{
		int id = (int) client.frame.id;

		if (client.frame.type == BICYCLE_STARTED)
		{
			bool is_alone = calls[id - 1].flags != 0;

			beside += alone > 0 || (is_alone && nopen > 0);
			alone += is_alone;
			open[id] = true;
			nopen++;
			together = nopen > together ? nopen : together;
		}
		else if (client.frame.type == BICYCLE_RESULT)
		{
			answered++;
			alone -= calls[id - 1].flags != 0;
			nopen -= open[id];
		}
	}
	ok(answered == N && beside == 0, "requests that want to be alone are (%d times not)", beside);
	ok(together > 1, "others run %d at a time", together);
	client_close(&client);
}

/*
 * A request that is to run alone while nothing else goes on starts at once:
 * this test's supervisor never pings, so no event comes that would start it.
 */
static void
test_alone_at_once(void)
{
	Client client;
	ImageCall call = translate(0);
	int done = 0;

	client_hello(&client, &engine, 1);
	call.flags = BICYCLE_FLAG_ALONE;
	while (done < 5 && client_run(&client, (uint64_t) done + 1, &call, &emoji))
		done++;
	ok(done == 5, "%d of 5 that run alone start without another event", done);
	call.type = BICYCLE_INFO;
	call.nz = 0;
	ok(client_run(&client, 10, &call, NULL), "so does one that needs no model");
	client_close(&client);
}

static double
difference(const Image *a, const Image *b)
{
	size_t count = (size_t) (a->width * a->height * a->channels);
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += fabs((double) a->pixels[i] - b->pixels[i]);
	return sum / (double) count;
}

static ImageCall
two(uint32_t type, const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
	return (ImageCall){
		.type = type, .image = a, .length = a_length, .second = b, .second_length = b_length
	};
}

/* The answer to a COMPARE; negative: there is none. */
static double
compared(Client *client, const ImageCall *call)
{
	BicycleComparison answer;
	static uint64_t id = 100;

	if (!client_run(client, ++id, call, NULL) || client->frame.length != sizeof(answer))
		return -1;
	memcpy(&answer, client->body, sizeof(answer));
	return answer.l1;
}

/*
 * Two images are compared at the size and in the channels of the first, and one
 * is made as another is, with the pixels of the library.
 */
static void
test_two_images(void)
{
	Client client;
	const Expected *x = &expected[0], *y = &expected[1];
	ImageCall call = two(BICYCLE_COMPARE, x->b, x->b_length, y->b, y->b_length);
	Image a, b, small = { 0 };
	ImageError error;
	uint8_t *png;
	size_t length;

	client_hello(&client, &engine, 1);
	decode(x->b, x->b_length, &a);
	decode(y->b, y->b_length, &b);
	if (image_resize(&b, 40, 24, &small, &error) != IMAGE_OK ||
		image_encode_png(&small, &png, &length, &error) != IMAGE_OK)
		bail_out("cannot make a small image");
	ok(difference(&a, &b) > 1 && fabs(compared(&client, &call) - difference(&a, &b)) < 1e-9,
	   "the mean difference of two images is told");
	call = two(BICYCLE_COMPARE, x->b, x->b_length, x->b, x->b_length);
	ok(compared(&client, &call) == 0, "an image differs in nothing from itself");

	call = two(BICYCLE_MATCH, y->b, y->b_length, png, length);
	ok(client_run(&client, 1, &call, NULL) && client.frame.length == length &&
		   memcmp(client.body, png, length) == 0,
	   "an image is made as large as another");
	call = two(BICYCLE_COMPARE, png, length, y->b, y->b_length);
	ok(compared(&client, &call) == 0, "the second is brought to the size of the first");
	call = two(BICYCLE_MATCH, y->b, y->b_length, x->a, x->a_length);
	ok(client_run(&client, 2, &call, NULL) && client.frame.length > 25 && client.body[25] == 0,
	   "and gray, as the other is");
	call = two(BICYCLE_COMPARE, x->a, x->a_length, x->b, x->b_length);
	ok(compared(&client, &call) > 0, "a colour one is compared with a gray one");

	call = two(BICYCLE_COMPARE, x->b, x->b_length, y->b, y->b_length / 2);
	ok(compared(&client, &call) < 0 && client_is_error(&client, "22P03"),
	   "a second image that is cut off is 22P03");
	call = two(BICYCLE_MATCH, png, length, x->b, x->b_length);
	call.max_pixels = 40 * 24;
	ok(!client_run(&client, 3, &call, NULL) && client_is_error(&client, "54000"),
	   "a size beyond the limit is 54000, although only a header names it");
	call = two(BICYCLE_INFO, png, length, png, length);
	ok(!client_run(&client, 4, &call, NULL) && client_is_error(&client, "08P01"),
	   "two images where one is meant are a protocol error");
	image_free(&a);
	image_free(&b);
	image_free(&small);
	free(png);
	client_close(&client);
}

/* An image that is two comes apart into the halves that training sees. */
static void
test_halves(void)
{
	Client client;
	ImageCall call = { .type = BICYCLE_HALVES };
	Image whole, half[2] = { 0 }, cut;
	ImageError error;
	BicycleHalves head = { 0 };
	uint8_t *png;
	bool same = true;

	client_hello(&client, &engine, 1);
	decode(expected[0].b, expected[0].b_length, &whole);
	if (image_resize(&whole, 33, 20, &cut, &error) != IMAGE_OK ||
		image_encode_png(&cut, &png, &call.length, &error) != IMAGE_OK)
		bail_out("cannot make an image");
	call.image = png;
	if (client_run(&client, 1, &call, NULL) && client.frame.length > sizeof(head))
	{
		memcpy(&head, client.body, sizeof(head));
		decode(client.body + sizeof(head), head.left_length, &half[0]);
		decode(client.body + sizeof(head) + head.left_length,
			   client.frame.length - sizeof(head) - head.left_length, &half[1]);
	}
	ok(half[0].width == 16 && half[1].width == 17 && half[0].height == 20 && half[1].height == 20,
	   "of 33 columns the left half has 16, the right one 17");
	for (int y = 0; y < 20 && half[1].pixels != NULL; y++)
		same &= memcmp(half[0].pixels + y * 48, cut.pixels + y * 99, 48) == 0 &&
				memcmp(half[1].pixels + y * 51, cut.pixels + y * 99 + 48, 51) == 0;
	ok(same, "and these are its pixels");
	free(png);
	image_free(&cut);
	if (image_resize(&whole, 1, 20, &cut, &error) != IMAGE_OK ||
		image_encode_png(&cut, &png, &call.length, &error) != IMAGE_OK)
		bail_out("cannot make an image");
	call.image = png;
	ok(!client_run(&client, 2, &call, NULL) && client_is_error(&client, "22P03"),
	   "one that is a pixel wide has no halves");
	free(png);
	image_free(&cut);
	image_free(&whole);
	image_free(&half[0]);
	image_free(&half[1]);
	client_close(&client);
}

/*
 * A session with one request is not kept waiting by one with many, least of all
 * by bulk.
 */
static void
test_fairness(uint32_t flags, const char *what)
{
	enum
	{
		N = 60
	};
	Client many, one;
	ImageCall calls[N];
	Burst burst = { .n = N, .calls = calls };
	ImageCall call = translate(0);
	uint64_t before;

	client_hello(&many, &engine, 1);
	client_hello(&one, &engine, 1);
	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		calls[i].flags = flags;
	}
	before = client_status(&one).requests;
	burst_send(&many, &burst);
	if (!client_run(&one, 1, &call, &emoji))
		bail_out("cannot translate");
	before = client_status(&one).requests - before;
	ok(before < N / 2, "one request beside %d %s ones was answered as number %d", N, what,
	   (int) before);
	burst_receive(&many, &burst);
	ok(burst.errors == 0, "and all of those were answered");
	client_close(&many);
	client_close(&one);
}

/* A gray PNG of side x side pixels; malloc'ed. */
static uint8_t *
make_png(int side, size_t *length)
{
	Image image = { .width = side,
					.height = side,
					.channels = 1,
					.pixels = malloc((size_t) side * (size_t) side) };
	ImageError error;
	uint8_t *bytes;

	for (int i = 0; i < side * side; i++)
		image.pixels[i] = (uint8_t) (i % 251);
	if (image_encode_png(&image, &bytes, length, &error) != IMAGE_OK)
		bail_out("cannot encode an image");
	image_free(&image);
	return bytes;
}

/* Beside bulk an interactive request waits for what is running, and no more. */
static void
test_bulk_gives_way(void)
{
	enum
	{
		N = 24,
		MIXED = 4
	};
	Client many, one;
	Model slow;
	ImageCall calls[N], call = translate(0);
	Burst burst = { .n = N, .calls = calls }, mixed = { .n = MIXED, .calls = calls };
	size_t length;
	uint8_t *png = make_png(1200, &length);
	uint64_t before;
	int batches, requests;

	client_hello(&many, &engine, 1);
	client_hello(&one, &engine, 1);
	if (!client_create(
			&one, 1, "{\"size\": 256, \"levels\": 6, \"input_nc\": 1, \"net_e\": \"none\"}", &slow))
		bail_out("cannot create a model");
	call.hash = slow.hash;
	if (!client_run(&one, 2, &call, &slow))
		bail_out("cannot translate");
	call.hash = emoji.hash;
	engine_set(&engine, "threads 1");
	engine_set(&engine, "max_batch 16");
	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		calls[i].image = png;
		calls[i].length = length;
		calls[i].flags = BICYCLE_FLAG_BULK;
	}
	before = client_status(&one).requests;
	burst_send(&many, &burst);
	if (!client_run(&one, 3, &call, &emoji))
		bail_out("cannot translate");
	requests = (int) (client_status(&one).requests - before);
	burst_receive(&many, &burst);
	ok(requests < N / 2 && burst.errors == 0,
	   "it is decoded before %d bulk images that have started: answered as number %d", N, requests);

	/* The slow model has the device until the others are decoded. */
	before = client_status(&one).batches;
	call.hash = slow.hash;
	client_call(&one, 4, &call);
	client_expect(&one, BICYCLE_STARTED, 4);
	for (int i = 0; i < MIXED; i++)
	{
		calls[i] = translate(i % PAIRS);
		calls[i].flags = i < MIXED - 1 ? BICYCLE_FLAG_BULK : 0;
	}
	burst_send(&many, &mixed);
	burst_receive(&many, &mixed);
	client_expect(&one, BICYCLE_RESULT, 4);
	batches = (int) (client_status(&one).batches - before);
	ok(batches > 2 && mixed.errors == 0, "no bulk image runs in its batch: there were %d", batches);
	ok(mixed.order[0] == MIXED - 1, "which runs before those of bulk");

	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		calls[i].flags = BICYCLE_FLAG_BULK;
	}
	before = client_status(&one).batches;
	burst_send(&many, &burst);
	burst_receive(&many, &burst);
	batches = (int) (client_status(&one).batches - before);
	ok(batches >= N / 4, "%d bulk images behind it ran in %d batches, which are small", N, batches);
	engine_set(&engine, "max_batch 4");
	client_close(&many);
	client_close(&one);
	model_free(&slow);
	free(png);
}

/*
 * With little memory decoders wait for each other, and what cannot be decoded
 * within it is 53200; nothing stops for good.
 */
static void
test_little_memory(void)
{
	enum
	{
		N = 24
	};
	Client client;
	ImageCall calls[N];
	Burst burst = { .n = N, .calls = calls };
	size_t length, large_length;
	uint8_t *png = make_png(1500, &length);
	uint8_t *large = make_png(6000, &large_length);
	ImageCall call = translate(0);

	client_hello(&client, &engine, 1);
	engine_set(&engine, "threads 4");
	engine_set(&engine, "engine_memory 25000000");
	call.image = large;
	call.length = large_length;
	ok(!client_run(&client, 100, &call, &emoji) && client_is_error(&client, "53200"),
	   "an image too large for all decoders together is 53200");
	for (int i = 0; i < N; i++)
	{
		calls[i] = translate(i % PAIRS);
		calls[i].image = png;
		calls[i].length = length;
	}
	burst_send(&client, &burst);
	burst_receive(&client, &burst);
	ok(burst.errors == 0, "%d images of which few can be decoded at a time are all translated", N);
	engine_set(&engine, "engine_memory 0");
	call.length = large_length;
	ok(client_run(&client, 101, &call, &emoji), "with more memory so is the large one");
	free(png);
	free(large);
	client_close(&client);
}

/*
 * A question about an image does not wait for the device, however much that has
 * to do.
 */
static void
test_info(void)
{
	enum
	{
		N = 240
	};
	Client many, one;
	ImageCall calls[N];
	Burst burst = { .n = N, .calls = calls };
	ImageCall call = { .type = BICYCLE_INFO,
					   .image = expected[0].a,
					   .length = expected[0].a_length };
	uint64_t before;
	int described = 0;

	client_hello(&many, &engine, 1);
	client_hello(&one, &engine, 1);
	for (int i = 0; i < N; i++)
		calls[i] = translate(i % PAIRS);
	before = client_status(&one).batched;
	burst_send(&many, &burst);
	for (uint64_t id = 1; id <= 10; id++)
		described += client_run(&one, id, &call, NULL);
	before = client_status(&one).batched - before;
	ok(described == 10 && before < N / 2, "ten images are described while %d of %d are translated",
	   (int) before, N);
	burst_receive(&many, &burst);
	ok(burst.errors == 0, "and all of those were answered");
	client_close(&many);
	client_close(&one);
}

/*
 * A request that crashes the engine does so after its client was told that it
 * started; without the debug setting it is an ordinary one.
 */
static void
test_crash(void)
{
	Client client, other;
	ImageCall call = translate(0), before = translate(1);
	int status;

	client_hello(&client, &engine, 1);
	call.debug = 1;
	ok(client_run(&client, 1, &call, &emoji), "without the setting no request crashes the engine");
	engine_set(&engine, "debug 1");
	client_hello(&other, &engine, 1);
	before.flags = call.flags = BICYCLE_FLAG_ALONE;
	client_call(&other, 2, &before);
	client_call(&client, 2, &call);
	ok(client_receive(&client) && client.frame.type == BICYCLE_STARTED && client.frame.id == 2,
	   "with it the client is told that its request started");
	ok(client_expect(&other, BICYCLE_RESULT, 2), "who ran before it has the answer");
	ok(!client_receive(&client) && !client_receive(&other), "then all connections end");
	status = engine_wait(&engine);
	ok(status != 0, "the engine has crashed (0x%x)", (unsigned) status);
	client_close(&client);
	client_close(&other);
	close(engine.control);
}

/*
 * A hanging device is noticed: the engine answers its clients, but not its
 * supervisor.
 */
static void
test_hang(void)
{
	const char *settings[] = { "debug 1", "stuck_timeout 300", NULL };
	Client client;
	ImageCall call = translate(0);

	engine_start_in(&engine, settings);
	ok(engine_says(&engine, "ready ", PATIENCE_MS), "the engine starts again");
	client_hello(&client, &engine, 1);
	ok(client_run(&client, 1, &call, &emoji), "and works");
	call.debug = 2;
	client_call(&client, 2, &call);
	client_expect(&client, BICYCLE_STARTED, 2);
	engine_tell(&engine, "ping 1");
	ok(engine_says(&engine, "pong 1", PATIENCE_MS),
	   "a batch that takes long is not noticed at once");
	usleep(1000000);
	engine_tell(&engine, "ping 2");
	ok(!engine_says(&engine, "pong 2", 500), "but when it takes too long");
	ok(client_status(&client).queued == 1, "clients are answered still");
	client_close(&client);
	kill(engine.pid, SIGKILL);
	engine_wait(&engine);
	engine_forget(&engine);
}

int
main(void)
{
	const char *settings[] = { "queue_memory 16777216", "max_batch 4", NULL };

	read_expected();
	engine_start(&engine, settings);
	test_official();
	test_same_bytes();
	test_formats();
	test_alone();
	test_alone_at_once();
	test_two_images();
	test_halves();
	test_fairness(0, "interactive");
	test_fairness(BICYCLE_FLAG_BULK, "bulk");
	test_bulk_gives_way();
	test_info();
	test_little_memory();
	test_crash();
	test_hang();
	model_free(&emoji);
	for (int i = 0; i < PAIRS; i++)
	{
		free(expected[i].a);
		free(expected[i].b);
		image_free(&expected[i].image);
	}
	return done_testing();
}
