/*
 * op_table.h
 *	  Every operator: one table of cases, and the graph of each. op_forward.h
 *	  runs the forward steps of a device against the reference device,
 *	  test_train_backward.c the backward steps against central differences and
 *	  device against device.
 *
 * An operator stands alone or followed by a norm and activations, reads and
 * writes maps or slices of wider ones. Where its inputs come from and where its
 * results go is the test's affair.
 */
#ifndef BICYCLE_OP_TABLE_H
#define BICYCLE_OP_TABLE_H

#include "nn_fixture.h"
#include "nn/params.h"

/* Channels of the wider buffers beside a slice. */
#define BEFORE 3
#define AFTER 5

typedef enum Input
{
	RANDOM,
	FLAT,  /* one value a channel */
	OFFSET /* a large mean and little else */
} Input;

/* Which tests a case is for: forward, backward. */
typedef enum When
{
	INFERENCE,
	BOTH_WAYS,
	IN_TRAINING /* an operator, or dropout, that inference does not have */
} When;

typedef struct Case
{
	NnOp op;
	NnShape in;
	int channels; /* of the result; CONV, CONVT, LINEAR */
	int kernel, stride, pad;
	int nz;
	NnActKind z_act;
	bool pooled;   /* a 2x2 mean follows */
	bool followed; /* a NORM_ACT reads the result, and nothing else does */
	NnNorm norm;
	int readers; /* of the NORM_ACT: 1 or 2 */
	NnActChain act[2];
	bool affine;   /* an instance norm has gamma and beta */
	int drop_seed; /* of dropout at inference */
	bool slices;   /* the input is a slice, and so are the outputs of a NORM_ACT */
	Input input;
	float dropout;   /* of the NORM_ACT */
	NnLossArgs loss; /* of a loss */
	NnAugmentArgs augment;
	When when;
} Case;

#define CONV(n, h, w, c, o, k, s, p) \
	.op = NN_OP_CONV, .in = { n, h, w, c }, .channels = o, .kernel = k, .stride = s, .pad = p
