/*
 * run_metric.h
 *	  What compares images in a run's validation, LPIPS: weights that the job
 *	  worker sends where they are imported, and a model of them.
 */
#ifndef BICYCLE_ENGINE_RUN_METRIC_H
#define BICYCLE_ENGINE_RUN_METRIC_H

#include "engine/run_look.h"
#include "engine/stream.h"

/* One of zeros has none. */
typedef struct RunMetric
{
	BicycleLoad load;
	char *config;    /* load.config_length bytes, and a NUL; NULL: nothing has come */
	uint8_t *stream; /* load.stream_length bytes; NULL once there is a model */
	uint64_t have;
	size_t keep;      /* bytes of what the model has made of images: targets come again */
	NnModel *model;   /* this and all below are the device thread's */
	uint8_t *pairs;   /* (pairs of a look, 2, size, size, 3) */
	float *distances, /* one a pair of a look */
		*features;
} RunMetric;

static inline bool
run_metric_is_there(const RunMetric *metric)
{
	return metric->config != NULL;
}

/* I/O thread. Takes the room of the stream. False with *error set. */
extern bool run_metric_begin(RunMetric *metric, const BicycleLoad *load, const uint8_t *config,
							 size_t limit, EngineError *error);

/* Device thread: checks what has come, and loads it. False with *error set. */
extern bool run_metric_open(RunMetric *metric, NnDevice *device, const RunLook *look,
							EngineError *error);

/*
 * LPIPS of each pair's first image in `out` and its target, into
 * metric->distances. False with *error set.
 */
extern bool run_metric_compare(RunMetric *metric, const RunLook *look, EngineError *error);

extern void run_metric_free(RunMetric *metric); /* when no other thread is left */

#endif /* BICYCLE_ENGINE_RUN_METRIC_H */
