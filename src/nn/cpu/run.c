/*
 * run.c
 *	  Planning and running a graph on the CPU: steps, their memory, and the team of threads that takes units of them.
 *
 * A CpuPlan belongs to its NnPlan and is used by one caller at a time.  Its steps are the graph's nodes, where a convolution and the norm that alone reads
 * it are one step: the convolution's result stays in float in a buffer of the plan and never becomes a value of the graph.  Values live in the arena, in the
 * precision's type, except inputs and outputs that stand for themselves: those are used where the caller has them, in float.
 *
 * All threads of a team walk the same list of steps; `omp for` hands out units and is the barrier between steps.  The first failure is kept and stops
 * further work, but no thread leaves the walk.
 */
#include "run.h"
#include "finish.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of results that are made before they are finished: few enough to be still in the cache. */
#define CHUNK_BYTES ((size_t) 4 << 20)

static NnShape
shape_of(const NnPlan *plan, int value)
{
	return plan->graph->values[value].shape;
}

static size_t
element_size(bool bf16)
{
	return bf16 ? 2 : 4;
}

static char *
pixel(const CpuValue *v, size_t image, size_t index)
{
	return v->data + (image * v->image + index * v->pitch) * element_size(v->bf16);
}

/* ---- Preparing ------------------------------------------------------------------------------------------------------------------------------- */

static bool
is_conv(NnOp op)
{
	return op == NN_OP_CONV || op == NN_OP_CONVT;
}

static bool
same_image(NnShape a, NnShape b)
{
	return a.h == b.h && a.w == b.w && a.c == b.c;
}

/* The packed layers must be those of this graph, at another batch size perhaps. */
static NnStatus
check_packed(const NnPlan *plan, const CpuPacked *packed, NnError *error)
{
	const NnGraph *g = plan->graph;
	bool		fits = packed->nlayers == g->nnodes && packed->precision == plan->precision;

	for (int i = 0; fits && i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];
		const CpuLayer *layer = &packed->layers[i];

		fits = layer->op == node->op && same_image(layer->out, shape_of(plan, g->nodes[is_conv(node->op) ? cpu_step_end(g, i) : i].out[0])) &&
			(node->in[0] < 0 || same_image(layer->in, shape_of(plan, node->in[0])));
	}
	return fits ? NN_OK : nn_fail(error, NN_EINVAL, "weights were packed for another graph");
}

/* Whether two values share memory of the arena. */
static bool
overlap(const NnPlan *plan, int a, int b)
{
	size_t		begin[2],
				end[2];
	int			value[2] = {a, b};

	for (int i = 0; i < 2; i++)
	{
		NnShape		s = shape_of(plan, value[i]);

		begin[i] = plan->offset[value[i]];
		end[i] = begin[i] + ((size_t) s.n * s.h * s.w - 1) * plan->pitch[value[i]] + s.c;
	}
	return begin[0] < end[1] && begin[1] < end[0];
}

/*
 * A chunk's results are finished before the next chunk is convolved, so that they are read from the cache.  But the planner may have put what the step's
 * end writes over what the convolution reads, which it took for dead by then; the whole batch is one chunk then.
 */
static int
chunk_of(const NnPlan *plan, const CpuLayer *layer, int id, int end)
{
	const NnNode *node = &plan->graph->nodes[id];
	int			batch = shape_of(plan, node->out[0]).n;
	size_t		images = CHUNK_BYTES / (layer->layout.elements * sizeof(float));

	for (int o = 0; end != id && o < 2; o++)
	{
		int			out = plan->graph->nodes[end].out[o];

		for (int i = 0; out >= 0 && i < 2; i++)
			if (node->in[i] >= 0 && overlap(plan, out, node->in[i]))
				return batch;
	}
	return images < 1 ? 1 : images < (size_t) batch ? (int) images : batch;
}

static size_t
latent_floats(const CpuLayer *layer)
{
	return layer->nz > 0 ? (size_t) layer->rows.n * layer->columns.n * layer->out.c : 0;
}

