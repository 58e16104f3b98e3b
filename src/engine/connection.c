/*
 * connection.c
 *	  What comes in from a client: its input, frame by frame.
 *
 * I/O thread only. Input goes through a small buffer; bodies that are large
 * (image requests, DATA) are received directly into memory that was granted to
 * their request beforehand, so a client cannot make the engine allocate
 * anything by what it sends. Frames are handed to frames.c.
 *
 * A client that breaks the protocol gets an error, then the end of the stream;
 * what it still sends is read and thrown away until it closes too, for closing
 * with unread input would take the error from it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine.h"

#define READS_A_TURN 16 /* then others have their turn */
#define SOCKET_BUFFER (1024 * 1024)
#define GREETING_MS 10000 /* to say hello */
#define CLOSING_MS 5000   /* to read what is left, and close */

static void connection_ready(Engine *engine, Source *source, uint32_t events);

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
connection_free(Connection *connection)
{
	INVARIANT(connection->dead);
	connection_drop_output(connection);
	request_withdraw_all(connection);
	for (int i = 0; i < REQUEST_CLASSES; i++)
		list_remove(&connection->ring[i]);
	list_remove(&connection->dirty);
	list_remove(&connection->timed);
	list_remove(&connection->link);
	close(connection->source.fd);
	INVARIANT(connection->engine->nconnections > 0);
	connection->engine->nconnections--;
	free(connection->input);
	free(connection);
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
		connection_begin_closing(connection);
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

/* A header is here. False if the rest of a small frame is not. */
static bool
begin_frame(Connection *connection, const BicycleFrame *frame)
{
	const uint8_t *body = connection->input + connection->input_start + sizeof(*frame);
	const FrameKind *kind = frame_kind(frame->type);

	if (connection->greeted ? kind == NULL || frame->length < kind->min || frame->length > kind->max
							: frame->length > sizeof(BicycleHello))
	{
		connection_protocol_error(connection, frame->id, "A frame of type %u came with %u bytes.",
								  frame->type, frame->length);
		return true;
	}
	if (connection->greeted && kind->came == NULL)
	{
		connection->input_start += sizeof(*frame);
		if (frame_target(connection, frame, &connection->body_to))
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
		kind->came(connection, frame, body);
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
			frame_received(connection, &connection->frame);
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
			frame_received(connection, &connection->frame);
		}
	}
	else
	{
		connection->input_end += (size_t) n;
		connection_parse(connection);
	}
	return (size_t) n == room || direct;
}

/* A closing one always: what it sends would be reported at once, for ever. */
static bool
connection_reads(const Connection *connection)
{
	return !connection->dead && (connection->closing || connection->out_copied <= OUT_HIGH);
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
		for (int i = 0; i < READS_A_TURN && connection_reads(connection); i++)
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
