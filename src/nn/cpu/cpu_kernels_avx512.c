/*
 * cpu_kernels_avx512.c
 *	  The vector kernels for AVX-512 (F, BW, DQ, VL).
 */
#if defined(__AVX512F__)

#include <immintrin.h>

#define VL 16
#define VFMA(a, b, c) ((vf) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#define VMAX(a, b) ((vf) _mm512_max_ps((__m512) (a), (__m512) (b)))
#define VMIN(a, b) ((vf) _mm512_min_ps((__m512) (a), (__m512) (b)))
#define VWIDEN(half) ((vu) _mm512_cvtepu16_epi32((__m256i) (half)))
#define VNARROW(v) ((vh) _mm512_cvtepi32_epi16((__m512i) (v)))
#define LANES(n) ((__mmask16) ((1u << (n)) - 1))
#define VLOADN(p, n) _mm512_maskz_loadu_ps(LANES(n), p)
#define VSTOREN(p, v, n) _mm512_mask_storeu_ps(p, LANES(n), (__m512) (v))
#define AHEAD 32768
#define AHEAD_ONCE false
#define BLOCK_ROWS 14
#define KERNELS cpu_kernels_avx512
#define KERNELS_NAME "AVX-512"

#include "nn/cpu/cpu_kernels.inc.h"

#else

/* Built for another processor: never chosen, but the table must exist. */
#include "nn/cpu/cpu_kernels.h"

const CpuKernels cpu_kernels_avx512;

#endif