#define CONVT(n, h, w, c, o) .op = NN_OP_CONVT, .in = { n, h, w, c }, .channels = o
#define THEN(norm_, act_)                                    \
	.followed = true, .norm = NN_NORM_##norm_, .readers = 1, \
	.act = { { NN_ACT_##act_, NN_ACT_NONE } }
#define THEN_TWO(norm_, first, second)                       \
	.followed = true, .norm = NN_NORM_##norm_, .readers = 2, \
	.act = { { NN_ACT_##first, NN_ACT_NONE }, { NN_ACT_LRELU, NN_ACT_##second } }
/* Chains of two activations, as a skip has them that joins the input. */
#define THEN_CHAINS(first, second)                        \
	.followed = true, .norm = NN_NORM_NONE, .readers = 2, \
	.act = { { NN_ACT_##first, NN_ACT_##second }, { NN_ACT_##second, NN_ACT_##first } }
#define Z(n, a) .nz = n, .z_act = NN_ACT_##a
#define NORM(n, h, w, c) .op = NN_OP_NORM_ACT, .in = { n, h, w, c }
#define SLICES .slices = true
#define BOTH .when = BOTH_WAYS
#define TRAINING .when = IN_TRAINING

static const Case cases[] = {
	/* small ones, for gradients, too */
	{ CONV(2, 6, 5, 3, 5, 3, 1, 1), BOTH },
	{ CONV(2, 8, 6, 3, 4, 4, 2, 1), BOTH },
	{ CONV(1, 5, 6, 4, 3, 4, 1, 1), BOTH },
	{ CONV(2, 2, 2, 5, 4, 4, 2, 1), BOTH },
	{ CONV(2, 4, 3, 5, 6, 1, 1, 0), BOTH },
	{ CONV(2, 4, 3, 5, 6, 3, 1, 1), SLICES, BOTH },
	{ CONV(2, 6, 6, 3, 5, 4, 2, 1), Z(3, LRELU), BOTH },
	{ CONV(2, 3, 3, 19, 5, 3, 1, 1), Z(19, NONE), BOTH },
	{ CONV(2, 12, 12, 3, 5, 4, 2, 1), Z(2, LRELU), THEN_TWO(INSTANCE, LRELU, RELU), BOTH },
	{ CONVT(2, 3, 4, 6, 5), BOTH },
	{ CONVT(2, 1, 1, 6, 5), BOTH },
	{ CONVT(2, 3, 3, 6, 5), THEN(BATCH, RELU), SLICES, BOTH },
	{ NORM(2, 5, 4, 3), THEN_TWO(INSTANCE, LRELU, ELU), SLICES, BOTH },
	{ NORM(2, 3, 3, 40), THEN_TWO(INSTANCE, LRELU, ELU), BOTH },
	{ NORM(3, 4, 4, 3), THEN_TWO(BATCH, ELU, RELU), SLICES, BOTH },
	{ NORM(2, 4, 4, 5), THEN_TWO(NONE, TANH, NONE), BOTH },
	{ NORM(2, 4, 4, 5), THEN_TWO(NONE, TANH, RELU), SLICES, BOTH },
	{ NORM(2, 6, 4, 8), THEN_TWO(INSTANCE, LRELU, ELU), .dropout = 0.5f, TRAINING },
	{ NORM(2, 4, 4, 20), THEN_TWO(BATCH, ELU, RELU), SLICES, .dropout = 0.25f, TRAINING },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 3, 4, 3 }, .pad = 1, BOTH },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 1, 1, 17 }, .pad = 1, BOTH },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 6, 7, 3 }, .kernel = 2, .stride = 2, BOTH },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 6, 7, 3 }, .kernel = 3, .stride = 2, .pad = 1, SLICES, BOTH },
	/* more pixels in a window than are summed at once */
	{ .op = NN_OP_AVGPOOL, .in = { 2, 10, 9, 35 }, .kernel = 9, .stride = 1, BOTH },
	{ .op = NN_OP_LINEAR, .in = { 3, 1, 1, 4 }, .channels = 7, BOTH },
	{ .op = NN_OP_ADD, .in = { 2, 3, 3, 4 }, BOTH },
	{ .op = NN_OP_ADD, .in = { 2, 3, 3, 4 }, SLICES, BOTH },
	{ .op = NN_OP_COPY, .in = { 2, 3, 3, 4 }, SLICES, TRAINING },
	{ .op = NN_OP_REPARAM, .in = { 3, 1, 1, 6 }, TRAINING },
	{ .op = NN_OP_GAN_LOSS, .in = { 2, 3, 3, 4 }, .loss = { 0.7, 1, true }, TRAINING },
	{ .op = NN_OP_GAN_LOSS, .in = { 2, 3, 3, 4 }, .loss = { 0.3, 0, true }, SLICES, TRAINING },
	{ .op = NN_OP_GAN_LOSS, .in = { 2, 3, 3, 4 }, .loss = { 0.2, 1, false }, TRAINING },
	{ .op = NN_OP_L1_LOSS, .in = { 2, 3, 3, 4 }, .loss = { .scale = 3 }, TRAINING },
	{ .op = NN_OP_KL_LOSS, .in = { 3, 1, 1, 6 }, .loss = { .scale = 0.1 }, TRAINING },
	{ .op = NN_OP_AUGMENT, .in = { 3, 6, 5, 3 }, .augment = { true, 0, true }, TRAINING },
	{ .op = NN_OP_AUGMENT, .in = { 2, 8, 6, 5 }, .augment = { true, 2, false }, SLICES, TRAINING },
	{ .op = NN_OP_AUGMENT, .in = { 4, 4, 4, 1 }, .augment = { .cuts = true }, TRAINING },
	/*
	 * what pix2pix has at inference: gamma and beta of an instance norm,
	 * dropout
	 */
	{ NORM(2, 5, 8, 24), THEN_TWO(INSTANCE, LRELU, RELU), .affine = true },
	{ NORM(2, 5, 8, 24), THEN(INSTANCE, RELU), SLICES, .affine = true, .dropout = 0.5f,
	  .drop_seed = 7 },
	{ CONV(2, 16, 16, 24, 40, 4, 2, 1), THEN_TWO(INSTANCE, LRELU, RELU), .affine = true },
	{ CONVT(3, 4, 4, 16, 8), THEN(INSTANCE, RELU), SLICES, .affine = true, .dropout = 0.5f,
	  .drop_seed = 1 },
	{ CONVT(2, 8, 8, 64, 128), THEN(BATCH, RELU), .dropout = 0.5f, .drop_seed = 0x7fffffff },
	{ CONVT(2, 2, 4, 64, 132), THEN(NONE, RELU), .dropout = 0.5f, .drop_seed = 3 },
	{ CONVT(1, 32, 32, 16, 8), THEN(INSTANCE, RELU), .affine = true, .dropout = 0.5f,
	  .drop_seed = 3 },
	/* convolutions 4x4, stride 2: the way down */
	{ CONV(1, 8, 8, 3, 64, 4, 2, 1) },
	{ CONV(2, 16, 16, 5, 7, 4, 2, 1) },
	{ CONV(1, 64, 64, 3, 64, 4, 2, 1), Z(8, NONE), THEN_TWO(NONE, LRELU, RELU) },
	{ CONV(1, 128, 128, 1, 32, 4, 2, 1), Z(8, NONE), THEN_TWO(NONE, LRELU, RELU) },
	{ CONV(2, 16, 32, 64, 128, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(1, 32, 32, 64, 128, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU), SLICES },
	{ CONV(2, 16, 16, 33, 65, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, LRELU, ELU), SLICES },
	{ CONV(2, 8, 8, 512, 512, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(3, 4, 4, 256, 256, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(2, 4, 4, 20, 13, 4, 2, 1), Z(200, LRELU), THEN(INSTANCE, RELU) },
	{ CONV(3, 2, 2, 512, 512, 4, 2, 1), Z(8, LRELU), THEN(NONE, RELU) },
	{ CONV(2, 2, 2, 17, 9, 4, 2, 1), Z(5, LRELU), THEN(NONE, ELU), SLICES },
	{ CONV(2, 2, 6, 24, 40, 4, 2, 1), Z(5, TANH), THEN(BATCH, LRELU) },
	{ CONV(2, 7, 9, 24, 40, 4, 2, 1), Z(5, LRELU) },
	{ CONV(1, 64, 64, 128, 256, 4, 2, 1), THEN(INSTANCE, LRELU) },
	/* 4x4, stride 1 */
	{ CONV(1, 16, 16, 64, 128, 4, 1, 1), THEN(INSTANCE, LRELU) },
	{ CONV(2, 7, 9, 64, 1, 4, 1, 1) },
	{ CONV(2, 2, 3, 16, 1, 4, 1, 1) },
	{ CONV(1, 31, 31, 32, 8, 4, 1, 1), Z(4, RELU) },
	/* 3x3 and 1x1 */
	{ CONV(1, 32, 32, 64, 64, 3, 1, 1), THEN(INSTANCE, LRELU) },
	{ CONV(2, 9, 5, 12, 20, 3, 1, 1) },
	{ CONV(1, 34, 34, 64, 32, 3, 1, 0), THEN(INSTANCE, RELU) },
	{ CONV(1, 10, 6, 256, 3, 3, 1, 0), THEN(NONE, TANH) },
	{ CONV(1, 1, 1, 16, 8, 3, 1, 1) },
	{ CONV(1, 2, 1, 16, 8, 3, 1, 1), Z(2, NONE) },
	{ CONV(1, 32, 32, 64, 192, 1, 1, 0) },
	{ CONV(2, 5, 3, 7, 11, 1, 1, 0), SLICES },
	/* with the mean of 2x2 made part of them */
	{ CONV(1, 32, 32, 64, 128, 3, 1, 1), .pooled = true },
	{ CONV(2, 16, 8, 17, 21, 3, 1, 1), .pooled = true, SLICES },
	{ CONV(2, 7, 9, 24, 16, 3, 1, 1), .pooled = true, THEN(NONE, LRELU) },
	{ CONV(1, 2, 2, 3, 5, 3, 1, 1), .pooled = true },
	/* transposed: the way up */
	{ CONVT(3, 1, 1, 512, 512), THEN(INSTANCE, RELU) },
	{ CONVT(2, 1, 1, 19, 21), THEN(NONE, RELU), SLICES },
	{ CONVT(2, 2, 2, 1024, 512), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(2, 2, 3, 24, 24), THEN(INSTANCE, ELU) },
	{ CONVT(2, 4, 4, 512, 256), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 8, 8, 128, 512), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 16, 16, 256, 256), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(1, 32, 32, 64, 64), THEN(INSTANCE, RELU), SLICES },
	{ CONVT(2, 5, 7, 33, 70), THEN(BATCH, LRELU), SLICES },
	{ CONVT(1, 64, 64, 128, 3), THEN(NONE, TANH) },
	{ CONVT(2, 17, 70, 16, 3), THEN(NONE, TANH) },
	{ CONVT(2, 9, 9, 16, 1), THEN(NONE, TANH) },
	{ CONVT(2, 9, 9, 16, 1), THEN(INSTANCE, TANH) },
	{ CONVT(2, 9, 9, 16, 4), THEN(BATCH, RELU), SLICES },
	{ CONVT(2, 6, 6, 16, 3) },
	{ CONVT(1, 3, 3, 16, 24) },
	/* norms by themselves */
	{ NORM(2, 32, 32, 64), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 7, 5, 37 }, THEN_TWO(INSTANCE, ELU, TANH), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 64, 64, 192 }, THEN(INSTANCE, LRELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 2, 1, 130 }, THEN(INSTANCE, NONE), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 1, 1, 96 }, THEN(NONE, ELU) },
	{ .op = NN_OP_NORM_ACT, .in = { 2, 9, 9, 33 }, THEN_TWO(BATCH, TANH, ELU), SLICES },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 33, 47, 3 }, THEN_TWO(NONE, TANH, TANH) },
	/*
	 * by extent: as CUDA's kernels cut images, at 512, 4096 and 16384 pixels;
	 * by channels: whole vectors or not, an odd number of them, one
	 */
	{ NORM(2, 16, 32, 24), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ NORM(2, 19, 27, 24), THEN_TWO(INSTANCE, ELU, TANH), SLICES },
	{ NORM(2, 23, 23, 8), THEN(INSTANCE, RELU) },
	{ NORM(2, 36, 31, 5), THEN_TWO(INSTANCE, LRELU, NONE), SLICES },
	{ NORM(1, 64, 65, 16), THEN_TWO(INSTANCE, LRELU, RELU), .affine = true },
	{ NORM(1, 67, 62, 3), THEN(INSTANCE, RELU) },
	{ NORM(1, 131, 127, 8), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ NORM(2, 145, 121, 3), THEN(INSTANCE, RELU), SLICES },
	{ NORM(2, 5, 5, 1), THEN(INSTANCE, RELU), .affine = true },
	{ NORM(3, 1, 1, 24), THEN_TWO(INSTANCE, LRELU, TANH), .affine = true },
	/* so many that a thread takes several vectors */
	{ NORM(1, 128, 128, 72), THEN_TWO(NONE, LRELU, RELU) },
	{ NORM(3, 97, 101, 37), THEN_TWO(BATCH, LRELU, ELU) },
	/*
	 * a latent code's border under an instance norm, at each of those extents
	 */
	{ CONV(2, 2, 2, 5, 16, 4, 2, 1), Z(3, LRELU), THEN(INSTANCE, RELU), .affine = true },
	{ CONV(2, 4, 4, 5, 16, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(1, 8, 8, 5, 14, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, ELU, TANH), SLICES },
	{ CONV(3, 4, 4, 5, 14, 4, 2, 1), Z(3, NONE), THEN_TWO(BATCH, LRELU, RELU) },
	{ CONV(2, 2, 14, 5, 11, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, LRELU, RELU), SLICES },
	{ CONV(2, 64, 64, 2, 8, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, LRELU, RELU) },
	{ CONV(1, 70, 66, 2, 13, 4, 2, 1), Z(3, LRELU), THEN_TWO(INSTANCE, ELU, TANH), SLICES },
	{ CONV(1, 160, 160, 1, 8, 4, 2, 1), Z(2, NONE), THEN(INSTANCE, LRELU) },
	{ CONV(2, 31, 33, 2, 24, 4, 1, 1), Z(3, LRELU), THEN(INSTANCE, LRELU) },
	{ CONV(1, 13, 9, 2, 24, 3, 1, 0), Z(3, LRELU), THEN(INSTANCE, LRELU) },
	{ CONV(1, 9, 13, 2, 24, 3, 1, 1), Z(3, LRELU), THEN(BATCH, LRELU) },
	/* each activation after each, whole vectors and others */
	{ NORM(2, 5, 3, 16), THEN_CHAINS(RELU, TANH) },
	{ NORM(2, 5, 3, 16), THEN_CHAINS(LRELU, ELU) },
	{ NORM(2, 5, 3, 16), THEN_CHAINS(NONE, LRELU) },
	{ NORM(2, 5, 3, 11), THEN_CHAINS(LRELU, TANH), SLICES },
	{ NORM(2, 5, 3, 11), THEN_CHAINS(RELU, ELU) },
	{ NORM(2, 5, 3, 11), THEN_CHAINS(NONE, NONE) },
	/* flat images: what norm leaves are deviations far below the mean */
	{ .op = NN_OP_NORM_ACT, .in = { 1, 64, 64, 64 }, THEN(INSTANCE, NONE), .input = OFFSET },
	{ .op = NN_OP_NORM_ACT,
	  .in = { 1, 9, 11, 5 },
	  THEN_TWO(INSTANCE, LRELU, RELU),
	  SLICES,
	  .input = OFFSET },
	{ .op = NN_OP_NORM_ACT, .in = { 1, 16, 16, 32 }, THEN(INSTANCE, NONE), .input = FLAT },
	{ CONV(1, 32, 32, 16, 64, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU),
	  .input = FLAT },
	{ CONVT(1, 16, 16, 64, 64), THEN(INSTANCE, RELU), .input = FLAT },
	{ CONV(1, 64, 64, 2, 16, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU),
	  .input = FLAT },
	{ CONV(1, 136, 136, 1, 16, 4, 2, 1), Z(8, LRELU), THEN(INSTANCE, LRELU), .input = FLAT },
	{ CONV(1, 8, 8, 3, 16, 4, 2, 1), Z(8, LRELU), THEN_TWO(INSTANCE, LRELU, RELU), .input = FLAT },
	{ NORM(1, 40, 40, 16), THEN(INSTANCE, NONE), .input = FLAT },
	{ NORM(1, 40, 40, 8), THEN(INSTANCE, NONE), .input = OFFSET },
	{ NORM(1, 70, 70, 16), THEN(INSTANCE, NONE), .input = OFFSET },
	{ NORM(1, 130, 130, 8), THEN(INSTANCE, NONE), .input = OFFSET },
	/* the rest */
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 8, 8, 64 }, .pad = 1 },
	{ .op = NN_OP_UPSAMPLE, .in = { 1, 1, 1, 20 }, .pad = 1 },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 3, 5, 21 }, .pad = 2, SLICES },
	{ .op = NN_OP_UPSAMPLE, .in = { 2, 4, 2, 16 }, .pad = 0 },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 8, 8, 64 }, .kernel = 2, .stride = 2 },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 8, 8, 19 }, .kernel = 8, .stride = 8, SLICES },
	{ .op = NN_OP_AVGPOOL, .in = { 2, 9, 7, 3 }, .kernel = 3, .stride = 2, .pad = 1 },
	{ .op = NN_OP_AVGPOOL, .in = { 1, 1, 2, 3 }, .kernel = 3, .stride = 2, .pad = 1 },
	{ .op = NN_OP_LINEAR, .in = { 3, 1, 1, 256 }, .channels = 8 },
	{ .op = NN_OP_LINEAR, .in = { 2, 1, 1, 37 }, .channels = 13, SLICES },
	{ .op = NN_OP_ADD, .in = { 2, 8, 8, 64 } },
	{ .op = NN_OP_ADD, .in = { 2, 3, 5, 21 }, SLICES },
	/* what compares images: convolutions of AlexNet and VGG16, odd extents */
	{ CONV(2, 31, 33, 3, 16, 11, 4, 2), THEN(NONE, RELU) },
	{ CONV(2, 64, 64, 3, 64, 11, 4, 2), THEN(NONE, RELU) },
	{ CONV(2, 7, 7, 16, 24, 5, 1, 2), THEN(NONE, RELU) },
	{ CONV(1, 15, 15, 64, 192, 5, 1, 2), THEN(NONE, RELU) },
	{ CONV(4, 3, 3, 24, 32, 3, 1, 1), THEN(NONE, RELU) },
	{ CONV(2, 1, 1, 64, 64, 3, 1, 1), THEN(NONE, RELU) },
	{ CONV(2, 17, 20, 3, 64, 3, 1, 1), THEN(NONE, RELU) },
	{ .op = NN_OP_MAXPOOL, .in = { 2, 15, 15, 64 }, .kernel = 3, .stride = 2 },
	{ .op = NN_OP_MAXPOOL, .in = { 2, 7, 8, 19 }, .kernel = 3, .stride = 2, SLICES },
	{ .op = NN_OP_MAXPOOL, .in = { 3, 9, 6, 24 }, .kernel = 2, .stride = 2 },
	{ .op = NN_OP_MAXPOOL, .in = { 1, 3, 3, 5 }, .kernel = 3, .stride = 2 },
	{ .op = NN_OP_SCALE, .in = { 2, 10, 7, 3 } },
	{ .op = NN_OP_SCALE, .in = { 1, 66, 64, 3 } },
	{ .op = NN_OP_EMBED, .in = { 2, 15, 15, 64 } },
	{ .op = NN_OP_EMBED, .in = { 6, 3, 4, 37 }, SLICES },
	{ .op = NN_OP_EMBED, .in = { 3, 1, 1, 512 } },
	{ .op = NN_OP_EMBED, .in = { 2, 40, 41, 24 } },
	{ .op = NN_OP_MEANS, .in = { 5, 3, 4, 37 }, SLICES },
	{ .op = NN_OP_MEANS, .in = { 2, 1, 1, 256 } },
	{ .op = NN_OP_MEANS, .in = { 4, 15, 7, 64 } },
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

