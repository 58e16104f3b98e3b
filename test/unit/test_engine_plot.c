/*
 * A plot is a PNG of the size that was asked for, shows the data, and survives
 * any data.
 */
#include "engine_client.h"
#include "image_fixture.h"

#include "engine/engine.h"
#include "plot/plot.h"

#include <math.h>

#define DAMAGED 2000
#define PATIENCE_S 60 /* for a picture */

static DecodeBudget budget = { .lock = PTHREAD_MUTEX_INITIALIZER,
							   .wake = PTHREAD_COND_INITIALIZER,
							   .limit = 1 << 30 };

static void
put_head(Bytes *to, uint32_t width, uint32_t height, uint32_t series, const char *title)
{
	BicyclePlot head = { .width = width, .height = height, .series = series };

	snprintf(head.title, sizeof(head.title), "%s", title);
	put(to, &head, sizeof(head));
}

/* A loss that falls from `from` towards `to`, with noise. */
static void
put_series(Bytes *to, const char *name, uint32_t points, double from, double end)
{
	BicycleSeries head = { .points = points };
	uint64_t state = points + 1;

	snprintf(head.name, sizeof(head.name), "%s", name);
	put(to, &head, sizeof(head));
	for (uint32_t i = 0; i < points; i++)
	{
		double noise = 0.8 + 0.4 * (double) (testdata_random(&state) >> 11) / 9007199254740992.0;
		BicyclePoint p = { .x = 100.0 * (i + 1),
						   .y = (end + (from - end) * exp(-5.0 * i / points)) * noise };

		put(to, &p, sizeof(p));
	}
}

static Bytes
losses(double scale)
{
	Bytes plot = { 0 };

	put_head(&plot, 800, 500, 7, "emoji");
	put_series(&plot, "G_GAN", 1200, 1.1, 0.4);
	put_series(&plot, "D", 1200, 0.9, 0.25);
	put_series(&plot, "G_GAN2", 1200, 1.0, 0.35);
	put_series(&plot, "D2", 1200, 0.8, 0.3);
	put_series(&plot, "G_L1", 1200, 5.2 * scale, 0.9);
	put_series(&plot, "z_L1", 1200, 0.5, 0.1);
	put_series(&plot, "kl", 1200, 0.002, 0.04);
	return plot;
}

/* Draws and decodes; the image's pixels are NULL if it could not be drawn. */
static Image
drawn(const Bytes *plot)
{
	Image image = { 0 };
	ImageError image_error;
	EngineError error;
	uint8_t *png;
	size_t length;

	alarm(PATIENCE_S);
	if (!worker_draw_plot(&budget, plot->at, plot->n, 1 << 26, &png, &length, &error))
	{
		diag("%s: %s %s", error.sqlstate, error.message, error.detail);
		return image;
	}
	if (image_decode(png, length, 3, 0, &plenty, &image, &image_error) != IMAGE_OK)
		image.pixels = NULL;
	free(png);
	return image;
}

/* How many pixels are clearly of that colour (each channel within 24). */
static int
count_colour(const Image *image, int r, int g, int b)
{
	int n = 0;

	for (int i = 0; i < image->width * image->height; i++)
	{
		const uint8_t *p = image->pixels + 3 * i;

		n += abs(p[0] - r) < 24 && abs(p[1] - g) < 24 && abs(p[2] - b) < 24;
	}
	return n;
}

static void
test_picture(void)
{
	Bytes plot = losses(1);
	Bytes other = losses(2);
	Image image = drawn(&plot);
	Image changed = drawn(&other);
	bool there = image.pixels != NULL && changed.pixels != NULL;

	if (!ok(there && image.width == 800 && image.height == 500,
			"a plot is a PNG of the size that was asked for"))
		return;
	ok(image_crc(&image) != image_crc(&changed), "it differs with the data");
	ok(count_colour(&image, 255, 255, 255) > 200000, "on white");
	ok(count_colour(&image, 0, 115, 179) > 300 && count_colour(&image, 214, 94, 0) > 300 &&
		   count_colour(&image, 0, 158, 115) > 300,
	   "with a curve in each colour");
	image_free(&image);
	image_free(&changed);
	free(plot.at);
	free(other.at);
}

