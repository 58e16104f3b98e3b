/*
 * cuda_shape.c
 *	  What the device makes of a graph, from shapes alone: types, steps,
 *	  convolutions, and what each step costs at least. Pure functions, which
 *	  tests use without a GPU.
 */
#include "nn/cuda/cuda_shape.h"

KernelType
cuda_type(NnPrecision precision)
{
	switch (precision)
	{
		case NN_PRECISION_BF16:
			return KERNEL_BF16;
		case NN_PRECISION_FP16:
			return KERNEL_F16;
		case NN_PRECISION_AUTO:
		case NN_PRECISION_FP32:
		case NN_PRECISION_TF32:
			break;
	}
	return KERNEL_F32;
}

NnShape
cuda_shape(const NnPlan *plan, int value)
{
	return plan->graph->values[value].shape;
}

int
cuda_step_end(const NnGraph *graph, int node)
{
	if (nn_ops[graph->nodes[node].op].filters && nn_read_by_next_only(graph, node) &&
		graph->nodes[node + 1].op == NN_OP_NORM_ACT)
		return node + 1;
	return node;
}

void
cuda_conv_shape(const NnPlan *plan, const NnNode *node, CudaConvShape *shape)
{
	NnShape in = cuda_shape(plan, node->in[0]), out = cuda_shape(plan, node->out[0]);

	*shape = (CudaConvShape){
		.kind = node->op == NN_OP_CONVT ? CUDA_CONV_DATA : CUDA_CONV_FORWARD,
		.type = cuda_type(plan->precision),
		.tf32 = plan->precision == NN_PRECISION_TF32,
		.n = in.n,
		.h = in.h,
		.w = in.w,
		.c = cuda_padded(in.c),
		.oh = out.h,
		.ow = out.w,
		.k = cuda_padded(out.c),
		.kernel = node->conv.kernel,
		.stride = node->conv.stride,
		.pad = node->conv.pad,
	};
}

/*
 * Bytes of a value. Images are given and taken as bytes; a value of one pixel
 * that comes in is a latent code, in float.
 */
static double
value_bytes(const NnPlan *plan, int value)
{
	const NnGraph *g = plan->graph;
	NnShape s = cuda_shape(plan, value);
	double element = (double) kernel_type_size(cuda_type(plan->precision));

	if (g->values[value].input || g->values[value].output)
		element = s.h * s.w > 1 ? 1 : sizeof(float);
	return element * s.n * s.h * s.w * s.c;
}

void
cuda_step_cost(const NnPlan *plan, int node, CudaCost *cost)
{
	const NnGraph *g = plan->graph;
	const NnNode *first = &g->nodes[node], *last = &g->nodes[cuda_step_end(g, node)];
	NnShape in = cuda_shape(plan, first->in[0]), out = cuda_shape(plan, first->out[0]);

	*cost = (CudaCost){ 0 };
	if (nn_ops[first->op].flop)
		cost->flop = nn_ops[first->op].flop(g, first);
	if (nn_ops[first->op].filters)
		cost->weights = (double) in.c * out.c * first->conv.kernel * first->conv.kernel *
						kernel_type_size(cuda_type(plan->precision));
	for (int i = 0; i < NN_MAX_IN; i++)
		if (first->in[i] >= 0)
			cost->reads += value_bytes(plan, first->in[i]);
	for (int i = 0; i < 2; i++)
		if (last->out[i] >= 0)
			cost->writes += value_bytes(plan, last->out[i]);
}
