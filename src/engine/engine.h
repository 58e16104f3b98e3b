/*
 * engine.h
 *	  The inside of bicycle-engine: the structures its files share.
 *
 * Threads. One I/O thread (the main thread) owns all of this: connections,
 * requests, the model cache, the queues and every counter. It never waits for
 * anything but epoll. Work is handed to other threads as tasks (executor.c) and
 * comes back as completed tasks, which the I/O thread picks up from a list
 * behind an eventfd. While a task is away its thread may read the request's
 * input fields and write its result fields and nobody else touches those; when
 * it is back they belong to the I/O thread again. So there are locks in four
 * places only: the executors' queues, the list of tasks that have run, the
 * log's queue and the decoders' budget.
 *
 *	 I/O thread            all sockets, all decisions
 *	 pool (threads)        decode and resize, encode: worker.c
 *	 device (1)            batches, opening the device, freeing models:
 *	                       batcher.c, cache.c, load.c
 *	 loader (1)            parsing, hashing and packing of models: load.c,
 *	                       import.c, export.c
 *
 * Memory. A request owns its body, pixels and result; a frame in an output
 * queue refers to them and keeps the request. Everything big is counted before
 * it is allocated: bodies of image requests in the queue pool, everything else
 * in the engine's budget, decoders in a budget of their own (budget.c). What
 * lies in a GPU's memory is counted by the device itself, and who gets it is
 * cache.c's affair.
 */
#ifndef BICYCLE_ENGINE_H
#define BICYCLE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/budget.h"
#include "engine/clock.h"
#include "engine/control.h"
#include "engine/engine_error.h"
#include "engine/executor.h"
#include "engine/list.h"
#include "engine/log.h"
#include "engine/settings.h"
#include "engine/source.h"
#include "common/protocol.h"
#include "common/version.h"
#include "format/format.h"
#include "image/image.h"
#include "nn/nn.h"

typedef struct Engine Engine;
typedef struct Connection Connection;
typedef struct Request Request;
typedef struct CacheEntry CacheEntry;
typedef struct Packed Packed;
typedef struct Run Run;

/* ---- Admission (admission.c) --------------------------------------------- */

extern void budget_limits(Engine *engine);
extern void queue_admit(Engine *engine);
extern void queue_release(Request *request);
extern bool memory_take(Engine *engine, size_t bytes, bool evict_wanted);
extern void memory_release(Engine *engine, size_t bytes);
extern void memory_admit(Engine *engine);

/* ---- Connections (connection.c) ------------------------------------------ */

/* What is started in turns of its own. */
enum RequestClass
{
	CLASS_INTERACTIVE,
	CLASS_BULK,
	CLASS_LIGHT, /* needs no model, and so no device */
	REQUEST_CLASSES
};

#define INPUT_BUFFER (64 * 1024) /* holds any frame whose body is not received into a request */
#define ID_BUCKETS 256

/*
 * One frame to be sent. Freed when it has been written, or was withdrawn before
 * its first byte was.
 */
typedef struct OutFrame
{
	List link; /* Connection.out */
	BicycleFrame frame;
	const uint8_t *data; /* into `copy`, or into memory of `owner` */
	size_t sent;         /* bytes of header and body together */
	Request *owner;      /* kept until this frame is gone; may be NULL */
	uint8_t copy[];
} OutFrame;

struct Connection
{
	Source source;
	Engine *engine;
	List link;                  /* Engine.connections */
	List dirty;                 /* Engine.dirty: has something to flush */
	List timed;                 /* Engine.timed: has not greeted yet, or is closing */
	List ring[REQUEST_CLASSES]; /* Engine.ring: has requests in queued[] that may start */
	uint32_t database;
	int32_t pid;
	bool greeted;
	bool closing;  /* nothing more is read; closed when `out` is empty */
	bool dead;     /* closed; freed at the end of the loop's turn */
	bool paused;   /* too many replies unread: nothing is read until they are */
	bool jammed;   /* the client does not read: nothing of it starts until it does */
	int64_t since; /* ms: accepted, or began closing */

	uint8_t *input; /* INPUT_BUFFER bytes */
	size_t input_start, input_end;
	BicycleFrame frame; /* whose body is being received into `body_to` */
	uint8_t *body_to;
	size_t body_left;
	bool in_body;

