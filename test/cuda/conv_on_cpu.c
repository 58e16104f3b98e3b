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
};

typedef struct Convolve
{
	CudaConvShape s;
	KernelMap x, filter, y;
	uint8_t *workspace;
	size_t workspace_bytes;
} Convolve;

/* The part of x at (n, y, x) seen through one tap. */
static float
dot(const Convolve *a, int k, int tap, int n, int y, int x)
{
	const CudaConvShape *s = &a->s;
	size_t at = (((size_t) n * s->h + y) * s->w + x) * s->c;
	int taps = s->kernel * s->kernel;
	float sum = 0;

	for (int c = 0; c < s->c; c++)
	{
		size_t w = s->transposed ? ((size_t) c * taps + tap) * s->k + k
								 : ((size_t) k * taps + tap) * s->c + c;

		sum += load_element(&a->x, at + c) * load_element(&a->filter, w);
	}
	return sum;
}

/* One thread an element of the result. */
KERNEL(convolve, Convolve)
{
	const CudaConvShape *s = &a.s;
	size_t t = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
	int k = t % s->k, ox = t / s->k % s->ow, oy = t / s->k / s->ow % s->oh,
		n = t / s->k / s->ow / s->oh;
	float sum = 0;

	if (t < a.workspace_bytes)
		a.workspace[t] = 0xff;
	if (n >= s->n)
		return;
	for (int ky = 0; ky < s->kernel; ky++)
		for (int kx = 0; kx < s->kernel; kx++)
		{
			int y = s->transposed ? oy + s->pad - ky : oy * s->stride - s->pad + ky,
				x = s->transposed ? ox + s->pad - kx : ox * s->stride - s->pad + kx;

			if (s->transposed && (y % s->stride != 0 || x % s->stride != 0))
				continue;
			y /= s->transposed ? s->stride : 1;
			x /= s->transposed ? s->stride : 1;
			if (y >= 0 && y < s->h && x >= 0 && x < s->w)
				sum += dot(&a, k, ky * s->kernel + kx, n, y, x);
		}
	store_element(&a.y, t, sum);
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
	return NN_OK;
}

size_t
cuda_conv_workspace(const CudaConv *conv)
{
	return 100 + conv->shape.c;
}

NnStatus
cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x, const void *filter, void *y,
			  void *workspace, NnError *error)
{
	const CudaConvShape *s = &conv->shape;
	size_t threads = (size_t) s->n * s->oh * s->ow * s->k;
	Convolve a = {
		.s = *s,
		.x = kernel_map((void *) x, s->type, s->c),
		.filter = kernel_map((void *) filter, s->type, s->transposed ? s->k : s->c),
		.y = kernel_map(y, s->type, s->k),
		.workspace = workspace,
		.workspace_bytes = cuda_conv_workspace(conv),
	};
	int result;

	if (!a.x.vector || !a.filter.vector || !a.y.vector)
		return nn_fail(error, NN_EINVAL, "a map is not aligned");
	result = KERNEL_LAUNCH(convolve, (threads + KERNEL_THREADS - 1) / KERNEL_THREADS, 1, 1,
						   KERNEL_THREADS, convs->stream, a);
	if (result != 0)
		return nn_fail(error, result == cudaErrorMemoryAllocation ? NN_ENOMEM : NN_EDEVICE,
					   "a launch failed");
	return NN_OK;
}

void
cuda_conv_close(CudaConv *conv)
{
	free(conv);
}
