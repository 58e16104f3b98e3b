/*
 * model.c
 *	  A model on a device: G and E, or L, with packed weights, and a plan for
 *	  each batch size in use, and each size of images that G or L is run at.
 *
 * R1 A batch is run as a sequence of power-of-two batches, each with a plan
 *    that is made when first needed and kept. On the CPU without padding: an
 *    image's cost and bits are the same in each (R3 of nn.h): nobody sees the
 *    split.
 * R2 A device that takes fewer images than a plan has, a GPU, where a few more
 *    cost little, is given the next larger plan instead of several small ones.
 * R3 A power of two whose arena would pass max_arena_bytes is never used, nor
 *    one beyond most_images.
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
#include "nn/model_private.h"
#include "nn/nets.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* up to so many images one larger plan; above, if it is 3/4 used */
#define PAD_ALWAYS 8

/* ---- Buckets ------------------------------------------------------------- */

static bool
same_extent(NnExtent a, NnExtent b)
{
	return a.h == b.h && a.w == b.w;
}

static size_t
element_bytes(const NnModel *m)
{
	return m->device->element_bytes(m->device, m->precision);
}

static void
build_graph(const NnModel *m, NnNetwork network, NnExtent extent, int n, Bucket *b)
{
	NnShape image = { n, extent.h, extent.w, model_channels(m, network) };

	nn_graph_init(&b->graph, &m->nets[model_place(network)].params);
	b->image = nn_input(&b->graph, image, "image");
	b->z = b->out[0] = b->out[1] = -1;
	if (network == NN_NET_L)
		nn_net_L(&b->graph, &m->config, b->image, &b->out[0], &b->out[1]);
	else if (network == NN_NET_E)
		nn_net_E(&b->graph, &m->config, b->image, &b->out[0], &b->out[1]);
	else
	{
		if (m->config.nz > 0)
			b->z = nn_input(&b->graph, (NnShape){ n, 1, 1, m->config.nz }, "z");
		b->out[0] = nn_net_G(&b->graph, &m->config, b->image, b->z, 0);
		if (!b->graph.failed)
			b->graph.values[b->out[0]].bytes = true;
	}
	if (!b->graph.failed)
		b->graph.values[b->image].bytes = true;
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
						.passing = !same_extent(extent, model_own_extent(m, network)) };
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
	size_t image = sizeof(float) << log2n;
	bool floats = !m->device->takes_bytes;
	size_t in_bytes = floats ? nn_mul(model_reads(m, network, extent), image) : 0;
	size_t result_bytes =
		floats && network == NN_NET_G ? nn_mul(model_writes(m, network, extent, 0), image) : 0;
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
		status =
			m->device->prepare(m->device, &b->plan, m->nets[model_place(network)].packed, error);
	if (status != NN_OK)
	{
		free_bucket(m, b);
		return status;
	}
	b->float_bytes = in_bytes + result_bytes;
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
	if (!m->device->memory && !same_extent(extent, model_own_extent(m, network)))
	{
		bytes = nn_sum(bytes, work_bytes(&b.graph));
		bytes = nn_sum(bytes, bytes / 8);
	}
	nn_plan_free(&b.plan);
	nn_graph_free(&b.graph);
	return bytes;
}

/* Images that at least are run together: of a pair two. */
static int
least_images(NnNetwork network)
{
	return network == NN_NET_L ? 2 : 1;
}

/* The plans that there are for a size, or NULL. */
static const Plans *
plans_at(const NnModel *m, NnNetwork network, NnExtent extent)
{
	if (same_extent(extent, model_own_extent(m, network)))
		return &m->nets[model_place(network)].own;
	for (int i = 0; i < m->nothers; i++)
		if (same_extent(m->others[i]->extent, extent))
			return m->others[i];
	return NULL;
}

/* Arena, device state and arrays of floats. */
static size_t
bucket_bytes(const NnModel *m, const Bucket *b)
{
	return b->plan.arena_elements * element_bytes(m) + b->plan.device_bytes + b->float_bytes;
}

/* Bytes of the arena of a batch of 2^log2n; 0 on error. */
static size_t
arena_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int log2n, NnError *error)
{
	const Plans *plans = plans_at(m, network, extent);

	if (!plans || !plans->buckets[log2n])
		return plan_bytes(m, network, extent, 1 << log2n, error);
	return plans == &m->nets[model_place(network)].own
			   ? plans->buckets[log2n]->plan.arena_elements * element_bytes(m)
			   : bucket_bytes(m, plans->buckets[log2n]);
}

/*
 * What inputs and outputs of a batch of 2^log2n pass through on their way to
 * and from a device with memory of its own, at most, once a start: images are
 * bytes.
 */
