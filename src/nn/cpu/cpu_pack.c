/*
 * cpu_pack.c
 *	  From a model's flat parameters to what the CPU's kernels read: weights in
 *	  panels, sums for the latent, folded batch norm; and from there to what
 *	  they read at another size of images.
 *
 * A CpuPacked owns everything reachable from it and is only read after cpu_pack
 * returns, by any number of plans. Layers of another size are their plan's, and
 * borrow all weights.
 */
#include "nn/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is needed while packing. */
typedef struct Packer
{
	CpuDevice *device;
	const CpuKernel *kernel; /* of frames */
	CpuLayers *layers;
	const NnGraph *graph;
	const float *values;  /* NULL: bytes are counted, and nothing is made */
	const CpuLayer *from; /* of another size, whose weights are taken; NULL: values are packed */
	int nzeros;           /* of the pixel that tiles read outside images */
	NnError *error;
} Packer;

/* NULL where bytes are counted. */
static const float *
param_values(const Packer *p, int param)
{
	return p->values ? p->values + p->graph->params->list[param].offset : NULL;
}

static NnShape
image_shape(const NnGraph *graph, int value)
{
	NnShape shape = graph->values[value].shape;

	shape.n = 1;
	return shape;
}

/* What counts towards the model's bytes; *array stays NULL if that is all. */
static NnStatus
new_bytes(Packer *p, size_t bytes, void **array)
{
	p->layers->bytes = nn_sum(p->layers->bytes, bytes);
	*array = p->values ? cpu_alloc(bytes) : NULL;
	return *array || !p->values ? NN_OK : nn_no_memory(p->error, bytes);
}

/* Zeroed ones. */
static NnStatus
new_floats(Packer *p, size_t n, float **array)
{
	size_t bytes = nn_mul(n, sizeof(float));
	void *made;
	NnStatus status = new_bytes(p, bytes, &made);

	*array = made;
	if (made)
		memset(made, 0, bytes);
	return status;
}

static NnStatus
copy_floats(Packer *p, const float *from, size_t n, float **array)
{
	NnStatus status = new_floats(p, n, array);

	if (*array)
		memcpy(*array, from, n * sizeof(float));
	return status;
}

/* ---- Weights ------------------------------------------------------------- */

/*
 * For each class of output positions, the sum over the valid taps of the
 * latent's weights: that times the latent is what it adds there.
 */
static NnStatus
pack_latent(Packer *p, CpuLayer *layer, const NnNode *node)
{
	NnStatus status =
		nn_borders(node, layer->in, layer->out, &layer->rows, &layer->columns, p->error);

	if (status == NN_OK)
		status = new_floats(p, (size_t) layer->rows.n * layer->columns.n * layer->nz * layer->out.c,
							&layer->z_weights);
	if (layer->z_weights)
		nn_border_sums(&layer->rows, &layer->columns, param_values(p, node->weight), layer->in.c,
					   layer->nz, layer->out.c, node->conv.kernel, layer->z_weights);
	return status;
}

/* ---- Layers -------------------------------------------------------------- */

static NnStatus
pack_frames(Packer *p, CpuLayer *layer, const NnNode *node, const float *w)
{
	NnStatus status =
		new_bytes(p, cpu_frame_weights(p->kernel, &layer->framing), &layer->frame_weights);

	if (layer->frame_weights)
		cpu_pack_frame(p->kernel, layer, node, w, layer->frame_weights);
	return status;
}

static NnStatus
pack_tiles(Packer *p, CpuLayer *layer, const NnNode *node, const float *w)
{
	NnStatus status =
		new_floats(p, cpu_tile_weights(p->device->kernels, layer), &layer->tile_weights);

	if (status != NN_OK)
		return status;
	layer->tiling.block = cpu_tile_block(p->device->kernels, &layer->tiling, layer->in.c);
	if (layer->tile_weights)
		cpu_pack_tiles(p->device->kernels, layer, node, w, layer->tile_weights);
	if (layer->in.c > p->nzeros)
		p->nzeros = layer->in.c;
	return NN_OK;
}

/* (O, I, k + 1, k + 1): a convolution and the mean of 2x2 of its results. */
static NnStatus
pooled_weights(Packer *p, const CpuLayer *layer, const float *w, int kernel, float **out)
{
	size_t maps = (size_t) layer->out.c * layer->in.c;
	int k = kernel - 1;

	*out = malloc(maps * kernel * kernel * sizeof(float));
	if (!*out)
		return nn_no_memory(p->error, maps * kernel * kernel * sizeof(float));
	for (size_t i = 0; i < maps; i++)
		for (int y = 0; y < kernel; y++)
			for (int x = 0; x < kernel; x++)
			{
				double sum = 0;

				for (int dy = 0; dy < 2; dy++)
					for (int dx = 0; dx < 2; dx++)
						if (y - dy >= 0 && y - dy < k && x - dx >= 0 && x - dx < k)
							sum += w[(i * k + y - dy) * k + x - dx];
				(*out)[(i * kernel + y) * kernel + x] = (float) (sum / 4);
			}
	return NN_OK;
}

