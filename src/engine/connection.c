/*
 * connection.c
 *	  One client: its input, frame by frame, and its output queue.
 *
 * I/O thread only. Input goes through a small buffer; bodies that are large
 * (image requests, DATA) are received directly into memory that was granted to
 * their request beforehand, so a client cannot make the engine allocate
 * anything by what it sends. Output is a list of frames that either own a short
 * body or refer to memory of their request, which they keep alive. Nothing here
 * waits: what cannot be sent now is sent when epoll says so.
 *
 * A client that does not read is held off in two ways: none of its requests
 * starts while something waits to be sent to it (`jammed`, see batcher.c), and
 * nothing more is read from it while OUT_HIGH bytes of small replies wait
 * (`paused`).
 *
 * A client that breaks the protocol gets an error, then the end of the stream;
 * what it still sends is read and thrown away until it closes too, for closing
 * with unread input would take the error from it.
 *
 * A connection is closed in two steps, so that callers may go on using it:
 * connection_close marks it and takes it from epoll, connection_free at the end
 * of the loop's turn withdraws its requests and frees it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/engine.h"

#define OUT_HIGH (1024 * 1024)
#define OUT_LOW (256 * 1024)
#define READS_A_TURN 16 /* then others have their turn */
#define FRAMES_A_CALL 32
#define WRITES_A_TURN 2
#define SOCKET_BUFFER (1024 * 1024)
#define GREETING_MS 10000 /* to say hello */
#define CLOSING_MS 5000   /* to read what is left, and close */

static void connection_ready(Engine *engine, Source *source, uint32_t events);

/* Takes fd over. */
void
connection_accept(Engine *engine, int fd)
{
	struct ucred peer = { 0 };
	socklen_t length = sizeof(peer);
	int size = SOCKET_BUFFER;
	Connection *connection;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid())
	{
		log_write(LOG_WARNING, "refused a connection of user %u, process %d", (unsigned) peer.uid,
				  (int) peer.pid);
		close(fd);
		return;
	}
	connection = calloc(1, sizeof(*connection));
	if (connection != NULL)
		connection->input = malloc(INPUT_BUFFER);
	if (connection == NULL || connection->input == NULL ||
		!source_add(engine, &connection->source, fd, EPOLLIN, connection_ready))
	{
		log_write(LOG_WARNING, "refused a connection of process %d: out of memory", (int) peer.pid);
		if (connection != NULL)
			free(connection->input);
		free(connection);
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	connection->engine = engine;
	connection->pid = peer.pid;
	connection->since = now_ms();
	list_init(&connection->dirty);
	list_append(&engine->timed, &connection->timed);
	list_init(&connection->out);
	list_init(&connection->requests);
	for (int i = 0; i < REQUEST_CLASSES; i++)
	{
		list_init(&connection->ring[i]);
		list_init(&connection->queued[i]);
	}
	list_append(&engine->connections, &connection->link);
	engine->nconnections++;
}

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
frame_free(Connection *connection, OutFrame *out)
{
	Request *owner = out->owner;

	list_remove(&out->link);
	if (out->data == out->copy)
		connection->out_copied -= out->frame.length;
	connection->out_copied -= sizeof(OutFrame);
	free(out);
	if (owner != NULL)
		request_frame_gone(owner);
}

/* Only for connections that connection_close has closed. */
void
connection_free(Connection *connection)
{
	list_foreach(node, &connection->out) frame_free(connection, list_member(OutFrame, link, node));
	while (!list_empty(&connection->requests))
		request_withdraw(list_member(Request, all, connection->requests.next));
	for (int i = 0; i < REQUEST_CLASSES; i++)
		list_remove(&connection->ring[i]);
	list_remove(&connection->dirty);
	list_remove(&connection->timed);
	list_remove(&connection->link);
	close(connection->source.fd);
	connection->engine->nconnections--;
	free(connection->input);
	free(connection);
}

/* ---- Output -------------------------------------------------------------- */

/*
 * What the connection waits for: depends on what there is to send and on
 * whether it may send us anything.
 */
static void
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
	if (!list_empty(&connection->out))
		events |= EPOLLOUT;
	source_watch(connection->engine, &connection->source, events);
}

/*
 * Queues a frame. The body is copied, or it is memory of `owner`. With an owner
 * the frame keeps the request until it is gone. False, and the connection is
 * closed, if there is no memory.
 */
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
		owner->frames++;
	list_append(&connection->out, &out->link);
	if (list_empty(&connection->dirty))
		list_append(&connection->engine->dirty, &connection->dirty);
	return true;
}

