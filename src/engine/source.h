/*
 * source.h
 *	  Descriptors that the I/O thread waits for.
 *
 * I/O thread only. A source lies in the structure that owns its descriptor;
 * whoever adds it removes it, and closes the descriptor.
 */
#ifndef BICYCLE_ENGINE_SOURCE_H
#define BICYCLE_ENGINE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

struct Engine;

typedef struct Source
{
	int fd;
	uint32_t events; /* registered now; 0 with fd >= 0: registered for nothing */
	void (*ready)(struct Engine *engine, struct Source *source, uint32_t events);
} Source;

/* False if epoll does not take it. */
extern bool source_add(struct Engine *engine, Source *source, int fd, uint32_t events,
					   void (*ready)(struct Engine *, Source *, uint32_t));
extern void source_watch(struct Engine *engine, Source *source, uint32_t events);
extern void source_remove(struct Engine *engine, Source *source);

/*
 * Waits for at most so many ms (-1: for ever), and calls those that are ready.
 * False, with errno set, if epoll fails.
 */
extern bool source_wait(struct Engine *engine, int ms);

#endif /* BICYCLE_ENGINE_SOURCE_H */
