/*
 * Proves that every operator of training on the CUDA device computes what the
 * reference device does, forward and backward, without a GPU: device and
 * kernels run on the imitated GPU of test/cuda, with naive convolutions in
 * place of cuDNN's.
 *
 * Step by step: both devices get the same numbers, rounded to what the GPU
 * keeps, and run one step; what it writes must agree (fp32: 1e-9 of the mean
 * square, bf16: 1e-4 forward, 1e-3 backward), and what it does not write must
 * be as it was, bit for bit. A backward step is run with each gradient alone,
 * overwritten and added to, and as the schedule says. Each value has memory of
 * its own, so that all of it can be looked at.
 *
 * Then whole: losses and gradients of all steps in order agree, and are the
 * same bits each time.
 */
#include "op_backward.h"
#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

/* The imitation is slow. */
#define MAX_PRODUCTS 1e5 /* of a convolution */
#define MAX_NUMBERS 1e5  /* of its input, or another operator's */

/*
 * What the table's cases of training are too small for: several blocks of a
 * sum, maps of one pixel, odd channels, flat maps, convolutions' biases.
 */
static const Case more[] = {
	{ NORM(2, 40, 31, 5), THEN_TWO(INSTANCE, LRELU, RELU), SLICES, TRAINING },
	{ NORM(1, 48, 32, 72), THEN(INSTANCE, LRELU), TRAINING },
	{ NORM(3, 31, 21, 17), THEN_TWO(BATCH, ELU, LRELU), .dropout = 0.5f, TRAINING },
	{ NORM(2, 40, 40, 8), THEN(BATCH, RELU), SLICES, TRAINING },
	{ NORM(1, 1, 1, 8), THEN(BATCH, LRELU), TRAINING },
	{ NORM(3, 1, 1, 7), THEN_TWO(BATCH, RELU, TANH), TRAINING },
	{ NORM(2, 1, 1, 40), THEN_TWO(NONE, ELU, TANH), .dropout = 0.5f, TRAINING },
	{ NORM(2, 3, 5, 21), THEN_TWO(NONE, RELU, ELU), SLICES, .dropout = 0.3f, TRAINING },
	{ NORM(1, 16, 16, 32), THEN(INSTANCE, NONE), .input = FLAT, TRAINING },
	{ NORM(1, 40, 40, 9), THEN_TWO(INSTANCE, LRELU, RELU), .input = OFFSET, TRAINING },
	{ NORM(2, 9, 11, 5), THEN(INSTANCE, TANH), SLICES, .input = OFFSET, TRAINING },
	{ CONV(2, 40, 40, 3, 5, 3, 1, 1), TRAINING },
	{ CONV(2, 34, 34, 3, 16, 4, 2, 1), Z(8, LRELU), THEN_TWO(NONE, LRELU, RELU), TRAINING },
	{ CONV(2, 5, 36, 4, 24, 4, 2, 1), Z(5, TANH), SLICES, TRAINING },
	{ CONV(1, 2, 1, 8, 8, 3, 1, 1), Z(2, NONE), THEN(NONE, RELU), TRAINING },
	{ CONV(1, 1, 1, 4, 3, 3, 1, 1), Z(2, ELU), TRAINING },
	{ CONVT(1, 24, 24, 4, 3), THEN(NONE, TANH), TRAINING },
	{ .op = NN_OP_UPSAMPLE, .in = { 1, 3, 5, 21 }, .pad = 2, SLICES, TRAINING },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 4, 2, 16 }, .pad = 0, TRAINING },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 2, 3, 8 }, .pad = 3, TRAINING },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 8, 8, 19 }, .kernel = 8, .stride = 8, SLICES, TRAINING },
	{ .op = NN_OP_AVGPOOL, .in = { 1, 1, 2, 3 }, .kernel = 3, .stride = 2, .pad = 1, TRAINING },
	{ .op = NN_OP_LINEAR, .in = { 2, 1, 1, 300 }, .channels = 8, TRAINING },
	{ .op = NN_OP_LINEAR, .in = { 2, 1, 1, 37 }, .channels = 13, SLICES, TRAINING },
	{ .op = NN_OP_GAN_LOSS, .in = { 1, 70, 70, 1 }, .loss = { 1, 1, false }, TRAINING },
	{ .op = NN_OP_GAN_LOSS, .in = { 1, 80, 80, 1 }, .loss = { 1, 0, true }, TRAINING },
	{ .op = NN_OP_L1_LOSS, .in = { 2, 48, 48, 3 }, .loss = { .scale = 10 }, SLICES, TRAINING },
	{ .op = NN_OP_L1_LOSS, .in = { 2, 1, 1, 8 }, .loss = { .scale = 0.5 }, TRAINING },
	{ .op = NN_OP_AUGMENT, .in = { 2, 70, 64, 6 }, .augment = { true, 3, true }, SLICES, TRAINING },
	{ .op = NN_OP_AUGMENT, .in = { 1, 33, 47, 3 }, .augment = { true, 0, false }, TRAINING },
};

