/*
 * cpu_train.h
 *	  Training on the CPU: what cpu_train.c, which runs the steps of a schedule,
 *	  shares with the operators.
 *
 * Everything is fp32, sums over pixels are in double; with precision bf16 the
 * operands of convolutions (inputs, weights, gradients of outputs) are rounded
 * to bfloat16 and their products summed in fp32, all else stays. A step is cut
 * into pieces that threads share, each sum is made by one thread in an order
 * that follows from its shape alone: the same bits for any number of threads.
 *
 * Arrays hold the weights of convolutions as [tap][C][O], which is what the
 * products read; get and put turn them round. So no step reorders weights.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_H
#define BICYCLE_NN_CPU_TRAIN_H

#include "nn/cpu/cpu.h"
#include "nn/cpu/cpu_train_kernels.h"
#include "nn/training.h"

/* A value or a gradient: pixel i of all images begins at data + i * pitch. */
typedef struct CpuMap
{
	NnShape shape;
	size_t pitch;
	float *data; /* NULL: there is none */
} CpuMap;

/* The operands of one step. */
typedef struct CpuOperands
{
	const NnTraining *training;
	const NnNode *node;
	int index; /* of the node */
	int threads;
	CpuMap in[NN_MAX_IN];
	CpuMap out[2];
	CpuMap stats;
	const float *weight;
	const float *bias;
	CpuMap dout[2]; /* backward */
	CpuMap din[NN_MAX_IN];
	NnGradMode in_mode[NN_MAX_IN];
	float *dweight;
	float *dbias;
	NnGradMode weight_mode, bias_mode;
	const CpuTrainKernels *kernels;
	bool bf16;      /* operands of products are rounded to bfloat16 */
	float *work;    /* of convolutions, a part for each thread */
	float *latents; /* of convolutions with a latent */
} CpuOperands;

static inline size_t
cpu_pixels(NnShape s)
{
	return (size_t) s.n * s.h * s.w;
}

/* Pieces of channels that are worked on by one thread. */
#define CPU_TRAIN_BLOCK 16

/*
 * Threads for work of so many simple operations: waking others for little costs
 * more than it saves.
 */
static inline int
cpu_team(const CpuOperands *op, size_t operations)
{
	return operations < 16384 ? 1 : op->threads;
}

/* cpu_train_conv.c */
extern bool cpu_train_can_conv(const NnNode *node);
extern size_t cpu_train_latents(const NnGraph *g, const NnNode *node);
extern void cpu_train_conv(const CpuOperands *op);
extern void cpu_train_conv_backward(const CpuOperands *op);
extern void cpu_train_convt(const CpuOperands *op);
extern void cpu_train_convt_backward(const CpuOperands *op);

/* cpu_train_norm.c */
extern void cpu_train_norm_act(const CpuOperands *op);
extern void cpu_train_norm_act_backward(const CpuOperands *op);
extern void cpu_train_act(NnActKind kind, float *x, int n); /* in place */

/* cpu_train_ops.c */
extern void cpu_train_upsample(const CpuOperands *op);
extern void cpu_train_upsample_backward(const CpuOperands *op);
extern void cpu_train_avgpool(const CpuOperands *op);
extern void cpu_train_avgpool_backward(const CpuOperands *op);
extern void cpu_train_add(const CpuOperands *op);
extern void cpu_train_add_backward(const CpuOperands *op);
extern void cpu_train_reparam(const CpuOperands *op);
extern void cpu_train_reparam_backward(const CpuOperands *op);
extern void cpu_train_loss(const CpuOperands *op);
extern void cpu_train_loss_backward(const CpuOperands *op);

/* cpu_train.c */
extern const NnTrainDevice cpu_train_device;
extern NnPrecision cpu_train_automatic(const CpuKernels *kernels); /* what auto means */

#endif /* BICYCLE_NN_CPU_TRAIN_H */
