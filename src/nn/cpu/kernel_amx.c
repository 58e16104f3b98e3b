/*
 * kernel_amx.c
 *	  The kernel of AMX, and whether the processor and the system have it.
 *
 * Nothing here is compiled for AVX-512.
 */
#define TILE_SIDE 16 /* rows, and numbers of 32 bits in one */

#if defined(__AMX_BF16__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nn/cpu/kernel.h"

#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define TILE_STREAM(t, from, stride) _tile_stream_loadd(t, from, stride)
#define TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define TILE_MULTIPLY(c, a, b) _tile_dpbf16ps(c, a, b)

/* Linux gives tiles only to a process that asks; its threads inherit that. */
static bool
amx_permitted(void)
{
	enum
	{
		ARCH_REQ_XCOMP_PERM = 0x1023,
		XFEATURE_XTILEDATA = 18,
		AMX_BF16_AND_TILE = 1 << 22 | 1 << 24
	};
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
		   (d & AMX_BF16_AND_TILE) == AMX_BF16_AND_TILE &&
		   syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static void
amx_start(void)
{
	struct
	{
		uint8_t palette, start_row, reserved[14];
		uint16_t bytes[16];
		uint8_t rows[16];
	} config __attribute__((aligned(64))) = { .palette = 1 };

	for (int i = 0; i < 8; i++)
	{
		config.bytes[i] = 64;
		config.rows[i] = TILE_SIDE;
	}
	/* gcc 12 does not know that the next line reads it */
	__asm__ volatile("" : : "r"(&config) : "memory");
	_tile_loadconfig(&config);
}

static void
amx_stop(void)
{
	_tile_release();
}

#include "nn/cpu/kernel_amx.inc.h"

const CpuKernel *
cpu_amx(void)
{
	return amx_permitted() ? &kernel_amx : NULL;
}

#else

/* Built for another processor. */
#include "nn/cpu/kernel.h"

const CpuKernel *
cpu_amx(void)
{
	return NULL;
}

#endif
