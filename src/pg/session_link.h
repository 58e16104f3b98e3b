/*
 * session_link.h
 *	  A connection of this session to one engine, as frames.
 */
#ifndef BICYCLE_SESSION_LINK_H
#define BICYCLE_SESSION_LINK_H

#include "pg/bicycle.h"

/* Bytes are appended at `end` and taken from `start`. */
typedef struct ByteQueue
{
	char *data;
	size_t start;
	size_t end;
	size_t capacity;
} ByteQueue;

/* fd -1 and zeros: closed. */
typedef struct SessionLink
{
	int fd;
	bool greeted;  /* the engine has answered our HELLO */
	pid_t engine;  /* its process */
	ByteQueue out; /* whole frames, the first perhaps partly sent */
	ByteQueue in;  /* frames as they come */
} SessionLink;

/*
 * Below TopMemoryContext: what has to outlive the memory of a failed statement.
 */
extern MemoryContext session_memory(void);

/*
 * Connects to the engine of that number, and queues a HELLO; false if it is not
 * there. 53000 if the session has too many sockets and the like.
 */
extern bool session_link_connect(SessionLink *link, int number);

/* Closes it, and forgets what waits in both directions. Raises nothing. */
extern void session_link_close(SessionLink *link);

/* False if there is no memory for it. Never raises. */
extern bool session_link_queue(SessionLink *link, BicycleFrameType type, uint64 id,
							   const void *head, size_t head_length, const void *tail,
							   size_t tail_length);
extern size_t session_link_pending(const SessionLink *link); /* bytes that wait to be sent */

/* Sends what can be sent now; true if anything was. Raises nothing. */
extern bool session_link_flush(SessionLink *link);

typedef enum LinkRead
{
	LINK_NOTHING, /* there is */
	LINK_BYTES,
	LINK_ENDED
} LinkRead;

/* Takes a bounded amount of what there is now. 53200. */
extern LinkRead session_link_read(SessionLink *link);

typedef enum LinkFrame
{
	LINK_NONE, /* is whole */
	LINK_FRAME,
	LINK_NONSENSE
} LinkFrame;

/* The next whole frame; its body lies in the link until bytes are read. */
extern LinkFrame session_link_frame(SessionLink *link, BicycleFrame *frame, const char **body);

extern void session_link_check(const SessionLink *link);

#endif /* BICYCLE_SESSION_LINK_H */
