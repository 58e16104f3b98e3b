/*
 * cpu_run.c
 *	  Running a plan on the CPU: the team of threads, and the steps that
 *	  convolve and normalise.
 *
 * R1 Values live in the plan's arena, in the precision's type; but inputs and
 *    outputs that are no slices, where the caller has them, in float.
 * R2 All threads of a team walk the same list of steps. `omp for` hands out
 *    units and is the barrier between steps.
 * R3 A failure is kept to the end; no thread leaves the walk before the others.
 */
#include "nn/cpu/cpu_run.h"
#include "nn/cpu/cpu_finish.h"

#include "common/invariant.h"

#include <omp.h>
#include <string.h>

/* ---- Convolutions -------------------------------------------------------- */

/* What the latents of images [i0, i0 + n) add, for each class of positions. */
static void
add_latents(CpuCall *call, const CpuLayer *layer, const NnNode *node, int i0, int n)
{
	const CpuValue *z = &call->p->values[node->in[1]];
	int classes = layer->rows.n * layer->columns.n, c = layer->out.c;

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int k = 0; k < classes; k++)
		{
			float *out = call->p->latents + ((size_t) i * classes + k) * c;
			const float *w = layer->z_weights + (size_t) k * layer->nz * c;

			memset(out, 0, c * sizeof(float));
			for (int j = 0; j < layer->nz; j++, w += c)
			{
				float value = nn_act(node->conv.z_act,
									 cpu_element(z->data, z->bf16, (i0 + i) * z->image + j));

				for (int o = 0; o < c; o++)
					out[o] += value * w[o];
			}
		}
}

/* The outputs of a node from image i on, as a finish writes them. */
static int
outputs_of(const CpuCall *call, const NnNode *node, size_t image, CpuOut out[2])
{
	int n = 0;

	for (int o = 0; o < 2; o++)
		if (node->out[o] >= 0)
		{
			const CpuValue *v = &call->p->values[node->out[o]];

			out[n++] =
				(CpuOut){ pixel(v, image, 0), v->pitch, v->bf16,
						  node->op == NN_OP_NORM_ACT ? node->norm.act[o] : (NnActChain){ 0 } };
		}
	return n;
}

/* Dropout at inference; all of the team are done with what comes before. */
static void
drop_images(CpuCall *call, const NnNode *node, const CpuFinish *first, int i0, int n)
{
#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < n; i++)
		for (int y = 0; y < first->h; y++)
		{
			CpuFinish f = *first;

			f.nouts = outputs_of(call, node, i0 + i, f.out);
			cpu_finish_drop(&f, &node->norm, y);
		}
}

/* Images [i0, i0 + n), which differ from `first` by the steps given. */
typedef struct FinishImages
{
	CpuCall *call;
	const NnNode *node;
	CpuFinish first;
	int i0, n;
	size_t src_bytes, latent_step;
	CpuMoments *moments; /* NULL: no image is cut in bands */
} FinishImages;

static CpuFinish
finish_of_image(const FinishImages *w, int i)
{
	CpuFinish f = w->first;

	f.src = (const char *) f.src + i * w->src_bytes;
	f.latent = f.latent ? f.latent + i * w->latent_step : NULL;
	f.nouts = outputs_of(w->call, w->node, w->i0 + i, f.out);
	return f;
}

/* Units are whole channels: a thread finds moments and writes. */
static void
finish_by_channels(const FinishImages *w, int unit)
{
	int units = w->first.c / unit;

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < w->n; i++)
		for (int u = 0; u < units; u++)
		{
			CpuFinish f = finish_of_image(w, i);

			cpu_finish_channels(w->call->device->kernels, &f, u * unit, unit);
		}
}

/*
 * Units are bands of `rows` rows: all moments first. It is for fewer units of
 * channels than two a thread.
 */
static void
finish_by_bands(const FinishImages *w, int rows)
{
	const CpuKernels *kernels = w->call->device->kernels;
	int h = w->first.h, unit = cpu_finish_unit(&w->first), units = w->first.c / unit,
		stretches = cpu_finish_stretches(&w->first, h);

	for (int apply = 0; apply < 2; apply++)
#pragma omp for collapse(3) schedule(dynamic)
		for (int i = 0; i < w->n; i++)
			for (int u = 0; u < units; u++)
				for (int y = 0; y < h; y += rows)
				{
					CpuFinish f = finish_of_image(w, i);
					CpuMoments *moments = w->moments + (size_t) (i * units + u) * stretches;
					int end = y + rows < h ? y + rows : h;

					if (apply)
						cpu_finish_norm(kernels, &f, u * unit, unit, y, end, moments);
					else
						cpu_finish_moments(kernels, &f, u * unit, unit, y, end, moments);
				}
}

