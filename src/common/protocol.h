/*
 * protocol.h
 *	  What PostgreSQL's side and the engine say to each other.
 *
 * src/common is what both programs are compiled from: neither postgres.h nor a
 * header of the engine is included there.
 *
 * Transport: a stream socket on one machine, both ends the same user.
 * Everything is sent in the machine's byte order, in frames of a BicycleFrame
 * header and `length` bytes of body. Structs below have no padding and are sent
 * as they are; variable parts follow the struct in the order named.
 *
 * A connection starts with HELLO from the client and HELLO or ERROR from the
 * engine. After that the client sends requests, each under a 64-bit id of its
 * choice (not 0), unique on the connection until answered. Replies come in any
 * order.
 *
 *	 client                      engine
 *	 RESERVE id {bytes}       ->   a request of that many bytes of body wants a
 *	                               place in queue_memory
 *	                          <-   GRANT id: in arrival order; now the client
 *	                               sends the request itself
 *	 TRANSLATE|ENCODE|INFO|CHECK|PLOT|GRID|LPIPS|COMPARE|MATCH|HALVES
 *	 id                       ->
 *	                          <-   NEED_MODEL id {hash}: the model is not
 *	                               resident, or this database has not shown
 *	                               that it owns it; the request waits in the
 *	                               engine. One client at a time is asked
 *	 LOAD id2 {hash, ...} DATA.. END
 *	                          ->   the model's tensors in a stream; id2 is a
 *	                               request of its own
 *	 NO_MODEL id {sqlstate...}
 *	                          ->   the client cannot: the request fails with its
 *	                               own error; the next waiter is asked
 *	                          <-   STARTED id: work on the request begins: from
 *	                               here on a crash counts as an attempt. Sent
 *	                               for streams too, before anything of them is
 *	                               parsed
 *	                          <-   RESULT id | ERROR id: ends the request and
 *	                               frees its place once the client has read it
 *	 CANCEL id                ->   withdraws: no further frame will come for id
 *	                               once CANCELLED id has. It comes for every
 *	                               CANCEL,
 *	                          <-   CANCELLED id: also if the request has ended
 *	                               meanwhile
 *
 * Requests whose bodies are files or models (LOAD, IMPORT, INSPECT, EXPORT)
 * take no RESERVE: the header frame states the total, the engine reserves it
 * from engine_memory and answers GRANT or ERROR, then DATA frames follow, then
 * END. Their results may come as RESULT (the fixed part) followed by DATA
 * frames and END. CREATE has a header frame only: it gets no GRANT and sends
 * neither DATA nor END. Closing a connection withdraws everything on it.
 *
 * A LOAD may be sent unasked, too. If it fails, so do all requests of its
 * connection that waited for that model when it was complete: NO_MODEL is not
 * needed then. If nothing comes from the client that was asked, others are
 * asked besides after two seconds.
 *
 * Who sends what was not granted, frames of unknown type or wrong length, or an
 * id twice, gets ERROR 08P01 and the connection ends.
 *
 * Neither side ever blocks on the other: the engine reads and writes what epoll
 * says can be, a client that waits to write also reads.
 */
#ifndef BICYCLE_PROTOCOL_H
#define BICYCLE_PROTOCOL_H

#include "common/limits.h"
#include "common/names.h"

#include <stdint.h>

#define BICYCLE_MAGIC 0x42494359 /* "BICY" */
#define BICYCLE_PROTOCOL 1
/* of the first engine; see bicycle_engine_file */
#define BICYCLE_SOCKET "bicycle.sock"
#define BICYCLE_LOCK "bicycle.lock"

/* largest body of a frame but those of RESERVE; longer streams are cut */
#define BICYCLE_MAX_FRAME (1u << 20)
#define BICYCLE_HASH_BYTES 32