	List out;          /* OutFrame.link */
	size_t out_copied; /* bytes of frames that own their body */

	List requests; /* Request.all */
	unsigned nrequests;
	Request *ids[ID_BUCKETS];     /* chained by Request.id_next */
	size_t place;                 /* bytes of the queue pool held */
	List queued[REQUEST_CLASSES]; /* Request.link: ready to start */
};

extern void connection_accept(Engine *engine, int fd);
extern void connection_close(Connection *connection);
extern void connection_free(Connection *connection);
extern bool connection_send(Connection *connection, BicycleFrameType type, uint64_t id,
							const void *data, size_t length, bool copy, Request *owner);
extern void connection_send_error(Connection *connection, uint64_t id, const EngineError *error,
								  Request *owner);
extern void connection_protocol_error(Connection *connection, uint64_t id, const char *detail, ...)
	__attribute__((format(printf, 3, 4)));
extern bool connection_flush(Connection *connection); /* true if nothing is left to send */
extern bool
connection_send_now(Connection *connection, BicycleFrameType type,
					uint64_t id); /* a frame without body: sent at once, or not at all */
extern void
connection_unsend(Connection *connection,
				  uint64_t id); /* drops frames of id of which nothing was written yet */
extern void connection_tick(Connection *connection, int64_t now);

/* ---- Requests (request.c) ------------------------------------------------ */

typedef enum RequestState
{
	REQUEST_RESERVED,  /* waits for a place; link in Engine.queue_waiting or memory_waiting */
	REQUEST_GRANTED,   /* the client may send; for streams: is sending */
	REQUEST_RECEIVING, /* the body of an image request is coming in */
	REQUEST_WAITING,   /* for its model; link in CacheEntry.waiters */
	REQUEST_QUEUED,    /* may start; link in Connection.queued */
	REQUEST_ALONE,     /* is Engine.alone and waits for everything else to end */
	REQUEST_DECODING,  /* on a thread of the pool */
	REQUEST_READY,     /* link in Engine.ready */
	REQUEST_RUNNING,   /* on the device thread */
	REQUEST_ENCODING,  /* on a thread of the pool */
	REQUEST_LOADING,   /* on the loader thread, or held back from it */
	REQUEST_DONE       /* answered; lives until its frames are written */
} RequestState;

struct Request
{
	Engine *engine;
	Connection *connection; /* NULL: withdrawn while a thread had it; freed when it comes back */
	uint64_t id;
	Request *id_next;
	List all;  /* Connection.requests */
	List link; /* in the list of its state */
	RequestState state;
	BicycleFrameType type; /* RESERVE until the request itself has come */
	uint32_t database;

	/* Input: filled while it is received, then only read */
	uint64_t body_size; /* granted */
	uint8_t *body;      /* owned */
	size_t received;    /* streams: bytes so far */
	BicycleImageRequest image;
	const uint8_t *latent; /* image.nz floats in body, not aligned */
	const uint8_t *file;   /* image.image_length bytes in body */
	size_t place;          /* bytes of the queue pool */
	size_t charge;         /* bytes of the engine's budget */
	uint64_t sequence;     /* order of arrival among ready requests, bulk ones set back */

	/* The model */
	CacheEntry *entry;
	Packed *model; /* pinned */
	bool asked;    /* NEED_MODEL was sent for it */
	bool loading;  /* LOAD: counted in entry->loads */

	/* Work: written by the thread that has the request */
	Task task;
	bool started;   /* counted in Engine.nstarted */
	bool announced; /* STARTED was sent; on the loader only, where a request may come twice */
	ImageInfo info;
	Image pixels;    /* decoded input, later the output; owned */
	uint8_t *result; /* owned */
	size_t result_length;
	EngineError error;
	void *work; /* what a request on the loader needs and makes; owned, freed by work_free */
	void (*work_free)(void *work);

	unsigned frames; /* in output queues that keep this request */
};

extern bool
request_frame(Connection *connection, const BicycleFrame *frame,
			  const uint8_t *body); /* a whole frame; false: the connection is closing */
extern bool request_target(Connection *connection, const BicycleFrame *frame,
						   uint8_t **to); /* where the body of TRANSLATE.. and DATA goes */
