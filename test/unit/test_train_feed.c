/*
 * Which pairs come when, and how they are cropped and flipped, depends on seed,
 * epoch and place alone; batches hold just that, whoever decodes them.
 */
#include "train_client.h"

#include "engine/run.h"

#include <math.h>

/* ---- Orders and crops ---------------------------------------------------- */

/*
 * Known answers: an implementation of its own in Python, which agrees with the
 * published answers of Philox.
 */
static void
test_known(void)
{
	static const uint32_t known[3][10] = { { 8, 0, 4, 3, 1, 9, 5, 7, 2, 6 },
										   { 7, 8, 6, 9, 5, 2, 3, 0, 1, 4 },
										   { 2, 9, 5, 0, 3, 1, 6, 8, 4, 7 } };
	static const struct
	{
		uint64_t seed;
		int64_t epoch;
		uint64_t rank;
		int load_size, size, x, y;
		bool flip;
	} crops[] = { { 1, 1, 0, 286, 256, 24, 19, false },
				  { 1, 1, 1, 286, 256, 25, 6, true },
				  { 1, 3, 0, 286, 256, 17, 14, false },
				  { UINT64_C(1) << 40, 2, 7, 72, 64, 4, 5, false } };
	static const uint64_t seeds[3] = { 1, 1, (UINT64_C(1) << 40) + 5 };
	uint32_t order[10];

	for (int i = 0; i < 3; i++)
	{
		run_feed_permutation(seeds[i], i == 1 ? 2 : 1, 10, order);
		ok(memcmp(order, known[i], sizeof(order)) == 0, "order %d is known", i);
	}
	for (int i = 0; i < 4; i++)
	{
		RunAugmentation how = run_feed_augmentation(crops[i].seed, crops[i].epoch, crops[i].rank,
													crops[i].load_size, crops[i].size, true);

		ok(how.x == crops[i].x && how.y == crops[i].y && how.flip == crops[i].flip,
		   "crop %d is known", i);
	}
}

static void
test_statistics(void)
{
	enum
	{
		ROWS = 20000
	};
	static uint32_t order[ROWS];
	static bool seen[ROWS];
	static int corners[31][31];
	int flips = 0, fixed = 0, rare = INT_MAX, frequent = 0;
	bool once = true;

	run_feed_permutation(3, 1, ROWS, order);
	for (int i = 0; i < ROWS; i++)
	{
		once = once && order[i] < ROWS && !seen[order[i]];
		seen[order[i]] = true;
		fixed += order[i] == (uint32_t) i;
	}
	ok(once && fixed < 10, "an epoch has each row once, %d of %d at their own place", fixed, ROWS);
	for (int i = 0; i < 10 * ROWS; i++)
	{
		RunAugmentation how =
			run_feed_augmentation(3, i / ROWS, (uint64_t) (i % ROWS), 286, 256, true);

		if (how.x < 0 || how.x > 30 || how.y < 0 || how.y > 30)
			bail_out("a crop at %d, %d", how.x, how.y);
		corners[how.x][how.y]++;
		flips += how.flip;
	}
	for (int i = 0; i < 31 * 31; i++)
	{
		rare = corners[i / 31][i % 31] < rare ? corners[i / 31][i % 31] : rare;
		frequent = corners[i / 31][i % 31] > frequent ? corners[i / 31][i % 31] : frequent;
	}
	/*
	 * 208 expected at each place, standard deviation 14; of the flips 100000
	 * and 224.
	 */
	ok(rare > 208 - 6 * 14 && frequent < 208 + 6 * 14,
	   "every corner comes about equally often: %d to %d times", rare, frequent);
	ok(flips > 100000 - 5 * 224 && flips < 100000 + 5 * 224,
	   "half of the pairs are flipped: %d of %d", flips, 10 * ROWS);
	flips = 0;
	for (int i = 0; i < 1000; i++)
	{
		RunAugmentation how = run_feed_augmentation(3, 1, (uint64_t) i, 64, 64, false);

		flips += how.flip || how.x != 0 || how.y != 0;
	}
	ok(flips == 0, "without flip and without room nothing is moved");
}

/* ---- Variations ---------------------------------------------------------- */

#define LARGE 40
#define SMALL 32

