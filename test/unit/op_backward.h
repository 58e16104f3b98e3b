/*
 * op_backward.h
 *	  Every operator in training: graphs with losses, of the cases of the table
 *	  and of their own, on a device with the steps that compute all gradients.
 */
#ifndef BICYCLE_OP_BACKWARD_H
#define BICYCLE_OP_BACKWARD_H

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

/* A graph with its schedule, not yet laid out. */
static void
trained_build(Trained *s, NnDevice *device, const Tried *c, NnPrecision precision)
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
}

/* Once it is laid out: memory of the device, and the graph's inputs. */
static bool
trained_prepare(Trained *s)
{
	NnDevice *device = s->device;

	if (device->train->prepare(device, &s->training, &error) != NN_OK)
		return false;
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

static bool
trained_init(Trained *s, NnDevice *device, const Tried *c, NnPrecision precision)
{
	trained_build(s, device, c, precision);
	if (nn_training_plan(&s->training, &error) == NN_OK && trained_prepare(s))
		return true;
	diag("%s %s", error.message, error.detail);
	return false;
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

#endif /* BICYCLE_OP_BACKWARD_H */
