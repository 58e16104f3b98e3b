/*
 * init.c
 *	  Fresh weights, as init_weights of the official networks.py draws them.
 *
 * Weights of convolutions and linear layers follow `init`, their biases are 0;
 * a batch norm has weights N(1, gain^2), bias 0 and the statistics of nothing
 * seen (0 and 1). Parameter k of a network draws from stream (network, k) of
 * the seed, so that a network's weights do not depend on which others the table
 * holds. As in PyTorch, fans are counted from the stored shape, also for
 * transposed convolutions, which are stored the other way round.
 */
#include "nn/nn_error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where the numbers of one parameter come from. */
typedef struct WeightSource
{
	const NnFresh *fresh;
	uint64_t stream;
} WeightSource;

#define STRETCH 16384 /* numbers that a thread draws at once; a multiple of 4 */
#define TOGETHER 64   /* vectors of which each thread takes some */

static bool
may_go_on(const NnFresh *fresh)
{
	return fresh->wanted == NULL || fresh->wanted(fresh->arg);
}

static void
fill_stretch(const WeightSource *source, double mean, double deviation, size_t first, size_t count,
			 float *values)
{
	nn_normal_from(source->fresh->seed, source->stream, (uint32_t) first, (int) count,
				   values + first);
	for (size_t i = first; i < first + count; i++)
		values[i] = (float) (mean + deviation * values[i]);
}

static void
fill_normal(const WeightSource *source, double mean, double deviation, size_t count, float *values)
{
	int threads = source->fresh->threads;

	if (threads == 1 || count < 4 * STRETCH)
	{
		fill_stretch(source, mean, deviation, 0, count, values);
		return;
	}
#pragma omp parallel for schedule(static) num_threads(threads)
	for (size_t first = 0; first < count; first += STRETCH)
		fill_stretch(source, mean, deviation, first,
					 count - first < STRETCH ? count - first : STRETCH, values);
}

/* Eight partial sums in a fixed order, for vector registers. */
static double
dot(const double *a, const double *b, size_t n)
{
	double sums[8] = { 0 };
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		for (int k = 0; k < 8; k++)
			sums[k] += a[i + k] * b[i + k];
	for (; i < n; i++)
		sums[0] += a[i] * b[i];
	return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
		   ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/*
 * Takes from v what lies in the direction of each of the orthonormal vectors
 * `first` to `end`, in their order.
 */
static void
take_out(const double *vectors, size_t first, size_t end, size_t length, double *v)
{
	for (size_t j = first; j < end; j++)
	{
		const double *q = vectors + j * length;
		double projection = dot(q, v, length);

		for (size_t k = 0; k < length; k++)
			v[k] -= projection * q[k];
	}
}

/* v and all that is finished, which are the first n. */
static void
meet(const NnFresh *fresh, const double *vectors, size_t n, size_t length, double *v)
{
	if (may_go_on(fresh))
		take_out(vectors, 0, n, length, v);
}

static void
normalise(double *v, size_t length)
{
	double scale = 1 / sqrt(dot(v, v, length));

	for (size_t k = 0; k < length; k++)
		v[k] *= scale;
}

/*
 * Makes `count` vectors of `length` >= count orthonormal by the modified
 * Gram-Schmidt process. Of Gaussian vectors it gives the uniform distribution
 * over such sets, because the diagonal of R is positive. Each vector meets
 * those before it in their order, however many threads there are: what is
 * finished some of them meet side by side, and each other alone. False: no
 * longer wanted.
 */
static bool
orthonormalise(const NnFresh *fresh, double *vectors, size_t count, size_t length)
{
	for (size_t first = 0; first < count; first += TOGETHER)
	{
		size_t end = count - first < TOGETHER ? count : first + TOGETHER;

		if (fresh->threads == 1)
			for (size_t i = first; i < end; i++)
				meet(fresh, vectors, first, length, vectors + i * length);
		else
#pragma omp parallel for schedule(dynamic) num_threads(fresh->threads)
			for (size_t i = first; i < end; i++)
				meet(fresh, vectors, first, length, vectors + i * length);
		if (!may_go_on(fresh))
			return false;
		for (size_t i = first; i < end; i++)
		{
			take_out(vectors, first, i, length, vectors + i * length);
			normalise(vectors + i * length, length);
		}
	}
	return true;
}

/* The rows, or columns if they are fewer, become orthonormal times gain. */
static NnStatus
fill_orthogonal(const WeightSource *source, size_t rows, size_t columns, float *values,
				NnError *error)
{
	bool by_rows = rows <= columns;
	size_t count = by_rows ? rows : columns, length = by_rows ? columns : rows,
		   bytes = nn_mul(nn_mul(rows, columns), sizeof(double));
	double *vectors = malloc(bytes);

	if (!vectors)
		return nn_no_memory(error, bytes);
	fill_normal(source, 0, 1, rows * columns, values);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < length; k++)
			vectors[i * length + k] = by_rows ? values[i * columns + k] : values[k * columns + i];
	if (!orthonormalise(source->fresh, vectors, count, length))
	{
		free(vectors);
		return nn_fail(error, NN_EINVAL, "fresh weights are no longer wanted");
	}
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < length; k++)
			values[by_rows ? i * columns + k : k * columns + i] =
				(float) (source->fresh->gain * vectors[i * length + k]);
	free(vectors);
	return NN_OK;
}

static NnStatus
fill_weight(const NnParam *p, const WeightSource *source, float *values, NnError *error)
{
	double field = (double) p->count / (p->shape[0] * p->shape[1]);
	double fan_in = field * p->shape[1], fan_out = field * p->shape[0], gain = source->fresh->gain;

	switch (source->fresh->init)
	{
		case NN_INIT_XAVIER:
			fill_normal(source, 0, gain * sqrt(2 / (fan_in + fan_out)), p->count, values);
			break;
		case NN_INIT_NORMAL:
			fill_normal(source, 0, gain, p->count, values);
			break;
		case NN_INIT_KAIMING:
			fill_normal(source, 0, sqrt(2 / fan_in), p->count, values);
			break;
		case NN_INIT_ORTHOGONAL:
			return fill_orthogonal(source, p->shape[0], p->count / p->shape[0], values, error);
	}
	return NN_OK;
}

static bool
ends_with(const char *name, const char *end)
{
	size_t length = strlen(name);

	return length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

NnStatus
nn_param_init(const NnParams *params, int index, const NnFresh *fresh, float *values,
			  NnError *error)
{
	const NnParam *p = &params->list[index];
	uint64_t place = 0; /* within its network */
	WeightSource source = { .fresh = fresh };

	for (int i = index; i > 0 && params->list[i - 1].network == p->network; i--)
		place++;
	source.stream = (uint64_t) p->network << 32 | place;
	if (p->ndim > 1)
		return fill_weight(p, &source, values, error);
	if (!p->buffer && ends_with(p->name, ".weight"))
		fill_normal(&source, 1, fresh->gain, p->count, values);
	else
		for (size_t k = 0; k < p->count; k++)
			values[k] = ends_with(p->name, ".running_var") ? 1 : 0;
	return NN_OK;
}
