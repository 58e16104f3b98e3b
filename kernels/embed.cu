/*
 * embed.cu
 *	  What an image is compared by: its numbers scaled, its maps as vectors of
 *	  unit length, and the means of the last one.
 *
 * Traffic of embed: a warp takes PIXELS pixels, one after the other, and its
 * lanes the channels side by side. Each pixel is read twice, the second time
 * from L1: once for its length, once to be written. Shuffles add in a fixed
 * tree, so a length has one order. Of images and means there is little: a
 * thread makes a number.
 */
#include "common.cuh"

#define WARPS (KERNEL_THREADS / KERNEL_WARP)
#define PIXELS 8

/* ---- Scale --------------------------------------------------------------- */

/* Grid: numbers of an image, images. */
KERNEL(scale_map, KernelScale)
{
	int t = (int) (blockIdx.x * blockDim.x + threadIdx.x), n = (int) blockIdx.y;
	int pixels = a.h * a.w, pixel = t / a.c, c = t % a.c;
	float x;

	if (pixel >= pixels)
		return;
	x = load_element(&a.x, ((size_t) n * pixels + pixel) * a.x.pitch + c);
	store_element(&a.y, ((size_t) n * pixels + pixel) * a.y.pitch + c,
				  (x - a.shift[c]) / a.scale[c]);
}

KERNEL_API int
kernel_scale(void *stream, const KernelScale *scale)
{
	size_t numbers = (size_t) scale->h * scale->w * scale->c;

	if (numbers > INT32_MAX - KERNEL_THREADS || scale->n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(scale_map, (unsigned) ((numbers + KERNEL_THREADS - 1) / KERNEL_THREADS),
						 scale->n, 1, KERNEL_THREADS, stream, *scale);
}

/* ---- Embed --------------------------------------------------------------- */

KERNEL_LOCAL float
sum_of_warp(float sum)
{
	for (int half = KERNEL_WARP / 2; half > 0; half /= 2)
		sum += __shfl_xor_sync(0xffffffffu, sum, half);
	return sum;
}

/* Grid: warps of an image, images. */
KERNEL(embed_map, KernelEmbed)
{
	int lane = (int) threadIdx.x % KERNEL_WARP, n = (int) blockIdx.y;
	int part = (int) blockIdx.x * WARPS + (int) threadIdx.x / KERNEL_WARP;
	int pixels = a.h * a.w, first = part * PIXELS;
	int end = first + PIXELS < pixels ? first + PIXELS : pixels;
	float share = 1.0f / (float) pixels;

	for (int p = first; p < end; p++)
	{
		size_t from = ((size_t) n * pixels + p) * a.x.pitch;
		size_t to = (size_t) n * a.y.pitch + (size_t) p * a.c;
		float square = 0.0f, unit;

		for (int c = lane; c < a.c; c += KERNEL_WARP)
		{
			float v = load_element(&a.x, from + c);

			square += v * v;
		}
		unit = 1.0f / (sqrtf(sum_of_warp(square)) + (float) UNIT_EPSILON);
		for (int c = lane; c < a.c; c += KERNEL_WARP)
			store_element(&a.y, to + c,
						  load_element(&a.x, from + c) * unit * sqrtf(a.weights[c] * share));
	}
}

KERNEL_API int
kernel_embed(void *stream, const KernelEmbed *embed)
{
	size_t pixels = (size_t) embed->h * embed->w, block = (size_t) WARPS * PIXELS;

	if (pixels * embed->c > INT32_MAX - block || embed->n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(embed_map, (unsigned) ((pixels + block - 1) / block), embed->n, 1,
						 KERNEL_THREADS, stream, *embed);
}

/* ---- Means --------------------------------------------------------------- */

typedef struct Means
{
	KernelMap x, y;
	int pixels, c;
} Means;

/* Grid: channels, images. */
KERNEL(means_map, Means)
{
	int c = (int) (blockIdx.x * blockDim.x + threadIdx.x), n = (int) blockIdx.y;
	float sum = 0.0f;

	if (c >= a.c)
		return;
	for (int p = 0; p < a.pixels; p++)
		sum += load_element(&a.x, ((size_t) n * a.pixels + p) * a.x.pitch + c);
	store_element(&a.y, (size_t) n * a.y.pitch + c, sum / (float) a.pixels);
}

KERNEL_API int
kernel_means(void *stream, const KernelMap *x, const KernelMap *y, int n, int h, int w, int c)
{
	Means a = { *x, *y, h * w, c };

	if ((size_t) h * w > INT32_MAX || n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(means_map, (c + KERNEL_THREADS - 1) / KERNEL_THREADS, n, 1, KERNEL_THREADS,
						 stream, a);
}
