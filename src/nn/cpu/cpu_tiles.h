/*
 * cpu_tiles.h
 *	  Convolutions by our own matrix kernels: direct, or by Winograd's minimal
 *	  filtering.
 *
 * A result is cut into tiles of m x m positions. A tile reads, from each of one
 * to sixteen sources, a square of t x t pixels, t = m + r - 1. Transformed,
 * these are a row of length k in each of t x t matrices V; multiplied with the
 * transformed weights U they give the tile's transformed outputs.
 *
 *		direct			m = 1, r = 1: each tap of the kernel that meets the
 *	                    image at all is a source (at extents 1 and 2 few of them
 *	                    do)
 *		F(m, 2)			4x4, stride 2: four sources, the odd and even rows and
 *	                    columns, each filtered with 2x2 taps
 *						transposed 4x4, stride 2: one source and 2x2 taps;
 *						either four phases, each giving every second row and
 *						column of the result, or a grid of corners with four
 *						times the channels (cpu_layout.c)
 *						4x4, stride 1 (training): four sources, each filtered
 *						with 2x2 of the taps
 *		F(2, 3)			3x3: one source
 */
#ifndef BICYCLE_NN_CPU_TILES_H
#define BICYCLE_NN_CPU_TILES_H

#include <stdbool.h>
#include <stddef.h>

#define CPU_MAX_SOURCES 16

typedef struct CpuTiling
{
	int m, r;   /* outputs and taps along an axis */
	int phases; /* 4, or 1 */
	bool grid;
	int stride; /* from pixel to pixel of a source */
	/* of a phase: the first nsources are used, npacked have weights */
	int nsources[4], npacked[4];
	struct
	{
		int y, x; /* pixel of the result's first position */
	} source[4][CPU_MAX_SOURCES];
	int h, w; /* positions of a phase */
	int tiles_y, tiles_x;
	int channels; /* columns of a phase's matrices: the layer's channels, on a grid four times */
	/* tiles are transformed first, columns shared; else a thread takes tiles */
	bool shared;
	int block; /* tiles that a thread takes */
} CpuTiling;

#endif /* BICYCLE_NN_CPU_TILES_H */
