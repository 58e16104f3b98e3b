/*
 * cpu_kernels_base.c
 *	  The vector kernels for any x86-64 (SSE2), or any other processor the
 *	  compiler knows vectors of four floats for.
 */
#define VL 4
#define VFMA(a, b, c) ((a) * (b) + (c))
#define VMAX(a, b) v_max(a, b)
#define VMIN(a, b) v_min(a, b)
#define VLOADN(p, n) v_load_part(p, n)
#define VSTOREN(p, v, n) memcpy(p, &(v), (n) * sizeof(float))
#define AHEAD 0
#define AHEAD_ONCE false
#define BLOCK_ROWS 6
#define KERNELS cpu_kernels_base
#define KERNELS_NAME "baseline"

#include <stdint.h>
#include <string.h>

typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));

static inline v4
v_load_part(const float *p, int n)
{
	v4 v = { 0 };

	memcpy(&v, p, n * sizeof(float));
	return v;
}

static inline v4
v_max(v4 a, v4 b)
{
	v4i take = a > b;

	return (v4) (((v4i) a & take) | ((v4i) b & ~take));
}

static inline v4
v_min(v4 a, v4 b)
{
	v4i take = a < b;

	return (v4) (((v4i) a & take) | ((v4i) b & ~take));
}

#include "nn/cpu/cpu_kernels.inc.h"
