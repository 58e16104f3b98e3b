/*
 * linear.cu
 *	  The encoder's heads: a small matrix times each image's vector, in float,
 *	  and the gradients.
 *
 * 256 to 8 values an image: too little work for any library. A warp makes one
 * value: its lanes read the row of weights and the vector side by side, and
 * shuffles add their sums in a fixed tree. Backward a thread makes one value:
 * sums go over few outputs, or over the images.
 */
#include "train_ops.cuh"

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

/* ---- Backward ------------------------------------------------------------ */

typedef struct LinearBackward
{
	KernelLinear l;
	KernelLinearSlopes slopes;
} LinearBackward;

/* Grid: inputs, images. */
KERNEL(linear_inputs, LinearBackward)
{
	const KernelMap *dx = &a.slopes.dx.map;
	int k = blockIdx.x * blockDim.x + threadIdx.x;
	int n = blockIdx.y;
	size_t at = (size_t) n * dx->pitch + k;
	float sum = 0.0f;

	if (k >= a.l.in)
		return;
	for (int o = 0; o < a.l.out; o++)
		sum += a.l.weights[(size_t) o * a.l.in + k] *
			   load_element(&a.l.y, (size_t) n * a.l.y.pitch + o);
	store_element(dx, at, a.slopes.dx.add ? load_element(dx, at) + sum : sum);
}

/* Grid: inputs and one more, the bias; outputs. */
KERNEL(linear_weights, LinearBackward)
{
	int k = blockIdx.x * blockDim.x + threadIdx.x;
	int o = blockIdx.y;
	float sum = 0.0f;

	if (k > a.l.in)
		return;
	for (int n = 0; n < a.l.n; n++)
		sum += load_element(&a.l.y, (size_t) n * a.l.y.pitch + o) *
			   (k < a.l.in ? load_element(&a.l.x, (size_t) n * a.l.x.pitch + k) : 1.0f);
	if (k < a.l.in && a.slopes.dweights.data)
		store_slope(&a.slopes.dweights, (size_t) o * a.l.in + k, sum);
	if (k == a.l.in && a.slopes.dbias.data)
		store_slope(&a.slopes.dbias, o, sum);
}

KERNEL_API int
kernel_linear_backward(void *stream, const KernelLinear *linear_args,
					   const KernelLinearSlopes *slopes)
{
	LinearBackward a = { *linear_args, *slopes };
	int error = 0;

	if (a.l.n > 65535 || a.l.out > 65535)
		return KERNEL_TOO_LARGE;
	if (slopes->dx.map.data)
		error = KERNEL_LAUNCH(linear_inputs, (a.l.in + KERNEL_THREADS - 1) / KERNEL_THREADS, a.l.n,
							  1, KERNEL_THREADS, stream, a);
	if (error == 0 && (slopes->dweights.data || slopes->dbias.data))
		error = KERNEL_LAUNCH(linear_weights, a.l.in / KERNEL_THREADS + 1, a.l.out, 1,
							  KERNEL_THREADS, stream, a);
	return error;
}
