/*
 * kernels.h
 *	  The CUDA kernels of inference, as C functions: each launches its kernel on
 *	  a stream and returns at once.
 *
 * All maps are NHWC: a pixel is `pitch` elements from the next and may be wider
 * than the channels used, so a map may be a slice of another. Element types are
 * said at run time. Kernels that much time goes to are there once for each type
 * that all their maps have, in whole vectors, and once for any others.
 * Arithmetic is in float.
 *
 * Every function returns 0 or the cudaError_t of its launch. Nothing is
 * allocated; pointers are the device's. Sums have a fixed order and none of
 * them goes over images, so an image's bits do not depend on the batch it is
 * in. No header of the engine or of PostgreSQL is included.
 */
#ifndef BICYCLE_KERNELS_H
#define BICYCLE_KERNELS_H

#include "common/layers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

	/*
	 * Finds out anew what launches on the current device can, when it is
	 * opened.
	 */
	extern void kernel_open_device(void);

	typedef enum KernelType
	{
		KERNEL_F32,
		KERNEL_F16,
		KERNEL_BF16,
		/*
		 * an image's bytes: read as (x / 255 - 0.5) / 0.5, written as round((y
		 * + 1) * 127.5) within 0 and 255
		 */
		KERNEL_U8
	} KernelType;

	static inline size_t kernel_type_size(KernelType type)
	{
		return type == KERNEL_F32 ? 4 : type == KERNEL_U8 ? 1 : 2;
	}

/* channels that a thread takes at a time: 16 bytes in half precision */
#define KERNEL_VECTOR 8

	typedef struct KernelMap
	{
		void *data; /* first channel of the first pixel */
		KernelType type;
		int pitch;   /* elements from a pixel to the next */
		bool vector; /* data and pitch allow 16-byte access at every eighth channel */
	} KernelMap;

	static inline KernelMap kernel_map(void *data, KernelType type, int pitch)
	{
		KernelMap map;

		map.data = data;
		map.type = type;
		map.pitch = pitch;
		map.vector = type != KERNEL_U8 && (uintptr_t) data % 16 == 0 && pitch % KERNEL_VECTOR == 0;
		return map;
	}

/*
 * Along one axis, the positions of a zero-padded convolution's result fall into
 * classes by the taps that lie inside the image; positions [first[k], first[k +
 * 1]), which may be none, are of class k < n. From first[n] on all are the
 * extent.
 */
#define KERNEL_CLASSES 4

	typedef struct KernelAxis
	{
		int n;
		int first[KERNEL_CLASSES + 1];
	} KernelAxis;

	typedef struct KernelOut
	{
		KernelMap map;  /* data NULL: there is no such reader */
		NnActChain act; /* before what it sees */
	} KernelOut;

	/*
 * What is done with a convolution's result, or with any map: the latent code's
 * part is added, then comes an instance norm, or scale and shift a channel,
 * then an activation chain for each of up to two readers, who may be slices of
 * wider maps.
 */
	typedef struct KernelFinish
	{
		int n, h, w, c;
		KernelMap x;
		/*
	 * 0, or x has (h / 2 + 1) x (w / 2 + 1) pixels of 4 * quad channels, and
	 * pixel (y, x) of the map is at ((y + 1) / 2, (x + 1) / 2), from channel
	 * ((y + 1) % 2 * 2 + (x + 1) % 2) * quad on
	 */
		int quad;
		const float *latent; /* (n, rows.n * columns.n, c); NULL: none */
		KernelAxis rows, columns;
		int centre;         /* class of which nothing is added or read; -1: none */
		const float *scale; /* (c); NULL: 1.  Of an instance norm's result */
		const float *shift; /* (c); NULL: 0.  The same */
		KernelOut out[2];
	} KernelFinish;

	/* y = act((x + latent) * scale + shift).  bias_act.cu */
	extern int kernel_bias_act(void *stream, const KernelFinish *finish);

	/*
 * y = act((x + latent - mean) / sqrt(var + 1e-5)), mean and biased variance
 * over h * w of each (n, c). workspace: kernel_instance_norm_floats() floats.
 * instance_norm.cu
 */
	extern int kernel_instance_norm(void *stream, const KernelFinish *finish, float *workspace);
	extern size_t kernel_instance_norm_floats(int n, int h, int w, int c);

	/*
 * x *= 0 or 1 / (1 - p), by what Philox draws under `seed` for the `mask` and
 * the element's place among those of its image; c is a multiple of 4.
 * dropout.cu
 */
	typedef struct KernelDropout
	{
		int n, pixels, c; /* images, pixels of one, channels */
		uint32_t seed, mask;
		float p; /* probability to drop */
		KernelMap map;
	} KernelDropout;

	extern int kernel_dropout(void *stream, const KernelDropout *dropout);

	/*
 * The latent code's part of a convolution, for each class k of positions that
 * has any: out[i][k][o] = sum over j of act(z[i][j]) * weights[k][j][o], of
 * which that of `centre` is subtracted. For n <= KERNEL_LATENTS layers of as
 * many images. z_bias.cu
 */
