/*
 * shared.h
 *	  The state that all processes of the server see: who supervises, which
 *	  engines are there, which requests are refused, who trains, who fills.
 *
 * R1 Everything is read and written under `lock`, but single words where a
 *    comment says so.
 * R2 The supervisor alone writes the engines' fields, but for their load; a
 *    session that cannot start it, the first one's last_error.
 * R3 Whoever changes a `state` broadcasts `changed`.
 * R4 Times are by monotonic_ms(), which nobody sets; `rescan_at` alone is
 *    compared with rows, and is a time of day as theirs are.
 */
#ifndef BICYCLE_SHARED_H
#define BICYCLE_SHARED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "common/limits.h"
#include "common/names.h"

#include "pg/bgworker.h"

typedef enum EngineState
{
	ENGINE_ABSENT,   /* the slot is free; of all: no supervisor has run yet, or it has ended */
	ENGINE_STARTING, /* forked, or about to be */
	ENGINE_READY,    /* listens on its socket */
	ENGINE_FAILED,   /* cannot start; retried with back-off.  Sessions do not wait for it */
	ENGINE_LEAVING   /* its device is no longer asked for: it ends what it has begun */
} EngineState;

/* An engine: one of a device that bicycle.device names. */
typedef struct EngineSlot
{
	EngineState state;
	pid_t pid; /* 0: none */
	char device[BICYCLE_MAX_DEVICE];
	bool missing;          /* it has said that it has none */
	int gpus;              /* that it has seen; 0: none, or it has not looked */
	uint64 starts;         /* since the server started, or the slot was free */
	char last_error[512];  /* "" if there was none */
	pg_atomic_uint32 load; /* calls that sessions have with it; a word */
	int busy_card;         /* 1 + its GPU while requests wait for that, else 0; a word */
	bool trim;             /* a job begins: it is to give back what it keeps of a GPU */
} EngineSlot;

/* Of a worker of which there is one: bgworker.c. */
typedef struct SoleWorkerPost
{
	pid_t pid;           /* 0: none */
	int64 registered_ms; /* when a dynamic one was last registered; 0: none was, or in vain */
} SoleWorkerPost;

#define JOB_SLOTS BICYCLE_JOB_SLOTS
#define WATCHED_DATABASES 64

/*
 * A job's worker that runs, or was registered and is about to. Who registers it
 * fills in the first three; the process itself takes the slot over, and clears
 * it when it ends. Others set `poked` and `interrupted`.
 */
typedef struct JobSlot
{
	int64 registered_ms; /* 0: the slot is free */
	Oid database;
	int64 job;
	pid_t pid;        /* 0: the process has not come up */
	bool poked;       /* the job's row says something new */
	bool reading;     /* its query runs, and who stops the job interrupts it */
	bool interrupted; /* that has been done */
	int card_number;  /* 1 + the GPU that the job has, or is about to take; 0: none */
} JobSlot;

/* What a job's worker is told; fits into bgw_extra. */
typedef struct JobStart
{
	int64 job;
	Oid database;
	Oid owner;
	TransactionId creator; /* whose end the worker waits for; InvalidTransactionId: none */
} JobStart;

/* A job that waits for the launcher to start it. */
typedef struct ReadyJob
{
	JobStart start;
	int rank; /* smaller ones go first: see launcher.c */
	int turn; /* among those of the same rank */
} ReadyJob;

#define SUSPECTS 256
#define SUSPECT_DEATHS 2 /* of engines, after which a request is refused */
#define SUSPECT_SECONDS 300

/*
 * Identifies what a request asks for, so that one that crashes engines can be
 * refused.
 */
typedef struct CallDigest
{
	uint64 word[2];
} CallDigest;

/* A request that engines died at: suspects.c. */
typedef struct Suspect
{
	CallDigest digest;
	int64 until_ms; /* 0: free */
	int deaths;
	pid_t engines[SUSPECT_DEATHS]; /* those */
} Suspect;

#define FILL_SLOTS 64

/* Rows that a bicycle_fill has come to, by what became of them. */
typedef struct FillCounts
{
	int64 done;
	int64 bad;        /* 22P03 or 54000 */
	int64 locked;     /* by others, or just changed by them */
	int64 suppressed; /* the UPDATE did not happen: a trigger's will */
	int64 still_null; /* the expression was NULL */
} FillCounts;

/* A bicycle_fill that runs. Written by its process alone. */
typedef struct FillSlot
{
	pid_t pid; /* 0: the slot is free */
	Oid database;
	Oid owner; /* the role that it runs as */
	Oid relation;
	char column[NAMEDATALEN];
	FillCounts counts;
	uint64 blocks_done; /* of the leaves' blocks */
	uint64 blocks;
	TimestampTz started_at;
	TimestampTz updated_at;
} FillSlot;

typedef struct BicycleShared
{
	LWLock lock;
	int tranche;
	ConditionVariable changed;
	SoleWorkerPost posts[SOLE_WORKERS];

	EngineSlot engines[BICYCLE_MAX_ENGINES];
	pg_atomic_uint32 usable; /* a bit for each that requests may go to; a word */

	int nsuspects; /* slots in use, expired ones included: 0 lets sessions skip the look */
	Suspect suspects[SUSPECTS];

	/* Training: launcher.c tells who sets and clears these. */
	bool scan_wanted;      /* some job may be started now */
	TimestampTz rescan_at; /* when some job may be tried again; 0: none waits for its next try */
	bool watch_all;        /* any database may have unfinished jobs */
	int nwatched;
	Oid watched[WATCHED_DATABASES]; /* databases that may have unfinished jobs */
	bool no_worker_slot;            /* the launcher could not start what it wanted to */
	int nready;
	ReadyJob ready[JOB_SLOTS]; /* in the order in which they are to be started */
	JobSlot jobs[JOB_SLOTS];

	FillSlot fills[FILL_SLOTS];
} BicycleShared;

/*
 * Attaches to the state, creating it if this process is the first. Never called
 * in the postmaster, so no pointer outlives a restart after a crash.
 */
extern BicycleShared *shared_attach(void);
extern void shared_reserve(void); /* at preload: asks for the memory beforehand */

#endif /* BICYCLE_SHARED_H */
