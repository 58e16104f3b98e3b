/*
 * filter.cu
 *	  Parameters of convolutions to filters, and gradients of filters to those
 *	  of parameters.
 *
 * Traffic: each number is read and written once, and where a gradient is added
 * to read once more. Both sides are side by side: a block's numbers change
 * their order in shared memory.
 */
#include "filter.cuh"

typedef struct OrderFilter
{
	const float *param;
	KernelFilter filter;
	size_t count; /* numbers of the parameter */
	int piece;
} OrderFilter;

KERNEL(order_param, OrderFilter)
{
	__shared__ float numbers[FILTER_SHARED];
	size_t first = (size_t) blockIdx.x * a.piece;
	int count = a.count - first < (size_t) a.piece ? (int) (a.count - first) : a.piece;

	for (int i = threadIdx.x; i < count; i += blockDim.x)
		numbers[filter_shared(i)] = a.param[first + i];
	__syncthreads();
	store_filter(&a.filter, first, count, numbers);
}

KERNEL_API int
kernel_order_filter(void *stream, const float *param, const KernelFilter *filter, int k)
{
	OrderFilter a = { param, *filter, (size_t) k * filter->inputs * filter->taps,
					  filter_piece(filter->taps) };

	return KERNEL_LAUNCH(order_param, (unsigned) ((a.count + a.piece - 1) / a.piece), 1, 1,
						 KERNEL_THREADS, stream, a);
}

typedef struct FilterGradient
{
	float *gradient;
	KernelFilter filter;
	size_t count; /* numbers of the filter that are the parameter's */
	int piece;
	bool add;
} FilterGradient;

KERNEL(filter_gradient, FilterGradient)
{
	__shared__ float numbers[FILTER_SHARED];
	const KernelFilter *f = &a.filter;
	size_t first = (size_t) blockIdx.x * a.piece;
	int count = a.count - first < (size_t) a.piece ? (int) (a.count - first) : a.piece,
		rows = count / f->taps;

	for (int j = threadIdx.x; j < count; j += blockDim.x)
	{
		int tap = j / rows, r = j % rows;
		size_t row = first / f->taps + r;

		numbers[filter_shared(r * f->taps + tap)] =
			load_element(&f->map, filter_place(f, row / f->c, (int) (row % f->c), tap));
	}
	__syncthreads();
	for (int i = threadIdx.x; i < count; i += blockDim.x)
	{
		size_t row = first / f->taps + i / f->taps;
		float *to = a.gradient + (row / f->c * f->inputs + row % f->c) * f->taps + i % f->taps;

		*to = numbers[filter_shared(i)] + (a.add ? *to : 0.0f);
	}
}

KERNEL_API int
kernel_filter_gradient(void *stream, float *gradient, const KernelFilter *filter, int k, bool add)
{
	FilterGradient a = { gradient, *filter, (size_t) k * filter->c * filter->taps,
						 filter_piece(filter->taps), add };

	return KERNEL_LAUNCH(filter_gradient, (unsigned) ((a.count + a.piece - 1) / a.piece), 1, 1,
						 KERNEL_THREADS, stream, a);
}
