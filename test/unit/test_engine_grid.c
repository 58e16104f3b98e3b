/*
 * A grid shows each image in its cell, with its label below; what cannot be
 * decoded leaves its cell empty; and a grid survives any bytes.
 */
#include "engine_client.h"
#include "image_fixture.h"

#include "engine/engine.h"
#include "plot/grid.h"

#define DAMAGED 2000
#define PATIENCE_S 60 /* for a page */
#define GAP 2
#define LABEL 18
#define PAGE_PIXELS (1 << 22)

static void
no_progress(void)
{
}

static bool
always(void *arg)
{
	return true;
}

/* True `*arg` times. */
static bool
a_few_times(void *arg)
{
	return (*(int *) arg)-- > 0;
}

static void
put_grid(Bytes *to, uint32_t columns, uint32_t size, uint32_t cells, uint32_t labelled)
{
	BicycleGrid head = { .columns = columns, .size = size, .cells = cells, .labelled = labelled };

	put(to, &head, sizeof(head));
}

/* label may be NULL. */
static void
put_cell(Bytes *to, const void *file, size_t length, const char *label)
{
	BicycleCell cell = { .image_length = file != NULL ? (uint32_t) length : BICYCLE_NO_IMAGE,
						 .label_length = label != NULL ? (uint32_t) strlen(label) : 0 };

	put(to, &cell, sizeof(cell));
	if (file != NULL)
		put(to, file, length);
	if (label != NULL)
		put(to, label, strlen(label));
}

/* A PNG of one colour. */
static void
put_colour(Bytes *to, int width, int height, const uint8_t colour[3], const char *label)
{
	Image image = { width, height, 3, malloc((size_t) (width * height * 3)) };
	ImageError error;
	uint8_t *png;
	size_t length;

	for (int i = 0; i < width * height * 3; i++)
		image.pixels[i] = colour[i % 3];
	if (image_encode_png(&image, &png, &length, &error) != IMAGE_OK)
		bail_out("cannot write a PNG");
	put_cell(to, png, length, label);
	image_free(&image);
	free(png);
}

/* No pixels if it was refused. *nbad may be NULL. */
static Image
page_of(const Bytes *bytes, uint32_t *nbad, PlotError *error)
{
	Image image = { 0 };
	const GridBad *bad;
	Grid *grid;

	alarm(PATIENCE_S);
	if (grid_read(bytes->at, bytes->n, PAGE_PIXELS, 0, &grid, error) != PLOT_OK)
		return image;
	(void) grid_draw(grid, no_progress, always, NULL, &image, error);
	if (nbad != NULL)
		*nbad = grid_bad(grid, &bad);
	grid_free(grid);
	return image;
}

static const uint8_t red[3] = { 255, 0, 0 }, blue[3] = { 0, 0, 255 }, white[3] = { 255, 255, 255 };

/* How many pixels of a rectangle are of another colour. */
static int
count_others(const Image *page, int x, int y, int width, int height, const uint8_t colour[3])
{
	int n = 0;

	for (int row = y; row < y + height; row++)
		for (int column = x; column < x + width; column++)
			n += memcmp(page->pixels + 3 * (row * page->width + column), colour, 3) != 0;
	return n;
}

static void
test_places(void)
{
	Bytes bytes = { 0 };
	PlotError error;
	uint32_t nbad = 0;
	Image page;

	put_grid(&bytes, 2, 20, 5, 0);
	put_colour(&bytes, 20, 20, red, NULL);
	put_colour(&bytes, 40, 20, blue, NULL);
	put_cell(&bytes, NULL, 0, NULL);
	put_cell(&bytes, "", 0, NULL);
	put_colour(&bytes, 1, 1, red, NULL);
	page = page_of(&bytes, &nbad, &error);
	if (ok(page.width == 2 * 22 + GAP && page.height == 3 * 22 + GAP,
		   "a page has its cells and gaps"))
	{
		ok(count_others(&page, GAP, GAP, 20, 20, red) == 0, "an image is in its cell");
		ok(count_others(&page, 24, 7, 20, 10, blue) == 0 &&
			   count_others(&page, 24, GAP, 20, 5, white) == 0 &&
			   count_others(&page, 24, 17, 20, 5, white) == 0,
		   "one that is wide is in the middle of its");
		ok(count_others(&page, GAP, 46, 20, 20, red) == 0, "a small one fills its");
		ok(nbad == 1 && count_others(&page, 0, 24, 46, 20, white) == 0,
		   "those without an image are empty");
		ok(count_others(&page, 22, 0, GAP, 68, white) == 0 &&
			   count_others(&page, 0, 22, 46, GAP, white) == 0,
		   "and so are the gaps");
	}
	image_free(&page);
	free(bytes.at);
}