/* A smooth picture, whose bilinear means do not hang on the last bit. */
static void
paint(uint8_t *pixels, int channels)
{
	for (int y = 0; y < LARGE; y++)
		for (int x = 0; x < LARGE; x++)
			for (int c = 0; c < channels; c++)
				pixels[(y * LARGE + x) * channels + c] =
					(uint8_t) (128 + 60 * sin(x * 0.3 + c) + 60 * cos(y * 0.2 - c));
}

static double
pixel_at(const uint8_t *pixels, int channels, int c, int x, int y)
{
	x = x < 0 ? 0 : x >= LARGE ? LARGE - 1 : x;
	y = y < 0 ? 0 : y >= LARGE ? LARGE - 1 : y;
	return pixels[(y * LARGE + x) * channels + c];
}

/* The largest difference to the definition: turned by so much, in doubles. */
static double
turned_wrongly(const uint8_t *pixels, int channels, double degrees, double scale,
			   const uint8_t *turned)
{
	double worst = 0, angle = degrees * M_PI / 180;

	for (int i = 0; i < SMALL * SMALL * channels; i++)
	{
		double du = i / channels % SMALL - (SMALL - 1) / 2.0;
		double dv = i / channels / SMALL - (SMALL - 1) / 2.0;
		double x = 3 + (SMALL - 1) / 2.0 + (cos(angle) * du + sin(angle) * dv) / scale;
		double y = 5 + (SMALL - 1) / 2.0 + (cos(angle) * dv - sin(angle) * du) / scale;
		int px = (int) floor(x), py = (int) floor(y), c = i % channels;
		double fx = x - px, fy = y - py;
		double value = (pixel_at(pixels, channels, c, px, py) * (1 - fx) +
						pixel_at(pixels, channels, c, px + 1, py) * fx) *
						   (1 - fy) +
					   (pixel_at(pixels, channels, c, px, py + 1) * (1 - fx) +
						pixel_at(pixels, channels, c, px + 1, py + 1) * fx) *
						   fy;

		worst = fmax(worst, fabs(value - turned[i]));
	}
	return worst;
}

/* The words of angle and scale are the ends and the middle of their range. */
static void
test_turns(void)
{
	static const struct
	{
		uint32_t words[2];
		double rotate, scale, degrees, factor;
	} turns[] = {
		{ { UINT32_MAX, UINT32_MAX }, 30, 0, 30, 1 },
		{ { 0, UINT32_MAX }, 180, 0, -180, 1 },
		{ { 0, UINT32_MAX }, 10, 0.5, -10, 1.5 },
		{ { UINT32_MAX, 0 }, 0, 0.9, 0, 0.1 },
	};
	static uint8_t pixels[LARGE * LARGE * 3], out[SMALL * SMALL * 3];

	for (int i = 0; i < 4; i++)
		for (int channels = 1; channels <= 3; channels += 2)
		{
			uint32_t words[8] = { turns[i].words[0], turns[i].words[1] };
			NnTrainOptions o = { .rotate = turns[i].rotate, .scale = turns[i].scale };
			RunVariation variation = run_vary_draw(&o, words);
			double wrong;

			paint(pixels, channels);
			run_vary_turn(&variation, pixels, LARGE, channels, 3, 5, out, SMALL);
			wrong = turned_wrongly(pixels, channels, turns[i].degrees, turns[i].factor, out);
			ok(wrong < 0.9,
			   "an image of %d channel(s) is turned by %g degrees, %g times as large: "
			   "%.2f levels off",
			   channels, turns[i].degrees, turns[i].factor, wrong);
		}
}

static void
test_colours(void)
{
	static const uint8_t before[6] = { 200, 100, 50, 10, 20, 30 };
	uint32_t words[8] = { 0, 0, UINT32_MAX, UINT32_MAX, 0 };
	NnTrainOptions none = { .jitter = 0 }, o = { .jitter = 0.5 };
	RunVariation variation = run_vary_draw(&none, words);
	uint8_t pixels[6];
	int luma[2];

	ok(!variation.turned && !variation.coloured[0] && !variation.coloured[1],
	   "without options nothing is varied");
	variation = run_vary_draw(&o, words);
	ok(!variation.coloured[0] && variation.coloured[1], "jitter is for B");
	o.jitter_both = true;
	ok(run_vary_draw(&o, words).coloured[0], "jitter_both for A as well");
	memcpy(pixels, before, sizeof(pixels));
	run_vary_colour(&variation, pixels, 2, 3);
	/* brightness 1.5: 255 150 75, 15 30 45; lumas 173 and 27, mean 100 */
	/* contrast 1.5: 255 175 63, 0 0 18; saturation 0.5 about 186 and 2 */
	luma[0] = 186;
	luma[1] = 2;
	ok(abs(pixels[0] - (255 + luma[0]) / 2) <= 1 && abs(pixels[1] - (175 + luma[0]) / 2) <= 1 &&
		   abs(pixels[2] - (63 + luma[0]) / 2) <= 1 && abs(pixels[3] - luma[1] / 2) <= 1 &&
		   abs(pixels[5] - (18 + luma[1]) / 2) <= 1,
	   "brightness, contrast and saturation are varied in this order: %d %d %d, %d %d %d",
	   pixels[0], pixels[1], pixels[2], pixels[3], pixels[4], pixels[5]);
	o.jitter = 0;
	variation = run_vary_draw(&o, words);
	memcpy(pixels, before, sizeof(pixels));
	run_vary_colour(&variation, pixels, 2, 3);
	ok(memcmp(pixels, before, sizeof(pixels)) == 0, "factors of 1 change nothing");
}

