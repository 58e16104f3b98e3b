/*
 * cuda_pack.c
 *	  What inference on the GPU reads of a network's weights, made there of its
 *	  parameters: of a model's, which come from the host, or of a training's,
 *	  which are on the card already.
 *
 * R1 A CudaPacked owns one block, where parts of layers begin at multiples of
 *    CUDA_ALIGN bytes.
 * R2 It is laid out in a first pass and filled in a second, which walk the same
 *    list of parts, so they cannot disagree. It may be filled again.
 * R3 A model's may be packed beside the device's owner: that has a stream of
 *    its own. Parameters pass through memory of the card, a few at a time, in
 *    the order of the stream.
 */
#include "common/constants.h"
#include "common/invariant.h"
#include "nn/cuda/cuda_train.h"

#include <stdlib.h>
#include <string.h>

/* Parameters of one part at a time, and where each passes through. */
typedef enum CudaPlace
{
	PLACE_WEIGHT,
	PLACE_BIAS,
	PLACE_GAMMA,
	PLACE_BETA,
	PLACE_MEAN,
	PLACE_VAR,
	PLACES
} CudaPlace;

typedef struct CudaPacker
{
	CudaDevice *device;
	cudaStream_t stream;
	const NnGraph *graph;
	CudaPacked *packed;
	KernelType type;
	bool filling; /* second pass */
	size_t used;  /* bytes of the block, so far */
	/* where parameters are: */
	const float *values;        /* the graph's, on the host; */
	const NnTraining *training; /* or an array of a training */
	NnArray array;
	size_t most[PLACES]; /* of the host's: numbers of the largest */
	CudaBlock passing;   /* room for them */
	float *places[PLACES];
	int held[PLACES]; /* the parameter there, from 1; 0: none */
	NnError *error;
} CudaPacker;

/* ---- Parts --------------------------------------------------------------- */

/* Of a training: its parameter of the same name. */
static const float *
training_param(const CudaPacker *p, const NnParam *param)
{
	const NnParam *of = p->training->params->list, *end = of + p->training->params->n;

	while (of < end && (of->network != param->network || strcmp(of->name, param->name) != 0))
		of++;
	INVARIANT(of < end && of->count == param->count);
	return p->training->array[p->array].f32 + of->offset;
}

/*
 * A parameter on the card, *from; NULL in the first pass, or if there is none.
 */
static NnStatus
take_param(CudaPacker *p, int index, CudaPlace place, const float **from)
{
	const NnParam *param = index >= 0 ? &p->graph->params->list[index] : NULL;

	*from = NULL;
	if (!param)
		return NN_OK;
	if (!p->filling)
	{
		nn_most(&p->most[place], param->count);
		return NN_OK;
	}
	*from = p->training ? training_param(p, param) : p->places[place];
	if (p->training || p->held[place] == index + 1)
		return NN_OK;
	p->held[place] = index + 1;
	return cuda_check(p->error,
					  cudaMemcpyAsync(p->places[place], p->values + param->offset,
									  param->count * sizeof(float), cudaMemcpyHostToDevice,
									  p->stream),
					  "take weights");
}

/* Room for a part of the block; in the second pass its address, else NULL. */
static void *
place_weights(CudaPacker *p, size_t bytes)
{
	size_t at = p->used;

	p->used = nn_sum(p->used, cuda_aligned(bytes));
	return p->filling ? (char *) p->packed->block.data + at : NULL;
}

static float *
place_floats(CudaPacker *p, size_t count)
{
	return place_weights(p, nn_mul(count, sizeof(float)));
}

static NnStatus
packed_by(const CudaPacker *p, int result)
{
	return cuda_check(p->error, (cudaError_t) result, "pack weights");
}

/* ---- Filters and what comes after them ----------------------------------- */

static NnStatus
cuda_pack_filter(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	KernelRows rows = cuda_filter(node, layer->in.c, layer->out.c, layer->nz);
	size_t count = nn_mul(nn_mul(rows.k, rows.kernel * rows.kernel), cuda_padded(rows.c));
	const float *param;
	NnStatus status = take_param(p, node->weight, PLACE_WEIGHT, &param);

	layer->filter = place_weights(p, nn_mul(count, kernel_type_size(p->type)));
	return status == NN_OK && p->filling
			   ? packed_by(p, kernel_pack_filter(p->stream, &rows, param, layer->filter, p->type))
			   : status;
}

/*
 * Scale and shift for the end of a step: y = (x + bias - mean) * gamma /
 * sqrt(var + eps) + beta with batch norm, y = x + bias without a norm. Before
 * an instance norm a bias cancels and is left out; gamma and beta may follow
 * it. node is NULL for a norm by itself; end may be the same node.
 */
