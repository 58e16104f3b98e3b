/*
 * cpu_kernels_avx2.c
 *	  The vector kernels for AVX2 with FMA.
 */
#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#define VL 8
#define VFMA(a, b, c) ((vf) _mm256_fmadd_ps((__m256) (a), (__m256) (b), (__m256) (c)))
#define VMAX(a, b) ((vf) _mm256_max_ps((__m256) (a), (__m256) (b)))
#define VMIN(a, b) ((vf) _mm256_min_ps((__m256) (a), (__m256) (b)))
#define LANES(n) _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define VLOADN(p, n) _mm256_maskload_ps(p, LANES(n))
#define VSTOREN(p, v, n) _mm256_maskstore_ps(p, LANES(n), (__m256) (v))
#define AHEAD 4096
#define AHEAD_ONCE true
#define BLOCK_ROWS 6
#define KERNELS cpu_kernels_avx2
#define KERNELS_NAME "AVX2"

#include "nn/cpu/cpu_kernels.inc.h"

#else

/* Built for another processor: never chosen, but the table must exist. */
#include "nn/cpu/cpu_kernels.h"

const CpuKernels cpu_kernels_avx2;

#endif
