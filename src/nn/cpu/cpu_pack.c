/*
 * cpu_pack.c
 *	  From a model's flat parameters to what the CPU's kernels read: oneDNN
 *	  primitives with weights in their layout, sums for the latent, folded batch
 *	  norm; and from there to what they read at another size of images.
 *
 * A CpuPacked owns everything reachable from it and is only read after cpu_pack
 * returns, by any number of plans. Layers of another size are their plan's, and
 * own primitives and units; of weights only those that oneDNN wanted in another
 * layout than it had at the model's own size.
 */
#include "nn/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* What is needed while packing. */
typedef struct Packer
{
	CpuDevice *device;
	NnPrecision precision;
	CpuLayers *layers;
	const NnGraph *graph;
	const float *values;
	const CpuLayer *from; /* of another size, whose weights are taken; NULL: values are packed */
	int nzeros;           /* of the pixel that tiles read outside images */
	dnnl_stream_t stream;
	dnnl_primitive_attr_t attr;
	NnError *error;
} Packer;

static const float *
param_values(const Packer *p, int param)
{
	return p->values + p->graph->params->list[param].offset;
}

static NnShape
image_shape(const NnGraph *graph, int value)
{
	NnShape shape = graph->values[value].shape;

	shape.n = 1;
	return shape;
}

/* A zeroed array that counts towards the model's bytes. */
static NnStatus
new_floats(Packer *p, size_t n, float **array)
{
	size_t bytes = nn_mul(n, sizeof(float));

	*array = cpu_alloc(bytes);
	if (!*array)
		return nn_no_memory(p->error, bytes);
	memset(*array, 0, bytes);
	p->layers->bytes += bytes;
	return NN_OK;
}

static NnStatus
copy_floats(Packer *p, const float *from, size_t n, float **array)
{
	NnStatus status = new_floats(p, n, array);

	if (status == NN_OK)
		memcpy(*array, from, n * sizeof(float));
	return status;
}

/* ---- Primitives ---------------------------------------------------------- */

/*
 * Creates the primitive of a shape. `weights` is the layout the layer's weights
 * are in already, or NULL for the first one, which may choose.
 */
static NnStatus
create_primitive(Packer *p, const CpuLayer *layer, DnnlDescRef weights, CpuPrimitive *primitive)
{
	const CpuLayout *l = &layer->layout;
	dnnl_data_type_t type = p->precision == NN_PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
	dnnl_dims_t src_dims = { 1, layer->in.c, primitive->in_rows, layer->in.w };
	dnnl_dims_t dst_dims = { 1, primitive->channels, primitive->rows, l->w };
	dnnl_dims_t weight_dims = { primitive->channels, layer->in.c, l->kernel, l->kernel };
	dnnl_dims_t stride = { l->stride, l->stride };
	dnnl_dims_t begin = { primitive->pad_top, primitive->pad_left };
	dnnl_dims_t end = { primitive->pad_bottom, primitive->pad_right };
	DnnlDesc src, dst, any;
	dnnl_status_t status;

	status = dnnl_desc_init(&src, 4, src_dims, type, dnnl_nhwc);
	if (status != dnnl_success)
		return cpu_dnnl_fail(p->error, status, "describe an image");
	status = dnnl_desc_init(&dst, 4, dst_dims, dnnl_f32, dnnl_nhwc);
	if (status == dnnl_success)
	{
		status = dnnl_desc_init(&any, 4, weight_dims, type, dnnl_format_tag_any);
		if (status == dnnl_success)
		{
			status = dnnl_conv_desc(&primitive->desc, p->device->engine, dnnl_desc_ref(&src),
									weights ? weights : dnnl_desc_ref(&any), dnnl_desc_ref(&dst),
									stride, begin, end, p->attr);
			dnnl_desc_free(&any);
		}
		dnnl_desc_free(&dst);
	}
	dnnl_desc_free(&src);
	if (status == dnnl_success)
		status = dnnl_primitive_create(&primitive->primitive, primitive->desc);
	return status == dnnl_success ? NN_OK
								  : cpu_dnnl_fail(p->error, status, "prepare a convolution");
}

