/*
 * sizing.h
 *	  At which size the network runs for an image, and what memory that takes.
 *
 * Filled on the pool, by sizing_find, when the image's header is read; then
 * only read. `limits` is filled before, on the I/O thread.
 */
#ifndef BICYCLE_ENGINE_SIZING_H
#define BICYCLE_ENGINE_SIZING_H

#include <stdbool.h>
#include <stddef.h>

#include "nn/nn.h"

struct Request;

typedef struct Sizing
{
	bool known;
	NnExtent extent;   /* that the network runs at */
	bool other;        /* than the model's own */
	int width, height; /* of the answer; 0: the network's */
	size_t work;       /* bytes held from decoding to reply, besides the body */
	size_t plan;       /* bytes of a plan for one image */

	bool gpu;         /* the plan lies in memory of its own */
	size_t most_host; /* of both, beside the model; or of work, if a GPU has the plan */
	size_t most_gpu;  /* of the plan, on a GPU */
} Sizing;

/* What a request holds at its model's own size. */
extern size_t sizing_own_work(const struct Request *request);

/* I/O thread, before the request goes to the pool for the first time. */
extern void sizing_limits(struct Request *request);

/* Reads the header first. False: the request has an error. */
extern bool sizing_find(struct Request *request);

/* Bytes of work that the request needs and is not charged with. */
extern size_t sizing_wants(const struct Request *request);

#endif /* BICYCLE_ENGINE_SIZING_H */
