/*
 * demand.h
 *	  Requests that need a model, and which client is asked for it.
 *
 * I/O thread only.
 */
#ifndef BICYCLE_ENGINE_DEMAND_H
#define BICYCLE_ENGINE_DEMAND_H

#include "engine/request.h"

/* The request waits for its model, resident or not. It may fail at once. */
extern void demand_want(Request *request);

/* Moves on who can go on, and asks for what is missing. In settle. */
extern void demand_run(struct Engine *engine);

/* Asks others where nothing comes. */
extern void demand_tick(struct Engine *engine, int64_t now);

#endif /* BICYCLE_ENGINE_DEMAND_H */
