/*
 * golden_table.h
 *	  Numbers printed by the official code in float64 for G, E and D of width 8
 *	  at 128 x 128, in eight configurations, and the same networks on a device.
 */
#ifndef BICYCLE_GOLDEN_TABLE_H
#define BICYCLE_GOLDEN_TABLE_H

#include "nn_fixture.h"

typedef struct Sample
{
	int output, c, y, x;
	double value;
} Sample;

typedef struct Golden
{
	const char *name;
	NnNetwork network;
	uint32_t base; /* of the weights */
	NnWhereAdd where_add;
	NnUpsample upsample;
	NnActKind nl;
	NnEncoderKind net_e;
	bool conditional;
	double sum[2]; /* of each output; not a number: unknown */
	double sumsq;
	Sample samples[16];
	int nsamples;
} Golden;

#define COMMON(n, b) .network = n, .base = b, .nl = NN_ACT_RELU, .net_e = NN_ENCODER_RESNET

static const Golden goldens[] = {
	{ "default", COMMON(NN_NET_G, 1000), .sum = { -721.018036319 }, .sumsq = 4302.24678694,
	  .samples = { { 0, 0, 0, 0, 0.176462772777 },
				   { 0, 1, 64, 64, 0.307323372105 },
				   { 0, 2, 127, 127, -0.108303202379 } },
	  .nsamples = 3 },
	{ "where_add = input", COMMON(NN_NET_G, 1000), .where_add = NN_ADD_INPUT,
	  .sum = { -812.687038535 }, .sumsq = 4314.72690725,
	  .samples = { { 0, 0, 0, 0, 0.0438625557504 },
				   { 0, 1, 64, 64, 0.0247912919908 },
				   { 0, 2, 127, 127, -0.104860259254 } },
	  .nsamples = 3 },
	{ "upsample = bilinear", COMMON(NN_NET_G, 1000), .upsample = NN_UPSAMPLE_BILINEAR,
	  .sum = { -1671.78686838 }, .sumsq = 5018.82624574,
	  .samples = { { 0, 0, 0, 0, 0.191568835398 },
				   { 0, 1, 64, 64, 0.035550335106 },
				   { 0, 2, 127, 127, -0.868693924002 } },
	  .nsamples = 3 },
	{ "nl = elu", .network = NN_NET_G, .base = 1000, .nl = NN_ACT_ELU, .net_e = NN_ENCODER_RESNET,
	  .sum = { -411.502994777 }, .sumsq = 5973.83841802,
	  .samples = { { 0, 0, 0, 0, 0.0417495798837 } }, .nsamples = 1 },
	{ "resnet", COMMON(NN_NET_E, 2000), .sum = { NAN, NAN }, .sumsq = NAN,
	  .samples = { { 0, 0, 0, 0, -0.1585655665 },
				   { 0, 1, 0, 0, -0.00475747648 },
				   { 0, 2, 0, 0, 0.1528533001 },
				   { 0, 3, 0, 0, 0.1165342404 },
				   { 0, 4, 0, 0, 0.1308400683 },
				   { 0, 5, 0, 0, 0.05555929834 },
				   { 0, 6, 0, 0, 0.01443358062 },
				   { 0, 7, 0, 0, 0.05354103908 },
				   { 1, 0, 0, 0, 0.185975079 },
				   { 1, 1, 0, 0, 0.1155539807 },
				   { 1, 2, 0, 0, -0.1872518038 },
				   { 1, 3, 0, 0, -0.03273946126 },
				   { 1, 4, 0, 0, -0.1390296555 },
				   { 1, 5, 0, 0, -0.1261125114 },
				   { 1, 6, 0, 0, 0.1481026166 },
				   { 1, 7, 0, 0, 0.1921005327 } },
	  .nsamples = 16 },
	{ "conv", .network = NN_NET_E, .base = 2000, .nl = NN_ACT_RELU, .net_e = NN_ENCODER_CONV,
	  .sum = { NAN, NAN }, .sumsq = NAN,
	  .samples = { { 0, 0, 0, 0, -0.07380978858 },
				   { 0, 1, 0, 0, -0.1156642124 },
				   { 0, 2, 0, 0, -0.1322061039 },
				   { 0, 3, 0, 0, -0.1434585835 },
				   { 0, 4, 0, 0, -0.1191768266 },
				   { 0, 5, 0, 0, -0.03243467682 },
				   { 0, 6, 0, 0, -0.1945232387 },
				   { 0, 7, 0, 0, -0.1761816183 },
				   { 1, 0, 0, 0, -0.2248945552 },
				   { 1, 1, 0, 0, -0.2558860648 },
				   { 1, 2, 0, 0, 0.1037946346 },
				   { 1, 3, 0, 0, -0.2571014153 },
				   { 1, 4, 0, 0, -0.09321900705 },
				   { 1, 5, 0, 0, -0.237672281 },
				   { 1, 6, 0, 0, -0.4411258687 },
				   { 1, 7, 0, 0, -0.1032779421 } },
	  .nsamples = 16 },
	{ "two scales", COMMON(NN_NET_D, 3000), .sum = { -59.3720882462, 77.3084299852 }, .sumsq = NAN,
	  .samples = { { 0, 0, 0, 0, 0.0906574801782 }, { 1, 0, 0, 0, -0.105463426244 } },
	  .nsamples = 2 },
	{ "conditional", COMMON(NN_NET_D, 3000), .conditional = true, .sum = { -61.5936914066, NAN },
	  .sumsq = NAN, .nsamples = 0 },
};

