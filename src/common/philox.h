/*
 * philox.h
 *	  Philox4x32-10, for CUDA's kernels as for the CPU.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1,
 * 2, 3", SC 2011.
 */
#ifndef BICYCLE_PHILOX_H
#define BICYCLE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FUNCTION static __device__ __forceinline__
#else
#define PHILOX_FUNCTION static inline
#endif

/* Turns a counter in place into four random words, under the key k0, k1. */
PHILOX_FUNCTION void
philox_rounds(uint32_t c[4], uint32_t k0, uint32_t k1)
{
	for (int round = 0; round < 10; round++)
	{
		uint64_t p0 = (uint64_t) 0xD2511F53 * c[0], p1 = (uint64_t) 0xCD9E8D57 * c[2];

		c[0] = (uint32_t) (p1 >> 32) ^ c[1] ^ k0;
		c[1] = (uint32_t) p1;
		c[2] = (uint32_t) (p0 >> 32) ^ c[3] ^ k1;
		c[3] = (uint32_t) p0;
		k0 += 0x9E3779B9;
		k1 += 0xBB67AE85;
	}
}

#endif /* BICYCLE_PHILOX_H */
