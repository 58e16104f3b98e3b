/*
 * Proves that the networks agree with the official ones beyond the printed
 * goldens: other sizes, levels, widths, channels, norms and activations, flat
 * images, batches, and the full-size networks; and that their parameters have
 * the official names, shapes and order.
 *
 * Reads test/data/networks.bin and pix2pix.bin, which test/gen/networks.py and
 * pix2pix.py made with the official codes in float64. The reference device is
 * held to 1e-9 of the root mean square of each output, the others to 1e-4, and
 * on full-size networks to an absolute 2e-4, a fortieth of a step of the 8-bit
 * image.
 */
#include "nn_fixture.h"
#include "testdata.h"

#include <jansson.h>

/* networks of this width are the official ones; others are cheap */
#define FULL_WIDTH 64

/*
 * The one of these that the reference device is not spared. Under a sanitizer,
 * where they take ten times as long, it is spared all, and the CPU but one of
 * each network: small ones run all of their code.
 */
#ifdef __SANITIZE_ADDRESS__
#define FULL_ON_REFERENCE ""
#define FULL_ON_CPU "unet_128, input, bilinear; conv_128; basic_128_multi"
#else
#define FULL_ON_REFERENCE "conv_128"
#define FULL_ON_CPU NULL /* all */
#endif

typedef struct Case
{
	json_t *about; /* see networks.py */
	const char *name;
	NnNetwork network;
	NnConfig config;
	uint32_t base;
	NnShape shape;
	double *samples[MAX_RESULTS];
} Case;

/* ---- Reading the file ---------------------------------------------------- */

