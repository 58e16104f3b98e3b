/*
 * run_validation.h
 *	  Validation: pairs that a run does not train on, and what its networks are
 *	  measured by on them.
 */
#ifndef BICYCLE_ENGINE_RUN_VALIDATION_H
#define BICYCLE_ENGINE_RUN_VALIDATION_H

#include "engine/run_best.h"
#include "engine/run_look.h"
#include "engine/run_metric.h"
#include "engine/run_screen.h"

#define RUN_VALIDATION_SAMPLES 2 /* of an input */

typedef struct RunValidation
{
	bool on; /* there is a query */
	RunData data;
	RunFeed feed; /* decodes, to the networks' size; no batch is made of it */
	RunScreen screen;
	RunMetric metric;
	RunLook look; /* this and all below are the device thread's */
	RunBest best;
} RunValidation;

typedef struct RunMeasured
{
	double value[NN_MEASURES];
	bool present[NN_MEASURES];
} RunMeasured;

extern void run_validation_init(RunValidation *validation);
extern void run_validation_free(RunValidation *validation); /* when no other thread is left */

/* ---- I/O thread. False with *error set ----------------------------------- */

extern void run_validation_begin(RunValidation *validation, const BicycleTrainBegin *begin,
								 const NnConfig *config, const NnTrainOptions *options);

/* Before the first of them: they share the memory of those trained on. */
extern void run_validation_share(RunValidation *validation, const RunData *pairs);

/* All pairs of both kinds are here. Takes the room of the pixels. */
extern bool run_validation_complete(RunValidation *validation, RunData *pairs, Engine *engine,
									const NnConfig *config, const NnTrainOptions *options,
									EngineError *error);

/* How many are trained on, too. Both sets are settled. */
extern int64_t run_validation_overlap(const RunValidation *validation, const RunData *pairs);

/* ---- Device thread. False with *error set -------------------------------- */

/*
 * What compares images takes memory, too: into *looks what it is, read into
 * *metric, and how many pairs it has at a time.
 */
extern bool run_validation_foresee(const RunValidation *validation, const NnConfig *config,
								   NnFitLooks *looks, NnConfig *metric, EngineError *error);

extern bool run_validation_open(RunValidation *validation, const NnConfig *config, NnDevice *device,
								EngineError *error);

/* Whether it is time after an iteration. */
extern bool run_validation_is_due(const RunValidation *validation, int64_t iteration,
								  int64_t iterations, int64_t every);

/* The networks as they are now. */
extern bool run_validation_measure(RunValidation *validation, NnFit *fit, uint64_t seed,
								   RunMeasured *measured, EngineError *error);

#endif /* BICYCLE_ENGINE_RUN_VALIDATION_H */