/* Dark pixels below the cells of a row of two labels. */
static void
ink(const char *first, const char *second, int dark[2])
{
	Bytes bytes = { 0 };
	PlotError error;
	Image page;

	put_grid(&bytes, 2, 60, 2, 1);
	put_cell(&bytes, NULL, 0, first);
	put_cell(&bytes, NULL, 0, second);
	page = page_of(&bytes, NULL, &error);
	for (int i = 0; i < 2; i++)
		dark[i] = page.height == GAP + 60 + LABEL + GAP
					  ? count_others(&page, GAP + i * 62, GAP + 60, 60, LABEL, white)
					  : -1;
	/* what is not below a cell is white in any case */
	if (page.height > 0 && count_others(&page, 0, 0, 126, GAP + 60, white) +
								   count_others(&page, 62, 0, GAP, page.height, white) >
							   0)
		dark[0] = -1;
	image_free(&page);
	free(bytes.at);
}

static void
test_labels(void)
{
	char longest[600];
	int dark[2], other[2];

	memset(longest, 'm', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ink("a label", NULL, dark);
	ok(dark[0] > 20 && dark[1] == 0, "a label stands below its cell, and only there");
	ink(longest, "mm", dark);
	ok(dark[0] > dark[1] && dark[1] > 0, "one that is long is cut to its cell");
	ink("\xff\xfe\x80", "\x01\x7f\n", dark);
	ok(dark[0] > 0 && dark[1] == 0, "bytes that are no text are shown as such");
	ink("\xe4\xb8\xad", "\xf0\x9f\x98\x80", dark);
	ok(dark[0] > 0 && dark[1] > 0, "characters that the font may lack are shown as something");
	memset(longest, 'a', 255);
	memcpy(longest + 255, "\xe4\xb8\xad", 4);
	ink(longest, longest + 1, dark);
	ink("aaaaaaaaaaaaaaaaaaaaaaaaa", "", other);
	ok(dark[0] == other[0] && dark[1] == dark[0], "a text is cut between characters");
}

static void
test_limits(void)
{
	static const struct
	{
		uint32_t columns, size, cells, labelled;
		PlotStatus status;
	} heads[] = {
		{ 1, 16, 1, 0, PLOT_OK },
		{ UINT32_MAX, 16, 1, 0, PLOT_OK },
		{ 1, 7, 1, 0, PLOT_EMALFORMED },
		{ 1, UINT32_MAX, 1, 0, PLOT_EMALFORMED },
		{ 1, 4096, 1, 0, PLOT_ELIMIT },
		{ 1, 16, 0, 0, PLOT_EMALFORMED },
		{ 1, 16, 2, 0, PLOT_EMALFORMED },
		{ 1, 16, 1, 2, PLOT_EMALFORMED },
		{ 0, 0, UINT32_MAX, 0, PLOT_ELIMIT },
		{ 1, 8, 10000, 0, PLOT_ELIMIT },
		{ UINT32_MAX, 8, UINT32_MAX, 1, PLOT_ELIMIT },
	};

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
	{
		Bytes bytes = { 0 };
		PlotError error = { 0 };
		Image page;

		put_grid(&bytes, heads[i].columns, heads[i].size, heads[i].cells, heads[i].labelled);
		put_cell(&bytes, NULL, 0, NULL);
		page = page_of(&bytes, NULL, &error);
		ok(error.code == heads[i].status && (page.pixels != NULL) == (error.code == PLOT_OK),
		   "%u cells of %u pixels in %u columns: %d", heads[i].cells, heads[i].size,
		   heads[i].columns, error.code);
		image_free(&page);
		free(bytes.at);
	}
}

static void
test_stop(void)
{
	Bytes bytes = { 0 };
	PlotError error;
	Image image;
	Grid *grid;
	int times = 2;

	put_grid(&bytes, 2, 16, 3, 0);
	for (int i = 0; i < 3; i++)
		put_colour(&bytes, 16, 16, red, NULL);
	if (grid_read(bytes.at, bytes.n, PAGE_PIXELS, 0, &grid, &error) != PLOT_OK)
		bail_out("cannot read a grid");
	ok(grid_draw(grid, no_progress, a_few_times, &times, &image, &error) == PLOT_EFAILED &&
		   image.pixels == NULL && times == -1,
	   "a grid that is not wanted any more ends before its next image");
	grid_free(grid);
	free(bytes.at);
}

static void
test_damaged_grid(void)
{
	Bytes bytes = { 0 };
	uint64_t state = 7;
	int refused = 0;
	bool sane = true;

	put_grid(&bytes, 2, 16, 3, 1);
	put_colour(&bytes, 8, 8, red, "one");
	put_cell(&bytes, NULL, 0, "two");
	put_colour(&bytes, 8, 8, blue, NULL);
	for (int i = 0; i < DAMAGED; i++)
	{
		Bytes damaged = { 0 };
		PlotError error = { 0 };
		Image page;

		damaged.at = testdata_damage(bytes.at, bytes.n, &state, &damaged.n);
		page = page_of(&damaged, NULL, &error);
		refused += page.pixels == NULL;
		sane = sane && (page.pixels != NULL || well_formed(error.message, error.detail));
		image_free(&page);
		free(damaged.at);
	}
	ok(sane && refused > DAMAGED / 8 && refused < DAMAGED,
	   "%d of %d damaged grids are refused, all with an ordinary error", refused, DAMAGED);
	free(bytes.at);
}

static void
test_request(void)
{
	static const char *const settings[] = { "device cpu", "threads 1", NULL };
	EngineProcess engine;
	Client client;
	Bytes bytes = { 0 };
	ImageCall call = { .type = BICYCLE_GRID };
	BicycleGridDone done;
	BicycleBadCell bad;
	ImageInfo info;
	ImageError error;

	put_grid(&bytes, 4, 64, 5, 1);
	put_colour(&bytes, 64, 64, red, "red");
	for (int i = 0; i < 4; i++)
		put_cell(&bytes, "x", 1, "none");
	call.image = bytes.at;
	call.length = bytes.n;
	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	ok(client_run(&client, 1, &call, NULL) && client.frame.length > sizeof(done),
	   "an engine draws a grid");
	memcpy(&done, client.body, sizeof(done));
	memcpy(&bad, client.body + sizeof(done), sizeof(bad));
	ok(done.bad == 4 && done.reported == BICYCLE_GRID_REASONS && bad.cell == 1 &&
		   strcmp(bad.sqlstate, "22P03") == 0 && well_formed(bad.text[0], bad.text[1]),
	   "it says how many images could not be used, and of the first ones why");
	ok(image_info(client.body + sizeof(done) + done.reported * sizeof(bad),
				  client.frame.length - sizeof(done) - done.reported * sizeof(bad), &info,
				  &error) == IMAGE_OK &&
		   info.width == 4 * 66 + GAP && info.height == 2 * (66 + LABEL) + GAP,
	   "and the page follows");
	call.max_pixels = 1000;
	ok(!client_run(&client, 2, &call, NULL) && client_is_error(&client, "54000"),
	   "no page beyond max_pixels");
	call.max_pixels = 0;
	call.length -= 3;
	ok(!client_run(&client, 3, &call, NULL) && client_is_error(&client, "08P01"),
	   "nor one that is cut off");
	call.length += 3;
	((BicycleGrid *) bytes.at)->size = 1900;
	engine_set(&engine, "engine_memory 100000000");
	ok(!client_run(&client, 4, &call, NULL) && client_is_error(&client, "53200"),
	   "nor one for which there is no memory");
	client_close(&client);
	ok(engine_end(&engine), "and ends in order");
	free(bytes.at);
}

int
main(void)
{
	test_places();
	test_labels();
	test_limits();
	test_stop();
	test_damaged_grid();
	test_request();
	plot_forget();
	return done_testing();
}
