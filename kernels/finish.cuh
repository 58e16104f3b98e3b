/*
 * finish.cuh
 *	  What bias_act.cu and instance_norm.cu share: reading a convolution's
 *	  result with its latent part, and writing the activations of its readers.
 *
 * Instructions are what counts here, not only memory: a multiprocessor has some
 * 250 to spend on 16 bytes of a warp's lane before it is slower than the
 * memory. So an activation is chosen once a vector, elements of half precision
 * are packed and unpacked by pairs, types are known when it is compiled
 * (KERNEL_TYPED), elements are counted in 32 bits, and nothing is divided.
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

	/* a training's scales lie where a checkpoint has them */
	if (((uintptr_t) f->scale | (uintptr_t) f->shift) % sizeof(uint4) != 0)
		return KERNEL_ANY;
	return kernel_access(maps, 3, f->c);
}

/* Whether 32 bits count the elements of all maps. */
static inline bool
finish_fits(const KernelFinish *f)
{
	const KernelMap *maps[] = { &f->x, &f->out[0].map, &f->out[1].map };
	size_t pixels = (size_t) f->n * f->h * f->w,
		   source = f->quad > 0 ? (size_t) f->n * (f->h / 2 + 1) * (f->w / 2 + 1) : pixels;

	for (int i = 0; i < 3; i++)
		if (maps[i]->data && ((i == 0 ? source : pixels) + 1) * maps[i]->pitch > UINT32_MAX)
			return false;
	return true;
}

/*
 * Where in f->x channels [c0, c0 + 8) of pixel `at` of image n begin, in
 * elements: the one place that knows where the pixels of x lie.
 */
KERNEL_LOCAL unsigned
finish_source(const KernelFinish *f, KernelDivisor width, unsigned n, unsigned at, unsigned c0)
{
	unsigned y, x;

	if (f->quad == 0)
		return (n * (unsigned) (f->h * f->w) + at) * f->x.pitch + c0;
	y = quotient(width, at);
	x = at - y * width.by + 1;
	y++;
	return ((n * (f->h / 2 + 1) + y / 2) * (f->w / 2 + 1) + x / 2) * f->x.pitch +
		   (y % 2 * 2 + x % 2) * f->quad + c0;
}

KERNEL_LOCAL KernelRaw
finish_load(const KernelFinish *f, KernelAccess access, KernelDivisor width, int n, unsigned at,
			int c0)
{
	return load_raw(access, &f->x, finish_source(f, width, (unsigned) n, at, (unsigned) c0),
					f->c - c0);
}

/* ---- The latent code's part ---------------------------------------------- */

/*
 * The pixels [top, top + rows) by [left, left + columns), to which nothing is
 * added: what is not border.
 */
typedef struct FinishInside
{
	KernelDivisor width;
	unsigned top, rows, left, columns;
} FinishInside;

static inline FinishInside
finish_inside(const KernelFinish *f)
{
	FinishInside inside = { kernel_divisor(f->w), 0, 0, 0, 0 };

	if (f->latent && f->centre >= 0)
	{
		const int *row = f->rows.first + f->centre / f->columns.n,
				  *column = f->columns.first + f->centre % f->columns.n;

		inside.top = (unsigned) row[0];
		inside.rows = (unsigned) (row[1] - row[0]);
		inside.left = (unsigned) column[0];
		inside.columns = (unsigned) (column[1] - column[0]);
	}
	return inside;
}

KERNEL_LOCAL int
axis_class(const KernelAxis *axis, int position)
{
	int k = 0;

#pragma unroll
	for (int i = 1; i < KERNEL_CLASSES; i++)
		k += position >= axis->first[i];
	return k;
}

/* Of f->latent the pixel's, by channels; -1: nothing is added there. */
KERNEL_LOCAL int
latent_place(const KernelFinish *f, const FinishInside *inside, int n, unsigned at)
{
	unsigned y = quotient(inside->width, at), x = at - y * inside->width.by;

	if (y - inside->top < inside->rows && x - inside->left < inside->columns)
		return -1;
	return axis_class(&f->rows, (int) y) * f->columns.n + axis_class(&f->columns, (int) x) +
		   n * f->rows.n * f->columns.n;
}

/*
 * Adds what the latent code of image n gives at pixel `at`, where it gives
 * anything, to [c0, c0 + 8).
 */
KERNEL_LOCAL void
add_latent(const KernelFinish *f, KernelAccess access, const FinishInside *inside, int n,
		   unsigned at, int c0, float v[KERNEL_VECTOR])
{
	int place = latent_place(f, inside, n, at);
	float latent[KERNEL_VECTOR];

	if (place < 0)
		return;
	load_numbers(access, f->latent + (size_t) place * f->c + c0, f->c - c0, latent);
#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		v[i] += latent[i];
}

/* ---- Activations --------------------------------------------------------- */

/*
 * Those that are many instructions, one number after the other, so that they
 * are there once and not eight times. Numbers go round, as an index must be
 * known to be in registers.
 */
KERNEL_LOCAL void
act_rarely(NnActKind kind, int count, float v[KERNEL_VECTOR])
{
#pragma unroll 1
	for (int k = 0; k < KERNEL_VECTOR; k++)
	{
		float y = k >= count           ? 0.0f
				  : kind == NN_ACT_ELU ? nn_act(NN_ACT_ELU, v[0])
									   : nn_act(NN_ACT_TANH, v[0]);

#pragma unroll
		for (int i = 0; i + 1 < KERNEL_VECTOR; i++)
			v[i] = v[i + 1];
		v[KERNEL_VECTOR - 1] = y;
	}
}

/* y = act(v) of eight channels, of which `count` matter; v may be y. */
KERNEL_LOCAL void
act_vector(NnActKind kind, int count, const float v[KERNEL_VECTOR], float y[KERNEL_VECTOR])
{
	if (kind == NN_ACT_RELU)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			y[i] = nn_act(NN_ACT_RELU, v[i]);
	}
	else if (kind == NN_ACT_LRELU)
	{
		/* nn_act's, as the slope is below 1 */
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			y[i] = fmaxf(v[i], (float) LRELU_SLOPE * v[i]);
	}
	else
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			y[i] = v[i];
		if (kind != NN_ACT_NONE)
			act_rarely(kind, count, y);
	}
}

/*
 * Writes channels [c0, c0 + 8) of a pixel, counted over all images, for each
 * reader.
 */
KERNEL_LOCAL void
store_outputs(const KernelFinish *f, KernelAccess access, unsigned pixel, int c0,
			  const float v[KERNEL_VECTOR])
{
	int count = access == KERNEL_ANY ? f->c - c0 : KERNEL_VECTOR;

#pragma unroll
	for (int k = 0; k < 2; k++)
	{
		const KernelMap *map = &f->out[k].map;
		unsigned at = pixel * map->pitch + (unsigned) c0;
		float y[KERNEL_VECTOR];

		if (!map->data)
			continue;
		act_vector(f->out[k].act.first, count, v, y);
		if (f->out[k].act.second != NN_ACT_NONE)
			act_vector(f->out[k].act.second, count, y, y);
		if (access == KERNEL_ANY)
			store_some(map, at, count, y);
		else
			store_whole((KernelType) access, map->data, at, y);
	}
}

#endif /* BICYCLE_KERNELS_FINISH_CUH */
