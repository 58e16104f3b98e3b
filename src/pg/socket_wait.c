/*
 * socket_wait.c
 *	  Waiting for several sockets at once, as WaitLatchOrSocket waits for one.
 *
 * A set of events is made for each wait and freed after it, as
 * WaitLatchOrSocket does itself. What PostgreSQL raises while one is there
 * leaves it to the resource owner, or, before PostgreSQL 17, leaks it as there.
 */
#include "pg/socket_wait.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/resowner.h"

#include "common/invariant.h"
#include "pg/pg_compat.h"

void
socket_wait_add(SocketWait *wait, int fd, int events)
{
	INVARIANT(wait->n < BICYCLE_MAX_ENGINES);
	wait->fds[wait->n] = fd;
	wait->events[wait->n++] = events;
}

static void
wait_for_set(const SocketWait *wait, long timeout, uint32 wait_event)
{
	WaitEventSet *set = BicycleWaitEventSet(BICYCLE_MAX_ENGINES + 2);
	WaitEvent occurred;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < wait->n; i++)
		AddWaitEventToSet(set, wait->events[i], wait->fds[i], NULL, NULL);
	(void) WaitEventSetWait(set, timeout, &occurred, 1, wait_event);
	FreeWaitEventSet(set);
}

void
socket_wait(const SocketWait *wait, long timeout, uint32 wait_event)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0);

	if (wait->n > 1)
		wait_for_set(wait, timeout, wait_event);
	else if (wait->n == 1)
		(void) WaitLatchOrSocket(MyLatch, events | wait->events[0], wait->fds[0], timeout,
								 wait_event);
	else
		(void) WaitLatch(MyLatch, events, timeout, wait_event);
	ResetLatch(MyLatch);
}
