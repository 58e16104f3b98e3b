/*
 * run_link.c
 *	  Descriptor 4 of a training engine: frames from the trainer, and the queue
 *	  of those for it.
 *
 * Input belongs to the I/O thread. A frame's length is checked against its type
 * and the state before its body is received (run_frame_begins), so the
 * trainer cannot make the engine allocate what it has not been told it may.
 * After an error nothing is parsed any more: what comes is thrown away, so that
 * a trainer in the middle of a long write gets to read why. EOF ends the
 * process at once, as on descriptor 3.
 *
 * Any thread may queue output, under the link's lock; the I/O thread writes it.
 * A frame owns its bytes, or the last frame of a stream does for all before it,
 * since frames leave in order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/run.h"

#define FRAMES_A_TURN 64 /* then the control lines have their turn */

void
run_link_init(RunLink *link)
{
	memset(link, 0, sizeof(*link));
	link->source.fd = -1;
	list_init(&link->out);
	pthread_mutex_init(&link->lock, NULL);
}

static void
frame_free(RunFrame *frame)
{
	free(frame->owned);
	free(frame);
}

/* When no other thread is left. */
void
run_link_free(RunLink *link)
{
	while (!list_empty(&link->out))
	{
		RunFrame *frame = list_member(RunFrame, link, link->out.next);

		list_remove(&frame->link);
		frame_free(frame);
	}
	free(link->body_owned);
	free(link->reserve);
	pthread_mutex_destroy(&link->lock);
}

/* ---- Output -------------------------------------------------------------- */

static RunFrame *
frame_new(uint32_t type, const void *data, size_t length, bool copy)
{
	RunFrame *frame = malloc(sizeof(*frame) + (copy ? length : 0));

	if (frame == NULL)
		return NULL;
	memset(frame, 0, sizeof(*frame));
	frame->frame = (BicycleFrame){ .length = (uint32_t) length, .type = type };
	frame->data = copy ? frame->copy : data;
	if (copy && length > 0)
		memcpy(frame->copy, data, length);
	return frame;
}

/*
 * Queues a list of frames as a whole; NULL members mean that there was no
 * memory, which the I/O thread then acts on.
 */
static void
queue(Run *run, List *frames, bool failed)
{
	pthread_mutex_lock(&run->link.lock);
	while (!list_empty(frames))
	{
		List *node = frames->next;

		list_remove(node);
		list_append(&run->link.out, node);
	}
	if (failed)
		run->link.failed = true;
	pthread_mutex_unlock(&run->link.lock);
	eventfd_write(run->engine->completions.fd, 1);
}

/*
 * Without memory for so little the process ends: the trainer then sees EOF and
 * starts again from its checkpoint.
 */
bool
run_link_send(Run *run, uint32_t type, const void *data, size_t length)
{
	RunFrame *frame = frame_new(type, data, length, true);
	List frames;

	list_init(&frames);
	if (frame != NULL)
		list_append(&frames, &frame->link);
	queue(run, &frames, frame == NULL);
	return frame != NULL;
}

void
run_link_send_error(Run *run, const EngineError *error)
{
	RunFrame *frame = run->link.reserve;
	List frames;

	run->link.reserve = NULL;
	memset(frame, 0, sizeof(*frame));
	frame->data = frame->copy;
	frame->frame.type = BICYCLE_ERROR;
	frame->frame.length = (uint32_t) error_pack(error, frame->copy, ERROR_PACKED_MAX);
	list_init(&frames);
	list_append(&frames, &frame->link);
	queue(run, &frames, false);
}

/* The bytes belong to the queue from here on, whatever is returned. */
bool
run_link_send_stream(Run *run, uint8_t *bytes, size_t length, bool checkpoint)
{
	List frames;
	RunFrame *frame = NULL;
	bool whole = true;

	list_init(&frames);
	for (size_t at = 0; at < length && whole; at += BICYCLE_MAX_FRAME)
	{
		frame = frame_new(BICYCLE_DATA, bytes + at,
						  length - at < BICYCLE_MAX_FRAME ? length - at : BICYCLE_MAX_FRAME, false);
		whole = frame != NULL;
		if (whole)
			list_append(&frames, &frame->link);
	}
	/* no END after a gap: what has come would be taken for all of it */
	frame = whole ? frame_new(BICYCLE_END, NULL, 0, true) : NULL;
	if (frame == NULL)
	{
		/*
		 * Nothing frees `bytes` then, which frames may refer to; the process
		 * ends.
		 */
		queue(run, &frames, true);
		return false;
	}
	frame->owned = bytes;
	frame->checkpoint = checkpoint;
	list_append(&frames, &frame->link);
	queue(run, &frames, false);
	return true;
}

/* A frame has been written. */
static void
frame_gone(Run *run, RunFrame *frame)
{
	if (frame->checkpoint)
	{
		pthread_mutex_lock(&run->lock);
		run->checkpoint_queued = false;
		pthread_cond_broadcast(&run->wake);
		pthread_mutex_unlock(&run->lock);
	}
	frame_free(frame);
}

