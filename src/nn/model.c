/*
 * model.c
 *	  A model on a device: G and E with packed weights, and a plan for each
 *	  batch size in use, and each size of images that G is run at.
 *
 * R1 A batch is run as a sequence of power-of-two batches, each with a plan
 *    that is made when first needed and kept. On the CPU without padding: an
 *    image's cost and bits are the same in each (R3 of nn.h): nobody sees the
 *    split.
 * R2 A device that takes fewer images than a plan has, a GPU, where a few more
 *    cost little, is given the next larger plan instead of several small ones.
 * R3 A power of two whose arena would pass max_arena_bytes is never used.
 * R4 Where there is no room for a plan, the call fails with NN_ENOMEM: the
 *    caller, who knows what else is in memory, makes room or asks for fewer.
 * R5 A model owns its packed weights, plans and staging arrays.
 * R6 nn_model_load and nn_model_least_bytes touch only the new model and the
 *    device's pack and pack_bytes, so a loader thread may call them.
 *    nn_model_image_bytes reads what no one writes after loading.
 * R7 Weights are packed once, for all sizes. Plans of other sizes than the
 *    model's own are kept for NN_MAX_EXTENTS of them, least recently used
 *    first to go, and for as many bytes as nn_model_keep_extents says.
 */
#include "nn/device.h"
#include "nn/nets.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 7 /* batches of 1, 2, 4, 8, 16, 32, 64 */

/* up to so many images one larger plan; above, if it is 3/4 used */
#define PAD_ALWAYS 8

/* A network planned for one batch size; floats for its inputs, outputs. */
typedef struct Bucket
{
	NnGraph graph;
	NnPlan plan;
	int image; /* value ids, -1 = none */
	int z;
	int out[2]; /* G: the image; E: mu and logvar */
	/* floats of images, (n, H, W, C), for byte calls; NULL: it takes bytes */
	float *in, *result;
	size_t bytes;      /* arena, device state and these arrays */
	size_t host_bytes; /* of the host's memory besides, if the device has its own */
} Bucket;

/* The plans of a network for images of one size. */
typedef struct Plans
{
	NnExtent extent;
	Bucket *buckets[BUCKETS]; /* NULL until needed */
	uint64_t used;            /* more, the later; of other sizes */
} Plans;

typedef struct Net
{
	bool exists;
	NnParams params;
	void *packed;
	size_t packed_bytes;
	Plans own; /* at the network's own size */
} Net;

struct NnModel
{
	NnDevice *device;
	NnConfig config;
	NnPrecision precision;
	Net nets[2];                   /* indexed by NN_NET_G and NN_NET_E */
	Plans *others[NN_MAX_EXTENTS]; /* of G; the first nothers */
	int nothers;
	uint64_t uses; /* of other sizes, counted */
};

/* ---- Buckets ------------------------------------------------------------- */

static NnExtent
own_extent(const NnModel *m, NnNetwork network)
{
	int side = network == NN_NET_G ? m->config.size : m->config.encoder_size;

	return (NnExtent){ side, side };
}

static bool
same_extent(NnExtent a, NnExtent b)
{
	return a.h == b.h && a.w == b.w;
}

static size_t
extent_pixels(NnExtent extent)
{
	return nn_mul(extent.h, extent.w);
}

static int
net_channels(const NnModel *m, NnNetwork network)
{
	return network == NN_NET_G ? m->config.input_nc : m->config.output_nc;
}

static size_t
element_bytes(const NnModel *m)
{
	return m->device->element_bytes(m->device, m->precision);
}

static void
build_graph(const NnModel *m, NnNetwork network, NnExtent extent, int n, Bucket *b)
{
	NnShape image = { n, extent.h, extent.w, net_channels(m, network) };

	nn_graph_init(&b->graph, &m->nets[network].params);
	b->image = nn_input(&b->graph, image, "image");
	b->z = b->out[0] = b->out[1] = -1;
	if (network == NN_NET_E)
		nn_net_E(&b->graph, &m->config, b->image, &b->out[0], &b->out[1]);
	else
	{
		if (m->config.nz > 0)
			b->z = nn_input(&b->graph, (NnShape){ n, 1, 1, m->config.nz }, "z");
		b->out[0] = nn_net_G(&b->graph, &m->config, b->image, b->z, 0);
	}
}

