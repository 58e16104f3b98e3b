/*
 * outbox.c
 *	  What goes out to a client: its output queue, and the first half of closing
 *	  it.
 *
 * I/O thread only. Output is a list of frames that either own a short body or
 * refer to memory of their request, which they keep. Nothing here waits: what
 * cannot be sent now is sent when epoll says so. A request whose last frame has
 * gone is put on Engine.written; what then becomes of it is request.c's affair.
 *
 * A client that does not read is held off in two ways: none of its requests
 * starts while something waits to be sent to it (`jammed`), and nothing more is
 * read from it while OUT_HIGH bytes of small replies wait (`paused`).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/engine.h"

#define OUT_LOW (256 * 1024)
#define FRAMES_A_CALL 32
#define WRITES_A_TURN 2
#define SOCKET_BUFFER (1024 * 1024)

void
connection_close(Connection *connection)
{
	Engine *engine = connection->engine;

	if (connection->dead)
		return;
	connection->dead = true;
	source_remove(engine, &connection->source);
	list_remove(&connection->link);
	list_append(&engine->dead, &connection->link);
}

static void
out_frame_free(Connection *connection, OutFrame *out)
{
	Request *owner = out->owner;

	list_remove(&out->link);
	if (out->data == out->copy)
		count_give(&connection->out_copied, out->frame.length);
	count_give(&connection->out_copied, sizeof(OutFrame));
	free(out);
	if (owner == NULL)
		return;
	INVARIANT(owner->frames > 0);
	if (--owner->frames == 0)
		list_append(&owner->engine->written, &owner->written);
}

void
connection_drop_output(Connection *connection)
{
	list_foreach(node, &connection->out)
		out_frame_free(connection, list_member(OutFrame, link, node));
}

void
connection_join_ring(Connection *connection, int class)
{
	if (!list_empty(&connection->queued[class]) && list_empty(&connection->ring[class]) &&
		!connection->jammed)
		list_append(&connection->engine->ring[class], &connection->ring[class]);
}

void
connection_watch(Connection *connection)
{
	uint32_t events = 0;

	if (connection->dead)
		return;
	if (connection->out_copied > OUT_HIGH)
		connection->paused = true;
	else if (connection->out_copied < OUT_LOW)
		connection->paused = false;
	if (connection->closing || !connection->paused)
		events |= EPOLLIN;
	if (!list_empty(&connection->out) || connection->jammed)
		events |= EPOLLOUT;
	source_watch(connection->engine, &connection->source, events);
}

bool
connection_send(Connection *connection, BicycleFrameType type, uint64_t id, const void *data,
				size_t length, bool copy, Request *owner)
{
	OutFrame *out;

	if (connection->dead)
		return false;
	out = malloc(sizeof(*out) + (copy ? length : 0));
	if (out == NULL)
	{
		log_write(LOG_WARNING, "closed the connection of process %d: out of memory",
				  connection->pid);
		connection_close(connection);
		return false;
	}
	out->frame.length = (uint32_t) length;
	out->frame.type = type;
	out->frame.id = id;
	out->data = copy ? out->copy : data;
	out->sent = 0;
	out->owner = owner;
	list_init(&out->link);
	if (copy && length > 0)
		memcpy(out->copy, data, length);
	if (copy)
		connection->out_copied += length;
	connection->out_copied += sizeof(OutFrame);
	if (owner != NULL)
	{
		owner->frames++;
		list_remove(&owner->written);
	}
	list_append(&connection->out, &out->link);
	if (list_empty(&connection->dirty))
		list_append(&connection->engine->dirty, &connection->dirty);
	return true;
}

void
connection_send_error(Connection *connection, uint64_t id, const EngineError *error, Request *owner)
{
	uint8_t body[ERROR_PACKED_MAX];

	connection_send(connection, BICYCLE_ERROR, id, body, error_pack(error, body), true, owner);
}

void
connection_begin_closing(Connection *connection)
{
	connection->closing = true;
	connection->in_body = false;
	connection->input_start = connection->input_end = 0;
	connection->since = now_ms();
	if (list_empty(&connection->timed))
		list_append(&connection->engine->timed, &connection->timed);
}

/* One call's worth of the queue; returns the number of elements. */
static int
gather(Connection *connection, struct iovec *iov)
{
	int n = 0;
	size_t bytes = 0;

	list_foreach(node, &connection->out)
	{
		OutFrame *out = list_member(OutFrame, link, node);
		size_t head = out->sent < sizeof(out->frame) ? out->sent : sizeof(out->frame);
		size_t body = out->sent - head;

		if (n > 2 * (FRAMES_A_CALL - 1) || bytes > SOCKET_BUFFER)
			break;
		bytes += out->frame.length;
		if (head < sizeof(out->frame))
			iov[n++] = (struct iovec){ (uint8_t *) &out->frame + head, sizeof(out->frame) - head };
		if (body < out->frame.length)
			iov[n++] = (struct iovec){ (void *) (out->data + body), out->frame.length - body };
	}
	return n;
}

/* Takes `n` sent bytes from the front of the queue. */
static void
advance(Connection *connection, size_t n)
{
	while (n > 0)
	{
		OutFrame *out = list_member(OutFrame, link, connection->out.next);
		size_t left = sizeof(out->frame) + out->frame.length - out->sent;

		if (n < left)
		{
			out->sent += n;
			return;
		}
		n -= left;
		out_frame_free(connection, out);
	}
}

/* Up to a turn's share: a client that reads as fast must not block others. */
bool
connection_flush(Connection *connection)
{
	for (int i = 0; i < WRITES_A_TURN && !connection->dead && !list_empty(&connection->out); i++)
	{
		struct iovec iov[2 * FRAMES_A_CALL];
		struct msghdr message = { .msg_iov = iov };
		ssize_t n;

		message.msg_iovlen = (size_t) gather(connection, iov);
		n = sendmsg(connection->source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			connection_close(connection);
		if (n <= 0)
			break;
		advance(connection, (size_t) n);
	}
	if (connection->dead)
		return false;
	if (list_empty(&connection->out))
	{
		if (connection->closing)
			shutdown(connection->source.fd, SHUT_WR);
		else if (connection->jammed)
		{
			connection->jammed = false;
			connection->engine->again = true; /* for what may start now */
			for (int i = 0; i < REQUEST_CLASSES; i++)
				connection_join_ring(connection, i);
		}
	}
	connection_watch(connection);
	return list_empty(&connection->out);
}

bool
connection_send_now(Connection *connection, BicycleFrameType type, uint64_t id)
{
	if (connection->dead || connection->closing)
		return false;
	if (connection_flush(connection) && connection_send(connection, type, id, NULL, 0, true, NULL))
	{
		OutFrame *out;

		if (connection_flush(connection))
			return true;
		if (connection->dead)
			return false;
		out = list_member(OutFrame, link, connection->out.prev);
		if (out->sent > 0)
			return true; /* its first bytes are with the client: the rest follows */
		out_frame_free(connection, out);
		list_remove(&connection->dirty); /* nothing is left to flush, but no more goes in */
	}
	if (connection->dead)
		return false;
	connection->jammed = true;
	connection_watch(connection);
	return false;
}

void
connection_unsend(Connection *connection, uint64_t id)
{
	list_foreach(node, &connection->out)
	{
		OutFrame *out = list_member(OutFrame, link, node);

		/* Only of the reply: the caller keeps its request while they go. */
		if (out->frame.id == id && out->owner != NULL && out->sent == 0)
			out_frame_free(connection, out);
	}
}
