/*
 * session.h
 *	  Between session.c, which moves frames, and call.c, which knows what
 *	  they mean.
 */
#ifndef BICYCLE_CLIENT_H
#define BICYCLE_CLIENT_H

#include "bicycle.h"

/* ---- session.c ----------------------------------------------------------- */

/*
 * Below TopMemoryContext: what both files allocate has to outlive the memory of
 * a failed statement.
 */
extern MemoryContext session_memory(void);

extern bool session_is_open(void);

/*
 * Connects, waiting for an engine that is about to come up. Returns false only
 * if missing_ok; otherwise raises 55000 after a while, or at once if the
 * supervisor has found that the engine cannot start.
 */
extern bool session_open(bool missing_ok);

/*
 * In a trainer: makes one end of a socket pair this process's only connection,
 * for good. There is no HELLO; frames of the training engine go to `frame`,
 * ERROR is raised.
 */
extern void session_adopt(int fd, void (*frame)(const BicycleFrame *frame, const char *body));
extern bool session_is_training(void);

/*
 * Forgets the connection and tells calls_lost. `died`: it was the engine
 * that ended it. Allocates nothing and raises nothing: also called while a
 * transaction aborts.
 */
extern void session_drop(bool died);

/*
 * Adds a frame with a body in two parts to what is to be sent; false if there
 * is no memory for it. Never raises.
 */
extern bool session_queue(BicycleFrameType type, uint64 id, const void *head, size_t head_length,
						  const void *tail, size_t tail_length);
extern size_t session_pending(void); /* bytes that wait to be sent */

/*
 * Send what can be sent now, read what there is now (and hand whole frames to
 * call_frame); both return whether anything was moved.
 */
extern bool session_flush(void);
extern bool session_read(void);

/*
 * Waits until there is something to read, or room for what is pending, for at
 * most `timeout` ms (-1: no limit); checks for interrupts.
 */
extern void session_wait(long timeout);

/* The engine sent nonsense: drops the connection and raises 08P01. */
pg_noreturn extern void session_broken(void);

/*
 * Takes apart the body of an ERROR frame; returns the SQLSTATE, and message,
 * detail and hint allocated in session_memory().
 */
extern int session_error(const char *body, size_t length, char *text[3]);
pg_noreturn extern void session_report(int sqlstate,
									   char *text[3]); /* raises it and frees the texts */

/* ---- call.c ------------------------------------------------------------ */

extern void call_frame(const BicycleFrame *frame,
					   const char *body); /* any frame but HELLO and an ERROR of the connection */
extern void calls_lost(bool died);

#endif /* BICYCLE_CLIENT_H */
