/*
 * augment.cu
 *	  What discriminators see of an image, and its gradient: see ref_augment.c.
 *
 * Traffic: where colours change the image is read once for its mean, by up to
 * AUGMENT_BLOCKS blocks an image whose sums each thread of the second kernel
 * adds up; then it is read and written once. A thread takes a pixel, which has
 * six channels at most: maps of images are small beside those of networks.
 *
 * Source: DiffAugment_pytorch.py of mit-han-lab/data-efficient-gans.
 */
#include "train_ops.cuh"

#define AUGMENT_BLOCK (8 * KERNEL_THREADS) /* pixels of a block, if there are few */
#define AUGMENT_BLOCKS 32

typedef struct Augment
{
	KernelAugment g;
	bool back;
	int pixels, blocks; /* of an image; that sum it */
	KernelGrid grid;    /* a thread a pixel */
	KernelDivisor height, width;
} Augment;

/* How an image is seen. */
typedef struct AugmentImage
{
	NnAugmentAxis rows, columns;
	float brightness, saturation, contrast;
} AugmentImage;

KERNEL_LOCAL AugmentImage
augment_image(const KernelAugment *g, int n)
{
	float number[KERNEL_VECTOR];
	AugmentImage image;

	load_vector(&g->numbers, n, 0, NN_AUGMENT_NUMBERS, number);
	image.rows = nn_augment_axis(number[NN_AUGMENT_DOWN], number[NN_AUGMENT_CUT_Y], g->cuts, g->h);
	image.columns =
		nn_augment_axis(number[NN_AUGMENT_RIGHT], number[NN_AUGMENT_CUT_X], g->cuts, g->w);
	image.brightness = number[NN_AUGMENT_BRIGHTNESS];
	image.saturation = number[NN_AUGMENT_SATURATION];
	image.contrast = number[NN_AUGMENT_CONTRAST];
	return image;
}

/* Sums the channels of a pixel whose colours change. */
KERNEL_LOCAL float
augment_sum(const KernelAugment *g, const float v[KERNEL_VECTOR])
{
	float sum = 0.0f;

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		sum += i >= g->plain && i < g->c ? v[i] : 0.0f;
	return sum;
}

/* Forward of the whole image, backward of the gradients that arrive. */
KERNEL(augment_sums, Augment)
{
	__shared__ double s[KERNEL_THREADS];
	const KernelAugment *g = &a.g;
	int n = (int) blockIdx.y;
	AugmentImage image = augment_image(g, n);
	double sum = 0;

	for (int at = (int) (blockIdx.x * KERNEL_THREADS + threadIdx.x); at < a.pixels;
		 at += a.blocks * KERNEL_THREADS)
	{
		int y = (int) quotient(a.width, (unsigned) at), x = at - y * g->w;
		float v[KERNEL_VECTOR];

		if (a.back && !nn_augment_place(&image.rows, &image.columns, 1, &y, &x))
			continue;
		load_vector(a.back ? &g->dy : &g->x, (size_t) n * a.pixels + (size_t) y * g->w + x, 0, g->c,
					v);
		sum += (double) augment_sum(g, v);
	}
	sum = sum_block(s, sum);
	if (threadIdx.x == 0)
		((double *) g->workspace)[n * a.blocks + (int) blockIdx.x] = sum;
}

KERNEL(augment_show, Augment)
{
	const KernelAugment *g = &a.g;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned row = quotient(a.width, t), n = quotient(a.height, row);
	int y = (int) (row - n * a.height.by), x = (int) (t - row * a.width.by);
	float v[KERNEL_VECTOR], rest;
	AugmentImage image;
	double sum = 0;
	bool there;

	if (t >= a.grid.vectors)
		return;
	image = augment_image(g, (int) n);
	there = nn_augment_place(&image.rows, &image.columns, a.back, &y, &x) != 0;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] = 0.0f;
	if (there)
		load_vector(a.back ? &g->dy : &g->x, (size_t) n * a.pixels + (size_t) y * g->w + x, 0, g->c,
					v);
	if (g->plain < g->c && (there || a.back))
	{
		int colours = g->c - g->plain;

		for (int i = 0; i < a.blocks; i++)
			sum += ((const double *) g->workspace)[n * a.blocks + i];
		rest = image.contrast * (1.0f - image.saturation) * augment_sum(g, v) / (float) colours +
			   (1.0f - image.contrast) * (float) (sum / colours / a.pixels) +
			   (a.back ? 0.0f : image.brightness);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (i >= g->plain)
				v[i] = image.contrast * image.saturation * v[i] + rest;
	}
	if (a.back)
		store_gradient(KERNEL_ANY, &g->dx, t, 0, g->c, v);
	else
		store_vector(&g->y, t, 0, g->c, v);
}

static inline int
augment_blocks(int pixels)
{
	int blocks = (pixels + AUGMENT_BLOCK - 1) / AUGMENT_BLOCK;

	return blocks < AUGMENT_BLOCKS ? blocks : AUGMENT_BLOCKS;
}

static inline int
launch_augment(void *stream, const KernelAugment *augment, bool back)
{
	int pixels = augment->h * augment->w;
	Augment a = { *augment,
				  back,
				  pixels,
				  augment_blocks(pixels),
				  kernel_grid((size_t) augment->n * pixels, KERNEL_VECTOR),
				  kernel_divisor(augment->h),
				  kernel_divisor(augment->w) };
	int error = 0;

	if (augment->c > KERNEL_VECTOR || augment->n > 65535)
		return KERNEL_TOO_LARGE;
	if (augment->plain < augment->c)
		error = KERNEL_LAUNCH(augment_sums, a.blocks, augment->n, 1, KERNEL_THREADS, stream, a);
	return error != 0 ? error : KERNEL_LAUNCH_GRID(augment_show, stream, a);
}

KERNEL_API size_t
kernel_augment_floats(int n, int h, int w)
{
	return (size_t) n * augment_blocks(h * w) * (sizeof(double) / sizeof(float));
}

KERNEL_API int
kernel_augment(void *stream, const KernelAugment *augment)
{
	return launch_augment(stream, augment, false);
}

KERNEL_API int
kernel_augment_backward(void *stream, const KernelAugment *augment)
{
	return launch_augment(stream, augment, true);
}