/* The list of steps, and the sizes of the buffers that they share. */
static NnStatus
make_steps(const CpuDevice *device, NnPlan *plan, const CpuPacked *packed, CpuPlan *p, NnError *error)
{
	const NnGraph *g = plan->graph;
	size_t		results = 0,
				gathered = 0,
				latents = 0,
				tiles = 0;

	for (int i = 0; i < g->nnodes; i++)
	{
		const CpuLayer *layer = &packed->layers[i];
		CpuStep		step = {.node = i, .end = i, .chunk = 1};

		if (g->nodes[i].op == NN_OP_INPUT)
			continue;
		if (is_conv(g->nodes[i].op))
		{
			size_t		in = (size_t) layer->in.h * layer->in.w * layer->in.c;

			step.end = cpu_step_end(g, i);
			step.chunk = chunk_of(plan, layer, i, step.end);
			results = layer->layout.elements * step.chunk > results ? layer->layout.elements * step.chunk : results;
			latents = latent_floats(layer) * step.chunk > latents ? latent_floats(layer) * step.chunk : latents;
			if (layer->layout.algorithm == CPU_TILES)
			{
				size_t		v,
							scratch;

				cpu_tile_memory(device->kernels, layer, step.chunk, &v, &scratch);
				tiles = v > tiles ? v : tiles;
				p->scratch_bytes = scratch > p->scratch_bytes ? scratch : p->scratch_bytes;
			}
			else if (plan->pitch[g->nodes[i].in[0]] != layer->in.c || (plan->precision == NN_PRECISION_BF16 && p->direct[g->nodes[i].in[0]]))
				gathered = in * step.chunk > gathered ? in * step.chunk : gathered;
			i = step.end;
		}
		p->steps[p->nsteps++] = step;
	}
	gathered *= element_size(plan->precision == NN_PRECISION_BF16);
	p->results = cpu_alloc(results * sizeof(float));
	p->gathered = cpu_alloc(gathered);
	p->latents = cpu_alloc(latents * sizeof(float));
	p->tiles = cpu_alloc(tiles * sizeof(float));
	plan->device_bytes = (results + latents + tiles) * sizeof(float) + gathered;
	if (!p->results || !p->gathered || !p->latents || !p->tiles)
		return nn_no_memory(error, plan->device_bytes);
	return NN_OK;
}

/* A buffer of its own that nothing else is a slice of may be the caller's, if it is an input or an output. */
static void
find_direct(const NnGraph *g, bool *direct)
{
	for (int i = 0; i < g->nvalues; i++)
		direct[i] = g->values[i].output && g->values[i].view_of < 0;
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op == NN_OP_INPUT && g->values[g->nodes[i].out[0]].view_of < 0)
			direct[g->nodes[i].out[0]] = true;
	for (int i = 0; i < g->nvalues; i++)
		if (g->values[i].view_of >= 0)
			direct[g->values[i].view_of] = false;
}

static void
free_memories(CpuPlan *p)
{
	for (int i = 0; i < p->nthreads * p->nprimitives; i++)
	{
		dnnl_memory_destroy(p->memories[i].src);
		dnnl_memory_destroy(p->memories[i].dst);
		dnnl_memory_destroy(p->memories[i].scratch);
	}
	free(p->memories);
	p->memories = NULL;
	p->nthreads = 0;
}

static dnnl_status_t
create_memories(const CpuDevice *device, const CpuPrimitive *primitive, CpuMemories *m)
{
	DnnlDescRef scratch = dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_scratchpad_md, 0);
	dnnl_status_t status = dnnl_memory_create(&m->src, dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_src_md, 0), device->engine, DNNL_MEMORY_NONE);

	if (status == dnnl_success)
		status = dnnl_memory_create(&m->dst, dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_dst_md, 0), device->engine, DNNL_MEMORY_NONE);
	if (status == dnnl_success)
		status = dnnl_memory_create(&m->scratch, scratch, device->engine, DNNL_MEMORY_NONE);
	return status;
}

