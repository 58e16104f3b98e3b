/*
 * cpu_train_kernels.inc.h
 *	  Bodies of the vector kernels of training (cpu_train_kernels.h); a part of
 *	  cpu_kernels.inc.h, whose helpers and parameters it uses.
 *
 * VDOT is that of kernel.inc.h.
 */
#include "nn/cpu/cpu_train_kernels.h"

#define PANEL (2 * VL)

/* ---- Products ------------------------------------------------------------ */

INLINE void
finish_half(const CpuTarget *t, int i, int half, vf sum)
{
	int n = t->columns - half;
	float *to = t->row[i] + t->first + half;

	if (n <= 0)
		return;
	if (t->add)
		sum = load_f32(to, n) + sum;
	else if (t->bias)
		sum = load_f32(t->bias + t->first + half, n) + sum;
	store_f32(to, sum, n);
}

/* n rows are in A, fewer may be wanted. narrow: at most VL columns are. */
INLINE void
multiply_body(int n, bool turned, bool narrow, int k, const float *a, const float *b,
			  const CpuTarget *t)
{
	vf sum[2 * ROWS];
	int unroll = turned ? 1 : VL;

#pragma GCC unroll 32
	for (int i = 0; i < 2 * n; i++)
		sum[i] = set1(0.0f);
	for (; k > 0; k -= unroll, a += n * unroll)
	{
#pragma GCC unroll 4
		for (int lane = 0; lane < unroll; lane++, b += PANEL)
		{
			vf b0 = *(const vf_any *) b, b1 = b0;

			if (!narrow)
				b1 = *(const vf_any *) (b + VL);
#pragma GCC unroll 16
			for (int i = 0; i < n; i++)
			{
				vf x = set1(a[i * unroll + lane]);

				sum[2 * i] = VFMA(x, b0, sum[2 * i]);
				if (!narrow)
					sum[2 * i + 1] = VFMA(x, b1, sum[2 * i + 1]);
			}
		}
	}
#pragma GCC unroll 16
	for (int i = 0; i < n; i++)
		if (i < t->rows)
		{
			finish_half(t, i, 0, sum[2 * i]);
			if (!narrow)
				finish_half(t, i, VL, sum[2 * i + 1]);
		}
}

static __attribute__((noinline)) void
multiply_turned(int k, const float *a, const float *b, const CpuTarget *t)
{
	if (t->columns <= VL)
		multiply_body(ROWS, true, true, k, a, b, t);
	else
		multiply_body(ROWS, true, false, k, a, b, t);
}

/* One function for each number of rows, so that sums stay in registers. */
#define MULTIPLY_ROW(n) [n] = multiply_##n,
#define MULTIPLY(n)                                                                           \
	static __attribute__((noinline)) void multiply_##n(int k, const float *a, const float *b, \
													   const CpuTarget *t)                    \
	{                                                                                         \
		if (t->columns <= VL)                                                                 \
			multiply_body(n, false, true, k, a, b, t);                                        \
		else                                                                                  \
			multiply_body(n, false, false, k, a, b, t);                                       \
	}
EACH_ROWS(MULTIPLY)

static void
multiply(int k, const float *a, const float *b, bool turned, const CpuTarget *t)
{
	static void (*const by_rows[])(int, const float *, const float *,
								   const CpuTarget *) = { EACH_ROWS(MULTIPLY_ROW) };

	if (turned)
		multiply_turned(k, a, b, t);
	else
		by_rows[t->rows](k, a, b, t);
}

typedef uint32_t vu_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t pair_any __attribute__((may_alias, aligned(2)));

