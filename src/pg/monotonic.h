/*
 * monotonic.h
 *	  The time that nobody sets: for how long something has taken.
 *
 * It is the same for all processes of the machine, so shared memory may hold
 * it. It stands still while the machine is halted.
 */
#ifndef BICYCLE_MONOTONIC_H
#define BICYCLE_MONOTONIC_H

#include "postgres.h"

#include <time.h>

/* In ms since some moment before the server started; never 0. */
static inline int64
monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000 + 1;
}

#endif /* BICYCLE_MONOTONIC_H */
