/*
 * stream_conv.cu
 *	  Convolutions of maps so small that reading their weights is all the time
 *	  there is: no weight has more than KERNEL_STREAM_SITES products.
 *
 * Traffic: each weight is read once, 16 bytes at a time, those of taps that are
 * outside the image for every site not at all. A block makes ROWS output
 * channels, whose weights lie one after the other; its threads take a vector of
 * eight weights of each in turn, so a warp reads 512 bytes in a row, and the
 * next vectors are on their way while this one is used. 512 channels are 128
 * blocks, one for each multiprocessor of a large GPU, so nothing is summed
 * outside a block. Inputs, some KiB in all, are read by every block and come
 * from L1 and L2. A vector of weights meets the inputs of up to 16 sites: plain
 * multiply-adds in float keep up with memory, tensor cores would idle.
 *
 * Weights are there whatever was launched before, so the first of them are
 * loaded while that still runs (R1 of launch.cuh).
 *
 * What follows a convolution, an instance norm included, needs no other
 * channel, so a block does it with the sums it has, in float, and no second
 * kernel waits for this one. Not so with quads: four blocks have what a norm is
 * over.
 *
 * A site is a pixel of the result, or with quads (kernels.h) one of those that
 * a class of the four has; sites of an image follow those of the one before.
 * What a site's sum adds, and in which order, depends on the shape of one image
 * alone.
 */
#include "finish.cuh"

#define ROWS KERNEL_STREAM_ROWS
#define GROUP 16 /* sums that are merged at a time */
#define PARTS 16 /* a sum is merged to so many first */

typedef struct StreamConv
{
	KernelStream s;
	int sites_high, sites_wide, sites; /* of an image; of all */
	/* taps that meet the image at all, along y and x for each of two classes */
	int first[2][2], count[2][2];
	bool finished, norm;
	KernelFinish f; /* if finished */
	FinishInside inside;
} StreamConv;

typedef struct StreamShared
{
	int place[KERNEL_STREAM_TAPS][KERNEL_STREAM_SITES]; /* pixel of x; -1: outside */
	float part[GROUP][KERNEL_THREADS + PARTS];
	float merged[ROWS * KERNEL_STREAM_SITES][PARTS + 1];
} StreamShared;

/* Of a block's class of quads; 0 and 0 without. */
KERNEL_LOCAL int
class_row(const KernelStream *s)
{
	return s->quad > 0 ? (int) blockIdx.x * ROWS / s->quad / 2 : 0;
}

KERNEL_LOCAL int
class_column(const KernelStream *s)
{
	return s->quad > 0 ? (int) blockIdx.x * ROWS / s->quad % 2 : 0;
}

/* The pixel of y that a site is, y and x of its image. */
KERNEL_LOCAL void
locate_site(const StreamConv *a, int site, int *n, int *y, int *x)
{
	int at = site % (a->sites_high * a->sites_wide);

	*n = site / (a->sites_high * a->sites_wide);
	*y = at / a->sites_wide + (a->s.quad > 0 ? 1 - class_row(&a->s) : 0);
	*x = at % a->sites_wide + (a->s.quad > 0 ? 1 - class_column(&a->s) : 0);
}

/* A thread fills in a site for one of the taps that are used. */
KERNEL_LOCAL void
place_taps(const StreamConv *a, StreamShared *m, int wide, int taps)
{
	const KernelStream *s = &a->s;
	int tap = threadIdx.x / KERNEL_STREAM_SITES, site = threadIdx.x % KERNEL_STREAM_SITES;
	int n, y, x;

	if (tap >= taps)
		return;
	m->place[tap][site] = -1;
	if (site >= a->sites)
		return;
	locate_site(a, site, &n, &y, &x);
	y = y * s->stride - s->pad + a->first[0][class_row(s)] + tap / wide;
	x = x * s->stride - s->pad + a->first[1][class_column(s)] + tap % wide;
	if (y >= 0 && y < s->h && x >= 0 && x < s->w)
		m->place[tap][site] = (n * s->h + y) * s->w + x;
}

/* Where a block's weights of one vector begin; the next row's are `row` on. */
KERNEL_LOCAL size_t
locate_weights(const StreamConv *a, size_t row, int tap, int wide, int chunk)
{
	const KernelStream *s = &a->s;
	int y = a->first[0][class_row(s)] + tap / wide, x = a->first[1][class_column(s)] + tap % wide;

	return blockIdx.x * ROWS * row + ((size_t) y * s->kernel + x) * s->c +
		   (size_t) chunk * KERNEL_VECTOR;
}

