/*
 * Proves the backward of each operator: on the reference device against central
 * differences in double, along a random direction of each parameter and of all
 * together; on other devices against the reference device. A parameter stands
 * before each operator, so that the gradients of inputs are proved as well.
 *
 * In bf16 devices agree as well, on any machine: without hardware for it the
 * same products are made another way.
 */
#include "nn_fixture.h"
#include "nn/params.h"
#include "nn/training.h"

typedef struct Case
{
	const char *name;
	void (*build)(NnGraph *g, int x, int other); /* from two maps (N,H,W,C); ends in losses */
	NnShape shape;
	float dropout;
} Case;

/* ---- Graphs -------------------------------------------------------------- */

static float dropout; /* of the case under construction */

/* A parameter of the graph under construction; the tables are ours. */
static int
parameter(NnGraph *g, int ndim, const int64_t *shape)
{
	char name[32];

	snprintf(name, sizeof(name), "p%d", g->params->n);
	return nn_params_add((NnParams *) g->params, NN_NET_G, name, ndim, shape);
}

static int
conv(NnGraph *g, int x, int z, NnActKind z_act, int o, int kernel, int stride, int pad)
{
	int c = g->values[x].shape.c + (z >= 0 ? g->values[z].shape.c : 0);
	int weight = parameter(g, 4, (int64_t[]){ o, c, kernel, kernel });
	int bias = parameter(g, 1, (int64_t[]){ o });

	return nn_conv(g, x, z, weight, bias, (NnConvArgs){ kernel, stride, pad, z_act }, "conv");
}

static void
finish(NnGraph *g, int y)
{
	nn_gan_loss(g, y, false, 0.3, 2, "loss");
}

static void
conv_3x3(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, -1, NN_ACT_NONE, 5, 3, 1, 1));
}

static void
conv_4x4_s2(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, -1, NN_ACT_NONE, 4, 4, 2, 1));
}

static void
conv_4x4_s1(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, -1, NN_ACT_NONE, 3, 4, 1, 1));
}

static void
conv_1x1(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, -1, NN_ACT_NONE, 6, 1, 1, 0));
}

/* The latent is itself computed: the mean of a map. */
static int
latent_of(NnGraph *g, int map)
{
	return nn_avgpool(g, map, g->values[map].shape.h, 1, 0, "z");
}

static void
conv_latent(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, latent_of(g, other), NN_ACT_LRELU, 5, 4, 2, 1));
}

static void
conv_latent_raw(NnGraph *g, int x, int other)
{
	finish(g, conv(g, x, latent_of(g, other), NN_ACT_NONE, 5, 3, 1, 1));
}

static void
convt(NnGraph *g, int x, int other)
{
	int weight = parameter(g, 4, (int64_t[]){ g->values[x].shape.c, 5, 4, 4 });
	int bias = parameter(g, 1, (int64_t[]){ 5 });

	finish(g, nn_convt(g, x, weight, bias, "convt"));
}

static void
linear(NnGraph *g, int x, int other)
{
	int weight = parameter(g, 2, (int64_t[]){ 7, g->values[x].shape.c });
	int bias = parameter(g, 1, (int64_t[]){ 7 });

	finish(g, nn_linear(g, latent_of(g, x), weight, bias, "linear"));
}

/* Two readers, one of which is a slice of a wider map. */
static void
norm(NnGraph *g, int x, NnNorm kind, NnActChain first, NnActChain second)
{
	NnShape shape = g->values[x].shape;
	int c = shape.c;
	int state[4], wide, slice, y;

	for (int i = 0; i < 4; i++)
		state[i] = kind == NN_NORM_BATCH ? parameter(g, 1, (int64_t[]){ c }) : -1;
	for (int i = 2; i < 4 && kind == NN_NORM_BATCH; i++)
		g->params->list[state[i]].buffer = true;
	shape.c = 2 * c;
	wide = nn_value(g, shape, "wide");
	slice = nn_view(g, wide, c, c, "slice");
	nn_copy(g, x, nn_view(g, wide, 0, c, "half"), "copy");
	y = nn_norm_act(g, x, (int[]){ -1, slice }, state,
					&(NnNormArgs){ kind, { first, second }, .dropout = dropout }, "norm");
	finish(g, wide);
	finish(g, conv(g, y, -1, NN_ACT_NONE, 3, 1, 1, 0));
}

