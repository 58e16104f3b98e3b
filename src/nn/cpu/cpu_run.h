/*
 * cpu_run.h
 *	  A plan on the CPU and one run of it: what cpu_plan.c, cpu_run.c, cpu_ops.c
 *	  and cpu_tiles.c share.
 */
#ifndef BICYCLE_NN_CPU_RUN_H
#define BICYCLE_NN_CPU_RUN_H

#include "nn/cpu/cpu.h"

/* Where a value's images are in this run. */
typedef struct CpuValue
{
	char *data;
	ptrdiff_t pitch; /* elements from pixel to pixel */
	size_t image;    /* elements from image to image */
	bool bf16;
} CpuValue;

typedef struct CpuStep
{
	int node;
	/* its last node: a NORM_ACT or AVGPOOL after a convolution, or itself */
	int end;
	int chunk; /* images convolved before they are finished */
} CpuStep;

typedef struct CpuPlan
{
	const CpuLayers *layers; /* the model's own, or those below */
	CpuLayers resized;       /* at another size than the model's own */
	CpuStep *steps;
	int nsteps;
	CpuValue *values;     /* one a value of the graph */
	bool *direct;         /* a binding of this value is used in place */
	float *results;       /* convolutions' results of a chunk */
	char *frames;         /* their inputs */
	float *latents;       /* and what the latent adds, (chunk, row class, column class, c) */
	CpuMoments *moments;  /* CpuMoments of a norm's stretches, (chunk, unit, stretch) */
	float *tiles;         /* transformed tiles that the team shares */
	size_t scratch_bytes; /* of each thread */
} CpuPlan;

/* One call of cpu_run. */
typedef struct CpuCall
{
	CpuDevice *device;
	NnPlan *plan;
	const CpuPacked *packed;
	CpuPlan *p;
	bool bf16;
} CpuCall;

static inline NnShape
shape_of(const NnPlan *plan, int value)
{
	return plan->graph->values[value].shape;
}

static inline size_t
element_size(bool bf16)
{
	return bf16 ? 2 : 4;
}

static inline char *
pixel(const CpuValue *v, size_t image, size_t index)
{
	return v->data + (image * v->image + index * v->pitch) * element_size(v->bf16);
}

static inline CpuOut
out_pixel(const CpuValue *v, size_t image, size_t index)
{
	return (CpuOut){ pixel(v, image, index), v->pitch, v->bf16, { 0 } };
}

/* Floats of what the latent of one image adds, for all classes of positions. */
static inline size_t
latent_floats(const CpuLayer *layer)
{
	return layer->nz > 0 ? (size_t) layer->rows.n * layer->columns.n * layer->out.c : 0;
}

/* Floats from one part of the results of so many images to the next. */
static inline size_t
part_step(const CpuLayer *layer, int images)
{
	const CpuLayout *l = &layer->layout;

	/* tiles have all parts of an image together */
	return l->elements / l->c * l->part * (l->algorithm == CPU_FRAMES ? images : 1);
}

/* Operators (cpu_run.c, cpu_ops.c), tiles and frames: all threads call them. */
#define CPU_RUN_DECLARE(OP, name) extern void cpu_run_##name(CpuCall *call, const CpuStep *step);
#define CPU_RUN_NONE(OP, name)
NN_OPERATORS(CPU_RUN_DECLARE, CPU_RUN_NONE, CPU_RUN_DECLARE)

/* Frames of some images, and their live taps' places. */
typedef struct CpuFrames
{
	const CpuKernels *kernels;
	const CpuKernel *kernel;
	const CpuFraming *f;
	NnShape in; /* of an image */
	int n;
	size_t plane; /* elements of a parity of rows */
	char *data;
	CpuTap taps[CPU_MAX_TAPS];
} CpuFrames;

#define CPU_MAX_BAND 960

/* cpu_frame.c; also used by training */
extern CpuFrames cpu_frames(const CpuKernels *kernels, const CpuKernel *kernel, const CpuFraming *f,
							NnShape in, int n, void *data);
extern void cpu_lay_frames(const CpuFrames *frames, const CpuValue *x, int i0);
extern int cpu_frame_panels(const CpuKernel *kernel, const CpuFraming *f);
extern int cpu_frame_positions(const CpuFraming *f, int n, int h, int w);
extern int cpu_frame_band(const CpuKernel *kernel, const CpuFraming *f);
extern void cpu_run_frames(CpuCall *call, const CpuLayer *layer, const CpuValue *x, int i0, int n,
						   int chunk);

/* A convolution by tiles, as each thread of the team has it. */
typedef struct CpuTileRun
{
	const CpuKernels *kernels;
	const CpuLayer *layer;
	const CpuValue *x;
	const float *zeros; /* a pixel outside every image */
	float *v;           /* of tiles that the team shares */
	float *scratch;     /* the thread's */

	/*
	 * Of training. Where columns are shared, `pack` makes n panels of weights
	 * as they would lie in layer->tile_weights. Results have a bias, unless it
	 * is NULL, or are added to what is there.
	 */
	void (*pack)(const struct CpuTileRun *run, int phase, int panel, int n, float *u);
	const void *weights;
	const float *bias;
	bool add;
} CpuTileRun;

/* cpu_tiles.c; also used by training */
extern void cpu_tile_memory(const CpuKernels *kernels, const CpuLayer *layer, int n, bool packs,
							size_t *v, size_t *scratch);
extern void cpu_tile_pixels(const CpuTiling *t, int phase, int source, NnShape in,
							const CpuValue *images, int tile, const float *zeros,
							const float **pixels);
extern void cpu_run_tiles(const CpuTileRun *run, int i0, int n, float *results);

#endif /* BICYCLE_NN_CPU_RUN_H */