INLINE void
multiply_bf16_body(int n, bool turned, int k, const uint16_t *a, const uint16_t *b,
				   const CpuTarget *t)
{
	vf sum[2 * ROWS];
	int unroll = turned ? 2 : VL;

#pragma GCC unroll 32
	for (int i = 0; i < 2 * n; i++)
		sum[i] = set1(0.0f);
	for (; k > 0; k -= unroll, a += n * unroll)
	{
#pragma GCC unroll 2
		for (int lane = 0; lane < unroll; lane += 2, b += 2 * PANEL)
		{
			vu b0 = *(const vu_any *) b, b1 = *(const vu_any *) (b + PANEL);

#pragma GCC unroll 16
			for (int i = 0; i < n; i++)
			{
				vu x = *(const pair_any *) (a + i * unroll + lane) - (vu){ 0 };

				sum[2 * i] = VDOT(sum[2 * i], x, b0);
				sum[2 * i + 1] = VDOT(sum[2 * i + 1], x, b1);
			}
		}
	}
#pragma GCC unroll 16
	for (int i = 0; i < n; i++)
		if (i < t->rows)
		{
			finish_half(t, i, 0, sum[2 * i]);
			finish_half(t, i, VL, sum[2 * i + 1]);
		}
}

#define MULTIPLY_BF16_ROW(n) [n] = multiply_bf16_##n,
#define MULTIPLY_BF16(n)                                                                           \
	static __attribute__((noinline)) void multiply_bf16_##n(int k, const uint16_t *a,              \
															const uint16_t *b, const CpuTarget *t) \
	{                                                                                              \
		multiply_bf16_body(n, false, k, a, b, t);                                                  \
	}
EACH_ROWS(MULTIPLY_BF16)

static void
multiply_bf16(int k, const uint16_t *a, const uint16_t *b, bool turned, const CpuTarget *t)
{
	static void (*const by_rows[])(int, const uint16_t *, const uint16_t *,
								   const CpuTarget *) = { EACH_ROWS(MULTIPLY_BF16_ROW) };

	if (turned)
		multiply_bf16_body(ROWS, true, k, a, b, t);
	else
		by_rows[t->rows](k, a, b, t);
}

static void
narrow(const float *from, size_t n, uint16_t *to)
{
	for (size_t i = 0; i < n; i += VL)
		store_bf16(to + i, load_f32(from + i, n - i < VL ? (int) (n - i) : VL),
				   n - i < VL ? (int) (n - i) : VL);
}

static void
narrow_pairs(const float *from, int k, int width, uint16_t *to)
{
	for (; k > 0; k -= 2, from += 2 * width, to += 2 * width)
		for (int j = 0; j < width; j += VL)
		{
			uint16_t pair[2][VL];
			int n = width - j < VL ? width - j : VL;

			store_bf16(pair[0], load_f32(from + j, n), VL);
			store_bf16(pair[1], load_f32(from + width + j, n), VL);
			for (int i = 0; i < n; i++)
			{
				to[2 * (j + i)] = pair[0][i];
				to[2 * (j + i) + 1] = pair[1][i];
			}
		}
}

static void
pack_pixels(const float *const *pixels, int rows, int c, float *a)
{
	for (int i = 0; i < rows; i++, a += VL)
	{
		const float *from = pixels[i];

		for (int k = 0; k < c; k += VL)
			*(vf_any *) (a + (size_t) k * rows) = from ? load_f32(from + k, c - k) : set1(0.0f);
	}
}

static void
pack_turned(const float *const *pixels, int npixels, int channel, float *a)
{
	for (int p = 0; p < npixels; p++, a += ROWS)
	{
		if (pixels[p])
			memcpy(a, pixels[p] + channel, ROWS * sizeof(float));
		else
			memset(a, 0, ROWS * sizeof(float));
	}
}

static void
pack_panel(const float *from, size_t step, int k, int n, float *b)
{
	for (; k > 0; k--, from += step, b += PANEL)
	{
		*(vf_any *) b = load_f32(from, n);
		*(vf_any *) (b + VL) = n > VL ? load_f32(from + VL, n - VL) : set1(0.0f);
	}
}

