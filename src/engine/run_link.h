/*
 * run_link.h
 *	  Descriptor 4 of a training engine: frames of the job worker, and the queue
 *	  of those for it.
 *
 * Opened, flushed, ended and freed by the I/O thread, which owns the input. Any
 * thread may send.
 */
#ifndef BICYCLE_ENGINE_RUN_LINK_H
#define BICYCLE_ENGINE_RUN_LINK_H

#include "common/run_protocol.h"
#include "engine/engine_error.h"
#include "engine/list.h"
#include "engine/source.h"

#include <pthread.h>

struct Engine;

/* One frame to be sent. */
typedef struct RunFrame
{
	List link;
	BicycleFrame frame;
	const uint8_t *data; /* into `copy`, or into memory that a later frame of the queue owns */
	size_t sent;         /* bytes of header and body together */
	void *owned;         /* freed with this frame */
	bool checkpoint;     /* last of a checkpoint */
	uint8_t copy[];
} RunFrame;

struct RunLink;

/* I/O thread. After a false, with *error set, the link calls `fail`. */
typedef struct RunLinkOwner
{
	/*
	 * A header has come: may it, and where does the body go (NULL: into memory
	 * of the link, until `frame` returns).
	 */
	bool (*begins)(struct RunLink *link, const BicycleFrame *frame, uint8_t **body,
				   EngineError *error);
	bool (*frame)(struct RunLink *link, const BicycleFrame *frame, const uint8_t *body,
				  EngineError *error);
	void (*fail)(struct RunLink *link, const EngineError *error); /* calls run_link_end */
	void (*checkpoint_gone)(struct RunLink *link);                /* it was written */
} RunLinkOwner;

typedef struct RunLink
{
	Source source;
	struct Engine *engine;
	const RunLinkOwner *owner;
	bool ended;         /* what comes is thrown away */
	BicycleFrame frame; /* being received */
	size_t frame_have;
	uint8_t *body; /* where its body goes; owned if `body_owned` */
	uint8_t *body_owned;
	size_t body_have;

	RunFrame *reserve; /* room for the one ERROR, which is often about memory; NULL once used */

	pthread_mutex_t lock; /* guards all below */
	List out;             /* RunFrame.link */
	unsigned checkpoints; /* ends of checkpoints in it: one at most */
	bool failed;          /* a frame could not be queued for want of memory */
} RunLink;

extern void run_link_init(RunLink *link, struct Engine *engine, const RunLinkOwner *owner);

/* False, with errno set, if it cannot be watched. The descriptor stays open. */
extern bool run_link_open(RunLink *link, int fd);

/*
 * Any thread. Head and tail are copied. Without memory the process ends at the
 * next flush, and the job worker sees EOF and starts again from its checkpoint.
 */
extern void run_link_send(RunLink *link, uint32_t type, const void *head, size_t head_length,
						  const void *tail, size_t tail_length);

/*
 * The same, and DATA.. and END with the stream: nothing comes between. Takes
 * the malloc'ed bytes in any case.
 */
extern void run_link_send_stream(RunLink *link, uint32_t type, const void *head, size_t head_length,
								 const void *tail, size_t tail_length, uint8_t *bytes,
								 size_t length);

/* I/O thread, once: ERROR. It always can be sent. */
extern void run_link_send_error(RunLink *link, const EngineError *error);

/* Nothing is parsed any more. */
extern void run_link_end(RunLink *link);

/* Writes what the socket takes. */
extern void run_link_flush(RunLink *link);

/* Recounts what the fields state. I/O thread. */
extern void run_link_check(RunLink *link);
extern void run_link_free(RunLink *link); /* when no other thread is left */

#endif /* BICYCLE_ENGINE_RUN_LINK_H */
