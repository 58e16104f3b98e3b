/*
 * cpu_train_ops.c
 *	  Upsampling, pooling, addition, copies, the sample of a posterior and
 *	  losses in training, forward and backward.
 *
 * R1 A thread takes a block of channels of one image, so that sums into
 *    neighbouring pixels need no care.
 * R2 Losses are summed by one thread, in double.
 */
#include "nn/cpu/cpu_train.h"

#include "common/invariant.h"

#include <math.h>
#include <string.h>

#define BLOCK CPU_TRAIN_BLOCK

/* Channels [c0, c0 + c) of image n of a map: pixel (y, x). */
typedef struct Plane
{
	float *data;
	size_t pitch;
	int h, w, c;
} Plane;

static Plane
plane_of(const NnMap *map, int n, int c0)
{
	NnShape s = map->shape;

	return (Plane){ map->f32 + (size_t) n * s.h * s.w * map->pitch + c0, map->pitch, s.h, s.w,
					s.c - c0 < BLOCK ? s.c - c0 : BLOCK };
}

static float *
plane_at(const Plane *p, int y, int x)
{
	return p->data + ((size_t) y * p->w + x) * p->pitch;
}

static void
clear_plane(const Plane *p)
{
	for (int y = 0; y < p->h; y++)
		for (int x = 0; x < p->w; x++)
			memset(plane_at(p, y, x), 0, p->c * sizeof(float));
}

/* Adds to `to`; back: it is the gradient of an input. */
typedef void (*PlaneOp)(const NnOperands *op, Plane from, Plane to, bool back);

/* Runs all planes of two maps; `to` is cleared unless it accumulates. */
static void
for_planes(const NnOperands *op, const NnMap *from, const NnMap *to, bool accumulate, PlaneOp run,
		   bool back)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(op))
	for (int n = 0; n < from->shape.n; n++)
		for (int c0 = 0; c0 < from->shape.c; c0 += BLOCK)
		{
			Plane target = plane_of(to, n, c0);

			if (!accumulate)
				clear_plane(&target);
			run(op, plane_of(from, n, c0), target, back);
		}
}

static NnStatus
forward_planes(const NnOperands *op, PlaneOp run)
{
	for_planes(op, &op->in[0], &op->out[0], false, run, false);
	return NN_OK;
}

static NnStatus
backward_planes(const NnOperands *op, int k, PlaneOp run)
{
	for_planes(op, &op->dout[0], &op->din[k], op->in_mode[k] == NN_GRAD_ACCUMULATE, run, true);
	return NN_OK;
}

static void
add_scaled(float *to, float factor, const float *from, int c)
{
	for (int k = 0; k < c; k++)
		to[k] += factor * from[k];
}

/* ---- Upsampling ---------------------------------------------------------- */

/* Of the k-th of four pixels: rows first. */
static inline float
blend_weight(int k, float fy, float fx)
{
	return (k / 2 ? fy : 1 - fy) * (k % 2 ? fx : 1 - fx);
}

/*
 * A pixel of the large map is four of the small one, weighted; they are added
 * in their order. c is a constant where it can be, so that sums are registers.
 */
static inline __attribute__((always_inline)) void
blend_pixel(const float *const narrow[4], const float weight[4], int c, float *wide)
{
	for (int k = 0; k < c; k++)
	{
		float sum = wide[k];

		for (int i = 0; i < 4; i++)
			sum += weight[i] * narrow[i][k];
		wide[k] = sum;
	}
}

static void
blend_planes(const NnOperands *op, Plane small, Plane large, bool back)
{
	int pad = op->node->upsample.pad;

	for (int y = 0; y < large.h; y++)
		for (int x = 0; x < large.w; x++)
		{
			int ys[2], xs[2];
			float fy = nn_upsample_axis(y, pad, small.h, ys),
				  fx = nn_upsample_axis(x, pad, small.w, xs), weight[4];
			const float *narrow[4];

			for (int k = 0; k < 4; k++)
			{
				weight[k] = blend_weight(k, fy, fx);
				narrow[k] = plane_at(&small, ys[k / 2], xs[k % 2]);
			}
			if (small.c == BLOCK)
				blend_pixel(narrow, weight, BLOCK, plane_at(&large, y, x));
			else
				blend_pixel(narrow, weight, small.c, plane_at(&large, y, x));
		}
}

/*
 * What of an axis of the large map reads place i of the small one: in order,
 * and of each which of its two halves do.
 */
typedef struct Reader
{
	int at;
	bool reads[2];
	float fraction;
} Reader;

#define MAX_READERS 16 /* four, and what the border repeats */
#define TOGETHER 32    /* pixels whose readers are kept */

static int
readers_of(int i, int pad, int small, int large, Reader *readers)
{
	int n = 0, first = 2 * i - 1 > pad ? 2 * i - 1 + pad : 0,
		last = 2 * i + 2 + pad < 2 * small - 1 ? 2 * i + 2 + pad : large - 1;

	for (int at = first; at <= last; at++)
	{
		int halves[2];
		float fraction = nn_upsample_axis(at, pad, small, halves);

		if (halves[0] != i && halves[1] != i)
			continue;
		INVARIANT(n < MAX_READERS);
		readers[n++] = (Reader){ at, { halves[0] == i, halves[1] == i }, fraction };
	}
	return n;
}

