/*
 * cuda_steps.c
 *	  A plan's steps as launches on the stream of kernels, one after the other;
 *	  whether they run or are captured is the caller's affair.
 *
 * Called by the device's owner. Nothing here allocates, waits or reads a
 * result.
 */
#include "nn/cuda/cuda.h"

#include "common/invariant.h"

#include <string.h>

_Static_assert(KERNEL_SCALE_CHANNELS == NN_MAX_IMAGE_CHANNELS, "channels");

_Static_assert(KERNEL_CLASSES == NN_MAX_BORDER, "classes");

typedef struct Launch
{
	CudaDevice *device;
	const CudaSlot *slot;
	const CudaPlan *p;
	NnError *error;
} Launch;

/* A fault comes after the launch, which does no harm. */
static NnStatus
launched(const Launch *l, int result)
{
	return cuda_check(l->error, result != 0 ? (cudaError_t) result : cuda_fault(FAULT_LAUNCH),
					  "run a kernel");
}

static const NnNode *
node_at(const Launch *l, int id)
{
	return &l->p->plan->graph->nodes[id];
}

static size_t
pixels_of(NnShape s)
{
	return (size_t) s.n * s.h * s.w;
}

/* ---- Convolutions and norms ---------------------------------------------- */

/* Whether a convolution can read the map as it is. */
static bool
cuda_is_dense(const KernelMap *map, const CudaPlan *p, int channels)
{
	return map->type == p->type && map->vector && map->pitch == channels &&
		   channels == cuda_padded(channels);
}

/* A map from an image on. */
static KernelMap
cuda_map_from(const KernelMap *map, NnShape s, int image)
{
	size_t elements = (size_t) image * s.h * s.w * map->pitch;

	return map->data ? kernel_map((char *) map->data + elements * kernel_type_size(map->type),
								  map->type, map->pitch)
					 : *map;
}

/*
 * What follows x, a convolution's result or a value, of the step's images from
 * the first on.
 */
static KernelFinish
cuda_finish_of(const Launch *l, const CudaStep *step, KernelMap x, int first)
{
	const NnNode *end = node_at(l, step->end);
	const CudaLayer *layer = &l->p->packed->layers[step->node];
	NnShape s = cuda_shape(l->p->plan, end->out[0]);
	bool norm = end->op == NN_OP_NORM_ACT;
	KernelFinish f = {
		.n = step->images,
		.h = s.h,
		.w = s.w,
		.c = s.c,
		.x = x,
		.quad = step->quad,
		.latent = layer->nz > 0 ? l->p->latents + step->latents +
									  (size_t) first * step->rows.n * step->columns.n * s.c
								: NULL,
		.rows = step->rows,
		.columns = step->columns,
		.centre = step->centre,
		.scale = layer->scale,
		.shift = layer->shift,
	};

	for (int i = 0; i < 2; i++)
		if (end->out[i] >= 0)
			f.out[i] = (KernelOut){ cuda_map_from(&l->slot->values[end->out[i]], s, first),
									norm ? end->norm.act[i] : (NnActChain){ 0 } };
	return f;
}

/* By our own kernel, which the library's result is like. */
static NnStatus
stream_conv(const Launch *l, const CudaStep *step, const void *x)
{
	KernelFinish f = cuda_finish_of(l, step, (KernelMap){ 0 }, 0);
	CudaConvShape s;
	KernelStream conv;

	cuda_conv_shape(l->p->plan, node_at(l, step->node), &s);
	conv = (KernelStream){
		.n = s.n,
		.h = s.h,
		.w = s.w,
		.c = s.c,
		.oh = s.oh,
		.ow = s.ow,
		.k = s.k,
		.kernel = s.kernel,
		.stride = s.stride,
		.pad = s.pad,
		.quad = step->quad,
		.type = l->p->type,
		.x = x,
		.filter = l->p->packed->layers[step->node].filter,
		.y = l->p->result,
	};
	return launched(l, kernel_stream_conv(l->device->compute, &conv, step->joined ? &f : NULL,
										  nn_norm_of(node_at(l, step->end)) == NN_NORM_INSTANCE));
}

/* The step's images from the first on. */
static NnStatus
convolve(const Launch *l, const CudaStep *step, int first)
{
	const NnNode *node = node_at(l, step->node);
	const CudaLayer *layer = &l->p->packed->layers[step->node];
	NnShape in = cuda_shape(l->p->plan, node->in[0]);
	KernelMap x = cuda_map_from(&l->slot->values[node->in[0]], in, first);
	KernelMap staged = kernel_map(l->p->staged, l->p->type, cuda_padded(in.c));
	bool dense = cuda_is_dense(&x, l->p, in.c);
	NnStatus status = NN_OK;

	in.n = step->images;
	if (!dense)
		status = launched(l, kernel_convert(l->device->compute, &x, &staged, pixels_of(in), in.c,
											cuda_padded(in.c)));
	if (status == NN_OK)
		status = launched(l, cudaSuccess);
	if (status != NN_OK)
		return status;
	if (step->streamed)
		return stream_conv(l, step, dense ? x.data : staged.data);
	return cuda_conv_run(l->device->convs, step->conv, dense ? x.data : staged.data, layer->filter,
						 l->p->result, l->p->workspace, l->error);
}

