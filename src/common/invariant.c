/*
 * invariant.c
 *	  What happens when a fact that the code relies on is not so.
 *
 * The handler is set before threads start and only read later. The first thread
 * that fails is the one that calls it, again if it fails again while the
 * process ends; others that fail meanwhile wait for that end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/invariant.h"

static InvariantHandler handler;

void
invariant_set_handler(InvariantHandler to)
{
	handler = to;
}

bool
invariant_checking(void)
{
#ifdef BICYCLE_CHECKS
	return true;
#else
	return false;
#endif
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
