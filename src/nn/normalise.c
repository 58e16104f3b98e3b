/*
 * normalise.c
 *	  Bytes of images and the networks' numbers in [-1, 1]. Pure functions.
 */
#include "nn/nn.h"

#include <math.h>
#include <string.h>

void
nn_normalise(const uint8_t *bytes, size_t count, float *out)
{
	float table[256];

	for (int i = 0; i < 256; i++)
		table[i] = ((float) i / 255.0f - 0.5f) / 0.5f;
	for (size_t i = 0; i < count; i++)
		out[i] = table[bytes[i]];
}

static inline int32_t
bits_of_float(float number)
{
	int32_t bits;

	memcpy(&bits, &number, sizeof(bits));
	return bits;
}

static inline float
float_of_bits(int32_t bits)
{
	float number;

	memcpy(&number, &bits, sizeof(number));
	return number;
}

/*
 * Bits of floats from 0 on are in order, as integers. Where floats are 2^23 and
 * more they have none behind the point, so that what is added to such a one is
 * rounded, of two that are as near to the even one, and stands in the last
 * bits. No rintf, and no comparison of floats: a compiler makes vectors of it.
 * What is no number becomes 0.
 */
void
nn_quantise(const float *values, size_t count, uint8_t *out)
{
	const int32_t most = bits_of_float(255.0f), infinite = bits_of_float(INFINITY);

	for (size_t i = 0; i < count; i++)
	{
		int32_t level = bits_of_float((values[i] + 1.0f) * 127.5f);

		level &= -(int32_t) ((level > 0) & (level <= infinite));
		level = level < most ? level : most;
		out[i] = (uint8_t) bits_of_float(float_of_bits(level) + 0x1p23f);
	}
}
