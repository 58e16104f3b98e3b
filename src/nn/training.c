/*
 * training.c
 *	  What training is on every device: the walk over the steps of a schedule,
 *	  running statistics, and the order of an update.
 *
 * R1 Nothing here touches a number: devices supply operators and primitives,
 *    and own all memory. Called by the device's owner.
 */
#include "nn/training.h"

#include "common/invariant.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* PyTorch's momentum of running statistics. */
#define STATISTICS_SHARE 0.1

/* ---- Operands ------------------------------------------------------------ */

/* The number at `offset` of an array; none if the array is. */
static NnNumbers
numbers_at(NnNumbers array, size_t offset, size_t size)
{
	return (NnNumbers){ .data = array.data ? (char *) array.data + offset * size : NULL };
}

static NnMap
map_at(const NnPlan *plan, int value, NnSizes sizes)
{
	if (value < 0)
		return (NnMap){ 0 };
	return (NnMap){ .shape = plan->graph->values[value].shape,
					.pitch = plan->pitch[value],
					.wide = nn_is_wide(plan->graph, value),
					.data = (char *) plan->arena + plan->offset[value] * sizes.element };
}

static NnNumbers
param_at(const NnParams *params, NnNumbers array, int param, size_t size)
{
	return param < 0 ? (NnNumbers){ 0 } : numbers_at(array, params->list[param].offset, size);
}

NnOperands
nn_operands(const NnPlan *plan, int index, NnNumbers parameters, NnSizes sizes)
{
	const NnNode *node = &plan->graph->nodes[index];
	const NnParams *params = plan->graph->params;
	bool batch = nn_norm_of(node) == NN_NORM_BATCH;
	NnOperands op = { .device = plan->device, .node = node, .index = index };

	for (int k = 0; k < NN_MAX_IN; k++)
		op.in[k] = map_at(plan, node->in[k], sizes);
	for (int k = 0; k < NN_MAX_OUT; k++)
		op.out[k] = map_at(plan, node->out[k], sizes);
	op.stats = map_at(plan, node->stats, sizes);
	op.weight = param_at(params, parameters, node->weight, sizes.number);
	op.bias = param_at(params, parameters, node->bias, sizes.number);
	op.mean = param_at(params, parameters, batch ? node->norm.mean : -1, sizes.number);
	op.var = param_at(params, parameters, batch ? node->norm.var : -1, sizes.number);
	return op;
}

NnSizes
nn_training_sizes(const NnDevice *device, NnPrecision precision)
{
	size_t number = nn_dtype_size(device->train->dtype);

	return (NnSizes){ device->train->element ? device->train->element(precision) : number, number };
}

NnStatus
nn_training_plan(NnTraining *training, NnError *error)
{
	NnPlan *plan = &training->plan;
	NnSizes sizes = nn_training_sizes(plan->device, plan->precision);

	INVARIANT(sizes.number % sizes.element == 0);
	plan->wide = (int) (sizes.number / sizes.element);
	return nn_plan_memory(plan, error);
}

/* ---- Steps --------------------------------------------------------------- */

/* A schedule on a device, with what each step asks for. */
typedef struct Walk
{
	NnDevice *device;
	const NnTrainDevice *ops;
	NnTraining *training;
	NnSizes sizes;
	NnError *error;
} Walk;

static Walk
walk_of(NnDevice *device, NnTraining *training, NnError *error)
{
	return (Walk){ device, device->train, training,
				   nn_training_sizes(device, training->plan.precision), error };
}

static NnStatus
zero_map(const Walk *w, NnMap map)
{
	return w->ops->zero(w->device, w->training, &map, w->error);
}

static NnStatus
zero_param(const Walk *w, int param, NnNumbers gradient)
{
	size_t count = w->training->params->list[param].count;

	INVARIANT(count <= INT_MAX);
	return zero_map(w, (NnMap){ .shape = { 1, 1, 1, (int) count },
								.pitch = count,
								.wide = true,
								.data = gradient.data });
}

/* Zeroes what a backward step is to overwrite, for a device that only adds. */
static NnStatus
zero_gradients(const Walk *w, const NnOperands *op)
{
	NnStatus status = NN_OK;

	for (int k = 0; status == NN_OK && k < NN_MAX_IN; k++)
		if (op->in_mode[k] == NN_GRAD_OVERWRITE)
			status = zero_map(w, op->din[k]);
	if (status == NN_OK && op->weight_mode == NN_GRAD_OVERWRITE)
		status = zero_param(w, op->node->weight, op->dweight);
	if (status == NN_OK && op->bias_mode == NN_GRAD_OVERWRITE)
		status = zero_param(w, op->node->bias, op->dbias);
	return status;
}

