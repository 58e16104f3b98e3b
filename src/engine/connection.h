/*
 * connection.h
 *	  One client: its input, frame by frame, and its output queue.
 *
 * I/O thread only. A connection belongs to the engine's list; its requests
 * belong to it (request.h). It is closed in two steps, so that callers may go
 * on using it: connection_close marks it and takes it from epoll,
 * connection_free at the end of the loop's turn withdraws its requests and
 * frees it.
 */
#ifndef BICYCLE_ENGINE_CONNECTION_H
#define BICYCLE_ENGINE_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/protocol.h"
#include "engine/engine_error.h"
#include "engine/list.h"
#include "engine/source.h"

struct Request;

/* What is started in turns of its own. */
enum RequestClass
{
	CLASS_INTERACTIVE,
	CLASS_BULK,
	CLASS_LIGHT, /* needs no model, and so no device */
	REQUEST_CLASSES
};

#define INPUT_BUFFER (64 * 1024) /* holds any frame whose body is not received into a request */
#define ID_BUCKETS 256

/* Freed when written, or when withdrawn before its first byte was. */
typedef struct OutFrame
{
	List link; /* Connection.out */
	BicycleFrame frame;
	const uint8_t *data;   /* into `copy`, or into memory of `owner` */
	size_t sent;           /* bytes of header and body together */
	struct Request *owner; /* kept until this frame is gone; may be NULL */
	uint8_t copy[];
} OutFrame;

typedef struct Connection
{
	Source source;
	struct Engine *engine;
	List link;                  /* Engine.connections, or Engine.dead */
	List dirty;                 /* Engine.dirty: has something to flush */
	List timed;                 /* Engine.timed: has not greeted yet, or is closing */
	List ring[REQUEST_CLASSES]; /* Engine.ring: has requests in queued[] that may start */
	uint32_t database;
	int32_t pid;
	bool greeted;
	bool closing;  /* input is thrown away; when `out` is empty, SHUT_WR */
	bool dead;     /* closed; freed at the end of the loop's turn */
	bool paused;   /* too many replies unread: nothing is read until they are */
	bool jammed;   /* the client does not read: nothing of it starts until it does */
	int64_t since; /* ms: accepted, or began closing */

	uint8_t *input; /* INPUT_BUFFER bytes */
	size_t input_start, input_end;
	BicycleFrame frame; /* whose body is being received into `body_to` */
	uint8_t *body_to;
	size_t body_left;
	bool in_body;

	List out;          /* OutFrame.link */
	size_t out_copied; /* bytes: an OutFrame for each, and bodies they own */

	List requests; /* Request.all */
	unsigned nrequests;
	struct Request *ids[ID_BUCKETS]; /* chained by Request.id_next */
	size_t place;                    /* bytes of the queue held by its requests */
	List queued[REQUEST_CLASSES];    /* Request.link: ready to start */
} Connection;

/* ---- Output (outbox.c) --------------------------------------------------- */

/*
 * The body is copied, or memory of `owner`, which is kept until the frame is
 * gone. False if closed, also for want of memory just now.
 */
extern bool connection_send(Connection *connection, BicycleFrameType type, uint64_t id,
							const void *data, size_t length, bool copy, struct Request *owner);
extern void connection_send_error(Connection *connection, uint64_t id, const EngineError *error,
								  struct Request *owner);

/*
 * A frame without body, now. False if it was not sent: the connection is closed
 * or closing, or its client does not read and it is jammed.
 */
extern bool connection_send_now(Connection *connection, BicycleFrameType type, uint64_t id);

/* Writes what the client takes; true if nothing is left to send. */
extern bool connection_flush(Connection *connection);

/* Drops frames of the reply under id of which nothing was written yet. */
extern void connection_unsend(Connection *connection, uint64_t id);
extern void connection_drop_output(Connection *connection);

/* From here on input is thrown away. */
extern void connection_begin_closing(Connection *connection);
extern void connection_close(Connection *connection);

/* What epoll is asked for; called after whatever may have changed it. */
extern void connection_watch(Connection *connection);

#define OUT_HIGH (1024 * 1024) /* unread bytes of small replies: nothing more is read */

/* Lets the connection's requests of a class have their turn. */
extern void connection_join_ring(Connection *connection, int class);

/* ---- Input (connection.c) ------------------------------------------------ */

extern void connection_accept(struct Engine *engine, int fd); /* takes fd over */
extern void connection_free(Connection *connection);          /* only if it is dead */
extern void connection_tick(Connection *connection, int64_t now);

#endif /* BICYCLE_ENGINE_CONNECTION_H */
