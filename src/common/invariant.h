/*
 * invariant.h
 *	  Facts that the code relies on, checked while it runs.
 *
 * INVARIANT(condition) stands where a comment used to state a fact. It is
 * always compiled in, so it must be cheap and have no side effect. A failed one
 * is a bug of ours, never bad input, and nothing goes on after it.
 *
 * R1 What happens then is the program's choice: invariant_set_handler, once,
 *    before threads start. Without a handler, as in unit tests, and always in
 *    builds with BICYCLE_CHECKS (asan, tsan), the process aborts.
 * R2 A handler does not return. bicycle-engine logs and ends; PostgreSQL's side
 *    ends the session.
 * R3 Checkers recount from scratch what others keep up to date. They take time,
 *    so they run only where invariant_checking() is true: in builds with
 *    BICYCLE_CHECKS. Those of sessions run with bicycle.debug, too.
 */
#ifndef BICYCLE_INVARIANT_H
#define BICYCLE_INVARIANT_H

#include <stdbool.h>

typedef void (*InvariantHandler)(const char *condition, const char *file, int line);

extern void invariant_set_handler(InvariantHandler handler);
extern bool invariant_checking(void);
extern void invariant_failed(const char *condition, const char *file, int line)
	__attribute__((noreturn, cold));

#define INVARIANT(condition) \
	((condition) ? (void) 0 : invariant_failed(#condition, __FILE__, __LINE__))

#endif /* BICYCLE_INVARIANT_H */