/*
 * Dropout at inference; activations of pix2pix, relu and leaky, let its factor
 * through.
 */
static NnStatus
drop_outputs(const Launch *l, const NnNode *node, NnShape s)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < 2 && node->norm.dropout > 0; i++)
	{
		KernelDropout dropout = { .n = s.n,
								  .pixels = s.h * s.w,
								  .c = s.c,
								  .seed = (uint32_t) node->norm.drop_seed,
								  .mask = (uint32_t) node->norm.drop_mask,
								  .p = node->norm.dropout };

		if (node->out[i] < 0)
			continue;
		dropout.map = l->slot->values[node->out[i]];
		status = launched(l, kernel_dropout(l->device->compute, &dropout));
	}
	return status;
}

/* What follows x, of the step's images from the first on. */
static NnStatus
finish_map(const Launch *l, const CudaStep *step, KernelMap x, int first)
{
	KernelFinish f = cuda_finish_of(l, step, x, first);

	return launched(l, nn_norm_of(node_at(l, step->end)) == NN_NORM_INSTANCE
						   ? kernel_instance_norm(l->device->compute, &f, l->p->moments)
						   : kernel_bias_act(l->device->compute, &f));
}

static NnStatus
end_step(const Launch *l, const CudaStep *step)
{
	const NnNode *end = node_at(l, step->end);

	return end->op == NN_OP_NORM_ACT && end->norm.drop_seed != 0
			   ? drop_outputs(l, end, cuda_shape(l->p->plan, end->out[0]))
			   : NN_OK;
}

static NnStatus
conv_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	int pitch =
			step->quad > 0 ? 4 * step->quad : cuda_padded(l->p->packed->layers[step->node].out.c),
		n = cuda_shape(l->p->plan, node->in[0]).n;
	KernelMap result = kernel_map(l->p->result, l->p->type, pitch);
	NnStatus status = NN_OK;

	for (int first = 0; status == NN_OK && first < n; first += step->images)
	{
		status = convolve(l, step, first);
		if (status == NN_OK && !step->joined)
			status = finish_map(l, step, result, first);
	}
	return status == NN_OK ? end_step(l, step) : status;
}

static NnStatus
convt_step(const Launch *l, const CudaStep *step)
{
	return conv_step(l, step);
}

static NnStatus
norm_act_step(const Launch *l, const CudaStep *step)
{
	NnStatus status = finish_map(l, step, l->slot->values[node_at(l, step->node)->in[0]], 0);

	return status == NN_OK ? end_step(l, step) : status;
}

/* ---- The rest ------------------------------------------------------------ */

static KernelPool
pool_of(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	KernelPool pool =
		cuda_pool(node, cuda_shape(l->p->plan, node->in[0]), cuda_shape(l->p->plan, node->out[0]));

	pool.x = l->slot->values[node->in[0]];
	pool.y = l->slot->values[node->out[0]];
	return pool;
}

static NnStatus
avgpool_step(const Launch *l, const CudaStep *step)
{
	KernelPool pool = pool_of(l, step);

	return launched(l, kernel_avgpool(l->device->compute, &pool));
}

static NnStatus
maxpool_step(const Launch *l, const CudaStep *step)
{
	KernelPool pool = pool_of(l, step);

	return launched(l, kernel_maxpool(l->device->compute, &pool));
}

static NnStatus
scale_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	NnShape out = cuda_shape(l->p->plan, node->out[0]);
	KernelScale scale = {
		.n = out.n,
		.h = out.h,
		.w = out.w,
		.c = out.c,
		.x = l->slot->values[node->in[0]],
		.y = l->slot->values[node->out[0]],
	};

	memcpy(scale.shift, node->scale.shift, sizeof(scale.shift));
	memcpy(scale.scale, node->scale.scale, sizeof(scale.scale));
	return launched(l, kernel_scale(l->device->compute, &scale));
}

static NnStatus
embed_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	NnShape in = cuda_shape(l->p->plan, node->in[0]);
	KernelEmbed embed = {
		.n = in.n,
		.h = in.h,
		.w = in.w,
		.c = in.c,
		.x = l->slot->values[node->in[0]],
		.y = l->slot->values[node->out[0]],
		.weights = l->p->packed->layers[step->node].linear,
	};

	return launched(l, kernel_embed(l->device->compute, &embed));
}

static NnStatus
means_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	NnShape in = cuda_shape(l->p->plan, node->in[0]);

	return launched(l, kernel_means(l->device->compute, &l->slot->values[node->in[0]],
									&l->slot->values[node->out[0]], in.n, in.h, in.w, in.c));
}