/* ---- Two devices --------------------------------------------------------- */

typedef struct Pair
{
	Trained ref, cuda;
	const Case *of;
	double *before, *gradients; /* the reference device's, saved */
	double worst[2];            /* forward, backward */
	bool good;
} Pair;

/* Each value that is no view gets memory of its own. */
static void
lay_out_apart(Trained *s)
{
	NnPlan *plan = &s->training.plan;
	const NnGraph *g = &s->graph;
	size_t end = 0;
	size_t *old = malloc(g->nvalues * sizeof(size_t));

	memcpy(old, plan->offset, g->nvalues * sizeof(size_t));
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of < 0)
		{
			plan->offset[i] = end;
			end += (count_of(g, i) * (nn_is_wide(g, i) ? plan->wide : 1) + 63) / 64 * 64;
		}
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of >= 0)
		{
			int root = nn_value_root(g, i);

			plan->offset[i] = plan->offset[root] + (old[i] - old[root]);
		}
	plan->arena_elements = end;
	free(old);
}

static bool
start_apart(Trained *s, NnDevice *device, const Tried *c, NnPrecision precision)
{
	trained_build(s, device, c, precision);
	if (nn_training_plan(&s->training, &error) == NN_OK)
	{
		lay_out_apart(s);
		if (trained_prepare(s))
			return true;
	}
	diag("%s %s", error.message, error.detail);
	return false;
}

static NnMap
map_of(const Trained *s, int value)
{
	const NnPlan *plan = &s->training.plan;
	NnSizes sizes = nn_training_sizes(s->device, plan->precision);

	if (value < 0)
		return (NnMap){ 0 };
	return (NnMap){ .shape = s->graph.values[value].shape,
					.pitch = plan->pitch[value],
					.wide = nn_is_wide(&s->graph, value),
					.data = (char *) plan->arena + plan->offset[value] * sizes.element };
}

/* ---- Numbers of a value -------------------------------------------------- */

static bool
in_bf16(const Trained *s, const NnMap *map)
{
	return s->training.plan.precision == NN_PRECISION_BF16 && !map->wide;
}

/* What the GPU keeps of a number. */
static double
kept(const Trained *cuda, const NnMap *map, double x)
{
	return in_bf16(cuda, map) ? nn_bf16((float) x) : (float) x;
}

static double
number_of(const Trained *s, const NnMap *map, size_t i)
{
	size_t at = nn_map_place(map, i);
	uint32_t bits;
	float x;

	if (s->device->train->dtype == NN_F64)
		return map->f64[at];
	if (!in_bf16(s, map))
		return map->f32[at];
	bits = (uint32_t) ((const uint16_t *) map->data)[at] << 16;
	memcpy(&x, &bits, sizeof(x));
	return x;
}

static void
set_number(const Trained *s, const NnMap *map, size_t i, double number)
{
	size_t at = nn_map_place(map, i);
	float x = (float) number;
	uint32_t bits;

	if (s->device->train->dtype == NN_F64)
		map->f64[at] = number;
	else if (!in_bf16(s, map))
		map->f32[at] = x;
	else
	{
		memcpy(&bits, &x, sizeof(bits));
		((uint16_t *) map->data)[at] = (uint16_t) (bits >> 16);
	}
}

static bool
is_root(const Trained *s, int value)
{
	return s->graph.values[value].view_of < 0;
}

