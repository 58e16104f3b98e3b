/*
 * ref.h
 *	  The naive device: double throughout, one loop nest an operator, no fusion.  It is the oracle of all other devices, so it must be obviously right.
 */
#ifndef BICYCLE_REF_H
#define BICYCLE_REF_H

#include "nn/graph.h"

/* A value in the arena: element (n, y, x, c) is at data[((n * h + y) * w + x) * pitch + c]. */
typedef struct RefTensor
{
	NnShape		shape;
	int			pitch;
	double	   *data;
} RefTensor;

static inline double *
ref_at(const RefTensor *t, int n, int y, int x)
{
	return t->data + (((size_t) n * t->shape.h + y) * t->shape.w + x) * t->pitch;
}

/* The operands of one node; those it does not have are NULL. */
typedef struct RefOperands
{
	const NnNode *node;
	RefTensor  *in[2];
	RefTensor  *out[2];
	const double *weight;		/* checkpoint layout */
	const double *bias;
	const double *mean;
	const double *var;
} RefOperands;

typedef NnStatus (*RefOp) (const RefOperands *op, NnError *error);

extern double ref_act(NnActKind kind, double x);

extern NnStatus ref_conv(const RefOperands *op, NnError *error);
extern NnStatus ref_convt(const RefOperands *op, NnError *error);
extern NnStatus ref_linear(const RefOperands *op, NnError *error);
extern NnStatus ref_norm_act(const RefOperands *op, NnError *error);
extern NnStatus ref_upsample(const RefOperands *op, NnError *error);
extern NnStatus ref_avgpool(const RefOperands *op, NnError *error);
extern NnStatus ref_add(const RefOperands *op, NnError *error);

#endif							/* BICYCLE_REF_H */
