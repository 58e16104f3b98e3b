/*
 * cpu_train_ops.c
 *	  Upsampling, pooling, addition, copies, the sample of a posterior and
 *	  losses in training, forward and backward.
 *
 * R1 Of what is made of pixels, each pixel is a sum of others, which are added
 *    in a fixed order, by the thread that has its row. Only a sum of more than
 *    MOST_TERMS is written more than once.
 * R2 Losses are summed by one thread, in double.
 */
#include "nn/cpu/cpu_train.h"

#include "common/invariant.h"

#include <math.h>
#include <string.h>

#define BLOCK CPU_TRAIN_BLOCK

/* ---- Sums of pixels ------------------------------------------------------ */

/* More are summed in several parts. */
#define MOST_TERMS 64

/* A pixel of c channels, and what it is made of: other pixels, weighted. */
typedef struct PixelSum
{
	float *to;
	int c;
	bool add; /* to what is there */
	int nterms;
	struct
	{
		const float *pixel;
		float weight;
	} terms[MOST_TERMS];
} PixelSum;

static float *
channels_at(const NnMap *map, int n, int y, int x)
{
	return map->f32 + (((size_t) n * map->shape.h + y) * map->shape.w + x) * map->pitch;
}

/* n channels from c0 on; n is a constant where it can be: sums in registers. */
static inline __attribute__((always_inline)) void
sum_channels(const PixelSum *s, int c0, int n)
{
	float sums[BLOCK];

	for (int k = 0; k < n; k++)
		sums[k] = s->add ? s->to[c0 + k] : 0.0f;
	for (int i = 0; i < s->nterms; i++)
		for (int k = 0; k < n; k++)
			sums[k] += s->terms[i].weight * s->terms[i].pixel[c0 + k];
	for (int k = 0; k < n; k++)
		s->to[c0 + k] = sums[k];
}

static void
sum_terms(PixelSum *s)
{
	int c0 = 0;

	for (; c0 + BLOCK <= s->c; c0 += BLOCK)
		sum_channels(s, c0, BLOCK);
	sum_channels(s, c0, s->c - c0);
	s->add = true;
	s->nterms = 0;
}

static inline void
put_term(PixelSum *s, const float *pixel, float weight)
{
	if (s->nterms == MOST_TERMS)
		sum_terms(s);
	s->terms[s->nterms].pixel = pixel;
	s->terms[s->nterms++].weight = weight;
}

/* Puts the terms of pixel (y, x) of `to`: pixels of image n of `from`. */
typedef void (*PixelTerms)(const NnOperands *op, const NnMap *from, const NnMap *to, int n, int y,
						   int x, PixelSum *s);

static NnStatus
sum_pixels_of(const NnOperands *op, const NnMap *from, const NnMap *to, bool add, PixelTerms terms)
{
	NnShape shape = to->shape;

#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_threads(op))
	for (int n = 0; n < shape.n; n++)
		for (int y = 0; y < shape.h; y++)
			for (int x = 0; x < shape.w; x++)
			{
				PixelSum s; /* its terms are not cleared */

				s.to = channels_at(to, n, y, x);
				s.c = shape.c;
				s.add = add;
				s.nterms = 0;
				terms(op, from, to, n, y, x, &s);
				sum_terms(&s);
			}
	return NN_OK;
}

static NnStatus
sum_forward(const NnOperands *op, PixelTerms terms)
{
	return sum_pixels_of(op, &op->in[0], &op->out[0], false, terms);
}

static NnStatus
sum_backward(const NnOperands *op, int k, PixelTerms terms)
{
	return sum_pixels_of(op, &op->dout[0], &op->din[k], op->in_mode[k] == NN_GRAD_ACCUMULATE,
						 terms);
}

/* ---- Upsampling ---------------------------------------------------------- */

/* Of the k-th of four pixels: rows first. */
static inline float
blend_weight(int k, float fy, float fx)
{
	return (k / 2 ? fy : 1 - fy) * (k % 2 ? fx : 1 - fx);
}

