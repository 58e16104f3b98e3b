/*
 * cpu_train.c
 *	  Training on the CPU: memory, the steps of a schedule through one table of
 *	  operators, Adam, and the layout of weights.
 *
 * Arena, arrays and work space belong to the NnTraining from prepare to
 * release. Operators share their work among an OpenMP team of the device's
 * threads.
 */
#include "nn/cpu/cpu_train.h"
#include "nn/cpu/cpu_train_product.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct TrainState
{
	float *work; /* of products, for each of nwork threads */
	int nwork;
	float *latents; /* of convolutions with a latent */
	size_t nlatents;
	bool *turned; /* one a parameter: its array holds [tap][C][O] */
} TrainState;

/* ---- Operators ----------------------------------------------------------- */

typedef void (*TrainOp)(const CpuOperands *op);

static const TrainOp operators[NN_OPS][2] = {
	/* forward, backward */
	[NN_OP_CONV] = { cpu_train_conv, cpu_train_conv_backward },
	[NN_OP_CONVT] = { cpu_train_convt, cpu_train_convt_backward },
	[NN_OP_LINEAR] = { cpu_train_conv, cpu_train_conv_backward },
	[NN_OP_NORM_ACT] = { cpu_train_norm_act, cpu_train_norm_act_backward },
	[NN_OP_UPSAMPLE] = { cpu_train_upsample, cpu_train_upsample_backward },
	[NN_OP_AVGPOOL] = { cpu_train_avgpool, cpu_train_avgpool_backward },
	[NN_OP_ADD] = { cpu_train_add, cpu_train_add_backward },
	[NN_OP_COPY] = { cpu_train_add, cpu_train_add_backward },
	[NN_OP_REPARAM] = { cpu_train_reparam, cpu_train_reparam_backward },
	[NN_OP_GAN_LOSS] = { cpu_train_loss, cpu_train_loss_backward },
	[NN_OP_L1_LOSS] = { cpu_train_loss, cpu_train_loss_backward },
	[NN_OP_KL_LOSS] = { cpu_train_loss, cpu_train_loss_backward },
};

static const CpuTrainKernels *
kernels_of(const NnDevice *device)
{
	return ((const CpuDevice *) device->state)->kernels->train;
}

static CpuMap
map_of(const NnPlan *plan, int value)
{
	if (value < 0)
		return (CpuMap){ 0 };
	return (CpuMap){ plan->graph->values[value].shape, plan->pitch[value],
					 (float *) plan->arena + plan->offset[value] };
}

/* The number at which a parameter begins in an array; NULL for none. */
static float *
parameter(const NnTraining *training, NnArray array, int param)
{
	return param >= 0 ? (float *) training->array[array] + training->params->list[param].offset
					  : NULL;
}

static CpuOperands
operands_of(const NnDevice *device, const NnTraining *training, const NnStep *step)
{
	const NnPlan *plan = &training->plan;
	const NnNode *node = &plan->graph->nodes[step->node];
	const TrainState *state = plan->device_state;
	CpuOperands op = {
		.training = training, .node = node, .index = step->node, .threads = device->threads
	};

	for (int k = 0; k < NN_MAX_IN; k++)
	{
		op.in[k] = map_of(plan, node->in[k]);
		op.din[k] = map_of(plan, step->din[k]);
		op.in_mode[k] = step->in_mode[k];
	}
	for (int k = 0; k < 2; k++)
	{
		op.out[k] = map_of(plan, node->out[k]);
		op.dout[k] = map_of(plan, step->dout[k]);
	}
	op.stats = map_of(plan, node->stats);
	op.weight = parameter(training, NN_ARRAY_PARAM, node->weight);
	op.bias = parameter(training, NN_ARRAY_PARAM, node->bias);
	op.weight_mode = step->weight_mode;
	op.bias_mode = step->bias_mode;
	if (op.weight_mode != NN_GRAD_IGNORE)
		op.dweight = parameter(training, NN_ARRAY_GRAD, node->weight);
	if (op.bias_mode != NN_GRAD_IGNORE)
		op.dbias = parameter(training, NN_ARRAY_GRAD, node->bias);
	op.kernels = kernels_of(device);
	op.work = state->work;
	op.latents = state->latents;
	op.bf16 = plan->precision == NN_PRECISION_BF16;
	return op;
}