static void
norm_instance(NnGraph *g, int x, int other)
{
	norm(g, x, NN_NORM_INSTANCE, (NnActChain){ NN_ACT_LRELU, NN_ACT_NONE },
		 (NnActChain){ NN_ACT_LRELU, NN_ACT_ELU });
}

static void
norm_batch(NnGraph *g, int x, int other)
{
	norm(g, x, NN_NORM_BATCH, (NnActChain){ NN_ACT_ELU, NN_ACT_NONE },
		 (NnActChain){ NN_ACT_NONE, NN_ACT_RELU });
}

static void
norm_none(NnGraph *g, int x, int other)
{
	norm(g, x, NN_NORM_NONE, (NnActChain){ NN_ACT_TANH, NN_ACT_NONE },
		 (NnActChain){ NN_ACT_RELU, NN_ACT_NONE });
}

static void
upsample(NnGraph *g, int x, int other)
{
	finish(g, conv(g, nn_upsample(g, x, 1, "up"), -1, NN_ACT_NONE, 2, 3, 1, 0));
}

static void
pools(NnGraph *g, int x, int other)
{
	finish(g, nn_avgpool(g, x, 2, 2, 0, "pool"));
	finish(g, nn_avgpool(g, x, 3, 2, 1, "pool"));
}

static void
add(NnGraph *g, int x, int other)
{
	finish(g, nn_add(g, x, other, "add"));
	finish(g, nn_add(g, x, x, "twice"));
}

/* Parts of a batch and of the channels, read by several. */
static void
views(NnGraph *g, int x, int other)
{
	NnShape shape = g->values[x].shape;
	int both, a, b;

	shape.c *= 2;
	both = nn_value(g, shape, "both");
	nn_copy(g, x, nn_view(g, both, 0, shape.c / 2, "x"), "copy");
	nn_copy(g, other, nn_view(g, both, shape.c / 2, shape.c / 2, "other"), "copy");
	both = conv(g, both, -1, NN_ACT_NONE, 4, 3, 1, 1);
	a = nn_batch_view(g, both, 0, 1, "first");
	b = nn_batch_view(g, both, 1, shape.n - 1, "rest");
	finish(g, conv(g, a, -1, NN_ACT_NONE, 2, 1, 1, 0));
	finish(g, conv(g, a, -1, NN_ACT_NONE, 2, 3, 1, 1));
	finish(g, conv(g, b, -1, NN_ACT_NONE, 2, 1, 1, 0));
}

static void
posterior(NnGraph *g, int x, int other)
{
	int mu = latent_of(g, x), logvar = latent_of(g, other);
	int eps = nn_input(g, g->values[mu].shape, "eps");

	finish(g, nn_reparam(g, mu, logvar, eps, -1, "z"));
	nn_kl_loss(g, mu, logvar, 0.1, "kl");
}

static void
losses(NnGraph *g, int x, int other)
{
	int constant = nn_input(g, g->values[x].shape, "constant");

	nn_gan_loss(g, x, true, 1, 0.7, "vanilla real");
	nn_gan_loss(g, other, true, 0, 0.3, "vanilla fake");
	nn_gan_loss(g, other, false, 1, 0.2, "lsgan");
	nn_l1_loss(g, x, constant, 3, "l1");
}

