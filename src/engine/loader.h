/*
 * loader.h
 *	  The gate of the loader: models and files, one at a time.
 *
 * I/O thread only.
 */
#ifndef BICYCLE_ENGINE_LOADER_H
#define BICYCLE_ENGINE_LOADER_H

#include "engine/request.h"

/* Puts a request in the line before the loader; as request_work. */
extern void loader_add(Request *request, void (*run)(Request *), void (*done)(Request *));

/* It gets nothing now: see loader.c. */
extern bool loader_rests(const struct Engine *engine);

/* Hands over what may go. In settle. */
extern void loader_run(struct Engine *engine);

#endif /* BICYCLE_ENGINE_LOADER_H */
