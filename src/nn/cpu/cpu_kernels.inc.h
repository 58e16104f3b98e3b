/*
 * cpu_kernels.inc.h
 *	  Bodies of the vector kernels (cpu_kernels.h); included once for each
 *	  instruction set by cpu_kernels_base.c, cpu_kernels_avx2.c,
 *	  cpu_kernels_avx512*.c and cpu_kernels_neon.c.
 *
 * The includer defines
 *		VL				lanes of a float vector
 *		VFMA(a, b, c)	a * b + c
 *		VMAX(a, b), VMIN(a, b)	b where either is not a number
 *		VLOADN(p, n), VSTOREN(p, v, n)	the first n of VL floats, 0 < n < VL;
 *	                                    lanes not loaded are zero
 *		AHEAD			bytes ahead in the stream of weights that a product asks
 *	                    for, to the second level of cache; 0 where it gained
 *	                    nothing; AHEAD_ONCE: CpuKernel's
 *		BLOCK_ROWS		rows of a block of kernel.h, as many as registers hold
 *	                    the sums of (two vectors a row)
 *		KERNELS, KERNELS_NAME	the table defined here and its name
 * and, where the compiler does not find what is best,
 *		VWIDEN(half)	VL numbers of 16 bits to 32
 *		VNARROW(v)		the lower halves of such
 */
#include <math.h>
#include <string.h>

#include "nn/cpu/cpu_kernels.h"

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));
typedef float vf_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(VL * 2), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))

#ifndef VWIDEN
#define VWIDEN(half) __builtin_convertvector(half, vu)
#define VNARROW(v) __builtin_convertvector(v, vh)
#endif

INLINE vf
set1(float x)
{
	return x - (vf){ 0 };
}

INLINE vf
load_f32(const float *p, int n)
{
	if (n >= VL)
		return *(const vf_any *) p;
	return (vf) VLOADN(p, n);
}

INLINE void
store_f32(float *p, vf v, int n)
{
	if (n >= VL)
		*(vf_any *) p = v;
	else
		VSTOREN(p, v, n);
}

INLINE vf
load_bf16(const uint16_t *p, int n)
{
	vh half;

	if (n >= VL)
		half = *(const vh_any *) p;
	else
	{
		uint16_t part[VL] = { 0 };

		memcpy(part, p, n * sizeof(uint16_t));
		memcpy(&half, part, sizeof(half));
	}
	return (vf) (VWIDEN(half) << 16);
}

/* Rounds to nearest, ties to even; a NaN stays one. */
INLINE vu
bf16_bits(vf v)
{
	vu bits = (vu) v;
	vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
	vu nan = (vu) (v != v);

	return (rounded & ~nan) | (nan & 0x7fc0);
}

INLINE void
store_bf16(uint16_t *p, vf v, int n)
{
	vh half = VNARROW(bf16_bits(v));

	if (n >= VL)
		*(vh_any *) p = half;
	else
		memcpy(p, &half, n * sizeof(uint16_t));
}

INLINE vf
load(const void *p, ptrdiff_t at, bool bf16, int n)
{
	return bf16 ? load_bf16((const uint16_t *) p + at, n) : load_f32((const float *) p + at, n);
}

INLINE void
store(void *p, ptrdiff_t at, bool bf16, vf v, int n)
{
	if (bf16)
		store_bf16((uint16_t *) p + at, v, n);
	else
		store_f32((float *) p + at, v, n);
}

/*
 * exp(x) - 1 to about 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2;
 * 2^n (exp(r) - 1) + (2^n - 1), in which nothing cancels near 0.
 */
INLINE vf
v_expm1(vf x)
{
	const float magic = 12582912.0f; /* 1.5 * 2^23: adding and taking away rounds to an integer */
	vf n, r, q, p, s;

	x = VMIN(set1(88.0f), VMAX(set1(-87.0f), x));
	n = VFMA(x, set1(1.44269504f), set1(magic)) - magic;
	r = VFMA(n, set1(-0.693359375f), x);
	r = VFMA(n, set1(2.12194440e-4f), r);
	q = set1(1.0f / 5040);
	q = VFMA(q, r, set1(1.0f / 720));
	q = VFMA(q, r, set1(1.0f / 120));
	q = VFMA(q, r, set1(1.0f / 24));
	q = VFMA(q, r, set1(1.0f / 6));
	q = VFMA(q, r, set1(0.5f));
	p = VFMA(q, r * r, r);
	s = (vf) ((__builtin_convertvector(n, vi) + 127) << 23);
	return VFMA(s, p, s - 1.0f);
}

