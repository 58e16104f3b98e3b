/*
 * common.cuh
 *	  What the kernels share: launching, element types, vectors of eight
 *	  channels, activations.
 *
 * A kernel is written in the C that nvcc and a C compiler both understand, and
 * takes one struct by value, so that a launch can be kept and run again by
 * something other than a GPU: without nvcc, test/cuda/gpu_on_cpu.h runs the
 * same files on the CPU.
 */
#ifndef BICYCLE_KERNELS_COMMON_CUH
#define BICYCLE_KERNELS_COMMON_CUH

#include "common/constants.h"
#include "kernels.h"

#include <math.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define KERNEL_API extern "C"
#define KERNEL_LOCAL static __device__ __forceinline__
#define KERNEL(name, Args) static __global__ void __launch_bounds__(256) name(const Args a)
#define KERNEL_LAUNCH(name, gx, gy, gz, threads, stream, args)                    \
	(name<<<dim3(gx, gy, gz), dim3(threads), 0, (cudaStream_t) (stream)>>>(args), \
	 (int) cudaGetLastError())
#else
#include "gpu_on_cpu.h"
#endif

#define KERNEL_THREADS 256
#define KERNEL_WARP 32
#define KERNEL_TOO_LARGE 1 /* cudaErrorInvalidValue: more elements than a launch counts */

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

/* As nn_normalise and nn_quantise, operation by operation. */
KERNEL_LOCAL float
float_of_byte(uint8_t x)
{
	return __fdiv_rn(__fsub_rn(__fdiv_rn((float) x, 255.0f), 0.5f), 0.5f);
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
	uint16_t h[8];
} KernelPacket;

/* Channels [c0, c0 + 8) of a pixel, 0 from c on; whole: 16-byte loads. */
KERNEL_LOCAL void
load_vector(const KernelMap *m, size_t pixel, int c0, int c, float v[KERNEL_VECTOR])
{
	size_t at = pixel * m->pitch + c0;

	if (!m->vector || c0 + KERNEL_VECTOR > c)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = c0 + i < c ? load_element(m, at + i) : 0.0f;
	}
	else if (m->type == KERNEL_F32)
	{
		KernelPacket low, high;

		low.bits = *(const uint4 *) ((const float *) m->data + at);
		high.bits = *(const uint4 *) ((const float *) m->data + at + 4);
#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			v[i] = low.f[i];
			v[4 + i] = high.f[i];
		}
	}
	else
	{
		KernelPacket p;

		p.bits = *(const uint4 *) ((const uint16_t *) m->data + at);
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			v[i] = m->type == KERNEL_BF16 ? bfloat_to_float(p.h[i]) : half_to_float(p.h[i]);
	}
}

/* Writes channels [c0, c0 + 8) of a pixel, but none from c on. */
KERNEL_LOCAL void
store_vector(const KernelMap *m, size_t pixel, int c0, int c, const float v[KERNEL_VECTOR])
{
	size_t at = pixel * m->pitch + c0;

	if (!m->vector || c0 + KERNEL_VECTOR > c)
	{
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			if (c0 + i < c)
				store_element(m, at + i, v[i]);
	}
	else if (m->type == KERNEL_F32)
	{
		KernelPacket low, high;

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			low.f[i] = v[i];
			high.f[i] = v[4 + i];
		}
		*(uint4 *) ((float *) m->data + at) = low.bits;
		*(uint4 *) ((float *) m->data + at + 4) = high.bits;
	}
	else
	{
		KernelPacket p;

#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			p.h[i] = m->type == KERNEL_BF16 ? bfloat_of_float(v[i]) : half_of_float(v[i]);
		*(uint4 *) ((uint16_t *) m->data + at) = p.bits;
	}
}

/* Vectors of a pixel with c channels. */
static inline int
kernel_chunks(int c)
{
	return (c + KERNEL_VECTOR - 1) / KERNEL_VECTOR;
}

/* A thread a vector: `grid` of a kernel's arguments. */
typedef struct KernelGrid
{
	unsigned vectors; /* 0: more than 31 bits count */
	int chunks;       /* vectors of a pixel */
} KernelGrid;

static inline KernelGrid
kernel_grid(size_t pixels, int c)
{
	size_t vectors = pixels * kernel_chunks(c);
	KernelGrid grid = { vectors > INT32_MAX - KERNEL_THREADS ? 0 : (unsigned) vectors,
						kernel_chunks(c) };

	return grid;
}

#define KERNEL_LAUNCH_GRID(name, stream, args)                                                    \
	((args).grid.vectors == 0                                                                     \
		 ? KERNEL_TOO_LARGE                                                                       \
		 : KERNEL_LAUNCH(name, ((args).grid.vectors + KERNEL_THREADS - 1) / KERNEL_THREADS, 1, 1, \
						 KERNEL_THREADS, stream, args))

/* ---- Finishing a map ----------------------------------------------------- */

KERNEL_LOCAL int
axis_class(const KernelAxis *axis, int position)
{
	int k = 0;

	while (k + 1 < axis->n && position >= axis->first[k + 1])
		k++;
	return k;
}

/* Adds what the latent code of image n gives there to [c0, c0 + 8). */
KERNEL_LOCAL void
add_latent(const KernelFinish *f, int n, int at, int c0, float v[KERNEL_VECTOR])
{
	int k = axis_class(&f->rows, at / f->w) * f->columns.n + axis_class(&f->columns, at % f->w);
	const float *latent = f->latent + ((size_t) n * f->rows.n * f->columns.n + k) * f->c + c0;

#pragma unroll
	for (int i = 0; i < KERNEL_VECTOR; i++)
		if (c0 + i < f->c)
			v[i] += latent[i];
}

KERNEL_LOCAL void
store_outputs(const KernelFinish *f, size_t pixel, int c0, const float v[KERNEL_VECTOR])
{
#pragma unroll
	for (int k = 0; k < 2; k++)
	{
		float y[KERNEL_VECTOR];

		if (!f->out[k].map.data)
			continue;
#pragma unroll
		for (int i = 0; i < KERNEL_VECTOR; i++)
			y[i] = nn_act(f->out[k].act.second, nn_act(f->out[k].act.first, v[i]));
		store_vector(&f->out[k].map, pixel, c0, f->c, y);
	}
}

#endif /* BICYCLE_KERNELS_COMMON_CUH */
