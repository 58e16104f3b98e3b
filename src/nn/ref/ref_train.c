/*
 * ref_train.c
 *	  Training on the naive device: the steps of a schedule, in double, through
 *	  one table of operators; parameters, gradients and moments are doubles too.
 *
 * Arena and arrays belong to the NnTraining from prepare to release.
 */
#include "nn/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const RefOp backward[NN_OPS] = {
	[NN_OP_CONV] = ref_conv_backward,         [NN_OP_CONVT] = ref_convt_backward,
	[NN_OP_NORM_ACT] = ref_norm_act_backward, [NN_OP_UPSAMPLE] = ref_upsample_backward,
	[NN_OP_AVGPOOL] = ref_avgpool_backward,   [NN_OP_LINEAR] = ref_linear_backward,
	[NN_OP_ADD] = ref_add_backward,           [NN_OP_COPY] = ref_copy_backward,
	[NN_OP_REPARAM] = ref_reparam_backward,   [NN_OP_GAN_LOSS] = ref_gan_loss_backward,
	[NN_OP_L1_LOSS] = ref_l1_loss_backward,   [NN_OP_KL_LOSS] = ref_kl_loss_backward,
};

static void
ref_train_release(NnDevice *device, NnTraining *training)
{
	for (int i = 0; i < NN_ARRAYS; i++)
	{
		free(training->array[i]);
		training->array[i] = NULL;
	}
	free(training->plan.arena);
	training->plan.arena = NULL;
}

static NnStatus
ref_train_prepare(NnDevice *device, NnTraining *training, NnError *error)
{
	size_t bytes = nn_mul(training->plan.arena_elements, sizeof(double));

	training->plan.arena = malloc(bytes);
	for (int i = 0; i < NN_ARRAYS; i++)
		training->array[i] = calloc(
			(i == NN_ARRAY_EMA ? training->nema : training->params->total) + 1, sizeof(double));
	for (int i = 0; i < NN_ARRAYS; i++)
		if (!training->array[i] || !training->plan.arena)
		{
			ref_train_release(device, training);
			return nn_no_memory(error, bytes);
		}
	training->plan.device_bytes = (4 * training->params->total + training->nema) * sizeof(double);
	return NN_OK;
}

static void
clear(const RefTensor *t)
{
	for (int n = 0; n < t->shape.n; n++)
		for (int y = 0; y < t->shape.h; y++)
			for (int x = 0; x < t->shape.w; x++)
				memset(ref_at(t, n, y, x), 0, t->shape.c * sizeof(double));
}

/*
 * Where the gradient of a parameter goes, cleared if it is to be overwritten;
 * NULL if it is not wanted.
 */
static double *
parameter_gradient(const NnTraining *training, int param, NnGradMode mode)
{
	const NnParam *p;
	double *at;

	if (mode == NN_GRAD_IGNORE)
		return NULL;
	p = &training->params->list[param];
	at = (double *) training->array[NN_ARRAY_GRAD] + p->offset;
	if (mode == NN_GRAD_OVERWRITE)
		memset(at, 0, p->count * sizeof(double));
	return at;
}

static NnStatus
backward_step(const NnTraining *training, const NnStep *step, NnError *error)
{
	const NnPlan *plan = &training->plan;
	const NnNode *node = &plan->graph->nodes[step->node];
	RefTensor tensors[6], gradients[2 + NN_MAX_IN];
	RefOperands op;

	ref_bind(plan, node, training->array[NN_ARRAY_PARAM], tensors, &op);
	op.training = training;
	for (int k = 0; k < 2; k++)
		if (step->dout[k] >= 0)
		{
			gradients[k] = ref_tensor(plan, step->dout[k]);
			op.dout[k] = &gradients[k];
		}
	for (int k = 0; k < NN_MAX_IN; k++)
		if (step->din[k] >= 0)
		{
			gradients[2 + k] = ref_tensor(plan, step->din[k]);
			op.din[k] = &gradients[2 + k];
			if (step->in_mode[k] == NN_GRAD_OVERWRITE)
				clear(op.din[k]);
		}
	op.dweight = parameter_gradient(training, node->weight, step->weight_mode);
	op.dbias = parameter_gradient(training, node->bias, step->bias_mode);
	return backward[node->op](&op, error);
}

/*
 * running = 0.9 running + 0.1 batch, with the unbiased variance; PyTorch's
 * momentum of 0.1.
 */
