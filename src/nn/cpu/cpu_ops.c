/*
 * cpu_ops.c
 *	  The operators without a table of weights to speak of: adding, pooling,
 *	  upsampling, and the encoder's heads.
 *
 * Called by all threads of a team, which share the rows or images; what a
 * thread writes depends on nothing another one does.
 */
#include "nn/cpu/cpu_run.h"

void
cpu_run_add(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	NnShape s = shape_of(call->plan, node->out[0]);
	const CpuValue *a = &call->p->values[node->in[0]], *b = &call->p->values[node->in[1]],
				   *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
		{
			size_t at = (size_t) row * s.w;
			CpuOut out = out_pixel(y, i, at);

			call->device->kernels->add((CpuRun){ pixel(a, i, at), a->pitch, a->bf16 },
									   (CpuRun){ pixel(b, i, at), b->pitch, b->bf16 }, s.w, s.c,
									   &out);
		}
}

/* The mean of each window, or the largest. */
static void
run_pool(CpuCall *call, const CpuStep *step, bool largest)
{
	const CpuKernels *kernels = call->device->kernels;
	const NnNode *node = &call->plan->graph->nodes[step->node];
	NnPoolArgs a = node->pool;
	NnShape in = shape_of(call->plan, node->in[0]), s = shape_of(call->plan, node->out[0]);
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
			for (int column = 0; column < s.w; column++)
			{
				int y0, y1, x0, x1;
				CpuRun src;
				CpuOut out = out_pixel(y, i, (size_t) row * s.w + column);

				nn_pool_axis(row, a.kernel, a.stride, a.pad, in.h, &y0, &y1);
				nn_pool_axis(column, a.kernel, a.stride, a.pad, in.w, &x0, &x1);
				src = (CpuRun){ pixel(x, i, (size_t) y0 * in.w + x0), x->pitch, x->bf16 };
				if (largest)
					kernels->maxpool(src, y1 - y0, x1 - x0, in.w * x->pitch, s.c, &out);
				else
					kernels->pool(src, y1 - y0, x1 - x0, in.w * x->pitch,
								  1.0f / ((y1 - y0) * (x1 - x0)), s.c, &out);
			}
}

void
cpu_run_avgpool(CpuCall *call, const CpuStep *step)
{
	run_pool(call, step, false);
}

void
cpu_run_maxpool(CpuCall *call, const CpuStep *step)
{
	run_pool(call, step, true);
}

void
cpu_run_upsample(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	NnShape in = shape_of(call->plan, node->in[0]), s = shape_of(call->plan, node->out[0]);
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
		{
			int ys[2];
			float wy = nn_upsample_axis(row, node->upsample.pad, in.h, ys);

			for (int column = 0; column < s.w; column++)
			{
				int xs[2];
				float wx = nn_upsample_axis(column, node->upsample.pad, in.w, xs);
				CpuOut out = out_pixel(y, i, (size_t) row * s.w + column);

				call->device->kernels->blend(
					(const void *const[4]){ pixel(x, i, (size_t) ys[0] * in.w + xs[0]),
											pixel(x, i, (size_t) ys[0] * in.w + xs[1]),
											pixel(x, i, (size_t) ys[1] * in.w + xs[0]),
											pixel(x, i, (size_t) ys[1] * in.w + xs[1]) },
					x->bf16,
					(const float[4]){ (1 - wy) * (1 - wx), (1 - wy) * wx, wy * (1 - wx), wy * wx },
					s.c, &out);
			}
		}
}

/* ---- Of images to be compared -------------------------------------------- */

void
cpu_run_scale(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	NnShape s = shape_of(call->plan, node->out[0]);
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];
	float shift[CPU_BLOCK] = { 0 }, factor[CPU_BLOCK] = { 0 }, zeros[CPU_BLOCK] = { 0 };
	const CpuAffine affine = { shift, zeros, factor, zeros };

	for (int c = 0; c < s.c; c++)
	{
		shift[c] = node->scale.shift[c];
		factor[c] = 1 / node->scale.scale[c];
	}
#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < s.n; i++)
		for (int row = 0; row < s.h; row++)
		{
			CpuOut out = out_pixel(y, i, (size_t) row * s.w);
			CpuRun src = { pixel(x, i, (size_t) row * s.w), x->pitch, x->bf16 };

			call->device->kernels->apply(src, s.w, s.c, &affine, &out, 1);
		}
}

void
cpu_run_embed(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const CpuLayer *layer = &call->p->layers->list[step->node];
	NnShape in = shape_of(call->plan, node->in[0]);
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];
	float share = (float) sqrt(1.0 / ((double) in.h * in.w));

#pragma omp for collapse(2) schedule(dynamic)
	for (int i = 0; i < in.n; i++)
		for (int row = 0; row < in.h; row++)
		{
			size_t first = (size_t) row * in.w;
			CpuOut out = out_pixel(y, i, 0);

			out.data = (char *) out.data + first * in.c * element_size(y->bf16);
			call->device->kernels->embed((CpuRun){ pixel(x, i, first), x->pitch, x->bf16 }, in.w,
										 in.c, share, layer->norm, &out);
		}
}

void
cpu_run_means(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	NnShape in = shape_of(call->plan, node->in[0]);
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];

#pragma omp for schedule(dynamic)
	for (int i = 0; i < in.n; i++)
	{
		CpuOut out = out_pixel(y, i, 0);

		call->device->kernels->pool((CpuRun){ pixel(x, i, 0), x->pitch, x->bf16 }, in.h, in.w,
									in.w * x->pitch, 1.0f / ((float) in.h * in.w), in.c, &out);
	}
}

/* ---- Heads --------------------------------------------------------------- */

void
cpu_run_linear(CpuCall *call, const CpuStep *step)
{
	const NnNode *node = &call->plan->graph->nodes[step->node];
	const CpuLayer *layer = &call->p->layers->list[step->node];
	const CpuValue *x = &call->p->values[node->in[0]], *y = &call->p->values[node->out[0]];
	int batch = shape_of(call->plan, node->out[0]).n;

#pragma omp for schedule(dynamic)
	for (int i = 0; i < batch; i++)
	{
		CpuOut out = out_pixel(y, i, 0);

		call->device->kernels->linear((CpuRun){ pixel(x, i, 0), x->pitch, x->bf16 }, layer->in.c,
									  layer->norm, layer->bias, layer->out.c, &out);
	}
}
