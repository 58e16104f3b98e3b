/*
 * cpu_train_tiles.h
 *	  The products of a window (cpu_train_window.h) that minimal filtering makes
 *	  with fewer multiplications. Each function is false, and nothing is done,
 *	  where it is not for this window.
 */
#ifndef BICYCLE_NN_CPU_TRAIN_TILES_H
#define BICYCLE_NN_CPU_TRAIN_TILES_H

#include "nn/cpu/cpu_train_window.h"

/* y of x, or x of y `across`, as cpu_window_y and cpu_window_x. */
extern bool cpu_tiles_product(const NnOperands *op, const CpuWindow *w, bool across,
							  const float *bias, bool add);
extern bool cpu_tiles_memory(const CpuKernels *kernels, const CpuKernel *kernel, const CpuWindow *w,
							 bool across, CpuTrainMemory *most);

/* As cpu_window_weights. */
extern bool cpu_tiles_weights(const NnOperands *op, const CpuWindow *w);
extern bool cpu_tiles_weights_memory(const CpuKernels *kernels, const CpuKernel *kernel,
									 const CpuWindow *w, CpuTrainMemory *most);

#endif /* BICYCLE_NN_CPU_TRAIN_TILES_H */
