/*
 * Answers have the size of the image where fit is input: their pixels are the
 * network's at the nearest size it can run at, with Pillow's resizing before
 * and after; alone or in company with the same bytes. What is too large or too
 * long is refused with the figure before it starts, and what fits waits for its
 * memory. A thousand sizes leave no more behind than a few.
 */
#include "engine_client.h"

#include "engine/engine.h"

static EngineProcess engine;
static Model square, wide; /* with fit square and input */
static NnModel *local;     /* square's, in this process */

typedef struct Picture
{
	Image image;
	uint8_t *png;
	size_t length;
	float z[8];
} Picture;

static Picture
make_picture(int width, int height, uint32_t seed)
{
	Picture p = { .image = { width, height, 3, malloc((size_t) width * (size_t) height * 3) } };
	ImageError error;

	for (int y = 0; y < height; y++)
		for (int x = 0; x < width * 3; x++)
			p.image.pixels[y * width * 3 + x] = (uint8_t) (x * seed + y * y / 7 + x * y % 41);
	for (int i = 0; i < 8; i++)
		p.z[i] = (float) ((seed * 7 + (uint32_t) i * 3) % 11) / 5 - 1;
	if (image_encode_png(&p.image, &p.png, &p.length, &error) != IMAGE_OK)
		bail_out("cannot make an image");
	return p;
}

static void
free_picture(Picture *p)
{
	image_free(&p->image);
	free(p->png);
}

static ImageCall
call_of(const Model *model, const Picture *p, uint32_t fit)
{
	return (ImageCall){ .type = BICYCLE_TRANSLATE,
						.hash = model->hash,
						.image = p->png,
						.length = p->length,
						.z = p->z,
						.nz = 8,
						.fit = fit };
}

static void
decode_answer(const uint8_t *bytes, size_t length, Image *image)
{
	ImageLimits limits = { .max_pixels = 1 << 26, .max_memory = 1 << 30 };
	ImageError error;

	if (image_decode(bytes, length, 3, 0, &limits, image, &error) != IMAGE_OK)
		bail_out("cannot decode an answer: %s", error.message);
}

/* ---- One image ----------------------------------------------------------- */

static void
load_local(NnDevice *device)
{
	TensorStream stream;
	NnConfig config;
	NnError error;
	EngineError engine_error;

	nn_config_default(&config);
	if (!stream_parse(square.stream, square.length, &stream, &engine_error) ||
		nn_config_parse(&config, square.config, strlen(square.config), &error) != NN_OK ||
		nn_model_load(device, &config, NN_PRECISION_FP32, stream.tensors, stream.ntensors, &local,
					  &error) != NN_OK)
		bail_out("cannot load the model");
	stream_free(&stream);
}

/* What the answer's pixels should be. */
static Image
expected_answer(const Picture *p)
{
	NnExtent extent;
	Image in, out, answer;
	NnError error;
	ImageError image_error;

	if (!nn_extent_fit(nn_model_config(local), p->image.width, p->image.height, &extent) ||
		image_resize(&p->image, extent.w, extent.h, &in, &image_error) != IMAGE_OK)
		bail_out("cannot resize");
	out = (Image){ extent.w, extent.h, 3, malloc((size_t) extent.w * (size_t) extent.h * 3) };
	if (nn_model_translate_at(local, extent, 1, in.pixels, p->z, out.pixels, &error) != NN_OK ||
		image_resize(&out, p->image.width, p->image.height, &answer, &image_error) != IMAGE_OK)
		bail_out("cannot translate");
	image_free(&in);
	image_free(&out);
	return answer;
}

static bool
same_image(const Image *a, const Image *b)
{
	return a->width == b->width && a->height == b->height &&
		   memcmp(a->pixels, b->pixels, (size_t) a->width * (size_t) a->height * 3) == 0;
}