/* Graph and places of the values, without memory or kernels. */
static NnStatus
lay_out(const NnModel *m, NnNetwork network, NnExtent extent, int n, Bucket *b, NnError *error)
{
	NnStatus status;

	memset(b, 0, sizeof(*b));
	build_graph(m, network, extent, n, b);
	b->plan = (NnPlan){ .graph = &b->graph,
						.device = m->device,
						.precision = m->precision,
						.passing = !same_extent(extent, own_extent(m, network)) };
	status = nn_plan_memory(&b->plan, error);
	if (status != NN_OK)
		nn_graph_free(&b->graph);
	return status;
}

static void
free_bucket(NnModel *m, Bucket *b)
{
	if (!b)
		return;
	m->device->release(m->device, &b->plan);
	nn_plan_free(&b->plan);
	nn_graph_free(&b->graph);
	free(b->in);
	free(b->result);
	free(b);
}

static NnStatus
make_bucket(NnModel *m, NnNetwork network, NnExtent extent, int log2n, Bucket **made,
			NnError *error)
{
	Bucket *b = malloc(sizeof(Bucket));
	size_t pixels = nn_mul(extent_pixels(extent), (size_t) 1 << log2n);
	bool floats = !m->device->takes_bytes;
	size_t in_bytes = floats ? nn_mul(pixels, net_channels(m, network) * sizeof(float)) : 0;
	size_t result_bytes =
		floats && network == NN_NET_G ? nn_mul(pixels, m->config.output_nc * sizeof(float)) : 0;
	NnStatus status;

	if (!b)
		return nn_no_memory(error, sizeof(Bucket));
	status = lay_out(m, network, extent, 1 << log2n, b, error);
	if (status != NN_OK)
	{
		free(b);
		return status;
	}
	b->in = floats ? malloc(in_bytes) : NULL;
	b->result = floats ? malloc(result_bytes + 1) : NULL;
	if (floats && (!b->in || !b->result))
		status = nn_no_memory(error, in_bytes + result_bytes);
	else
		status = m->device->prepare(m->device, &b->plan, m->nets[network].packed, error);
	if (status != NN_OK)
	{
		free_bucket(m, b);
		return status;
	}
	b->bytes =
		b->plan.arena_elements * element_bytes(m) + b->plan.device_bytes + in_bytes + result_bytes;
	b->host_bytes = b->plan.host_bytes;
	*made = b;
	return NN_OK;
}

/* Maps whose tiles are shared, and where each pixel is in most of them. */
#define SHARED_PIXELS 2500
#define DIRECT_PIXELS 256

static size_t
pixels_of_image(NnShape s)
{
	return nn_mul(s.h, s.w);
}

static size_t
elements_of(NnShape s)
{
	return nn_mul(nn_mul(nn_mul(s.n, s.h), s.w), s.c);
}

/*
 * What a plan takes of the host besides its arena, at most: a convolution's
 * operand and result, its transformed tiles where threads share them (of small
 * maps; a pixel is in 16 of them at most), inputs and outputs as floats, and an
 * eighth for rounding up to pages.
 */
static size_t
work_bytes(const NnGraph *g)
{
	size_t in = 0, out = 0, ports = 0, tiles = 0;

	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];
		size_t made = elements_of(g->values[node->out[0] >= 0 ? node->out[0] : node->out[1]].shape),
			   read = node->in[0] >= 0 ? elements_of(g->values[node->in[0]].shape) : 0,
			   pixels = node->in[0] >= 0 ? pixels_of_image(g->values[node->in[0]].shape) : 0;

		in = read > in ? read : in;
		out = made > out ? made : out;
		ports += node->op == NN_OP_INPUT ? made : 0;
		if (nn_ops[node->op].filters && pixels <= SHARED_PIXELS)
			nn_most(&tiles, nn_mul(read, pixels <= DIRECT_PIXELS ? 16 : 4));
	}
	for (int i = 0; i < g->nvalues; i++)
		ports += g->values[i].output ? elements_of(g->values[i].shape) : 0;
	return nn_mul(nn_sum(nn_sum(in, out), nn_sum(ports, tiles)), sizeof(float));
}