static NnStatus
pack_conv(Packer *p, CpuLayer *layer, const NnNode *first)
{
	int id = (int) (first - p->graph->nodes);
	const NnNode node = cpu_step_conv(p->graph, id),
				 *end = &p->graph->nodes[cpu_step_end(p->graph, id)];
	const float *w = param_values(p, node.weight);
	float *pooled = NULL;
	NnStatus status = NN_OK;

	if (node.op == NN_OP_CONV && node.conv.pad >= node.conv.kernel)
		return nn_fail(p->error, NN_EUNSUPPORTED,
					   "padding of layer \"%s\" is as wide as its kernel", node.name);
	if (node.conv.kernel * node.conv.kernel > CPU_MAX_TAPS)
		return nn_fail(p->error, NN_EUNSUPPORTED, "kernel of layer \"%s\" is too large", node.name);
	layer->out = image_shape(p->graph, end->out[0]);
	if (end->op == NN_OP_AVGPOOL && w)
	{
		status = pooled_weights(p, layer, w, node.conv.kernel, &pooled);
		w = pooled;
	}
	cpu_layout(&node, end, p->kernel, layer);
	if (status == NN_OK)
		status = layer->layout.algorithm == CPU_TILES ? pack_tiles(p, layer, &node, w)
													  : pack_frames(p, layer, &node, w);
	free(pooled);
	if (status == NN_OK && node.bias >= 0)
		status = copy_floats(p, param_values(p, node.bias), layer->out.c, &layer->bias);
	if (status == NN_OK && layer->nz > 0)
		status = pack_latent(p, layer, &node);
	return status;
}

/*
 * Of a batch norm: center, offset, scale, shift of cpu_kernels.h's CpuAffine.
 * An instance norm finds center and scale itself, and has a scale besides.
 */
static NnStatus
pack_norm(Packer *p, CpuLayer *layer, const NnNode *node)
{
	bool batch = node->norm.kind == NN_NORM_BATCH;
	int c = node->weight >= 0 ? layer->out.c : 0;
	NnStatus status = c > 0 ? new_floats(p, (size_t) 4 * c, &layer->norm) : NN_OK;

	for (int i = 0; layer->norm && i < c; i++)
	{
		double scale = batch ? sqrt(param_values(p, node->norm.var)[i] + NORM_EPSILON) : 1;

		layer->norm[i] = batch ? param_values(p, node->norm.mean)[i] : 0;
		layer->norm[2 * c + i] = (float) (param_values(p, node->weight)[i] / scale);
		layer->norm[3 * c + i] = param_values(p, node->bias)[i];
	}
	return status;
}

static NnStatus
pack_linear(Packer *p, CpuLayer *layer, const NnNode *node)
{
	NnStatus status = copy_floats(p, param_values(p, node->weight),
								  (size_t) layer->in.c * layer->out.c, &layer->norm);

	if (status == NN_OK && node->bias >= 0)
		status = copy_floats(p, param_values(p, node->bias), layer->out.c, &layer->bias);
	else if (status == NN_OK)
		status = new_floats(p, layer->out.c, &layer->bias);
	return status;
}

static NnStatus
pack_embed(Packer *p, CpuLayer *layer, const NnNode *node)
{
	NnStatus status = copy_floats(p, param_values(p, node->weight), layer->in.c, &layer->norm);

	for (int c = 0; layer->norm && c < layer->in.c; c++)
		layer->norm[c] = sqrtf(layer->norm[c]);
	return status;
}

/* Of operators that have something to pack. */
static NnStatus (*const packs[NN_OPS])(Packer *p, CpuLayer *layer, const NnNode *node) = {
	[NN_OP_CONV] = pack_conv,     [NN_OP_CONVT] = pack_conv,  [NN_OP_NORM_ACT] = pack_norm,
	[NN_OP_LINEAR] = pack_linear, [NN_OP_EMBED] = pack_embed,
};

static NnStatus
pack_layer(Packer *p, int id)
{
	const NnNode *node = &p->graph->nodes[id];
	CpuLayer *layer = &p->layers->list[id];

	layer->op = node->op;
	layer->out = image_shape(p->graph, node->out[0]);
	if (node->in[0] >= 0)
		layer->in = image_shape(p->graph, node->in[0]);
	if (node->op == NN_OP_CONV && node->in[1] >= 0)
		layer->nz = p->graph->values[node->in[1]].shape.c;
	return packs[node->op] ? packs[node->op](p, layer, node) : NN_OK;
}

/* ---- Layers of another size ---------------------------------------------- */