static NnStatus
cuda_pack_affine(CudaPacker *p, CudaLayer *layer, const NnNode *node, const NnNode *end)
{
	NnNorm norm = nn_norm_of(end);
	bool batch = norm == NN_NORM_BATCH, normed = batch || norm == NN_NORM_INSTANCE;
	int bias = node && norm != NN_NORM_INSTANCE ? node->bias : -1;
	int gamma = normed ? end->weight : -1;
	KernelAffine affine = { .c = layer->out.c };
	const struct
	{
		int param;
		CudaPlace place;
		const float **from;
	} wanted[] = { { bias, PLACE_BIAS, &affine.bias },
				   { gamma, PLACE_GAMMA, &affine.gamma },
				   { gamma >= 0 ? end->bias : -1, PLACE_BETA, &affine.beta },
				   { batch ? end->norm.mean : -1, PLACE_MEAN, &affine.mean },
				   { batch ? end->norm.var : -1, PLACE_VAR, &affine.var } };
	NnStatus status = NN_OK;

	if (bias < 0 && gamma < 0)
		return NN_OK;
	for (size_t i = 0; status == NN_OK && i < sizeof(wanted) / sizeof(wanted[0]); i++)
		status = take_param(p, wanted[i].param, wanted[i].place, wanted[i].from);
	if (gamma >= 0)
		layer->scale = affine.scale = place_floats(p, layer->out.c);
	layer->shift = affine.shift = place_floats(p, layer->out.c);
	return status == NN_OK && p->filling ? packed_by(p, kernel_pack_affine(p->stream, &affine))
										 : status;
}

static NnStatus
cuda_pack_latent(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	KernelLatent latent;
	const float *param;
	NnStatus status = cuda_latent(node, layer->in, layer->out, layer->nz, &latent, p->error);

	if (status != NN_OK)
		return status;
	layer->z_weights = latent.sums =
		place_floats(p, (size_t) latent.rows.axis.n * latent.columns.axis.n * latent.nz * latent.c);
	status = take_param(p, node->weight, PLACE_WEIGHT, &param);
	if (status != NN_OK || !p->filling)
		return status;
	latent.weights = param + cuda_latent_first(node, layer->in);
	return packed_by(p, kernel_latent_sums(p->stream, &latent));
}

/* ---- Layers -------------------------------------------------------------- */

/* A parameter as it is. */
static NnStatus
cuda_pack_numbers(CudaPacker *p, int index, size_t count, const float **part)
{
	float *to = place_floats(p, count);
	const float *param;
	NnStatus status = take_param(p, index, PLACE_WEIGHT, &param);

	*part = to;
	return status == NN_OK && p->filling
			   ? cuda_check(p->error,
							cudaMemcpyAsync(to, param, count * sizeof(float),
											cudaMemcpyDeviceToDevice, p->stream),
							"pack weights")
			   : status;
}

static NnStatus
cuda_pack_linear(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	NnStatus status =
		cuda_pack_numbers(p, node->weight, (size_t) layer->out.c * layer->in.c, &layer->linear);

	return status == NN_OK ? cuda_pack_affine(p, layer, node, node) : status;
}

static NnStatus
cuda_pack_embed(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	return cuda_pack_numbers(p, node->weight, layer->in.c, &layer->linear);
}

static NnStatus
cuda_pack_conv(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	const NnNode *end = &p->graph->nodes[cuda_step_end(p->graph, (int) (node - p->graph->nodes))];
	NnStatus status = cuda_pack_filter(p, layer, node);

	if (status == NN_OK && layer->nz > 0)
		status = cuda_pack_latent(p, layer, node);
	return status == NN_OK ? cuda_pack_affine(p, layer, node, end) : status;
}

static NnStatus
cuda_pack_norm(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	return cuda_pack_affine(p, layer, NULL, node);
}

/* Of operators that have something to pack. */
static NnStatus (*const packs[NN_OPS])(CudaPacker *p, CudaLayer *layer, const NnNode *node) = {
	[NN_OP_CONV] = cuda_pack_conv,     [NN_OP_CONVT] = cuda_pack_conv,
	[NN_OP_NORM_ACT] = cuda_pack_norm, [NN_OP_LINEAR] = cuda_pack_linear,
	[NN_OP_EMBED] = cuda_pack_embed,
};

