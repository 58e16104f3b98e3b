/*
 * ref_norm.c
 *	  Norms, dropout and activations.
 */
#include "nn/ref/ref.h"

#include "common/constants.h"
#include "common/invariant.h"

#include <math.h>

double
ref_act(NnActKind kind, double x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			return x;
		case NN_ACT_RELU:
			return x > 0 ? x : 0;
		case NN_ACT_LRELU:
			return x > 0 ? x : LRELU_SLOPE * x;
		case NN_ACT_ELU:
			return x > 0 ? x : expm1(x);
		case NN_ACT_TANH:
			return tanh(x);
	}
	return x;
}

double
ref_act_slope(NnActKind kind, double x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			return 1;
		case NN_ACT_RELU:
			return x > 0;
		case NN_ACT_LRELU:
			return x > 0 ? 1 : LRELU_SLOPE;
		case NN_ACT_ELU:
			return x > 0 ? 1 : exp(x);
		case NN_ACT_TANH:
			return 1 - tanh(x) * tanh(x);
	}
	return 1;
}

/* Pixels of an image; those of image n begin at n times that. */
static size_t
image_pixels(const NnOperands *op)
{
	return (size_t) op->in[0].shape.h * op->in[0].shape.w;
}

/*
 * The factor of an element, 0 or 1 / (1 - p): in training; or at inference,
 * where it is the same for each image.
 */
static double
dropout_factor(const NnOperands *op, size_t pixel, int c)
{
	const NnNormArgs *norm = &op->node->norm;
	float p = norm->dropout;
	bool keeps;

	if (p <= 0 || (!op->training && norm->drop_seed == 0))
		return 1;
	if (op->training)
		keeps = nn_dropout_keeps(op->training->seed, op->training->iteration, op->index,
								 (uint64_t) pixel * op->in[0].shape.c + c, p);
	else
		keeps = nn_dropout_keeps((uint64_t) norm->drop_seed, 0, norm->drop_mask,
								 (uint64_t) (pixel % image_pixels(op)) * op->in[0].shape.c + c, p);
	return keeps ? 1 / (1 - p) : 0;
}

/* y = scale (x - mean) + shift for each reader, then its activations. */
static void
write_outputs(const NnOperands *op, int n, int c, double mean, double scale, double shift)
{
	for (size_t i = n * image_pixels(op); i < (n + 1) * image_pixels(op); i++)
	{
		double value =
			((ref_pixel(&op->in[0], i)[c] - mean) * scale + shift) * dropout_factor(op, i, c);

		for (int k = 0; k < 2; k++)
			if (op->out[k].data)
				ref_pixel(&op->out[k], i)[c] = ref_act(op->node->norm.act[k].second,
													   ref_act(op->node->norm.act[k].first, value));
	}
}

/* Mean and biased variance of channel c of pixels [first, end); two passes. */
static void
map_statistics(const NnMap *x, size_t first, size_t end, int c, double *mean, double *var)
{
	double count = (double) (end - first), sum = 0, squares = 0;

	for (size_t i = first; i < end; i++)
		sum += ref_pixel(x, i)[c];
	*mean = sum / count;
	for (size_t i = first; i < end; i++)
	{
		double d = ref_pixel(x, i)[c] - *mean;

		squares += d * d;
	}
	*var = squares / count;
}

/*
 * What image n's channel c is normalised by. In training batch norm uses the
 * statistics of the batch, and both norms keep theirs for the backward step;
 * otherwise batch norm uses the running ones.
 */
static void
statistics_of(const NnOperands *op, int n, int c, double *mean, double *var)
{
	NnShape shape = op->in[0].shape;
	bool batch = op->node->norm.kind == NN_NORM_BATCH;

	*mean = 0;
	*var = 1;
	if (op->node->norm.kind == NN_NORM_INSTANCE)
		map_statistics(&op->in[0], n * image_pixels(op), (n + 1) * image_pixels(op), c, mean, var);
	else if (batch && !op->stats.data)
	{
		*mean = op->mean.f64[c];
		*var = op->var.f64[c];
	}
	else if (batch)
		map_statistics(&op->in[0], 0, nn_map_pixels(&op->in[0]), c, mean, var);
	if (op->stats.data)
	{
		double *kept = ref_at(&op->stats, batch ? 0 : n, 0, 0);

		kept[c] = *mean;
		kept[shape.c + c] = *var;
	}
}