static const Case cases[] = {
	{ "convolution 3x3", conv_3x3, { 2, 6, 5, 3 }, 0 },
	{ "convolution 4x4 of stride 2", conv_4x4_s2, { 2, 8, 6, 3 }, 0 },
	{ "convolution 4x4 of stride 1", conv_4x4_s1, { 1, 5, 6, 4 }, 0 },
	{ "convolution 4x4 to one pixel", conv_4x4_s2, { 2, 2, 2, 5 }, 0 },
	{ "convolution 1x1", conv_1x1, { 2, 4, 3, 5 }, 0 },
	{ "convolution with a latent", conv_latent, { 2, 6, 6, 3 }, 0 },
	{ "convolution with a long latent", conv_latent_raw, { 2, 3, 3, 19 }, 0 },
	{ "transposed convolution", convt, { 2, 3, 4, 6 }, 0 },
	{ "transposed convolution of one pixel", convt, { 2, 1, 1, 6 }, 0 },
	{ "linear layer", linear, { 3, 2, 2, 4 }, 0 },
	{ "instance norm", norm_instance, { 2, 5, 4, 3 }, 0 },
	{ "instance norm of 40 channels", norm_instance, { 2, 3, 3, 40 }, 0 },
	{ "instance norm with dropout", norm_instance, { 2, 6, 4, 8 }, 0.5f },
	{ "batch norm", norm_batch, { 3, 4, 4, 3 }, 0 },
	{ "batch norm with dropout", norm_batch, { 2, 4, 4, 20 }, 0.25f },
	{ "activations", norm_none, { 2, 4, 4, 5 }, 0 },
	{ "upsampling", upsample, { 2, 3, 4, 3 }, 0 },
	{ "upsampling of one pixel", upsample, { 2, 1, 1, 17 }, 0 },
	{ "pooling", pools, { 2, 6, 7, 3 }, 0 },
	{ "addition", add, { 2, 3, 3, 4 }, 0 },
	{ "parts of maps", views, { 3, 4, 4, 2 }, 0 },
	{ "sample of a posterior", posterior, { 3, 4, 4, 6 }, 0 },
	{ "losses", losses, { 2, 3, 3, 4 }, 0 },
};

/* ---- A graph on a device ------------------------------------------------- */

#define MAX_FEEDS 4
#define MAX_LOSSES 4

typedef struct Trained
{
	NnDevice *device;
	NnParams params;
	NnGraph graph;
	NnTraining training;
	NnFeed feeds[MAX_FEEDS];
	int nfeeds;
	int losses[MAX_LOSSES];
	int nlosses;
} Trained;

/* What two gradients differ by, as a share of the second's squared norm. */
typedef struct Agreement
{
	double loss, gradients;
} Agreement;

static NnError error;

static size_t
count_of(const NnGraph *g, int value)
{
	NnShape s = g->values[value].shape;

	return (size_t) s.n * s.h * s.w * s.c;
}

static void *
typed_copy(const NnDevice *device, const double *values, size_t count)
{
	void *copy = malloc(count * sizeof(double) + 1);

	for (size_t i = 0; i < count; i++)
	{
		if (device->train->dtype == NN_F64)
			((double *) copy)[i] = values[i];
		else
			((float *) copy)[i] = (float) values[i];
	}
	return copy;
}

static void
put_params(Trained *s, const double *values)
{
	void *typed = typed_copy(s->device, values, s->params.total);

	(void) s->device->train->put(s->device, &s->training, NN_ARRAY_PARAM, 0, s->params.total, typed,
								 &error);
	free(typed);
}

static double *
random_values(const Trained *s, uint32_t seed)
{
	double *values = malloc((s->params.total + 1) * sizeof(double));

	lcg_fill(seed, 0.5, s->params.total, values);
	return values;
}

