/*
 * cpu.h
 *	  Inside of the CPU device: what cpu_pack.c makes of a graph's layers and
 *	  cpu_run.c executes.
 *
 * How bits are kept independent of batch, threads and load: a layer is cut into
 * units by its own shape alone (cpu_layout.c), a unit is a single-threaded
 * piece of work, and threads only take units in some order. No sum is ever
 * split between units. oneDNN's primitives are therefore made and run with one
 * thread each; the parallelism is ours.
 *
 * Packed weights, and primitives for the model's own size, belong to the model
 * (CpuPacked) and are shared by all plans; buffers, and primitives for another
 * size, belong to the plan (CpuPlan), scratch memory of a thread to the device.
 */
#ifndef BICYCLE_NN_CPU_H
#define BICYCLE_NN_CPU_H

#include "nn/cpu/dnnl_compat.h"
#include "nn/border.h"
#include "nn/device.h"
#include "nn/cpu/cpu_kernels.h"
#include "nn/cpu/cpu_tiles.h"

/* How the pixels of a convolution's result lie in memory. */
typedef enum CpuForm
{
	CPU_PLAIN,  /* [channel part][y][x][channel] */
	CPU_PHASES, /* transposed: [y % 2][x % 2] of [channel part][y / 2][x / 2][channel] */
	/* few channels, Y = y + 1, X = x + 1: [Y / 2][X / 2][Y % 2][X % 2][c] */
	CPU_GRID
} CpuForm;

/* By what a convolution is computed. */
typedef enum CpuAlgorithm
{
	CPU_DNNL, /* oneDNN, in units of some rows and channels */
	CPU_TILES /* cpu_tiles.c */
} CpuAlgorithm;

/* How one image is convolved, and how the result lies in memory. */
typedef struct CpuLayout
{
	CpuAlgorithm algorithm;
	CpuForm form;
	int phases; /* 1, or 4 of CPU_PHASES */
	int kernel; /* of the convolutions run: 2 for transposed ones */
	int stride;
	int h, w,        /* extents of the result of one phase */
		c;           /* its channels; 4 times the layer's in CPU_GRID */
	int part;        /* channels that lie together; with oneDNN, those of a unit */
	int band;        /* rows of a unit; oneDNN */
	size_t elements; /* floats of the whole result */
} CpuLayout;

/* Some rows to some channels: one oneDNN primitive, run on one thread. */
typedef struct CpuUnit
{
	int primitive; /* index in the layer */
	dnnl_memory_t weights;
	bool owner; /* frees the weights, which bands share */
	size_t src; /* elements from the image's start to the first row read */
	size_t dst; /* floats from the result's start */
} CpuUnit;

typedef struct CpuPrimitive
{
	int rows, /* of the result, and of the input with the padding around them */
		in_rows, pad_top, pad_bottom, pad_left, pad_right, channels;
	dnnl_primitive_desc_t desc;
	dnnl_primitive_t primitive;
	int id; /* among all of the model, for the memory objects of a thread */
} CpuPrimitive;

/* What a node needs besides its operands; zeros without parameters. */
typedef struct CpuLayer
{
	NnOp op;
	NnShape in, out; /* of one image of the step */
	CpuLayout layout;
	CpuUnit *units;
	int nunits;
	CpuPrimitive *primitives;
	int nprimitives;
	CpuTiling tiling; /* CPU_TILES */
	float *tile_weights;
	float *bias; /* (c); NULL if the layer has none */
	int nz;
	NnBorder rows, columns;
	float *z_weights; /* [row class][column class][nz][c]: sums over the valid taps */
	float *
		/*
		 * batch norm: center, offset, scale, shift, (c) each. LINEAR: weights
		 * (o, c); DISTANCE: (c)
		 */
		norm;
} CpuLayer;

/* The layers of a network for images of one size. */
typedef struct CpuLayers
{
	int n; /* one a node */
	CpuLayer *list;
	int nprimitives;
	size_t scratch_bytes; /* the most a primitive wants */
	size_t bytes;         /* of what they own */
} CpuLayers;

typedef struct CpuPacked
{
	NnPrecision precision;
	CpuLayers own; /* at the model's own size; those of other sizes borrow their weights */
	float *zeros;  /* a pixel outside every image */
	int nzeros;
} CpuPacked;

/* A thread's own things.  Grown only between runs. */
typedef struct CpuThread
{
	dnnl_stream_t stream;
	void *scratch;
	size_t scratch_bytes;
} CpuThread;

typedef struct CpuDevice
{
	NnDevice base;
	dnnl_engine_t engine;
	const CpuKernels *kernels;
	bool bf16;
	CpuThread *threads;
	int nthreads; /* of the array */
	char description[128];
} CpuDevice;

/* cpu_memory.c */
/* 64-byte aligned, huge pages where it pays; or NULL. Free with free(). */
extern void *cpu_alloc(size_t bytes);
extern NnStatus cpu_dnnl_fail(NnError *error, dnnl_status_t status, const char *what);
extern void cpu_free_threads(CpuDevice *device);
extern NnStatus cpu_ready_threads(CpuDevice *device, size_t scratch_bytes, NnError *error);

/* cpu_layout.c */
extern int cpu_step_end(const NnGraph *graph, int id);
extern NnNode cpu_step_conv(const NnGraph *graph, int id);
extern void cpu_layout(const NnNode *node, const NnNode *end, NnShape in, NnShape out,
					   NnPrecision precision, CpuLayout *layout, CpuTiling *tiling);
extern void cpu_resize_layout(const NnNode *node, NnShape in, NnShape out, CpuLayout *layout,
							  CpuTiling *tiling);
extern int cpu_checkpoint_tap(const CpuLayout *layout, int odd, int tap);
extern int cpu_leading_pad(const CpuLayout *layout, const NnNode *node, int odd);

/* cpu_tiles.c, also cpu_run.h */
extern size_t cpu_tile_weights(const CpuKernels *kernels, const CpuLayer *layer); /* floats */
extern void cpu_pack_tiles(const CpuKernels *kernels, const CpuLayer *layer, const NnNode *node,
						   const float *w, float *out);
extern int cpu_tile_block(const CpuKernels *kernels, const CpuTiling *tiling, int c);

/* cpu_pack.c */
extern NnStatus cpu_pack(NnDevice *base, NnPrecision precision, const NnGraph *graph,
						 const float *values, void **packed, size_t *bytes, NnError *error);
extern void cpu_pack_free(NnDevice *base, void *packed);

/*
 * The layers for the sizes of this graph, of the network that was packed. They
 * borrow its weights, and own a copy where oneDNN wants them in another layout.
 */
extern NnStatus cpu_resize_layers(CpuDevice *device, const CpuPacked *packed, const NnGraph *graph,
								  CpuLayers *layers, NnError *error);
extern void cpu_free_layers(CpuLayers *layers, bool borrowed);

/* cpu_plan.c, cpu_run.c; also cpu_run.h */
extern NnStatus cpu_prepare(NnDevice *base, NnPlan *plan, const void *packed, NnError *error);
extern NnStatus cpu_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings,
						int nbindings, NnError *error);
extern void cpu_release(NnDevice *base, NnPlan *plan);

#endif /* BICYCLE_NN_CPU_H */