/* x (N, H, W, C) -> up to two outputs of that shape. */
NnStatus
ref_norm_act(const NnOperands *op, NnError *error)
{
	NnShape shape = op->in[0].shape;

	for (int n = 0; n < shape.n; n++)
		for (int c = 0; c < shape.c; c++)
		{
			double mean, var;

			statistics_of(op, n, c, &mean, &var);
			switch (op->node->norm.kind)
			{
				case NN_NORM_NONE:
					write_outputs(op, n, c, 0, 1, 0);
					break;
				case NN_NORM_INSTANCE:
					write_outputs(op, n, c, mean,
								  (op->weight.data ? op->weight.f64[c] : 1) /
									  sqrt(var + NORM_EPSILON),
								  op->bias.data ? op->bias.f64[c] : 0);
					break;
				case NN_NORM_BATCH:
					write_outputs(op, n, c, mean, op->weight.f64[c] / sqrt(var + NORM_EPSILON),
								  op->bias.f64[c]);
					break;
			}
		}
	return NN_OK;
}

/* The gradient of scale xhat + shift: through activations and dropout. */
static double
normed_gradient(const NnOperands *op, size_t pixel, int c, double normed)
{
	double factor = dropout_factor(op, pixel, c), value = normed * factor, sum = 0;

	for (int k = 0; k < 2; k++)
		if (op->dout[k].data)
		{
			NnActChain act = op->node->norm.act[k];

			sum += ref_pixel(&op->dout[k], pixel)[c] *
				   ref_act_slope(act.second, ref_act(act.first, value)) *
				   ref_act_slope(act.first, value);
		}
	return sum * factor;
}

/*
 * With xhat = (x - mean) / sqrt(var + eps) over a set of m elements and g the
 * gradient of xhat: dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps).
 * The set is the map of (n, c) with instance norm, the maps of all images with
 * batch norm; batch norm's own gradients are the sums behind those means.
 */
static void
norm_backward(const NnOperands *op, int n0, int n1, int c)
{
	const NnMap *x = &op->in[0];
	const double *kept = ref_at(&op->stats, op->node->norm.kind == NN_NORM_BATCH ? 0 : n0, 0, 0);
	double mean = kept[c], inverse = 1 / sqrt(kept[x->shape.c + c] + NORM_EPSILON),
		   gamma = op->node->norm.kind == NN_NORM_BATCH ? op->weight.f64[c] : 1,
		   beta = op->node->norm.kind == NN_NORM_BATCH ? op->bias.f64[c] : 0,
		   count = (double) (n1 - n0) * image_pixels(op), sum = 0, product = 0;

	for (int pass = 0; pass < 2; pass++)
		for (size_t i = n0 * image_pixels(op); i < n1 * image_pixels(op); i++)
		{
			double hat = (ref_pixel(x, i)[c] - mean) * inverse,
				   g = normed_gradient(op, i, c, hat * gamma + beta);

			if (pass == 0)
			{
				sum += g;
				product += g * hat;
			}
			else if (op->din[0].data)
				ref_pixel(&op->din[0], i)[c] +=
					(g - sum / count - hat * product / count) * gamma * inverse;
		}
	if (op->dweight.data)
		op->dweight.f64[c] += product;
	if (op->dbias.data)
		op->dbias.f64[c] += sum;
}

NnStatus
ref_norm_act_backward(const NnOperands *op, NnError *error)
{
	NnShape s = op->in[0].shape;
	NnNorm norm = op->node->norm.kind;

	/* without a norm there is nothing else to learn */
	INVARIANT(norm != NN_NORM_NONE || op->din[0].data);
	for (int c = 0; c < s.c; c++)
	{
		if (norm == NN_NORM_BATCH)
			norm_backward(op, 0, s.n, c);
		for (int n = 0; norm == NN_NORM_INSTANCE && n < s.n; n++)
			norm_backward(op, n, n + 1, c);
		for (size_t i = 0; norm == NN_NORM_NONE && i < nn_map_pixels(&op->in[0]); i++)
			ref_pixel(&op->din[0], i)[c] += normed_gradient(op, i, c, ref_pixel(&op->in[0], i)[c]);
	}
	return NN_OK;
}
