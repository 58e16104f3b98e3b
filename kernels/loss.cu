/*
 * loss.cu
 *	  Losses, the sample of a posterior, and their gradients.
 *
 * Traffic: each map is read once, a gradient is written once. A loss of more
 * than LOSS_BLOCK vectors is summed by up to LOSS_BLOCKS blocks, whose sums a
 * second kernel adds. Terms are float, sums double: few enough not to be seen
 * on cards that have little of it.
 *
 * Source: criterionGAN, criterionL1, criterionZ and the KL term of the official
 * code.
 */
#include "train_ops.cuh"

#define LOSS_BLOCK (8 * KERNEL_THREADS) /* vectors of a block, if there are few */
#define LOSS_BLOCKS 256

typedef struct Loss
{
	KernelLoss l;
	KernelGrid grid;
	unsigned blocks;
} Loss;

typedef struct PosteriorSample
{
	KernelSample s;
	KernelGrid grid;
} PosteriorSample;

/* ---- Terms --------------------------------------------------------------- */

KERNEL_LOCAL float
loss_term(const KernelLoss *l, float x, float other)
{
	switch (l->kind)
	{
		case KERNEL_LSGAN:
			return (x - l->target) * (x - l->target);
		case KERNEL_VANILLA:
			return fmaxf(x, 0.0f) - x * l->target + log1pf(expf(-fabsf(x)));
		case KERNEL_L1:
			return fabsf(x - other);
		case KERNEL_KL:
			break;
	}
	return 0.5f * (x * x + (expm1f(other) - other));
}

KERNEL_LOCAL float
loss_slope(const KernelLoss *l, float x, float other)
{
	switch (l->kind)
	{
		case KERNEL_LSGAN:
			return 2.0f * (x - l->target);
		case KERNEL_VANILLA:
			return 1.0f / (1.0f + expf(-x)) - l->target;
		case KERNEL_L1:
			return x > other ? 1.0f : x < other ? -1.0f : 0.0f;
		case KERNEL_KL:
			break;
	}
	return x;
}

/* ---- Sums ---------------------------------------------------------------- */

/* A block's sum: the loss, if there is one block only. */
KERNEL(loss_sums, Loss)
{
	__shared__ double s[KERNEL_THREADS];
	const KernelLoss *l = &a.l;
	double sum = 0;

	for (size_t t = (size_t) blockIdx.x * KERNEL_THREADS + threadIdx.x; t < a.grid.vectors;
		 t += (size_t) a.blocks * KERNEL_THREADS)
	{
		size_t pixel = t / a.grid.chunks;
		int c0 = (int) (t % a.grid.chunks) * KERNEL_VECTOR;
		float x[KERNEL_VECTOR], other[KERNEL_VECTOR];

		load_vector(&l->x, pixel, c0, l->c, x);
		if (l->other.data)
			load_vector(&l->other, pixel, c0, l->c, other);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (c0 + i < l->c)
				sum += (double) loss_term(l, x[i], l->other.data ? other[i] : 0.0f);
	}
	sum = sum_block(s, sum);
	if (threadIdx.x > 0)
		return;
	if (a.blocks == 1)
		*l->value = (float) (l->factor * sum);
	else
		((double *) l->workspace)[blockIdx.x] = sum;
}

KERNEL(loss_total, Loss)
{
	__shared__ double s[KERNEL_THREADS];
	const double *sums = (const double *) a.l.workspace;
	double sum = sum_block(s, threadIdx.x < a.blocks ? sums[threadIdx.x] : 0);

	if (threadIdx.x == 0)
		*a.l.value = (float) (a.l.factor * sum);
}

