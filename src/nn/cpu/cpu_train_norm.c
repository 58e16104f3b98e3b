/*
 * cpu_train_norm.c
 *	  Norms, dropout and activations in training, forward and backward.
 *
 * A thread takes a block of channels of one image (of all images with batch norm) and walks its pixels twice: for the sums, in double, and for the result.
 * Backward computes the gradient behind the activations in both walks rather than keep it.
 */
#include "cpu_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK CPU_TRAIN_BLOCK
#define EPSILON 1e-5			/* of both norms in PyTorch */

void
cpu_train_act(NnActKind kind, float *x, int n)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			for (int i = 0; i < n; i++)
				x[i] = x[i] > 0 ? x[i] : 0;
			break;
		case NN_ACT_LRELU:
			for (int i = 0; i < n; i++)
				x[i] = x[i] > 0 ? x[i] : 0.2f * x[i];
			break;
		case NN_ACT_ELU:
			for (int i = 0; i < n; i++)
				x[i] = x[i] > 0 ? x[i] : expm1f(x[i]);
			break;
		case NN_ACT_TANH:
			for (int i = 0; i < n; i++)
				x[i] = tanhf(x[i]);
			break;
	}
}

/* g[i] *= the slope at x[i] */
static void
times_slope(NnActKind kind, const float *x, float *g, int n)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
			for (int i = 0; i < n; i++)
				g[i] = x[i] > 0 ? g[i] : 0;
			break;
		case NN_ACT_LRELU:
			for (int i = 0; i < n; i++)
				g[i] = x[i] > 0 ? g[i] : 0.2f * g[i];
			break;
		case NN_ACT_ELU:
			for (int i = 0; i < n; i++)
				g[i] = x[i] > 0 ? g[i] : g[i] * expf(x[i]);
			break;
		case NN_ACT_TANH:
			for (int i = 0; i < n; i++)
			{
				float		y = tanhf(x[i]);

				g[i] *= 1 - y * y;
			}
			break;
	}
}

/* Channels [c0, c0 + c) of images [n0, n1): what one thread works on, and y = (x - mean) * scale + shift there. */
typedef struct Piece
{
	const CpuOperands *op;
	int			n0,
				n1,
				c0,
				c;
	float		mean[BLOCK],
				inverse[BLOCK], /* 1 / sqrt(var + eps) */
				scale[BLOCK],
				shift[BLOCK];
} Piece;

static size_t
image_pixels(const CpuOperands *op)
{
	return (size_t) op->in[0].shape.h * op->in[0].shape.w;
}

static const float *
at_pixel(const Piece *piece, const CpuMap *map, size_t p)
{
	return map->data + p * map->pitch + piece->c0;
}

static void
compute_statistics(Piece *piece, double *mean, double *var)
{
	const CpuMap *x = &piece->op->in[0];
	size_t		map = image_pixels(piece->op),
				first = piece->n0 * map,
				end = piece->n1 * map;

	memset(mean, 0, BLOCK * sizeof(double));
	memset(var, 0, BLOCK * sizeof(double));
	for (size_t p = first; p < end; p++)
		for (int k = 0; k < piece->c; k++)
			mean[k] += at_pixel(piece, x, p)[k];
	for (int k = 0; k < piece->c; k++)
		mean[k] /= (double) (end - first);
	for (size_t p = first; p < end; p++)
		for (int k = 0; k < piece->c; k++)
		{
			double		d = at_pixel(piece, x, p)[k] - mean[k];

			var[k] += d * d;
		}
	for (int k = 0; k < piece->c; k++)
		var[k] /= (double) (end - first);
}

/* The affine map of a piece, from statistics that are kept, or that this computes and keeps. */
static void
prepare_piece(Piece *piece, bool compute)
{
	const CpuOperands *op = piece->op;
	bool		batch = op->node->norm == NN_NORM_BATCH;

	for (int k = 0; k < piece->c; k++)
	{
		piece->mean[k] = piece->shift[k] = 0;
		piece->inverse[k] = piece->scale[k] = 1;
	}
	if (op->node->norm != NN_NORM_NONE)
	{
		float	   *kept = op->stats.data + (batch ? 0 : piece->n0) * op->stats.pitch + piece->c0;
		int			c = op->in[0].shape.c;
		double		mean[BLOCK],
					var[BLOCK];

		if (compute)
			compute_statistics(piece, mean, var);
		for (int k = 0; k < piece->c; k++)
		{
			if (compute)
			{
				kept[k] = (float) mean[k];
				kept[c + k] = (float) var[k];
			}
			piece->mean[k] = kept[k];
			piece->inverse[k] = (float) (1 / sqrt(kept[c + k] + EPSILON));
			piece->scale[k] = piece->inverse[k] * (batch ? op->weight[piece->c0 + k] : 1);
			piece->shift[k] = batch ? op->bias[piece->c0 + k] : 0;
		}
	}
}

/* The value of pixel p before the activations, and what dropout multiplied it by (mask is NULL without). */
static void
normed_pixel(const Piece *piece, size_t p, float *mask, float *value)
{
	const CpuOperands *op = piece->op;
	const float *x = at_pixel(piece, &op->in[0], p);

	for (int k = 0; k < piece->c; k++)
		value[k] = (x[k] - piece->mean[k]) * piece->scale[k] + piece->shift[k];
	if (!mask)
		return;
	/* blocks begin at multiples of 4, and so do pixels of the layers that drop: their width is 8 times ngf */
	nn_dropout_mask(op->training->seed, op->training->iteration, op->index, p * op->in[0].shape.c + piece->c0, piece->c, op->node->dropout, mask);
	for (int k = 0; k < piece->c; k++)
		value[k] *= mask[k];
}

