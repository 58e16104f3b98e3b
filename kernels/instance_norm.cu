/*
 * instance_norm.cu
 *	  Instance norm over h * w of each (n, c), biased variance, eps 1e-5, then
 *	  the activations of its one or two readers.
 *
 * Statistics are a mean and a sum of squared deviations (M2) a channel: each
 * thread makes them of its pixels one by one (Welford), and they are merged in
 * a fixed tree (Chan et al.), so bits depend on the shape alone. All are of x
 * less the image's first pixel: floats near each other are subtracted without
 * error, so a map that is nearly flat keeps its deviations whatever its mean
 * is.
 *
 * A block's threads are columns of vectors by rows of pixels. How an image is
 * cut depends on its size alone, never on the batch, or bits would:
 *
 *	small	up to 512 pixels: a block has two columns, which is a sector of
 *			memory in half precision, and all pixels. They stay in registers
 *			between statistics and writing: x is read once.
 *	cluster	up to 16384: the same, but a cluster of eight blocks has the
 *			pixels, and each of them merges what all have found. Beyond 4096
 *			registers do not hold them, and x is read again, from L1. Where
 *			the GPU has clusters, and the code is for it.
 *	split	others: eight columns, a 128-byte line; one kernel leaves the
 *			statistics of each split in the workspace, and each block of the
 *			next merges those of its image before it writes its own split. x
 *			is read twice, the second time from L2 wherever the map of a
 *			batch fits there.
 *
 * Source: Ulyanov et al. 2016; torch.nn.InstanceNorm2d(affine=False,
 * track_running_stats=False).
 */
#include "finish.cuh"

#define EPSILON ((float) NORM_EPSILON)
#define FEW_COLUMNS 2
#define MOST_COLUMNS 8
#define HELD_PIXELS (KERNEL_THREADS / FEW_COLUMNS * FINISH_FLIGHT) /* by a block's registers */
#define SMALL_MAP HELD_PIXELS
#define CLUSTER 8
#define CLUSTER_MAP (4 * CLUSTER * HELD_PIXELS)
#define MIN_SPLIT 128 /* pixels */
#define MAX_SPLITS 64

typedef struct InstanceNorm
{
	KernelFinish f;
	FinishInside inside;
	float *partial;   /* (n, splits, 2, c): means, then M2 */
	int column_bits;  /* a block takes 2^that vectors side by side */
	int splits;       /* of an image */
	int split;        /* pixels of one; the last may have fewer, or none */
	int merging_rows; /* of threads, that merge splits: a power of two */
} InstanceNorm;

/* ---- What a thread does -------------------------------------------------- */

/* Pixels at, at + step, ... below end; channels [c0, c0 + 8). */
typedef struct NormShare
{
	int n, c0, at, end, step;
} NormShare;

/* Threads of vectors beyond the last channel have no pixels. */
KERNEL_LOCAL NormShare
norm_share(const InstanceNorm *a)
{
	int thread = (int) threadIdx.x, columns = 1 << a->column_bits, pixels = a->f.h * a->f.w;
	int begin = (int) blockIdx.y * a->split;
	NormShare s;

	s.n = (int) blockIdx.z;
	s.c0 = ((int) blockIdx.x * columns + (thread & (columns - 1))) * KERNEL_VECTOR;
	s.at = begin + (thread >> a->column_bits);
	s.end = s.c0 >= a->f.c ? 0 : begin + a->split < pixels ? begin + a->split : pixels;
	s.step = (int) blockDim.x >> a->column_bits;
	KERNEL_HOLD(s.n);
	KERNEL_HOLD(s.c0);
	KERNEL_HOLD(s.end);
	KERNEL_HOLD(s.step);
	return s;
}

KERNEL_LOCAL void
load_flight(const InstanceNorm *a, KernelAccess access, const NormShare *s, int from,
			KernelRaw raw[FINISH_FLIGHT])
{
#pragma unroll
	for (int k = 0; k < FINISH_FLIGHT; k++)
		if (from + k * s->step < s->end)
			raw[k] = finish_load(&a->f, access, a->inside.width, s->n,
								 (unsigned) (from + k * s->step), s->c0);
}

/* x with its latent part. */
KERNEL_LOCAL void
norm_input(const InstanceNorm *a, KernelAccess access, const NormShare *s, int at,
		   const KernelRaw *raw, float v[KERNEL_VECTOR])
{
	unpack_raw(access, raw, v);
	if (a->f.latent)
		add_latent(&a->f, access, &a->inside, s->n, (unsigned) at, s->c0, v);
}