/* Adds the products of one vector of each row's weights. */
KERNEL_LOCAL void
add_products(const StreamConv *a, const StreamShared *m, KernelType type, int sites, int tap,
			 int chunk, const KernelRaw raw[ROWS], float *sum)
{
	float w[ROWS][KERNEL_VECTOR];

#pragma unroll
	for (int r = 0; r < ROWS; r++)
		unpack_whole(type, &raw[r], w[r]);
#pragma unroll
	for (int p = 0; p < sites; p++)
	{
		int at = m->place[tap][p];
		KernelRaw in;
		float x[KERNEL_VECTOR];

		if (at < 0)
			continue;
		in = load_whole(type, a->s.x, (size_t) at * a->s.c + (size_t) chunk * KERNEL_VECTOR);
		unpack_whole(type, &in, x);
#pragma unroll
		for (int r = 0; r < ROWS; r++)
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				sum[r * sites + p] += w[r][i] * x[i];
	}
}

/* Merges the threads' sums, in fixed order; all call. */
KERNEL_LOCAL void
merge_sums(StreamShared *m, int sums, const float *sum)
{
	int value = threadIdx.x / PARTS, part = threadIdx.x % PARTS;

#pragma unroll
	for (int g = 0; g < sums; g += GROUP)
	{
		float total = 0.0f;

		__syncthreads();
#pragma unroll
		for (int i = 0; i < GROUP; i++)
			m->part[i][threadIdx.x] = sum[g + i];
		__syncthreads();
		for (int i = 0; i < KERNEL_THREADS; i += PARTS)
			total += m->part[value][i + part];
		m->merged[g + value][part] = total;
	}
	__syncthreads();
}

KERNEL_LOCAL void
store_sites(const StreamConv *a, const StreamShared *m, KernelType type, int sites)
{
	int row = threadIdx.x / sites, site = threadIdx.x % sites;
	KernelMap y;
	int n, oy, ox;
	float total = 0.0f;

	if (row >= ROWS || site >= a->sites)
		return;
	for (int i = 0; i < PARTS; i++)
		total += m->merged[threadIdx.x][i];
	locate_site(a, site, &n, &oy, &ox);
	y.data = a->s.y;
	y.type = type;
	store_element(
		&y, (((size_t) n * a->s.oh + oy) * a->s.ow + ox) * a->s.k + blockIdx.x * ROWS + row, total);
}

/* Less the mean and over the deviation of those of its image, of `pixels`. */
KERNEL_LOCAL float
norm_site(const float *image, int pixels, float value)
{
	float mean = 0.0f, m2 = 0.0f, share = 1.0f / (float) pixels;

	/* seen from the first, so that a flat map keeps its deviations */
	for (int i = 0; i < pixels; i++)
		mean += (image[i] - image[0]) * share;
	for (int i = 0; i < pixels; i++)
	{
		float d = image[i] - image[0] - mean;

		m2 += d * d;
	}
	return (value - image[0] - mean) * rsqrtf(m2 * share + (float) NORM_EPSILON);
}

/* A thread does what follows for a site and row; all call. */
KERNEL_LOCAL void
finish_sites(const StreamConv *a, StreamShared *m, int sites)
{
	const KernelFinish *f = &a->f;
	int row = threadIdx.x / sites, site = threadIdx.x % sites, pixels = f->h * f->w,
		n = site / pixels, at = site % pixels, o = blockIdx.x * ROWS + row;
	bool mine = row < ROWS && site < a->sites && o < f->c;
	float v = 0.0f;

	for (int i = 0; mine && i < PARTS; i++)
		v += m->merged[threadIdx.x][i];
	if (mine && f->latent)
	{
		int place = latent_place(f, &a->inside, n, (unsigned) at);

		v += place < 0 ? 0.0f : f->latent[(size_t) place * f->c + o];
	}
	m->part[0][threadIdx.x] = v;
	__syncthreads();
	if (!mine)
		return;
	if (a->norm)
		v = norm_site(m->part[0] + row * sites + n * pixels, pixels, v);
	v = v * (f->scale ? f->scale[o] : 1.0f) + (f->shift ? f->shift[o] : 0.0f);
#pragma unroll
	for (int k = 0; k < 2; k++)
		if (f->out[k].map.data)
			store_element(&f->out[k].map, (size_t) site * f->out[k].map.pitch + o,
						  nn_act(f->out[k].act.second, nn_act(f->out[k].act.first, v)));
}

