/*
 * batcher.h
 *	  What starts when, and what runs together.
 */
#ifndef BICYCLE_ENGINE_BATCHER_H
#define BICYCLE_ENGINE_BATCHER_H

#include "engine/request.h"

/* What the device runs at once: requests for one model, operation and size. */
typedef struct Batch
{
	Task task;
	List link;     /* Engine.batches */
	Packed *model; /* each of the requests pins it */
	const FrameKind *kind;
	NnExtent extent;
	bool other;           /* than the model's own size; then on the host: */
	size_t reserved;      /* bytes its plans may take, counted in Engine.memory */
	size_t keep;          /* bytes of plans for other sizes that stay with the model */
	size_t arenas;        /* bytes of the host's memory the model's plans may take */
	size_t arenas_shared; /* bytes they may take for more than one image */
	bool make_room;       /* if the device's own memory is short, come back to make room first */

	/* Written by the device thread */
	size_t model_bytes;        /* after the run, */
	size_t model_host;         /* of the host */
	size_t model_extents;      /* of plans for other sizes */
	bool short_of_room;        /* it has come back for room */
	int small;                 /* images that did fit; 0: all */
	EngineError device_failed; /* requests from `done` on are not answered */
	int done;
	bool going; /* the pass is under way */
	NnPass pass;

	int n;
	uint8_t **images; /* of each request: what is read, and then what was made of it */
	/*
	 * (n, nz) of z; of E (n, nz) of mu, then of logvar; of L (n) distances,
	 * then (n, 2, features)
	 */
	float *codes;
	Request *requests[]; /* those that are withdrawn meanwhile run along */
} Batch;

/* inference.c: the task's run and step */
extern void batch_run(Task *task);
extern bool batch_step(Task *task, bool wait);

/* Starts what can be started, and the device. In settle; I/O thread. */
extern void batcher_run(struct Engine *engine);

#endif /* BICYCLE_ENGINE_BATCHER_H */
