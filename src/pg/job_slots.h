/*
 * job_slots.h
 *	  Who trains now, and telling them that a row has changed.
 */
#ifndef BICYCLE_JOB_SLOTS_H
#define BICYCLE_JOB_SLOTS_H

#include "pg/shared.h"

#define JOB_START_TIME 5000 /* ms in which a worker that was registered comes up */

typedef enum JobPresence
{
	JOB_ABSENT,
	JOB_EXPECTED, /* its worker was registered a moment ago */
	JOB_LOST,     /* it was registered, and has not come up */
	JOB_ALIVE
} JobPresence;

extern int job_slots_used(void); /* those that are expected included */
extern JobPresence job_presence(Oid database, int64 job);

/* Registers the worker of a job. False: there is no worker slot. */
extern bool job_slot_register(const JobStart *start);

/*
 * In a job's worker: takes the job's slot until this process ends. False:
 * enough others run, or the job has a worker.
 */
extern bool job_slot_claim(Oid database, int64 job);

/*
 * The row tells how far this process is: at its end another one may come at
 * once.
 */
extern void job_slot_settle(void);

#define NO_CARD (-1)

/*
 * Takes one of these GPUs for this process's job and returns it: the one that
 * the fewest others have; of these `before`, else the first.
 */
extern int job_slot_take_card(const int *cards, int n, int before);
extern void job_slot_set_card(int card); /* it has another, or NO_CARD */
extern int job_slot_card(void);
extern void job_slots_wake(int card); /* the workers of jobs on it */

extern bool job_slot_poked(void); /* the row says something new; forgets that */

/*
 * From here on whoever stops the job interrupts this process by SIGINT, or no
 * longer.
 */
extern void job_slot_reading(bool reading);
extern bool job_slot_interrupted(void); /* that has happened */

/*
 * At commit the workers of this database look at their rows, and the launcher
 * at all. Until then the transaction cannot be prepared.
 */
extern void jobs_changed(void);

/*
 * The same, and the job's query is interrupted if it runs. A subtransaction
 * that is rolled back interrupts it all the same, and it begins again.
 */
extern void job_stopping(int64 job);

#endif /* BICYCLE_JOB_SLOTS_H */