static NnStatus
resize_conv(Packer *p, CpuLayer *layer, int id)
{
	const NnNode node = cpu_step_conv(p->graph, id);
	NnStatus status = NN_OK;

	layer->out = image_shape(p->graph, p->graph->nodes[cpu_step_end(p->graph, id)].out[0]);
	cpu_resize_layout(&node, layer);
	if (layer->nz > 0)
		status = nn_borders(&node, layer->in, layer->out, &layer->rows, &layer->columns, p->error);
	if (layer->layout.algorithm == CPU_TILES)
		layer->tiling.block = cpu_tile_block(p->device->kernels, &layer->tiling, layer->in.c);
	return status;
}

static NnStatus
resize_layer(Packer *p, int id)
{
	const NnNode *node = &p->graph->nodes[id];
	CpuLayer *layer = &p->layers->list[id];

	*layer = *p->from;
	layer->out = image_shape(p->graph, node->out[0]);
	if (node->in[0] >= 0)
		layer->in = image_shape(p->graph, node->in[0]);
	return nn_ops[node->op].filters ? resize_conv(p, layer, id) : NN_OK;
}

/* ---- All layers ---------------------------------------------------------- */

/* from: layers to resize; NULL: values are packed. */
static NnStatus
make_layers(Packer *p, const CpuLayers *from)
{
	CpuLayers *layers = p->layers;
	NnStatus status = NN_OK;

	layers->list = calloc(p->graph->nnodes + 1, sizeof(CpuLayer));
	if (!layers->list)
		return nn_no_memory(p->error, (p->graph->nnodes + 1) * sizeof(CpuLayer));
	while (status == NN_OK && layers->n < p->graph->nnodes)
	{
		int id = layers->n++;

		p->from = from ? &from->list[id] : NULL;
		status = from ? resize_layer(p, id) : pack_layer(p, id);
	}
	return status;
}

NnStatus
cpu_pack(NnDevice *base, NnPrecision precision, const NnGraph *graph, const float *values,
		 void **out, size_t *bytes, NnError *error)
{
	CpuPacked *packed = calloc(1, sizeof(CpuPacked));
	Packer packer = { .device = base->state, .graph = graph, .values = values, .error = error };
	NnStatus status;

	if (!packed)
		return nn_no_memory(error, sizeof(CpuPacked));
	packed->precision = precision == NN_PRECISION_AUTO ? NN_PRECISION_FP32 : precision;
	packed->kernel =
		packed->precision == NN_PRECISION_BF16 ? packer.device->bf16 : packer.device->kernels->fp32;
	packer.kernel = packed->kernel;
	packer.layers = &packed->own;
	if (!base->supports(base, packed->precision))
		status = nn_fail(error, NN_EUNSUPPORTED, "this processor has no bfloat16 arithmetic");
	else
		status = make_layers(&packer, NULL);
	packed->nzeros = packer.nzeros;
	if (status == NN_OK)
		status = new_floats(&packer, packed->nzeros, &packed->zeros);
	if (status != NN_OK)
	{
		cpu_pack_free(base, packed);
		return status;
	}
	*out = packed;
	*bytes = packed->own.bytes;
	return NN_OK;
}

size_t
cpu_pack_bytes(NnDevice *base, NnPrecision precision, const NnGraph *graph)
{
	CpuDevice *device = base->state;
	CpuLayers layers = { 0 };
	Packer p = { .device = device,
				 .kernel = precision == NN_PRECISION_BF16 ? device->bf16 : device->kernels->fp32,
				 .layers = &layers,
				 .graph = graph };
	size_t bytes = p.kernel && make_layers(&p, NULL) == NN_OK
					   ? nn_sum(layers.bytes, nn_mul(p.nzeros, sizeof(float)))
					   : 0;

	cpu_free_layers(&layers, false);
	return bytes;
}

NnStatus
cpu_resize_layers(CpuDevice *device, const CpuPacked *packed, const NnGraph *graph,
				  CpuLayers *layers, NnError *error)
{
	Packer packer = {
		.device = device, .kernel = packed->kernel, .layers = layers, .graph = graph, .error = error
	};

	layers->bytes = (size_t) graph->nnodes * sizeof(CpuLayer);
	return make_layers(&packer, &packed->own);
}

void
cpu_free_layers(CpuLayers *layers, bool borrowed)
{
	for (int i = 0; i < layers->n; i++)
	{
		CpuLayer *layer = &layers->list[i];

		if (borrowed)
			continue;
		free(layer->frame_weights);
		free(layer->tile_weights);
		free(layer->bias);
		free(layer->z_weights);
		free(layer->norm);
	}
	free(layers->list);
	*layers = (CpuLayers){ 0 };
}

void
cpu_pack_free(NnDevice *base, void *p)
{
	CpuPacked *packed = p;

	if (!packed)
		return;
	cpu_free_layers(&packed->own, false);
	free(packed->zeros);
	free(packed);
}
