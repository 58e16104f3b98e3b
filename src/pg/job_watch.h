/*
 * job_watch.h
 *	  Databases that may have unfinished jobs.
 */
#ifndef BICYCLE_JOB_WATCH_H
#define BICYCLE_JOB_WATCH_H

#include "pg/shared.h"

/* Under shared->lock. */
extern void job_watch_add(BicycleShared *shared, Oid database);
extern void job_watch_remove(BicycleShared *shared, Oid database); /* the others keep their order */

/*
 * Makes the launcher look at a database; last, if a job of it was just
 * `served`. Raises nothing.
 */
extern void job_watch_wake(Oid database, bool served);

#endif /* BICYCLE_JOB_WATCH_H */
