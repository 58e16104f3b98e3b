/*
 * slab.c
 *	  Pinned memory for images, cut into pieces (slab.h).
 *
 * A chunk has up to CHUNK_PIECES pieces of one size, so that images which are
 * decoded one after the other lie so, too, and are one copy. Sizes are rounded
 * up to an eighth of a power of two: images of all sizes share few of them.
 */
#include "engine/slab.h"

#include <stdlib.h>

#include "common/invariant.h"

#define CHUNK_PIECES 16 /* as many as the device takes at once */
#define CHUNK_BYTES ((size_t) 16 << 20)
#define LEAST_PIECE ((size_t) 4096)

typedef struct SlabChunk
{
	struct SlabChunk *next;
	uint8_t *memory;
	size_t piece; /* bytes of one */
	unsigned pieces, taken;
	bool is_taken[CHUNK_PIECES];
} SlabChunk;

static size_t
chunk_bytes(const SlabChunk *chunk)
{
	return chunk->piece * chunk->pieces;
}

void
slab_init(Slabs *slabs)
{
	*slabs = (Slabs){ 0 };
	pthread_mutex_init(&slabs->growing, NULL);
	pthread_mutex_init(&slabs->lock, NULL);
}

void
slab_open(Slabs *slabs, NnDevice *device)
{
	INVARIANT(slabs->chunks == NULL);
	slabs->device = nn_device_overlaps(device) ? device : NULL;
}

void
slab_close(Slabs *slabs)
{
	INVARIANT(slabs->used == 0);
	slab_trim(slabs);
	INVARIANT(slabs->total == 0);
	slabs->device = NULL;
}

/* ---- Taking and giving --------------------------------------------------- */

static size_t
piece_bytes(size_t bytes)
{
	size_t step = LEAST_PIECE;

	while (step <= bytes / 16)
		step *= 2;
	return (bytes + step - 1) / step * step;
}

/* Lock held. */
static uint8_t *
take_piece(Slabs *slabs, size_t piece)
{
	for (SlabChunk *chunk = slabs->chunks; chunk != NULL; chunk = chunk->next)
		for (unsigned i = 0; chunk->piece == piece && chunk->taken < chunk->pieces; i++)
			if (!chunk->is_taken[i])
			{
				slabs->idle -= chunk->taken == 0 ? chunk_bytes(chunk) : 0;
				chunk->is_taken[i] = true;
				chunk->taken++;
				slabs->used += piece;
				return chunk->memory + i * piece;
			}
	return NULL;
}

static uint8_t *
take_there_is(Slabs *slabs, size_t piece)
{
	uint8_t *taken;

	pthread_mutex_lock(&slabs->lock);
	taken = take_piece(slabs, piece);
	pthread_mutex_unlock(&slabs->lock);
	return taken;
}

/* How many pieces a new chunk may have; they are counted. */
static unsigned
slab_reserve(Slabs *slabs, size_t piece)
{
	size_t n = CHUNK_BYTES / piece, left;

	pthread_mutex_lock(&slabs->lock);
	left = slabs->limit > slabs->total ? slabs->limit - slabs->total : 0;
	n = n < 1 ? 1 : n > CHUNK_PIECES ? CHUNK_PIECES : n;
	n = n < left / piece ? n : left / piece;
	slabs->total += n * piece;
	pthread_mutex_unlock(&slabs->lock);
	return (unsigned) n;
}

/* A new chunk, of which the first piece is taken; `growing` held. */
static uint8_t *
grow(Slabs *slabs, size_t piece)
{
	SlabChunk *chunk = calloc(1, sizeof(SlabChunk));
	unsigned pieces = chunk != NULL ? slab_reserve(slabs, piece) : 0;
	uint8_t *memory = pieces > 0 ? nn_device_pin(slabs->device, pieces * piece) : NULL;
	uint8_t *taken = NULL;

	pthread_mutex_lock(&slabs->lock);
	if (memory != NULL)
	{
		*chunk = (SlabChunk){
			.next = slabs->chunks, .memory = memory, .piece = piece, .pieces = pieces
		};
		slabs->chunks = chunk;
		slabs->idle += chunk_bytes(chunk);
		taken = take_piece(slabs, piece);
	}
	else
	{
		slabs->total -= pieces * piece;
		free(chunk);
	}
	pthread_mutex_unlock(&slabs->lock);
	return taken;
}

uint8_t *
slab_take(Slabs *slabs, size_t bytes)
{
	uint8_t *piece;

	if (slabs->device == NULL || bytes == 0 || bytes > SIZE_MAX / 2)
		return NULL;
	bytes = piece_bytes(bytes);
	if ((piece = take_there_is(slabs, bytes)) != NULL)
		return piece;
	pthread_mutex_lock(&slabs->growing);
	/* another may have made a chunk meanwhile */
	if ((piece = take_there_is(slabs, bytes)) == NULL)
		piece = grow(slabs, bytes);
	pthread_mutex_unlock(&slabs->growing);
	return piece;
}

void
slab_give(Slabs *slabs, uint8_t *piece)
{
	SlabChunk *chunk;
	size_t i;

	pthread_mutex_lock(&slabs->lock);
	for (chunk = slabs->chunks; chunk != NULL; chunk = chunk->next)
		if (piece >= chunk->memory && piece < chunk->memory + chunk_bytes(chunk))
			break;
	INVARIANT(chunk != NULL);
	i = (size_t) (piece - chunk->memory) / chunk->piece;
	INVARIANT(chunk->is_taken[i] && chunk->memory + i * chunk->piece == piece);
	chunk->is_taken[i] = false;
	chunk->taken--;
	slabs->used -= chunk->piece;
	slabs->idle += chunk->taken == 0 ? chunk_bytes(chunk) : 0;
	pthread_mutex_unlock(&slabs->lock);
}

/* ---- Limits -------------------------------------------------------------- */

size_t
slab_limit(Slabs *slabs, size_t most, size_t more, size_t *idle)
{
	size_t spare;

	pthread_mutex_lock(&slabs->lock);
	slabs->limit =
		more < most - (slabs->total < most ? slabs->total : most) ? slabs->total + more : most;
	spare = slabs->total - slabs->used;
	*idle = slabs->idle;
	pthread_mutex_unlock(&slabs->lock);
	return spare;
}

/* One that is idle, out of the list; NULL: there is none. */
static SlabChunk *
take_out_idle(Slabs *slabs)
{
	SlabChunk **at, *chunk;

	pthread_mutex_lock(&slabs->lock);
	for (at = &slabs->chunks; *at != NULL && (*at)->taken > 0;)
		at = &(*at)->next;
	if ((chunk = *at) != NULL)
	{
		*at = chunk->next;
		slabs->idle -= chunk_bytes(chunk);
	}
	pthread_mutex_unlock(&slabs->lock);
	return chunk;
}

void
slab_trim(Slabs *slabs)
{
	SlabChunk *chunk;

	while ((chunk = take_out_idle(slabs)) != NULL)
	{
		nn_device_unpin(slabs->device, chunk->memory);
		pthread_mutex_lock(&slabs->lock);
		slabs->total -= chunk_bytes(chunk);
		pthread_mutex_unlock(&slabs->lock);
		free(chunk);
	}
}