static size_t
port_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int log2n)
{
	size_t numbers = model_writes(m, network, extent, 0);
	size_t latents = (size_t) m->config.nz * sizeof(float);
	size_t in = model_reads(m, network, extent);
	size_t out = network == NN_NET_G ? numbers + latents
				 : network == NN_NET_E
					 ? 2 * latents
					 : sizeof(float) * (numbers + model_writes(m, network, extent, 1));

	return nn_mul((size_t) NN_STARTS << log2n, in + out);
}

/*
 * log2n, or the most that is within R3; what was found is kept with the plans.
 */
static int
within_limits(const NnModel *m, NnNetwork network, NnExtent extent, int log2n)
{
	Plans *plans = (Plans *) plans_at(m, network, extent);
	int fits = plans ? plans->fits : 0;
	bool full = plans && plans->full;

	while (fits < log2n && !full)
	{
		full = 2 << fits > m->device->most_images ||
			   arena_bytes(m, network, extent, fits + 1, NULL) > m->device->max_arena_bytes;
		fits += !full;
	}
	if (plans)
	{
		plans->fits = fits;
		plans->full = full;
	}
	return log2n < fits ? log2n : fits;
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
	return within_limits(m, network, extent, log2n);
}

NnStatus
model_next_bucket(NnModel *m, NnNetwork network, Plans *plans, int n, Bucket **b, NnError *error)
{
	int log2n = bucket_for(m, network, plans->extent, n);
	Bucket **slot = &plans->buckets[log2n];
	NnStatus status = *slot ? NN_OK : make_bucket(m, network, plans->extent, log2n, slot, error);

	*b = *slot;
	return status;
}

/* ---- Sizes --------------------------------------------------------------- */

static size_t
bytes_of_plans(const NnModel *m, const Plans *plans)
{
	size_t bytes = 0;

	for (int i = 0; i < BUCKETS; i++)
		bytes += plans->buckets[i] ? bucket_bytes(m, plans->buckets[i]) : 0;
	return bytes;
}

static size_t
host_bytes_of_plans(const Plans *plans)
{
	size_t bytes = 0;

	for (int i = 0; i < BUCKETS; i++)
		bytes += plans->buckets[i] ? plans->buckets[i]->plan.host_bytes : 0;
	return bytes;
}

/* Those for batches of 2^log2n and more. */
static void
drop_plans(NnModel *m, Plans *plans, int log2n)
{
	INVARIANT(plans->open == 0);
	for (int i = log2n; i < BUCKETS; i++)
	{
		free_bucket(m, plans->buckets[i]);
		plans->buckets[i] = NULL;
	}
}

/* The least recently used other size goes. False: all are in use. */
static bool
drop_oldest(NnModel *m)
{
	int oldest = -1;

	for (int i = 0; i < m->nothers; i++)
		if (m->others[i]->open == 0 && (oldest < 0 || m->others[i]->used < m->others[oldest]->used))
			oldest = i;
	if (oldest < 0)
		return false;
	drop_plans(m, m->others[oldest], 0);
	free(m->others[oldest]);
	m->others[oldest] = m->others[--m->nothers];
	return true;
}

