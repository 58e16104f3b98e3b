/*
 * call_private.h
 *	  What a call is: between call.c, which sends calls and takes their answers,
 *	  and call_stream.c, whose callers write and read streams.
 *
 * The life of a call. Where the connection is lost, what its caller would have
 * to say again is LOST; all else goes back to UNSENT and is sent again.
 *
 *	  KIND_IMAGE   UNSENT -> RESERVED -> SENT -> DONE or FAILED
 *	                  ^---------+----------+
 *	  KIND_PLAIN   UNSENT -> SENT -> DONE or FAILED
 *	                  ^-------+
 *	  KIND_STREAM  UNSENT -> SENT -> DONE or FAILED
 *	                          +-------+--> LOST
 *
 * An example: an engine dies while it works on two images of a session. Both
 * were SENT, and one was started. calls_lost makes both UNSENT and counts an
 * attempt of that one; the next turn sends RESERVE for each to another engine,
 * or connects anew; GRANT makes them SENT; RESULT makes them DONE, and their
 * callers read it.
 */
#ifndef BICYCLE_CALL_PRIVATE_H
#define BICYCLE_CALL_PRIVATE_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "lib/ilist.h"
#include "utils/resowner.h"

/* starts that may end with an engine's death */
#define MAX_ATTEMPTS SUSPECT_DEATHS
/*
 * times that a call may ask for its model without being started, and that
 * call_retry begins anew
 */
#define MAX_LOADS 5

typedef enum CallKind
{
	KIND_IMAGE, /* takes a RESERVE; the body is kept and sent again if need be */
	KIND_PLAIN, /* no body */
	KIND_STREAM /* its caller writes and reads streams: call_stream.c */
} CallKind;

typedef enum CallState
{
	CALL_UNSENT,
	CALL_RESERVED, /* waits for its GRANT */
	CALL_SENT,
	CALL_DONE, /* has its RESULT; a stream of DATA may still follow */
	CALL_FAILED,
	CALL_LOST
} CallState;

struct Call
{
	dlist_node node;     /* in the list of call.c, in the order of id */
	ResourceOwner owner; /* frees it after an error */
	Oid user;            /* who has made it, as which its model is read */
	int user_context;    /* of GetUserIdAndSecContext */
	uint64 id;
	BicycleFrameType type;
	CallKind kind;
	CallState state;
	int engine;   /* that has it, while it is open; -1: none */
	int asked;    /* KIND_PLAIN: the only one that may have it */
	bool counted; /* in that one's load */
	bool suspect; /* KIND_IMAGE: it runs alone, as engines have died at it */
	bool granted;
	bool started;
	bool need_model; /* the engine has asked for it */
	int attempts;
	int losses;
	int loads;
	Model *model; /* NULL: none */
	char *body;   /* KIND_IMAGE: BicycleImageRequest, z, image */
	size_t body_length;
	CallDigest digest;
	char *result;
	size_t result_length;
	StringInfoData stream; /* DATA received; data is NULL until the first */
	size_t stream_read;    /* bytes of it that were handed on */
	bool stream_ended;
	int sqlstate;  /* CALL_FAILED */
	char *text[3]; /* message, detail, hint; "" if none */
};

/* A new call in the list, UNSENT, of CurrentResourceOwner. 0A000: call.h R5. */
extern Call *call_new(BicycleFrameType type, CallKind kind);

/*
 * The connected engine that a call should go to; -1: none, or with `credit`
 * that this session has calls enough with each.
 */
extern int call_choose_engine(bool credit);

/* After each change of state: counts the call with its engine, or no longer. */
extern void call_count(Call *call);

/* Queues a frame of the call; 53200 if there is no memory for it. */
extern void call_queue(const Call *call, BicycleFrameType type, const void *head,
					   size_t head_length, const void *tail, size_t tail_length);

/* One step of whatever there is to do, or one wait if there is nothing. */
extern void call_turn(void);

/* Raises the error of a call that is FAILED. */
pg_noreturn extern void call_raise(const Call *call);

/*
 * True inside the loader of models: none is asked for while one is being read.
 */
extern bool calls_loading(void);

/*
 * Whether the last KIND_STREAM call that was lost had been started, and the
 * engine has ended.
 */
extern bool calls_lost_after_start(void);

#endif /* BICYCLE_CALL_PRIVATE_H */
