/*
 * device.h
 *	  Plans and devices: in which memory a graph is computed, and by whom.
 *
 * R1 A device is one caller's, but for `pack` (which keeps no pointer to the
 *    graph) and `pack_bytes`, which another thread may call beside the owner,
 *    and `report`, `pin` and `unpin`, which any thread may.
 * R2 A device has every member. What only some can is a table of its own
 *    (memory, async, train), which is whole or NULL.
 */
#ifndef BICYCLE_NN_DEVICE_H
#define BICYCLE_NN_DEVICE_H

#include "nn/graph.h"

/* ---- Plans (plan.c) ------------------------------------------------------ */

/*
 * A plan: where each value lives. Offsets are in elements of the device's
 * activation type, 64-byte aligned; a view shares its parent's buffer. Two
 * buffers that live at the same time never overlap (tested); an output lives to
 * the end.
 */
typedef struct NnPlan
{
	NnGraph *graph; /* not owned; outlives the plan */
	NnDevice *device;
	NnPrecision precision;
	bool passing;   /* of a size that may not come again: little is spent on its making */
	size_t *offset; /* of each value's buffer in the arena; views included */
	int *pitch;     /* channels of the widest parent: distance of two pixels */
	/*
	 * elements that a number of a wide value takes; 0: one, as all others
	 */
	int wide;
	size_t arena_elements;
	void *arena;         /* allocated by the device */
	void *device_state;  /* primitives, workspaces; owned by the device */
	size_t device_bytes; /* of device_state, without the arena; filled by prepare */
	size_t host_bytes;   /* of the host's memory besides, if the device has its own; likewise */
	/* of training: steps in place of the graph's nodes; NULL at inference */
	const struct NnSchedule *schedule;
} NnPlan;

/* Fills offset, pitch and arena_elements from the graph. */
extern NnStatus nn_plan_memory(NnPlan *plan, NnError *error);

/* Frees what nn_plan_memory allocated; `release` frees the device's part. */
extern void nn_plan_free(NnPlan *plan);

/* ---- Devices ------------------------------------------------------------- */

/* An input or output: dense, NHWC. */
typedef struct NnBinding
{
	int value;
	float *data;
	/* if the device takes bytes: images of nn_normalise and nn_quantise */
	uint8_t *bytes;
	uint8_t *const
		*each; /* if it is asynchronous: in bytes' place, each image in a place of its own */
	int n;     /* images of it that there are, where the device takes fewer; 0: all */
} NnBinding;

/* Of a device that has memory of its own. */
typedef struct NnMemoryDevice
{
	void (*set_limit)(NnDevice *device, size_t bytes); /* 0: the device's own */
	void (*report)(const NnDevice *device, NnDeviceMemory *memory);
	void (*room)(NnDevice *device, NnDeviceRoom *room);
	void (*trim)(NnDevice *device);

	/*
	 * What prepare, and starts of whatever is bound, will take at most for a
	 * plan whose memory is laid out, arena included; 0 if memory for asking is
	 * missing.
	 */
	size_t (*plan_bytes)(NnDevice *device, const NnPlan *plan);
} NnMemoryDevice;

/*
 * Of a device that works beside the caller: the halves of `run`. start takes
 * the inputs and returns, finish waits for the oldest start that is not
 * finished and fills its outputs; after an error of either nothing of that
 * start goes on. At most NN_STARTS of a device may be open. Until it is
 * finished a start reads and writes its bindings' memory, which is where pin
 * gave it, or else is copied by start and finish: an image's output may have
 * the place of its input, which after NN_ENOMEM is as it was.
 */
typedef struct NnAsyncDevice
{
	NnStatus (*start)(NnDevice *device, NnPlan *plan, const void *packed, const NnBinding *bindings,
					  int nbindings, NnError *error);
	bool (*ready)(NnDevice *device); /* of the oldest start: finish need not wait */
	NnStatus (*finish)(NnDevice *device, NnError *error);

	/*
	 * Memory that the device reads and writes itself. Any thread; NULL: there
	 * is none.
	 */
	void *(*pin)(NnDevice *device, size_t bytes);
	void (*unpin)(NnDevice *device, void *memory);
} NnAsyncDevice;

#define NN_STARTS 2

struct NnDevice
{
	const char *name;
	int threads;
	void *state;
	void (*progress)(void);  /* of nn_device_watch; called through nn_progress */
	uint64_t started, ended; /* of async, by passes (model.c) */

	/* What it can. */
	NnPrecision automatic;  /* what precision auto means */
	bool takes_bytes;       /* bindings may be bytes */
	bool takes_fewer;       /* bindings may be of fewer images than the plan has */
	int most_images;        /* of a plan that a model makes; more are run in several parts */
	size_t max_arena_bytes; /* of a plan that a model makes: more at once saves nothing */
	/*
	 * whether a convolution is one with the next node, which alone reads it, or
	 * both are done for some images at a time: operands stay for both; NULL:
	 * none is
	 */
	bool (*joins)(const NnPlan *plan, int node);
	bool (*supports)(const NnDevice *device, NnPrecision precision);
	size_t (*element_bytes)(const NnDevice *device, NnPrecision precision); /* of activations */
	const char *(*describe)(const NnDevice *device);

	/*
	 * pack turns a model's flat float parameters into whatever the device's
	 * kernels read, once a model and independent of the batch; pack_free frees
	 * that. prepare chooses implementations and workspaces for a plan, run
	 * executes it. release frees what prepare allocated, also if that failed
	 * half-way, and does nothing for a plan it never saw (arena and
	 * device_state NULL).
	 */
	NnStatus (*pack)(NnDevice *device, NnPrecision precision, const NnGraph *graph,
					 const float *values, void **packed, size_t *bytes, NnError *error);
	void (*pack_free)(NnDevice *device, void *packed);
	/* What pack will take; 0 if memory for asking is missing. */
	size_t (*pack_bytes)(NnDevice *device, NnPrecision precision, const NnGraph *graph);
	NnStatus (*prepare)(NnDevice *device, NnPlan *plan, const void *packed, NnError *error);
	NnStatus (*run)(NnDevice *device, NnPlan *plan, const void *packed, const NnBinding *bindings,
					int nbindings, NnError *error);
	void (*release)(NnDevice *device, NnPlan *plan);
	void (*set_threads)(NnDevice *device, int threads);
	void (*close)(NnDevice *device);

	const NnMemoryDevice *memory;
	const NnAsyncDevice *async;
	const struct NnTrainDevice *train; /* training.h */
};

/* max_arena_bytes where more gains nothing: 8 images of 256 x 256, fp32. */
#define NN_ARENA_BYTES ((size_t) 256 << 20)
#define NN_MOST_IMAGES 64 /* most_images of who has no other limit */

/* Called between layers, or within long ones, on the caller's thread. */
static inline void
nn_progress(const NnDevice *device)
{
	if (device->progress)
		device->progress();
}

/* ref/: naive, the oracle; cpu/: SIMD kernels. */
extern NnStatus nn_ref_open(int threads, NnDevice **device, NnError *error);
extern NnStatus nn_cpu_open(int threads, NnDevice **device, NnError *error);

#endif /* BICYCLE_NN_DEVICE_H */
