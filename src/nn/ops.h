/*
 * ops.h
 *	  The operators: their names, what a node of each says besides its operands,
 *	  and the one table of facts about them, which whoever walks a graph asks.
 *
 * R1 Who has to know something of an operator asks nn_ops, and has no switch.
 * R2 How an operator is computed is a device's affair: each device has a table
 *    of functions, which are named by the list: PREFIX_conv, and of backward
 *    steps PREFIX_conv_backward.
 */
#ifndef BICYCLE_NN_OPS_H
#define BICYCLE_NN_OPS_H

#include "nn/nn.h"

typedef struct NnShape
{
	int n, h, w, c;
} NnShape;

/*
 * The operators but INPUT, whose output is bound by the caller: those that
 * inference and training have, that only training has, and only inference.
 * Devices declare their functions, and make their tables of them, by this list
 * (R2).
 */
#define NN_OPERATORS(BOTH, TRAINING, INFERENCE)                                        \
	/* Conv2d; in[1] >= 0: the latent joins the input's channels */                    \
	BOTH(CONV, conv)                                                                   \
	/* ConvTranspose2d 4x4 s2 p1 */                                                    \
	BOTH(CONVT, convt)                                                                 \
	/* norm, then one activation chain for each of up to two readers */                \
	BOTH(NORM_ACT, norm_act)                                                           \
	/* bilinear x2 (align_corners = False), then reflection pad */                     \
	BOTH(UPSAMPLE, upsample)                                                           \
	/* divides by the taps inside the image (count_include_pad = False) */             \
	BOTH(AVGPOOL, avgpool)                                                             \
	/* (N,1,1,C) -> (N,1,1,O) */                                                       \
	BOTH(LINEAR, linear)                                                               \
	/* in[0] + in[1] */                                                                \
	BOTH(ADD, add)                                                                     \
	/* in[0], to where the caller says: the parts of a concatenation */                \
	TRAINING(COPY, copy)                                                               \
	/* a sample of the posterior, mu + eps exp(logvar / 2); in: mu, logvar, eps */     \
	TRAINING(REPARAM, reparam)                                                         \
	/* (N,h,w,1) -> scale times the mean distance of D's verdict to `target` */        \
	TRAINING(GAN_LOSS, gan_loss)                                                       \
	/* scale times the mean of |in[0] - in[1]|; in[1] is a constant */                 \
	TRAINING(L1_LOSS, l1_loss)                                                         \
	/* in: mu, logvar. scale times the sum of (mu^2 + exp(logvar) - 1 - logvar) / 2 */ \
	TRAINING(KL_LOSS, kl_loss)                                                         \
	/* in[0] as a discriminator sees it; in[1]: (N,1,1,7), by NnAugmentNumber */       \
	TRAINING(AUGMENT, augment)                                                         \
	/* the largest of each window's numbers; pixels outside the image do not count */  \
	INFERENCE(MAXPOOL, maxpool)                                                        \
	/* (x - shift) / scale, by channel */                                              \
	INFERENCE(SCALE, scale)                                                            \
	/* (N,H,W,C) -> (N,1,1,HWC): see nn_embed */                                       \
	INFERENCE(EMBED, embed)                                                            \
	/* (N,H,W,C) -> (N,1,1,C): means over the maps */                                  \
	INFERENCE(MEANS, means)

#define NN_OP_NUMBER(OP, name) NN_OP_##OP,

typedef enum NnOp
{
	NN_OP_INPUT,
	NN_OPERATORS(NN_OP_NUMBER, NN_OP_NUMBER, NN_OP_NUMBER) NN_OPS
} NnOp;

#define NN_MAX_IN 3
#define NN_MAX_OUT 2

/* ---- What a node says ---------------------------------------------------- */

/* Of CONV, and of CONVT, where it is always 4, 2, 1. */
typedef struct NnConvArgs
{
	int kernel, stride, pad;
	/* what the latent passes first (lrelu below the outermost level) */
	NnActKind z_act;
} NnConvArgs;

/* Of AVGPOOL and MAXPOOL. */
typedef struct NnPoolArgs
{
	int kernel, stride, pad;
} NnPoolArgs;

/*
 * Of NORM_ACT. A batch norm's weight and bias are gamma and beta; an instance
 * norm may have such, too.
 */
