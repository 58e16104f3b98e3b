/*
 * settings.h
 *	  The engine's settings, and what those that are 0 follow from: the
 *	  machine's memory and processors.
 *
 * Settings belong to the I/O thread. The functions keep nothing.
 */
#ifndef BICYCLE_ENGINE_SETTINGS_H
#define BICYCLE_ENGINE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nn/nn.h"

typedef struct Settings
{
	char device[BICYCLE_MAX_DEVICE];
	NnPrecision precision;
	int64_t threads;    /* 0: as many as there are processors to run on */
	int64_t cache_size; /* bytes, as all below unless said */
	int64_t engine_memory;
	int64_t gpu_memory;
	int64_t max_batch; /* images */
	int64_t queue_memory;
	int64_t max_model_size;
	int64_t stuck_timeout; /* ms without progress of a task before no pong is said */
	int64_t gpu_retry;     /* ms until a GPU that could not be had is tried again, at first */
	int64_t debug;         /* 1: requests may ask for faults */
} Settings;

extern void settings_default(Settings *settings);

/*
 * False, with the reason in `why`, if there is no such setting or the value is
 * not for it; nothing has changed then.
 */
extern bool settings_set(Settings *settings, const char *name, const char *value, char *why,
						 size_t why_size);
extern int settings_threads(const Settings *settings);

/* What this process may have of the machine (machine.c). */
extern size_t machine_memory(void);
extern size_t machine_memory_limit(const char *groups, const char *root);
extern int machine_processors(void);

#endif /* BICYCLE_ENGINE_SETTINGS_H */
