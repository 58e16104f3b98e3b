/*
 * cuda.h
 *	  Inside of the CUDA device.
 *
 * How it is loaded. bicycle_cuda.so holds this device, the kernels and CUDA's
 * static runtime; the engine opens it with dlopen when the device "cuda" or
 * "auto" is asked for (nn/device.c), so the engine itself needs nothing of
 * CUDA, and no PostgreSQL process ever loads any of it. It exports one symbol
 * (module.h) and is never closed. cuDNN is opened with dlopen in turn
 * (cudnn_library.c). Whatever is missing, driver, GPU, code of our kernels that
 * they take, or cuDNN, is said by an error of open.
 *
 * What runs where. Convolutions are cuDNN's, three plain operations of its
 * graph interface and nothing fused: before an instance norm a bias is dead, so
 * there is nothing to fuse in most layers, and plain ones are precompiled and
 * deterministic. At inference a transposed convolution is a plain one whose
 * pixels hold four of the result (cuda_quad), and one whose weights have few
 * products each, as the map is small, is a kernel of our own
 * (cuda_is_streamed). All else are kernels of kernels/. A convolution and the
 * norm that alone reads it are one step: the convolution leaves its result in a
 * buffer that all steps share, and one kernel adds the latent code's part or
 * the bias, normalises, and writes the activations of both readers to where
 * they are read, halves of concatenations included. Of large maps both may
 * be done for some images at a time, so that the buffer stays in the GPU's L2
 * cache (cuda_part_images). What a latent code adds depends on it alone, and is
 * made for all layers before the first step. Our kernels are launched while
 * what comes before them still runs, where the GPU's code waits for it
 * (kernels/launch.cuh). Channels are padded to multiples of eight where a
 * convolution reads or writes; only images have others.
 *
 * Memory. Weights lie in one block a network (CudaPacked), made once. A plan
 * has one block for arena and shared buffers, whose addresses are fixed, and
 * two slots, each with its own inputs and outputs on the GPU. Images are bytes
 * there. On the host they are copied from and to where they are if that is
 * memory that the device has pinned; else they pass through pinned memory of
 * the slot, which a plan for one image has, and a larger one takes when it is
 * first needed. Blocks come from a pool that keeps to the setting
 * gpu_memory, or without it leaves an eighth of the card to what does not go
 * through it: CUDA's context, kernels that are loaded when they first run,
 * cuDNN's own. What does not fit, or what the card does not have because other
 * processes hold it, is NN_ENOMEM, and the caller makes room or uses a smaller
 * batch.
 *
 * Time. Three streams: copies in, kernels, copies out. A start takes a free
 * slot, queues the copies to the GPU, the plan's kernels and the copies back,
 * with events between them, and returns; a finish waits for the last event. So
 * with two starts open, copies of one batch and the kernels of the other go on
 * at the same time. The first run of a slot launches kernel by kernel (which
 * also makes CUDA load them); the second is captured into a CUDA graph, and
 * from then on one call replays the plan.
 *
 * Threads. As the interface says: one owner, and pack from another thread. The
 * pool has a lock; pack uses a stream of its own.
 *
 * Training is in cuda_train.h.
 */
#ifndef BICYCLE_NN_CUDA_H
#define BICYCLE_NN_CUDA_H

#include "common/fault.h"
#include "nn/border.h"
#include "nn/cuda/cuda_shape.h"

#include <cuda_runtime_api.h>
#include <pthread.h>

/* ---- Device and memory (cuda.c, cuda_pool.c) ----------------------------- */

#define CUDA_ALIGN 256      /* of parts of a block */
#define CUDA_FREE_BLOCKS 64 /* that the pool keeps */

typedef struct CudaBlock
{
	void *data;
	size_t bytes;
} CudaBlock;

typedef struct CudaPool
{
	pthread_mutex_t lock;
	_Atomic size_t limit; /* written with the lock, read by anybody, as is the next */
	_Atomic size_t taken; /* from CUDA; what is spare included */
	CudaBlock spare[CUDA_FREE_BLOCKS];
	int nspare;
} CudaPool;

typedef struct CudaDevice
{
	NnDevice base;
	int index;
	int capability;                        /* 90: 9.0 */
	size_t card_bytes, cache_bytes;        /* of memory, and of its second-level cache */
	cudaStream_t in, compute, out, upload; /* of pack */
	CudaConvs *convs;
	CudaPool pool;
	struct CudaPinned *pinned;        /* under the pool's lock */
	struct CudaSlot *open[NN_STARTS]; /* started and not finished, oldest first */
	int nopen;
	struct CudaTracer *tracer; /* NULL: nothing is traced; freed with the device */
	char card[160];            /* all of the description but threads */
} CudaDevice;