/*
 * The input of a golden: A[0] for G, B[0] for E and D, [A[0], B[0]] for a
 * conditional D.
 */
static double *
input_of(const Golden *t, NnShape *shape)
{
	NnShape s = { 2, 128, 128, 3 };
	size_t pixels = 128 * 128;
	double *a = lcg_images(11, 1, s), *b = lcg_images(22, 1, s), *both;

	*shape = (NnShape){ 1, 128, 128, t->conditional ? 6 : 3 };
	if (!t->conditional)
	{
		free(t->network == NN_NET_G ? b : a);
		return t->network == NN_NET_G ? a : b;
	}
	both = malloc(pixels * 6 * sizeof(double));
	for (size_t p = 0; p < pixels; p++)
	{
		memcpy(both + p * 6, a + p * 3, 3 * sizeof(double));
		memcpy(both + p * 6 + 3, b + p * 3, 3 * sizeof(double));
	}
	free(a);
	free(b);
	return both;
}

static bool
near(double got, double expected, double scale, double tolerance, const char *what)
{
	if (isnan(expected) || fabs(got - expected) <= tolerance * scale)
		return true;
	diag("%s is %.12g, not %.12g", what, got, expected);
	return false;
}

static bool
matches(const Subject *s, const Golden *t, double tolerance)
{
	bool good = true;
	double rms[2] = { 0 };

	for (int o = 0; o < s->nout; o++)
	{
		size_t count = value_count(s, s->out[o]);
		double sum = 0, squares = 0;

		for (size_t i = 0; i < count; i++)
		{
			sum += s->result[o][i];
			squares += s->result[o][i] * s->result[o][i];
		}
		rms[o] = sqrt(squares / count);
		/*
		 * errors of single elements add up like noise in the sum; ten
		 * significant digits were printed
		 */
		good &= near(sum, t->sum[o], fabs(t->sum[o]) + rms[o] * sqrt(count), tolerance, "sum");
		if (o == 0)
			good &= near(squares, t->sumsq, t->sumsq, tolerance, "sum of squares");
	}
	for (int i = 0; i < t->nsamples; i++)
	{
		const Sample *e = &t->samples[i];

		good &= near(result_at(s, e->output, 0, e->c, e->y, e->x), e->value, rms[e->output],
					 tolerance, "element");
	}
	return good;
}

static void
test_golden(NnDevice *device, const Golden *t, double tolerance)
{
	NnConfig config;
	Subject s;
	NnShape shape;
	double *image = input_of(t, &shape);
	double z[8];

	nn_config_default(&config);
	config.size = config.encoder_size = 128;
	config.levels = 7;
	config.ngf = config.nef = config.ndf = 8;
	config.where_add = t->where_add;
	config.upsample = t->upsample;
	config.nl = t->nl;
	config.net_e = t->net_e;
	config.conditional_d = t->conditional;
	lcg_fill(99, 1.5, 8, z);
	ok(subject_init(&s, device, &config, t->network, t->base, shape) && subject_run(&s, image, z) &&
		   matches(&s, t, tolerance),
	   "%s, %s on %s", nn_network_name(t->network), t->name, device->name);
	subject_free(&s);
	free(image);
}

static void
test_goldens(NnDevice *device, double tolerance)
{
	for (size_t k = 0; k < sizeof(goldens) / sizeof(goldens[0]); k++)
		test_golden(device, &goldens[k], tolerance);
}

#endif /* BICYCLE_GOLDEN_TABLE_H */