/* ---- Batches ------------------------------------------------------------- */

#define PAIRS 11
#define BATCH 3
#define SIZE 16
#define LOAD 20
#define ITERATIONS 10 /* three of them an epoch, with two pairs left over */

static const NnConfig config = { .size = SIZE, .input_nc = 1, .output_nc = 3 };
static NnTrainOptions options = {
	.batch_size = BATCH, .load_size = LOAD, .flip = true, .seed = 99
};
static Pair *pairs;

static void
fill(RunData *data, uint64_t memory, uint64_t disk)
{
	BicycleTrainBegin begin = {
		.max_pixels = 1 << 20, .train_memory = memory, .train_disk = disk, .spill = "/tmp"
	};
	EngineError error;

	run_data_init(data);
	run_data_begin(data, &begin, false);
	for (int i = 0; i < PAIRS; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i], &length);

		if (!run_data_check_room(data, length, &error) || !run_data_add(data, body, length, &error))
			bail_out("a pair was refused: %s", error.message);
		free(body);
	}
	if (!run_data_complete(data, &error))
		bail_out("%s", error.message);
}

/*
 * What a batch should hold, made without the feed: the whole-image transforms
 * one after the other.
 */
static void
expect_image(const RunPair *pair, int side, RunAugmentation how, RunVariation variation, float *out)
{
	int channels = side == 0 ? 1 : 3;
	uint8_t square[SIZE * SIZE * 3];
	Image decoded, resized;
	ImageError error;

	if (image_decode(pairs[pair->ordinal - 1].bytes[side], pairs[pair->ordinal - 1].length[side],
					 channels, 0, &plenty, &decoded, &error) != IMAGE_OK ||
		image_resize(&decoded, LOAD, LOAD, &resized, &error) != IMAGE_OK)
		bail_out("cannot decode a pair");
	for (int i = 0; i < SIZE * SIZE * channels; i++)
		square[i] =
			resized.pixels[((how.y + i / channels / SIZE) * LOAD + how.x + i / channels % SIZE) *
							   channels +
						   i % channels];
	if (variation.turned)
		run_vary_turn(&variation, resized.pixels, LOAD, channels, how.x, how.y, square, SIZE);
	if (variation.coloured[side])
		run_vary_colour(&variation, square, SIZE * SIZE, channels);
	for (int y = 0; y < SIZE; y++)
		for (int x = 0; x < SIZE; x++)
			for (int c = 0; c < channels; c++)
			{
				int from = how.flip ? SIZE - 1 - x : x;
				float level = (float) square[(y * SIZE + from) * channels + c] / 255.0f;

				out[(y * SIZE + x) * channels + c] = (level - 0.5f) / 0.5f;
			}
	image_free(&decoded);
	image_free(&resized);
}

/*
 * Runs a feed of its own from `iteration` to the end and compares every batch;
 * returns how many were right.
 */
