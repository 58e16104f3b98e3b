/*
 * pairs.cu
 *	  Two images compared: the one image of both taken apart, the distance of
 *	  their maps, and the means of the last ones.
 *
 * Traffic: a warp takes PIXELS pixels of a pair, one after the other, and its
 * lanes the channels side by side. Each pixel is read twice, the second time
 * from L1: once for its length, once for the differences, which wait in no
 * memory. A warp leaves one number; a second kernel adds them up, a warp a
 * pair. Shuffles add in a fixed tree, so the sums have one order. Of images and
 * means there is little: a thread makes a number.
 */
#include "common.cuh"

#define WARPS (KERNEL_THREADS / KERNEL_WARP)
#define PIXELS 32

/* ---- Halves -------------------------------------------------------------- */

/* Grid: numbers of an image, images. */
KERNEL(halves_map, KernelHalves)
{
	int t = (int) (blockIdx.x * blockDim.x + threadIdx.x), n = (int) blockIdx.y;
	int pixels = a.h * a.w, pixel = t / a.c, c = t % a.c;
	float x;

	if (pixel >= pixels)
		return;
	/* the pixels of the images follow each other in both */
	x = load_element(&a.x, ((size_t) n * pixels + pixel) * a.x.pitch + c);
	store_element(&a.y, ((size_t) n * pixels + pixel) * a.y.pitch + c,
				  (x - a.shift[c]) / a.scale[c]);
}

KERNEL_API int
kernel_halves(void *stream, const KernelHalves *halves)
{
	size_t numbers = (size_t) halves->h * halves->w * halves->c;

	if (numbers > INT32_MAX - KERNEL_THREADS || halves->n > 65535)
		return KERNEL_TOO_LARGE;
	return KERNEL_LAUNCH(halves_map, (unsigned) ((numbers + KERNEL_THREADS - 1) / KERNEL_THREADS),
						 halves->n, 1, KERNEL_THREADS, stream, *halves);
}

/* ---- Distance ------------------------------------------------------------ */

typedef struct DistanceParts
{
	KernelDistance d;
	int parts;   /* of a pair */
	float *sums; /* (n / 2, parts) */
} DistanceParts;

KERNEL_LOCAL float
sum_of_warp(float sum)
{
	for (int half = KERNEL_WARP / 2; half > 0; half /= 2)
		sum += __shfl_xor_sync(0xffffffffu, sum, half);
	return sum;
}

/* Grid: parts, pairs. */
KERNEL(distance_parts, DistanceParts)
{
	const KernelMap *x = &a.d.x;
	int lane = (int) threadIdx.x % KERNEL_WARP, pair = (int) blockIdx.y;
	int part = (int) blockIdx.x * WARPS + (int) threadIdx.x / KERNEL_WARP;
	int pixels = a.d.h * a.d.w, first = part * PIXELS;
	int end = first + PIXELS < pixels ? first + PIXELS : pixels;
	float sum = 0.0f;

	if (part >= a.parts)
		return; /* the whole warp */
	for (int p = first; p < end; p++)
	{
		size_t one = ((size_t) 2 * pair * pixels + p) * x->pitch;
		size_t other = one + (size_t) pixels * x->pitch;
		float square_one = 0.0f, square_other = 0.0f;

		for (int c = lane; c < a.d.c; c += KERNEL_WARP)
		{
			float v = load_element(x, one + c), w = load_element(x, other + c);

			square_one += v * v;
			square_other += w * w;
		}
		square_one = 1.0f / (sqrtf(sum_of_warp(square_one)) + (float) UNIT_EPSILON);
		square_other = 1.0f / (sqrtf(sum_of_warp(square_other)) + (float) UNIT_EPSILON);
		for (int c = lane; c < a.d.c; c += KERNEL_WARP)
		{
			float d =
				load_element(x, one + c) * square_one - load_element(x, other + c) * square_other;

			sum += a.d.weights[c] * d * d;
		}
	}
	sum = sum_of_warp(sum);
	if (lane == 0)
		a.sums[(size_t) pair * a.parts + part] = sum;
}

/* Grid: pairs, a warp each. */
KERNEL(distance_sum, DistanceParts)
{
	int lane = (int) threadIdx.x, pair = (int) blockIdx.x;
	float sum = 0.0f;

	for (int part = lane; part < a.parts; part += KERNEL_WARP)
		sum += a.sums[(size_t) pair * a.parts + part];
	sum = sum_of_warp(sum);
	if (lane == 0)
		store_element(&a.d.y, (size_t) pair * a.d.y.pitch, sum / (float) (a.d.h * a.d.w));
}

static int
distance_part_count(int h, int w)
{
	return (int) (((size_t) h * w + PIXELS - 1) / PIXELS);
}

KERNEL_API size_t
kernel_distance_floats(int n, int h, int w)
{
	return (size_t) (n / 2) * distance_part_count(h, w);
}

KERNEL_API int
kernel_distance(void *stream, const KernelDistance *distance, float *workspace)
{
	DistanceParts a = { *distance, distance_part_count(distance->h, distance->w), workspace };
	int error;

	if ((size_t) distance->h * distance->w > INT32_MAX - PIXELS || distance->n / 2 > 65535)
		return KERNEL_TOO_LARGE;
	error = KERNEL_LAUNCH(distance_parts, (a.parts + WARPS - 1) / WARPS, distance->n / 2, 1,
						  KERNEL_THREADS, stream, a);
	return error ? error
				 : KERNEL_LAUNCH(distance_sum, distance->n / 2, 1, 1, KERNEL_WARP, stream, a);
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
	store_element(&a.y, (size_t) (n / 2) * a.y.pitch + n % 2 * a.c + c, sum / (float) a.pixels);
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
