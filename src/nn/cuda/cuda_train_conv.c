/*
 * cuda_train_conv.c
 *	  Convolutions in training: forward, and the gradients of inputs and
 *	  weights, by cuDNN.
 *
 * R1 A convolution goes from the C channels of the side with the windows to the
 *    K of the other; a transposed one, forward, is its data gradient, and its
 *    data gradient a forward one. Filters are (K, taps, C) of both.
 * R2 cuDNN reads and writes dense maps whose channels are multiples of eight.
 *    What is not such a map is staged, and what it makes of it copied; a sum
 *    with what is there is a kernel of ours, in float, and rounded once.
 * R3 Engines are the heuristic's own, so that a run that goes on elsewhere in
 *    time has the same: nothing is timed.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* ---- Opening ------------------------------------------------------------- */

typedef struct Opening
{
	CudaTraining *state;
	const NnTraining *training;
	CudaTrainBuffers *wanted;
	NnError *error;
} Opening;

/* Elements of a padded map. */
static size_t
padded_count(NnShape s)
{
	return nn_mul(nn_mul(nn_mul(s.n, s.h), s.w), cuda_padded(s.c));
}

/* What one convolution reads, staged, and makes, in its buffers. */
static void
want_buffers(const NnPlan *plan, const NnNode *node, CudaConvKind kind, CudaTrainBuffers *w)
{
	size_t element = kernel_type_size(cuda_type(plan->precision)),
		   taps = (size_t) node->conv.kernel * node->conv.kernel;
	CudaSides sides = cuda_conv_sides(plan, node);
	size_t windows = nn_mul(padded_count(sides.windows), element),
		   other = nn_mul(padded_count(sides.other), element);

	nn_most(&w->staged[0], kind == CUDA_CONV_DATA ? other : windows);
	if (kind == CUDA_CONV_FILTER)
		nn_most(&w->staged[1], other);
	nn_most(&w->result, kind == CUDA_CONV_FORWARD ? other
						: kind == CUDA_CONV_DATA  ? windows
												  : nn_mul(taps * cuda_padded(sides.windows.c),
														   cuda_padded(sides.other.c) * element));
}

/* The convolution of a node and kind: one that is open, or a new one. */
static NnStatus
open_one(const Opening *o, const NnNode *node, CudaConvKind kind, CudaConv **conv)
{
	CudaTraining *state = o->state;
	CudaTrainPlan *plan = &state->plans[state->nplans];
	NnStatus status;

	cuda_train_shape(&o->training->plan, node, kind, &plan->shape);
	*conv = NULL;
	for (int i = 0; i < state->nplans && !*conv; i++)
		if (memcmp(&state->plans[i].shape, &plan->shape, sizeof(CudaConvShape)) == 0)
			*conv = state->plans[i].conv;
	if (!*conv)
	{
		nn_progress(&state->device->base);
		status = cuda_open_conv(state->device, &plan->shape, &plan->conv, o->error);
		if (status != NN_OK)
		{
			nn_detail(o->error, "Layer \"%s\" of %d images.", node->name, plan->shape.n);
			return status;
		}
		*conv = plan->conv;
		state->nplans++;
	}
	nn_most(&o->wanted->workspace, cuda_conv_workspace(*conv));
	return NN_OK;
}

void
cuda_train_want(const NnTraining *training, CudaTrainBuffers *wanted)
{
	const NnGraph *g = training->plan.graph;
	CudaConvKind kinds[2];

	for (int i = 0; i < training->schedule.nsteps; i++)
	{
		const NnStep *step = &training->schedule.steps[i];

		for (int k = cuda_train_kinds(g, step, kinds) - 1; k >= 0; k--)
			want_buffers(&training->plan, &g->nodes[step->node], kinds[k], wanted);
	}
}

/* Where a node keeps its convolution of a step. */
static CudaConv **
conv_place(CudaTrainConv *convs, const NnStep *step, CudaConvKind kind)
{
	CudaTrainConv *c = &convs[step->node];

	if (step->kind == NN_STEP_FORWARD)
		return &c->forward;
	return kind == CUDA_CONV_FILTER ? &c->filter : &c->data;
}

NnStatus
cuda_train_open_convs(CudaTraining *state, const NnTraining *training, CudaTrainBuffers *wanted,
					  NnError *error)
{
	Opening o = { state, training, wanted, error };
	const NnGraph *g = training->plan.graph;
	size_t most = 3 * (size_t) g->nnodes + 1;
	CudaConvKind kinds[2];
	NnStatus status = NN_OK;

	state->convs = calloc(g->nnodes + 1, sizeof(CudaTrainConv));
	state->plans = calloc(most, sizeof(CudaTrainPlan));
	if (!state->convs || !state->plans)
		return nn_no_memory(error, most * sizeof(CudaTrainPlan));
	for (int i = 0; status == NN_OK && i < training->schedule.nsteps; i++)
	{
		const NnStep *step = &training->schedule.steps[i];

		for (int k = cuda_train_kinds(g, step, kinds) - 1; status == NN_OK && k >= 0; k--)
		{
			CudaConv **conv = conv_place(state->convs, step, kinds[k]);

			if (!*conv)
				status = open_one(&o, &g->nodes[step->node], kinds[k], conv);
		}
	}
	return status;
}

/*
 * Where the next step's numbers come to lie; all buffers are as large as any.
 */
NnStatus
cuda_train_prove_convs(CudaTraining *state, size_t workspace, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < state->nplans; i++)
	{
		bool filter = state->plans[i].shape.kind == CUDA_CONV_FILTER;

		nn_progress(&state->device->base);
		status = cuda_prove_conv(state->device, state->plans[i].conv, state->staged[0],
								 filter ? state->result : state->filters,
								 filter ? state->staged[1] : state->result, state->workspace,
								 workspace, error);
	}
	return status;
}

