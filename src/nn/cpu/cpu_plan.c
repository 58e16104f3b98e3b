/*
 * cpu_plan.c
 *	  Planning a graph on the CPU: its steps and their memory.
 *
 * R1 A CpuPlan belongs to its NnPlan and is used by one caller at a time.
 * R2 A step is a node of the graph, or a convolution and the norm or pool that
 *    alone reads it: what is between stays in float in a buffer of the plan and
 *    never becomes a value.
 */
#include "nn/cpu/cpu_finish.h"
#include "nn/cpu/cpu_run.h"

#include "common/invariant.h"

#include <stdlib.h>

/* Bytes of results before they are finished: few, to be in the cache. */
#define CHUNK_BYTES ((size_t) 4 << 20)

/* ---- Preparing ----------------------------------------------------------- */

/* The layers for the plan's size: the model's own, or made of them. */
static NnStatus
find_layers(CpuDevice *device, const NnPlan *plan, const CpuPacked *packed, CpuPlan *p,
			NnError *error)
{
	const NnGraph *g = plan->graph;
	bool same = true;

	INVARIANT(packed->own.n == g->nnodes && packed->precision == plan->precision);
	for (int i = 0; same && i < g->nnodes; i++)
		same = g->nodes[i].in[0] < 0 ||
			   nn_same_image(packed->own.list[i].in, shape_of(plan, g->nodes[i].in[0]));
	p->layers = same ? &packed->own : &p->resized;
	return same ? NN_OK : cpu_resize_layers(device, packed, g, &p->resized, error);
}

/* Whether two values share memory of the arena. */
static bool
overlap(const NnPlan *plan, int a, int b)
{
	size_t begin[2], end[2];
	int value[2] = { a, b };

	for (int i = 0; i < 2; i++)
	{
		NnShape s = shape_of(plan, value[i]);

		begin[i] = plan->offset[value[i]];
		end[i] = begin[i] + ((size_t) s.n * s.h * s.w - 1) * plan->pitch[value[i]] + s.c;
	}
	return begin[0] < end[1] && begin[1] < end[0];
}

/* Results of a chunk are written while the others' operands are unread. */
bool
cpu_joins(const NnPlan *plan, int node)
{
	return shape_of(plan, plan->graph->nodes[node].out[0]).n > 1 &&
		   cpu_step_end(plan->graph, node) != node;
}

/* What cpu_joins has asked for. */
static bool
operands_stay(const NnPlan *plan, int id, int end)
{
	const NnGraph *g = plan->graph;

	for (int o = 0; o < 2; o++)
		for (int i = 0; i < NN_MAX_IN; i++)
			if (g->nodes[end].out[o] >= 0 && g->nodes[id].in[i] >= 0 &&
				overlap(plan, g->nodes[end].out[o], g->nodes[id].in[i]))
				return false;
	return true;
}

/*
 * A chunk's frames and results are read from the cache: its results are
 * finished before the next chunk is convolved.
 */
static int
chunk_of(const NnPlan *plan, const CpuKernel *kernel, const CpuLayer *layer, int id, int end)
{
	size_t batch = shape_of(plan, plan->graph->nodes[id].out[0]).n,
		   bytes = layer->layout.elements * sizeof(float), images;

	if (layer->layout.algorithm == CPU_FRAMES)
		nn_most(&bytes, cpu_frame_bytes(kernel, &layer->framing, 1));
	images = CHUNK_BYTES / bytes;
	images = images < 1 ? 1 : images < batch ? images : batch;
	INVARIANT(images == batch || operands_stay(plan, id, end));
	return (int) images;
}

/*
 * Moments of an image's norm, where threads may share it by bands: of a
 * convolution's result, or of a map (layer NULL).
 */
static size_t
moments_of(const CpuLayer *layer, NnShape map, const NnNode *end)
{
	CpuFinish f = cpu_finish_of_map(map, nn_norm_of(end));

	if (layer)
	{
		f.form = layer->layout.form;
		f.row = layer->layout.row;
		f.part = layer->layout.part;
		f.latent_layer = layer;
		f.latent = layer->z_weights;
	}
	return cpu_finish_all_stretches(&f);
}

