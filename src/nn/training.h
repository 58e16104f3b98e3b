/*
 * training.h
 *	  A schedule on a device: arrays, operands, and what a device supplies
 *	  (operators, arrays and primitives). What is the same on all devices, the
 *	  walk over a schedule, running statistics and the optimiser's order, is in
 *	  training.c.
 */
#ifndef BICYCLE_NN_TRAINING_H
#define BICYCLE_NN_TRAINING_H

#include "nn/device.h"
#include "nn/schedule.h"

/* A number rounded to bfloat16: to nearest, ties to even. */
static inline float
nn_bf16(float x)
{
	union
	{
		float number;
		uint32_t bits;
	} u = { x };

	if (x != x)
		return x;
	u.bits = (u.bits + 0x7fff + (u.bits >> 16 & 1)) & 0xffff0000;
	return u.number;
}

/* ---- Dropout ------------------------------------------------------------- */

/*
 * Whether dropout keeps an element: a function of seed, iteration, node and
 * place in the dense map, so that backward need not be told. `p` is the
 * probability to drop. nn_dropout_mask does `count` elements from a multiple of
 * 4 on: each becomes 0 or 1 / (1 - p).
 */
extern bool nn_dropout_keeps(uint64_t seed, int64_t iteration, int node, uint64_t element, float p);
extern void nn_dropout_mask(uint64_t seed, int64_t iteration, int node, uint64_t first, int count,
							float p, float *mask);

/* ---- Arrays -------------------------------------------------------------- */

/* Flat arrays of params->total numbers of the device's type, by offset. */
typedef enum NnArray
{
	NN_ARRAY_PARAM, /* buffers included */
	NN_ARRAY_GRAD,  /* of a running statistic what it becomes with the update */
	NN_ARRAY_M,
	NN_ARRAY_V,
	NN_ARRAY_EMA, /* of the first nema numbers only, G and E */
	NN_ARRAYS
} NnArray;

/* Numbers in a device's memory, of its type; data = NULL: there are none. */
typedef union NnNumbers
{
	void *data;
	float *f32;
	double *f64;
} NnNumbers;

#define NN_TRAIN_LOSSES 64 /* of an iteration, at most */

/* A schedule on a device. */
typedef struct NnTraining
{
	NnPlan plan; /* arena and device_state are the device's */
	NnSchedule schedule;
	const NnParams *params;
	size_t nema;                /* 0: no averages */
	NnNumbers array[NN_ARRAYS]; /* the device's; none until prepared */
	uint64_t seed;              /* of dropout */
	/*
	 * pass of the whole run, from 0, of which dropout is a function; the
	 * caller's
	 */
	int64_t iteration;
	int passes;        /* of an iteration; 0: one */
	int pass;          /* of them, from 0: whoever calls the walk's */
	size_t feed_bytes; /* of all feeds, in memory of a device that runs ahead */
	/* losses of iterations that are done and not finished, oldest first */
	double done[NN_STARTS][NN_TRAIN_LOSSES];
	int ndone;
} NnTraining;

/* ---- Operands ------------------------------------------------------------ */

/* A value or gradient: pixel i of all images begins at i * pitch. */
typedef struct NnMap
{
	NnShape shape;
	size_t pitch;
	bool wide; /* NnValue's, and of parameters */
	union
	{
		void *data; /* NULL: there is none */
		float *f32;
		double *f64;
	};
} NnMap;

static inline size_t
nn_map_pixels(const NnMap *map)
{
	return (size_t) map->shape.n * map->shape.h * map->shape.w;
}

static inline size_t
nn_map_count(const NnMap *map)
{
	return nn_map_pixels(map) * map->shape.c;
}

/* Where number i is, in the order (n, y, x, c). */
static inline size_t
nn_map_place(const NnMap *map, size_t i)
{
	return i / map->shape.c * map->pitch + i % map->shape.c;
}

/*
 * What a node's forward step works on, and its backward step besides. What it
 * does not have is none: a backward step makes those gradients only that there
 * is a place for, and takes one that is none for 0.
 */
typedef struct NnOperands
{
	const NnDevice *device;
	const NnTraining *training; /* NULL at inference */
	const NnNode *node;
	int index; /* of the node */
	NnMap in[NN_MAX_IN];
	NnMap out[NN_MAX_OUT];
	/*
	 * mean and biased variance of each channel, (N or 1, 1, 1, 2C); what an
	 * instance norm's mean is counted from is the device's affair
	 */
	NnMap stats;
	NnNumbers weight, bias;
	NnNumbers mean, var; /* running statistics of a batch norm */

	NnMap dout[NN_MAX_OUT];
	NnMap din[NN_MAX_IN];
	NnGradMode in_mode[NN_MAX_IN];
	NnNumbers dweight, dbias;
	NnGradMode weight_mode, bias_mode;
} NnOperands;

