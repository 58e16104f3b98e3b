/*
 * linear.cu
 *	  The encoder's heads: a small matrix times each image's vector, in float.
 *
 * 256 to 8 values an image: too little work for any library. A warp makes one
 * value: its lanes read the row of weights and the vector side by side, and
 * shuffles add their sums in a fixed tree.
 */
#include "common.cuh"

#define WARPS (KERNEL_THREADS / KERNEL_WARP)

KERNEL(linear_layer, KernelLinear)
{
	int lane = threadIdx.x % KERNEL_WARP;
	int o = blockIdx.x * WARPS + threadIdx.x / KERNEL_WARP;
	int n = blockIdx.y;
	float sum = 0.0f;

	if (o >= a.out)
		return; /* the whole warp */
	for (int k = lane; k < a.in; k += KERNEL_WARP)
		sum += a.weights[(size_t) o * a.in + k] * load_element(&a.x, (size_t) n * a.x.pitch + k);
	for (int half = KERNEL_WARP / 2; half > 0; half /= 2)
		sum += __shfl_xor_sync(0xffffffffu, sum, half);
	if (lane == 0)
		store_element(&a.y, (size_t) n * a.y.pitch + o, sum + (a.bias ? a.bias[o] : 0.0f));
}

KERNEL_API int
kernel_linear(void *stream, const KernelLinear *linear_args)
{
	if (linear_args->n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(linear_layer, (linear_args->out + WARPS - 1) / WARPS, linear_args->n, 1,
						 KERNEL_THREADS, stream, *linear_args);
}
