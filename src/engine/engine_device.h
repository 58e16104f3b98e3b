/*
 * engine_device.h
 *	  The device that the engine computes on: opening, replacing, trying again.
 *
 * Owned by the I/O thread, but for what the device thread fills while it opens.
 * Others read the fields of the first group; engine_device.c alone writes them,
 * but for the mark `changed`, which the loop takes back, and `nn` of a training
 * engine, which run_loop.c opens.
 */
#ifndef BICYCLE_ENGINE_DEVICE_H
#define BICYCLE_ENGINE_DEVICE_H

#include "engine/engine_error.h"
#include "engine/executor.h"
#include "engine/slab.h"
#include "nn/nn.h"

#define DEVICE_OPEN_MS (10 * 60 * 1000) /* after which a GPU that is being opened hangs */

typedef struct EngineDevice
{
	NnDevice *nn;          /* NULL: see error */
	EngineError error;     /* why there is none */
	char name[128];        /* as bicycle_engine() shows it */
	NnPrecision automatic; /* what precision auto means on it */
	size_t memory;         /* what it may take of memory of its own; 0: it has none */
	unsigned batches;      /* that it may have at once */
	bool opened;           /* the first opening has ended */
	bool busy;             /* being opened or replaced: nothing starts on it */
	bool change;           /* to be replaced when all is quiet */
	bool changed;          /* mark: it is another, or has more or less memory */
	bool lost;             /* mark: its state is not to be trusted */

	char wanted[64]; /* as the neural core calls it */
	int threads;
	int64_t gpu_memory; /* of the setting, as the device was told */
	char lack[80];      /* why it is not a GPU, where one was looked for */
	int gpus;           /* that were seen; 0: none, or none was looked for */
	bool lacking;       /* there is a GPU that could not be had; it may be later */
	bool found;         /* it can be had now */
	bool setting;       /* the device thread has set_task */
	bool trying;        /* the device thread has try_task */
	int64_t try_ms;     /* when the next try is due */
	int64_t try_wait;   /* what is waited after it */
	Slabs slabs;        /* memory for images that the device reads itself */
	bool trimming;      /* the device thread has trim_task */
	bool giving_back;   /* the device thread has back_task */
	bool back_again;    /* it was asked for meanwhile */
	int64_t back_ms;    /* when it is due; 0: nothing has run since the last time */
	int64_t say_ms;     /* when the supervisor is told next that it is being opened */
	uint64_t work;      /* batches, and times that memory came free, when last looked at */
	Task back_task;
	Task open_task, set_task, try_task, trim_task;
} EngineDevice;

/* Opens what the settings name, in place of what there is. */
extern void device_open(struct Engine *engine);

/* Gives it the threads and the limit of memory of the settings. */
extern void device_set(struct Engine *engine);

/* Another device is set: it is opened when all is quiet. */
extern void device_change(struct Engine *engine);

/* Whether to replace it now; the models must go before device_open. */
extern bool device_is_due(const struct Engine *engine);

/* There is none and none is being opened. */
extern bool device_is_missing(const struct Engine *engine);

/* The engine ends; what it has not answered is tried again. */
extern void device_lost(struct Engine *engine, const EngineError *error);

/*
 * Memory of a GPU that the device only keeps goes back to it: now, and after
 * some time without work (device_tick).
 */
extern void device_give_back(struct Engine *engine);

/* Tries a GPU again that could not be had, when that is due. */
extern void device_tick(struct Engine *engine, int64_t now);
extern bool device_needs_tick(const struct Engine *engine);

/* Has the device thread free what slabs have idle. */
extern void device_trim(struct Engine *engine);
extern void device_close(struct Engine *engine); /* when no thread runs any more */

#endif /* BICYCLE_ENGINE_DEVICE_H */