/* Memory objects for as many threads as the device has now. */
static NnStatus
ready_memories(CpuDevice *device, CpuPlan *p, const CpuPacked *packed, NnError *error)
{
	int			threads = device->base.threads;
	size_t		n = (size_t) threads * packed->nprimitives;

	if (p->nthreads >= threads)
		return NN_OK;
	free_memories(p);
	p->memories = calloc(n + 1, sizeof(CpuMemories));
	if (!p->memories)
		return nn_no_memory(error, n * sizeof(CpuMemories));
	p->nthreads = threads;
	p->nprimitives = packed->nprimitives;
	for (int t = 0; t < threads; t++)
		for (int i = 0; i < packed->nlayers; i++)
			for (int k = 0; k < packed->layers[i].nprimitives; k++)
			{
				const CpuPrimitive *primitive = &packed->layers[i].primitives[k];
				dnnl_status_t status = create_memories(device, primitive, &p->memories[(size_t) t * packed->nprimitives + primitive->id]);

				if (status != dnnl_success)
					return cpu_dnnl_fail(error, status, "describe memory");
			}
	return NN_OK;
}

NnStatus
cpu_prepare(NnDevice *base, NnPlan *plan, const void *packed_, NnError *error)
{
	const CpuPacked *packed = packed_;
	const NnGraph *g = plan->graph;
	CpuPlan    *p;
	NnStatus	status = check_packed(plan, packed, error);

	if (status != NN_OK)
		return status;
	p = calloc(1, sizeof(CpuPlan));
	if (!p)
		return nn_no_memory(error, sizeof(CpuPlan));
	plan->device_state = p;
	p->steps = calloc(g->nnodes + 1, sizeof(CpuStep));
	p->values = calloc(g->nvalues + 1, sizeof(CpuValue));
	p->direct = calloc(g->nvalues + 1, sizeof(bool));
	plan->arena = cpu_alloc(nn_mul(plan->arena_elements, element_size(plan->precision == NN_PRECISION_BF16)));
	if (!p->steps || !p->values || !p->direct || !plan->arena)
		status = nn_no_memory(error, plan->arena_elements * sizeof(float));
	if (status == NN_OK)
	{
		find_direct(g, p->direct);
		status = make_steps(base->state, plan, packed, p, error);
	}
	if (status != NN_OK)
		cpu_release(base, plan);
	return status;
}

void
cpu_release(NnDevice *base, NnPlan *plan)
{
	CpuPlan    *p = plan->device_state;

	free(plan->arena);
	plan->arena = NULL;
	plan->device_state = NULL;
	if (!p)
		return;
	free_memories(p);
	free(p->steps);
	free(p->values);
	free(p->direct);
	free(p->results);
	free(p->gathered);
	free(p->latents);
	free(p->tiles);
	free(p);
}

/* ---- Convolutions ---------------------------------------------------------------------------------------------------------------------------- */

/* A copy of n pixels, perhaps in another type. */
static void
convert(const CpuKernels *kernels, const CpuValue *from, size_t image, size_t at, int n, int c, CpuOut to)
{
	static const float zeros[CPU_BLOCK];
	static const float ones[CPU_BLOCK] = {[0 ... CPU_BLOCK - 1] = 1.0f};
	const CpuAffine same = {zeros, zeros, ones, zeros};

	for (int c0 = 0; c0 < c; c0 += CPU_BLOCK)
	{
		CpuRun		src = {pixel(from, image, at) + c0 * element_size(from->bf16), from->pitch, from->bf16};
		CpuOut		dst = to;

		dst.data = (char *) to.data + c0 * element_size(to.bf16);
		kernels->apply(src, n, c - c0 < CPU_BLOCK ? c - c0 : CPU_BLOCK, &same, &dst, 1);
	}
}

/* The inputs of images [i0, i0 + n), dense and in the precision's type. */
static void
gather(CpuCall *call, const CpuValue *v, NnShape in, int i0, int n)
{
	size_t		image = (size_t) in.h * in.w * in.c;

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int y = 0; y < in.h; y++)
		{
			CpuOut		out = {call->p->gathered + (i * image + (size_t) y * in.w * in.c) * element_size(call->bf16), in.c, call->bf16, {0}};

			convert(call->device->kernels, v, i0 + i, (size_t) y * in.w, in.w, in.c, out);
		}
}

