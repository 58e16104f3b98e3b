/*
 * conv_on_cpu.c
 *	  Convolutions of src/nn/cuda/conv.h for tests, in place of cuDNN: a naive
 *	  kernel on the imitated GPU.
 *
 * Reads and writes what cuDNN would: dense maps and (K, R, S, C) filters of the
 * activations' type, sums in float. What conv.h demands of maps is checked. The
 * workspace is written to, so that a buffer that it overlaps shows.
 */
#include "nn/cuda/conv.h"

#include "common.cuh"
#include "cuda_runtime_api.h"
#include "nn/nn_error.h"

#include <stdlib.h>

struct CudaConvs
{
	void *stream;
};

struct CudaConv
{
	CudaConvShape shape;
	bool proved;
};

/* Engines of every convolution, of three, that are there and do not run. */
static int
failing_engines(void)
{
	const char *failing = getenv("BICYCLE_TEST_CONVS_FAIL");

	return failing ? atoi(failing) : 0;
}

typedef struct Convolve
{
	CudaConvShape s;
	KernelMap x, filter, y;
	uint8_t *workspace;
	size_t workspace_bytes;
} Convolve;

#define EACH for (int i = 0; i < KERNEL_VECTOR; i++)

/* Eight numbers that lie together. */
static void
load_eight(const KernelMap *m, size_t at, float v[KERNEL_VECTOR])
{
	if (m->type == KERNEL_F32)
		memcpy(v, (const float *) m->data + at, KERNEL_VECTOR * sizeof(float));
	else
		EACH v[i] = load_element(m, at + i);
}

/* Adds what pixel (n, y, x) of x gives through one tap to channels k ... */
static void
add_tap(const Convolve *a, int k, int tap, int n, int y, int x, float sums[KERNEL_VECTOR])
{
	const CudaConvShape *s = &a->s;
	size_t at = (((size_t) n * s->h + y) * s->w + x) * s->c;
	int taps = s->kernel * s->kernel;
	float in[KERNEL_VECTOR], w[KERNEL_VECTOR];

	for (int c = 0; c < s->c; c += KERNEL_VECTOR)
	{
		load_eight(&a->x, at + c, in);
		for (int j = 0; j < KERNEL_VECTOR; j++)
			if (s->kind == CUDA_CONV_DATA)
			{
				load_eight(&a->filter, ((size_t) (c + j) * taps + tap) * s->k + k, w);
				EACH sums[i] += in[j] * w[i];
			}
			else
			{
				load_eight(&a->filter, ((size_t) (k + j) * taps + tap) * s->c + c, w);
				EACH sums[j] += in[i] * w[i];
			}
	}
}

/* The pixel of x that a tap of (oy, ox) sees; false if none. */
static bool
under_tap(const CudaConvShape *s, int tap, int oy, int ox, int *y, int *x)
{
	bool data = s->kind == CUDA_CONV_DATA;
	int ky = tap / s->kernel, kx = tap % s->kernel;

	*y = data ? oy + s->pad - ky : oy * s->stride - s->pad + ky;
	*x = data ? ox + s->pad - kx : ox * s->stride - s->pad + kx;
	if (data && (*y % s->stride != 0 || *x % s->stride != 0))
		return false;
	*y /= data ? s->stride : 1;
	*x /= data ? s->stride : 1;
	return *y >= 0 && *y < s->h && *x >= 0 && *x < s->w;
}

static void
spoil_workspace(const Convolve *a, size_t t)
{
	if (t < a->workspace_bytes)
		a->workspace[t] = 0xff;
}

/* One thread eight channels of a pixel of the result. */
KERNEL(convolve, Convolve)
{
	const CudaConvShape *s = &a.s;
	size_t t = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
	int chunks = s->k / KERNEL_VECTOR, k = t % chunks * KERNEL_VECTOR, ox = t / chunks % s->ow,
		oy = t / chunks / s->ow % s->oh, n = t / chunks / s->ow / s->oh, y, x;
	float sums[KERNEL_VECTOR] = { 0 };

	spoil_workspace(&a, t);
	if (n >= s->n)
		return;
	for (int tap = 0; tap < s->kernel * s->kernel; tap++)
		if (under_tap(s, tap, oy, ox, &y, &x))
			add_tap(&a, k, tap, n, y, x, sums);
	EACH store_element(&a.y, t * KERNEL_VECTOR + i, sums[i]);
}