/* All of a block, for a type and number of sites that the compiler knows. */
KERNEL_LOCAL void
stream_rows(const StreamConv *a, StreamShared *m, KernelType type, int sites)
{
	const KernelStream *s = &a->s;
	size_t row = (size_t) s->kernel * s->kernel * s->c;
	int wide = a->count[1][class_column(s)], taps = a->count[0][class_row(s)] * wide;
	int chunks = s->c / KERNEL_VECTOR, items = taps * chunks, item = threadIdx.x;
	float sum[ROWS * KERNEL_STREAM_SITES];
	KernelRaw next[ROWS];

#pragma unroll
	for (int i = 0; i < ROWS * sites; i++)
		sum[i] = 0.0f;
	if (item < items)
	{
		size_t at = locate_weights(a, row, item / chunks, wide, item % chunks);

#pragma unroll
		for (int r = 0; r < ROWS; r++)
			next[r] = load_whole(type, s->filter, at + r * row);
	}
	kernel_await();
	place_taps(a, m, wide, taps);
	__syncthreads();
	for (; item < items; item += KERNEL_THREADS)
	{
		int following = item + KERNEL_THREADS;
		KernelRaw now[ROWS];

#pragma unroll
		for (int r = 0; r < ROWS; r++)
			now[r] = next[r];
		if (following < items)
		{
			size_t at = locate_weights(a, row, following / chunks, wide, following % chunks);

#pragma unroll
			for (int r = 0; r < ROWS; r++)
				next[r] = load_whole(type, s->filter, at + r * row);
		}
		add_products(a, m, type, sites, item / chunks, item % chunks, now, sum);
	}
	merge_sums(m, ROWS * sites, sum);
	if (a->finished)
		finish_sites(a, m, sites);
	else
		store_sites(a, m, type, sites);
}

#define FEW_SITES 4

#define STREAM_KERNEL(name, type, sites)  \
	KERNEL_GLOBAL(name, StreamConv)       \
	{                                     \
		__shared__ StreamShared m;        \
                                          \
		stream_rows(&a, &m, type, sites); \
	}

STREAM_KERNEL(stream_f32_few, KERNEL_F32, FEW_SITES)
STREAM_KERNEL(stream_f16_few, KERNEL_F16, FEW_SITES)
STREAM_KERNEL(stream_bf16_few, KERNEL_BF16, FEW_SITES)
STREAM_KERNEL(stream_f32, KERNEL_F32, KERNEL_STREAM_SITES)
STREAM_KERNEL(stream_f16, KERNEL_F16, KERNEL_STREAM_SITES)
STREAM_KERNEL(stream_bf16, KERNEL_BF16, KERNEL_STREAM_SITES)

/*
 * The taps along one axis that meet the image at one of `sites` positions, of
 * which the first is `shift`; there may be others between them.
 */
static void
find_stream_taps(const KernelStream *s, int extent, int sites, int shift, int *first, int *count)
{
	int end = 0;

	*first = s->kernel;
	for (int tap = 0; tap < s->kernel; tap++)
		for (int i = 0; i < sites; i++)
		{
			int at = (shift + i) * s->stride - s->pad + tap;

			if (at < 0 || at >= extent)
				continue;
			*first = tap < *first ? tap : *first;
			end = tap + 1;
		}
	*count = end > *first ? end - *first : 0;
}

KERNEL_API int
kernel_stream_conv(void *stream, const KernelStream *conv, const KernelFinish *finish, bool norm)
{
	StreamConv a = {};
	bool few;
	int blocks = conv->k / ROWS;

	a.s = *conv;
	a.sites_high = conv->quad > 0 ? conv->oh - 1 : conv->oh;
	a.sites_wide = conv->quad > 0 ? conv->ow - 1 : conv->ow;
	a.sites = conv->n * a.sites_high * a.sites_wide;
	for (int k = 0; k < 2; k++)
	{
		find_stream_taps(conv, conv->h, a.sites_high, conv->quad > 0 ? 1 - k : 0, &a.first[0][k],
						 &a.count[0][k]);
		find_stream_taps(conv, conv->w, a.sites_wide, conv->quad > 0 ? 1 - k : 0, &a.first[1][k],
						 &a.count[1][k]);
	}
	if (finish)
	{
		a.finished = true;
		a.norm = norm;
		a.f = *finish;
		a.inside = finish_inside(finish);
	}
	few = a.sites <= FEW_SITES;
	switch (conv->type)
	{
		case KERNEL_F32:
			return few ? KERNEL_LAUNCH(stream_f32_few, blocks, 1, 1, KERNEL_THREADS, stream, a)
					   : KERNEL_LAUNCH(stream_f32, blocks, 1, 1, KERNEL_THREADS, stream, a);
		case KERNEL_F16:
			return few ? KERNEL_LAUNCH(stream_f16_few, blocks, 1, 1, KERNEL_THREADS, stream, a)
					   : KERNEL_LAUNCH(stream_f16, blocks, 1, 1, KERNEL_THREADS, stream, a);
		case KERNEL_BF16:
			return few ? KERNEL_LAUNCH(stream_bf16_few, blocks, 1, 1, KERNEL_THREADS, stream, a)
					   : KERNEL_LAUNCH(stream_bf16, blocks, 1, 1, KERNEL_THREADS, stream, a);
		case KERNEL_U8:
			break;
	}
	return KERNEL_TOO_LARGE;
}
