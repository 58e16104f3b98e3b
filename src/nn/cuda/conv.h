/*
 * conv.h
 *	  Convolutions on a GPU: what the device asks for, and cudnn.c gives.
 *
 * Maps are NHWC, dense, channels in multiples of eight, 16-byte aligned; a
 * filter is (K, R, S, C) of the same type, where a plain convolution goes from
 * C to K channels and its data gradient, which a transposed one is, from K to
 * C. Sums are in float.
 */
#ifndef BICYCLE_NN_CUDA_CONV_H
#define BICYCLE_NN_CUDA_CONV_H

#include "nn/nn.h"

#include "kernels.h"

/* What is made of the other two of x, filter and y. */
typedef enum CudaConvKind
{
	CUDA_CONV_FORWARD, /* y */
	CUDA_CONV_DATA,    /* y, the gradient of inputs; x is that of results */
	CUDA_CONV_FILTER   /* the filter, its gradient; x are inputs, y the gradient of results */
} CudaConvKind;

typedef struct CudaConvShape
{
	CudaConvKind kind;
	KernelType type;
	bool tf32;      /* with KERNEL_F32: tensor cores, whose products keep 10 bits */
	bool steady;    /* the heuristic's engine, untimed: the same at each start */
	int n, h, w, c; /* of x */
	int oh, ow, k;  /* of y */
	int kernel, stride, pad;
} CudaConvShape;

typedef struct CudaConvs CudaConvs; /* the library, and a handle of it for one device */
typedef struct CudaConv CudaConv;   /* one convolution, ready to run */

/* For convolutions on `stream`. NN_EUNSUPPORTED says what is missing. */
extern NnStatus cuda_convs_open(void *stream, CudaConvs **convs, NnError *error);
extern void cuda_convs_close(CudaConvs *convs);
extern const char *cuda_convs_name(const CudaConvs *convs); /* "cuDNN 9.19.0" */

/* What the library says of the GPU, to plan without it; malloc'ed, or NULL. */
extern char *cuda_convs_description(CudaConvs *convs);

extern NnStatus cuda_conv_open(CudaConvs *convs, const CudaConvShape *shape, CudaConv **conv,
							   NnError *error);
#define CUDA_MAX_WORKSPACE ((size_t) 64 << 20)
extern size_t cuda_conv_workspace(const CudaConv *conv); /* bytes, at most that many */
/* Nothing is written but what its kind makes. */
extern NnStatus cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x, void *filter,
							  void *y, void *workspace, NnError *error);

/*
 * Runs it once, whatever is in the buffers, and waits: an engine may be there
 * for a GPU and yet not run on it. If it does not, another is taken, within the
 * `bytes` that workspace has. If none runs, as cuda_conv_refuse says. It is for
 * before the first run that counts.
 */
extern NnStatus cuda_conv_prove(CudaConvs *convs, CudaConv *conv, const void *x, void *filter,
								void *y, void *workspace, size_t bytes, NnError *error);
extern void cuda_conv_close(CudaConv *conv);

/* ---- Memory (conv_memory.c) ---------------------------------------------- */

/* What the library may take by itself; of a small card, less. */
#define CUDA_LIBRARY_BYTES ((size_t) 256 << 20)
extern size_t cuda_conv_library_bytes(size_t card);
/* Whether the GPU has less than that; *has, unless it does not say, is what. */
extern bool cuda_conv_is_short(size_t *has);

/*
 * The error of a convolution that no engine runs: NN_ENOMEM if memory is short,
 * else NN_EUNSUPPORTED. what: "cuDNN has no engine".
 */
extern NnStatus cuda_conv_refuse(const CudaConvShape *shape, const char *what, NnError *error);

#endif /* BICYCLE_NN_CUDA_CONV_H */
