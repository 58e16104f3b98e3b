/*
 * z_bias.cu
 *	  What the latent code adds to a convolution's result: one value a channel
 *	  for each class of positions.
 *
 * A latent code joined to the input as constant channels meets the same weights
 * at every position, but for the taps that fall outside the image. So its part
 * of the result has one value a channel and class of border positions (at most
 * nine), and the weights' sums over the taps inside are made when a model is
 * loaded. Before an instance norm the middle's value cancels and the border is
 * all that the code does: it must not be left out.
 *
 * Traffic: classes * nz * c weights are read once an image, from L2 after the
 * first; a thread makes one value, a warp reads 128-byte lines.
 */
#include "common.cuh"

KERNEL(z_bias, KernelLatents)
{
	int o = blockIdx.x * blockDim.x + threadIdx.x;
	int k = blockIdx.y;
	int n = blockIdx.z;
	const float *w = a.weights + (size_t) k * a.nz * a.c + o;
	float sum = 0.0f;

	if (o >= a.c)
		return;
	for (int j = 0; j < a.nz; j++)
		sum += nn_act(a.act, load_element(&a.z, (size_t) n * a.z.pitch + j)) * w[(size_t) j * a.c];
	a.out[((size_t) n * a.classes + k) * a.c + o] = sum;
}

KERNEL_API int
kernel_z_bias(void *stream, const KernelLatents *latents)
{
	int threads = latents->c < KERNEL_THREADS
					  ? (latents->c + KERNEL_WARP - 1) / KERNEL_WARP * KERNEL_WARP
					  : KERNEL_THREADS;

	if (latents->n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(z_bias, (latents->c + threads - 1) / threads, latents->classes, latents->n,
						 threads, stream, *latents);
}