/* Channels in bfloat16 of a line of the cache: threads that share one wait. */
#define LINE_CHANNELS 32

/* Rows of a band, so that each thread has about two; h: it is not worth it. */
static int
rows_of_band(const FinishImages *w, int units, int threads)
{
	const CpuFinish *f = &w->first;
	int band = cpu_finish_band(f), bands = (2 * threads + units - 1) / units,
		most = f->h * f->w / (4 * CPU_STRETCH), rows;

	bands = bands < most ? bands : most;
	if (!w->moments || bands < 2 || cpu_finish_all_stretches(f) == 0)
		return f->h;
	rows = (f->h + bands - 1) / bands;
	return (rows + band - 1) / band * band;
}

/* How the work is cut follows the team; no bit depends on that. */
static void
finish_norm(const FinishImages *w)
{
	int threads = omp_get_num_threads(), unit = cpu_finish_unit(&w->first),
		rows = rows_of_band(w, w->n * (w->first.c / unit), threads);

	if (rows < w->first.h)
	{
		finish_by_bands(w, rows);
		return;
	}
	while (unit % (2 * LINE_CHANNELS) == 0 && w->n * (w->first.c / unit) < 2 * threads)
		unit /= 2;
	finish_by_channels(w, unit);
}

static void
finish_by_rows(const FinishImages *w)
{
	int rows = cpu_finish_row_count(&w->first), unit = 32768 / (w->first.w * w->first.c) + 1;

	while (unit > 1 && w->n * ((rows + unit - 1) / unit) < 4 * omp_get_num_threads())
		unit = (unit + 1) / 2;
#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < w->n; i++)
		for (int y = 0; y < rows; y += unit)
		{
			CpuFinish f = finish_of_image(w, i);

			cpu_finish_rows(w->call->device->kernels, &f, y, y + unit < rows ? y + unit : rows);
		}
}

static void
finish_images(const FinishImages *w)
{
	const NnNode *node = w->node;

	if (w->first.norm == NN_NORM_INSTANCE)
		finish_norm(w);
	else
		finish_by_rows(w);
	if (node->op == NN_OP_NORM_ACT && node->norm.drop_seed != 0 && node->norm.dropout > 0)
		drop_images(w->call, node, &w->first, w->i0, w->n);
}

/* How a step's first result of a chunk is finished; without outputs. */
static CpuFinish
finish_of(const CpuCall *call, const CpuStep *step, const CpuLayer *layer)
{
	const CpuLayout *l = &layer->layout;
	const NnNode *end = &call->plan->graph->nodes[step->end];
	CpuFinish f = {
		.form = l->form,
		.src = call->p->results,
		.step = l->part,
		.row = l->row,
		.part = l->part,
		.part_step = part_step(layer, step->chunk),
		.h = layer->out.h,
		.w = layer->out.w,
		.c = layer->out.c,
		.bias = layer->bias,
		.latent_layer = layer,
		.latent = layer->nz > 0 ? call->p->latents : NULL,
		.norm = nn_norm_of(end),
		.affine = nn_norm_of(end) != NN_NORM_NONE ? call->p->layers->list[step->end].norm : NULL,
	};

	f.nouts = outputs_of(call, end, 0, f.out);
	return f;
}

void
cpu_run_conv(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const NnNode *end = &call->plan->graph->nodes[step->end];
	const CpuLayer *layer = &call->p->layers->list[step->node];
	const CpuValue *x = &call->p->values[node->in[0]];
	FinishImages finish = { .call = call,
							.node = end,
							.first = finish_of(call, step, layer),
							.latent_step = latent_floats(layer),
							.moments = call->p->moments };
	CpuTileRun run = { .kernels = call->device->kernels,
					   .layer = layer,
					   .x = x,
					   .zeros = call->packed->zeros,
					   .v = call->p->tiles,
					   .scratch = call->device->threads[omp_get_thread_num()].scratch };
	bool tiles = layer->layout.algorithm == CPU_TILES;
	int batch = shape_of(call->plan, node->out[0]).n;

	finish.src_bytes = (tiles ? layer->layout.elements : part_step(layer, 1)) * sizeof(float);
	for (int i0 = 0; i0 < batch; i0 += step->chunk)
	{
		int n = batch - i0 < step->chunk ? batch - i0 : step->chunk;

		if (layer->nz > 0)
			add_latents(call, layer, node, i0, n);
		if (tiles)
			cpu_run_tiles(&run, i0, n, call->p->results);
		else
			cpu_run_frames(call, layer, x, i0, n, step->chunk);
		finish.i0 = i0;
		finish.n = n;
		finish_images(&finish);
	}
}