/* The image's first pixel, which all others are seen from. */
KERNEL_LOCAL void
load_first(const InstanceNorm *a, KernelAccess access, const NormShare *s,
		   float first[KERNEL_VECTOR])
{
	KernelRaw raw;

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		first[i] = 0.0f;
	if (s->at >= s->end)
		return;
	raw = finish_load(&a->f, access, a->inside.width, s->n, 0, s->c0);
	norm_input(a, access, s, 0, &raw, first);
}

/* ---- Statistics ---------------------------------------------------------- */

/* Of the pixels that a thread has seen. */
typedef struct Running
{
	float mean[KERNEL_VECTOR], m2[KERNEL_VECTOR], count;
} Running;

KERNEL_LOCAL void
start_running(Running *r)
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		r->mean[i] = r->m2[i] = 0.0f;
	r->count = 0.0f;
}

KERNEL_LOCAL void
take_flight(const InstanceNorm *a, KernelAccess access, const NormShare *s, int from,
			const float first[KERNEL_VECTOR], const KernelRaw raw[FINISH_FLIGHT], Running *r)
{
#pragma unroll
	for (int k = 0; k < FINISH_FLIGHT; k++)
	{
		int at = from + k * s->step;
		float v[KERNEL_VECTOR], share;

		if (at >= s->end)
			break;
		norm_input(a, access, s, at, &raw[k], v);
		r->count += 1.0f;
		share = 1.0f / r->count;
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
		{
			float x = v[i] - first[i], d = x - r->mean[i];

			r->mean[i] += d * share;
			r->m2[i] += d * (x - r->mean[i]);
		}
	}
}

/* A block's means and M2, [vector element][thread], and a thread's counts. */
typedef struct Moments
{
	float mean[KERNEL_VECTOR][KERNEL_THREADS];
	float m2[KERNEL_VECTOR][KERNEL_THREADS];
	float count[KERNEL_THREADS];
} Moments;

KERNEL_LOCAL void
keep_running(Moments *m, const Running *r)
{
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		m->mean[i][threadIdx.x] = r->mean[i];
		m->m2[i][threadIdx.x] = r->m2[i];
	}
	m->count[threadIdx.x] = r->count;
}

/* Takes the statistics of thread `from` into those of thread `to`. */
KERNEL_LOCAL void
merge_moments(Moments *m, int to, int from)
{
	float total, share;

	if (m->count[from] == 0.0f)
		return;
	total = m->count[to] + m->count[from];
	share = m->count[from] / total;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
	{
		float d = m->mean[i][from] - m->mean[i][to];

		m->mean[i][to] += d * share;
		m->m2[i][to] += m->m2[i][from] + d * d * m->count[to] * share;
	}
	m->count[to] = total;
}

/* Merges so many rows, a power of two, into the first; all threads call. */
KERNEL_LOCAL void
merge_rows(Moments *m, int rows, int column_bits)
{
	for (int half = rows / 2; half > 0; half /= 2)
	{
		__syncthreads();
		if ((int) threadIdx.x < half << column_bits)
			merge_moments(m, (int) threadIdx.x, (int) threadIdx.x + (half << column_bits));
	}
	__syncthreads();
}

KERNEL_LOCAL size_t
partial_at(const InstanceNorm *a, const NormShare *s, int split)
{
	return ((size_t) s->n * a->splits + split) * 2 * a->f.c + s->c0;
}

/* Leaves the first row of a split for all blocks of the image. */
KERNEL_LOCAL void
store_partial(const InstanceNorm *a, const NormShare *s, const Moments *m)
{
	float *partial = a->partial + partial_at(a, s, (int) blockIdx.y);

	if (threadIdx.x >> a->column_bits != 0)
		return;
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (s->c0 + i < a->f.c)
		{
			partial[i] = m->mean[i][threadIdx.x];
			partial[a->f.c + i] = m->m2[i][threadIdx.x];
		}
}

/* Those of all splits of the image, in the first row; all threads call. */
KERNEL_LOCAL void
merge_partials(const InstanceNorm *a, KernelAccess access, const NormShare *s, Moments *m)
{
	int row = (int) threadIdx.x >> a->column_bits, pixels = a->f.h * a->f.w;
	Running r;

	start_running(&r);
	for (int split = row; row < a->merging_rows && split < a->splits; split += a->merging_rows)
	{
		const float *partial = a->partial + partial_at(a, s, split);
		int left = pixels - split * a->split;
		float of = (float) (left > a->split ? a->split : left), share;
		float mean[KERNEL_VECTOR], m2[KERNEL_VECTOR];

		if (left <= 0 || s->c0 >= a->f.c)
			break;
		load_numbers(access, partial, a->f.c - s->c0, mean);
		load_numbers(access, partial + a->f.c, a->f.c - s->c0, m2);
		share = of / (r.count + of);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
		{
			float d = mean[i] - r.mean[i];

			r.mean[i] += d * share;
			r.m2[i] += m2[i] + d * d * r.count * share;
		}
		r.count += of;
	}
	keep_running(m, &r);
	merge_rows(m, a->merging_rows, a->column_bits);
}

