/*
 * cuda_shape.c
 *	  What the device makes of a graph, from shapes alone: types, steps,
 *	  convolutions, and what each step costs at least. Pure functions, which
 *	  tests use without a GPU.
 */
#include "nn/cuda/cuda_shape.h"

#include "nn/border.h"

#include <string.h>

_Static_assert(KERNEL_CLASSES == NN_MAX_BORDER, "classes");

KernelType
cuda_type(NnPrecision precision)
{
	switch (precision)
	{
		case NN_PRECISION_BF16:
			return KERNEL_BF16;
		case NN_PRECISION_FP16:
			return KERNEL_F16;
		case NN_PRECISION_AUTO:
		case NN_PRECISION_FP32:
		case NN_PRECISION_TF32:
			break;
	}
	return KERNEL_F32;
}

NnShape
cuda_shape(const NnPlan *plan, int value)
{
	return plan->graph->values[value].shape;
}

int
cuda_step_end(const NnGraph *graph, int node)
{
	if (nn_ops[graph->nodes[node].op].filters && nn_read_by_next_only(graph, node) &&
		graph->nodes[node + 1].op == NN_OP_NORM_ACT)
		return node + 1;
	return node;
}

/* ---- Convolutions -------------------------------------------------------- */

/* Each of the four has channels for a block of the streaming kernel. */
int
cuda_quad(const NnNode *node, int channels)
{
	if (node->op != NN_OP_CONVT || node->conv.kernel != 4 || node->conv.stride != 2 ||
		node->conv.pad != 1)
		return 0;
	return channels <= KERNEL_STREAM_ROWS ? KERNEL_STREAM_ROWS : cuda_padded(channels);
}

void
cuda_conv_shape(const NnPlan *plan, const NnNode *node, CudaConvShape *shape)
{
	NnShape in = cuda_shape(plan, node->in[0]), out = cuda_shape(plan, node->out[0]);
	int quad = cuda_quad(node, out.c);

	*shape = (CudaConvShape){
		.kind = node->op == NN_OP_CONVT ? CUDA_CONV_DATA : CUDA_CONV_FORWARD,
		.steady = plan->passing,
		.type = cuda_type(plan->precision),
		.tf32 = plan->precision == NN_PRECISION_TF32,
		.n = in.n,
		.h = in.h,
		.w = in.w,
		.c = cuda_padded(in.c),
		.oh = out.h,
		.ow = out.w,
		.k = cuda_padded(out.c),
		.kernel = node->conv.kernel,
		.stride = node->conv.stride,
		.pad = node->conv.pad,
	};
	if (quad == 0)
		return;
	shape->kind = CUDA_CONV_FORWARD;
	shape->oh = in.h + 1;
	shape->ow = in.w + 1;
	shape->k = 4 * quad;
	shape->kernel = 2;
	shape->stride = 1;
}

CudaSides
cuda_conv_sides(const NnPlan *plan, const NnNode *node)
{
	NnShape in = cuda_shape(plan, node->in[0]), out = cuda_shape(plan, node->out[0]);

	return node->op == NN_OP_CONVT ? (CudaSides){ out, in } : (CudaSides){ in, out };
}

void
cuda_train_shape(const NnPlan *plan, const NnNode *node, CudaConvKind kind, CudaConvShape *shape)
{
	CudaSides s = cuda_conv_sides(plan, node);
	NnShape x = kind == CUDA_CONV_DATA ? s.other : s.windows,
			y = kind == CUDA_CONV_DATA ? s.windows : s.other;

	memset(shape, 0, sizeof(*shape));
	shape->kind = kind;
	shape->type = cuda_type(plan->precision);
	shape->tf32 = plan->precision == NN_PRECISION_TF32;
	shape->steady = true;
	shape->n = x.n;
	shape->h = x.h;
	shape->w = x.w;
	shape->c = cuda_padded(x.c);
	shape->oh = y.h;
	shape->ow = y.w;
	shape->k = cuda_padded(y.c);
	shape->kernel = node->conv.kernel;
	shape->stride = node->conv.stride;
	shape->pad = node->conv.pad;
}

int
cuda_train_kinds(const NnGraph *g, const NnStep *step, CudaConvKind kinds[2])
{
	const NnNode *node = &g->nodes[step->node];
	bool transposed = node->op == NN_OP_CONVT;
	int n = 0;

	if (!nn_ops[node->op].filters)
		return 0;
	if (step->kind == NN_STEP_FORWARD)
		kinds[n++] = transposed ? CUDA_CONV_DATA : CUDA_CONV_FORWARD;
	if (step->kind == NN_STEP_BACKWARD && step->in_mode[0] != NN_GRAD_IGNORE)
		kinds[n++] = transposed ? CUDA_CONV_FORWARD : CUDA_CONV_DATA;
	if (step->kind == NN_STEP_BACKWARD && step->weight_mode != NN_GRAD_IGNORE)
		kinds[n++] = CUDA_CONV_FILTER;
	return n;
}

bool
cuda_is_streamed(const CudaConvShape *s, int quad)
{
	size_t sites = quad > 0 ? (size_t) s->n * s->h * s->w : (size_t) s->n * s->oh * s->ow;

	return s->kind == CUDA_CONV_FORWARD && sites <= KERNEL_STREAM_SITES &&
		   s->kernel * s->kernel <= KERNEL_STREAM_TAPS;
}

