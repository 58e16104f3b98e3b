/*
 * fit_schedule.c
 *	  What changes from iteration to iteration: random numbers and the learning
 *	  rate.
 *
 * Both are functions of the options and the iteration's number, nothing is
 * kept; so a checkpoint needs only that number.
 */
#include "nn/fit_private.h"

#include "common/invariant.h"

#include <math.h>
#include <string.h>

#define STEP_EPOCHS 100 /* of policy step: the official lr_decay_iters */
#define STEP_FACTOR 0.1

/* ---- Noise --------------------------------------------------------------- */

/*
 * Counters under the key `seed`. nn_normal counts (block, 0, stream): streams
 * below 2^48 are those of fresh weights, codes have the top bit. Dropout has a
 * second word of 1 + node.
 */
static void
dropout_words(uint64_t seed, int64_t iteration, int node, uint64_t block, uint32_t words[4])
{
	uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
	uint32_t counter[4] = { (uint32_t) block, 1 + (uint32_t) node, (uint32_t) iteration,
							(uint32_t) (iteration >> 32) };

	nn_philox(counter, key, words);
}

static bool
kept(uint32_t word, float p)
{
	return word * 0x1p-32 >= p;
}

bool
nn_dropout_keeps(uint64_t seed, int64_t iteration, int node, uint64_t element, float p)
{
	uint32_t words[4];

	dropout_words(seed, iteration, node, element / 4, words);
	return kept(words[element % 4], p);
}

void
nn_dropout_mask(uint64_t seed, int64_t iteration, int node, uint64_t first, int count, float p,
				float *mask)
{
	INVARIANT(first % 4 == 0);
	for (int i = 0; i < count; i += 4)
	{
		uint32_t words[4];

		dropout_words(seed, iteration, node, (first + i) / 4, words);
		for (int k = 0; k < 4 && i + k < count; k++)
			mask[i + k] = kept(words[k], p) ? 1 / (1 - p) : 0;
	}
}

void
nn_train_codes(uint64_t seed, int64_t iteration, int which, int n, int nz, float *codes)
{
	for (int i = 0; i < n; i++)
		nn_normal(seed,
				  1ULL << 63 | (uint64_t) which << 62 | (uint64_t) iteration << 13 | (uint64_t) i,
				  nz, codes + (size_t) i * nz);
}

#define AUGMENT_WORD 0xD1FFA963u /* the second one; that of no node's dropout */

/* Of [0, 1). */
static double
augment_share(uint32_t word)
{
	return word * 0x1p-32;
}

/* A whole number from `least` on, one of `count`, as a part of the size. */
static float
augment_place(uint32_t word, int least, int count, int size)
{
	return (float) ((least + floor(augment_share(word) * count)) / size);
}

/*
 * Source: DiffAugment_pytorch.py of mit-han-lab/data-efficient-gans: the ranges
 * of each number, and that what is cut out may have its centre anywhere.
 */
void
nn_train_augment(uint64_t seed, int64_t iteration, int which, int n, int size, NnDiffAugment varied,
				 float *numbers)
{
	uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
	int most = (int) (size * 0.125 + 0.5), cut = (size + 1) / 2;

	for (int i = 0; i < n; i++, numbers += NN_AUGMENT_NUMBERS)
	{
		uint32_t words[8];

		for (uint32_t k = 0; k < 2; k++)
		{
			uint32_t counter[4] = { (uint32_t) (which * n + i) * 2 + k, AUGMENT_WORD,
									(uint32_t) iteration, (uint32_t) (iteration >> 32) };

			nn_philox(counter, key, words + 4 * k);
		}
		memset(numbers, 0, NN_AUGMENT_NUMBERS * sizeof(float));
		numbers[NN_AUGMENT_SATURATION] = numbers[NN_AUGMENT_CONTRAST] = 1;
		if (varied & NN_DIFF_AUGMENT_COLOR)
		{
			numbers[NN_AUGMENT_BRIGHTNESS] = (float) (augment_share(words[0]) - 0.5);
			numbers[NN_AUGMENT_SATURATION] = (float) (augment_share(words[1]) * 2);
			numbers[NN_AUGMENT_CONTRAST] = (float) (augment_share(words[2]) + 0.5);
		}
		if (varied & NN_DIFF_AUGMENT_TRANSLATION)
		{
			numbers[NN_AUGMENT_DOWN] = augment_place(words[3], -most, 2 * most + 1, size);
			numbers[NN_AUGMENT_RIGHT] = augment_place(words[4], -most, 2 * most + 1, size);
		}
		if (varied & NN_DIFF_AUGMENT_CUTOUT)
		{
			numbers[NN_AUGMENT_CUT_Y] = augment_place(words[5], 0, size + 1 - cut % 2, size);
			numbers[NN_AUGMENT_CUT_X] = augment_place(words[6], 0, size + 1 - cut % 2, size);
		}
	}
}

/* ---- Learning rate ------------------------------------------------------- */

/* An epoch is rows / batch_size iterations: incomplete batches are left out. */

int64_t
nn_run_iterations(const NnTrainOptions *options, int64_t rows)
{
	if (options->iterations > 0)
		return options->iterations;
	return ((int64_t) options->epochs + options->epochs_decay) * (rows / options->batch_size);
}

/*
 * Linear: the base rate for `constant` units of time, then down to base /
 * (decay + 1) in the last of `decay` more. `unit` counts from 1: epochs in the
 * official code, iterations if the run's length is given in those.
 */
static double
linear_factor(double unit, double constant, double decay)
{
	double factor = 1 - fmax(0, unit - constant) / (decay + 1);

	return factor > 0 ? factor : 0;
}

double
nn_learning_rate(const NnTrainOptions *o, int64_t rows, int64_t iteration)
{
	double epochs = (double) o->epochs + o->epochs_decay, epoch; /* from 0 */

	if (o->iterations > 0 && o->lr_policy == NN_LR_LINEAR)
	{
		double constant = epochs > 0 ? floor((double) o->iterations * o->epochs / epochs)
									 : (double) o->iterations;

		return o->lr * linear_factor((double) iteration + 1, constant, o->iterations - constant);
	}
	if (o->iterations > 0)
		epoch = floor(iteration * epochs / o->iterations);
	else
		epoch = (double) (iteration / (rows / o->batch_size));
	switch (o->lr_policy)
	{
		case NN_LR_LINEAR:
			return o->lr * linear_factor(epoch + 1, o->epochs, o->epochs_decay);
		case NN_LR_STEP:
			return o->lr * pow(STEP_FACTOR, floor(epoch / STEP_EPOCHS));
		case NN_LR_COSINE:
			/* half a period in `epochs`, then it rises, as the official one */
			return o->lr * (1 + cos(M_PI * epoch / o->epochs)) / 2;
	}
	return o->lr;
}