static float
z_activation(NnActKind kind, float z)
{
	switch (kind)
	{
		case NN_ACT_RELU:
			return z > 0 ? z : 0;
		case NN_ACT_LRELU:
			return z > 0 ? z : 0.2f * z;
		case NN_ACT_ELU:
			return z > 0 ? z : expm1f(z);
		case NN_ACT_TANH:
			return tanhf(z);
		case NN_ACT_NONE:
			break;
	}
	return z;
}

static float
latent_element(const CpuValue *z, size_t image, int i)
{
	const char *at = z->data + (image * z->image + i) * element_size(z->bf16);
	uint32_t	bits;
	float		value;

	if (!z->bf16)
		return *(const float *) at;
	bits = (uint32_t) *(const uint16_t *) at << 16;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* What the latents of images [i0, i0 + n) add, for each class of positions. */
static void
add_latents(CpuCall *call, const CpuLayer *layer, const NnNode *node, int i0, int n)
{
	const CpuValue *z = &call->p->values[node->in[1]];
	int			classes = layer->rows.n * layer->columns.n,
				c = layer->out.c;

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int k = 0; k < classes; k++)
		{
			float	   *out = call->p->latents + ((size_t) i * classes + k) * c;
			const float *w = layer->z_weights + (size_t) k * layer->nz * c;

			memset(out, 0, c * sizeof(float));
			for (int j = 0; j < layer->nz; j++, w += c)
			{
				float		value = z_activation(node->z_act, latent_element(z, i0 + i, j));

				for (int o = 0; o < c; o++)
					out[o] += value * w[o];
			}
		}
}

static void
run_unit(CpuCall *call, const CpuLayer *layer, const CpuUnit *unit, const char *image, float *result)
{
	const CpuPrimitive *primitive = &layer->primitives[unit->primitive];
	int			thread = omp_get_thread_num();
	const CpuMemories *m = &call->p->memories[(size_t) thread * call->packed->nprimitives + primitive->id];
	dnnl_exec_arg_t args[4] = {{DNNL_ARG_SRC, m->src}, {DNNL_ARG_WEIGHTS, unit->weights}, {DNNL_ARG_DST, m->dst}, {DNNL_ARG_SCRATCHPAD, m->scratch}};
	dnnl_status_t status;

	status = dnnl_memory_set_data_handle(m->src, (void *) (image + unit->src * element_size(call->bf16)));
	if (status == dnnl_success)
		status = dnnl_memory_set_data_handle(m->dst, result + unit->dst);
	if (status == dnnl_success)
		status = dnnl_memory_set_data_handle(m->scratch, call->device->threads[thread].scratch);
	if (status == dnnl_success)
		status = dnnl_primitive_execute(primitive->primitive, call->device->threads[thread].stream, 4, args);
	if (status != dnnl_success)
	{
#pragma omp atomic write
		call->failed = status;
	}
}

/* oneDNN's convolutions of images [i0, i0 + n), from the gathered copies if the input is not as it needs it. */
static void
run_units(CpuCall *call, const CpuLayer *layer, const CpuValue *x, int i0, int n)
{
	size_t		in = (size_t) layer->in.h * layer->in.w * layer->in.c;
	bool		dense = x->pitch == layer->in.c && x->bf16 == call->bf16;

#pragma omp for collapse(2) schedule(dynamic)
	for (int u = 0; u < layer->nunits; u++)
		for (int i = 0; i < n; i++)
			run_unit(call, layer, &layer->units[u], dense ? pixel(x, i0 + i, 0) : call->p->gathered + i * in * element_size(call->bf16),
					 call->p->results + i * layer->layout.elements);
}

/* The outputs of a node from image i on, as a finish writes them. */
static int
outputs_of(const CpuCall *call, const NnNode *node, size_t image, CpuOut out[2])
{
	int			n = 0;

	for (int o = 0; o < 2; o++)
		if (node->out[o] >= 0)
		{
			const CpuValue *v = &call->p->values[node->out[o]];

			out[n++] = (CpuOut) {pixel(v, image, 0), v->pitch, v->bf16, node->op == NN_OP_NORM_ACT ? node->act[o] : (NnActChain) {0}};
		}
	return n;
}