static void
update_statistics(const NnTraining *training, const NnNode *node)
{
	const NnParam *list = training->params->list;
	double *values = training->array[NN_ARRAY_PARAM];
	RefTensor stats = ref_tensor(&training->plan, node->stats);
	NnShape s = training->plan.graph->values[node->in[0]].shape;
	double count = (double) s.n * s.h * s.w;

	for (int c = 0; c < s.c; c++)
	{
		double *mean = values + list[node->norm.mean].offset + c,
			   *var = values + list[node->norm.var].offset + c;

		*mean += 0.1 * (stats.data[c] - *mean);
		*var += 0.1 * (stats.data[s.c + c] * count / (count - 1) - *var);
	}
}

static NnStatus
run_step(const NnTraining *training, const NnStep *step, NnError *error)
{
	const NnPlan *plan = &training->plan;
	const NnNode *node = &plan->graph->nodes[step->node];
	RefTensor tensors[6];
	RefOperands op;

	switch (step->kind)
	{
		case NN_STEP_FORWARD:
			ref_bind(plan, node, training->array[NN_ARRAY_PARAM], tensors, &op);
			op.training = training;
			return ref_operators[node->op](&op, error);
		case NN_STEP_BACKWARD:
			return backward_step(training, step, error);
		case NN_STEP_ZERO:
			tensors[0] = ref_tensor(plan, step->zero);
			clear(&tensors[0]);
			break;
		case NN_STEP_STATISTICS:
			update_statistics(training, node);
			break;
	}
	return NN_OK;
}

static NnStatus
ref_train_run(NnDevice *device, NnTraining *training, const NnFeed *feeds, int nfeeds,
			  const int *losses, int nlosses, double *values, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; i < nfeeds; i++)
	{
		RefTensor t = ref_tensor(&training->plan, feeds[i].value);
		const double *from = feeds[i].data;

		for (int n = 0; n < t.shape.n; n++)
			for (int y = 0; y < t.shape.h; y++)
				for (int x = 0; x < t.shape.w; x++, from += t.shape.c)
					memcpy(ref_at(&t, n, y, x), from, t.shape.c * sizeof(double));
	}
	for (int i = 0; status == NN_OK && i < training->schedule.nsteps; i++)
		status = run_step(training, &training->schedule.steps[i], error);
	for (int i = 0; status == NN_OK && i < nlosses; i++)
		values[i] = ref_tensor(&training->plan, losses[i]).data[0];
	return status;
}

/*
 * Kingma and Ba 2015, as PyTorch rounds it: the corrections of both moments'
 * bias apart.
 */
static NnStatus
ref_adam(NnDevice *device, NnTraining *training, const NnAdam *adam, NnError *error)
{
	double *p = training->array[NN_ARRAY_PARAM], *m = training->array[NN_ARRAY_M],
		   *v = training->array[NN_ARRAY_V], *ema = training->array[NN_ARRAY_EMA];
	const double *g = training->array[NN_ARRAY_GRAD];
	double step = adam->lr / (1 - pow(adam->beta1, (double) adam->t)),
		   root = sqrt(1 - pow(adam->beta2, (double) adam->t));

	for (int k = 0; k < training->params->n; k++)
	{
		const NnParam *param = &training->params->list[k];

		for (size_t i = param->offset;
			 training->schedule.trained[k] && i < param->offset + param->count; i++)
		{
			m[i] += (1 - adam->beta1) * (g[i] - m[i]);
			v[i] = adam->beta2 * v[i] + (1 - adam->beta2) * g[i] * g[i];
			p[i] -= step * m[i] / (sqrt(v[i]) / root + adam->epsilon);
		}
	}
	for (size_t i = 0; i < training->nema; i++)
		ema[i] += (1 - adam->ema) * (p[i] - ema[i]);
	return NN_OK;
}

static NnStatus
ref_get(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		void *data, NnError *error)
{
	memcpy(data, (double *) training->array[array] + offset, count * sizeof(double));
	return NN_OK;
}

static NnStatus
ref_put(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		const void *data, NnError *error)
{
	memcpy((double *) training->array[array] + offset, data, count * sizeof(double));
	return NN_OK;
}

static bool
ref_train_bf16(const NnDevice *device)
{
	return true;
}

static NnPrecision
ref_train_automatic(const NnDevice *device)
{
	return NN_PRECISION_FP32;
}

const NnTrainDevice ref_train_device = { .dtype = NN_F64,
										 .host = true,
										 .bf16 = ref_train_bf16,
										 .automatic = ref_train_automatic,
										 .prepare = ref_train_prepare,
										 .release = ref_train_release,
										 .run = ref_train_run,
										 .adam = ref_adam,
										 .get = ref_get,
										 .put = ref_put };
