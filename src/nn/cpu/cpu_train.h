/*
 * cpu_train.h
 *	  Training on the CPU: what cpu_train.c, which runs the steps of a schedule, shares with the operators.
 *
 * Everything is fp32, sums over pixels are in double.  A step is cut into pieces by its shape and the number of threads, each sum is made by one thread in a
 * fixed order, and oneDNN's matrix product divides its work likewise: the same bits for the same number of threads.
 *
 * Arrays hold the weights of convolutions as [tap][C][O], which is what the products read; get and put turn them round.  So no step reorders weights.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_H
#define BICYCLE_NN_CPU_TRAIN_H

#include "cpu.h"
#include "nn/training.h"

/* A value or a gradient: pixel i of all images begins at data + i * pitch. */
typedef struct CpuMap
{
	NnShape		shape;
	size_t		pitch;
	float	   *data;			/* NULL: there is none */
} CpuMap;

/* The operands of one step. */
typedef struct CpuOperands
{
	const NnTraining *training;
	const NnNode *node;
	int			index;			/* of the node */
	int			threads;
	CpuMap		in[NN_MAX_IN];
	CpuMap		out[2];
	CpuMap		stats;
	const float *weight;
	const float *bias;
	CpuMap		dout[2];		/* backward */
	CpuMap		din[NN_MAX_IN];
	NnGradMode	in_mode[NN_MAX_IN];
	float	   *dweight;
	float	   *dbias;
	NnGradMode	weight_mode,
				bias_mode;
	float	   *columns;		/* work space of convolutions */
	size_t		ncolumns;		/* floats of it */
} CpuOperands;

static inline size_t
cpu_pixels(NnShape s)
{
	return (size_t) s.n * s.h * s.w;
}

/* Pieces of channels that are worked on by one thread. */
#define CPU_TRAIN_BLOCK 16

/* cpu_train_conv.c */
extern size_t cpu_train_columns(const NnGraph *g, const NnNode *node);	/* floats that one image needs */
extern dnnl_status_t cpu_train_conv(const CpuOperands *op);
extern dnnl_status_t cpu_train_conv_backward(const CpuOperands *op);
extern dnnl_status_t cpu_train_convt(const CpuOperands *op);
extern dnnl_status_t cpu_train_convt_backward(const CpuOperands *op);

/* cpu_train_norm.c */
extern dnnl_status_t cpu_train_norm_act(const CpuOperands *op);
extern dnnl_status_t cpu_train_norm_act_backward(const CpuOperands *op);
extern void cpu_train_act(NnActKind kind, float *x, int n); /* in place */

/* cpu_train_ops.c */
extern dnnl_status_t cpu_train_upsample(const CpuOperands *op);
extern dnnl_status_t cpu_train_upsample_backward(const CpuOperands *op);
extern dnnl_status_t cpu_train_avgpool(const CpuOperands *op);
extern dnnl_status_t cpu_train_avgpool_backward(const CpuOperands *op);
extern dnnl_status_t cpu_train_add(const CpuOperands *op);
extern dnnl_status_t cpu_train_add_backward(const CpuOperands *op);
extern dnnl_status_t cpu_train_reparam(const CpuOperands *op);
extern dnnl_status_t cpu_train_reparam_backward(const CpuOperands *op);
extern dnnl_status_t cpu_train_loss(const CpuOperands *op);
extern dnnl_status_t cpu_train_loss_backward(const CpuOperands *op);

/* cpu_train.c */
extern const NnTrainDevice cpu_train_device;

#endif							/* BICYCLE_NN_CPU_TRAIN_H */
