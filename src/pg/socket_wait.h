/*
 * socket_wait.h
 *	  Waiting for several sockets at once.
 */
#ifndef BICYCLE_SOCKET_WAIT_H
#define BICYCLE_SOCKET_WAIT_H

#include "postgres.h"

#include "common/limits.h"

/* Sockets, of engines, and for what each is waited: WL_SOCKET_... */
typedef struct SocketWait
{
	int n;
	int fds[BICYCLE_MAX_ENGINES];
	int events[BICYCLE_MAX_ENGINES];
} SocketWait;

extern void socket_wait_add(SocketWait *wait, int fd, int events);

/*
 * Until one of them is ready, the latch of this process is set, which is reset
 * then, or timeout ms have passed; -1: no limit. Ends the process if the
 * postmaster has ended.
 */
extern void socket_wait(const SocketWait *wait, long timeout, uint32 wait_event);

#endif /* BICYCLE_SOCKET_WAIT_H */
