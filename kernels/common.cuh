/*
 * common.cuh
 *	  What the kernels share: element types, and vectors of eight channels.
 */
#ifndef BICYCLE_KERNELS_COMMON_CUH
#define BICYCLE_KERNELS_COMMON_CUH

#include "common/constants.h"
#include "launch.cuh"

#include <math.h>
#include <string.h>

/* ---- Elements ------------------------------------------------------------ */

KERNEL_LOCAL float
half_to_float(uint16_t bits)
{
	return __half2float(__ushort_as_half(bits));
}

KERNEL_LOCAL uint16_t
half_of_float(float x)
{
	return __half_as_ushort(__float2half_rn(x));
}

KERNEL_LOCAL float
bfloat_to_float(uint16_t bits)
{
	return __bfloat162float(__ushort_as_bfloat16(bits));
}

KERNEL_LOCAL uint16_t
bfloat_of_float(float x)
{
	return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/*
 * As nn_normalise and nn_quantise, to the bit: for the 256 there are, a product
 * and its rest are the quotient.
 */
KERNEL_LOCAL float
float_of_byte(uint8_t byte)
{
	const float share = 1.0f / 255.0f;
	float x = (float) byte, y = __fmul_rn(x, share);

	y = __fmaf_rn(__fmaf_rn(-y, 255.0f, x), share, y);
	return __fmul_rn(__fsub_rn(y, 0.5f), 2.0f);
}

KERNEL_LOCAL uint8_t
byte_of_float(float x)
{
	float level = rintf(__fmul_rn(__fadd_rn(x, 1.0f), 127.5f));

	return level >= 255.0f ? 255 : level > 0.0f ? (uint8_t) level : 0;
}

KERNEL_LOCAL float
load_element(const KernelMap *m, size_t at)
{
	switch (m->type)
	{
		case KERNEL_F32:
			return ((const float *) m->data)[at];
		case KERNEL_F16:
			return half_to_float(((const uint16_t *) m->data)[at]);
		case KERNEL_BF16:
			return bfloat_to_float(((const uint16_t *) m->data)[at]);
		case KERNEL_U8:
			break;
	}
	return float_of_byte(((const uint8_t *) m->data)[at]);
}

KERNEL_LOCAL void
store_element(const KernelMap *m, size_t at, float x)
{
	switch (m->type)
	{
		case KERNEL_F32:
			((float *) m->data)[at] = x;
			break;
		case KERNEL_F16:
			((uint16_t *) m->data)[at] = half_of_float(x);
			break;
		case KERNEL_BF16:
			((uint16_t *) m->data)[at] = bfloat_of_float(x);
			break;
		case KERNEL_U8:
			((uint8_t *) m->data)[at] = byte_of_float(x);
			break;
	}
}

/* ---- Vectors ------------------------------------------------------------- */

typedef union KernelPacket
{
	uint4 bits;
	float f[4];
	uint32_t pair[4]; /* of elements of half precision, the first in the low bits */
} KernelPacket;

KERNEL_LOCAL void
halves_to_floats(uint32_t bits, float v[2])
{
	__half2 pair;
	float2 wide;

	memcpy(&pair, &bits, sizeof(pair));
	wide = __half22float2(pair);
	v[0] = wide.x;
	v[1] = wide.y;
}

KERNEL_LOCAL uint32_t
halves_of_floats(const float v[2])
{
	__half2 pair = __floats2half2_rn(v[0], v[1]);
	uint32_t bits;

	memcpy(&bits, &pair, sizeof(bits));
	return bits;
}

/* A bfloat16 is the upper half of a float. */
KERNEL_LOCAL void
bfloats_to_floats(uint32_t bits, float v[2])
{
	v[0] = __uint_as_float(bits << 16);
	v[1] = __uint_as_float(bits & 0xffff0000u);
}

KERNEL_LOCAL uint32_t
bfloats_of_floats(const float v[2])
{
	__nv_bfloat162 pair = __floats2bfloat162_rn(v[0], v[1]);
	uint32_t bits;

	memcpy(&bits, &pair, sizeof(bits));
	return bits;
}

/*
 * Eight channels as they came from memory, so that several loads are under way
 * before the first is used: 16 bytes of half precision, or 32 of floats.
 */
typedef struct KernelRaw
{
	KernelPacket part[2];
} KernelRaw;

/* Whole vectors of a type; `at` in elements. */
KERNEL_LOCAL KernelRaw
load_whole(KernelType type, const void *data, size_t at)
{
	KernelRaw raw;

	if (type == KERNEL_F32)
	{
		raw.part[0].bits = *(const uint4 *) ((const float *) data + at);
		raw.part[1].bits = *(const uint4 *) ((const float *) data + at + 4);
	}
	else
		raw.part[0].bits = *(const uint4 *) ((const uint16_t *) data + at);
	return raw;
}

KERNEL_LOCAL void
unpack_whole(KernelType type, const KernelRaw *raw, float v[KERNEL_VECTOR])
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (type == KERNEL_F32)
		{
			v[i] = raw->part[0].f[i];
			v[4 + i] = raw->part[1].f[i];
		}
		else if (type == KERNEL_BF16)
			bfloats_to_floats(raw->part[0].pair[i], v + 2 * i);
		else
			halves_to_floats(raw->part[0].pair[i], v + 2 * i);
}

