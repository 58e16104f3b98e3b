/*
 * ref_augment.c
 *	  What discriminators see of an image: other colours, moved, and a part cut
 *	  out (Zhao and others 2020).
 *
 * With s and k for saturation and contrast, a pixel's channels become k (s v +
 * (1 - s) mean of the pixel) + (1 - k) mean of the image, and brightness is
 * added. The step is symmetric but for that, so the gradient of what is moved
 * back goes the same way.
 *
 * Source: DiffAugment_pytorch.py of mit-han-lab/data-efficient-gans.
 */
#include "nn/ref/ref.h"

typedef struct RefSeen
{
	NnAugmentArgs args;
	NnAugmentAxis rows, columns;
	double brightness, saturation, contrast;
	int n; /* image of the batch */
	bool back;
} RefSeen;

static RefSeen
ref_seen(const NnOperands *op, int n, bool back)
{
	const double *numbers = ref_pixel(&op->in[1], n);
	NnAugmentArgs args = op->node->augment;
	NnShape s = op->in[0].shape;

	return (RefSeen){ args,
					  nn_augment_axis((float) numbers[NN_AUGMENT_DOWN],
									  (float) numbers[NN_AUGMENT_CUT_Y], args.cuts, s.h),
					  nn_augment_axis((float) numbers[NN_AUGMENT_RIGHT],
									  (float) numbers[NN_AUGMENT_CUT_X], args.cuts, s.w),
					  back ? 0 : numbers[NN_AUGMENT_BRIGHTNESS],
					  numbers[NN_AUGMENT_SATURATION],
					  numbers[NN_AUGMENT_CONTRAST],
					  n,
					  back };
}

/* What pixel (y, x) is made of; NULL: of nothing. */
static const double *
ref_seen_pixel(const RefSeen *seen, const NnMap *from, int y, int x)
{
	return nn_augment_place(&seen->rows, &seen->columns, seen->back, &y, &x)
			   ? ref_at(from, seen->n, y, x)
			   : NULL;
}

static double
ref_colour_mean(const RefSeen *seen, const double *pixel, int channels)
{
	double sum = 0;

	for (int c = seen->args.plain; c < channels; c++)
		sum += pixel[c];
	return sum / (channels - seen->args.plain);
}

/* Forward of the whole image, backward of the gradients that arrive. */
static double
ref_seen_mean(const RefSeen *seen, const NnMap *from)
{
	NnShape s = from->shape;
	double sum = 0;

	for (int y = 0; y < s.h; y++)
		for (int x = 0; x < s.w; x++)
		{
			const double *pixel =
				seen->back ? ref_seen_pixel(seen, from, y, x) : ref_at(from, seen->n, y, x);

			if (pixel)
				sum += ref_colour_mean(seen, pixel, s.c);
		}
	return sum / s.h / s.w;
}

/* Channel c of a pixel as it is shown. */
static double
ref_shown(const RefSeen *seen, const double *pixel, int c, int channels, double mean)
{
	double s = seen->saturation, k = seen->contrast;

	if (!seen->args.colour || c < seen->args.plain)
		return pixel[c];
	return k * (s * pixel[c] + (1 - s) * ref_colour_mean(seen, pixel, channels)) + (1 - k) * mean +
		   seen->brightness;
}

/*
 * Adds to `to`. Where nothing is seen backward, the mean is all that arrives.
 */
static void
ref_show_image(const RefSeen *seen, const NnMap *from, const NnMap *to)
{
	static const double nothing[NN_MAX_SEEN_CHANNELS] = { 0 };
	NnShape s = from->shape;
	double mean = seen->args.colour ? ref_seen_mean(seen, from) : 0;

	for (int y = 0; y < s.h; y++)
		for (int x = 0; x < s.w; x++)
		{
			const double *pixel = ref_seen_pixel(seen, from, y, x);

			if (!pixel && seen->back)
				pixel = nothing;
			for (int c = 0; pixel && c < s.c; c++)
				ref_at(to, seen->n, y, x)[c] += ref_shown(seen, pixel, c, s.c, mean);
		}
}

NnStatus
ref_augment(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->out[0]); i++)
		*ref_number(&op->out[0], i) = 0;
	for (int n = 0; n < op->out[0].shape.n; n++)
	{
		RefSeen seen = ref_seen(op, n, false);

		ref_show_image(&seen, &op->in[0], &op->out[0]);
	}
	return NN_OK;
}

NnStatus
ref_augment_backward(const NnOperands *op, NnError *error)
{
	for (int n = 0; n < op->dout[0].shape.n; n++)
	{
		RefSeen seen = ref_seen(op, n, true);

		ref_show_image(&seen, &op->dout[0], &op->din[0]);
	}
	return NN_OK;
}
