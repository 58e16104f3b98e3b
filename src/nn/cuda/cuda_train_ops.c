/*
 * cuda_train_ops.c
 *	  The operators of training on the GPU: their table, and the steps of all
 *	  but convolutions, as launches of kernels.
 *
 * Nothing here allocates, waits or reads a result.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"
#include "train_ops.h"

#include <limits.h>
#include <string.h>

#define CUDA_TRAIN_ROW(OP, name) [NN_OP_##OP] = { cuda_train_##name, cuda_train_##name##_backward },

const NnOpImpl cuda_train_operators[NN_OPS] = { NN_OPERATORS(CUDA_TRAIN_ROW, CUDA_TRAIN_ROW,
															 NN_DECLARE_NONE) };

static KernelSlope
cuda_slope(NnNumbers numbers, NnGradMode mode)
{
	return (KernelSlope){ mode == NN_GRAD_IGNORE ? NULL : numbers.f32, mode == NN_GRAD_ACCUMULATE };
}

/* ---- Norms --------------------------------------------------------------- */

/* Pixels of the sets that a norm takes the statistics of, and their number. */
static void
norm_groups(const NnNode *node, NnShape s, int *groups, int *pixels)
{
	bool batch = node->norm.kind == NN_NORM_BATCH;

	*groups = batch ? 1 : s.n;
	*pixels = s.h * s.w * (batch ? s.n : 1);
}

/* What both steps have. */
static KernelNorm
cuda_norm(const NnOperands *op)
{
	const CudaTraining *state = cuda_training(op);
	const NnNode *node = op->node;
	KernelNorm norm = { .c = op->in[0].shape.c,
						.x = cuda_map(op, &op->in[0]),
						.statistics = node->norm.kind == NN_NORM_NONE ? NULL : op->stats.f32,
						.shifted = node->norm.kind == NN_NORM_INSTANCE,
						.gamma = op->weight.f32,
						.beta = op->bias.f32,
						.drop = kernel_drop(node->norm.dropout, op->index, state->step),
						.workspace = state->work };

	norm_groups(node, op->in[0].shape, &norm.groups, &norm.pixels);
	memcpy(norm.act, node->norm.act, sizeof(norm.act));
	INVARIANT(!norm.statistics ||
			  (op->stats.wide && op->stats.pitch == 2 * (size_t) op->in[0].shape.c));
	return norm;
}

NnStatus
cuda_train_norm_act(const NnOperands *op, NnError *error)
{
	KernelNorm norm = cuda_norm(op);

	for (int k = 0; k < NN_MAX_OUT; k++)
		norm.y[k] = cuda_map(op, &op->out[k]);
	return cuda_launched(error, kernel_norm_forward(cuda_training(op)->stream, &norm));
}

NnStatus
cuda_train_norm_act_backward(const NnOperands *op, NnError *error)
{
	KernelNorm norm = cuda_norm(op);
	void *stream = cuda_training(op)->stream;

	/* the parameters of an instance norm are pix2pix's, which is not trained */
	INVARIANT(op->node->norm.kind == NN_NORM_BATCH || (!norm.gamma && !norm.beta));
	for (int k = 0; k < NN_MAX_OUT; k++)
		norm.dy[k] = cuda_map(op, &op->dout[k]);
	norm.dx = cuda_gradient(op, 0);
	norm.dgamma = cuda_slope(op->dweight, op->weight_mode);
	norm.dbeta = cuda_slope(op->dbias, op->bias_mode);
	return cuda_launched(error, norm.statistics ? kernel_norm_backward(stream, &norm)
												: kernel_act_backward(stream, &norm));
}

/* ---- Resampling ---------------------------------------------------------- */

NnStatus
cuda_train_upsample(const NnOperands *op, NnError *error)
{
	NnShape s = op->in[0].shape;
	KernelMap x = cuda_map(op, &op->in[0]), y = cuda_map(op, &op->out[0]);

	return cuda_launched(error, kernel_upsample(cuda_training(op)->stream, &x, &y, s.n, s.h, s.w,
												s.c, op->node->upsample.pad));
}