/* Finishes n images, whose jobs differ from `first` by the steps given. */
static void
finish_images(CpuCall *call, const NnNode *node, const CpuFinish *first, int i0, int n, size_t src_bytes, size_t latent_step)
{
	const CpuKernels *kernels = call->device->kernels;
	bool		channels = first->norm == NN_NORM_INSTANCE;
	int			rows = cpu_finish_row_count(first),
				unit,
				units;

	if (channels)
	{
		/* units within a part, and enough of them for the team; how channels are cut changes no bit */
		for (unit = CPU_BLOCK; first->part % unit != 0;)
			unit--;
		while (unit > 16 && unit % 32 == 0 && n * (first->c / unit) < 4 * omp_get_num_threads())
			unit /= 2;
		units = first->c / unit;
	}
	else
	{
		unit = 32768 / (first->w * first->c) + 1;
		units = (rows + unit - 1) / unit;
	}
#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int u = 0; u < units; u++)
		{
			CpuFinish	f = *first;

			f.src = (const char *) first->src + i * src_bytes;
			f.latent = first->latent ? first->latent + i * latent_step : NULL;
			f.nouts = outputs_of(call, node, i0 + i, f.out);
			if (channels)
				cpu_finish_channels(kernels, &f, u * unit, unit);
			else
				cpu_finish_rows(kernels, &f, u * unit, u * unit + unit < rows ? u * unit + unit : rows);
		}
}

/* The job of finishing this step's first result of a chunk; outputs are filled in for each image. */
static CpuFinish
finish_of(const CpuCall *call, const CpuStep *step, const CpuLayer *layer)
{
	const CpuLayout *l = &layer->layout;
	const NnNode *end = &call->plan->graph->nodes[step->end];
	CpuFinish	f = {
		.form = l->form,
		.src = call->p->results,
		.step = l->part,
		.part = l->form == CPU_GRID ? layer->out.c : l->part,
		.part_step = (size_t) l->h * l->w * l->part,
		.h = layer->out.h,
		.w = layer->out.w,
		.c = layer->out.c,
		.bias = layer->bias,
		.latent_layer = layer,
		.latent = layer->nz > 0 ? call->p->latents : NULL,
		.norm = end->op == NN_OP_NORM_ACT ? end->norm : NN_NORM_NONE,
		.batch = end->op == NN_OP_NORM_ACT ? call->packed->layers[step->end].norm : NULL,
	};

	f.nouts = outputs_of(call, end, 0, f.out);
	return f;
}

static void
run_conv(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const NnNode *end = &call->plan->graph->nodes[step->end];
	const CpuLayer *layer = &call->packed->layers[step->node];
	const CpuValue *x = &call->p->values[node->in[0]];
	CpuFinish	finish = finish_of(call, step, layer);
	size_t		elements = layer->layout.elements;
	bool		tiles = layer->layout.algorithm == CPU_TILES;
	bool		dense = tiles || (x->pitch == layer->in.c && x->bf16 == call->bf16);
	int			batch = shape_of(call->plan, node->out[0]).n;

	for (int i0 = 0; i0 < batch; i0 += step->chunk)
	{
		int			n = batch - i0 < step->chunk ? batch - i0 : step->chunk;

		if (!dense)
			gather(call, x, layer->in, i0, n);
		if (layer->nz > 0)
			add_latents(call, layer, node, i0, n);
		if (tiles)
			cpu_run_tiles(call, layer, x, i0, n, call->p->results);
		else
			run_units(call, layer, x, i0, n);
		finish_images(call, end, &finish, i0, n, elements * sizeof(float), latent_floats(layer));
	}
}

/* ---- Other operators ------------------------------------------------------------------------------------------------------------------------- */

static void
run_norm_act(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const CpuLayer *layer = &call->packed->layers[step->node];
	const CpuValue *x = &call->p->values[node->in[0]];
	CpuFinish	f = {
		.form = CPU_PLAIN,
		.src = x->data,
		.src_bf16 = x->bf16,
		.step = x->pitch,
		.part = layer->in.c,
		.h = layer->in.h,
		.w = layer->in.w,
		.c = layer->in.c,
		.norm = node->norm,
		.batch = layer->norm,
	};

	f.nouts = outputs_of(call, node, 0, f.out);
	finish_images(call, node, &f, 0, shape_of(call->plan, node->in[0]).n, x->image * element_size(x->bf16), 0);
}

