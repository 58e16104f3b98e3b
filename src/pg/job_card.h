/*
 * job_card.h
 *	  The GPU of a job: which it takes, and giving way to sessions there.
 */
#ifndef BICYCLE_JOB_CARD_H
#define BICYCLE_JOB_CARD_H

#include "postgres.h"

#include "lib/stringinfo.h"

/*
 * In a job's worker. `platform`: what an earlier run of the job was on, as
 * run_protocol.h has it; or NULL. Chooses a device, and asks engines of
 * sessions that are there to give back what they keep.
 */
extern void job_card_choose(const char *platform);
extern void job_card_lines(StringInfo lines); /* settings that say which, for the engine */

/* The run says what it is on. */
extern void job_card_opened(const char *platform);

/*
 * The part of the GPU's time that the run may have now, in percent: all of it
 * unless requests of sessions wait for it.
 */
extern int job_card_share(void);

#endif /* BICYCLE_JOB_CARD_H */
