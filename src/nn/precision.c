/*
 * precision.c
 *	  Names of the kinds of arithmetic, as settings, options and messages spell
 *	  them.
 */
#include "nn/nn.h"

const char *
nn_precision_name(NnPrecision precision)
{
	static const char *const names[] = { [NN_PRECISION_AUTO] = "auto",
										 [NN_PRECISION_FP32] = "fp32",
										 [NN_PRECISION_BF16] = "bf16",
										 [NN_PRECISION_FP16] = "fp16",
										 [NN_PRECISION_TF32] = "tf32" };

	return names[precision];
}
