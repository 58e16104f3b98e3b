/*
 * filter.cuh
 *	  A parameter's numbers, (O, I, taps), as a filter of convolutions, (K,
 *	  taps, C), through shared memory.
 */
#ifndef BICYCLE_KERNELS_FILTER_CUH
#define BICYCLE_KERNELS_FILTER_CUH

#include "common.cuh"
#include "step.h"

/*
 * One unused number after 32: those a filter's 16 taps apart are in other
 * banks.
 */
#define FILTER_SHARED (KERNEL_PIECE + KERNEL_PIECE / 32)

KERNEL_LOCAL int
filter_shared(int i)
{
	return i + i / 32;
}

/* Numbers that a piece has at most: whole taps. */
static inline int
filter_piece(int taps)
{
	return KERNEL_PIECE / taps * taps;
}

/* Where tap `tap` of row (o, i) of the parameter is in the filter. */
KERNEL_LOCAL size_t
filter_place(const KernelFilter *f, size_t o, int i, int tap)
{
	return (o * f->taps + tap) * f->map.pitch + i;
}

/* Writes `count` numbers of the parameter from `first` on, as a block. */
KERNEL_LOCAL void
store_filter(const KernelFilter *f, size_t first, int count, const float *numbers)
{
	int rows = count / f->taps;

	for (int j = threadIdx.x; j < count; j += blockDim.x)
	{
		int tap = j / rows, r = j % rows;
		size_t row = first / f->taps + r;
		int i = (int) (row % f->inputs);

		if (i < f->c)
			store_element(&f->map, filter_place(f, row / f->inputs, i, tap),
						  numbers[filter_shared(r * f->taps + tap)]);
	}
}

#endif /* BICYCLE_KERNELS_FILTER_CUH */