KERNEL(loss_backward, Loss)
{
	const KernelLoss *l = &a.l;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float x[KERNEL_VECTOR], other[KERNEL_VECTOR], factor = (float) l->factor;

	if (t >= a.grid.vectors)
		return;
	load_vector(&l->x, pixel, c0, l->c, x);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		other[i] = 0.0f;
	if (l->other.data)
		load_vector(&l->other, pixel, c0, l->c, other);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		x[i] = factor * loss_slope(l, x[i], other[i]);
		other[i] = factor * 0.5f * expm1f(other[i]);
	}
	if (l->dx.map.data)
		store_gradient(KERNEL_ANY, &l->dx, pixel, c0, l->c, x);
	if (l->dother.map.data)
		store_gradient(KERNEL_ANY, &l->dother, pixel, c0, l->c, other);
}

static inline unsigned
loss_blocks(size_t pixels, int c)
{
	size_t blocks = (pixels * kernel_chunks(c) + LOSS_BLOCK - 1) / LOSS_BLOCK;

	return blocks < LOSS_BLOCKS ? (unsigned) blocks : LOSS_BLOCKS;
}

KERNEL_API size_t
kernel_loss_floats(size_t pixels, int c)
{
	return loss_blocks(pixels, c) == 1 ? 0
									   : loss_blocks(pixels, c) * (sizeof(double) / sizeof(float));
}

KERNEL_API int
kernel_loss(void *stream, const KernelLoss *loss)
{
	Loss a = { *loss, kernel_grid(loss->pixels, loss->c), loss_blocks(loss->pixels, loss->c) };
	int error;

	if (a.grid.vectors == 0)
		return KERNEL_TOO_LARGE;
	error = KERNEL_LAUNCH(loss_sums, a.blocks, 1, 1, KERNEL_THREADS, stream, a);
	if (error != 0 || a.blocks == 1)
		return error;
	return KERNEL_LAUNCH(loss_total, 1, 1, 1, KERNEL_THREADS, stream, a);
}

KERNEL_API int
kernel_loss_backward(void *stream, const KernelLoss *loss)
{
	Loss a = { *loss, kernel_grid(loss->pixels, loss->c), 0 };

	return KERNEL_LAUNCH_GRID(loss_backward, stream, a);
}

/* ---- The sample of a posterior ------------------------------------------- */

KERNEL(posterior_sample, PosteriorSample)
{
	const KernelSample *s = &a.s;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float mu[KERNEL_VECTOR], logvar[KERNEL_VECTOR], eps[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_vector(&s->mu, pixel, c0, s->c, mu);
	load_vector(&s->logvar, pixel, c0, s->c, logvar);
	load_vector(&s->eps, pixel, c0, s->c, eps);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		mu[i] += eps[i] * expf(0.5f * logvar[i]);
	store_vector(&s->z, pixel, c0, s->c, mu);
}

KERNEL(posterior_backward, PosteriorSample)
{
	const KernelSample *s = &a.s;
	unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
	int c0;
	unsigned pixel = grid_place(&a.grid, t, &c0);
	float dz[KERNEL_VECTOR], logvar[KERNEL_VECTOR], eps[KERNEL_VECTOR];

	if (t >= a.grid.vectors)
		return;
	load_vector(&s->dz, pixel, c0, s->c, dz);
	load_vector(&s->logvar, pixel, c0, s->c, logvar);
	load_vector(&s->eps, pixel, c0, s->c, eps);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		eps[i] *= 0.5f * dz[i] * expf(0.5f * logvar[i]);
	if (s->dmu.map.data)
		store_gradient(KERNEL_ANY, &s->dmu, pixel, c0, s->c, dz);
	if (s->dlogvar.map.data)
		store_gradient(KERNEL_ANY, &s->dlogvar, pixel, c0, s->c, eps);
}

KERNEL_API int
kernel_sample(void *stream, const KernelSample *sample_args)
{
	PosteriorSample a = { *sample_args, kernel_grid(sample_args->pixels, sample_args->c) };

	return KERNEL_LAUNCH_GRID(posterior_sample, stream, a);
}

KERNEL_API int
kernel_sample_backward(void *stream, const KernelSample *sample_args)
{
	PosteriorSample a = { *sample_args, kernel_grid(sample_args->pixels, sample_args->c) };

	return KERNEL_LAUNCH_GRID(posterior_backward, stream, a);
}