static NnStatus
cuda_pack_layer(CudaPacker *p, int id)
{
	const NnGraph *g = p->graph;
	const NnNode *node = &g->nodes[id];
	CudaLayer *layer = &p->packed->layers[id];

	layer->op = node->op;
	if (node->in[0] >= 0)
		layer->in = g->values[node->in[0]].shape;
	layer->out = g->values[node->out[0]].shape;
	layer->in.n = layer->out.n = 1;
	layer->nz = cuda_latent_codes(g, node);
	return packs[node->op] ? packs[node->op](p, layer, node) : NN_OK;
}

static NnStatus
cuda_pack_layers(CudaPacker *p, bool filling)
{
	NnStatus status = NN_OK;

	p->filling = filling;
	p->used = 0;
	for (int i = 0; status == NN_OK && i < p->graph->nnodes; i++)
		status = cuda_pack_layer(p, i);
	return status;
}

/* A packer laid out; the caller frees its layers with `made`. */
static NnStatus
lay_out_parts(CudaPacker *p, CudaPacked *made)
{
	p->packed = made;
	made->nlayers = p->graph->nnodes;
	made->layers = calloc(p->graph->nnodes + 1, sizeof(CudaLayer));
	if (!made->layers)
		return nn_no_memory(p->error, p->graph->nnodes * sizeof(CudaLayer));
	return cuda_pack_layers(p, false);
}

size_t
cuda_pack_bytes(NnDevice *base, NnPrecision precision, const NnGraph *graph)
{
	CudaPacked made = { .precision = precision };
	CudaPacker p = { .device = base->state, .graph = graph, .type = cuda_type(precision) };
	size_t bytes = lay_out_parts(&p, &made) == NN_OK ? p.used : 0;

	free(made.layers);
	return bytes;
}

/* Memory of the card that the host's parameters pass through. */
static NnStatus
take_places(CudaPacker *p)
{
	size_t bytes = 0;
	NnStatus status;
	char *at;

	for (int i = 0; i < PLACES; i++)
		bytes = nn_sum(bytes, cuda_aligned(nn_mul(p->most[i], sizeof(float))));
	status = cuda_take(p->device, bytes, &p->passing, p->error);
	at = p->passing.data;
	for (int i = 0; status == NN_OK && i < PLACES; i++)
	{
		p->places[i] = (float *) at;
		at += cuda_aligned(p->most[i] * sizeof(float));
	}
	return status;
}

/* Fills what is laid out, and waits. */
static NnStatus
fill_packed(CudaPacker *p)
{
	NnStatus status = cuda_pack_layers(p, true);
	/* in any case: what is queued reads memory that may end */
	cudaError_t ended = cudaStreamSynchronize(p->stream);

	return status == NN_OK ? cuda_check(p->error, ended, "pack weights") : status;
}

NnStatus
cuda_pack(NnDevice *base, NnPrecision precision, const NnGraph *graph, const float *values,
		  void **packed, size_t *bytes, NnError *error)
{
	CudaPacked *made = calloc(1, sizeof(CudaPacked));
	CudaPacker p = { .device = base->state,
					 .graph = graph,
					 .values = values,
					 .type = cuda_type(precision),
					 .error = error };
	NnStatus status;

	if (!made)
		return nn_no_memory(error, sizeof(CudaPacked));
	p.stream = p.device->upload;
	status = cuda_use(p.device, error);
	made->precision = precision;
	if (status == NN_OK)
		status = lay_out_parts(&p, made);
	if (status == NN_OK)
		status = cuda_take(p.device, p.used, &made->block, error);
	if (status == NN_OK)
		status = take_places(&p);
	if (status == NN_OK)
		status = fill_packed(&p);
	cuda_give(p.device, &p.passing);
	if (status != NN_OK)
	{
		cuda_pack_free(base, made);
		return status;
	}
	*packed = made;
	*bytes = made->block.bytes;
	return NN_OK;
}

NnStatus
cuda_repack(NnDevice *base, const NnTraining *training, NnArray array, const NnGraph *graph,
			void *packed, NnError *error)
{
	CudaPacked *made = packed;
	CudaPacker p = { .device = base->state,
					 .graph = graph,
					 .packed = made,
					 .training = training,
					 .array = array,
					 .type = cuda_type(made->precision),
					 .error = error };
	NnStatus status = cuda_use(p.device, error);

	/* behind the update, and what runs with these weights */
	p.stream = p.device->compute;
	INVARIANT(made->nlayers == graph->nnodes);
	return status == NN_OK ? fill_packed(&p) : status;
}

void
cuda_pack_free(NnDevice *base, void *packed_)
{
	CudaPacked *packed = packed_;
	NnError ignored;

	if (!packed)
		return;
	/* perhaps this thread's first on a GPU, which is to be this one */
	(void) cuda_use(base->state, &ignored);
	cuda_give(base->state, &packed->block);
	free(packed->layers);
	free(packed);
}
