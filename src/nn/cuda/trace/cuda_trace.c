/*
 * cuda_trace.c
 *	  Where a plan's time goes, for whoever makes it faster. Built by make
 *	  TRACE=1 only; with BICYCLE_CUDA_TRACE set, the device prints to stderr,
 *	  once a plan and form, the time of the captured plan as a whole, without
 *	  copies to and from the host; the time of each of its steps; and how much
 *	  of it the card would need at the rates of cuda_peak.c, for the arithmetic
 *	  or the memory that the step cannot do without, whichever takes longer
 *	  (cuda_shape.h). And once a device, cuDNN's description of it.
 *
 * Steps are timed where they are: the plan is captured once more with an event
 * between any two, so that a step finds in the cache what it finds there when
 * it counts. The events cost a little, so the steps add up to more than the
 * whole. Where that cannot be captured each step is launched by itself, and its
 * time includes its launch. All times are medians.
 */
#include "nn/cuda/trace/cuda_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WARM_UPS 5
#define RUNS 21 /* at most */

typedef struct CudaTracing
{
	CudaTracer base;
	CudaPeak peaks[NN_PRECISION_TF32 + 1]; /* of each precision */
	int runs;                              /* that a median is of */
} CudaTracing;

typedef struct StepTime
{
	float runs[RUNS];
	float median; /* ms; below 0 if CUDA would not say */
} StepTime;

static int
by_value(const void *a, const void *b)
{
	float x = *(const float *) a, y = *(const float *) b;

	return (x > y) - (x < y);
}

static int
runs_of(const CudaDevice *device)
{
	return ((const CudaTracing *) device->tracer)->runs;
}

static int
warm_ups(const CudaDevice *device)
{
	return runs_of(device) < WARM_UPS ? runs_of(device) : WARM_UPS;
}

static float
median(float times[RUNS], int runs)
{
	qsort(times, runs, sizeof(float), by_value);
	return times[runs / 2];
}

/* The median ms of a step, or (step < 0) of the plan; below 0: unknown. */
static float
median_time(CudaDevice *device, const CudaSlot *slot, int step, cudaEvent_t events[2])
{
	float times[RUNS];
	NnError ignored;

	for (int i = -warm_ups(device); i < runs_of(device); i++)
	{
		bool good = cudaEventRecord(events[0], device->compute) == cudaSuccess;

		if (step >= 0)
			good &= cuda_launch_step(device, slot, step, &ignored) == NN_OK;
		else
			good &= cudaGraphLaunch(slot->graph, device->compute) == cudaSuccess;
		good &= cudaEventRecord(events[1], device->compute) == cudaSuccess &&
				cudaEventSynchronize(events[1]) == cudaSuccess;
		if (!good ||
			cudaEventElapsedTime(&times[i < 0 ? 0 : i], events[0], events[1]) != cudaSuccess)
			return -1;
	}
	return median(times, runs_of(device));
}

/* ---- Steps in place ------------------------------------------------------ */

