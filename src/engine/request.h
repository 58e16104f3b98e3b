/*
 * request.h
 *	  One image or stream, from its first frame to the last byte of its reply.
 *
 * I/O thread only, but for what a thread may touch while it has the request:
 * it reads the input fields and writes those under "Work".
 *
 * R1 request_to alone writes a request's state. It moves the link to the list
 *    of that state, keeps the engine's counters, and allows only the steps
 *    drawn here.
 *
 *	 image    NEW -> RESERVED -> GRANTED -> RECEIVING -> WAITING -> QUEUED
 *	          -> (ALONE) -> DECODING -> (SIZED -> DECODING, where the image
 *	          tells the size) -> READY -> RUNNING -> ENCODING -> DONE
 *	 LOAD     NEW -> RESERVED -> GRANTED -> STREAMED -> HELD -> LOADING
 *	          -> (STREAMED again, where a GPU had no room) -> DONE
 *	 stream   NEW -> RESERVED -> GRANTED -> HELD -> LOADING -> DONE
 *	 CREATE   NEW -> HELD -> LOADING -> RESERVED -> GRANTED -> HELD -> LOADING
 *	          -> DONE
 *
 *    QUEUED goes back to WAITING where the model was evicted meanwhile, ALONE
 *    to QUEUED where the client does not read. INFO, CHECK, PLOT, GRID,
 *    COMPARE, MATCH and HALVES, which need no model, skip WAITING and end after
 *    DECODING; ENCODE and LPIPS end after RUNNING. Whatever is not DONE may
 *    fail: then it is DONE, too. All end in GONE.
 *
 * R2 A request belongs to its connection until it is withdrawn (CANCEL, close)
 *    or its reply is written.
 * R3 Withdrawn while a thread has it (DECODING, RUNNING, ENCODING, LOADING), it
 *    belongs to nobody and is freed when the thread gives it back.
 * R4 Frames that point into a request's memory keep it. A DONE request goes
 *    with its last frame, and only then are its place and the bytes of its
 *    answer free.
 *
 * An example: TRANSLATE of an 8 kB image. RESERVE makes the request, NEW. Its
 * place is asked for (RESERVED); admission.c takes 8 kB of the queue in this
 * turn and GRANT goes out (GRANTED). The frame's header comes (RECEIVING), then
 * the body; demand.c finds the model resident, and the request stands in its
 * connection's line (WAITING, QUEUED). batcher.c pins the model, takes memory,
 * says STARTED and gives it to the pool (DECODING). It comes back among those
 * for the device (READY), goes there in a batch (RUNNING), to the pool again
 * (ENCODING), and its PNG goes out (DONE). When the client has read that, the
 * 8 kB are free.
 */
#ifndef BICYCLE_ENGINE_REQUEST_H
#define BICYCLE_ENGINE_REQUEST_H

#include "engine/cache.h"
#include "engine/connection.h"
#include "engine/executor.h"
#include "engine/sizing.h"

#include <stdatomic.h>

typedef enum RequestState
{
	REQUEST_NEW,       /* its first frame is being looked at */
	REQUEST_RESERVED,  /* waits for memory; in Engine.queue_waiting or memory_waiting */
	REQUEST_GRANTED,   /* the client may send; for streams: is sending */
	REQUEST_RECEIVING, /* the body of an image request is coming in */
	REQUEST_WAITING,   /* for its model; in CacheEntry.waiters */
	REQUEST_QUEUED,    /* may start; in Connection.queued */
	REQUEST_ALONE,     /* is Engine.alone and waits for everything else to end */
	REQUEST_DECODING,  /* on a thread of the pool */
	REQUEST_SIZED,     /* waits for the memory its size takes; in Engine.sized */
	REQUEST_READY,     /* in Engine.ready */
	REQUEST_RUNNING,   /* on the device thread */
	REQUEST_ENCODING,  /* on a thread of the pool */
	REQUEST_STREAMED,  /* a LOAD that is complete; in Engine.loads */
	REQUEST_HELD,      /* for the loader; in Engine.held */
	REQUEST_LOADING,   /* on the loader thread, or the device thread prepares it */
	REQUEST_DONE,      /* answered; lives until its frames are written */
	REQUEST_GONE,      /* is being freed */
	REQUEST_STATES
} RequestState;