INLINE vf
v_tanh(vf x)
{
	vf e = v_expm1(2.0f * VMIN(set1(10.0f), VMAX(set1(-10.0f), x)));

	return e / (e + 2.0f);
}

INLINE vf
v_elu(vf x)
{
	vf e = v_expm1(x);
	vi positive = x > 0.0f;

	return (vf) (((vi) x & positive) | ((vi) e & ~positive));
}

INLINE vf
v_act(NnActKind kind, vf x)
{
	switch (kind)
	{
		case NN_ACT_NONE:
			return x;
		case NN_ACT_RELU:
			return VMAX(set1(0.0f), x);
		case NN_ACT_LRELU:
			return VMAX((float) LRELU_SLOPE * x, x);
		case NN_ACT_ELU:
			return v_elu(x);
		case NN_ACT_TANH:
			return v_tanh(x);
	}
	return x;
}

/* ---- Moments ------------------------------------------------------------- */

/* What moments so far weigh beside those of n pixels more. */
typedef struct Shares
{
	vf more, cross;
} Shares;

INLINE Shares
shares_of(int count, int n)
{
	int total = count + n;

	return (Shares){ set1((float) ((double) n / total)),
					 set1((float) ((double) count * n / total)) };
}

/* Chan et al. 1979, a vector of channels */
INLINE void
join_vector(CpuMoments *m, Shares shares, int k, int lanes, vf mean, vf squares)
{
	vf old = load_f32(m->mean + k, lanes), delta = mean - old;

	store_f32(m->mean + k, VFMA(delta, shares.more, old), lanes);
	store_f32(m->m2 + k, VFMA(delta * delta, shares.cross, load_f32(m->m2 + k, lanes) + squares),
			  lanes);
}

static void
join(CpuMoments *m, const CpuMoments *stretch, int c)
{
	Shares shares = shares_of(m->count, stretch->count);

	for (int k = 0; k < c; k += VL)
		join_vector(m, shares, k, c - k, load_f32(stretch->mean + k, c - k),
					load_f32(stretch->m2 + k, c - k));
	m->count += stretch->count;
}

/* Vectors of channels taken together: registers hold what they need. */
#define WIDE (VL >= 16 ? 4 : 2)

/*
 * Sums of np pixels less their centers and `mean`, or of the squares of that;
 * those of even and of odd pixels apart. w vectors of channels from k on, of c.
 */
INLINE void
sum_pixels(CpuRun src, bool bf16, ptrdiff_t p0, int np, int k, int w, int c,
		   const CpuAffine *affine, const vf *mean, vf *sums)
{
	vf center[WIDE], offset[WIDE], sum[2][WIDE];

	for (int i = 0; i < w; i++)
	{
		center[i] = load_f32(affine->center + k + i * VL, c - k - i * VL);
		offset[i] = load_f32(affine->offset + k + i * VL, c - k - i * VL);
		sum[0][i] = sum[1][i] = set1(0.0f);
	}
	for (int p = 0; p < np; p += 2)
		for (int odd = 0; odd < 2 && p + odd < np; odd++)
			for (int i = 0; i < w; i++)
			{
				int at = k + i * VL;
				vf x =
					(load(src.data, (p0 + p + odd) * src.step + at, bf16, w == WIDE ? VL : c - at) -
					 center[i]) +
					offset[i];

				if (mean)
				{
					x -= mean[i];
					sum[odd][i] = VFMA(x, x, sum[odd][i]);
				}
				else
					sum[odd][i] += x;
			}
	for (int i = 0; i < w; i++)
		sums[i] = sum[0][i] + sum[1][i];
}

