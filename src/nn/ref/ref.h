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

/* Each backward adds to what is in its gradients. */
#define REF_DECLARE(OP, name) NN_DECLARE_STEPS(ref_##name, ref_##name##_backward)
NN_OPERATORS(REF_DECLARE, REF_DECLARE)

#endif /* BICYCLE_REF_H */
