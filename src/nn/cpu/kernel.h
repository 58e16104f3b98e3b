/*
 * kernel.h
 *	  The one thing that differs between instruction sets: a block of a product,
 *	  C (m, n) = the sum over taps of A (m, k) * B (k, n).
 *
 * R1 Row i of A begins `lda` elements behind row i - 1, for each tap at an
 *    offset of its own. Where positions of a map lie at a fixed distance, a
 *    convolution of stride 1 is such a sum over the map itself, A being
 *    positions x channels; its weights' gradient is one, too, over the map
 *    turned round, A being channels x positions.
 * R2 B lies as it is read, in a panel: [tap][k / pair][column][pair], always
 *    `columns` wide, zeros behind the last column that counts. Numbers of k are
 *    padded to `step` by zeros, and by anything finite in A.
 * R3 A number of C is one chain of sums over taps and k in order. It does not
 *    depend on m, n or the row and column it is in. fp32 adds each product by
 *    one rounding (baseline: two), bf16 as the processor does.
 * R4 C is written in m rows and n columns and nowhere else. A may be read in
 *    `rows` rows, whatever m is.
 *
 * A kernel allocates nothing and shares nothing. The fp32 ones, and those of
 * AVX512-BF16, are kernel.inc.h; AMX's is kernel_amx.inc.h, BFMMLA's
 * kernel_bfmmla.inc.h. test/unit/emulated.h has all in C.
 */
#ifndef BICYCLE_NN_CPU_KERNEL_H
#define BICYCLE_NN_CPU_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct CpuTap
{
	ptrdiff_t at; /* elements from a row's start */
	int k;        /* a multiple of the kernel's step */
} CpuTap;

typedef struct CpuBlock
{
	int m, n; /* at most the kernel's rows and columns */
	const void *a;
	ptrdiff_t lda;
	const CpuTap *taps;
	int ntaps;
	const void *b;
	float *c;
	ptrdiff_t ldc;
	bool add; /* C begins from what is there, else from 0 */

	/*
	 * Memory that is wanted soon: `ahead` bytes of it, at most as many as B has
	 * there, are asked for, to the second level of cache, in the course of
	 * every CPU_KERNEL_STEP numbers of k. It need not exist, and a kernel may
	 * have no use for it.
	 */
	const char *next;
	int ahead;
} CpuBlock;

#define CPU_KERNEL_STEP 32

/* The most rows and columns of any kernel. */
#define CPU_KERNEL_ROWS 32
#define CPU_KERNEL_COLUMNS 32

typedef struct CpuKernel
{
	const char *name;
	int bytes; /* of an element of A and B: 4, or 2 of bfloat16 */
	int rows, columns;
	int pair, step;
	int ahead; /* bytes ahead in the stream of B that are worth asking for; 0: none */
	/*
	 * by the first block alone, and only if a team reads that stream once, for
	 * more than one row: where the processor finds the rest by itself
	 */
	bool ahead_once;
	/*
	 * bytes of B, of a size that the second-level cache holds, by which rows of
	 * A are multiplied while the first level keeps them; 0: those of one panel
	 */
	int group;

	/*
	 * Of bfloat16: training's precision auto means it, being faster than fp32.
	 * AMX is. VDPBF16PS, which multiplies bf16 with AVX512-BF16, does half as
	 * many products a second as fp32 does on Intel's processors; on AMD's (from
	 * Zen 4) it was not measured.
	 */
	bool trains;

	/*
	 * Each thread calls start before its first block and stop behind the last;
	 * in between no other library may use the processor's tiles.
	 */
	void (*start)(void);
	void (*multiply)(const CpuBlock *block);
	void (*stop)(void);
} CpuKernel;

/* bfloat16 by AMX where it is; else NULL. */
extern const CpuKernel *cpu_amx(void);

/* bfloat16 by BFMMLA where it is; else NULL. */
extern const CpuKernel *cpu_bfmmla(void);

#endif /* BICYCLE_NN_CPU_KERNEL_H */
