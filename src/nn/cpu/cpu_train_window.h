/*
 * cpu_train_window.h
 *	  What a convolution of training has three of: products between a map that
 *	  windows slide over, a map with a pixel a window, and weights.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_WINDOW_H
#define BICYCLE_NN_CPU_TRAIN_WINDOW_H

#include "nn/cpu/cpu_run.h"
#include "nn/cpu/cpu_train.h"

/* Weights are [tap][C + nz][O]: C channels of x, O of y. */
typedef struct CpuWindow
{
	int kernel, stride, pad;
	NnMap x, y; /* x is the side of windows */
	int nz;     /* channels of a latent, which belong to no product */
} CpuWindow;

extern CpuWindow cpu_window_of(const NnNode *node, NnMap x, NnMap y, int nz);

/* A map as products read it; a product's threads; the calling one's memory. */
extern CpuValue cpu_map_value(const NnMap *map);
extern int cpu_window_team(const NnOperands *op, const CpuWindow *w);
extern char *cpu_own_work(const CpuTraining *training);

/*
 * y = the sums of x * weights, with the bias unless NULL, or `add`ed to y.
 * Memory: raises `most` to what this (or x of y, `across`) needs.
 */
extern void cpu_window_y(const NnOperands *op, const CpuWindow *w, const float *bias, bool add);
extern void cpu_window_memory(const CpuKernel *kernel, const CpuWindow *w, bool across,
							  CpuTrainMemory *most);

/* x = the sums of y * weights over the windows that a pixel is in; likewise. */
extern void cpu_window_x(const NnOperands *op, const CpuWindow *w, const float *bias, bool add);

/* The weights' gradient, with y that of a result; but those of a latent. */
extern void cpu_window_weights(const NnOperands *op, const CpuWindow *w);
extern void cpu_window_weights_memory(const CpuKernel *kernel, const CpuWindow *w,
									  CpuTrainMemory *most);

#endif /* BICYCLE_NN_CPU_TRAIN_WINDOW_H */
