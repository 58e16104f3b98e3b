/*
 * cpu_finish.h
 *	  What follows a convolution, in one pass over its result: bias, latent,
 *	  norm, activations and the way to its one or two readers.
 */
#ifndef BICYCLE_NN_CPU_FINISH_H
#define BICYCLE_NN_CPU_FINISH_H

#include "nn/cpu/cpu.h"

/* The work for one image. A map of no convolution is CPU_PLAIN, one part. */
typedef struct CpuFinish
{
	CpuForm form;
	const void *src;
	bool src_bf16;
	ptrdiff_t step; /* elements from pixel to pixel */
	int row;        /* pixels from one row of the source to the next */
	int part;       /* channels that lie together; the next ones are `part_step` elements on */
	size_t part_step;
	int h, w, c;                  /* of the finished map */
	const float *bias;            /* (c) or NULL */
	const CpuLayer *latent_layer; /* whose classes `latent` follows */
	const float *latent;          /* [row class][column class][c] or NULL */
	NnNorm norm;
	/*
	 * center, offset, scale, shift of a batch norm; scale and shift count after
	 * an instance norm, too; or NULL
	 */
	const float *affine;
	int nouts;
	CpuOut out[2]; /* data points to the image's first pixel */
} CpuFinish;

/* Of a map of no convolution, without its source and outputs. */
extern CpuFinish cpu_finish_of_map(NnShape map, NnNorm norm);

/* A copy of n pixels of c channels, perhaps in another type. */
extern void cpu_copy_pixels(const CpuKernels *kernels, CpuRun from, int n, int c, CpuOut to);

/* The number at an element of floats or bfloat16. */
extern float cpu_element(const void *base, bool bf16, size_t at);

/* Instance norm of channels [c0, c0 + c), c <= CPU_BLOCK. */
extern void cpu_finish_channels(const CpuKernels *kernels, const CpuFinish *f, int c0, int c);

/* The most channels of a unit: all within a part. */
extern int cpu_finish_unit(const CpuFinish *f);

/*
 * The same by bands of rows [y0, y1): first the moments of each, to its place
 * among the map's stretches; when all are there, what is written. Bands are of
 * cpu_finish_band() rows, or of a multiple.
 */
extern int cpu_finish_band(const CpuFinish *f);
extern int cpu_finish_stretches(const CpuFinish *f, int y); /* of the rows before y */
extern void cpu_finish_moments(const CpuKernels *kernels, const CpuFinish *f, int c0, int c, int y0,
							   int y1, CpuMoments *stretches);
extern void cpu_finish_norm(const CpuKernels *kernels, const CpuFinish *f, int c0, int c, int y0,
							int y1, const CpuMoments *stretches);

/* Moments of all units of an image; 0: it is not to be cut in bands. */
extern size_t cpu_finish_all_stretches(const CpuFinish *f);

/* Other norms: rows [y0, y1) of the count, the map's but in CPU_GRID. */
extern int cpu_finish_row_count(const CpuFinish *f);
extern void cpu_finish_rows(const CpuKernels *kernels, const CpuFinish *f, int y0, int y1);

/* Dropout at inference, of a row of the finished outputs. */
extern void cpu_finish_drop(const CpuFinish *f, const NnNormArgs *norm, int y);

#endif /* BICYCLE_NN_CPU_FINISH_H */