/*
 * Bytes of a plan that is not made: its arena, and at another size than the
 * model's own, where it may be large, its work on the host, too; 0 on error.
 */
static size_t
plan_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int n, NnError *error)
{
	Bucket b;
	size_t bytes;

	if (lay_out(m, network, extent, n, &b, error) != NN_OK)
		return 0;
	bytes = nn_mul(b.plan.arena_elements, element_bytes(m));
	if (!m->device->memory && !same_extent(extent, own_extent(m, network)))
	{
		bytes = nn_sum(bytes, work_bytes(&b.graph));
		bytes = nn_sum(bytes, bytes / 8);
	}
	nn_plan_free(&b.plan);
	nn_graph_free(&b.graph);
	return bytes;
}

/* The plans that there are for a size, or NULL. */
static const Plans *
plans_at(const NnModel *m, NnNetwork network, NnExtent extent)
{
	if (same_extent(extent, own_extent(m, network)))
		return &m->nets[network].own;
	for (int i = 0; i < m->nothers; i++)
		if (same_extent(m->others[i]->extent, extent))
			return m->others[i];
	return NULL;
}

/* Bytes of the arena of a batch of 2^log2n; 0 on error. */
static size_t
arena_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int log2n, NnError *error)
{
	const Plans *plans = plans_at(m, network, extent);

	if (!plans || !plans->buckets[log2n])
		return plan_bytes(m, network, extent, 1 << log2n, error);
	return plans == &m->nets[network].own
			   ? plans->buckets[log2n]->plan.arena_elements * element_bytes(m)
			   : plans->buckets[log2n]->bytes;
}

/*
 * What inputs and outputs of a batch of 2^log2n pass through on their way to
 * and from a device with memory of its own: floats, once a start.
 */
static size_t
port_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int log2n)
{
	size_t pixels = extent_pixels(extent);
	size_t in = pixels * net_channels(m, network);
	size_t out = network == NN_NET_G ? pixels * m->config.output_nc + m->config.nz
									 : 2 * (size_t) m->config.nz;

	return nn_mul(NN_STARTS * sizeof(float) << log2n, in + out);
}

/* The bucket for the next images of a rest of n. */
static int
bucket_for(const NnModel *m, NnNetwork network, NnExtent extent, int n)
{
	int log2n = 0;

	while (log2n + 1 < BUCKETS && 2 << log2n <= n)
		log2n++;
	if (m->device->takes_fewer && log2n + 1 < BUCKETS &&
		(n <= PAD_ALWAYS ? n > 1 << log2n : 4 * n > 3 * (2 << log2n)))
		log2n++;
	while (log2n > 0 && arena_bytes(m, network, extent, log2n, NULL) > m->device->max_arena_bytes)
		log2n--;
	return log2n;
}

/* The planned bucket for the next images of a rest of n. */
static NnStatus
next_bucket(NnModel *m, NnNetwork network, Plans *plans, int n, Bucket **b, NnError *error)
{
	int log2n = bucket_for(m, network, plans->extent, n);
	Bucket **slot = &plans->buckets[log2n];
	NnStatus status = *slot ? NN_OK : make_bucket(m, network, plans->extent, log2n, slot, error);

	*b = *slot;
	return status;
}

/* ---- Sizes --------------------------------------------------------------- */

static size_t
bytes_of_plans(const Plans *plans)
{
	size_t bytes = 0;

	for (int i = 0; i < BUCKETS; i++)
		bytes += plans->buckets[i] ? plans->buckets[i]->bytes : 0;
	return bytes;
}