/* Whether oneDNN has nothing better than its slow reference. */
static bool
is_reference(const CpuPrimitive *primitive)
{
	const char *name = NULL;

	return dnnl_primitive_desc_query(primitive->desc, dnnl_query_impl_info_str, 0, &name) ==
			   dnnl_success &&
		   name && strncmp(name, "ref", 3) == 0;
}

static void
free_primitive(CpuPrimitive *primitive)
{
	dnnl_primitive_destroy(primitive->primitive);
	dnnl_primitive_desc_destroy(primitive->desc);
	primitive->primitive = NULL;
	primitive->desc = NULL;
}

static DnnlDescRef
layout_of(const CpuLayer *layer)
{
	return dnnl_primitive_desc_query_md(layer->primitives[0].desc, dnnl_query_weights_md, 0);
}

/* The first of a layer: with the weights that are there, if that is fast. */
static NnStatus
create_first(Packer *p, const CpuLayer *layer, CpuPrimitive *primitive)
{
	NnStatus status = create_primitive(p, layer, p->from ? layout_of(p->from) : NULL, primitive);

	if (status != NN_OK || !p->from || !is_reference(primitive))
		return status;
	free_primitive(primitive);
	return create_primitive(p, layer, NULL, primitive);
}

/*
 * The index of the layer's primitive of the wanted shape, made if there is none
 * yet; -1 after an error. The array has room for one a unit.
 */
static int
find_primitive(Packer *p, CpuLayer *layer, const CpuPrimitive *wanted, NnStatus *status)
{
	CpuPrimitive *primitive = layer->primitives;
	DnnlDescRef scratch;

	for (int i = 0; i < layer->nprimitives; i++, primitive++)
	{
		if (primitive->rows == wanted->rows && primitive->in_rows == wanted->in_rows &&
			primitive->channels == wanted->channels && primitive->pad_top == wanted->pad_top &&
			primitive->pad_bottom == wanted->pad_bottom &&
			primitive->pad_left == wanted->pad_left && primitive->pad_right == wanted->pad_right)
			return i;
	}
	*primitive = *wanted;
	*status = layer->nprimitives++ == 0 ? create_first(p, layer, primitive)
										: create_primitive(p, layer, layout_of(layer), primitive);
	if (*status != NN_OK)
		return -1;
	primitive->id = p->layers->nprimitives++;
	scratch = dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_scratchpad_md, 0);
	if (scratch && dnnl_memory_desc_get_size(scratch) > p->layers->scratch_bytes)
		p->layers->scratch_bytes = dnnl_memory_desc_get_size(scratch);
	return (int) (primitive - layer->primitives);
}

/* The input rows and the padding that rows [r0, r1) of a phase read. */
static void
band_shape(const CpuLayer *layer, const NnNode *node, int phase, int r0, int r1,
		   CpuPrimitive *shape, int *first_row)
{
	const CpuLayout *l = &layer->layout;
	int top = r0 * l->stride - cpu_leading_pad(l, node, phase / 2);
	int bottom = (r1 - 1 - r0) * l->stride + top + l->kernel;
	int left = cpu_leading_pad(l, node, phase % 2);
	int right = (l->w - 1) * l->stride + l->kernel - left - layer->in.w;
	int end = bottom < layer->in.h ? bottom : layer->in.h;

	*first_row = top > 0 ? top : 0;
	*shape = (CpuPrimitive){
		.rows = r1 - r0,
		.in_rows = end - *first_row,
		.pad_top = *first_row - top,
		.pad_bottom = bottom - end,
		.pad_left = left,
		.pad_right = right > 0 ? right : 0,
		.channels = l->part,
	};
}

/* ---- Weights ------------------------------------------------------------- */

