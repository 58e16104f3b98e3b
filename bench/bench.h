/*
 * bench.h
 *	  What the benchmarks of the neural core share: the clock, the order of
 *	  times, made-up numbers, the end after an error.
 */
#ifndef BICYCLE_BENCH_H
#define BICYCLE_BENCH_H

#include "nn/nn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Seconds. */
static inline double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static inline int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/*
 * Sorts times, so that the least comes first and the median is in the middle.
 */
static inline void
sort_times(double *times, int n)
{
	qsort(times, n, sizeof(double), by_value);
}

static inline void
fail(const NnError *error)
{
	fprintf(stderr, "%s: %s %s %s\n", program_invocation_short_name, error->message, error->detail,
			error->hint);
	exit(1);
}

/* count numbers in [-scale, scale) */
static inline float *
numbers(uint32_t seed, float scale, size_t count)
{
	float *out = malloc(count * sizeof(float) + 1);

	if (!out)
		exit(1);
	for (size_t i = 0; i < count; i++)
	{
		seed = 1664525u * seed + 1013904223u;
		out[i] = (float) ((2.0 * seed / 4294967296.0 - 1) * scale);
	}
	return out;
}

#endif /* BICYCLE_BENCH_H */
