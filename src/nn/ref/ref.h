/*
 * ref.h
 *	  The naive device: double throughout, one loop nest an operator, no fusion.
 *	  It is the oracle of all other devices, so it must be obviously right.
 */
#ifndef BICYCLE_REF_H
#define BICYCLE_REF_H

#include "nn/training.h"

/* Pixel (y, x) of image n: its channels. */
static inline double *
ref_at(const NnMap *t, int n, int y, int x)
{
	return t->f64 + (((size_t) n * t->shape.h + y) * t->shape.w + x) * t->pitch;
}

/* ref_train.c: all operators, by NnOp. */
extern const NnOpImpl ref_ops[NN_OPS];
extern const NnTrainDevice ref_train_device;

extern double ref_act(NnActKind kind, double x);
extern double ref_act_slope(NnActKind kind, double x); /* its derivative, at 0 that of PyTorch */

/*
 * Operators: each backward adds to what is in its gradients.
 */
extern NnStatus ref_conv(const NnOperands *op, NnError *error);
extern NnStatus ref_conv_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_convt(const NnOperands *op, NnError *error);
extern NnStatus ref_convt_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_norm_act(const NnOperands *op, NnError *error);
extern NnStatus ref_norm_act_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_upsample(const NnOperands *op, NnError *error);
extern NnStatus ref_upsample_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_avgpool(const NnOperands *op, NnError *error);
extern NnStatus ref_avgpool_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_add(const NnOperands *op, NnError *error);
extern NnStatus ref_add_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_copy(const NnOperands *op, NnError *error);
extern NnStatus ref_copy_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_reparam(const NnOperands *op, NnError *error);
extern NnStatus ref_reparam_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_gan_loss(const NnOperands *op, NnError *error);
extern NnStatus ref_gan_loss_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_l1_loss(const NnOperands *op, NnError *error);
extern NnStatus ref_l1_loss_backward(const NnOperands *op, NnError *error);
extern NnStatus ref_kl_loss(const NnOperands *op, NnError *error);
extern NnStatus ref_kl_loss_backward(const NnOperands *op, NnError *error);

#endif /* BICYCLE_REF_H */
