/*
 * cuda_plan.c
 *	  Planning a graph on the GPU: its steps, its ports, and the one block of
 *	  memory that all of it lives in.
 *
 * R1 A CudaPlan belongs to its NnPlan, and owns the block: the arena, buffers
 *    that steps share, the ports of both slots. A slot owns what it takes
 *    besides.
 * R2 Addresses never change while a plan is captured with them: who binds
 *    floats where bytes are the rule moves a slot's ports, and has it captured
 *    anew.
 */
#include "nn/cuda/cuda.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

static size_t
elements(NnShape s)
{
	return nn_mul(nn_mul(nn_mul(s.n, s.h), s.w), s.c);
}

/* ---- Ports --------------------------------------------------------------- */

/*
 * Whether kernels may use the port's memory instead of the arena: it is a
 * buffer of its own, of which nothing is a slice, and no result that others
 * read.
 */
static bool
is_direct(const NnGraph *g, int value)
{
	if (g->values[value].view_of >= 0)
		return false;
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of == value)
			return false;
	for (int i = 0; !g->values[value].input && i < g->nnodes; i++)
		for (int k = 0; k < NN_MAX_IN; k++)
			if (g->nodes[i].in[k] == value)
				return false;
	return true;
}

static NnStatus
add_port(CudaPlan *p, int value, NnError *error)
{
	NnShape s = cuda_shape(p->plan, value);

	if (p->nports == CUDA_MAX_PORTS)
		return nn_fail(error, NN_EUNSUPPORTED, "graph has more than %d inputs and outputs",
					   CUDA_MAX_PORTS);
	p->ports[p->nports++] = (CudaPort){
		.value = value,
		.input = p->plan->graph->values[value].input,
		.direct = is_direct(p->plan->graph, value),
		.bytes = p->plan->graph->values[value].bytes,
		.image = elements(s) / s.n,
	};
	return NN_OK;
}

/* All inputs and outputs, and their places in a slot. */
static NnStatus
find_ports(CudaPlan *p, NnError *error)
{
	const NnGraph *g = p->plan->graph;
	NnStatus status = NN_OK;

	for (int bytes = 0; bytes < 2; bytes++)
		for (int i = 0; status == NN_OK && i < g->nvalues; i++)
			if ((g->values[i].input || g->values[i].output) && g->values[i].bytes == bytes)
				status = add_port(p, i, error);
	for (int i = 0; i < p->nports; i++)
	{
		CudaPort *port = &p->ports[i];
		size_t count = elements(cuda_shape(p->plan, port->value));

		for (int wide = 0; wide < 2; wide++)
		{
			port->offset[wide] = p->port_bytes[wide];
			p->port_bytes[wide] =
				nn_sum(p->port_bytes[wide],
					   cuda_aligned(port->bytes && !wide ? count : nn_mul(count, sizeof(float))));
		}
		if (!port->bytes)
			p->float_bytes = p->port_bytes[0];
	}
	return status;
}

/* ---- Steps and shared buffers -------------------------------------------- */

/*
 * Bytes of the buffers that steps share: the most that any of them wants; and
 * of what the latent code adds, the sum, as all of it is made before the first
 * step.
 */
typedef struct Shared
{
	size_t staged, result, latents, moments, workspace;
} Shared;

static void
take_axis(KernelAxis *axis, const NnBorder *border)
{
	axis->n = border->n;
	memcpy(axis->first, border->first, sizeof(axis->first));
}

/* The classes of the latent's sums at this size, and room for its part. */
static NnStatus
place_latents(const CudaPlan *p, CudaStep *step, Shared *shared, NnError *error)
{
	const NnPlan *plan = p->plan;
	const NnNode *node = &plan->graph->nodes[step->node];
	NnShape out = cuda_shape(plan, node->out[0]);
	NnBorder rows, columns;
	NnStatus status = nn_borders(node, cuda_shape(plan, node->in[0]),
								 cuda_shape(plan, node->out[0]), &rows, &columns, error);

	if (status != NN_OK)
		return status;
	/* a code that steps make would have to be there before the first */
	INVARIANT(plan->graph->values[nn_value_root(plan->graph, node->in[1])].input);
	take_axis(&step->rows, &rows);
	take_axis(&step->columns, &columns);
	step->centre = nn_norm_of(&plan->graph->nodes[step->end]) == NN_NORM_INSTANCE
					   ? rows.centre * columns.n + columns.centre
					   : -1;
	step->latents = shared->latents / sizeof(float);
	shared->latents += cuda_aligned((size_t) out.n * rows.n * columns.n * out.c * sizeof(float));
	return NN_OK;
}