/* Statistics: each device has its own, as no other step reads them. */
static bool
is_statistics(const Trained *s, int value)
{
	for (int i = 0; i < s->graph.nnodes; i++)
		if (s->graph.nodes[i].stats == value)
			return true;
	return false;
}

/* Waits for the GPU. */
static void
drain_gpu(Pair *p)
{
	float none;

	if (p->cuda.device->train->get(p->cuda.device, &p->cuda.training, NN_ARRAY_GRAD, 0, 0, &none,
								   &error) != NN_OK)
		p->good = ok(false, "steps end: %s", error.message);
}

static void
put_gradients(Trained *s, const double *values)
{
	void *typed = typed_copy(s->device, values, s->params.total);

	(void) s->device->train->put(s->device, &s->training, NN_ARRAY_GRAD, 0, s->params.total, typed,
								 &error);
	free(typed);
}

/* Both devices have the same numbers: the reference device's, as the GPU keeps
 * them. */
static void
make_same(Pair *p)
{
	double *gradients = gradients_of(&p->ref);

	drain_gpu(p);
	for (int v = 0; v < p->ref.graph.nvalues; v++)
	{
		NnMap from = map_of(&p->ref, v), to = map_of(&p->cuda, v);

		if (!is_root(&p->ref, v) || is_statistics(&p->ref, v))
			continue;
		for (size_t i = 0; i < nn_map_count(&from); i++)
		{
			double x = kept(&p->cuda, &to, number_of(&p->ref, &from, i));

			set_number(&p->ref, &from, i, x);
			set_number(&p->cuda, &to, i, x);
		}
	}
	for (size_t i = 0; i < p->ref.params.total; i++)
		gradients[i] = (float) gradients[i];
	put_gradients(&p->ref, gradients);
	put_gradients(&p->cuda, gradients);
	free(gradients);
}

/* ---- One step ------------------------------------------------------------ */

static NnOperands
step_operands(const Trained *s, const NnStep *step)
{
	const NnTraining *t = &s->training;
	NnSizes sizes = nn_training_sizes(s->device, t->plan.precision);
	NnOperands op = nn_operands(&t->plan, step->node, t->array[NN_ARRAY_PARAM], sizes);
	const NnParam *list = s->params.list;
	char *gradients = t->array[NN_ARRAY_GRAD].data;

	op.training = t;
	for (int k = 0; k < NN_MAX_OUT; k++)
		op.dout[k] = map_of(s, step->dout[k]);
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		op.in_mode[k] = step->in_mode[k];
		if (op.in_mode[k] != NN_GRAD_IGNORE)
			op.din[k] = map_of(s, step->din[k]);
	}
	op.weight_mode = step->weight_mode;
	op.bias_mode = step->bias_mode;
	if (op.weight_mode != NN_GRAD_IGNORE)
		op.dweight.data = gradients + list[op.node->weight].offset * sizes.number;
	if (op.bias_mode != NN_GRAD_IGNORE)
		op.dbias.data = gradients + list[op.node->bias].offset * sizes.number;
	return op;
}

/* The reference device only adds. */
static void
zero_first(Pair *p, const NnOperands *op)
{
	for (int k = 0; k < NN_MAX_IN; k++)
		for (size_t i = 0; op->in_mode[k] == NN_GRAD_OVERWRITE && i < nn_map_count(&op->din[k]);
			 i++)
			set_number(&p->ref, &op->din[k], i, 0);
	if (op->weight_mode == NN_GRAD_OVERWRITE)
		memset(op->dweight.data, 0, p->ref.params.list[op->node->weight].count * sizeof(double));
	if (op->bias_mode == NN_GRAD_OVERWRITE)
		memset(op->dbias.data, 0, p->ref.params.list[op->node->bias].count * sizeof(double));
}

static void
run_step(Pair *p, const NnStep *step)
{
	NnOperands a = step_operands(&p->ref, step), b = step_operands(&p->cuda, step);
	const NnOpImpl *x = &p->ref.device->train->ops[a.node->op],
				   *y = &p->cuda.device->train->ops[b.node->op];
	NnStatus status;

	if (step->kind == NN_STEP_BACKWARD)
	{
		zero_first(p, &a);
		status = x->backward(&a, &error);
		if (status == NN_OK)
			status = y->backward(&b, &error);
	}
	else
	{
		status = x->forward(&a, &error);
		if (status == NN_OK)
			status = y->forward(&b, &error);
	}
	if (status != NN_OK)
		p->good = ok(false, "a step runs: %s", error.message);
	drain_gpu(p);
}