static size_t
host_bytes_of_plans(const Plans *plans)
{
	size_t bytes = 0;

	for (int i = 0; i < BUCKETS; i++)
		bytes += plans->buckets[i] ? plans->buckets[i]->host_bytes : 0;
	return bytes;
}

/* Those for batches of 2^log2n and more. */
static void
drop_plans(NnModel *m, Plans *plans, int log2n)
{
	for (int i = log2n; i < BUCKETS; i++)
	{
		free_bucket(m, plans->buckets[i]);
		plans->buckets[i] = NULL;
	}
}

/* The least recently used other size goes. */
static void
drop_oldest(NnModel *m)
{
	int oldest = 0;

	for (int i = 1; i < m->nothers; i++)
		if (m->others[i]->used < m->others[oldest]->used)
			oldest = i;
	drop_plans(m, m->others[oldest], 0);
	free(m->others[oldest]);
	m->others[oldest] = m->others[--m->nothers];
}

/* The plans for a size, which may be none yet. */
static NnStatus
take_plans(NnModel *m, NnNetwork network, NnExtent extent, Plans **plans, NnError *error)
{
	Plans *made;

	*plans = (Plans *) plans_at(m, network, extent);
	if (!*plans)
	{
		if (network != NN_NET_G || !nn_extent_suits(&m->config, extent))
			return nn_fail(error, NN_EINVAL, "network %s cannot run at %d x %d pixels",
						   nn_network_name(network), extent.w, extent.h);
		if (m->nothers == NN_MAX_EXTENTS)
			drop_oldest(m);
		made = calloc(1, sizeof(Plans));
		if (!made)
			return nn_no_memory(error, sizeof(Plans));
		made->extent = extent;
		*plans = m->others[m->nothers++] = made;
	}
	(*plans)->used = ++m->uses;
	return NN_OK;
}

size_t
nn_model_image_bytes(const NnModel *model, NnExtent extent, NnError *error)
{
	if (!nn_extent_suits(&model->config, extent))
	{
		nn_fail(error, NN_EINVAL, "network G cannot run at %d x %d pixels", extent.w, extent.h);
		return 0;
	}
	return plan_bytes(model, NN_NET_G, extent, 1, error);
}

size_t
nn_model_extents_bytes(const NnModel *model)
{
	size_t bytes = 0;

	for (int i = 0; i < model->nothers; i++)
		bytes += sizeof(Plans) + bytes_of_plans(model->others[i]);
	return bytes;
}

void
nn_model_keep_extents(NnModel *model, size_t bytes)
{
	while (model->nothers > 0 && nn_model_extents_bytes(model) > bytes)
		drop_oldest(model);
}

/* ---- Loading ------------------------------------------------------------- */

static NnStatus
load_net(NnModel *m, NnNetwork network, const NnTensor *tensors, int ntensors, NnError *error)
{
	Net *net = &m->nets[network];
	Bucket one;
	float *values;
	NnStatus status;

	net->own.extent = own_extent(m, network);
	status = nn_params_of(&m->config, 1u << network, &net->params, error);
	if (status != NN_OK)
		return status;
	values = malloc(net->params.total * sizeof(float));
	if (!values)
		return nn_no_memory(error, net->params.total * sizeof(float));
	status = nn_params_fill(&net->params, tensors, ntensors, values, error);
	if (status == NN_OK)
		status = lay_out(m, network, net->own.extent, 1, &one, error);
	if (status == NN_OK)
	{
		status = m->device->pack(m->device, m->precision, &one.graph, values, &net->packed,
								 &net->packed_bytes, error);
		net->exists = status == NN_OK;
		nn_plan_free(&one.plan);
		nn_graph_free(&one.graph);
	}
	free(values);
	return status;
}