KERNEL_LOCAL void
store_whole(KernelType type, void *data, size_t at, const float v[KERNEL_VECTOR])
{
	KernelPacket low, high;

#pragma unroll
	for (int i = 0; i < 4; i++)
		if (type == KERNEL_F32)
		{
			low.f[i] = v[i];
			high.f[i] = v[4 + i];
		}
		else
			low.pair[i] =
				type == KERNEL_BF16 ? bfloats_of_floats(v + 2 * i) : halves_of_floats(v + 2 * i);
	if (type == KERNEL_F32)
	{
		*(uint4 *) ((float *) data + at) = low.bits;
		*(uint4 *) ((float *) data + at + 4) = high.bits;
	}
	else
		*(uint4 *) ((uint16_t *) data + at) = low.bits;
}

/* Elements [at, at + 8), but 0 from the count-th on. */
KERNEL_LOCAL void
load_some(const KernelMap *m, size_t at, int count, float v[KERNEL_VECTOR])
{
	KernelRaw raw;

	if (!m->vector || count < KERNEL_VECTOR)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = i < count ? load_element(m, at + i) : 0.0f;
		return;
	}
	raw = load_whole(m->type, m->data, at);
	unpack_whole(m->type, &raw, v);
}

/* Writes elements [at, at + 8), but none from the count-th on. */
KERNEL_LOCAL void
store_some(const KernelMap *m, size_t at, int count, const float v[KERNEL_VECTOR])
{
	if (!m->vector || count < KERNEL_VECTOR)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (i < count)
				store_element(m, at + i, v[i]);
	}
	else
		store_whole(m->type, m->data, at, v);
}

/* Channels [c0, c0 + 8) of a pixel, 0 from c on; whole: 16-byte loads. */
KERNEL_LOCAL void
load_vector(const KernelMap *m, size_t pixel, int c0, int c, float v[KERNEL_VECTOR])
{
	load_some(m, pixel * m->pitch + c0, c - c0, v);
}

/* Writes channels [c0, c0 + 8) of a pixel, but none from c on. */
KERNEL_LOCAL void
store_vector(const KernelMap *m, size_t pixel, int c0, int c, const float v[KERNEL_VECTOR])
{
	store_some(m, pixel * m->pitch + c0, c - c0, v);
}

/* ---- Vectors by the way of access ---------------------------------------- */

/* The way of access that maps of c channels allow; NULL: no such map. */
static inline KernelAccess
kernel_access(const KernelMap *const maps[], int n, int c)
{
	KernelAccess access = c % KERNEL_VECTOR == 0 ? (KernelAccess) maps[0]->type : KERNEL_ANY;

	for (int i = 0; i < n; i++)
		if (maps[i] && (!maps[i]->vector || maps[i]->type != maps[0]->type))
			access = KERNEL_ANY;
	return access;
}

KERNEL_LOCAL KernelRaw
load_raw(KernelAccess access, const KernelMap *m, size_t at, int count)
{
	KernelRaw raw;
	float v[KERNEL_VECTOR];

	if (access != KERNEL_ANY)
		return load_whole((KernelType) access, m->data, at);
	load_some(m, at, count, v);
#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		raw.part[0].f[i] = v[i];
		raw.part[1].f[i] = v[4 + i];
	}
	return raw;
}

KERNEL_LOCAL void
unpack_raw(KernelAccess access, const KernelRaw *raw, float v[KERNEL_VECTOR])
{
	unpack_whole(access == KERNEL_ANY ? KERNEL_F32 : (KernelType) access, raw, v);
}

/* As load_vector and store_vector. */
KERNEL_LOCAL void
load_typed(KernelAccess access, const KernelMap *m, size_t pixel, int c0, int c,
		   float v[KERNEL_VECTOR])
{
	KernelRaw raw = load_raw(access, m, pixel * m->pitch + c0, c - c0);

	unpack_raw(access, &raw, v);
}

KERNEL_LOCAL void
store_typed(KernelAccess access, const KernelMap *m, size_t pixel, int c0, int c,
			const float v[KERNEL_VECTOR])
{
	size_t at = pixel * m->pitch + c0;

	if (access == KERNEL_ANY)
		store_some(m, at, c - c0, v);
	else
		store_whole((KernelType) access, m->data, at, v);
}

/* Eight numbers of an array of one a channel, as scales are. */
KERNEL_LOCAL void
load_numbers(KernelAccess access, const float *numbers, int count, float v[KERNEL_VECTOR])
{
	if (access == KERNEL_ANY)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = i < count ? numbers[i] : 0.0f;
	}
	else
	{
		KernelRaw raw = load_whole(KERNEL_F32, numbers, 0);

		unpack_whole(KERNEL_F32, &raw, v);
	}
}

#endif /* BICYCLE_KERNELS_COMMON_CUH */
