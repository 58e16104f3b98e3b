/*
 * cuda_train_latent.c
 *	  What a convolution has in training besides its products: the latent code
 *	  that joins its input, and its bias; forward and backward.
 *
 * A code is no channel of the map that cuDNN sees: what it adds follows from
 * the sums of its weights over the taps inside the image (nn/border.h). Those
 * are made anew in each step, as the weights change.
 *
 * Nothing here allocates, waits or reads a result.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"
#include "train_ops.h"

static size_t
latent_classes_of(const KernelLatent *latent)
{
	return (size_t) latent->rows.axis.n * latent->columns.axis.n;
}

/* Forward: floats of the weights' sums, and of what the codes add. */
static size_t
sum_floats(const KernelLatent *latent)
{
	return latent_classes_of(latent) * latent->nz * latent->c;
}

static size_t
addend_floats(const KernelLatent *latent)
{
	return latent_classes_of(latent) * latent->n * latent->c;
}

size_t
cuda_train_latent_work(const NnPlan *plan, const NnNode *node)
{
	KernelLatent latent;
	NnError ignored;
	size_t forward, backward;

	/* what has no borders is refused when its step runs */
	if (node->in[1] < 0 ||
		cuda_latent(node, cuda_shape(plan, node->in[0]), cuda_shape(plan, node->out[0]),
					cuda_shape(plan, node->in[1]).c, &latent, &ignored) != NN_OK)
		return 0;
	forward = sum_floats(&latent) + addend_floats(&latent);
	backward = kernel_latent_floats(&latent);
	return nn_mul(forward > backward ? forward : backward, sizeof(float));
}

/* ---- Forward ------------------------------------------------------------- */

/* Leaves what the codes add in the work space, and says so in `finish`. */
static NnStatus
finish_latents(const NnOperands *op, KernelFinish *finish, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	KernelLatents codes;
	KernelLatent latent;
	NnStatus status =
		cuda_latent(op->node, op->in[0].shape, op->out[0].shape, op->in[1].shape.c, &latent, error);

	if (status != NN_OK)
		return status;
	latent.weights = op->weight.f32 + cuda_latent_first(op->node, op->in[0].shape);
	latent.sums = state->work;
	codes = (KernelLatents){ .nz = latent.nz,
							 .c = latent.c,
							 .rows = latent.rows.axis,
							 .columns = latent.columns.axis,
							 .centre = -1,
							 .z = cuda_map(op, &op->in[1]),
							 .act = latent.act,
							 .weights = latent.sums,
							 .out = state->work + sum_floats(&latent) };
	finish->latent = codes.out;
	finish->rows = latent.rows.axis;
	finish->columns = latent.columns.axis;
	status = cuda_launched(error, kernel_latent_sums(state->stream, &latent));
	return status == NN_OK ? cuda_launched(error, kernel_z_bias(state->stream, &codes, 1, latent.n))
						   : status;
}

bool
cuda_train_adds_bias(const NnGraph *g, int node)
{
	return g->nodes[node].bias >= 0 &&
		   !(nn_read_by_next_only(g, node) && nn_norm_of(&g->nodes[node + 1]) == NN_NORM_INSTANCE);
}

NnStatus
cuda_train_finish_conv(const NnOperands *op, const KernelMap *made, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	bool bias = cuda_train_adds_bias(op->training->plan.graph, op->index);
	NnShape s = op->out[0].shape;
	KernelFinish f = { .n = s.n,
					   .h = s.h,
					   .w = s.w,
					   .c = s.c,
					   .x = *made,
					   .centre = -1,
					   .shift = bias ? op->bias.f32 : NULL };
	NnStatus status = NN_OK;

	f.out[0].map = cuda_map(op, &op->out[0]);
	if (op->in[1].data)
		status = finish_latents(op, &f, error);
	if (status != NN_OK || (f.out[0].map.data == made->data && !f.shift && !f.latent))
		return status;
	return cuda_launched(error, kernel_bias_act(state->stream, &f));
}

/* ---- Backward ------------------------------------------------------------ */

NnStatus
cuda_train_bias_backward(const NnOperands *op, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	const NnMap *dy = &op->dout[0];
	KernelBias bias = { .pixels = (int) nn_map_pixels(dy),
						.c = dy->shape.c,
						.dy = cuda_map(op, dy),
						.db = { op->dbias.f32, op->bias_mode == NN_GRAD_ACCUMULATE },
						.workspace = state->work };

	if (op->bias_mode == NN_GRAD_IGNORE)
		return NN_OK;
	return cuda_launched(error, kernel_bias_backward(state->stream, &bias));
}

NnStatus
cuda_train_latent_backward(const NnOperands *op, NnError *error)
{
	const CudaTraining *state = cuda_training(op);
	KernelLatent latent;
	NnStatus status;

	if (!op->in[1].data || (op->weight_mode == NN_GRAD_IGNORE && op->in_mode[1] == NN_GRAD_IGNORE))
		return NN_OK;
	status = cuda_latent(op->node, op->in[0].shape, op->dout[0].shape, op->in[1].shape.c, &latent,
						 error);
	if (status != NN_OK)
		return status;
	latent.weights = op->weight.f32 + cuda_latent_first(op->node, op->in[0].shape);
	latent.z = cuda_map(op, &op->in[1]);
	latent.dy = cuda_map(op, &op->dout[0]);
	if (op->weight_mode != NN_GRAD_IGNORE)
		latent.dweights =
			(KernelSlope){ op->dweight.f32 + cuda_latent_first(op->node, op->in[0].shape),
						   op->weight_mode == NN_GRAD_ACCUMULATE };
	latent.dz = cuda_gradient(op, 1);
	latent.workspace = state->work;
	return cuda_launched(error, kernel_latent_backward(state->stream, &latent));
}