typedef enum BicycleFrameType
{
	/* both ways */
	BICYCLE_HELLO = 1, /* BicycleHello */
	BICYCLE_DATA,      /* bytes of the stream of request id */
	BICYCLE_END,       /* end of that stream */

	/* client to engine */
	BICYCLE_RESERVE = 16, /* BicycleReserve */
	BICYCLE_CANCEL,       /* no body */
	BICYCLE_NO_MODEL,     /* BicycleError: why the model cannot be sent */
	BICYCLE_TRANSLATE,    /* BicycleImageRequest, nz floats, image */
	BICYCLE_ENCODE,       /* BicycleImageRequest, image */
	BICYCLE_INFO,         /* BicycleImageRequest (hash unused), image */
	BICYCLE_LOAD,         /* BicycleLoad, config JSON; then a tensor stream */
	BICYCLE_IMPORT, /* BicycleImport, config JSON; then generator and encoder files back to back */
	/* BicycleImport, config JSON (with init_type, init_gain, seed), no files */
	BICYCLE_CREATE,
	BICYCLE_INSPECT, /* BicycleImport; then the file */
	BICYCLE_EXPORT,  /* BicycleExport; then a tensor stream */
	BICYCLE_STATUS,  /* no body */
	BICYCLE_CACHE,   /* no body */
	/* BicycleImageRequest (hash unused) with a BicyclePlot; result: a PNG */
	BICYCLE_PLOT,
	BICYCLE_TRAIN_CHECK, /* BicycleTrainCheck, config JSON, options JSON; no GRANT, DATA or END */
	BICYCLE_CHECK,       /* BicycleImageRequest (hash unused), image */
	BICYCLE_LPIPS,       /* BicycleImageRequest, image, second image */
	BICYCLE_COMPARE,     /* the same (hash unused) */
	BICYCLE_MATCH,       /* the same */
	BICYCLE_HALVES,      /* BicycleImageRequest (hash unused), image */
	BICYCLE_GRID,        /* BicycleImageRequest (hash unused) with a BicycleGrid */

	/* engine to client */
	BICYCLE_GRANT = 64, /* no body */
	BICYCLE_NEED_MODEL, /* 32 bytes of hash */
	BICYCLE_STARTED,    /* no body */
	BICYCLE_RESULT,     /* depends on the request, see below */
	BICYCLE_ERROR,      /* BicycleError */
	BICYCLE_CANCELLED   /* no body */
} BicycleFrameType;

typedef struct BicycleFrame
{
	uint32_t length; /* of the body */
	uint32_t type;
	uint64_t id; /* 0 in HELLO, STATUS and CACHE requests may use any */
} BicycleFrame;

typedef struct BicycleHello
{
	uint32_t magic;
	uint32_t protocol;
	char build[32];    /* version of bicycle; the two must be equal */
	uint32_t database; /* client: OID of its database */
	int32_t pid;
} BicycleHello;

/*
 * Fields of an error as PostgreSQL reports them; each string ends with a NUL,
 * the three follow one another after the struct.
 */
typedef struct BicycleError
{
	char sqlstate[8];        /* five characters and a NUL */
	uint32_t message_length; /* with the NUL; detail and hint are empty strings when absent */
	uint32_t detail_length;
	uint32_t hint_length;
	uint32_t reserved;
} BicycleError;

typedef struct BicycleReserve
{
	uint64_t bytes; /* length of the body of the request to come */
} BicycleReserve;

/* was started when an engine died: run it with nothing beside it */
#define BICYCLE_FLAG_ALONE 1
#define BICYCLE_FLAG_BULK 2   /* behind interactive requests */
#define BICYCLE_FLAG_EXIF 4   /* the image is turned upright first */
#define BICYCLE_FLAG_OPAQUE 8 /* MATCH, HALVES: alpha of the image, or the first, does not count */

typedef enum BicycleOutputFormat
{
	BICYCLE_OUTPUT_PNG,
	BICYCLE_OUTPUT_JPEG,
	BICYCLE_OUTPUT_WEBP,
	BICYCLE_OUTPUT_WEBP_LOSSLESS /* jpeg_quality does not count */
} BicycleOutputFormat;

/* What a generator makes of images that are not of its size. */
typedef enum BicycleFit
{
	BICYCLE_FIT_MODEL,  /* as the model's configuration says */
	BICYCLE_FIT_SQUARE, /* brings them to the model's size, which the answer has */
	BICYCLE_FIT_INPUT   /* runs near their size, which the answer has */
} BicycleFit;

typedef struct BicycleImageRequest
{
	uint8_t hash[BICYCLE_HASH_BYTES]; /* of the model's content */
	uint32_t flags;
	uint32_t precision; /* BicyclePrecision, up to bf16; LPIPS is fp32 in any case */
	uint32_t output_format;
	uint32_t jpeg_quality;
	uint32_t nz;           /* floats that follow; TRANSLATE only */
	uint32_t image_length; /* bytes that follow them */
	uint64_t max_pixels;   /* bicycle.max_image_pixels of the session */
	uint32_t debug; /* bicycle.debug_fault: 0 none, at its start 1 crash the engine, 2 hang */
	uint32_t fit;   /* BicycleFit; TRANSLATE only */
	uint32_t second_length; /* bytes of a second image; LPIPS, COMPARE, MATCH */
	uint32_t png_level;     /* 0 to BICYCLE_PNG_LEVEL_MOST */
} BicycleImageRequest;

