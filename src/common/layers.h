/*
 * layers.h
 *	  Activations, what resampling reads, and what discriminators see of an
 *	  image, for CUDA's kernels as for the CPU.
 */
#ifndef BICYCLE_LAYERS_H
#define BICYCLE_LAYERS_H

#include "common/constants.h"

#include <math.h>

typedef enum NnActKind
{
	NN_ACT_NONE,
	NN_ACT_RELU,
	NN_ACT_LRELU, /* slope 0.2 */
	NN_ACT_ELU,   /* alpha 1 */
	NN_ACT_TANH
} NnActKind;

/* second(first(x)): with where_add = input the skip is lrelu(x), then nl. */
typedef struct NnActChain
{
	NnActKind first;
	NnActKind second;
} NnActChain;

#ifdef __CUDACC__
#define LAYER_FUNCTION static __device__ __forceinline__
#else
#define LAYER_FUNCTION static inline
#endif

/* Of one number; for many, cpu_kernels.h's. */
LAYER_FUNCTION float
nn_act(NnActKind kind, float x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			return x > 0.0f ? x : 0.0f;
		case NN_ACT_LRELU:
			return x > 0.0f ? x : (float) LRELU_SLOPE * x;
		case NN_ACT_ELU:
			return x > 0.0f ? x : expm1f(x);
		case NN_ACT_TANH:
			return tanhf(x);
	}
	return x;
}

/*
 * Along an axis of n pixels made 2 n + 2 pad: the two that position i blends,
 * and the share of the second. Half-pixel centres; the border is reflected.
 */
LAYER_FUNCTION float
nn_upsample_axis(int i, int pad, int n, int at[2])
{
	float place;

	i -= pad;
	i = i < 0 ? -i : i < 2 * n ? i : 2 * (2 * n - 1) - i;
	place = i == 0 ? 0.0f : 0.5f * (float) i - 0.25f;
	at[0] = (int) place;
	at[1] = at[0] + 1 < n ? at[0] + 1 : at[0];
	return place - (float) at[0];
}

/* Of n pixels, those that window i has: [*first, *end). */
LAYER_FUNCTION void
nn_pool_axis(int i, int kernel, int stride, int pad, int n, int *first, int *end)
{
	int start = i * stride - pad;

	*first = start > 0 ? start : 0;
	*end = start + kernel < n ? start + kernel : n;
}

/* ---- What discriminators see --------------------------------------------- */

/*
 * How an image is shown: these numbers of it. What is a place or a distance is
 * a part of the image's extent.
 */
typedef enum NnAugmentNumber
{
	NN_AUGMENT_BRIGHTNESS, /* is added */
	NN_AUGMENT_SATURATION, /* times the distance from the mean of the pixel's channels */
	NN_AUGMENT_CONTRAST,   /* then times that from the mean of the image */
	NN_AUGMENT_DOWN,       /* a pixel shows the one so far below */
	NN_AUGMENT_RIGHT,
	NN_AUGMENT_CUT_Y, /* the centre of what is cut out */
	NN_AUGMENT_CUT_X,
	NN_AUGMENT_NUMBERS
} NnAugmentNumber;

/* One axis of n pixels: pixel i shows i + shift; [cut, cut_end) is cut out. */
typedef struct NnAugmentAxis
{
	int n, shift, cut, cut_end;
} NnAugmentAxis;

/* What is cut out is half of the extent. */
LAYER_FUNCTION NnAugmentAxis
nn_augment_axis(float shift, float centre, int cuts, int n)
{
	NnAugmentAxis axis;
	int length = cuts ? (n + 1) / 2 : 0;

	axis.n = n;
	axis.shift = (int) rintf(shift * (float) n);
	axis.cut = (int) rintf(centre * (float) n) - length / 2;
	axis.cut_end = axis.cut + length;
	return axis;
}

/*
 * Pixel (*y, *x) becomes the one that it shows; back: the one that shows it.
 * Returns 0 if there is none.
 */
LAYER_FUNCTION int
nn_augment_place(const NnAugmentAxis *rows, const NnAugmentAxis *columns, int back, int *y, int *x)
{
	int other_y = *y + (back ? -rows->shift : rows->shift);
	int other_x = *x + (back ? -columns->shift : columns->shift);
	int seen_y = back ? other_y : *y, seen_x = back ? other_x : *x;

	*y = other_y;
	*x = other_x;
	return other_y >= 0 && other_y < rows->n && other_x >= 0 && other_x < columns->n &&
		   !(seen_y >= rows->cut && seen_y < rows->cut_end && seen_x >= columns->cut &&
			 seen_x < columns->cut_end);
}

#endif /* BICYCLE_LAYERS_H */