extern void request_received(Connection *connection, const BicycleFrame *frame);
extern bool frame_is_direct(uint32_t type);
extern bool frame_length_fits(const BicycleFrame *frame);
extern Request *request_find(Connection *connection, uint64_t id);
extern void request_grant(Request *request);
extern void request_fail(Request *request, const EngineError *error);
extern void request_reply(Request *request, const void *data,
						  size_t length); /* data must be the request's own */
extern void request_reply_part(Request *request, BicycleFrameType type, const void *data,
							   size_t length, bool copy);
extern void request_wait_memory(Request *request, uint64_t bytes, size_t charge);
extern bool request_check_model_size(const Engine *engine, uint64_t size, uint64_t session_limit,
									 EngineError *error);
extern bool
request_uses_model(const Request *request); /* of image requests: INFO and PLOT do not */
extern void request_withdraw(Request *request);
extern void request_free(Request *request);
extern void request_frame_gone(Request *request);
extern void request_work(Request *request, Executor *executor, RequestState state,
						 void (*run)(Task *), void (*done)(Engine *, Task *), bool first);
extern bool request_back(Request *request); /* false: it was withdrawn meanwhile and is freed now */

/* ---- Work (worker.c, batcher.c) ------------------------------------------ */

extern void worker_decode(Request *request);
extern void worker_encode(Request *request);

/*
 * Decodes an image file, whose header is in *info, and resizes it to side x
 * side; waits for its share of the budget. Any thread of an executor.
 */
extern bool worker_decode_file(DecodeBudget *budget, const uint8_t *file, size_t length,
							   const ImageInfo *info, int channels, int side, uint64_t max_pixels,
							   Image *pixels, EngineError *error);

/*
 * Draws what a PLOT request holds, once the budget has room for it; *png is
 * malloc'ed, and NULL on failure. Any thread of an executor.
 */
extern bool worker_draw_plot(DecodeBudget *budget, const uint8_t *bytes, size_t length,
							 uint64_t max_pixels, uint8_t **png, size_t *png_length,
							 EngineError *error);

extern void batcher_add(Request *request);
extern void batcher_ready(Request *request);
extern void
batcher_run(Engine *engine); /* starts what can be started; called once a turn of the loop */
extern void batcher_started(Request *request);
extern void batcher_ended(Request *request); /* no thread will touch it again */
extern void batcher_loader(Engine *engine,
						   Request *request); /* to the loader, unless a request runs alone */

/* ---- Models (cache.c, load.c, stream.c, hash.c, import.c, export.c) ------ */

#define PACKED_PRECISIONS 3 /* fp32, bf16, fp16 */

/*
 * A model packed for the device. Freed on the device thread when it was evicted
 * and its last pin is gone.
 */
struct Packed
{
	CacheEntry *entry;
	List link; /* Engine.models, least recently used first */
	NnModel *model;
	NnConfig config;
	NnPrecision precision;
	size_t bytes; /* in the memory that the device computes in; counted in Engine.cached */
	size_t
		/*
		 * of the host's memory: the same, unless the device has its own;
		 * counted in Engine.memory
		 */
		host;
	size_t least; /* bytes as it was loaded, without plans made since */
	int small;    /* most images of a batch, before small_until_ms: larger plans found no room */
	int64_t small_until_ms;
	uint64_t hits;
	uint64_t batches;
	int64_t loaded_ms, used_ms;
	unsigned
		/*
		 * requests that were started on it and have not left the device; a
		 * shrinking that is under way
		 */
		pins;
	bool shrinking;   /* task is to free plans */
	size_t shrunk[2]; /* bytes and host after it */
	bool evicted;     /* takes no new requests; no longer in entry->packed and Engine.models */
	Task task;
};

/* A database that has shown a model's content, and what it calls it. */
typedef struct CacheOwner
{
	uint32_t database;
	int32_t version;
	char model[BICYCLE_MAX_NAME];
} CacheOwner;

struct CacheEntry
{
	uint8_t hash[BICYCLE_HASH_BYTES];
	List link;           /* Engine.entries */
	List waiters;        /* Request.link, in order of arrival */
	unsigned requests;   /* that refer to this entry, LOADs included */
	unsigned loads;      /* LOADs under way */
	unsigned packing;    /* of them on the loader thread */
	unsigned asked;      /* waiters that were asked and have not answered */
	int64_t progress_ms; /* when the last one was asked or last sent something */
	bool dirty;          /* cache_run has to look at its waiters */
	bool configured;     /* config is known */
	NnConfig config;
	Packed *packed[PACKED_PRECISIONS];
	CacheOwner *owners;
	unsigned nowners;
};

