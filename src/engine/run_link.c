/*
 * run_link.c
 *	  Descriptor 4 of a training engine: frames of the job worker, and the queue
 *	  of those for it.
 *
 * R1 Input belongs to the I/O thread. A frame's header is shown to the owner
 *    before its body is received, so the job worker cannot make the engine
 *    allocate what it has not been told it may.
 * R2 Once the link has ended nothing is parsed any more: what comes is thrown
 *    away, so that a job worker in the middle of a long write gets to read why.
 * R3 EOF ends the process at once, as on descriptor 3.
 * R4 Any thread may queue output, under the lock; the I/O thread writes it, and
 *    alone takes frames out of the queue.
 * R5 Frames leave in order. A frame owns its bytes, or the last frame of a
 *    stream does for all before it.
 * R6 Only the first frame of the queue may have been sent in part.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/run_link.h"

#define FRAMES_A_TURN 64 /* then the control lines have their turn */

void
run_link_init(RunLink *link, Engine *engine, const RunLinkOwner *owner)
{
	memset(link, 0, sizeof(*link));
	link->engine = engine;
	link->owner = owner;
	link->source.fd = -1;
	list_init(&link->out);
	pthread_mutex_init(&link->lock, NULL);
}

static void
run_frame_free(RunFrame *frame)
{
	free(frame->owned);
	free(frame);
}

void
run_link_free(RunLink *link)
{
	while (!list_empty(&link->out))
	{
		RunFrame *frame = list_member(RunFrame, link, link->out.next);

		list_remove(&frame->link);
		run_frame_free(frame);
	}
	free(link->body_owned);
	free(link->reserve);
	pthread_mutex_destroy(&link->lock);
}

/* ---- Output -------------------------------------------------------------- */

/* data NULL: into `copy`, which is still to be filled. */
static RunFrame *
run_frame_new(uint32_t type, const void *data, size_t length)
{
	RunFrame *frame = malloc(sizeof(*frame) + (data == NULL ? length : 0));

	if (frame == NULL)
		return NULL;
	memset(frame, 0, sizeof(*frame));
	frame->frame = (BicycleFrame){ .length = (uint32_t) length, .type = type };
	frame->data = data == NULL ? frame->copy : data;
	return frame;
}

/* failed: no memory for all of them, on which the I/O thread acts. */
static void
queue_frames(RunLink *link, List *frames, bool failed)
{
	pthread_mutex_lock(&link->lock);
	while (!list_empty(frames))
	{
		RunFrame *frame = list_member(RunFrame, link, frames->next);

		list_remove(&frame->link);
		list_append(&link->out, &frame->link);
		link->checkpoints += frame->checkpoint;
	}
	if (failed)
		link->failed = true;
	pthread_mutex_unlock(&link->lock);
	eventfd_write(link->engine->completions.fd, 1);
}

/* Appends a frame of copies; false without memory for it. */
static bool
append_frame(List *frames, uint32_t type, const void *head, size_t head_length, const void *tail,
			 size_t tail_length)
{
	RunFrame *frame = run_frame_new(type, NULL, head_length + tail_length);

	if (frame == NULL)
		return false;
	if (head_length > 0)
		memcpy(frame->copy, head, head_length);
	if (tail_length > 0)
		memcpy(frame->copy + head_length, tail, tail_length);
	list_append(frames, &frame->link);
	return true;
}

void
run_link_send(RunLink *link, uint32_t type, const void *head, size_t head_length, const void *tail,
			  size_t tail_length)
{
	List frames;
	bool good;

	list_init(&frames);
	good = append_frame(&frames, type, head, head_length, tail, tail_length);
	queue_frames(link, &frames, !good);
}

void
run_link_send_error(RunLink *link, const EngineError *error)
{
	RunFrame *frame = link->reserve;
	List frames;

	INVARIANT(frame != NULL);
	link->reserve = NULL;
	memset(frame, 0, sizeof(*frame));
	frame->data = frame->copy;
	frame->frame.type = BICYCLE_ERROR;
	frame->frame.length = (uint32_t) error_pack(error, frame->copy);
	list_init(&frames);
	list_append(&frames, &frame->link);
	queue_frames(link, &frames, false);
}