#define KERNEL_LATENTS 16

	typedef struct KernelLatents
	{
		int nz, c;
		KernelAxis rows, columns;
		int centre;  /* class; -1: nothing is subtracted */
		KernelMap z; /* a pixel of nz channels an image */
		NnActKind act;
		const float *weights; /* (rows.n * columns.n, nz, c) */
		float *out;           /* (images, rows.n * columns.n, c) */
	} KernelLatents;

	extern int kernel_z_bias(void *stream, const KernelLatents *layers, int n, int images);

	/*
 * y[p][0 .. c) = x[p][0 .. c), y[p][c .. padded) = 0, for `pixels` pixels: type
 * and pitch may change. convert_map.cu
 */
	extern int kernel_convert(void *stream, const KernelMap *x, const KernelMap *y, size_t pixels,
							  int c, int padded);

	/* y = a + b.  add.cu */
	extern int kernel_add(void *stream, const KernelMap *a, const KernelMap *b, const KernelMap *y,
						  size_t pixels, int c);

	/*
 * Bilinear to twice the extent (half-pixel centres), then a reflected border of
 * `pad`: (n, h, w, c) to (n, 2h + 2 pad, 2w + 2 pad, c). resample.cu
 */
	extern int kernel_upsample(void *stream, const KernelMap *x, const KernelMap *y, int n, int h,
							   int w, int c, int pad);

	/*
 * The mean of the pixels of each window that lie inside the image: (n, h, w, c)
 * to (n, oh, ow, c). pool.cu
 */
	typedef struct KernelPool
	{
		int n, h, w, c, oh, ow;
		int kernel, stride, pad;
		KernelMap x, y;
	} KernelPool;

	extern int kernel_avgpool(void *stream, const KernelPool *pool);
	extern int kernel_maxpool(void *stream, const KernelPool *pool); /* their largest */

	/*
 * Images of c channels, at most KERNEL_SCALE_CHANNELS: y = (x - shift) / scale.
 * embed.cu
 */
#define KERNEL_SCALE_CHANNELS 3

	typedef struct KernelScale
	{
		int n, h, w, c;
		float shift[KERNEL_SCALE_CHANNELS], scale[KERNEL_SCALE_CHANNELS];
		KernelMap x, y;
	} KernelScale;

	extern int kernel_scale(void *stream, const KernelScale *scale);

	/*
 * Of each image of x (n, h, w, c) the h w c numbers of y: a pixel's, divided by
 * its length, times the root of a channel's weight, (c), over h w. embed.cu
 */
	typedef struct KernelEmbed
	{
		int n, h, w, c;
		KernelMap x, y;
		const float *weights;
	} KernelEmbed;

	extern int kernel_embed(void *stream, const KernelEmbed *embed);

	/* y[i][k] is the mean of channel k of image i */
	extern int kernel_means(void *stream, const KernelMap *x, const KernelMap *y, int n, int h,
							int w, int c);

	/*
 * A convolution of a small map: y (n, oh, ow, k)
 * from x (n, h, w, c), both dense, with filter (k, kernel, kernel, c), all of
 * one type. With quads (above; stride 1, kernel 2, pad 1, k = 4 * quad) only
 * what lies inside the map is written. n * oh * ow, with quads n * h * w, is at
 * most KERNEL_STREAM_SITES, kernel * kernel at most KERNEL_STREAM_TAPS, c a
 * multiple of KERNEL_VECTOR, k and quad of KERNEL_STREAM_ROWS.
 *
 * Without quads, what is done with the result may be done at once: with
 * `finish`, whose n, h and w are the result's, and whose x is not looked at, y
 * is not written; with `norm` an instance norm is part of it. stream_conv.cu
 */
#define KERNEL_STREAM_SITES 16
#define KERNEL_STREAM_TAPS 16
#define KERNEL_STREAM_ROWS 4

	typedef struct KernelStream
	{
		int n, h, w, c, oh, ow, k;
		int kernel, stride, pad;
		int quad;
		KernelType type;
		const void *x, *filter;
		void *y;
	} KernelStream;

	extern int kernel_stream_conv(void *stream, const KernelStream *conv,
								  const KernelFinish *finish, bool norm);

	/* y[i][o] = bias[o] (NULL: 0) + sum over k of weights[o][k] x[i][k] */
	typedef struct KernelLinear
	{
		int n, in, out;
		KernelMap x, y;
		const float *weights; /* (out, in) */
		const float *bias;
	} KernelLinear;

	extern int kernel_linear(void *stream, const KernelLinear *linear);

#ifdef __cplusplus
}
#endif

#endif /* BICYCLE_KERNELS_H */