/*
 * A third of the cache is left to what is read and written meanwhile. Each part
 * reads the weights again, which must not be more than what it spares.
 */
int
cuda_part_images(const NnPlan *plan, int index, size_t cache)
{
	const NnGraph *g = plan->graph;
	CudaConvShape s;
	size_t element, room = cache - cache / 3, image, weights;

	cuda_conv_shape(plan, &g->nodes[index], &s);
	element = kernel_type_size(s.type);
	image = nn_mul(nn_mul(s.oh, s.ow), s.k * element);
	weights = nn_mul((size_t) s.kernel * s.kernel * s.c, s.k * element);
	if (nn_norm_of(&g->nodes[cuda_step_end(g, index)]) == NN_NORM_INSTANCE)
		return s.n;
	while (s.n % 2 == 0 && nn_mul(s.n, image) > room && weights <= s.n / 2 * image)
		s.n /= 2;
	return s.n;
}

KernelRows
cuda_filter(const NnNode *node, int in, int out, int nz)
{
	bool transposed = node->op == NN_OP_CONVT;
	int quad = cuda_quad(node, out);

	if (quad > 0)
		return (KernelRows){ .quad = quad, .k = 4 * quad, .kernel = 2, .c = in, .inner = out };
	return (KernelRows){
		.k = cuda_padded(transposed ? in : out),
		.outer = transposed ? in : out,
		.kernel = node->conv.kernel,
		.c = transposed ? out : in,
		.inner = transposed ? out : in + nz,
	};
}

/* ---- Pools --------------------------------------------------------------- */

KernelPool
cuda_pool(const NnNode *node, NnShape in, NnShape out)
{
	return (KernelPool){ .n = in.n,
						 .h = in.h,
						 .w = in.w,
						 .c = in.c,
						 .oh = out.h,
						 .ow = out.w,
						 .kernel = node->pool.kernel,
						 .stride = node->pool.stride,
						 .pad = node->pool.pad };
}

/* ---- Latents ------------------------------------------------------------- */

static void
take_border(KernelBorder *border, const NnBorder *from)
{
	border->axis.n = from->n;
	memcpy(border->axis.first, from->first, sizeof(border->axis.first));
	memcpy(border->tap0, from->tap0, sizeof(border->tap0));
	memcpy(border->tap1, from->tap1, sizeof(border->tap1));
}

NnStatus
cuda_latent(const NnNode *node, NnShape in, NnShape out, int nz, KernelLatent *latent,
			NnError *error)
{
	size_t taps = (size_t) node->conv.kernel * node->conv.kernel;
	NnBorder rows, columns;
	NnStatus status = nn_borders(node, in, out, &rows, &columns, error);

	if (status != NN_OK)
		return status;
	*latent = (KernelLatent){ .n = out.n,
							  .h = out.h,
							  .w = out.w,
							  .c = out.c,
							  .nz = nz,
							  .kernel = node->conv.kernel,
							  .per_output = (in.c + nz) * taps,
							  .per_code = taps,
							  .per_tap = 1,
							  .act = node->conv.z_act };
	take_border(&latent->rows, &rows);
	take_border(&latent->columns, &columns);
	return NN_OK;
}

size_t
cuda_latent_first(const NnNode *node, NnShape in)
{
	return (size_t) in.c * node->conv.kernel * node->conv.kernel;
}

int
cuda_latent_codes(const NnGraph *graph, const NnNode *node)
{
	return node->op == NN_OP_CONV && node->in[1] >= 0 ? graph->values[node->in[1]].shape.c : 0;
}

/* ---- Costs --------------------------------------------------------------- */

/*
 * Bytes of a value. Images are given and taken as bytes; a value of one pixel
 * that comes in is a latent code, in float.
 */
static double
value_bytes(const NnPlan *plan, int value)
{
	const NnGraph *g = plan->graph;
	NnShape s = cuda_shape(plan, value);
	double element = (double) kernel_type_size(cuda_type(plan->precision));

	if (g->values[value].input || g->values[value].output)
		element = s.h * s.w > 1 ? 1 : sizeof(float);
	return element * s.n * s.h * s.w * s.c;
}

void
cuda_step_cost(const NnPlan *plan, int node, CudaCost *cost)
{
	const NnGraph *g = plan->graph;
	const NnNode *first = &g->nodes[node], *last = &g->nodes[cuda_step_end(g, node)];
	NnShape in = cuda_shape(plan, first->in[0]), out = cuda_shape(plan, first->out[0]);

	*cost = (CudaCost){ 0 };
	if (nn_ops[first->op].flop)
		cost->flop = nn_ops[first->op].flop(g, first);
	if (nn_ops[first->op].filters)
		cost->weights = (double) in.c * out.c * first->conv.kernel * first->conv.kernel *
						kernel_type_size(cuda_type(plan->precision));
	for (int i = 0; i < NN_MAX_IN; i++)
		if (first->in[i] >= 0)
			cost->reads += value_bytes(plan, first->in[i]);
	for (int i = 0; i < 2; i++)
		if (last->out[i] >= 0)
			cost->writes += value_bytes(plan, last->out[i]);
}
