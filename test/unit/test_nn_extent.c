/*
 * Proves that a generator runs at other sizes than its own: on the CPU what the
 * reference device computes there, with both kinds of upsampling and of
 * injection, wide, tall and small, and what the official code does; that bytes
 * depend neither on batch, threads nor on what ran before; that plans of other
 * sizes are kept within limits; and that the rule by which the CPU chooses
 * algorithms gives the table that stored results were made with.
 */
#include "model_fixture.h"
#include "nn/cpu/cpu.h"
#include "testdata.h"

#include <jansson.h>

#define UNIT 64 /* of six levels */
#define AREA (512 * 256)

typedef struct Images
{
	NnExtent extent;
	int n;
	uint8_t *in, *out;
	float *floats, *result, *z;
} Images;

static size_t
image_pixels(const Images *i)
{
	return (size_t) i->extent.h * i->extent.w;
}

static Images
make_images(int h, int w, int n, int input_nc)
{
	Images i = { .extent = { h, w }, .n = n };
	size_t count = n * image_pixels(&i) * 3;
	uint32_t seed = 7;

	i.in = malloc(count);
	i.out = calloc(1, count);
	i.floats = malloc(count * sizeof(float));
	i.result = calloc(count, sizeof(float));
	i.z = malloc(n * 16 * sizeof(float));
	for (size_t k = 0; k < count; k++)
	{
		seed = 1664525u * seed + 1013904223u;
		i.in[k] = (uint8_t) (seed >> 24);
	}
	nn_normalise(i.in, count / 3 * input_nc, i.floats);
	nn_normal(3, 4, n * 16, i.z);
	return i;
}

static void
free_images(Images *i)
{
	free(i->in);
	free(i->out);
	free(i->floats);
	free(i->result);
	free(i->z);
}

static bool
translate(NnModel *model, Images *i)
{
	bool done = nn_model_translate_at(model, i->extent, i->n, i->in, i->z, i->out, &error) == NN_OK;

	if (!done)
		diag("%s: %s", error.message, error.detail);
	return done;
}

/* ---- Numbers ------------------------------------------------------------- */

/* The largest difference of two devices' results at a size. */
static double
difference(NnModel *a, NnModel *b, int h, int w)
{
	Images x = make_images(h, w, 1, 3), y = make_images(h, w, 1, 3);
	double most = 0;

	if (nn_model_translate_float_at(a, x.extent, 1, x.floats, x.z, x.result, &error) != NN_OK ||
		nn_model_translate_float_at(b, y.extent, 1, y.floats, y.z, y.result, &error) != NN_OK)
	{
		diag("%s", error.message);
		most = INFINITY;
	}
	for (size_t k = 0; k < image_pixels(&x) * 3; k++)
		most = fmax(most, fabs((double) x.result[k] - y.result[k]));
	free_images(&x);
	free_images(&y);
	return most;
}

static void
test_numbers(NnDevice *ref, NnDevice *cpu, const char *json)
{
	static const int sizes[][2] = {
		{ 64, 64 },  { 64, 128 }, { 128, 64 },  { 128, 128 },
		{ 192, 64 }, { 64, 512 }, { 192, 128 }, { 128, 320 },
	};
	ModelFixture f = model_fixture(json);
	NnModel *a = model_fixture_load(ref, &f, NN_PRECISION_AUTO),
			*b = model_fixture_load(cpu, &f, NN_PRECISION_AUTO);
	double most = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		double d = difference(a, b, sizes[i][0], sizes[i][1]);

		if (!(d < 1e-3))
			diag("%d x %d: %g", sizes[i][1], sizes[i][0], d);
		most = fmax(most, d);
	}
	ok(most < 1e-3, "8 sizes of %s agree within %.1e", json, most);
	nn_model_free(a);
	nn_model_free(b);
	model_fixture_free(&f);
}

/* In bf16 an image is the reference's within 40 dB. */
static void
test_half(NnDevice *ref, NnDevice *cpu)
{
	static const int sizes[][2] = { { 64, 128 }, { 192, 64 }, { 128, 192 } };
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":8,\"net_e\":\"none\"}");
	NnModel *a = model_fixture_load(ref, &f, NN_PRECISION_FP32),
			*b = model_fixture_load(cpu, &f, NN_PRECISION_BF16);
	double worst = INFINITY;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		Images x = make_images(sizes[i][0], sizes[i][1], 1, 3),
			   y = make_images(sizes[i][0], sizes[i][1], 1, 3);
		double sum = translate(a, &x) && translate(b, &y) ? 1e-9 : INFINITY;
		size_t count = image_pixels(&x) * 3;

		for (size_t k = 0; k < count; k++)
			sum += (double) (x.out[k] - y.out[k]) * (x.out[k] - y.out[k]);
		worst = fmin(worst, 10 * log10(255.0 * 255 * count / sum));
		free_images(&x);
		free_images(&y);
	}
	ok(worst >= 40, "other sizes in bf16: PSNR %.1f dB", worst);
	nn_model_free(a);
	nn_model_free(b);
	model_fixture_free(&f);
}

