/*
 * z_backward.cu
 *	  The latent code of a convolution in training: the sums of its weights that
 *	  z_bias.cu wants, and the gradients of the code and of its weights.
 *
 * The code is an input that is the same at all pixels but ends with the image,
 * so both gradients follow from the sums of dy over the positions of each class
 * of border (z_bias.cu): a weight's gradient is those of the classes that have
 * its tap, times the code; the code's is all of them times the weights' sums.
 *
 * Traffic: dy is read once, a row of an image a block; all else is small. Rows
 * are summed by class of columns, then classes of rows, so that a border of one
 * pixel is not a difference of large sums.
 */
#include "train_ops.cuh"

#define REGION_CHANNELS 32 /* of a block; its other threads share the rows */
#define REGION_ROWS (KERNEL_THREADS / REGION_CHANNELS)

typedef struct LatentBackward
{
	KernelLatent l;
	KernelTiling tiling; /* of a row of pixels */
	float *row_sums;     /* (n, h, column classes, c) */
	float *regions;      /* (n, classes, c) */
} LatentBackward;

static inline int
latent_classes(const KernelLatent *l)
{
	return l->rows.axis.n * l->columns.axis.n;
}

KERNEL_LOCAL bool
has_tap(const KernelBorder *border, int k, int tap)
{
	return tap >= border->tap0[k] && tap < border->tap1[k];
}

/* ---- Sums of the weights ------------------------------------------------- */

/* Grid: channels, classes, channels of the code. */
KERNEL(latent_sums, KernelLatent)
{
	int o = blockIdx.x * blockDim.x + threadIdx.x;
	int row = blockIdx.y / a.columns.axis.n, column = blockIdx.y % a.columns.axis.n;
	const float *w = a.weights + o * a.per_output + blockIdx.z * a.per_code;
	float sum = 0.0f;

	if (o >= a.c)
		return;
	for (int ky = a.rows.tap0[row]; ky < a.rows.tap1[row]; ky++)
		for (int kx = a.columns.tap0[column]; kx < a.columns.tap1[column]; kx++)
			sum += w[(ky * a.kernel + kx) * a.per_tap];
	a.sums[((size_t) blockIdx.y * a.nz + blockIdx.z) * a.c + o] = sum;
}