NnStatus
model_take_plans(NnModel *m, NnNetwork network, NnExtent extent, Plans **plans, NnError *error)
{
	Plans *made;

	*plans = (Plans *) plans_at(m, network, extent);
	if (!*plans)
	{
		if (network != model_main(m) || !nn_extent_suits(&m->config, extent))
			return nn_fail(error, NN_EINVAL, "network %s cannot run at %d x %d pixels",
						   nn_network_name(network), extent.w, extent.h);
		if (m->nothers == NN_MAX_EXTENTS)
			(void) drop_oldest(m);
		INVARIANT(m->nothers < NN_MAX_EXTENTS);
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
	NnNetwork network;
	size_t bytes;

	if (!nn_extent_suits(&model->config, extent))
	{
		nn_fail(error, NN_EINVAL, "network %s cannot run at %d x %d pixels",
				nn_network_name(model_main(model)), extent.w, extent.h);
		return 0;
	}
	network = model_main(model);
	bytes = plan_bytes(model, network, extent, least_images(network), error);
	if (bytes > 0 && network == NN_NET_L && !model->device->memory)
		bytes = nn_sum(bytes, pairs_bytes(model, extent, 1));
	return bytes;
}

static size_t
bytes_of_others(const NnModel *model)
{
	size_t bytes = 0;

	for (int i = 0; i < model->nothers; i++)
		bytes += sizeof(Plans) + bytes_of_plans(model, model->others[i]);
	return bytes;
}

size_t
nn_model_extents_bytes(const NnModel *model)
{
	return bytes_of_others(model) + (model->device->memory ? 0 : nn_model_seen_bytes(model));
}

void
nn_model_keep_extents(NnModel *model, size_t bytes)
{
	size_t plans = model->device->memory ? 0 : bytes_of_others(model);

	nn_model_keep_seen(model, bytes > plans ? bytes - plans : 0);
	while (bytes_of_others(model) > bytes && drop_oldest(model))
		;
}

/* ---- Loading ------------------------------------------------------------- */

/* Tensors to load a model from. */
typedef struct GivenTensors
{
	const NnTensor *list;
	int n;
} GivenTensors;

static NnStatus
fill_given(void *from, const NnParams *params, float *values, NnError *error)
{
	const GivenTensors *given = from;

	return nn_params_fill(params, given->list, given->n, values, error);
}

static NnStatus
load_net(NnModel *m, NnNetwork network, ModelFill fill, void *from, NnError *error)
{
	Net *net = &m->nets[model_place(network)];
	Bucket one;
	float *values;
	NnStatus status;

	net->own.extent = model_own_extent(m, network);
	status = nn_params_of(&m->config, 1u << network, &net->params, error);
	if (status != NN_OK)
		return status;
	values = malloc(net->params.total * sizeof(float));
	if (!values)
		return nn_no_memory(error, net->params.total * sizeof(float));
	status = fill(from, &net->params, values, error);
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
model_load(NnDevice *device, const NnConfig *config, NnPrecision precision, ModelFill fill,
		   void *from, NnModel **model, NnError *error)
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
		status = load_net(m, model_main(m), fill, from, error);
	else
	{
		status = nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot compute in %s", device->name,
						 nn_precision_name(m->precision));
		nn_detail(error, "It is %s.", device->describe(device));
		nn_hint(error, "Use precision fp32 or auto.");
	}
	if (status == NN_OK && config->net_e != NN_ENCODER_NONE)
		status = load_net(m, NN_NET_E, fill, from, error);
	if (status != NN_OK)
	{
		nn_model_free(m);
		return status;
	}
	*model = m;
	return NN_OK;
}

NnStatus
nn_model_load(NnDevice *device, const NnConfig *config, NnPrecision precision,
			  const NnTensor *tensors, int ntensors, NnModel **model, NnError *error)
{
	GivenTensors given = { tensors, ntensors };

	return model_load(device, config, precision, fill_given, &given, model, error);
}

/* A graph of the network at its own size, of any plan, or one that is made. */
static NnStatus
repack_net(NnModel *m, NnNetwork network, const NnTraining *training, NnArray array, NnError *error)
{
	Net *net = &m->nets[network];
	const NnTrainDevice *train = m->device->train;
	Bucket one;
	NnStatus status;

	for (int i = 0; i < BUCKETS; i++)
		if (net->own.buckets[i])
			return train->repack(m->device, training, array, &net->own.buckets[i]->graph,
								 net->packed, error);
	status = lay_out(m, network, net->own.extent, 1, &one, error);
	if (status != NN_OK)
		return status;
	status = train->repack(m->device, training, array, &one.graph, net->packed, error);
	nn_plan_free(&one.plan);
	nn_graph_free(&one.graph);
	return status;
}

NnStatus
model_repack(NnModel *m, const NnTraining *training, NnArray array, NnError *error)
{
	NnStatus status = NN_OK;

	for (int network = NN_NET_G; status == NN_OK && network <= NN_NET_E; network++)
		if (m->nets[network].exists)
			status = repack_net(m, network, training, array, error);
	return status;
}

/*
 * What a plan that is laid out takes of the device's memory, at most; 0 on
 * error. On the host floats of inputs and outputs are part of its work.
 */
static size_t
laid_out_bytes(const NnModel *m, const Bucket *b)
{
	const NnMemoryDevice *memory = m->device->memory;
	size_t bytes;

	if (memory)
		return memory->plan_bytes(m->device, &b->plan);
	bytes = nn_sum(nn_mul(b->plan.arena_elements, element_bytes(m)), work_bytes(&b->graph));
	return nn_sum(bytes, bytes / 8);
}

/*
 * What the plans of a network, and its weights, take of the device's memory: of
 * batches of up to so many images of that size (of L pairs), at most; of 0, the
 * arenas of one. 0 on error.
 */
static size_t
foreseen_bytes(const NnModel *m, NnNetwork network, NnExtent extent, int images, NnError *error)
{
	int most = (images > 0 ? images : 1) * least_images(network);
	int end = m->device->takes_fewer ? 2 * most : most + 1;
	size_t bytes = 0, arena = 0, limit = m->device->max_arena_bytes;

	if (end > m->device->most_images + 1)
		end = m->device->most_images + 1;
	for (int log2n = 0; 1 << log2n < end && arena <= limit; log2n++)
	{
		Bucket b;

		if (lay_out(m, network, extent, 1 << log2n, &b, error) != NN_OK)
			return 0;
		arena = nn_mul(b.plan.arena_elements, element_bytes(m));
		if (log2n == 0)
			bytes = m->device->pack_bytes(m->device, m->precision, &b.graph);
		if (log2n == 0 || arena <= limit) /* R3 */
			bytes = nn_sum(bytes, images == 0 ? arena : laid_out_bytes(m, &b));
		nn_plan_free(&b.plan);
		nn_graph_free(&b.graph);
	}
	if (bytes > 0 && network == NN_NET_L && !m->device->memory)
		bytes = nn_sum(bytes, pairs_bytes(m, extent, images));
	return bytes;
}

