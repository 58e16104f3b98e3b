/*
 * op_table.h
 *	  Every operator of a device against the reference device: one table of
 *	  cases, each run on both with the same random weights and inputs, alone or
 *	  followed by a norm and activations, from and into slices of wider buffers.
 *
 * Compared by the normalised mean square error, sum (got - expected)^2 / sum
 * expected^2; the reference always computes in double from the same numbers.
 */
#ifndef BICYCLE_OP_TABLE_H
#define BICYCLE_OP_TABLE_H

#include "nn_fixture.h"
#include "nn/params.h"

/* A test that includes this may say otherwise. */
#ifndef RUNS
#define RUNS 1
#endif
#ifndef MAX_PRODUCTS
#define MAX_PRODUCTS INFINITY
#endif

/* Channels of the wider buffers beside a slice. */
#define BEFORE 3
#define AFTER 5

typedef enum Input
{
	RANDOM,
	FLAT,  /* one value a channel */
	OFFSET /* a large mean and little else */
} Input;

typedef struct Case
{
	NnOp op;
	NnShape in;
	int channels; /* of the result; CONV, CONVT, LINEAR */
	int kernel, stride, pad;
	int nz;
	NnActKind z_act;
	bool pooled;   /* a 2x2 mean follows */
	bool followed; /* a NORM_ACT reads the result, and nothing else does */
	NnNorm norm;
	int readers; /* of the NORM_ACT: 1 or 2 */
	NnActChain act[2];
	bool slices; /* the input is a slice, and so are the outputs of a NORM_ACT */
	Input input;
} Case;

#define CONV(n, h, w, c, o, k, s, p) \
	.op = NN_OP_CONV, .in = { n, h, w, c }, .channels = o, .kernel = k, .stride = s, .pad = p