static void
test_pixels(void)
{
	static const int sizes[][2] = {
		{ 64, 64 },  { 1, 1 },  { 100, 80 },  { 33, 70 },  { 64, 200 },
		{ 512, 64 }, { 8, 64 }, { 250, 250 }, { 64, 128 }, { 97, 159 },
	};
	Client client;
	int same = 0, nsizes = (int) (sizeof(sizes) / sizeof(sizes[0]));

	client_hello(&client, &engine, 1);
	for (int i = 0; i < nsizes; i++)
	{
		Picture p = make_picture(sizes[i][0], sizes[i][1], (uint32_t) i + 3);
		ImageCall call = call_of(&square, &p, BICYCLE_FIT_INPUT);
		Image answer = { 0 }, expected = expected_answer(&p);
		bool good = client_run(&client, (uint64_t) i + 10, &call, &square);

		if (good)
			decode_answer(client.body, client.frame.length, &answer);
		good = good && same_image(&answer, &expected);
		if (!good)
			diag("%d x %d", sizes[i][0], sizes[i][1]);
		same += good;
		image_free(&answer);
		image_free(&expected);
		free_picture(&p);
	}
	ok(same == nsizes, "%d of %d sizes are resized, translated and resized back", same, nsizes);
	client_close(&client);
}

/* Width of the answer to a picture of 150 x 100; 0: an error. */
static int
answer_width(Client *client, const Model *model, uint32_t fit)
{
	static uint64_t id = 1000;
	Picture p = make_picture(150, 100, 5);
	ImageCall call = call_of(model, &p, fit);
	ImageInfo info = { 0 };
	ImageError error;

	if (client_run(client, ++id, &call, model))
		image_info(client->body, client->frame.length, &info, &error);
	free_picture(&p);
	return info.width;
}

static void
test_choice(void)
{
	Client client;
	Picture p = make_picture(64, 64, 9);
	ImageCall calls[2] = { call_of(&square, &p, BICYCLE_FIT_SQUARE),
						   call_of(&square, &p, BICYCLE_FIT_INPUT) };
	uint8_t *first = NULL;
	size_t length = 0;
	ImageCall encode = { .type = BICYCLE_ENCODE,
						 .hash = square.hash,
						 .image = p.png,
						 .length = p.length,
						 .fit = BICYCLE_FIT_INPUT };

	client_hello(&client, &engine, 1);
	ok(answer_width(&client, &square, BICYCLE_FIT_MODEL) == 64 &&
		   answer_width(&client, &square, BICYCLE_FIT_SQUARE) == 64 &&
		   answer_width(&client, &square, BICYCLE_FIT_INPUT) == 150,
	   "a model without fit is square unless the call says input");
	ok(answer_width(&client, &wide, BICYCLE_FIT_MODEL) == 150 &&
		   answer_width(&client, &wide, BICYCLE_FIT_SQUARE) == 64 &&
		   answer_width(&client, &wide, BICYCLE_FIT_INPUT) == 150,
	   "one whose configuration says input is that unless the call says square");
	if (client_run(&client, 1, &calls[0], &square))
	{
		first = client.body;
		length = client.frame.length;
		client.body = NULL;
	}
	ok(first != NULL && client_run(&client, 2, &calls[1], &square) &&
		   client.frame.length == length && memcmp(first, client.body, length) == 0,
	   "at the model's own size both have the same bytes");
	free(first);
	free_picture(&p);
	p = make_picture(90, 200, 3);
	encode.image = p.png;
	encode.length = p.length;
	ok(client_run(&client, 3, &encode, &square) && client.frame.length == 16 * sizeof(float),
	   "an encoder runs at its own size");
	free_picture(&p);
	client_close(&client);
}

/* ---- In company ---------------------------------------------------------- */

#define MANY 24

