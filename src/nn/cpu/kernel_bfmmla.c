/*
 * kernel_bfmmla.c
 *	  The kernel of BFMMLA, and whether the processor has it.
 */
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

#define BFMMLA(sum, a, b) \
	((BfmmlaSums) vbfmmlaq_f32((float32x4_t) (sum), (bfloat16x8_t) (a), (bfloat16x8_t) (b)))

#include "nn/cpu/kernel_bfmmla.inc.h"

const CpuKernel *
cpu_bfmmla(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_BF16 ? &kernel_bfmmla : NULL;
}

#else

/* Built for another processor. */
#include "nn/cpu/kernel.h"

const CpuKernel *
cpu_bfmmla(void)
{
	return NULL;
}

#endif