#define CONVT(n, h, w, c, o) .op = NN_OP_CONVT, .in = { n, h, w, c }, .channels = o
#define THEN(norm_, act_)                                    \
	.followed = true, .norm = NN_NORM_##norm_, .readers = 1, \
	.act = { { NN_ACT_##act_, NN_ACT_NONE } }
#define THEN_TWO(norm_, first, second)                       \
	.followed = true, .norm = NN_NORM_##norm_, .readers = 2, \
	.act = { { NN_ACT_##first, NN_ACT_NONE }, { NN_ACT_LRELU, NN_ACT_##second } }
#define Z(n, a) .nz = n, .z_act = NN_ACT_##a
#define SLICES .slices = true

static const Case cases[] = {
	/* convolutions 4x4, stride 2: the way down */
	{ CONV(1, 8, 8, 3, 64, 4, 2, 1) },
	{ CONV(2, 16, 16, 5, 7, 4, 2, 1) },
	{ CONV(1, 64, 64, 3, 64, 4, 2, 1), Z(8, NONE), THEN_TWO(NONE, LRELU, RELU) },
	{ CONV(1, 128, 128, 1, 32, 4, 2, 1), Z(8, NONE), THEN_TWO(NONE, LRELU, RELU) },
	{ CONV(2, 16, 32, 64, 128, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(1, 32, 32, 64, 128, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU), SLICES },
	{ CONV(2, 16, 16, 33, 65, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, LRELU, ELU), SLICES },
	{ CONV(2, 8, 8, 512, 512, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(3, 4, 4, 256, 256, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(2, 4, 4, 20, 13, 4, 2, 1), Z(200, LRELU), THEN(INSTANCE, RELU) },
	{ CONV(3, 2, 2, 512, 512, 4, 2, 1), Z(8, LRELU), THEN(NONE, RELU) },
	{ CONV(2, 2, 2, 17, 9, 4, 2, 1), Z(5, LRELU), THEN(NONE, ELU), SLICES },
	{ CONV(2, 2, 6, 24, 40, 4, 2, 1), Z(5, TANH), THEN(BATCH, LRELU) },
	{ CONV(2, 7, 9, 24, 40, 4, 2, 1), Z(5, LRELU) },
	{ CONV(1, 64, 64, 128, 256, 4, 2, 1), THEN(INSTANCE, LRELU) },
	/* 4x4, stride 1 */
	{ CONV(1, 16, 16, 64, 128, 4, 1, 1), THEN(INSTANCE, LRELU) },
	{ CONV(2, 7, 9, 64, 1, 4, 1, 1) },
	{ CONV(2, 2, 3, 16, 1, 4, 1, 1) },
	{ CONV(1, 31, 31, 32, 8, 4, 1, 1), Z(4, RELU) },
	/* 3x3 and 1x1 */
	{ CONV(1, 32, 32, 64, 64, 3, 1, 1), THEN(INSTANCE, LRELU) },
	{ CONV(2, 9, 5, 12, 20, 3, 1, 1) },
	{ CONV(1, 34, 34, 64, 32, 3, 1, 0), THEN(INSTANCE, RELU) },
	{ CONV(1, 10, 6, 256, 3, 3, 1, 0), THEN(NONE, TANH) },
	{ CONV(1, 1, 1, 16, 8, 3, 1, 1) },
	{ CONV(1, 2, 1, 16, 8, 3, 1, 1), Z(2, NONE) },
	{ CONV(1, 32, 32, 64, 192, 1, 1, 0) },
	{ CONV(2, 5, 3, 7, 11, 1, 1, 0), SLICES },
	/* with the mean of 2x2 made part of them */
	{ CONV(1, 32, 32, 64, 128, 3, 1, 1), .pooled = true },
	{ CONV(2, 16, 8, 17, 21, 3, 1, 1), .pooled = true, SLICES },
	{ CONV(2, 7, 9, 24, 16, 3, 1, 1), .pooled = true, THEN(NONE, LRELU) },
	{ CONV(1, 2, 2, 3, 5, 3, 1, 1), .pooled = true },
	/* transposed: the way up */
	{ CONVT(3, 1, 1, 512, 512), THEN(INSTANCE, RELU) },
	{ CONVT(2, 1, 1, 19, 21), THEN(NONE, RELU), SLICES },
	{ CONVT(2, 2, 2, 1024, 512), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(2, 2, 3, 24, 24), THEN(INSTANCE, ELU) },
	{ CONVT(2, 4, 4, 512, 256), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 8, 8, 128, 512), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 16, 16, 256, 256), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 32, 32, 64, 64), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(2, 5, 7, 33, 70), THEN(BATCH, LRELU), SLICES },
	{ CONVT(1, 64, 64, 128, 3), THEN(NONE, TANH) },
	{ CONVT(2, 17, 70, 16, 3), THEN(NONE, TANH) },
	{ CONVT(2, 9, 9, 16, 1), THEN(NONE, TANH) },
	{ CONVT(2, 9, 9, 16, 1), THEN(INSTANCE, TANH) },
	{ CONVT(2, 9, 9, 16, 4), THEN(BATCH, RELU), SLICES },
	{ CONVT(2, 6, 6, 16, 3) },
	{ CONVT(1, 3, 3, 16, 24) },
	/* norms by themselves */
	{ .op = NN_OP_NORM_ACT, .in = { 2, 32, 32, 64 }, THEN_TWO(INSTANCE, LRELU, RELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 7, 5, 37 }, THEN_TWO(INSTANCE, ELU, TANH), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 64, 64, 192 }, THEN(INSTANCE, LRELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 2, 1, 130 }, THEN(INSTANCE, NONE), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 1, 1, 96 }, THEN(NONE, ELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 9, 9, 33 }, THEN_TWO(BATCH, TANH, ELU), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 33, 47, 3 }, THEN_TWO(NONE, TANH, TANH) },
	/* flat images: what norm leaves are deviations far below the mean */
	{ .op = NN_OP_NORM_ACT, .in = { 1, 64, 64, 64 }, THEN(INSTANCE, NONE), .input = OFFSET },
	{ .op = NN_OP_NORM_ACT,
	  .in = { 1, 9, 11, 5 },
	  THEN_TWO(INSTANCE, LRELU, RELU),
	  SLICES,
	  .input = OFFSET },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 16, 16, 32 }, THEN(INSTANCE, NONE), .input = FLAT },
	{ CONV(1, 32, 32, 16, 64, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU),
	  .input = FLAT },
	{ CONVT(1, 16, 16, 64, 64), THEN(INSTANCE, RELU), .input = FLAT },
	/* the rest */
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 8, 8, 64 }, .pad = 1 },
	{ .op = NN_OP_UPSAMPLE, .in = { 1, 1, 1, 20 }, .pad = 1 },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 3, 5, 21 }, .pad = 2, SLICES },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 4, 2, 16 }, .pad = 0 },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 8, 8, 64 }, .kernel = 2, .stride = 2 },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 8, 8, 19 }, .kernel = 8, .stride = 8, SLICES },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 9, 7, 3 }, .kernel = 3, .stride = 2, .pad = 1 },
	{ .op = NN_OP_AVGPOOL, .in = { 1, 1, 2, 3 }, .kernel = 3, .stride = 2, .pad = 1 },
	{ .op = NN_OP_LINEAR, .in = { 3, 1, 1, 256 }, .channels = 8 },
	{ .op = NN_OP_LINEAR, .in = { 2, 1, 1, 37 }, .channels = 13, SLICES },
	{ .op = NN_OP_ADD, .in = { 2, 8, 8, 64 } },
	{ .op = NN_OP_ADD, .in = { 2, 3, 5, 21 }, SLICES },
};

