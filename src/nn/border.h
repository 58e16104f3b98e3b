/*
 * border.h
 *	  One axis of a zero-padded convolution (border.c). Positions of its result
 *	  fall into classes by the taps of the kernel that lie inside the image; a
 *	  latent code, which is the same everywhere, adds one value a channel and
 *	  pair of classes.
 *
 * R1 Which classes there are, and their order, follows from kernel and padding
 *    alone: sums made once serve images of all sizes. Where each begins follows
 *    from the extent; a class may have no position.
 */
#ifndef BICYCLE_NN_BORDER_H
#define BICYCLE_NN_BORDER_H

#include "nn/graph.h"

#define NN_MAX_BORDER 4

typedef struct NnBorder
{
	int n;
	/*
	 * positions [first[i], first[i + 1]) are of class i; from first[n] on all
	 * are the end
	 */
	int first[NN_MAX_BORDER + 1];
	int tap0[NN_MAX_BORDER]; /* valid taps [tap0, tap1) */
	int tap1[NN_MAX_BORDER];
	int centre; /* class of the middle position */
} NnBorder;

/* Both axes; fails if the padding is wider than 1. */
extern NnStatus nn_borders(const NnNode *node, NnShape in, NnShape out, NnBorder *rows,
						   NnBorder *columns, NnError *error);

/*
 * For each pair of classes, the sums over the valid taps of the weights of the
 * latent: times the latent, that is what it adds there. w is the layer's weight
 * (c, inputs + nz, kernel, kernel), sums (rows->n, columns->n, nz, c).
 */
extern void nn_border_sums(const NnBorder *rows, const NnBorder *columns, const float *w,
						   int inputs, int nz, int c, int kernel, float *sums);

#endif /* BICYCLE_NN_BORDER_H */
