/*
 * cuda_pack.c
 *	  A network's weights on the GPU.
 *
 * R1 A CudaPacked owns one block, where parts of layers begin at multiples of
 *    CUDA_ALIGN bytes.
 * R2 It is laid out in a first pass and filled in a second, which walk the same
 *    list of parts, so they cannot disagree.
 * R3 May run beside the device's owner: it has a stream of its own.
 */
#include "common/constants.h"
#include "nn/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct CudaPacker
{
	CudaDevice *device;
	const NnGraph *graph;
	const float *values;
	CudaPacked *packed;
	KernelType type;
	bool filling;     /* second pass */
	size_t used;      /* bytes of the block, so far */
	size_t filter;    /* floats of the largest filter */
	float *host;      /* what is uploaded next */
	CudaBlock floats; /* a filter on the GPU, before its type is made */
	NnError *error;
} CudaPacker;

/* ---- Parts --------------------------------------------------------------- */

static const float *
cuda_param_values(const CudaPacker *p, int param)
{
	return p->values + p->graph->params->list[param].offset;
}

/* Room for a part of the block; in the second pass its address, else NULL. */
static void *
place_weights(CudaPacker *p, size_t bytes)
{
	size_t at = p->used;

	p->used = cuda_aligned(bytes) > SIZE_MAX - p->used ? SIZE_MAX : p->used + cuda_aligned(bytes);
	return p->filling ? (char *) p->packed->block.data + at : NULL;
}

/* Copies p->host to the GPU, and waits, as it is to be used again. */
static NnStatus
upload(CudaPacker *p, void *to, size_t bytes)
{
	cudaStream_t stream = p->device->upload;
	cudaError_t result = cudaMemcpyAsync(to, p->host, bytes, cudaMemcpyHostToDevice, stream);

	if (result == cudaSuccess)
		result = cudaStreamSynchronize(stream);
	return cuda_check(p->error, result, "take weights");
}

/* A part of floats, filled from p->host by the caller between the two. */
static NnStatus
upload_floats(CudaPacker *p, size_t count, const float **part)
{
	*part = place_weights(p, count * sizeof(float));
	return p->filling ? upload(p, (void *) *part, count * sizeof(float)) : NN_OK;
}

/* ---- Filters ------------------------------------------------------------- */

/* Puts a checkpoint's weight into the order of the GPU, zeros as padding. */
static void
order_filter(const CudaFilter *f, const float *w, float *out)
{
	int taps = f->kernel * f->kernel, padded = cuda_padded(f->c);

	memset(out, 0, (size_t) f->k * taps * padded * sizeof(float));
	for (int o = 0; o < f->k; o++)
		for (int t = 0; t < taps; t++)
		{
			float *row = out + ((size_t) o * taps + t) * padded;
			int64_t step, base = cuda_filter_row(f, o, t, &step);

			for (int i = 0; base >= 0 && i < f->c; i++)
				row[i] = w[base + i * step];
		}
}

static NnStatus
pack_filter(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	CudaFilter f = cuda_filter(node, layer->in.c, layer->out.c, layer->nz);
	size_t count = nn_mul(nn_mul(f.k, f.kernel * f.kernel), cuda_padded(f.c));
	KernelMap from, to;
	NnStatus status;

	p->filter = count > p->filter ? count : p->filter;
	layer->filter = place_weights(p, nn_mul(count, kernel_type_size(p->type)));
	if (!p->filling)
		return NN_OK;
	order_filter(&f, cuda_param_values(p, node->weight), p->host);
	status = upload(p, p->floats.data, count * sizeof(float));
	if (status != NN_OK)
		return status;
	from = kernel_map(p->floats.data, KERNEL_F32, KERNEL_VECTOR);
	to = kernel_map(layer->filter, p->type, KERNEL_VECTOR);
	status = cuda_check(p->error,
						(cudaError_t) kernel_convert(p->device->upload, &from, &to,
													 count / KERNEL_VECTOR, KERNEL_VECTOR,
													 KERNEL_VECTOR),
						"convert weights");
	/* the next filter's use of the buffer follows on the same stream */
	return status == NN_OK
			   ? cuda_check(p->error, cudaStreamSynchronize(p->device->upload), "convert weights")
			   : status;
}

/* ---- What comes after a convolution -------------------------------------- */

/* Scale and shift that follow an instance norm. */
static NnStatus
pack_gamma_beta(CudaPacker *p, CudaLayer *layer, const NnNode *end)
{
	size_t bytes = layer->out.c * sizeof(float);
	NnStatus status;

	if (p->filling)
		memcpy(p->host, cuda_param_values(p, end->weight), bytes);
	status = upload_floats(p, layer->out.c, &layer->scale);
	if (status == NN_OK && p->filling)
		memcpy(p->host, cuda_param_values(p, end->bias), bytes);
	return status == NN_OK ? upload_floats(p, layer->out.c, &layer->shift) : status;
}

/*
 * Scale and shift for the end of a step: y = (x + bias - mean) * gamma /
 * sqrt(var + eps) + beta with batch norm, y = x + bias without a norm. Before
 * an instance norm a bias cancels and is left out; gamma and beta may follow
 * it. node is NULL for a norm by itself; end may be the same node.
 */
