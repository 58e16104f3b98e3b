/*
 * run_best.h
 *	  The best validation of a run so far, and the weights that it was made
 *	  with.
 *
 * Device thread only. A RunBest of zeros has none.
 */
#ifndef BICYCLE_ENGINE_RUN_BEST_H
#define BICYCLE_ENGINE_RUN_BEST_H

#include "engine/stream.h"
#include "nn/fit.h"

typedef struct RunBest
{
	bool found;
	double value;      /* of the metric that decides */
	int64_t iteration; /* after which it was measured */
	int64_t missed;    /* validations since then, which were no better */
	uint8_t *weights;  /* what a version then had had, as a stream; NULL: not kept */
	size_t length;
} RunBest;

/*
 * Of one more validation; true: it is the best. Equal ones are not, nor are
 * values that are not finite.
 */
extern bool run_best_is(RunBest *best, NnMeasure metric, double value, int64_t iteration);

/* Keeps copies of its tensors in place of earlier ones. False with *error. */
extern bool run_best_keep(RunBest *best, const NnFitSnapshot *version, EngineError *error);

/*
 * What was kept, under the names that it had; into *stream, which is to be
 * freed, and whose names and data lie in *best. False with *error.
 */
extern bool run_best_weights(const RunBest *best, TensorStream *stream, EngineError *error);

/*
 * All of it as the end of a checkpoint's stream, with the digest of the pairs;
 * malloc'ed. run_best_restore puts it back. *same is false if a checkpoint was
 * made with other pairs, of which nothing is taken, and true also for one that
 * has none of this; digest NULL: whatever the pairs were. False with *error.
 */
extern bool run_best_pack(const RunBest *best, const uint8_t digest[BICYCLE_HASH_BYTES],
						  uint8_t **bytes, size_t *length, EngineError *error);
extern bool run_best_restore(RunBest *best, const TensorStream *stream, const uint8_t *digest,
							 bool *same, EngineError *error);
extern void run_best_free(RunBest *best);

#endif /* BICYCLE_ENGINE_RUN_BEST_H */
