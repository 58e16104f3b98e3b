/*
 * Proves the backward of each operator: on the reference device against central
 * differences in double, along a random direction of each parameter and of all
 * together; on other devices against the reference device. A parameter stands
 * before each operator, so that the gradients of inputs are proved as well.
 *
 * In bf16 devices agree as well, on any machine: without hardware for it the
 * same products are made another way.
 */
#include "op_table.h"
#include "nn/training.h"

/* ---- Graphs -------------------------------------------------------------- */

/*
 * A graph with losses: of a case, with a parameter before each input and a loss
 * behind each result, or one of its own.
 */
typedef struct Tried
{
	const char *name;
	const Case *of; /* or */
	void (*build)(Builder *b);
} Tried;

/* A random map that a parameter stands behind. */
static int
trained_map(Builder *b, NnShape shape)
{
	int x = nn_input(b->g, shape, "x");

	return nn_conv(b->g, x, -1, case_param(b, 4, (int64_t[]){ shape.c, shape.c, 1, 1 }), -1,
				   (NnConvArgs){ 1, 1, 0 }, "before");
}

/* With slices: a copy of it, in the middle of a wider map. */
static int
trained_source(Builder *b, const Case *t, NnShape shape, bool constant)
{
	int x = constant ? nn_input(b->g, shape, "constant") : trained_map(b, shape);
	NnShape wide = shape;

	if (!t->slices || constant)
		return x;
	wide.c += BEFORE + AFTER;
	return nn_copy(b->g, x, nn_view(b->g, nn_value(b->g, wide, "wide"), BEFORE, shape.c, "slice"),
				   "copy");
}

static void
finish(Builder *b, int y)
{
	nn_gan_loss(b->g, y, false, 0.3, 2, "loss");
}

static int
conv(Builder *b, int x, int o, int kernel, int pad)
{
	int weight = case_param(b, 4, (int64_t[]){ o, b->g->values[x].shape.c, kernel, kernel });
	int bias = case_param(b, 1, (int64_t[]){ o });

	return nn_conv(b->g, x, -1, weight, bias, (NnConvArgs){ kernel, 1, pad }, "conv");
}

/* Parts of a batch and of the channels, read by several; a map read twice. */
static void
views(Builder *b)
{
	NnShape shape = { 3, 4, 4, 2 }, wide = { 3, 4, 4, 4 };
	int x = trained_map(b, shape), other = trained_map(b, shape), both, first, rest;

	both = nn_value(b->g, wide, "both");
	nn_copy(b->g, x, nn_view(b->g, both, 0, 2, "x"), "copy");
	nn_copy(b->g, other, nn_view(b->g, both, 2, 2, "other"), "copy");
	finish(b, nn_add(b->g, x, x, "twice"));
	both = conv(b, both, 4, 3, 1);
	first = nn_batch_view(b->g, both, 0, 1, "first");
	rest = nn_batch_view(b->g, both, 1, 2, "rest");
	finish(b, conv(b, first, 2, 1, 0));
	finish(b, conv(b, first, 2, 3, 1));
	finish(b, conv(b, rest, 2, 1, 0));
}

/* A slice that a norm writes, next to what a copy does; the whole is read. */
static void
concatenation(Builder *b)
{
	NnShape shape = { 2, 5, 4, 3 }, wide = { 2, 5, 4, 6 };
	NnNormArgs args = { NN_NORM_INSTANCE, { { NN_ACT_LRELU }, { NN_ACT_LRELU, NN_ACT_ELU } } };
	int x = trained_map(b, shape), both = nn_value(b->g, wide, "both"), y;

	nn_copy(b->g, x, nn_view(b->g, both, 0, 3, "half"), "copy");
	y = nn_norm_act(b->g, x, (int[]){ -1, nn_view(b->g, both, 3, 3, "slice") }, NULL, &args,
					"norm");
	finish(b, both);
	finish(b, conv(b, y, 3, 1, 0));
}

static const Tried graphs[] = { { "parts of maps", NULL, views },
								{ "a concatenation", NULL, concatenation } };

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
trained_init(Trained *s, NnDevice *device, const Tried *c, NnPrecision precision)
{
	Builder builder = { &s->graph, &s->params, trained_source, finish };
	bool *all;

	memset(s, 0, sizeof(*s));
	s->device = device;
	nn_graph_init(&s->graph, &s->params);
	s->graph.training = true;
	if (c->of)
		build_case(&builder, c->of);
	else
		c->build(&builder);
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
	if (nn_training_plan(&s->training, &error) != NN_OK ||
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
test_differences(NnDevice *ref, const Tried *c)
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
test_agreement(NnDevice *one, NnPrecision first, NnDevice *other, NnPrecision second,
			   const Tried *c, const Agreement *limit)
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

static void
test_tried(NnDevice *ref, NnDevice *cpu, const Tried *c)
{
	test_differences(ref, c);
	test_agreement(ref, NN_PRECISION_FP32, cpu, NN_PRECISION_FP32, c, &(Agreement){ 1e-5, 1e-10 });
	/*
	 * a number may lie so near the middle of two of bfloat16's that the
	 * devices' own rounding decides
	 */
	test_agreement(ref, NN_PRECISION_BF16, cpu, NN_PRECISION_BF16, c, &(Agreement){ 1e-5, 1e-8 });
	test_agreement(ref, NN_PRECISION_FP32, ref, NN_PRECISION_BF16, c, &(Agreement){ 2e-2, 1e-3 });
}

int
main(void)
{
	bool has_case[NN_OPS] = { false };
	NnDevice *ref, *cpu;

	if (nn_device_open("ref", 1, &ref, &error) != NN_OK ||
		nn_device_open("cpu", 2, &cpu, &error) != NN_OK)
		return 1;
	for (size_t i = 0; i < CASES; i++)
		if (cases[i].when != INFERENCE)
		{
			has_case[cases[i].op] = true;
			test_tried(ref, cpu, &(Tried){ case_name(&cases[i]), &cases[i] });
		}
	for (size_t i = 0; i < sizeof(graphs) / sizeof(graphs[0]); i++)
		test_tried(ref, cpu, &graphs[i]);
	for (int op = 0; op < NN_OPS; op++)
		ok(has_case[op] || op == NN_OP_INPUT, "%s has a case with its backward", nn_ops[op].name);
	test_rounding();
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
