/*
 * conv.h
 *	  Convolutions on a GPU: what the device asks for, and cudnn.c gives.
 *
 * Maps are NHWC, dense, channels in multiples of eight, 16-byte aligned; a
 * filter is (K, R, S, C) of the same type, where a plain convolution goes from
 * C to K channels and a transposed one, which is the data gradient of a plain
 * one, from K to C. Sums are in float.
 */
#ifndef BICYCLE_NN_CUDA_CONV_H
#define BICYCLE_NN_CUDA_CONV_H

#include "nn/nn.h"

#include "kernels.h"

typedef struct CudaConvShape
{
	bool transposed;
	KernelType type;
	bool tf32;      /* with KERNEL_F32: tensor cores, whose products keep 10 bits */
	int n, h, w, c; /* of what is read */
	int oh, ow, k;  /* of what is written */
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
extern size_t cuda_conv_workspace(const CudaConv *conv); /* bytes */
extern NnStatus cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x,
							  const void *filter, void *y, void *workspace, NnError *error);
extern void cuda_conv_close(CudaConv *conv);

#endif /* BICYCLE_NN_CUDA_CONV_H */
