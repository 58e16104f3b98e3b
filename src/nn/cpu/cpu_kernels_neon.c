/*
 * cpu_kernels_neon.c
 *	  The vector kernels for Arm's processors of 64 bits, which all have NEON.
 */
#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

#define VL 4
#define VFMA(a, b, c) ((vf) vfmaq_f32((float32x4_t) (c), (float32x4_t) (a), (float32x4_t) (b)))
/* no maximum of the processor's takes b where a is not a number */
#define VMAX(a, b) ((vf) neon_choose(vcgtq_f32(a, b), a, b))
#define VMIN(a, b) ((vf) neon_choose(vcltq_f32(a, b), a, b))
#define VLOADN(p, n) neon_load_part(p, n)
#define VSTOREN(p, v, n) memcpy(p, &(v), (n) * sizeof(float))
#define AHEAD 0
#define AHEAD_ONCE false
#define BLOCK_ROWS 12
#define KERNELS cpu_kernels_neon
#define KERNELS_NAME "NEON"

static inline float32x4_t
neon_choose(uint32x4_t first, float32x4_t a, float32x4_t b)
{
	return vbslq_f32(first, a, b);
}

static inline float32x4_t
neon_load_part(const float *p, int n)
{
	float part[4] = { 0 };

	memcpy(part, p, n * sizeof(float));
	return vld1q_f32(part);
}

#include "nn/cpu/cpu_kernels.inc.h"

#else

/* Built for another processor: never chosen, but the table must exist. */
#include "nn/cpu/cpu_kernels.h"

const CpuKernels cpu_kernels_neon;

#endif
