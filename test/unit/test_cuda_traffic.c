/*
 * Proves what a step of training asks of a GPU, for the official networks at
 * their size: how many kernels, and how many bytes next to the least possible,
 * that is each operand of each step read or written once. Nothing is computed:
 * the imitated GPU of test/cuda counts launches, and bytes follow from the plan
 * and from what the kernels' heads say they read and write. What stays in the
 * card's cache is counted as if it did not.
 *
 * As notes it prints them by operators.
 */
#include "nn_fixture.h"
#include "nn/cuda/cuda_train.h"
#include "nn/cuda/module.h"
#include "nn/fit_private.h"
#include "nn/params.h"

#include "cuda_runtime_api.h"

extern const NnCudaModule bicycle_cuda_module;

/* Of the default method at 256 x 256. */
#define MOST_KERNELS 850
#define MOST_TRAFFIC 1.5 /* times the least */

static NnError error;

typedef struct Traffic
{
	double least, moved;
} Traffic;

/* ---- What steps move ----------------------------------------------------- */

static double
bytes_of(const NnPlan *plan, int value)
{
	NnShape s;

	if (value < 0)
		return 0;
	s = cuda_shape(plan, value);
	return (double) s.n * s.h * s.w * s.c *
		   (nn_is_wide(plan->graph, value) ? sizeof(float)
										   : kernel_type_size(cuda_type(plan->precision)));
}

static double
numbers_of(const NnPlan *plan, int param)
{
	return param < 0 ? 0 : (double) plan->graph->params->list[param].count;
}

/* Whether cuDNN reads or writes a copy, as R2 of cuda_train_conv.c says. */
static bool
is_staged(const NnPlan *plan, int value)
{
	int c = cuda_shape(plan, value).c;

	return c != cuda_padded(c) || plan->pitch[value] != c;
}

/* A copy of a map, of padded channels. */
static double
staged_bytes(const NnPlan *plan, int value)
{
	int c = cuda_shape(plan, value).c;

	return bytes_of(plan, value) / c * cuda_padded(c);
}

/* A map as an operand of a product, with the copy that it may be. */
static double
operand(const NnPlan *plan, int value)
{
	return is_staged(plan, value) ? bytes_of(plan, value) + 2 * staged_bytes(plan, value)
								  : bytes_of(plan, value);
}

static double
gradient(const NnPlan *plan, const NnStep *step, int k)
{
	if (step->in_mode[k] == NN_GRAD_IGNORE)
		return 0;
	return bytes_of(plan, step->din[k]) * (step->in_mode[k] == NN_GRAD_ACCUMULATE ? 2 : 1);
}

static double
slope(const NnPlan *plan, NnGradMode mode, int param)
{
	return mode == NN_GRAD_IGNORE
			   ? 0
			   : numbers_of(plan, param) * sizeof(float) * (mode == NN_GRAD_ACCUMULATE ? 2 : 1);
}

static void
count_forward(const NnPlan *plan, int index, Traffic *t)
{
	const NnNode *node = &plan->graph->nodes[index];
	double in = 0, out = 0, element = kernel_type_size(cuda_type(plan->precision)),
		   weights = numbers_of(plan, node->weight) *
					 (nn_ops[node->op].filters ? element : sizeof(float)),
		   bias = numbers_of(plan, node->bias) * sizeof(float);

	for (int k = 0; k < NN_MAX_IN; k++)
		in += bytes_of(plan, node->in[k]);
	for (int k = 0; k < NN_MAX_OUT; k++)
		out += bytes_of(plan, node->out[k]);
	t->least += in + out + weights + bias;
	t->moved += in + out + weights + bias;
	if (nn_norm_of(node) != NN_NORM_NONE)
		t->moved += in; /* statistics, then the result */
	if (!nn_ops[node->op].filters)
		return;
	t->moved += operand(plan, node->in[0]) - bytes_of(plan, node->in[0]);
	/* what follows the product, in place or from a copy */
	if (is_staged(plan, node->out[0]))
		t->moved += 2 * staged_bytes(plan, node->out[0]);
	else if (node->in[1] >= 0 || cuda_train_adds_bias(plan->graph, index))
		t->moved += 2 * out;
}

static void
count_backward(const NnPlan *plan, const NnStep *step, const NnNode *node, Traffic *t)
{
	double dout = 0, din = 0, in = 0, slopes, once, element;
	bool learns = step->weight_mode != NN_GRAD_IGNORE;

	element = kernel_type_size(cuda_type(plan->precision));
	for (int k = 0; k < NN_MAX_OUT; k++)
		dout += bytes_of(plan, step->dout[k]);
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		din += gradient(plan, step, k);
		if (nn_ops[node->op].rereads == NN_REREADS_ALWAYS || learns)
			in += bytes_of(plan, node->in[k]);
	}
	slopes =
		slope(plan, step->weight_mode, node->weight) + slope(plan, step->bias_mode, node->bias);
	once = in + dout + din + slopes;
	if (step->in_mode[0] != NN_GRAD_IGNORE && nn_ops[node->op].filters)
		once += numbers_of(plan, node->weight) * element;
	t->least += once;
	t->moved += once;
	if (nn_norm_of(node) != NN_NORM_NONE)
		t->moved += in + dout; /* sums, then the result */
	if (!nn_ops[node->op].filters)
		return;
	if (is_staged(plan, step->dout[0]))
		t->moved += operand(plan, step->dout[0]) - dout;
	if (step->in_mode[0] != NN_GRAD_IGNORE &&
		(step->in_mode[0] == NN_GRAD_ACCUMULATE || is_staged(plan, step->din[0])))
		t->moved += 2 * staged_bytes(plan, step->din[0]);
	if (learns && step->in_mode[0] != NN_GRAD_IGNORE)
		t->moved += is_staged(plan, step->dout[0]) ? staged_bytes(plan, step->dout[0]) : dout;
	if (learns) /* cuDNN's filter, read again */
		t->moved += operand(plan, node->in[0]) - bytes_of(plan, node->in[0]) +
					2 * numbers_of(plan, node->weight) * element;
	if (step->bias_mode != NN_GRAD_IGNORE)
		t->moved += dout;
	if (node->in[1] >= 0 && (learns || step->in_mode[1] != NN_GRAD_IGNORE))
		t->moved += dout;
}