/* ---- The graph of a case ------------------------------------------------- */

typedef struct Builder Builder;

struct Builder
{
	NnGraph *g;
	NnParams *params; /* the graph's */

	/* An input of the operator; a constant has no gradient. */
	int (*source)(Builder *b, const Case *t, NnShape shape, bool constant);

	/* Takes a result; not those of losses. */
	void (*result)(Builder *b, int value);
};

static int
case_param(Builder *b, int ndim, const int64_t *shape)
{
	char name[32];

	snprintf(name, sizeof(name), "p%d", b->params->n);
	return nn_params_add(b->params, NN_NET_G, name, ndim, shape);
}

static void
case_norm_act(Builder *b, const Case *t, int x)
{
	NnNormArgs args = {
		.kind = t->norm, .dropout = t->dropout, .drop_seed = t->drop_seed, .drop_mask = 5
	};
	NnShape wide = b->g->values[x].shape;
	int64_t c = wide.c;
	int nstate = t->norm == NN_NORM_BATCH ? 4 : t->norm == NN_NORM_INSTANCE && t->affine ? 2 : 0;
	int state[4], out[2] = { -1, -1 };

	for (int i = 0; i < nstate; i++)
	{
		state[i] = case_param(b, 1, &c);
		b->params->list[state[i]].buffer = i >= 2;
	}
	memcpy(args.act, t->act, sizeof(args.act));
	wide.c += BEFORE + AFTER;
	for (int i = 0; (t->slices || t->readers > 1) && i < t->readers; i++)
		out[i] = t->slices ? nn_view(b->g, nn_value(b->g, wide, "wide"), BEFORE, (int) c, "out")
						   : nn_value(b->g, b->g->values[x].shape, "out");
	out[0] = nn_norm_act(b->g, x, out, nstate > 0 ? state : NULL, &args, "norm");
	for (int i = 0; i < t->readers; i++)
		b->result(b, out[i]);
}

