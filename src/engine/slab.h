/*
 * slab.h
 *	  Memory for images that the device reads and writes by itself: pieces of
 *	  what it has pinned.
 *
 * R1 A piece belongs to who took it, until it gives it back. All are given back
 *    before the device is closed.
 * R2 Chunks of equal pieces are made as they are wanted, within `limit`, and
 *    kept; what lies idle may be trimmed.
 * R3 Whoever gets none takes other memory, which costs a copy on the device
 *    thread.
 */
#ifndef BICYCLE_ENGINE_SLAB_H
#define BICYCLE_ENGINE_SLAB_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nn/nn.h"

typedef struct Slabs
{
	pthread_mutex_t growing; /* held while a chunk is pinned, which takes a millisecond */
	pthread_mutex_t lock;    /* guards all below, never for long */
	NnDevice *device;        /* NULL: there is no such memory */
	struct SlabChunk *chunks;
	size_t total; /* bytes of all chunks, of one that is being made included */
	size_t used;  /* of pieces that are taken */
	size_t idle;  /* of chunks of which no piece is */
	size_t limit; /* of total */
} Slabs;

extern void slab_init(Slabs *slabs);
extern void slab_open(Slabs *slabs, NnDevice *device); /* nobody else uses them yet */
extern void slab_close(Slabs *slabs);                  /* or any more */

/* Any thread. NULL: there is none. */
extern uint8_t *slab_take(Slabs *slabs, size_t bytes);
extern void slab_give(Slabs *slabs, uint8_t *piece);

/*
 * At most `most` bytes in all, and no more than `more` beyond what there is.
 * Returns what no one has taken; *idle of that could go.
 */
extern size_t slab_limit(Slabs *slabs, size_t most, size_t more, size_t *idle);

/* Frees what is idle. The device's thread: it may wait for the device. */
extern void slab_trim(Slabs *slabs);

#endif /* BICYCLE_ENGINE_SLAB_H */
