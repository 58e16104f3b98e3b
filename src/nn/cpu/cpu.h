/*
 * cpu.h
 *	  Inside of the CPU device: what cpu_pack.c makes of a graph's layers and
 *	  cpu_run.c executes.
 *
 * How bits are kept independent of batch, threads and load: algorithm and order
 * of sums follow from a layer's own shape alone (cpu_layout.c). A unit is a
 * single-threaded piece of work, and threads take units in some order. How many
 * units there are may follow the team, as no sum depends on it: one number's is
 * never split between units, and a norm's joins stretches in the map's order.
 *
 * Packed weights belong to the model (CpuPacked) and are shared by all plans;
 * buffers, and what follows from another size than the model's own, belong to
 * the plan (CpuPlan), scratch memory of a thread to the device.
 */
#ifndef BICYCLE_NN_CPU_H
#define BICYCLE_NN_CPU_H

#include "nn/border.h"
#include "nn/device.h"
#include "nn/cpu/cpu_frame.h"
#include "nn/cpu/cpu_kernels.h"
#include "nn/cpu/cpu_tiles.h"

/* How the pixels of a convolution's result lie in memory. */
typedef enum CpuForm
{
	CPU_PLAIN, /* [channel part][y][x][channel] */
	/*
	 * transposed, Y = y + 1, X = x + 1: [part of columns][Y / 2][X /
	 * 2][column], columns being [Y % 2][X % 2][channel]
	 */
	CPU_GRID
} CpuForm;

/* By what a convolution is computed. */
typedef enum CpuAlgorithm
{
	CPU_FRAMES, /* cpu_frame.c */
	CPU_TILES   /* cpu_tiles.c */
} CpuAlgorithm;

/* How one image is convolved, and how the result lies in memory. */
typedef struct CpuLayout
{
	CpuAlgorithm algorithm;
	CpuForm form;
	int h, w,        /* extents of the result, or grid */
		c;           /* its channels; 4 times the layer's in CPU_GRID */
	int row;         /* pixels from one row to the next */
	int part;        /* channels that lie together */
	size_t elements; /* floats of the whole result */
} CpuLayout;

/* What a node needs besides its operands; zeros without parameters. */
typedef struct CpuLayer
{
	NnOp op;
	NnShape in, out; /* of one image of the step */
	CpuLayout layout;
	CpuFraming framing; /* CPU_FRAMES */
	void *frame_weights;
	CpuTiling tiling; /* CPU_TILES */
	float *tile_weights;
	float *bias; /* (c); NULL if the layer has none */
	int nz;
	NnBorder rows, columns;
	float *z_weights; /* [row class][column class][nz][c]: sums over the valid taps */
	float *
		/*
		 * batch norm: center, offset, scale, shift, (c) each. LINEAR: weights
		 * (o, c); EMBED: (c)
		 */
		norm;
} CpuLayer;

/* The layers of a network for images of one size. */
typedef struct CpuLayers
{
	int n; /* one a node */
	CpuLayer *list;
	size_t bytes; /* of what they own */
} CpuLayers;

typedef struct CpuPacked
{
	NnPrecision precision;
	const CpuKernel *kernel; /* of frames */
	CpuLayers own; /* at the model's own size; those of other sizes borrow their weights */
	float *zeros;  /* a pixel outside every image */
	int nzeros;
} CpuPacked;

/* A thread's own things.  Grown only between runs. */
typedef struct CpuThread
{
	void *scratch;
	size_t scratch_bytes;
} CpuThread;

typedef struct CpuDevice
{
	NnDevice base;
	const CpuKernels *kernels;
	const CpuKernel *bf16; /* of products; NULL: there is none */
	CpuThread *threads;
	int nthreads; /* of the array */
	char description[128];
} CpuDevice;

/* cpu_memory.c */
/* 64-byte aligned, huge pages where it pays; or NULL. Free with free(). */
extern void *cpu_alloc(size_t bytes);
extern void cpu_free_threads(CpuDevice *device);
extern NnStatus cpu_ready_threads(CpuDevice *device, size_t scratch_bytes, NnError *error);

/* cpu_layout.c */
extern int cpu_step_end(const NnGraph *graph, int id);
extern NnNode cpu_step_conv(const NnGraph *graph, int id);
extern void cpu_layout(const NnNode *node, const NnNode *end, const CpuKernel *kernel,
					   CpuLayer *layer);
extern bool cpu_train_layout(const NnNode *node, int pitch, CpuLayer *layer);
extern void cpu_resize_layout(const NnNode *node, CpuLayer *layer);

/* cpu_frame.c, also cpu_run.h */
extern void cpu_make_frame(const CpuKernel *kernel, CpuFraming *f, NnShape in, int h, int w);
extern void cpu_place_frame(CpuFraming *f, NnShape in, int h, int w);
extern size_t cpu_frame_bytes(const CpuKernel *kernel, const CpuFraming *f, int n);
extern size_t cpu_frame_weights(const CpuKernel *kernel, const CpuFraming *f); /* bytes */
extern void cpu_pack_frame(const CpuKernel *kernel, const CpuLayer *layer, const NnNode *node,
						   const float *w, void *out);

/* cpu_tiles.c, also cpu_run.h */
extern size_t cpu_tile_weights(const CpuKernels *kernels, const CpuLayer *layer); /* floats */
extern size_t cpu_tile_panel(const CpuKernels *kernels, const CpuLayer *layer, int phase);
extern int cpu_tile_tap(const CpuTiling *t, const NnNode *node, int a, int at, int odd);
extern void cpu_pack_tiles(const CpuKernels *kernels, const CpuLayer *layer, const NnNode *node,
						   const float *w, float *out);
extern int cpu_tile_block(const CpuKernels *kernels, const CpuTiling *tiling, int c);

/* cpu_pack.c */
extern NnStatus cpu_pack(NnDevice *base, NnPrecision precision, const NnGraph *graph,
						 const float *values, void **packed, size_t *bytes, NnError *error);
extern void cpu_pack_free(NnDevice *base, void *packed);
extern size_t cpu_pack_bytes(NnDevice *base, NnPrecision precision, const NnGraph *graph);

/* The layers for the sizes of this graph, with the packed network's weights. */
extern NnStatus cpu_resize_layers(CpuDevice *device, const CpuPacked *packed, const NnGraph *graph,
								  CpuLayers *layers, NnError *error);
extern void cpu_free_layers(CpuLayers *layers, bool borrowed);

/* cpu_plan.c, cpu_run.c; also cpu_run.h */
extern bool cpu_joins(const NnPlan *plan, int node);
extern NnStatus cpu_prepare(NnDevice *base, NnPlan *plan, const void *packed, NnError *error);
extern NnStatus cpu_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings,
						int nbindings, NnError *error);
extern void cpu_release(NnDevice *base, NnPlan *plan);

#endif /* BICYCLE_NN_CPU_H */