static int
run_feed(RunData *data, int threads, int64_t iteration, uint64_t *cached)
{
	static Engine engine;
	RunFeed feed;
	EngineError error;
	float a[BATCH * SIZE * SIZE], b[BATCH * SIZE * SIZE * 3], expected[SIZE * SIZE * 3];
	uint32_t order[PAIRS];
	int right = 0;

	if (!engine_init(&engine))
		bail_out("cannot make descriptors");
	budget_limits(&engine);
	run_feed_init(&feed);
	if (!executor_start(&engine.pool, &engine.completions, "feed", threads) ||
		!run_feed_start(&feed, &engine, data, &config, &options, iteration, ITERATIONS, &error))
		bail_out("cannot start a feed");
	for (int64_t i = iteration; i < ITERATIONS; i++)
	{
		bool same = run_feed_next(&feed, a, b, &error);
		int64_t epoch = i / 3 + 1;

		run_feed_permutation(options.seed, epoch, PAIRS, order);
		for (int k = 0; k < BATCH && same; k++)
		{
			uint64_t rank = (uint64_t) (i % 3 * BATCH + k);
			RunAugmentation how =
				run_feed_augmentation(options.seed, epoch, rank, LOAD, SIZE, true);
			RunVariation variation = run_feed_variation(&options, epoch, rank);

			expect_image(&data->pairs[order[rank]], 0, how, variation, expected);
			same = same && memcmp(expected, a + k * SIZE * SIZE, SIZE * SIZE * sizeof(float)) == 0;
			expect_image(&data->pairs[order[rank]], 1, how, variation, expected);
			same = same &&
				   memcmp(expected, b + k * SIZE * SIZE * 3, SIZE * SIZE * 3 * sizeof(float)) == 0;
		}
		right += same;
	}
	*cached = feed.cached;
	run_feed_stop(&feed);
	engine_free(&engine); /* takes back the feed's tasks */
	run_feed_free(&feed);
	return right;
}

static void
test_batches(void)
{
	RunData data;
	uint64_t cached;
	const uint64_t one = LOAD * LOAD * 4;

	fill(&data, 1 << 24, 0);
	ok(run_feed(&data, 1, 0, &cached) == ITERATIONS, "one thread makes the right batches");
	ok(cached == PAIRS * one, "and keeps the pixels");
	ok(run_feed(&data, 3, 0, &cached) == ITERATIONS && cached == 0,
	   "from which three threads make the same");
	run_data_free(&data);
	fill(&data, 1 << 24, 0);
	ok(run_feed(&data, 3, 4, &cached) == ITERATIONS - 4,
	   "a feed that starts in the middle of an epoch does too");
	options.rotate = 20;
	options.scale = 0.2;
	options.jitter = 0.3;
	ok(run_feed(&data, 3, 4, &cached) == ITERATIONS - 4,
	   "and turns and colours pairs as seed, epoch and place say");
	options.rotate = options.scale = options.jitter = 0;
	run_data_free(&data);

	fill(&data, PAIRS * sizeof(RunPair) + 3 * one, 1 << 24);
	ok(data.spill_fd >= 0 && data.spilled > 0 && data.memory <= data.memory_limit,
	   "pairs beyond the memory go to disk");
	ok(run_feed(&data, 2, 0, &cached) == ITERATIONS && cached <= 3 * one,
	   "and are read from there, with what memory is left for pixels");
	run_data_free(&data);
}

/*
 * A feed that is stopped while nobody takes its batches ends; so does one whose
 * pair cannot be decoded, at the right batch.
 */
static void
test_ends(void)
{
	static Engine engine;
	RunData data;
	RunFeed feed;
	EngineError error;
	float a[BATCH * SIZE * SIZE], b[BATCH * SIZE * SIZE * 3];
	uint32_t order[PAIRS];
	int batches = 0;
	RunPair *pair;
	char row[64];

	fill(&data, 1 << 24, 0);
	run_feed_permutation(options.seed, 1, PAIRS, order);
	pair = &data.pairs[order[4]];
	pair->bytes[pair->length[0] / 2] ^= 0x55;
	engine_init(&engine);
	budget_limits(&engine);
	run_feed_init(&feed);
	executor_start(&engine.pool, &engine.completions, "feed", 2);
	run_feed_start(&feed, &engine, &data, &config, &options, 0, ITERATIONS, &error);
	while (run_feed_next(&feed, a, b, &error))
		batches++;
	snprintf(row, sizeof(row), "image A of row %lld", (long long) pair->ordinal);
	ok(batches == 1 && strcmp(error.sqlstate, "22P03") == 0 && strstr(error.detail, row) != NULL &&
		   well_formed(error.message, error.detail),
	   "a damaged image ends the run at its batch: %s: %s", error.message, error.detail);
	usleep(50000);
	run_feed_stop(&feed);
	executor_stop(&engine.pool);
	ok(!run_feed_next(&feed, a, b, &error) && error.sqlstate[0] == '\0',
	   "a feed can be stopped while it waits");
	engine_free(&engine);
	run_feed_free(&feed);
	run_data_free(&data);
}