static NnOperands
step_operands(const Walk *w, const NnStep *step)
{
	NnTraining *t = w->training;
	NnOperands op = nn_operands(&t->plan, step->node, t->array[NN_ARRAY_PARAM], w->sizes);

	op.training = t;
	return op;
}

static NnStatus
run_backward(const Walk *w, const NnStep *step)
{
	const NnTraining *t = w->training;
	NnOperands op = step_operands(w, step);
	NnStatus status = NN_OK;

	for (int k = 0; k < NN_MAX_OUT; k++)
		op.dout[k] = map_at(&t->plan, step->dout[k], w->sizes);
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		op.din[k] = map_at(&t->plan, step->din[k], w->sizes);
		op.in_mode[k] = step->in_mode[k];
		INVARIANT((op.din[k].data != NULL) == (op.in_mode[k] != NN_GRAD_IGNORE));
	}
	op.weight_mode = step->weight_mode;
	op.bias_mode = step->bias_mode;
	if (op.weight_mode != NN_GRAD_IGNORE)
		op.dweight = param_at(t->params, t->array[NN_ARRAY_GRAD], op.node->weight, w->sizes.number);
	if (op.bias_mode != NN_GRAD_IGNORE)
		op.dbias = param_at(t->params, t->array[NN_ARRAY_GRAD], op.node->bias, w->sizes.number);
	if (w->ops->only_adds)
		status = zero_gradients(w, &op);
	return status == NN_OK ? w->ops->ops[op.node->op].backward(&op, w->error) : status;
}

/* running += 0.1 (batch * numerator / denominator - running) */
static NnStatus
take_statistic(const Walk *w, const NnStep *step, int param, NnNumbers batch, double numerator,
			   double denominator)
{
	NnTraining *t = w->training;
	NnNumbers before = param_at(t->params, t->array[NN_ARRAY_PARAM], param, w->sizes.number),
			  next = param_at(t->params, t->array[NN_ARRAY_GRAD], param, w->sizes.number);

	return w->ops->follow(w->device, t, next, step->first && t->pass == 0 ? before : next, batch,
						  t->params->list[param].count, STATISTICS_SHARE, numerator, denominator,
						  w->error);
}

/*
 * What running statistics become, with the batch's unbiased variance; the
 * update makes it so, as an iteration that has diverged must leave no trace.
 * stats holds the means, and then the biased variances.
 */
static NnStatus
take_statistics(const Walk *w, const NnStep *step)
{
	NnOperands op = step_operands(w, step);
	const NnNode *node = op.node;
	int c = op.in[0].shape.c;
	double count = (double) nn_map_pixels(&op.in[0]);
	NnNumbers mean = { op.stats.data }, var = numbers_at(mean, c, w->sizes.number);
	NnStatus status;

	INVARIANT(op.mean.data && op.var.data && op.stats.shape.c == 2 * c);
	status = take_statistic(w, step, node->norm.mean, mean, 1, 1);
	return status == NN_OK ? take_statistic(w, step, node->norm.var, var, count, count - 1)
						   : status;
}

static NnStatus
walk_step(const Walk *w, const NnStep *step)
{
	NnOperands op;

	nn_progress(w->device);
	switch (step->kind)
	{
		case NN_STEP_FORWARD:
			op = step_operands(w, step);
			return w->ops->ops[op.node->op].forward(&op, w->error);
		case NN_STEP_BACKWARD:
			return run_backward(w, step);
		case NN_STEP_ZERO:
			return zero_map(w, map_at(&w->training->plan, step->zero, w->sizes));
		case NN_STEP_STATISTICS:
			return take_statistics(w, step);
	}
	return NN_OK;
}

static NnStatus
walk_schedule(NnDevice *device, NnTraining *training, NnError *error)
{
	Walk w = walk_of(device, training, error);
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < training->schedule.nsteps; i++)
		status = walk_step(&w, &training->schedule.steps[i]);
	return status;
}

NnStatus
nn_training_run(NnDevice *device, NnTraining *training, const NnFeed *feeds, int nfeeds,
				const int *losses, int nlosses, double *values, NnError *error)
{
	Walk w = walk_of(device, training, error);
	NnStatus status = w.ops->begin(device, training, error);

	for (int i = 0; status == NN_OK && i < nfeeds; i++)
	{
		NnMap map = map_at(&training->plan, feeds[i].value, w.sizes);

		status = w.ops->feed(device, training, &map, feeds[i].data, error);
	}
	if (status == NN_OK)
		status = walk_schedule(device, training, error);
	for (int i = 0; status == NN_OK && i < nlosses; i++)
	{
		NnMap map = map_at(&training->plan, losses[i], w.sizes);

		status = w.ops->number(device, training, &map, &values[i], error);
	}
	if (status == NN_OK && w.ops->end)
		w.ops->end(device, training);
	return status;
}