/* ---- What it wrote ------------------------------------------------------- */

/* Normalised square error, taken together number by number. */
typedef struct Nmse
{
	double difference, power;
	size_t n;
} Nmse;

static void
take(Nmse *e, double expected, double got)
{
	e->difference += (got - expected) * (got - expected);
	e->power += expected * expected;
	e->n++;
}

/*
 * What errors of a norm are compared with at least. Of a flat map there are no
 * deviations at all: with its epsilon, or with what a gradient is a difference
 * of: those of its outputs times up to 300.
 */
static double
flat_power(const Pair *p, const NnStep *step, size_t n)
{
	double power = 0;

	if (step->kind == NN_STEP_FORWARD)
		return 1e-3 * (double) n;
	for (int k = 0; k < NN_MAX_OUT && p->of && p->of->input != RANDOM; k++)
	{
		NnMap dout = map_of(&p->ref, step->dout[k]);

		for (size_t i = 0; i < nn_map_count(&dout); i++)
			power += 1e4 * pow(number_of(&p->ref, &dout, i), 2);
	}
	return power;
}

static void
judge(Pair *p, const NnStep *step, Nmse e, const char *what)
{
	bool back = step->kind == NN_STEP_BACKWARD,
		 half = p->cuda.training.plan.precision == NN_PRECISION_BF16;
	double limit = !half ? 1e-9 : back ? 1e-3 : 1e-4, nmse;
	const NnNode *node = &p->ref.graph.nodes[step->node];

	if (nn_norm_of(node) != NN_NORM_NONE && e.power < flat_power(p, step, e.n))
		e.power = flat_power(p, step, e.n);
	nmse = e.difference == 0 ? 0 : e.difference / e.power;
	if (nmse > p->worst[back])
		p->worst[back] = nmse;
	if (nmse <= limit)
		return;
	p->good = false;
	diag("%s, %s %s: NMSE %.3g", nn_ops[node->op].name, back ? "backward" : "forward", what, nmse);
}

/* Marks the numbers of the root that a part of it has. */
static void
mark(const Trained *s, int value, bool **marks)
{
	const NnPlan *plan = &s->training.plan;
	int root = value < 0 ? -1 : nn_value_root(&s->graph, value);
	NnMap map;

	if (value < 0)
		return;
	map = map_of(s, value);
	if (!marks[root])
		marks[root] = calloc(count_of(&s->graph, root) + 1, sizeof(bool));
	for (size_t i = 0; i < nn_map_count(&map); i++)
		marks[root][plan->offset[value] - plan->offset[root] + nn_map_place(&map, i)] = true;
}

/* All values: what the step wrote, and what it must have left alone. */
static void
compare_values(Pair *p, const NnStep *step)
{
	const NnNode *node = &p->ref.graph.nodes[step->node];
	bool **marks = calloc(p->ref.graph.nvalues, sizeof(bool *));
	char what[40];

	for (int k = 0; k < NN_MAX_OUT && step->kind == NN_STEP_FORWARD; k++)
		mark(&p->ref, node->out[k], marks);
	for (int k = 0; k < NN_MAX_IN; k++)
		if (step->in_mode[k] != NN_GRAD_IGNORE)
			mark(&p->ref, step->din[k], marks);
	for (int v = 0; v < p->ref.graph.nvalues; v++)
	{
		NnMap a = map_of(&p->ref, v), b = map_of(&p->cuda, v);
		Nmse e = { 0 };
		bool left = true;

		if (!is_root(&p->ref, v) || is_statistics(&p->ref, v))
			continue;
		for (size_t i = 0; i < nn_map_count(&a); i++)
		{
			double x = number_of(&p->ref, &a, i), y = number_of(&p->cuda, &b, i);

			if (marks[v] && marks[v][i])
				take(&e, x, y);
			else
				left = left && x == y;
		}
		snprintf(what, sizeof(what), "value %d", v);
		if (!left)
		{
			p->good = false;
			diag("%s: what it does not write of %s changed", nn_ops[node->op].name, what);
		}
		judge(p, step, e, what);
		free(marks[v]);
	}
	free(marks);
}

