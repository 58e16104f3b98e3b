/*
 * ref_norm.c
 *	  Norms and activations.
 */
#include "nn/ref/ref.h"

#include <math.h>

#define EPSILON 1e-5			/* of both norms in PyTorch */

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
			return x > 0 ? x : 0.2 * x;
		case NN_ACT_ELU:
			return x > 0 ? x : expm1(x);
		case NN_ACT_TANH:
			return tanh(x);
	}
	return x;
}

/* y = scale x + shift for each reader, then its activations. */
static void
write_outputs(const RefOperands *op, int n, int c, double mean, double scale, double shift)
{
	const RefTensor *x = op->in[0];

	for (int y = 0; y < x->shape.h; y++)
		for (int i = 0; i < x->shape.w; i++)
		{
			double		value = (ref_at(x, n, y, i)[c] - mean) * scale + shift;

			for (int k = 0; k < 2; k++)
				if (op->out[k])
					ref_at(op->out[k], n, y, i)[c] = ref_act(op->node->act[k].second, ref_act(op->node->act[k].first, value));
		}
}

/* Mean and biased variance over the map of (n, c), in two passes. */
static void
map_statistics(const RefTensor *x, int n, int c, double *mean, double *var)
{
	double		count = (double) x->shape.h * x->shape.w,
				sum = 0,
				squares = 0;

	for (int y = 0; y < x->shape.h; y++)
		for (int i = 0; i < x->shape.w; i++)
			sum += ref_at(x, n, y, i)[c];
	*mean = sum / count;
	for (int y = 0; y < x->shape.h; y++)
		for (int i = 0; i < x->shape.w; i++)
		{
			double		d = ref_at(x, n, y, i)[c] - *mean;

			squares += d * d;
		}
	*var = squares / count;
}

/* x (N, H, W, C) -> up to two outputs of that shape.  Batch norm by its running statistics, as in evaluation. */
NnStatus
ref_norm_act(const RefOperands *op, NnError *error)
{
	NnShape		shape = op->in[0]->shape;

	for (int n = 0; n < shape.n; n++)
		for (int c = 0; c < shape.c; c++)
		{
			double		mean = 0,
						var = 1;

			switch (op->node->norm)
			{
				case NN_NORM_NONE:
					write_outputs(op, n, c, 0, 1, 0);
					break;
				case NN_NORM_INSTANCE:
					map_statistics(op->in[0], n, c, &mean, &var);
					write_outputs(op, n, c, mean, 1 / sqrt(var + EPSILON), 0);
					break;
				case NN_NORM_BATCH:
					write_outputs(op, n, c, op->mean[c], op->weight[c] / sqrt(op->var[c] + EPSILON), op->bias[c]);
					break;
			}
		}
	return NN_OK;
}