/* Whether the outermost columns, left and right, are white. */
static bool
has_white_border(const Image *image)
{
	bool white = image->pixels != NULL;

	for (int y = 0; white && y < image->height; y++)
		for (int side = 0; side < 2; side++)
		{
			int x = side * (image->width - 1);
			const uint8_t *p = image->pixels + 3 * (y * image->width + x);

			white &= p[0] == 255 && p[1] == 255 && p[2] == 255;
		}
	return white;
}

/* Longer and wider ones than losses have; a title has the name of a model. */
static void
test_names(void)
{
	static const char *const names[] = { "val_diversity", "val_reconstruction_lpips",
										 "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW" };
	char title[128];
	int good = 0;

	memset(title, 'W', sizeof(title) - 1);
	title[sizeof(title) - 1] = '\0';
	for (int i = 0; i < 3; i++)
		for (int width = 160; width <= 800; width += 160)
		{
			Bytes plot = { 0 };
			Image image;

			put_head(&plot, (uint32_t) width, 300, 1, title);
			put_series(&plot, names[i], 100, 1.1, 0.4);
			image = drawn(&plot);
			good += has_white_border(&image);
			image_free(&image);
			free(plot.at);
		}
	ok(good == 15, "no name in the legend and no title is cut off by the border (%d of 15)", good);
}

/*
 * The height at which a constant series of value y is drawn, beside another
 * from low to high.
 */
static int
height_of(double y, double low, double high)
{
	Bytes plot = { 0 };
	Image image;
	int height = -1, least = 256;

	put_head(&plot, 400, 400, 2, "");
	for (int i = 0; i < 2; i++)
	{
		BicycleSeries head = { .name = "s", .points = 2 };
		BicyclePoint p[2] = { { 0, i == 0 ? y : low }, { 1, i == 0 ? y : high } };

		put(&plot, &head, sizeof(head));
		put(&plot, p, sizeof(p));
	}
	image = drawn(&plot);
	/*
	 * The row with the least red and much blue: the line may lie between two
	 * rows.
	 */
	for (int row = 40; image.pixels != NULL && row < 350; row++)
	{
		const uint8_t *p = image.pixels + (row * 400 + 80) * 3;

		if (p[2] > p[0] + 60 && p[0] < least)
		{
			least = p[0];
			height = row;
		}
	}
	image_free(&image);
	free(plot.at);
	return height;
}

static void
test_axes(void)
{
	/*
	 * Between top (32) and bottom (354): 5 of 0..10 is in the middle, 1 of
	 * 0.01..100 too.
	 */
	int linear = height_of(5, 0, 10);
	int logarithmic = height_of(1, 0.01, 100);
	int negative = height_of(0, -100, 100);

	ok(linear > 188 && linear < 198, "an axis over less than a decade or two is linear: %d",
	   linear);
	ok(logarithmic > 188 && logarithmic < 198, "one over more is logarithmic: %d", logarithmic);
	ok(negative > 188 && negative < 198, "but not if values are negative: %d", negative);
}

static void
test_odd(void)
{
	Bytes plot = { 0 };
	BicycleSeries head = { .points = 5 };
	BicyclePoint p[5] = { { 1, NAN }, { INFINITY, 2 }, { 3, 1e308 }, { 4, 0 }, { 5, 5e-324 } };
	Image image;

	put_head(&plot, 160, 160, 0, "");
	image = drawn(&plot);
	ok(image.pixels != NULL, "a plot of nothing is drawn");
	image_free(&image);
	free(plot.at);
	plot = (Bytes){ 0 };
	put_head(&plot, 300, 200, 2, "\xff\xfe bad \x01 text");
	memcpy(head.name, "\xc3\x28", 3);
	put(&plot, &head, sizeof(head));
	put(&plot, p, sizeof(p));
	head.points = 1;
	put(&plot, &head, sizeof(head));
	put(&plot, &p[3], sizeof(p[3]));
	image = drawn(&plot);
	ok(image.pixels != NULL, "so is one of awkward numbers and names");
	image_free(&image);
	free(plot.at);
	plot = (Bytes){ 0 };
	put_head(&plot, 300, 800, 1, "");
	head.points = 5;
	for (int i = 0; i < 5; i++)
		p[i] = (BicyclePoint){ i, i % 2 ? nextafter(1e20, INFINITY) : 1e20 };
	put(&plot, &head, sizeof(head));
	put(&plot, p, sizeof(p));
	image = drawn(&plot);
	ok(image.pixels != NULL, "and one of large numbers that differ in their last bit");
	image_free(&image);
	free(plot.at);
}