static void
forward_piece(Piece *piece)
{
	const CpuOperands *op = piece->op;
	size_t		map = image_pixels(op);
	float		value[BLOCK],
				mask[BLOCK];

	prepare_piece(piece, true);
	for (size_t p = piece->n0 * map; p < piece->n1 * map; p++)
	{
		normed_pixel(piece, p, op->node->dropout > 0 ? mask : NULL, value);
		for (int k = 0; k < 2; k++)
			if (op->out[k].data)
			{
				float	   *out = (float *) at_pixel(piece, &op->out[k], p);

				memcpy(out, value, piece->c * sizeof(float));
				cpu_train_act(op->node->act[k].first, out, piece->c);
				cpu_train_act(op->node->act[k].second, out, piece->c);
			}
	}
}

/* Runs a function on all pieces, which the threads share. */
static void
for_pieces(const CpuOperands *op, void (*run) (Piece *piece))
{
	NnShape		s = op->in[0].shape;
	int			images = op->node->norm == NN_NORM_BATCH ? 1 : s.n;

#pragma omp parallel for collapse(2) schedule(static) num_threads(op->threads)
	for (int n = 0; n < images; n++)
		for (int c0 = 0; c0 < s.c; c0 += BLOCK)
		{
			Piece		piece = {.op = op, .n0 = n, .n1 = n + 1, .c0 = c0, .c = s.c - c0 < BLOCK ? s.c - c0 : BLOCK};

			if (op->node->norm == NN_NORM_BATCH)
				piece.n1 = s.n;
			run(&piece);
		}
}

/* x (N, H, W, C) -> up to two outputs of that shape */
dnnl_status_t
cpu_train_norm_act(const CpuOperands *op)
{
	for_pieces(op, forward_piece);
	return dnnl_success;
}

/* The gradient of scale (x - mean) + shift at pixel p: through the activations of both readers, and dropout. */
static void
pixel_gradient(const Piece *piece, size_t p, float *g)
{
	const CpuOperands *op = piece->op;
	float		value[BLOCK],
				mask[BLOCK];

	normed_pixel(piece, p, op->node->dropout > 0 ? mask : NULL, value);
	memset(g, 0, BLOCK * sizeof(float));
	for (int k = 0; k < 2; k++)
		if (op->dout[k].data)
		{
			NnActChain	act = op->node->act[k];
			float		d[BLOCK],
						first[BLOCK];

			memcpy(d, at_pixel(piece, &op->dout[k], p), piece->c * sizeof(float));
			if (act.second != NN_ACT_NONE)
			{
				memcpy(first, value, piece->c * sizeof(float));
				cpu_train_act(act.first, first, piece->c);
				times_slope(act.second, first, d, piece->c);
			}
			times_slope(act.first, value, d, piece->c);
			for (int i = 0; i < piece->c; i++)
				g[i] += d[i];
		}
	for (int i = 0; op->node->dropout > 0 && i < piece->c; i++)
		g[i] *= mask[i];
}

/*
 * With xhat = (x - mean) / sqrt(var + eps) over m elements and g the gradient of xhat: dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps).  Batch
 * norm's own gradients are the sums behind those means.
 */
static void
backward_piece(Piece *piece)
{
	const CpuOperands *op = piece->op;
	size_t		map = image_pixels(op),
				first = piece->n0 * map,
				end = piece->n1 * map;
	bool		normed = op->node->norm != NN_NORM_NONE;
	double		sum[BLOCK] = {0},
				product[BLOCK] = {0};
	float		g[BLOCK],
				mean_g[BLOCK],
				mean_product[BLOCK];

	prepare_piece(piece, false);
	for (size_t p = first; normed && p < end; p++)
	{
		const float *x = at_pixel(piece, &op->in[0], p);

		pixel_gradient(piece, p, g);
		for (int k = 0; k < piece->c; k++)
		{
			sum[k] += g[k];
			product[k] += g[k] * ((x[k] - piece->mean[k]) * piece->inverse[k]);
		}
	}
	for (int k = 0; k < piece->c; k++)
	{
		mean_g[k] = (float) (sum[k] / (double) (end - first));
		mean_product[k] = (float) (product[k] / (double) (end - first));
		if (op->dweight)
			op->dweight[piece->c0 + k] = (float) product[k] + (op->weight_mode == NN_GRAD_ACCUMULATE ? op->dweight[piece->c0 + k] : 0);
		if (op->dbias)
			op->dbias[piece->c0 + k] = (float) sum[k] + (op->bias_mode == NN_GRAD_ACCUMULATE ? op->dbias[piece->c0 + k] : 0);
	}
	for (size_t p = first; op->din[0].data && p < end; p++)
	{
		const float *x = at_pixel(piece, &op->in[0], p);
		float	   *dx = (float *) at_pixel(piece, &op->din[0], p);

		pixel_gradient(piece, p, g);
		for (int k = 0; k < piece->c; k++)
		{
			float		hat = (x[k] - piece->mean[k]) * piece->inverse[k];
			float		d = (g[k] - mean_g[k] - hat * mean_product[k]) * piece->scale[k];

			dx[k] = op->in_mode[0] == NN_GRAD_ACCUMULATE ? dx[k] + d : d;
		}
	}
}

dnnl_status_t
cpu_train_norm_act_backward(const CpuOperands *op)
{
	for_pieces(op, backward_piece);
	return dnnl_success;
}
