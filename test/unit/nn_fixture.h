/*
 * nn_fixture.h
 *	  What the tests of networks share: reproducible weights and images, and
 *	  running one network on one device.
 *
 * Numbers come from a linear congruential generator, so that the same weights
 * can be made next to the official code (test/gen/networks.py) and nothing
 * large is stored. The reference device computes in double but is bound to
 * floats by its interface; its golden numbers hold to 1e-9, so for it the
 * fixture hands over weights and inputs in double by writing to its arena
 * (ref.c says what is there).
 */
#ifndef BICYCLE_NN_FIXTURE_H
#define BICYCLE_NN_FIXTURE_H

#include "nn/device.h"
#include "nn/nets.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

#define MAX_RESULTS NN_MAX_SCALES

/*
 * count values in [-1, 1) times scale, from the generator seeded with `seed`.
 */
__attribute__((unused)) static void
lcg_fill(uint32_t seed, double scale, size_t count, double *out)
{
	for (size_t i = 0; i < count; i++)
	{
		seed = 1664525u * seed + 1013904223u;
		out[i] = (2.0 * seed / 4294967296.0 - 1) * scale;
	}
}

/* The same as (n, c, h, w) put into NHWC. */
__attribute__((unused)) static double *
lcg_images(uint32_t seed, double scale, NnShape s)
{
	size_t count = (size_t) s.n * s.h * s.w * s.c;
	double *nchw = malloc(count * sizeof(double)), *nhwc = malloc(count * sizeof(double));
	double *at = nchw;

	lcg_fill(seed, scale, count, nchw);
	for (int n = 0; n < s.n; n++)
		for (int c = 0; c < s.c; c++)
			for (int p = 0; p < s.h * s.w; p++)
				nhwc[((size_t) n * s.h * s.w + p) * s.c + c] = *at++;
	free(nchw);
	return nhwc;
}

/*
 * Weights of the parameters of a table: the k-th that is no buffer is lcg(base
 * + k) / sqrt(fan), fan = count / shape[0], or 0.1 lcg(base + k) if it has one
 * dimension. Running means are 0.1 lcg(base + 500 + j), variances 1 + 0.5
 * lcg(base + 500 + j), j counting these two kinds.
 */
__attribute__((unused)) static double *
lcg_weights(const NnParams *params, uint32_t base)
{
	double *values = calloc(params->total + 1, sizeof(double));
	uint32_t k = 0, j = 500;

	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];
		double *out = values + p->offset;

		if (p->integer)
			continue;
		if (!p->buffer)
			lcg_fill(base + k++, p->ndim > 1 ? 1 / sqrt((double) p->count / p->shape[0]) : 0.1,
					 p->count, out);
		else if (strstr(p->name, "running_mean"))
			lcg_fill(base + j++, 0.1, p->count, out);
		else
		{
			lcg_fill(base + j++, 0.5, p->count, out);
			for (size_t e = 0; e < p->count; e++)
				out[e] += 1;
		}
	}
	return values;
}

/* values may be NULL: zeros. */
__attribute__((unused)) static float *
floats_of(const double *values, size_t count)
{
	float *floats = calloc(count + 1, sizeof(float));

	for (size_t i = 0; values && i < count; i++)
		floats[i] = (float) values[i];
	return floats;
}

/*
 * The parameters of a table as tensors of type F32 (integers as I64, all 0).
 * Free with tensors_free.
 */
__attribute__((unused)) static NnTensor *
tensors_of(const NnParams *params, const double *weights)
{
	NnTensor *tensors = calloc(params->n + 1, sizeof(NnTensor));

	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];

		tensors[i] = (NnTensor){ .name = p->name,
								 .network = p->network,
								 .dtype = p->integer ? NN_I64 : NN_F32,
								 .ndim = p->ndim };
		memcpy(tensors[i].shape, p->shape, sizeof(p->shape));
		tensors[i].nbytes = p->count * nn_dtype_size(tensors[i].dtype);
		tensors[i].data =
			p->integer ? calloc(1, 8) : (void *) floats_of(weights + p->offset, p->count);
	}
	return tensors;
}

__attribute__((unused)) static void
tensors_free(NnTensor *tensors, int n)
{
	for (int i = 0; i < n; i++)
		free((void *) tensors[i].data);
	free(tensors);
}

/* A network on a device, with weights. */
typedef struct Subject
{
	NnDevice *device;
	bool in_double; /* the reference device */
	NnConfig config;
	NnNetwork network;
	NnParams params;
	double *weights;
	void *packed;
	NnGraph graph;
	NnPlan plan;
	int image, z;
	int out[MAX_RESULTS];
	int nout;
	double *result[MAX_RESULTS]; /* of the last run, NHWC */
} Subject;

/*
 * false, with a diagnosis, if any step fails; free with subject_free in either
 * case.
 */