/* A pixel of the large map is four of the small one. */
static void
blend_terms(const NnOperands *op, const NnMap *small, const NnMap *large, int n, int y, int x,
			PixelSum *s)
{
	int pad = op->node->upsample.pad, ys[2], xs[2];
	float fy = nn_upsample_axis(y, pad, small->shape.h, ys),
		  fx = nn_upsample_axis(x, pad, small->shape.w, xs);

	for (int k = 0; k < 4; k++)
		put_term(s, channels_at(small, n, ys[k / 2], xs[k % 2]), blend_weight(k, fy, fx));
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

static void
gather_terms(const NnOperands *op, const NnMap *large, const NnMap *small, int n, int y, int x,
			 PixelSum *s)
{
	Reader rows[MAX_READERS], columns[MAX_READERS];
	int pad = op->node->upsample.pad;
	int nrows = readers_of(y, pad, small->shape.h, large->shape.h, rows),
		ncolumns = readers_of(x, pad, small->shape.w, large->shape.w, columns);

	for (const Reader *row = rows; row < rows + nrows; row++)
		for (const Reader *column = columns; column < columns + ncolumns; column++)
			for (int k = 0; k < 4; k++)
				if (row->reads[k / 2] && column->reads[k % 2])
					put_term(s, channels_at(large, n, row->at, column->at),
							 blend_weight(k, row->fraction, column->fraction));
}

NnStatus
cpu_train_upsample(const NnOperands *op, NnError *error)
{
	return sum_forward(op, blend_terms);
}

NnStatus
cpu_train_upsample_backward(const NnOperands *op, NnError *error)
{
	return sum_backward(op, 0, gather_terms);
}

/* ---- Pooling ------------------------------------------------------------- */

/* Pixels of the window of pixel (y, x) of the small map, inside the image. */
typedef struct Window
{
	int y0, y1, x0, x1;
	float share;
} Window;

static Window
window_at(const NnOperands *op, const NnMap *large, int y, int x)
{
	NnPoolArgs a = op->node->pool;
	Window w;

	nn_pool_axis(y, a.kernel, a.stride, a.pad, large->shape.h, &w.y0, &w.y1);
	nn_pool_axis(x, a.kernel, a.stride, a.pad, large->shape.w, &w.x0, &w.x1);
	w.share = 1.0f / ((w.y1 - w.y0) * (w.x1 - w.x0));
	return w;
}

/* Their mean. */
static void
pool_terms(const NnOperands *op, const NnMap *large, const NnMap *small, int n, int y, int x,
		   PixelSum *s)
{
	Window w = window_at(op, large, y, x);

	for (int i = w.y0; i < w.y1; i++)
		for (int j = w.x0; j < w.x1; j++)
			put_term(s, channels_at(large, n, i, j), w.share);
}

/* The first window of an axis that may have place `at`. */
static int
first_window(const NnPoolArgs *a, int at)
{
	int past = at + a->pad - a->kernel;

	return past < 0 ? 0 : past / a->stride + 1;
}

/* Shares of the windows that pixel (y, x) of the large map is in. */
static void
share_terms(const NnOperands *op, const NnMap *small, const NnMap *large, int n, int y, int x,
			PixelSum *s)
{
	const NnPoolArgs *a = &op->node->pool;
	NnShape windows = small->shape;

	for (int i = first_window(a, y); i < windows.h && i * a->stride - a->pad <= y; i++)
		for (int j = first_window(a, x); j < windows.w && j * a->stride - a->pad <= x; j++)
			put_term(s, channels_at(small, n, i, j), window_at(op, large, i, j).share);
}

NnStatus
cpu_train_avgpool(const NnOperands *op, NnError *error)
{
	return sum_forward(op, pool_terms);
}

NnStatus
cpu_train_avgpool_backward(const NnOperands *op, NnError *error)
{
	return sum_backward(op, 0, share_terms);
}

/* ---- Addition and copies ------------------------------------------------- */

static void
same_term(const NnOperands *op, const NnMap *from, const NnMap *to, int n, int y, int x,
		  PixelSum *s)
{
	put_term(s, channels_at(from, n, y, x), 1);
}

/* The sum of the inputs there are: addition has two, a copy one. */
NnStatus
cpu_train_add(const NnOperands *op, NnError *error)
{
	for (int k = 0; k < 2; k++)
		if (op->in[k].data)
			(void) sum_pixels_of(op, &op->in[k], &op->out[0], k > 0, same_term);
	return NN_OK;
}

NnStatus
cpu_train_add_backward(const NnOperands *op, NnError *error)
{
	for (int k = 0; k < 2; k++)
		if (op->din[k].data)
			(void) sum_backward(op, k, same_term);
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