/*
 * Images do not take the memory that records of pairs on disk need: a quarter
 * of it is for them.
 */
static void
test_records(void)
{
	const int records = 4000;
	BicycleTrainBegin begin = { .max_pixels = 1 << 20,
								.train_memory = (uint64_t) records * sizeof(RunPair),
								.train_disk = 1 << 30,
								.spill = "/tmp" };
	RunData data;
	EngineError error;
	bool good = true;

	run_data_init(&data);
	run_data_begin(&data, &begin, false);
	for (int i = 0; i < records / 4 && good; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i % PAIRS], &length);

		good =
			run_data_check_room(&data, length, &error) && run_data_add(&data, body, length, &error);
		free(body);
	}
	ok(good && data.spilled > 0 && data.memory <= data.memory_limit,
	   "%lld pairs have room in memory and on disk", (long long) data.npairs);
	run_data_free(&data);
}

/*
 * Beyond memory and disk there is no room; a directory that is none is an
 * ordinary error.
 */
static void
test_room(void)
{
	BicycleTrainBegin begin = { .max_pixels = 1 << 20,
								.train_memory = 2 * sizeof(RunPair),
								.train_disk = 100000,
								.spill = "/dev/null/none" };
	RunData data;
	EngineError error;
	size_t length;
	uint8_t *body = pair_body(&pairs[0], &length);

	run_data_init(&data);
	run_data_begin(&data, &begin, false);
	ok(!run_data_check_room(&data, 200000, &error) && strcmp(error.sqlstate, "54000") == 0,
	   "a pair larger than memory and disk has no room");
	ok(run_data_check_room(&data, length, &error) && !run_data_add(&data, body, length, &error) &&
		   strcmp(error.sqlstate, "58030") == 0 && well_formed(error.message, error.detail),
	   "a spill file that cannot be made is an error: %s: %s", error.message, error.detail);
	ok(data.npairs == 0, "and the pair is not there");
	run_data_free(&data);
	free(body);
}

/*
 * test/data/halves.txt: width, height, channels of A and B, side, crc of A and
 * B as the official code cuts them out of one image, which is noise with seed
 * width * 1000 + height.
 */
static void
test_halves(void)
{
	static Engine engine;
	BicycleTrainBegin begin = { .max_pixels = 1 << 20, .train_memory = 1 << 24 };
	size_t length;
	char *text = testdata_text("halves.txt", &length);
	int n = 0;

	settings_default(&engine.settings);
	budget_limits(&engine);
	for (char *line = text; line < text + length; line = strchr(line, '\n') + 1, n++)
	{
		int width, height, channels[2], side;
		unsigned crc[2];
		Pair pair = { 0 };
		RunData data;
		Image images[2], whole;
		ImageError image_error;
		EngineError error;
		uint8_t *body;
		size_t body_length;

		if (sscanf(line, "%d %d %d %d %d %x %x", &width, &height, &channels[0], &channels[1], &side,
				   &crc[0], &crc[1]) != 7)
			bail_out("halves.txt is not understood: %s", line);
		whole = noise_image(width, height, 3, (uint32_t) (width * 1000 + height));
		if (image_encode_png(&whole, &pair.bytes[0], &pair.length[0], &image_error) != IMAGE_OK)
			bail_out("cannot encode an image");
		run_data_init(&data);
		run_data_begin(&data, &begin, true);
		body = pair_body(&pair, &body_length);
		ok(run_data_add(&data, body, body_length, &error) && run_data_complete(&data, &error) &&
			   run_feed_decode(&engine, &data, &data.pairs[0], channels, side, images, &error) &&
			   image_crc(&images[0]) == crc[0] && image_crc(&images[1]) == crc[1],
		   "halves of %d x %d, %d and %d channel(s), to %d", width, height, channels[0],
		   channels[1], side);
		image_free(&images[0]);
		image_free(&images[1]);
		image_free(&whole);
		free(pair.bytes[0]);
		free(body);
		run_data_free(&data);
	}
	ok(n == 24, "all %d were there", n);
	free(text);
}

int
main(void)
{
	pairs = pairs_make(PAIRS);
	test_known();
	test_statistics();
	test_turns();
	test_colours();
	test_batches();
	test_ends();
	test_records();
	test_room();
	test_halves();
	pairs_free(pairs, PAIRS);
	return done_testing();
}