static NnStatus
pack_affine(CudaPacker *p, CudaLayer *layer, const NnNode *node, const NnNode *end)
{
	const float *bias = node && node->bias >= 0 ? cuda_param_values(p, node->bias) : NULL;
	bool batch = nn_norm_of(end) == NN_NORM_BATCH;
	int c = layer->out.c;
	NnStatus status;

	if (nn_norm_of(end) == NN_NORM_INSTANCE)
		return end->weight >= 0 ? pack_gamma_beta(p, layer, end) : NN_OK;
	if (!batch && !bias)
		return NN_OK;
	for (int i = 0; p->filling && batch && i < c; i++)
		p->host[i] = (float) (cuda_param_values(p, end->weight)[i] /
							  sqrt((double) cuda_param_values(p, end->norm.var)[i] + NORM_EPSILON));
	if (batch && (status = upload_floats(p, c, &layer->scale)) != NN_OK)
		return status;
	for (int i = 0; p->filling && i < c; i++)
	{
		double shift = bias ? bias[i] : 0;

		if (batch)
			shift = (shift - cuda_param_values(p, end->norm.mean)[i]) *
						cuda_param_values(p, end->weight)[i] /
						sqrt((double) cuda_param_values(p, end->norm.var)[i] + NORM_EPSILON) +
					cuda_param_values(p, end->bias)[i];
		p->host[i] = (float) shift;
	}
	return upload_floats(p, c, &layer->shift);
}

static NnStatus
cuda_pack_latent(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	NnBorder rows, columns;
	NnStatus status = nn_borders(node, layer->in, layer->out, &rows, &columns, p->error);

	if (status != NN_OK)
		return status;
	if (p->filling)
		nn_border_sums(&rows, &columns, cuda_param_values(p, node->weight), layer->in.c, layer->nz,
					   layer->out.c, node->conv.kernel, p->host);
	return upload_floats(p, (size_t) rows.n * columns.n * layer->nz * layer->out.c,
						 &layer->z_weights);
}

/* ---- Layers -------------------------------------------------------------- */

static NnStatus
cuda_pack_linear(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	size_t count = (size_t) layer->out.c * layer->in.c;
	NnStatus status;

	if (p->filling)
		memcpy(p->host, cuda_param_values(p, node->weight), count * sizeof(float));
	status = upload_floats(p, count, &layer->linear);
	return status == NN_OK ? pack_affine(p, layer, node, node) : status;
}

static NnStatus
cuda_pack_distance(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	if (p->filling)
		memcpy(p->host, cuda_param_values(p, node->weight), layer->in.c * sizeof(float));
	return upload_floats(p, layer->in.c, &layer->linear);
}

static NnStatus
cuda_pack_conv(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	const NnNode *end = &p->graph->nodes[cuda_step_end(p->graph, (int) (node - p->graph->nodes))];
	NnStatus status = pack_filter(p, layer, node);

	if (status == NN_OK && layer->nz > 0)
		status = cuda_pack_latent(p, layer, node);
	return status == NN_OK ? pack_affine(p, layer, node, end) : status;
}

static NnStatus
cuda_pack_norm(CudaPacker *p, CudaLayer *layer, const NnNode *node)
{
	return pack_affine(p, layer, NULL, node);
}

/* Of operators that have something to pack. */
static NnStatus (*const packs[NN_OPS])(CudaPacker *p, CudaLayer *layer, const NnNode *node) = {
	[NN_OP_CONV] = cuda_pack_conv,         [NN_OP_CONVT] = cuda_pack_conv,
	[NN_OP_NORM_ACT] = cuda_pack_norm,     [NN_OP_LINEAR] = cuda_pack_linear,
	[NN_OP_DISTANCE] = cuda_pack_distance,
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
	layer->nz = node->op == NN_OP_CONV && node->in[1] >= 0 ? g->values[node->in[1]].shape.c : 0;
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

/* The block, and memory for what passes through. */
static NnStatus
take_memory(CudaPacker *p)
{
	/* parts of floats lie in the block too: none of them is larger than it */
	size_t floats = p->used / sizeof(float) > p->filter ? p->used / sizeof(float) : p->filter;
	NnStatus status = cuda_take(p->device, p->used, &p->packed->block, p->error);

	if (status == NN_OK)
		status = cuda_take(p->device, nn_mul(p->filter, sizeof(float)), &p->floats, p->error);
	if (status != NN_OK)
		return status;
	p->host = malloc(nn_mul(floats + 1, sizeof(float)));
	return p->host ? NN_OK : nn_no_memory(p->error, nn_mul(floats, sizeof(float)));
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
	status = cuda_use(p.device, error);
	made->precision = precision;
	if (status == NN_OK)
		status = lay_out_parts(&p, made);
	if (status == NN_OK)
		status = take_memory(&p);
	if (status == NN_OK)
		status = cuda_pack_layers(&p, true);
	/* after an error something may still run on what is given back */
	if (status != NN_OK)
		(void) cudaStreamSynchronize(p.device->upload);
	cuda_give(p.device, &p.floats);
	free(p.host);
	if (status != NN_OK)
	{
		cuda_pack_free(base, made);
		return status;
	}
	*packed = made;
	*bytes = made->block.bytes;
	return NN_OK;
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