static void
clear(const CpuMap *map)
{
	for (size_t p = 0; p < cpu_pixels(map->shape); p++)
		memset(map->data + p * map->pitch, 0, map->shape.c * sizeof(float));
}

/*
 * running = 0.9 running + 0.1 batch, with the unbiased variance; PyTorch's
 * momentum of 0.1.
 */
static void
update_statistics(const NnTraining *training, const NnNode *node)
{
	float *mean = parameter(training, NN_ARRAY_PARAM, node->norm.mean),
		  *var = parameter(training, NN_ARRAY_PARAM, node->norm.var);
	CpuMap stats = map_of(&training->plan, node->stats);
	NnShape s = training->plan.graph->values[node->in[0]].shape;
	double count = (double) cpu_pixels(s);

	for (int c = 0; c < s.c; c++)
	{
		mean[c] += 0.1f * (stats.data[c] - mean[c]);
		var[c] += 0.1f * ((float) (stats.data[s.c + c] * count / (count - 1)) - var[c]);
	}
}

static void
run_step(const NnDevice *device, const NnTraining *training, const NnStep *step)
{
	CpuOperands op;
	CpuMap zero;

	switch (step->kind)
	{
		case NN_STEP_FORWARD:
		case NN_STEP_BACKWARD:
			op = operands_of(device, training, step);
			operators[op.node->op][step->kind == NN_STEP_BACKWARD](&op);
			break;
		case NN_STEP_ZERO:
			zero = map_of(&training->plan, step->zero);
			clear(&zero);
			break;
		case NN_STEP_STATISTICS:
			update_statistics(training, &training->plan.graph->nodes[step->node]);
			break;
	}
}

/*
 * Work space for each of the device's threads; there may be more of them than
 * at the last run.
 */
static bool
ready_work(const NnDevice *device, TrainState *state)
{
	size_t each = cpu_product_memory();

	if (state->nwork >= device->threads)
		return true;
	free(state->work);
	state->work = cpu_alloc(nn_mul(each * sizeof(float), device->threads));
	state->nwork = state->work ? device->threads : 0;
	return state->work != NULL;
}

static NnStatus
cpu_train_run(NnDevice *device, NnTraining *training, const NnFeed *feeds, int nfeeds,
			  const int *losses, int nlosses, double *values, NnError *error)
{
	if (!ready_work(device, training->plan.device_state))
		return nn_no_memory(error, nn_mul(cpu_product_memory() * sizeof(float), device->threads));
	for (int i = 0; i < nfeeds; i++)
	{
		CpuMap to = map_of(&training->plan, feeds[i].value);
		const float *from = feeds[i].data;

		for (size_t p = 0; p < cpu_pixels(to.shape); p++, from += to.shape.c)
			memcpy(to.data + p * to.pitch, from, to.shape.c * sizeof(float));
	}
	for (int i = 0; i < training->schedule.nsteps; i++)
	{
		nn_progress(device);
		run_step(device, training, &training->schedule.steps[i]);
	}
	for (int i = 0; i < nlosses; i++)
		values[i] = map_of(&training->plan, losses[i]).data[0];
	return NN_OK;
}

/* ---- Memory -------------------------------------------------------------- */

static void
cpu_train_release(NnDevice *device, NnTraining *training)
{
	TrainState *state = training->plan.device_state;

	for (int i = 0; i < NN_ARRAYS; i++)
	{
		free(training->array[i]);
		training->array[i] = NULL;
	}
	if (state)
	{
		free(state->work);
		free(state->latents);
		free(state->turned);
		free(state);
	}
	free(training->plan.arena);
	training->plan.arena = NULL;
	training->plan.device_state = NULL;
}

/* For the convolution that needs most. */
static bool
make_latents(const NnGraph *g, TrainState *state)
{
	size_t most = 1;

	for (int i = 0; i < g->nnodes; i++)
	{
		size_t floats = cpu_train_latents(g, &g->nodes[i]);

		most = floats > most ? floats : most;
	}
	state->latents = cpu_alloc(nn_mul(most, sizeof(float)));
	state->nlatents = most;
	return state->latents != NULL;
}

/*
 * By all threads, because the system clears the pages as well when they are
 * first written.
 */
