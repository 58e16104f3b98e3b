/*
 * ref.h
 *	  The naive device: double throughout, one loop nest an operator, no fusion.
 *	  It is the oracle of all other devices, so it must be obviously right.
 */
#ifndef BICYCLE_REF_H
#define BICYCLE_REF_H

#include "nn/training.h"

/* Pixel i of all images: its channels. */
static inline double *
ref_pixel(const NnMap *t, size_t i)
{
	return t->f64 + i * t->pitch;
}

/* Pixel (y, x) of image n. */
static inline double *
ref_at(const NnMap *t, int n, int y, int x)
{
	return ref_pixel(t, ((size_t) n * t->shape.h + y) * t->shape.w + x);
}

/* Number i in the order (n, y, x, c). */
static inline double *
ref_number(const NnMap *t, size_t i)
{
	return t->f64 + nn_map_place(t, i);
}

/* ref_train.c: all operators, by NnOp. */
extern const NnOpImpl ref_ops[NN_OPS];
extern const NnTrainDevice ref_train_device;

extern double ref_act(NnActKind kind, double x);
extern double ref_act_slope(NnActKind kind, double x); /* its derivative, at 0 that of PyTorch */

/* Each backward adds to what is in its gradients. */
#define REF_DECLARE(OP, name) NN_DECLARE_STEPS(ref_##name, ref_##name##_backward)
#define REF_DECLARE_FORWARD(OP, name) \
	extern NnStatus ref_##name(const NnOperands *op, NnError *error);
NN_OPERATORS(REF_DECLARE, REF_DECLARE, REF_DECLARE_FORWARD)

#endif /* BICYCLE_REF_H */