/* ---- Updates ------------------------------------------------------------- */

static double
step_of(const NnAdam *adam)
{
	return adam->lr / (1 - pow(adam->beta1, (double) adam->t));
}

static double
root_of(const NnAdam *adam)
{
	return sqrt(1 - pow(adam->beta2, (double) adam->t));
}

/* With a share of 0 it is the base, to the bit. */
static NnStatus
keep_statistic(NnDevice *device, NnTraining *training, int param, NnError *error)
{
	size_t number = nn_training_sizes(device, training->plan.precision).number;
	NnNumbers next = param_at(training->params, training->array[NN_ARRAY_GRAD], param, number);

	return device->train->follow(
		device, training,
		param_at(training->params, training->array[NN_ARRAY_PARAM], param, number), next, next,
		training->params->list[param].count, 0, 1, 1, error);
}

NnStatus
nn_training_update(NnDevice *device, NnTraining *training, const NnAdam *adam, NnError *error)
{
	const NnTrainDevice *ops = device->train;
	NnNumbers average = training->array[NN_ARRAY_EMA];
	double step = step_of(adam), root = root_of(adam);
	NnStatus status = NN_OK;

	if (ops->update)
		return ops->update(device, training, adam, step, root, error);
	for (int k = 0; status == NN_OK && k < training->params->n; k++)
	{
		const NnParam *p = &training->params->list[k];

		if (training->schedule.trained[k])
			status = ops->adam(device, training, p->offset, p->offset + p->count, adam, step, root,
							   error);
		else if (training->schedule.running[k])
			status = keep_statistic(device, training, k, error);
	}
	if (status == NN_OK && training->nema > 0)
		status = ops->follow(device, training, average, average, training->array[NN_ARRAY_PARAM],
							 training->nema, 1 - adam->ema, 1, 1, error);
	return status;
}

/* ---- Iterations ---------------------------------------------------------- */

static bool
all_finite(const double *values, int n)
{
	for (int i = 0; i < n; i++)
		if (!isfinite(values[i]))
			return false;
	return true;
}

/* Gradients become 0: the schedule adds to them. */
static NnStatus
zero_trained(NnDevice *device, NnTraining *training, NnError *error)
{
	Walk w = walk_of(device, training, error);
	NnStatus status = NN_OK;

	for (int k = 0; status == NN_OK && k < training->params->n; k++)
		if (training->schedule.trained[k])
			status = zero_param(
				&w, k,
				param_at(training->params, training->array[NN_ARRAY_GRAD], k, w.sizes.number));
	return status;
}

/* All passes, one after the other; values: sums over them. */
static NnStatus
run_passes(NnDevice *device, NnTraining *training, const NnIterate *it, double *values,
		   NnError *error)
{
	int64_t first = training->iteration;
	NnStatus status = NN_OK;

	memset(values, 0, it->nlosses * sizeof(double));
	if (it->passes > 1)
		status = zero_trained(device, training, error);
	for (int pass = 0; status == NN_OK && pass < it->passes; pass++)
	{
		double some[NN_TRAIN_LOSSES];

		training->iteration = first + pass;
		training->pass = pass;
		status = nn_training_run(device, training, it->feeds + pass * it->nfeeds, it->nfeeds,
								 it->losses, it->nlosses, some, error);
		for (int i = 0; status == NN_OK && i < it->nlosses; i++)
			values[i] += some[i];
	}
	return status;
}

NnStatus
nn_training_start(NnDevice *device, NnTraining *training, const NnIterate *iteration,
				  NnError *error)
{
	const NnTrainAhead *ahead = device->train->ahead;
	NnIterate it = *iteration;
	double *values;
	NnStatus status;

	INVARIANT(it.nlosses <= NN_TRAIN_LOSSES);
	it.step = step_of(&it.adam);
	it.root = root_of(&it.adam);
	if (ahead)
		return ahead->start(device, training, &it, walk_schedule, error);
	INVARIANT(training->ndone < NN_STARTS);
	values = training->done[training->ndone];
	status = run_passes(device, training, &it, values, error);
	if (status == NN_OK && all_finite(values, it.nlosses))
		status = nn_training_update(device, training, &it.adam, error);
	training->ndone += status == NN_OK;
	return status;
}

NnStatus
nn_training_finish(NnDevice *device, NnTraining *training, int nlosses, double *values,
				   NnError *error)
{
	const NnTrainAhead *ahead = device->train->ahead;

	if (ahead)
		return ahead->finish(device, training, nlosses, values, error);
	INVARIANT(training->ndone > 0);
	memcpy(values, training->done[0], nlosses * sizeof(double));
	training->ndone--;
	memmove(training->done[0], training->done[1], training->ndone * sizeof(training->done[0]));
	return NN_OK;
}
