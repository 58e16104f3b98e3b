/*
 * room.h
 *	  Which models go to make room, and when.
 *
 * I/O thread only.
 */
#ifndef BICYCLE_ENGINE_ROOM_H
#define BICYCLE_ENGINE_ROOM_H

#include "engine/cache.h"

/*
 * Takes bytes of the engine's memory. False if they are not free; then a model
 * is going, if one may, so that a later try may succeed: one that nobody wants
 * now, or with `wanted_too` also one that has requests but had its turn.
 */
extern bool room_take(struct Engine *engine, size_t bytes, bool wanted_too);

/* Models or plans are being freed, and no request must run first. */
extern bool room_is_freed(const struct Engine *engine);

/* Bytes that its plan takes beyond what its model has of the host's. */
extern size_t room_lacks(const struct Request *request);

/*
 * The most that one ahead of the device lacks: of those that are decoded, and
 * with `sized` of those that wait for memory first, that included.
 */
extern size_t room_ahead(const struct Engine *engine, bool sized);

/* Whether others hold so many that `bytes` come free, and it waits for them. */
extern bool room_is_held(const struct Engine *engine, struct Request *request, size_t bytes);

/* Not for too long yet. It has begun to. */
extern bool room_may_wait(struct Request *request);

/* Takes a stream's charge, and leaves what is ahead of it. */
extern bool room_take_beside(struct Engine *engine, const struct Request *stream);

/* One that nobody wants goes.  False: there is none. */
extern bool room_evict_idle(struct Engine *engine);

/* In the device's memory; NULL: for one to come. False: nothing may go. */
extern bool room_make(struct Engine *engine, const Packed *growing);

/* What the cache may take has changed: what did not fit may fit now. */
extern void room_limit_changed(struct Engine *engine);

/* All models go.  For when nothing is started. */
extern void room_clear(struct Engine *engine);

/*
 * Counts pinned memory that no image is in, and trims it when others wait for
 * memory.
 */
extern void room_pinned(struct Engine *engine);

/* Evicts until the cache is within its size, if marked (`trim`). */
extern void room_run(struct Engine *engine);

#endif /* BICYCLE_ENGINE_ROOM_H */