extern void cache_want(
	Request *request); /* finds or asks for the request's model; then it goes to the batcher */
extern Packed *cache_pin(Request *request); /* NULL: it is not resident any more */
extern void cache_unpin(Engine *engine, Packed *packed);
extern void cache_forget(Request *request); /* the request does not need its model any more */
extern void cache_no_model(Request *request, const EngineError *error);
extern bool cache_evict_one(
	Engine *engine,
	bool wanted_too); /* the least recently used; its memory comes back a little later */
extern bool cache_freeing(Engine *engine);
extern bool
cache_make_room(Engine *engine,
				const Packed *growing); /* in the device's own memory; false: nothing may go now */
extern size_t cache_limit(const Engine *engine); /* bytes */
extern void cache_trim(Engine *engine);
extern void cache_limit_changed(Engine *engine); /* of the device's own memory */
extern void cache_clear(Engine *engine);
extern void cache_batch_done(Engine *engine, Packed *packed, size_t bytes, size_t host,
							 unsigned requests);
extern void cache_run(
	Engine *engine); /* moves waiters on and asks for models; called once a turn of the loop */
extern void cache_tick(Engine *engine, int64_t now);
extern void cache_answer(Connection *connection, uint64_t id);
extern void cache_free(Engine *engine);
extern NnPrecision cache_precision(const Engine *engine, NnPrecision asked,
								   const NnConfig *config); /* config may be NULL */

/* For load.c. */
extern CacheEntry *cache_entry(Engine *engine,
							   const uint8_t *hash); /* NULL if there is no memory */
extern void cache_drop_unused(CacheEntry *entry);
extern bool cache_admit(CacheEntry *entry, uint32_t database, const char *model,
						int32_t version); /* false if there is no memory */
extern bool cache_is_resident(const CacheEntry *entry);
extern void cache_free_packed(Engine *engine, Packed *packed);
extern int cache_slot(NnPrecision precision); /* in CacheEntry.packed */
extern NnPrecision cache_resolve_precision(NnPrecision asked, NnPrecision setting,
										   const NnConfig *config, NnPrecision automatic);

extern bool load_check(Request *request, const BicycleLoad *load,
					   EngineError *error); /* what can be said before anything is streamed */
extern void load_begin(Request *request, const BicycleLoad *load, const uint8_t *config);
extern void load_progress(Request *request);
extern void
load_queue(Request *request); /* the stream is complete: it takes its place in the line */
extern void
load_next(Engine *engine); /* packs what can be packed now; called once a turn of the loop */

/*
 * Tensors of a stream; names and, where alignment allows, data point into it.
 */
typedef struct TensorStream
{
	NnTensor *tensors;
	int ntensors;
	void **copies; /* owned: data that was not aligned in the stream */
	int ncopies;
} TensorStream;

extern bool stream_parse(const uint8_t *bytes, size_t length, TensorStream *stream,
						 EngineError *error);
extern void stream_free(TensorStream *stream);
extern bool stream_header(const NnTensor *tensor, BicycleTensor *header);
extern bool stream_order(const NnConfig *config, NnTensor *tensors, int ntensors,
						 EngineError *error);
extern bool pair_hash(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length,
					  uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error);
extern bool model_verify(const BicycleLoad *load, const char *text, NnConfig *config,
						 TensorStream *stream, EngineError *error);
extern bool model_hash(const char *config, const NnTensor *tensors, int ntensors,
					   uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error);

extern void import_begin(Request *request, const BicycleImport *import, const uint8_t *config);
extern void import_run(Request *request);
extern bool import_read_file(const uint8_t *bytes, size_t length, FormatFile *file,
							 EngineError *error);
extern void import_format_error(FormatStatus status, const FormatError *format, EngineError *error);
extern void inspect_run(Request *request);
extern void export_begin(Request *request, const BicycleExport *export);
extern void export_run(Request *request);
extern void options_check(Connection *connection, const BicycleFrame *frame, const uint8_t *body);