NnStatus
nn_model_load(NnDevice *device, const NnConfig *config, NnPrecision precision,
			  const NnTensor *tensors, int ntensors, NnModel **model, NnError *error)
{
	NnModel *m = calloc(1, sizeof(NnModel));
	NnStatus status;

	if (!m)
		return nn_no_memory(error, sizeof(NnModel));
	m->device = device;
	m->config = *config;
	m->precision = precision != NN_PRECISION_AUTO           ? precision
				   : config->precision != NN_PRECISION_AUTO ? config->precision
															: nn_device_automatic(device);
	if (device->supports(device, m->precision))
		status = load_net(m, NN_NET_G, tensors, ntensors, error);
	else
	{
		status = nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot compute in %s", device->name,
						 nn_precision_name(m->precision));
		nn_detail(error, "It is %s.", device->describe(device));
		nn_hint(error, "Use precision fp32 or auto.");
	}
	if (status == NN_OK && config->net_e != NN_ENCODER_NONE)
		status = load_net(m, NN_NET_E, tensors, ntensors, error);
	if (status != NN_OK)
	{
		nn_model_free(m);
		return status;
	}
	*model = m;
	return NN_OK;
}

size_t
nn_model_least_bytes(NnDevice *device, const NnConfig *config, NnPrecision precision,
					 NnError *error)
{
	NnModel m = { .device = device, .config = *config, .precision = precision };
	int last = config->net_e != NN_ENCODER_NONE ? NN_NET_E : NN_NET_G;
	size_t sum = 0;

	for (int network = NN_NET_G; device->memory && network <= last; network++)
	{
		NnParams *params = &m.nets[network].params;
		Bucket one;
		NnStatus status = nn_params_of(config, 1u << network, params, error);

		if (status != NN_OK)
			return 0;
		status = lay_out(&m, network, own_extent(&m, network), 1, &one, error);
		if (status == NN_OK)
		{
			sum += device->memory->pack_bytes(device, precision, &one.graph) +
				   nn_mul(one.plan.arena_elements, element_bytes(&m));
			nn_plan_free(&one.plan);
			nn_graph_free(&one.graph);
		}
		nn_params_free(params);
		if (status != NN_OK)
			return 0;
	}
	return sum;
}

NnStatus
nn_model_prepare(NnModel *model, NnError *error)
{
	NnStatus status = NN_OK;

	for (int network = NN_NET_G; status == NN_OK && network <= NN_NET_E; network++)
	{
		Bucket *one;

		if (model->nets[network].exists)
			status = next_bucket(model, network, &model->nets[network].own, 1, &one, error);
	}
	return status;
}

void
nn_model_shrink(NnModel *model)
{
	nn_model_keep_extents(model, 0);
	for (int network = NN_NET_G; network <= NN_NET_E; network++)
		drop_plans(model, &model->nets[network].own, 1);
}

void
nn_model_free(NnModel *model)
{
	if (!model)
		return;
	nn_model_keep_extents(model, 0);
	for (int network = NN_NET_G; network <= NN_NET_E; network++)
	{
		Net *net = &model->nets[network];

		drop_plans(model, &net->own, 0);
		if (net->exists)
			model->device->pack_free(model->device, net->packed);
		nn_params_free(&net->params);
	}
	free(model);
}

const NnConfig *
nn_model_config(const NnModel *model)
{
	return &model->config;
}

NnPrecision
nn_model_precision(const NnModel *model)
{
	return model->precision;
}

size_t
nn_model_bytes(const NnModel *model)
{
	size_t bytes = model->device->memory ? 0 : sizeof(*model);

	for (int network = NN_NET_G; network <= NN_NET_E; network++)
		bytes += model->nets[network].packed_bytes + bytes_of_plans(&model->nets[network].own);
	return bytes + nn_model_extents_bytes(model);
}

size_t
nn_model_host_bytes(const NnModel *model)
{
	size_t bytes = sizeof(*model);

	if (!model->device->memory)
		return nn_model_bytes(model);
	for (int network = NN_NET_G; network <= NN_NET_E; network++)
		bytes += host_bytes_of_plans(&model->nets[network].own);
	for (int i = 0; i < model->nothers; i++)
		bytes += sizeof(Plans) + host_bytes_of_plans(model->others[i]);
	return bytes;
}

