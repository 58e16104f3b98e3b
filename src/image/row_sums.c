/*
 * row_sums.c
 *	  Weighted sums of rows of bytes, and bytes turned so that columns become
 *	  rows: what both passes of resizing are made of.
 *
 * R1 A sum is exact modulo 2^32, whatever the order and the halves it is made
 *    in. The caller's weights keep the whole of it within 32 bits.
 * R2 Where the processor has it (every x86-64 does), two products of 16 bits
 *    are added by one instruction. A weight is its lower 16 bits, with a sign,
 *    and what is above them; both have a sum of their own.
 *
 * No state, no memory, no locks.
 */
#include "image/image_private.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define SOME_BYTES 64 /* whose sums fit in the nearest memory */
#define MOST_PAIRS 32 /* of rows that are added by vectors */

/* n is at most SOME_BYTES. */
static void
sum_some(const uint8_t *rows, size_t stride, const int32_t *weight, int count, size_t n,
		 uint8_t *to)
{
	int32_t sums[SOME_BYTES];

	for (size_t i = 0; i < n; i++)
		sums[i] = 1 << (IMAGE_WEIGHT_BITS - 1);
	for (int j = 0; j < count; j++, rows += stride)
		for (size_t i = 0; i < n; i++)
			sums[i] += weight[j] * rows[i];
	for (size_t i = 0; i < n; i++)
	{
		int32_t sum = sums[i] >> IMAGE_WEIGHT_BITS;

		to[i] = sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t) sum;
	}
}

static void
turn_some(const uint8_t *from, size_t stride, uint8_t *to, size_t to_stride, size_t width,
		  size_t height)
{
	for (size_t y = 0; y < height; y++)
		for (size_t x = 0; x < width; x++)
			to[x * to_stride + y] = from[y * stride + x];
}

#ifdef __SSE2__

/* Both halves of two weights, each for four sums of two products. */
typedef struct WeightPair
{
	__m128i lower, upper;
} WeightPair;

static inline WeightPair
weight_pair(int32_t a, int32_t b)
{
	int32_t upper_a = (a - (int16_t) a) / 65536, upper_b = (b - (int16_t) b) / 65536;

	return (WeightPair){ _mm_set1_epi32((int) (((uint32_t) a & 0xffff) | (uint32_t) b << 16)),
						 _mm_set1_epi32(
							 (int) (((uint32_t) upper_a & 0xffff) | (uint32_t) upper_b << 16)) };
}

static inline __m128i
load_16(const uint8_t *from)
{
	return _mm_loadu_si128((const __m128i *) from);
}

/* Of 16 bytes of two rows. */
static inline void
add_two(const uint8_t *a, const uint8_t *b, WeightPair weight, __m128i lower[4], __m128i upper[4])
{
	const __m128i zero = _mm_setzero_si128();
	__m128i pairs[2] = { _mm_unpacklo_epi8(load_16(a), load_16(b)),
						 _mm_unpackhi_epi8(load_16(a), load_16(b)) };

	for (int i = 0; i < 4; i++)
	{
		__m128i four = i % 2 == 0 ? _mm_unpacklo_epi8(pairs[i / 2], zero)
								  : _mm_unpackhi_epi8(pairs[i / 2], zero);

		lower[i] = _mm_add_epi32(lower[i], _mm_madd_epi16(four, weight.lower));
		upper[i] = _mm_add_epi32(upper[i], _mm_madd_epi16(four, weight.upper));
	}
}

/* The last of an odd number of rows is taken twice, once by a weight of 0. */
static void
sum_16(const uint8_t *rows, size_t stride, const WeightPair *weight, int count, uint8_t *to)
{
	__m128i lower[4], upper[4];

	for (int i = 0; i < 4; i++)
	{
		lower[i] = _mm_set1_epi32(1 << (IMAGE_WEIGHT_BITS - 1));
		upper[i] = _mm_setzero_si128();
	}
	for (int j = 0; j < count; j += 2, rows += 2 * stride)
		add_two(rows, j + 1 < count ? rows + stride : rows, weight[j / 2], lower, upper);
	for (int i = 0; i < 4; i++)
		lower[i] = _mm_srai_epi32(_mm_add_epi32(lower[i], _mm_slli_epi32(upper[i], 16)),
								  IMAGE_WEIGHT_BITS);
	_mm_storeu_si128((__m128i *) to, _mm_packus_epi16(_mm_packs_epi32(lower[0], lower[1]),
													  _mm_packs_epi32(lower[2], lower[3])));
}

/* Returns how many of the n bytes it has made. */
static size_t
sum_by_vectors(const uint8_t *rows, size_t stride, const int32_t *weight, int count, size_t n,
			   uint8_t *to)
{
	WeightPair pairs[MOST_PAIRS];
	size_t i = 0;

	if (n < 16 || count > 2 * MOST_PAIRS)
		return 0;
	for (int j = 0; j < count; j += 2)
		pairs[j / 2] = weight_pair(weight[j], j + 1 < count ? weight[j + 1] : 0);
	for (; n - i >= 16; i += 16)
		sum_16(rows + i, stride, pairs, count, to + i);
	return i;
}

/* Four times what is in the upper half is put between what is in the lower. */
static void
turn_16(const uint8_t *from, size_t stride, uint8_t *to, size_t to_stride)
{
	__m128i rows[16], mixed[16];

	for (int i = 0; i < 16; i++)
		rows[i] = load_16(from + (size_t) i * stride);
	for (int round = 0; round < 4; round++)
	{
		for (int i = 0; i < 8; i++)
		{
			mixed[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
			mixed[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
		}
		for (int i = 0; i < 16; i++)
			rows[i] = mixed[i];
	}
	for (int i = 0; i < 16; i++)
		_mm_storeu_si128((__m128i *) (to + (size_t) i * to_stride), rows[i]);
}

#else

static size_t
sum_by_vectors(const uint8_t *rows, size_t stride, const int32_t *weight, int count, size_t n,
			   uint8_t *to)
{
	return 0;
}

static void
turn_16(const uint8_t *from, size_t stride, uint8_t *to, size_t to_stride)
{
	turn_some(from, stride, to, to_stride, 16, 16);
}

#endif

void
image_sum_rows(const uint8_t *rows, size_t stride, const int32_t *weight, int count, size_t n,
			   uint8_t *to)
{
	for (size_t i = sum_by_vectors(rows, stride, weight, count, n, to), some; i < n; i += some)
	{
		some = n - i < SOME_BYTES ? n - i : SOME_BYTES;
		sum_some(rows + i, stride, weight, count, some, to + i);
	}
}

void
image_turn(const uint8_t *from, size_t stride, uint8_t *to, size_t to_stride, size_t width,
		   size_t height)
{
	size_t x = 0, y;

	for (; width - x >= 16; x += 16)
	{
		for (y = 0; height - y >= 16; y += 16)
			turn_16(from + y * stride + x, stride, to + x * to_stride + y, to_stride);
		turn_some(from + y * stride + x, stride, to + x * to_stride + y, to_stride, 16, height - y);
	}
	turn_some(from + x, stride, to + x * to_stride, to_stride, width - x, height);
}
