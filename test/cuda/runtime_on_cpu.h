/*
 * runtime_on_cpu.h
 *	  The inside of the imitated runtime: what its streams (runtime_on_cpu.c)
 *	  and its memory (memory_on_cpu.c) know of each other.
 *
 * One thread at a time is in either: all but the types is for who holds the
 * lock.
 */
#ifndef BICYCLE_RUNTIME_ON_CPU_H
#define BICYCLE_RUNTIME_ON_CPU_H

#include "gpu_on_cpu.h"

#include "cuda_runtime_api.h"

/* ---- The lock ------------------------------------------------------------ */

extern int gpu_enter(void);
extern void gpu_leave(int *entered);

/* For the rest of the function. */
#define RUNTIME __attribute__((cleanup(gpu_leave), unused)) int entered = gpu_enter()

/* ---- Errors -------------------------------------------------------------- */

extern bool gpu_fails(void); /* this call is the one that a test wants to */
/* What a call returns: kept until it is asked for. */
extern cudaError_t gpu_report(cudaError_t error);
extern cudaError_t gpu_failure(cudaError_t error); /* of a call that fails */
extern void gpu_not_in_capture(const char *function);

/* ---- Streams ------------------------------------------------------------- */

typedef enum GpuOpKind
{
	OP_KERNEL,
	OP_COPY,
	OP_RECORD,
	OP_WAIT,
	OP_GRAPH
} GpuOpKind;

typedef struct GpuOp
{
	struct GpuOp *next;
	GpuOpKind kind;
	const GpuKernel *kernel;
	GpuGrid grid;
	void *args; /* a copy, as at a real launch */
	void *to;
	const void *from;
	size_t bytes; /* of the copy */
	bool crosses; /* it is to or from the host */
	cudaEvent_t event;
	long count; /* of records of the event that this one is or waits for */
	cudaGraphExec_t graph;
} GpuOp;

typedef struct GpuGraph
{
	GpuOp *first, *last;
	int users; /* graph, executable, and launches of it that have not run */
} GpuGraph;

struct GpuStream
{
	struct GpuStream *next; /* of all streams */
	int device;
	GpuGraph queue;
	GpuGraph *capture; /* operations go there instead */
	bool invalid;      /* something failed while it was captured */
	bool computes;     /* it has had more than copies */
	bool held;         /* a copy of it has been */
	long born;         /* graphs that had been launched before */
};

struct GpuEvent
{
	int device;
	bool timed, sleeps;
	cudaStream_t stream;       /* of the last record */
	GpuGraph *capture;         /* that the last record is in; NULL: it is in none */
	long recorded, done, runs; /* of records, those in graphs included */
};

extern cudaStream_t gpu_streams; /* all of them */
extern void gpu_put(cudaStream_t stream, const GpuOp *op);

/* ---- Memory -------------------------------------------------------------- */

extern bool gpu_is_pinned(const void *p, size_t bytes);

#endif /* BICYCLE_RUNTIME_ON_CPU_H */