static void
compare_gradients(Pair *p, const NnStep *step)
{
	const NnNode *node = &p->ref.graph.nodes[step->node];
	double *x = gradients_of(&p->ref), *y = gradients_of(&p->cuda);

	for (int i = 0; i < p->ref.params.n; i++)
	{
		const NnParam *param = &p->ref.params.list[i];
		Nmse e = { 0 };

		for (size_t k = param->offset; k < param->offset + param->count; k++)
			take(&e, x[k], y[k]);
		if ((i == node->weight && step->weight_mode != NN_GRAD_IGNORE) ||
			(i == node->bias && step->bias_mode != NN_GRAD_IGNORE))
			judge(p, step, e, param->name);
		else if (e.difference != 0)
		{
			p->good = false;
			diag("%s: the gradient of %s changed", nn_ops[node->op].name, param->name);
		}
	}
	free(x);
	free(y);
}

/* The GPU keeps the mean of an instance norm less the first pixel. */
static void
compare_statistics(Pair *p, const NnStep *step)
{
	const NnNode *node = &p->ref.graph.nodes[step->node];
	NnMap a = map_of(&p->ref, node->stats), b = map_of(&p->cuda, node->stats),
		  x = map_of(&p->cuda, node->in[0]);
	Nmse mean = { 0 }, var = { 0 };
	int c = x.shape.c;

	if (node->stats < 0 || step->kind != NN_STEP_FORWARD)
		return;
	for (int n = 0; n < a.shape.n; n++)
		for (int k = 0; k < c; k++)
		{
			size_t first = (size_t) n * x.shape.h * x.shape.w * c + k, at = (size_t) n * 2 * c + k;
			double origin =
				node->norm.kind == NN_NORM_INSTANCE ? number_of(&p->cuda, &x, first) : 0;

			take(&mean, number_of(&p->ref, &a, at), number_of(&p->cuda, &b, at) + origin);
			take(&var, number_of(&p->ref, &a, at + c), number_of(&p->cuda, &b, at + c));
		}
	judge(p, step, mean, "means");
	judge(p, step, var, "variances");
}

static void
compare_step(Pair *p, const NnStep *step)
{
	make_same(p);
	run_step(p, step);
	compare_values(p, step);
	compare_gradients(p, step);
	compare_statistics(p, step);
}

/* ---- Modes --------------------------------------------------------------- */

static void
save(Pair *p)
{
	memcpy(p->before, p->ref.training.plan.arena,
		   p->ref.training.plan.arena_elements * sizeof(double));
	free(p->gradients);
	p->gradients = gradients_of(&p->ref);
}

static void
restore(Pair *p)
{
	memcpy(p->ref.training.plan.arena, p->before,
		   p->ref.training.plan.arena_elements * sizeof(double));
	put_gradients(&p->ref, p->gradients);
}

/* Other numbers where gradients go. */
static void
litter(Pair *p, const NnStep *step)
{
	double *numbers = random_values(&p->ref, 77);

	put_gradients(&p->ref, numbers);
	free(numbers);
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		NnMap map =
			map_of(&p->ref, step->din[k] < 0 ? -1 : nn_value_root(&p->ref.graph, step->din[k]));

		numbers = malloc((nn_map_count(&map) + 1) * sizeof(double));
		lcg_fill(90 + k, 0.1, nn_map_count(&map), numbers);
		for (size_t i = 0; i < nn_map_count(&map); i++)
			set_number(&p->ref, &map, i, numbers[i]);
		free(numbers);
	}
}

#define TARGETS (NN_MAX_IN + 2)

/* The mode of a step's k-th gradient. */
static NnGradMode *
mode_of(NnStep *step, int k)
{
	return k < NN_MAX_IN    ? &step->in_mode[k]
		   : k == NN_MAX_IN ? &step->weight_mode
							: &step->bias_mode;
}

/* Each gradient alone, in both modes; an activation has nothing without it. */
static void
try_modes(Pair *p, const NnStep *step)
{
	save(p);
	for (int k = 0; k < TARGETS; k++)
		for (int mode = NN_GRAD_OVERWRITE; mode <= NN_GRAD_ACCUMULATE; mode++)
		{
			NnStep alone = *step;

			if (*mode_of(&alone, k) == NN_GRAD_IGNORE)
				continue;
			for (int i = 0; i < TARGETS; i++)
				*mode_of(&alone, i) = i == k ? (NnGradMode) mode : NN_GRAD_IGNORE;
			litter(p, &alone);
			compare_step(p, &alone);
			restore(p);
		}
}

