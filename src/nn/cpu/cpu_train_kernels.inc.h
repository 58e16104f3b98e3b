/*
 * cpu_train_kernels.inc.h
 *	  Bodies of the vector kernels of training (cpu_train_kernels.h); a part of
 *	  cpu_kernels.inc.h, whose helpers and parameters it uses.
 */
#include "nn/cpu/cpu_train_kernels.h"

/* ---- Operands of products ------------------------------------------------ */

/* Numbers from j on of a row of n; zeros where there are none. */
INLINE vf
row_part(const float *row, int j, int n)
{
	return row && j < n ? load_f32(row + j, n - j) : set1(0.0f);
}

/* `pair` rows in one panel, of numbers from j on. */
INLINE void
pack_pair(const float *const *rows, int j, int n, int columns, int pair, char *to)
{
	for (int end = j + columns; j < end; j += VL, to += VL * (pair == 1 ? 4 : 2 * pair))
	{
		vf x = row_part(rows[0], j, n);

		if (pair == 1)
			store_f32((float *) to, x, end - j);
		else if (pair == 2)
		{
			vu words = bf16_bits(x) | bf16_bits(row_part(rows[1], j, n)) << 16;

			store_f32((float *) to, (vf) words, end - j);
		}
		else
			for (int i = 0; i < pair; i++)
			{
				vu bits = bf16_bits(row_part(rows[i], j, n));

				for (int lane = 0; lane < VL && j + lane < end; lane++)
					((uint16_t *) to)[lane * pair + i] = (uint16_t) bits[lane];
			}
	}
}

static void
pack_rows(const float *const *rows, int k, int n, const CpuKernel *kernel, void *to, size_t panel)
{
	int columns = kernel->columns, pair = kernel->pair;
	char *first = to;

	for (; k > 0; k -= pair, rows += pair, first += (size_t) columns * pair * kernel->bytes)
	{
		char *at = first;

		for (int j = 0; j < n; j += columns, at += panel)
		{
			if (pair == 1)
				pack_pair(rows, j, n, columns, 1, at);
			else if (pair == 2)
				pack_pair(rows, j, n, columns, 2, at);
			else
				pack_pair(rows, j, n, columns, pair, at);
		}
	}
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vu){ __VA_ARGS__ })
#endif

/* X of each lane, and d. */
#if VL == 4
#define EACH_LANE(X, d) X(0, d), X(1, d), X(2, d), X(3, d)
#elif VL == 8
#define EACH_LANE(X, d) X(0, d), X(1, d), X(2, d), X(3, d), X(4, d), X(5, d), X(6, d), X(7, d)
#else
#define EACH_LANE(X, d)                                                                       \
	X(0, d), X(1, d), X(2, d), X(3, d), X(4, d), X(5, d), X(6, d), X(7, d), X(8, d), X(9, d), \
		X(10, d), X(11, d), X(12, d), X(13, d), X(14, d), X(15, d)
#endif

/* Lanes of two rows d apart once blocks of d lanes have changed places. */
#define UPPER(lane, d) ((lane) & (d) ? VL + (lane) - (d) : (lane))
#define LOWER(lane, d) ((lane) & (d) ? VL + (lane) : (lane) + (d))
#define CROSS(d)                                                                    \
	_Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) if (!(i & (d)))           \
	{                                                                               \
		vu upper = SHUFFLE(square[i], square[i + (d)], EACH_LANE(UPPER, d));        \
                                                                                    \
		square[i + (d)] = SHUFFLE(square[i], square[i + (d)], EACH_LANE(LOWER, d)); \
		square[i] = upper;                                                          \
	}

/* VL x VL words turned round. */
INLINE void
turn_square(vu *square)
{
	CROSS(1)
	CROSS(2)
#if VL >= 8
	CROSS(4)
#endif
#if VL >= 16
	CROSS(8)
#endif
}

/* n numbers of bfloat16 from i on of two rows, as words. */
INLINE vu
joined_rows(const uint16_t *row, ptrdiff_t step, int n)
{
	return (vu) load_bf16(row, n) >> 16 | (vu) load_bf16(row + step, n);
}

INLINE void
turn_body(const void *from, ptrdiff_t step, bool halves, int rows, int n, void *to,
		  ptrdiff_t to_step)
{
	for (int j = 0; j < rows; j += VL)
		for (int i = 0; i < n; i += VL)
		{
			vu square[VL];

#pragma GCC unroll 16
			for (int lane = 0; lane < VL; lane++)
			{
				ptrdiff_t row = j + lane;

				if (row >= rows)
					square[lane] = (vu){ 0 };
				else if (halves)
					square[lane] =
						joined_rows((const uint16_t *) from + 2 * row * step + i, step, n - i);
				else
					square[lane] = (vu) load_f32((const float *) from + row * step + i, n - i);
			}
			turn_square(square);
#pragma GCC unroll 16
			for (int lane = 0; lane < VL; lane++)
				if (i + lane < n)
					store_f32((float *) to + (i + lane) * to_step + j, (vf) square[lane], rows - j);
		}
}

static void
turn_rows(const void *from, ptrdiff_t step, bool halves, int rows, int n, void *to,
		  ptrdiff_t to_step)
{
	if (halves)
		turn_body(from, step, true, rows, n, to, to_step);
	else
		turn_body(from, step, false, rows, n, to, to_step);
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
	.pack_rows = pack_rows,
	.turn = turn_rows,
	.norm_moments = norm_moments,
	.norm = norm_forward,
	.norm_sums = norm_sums,
	.norm_gradient = norm_gradient,
};
