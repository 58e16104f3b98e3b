/*
 * ops.h
 *	  The operators: their names, what a node of each says besides its operands,
 *	  and the one table of facts about them, which whoever walks a graph asks.
 *
 * R1 Who has to know something of an operator asks nn_ops, and has no switch.
 * R2 How an operator is computed is a device's affair: each device has a table
 *    of its own, by NnOp.
 */
#ifndef BICYCLE_NN_OPS_H
#define BICYCLE_NN_OPS_H

#include "nn/nn.h"

typedef struct NnShape
{
	int n, h, w, c;
} NnShape;

typedef enum NnOp
{
	NN_OP_INPUT,    /* out[0] is bound by the caller */
	NN_OP_CONV,     /* Conv2d; in[1] >= 0: the latent joins the input's channels */
	NN_OP_CONVT,    /* ConvTranspose2d 4x4 s2 p1 */
	NN_OP_NORM_ACT, /* norm, then one activation chain for each of up to two readers */
	NN_OP_UPSAMPLE, /* bilinear x2 (align_corners = False), then reflection pad */
	NN_OP_AVGPOOL,  /* divides by the taps inside the image (count_include_pad = False) */
	NN_OP_LINEAR,   /* (N,1,1,C) -> (N,1,1,O) */
	NN_OP_ADD,      /* in[0] + in[1] */

	/* in training only */
	NN_OP_COPY,     /* in[0], to where the caller says: the parts of a concatenation */
	NN_OP_REPARAM,  /* a sample of the posterior, mu + eps exp(logvar / 2); in: mu, logvar, eps */
	NN_OP_GAN_LOSS, /* (N,h,w,1) -> scale times the mean distance of D's verdict to `target` */
	NN_OP_L1_LOSS,  /* scale times the mean of |in[0] - in[1]|; in[1] is a constant */
	/*
	 * in: mu, logvar. scale times the sum of (mu^2 + exp(logvar) - 1 - logvar)
	 * / 2
	 */
	NN_OP_KL_LOSS,
	NN_OPS
} NnOp;

#define NN_MAX_IN 3
#define NN_MAX_OUT 2

/* ---- What a node says ---------------------------------------------------- */

/*
 * second(first(x)): where_add = input keeps lrelu(x) as the skip, which the up
 * path then passes through nl
 */
typedef struct NnActChain
{
	NnActKind first;
	NnActKind second;
} NnActChain;

/* Of CONV, and of CONVT, where it is always 4, 2, 1. */
typedef struct NnConvArgs
{
	int kernel, stride, pad;
	/*
	 * what the latent passes through before it joins (lrelu below the outermost
	 * level)
	 */
	NnActKind z_act;
} NnConvArgs;

/* Of AVGPOOL. */
typedef struct NnPoolArgs
{
	int kernel, stride, pad;
} NnPoolArgs;

/* Of NORM_ACT.  A batch norm's weight and bias are gamma and beta. */
typedef struct NnNormArgs
{
	NnNorm kind;
	NnActChain act[NN_MAX_OUT]; /* of each output */
	float dropout;              /* in training: probability; 0 at inference */
	int mean, var;              /* running statistics of a batch norm; parameter indices */
} NnNormArgs;

/* Of UPSAMPLE: the reflected border. */
typedef struct NnUpsampleArgs
{
	int pad;
} NnUpsampleArgs;

/* Of the losses. */
typedef struct NnLossArgs
{
	double scale;
	double target; /* GAN_LOSS: what the verdict should be, 1 (real) or 0 */
	bool vanilla;  /* GAN_LOSS: cross entropy with logits instead of squared distance */
} NnLossArgs;

/* ---- The table ----------------------------------------------------------- */

/* Whether an operator's backward step reads its inputs again. */
typedef enum NnRereads
{
	NN_REREADS_NOTHING,
	NN_REREADS_FOR_WEIGHTS, /* for the gradients of its weight, and of a latent */
	NN_REREADS_ALWAYS
} NnRereads;

struct NnGraph;
struct NnNode;

typedef struct NnOpInfo
{
	const char *name;
	int inputs;   /* that it has always */
	int optional; /* and that may follow them */
	int weights;  /* parameters it cannot do without: a weight */
	bool alike;   /* all inputs have one shape */
	bool loss;    /* its result is one number, kept to the end, and its gradient is 1 */
	NnRereads rereads;

	/*
	 * Checks what the node has, but for its outputs, and says their shape.
	 * NULL: outputs are the caller's.
	 */
	NnStatus (*shape)(const struct NnGraph *g, const struct NnNode *node, NnShape *shape,
					  NnError *error);

	/*
	 * Arithmetic of a forward step, a multiply-add being two; NULL: too little
	 * to count. A convolution's is that over the channels of its map: the
	 * latent's share is a handful of additions.
	 */
	double (*flop)(const struct NnGraph *g, const struct NnNode *node);
} NnOpInfo;

extern const NnOpInfo nn_ops[NN_OPS];

#endif /* BICYCLE_NN_OPS_H */
