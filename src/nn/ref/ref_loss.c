/*
 * ref_loss.c
 *	  The sample of a posterior, and losses.
 *
 * Source: criterionGAN, criterionL1, criterionZ and the KL term of the official
 * code.
 */
#include "nn/ref/ref.h"

#include <math.h>

/* mu, logvar, eps (N, 1, 1, nz) -> z of that shape */
NnStatus
ref_reparam(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->out[0]); i++)
		*ref_number(&op->out[0], i) =
			*ref_number(&op->in[0], i) +
			*ref_number(&op->in[2], i) * exp(*ref_number(&op->in[1], i) / 2);
	return NN_OK;
}

NnStatus
ref_reparam_backward(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->dout[0]); i++)
	{
		double dz = *ref_number(&op->dout[0], i);

		if (op->din[0].data)
			*ref_number(&op->din[0], i) += dz;
		if (op->din[1].data)
			*ref_number(&op->din[1], i) +=
				dz * *ref_number(&op->in[2], i) * exp(*ref_number(&op->in[1], i) / 2) / 2;
	}
	return NN_OK;
}

/* lsgan: (p - t)^2; vanilla: cross entropy of sigmoid(p) */
NnStatus
ref_gan_loss(const NnOperands *op, NnError *error)
{
	double target = op->node->loss.target, sum = 0;

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
	{
		double p = *ref_number(&op->in[0], i);

		sum += op->node->loss.vanilla ? fmax(p, 0) - p * target + log1p(exp(-fabs(p)))
									  : (p - target) * (p - target);
	}
	op->out[0].f64[0] = op->node->loss.scale * sum / nn_map_count(&op->in[0]);
	return NN_OK;
}

NnStatus
ref_gan_loss_backward(const NnOperands *op, NnError *error)
{
	double target = op->node->loss.target, factor = op->node->loss.scale / nn_map_count(&op->in[0]);

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
	{
		double p = *ref_number(&op->in[0], i);

		*ref_number(&op->din[0], i) +=
			factor * (op->node->loss.vanilla ? 1 / (1 + exp(-p)) - target : 2 * (p - target));
	}
	return NN_OK;
}

NnStatus
ref_l1_loss(const NnOperands *op, NnError *error)
{
	double sum = 0;

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
		sum += fabs(*ref_number(&op->in[0], i) - *ref_number(&op->in[1], i));
	op->out[0].f64[0] = op->node->loss.scale * sum / nn_map_count(&op->in[0]);
	return NN_OK;
}

NnStatus
ref_l1_loss_backward(const NnOperands *op, NnError *error)
{
	double factor = op->node->loss.scale / nn_map_count(&op->in[0]);

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
	{
		double d = *ref_number(&op->in[0], i) - *ref_number(&op->in[1], i);

		*ref_number(&op->din[0], i) += d > 0 ? factor : d < 0 ? -factor : 0;
	}
	return NN_OK;
}

NnStatus
ref_kl_loss(const NnOperands *op, NnError *error)
{
	double sum = 0;

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
	{
		double mu = *ref_number(&op->in[0], i), logvar = *ref_number(&op->in[1], i);

		sum += 1 + logvar - mu * mu - exp(logvar);
	}
	op->out[0].f64[0] = -0.5 * op->node->loss.scale * sum;
	return NN_OK;
}

NnStatus
ref_kl_loss_backward(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
	{
		if (op->din[0].data)
			*ref_number(&op->din[0], i) += op->node->loss.scale * *ref_number(&op->in[0], i);
		if (op->din[1].data)
			*ref_number(&op->din[1], i) +=
				op->node->loss.scale * (exp(*ref_number(&op->in[1], i)) - 1) / 2;
	}
	return NN_OK;
}