typedef struct NnNormArgs
{
	NnNorm kind;
	NnActChain act[NN_MAX_OUT]; /* of each output */
	float dropout;              /* probability: in training, or with a seed */
	/*
	 * of dropout at inference, the same for each image, and which mask; 0: none
	 */
	int drop_seed, drop_mask;
	int mean, var; /* running statistics of a batch norm; parameter indices */
} NnNormArgs;

#define NN_MAX_IMAGE_CHANNELS 3

/* Of SCALE, a channel. */
typedef struct NnScaleArgs
{
	float shift[NN_MAX_IMAGE_CHANNELS], scale[NN_MAX_IMAGE_CHANNELS];
} NnScaleArgs;

/* Of AUGMENT. */
typedef struct NnAugmentArgs
{
	bool colour; /* brightness, saturation and contrast change */
	int plain;   /* but not those of so many channels, the first */
	bool cuts;   /* a part is cut out */
} NnAugmentArgs;

#define NN_MAX_SEEN_CHANNELS (2 * NN_MAX_IMAGE_CHANNELS)

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
	int inputs;     /* that it has always */
	int optional;   /* and that may follow them */
	int weights;    /* parameters it cannot do without: a weight */
	bool filters;   /* the weight is filters over a map, as NnConvArgs say */
	bool alike;     /* all inputs have one shape */
	bool loss;      /* its result is one number, kept to the end, and its gradient is 1 */
	bool inference; /* only inference has it: there is no backward step */
	NnRereads rereads;

	/* Checks all but outputs, and says their shape; NULL: the caller's. */
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

/* ---- Builders ------------------------------------------------------------ */

/* Each appends a node, returns the id of its first output; see graph.h. */
extern int nn_input(struct NnGraph *g, NnShape shape, const char *name);
extern int nn_conv(struct NnGraph *g, int x, int z, int weight, int bias, NnConvArgs args,
				   const char *name);
extern int nn_convt(struct NnGraph *g, int x, int weight, int bias, const char *name);
extern int nn_linear(struct NnGraph *g, int x, int weight, int bias, const char *name);
extern int nn_avgpool(struct NnGraph *g, int x, int kernel, int stride, int pad, const char *name);
extern int nn_maxpool(struct NnGraph *g, int x, int kernel, int stride, const char *name);
extern int nn_upsample(struct NnGraph *g, int x, int pad, const char *name);
extern int nn_add(struct NnGraph *g, int a, int b, const char *name);

extern int nn_scale(struct NnGraph *g, int x, NnScaleArgs args, const char *name);
extern int nn_means(struct NnGraph *g, int x, const char *name);

/*
 * What the squared distance of two maps is the squared distance of: at each
 * place the vector of channels is divided by its length; their squared
 * differences count by the weight (1,C,1,1), and the mean over places is taken.
 * So a number is multiplied by the root of its weight over the places. to: a
 * value for it, perhaps a part of one; or -1.
 */
extern int nn_embed(struct NnGraph *g, int x, int weight, int to, const char *name);

/*
 * Norm and activations of x for one or two readers. out[i] is a value of x's
 * shape that the caller made (a view of a concatenation, say), or -1: out[0] is
 * then a new value and out[1] absent. state holds the parameters weight, bias,
 * running mean, running variance with NN_NORM_BATCH, which go into the node;
 * NN_NORM_INSTANCE takes the first two of it; else it may be NULL.
 */
extern int nn_norm_act(struct NnGraph *g, int x, const int out[2], const int state[4],
					   const NnNormArgs *args, const char *name);

/*
 * For training. out is a value of the result's shape that the caller made, or
 * -1: a new one. nn_input_to makes an input of a value.
 */
extern void nn_input_to(struct NnGraph *g, int out, const char *name);
extern int nn_copy(struct NnGraph *g, int x, int out, const char *name);
extern int nn_reparam(struct NnGraph *g, int mu, int logvar, int eps, int out, const char *name);
extern int nn_gan_loss(struct NnGraph *g, int map, bool vanilla, double target, double scale,
					   const char *name);
extern int nn_l1_loss(struct NnGraph *g, int x, int constant, double scale, const char *name);
extern int nn_kl_loss(struct NnGraph *g, int mu, int logvar, double scale, const char *name);
extern int nn_augment(struct NnGraph *g, int x, int numbers, NnAugmentArgs args, const char *name);

#endif /* BICYCLE_NN_OPS_H */
