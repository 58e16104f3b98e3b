/*
 * instance_norm.cu
 *	  Instance norm over h * w of each (n, c), no affine, biased variance, eps
 *	  1e-5, then the activations of its one or two readers.
 *
 * Traffic: two reads of x and one write a reader; the second read comes from L2
 * wherever the map of a batch fits there. A block owns up to 64 channels (eight
 * vectors, a 128-byte line in half precision) and some pixels of one image; its
 * 256 threads are eight columns of vectors by 32 rows of pixels.
 *
 * Statistics are a mean and a sum of squared deviations (M2) a channel: each
 * thread makes them of its pixels one by one (Welford), and they are merged in
 * a fixed tree (Chan et al.), so bits depend on the shape alone. All are of x
 * less the image's first pixel: floats near each other are subtracted without
 * error, so a map that is nearly flat keeps its deviations whatever its mean
 * is.
 *
 * Up to SMALL_MAP pixels one block does all of an image's group of channels.
 * Larger maps are split over blocks: one kernel leaves the statistics of each
 * split in the workspace, and each block of the next merges those of its image
 * before it writes its own split.
 *
 * Source: Ulyanov et al. 2016; torch.nn.InstanceNorm2d(affine=False,
 * track_running_stats=False).
 */
#include "common.cuh"

#define EPSILON ((float) NORM_EPSILON)
#define SMALL_MAP 512
#define MIN_SPLIT 128 /* pixels */
#define MAX_SPLITS 64
#define MAX_COLUMNS 8

typedef struct InstanceNorm
{
	KernelFinish f;
	float *partial; /* (n, splits, 2, c): means, then M2 */
	int columns;    /* vectors a block takes side by side: a power of two, at most MAX_COLUMNS */
	int splits;
	int split; /* pixels of one; the last may have fewer */
} InstanceNorm;

/* A block's means and M2, [vector element][thread], and a row's counts. */
typedef struct Moments
{
	float mean[KERNEL_VECTOR][KERNEL_THREADS];
	float m2[KERNEL_VECTOR][KERNEL_THREADS];
	float count[KERNEL_THREADS];
} Moments;

/* Takes the statistics of thread `from` into those of thread `to`. */
KERNEL_LOCAL void
merge_moments(Moments *m, int to, int from)
{
	float total = m->count[to] + m->count[from];
	float share = m->count[from] / total;

	if (m->count[from] == 0.0f)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		float d = m->mean[i][from] - m->mean[i][to];

		m->mean[i][to] += d * share;
		m->m2[i][to] += m->m2[i][from] + d * d * m->count[to] * share;
	}
	m->count[to] = total;
}

/* Merges a block's rows, of `columns` threads, into the first; all call. */
KERNEL_LOCAL void
merge_rows(Moments *m, int columns)
{
	for (int half = KERNEL_THREADS / columns / 2; half > 0; half /= 2)
	{
		__syncthreads();
		if ((int) threadIdx.x < half * columns)
			merge_moments(m, threadIdx.x, threadIdx.x + half * columns);
	}
	__syncthreads();
}

/* x with its latent part, of pixel `at` of image n. */
KERNEL_LOCAL void
load_input(const KernelFinish *f, int n, int at, int c0, float v[KERNEL_VECTOR])
{
	load_vector(&f->x, (size_t) n * f->h * f->w + at, c0, f->c, v);
	if (f->latent)
		add_latent(f, n, at, c0, v);
}

/* The same less the first pixel. */
KERNEL_LOCAL void
load_shifted(const KernelFinish *f, int n, int at, int c0, const float first[KERNEL_VECTOR],
			 float v[KERNEL_VECTOR])
{
	load_input(f, n, at, c0, v);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] -= first[i];
}

/* Statistics of pixels [begin, end) of image n, left in the first row. */
KERNEL_LOCAL void
gather_moments(const InstanceNorm *a, Moments *m, int n, int begin, int end, int c0)
{
	int rows = KERNEL_THREADS / a->columns;
	float first[KERNEL_VECTOR], mean[KERNEL_VECTOR], m2[KERNEL_VECTOR], count = 0.0f;

	load_input(&a->f, n, 0, c0, first);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		mean[i] = m2[i] = 0.0f;
	for (int at = begin + (int) threadIdx.x / a->columns; at < end; at += rows)
	{
		float v[KERNEL_VECTOR], share;

		load_shifted(&a->f, n, at, c0, first, v);
		count += 1.0f;
		share = 1.0f / count;
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
		{
			float d = v[i] - mean[i];

			mean[i] += d * share;
			m2[i] += d * (v[i] - mean[i]);
		}
	}
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		m->mean[i][threadIdx.x] = mean[i];
		m->m2[i][threadIdx.x] = m2[i];
	}
	m->count[threadIdx.x] = count;
	merge_rows(m, a->columns);
}

