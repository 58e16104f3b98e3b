/*
 * run_protocol.h
 *	  What a job worker (a background worker of PostgreSQL) and its training
 *	  engine say to each other.
 *
 *	 job worker               training engine
 *	 TRAIN_BEGIN, DATA.., END
 *	                     ->   options, and the version or the checkpoint to
 *	                          start from (a tensor stream; may be empty)
 *	 METRIC, DATA.., END ->   weights that validation compares images by; if
 *	                          there are such
 *	 PAIR ..             ->   one row of the query each
 *	 VALIDATION_PAIR ..  ->   likewise of the option validation's
 *	 PAIRS_END           ->
 *	                     <-   TRAIN_READY: all pairs have been decoded, those
 *	                          that are skipped apart; counts and digest
 *	 RUN                 ->   train from here on
 *	                     <-   LOSSES, VALIDATED, RATE, PREVIEW, NOTE,
 *	                          CHECKPOINT + DATA.. + END, as they come
 *	 CHECKPOINT_NOW      ->   after the iteration that runs; answered by
 *	                          CHECKPOINT
 *	 PAUSE               ->   the same, then
 *	                     <-   PAUSED: and nothing more is computed
 *	                     <-   TRAIN_DONE + DATA.. + END: the last iteration is
 *	                          done: the model
 *	                     <-   ERROR: the run cannot go on
 *
 * R1 A training engine is bicycle-engine started with the argument --train by
 *    the job worker, for one run of one job. It binds no socket and takes no
 *    lock; its working directory is the data directory.
 * R2 Descriptor 3 carries the lines of protocol.h (settings, go, ping, stop,
 *    log, fatal) and "yield N", descriptor 4 frames as protocol.h defines them,
 *    with id 0.
 *    EOF of either ends it at once.
 *     Nothing is sent to an engine of another version: the job worker waits for
 *     "ready", and for what it says then (BICYCLE_TRAIN_GREETING).
 * R3 A frame comes in its turn and has a length that suits its type; else, and
 *    for a type that is not above, the answer is ERROR 08P01.
 * R4 Pairs are kept encoded, in memory up to a budget, then in a spill file;
 *    beyond both the answer is ERROR 54000. Which pairs cannot be used is found
 *    out after PAIRS_END, of all of them at once.
 * R5 CHECKPOINT_NOW and PAUSE may come from TRAIN_READY on. Before RUN they
 *    wait for it. After the end of the run (PAUSED, TRAIN_DONE, ERROR) they are
 *    ignored: they may have been on their way.
 * R6 Options' checkpoint_every adds to what is asked for; checkpoints by the
 *    clock are the job worker's, by CHECKPOINT_NOW.
 * R7 The last iteration always has a CHECKPOINT, which comes before TRAIN_DONE.
 *    A run that begins with it (BICYCLE_TRAIN_FINISHED) needs no pairs and
 *    answers RUN by TRAIN_DONE alone.
 * R8  LOSSES up to a checkpoint, and to the end, come before it. Those of later
 *     iterations may come before it, too: it is made while training goes on.
 * R9 ERROR comes at most once. After it whatever is sent is read and thrown
 *    away.
 * R10 The engine runs at idle priority. It withholds "pong" as an inference
 *     engine does, while one iteration takes longer than stuck_timeout: set
 *     that to what the largest iteration may take.
 * R11 "stop" ends it after the iteration that runs, without a checkpoint.
 * R12 The engine never waits for the job worker to read while it holds anything
 *     the job worker waits for. Frames are queued without limit but CHECKPOINT,
 *     of which one at most is in the queue: another is made when that has been
 *     read, and a PAUSE waits for it.
 * R13 "yield N": requests of sessions wait for the card that the run is on, and
 *     it may have N hundredths of its time, from 0 to 100; 100 is as if nobody
 *     waited, which is so at first. It waits between iterations. Orders, "ping"
 *     and "stop" are answered meanwhile as ever.
 */
#ifndef BICYCLE_RUN_PROTOCOL_H
#define BICYCLE_RUN_PROTOCOL_H

#include "common/protocol.h"

#define BICYCLE_TRAIN_FD 4

/*
 * What a training engine says to be "ready" as: its version and protocol, both
 * of which must be its worker's. It is this connection's HELLO.
 */
#define BICYCLE_TRAIN_GREETING "training engine %s protocol %d"

typedef enum BicycleTrainFrame
{
	/* BicycleTrainBegin, options JSON, config JSON; then tensors, and END */
	BICYCLE_TRAIN_BEGIN = 128,
	/* BicyclePair, image A, image B, name; not cut into DATA frames */
	BICYCLE_PAIR,
	/* what an earlier run's TRAIN_READY said from data_digest on, or nothing */
	BICYCLE_PAIRS_END,
	BICYCLE_RUN,
	BICYCLE_CHECKPOINT_NOW,
	BICYCLE_PAUSE,
	BICYCLE_VALIDATION_PAIR, /* as PAIR */
	BICYCLE_METRIC,          /* BicycleLoad, config JSON; then tensors, and END */

	BICYCLE_TRAIN_READY = 160, /* BicycleTrainReady, then the hashes of the pairs skipped */
	BICYCLE_LOSSES,            /* BicycleLosses */
	BICYCLE_PREVIEW,           /* BicyclePreview, PNG */
	BICYCLE_NOTE, /* BicycleNote, text without NUL: something the owner of the job should read */
	BICYCLE_CHECKPOINT, /* BicycleCheckpoint; then a tensor stream in DATA frames, and END */
	BICYCLE_PAUSED,     /* no body */
	/* BicycleTrainDone, config JSON; then tensors as DATA frames, and END */
	BICYCLE_TRAIN_DONE,
	BICYCLE_RATE,     /* BicycleRate: it waits, and comes no further */
	BICYCLE_VALIDATED /* BicycleValidated */
} BicycleTrainFrame;