/* A stretch's moments join those so far. */
INLINE void
take_stretch(CpuMoments *m, CpuRun src, bool bf16, ptrdiff_t p0, int np, int k, int w, int c,
			 const CpuAffine *affine)
{
	Shares shares = shares_of(m->count, np);
	vf inverse = set1((float) (1.0 / np)), mean[WIDE], squares[WIDE];

	sum_pixels(src, bf16, p0, np, k, w, c, affine, NULL, mean);
	for (int i = 0; i < w; i++)
		mean[i] *= inverse;
	sum_pixels(src, bf16, p0, np, k, w, c, affine, mean, squares);
	for (int i = 0; i < w; i++)
		join_vector(m, shares, k + i * VL, c - k - i * VL, mean[i], squares[i]);
}

INLINE void
moments_body(CpuMoments *m, CpuRun src, bool bf16, int n, int c, const CpuAffine *affine)
{
	for (int p0 = 0; p0 < n; p0 += CPU_STRETCH)
	{
		int np = n - p0 < CPU_STRETCH ? n - p0 : CPU_STRETCH, k = 0;

		for (; k + WIDE * VL <= c; k += WIDE * VL)
			take_stretch(m, src, bf16, p0, np, k, WIDE, c, affine);
		for (; k < c; k += VL)
			take_stretch(m, src, bf16, p0, np, k, 1, c, affine);
		m->count += np;
	}
}

static void
moments(CpuMoments *m, CpuRun src, int n, int c, const CpuAffine *affine)
{
	if (src.bf16)
		moments_body(m, src, true, n, c, affine);
	else
		moments_body(m, src, false, n, c, affine);
}

/* ---- Apply --------------------------------------------------------------- */

/* The slope below zero of a chain of none, relu and lrelu; else -1. */
static float
chain_slope(NnActChain act)
{
	static const float slope[] = { [NN_ACT_NONE] = 1.0f,
								   [NN_ACT_RELU] = 0.0f,
								   [NN_ACT_LRELU] = (float) LRELU_SLOPE,
								   [NN_ACT_ELU] = -1.0f,
								   [NN_ACT_TANH] = -1.0f };

	if (slope[act.first] < 0 || slope[act.second] < 0)
		return -1.0f;
	return slope[act.first] * slope[act.second];
}

/* Pixels ahead whose results are asked for, which are as a rule in no cache. */
#define APPLY_AHEAD 24

INLINE void
ask_for_pixel(const CpuOut *out, bool bf16, ptrdiff_t at, int n)
{
	int bytes = bf16 ? 2 : 4;

	for (int i = 0; i < n * bytes; i += 64)
		__builtin_prefetch((char *) out->data + at * bytes + i, 1, 3);
}

/* w vectors of channels from k on, pixel by pixel, as memory is in order. */
INLINE void
apply_vectors(CpuRun src, bool src_bf16, ptrdiff_t p0, int np, int k, int w, int c,
			  const CpuAffine *affine, CpuOut out, bool out_bf16, float slope)
{
	vf center[WIDE], offset[WIDE], scale[WIDE], shift[WIDE];

	for (int i = 0; i < w; i++)
	{
		int at = k + i * VL;

		center[i] = load_f32(affine->center + at, c - at);
		offset[i] = load_f32(affine->offset + at, c - at);
		scale[i] = load_f32(affine->scale + at, c - at);
		shift[i] = load_f32(affine->shift + at, c - at);
	}
	for (ptrdiff_t p = p0; p < p0 + np; p++)
	{
		if (w == WIDE)
			ask_for_pixel(&out, out_bf16, (p + APPLY_AHEAD) * out.step + k, w * VL);
		for (int i = 0; i < w; i++)
		{
			int at = k + i * VL, lanes = w == WIDE ? VL : c - at;
			vf x = load(src.data, p * src.step + at, src_bf16, lanes);

			x = VFMA((x - center[i]) + offset[i], scale[i], shift[i]);
			if (slope >= 0)
				x = VMAX(slope * x, x);
			else
				x = v_act(out.act.second, v_act(out.act.first, x));
			store(out.data, p * out.step + at, out_bf16, x, lanes);
		}
	}
}