/* Sends all at once; results[i] is NULL where there was an error. */
static void
run_together(Client *client, const ImageCall *calls, int n, uint8_t **results, size_t *lengths)
{
	for (int i = 0; i < n; i++)
	{
		size_t length;
		uint8_t *body = image_call_body(&calls[i], &length);

		client_reserve(client, (uint64_t) i + 1, length);
		client_send(client, calls[i].type, (uint64_t) i + 1, body, length);
		free(body);
		results[i] = NULL;
	}
	for (int answered = 0; answered < n && client_receive(client);)
	{
		int i = (int) client->frame.id - 1;

		if (client->frame.type != BICYCLE_RESULT && client->frame.type != BICYCLE_ERROR)
			continue;
		answered++;
		if (client->frame.type == BICYCLE_ERROR)
		{
			diag("%d: %s", i, client->body + sizeof(BicycleError));
			continue;
		}
		results[i] = client->body;
		lengths[i] = client->frame.length;
		client->body = NULL;
	}
}

/* Pictures of four sizes, one of which is square's way. */
static void
test_company(const char *what)
{
	Client client;
	Picture pictures[MANY];
	ImageCall calls[MANY];
	uint8_t *results[MANY];
	size_t lengths[MANY];
	int same = 0;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < MANY; i++)
	{
		pictures[i] = make_picture(60 + 70 * (i % 3), 64 + 40 * (i % 4), (uint32_t) i + 2);
		calls[i] =
			call_of(&square, &pictures[i], i % 5 == 4 ? BICYCLE_FIT_SQUARE : BICYCLE_FIT_INPUT);
	}
	run_together(&client, calls, MANY, results, lengths);
	for (int i = 0; i < MANY; i++)
	{
		same += results[i] != NULL && client_run(&client, 100 + (uint64_t) i, &calls[i], &square) &&
				lengths[i] == client.frame.length &&
				memcmp(results[i], client.body, lengths[i]) == 0;
		free(results[i]);
		free_picture(&pictures[i]);
	}
	ok(same == MANY, "%d of %d images of many sizes at once have the bytes they have alone, %s",
	   same, MANY, what);
	client_close(&client);
}

/* ---- Memory -------------------------------------------------------------- */

static void
test_many_sizes(void)
{
	enum
	{
		SIZES = 200
	};
	Client client;
	uint64_t few = 0, many = 0;
	BicycleCached cached[4] = { 0 };
	int done = 0;

	client_hello(&client, &engine, 1);
	for (int i = 0; i < SIZES; i++)
	{
		Picture p = make_picture(64 * (1 + i % 12), 64 * (2 + i % 7), (uint32_t) i);
		ImageCall call = call_of(&square, &p, BICYCLE_FIT_INPUT);
		uint64_t memory;

		done += client_run(&client, 5000 + (uint64_t) i, &call, &square);
		free_picture(&p);
		memory = client_memory_settles(&client, few);
		if (i < SIZES / 2)
			few = memory > few ? memory : few;
		else
			many = memory > many ? memory : many;
	}
	ok(done == SIZES && many <= few,
	   "after 100 sizes the engine holds %llu bytes at most, and no more after %d (%llu)",
	   (unsigned long long) few, SIZES, (unsigned long long) many);
	client_cache(&client, cached, 4);
	ok(cached[0].bytes + cached[1].bytes < few, "models and their plans are a part of that");
	client_close(&client);
}

static void
test_refusals(void)
{
	Client client;
	Picture p = make_picture(801, 100, 1);
	ImageCall call = call_of(&square, &p, BICYCLE_FIT_INPUT);

	client_hello(&client, &engine, 1);
	ok(!client_run(&client, 1, &call, &square) && client_is_error(&client, "54000"),
	   "an image of more than 8 : 1 is 54000");
	call.fit = BICYCLE_FIT_SQUARE;
	ok(client_run(&client, 2, &call, &square), "and may be made square");
	call.fit = BICYCLE_FIT_INPUT;
	call.max_pixels = 100 * 100;
	ok(!client_run(&client, 3, &call, &square) && client_is_error(&client, "54000"),
	   "the session's limit of pixels is asked first");
	free_picture(&p);
	p = make_picture(70, 70, 1);
	call = call_of(&square, &p, BICYCLE_FIT_INPUT + 1);
	ok(!client_run(&client, 4, &call, &square) && client_is_error(&client, "08P01"),
	   "a fit that there is not breaks the protocol");
	free_picture(&p);
	client_close(&client);
}