/* A phase's weights of [c0, c0 + part) as (O, I, k, k), no latent's. */
static void
gather_weights(const CpuLayer *layer, const NnNode *node, const float *w, int phase, int c0,
			   float *out)
{
	const CpuLayout *l = &layer->layout;
	int channels = layer->out.c, inputs = layer->in.c + layer->nz;
	int k = l->kernel;

	for (int c = c0; c < c0 + l->part; c++)
	{
		int corner = l->form == CPU_GRID ? c / channels : phase;
		size_t o = c % channels;

		for (int i = 0; i < layer->in.c; i++)
			for (int y = 0; y < k; y++)
				for (int x = 0; x < k; x++)
				{
					int ky = cpu_checkpoint_tap(l, corner / 2, y),
						kx = cpu_checkpoint_tap(l, corner % 2, x);
					size_t row =
						node->op == NN_OP_CONVT ? (size_t) i * channels + o : o * inputs + i;

					*out++ = w[(row * node->conv.kernel + ky) * node->conv.kernel + kx];
				}
	}
}

/* A copy of weights in another layout. */
static NnStatus
copy_weights(Packer *p, DnnlDescRef from_layout, dnnl_memory_t from, DnnlDescRef layout,
			 dnnl_memory_t *out)
{
	dnnl_primitive_desc_t desc = NULL;
	dnnl_primitive_t reorder = NULL;
	dnnl_status_t status = dnnl_memory_create(out, layout, p->device->engine, DNNL_MEMORY_ALLOCATE);

	if (status == dnnl_success)
		status = dnnl_reorder_primitive_desc_create(&desc, from_layout, p->device->engine, layout,
													p->device->engine, NULL);
	if (status == dnnl_success)
		status = dnnl_primitive_create(&reorder, desc);
	if (status == dnnl_success)
	{
		dnnl_exec_arg_t args[2] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, *out } };

		status = dnnl_primitive_execute(reorder, p->stream, 2, args);
	}
	if (status == dnnl_success)
		status = dnnl_stream_wait(p->stream);
	p->layers->bytes += dnnl_memory_desc_get_size(layout);
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(desc);
	return status == dnnl_success ? NN_OK : cpu_dnnl_fail(p->error, status, "pack weights");
}

/* oneDNN's weights of a part of a phase, of the checkpoint's. */
static NnStatus
pack_weights(Packer *p, const CpuLayer *layer, const NnNode *node, const float *w, int phase,
			 int c0, float *plain, dnnl_memory_t *out)
{
	const CpuLayout *l = &layer->layout;
	dnnl_dims_t dims = { l->part, layer->in.c, l->kernel, l->kernel };
	dnnl_memory_t from = NULL;
	DnnlDesc plain_desc;
	dnnl_status_t dnnl;
	NnStatus status;

	gather_weights(layer, node, w, phase, c0, plain);
	dnnl = dnnl_desc_init(&plain_desc, 4, dims, dnnl_f32, dnnl_oihw);
	if (dnnl != dnnl_success)
		return cpu_dnnl_fail(p->error, dnnl, "describe weights");
	dnnl = dnnl_memory_create(&from, dnnl_desc_ref(&plain_desc), p->device->engine, plain);
	status = dnnl == dnnl_success
				 ? copy_weights(p, dnnl_desc_ref(&plain_desc), from, layout_of(layer), out)
				 : cpu_dnnl_fail(p->error, dnnl, "pack weights");
	dnnl_memory_destroy(from);
	dnnl_desc_free(&plain_desc);
	return status;
}

