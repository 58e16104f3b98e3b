/*
 * run.h
 *	  The inside of a training engine (bicycle-engine --train): the structures
 *	  that the train_*.c files share. See run_protocol.h for what it is told.
 *
 * Threads. The I/O thread owns the state, the control lines and the input of
 * descriptor 4. The device thread opens the trainer and runs the loop; the
 * threads of the pool decode and augment ahead of it. What they share is behind
 * three locks: the output queue's (any thread may queue a frame), the feed's,
 * and the orders' (what the trainer has asked of the loop). Pairs are written
 * before the loop starts and only read afterwards.
 *
 * One Run lives in run_main for the whole process and owns everything here.
 */
#ifndef BICYCLE_ENGINE_RUN_H
#define BICYCLE_ENGINE_RUN_H

#include "engine/engine.h"
#include "common/run_protocol.h"
#include "nn/fit.h"

/* ---- Descriptor 4 (run_link.c) ----------------------------------------- */

/* One frame to be sent. */
typedef struct RunFrame
{
	List link;
	BicycleFrame frame;
	const uint8_t *data; /* into `copy`, or into memory that a later frame of the queue owns */
	size_t sent;         /* bytes of header and body together */
	void *owned;         /* freed with this frame */
	bool checkpoint;     /* last of a checkpoint */
	uint8_t copy[];
} RunFrame;

typedef struct RunLink
{
	Source source;
	BicycleFrame frame; /* being received */
	size_t frame_have;
	uint8_t *body; /* where its body goes; owned if `body_owned` */
	uint8_t *body_owned;
	size_t body_have;

	RunFrame *reserve; /* room for the one ERROR, which is often about memory; NULL once used */

	pthread_mutex_t lock; /* guards the two below */
	List out;             /* RunFrame.link */
	bool failed;          /* a frame could not be queued for want of memory */
} RunLink;

extern void run_link_init(RunLink *link);
extern bool run_link_open(Run *run, int fd);
extern bool run_link_send(Run *run, uint32_t type, const void *data,
						  size_t length); /* any thread; copies; false without memory */
extern void run_link_send_error(Run *run, const EngineError *error); /* I/O thread; once */
extern bool
run_link_send_stream(Run *run, uint8_t *bytes, size_t length,
					 bool checkpoint); /* any thread; DATA.. and END; takes bytes over */
extern void run_link_flush(Run *run);
extern bool run_link_idle(Run *run); /* nothing is left to send */
extern void run_link_free(RunLink *link);

/* ---- The pairs (run_data.c) -------------------------------------------- */

typedef struct RunPair
{
	uint8_t hash[BICYCLE_HASH_BYTES]; /* what orders pairs */
	uint8_t *bytes; /* A then B as they came; NULL: at `offset` of the spill file */
	int64_t offset;
	uint32_t length[2];
	ImageInfo info[2];
	int64_t ordinal; /* of the row of the query, from 1 */
	uint8_t *pixels; /* A then B at load_size, cached; set once, by run_feed.c */
} RunPair;

typedef struct RunData
{
	RunPair *pairs; /* by hash, once complete */
	int64_t npairs, capacity;
	uint64_t memory, /* bytes taken of memory_limit: pairs in memory, and records of all */
		memory_limit;
	uint64_t spilled, spill_limit;
	uint64_t max_pixels;
	int spill_fd;    /* -1: none */
	char spill[256]; /* its directory */
	uint8_t digest[BICYCLE_HASH_BYTES];
} RunData;

extern void run_data_init(RunData *data);
extern void run_data_begin(RunData *data, const BicycleTrainBegin *begin);
extern bool run_data_check_room(const RunData *data, uint64_t bytes,
								EngineError *error); /* of a pair that is about to come */
extern bool run_data_add(RunData *data, const uint8_t *body, size_t length,
						 EngineError *error); /* a PAIR frame's body */
extern bool run_data_complete(RunData *data, EngineError *error);
extern bool run_data_read(const RunData *data, const RunPair *pair, uint8_t **bytes,
						  uint8_t **owned, EngineError *error); /* any thread */
extern void run_data_name_row(EngineError *error, int64_t ordinal,
							  char side); /* adds to an image's error where the image came from */
extern void run_data_free(RunData *data);

/* ---- Batches (run_feed.c) ---------------------------------------------- */

/*
 * What is done to the two images of a pair: a function of seed, epoch and the
 * place in the epoch alone.
 */
typedef struct Augmentation
{
	int x, y; /* of the crop */
	bool flip;
} Augmentation;

extern void run_feed_permutation(uint64_t seed, int64_t epoch, uint32_t rows, uint32_t *order);
extern Augmentation run_feed_augmentation(uint64_t seed, int64_t epoch, uint64_t rank,
										  int load_size, int size, bool flip);

typedef struct FeedBatch
{
	uint8_t *a,        /* (batch_size, size, size, input_nc) */
		*b;            /* (batch_size, size, size, output_nc) */
	int done;          /* pairs that are in it or have failed */
	int failed;        /* the first of them that failed; batch_size: none */
	EngineError error; /* of that one */
} FeedBatch;