/* Bytes of an element of the arena, and of a number of an array. */
typedef struct NnSizes
{
	size_t element, number;
} NnSizes;

/* A node's forward operands, its own of `parameters`. */
extern NnOperands nn_operands(const NnPlan *plan, int node, NnNumbers parameters, NnSizes sizes);

/* ---- What a device supplies ---------------------------------------------- */

typedef NnStatus (*NnOpStep)(const NnOperands *op, NnError *error);

typedef struct NnOpImpl
{
	NnOpStep forward, backward;
} NnOpImpl;

/* For a device's declarations of the operators by NN_OPERATORS. */
#define NN_DECLARE_STEPS(forward, backward)                        \
	extern NnStatus forward(const NnOperands *op, NnError *error); \
	extern NnStatus backward(const NnOperands *op, NnError *error);

/* In the place of operators that only inference has. */
#define NN_DECLARE_NONE(OP, name)

/* Where an input's data is, dense and in the device's type. */
typedef struct NnFeed
{
	int value;
	const void *data;
} NnFeed;

/* Kingma and Ba 2015, as PyTorch rounds it: both moments' bias is corrected. */
typedef struct NnAdam
{
	double lr, beta1, beta2, epsilon;
	int64_t t;  /* of this update, from 1 */
	double ema; /* decay of the averages */
} NnAdam;

/*
 * One iteration: what goes in, what comes out, and its update. Each pass is one
 * over the schedule, with feeds of its own; losses and gradients of the passes
 * add up.
 */
typedef struct NnIterate
{
	const NnFeed *feeds; /* of the first pass, then of the second ... */
	int nfeeds, passes;
	const int *losses; /* single numbers */
	int nlosses;
	NnAdam adam;
	double step, root; /* as adam below has them; start makes them */
} NnIterate;

/* All steps of the schedule, in order; what a device is given to call. */
typedef NnStatus (*NnTrainWalk)(NnDevice *device, NnTraining *training, NnError *error);

/*
 * Of a device that trains beside the caller. Iterations are finished in the
 * order in which they were started, and at most NN_STARTS are open. All feeds
 * of the next start lie in `feeds`, training->feed_bytes that are the caller's
 * until then while less than NN_STARTS are open; every start has the same feeds
 * and losses. An iteration whose losses are not all finite updates nothing, nor
 * do those after it.
 */
typedef struct NnTrainAhead
{
	void *(*feeds)(NnDevice *device, NnTraining *training);
	NnStatus (*start)(NnDevice *device, NnTraining *training, const NnIterate *iteration,
					  NnTrainWalk walk, NnError *error);
	NnStatus (*finish)(NnDevice *device, NnTraining *training, int nlosses, double *values,
					   NnError *error);
} NnTrainAhead;

/*
 * Of a device that copies its arrays, all but gradients, faster within its own
 * memory than to the caller's: as they are after all that was started. Another
 * thread may get and drop, in turn, while the owner goes on.
 */
typedef struct NnTrainSnapshots
{
	/* what one takes of the device's memory */
	size_t (*bytes)(const NnTraining *training);
	NnStatus (*take)(NnDevice *device, NnTraining *training, void **snapshot, NnError *error);
	/* numbers [offset, offset + count) */
	NnStatus (*get)(NnDevice *device, const void *snapshot, NnArray array, size_t offset,
					size_t count, void *data, NnError *error);
	void (*drop)(NnDevice *device, void *snapshot);
} NnTrainSnapshots;

/*
 * Whole or absent: a device that trains has all of these, but `end`, `ahead`,
 * `snapshots`, `repack` with `finite`, and one of adam and update.
 *
 * R1 A device owns arena, arrays and state of an NnTraining from prepare to
 *    release; release also cleans up after a prepare that failed, and does
 *    nothing to one that is all zeros.
 * R2 Work may be queued: an error of one call may show at a later one, and
 *    what is done is done when `number` or `get` is back.
 */