/* A case on one device. */
typedef struct Run
{
	NnParams params;
	float *weights;
	NnGraph graph;
	NnBinding bindings[8];
	int nbindings;
	int outputs; /* the last of the bindings */
	bool half;   /* inputs have 8 bits, so that both devices see the same numbers */
} Run;

static size_t
elements(const Run *r, int value)
{
	NnShape s = r->graph.values[value].shape;

	return (size_t) s.n * s.h * s.w * s.c;
}

static int
param(Run *r, int ndim, const int64_t *shape)
{
	return nn_params_add(&r->params, NN_NET_G, "p", ndim, shape);
}

static void
bind(Run *r, int value, bool output)
{
	r->bindings[r->nbindings++] =
		(NnBinding){ value, calloc(elements(r, value) + 1, sizeof(float)) };
	r->outputs += output;
	if (output)
		nn_output(&r->graph, value);
}

/*
 * An input, bound to its buffer; with slices the buffer is wider than the value
 * returned.
 */
static int
input(Run *r, const Case *t, NnShape shape, uint32_t seed)
{
	NnShape wide = shape;
	int value;
	double *numbers;
	size_t n;
	float *data;

	wide.c += t->slices ? BEFORE + AFTER : 0;
	value = nn_input(&r->graph, wide, "in");
	bind(r, value, false);
	data = r->bindings[r->nbindings - 1].data;
	n = elements(r, value);
	numbers = malloc(n * sizeof(double));
	lcg_fill(seed, 1, n, numbers);
	for (size_t i = 0; i < n; i++)
	{
		double flat = numbers[i % wide.c];

		data[i] = (float) (t->input == RANDOM ? numbers[i]
						   : t->input == FLAT ? flat
											  : 100 + 20 * flat + 0.01 * numbers[i]);
		if (r->half)
			data[i] = (float) (rint(data[i] * 128) / 128);
	}
	free(numbers);
	return t->slices ? nn_view(&r->graph, value, BEFORE, shape.c, "slice") : value;
}

