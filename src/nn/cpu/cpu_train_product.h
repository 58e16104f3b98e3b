/*
 * cpu_train_product.h
 *	  Matrix products whose operands are laid out while they are multiplied: the
 *	  convolutions of training.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_PRODUCT_H
#define BICYCLE_NN_CPU_TRAIN_PRODUCT_H

#include "nn/cpu/cpu_train_kernels.h"

/* Numbers of k that are laid out at once, at most; a multiple of all lanes */
#define CPU_PRODUCT_DEPTH 256

/*
 * C (m, n) = A (m, k) * B (k, n). The functions say what A and B hold and where
 * C is, in the terms of `context`.
 */
typedef struct CpuProduct
{
	const CpuTrainKernels *kernels;
	int m, n, k;
	bool bf16;   /* A and B are rounded to bfloat16 */
	bool turned; /* how pack_a lays rows: see CpuTrainKernels.multiply */
	const void *context;

	/*
	 * Rows [m0, m0 + m) and columns [k0, k0 + k) of A: blocks of kernels->rows
	 * rows, of which only the last may have fewer
	 */
	void (*pack_a)(const struct CpuProduct *p, int m0, int m, int k0, int k, float *to);

	/* Rows [k0, k0 + k) and columns [n0, n0 + n) of B, n at most a panel */
	void (*pack_b)(const struct CpuProduct *p, int k0, int k, int n0, int n, float *to);
	float *(*row)(const struct CpuProduct *p, int i); /* of C */
	const float *bias;                                /* (n), C begins from it; NULL: from 0 */
	bool add;                                         /* C begins from what is there */
} CpuProduct;

/* Memory that each thread needs, in floats. */
extern size_t cpu_product_memory(void);

/* work: that much for each thread. */
extern void cpu_multiply(const CpuProduct *product, float *work, int threads);

#endif /* BICYCLE_NN_CPU_TRAIN_PRODUCT_H */
