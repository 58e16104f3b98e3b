/*
 * cuda_trace.c
 *	  Where a plan's time goes, for whoever makes it faster: with BICYCLE_CUDA_TRACE set, the device prints to stderr, once a plan and form, the time of the
 *	  captured plan as a whole, without copies to and from the host, and of each of its steps by itself; and once a device, cuDNN's description of it.
 *
 * Medians of events around each.  A step by itself also waits for its launch, so the steps add up to more than the whole.
 */
#include "nn/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

#define WARM_UPS 10
#define RUNS 51

static int
by_value(const void *a, const void *b)
{
	float		x = *(const float *) a,
				y = *(const float *) b;

	return (x > y) - (x < y);
}

/* The median time of a step, or with step < 0 of the captured plan, in ms; below 0 if CUDA would not say. */
static float
median_time(CudaDevice *device, const CudaSlot *slot, int step, cudaEvent_t events[2])
{
	float		times[RUNS];
	NnError		ignored;

	for (int i = -WARM_UPS; i < RUNS; i++)
	{
		bool		good = cudaEventRecord(events[0], device->compute) == cudaSuccess;

		if (step >= 0)
			good &= cuda_launch_step(device, slot, step, &ignored) == NN_OK;
		else
			good &= cudaGraphLaunch(slot->graph, device->compute) == cudaSuccess;
		good &= cudaEventRecord(events[1], device->compute) == cudaSuccess && cudaEventSynchronize(events[1]) == cudaSuccess;
		if (!good || cudaEventElapsedTime(&times[i < 0 ? 0 : i], events[0], events[1]) != cudaSuccess)
			return -1;
	}
	qsort(times, RUNS, sizeof(float), by_value);
	return times[RUNS / 2];
}

static void
print_step(const CudaPlan *p, int step, float ms)
{
	const NnNode *node = &p->plan->graph->nodes[p->steps[step].node];
	NnShape		in = cuda_shape(p->plan, node->in[0]),
				out = cuda_shape(p->plan, p->plan->graph->nodes[p->steps[step].end].out[0]);
	double		products = !cuda_is_conv(node->op) ? 0 : (double) in.n * in.c * out.c * node->kernel * node->kernel *
		(node->op == NN_OP_CONVT ? (double) in.h * in.w : (double) out.h * out.w);

	fprintf(stderr, "trace step %-40.40s (%d,%d,%d,%d) to (%d,%d,%d): %8.2f us, %6.1f TFLOP/s\n", node->name, in.n, in.h, in.w, in.c, out.h, out.w, out.c,
			ms * 1e3, ms > 0 ? 2 * products / ms * 1e-9 : 0.0);
}

void
cuda_trace(CudaDevice *device, const CudaSlot *slot)
{
	const CudaPlan *p = slot->plan;
	cudaEvent_t events[2] = {NULL};

	if (cudaEventCreateWithFlags(&events[0], 0) == cudaSuccess && cudaEventCreateWithFlags(&events[1], 0) == cudaSuccess)
	{
		float		whole = slot->graph ? median_time(device, slot, -1, events) : -1;

		fprintf(stderr, "trace plan of %d images, %s: %.2f us, %d steps\n", cuda_shape(p->plan, p->ports[0].value).n,
				nn_precision_name(p->plan->precision), whole * 1e3, p->nsteps);
		for (int i = 0; i < p->nsteps; i++)
			print_step(p, i, median_time(device, slot, i, events));
	}
	for (int i = 0; i < 2; i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	(void) cudaGetLastError();
}

void
cuda_trace_device(CudaDevice *device)
{
	char	   *text = cuda_convs_description(device->convs);

	fprintf(stderr, "trace device %s\n", text ? text : "is not described");
	free(text);
}
