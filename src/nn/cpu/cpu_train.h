/*
 * cpu_train.h
 *	  Training on the CPU: what cpu_train.c, which runs the steps of a schedule,
 *	  shares with the operators.
 *
 * R1 Everything is fp32, sums over pixels are in double. With precision bf16
 *    the operands of convolutions (inputs, weights, gradients of outputs) are
 *    rounded to bfloat16, and their products summed in fp32.
 * R2 Each sum is made by one thread, in an order that follows from its shape
 *    alone: the same bits for any number of threads.
 * R3 Arrays hold convolutions' weights as products read them, [tap][C][O]; get
 *    and put turn them round.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_H
#define BICYCLE_NN_CPU_TRAIN_H

#include "nn/cpu/cpu.h"
#include "nn/cpu/cpu_team.h"
#include "nn/cpu/cpu_train_kernels.h"
#include "nn/training.h"

/* What operators need besides the arena and the arrays, in bytes. */
typedef struct CpuTrainMemory
{
	size_t shared, each; /* of products: the team's, and each thread's */
	size_t latents;
} CpuTrainMemory;

/* What belongs to an NnTraining here: its plan's device_state. */
typedef struct CpuTraining
{
	const CpuKernels *kernels;
	const CpuKernel *kernel; /* of products */
	bool bf16;               /* operands of products are rounded to bfloat16 */
	CpuTrainMemory memory;
	char *shared, *work; /* of products; work for each of nwork threads */
	int nwork;
	float *latents; /* of convolutions with a latent */
	bool *turned;   /* one a parameter: its array holds [tap][C][O] */
	CpuTeam team;
	double began, worked; /* when the pass did, and time of processors by then, s */
} CpuTraining;

static inline const CpuTraining *
cpu_training(const NnOperands *op)
{
	return op->training->plan.device_state;
}

/* Channels that are worked on at once. */
#define CPU_TRAIN_BLOCK 16

/* The threads of this pass. */
static inline int
cpu_threads(const NnOperands *op)
{
	return cpu_training(op)->team.size;
}

/* Threads for so many simple operations: waking others costs, too. */
static inline int
cpu_team(const NnOperands *op, size_t operations)
{
	return operations < 16384 ? 1 : cpu_threads(op);
}

/* cpu_train_conv.c */
#define CPU_TRAIN_KERNEL 4 /* the largest; of all networks */
extern void cpu_conv_memory(const CpuKernels *kernels, const CpuKernel *kernel, const NnGraph *g,
							const NnNode *node, CpuTrainMemory *most);

/* The operators: cpu_train_conv.c, cpu_train_norm.c, cpu_train_ops.c. */
#define CPU_TRAIN_DECLARE(OP, name) NN_DECLARE_STEPS(cpu_train_##name, cpu_train_##name##_backward)
NN_OPERATORS(CPU_TRAIN_DECLARE, CPU_TRAIN_DECLARE, NN_DECLARE_NONE)

/* cpu_train.c */
extern const NnTrainDevice cpu_train_device;

#endif /* BICYCLE_NN_CPU_TRAIN_H */