/*
 * RESULT of TRANSLATE: the encoded image. Of ENCODE: 2 * nz floats, mu then
 * logvar. Of INFO: BicycleImageInfo. Of CHECK: nothing if all pixels can be
 * decoded, else why not, in UTF-8 without a NUL. Of LPIPS: BicycleDistance, and
 * 2 * nfeatures floats, those of the first image and those of the second. Of
 * COMPARE: BicycleComparison. Of MATCH: the first image as a PNG of the second
 * one's size, gray or colour as that is. Of HALVES: BicycleHalves.
 */
typedef struct BicycleImageInfo
{
	char format[8]; /* "png", "jpeg", "webp" */
	int32_t width, height, channels, bit_depth;
} BicycleImageInfo;

typedef struct BicycleDistance
{
	double distance;
	uint32_t nfeatures; /* means over the last map of an image */
	uint32_t reserved;
} BicycleDistance;

/* Of the first image, and the second brought to its size, gray or colour. */
typedef struct BicycleComparison
{
	double l1; /* mean absolute difference of their values, as 0 to 255 */
} BicycleComparison;

/* Of an image that is two, side by side: two PNGs follow, left and right. */
typedef struct BicycleHalves
{
	uint32_t left_length;
	uint32_t reserved;
} BicycleHalves;

/* Curves: for each series a BicycleSeries and its finite points. */
typedef struct BicyclePlot
{
	uint32_t width, height; /* 160 to 8192 */
	uint32_t series;        /* 64 at most */
	uint32_t reserved;
	char title[128]; /* UTF-8, with a NUL */
} BicyclePlot;

typedef struct BicycleSeries
{
	char name[32];
	uint32_t points;
	uint32_t reserved;
} BicycleSeries;

typedef struct BicyclePoint
{
	double x; /* iteration; in rising order */
	double y;
} BicyclePoint;

/*
 * Many images on one page: for each cell a BicycleCell, then the bytes of its
 * image and of its label. RESULT: BicycleGridDone, `reported` BicycleBadCells,
 * and the page, in the format of the request.
 */
typedef struct BicycleGrid
{
	uint32_t columns; /* 0: about as many as rows */
	uint32_t size;    /* of a cell, in pixels; 0: as the largest image, up to 256 */
	uint32_t cells;
	uint32_t labelled; /* 1: a line of text stands below each cell */
} BicycleGrid;

#define BICYCLE_NO_IMAGE UINT32_MAX

typedef struct BicycleCell
{
	uint32_t image_length; /* BICYCLE_NO_IMAGE: an empty cell */
	uint32_t label_length; /* UTF-8 */
} BicycleCell;

#define BICYCLE_GRID_MIN_SIDE 8
#define BICYCLE_GRID_MAX_SIDE 4096
#define BICYCLE_GRID_MAX_EXTENT 65535        /* of a page, in pixels */
#define BICYCLE_GRID_MAX_PIXELS (256u << 20) /* a value of PostgreSQL holds its file */
#define BICYCLE_GRID_REASONS 3

/* Images that could not be used (22P03, 54000), whose cells are empty. */
typedef struct BicycleGridDone
{
	uint32_t bad;      /* how many there are */
	uint32_t reported; /* and of how many it is said why; BICYCLE_GRID_REASONS at most */
} BicycleGridDone;

typedef struct BicycleBadCell
{
	uint32_t cell; /* from 0 on */
	uint32_t reserved;
	char sqlstate[8];
	char text[3][256]; /* message, detail, hint; UTF-8, with a NUL */
} BicycleBadCell;

/*
 * A tensor stream, in the DATA frames of LOAD, EXPORT and of the result of
 * IMPORT and CREATE: for each tensor a BicycleTensor directly followed by its
 * bytes. Frame borders mean nothing. What a client sends may come in any order:
 * the engine knows the networks and sorts. What the engine sends, and what the
 * hash covers, is in the order of the networks (G, E, D, D2) and within each of
 * the official state_dict.
 */
typedef struct BicycleTensor
{
	char name[BICYCLE_MAX_NAME];
	char network[8]; /* BICYCLE_NETWORKS */
	char dtype[8];   /* BICYCLE_DTYPES */
	uint32_t ndim;
	uint32_t reserved;
	int64_t shape[8];
	uint64_t nbytes;
} BicycleTensor;

typedef struct BicycleLoad
{
	uint8_t hash[BICYCLE_HASH_BYTES]; /* as the database says; the engine computes it anew */
	char model[BICYCLE_MAX_NAME];     /* name and version, for bicycle_cache() and messages */
	int32_t version;
	uint32_t config_length; /* JSON text that follows */
	uint64_t stream_length; /* bytes of the tensor stream */
} BicycleLoad;              /* RESULT: no body */

