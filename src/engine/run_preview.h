/*
 * run_preview.h
 *	  Previews of a run, and the watch on the diversity of its samples.
 *
 * Device thread only, but run_preview_free after it has ended. Whatever is
 * false has *error set.
 */
#ifndef BICYCLE_ENGINE_RUN_PREVIEW_H
#define BICYCLE_ENGINE_RUN_PREVIEW_H

#include "engine/engine.h"
#include "engine/run_data.h"
#include "engine/run_look.h"

#define RUN_PREVIEW_ROWS 4
#define RUN_PREVIEW_SAMPLES 4

typedef struct RunPreview
{
	RunLook look;
	int rows, samples; /* 1 without a latent code */
	Image input[RUN_PREVIEW_ROWS], truth[RUN_PREVIEW_ROWS];
	float *z;      /* (samples, nz), the same of all rows and in every preview */
	int collapsed; /* looks in a row that found no diversity */
	bool noted;
} RunPreview;

/* Into one of zeros. run_preview_free is the caller's also on failure. */
extern bool run_preview_open(RunPreview *preview, Engine *engine, const RunData *data,
							 const NnConfig *config, uint64_t seed, EngineError *error);

/* A sheet of the networks as they are now; *png is malloc'ed. */
extern bool run_preview_sheet(RunPreview *preview, NnFit *fit, uint8_t **png, size_t *length,
							  EngineError *error);

/* Whether it is time after an iteration. */
extern bool run_preview_watches(const RunPreview *preview, int64_t iteration, int64_t iterations);

/* Writes *diversity when it is time. *collapsed: say so, once in a run. */
extern bool run_preview_watch(RunPreview *preview, NnFit *fit, int64_t iteration,
							  int64_t iterations, double *diversity, bool *collapsed,
							  EngineError *error);
extern void run_preview_free(RunPreview *preview);

#endif /* BICYCLE_ENGINE_RUN_PREVIEW_H */
