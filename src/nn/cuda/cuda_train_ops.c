/*
 * cuda_train_ops.c
 *	  The operators of training on the GPU: their table, and the steps of all
 *	  but convolutions, as launches of kernels.
 *
 * Nothing here allocates, waits or reads a result.
 */
#include "nn/cuda/cuda_train.h"

/* What has no row is refused by name when a training is prepared. */
const NnOpImpl cuda_train_operators[NN_OPS] = {
	[NN_OP_CONV] = { cuda_train_conv, cuda_train_conv_backward },
	[NN_OP_CONVT] = { cuda_train_convt, cuda_train_convt_backward },
};

size_t
cuda_train_work(const NnPlan *plan, int node)
{
	return 0;
}