void
connection_send_error(Connection *connection, uint64_t id, const EngineError *error, Request *owner)
{
	uint8_t body[ERROR_PACKED_MAX];

	connection_send(connection, BICYCLE_ERROR, id, body, error_pack(error, body, sizeof(body)),
					true, owner);
}

/* From here on input is thrown away. */
static void
begin_closing(Connection *connection)
{
	connection->closing = true;
	connection->in_body = false;
	connection->input_start = connection->input_end = 0;
	connection->since = now_ms();
	if (list_empty(&connection->timed))
		list_append(&connection->engine->timed, &connection->timed);
}

/*
 * The client does not keep to the protocol: it is told so and the connection
 * ends.
 */
void
connection_protocol_error(Connection *connection, uint64_t id, const char *detail, ...)
{
	EngineError error;
	char text[512];
	va_list args;

	if (connection->closing || connection->dead)
		return;
	va_start(args, detail);
	vsnprintf(text, sizeof(text), detail, args);
	va_end(args);
	error_set(&error, "08P01", "protocol violation between bicycle's client and its engine");
	error_detail(&error, "%s", text);
	log_write(LOG_WARNING, "process %d broke the protocol: %s", connection->pid, text);

	/*
	 * Its requests are withdrawn now, so that no more frames come for them;
	 * those on their way are not worth sending.
	 */
	while (!list_empty(&connection->requests))
		request_withdraw(list_member(Request, all, connection->requests.next));
	connection_send_error(connection, id, &error, NULL);
	begin_closing(connection);
}

/*
 * One call's worth of the output queue as an iovec; returns the number of its
 * elements.
 */
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
		frame_free(connection, out);
	}
}

/*
 * Writes what the client takes, up to the share of one turn: one that reads as
 * fast as this writes must not keep others waiting.
 */
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
			for (int i = 0; i < REQUEST_CLASSES; i++)
				if (!list_empty(&connection->queued[i]) && list_empty(&connection->ring[i]))
					list_append(&connection->engine->ring[i], &connection->ring[i]);
		}
	}
	connection_watch(connection);
	return list_empty(&connection->out);
}

/*
 * Sends a frame without body now, before this returns, or not at all: then the
 * client does not read and is marked jammed.
 */
bool
connection_send_now(Connection *connection, BicycleFrameType type, uint64_t id)
{
	OutFrame *out;

	if (connection->dead || connection->closing)
		return false;
	if (connection_flush(connection) && connection_send(connection, type, id, NULL, 0, true, NULL))
	{
		if (connection_flush(connection))
			return true;
		if (connection->dead)
			return false;
		out = list_member(OutFrame, link, connection->out.prev);
		if (out->sent > 0)
			return true; /* its first bytes are with the client: the rest follows */
		frame_free(connection, out);
		connection_watch(connection);
	}
	if (list_empty(&connection->out))
		return false;
	connection->jammed = true;
	return false;
}

void
connection_unsend(Connection *connection, uint64_t id)
{
	list_foreach(node, &connection->out)
	{
		OutFrame *out = list_member(OutFrame, link, node);

		/*
		 * Only frames of the reply: the caller keeps its request while they go.
		 */
		if (out->frame.id == id && out->owner != NULL && out->sent == 0)
			frame_free(connection, out);
	}
}

/* ---- Input --------------------------------------------------------------- */

static void
connection_hello(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleHello hello;
	EngineError error;

	if (frame->type != BICYCLE_HELLO || frame->length != sizeof(hello))
	{
		connection_protocol_error(connection, frame->id,
								  "The first frame must be a hello; it has type %u and %u bytes.",
								  frame->type, frame->length);
		return;
	}
	memcpy(&hello, body, sizeof(hello));
	hello.build[sizeof(hello.build) - 1] = '\0';
	if (hello.magic != BICYCLE_MAGIC)
	{
		connection_protocol_error(connection, frame->id, "The hello begins with 0x%08x.",
								  hello.magic);
		return;
	}
	if (hello.protocol != BICYCLE_PROTOCOL || strcmp(hello.build, BICYCLE_VERSION) != 0)
	{
		error_set(&error, "55000", "bicycle's engine and library are not of the same version");
		error_detail(&error,
					 "The engine is %s with protocol %d, the library is %s with protocol %u.",
					 BICYCLE_VERSION, BICYCLE_PROTOCOL, hello.build, hello.protocol);
		error_hint(&error, "After an update of bicycle start new sessions; if that does not help, "
						   "restart the server.");
		connection_send_error(connection, frame->id, &error, NULL);
		begin_closing(connection);
		return;
	}
	connection->database = hello.database;
	connection->greeted = true;
	list_remove(&connection->timed);

	memset(&hello, 0, sizeof(hello));
	hello.magic = BICYCLE_MAGIC;
	hello.protocol = BICYCLE_PROTOCOL;
	strcpy(hello.build, BICYCLE_VERSION);
	hello.database = connection->database;
	hello.pid = getpid();
	connection_send(connection, BICYCLE_HELLO, 0, &hello, sizeof(hello), true, NULL);
}