/* The plan with an event around each step; NULL: it cannot be captured. */
static cudaGraphExec_t
capture_with_events(CudaDevice *device, const CudaSlot *slot, cudaEvent_t *events)
{
	int nsteps = slot->plan->nsteps;
	cudaGraph_t graph = NULL;
	cudaGraphExec_t exec = NULL;
	NnError ignored;
	bool good;

	if (cudaStreamBeginCapture(device->compute, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
		return NULL;
	good = cudaEventRecordWithFlags(events[0], device->compute, cudaEventRecordExternal) ==
		   cudaSuccess;
	for (int i = 0; good && i < nsteps; i++)
		good = cuda_launch_step(device, slot, i, &ignored) == NN_OK &&
			   cudaEventRecordWithFlags(events[i + 1], device->compute, cudaEventRecordExternal) ==
				   cudaSuccess;
	/* a capture must be ended in any case */
	good &= cudaStreamEndCapture(device->compute, &graph) == cudaSuccess;
	if (!good || cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
		exec = NULL;
	if (graph)
		(void) cudaGraphDestroy(graph);
	return exec;
}

/* Fills times of all steps; false if they cannot be had so. */
static bool
time_in_place(CudaDevice *device, const CudaSlot *slot, StepTime *times)
{
	int nsteps = slot->plan->nsteps;
	cudaEvent_t *events = calloc(nsteps + 1, sizeof(cudaEvent_t));
	cudaGraphExec_t graph = NULL;
	bool good = events != NULL;

	for (int i = 0; good && i <= nsteps; i++)
		good = cudaEventCreateWithFlags(&events[i], 0) == cudaSuccess;
	if (good)
		graph = capture_with_events(device, slot, events);
	good &= graph != NULL;
	for (int run = -warm_ups(device); good && run < runs_of(device); run++)
	{
		good = cudaGraphLaunch(graph, device->compute) == cudaSuccess &&
			   cudaStreamSynchronize(device->compute) == cudaSuccess;
		for (int i = 0; good && i < nsteps; i++)
			good = cudaEventElapsedTime(&times[i].runs[run < 0 ? 0 : run], events[i],
										events[i + 1]) == cudaSuccess;
	}
	for (int i = 0; good && i < nsteps; i++)
		times[i].median = median(times[i].runs, runs_of(device));
	if (graph)
		(void) cudaGraphExecDestroy(graph);
	for (int i = 0; events && i <= nsteps; i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	free(events);
	(void) cudaGetLastError();
	return good;
}

/* ---- Printing ------------------------------------------------------------ */

/* Least milliseconds of a step, and what takes them; 0: rates not known. */
static double
limit_of(const CudaCost *cost, const CudaPeak *peak, const char **by)
{
	double bytes = cost->weights + cost->reads + cost->writes,
		   arithmetic = peak->flop > 0 ? cost->flop / peak->flop * 1e3 : 0,
		   memory = peak->bytes > 0 ? bytes / peak->bytes * 1e3 : 0;

	*by = arithmetic > memory ? "arithmetic" : 2 * cost->weights > bytes ? "weights" : "maps";
	return fmax(arithmetic, memory);
}

static void
print_step(const CudaPlan *p, int step, float ms, const CudaPeak *peak)
{
	const NnNode *node = &p->plan->graph->nodes[p->steps[step].node];
	NnShape in = cuda_shape(p->plan, node->in[0]),
			out = cuda_shape(p->plan, p->plan->graph->nodes[p->steps[step].end].out[0]);
	const char *by;
	CudaCost cost;
	double limit;

	cuda_step_cost(p->plan, p->steps[step].node, &cost);
	limit = limit_of(&cost, peak, &by);
	fprintf(stderr,
			"trace step %-40.40s (%d,%d,%d,%d) to (%d,%d,%d): %8.2f us, %6.1f TFLOP/s, %6.0f GB/s, "
			"limit %8.2f us by %s, %5.1f %%\n",
			node->name, in.n, in.h, in.w, in.c, out.h, out.w, out.c, ms * 1e3,
			ms > 0 ? cost.flop / ms * 1e-9 : 0,
			ms > 0 ? (cost.weights + cost.reads + cost.writes) / ms * 1e-6 : 0, limit * 1e3, by,
			ms > 0 ? limit / ms * 100 : 0);
}

static void
print_plan(const CudaPlan *p, float whole, const StepTime *times, bool in_place,
		   const CudaPeak *peak)
{
	double limit = 0, sum = 0;
	const char *by;

	for (int i = 0; i < p->nsteps; i++)
	{
		CudaCost cost;

		cuda_step_cost(p->plan, p->steps[i].node, &cost);
		limit += limit_of(&cost, peak, &by);
		sum += times[i].median;
	}
	fprintf(stderr,
			"trace plan of %d images, %s: %.2f us, limit %.2f us, %.1f %%; %d steps, %s %.2f us; "
			"the card's %.1f TFLOP/s, %.0f GB/s\n",
			cuda_shape(p->plan, p->ports[0].value).n, nn_precision_name(p->plan->precision),
			whole * 1e3, limit * 1e3, whole > 0 ? limit / whole * 100 : 0, p->nsteps,
			in_place ? "in place" : "each launched by itself", sum * 1e3, peak->flop * 1e-12,
			peak->bytes * 1e-9);
	for (int i = 0; i < p->nsteps; i++)
		print_step(p, i, times[i].median, peak);
}

static void
trace_plan(CudaDevice *device, const CudaSlot *slot)
{
	const CudaPlan *p = slot->plan;
	CudaPeak *peak = &((CudaTracing *) device->tracer)->peaks[p->plan->precision];
	StepTime *times = calloc(p->nsteps, sizeof(StepTime));
	cudaEvent_t events[2] = { NULL };

	cuda_peak(device, p->plan->precision, peak);
	if (times && cudaEventCreateWithFlags(&events[0], 0) == cudaSuccess &&
		cudaEventCreateWithFlags(&events[1], 0) == cudaSuccess)
	{
		float whole = slot->graph ? median_time(device, slot, -1, events) : -1;
		bool in_place = time_in_place(device, slot, times);

		for (int i = 0; !in_place && i < p->nsteps; i++)
			times[i].median = median_time(device, slot, i, events);
		print_plan(p, whole, times, in_place, peak);
	}
	for (int i = 0; i < 2; i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	free(times);
	(void) cudaGetLastError();
}

static void
trace_uncaptured(const CudaSlot *slot, const NnError *why)
{
	const CudaPlan *p = slot->plan;

	fprintf(stderr, "trace plan of %d images, %s, could not be captured: %s: %s\n",
			cuda_shape(p->plan, p->ports[0].value).n, nn_precision_name(p->plan->precision),
			why->message, why->detail);
}

static void
trace_device(CudaDevice *device)
{
	char *text = cuda_convs_description(device->convs);

	/* one line, whatever cuDNN makes of it */
	for (char *c = text; c && *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	fprintf(stderr, "trace device %s\n", text ? text : "is not described");
	free(text);
}

CudaTracer *
cuda_tracer_open(CudaDevice *device)
{
	CudaTracing *tracing;

	if (!getenv("BICYCLE_CUDA_TRACE") || !(tracing = calloc(1, sizeof(*tracing))))
		return NULL;
	/* few where an imitated GPU would take minutes */
	tracing->runs = getenv("BICYCLE_TEST_SMALL") ? 1 : RUNS;
	tracing->base = (CudaTracer){ .plan = trace_plan, .uncaptured = trace_uncaptured };
	trace_device(device);
	return &tracing->base;
}