bool
cuda_joins(const NnPlan *plan, int index)
{
	const CudaDevice *device = plan->device->state;
	const NnNode *node = &plan->graph->nodes[index];
	int quad = cuda_quad(node, cuda_shape(plan, node->out[0]).c);
	CudaConvShape s;

	cuda_conv_shape(plan, node, &s);
	return cuda_is_streamed(&s, quad) ? quad == 0
									  : cuda_part_images(plan, index, device->cache_bytes) < s.n;
}

/* Whether the step's results may be written while its operand is still read. */
static bool
lies_apart(const NnPlan *plan, const CudaStep *step)
{
	const NnGraph *g = plan->graph;
	int in = g->nodes[step->node].in[0];

	for (int i = 0; i < 2; i++)
	{
		int out = g->nodes[step->end].out[i];
		NnShape a = cuda_shape(plan, in), b;

		if (out < 0)
			continue;
		b = cuda_shape(plan, out);
		if (plan->offset[in] < plan->offset[out] + (size_t) b.n * b.h * b.w * plan->pitch[out] &&
			plan->offset[out] < plan->offset[in] + (size_t) a.n * a.h * a.w * plan->pitch[in])
			return false;
	}
	return true;
}

/* The convolution that a step runs, by the library if it is not streamed. */
static void
conv_of_step(const CudaPlan *p, const CudaStep *step, CudaConvShape *s)
{
	cuda_conv_shape(p->plan, &p->plan->graph->nodes[step->node], s);
	s->n = step->images;
}

/* How a convolution is run, and what of the shared buffers. */
static NnStatus
want_conv(const CudaPlan *p, CudaStep *step, size_t cache, Shared *shared, NnError *error)
{
	const NnNode *node = &p->plan->graph->nodes[step->node];
	size_t element = kernel_type_size(p->type);
	CudaConvShape s;
	NnStatus status = NN_OK;

	conv_of_step(p, step, &s);
	step->quad = cuda_quad(node, cuda_shape(p->plan, node->out[0]).c);
	step->streamed = cuda_is_streamed(&s, step->quad);
	if (step->streamed)
		step->joined = step->quad == 0 && lies_apart(p->plan, step);
	else if (lies_apart(p->plan, step))
		s.n = step->images = cuda_part_images(p->plan, step->node, cache);
	if (cuda_latent_codes(p->plan->graph, node) > 0)
		status = place_latents(p, step, shared, error);
	nn_most(&shared->staged, elements((NnShape){ s.n, s.h, s.w, s.c }) * element);
	nn_most(&shared->result, elements((NnShape){ s.n, s.oh, s.ow, s.k }) * element);
	return status;
}

static void
want_moments(const CudaPlan *p, const CudaStep *step, Shared *shared)
{
	const NnNode *end = &p->plan->graph->nodes[step->end];
	NnShape s = cuda_shape(p->plan, end->out[0]);
	size_t floats = 0;

	if (nn_norm_of(end) == NN_NORM_INSTANCE)
		floats = kernel_instance_norm_floats(step->images, s.h, s.w, s.c);
	nn_most(&shared->moments, floats * sizeof(float));
}

/* All steps, without the library's convolutions. */
static NnStatus
find_steps(CudaPlan *p, size_t cache, Shared *shared, NnError *error)
{
	const NnGraph *g = p->plan->graph;
	NnStatus status = NN_OK;

	p->steps = calloc(g->nnodes + 1, sizeof(CudaStep));
	if (!p->steps)
		return nn_no_memory(error, g->nnodes * sizeof(CudaStep));
	for (int i = 0; status == NN_OK && i < g->nnodes; i++)
	{
		CudaStep *step = &p->steps[p->nsteps];

		if (g->nodes[i].op == NN_OP_INPUT)
			continue;
		*step = (CudaStep){ .node = i, .end = cuda_step_end(g, i) };
		p->nsteps++;
		step->images = cuda_shape(p->plan, g->nodes[step->end].out[0]).n;
		if (nn_ops[g->nodes[i].op].filters)
			status = want_conv(p, step, cache, shared, error);
		want_moments(p, step, shared);
		i = step->end;
	}
	return status;
}

static bool
is_library_conv(const CudaPlan *p, const CudaStep *step)
{
	return nn_ops[p->plan->graph->nodes[step->node].op].filters && !step->streamed;
}