/* ---- A case -------------------------------------------------------------- */

/*
 * Weights that a filter of bf16 keeps. A bias that a norm takes away the GPU
 * does not add at all.
 */
static void
put_weights(Pair *p)
{
	const NnGraph *g = &p->ref.graph;
	double *values = random_values(&p->ref, 9);

	for (size_t i = 0; i < p->ref.params.total; i++)
		values[i] = nn_bf16((float) values[i]);
	for (int i = 0; i + 1 < g->nnodes; i++)
		if (nn_ops[g->nodes[i].op].filters && g->nodes[i].bias >= 0 && nn_read_by_next_only(g, i) &&
			nn_norm_of(&g->nodes[i + 1]) == NN_NORM_INSTANCE)
		{
			const NnParam *bias = &p->ref.params.list[g->nodes[i].bias];

			memset(values + bias->offset, 0, bias->count * sizeof(double));
		}
	put_params(&p->ref, values);
	put_params(&p->cuda, values);
	free(values);
}

/* What a case says of its input, in the convolution that stands before it. */
static void
shape_input(Pair *p, const NnStep *step)
{
	const NnNode *node = &p->ref.graph.nodes[step->node];
	NnMap map = map_of(&p->ref, node->out[0]);

	if (!p->of || p->of->input == RANDOM || step->kind != NN_STEP_FORWARD ||
		strcmp(node->name, "before") != 0)
		return;
	for (size_t i = 0; i < nn_map_count(&map); i++)
	{
		double flat = sin(1 + (double) (i % map.shape.c)), x = number_of(&p->ref, &map, i);

		set_number(&p->ref, &map, i, p->of->input == FLAT ? flat : 100 + 20 * flat + 0.01 * x);
	}
}

static void
put_inputs(Pair *p)
{
	for (int i = 0; i < p->ref.nfeeds; i++)
	{
		NnMap map = map_of(&p->ref, p->ref.feeds[i].value);

		for (size_t k = 0; k < nn_map_count(&map); k++)
			set_number(&p->ref, &map, k, ((const double *) p->ref.feeds[i].data)[k]);
	}
}

static void
test_steps(NnDevice *ref, NnDevice *cuda, const Tried *c, NnPrecision precision)
{
	Pair p = { .of = c->of, .good = true };
	bool started =
		start_apart(&p.ref, ref, c, NN_PRECISION_FP32) & start_apart(&p.cuda, cuda, c, precision);

	if (started)
	{
		size_t bytes = p.ref.training.plan.arena_elements * sizeof(double);

		memset(p.ref.training.plan.arena, 0, bytes);
		p.before = malloc(bytes + 1);
		put_weights(&p);
		put_inputs(&p);
		started = cuda->train->begin(cuda, &p.cuda.training, &error) == NN_OK;
	}
	for (int i = 0; started && i < p.ref.training.schedule.nsteps; i++)
	{
		const NnStep *step = &p.ref.training.schedule.steps[i];

		if (step->kind == NN_STEP_ZERO)
		{
			NnMap map = map_of(&p.ref, step->zero);

			(void) ref->train->zero(ref, &p.ref.training, &map, &error);
			continue;
		}
		if (step->kind == NN_STEP_BACKWARD)
			try_modes(&p, step);
		compare_step(&p, step);
		shape_input(&p, step);
	}
	ok(started && p.good, "%s, step by step in %s: NMSE %.1e forward, %.1e backward", c->name,
	   nn_precision_name(precision), p.worst[0], p.worst[1]);
	free(p.before);
	free(p.gradients);
	trained_free(&p.ref);
	trained_free(&p.cuda);
}

/* ---- Whole graphs -------------------------------------------------------- */