size_t
nn_model_batch_bytes(NnModel *model, NnNetwork network, int n, NnError *error)
{
	NnExtent own = network <= NN_NET_E ? own_extent(model, network) : (NnExtent){ 0 };

	return nn_model_batch_bytes_at(model, network, own, n, error);
}

size_t
nn_model_batch_bytes_at(NnModel *model, NnNetwork network, NnExtent extent, int n, NnError *error)
{
	size_t sum = 0;
	bool used[BUCKETS] = { false };

	if (network > NN_NET_E || !model->nets[network].exists)
	{
		nn_fail(error, NN_EINVAL, "model has no network %s", nn_network_name(network));
		return 0;
	}
	while (n > 0)
	{
		int log2n = bucket_for(model, network, extent, n);

		if (!used[log2n])
			sum += model->device->memory ? port_bytes(model, network, extent, log2n)
										 : arena_bytes(model, network, extent, log2n, error);
		used[log2n] = true;
		n = n < 1 << log2n ? 0 : n % (1 << log2n);
	}
	return sum;
}

/* ---- Running ------------------------------------------------------------- */

/*
 * The four calls below are this loop. Images come as bytes or as floats (the
 * other is NULL), and so does the result of G; E gives floats.
 */
typedef struct NetPass
{
	NnNetwork network;
	NnExtent extent;
	const uint8_t *bytes; /* (n, H, W, C) */
	const float *floats;
	const float *z;    /* (n, nz), G */
	uint8_t *byte_out; /* (n, H, W, output_nc), G */
	float *out[2];     /* the same as floats; or mu and logvar, (n, nz), E */
} NetPass;

/* A pass cut into the images of one network. */
typedef struct Sizes
{
	size_t in, /* elements of an image read */
		out;   /* and of a result */
	int nz;
} Sizes;

/*
 * What images [done, done + count) of the pass read and write. With a device
 * that takes no bytes, floats pass through the bucket's arrays where the pass
 * has bytes.
 */
static int
bind_images(const NnModel *m, const Bucket *b, const NetPass *pass, Sizes sizes, int done,
			int count, NnBinding *bindings)
{
	bool bytes = m->device->takes_bytes;
	int n = 0;

	/* the bindings of inputs are only read */
	bindings[n] = (NnBinding){ .value = b->image, .n = count };
	if (!pass->bytes)
		bindings[n].data = (float *) pass->floats + done * sizes.in;
	else if (bytes)
		bindings[n].bytes = (uint8_t *) pass->bytes + done * sizes.in;
	else
		bindings[n].data = b->in;
	n++;
	if (b->z >= 0)
		bindings[n++] = (NnBinding){ .value = b->z,
									 .data = (float *) pass->z + (size_t) done * sizes.nz,
									 .n = count };
	for (int i = 0; i < 2; i++)
	{
		if (b->out[i] < 0)
			continue;
		bindings[n] = (NnBinding){ .value = b->out[i], .n = count };
		if (pass->out[i])
			bindings[n].data = pass->out[i] + done * sizes.out;
		else if (bytes)
			bindings[n].bytes = pass->byte_out + done * sizes.out;
		else
			bindings[n].data = b->result;
		n++;
	}
	return n;
}

/* The next images of a pass, on a device that does one thing at a time. */
static NnStatus
run_bucket(NnModel *m, Bucket *b, const NetPass *pass, Sizes sizes, int done, int count,
		   NnError *error)
{
	NnBinding bindings[4];
	int n = bind_images(m, b, pass, sizes, done, count, bindings);
	NnStatus status;

	if (b->in && pass->bytes)
		nn_normalise(pass->bytes + done * sizes.in, count * sizes.in, b->in);
	status = m->device->run(m->device, &b->plan, m->nets[pass->network].packed, bindings, n, error);
	if (status == NN_OK && b->result && pass->byte_out)
		nn_quantise(b->result, count * sizes.out, pass->byte_out + done * sizes.out);
	return status;
}