/* One thread eight by eight channels of a tap of the filter's gradient. */
KERNEL(convolve_filter, Convolve)
{
	const CudaConvShape *s = &a.s;
	size_t t = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
	int chunks = s->c / KERNEL_VECTOR, c = t % chunks * KERNEL_VECTOR, taps = s->kernel * s->kernel,
		tap = t / chunks % taps, k = t / chunks / taps * KERNEL_VECTOR;
	float sums[KERNEL_VECTOR][KERNEL_VECTOR] = { { 0 } }, in[KERNEL_VECTOR], dy[KERNEL_VECTOR];

	spoil_workspace(&a, t);
	if (k >= s->k)
		return;
	for (int p = 0; p < s->n * s->oh * s->ow; p++)
	{
		int n = p / s->ow / s->oh, y, x;

		if (!under_tap(s, tap, p / s->ow % s->oh, p % s->ow, &y, &x))
			continue;
		load_eight(&a.x, (((size_t) n * s->h + y) * s->w + x) * s->c + c, in);
		load_eight(&a.y, (size_t) p * s->k + k, dy);
		for (int j = 0; j < KERNEL_VECTOR; j++)
			EACH sums[j][i] += dy[j] * in[i];
	}
	for (int j = 0; j < KERNEL_VECTOR; j++)
		EACH store_element(&a.filter, ((size_t) (k + j) * taps + tap) * s->c + c + i, sums[j][i]);
}

NnStatus
cuda_convs_open(void *stream, CudaConvs **convs, NnError *error)
{
	if (getenv("BICYCLE_TEST_NO_CONVS"))
		return nn_fail(error, NN_EUNSUPPORTED, "no convolutions");
	*convs = calloc(1, sizeof(CudaConvs));
	if (!*convs)
		return nn_no_memory(error, sizeof(CudaConvs));
	(*convs)->stream = stream;
	return NN_OK;
}

void
cuda_convs_close(CudaConvs *convs)
{
	free(convs);
}

const char *
cuda_convs_name(const CudaConvs *convs)
{
	return "naive convolutions";
}

char *
cuda_convs_description(CudaConvs *convs)
{
	return strdup("{}");
}

NnStatus
cuda_conv_open(CudaConvs *convs, const CudaConvShape *shape, CudaConv **conv, NnError *error)
{
	if (shape->c % KERNEL_VECTOR != 0 || shape->k % KERNEL_VECTOR != 0)
		return nn_fail(error, NN_EINVAL, "%d or %d channels", shape->c, shape->k);
	*conv = malloc(sizeof(CudaConv));
	if (!*conv)
		return nn_no_memory(error, sizeof(CudaConv));
	(*conv)->shape = *shape;
	(*conv)->proved = false;
	return NN_OK;
}

size_t
cuda_conv_workspace(const CudaConv *conv)
{
	return 100 + conv->shape.c;
}

NnStatus
cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x, void *filter, void *y,
			  void *workspace, NnError *error)
{
	const CudaConvShape *s = &conv->shape;
	bool filters = s->kind == CUDA_CONV_FILTER;
	size_t made = filters ? (size_t) s->k * s->kernel * s->kernel * s->c / KERNEL_VECTOR
						  : (size_t) s->n * s->oh * s->ow * s->k,
		   blocks = (made / KERNEL_VECTOR + KERNEL_THREADS - 1) / KERNEL_THREADS;
	Convolve a = {
		.s = *s,
		.x = kernel_map((void *) x, s->type, s->c),
		.filter = kernel_map(filter, s->type, s->kind == CUDA_CONV_DATA ? s->k : s->c),
		.y = kernel_map(y, s->type, s->k),
		.workspace = workspace,
		.workspace_bytes = cuda_conv_workspace(conv),
	};
	int result;

	if (failing_engines() > 0 && !conv->proved)
		return nn_fail(error, NN_EDEVICE, "an engine does not run");
	if (!a.x.vector || !a.filter.vector || !a.y.vector)
		return nn_fail(error, NN_EINVAL, "a map is not aligned");
	result = filters
				 ? KERNEL_LAUNCH(convolve_filter, blocks, 1, 1, KERNEL_THREADS, convs->stream, a)
				 : KERNEL_LAUNCH(convolve, blocks, 1, 1, KERNEL_THREADS, convs->stream, a);
	if (result != 0)
		return nn_fail(error, result == cudaErrorMemoryAllocation ? NN_ENOMEM : NN_EDEVICE,
					   "a launch failed");
	return NN_OK;
}

/* For the library's code, where a test has it want some. */
static bool
has_room(void)
{
	size_t has, all;

	return gpu_settings->library == 0 ||
		   (cudaMemGetInfo(&has, &all) == cudaSuccess && has >= gpu_settings->library);
}

NnStatus
cuda_conv_prove(CudaConvs *convs, CudaConv *conv, const void *x, void *filter, void *y,
				void *workspace, size_t bytes, NnError *error)
{
	if (bytes < cuda_conv_workspace(conv))
		return nn_fail(error, NN_EINVAL, "a workspace of %zu bytes", bytes);
	if (failing_engines() > 2 || !has_room())
		return cuda_conv_refuse(&conv->shape, "no engine that runs", error);
	conv->proved = true;
	return NN_OK;
}

void
cuda_conv_close(CudaConv *conv)
{
	free(conv);
}