/* ---- The official code's numbers ----------------------------------------- */

/* The next case of extents.bin (extents.py); NULL at its end. */
static json_t *
read_case(FILE *file, double **samples)
{
	unsigned char head[4];
	uint32_t length;
	char *text;
	json_t *about;
	size_t count;

	if (fread(head, 1, 4, file) != 4)
		return NULL;
	length = head[0] | head[1] << 8 | head[2] << 16 | (uint32_t) head[3] << 24;
	text = malloc(length);
	about = fread(text, 1, length, file) == length ? json_loadb(text, length, 0, NULL) : NULL;
	free(text);
	count = json_integer_value(json_object_get(about, "count"));
	*samples = malloc(count * sizeof(double) + 1);
	if (fread(*samples, sizeof(double), count, file) != count)
		diag("extents.bin is cut");
	return about;
}

/* The largest difference, of a sample or of the root mean square. */
static double
official_difference(NnDevice *device, const json_t *about, const double *samples)
{
	char *json = json_dumps(json_object_get(about, "config"), 0);
	ModelFixture f = model_fixture(json);
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_FP32);
	NnExtent e = { (int) json_integer_value(json_object_get(about, "height")),
				   (int) json_integer_value(json_object_get(about, "width")) };
	size_t in = (size_t) e.h * e.w * f.config.input_nc,
		   out = (size_t) e.h * e.w * f.config.output_nc,
		   count = json_integer_value(json_object_get(about, "count")),
		   stride = json_integer_value(json_object_get(about, "stride"));
	double *image = lcg_images(11, 1, (NnShape){ 1, e.h, e.w, f.config.input_nc }), z[16];
	float *x = floats_of(image, in), *y = floats_of(NULL, out), *code;
	double squares = 0, worst;

	lcg_fill(99, 1.5, f.config.nz, z);
	code = floats_of(z, f.config.nz);
	worst = nn_model_translate_float_at(model, e, 1, x, code, y, &error) == NN_OK ? 0 : INFINITY;
	for (size_t i = 0; i < count; i++)
		worst = fmax(worst, fabs(y[i * stride] - samples[i]));
	for (size_t i = 0; i < out; i++)
		squares += (double) y[i] * y[i];
	worst = fmax(worst, fabs(sqrt(squares / out) -
							 sqrt(json_number_value(json_object_get(about, "sumsq")) / out)));
	diag("%4d x %4d: %.1e %s", e.w, e.h, worst, json);
	nn_model_free(model);
	model_fixture_free(&f);
	free(image);
	free(x);
	free(y);
	free(code);
	free(json);
	return worst;
}

static void
test_official(NnDevice *device)
{
	FILE *file = fopen(testdata_path("fit/extents.bin"), "rb");
	double *samples, worst = 0;
	json_t *about;
	int n = 0;

	while (file && (about = read_case(file, &samples)) != NULL)
	{
		worst = fmax(worst, official_difference(device, about, samples));
		json_decref(about);
		free(samples);
		n++;
	}
	if (file)
		fclose(file);
	ok(n == 20 && worst < 2e-4,
	   "%d sizes and shapes are the official code's within %.1e, and a level is 7.8e-3", n, worst);
}

/* ---- The rule ------------------------------------------------------------ */

/*
 * By what each convolution of G is computed, in their order: D over frames, 1
 * to 3 by tiles of so many outputs, capitals A to C if they lie on a grid.
 */
static void
rule_of(const char *json, char *letters)
{
	ModelFixture f = model_fixture(json);
	NnGraph g;
	int side = f.config.size, image, z;

	nn_graph_init(&g, &f.params);
	image = nn_input(&g, (NnShape){ 1, side, side, f.config.input_nc }, "image");
	z = nn_input(&g, (NnShape){ 1, 1, 1, f.config.nz }, "z");
	nn_net_G(&g, &f.config, image, z, 0);
	for (int i = 0; i < g.nnodes; i++)
	{
		NnNode node;
		const NnNode *end;
		CpuLayer layer = { 0 };

		if (!nn_ops[g.nodes[i].op].filters)
			continue;
		node = cpu_step_conv(&g, i);
		end = &g.nodes[cpu_step_end(&g, i)];
		layer.in = g.values[node.in[0]].shape;
		layer.out = g.values[end->out[0]].shape;
		cpu_layout(&node, end, cpu_kernels_base.fp32, &layer);
		*letters++ = layer.layout.algorithm == CPU_FRAMES
						 ? 'D'
						 : (char) ((layer.tiling.grid ? '@' : '0') + layer.tiling.m);
	}
	*letters = '\0';
	nn_graph_free(&g);
	model_fixture_free(&f);
}