void
run_link_send_stream(RunLink *link, uint32_t type, const void *head, size_t head_length,
					 const void *tail, size_t tail_length, uint8_t *bytes, size_t length)
{
	List frames;
	RunFrame *frame = NULL;
	bool whole;

	list_init(&frames);
	whole = append_frame(&frames, type, head, head_length, tail, tail_length);
	for (size_t at = 0; at < length && whole; at += BICYCLE_MAX_FRAME)
	{
		frame = run_frame_new(BICYCLE_DATA, bytes + at,
							  length - at < BICYCLE_MAX_FRAME ? length - at : BICYCLE_MAX_FRAME);
		whole = frame != NULL;
		if (whole)
			list_append(&frames, &frame->link);
	}
	/* no END after a gap: what has come would be taken for all of it */
	frame = whole ? run_frame_new(BICYCLE_END, NULL, 0) : NULL;
	if (frame != NULL)
	{
		frame->owned = bytes;
		frame->checkpoint = type == BICYCLE_CHECKPOINT;
		list_append(&frames, &frame->link);
	}
	/* else `bytes` leak, which frames may refer to: the process ends */
	queue_frames(link, &frames, frame == NULL);
}

/* A frame has been written. */
static void
run_frame_gone(RunLink *link, RunFrame *frame)
{
	pthread_mutex_lock(&link->lock);
	INVARIANT(link->checkpoints >= frame->checkpoint);
	link->checkpoints -= frame->checkpoint;
	list_remove(&frame->link);
	pthread_mutex_unlock(&link->lock);
	if (frame->checkpoint)
		link->owner->checkpoint_gone(link);
	run_frame_free(frame);
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
			_exit(1); /* the job worker is gone */
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

void
run_link_flush(RunLink *link)
{
	RunFrame *frame;
	bool failed;

	if (link->source.fd < 0)
		return;
	while ((frame = first_frame(link, &failed)) != NULL && write_frame(link, frame))
		run_frame_gone(link, frame);
	if (failed)
		engine_fatal(link->engine, "out of memory for what the job worker is to be told");
	source_watch(link->engine, &link->source, frame != NULL ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void
run_link_check(RunLink *link)
{
	unsigned checkpoints = 0;

	INVARIANT(link->frame_have <= sizeof(link->frame));
	pthread_mutex_lock(&link->lock);
	list_foreach(node, &link->out)
	{
		const RunFrame *frame = list_member(RunFrame, link, node);

		INVARIANT(frame->sent <= sizeof(frame->frame) + frame->frame.length);
		INVARIANT(frame->sent == 0 || node == link->out.next); /* R6 */
		checkpoints += frame->checkpoint;
	}
	INVARIANT(checkpoints == link->checkpoints && checkpoints <= 1);
	pthread_mutex_unlock(&link->lock);
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
throw_away(RunLink *link)
{
	uint8_t bytes[16384];

	return receive(link, bytes, sizeof(bytes)) > 0;
}

/* Reads on in the frame that is coming in; true if it is whole. */
static bool
receive_frame(RunLink *link)
{
	EngineError error;

	if (link->frame_have < sizeof(link->frame))
	{
		link->frame_have += receive(link, (uint8_t *) &link->frame + link->frame_have,
									sizeof(link->frame) - link->frame_have);
		if (link->frame_have < sizeof(link->frame))
			return false;
		link->body_have = 0;
		if (!link->owner->begins(link, &link->frame, &link->body, &error))
		{
			link->owner->fail(link, &error);
			return false;
		}
		if (link->body == NULL && link->frame.length > 0)
		{
			link->body = link->body_owned = malloc(link->frame.length);
			if (link->body == NULL)
			{
				error_memory(&error, "a frame of the job worker");
				link->owner->fail(link, &error);
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
free_body(RunLink *link)
{
	free(link->body_owned);
	link->body = link->body_owned = NULL;
}

void
run_link_end(RunLink *link)
{
	link->ended = true;
}

static void
link_ready(Engine *engine, Source *source, uint32_t events)
{
	RunLink *link = list_member(RunLink, source, source);

	for (int i = 0; i < FRAMES_A_TURN; i++)
	{
		EngineError error;

		if (link->ended)
		{
			free_body(link);
			if (!throw_away(link))
				return;
			continue;
		}
		if (!receive_frame(link))
		{
			if (link->ended)
				continue;
			return;
		}
		link->frame_have = 0;
		if (!link->owner->frame(link, &link->frame, link->body, &error))
			link->owner->fail(link, &error);
		free_body(link);
	}
}

bool
run_link_open(RunLink *link, int fd)
{
	int size = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	link->reserve = malloc(sizeof(RunFrame) + ERROR_PACKED_MAX);
	if (link->reserve == NULL)
	{
		errno = ENOMEM;
		return false;
	}
	return source_add(link->engine, &link->source, fd, EPOLLIN, link_ready);
}