typedef struct NnTrainDevice
{
	NnDtype dtype; /* of arrays and feeds: NN_F32 or NN_F64 */
	bool host;     /* arrays are in memory that the caller may read */
	/*
	 * bytes of an element of the arena; NULL: of a number. Of half precision
	 * wide values are of numbers all the same.
	 */
	size_t (*element)(NnPrecision precision);
	bool (*trains_in)(const NnDevice *device, NnPrecision precision);
	NnPrecision (*automatic)(const NnDevice *device); /* what precision auto means: the faster */
	/* What prepare will take of the device's memory; from shapes alone. */
	size_t (*bytes)(const NnDevice *device, const NnTraining *training);
	NnStatus (*prepare)(NnDevice *device, NnTraining *training, NnError *error);
	void (*release)(NnDevice *device, NnTraining *training);

	/*
	 * By NnOp; INPUT has none. With only_adds, backward steps add to whatever
	 * is in their gradients, and what is to be overwritten is zeroed before.
	 */
	const NnOpImpl *ops;
	bool only_adds;

	/*
	 * Before the steps of a pass: the device's threads may be others. And after
	 * them, if all went well; NULL: it is not asked for.
	 */
	NnStatus (*begin)(NnDevice *device, NnTraining *training, NnError *error);
	void (*end)(NnDevice *device, NnTraining *training);

	/* map = 0; map = the caller's dense data; *value = its first number */
	NnStatus (*zero)(NnDevice *device, const NnTraining *training, const NnMap *map,
					 NnError *error);
	NnStatus (*feed)(NnDevice *device, const NnTraining *training, const NnMap *map,
					 const void *data, NnError *error);
	NnStatus (*number)(NnDevice *device, const NnTraining *training, const NnMap *map,
					   double *value, NnError *error);

	/*
	 * to = base + share (from numerator / denominator - base), for n numbers;
	 * to and base may be the same
	 */
	NnStatus (*follow)(NnDevice *device, const NnTraining *training, NnNumbers to, NnNumbers base,
					   NnNumbers from, size_t n, double share, double numerator, double denominator,
					   NnError *error);

	/*
	 * Adam on numbers [first, end) of the arrays: with moments m and v updated,
	 * param -= step m / (sqrt(v) / root + epsilon).
	 */
	NnStatus (*adam)(NnDevice *device, NnTraining *training, size_t first, size_t end,
					 const NnAdam *adam, double step, double root, NnError *error);

	/*
	 * Or all of an update at once, statistics and averages included; NULL: by
	 * the two above.
	 */
	NnStatus (*update)(NnDevice *device, NnTraining *training, const NnAdam *adam, double step,
					   double root, NnError *error);

	const NnTrainAhead *ahead;         /* NULL: the caller waits */
	const NnTrainSnapshots *snapshots; /* NULL: the caller waits for `get` */

	/*
	 * What the device's pack made of a network of this training, anew, of an
	 * array's numbers as they are; NULL: as fast by way of the caller.
	 */
	NnStatus (*repack)(NnDevice *device, const NnTraining *training, NnArray array,
					   const NnGraph *graph, void *packed, NnError *error);
	/* Whether the first `count` numbers are; count > 0. */
	NnStatus (*finite)(NnDevice *device, const NnTraining *training, NnArray array, size_t count,
					   bool *finite, NnError *error);

	/* Copies numbers [offset, offset + count) to or from the caller. */
	NnStatus (*get)(NnDevice *device, NnTraining *training, NnArray array, size_t offset,
					size_t count, void *data, NnError *error);
	NnStatus (*put)(NnDevice *device, NnTraining *training, NnArray array, size_t offset,
					size_t count, const void *data, NnError *error);
} NnTrainDevice;

/* ---- The walk (training.c) ----------------------------------------------- */

extern NnSizes nn_training_sizes(const NnDevice *device, NnPrecision precision);

/* Lays out training->plan, which has its graph, device and schedule. */
extern NnStatus nn_training_plan(NnTraining *training, NnError *error);

/*
 * An iteration in two halves: its update is made only if all losses are finite,
 * which finish tells. A device that cannot run ahead does all in the first.
 */
extern NnStatus nn_training_start(NnDevice *device, NnTraining *training,
								  const NnIterate *iteration, NnError *error);
extern NnStatus nn_training_finish(NnDevice *device, NnTraining *training, int nlosses,
								   double *values, NnError *error);

/* Takes in the feeds, runs all steps, fetches the losses, single numbers. */
extern NnStatus nn_training_run(NnDevice *device, NnTraining *training, const NnFeed *feeds,
								int nfeeds, const int *losses, int nlosses, double *values,
								NnError *error);

/*
 * Updates the parameters that the schedule trains, its running statistics, and
 * the averages.
 */
extern NnStatus nn_training_update(NnDevice *device, NnTraining *training, const NnAdam *adam,
								   NnError *error);

#endif /* BICYCLE_NN_TRAINING_H */