/* The work of one thread of the pool. */
typedef struct FeedTask
{
	Task task;
	struct Feed *feed;
} FeedTask;

typedef struct Feed
{
	Engine *engine;
	RunData *data;
	int size, load_size, channels[2];
	int batch_size;
	bool flip;
	uint64_t seed;
	int64_t batches_an_epoch;
	uint64_t end;    /* pairs of the whole run */
	FeedTask *tasks; /* one a thread of the pool */

	pthread_mutex_t lock;  /* guards all below, and RunPair.pixels */
	pthread_cond_t room;   /* a batch was taken, or stop */
	pthread_cond_t filled; /* a batch is complete, or stop */
	FeedBatch *batches;    /* a ring */
	int nbatches;
	uint64_t next;   /* pair of the run to be decoded next: batch_size to a batch */
	uint64_t taken;  /* batches the loop has taken, counted from the beginning of the run */
	uint32_t *order; /* of the rows in epoch `epoch` */
	int64_t epoch;   /* -1: none yet */
	uint64_t cached, /* bytes of RunPair.pixels */
		cache_limit;
	bool stop;
} Feed;

extern void run_feed_init(Feed *feed);
extern bool run_feed_start(Feed *feed, Engine *engine, RunData *data, const NnConfig *config,
						   const NnTrainOptions *options, int64_t iteration, int64_t iterations,
						   EngineError *error);
extern bool run_feed_next(Feed *feed, float *a, float *b,
						  EngineError *error); /* waits; false without an error: stopped */
extern void run_feed_stop(Feed *feed);
extern void run_feed_free(Feed *feed);
extern bool run_feed_decode(Engine *engine, const RunData *data, const RunPair *pair,
							const int channels[2], int side, Image images[2], EngineError *error);

/* ---- Previews and the watch on diversity (run_preview.c) --------------- */

#define PREVIEW_ROWS 4
#define PREVIEW_SAMPLES 4

typedef struct Preview
{
	const NnConfig *config;
	int rows, samples; /* 1 without a latent code */
	Image input[PREVIEW_ROWS], truth[PREVIEW_ROWS];
	float *a;      /* (samples, size, size, input_nc): one input as often as it is sampled */
	float *b;      /* (size, size, output_nc) */
	float *z;      /* (samples, nz), the same in every preview */
	float *mu;     /* (2, nz): mean and logarithm of the variance */
	float *out;    /* (samples, size, size, output_nc) */
	int collapsed; /* looks in a row that found no diversity */
	bool noted;
} Preview;

extern bool run_preview_open(Preview *preview, Engine *engine, const RunData *data,
							 const NnConfig *config, uint64_t seed, EngineError *error);
extern bool run_preview_sheet(Preview *preview, NnFit *fit, uint8_t **png, size_t *length,
							  EngineError *error);
extern bool run_preview_watch(Preview *preview, NnFit *fit, int64_t iteration, int64_t iterations,
							  double *diversity, bool *collapsed, EngineError *error);
extern void run_preview_free(Preview *preview);

/* ---- The run (run_loop.c, run_main.c) --------------------------------- */

typedef enum RunState
{
	RUN_STARTING, /* before "go" */
	RUN_WAITING,  /* for TRAIN_BEGIN */
	RUN_STREAM,   /* receiving weights */
	RUN_PAIRS,    /* receiving pairs */
	RUN_OPENING,  /* the device thread makes the trainer */
	RUN_READY,
	RUN_RUNNING,
	RUN_ENDED /* paused, done or failed: what still comes is read and thrown away */
} RunState;

struct Run
{
	Engine *engine;
	RunState state;
	RunLink link;
	BicycleTrainBegin begin;
	NnConfig config;
	NnTrainOptions options;
	char *start_config; /* begin.start.config_length bytes */
	uint8_t *stream;    /* begin.stream_length bytes */
	uint64_t stream_have;
	RunData data;
	Feed feed;
	Preview preview;
	NnFit *fit; /* the device thread's */
	Task open_task, run_task;
	EngineError error; /* of the task that has run */
	bool finished;     /* PAUSED or TRAIN_DONE was sent */
	BicycleTrainReady ready;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wake;  /* any of them has changed */
	bool checkpoint_wanted, pause_wanted, stop_wanted;
	bool checkpoint_queued; /* one has not been read yet */
};

/*
 * Nothing is left to train: the run has begun with its last checkpoint, and
 * there are no pairs.
 */
static inline bool
run_is_finished(const Run *run)
{
	return (run->begin.flags & BICYCLE_TRAIN_FINISHED) != 0;
}

extern int run_main(Engine *engine);
extern void run_go(Engine *engine);
extern bool run_frame_begins(Run *run, const BicycleFrame *frame, uint8_t **body,
							 EngineError *error);
extern bool run_frame(Run *run, const BicycleFrame *frame, EngineError *error);
extern void run_fail(Run *run, const EngineError *error);
extern void run_open(Task *task);
extern void run_loop(Task *task);
extern bool run_tensors_pack(const NnTensor *tensors, int ntensors, uint8_t **bytes, size_t *length,
							 EngineError *error);

#endif /* BICYCLE_ENGINE_RUN_H */