__attribute__((unused)) static bool
subject_init(Subject *s, NnDevice *device, const NnConfig *config, NnNetwork network, uint32_t base,
			 NnShape image)
{
	NnError error = { 0 };
	NnStatus status;

	memset(s, 0, sizeof(*s));
	s->device = device;
	s->in_double = strcmp(device->name, "ref") == 0;
	s->config = *config;
	s->network = network;
	status = nn_params_of(config, 1u << network, &s->params, &error);
	if (status != NN_OK)
	{
		diag("%s: %s", error.message, error.detail);
		return false;
	}
	s->weights = lcg_weights(&s->params, base);
	nn_graph_init(&s->graph, &s->params);
	s->image = nn_input(&s->graph, image, "image");
	s->z = -1;
	s->nout = 1;
	switch (network)
	{
		case NN_NET_G:
			if (config->nz > 0)
				s->z = nn_input(&s->graph, (NnShape){ image.n, 1, 1, config->nz }, "z");
			s->out[0] = nn_net_G(&s->graph, config, s->image, s->z, 0);
			break;
		case NN_NET_E:
			nn_net_E(&s->graph, config, s->image, &s->out[0], &s->out[1]);
			s->nout = 2;
			break;
		default:
			nn_net_D(&s->graph, config, network, s->image, s->out);
			s->nout = config->num_ds;
			break;
	}
	s->plan = (NnPlan){ .graph = &s->graph, .device = device, .precision = NN_PRECISION_FP32 };
	status = nn_plan_memory(&s->plan, &error);
	if (status == NN_OK && !s->in_double)
	{
		float *floats = malloc(s->params.total * sizeof(float) + 1);
		size_t bytes;

		for (size_t i = 0; i < s->params.total; i++)
			floats[i] = (float) s->weights[i];
		status =
			device->pack(device, NN_PRECISION_FP32, &s->graph, floats, &s->packed, &bytes, &error);
		free(floats);
	}
	if (status == NN_OK)
		status = device->prepare(device, &s->plan, s->in_double ? s->weights : s->packed, &error);
	if (status != NN_OK)
		diag("%s: %s", error.message, error.detail);
	for (int i = 0; status == NN_OK && i < s->nout; i++)
	{
		NnShape shape = s->graph.values[s->out[i]].shape;

		s->result[i] = malloc((size_t) shape.n * shape.h * shape.w * shape.c * sizeof(double));
	}
	return status == NN_OK;
}

static size_t
value_count(const Subject *s, int value)
{
	NnShape shape = s->graph.values[value].shape;

	return (size_t) shape.n * shape.h * shape.w * shape.c;
}

static NnStatus
subject_run_double(Subject *s, const double *image, const double *z, NnError *error)
{
	double *arena = s->plan.arena;
	NnStatus status;

	memcpy(arena + s->plan.offset[s->image], image, value_count(s, s->image) * sizeof(double));
	if (s->z >= 0)
		memcpy(arena + s->plan.offset[s->z], z, value_count(s, s->z) * sizeof(double));
	status = s->device->run(s->device, &s->plan, s->weights, NULL, 0, error);
	for (int i = 0; i < s->nout; i++)
		memcpy(s->result[i], arena + s->plan.offset[s->out[i]],
			   value_count(s, s->out[i]) * sizeof(double));
	return status;
}

static NnStatus
subject_run_float(Subject *s, const double *image, const double *z, NnError *error)
{
	NnBinding bindings[2 + MAX_RESULTS];
	int n = 0;
	NnStatus status;

	bindings[n++] = (NnBinding){ s->image, floats_of(image, value_count(s, s->image)) };
	if (s->z >= 0)
		bindings[n++] = (NnBinding){ s->z, floats_of(z, value_count(s, s->z)) };
	for (int i = 0; i < s->nout; i++)
		bindings[n++] = (NnBinding){ s->out[i], floats_of(NULL, value_count(s, s->out[i])) };
	status = s->device->run(s->device, &s->plan, s->packed, bindings, n, error);
	for (int i = 0; i < s->nout; i++)
		for (size_t k = 0; k < value_count(s, s->out[i]); k++)
			s->result[i][k] = bindings[n - s->nout + i].data[k];
	for (int i = 0; i < n; i++)
		free(bindings[i].data);
	return status;
}

/* image (N, H, W, C), z (N, nz) or NULL; the outputs are in s->result. */
__attribute__((unused)) static bool
subject_run(Subject *s, const double *image, const double *z)
{
	NnError error = { 0 };
	NnStatus status = s->in_double ? subject_run_double(s, image, z, &error)
								   : subject_run_float(s, image, z, &error);

	if (status != NN_OK)
		diag("%s: %s", error.message, error.detail);
	return status == NN_OK;
}

__attribute__((unused)) static double
result_at(const Subject *s, int output, int n, int c, int y, int x)
{
	NnShape shape = s->graph.values[s->out[output]].shape;

	return s->result[output][(((size_t) n * shape.h + y) * shape.w + x) * shape.c + c];
}

__attribute__((unused)) static void
subject_free(Subject *s)
{
	s->device->release(s->device, &s->plan);
	nn_plan_free(&s->plan);
	nn_graph_free(&s->graph);
	if (s->packed)
		s->device->pack_free(s->device, s->packed);
	nn_params_free(&s->params);
	free(s->weights);
	for (int i = 0; i < s->nout; i++)
		free(s->result[i]);
}

#endif /* BICYCLE_NN_FIXTURE_H */