static void
clear_floats(float *to, size_t count, int threads)
{
	const size_t stretch = 1 << 20;

#pragma omp parallel for schedule(static) num_threads(count < 4 * stretch ? 1 : threads)
	for (size_t first = 0; first < count; first += stretch)
		memset(to + first, 0, (count - first < stretch ? count - first : stretch) * sizeof(float));
}

/*
 * What the operators can do: kernels up to a size, and maps whose pixels, and
 * numbers in vectors of CPU_NORM_CHANNELS, an int counts.
 */
static NnStatus
check_graph(const NnDevice *device, const NnGraph *g, NnError *error)
{
	for (int i = 0; i < g->nnodes; i++)
		if ((g->nodes[i].op == NN_OP_CONV || g->nodes[i].op == NN_OP_CONVT) &&
			!cpu_train_can_conv(&g->nodes[i]))
			return nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot train kernels of %d",
						   device->name, g->nodes[i].conv.kernel);
	for (int i = 0; i < g->nvalues; i++)
	{
		NnShape s = g->values[i].shape;
		size_t pixels = nn_mul(nn_mul(s.n, s.h), s.w);

		if (pixels <= INT_MAX && nn_mul(pixels, s.c) / CPU_NORM_CHANNELS <= INT_MAX)
			continue;
		nn_fail(error, NN_EINVAL, "batch is too large for device \"%s\"", device->name);
		nn_detail(error, "A map has %d images of %d x %d with %d channels.", s.n, s.h, s.w, s.c);
		nn_hint(error, "Use a smaller batch_size.");
		return NN_EINVAL;
	}
	return NN_OK;
}

static NnStatus
cpu_train_prepare(NnDevice *device, NnTraining *training, NnError *error)
{
	const NnGraph *g = training->plan.graph;
	NnStatus status = check_graph(device, g, error);
	TrainState *state;
	bool good;

	if (status != NN_OK)
		return status;
	state = calloc(1, sizeof(TrainState));
	good = state != NULL;
	training->plan.device_state = state;
	training->plan.arena = cpu_alloc(nn_mul(training->plan.arena_elements, sizeof(float)));
	good = good && training->plan.arena && ready_work(device, state) && make_latents(g, state);
	for (int i = 0; good && i < NN_ARRAYS; i++)
	{
		size_t count = i == NN_ARRAY_EMA ? training->nema : training->params->total;

		training->array[i] = cpu_alloc(count * sizeof(float));
		good = training->array[i] != NULL;
		if (good)
			clear_floats(training->array[i], count, device->threads);
	}
	if (good)
		state->turned = calloc(training->params->n + 1, sizeof(bool));
	if (!good || !state->turned)
	{
		cpu_train_release(device, training);
		return nn_no_memory(error, nn_mul(training->plan.arena_elements, sizeof(float)));
	}
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op == NN_OP_CONV || g->nodes[i].op == NN_OP_CONVT ||
			g->nodes[i].op == NN_OP_LINEAR)
			state->turned[g->nodes[i].weight] = true;
	training->plan.device_bytes = (4 * training->params->total + training->nema +
								   state->nwork * cpu_product_memory() + state->nlatents) *
								  sizeof(float);
	return NN_OK;
}

/* ---- Adam ---------------------------------------------------------------- */

/*
 * Kingma and Ba 2015, as PyTorch rounds it: the corrections of both moments'
 * bias apart.
 */
static NnStatus
cpu_adam(NnDevice *device, NnTraining *training, const NnAdam *adam, NnError *error)
{
	float *p = training->array[NN_ARRAY_PARAM], *m = training->array[NN_ARRAY_M],
		  *v = training->array[NN_ARRAY_V], *ema = training->array[NN_ARRAY_EMA];
	const float *g = training->array[NN_ARRAY_GRAD];
	float step = (float) (adam->lr / (1 - pow(adam->beta1, (double) adam->t))),
		  root = (float) (1 / sqrt(1 - pow(adam->beta2, (double) adam->t))),
		  beta1 = (float) (1 - adam->beta1), beta2 = (float) adam->beta2,
		  rest = (float) (1 - adam->beta2), epsilon = (float) adam->epsilon,
		  decay = (float) (1 - adam->ema);

	for (int k = 0; k < training->params->n; k++)
	{
		size_t first = training->params->list[k].offset,
			   end = first + training->params->list[k].count;

		if (!training->schedule.trained[k])
			continue;
#pragma omp parallel for schedule(static) num_threads(device->threads)
		for (size_t i = first; i < end; i++)
		{
			m[i] += beta1 * (g[i] - m[i]);
			v[i] = beta2 * v[i] + rest * g[i] * g[i];
			p[i] -= step * m[i] / (sqrtf(v[i]) * root + epsilon);
		}
	}
#pragma omp parallel for schedule(static) num_threads(device->threads)
	for (size_t i = 0; i < training->nema; i++)
		ema[i] += decay * (p[i] - ema[i]);
	return NN_OK;
}