void
cpu_run_convt(CpuCall *call, const CpuStep *step)
{
	cpu_run_conv(call, step);
}

void
cpu_run_norm_act(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const CpuLayer *layer = &call->p->layers->list[step->node];
	const CpuValue *x = &call->p->values[node->in[0]];
	FinishImages finish = {
		.call = call,
		.node = node,
		.n = shape_of(call->plan, node->in[0]).n,
		.src_bytes = x->image * element_size(x->bf16),
		.moments = call->p->moments,
	};

	finish.first = cpu_finish_of_map(layer->in, node->norm.kind);
	finish.first.src = x->data;
	finish.first.src_bf16 = x->bf16;
	finish.first.step = x->pitch;
	finish.first.affine = layer->norm;
	finish.first.nouts = outputs_of(call, node, 0, finish.first.out);
	finish_images(&finish);
}

/* ---- Running ------------------------------------------------------------- */

#define CPU_RUN_ROW(OP, name) [NN_OP_##OP] = cpu_run_##name,

static void (*const operators[NN_OPS])(CpuCall *call, const CpuStep *step) = {
	NN_OPERATORS(CPU_RUN_ROW, CPU_RUN_NONE, CPU_RUN_ROW)
};

static void
run_operator(CpuCall *call, const CpuStep *step)
{
	NnOp op = call->plan->graph->nodes[step->node].op;

	INVARIANT(operators[op]); /* what only training has is in no graph here */
	operators[op](call, step);
}

/* Every value's place: in the arena, or the caller's if bound and direct. */
static void
place_values(const NnPlan *plan, CpuPlan *p, const NnBinding *bindings, int nbindings)
{
	const NnGraph *g = plan->graph;
	bool bf16 = plan->precision == NN_PRECISION_BF16;

	for (int i = 0; i < g->nvalues; i++)
	{
		NnShape s = g->values[i].shape;

		p->values[i] = (CpuValue){
			.data = (char *) plan->arena + plan->offset[i] * element_size(bf16),
			.pitch = plan->pitch[i],
			.image = (size_t) s.h * s.w * plan->pitch[i],
			.bf16 = bf16,
		};
	}
	for (int i = 0; i < nbindings; i++)
	{
		NnShape s = g->values[bindings[i].value].shape;

		if (p->direct[bindings[i].value])
			p->values[bindings[i].value] =
				(CpuValue){ (char *) bindings[i].data, s.c, (size_t) s.h * s.w * s.c, false };
	}
}

/* Copies bound inputs in, or bound outputs out, that are not direct. */
static void
copy_bound(const CpuCall *call, const NnBinding *bindings, int nbindings, bool inputs)
{
	for (int i = 0; i < nbindings; i++)
	{
		int value = bindings[i].value;
		NnShape s = shape_of(call->plan, value);
		CpuValue arena = call->p->values[value];
		CpuValue bound = { (char *) bindings[i].data, s.c, (size_t) s.h * s.w * s.c, false };

		if (call->p->direct[value] || call->plan->graph->values[value].input != inputs)
			continue;
		for (int n = 0; n < s.n; n++)
		{
			const CpuValue *from = inputs ? &bound : &arena, *to = inputs ? &arena : &bound;

			cpu_copy_pixels(call->device->kernels,
							(CpuRun){ pixel(from, n, 0), from->pitch, from->bf16 }, s.h * s.w, s.c,
							out_pixel(to, n, 0));
		}
	}
}

NnStatus
cpu_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings, int nbindings,
		NnError *error)
{
	CpuCall call = { .device = base->state,
					 .plan = plan,
					 .packed = packed,
					 .p = plan->device_state,
					 .bf16 = plan->precision == NN_PRECISION_BF16 };
	const CpuKernel *kernel = call.packed->kernel;
	NnStatus status = cpu_ready_threads(call.device, call.p->scratch_bytes, error);

	if (status != NN_OK)
		return status;
	place_values(plan, call.p, bindings, nbindings);
	if ((status = nn_fault(FAULT_COPY, error)) != NN_OK)
		return status;
	copy_bound(&call, bindings, nbindings, true);
#pragma omp parallel num_threads(base->threads)
	{
		kernel->start();
		for (int i = 0; i < call.p->nsteps; i++)
		{
#pragma omp master
			{
				nn_progress(base);
				if (status == NN_OK)
					status = nn_fault(FAULT_LAUNCH, error);
			}
			run_operator(&call, &call.p->steps[i]);
		}
		kernel->stop();
	}
	if (status != NN_OK)
		return status;
	if ((status = nn_fault(FAULT_COPY, error)) != NN_OK)
		return status;
	copy_bound(&call, bindings, nbindings, false);
	return NN_OK;
}
