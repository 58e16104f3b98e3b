/*
 * conv_choice.c
 *	  Which of a library's engines is taken, by their times or without.
 *
 * R1 Timed it is the fastest; untimed the library's first, unless something
 *    speaks against that which speaks less against a later one. What speaks
 *    against an engine are facts of its plan, not names of layers or engines.
 * R2 Most speaks against one without tensor cores, if numbers are of half
 *    precision and both maps have the channels to fill them. In TF32 nothing
 *    does: small problems may be faster without, and lose nothing.
 * R3 Less speaks against one that starves: whose blocks are so few that most of
 *    the card looks on while they read many weights.
 * R4 As much speaks against a later one whose workspace holds a copy of the
 *    weights: that costs what it gains.
 */
#include "nn/cuda/conv_choice.h"

#define MANY_WEIGHTS ((int64_t) 4 << 20) /* bytes */
#define FEW_BLOCKS 64
/* of a usual tile; which one an engine has, its knobs do not tell */
#define TILE_PIXELS 128
#define TILE_CHANNELS 64

static int64_t
conv_weight_bytes(const CudaConvShape *s)
{
	return (int64_t) kernel_type_size(s->type) * s->k * s->c * s->kernel * s->kernel;
}

bool
cuda_conv_starves(const CudaConvShape *s, const CudaConvChoice *choice)
{
	int64_t m = (int64_t) s->n * s->oh * s->ow,
			blocks =
				(m + TILE_PIXELS - 1) / TILE_PIXELS * ((s->k + TILE_CHANNELS - 1) / TILE_CHANNELS);

	return s->kind != CUDA_CONV_FILTER && conv_weight_bytes(s) > MANY_WEIGHTS &&
		   choice->split <= 1 && blocks < FEW_BLOCKS;
}

bool
cuda_conv_is_plain(const CudaConvShape *s, const CudaConvChoice *choice)
{
	return s->type != KERNEL_F32 && s->c > KERNEL_VECTOR && s->k > KERNEL_VECTOR &&
		   !choice->tensor_cores;
}

int
cuda_conv_faults(const CudaConvShape *s, const CudaConvChoice *choice)
{
	bool copies = choice->place > 0 && choice->workspace >= conv_weight_bytes(s);

	return 3 * cuda_conv_is_plain(s, choice) + cuda_conv_starves(s, choice) + copies;
}

int
cuda_conv_best(const CudaConvShape *s, const CudaConvChoice *const *choices, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (cuda_conv_faults(s, choices[i]) < cuda_conv_faults(s, choices[best]))
			best = i;
	return best;
}

int
cuda_conv_fastest(const CudaConvShape *s, const CudaConvChoice *const *choices, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (choices[i]->ms < choices[best]->ms)
			best = i;
	return choices[best]->ms < CUDA_TIME_NEVER ? best : cuda_conv_best(s, choices, n);
}

bool
cuda_conv_is_to_keep(const CudaConvChoice *choice)
{
	return !choice->kept && !choice->scarce && choice->ms < CUDA_TIME_NEVER;
}