static bool
trained_init(Trained *s, NnDevice *device, const Case *c, NnPrecision precision)
{
	bool *all;
	int maps[2];

	memset(s, 0, sizeof(*s));
	s->device = device;
	nn_graph_init(&s->graph, &s->params);
	s->graph.training = true;
	dropout = c->dropout;
	for (int i = 0; i < 2; i++)
		maps[i] = conv(&s->graph, nn_input(&s->graph, c->shape, "x"), -1, NN_ACT_NONE, c->shape.c,
					   1, 1, 0);
	c->build(&s->graph, maps[0], maps[1]);
	nn_schedule_init(&s->training.schedule, &s->graph);
	nn_schedule_forward(&s->training.schedule, 0, s->graph.nnodes);
	all = malloc((s->graph.nnodes + 1) * sizeof(bool));
	memset(all, true, s->graph.nnodes + 1);
	nn_schedule_backward(&s->training.schedule, all, all);
	free(all);
	s->training.params = &s->params;
	s->training.seed = 5;
	s->training.iteration = 3;
	s->training.plan = (NnPlan){ .graph = &s->graph,
								 .device = device,
								 .precision = precision,
								 .schedule = &s->training.schedule };
	if (nn_plan_memory(&s->training.plan, &error) != NN_OK ||
		device->train->prepare(device, &s->training, &error) != NN_OK)
	{
		diag("%s %s", error.message, error.detail);
		return false;
	}
	for (int i = 0; i < s->graph.nnodes; i++)
	{
		const NnNode *node = &s->graph.nodes[i];

		if (node->op == NN_OP_INPUT)
		{
			double *values = malloc(count_of(&s->graph, node->out[0]) * sizeof(double));

			lcg_fill(70 + s->nfeeds, 1, count_of(&s->graph, node->out[0]), values);
			s->feeds[s->nfeeds++] =
				(NnFeed){ node->out[0],
						  typed_copy(device, values, count_of(&s->graph, node->out[0])) };
			free(values);
		}
		if (nn_ops[node->op].loss)
			s->losses[s->nlosses++] = node->out[0];
	}
	return true;
}

static void
trained_free(Trained *s)
{
	s->device->train->release(s->device, &s->training);
	nn_plan_free(&s->training.plan);
	nn_schedule_free(&s->training.schedule);
	nn_graph_free(&s->graph);
	nn_params_free(&s->params);
	for (int i = 0; i < s->nfeeds; i++)
		free((void *) s->feeds[i].data);
}

/* The sum of all losses; NaN on failure. */
static double
run(Trained *s, const double *params)
{
	double values[MAX_LOSSES], sum = 0;

	put_params(s, params);
	if (nn_training_run(s->device, &s->training, s->feeds, s->nfeeds, s->losses, s->nlosses, values,
						&error) != NN_OK)
		return NAN;
	for (int i = 0; i < s->nlosses; i++)
		sum += values[i];
	return sum;
}

static double *
gradients_of(Trained *s)
{
	double *values = calloc(s->params.total + 1, sizeof(double));
	float *floats = calloc(s->params.total + 1, sizeof(float));
	bool single = s->device->train->dtype == NN_F32;

	(void) s->device->train->get(s->device, &s->training, NN_ARRAY_GRAD, 0, s->params.total,
								 single ? (void *) floats : values, &error);
	for (size_t i = 0; single && i < s->params.total; i++)
		values[i] = floats[i];
	free(floats);
	return values;
}

/* ---- Against central differences ----------------------------------------- */

/*
 * The derivative along `direction` in the numbers [first, end), by differences
 * and by the gradient.
 */
static bool
same_slope(Trained *s, const double *params, const double *gradients, const double *direction,
		   size_t first, size_t end, const char *what)
{
	const double h = 1e-5;
	double *moved = malloc((s->params.total + 1) * sizeof(double));
	double difference, expected = 0, size = 0;

	memcpy(moved, params, s->params.total * sizeof(double));
	for (size_t i = first; i < end; i++)
	{
		moved[i] = params[i] + h * direction[i];
		expected += gradients[i] * direction[i];
		size += fabs(gradients[i] * direction[i]);
	}
	difference = run(s, moved);
	for (size_t i = first; i < end; i++)
		moved[i] = params[i] - h * direction[i];
	difference = (difference - run(s, moved)) / (2 * h);
	free(moved);
	if (fabs(difference - expected) <= 1e-7 * size + 1e-9)
		return true;
	diag("along %s the slope is %.10g, not %.10g", what, difference, expected);
	return false;
}