/* The library's. */
static NnStatus
open_convs(CudaDevice *device, CudaPlan *p, Shared *shared, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < p->nsteps; i++)
	{
		CudaStep *step = &p->steps[i];
		const NnNode *node = &p->plan->graph->nodes[step->node];
		CudaConvShape s;

		INVARIANT(p->packed->layers[step->node].op == node->op &&
				  p->packed->layers[step->node].in.c == cuda_shape(p->plan, node->in[0]).c);
		if (!is_library_conv(p, step))
			continue;
		conv_of_step(p, step, &s);
		/* choosing an engine can take long, timing some of them longer */
		nn_progress(&device->base);
		status = cuda_open_conv(device, &s, &step->conv, error);
		if (status == NN_OK)
			nn_most(&shared->workspace, cuda_conv_workspace(step->conv));
		else
			nn_detail(error, "Layer \"%s\" of %d images.", node->name, s.n);
	}
	return status;
}

/* ---- Memory -------------------------------------------------------------- */

/* A part of the block; sizes were aligned. */
static void *
part(char **at, size_t bytes)
{
	void *start = *at;

	*at += cuda_aligned(bytes);
	return start;
}

/* Parts of a plan's block, in their order. */
enum
{
	PART_ARENA,
	PART_STAGED,
	PART_RESULT,
	PART_LATENTS,
	PART_MOMENTS,
	PART_WORKSPACE,
	PART_SLOTS,
	PLAN_PARTS = PART_SLOTS + NN_STARTS
};

/* Their bytes, and the sum. */
static size_t
list_plan_parts(const CudaPlan *p, const Shared *shared, size_t parts[PLAN_PARTS])
{
	size_t total = 0;

	parts[PART_ARENA] = nn_mul(p->plan->arena_elements, kernel_type_size(p->type));
	parts[PART_STAGED] = shared->staged;
	parts[PART_RESULT] = shared->result;
	parts[PART_LATENTS] = shared->latents;
	parts[PART_MOMENTS] = shared->moments;
	parts[PART_WORKSPACE] = shared->workspace;
	for (int i = 0; i < NN_STARTS; i++)
		parts[PART_SLOTS + i] = p->port_bytes[0];
	for (int i = 0; i < PLAN_PARTS; i++)
		total = nn_sum(total, cuda_aligned(parts[i]));
	return total;
}

static NnStatus
take_block(CudaDevice *device, NnPlan *plan, CudaPlan *p, const Shared *shared, NnError *error)
{
	size_t parts[PLAN_PARTS], total = list_plan_parts(p, shared, parts);
	char *at;
	NnStatus status;

	status = cuda_take(device, total, &p->block, error);
	if (status != NN_OK)
		return status;
	at = p->block.data;
	plan->arena = part(&at, parts[PART_ARENA]);
	plan->device_bytes = p->block.bytes - parts[PART_ARENA];
	p->staged = part(&at, parts[PART_STAGED]);
	p->result = part(&at, parts[PART_RESULT]);
	p->latents = part(&at, parts[PART_LATENTS]);
	p->moments = part(&at, parts[PART_MOMENTS]);
	p->workspace = part(&at, parts[PART_WORKSPACE]);
	for (int i = 0; i < NN_STARTS; i++)
		p->slots[i].device = part(&at, parts[PART_SLOTS + i]);
	return NN_OK;
}

/*
 * Runs each of the library's convolutions once, on what is in the plan's
 * buffers, so that one that cannot be run is known before it counts.
 */
static NnStatus
prove_convs(CudaDevice *device, CudaPlan *p, size_t workspace, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < p->nsteps; i++)
	{
		const CudaStep *step = &p->steps[i];

		if (!step->conv)
			continue;
		nn_progress(&device->base);
		status =
			cuda_prove_conv(device, step->conv, p->staged, p->packed->layers[step->node].filter,
							p->result, p->workspace, workspace, error);
	}
	return status;
}

NnStatus
cuda_stage(CudaSlot *slot, size_t bytes, NnError *error)
{
	void *staged = NULL;
	NnStatus status;

	if (bytes <= slot->staged_bytes)
		return NN_OK;
	status = cuda_pin_host(&staged, bytes, error);
	if (status != NN_OK)
		return status;
	(void) cudaFreeHost(slot->staged);
	slot->plan->plan->host_bytes += bytes - slot->staged_bytes;
	slot->staged = staged;
	slot->staged_bytes = bytes;
	return NN_OK;
}

NnStatus
cuda_widen(CudaDevice *device, CudaSlot *slot, NnError *error)
{
	NnStatus status = cuda_take(device, slot->plan->port_bytes[1], &slot->block, error);

	if (status != NN_OK)
		return status;
	slot->plan->plan->device_bytes += slot->block.bytes;
	slot->device = slot->block.data;
	slot->wide = true;
	slot->placed = false;
	return NN_OK;
}