/* ---- The engine (server.c, main.c) --------------------------------------- */

struct Engine
{
	Settings settings;
	Control control;
	int epoll;
	Source listener;
	Source completed; /* eventfd of `completions` */
	Source signals;   /* signalfd */
	int lock_fd;
	int64_t started_ms;

	Completions completions;
	bool gone;                  /* "go" was read, or there is nobody to say it */
	void (*go)(Engine *engine); /* what is done then: engine_go or run_go */

	List connections;
	List timed; /* those that are given so much time and no more */
	List dirty;
	List dead;                  /* Connection.link: freed at the end of the turn */
	List ring[REQUEST_CLASSES]; /* connections with something to start */
	unsigned ring_turn;
	List ready;        /* Request.link: decoded, for the device */
	unsigned ahead;    /* requests that are decoding for the device, or ready */
	unsigned light;    /* of CLASS_LIGHT that the pool has */
	unsigned nstarted; /* requests from STARTED to their last thread's end */
	uint64_t sequence;
	Request *alone;      /* waits for silence, or runs in it */
	List held;           /* Request.link: for the loader, after `alone` */
	struct Batch *batch; /* on the device thread */

	Executor pool, device_thread, loader;
	bool
		/*
		 * being opened or replaced: nothing starts, and the device thread has
		 * the fields below
		 */
		device_busy;
	NnDevice *device;       /* NULL: see device_error */
	char device_wanted[64]; /* as the neural core calls it */
	int device_threads;
	int64_t device_gpu_memory; /* of the setting, as the device was told */
	size_t device_memory;      /* what it may take of memory of its own; 0: it has none */
	bool device_change;        /* the setting has changed: replace it when all is quiet */
	bool device_opened;        /* the first opening has ended */
	bool device_short;         /* there is a GPU that could not be had; it may be later */
	bool device_found;         /* it can be had now */
	Task device_job;
	Task settings_job;
	bool settings_busy; /* the device thread has settings_job */
	Task try_job;
	bool trying;                  /* the device thread has it */
	int64_t try_ms,               /* when it is due, */
		try_wait;                 /* and what is waited after it */
	NnPrecision device_automatic; /* what precision auto means on it */
	EngineError device_error;
	char device_name[128];
	char device_lack[80]; /* why it is not a GPU, where one was looked for */

	List entries;     /* CacheEntry.link */
	List models;      /* Packed.link */
	unsigned freeing; /* evicted models and plans that the device thread has not freed yet */
	uint64_t freed;   /* times that memory has come free on the device */
	Budget cached;    /* bytes of resident models; its limit is cache_limit's */
	List loads;       /* Request.link of LOADs whose streams are complete, in order of arrival */
	Request *load;    /* the one that is being packed, and in no list */
	bool preparing;   /* the device thread has it */

	Budget queue;        /* bodies of image requests */
	Budget memory;       /* everything else on the host */
	List queue_waiting;  /* Request.link, in order of arrival */
	List memory_waiting; /* likewise: LOAD, IMPORT, INSPECT, EXPORT, CREATE */
	DecodeBudget decoders;

	uint64_t requests_done, batches, batched;
	unsigned nrequests; /* that exist and are not answered */
	unsigned nconnections;
	bool listening;
	bool accept_paused; /* out of descriptors: tried again at the next tick */
	bool accept_failed; /* and said so; until one is accepted */
	bool stopping;
	int64_t stop_ms;
	int exit_code;
	bool finished;

	Run *run; /* a training engine's: then nothing listens, and run_main.c runs the loop */
};

extern bool engine_init(Engine *engine);
extern void engine_go(Engine *engine); /* the settings are complete: open the device, then listen */
extern void engine_listen(Engine *engine);
extern void orders_line(Engine *engine, char *line); /* of the supervisor (orders.c) */
extern void engine_changed(Engine *engine, const char *setting);
extern void engine_stop(Engine *engine, int exit_code);
extern void engine_loop(Engine *engine);
extern void engine_free(Engine *engine);
extern void engine_status(Connection *connection, uint64_t id);
extern void device_replace(Engine *engine);
/*
 * its state is not to be trusted: the engine ends, and what it has not answered
 * is tried again
 */
extern void device_lost(Engine *engine, const EngineError *error);

#endif /* BICYCLE_ENGINE_H */