static void
test_differences(NnDevice *ref, const Case *c)
{
	Trained s;
	bool good = trained_init(&s, ref, c, NN_PRECISION_FP32);
	double *params = random_values(&s, 9), *direction = random_values(&s, 10);
	double *gradients;

	good = good && isfinite(run(&s, params));
	gradients = gradients_of(&s);
	for (int i = 0; good && i < s.params.n; i++)
	{
		const NnParam *p = &s.params.list[i];

		/* a bias that a norm takes away is not trained, and has no slope */
		good = p->buffer || same_slope(&s, params, gradients, direction, p->offset,
									   p->offset + p->count, p->name);
	}
	good = good && same_slope(&s, params, gradients, direction, 0, s.params.total, "all");
	ok(good, "%s: gradients are slopes", c->name);
	free(params);
	free(direction);
	free(gradients);
	trained_free(&s);
}

/* ---- Device against device ----------------------------------------------- */

/* Whether the losses and gradients of two runs agree. */
static bool
agree(Trained *a, Trained *b, const Agreement *limit)
{
	double *params = random_values(a, 9);
	double expected = run(a, params), got = run(b, params);
	double *x = gradients_of(a), *y = gradients_of(b);
	bool good = fabs(got - expected) <= limit->loss * fabs(expected);

	if (!good)
		diag("loss %.9g, not %.9g", got, expected);
	for (int i = 0; i < a->params.n; i++)
	{
		const NnParam *p = &a->params.list[i];
		double difference = 0, norm = 0;

		for (size_t k = p->offset; k < p->offset + p->count; k++)
		{
			difference += (x[k] - y[k]) * (x[k] - y[k]);
			norm += x[k] * x[k];
		}
		if (!(difference <= limit->gradients * norm))
		{
			diag("gradient of %s: normalised square error %.3g", p->name, difference / norm);
			good = false;
		}
	}
	free(params);
	free(x);
	free(y);
	return good;
}

static void
test_agreement(NnDevice *one, NnPrecision first, NnDevice *other, NnPrecision second, const Case *c,
			   const Agreement *limit)
{
	Trained a, b;
	bool good = trained_init(&a, one, c, first) & trained_init(&b, other, c, second);

	good = good && agree(&a, &b, limit);
	ok(good, "%s: %s in %s agrees with %s in %s", c->name, other->name, nn_precision_name(second),
	   one->name, nn_precision_name(first));
	trained_free(&a);
	trained_free(&b);
}

/* One product tells bf16 from fp32: 1 + 2^-9 is not a bfloat16 number. */
static void
test_rounding(void)
{
	ok(nn_bf16(1 + 0x1p-9f) == 1 && nn_bf16(1 + 3 * 0x1p-9f) == 1 + 0x1p-7f &&
		   nn_bf16(1 + 0x1p-8f) == 1 && nn_bf16(1 + 3 * 0x1p-8f) == 1 + 0x1p-6f &&
		   nn_bf16(-1 - 0x1.1p-8f) == -1 - 0x1p-7f && nn_bf16(0) == 0 && isinf(nn_bf16(INFINITY)) &&
		   isnan(nn_bf16(NAN)),
	   "bfloat16 rounds to nearest, ties to even");
}

int
main(void)
{
	NnDevice *ref, *cpu;

	if (nn_device_open("ref", 1, &ref, &error) != NN_OK ||
		nn_device_open("cpu", 2, &cpu, &error) != NN_OK)
		return 1;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		test_differences(ref, &cases[i]);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		test_agreement(ref, NN_PRECISION_FP32, cpu, NN_PRECISION_FP32, &cases[i],
					   &(Agreement){ 1e-5, 1e-10 });
		/*
		 * a number may lie so near the middle of two of bfloat16's that the
		 * devices' own rounding decides
		 */
		test_agreement(ref, NN_PRECISION_BF16, cpu, NN_PRECISION_BF16, &cases[i],
					   &(Agreement){ 1e-5, 1e-8 });
		test_agreement(ref, NN_PRECISION_FP32, ref, NN_PRECISION_BF16, &cases[i],
					   &(Agreement){ 2e-2, 1e-3 });
	}
	test_rounding();
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