/* Adds what one row of the large map gives to a pixel of the small one. */
static inline __attribute__((always_inline)) void
gather_row(const Plane *large, const Reader *row, const Reader *readers, int n, int c, float *sums)
{
	for (int j = 0; j < n; j++)
	{
		const float *wide = plane_at(large, row->at, readers[j].at);

		for (int k = 0; k < 4; k++)
		{
			float weight = blend_weight(k, row->fraction, readers[j].fraction);

			if (!row->reads[k / 2] || !readers[j].reads[k % 2])
				continue;
			for (int i = 0; i < c; i++)
				sums[i] += weight * wide[i];
		}
	}
}
static inline __attribute__((always_inline)) void
gather_pixel(const Plane *large, const Reader *rows, int nrows, const Reader *columns, int ncolumns,
			 int c, float *narrow)
{
	float sums[BLOCK];

	memcpy(sums, narrow, c * sizeof(float));
	for (int j = 0; j < nrows; j++)
		gather_row(large, &rows[j], columns, ncolumns, c, sums);
	memcpy(narrow, sums, c * sizeof(float));
}

/* Each pixel of the small map is written once. */
static void
gather_planes(const NnOperands *op, Plane large, Plane small, bool back)
{
	int pad = op->node->upsample.pad;

	for (int x0 = 0; x0 < small.w; x0 += TOGETHER)
	{
		Reader columns[TOGETHER][MAX_READERS], rows[MAX_READERS];
		int ncolumns[TOGETHER], end = small.w - x0 < TOGETHER ? small.w : x0 + TOGETHER;

		for (int x = x0; x < end; x++)
			ncolumns[x - x0] = readers_of(x, pad, small.w, large.w, columns[x - x0]);
		for (int y = 0; y < small.h; y++)
		{
			int nrows = readers_of(y, pad, small.h, large.h, rows);

			for (int x = x0; x < end; x++)
			{
				if (small.c == BLOCK)
					gather_pixel(&large, rows, nrows, columns[x - x0], ncolumns[x - x0], BLOCK,
								 plane_at(&small, y, x));
				else
					gather_pixel(&large, rows, nrows, columns[x - x0], ncolumns[x - x0], small.c,
								 plane_at(&small, y, x));
			}
		}
	}
}

NnStatus
cpu_train_upsample(const NnOperands *op, NnError *error)
{
	return forward_planes(op, blend_planes);
}

NnStatus
cpu_train_upsample_backward(const NnOperands *op, NnError *error)
{
	return backward_planes(op, 0, gather_planes);
}

/* ---- Pooling ------------------------------------------------------------- */

/* Means of the pixels of each window inside the image. */
static void
pool_planes(const NnOperands *op, Plane from, Plane to, bool back)
{
	Plane small = back ? from : to, large = back ? to : from;
	NnPoolArgs a = op->node->pool;

	for (int oy = 0; oy < small.h; oy++)
		for (int ox = 0; ox < small.w; ox++)
		{
			int y0, y1, x0, x1;
			float *at = plane_at(&small, oy, ox), share;

			nn_pool_axis(oy, a.kernel, a.stride, a.pad, large.h, &y0, &y1);
			nn_pool_axis(ox, a.kernel, a.stride, a.pad, large.w, &x0, &x1);
			share = 1.0f / ((y1 - y0) * (x1 - x0));
			for (int y = y0; y < y1; y++)
				for (int x = x0; x < x1; x++)
				{
					if (back)
						add_scaled(plane_at(&large, y, x), share, at, small.c);
					else
						add_scaled(at, share, plane_at(&large, y, x), small.c);
				}
		}
}

NnStatus
cpu_train_avgpool(const NnOperands *op, NnError *error)
{
	return forward_planes(op, pool_planes);
}

NnStatus
cpu_train_avgpool_backward(const NnOperands *op, NnError *error)
{
	return backward_planes(op, 0, pool_planes);
}

/* ---- Addition and copies ------------------------------------------------- */

static void
add_planes(const NnOperands *op, Plane from, Plane to, bool back)
{
	for (int y = 0; y < from.h; y++)
		for (int x = 0; x < from.w; x++)
			add_scaled(plane_at(&to, y, x), 1, plane_at(&from, y, x), from.c);
}

/* The sum of the inputs there are: addition has two, a copy one. */
NnStatus
cpu_train_add(const NnOperands *op, NnError *error)
{
	for (int k = 0; k < 2; k++)
		if (op->in[k].data)
			for_planes(op, &op->in[k], &op->out[0], k > 0, add_planes, false);
	return NN_OK;
}

NnStatus
cpu_train_add_backward(const NnOperands *op, NnError *error)
{
	for (int k = 0; k < 2; k++)
		if (op->din[k].data)
			backward_planes(op, k, add_planes);
	return NN_OK;
}

NnStatus
cpu_train_copy(const NnOperands *op, NnError *error)
{
	return cpu_train_add(op, error);
}