static CpuOut
out_pixel(const CpuValue *v, size_t image, size_t index)
{
	return (CpuOut) {pixel(v, image, index), v->pitch, v->bf16, {0}};
}

static void
run_add(CpuCall *call, const NnNode *node)
{
	NnShape		s = shape_of(call->plan, node->out[0]);
	const CpuValue *a = &call->p->values[node->in[0]],
			   *b = &call->p->values[node->in[1]],
			   *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
		{
			size_t		at = (size_t) row * s.w;
			CpuOut		out = out_pixel(y, i, at);

			call->device->kernels->add((CpuRun) {pixel(a, i, at), a->pitch, a->bf16}, (CpuRun) {pixel(b, i, at), b->pitch, b->bf16}, s.w, s.c, &out);
		}
}

static void
run_avgpool(CpuCall *call, const NnNode *node)
{
	NnShape		in = shape_of(call->plan, node->in[0]),
				s = shape_of(call->plan, node->out[0]);
	const CpuValue *x = &call->p->values[node->in[0]],
			   *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
			for (int column = 0; column < s.w; column++)
			{
				int			top = row * node->stride - node->pad,
							left = column * node->stride - node->pad;
				int			y0 = top > 0 ? top : 0,
							y1 = top + node->kernel < in.h ? top + node->kernel : in.h;
				int			x0 = left > 0 ? left : 0,
							x1 = left + node->kernel < in.w ? left + node->kernel : in.w;
				CpuRun		src = {pixel(x, i, (size_t) y0 * in.w + x0), x->pitch, x->bf16};
				CpuOut		out = out_pixel(y, i, (size_t) row * s.w + column);

				call->device->kernels->pool(src, y1 - y0, x1 - x0, in.w * x->pitch, 1.0f / ((y1 - y0) * (x1 - x0)), s.c, &out);
			}
}

/* Position i of the padded axis of twice `extent`: two neighbours, and the weight of the second. */
static void
upsample_axis(int i, int pad, int extent, int *first, int *second, float *weight)
{
	int			size = 2 * extent,
				at = i - pad;
	float		source;

	at = at < 0 ? -at : at >= size ? 2 * size - 2 - at : at;
	source = at * 0.5f - 0.25f;
	source = source < 0 ? 0 : source;
	*first = (int) source;
	*second = *first + 1 < extent ? *first + 1 : *first;
	*weight = source - *first;
}

static void
run_upsample(CpuCall *call, const NnNode *node)
{
	NnShape		in = shape_of(call->plan, node->in[0]),
				s = shape_of(call->plan, node->out[0]);
	const CpuValue *x = &call->p->values[node->in[0]],
			   *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
		{
			int			y0,
						y1;
			float		wy;

			upsample_axis(row, node->pad, in.h, &y0, &y1, &wy);
			for (int column = 0; column < s.w; column++)
			{
				int			x0,
							x1;
				float		wx;
				CpuOut		out = out_pixel(y, i, (size_t) row * s.w + column);

				upsample_axis(column, node->pad, in.w, &x0, &x1, &wx);
				call->device->kernels->blend((const void *const[4]) {pixel(x, i, (size_t) y0 * in.w + x0), pixel(x, i, (size_t) y0 * in.w + x1),
											 pixel(x, i, (size_t) y1 * in.w + x0), pixel(x, i, (size_t) y1 * in.w + x1)}, x->bf16,
											 (const float[4]) {(1 - wy) * (1 - wx), (1 - wy) * wx, wy * (1 - wx), wy * wx}, s.c, &out);
			}
		}
}

static void
run_linear(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const CpuLayer *layer = &call->packed->layers[step->node];
	const CpuValue *x = &call->p->values[node->in[0]],
			   *y = &call->p->values[node->out[0]];
	int			batch = shape_of(call->plan, node->out[0]).n;

#pragma omp for schedule(dynamic)
	for (int i = 0; i < batch; i++)
	{
		CpuOut		out = out_pixel(y, i, 0);

		call->device->kernels->linear((CpuRun) {pixel(x, i, 0), x->pitch, x->bf16}, layer->in.c, layer->norm, layer->bias, layer->out.c, &out);
	}
}