static int
norm_act(Run *r, const Case *t, int x)
{
	NnShape wide = r->graph.values[x].shape;
	int64_t c = wide.c;
	int state[4], out[2] = { -1, -1 };
	NnNormArgs args;

	for (int i = 0; t->norm == NN_NORM_BATCH && i < 4; i++)
		state[i] = param(r, 1, &c);
	wide.c += BEFORE + AFTER;
	for (int i = 0; (t->slices || t->readers > 1) && i < t->readers; i++)
		out[i] = t->slices
					 ? nn_view(&r->graph, nn_value(&r->graph, wide, "wide"), BEFORE, (int) c, "out")
					 : nn_value(&r->graph, r->graph.values[x].shape, "out");
	args = (NnNormArgs){ .kind = t->norm };
	memcpy(args.act, t->act, sizeof(args.act));
	out[0] = nn_norm_act(&r->graph, x, out, state, &args, "norm");
	for (int i = 0; i < t->readers; i++)
		bind(r, out[i], true);
	return out[0];
}

static void
build(Run *r, const Case *t, bool half)
{
	int64_t inputs = t->in.c + t->nz, channels = t->channels;
	int x, y = -1, z = -1;

	memset(r, 0, sizeof(*r));
	r->half = half;
	nn_graph_init(&r->graph, &r->params);
	x = input(r, t, t->in, 3);
	if (t->nz > 0)
	{
		Case plain = { .input = RANDOM };

		z = input(r, &plain, (NnShape){ t->in.n, 1, 1, t->nz }, 4);
	}
	switch (t->op)
	{
		case NN_OP_CONV:
			y = nn_conv(&r->graph, x, z,
						param(r, 4, (int64_t[]){ channels, inputs, t->kernel, t->kernel }),
						param(r, 1, &channels),
						(NnConvArgs){ t->kernel, t->stride, t->pad, t->z_act }, "conv");
			break;
		case NN_OP_CONVT:
			y = nn_convt(&r->graph, x, param(r, 4, (int64_t[]){ inputs, channels, 4, 4 }),
						 param(r, 1, &channels), "convt");
			break;
		case NN_OP_NORM_ACT:
			y = x;
			break;
		case NN_OP_UPSAMPLE:
			y = nn_upsample(&r->graph, x, t->pad, "up");
			break;
		case NN_OP_AVGPOOL:
			y = nn_avgpool(&r->graph, x, t->kernel, t->stride, t->pad, "pool");
			break;
		case NN_OP_LINEAR:
			y = nn_linear(&r->graph, x, param(r, 2, (int64_t[]){ channels, inputs }),
						  param(r, 1, &channels), "fc");
			break;
		case NN_OP_ADD:
			y = nn_add(&r->graph, x, input(r, t, t->in, 5), "add");
			break;
		default:
			break;
	}
	if (t->pooled)
		y = nn_avgpool(&r->graph, y, 2, 2, 0, "pool");
	if (t->followed)
		norm_act(r, t, y);
	else
		bind(r, y, true);
}

/*
 * Weights keep the size of activations; variances of batch norm are positive.
 */
static void
fill_weights(Run *r)
{
	double *numbers;

	r->weights = malloc(r->params.total * sizeof(float) + 1);
	for (int i = 0; i < r->params.n; i++)
	{
		const NnParam *p = &r->params.list[i];
		bool variance = p->ndim == 1 && i == r->params.n - 1;

		numbers = malloc(p->count * sizeof(double));
		lcg_fill(100 + i, p->ndim > 1 ? 1 / sqrt((double) p->count / p->shape[0]) : 0.5, p->count,
				 numbers);
		for (size_t k = 0; k < p->count; k++)
			r->weights[p->offset + k] = (float) (numbers[k] + (variance ? 1 : 0));
		free(numbers);
	}
}

