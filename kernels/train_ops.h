/*
 * train_ops.h
 *	  The CUDA kernels of training, as C functions like those of kernels.h.
 *
 * R1 What changes between the iterations of a run is read from the device's
 *    memory, from a KernelStep (step.h): launches are captured and replayed.
 * R2 Every sum has an order that follows from shapes alone, so one seed means
 *    the same bits. What one block cannot sum is summed in two stages, through
 *    a workspace of floats that the caller gives, the launcher's ..._floats()
 *    of them; it holds nothing between two launches.
 * R3 A gradient is added to in float and rounded to its map's type once.
 *    Gradients are gathered by the thread that writes them; there are no
 *    atomics.
 * R4 Parameters and their gradients are floats.
 */
#ifndef BICYCLE_KERNELS_TRAIN_OPS_H
#define BICYCLE_KERNELS_TRAIN_OPS_H

#include "kernels.h"
#include "step.h"

#include <math.h>

#ifdef __cplusplus
extern "C"
{
#endif

	/* Where the gradient of a map goes; data NULL: it is not wanted. */
	typedef struct KernelGradient
	{
		KernelMap map;
		bool add; /* to what is there */
	} KernelGradient;

	/* The same of a parameter, or of a few of its numbers. */
	typedef struct KernelSlope
	{
		float *data;
		bool add;
	} KernelSlope;

	/* Dropout's factors, those of nn_dropout_mask. */
	typedef struct KernelDrop
	{
		const KernelStep *step; /* NULL: there is no dropout */
		uint32_t limit;         /* words below are dropped */
		float factor;           /* of what is kept */
		int node;
	} KernelDrop;

	static inline KernelDrop kernel_drop(float p, int node, const KernelStep *step)
	{
		KernelDrop drop;

		drop.step = p > 0 ? step : NULL;
		drop.limit = p > 0 ? (uint32_t) ceil((double) p * 4294967296.0) : 0;
		drop.factor = 1 / (1 - p);
		drop.node = node;
		return drop;
	}

	/*
 * y = act(drop ((x - mean) / sqrt(var + 1e-5) gamma + beta)) for one or two
 * readers, mean and biased variance over the pixels of each group: an image of
 * an instance norm, the whole batch of a batch norm. Without statistics there
 * is no norm: y = act(drop x), and groups have no meaning.
 */
	typedef struct KernelNorm
	{
		int groups, pixels, c; /* pixels of a group */
		KernelMap x;
		float *statistics;         /* (groups, 2c): means, then variances; NULL: no norm */
		bool shifted;              /* means are less the group's first pixel */
		const float *gamma, *beta; /* (c); NULL: 1 and 0 */
		KernelDrop drop;
		NnActChain act[2];
		KernelMap y[2]; /* forward; data NULL: there is no such reader */

		KernelMap dy[2]; /* backward; data NULL: it is 0 */
		KernelGradient dx;
		KernelSlope dgamma, dbeta; /* of a norm of one group */
		float *workspace;
	} KernelNorm;

	/* Writes y, and the statistics. norm_forward.cu */
	extern int kernel_norm_forward(void *stream, const KernelNorm *norm);

	/* Writes dx, dgamma and dbeta. norm_backward.cu, act_backward.cu */
	extern int kernel_norm_backward(void *stream, const KernelNorm *norm);
	extern int kernel_act_backward(void *stream, const KernelNorm *norm); /* without a norm */
	extern size_t kernel_norm_floats(int groups, int pixels, int c);

	/* db[o] = sum of dy[p][o] over all pixels. act_backward.cu */
	typedef struct KernelBias
	{
		int pixels, c;
		KernelMap dy;
		KernelSlope db;
		float *workspace;
	} KernelBias;

	extern int kernel_bias_backward(void *stream, const KernelBias *bias);
	extern size_t kernel_bias_floats(int pixels, int c);

	/* An axis, and the taps [tap0, tap1) inside the image of each class. */
	typedef struct KernelBorder
	{
		KernelAxis axis;
		int tap0[KERNEL_CLASSES], tap1[KERNEL_CLASSES];
	} KernelBorder;

	/*
 * A latent code that joins a convolution's input as constant channels: its
 * weights w(o, j, tap) lie at o * per_output + j * per_code + tap * per_tap,
 * tap = ky * kernel + kx. Class k of positions is row class * columns + column
 * class. z_backward.cu
 */
	typedef struct KernelLatent
	{
		int n, h, w, c; /* of the result */
		int nz, kernel;
		KernelBorder rows, columns;
		size_t per_output, per_code, per_tap;
		const float *weights;
		float *sums; /* (classes, nz, c): of the weights, over the taps of each class */
		KernelMap z; /* n pixels of nz channels */
		NnActKind act;
		KernelMap dy;
		KernelSlope dweights; /* as weights */
		KernelGradient dz;
		float *workspace;
	} KernelLatent;

	/* Writes sums, which kernel_z_bias reads. */
	extern int kernel_latent_sums(void *stream, const KernelLatent *latent);
	/* Writes dweights and dz; either may be none. Does not use sums. */
	extern int kernel_latent_backward(void *stream, const KernelLatent *latent);
	extern size_t kernel_latent_floats(const KernelLatent *latent); /* of the backward step */

	/*
 * value = factor times the sum of a term for each number of x: (x - target)^2,
 * or cross entropy with logits; |x - other|; (x^2 + exp(other) - 1 - other) / 2
 * with a mean x and other = logvar. loss.cu
 */
	typedef enum KernelLossKind
	{
		KERNEL_LSGAN,
		KERNEL_VANILLA,
		KERNEL_L1,
		KERNEL_KL
	} KernelLossKind;

	typedef struct KernelLoss
	{
		KernelLossKind kind;
		size_t pixels;
		int c;
		KernelMap x, other;
		float target;
		double factor;
		float *value;              /* forward */
		KernelGradient dx, dother; /* backward; dother of KL only */
		float *workspace;          /* aligned for doubles */
	} KernelLoss;

	extern int kernel_loss(void *stream, const KernelLoss *loss);
	extern int kernel_loss_backward(void *stream, const KernelLoss *loss);
	extern size_t kernel_loss_floats(size_t pixels, int c);

	/* z = mu + eps exp(logvar / 2). loss.cu */
	typedef struct KernelSample
	{
		size_t pixels;
		int c;
		KernelMap mu, logvar, eps, z;
		KernelMap dz; /* backward */
		KernelGradient dmu, dlogvar;
	} KernelSample;

	extern int kernel_sample(void *stream, const KernelSample *sample);
	extern int kernel_sample_backward(void *stream, const KernelSample *sample);

	/*
 * What discriminators see of n images, numbers[i] of each. A pixel becomes the
 * one that it shows (nn_augment_place), or 0. Its channels from `plain` on
 * become k (s v + (1 - s) their mean) + (1 - k) the image's mean + brightness.
 * plain = c: no colours change. augment.cu
 */
	typedef struct KernelAugment
	{
		int n, h, w, c; /* c at most KERNEL_VECTOR */
		int plain;
		bool cuts;
		KernelMap numbers; /* n pixels of NN_AUGMENT_NUMBERS */
		KernelMap x, y;
		KernelMap dy; /* backward */
		KernelGradient dx;
		float *workspace; /* aligned for doubles */
	} KernelAugment;

	extern int kernel_augment(void *stream, const KernelAugment *augment);
	extern int kernel_augment_backward(void *stream, const KernelAugment *augment);
	extern size_t kernel_augment_floats(int n, int h, int w);

	/* dx of kernel_upsample; n, h, w, c are of dx. resample.cu */
	extern int kernel_upsample_backward(void *stream, const KernelMap *dy, const KernelGradient *dx,
										int n, int h, int w, int c, int pad);

	/* dx of kernel_avgpool; of `pool`, x and y are not used. pool.cu */
	extern int kernel_avgpool_backward(void *stream, const KernelPool *pool, const KernelMap *dy,
									   const KernelGradient *dx);

	/*
 * dx[i][k] = sum over o of weights[o][k] dy[i][o]; dweights[o][k] = sum over i
 * of dy[i][o] x[i][k]; dbias[o] = sum over i of dy[i][o]. Of `linear`, y is dy,
 * and bias is not used. linear.cu
 */
	typedef struct KernelLinearSlopes
	{
		KernelGradient dx;
		KernelSlope dweights, dbias;
	} KernelLinearSlopes;

	extern int kernel_linear_backward(void *stream, const KernelLinear *linear,
									  const KernelLinearSlopes *slopes);

#ifdef __cplusplus
}
#endif

#endif /* BICYCLE_KERNELS_TRAIN_OPS_H */