/*
 * What a run computes on, and an earlier run of the job has: the device, which
 * begins with its name and tells card or instruction set, libraries and
 * threads; the precision; the version of this program.
 */
#define BICYCLE_PLATFORM "%.160s, %s, bicycle %s"
#define BICYCLE_MAX_PLATFORM 192

/* the stream is the checkpoint of the last iteration; no PAIR comes */
#define BICYCLE_TRAIN_FINISHED 1

typedef struct BicycleTrainBegin
{
	uint64_t stream_length; /* of the tensor stream; 0: fresh weights */
	int64_t iteration;      /* of the checkpoint in the stream; 0: it holds a version, or nothing */
	uint64_t max_pixels;
	uint64_t train_memory; /* bytes of encoded pairs kept in memory */
	uint64_t train_disk;   /* bytes of the spill file; 54000 beyond both */
	uint32_t options_length;
	uint32_t flags;                      /* BICYCLE_TRAIN_FINISHED */
	char platform[BICYCLE_MAX_PLATFORM]; /* of an earlier run, as its TRAIN_READY said; or "" */
	char spill[256];                     /* directory of the spill file, below the data directory */
	BicycleLoad start; /* of the version in the stream, checked as by LOAD; else zeros */
} BicycleTrainBegin;

/* Why a row has no image to send. */
typedef enum BicyclePairLack
{
	BICYCLE_PAIR_WHOLE,
	BICYCLE_PAIR_NULL,
	BICYCLE_PAIR_TOO_LARGE
} BicyclePairLack;

/* With side_by_side there is one image, A. */
typedef struct BicyclePair
{
	uint32_t a_length, b_length;
	uint32_t name_length; /* of the text by which errors name the row; 0: it has none */
	uint8_t lack[2];      /* BicyclePairLack of A and B */
	uint8_t reserved[2];
} BicyclePair;

/* What a later run must equal to give the same bits; kept with the job. */
typedef struct BicycleTrainReady
{
	int64_t rows;                            /* that are trained on */
	int64_t iterations;                      /* of the whole run */
	int64_t iteration;                       /* done */
	char platform[BICYCLE_MAX_PLATFORM];     /* by BICYCLE_PLATFORM */
	uint8_t data_digest[BICYCLE_HASH_BYTES]; /* SHA-256 over the hashes of all pairs in order */
} BicycleTrainReady;

typedef struct BicycleLosses
{
	int64_t iteration;
	int32_t epoch, epochs;
	double images_per_second;
	uint32_t present; /* bit i: value[i], of BicycleLoss i, is there */
	uint32_t reserved;
	double value[BICYCLE_NLOSSES]; /* means since the last such frame */
} BicycleLosses;

/* What was measured of the validation pairs after an iteration. */
typedef struct BicycleValidated
{
	int64_t iteration;
	uint32_t present; /* bit i: value[i], of row i of BICYCLE_MEASURES, is there */
	uint32_t reserved;
	double value[BICYCLE_NMEASURES];
} BicycleValidated;

/* Until LOSSES says more. */
typedef struct BicycleRate
{
	double images_per_second; /* at most */
} BicycleRate;

typedef struct BicyclePreview
{
	int64_t iteration;
} BicyclePreview;

/* A run says a thing once; the worker knows if an earlier run has. */
typedef enum BicycleNoteCause
{
	BICYCLE_NOTE_COLLAPSE,      /* samples do not vary with z */
	BICYCLE_NOTE_SKIPPED,       /* pairs are skipped; said of each digest */
	BICYCLE_NOTE_WAITED,        /* requests of sessions have gone first for long */
	BICYCLE_NOTE_NO_GPU,        /* there is one, and the CPU was taken */
	BICYCLE_NOTE_NO_COPY,       /* its GPU has no room for copies of checkpoints */
	BICYCLE_NOTE_OVERLAP,       /* validation pairs are trained on */
	BICYCLE_NOTE_NOT_VALIDATED, /* validation pairs are skipped */
	BICYCLE_NOTE_OTHER_PAIRS,   /* there are other validation pairs than before */
	BICYCLE_NOTE_ENDED_EARLY,   /* patience is used up */
	BICYCLE_NOTE_KEPT           /* which weights were the best */
} BicycleNoteCause;

typedef struct BicycleNote
{
	uint32_t cause; /* BicycleNoteCause */
} BicycleNote;

/* no iteration follows, also where the options have more */
#define BICYCLE_CHECKPOINT_LAST 1

/*
 * Its tensors: NN_FIT_STATE's, with the prefixes "m.", "v.", "ema."; with
 * validation also those of the best weights, with "best.", and what is known of
 * them (run_best.c).
 */
typedef struct BicycleCheckpoint
{
	int64_t iteration;
	uint64_t stream_length;
	uint32_t flags; /* BICYCLE_CHECKPOINT_LAST */
	uint32_t reserved;
} BicycleCheckpoint;

typedef struct BicycleTrainDone
{
	BicycleImported model;
	int64_t iteration; /* that its weights are of */
} BicycleTrainDone;

#endif /* BICYCLE_RUN_PROTOCOL_H */
