/*
 * normalise.c
 *	  Bytes of images and the networks' numbers in [-1, 1]. Pure functions.
 */
#include "nn/nn.h"

#include <math.h>

void
nn_normalise(const uint8_t *bytes, size_t count, float *out)
{
	float table[256];

	for (int i = 0; i < 256; i++)
		table[i] = ((float) i / 255.0f - 0.5f) / 0.5f;
	for (size_t i = 0; i < count; i++)
		out[i] = table[bytes[i]];
}

void
nn_quantise(const float *values, size_t count, uint8_t *out)
{
	for (size_t i = 0; i < count; i++)
	{
		float level = rintf((values[i] + 1.0f) * 127.5f);

		out[i] = level >= 255.0f ? 255 : level > 0.0f ? (uint8_t) level : 0;
	}
}