static void
run_step(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];

	switch (node->op)
	{
		case NN_OP_CONV:
		case NN_OP_CONVT:
			run_conv(call, step);
			break;
		case NN_OP_NORM_ACT:
			run_norm_act(call, step);
			break;
		case NN_OP_UPSAMPLE:
			run_upsample(call, node);
			break;
		case NN_OP_AVGPOOL:
			run_avgpool(call, node);
			break;
		case NN_OP_LINEAR:
			run_linear(call, step);
			break;
		case NN_OP_ADD:
			run_add(call, node);
			break;
		case NN_OP_INPUT:
		case NN_OPS:
			break;
	}
}

/* ---- Running --------------------------------------------------------------------------------------------------------------------------------- */

/* Every value's place in the arena, or in the caller's memory where it is bound and direct. */
static void
place_values(const NnPlan *plan, CpuPlan *p, const NnBinding *bindings, int nbindings)
{
	const NnGraph *g = plan->graph;
	bool		bf16 = plan->precision == NN_PRECISION_BF16;

	for (int i = 0; i < g->nvalues; i++)
	{
		NnShape		s = g->values[i].shape;

		p->values[i] = (CpuValue) {
			.data = (char *) plan->arena + plan->offset[i] * element_size(bf16),
			.pitch = plan->pitch[i],
			.image = (size_t) s.h * s.w * plan->pitch[i],
			.bf16 = bf16,
		};
	}
	for (int i = 0; i < nbindings; i++)
	{
		NnShape		s = g->values[bindings[i].value].shape;

		if (p->direct[bindings[i].value])
			p->values[bindings[i].value] = (CpuValue) {(char *) bindings[i].data, s.c, (size_t) s.h * s.w * s.c, false};
	}
}

static bool
is_input(const NnGraph *g, int value)
{
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op == NN_OP_INPUT && g->nodes[i].out[0] == value)
			return true;
	return false;
}

/* Copies the bound inputs into the arena, or the bound outputs out of it, where they are not direct. */
static void
copy_bound(const CpuCall *call, const NnBinding *bindings, int nbindings, bool inputs)
{
	for (int i = 0; i < nbindings; i++)
	{
		int			value = bindings[i].value;
		NnShape		s = shape_of(call->plan, value);
		CpuValue	arena = call->p->values[value];
		CpuValue	bound = {(char *) bindings[i].data, s.c, (size_t) s.h * s.w * s.c, false};

		if (call->p->direct[value] || is_input(call->plan->graph, value) != inputs)
			continue;
		for (int n = 0; n < s.n; n++)
		{
			if (inputs)
				convert(call->device->kernels, &bound, n, 0, s.h * s.w, s.c, out_pixel(&arena, n, 0));
			else
				convert(call->device->kernels, &arena, n, 0, s.h * s.w, s.c, out_pixel(&bound, n, 0));
		}
	}
}

NnStatus
cpu_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings, int nbindings, NnError *error)
{
	CpuCall		call = {.device = base->state, .plan = plan, .packed = packed, .p = plan->device_state, .bf16 = plan->precision == NN_PRECISION_BF16};
	size_t		scratch = call.packed->scratch_bytes > call.p->scratch_bytes ? call.packed->scratch_bytes : call.p->scratch_bytes;
	NnStatus	status = cpu_ready_threads(call.device, scratch, error);

	if (status == NN_OK)
		status = ready_memories(call.device, call.p, call.packed, error);
	if (status != NN_OK)
		return status;
	place_values(plan, call.p, bindings, nbindings);
	copy_bound(&call, bindings, nbindings, true);
#pragma omp parallel num_threads(base->threads)
	{
		/* oneDNN must not start a team of its own inside ours, not even where ours is one thread */
		omp_set_num_threads(1);
		for (int i = 0; i < call.p->nsteps; i++)
			run_step(&call, &call.p->steps[i]);
	}
	if (call.failed != dnnl_success)
		return cpu_dnnl_fail(error, (dnnl_status_t) call.failed, "run a convolution");
	copy_bound(&call, bindings, nbindings, false);
	return NN_OK;
}