/* ---- Writing ------------------------------------------------------------- */

/*
 * What makes a normed number of one: (x - first) * scale + shift. The mean is
 * in the shift: it is one of numbers less the first, so it is small where a map
 * is flat.
 */
typedef struct NormFactors
{
	float first[KERNEL_VECTOR], scale[KERNEL_VECTOR], shift[KERNEL_VECTOR];
} NormFactors;

/* By the statistics of the first row; `first` is there. */
KERNEL_LOCAL void
norm_factors(const InstanceNorm *a, KernelAccess access, const NormShare *s, const Moments *m,
			 NormFactors *f)
{
	int column = (int) threadIdx.x & ((1 << a->column_bits) - 1), count = a->f.c - s->c0;
	float share = 1.0f / m->count[column], numbers[KERNEL_VECTOR];

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		f->scale[i] = rsqrtf(m->m2[i][column] * share + EPSILON);
	if (count > 0 && a->f.scale)
	{
		load_numbers(access, a->f.scale + s->c0, count, numbers);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			f->scale[i] *= numbers[i];
	}
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		f->shift[i] = -m->mean[i][column] * f->scale[i];
	if (count > 0 && a->f.shift)
	{
		load_numbers(access, a->f.shift + s->c0, count, numbers);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			f->shift[i] += numbers[i];
	}
}

KERNEL_LOCAL void
write_flight(const InstanceNorm *a, KernelAccess access, const NormShare *s, int from,
			 const NormFactors *f, KernelRaw raw[FINISH_FLIGHT])
{
	int pixels = a->f.h * a->f.w;

#pragma unroll 1
	for (int k = 0; k < FINISH_FLIGHT && from + k * s->step < s->end; k++)
	{
		int at = from + k * s->step;
		float v[KERNEL_VECTOR];

		norm_input(a, access, s, at, &raw[0], v);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = (v[i] - f->first[i]) * f->scale[i] + f->shift[i];
		store_outputs(&a->f, access, (unsigned) s->n * (unsigned) pixels + (unsigned) at, s->c0, v);
		/* one body for all, as an index must be known to be in registers */
#pragma unroll
		for (int i = 0; i + 1 < FINISH_FLIGHT; i++)
			raw[i] = raw[i + 1];
	}
}

/* ---- The kernels --------------------------------------------------------- */

/* Grid of all: groups of channels, splits, images. */
KERNEL_TYPED(instance_norm_small, InstanceNorm)
{
	__shared__ Moments m;
	NormShare s = norm_share(&a);
	KernelRaw raw[FINISH_FLIGHT];
	NormFactors f;
	Running r;

	load_flight(&a, access, &s, s.at, raw);
	load_first(&a, access, &s, f.first);
	start_running(&r);
	take_flight(&a, access, &s, s.at, f.first, raw, &r);
	keep_running(&m, &r);
	merge_rows(&m, s.step, a.column_bits);
	norm_factors(&a, access, &s, &m, &f);
	write_flight(&a, access, &s, s.at, &f, raw);
}

KERNEL_TYPED(instance_norm_cluster, InstanceNorm)
{
#if KERNEL_FOR_90
	__shared__ Moments m;
	NormShare s = norm_share(&a);
	bool held = FINISH_FLIGHT * s.step >= a.split;
	KernelRaw raw[FINISH_FLIGHT];
	NormFactors f;
	Running r;

	load_first(&a, access, &s, f.first);
	start_running(&r);
#pragma unroll 1
	for (int from = s.at; from < s.end; from += FINISH_FLIGHT * s.step)
	{
		load_flight(&a, access, &s, from, raw);
		take_flight(&a, access, &s, from, f.first, raw, &r);
	}
	keep_running(&m, &r);
	merge_rows(&m, s.step, a.column_bits);
	store_partial(&a, &s, &m);
	kernel_meet();
	merge_partials(&a, access, &s, &m);
	norm_factors(&a, access, &s, &m, &f);
#pragma unroll 1
	for (int from = s.at; from < s.end; from += FINISH_FLIGHT * s.step)
	{
		if (!held)
			load_flight(&a, access, &s, from, raw);
		write_flight(&a, access, &s, from, &f, raw);
	}
#endif
}

KERNEL_TYPED(instance_norm_statistics, InstanceNorm)
{
	__shared__ Moments m;
	NormShare s = norm_share(&a);
	KernelRaw raw[FINISH_FLIGHT];
	float first[KERNEL_VECTOR];
	Running r;

	load_first(&a, access, &s, first);
	start_running(&r);
#pragma unroll 1
	for (int from = s.at; from < s.end; from += FINISH_FLIGHT * s.step)
	{
		load_flight(&a, access, &s, from, raw);
		take_flight(&a, access, &s, from, first, raw, &r);
	}
	keep_running(&m, &r);
	merge_rows(&m, s.step, a.column_bits);
	store_partial(&a, &s, &m);
}