INLINE void
apply_block(CpuRun src, bool src_bf16, ptrdiff_t p0, int np, int c, const CpuAffine *affine,
			const CpuOut *out, bool out_bf16, float slope)
{
	int k = 0;

	for (; k + WIDE * VL <= c; k += WIDE * VL)
		apply_vectors(src, src_bf16, p0, np, k, WIDE, c, affine, *out, out_bf16, slope);
	for (; k < c; k += VL)
		apply_vectors(src, src_bf16, p0, np, k, 1, c, affine, *out, out_bf16, slope);
}

static void
apply(CpuRun src, int n, int c, const CpuAffine *affine, const CpuOut *out, int nouts)
{
	for (int p0 = 0; p0 < n; p0 += CPU_STRETCH)
	{
		int np = n - p0 < CPU_STRETCH ? n - p0 : CPU_STRETCH;

		for (int o = 0; o < nouts; o++)
		{
			float slope = chain_slope(out[o].act);

			if (slope >= 0 && !src.bf16 && !out[o].bf16)
				apply_block(src, false, p0, np, c, affine, &out[o], false, slope);
			else if (slope >= 0 && !src.bf16)
				apply_block(src, false, p0, np, c, affine, &out[o], true, slope);
			else if (slope >= 0 && out[o].bf16)
				apply_block(src, true, p0, np, c, affine, &out[o], true, slope);
			else if (!src.bf16 && !out[o].bf16)
				apply_block(src, false, p0, np, c, affine, &out[o], false, -1.0f);
			else
				apply_block(src, src.bf16, p0, np, c, affine, &out[o], out[o].bf16, slope);
		}
	}
}

/* ---- Others -------------------------------------------------------------- */

static void
add(CpuRun a, CpuRun b, int n, int c, const CpuOut *dst)
{
	for (ptrdiff_t p = 0; p < n; p++)
		for (int k = 0; k < c; k += VL)
			store(dst->data, p * dst->step + k, dst->bf16,
				  load(a.data, p * a.step + k, a.bf16, c - k) +
					  load(b.data, p * b.step + k, b.bf16, c - k),
				  c - k);
}

static void
pool(CpuRun src, int ny, int nx, ptrdiff_t row, float weight, int c, const CpuOut *dst)
{
	for (int k = 0; k < c; k += VL)
	{
		vf sum = set1(0.0f);

		for (int y = 0; y < ny; y++)
			for (int x = 0; x < nx; x++)
				sum += load(src.data, y * row + x * src.step + k, src.bf16, c - k);
		store(dst->data, k, dst->bf16, sum * weight, c - k);
	}
}

static void
maxpool(CpuRun src, int ny, int nx, ptrdiff_t row, int c, const CpuOut *dst)
{
	for (int k = 0; k < c; k += VL)
	{
		vf largest = load(src.data, k, src.bf16, c - k);

		for (int y = 0; y < ny; y++)
			for (int x = 0; x < nx; x++)
				largest =
					VMAX(load(src.data, y * row + x * src.step + k, src.bf16, c - k), largest);
		store(dst->data, k, dst->bf16, largest, c - k);
	}
}

INLINE double
sum_of_lanes(vf v)
{
	double sum = 0;

	for (int lane = 0; lane < VL; lane++)
		sum += v[lane];
	return sum;
}

static void
embed(CpuRun src, int n, int c, float share, const float *root, const CpuOut *dst)
{
	for (ptrdiff_t p = 0; p < n; p++)
	{
		vf squares = set1(0.0f);
		float unit;

		for (int k = 0; k < c; k += VL)
		{
			vf v = load(src.data, p * src.step + k, src.bf16, c - k);

			squares = VFMA(v, v, squares);
		}
		unit = (float) (share / (sqrt(sum_of_lanes(squares)) + UNIT_EPSILON));
		for (int k = 0; k < c; k += VL)
			store(dst->data, p * c + k, dst->bf16,
				  load(src.data, p * src.step + k, src.bf16, c - k) * unit *
					  load_f32(root + k, c - k),
				  c - k);
	}
}

static void
blend(const void *const src[4], bool bf16, const float weight[4], int c, const CpuOut *dst)
{
	for (int k = 0; k < c; k += VL)
	{
		vf sum = weight[0] * load(src[0], k, bf16, c - k);

		for (int i = 1; i < 4; i++)
			sum = VFMA(set1(weight[i]), load(src[i], k, bf16, c - k), sum);
		store(dst->data, k, dst->bf16, sum, c - k);
	}
}

