/*
 * op_forward.h
 *	  Every operator of a device against the reference device: each case of the
 *	  table is run on both with the same random weights and inputs.
 *
 * Compared by the normalised mean square error, sum (got - expected)^2 / sum
 * expected^2; the reference always computes in double from the same numbers.
 */
#ifndef BICYCLE_OP_FORWARD_H
#define BICYCLE_OP_FORWARD_H

#include "op_table.h"

/* A test that includes this may say otherwise. */
#ifndef RUNS
#define RUNS 1
#endif
#ifndef MAX_PRODUCTS
#define MAX_PRODUCTS INFINITY
#endif

/* A case on one device. */
typedef struct Run
{
	Builder builder; /* first: hooks of the builder find the run by it */
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
input(Builder *b, const Case *t, NnShape shape, bool constant)
{
	Run *r = (Run *) b;
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
	lcg_fill(3 + r->nbindings, 1, n, numbers);
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

static void
output(Builder *b, int value)
{
	bind((Run *) b, value, true);
}

static void
build(Run *r, const Case *t, bool half)
{
	memset(r, 0, sizeof(*r));
	r->half = half;
	nn_graph_init(&r->graph, &r->params);
	r->builder = (Builder){ &r->graph, &r->params, input, output };
	build_case(&r->builder, t);
}

/*
 * Weights keep the size of activations; variances of batch norm are positive,
 * and so are the weights of distances.
 */
static void
fill_weights(Run *r)
{
	bool root = r->graph.nodes[r->graph.nnodes - 1].op == NN_OP_EMBED;
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
			r->weights[p->offset + k] =
				(float) (root ? fabs(numbers[k]) : numbers[k] + (variance ? 1 : 0));
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

	ok(nmse <= tolerance, "%s %s: NMSE %.1e", nn_precision_name(precision), case_name(t), nmse);
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
test_forward(NnDevice *ref, NnDevice *device, NnPrecision precision, double tolerance)
{
	for (size_t i = 0; i < CASES; i++)
		if (cases[i].when != IN_TRAINING &&
			(precision == NN_PRECISION_FP32 || cases[i].input == RANDOM) &&
			products(&cases[i]) <= MAX_PRODUCTS)
			test_case(ref, device, precision, tolerance, &cases[i]);
}

#endif /* BICYCLE_OP_FORWARD_H */