/*
 * The header of a frame is here. Returns false if the rest of a small one has
 * not come.
 */
static bool
begin_frame(Connection *connection, const BicycleFrame *frame)
{
	const uint8_t *body = connection->input + connection->input_start + sizeof(*frame);

	if (connection->greeted ? !frame_length_fits(frame) : frame->length > sizeof(BicycleHello))
	{
		connection_protocol_error(connection, frame->id, "A frame of type %u came with %u bytes.",
								  frame->type, frame->length);
		return true;
	}
	if (connection->greeted && frame_is_direct(frame->type))
	{
		connection->input_start += sizeof(*frame);
		if (request_target(connection, frame, &connection->body_to))
		{
			connection->frame = *frame;
			connection->body_left = frame->length;
			connection->in_body = true;
		}
		return true;
	}
	if (connection->input_end - connection->input_start < sizeof(*frame) + frame->length)
		return false;
	connection->input_start += sizeof(*frame) + frame->length;
	if (connection->greeted)
		request_frame(connection, frame, body);
	else
		connection_hello(connection, frame, body);
	return true;
}

/* Takes from the input buffer all that is complete. */
static void
connection_parse(Connection *connection)
{
	while (!connection->closing && !connection->dead)
	{
		size_t available = connection->input_end - connection->input_start;
		BicycleFrame frame;

		if (connection->in_body)
		{
			size_t n = available < connection->body_left ? available : connection->body_left;

			if (n > 0)
				memcpy(connection->body_to, connection->input + connection->input_start, n);
			connection->body_to += n;
			connection->body_left -= n;
			connection->input_start += n;
			if (connection->body_left > 0)
				break;
			connection->in_body = false;
			request_received(connection, &connection->frame);
			continue;
		}
		if (available < sizeof(frame))
			break;
		memcpy(&frame, connection->input + connection->input_start, sizeof(frame));
		if (!begin_frame(connection, &frame))
			break;
	}
	if (connection->input_start > 0)
	{
		memmove(connection->input, connection->input + connection->input_start,
				connection->input_end - connection->input_start);
		connection->input_end -= connection->input_start;
		connection->input_start = 0;
	}
}

/* Reads once; false if there is nothing now. */
static bool
connection_read(Connection *connection)
{
	bool direct = connection->in_body && connection->input_end == 0 && !connection->closing;
	uint8_t *to = direct ? connection->body_to : connection->input + connection->input_end;
	size_t room = direct ? connection->body_left : INPUT_BUFFER - connection->input_end;
	ssize_t n = recv(connection->source.fd, to, room, MSG_DONTWAIT);

	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0)
	{
		connection_close(connection);
		return false;
	}
	if (connection->closing)
		return true;
	if (direct)
	{
		connection->body_to += n;
		connection->body_left -= (size_t) n;
		if (connection->body_left == 0)
		{
			connection->in_body = false;
			request_received(connection, &connection->frame);
		}
	}
	else
	{
		connection->input_end += (size_t) n;
		connection_parse(connection);
	}
	return (size_t) n == room || direct;
}

static void
connection_ready(Engine *engine, Source *source, uint32_t events)
{
	Connection *connection = list_member(Connection, source, source);

	if (connection->dead)
		return;
	/* Input first: it may withdraw what would be written. */
	if (events & EPOLLIN)
	{
		for (int i = 0; i < READS_A_TURN && !connection->dead && connection->out_copied <= OUT_HIGH;
			 i++)
			if (!connection_read(connection))
				break;
	}
	if ((events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
		connection_close(connection);
	if (events & EPOLLOUT)
		connection_flush(connection);
	connection_watch(connection);
}

void
connection_tick(Connection *connection, int64_t now)
{
	if ((connection->closing && now - connection->since > CLOSING_MS) ||
		(!connection->greeted && now - connection->since > GREETING_MS))
		connection_close(connection);
}