static void
linear(CpuRun x, int c, const float *w, const float *b, int o, const CpuOut *dst)
{
	for (int i = 0; i < o; i++)
	{
		vf sum = set1(0.0f);
		float y = b[i];

		for (int k = 0; k < c; k += VL)
			sum =
				VFMA(load(x.data, k, x.bf16, c - k), load_f32(w + (size_t) i * c + k, c - k), sum);
		for (int lane = 0; lane < VL; lane++)
			y += sum[lane];
		store(dst->data, i, dst->bf16, set1(y), 1);
	}
}

/* ---- Tiles --------------------------------------------------------------- */

/*
 * Winograd's minimal filtering F(m, r): m outputs of r taps from m + r - 1
 * products (Lavin and Gray 2015). in_1d, out_1d and the weights of cpu_tiles.c
 * are the three transforms along one axis; all their coefficients are 0, 1, -1
 * and 1/2, so that little accuracy is lost.
 *
 * taps_1d is the third once more, in single precision, for weights that are
 * transformed in each iteration of training; cpu_tiles.c has it in double, on
 * which inference's bits depend. grad_in_1d and grad_out_1d are out_1d and
 * taps_1d turned round: the gradient of taps.
 */
INLINE void
in_1d(int m, int r, const vf *d, int step, vf *o, int out_step)
{
	if (m == 2 && r == 2)
	{
		o[0] = d[0] - d[step];
		o[out_step] = d[step];
		o[2 * out_step] = d[2 * step] - d[step];
	}
	else if (m == 3 && r == 2)
	{
		o[0] = d[0] - d[2 * step];
		o[out_step] = d[step] + d[2 * step];
		o[2 * out_step] = d[2 * step] - d[step];
		o[3 * out_step] = d[3 * step] - d[step];
	}
	else /* F(2, 3) */
	{
		o[0] = d[0] - d[2 * step];
		o[out_step] = d[step] + d[2 * step];
		o[2 * out_step] = d[2 * step] - d[step];
		o[3 * out_step] = d[step] - d[3 * step];
	}
}

INLINE void
out_1d(int m, int r, const vf *d, int step, vf *o, int out_step)
{
	if (m == 2 && r == 2)
	{
		o[0] = d[0] + d[step];
		o[out_step] = d[step] + d[2 * step];
	}
	else if (m == 3 && r == 2)
	{
		vf sum = d[step] + d[2 * step];

		o[0] = d[0] + sum;
		o[out_step] = d[step] - d[2 * step];
		o[2 * out_step] = sum + d[3 * step];
	}
	else /* F(2, 3) */
	{
		o[0] = d[0] + (d[step] + d[2 * step]);
		o[out_step] = (d[step] - d[2 * step]) - d[3 * step];
	}
}