static NnStatus
linear_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	const CudaLayer *layer = &l->p->packed->layers[step->node];
	KernelLinear linear = {
		.n = cuda_shape(l->p->plan, node->in[0]).n,
		.in = layer->in.c,
		.out = layer->out.c,
		.x = l->slot->values[node->in[0]],
		.y = l->slot->values[node->out[0]],
		.weights = layer->linear,
		.bias = layer->shift,
	};

	return launched(l, kernel_linear(l->device->compute, &linear));
}

static NnStatus
upsample_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	NnShape in = cuda_shape(l->p->plan, node->in[0]);

	return launched(l, kernel_upsample(l->device->compute, &l->slot->values[node->in[0]],
									   &l->slot->values[node->out[0]], in.n, in.h, in.w, in.c,
									   node->upsample.pad));
}

static NnStatus
add_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	const KernelMap *values = l->slot->values;
	NnShape s = cuda_shape(l->p->plan, node->out[0]);

	return launched(l, kernel_add(l->device->compute, &values[node->in[0]], &values[node->in[1]],
								  &values[node->out[0]], pixels_of(s), s.c));
}

/* Operators of inference, NAME_step each (ops.h); of training, none. */
#define STEP_ROW(OP, name) [NN_OP_##OP] = name##_step,
#define NO_STEP(OP, name)

static NnStatus (*const operators[NN_OPS])(const Launch *l, const CudaStep *step) = {
	NN_OPERATORS(STEP_ROW, NO_STEP, STEP_ROW)
};

static NnStatus
cuda_run_step(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);

	nn_progress(&l->device->base);  /* a first launch has CUDA load the kernel */
	INVARIANT(operators[node->op]); /* what only training has is in no graph here */
	return operators[node->op](l, step);
}

/* Copies ports to or from the arena, where kernels do not use them in place. */
static NnStatus
copy_ports(const Launch *l, bool inputs)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < l->p->nports; i++)
	{
		const CudaPort *port = &l->p->ports[i];
		NnShape s = cuda_shape(l->p->plan, port->value);
		KernelMap outside = kernel_map(l->slot->device + cuda_port_offset(l->slot, i),
									   l->slot->forms >> i & 1 ? KERNEL_U8 : KERNEL_F32, s.c);
		const KernelMap *inside = &l->slot->values[port->value];

		if (port->direct || port->input != inputs)
			continue;
		status = launched(l, kernel_convert(l->device->compute, inputs ? &outside : inside,
											inputs ? inside : &outside, pixels_of(s), s.c, s.c));
	}
	return status;
}

static KernelLatents
latents_of(const Launch *l, const CudaStep *step)
{
	const NnNode *node = node_at(l, step->node);
	const CudaLayer *layer = &l->p->packed->layers[step->node];

	return (KernelLatents){
		.nz = layer->nz,
		.c = layer->out.c,
		.rows = step->rows,
		.columns = step->columns,
		.centre = step->centre,
		.z = l->slot->values[node->in[1]],
		.act = node->conv.z_act,
		.weights = layer->z_weights,
		.out = l->p->latents + step->latents,
	};
}

/* What the latent code adds to all convolutions: it is an input. */
static NnStatus
cuda_make_latents(const Launch *l)
{
	KernelLatents latents[KERNEL_LATENTS];
	NnStatus status = NN_OK;
	int n = 0, images = 0;

	for (int i = 0; status == NN_OK && i < l->p->nsteps; i++)
	{
		const CudaStep *step = &l->p->steps[i];

		if (l->p->packed->layers[step->node].nz == 0)
			continue;
		images = cuda_shape(l->p->plan, node_at(l, step->node)->in[0]).n;
		latents[n++] = latents_of(l, step);
		if (n == KERNEL_LATENTS)
		{
			status = launched(l, kernel_z_bias(l->device->compute, latents, n, images));
			n = 0;
		}
	}
	return status == NN_OK && n > 0
			   ? launched(l, kernel_z_bias(l->device->compute, latents, n, images))
			   : status;
}

NnStatus
cuda_launch_steps(CudaDevice *device, const CudaSlot *slot, NnError *error)
{
	Launch l = { device, slot, slot->plan, error };
	NnStatus status = copy_ports(&l, true);

	if (status == NN_OK)
		status = cuda_make_latents(&l);
	for (int i = 0; status == NN_OK && i < l.p->nsteps; i++)
		status = cuda_run_step(&l, &l.p->steps[i]);
	return status == NN_OK ? copy_ports(&l, false) : status;
}

NnStatus
cuda_launch_step(CudaDevice *device, const CudaSlot *slot, int step, NnError *error)
{
	Launch l = { device, slot, slot->plan, error };

	return cuda_run_step(&l, &slot->plan->steps[step]);
}
