/*
 * cpu_kernels.h
 *	  Vector kernels of the CPU device: one table of functions for each
 *	  instruction set, all compiled from cpu_kernels.inc.h.
 *
 * A kernel works on a run: `n` pixels, `step` elements apart, of which it takes
 * `c` consecutive channels. Channels never mix, and the order of sums over
 * pixels is fixed by the run alone; how callers cut channels into blocks
 * therefore never changes a bit. Kernels allocate nothing and share nothing.
 */
#ifndef BICYCLE_NN_CPU_KERNELS_H
#define BICYCLE_NN_CPU_KERNELS_H

#include "common/constants.h"
#include "nn/cpu/kernel.h"
#include "nn/ops.h"

/* Channels that one call of moments() or apply() may take. */
#define CPU_BLOCK 64

/*
 * Pixels of a stretch: with CPU_BLOCK channels they fit the first level cache,
 * so that two passes over them cost one of memory.
 */
#define CPU_STRETCH 64

/* Where pixels lie: element type, and elements from one to the next. */
typedef struct CpuRun
{
	const void *data;
	ptrdiff_t step;
	bool bf16;
} CpuRun;

/* Mean and sum of squared deviations so far, of each channel of a block. */
typedef struct CpuMoments
{
	int count;
	float mean[CPU_BLOCK];
	float m2[CPU_BLOCK];
} CpuMoments;

/* y = ((x - center[c]) + offset[c]) * scale[c] + shift[c] */
typedef struct CpuAffine
{
	const float *center;
	const float *offset;
	const float *scale;
	const float *shift;
} CpuAffine;

/* One reader's copy of the result. */
typedef struct CpuOut
{
	void *data;
	ptrdiff_t step;
	bool bf16;
	NnActChain act;
} CpuOut;

/* Most outputs of a tile, and positions it is computed in, along an axis. */
#define CPU_MAX_TILE 3
#define CPU_MAX_POSITIONS 4

typedef struct CpuKernels
{
	const char *name;
	int lanes; /* floats of a vector, of which a block of fp32 has whole ones */
	const CpuKernel *fp32, *bf16;

	/*
	 * Adds a run of x - center + offset; scale and shift are not read. It is
	 * the same as to take each stretch of it alone, and to join all in order.
	 */
	void (*moments)(CpuMoments *m, CpuRun src, int n, int c, const CpuAffine *affine);
	void (*join)(CpuMoments *m, const CpuMoments *stretch, int c);

	/* Writes act(affine(x)) to each of the outputs. */
	void (*apply)(CpuRun src, int n, int c, const CpuAffine *affine, const CpuOut *out, int nouts);

	/* dst = a + b */
	void (*add)(CpuRun a, CpuRun b, int n, int c, const CpuOut *dst);

	/*
	 * dst = the mean of ny x nx pixels of src, rows `row` elements apart, times
	 * their number times `weight`; any c
	 */
	void (*pool)(CpuRun src, int ny, int nx, ptrdiff_t row, float weight, int c, const CpuOut *dst);

	/* dst = the largest of them; any c */
	void (*maxpool)(CpuRun src, int ny, int nx, ptrdiff_t row, int c, const CpuOut *dst);

	/*
	 * dst = n pixels one behind the other, each divided by its length, times
	 * share, times a channel's root; any c
	 */
	void (*embed)(CpuRun src, int n, int c, float share, const float *root, const CpuOut *dst);

	/* dst = the sum of four pixels by weight; any c */
	void (*blend)(const void *const src[4], bool bf16, const float weight[4], int c,
				  const CpuOut *dst);

	/*
	 * Tiles (cpu_tiles.c). tile_in transforms (m + r - 1)^2 pixels of c
	 * channels into as many positions, `position` floats apart, zero-filled to
	 * whole vectors. m = 1 copies one pixel. tile_out makes the m^2 outputs
	 * (NULL: not wanted) of c channels from the positions, with a bias (NULL:
	 * none), or adds them to what is there. tile_taps transforms rows of n
	 * numbers of r^2 taps (NULL: zeros), zero-filled to `columns`; m > 1.
	 *
	 * The other way round, of the gradient of taps: grad_in transforms m^2
	 * pixels of results (NULL: zeros) into panels of `columns`, zero-filled,
	 * `panel` floats apart. grad_out makes r^2 rows of n numbers from the
	 * positions, or adds them.
	 */
	void (*tile_in)(int m, int r, const float *const *pixels, int c, float *v, size_t position);
	void (*tile_out)(int m, int r, const float *sums, size_t position, int c, const float *bias,
					 bool add, float *const *out);
	void (*tile_taps)(int m, int r, const float *const *taps, int n, int columns, float *u,
					  size_t position);
	void (*grad_in)(int m, int r, const float *const *pixels, int c, int columns, float *d,
					size_t position, size_t panel);
	void (*grad_out)(int m, int r, const float *sums, size_t position, int n, bool add,
					 float *const *taps);

	const struct CpuTrainKernels *train;

	/* y[o] = b[o] + sum of x[i] * w[o][i] */
	void (*linear)(CpuRun x, int c, const float *w, const float *b, int o, const CpuOut *dst);
} CpuKernels;

extern const CpuKernels cpu_kernels_base;
extern const CpuKernels cpu_kernels_avx2;
extern const CpuKernels cpu_kernels_avx512;
extern const CpuKernels cpu_kernels_avx512bf16;
extern const CpuKernels cpu_kernels_neon;

#endif /* BICYCLE_NN_CPU_KERNELS_H */