/* Outputs are left in the bindings. */
static bool
run_on(NnDevice *device, NnPrecision precision, bool half, const Case *t, Run *r)
{
	NnError error = { 0 };
	NnPlan plan;
	void *packed = NULL;
	size_t bytes;
	NnStatus status;

	build(r, t, half);
	fill_weights(r);
	plan = (NnPlan){ .graph = &r->graph, .device = device, .precision = precision };
	status = nn_plan_memory(&plan, &error);
	if (status == NN_OK)
		status = device->pack(device, precision, &r->graph, r->weights, &packed, &bytes, &error);
	if (status == NN_OK)
		status = device->prepare(device, &plan, packed, &error);
	if (status == NN_OK)
	{
		for (int i = 0; status == NN_OK && i < RUNS; i++)
			status = device->run(device, &plan, packed, r->bindings, r->nbindings, &error);
		device->release(device, &plan);
	}
	if (packed)
		device->pack_free(device, packed);
	nn_plan_free(&plan);
	if (status != NN_OK)
		diag("%s on %s: %s %s", error.message, device->name, error.detail, error.hint);
	return status == NN_OK;
}

static void
free_run(Run *r)
{
	for (int i = 0; i < r->nbindings; i++)
		free(r->bindings[i].data);
	nn_graph_free(&r->graph);
	nn_params_free(&r->params);
	free(r->weights);
}

/* The worst error of the outputs; infinite if one holds what is no number. */
static double
worst_nmse(const Run *expected, const Run *got)
{
	double worst = 0;

	for (int i = expected->nbindings - expected->outputs; i < expected->nbindings; i++)
	{
		size_t n = elements(expected, expected->bindings[i].value);
		double error = 0, power = 0;

		for (size_t k = 0; k < n; k++)
		{
			double e = expected->bindings[i].data[k], d = got->bindings[i].data[k] - e;

			error += d * d;
			power += e * e;
		}
		/*
		 * a flat map has no deviations at all: its errors are compared with
		 * norm's epsilon instead
		 */
		if (power < 1e-3 * n)
			power = 1e-3 * n;
		worst = error / power <= worst ? worst : error / power >= 0 ? error / power : INFINITY;
	}
	return worst;
}

static void
test_case(NnDevice *ref, NnDevice *device, NnPrecision precision, double tolerance, const Case *t)
{
	bool half = precision != NN_PRECISION_FP32;
	Run expected, got;
	bool ran = run_on(ref, NN_PRECISION_FP32, half, t, &expected) &
			   run_on(device, precision, half, t, &got);
	double nmse = ran ? worst_nmse(&expected, &got) : NAN;

	ok(nmse <= tolerance,
	   "%s %s (%d,%d,%d,%d) %d channels, kernel %d, stride %d, pad %d, nz %d%s%s%s%s: NMSE %.1e",
	   nn_precision_name(precision), nn_ops[t->op].name, t->in.n, t->in.h, t->in.w, t->in.c,
	   t->channels, t->kernel, t->stride, t->pad, t->nz, t->pooled ? ", mean of 2x2" : "",
	   t->followed ? ", then a norm" : "", t->slices ? ", slices" : "",
	   t->input == FLAT     ? ", flat"
	   : t->input == OFFSET ? ", large mean"
							: "",
	   nmse);
	free_run(&expected);
	free_run(&got);
}

/* Multiplications of a convolution. */
static double
products(const Case *t)
{
	double pixels = (double) t->in.n * t->in.h * t->in.w;

	return t->op == NN_OP_CONVT ? pixels * t->in.c * t->channels * 16
								: pixels / (t->stride > 0 ? t->stride * t->stride : 1) * t->in.c *
									  t->channels * t->kernel * t->kernel;
}

/*
 * Flat maps and large means are for floats only: in half the precision such
 * inputs keep nothing of what norm shows.
 */
__attribute__((unused)) static void
test_table(NnDevice *ref, NnDevice *device, NnPrecision precision, double tolerance)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if ((precision == NN_PRECISION_FP32 || cases[i].input == RANDOM) &&
			products(&cases[i]) <= MAX_PRODUCTS)
			test_case(ref, device, precision, tolerance, &cases[i]);
}

#endif /* BICYCLE_OP_TABLE_H */
