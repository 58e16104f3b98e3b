/*
 * invariant.c
 *	  What happens when a fact that the code relies on is not so.
 *
 * The two variables are set before threads start and only read later. The
 * first thread that fails is the one that calls the handler, again if it fails
 * again while the process ends; others that fail meanwhile wait for that end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/invariant.h"

static InvariantHandler handler;
#ifdef BICYCLE_CHECKS
static bool checking = true;
#else
static bool checking;
#endif

void
invariant_set_handler(InvariantHandler to)
{
	handler = to;
}

void
invariant_set_checking(bool on)
{
	checking = on;
}

bool
invariant_checking(void)
{
	return checking;
}

void
invariant_failed(const char *condition, const char *file, int line)
{
#ifndef BICYCLE_CHECKS
	static _Atomic int failed;
	static _Thread_local bool here;

	if (handler != NULL)
	{
		if (!here && failed++ > 0)
			for (;;)
				pause();
		here = true;
		handler(condition, file, line);
	}
#endif
	fprintf(stderr, "%s:%d: invariant failed: %s\n", file, line, condition);
	abort();
}