NnStatus
cuda_train_upsample_backward(const NnOperands *op, NnError *error)
{
	NnShape s = op->din[0].shape;
	KernelMap dy = cuda_map(op, &op->dout[0]);
	KernelGradient dx = cuda_gradient(op, 0);

	return cuda_launched(error, kernel_upsample_backward(cuda_training(op)->stream, &dy, &dx, s.n,
														 s.h, s.w, s.c, op->node->upsample.pad));
}

NnStatus
cuda_train_avgpool(const NnOperands *op, NnError *error)
{
	KernelPool pool = cuda_pool(op->node, op->in[0].shape, op->out[0].shape);

	pool.x = cuda_map(op, &op->in[0]);
	pool.y = cuda_map(op, &op->out[0]);
	return cuda_launched(error, kernel_avgpool(cuda_training(op)->stream, &pool));
}

NnStatus
cuda_train_avgpool_backward(const NnOperands *op, NnError *error)
{
	KernelPool pool = cuda_pool(op->node, op->din[0].shape, op->dout[0].shape);
	KernelMap dy = cuda_map(op, &op->dout[0]);
	KernelGradient dx = cuda_gradient(op, 0);

	return cuda_launched(error,
						 kernel_avgpool_backward(cuda_training(op)->stream, &pool, &dy, &dx));
}

/* ---- Linear layers ------------------------------------------------------- */

static KernelLinear
cuda_linear(const NnOperands *op, const NnMap *y)
{
	return (KernelLinear){ .n = y->shape.n,
						   .in = op->in[0].shape.c,
						   .out = y->shape.c,
						   .x = cuda_map(op, &op->in[0]),
						   .y = cuda_map(op, y),
						   .weights = op->weight.f32,
						   .bias = op->bias.f32 };
}

NnStatus
cuda_train_linear(const NnOperands *op, NnError *error)
{
	KernelLinear linear = cuda_linear(op, &op->out[0]);

	return cuda_launched(error, kernel_linear(cuda_training(op)->stream, &linear));
}

NnStatus
cuda_train_linear_backward(const NnOperands *op, NnError *error)
{
	KernelLinear linear = cuda_linear(op, &op->dout[0]);
	KernelLinearSlopes slopes = { cuda_gradient(op, 0), cuda_slope(op->dweight, op->weight_mode),
								  cuda_slope(op->dbias, op->bias_mode) };

	return cuda_launched(error,
						 kernel_linear_backward(cuda_training(op)->stream, &linear, &slopes));
}

/* ---- Addition and copies ------------------------------------------------- */

NnStatus
cuda_train_add(const NnOperands *op, NnError *error)
{
	KernelMap a = cuda_map(op, &op->in[0]), b = cuda_map(op, &op->in[1]),
			  y = cuda_map(op, &op->out[0]);

	return cuda_launched(error, kernel_add(cuda_training(op)->stream, &a, &b, &y,
										   nn_map_pixels(&op->out[0]), op->out[0].shape.c));
}

/* An addition has two inputs, a copy one. */
NnStatus
cuda_train_add_backward(const NnOperands *op, NnError *error)
{
	void *stream = cuda_training(op)->stream;
	KernelMap dy = cuda_map(op, &op->dout[0]);
	size_t pixels = nn_map_pixels(&op->dout[0]);
	int c = op->dout[0].shape.c;
	NnStatus status = NN_OK;

	for (int k = 0; status == NN_OK && k < 2; k++)
	{
		KernelGradient dx = cuda_gradient(op, k);

		if (dx.map.data)
			status =
				cuda_launched(error, dx.add ? kernel_add(stream, &dx.map, &dy, &dx.map, pixels, c)
											: kernel_convert(stream, &dy, &dx.map, pixels, c, c));
	}
	return status;
}