KERNEL_API int
kernel_latent_sums(void *stream, const KernelLatent *latent)
{
	if (latent->nz > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(latent_sums, (latent->c + KERNEL_THREADS - 1) / KERNEL_THREADS,
						 latent->rows.axis.n * latent->columns.axis.n, latent->nz, KERNEL_THREADS,
						 stream, *latent);
}

/* ---- Sums of dy ---------------------------------------------------------- */

/* Grid: groups of channels, rows of an image, images. */
KERNEL_TRAINED(latent_rows, LatentBackward)
{
	__shared__ TileSums s;
	const KernelLatent *l = &a.l;
	int c0 = tile_channel(&a.tiling);
	size_t row = (size_t) blockIdx.z * l->h + blockIdx.y;

	for (int k = 0; k < l->columns.axis.n; k++)
	{
		int end = c0 < l->c ? l->columns.axis.first[k + 1] : 0;
		float sum[KERNEL_VECTOR];

		sum_vectors(access, &a.tiling, &l->dy, row * l->w, l->columns.axis.first[k], end, c0, l->c,
					sum);
		if (l->columns.axis.first[k] < l->columns.axis.first[k + 1]) /* all threads alike */
			sum_tile(&s, &a.tiling, sum);
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (tile_row(&a.tiling) == 0 && c0 + i < l->c)
				a.row_sums[(row * l->columns.axis.n + k) * l->c + c0 + i] = sum[i];
	}
}

/* Grid: channels, classes, images. */
KERNEL(latent_regions, LatentBackward)
{
	__shared__ float s[REGION_ROWS][REGION_CHANNELS];
	const KernelLatent *l = &a.l;
	int lane = threadIdx.x / REGION_CHANNELS, channel = threadIdx.x % REGION_CHANNELS;
	int o = blockIdx.x * REGION_CHANNELS + channel;
	int row = blockIdx.y / l->columns.axis.n, column = blockIdx.y % l->columns.axis.n;
	float sum = 0.0f;

	for (int y = l->rows.axis.first[row] + lane; o < l->c && y < l->rows.axis.first[row + 1];
		 y += REGION_ROWS)
		sum +=
			a.row_sums[(((size_t) blockIdx.z * l->h + y) * l->columns.axis.n + column) * l->c + o];
	s[lane][channel] = sum;
	__syncthreads();
	if (lane > 0 || o >= l->c)
		return;
	for (int k = 1; k < REGION_ROWS; k++)
		sum += s[k][channel];
	a.regions[((size_t) blockIdx.z * l->rows.axis.n * l->columns.axis.n + blockIdx.y) * l->c + o] =
		sum;
}

/* ---- Gradients ----------------------------------------------------------- */

/* The sum of dy over the positions of image n that have the tap. */
KERNEL_LOCAL float
tap_sum(const LatentBackward *a, int n, int ky, int kx, int o)
{
	const KernelLatent *l = &a->l;
	int classes = l->rows.axis.n * l->columns.axis.n;
	float sum = 0.0f;

	for (int k = 0; k < classes; k++)
		if (has_tap(&l->rows, k / l->columns.axis.n, ky) &&
			has_tap(&l->columns, k % l->columns.axis.n, kx))
			sum += a->regions[((size_t) n * classes + k) * l->c + o];
	return sum;
}

/* Grid: channels, taps, channels of the code. */
KERNEL(latent_weights, LatentBackward)
{
	const KernelLatent *l = &a.l;
	int o = blockIdx.x * blockDim.x + threadIdx.x;
	int ky = blockIdx.y / l->kernel, kx = blockIdx.y % l->kernel;
	float sum = 0.0f;

	if (o >= l->c)
		return;
	for (int n = 0; n < l->n; n++)
		sum += nn_act(l->act, load_element(&l->z, (size_t) n * l->z.pitch + blockIdx.z)) *
			   tap_sum(&a, n, ky, kx, o);
	store_slope(&l->dweights,
				o * l->per_output + blockIdx.z * l->per_code + blockIdx.y * l->per_tap, sum);
}

/* Grid: channels of the code, 1, images. */
KERNEL(latent_codes, LatentBackward)
{
	__shared__ float s[KERNEL_THREADS];
	const KernelLatent *l = &a.l;
	int j = blockIdx.x, n = blockIdx.z, classes = l->rows.axis.n * l->columns.axis.n;
	float sum = 0.0f, z, before;

	for (int k = 0; k < classes; k++)
		for (int o = threadIdx.x; o < l->c; o += KERNEL_THREADS)
			sum += l->sums[((size_t) k * l->nz + j) * l->c + o] *
				   a.regions[((size_t) n * classes + k) * l->c + o];
	s[threadIdx.x] = sum;
	for (int half = KERNEL_THREADS / 2; half > 0; half /= 2)
	{
		__syncthreads();
		if ((int) threadIdx.x < half)
			s[threadIdx.x] += s[threadIdx.x + half];
	}
	if (threadIdx.x > 0)
		return;
	z = load_element(&l->z, (size_t) n * l->z.pitch + j);
	before = l->dz.add ? load_element(&l->dz.map, (size_t) n * l->dz.map.pitch + j) : 0.0f;
	store_element(&l->dz.map, (size_t) n * l->dz.map.pitch + j,
				  before + s[0] * act_slope(l->act, z));
}

/* ---- Launching ----------------------------------------------------------- */

/* Floats of the workspace's parts: sums of rows, of regions, of weights. */
static inline size_t
latent_row_floats(const KernelLatent *l)
{
	return (size_t) l->n * l->h * l->columns.axis.n * l->c;
}

static inline size_t
latent_region_floats(const KernelLatent *l)
{
	return (size_t) l->n * latent_classes(l) * l->c;
}

KERNEL_API size_t
kernel_latent_floats(const KernelLatent *latent)
{
	return latent_row_floats(latent) + latent_region_floats(latent) +
		   (size_t) latent_classes(latent) * latent->nz * latent->c;
}

static int
launch_regions(void *stream, const LatentBackward *a)
{
	const KernelLatent *l = &a->l;
	const KernelMap *maps[] = { &l->dy };
	KernelAccess access = kernel_access(maps, 1, l->c);
	int error;

	if (l->n > 65535 || l->h > 65535)
		return KERNEL_TOO_LARGE;
	error = kernel_launch(
		KERNEL_TRAINED_FOR(latent_rows, access),
		kernel_size(a->tiling.blocks, l->h, l->n, a->tiling.rows * a->tiling.columns), stream, a);
	if (error != 0)
		return error;
	return KERNEL_LAUNCH(latent_regions, (l->c + REGION_CHANNELS - 1) / REGION_CHANNELS,
						 latent_classes(l), l->n, KERNEL_THREADS, stream, *a);
}

KERNEL_API int
kernel_latent_backward(void *stream, const KernelLatent *latent)
{
	LatentBackward a = { *latent,
						 kernel_tiling(latent->w < ONE_SPLIT ? latent->w : ONE_SPLIT, latent->c),
						 latent->workspace, latent->workspace + latent_row_floats(latent) };
	int error = launch_regions(stream, &a);

	a.l.sums = a.regions + latent_region_floats(latent);
	if (error == 0 && latent->dweights.data)
		error =
			KERNEL_LAUNCH(latent_weights, (latent->c + KERNEL_THREADS - 1) / KERNEL_THREADS,
						  latent->kernel * latent->kernel, latent->nz, KERNEL_THREADS, stream, a);
	if (error == 0 && latent->dz.map.data)
		error = kernel_latent_sums(stream, &a.l);
	if (error == 0 && latent->dz.map.data)
		error = KERNEL_LAUNCH(latent_codes, latent->nz, 1, latent->n, KERNEL_THREADS, stream, a);
	return error;
}
