/*
 * conv_choice.h
 *	  An engine that may run a convolution, and whether it is to be taken
 *	  without being timed. Neither library nor GPU is asked.
 */
#ifndef BICYCLE_NN_CUDA_CONV_CHOICE_H
#define BICYCLE_NN_CUDA_CONV_CHOICE_H

#include "nn/cuda/conv.h"

typedef struct CudaConvChoice
{
	bool kept;           /* read from disk; then all but workspace say nothing */
	int64_t engine;      /* cuDNN's number */
	int64_t tile, split; /* of its knobs; each engine has its own numbers */
	int64_t workspace;   /* bytes */
	bool tensor_cores;
	bool fallback; /* not of heuristic A */
	int place;     /* in its list */
	bool pinned;   /* it is that of another batch size */
	bool scarce;   /* memory was short when it was chosen */
	bool unsound;  /* in place of one that could not be run */
	float ms;      /* 0: not to be timed; CUDA_TIME_NEVER: it could not be */
} CudaConvChoice;

#define CUDA_TIME_NEVER 1e30f

/*
 * Whether many weights are read by so few blocks, which do not share the sums,
 * that most of a large card looks on.
 */
extern bool cuda_conv_starves(const CudaConvShape *shape, const CudaConvChoice *choice);

/* Whether it leaves tensor cores idle that the shape could fill. */
extern bool cuda_conv_is_plain(const CudaConvShape *shape, const CudaConvChoice *choice);

/*
 * How much speaks against it; 0: it is to be taken, and no other needs to be
 * looked at.
 */
extern int cuda_conv_faults(const CudaConvShape *shape, const CudaConvChoice *choice);

/* The first of those against which least speaks; n is at least 1. */
extern int cuda_conv_best(const CudaConvShape *shape, const CudaConvChoice *const *choices, int n);

/*
 * The fastest of those that could be timed; of none that could, as
 * cuda_conv_best.
 */
extern int cuda_conv_fastest(const CudaConvShape *shape, const CudaConvChoice *const *choices,
							 int n);

/*
 * Whether it may be written to disk: it is what the next start would choose,
 * too, and not what was left where memory was short, or engines were to be
 * timed and could not be.
 */
extern bool cuda_conv_is_to_keep(const CudaConvChoice *choice);

#endif /* BICYCLE_NN_CUDA_CONV_CHOICE_H */
