/*
 * z_bias.cu
 *	  What the latent code adds to convolutions' results: one value a channel
 *	  for each class of positions, for all layers of a network at once.
 *
 * A latent code joined to the input as constant channels meets the same weights
 * at every position, but for the taps that fall outside the image. So its part
 * of the result has one value a channel and class of border positions (at most
 * nine have any), and the weights' sums over the taps inside are made when a
 * model is loaded. Before an instance norm the middle's value cancels, so it is
 * taken from all and need not be added there; the border is all that the code
 * does, and must not be left out.
 *
 * Traffic: classes * nz * c weights of each layer are read once an image, from
 * L2 after the first; a thread makes one value, a warp reads 128-byte lines.
 * All depend on the code alone, so they are made before a plan's first step.
 */
#include "common.cuh"

#define MAX_CLASSES (KERNEL_CLASSES * KERNEL_CLASSES)

typedef struct ZBias
{
	KernelLatents layers[KERNEL_LATENTS];
} ZBias;

/* Grid: channels, layers and classes of each, images. */
KERNEL(z_bias, ZBias)
{
	const KernelLatents *l = &a.layers[blockIdx.y / MAX_CLASSES];
	int o = (int) (blockIdx.x * blockDim.x + threadIdx.x);
	int k = (int) (blockIdx.y % MAX_CLASSES), row = k / l->columns.n, column = k % l->columns.n;
	int n = (int) blockIdx.z;
	const float *w = l->weights + o, *middle = w;
	float sum = 0.0f;

	if (o >= l->c || row >= l->rows.n || l->rows.first[row] == l->rows.first[row + 1] ||
		l->columns.first[column] == l->columns.first[column + 1])
		return;
	w += (size_t) k * l->nz * l->c;
	middle += (size_t) (l->centre < 0 ? 0 : l->centre) * l->nz * l->c;
	for (int j = 0; j < l->nz; j++)
	{
		size_t at = (size_t) j * l->c;

		sum += nn_act(l->act, load_element(&l->z, (size_t) n * l->z.pitch + j)) *
			   (l->centre < 0 ? w[at] : w[at] - middle[at]);
	}
	l->out[((size_t) n * l->rows.n * l->columns.n + k) * l->c + o] = sum;
}

KERNEL_API int
kernel_z_bias(void *stream, const KernelLatents *layers, int n, int images)
{
	ZBias a = {};
	int most = 0, threads;

	if (images > 65535 || n > KERNEL_LATENTS)
		return KERNEL_TOO_LARGE;
	for (int i = 0; i < n; i++)
	{
		a.layers[i] = layers[i];
		most = layers[i].c > most ? layers[i].c : most;
	}
	threads = most < KERNEL_THREADS ? (most + KERNEL_WARP - 1) / KERNEL_WARP * KERNEL_WARP
									: KERNEL_THREADS;
	return KERNEL_LAUNCH(z_bias, (unsigned) ((most + threads - 1) / threads),
						 (unsigned) (n * MAX_CLASSES), (unsigned) images, (unsigned) threads,
						 stream, a);
}
