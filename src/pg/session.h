/*
 * session.h
 *	  This session's connections to the engines, as frames.
 *
 * An engine is named by its number, its slot in shared memory (engine_slots.h).
 */
#ifndef BICYCLE_SESSION_H
#define BICYCLE_SESSION_H

#include "pg/bicycle.h"

#include "pg/session_link.h"

#define JOB_ENGINE 0 /* in a job worker, its own and only one */

typedef void (*SessionFrame)(int engine, const BicycleFrame *frame, const char *body);

/*
 * died: the PID of the engine if it was that which ended the connection; or 0
 */
typedef void (*SessionLost)(int engine, pid_t died);

/*
 * Who is told: `frame` of each whole frame but HELLO and an ERROR of the
 * connection, `lost` of each session_drop of a connection. `lost` allocates
 * nothing and raises nothing.
 */
extern void session_listen(SessionFrame frame, SessionLost lost);

/*
 * Waits until an engine that requests may go to is connected: for one that is
 * about to come up, if there is none. 55000 if there is none after a while, or
 * at once if the supervisor has found that none can start; 53000 if there is no
 * worker slot for a supervisor. With missing_ok that is false. Also with it,
 * 55000 in single-user and upgrade mode, and if the engine is of another
 * version; 53000 if the session has too many sockets.
 */
extern bool session_open(bool missing_ok);

/*
 * Whether this engine is connected. If not, and it is there, that begins; it is
 * done by session_read. 53000, as above.
 */
extern bool session_reach(int engine);
extern bool session_has(int engine); /* it is, and nothing begins */
extern bool session_is_open(void);   /* any is */

/*
 * In a job worker: makes one end of a socket pair, of which fd.c knows, this
 * process's only connection, for good. There is no HELLO. Frames of the
 * training engine go to `frame`; an ERROR drops the connection and is raised.
 */
extern void session_adopt(int fd, SessionFrame frame);
extern bool session_is_training(void);

/*
 * Forgets the connection, if there is one, and what waits to be sent, and tells
 * who listens. `died`: it was the engine that ended it. Allocates nothing and
 * raises nothing: also called while a transaction aborts.
 */
extern void session_drop(int engine, bool died);

/*
 * Adds a frame with a body in two parts to what is to be sent; false if there
 * is no memory for it. Never raises.
 */
extern bool session_queue(int engine, BicycleFrameType type, uint64 id, const void *head,
						  size_t head_length, const void *tail, size_t tail_length);
extern size_t session_pending(int engine); /* bytes that wait to be sent */

/*
 * Sends what can be sent now; true if anything was. Raises nothing: that an
 * engine is gone shows when it is read.
 */
extern bool session_flush(void);

/*
 * Reads a bounded amount of what there is now, and hands on whole frames; true
 * if there was anything. The end of a connection counts as something: it is
 * dropped. Raises what those raise who take the frames, an ERROR of the
 * connection, 53200, 08P01, and 55000 for a HELLO of another version.
 */
extern bool session_read(void);

/*
 * Waits until there is something to read, or room for what is pending, for at
 * most `timeout` ms (-1: no limit); checks for interrupts.
 */
extern void session_wait(long timeout);

/*
 * R3 of common/invariant.h: whether sessions check their state, and the state
 *    of the connections.
 */
extern bool session_checking(void);
extern void session_check(void);

/* The engine sent nonsense: drops the connection and raises 08P01. */
pg_noreturn extern void session_broken(int engine);

/*
 * Takes apart the body of an ERROR frame; returns the SQLSTATE, and message,
 * detail and hint, none of them NULL, in `context`. 08P01 if it is none.
 */
extern int session_error(int engine, const char *body, size_t length, MemoryContext context,
						 char *text[3]);
pg_noreturn extern void session_report(int sqlstate, char *const text[3]); /* raises it */

/*
 * The engine's texts are UTF-8 and may quote files: a palloc'ed copy in which
 * '?' stands for what this database's encoding or a terminal cannot take.
 */
extern char *session_text(const char *text);

#endif /* BICYCLE_SESSION_H */