NnStatus
cuda_train_copy(const NnOperands *op, NnError *error)
{
	KernelMap x = cuda_map(op, &op->in[0]), y = cuda_map(op, &op->out[0]);
	int c = op->out[0].shape.c;

	return cuda_launched(
		error, kernel_convert(cuda_training(op)->stream, &x, &y, nn_map_pixels(&op->out[0]), c, c));
}

NnStatus
cuda_train_copy_backward(const NnOperands *op, NnError *error)
{
	return cuda_train_add_backward(op, error);
}

/* ---- The sample of a posterior ------------------------------------------- */

static KernelSample
cuda_sample(const NnOperands *op, const NnMap *z)
{
	return (KernelSample){ .pixels = nn_map_pixels(z),
						   .c = z->shape.c,
						   .mu = cuda_map(op, &op->in[0]),
						   .logvar = cuda_map(op, &op->in[1]),
						   .eps = cuda_map(op, &op->in[2]) };
}

NnStatus
cuda_train_reparam(const NnOperands *op, NnError *error)
{
	KernelSample sample = cuda_sample(op, &op->out[0]);

	sample.z = cuda_map(op, &op->out[0]);
	return cuda_launched(error, kernel_sample(cuda_training(op)->stream, &sample));
}

NnStatus
cuda_train_reparam_backward(const NnOperands *op, NnError *error)
{
	KernelSample sample = cuda_sample(op, &op->dout[0]);

	sample.dz = cuda_map(op, &op->dout[0]);
	sample.dmu = cuda_gradient(op, 0);
	sample.dlogvar = cuda_gradient(op, 1);
	return cuda_launched(error, kernel_sample_backward(cuda_training(op)->stream, &sample));
}

/* ---- What discriminators see --------------------------------------------- */

static KernelAugment
cuda_augment(const NnOperands *op, const NnMap *map)
{
	NnAugmentArgs args = op->node->augment;
	NnShape s = map->shape;

	return (KernelAugment){ .n = s.n,
							.h = s.h,
							.w = s.w,
							.c = s.c,
							.plain = args.colour ? args.plain : s.c,
							.cuts = args.cuts,
							.numbers = cuda_map(op, &op->in[1]),
							.workspace = cuda_training(op)->work };
}

NnStatus
cuda_train_augment(const NnOperands *op, NnError *error)
{
	KernelAugment augment = cuda_augment(op, &op->in[0]);

	augment.x = cuda_map(op, &op->in[0]);
	augment.y = cuda_map(op, &op->out[0]);
	return cuda_launched(error, kernel_augment(cuda_training(op)->stream, &augment));
}

NnStatus
cuda_train_augment_backward(const NnOperands *op, NnError *error)
{
	KernelAugment augment = cuda_augment(op, &op->dout[0]);

	augment.dy = cuda_map(op, &op->dout[0]);
	augment.dx = cuda_gradient(op, 0);
	return cuda_launched(error, kernel_augment_backward(cuda_training(op)->stream, &augment));
}

/* ---- Losses -------------------------------------------------------------- */

/* count: what the sum of the terms is divided by. */
static KernelLoss
cuda_loss(const NnOperands *op, KernelLossKind kind, size_t count)
{
	return (KernelLoss){ .kind = kind,
						 .pixels = nn_map_pixels(&op->in[0]),
						 .c = op->in[0].shape.c,
						 .x = cuda_map(op, &op->in[0]),
						 .other = cuda_map(op, &op->in[1]),
						 .target = (float) op->node->loss.target,
						 .factor = op->node->loss.scale / (double) count,
						 .workspace = cuda_training(op)->work };
}

static NnStatus
cuda_sum_loss(const NnOperands *op, KernelLoss loss, NnError *error)
{
	INVARIANT(op->out[0].wide);
	loss.value = op->out[0].f32;
	return cuda_launched(error, kernel_loss(cuda_training(op)->stream, &loss));
}

