/*
 * source.c
 *	  Descriptors that the I/O thread waits for, by epoll.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "engine/engine.h"

#define EVENTS 64

bool
source_add(Engine *engine, Source *source, int fd, uint32_t events,
		   void (*ready)(Engine *, Source *, uint32_t))
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	source->fd = fd;
	source->events = events;
	source->ready = ready;
	return epoll_ctl(engine->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void
source_watch(Engine *engine, Source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (source->events == events)
		return;
	source->events = events;
	epoll_ctl(engine->epoll, EPOLL_CTL_MOD, source->fd, &event);
}

void
source_remove(Engine *engine, Source *source)
{
	epoll_ctl(engine->epoll, EPOLL_CTL_DEL, source->fd, NULL);
}

bool
source_wait(Engine *engine, int ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(engine->epoll, events, EVENTS, ms);

	for (int i = 0; i < n; i++)
	{
		Source *source = events[i].data.ptr;

		source->ready(engine, source, events[i].events);
	}
	return n >= 0 || errno == EINTR;
}