/*
 * Of what a test wants to fail (fault.h), its error; nothing is to be called
 * then.
 */
static inline cudaError_t
cuda_fault(FaultKind kind)
{
	return !fault_point(kind)         ? cudaSuccess
		   : kind == FAULT_ALLOCATION ? cudaErrorMemoryAllocation
									  : cudaErrorLaunchFailure;
}

/* what: "run a kernel", for the message. */
extern NnStatus cuda_check(NnError *error, cudaError_t result, const char *what);
/*
 * Waits for an event, which was created with CUDA_EVENT: a moment awake, as a
 * single image is done before a thread is woken, then asleep.
 */
extern NnStatus cuda_await(cudaEvent_t event, const char *what, NnError *error);
#define CUDA_EVENT (cudaEventDisableTiming | cudaEventBlockingSync)
/* Makes it the calling thread's. */
extern NnStatus cuda_use(const CudaDevice *device, NnError *error);
extern NnStatus cuda_take(CudaDevice *device, size_t bytes, CudaBlock *block, NnError *error);
/* Nothing that runs may use it; an empty block is left alone. */
extern void cuda_give(CudaDevice *device, CudaBlock *block);
extern void cuda_drop_spares(CudaPool *pool); /* to CUDA; with the lock held, or by one thread */
extern void cuda_set_memory(NnDevice *base, size_t bytes);
extern void cuda_memory(const NnDevice *base, NnDeviceMemory *memory);
extern void cuda_room(NnDevice *base, NnDeviceRoom *room);
extern void cuda_trim(NnDevice *base);

/*
 * cuda_conv_open and cuda_conv_prove, where the library may have what the pool
 * has spare.
 */
extern NnStatus cuda_open_conv(CudaDevice *device, const CudaConvShape *shape, CudaConv **conv,
							   NnError *error);
extern NnStatus cuda_prove_conv(CudaDevice *device, CudaConv *conv, const void *x, void *filter,
								void *y, void *workspace, size_t bytes, NnError *error);

/* Memory of the host that copies go from and to by themselves. Any thread. */
extern NnStatus cuda_pin_host(void **memory, size_t bytes, NnError *error);
extern void *cuda_pin(NnDevice *base, size_t bytes);
extern void cuda_unpin(NnDevice *base, void *memory);
extern bool cuda_is_pinned(CudaDevice *device, const void *memory, size_t bytes); /* in one piece */

