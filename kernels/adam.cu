/*
 * adam.cu
 *	  The update of all parameters in one launch: Adam, running statistics,
 *	  averages, and the filters that convolutions read.
 *
 * Traffic: a parameter, both its moments and its gradient are read once, all
 * but the gradient written once, in fp32; with averages 8 bytes more; and its
 * filter is written: 28 to 38 bytes a number, for the 64 million of the
 * official networks 2.4 GB, half a millisecond of an H100. A block takes a
 * piece of a parameter, whose new numbers go through shared memory, as the
 * filter has them in another order: it is read and written side by side in
 * both.
 *
 * Source: Kingma and Ba 2015, as PyTorch rounds it.
 */
#include "filter.cuh"

KERNEL_LOCAL float
adam_number(const KernelUpdate *a, const KernelStep *s, size_t at)
{
	float g = a->gradient[at], m = a->m[at], v = a->v[at];

	m += s->first * (g - m);
	v = s->second * v + s->rest * g * g;
	a->m[at] = m;
	a->v[at] = v;
	return a->param[at] - s->step * m / (sqrtf(v) * s->root + s->epsilon);
}

KERNEL(update_params, KernelUpdate)
{
	__shared__ float numbers[FILTER_SHARED];
	const KernelPiece piece = a.pieces[blockIdx.x];
	const KernelParam *param = &a.params[piece.param];
	size_t first = param->first + piece.first;
	bool update = a.step && a.verdict->diverged == 0;

	for (int i = threadIdx.x; i < piece.count; i += blockDim.x)
	{
		size_t at = first + i;
		float p = update && param->trained   ? adam_number(&a, a.step, at)
				  : update && param->running ? a.gradient[at]
											 : a.param[at];

		if (update && (param->trained || param->running))
			a.param[at] = p;
		if (update && at < a.nema)
			a.ema[at] += a.step->ema * (p - a.ema[at]);
		numbers[filter_shared(i)] = p;
	}
	if (!param->filter.map.data)
		return; /* the whole block */
	__syncthreads();
	store_filter(&param->filter, piece.first, piece.count, numbers);
}

KERNEL_API int
kernel_update(void *stream, const KernelUpdate *update)
{
	return update->npieces == 0 ? 0
								: KERNEL_LAUNCH(update_params, update->npieces, 1, 1,
												KERNEL_THREADS, stream, *update);
}