/* By a small square: rows a power of two apart share cache sets. */
static void
pack_panel_across(const float *from, size_t step, int k, int n, float *b)
{
	for (int k0 = 0; k0 < k; k0 += VL, b += VL * PANEL)
	{
		float square[PANEL][VL];
		int nk = k - k0 < VL ? k - k0 : VL;

		for (int j = 0; j < PANEL; j++)
			*(vf_any *) square[j] = j < n ? load_f32(from + j * step + k0, nk) : set1(0.0f);
		for (int i = 0; i < nk; i++)
			for (int j = 0; j < PANEL; j++)
				b[i * PANEL + j] = square[j][i];
	}
}

/* ---- Norms --------------------------------------------------------------- */

/* The slope of an activation at x; at 0 PyTorch's. */
INLINE vf
v_slope(NnActKind kind, vf x)
{
	vi positive = x > 0.0f;
	vf below = set1(1.0f);

	switch (kind)
	{
		case NN_ACT_NONE:
			return below;
		case NN_ACT_RELU:
			below = set1(0.0f);
			break;
		case NN_ACT_LRELU:
			below = set1((float) LRELU_SLOPE);
			break;
		case NN_ACT_ELU:
			below = v_expm1(VMIN(x, set1(0.0f))) + 1.0f;
			break;
		case NN_ACT_TANH:
			below = v_tanh(x);
			return 1.0f - below * below;
	}
	return (vf) (((vi) set1(1.0f) & positive) | ((vi) below & ~positive));
}

/* d times the slope of the chain at the value; `below` is chain_slope()'s. */
INLINE vf
through_chain(NnActChain act, float below, vf value, vf d)
{
	if (below >= 0)
	{
		vi positive = value > 0.0f;

		return (vf) (((vi) d & positive) | ((vi) (d * below) & ~positive));
	}
	return d * v_slope(act.second, v_act(act.first, value)) * v_slope(act.first, value);
}

/* Vector k of the channels of a norm. */
typedef struct NormVector
{
	int lanes;
	vf mean, inverse, scale, shift;
	float below[2];
} NormVector;

INLINE NormVector
norm_vector(const CpuNorm *norm, int k, int c)
{
	return (NormVector){ .lanes = c - k,
						 .mean = load_f32(norm->mean + k, c - k),
						 .inverse = load_f32(norm->inverse + k, c - k),
						 .scale = load_f32(norm->scale + k, c - k),
						 .shift = load_f32(norm->shift + k, c - k),
						 .below = { chain_slope(norm->act[0]), chain_slope(norm->act[1]) } };
}

/* The gradient g of pixel p, and x - mean there. */
INLINE vf
norm_pixel(const CpuNorm *norm, const NormVector *v, int k, ptrdiff_t p, vf *deviation)
{
	vf g = set1(0.0f), value, mask = set1(1.0f);

	*deviation = load_f32(norm->x.data + p * norm->x.step + k, v->lanes) - v->mean;
	value = *deviation * v->scale + v->shift;
	if (norm->mask.data)
	{
		mask = load_f32(norm->mask.data + p * norm->mask.step + k, v->lanes);
		value *= mask;
	}
	for (int i = 0; i < 2; i++)
		if (norm->dy[i].data)
			g += through_chain(norm->act[i], v->below[i], value,
							   load_f32(norm->dy[i].data + p * norm->dy[i].step + k, v->lanes));
	return norm->mask.data ? g * mask : g;
}

static void
norm_forward(const CpuNorm *norm, int n, int c)
{
	for (int k = 0; k < c; k += VL)
	{
		NormVector v = norm_vector(norm, k, c);

		for (ptrdiff_t p = 0; p < n; p++)
		{
			vf value = (load_f32(norm->x.data + p * norm->x.step + k, v.lanes) - v.mean) * v.scale +
					   v.shift;

			if (norm->mask.data)
				value *= load_f32(norm->mask.data + p * norm->mask.step + k, v.lanes);
			for (int i = 0; i < 2; i++)
				if (norm->y[i].data)
				{
					vf y = v.below[i] >= 0
							   ? VMAX(v.below[i] * value, value)
							   : v_act(norm->act[i].second, v_act(norm->act[i].first, value));

					store_f32(norm->y[i].data + p * norm->y[i].step + k, y, v.lanes);
				}
		}
	}
}