static inline size_t
cuda_aligned(size_t bytes)
{
	return bytes > SIZE_MAX - CUDA_ALIGN ? SIZE_MAX
										 : (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
}

/* ---- Weights (cuda_pack.c) ----------------------------------------------- */

/* What a node needs besides its operands, on the GPU; NULL: nothing. */
typedef struct CudaLayer
{
	NnOp op;
	NnShape in, out;    /* at the model's own size; plans may be of others */
	void *filter;       /* as cuda_filter() says */
	const float *scale; /* (c) of what follows a convolution, or of a norm */
	const float *shift;
	const float *linear;    /* (o, c) */
	const float *z_weights; /* (classes, nz, c) */
	int nz;
} CudaLayer;

typedef struct CudaPacked
{
	NnPrecision precision;
	int nlayers; /* one a node */
	CudaLayer *layers;
	CudaBlock block;
} CudaPacked;

extern NnStatus cuda_pack(NnDevice *base, NnPrecision precision, const NnGraph *graph,
						  const float *values, void **packed, size_t *bytes, NnError *error);
extern void cuda_pack_free(NnDevice *base, void *packed);
extern size_t cuda_pack_bytes(NnDevice *base, NnPrecision precision, const NnGraph *graph);

/* ---- Plans (cuda_plan.c) ------------------------------------------------- */

typedef struct CudaStep
{
	int node, end;            /* the same, or the norm after a convolution */
	int quad;                 /* of a convolution's result; cuda_shape.h */
	CudaConv *conv;           /* the library's; NULL for other operators, and what is streamed */
	KernelAxis rows, columns; /* of a convolution with a latent; the rest, too */
	int centre;               /* class that a norm's mean takes away; -1: none does */
	size_t latents;           /* where the latent's part is, in the plan's */
	bool streamed;            /* a convolution by our own kernel, */
	bool joined;              /* which does what follows, too */
	int images;               /* that a convolution, and what follows it, are done for at a time */
} CudaStep;

/*
 * An input or output of the plan, outside the arena. There is room for bytes
 * where they are the rule, until somebody binds floats.
 */
typedef struct CudaPort
{
	int value;
	bool input;
	bool direct;      /* kernels use it where it is; else it is copied to or from the arena */
	bool bytes;       /* are the rule */
	size_t offset[2]; /* in a slot's memory, bytes; in that of a wide one, which has floats */
	size_t image;     /* elements of one image */
} CudaPort;

#define CUDA_MAX_PORTS 16

/* One of two sets of ports, with the plan captured for them. */
typedef struct CudaSlot
{
	struct CudaPlan *plan;
	char *device;        /* within the plan's block, or in `block` */
	bool wide;           /* all ports have room for floats */
	CudaBlock block;     /* of a wide one */
	char *staged;        /* pinned memory of the host, for bindings that are not pinned; */
	size_t staged_bytes; /* of the first ports, or all */
	cudaEvent_t arrived, /* inputs are on the GPU */
		computed, left;  /* outputs are in pinned memory */
	unsigned forms;      /* bit i: port i is of bytes.  Of what was captured, or ran last */
	bool placed;         /* values are */
	int runs;            /* in this form, of those that succeeded: 0, 1, or 2 for more */
	cudaGraphExec_t graph;
	KernelMap *values;               /* where each value is, in this form */
	NnBinding bound[CUDA_MAX_PORTS]; /* of the last start; value is the port */
	int nbound;
} CudaSlot;

typedef struct CudaPlan
{
	NnPlan *plan;
	const CudaPacked *packed;
	KernelType type;
	CudaStep *steps;
	int nsteps;
	CudaPort ports[CUDA_MAX_PORTS]; /* those of bytes last */
	int nports;
	size_t port_bytes[2]; /* of a slot, of a wide one */
	size_t float_bytes;   /* of a slot's ports that are always floats */
	CudaSlot slots[NN_STARTS];
	int next;        /* slot of the next start */
	CudaBlock block; /* arena, then what follows */
	void *staged;    /* a convolution's input, made dense and padded */
	void *result;    /* a convolution's result */
	float *latents;  /* their parts, of all steps */
	float *moments;  /* workspace of instance norms */
	void *workspace; /* of convolutions */
} CudaPlan;

/* Where a port is in the slot's memory on the GPU, and in what is staged. */
static inline size_t
cuda_port_offset(const CudaSlot *slot, int port)
{
	return slot->plan->ports[port].offset[slot->wide];
}

/* Whether a convolution's operand is read while what follows it is written. */
extern bool cuda_joins(const NnPlan *plan, int node);
extern size_t cuda_plan_bytes(NnDevice *base, const NnPlan *plan);
extern NnStatus cuda_prepare(NnDevice *base, NnPlan *plan, const void *packed, NnError *error);
extern void cuda_release(NnDevice *base, NnPlan *plan);

/* What a slot that is not open has grown by is the plan's, and counted. */
extern NnStatus cuda_stage(CudaSlot *slot, size_t bytes, NnError *error);
extern NnStatus cuda_widen(CudaDevice *device, CudaSlot *slot, NnError *error);

/* ---- Running (cuda_run.c, cuda_steps.c) ---------------------------------- */

extern NnStatus cuda_run(NnDevice *base, NnPlan *plan, const void *packed,
						 const NnBinding *bindings, int nbindings, NnError *error);
extern NnStatus cuda_start(NnDevice *base, NnPlan *plan, const void *packed,
						   const NnBinding *bindings, int nbindings, NnError *error);
extern bool cuda_ready(NnDevice *base);
extern NnStatus cuda_finish(NnDevice *base, NnError *error);
extern NnStatus cuda_launch_steps(CudaDevice *device, const CudaSlot *slot, NnError *error);
extern NnStatus cuda_launch_step(CudaDevice *device, const CudaSlot *slot, int step,
								 NnError *error);

/*
 * What looks on while plans run, in builds with TRACE=1 that were asked to
 * (trace/cuda_trace.c). Called by the device's owner.
 */
typedef struct CudaTracer
{
	/* the first slot is about to run again, captured if it can be */
	void (*plan)(CudaDevice *device, const CudaSlot *slot);
	void (*uncaptured)(const CudaSlot *slot, const NnError *why);
} CudaTracer;

#endif /* BICYCLE_NN_CUDA_H */