/* On a device that works beside us: at most NN_STARTS are under way. */
static NnStatus
start_bucket(NnModel *m, Bucket *b, const NetPass *pass, Sizes sizes, int done, int count,
			 int *started, NnError *error)
{
	NnBinding bindings[4];
	int n = bind_images(m, b, pass, sizes, done, count, bindings);
	NnStatus status = NN_OK;

	if (*started == NN_STARTS)
	{
		(*started)--;
		status = m->device->async->finish(m->device, error);
	}
	if (status == NN_OK)
		status = m->device->async->start(m->device, &b->plan, m->nets[pass->network].packed,
										 bindings, n, error);
	*started += status == NN_OK;
	return status;
}

static NnStatus
pass_net(NnModel *m, NetPass pass, int n, NnError *error)
{
	size_t pixels = extent_pixels(pass.extent);
	Sizes sizes = { pixels * net_channels(m, pass.network),
					pass.network == NN_NET_G ? pixels * m->config.output_nc : (size_t) m->config.nz,
					m->config.nz };
	int started = 0;
	Plans *plans = NULL;
	NnStatus status;
	NnError later;

	if (!m->nets[pass.network].exists)
	{
		nn_fail(error, NN_EINVAL, "model has no encoder");
		nn_hint(error, "Import the model together with its encoder.");
		return NN_EINVAL;
	}
	status = take_plans(m, pass.network, pass.extent, &plans, error);
	for (int done = 0, count; status == NN_OK && done < n; done += count)
	{
		Bucket *b = NULL;

		count = n - done;
		nn_progress(m->device);
		status = next_bucket(m, pass.network, plans, count, &b, error);
		if (status != NN_OK)
			break;
		count =
			count < b->graph.values[b->image].shape.n ? count : b->graph.values[b->image].shape.n;
		if (m->device->async)
			status = start_bucket(m, b, &pass, sizes, done, count, &started, error);
		else
			status = run_bucket(m, b, &pass, sizes, done, count, error);
	}
	/* what was started ends before its memory; the first error is reported */
	while (started-- > 0)
	{
		NnStatus ended = m->device->async->finish(m->device, status == NN_OK ? error : &later);

		status = status == NN_OK ? ended : status;
	}
	return status;
}

NnStatus
nn_model_translate(NnModel *model, int n, const uint8_t *images, const float *z, uint8_t *out,
				   NnError *error)
{
	return nn_model_translate_at(model, own_extent(model, NN_NET_G), n, images, z, out, error);
}

NnStatus
nn_model_translate_at(NnModel *model, NnExtent extent, int n, const uint8_t *images, const float *z,
					  uint8_t *out, NnError *error)
{
	NetPass pass = {
		.network = NN_NET_G, .extent = extent, .bytes = images, .z = z, .byte_out = out
	};

	return pass_net(model, pass, n, error);
}

NnStatus
nn_model_encode(NnModel *model, int n, const uint8_t *images, float *mu, float *logvar,
				NnError *error)
{
	NetPass pass = { .network = NN_NET_E,
					 .extent = own_extent(model, NN_NET_E),
					 .bytes = images,
					 .out = { mu, logvar } };

	return pass_net(model, pass, n, error);
}

NnStatus
nn_model_translate_float(NnModel *model, int n, const float *images, const float *z, float *out,
						 NnError *error)
{
	return nn_model_translate_float_at(model, own_extent(model, NN_NET_G), n, images, z, out,
									   error);
}

NnStatus
nn_model_translate_float_at(NnModel *model, NnExtent extent, int n, const float *images,
							const float *z, float *out, NnError *error)
{
	NetPass pass = {
		.network = NN_NET_G, .extent = extent, .floats = images, .z = z, .out = { out }
	};

	return pass_net(model, pass, n, error);
}

NnStatus
nn_model_encode_float(NnModel *model, int n, const float *images, float *mu, float *logvar,
					  NnError *error)
{
	NetPass pass = { .network = NN_NET_E,
					 .extent = own_extent(model, NN_NET_E),
					 .floats = images,
					 .out = { mu, logvar } };

	return pass_net(model, pass, n, error);
}