/* Stretches in single precision, joined in double (Chan et al. 1979). */
static void
norm_moments(CpuPixels x, int n, int c, double *mean, double *m2)
{
	for (int p0 = 0; p0 < n; p0 += CPU_NORM_PIXELS)
	{
		int np = n - p0 < CPU_NORM_PIXELS ? n - p0 : CPU_NORM_PIXELS;
		const float *first = x.data + p0 * x.step;

		for (int k = 0; k < c; k += VL)
		{
			vf sum = set1(0.0f), square = sum, centre;

			for (ptrdiff_t p = 0; p < np; p++)
				sum += load_f32(first + p * x.step + k, c - k);
			centre = sum / set1((float) np);
			for (ptrdiff_t p = 0; p < np; p++)
			{
				vf d = load_f32(first + p * x.step + k, c - k) - centre;

				square = VFMA(d, d, square);
			}
			for (int lane = 0; lane < VL && k + lane < c; lane++)
			{
				double delta = centre[lane] - mean[k + lane];

				mean[k + lane] += delta * np / (p0 + np);
				m2[k + lane] += square[lane] + delta * delta * p0 * np / (p0 + np);
			}
		}
	}
}

static void
norm_sums(const CpuNorm *norm, int n, int c, double *sum, double *product)
{
	for (int k = 0; k < c; k += VL)
	{
		NormVector v = norm_vector(norm, k, c);

		for (int p0 = 0; p0 < n; p0 += CPU_NORM_PIXELS)
		{
			int end = p0 + CPU_NORM_PIXELS < n ? p0 + CPU_NORM_PIXELS : n;
			vf s = set1(0.0f), q = s;

			for (int p = p0; p < end; p++)
			{
				vf deviation, g = norm_pixel(norm, &v, k, p, &deviation);

				s += g;
				q += g * (deviation * v.inverse);
			}
			for (int lane = 0; lane < VL && k + lane < c; lane++)
			{
				sum[k + lane] += s[lane];
				product[k + lane] += q[lane];
			}
		}
	}
}

static void
norm_gradient(const CpuNorm *norm, int n, int c, const float *mean_g, const float *mean_product,
			  CpuPixels dx, bool add)
{
	for (int k = 0; k < c; k += VL)
	{
		NormVector v = norm_vector(norm, k, c);
		vf mg = load_f32(mean_g + k, c - k), mp = load_f32(mean_product + k, c - k);

		for (ptrdiff_t p = 0; p < n; p++)
		{
			vf deviation, g = norm_pixel(norm, &v, k, p, &deviation);
			float *to = dx.data + p * dx.step + k;

			g = (g - mg - deviation * v.inverse * mp) * v.scale;
			if (add)
				g += load_f32(to, v.lanes);
			store_f32(to, g, v.lanes);
		}
	}
}

static const CpuTrainKernels train_kernels = {
	.automatic = NN_PRECISION_FP32,
	.lanes = VL,
	.rows = ROWS,
	.panel = PANEL,
	.multiply = multiply,
	.multiply_bf16 = multiply_bf16,
	.narrow = narrow,
	.narrow_pairs = narrow_pairs,
	.pack_pixels = pack_pixels,
	.pack_turned = pack_turned,
	.pack_panel = pack_panel,
	.pack_panel_across = pack_panel_across,
	.norm_moments = norm_moments,
	.norm = norm_forward,
	.norm_sums = norm_sums,
	.norm_gradient = norm_gradient,
};