/* The list of steps, and the sizes of the buffers that they share. */
static NnStatus
make_steps(const CpuDevice *device, NnPlan *plan, const CpuKernel *kernel, CpuPlan *p,
		   NnError *error)
{
	const NnGraph *g = plan->graph;
	size_t results = 0, frames = 0, latents = 0, tiles = 0, moments = 0;

	for (int i = 0; i < g->nnodes; i++)
	{
		const CpuLayer *layer = &p->layers->list[i];
		CpuStep step = { .node = i, .end = i, .chunk = 1 };
		NnShape in;

		if (g->nodes[i].op == NN_OP_INPUT)
			continue;
		in = shape_of(plan, g->nodes[i].in[0]);
		INVARIANT(layer->op == g->nodes[i].op && nn_same_image(layer->in, in));
		if (nn_ops[g->nodes[i].op].filters)
		{
			step.end = cpu_step_end(g, i);
			step.chunk = chunk_of(plan, kernel, layer, i, step.end);
			nn_most(&results, layer->layout.elements * step.chunk);
			nn_most(&latents, latent_floats(layer) * step.chunk);
			nn_most(&moments, moments_of(layer, layer->out, &g->nodes[step.end]) * step.chunk);
			if (layer->layout.algorithm == CPU_TILES)
			{
				size_t v, scratch;

				cpu_tile_memory(device->kernels, layer, step.chunk, false, &v, &scratch);
				nn_most(&tiles, v);
				nn_most(&p->scratch_bytes, scratch * sizeof(float));
			}
			else
				nn_most(&frames, cpu_frame_bytes(kernel, &layer->framing, step.chunk));
			i = step.end;
		}
		else if (g->nodes[i].op == NN_OP_NORM_ACT)
			nn_most(&moments, moments_of(NULL, in, &g->nodes[i]) * in.n);
		p->steps[p->nsteps++] = step;
	}
	p->results = cpu_alloc(results * sizeof(float));
	p->frames = cpu_alloc(frames);
	p->latents = cpu_alloc(latents * sizeof(float));
	p->tiles = cpu_alloc(tiles * sizeof(float));
	p->moments = cpu_alloc(moments * sizeof(CpuMoments));
	plan->device_bytes = (results + latents + tiles) * sizeof(float) + frames +
						 moments * sizeof(CpuMoments) + p->resized.bytes;
	if (!p->results || !p->frames || !p->latents || !p->tiles || !p->moments)
		return nn_no_memory(error, plan->device_bytes);
	return NN_OK;
}

/* An input's or output's own buffer without slices may be the caller's. */
static void
find_direct(const NnGraph *g, bool *direct)
{
	for (int i = 0; i < g->nvalues; i++)
		direct[i] = (g->values[i].input || g->values[i].output) && g->values[i].view_of < 0;
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of >= 0)
			direct[g->values[i].view_of] = false;
}

NnStatus
cpu_prepare(NnDevice *base, NnPlan *plan, const void *packed_, NnError *error)
{
	const CpuPacked *packed = packed_;
	const NnGraph *g = plan->graph;
	CpuPlan *p = calloc(1, sizeof(CpuPlan));
	NnStatus status;

	if (!p)
		return nn_no_memory(error, sizeof(CpuPlan));
	plan->device_state = p;
	status = find_layers(base->state, plan, packed, p, error);
	if (status != NN_OK)
	{
		cpu_release(base, plan);
		return status;
	}
	p->steps = calloc(g->nnodes + 1, sizeof(CpuStep));
	p->values = calloc(g->nvalues + 1, sizeof(CpuValue));
	p->direct = calloc(g->nvalues + 1, sizeof(bool));
	plan->arena =
		cpu_alloc(nn_mul(plan->arena_elements, element_size(plan->precision == NN_PRECISION_BF16)));
	if (!p->steps || !p->values || !p->direct || !plan->arena)
		status = nn_no_memory(error, plan->arena_elements * sizeof(float));
	if (status == NN_OK)
	{
		find_direct(g, p->direct);
		status = make_steps(base->state, plan, packed->kernel, p, error);
	}
	if (status == NN_OK)
		status = nn_fault(FAULT_CAPTURE, error);
	if (status != NN_OK)
		cpu_release(base, plan);
	return status;
}

void
cpu_release(NnDevice *base, NnPlan *plan)
{
	CpuPlan *p = plan->device_state;

	free(plan->arena);
	plan->arena = NULL;
	plan->device_state = NULL;
	if (!p)
		return;
	cpu_free_layers(&p->resized, true);
	free(p->steps);
	free(p->values);
	free(p->direct);
	free(p->results);
	free(p->frames);
	free(p->latents);
	free(p->tiles);
	free(p->moments);
	free(p);
}