/* The weight of an operator that has one; -1 of others. */
static int
case_weight(Builder *b, const Case *t)
{
	int64_t inputs = t->in.c + t->nz, channels = t->channels;

	switch (t->op)
	{
		case NN_OP_CONV:
			return case_param(b, 4, (int64_t[]){ channels, inputs, t->kernel, t->kernel });
		case NN_OP_CONVT:
			return case_param(b, 4, (int64_t[]){ inputs, channels, 4, 4 });
		case NN_OP_LINEAR:
			return case_param(b, 2, (int64_t[]){ channels, inputs });
		case NN_OP_EMBED:
			return case_param(b, 4, (int64_t[]){ 1, inputs, 1, 1 });
		default:
			return -1;
	}
}

/* The operator alone; its result, -1 of losses, x of a NORM_ACT. */
static int
case_operator(Builder *b, const Case *t, int x)
{
	const Case plain = { .input = RANDOM };
	int weight = case_weight(b, t);
	int bias = weight >= 0 && t->channels > 0 ? case_param(b, 1, (int64_t[]){ t->channels }) : -1;
	int z = -1;

	switch (t->op)
	{
		case NN_OP_CONV:
			if (t->nz > 0)
				z = b->source(b, &plain, (NnShape){ t->in.n, 1, 1, t->nz }, false);
			return nn_conv(b->g, x, z, weight, bias,
						   (NnConvArgs){ t->kernel, t->stride, t->pad, t->z_act }, "conv");
		case NN_OP_CONVT:
			return nn_convt(b->g, x, weight, bias, "convt");
		case NN_OP_LINEAR:
			return nn_linear(b->g, x, weight, bias, "fc");
		case NN_OP_UPSAMPLE:
			return nn_upsample(b->g, x, t->pad, "up");
		case NN_OP_AVGPOOL:
			return nn_avgpool(b->g, x, t->kernel, t->stride, t->pad, "pool");
		case NN_OP_MAXPOOL:
			return nn_maxpool(b->g, x, t->kernel, t->stride, "pool");
		case NN_OP_SCALE:
			return nn_scale(b->g, x,
							(NnScaleArgs){ { -0.03f, -0.09f, 0.19f }, { 0.46f, 1.5f, 0.45f } },
							"scale");
		case NN_OP_EMBED:
			return nn_embed(b->g, x, weight, -1, "embed");
		case NN_OP_MEANS:
			return nn_means(b->g, x, "means");
		case NN_OP_ADD:
			return nn_add(b->g, x, b->source(b, t, t->in, false), "add");
		case NN_OP_COPY:
			return nn_copy(b->g, x, -1, "copy");
		case NN_OP_REPARAM:
			z = b->source(b, t, t->in, false);
			return nn_reparam(b->g, x, z, b->source(b, t, t->in, true), -1, "sample");
		case NN_OP_GAN_LOSS:
			nn_gan_loss(b->g, x, t->loss.vanilla, t->loss.target, t->loss.scale, "gan");
			return -1;
		case NN_OP_L1_LOSS:
			nn_l1_loss(b->g, x, b->source(b, t, t->in, true), t->loss.scale, "l1");
			return -1;
		case NN_OP_KL_LOSS:
			nn_kl_loss(b->g, x, b->source(b, t, t->in, false), t->loss.scale, "kl");
			return -1;
		case NN_OP_AUGMENT:
			z = b->source(b, &plain, (NnShape){ t->in.n, 1, 1, NN_AUGMENT_NUMBERS }, true);
			return nn_augment(b->g, x, z, t->augment, "augment");
		case NN_OP_NORM_ACT:
		case NN_OP_INPUT:
		case NN_OPS:
			break;
	}
	return x;
}

static void
build_case(Builder *b, const Case *t)
{
	int y = case_operator(b, t, b->source(b, t, t->in, false));

	if (t->pooled)
		y = nn_avgpool(b->g, y, 2, 2, 0, "pool");
	if (t->followed)
		case_norm_act(b, t, y);
	else if (y >= 0)
		b->result(b, y);
}

/* Its name, for one line. */
static const char *
case_name(const Case *t)
{
	static char name[300];

	snprintf(name, sizeof(name),
			 "%s (%d,%d,%d,%d) %d channels, kernel %d, stride %d, pad %d, nz %d%s%s%s%s%s",
			 nn_ops[t->op].name, t->in.n, t->in.h, t->in.w, t->in.c, t->channels, t->kernel,
			 t->stride, t->pad, t->nz, t->pooled ? ", mean of 2x2" : "",
			 t->followed ? ", then a norm" : "", t->slices ? ", slices" : "",
			 t->dropout > 0 ? ", dropout" : "",
			 t->input == FLAT     ? ", flat"
			 : t->input == OFFSET ? ", large mean"
								  : "");
	return name;
}

#endif /* BICYCLE_OP_TABLE_H */