typedef struct Request Request;

/* A frame that a client may send after its hello: a row of frames.c's table. */
typedef struct FrameKind
{
	uint32_t type;
	size_t min, max; /* bytes of its body */

	/* NULL: the body is received into the memory of its request */
	void (*came)(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
	bool stream;     /* a request that DATA and END follow */
	bool uses_model; /* and so the device */
	bool two;        /* images */
	NnNetwork network;

	/* Images: on the pool; when that is back; when the device is. */
	void (*decode)(Request *request);
	void (*decoded)(Request *request);
	void (*computed)(Request *request);

	/* Streams: a DATA has come; all of it has, or there is nothing to come. */
	void (*part)(Request *request);
	void (*whole)(Request *request);
} FrameKind;

struct Request
{
	struct Engine *engine;
	Connection *connection; /* NULL: withdrawn while a thread had it or frames kept it */
	uint64_t id;
	Request *id_next;
	List all;     /* Connection.requests */
	List listed;  /* Engine.requests */
	List link;    /* in the list of its state */
	List written; /* Engine.written: its last frame has gone */
	RequestState state;
	const FrameKind *kind; /* of RESERVE until the request itself has come */
	uint32_t database;

	/* Input: filled while it is received, then only read */
	uint64_t body_size; /* granted */
	uint8_t *body;      /* owned */
	size_t place;       /* bytes of the queue: wanted while RESERVED, then held */
	size_t charge;      /* bytes of the engine's memory, likewise */
	int64_t since_ms;   /* when it first waited for that, or for a plan's */

	/* The model */
	CacheEntry *entry; /* counted in its requests */
	Packed *model;     /* pinned */
	bool asked;        /* NEED_MODEL was sent for it; counted in entry->asked */

	/* Work: written by the thread that has the request */
	Task task;
	void (*run)(Request *request);  /* on the executor's thread */
	void (*done)(Request *request); /* when it is back with the I/O thread */
	EngineError error;
	atomic_bool unwanted; /* withdrawn while a thread has it */

	/* By its kind: an image, or a stream. All zeros at first. */
	union
	{
		struct
		{
			BicycleImageRequest image;
			const uint8_t *latent; /* image.nz floats in body, not aligned */
			const uint8_t *file;   /* image.image_length bytes in body */
			const uint8_t *second; /* image.second_length bytes in body */
			uint64_t sequence;     /* order of arrival among ready requests, bulk ones set back */
			ImageInfo info;
			Sizing sizing;   /* of the network's run */
			size_t plan;     /* of sizing, once that is back from the thread */
			Image pixels;    /* decoded input, later the output; owned */
			uint8_t *piece;  /* of Slabs: if there is one, the pixels' memory */
			uint8_t *result; /* owned */
			size_t result_length;
		};
		struct
		{
			size_t received; /* bytes so far */
			bool announced;  /* STARTED was sent: it may come to the loader twice */
			void *work;      /* what it needs and makes; owned, freed by work_free */
			void (*work_free)(void *work);
		};
	};

	unsigned frames; /* in output queues that keep this request */
};

/* ---- Making and finding -------------------------------------------------- */

/* NULL after the client was answered. */
extern Request *request_new(Connection *connection, const BicycleFrame *frame,
							const FrameKind *kind);
extern Request *request_find(Connection *connection, uint64_t id);

/* ---- States -------------------------------------------------------------- */

extern void request_to(Request *request, RequestState state);
extern void request_to_front(Request *request, RequestState state); /* of the state's list */
extern int request_class(const Request *request);

/* Whether it lets others go first. */
static inline bool
request_is_bulk(const Request *request)
{
	return (request->image.flags & BICYCLE_FLAG_BULK) != 0;
}

/* Whether place and charge are held, and not only wanted. */
static inline bool
request_holds(const Request *request)
{
	return request->state != REQUEST_NEW && request->state != REQUEST_RESERVED;
}

/* What is counted, each in the counter named. */
static inline bool
request_is_started(const Request *request) /* Engine.nstarted */
{
	return request->state >= REQUEST_DECODING && request->state <= REQUEST_ENCODING;
}

static inline bool
request_is_ahead(const Request *request) /* Engine.ahead */
{
	return request->kind->uses_model && request->state >= REQUEST_DECODING &&
		   request->state <= REQUEST_READY;
}

static inline bool
request_is_light(const Request *request) /* Engine.light */
{
	return !request->kind->uses_model && request->state == REQUEST_DECODING;
}

static inline bool
request_is_loading(const Request *request) /* CacheEntry.loads */
{
	return request->kind->type == BICYCLE_LOAD && request->entry != NULL;
}

static inline bool
request_is_packing(const Request *request) /* CacheEntry.packing */
{
	return request_is_loading(request) && request->state >= REQUEST_STREAMED &&
		   request->state <= REQUEST_LOADING;
}

/* The list of its state, or NULL. */
extern List *request_list(const Request *request);

/* Waits for `charge` bytes, also of what is made of it, to send `bytes`. */
extern void request_wait_memory(Request *request, uint64_t bytes, size_t charge);

/* It waits for its model: `entry` is set. */
extern void request_wait_model(Request *request);

/*
 * It is decoded and takes its place among those for the device; or it is sized,
 * and waits for memory first.
 */
extern void request_decoded(Request *request);

/*
 * Hands the request to a thread. `done` is called if request_back, and for a
 * LOAD in any case.
 */
extern void request_work(Request *request, Executor *executor, RequestState state,
						 void (*run)(Request *), void (*done)(Request *), TaskRank rank);

/* False: it was withdrawn and is freed now, or has an error and is answered. */
extern bool request_back(Request *request);

/* Against the session's limit (0: none) and the engine's. */
extern bool request_check_model_size(const struct Engine *engine, uint64_t size,
									 uint64_t session_limit, EngineError *error);

/* Frees its image, or gives its place back. Whoever has the request. */
extern void request_drop_pixels(Request *request);

/* ---- The end ------------------------------------------------------------- */

/* The request ends with an error, which may be its own. */
extern void request_fail(Request *request, const EngineError *error);
extern void request_fail_memory(Request *request, const char *what);

/* It ends with a result of one frame; data is the request's own. */
extern void request_reply(Request *request, const void *data, size_t length);
extern void request_reply_result(Request *request); /* its `result` */

/*
 * A piece of a result of several frames, of which the first is RESULT and the
 * last END. Data longer than a frame goes in several. The memory is the
 * request's own (its work's) unless copied.
 */
extern void request_reply_part(Request *request, BicycleFrameType type, const void *data,
							   size_t length, bool copy);

/*
 * CANCEL or the end of the connection. No more of its reply is sent, but the
 * rest of a frame whose first bytes were.
 */
extern void request_withdraw(Request *request);

/* False once it is withdrawn: its thread may stop. Any thread. */
static inline bool
request_is_wanted(Request *request)
{
	return !atomic_load_explicit(&request->unwanted, memory_order_relaxed);
}

extern void request_withdraw_all(Connection *connection);
extern void request_free(Request *request); /* no thread has it and no frame refers to it */

/* Frees the DONE ones whose last frame has gone. In settle. */
extern void request_free_written(struct Engine *engine);

/* The client is told so and the connection ends. */
extern void connection_protocol_error(Connection *connection, uint64_t id, const char *detail, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* BICYCLE_ENGINE_REQUEST_H */