static void
test_whole(NnDevice *ref, NnDevice *cuda, const Tried *c, NnPrecision precision, double limit)
{
	Trained a, b;
	bool good = trained_init(&a, ref, c, NN_PRECISION_FP32) & trained_init(&b, cuda, c, precision);
	double worst = 0;

	if (good)
	{
		double *params = random_values(&a, 9);
		double expected = run(&a, params), got = run(&b, params);
		double *x = gradients_of(&a), *y = gradients_of(&b), *again;

		good = fabs(got - expected) <= sqrt(limit) * fabs(expected);
		for (int i = 0; i < a.params.n; i++)
		{
			const NnParam *param = &a.params.list[i];
			Nmse e = { 0 };

			for (size_t k = param->offset; k < param->offset + param->count; k++)
				take(&e, x[k], y[k]);
			if (e.difference > worst * e.power)
				worst = e.difference / e.power;
		}
		good = good && worst <= limit && run(&b, params) == got;
		again = gradients_of(&b);
		good = good && memcmp(y, again, a.params.total * sizeof(double)) == 0;
		free(params);
		free(x);
		free(y);
		free(again);
	}
	ok(good, "%s, whole in %s: gradients' NMSE %.1e, and the same bits again", c->name,
	   nn_precision_name(precision), worst);
	trained_free(&a);
	trained_free(&b);
}

/* Whether a case can be trained, and is small enough. */
static bool
is_for_training(const Case *t)
{
	double numbers = (double) t->in.n * t->in.h * t->in.w * t->in.c,
		   products = numbers / (t->stride > 0 ? t->stride * t->stride : 1) * t->channels *
					  (t->op == NN_OP_CONVT ? 16 : t->kernel * t->kernel);

	/*
	 * a norm takes away all that a code adds alike everywhere: gradients are 0
	 */
	if (t->nz > 0 && t->pad == 0 && t->norm == NN_NORM_INSTANCE)
		return false;
	return !nn_ops[t->op].inference && !t->affine && t->drop_seed == 0 &&
		   products <= MAX_PRODUCTS && numbers <= MAX_NUMBERS;
}

static void
test_stepwise(NnDevice *ref, NnDevice *cuda, const Tried *c)
{
	/* of every other case threads and blocks run in other orders */
	gpu_settings->chance = gpu_settings->chance == 0 ? 11 : 0;
	test_steps(ref, cuda, c, NN_PRECISION_FP32);
	/* half precision keeps nothing of what a flat map shows */
	if (!c->of || c->of->input == RANDOM)
		test_steps(ref, cuda, c, NN_PRECISION_BF16);
}

static void
test_both_precisions(NnDevice *ref, NnDevice *cuda, const Tried *c)
{
	test_whole(ref, cuda, c, NN_PRECISION_FP32, 1e-9);
	test_whole(ref, cuda, c, NN_PRECISION_BF16, 1e-3);
}

static void
test_tables(NnDevice *ref, NnDevice *cuda, bool has_case[NN_OPS])
{
	for (size_t i = 0; i < CASES; i++)
	{
		Tried c = { case_name(&cases[i]), &cases[i] };

		if (!is_for_training(&cases[i]))
			continue;
		has_case[cases[i].op] = true;
		test_stepwise(ref, cuda, &c);
		/* of others gradients are small differences of large numbers */
		if (cases[i].when != INFERENCE)
			test_both_precisions(ref, cuda, &c);
	}
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		test_stepwise(ref, cuda, &(Tried){ case_name(&more[i]), &more[i] });
	for (size_t i = 0; i < sizeof(graphs) / sizeof(graphs[0]); i++)
	{
		test_stepwise(ref, cuda, &graphs[i]);
		test_both_precisions(ref, cuda, &graphs[i]);
	}
}

int
main(void)
{
	bool has_case[NN_OPS] = { false };
	NnDevice *ref, *cuda;

	if (!ok(nn_device_open("ref", 1, &ref, &error) == NN_OK &&
				bicycle_cuda_module.open(0, 1, &cuda, &error) == NN_OK,
			"both devices open"))
	{
		diag("%s: %s", error.message, error.detail);
		return done_testing();
	}
	test_tables(ref, cuda, has_case);
	for (int op = 0; op < NN_OPS; op++)
		ok(has_case[op] || op == NN_OP_INPUT || nn_ops[op].inference, "%s has a case",
		   nn_ops[op].name);
	nn_device_close(cuda);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	nn_device_close(ref);
	return done_testing();
}