/* If a line changes so do all results of the CPU (R3 of nn.h). */
static void
test_rule(void)
{
	static const struct
	{
		const char *json, *letters;
	} cases[] = {
		{ "{\"size\":64,\"net_e\":\"none\"}", "D2211111122C" },
		{ "{\"size\":128,\"net_e\":\"none\"}", "D32211111122CC" },
		{ "{\"size\":256,\"net_e\":\"none\"}", "D332211111122CCC" },
		{ "{\"size\":512,\"net_e\":\"none\",\"ngf\":32}", "D3332211111122CC2C" },
		{ "{\"size\":256,\"net_e\":\"none\",\"upsample\":\"bilinear\"}", "D3322111DD222222" },
		{ "{\"size\":128,\"net_e\":\"none\",\"ngf\":8,\"where_add\":\"input\"}", "DD22111111222C" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char letters[64];

		rule_of(cases[i].json, letters);
		ok(strcmp(letters, cases[i].letters) == 0, "the rule gives %s for %s", letters,
		   cases[i].json);
	}
}

/* ---- Bytes --------------------------------------------------------------- */

static void
test_bytes(NnDevice *device, const char *json, NnPrecision precision)
{
	ModelFixture f = model_fixture(json);
	NnModel *model = model_fixture_load(device, &f, precision);
	Images all = make_images(128, 192, 5, 3), one = make_images(128, 192, 1, 3);
	size_t pixels = image_pixels(&all) * 3;
	bool same = model && translate(model, &all);

	for (int i = 0; same && i < all.n; i++)
	{
		memcpy(one.in, all.in + i * pixels, pixels);
		memcpy(one.z, all.z + i * f.config.nz, f.config.nz * sizeof(float));
		nn_device_set_threads(device, 1 + i % 3);
		if (i == 3)
			nn_model_keep_extents(model, 0);
		same = translate(model, &one) && memcmp(one.out, all.out + i * pixels, pixels) == 0;
	}
	nn_device_set_threads(device, 2);
	ok(same,
	   "an image of 192 x 128 has the same bytes in a batch of 5, alone, on 1 to 3 threads, "
	   "and when its plans are made anew: %s on %s, %s",
	   json, device->name, nn_precision_name(nn_model_precision(model)));
	free_images(&all);
	free_images(&one);

	all = make_images(f.config.size, f.config.size, 3, 3);
	one = make_images(f.config.size, f.config.size, 3, 3);
	same = nn_model_translate(model, 3, one.in, one.z, one.out, &error) == NN_OK &&
		   translate(model, &all) && memcmp(one.out, all.out, 3 * image_pixels(&all) * 3) == 0 &&
		   nn_model_extents_bytes(model) < nn_model_bytes(model);
	nn_model_keep_extents(model, 0);
	ok(same && nn_model_extents_bytes(model) == 0,
	   "the model's own size is the size of calls that name none");
	free_images(&all);
	free_images(&one);
	nn_model_free(model);
	model_fixture_free(&f);
}

/* ---- Limits -------------------------------------------------------------- */

static void
test_limits(NnDevice *device)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":2,\"net_e\":\"none\"}");
	NnModel *model = model_fixture_load(device, &f, NN_PRECISION_AUTO);
	size_t least = nn_model_bytes(model), most = 0, taken, figure;
	bool good = true;

	for (int i = 1; good && i <= 2 * NN_MAX_EXTENTS; i++)
	{
		Images x = make_images(UNIT * (1 + i % 5), UNIT * (2 + i % 7), 1, 3);

		good = translate(model, &x);
		free_images(&x);
		most = nn_model_extents_bytes(model) > most ? nn_model_extents_bytes(model) : most;
	}
	ok(good && most > 0, "sizes of all kinds run, and take %zu bytes at most", most);
	nn_model_keep_extents(model, most / 3);
	taken = nn_model_extents_bytes(model);
	ok(taken > 0 && taken <= most / 3, "of them as many are kept as a limit lets");
	nn_model_shrink(model);
	ok(nn_model_extents_bytes(model) == 0 &&
		   nn_model_bytes(model) <= least + nn_model_batch_bytes(model, NN_NET_G, 1, &error) * 2,
	   "a shrunken model has none");

	{
		Images x = make_images(256, 512, 1, 3);

		figure = nn_model_image_bytes(model, x.extent, &error);
		good = translate(model, &x);
		taken = nn_model_extents_bytes(model);
		ok(good && figure > 0 && taken <= figure && taken >= figure / 3,
		   "what an image takes is known before: %zu bytes, and %zu on %s", figure, taken,
		   device->name);
		free_images(&x);
	}
	for (int i = 0; i < 2; i++)
	{
		Images x = make_images(i ? 96 : 32, 64, 1, 3);

		ok(nn_model_translate_at(model, x.extent, 1, x.in, x.z, x.out, &error) == NN_EINVAL &&
			   nn_model_image_bytes(model, x.extent, &error) == 0 &&
			   strstr(error.message, "cannot run"),
		   "what is no multiple of 64 is refused");
		free_images(&x);
	}
	nn_model_free(model);
	model_fixture_free(&f);
}