/* Writes pixels [begin, end), normed by the statistics of the first row. */
KERNEL_LOCAL void
write_normed(const InstanceNorm *a, const Moments *m, int n, int begin, int end, int c0)
{
	int column = threadIdx.x % a->columns;
	int rows = KERNEL_THREADS / a->columns;
	float first[KERNEL_VECTOR], mean[KERNEL_VECTOR], scale[KERNEL_VECTOR], shift[KERNEL_VECTOR];

	load_input(&a->f, n, 0, c0, first);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		mean[i] = m->mean[i][column];
		scale[i] = 1.0f / sqrtf(m->m2[i][column] / m->count[column] + EPSILON);
		shift[i] = 0.0f;
		if (c0 + i < a->f.c && a->f.scale)
			scale[i] *= a->f.scale[c0 + i];
		if (c0 + i < a->f.c && a->f.shift)
			shift[i] = a->f.shift[c0 + i];
	}
	for (int at = begin + (int) threadIdx.x / a->columns; at < end; at += rows)
	{
		float v[KERNEL_VECTOR];

		load_shifted(&a->f, n, at, c0, first, v);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = (v[i] - mean[i]) * scale[i] + shift[i];
		store_outputs(&a->f, (size_t) n * a->f.h * a->f.w + at, c0, v);
	}
}

/* Threads of vectors beyond the last channel load zeros and write nothing. */
KERNEL_LOCAL int
first_channel(const InstanceNorm *a)
{
	return (blockIdx.x * a->columns + threadIdx.x % a->columns) * KERNEL_VECTOR;
}

/* Grid: groups of channels, 1, images. */
KERNEL(instance_norm_small, InstanceNorm)
{
	__shared__ Moments m;
	int c0 = first_channel(&a);
	int pixels = a.f.h * a.f.w;

	gather_moments(&a, &m, blockIdx.z, 0, pixels, c0);
	write_normed(&a, &m, blockIdx.z, 0, pixels, c0);
}

/* Grid of both: groups of channels, splits, images. */
KERNEL(instance_norm_statistics, InstanceNorm)
{
	__shared__ Moments m;
	int c0 = first_channel(&a);
	int begin = blockIdx.y * a.split;
	int end = begin + a.split < a.f.h * a.f.w ? begin + a.split : a.f.h * a.f.w;
	float *partial = a.partial + ((size_t) blockIdx.z * a.splits + blockIdx.y) * 2 * a.f.c;

	gather_moments(&a, &m, blockIdx.z, begin, end, c0);
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if ((int) threadIdx.x < a.columns && c0 + i < a.f.c)
		{
			partial[c0 + i] = m.mean[i][threadIdx.x];
			partial[a.f.c + c0 + i] = m.m2[i][threadIdx.x];
		}
}

KERNEL(instance_norm_apply, InstanceNorm)
{
	__shared__ Moments m;
	int c0 = first_channel(&a);
	int begin = blockIdx.y * a.split;
	int pixels = a.f.h * a.f.w;
	int end = begin + a.split < pixels ? begin + a.split : pixels;
	int rows = KERNEL_THREADS / a.columns;
	int split = threadIdx.x / a.columns;

	/*
	 * a row takes a split, or several: there are at most twice as many as rows
	 */
	m.count[threadIdx.x] = 0.0f;
	for (int i = 0; i < KERNEL_VECTOR; i++)
		m.mean[i][threadIdx.x] = m.m2[i][threadIdx.x] = 0.0f;
	for (; split < a.splits; split += rows)
	{
		const float *partial = a.partial + ((size_t) blockIdx.z * a.splits + split) * 2 * a.f.c;
		float of =
			(float) (split * a.split + a.split < pixels ? a.split : pixels - split * a.split);
		float total = m.count[threadIdx.x] + of;

		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (c0 + i < a.f.c)
			{
				float d = partial[c0 + i] - m.mean[i][threadIdx.x];

				m.mean[i][threadIdx.x] += d * (of / total);
				m.m2[i][threadIdx.x] +=
					partial[a.f.c + c0 + i] + d * d * m.count[threadIdx.x] * (of / total);
			}
		m.count[threadIdx.x] = total;
	}
	merge_rows(&m, a.columns);
	write_normed(&a, &m, blockIdx.z, begin, end, c0);
}

static int
split_size(int pixels)
{
	int split = (pixels + MAX_SPLITS - 1) / MAX_SPLITS;

	return split > MIN_SPLIT ? split : MIN_SPLIT;
}

KERNEL_API size_t
kernel_instance_norm_floats(int n, int h, int w, int c)
{
	int split = split_size(h * w);

	return h * w <= SMALL_MAP ? 0 : (size_t) n * ((h * w + split - 1) / split) * 2 * c;
}

KERNEL_API int
kernel_instance_norm(void *stream, const KernelFinish *finish, float *workspace)
{
	int pixels = finish->h * finish->w;
	int chunks = kernel_chunks(finish->c);
	InstanceNorm a;
	unsigned groups;
	int error;

	if (finish->n > 65535)
		return KERNEL_TOO_LARGE;
	a.f = *finish;
	a.partial = workspace;
	for (a.columns = MAX_COLUMNS; a.columns > chunks; a.columns /= 2)
		;
	a.split = split_size(pixels);
	a.splits = (pixels + a.split - 1) / a.split;
	groups = (chunks + a.columns - 1) / a.columns;
	if (pixels <= SMALL_MAP)
		return KERNEL_LAUNCH(instance_norm_small, groups, 1, finish->n, KERNEL_THREADS, stream, a);
	error = KERNEL_LAUNCH(instance_norm_statistics, groups, a.splits, finish->n, KERNEL_THREADS,
						  stream, a);
	if (error == 0)
		error = KERNEL_LAUNCH(instance_norm_apply, groups, a.splits, finish->n, KERNEL_THREADS,
							  stream, a);
	return error;
}