INLINE void
tile_in_body(int m, int r, const float *const *pixels, int c, float *v, size_t position)
{
	int t = m + r - 1;

	for (int k = 0; k < c; k += VL, v += VL)
	{
		vf d[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS], e[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

#pragma GCC unroll 16
		for (int i = 0; i < t * t; i++)
			d[i] = load_f32(pixels[i] + k, c - k);
#pragma GCC unroll 4
		for (int i = 0; i < t; i++)
			in_1d(m, r, d + i, t, e + i, t);
#pragma GCC unroll 4
		for (int i = 0; i < t; i++)
			in_1d(m, r, e + i * t, 1, d + i * t, 1);
#pragma GCC unroll 16
		for (int i = 0; i < t * t; i++)
			*(vf_any *) (v + i * position) = d[i];
	}
}

static void
tile_in(int m, int r, const float *const *pixels, int c, float *v, size_t position)
{
	if (m == 2 && r == 2)
		tile_in_body(2, 2, pixels, c, v, position);
	else if (m == 3)
		tile_in_body(3, 2, pixels, c, v, position);
	else if (m == 2)
		tile_in_body(2, 3, pixels, c, v, position);
	else
		for (int k = 0; k < c; k += VL, v += VL)
			*(vf_any *) v = load_f32(pixels[0] + k, c - k);
}

INLINE void
tile_out_body(int m, int r, const float *sums, size_t position, int c, const float *bias, bool add,
			  float *const *out)
{
	int t = m + r - 1;

	for (int k = 0; k < c; k += VL)
	{
		vf d[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS], e[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

#pragma GCC unroll 16
		for (int i = 0; i < t * t; i++)
			d[i] = *(const vf_any *) (sums + i * position + k);
#pragma GCC unroll 4
		for (int i = 0; i < t; i++)
			out_1d(m, r, d + i, t, e + i, t);
#pragma GCC unroll 4
		for (int i = 0; i < m; i++)
			out_1d(m, r, e + i * t, 1, d + i * m, 1);
#pragma GCC unroll 16
		for (int i = 0; i < m * m; i++)
			if (out[i])
			{
				if (bias)
					d[i] += load_f32(bias + k, c - k);
				if (add)
					d[i] += load_f32(out[i] + k, c - k);
				store_f32(out[i] + k, d[i], c - k);
			}
	}
}

static void
tile_out(int m, int r, const float *sums, size_t position, int c, const float *bias, bool add,
		 float *const *out)
{
	if (m == 2 && r == 2)
		tile_out_body(2, 2, sums, position, c, bias, add, out);
	else if (m == 3)
		tile_out_body(3, 2, sums, position, c, bias, add, out);
	else if (m == 2)
		tile_out_body(2, 3, sums, position, c, bias, add, out);
	else
		for (int k = 0; k < c; k += VL)
			store_f32(out[0] + k, *(const vf_any *) (sums + k), c - k);
}

INLINE void
taps_1d(int m, int r, const vf *d, int step, vf *o, int out_step)
{
	o[0] = d[0];
	if (m == 2 && r == 2)
		o[out_step] = d[0] + d[step];
	else if (m == 3 && r == 2)
	{
		o[out_step] = 0.5f * (d[0] + d[step]);
		o[2 * out_step] = 0.5f * (d[0] - d[step]);
	}
	else /* F(2, 3) */
	{
		vf ends = d[0] + d[2 * step];

		o[out_step] = 0.5f * (ends + d[step]);
		o[2 * out_step] = 0.5f * (ends - d[step]);
	}
	o[(m + r - 2) * out_step] = d[(r - 1) * step];
}

INLINE void
tile_taps_body(int m, int r, const float *const *taps, int n, int columns, float *u,
			   size_t position)
{
	int t = m + r - 1;

	for (int k = 0; k < columns; k += VL, u += VL)
	{
		vf d[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS], e[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

#pragma GCC unroll 9
		for (int i = 0; i < r * r; i++)
			d[i] = taps[i] && k < n ? load_f32(taps[i] + k, n - k) : set1(0.0f);
#pragma GCC unroll 4
		for (int i = 0; i < r; i++)
			taps_1d(m, r, d + i, r, e + i, r);
#pragma GCC unroll 4
		for (int i = 0; i < t; i++)
			taps_1d(m, r, e + i * r, 1, d + i * t, 1);
#pragma GCC unroll 16
		for (int i = 0; i < t * t; i++)
			*(vf_any *) (u + i * position) = d[i];
	}
}

static void
tile_taps(int m, int r, const float *const *taps, int n, int columns, float *u, size_t position)
{
	if (r == 3)
		tile_taps_body(2, 3, taps, n, columns, u, position);
	else if (m == 3)
		tile_taps_body(3, 2, taps, n, columns, u, position);
	else
		tile_taps_body(2, 2, taps, n, columns, u, position);
}

INLINE void
grad_in_1d(int m, int r, const vf *d, int step, vf *o, int out_step)
{
	o[0] = d[0];
	o[out_step] = d[0] + d[step];
	if (m == 2 && r == 2)
		o[2 * out_step] = d[step];
	else if (m == 3 && r == 2)
	{
		o[2 * out_step] = d[0] - d[step];
		o[out_step] += d[2 * step];
		o[2 * out_step] += d[2 * step];
		o[3 * out_step] = d[2 * step];
	}
	else /* F(2, 3) */
	{
		o[2 * out_step] = d[0] - d[step];
		o[3 * out_step] = -d[step];
	}
}

INLINE void
grad_out_1d(int m, int r, const vf *d, int step, vf *o, int out_step)
{
	if (m == 2 && r == 2)
	{
		o[0] = d[0] + d[step];
		o[out_step] = d[step] + d[2 * step];
	}
	else
	{
		vf sum = 0.5f * (d[step] + d[2 * step]), difference = 0.5f * (d[step] - d[2 * step]);

		o[0] = d[0] + sum;
		o[out_step] = r == 2 ? difference + d[3 * step] : difference;
		if (r == 3)
			o[2 * out_step] = sum + d[3 * step];
	}
}

INLINE void
grad_in_body(int m, int r, const float *const *pixels, int c, int columns, float *to,
			 size_t position, size_t panel)
{
	int t = m + r - 1;

	for (int k0 = 0; k0 < c; k0 += columns, to += panel)
		for (int k = k0; k < k0 + columns; k += VL)
		{
			vf d[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS], e[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

#pragma GCC unroll 9
			for (int i = 0; i < m * m; i++)
				d[i] = pixels[i] && k < c ? load_f32(pixels[i] + k, c - k) : set1(0.0f);
#pragma GCC unroll 4
			for (int i = 0; i < m; i++)
				grad_in_1d(m, r, d + i, m, e + i, m);
#pragma GCC unroll 4
			for (int i = 0; i < t; i++)
				grad_in_1d(m, r, e + i * m, 1, d + i * t, 1);
#pragma GCC unroll 16
			for (int i = 0; i < t * t; i++)
				*(vf_any *) (to + i * position + (k - k0)) = d[i];
		}
}

static void
grad_in(int m, int r, const float *const *pixels, int c, int columns, float *d, size_t position,
		size_t panel)
{
	if (r == 3)
		grad_in_body(2, 3, pixels, c, columns, d, position, panel);
	else if (m == 3)
		grad_in_body(3, 2, pixels, c, columns, d, position, panel);
	else
		grad_in_body(2, 2, pixels, c, columns, d, position, panel);
}

INLINE void
grad_out_body(int m, int r, const float *sums, size_t position, int n, bool add, float *const *taps)
{
	int t = m + r - 1;

	for (int k = 0; k < n; k += VL)
	{
		vf d[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS], e[CPU_MAX_POSITIONS * CPU_MAX_POSITIONS];

#pragma GCC unroll 16
		for (int i = 0; i < t * t; i++)
			d[i] = *(const vf_any *) (sums + i * position + k);
#pragma GCC unroll 4
		for (int i = 0; i < t; i++)
			grad_out_1d(m, r, d + i, t, e + i, t);
#pragma GCC unroll 4
		for (int i = 0; i < r; i++)
			grad_out_1d(m, r, e + i * t, 1, d + i * r, 1);
#pragma GCC unroll 9
		for (int i = 0; i < r * r; i++)
			store_f32(taps[i] + k, add ? d[i] + load_f32(taps[i] + k, n - k) : d[i], n - k);
	}
}

static void
grad_out(int m, int r, const float *sums, size_t position, int n, bool add, float *const *taps)
{
	if (r == 3)
		grad_out_body(2, 3, sums, position, n, add, taps);
	else if (m == 3)
		grad_out_body(3, 2, sums, position, n, add, taps);
	else
		grad_out_body(2, 2, sums, position, n, add, taps);
}

#include "nn/cpu/kernel.inc.h"
#include "nn/cpu/cpu_train_kernels.inc.h"

const CpuKernels KERNELS = {
	.name = KERNELS_NAME,
	.lanes = VL,
	.fp32 = &kernel_fp32,
	.bf16 = &kernel_bf16,
	.tile_in = tile_in,
	.tile_out = tile_out,
	.tile_taps = tile_taps,
	.grad_in = grad_in,
	.grad_out = grad_out,
	.moments = moments,
	.join = join,
	.apply = apply,
	.add = add,
	.pool = pool,
	.maxpool = maxpool,
	.embed = embed,
	.blend = blend,
	.linear = linear,
	.train = &train_kernels,
};