typedef struct BicycleImport
{
	uint64_t generator_length; /* CREATE: 0 */
	uint64_t encoder_length;   /* 0: none */
	uint32_t config_length;
	/*
	 * IMPORT: 1, the files are backbone and heads of LPIPS, and the config says
	 * of which; else 0
	 */
	uint32_t lpips;
	uint64_t max_model_size; /* bytes; 54000 beyond */
} BicycleImport;

/*
 * RESULT of IMPORT, CREATE; canonical config JSON, a JSON object of the options
 * that were assumed, and the tensors follow.
 */
typedef struct BicycleImported
{
	uint8_t hash[BICYCLE_HASH_BYTES];
	uint64_t stream_length;
	uint32_t config_length;
	uint32_t ntensors;
	uint32_t assumed_length; /* 0: nothing was assumed */
	uint32_t reserved;
} BicycleImported;

/* RESULT of INSPECT: a count; then BicycleTensor structs alone, in DATA. */
typedef struct BicycleInspected
{
	uint32_t ntensors;
	uint32_t reserved;
} BicycleInspected;

typedef struct BicycleExport
{
	uint64_t stream_length;
	char format[16]; /* "safetensors" or "pth" */
} BicycleExport;     /* RESULT: uint64 length of the file, which follows in DATA frames */

/* RESULT of STATUS; the strings are NUL-terminated. */
typedef struct BicycleStatus
{
	int32_t pid;
	uint32_t protocol;
	char device[128];
	char precision[16]; /* what auto means on this device */
	uint64_t uptime_ms;
	uint64_t requests; /* answered since start, errors included */
	uint64_t batches;
	uint64_t batched;          /* requests that ran in those batches */
	uint64_t queued;           /* waiting or running now */
	uint64_t memory;           /* bytes of the host held: models, arenas, requests */
	uint64_t gpu_memory;       /* bytes the device has taken of its own, what it keeps included */
	uint64_t gpu_memory_limit; /* and that it may take; 0: it has none */
} BicycleStatus;

/*
 * RESULT of CACHE: a count in `bytes` of one BicycleCached each, whole structs
 * one after the other.
 */
typedef struct BicycleCached
{
	uint8_t hash[BICYCLE_HASH_BYTES];
	char model[BICYCLE_MAX_NAME]; /* as the connection's database named it; "" if it has not */
	int32_t version;
	char precision[12];
	uint64_t bytes;
	uint64_t hits;
	uint64_t loaded_ms_ago;
	uint64_t used_ms_ago;
	uint32_t pins;      /* batches using it now */
	uint32_t databases; /* that have shown they own it */
} BicycleCached;

/*
 * Are these options of a training job right? config is that of the version it
 * continues, or {}; what the options say goes over it, but what shapes weights
 * that are there must not differ. RESULT: all options as canonical JSON, as
 * TRAIN_BEGIN takes them (run_protocol.h).
 */
typedef struct BicycleTrainCheck
{
	uint32_t config_length;
	uint32_t options_length;
} BicycleTrainCheck;

/*
 * The supervisor's side: descriptor 3 of the engine is one end of a stream
 * socket pair. Lines of text, each ended by '\n'; empty ones say nothing.
 *
 *	 supervisor to engine: "set NAME VALUE" (before "go", and after a reload),
 *	                       "go", "ping N", "stop", "trim": memory of a GPU
 *	                       that is only kept is to be given back
 *	 engine to supervisor: "log LEVEL TEXT" (debug, info, log, warning, error),
 *	                       "ready DESCRIPTION", "pong N", "fatal TEXT",
 *	                       "opening" each second before "ready", while a
 *	                       device is being opened
 *	                       "device 1 N DESCRIPTION" whenever it has opened one,
 *	                       0 for 1 if there is none; N is the number of GPUs
 *	                       that were seen, 0 if none was looked for
 *	                       "busy N" and "idle": requests wait for GPU N, which
 *	                       it computes on, or none has for a moment; it is
 *	                       idle at first
 *
 * EOF on it ends the engine at once. Settings are the rows ENGINE_... and
 * OWN_... of common/settings.def: names as they are, bytes, counts,
 * milliseconds and 0 or 1 in decimal. An engine whose batch (by a layer of it),
 * decoder or encoder comes no further for stuck_timeout, or whose loader for
 * ten times that, gives no pong any more. To open a GPU it has ten minutes
 * more.
 */
#define BICYCLE_CONTROL_FD 3

/*
 * GOMP_SPINCOUNT of the engine: half a millisecond or so. Less than one in ten
 * barriers of a network then puts a thread to sleep, and where another process
 * has a thread's processor the others do not spin for long.
 */
#define BICYCLE_SPIN_COUNT "20000"

#endif /* BICYCLE_PROTOCOL_H */
