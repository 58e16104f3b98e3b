/*
 * suspects.h
 *	  Requests at which engines have died, counted for all sessions and engines.
 */
#ifndef BICYCLE_SUSPECTS_H
#define BICYCLE_SUSPECTS_H

#include "pg/shared.h"

/*
 * How many engines died while they worked on such a request; SUSPECT_DEATHS: it
 * is refused, for that many *seconds yet.
 */
extern int suspect_deaths(const CallDigest *digest, int *seconds);

/* The engine of that PID did. Others may have told that already. */
extern void suspect_add(const CallDigest *digest, pid_t engine);

/* It is refused from now on. */
extern void suspect_refuse(const CallDigest *digest);

/* It has been answered, and is no suspect, unless it is refused. */
extern void suspect_clear(const CallDigest *digest);

#endif /* BICYCLE_SUSPECTS_H */