static json_t *
member(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static int
item(const json_t *array, size_t i)
{
	return (int) json_integer_value(json_array_get(array, i));
}

/*
 * The next case; false at the end of the file, or with a diagnosis if it cannot
 * be read.
 */
static bool
read_case(FILE *file, Case *t)
{
	unsigned char head[4];
	uint32_t length;
	char *text, *options;
	json_t *shape;
	NnError error;
	bool good;

	memset(t, 0, sizeof(*t));
	if (fread(head, 1, 4, file) != 4)
		return false;
	length = head[0] | head[1] << 8 | head[2] << 16 | (uint32_t) head[3] << 24;
	text = malloc(length);
	if (fread(text, 1, length, file) == length)
		t->about = json_loadb(text, length, 0, NULL);
	free(text);
	if (!t->about)
	{
		ok(false, "networks.bin can be read");
		return false;
	}
	t->name = json_string_value(member(t->about, "name"));
	good = nn_network_from_name(json_string_value(member(t->about, "network")), &t->network);
	t->base = (uint32_t) json_integer_value(member(t->about, "base"));
	shape = member(t->about, "shape");
	t->shape = (NnShape){ item(shape, 0), item(shape, 1), item(shape, 2), item(shape, 3) };
	nn_config_default(&t->config);
	options = json_dumps(member(t->about, "config"), 0);
	good &= nn_config_parse(&t->config, options, strlen(options), &error) == NN_OK;
	free(options);
	for (size_t i = 0; i < json_array_size(member(t->about, "outputs")); i++)
	{
		size_t count =
			json_integer_value(member(json_array_get(member(t->about, "outputs"), i), "count"));

		t->samples[i] = malloc(count * sizeof(double));
		good &= fread(t->samples[i], sizeof(double), count, file) == count;
	}
	if (!good)
		ok(false, "case \"%s\" can be read", t->name);
	return good;
}

static void
free_case(Case *t)
{
	json_decref(t->about);
	for (int i = 0; i < MAX_RESULTS; i++)
		free(t->samples[i]);
}

/* ---- What the tests are -------------------------------------------------- */

static bool
same_entry(const NnParam *p, const json_t *entry)
{
	const json_t *shape = json_array_get(entry, 1);
	bool same = strcmp(p->name, json_string_value(json_array_get(entry, 0))) == 0 &&
				(size_t) p->ndim == json_array_size(shape);

	for (int i = 0; same && i < p->ndim; i++)
		same = p->shape[i] == item(shape, i);
	return same && p->buffer == (strstr(p->name, "running_") || strstr(p->name, "num_batches")) &&
		   p->integer == (strstr(p->name, "num_batches") != NULL);
}

static void
test_state(const Case *t)
{
	const json_t *state = member(t->about, "state");
	NnParams params;
	NnError error;
	bool good = nn_params_of(&t->config, 1u << t->network, &params, &error) == NN_OK &&
				(size_t) params.n == json_array_size(state);
	size_t total = 0;

	for (int i = 0; good && i < params.n; i++)
	{
		good =
			same_entry(&params.list[i], json_array_get(state, i)) && params.list[i].offset == total;
		if (!good)
			diag("\"%s\" instead of \"%s\"", params.list[i].name,
				 json_string_value(json_array_get(json_array_get(state, i), 0)));
		total += params.list[i].count;
	}
	ok(good && total == params.total, "%s, %s: names, shapes and order of the state_dict",
	   nn_network_name(t->network), t->name);
	nn_params_free(&params);
}

/*
 * Images in NHWC: white, black, a black stroke on white, or the generator's
 * numbers of that seed.
 */
static double *
picture(const char *kind, NnShape s)
{
	double *image = lcg_images((uint32_t) atoi(kind), 1, s);

	if (kind[0] >= '0' && kind[0] <= '9')
		return image;
	for (int i = 0; i < s.n * s.h * s.w; i++)
	{
		int y = i / s.w % s.h, x = i % s.w;
		bool black = strcmp(kind, "black") == 0 || (strcmp(kind, "stroke") == 0 && abs(y - x) <= 1);

		for (int c = 0; c < s.c; c++)
			image[(size_t) i * s.c + c] = black ? -1 : 1;
	}
	return image;
}

/*
 * The largest difference of a sample, in units of the output's root mean square
 * or, if `absolute`, of 1; infinite if shapes or sums are wrong.
 */
static double
difference(const Subject *s, const Case *t, bool absolute, double tolerance)
{
	double worst = 0;

	for (int o = 0; o < s->nout; o++)
	{
		const json_t *about = json_array_get(member(t->about, "outputs"), o),
					 *shape = member(about, "shape");
		NnShape got = s->graph.values[s->out[o]].shape;
		size_t count = value_count(s, s->out[o]),
			   samples = json_integer_value(member(about, "count")),
			   stride = json_integer_value(member(about, "stride"));
		double squares = json_number_value(member(about, "sumsq")),
			   unit = absolute ? 1 : sqrt(squares / count), sum = 0;

		if (got.n != item(shape, 0) || got.h != item(shape, 1) || got.w != item(shape, 2) ||
			got.c != item(shape, 3))
			return INFINITY;
		for (size_t i = 0; i < samples; i++)
			worst = fmax(worst, fabs(s->result[o][i * stride] - t->samples[o][i]) / unit);
		for (size_t i = 0; i < count; i++)
			sum += s->result[o][i] * s->result[o][i];
		/* twice the tolerance is the first-order change of a sum of squares */
		if (fabs(sum - squares) > 2 * tolerance * (absolute ? sqrt(squares * count) : squares))
			return INFINITY;
	}
	return worst;
}

static bool
spared(const char *name, const char *those_that_are_not)
{
	return those_that_are_not && !strstr(those_that_are_not, name);
}

static void
test_case(NnDevice *device, const Case *t)
{
	int width = t->network == NN_NET_G   ? t->config.ngf
				: t->network == NN_NET_E ? t->config.nef
										 : t->config.ndf;
	bool reference = strcmp(device->name, "ref") == 0, full = width == FULL_WIDTH;
	double tolerance = reference ? 1e-9 : full ? 2e-4 : 1e-4, worst = INFINITY;
	double *image, *z;
	Subject s;

	if (full && spared(t->name, reference ? FULL_ON_REFERENCE : FULL_ON_CPU))
		return;
	image = picture(json_string_value(member(t->about, "image")), t->shape);
	z = malloc((t->shape.n * t->config.nz + 1) * sizeof(double));
	lcg_fill(99, 1.5, (size_t) t->shape.n * t->config.nz, z);
	if (subject_init(&s, device, &t->config, t->network, t->base, t->shape) &&
		subject_run(&s, image, z))
		worst = difference(&s, t, full && !reference, tolerance);
	ok(worst <= tolerance, "%s, %s on %s: largest difference %.2g", nn_network_name(t->network),
	   t->name, device->name, worst);
	subject_free(&s);
	free(image);
	free(z);
}

static void
test_cases(const char *name, NnDevice *const devices[2])
{
	FILE *file = fopen(testdata_path(name), "rb");
	Case t;

	if (!ok(file != NULL, "%s is there", name))
		return;
	while (read_case(file, &t))
	{
		test_state(&t);
		for (int i = 0; i < 2; i++)
			test_case(devices[i], &t);
		free_case(&t);
	}
	fclose(file);
}

int
main(void)
{
	NnDevice *devices[2];
	NnError error;

	if (!ok(nn_device_open("ref", 0, &devices[0], &error) == NN_OK &&
				nn_device_open("cpu", 0, &devices[1], &error) == NN_OK,
			"devices open"))
		return done_testing();
	test_cases("networks.bin", devices);
	test_cases("pix2pix.bin", devices);
	nn_device_close(devices[0]);
	nn_device_close(devices[1]);
	return done_testing();
}