/* A plan for one image must always run, and has all that it may need. */
static NnStatus
make_slot(CudaPlan *p, CudaSlot *slot, NnError *error)
{
	bool one = p->nports > 0 && cuda_shape(p->plan, p->ports[0].value).n == 1;
	cudaEvent_t *events[] = { &slot->arrived, &slot->computed, &slot->left };
	NnStatus status;

	slot->plan = p;
	slot->values = calloc(p->plan->graph->nvalues + 1, sizeof(KernelMap));
	if (!slot->values)
		return nn_no_memory(error, p->plan->graph->nvalues * sizeof(KernelMap));
	status = cuda_stage(slot, one ? p->port_bytes[0] : p->float_bytes, error);
	for (size_t i = 0; status == NN_OK && i < sizeof(events) / sizeof(events[0]); i++)
		status =
			cuda_check(error, cudaEventCreateWithFlags(events[i], CUDA_EVENT), "create an event");
	return status;
}

static void
free_slot(CudaDevice *device, CudaSlot *slot)
{
	cudaEvent_t events[] = { slot->arrived, slot->computed, slot->left };

	if (slot->graph)
		(void) cudaGraphExecDestroy(slot->graph);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			(void) cudaEventDestroy(events[i]);
	(void) cudaFreeHost(slot->staged);
	cuda_give(device, &slot->block);
	free(slot->values);
}

/* ---- The ways in --------------------------------------------------------- */

size_t
cuda_plan_bytes(NnDevice *base, const NnPlan *plan)
{
	const CudaDevice *device = base->state;
	NnPlan asked = *plan;
	CudaPlan p = { .plan = &asked, .type = cuda_type(plan->precision) };
	Shared shared = { 0 };
	size_t parts[PLAN_PARTS], bytes = 0;
	NnError ignored;

	if (find_ports(&p, &ignored) == NN_OK &&
		find_steps(&p, device->cache_bytes, &shared, &ignored) == NN_OK)
	{
		for (int i = 0; i < p.nsteps; i++)
			if (is_library_conv(&p, &p.steps[i]))
				shared.workspace = CUDA_MAX_WORKSPACE;
		bytes = nn_sum(list_plan_parts(&p, &shared, parts),
					   nn_mul(NN_STARTS, cuda_aligned(p.port_bytes[1])));
	}
	free(p.steps);
	return bytes;
}

NnStatus
cuda_prepare(NnDevice *base, NnPlan *plan, const void *packed, NnError *error)
{
	CudaDevice *device = base->state;
	Shared shared = { 0 };
	CudaPlan *p;
	NnStatus status = cuda_use(device, error);

	if (status != NN_OK)
		return status;
	p = calloc(1, sizeof(CudaPlan));
	if (!p)
		return nn_no_memory(error, sizeof(CudaPlan));
	plan->device_state = p;
	p->plan = plan;
	p->packed = packed;
	INVARIANT(p->packed->nlayers == plan->graph->nnodes && p->packed->precision == plan->precision);
	p->type = cuda_type(plan->precision);
	status = find_ports(p, error);
	if (status == NN_OK)
		status = find_steps(p, device->cache_bytes, &shared, error);
	if (status == NN_OK)
		status = open_convs(device, p, &shared, error);
	if (status == NN_OK)
		status = take_block(device, plan, p, &shared, error);
	if (status == NN_OK)
		status = prove_convs(device, p, shared.workspace, error);
	for (int i = 0; status == NN_OK && i < NN_STARTS; i++)
		status = make_slot(p, &p->slots[i], error);
	if (status != NN_OK)
		cuda_release(base, plan);
	return status;
}

void
cuda_release(NnDevice *base, NnPlan *plan)
{
	CudaDevice *device = base->state;
	CudaPlan *p = plan->device_state;
	NnError ignored;

	plan->arena = NULL;
	plan->device_state = NULL;
	if (!p)
		return;
	/* after an error something may still run */
	(void) cuda_use(device, &ignored);
	(void) cudaStreamSynchronize(device->in);
	(void) cudaStreamSynchronize(device->compute);
	(void) cudaStreamSynchronize(device->out);
	for (int i = 0; i < NN_STARTS; i++)
		free_slot(device, &p->slots[i]);
	for (int i = 0; p->steps && i < p->nsteps; i++)
		if (p->steps[i].conv)
			cuda_conv_close(p->steps[i].conv);
	cuda_give(device, &p->block);
	free(p->steps);
	free(p);
}