static Traffic
count_traffic(const NnTraining *training)
{
	const NnPlan *plan = &training->plan;
	Traffic t = { 0 };

	for (int i = 0; i < training->schedule.nsteps; i++)
	{
		const NnStep *step = &training->schedule.steps[i];
		const NnNode *node = &plan->graph->nodes[step->node];

		if (step->kind == NN_STEP_FORWARD)
			count_forward(plan, step->node, &t);
		else if (step->kind == NN_STEP_BACKWARD)
			count_backward(plan, step, node, &t);
		else if (step->kind == NN_STEP_ZERO)
			t.moved += bytes_of(plan, step->zero);
	}
	return t;
}

/* ---- What steps launch --------------------------------------------------- */

typedef struct Launches
{
	long of[NN_OPS][2]; /* forward, backward */
	long zero, all;
} Launches;

/* Each step by itself, so that its launches are known. */
static bool
count_launches(NnDevice *device, NnTraining *training, Launches *l)
{
	NnSchedule all = training->schedule;
	NnStatus status = NN_OK;

	memset(l, 0, sizeof(*l));
	training->schedule.nsteps = 1;
	for (int i = 0; status == NN_OK && i < all.nsteps; i++)
	{
		const NnStep *step = &all.steps[i];
		NnOp op = training->plan.graph->nodes[step->node].op;
		long before, made;

		(void) device->train->begin(device, training, &error);
		before = gpu_counts().kernels;
		training->schedule.steps = &all.steps[i];
		status = nn_training_run(device, training, NULL, 0, NULL, 0, NULL, &error);
		(void) device->train->get(device, training, NN_ARRAY_GRAD, 0, 0, &(float){ 0 }, &error);
		made = gpu_counts().kernels - before;
		if (step->kind == NN_STEP_FORWARD || step->kind == NN_STEP_BACKWARD)
			l->of[op][step->kind == NN_STEP_BACKWARD] += made;
		else
			l->zero += made;
		l->all += made;
	}
	training->schedule = all;
	return status == NN_OK;
}

/* ---- A step -------------------------------------------------------------- */

static void
print_step(const NnTraining *training, const Launches *l, const Traffic *t)
{
	diag("| operator | forward | backward |");
	for (int op = 0; op < NN_OPS; op++)
		if (l->of[op][0] + l->of[op][1] > 0)
			diag("| %s | %ld | %ld |", nn_ops[op].name, l->of[op][0], l->of[op][1]);
	diag("%d steps, %ld kernels, %ld of them of zeros and running statistics",
		 training->schedule.nsteps, l->all, l->zero);
	diag("%.2f GB moved, at least %.2f GB", t->moved * 1e-9, t->least * 1e-9);
}

static void
test_step(NnDevice *device, const char *json)
{
	NnConfig config;
	NnTrainOptions options;
	NnParams params = { 0 };
	NnIteration it = { 0 };
	NnTraining training = { 0 };
	Launches l;
	Traffic t;
	bool good;

	good = nn_train_options_parse(&config, &options, json, strlen(json), &error) == NN_OK &&
		   nn_params_of(&config, nn_train_networks(&config, &options), &params, &error) == NN_OK;
	if (good)
		nn_iteration_build(&it, &config, &options, &params);
	training.schedule = it.schedule;
	training.params = &params;
	training.plan = (NnPlan){ .graph = &it.graph,
							  .device = device,
							  .precision = NN_PRECISION_BF16,
							  .schedule = &training.schedule };
	good = good && nn_training_plan(&training, &error) == NN_OK &&
		   device->train->prepare(device, &training, &error) == NN_OK &&
		   count_launches(device, &training, &l);
	if (!ok(good, "%s: its steps are launched", json))
		diag("%s: %s", error.message, error.detail);
	else
	{
		t = count_traffic(&training);
		print_step(&training, &l, &t);
		ok(l.all > 0 && l.all <= MOST_KERNELS, "%s: %ld kernels", json, l.all);
		ok(t.moved <= MOST_TRAFFIC * t.least, "%s: %.2f times the bytes that it must move", json,
		   t.moved / t.least);
	}
	device->train->release(device, &training);
	nn_plan_free(&training.plan);
	nn_iteration_free(&it);
	nn_params_free(&params);
}

int
main(void)
{
	NnDevice *device;

	gpu_settings->memory = (size_t) 140 << 30;
	if (!ok(bicycle_cuda_module.open(0, 1, &device, &error) == NN_OK, "the device opens"))
	{
		diag("%s: %s", error.message, error.detail);
		return done_testing();
	}
	gpu_settings->idle = 1;
	test_step(device, "{}");
	test_step(device, "{\"batch_size\":16}");
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	return done_testing();
}