/* The same of the layer of another size: its own, if they are laid out so. */
static NnStatus
take_weights(Packer *p, const CpuLayer *layer, int phase, int c0, CpuUnit *unit)
{
	const CpuLayout *l = &p->from->layout;
	int bands = (l->h + l->band - 1) / l->band;
	dnnl_memory_t from = p->from->units[(phase * (l->c / l->part) + c0 / l->part) * bands].weights;

	if (dnnl_memory_desc_equal(layout_of(p->from), layout_of(layer)))
	{
		unit->weights = from;
		return NN_OK;
	}
	unit->owner = true;
	return copy_weights(p, layout_of(p->from), from, layout_of(layer), &unit->weights);
}

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
	if (status == NN_OK)
		nn_border_sums(&layer->rows, &layer->columns, param_values(p, node->weight), layer->in.c,
					   layer->nz, layer->out.c, node->conv.kernel, layer->z_weights);
	return status;
}

/* ---- Layers -------------------------------------------------------------- */

static NnStatus
pack_units(Packer *p, CpuLayer *layer, const NnNode *node, const float *w, float *plain)
{
	const CpuLayout *l = &layer->layout;
	int bands = (l->h + l->band - 1) / l->band;
	size_t pixels = (size_t) l->h * l->w;
	NnStatus status = NN_OK;

	/* all bands of a part, then the next part: neighbours share weights */
	for (int phase = 0; phase < l->phases; phase++)
		for (int c0 = 0; c0 < l->c; c0 += l->part)
		{
			CpuUnit *first = &layer->units[layer->nunits];

			for (int b = 0; b < bands; b++)
			{
				CpuUnit *unit = &layer->units[layer->nunits];
				int r0 = b * l->band, r1 = r0 + l->band < l->h ? r0 + l->band : l->h;
				int row;
				CpuPrimitive wanted;

				band_shape(layer, node, phase, r0, r1, &wanted, &row);
				unit->primitive = find_primitive(p, layer, &wanted, &status);
				if (status == NN_OK && b == 0 && p->from)
					status = take_weights(p, layer, phase, c0, unit);
				else if (status == NN_OK && b == 0)
				{
					unit->owner = true;
					status = pack_weights(p, layer, node, w, phase, c0, plain, &unit->weights);
				}
				unit->weights = first->weights;
				unit->src = (size_t) row * layer->in.w * layer->in.c;
				unit->dst = phase * pixels * l->c + c0 * pixels + (size_t) r0 * l->w * l->part;
				layer->nunits++;
				if (status != NN_OK)
					return status;
			}
		}
	return NN_OK;
}