/* ---- Which size ---------------------------------------------------------- */

static void
test_fit(void)
{
	static const struct
	{
		int levels, width, height, w, h; /* w 0: refused */
	} cases[] = {
		{ 6, 64, 64, 64, 64 },
		{ 6, 1, 1, 64, 64 },
		{ 6, 95, 96, 64, 128 },
		{ 6, 159, 160, 128, 192 },
		{ 8, 1920, 1080, 2048, 1024 },
		{ 9, 300, 40, 512, 512 },
		{ 6, 800, 100, 832, 128 },
		{ 6, 801, 100, 0, 0 },
		{ 6, 100, 801, 0, 0 },
		{ 6, 8, 1, 64, 64 },
		{ 6, 9, 1, 0, 0 },
		{ 6, 0, 5, 0, 0 },
		{ 6, 8192, 16384, 8192, 16384 },
		{ 6, 8256, 16384, 0, 0 },
		{ 6, INT32_MAX, INT32_MAX, 0, 0 },
	};
	bool good = true;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		NnConfig config = { .levels = cases[i].levels };
		NnExtent e = { 0 };
		bool fits = nn_extent_fit(&config, cases[i].width, cases[i].height, &e);

		if (fits != (cases[i].w > 0) || (fits && (e.w != cases[i].w || e.h != cases[i].h)))
		{
			diag("%d x %d on %d levels: %d x %d", cases[i].width, cases[i].height, cases[i].levels,
				 e.w, e.h);
			good = false;
		}
	}
	ok(good, "sides go to the nearest multiple, halves up; 8 : 1 at most, 2^27 pixels at most");
}

int
main(void)
{
	NnDevice *ref, *cpu;

	if (!ok(nn_device_open("ref", 1, &ref, &error) == NN_OK &&
				nn_device_open("cpu", 2, &cpu, &error) == NN_OK,
			"devices open"))
		return done_testing();
	test_fit();
	test_rule();
	test_official(cpu);
	test_numbers(ref, cpu, "{\"size\":64,\"ngf\":4,\"net_e\":\"none\"}");
	test_numbers(ref, cpu, "{\"size\":64,\"ngf\":4,\"net_e\":\"none\",\"upsample\":\"bilinear\"}");
	test_numbers(ref, cpu,
				 "{\"size\":128,\"levels\":6,\"ngf\":16,\"net_e\":\"none\",\"where_add\":"
				 "\"input\",\"nz\":3}");
	test_numbers(ref, cpu,
				 "{\"size\":64,\"ngf\":5,\"net_e\":\"none\",\"where_add\":\"input\",\"upsample\":"
				 "\"bilinear\",\"norm\":\"batch\",\"nl\":\"elu\"}");
	test_numbers(ref, cpu, "{\"size\":64,\"ngf\":16,\"net_e\":\"none\",\"norm\":\"none\"}");
	test_numbers(ref, cpu,
				 "{\"size\":64,\"ngf\":4,\"family\":\"pix2pix\",\"nz\":0,\"norm\":\"batch\","
				 "\"statistics\":\"image\",\"test_dropout\":5}");
	for (int i = 0; i < 2; i++)
	{
		NnDevice *device = i ? cpu : ref;

		test_bytes(device, "{\"size\":64,\"ngf\":4,\"nef\":4}", NN_PRECISION_AUTO);
		test_bytes(device,
				   "{\"size\":64,\"ngf\":3,\"net_e\":\"none\",\"where_add\":\"input\","
				   "\"upsample\":\"bilinear\"}",
				   NN_PRECISION_AUTO);
		test_limits(device);
	}
	if (nn_device_supports(cpu, NN_PRECISION_BF16))
	{
		test_half(ref, cpu);
		test_bytes(cpu, "{\"size\":64,\"ngf\":8,\"net_e\":\"none\"}", NN_PRECISION_BF16);
	}
	else
		diag("no bfloat16 on this machine: %s", nn_device_describe(cpu));
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
