/*
 * now.h
 *	  The clock that nobody sets.
 */
#ifndef BICYCLE_ENGINE_NOW_H
#define BICYCLE_ENGINE_NOW_H

#include <stdint.h>
#include <time.h>

/* Microseconds since some moment. Any thread. */
static inline int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Milliseconds, likewise. */
static inline int64_t
now_ms(void)
{
	return now_us() / 1000;
}

#endif /* BICYCLE_ENGINE_NOW_H */