static NnStatus
pack_dnnl(Packer *p, CpuLayer *layer, const NnNode *node, const float *w)
{
	const CpuLayout *l = &layer->layout;
	float *plain = NULL;
	NnStatus status = NN_OK;
	int units = l->phases * (l->c / l->part) * ((l->h + l->band - 1) / l->band);
	layer->units = calloc(units, sizeof(CpuUnit));
	layer->primitives = calloc(units, sizeof(CpuPrimitive));
	if (!p->from)
		plain = malloc(
			nn_mul(nn_mul(nn_mul(l->part, layer->in.c), l->kernel * l->kernel), sizeof(float)));
	if (!layer->units || !layer->primitives || (!p->from && !plain))
		status = nn_no_memory(p->error, units * sizeof(CpuPrimitive));
	if (status == NN_OK)
		status = pack_units(p, layer, node, w, plain);
	free(plain);
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
	layer->out = image_shape(p->graph, end->out[0]);
	if (end->op == NN_OP_AVGPOOL)
	{
		status = pooled_weights(p, layer, w, node.conv.kernel, &pooled);
		w = pooled;
	}
	cpu_layout(&node, end, layer->in, layer->out, p->precision, &layer->layout, &layer->tiling);
	if (status == NN_OK)
		status = layer->layout.algorithm == CPU_TILES ? pack_tiles(p, layer, &node, w)
													  : pack_dnnl(p, layer, &node, w);
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

	for (int i = 0; status == NN_OK && i < c; i++)
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
pack_distance(Packer *p, CpuLayer *layer, const NnNode *node)
{
	return copy_floats(p, param_values(p, node->weight), layer->in.c, &layer->norm);
}

/* Of operators that have something to pack. */
static NnStatus (*const packs[NN_OPS])(Packer *p, CpuLayer *layer, const NnNode *node) = {
	[NN_OP_CONV] = pack_conv,     [NN_OP_CONVT] = pack_conv,        [NN_OP_NORM_ACT] = pack_norm,
	[NN_OP_LINEAR] = pack_linear, [NN_OP_DISTANCE] = pack_distance,
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
	layer->units = NULL;
	layer->primitives = NULL;
	layer->nunits = layer->nprimitives = 0;
	cpu_resize_layout(&node, layer->in, layer->out, &layer->layout, &layer->tiling);
	if (layer->nz > 0)
		status = nn_borders(&node, layer->in, layer->out, &layer->rows, &layer->columns, p->error);
	if (layer->layout.algorithm == CPU_TILES)
		layer->tiling.block = cpu_tile_block(p->device->kernels, &layer->tiling, layer->in.c);
	else if (status == NN_OK)
		status = pack_dnnl(p, layer, &node, NULL);
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
	dnnl_status_t dnnl;
	NnStatus status = NN_OK;

	layers->list = calloc(p->graph->nnodes + 1, sizeof(CpuLayer));
	if (!layers->list)
		return nn_no_memory(p->error, (p->graph->nnodes + 1) * sizeof(CpuLayer));
	dnnl = dnnl_primitive_attr_create(&p->attr);
	if (dnnl == dnnl_success)
		dnnl = dnnl_primitive_attr_set_scratchpad_mode(p->attr, dnnl_scratchpad_mode_user);
	if (dnnl == dnnl_success)
		dnnl = dnnl_stream_create(&p->stream, p->device->engine, dnnl_stream_default_flags);
	if (dnnl != dnnl_success)
		status = cpu_dnnl_fail(p->error, dnnl, "create a stream");
	while (status == NN_OK && layers->n < p->graph->nnodes)
	{
		int id = layers->n++;

		p->from = from ? &from->list[id] : NULL;
		status = from ? resize_layer(p, id) : pack_layer(p, id);
	}
	if (p->stream)
		dnnl_stream_destroy(p->stream);
	if (p->attr)
		dnnl_primitive_attr_destroy(p->attr);
	return status;
}

/* oneDNN fixes threads, so some sums' order, when it makes primitives. */
static NnStatus
make_layers_for_one_thread(Packer *p, const CpuLayers *from)
{
	int threads = omp_get_max_threads();
	NnStatus status;

	omp_set_num_threads(1);
	status = make_layers(p, from);
	omp_set_num_threads(threads);
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
	packer.precision = packed->precision;
	packer.layers = &packed->own;
	if (!base->supports(base, packed->precision))
		status = nn_fail(error, NN_EUNSUPPORTED, "this processor has no bfloat16 arithmetic");
	else
		status = make_layers_for_one_thread(&packer, NULL);
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

NnStatus
cpu_resize_layers(CpuDevice *device, const CpuPacked *packed, const NnGraph *graph,
				  CpuLayers *layers, NnError *error)
{
	Packer packer = { .device = device,
					  .precision = packed->precision,
					  .layers = layers,
					  .graph = graph,
					  .error = error };

	layers->bytes = (size_t) graph->nnodes * sizeof(CpuLayer);
	return make_layers_for_one_thread(&packer, &packed->own);
}

void
cpu_free_layers(CpuLayers *layers, bool borrowed)
{
	for (int i = 0; i < layers->n; i++)
	{
		CpuLayer *layer = &layers->list[i];

		for (int k = 0; k < layer->nunits; k++)
			if (layer->units[k].owner)
				dnnl_memory_destroy(layer->units[k].weights);
		for (int k = 0; k < layer->nprimitives; k++)
			free_primitive(&layer->primitives[k]);
		free(layer->units);
		free(layer->primitives);
		if (borrowed)
			continue;
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