NnStatus
cpu_train_copy_backward(const NnOperands *op, NnError *error)
{
	return cpu_train_add_backward(op, error);
}

/* ---- The sample of a posterior ------------------------------------------- */

/* Element i of a map in the order (n, y, x, c). */
static float *
number_at(const NnMap *map, size_t i)
{
	return map->f32 + nn_map_place(map, i);
}

/* Adds to element i of the gradient of input k, or begins it. */
static void
give_gradient(const NnOperands *op, int k, size_t i, double gradient)
{
	float *to = number_at(&op->din[k], i);

	*to = (float) (op->in_mode[k] == NN_GRAD_ACCUMULATE ? *to + gradient : gradient);
}

NnStatus
cpu_train_reparam(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->out[0]); i++)
		*number_at(&op->out[0], i) =
			*number_at(&op->in[0], i) +
			*number_at(&op->in[2], i) * expf(*number_at(&op->in[1], i) / 2);
	return NN_OK;
}

NnStatus
cpu_train_reparam_backward(const NnOperands *op, NnError *error)
{
	for (size_t i = 0; i < nn_map_count(&op->dout[0]); i++)
	{
		double dz = *number_at(&op->dout[0], i);

		if (op->din[0].data)
			give_gradient(op, 0, i, dz);
		if (op->din[1].data)
			give_gradient(op, 1, i,
						  dz * *number_at(&op->in[2], i) * exp(*number_at(&op->in[1], i) / 2.0) /
							  2);
	}
	return NN_OK;
}

/* ---- Losses -------------------------------------------------------------- */

/*
 * A loss is the sum of a term for each number of in[0], times a factor;
 * backward, a function gives each term's gradients, times the factor.
 */
typedef double (*LossTerm)(const NnOperands *op, size_t i);
typedef void (*LossSlope)(const NnOperands *op, size_t i, double factor);

static NnStatus
sum_loss(const NnOperands *op, LossTerm term, double count)
{
	double sum = 0;

	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
		sum += term(op, i);
	op->out[0].f32[0] = (float) (op->node->loss.scale * sum / count);
	return NN_OK;
}

static NnStatus
spread_loss(const NnOperands *op, LossSlope slope, double count)
{
	for (size_t i = 0; i < nn_map_count(&op->in[0]); i++)
		slope(op, i, op->node->loss.scale / count);
	return NN_OK;
}

static double
gan_term(const NnOperands *op, size_t i)
{
	double x = *number_at(&op->in[0], i), target = op->node->loss.target;

	if (op->node->loss.vanilla)
		return fmax(x, 0) - x * target + log1p(exp(-fabs(x)));
	return (x - target) * (x - target);
}

static void
gan_slope(const NnOperands *op, size_t i, double factor)
{
	double x = *number_at(&op->in[0], i), target = op->node->loss.target;

	give_gradient(op, 0, i,
				  factor *
					  (op->node->loss.vanilla ? 1 / (1 + exp(-x)) - target : 2 * (x - target)));
}

NnStatus
cpu_train_gan_loss(const NnOperands *op, NnError *error)
{
	return sum_loss(op, gan_term, nn_map_count(&op->in[0]));
}

NnStatus
cpu_train_gan_loss_backward(const NnOperands *op, NnError *error)
{
	return spread_loss(op, gan_slope, nn_map_count(&op->in[0]));
}

static double
l1_term(const NnOperands *op, size_t i)
{
	double x = *number_at(&op->in[0], i);

	return fabs(x - *number_at(&op->in[1], i));
}

static void
l1_slope(const NnOperands *op, size_t i, double factor)
{
	double x = *number_at(&op->in[0], i), d = x - *number_at(&op->in[1], i);

	give_gradient(op, 0, i, d > 0 ? factor : d < 0 ? -factor : 0);
}

NnStatus
cpu_train_l1_loss(const NnOperands *op, NnError *error)
{
	return sum_loss(op, l1_term, nn_map_count(&op->in[0]));
}

NnStatus
cpu_train_l1_loss_backward(const NnOperands *op, NnError *error)
{
	return spread_loss(op, l1_slope, nn_map_count(&op->in[0]));
}

static double
kl_term(const NnOperands *op, size_t i)
{
	double mu = *number_at(&op->in[0], i), logvar = *number_at(&op->in[1], i);

	return -0.5 * (1 + logvar - mu * mu - exp(logvar));
}

static void
kl_slope(const NnOperands *op, size_t i, double factor)
{
	if (op->din[0].data)
		give_gradient(op, 0, i, factor * (double) *number_at(&op->in[0], i));
	if (op->din[1].data)
		give_gradient(op, 1, i, factor * (exp(*number_at(&op->in[1], i)) - 1) / 2);
}

/* A sum, not a mean. */
NnStatus
cpu_train_kl_loss(const NnOperands *op, NnError *error)
{
	return sum_loss(op, kl_term, 1);
}

NnStatus
cpu_train_kl_loss_backward(const NnOperands *op, NnError *error)
{
	return spread_loss(op, kl_slope, 1);
}