/* The same of all networks of a model; extent: of the first, NULL: its own. */
static size_t
foresee(NnDevice *device, const NnConfig *config, NnPrecision precision, const NnExtent *extent,
		int images, NnError *error)
{
	NnModel m = { .device = device, .config = *config, .precision = precision };
	int places = config->net_e != NN_ENCODER_NONE ? 2 : 1;
	size_t sum = 0;

	for (int place = 0; place < places; place++)
	{
		NnNetwork network = model_network(&m, place);
		NnParams *params = &m.nets[place].params;
		size_t bytes;

		if (nn_params_of(config, 1u << network, params, error) != NN_OK)
			return 0;
		bytes = foreseen_bytes(&m, network,
							   place == 0 && extent ? *extent : model_own_extent(&m, network),
							   images, error);
		nn_params_free(params);
		if (bytes == 0)
			return 0;
		sum = nn_sum(sum, bytes);
	}
	return sum;
}

size_t
nn_model_least_bytes(NnDevice *device, const NnConfig *config, NnPrecision precision,
					 NnError *error)
{
	return device->memory ? foresee(device, config, precision, NULL, 0, error) : 0;
}

size_t
model_most_bytes(NnDevice *device, const NnConfig *config, NnPrecision precision, NnExtent extent,
				 int images, NnError *error)
{
	return foresee(device, config, precision, &extent, images, error);
}

NnStatus
nn_model_prepare(NnModel *model, NnError *error)
{
	NnStatus status = NN_OK;

	for (int place = 0; status == NN_OK && place < 2; place++)
	{
		Net *net = &model->nets[place];
		NnNetwork network = model_network(model, place);
		Bucket *made;

		for (int n = 1; status == NN_OK && net->exists && n <= least_images(network); n++)
			status = model_next_bucket(model, network, &net->own, n, &made, error);
	}
	return status;
}

void
nn_model_shrink(NnModel *model)
{
	nn_model_keep_extents(model, 0);
	for (int place = 0; place < 2; place++)
		drop_plans(model, &model->nets[place].own, least_images(model_network(model, place)));
}

void
nn_model_free(NnModel *model)
{
	if (!model)
		return;
	nn_model_keep_extents(model, 0);
	for (int place = 0; place < 2; place++)
	{
		Net *net = &model->nets[place];

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

	for (int place = 0; place < 2; place++)
		bytes += model->nets[place].packed_bytes + bytes_of_plans(model, &model->nets[place].own);
	return bytes + nn_model_extents_bytes(model);
}

size_t
nn_model_host_bytes(const NnModel *model)
{
	size_t bytes = sizeof(*model);

	if (!model->device->memory)
		return nn_model_bytes(model);
	bytes += nn_model_seen_bytes(model);
	for (int place = 0; place < 2; place++)
		bytes += host_bytes_of_plans(&model->nets[place].own);
	for (int i = 0; i < model->nothers; i++)
		bytes += sizeof(Plans) + host_bytes_of_plans(model->others[i]);
	return bytes;
}

size_t
nn_model_batch_bytes(NnModel *model, NnNetwork network, int n, NnError *error)
{
	return nn_model_batch_bytes_at(model, network, model_own_extent(model, network), n, error);
}

size_t
nn_model_batch_bytes_at(NnModel *model, NnNetwork network, NnExtent extent, int n, NnError *error)
{
	size_t sum = 0, bytes;
	bool used[BUCKETS] = { false };

	if (!model_has(model, network))
	{
		nn_fail(error, NN_EINVAL, "model has no network %s", nn_network_name(network));
		return 0;
	}
	if (network == NN_NET_L)
		sum = pairs_bytes(model, extent, n);
	n *= least_images(network);
	while (n > 0)
	{
		int log2n = bucket_for(model, network, extent, n);

		bytes = model->device->memory ? port_bytes(model, network, extent, log2n)
									  : arena_bytes(model, network, extent, log2n, error);
		if (bytes == 0)
			return 0;
		sum += used[log2n] ? 0 : bytes;
		used[log2n] = true;
		n = n < 1 << log2n ? 0 : n % (1 << log2n);
	}
	return sum;
}