KERNEL_TYPED(instance_norm_apply, InstanceNorm)
{
	__shared__ Moments m;
	NormShare s = norm_share(&a);
	KernelRaw raw[FINISH_FLIGHT];
	NormFactors f;

	load_first(&a, access, &s, f.first);
	merge_partials(&a, access, &s, &m);
	norm_factors(&a, access, &s, &m, &f);
#pragma unroll 1
	for (int from = s.at; from < s.end; from += FINISH_FLIGHT * s.step)
	{
		load_flight(&a, access, &s, from, raw);
		write_flight(&a, access, &s, from, &f, raw);
	}
}

/* ---- Launching ----------------------------------------------------------- */

static int
split_size(int pixels)
{
	int split = (pixels + MAX_SPLITS - 1) / MAX_SPLITS;

	return split > MIN_SPLIT ? split : MIN_SPLIT;
}

/* The least power of two that is not below n. */
static int
power_from(int n)
{
	int power = 1;

	while (power < n)
		power *= 2;
	return power;
}

/* Cuts images into so many splits, of blocks of at most so many columns. */
static void
cut_images(InstanceNorm *a, int split, int columns)
{
	int chunks = kernel_chunks(a->f.c);

	a->split = split;
	a->splits = (a->f.h * a->f.w + split - 1) / split;
	for (a->column_bits = 0; 2 << a->column_bits <= (columns < chunks ? columns : chunks);)
		a->column_bits++;
}

/* Blocks of as many threads as pixels have a use for. */
static KernelSize
norm_size(InstanceNorm *a)
{
	int chunks = kernel_chunks(a->f.c), columns = 1 << a->column_bits;
	int rows = power_from(a->split), most = KERNEL_THREADS / columns, least = KERNEL_WARP / columns;

	rows = rows > most ? most : rows < least ? least : rows;
	a->merging_rows = power_from(a->splits) < rows ? power_from(a->splits) : rows;
	return kernel_size((unsigned) ((chunks + columns - 1) / columns), (unsigned) a->splits,
					   (unsigned) a->f.n, (unsigned) (rows * columns));
}

KERNEL_API size_t
kernel_instance_norm_floats(int n, int h, int w, int c)
{
	int split = split_size(h * w), splits = (h * w + split - 1) / split;

	if (h * w <= SMALL_MAP)
		return 0;
	return (size_t) n * (h * w <= CLUSTER_MAP && splits < CLUSTER ? CLUSTER : splits) * 2 * c;
}

/* In one kernel; the images' pixels were cut into CLUSTER splits. */
static int
launch_clusters(void *stream, KernelAccess access, InstanceNorm *a)
{
	KernelSize size = norm_size(a);

	size.y = size.cluster = a->splits = CLUSTER;
	a->merging_rows = power_from(CLUSTER);
	return kernel_launch(KERNEL_FOR(instance_norm_cluster, access), size, stream, a);
}

static int
launch_splits(void *stream, KernelAccess access, InstanceNorm *a)
{
	KernelSize size = norm_size(a);
	int error = kernel_launch(KERNEL_FOR(instance_norm_statistics, access), size, stream, a);

	return error == 0 ? kernel_launch(KERNEL_FOR(instance_norm_apply, access), size, stream, a)
					  : error;
}

KERNEL_API int
kernel_instance_norm(void *stream, const KernelFinish *finish, float *workspace)
{
	int pixels = finish->h * finish->w, error;
	KernelAccess access = finish_access(finish);
	InstanceNorm a = { *finish, finish_inside(finish), workspace, 0, 0, 0, 0 };

	if (finish->n > 65535 || !finish_fits(finish))
		return KERNEL_TOO_LARGE;
	if (pixels <= SMALL_MAP)
	{
		cut_images(&a, pixels, FEW_COLUMNS);
		return kernel_launch(KERNEL_FOR(instance_norm_small, access), norm_size(&a), stream, &a);
	}
	if (pixels <= CLUSTER_MAP && kernel_clusters(KERNEL_FOR(instance_norm_cluster, access)))
	{
		cut_images(&a, (pixels + CLUSTER - 1) / CLUSTER, FEW_COLUMNS);
		error = launch_clusters(stream, access, &a);
		/* the runtime may refuse them, and is then not asked again */
		if (error == 0 || kernel_clusters(KERNEL_FOR(instance_norm_cluster, access)))
			return error;
	}
	cut_images(&a, split_size(pixels), MOST_COLUMNS);
	return launch_splits(stream, access, &a);
}