/*
 * Values between which a step of an axis is no number: adding it changes
 * nothing, or it is 0.
 */
static void
test_close_values(void)
{
	static const double pairs[][2] = {
		{ 1e16, 1e16 + 2 }, { 0, 5e-324 }, { -1e299, 1e299 }, { 1e299, 1e299 * (1 + 2e-16) }
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		for (int swap = 0; swap < 2; swap++)
		{
			Bytes plot = { 0 };
			BicycleSeries head = { .name = "close", .points = 2 };
			BicyclePoint p[2] = { { pairs[i][0], pairs[i][0] }, { pairs[i][1], pairs[i][1] } };
			Image image;

			if (swap)
				p[0].x = p[1].y = 1;
			put_head(&plot, 200, 160, 1, "");
			put(&plot, &head, sizeof(head));
			put(&plot, p, sizeof(p));
			image = drawn(&plot);
			ok(image.pixels != NULL && budget.used == 0, "values from %g to %g are drawn",
			   pairs[i][0], pairs[i][1]);
			image_free(&image);
			free(plot.at);
		}
}

static void
test_damaged(void)
{
	Bytes plot = { 0 };
	uint64_t state = 5;
	int refused = 0;
	bool sane = true;

	put_head(&plot, 200, 160, 2, "damage");
	put_series(&plot, "one", 20, 1, 0.1);
	put_series(&plot, "two", 20, 1, 0.001);
	for (int i = 0; i < DAMAGED; i++)
	{
		size_t length, png_length;
		uint8_t *damaged = testdata_damage(plot.at, plot.n, &state, &length);
		uint8_t *png;
		EngineError error;

		alarm(PATIENCE_S);
		if (!worker_draw_plot(&budget, damaged, length, 1 << 20, &png, &png_length, &error))
		{
			refused++;
			sane = sane && png == NULL && well_formed(error.message, error.detail);
		}
		free(png);
		free(damaged);
	}
	ok(sane && refused > DAMAGED / 8 && refused < DAMAGED,
	   "%d of %d damaged plots are refused, all with an ordinary error", refused, DAMAGED);
	free(plot.at);
}

static void
test_request(void)
{
	static const char *const settings[] = { "device cpu", "threads 1", NULL };
	EngineProcess engine;
	Client client;
	Bytes plot = losses(1);
	ImageCall call = { .type = BICYCLE_PLOT, .image = plot.at, .length = plot.n };
	ImageInfo info;
	ImageError error;

	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	ok(client_run(&client, 1, &call, NULL) &&
		   image_info(client.body, client.frame.length, &info, &error) == IMAGE_OK &&
		   info.width == 800 && info.height == 500,
	   "an engine draws a plot");
	if (getenv("BICYCLE_PLOT") != NULL)
	{
		FILE *file = fopen(getenv("BICYCLE_PLOT"), "wb");

		if (file == NULL ||
			fwrite(client.body, 1, client.frame.length, file) != client.frame.length ||
			fclose(file) != 0)
			bail_out("cannot write the plot");
	}
	call.max_pixels = 1000;
	ok(!client_run(&client, 2, &call, NULL) && client_is_error(&client, "54000"),
	   "but none beyond max_pixels");
	call.max_pixels = 0;
	call.length -= 3;
	ok(!client_run(&client, 3, &call, NULL) && client_is_error(&client, "08P01"),
	   "nor one that is cut off");
	((BicyclePlot *) plot.at)->width = 20;
	call.length += 3;
	ok(!client_run(&client, 4, &call, NULL) && client_is_error(&client, "22023"), "nor a tiny one");
	((BicyclePlot *) plot.at)->width = 8192;
	engine_set(&engine, "engine_memory 100000000");
	ok(!client_run(&client, 5, &call, NULL) && client_is_error(&client, "53200"),
	   "nor one for which there is no memory");
	client_close(&client);
	ok(engine_end(&engine), "and ends in order");
	free(plot.at);
}

int
main(void)
{
	test_picture();
	test_names();
	test_axes();
	test_odd();
	test_close_values();
	test_damaged();
	test_request();
	plot_forget();
	return done_testing();
}