/* With little memory. */
static void
test_short_memory(void)
{
	static const char *const settings[] = { "device cpu", "threads 2", "engine_memory 80000000",
											NULL };
	Client client;
	Picture p;
	ImageCall call;
	Picture pictures[MANY];
	ImageCall calls[MANY];
	uint8_t *results[MANY];
	size_t lengths[MANY];
	uint64_t memory;
	int done = 0;

	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	p = make_picture(2000, 1500, 1);
	call = call_of(&square, &p, BICYCLE_FIT_INPUT);
	ok(!client_run(&client, 1, &call, &square) && client_is_error(&client, "54000") &&
		   memmem(client.body, client.frame.length, "At 1984 x 1472 pixels it takes ", 31) !=
			   NULL &&
		   memmem(client.body, client.frame.length, "engine_memory", 13) != NULL,
	   "an image whose plan could never fit is 54000, with the figure and the setting");
	free_picture(&p);
	for (int i = 0; i < MANY; i++)
	{
		pictures[i] = make_picture(830 + i, 600 - i, (uint32_t) i + 2);
		calls[i] = call_of(&square, &pictures[i], BICYCLE_FIT_INPUT);
	}
	run_together(&client, calls, MANY, results, lengths);
	for (int i = 0; i < MANY; i++)
	{
		done += results[i] != NULL;
		free(results[i]);
	}
	ok(done == MANY, "%d of %d large images at once wait for their memory", done, MANY);
	calls[0].flags = calls[1].flags = BICYCLE_FLAG_ALONE;
	memory = client_memory_settles(&client, 0);
	for (int round = 0; round < 3; round++)
	{
		Client leaver;

		client_hello(&leaver, &engine, 1);
		for (int i = 0; i < MANY; i++)
		{
			size_t length;
			uint8_t *body = image_call_body(&calls[i], &length);

			client_reserve(&leaver, (uint64_t) i + 1, length);
			client_send(&leaver, BICYCLE_TRANSLATE, (uint64_t) i + 1, body, length);
			free(body);
		}
		for (int i = 0; i < 8 * round; i++)
			client_receive(&leaver);
		client_close(&leaver);
	}
	ok(client_run(&client, 1000, &calls[0], &square) &&
		   client_run(&client, 1001, &calls[5], &square),
	   "after three who left while theirs waited one runs, alone or not");
	ok(client_memory_settles(&client, memory) <= memory, "and nothing is held for those");
	for (int i = 0; i < MANY; i++)
		free_picture(&pictures[i]);
	client_close(&client);
	engine_end(&engine);
}

int
main(void)
{
	static const char *const settings[] = { "device cpu", "threads 2", NULL };
	NnDevice *device;
	NnError error;
	Client client;

	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	if (nn_device_open("cpu", 2, &device, &error) != NN_OK ||
		!client_create(&client, 1, "{\"size\":64,\"levels\":6,\"ngf\":2,\"nef\":2}", &square) ||
		!client_create(&client, 2,
					   "{\"size\":64,\"levels\":6,\"ngf\":2,\"net_e\":\"none\",\"fit\":\"input\"}",
					   &wide))
		bail_out("cannot create models");
	client_close(&client);
	load_local(device);
	test_choice();
	test_pixels();
	test_company("on two threads");
	engine_set(&engine, "threads 1");
	engine_set(&engine, "max_batch 2");
	test_company("on one thread, two at most");
	test_refusals();
	engine_set(&engine, "max_batch 16");
	test_many_sizes();
	engine_end(&engine);
	test_short_memory();
	nn_model_free(local);
	nn_device_close(device);
	model_free(&square);
	model_free(&wide);
	return done_testing();
}