/* Writes what is left of a frame; false if the socket takes no more now. */
static bool
write_frame(RunLink *link, RunFrame *frame)
{
	const size_t header = sizeof(BicycleFrame);
	const size_t total = header + frame->frame.length;

	while (frame->sent < total)
	{
		struct iovec parts[2];
		struct msghdr message = { .msg_iov = parts };
		size_t body = frame->sent > header ? frame->sent - header : 0;
		ssize_t n;

		if (frame->sent < header)
			parts[message.msg_iovlen++] =
				(struct iovec){ (char *) &frame->frame + frame->sent, header - frame->sent };
		if (frame->frame.length > body)
			parts[message.msg_iovlen++] =
				(struct iovec){ (void *) (frame->data + body), frame->frame.length - body };
		n = sendmsg(link->source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			_exit(1); /* the trainer is gone */
		if (n < 0)
			return false;
		frame->sent += (size_t) n;
	}
	return true;
}

static RunFrame *
first_frame(RunLink *link, bool *failed)
{
	RunFrame *frame = NULL;

	pthread_mutex_lock(&link->lock);
	if (!list_empty(&link->out))
		frame = list_member(RunFrame, link, link->out.next);
	*failed = link->failed;
	pthread_mutex_unlock(&link->lock);
	return frame;
}

/* Writes what the socket takes. */
void
run_link_flush(Run *run)
{
	RunLink *link = &run->link;
	RunFrame *frame;
	bool failed;

	if (link->source.fd < 0)
		return;
	while ((frame = first_frame(link, &failed)) != NULL && write_frame(link, frame))
	{
		pthread_mutex_lock(&link->lock);
		list_remove(&frame->link);
		pthread_mutex_unlock(&link->lock);
		frame_gone(run, frame);
	}
	if (failed)
		engine_fatal(run->engine, "out of memory for what the trainer is to be told");
	source_watch(run->engine, &link->source, frame != NULL ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

bool
run_link_idle(Run *run)
{
	bool failed;

	return run->link.source.fd < 0 || first_frame(&run->link, &failed) == NULL;
}

/* ---- Input --------------------------------------------------------------- */

/* Reads at most `length` bytes; 0 if there are none now. */
static size_t
receive(RunLink *link, void *to, size_t length)
{
	ssize_t n = recv(link->source.fd, to, length, MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		_exit(1);
	return n < 0 ? 0 : (size_t) n;
}

/* Returns whether there was something. */
static bool
discard(RunLink *link)
{
	uint8_t bytes[16384];

	return receive(link, bytes, sizeof(bytes)) > 0;
}

/* Reads on in the frame that is coming in; true if it is whole. */
static bool
receive_frame(Run *run)
{
	RunLink *link = &run->link;
	EngineError error;

	if (link->frame_have < sizeof(link->frame))
	{
		link->frame_have += receive(link, (uint8_t *) &link->frame + link->frame_have,
									sizeof(link->frame) - link->frame_have);
		if (link->frame_have < sizeof(link->frame))
			return false;
		link->body_have = 0;
		if (!run_frame_begins(run, &link->frame, &link->body, &error))
		{
			run_fail(run, &error);
			return false;
		}
		if (link->body == NULL && link->frame.length > 0)
		{
			link->body = link->body_owned = malloc(link->frame.length);
			if (link->body == NULL)
			{
				error_memory(&error, "a frame of the trainer");
				run_fail(run, &error);
				return false;
			}
		}
	}
	while (link->body_have < link->frame.length)
	{
		size_t n =
			receive(link, link->body + link->body_have, link->frame.length - link->body_have);

		if (n == 0)
			return false;
		link->body_have += n;
	}
	return true;
}

static void
link_ready(Engine *engine, Source *source, uint32_t events)
{
	Run *run = engine->run;
	RunLink *link = &run->link;

	for (int i = 0; i < FRAMES_A_TURN; i++)
	{
		EngineError error;

		if (run->state == RUN_ENDED)
		{
			free(link->body_owned);
			link->body_owned = NULL;
			if (!discard(link))
				return;
			continue;
		}
		if (!receive_frame(run))
		{
			if (run->state == RUN_ENDED)
				continue;
			return;
		}
		link->frame_have = 0;
		if (!run_frame(run, &link->frame, &error))
			run_fail(run, &error);
		free(link->body_owned);
		link->body_owned = NULL;
	}
}

bool
run_link_open(Run *run, int fd)
{
	int size = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	run->link.reserve = malloc(sizeof(RunFrame) + ERROR_PACKED_MAX);
	if (run->link.reserve == NULL)
	{
		errno = ENOMEM;
		return false;
	}
	return source_add(run->engine, &run->link.source, fd, EPOLLIN, link_ready);
}
