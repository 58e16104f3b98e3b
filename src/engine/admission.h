/*
 * admission.h
 *	  Who gets memory: places in the queue for image requests, the engine's
 *	  memory for streams.
 *
 * I/O thread only.
 */
#ifndef BICYCLE_ENGINE_ADMISSION_H
#define BICYCLE_ENGINE_ADMISSION_H

#include <stdint.h>

struct Engine;
struct Request;

/* Takes the limits of all budgets from the settings. */
extern void budget_limits(struct Engine *engine);

/* Grants what can be granted. In settle, and when a request comes. */
extern void admission_run(struct Engine *engine);

/* Fails a request for a place that there never will be. */
extern void admission_refuse_place(struct Request *request, uint64_t bytes);

#endif /* BICYCLE_ENGINE_ADMISSION_H */
