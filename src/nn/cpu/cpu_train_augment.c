/*
 * cpu_train_augment.c
 *	  What discriminators see of an image, forward and backward: see
 *	  ref_augment.c.
 *
 * A thread takes an image; sums over it are in double.
 */
#include "nn/cpu/cpu_train.h"

#include <string.h>

/* What is done to one image. */
typedef struct SeenImage
{
	NnAugmentAxis rows, columns;
	float share;           /* of a number itself */
	float of_pixel;        /* of the mean of its pixel */
	float of_image;        /* of the mean of the image */
	float brightness;      /* is added */
	int plain, colours, c; /* channels: left alone, not, all */
	bool back;
} SeenImage;

static SeenImage
image_seen(const NnOperands *op, int n, bool back)
{
	const float *numbers = op->in[1].f32 + (size_t) n * op->in[1].pitch;
	NnAugmentArgs args = op->node->augment;
	float s = numbers[NN_AUGMENT_SATURATION], k = numbers[NN_AUGMENT_CONTRAST];
	NnShape shape = op->in[0].shape;
	int plain = args.colour ? args.plain : shape.c;

	return (SeenImage){ .rows = nn_augment_axis(numbers[NN_AUGMENT_DOWN], numbers[NN_AUGMENT_CUT_Y],
												args.cuts, shape.h),
						.columns = nn_augment_axis(numbers[NN_AUGMENT_RIGHT],
												   numbers[NN_AUGMENT_CUT_X], args.cuts, shape.w),
						.share = k * s,
						.of_pixel = k * (1 - s),
						.of_image = 1 - k,
						.brightness = back ? 0 : numbers[NN_AUGMENT_BRIGHTNESS],
						.plain = plain,
						.colours = shape.c - plain,
						.c = shape.c,
						.back = back };
}

/* The sum of the colours of a pixel. */
static float
colour_sum(const SeenImage *seen, const float *pixel)
{
	float sum = 0;

	for (int c = seen->plain; c < seen->c; c++)
		sum += pixel[c];
	return sum;
}

/* The pixel of an image that pixel (y, x) of the other is made of, or NULL. */
static const float *
pixel_seen(const SeenImage *seen, const float *from, size_t pitch, int y, int x)
{
	return nn_augment_place(&seen->rows, &seen->columns, seen->back, &y, &x)
			   ? from + ((size_t) y * seen->columns.n + x) * pitch
			   : NULL;
}

/* Forward of the whole image, backward of the gradients that arrive. */
static float
mean_seen(const SeenImage *seen, const float *from, size_t pitch)
{
	double sum = 0;

	if (seen->colours == 0)
		return 0;
	for (int y = 0; y < seen->rows.n; y++)
		for (int x = 0; x < seen->columns.n; x++)
		{
			const float *pixel = seen->back ? pixel_seen(seen, from, pitch, y, x)
											: from + ((size_t) y * seen->columns.n + x) * pitch;

			if (pixel)
				sum += colour_sum(seen, pixel);
		}
	return (float) (sum / seen->colours / seen->rows.n / seen->columns.n);
}

/*
 * A pixel of the result. One that shows nothing is 0; one that nothing shows
 * has its part of the mean.
 */
static void
show_pixel(const SeenImage *seen, const float *pixel, float rest, float *shown)
{
	float pixel_rest;

	memset(shown, 0, (size_t) seen->c * sizeof(float));
	if (!pixel && !seen->back)
		return;
	if (!pixel)
	{
		for (int c = seen->plain; c < seen->c; c++)
			shown[c] = rest;
		return;
	}
	memcpy(shown, pixel, (size_t) seen->plain * sizeof(float));
	if (seen->colours == 0)
		return;
	pixel_rest = rest + seen->of_pixel * colour_sum(seen, pixel) / (float) seen->colours;
	for (int c = seen->plain; c < seen->c; c++)
		shown[c] = seen->share * pixel[c] + pixel_rest;
}

static void
show_image(const SeenImage *seen, const float *from, size_t from_pitch, float *to, size_t to_pitch,
		   bool add)
{
	float rest = seen->of_image * mean_seen(seen, from, from_pitch) + seen->brightness;

	for (int y = 0; y < seen->rows.n; y++)
		for (int x = 0; x < seen->columns.n; x++, to += to_pitch)
		{
			float shown[NN_MAX_SEEN_CHANNELS];

			show_pixel(seen, pixel_seen(seen, from, from_pitch, y, x), rest, shown);
			for (int c = 0; c < seen->c; c++)
				to[c] = add ? to[c] + shown[c] : shown[c];
		}
}

static NnStatus
show_images(const NnOperands *op, const NnMap *from, const NnMap *to, bool back, bool add)
{
	size_t pixels = (size_t) from->shape.h * from->shape.w;

#pragma omp parallel for schedule(static) num_threads(cpu_threads(op))
	for (int n = 0; n < from->shape.n; n++)
	{
		SeenImage seen = image_seen(op, n, back);

		show_image(&seen, from->f32 + n * pixels * from->pitch, from->pitch,
				   to->f32 + n * pixels * to->pitch, to->pitch, add);
	}
	return NN_OK;
}

NnStatus
cpu_train_augment(const NnOperands *op, NnError *error)
{
	return show_images(op, &op->in[0], &op->out[0], false, false);
}

NnStatus
cpu_train_augment_backward(const NnOperands *op, NnError *error)
{
	return show_images(op, &op->dout[0], &op->din[0], true, op->in_mode[0] == NN_GRAD_ACCUMULATE);
}