void
cuda_train_close_convs(CudaTraining *state)
{
	for (int i = 0; i < state->nplans; i++)
		cuda_conv_close(state->plans[i].conv);
	free(state->plans);
	free(state->convs);
}

/* ---- Steps --------------------------------------------------------------- */

/* Whether cuDNN may use a map as it is. */
static bool
is_whole(const CudaTraining *state, const KernelMap *map, int channels)
{
	return map->type == state->type && map->vector && map->pitch == channels &&
		   channels == cuda_padded(channels);
}

/* *data = the map as cuDNN reads it, through buffer `which` if it must be. */
static NnStatus
stage(const NnOperands *op, const NnMap *map, int which, void **data, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	KernelMap x = cuda_map(op, map);
	int c = map->shape.c;
	KernelMap staged = kernel_map(state->staged[which], state->type, cuda_padded(c));

	*data = is_whole(state, &x, c) ? x.data : staged.data;
	if (*data == x.data)
		return NN_OK;
	return cuda_launched(
		error, kernel_convert(state->stream, &x, &staged, nn_map_pixels(map), c, cuda_padded(c)));
}

/* The weight as a filter. */
static const KernelFilter *
filter_of(const NnOperands *op)
{
	return &cuda_training(op)->params[op->node->weight].filter;
}

static NnStatus
train_convolve(const NnOperands *op, const CudaConv *conv, const void *x, void *filter, void *y,
			   NnError *error)
{
	const CudaTraining *state = cuda_training(op);

	return cuda_conv_run(state->device->convs, conv, x, filter, y, state->workspace, error);
}

static NnStatus
conv_forward(const NnOperands *op, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	KernelMap y = cuda_map(op, &op->out[0]);
	int c = op->out[0].shape.c;
	KernelMap made =
		is_whole(state, &y, c) ? y : kernel_map(state->result, state->type, cuda_padded(c));
	void *x;
	NnStatus status;

	status = stage(op, &op->in[0], 0, &x, error);
	if (status == NN_OK)
		status = train_convolve(op, state->convs[op->index].forward, x, filter_of(op)->map.data,
								made.data, error);
	return status == NN_OK ? cuda_train_finish_conv(op, &made, error) : status;
}

/* The gradient of the input, from that of the result. */
static NnStatus
backward_data(const NnOperands *op, void *dy, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	const NnMap *din = &op->din[0];
	KernelMap dx = cuda_map(op, din);
	int c = din->shape.c;
	bool whole = op->in_mode[0] == NN_GRAD_OVERWRITE && is_whole(state, &dx, c);
	KernelMap made = whole ? dx : kernel_map(state->result, state->type, cuda_padded(c));
	NnStatus status = train_convolve(op, state->convs[op->index].data, dy, filter_of(op)->map.data,
									 made.data, error);

	if (status != NN_OK || whole)
		return status;
	return cuda_launched(error,
						 op->in_mode[0] == NN_GRAD_ACCUMULATE
							 ? kernel_add(state->stream, &dx, &made, &dx, nn_map_pixels(din), c)
							 : kernel_convert(state->stream, &made, &dx, nn_map_pixels(din), c, c));
}

/* The gradient of the weight; x: the staged input. */
static NnStatus
backward_filter(const NnOperands *op, void *x, void *dy, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	bool transposed = op->node->op == NN_OP_CONVT;
	KernelFilter made = *filter_of(op);
	int k = (int) op->training->params->list[op->node->weight].shape[0];
	NnStatus status;

	made.map.data = state->result;
	status = train_convolve(op, state->convs[op->index].filter, transposed ? dy : x, made.map.data,
							transposed ? x : dy, error);
	return status == NN_OK
			   ? cuda_launched(error,
							   kernel_filter_gradient(state->stream, op->dweight.f32, &made, k,
													  op->weight_mode == NN_GRAD_ACCUMULATE))
			   : status;
}

static NnStatus
conv_backward(const NnOperands *op, NnError *error)
{
	bool wants_data = op->in_mode[0] != NN_GRAD_IGNORE,
		 wants_filter = op->weight_mode != NN_GRAD_IGNORE;
	void *x, *dy;
	/* of a filter's two operands the one with windows is in the first buffer */
	int where = wants_filter && op->node->op != NN_OP_CONVT;
	NnStatus status = NN_OK;

	INVARIANT(op->dout[0].data);
	if (wants_data || wants_filter)
		status = stage(op, &op->dout[0], where, &dy, error);
	if (status == NN_OK && wants_data)
		status = backward_data(op, dy, error);
	if (status == NN_OK && wants_filter)
		status = stage(op, &op->in[0], !where, &x, error);
	if (status == NN_OK && wants_filter)
		status = backward_filter(op, x, dy, error);
	if (status == NN_OK)
		status = cuda_train_bias_backward(op, error);
	return status == NN_OK ? cuda_train_latent_backward(op, error) : status;
}

NnStatus
cuda_train_conv(const NnOperands *op, NnError *error)
{
	return conv_forward(op, error);
}

NnStatus
cuda_train_conv_backward(const NnOperands *op, NnError *error)
{
	return conv_backward(op, error);
}

NnStatus
cuda_train_convt(const NnOperands *op, NnError *error)
{
	return conv_forward(op, error);
}

NnStatus
cuda_train_convt_backward(const NnOperands *op, NnError *error)
{
	return conv_backward(op, error);
}
