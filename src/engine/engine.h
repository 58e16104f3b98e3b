/*
 * engine.h
 *	  The inside of bicycle-engine: what its files share, and the one structure
 *	  that has it all.
 *
 * R1 One I/O thread (the main thread) owns all of this: connections, requests,
 *    the model cache, the queues and every counter. It never waits for anything
 *    but epoll.
 * R2 Work is handed to other threads as tasks (executor.h) and comes back as
 *    completed tasks, which the I/O thread picks up from a list behind an
 *    eventfd.
 * R3 While a task is away its thread may read the request's input fields and
 *    write its result fields, and nobody else touches those. When it is back
 *    they belong to the I/O thread again. So there are locks in five places
 *    only: the executors' queues, the list of completed tasks, the log's queue,
 *    the decoders' budget and the slabs. (A training engine has more: run.h.)
 * R4 A request owns its body, pixels and result. A frame in an output queue
 *    refers to them and keeps the request.
 * R5 Everything big is counted before it is allocated: bodies of image requests
 *    in `queue`, everything else in `memory`, what decoders hold in a budget of
 *    their own (budget.h). Only what slabs have spare is counted afterwards,
 *    once a turn (room.c). What lies in a GPU's memory is counted by the device
 *    itself, and who gets it is room.c's affair.
 * R6 Calls go down, in the order of test/structure/layers.txt. News goes up as
 *    a mark that settle (server.c) looks at, as a task's done(), or through the
 *    table of frames (frames.c).
 * R7 What stands here and in the comments of counters is recounted at each turn
 *    where invariant_checking() (check.c).
 *
 *	 I/O thread            all sockets, all decisions
 *	 pool (threads)        decode and resize, encode: worker.c
 *	 device (1)            batches, opening the device, preparing and freeing
 *	                       models: inference.c, engine_device.c, cache.c, load.c
 *	 loader (1)            parsing, hashing and packing of models: load.c,
 *	                       import.c, export.c
 */
#ifndef BICYCLE_ENGINE_H
#define BICYCLE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/invariant.h"
#include "common/protocol.h"
#include "common/version.h"
#include "engine/admission.h"
#include "engine/batcher.h"
#include "engine/budget.h"
#include "engine/busy.h"
#include "engine/cache.h"
#include "engine/now.h"
#include "engine/compare.h"
#include "engine/connection.h"
#include "engine/control.h"
#include "engine/demand.h"
#include "engine/engine_device.h"
#include "engine/engine_error.h"
#include "engine/executor.h"
#include "engine/frames.h"
#include "engine/list.h"
#include "engine/load.h"
#include "engine/loader.h"
#include "engine/log.h"
#include "engine/request.h"
#include "engine/room.h"
#include "engine/settings.h"
#include "engine/sizing.h"
#include "engine/source.h"
#include "engine/stream.h"
#include "engine/worker.h"
#include "format/format.h"
#include "image/image.h"
#include "nn/nn.h"

typedef struct Engine Engine;
typedef struct Run Run;

struct Engine
{
	Settings settings;
	Control control;
	int epoll;
	Source listener;
	Source completed; /* eventfd of `completions` */
	Source signals;   /* signalfd */
	int lock_fd;
	char socket_name[BICYCLE_ENGINE_FILE];
	int64_t started_ms;
	Completions completions;
	Executor pool, device_thread, loader;
	bool gone;                                   /* "go" was read, or there is nobody to say it */
	void (*go)(Engine *engine);                  /* what is done then: engine_go or run_go */
	void (*yields)(Engine *engine, int percent); /* of a training engine; else NULL */
	bool again; /* mark: something came free or came in; one more round of settle */

	/* Connections */
	List connections;
	List timed; /* those that are given so much time and no more */
	List dirty;
	List dead;                  /* Connection.link: freed at the end of the turn */
	List ring[REQUEST_CLASSES]; /* connections with something to start */
	unsigned ring_turn;
	unsigned small_bulk;   /* the next batches of bulk, which are small ones */
	unsigned nconnections; /* in `connections` and `dead` */
	bool listening;
	bool accept_paused; /* out of descriptors: tried again at the next tick */
	bool accept_failed; /* and said so; until one is accepted */

	/* Requests: lists and counters by their states, which request_to keeps */
	List requests;       /* Request.listed: all there are */
	List queue_waiting;  /* Request.link, as below; RESERVED images, in order of arrival */
	List memory_waiting; /* RESERVED streams, likewise */
	List sized;          /* SIZED, in order of arrival */
	List ready;          /* READY, by sequence */
	List loads;          /* STREAMED, in order of arrival */
	List held;           /* HELD, likewise */
	List written;        /* Request.written: DONE, and the last frame has gone */
	unsigned nrequests;  /* that exist and are not answered */
	unsigned nstarted;   /* DECODING to ENCODING */
	unsigned ahead[2];   /* with a model, DECODING or READY: interactive, bulk */
	unsigned light;      /* without one, DECODING */
	uint64_t sequence;
	Request *alone;    /* waits for silence, or runs in it */
	List batches;      /* Batch.link: on the device thread; have those that are RUNNING */
	unsigned nbatches; /* in there */
	uint64_t requests_done, computed, batched; /* requests, batches, and images in them */

	/* Models */
	EngineDevice device;
	BusyWord busy;
	List entries;     /* CacheEntry.link */
	List models;      /* Packed.link, least recently used first */
	List leaving;     /* Packed.link: evicted and not freed yet */
	unsigned freeing; /* in `leaving`, and shrinkings that are under way */
	uint64_t freed;   /* times that memory has come free on the device */
	bool trim;        /* mark: the cache may be beyond its size */
	Request *load;    /* the LOAD that is being packed */
	bool preparing;   /* the device thread has it */

	/* Memory */
	Budget queue;  /* bodies of image requests */
	Budget memory; /* everything else on the host */
	Budget cached; /* bytes of resident models; its limit is cache_limit's */
	size_t pinned; /* of memory: what slabs have and no request */
	DecodeBudget decoders;

	bool stopping;
	int64_t stop_ms;
	int exit_code;

	Run *run; /* a training engine's: then nothing listens, and run_main.c runs the loop */
};

/* ---- The loop (server.c, orders.c, check.c) ------------------------------ */

/* Makes the descriptors and lists; the settings are still to come. */
extern bool engine_init(Engine *engine);
extern void engine_go(Engine *engine); /* they are complete: open the device, then listen */
extern void engine_changed(Engine *engine, const char *setting); /* after "go" */

/* What has started is answered; clients try the rest with the next engine. */
extern void engine_stop(Engine *engine, int exit_code);
extern void engine_loop(Engine *engine);
extern void engine_free(Engine *engine); /* after the loop has ended in order */

/* A line of the supervisor. */
extern void orders_line(Engine *engine, char *line);

/* Recount everything at the end of a turn. */
extern void engine_check(const Engine *engine);
extern void request_check(const Engine *engine);
extern void cache_check(const Engine *engine);
extern void budget_check(const Engine *engine);

#endif /* BICYCLE_ENGINE_H */