/* ---- Layout of weights --------------------------------------------------- */

/* numbers of each side that are turned while they are in the cache */
#define TILE 32

/* (O, C, taps) in `plain` and [tap][C][O] in `turned`, one into the other. */
static void
turn(const NnParam *p, float *plain, float *turned, bool forth, int threads)
{
	size_t o = p->shape[0], c = p->shape[1], row = p->count / o, taps = row / c;

#pragma omp parallel for schedule(static) num_threads(threads)
	for (size_t k0 = 0; k0 < row; k0 += TILE)
		for (size_t i0 = 0; i0 < o; i0 += TILE)
			for (size_t k = k0; k < k0 + TILE && k < row; k++)
			{
				float *b = &turned[(k % taps * c + k / taps) * o];

				for (size_t i = i0; i < i0 + TILE && i < o; i++)
				{
					if (forth)
						b[i] = plain[i * row + k];
					else
						plain[i * row + k] = b[i];
				}
			}
}

/*
 * Numbers [offset, offset + count) of an array, whole parameters, between the
 * checkpoint's layout in `data` and ours.
 */
static NnStatus
transfer(const NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		 float *data, bool put)
{
	const TrainState *state = training->plan.device_state;

	for (int i = 0; i < training->params->n; i++)
	{
		const NnParam *p = &training->params->list[i];
		float *ours = parameter(training, array, i), *theirs = data + (p->offset - offset);

		if (p->offset < offset || p->offset + p->count > offset + count)
			continue;
		if (state->turned[i])
			turn(p, theirs, ours, put, device->threads);
		else
			memcpy(put ? ours : theirs, put ? theirs : ours, p->count * sizeof(float));
	}
	return NN_OK;
}

static NnStatus
cpu_get(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		void *data, NnError *error)
{
	return transfer(device, training, array, offset, count, data, false);
}

static NnStatus
cpu_put(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		const void *data, NnError *error)
{
	return transfer(device, training, array, offset, count, (float *) data, true);
}

/* Without hardware for it, it is slower than fp32: only tests use it. */
static bool
cpu_train_bf16(const NnDevice *device)
{
	return ((const CpuDevice *) device->state)->bf16;
}

/*
 * What is faster. VDPBF16PS, which multiplies bf16 with AVX512-BF16, does half
 * as many products a second as fp32 does on Intel's processors: there an
 * iteration takes 1.6 to 1.9 times as long in bf16 (Emerald Rapids). On AMD's
 * (Zen 4 and later) it may be faster: not measured.
 */
NnPrecision
cpu_train_automatic(const CpuKernels *kernels)
{
	static const struct
	{
		const CpuKernels *kernels;
		NnPrecision precision;
	} fastest[] = {
		{ &cpu_kernels_base, NN_PRECISION_FP32 },
		{ &cpu_kernels_avx2, NN_PRECISION_FP32 },
		{ &cpu_kernels_avx512, NN_PRECISION_FP32 },
		{ &cpu_kernels_avx512bf16, NN_PRECISION_FP32 },
	};

	for (size_t i = 0; i < sizeof(fastest) / sizeof(fastest[0]); i++)
		if (fastest[i].kernels == kernels)
			return fastest[i].precision;
	return NN_PRECISION_FP32;
}

static NnPrecision
cpu_automatic(const NnDevice *device)
{
	return cpu_train_automatic(((const CpuDevice *) device->state)->kernels);
}

const NnTrainDevice cpu_train_device = { .dtype = NN_F32,
										 .host = false,
										 .bf16 = cpu_train_bf16,
										 .automatic = cpu_automatic,
										 .prepare = cpu_train_prepare,
										 .release = cpu_train_release,
										 .run = cpu_train_run,
										 .adam = cpu_adam,
										 .get = cpu_get,
										 .put = cpu_put };
