/*
 * cuda_shape.c
 *	  What the device makes of a graph, from shapes alone: types, steps, convolutions.  Pure functions, which tests use without a GPU.
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

bool
cuda_is_conv(NnOp op)
{
	return op == NN_OP_CONV || op == NN_OP_CONVT;
}

int
cuda_step_end(const NnGraph *graph, int node)
{
	if (cuda_is_conv(graph->nodes[node].op) && nn_read_by_next_only(graph, node) && graph->nodes[node + 1].op == NN_OP_NORM_ACT)
		return node + 1;
	return node;
}

void
cuda_conv_shape(const NnPlan *plan, const NnNode *node, CudaConvShape *shape)
{
	NnShape		in = cuda_shape(plan, node->in[0]),
				out = cuda_shape(plan, node->out[0]);

	*shape = (CudaConvShape) {
		.transposed = node->op == NN_OP_CONVT,
		.type = cuda_type(plan->precision),
		.tf32 = plan->precision == NN_PRECISION_TF32,
		.n = in.n,
		.h = in.h,
		.w = in.w,
		.c = cuda_padded(in.c),
		.oh = out.h,
		.ow = out.w,
		.k = cuda_padded(out.c),
		.kernel = node->kernel,
		.stride = node->stride,
		.pad = node->pad,
	};
}