static NnStatus
cuda_spread_loss(const NnOperands *op, KernelLoss loss, NnError *error)
{
	loss.dx = cuda_gradient(op, 0);
	loss.dother = cuda_gradient(op, 1);
	return cuda_launched(error, kernel_loss_backward(cuda_training(op)->stream, &loss));
}

/* A mean over the verdict. */
static KernelLoss
cuda_gan(const NnOperands *op)
{
	return cuda_loss(op, op->node->loss.vanilla ? KERNEL_VANILLA : KERNEL_LSGAN,
					 nn_map_count(&op->in[0]));
}

NnStatus
cuda_train_gan_loss(const NnOperands *op, NnError *error)
{
	return cuda_sum_loss(op, cuda_gan(op), error);
}

NnStatus
cuda_train_gan_loss_backward(const NnOperands *op, NnError *error)
{
	return cuda_spread_loss(op, cuda_gan(op), error);
}

NnStatus
cuda_train_l1_loss(const NnOperands *op, NnError *error)
{
	return cuda_sum_loss(op, cuda_loss(op, KERNEL_L1, nn_map_count(&op->in[0])), error);
}

/*
 * What it is compared with is a constant, though it may be a part of something
 * that is none.
 */
NnStatus
cuda_train_l1_loss_backward(const NnOperands *op, NnError *error)
{
	KernelLoss loss = cuda_loss(op, KERNEL_L1, nn_map_count(&op->in[0]));
	KernelGradient other = cuda_gradient(op, 1);
	void *stream = cuda_training(op)->stream;

	loss.dx = cuda_gradient(op, 0);
	if (other.map.data && !other.add)
	{
		NnStatus status = cuda_launched(
			error, kernel_zero(stream, &other.map, nn_map_pixels(&op->din[1]), loss.c));

		if (status != NN_OK)
			return status;
	}
	return cuda_launched(error, kernel_loss_backward(stream, &loss));
}

/* A sum, not a mean. */
NnStatus
cuda_train_kl_loss(const NnOperands *op, NnError *error)
{
	return cuda_sum_loss(op, cuda_loss(op, KERNEL_KL, 1), error);
}

NnStatus
cuda_train_kl_loss_backward(const NnOperands *op, NnError *error)
{
	return cuda_spread_loss(op, cuda_loss(op, KERNEL_KL, 1), error);
}

/* ---- Work space ---------------------------------------------------------- */

/* Whether kernels count the pixels of a value. */
static bool
is_countable(NnShape s)
{
	return nn_mul(nn_mul(s.n, s.h), s.w) <= INT_MAX;
}

size_t
cuda_train_work(const NnPlan *plan, int index)
{
	const NnNode *node = &plan->graph->nodes[index];
	NnShape in, out;
	size_t floats = 0, bytes = 0;
	int groups, pixels;

	if (node->op == NN_OP_INPUT)
		return 0;
	in = cuda_shape(plan, node->in[0]);
	out = cuda_shape(plan, node->out[0] >= 0 ? node->out[0] : node->in[0]);
	if (!is_countable(in) || !is_countable(out))
		return SIZE_MAX; /* more than any card has */
	if (nn_norm_of(node) != NN_NORM_NONE)
	{
		norm_groups(node, in, &groups, &pixels);
		floats = kernel_norm_floats(groups, pixels, in.c);
	}
	else if (nn_ops[node->op].loss)
		floats = kernel_loss_floats((size_t) in.n * in.h * in.w, in.c);
	else if (node->op == NN_OP_AUGMENT)
		floats = kernel_augment_floats(in.n, in.h, in.w);
	else if (nn_ops[node->op].filters)
	{
		floats = kernel_bias_floats(out.n * out.h * out.w, out.c);
		if (node->op == NN_OP_CONV)
			bytes = cuda_train_latent_work(plan, node);
	}
	floats = nn_mul(floats, sizeof(float));
	return floats > bytes ? floats : bytes;
}
