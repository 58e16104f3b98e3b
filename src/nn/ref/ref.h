/*
 * ref.h
 *	  The naive device: double throughout, one loop nest an operator, no fusion.
 *	  It is the oracle of all other devices, so it must be obviously right.
 */
#ifndef BICYCLE_REF_H
#define BICYCLE_REF_H

#include "nn/training.h"

/*
 * A value in the arena: element (n, y, x, c) is at data[((n * h + y) * w + x) *
 * pitch + c].
 */
typedef struct RefTensor
{
	NnShape shape;
	int pitch;
	double *data;
} RefTensor;

static inline double *
ref_at(const RefTensor *t, int n, int y, int x)
{
	return t->data + (((size_t) n * t->shape.h + y) * t->shape.w + x) * t->pitch;
}

/* The operands of one node; those it does not have are NULL. */
typedef struct RefOperands
{
	const NnDevice *device;
	const NnNode *node;
	RefTensor *in[NN_MAX_IN];
	RefTensor *out[2];
	RefTensor *stats; /* training: mean and biased variance of each channel, (N or 1, 1, 1, 2C) */
	const double *weight; /* checkpoint layout */
	const double *bias;
	const double *mean;
	const double *var;

	/*
	 * of a backward step; NULL = not wanted (din, dweight, dbias) or zero
	 * (dout)
	 */
	RefTensor *dout[2];
	RefTensor *din[NN_MAX_IN];
	double *dweight;
	double *dbias;
	const NnTraining *training; /* for dropout; NULL at inference */
} RefOperands;

typedef NnStatus (*RefOp)(const RefOperands *op, NnError *error);

extern double ref_act(NnActKind kind, double x);
extern double ref_act_slope(NnActKind kind, double x); /* its derivative, at 0 that of PyTorch */

/*
 * Each operator's backward adds to what is in din, dweight and dbias;
 * ref_train.c clears them first where they are to be overwritten.
 */
extern NnStatus ref_conv_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_convt_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_linear_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_norm_act_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_upsample_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_avgpool_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_add_backward(const RefOperands *op, NnError *error);

extern NnStatus ref_copy(const RefOperands *op, NnError *error);
extern NnStatus ref_copy_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_reparam(const RefOperands *op, NnError *error);
extern NnStatus ref_reparam_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_gan_loss(const RefOperands *op, NnError *error);
extern NnStatus ref_gan_loss_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_l1_loss(const RefOperands *op, NnError *error);
extern NnStatus ref_l1_loss_backward(const RefOperands *op, NnError *error);
extern NnStatus ref_kl_loss(const RefOperands *op, NnError *error);
extern NnStatus ref_kl_loss_backward(const RefOperands *op, NnError *error);

/* ref.c */
extern const RefOp ref_operators[NN_OPS];
extern RefTensor ref_tensor(const NnPlan *plan, int value);
extern void ref_bind(const NnPlan *plan, const NnNode *node, const double *weights,
					 RefTensor tensors[6], RefOperands *op);

/* ref_train.c */
extern const NnTrainDevice ref_train_device;

extern NnStatus ref_conv(const RefOperands *op, NnError *error);
extern NnStatus ref_convt(const RefOperands *op, NnError *error);
extern NnStatus ref_linear(const RefOperands *op, NnError *error);
extern NnStatus ref_norm_act(const RefOperands *op, NnError *error);
extern NnStatus ref_upsample(const RefOperands *op, NnError *error);
extern NnStatus ref_avgpool(const RefOperands *op, NnError *error);
extern NnStatus ref_add(const RefOperands *op, NnError *error);

#endif /* BICYCLE_REF_H */
