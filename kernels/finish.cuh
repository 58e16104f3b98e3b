/*
 * finish.cuh
 *	  What bias_act.cu and instance_norm.cu share: reading a convolution's
 *	  result with its latent part, and writing the activations of its readers.
 *
 * Instructions are what counts here, not only memory: a multiprocessor has some
 * 250 to spend on 16 bytes of a warp's lane before it is slower than the
 * memory. So an activation is chosen once a vector, elements of half precision
 * are packed and unpacked by pairs, types are known when it is compiled
 * (KERNEL_TYPED), and nothing is divided.
 */
#ifndef BICYCLE_KERNELS_FINISH_CUH
#define BICYCLE_KERNELS_FINISH_CUH

#include "common.cuh"

#define FINISH_FLIGHT 4 /* vectors that a thread has loaded before it uses the first */

static inline KernelAccess
finish_access(const KernelFinish *f)
{
	const KernelMap *maps[] = { &f->x, f->out[0].map.data ? &f->out[0].map : NULL,
								f->out[1].map.data ? &f->out[1].map : NULL };

	return kernel_access(maps, 3, f->c);
}

/*
 * Where in f->x channels [c0, c0 + 8) of pixel `at` of image n begin, in
 * elements: the one place that knows where the pixels of x lie.
 */
KERNEL_LOCAL size_t
finish_source(const KernelFinish *f, int n, unsigned at, int c0)
{
	return ((size_t) n * (f->h * f->w) + at) * f->x.pitch + c0;
}

KERNEL_LOCAL KernelRaw
finish_load(const KernelFinish *f, KernelAccess access, int n, unsigned at, int c0)
{
	return load_raw(access, &f->x, finish_source(f, n, at, c0), f->c - c0);
}

KERNEL_LOCAL int
axis_class(const KernelAxis *axis, int position)
{
	int k = 0;

#pragma unroll
	for (int i = 1; i < KERNEL_CLASSES; i++)
		k += position >= axis->first[i] && i < axis->n;
	return k;
}

/*
 * Adds what the latent code of image n gives at pixel `at`, where it gives
 * anything, to [c0, c0 + 8).
 */
KERNEL_LOCAL void
add_latent(const KernelFinish *f, KernelAccess access, KernelDivisor width, int n, unsigned at,
		   int c0, float v[KERNEL_VECTOR])
{
	unsigned y = quotient(width, at);
	int k = axis_class(&f->rows, (int) y) * f->columns.n +
			axis_class(&f->columns, (int) (at - y * width.by));
	float latent[KERNEL_VECTOR];

	if (k == f->centre)
		return;
	load_numbers(access, f->latent + ((size_t) n * f->rows.n * f->columns.n + k) * f->c + c0,
				 f->c - c0, latent);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] += latent[i];
}

/* One activation of eight channels, of which `count` matter. */
KERNEL_LOCAL void
act_vector(NnActKind kind, int count, float v[KERNEL_VECTOR])
{
	switch (kind)
	{
		case NN_ACT_NONE:
			break;
		case NN_ACT_RELU:
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] = nn_act(NN_ACT_RELU, v[i]);
			break;
		case NN_ACT_LRELU:
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] = nn_act(NN_ACT_LRELU, v[i]);
			break;
		case NN_ACT_ELU:
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] = i < count ? nn_act(NN_ACT_ELU, v[i]) : 0.0f;
			break;
		case NN_ACT_TANH:
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] = i < count ? nn_act(NN_ACT_TANH, v[i]) : 0.0f;
			break;
	}
}

/* Writes channels [c0, c0 + 8) of a pixel for each reader. */
KERNEL_LOCAL void
store_outputs(const KernelFinish *f, KernelAccess access, size_t pixel, int c0,
			  const float v[KERNEL_VECTOR])
{
	int count = access == KERNEL_ANY ? f->c - c0 : KERNEL_VECTOR;

#pragma unroll
	for (int k = 0; k < 2; k++)
	{
		float y[KERNEL_VECTOR];

		if (!f->out[k].map.data)
			continue;
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			y[i] = v[i];
#pragma unroll 1
		for (int i = 0; i < 2; i++)
			act_vector(i == 0 ? f->out[k].act.first : f->out[k].act.second, count, y);
		store_typed(access, &f->out[k].map, pixel, c0, f->c, y);
	}
}

#endif /* BICYCLE_KERNELS_FINISH_CUH */
