/*
 * cpu_frame.h
 *	  Convolutions of any shape by blocks of products (kernel.h), over a copy of
 *	  their input that has its border with it.
 *
 * A frame holds images one after the other as rows x row positions. Along an
 * axis, pixel X of the input is pixel X + lead of a padded one, of which every
 * `stride` are a position: [row parity][image][i][j][column parity][channel].
 * So tap (ky, kx) of the result at position p is at p plus a constant, and A's
 * rows are the frame's positions, through all images. Borders are zeros that
 * neighbouring rows and images share; results at positions that are no pixels
 * are never read. A merged tap may read on behind its row, by what is padded of
 * k: with `apart` never as far as another image, where a number that is not
 * finite would make it none, too.
 *
 * A transposed 4x4 convolution of stride 2 is one of 2x2 taps to the grid of
 * (h + 1) x (w + 1) corners, with four pixels in the columns of each.
 */
#ifndef BICYCLE_NN_CPU_FRAME_H
#define BICYCLE_NN_CPU_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#define CPU_MAX_TAPS 128 /* 11 x 11 are the most of any network */

typedef struct CpuFraming
{
	int kernel, stride, lead; /* of the convolution that is run */
	bool apart;               /* images may have numbers that are not finite */
	int rows, row;            /* positions of an image, and of a row of it */
	int pitch;                /* elements from one position to the next */
	int columns;              /* of all panels that count: channels, of a grid four times */

	/*
	 * Taps in the order of the weights; the first nlive are used. merged: a
	 * tap is all of a row's, which lie together.
	 */
	bool merged;
	int ntaps, nlive, k; /* of a tap, padded */
	struct
	{
		int y, x;
	} tap[CPU_MAX_TAPS];
} CpuFraming;

#endif /* BICYCLE_NN_CPU_FRAME_H */
